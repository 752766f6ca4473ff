/* XRC (annex A14): an initiator sends to SRQs by number through one target. The transport is RC's,
 * whose own tests are the files beside this one; here is what XRC adds. */
#include "rc_wire.h"
#include <errno.h>

static struct wire w;

static const struct wire_conf sane = {
    .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .min_rnr_timer = 1, .xrc = true};

static bool event_is(enum hca_event_type type, void *owner)
{
    struct hca_event event;
    while (hca_next_event(w.hca[1], &event))
        if (event.type == type && event.owner == owner) return true;
    return false;
}

static struct hca_srq *new_srq(uint32_t xrcd, uint32_t pd, struct hca_cq *cq)
{
    struct hca_srq_init init = {
        .pd = pd, .xrcd = xrcd, .cq = cq, .max_wr = 16, .max_sge = 1, .owner = &w.srq};
    struct hca_srq *srq;
    assert_int_equal(hca_srq_create(w.hca[1], &init, &srq), 0);
    return srq;
}

static void every_operation(void **state)
{
    wire_open(&w, &sane);
    wire_fill(&w, 0, 0, 8000, 7);
    wire_fill(&w, 1, 20000, 8000, 8);
    wire_recv(&w, 1, 0, 100, 40000, 8000);
    wire_recv(&w, 1, 0, 101, 0, 0);
    wire_recv(&w, 1, 0, 102, 50000, 100);
    wire_post(&w, 0, 0, HCA_WR_SEND, 1, 0, 0, 8000, 0);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 2, 0, 60000, 5000, 0);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE_WITH_IMM, 3, 0, 70000, 3000, 0);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 4, 20000, 20000, 8000, 0);
    wire_post(&w, 0, 0, HCA_WR_ATOMIC_FETCH_AND_ADD, 5, 30000, 80000, 8, 0);
    wire_post(&w, 0, 0, HCA_WR_ATOMIC_CMP_AND_SWP, 6, 30008, 80000, 8, 0);
    wire_post(&w, 0, 0, HCA_WR_SEND_WITH_IMM, 7, 0, 0, 100, 0);
    wire_run(&w, NEVER);
    for (uint64_t id = 1; id <= 7; id++) wire_expect(w.scq[0], id, HCA_WC_SUCCESS);
    wire_same(&w, 0, 40000, 8000);
    wire_same(&w, 0, 60000, 5000);
    wire_same(&w, 0, 70000, 3000);
    wire_same(&w, 20000, 20000, 8000);
    struct hca_wc wc = wire_wc(w.rcq[1]);
    assert_int_equal(wc.wr_id, 100);
    assert_int_equal(wc.byte_len, 8000);
    assert_int_equal(wc.qpn, hca_qp_num(w.qp[1][0]));
    assert_int_equal(wc.src_qpn, hca_qp_num(w.qp[0][0]));
    wc = wire_wc(w.rcq[1]);
    assert_int_equal(wc.wr_id, 101);
    assert_int_equal(wc.opcode, HCA_WC_RECV_RDMA_WITH_IMM);
    assert_int_equal(wc.imm_be, 3);
    wire_expect(w.rcq[1], 102, HCA_WC_SUCCESS);
    for (uint32_t i = 0; i < w.nlog; i++) assert_int_equal(w.log[i].opcode & 0xe0, ROCE_XRC);
    wire_close(&w);
}

static void send_to(uint32_t srqn, uint64_t id, uint32_t len)
{
    w.xrc_srqn = srqn;
    wire_post(&w, 0, 0, HCA_WR_SEND, id, 0, 0, len, 0);
}

