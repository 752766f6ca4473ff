/* A storm over a working adapter: random datagrams, and damaged copies of a peer's real ones, into
 * hca_input. Nothing may crash, no byte outside what a peer may write may change, and once the
 * storm is over the adapter still works. `test-port-storm [COUNT] [SEED]`. */
#include "hca/hca.h"
#include "storm.h"
#include "wire/cmocka_all.h"
#include <stdlib.h>

#define REGION 16384
#define GUARD 512
/* Addresses on the wire do not follow where memory happens to lie, so that a seed says all. */
#define OPEN_IOVA 0x10000000ull
#define CLOSED_IOVA 0x20000000ull
#define NQP 5
#define DEPTH 32
#define SETTLE_TURNS 20000

enum { RC_A, RC_B, RC_SRQ, UC, UD }; /* QPs of either side, each with its twin on the other */

struct side {
    struct hca *hca;
    struct gid gid;
    uint32_t pd;
    uint8_t *open, *closed; /* a region for peers, and one for sending from only */
    struct hca_mr *open_mr, *closed_mr;
    struct hca_cq *cq;
    struct hca_srq *srq;
    struct hca_qp *qp[NQP];
    uint64_t good, errors;
};

static struct side victim, peer;
static struct storm storm;
static when_t now = {1};
static uint64_t count = 1000000, seed = 1;

static const enum hca_qp_type types[NQP] = {HCA_QPT_RC, HCA_QPT_RC, HCA_QPT_RC, HCA_QPT_UC,
                                            HCA_QPT_UD};

/* ---- two sides -------------------------------------------------------------------------- */

static uint8_t *guarded(uint8_t fill)
{
    uint8_t *p = malloc(REGION + 2 * GUARD);
    assert_non_null(p);
    memset(p, 0xa5, REGION + 2 * GUARD);
    memset(p + GUARD, fill, REGION);
    return p + GUARD;
}

static bool all_are(const uint8_t *p, size_t n, uint8_t value)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != value) return false;
    return true;
}

static void open_side(struct side *s, uint16_t function, uint8_t host)
{
    const struct hca_conf conf = {.function = function,
                                  .seed = seed + function,
                                  .max_window = 1 << 20,
                                  .start_window = 1 << 16,
                                  .inflight_cap = 1 << 20};
    struct steering table = {.generation = 1, .nmembers = 1};
    uint32_t cqe = 4096;
    s->gid = (struct gid){{[10] = 0xff, 0xff, 10, 0, 0, host}};
    s->hca = hca_new(&conf);
    assert_non_null(s->hca);
    hca_steer(s->hca, &table, now);
    s->pd = hca_pd_alloc(s->hca);
    s->open = guarded(0);
    s->closed = guarded(0xc5);
    const uint32_t all = HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_REMOTE_READ |
                         HCA_ACCESS_REMOTE_ATOMIC;
    assert_int_equal(hca_mr_reg(s->hca, s->pd, s->open, REGION, OPEN_IOVA, all, &s->open_mr), 0);
    assert_int_equal(hca_mr_reg(s->hca, s->pd, s->closed, REGION, CLOSED_IOVA, 0, &s->closed_mr),
                     0);
    assert_int_equal(hca_cq_create(s->hca, &cqe, s, &s->cq), 0);
    struct hca_srq_init srq = {.pd = s->pd, .max_wr = DEPTH, .max_sge = 2, .owner = s};
    assert_int_equal(hca_srq_create(s->hca, &srq, &s->srq), 0);
    for (int i = 0; i < NQP; i++) {
        struct hca_qp_init init = {.type = types[i],
                                   .pd = s->pd,
                                   .send_cq = s->cq,
                                   .recv_cq = s->cq,
                                   .srq = i == RC_SRQ ? s->srq : NULL,
                                   .cap = {DEPTH, DEPTH, 2, 2, 64},
                                   .owner = s};
        assert_int_equal(hca_qp_create(s->hca, &init, &s->qp[i]), 0);
    }
}

static void close_side(struct side *s)
{
    hca_free(s->hca);
    free(s->open - GUARD);
    free(s->closed - GUARD);
}

