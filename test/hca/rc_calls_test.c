/* XRC between functions: side 1's target delivers to SRQs of two further functions, over lines that
 * carry calls in order and take their time. */
#include "hca/call.h"
#include "rc_wire.h"
#include <stdlib.h>
#include <sys/mman.h>

#define MEM (1u << 20)
#define ALL                                                                                        \
    (HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_REMOTE_READ |                   \
     HCA_ACCESS_REMOTE_ATOMIC)
enum { NCALLEES = 2, FIRST_FUNCTION = 7, THEIR_XRCD = 77 };

struct line_msg {
    struct line_msg *next;
    when_t at;
    bool is_answer;
    struct hca_call call;
    struct hca_answer answer;
    uint8_t bytes[HCA_CALL_DATA];
};

struct callee {
    struct hca *hca;
    struct hca_cq *cq;
    struct hca_srq *srq;
    struct hca_mr *mr;
    uint8_t *mem;
    bool gone;
    struct line_msg *line; /* in the order of arrival, both ways */
    when_t last[2];        /* arrival each way: nothing overtakes */
};

static struct wire w;
static struct callee callee[NCALLEES];
static uint64_t line_ns;   /* at most */
static unsigned line_room; /* calls under way on a line; 0: any */

static const struct wire_conf sane = {.timeout = 14,
                                      .retry_cnt = 7,
                                      .rnr_retry = 7,
                                      .min_rnr_timer = 1,
                                      .xrc = true,
                                      .xrcd_shared = true};

/* ---- lines --------------------------------------------------------------------------------- */

static struct line_msg *put(struct callee *c, bool is_answer)
{
    struct line_msg *m = calloc(1, sizeof *m), **at = &c->line;
    assert_non_null(m);
    when_t when = when_add(w.now, line_ns ? wire_random(&w) % line_ns : 0);
    if (when_before(when, c->last[is_answer])) when = c->last[is_answer];
    m->at = c->last[is_answer] = when;
    m->is_answer = is_answer;
    while (*at && !when_before(when, (*at)->at)) at = &(*at)->next;
    m->next = *at;
    *at = m;
    return m;
}

static unsigned calls_on(const struct callee *c)
{
    unsigned n = 0;
    for (const struct line_msg *m = c->line; m; m = m->next) n += !m->is_answer;
    return n;
}

static void pull_calls(void)
{
    struct hca_call call;
    while (hca_next_call(w.hca[1], &call)) {
        assert_int_equal(call.xrcd, WIRE_XRCD);
        unsigned index = call.function - FIRST_FUNCTION;
        if (index >= NCALLEES || callee[index].gone) {
            hca_call_lost(w.hca[1], &call, w.now);
            continue;
        }
        if (line_room && calls_on(&callee[index]) >= line_room) {
            hca_call_full(w.hca[1], &call);
            continue;
        }
        struct line_msg *m = put(&callee[index], false);
        m->call = call;
        if (call.kind == HCA_CALL_REQUEST) {
            assert_true(call.len <= HCA_MAX_MTU);
            memcpy(m->bytes, call.payload, call.len);
            m->call.payload = m->bytes;
        }
        hca_call_sent(w.hca[1], &call);
    }
}

static void take(struct callee *c, struct line_msg *m)
{
    uint16_t number = (uint16_t)(FIRST_FUNCTION + (c - callee));
    struct hca_answer answer;
    if (m->is_answer) {
        hca_answer_input(w.hca[1], WIRE_XRCD, number, &m->answer, w.now);
    } else if (hca_call_input(c->hca, THEIR_XRCD, 2, &m->call, &answer, w.now)) {
        struct line_msg *back = put(c, true);
        size_t have = 0;
        back->answer = answer;
        for (uint32_t i = 0; answer.kind == HCA_CALL_READ && i < answer.pieces; i++) {
            memcpy(back->bytes + have, answer.piece[i].iov_base, answer.piece[i].iov_len);
            back->answer.piece[i].iov_base = back->bytes + have;
            have += answer.piece[i].iov_len;
        }
    }
    hca_calls_resume(w.hca[1]);
    free(m);
}

