/* A QP's life: limits at creation and posting, flush order, reset and destruction with completions
 * that wait, what hca_input refuses, and steering. */
#include "base/bits.h"
#include "bed.h"
#include "wire/opcode.h"
#include <errno.h>
#include <stdlib.h>

static struct bed bed;

static int teardown(void **state)
{
    bed_close(&bed);
    return 0;
}

static int post_send(uint64_t wr_id, uint32_t len, uint32_t flags)
{
    struct hca_sge sge = bed_sge(&bed, 0, 0, len);
    struct hca_send_wr wr = bed_send_wr(&bed, wr_id, &sge);
    wr.flags = flags;
    return hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now);
}

static void creation_limits(void **state)
{
    bed_open_reset(&bed, HCA_QPT_RC, NULL);
    const struct hca_qp_init good = {
        .type = HCA_QPT_RC, .send_cq = bed.scq[0], .recv_cq = bed.rcq[0], .cap = {100, 3, 2, 0, 5}};
    struct hca_qp_init init = good;
    struct hca_qp *qp;
    assert_int_equal(hca_qp_create(bed.hca[0], &init, &qp), 0);
    assert_true(init.cap.max_send_wr >= 100 && init.cap.max_recv_wr >= 3);
    assert_true(init.cap.max_send_sge >= 2 && init.cap.max_inline_data >= 5);
    struct hca_qp_attr attr;
    hca_qp_query(qp, &attr);
    assert_memory_equal(&attr.cap, &init.cap, sizeof init.cap);
#define REFUSED(change, error)                                                                     \
    do {                                                                                           \
        init = good;                                                                               \
        change;                                                                                    \
        assert_int_equal(hca_qp_create(bed.hca[0], &init, &qp), error);                            \
    } while (0)
    REFUSED(init.cap.max_send_wr = HCA_MAX_WR + 1, -EINVAL);
    REFUSED(init.cap.max_recv_wr = UINT32_MAX, -EINVAL);
    REFUSED(init.cap.max_send_sge = HCA_MAX_SGE + 1, -EINVAL);
    REFUSED(init.cap.max_recv_sge = HCA_MAX_SGE + 1, -EINVAL);
    REFUSED(init.cap.max_inline_data = HCA_MAX_INLINE + 1, -EINVAL);
    REFUSED(init.send_cq = NULL, -EINVAL);
    REFUSED(init.recv_cq = NULL, -EINVAL);
    REFUSED(init.type = (enum hca_qp_type)8, -EOPNOTSUPP);
}

/* All of the queues' entries lie in what the caller gave, and none beside it. */
static void queues_in_the_callers_memory(void **state)
{
    bed_open_reset(&bed, HCA_QPT_RC, NULL);
    struct hca_qp_init init = {.type = HCA_QPT_RC,
                               .send_cq = bed.scq[0],
                               .recv_cq = bed.rcq[0],
                               .cap = {10, 20, 2, 2, 33}};
    struct hca_qp *qp;
    size_t bytes = hca_qp_bytes(&init);
    assert_true(bytes >= 16 * sizeof(struct wqe) + 16 * 33 + 32 * sizeof(struct rwqe));
    uint8_t *memory = calloc(1, bytes + 64);
    memset(memory + bytes, 0xa5, 64);
    init.queues = memory;
    assert_int_equal(hca_qp_create(bed.hca[0], &init, &qp), 0);
    struct hca_recv_wr recv = {.wr_id = 9};
    qp->state = HCA_QPS_INIT;
    for (int i = 0; i < 32; i++) assert_int_equal(hca_post_recv(bed.hca[0], qp, &recv, bed.now), 0);
    uint8_t word[33];
    memset(word, 0x5a, sizeof word);
    struct hca_sge sge = {(uintptr_t)word, sizeof word, 0};
    struct hca_send_wr wr = bed_send_wr(&bed, 7, &sge);
    wr.flags |= HCA_SEND_INLINE;
    for (int i = 0; i < 16; i++) assert_int_equal(sq_push(&qp->sq, &wr), 0);
    assert_ptr_equal(qp->sq.ring, memory);
    assert_true((uint8_t *)&qp->rq.ring[31] + sizeof(struct rwqe) <= memory + bytes);
    for (int i = 0; i < 64; i++) assert_int_equal(memory[bytes + i], 0xa5);
    assert_int_equal(hca_qp_destroy(bed.hca[0], qp), 0);
    free(memory);
    init.cap.max_send_wr = UINT32_MAX;
    assert_int_equal(hca_qp_bytes(&init), 0);
}