static void connect_qp(struct side *s, const struct side *other, int i)
{
    bool rc = types[i] == HCA_QPT_RC, ud = types[i] == HCA_QPT_UD;
    struct hca_qp_attr a = {.state = HCA_QPS_RESET};
    assert_int_equal(hca_qp_modify(s->hca, s->qp[i], &a, HCA_QP_STATE, now), 0);
    a = (struct hca_qp_attr){.state = HCA_QPS_INIT,
                             .port_num = 1,
                             .access = HCA_ACCESS_REMOTE_WRITE,
                             .qkey = storm.qkey};
    if (rc) a.access |= HCA_ACCESS_REMOTE_READ | HCA_ACCESS_REMOTE_ATOMIC;
    uint32_t mask = HCA_QP_STATE | HCA_QP_PKEY_INDEX | HCA_QP_PORT;
    mask |= ud ? HCA_QP_QKEY : HCA_QP_ACCESS_FLAGS;
    assert_int_equal(hca_qp_modify(s->hca, s->qp[i], &a, mask, now), 0);

    a = (struct hca_qp_attr){
        .state = HCA_QPS_RTR,
        .path_mtu = 3,
        .dest_qpn = hca_qp_num(other->qp[i]),
        .rq_psn = psn_of(100),
        .max_dest_rd_atomic = 4,
        .min_rnr_timer = 1,
        .av = {.sgid = s->gid, .dgid = other->gid, .hop_limit = 64, .port_num = 1}};
    mask = HCA_QP_STATE;
    if (!ud) mask |= HCA_QP_AV | HCA_QP_PATH_MTU | HCA_QP_DEST_QPN | HCA_QP_RQ_PSN;
    if (rc) mask |= HCA_QP_MAX_DEST_RD_ATOMIC | HCA_QP_MIN_RNR_TIMER;
    assert_int_equal(hca_qp_modify(s->hca, s->qp[i], &a, mask, now), 0);

    a = (struct hca_qp_attr){.state = HCA_QPS_RTS,
                             .sq_psn = psn_of(100),
                             .timeout = 8, /* 1 ms */
                             .retry_cnt = 7,
                             .rnr_retry = 7,
                             .max_rd_atomic = 4};
    mask = HCA_QP_STATE | HCA_QP_SQ_PSN;
    if (rc) mask |= HCA_QP_TIMEOUT | HCA_QP_RETRY_CNT | HCA_QP_RNR_RETRY | HCA_QP_MAX_QP_RD_ATOMIC;
    assert_int_equal(hca_qp_modify(s->hca, s->qp[i], &a, mask, now), 0);
}

static bool broken(const struct side *s, int i)
{
    struct hca_qp_attr a;
    hca_qp_query(s->qp[i], &a);
    return a.state != HCA_QPS_RTS;
}

/* A QP that the storm has put into the error state comes back with its twin. */
static void mend(bool all)
{
    for (int i = 0; i < NQP; i++) {
        if (!all && !broken(&victim, i) && !broken(&peer, i)) continue;
        connect_qp(&victim, &peer, i);
        connect_qp(&peer, &victim, i);
    }
}

/* ---- work ------------------------------------------------------------------------------- */

