/* See plan_messages.h. */
#include "sim/plan_messages.h"
#include "base/must.h"
#include "sim/plan_windows.h"
#include <stdlib.h>
#include <string.h>

static bool has_control(const struct plan *p, uint32_t qp, enum control_kind kind)
{
    for (uint32_t i = 0; i < p->ncontrols; i++)
        if (p->control[i].kind == kind &&
            (p->control[i].qp == qp || p->qp[p->control[i].qp].peer == qp))
            return true;
    return false;
}

static bool is_reset(const struct plan *p, uint32_t qp)
{
    return has_control(p, qp, CONTROL_RESET);
}

static bool is_drastic(const struct plan *p, uint32_t qp)
{
    return is_reset(p, qp) || has_control(p, qp, CONTROL_DESTROY) ||
           has_control(p, qp, CONTROL_KILL);
}

/* Lengths like to sit at the edges of packets. */
static uint32_t draw_len(struct rng *rng, uint32_t mtu, uint32_t max)
{
    uint32_t len;
    switch (rng_below(rng, 8)) {
    case 0: len = (uint32_t)rng_below(rng, 3); break;
    case 1: len = (uint32_t)rng_below(rng, 64); break;
    case 2: len = (uint32_t)rng_below(rng, mtu + 1); break;
    case 3:
    case 4: len = mtu * (uint32_t)rng_range(rng, 1, 3) + (uint32_t)rng_below(rng, 3) - 1; break;
    case 5: len = mtu * (uint32_t)rng_range(rng, 1, 12) + (uint32_t)rng_below(rng, 9) - 4; break;
    case 6: len = (uint32_t)rng_below(rng, mtu * 8); break;
    default: len = (uint32_t)rng_below(rng, mtu * (rng_percent(rng, 25) ? 100 : 20)); break;
    }
    return len > max ? (uint32_t)rng_below(rng, max + 1) : len;
}

static void draw_buf(struct plan *p, struct rng *rng, struct buf *b, uint8_t host, uint8_t pd,
                     uint32_t len, uint32_t max_sge)
{
    *b = (struct buf){.len = len};
    if (len == 0) return;
    uint32_t pieces = (uint32_t)rng_range(rng, 1, rng_percent(rng, 50) ? 1 : max_sge);
    if (pieces > len) pieces = len;
    for (uint32_t i = 0, left = len; i < pieces; i++) {
        uint32_t take =
            i + 1 == pieces ? left : (uint32_t)rng_range(rng, 1, left - (pieces - i - 1));
        uint8_t lot = (uint8_t)(rng_percent(rng, 50) ? LOT_RW0 + pd : LOT_LOCAL0 + pd);
        b->plot[b->n++] = ground_plot(&p->ground[host], lot, take);
        left -= take;
    }
}

static void use_buf(struct buf *b)
{
    for (uint32_t i = 0; i < b->n; i++) b->plot[i]->uses++;
}

static struct word *word_for(struct plan *p, struct rng *rng, uint8_t host, uint8_t pd)
{
    uint32_t start = (uint32_t)rng_below(rng, 8);
    for (uint32_t i = 0; i < p->nwords; i++) {
        struct word *w = &p->word[(start + i) % p->nwords];
        if (w->plot->host == host && w->plot->lot == LOT_RW0 + pd && rng_percent(rng, 85)) return w;
    }
    if (p->nwords == 8) return NULL;
    struct word *w = &p->word[p->nwords++];
    *w = (struct word){.plot = ground_plot(&p->ground[host], (uint8_t)(LOT_RW0 + pd), 8),
                       .init = rng_u64(rng)};
    w->plot->wild = true;
    return w;
}

static enum hca_wr_opcode draw_opcode(struct rng *rng, enum hca_qp_type type)
{
    static const enum hca_wr_opcode rc[] = {HCA_WR_RDMA_WRITE,
                                            HCA_WR_RDMA_WRITE,
                                            HCA_WR_RDMA_WRITE_WITH_IMM,
                                            HCA_WR_SEND,
                                            HCA_WR_SEND,
                                            HCA_WR_SEND_WITH_IMM,
                                            HCA_WR_RDMA_READ,
                                            HCA_WR_RDMA_READ,
                                            HCA_WR_ATOMIC_CMP_AND_SWP,
                                            HCA_WR_ATOMIC_FETCH_AND_ADD,
                                            HCA_WR_FLUSH,
                                            HCA_WR_ATOMIC_WRITE};
    if (is_reliable(type)) return rc[rng_below(rng, sizeof rc / sizeof *rc)];
    if (type == HCA_QPT_UC) return rc[rng_below(rng, 6)];
    return rng_percent(rng, 50) ? HCA_WR_SEND : HCA_WR_SEND_WITH_IMM;
}