static when_t carry(struct wire *wire)
{
    when_t next = NEVER;
    pull_calls();
    for (int i = 0; i < NCALLEES; i++) {
        struct callee *c = &callee[i];
        while (c->line && when_due(c->line->at, w.now)) {
            struct line_msg *m = c->line;
            c->line = m->next;
            take(c, m);
            pull_calls();
        }
        if (c->line) next = when_min(next, c->line->at);
    }
    return next;
}

/* The process of this function ends: what it had sent arrives still. */
static void end(struct callee *c)
{
    c->gone = true;
    for (struct line_msg *m = c->line, *after; m; m = after) {
        after = m->next;
        free(m);
    }
    c->line = NULL;
    hca_function_gone(w.hca[1], WIRE_XRCD, (uint16_t)(FIRST_FUNCTION + (c - callee)), w.now);
}

/* ---- the bed ------------------------------------------------------------------------------- */

static void open_all(const struct wire_conf *conf)
{
    wire_open(&w, conf);
    w.beside = carry;
    line_ns = 30 * US_NS;
    line_room = 0;
    for (int i = 0; i < NCALLEES; i++) {
        struct callee *c = &callee[i];
        struct hca_conf hc = {.function = (uint16_t)(FIRST_FUNCTION + i),
                              .seed = 100u + (unsigned)i};
        *c = (struct callee){.hca = hca_new(&hc)};
        uint32_t pd = hca_pd_alloc(c->hca), cqe = 1024;
        assert_int_equal(hca_cq_create(c->hca, &cqe, c, &c->cq), 0);
        struct hca_srq_init si = {
            .pd = pd, .max_wr = 1024, .max_sge = 1, .xrcd = THEIR_XRCD, .cq = c->cq, .owner = c};
        assert_int_equal(hca_srq_create(c->hca, &si, &c->srq), 0);
        c->mem = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_int_equal(hca_mr_reg(c->hca, pd, c->mem, MEM, (uintptr_t)c->mem, ALL, &c->mr), 0);
    }
}

static void close_all(void)
{
    for (int i = 0; i < NCALLEES; i++) {
        for (struct line_msg *m = callee[i].line, *after; m; m = after) {
            after = m->next;
            free(m);
        }
        hca_free(callee[i].hca);
        munmap(callee[i].mem, MEM);
    }
    wire_close(&w);
}

static void recv_at(struct callee *c, uint64_t id, uint32_t at, uint32_t len)
{
    struct hca_sge sge = {(uintptr_t)c->mem + at, len, hca_mr_lkey(c->mr)};
    struct hca_recv_wr wr = {.wr_id = id, .sge = &sge, .num_sge = 1};
    assert_int_equal(hca_srq_post(c->hca, c->srq, &wr), 0);
}

static void post(struct callee *c, enum hca_wr_opcode op, uint64_t id, uint32_t local,
                 uint32_t remote, uint32_t len)
{
    struct hca_sge sge = {(uintptr_t)w.mem[0] + local, len, hca_mr_lkey(w.mr[0])};
    struct hca_send_wr wr = {.wr_id = id,
                             .opcode = op,
                             .flags = HCA_SEND_SIGNALED,
                             .imm_be = (uint32_t)id,
                             .remote_addr = (uintptr_t)c->mem + remote,
                             .rkey = hca_mr_rkey(c->mr),
                             .compare_add = 5,
                             .xrc_srqn = hca_srq_num(c->srq),
                             .sge = &sge,
                             .num_sge = 1};
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
}

static void fill(uint8_t *at, uint32_t len, uint64_t seed)
{
    for (uint32_t i = 0; i < len; i++) at[i] = (uint8_t)((i * 31 + seed * 7 + (i >> 8)) ^ seed);
}

