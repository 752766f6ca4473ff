/* The RC responder's receiving half (IBTA 9.7.4): checks each request in the standard's order and
 * executes it. What it owes in return goes through rc_reply.c.
 *
 * A check's verdict is the AETH syndrome that answers it. After a NAK, what follows is dropped
 * without a word until the expected PSN comes (9.7.5.2.8: one NAK for a gap); a NAK other than for
 * sequence or RNR is the QP's last word. Nothing arrives in memory before its message has passed
 * all checks, and no completion is written before its data. */
#include "hca/qp.h"
#include "hca/xrc_calls.h"
#include "wire/opcode.h"

/* Requests with responses of their own. */
#define OP_ANSWERED (OP_READ_REQ | OP_ATOMIC_REQ | OP_FLUSH_REQ | OP_ATOMIC_WRITE_REQ)

/* ---- refusal ----------------------------------------------------------------------------- */

/* The message's receive WQE fails on our side (IBTA 9.9.3.1, classes E and F): no event then. */
static void fail_recv(struct hca_qp *qp, enum hca_wc_status status, when_t now)
{
    struct rc_resp *r = &qp->rc.resp;
    bool too_long = status == HCA_WC_LOC_LEN_ERR;
    if (too_long) qp->hca->counters.resp_local_length_error++;
    r->have_rwqe = false;
    rwqe_fail(qp, &r->rwqe, status, now);
    rc_reply_fatal(qp, too_long ? AETH_NAK_INVALID_REQUEST : AETH_NAK_REMOTE_OPERATION, r->epsn,
                   -1);
}

void rc_resp_refuse(struct hca_qp *qp, uint8_t syndrome)
{
    struct rc_resp *r = &qp->rc.resp;
    switch (syndrome) {
    case AETH_NAK_PSN_SEQUENCE: rc_reply_nak(qp, syndrome); return;
    case AETH_RNR_NAK:
        qp->hca->counters.rnr_nak_sent++;
        rc_reply_nak(qp, AETH_RNR_NAK | (qp->attr.min_rnr_timer & 31));
        return;
    case AETH_NAK_REMOTE_ACCESS:
        qp->hca->counters.resp_remote_access_errors++;
        rc_reply_fatal(qp, syndrome, r->epsn, HCA_EVENT_QP_ACCESS_ERR);
        return;
    default: rc_reply_fatal(qp, syndrome, r->epsn, HCA_EVENT_QP_REQ_ERR); return;
    }
}

/* ---- checks ------------------------------------------------------------------------------ */

/* An XRC request names its SRQ, which must be there and of the target's domain; a message stays
 * with the one that it began with (annex A14). */
static uint8_t check_srq(struct hca_qp *qp, const struct roce_hdr *h)
{
    if (qp->type != HCA_QPT_XRC_RECV) return AETH_ACK;
    struct hca_srq *srq = srq_find(qp->hca, h->xrc_srqn);
    if (!srq || srq->xrcd != qp->xrcd) return AETH_NAK_INVALID_REQUEST;
    if (qp->rc.resp.message != RC_NO_MESSAGE && srq != qp->srq) return AETH_NAK_INVALID_REQUEST;
    if (srq->failed) return AETH_NAK_REMOTE_OPERATION;
    qp->srq = srq;
    return AETH_ACK;
}

/* What a FLUSH to such a placement needs of the QP and of the region (annex A19). */
static uint32_t flush_rights(const struct roce_hdr *h)
{
    uint32_t rights = 0;
    if (h->feth.placement & HCA_FLUSH_GLOBAL) rights |= HCA_ACCESS_FLUSH_GLOBAL;
    if (h->feth.placement & HCA_FLUSH_PERSISTENT) rights |= HCA_ACCESS_FLUSH_PERSISTENT;
    return rights;
}

