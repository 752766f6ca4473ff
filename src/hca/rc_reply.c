/* The RC responder's sending half (IBTA 9.7.5): READ data, atomic results, ACKs and NAKs, in the
 * order of the requests they answer. Its receiving half is rc_resp.c.
 *
 * READs, atomics, FLUSHes and ATOMIC WRITEs live in a ring of responder resources. They are
 * answered first, the oldest first; ACK or NAK follows when none has anything left, so that it
 * never overtakes data it would cover. An ACK is made when output is pulled, not when its request
 * came: one then covers all that came in the burst. Duplicates find their resource by PSN; what is
 * no longer remembered is dropped, since a requester that respects our max_dest_rd_atomic cannot
 * still wait for it. */
#include "hca/qp.h"
#include "hca/xrc_calls.h"
#include "wire/opcode.h"

static struct rc_resource *at(const struct rc_resp *r, uint32_t index)
{
    return &r->ring[index % RC_RESOURCES];
}

static bool is_atomic(enum roce_op op) { return op == ROCE_CMP_SWAP || op == ROCE_FETCH_ADD; }

/* ---- what is owed ------------------------------------------------------------------------ */

/* Is it still to be answered for the first time? A replay is not: a requester that goes on has had
 * its answer. */
static bool holds_place(const struct rc_resource *res)
{
    return res->cur < res->end && !res->replay;
}

static uint32_t places_held(const struct rc_resp *r)
{
    uint32_t n = 0;
    for (uint32_t i = r->emit; i != r->tail; i++)
        n += holds_place(at(r, i)) && at(r, i)->op != ROCE_FLUSH;
    return n;
}

/* The requester may have so many out (IBTA 9.7.4.1.4). Ours counts its FLUSHes, Linux's does not:
 * we take them as long as there is room. First answers go out in order, so those that hold a place
 * are the youngest. */
struct rc_resource *rc_reply_new(struct hca_qp *qp, enum roce_op op)
{
    struct rc_resp *r = &qp->rc.resp;
    uint32_t most = op == ROCE_FLUSH ? RC_RESOURCES : qp->attr.max_dest_rd_atomic;
    struct rc_resource *res = at(r, r->tail);
    if (most == 0 || holds_place(res)) return NULL;
    if (most > RC_RESOURCES) most = RC_RESOURCES;
    struct rc_resource *oldest = at(r, r->tail - most);
    if (!holds_place(oldest))
        oldest->cur = oldest->end;
    else if (places_held(r) >= most)
        return NULL;
    if (r->tail - r->emit >= RC_RESOURCES) r->emit = r->tail - RC_RESOURCES + 1;
    r->tail++;
    *res = (struct rc_resource){.op = (uint8_t)op, .fresh = true};
    /* Its response acknowledges what came before it. */
    r->ack_due = false;
    return res;
}

static void answer_again(struct rc_resp *r, uint32_t index, uint32_t from, uint32_t to)
{
    struct rc_resource *res = at(r, index);
    if (res->cur >= res->end) { /* answered before */
        res->replay = true;
        res->cur = from;
        res->end = to;
        res->fresh = true;
    } else {
        if (from < res->cur) {
            res->cur = from;
            res->fresh = true;
        }
        if (to > res->end) res->end = to;
    }
    if ((int32_t)(index - r->emit) < 0) r->emit = index;
}

/* A duplicate READ may ask for a part of what it asked for before, not for more (IBTA 9.7.5.1.2).
 */
static bool within(const struct hca_qp *qp, const struct rc_resource *res, const struct roce_hdr *h,
                   uint32_t from, uint32_t *to)
{
    uint32_t shift = (uint32_t)__builtin_ctz(qp->mtu);
    uint64_t offset = (uint64_t)from << shift;
    if (h->reth.va != res->va + offset || h->reth.len > res->length - offset) return false;
    if (h->reth.len == 0 && res->length) return false;
    bool to_the_end = h->reth.len == res->length - offset;
    if (!to_the_end && h->reth.len % qp->mtu) return false;
    *to = to_the_end ? res->npsn : from + (h->reth.len >> shift);
    return true;
}

