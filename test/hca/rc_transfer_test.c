/* RC without loss: every operation, message size and MTU; order, immediates, SRQ, inline, READ
 * pieces. */
#include "rc_wire.h"

static struct wire w;

static void one_of_each(uint8_t path_mtu, uint32_t len, uint32_t psn)
{
    wire_open(&w,
              &(struct wire_conf){.path_mtu = path_mtu, .timeout = 14, .retry_cnt = 7, .psn = psn});
    uint32_t there = 2u << 20;
    wire_fill(&w, 0, 0, len, 1);
    wire_recv(&w, 1, 0, 100, 0, len);
    wire_post(&w, 0, 0, HCA_WR_SEND, 1, 0, 0, len, 0);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 2, 0, there, len, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    struct hca_wc wc = wire_wc(w.rcq[1]);
    assert_int_equal(wc.wr_id, 100);
    assert_int_equal(wc.opcode, HCA_WC_RECV);
    assert_int_equal(wc.byte_len, len);
    assert_int_equal(wc.src_qpn, hca_qp_num(w.qp[0][0]));
    wire_same(&w, 0, 0, len);
    wire_same(&w, 0, there, len);
    assert_int_equal(w.mem[1][len], 0);
    assert_int_equal(w.mem[1][there + len], 0);

    wire_fill(&w, 1, 0, len, 2);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 3, there, 0, len, 0);
    wire_recv(&w, 1, 0, 101, 0, 0);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE_WITH_IMM, 4, 0, there, len, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 3, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 4, HCA_WC_SUCCESS);
    wire_same(&w, there, 0, len);
    wc = wire_wc(w.rcq[1]);
    assert_int_equal(wc.opcode, HCA_WC_RECV_RDMA_WITH_IMM);
    assert_int_equal(wc.byte_len, len);
    assert_int_equal(wc.flags, HCA_WC_WITH_IMM);
    assert_int_equal(wc.imm_be, 4);
    wire_no_wc(w.rcq[1]);
    wire_no_wc(w.scq[0]);
    assert_int_equal(hca_counters(w.hca[0])->tx_retransmits, 0);
    assert_int_equal(hca_counters(w.hca[1])->out_of_sequence, 0);
    wire_close(&w);
}

static void sizes(void **state)
{
    for (uint8_t mtu = 1; mtu <= 5; mtu++) {
        uint32_t bytes = 128u << mtu;
        uint32_t len[] = {0, 1, 3, 4, 7, bytes - 1, bytes, bytes + 1, 2 * bytes, 5 * bytes + 13};
        for (size_t i = 0; i < sizeof len / sizeof *len; i++) one_of_each(mtu, len[i], 0);
    }
}

static void megabytes(void **state)
{
    for (uint8_t mtu = 1; mtu <= 5; mtu++) one_of_each(mtu, 1u << 20, 0xfffff0);
}

static void psn_wrap(void **state)
{
    for (uint32_t psn = 0xfffff8; psn <= 0xffffff; psn++) one_of_each(1, 1200, psn);
}

/* The opcodes and PSNs of one message are those of the golden traces. */
static void segmentation(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7, .psn = 7});
    wire_recv(&w, 1, 0, 1, 0, 4096);
    wire_post(&w, 0, 0, HCA_WR_SEND, 1, 0, 0, 3000, 0);
    wire_run(&w, NEVER);
    const uint8_t op[] = {ROCE_SEND_FIRST, ROCE_SEND_MIDDLE, ROCE_SEND_LAST, ROCE_ACK};
    const uint32_t psn[] = {7, 8, 9, 9}, len[] = {1024, 1024, 952, 0};
    assert_int_equal(w.nlog, 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(w.log[i].opcode, op[i]);
        assert_int_equal(w.log[i].psn.v, psn[i]);
        assert_int_equal(w.log[i].len, len[i]);
        assert_int_equal(w.log[i].ackreq, i == 2);
    }
    assert_int_equal(w.log[3].syndrome, 31);
    assert_int_equal(w.log[3].msn, 1);
    wire_close(&w);
}