static void each_srq_has_its_receives_and_cq(void **state)
{
    wire_open(&w, &sane);
    uint32_t cqe = 16;
    struct hca_cq *cq;
    assert_int_equal(hca_cq_create(w.hca[1], &cqe, NULL, &cq), 0);
    struct hca_srq *second = new_srq(WIRE_XRCD, w.pd[1], cq);
    uint32_t first = w.xrc_srqn;
    assert_int_not_equal(first, hca_srq_num(second));
    assert_int_equal(hca_srq_num(second) >> HCA_INDEX_BITS,
                     hca_qp_num(w.qp[1][0]) >> HCA_INDEX_BITS);
    wire_recv(&w, 1, 0, 100, 40000, 4000);
    wire_recv(&w, 1, 0, 101, 50000, 4000);
    struct hca_sge sge = {(uintptr_t)w.mem[1] + 60000, 4000, hca_mr_lkey(w.mr[1])};
    struct hca_recv_wr wr = {.wr_id = 200, .sge = &sge, .num_sge = 1};
    assert_int_equal(hca_srq_post(w.hca[1], second, &wr), 0);
    wire_fill(&w, 0, 0, 4000, 3);
    send_to(first, 1, 4000);
    send_to(hca_srq_num(second), 2, 3000);
    send_to(first, 3, 2000);
    wire_run(&w, NEVER);
    for (uint64_t id = 1; id <= 3; id++) wire_expect(w.scq[0], id, HCA_WC_SUCCESS);
    wire_expect(w.rcq[1], 100, HCA_WC_SUCCESS);
    wire_expect(w.rcq[1], 101, HCA_WC_SUCCESS);
    wire_expect(cq, 200, HCA_WC_SUCCESS);
    wire_same(&w, 0, 40000, 4000);
    wire_same(&w, 0, 60000, 3000);
    wire_same(&w, 0, 50000, 2000);
    assert_int_equal(hca_cq_destroy(w.hca[1], cq), -EBUSY);
    assert_int_equal(hca_srq_destroy(w.hca[1], second), 0);
    assert_int_equal(hca_cq_destroy(w.hca[1], cq), 0);
    wire_close(&w);
}

/* One more behind the failing request is flushed, and both QPs end in ERR. */
static void both_fail(enum hca_wc_status status)
{
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, status);
    wire_no_wc(w.scq[0]);
    assert_int_equal(wire_state(&w, 0), HCA_QPS_ERR);
    assert_int_equal(wire_state(&w, 1), HCA_QPS_ERR);
}

static void unknown_and_foreign_srqs(void **state)
{
    for (int how = 0; how < 4; how++) {
        wire_open(&w, &sane);
        wire_recv(&w, 1, 0, 100, 40000, 100);
        struct hca_srq *foreign = new_srq(WIRE_XRCD + 1, w.pd[1], w.rcq[1]);
        uint32_t srqn = w.xrc_srqn;
        if (how == 0) srqn++;                      /* nobody's */
        if (how == 1) srqn += 1 << HCA_INDEX_BITS; /* another function's */
        if (how == 2) srqn = hca_srq_num(foreign); /* another domain's */
        if (how == 3) srqn = 0;
        send_to(srqn, 1, 50);
        both_fail(HCA_WC_REM_INV_REQ_ERR);
        assert_true(event_is(HCA_EVENT_QP_REQ_ERR, NULL));
        wire_no_wc(w.rcq[1]);
        wire_close(&w);
    }
}

/* The peer's keys are looked up in the PD of the SRQ that the request names: the target has none.
 */
static void pd_is_the_srqs(void **state)
{
    const enum hca_wr_opcode ops[] = {HCA_WR_RDMA_WRITE, HCA_WR_RDMA_READ,
                                      HCA_WR_ATOMIC_FETCH_AND_ADD};
    for (size_t i = 0; i < 3; i++) {
        wire_open(&w, &sane);
        struct hca_srq *other = new_srq(WIRE_XRCD, hca_pd_alloc(w.hca[1]), w.rcq[1]);
        w.xrc_srqn = hca_srq_num(other);
        wire_post(&w, 0, 0, ops[i], 1, 0, 0, 8, 0);
        both_fail(HCA_WC_REM_ACCESS_ERR);
        assert_true(event_is(HCA_EVENT_QP_ACCESS_ERR, NULL));
        wire_close(&w);
    }
}

