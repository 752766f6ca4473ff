/* See oracle.h. Atomics' chains are in oracle_atomic.c, the last look at everything in
 * oracle_finish.c. */
#include "sim/oracle.h"
#include "base/must.h"
#include "sim/trace.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What a driver and the network may add to a timeout before we call it late. */
#define LATE_NS (150 * MS_NS)

void oracle_says(struct oracle *o, const char *fmt, ...)
{
    if (o->violation[0] || o->blind) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(o->violation, sizeof o->violation, fmt, ap);
    va_end(ap);
}

uint64_t oracle_send_id(const struct oracle_qp *q, uint32_t request)
{
    return (uint64_t)'S' << 56 | (uint64_t)q->index << 32 | request;
}

uint64_t oracle_recv_id(const struct recv_queue *rq, uint32_t receive)
{
    return (uint64_t)'R' << 56 | (uint64_t)rq->id << 32 | receive;
}

static bool is_write(enum hca_wr_opcode op)
{
    return op == HCA_WR_RDMA_WRITE || op == HCA_WR_RDMA_WRITE_WITH_IMM || op == HCA_WR_ATOMIC_WRITE;
}

static bool is_atomic(enum hca_wr_opcode op)
{
    return op == HCA_WR_ATOMIC_CMP_AND_SWP || op == HCA_WR_ATOMIC_FETCH_AND_ADD;
}

static bool has_imm(enum hca_wr_opcode op)
{
    return op == HCA_WR_SEND_WITH_IMM || op == HCA_WR_RDMA_WRITE_WITH_IMM;
}

/* ---- posting -------------------------------------------------------------------------------- */

void oracle_posted(struct oracle *o, struct oracle_qp *q, when_t now)
{
    must(q->posted < q->planned);
    struct request *r = &q->request[q->posted++];
    r->state = WORK_POSTED;
    r->posted = now;
    if (q->head == q->posted - 1) {
        q->last_progress = now;
        q->faults = 0;
    }
    if (oracle_uses_receive(r->op)) r->receive = q->receives_used++;
    /* A failed READ leaves its buffer undefined. */
    for (uint32_t i = 0; r->must_fail && r->op == HCA_WR_RDMA_READ && i < r->local.n; i++)
        r->local.plot[i]->wild = true;
    /* A local fault may show in the middle of a message; a remote one before any byte is placed. */
    if (r->must_fail && !(r->must_fail >> HCA_WC_LOC_PROT_ERR & 1)) return;
    if (is_write(r->op)) {
        r->remote->pending_key = r->key;
        r->remote->pending_koff = 0;
    }
    if (r->op == HCA_WR_RDMA_READ) buf_expect(&r->local, r->key);
    if (is_atomic(r->op)) r->local.plot[0]->wild = true;
}

void oracle_recv_posted(struct oracle *o, struct recv_queue *rq)
{
    must(rq->posted < rq->planned);
    rq->receive[rq->posted++].state = WORK_POSTED;
}

/* ---- requests complete ------------------------------------------------------------------------
 */

static enum hca_wc_opcode wc_opcode_of(enum hca_wr_opcode op)
{
    switch (op) {
    case HCA_WR_RDMA_WRITE:
    case HCA_WR_RDMA_WRITE_WITH_IMM: return HCA_WC_RDMA_WRITE;
    case HCA_WR_RDMA_READ: return HCA_WC_RDMA_READ;
    case HCA_WR_ATOMIC_CMP_AND_SWP: return HCA_WC_COMP_SWAP;
    case HCA_WR_ATOMIC_FETCH_AND_ADD: return HCA_WC_FETCH_ADD;
    case HCA_WR_LOCAL_INV: return HCA_WC_LOCAL_INV;
    case HCA_WR_BIND_MW: return HCA_WC_BIND_MW;
    case HCA_WR_FLUSH: return HCA_WC_FLUSH;
    case HCA_WR_ATOMIC_WRITE: return HCA_WC_ATOMIC_WRITE;
    default: return HCA_WC_SEND;
    }
}

