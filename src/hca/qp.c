/* A QP's life: creation, posting, its states and what they do to its queues, and its packets'
 * common headers. Which transition wants which attributes is qp_modify.c. */
#include "hca/qp.h"
#include "base/must.h"
#include "hca/xrc_calls.h"
#include "wire/ip.h"
#include "wire/opcode.h"
#include <errno.h>
#include <stdlib.h>

/* MIN_INLINE: what there is room for in other adapters' smallest requests, and rdma_xclient uses
 * without asking for it. */
enum { MIN_INLINE = 64, DEFAULT_HOP_LIMIT = 64, QUEUE_ALIGN = 64 };

/* ---- creation --------------------------------------------------------------------------- */

static uint32_t power_of_two(uint32_t n)
{
    uint32_t p = 1;
    while (p < n) p *= 2;
    return n ? p : 0;
}

static int check_init(const struct hca_qp_init *init)
{
    const struct hca_qp_cap *cap = &init->cap;
    if (init->type == HCA_QPT_XRC_RECV) return init->xrcd ? 0 : -EINVAL;
    if (!init->send_cq) return -EINVAL;
    if (cap->max_send_wr > HCA_MAX_WR || cap->max_send_sge > HCA_MAX_SGE ||
        cap->max_inline_data > HCA_MAX_INLINE)
        return -EINVAL;
    if (init->type == HCA_QPT_XRC_SEND) return 0;
    if (init->type != HCA_QPT_RC && init->type != HCA_QPT_UC && init->type != HCA_QPT_UD)
        return -EOPNOTSUPP;
    if (!init->recv_cq || (init->srq && init->srq->xrcd)) return -EINVAL;
    if (!init->srq && (cap->max_recv_wr > HCA_MAX_WR || cap->max_recv_sge > HCA_MAX_SGE))
        return -EINVAL;
    return 0;
}

/* What the type has no use for is left out of `init`, and capacities are rounded up. */
static void settle_init(struct hca_qp_init *init)
{
    struct hca_qp_cap *cap = &init->cap;
    bool ini = init->type == HCA_QPT_XRC_SEND, tgt = init->type == HCA_QPT_XRC_RECV;
    if (ini || tgt) {
        init->recv_cq = NULL;
        init->srq = NULL;
    }
    if (tgt) {
        init->send_cq = NULL;
        *cap = (struct hca_qp_cap){0};
        return;
    }
    cap->max_send_wr = power_of_two(cap->max_send_wr);
    if (cap->max_send_sge == 0) cap->max_send_sge = 1;
    if (cap->max_inline_data < MIN_INLINE) cap->max_inline_data = MIN_INLINE;
    if (init->srq || ini) {
        cap->max_recv_wr = cap->max_recv_sge = 0;
        return;
    }
    cap->max_recv_wr = power_of_two(cap->max_recv_wr);
    if (cap->max_recv_sge == 0) cap->max_recv_sge = 1;
}

/* Where the receive queue begins in memory that the owner gives. */
static size_t recv_offset(const struct hca_qp_init *init)
{
    return (sq_bytes(&init->cap) + QUEUE_ALIGN - 1) & ~(size_t)(QUEUE_ALIGN - 1);
}

size_t hca_qp_bytes(const struct hca_qp_init *init)
{
    struct hca_qp_init given = *init;
    if (check_init(init) < 0) return 0;
    settle_init(&given);
    return recv_offset(&given) + (given.cap.max_recv_sge ? rq_bytes(given.cap.max_recv_wr) : 0);
}

static void free_queues(struct hca_qp *qp)
{
    sq_fini(&qp->sq);
    rq_fini(&qp->rq);
    free(qp);
}

