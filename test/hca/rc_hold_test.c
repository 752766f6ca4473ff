/* Acknowledgements that the owner holds: nothing goes before its time, nothing else waits for it.
 */
#include "rc_wire.h"

static struct wire w;
static const struct wire_conf conf = {.timeout = 14, .retry_cnt = 7};

static void waits_for_release(void **state)
{
    wire_open(&w, &conf);
    hca_hold_acks(w.hca[1], true);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 64, 0);
    wire_run_for(&w, 1 * MS_NS);
    assert_true(hca_acks_held(w.hca[1]));
    assert_int_equal(wire_count(&w, 1, ROCE_ACK), 0);
    wire_no_wc(w.scq[0]);
    hca_hold_acks(w.hca[1], false);
    assert_false(hca_acks_held(w.hca[1]));
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    assert_int_equal(wire_count(&w, 1, ROCE_ACK), 1);
    assert_int_equal(hca_counters(w.hca[0])->tx_retransmits, 0);
    wire_close(&w);
}

static void goes_behind_the_request_of_its_burst(void **state)
{
    wire_open(&w, &conf);
    hca_hold_acks(w.hca[1], true);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 64, 0);
    wire_run_for(&w, 1 * MS_NS);
    hca_hold_acks(w.hca[1], false);
    uint32_t from = w.nlog;
    wire_post(&w, 1, 0, HCA_WR_RDMA_WRITE, 2, 0, 0, 64, 0);
    wire_run_for(&w, 5 * US_NS);
    assert_int_equal(w.nlog - from, 2);
    assert_int_equal(w.log[from].opcode, ROCE_WRITE_ONLY);
    assert_int_equal(w.log[from + 1].opcode, ROCE_ACK);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.scq[1], 2, HCA_WC_SUCCESS);
    wire_close(&w);
}

/* READ data, atomic results and own requests do not wait, however many there are. */
static void keeps_nothing_else_back(void **state)
{
    wire_open(&w, &conf);
    hca_hold_acks(w.hca[1], true);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 64, 0);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 2, 0, 0, 100000, 0);
    wire_run_for(&w, 5 * MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS); /* the READ's response covers it */
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 3, 0, 0, 64, 0);
    wire_run_for(&w, 1 * MS_NS);
    assert_true(hca_acks_held(w.hca[1]));
    for (uint64_t i = 0; i < 100; i++)
        wire_post(&w, 1, 0, HCA_WR_RDMA_WRITE, 10 + i, 0, 1 << 20, 5000, 0);
    wire_run_for(&w, 3 * MS_NS); /* meanwhile side 0 may probe for its WRITE */
    for (uint64_t i = 0; i < 100; i++) wire_expect(w.scq[1], 10 + i, HCA_WC_SUCCESS);
    assert_int_equal(wire_count(&w, 1, ROCE_ACK), 0);
    hca_hold_acks(w.hca[1], false);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 3, HCA_WC_SUCCESS);
    wire_close(&w);
}

static void forgets_a_destroyed_qp(void **state)
{
    wire_open(&w, &conf);
    hca_hold_acks(w.hca[1], true);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 64, 0);
    wire_run_for(&w, 1 * MS_NS);
    struct hca_qp_attr reset = {.state = HCA_QPS_RESET};
    assert_int_equal(hca_qp_modify(w.hca[1], w.qp[1][0], &reset, HCA_QP_STATE, w.now), 0);
    assert_false(hca_acks_held(w.hca[1]));
    hca_hold_acks(w.hca[1], false);
    wire_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_for_release),
        cmocka_unit_test(goes_behind_the_request_of_its_burst),
        cmocka_unit_test(keeps_nothing_else_back),
        cmocka_unit_test(forgets_a_destroyed_qp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