static void posting_by_state(void **state)
{
    static const int send[] = {-EINVAL, -EINVAL, -EINVAL, 0, 0, 0, 0};
    for (int s = HCA_QPS_RESET; s <= HCA_QPS_ERR; s++) {
        bed_open_reset(&bed, HCA_QPT_UC, NULL);
        bed_walk(&bed, 0, (enum hca_qp_state)s);
        assert_int_equal(post_send(1, 4, 0), send[s]);
        struct hca_recv_wr wr = {.wr_id = 1};
        assert_int_equal(hca_post_recv(bed.hca[0], bed.qp[0], &wr, bed.now),
                         s == HCA_QPS_RESET ? -EINVAL : 0);
        if (s == HCA_QPS_SQE || s == HCA_QPS_ERR)
            assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_WR_FLUSH_ERR);
        else
            bed_empty(bed.scq[0]);
        if (s == HCA_QPS_ERR)
            assert_int_equal(bed_poll(bed.rcq[0]).status, HCA_WC_WR_FLUSH_ERR);
        else
            bed_empty(bed.rcq[0]);
        if (s < HCA_QPS_ERR) bed_close(&bed);
    }
}

static void full_queues_and_long_messages(void **state)
{
    bed_open(&bed, HCA_QPT_UC);
    struct hca_sge sge[5];
    for (int i = 0; i < 5; i++) sge[i] = (struct hca_sge){0, UINT32_MAX, 1};
    struct hca_send_wr wr = bed_send_wr(&bed, 1, sge);
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), -EINVAL);
    wr.num_sge = 4;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), -EINVAL);
    sge[0].length = sge[1].length = 1u << 31; /* wraps to 0 in 32 bits */
    wr.num_sge = 2;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), -EINVAL);
    wr.num_sge = 5;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), -EINVAL);
    wr.num_sge = 0;
    wr.flags = 1u << 9;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), -EINVAL);
    for (uint64_t i = 0; i < 16; i++) assert_int_equal(post_send(i, 4, 0), 0);
    assert_int_equal(post_send(16, 4, 0), -ENOMEM);
    for (uint64_t i = 0; i < 16; i++) bed_recv(&bed, 0, i, 0, 4);
    struct hca_recv_wr rwr = {.sge = sge};
    assert_int_equal(hca_post_recv(bed.hca[0], bed.qp[0], &rwr, bed.now), -ENOMEM);
    rwr.num_sge = 5;
    assert_int_equal(hca_post_recv(bed.hca[0], bed.qp[0], &rwr, bed.now), -EINVAL);
    bed_pump(&bed);
    bed_empty(bed.scq[0]); /* not signalled: no completion, yet the queue is free again */
    for (uint64_t i = 0; i < 16; i++) assert_int_equal(post_send(i, 4, 0), 0);
}

