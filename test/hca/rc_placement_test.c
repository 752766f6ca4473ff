/* FLUSH and ATOMIC WRITE (annex A19): the packets, the checks on both sides, and that they are
 * executed once, in order, whatever the wire does. */
#include "rc_wire.h"
#include <errno.h>
#include <string.h>

static struct wire w;

static const struct wire_conf sane = {
    .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .min_rnr_timer = 1};

static int try_post(const struct hca_send_wr *wr)
{
    return hca_post_send(w.hca[0], w.qp[0][0], wr, w.now);
}

static void post_atomic_write(uint64_t id, uint32_t remote, uint64_t value)
{
    struct hca_send_wr wr = wire_wr(&w, 0, HCA_WR_ATOMIC_WRITE, id, remote);
    wr.atomic_value = value;
    assert_int_equal(try_post(&wr), 0);
}

static struct hca_send_wr flush_wr(uint64_t id, uint8_t type, uint8_t level, uint32_t len)
{
    struct hca_send_wr wr = wire_wr(&w, 0, HCA_WR_FLUSH, id, 4096);
    wr.flush_type = type;
    wr.flush_level = level;
    wr.flush_length = len;
    return wr;
}

static void post_flush(uint64_t id)
{
    struct hca_send_wr wr = flush_wr(id, HCA_FLUSH_GLOBAL, HCA_FLUSH_RANGE, 4096);
    assert_int_equal(try_post(&wr), 0);
}

static uint64_t word_at(uint32_t offset)
{
    uint64_t word;
    memcpy(&word, w.mem[1] + offset, sizeof word);
    return word;
}

static void completed(uint64_t id, enum hca_wc_opcode opcode, uint32_t len)
{
    struct hca_wc wc = wire_wc(w.scq[0]);
    assert_int_equal(wc.wr_id, id);
    assert_int_equal(wc.status, HCA_WC_SUCCESS);
    assert_int_equal(wc.opcode, opcode);
    assert_int_equal(wc.byte_len, len);
}

/* ---- packets ----------------------------------------------------------------------------- */

static void atomic_write_packets(void **state)
{
    wire_open(&w, &sane);
    memset(w.mem[1], 0xee, 32);
    post_atomic_write(1, 8, 0x1122334455667788);
    struct hca_tx tx[4];
    assert_int_equal(hca_output(w.hca[0], tx, 4, w.now), 1);
    assert_int_equal(tx[0].hdr[0], 0x1d);
    assert_int_equal(tx[0].hdr_len, 12 + 16);
    assert_int_equal(tx[0].hdr[8] >> 7, 1); /* AckReq */
    assert_memory_equal(tx[0].hdr + 24, "\0\0\0\x08", 4);
    assert_int_equal(tx[0].payload_len, 8);
    assert_memory_equal(tx[0].payload[0].iov_base, &(uint64_t){0x1122334455667788}, 8);
    wire_run(&w, NEVER); /* it is lost, and comes again */
    completed(1, HCA_WC_ATOMIC_WRITE, 8);
    assert_int_equal(word_at(8), 0x1122334455667788);
    assert_int_equal(w.mem[1][7], 0xee);
    assert_int_equal(w.mem[1][16], 0xee);
    assert_int_equal(w.log[w.nlog - 1].opcode, ROCE_READ_RESP_ONLY);
    assert_int_equal(w.log[w.nlog - 1].len, 0);
    assert_int_equal(w.log[w.nlog - 1].syndrome, 0x1f);
    assert_int_equal(w.log[w.nlog - 1].msn, 1);
    wire_close(&w);
}

