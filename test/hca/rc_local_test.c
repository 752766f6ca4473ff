/* Binds and local invalidates in the send queue: executed in order, once, however the packets
 * before them fare; and what a READ's duplicate finds when its window has closed. */
#include "rc_wire.h"
#include <stdlib.h>

static struct wire w;
static struct hca_mr *mr;     /* side 0's, with windows in it */
static struct hca_mw *window; /* of type 2 */
static uint32_t key;

#define ALL_REMOTE (HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_REMOTE_READ | HCA_ACCESS_REMOTE_ATOMIC)

static void open_wire(void)
{
    wire_open(
        &w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .min_rnr_timer = 1});
    assert_int_equal(hca_mr_reg(w.hca[0], w.pd[0], w.mem[0], WIRE_MEM, (uintptr_t)w.mem[0],
                                HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_MW_BIND, &mr),
                     0);
    assert_int_equal(hca_mw_alloc(w.hca[0], w.pd[0], HCA_MW_TYPE_2, &window), 0);
    key = hca_mw_rkey(window);
}

static void post_bind(uint64_t id, uint32_t rkey, uint32_t flags)
{
    struct hca_send_wr wr = wire_wr(&w, 0, HCA_WR_BIND_MW, id, 0);
    wr.flags |= flags;
    wr.rkey = rkey;
    wr.remote_addr = (uintptr_t)w.mem[0];
    wr.bind_length = WIRE_MEM;
    wr.bind_lkey = hca_mr_lkey(mr);
    wr.bind_access = ALL_REMOTE;
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
}

static void post_inv(uint64_t id, uint32_t rkey)
{
    struct hca_send_wr wr = wire_wr(&w, 0, HCA_WR_LOCAL_INV, id, 0);
    wr.inv_rkey = rkey;
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
}

/* Side 1 uses the window. */
static void post_use(enum hca_wr_opcode op, uint64_t id, uint32_t rkey, uint32_t len)
{
    struct hca_sge sge = {(uintptr_t)w.mem[1] + 65536, len, hca_mr_lkey(w.mr[1])};
    struct hca_send_wr wr = wire_wr(&w, 1, op, id, 0);
    wr.rkey = rkey;
    wr.sge = &sge;
    wr.num_sge = 1;
    assert_int_equal(hca_post_send(w.hca[1], w.qp[1][0], &wr, w.now), 0);
}

static enum fate lose_some(struct wire *wire, const struct seen *p)
{
    return wire_random(wire) % 100 < wire->budget ? DROP : PASS;
}

/* The window's key with another tag. */
static uint32_t tagged(uint32_t n) { return (key & ~0xffu) | ((key + n) & 0xff); }

/* A queue full of writes, binds and invalidates: all complete in order, and each was executed
 * exactly once, since a second bind of a bound window fails. */
static void among_losses(void **state)
{
    for (uint32_t loss = 0; loss <= 30; loss += 10) {
        open_wire();
        w.script = lose_some;
        w.budget = loss;
        for (uint64_t id = 0; id < 120; id++) {
            uint32_t at = (uint32_t)id * 8192;
            if (id % 4 == 1)
                post_bind(id, tagged((uint32_t)id), id % 8 == 1 ? HCA_SEND_FENCE : 0);
            else if (id % 4 == 3)
                post_inv(id, tagged((uint32_t)id - 2));
            else
                wire_post(&w, 0, 0, id % 12 == 6 ? HCA_WR_RDMA_READ : HCA_WR_RDMA_WRITE, id, at, at,
                          (uint32_t)(wire_random(&w) % 6000) + 1, 0);
            if (id % 16 == 15) wire_run_for(&w, wire_random(&w) % (100 * US_NS));
        }
        wire_run(&w, NEVER);
        for (uint64_t id = 0; id < 120; id++) {
            struct hca_wc wc = wire_wc(w.scq[0]);
            assert_int_equal(wc.status, HCA_WC_SUCCESS);
            assert_int_equal(wc.wr_id, id);
            if (id % 4 == 1) assert_int_equal(wc.opcode, HCA_WC_BIND_MW);
            if (id % 4 == 3) assert_int_equal(wc.opcode, HCA_WC_LOCAL_INV);
        }
        assert_int_equal(hca_mr_dereg(w.hca[0], mr), 0);
        wire_close(&w);
    }
}

