/* RC faults: what each wrong request or response does to both sides (IBTA 9.9), and that no packet,
 * however malformed, does more. */
#include "rc_wire.h"

static struct wire w;

static const struct wire_conf sane = {.timeout = 14, .retry_cnt = 7, .rnr_retry = 7};

static bool event_is(int side, enum hca_event_type type)
{
    struct hca_event event;
    while (hca_next_event(w.hca[side], &event))
        if (event.type == type) return true;
    return false;
}

static void post_raw(enum hca_wr_opcode op, uint64_t remote, uint32_t rkey, uint64_t local,
                     uint32_t lkey, uint32_t len)
{
    struct hca_sge sge = {local, len, lkey};
    struct hca_send_wr wr = wire_wr(&w, 0, op, 1, 0);
    wr.remote_addr = remote;
    wr.rkey = rkey;
    wr.sge = &sge;
    wr.num_sge = 1;
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
}

/* One more request behind the failing one is flushed, and both QPs end in ERR. */
static void both_fail(enum hca_wc_status status)
{
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 2, 0, 1 << 20, 8, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, status);
    wire_expect(w.scq[0], 2, HCA_WC_WR_FLUSH_ERR);
    wire_no_wc(w.scq[0]);
    assert_int_equal(wire_state(&w, 0), HCA_QPS_ERR);
    assert_int_equal(wire_state(&w, 1), HCA_QPS_ERR);
    assert_int_equal(w.mem[1][1 << 20], 0);
}

static void remote_access(void **state)
{
    const enum hca_wr_opcode ops[] = {HCA_WR_RDMA_WRITE, HCA_WR_RDMA_READ,
                                      HCA_WR_ATOMIC_FETCH_AND_ADD, HCA_WR_ATOMIC_CMP_AND_SWP,
                                      HCA_WR_RDMA_WRITE_WITH_IMM};
    for (size_t i = 0; i < 5; i++) {
        for (int how = 0; how < 3; how++) {
            wire_open(&w, &sane);
            uint32_t rkey = hca_mr_rkey(w.mr[1]), len = i == 2 || i == 3 ? 8 : 4096;
            uint64_t to = (uintptr_t)w.mem[1];
            if (how == 0) rkey ^= 1;
            if (how == 1) to += WIRE_MEM - len + 8;
            if (how == 2) to -= 8;
            wire_recv(&w, 1, 0, 3, 0, 8);
            memset(w.mem[0], 0xff, 4096);
            post_raw(ops[i], to, rkey, (uintptr_t)w.mem[0], hca_mr_lkey(w.mr[0]), len);
            both_fail(HCA_WC_REM_ACCESS_ERR);
            wire_expect(w.rcq[1], 3, HCA_WC_WR_FLUSH_ERR);
            assert_true(event_is(1, HCA_EVENT_QP_ACCESS_ERR));
            assert_int_equal(hca_counters(w.hca[1])->resp_remote_access_errors, 1);
            for (uint32_t b = WIRE_MEM - 4096; b < WIRE_MEM; b++) assert_int_equal(w.mem[1][b], 0);
            wire_close(&w);
        }
    }
}

/* What the QP was not set up for is not supported (IBTA 9.9.3.1.2). */
static void not_enabled(void **state)
{
    const enum hca_wr_opcode ops[] = {HCA_WR_RDMA_WRITE, HCA_WR_RDMA_READ,
                                      HCA_WR_ATOMIC_FETCH_AND_ADD};
    const uint32_t access[] = {HCA_ACCESS_REMOTE_READ, HCA_ACCESS_REMOTE_WRITE,
                               HCA_ACCESS_REMOTE_READ};
    for (size_t i = 0; i < 3; i++) {
        struct wire_conf conf = sane;
        conf.access = access[i];
        wire_open(&w, &conf);
        wire_post(&w, 0, 0, ops[i], 1, 0, 0, 8, 0);
        both_fail(HCA_WC_REM_INV_REQ_ERR);
        assert_true(event_is(1, HCA_EVENT_QP_REQ_ERR));
        wire_close(&w);
    }
}

