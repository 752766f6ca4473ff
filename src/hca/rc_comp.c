/* The RC requester's receiving half (IBTA 9.7.5.2, 9.9.2): what acknowledgements, NAKs, READ and
 * atomic responses say about the WQEs from sq.head on. The sending half is rc_req.c.
 *
 * A response acknowledges all requests before it, but for READs, atomics and their like
 * (rc_is_answered): these need responses of their own, so an answer to a later request shows that
 * theirs was lost, and counts as a NAK for it (IBTA 9.7.5.1.1, implied NAK). */
#include "base/must.h"
#include "hca/qp.h"
#include "wire/opcode.h"

static bool is_atomic(const struct wqe *wqe)
{
    return wqe->wr.opcode == HCA_WR_ATOMIC_CMP_AND_SWP ||
           wqe->wr.opcode == HCA_WR_ATOMIC_FETCH_AND_ADD;
}

/* Of the next `n` PSNs, how many belong to requests that need no data in return, before the first
 * that does? */
static uint32_t plain_run(const struct hca_qp *qp, uint32_t n)
{
    uint32_t run = 0, pkt = qp->rc.req.una_pkt;
    for (uint32_t i = qp->sq.head; run < n && i != qp->sq.next; i++, pkt = 0) {
        const struct wqe *wqe = sq_at(&qp->sq, i);
        if (rc_is_answered(wqe)) break;
        run += wqe->npsn - pkt;
    }
    return run < n ? run : n;
}

/* READ requests whose last response is in are out no more. */
static void retire_reads(struct rc_req *r)
{
    struct rc_reads *reads = &r->reads;
    while (reads->head != reads->tail &&
           psn_diff(reads->end[reads->head % HCA_MAX_RD_ATOMIC], r->una) <= 0) {
        if (reads->cursor == reads->head) reads->cursor++;
        reads->head++;
    }
}

/* Something was acknowledged after a timer's resend, perhaps more than that (`ahead`). */
static void judge(struct hca_qp *qp, bool ahead, when_t now)
{
    struct rc *rc = &qp->rc;
    bool all = psn_diff(rc->req.top, rc->req.una) == 0;
    switch (rc_doubt_answered(&rc->doubt, all, ahead, rc_timer_least_rtt(&rc->timer), now)) {
    case RC_DOUBT_NONE:
    case RC_DOUBT_STANDS: break;
    case RC_DOUBT_ALL_THERE: window_probe_over(&rc->window); break;
    case RC_DOUBT_UNFOUNDED:
        window_probe_over(&rc->window);
        rc_req_resume(qp);
        rc_timer_was_hasty(&rc->timer);
        break;
    case RC_DOUBT_FOUNDED:
        window_probe_over(&rc->window);
        window_cut(&rc->window, rc->req.una, rc->req.top);
        break;
    }
}

/* The next `n` PSNs are acknowledged: completes the WQEs that end there. */
static void advance(struct hca_qp *qp, uint32_t n, when_t now)
{
    struct rc_req *r = &qp->rc.req;
    struct sq *sq = &qp->sq;
    uint32_t cost = 0;
    r->una = psn_add(r->una, n);
    while (n) {
        must(sq->head != sq->next);
        const struct wqe *wqe = sq_at(sq, sq->head);
        uint32_t left = wqe->npsn - r->una_pkt, k = left < n ? left : n;
        cost += rc_cost(qp, wqe->length, r->una_pkt, k);
        r->una_pkt += k;
        n -= k;
        if (k < left) break;
        r->una_pkt = 0;
        if (rc_is_answered(wqe)) r->reads_open--;
        wqe_complete(qp, HCA_WC_SUCCESS, now);
        rc_req_complete_local(qp, now);
    }
    retire_reads(r);
    bool ahead = psn_diff(r->next, r->una) < 0;
    if (ahead) { /* acknowledged ahead of its resend */
        r->next = r->una;
        r->send_index = sq->head;
        r->send_pkt = r->una_pkt;
    }
    r->gap_handled = false;
    window_acked(qp->hca, &qp->rc.window, cost);
    window_ack_seen(&qp->rc.window, r->una);
    rc_timer_ack_seen(&qp->rc.timer, r->una, rc_req_waits(qp), now);
    judge(qp, ahead, now);
    qp_ack_seen(qp, now);
    if (qp->state == HCA_QPS_SQD && sq->head == sq->next) qp_sq_drained(qp);
    if (r->send_index != sq->tail) agenda_ready(qp);
}

/* A NAK says what is to be resent: no doubt is left. */
static void answered(struct hca_qp *qp)
{
    rc_doubt_over(&qp->rc.doubt);
    window_probe_over(&qp->rc.window);
}

/* What una names was lost on its way there or back: once for each una, since what is still under
 * way from before the rewind shows the same gap again. */
static void gap(struct hca_qp *qp, uint64_t *counter)
{
    struct rc_req *r = &qp->rc.req;
    if (r->gap_handled) return;
    r->gap_handled = true;
    ++*counter;
    answered(qp);
    window_cut(&qp->rc.window, r->una, r->top);
    rc_req_rewind(qp);
    agenda_ready(qp);
}