void rc_reply_again(struct hca_qp *qp, const struct roce_hdr *h)
{
    struct rc_resp *r = &qp->rc.resp;
    enum roce_op op = roce_op(h->opcode);
    uint64_t va = is_atomic(op) ? h->atomic.va : h->reth.va;
    for (uint32_t i = 1; i <= RC_RESOURCES; i++) {
        struct rc_resource *res = at(r, r->tail - i);
        int32_t from = psn_diff(h->psn, res->psn);
        if (from < 0 || (uint32_t)from >= res->npsn || res->op != op) continue;
        uint32_t to = 1;
        if (op == ROCE_READ_REQUEST) {
            if (!within(qp, res, h, (uint32_t)from, &to)) return;
            res->rkey = h->reth.rkey;
        } else if (va != res->va) {
            return;
        }
        answer_again(r, r->tail - i, (uint32_t)from, to);
        agenda_ready(qp);
        return;
    }
}

void rc_reply_ack(struct hca_qp *qp)
{
    if (!qp->rc.resp.plain_seen) return;
    qp->rc.resp.ack_due = true;
    agenda_ready(qp);
}

void rc_reply_nak(struct hca_qp *qp, uint8_t syndrome)
{
    struct rc_resp *r = &qp->rc.resp;
    r->muted = true;
    r->nak = syndrome;
    r->nak_psn = r->epsn;
    agenda_ready(qp);
}

void rc_reply_fatal(struct hca_qp *qp, uint8_t syndrome, psn_t psn, int event)
{
    struct rc_resp *r = &qp->rc.resp;
    r->dead = true;
    r->event = (int8_t)event;
    r->nak = syndrome;
    r->nak_psn = psn;
    agenda_ready(qp);
}

/* ---- output ------------------------------------------------------------------------------ */

static struct rc_resource *next_resource(struct rc_resp *r)
{
    while (r->emit != r->tail) {
        struct rc_resource *res = at(r, r->emit);
        if (res->cur < res->end) return res;
        r->emit++;
    }
    return NULL;
}

bool rc_reply_owes_read(const struct hca_qp *qp)
{
    const struct rc_resp *r = &qp->rc.resp;
    for (uint32_t i = r->emit; i != r->tail; i++) {
        const struct rc_resource *res = at(r, i);
        if (holds_place(res) && res->op == ROCE_READ_REQUEST) return true;
    }
    return false;
}

static void emit_atomic_result(struct hca_qp *qp, struct rc_resource *res, struct hca_tx *tx)
{
    struct roce_hdr h = {.opcode = ROCE_ATOMIC_ACK, .psn = res->psn};
    h.aeth.syndrome = AETH_ACK;
    h.aeth.msn = qp->rc.resp.msn;
    h.atomic_ack = res->result;
    tx->niov = 0;
    tx->payload_len = 0;
    qp_emit(qp, tx, &h);
    res->cur = res->end;
}

/* Refused: the region has gone since the READ was accepted. */
static enum xrc_data data_of(struct hca_qp *qp, const struct rc_resource *res, uint32_t offset,
                             uint32_t len, uint8_t **from)
{
    *from = NULL;
    if (len == 0) return XRC_DATA_HERE;
    if (res->srqn) return xrc_calls_data(qp, res, from);
    *from = mr_remote_at(qp->hca, res->pd, qp->qpn, res->rkey, res->va + offset, len,
                         HCA_ACCESS_REMOTE_READ);
    return *from ? XRC_DATA_HERE : XRC_DATA_REFUSED;
}

/* The next packet of a READ's data, if that is here; of a FLUSH's or an ATOMIC WRITE's answer,
 * which is that to a READ of nothing. */