/* The one that failed, and both ends in ERR. */
static void both_fail(uint64_t id, enum hca_wc_status status)
{
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], id, status);
    assert_int_equal(wire_state(&w, 0), HCA_QPS_ERR);
    assert_int_equal(wire_state(&w, 1), HCA_QPS_ERR);
}

static bool event_is(enum hca_event_type type)
{
    struct hca_event event;
    while (hca_next_event(w.hca[1], &event))
        if (event.type == type) return true;
    return false;
}

/* ---- tests --------------------------------------------------------------------------------- */

static void every_operation(void **state)
{
    struct callee *c = &callee[0];
    uint64_t word = 40, got;
    (void)state;

    open_all(&sane);
    fill(w.mem[0], 8000, 7);
    fill(c->mem + 20000, 200000, 8);
    memcpy(c->mem + 80008, &word, 8);
    recv_at(c, 100, 300000, 8000);
    recv_at(c, 101, 0, 0);
    recv_at(c, 102, 310000, 100);
    post(c, HCA_WR_SEND, 1, 0, 0, 8000);
    post(c, HCA_WR_RDMA_WRITE, 2, 0, 320000, 5000);
    post(c, HCA_WR_RDMA_WRITE_WITH_IMM, 3, 0, 330000, 3000);
    post(c, HCA_WR_RDMA_READ, 4, 400000, 20000, 200000);
    post(c, HCA_WR_RDMA_READ, 5, 390000, 20000, 0);
    post(c, HCA_WR_ATOMIC_FETCH_AND_ADD, 6, 390008, 80008, 8);
    post(c, HCA_WR_SEND_WITH_IMM, 7, 0, 0, 100);
    wire_run(&w, NEVER);
    for (uint64_t id = 1; id <= 7; id++) wire_expect(w.scq[0], id, HCA_WC_SUCCESS);
    assert_memory_equal(w.mem[0], c->mem + 300000, 8000);
    assert_memory_equal(w.mem[0], c->mem + 320000, 5000);
    assert_memory_equal(w.mem[0], c->mem + 330000, 3000);
    memcpy(c->mem + 80008, w.mem[0] + 390008, 8); /* what was there before: as the READ saw it */
    assert_memory_equal(w.mem[0] + 400000, c->mem + 20000, 200000);
    memcpy(&got, w.mem[0] + 390008, 8);
    assert_int_equal(got, word);
    struct hca_wc wc = wire_wc(c->cq);
    assert_int_equal(wc.wr_id, 100);
    assert_int_equal(wc.byte_len, 8000);
    assert_int_equal(wc.qpn, hca_qp_num(w.qp[1][0]));
    assert_int_equal(wc.src_qpn, hca_qp_num(w.qp[0][0]));
    wc = wire_wc(c->cq);
    assert_int_equal(wc.opcode, HCA_WC_RECV_RDMA_WITH_IMM);
    assert_int_equal(wc.imm_be, 3);
    wire_expect(c->cq, 102, HCA_WC_SUCCESS);
    wire_no_wc(c->cq);
    assert_int_equal(hca_counters(w.hca[0])->tx_retransmits, 0);
    close_all();
}

static enum fate lose_some(struct wire *wire, const struct seen *packet)
{
    return wire_random(wire) % 12 == 0 ? DROP : wire_random(wire) % 15 == 0 ? TWICE : PASS;
}