/* All before the `n`th PSN from una is acknowledged. False: one among it has had no answer of its
 * own. */
static bool acknowledge(struct hca_qp *qp, uint32_t n, when_t now)
{
    uint32_t run = plain_run(qp, n);
    if (run) advance(qp, run, now);
    if (run == n) return true;
    gap(qp, &qp->hca->counters.implied_nak_seq_err);
    return false;
}

static void on_rnr(struct hca_qp *qp, uint8_t code, when_t now)
{
    if (rc_timer_in_rnr(&qp->rc.timer)) return; /* a duplicate */
    qp->hca->counters.rnr_nak_received++;
    if (!rc_timer_rnr_seen(&qp->rc.timer, code, now)) {
        rc_req_fail(qp, HCA_WC_RNR_RETRY_EXC_ERR, now);
        return;
    }
    answered(qp);
    rc_req_rewind(qp);
}

static void on_nak(struct hca_qp *qp, uint8_t syndrome, when_t now)
{
    switch (syndrome) {
    case AETH_NAK_PSN_SEQUENCE: gap(qp, &qp->hca->counters.packet_seq_err); return;
    case AETH_NAK_INVALID_REQUEST:
        qp->hca->counters.req_remote_invalid_request++;
        rc_req_fail(qp, HCA_WC_REM_INV_REQ_ERR, now);
        return;
    case AETH_NAK_REMOTE_ACCESS:
        qp->hca->counters.req_remote_access_errors++;
        rc_req_fail(qp, HCA_WC_REM_ACCESS_ERR, now);
        return;
    case AETH_NAK_REMOTE_OPERATION: rc_req_fail(qp, HCA_WC_REM_OP_ERR, now); return;
    default: qp->hca->counters.rx_dropped++; return; /* reserved codes */
    }
}

/* An ACK names the last PSN it covers; a NAK the first that it does not. */
static void on_ack(struct hca_qp *qp, uint8_t syndrome, uint32_t at, when_t now)
{
    switch (syndrome >> 5) {
    case AETH_ACK >> 5: acknowledge(qp, at + 1, now); return;
    case AETH_RNR_NAK >> 5:
        if (acknowledge(qp, at, now)) on_rnr(qp, syndrome & 31, now);
        return;
    case AETH_NAK_PSN_SEQUENCE >> 5:
        if (acknowledge(qp, at, now)) on_nak(qp, syndrome, now);
        return;
    default: qp->hca->counters.rx_dropped++; return;
    }
}

/* FLUSH and ATOMIC WRITE are answered by the response of a READ of nothing (annex A19). */
static void on_read_response(struct hca_qp *qp, const uint8_t *payload, size_t len, when_t now)
{
    struct rc_req *r = &qp->rc.req;
    const struct wqe *wqe = sq_at(&qp->sq, qp->sq.head);
    bool read = wqe->wr.opcode == HCA_WR_RDMA_READ;
    if (!rc_is_answered(wqe) || is_atomic(wqe)) {
        qp->hca->counters.rx_dropped++;
        return;
    }
    if (len != (read ? rc_payload(qp, wqe->length, r->una_pkt, 1) : 0)) {
        rc_req_fail(qp, HCA_WC_BAD_RESP_ERR, now);
        return;
    }
    uint32_t offset = r->una_pkt << __builtin_ctz(qp->mtu);
    int bad = len ? wqe_scatter(qp, wqe, offset, payload, (uint32_t)len) : 0;
    if (bad)
        rc_req_fail(qp, (enum hca_wc_status) - bad, now);
    else
        advance(qp, 1, now);
}

static void on_atomic_response(struct hca_qp *qp, uint64_t value, when_t now)
{
    const struct wqe *wqe = sq_at(&qp->sq, qp->sq.head);
    if (!is_atomic(wqe)) {
        qp->hca->counters.rx_dropped++;
        return;
    }
    int bad = wqe_scatter(qp, wqe, 0, &value, sizeof value);
    if (bad)
        rc_req_fail(qp, (enum hca_wc_status) - bad, now);
    else
        advance(qp, 1, now);
}

void rc_comp_input(struct hca_qp *qp, const struct roce_hdr *h, const uint8_t *payload, size_t len,
                   when_t now)
{
    struct rc_req *r = &qp->rc.req;
    int32_t at = psn_diff(h->psn, r->una);
    if (at < 0) rc_timer_was_hasty(&qp->rc.timer);       /* a request was there twice */
    if (at < 0 || psn_diff(h->psn, r->top) >= 0) return; /* a duplicate, or a ghost */
    switch (roce_op(h->opcode)) {
    case ROCE_ACK: on_ack(qp, h->aeth.syndrome, (uint32_t)at, now); return;
    case ROCE_ATOMIC_ACK:
        if (acknowledge(qp, (uint32_t)at, now)) on_atomic_response(qp, h->atomic_ack, now);
        return;
    default:
        if (acknowledge(qp, (uint32_t)at, now)) on_read_response(qp, payload, len, now);
        return;
    }
}