static struct hca_qp *qp_new(struct hca *hca, const struct hca_qp_init *init)
{
    static const uint8_t service_of[] = {[HCA_QPT_RC] = ROCE_RC,
                                         [HCA_QPT_UC] = ROCE_UC,
                                         [HCA_QPT_UD] = ROCE_UD,
                                         [HCA_QPT_XRC_SEND] = ROCE_XRC,
                                         [HCA_QPT_XRC_RECV] = ROCE_XRC};
    struct hca_qp *qp = calloc(1, sizeof *qp);
    if (!qp) return NULL;
    qp->hca = hca;
    qp->events.owner = init->owner;
    qp->type = init->type;
    qp->service = service_of[init->type];
    qp->state = HCA_QPS_RESET;
    qp->pd = init->pd;
    qp->xrcd = init->xrcd;
    qp->sig_all = init->sq_sig_all;
    qp->block_own_mcast = init->block_own_mcast;
    qp->attr.cap = init->cap;
    qp->send_cq = init->send_cq;
    qp->recv_cq = init->recv_cq;
    qp->srq = init->srq;
    qp->bucket = init->bucket;
    qp->member = hca->table.active[init->bucket];
    list_init(&qp->windows);
    detour_reset(&qp->detour);
    qp->alarm = HEAP_NODE_IDLE;
    qp->gap_from = NEVER;
    if (sq_init(&qp->sq, &init->cap, init->queues) < 0 ||
        (qp_has_rq(qp) &&
         rq_init(&qp->rq, init->cap.max_recv_wr, init->cap.max_recv_sge,
                 init->queues ? (char *)init->queues + recv_offset(init) : NULL))) {
        free_queues(qp);
        return NULL;
    }
    return qp;
}

int hca_qp_create(struct hca *hca, struct hca_qp_init *init, struct hca_qp **out)
{
    int err = check_init(init);
    if (err < 0) return err;
    settle_init(init);
    struct hca_qp *qp = qp_new(hca, init);
    if (!qp) return -ENOMEM;
    if (qp_is_reliable(qp)) err = rc_init(qp);
    if (err == 0 && qp->type == HCA_QPT_XRC_RECV && init->xrcd_shared) err = xrc_calls_new(qp);
    if (err == 0) err = agenda_reserve(hca, hca->nqps + 1);
    if (err == 0) err = numbers_add(hca, &hca->qpns, qp, &qp->qpn);
    if (err < 0) {
        if (qp_is_reliable(qp)) rc_fini(qp);
        free_queues(qp);
        return err;
    }
    list_add_tail(&hca->qps, &qp->all);
    hca->nqps++;
    if (qp->send_cq) qp->send_cq->users++;
    if (qp->recv_cq) qp->recv_cq->users++;
    if (qp->srq) qp->srq->users++;
    *out = qp;
    return 0;
}

/* It is on no list, in no heap, and no packet finds work in it. */
static void go_quiet(struct hca_qp *qp)
{
    agenda_deadline(qp, NEVER);
    list_del(&qp->turn);
    list_del(&qp->sent);
    list_del(&qp->held);
}

int hca_qp_destroy(struct hca *hca, struct hca_qp *qp)
{
    if (qp->mcast_groups) return -EBUSY;
    qp_to_reset(qp);
    if (qp_is_reliable(qp)) rc_fini(qp);
    go_quiet(qp);
    event_forget(&qp->events);
    numbers_del(&hca->qpns, qp->qpn);
    list_del(&qp->all);
    hca->nqps--;
    if (qp->send_cq) qp->send_cq->users--;
    if (qp->recv_cq) qp->recv_cq->users--;
    if (qp->srq) qp->srq->users--;
    free_queues(qp);
    return 0;
}

/* ---- states ----------------------------------------------------------------------------- */

static void set_state(struct hca_qp *qp, enum hca_qp_state state)
{
    qp->state = state;
    qp->attr.sq_draining = false;
}

static void flush_sq(struct hca_qp *qp, when_t now)
{
    while (!sq_is_empty(&qp->sq)) wqe_complete(qp, HCA_WC_WR_FLUSH_ERR, now);
}

static void flush_rq(struct hca_qp *qp, when_t now)
{
    const struct rwqe *rwqe;
    while ((rwqe = rq_peek(&qp->rq))) {
        rwqe_fail(qp, rwqe, HCA_WC_WR_FLUSH_ERR, now);
        qp->rq.head++;
    }
}