static void flush_packets(void **state)
{
    static const struct {
        uint8_t type, level, feth;
    } kinds[] = {{HCA_FLUSH_GLOBAL, HCA_FLUSH_RANGE, 0x01}, {HCA_FLUSH_GLOBAL, HCA_FLUSH_MR, 0x11}};
    wire_open(&w, &sane);
    for (uint64_t i = 0; i < 2; i++) {
        struct hca_send_wr wr = flush_wr(i, kinds[i].type, kinds[i].level, 100);
        assert_int_equal(try_post(&wr), 0);
        struct hca_tx tx[4];
        struct roce_hdr h;
        size_t len;
        assert_int_equal(hca_output(w.hca[0], tx, 4, w.now), 1);
        assert_int_equal(tx[0].hdr[0], 0x1c);
        assert_int_equal(tx[0].payload_len, 0);
        assert_int_equal(roce_decode(&h, tx[0].hdr, tx[0].hdr_len, &len), ROCE_OK);
        assert_memory_equal(tx[0].hdr + 12, ((uint8_t[]){0, 0, 0, kinds[i].feth}), 4);
        assert_int_equal(h.reth.rkey, hca_mr_rkey(w.mr[1]));
        assert_int_equal(h.reth.va, i ? 0 : (uintptr_t)w.mem[1] + 4096);
        assert_int_equal(h.reth.len, i ? 0 : 100);
        assert_true(h.ackreq);
        wire_run(&w, NEVER);
        completed(i, HCA_WC_FLUSH, 0);
    }
    assert_int_equal(w.log[w.nlog - 1].opcode, ROCE_READ_RESP_ONLY);
    assert_int_equal(w.log[w.nlog - 1].len, 0);
    assert_int_equal(w.log[w.nlog - 1].msn, 2);
    wire_close(&w);
}

static void by_xrc(void **state)
{
    struct wire_conf conf = sane;
    conf.xrc = true;
    wire_open(&w, &conf);
    post_atomic_write(1, 64, 7);
    post_flush(2);
    wire_run(&w, NEVER);
    completed(1, HCA_WC_ATOMIC_WRITE, 8);
    completed(2, HCA_WC_FLUSH, 0);
    assert_int_equal(word_at(64), 7);
    assert_int_equal(wire_count(&w, 0, 0xbd), 1);
    assert_int_equal(wire_count(&w, 0, 0xbc), 1);
    wire_close(&w);
}

/* ---- the requester's checks -------------------------------------------------------------- */