/* An RC request that used a receive has succeeded: the message must be in that receive's room. */
static void check_delivered(struct oracle *o, struct oracle_qp *q, uint32_t i)
{
    struct request *r = &q->request[i];
    struct oracle_qp *peer = &o->qp[q->peer];
    if (r->delivered || peer->gone || peer->rq->shared) return;
    if (r->receive >= peer->rq->posted) {
        says_of(o, q, i, "succeeded although the peer had posted no receive for it");
        return;
    }
    const struct receive *v = &peer->rq->receive[r->receive];
    uint32_t in_room = is_write(r->op) ? 0 : r->len;
    if (v->state != WORK_POSTED)
        says_of(o, q, i, "succeeded, but its receive %u is in state %d", r->receive, v->state);
    else if (!buf_holds(&v->room, r->key, in_room))
        says_of(o, q, i, "succeeded before its bytes were in receive %u", r->receive);
}

static void settle_write(struct oracle *o, struct oracle_qp *q, uint32_t i)
{
    struct request *r = &q->request[i];
    if (!plot_holds(r->remote, r->key, 0, r->len)) {
        says_of(o, q, i,
                "succeeded, but the peer's memory does not hold its bytes (first wrong at %u)",
                pattern_match(r->remote->bytes, r->key, 0, r->len));
        return;
    }
    r->remote->pending_key = 0;
    r->remote->key = r->key;
    r->remote->koff = 0;
    plot_release(r->remote);
}

static void settle_atomic(struct request *r)
{
    memcpy(&r->result, r->local.plot[0]->bytes, 8);
    r->local.plot[0]->wild = false;
    buf_release(&r->local);
}

/* A bind or an invalidate; false: it is neither. */
static bool settle_window(struct oracle *o, struct oracle_qp *q, const struct request *r)
{
    if (r->op == HCA_WR_BIND_MW) {
        q->opened = r->epoch;
        o->windows_opened++;
    } else if (r->op == HCA_WR_LOCAL_INV) {
        q->closed = r->epoch;
        o->windows_closed++;
    } else {
        return false;
    }
    return true;
}

/* The request has succeeded: by its own completion, or implied by a later one. */
static void settle_request(struct oracle *o, struct oracle_qp *q, uint32_t i)
{
    struct request *r = &q->request[i];
    if (r->must_fail) {
        says_of(o, q, i, "succeeded, and should have failed (statuses %#x)", r->must_fail);
        return;
    }
    r->state = WORK_DONE;
    if (settle_window(o, q, r)) return;
    if (is_atomic(r->op)) {
        settle_atomic(r);
        return;
    }
    if (r->op == HCA_WR_FLUSH) { /* what it is to have made visible has been settled before it */
        plot_release(r->remote);
        return;
    }
    if (r->op == HCA_WR_RDMA_READ) {
        if (!buf_holds(&r->local, r->key, r->len)) {
            says_of(o, q, i, "succeeded, but its buffer does not hold the bytes read");
            return;
        }
        buf_settle(&r->local, r->key, r->len);
        buf_release(&r->local);
        plot_release(r->remote);
        return;
    }
    if (is_reliable(q->type)) {
        if (oracle_uses_receive(r->op)) check_delivered(o, q, i);
        if (is_write(r->op) && oracle_content(o)) settle_write(o, q, i);
    }
    if (oracle_content(o)) buf_release(&r->local);
}

