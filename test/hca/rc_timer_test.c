/* RC clocks: the local ACK timeout and what it charges, the probe that charges nothing, RNR waits,
 * and ports that come and go. */
#include "hca/rc_timer.h"
#include "hca/steering.h"
#include "rc_wire.h"

static struct wire w;

#define T_NS(code) (4096ull << (code))

static enum fate cut(struct wire *wire, const struct seen *p) { return DROP; }

static enum fate cut_member_0(struct wire *wire, const struct seen *p)
{
    return p->member == 0 ? DROP : PASS;
}

static when_t first_error(uint64_t id, enum hca_wc_status status, uint64_t within_ns)
{
    when_t end = when_add(w.now, within_ns);
    struct hca_wc wc;
    while (hca_cq_poll(w.scq[0], &wc, 1) == 0) {
        assert_true(when_before(w.now, end));
        wire_run_for(&w, US_NS);
    }
    assert_int_equal(wc.status, status);
    assert_int_equal(wc.wr_id, id);
    return w.now;
}

static void near(uint64_t got, uint64_t want) { assert_in_range(got, want, want + 2 * US_NS); }

/* IBTA table 45 by its values. */
static void rnr_table(void **state)
{
    static const uint64_t us[32] = {655360, 10,    20,    30,     40,     60,     80,     120,
                                    160,    240,   320,   480,    640,    960,    1280,   1920,
                                    2560,   3840,  5120,  7680,   10240,  15360,  20480,  30720,
                                    40960,  61440, 81920, 122880, 163840, 245760, 327680, 491520};
    for (uint8_t i = 0; i < 32; i++) assert_true(rc_rnr_ns(i) == us[i] * US_NS);
}

static void retry_exhausted(void **state)
{
    for (uint8_t timeout = 8; timeout <= 14; timeout += 3) {
        for (uint8_t retry = 0; retry <= 7; retry += 7) {
            wire_open(&w, &(struct wire_conf){.timeout = timeout, .retry_cnt = retry});
            w.script = cut;
            when_t start = w.now;
            wire_recv(&w, 0, 0, 9, 0, 8);
            wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 8, 0);
            wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 2, 0, 0, 8, 0);
            when_t end = first_error(1, HCA_WC_RETRY_EXC_ERR, 10 * SEC_NS);
            near(when_since(end, start), T_NS(timeout) * (retry + 1u));
            wire_expect(w.scq[0], 2, HCA_WC_WR_FLUSH_ERR);
            wire_expect(w.rcq[0], 9, HCA_WC_WR_FLUSH_ERR);
            assert_int_equal(wire_state(&w, 0), HCA_QPS_ERR);
            assert_int_equal(hca_counters(w.hca[0])->timeouts, retry);
            assert_true(when_is_never(hca_deadline(w.hca[0])));
            wire_close(&w);
        }
    }
}

/* A fault in the middle of a message stops the clocks, though packets of it went out. */
static void local_fault_stops(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 10, .retry_cnt = 7});
    struct hca_send_wr wr = wire_wr(&w, 0, HCA_WR_RDMA_WRITE, 1, 0);
    uint32_t lkey = hca_mr_lkey(w.mr[0]);
    uint64_t base = (uint64_t)(uintptr_t)w.mem[0];
    struct hca_sge sge[2] = {{base, 4096, lkey}, {base + 4096, 4096, lkey ^ 1}};
    wr.sge = sge;
    wr.num_sge = 2;
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
    wire_run(&w, NEVER);
    assert_true(wire_count(&w, 0, ROCE_WRITE_FIRST) == 1);
    wire_expect(w.scq[0], 1, HCA_WC_LOC_PROT_ERR);
    assert_int_equal(wire_state(&w, 0), HCA_QPS_ERR);
    assert_true(when_is_never(hca_deadline(w.hca[0])));
    assert_true(w.now.ns < 10 * SEC_NS);
    wire_close(&w);
}

static void timeout_0_is_never(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 0, .retry_cnt = 0});
    w.script = cut;
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 8, 0);
    wire_run_for(&w, 3600 * SEC_NS);
    wire_no_wc(w.scq[0]);
    w.script = NULL;
    wire_run_for(&w, 2 * SEC_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_close(&w);
}

/* Forward progress gives the retries back. */
static enum fate every_other_time(struct wire *wire, const struct seen *p)
{
    return p->at.ns / T_NS(12) % 4 < 2 ? PASS : DROP;
}