static void requests_refused(void **state)
{
    wire_open(&w, &sane);
    struct hca_sge sge = {(uintptr_t)w.mem[0], 8, hca_mr_lkey(w.mr[0])};
    struct hca_send_wr good = wire_wr(&w, 0, HCA_WR_ATOMIC_WRITE, 1, 0), wr = good;
    wr.sge = &sge;
    wr.num_sge = 1;
    assert_int_equal(try_post(&wr), -EINVAL);
    wr = good;
    wr.flags |= HCA_SEND_INLINE;
    assert_int_equal(try_post(&wr), -EINVAL);
    static const struct {
        uint8_t type, level;
        uint32_t len;
    } bad[] = {{0, 0, 8},
               {4, 0, 8},
               {HCA_FLUSH_GLOBAL | 8, 0, 8},
               {HCA_FLUSH_GLOBAL, 2, 8},
               {HCA_FLUSH_GLOBAL, HCA_FLUSH_RANGE, HCA_MAX_MSG + 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        wr = flush_wr(1, bad[i].type, bad[i].level, bad[i].len);
        assert_int_equal(try_post(&wr), -EINVAL);
    }
    wr = flush_wr(1, HCA_FLUSH_GLOBAL, HCA_FLUSH_RANGE, 8);
    wr.sge = &sge;
    wr.num_sge = 1;
    assert_int_equal(try_post(&wr), -EINVAL);
    wire_run(&w, NEVER);
    wire_no_wc(w.scq[0]);
    assert_int_equal(w.nlog, 0);
    wire_close(&w);
}

/* Both take a place among max_rd_atomic; without any they cannot be sent. */
static void places(void **state)
{
    struct wire_conf conf = sane;
    struct hca_tx tx[8];
    conf.max_rd_atomic = 2;
    wire_open(&w, &conf);
    for (uint64_t i = 0; i < 6; i++)
        if (i % 2)
            post_flush(i);
        else
            post_atomic_write(i, 0, i);
    assert_int_equal(hca_output(w.hca[0], tx, 8, w.now), 2);
    assert_int_equal(hca_output(w.hca[0], tx, 8, w.now), 0);
    wire_run(&w, NEVER);
    for (uint64_t i = 0; i < 6; i++)
        completed(i, i % 2 ? HCA_WC_FLUSH : HCA_WC_ATOMIC_WRITE, i % 2 ? 0 : 8);
    assert_int_equal(word_at(0), 4);
    wire_close(&w);
    conf.no_rd_atomic = true;
    for (int flush = 0; flush < 2; flush++) {
        wire_open(&w, &conf);
        if (flush)
            post_flush(1);
        else
            post_atomic_write(1, 0, 1);
        wire_run(&w, NEVER);
        wire_expect(w.scq[0], 1, HCA_WC_LOC_QP_OP_ERR);
        wire_close(&w);
    }
}

static void fence(void **state)
{
    for (int flush = 0; flush < 2; flush++) {
        wire_open(&w, &sane);
        struct hca_tx tx[8];
        wire_recv(&w, 1, 0, 9, 0, 64);
        if (flush)
            post_flush(1);
        else
            post_atomic_write(1, 128, 1);
        wire_post(&w, 0, 0, HCA_WR_SEND, 2, 0, 0, 64, HCA_SEND_FENCE);
        assert_int_equal(hca_output(w.hca[0], tx, 8, w.now), 1);
        wire_run(&w, NEVER);
        wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
        wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
        wire_close(&w);
    }
}

/* An answer with data in it, or of an atomic, is none. */
static void wrong_answers(void **state)
{
    for (int atomic = 0; atomic < 2; atomic++) {
        struct hca_tx tx[4];
        wire_open(&w, &sane);
        post_atomic_write(1, 0, 1);
        assert_int_equal(hca_output(w.hca[0], tx, 4, w.now), 1);
        struct roce_hdr h = {.opcode = atomic ? ROCE_ATOMIC_ACK : ROCE_READ_RESP_ONLY};
        h.aeth.syndrome = 0x1f;
        wire_inject(&w, 0, &h, "data", atomic ? 0 : 4);
        if (atomic) {
            wire_no_wc(w.scq[0]);
            assert_int_equal(hca_counters(w.hca[0])->rx_dropped, 1);
        } else {
            wire_expect(w.scq[0], 1, HCA_WC_BAD_RESP_ERR);
        }
        wire_close(&w);
    }
}

/* ---- the responder's checks -------------------------------------------------------------- */

static struct roce_hdr request(uint8_t opcode, uint32_t psn)
{
    struct roce_hdr h = {.opcode = opcode, .psn = psn_of(psn), .ackreq = true};
    h.reth.va = (uintptr_t)w.mem[1];
    h.reth.rkey = hca_mr_rkey(w.mr[1]);
    h.reth.len = 8;
    h.feth.placement = HCA_FLUSH_GLOBAL;
    return h;
}

/* The first octet of the answer to it, and the syndrome in that. */
static void answered(const struct roce_hdr *h, uint32_t len, uint8_t opcode, uint8_t syndrome)
{
    static const uint8_t payload[64] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct hca_tx tx[4];
    wire_inject(&w, 1, h, payload, len);
    assert_int_equal(hca_output(w.hca[1], tx, 4, w.now), 1);
    assert_int_equal(tx[0].hdr[0], opcode);
    assert_int_equal(tx[0].hdr[12], syndrome);
    assert_int_equal(tx[0].payload_len, 0);
    assert_int_equal(wire_state(&w, 1), syndrome == 0x1f ? HCA_QPS_RTS : HCA_QPS_ERR);
}

static void refused(const struct roce_hdr *h, uint32_t len, uint8_t syndrome)
{
    answered(h, len, ROCE_ACK, syndrome);
    for (uint32_t i = 0; i < 16; i++) assert_int_equal(w.mem[1][i], 0);
    wire_close(&w);
}

static void bad_atomic_writes(void **state)
{
    wire_open(&w, &sane);
    struct roce_hdr h = request(ROCE_ATOMIC_WRITE, 0);
    answered(&h, 8, ROCE_READ_RESP_ONLY, 0x1f);
    assert_memory_equal(w.mem[1], "\1\2\3\4\5\6\7\10\0", 9);
    wire_close(&w);
    for (uint32_t len = 0; len <= 16; len += 4) {
        if (len == 8) continue;
        wire_open(&w, &sane);
        h = request(ROCE_ATOMIC_WRITE, 0);
        h.reth.len = len;
        refused(&h, len, 0x61);
    }
    wire_open(&w, &sane);
    h = request(ROCE_ATOMIC_WRITE, 0);
    h.reth.len = 4; /* not what comes */
    refused(&h, 8, 0x61);
    wire_open(&w, &sane);
    h = request(ROCE_ATOMIC_WRITE, 0);
    h.reth.va += 4;
    refused(&h, 8, 0x61);
    wire_open(&w, &sane);
    h = request(ROCE_ATOMIC_WRITE, 0);
    h.reth.rkey ^= 1;
    refused(&h, 8, 0x62);
    wire_open(&w, &sane);
    h = request(ROCE_ATOMIC_WRITE, 0);
    h.reth.va += WIRE_MEM;
    refused(&h, 8, 0x62);
    struct wire_conf conf = sane;
    conf.access = HCA_ACCESS_REMOTE_READ | HCA_ACCESS_REMOTE_ATOMIC;
    wire_open(&w, &conf);
    h = request(ROCE_ATOMIC_WRITE, 0);
    refused(&h, 8, 0x61);
}

static void bad_flushes(void **state)
{
    static const struct {
        uint8_t placement, selectivity;
        uint32_t len;
        int64_t va;
        uint8_t syndrome;
    } cases[] = {
        {HCA_FLUSH_GLOBAL, HCA_FLUSH_RANGE, WIRE_MEM, 0, 0x1f},
        {HCA_FLUSH_GLOBAL, HCA_FLUSH_RANGE, 0, -8, 0x1f}, /* of nothing */
        {HCA_FLUSH_GLOBAL, HCA_FLUSH_MR, 77, -8, 0x1f},   /* of the whole region */
        {HCA_FLUSH_GLOBAL, HCA_FLUSH_RANGE, WIRE_MEM + 1, 0, 0x62},
        {HCA_FLUSH_GLOBAL, HCA_FLUSH_RANGE, 8, -8, 0x62},
        {HCA_FLUSH_PERSISTENT, HCA_FLUSH_RANGE, 8, 0, 0x62}, /* no region is persistent */
        {HCA_FLUSH_PERSISTENT | HCA_FLUSH_GLOBAL, HCA_FLUSH_MR, 8, 0, 0x62},
        {0, HCA_FLUSH_RANGE, 8, 0, 0x61},
        {HCA_FLUSH_GLOBAL | 4, HCA_FLUSH_RANGE, 8, 0, 0x61},
        {HCA_FLUSH_GLOBAL, 2, 8, 0, 0x61},
        {HCA_FLUSH_GLOBAL, HCA_FLUSH_RANGE, HCA_MAX_MSG + 1, 0, 0x61},
    };
    struct wire_conf conf = sane;
    conf.access = HCA_ACCESS_FLUSH_GLOBAL | HCA_ACCESS_FLUSH_PERSISTENT;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        wire_open(&w, &conf);
        struct roce_hdr h = request(ROCE_FLUSH, 0);
        h.feth.placement = cases[i].placement;
        h.feth.selectivity = cases[i].selectivity;
        h.reth.len = cases[i].len;
        h.reth.va += (uint64_t)cases[i].va;
        answered(&h, 0, cases[i].syndrome == 0x1f ? ROCE_READ_RESP_ONLY : ROCE_ACK,
                 cases[i].syndrome);
        wire_close(&w);
    }
    wire_open(&w, &sane);
    struct roce_hdr h = request(ROCE_FLUSH, 0);
    refused(&h, 4, 0x61); /* with a payload */
    wire_open(&w, &sane);
    h = request(ROCE_FLUSH, 0);
    h.feth.selectivity = HCA_FLUSH_MR;
    h.reth.rkey ^= 1;
    refused(&h, 0, 0x62);
    conf.access = HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_FLUSH_PERSISTENT;
    wire_open(&w, &conf);
    h = request(ROCE_FLUSH, 0);
    refused(&h, 0, 0x61);
}

