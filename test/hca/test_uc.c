/* Unreliable connections: segmentation, gaps, keys, missing receive WQEs. */
#include "bed.h"
#include <errno.h>

static struct bed bed;

static int setup(void **state)
{
    bed_open(&bed, HCA_QPT_UC);
    for (int i = 0; i < BED_MEM; i++) bed.mem[0][i] = (uint8_t)(i * 31 + (i >> 8));
    return 0;
}

static int teardown(void **state)
{
    bed_close(&bed);
    return 0;
}

static void post(enum hca_wr_opcode opcode, uint64_t wr_id, uint32_t offset, uint32_t len)
{
    struct hca_sge sge = bed_sge(&bed, 0, offset, len);
    struct hca_send_wr wr = bed_send_wr(&bed, wr_id, &sge);
    wr.opcode = opcode;
    wr.imm_be = 0x1234;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), 0);
}

static const struct hca_counters *count(void) { return hca_counters(bed.hca[1]); }

static void sends_of_many_lengths(void **state)
{
    static const uint32_t lengths[] = {0, 1, 3, 1023, 1024, 1025, 2048, 2049, 10000};
    struct hca_event event;
    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memset(bed.mem[1], 0, 20000);
        bed_recv(&bed, 1, i, 100, lengths[i]);
        post(i & 1 ? HCA_WR_SEND_WITH_IMM : HCA_WR_SEND, i, 64, lengths[i]);
        bed_pump(&bed);
        assert_int_equal(bed_poll(bed.scq[0]).wr_id, i);
        struct hca_wc wc = bed_poll(bed.rcq[1]);
        assert_int_equal(wc.status, HCA_WC_SUCCESS);
        assert_int_equal(wc.byte_len, lengths[i]);
        assert_int_equal(wc.flags, i & 1 ? HCA_WC_WITH_IMM : 0);
        assert_int_equal(wc.imm_be, i & 1 ? 0x1234 : 0);
        assert_memory_equal(bed.mem[1] + 100, bed.mem[0] + 64, lengths[i]);
        assert_int_equal(bed.mem[1][99], 0);
        assert_int_equal(bed.mem[1][100 + lengths[i]], 0);
    }
    assert_int_equal(bed.carried, 1 + 1 + 1 + 1 + 1 + 2 + 2 + 3 + 10);
    assert_false(hca_next_event(bed.hca[1], &event)); /* it was in RTS already */
}

static void writes(void **state)
{
    post(HCA_WR_RDMA_WRITE, 1, 0, 3000);
    bed_pump(&bed);
    assert_memory_equal(bed.mem[1], bed.mem[0], 3000);
    assert_int_equal(bed.mem[1][3000], 0);
    bed_empty(bed.rcq[1]);
    bed_recv(&bed, 1, 5, 0, 0);
    post(HCA_WR_RDMA_WRITE_WITH_IMM, 2, 500, 2000);
    bed_pump(&bed);
    struct hca_wc wc = bed_poll(bed.rcq[1]);
    assert_int_equal(wc.opcode, HCA_WC_RECV_RDMA_WITH_IMM);
    assert_int_equal(wc.byte_len, 2000);
    assert_int_equal(wc.imm_be, 0x1234);
    assert_memory_equal(bed.mem[1], bed.mem[0] + 500, 2000);
}

static bool lose_nth(struct bed *b, int from, const struct roce_hdr *h) { return b->limit-- != 0; }

static void a_gap_loses_the_message_alone(void **state)
{
    for (unsigned lost = 0; lost < 3; lost++) {
        bed_recv(&bed, 1, lost, 0, 4096);
        bed.carry = lose_nth;
        bed.limit = (int)lost;
        post(HCA_WR_SEND, 1, 0, 3000);
        post(HCA_WR_SEND, 2, 4096, 3000);
        bed_pump(&bed);
        assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_SUCCESS);
        assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_SUCCESS);
        /* the receive WQE that the broken message had taken serves the next one */
        struct hca_wc wc = bed_poll(bed.rcq[1]);
        assert_int_equal(wc.wr_id, lost);
        assert_int_equal(wc.byte_len, 3000);
        assert_memory_equal(bed.mem[1], bed.mem[0] + 4096, 3000);
        bed_empty(bed.rcq[1]);
    }
    assert_int_not_equal(count()->out_of_sequence, 0);
}

