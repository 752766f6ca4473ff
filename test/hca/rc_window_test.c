/* The byte window: where it starts, how it grows and is cut; the cap over all QPs and its fairness;
 * many QPs into one small receive buffer. */
#include "base/bits.h"
#include "hca/window.h"
#include "rc_wire.h"
#include "wire/ip.h"
#include <sys/mman.h>

static struct wire w;

#define RTT_NS (2 * WIRE_DELAY_NS)

static uint32_t cost(const struct seen *p)
{
    return p->opcode == ROCE_READ_REQUEST ? 0 : p->len + WINDOW_PACKET_OVERHEAD;
}

/* Bytes with overhead that side 0 sent at this moment. */
static uint64_t sent_at(when_t at)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < w.nlog; i++)
        if (w.log[i].from == 0 && w.log[i].at.ns == at.ns) sum += cost(&w.log[i]);
    return sum;
}

/* Each round trip carries what the window holds: it doubles, up to max_window. */
static void slow_start(void **state)
{
    wire_open(&w, &(struct wire_conf){
                      .timeout = 14, .retry_cnt = 7, .start_window = 16384, .max_window = 100000});
    when_t t = w.now;
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 2 << 20, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    uint64_t most = 16384;
    assert_in_range(sent_at(t), most - 1536, most);
    for (int i = 0; i < 5; i++) {
        t = when_add(t, RTT_NS);
        most = most * 2 < 100000 ? most * 2 : 100000;
        assert_in_range(sent_at(t), most / 2, most);
    }
    assert_in_range(sent_at(t), 90000, 100000);
    wire_close(&w);
}

/* A window that never held anything back does not grow. */
static void unused_stays(void **state)
{
    wire_open(&w, &(struct wire_conf){
                      .timeout = 14, .retry_cnt = 7, .start_window = 16384, .max_window = 100000});
    for (uint32_t i = 0; i < 1000; i++) {
        wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, i, 0, 0, 1000, 0);
        wire_run_for(&w, RTT_NS);
        wire_expect(w.scq[0], i, HCA_WC_SUCCESS);
    }
    when_t t = w.now;
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 200000, 0);
    wire_run(&w, NEVER);
    assert_true(sent_at(t) <= 16384);
    wire_close(&w);
}

/* PSN 20 is lost at its first sending, PSN 30 at its second. */
static enum fate lose_twice(struct wire *wire, const struct seen *p)
{
    if (p->from || p->psn.v != (wire->budget ? 30 : 20)) return PASS;
    wire->budget++;
    return wire->budget == 1 || wire->budget == 3 ? DROP : PASS;
}

/* Two losses among what one window held halve it once. */
static void cut_once(void **state)
{
    wire_open(&w, &(struct wire_conf){
                      .timeout = 14, .retry_cnt = 7, .start_window = 65536, .max_window = 65536});
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 1 << 20, 0);
    when_t t = w.now;
    w.script = lose_twice;
    wire_run_for(&w, 3 * RTT_NS);
    assert_in_range(sent_at(when_add(t, RTT_NS)), 30000, 32768); /* resent at the NAK */
    assert_in_range(sent_at(when_add(t, 2 * RTT_NS)), 30000, 32768);
    assert_int_equal(hca_counters(w.hca[0])->packet_seq_err, 2);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_close(&w);
}

/* The first window is marked as a whole. */
static enum fate mark_first(struct wire *wire, const struct seen *p)
{
    return p->from == 0 && p->psn.v < 10 ? MARKED : PASS;
}

/* Congestion that is told of: the peer says so once, and the window is halved with nothing lost. */
static void told_of_congestion(void **state)
{
    enum { WINDOW = 10 * 4608, HALF = WINDOW / 2 };
    wire_open(&w, &(struct wire_conf){.timeout = 14,
                                      .retry_cnt = 7,
                                      .path_mtu = 5,
                                      .start_window = WINDOW,
                                      .max_window = WINDOW});
    w.script = mark_first;
    when_t t = w.now;
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 1 << 18, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    assert_int_equal(wire_count(&w, 1, ROCE_CNP_OPCODE), 1);
    assert_int_equal(hca_counters(w.hca[1])->ecn_marked, 10);
    assert_int_equal(hca_counters(w.hca[1])->cnp_sent, 1);
    assert_int_equal(hca_counters(w.hca[0])->cnp_received, 1);
    assert_int_equal(hca_counters(w.hca[0])->tx_retransmits, 0);
    assert_int_equal(sent_at(t), WINDOW);
    assert_in_range(sent_at(when_add(t, RTT_NS)), 1, HALF);
    for (uint32_t i = 0; i < w.nlog; i++)
        assert_int_equal(w.log[i].traffic_class, w.log[i].opcode == ROCE_CNP_OPCODE ? 0 : ECN_ECT0);
    wire_close(&w);
}