/* A region that is not to be flushed; and that none is persistent. */
static void region_without(void **state)
{
    struct hca_mr *mr;
    uint32_t access = HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_WRITE;
    wire_open(&w, &sane);
    assert_int_equal(hca_mr_reg(w.hca[1], w.pd[1], w.mem[1], 4096, (uintptr_t)w.mem[1],
                                access | HCA_ACCESS_FLUSH_PERSISTENT, &mr),
                     -EINVAL);
    assert_int_equal(
        hca_mr_reg(w.hca[1], w.pd[1], w.mem[1], 4096, (uintptr_t)w.mem[1], access, &mr), 0);
    struct roce_hdr h = request(ROCE_FLUSH, 0);
    h.reth.rkey = hca_mr_rkey(mr);
    refused(&h, 0, 0x62);
}

/* Linux's rxe sends a FLUSH without counting it: WRITE, FLUSH, ATOMIC WRITE in one burst is fine
 * where one place is given; two ATOMIC WRITEs are not. */
static void flushes_beyond_the_places(void **state)
{
    struct wire_conf conf = sane;
    struct hca_tx tx[8];
    conf.max_rd_atomic = 1;
    wire_open(&w, &conf);
    for (uint32_t psn = 0; psn < 3; psn++) {
        struct roce_hdr h = request(psn == 1 ? ROCE_ATOMIC_WRITE : ROCE_FLUSH, psn);
        wire_inject(&w, 1, &h, "payload", psn == 1 ? 8 : 0);
    }
    struct roce_hdr h = request(ROCE_ATOMIC_WRITE, 3);
    wire_inject(&w, 1, &h, "another", 8);
    assert_int_equal(hca_output(w.hca[1], tx, 8, w.now), 4);
    for (int i = 0; i < 3; i++) assert_int_equal(tx[i].hdr[0], ROCE_READ_RESP_ONLY);
    assert_int_equal(tx[3].hdr[12], 0x61);
    assert_string_equal((const char *)w.mem[1], "payload");
    wire_close(&w);
}