void qp_fail(struct hca_qp *qp, when_t now)
{
    if (qp->state == HCA_QPS_ERR) return;
    qp_complete_sent(qp, now);
    set_state(qp, HCA_QPS_ERR);
    if (qp_is_reliable(qp)) rc_to_err(qp, now);
    if (qp->type == HCA_QPT_UC) uc_to_err(qp, now);
    go_quiet(qp);
    flush_sq(qp, now);
    if (qp_has_rq(qp)) {
        flush_rq(qp, now);
    } else if (qp->type != HCA_QPT_XRC_SEND && !qp->last_wqe_reported) {
        /* IBTA 11.6.3.1 (affiliated events): it will take no more from an SRQ. */
        qp->last_wqe_reported = true;
        event_raise(qp->hca, &qp->events, HCA_EVENT_QP_LAST_WQE_REACHED);
    }
}

void qp_fail_send(struct hca_qp *qp, when_t now)
{
    must(!qp_is_reliable(qp));
    if (qp->state == HCA_QPS_ERR) return;
    set_state(qp, HCA_QPS_SQE);
    list_del(&qp->turn);
    flush_sq(qp, now);
}

void qp_fail_event(struct hca_qp *qp, enum hca_event_type type, when_t now)
{
    if (qp->state == HCA_QPS_ERR) return;
    event_raise(qp->hca, &qp->events, type);
    qp_fail(qp, now);
}

void qp_comm_established(struct hca_qp *qp)
{
    if (qp->state != HCA_QPS_RTR || qp->comm_established) return;
    qp->comm_established = true;
    event_raise(qp->hca, &qp->events, HCA_EVENT_COMM_EST);
}

void qp_sq_drained(struct hca_qp *qp)
{
    if (qp->state != HCA_QPS_SQD || !qp->attr.sq_draining) return;
    qp->attr.sq_draining = false;
    if (qp->attr.en_sqd_async_notify) event_raise(qp->hca, &qp->events, HCA_EVENT_SQ_DRAINED);
}

static bool sq_idle(const struct hca_qp *qp)
{
    if (qp_is_reliable(qp)) return rc_sq_idle(qp);
    return qp->sq.head == qp->sq.next && (qp->type == HCA_QPT_UD || qp->uc.send_offset == 0);
}

void qp_to_sqd(struct hca_qp *qp)
{
    set_state(qp, HCA_QPS_SQD);
    qp->attr.sq_draining = true;
    if (sq_idle(qp)) qp_sq_drained(qp);
}

void qp_to_reset(struct hca_qp *qp)
{
    struct hca_qp_cap cap = qp->attr.cap;
    set_state(qp, HCA_QPS_RESET);
    if (qp_is_reliable(qp)) rc_reset(qp);
    if (qp->type == HCA_QPT_UC) uc_reset(qp);
    go_quiet(qp);
    mw_forget_qp(qp);
    sq_clear(&qp->sq);
    qp->rq.head = qp->rq.tail = 0;
    if (qp->send_cq) cq_forget_qp(qp->send_cq, qp->qpn);
    if (qp->recv_cq && qp->recv_cq != qp->send_cq) cq_forget_qp(qp->recv_cq, qp->qpn);
    if (qp->type == HCA_QPT_XRC_RECV) qp->srq = NULL;
    qp->attr = (struct hca_qp_attr){.cap = cap};
    pace_limit(&qp->limit, 0);
    qp->last_wqe_reported = qp->comm_established = false;
    qp->gap_from = NEVER;
}

/* ---- posting ---------------------------------------------------------------------------- */

#define OP(name) (1u << HCA_WR_##name)

static bool opcode_allowed(const struct hca_qp *qp, enum hca_wr_opcode opcode)
{
    const uint32_t ud = OP(SEND) | OP(SEND_WITH_IMM);
    const uint32_t uc = ud | OP(RDMA_WRITE) | OP(RDMA_WRITE_WITH_IMM) | OP(LOCAL_INV) | OP(BIND_MW);
    const uint32_t rc = uc | OP(RDMA_READ) | OP(ATOMIC_CMP_AND_SWP) | OP(ATOMIC_FETCH_AND_ADD) |
                        OP(SEND_WITH_INV) | OP(FLUSH) | OP(ATOMIC_WRITE);
    uint32_t allowed = qp_is_reliable(qp) ? rc : qp->type == HCA_QPT_UC ? uc : ud;
    return (unsigned)opcode < 32 && (allowed & (1u << opcode));
}