static void post_some(struct side *s, struct side *other)
{
    static const enum hca_wr_opcode ops[] = {HCA_WR_SEND,
                                             HCA_WR_SEND_WITH_IMM,
                                             HCA_WR_RDMA_WRITE,
                                             HCA_WR_RDMA_WRITE_WITH_IMM,
                                             HCA_WR_RDMA_READ,
                                             HCA_WR_SEND,
                                             HCA_WR_ATOMIC_CMP_AND_SWP,
                                             HCA_WR_ATOMIC_FETCH_AND_ADD};
    int i = (int)(storm_random(&storm) % NQP);
    enum hca_wr_opcode op = ops[storm_random(&storm) % (types[i] == HCA_QPT_RC   ? 8
                                                        : types[i] == HCA_QPT_UC ? 4
                                                                                 : 2)];
    bool into = op == HCA_WR_RDMA_READ || op >= HCA_WR_ATOMIC_CMP_AND_SWP;
    uint32_t len = op >= HCA_WR_ATOMIC_CMP_AND_SWP ? 8 : (uint32_t)storm_random(&storm) % 3000;
    if (types[i] == HCA_QPT_UD && len > 1024) len = 1024;
    struct hca_sge sge = {into ? OPEN_IOVA : CLOSED_IOVA, len,
                          hca_mr_lkey(into ? s->open_mr : s->closed_mr)};
    struct hca_send_wr wr = {
        .opcode = op,
        .flags = HCA_SEND_SIGNALED,
        .remote_addr = OPEN_IOVA + 4096,
        .rkey = hca_mr_rkey(other->open_mr),
        .compare_add = 1,
        .ah = {.sgid = s->gid, .dgid = other->gid, .hop_limit = 64, .port_num = 1},
        .remote_qpn = hca_qp_num(other->qp[i]),
        .remote_qkey = storm.qkey,
        .sge = &sge,
        .num_sge = 1};
    (void)!hca_post_send(s->hca, s->qp[i], &wr, now); /* full or in error: fine here */
}

static void post_receives(struct side *s)
{
    struct hca_sge sge = {OPEN_IOVA + 8192, 4096, hca_mr_lkey(s->open_mr)};
    struct hca_recv_wr wr = {.sge = &sge, .num_sge = 1};
    for (int i = 0; i < NQP; i++)
        if (i != RC_SRQ) (void)!hca_post_recv(s->hca, s->qp[i], &wr, now);
    (void)!hca_srq_post(s->hca, s->srq, &wr);
}

static void deliver(struct side *to, const struct side *from, const uint8_t *bytes, size_t len)
{
    /* In a block of its own size, for ASan. */
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, bytes, len);
    struct hca_rx rx = {
        .src = from->gid, .dst = to->gid, .hop_limit = 64, .data = copy, .len = len};
    hca_input(to->hca, &rx, now);
    free(copy);
}

static size_t flatten(const struct hca_tx *tx, uint8_t *out)
{
    size_t len = tx->hdr_len;
    memcpy(out, tx->hdr, len);
    for (uint8_t i = 0; i < tx->niov; i++) {
        memcpy(out + len, tx->payload[i].iov_base, tx->payload[i].iov_len);
        len += tx->payload[i].iov_len;
    }
    memset(out + len, 0, tx->pad);
    return len + tx->pad;
}

/* What `from` has to send reaches `to`: as it is, or damaged if there is a storm and `to` is in it.
 */
static void carry(struct side *from, struct side *to, bool stormy)
{
    static uint8_t bytes[32][STORM_MAX_LEN];
    static struct hca_tx tx[32];
    size_t len[32], n;
    while ((n = hca_output(from->hca, tx, 32, now)) > 0) {
        for (size_t i = 0; i < n; i++) len[i] = flatten(&tx[i], bytes[i]);
        for (size_t i = 0; i < n; i++) {
            struct roce_hdr h;
            size_t hdr_len;
            if (!stormy || !storm_chance(&storm, 8)) deliver(to, from, bytes[i], len[i]);
            if (!stormy || to != &victim) continue;
            if (roce_decode(&h, bytes[i], len[i], &hdr_len) == ROCE_OK) storm.psn = h.psn.v;
            if (storm_chance(&storm, 2))
                deliver(to, from, bytes[i], storm_mutate(&storm, bytes[i], len[i]));
        }
    }
}

static void settle(struct side *s)
{
    struct hca_wc wc[32];
    struct hca_event event;
    int n;
    if (when_due(hca_deadline(s->hca), now)) hca_expire(s->hca, now);
    while ((n = hca_cq_poll(s->cq, wc, 32)) > 0)
        for (int i = 0; i < n; i++) {
            if (wc[i].status == HCA_WC_SUCCESS)
                s->good++;
            else
                s->errors++;
        }
    assert_int_equal(n, 0);
    while (hca_next_event(s->hca, &event)) {
    }
    while (hca_next_notified(s->hca)) {
    }
}