/* The bind does not wait for the ACK of what was sent before it, but completes after it. */
static void executed_at_once_completed_in_turn(void **state)
{
    open_wire();
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 3000, 0);
    post_bind(2, key, 0);
    wire_run(&w, w.now);
    wire_no_wc(w.scq[0]);
    post_use(HCA_WR_RDMA_READ, 3, key, 64);
    wire_run(&w, NEVER);
    wire_expect(w.scq[1], 3, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    wire_close(&w);
}

/* Its fence waits for the READ before it; then who asks too early is refused. */
static void fenced(void **state)
{
    open_wire();
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 1, 0, 0, 3000, 0);
    post_bind(2, key, HCA_SEND_FENCE);
    wire_run(&w, w.now);
    assert_int_equal(hca_mr_dereg(w.hca[0], w.mr[0]), 0);
    struct hca_wc wc;
    assert_int_equal(hca_cq_poll(w.scq[0], &wc, 1), 0);
    wire_run(&w, NEVER); /* the READ's sink is gone: it fails, the bind is flushed */
    wire_expect(w.scq[0], 1, HCA_WC_LOC_PROT_ERR);
    wire_expect(w.scq[0], 2, HCA_WC_WR_FLUSH_ERR);
    assert_int_equal(hca_mr_dereg(w.hca[0], mr), 0); /* it was not executed */
    wire_close(&w);
}

/* A bind that fails lets its elders complete, then fails the queue pair. */
static void failing_bind(void **state)
{
    open_wire();
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 30000, 0);
    post_inv(2, key);
    post_bind(3, key, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 2, HCA_WC_LOC_QP_OP_ERR);
    wire_expect(w.scq[0], 3, HCA_WC_WR_FLUSH_ERR);
    assert_int_equal(wire_state(&w, 0), HCA_QPS_ERR);
    wire_close(&w);
}

/* In the middle of a message: the rest of it is not granted. */
static void invalidated_on_the_way(void **state)
{
    for (int read = 0; read < 2; read++) {
        open_wire();
        post_bind(1, key, 0);
        wire_run(&w, NEVER);
        wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
        post_use(read ? HCA_WR_RDMA_READ : HCA_WR_RDMA_WRITE, 2, key, 3u << 20);
        wire_run_for(&w, 60 * US_NS);
        post_inv(3, key);
        wire_run(&w, NEVER);
        wire_expect(w.scq[0], 3, HCA_WC_SUCCESS);
        wire_expect(w.scq[1], 2, HCA_WC_REM_ACCESS_ERR);
        assert_int_equal(wire_state(&w, 0), HCA_QPS_ERR);
        wire_close(&w);
    }
}

static enum fate lose_read_responses(struct wire *wire, const struct seen *p)
{
    return wire->budget && roce_opcode(p->opcode)->props & OP_RESPONSE && p->opcode != ROCE_ACK &&
                   wire->budget--
               ? DROP
               : PASS;
}

/* The answer is lost, the window closed: the READ that asks again is told, but this end lives on,
 * since it cannot know whether anybody still waits. */
static void read_again_after_invalidate(void **state)
{
    open_wire();
    post_bind(1, key, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    w.script = lose_read_responses;
    w.budget = 1;
    post_use(HCA_WR_RDMA_READ, 2, key, 64);
    wire_run_for(&w, 100 * US_NS);
    post_inv(3, key);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 3, HCA_WC_SUCCESS);
    wire_expect(w.scq[1], 2, HCA_WC_REM_ACCESS_ERR);
    assert_int_equal(wire_state(&w, 0), HCA_QPS_RTS);
    wire_close(&w);
}