/* Were the links bad enough? What only the peer's end can excuse is judged at the end. */
static void judge_retry_exc(struct oracle *o, struct oracle_qp *q, uint32_t i, when_t now)
{
    const struct request *r = &q->request[i];
    when_t since = when_before(q->last_progress, r->posted) ? r->posted : q->last_progress;
    uint64_t waited = when_since(now, since);
    uint64_t budget = q->timeout_ns * q->retry_cnt;
    when_t bad = when_is_never(q->path_bad_since) ? q->last_bad : now;
    if (when_before(bad, q->last_fault)) bad = q->last_fault;
    o->retry_excs++;
    const char *why = NULL;
    if (o->must_survive)
        why = "on links whose outages the retries cover";
    else if (q->timeout_ns == 0)
        why = "with an infinite timeout";
    else if (bad.ns == 0 || when_since(now, bad) > 4 * q->timeout_ns + 10 * MS_NS)
        why = "although the links had been good for longer than a timeout";
    else if (!o->links_lose && waited < budget)
        why = "before the retries were used up";
    else if (o->links_lose && q->faults < q->retry_cnt && when_since(now, q->last_bad) > waited)
        why = "although fewer packets were lost than retries were granted";
    if (why && !q->unexcused[0])
        snprintf(q->unexcused, sizeof q->unexcused,
                 "request %u: RETRY_EXC %s (%" PRIu64 " us since progress, %u packets lost)", i,
                 why, (uint64_t)(waited / US_NS), q->faults);
    if (o->links_lose || when_is_never(q->path_bad_since)) return;
    if (when_before(since, q->path_bad_since)) since = q->path_bad_since;
    if (when_since(now, since) > 4 * q->timeout_ns * (q->retry_cnt + 1u) + LATE_NS)
        says_of(o, q, i, "RETRY_EXC only after %" PRIu64 " us",
                (uint64_t)(when_since(now, since) / US_NS));
}

static void fail_request(struct oracle *o, struct oracle_qp *q, uint32_t i,
                         enum hca_wc_status status, when_t now)
{
    struct request *r = &q->request[i];
    if (status == HCA_WC_WR_FLUSH_ERR) {
        r->state = WORK_FLUSHED;
        q->flush_seen = q->requests_flushed = true;
        return;
    }
    r->state = WORK_FAILED;
    if (q->requests_flushed) says_of(o, q, i, "%s after a failure", wc_status_name(status));
    q->failed = q->requests_flushed = true;
    if (status == HCA_WC_RETRY_EXC_ERR && is_reliable(q->type)) {
        judge_retry_exc(o, q, i, now);
        return;
    }
    if (r->after_close) o->windows_refused++;
    if (!(r->must_fail >> status & 1))
        says_of(o, q, i, "failed with %s (allowed: %#x)", wc_status_name(status), r->must_fail);
}

static bool tells_length(enum hca_wr_opcode op)
{
    return op == HCA_WR_RDMA_READ || is_atomic(op) || oracle_is_bare(op);
}

static void request_completes(struct oracle *o, struct oracle_qp *q, uint32_t i,
                              const struct hca_wc *wc, when_t now)
{
    if (i >= q->posted || q->request[i].state != WORK_POSTED) {
        oracle_says(o, "h%u qp %06x: completion of request %u, which is %s", q->host, q->qpn, i,
                    i >= q->posted ? "not posted" : "complete already or gone");
        return;
    }
    struct request *r = &q->request[i];
    for (; q->head < i && oracle_content(o); q->head++) {
        struct request *silent = &q->request[q->head];
        if (silent->state != WORK_POSTED) continue;
        if (q->sig_all || silent->flags & HCA_SEND_SIGNALED)
            says_of(o, q, q->head, "was signalled, yet request %u completed before it", i);
        else if (q->requests_flushed)
            says_of(o, q, q->head, "was passed over by a flush in silence");
        else
            settle_request(o, q, q->head);
    }
    if (!oracle_content(o)) return;
    q->head = i + 1;
    if (wc->status != HCA_WC_SUCCESS) {
        fail_request(o, q, i, wc->status, now);
        return;
    }
    if (q->requests_flushed)
        says_of(o, q, i, "succeeded after an earlier one was flushed");
    else if (!q->sig_all && !(r->flags & HCA_SEND_SIGNALED))
        says_of(o, q, i, "unsignalled, has a completion");
    else if (wc->opcode != wc_opcode_of(r->op))
        says_of(o, q, i, "completes with opcode %d", wc->opcode);
    else if (tells_length(r->op) && wc->byte_len != (r->op == HCA_WR_FLUSH ? 0 : r->len))
        says_of(o, q, i, "completes with byte_len %u", wc->byte_len);
    else
        settle_request(o, q, i);
    q->last_progress = now;
    q->faults = 0;
}