/* While all is marked, one notification goes in 50 us. */
static enum fate mark_all(struct wire *wire, const struct seen *p) { return MARKED; }

static void told_of_it_now_and_then(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7, .start_window = 16384});
    w.script = mark_all;
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 1 << 20, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    when_t last = {0};
    uint32_t told = 0;
    for (uint32_t i = 0; i < w.nlog; i++) {
        if (w.log[i].from != 1 || w.log[i].opcode != ROCE_CNP_OPCODE) continue;
        assert_true(when_since(w.log[i].at, last) >= 50 * US_NS);
        last = w.log[i].at;
        told++;
    }
    assert_true(told > 10);
    assert_int_equal(hca_counters(w.hca[0])->cnp_received, told);
    wire_close(&w);
}

/* A window's acknowledgements come in four parts, whatever the size of a burst. */
static void asks_four_times(void **state)
{
    wire_open(
        &w, &(struct wire_conf){
                .timeout = 14, .retry_cnt = 7, .start_window = 16 * 1536, .max_window = 16 * 1536});
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 100000, 0);
    wire_run_for(&w, RTT_NS / 4);
    assert_int_equal(w.nlog, 16);
    for (uint32_t i = 0; i < 16; i++) assert_int_equal(w.log[i].ackreq, i % 4 == 3);
    wire_close(&w);
}

/* On a new port the window is moderate again. */
static void moved_starts_small(void **state)
{
    wire_open(&w, &(struct wire_conf){
                      .timeout = 14, .retry_cnt = 7, .start_window = 16384, .max_window = 200000});
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 3 << 20, 0);
    wire_run_for(&w, 10 * RTT_NS);
    assert_true(sent_at(w.now) > 100000);
    w.now.ns++;
    wire_steer(&w, 0, 1);
    wire_run_for(&w, 0);
    assert_in_range(sent_at(w.now), 14000, 16384);
    wire_close(&w);
}

/* Whatever the window, PSNs outstanding can be told apart: here 2^31 bytes are 2^23 of them. */
static void psns_bounded(void **state)
{
    wire_open(&w, &(struct wire_conf){.path_mtu = 1,
                                      .timeout = 14,
                                      .retry_cnt = 7,
                                      .start_window = UINT32_MAX,
                                      .max_window = UINT32_MAX});
    void *huge =
        mmap(NULL, 1ul << 31, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(huge != MAP_FAILED);
    struct hca_mr *mr;
    assert_int_equal(hca_mr_reg(w.hca[0], w.pd[0], huge, 1ul << 31, (uintptr_t)huge,
                                HCA_ACCESS_LOCAL_WRITE, &mr),
                     0);
    struct hca_sge sge = {(uintptr_t)huge, 1u << 31, hca_mr_lkey(mr)};
    struct hca_send_wr wr = wire_wr(&w, 0, HCA_WR_RDMA_READ, 1, 0);
    wr.sge = &sge;
    wr.num_sge = 1;
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
    struct hca_tx tx[16];
    size_t n = hca_output(w.hca[0], tx, 16, w.now);
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += get_be32(tx[i].hdr + 24);
    assert_in_range(bytes / 256, 1 << 20, 1 << 22);
    munmap(huge, 1ul << 31);
    wire_close(&w);
}

/* However small it is told to be, one packet always goes. */
static void one_packet(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14,
                                      .retry_cnt = 7,
                                      .path_mtu = 5,
                                      .start_window = 1,
                                      .max_window = 1,
                                      .inflight_cap = 1,
                                      .nqp = 2});
    for (uint32_t q = 0; q < 2; q++) {
        wire_post(&w, 0, q, HCA_WR_RDMA_WRITE, 1, 0, 0, 100000, 0);
        wire_post(&w, 0, q, HCA_WR_RDMA_READ, 2, 0, 0, 100000, 0);
    }
    wire_run(&w, NEVER);
    for (int i = 0; i < 4; i++) assert_int_equal(wire_wc(w.scq[0]).status, HCA_WC_SUCCESS);
    assert_int_equal(hca_counters(w.hca[0])->tx_retransmits, 0);
    wire_close(&w);
}

/* 64 QPs under a cap that holds fewer packets than there are QPs: never more in flight, none
 * advances at more than twice another's rate, and none waits for ever. */