static void flush_in_order(void **state)
{
    enum hca_qp_type types[] = {HCA_QPT_RC, HCA_QPT_UC, HCA_QPT_UD};
    for (int t = 0; t < 3; t++) {
        struct hca_tx tx[2];
        bed_open(&bed, types[t]);
        for (uint64_t i = 0; i < 10; i++) {
            assert_int_equal(post_send(i, 500, i & 1 ? HCA_SEND_SIGNALED : 0), 0);
            bed_recv(&bed, 0, 100 + i, 0, 64);
        }
        assert_int_equal(hca_output(bed.hca[0], tx, 2, bed.now), 2);
        bed_walk(&bed, 0, HCA_QPS_ERR);
        /* the first two of UC and UD have left, and one of them is not signalled */
        for (uint64_t i = types[t] == HCA_QPT_RC ? 0 : 1; i < 10; i++) {
            struct hca_wc wc = bed_poll(bed.scq[0]);
            assert_int_equal(wc.wr_id, i);
            assert_int_equal(wc.status, types[t] != HCA_QPT_RC && i < 2 ? HCA_WC_SUCCESS
                                                                        : HCA_WC_WR_FLUSH_ERR);
        }
        bed_empty(bed.scq[0]);
        for (uint64_t i = 0; i < 10; i++) {
            struct hca_wc wc = bed_poll(bed.rcq[0]);
            assert_int_equal(wc.wr_id, 100 + i);
            assert_int_equal(wc.status, HCA_WC_WR_FLUSH_ERR);
        }
        bed_empty(bed.rcq[0]);
        assert_int_equal(hca_output(bed.hca[0], tx, 2, bed.now), 0);
        assert_true(when_is_never(hca_deadline(bed.hca[0])));
        if (t < 2) bed_close(&bed);
    }
}

static void reset_and_destroy_take_completions_along(void **state)
{
    bed_open(&bed, HCA_QPT_UC);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(post_send(1, 4, HCA_SEND_SIGNALED), 0);
        bed_recv(&bed, 0, 2, 0, 64);
        bed_walk(&bed, 0, HCA_QPS_ERR);
        if (round == 0) {
            struct hca_qp_attr attr = {.state = HCA_QPS_RESET};
            assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr, HCA_QP_STATE, bed.now), 0);
            bed_empty(bed.scq[0]);
            bed_empty(bed.rcq[0]);
            bed_walk(&bed, 0, HCA_QPS_RTS); /* and it lives again */
        } else {
            assert_int_equal(hca_qp_destroy(bed.hca[0], bed.qp[0]), 0);
            bed_empty(bed.scq[0]);
            bed_empty(bed.rcq[0]);
        }
    }
    bed_pump(&bed);
}

static void inject(struct roce_hdr *h, const struct gid *src, const struct gid *dst, size_t len)
{
    uint8_t bytes[ROCE_MAX_HDR_LEN];
    struct hca_rx rx = {.src = *src, .dst = *dst, .member = STEER_NO_MEMBER, .data = bytes};
    rx.len = roce_encode(bytes, h);
    if (len < rx.len) rx.len = len;
    hca_input(bed.hca[1], &rx, bed.now);
}

static void refused_on_arrival(void **state)
{
    bed_open(&bed, HCA_QPT_UC);
    const struct hca_counters *c = hca_counters(bed.hca[1]);
    const struct roce_hdr good = {.opcode = ROCE_UC | ROCE_SEND_ONLY,
                                  .pkey = 0xffff,
                                  .dqpn = hca_qp_num(bed.qp[1]),
                                  .psn = psn_of(0xfffffe)};
    const struct gid *src = &bed.gid[0], *dst = &bed.gid[1];
    struct roce_hdr h = good;
    inject(&h, src, dst, 11);
    assert_int_equal(c->rx_bad_header, 1);
    h.dqpn++;
    inject(&h, src, dst, 64);
    h.dqpn = good.dqpn ^ 1 << HCA_INDEX_BITS;
    inject(&h, src, dst, 64);
    h = good;
    h.opcode = ROCE_RC | ROCE_SEND_ONLY;
    inject(&h, src, dst, 64);
    assert_int_equal(c->rx_bad_qp, 3);
    h = good;
    h.pkey = 0x8001;
    inject(&h, src, dst, 64);
    assert_int_equal(c->rx_bad_pkey, 1);
    inject(&(struct roce_hdr){good.opcode, .pkey = 0xffff, .dqpn = good.dqpn}, dst, dst, 64);
    assert_int_equal(c->rx_dropped, 1);
    bed_recv(&bed, 1, 1, 0, 4);
    h = good;
    h.pkey = 0x7fff; /* a limited member may speak to a full one */
    inject(&h, src, dst, 64);
    bed_poll(bed.rcq[1]);
    bed_walk(&bed, 1, HCA_QPS_ERR);
    inject(&h, src, dst, 64);
    assert_int_equal(c->rx_bad_state, 1);
    assert_int_equal(c->rx_packets, 8);
}

