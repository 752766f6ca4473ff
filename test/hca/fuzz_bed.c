#include "fuzz_bed.h"
#include "base/must.h"
#include <stdlib.h>

#define QKEY 0x11111111u
#define ACCESS                                                                                     \
    (HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_REMOTE_READ |                   \
     HCA_ACCESS_REMOTE_ATOMIC | HCA_ACCESS_MW_BIND | HCA_ACCESS_FLUSH_GLOBAL)

bool fuzz_pages;

static const struct {
    size_t len;
    uint32_t pd, access;
} regions[NMR] = {
    {4096, 0, ACCESS},
    {65536, 0, ACCESS},
    {512, 0, HCA_ACCESS_LOCAL_WRITE},
    {1000, 0, HCA_ACCESS_REMOTE_READ | HCA_ACCESS_MW_BIND},
    {2048, 0, ACCESS | HCA_ACCESS_ZERO_BASED},
    {4096, 0, (ACCESS & ~(uint32_t)HCA_ACCESS_MW_BIND) | HCA_ACCESS_ON_DEMAND},
    {4096, 1, ACCESS},
};

static bool page_in(void *at, size_t len, bool write)
{
    (void)at;
    (void)len;
    (void)write;
    return fuzz_pages;
}

size_t fuzz_mr_len(uint32_t i) { return regions[i].len; }

void fuzz_mr_create(struct side *s, uint32_t i)
{
    int rc = hca_mr_reg(s->hca, s->pd[regions[i].pd], s->mem[i], regions[i].len,
                        (uintptr_t)s->mem[i], regions[i].access, &s->mr[i]);
    must(rc == 0);
}

void fuzz_srq_create(struct side *s, uint32_t i)
{
    struct hca_srq_init init = {
        .pd = s->pd[0], .max_wr = 8, .max_sge = 3, .limit = 2, .xrcd = i, .owner = s};
    if (i) init.cq = s->cq[1];
    int rc = hca_srq_create(s->hca, &init, &s->srq[i]);
    must(rc == 0);
}

struct gid fuzz_group(uint32_t i)
{
    if (i) return (struct gid){{0xff, 0x15, [15] = 1}};
    return (struct gid){{[10] = 0xff, [11] = 0xff, 239, 0, 0, 1}};
}

/* ---- queue pairs ------------------------------------------------------------------------ */

enum hca_qp_type fuzz_qp_type(int side, uint32_t i)
{
    static const enum hca_qp_type type[NQP] = {
        HCA_QPT_RC, HCA_QPT_RC, HCA_QPT_RC, HCA_QPT_RC,       HCA_QPT_UC,
        HCA_QPT_UC, HCA_QPT_UD, HCA_QPT_UD, HCA_QPT_XRC_SEND, HCA_QPT_XRC_RECV};
    if (side && type[i] == HCA_QPT_XRC_SEND) return HCA_QPT_XRC_RECV;
    if (side && type[i] == HCA_QPT_XRC_RECV) return HCA_QPT_XRC_SEND;
    return type[i];
}

void fuzz_qp_create(struct fuzz_bed *bed, int side, uint32_t i)
{
    struct side *s = &bed->side[side];
    enum hca_qp_type type = fuzz_qp_type(side, i);
    struct hca_qp_init init = {.type = type,
                               .pd = s->pd[0],
                               .send_cq = s->cq[0],
                               .recv_cq = s->cq[1],
                               .cap = {4, 4, 3, 3, 64},
                               .sq_sig_all = i & 1,
                               .block_own_mcast = i == 7,
                               .bucket = (uint8_t)i,
                               .owner = s};
    if (i == 1) init.srq = s->srq[0];
    if (i == 3) init.send_cq = init.recv_cq = s->cq[2]; /* the small one: it overruns */
    if (type == HCA_QPT_XRC_SEND) init.recv_cq = NULL;
    if (type == HCA_QPT_XRC_RECV)
        init = (struct hca_qp_init){.type = type, .xrcd = 1, .bucket = 9, .owner = s};
    int rc = hca_qp_create(s->hca, &init, &s->qp[i]);
    must(rc == 0);
}

struct hca_qp_attr fuzz_qp_attr(const struct fuzz_bed *bed, int side, uint32_t i)
{
    const struct hca_qp *peer = bed->side[!side].qp[i];
    return (struct hca_qp_attr){
        .path_mtu = 1 + i % 3,
        .timeout = 8,
        .retry_cnt = 2,
        .rnr_retry = (uint8_t)(i == 2 ? 7 : 1),
        .min_rnr_timer = 1,
        .max_rd_atomic = 2,
        .max_dest_rd_atomic = 2,
        .port_num = 1,
        .qkey = QKEY,
        .access = HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_REMOTE_READ | HCA_ACCESS_REMOTE_ATOMIC |
                  HCA_ACCESS_FLUSH_GLOBAL | HCA_ACCESS_FLUSH_PERSISTENT,
        .rq_psn = psn_of(0xfffffe + i),
        .sq_psn = psn_of(0xfffffe + i),
        .dest_qpn = peer ? hca_qp_num(peer) : 77,
        .av = {.sgid = bed->side[side].gid, .dgid = bed->side[!side].gid, .hop_limit = 64},
    };
}