static void progress_restores_retries(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 12, .retry_cnt = 5});
    w.script = every_other_time;
    w.rtt_extra_ns = 3 * MS_NS;
    for (uint32_t i = 0; i < 20; i++) wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, i, 0, 0, 200000, 0);
    wire_run(&w, NEVER);
    for (uint32_t i = 0; i < 20; i++) wire_expect(w.scq[0], i, HCA_WC_SUCCESS);
    assert_true(hca_counters(w.hca[0])->timeouts > 5);
    wire_close(&w);
}

/* A packet lost in silence is resent by the probe long before the timeout, uncharged. */
static void probe_is_free(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 20, .retry_cnt = 0});
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 8, 0);
    wire_run_for(&w, MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    w.script = cut;
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 2, 0, 0, 8, 0);
    wire_run_for(&w, 500 * US_NS);
    w.script = NULL;
    wire_run_for(&w, 2 * MS_NS);
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    assert_int_equal(hca_counters(w.hca[0])->timeouts, 0);
    wire_close(&w);
}

/* A probe is one packet, and the next one waits twice as long. */
static void probes_double(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 18, .retry_cnt = 7});
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 8, 0);
    wire_run_for(&w, MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    w.script = cut;
    w.nlog = 0;
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 2, 0, 0, 10240, 0);
    wire_run_for(&w, 40 * MS_NS);
    assert_int_equal(w.nlog, 10 + 4); /* at 2, 6, 14, 30 ms */
    for (uint32_t i = 0, ms = 2, at = 2; i < 4; i++, ms *= 2, at += ms)
        near(when_since(w.log[10 + i].at, w.log[0].at), at * MS_NS);
    wire_close(&w);
}

/* The way becomes as long as three timeouts while a window is out: after a resend or two the clocks
 * wait for it, and the window stays as it was. */
static void way_grows(void **state)
{
    enum { LEN = 2 << 20, WINDOW = 65536 };
    wire_open(&w, &(struct wire_conf){.timeout = 14,
                                      .retry_cnt = 7,
                                      .path_mtu = 5,
                                      .start_window = WINDOW,
                                      .max_window = WINDOW});
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, LEN, 0);
    wire_run_for(&w, 200 * US_NS);
    w.rtt_extra_ns = 100 * MS_NS;
    when_t start = w.now;
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    uint64_t trips = LEN / (WINDOW - 8 * 512) + 1;
    assert_true(when_since(w.now, start) < (trips + 3) * 200 * MS_NS);
    assert_in_range(hca_counters(w.hca[0])->tx_retransmits, 1, 40);
    assert_in_range(hca_counters(w.hca[0])->timeouts, 1, 4);
    wire_close(&w);
}

/* ---- RNR --------------------------------------------------------------------------------- */

static void rnr_then_posted(void **state)
{
    wire_open(&w, &(struct wire_conf){
                      .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .min_rnr_timer = 14});
    wire_fill(&w, 0, 0, 5000, 1);
    wire_post(&w, 0, 0, HCA_WR_SEND, 1, 0, 0, 5000, 0);
    wire_run_for(&w, 10 * MS_NS);
    wire_no_wc(w.scq[0]);
    assert_in_range(hca_counters(w.hca[1])->rnr_nak_sent, 7, 8); /* 1.28 ms each */
    assert_int_equal(hca_counters(w.hca[1])->out_of_sequence, 0);
    wire_recv(&w, 1, 0, 5, 0, 5000);
    wire_run_for(&w, 2 * MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.rcq[1], 5, HCA_WC_SUCCESS);
    wire_same(&w, 0, 0, 5000);
    assert_int_equal(hca_counters(w.hca[0])->timeouts, 0);
    wire_close(&w);
}

static void rnr_exhausted(void **state)
{
    for (uint8_t retry = 0; retry < 7; retry += 3) {
        wire_open(&w, &(struct wire_conf){
                          .timeout = 14, .retry_cnt = 7, .rnr_retry = retry, .min_rnr_timer = 12});
        when_t start = w.now;
        wire_post(&w, 0, 0, HCA_WR_SEND, 1, 0, 0, 8, 0);
        when_t end = first_error(1, HCA_WC_RNR_RETRY_EXC_ERR, SEC_NS);
        near(when_since(end, start), retry * (640 * US_NS + 2 * WIRE_DELAY_NS) + 2 * WIRE_DELAY_NS);
        assert_int_equal(wire_count(&w, 0, ROCE_SEND_ONLY), retry + 1u);
        assert_int_equal(w.log[1].syndrome, 0x20 | 12);
        assert_int_equal(wire_state(&w, 1), HCA_QPS_RTS);
        wire_close(&w);
    }
}