static void cap_and_fairness(void **state)
{
    enum { QPS = 64, LEN = 100 * 1024, CAP = 40 * (1024 + 512) };
    wire_open(&w,
              &(struct wire_conf){.timeout = 14, .retry_cnt = 7, .nqp = QPS, .inflight_cap = CAP});
    for (uint32_t q = 0; q < QPS; q++) wire_post(&w, 0, q, HCA_WR_RDMA_WRITE, q, 0, 0, LEN, 0);
    wire_run(&w, NEVER);
    uint32_t sent[QPS] = {0}, least = 0;
    uint64_t in_flight = 0;
    for (uint32_t i = 0, j = 0; i < w.nlog; i++) {
        const struct seen *p = &w.log[i];
        if (p->from) continue;
        for (; w.log[j].at.ns + RTT_NS <= p->at.ns; j++)
            if (!w.log[j].from) in_flight -= cost(&w.log[j]);
        in_flight += cost(p);
        assert_true(in_flight <= CAP);
        for (uint32_t q = 0; q < QPS; q++)
            if (hca_qp_num(w.qp[1][q]) == p->dqpn) assert_true(++sent[q] <= 2 * least + 20);
        least = sent[0];
        for (uint32_t q = 1; q < QPS; q++) least = sent[q] < least ? sent[q] : least;
    }
    for (uint32_t q = 0; q < QPS; q++) assert_int_equal(wire_wc(w.scq[0]).status, HCA_WC_SUCCESS);
    assert_int_equal(least, LEN / 1024);
    assert_int_equal(hca_counters(w.hca[0])->tx_retransmits, 0);
    wire_close(&w);
}

/* A QP that dies with bytes out gives them back. */
static void failed_gives_back(void **state)
{
    wire_open(&w,
              &(struct wire_conf){.timeout = 14, .retry_cnt = 7, .nqp = 2, .inflight_cap = 65536});
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 0, 0, 0, 1 << 20, 0);
    wire_run_for(&w, WIRE_DELAY_NS);
    struct hca_qp_attr a = {.state = HCA_QPS_ERR};
    assert_int_equal(hca_qp_modify(w.hca[0], w.qp[0][0], &a, HCA_QP_STATE, w.now), 0);
    wire_expect(w.scq[0], 0, HCA_WC_WR_FLUSH_ERR);
    when_t t = w.now;
    wire_post(&w, 0, 1, HCA_WR_RDMA_WRITE, 1, 0, 0, 1 << 20, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    assert_true(sent_at(t) > 60000);
    wire_close(&w);
}

/* Side 1 has a socket buffer of 200 KB that its program drains at 1 byte/ns. */
static enum fate small_buffer(struct wire *wire, const struct seen *p)
{
    static uint64_t held;
    static when_t drained;
    if (p->from) return PASS;
    uint64_t gone = when_since(p->at, drained);
    held = held > gone ? held - gone : 0;
    drained = p->at;
    if (held + cost(p) > 200 * 1024) {
        wire->budget++;
        return DROP;
    }
    held += cost(p);
    return PASS;
}

static void small_receive_buffer(void **state)
{
    enum { QPS = 64 };
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7, .nqp = QPS, .path_mtu = 5});
    w.script = small_buffer;
    when_t start = w.now;
    for (uint32_t q = 0; q < QPS; q++) wire_post(&w, 0, q, HCA_WR_RDMA_WRITE, q, 0, 0, 1 << 20, 0);
    wire_run(&w, when_add(w.now, 3 * SEC_NS));
    for (uint32_t q = 0; q < QPS; q++) assert_int_equal(wire_wc(w.scq[0]).status, HCA_WC_SUCCESS);
    print_message("64 MiB into 200 KB: %lu packets lost, %lu resent\n", (unsigned long)w.budget,
                  (unsigned long)hca_counters(w.hca[0])->tx_retransmits);
    assert_int_equal(hca_counters(w.hca[0])->local_ack_timeout_err, 0);
    assert_true(when_since(w.now, start) <= 3 * SEC_NS);
    wire_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slow_start),         cmocka_unit_test(unused_stays),
        cmocka_unit_test(cut_once),           cmocka_unit_test(moved_starts_small),
        cmocka_unit_test(psns_bounded),       cmocka_unit_test(asks_four_times),
        cmocka_unit_test(told_of_congestion), cmocka_unit_test(told_of_it_now_and_then),
        cmocka_unit_test(one_packet),         cmocka_unit_test(cap_and_fairness),
        cmocka_unit_test(failed_gives_back),  cmocka_unit_test(small_receive_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