static void imm_and_solicited(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7});
    wire_recv(&w, 1, 0, 1, 0, 64);
    wire_recv(&w, 1, 0, 2, 0, 64);
    hca_cq_arm(w.hca[1], w.rcq[1], true);
    wire_post(&w, 0, 0, HCA_WR_SEND_WITH_IMM, 7, 0, 0, 64, 0);
    wire_run(&w, NEVER);
    struct hca_wc wc = wire_wc(w.rcq[1]);
    assert_int_equal(wc.imm_be, 7);
    assert_int_equal(wc.flags, HCA_WC_WITH_IMM);
    assert_null(hca_next_notified(w.hca[1]));
    wire_post(&w, 0, 0, HCA_WR_SEND, 8, 0, 0, 64, HCA_SEND_SOLICITED);
    wire_run(&w, NEVER);
    wire_expect(w.rcq[1], 2, HCA_WC_SUCCESS);
    assert_ptr_equal(hca_next_notified(w.hca[1]), &w.rcq[1]);
    wire_close(&w);
}

static void atomics(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7});
    uint64_t word = 40, got;
    memcpy(w.mem[1] + 64, &word, 8);
    struct hca_sge sge = {(uintptr_t)w.mem[0], 8, hca_mr_lkey(w.mr[0])};
    struct hca_send_wr wr = wire_wr(&w, 0, HCA_WR_ATOMIC_FETCH_AND_ADD, 1, 64);
    wr.sge = &sge;
    wr.num_sge = 1;
    wr.compare_add = 2;
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
    struct hca_sge sge2 = {(uintptr_t)w.mem[0] + 8, 8, hca_mr_lkey(w.mr[0])};
    wr.opcode = HCA_WR_ATOMIC_CMP_AND_SWP;
    wr.sge = &sge2;
    wr.wr_id = 2;
    wr.compare_add = 42;
    wr.swap = 0x1122334455667788;
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
    struct hca_sge sge3 = {(uintptr_t)w.mem[0] + 16, 8, hca_mr_lkey(w.mr[0])};
    wr.sge = &sge3;
    wr.wr_id = 3; /* fails to compare */
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
    wire_run(&w, NEVER);
    for (uint64_t id = 1; id <= 3; id++) wire_expect(w.scq[0], id, HCA_WC_SUCCESS);
    const uint64_t want[] = {40, 42, 0x1122334455667788};
    for (int i = 0; i < 3; i++) {
        memcpy(&got, w.mem[0] + 8 * i, 8);
        assert_true(got == want[i]);
    }
    memcpy(&got, w.mem[1] + 64, 8);
    assert_true(got == 0x1122334455667788);
    wire_close(&w);
}

static void inline_bytes(void **state)
{
    wire_open(&w, &(struct wire_conf){.path_mtu = 1, .timeout = 14, .retry_cnt = 7});
    uint8_t bytes[500], was[500];
    memset(bytes, 0x5a, sizeof bytes);
    memcpy(was, bytes, sizeof was);
    struct hca_sge sge = {(uintptr_t)bytes, sizeof bytes, 0};
    struct hca_send_wr wr = wire_wr(&w, 0, HCA_WR_RDMA_WRITE, 1, 0);
    wr.flags |= HCA_SEND_INLINE;
    wr.sge = &sge;
    wr.num_sge = 1;
    assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
    memset(bytes, 0, sizeof bytes);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    assert_memory_equal(w.mem[1], was, sizeof was);
    wire_close(&w);
}