/* A READ of what an earlier WRITE of this queue put there: the responder executes in order. */
static bool chain_read(struct plan *p, struct rng *rng, struct plan_qp *q, uint32_t i)
{
    struct request *r = &q->request[i];
    for (uint32_t k = 0; k < 3 && i; k++) {
        const struct request *w = &q->request[rng_below(rng, i)];
        if (w->op != HCA_WR_RDMA_WRITE || !w->len) continue;
        r->remote = w->remote;
        r->len = w->len;
        r->key = w->key;
        r->chained = true;
        return true;
    }
    return false;
}

/* A fenced SEND or WRITE of what the READ before it has fetched. */
static bool chain_fence(struct plan_qp *q, uint32_t i)
{
    struct request *r = &q->request[i];
    const struct request *read = i ? &q->request[i - 1] : NULL;
    if (!read || read->op != HCA_WR_RDMA_READ || r->op == HCA_WR_RDMA_READ) return false;
    r->local = read->local;
    r->len = read->len;
    r->key = read->key;
    r->chained = true;
    r->flags |= HCA_SEND_FENCE;
    return true;
}

static void draw_transfer(struct plan *p, struct rng *rng, uint32_t qi, uint32_t i,
                          uint32_t *budget)
{
    struct plan_qp *q = &p->qp[qi];
    const struct plan_qp *peer = &p->qp[q->peer];
    struct request *r = &q->request[i];
    uint32_t mtu = 128u << q->mtu, max = *budget * mtu;
    if (q->type == HCA_QPT_UD) max = mtu;
    if (max > 400000) max = 400000;
    bool may_chain = is_reliable(q->type) && !is_reset(p, qi);
    bool chained = false;
    r->len = draw_len(rng, mtu, max);
    if (may_chain && r->op == HCA_WR_RDMA_READ && rng_percent(rng, 25)) chain_read(p, rng, q, i);
    if (may_chain && rng_percent(rng, 40)) chained = chain_fence(q, i);
    if (!chained) draw_buf(p, rng, &r->local, q->host, q->pd, r->len, q->max_sge);
    if (r->op <= HCA_WR_RDMA_WRITE_WITH_IMM || (r->op == HCA_WR_RDMA_READ && !r->remote))
        r->remote = ground_plot(&p->ground[peer->host], (uint8_t)(LOT_RW0 + peer->pd), r->len);
    if (!chained && r->len <= q->max_inline && r->op != HCA_WR_RDMA_READ && rng_percent(rng, 70))
        r->flags |= HCA_SEND_INLINE;
    uint32_t packets = 1 + r->len / mtu;
    *budget -= packets < *budget ? packets : *budget;
}

/* A FLUSH is of memory that nobody touches. */
static void draw_bare(struct plan *p, struct rng *rng, const struct plan_qp *peer,
                      struct request *r)
{
    bool flush = r->op == HCA_WR_FLUSH;
    r->len = flush ? (uint32_t)rng_range(rng, 1, 600) : 8;
    r->whole = flush && rng_percent(rng, 30);
    r->remote = ground_plot(&p->ground[peer->host], (uint8_t)(LOT_RW0 + peer->pd), r->len);
}

/* Who hears what queue pair `qi` sends to the group. */
static uint32_t hearers(const struct plan *p, uint32_t qi)
{
    uint32_t mask = 0;
    for (uint32_t k = 0; k < p->nqps; k++)
        if (p->qp[k].in_group && !(k == qi && p->qp[k].block_own)) mask |= 1u << k;
    return mask;
}