static void misaligned_atomic(void **state)
{
    wire_open(&w, &sane);
    wire_post(&w, 0, 0, HCA_WR_ATOMIC_FETCH_AND_ADD, 1, 0, 4, 8, 0);
    both_fail(HCA_WC_REM_INV_REQ_ERR);
    wire_close(&w);
}

static void send_too_long(void **state)
{
    wire_open(&w, &sane);
    wire_recv(&w, 1, 0, 3, 0, 2000);
    wire_recv(&w, 1, 0, 4, 0, 2000);
    wire_post(&w, 0, 0, HCA_WR_SEND, 1, 0, 0, 3000, 0);
    both_fail(HCA_WC_REM_INV_REQ_ERR);
    wire_expect(w.rcq[1], 3, HCA_WC_LOC_LEN_ERR);
    wire_expect(w.rcq[1], 4, HCA_WC_WR_FLUSH_ERR);
    wire_close(&w);
}

static void bad_receive_key(void **state)
{
    wire_open(&w, &sane);
    struct hca_sge sge = {(uintptr_t)w.mem[1], 100, hca_mr_lkey(w.mr[1]) ^ 1};
    struct hca_recv_wr wr = {.wr_id = 3, .sge = &sge, .num_sge = 1};
    assert_int_equal(hca_post_recv(w.hca[1], w.qp[1][0], &wr, w.now), 0);
    wire_post(&w, 0, 0, HCA_WR_SEND, 1, 0, 0, 8, 0);
    both_fail(HCA_WC_REM_OP_ERR);
    wire_expect(w.rcq[1], 3, HCA_WC_LOC_PROT_ERR);
    wire_close(&w);
}

/* Invalidating an ordinary region is refused. */
static void send_with_inv(void **state)
{
    wire_open(&w, &sane);
    wire_recv(&w, 1, 0, 3, 0, 100);
    struct hca_send_wr wr = wire_wr(&w, 0, HCA_WR_SEND_WITH_INV, 1, 0);
    wr.inv_rkey = hca_mr_rkey(w.mr[1]);
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
    both_fail(HCA_WC_REM_ACCESS_ERR);
    assert_int_equal(w.log[0].opcode, ROCE_SEND_ONLY_INV);
    wire_close(&w);
}

static void local_inv(void **state)
{
    wire_open(&w, &sane);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 0, 0, 0, 5000, 0);
    struct hca_send_wr wr = wire_wr(&w, 0, HCA_WR_LOCAL_INV, 1, 0);
    wr.inv_rkey = hca_mr_rkey(w.mr[0]);
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 0, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 1, HCA_WC_LOC_QP_OP_ERR);
    wire_close(&w);
}

/* A local fault waits for its elders, and the peer never sees it. */
static void local_protection(void **state)
{
    for (int read = 0; read < 2; read++) {
        wire_open(&w, &sane);
        struct hca_mr *ro;
        assert_int_equal(hca_mr_reg(w.hca[0], w.pd[0], w.mem[0], 4096, (uintptr_t)w.mem[0], 0, &ro),
                         0);
        wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 0, 0, 0, 20000, 0);
        if (read)
            post_raw(HCA_WR_RDMA_READ, (uintptr_t)w.mem[1], hca_mr_rkey(w.mr[1]),
                     (uintptr_t)w.mem[0], hca_mr_lkey(ro), 64);
        else
            post_raw(HCA_WR_RDMA_WRITE, (uintptr_t)w.mem[1], hca_mr_rkey(w.mr[1]),
                     (uintptr_t)w.mem[0], hca_mr_lkey(ro) ^ 1, 64);
        wire_run(&w, NEVER);
        wire_expect(w.scq[0], 0, HCA_WC_SUCCESS);
        wire_expect(w.scq[0], 1, HCA_WC_LOC_PROT_ERR);
        assert_int_equal(wire_state(&w, 0), HCA_QPS_ERR);
        assert_int_equal(wire_state(&w, 1), HCA_QPS_RTS);
        wire_close(&w);
    }
}