/* IBTA 9.7.4.1.2 and 9.7.4.1.5: what may follow what, and what this QP allows. */
static uint8_t check_opcode(const struct hca_qp *qp, const struct roce_hdr *h, uint32_t props)
{
    const struct rc_resp *r = &qp->rc.resp;
    enum rc_message kind = props & OP_SEND    ? RC_IN_SEND
                           : props & OP_WRITE ? RC_IN_WRITE
                                              : RC_NO_MESSAGE;
    bool starts = kind == RC_NO_MESSAGE || (props & OP_FIRST);
    uint32_t needs = 0;
    if (r->message != (starts ? RC_NO_MESSAGE : kind)) return AETH_NAK_INVALID_REQUEST;
    if (props & (OP_WRITE | OP_ATOMIC_WRITE_REQ)) needs = HCA_ACCESS_REMOTE_WRITE;
    if (props & OP_READ_REQ) needs = HCA_ACCESS_REMOTE_READ;
    if (props & OP_ATOMIC_REQ) needs = HCA_ACCESS_REMOTE_ATOMIC;
    if (props & OP_FLUSH_REQ) needs = flush_rights(h);
    return (qp->attr.access & needs) == needs ? AETH_ACK : AETH_NAK_INVALID_REQUEST;
}

/* IBTA 9.7.4.1.6: FIRST and MIDDLE are full, LAST is not empty, and a WRITE is as long as its RETH
 * promised. */
static uint8_t check_length(const struct hca_qp *qp, const struct roce_hdr *h, uint32_t props,
                            size_t len)
{
    const struct rc_resp *r = &qp->rc.resp;
    bool first = props & OP_FIRST, last = props & OP_LAST;
    if (!(props & OP_PAYLOAD)) return len ? AETH_NAK_INVALID_REQUEST : AETH_ACK;
    if ((props & OP_ATOMIC_WRITE_REQ) && len != 8) return AETH_NAK_INVALID_REQUEST;
    if (len > qp->mtu || (!last && len != qp->mtu) || (last && !first && len == 0))
        return AETH_NAK_INVALID_REQUEST;
    if (props & OP_SEND) {
        uint32_t before = first ? 0 : r->offset;
        return before + (uint64_t)len <= HCA_MAX_MSG ? AETH_ACK : AETH_NAK_INVALID_REQUEST;
    }
    uint32_t left = first ? h->reth.len : r->length - r->offset;
    if (left > HCA_MAX_MSG || (last ? len != left : len >= left)) return AETH_NAK_INVALID_REQUEST;
    return AETH_ACK;
}

/* A whole region, or nothing of it, has only its key to check. */
static uint8_t check_flush(const struct hca_qp *qp, const struct roce_hdr *h)
{
    const uint32_t pd = qp_remote_pd(qp), rights = flush_rights(h);
    const uint32_t known = HCA_FLUSH_GLOBAL | HCA_FLUSH_PERSISTENT;
    if (!rights || (h->feth.placement & ~known) || h->feth.selectivity > HCA_FLUSH_MR ||
        h->reth.len > HCA_MAX_MSG)
        return AETH_NAK_INVALID_REQUEST;
    bool granted =
        h->feth.selectivity == HCA_FLUSH_MR || h->reth.len == 0
            ? mr_remote_has(qp->hca, pd, qp->qpn, h->reth.rkey, rights)
            : mr_remote_grants(qp->hca, pd, qp->qpn, h->reth.rkey, h->reth.va, h->reth.len, rights);
    return granted ? AETH_ACK : AETH_NAK_REMOTE_ACCESS;
}

/* IBTA 9.7.4.1.7: key, range and rights; a zero length has no key to check. */
static uint8_t check_memory(const struct hca_qp *qp, const struct roce_hdr *h, uint32_t props)
{
    const uint32_t pd = qp_remote_pd(qp);
    if (props & OP_ATOMIC_REQ) {
        if (h->atomic.va & 7) return AETH_NAK_INVALID_REQUEST;
        return mr_remote_grants(qp->hca, pd, qp->qpn, h->atomic.rkey, h->atomic.va, 8,
                                HCA_ACCESS_REMOTE_ATOMIC)
                   ? AETH_ACK
                   : AETH_NAK_REMOTE_ACCESS;
    }
    if (props & OP_FLUSH_REQ) return check_flush(qp, h);
    if (!(props & OP_RETH) || h->reth.len == 0) return AETH_ACK;
    if ((props & OP_ATOMIC_WRITE_REQ) && (h->reth.va & 7)) return AETH_NAK_INVALID_REQUEST;
    if (h->reth.len > HCA_MAX_MSG) return AETH_NAK_INVALID_REQUEST;
    uint32_t right = props & OP_READ_REQ ? HCA_ACCESS_REMOTE_READ : HCA_ACCESS_REMOTE_WRITE;
    return mr_remote_grants(qp->hca, pd, qp->qpn, h->reth.rkey, h->reth.va, h->reth.len, right)
               ? AETH_ACK
               : AETH_NAK_REMOTE_ACCESS;
}