/* Messages for three functions in turn; each arrives once, in order, and each sum is right. */
static void mixed(unsigned seed, bool lossy, unsigned room)
{
    enum { N = 60, LEN = 3000 };
    uint64_t adds[NCALLEES] = {0};
    open_all(&sane);
    w.random = seed;
    line_room = room;
    if (lossy) w.script = lose_some;
    fill(w.mem[0], N * LEN, seed);
    for (int i = 0; i < NCALLEES; i++) fill(callee[i].mem + 500000, 20000, seed + (unsigned)i);
    for (uint32_t i = 0; i < N; i++) {
        unsigned to = (unsigned)(wire_random(&w) % 3);
        struct callee *c = &callee[to % NCALLEES];
        switch (wire_random(&w) % 4) {
        case 0:
            if (to == 2) {
                wire_recv(&w, 1, 0, 1000 + i, i * LEN, LEN);
                wire_post(&w, 0, 0, HCA_WR_SEND, i, i * LEN, 0, LEN, 0);
            } else {
                recv_at(c, 1000 + i, i * LEN, LEN);
                post(c, HCA_WR_SEND, i, i * LEN, 0, LEN);
            }
            break;
        case 1: post(c, HCA_WR_RDMA_WRITE, i, i * LEN, i * LEN, LEN); break;
        case 2: post(c, HCA_WR_RDMA_READ, i, 600000, 500000, 20000); break;
        default: post(c, HCA_WR_ATOMIC_FETCH_AND_ADD, i, 700000, 800000, 8); adds[c - callee] += 5;
        }
    }
    wire_run(&w, NEVER);
    for (uint64_t i = 0; i < N; i++) wire_expect(w.scq[0], i, HCA_WC_SUCCESS);
    for (int i = 0; i < NCALLEES; i++) {
        struct hca_wc wc;
        uint64_t sum, before = 0;
        memcpy(&sum, callee[i].mem + 800000, 8);
        assert_int_equal(sum, adds[i]);
        while (hca_cq_poll(callee[i].cq, &wc, 1) == 1) {
            assert_int_equal(wc.status, HCA_WC_SUCCESS);
            assert_true(wc.wr_id > before);
            before = wc.wr_id;
            uint32_t at = (uint32_t)(wc.wr_id - 1000) * LEN;
            assert_memory_equal(w.mem[0] + at, callee[i].mem + at, LEN);
        }
    }
    close_all();
}

static void three_functions(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 60; seed++) mixed(seed, seed % 3, seed % 4);
}

/* More than the target keeps waiting: the rest comes again. */
static void more_than_room(void **state)
{
    struct callee *c = &callee[0];
    struct wire_conf conf = sane;
    (void)state;
    conf.path_mtu = 1;
    conf.start_window = conf.max_window = 1 << 20;
    open_all(&conf);
    line_ns = 5 * MS_NS;
    fill(w.mem[0], 200000, 3);
    for (uint64_t i = 0; i < 2; i++) {
        recv_at(c, i, (uint32_t)i * 100000, 100000);
        post(c, HCA_WR_SEND, i, (uint32_t)i * 100000, 0, 100000);
    }
    wire_run(&w, NEVER);
    for (uint64_t i = 0; i < 2; i++) {
        wire_expect(w.scq[0], i, HCA_WC_SUCCESS);
        wire_expect(c->cq, i, HCA_WC_SUCCESS);
    }
    assert_memory_equal(w.mem[0], c->mem, 200000);
    close_all();
}

static void receives_run_out(void **state)
{
    struct callee *c = &callee[0];
    (void)state;
    open_all(&sane);
    fill(w.mem[0], 9000, 3);
    for (uint64_t i = 1; i <= 3; i++) post(c, HCA_WR_SEND, i, 0, 0, 3000 * (uint32_t)i);
    wire_run_for(&w, 5 * MS_NS);
    assert_true(hca_counters(w.hca[0])->rnr_nak_received > 0);
    wire_no_wc(w.scq[0]);
    for (uint64_t i = 1; i <= 3; i++) recv_at(c, i, (uint32_t)i * 10000, 9000);
    wire_run(&w, NEVER);
    for (uint64_t i = 1; i <= 3; i++) {
        wire_expect(w.scq[0], i, HCA_WC_SUCCESS);
        wire_expect(c->cq, i, HCA_WC_SUCCESS);
        assert_memory_equal(w.mem[0], c->mem + i * 10000, 3000 * i);
    }
    wire_no_wc(c->cq);
    /* An immediate wants its receive when the data of its message is there. */
    post(c, HCA_WR_RDMA_WRITE_WITH_IMM, 4, 0, 50000, 9000);
    wire_run_for(&w, 5 * MS_NS);
    recv_at(c, 4, 0, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 4, HCA_WC_SUCCESS);
    wire_expect(c->cq, 4, HCA_WC_SUCCESS);
    assert_memory_equal(w.mem[0], c->mem + 50000, 9000);
    close_all();
}