/* Something for stray responses and sends to hit. */
static void give_work(struct hca_qp *qp)
{
    static const enum hca_wr_opcode rc[] = {HCA_WR_RDMA_READ, HCA_WR_SEND, HCA_WR_RDMA_WRITE,
                                            HCA_WR_ATOMIC_FETCH_AND_ADD};
    struct hca_wc wc[16];
    struct hca_sge sge = bed_sge(&bed, 1, 1024, 8);
    for (unsigned i = 0; i < 4; i++) {
        struct hca_send_wr wr = {.opcode = qp->type == HCA_QPT_RC ? rc[i] : HCA_WR_SEND,
                                 .ah = {.sgid = bed.gid[1], .dgid = bed.gid[0]},
                                 .sge = &sge,
                                 .num_sge = 1};
        struct hca_recv_wr rwr = {.sge = &sge, .num_sge = 1};
        sge.length = qp->type == HCA_QPT_UD ? 1024 : 8;
        hca_post_recv(bed.hca[1], qp, &rwr, bed.now);
        sge.length = 8;
        hca_post_send(bed.hca[1], qp, &wr, bed.now);
    }
    while (hca_cq_poll(bed.rcq[1], wc, 16) > 0) {
    }
    while (hca_cq_poll(bed.scq[1], wc, 16) > 0) {
    }
}

/* Any bytes at all, at QPs of all services. */
static void noise(void **state)
{
    uint64_t r = 88172645463325252u;
    enum hca_qp_type types[] = {HCA_QPT_RC, HCA_QPT_UC, HCA_QPT_UD};
    for (int t = 0; t < 3; t++) {
        bed_open(&bed, types[t]);
        for (int n = 0; n < 100000; n++) {
            uint8_t bytes[128];
            if (n % 32 == 0) give_work(bed.qp[1]);
            for (size_t i = 0; i < sizeof bytes; i += 8) {
                r ^= r << 13, r ^= r >> 7, r ^= r << 17;
                memcpy(bytes + i, &r, 8);
            }
            bytes[0] = (uint8_t)((bytes[0] & 0x1f) | (types[t] - 2 + (t == 2)) << 5);
            bytes[1] &= 0x30;
            bytes[2] = bytes[3] = 0xff;
            qpn_t qpn = hca_qp_num(bed.qp[1]);
            bytes[5] = (uint8_t)(qpn >> 16), bytes[6] = (uint8_t)(qpn >> 8),
            bytes[7] = (uint8_t)qpn;
            if (r & 1)
                put_be32(bytes + 8,
                         (uint32_t)(r >> 12 & 1) << 31 | ((0xfffffe + (r >> 9 & 7)) & 0xffffff));
            if (types[t] == HCA_QPT_UD && (r & 2)) {
                bytes[0] = (uint8_t)(ROCE_UD | ROCE_SEND_ONLY | (r >> 15 & 1));
                put_be32(bytes + 12, BED_QKEY);
            }
            struct hca_rx rx = {.src = bed.gid[0],
                                .dst = bed.gid[1],
                                .member = (uint8_t)(r >> 33 & 7),
                                .data = bytes,
                                .len = (r >> 20) % sizeof bytes};
            hca_input(bed.hca[1], &rx, bed.now);
            struct hca_tx tx[4];
            struct hca_event event;
            hca_output(bed.hca[1], tx, 4, bed.now);
            while (hca_next_event(bed.hca[1], &event)) {
            }
            if (bed.qp[1]->state == HCA_QPS_ERR) {
                struct hca_qp_attr attr = {.state = HCA_QPS_RESET};
                hca_qp_modify(bed.hca[1], bed.qp[1], &attr, HCA_QP_STATE, bed.now);
                bed_walk(&bed, 1, HCA_QPS_RTS);
            }
        }
        const struct hca_counters *c = hca_counters(bed.hca[1]);
        assert_true(c->rx_bad_header < c->rx_packets * 9 / 10);
        assert_true(c->resp_remote_access_errors || types[t] == HCA_QPT_UD);
        assert_true(c->rx_bad_qkey || types[t] != HCA_QPT_UD);
        if (t < 2) bed_close(&bed);
    }
}