/* ---- receives complete -------------------------------------------------------------------------
 */

static bool arrival_fits(const struct oracle_qp *q, const struct request *r,
                         const struct receive *v, const struct hca_wc *wc)
{
    if (!oracle_uses_receive(r->op) || r->state == WORK_PLANNED) return false;
    bool imm_write = r->op == HCA_WR_RDMA_WRITE_WITH_IMM;
    if ((wc->opcode == HCA_WC_RECV_RDMA_WITH_IMM) != imm_write) return false;
    if (wc->byte_len != r->len + (q->type == HCA_QPT_UD ? 40u : 0)) return false;
    if (!(wc->flags & HCA_WC_WITH_IMM) != !has_imm(r->op)) return false;
    if (!(wc->flags & HCA_WC_WITH_INV) != (r->op != HCA_WR_SEND_WITH_INV)) return false;
    if ((wc->flags & HCA_WC_WITH_INV) && wc->inv_rkey != oracle_window_key(q, r->epoch))
        return false;
    if (has_imm(r->op) && wc->imm_be != r->imm_be) return false;
    if (imm_write) return plot_holds(r->remote, r->key, 0, r->len) || r->state == WORK_DONE;
    return buf_holds(&v->room, r->key, r->len);
}

/* The request of the peer that this receive is the message of; NULL with a violation where none.
 * RC: it can only be the next. UC: one of those not yet seen. */
static struct request *arrival_of(struct oracle *o, struct oracle_qp *q, const struct receive *v,
                                  const struct hca_wc *wc)
{
    struct oracle_qp *peer = &o->qp[q->peer];
    for (uint32_t i = q->next_arrival; i < peer->posted; i++) {
        struct request *r = &peer->request[i];
        if (!oracle_uses_receive(r->op)) continue;
        bool fits = arrival_fits(q, r, v, wc);
        if (fits) {
            q->next_arrival = i + 1;
            return r;
        }
        if (q->type == HCA_QPT_UC) continue;
        oracle_says(
            o,
            "h%u qp %06x: a receive completes with opcode %d, %u bytes, imm %08x flags %#x, and "
            "does not hold request %u of its peer (%s, %u bytes, imm %08x)%s",
            q->host, q->qpn, wc->opcode, wc->byte_len, wc->imm_be, wc->flags, i,
            wr_opcode_name(r->op), r->len, r->imm_be,
            r->op == HCA_WR_RDMA_WRITE_WITH_IMM || wc->byte_len != r->len ? "" : ": wrong bytes");
        return NULL;
    }
    oracle_says(o,
                "h%u qp %06x: a receive completes (%u bytes) and the peer has sent nothing like it",
                q->host, q->qpn, wc->byte_len);
    return NULL;
}

static struct request *datagram_of(struct oracle *o, struct oracle_qp *q, const struct receive *v,
                                   const struct hca_wc *wc)
{
    struct request *twice = NULL;
    for (uint32_t k = 0; k < o->nqp; k++) {
        struct oracle_qp *from = &o->qp[k];
        if (from->type != HCA_QPT_UD || from->qpn != wc->src_qpn) continue;
        for (uint32_t i = 0; i < from->posted; i++) {
            struct request *r = &from->request[i];
            bool group = r->group >> q->index & 1;
            if (r->group ? !group : r->to != q->index) continue;
            if (!arrival_fits(q, r, v, wc) || r->must_fail || r->stray) continue;
            if (group ? !(r->heard >> q->index & 1) : !r->delivered) return r;
            twice = r;
        }
    }
    if (twice && o->links_double) return twice;
    oracle_says(o, "h%u qp %06x: a datagram of %u bytes from qp %06x %s", q->host, q->qpn,
                wc->byte_len, wc->src_qpn,
                twice ? "arrived twice over links that double nothing" : "was never sent");
    return NULL;
}