static void turn(bool stormy)
{
    now = when_add(now, 20 * US_NS);
    carry(&victim, &peer, stormy);
    carry(&peer, &victim, stormy);
    settle(&victim);
    settle(&peer);
}

/* ---- the storm -------------------------------------------------------------------------- */

static void aim(void)
{
    storm_init(&storm, seed);
    for (int i = 0; i < NQP; i++) storm.qpn[storm.nqpn++] = hca_qp_num(victim.qp[i]);
    storm.rkey[0] = hca_mr_rkey(victim.open_mr);
    storm.va[0] = OPEN_IOVA;
    storm.rkey[1] = hca_mr_rkey(victim.closed_mr);
    storm.va[1] = CLOSED_IOVA;
    storm.va_len[0] = storm.va_len[1] = REGION;
    storm.nmr = 2;
    storm.psn = 100;
    storm.qkey = 0x11111111;
}

static void check_memory(const struct side *s)
{
    assert_true(all_are(s->closed, REGION, 0xc5));
    assert_true(all_are(s->closed - GUARD, GUARD, 0xa5));
    assert_true(all_are(s->closed + REGION, GUARD, 0xa5));
    assert_true(all_are(s->open - GUARD, GUARD, 0xa5));
    assert_true(all_are(s->open + REGION, GUARD, 0xa5));
}

static void test_storm(void **state)
{
    uint8_t bytes[STORM_MAX_LEN];
    open_side(&victim, 1, 1);
    open_side(&peer, 2, 2);
    aim();
    mend(true);
    for (uint64_t i = 0; i < count; i++) {
        deliver(&victim, &peer, bytes, storm_make(&storm, bytes));
        if (i % 8) continue;
        post_receives(&victim);
        post_receives(&peer);
        post_some(&victim, &peer);
        post_some(&peer, &victim);
        turn(true);
        mend(false);
        if (i % 65536 == 0) check_memory(&victim);
    }
    check_memory(&victim);
    check_memory(&peer);
    const struct hca_counters *c = hca_counters(victim.hca);
    assert_true(c->rx_bad_header > 0 && c->rx_bad_qp > 0 && c->resp_remote_access_errors > 0);
    print_message("%llu datagrams (seed %llu), %llu good completions, %llu failed\n",
                  (unsigned long long)count, (unsigned long long)seed,
                  (unsigned long long)victim.good, (unsigned long long)victim.errors);
}

/* Afterwards: every SEND of one more round completes. */
static void test_calm(void **state)
{
    for (int i = 0; i < 100; i++) turn(false);
    mend(true);
    settle(&victim);
    settle(&peer);
    victim.good = victim.errors = peer.good = peer.errors = 0;
    for (int round = 0; round < 8; round++) {
        post_receives(&peer);
        for (int i = 0; i < NQP; i++) {
            struct hca_sge sge = {CLOSED_IOVA, 900, hca_mr_lkey(victim.closed_mr)};
            struct hca_send_wr wr = {
                .opcode = HCA_WR_SEND,
                .flags = HCA_SEND_SIGNALED,
                .ah = {.sgid = victim.gid, .dgid = peer.gid, .hop_limit = 64, .port_num = 1},
                .remote_qpn = hca_qp_num(peer.qp[i]),
                .remote_qkey = storm.qkey,
                .sge = &sge,
                .num_sge = 1};
            assert_int_equal(hca_post_send(victim.hca, victim.qp[i], &wr, now), 0);
        }
    }
    for (int i = 0; i < SETTLE_TURNS && victim.good < 8 * NQP; i++) turn(false);
    assert_int_equal(victim.good, 8 * NQP);
    assert_int_equal(victim.errors, 0);
    assert_int_equal(peer.good, 8 * NQP);
    close_side(&victim);
    close_side(&peer);
}

int main(int argc, char **argv)
{
    if (argc > 1) count = strtoull(argv[1], NULL, 0);
    if (argc > 2) seed = strtoull(argv[2], NULL, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_calm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