/* While it waits for the receiver, the ACK timeout stands still. */
static void rnr_stops_clocks(void **state)
{
    wire_open(
        &w, &(struct wire_conf){.timeout = 8, .retry_cnt = 0, .rnr_retry = 7, .min_rnr_timer = 0});
    wire_post(&w, 0, 0, HCA_WR_SEND, 1, 0, 0, 8, 0);
    wire_run_for(&w, 650 * MS_NS);
    assert_int_equal(wire_count(&w, 0, -1), 1);
    wire_recv(&w, 1, 0, 5, 0, 8);
    wire_run_for(&w, 10 * MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_close(&w);
}

static enum fate double_naks(struct wire *wire, const struct seen *p)
{
    return p->syndrome >> 5 == 1 ? TWICE : PASS;
}

/* An RNR NAK that the network doubles counts once. */
static void rnr_doubled(void **state)
{
    wire_open(&w, &(struct wire_conf){
                      .timeout = 14, .retry_cnt = 7, .rnr_retry = 1, .min_rnr_timer = 12});
    w.script = double_naks;
    wire_post(&w, 0, 0, HCA_WR_SEND, 1, 0, 0, 8, 0);
    wire_run_for(&w, 300 * US_NS);
    wire_recv(&w, 1, 0, 5, 0, 8);
    wire_run_for(&w, MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    assert_int_equal(hca_counters(w.hca[0])->rnr_nak_received, 1);
    wire_close(&w);
}

/* The data may be there, the completion waits for a receive WQE: only the last packet is resent. */
static void rnr_of_write_with_imm(void **state)
{
    wire_open(&w, &(struct wire_conf){
                      .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .min_rnr_timer = 12});
    wire_fill(&w, 0, 0, 3000, 1);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE_WITH_IMM, 1, 0, 0, 3000, 0);
    wire_run_for(&w, MS_NS);
    wire_no_wc(w.scq[0]);
    wire_recv(&w, 1, 0, 5, 0, 0);
    wire_run_for(&w, MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.rcq[1], 5, HCA_WC_SUCCESS);
    wire_same(&w, 0, 0, 3000);
    assert_int_equal(wire_count(&w, 0, ROCE_WRITE_FIRST), 1);
    wire_close(&w);
}

/* ---- ports ------------------------------------------------------------------------------- */

static void moves_at_once(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 0});
    wire_fill(&w, 0, 0, 200000, 1);
    w.script = cut_member_0;
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 200000, 0);
    wire_run_for(&w, 100 * US_NS);
    wire_no_wc(w.scq[0]);
    wire_steer(&w, 0, 1);
    wire_steer(&w, 1, 1);
    when_t moved = w.now;
    wire_run_for(&w, MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_same(&w, 0, 0, 200000);
    const struct seen *p = w.log;
    while (p->member == 0) p++;
    assert_int_equal(p->psn.v, 0);
    assert_true(p->at.ns == moved.ns);
    struct hca_qp_view view;
    hca_qp_view(w.qp[0][0], &view);
    assert_int_equal(view.remaps, 1);
    assert_true(view.last_gap_ns <= 4 * WIRE_DELAY_NS);
    wire_close(&w);
}

/* Only the responder's port moves: the ACK that died with the old one is sent again at once. */
static void responder_moves(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 0});
    wire_steer(&w, 0, 1);
    w.script = cut_member_0;
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 5000, 0);
    wire_run_for(&w, 100 * US_NS);
    wire_no_wc(w.scq[0]);
    wire_steer(&w, 1, 1);
    wire_run_for(&w, 100 * US_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    assert_int_equal(hca_counters(w.hca[0])->tx_retransmits, 0);
    wire_close(&w);
}

/* Without a member nothing goes out, but the error comes when it would have. */
static void no_member_exhausts(void **state)
{
    for (int outstanding = 0; outstanding < 2; outstanding++) {
        wire_open(&w, &(struct wire_conf){.timeout = 12, .retry_cnt = 3});
        w.script = cut;
        if (outstanding) wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 8, 0);
        wire_run_for(&w, MS_NS);
        wire_steer(&w, 0, STEER_NO_MEMBER);
        when_t start = w.now;
        uint32_t sent = w.nlog;
        if (!outstanding) wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 8, 0);
        when_t end = first_error(1, HCA_WC_RETRY_EXC_ERR, SEC_NS);
        near(when_since(end, start), 4 * T_NS(12));
        assert_int_equal(w.nlog, sent);
        wire_close(&w);
    }
}