static void steering(void **state)
{
    struct hca_qp_view view;
    bed_open(&bed, HCA_QPT_RC);
    hca_qp_view(bed.qp[0], &view);
    assert_int_equal(view.active, 0);
    assert_int_equal(view.remaps, 0);
    assert_int_equal(post_send(1, 100, HCA_SEND_SIGNALED), 0);
    bed_recv(&bed, 1, 1, 0, 100);
    struct hca_tx tx[4];
    assert_int_equal(hca_output(bed.hca[0], tx, 4, bed.now), 1); /* lost */
    bed.now.ns += 1000;
    bed_steer(&bed, 0, STEER_NO_MEMBER);
    when_t cut = bed.now;
    assert_int_equal(hca_output(bed.hca[0], tx, 4, bed.now), 0);
    bed.now.ns += 5000;
    bed_steer(&bed, 0, 1);
    bed.now.ns += 700;
    bed_pump(&bed); /* resent without a timer */
    assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_SUCCESS);
    hca_qp_view(bed.qp[0], &view);
    assert_int_equal(view.active, 1);
    assert_int_equal(view.remaps, 1);
    assert_int_equal(hca_counters(bed.hca[0])->remaps, 1);
    assert_int_equal(view.remapped_at.ns, cut.ns);
    assert_int_equal(view.last_gap_ns, 5700);
    hca_qp_set_bucket(bed.hca[0], bed.qp[0], 9, bed.now);
    hca_qp_view(bed.qp[0], &view);
    assert_int_equal(view.bucket, 9);
}

/* Requests posted while draining and with no member still fail in time after the return to RTS. */
static void resumed_without_a_member(void **state)
{
    bed_open(&bed, HCA_QPT_RC);
    bed_steer(&bed, 0, STEER_NO_MEMBER);
    struct hca_qp_attr attr = {.state = HCA_QPS_SQD};
    assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr, HCA_QP_STATE, bed.now), 0);
    assert_int_equal(post_send(1, 100, HCA_SEND_SIGNALED), 0);
    attr.state = HCA_QPS_RTS;
    assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr, HCA_QP_STATE, bed.now), 0);
    bed_pump(&bed);
    for (int i = 0; i < 1000 && !when_is_never(hca_deadline(bed.hca[0])); i++) {
        bed.now = hca_deadline(bed.hca[0]);
        hca_expire(bed.hca[0], bed.now);
        bed_pump(&bed);
    }
    assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_RETRY_EXC_ERR);
    assert_int_equal(bed.carried, 0);
}

#define TEST(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(creation_limits),    TEST(queues_in_the_callers_memory),
        TEST(posting_by_state),   TEST(full_queues_and_long_messages),
        TEST(flush_in_order),     TEST(reset_and_destroy_take_completions_along),
        TEST(refused_on_arrival), TEST(noise),
        TEST(steering),           TEST(resumed_without_a_member),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