/* A SEND takes its receive WQE with its first packet, a WRITE with immediate with its last. */
static uint8_t take_recv(struct hca_qp *qp, uint32_t props)
{
    struct rc_resp *r = &qp->rc.resp;
    bool wanted = props & OP_SEND ? props & OP_FIRST : props & OP_WRITE && props & OP_IMM;
    if (!wanted || r->have_rwqe) return AETH_ACK;
    r->have_rwqe = qp_take_recv(qp, &r->rwqe);
    return r->have_rwqe ? AETH_ACK : AETH_RNR_NAK;
}

/* A SEND that takes a window back must not overtake a READ through it that was accepted before: it
 * is to come again, when the answer is out. */
static uint8_t check_order(const struct hca_qp *qp, uint32_t props)
{
    return (props & OP_IETH) && rc_reply_owes_read(qp) ? AETH_NAK_PSN_SEQUENCE : AETH_ACK;
}

static uint8_t check(struct hca_qp *qp, const struct roce_hdr *h, uint32_t props, size_t len)
{
    uint8_t verdict = check_srq(qp, h);
    if (verdict == AETH_ACK) verdict = check_opcode(qp, h, props);
    if (verdict == AETH_ACK) verdict = check_length(qp, h, props, len);
    if (verdict == AETH_ACK) verdict = check_memory(qp, h, props);
    if (verdict == AETH_ACK) verdict = check_order(qp, props);
    if (verdict == AETH_ACK) verdict = take_recv(qp, props);
    return verdict;
}

/* ---- execution --------------------------------------------------------------------------- */

/* Programs that poll on the last byte or word of a WRITE expect it to appear last. */
static void write_memory(uint8_t *to, const uint8_t *from, size_t len)
{
    if (len >= 8 && ((uintptr_t)(to + len) & 7) == 0) {
        uint64_t tail;
        memcpy(&tail, from + len - 8, 8);
        memcpy(to, from, len - 8);
        __atomic_store_n((uint64_t *)(to + len - 8), tail, __ATOMIC_RELEASE);
    } else {
        memcpy(to, from, len - 1);
        __atomic_store_n(to + len - 1, from[len - 1], __ATOMIC_RELEASE);
    }
}

static void complete_recv(struct hca_qp *qp, const struct roce_hdr *h, uint32_t props, when_t now)
{
    struct rc_resp *r = &qp->rc.resp;
    struct hca_wc wc = {.wr_id = r->rwqe.wr_id, .status = HCA_WC_SUCCESS, .byte_len = r->offset};
    wc.opcode = props & OP_SEND ? HCA_WC_RECV : HCA_WC_RECV_RDMA_WITH_IMM;
    wc.qpn = qp->qpn;
    wc.src_qpn = qp->attr.dest_qpn;
    wc.stamp_ns = now.ns;
    if (props & OP_IMM) {
        wc.flags |= HCA_WC_WITH_IMM;
        wc.imm_be = h->imm_be;
    }
    if (props & OP_IETH) {
        wc.flags |= HCA_WC_WITH_INV;
        wc.inv_rkey = h->ieth_rkey;
    }
    r->have_rwqe = false;
    cq_push(qp_recv_cq(qp), &wc, h->solicited, now);
}

/* The packet at epsn is executed; it took `n` PSNs. */
static void executed(struct hca_qp *qp, uint32_t n, bool ends_message)
{
    struct rc_resp *r = &qp->rc.resp;
    r->epsn = psn_add(r->epsn, n);
    r->muted = false;
    if (ends_message) r->msn = (r->msn + 1) & 0xffffff;
}

static void plain_executed(struct hca_qp *qp, const struct roce_hdr *h, uint32_t props, when_t now)
{
    struct rc_resp *r = &qp->rc.resp;
    bool last = props & OP_LAST;
    r->plain_psn = r->epsn;
    r->plain_seen = true;
    executed(qp, 1, last);
    if (last) {
        r->message = RC_NO_MESSAGE;
        if (r->have_rwqe) complete_recv(qp, h, props, now);
    }
    if (h->ackreq) rc_reply_ack(qp);
}