uint32_t fuzz_qp_mask(enum hca_qp_type type, enum hca_qp_state to)
{
    bool ud = type == HCA_QPT_UD, asks = type == HCA_QPT_RC || type == HCA_QPT_XRC_SEND;
    bool answers = type == HCA_QPT_RC || type == HCA_QPT_XRC_RECV;
    switch (to) {
    case HCA_QPS_INIT:
        return HCA_QP_STATE | HCA_QP_PKEY_INDEX | HCA_QP_PORT |
               (ud ? (uint32_t)HCA_QP_QKEY : (uint32_t)HCA_QP_ACCESS_FLAGS);
    case HCA_QPS_RTR:
        if (ud) return HCA_QP_STATE;
        return HCA_QP_STATE | HCA_QP_AV | HCA_QP_PATH_MTU | HCA_QP_DEST_QPN | HCA_QP_RQ_PSN |
               (answers ? HCA_QP_MAX_DEST_RD_ATOMIC | HCA_QP_MIN_RNR_TIMER : 0u);
    case HCA_QPS_RTS:
        return HCA_QP_STATE | HCA_QP_SQ_PSN |
               (asks
                    ? HCA_QP_TIMEOUT | HCA_QP_RETRY_CNT | HCA_QP_RNR_RETRY | HCA_QP_MAX_QP_RD_ATOMIC
                    : 0u) |
               (type == HCA_QPT_XRC_RECV ? (uint32_t)HCA_QP_TIMEOUT : 0u);
    default: return HCA_QP_STATE;
    }
}

int fuzz_qp_walk(struct fuzz_bed *bed, int side, uint32_t i, enum hca_qp_state state)
{
    static const enum hca_qp_state way[] = {HCA_QPS_RESET, HCA_QPS_INIT, HCA_QPS_RTR, HCA_QPS_RTS,
                                            HCA_QPS_SQD};
    struct side *s = &bed->side[side];
    struct hca_qp_attr attr = fuzz_qp_attr(bed, side, i);
    int rc = 0;
    if (!s->qp[i]) return 0;
    if (state == HCA_QPS_SQE) state = HCA_QPS_RTS; /* not to be had by asking */
    attr.state = state;
    if (state == HCA_QPS_ERR) return hca_qp_modify(s->hca, s->qp[i], &attr, HCA_QP_STATE, bed->now);
    for (size_t k = 0; rc == 0 && k < sizeof way / sizeof *way && way[k] <= state; k++) {
        attr.state = way[k];
        uint32_t mask = fuzz_qp_mask(s->qp[i]->type, way[k]);
        rc = hca_qp_modify(s->hca, s->qp[i], &attr, mask, bed->now);
    }
    return rc;
}

static void post_receives(struct side *s)
{
    for (uint32_t n = 0; n < 2 * NQP; n++) {
        struct hca_qp *qp = s->qp[n / 2];
        struct hca_sge sge = {(uintptr_t)s->mem[1] + 2048 * n, 2048, hca_mr_lkey(s->mr[1])};
        struct hca_recv_wr wr = {.wr_id = n, .sge = &sge, .num_sge = 1};
        (void)!hca_post_recv(s->hca, qp, &wr, (when_t){SEC_NS}); /* who has a queue of its own */
        if (n < 4) must(hca_srq_post(s->hca, s->srq[n & 1], &wr) == 0);
    }
}

/* ---- all of it -------------------------------------------------------------------------- */

static void open_side(struct fuzz_bed *bed, int side)
{
    struct side *s = &bed->side[side];
    struct hca_conf conf = {.function = (uint16_t)(1 + side),
                            .seed = 5u + (unsigned)side,
                            .max_window = 65536,
                            .start_window = 16384,
                            .inflight_cap = 20000,
                            .page_in = page_in};
    s->hca = hca_new(&conf);
    must(s->hca);
    s->gid = (struct gid){{[10] = 0xff, [11] = 0xff, 10, 0, 0, (uint8_t)(1 + side)}};
    struct steering table = {.generation = 1, .nmembers = 2, .usable = 3, .changed = bed->now};
    hca_steer(s->hca, &table, bed->now);
    for (int i = 0; i < 2; i++) s->pd[i] = hca_pd_alloc(s->hca);
    for (uint32_t i = 0; i < NCQ; i++) {
        uint32_t cqe = i == 2 ? 3 : 64;
        must(hca_cq_create(s->hca, &cqe, &s->cq[i], &s->cq[i]) == 0);
    }
    for (uint32_t i = 0; i < NMR; i++) {
        s->mem[i] = calloc(1, regions[i].len);
        must(s->mem[i]);
        fuzz_mr_create(s, i);
    }
    for (uint32_t i = 0; i < NMW; i++)
        must(hca_mw_alloc(s->hca, s->pd[0], i ? HCA_MW_TYPE_2 : HCA_MW_TYPE_1, &s->mw[i]) == 0);
    for (uint32_t i = 0; i < NSRQ; i++) fuzz_srq_create(s, i);
    for (uint32_t i = 0; i < NQP; i++) fuzz_qp_create(bed, side, i);
}

void fuzz_bed_open(struct fuzz_bed *bed)
{
    memset(bed, 0, sizeof *bed);
    bed->now = (when_t){SEC_NS};
    fuzz_pages = true;
    for (int side = 0; side < 2; side++) open_side(bed, side);
    for (int side = 0; side < 2; side++)
        for (uint32_t i = 0; i < NQP; i++) must(fuzz_qp_walk(bed, side, i, HCA_QPS_RTS) == 0);
    for (int side = 0; side < 2; side++) post_receives(&bed->side[side]);
}

void fuzz_bed_close(struct fuzz_bed *bed)
{
    for (int side = 0; side < 2; side++) {
        hca_free(bed->side[side].hca);
        for (uint32_t i = 0; i < NMR; i++) free(bed->side[side].mem[i]);
    }
    for (uint32_t i = 0; i < bed->nwire; i++) free(bed->wire[i].data);
}