static void late_copies_are_dropped(void **state)
{
    struct hca_tx tx[1];
    bed_recv(&bed, 1, 1, 0, 100);
    bed_recv(&bed, 1, 2, 0, 100);
    post(HCA_WR_SEND, 1, 0, 100);
    assert_int_equal(hca_output(bed.hca[0], tx, 1, bed.now), 1);
    bed_deliver(&bed, 0, &tx[0]);
    bed_deliver(&bed, 0, &tx[0]);
    bed_poll(bed.rcq[1]);
    bed_empty(bed.rcq[1]);
    assert_int_equal(count()->duplicate_request, 1);
}

static void no_receive_wqe(void **state)
{
    post(HCA_WR_SEND, 1, 0, 3000);
    post(HCA_WR_RDMA_WRITE_WITH_IMM, 2, 0, 100);
    bed_pump(&bed);
    bed_recv(&bed, 1, 1, 0, 4096);
    post(HCA_WR_SEND, 3, 10, 1500);
    bed_pump(&bed);
    assert_int_equal(bed_poll(bed.rcq[1]).byte_len, 1500);
    bed_empty(bed.rcq[1]);
    assert_int_not_equal(count()->rx_dropped, 0);
}

static void write_refused(void **state)
{
    struct hca_sge sge = bed_sge(&bed, 0, 0, 100);
    struct hca_send_wr wr = bed_send_wr(&bed, 1, &sge);
    wr.opcode = HCA_WR_RDMA_WRITE;
    wr.rkey ^= 1;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), 0);
    wr.rkey ^= 1;
    wr.remote_addr += BED_MEM - 99;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), 0);
    bed_pump(&bed);
    assert_int_equal(count()->resp_remote_access_errors, 2);

    struct hca_qp_attr attr = {.access = HCA_ACCESS_REMOTE_READ};
    assert_int_equal(hca_qp_modify(bed.hca[1], bed.qp[1], &attr, HCA_QP_ACCESS_FLAGS, bed.now), 0);
    post(HCA_WR_RDMA_WRITE, 3, 0, 100);
    bed_pump(&bed);
    assert_int_equal(count()->resp_remote_access_errors, 3);
    for (int i = 0; i < BED_MEM; i++) assert_int_equal(bed.mem[1][i], 0);
    assert_int_equal(bed.qp[1]->state, HCA_QPS_RTS);
}

static void too_long_for_the_buffer(void **state)
{
    bed_recv(&bed, 1, 1, 0, 1500);
    post(HCA_WR_SEND, 1, 0, 1501);
    post(HCA_WR_SEND, 2, 0, 1500);
    bed_pump(&bed);
    assert_int_equal(bed_poll(bed.rcq[1]).byte_len, 1500);
    assert_int_equal(count()->resp_local_length_error, 1);
    for (int i = 1500; i < 4096; i++) assert_int_equal(bed.mem[1][i], 0);
}

static void local_errors(void **state)
{
    struct hca_sge sge[2] = {bed_sge(&bed, 0, 0, 3000), bed_sge(&bed, 0, 0, 100)};
    sge[1].lkey ^= 3;
    struct hca_send_wr wr = bed_send_wr(&bed, 1, sge);
    wr.num_sge = 2;
    bed_recv(&bed, 1, 1, 0, 4096);
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), 0);
    post(HCA_WR_SEND, 2, 0, 10);
    bed_pump(&bed);
    assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_LOC_PROT_ERR);
    assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_WR_FLUSH_ERR);
    assert_int_equal(bed.qp[0]->state, HCA_QPS_SQE);
    /* the other side holds a WQE for a message that never ends: a flush gives it back, first */
    bed_recv(&bed, 1, 2, 0, 4096);
    bed_walk(&bed, 1, HCA_QPS_ERR);
    for (uint64_t i = 1; i <= 2; i++) {
        struct hca_wc wc = bed_poll(bed.rcq[1]);
        assert_int_equal(wc.wr_id, i);
        assert_int_equal(wc.status, HCA_WC_WR_FLUSH_ERR);
    }
    bed_empty(bed.rcq[1]);
}