static void do_send(struct hca_qp *qp, const struct roce_hdr *h, uint32_t props,
                    const uint8_t *payload, size_t len, when_t now)
{
    struct rc_resp *r = &qp->rc.resp;
    if (props & OP_FIRST) {
        r->message = RC_IN_SEND;
        r->offset = 0;
    }
    if (len) {
        int bad = rwqe_scatter(qp, &r->rwqe, r->offset, payload, (uint32_t)len);
        if (bad) {
            fail_recv(qp, (enum hca_wc_status) - bad, now);
            return;
        }
    }
    r->offset += (uint32_t)len;
    if ((props & OP_IETH) && !mw_invalidate(qp, h->ieth_rkey)) {
        rc_resp_refuse(qp, AETH_NAK_REMOTE_ACCESS);
        return;
    }
    plain_executed(qp, h, props, now);
}

static void do_write(struct hca_qp *qp, const struct roce_hdr *h, uint32_t props,
                     const uint8_t *payload, size_t len, when_t now)
{
    struct rc_resp *r = &qp->rc.resp;
    if (props & OP_FIRST) {
        r->message = RC_IN_WRITE;
        r->offset = 0;
        r->va = h->reth.va;
        r->rkey = h->reth.rkey;
        r->length = h->reth.len;
    }
    if (len) {
        /* Each packet anew: the region may have gone since the first. */
        uint8_t *to = mr_remote_at(qp->hca, qp_remote_pd(qp), qp->qpn, r->rkey, r->va + r->offset,
                                   len, HCA_ACCESS_REMOTE_WRITE);
        if (!to) {
            rc_resp_refuse(qp, AETH_NAK_REMOTE_ACCESS);
            return;
        }
        write_memory(to, payload, len);
    }
    r->offset += (uint32_t)len;
    plain_executed(qp, h, props, now);
}

/* The request is the responder's to answer, with `n` packets, and to remember. NULL: refused, since
 * there are too many. */
static struct rc_resource *remember(struct hca_qp *qp, const struct roce_hdr *h, uint64_t va,
                                    uint32_t n)
{
    struct rc_resource *res = rc_reply_new(qp, roce_op(h->opcode));
    if (!res) {
        rc_resp_refuse(qp, AETH_NAK_INVALID_REQUEST);
        return NULL;
    }
    res->psn = h->psn;
    res->npsn = res->end = n;
    res->va = va;
    executed(qp, n, true);
    agenda_ready(qp);
    return res;
}

/* Of memory of `pd`, or of another function, whose SRQ `srqn` is. */
static void remember_read(struct hca_qp *qp, const struct roce_hdr *h, uint32_t pd, uint32_t srqn)
{
    uint32_t mtu = qp->mtu, len = h->reth.len;
    uint32_t n = len ? (uint32_t)(((uint64_t)len + mtu - 1) >> __builtin_ctz(mtu)) : 1;
    struct rc_resource *res = remember(qp, h, h->reth.va, n);
    if (!res) return;
    res->pd = pd;
    res->srqn = srqn;
    res->rkey = h->reth.rkey;
    res->length = len;
}

static void do_read(struct hca_qp *qp, const struct roce_hdr *h)
{
    remember_read(qp, h, qp_remote_pd(qp), 0);
}

/* NULL: refused. Not there: a page on demand. Not aligned: behind an odd iova. */
static uint64_t *word_at(struct hca_qp *qp, uint32_t rkey, uint64_t va, uint32_t access)
{
    uint64_t *word = (uint64_t *)(void *)mr_remote_at(qp->hca, qp_remote_pd(qp), qp->qpn, rkey, va,
                                                      sizeof *word, access);
    if (word && ((uintptr_t)word & 7) == 0) return word;
    rc_resp_refuse(qp, word ? AETH_NAK_INVALID_REQUEST : AETH_NAK_REMOTE_ACCESS);
    return NULL;
}