static void draw_request(struct plan *p, struct rng *rng, uint32_t qi, uint32_t i, uint32_t *budget)
{
    struct plan_qp *q = &p->qp[qi];
    struct request *r = &q->request[i];
    const struct plan_qp *peer = &p->qp[q->peer];
    *r = (struct request){.op = draw_opcode(rng, q->type), .to = q->peer};
    if (rng_percent(rng, 40) || i + 1 == q->nrequests || i % (q->send_depth / 2) == 0)
        r->flags |= HCA_SEND_SIGNALED;
    if (rng_percent(rng, 30)) r->flags |= HCA_SEND_SOLICITED;
    if (rng_percent(rng, 10)) r->flags |= HCA_SEND_FENCE;
    r->imm_be = (uint32_t)rng_u64(rng);
    r->compare_add = rng_u64(rng);
    r->swap = rng_u64(rng);
    r->key = mix64(p->seed ^ (uint64_t)qi << 40 ^ (uint64_t)(i + 1) << 8) | 1;
    bool atomic = r->op == HCA_WR_ATOMIC_CMP_AND_SWP || r->op == HCA_WR_ATOMIC_FETCH_AND_ADD;
    if (atomic) {
        r->word = word_for(p, rng, peer->host, peer->pd);
        if (!r->word) {
            r->op = HCA_WR_RDMA_WRITE;
            atomic = false;
        }
    }
    if (atomic) {
        r->len = 8;
        r->local = (struct buf){.len = 8, .n = 1};
        r->local.plot[0] = ground_plot(&p->ground[q->host], (uint8_t)(LOT_LOCAL0 + q->pd), 8);
        *budget -= *budget ? 1 : 0;
    } else if (oracle_is_bare(r->op)) {
        draw_bare(p, rng, peer, r);
        *budget -= *budget ? 1 : 0;
    } else {
        draw_transfer(p, rng, qi, i, budget);
    }
    use_buf(&r->local);
    if (r->remote) r->remote->uses++;
    if (q->type == HCA_QPT_UD) {
        do r->to = (uint16_t)rng_below(rng, p->nqps);
        while (p->qp[r->to].type != HCA_QPT_UD || p->qp[r->to].mtu < q->mtu);
        if (rng_percent(rng, 40)) r->group = hearers(p, qi);
        r->stray = r->len >= 8 && rng_percent(rng, 10);
    }
    plan_count_message(p, r);
}

void plan_count_message(struct plan *p, const struct request *r)
{
    bool send = oracle_uses_receive(r->op) && r->op != HCA_WR_RDMA_WRITE_WITH_IMM;
    if (!send && r->op != HCA_WR_RDMA_WRITE_WITH_IMM) return;
    for (uint32_t k = 0; k < p->nqps; k++) {
        struct plan_qp *to = &p->qp[k];
        if (r->group ? !(r->group >> k & 1) : k != r->to) continue;
        to->messages_to++;
        if (send && r->len > to->message_max) to->message_max = r->len;
    }
}

/* ---- faults on purpose
 * --------------------------------------------------------------------------- */

static bool is_of_window(const struct request *r)
{
    return r->op == HCA_WR_BIND_MW || r->op == HCA_WR_LOCAL_INV;
}