/* But not more than can be remembered. */
static void too_many_flushes(void **state)
{
    static struct hca_tx tx[HCA_MAX_RD_ATOMIC + 2];
    wire_open(&w, &sane);
    for (uint32_t psn = 0; psn <= HCA_MAX_RD_ATOMIC; psn++) {
        struct roce_hdr h = request(ROCE_FLUSH, psn);
        wire_inject(&w, 1, &h, NULL, 0);
    }
    size_t n = hca_output(w.hca[1], tx, HCA_MAX_RD_ATOMIC + 2, w.now);
    n += hca_output(w.hca[1], tx + n, HCA_MAX_RD_ATOMIC + 2 - n, w.now);
    assert_int_equal(n, HCA_MAX_RD_ATOMIC + 1);
    assert_int_equal(tx[n - 1].hdr[0], ROCE_ACK);
    assert_int_equal(tx[n - 1].hdr[12], 0x61);
    wire_close(&w);
}

/* ---- once, in order ---------------------------------------------------------------------- */

static enum fate lose_first_answer(struct wire *wire, const struct seen *p)
{
    if (p->from != 1 || p->opcode != ROCE_READ_RESP_ONLY || !wire->budget) return PASS;
    wire->budget--;
    memset(wire->mem[1], 0x55, 8); /* the program there goes on at once */
    return DROP;
}