/* Requests posted in SQD start their clock when RTS comes back, member or not. */
static void no_member_after_drain(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 12, .retry_cnt = 3});
    wire_steer(&w, 0, STEER_NO_MEMBER);
    struct hca_qp_attr a = {.state = HCA_QPS_SQD};
    assert_int_equal(hca_qp_modify(w.hca[0], w.qp[0][0], &a, HCA_QP_STATE, w.now), 0);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 8, 0);
    wire_run_for(&w, SEC_NS);
    wire_no_wc(w.scq[0]);
    a.state = HCA_QPS_RTS;
    assert_int_equal(hca_qp_modify(w.hca[0], w.qp[0][0], &a, HCA_QP_STATE, w.now), 0);
    when_t start = w.now;
    near(when_since(first_error(1, HCA_WC_RETRY_EXC_ERR, SEC_NS), start), 4 * T_NS(12));
    wire_close(&w);
}

static void member_returns(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7});
    wire_fill(&w, 0, 0, 100000, 1);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 100000, 0);
    w.script = cut_member_0;
    wire_run_for(&w, 50 * US_NS);
    wire_steer(&w, 0, STEER_NO_MEMBER);
    wire_steer(&w, 1, STEER_NO_MEMBER);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 2, 200000, 0, 5000, 0);
    wire_run_for(&w, 300 * MS_NS);
    wire_no_wc(w.scq[0]);
    wire_steer(&w, 1, 1);
    wire_steer(&w, 0, 1);
    wire_run_for(&w, MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    wire_same(&w, 0, 0, 100000);
    wire_same(&w, 200000, 0, 5000);
    wire_close(&w);
}

/* The answer comes after the member went: what was to be resent need not be. */
static void answered_after_rewind(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7, .max_rd_atomic = 1});
    wire_fill(&w, 1, 0, 5000, 1);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 1, 0, 0, 5000, 0);
    wire_run_for(&w, WIRE_DELAY_NS / 2);
    wire_steer(&w, 0, STEER_NO_MEMBER);
    wire_run_for(&w, 100 * US_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_same(&w, 0, 0, 5000);
    wire_steer(&w, 0, 1);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 2, 8192, 0, 5000, 0);
    wire_run_for(&w, 100 * US_NS);
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    assert_int_equal(wire_count(&w, 0, -1), 2);
    wire_close(&w);
}

/* A port that flaps during the resend: nothing lost, nothing twice. */
static void flapping(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7, .path_mtu = 5});
    wire_fill(&w, 0, 0, 1 << 20, 1);
    for (uint32_t i = 0; i < 16; i++) {
        wire_recv(&w, 1, 0, i, i << 16, 1 << 16);
        wire_post(&w, 0, 0, HCA_WR_SEND, i, i << 16, 0, 1 << 16, 0);
    }
    for (int i = 0; i < 40; i++) {
        wire_run_for(&w, 7 * US_NS);
        wire_steer(&w, i & 1, i % 5 == 4 ? STEER_NO_MEMBER : (uint8_t)(i / 2 & 1));
    }
    wire_steer(&w, 0, 0);
    wire_steer(&w, 1, 0);
    wire_run(&w, NEVER);
    for (uint32_t i = 0; i < 16; i++) {
        wire_expect(w.scq[0], i, HCA_WC_SUCCESS);
        wire_expect(w.rcq[1], i, HCA_WC_SUCCESS);
    }
    wire_no_wc(w.rcq[1]);
    wire_same(&w, 0, 0, 1 << 20);
    wire_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rnr_table),
        cmocka_unit_test(way_grows),
        cmocka_unit_test(retry_exhausted),
        cmocka_unit_test(local_fault_stops),
        cmocka_unit_test(timeout_0_is_never),
        cmocka_unit_test(progress_restores_retries),
        cmocka_unit_test(probe_is_free),
        cmocka_unit_test(probes_double),
        cmocka_unit_test(rnr_then_posted),
        cmocka_unit_test(rnr_exhausted),
        cmocka_unit_test(rnr_of_write_with_imm),
        cmocka_unit_test(rnr_stops_clocks),
        cmocka_unit_test(rnr_doubled),
        cmocka_unit_test(moves_at_once),
        cmocka_unit_test(responder_moves),
        cmocka_unit_test(no_member_exhausts),
        cmocka_unit_test(no_member_after_drain),
        cmocka_unit_test(member_returns),
        cmocka_unit_test(answered_after_rewind),
        cmocka_unit_test(flapping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
