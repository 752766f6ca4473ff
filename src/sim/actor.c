/* See actor.h. */
#include "sim/actor.h"
#include "base/must.h"
#include <string.h>

#define IOVA_LOT (1ull << 28)

uint64_t plot_iova(const struct plot *p)
{
    return (uint64_t)(p->host + 1) << 40 | (p->lot + 1) * IOVA_LOT | p->offset;
}

uint64_t board_iova(const struct board *b, uint32_t lot)
{
    return (uint64_t)(b->host->index + 1) << 40 | (lot + 1) * IOVA_LOT;
}

enum hca_qp_state actor_state(const struct actor *a)
{
    struct hca_qp_attr attr;
    hca_qp_query(a->qp, &attr);
    return attr.state;
}

/* ---- coming to life
 * ------------------------------------------------------------------------------ */

void actor_create(struct actor *a)
{
    const struct plan_qp *p = a->plan;
    struct board *b = a->board;
    bool one = a->work->plan->cq_shared[p->host];
    uint32_t first = 0;
    for (uint32_t i = 0; !one && i < a->oracle->index; i++)
        if (a->work->plan->qp[i].host == p->host) first += 2;
    struct board_cq *send = &b->cq[first], *recv = &b->cq[one ? 0 : first + 1];
    if (p->type == HCA_QPT_XRC_RECV) recv = &b->cq[0]; /* its SRQ's */
    struct hca_qp_init init = {
        .type = p->type,
        .pd = b->pd[p->pd],
        .xrcd = PLAN_XRCD,
        .xrcd_shared = b->host->wing != NULL,
        .send_cq = send->cq,
        .recv_cq = recv->cq,
        .srq = p->shared_receives ? b->srq[plan_srq_of(p)] : NULL,
        .cap = {p->send_depth, p->shared_receives ? 0 : p->recv_depth, p->max_sge, p->max_sge + 1,
                p->max_inline},
        .sq_sig_all = p->sig_all,
        .block_own_mcast = p->block_own,
        .bucket = p->bucket,
        .owner = a,
    };
    a->hca = p->type == HCA_QPT_XRC_RECV && b->host->wing ? b->host->wing : b->host->hca;
    int rc = hca_qp_create(a->hca, &init, &a->qp);
    must(rc == 0);
    must(p->type == HCA_QPT_XRC_RECV || init.cap.max_send_wr >= p->send_depth);
    if (p->in_group) {
        rc = hca_mcast_attach(a->hca, a->qp, &b->host->group);
        must(rc == 0);
    }
    if (p->window) {
        rc = hca_mw_alloc(b->host->hca, b->pd[p->pd], HCA_MW_TYPE_2, &a->window);
        must(rc == 0);
        a->oracle->window_key = hca_mw_rkey(a->window);
    }
    a->oracle->qpn = hca_qp_num(a->qp);
    a->oracle->send_cq = send->id;
    a->oracle->recv_cq = recv->id;
}

static void modify(struct actor *a, const struct hca_qp_attr *attr, uint32_t mask)
{
    int rc = hca_qp_modify(a->hca, a->qp, attr, mask, a->work->world.now);
    if (rc)
        oracle_says(&a->work->oracle, "modify to state %d, mask %#x: %d", attr->state, mask, rc);
}

void actor_connect(struct actor *a, uint32_t sq_psn, uint32_t rq_psn)
{
    const struct plan_qp *p = a->plan;
    const struct actor *peer = &a->work->actor[p->peer];
    bool ud = p->type == HCA_QPT_UD, rc = is_reliable(p->type);
    bool asks = rc && p->type != HCA_QPT_XRC_RECV, answers = rc && p->type != HCA_QPT_XRC_SEND;
    struct hca_qp_attr attr = {
        .state = HCA_QPS_INIT,
        .port_num = 1,
        .qkey = 0x11111111,
        .access =
            HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_WRITE |
            (rc ? HCA_ACCESS_REMOTE_READ | HCA_ACCESS_REMOTE_ATOMIC | HCA_ACCESS_FLUSH_GLOBAL : 0u),
    };
    uint32_t init = HCA_QP_STATE | HCA_QP_PKEY_INDEX | HCA_QP_PORT;
    modify(a, &attr, init | (ud ? (uint32_t)HCA_QP_QKEY : (uint32_t)HCA_QP_ACCESS_FLAGS));
    attr = (struct hca_qp_attr){
        .state = HCA_QPS_RTR,
        .path_mtu = p->mtu,
        .dest_qpn = peer->oracle->qpn,
        .rq_psn = psn_of(rq_psn),
        .max_dest_rd_atomic = p->max_dest_rd_atomic,
        .min_rnr_timer = p->min_rnr_timer,
        .av = {.sgid = a->board->host->gid,
               .dgid = peer->board->host->gid,
               .hop_limit = 64,
               .port_num = 1},
    };
    uint32_t rtr = HCA_QP_STATE;
    if (!ud) rtr |= HCA_QP_AV | HCA_QP_PATH_MTU | HCA_QP_DEST_QPN | HCA_QP_RQ_PSN;
    if (answers) rtr |= HCA_QP_MAX_DEST_RD_ATOMIC | HCA_QP_MIN_RNR_TIMER;
    modify(a, &attr, rtr);
    attr = (struct hca_qp_attr){
        .state = HCA_QPS_RTS,
        .timeout = p->timeout,
        .retry_cnt = p->retry_cnt,
        .rnr_retry = p->rnr_retry,
        .sq_psn = psn_of(sq_psn),
        .max_rd_atomic = p->max_rd_atomic,
    };
    uint32_t rts = HCA_QP_STATE | HCA_QP_SQ_PSN;
    if (rc) rts |= HCA_QP_TIMEOUT;
    if (asks) rts |= HCA_QP_RETRY_CNT | HCA_QP_RNR_RETRY | HCA_QP_MAX_QP_RD_ATOMIC;
    modify(a, &attr, rts);
}