static void no_read_allowed(void **state)
{
    struct wire_conf conf = sane;
    conf.no_rd_atomic = true;
    wire_open(&w, &conf);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 1, 0, 0, 8, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_LOC_QP_OP_ERR);
    wire_close(&w);
}

/* The region goes away while a READ is being answered: the rest is refused. */
static void region_goes(void **state)
{
    wire_open(&w, &sane);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 1, 0, 0, 20000, 0);
    wire_run_for(&w, WIRE_DELAY_NS / 2); /* the request is under way */
    struct hca_tx tx[2];
    wire_run_for(&w, WIRE_DELAY_NS / 2 - 1);
    assert_int_equal(hca_output(w.hca[1], tx, 2, w.now), 0);
    struct roce_hdr h = {.opcode = ROCE_READ_REQUEST};
    h.reth.va = (uintptr_t)w.mem[1];
    h.reth.rkey = hca_mr_rkey(w.mr[1]);
    h.reth.len = 20000;
    wire_inject(&w, 1, &h, NULL, 0);
    assert_int_equal(hca_output(w.hca[1], tx, 2, w.now), 2);
    assert_int_equal(hca_mr_dereg(w.hca[1], w.mr[1]), 0);
    assert_int_equal(hca_output(w.hca[1], tx, 2, w.now), 1);
    assert_int_equal(tx[0].hdr[0], ROCE_ACK);
    assert_int_equal(tx[0].hdr[12], 0x62);
    assert_int_equal(wire_state(&w, 1), HCA_QPS_ERR);
    wire_close(&w);
}

/* ---- requests that no requester of ours would send ----------------------------------------- */

static struct roce_hdr request(uint8_t opcode, uint32_t psn, uint32_t len)
{
    struct roce_hdr h = {.opcode = opcode, .psn = psn_of(psn), .ackreq = true};
    h.reth.va = h.atomic.va = (uintptr_t)w.mem[1];
    h.reth.rkey = h.atomic.rkey = hca_mr_rkey(w.mr[1]);
    h.reth.len = len;
    return h;
}

static void refused(const struct roce_hdr *h, uint32_t len, uint8_t syndrome)
{
    static const uint8_t payload[8192] = {1};
    wire_inject(&w, 1, h, payload, len);
    struct hca_tx tx[4];
    assert_int_equal(hca_output(w.hca[1], tx, 4, w.now), 1);
    assert_int_equal(tx[0].hdr[0], ROCE_ACK);
    assert_int_equal(tx[0].hdr[12], syndrome);
    assert_int_equal(wire_state(&w, 1), HCA_QPS_ERR);
}

/* Path MTU 1024: full middles, a last that is not empty, a WRITE as long as its RETH says. */
static void wrong_lengths(void **state)
{
    static const struct {
        uint8_t op;
        uint32_t reth, len;
    } bad[] = {{ROCE_SEND_FIRST, 0, 1023},     {ROCE_SEND_ONLY, 0, 1025},
               {ROCE_SEND_FIRST, 0, 1028},     {ROCE_WRITE_ONLY, 100, 99},
               {ROCE_WRITE_ONLY, 99, 100},     {ROCE_WRITE_FIRST, 1024, 1024},
               {ROCE_WRITE_FIRST, 2048, 1000}, {ROCE_READ_REQUEST, 0x80000001, 0},
               {ROCE_READ_REQUEST, 8, 4},      {ROCE_FETCH_ADD, 0, 4}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        wire_open(&w, &sane);
        for (uint64_t r = 0; r < 2; r++) wire_recv(&w, 1, 0, r, 0, 4096);
        struct roce_hdr h = request(bad[i].op, 0, bad[i].reth);
        refused(&h, bad[i].len, 0x61);
        wire_close(&w);
    }
}