bool hca_flush_is_sound(const struct hca_send_wr *wr)
{
    uint8_t type = wr->flush_type;
    if (!type || (type & ~(HCA_FLUSH_GLOBAL | HCA_FLUSH_PERSISTENT))) return false;
    return wr->flush_level == HCA_FLUSH_MR ||
           (wr->flush_level == HCA_FLUSH_RANGE && wr->flush_length <= HCA_MAX_MSG);
}

/* FLUSH and ATOMIC WRITE carry what they need themselves. */
static bool is_sound_without_data(const struct hca_send_wr *wr)
{
    if (wr->num_sge || (wr->flags & HCA_SEND_INLINE)) return false;
    return wr->opcode == HCA_WR_ATOMIC_WRITE || hca_flush_is_sound(wr);
}

int hca_post_send(struct hca *hca, struct hca_qp *qp, const struct hca_send_wr *wr, when_t now)
{
    const uint32_t flags =
        HCA_SEND_FENCE | HCA_SEND_SIGNALED | HCA_SEND_SOLICITED | HCA_SEND_INLINE;
    const uint32_t reads = OP(RDMA_READ) | OP(ATOMIC_CMP_AND_SWP) | OP(ATOMIC_FETCH_AND_ADD);
    const uint32_t bare = OP(FLUSH) | OP(ATOMIC_WRITE);
    if (qp->state < HCA_QPS_RTS || qp->type == HCA_QPT_XRC_RECV) return -EINVAL;
    if (!opcode_allowed(qp, wr->opcode) || (wr->flags & ~flags)) return -EINVAL;
    if ((reads & (1u << wr->opcode)) && (wr->flags & HCA_SEND_INLINE)) return -EINVAL;
    if ((bare & (1u << wr->opcode)) && !is_sound_without_data(wr)) return -EINVAL;
    int err = sq_push(&qp->sq, wr);
    if (err < 0) return err;
    if (qp->state == HCA_QPS_ERR || qp->state == HCA_QPS_SQE) {
        flush_sq(qp, now);
        cq_fail_overrun(hca, now);
    } else if (qp_is_reliable(qp)) {
        rc_posted(qp, now);
    } else {
        agenda_ready(qp);
    }
    return 0;
}

int hca_post_recv(struct hca *hca, struct hca_qp *qp, const struct hca_recv_wr *wr, when_t now)
{
    if (qp->state == HCA_QPS_RESET || !qp_has_rq(qp)) return -EINVAL;
    int err = rq_push(&qp->rq, wr);
    if (err < 0) return err;
    if (qp->state == HCA_QPS_ERR) {
        flush_rq(qp, now);
        cq_fail_overrun(hca, now);
    }
    return 0;
}

const struct rwqe *qp_peek_recv(const struct hca_qp *qp)
{
    return rq_peek(qp->srq ? &qp->srq->rq : &qp->rq);
}

bool qp_take_recv(struct hca_qp *qp, struct rwqe *out)
{
    return qp->srq ? srq_take(qp->srq, out) : rq_take(&qp->rq, out);
}

/* ---- packets ---------------------------------------------------------------------------- */

void qp_emit_to(struct hca_qp *qp, struct hca_tx *tx, struct roce_hdr *h, const struct hca_ah *ah,
                qpn_t dqpn)
{
    must(qp->member < STEER_MAX_MEMBERS);
    struct hca *hca = qp->hca;
    if (h->opcode != ROCE_CNP_OPCODE) h->opcode |= qp->service;
    h->pad = -tx->payload_len & 3;
    /* The only path is the migrated one (IBTA 17.2.8); of a CNP the bit is 0 (A17.9.3). */
    h->migreq = h->opcode != ROCE_CNP_OPCODE;
    h->tver = 0;
    h->pkey = ROCE_PKEY_DEFAULT;
    h->dqpn = dqpn;
    tx->src = ah->sgid;
    tx->dst = ah->dgid;
    tx->flow_label = ah->flow_label;
    tx->traffic_class = ah->traffic_class;
    tx->hop_limit = ah->hop_limit ? ah->hop_limit : DEFAULT_HOP_LIMIT;
    tx->member = qp->member;
    tx->pad = h->pad;
    tx->qpn = qp->qpn;
    tx->dqpn = dqpn;
    tx->hdr_len = (uint8_t)roce_encode(tx->hdr, h);

    uint64_t bytes = (uint64_t)tx->hdr_len + tx->payload_len + tx->pad;
    hca->counters.tx_packets++;
    hca->counters.tx_bytes += bytes;
    hca->members[qp->member].tx_packets++;
    hca->members[qp->member].tx_bytes += bytes;
    qp->view.tx_packets++;
    qp->view.tx_bytes += bytes;
}