static void refusals(void **state)
{
    (void)state;
    for (int how = 0; how < 6; how++) {
        struct callee *c = &callee[0];
        enum hca_wc_status want = HCA_WC_REM_INV_REQ_ERR;
        enum hca_wr_opcode op = HCA_WR_SEND;
        enum hca_event_type event = HCA_EVENT_QP_REQ_ERR;
        uint32_t remote = 0, len = 2000;
        open_all(&sane);
        uint32_t srqn = hca_srq_num(c->srq);
        recv_at(c, 100, 0, 1000);
        if (how == 0) assert_int_equal(hca_srq_destroy(c->hca, c->srq), 0);
        if (how == 1) end(c);
        if (how == 2)
            event = HCA_EVENT_QP_LAST_WQE_REACHED; /* too short: its own completion tells */
        if (how == 3) {
            assert_int_equal(hca_mr_dereg(c->hca, c->mr), 0);
            op = HCA_WR_RDMA_READ;
        }
        if (how == 4) {
            op = HCA_WR_RDMA_WRITE;
            remote = MEM - 100;
        }
        if (how == 5) {
            op = HCA_WR_ATOMIC_FETCH_AND_ADD;
            remote = 4;
            len = 8;
        }
        if (how == 3 || how == 4) {
            want = HCA_WC_REM_ACCESS_ERR;
            event = HCA_EVENT_QP_ACCESS_ERR;
        }
        struct hca_sge sge = {(uintptr_t)w.mem[0], len, hca_mr_lkey(w.mr[0])};
        struct hca_send_wr wr = {.wr_id = 1,
                                 .opcode = op,
                                 .flags = HCA_SEND_SIGNALED,
                                 .remote_addr = (uintptr_t)c->mem + remote,
                                 .rkey = how == 3 ? 0x100 : hca_mr_rkey(c->mr),
                                 .xrc_srqn = srqn,
                                 .sge = &sge,
                                 .num_sge = 1};
        assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
        both_fail(1, want);
        assert_true(event_is(event));
        if (how == 2) wire_expect(c->cq, 100, HCA_WC_LOC_LEN_ERR);
        close_all();
    }
}

/* A function ends while a message of several packets is with it. */
static void function_ends(void **state)
{
    struct callee *c = &callee[0];
    (void)state;
    open_all(&sane);
    line_ns = 20 * MS_NS;
    recv_at(c, 100, 0, 50000);
    post(c, HCA_WR_SEND, 1, 0, 0, 50000);
    wire_run_for(&w, 5 * MS_NS);
    end(c);
    both_fail(1, HCA_WC_REM_INV_REQ_ERR);
    close_all();
}

/* The same while a READ is answered: the memory has gone. */
static void function_ends_in_a_read(void **state)
{
    struct callee *c = &callee[0];
    (void)state;
    open_all(&sane);
    post(c, HCA_WR_RDMA_READ, 1, 0, 0, 200000);
    while (!wire_count(&w, 1, ROCE_XRC | ROCE_READ_RESP_FIRST)) wire_run_for(&w, 5 * US_NS);
    end(c);
    both_fail(1, HCA_WC_REM_ACCESS_ERR);
    assert_true(event_is(HCA_EVENT_QP_ACCESS_ERR));
    close_all();
}

static const struct hca_qp_attr to_err = {.state = HCA_QPS_ERR};

/* The receive that a message of the target's had taken is flushed, and no other; with a target that
 * is destroyed it is lost, here as where they are of one function. */