static void wrong_order(void **state)
{
    static const uint8_t after_send[] = {ROCE_SEND_FIRST,    ROCE_SEND_ONLY,    ROCE_WRITE_MIDDLE,
                                         ROCE_WRITE_LAST,    ROCE_READ_REQUEST, ROCE_CMP_SWAP,
                                         ROCE_WRITE_ONLY_IMM};
    static const uint8_t alone[] = {ROCE_SEND_MIDDLE, ROCE_SEND_LAST, ROCE_WRITE_MIDDLE,
                                    ROCE_WRITE_LAST_IMM, ROCE_SEND_LAST_INV};
    for (size_t i = 0; i < sizeof after_send + sizeof alone; i++) {
        wire_open(&w, &sane);
        bool inside = i < sizeof after_send;
        for (uint64_t r = 0; r < 2; r++) wire_recv(&w, 1, 0, r, 0, 4096);
        uint8_t op = inside ? after_send[i] : alone[i - sizeof after_send];
        if (inside) {
            struct roce_hdr first = request(ROCE_SEND_FIRST, 0, 0);
            first.ackreq = false;
            wire_inject(&w, 1, &first, w.mem[0], 1024);
        }
        struct roce_hdr h = request(op, inside, 1024);
        refused(&h, roce_opcode(op)->props & OP_PAYLOAD ? 1024 : 0, 0x61);
        for (uint64_t r = 0; r < 2; r++) wire_expect(w.rcq[1], r, HCA_WC_WR_FLUSH_ERR);
        wire_close(&w);
    }
}

static void empty_last(void **state)
{
    wire_open(&w, &sane);
    wire_recv(&w, 1, 0, 1, 0, 4096);
    struct roce_hdr h = request(ROCE_SEND_FIRST, 0, 0);
    h.ackreq = false;
    wire_inject(&w, 1, &h, w.mem[0], 1024);
    h = request(ROCE_SEND_LAST, 1, 0);
    refused(&h, 0, 0x61);
    wire_close(&w);
}

/* A WRITE's middle must not run past what its RETH promised. */
static void write_runs_on(void **state)
{
    wire_open(&w, &sane);
    struct roce_hdr h = request(ROCE_WRITE_FIRST, 0, 2048);
    h.ackreq = false;
    memset(w.mem[0], 7, 1024);
    wire_inject(&w, 1, &h, w.mem[0], 1024);
    h = request(ROCE_WRITE_MIDDLE, 1, 0);
    refused(&h, 1024, 0x61);
    assert_int_equal(w.mem[1][1023], 7);
    assert_int_equal(w.mem[1][1024], 0);
    wire_close(&w);
}

static void too_many_reads(void **state)
{
    wire_open(&w, &sane);
    for (uint32_t i = 0; i < 4; i++) {
        struct roce_hdr h = request(ROCE_READ_REQUEST, i, 8);
        wire_inject(&w, 1, &h, NULL, 0);
    }
    struct roce_hdr h = request(ROCE_READ_REQUEST, 4, 8);
    wire_inject(&w, 1, &h, NULL, 0);
    struct hca_tx tx[8];
    assert_int_equal(hca_output(w.hca[1], tx, 8, w.now), 5);
    assert_int_equal(tx[3].hdr[0], ROCE_READ_RESP_ONLY);
    assert_int_equal(tx[4].hdr[12], 0x61);
    wire_close(&w);
}