/* A duplicate is answered from memory, and writes nothing: what came after it would be undone. */
static void lost_answer(void **state)
{
    wire_open(&w, &sane);
    w.script = lose_first_answer;
    w.budget = 1;
    post_atomic_write(1, 0, 42);
    wire_run(&w, NEVER);
    completed(1, HCA_WC_ATOMIC_WRITE, 8);
    assert_int_equal(wire_count(&w, 0, ROCE_ATOMIC_WRITE), 2);
    assert_int_equal(wire_count(&w, 1, ROCE_READ_RESP_ONLY), 2);
    assert_int_equal(word_at(0), 0x5555555555555555);
    w.budget = 1;
    post_flush(2);
    wire_run(&w, NEVER);
    completed(2, HCA_WC_FLUSH, 0);
    assert_int_equal(wire_count(&w, 0, ROCE_FLUSH), 2);
    wire_close(&w);
}

static enum fate lose_answers_of_a_cut(struct wire *wire, const struct seen *p)
{
    return p->from == 1 && p->member == 0 ? DROP : PASS;
}

/* The port dies with the answers under way: the other one has them, and all are executed once. */
static void port_dies(void **state)
{
    wire_open(&w, &sane);
    w.script = lose_answers_of_a_cut;
    for (uint64_t i = 0; i < 4; i++) post_atomic_write(i, 8 * (uint32_t)i, 100 + i);
    wire_run_for(&w, 100 * US_NS);
    assert_int_equal(word_at(24), 103);
    memset(w.mem[1], 0, 32);
    for (int side = 0; side < 2; side++) wire_steer(&w, side, 1);
    wire_run(&w, NEVER);
    for (uint64_t i = 0; i < 4; i++) completed(i, HCA_WC_ATOMIC_WRITE, 8);
    assert_int_equal(word_at(0) | word_at(8) | word_at(16) | word_at(24), 0);
    wire_close(&w);
}

enum { FLAG = 65536, DATA = 70000, DATA_LEN = 3000 };

/* Whenever the flag shows a number, the data of that round lie there, as they do where a log's tail
 * is published. */
static enum fate watch(struct wire *wire, const struct seen *p)
{
    uint64_t round;
    memcpy(&round, wire->mem[1] + FLAG, sizeof round);
    for (uint32_t i = 0; round && i < DATA_LEN; i++)
        assert_true(wire->mem[1][DATA + (uint32_t)round * 4096 + i] == (uint8_t)(i + round));
    uint64_t dice = wire_random(wire) % 100;
    return dice < 12 ? DROP : dice < 18 ? TWICE : dice < 24 ? LATE : PASS;
}

static void data_flush_flag(void **state)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        wire_open(&w, &sane);
        w.random = seed;
        w.script = watch;
        for (uint32_t round = 1; round <= 10; round++) {
            for (uint32_t i = 0; i < DATA_LEN; i++)
                w.mem[0][round * 4096 + i] = (uint8_t)(i + round);
            uint32_t to = DATA + round * 4096;
            wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, round * 4096, to, DATA_LEN, 0);
            post_flush(2);
            post_atomic_write(3, FLAG, round);
        }
        wire_run(&w, NEVER);
        for (uint32_t i = 0; i < 30; i++) wire_expect(w.scq[0], 1 + i % 3, HCA_WC_SUCCESS);
        assert_int_equal(word_at(FLAG), 10);
        wire_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(atomic_write_packets),
        cmocka_unit_test(flush_packets),
        cmocka_unit_test(by_xrc),
        cmocka_unit_test(requests_refused),
        cmocka_unit_test(places),
        cmocka_unit_test(fence),
        cmocka_unit_test(wrong_answers),
        cmocka_unit_test(bad_atomic_writes),
        cmocka_unit_test(bad_flushes),
        cmocka_unit_test(region_without),
        cmocka_unit_test(flushes_beyond_the_places),
        cmocka_unit_test(too_many_flushes),
        cmocka_unit_test(lost_answer),
        cmocka_unit_test(port_dies),
        cmocka_unit_test(data_flush_flag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