/* ---- posting
 * --------------------------------------------------------------------------------------- */

static uint32_t fill_sges(const struct board *b, const struct buf *buf, bool inlined,
                          struct hca_sge *sge)
{
    for (uint32_t i = 0; i < buf->n; i++) {
        const struct plot *p = buf->plot[i];
        sge[i] = (struct hca_sge){
            .addr = inlined ? (uint64_t)(uintptr_t)p->bytes : plot_iova(p),
            .length = p->len,
            .lkey = inlined ? 0xbad : hca_mr_lkey(b->mr[p->lot]),
        };
    }
    return buf->n;
}

/* The peer's memory, as the request names it: wrongly, where a fault is to be provoked. */
static void name_remote(const struct actor *a, uint32_t i, struct hca_send_wr *wr)
{
    const struct plan_qp *p = a->plan;
    const struct request *r = &p->request[i];
    const struct board *peer = a->work->actor[p->peer].board;
    uint8_t pd = a->work->plan->qp[p->peer].pd;
    const struct plot *plot = r->word ? r->word->plot : r->remote;
    if (!plot) return;
    wr->remote_addr = plot_iova(plot);
    bool by_window = r->epoch && r->op != HCA_WR_FLUSH; /* which windows do not allow */
    wr->rkey = by_window ? oracle_window_key(a->work->actor[p->peer].oracle, r->epoch)
                         : hca_mr_rkey(peer->mr[plot->lot]);
    enum fault_kind kind = p->provoke && p->provoke_at == i ? p->provoke : PROVOKE_NONE;
    const struct ground *g = &a->work->plan->ground[peer->host->index];
    switch (kind) {
    case PROVOKE_BAD_RKEY: wr->rkey ^= 5; break;
    case PROVOKE_OUT_OF_BOUNDS:
        wr->remote_addr = board_iova(peer, plot->lot) + g->lot[plot->lot].len - r->len / 2;
        break;
    case PROVOKE_NO_ACCESS:
        wr->remote_addr = board_iova(peer, LOT_LOCAL0 + pd) + 64;
        wr->rkey = hca_mr_rkey(peer->mr[LOT_LOCAL0 + pd]);
        break;
    case PROVOKE_OTHER_PD:
        wr->remote_addr = board_iova(peer, LOT_ALIEN) + 16;
        wr->rkey = hca_mr_rkey(peer->mr[LOT_ALIEN]);
        break;
    case PROVOKE_MISALIGNED_ATOMIC: wr->remote_addr += 1 + i % 7; break;
    default: break;
    }
}

static void name_operands(const struct request *r, struct hca_send_wr *wr)
{
    if (r->op == HCA_WR_ATOMIC_WRITE) {
        pattern_fill((uint8_t *)&wr->atomic_value, r->key, 0, sizeof wr->atomic_value);
    } else if (r->op == HCA_WR_FLUSH) {
        wr->flush_type = HCA_FLUSH_GLOBAL;
        wr->flush_level = r->whole ? HCA_FLUSH_MR : HCA_FLUSH_RANGE;
        wr->flush_length = r->len;
    } else {
        wr->compare_add = r->compare_add;
        wr->swap = r->swap;
    }
}

