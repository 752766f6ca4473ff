/* RC over a wire that loses, doubles and reorders: nothing is lost, doubled or out of order above.
 */
#include "rc_wire.h"
#include <stdlib.h>

static struct wire w;

#define LOSSY                                                                                      \
    {                                                                                              \
        .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .min_rnr_timer = 1                          \
    }

/* The script's plan: the `nth` packet of `from` with `opcode` meets `fate`, once. */
static struct plan {
    int from, opcode;
    uint32_t nth;
    enum fate fate;
} plan;

static enum fate follow_plan(struct wire *wire, const struct seen *p)
{
    if (p->from != plan.from || p->opcode != plan.opcode || plan.nth-- != 0) return PASS;
    return plan.fate;
}

static void open_with(struct plan p)
{
    wire_open(&w, &(struct wire_conf)LOSSY);
    plan = p;
    w.script = follow_plan;
}

static void lost_request(void **state)
{
    for (uint32_t nth = 0; nth < 6; nth++) {
        open_with(
            (struct plan){0, nth ? ROCE_WRITE_MIDDLE : ROCE_WRITE_FIRST, nth ? nth - 1 : 0, DROP});
        wire_fill(&w, 0, 0, 10240, 3);
        wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 10240, 0);
        when_t start = w.now;
        wire_run_for(&w, MS_NS); /* by NAK, not by timer */
        wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
        assert_true(when_since(w.now, start) == MS_NS);
        wire_same(&w, 0, 0, 10240);
        assert_int_equal(hca_counters(w.hca[1])->out_of_sequence, 1);
        assert_int_equal(hca_counters(w.hca[0])->packet_seq_err, 1);
        wire_close(&w);
    }
}

/* The tail of a message shows no gap: the probe finds out, without a retry. */
static void lost_tail(void **state)
{
    open_with((struct plan){0, ROCE_SEND_LAST, 0, DROP});
    wire_recv(&w, 1, 0, 5, 0, 4096);
    wire_post(&w, 0, 0, HCA_WR_SEND, 1, 0, 0, 4096, 0);
    wire_run_for(&w, 30 * MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.rcq[1], 5, HCA_WC_SUCCESS);
    assert_int_equal(hca_counters(w.hca[0])->timeouts, 0);
    wire_close(&w);
}

static void lost_ack(void **state)
{
    open_with((struct plan){1, ROCE_ACK, 0, DROP});
    wire_recv(&w, 1, 0, 5, 0, 4096);
    wire_post(&w, 0, 0, HCA_WR_SEND, 1, 0, 0, 4096, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.rcq[1], 5, HCA_WC_SUCCESS);
    wire_no_wc(w.rcq[1]);
    /* The answer to the one packet resent acknowledges all four. */
    assert_int_equal(hca_counters(w.hca[0])->tx_retransmits, 1);
    wire_close(&w);
}

/* A later message's ACK stands for the one lost. */
static void implicit_ack(void **state)
{
    open_with((struct plan){1, ROCE_ACK, 0, DROP});
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 8, 0);
    wire_run_for(&w, 100 * US_NS);
    wire_no_wc(w.scq[0]);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 2, 0, 0, 8, 0);
    wire_run_for(&w, 100 * US_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    assert_int_equal(hca_counters(w.hca[0])->tx_retransmits, 0);
    wire_close(&w);
}

static void lost_read_request(void **state)
{
    open_with((struct plan){0, ROCE_READ_REQUEST, 0, DROP});
    wire_fill(&w, 1, 0, 5000, 1);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 1, 0, 0, 5000, 0);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 2, 8192, 0, 5000, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    wire_same(&w, 0, 0, 5000);
    wire_same(&w, 8192, 0, 5000);
    wire_close(&w);
}

/* The remainder is asked for from the PSN that is missing, and found by the gap, not a timer. */
static void lost_read_response(void **state)
{
    open_with((struct plan){1, ROCE_READ_RESP_MIDDLE, 3, DROP});
    wire_fill(&w, 1, 0, 10240, 1);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 1, 0, 0, 10240, 0);
    wire_run_for(&w, MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_same(&w, 0, 0, 10240);
    assert_int_equal(hca_counters(w.hca[0])->implied_nak_seq_err, 1);
    assert_int_equal(wire_count(&w, 0, ROCE_READ_REQUEST), 2);
    const struct seen *again = NULL;
    for (uint32_t i = 0; i < w.nlog; i++)
        if (w.log[i].opcode == ROCE_READ_REQUEST) again = &w.log[i];
    assert_int_equal(again->psn.v, 4);
    assert_int_equal(again->reth_len, 6 * 1024);
    wire_close(&w);
}

static void lost_last_response(void **state)
{
    open_with((struct plan){1, ROCE_READ_RESP_LAST, 0, DROP});
    wire_fill(&w, 1, 0, 10000, 1);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 1, 0, 0, 10000, 0);
    wire_run_for(&w, 40 * MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_same(&w, 0, 0, 10000);
    assert_int_equal(hca_counters(w.hca[0])->timeouts, 0);
    wire_close(&w);
}