static void target_ends(void **state)
{
    struct roce_hdr first = {.opcode = ROCE_XRC | ROCE_SEND_FIRST, .psn = psn_of(0)};
    uint8_t payload[1024] = {1};
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct callee *c = &callee[0];
        open_all(&sane);
        recv_at(c, 100, 0, 9000);
        recv_at(c, 101, 10000, 9000);
        first.xrc_srqn = hca_srq_num(c->srq);
        wire_inject(&w, 1, &first, payload, 1024);
        wire_run_for(&w, MS_NS);
        if (how == 0)
            assert_int_equal(hca_qp_modify(w.hca[1], w.qp[1][0], &to_err, HCA_QP_STATE, w.now), 0);
        if (how == 1) assert_int_equal(hca_qp_destroy(w.hca[1], w.qp[1][0]), 0);
        if (how == 2) hca_function_gone(c->hca, THEIR_XRCD, 2, w.now); /* its process has died */
        wire_run_for(&w, MS_NS);
        if (how != 1) wire_expect(c->cq, 100, HCA_WC_WR_FLUSH_ERR);
        wire_no_wc(c->cq);
        close_all();
    }
}

/* The receive is lost with its SRQ, and what follows finds none. */
static void srq_goes_in_a_message(void **state)
{
    struct roce_hdr h = {.opcode = ROCE_XRC | ROCE_SEND_FIRST, .psn = psn_of(0)};
    uint8_t payload[1024] = {1};
    struct callee *c = &callee[0];
    (void)state;
    open_all(&sane);
    recv_at(c, 100, 0, 9000);
    h.xrc_srqn = hca_srq_num(c->srq);
    wire_inject(&w, 1, &h, payload, 1024);
    wire_run_for(&w, MS_NS);
    assert_int_equal(hca_srq_destroy(c->hca, c->srq), 0);
    h.opcode = ROCE_XRC | ROCE_SEND_LAST;
    h.psn = psn_of(1);
    wire_inject(&w, 1, &h, payload, 100);
    wire_run_for(&w, MS_NS);
    assert_int_equal(wire_state(&w, 1), HCA_QPS_ERR);
    wire_no_wc(c->cq);
    close_all();
}

static void message_keeps_to_its_srq(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct callee *c = &callee[0];
        struct roce_hdr h = {.opcode = ROCE_XRC | ROCE_SEND_FIRST, .psn = psn_of(0)};
        uint8_t payload[1024] = {1};
        open_all(&sane);
        recv_at(c, 100, 0, 9000);
        recv_at(&callee[1], 101, 0, 9000);
        wire_recv(&w, 1, 0, 102, 0, 9000);
        h.xrc_srqn = how == 2 ? w.xrc_srqn : hca_srq_num(c->srq);
        wire_inject(&w, 1, &h, payload, 1024);
        h.opcode = ROCE_XRC | ROCE_SEND_LAST;
        h.psn = psn_of(1);
        h.xrc_srqn = how == 1 ? w.xrc_srqn : hca_srq_num(callee[1].srq);
        wire_inject(&w, 1, &h, payload, 100);
        wire_run_for(&w, MS_NS);
        assert_int_equal(wire_state(&w, 1), HCA_QPS_ERR);
        if (how == 2)
            wire_expect(w.rcq[1], 102, HCA_WC_WR_FLUSH_ERR);
        else
            wire_expect(c->cq, 100, HCA_WC_WR_FLUSH_ERR);
        wire_no_wc(callee[1].cq);
        close_all();
    }
}

/* Packets longer than any MTU are refused, not kept. */
static void giants(void **state)
{
    struct roce_hdr h = {.opcode = ROCE_XRC | ROCE_SEND_ONLY, .psn = psn_of(0)};
    static uint8_t payload[6000];
    (void)state;
    open_all(&sane);
    recv_at(&callee[0], 100, 0, 9000);
    h.xrc_srqn = hca_srq_num(callee[0].srq);
    wire_inject(&w, 1, &h, payload, sizeof payload);
    wire_run_for(&w, MS_NS);
    assert_int_equal(wire_state(&w, 1), HCA_QPS_ERR);
    wire_no_wc(callee[0].cq);
    close_all();
}