/* Both sides send, write and read at once; completions keep each queue's order. */
static void bidirectional(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7});
    wire_fill(&w, 0, 0, 1 << 20, 1);
    wire_fill(&w, 1, 0, 1 << 20, 2);
    for (int side = 0; side < 2; side++) {
        for (uint32_t i = 0; i < 32; i++) wire_recv(&w, side, 0, i, (2u << 20) + i * 20000, 20000);
        for (uint32_t i = 0; i < 32; i++) {
            wire_post(&w, side, 0, HCA_WR_SEND, 3 * i, i * 20000, 0, 17000, 0);
            wire_post(&w, side, 0, HCA_WR_RDMA_READ, 3 * i + 1, (3u << 20) + i * 20000, i * 20000,
                      18000, 0);
            wire_post(&w, side, 0, HCA_WR_RDMA_WRITE, 3 * i + 2, i * 20000, (1u << 20) + i * 20000,
                      19000, 0);
        }
    }
    wire_run(&w, NEVER);
    for (int side = 0; side < 2; side++) {
        for (uint32_t i = 0; i < 96; i++) wire_expect(w.scq[side], i, HCA_WC_SUCCESS);
        for (uint32_t i = 0; i < 32; i++) {
            wire_expect(w.rcq[side], i, HCA_WC_SUCCESS);
            uint8_t *mine = w.mem[side], *other = w.mem[!side];
            assert_memory_equal(mine + (2u << 20) + i * 20000, other + i * 20000, 17000);
            assert_memory_equal(mine + (3u << 20) + i * 20000, other + i * 20000, 18000);
            assert_memory_equal(mine + (1u << 20) + i * 20000, other + i * 20000, 19000);
        }
    }
    wire_close(&w);
}

static void shared_receive_queue(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7, .srq = true, .nqp = 4});
    for (uint32_t i = 0; i < 8; i++) wire_recv(&w, 1, 0, 100 + i, i * 5000, 5000);
    for (uint32_t i = 0; i < 8; i++) wire_post(&w, 0, i % 4, HCA_WR_SEND, i, 0, 0, 5000, 0);
    wire_run(&w, NEVER);
    uint32_t seen = 0;
    for (uint32_t i = 0; i < 8; i++) {
        struct hca_wc wc = wire_wc(w.rcq[1]);
        assert_int_equal(wc.status, HCA_WC_SUCCESS);
        seen |= 1u << (wc.wr_id - 100);
    }
    assert_int_equal(seen, 0xff);
    wire_close(&w);
}

/* One ACK answers all messages that came in a burst. */
static void acks_coalesce(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7});
    for (uint32_t i = 0; i < 16; i++) wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, i, 0, 0, 8, 0);
    wire_run(&w, NEVER);
    for (uint32_t i = 0; i < 16; i++) wire_expect(w.scq[0], i, HCA_WC_SUCCESS);
    assert_int_equal(wire_count(&w, 1, ROCE_ACK), 1);
    assert_int_equal(w.log[w.nlog - 1].msn, 16);
    wire_close(&w);
}

/* READ data acknowledge what came before: no ACK besides. */
static void read_acknowledges(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7});
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 8, 0);
    wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 2, 0, 0, 8, 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    assert_int_equal(wire_count(&w, 1, -1), 1);
    wire_close(&w);
}

/* Most READ requests out at a time, by walking the log: a request until its last response. */
static uint32_t most_reads_out(void)
{
    uint32_t most = 0, out = 0;
    for (uint32_t i = 0; i < w.nlog; i++) {
        uint8_t op = w.log[i].opcode;
        if (w.log[i].from == 0)
            out += op == ROCE_READ_REQUEST || op == ROCE_FETCH_ADD;
        else
            out -= op == ROCE_READ_RESP_LAST || op == ROCE_READ_RESP_ONLY || op == ROCE_ATOMIC_ACK;
        most = out > most ? out : most;
    }
    assert_int_equal(out, 0);
    return most;
}