/* A SEND that takes the window back, right behind a READ through it and without a fence: it is
 * asked for again, and does not overtake the READ. */
static void remote_invalidate_does_not_overtake_a_read(void **state)
{
    open_wire();
    post_bind(1, key, 0);
    wire_recv(&w, 0, 0, 9, 1u << 20, 64);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    post_use(HCA_WR_RDMA_READ, 2, key, 200000);
    struct hca_send_wr wr = wire_wr(&w, 1, HCA_WR_SEND_WITH_INV, 3, 0);
    wr.inv_rkey = key;
    assert_int_equal(hca_post_send(w.hca[1], w.qp[1][0], &wr, w.now), 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[1], 2, HCA_WC_SUCCESS);
    wire_expect(w.scq[1], 3, HCA_WC_SUCCESS);
    wire_expect(w.rcq[0], 9, HCA_WC_SUCCESS);
    assert_int_equal(hca_mr_dereg(w.hca[0], mr), 0);
    wire_close(&w);
}

/* A copy of an answered READ comes late, after the window has closed: nobody is harmed. */
static void ghost_read_after_invalidate(void **state)
{
    open_wire();
    post_bind(1, key, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    post_use(HCA_WR_RDMA_READ, 2, key, 64);
    wire_run(&w, NEVER);
    wire_expect(w.scq[1], 2, HCA_WC_SUCCESS);
    post_inv(3, key);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 3, HCA_WC_SUCCESS);
    struct roce_hdr ghost = {.opcode = ROCE_READ_REQUEST, .psn = psn_of(0), .ackreq = true};
    ghost.reth.va = (uintptr_t)w.mem[0];
    ghost.reth.rkey = key;
    ghost.reth.len = 64;
    uint32_t naks = wire_count(&w, 0, ROCE_ACK);
    wire_inject(&w, 0, &ghost, NULL, 0);
    wire_run(&w, NEVER);
    assert_int_equal(wire_count(&w, 0, ROCE_ACK), naks + 1);
    assert_int_equal(w.log[w.nlog - 1].syndrome, 0x62);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 4, 0, 0, 64, 0);
    wire_post(&w, 1, 0, HCA_WR_RDMA_WRITE, 5, 0, 0, 64, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 4, HCA_WC_SUCCESS);
    wire_expect(w.scq[1], 5, HCA_WC_SUCCESS);
    wire_close(&w);
}

/* An atomic's duplicate is answered from what was kept. */
static void atomic_again_after_invalidate(void **state)
{
    open_wire();
    post_bind(1, key, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    memset(w.mem[0], 0, 8);
    w.mem[0][0] = 41;
    w.script = lose_read_responses;
    w.budget = 1;
    struct hca_sge sge = {(uintptr_t)w.mem[1] + 65536, 8, hca_mr_lkey(w.mr[1])};
    struct hca_send_wr wr = wire_wr(&w, 1, HCA_WR_ATOMIC_FETCH_AND_ADD, 2, 0);
    wr.rkey = key;
    wr.compare_add = 1;
    wr.sge = &sge;
    wr.num_sge = 1;
    assert_int_equal(hca_post_send(w.hca[1], w.qp[1][0], &wr, w.now), 0);
    wire_run_for(&w, 100 * US_NS);
    post_inv(3, key);
    wire_run(&w, NEVER);
    wire_expect(w.scq[1], 2, HCA_WC_SUCCESS);
    assert_int_equal(w.mem[1][65536], 41);
    assert_int_equal(w.mem[0][0], 42);
    wire_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(among_losses),
        cmocka_unit_test(executed_at_once_completed_in_turn),
        cmocka_unit_test(fenced),
        cmocka_unit_test(failing_bind),
        cmocka_unit_test(invalidated_on_the_way),
        cmocka_unit_test(read_again_after_invalidate),
        cmocka_unit_test(remote_invalidate_does_not_overtake_a_read),
        cmocka_unit_test(ghost_read_after_invalidate),
        cmocka_unit_test(atomic_again_after_invalidate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