/* What other functions say is believed as far as it is about them. */
static void lies(void **state)
{
    struct callee *c = &callee[0];
    struct hca_answer a = {.kind = HCA_CALL_REQUEST, .syndrome = 0x7f, .event = 99};
    struct hca_call call = {.kind = HCA_CALL_REQUEST, .qpn = 2 << HCA_INDEX_BITS | 77, .mtu = 1024};
    struct hca_answer out;
    (void)state;
    open_all(&sane);
    a.qpn = hca_qp_num(w.qp[1][0]);
    hca_answer_input(w.hca[1], WIRE_XRCD, FIRST_FUNCTION, &a, w.now); /* nothing was asked */
    a.kind = HCA_CALL_READ;
    hca_answer_input(w.hca[1], WIRE_XRCD, FIRST_FUNCTION, &a, w.now);
    a.qpn ^= 1;
    hca_answer_input(w.hca[1], WIRE_XRCD, FIRST_FUNCTION, &a, w.now);
    assert_int_equal(wire_state(&w, 1), HCA_QPS_RTS);

    assert_false(hca_call_input(c->hca, THEIR_XRCD, 2, &call, &out, w.now)); /* no packet */
    call.hdr_len = sizeof call.hdr;
    assert_false(hca_call_input(c->hca, THEIR_XRCD, 2, &call, &out, w.now));
    struct roce_hdr h = {.opcode = ROCE_XRC | ROCE_SEND_ONLY, .xrc_srqn = hca_srq_num(c->srq)};
    call.hdr_len = (uint8_t)roce_encode(call.hdr, &h);
    assert_false(hca_call_input(c->hca, THEIR_XRCD, 3, &call, &out, w.now)); /* not its target */
    call.mtu = 1000;
    assert_false(hca_call_input(c->hca, THEIR_XRCD, 2, &call, &out, w.now));
    call.mtu = 1024;
    call.len = HCA_MAX_MTU + 1;
    assert_false(hca_call_input(c->hca, THEIR_XRCD, 2, &call, &out, w.now));
    call.len = 0;
    assert_true(hca_call_input(c->hca, THEIR_XRCD + 1, 2, &call, &out, w.now)); /* another domain */
    assert_int_equal(out.syndrome, 0x61);
    struct hca_call read = {.kind = HCA_CALL_READ,
                            .qpn = 2 << HCA_INDEX_BITS | 77,
                            .srqn = hca_srq_num(c->srq),
                            .rkey = hca_mr_rkey(c->mr),
                            .va = (uintptr_t)c->mem,
                            .bytes = HCA_CALL_DATA + 1};
    assert_true(hca_call_input(c->hca, THEIR_XRCD, 2, &read, &out, w.now));
    assert_int_equal(out.bytes, 0);
    read.bytes = 5000;
    assert_true(hca_call_input(c->hca, THEIR_XRCD, 2, &read, &out, w.now));
    assert_int_equal(out.bytes, 5000);
    assert_true(hca_call_input(c->hca, THEIR_XRCD + 1, 2, &read, &out, w.now));
    assert_int_equal(out.bytes, 0);
    close_all();
}

static uint32_t one_of(const uint32_t *values, size_t n)
{
    uint64_t r = wire_random(&w);
    return r % 8 == 0 ? (uint32_t)(r >> 32) : values[(r >> 8) % n];
}