/* A duplicate READ may ask for a part of what was read, not for more, nor for another place. */
static void duplicate_reads(void **state)
{
    wire_open(&w, &sane);
    struct hca_tx tx[16];
    struct roce_hdr h = request(ROCE_READ_REQUEST, 0, 5000);
    wire_inject(&w, 1, &h, NULL, 0);
    assert_int_equal(hca_output(w.hca[1], tx, 16, w.now), 5);
    h.psn = psn_of(2);
    h.reth.va += 2048;
    h.reth.len = 5000 - 2048;
    wire_inject(&w, 1, &h, NULL, 0);
    assert_int_equal(hca_output(w.hca[1], tx, 16, w.now), 3);
    assert_int_equal(tx[0].hdr[0], ROCE_READ_RESP_FIRST);
    assert_int_equal(tx[0].hdr[11], 2);
    assert_int_equal(tx[2].payload_len, 5000 - 4096);
    h.reth.len = 1024;
    wire_inject(&w, 1, &h, NULL, 0);
    assert_int_equal(hca_output(w.hca[1], tx, 16, w.now), 1);
    h.reth.len = 5000;
    wire_inject(&w, 1, &h, NULL, 0);
    h.reth.len = 1024;
    h.reth.va -= 8;
    wire_inject(&w, 1, &h, NULL, 0);
    h.reth.va = (uintptr_t)w.mem[1];
    h.psn = psn_of(0xfffffe);
    wire_inject(&w, 1, &h, NULL, 0);
    assert_int_equal(hca_output(w.hca[1], tx, 16, w.now), 0);
    assert_int_equal(hca_counters(w.hca[1])->duplicate_request, 5);
    wire_close(&w);
}

/* While the first answer is under way, a duplicate for its end takes nothing from it. */
static void duplicate_of_unfinished(void **state)
{
    wire_open(&w, &sane);
    struct hca_tx tx[16];
    struct roce_hdr h = request(ROCE_READ_REQUEST, 0, 5000);
    wire_inject(&w, 1, &h, NULL, 0);
    assert_int_equal(hca_output(w.hca[1], tx, 2, w.now), 2);
    h.psn = psn_of(4);
    h.reth.va += 4096;
    h.reth.len = 5000 - 4096;
    wire_inject(&w, 1, &h, NULL, 0);
    assert_int_equal(hca_output(w.hca[1], tx, 16, w.now), 3);
    for (uint8_t i = 0; i < 3; i++) assert_int_equal(tx[i].hdr[11], 2 + i);
    assert_int_equal(tx[2].hdr[0], ROCE_READ_RESP_LAST);
    wire_close(&w);
}

/* A duplicate of something before our time: there is nothing to acknowledge. */
static void before_our_time(void **state)
{
    wire_open(&w, &sane);
    struct hca_tx tx[4];
    struct roce_hdr h = request(ROCE_SEND_ONLY, 0xffffff, 0);
    wire_inject(&w, 1, &h, NULL, 0);
    assert_int_equal(hca_output(w.hca[1], tx, 4, w.now), 0);
    wire_close(&w);
}

/* ---- responses that no responder of ours would send ---------------------------------------- */

static void wrong_response_length(void **state)
{
    wire_open(&w, &sane);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 1, 0, 0, 3000, 0);
    struct hca_tx tx[4];
    assert_int_equal(hca_output(w.hca[0], tx, 4, w.now), 1);
    struct roce_hdr h = {.opcode = ROCE_READ_RESP_FIRST, .aeth.syndrome = 31};
    wire_inject(&w, 0, &h, w.mem[1], 1000);
    wire_expect(w.scq[0], 1, HCA_WC_BAD_RESP_ERR);
    wire_close(&w);
}