static void provoke(struct plan *p, struct rng *rng, uint32_t qi)
{
    static const uint32_t status[PROVOKE_COUNT] = {
        [PROVOKE_BAD_RKEY] = HCA_WC_REM_ACCESS_ERR,
        [PROVOKE_OUT_OF_BOUNDS] = HCA_WC_REM_ACCESS_ERR,
        [PROVOKE_NO_ACCESS] = HCA_WC_REM_ACCESS_ERR,
        [PROVOKE_OTHER_PD] = HCA_WC_REM_ACCESS_ERR,
        [PROVOKE_BAD_LKEY] = HCA_WC_LOC_PROT_ERR,
        [PROVOKE_SHORT_RECEIVE] = HCA_WC_REM_INV_REQ_ERR,
        [PROVOKE_BAD_RECEIVE_LKEY] = HCA_WC_REM_OP_ERR,
        [PROVOKE_MISALIGNED_ATOMIC] = HCA_WC_REM_INV_REQ_ERR,
        [PROVOKE_NO_RECEIVE] = HCA_WC_RNR_RETRY_EXC_ERR,
        [PROVOKE_BAD_SRQ] = HCA_WC_REM_INV_REQ_ERR,
    };
    struct plan_qp *q = &p->qp[qi];
    struct plan_qp *peer = &p->qp[q->peer];
    if (!is_reliable(q->type) || !q->nrequests || q->provoke || peer->provoke || is_drastic(p, qi))
        return;
    enum fault_kind kind = (enum fault_kind)rng_range(rng, 1, PROVOKE_NO_RECEIVE);
    if (q->type == HCA_QPT_XRC_SEND && rng_percent(rng, 30)) kind = PROVOKE_BAD_SRQ;
    uint32_t at = (uint32_t)rng_below(rng, q->nrequests);
    struct request *r = &q->request[at];
    bool atomic = r->word != NULL,
         send = oracle_uses_receive(r->op) && r->op != HCA_WR_RDMA_WRITE_WITH_IMM;
    bool no_sge = (r->flags & HCA_SEND_INLINE) || oracle_is_bare(r->op);
    bool of_word = atomic || r->op == HCA_WR_ATOMIC_WRITE;
    if (is_of_window(r)) return;
    switch (kind) {
    case PROVOKE_BAD_LKEY:
        if (no_sge || !r->len || atomic) return;
        break;
    case PROVOKE_SHORT_RECEIVE:
    case PROVOKE_BAD_RECEIVE_LKEY:
        if (!send || !r->len || peer->shared_receives) return;
        break;
    case PROVOKE_BAD_SRQ: break;
    case PROVOKE_MISALIGNED_ATOMIC:
        if (!of_word) return;
        break;
    case PROVOKE_NO_RECEIVE:
        if (!send || peer->shared_receives) return;
        q->rnr_retry = (uint8_t)rng_below(rng, 3);
        peer->eager_receives = true;
        break;
    default:
        if (send || !r->len || ((of_word || r->whole) && kind == PROVOKE_OUT_OF_BOUNDS)) return;
    }
    q->provoke = kind;
    q->provoke_at = at;
    r->must_fail = 1u << status[kind];
}

/* ---- receives
 * ------------------------------------------------------------------------------------ */

static void draw_receive(struct plan *p, struct rng *rng, struct receive *v,
                         const struct plan_qp *q, uint32_t room)
{
    *v = (struct receive){0};
    draw_buf(p, rng, &v->room, q->host, q->pd, room, q->max_sge > 1 ? q->max_sge - 1 : 1);
    use_buf(&v->room);
    if (q->type != HCA_QPT_UD) return;
    v->grh = ground_plot(&p->ground[q->host], (uint8_t)(LOT_RW0 + q->pd), 40);
    v->grh->wild = true;
}

/* Receive k of an RC queue pair is for the k-th message of its peer: any room that is enough. */
static void draw_exact_receives(struct plan *p, struct rng *rng, struct plan_qp *q)
{
    const struct plan_qp *peer = &p->qp[q->peer];
    uint32_t k = 0;
    for (uint32_t i = 0; i < peer->nrequests; i++) {
        const struct request *r = &peer->request[i];
        bool imm_write = r->op == HCA_WR_RDMA_WRITE_WITH_IMM;
        if (!oracle_uses_receive(r->op)) continue;
        bool here = peer->provoke && i == peer->provoke_at;
        if (here && peer->provoke == PROVOKE_NO_RECEIVE) break;
        uint32_t room = imm_write ? 0 : r->len;
        if (rng_percent(rng, 60)) room += (uint32_t)rng_below(rng, 200);
        if (here && peer->provoke == PROVOKE_SHORT_RECEIVE) room = (uint32_t)rng_below(rng, r->len);
        draw_receive(p, rng, &q->rq.receive[k], q, room);
        if (here && peer->provoke == PROVOKE_BAD_RECEIVE_LKEY)
            q->rq.receive[k].must_fail = 1u << HCA_WC_LOC_PROT_ERR;
        k++;
    }
    q->rq.planned = k;
    if (q->eager_receives && q->recv_depth < k + 1) q->recv_depth = k + 1;
}

static void draw_receives(struct plan *p, struct rng *rng, uint32_t qi)
{
    struct plan_qp *q = &p->qp[qi];
    if (q->shared_receives || q->type == HCA_QPT_XRC_SEND) return;
    uint32_t n = q->messages_to;
    q->rq.receive = calloc(2 * n + 2 * q->recv_depth + 10, sizeof *q->rq.receive);
    must(q->rq.receive);
    if (q->type == HCA_QPT_RC && !is_reset(p, qi)) {
        draw_exact_receives(p, rng, q);
        return;
    }
    if (q->type != HCA_QPT_RC) n += 2;
    if (q->type == HCA_QPT_UD && p->links_double) n *= 2;
    if (is_reset(p, qi)) n += 2 * q->recv_depth + 4; /* flushed, and gone */
    for (uint32_t i = 0; i < n; i++)
        draw_receive(p, rng, &q->rq.receive[i], q, q->message_max + (uint32_t)rng_below(rng, 50));
    q->rq.planned = n;
}