static void receives_run_out(void **state)
{
    wire_open(&w, &sane);
    send_to(w.xrc_srqn, 1, 50);
    wire_run_for(&w, 5 * MS_NS);
    assert_true(hca_counters(w.hca[1])->rnr_nak_sent > 0);
    wire_no_wc(w.scq[0]);
    wire_recv(&w, 1, 0, 100, 40000, 100);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.rcq[1], 100, HCA_WC_SUCCESS);
    wire_close(&w);
    struct wire_conf conf = sane;
    conf.rnr_retry = 1;
    wire_open(&w, &conf);
    send_to(w.xrc_srqn, 1, 50);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_RNR_RETRY_EXC_ERR);
    assert_int_equal(wire_state(&w, 1), HCA_QPS_RTS);
    wire_close(&w);
}

static void receive_too_short(void **state)
{
    wire_open(&w, &sane);
    wire_recv(&w, 1, 0, 100, 40000, 100);
    send_to(w.xrc_srqn, 1, 101);
    both_fail(HCA_WC_REM_INV_REQ_ERR);
    wire_expect(w.rcq[1], 100, HCA_WC_LOC_LEN_ERR);
    wire_no_wc(w.rcq[1]);
    assert_true(event_is(HCA_EVENT_QP_LAST_WQE_REACHED, NULL));
    wire_close(&w);
}

/* What an SRQ holds is not the target's to flush; what its message has taken is. */
static void target_fails_in_a_message(void **state)
{
    wire_open(&w, &sane);
    wire_recv(&w, 1, 0, 100, 40000, 9000);
    wire_recv(&w, 1, 0, 101, 50000, 9000);
    const struct roce_hdr first = {
        .opcode = ROCE_XRC | ROCE_SEND_FIRST, .xrc_srqn = w.xrc_srqn, .psn = psn_of(0)};
    uint8_t payload[1024] = {1};
    wire_inject(&w, 1, &first, payload, 1024);
    struct hca_qp_attr attr = {.state = HCA_QPS_ERR};
    assert_int_equal(hca_qp_modify(w.hca[1], w.qp[1][0], &attr, HCA_QP_STATE, w.now), 0);
    wire_expect(w.rcq[1], 100, HCA_WC_WR_FLUSH_ERR);
    wire_no_wc(w.rcq[1]);
    wire_close(&w);
}

static void srq_goes_in_a_message(void **state)
{
    wire_open(&w, &sane);
    wire_recv(&w, 1, 0, 100, 40000, 9000);
    const struct roce_hdr first = {
        .opcode = ROCE_XRC | ROCE_SEND_FIRST, .xrc_srqn = w.xrc_srqn, .psn = psn_of(0)};
    struct roce_hdr last = first;
    last.opcode = ROCE_XRC | ROCE_SEND_LAST;
    last.psn = psn_of(1);
    uint8_t payload[1024] = {1};
    wire_inject(&w, 1, &first, payload, 1024);
    assert_int_equal(hca_srq_destroy(w.hca[1], w.srq), 0);
    wire_inject(&w, 1, &last, payload, 100);
    wire_run(&w, NEVER);
    assert_int_equal(wire_state(&w, 1), HCA_QPS_ERR);
    wire_no_wc(w.rcq[1]);
    wire_close(&w);
}