static enum xrc_data emit_read_data(struct hca_qp *qp, struct rc_resource *res, struct hca_tx *tx)
{
    uint32_t offset = res->cur << __builtin_ctz(qp->mtu), len = res->length - offset;
    uint8_t *from;
    if (len > qp->mtu) len = qp->mtu;
    enum xrc_data found = data_of(qp, res, offset, len, &from);
    if (found != XRC_DATA_HERE) return found;
    bool last = res->cur + 1 == res->end;
    struct roce_hdr h = {.psn = psn_add(res->psn, res->cur)};
    h.opcode = res->fresh ? last ? ROCE_READ_RESP_ONLY : ROCE_READ_RESP_FIRST
               : last     ? ROCE_READ_RESP_LAST
                          : ROCE_READ_RESP_MIDDLE;
    h.aeth.syndrome = AETH_ACK;
    h.aeth.msn = qp->rc.resp.msn;
    tx->payload[0] = (struct iovec){.iov_base = from, .iov_len = len};
    tx->niov = len ? 1 : 0;
    tx->payload_len = len;
    qp_emit(qp, tx, &h);
    res->fresh = false;
    res->cur++;
    return XRC_DATA_HERE;
}

static void emit_ack(struct hca_qp *qp, struct hca_tx *tx, uint8_t syndrome, psn_t psn)
{
    struct roce_hdr h = {.opcode = ROCE_ACK, .psn = psn};
    h.aeth.syndrome = syndrome;
    h.aeth.msn = qp->rc.resp.msn;
    tx->niov = 0;
    tx->payload_len = 0;
    qp_emit(qp, tx, &h);
}

static void emit_nak(struct hca_qp *qp, struct hca_tx *tx, when_t now)
{
    struct rc_resp *r = &qp->rc.resp;
    emit_ack(qp, tx, r->nak, r->nak_psn);
    r->nak = 0;
    if (psn_diff(r->nak_psn, r->epsn) == 0) r->ack_due = false; /* it acknowledges all before */
    if (!r->dead) return;
    if (r->event >= 0)
        qp_fail_event(qp, (enum hca_event_type)r->event, now);
    else
        qp_fail(qp, now);
}

/* What a READ is of has gone. In the first answer that is the QP's last word. A duplicate may be a
 * ghost, of a READ whose requester has its data and has had the window closed since: who still
 * waits is told, but the QP lives on. */
static void memory_has_gone(struct hca_qp *qp, struct rc_resource *res)
{
    struct rc_resp *r = &qp->rc.resp;
    psn_t psn = psn_add(res->psn, res->cur);
    if (!res->replay) {
        qp->hca->counters.resp_remote_access_errors++;
        rc_reply_fatal(qp, AETH_NAK_REMOTE_ACCESS, psn, HCA_EVENT_QP_ACCESS_ERR);
        r->emit = r->tail;
        return;
    }
    res->cur = res->end;
    if (r->nak) return;
    r->nak = AETH_NAK_REMOTE_ACCESS;
    r->nak_psn = psn;
}

size_t rc_reply_output(struct hca_qp *qp, struct hca_tx *out, size_t max, when_t now)
{
    struct rc_resp *r = &qp->rc.resp;
    struct rc_resource *res;
    size_t n = 0;
    if (qp->state != HCA_QPS_RTR && qp->state != HCA_QPS_RTS && qp->state != HCA_QPS_SQD) return 0;
    while (n < max && (res = next_resource(r))) {
        enum xrc_data found = XRC_DATA_HERE;
        if (is_atomic((enum roce_op)res->op))
            emit_atomic_result(qp, res, &out[n]);
        else
            found = emit_read_data(qp, res, &out[n]);
        if (found == XRC_DATA_AWAITED) return n; /* nothing overtakes it */
        if (found == XRC_DATA_REFUSED)
            memory_has_gone(qp, res);
        else
            n++;
    }
    if (n < max && r->nak) emit_nak(qp, &out[n++], now);
    return n;
}

size_t rc_reply_ack_output(struct hca_qp *qp, struct hca_tx *out)
{
    struct rc_resp *r = &qp->rc.resp;
    if (!r->ack_due || next_resource(r)) return 0;
    if (qp->state != HCA_QPS_RTR && qp->state != HCA_QPS_RTS && qp->state != HCA_QPS_SQD) return 0;
    if (qp->hca->hold_acks) {
        if (list_empty(&qp->held)) list_add_tail(&qp->hca->held, &qp->held);
        return 0;
    }
    emit_ack(qp, out, AETH_ACK, r->plain_psn);
    r->ack_due = false;
    return 1;
}