static void receive_succeeds(struct oracle *o, struct oracle_qp *q, uint32_t i,
                             const struct hca_wc *wc)
{
    struct receive *v = &q->rq->receive[i];
    if (v->must_fail) {
        oracle_says(o, "h%u qp %06x receive %u: succeeds, and should have failed", q->host, q->qpn,
                    i);
        return;
    }
    struct request *r = q->type == HCA_QPT_UD ? datagram_of(o, q, v, wc) : arrival_of(o, q, v, wc);
    if (!r) return;
    if (q->type == HCA_QPT_UD && !(wc->flags & HCA_WC_GRH)) {
        oracle_says(o, "h%u qp %06x receive %u: no HCA_WC_GRH", q->host, q->qpn, i);
        return;
    }
    if (r->must_fail) {
        oracle_says(o, "h%u qp %06x receive %u: completes for a request that must fail (%#x)",
                    q->host, q->qpn, i, r->must_fail);
        return;
    }
    r->delivered = true;
    if (r->op == HCA_WR_SEND_WITH_INV) {
        q->closed = r->epoch;
        o->windows_closed++;
    }
    r->heard |= 1u << q->index;
    o->last_solicited = r->flags & HCA_SEND_SOLICITED;
    o->last_uncertain = !is_reliable(q->type) && r->len < 8;
    v->state = WORK_DONE;
    uint32_t in_room = is_write(r->op) ? 0 : r->len;
    if (q->type != HCA_QPT_UC && !buf_tail_untouched(&v->room, in_room)) {
        oracle_says(o, "h%u qp %06x receive %u: bytes behind the message's %u have changed",
                    q->host, q->qpn, i, in_room);
        return;
    }
    buf_settle(&v->room, r->key, in_room);
    buf_release(&v->room);
}

static void receive_fails(struct oracle *o, struct oracle_qp *q, uint32_t i,
                          enum hca_wc_status status)
{
    struct receive *v = &q->rq->receive[i];
    struct oracle_qp *peer = &o->qp[q->peer];
    v->state = status == HCA_WC_WR_FLUSH_ERR ? WORK_FLUSHED : WORK_FAILED;
    if (status == HCA_WC_WR_FLUSH_ERR) {
        q->flush_seen = true;
        return;
    }
    /* A length error is the sender's doing, a protection error our own receive's. */
    bool blame = v->must_fail >> status & 1;
    for (uint32_t k = 0; !blame && status == HCA_WC_LOC_LEN_ERR && k < peer->posted; k++)
        blame = peer->request[k].must_fail >> HCA_WC_REM_INV_REQ_ERR & 1;
    if (!blame)
        oracle_says(o, "h%u qp %06x receive %u: fails with %s", q->host, q->qpn, i,
                    wc_status_name(status));
    q->failed = true;
}

static void receive_completes(struct oracle *o, struct oracle_qp *q, struct recv_queue *rq,
                              uint32_t i, const struct hca_wc *wc)
{
    if (q->rq != rq || i >= rq->posted || rq->receive[i].state != WORK_POSTED) {
        oracle_says(o, "h%u qp %06x: completion of receive %u, which is %s", q->host, q->qpn, i,
                    q->rq != rq       ? "another queue's"
                    : i >= rq->posted ? "not posted"
                                      : "complete already or gone");
        return;
    }
    if (!rq->shared) {
        if (i != rq->head) {
            oracle_says(o, "h%u qp %06x: receive %u completes, %u was next", q->host, q->qpn, i,
                        rq->head);
            return;
        }
        rq->head = i + 1;
    }
    if (wc->status != HCA_WC_SUCCESS)
        receive_fails(o, q, i, wc->status);
    else
        receive_succeeds(o, q, i, wc);
}

/* Just enough for the programs to go on. */
static void follow_blindly(struct oracle *o, struct oracle_qp *q, bool send, uint32_t queue,
                           uint32_t i, bool failed)
{
    if (send && i >= q->head && i < q->posted) q->head = i + 1;
    if (!send && i >= o->rq[queue]->head && i < o->rq[queue]->posted) o->rq[queue]->head = i + 1;
    q->failed = q->failed || failed;
}