static void no_member_loses_and_goes_on(void **state)
{
    bed_recv(&bed, 1, 1, 0, 4096);
    bed_steer(&bed, 0, STEER_NO_MEMBER);
    for (uint64_t i = 0; i < 3; i++) post(HCA_WR_SEND, i, 0, 2500);
    bed_pump(&bed);
    for (uint64_t i = 0; i < 3; i++) assert_int_equal(bed_poll(bed.scq[0]).wr_id, i);
    bed_steer(&bed, 0, 1);
    post(HCA_WR_SEND, 4, 0, 2500);
    bed_pump(&bed);
    assert_int_equal(bed_poll(bed.rcq[1]).byte_len, 2500);
    assert_int_equal(hca_member_counters(bed.hca[0], 1)->tx_packets, 3);
    assert_int_equal(hca_member_counters(bed.hca[0], 0)->tx_packets, 0);
    assert_int_equal(hca_member_counters(bed.hca[1], 1)->rx_packets, 3);
}

static void drain(void **state)
{
    struct hca_tx tx[2];
    struct hca_event event;
    struct hca_qp_attr attr = {.state = HCA_QPS_SQD, .en_sqd_async_notify = true};
    post(HCA_WR_RDMA_WRITE, 1, 0, 3000);
    post(HCA_WR_RDMA_WRITE, 2, 0, 3000);
    assert_int_equal(hca_output(bed.hca[0], tx, 2, bed.now), 2); /* half-way in the first */
    assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr,
                                   HCA_QP_STATE | HCA_QP_EN_SQD_ASYNC_NOTIFY, bed.now),
                     0);
    hca_qp_query(bed.qp[0], &attr);
    assert_true(attr.sq_draining);
    assert_false(hca_next_event(bed.hca[0], &event));
    bed_pump(&bed);
    bed_poll(bed.scq[0]);
    bed_empty(bed.scq[0]);
    assert_true(hca_next_event(bed.hca[0], &event));
    assert_int_equal(event.type, HCA_EVENT_SQ_DRAINED);
    hca_qp_query(bed.qp[0], &attr);
    assert_false(attr.sq_draining);
    attr.state = HCA_QPS_RTS;
    assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr, HCA_QP_STATE, bed.now), 0);
    bed_pump(&bed);
    assert_int_equal(bed_poll(bed.scq[0]).wr_id, 2);
}

static void comm_established(void **state)
{
    struct bed b;
    struct hca_event event;
    bed_open_reset(&b, HCA_QPT_UC, NULL);
    bed_walk(&b, 0, HCA_QPS_RTS);
    bed_walk(&b, 1, HCA_QPS_RTR);
    for (uint64_t i = 0; i < 2; i++) {
        struct hca_send_wr wr = bed_send_wr(&b, i, NULL);
        assert_int_equal(hca_post_send(b.hca[0], b.qp[0], &wr, b.now), 0);
        bed_pump(&b);
    }
    assert_true(hca_next_event(b.hca[1], &event));
    assert_int_equal(event.type, HCA_EVENT_COMM_EST);
    assert_ptr_equal(event.owner, bed_owner[1]);
    assert_false(hca_next_event(b.hca[1], &event));
    bed_close(&b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(sends_of_many_lengths),
        TEST(writes),
        TEST(a_gap_loses_the_message_alone),
        TEST(late_copies_are_dropped),
        TEST(no_receive_wqe),
        TEST(write_refused),
        TEST(too_long_for_the_buffer),
        TEST(local_errors),
        TEST(no_member_loses_and_goes_on),
        TEST(drain),
        TEST(comm_established),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
