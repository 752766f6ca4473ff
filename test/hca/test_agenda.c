/* Deadlines against a plain array's least; QPs in turn; QP numbers that come back late. */
#include "bed.h"
#include "hca/adapter.h"
#include <errno.h>
#include <stdlib.h>

enum { NQP = 40 };

static void deadlines(void **state)
{
    struct hca *hca = hca_new(&(struct hca_conf){.function = 1, .seed = 5});
    struct hca_qp *qp[NQP];
    assert_int_equal(agenda_reserve(hca, NQP), 0);
    for (int i = 0; i < NQP; i++) {
        qp[i] = calloc(1, sizeof **qp);
        qp[i]->hca = hca;
        qp[i]->alarm = HEAP_NODE_IDLE;
    }
    uint64_t r = 88172645463325252u;
    for (int step = 0; step < 20000; step++) {
        r ^= r << 13, r ^= r >> 7, r ^= r << 17;
        when_t when = r >> 60 == 0 ? NEVER : (when_t){(r >> 20) % 1000};
        agenda_deadline(qp[r % NQP], when);
        when_t least = NEVER;
        for (int i = 0; i < NQP; i++) least = when_min(least, qp[i]->alarm.when);
        assert_int_equal(hca_deadline(hca).ns, least.ns);
    }
    for (int i = 0; i < NQP; i++) {
        agenda_deadline(qp[i], NEVER);
        free(qp[i]);
    }
    assert_true(when_is_never(hca_deadline(hca)));
    hca_free(hca);
}

/* Two QPs with much to send share a burst: neither gives more than a turn before the other. */
static void turns(void **state)
{
    struct bed bed;
    bed_open(&bed, HCA_QPT_UC);
    struct hca_qp *first = bed.qp[0];
    struct hca_qp_init init = {.type = HCA_QPT_UC,
                               .pd = bed.pd[0],
                               .send_cq = bed.scq[0],
                               .recv_cq = bed.rcq[0],
                               .cap = {.max_send_wr = 4, .max_send_sge = 1}};
    assert_int_equal(hca_qp_create(bed.hca[0], &init, &bed.qp[0]), 0);
    bed_walk(&bed, 0, HCA_QPS_RTS);
    struct hca_sge sge = bed_sge(&bed, 0, 0, 64 * 1024);
    struct hca_send_wr wr = bed_send_wr(&bed, 1, &sge);
    struct hca_tx tx[64];
    assert_int_equal(hca_post_send(bed.hca[0], first, &wr, bed.now), 0);
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), 0);
    assert_int_equal(hca_output(bed.hca[0], tx, 64, bed.now), 64);
    int of_first = 0;
    for (int i = 0; i < 64; i++) of_first += tx[i].qpn == hca_qp_num(first);
    assert_int_equal(of_first, 32);
    assert_int_equal(tx[0].qpn, hca_qp_num(first));
    assert_int_not_equal(tx[31].qpn, hca_qp_num(first));
    bed_close(&bed);
}

static void qp_numbers(void **state)
{
    struct bed bed;
    bed_open_reset(&bed, HCA_QPT_UC, NULL);
    struct hca_qp_init init = {.type = HCA_QPT_UC,
                               .send_cq = bed.scq[0],
                               .recv_cq = bed.rcq[0],
                               .cap = {.max_send_wr = 1}};
    static bool seen[HCA_MAX_QP];
    for (uint32_t i = 0; i < HCA_QPS - 1; i++) { /* the bed's QP is one */
        struct hca_qp *qp;
        assert_int_equal(hca_qp_create(bed.hca[0], &init, &qp), 0);
        qpn_t qpn = hca_qp_num(qp);
        assert_int_equal(qpn >> HCA_INDEX_BITS, 1);
        uint32_t index = qpn & (HCA_MAX_QP - 1);
        assert_true(index >= 2 && index < HCA_MAX_QP - 1); /* the last: multicast */
        assert_false(seen[qpn & (HCA_MAX_QP - 1)]);
        seen[qpn & (HCA_MAX_QP - 1)] = true;
        assert_ptr_equal(numbers_find(bed.hca[0], &bed.hca[0]->qpns, qpn), qp);
        assert_null(numbers_find(bed.hca[0], &bed.hca[0]->qpns, qpn + (1 << HCA_INDEX_BITS)));
        assert_int_equal(hca_qp_destroy(bed.hca[0], qp), 0);
        assert_null(numbers_find(bed.hca[0], &bed.hca[0]->qpns, qpn));
    }
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deadlines),
        cmocka_unit_test(turns),
        cmocka_unit_test(qp_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