void oracle_completion(struct oracle *o, uint32_t cq, const struct hca_wc *wc, when_t now)
{
    uint32_t number = (uint32_t)(wc->wr_id >> 32 & 0xffffff), i = (uint32_t)wc->wr_id;
    bool send = wc->wr_id >> 56 == 'S';
    o->completions++;
    struct oracle_qp *q = NULL;
    for (uint32_t k = 0; k < o->nqp && !q; k++)
        if (o->qp[k].qpn == wc->qpn && (o->qp[k].send_cq == cq || o->qp[k].recv_cq == cq))
            q = &o->qp[k];
    if (!q || (send ? number != q->index : wc->wr_id >> 56 != 'R' || number >= o->nrq)) {
        oracle_says(o, "a completion with wr_id %" PRIx64 " and qp %06x that nobody posted",
                    wc->wr_id, wc->qpn);
        return;
    }
    if (o->blind) {
        follow_blindly(o, q, send, number, i, wc->status != HCA_WC_SUCCESS);
        return;
    }
    if (cq != (send ? q->send_cq : q->recv_cq)) {
        oracle_says(o, "h%u qp %06x: a completion on CQ %u", q->host, q->qpn, cq);
        return;
    }
    if (send)
        request_completes(o, q, i, wc, now);
    else
        receive_completes(o, q, o->rq[number], i, wc);
}

/* ---- facts -------------------------------------------------------------------------------------
 */

/* A responder reports a fault of its peer's requests. */
void oracle_event(struct oracle *o, struct oracle_qp *q, enum hca_event_type type)
{
    if (type != HCA_EVENT_QP_ACCESS_ERR && type != HCA_EVENT_QP_REQ_ERR &&
        type != HCA_EVENT_QP_FATAL)
        return;
    const struct oracle_qp *peer = &o->qp[q->peer];
    bool blame = false;
    for (uint32_t i = 0; i < peer->posted; i++) blame = blame || peer->request[i].must_fail;
    for (uint32_t i = 0; i < q->rq->posted; i++) blame = blame || q->rq->receive[i].must_fail;
    if (!blame || q->event_seen)
        oracle_says(o, "h%u qp %06x: event %d %s", q->host, q->qpn, type,
                    blame ? "a second time" : "without a fault of its peer's");
    q->event_seen = true;
    q->failed = true;
}

void oracle_killed(struct oracle *o, struct oracle_qp *q) { q->failed = true; }

void oracle_gone(struct oracle *o, struct oracle_qp *q)
{
    for (; q->head < q->posted; q->head++)
        if (q->request[q->head].state == WORK_POSTED) q->request[q->head].state = WORK_GONE;
    if (!q->rq->shared)
        for (; q->rq->head < q->rq->posted; q->rq->head++)
            if (q->rq->receive[q->rq->head].state == WORK_POSTED)
                q->rq->receive[q->rq->head].state = WORK_GONE;
    q->gone = true;
}

void oracle_reconnected(struct oracle *o, struct oracle_qp *q, when_t now)
{
    const struct oracle_qp *peer = &o->qp[q->peer];
    q->next_arrival = peer->posted;
    q->receives_used = peer->rq->posted;
    q->failed = q->flush_seen = q->requests_flushed = q->event_seen = false;
    q->last_progress = now;
    q->faults = 0;
}

void oracle_fault(struct oracle *o, struct oracle_qp *q, when_t now)
{
    q->last_fault = now;
    q->faults++;
}

void oracle_path(struct oracle *o, struct oracle_qp *q, bool ok, when_t now)
{
    if (ok && !when_is_never(q->path_bad_since)) {
        q->path_bad_since = NEVER;
        q->last_bad = now;
    } else if (!ok && when_is_never(q->path_bad_since)) {
        q->path_bad_since = now;
    }
}