static void do_atomic(struct hca_qp *qp, const struct roce_hdr *h)
{
    uint64_t *word = word_at(qp, h->atomic.rkey, h->atomic.va, HCA_ACCESS_REMOTE_ATOMIC);
    struct rc_resource *res = word ? remember(qp, h, h->atomic.va, 1) : NULL;
    if (!res) return;
    res->result = h->atomic.compare;
    if (roce_op(h->opcode) == ROCE_FETCH_ADD)
        res->result = __atomic_fetch_add(word, h->atomic.swap_add, __ATOMIC_SEQ_CST);
    else
        __atomic_compare_exchange_n(word, &res->result, h->atomic.swap_add, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
}

static void do_atomic_write(struct hca_qp *qp, const struct roce_hdr *h, const uint8_t *payload)
{
    uint64_t *word = word_at(qp, h->reth.rkey, h->reth.va, HCA_ACCESS_REMOTE_WRITE), value;
    if (!word || !remember(qp, h, h->reth.va, 1)) return;
    memcpy(&value, payload, sizeof value);
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* Requests are executed one after the other, by stores that every processor sees: what came before
 * is globally visible when this fence has passed, in the range and outside of it. */
static void do_flush(struct hca_qp *qp, const struct roce_hdr *h)
{
    if (remember(qp, h, h->reth.va, 1)) __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void rc_resp_executed_elsewhere(struct hca_qp *qp, const struct roce_hdr *h, uint64_t result,
                                when_t now)
{
    uint32_t props = roce_opcode(h->opcode)->props;
    qp->srq = NULL; /* it is not the one of a message under way */
    if (props & OP_READ_REQ) {
        remember_read(qp, h, 0, h->xrc_srqn);
    } else if (props & OP_ANSWERED) {
        uint64_t va = props & OP_ATOMIC_REQ ? h->atomic.va : h->reth.va;
        struct rc_resource *res = remember(qp, h, va, 1);
        if (res) res->result = result;
    } else {
        if (props & OP_FIRST) qp->rc.resp.message = props & OP_SEND ? RC_IN_SEND : RC_IN_WRITE;
        plain_executed(qp, h, props, now);
    }
}

/* ---- by PSN ------------------------------------------------------------------------------ */

void rc_resp_start(struct rc_resp *r, psn_t first)
{
    struct rc_resource *ring = r->ring;
    struct xrc_calls *calls = r->calls;
    *r = (struct rc_resp){.epsn = first, .event = -1};
    r->ring = ring;
    r->calls = calls;
    if (ring) memset(ring, 0, RC_RESOURCES * sizeof *ring);
}

void rc_resp_stop(struct hca_qp *qp, when_t now)
{
    struct rc_resp *r = &qp->rc.resp;
    if (r->have_rwqe) rwqe_fail(qp, &r->rwqe, HCA_WC_WR_FLUSH_ERR, now);
    r->have_rwqe = r->ack_due = false;
    r->nak = 0;
    r->message = RC_NO_MESSAGE;
    r->emit = r->tail;
    xrc_calls_stop(qp, true);
}

void rc_resp_srq_gone(struct hca_qp *qp, const struct hca_srq *srq)
{
    if (qp->type != HCA_QPT_XRC_RECV || qp->srq != srq) return;
    qp->rc.resp.have_rwqe = false;
    qp->srq = NULL;
}

void rc_resp_execute(struct hca_qp *qp, const struct roce_hdr *h, const uint8_t *payload,
                     size_t len, when_t now)
{
    uint32_t props = roce_opcode(h->opcode)->props;
    uint8_t verdict = check(qp, h, props, len);
    if (verdict != AETH_ACK)
        rc_resp_refuse(qp, verdict);
    else if (props & OP_SEND)
        do_send(qp, h, props, payload, len, now);
    else if (props & OP_WRITE)
        do_write(qp, h, props, payload, len, now);
    else if (props & OP_READ_REQ)
        do_read(qp, h);
    else if (props & OP_ATOMIC_REQ)
        do_atomic(qp, h);
    else if (props & OP_ATOMIC_WRITE_REQ)
        do_atomic_write(qp, h, payload);
    else
        do_flush(qp, h);
}

void rc_resp_input(struct hca_qp *qp, uint8_t via, const struct roce_hdr *h, const uint8_t *payload,
                   size_t len, when_t now)
{
    struct rc_resp *r = &qp->rc.resp;
    uint32_t props = roce_opcode(h->opcode)->props;
    int32_t ahead = psn_diff(h->psn, r->epsn);
    if (r->dead) return;
    if (r->calls && xrc_calls_input(qp, h, payload, len, now)) return;
    if (ahead > 0) {
        if (r->muted) return;
        qp->hca->counters.out_of_sequence++;
        rc_reply_nak(qp, AETH_NAK_PSN_SEQUENCE);
        return;
    }
    if (ahead < 0) {
        qp->hca->counters.duplicate_request++;
        detour_follow(qp, via, h->psn, now);
        if (props & OP_ANSWERED)
            rc_reply_again(qp, h);
        else
            rc_reply_ack(qp);
        return;
    }
    rc_resp_execute(qp, h, payload, len, now);
}