static void draw_shared_receives(struct plan *p, struct rng *rng, uint8_t host, uint32_t srq)
{
    struct recv_queue *s = &p->srq[host][srq];
    uint32_t n = 0, room = 0;
    const struct plan_qp *any = NULL;
    for (uint32_t i = 0; i < p->nqps; i++) {
        const struct plan_qp *q = &p->qp[i];
        if (q->host != host || !q->shared_receives || q->type == HCA_QPT_UD ||
            plan_srq_of(q) != srq)
            continue;
        n += q->messages_to + 4;
        if (is_reset(p, i)) n += q->messages_to;
        if (q->message_max > room) room = q->message_max;
        any = q;
    }
    if (!any) return;
    s->receive = calloc(n, sizeof *s->receive);
    must(s->receive);
    s->planned = n;
    for (uint32_t i = 0; i < n; i++)
        draw_receive(p, rng, &s->receive[i], any, room + (uint32_t)rng_below(rng, 50));
}

void plan_grounds(struct plan *p, struct rng *rng)
{
    for (uint8_t h = 0; h < p->nhosts; h++) {
        ground_init(&p->ground[h], h, rng_u64(rng));
        for (int i = 0; i < LOT_COUNT; i++) ground_lot(&p->ground[h]);
        ground_plot(&p->ground[h], LOT_ALIEN, 64);
        ground_plot(&p->ground[h], LOT_LOCAL0, 64);
        ground_plot(&p->ground[h], LOT_LOCAL1, 64);
    }
}

void plan_receives(struct plan *p, struct rng *rng)
{
    for (uint32_t i = 0; i < p->nqps; i++) draw_receives(p, rng, i);
    for (uint8_t h = 0; h < p->nhosts; h++)
        for (uint32_t i = 0; i < PLAN_SRQS; i++) draw_shared_receives(p, rng, h, i);
    for (uint8_t h = 0; h < p->nhosts; h++) ground_build(&p->ground[h]);
    for (uint32_t i = 0; i < p->nwords; i++) memcpy(p->word[i].plot->bytes, &p->word[i].init, 8);
}

void plan_messages(struct plan *p, struct rng *rng)
{
    plan_grounds(p, rng);
    for (uint32_t i = 0; i < p->nqps; i++)
        if (p->qp[i].type == HCA_QPT_UD) {
            p->qp[i].shared_receives = p->qp[i].rq.shared = false;
            p->qp[i].in_group = rng_percent(rng, 70);
            p->qp[i].block_own = rng_percent(rng, 30);
        }
    for (uint32_t i = 0; i < p->nqps; i++) {
        struct plan_qp *q = &p->qp[i];
        uint32_t budget = p->npackets / p->nqps + 1;
        q->nrequests =
            rng_percent(rng, 10) ? 0 : (uint32_t)rng_range(rng, 1, rng_percent(rng, 80) ? 24 : 80);
        if (q->type == HCA_QPT_XRC_RECV) q->nrequests = 0;
        q->request = calloc(q->nrequests + 1, sizeof *q->request);
        must(q->request);
        for (uint32_t k = 0; k < q->nrequests; k++) draw_request(p, rng, i, k, &budget);
    }
    struct rng windows = rng_fork(rng, 9);
    for (uint32_t i = 0; i < p->nqps; i++)
        if (rng_percent(&windows, 20) && !is_drastic(p, i)) plan_windows(p, &windows, i);
    for (uint32_t i = 0; i < p->nqps; i++)
        if (rng_percent(rng, 12)) provoke(p, rng, i);
    /* An infinite timeout is for connections whose ends both live. */
    for (uint32_t i = 0; i < p->nqps; i++) {
        struct plan_qp *q = &p->qp[i];
        if (q->timeout == 0 && (is_drastic(p, i) || q->provoke || p->qp[q->peer].provoke))
            q->timeout = 14;
    }
    plan_receives(p, rng);
}