/* The owner's window is all of the region that its peer works in. */
static void name_window(const struct actor *a, const struct request *r, struct hca_send_wr *wr)
{
    const struct board *b = a->board;
    const uint32_t lot = LOT_RW0 + a->plan->pd;
    const struct oracle_qp *owner =
        r->op == HCA_WR_SEND_WITH_INV ? a->work->actor[a->plan->peer].oracle : a->oracle;
    wr->rkey = wr->inv_rkey = oracle_window_key(owner, r->epoch);
    if (r->op != HCA_WR_BIND_MW) return;
    wr->remote_addr = board_iova(b, lot);
    wr->bind_length = a->work->plan->ground[b->host->index].lot[lot].len;
    wr->bind_lkey = hca_mr_lkey(b->mr[lot]);
    wr->bind_access = HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_REMOTE_READ | HCA_ACCESS_REMOTE_ATOMIC;
}

static void name_srq(const struct actor *a, uint32_t i, struct hca_send_wr *wr)
{
    const struct plan_qp *p = a->plan;
    if (p->type != HCA_QPT_XRC_SEND) return;
    uint32_t srq = plan_srq_of(&a->work->plan->qp[p->peer]);
    wr->xrc_srqn = hca_srq_num(a->work->actor[p->peer].board->srq[srq]);
    bool wrong = p->provoke == PROVOKE_BAD_SRQ && p->provoke_at == i;
    if (wrong) wr->xrc_srqn ^= 1u << HCA_INDEX_BITS; /* another function's */
}

static void make_send_wr(struct actor *a, uint32_t i, struct hca_send_wr *wr, struct hca_sge *sge)
{
    const struct plan_qp *p = a->plan;
    struct request *r = &p->request[i];
    bool inlined = r->flags & HCA_SEND_INLINE;
    if (r->word && r->op == HCA_WR_ATOMIC_CMP_AND_SWP && rng_percent(&a->work->rng, 70))
        memcpy(&r->compare_add, r->word->plot->bytes, 8);
    *wr = (struct hca_send_wr){
        .wr_id = oracle_send_id(a->oracle, i),
        .opcode = r->op,
        .flags = r->flags,
        .imm_be = r->imm_be,
        .sge = sge,
        .num_sge = fill_sges(a->board, &r->local, inlined, sge),
    };
    if (p->provoke == PROVOKE_BAD_LKEY && p->provoke_at == i) sge[wr->num_sge - 1].lkey ^= 1;
    name_operands(r, wr);
    name_remote(a, i, wr);
    if (r->op == HCA_WR_BIND_MW || r->op == HCA_WR_LOCAL_INV || r->op == HCA_WR_SEND_WITH_INV)
        name_window(a, r, wr);
    name_srq(a, i, wr);
    if (p->type != HCA_QPT_UD) return;
    const struct actor *to = &a->work->actor[r->to];
    wr->ah = (struct hca_ah){
        .sgid = a->board->host->gid, .dgid = to->board->host->gid, .hop_limit = 64, .port_num = 1};
    wr->remote_qpn = to->oracle->qpn;
    if (r->group) {
        wr->ah.dgid = a->board->host->group;
        wr->remote_qpn = ROCE_QPN_MULTICAST;
    }
    wr->remote_qkey = r->stray ? 0x11111112 : 0x11111111;
}

static void paint_for(struct request *r)
{
    if (r->word) return;
    if (r->op == HCA_WR_RDMA_READ) {
        if (!r->chained) plot_paint(r->remote, r->key, 0);
    } else if (!r->chained) {
        buf_paint(&r->local, r->key);
    }
}

static void post_one(struct actor *a)
{
    struct work *w = a->work;
    uint32_t i = a->oracle->posted;
    struct request *r = &a->plan->request[i];
    struct hca_send_wr wr;
    struct hca_sge sge[BUF_MAX_PLOTS];
    paint_for(r);
    make_send_wr(a, i, &wr, sge);
    trace_line(&w->world.trace, w->world.now,
               "posts     h%u qp %06x request %u: %d, %u bytes, flags %x", a->plan->host,
               a->oracle->qpn, i, r->op, r->len, r->flags);
    int rc = hca_post_send(a->hca, a->qp, &wr, w->world.now);
    if (rc) {
        oracle_says(&w->oracle, "h%u qp %06x request %u: hca_post_send gives %d in state %d",
                    a->plan->host, a->oracle->qpn, i, rc, actor_state(a));
        return;
    }
    oracle_posted(&w->oracle, a->oracle, w->world.now);
    if (r->flags & HCA_SEND_INLINE) /* the bytes are the adapter's now: ours may change */
        for (uint32_t k = 0; k < r->local.n; k++)
            plot_paint(r->local.plot[k], rng_u64(&w->rng) | 1, 0);
    world_kick(a->board->host);
}