static void read_limits(void **state)
{
    for (uint8_t rd = 1; rd <= 4; rd++) {
        wire_open(&w, &(struct wire_conf){.timeout = 14,
                                          .retry_cnt = 7,
                                          .max_rd_atomic = rd,
                                          .start_window = 32768,
                                          .max_window = 32768});
        wire_fill(&w, 1, 0, 300000, 9);
        wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 1, 0, 0, 300000, 0);
        wire_post(&w, 0, 0, HCA_WR_ATOMIC_FETCH_AND_ADD, 2, 1 << 20, 1 << 20, 8, 0);
        for (uint32_t i = 0; i < 8; i++)
            wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 3 + i, 400000, 0, 100, 0);
        wire_run(&w, NEVER);
        for (uint32_t i = 0; i < 10; i++) wire_expect(w.scq[0], 1 + i, HCA_WC_SUCCESS);
        wire_same(&w, 0, 0, 300000);
        assert_int_equal(most_reads_out(), rd);
        for (uint32_t i = 0; i < w.nlog; i++) assert_true(w.log[i].reth_len <= 32768);
        wire_close(&w);
    }
}

/* A fence holds a WQE until READs and atomics before it are complete; without it it overtakes them
 * on the wire. */
static void fence(void **state)
{
    for (int fenced = 0; fenced < 2; fenced++) {
        wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7});
        wire_post(&w, 0, 0, HCA_WR_RDMA_READ, 1, 0, 0, 5000, 0);
        wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 2, 0, 1 << 20, 8, fenced ? HCA_SEND_FENCE : 0);
        wire_run(&w, NEVER);
        wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
        wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
        uint32_t write = 0, last = 0;
        for (uint32_t i = 0; i < w.nlog; i++) {
            if (w.log[i].opcode == ROCE_WRITE_ONLY) write = i;
            if (w.log[i].opcode == ROCE_READ_RESP_LAST) last = i;
        }
        assert_int_equal(write > last, fenced);
        wire_close(&w);
    }
}

/* In SQD started requests finish, new ones wait for RTS. */
static void drain(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7});
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 1, 0, 0, 100000, 0);
    wire_run_for(&w, 1);
    struct hca_qp_attr a = {.state = HCA_QPS_SQD, .en_sqd_async_notify = true};
    assert_int_equal(
        hca_qp_modify(w.hca[0], w.qp[0][0], &a, HCA_QP_STATE | HCA_QP_EN_SQD_ASYNC_NOTIFY, w.now),
        0);
    wire_post(&w, 0, 0, HCA_WR_RDMA_WRITE, 2, 0, 0, 8, 0);
    struct hca_event event;
    assert_false(hca_next_event(w.hca[0], &event));
    wire_run_for(&w, SEC_NS);
    wire_expect(w.scq[0], 1, HCA_WC_SUCCESS);
    wire_no_wc(w.scq[0]);
    assert_true(hca_next_event(w.hca[0], &event));
    assert_int_equal(event.type, HCA_EVENT_SQ_DRAINED);
    a.state = HCA_QPS_RTS;
    assert_int_equal(hca_qp_modify(w.hca[0], w.qp[0][0], &a, HCA_QP_STATE, w.now), 0);
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    wire_close(&w);
}

static void unsignalled(void **state)
{
    wire_open(&w, &(struct wire_conf){.timeout = 14, .retry_cnt = 7});
    for (uint32_t i = 0; i < 3; i++) {
        struct hca_send_wr wr = wire_wr(&w, 0, HCA_WR_RDMA_WRITE, i, 0);
        if (i < 2) wr.flags = 0;
        assert_int_equal(hca_post_send(w.hca[0], w.qp[0][0], &wr, w.now), 0);
    }
    wire_run(&w, NEVER);
    wire_expect(w.scq[0], 2, HCA_WC_SUCCESS);
    wire_no_wc(w.scq[0]);
    wire_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segmentation),
        cmocka_unit_test(sizes),
        cmocka_unit_test(megabytes),
        cmocka_unit_test(psn_wrap),
        cmocka_unit_test(imm_and_solicited),
        cmocka_unit_test(atomics),
        cmocka_unit_test(inline_bytes),
        cmocka_unit_test(bidirectional),
        cmocka_unit_test(shared_receive_queue),
        cmocka_unit_test(acks_coalesce),
        cmocka_unit_test(read_acknowledges),
        cmocka_unit_test(read_limits),
        cmocka_unit_test(fence),
        cmocka_unit_test(drain),
        cmocka_unit_test(unsignalled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