/* An ACK of a later SEND shows that the READ before it had no answer. */
static void implied_nak_by_ack(void **state)
{
    open_with((struct plan){1, ROCE_READ_RESP_ONLY, 0, DROP});
    wire_fill(&w, 1, 0, 100, 1);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 1, 0, 0, 100, 0);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 2, 4096, 4096, 100, 0);
    wire_run_for(&w, MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    wire_same(&w, 0, 0, 100);
    assert_int_equal(hca_counters(w.hca[0])->implied_nak_seq_err, 1);
    wire_close(&w);
}

static uint64_t word_at(int side, uint32_t at)
{
    uint64_t v;
    memcpy(&v, w.mem[side] + at, 8);
    return v;
}

static void add(uint64_t id, uint64_t n)
{
    struct hca_sge sge = {(uintptr_t)w.mem[0] + 8 * id, 8, hca_mr_lkey(w.mr[0])};
    struct hca_send_wr wr = wire_wr(&w, 0, HCA_WR_ATOMIC_FETCH_AND_ADD, id, 0);
    wr.sge = &sge;
    wr.num_sge = 1;
    wr.compare_add = n;
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
}

static void atomic_once(void **state)
{
    const struct plan plans[] = {{1, ROCE_ATOMIC_ACK, 0, DROP}, {0, ROCE_FETCH_ADD, 0, TWICE},
                                 {0, ROCE_FETCH_ADD, 2, DROP},  {1, ROCE_ATOMIC_ACK, 1, TWICE},
                                 {1, ROCE_ATOMIC_ACK, 3, DROP}, {0, ROCE_FETCH_ADD, 1, LATE},
                                 {1, ROCE_ATOMIC_ACK, 0, LATE}};
    for (size_t p = 0; p < sizeof plans / sizeof *plans; p++) {
        open_with(plans[p]);
        for (uint64_t i = 0; i < 8; i++) add(i, 1);
        wire_run(&w, NEVER);
        for (uint64_t i = 0; i < 8; i++) {
            wire_expect(w.scq[0], i, HCA_WC_SUCCESS);
            assert_true(word_at(0, (uint32_t)(8 * i)) == i);
        }
        assert_true(word_at(1, 0) == 8);
        wire_close(&w);
    }
}

/* A doubled READ request is answered twice, and harms nobody. */
static void doubled_read(void **state)
{
    open_with((struct plan){0, ROCE_READ_REQUEST, 0, TWICE});
    wire_fill(&w, 1, 0, 9000, 1);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 1, 0, 0, 9000, 0);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 2, 10000, 0, 9000, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    wire_no_wc(w.scq[0]);
    wire_same(&w, 0, 0, 9000);
    wire_same(&w, 10000, 0, 9000);
    wire_close(&w);
}

/* Acknowledged beyond the cursor of a rewind: skips forward instead of resending. */
static void ack_skips_ahead(void **state)
{
    open_with((struct plan){1, ROCE_ACK, 0, LATE});
    w.rtt_extra_ns = 15 * MS_NS; /* longer than the first probe */
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 30000, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    assert_true(hca_counters(w.hca[0])->tx_retransmits <= 2);
    wire_close(&w);
}

/* One gap, one NAK, however many packets follow it. */
static void one_nak_per_gap(void **state)
{
    open_with((struct plan){0, ROCE_WRITE_FIRST, 0, DROP});
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 30000, 0);
    wire_run_for(&w, MS_NS);
    uint32_t naks = 0;
    for (uint32_t i = 0; i < w.nlog; i++) naks += w.log[i].syndrome == 0x60;
    assert_int_equal(naks, 1);
    assert_int_equal(hca_counters(w.hca[1])->out_of_sequence, 1);
    wire_close(&w);
}

static enum fate lose_two(struct wire *wire, const struct seen *p)
{
    if (p->from || wire->budget == 2 || p->psn.v != (wire->budget ? 60 : 5)) return PASS;
    wire->budget++;
    return DROP;
}

/* The next gap gets a NAK of its own. */
static void nak_again_for_the_next(void **state)
{
    wire_open(&w, &(struct wire_conf)LOSSY);
    w.script = lose_two;
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 100000, 0);
    wire_run_for(&w, MS_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    assert_int_equal(hca_counters(w.hca[1])->out_of_sequence, 2);
    wire_close(&w);
}

/* ---- everything at once ------------------------------------------------------------------ */

static enum fate at_random(struct wire *wire, const struct seen *p)
{
    uint64_t r = wire_random(wire) % 1000;
    if (r < wire->budget) return DROP;
    if (r < wire->budget * 3 / 2) return TWICE;
    if (r < wire->budget * 2) return LATE;
    return PASS;
}

enum { ROOM = 40000, WRS = 40 };