/* Does the window's course allow the next request? */
static bool epoch_allows(const struct actor *a)
{
    const struct oracle_qp *o = a->oracle, *peer = a->work->actor[a->plan->peer].oracle;
    const struct request *r = &a->plan->request[o->posted];
    if (!r->epoch || o->failed || o->flush_seen) return true;
    if (r->op == HCA_WR_BIND_MW) return o->closed + 1 >= r->epoch;
    if (r->op != HCA_WR_LOCAL_INV)
        return (r->after_close ? peer->closed : peer->opened) >= r->epoch;
    /* All of the user's that need it are complete; what a failed user has under way may still come.
     */
    uint32_t end = peer->head;
    if (peer->failed || peer->flush_seen) return false;
    return end == peer->planned || peer->request[end].epoch > r->epoch ||
           peer->request[end].after_close;
}

static bool may_post(const struct actor *a)
{
    const struct oracle_qp *o = a->oracle;
    if (!a->qp || a->resting || o->posted == o->planned) return false;
    if ((o->failed || o->flush_seen) && a->posts_in_error >= 2) return false;
    return o->posted - o->head < a->plan->send_depth && epoch_allows(a);
}

bool actor_post(struct actor *a)
{
    struct rng *rng = &a->work->rng;
    uint64_t n = rng_percent(rng, 30) ? 0 : rng_range(rng, 1, rng_percent(rng, 50) ? 2 : 64);
    for (; n && may_post(a) && oracle_content(&a->work->oracle); n--) {
        if (a->oracle->failed || a->oracle->flush_seen) a->posts_in_error++;
        post_one(a);
    }
    return may_post(a);
}

static void make_recv_wr(struct board *b, struct recv_queue *rq, struct hca_recv_wr *wr,
                         struct hca_sge *sge)
{
    struct receive *v = &rq->receive[rq->posted];
    uint32_t n = 0;
    if (v->grh) sge[n++] = (struct hca_sge){plot_iova(v->grh), 40, hca_mr_lkey(b->mr[v->grh->lot])};
    n += fill_sges(b, &v->room, false, sge + n);
    if (v->must_fail && n) sge[0].lkey ^= 1;
    *wr = (struct hca_recv_wr){.wr_id = oracle_recv_id(rq, rq->posted), .sge = sge, .num_sge = n};
}

static bool may_receive(const struct actor *a)
{
    const struct oracle_qp *o = a->oracle;
    const struct recv_queue *rq = o->rq;
    if (!a->qp || a->resting || rq->shared || rq->posted == rq->planned) return false;
    if ((o->failed || o->flush_seen) && a->receives_in_error >= 2) return false;
    return rq->posted - rq->head < a->plan->recv_depth;
}

bool actor_post_receives(struct actor *a)
{
    struct work *w = a->work;
    struct rng *rng = &w->rng;
    uint64_t n = rng_percent(rng, 25) ? 0 : rng_range(rng, 1, 64);
    if (a->plan->eager_receives) n = UINT64_MAX;
    for (; n && may_receive(a); n--) {
        struct hca_recv_wr wr;
        struct hca_sge sge[BUF_MAX_PLOTS + 1];
        make_recv_wr(a->board, a->oracle->rq, &wr, sge);
        int rc = hca_post_recv(a->hca, a->qp, &wr, w->world.now);
        if (rc) {
            oracle_says(&w->oracle, "h%u qp %06x: hca_post_recv gives %d in state %d",
                        a->plan->host, a->oracle->qpn, rc, actor_state(a));
            return false;
        }
        oracle_recv_posted(&w->oracle, a->oracle->rq);
        if (a->oracle->failed || a->oracle->flush_seen) a->receives_in_error++;
        world_kick(a->board->host);
    }
    return may_receive(a);
}

static bool may_post_shared(const struct board *b, uint32_t srq)
{
    const struct recv_queue *rq = &b->work->plan->srq[b->host->index][srq];
    return rq->receive && rq->posted < rq->planned && rq->posted - b->srq_done[srq] < b->srq_depth;
}

bool board_post_shared(struct board *b, uint32_t srq)
{
    struct work *w = b->work;
    struct recv_queue *rq = &w->plan->srq[b->host->index][srq];
    uint64_t n = rng_percent(&w->rng, 25) ? 0 : rng_range(&w->rng, 1, 64);
    for (; n && may_post_shared(b, srq); n--) {
        struct hca_recv_wr wr;
        struct hca_sge sge[BUF_MAX_PLOTS + 1];
        make_recv_wr(b, rq, &wr, sge);
        int rc = hca_srq_post(b->host->hca, b->srq[srq], &wr);
        if (rc) {
            oracle_says(&w->oracle, "h%u: hca_srq_post gives %d", b->host->index, rc);
            return false;
        }
        oracle_recv_posted(&w->oracle, rq);
    }
    return may_post_shared(b, srq);
}
