/* Shared receive queues: the limit event, resizing, PDs, and the end of a QP that used one. */
#include "bed.h"
#include <errno.h>

static struct bed bed;
static struct hca_srq *srq;
static int srq_owner;

static struct hca_srq *make(struct bed *b)
{
    struct hca_srq_init init = {.pd = b->pd[1], .max_wr = 8, .max_sge = 2, .owner = &srq_owner};
    assert_int_equal(hca_srq_create(b->hca[1], &init, &srq), 0);
    return srq;
}

static int setup(void **state)
{
    bed_open_reset(&bed, HCA_QPT_UC, make);
    bed_walk(&bed, 0, HCA_QPS_RTS);
    bed_walk(&bed, 1, HCA_QPS_RTS);
    return 0;
}

static int teardown(void **state)
{
    bed_close(&bed);
    return 0;
}

static void send_one(uint64_t wr_id)
{
    struct hca_sge sge = bed_sge(&bed, 0, 0, 10);
    struct hca_send_wr wr = bed_send_wr(&bed, wr_id, &sge);
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), 0);
    bed_pump(&bed);
}

static void limit_fires_once(void **state)
{
    struct hca_event event;
    uint32_t limit = 3, max_wr, max_sge;
    for (unsigned i = 0; i < 5; i++) bed_recv(&bed, 1, i, i * 64, 64);
    assert_int_equal(hca_srq_modify(bed.hca[1], srq, NULL, &limit), 0);
    send_one(0);
    send_one(1);
    assert_false(hca_next_event(bed.hca[1], &event)); /* 3 are left: not below */
    send_one(2);
    assert_true(hca_next_event(bed.hca[1], &event));
    assert_int_equal(event.type, HCA_EVENT_SRQ_LIMIT_REACHED);
    assert_ptr_equal(event.owner, &srq_owner);
    send_one(3);
    assert_false(hca_next_event(bed.hca[1], &event));
    hca_srq_query(srq, &max_wr, &max_sge, &limit);
    assert_int_equal(max_wr, 8);
    assert_int_equal(max_sge, 2);
    assert_int_equal(limit, 0);
    for (unsigned i = 0; i < 4; i++) {
        struct hca_wc wc = bed_poll(bed.rcq[1]);
        assert_int_equal(wc.wr_id, i);
        assert_int_equal(wc.qpn, hca_qp_num(bed.qp[1]));
    }
}

static void full_resized_and_wrong(void **state)
{
    struct hca_sge sge[3] = {bed_sge(&bed, 1, 0, 8), bed_sge(&bed, 1, 0, 8),
                             bed_sge(&bed, 1, 0, 8)};
    struct hca_recv_wr wr = {.sge = sge, .num_sge = 3};
    uint32_t size = 12, small = 7, limit = 13;
    assert_int_equal(hca_srq_post(bed.hca[1], srq, &wr), -EINVAL);
    for (unsigned i = 0; i < 8; i++) bed_recv(&bed, 1, i, 0, 64);
    wr.num_sge = 1;
    assert_int_equal(hca_srq_post(bed.hca[1], srq, &wr), -ENOMEM);
    assert_int_equal(hca_srq_modify(bed.hca[1], srq, &small, NULL), -EINVAL);
    assert_int_equal(hca_srq_modify(bed.hca[1], srq, &size, &limit), -EINVAL);
    assert_int_equal(hca_srq_modify(bed.hca[1], srq, &size, NULL), 0);
    for (unsigned i = 8; i < 12; i++) bed_recv(&bed, 1, i, 0, 64);
    assert_int_equal(hca_srq_post(bed.hca[1], srq, &wr), -ENOMEM);
    for (unsigned i = 0; i < 12; i++) {
        send_one(i);
        assert_int_equal(bed_poll(bed.rcq[1]).wr_id, i);
    }
    assert_int_equal(hca_post_recv(bed.hca[1], bed.qp[1], &wr, bed.now), -EINVAL);
    assert_int_equal(hca_srq_destroy(bed.hca[1], srq), -EBUSY);
}

static void last_wqe_reached(void **state)
{
    struct hca_event event;
    bed_recv(&bed, 1, 1, 0, 64);
    bed_walk(&bed, 1, HCA_QPS_ERR);
    assert_true(hca_next_event(bed.hca[1], &event));
    assert_int_equal(event.type, HCA_EVENT_QP_LAST_WQE_REACHED);
    assert_ptr_equal(event.owner, bed_owner[1]);
    bed_empty(bed.rcq[1]); /* what the SRQ holds is not the QP's to flush */
    bed_walk(&bed, 1, HCA_QPS_ERR);
    assert_false(hca_next_event(bed.hca[1], &event));
}

static void its_own_pd_counts(void **state)
{
    uint32_t pd = hca_pd_alloc(bed.hca[1]);
    struct hca_mr *mr;
    assert_int_equal(hca_mr_reg(bed.hca[1], pd, bed.mem[1], 64, (uintptr_t)bed.mem[1],
                                HCA_ACCESS_LOCAL_WRITE, &mr),
                     0);
    struct hca_sge sge = {(uintptr_t)bed.mem[1], 64, hca_mr_lkey(mr)};
    struct hca_recv_wr wr = {.wr_id = 5, .sge = &sge, .num_sge = 1};
    assert_int_equal(hca_srq_post(bed.hca[1], srq, &wr), 0);
    send_one(0);
    struct hca_wc wc = bed_poll(bed.rcq[1]);
    assert_int_equal(wc.wr_id, 5);
    assert_int_equal(wc.status, HCA_WC_LOC_PROT_ERR); /* the key is of another PD than the SRQ's */
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(limit_fires_once),
        TEST(full_resized_and_wrong),
        TEST(last_wqe_reached),
        TEST(its_own_pd_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