void qp_emit(struct hca_qp *qp, struct hca_tx *tx, struct roce_hdr *h)
{
    qp_emit_to(qp, tx, h, &qp->attr.av, qp->attr.dest_qpn);
    if (qp_is_reliable(qp) && !(tx->traffic_class & ECN_MASK) && h->opcode != ROCE_CNP_OPCODE)
        tx->traffic_class |= ECN_ECT0;
}

void qp_sent(struct hca_qp *qp)
{
    if (list_empty(&qp->sent)) list_add_tail(&qp->hca->sent, &qp->sent);
}

void qp_complete_sent(struct hca_qp *qp, when_t now)
{
    if (list_empty(&qp->sent)) return;
    list_del(&qp->sent);
    while (qp->sq.head != qp->sq.next) wqe_complete(qp, HCA_WC_SUCCESS, now);
    if (qp->state == HCA_QPS_SQD && sq_idle(qp)) qp_sq_drained(qp);
}

/* ---- steering --------------------------------------------------------------------------- */

void qp_set_member(struct hca_qp *qp, uint8_t member)
{
    if (member == qp->member) return;
    qp->member = member;
    if (member == STEER_NO_MEMBER) return;
    qp->hca->counters.remaps++;
    qp->view.remaps++;
}

void qp_steer(struct hca_qp *qp, uint8_t member, when_t changed, when_t now)
{
    if (member == qp->member) return;
    qp_set_member(qp, member);
    if (qp->state != HCA_QPS_RTR && qp->state != HCA_QPS_RTS && qp->state != HCA_QPS_SQD &&
        qp->state != HCA_QPS_SQE)
        return;
    /* A second failure before the first acknowledgement belongs to the same gap. */
    if (qp_is_reliable(qp) && rc_port_moved(qp, now) && when_is_never(qp->gap_from))
        qp->gap_from = changed;
    agenda_ready(qp);
}

void hca_qp_set_bucket(struct hca *hca, struct hca_qp *qp, uint8_t bucket, when_t now)
{
    qp->bucket = bucket;
    detour_reset(&qp->detour);
    qp_steer(qp, hca->table.active[bucket], now, now);
}

void qp_ack_seen(struct hca_qp *qp, when_t now)
{
    if (when_is_never(qp->gap_from)) return;
    qp->view.remapped_at = qp->gap_from;
    qp->view.last_gap_ns = when_since(now, qp->gap_from);
    qp->gap_from = NEVER;
}

/* ---- seen from outside ------------------------------------------------------------------ */

qpn_t hca_qp_num(const struct hca_qp *qp) { return qp->qpn; }

void hca_qp_set_owner(struct hca_qp *qp, void *owner) { qp->events.owner = owner; }

uint32_t hca_qp_send_room(const struct hca_qp *qp)
{
    return qp->sq.size - (qp->sq.tail - qp->sq.head);
}

void hca_qp_query(const struct hca_qp *qp, struct hca_qp_attr *attr)
{
    *attr = qp->attr;
    attr->state = attr->cur_state = qp->state;
}

void hca_qp_view(const struct hca_qp *qp, struct hca_qp_view *view)
{
    *view = qp->view;
    view->qpn = qp->qpn;
    view->dqpn = qp->attr.dest_qpn;
    view->rq_psn = qp->attr.rq_psn;
    view->sq_psn = qp->attr.sq_psn;
    view->type = (uint8_t)qp->type;
    view->state = (uint8_t)qp->state;
    view->bucket = qp->bucket;
    view->home = qp->hca->table.home[qp->bucket];
    view->active = qp->member;
    view->dgid = qp->attr.av.dgid;
}