static void message_keeps_to_its_srq(void **state)
{
    wire_open(&w, &sane);
    struct hca_srq *second = new_srq(WIRE_XRCD, w.pd[1], w.rcq[1]);
    wire_recv(&w, 1, 0, 100, 40000, 9000);
    struct roce_hdr h = {
        .opcode = ROCE_XRC | ROCE_SEND_FIRST, .xrc_srqn = w.xrc_srqn, .psn = psn_of(0)};
    uint8_t payload[1024] = {1};
    wire_inject(&w, 1, &h, payload, 1024);
    h.opcode = ROCE_XRC | ROCE_SEND_LAST;
    h.psn = psn_of(1);
    h.xrc_srqn = hca_srq_num(second);
    wire_inject(&w, 1, &h, payload, 100);
    wire_run(&w, NEVER);
    wire_expect(w.rcq[1], 100, HCA_WC_WR_FLUSH_ERR);
    assert_int_equal(wire_state(&w, 1), HCA_QPS_ERR);
    wire_close(&w);
}

static void cq_overruns(void **state)
{
    wire_open(&w, &sane);
    uint32_t cqe = 1;
    struct hca_cq *cq;
    assert_int_equal(hca_cq_create(w.hca[1], &cqe, NULL, &cq), 0);
    struct hca_srq *small = new_srq(WIRE_XRCD, w.pd[1], cq);
    struct hca_recv_wr wr = {.wr_id = 7};
    for (int i = 0; i < 3; i++) assert_int_equal(hca_srq_post(w.hca[1], small, &wr), 0);
    send_to(hca_srq_num(small), 8, 0);
    send_to(hca_srq_num(small), 9, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 8, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 9, HCA_WC_SUCCESS);
    assert_true(event_is(HCA_EVENT_SRQ_ERR, &w.srq));
    assert_int_equal(wire_state(&w, 1), HCA_QPS_RTS); /* its other SRQs are well */
    send_to(hca_srq_num(small), 1, 0);
    both_fail(HCA_WC_REM_OP_ERR);
    wire_close(&w);
}

static enum fate lose_some(struct wire *wire, const struct seen *packet)
{
    return wire_random(wire) % 10 == 0 ? DROP : wire_random(wire) % 20 == 0 ? TWICE : PASS;
}

static void lost_packets_are_resent(void **state)
{
    wire_open(&w, &sane);
    w.script = lose_some;
    wire_fill(&w, 0, 0, 200000, 3);
    wire_fill(&w, 1, 500000, 100000, 4);
    for (uint64_t i = 0; i < 20; i++) {
        wire_recv(&w, 1, 0, 100 + i, 1000000 + (uint32_t)i * 10000, 10000);
        wire_post(&w, 0, 0, HCA_WR_SEND, i * 3, (uint32_t)i * 10000, 0, 10000, 0);
        wire_post(&w, 0, 0, HCA_WR_RDMA_READ, i * 3 + 1, 500000 + (uint32_t)i * 5000,
                  500000 + (uint32_t)i * 5000, 5000, 0);
        wire_post(&w, 0, 0, HCA_WR_ATOMIC_FETCH_AND_ADD, i * 3 + 2, 900000, 900000, 8, 0);
    }
    wire_run(&w, NEVER);
    for (uint64_t i = 0; i < 60; i++) wire_expect(w.scq[0], i, HCA_WC_SUCCESS);
    for (uint64_t i = 0; i < 20; i++) wire_expect(w.rcq[1], 100 + i, HCA_WC_SUCCESS);
    wire_same(&w, 0, 1000000, 200000);
    wire_same(&w, 500000, 500000, 100000);
    wire_close(&w);
}

static void members_change(void **state)
{
    wire_open(&w, &sane);
    wire_fill(&w, 0, 0, 100000, 3);
    wire_recv(&w, 1, 0, 100, 1000000, 100000);
    wire_post(&w, 0, 0, HCA_WR_SEND, 1, 0, 0, 100000, 0);
    wire_run_for(&w, 15 * US_NS);
    wire_steer(&w, 0, 1);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.rcq[1], 100, HCA_WC_SUCCESS);
    wire_same(&w, 0, 1000000, 100000);
    assert_int_equal(hca_counters(w.hca[0])->timeouts, 0);
    wire_close(&w);
}