/* Answers to nothing, of the wrong kind, ahead of what was sent: dropped. */
static void ghosts(void **state)
{
    wire_open(&w, &sane);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 3000, 0);
    struct hca_tx tx[4];
    assert_int_equal(hca_output(w.hca[0], tx, 4, w.now), 3);
    struct roce_hdr h = {.opcode = ROCE_ACK, .psn = psn_of(3), .aeth.syndrome = 31};
    wire_inject(&w, 0, &h, NULL, 0);
    h.psn = psn_of(0xffffff);
    wire_inject(&w, 0, &h, NULL, 0);
    h.psn = psn_of(2);
    h.aeth.syndrome = 0x62;
    h.psn = psn_of(0xfffff0); /* a NAK of long ago */
    wire_inject(&w, 0, &h, NULL, 0);
    h = (struct roce_hdr){.opcode = ROCE_READ_RESP_ONLY, .psn = psn_of(0)};
    wire_inject(&w, 0, &h, w.mem[1], 1024);
    h = (struct roce_hdr){.opcode = ROCE_ATOMIC_ACK, .psn = psn_of(0)};
    wire_inject(&w, 0, &h, NULL, 0);
    h = (struct roce_hdr){.opcode = ROCE_ACK, .psn = psn_of(2), .aeth.syndrome = 0x5f};
    wire_inject(&w, 0, &h, NULL, 0);
    wire_no_wc(w.scq[0]);
    assert_int_equal(wire_state(&w, 0), HCA_QPS_RTS);
    h.aeth.syndrome = 31;
    wire_inject(&w, 0, &h, NULL, 0);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_close(&w);
}

/* All opcodes with random fields near the truth, at both roles: nothing outside the regions. */
static void hostile(void **state)
{
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        static struct hca_tx tx[64];
        struct wire_conf conf = sane;
        conf.path_mtu = 1;
        wire_open(&w, &conf);
        w.random = seed;
        for (uint64_t r = 0; r < 8; r++) wire_recv(&w, 1, 0, r, 4096, 600);
        wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 1000, 0);
        wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 2, 0, 0, 1000, 0);
        wire_post(&w, 0, 0, HCA_WR_ATOMIC_CMP_AND_SWP, 3, 0, 0, 8, 0);
        hca_output(w.hca[0], tx, 64, w.now);
        for (int i = 0; i < 40; i++) {
            uint64_t r = wire_random(&w);
            struct roce_hdr h = {.opcode = (uint8_t)(r % 24)};
            if (!roce_opcode(h.opcode)->props) continue;
            h.psn = psn_of((uint32_t)(r >> 8) % 16 - 4);
            h.ackreq = r >> 16 & 1;
            h.reth.va = h.atomic.va = (uintptr_t)w.mem[1] + (r >> 20) % 64 * 8;
            h.reth.rkey = h.atomic.rkey = hca_mr_rkey(w.mr[1]);
            h.reth.len = (uint32_t)(r >> 24) % 8 ? (uint32_t)(r >> 32) % 1100 : (uint32_t)(r >> 32);
            h.aeth.syndrome = (uint8_t)(r >> 40);
            uint32_t len = roce_opcode(h.opcode)->props & OP_PAYLOAD
                               ? (r >> 48) % 2 ? 256 : (uint32_t)(r >> 50) % 300
                               : 0;
            wire_inject(&w, (int)(r >> 60) & 1, &h, w.mem[0], len);
            hca_output(w.hca[i & 1], tx, (r >> 56) % 8, w.now);
            w.now = when_add(w.now, (r >> 30) % MS_NS);
            hca_expire(w.hca[i & 1], w.now);
        }
        wire_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(remote_access),
        cmocka_unit_test(not_enabled),
        cmocka_unit_test(misaligned_atomic),
        cmocka_unit_test(send_too_long),
        cmocka_unit_test(bad_receive_key),
        cmocka_unit_test(send_with_inv),
        cmocka_unit_test(local_inv),
        cmocka_unit_test(local_protection),
        cmocka_unit_test(no_read_allowed),
        cmocka_unit_test(region_goes),
        cmocka_unit_test(wrong_lengths),
        cmocka_unit_test(wrong_order),
        cmocka_unit_test(empty_last),
        cmocka_unit_test(write_runs_on),
        cmocka_unit_test(too_many_reads),
        cmocka_unit_test(duplicate_reads),
        cmocka_unit_test(wrong_response_length),
        cmocka_unit_test(duplicate_of_unfinished),
        cmocka_unit_test(before_our_time),
        cmocka_unit_test(ghosts),
        cmocka_unit_test(hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