/* Each WR has a place of its own: SENDs and WRITEs copy 0 to 1, READs 1 to 0, atomics count. */
static void post_random(uint32_t i, uint64_t *adds, uint8_t *kinds, uint32_t *lens)
{
    static const enum hca_wr_opcode ops[] = {HCA_WR_SEND, HCA_WR_RDMA_WRITE, HCA_WR_RDMA_READ,
                                             HCA_WR_ATOMIC_FETCH_AND_ADD,
                                             HCA_WR_RDMA_WRITE_WITH_IMM};
    uint64_t r = wire_random(&w);
    enum hca_wr_opcode op = ops[r % 5];
    uint32_t len = (r >> 8) % 8 ? (uint32_t)(r >> 16) % 5000 : (uint32_t)(r >> 16) % ROOM;
    uint32_t at = (i + 1) * ROOM, flags = (r >> 40) % 4 ? 0 : HCA_SEND_FENCE;
    if (op == HCA_WR_ATOMIC_FETCH_AND_ADD) {
        len = 8;
        struct hca_sge sge = {(uintptr_t)w.mem[0] + at, 8, hca_mr_lkey(w.mr[0])};
        struct hca_send_wr wr = wire_wr(&w, 0, op, i, 0);
        wr.sge = &sge;
        wr.num_sge = 1;
        wr.compare_add = 1;
        lens[i] = (uint32_t)(*adds)++;
        assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
    } else {
        if (op == HCA_WR_SEND) wire_recv(&w, 1, 0, i, at, ROOM);
        if (op == HCA_WR_RDMA_WRITE_WITH_IMM) wire_recv(&w, 1, 0, i, at, 0);
        wire_post(&w, 0, 0, op, i, at, at, len, flags);
        lens[i] = len;
    }
    kinds[i] = (uint8_t)op;
}

static void random_run(uint64_t seed)
{
    uint64_t adds = 0;
    uint8_t kinds[WRS];
    uint32_t lens[WRS];
    struct wire_conf conf = LOSSY;
    w.random = seed;
    conf.path_mtu = (uint8_t)(1 + seed % 5);
    conf.psn = (uint32_t)(0xffff00 + seed % 512);
    conf.max_rd_atomic = (uint8_t)(1 + seed % 3);
    conf.timeout = 12;
    wire_open(&w, &conf);
    w.random = seed;
    w.budget = 5 + seed % 60;
    w.script = at_random;
    wire_fill(&w, 0, ROOM, WRS * ROOM, seed);
    wire_fill(&w, 1, ROOM, WRS * ROOM, seed + 1);
    for (uint32_t i = 0; i < WRS; i++) {
        post_random(i, &adds, kinds, lens);
        if (wire_random(&w) % 3 == 0) wire_run_for(&w, wire_random(&w) % (100 * US_NS));
    }
    wire_run(&w, NEVER);
    uint32_t recvs = 0;
    for (uint32_t i = 0; i < WRS; i++) {
        uint32_t at = (i + 1) * ROOM;
        wire_expect(w.scq[0], i, HCA_WC_SUCCESS);
        if (kinds[i] == HCA_WR_ATOMIC_FETCH_AND_ADD)
            assert_true(word_at(0, at) == lens[i]);
        else
            wire_same(&w, at, at, lens[i]);
        if (kinds[i] == HCA_WR_SEND || kinds[i] == HCA_WR_RDMA_WRITE_WITH_IMM) {
            struct hca_wc wc = wire_wc(w.rcq[1]);
            assert_int_equal(wc.status, HCA_WC_SUCCESS);
            assert_int_equal(wc.wr_id, i);
            assert_int_equal(wc.byte_len, lens[i]);
            recvs++;
        }
    }
    assert_true(word_at(1, 0) == adds);
    wire_no_wc(w.scq[0]);
    wire_no_wc(w.rcq[1]);
    wire_close(&w);
}

static uint64_t replay;

static int say_replay(void **state)
{
    if (replay) print_error("replay: SEED=%lu rc_loss_test\n", (unsigned long)replay);
    return 0;
}

/* SEED=n runs that one, SEEDS=n as many from 1. */
static void random_runs(void **state)
{
    const char *one = getenv("SEED"), *many = getenv("SEEDS");
    uint64_t from = one ? strtoull(one, NULL, 0) : 1;
    uint64_t to = one ? from : many ? strtoull(many, NULL, 0) : 300;
    for (uint64_t seed = from; seed <= to; seed++) {
        replay = seed;
        random_run(seed);
    }
    replay = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lost_request),
        cmocka_unit_test(lost_tail),
        cmocka_unit_test(lost_ack),
        cmocka_unit_test(implicit_ack),
        cmocka_unit_test(lost_read_request),
        cmocka_unit_test(lost_read_response),
        cmocka_unit_test(lost_last_response),
        cmocka_unit_test(implied_nak_by_ack),
        cmocka_unit_test(atomic_once),
        cmocka_unit_test(doubled_read),
        cmocka_unit_test(ack_skips_ahead),
        cmocka_unit_test(one_nak_per_gap),
        cmocka_unit_test(nak_again_for_the_next),
        cmocka_unit_test_teardown(random_runs, say_replay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