static void creation(void **state)
{
    wire_open(&w, &sane);
    struct hca_qp *qp;
    struct hca_qp_init init = {.type = HCA_QPT_XRC_RECV};
    assert_int_equal(hca_qp_create(w.hca[1], &init, &qp), -EINVAL); /* no domain */
    init = (struct hca_qp_init){.type = HCA_QPT_XRC_SEND, .pd = w.pd[1]};
    assert_int_equal(hca_qp_create(w.hca[1], &init, &qp), -EINVAL); /* no CQ */
    init = (struct hca_qp_init){
        .type = HCA_QPT_RC, .pd = w.pd[1], .send_cq = w.scq[1], .recv_cq = w.rcq[1], .srq = w.srq};
    assert_int_equal(hca_qp_create(w.hca[1], &init, &qp), -EINVAL); /* an XRC SRQ is no QP's own */
    init = (struct hca_qp_init){.type = HCA_QPT_XRC_SEND,
                                .pd = w.pd[1],
                                .send_cq = w.scq[1],
                                .recv_cq = w.rcq[1],
                                .cap = {5, 7, 0, 3, 0}};
    assert_int_equal(hca_qp_create(w.hca[1], &init, &qp), 0);
    assert_int_equal(init.cap.max_send_wr, 8);
    assert_int_equal(init.cap.max_send_sge, 1);
    assert_int_equal(init.cap.max_recv_wr, 0);
    assert_int_equal(init.cap.max_recv_sge, 0);
    assert_int_equal(hca_qp_destroy(w.hca[1], qp), 0);
    struct hca_srq_init no_cq = {.pd = w.pd[1], .xrcd = 3, .max_wr = 1};
    struct hca_srq *srq;
    assert_int_equal(hca_srq_create(w.hca[1], &no_cq, &srq), -EINVAL);
    wire_close(&w);
}

static void halves_that_are_not_there(void **state)
{
    wire_open(&w, &sane);
    struct hca_recv_wr recv = {.wr_id = 1};
    struct hca_send_wr send = {.opcode = HCA_WR_SEND};
    assert_int_equal(hca_post_recv(w.hca[0], w.qp[0][0], &recv, w.now), -EINVAL);
    assert_int_equal(hca_post_recv(w.hca[1], w.qp[1][0], &recv, w.now), -EINVAL);
    assert_int_equal(hca_post_send(w.hca[1], w.qp[1][0], &send, w.now), -EINVAL);
    /* A request to an initiator and a response to a target find nobody. */
    const struct roce_hdr request = {.opcode = ROCE_XRC | ROCE_SEND_ONLY, .psn = psn_of(0)};
    const struct roce_hdr response = {.opcode = ROCE_XRC | ROCE_ACK, .aeth.syndrome = 0x1f};
    const struct roce_hdr rc = {.opcode = ROCE_SEND_ONLY};
    wire_inject(&w, 0, &request, NULL, 0);
    wire_inject(&w, 1, &response, NULL, 0);
    wire_inject(&w, 1, &rc, NULL, 0);
    wire_run(&w, NEVER);
    assert_int_equal(hca_counters(w.hca[0])->rx_dropped, 1);
    assert_int_equal(hca_counters(w.hca[1])->rx_bad_qp, 1);
    assert_int_equal(w.nlog, 0);
    wire_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation),
        cmocka_unit_test(each_srq_has_its_receives_and_cq),
        cmocka_unit_test(unknown_and_foreign_srqs),
        cmocka_unit_test(pd_is_the_srqs),
        cmocka_unit_test(receives_run_out),
        cmocka_unit_test(receive_too_short),
        cmocka_unit_test(target_fails_in_a_message),
        cmocka_unit_test(srq_goes_in_a_message),
        cmocka_unit_test(message_keeps_to_its_srq),
        cmocka_unit_test(cq_overruns),
        cmocka_unit_test(lost_packets_are_resent),
        cmocka_unit_test(members_change),
        cmocka_unit_test(creation),
        cmocka_unit_test(halves_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