/* Another function's process says anything at all, half of it about what there is. */
static void random_words(void **state)
{
    enum { ROUNDS = 30000 };
    static uint8_t bytes[HCA_CALL_DATA];
    const uint8_t syndromes[] = {0x1f, 0x20, 0x3f, 0x60, 0x61, 0x62, 0x63, 0x7f, 0};
    struct callee *c = &callee[0];
    struct hca_answer out;
    (void)state;

    open_all(&sane);
    for (int i = 0; i < 200; i++) recv_at(c, (uint64_t)i, (uint32_t)i * 1000, 1000);
    for (int i = 0; i < 20; i++) post(c, HCA_WR_SEND, (uint64_t)i, 0, 0, 900);
    wire_run_for(&w, 15 * US_NS);
    for (int i = 0; i < ROUNDS; i++) {
        const uint32_t qpns[] = {hca_qp_num(w.qp[1][0]), 2 << HCA_INDEX_BITS | 77};
        const uint32_t mtus[] = {256, 1024, 4096}, lens[] = {0, 8, 256, 900, 1024, 4096};
        const uint32_t srqns[] = {hca_srq_num(c->srq)}, keys[] = {hca_mr_rkey(c->mr)};
        struct roce_hdr h = {.opcode = (uint8_t)(ROCE_XRC | (wire_random(&w) & 31)),
                             .psn = psn_of((uint32_t)wire_random(&w) % 4),
                             .xrc_srqn = one_of(srqns, 1),
                             .reth = {(uintptr_t)c->mem, one_of(keys, 1), one_of(lens, 6)},
                             .atomic = {.va = (uintptr_t)c->mem, .rkey = one_of(keys, 1)}};
        struct hca_call call = {.kind = (enum hca_call_kind)(wire_random(&w) % 5),
                                .qpn = one_of(qpns, 2),
                                .epoch = (uint32_t)wire_random(&w) % 3};
        if (call.kind == HCA_CALL_READ) {
            call.va = (uintptr_t)c->mem + one_of(lens, 6);
            call.srqn = one_of(srqns, 1);
            call.rkey = one_of(keys, 1);
            call.bytes = one_of(lens, 6);
        } else if (call.kind == HCA_CALL_REQUEST) {
            call.access = ALL;
            call.mtu = one_of(mtus, 3);
            call.hdr_len = roce_opcode(h.opcode)->props ? (uint8_t)roce_encode(call.hdr, &h) : 12;
            call.payload = bytes;
            call.len = one_of(lens, 6);
        }
        hca_call_input(c->hca, THEIR_XRCD, 2, &call, &out, w.now);
        struct hca_answer a = {.kind = (enum hca_call_kind)(wire_random(&w) % 5),
                               .qpn = one_of(qpns, 2),
                               .epoch = (uint32_t)wire_random(&w) % 4};
        if (a.kind == HCA_CALL_READ) {
            a.pieces = (uint32_t)wire_random(&w) % 20;
            for (int k = 0; k < HCA_CALL_PIECES; k++)
                a.piece[k] = (struct iovec){bytes, wire_random(&w) % sizeof bytes};
        } else {
            a.psn = psn_of((uint32_t)wire_random(&w) % 30);
            a.syndrome = syndromes[wire_random(&w) % sizeof syndromes];
            a.fatal = wire_random(&w) & 1;
            a.event = (int8_t)wire_random(&w);
        }
        hca_answer_input(w.hca[1], WIRE_XRCD, FIRST_FUNCTION, &a, w.now);
        if (i % 1000 == 0) wire_run_for(&w, MS_NS);
    }
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation),
        cmocka_unit_test(three_functions),
        cmocka_unit_test(more_than_room),
        cmocka_unit_test(receives_run_out),
        cmocka_unit_test(refusals),
        cmocka_unit_test(function_ends),
        cmocka_unit_test(function_ends_in_a_read),
        cmocka_unit_test(target_ends),
        cmocka_unit_test(srq_goes_in_a_message),
        cmocka_unit_test(message_keeps_to_its_srq),
        cmocka_unit_test(giants),
        cmocka_unit_test(lies),
        cmocka_unit_test(random_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
