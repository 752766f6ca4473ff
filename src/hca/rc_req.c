/* The RC requester's sending half (IBTA 9.7.3): starts WQEs, cuts them into packets of the path
 * MTU, and goes back to the oldest unacknowledged PSN when told to. Its receiving half is
 * rc_comp.c.
 *
 * READ too is under the byte window, because its responses end in our own receive buffer. A READ is
 * therefore asked for in pieces, each a request of its own with the PSNs that follow the last
 * one's: a quarter of the window where four requests may be out (max_rd_atomic), half of it where
 * two may, all of it where only one. So the pieces together fill the window, one is always on its
 * way while another arrives, and there are few enough of them that a request a piece costs nothing.
 */
#include "base/must.h"
#include "hca/qp.h"
#include "wire/opcode.h"

enum { BTH_ACKREQ_BYTE = 8, BTH_ACKREQ_BIT = 0x80 }; /* IBTA 9.2 */

/* ---- sizes ------------------------------------------------------------------------------- */

static uint32_t mtu_shift(const struct hca_qp *qp) { return (uint32_t)__builtin_ctz(qp->mtu); }

static uint32_t packets(const struct hca_qp *qp, uint32_t length)
{
    return length ? (uint32_t)(((uint64_t)length + qp->mtu - 1) >> mtu_shift(qp)) : 1;
}

uint32_t rc_payload(const struct hca_qp *qp, uint32_t length, uint32_t first, uint32_t n)
{
    uint64_t from = (uint64_t)first << mtu_shift(qp), to = (uint64_t)(first + n) << mtu_shift(qp);
    if (from > length) from = length;
    if (to > length) to = length;
    return (uint32_t)(to - from);
}

uint32_t rc_cost(const struct hca_qp *qp, uint32_t length, uint32_t first, uint32_t n)
{
    return rc_payload(qp, length, first, n) + n * WINDOW_PACKET_OVERHEAD;
}

bool rc_is_answered(const struct wqe *wqe)
{
    const uint32_t answered = 1u << HCA_WR_RDMA_READ | 1u << HCA_WR_ATOMIC_CMP_AND_SWP |
                              1u << HCA_WR_ATOMIC_FETCH_AND_ADD | 1u << HCA_WR_FLUSH |
                              1u << HCA_WR_ATOMIC_WRITE;
    return answered >> wqe->wr.opcode & 1;
}

/* ---- one packet -------------------------------------------------------------------------- */

/* `n` PSNs from `next` on have gone out. */
static void step(struct hca_qp *qp, const struct wqe *wqe, uint32_t n, uint32_t cost)
{
    struct rc_req *r = &qp->rc.req;
    if (psn_diff(r->next, r->top) < 0) {
        qp->hca->counters.tx_retransmits++;
        qp->hca->members[qp->member].retransmits++;
        qp->view.retransmits++;
        rc_timer_resent(&qp->rc.timer, r->next, n);
    }
    r->next = psn_add(r->next, n);
    if (psn_diff(r->next, r->top) > 0) r->top = r->next;
    must(psn_diff(r->top, r->una) <= RC_MAX_UNACKED);
    r->send_pkt += n;
    if (r->send_pkt == wqe->npsn) {
        r->send_pkt = 0;
        /* A resend does not come to local ones: they are executed already. */
        do r->send_index++;
        while (r->send_index != qp->sq.next && wqe_is_local(sq_at(&qp->sq, r->send_index)));
    }
    window_sent(qp->hca, &qp->rc.window, cost);
}

static uint8_t request_opcode(enum hca_wr_opcode op, bool first, bool last)
{
    bool write = op == HCA_WR_RDMA_WRITE || op == HCA_WR_RDMA_WRITE_WITH_IMM;
    if (!last) {
        if (write) return first ? ROCE_WRITE_FIRST : ROCE_WRITE_MIDDLE;
        return first ? ROCE_SEND_FIRST : ROCE_SEND_MIDDLE;
    }
    switch (op) {
    case HCA_WR_RDMA_WRITE: return first ? ROCE_WRITE_ONLY : ROCE_WRITE_LAST;
    case HCA_WR_RDMA_WRITE_WITH_IMM: return first ? ROCE_WRITE_ONLY_IMM : ROCE_WRITE_LAST_IMM;
    case HCA_WR_SEND_WITH_IMM: return first ? ROCE_SEND_ONLY_IMM : ROCE_SEND_LAST_IMM;
    case HCA_WR_SEND_WITH_INV: return first ? ROCE_SEND_ONLY_INV : ROCE_SEND_LAST_INV;
    default: return first ? ROCE_SEND_ONLY : ROCE_SEND_LAST;
    }
}

/* AckReq: with a message's end, four times a window, and with the last packet of a burst, since its
 * successor may find the window full, or that other QPs have taken the room. */
static bool wants_ack(struct hca_qp *qp, bool last, uint32_t cost)
{
    struct rc_req *r = &qp->rc.req;
    r->unasked += cost;
    if (!last && r->unasked < qp->rc.window.size / 4) return false;
    r->unasked = 0;
    return true;
}

static void ask_with_last(struct rc_req *r, struct hca_tx *last)
{
    if (!r->unasked) return;
    last->hdr[BTH_ACKREQ_BYTE] |= BTH_ACKREQ_BIT;
    r->unasked = 0;
}

static void time_it(struct hca_qp *qp, when_t now)
{
    const struct rc_req *r = &qp->rc.req;
    if (psn_diff(r->next, r->top) >= 0) rc_timer_sent(&qp->rc.timer, r->next, now);
}

/* A fault of our own at the WQE to be sent: its elders complete first (IBTA 9.9.2.1). */
static bool fault(struct hca_qp *qp, enum hca_wc_status status, when_t now)
{
    if (qp->rc.req.send_index == qp->sq.head) rc_req_fail(qp, status, now);
    return false;
}

static bool emit_plain(struct hca_qp *qp, struct wqe *wqe, struct hca_tx *tx, when_t now)
{
    struct rc_req *r = &qp->rc.req;
    const struct hca_send_wr *wr = &wqe->wr;
    uint32_t pkt = r->send_pkt, len = rc_payload(qp, wqe->length, pkt, 1);
    uint32_t cost = len + WINDOW_PACKET_OVERHEAD;
    if (!window_admit(qp->hca, &qp->rc.window, cost)) return false;
    int niov = len ? wqe_gather(qp, wqe, pkt << mtu_shift(qp), len, tx->payload) : 0;
    if (niov < 0) return fault(qp, (enum hca_wc_status) - niov, now);
    tx->niov = (uint8_t)niov;
    tx->payload_len = len;
    bool first = pkt == 0, last = pkt + 1 == wqe->npsn;
    struct roce_hdr h = {.opcode = request_opcode(wr->opcode, first, last), .psn = r->next};
    h.ackreq = wants_ack(qp, last, cost);
    h.solicited = last && (wr->flags & HCA_SEND_SOLICITED) && wr->opcode != HCA_WR_RDMA_WRITE;
    h.imm_be = wr->imm_be;
    h.ieth_rkey = wr->inv_rkey;
    h.xrc_srqn = wr->xrc_srqn;
    h.reth.va = wr->remote_addr;
    h.reth.rkey = wr->rkey;
    h.reth.len = wqe->length;
    qp_emit(qp, tx, &h);
    if (h.ackreq) time_it(qp, now);
    step(qp, wqe, 1, cost);
    return true;
}

static uint32_t reads_allowed(const struct hca_qp *qp)
{
    uint32_t n = qp->attr.max_rd_atomic;
    return n < HCA_MAX_RD_ATOMIC ? n : HCA_MAX_RD_ATOMIC;
}

static bool may_ask(const struct hca_qp *qp)
{
    const struct rc_reads *reads = &qp->rc.req.reads;
    return reads->cursor - reads->head < reads_allowed(qp);
}

/* How many responses the READ request at `next` asks for; 0: none may be asked for now. */
static uint32_t read_piece(struct hca_qp *qp, const struct wqe *wqe)
{
    struct rc_req *r = &qp->rc.req;
    const struct rc_reads *reads = &r->reads;
    const struct window *w = &qp->rc.window;
    if (!may_ask(qp)) return 0;
    uint32_t room = window_room(qp->hca, w), n, fits;
    if (reads->cursor != reads->tail) {
        n = (uint32_t)psn_diff(reads->end[reads->cursor % HCA_MAX_RD_ATOMIC], r->next);
        /* A resend is cut finer only where nothing else could make room for it. */
        bool cut = psn_diff(r->next, r->una) == 0 && reads->tail - reads->head < HCA_MAX_RD_ATOMIC;
        fits = cut ? room / w->packet : n;
    } else {
        uint32_t most = reads_allowed(qp);
        n = wqe->npsn - r->send_pkt;
        fits = ((room + w->in_flight) >> (most >= 4 ? 2 : most >= 2 ? 1 : 0)) / w->packet;
    }
    if (!fits) fits = 1;
    if (n > fits) n = fits;
    uint32_t cost = rc_cost(qp, wqe->length, r->send_pkt, n);
    return window_admit(qp->hca, &qp->rc.window, cost) ? n : 0;
}

/* The request at `next` that covers n PSNs has gone out. One that asks for a part of a former one
 * leaves the rest to a request of its own. */
static void read_sent(struct rc_req *r, uint32_t n)
{
    struct rc_reads *reads = &r->reads;
    psn_t end = psn_add(r->next, n);
    if (reads->cursor == reads->tail ||
        psn_diff(end, reads->end[reads->cursor % HCA_MAX_RD_ATOMIC]) < 0) {
        must(reads->tail - reads->head < HCA_MAX_RD_ATOMIC);
        for (uint32_t i = reads->tail++; i != reads->cursor; i--)
            reads->end[i % HCA_MAX_RD_ATOMIC] = reads->end[(i - 1) % HCA_MAX_RD_ATOMIC];
        reads->end[reads->cursor % HCA_MAX_RD_ATOMIC] = end;
    }
    reads->cursor++;
}

static bool emit_read(struct hca_qp *qp, struct wqe *wqe, struct hca_tx *tx, when_t now)
{
    struct rc_req *r = &qp->rc.req;
    uint32_t n = read_piece(qp, wqe);
    if (!n) return false;
    struct roce_hdr h = {.opcode = ROCE_READ_REQUEST, .psn = r->next, .ackreq = true};
    h.reth.va = wqe->wr.remote_addr + ((uint64_t)r->send_pkt << mtu_shift(qp));
    h.reth.rkey = wqe->wr.rkey;
    h.reth.len = rc_payload(qp, wqe->length, r->send_pkt, n);
    h.xrc_srqn = wqe->wr.xrc_srqn;
    tx->niov = 0;
    tx->payload_len = 0;
    qp_emit(qp, tx, &h);
    time_it(qp, now);
    r->unasked = 0;
    read_sent(r, n);
    step(qp, wqe, n, rc_cost(qp, wqe->length, r->send_pkt, n));
    return true;
}

static void atomic_headers(struct roce_hdr *h, const struct hca_send_wr *wr)
{
    h->atomic.va = wr->remote_addr;
    h->atomic.rkey = wr->rkey;
    if (wr->opcode == HCA_WR_ATOMIC_CMP_AND_SWP) {
        h->opcode = ROCE_CMP_SWAP;
        h->atomic.compare = wr->compare_add;
        h->atomic.swap_add = wr->swap;
    } else {
        h->opcode = ROCE_FETCH_ADD;
        h->atomic.swap_add = wr->compare_add;
    }
}

/* A whole region is named by its key alone. */
static void flush_headers(struct roce_hdr *h, const struct hca_send_wr *wr)
{
    h->opcode = ROCE_FLUSH;
    h->feth.placement = wr->flush_type;
    h->feth.selectivity = wr->flush_level;
    h->reth.rkey = wr->rkey;
    if (wr->flush_level != HCA_FLUSH_RANGE) return;
    h->reth.va = wr->remote_addr;
    h->reth.len = wr->flush_length;
}

static void atomic_write_headers(struct roce_hdr *h, const struct hca_send_wr *wr)
{
    h->opcode = ROCE_ATOMIC_WRITE;
    h->reth.va = wr->remote_addr;
    h->reth.rkey = wr->rkey;
    h->reth.len = sizeof wr->atomic_value;
}

/* One packet, one answer: all with an answer but READ. */
static bool emit_single(struct hca_qp *qp, struct wqe *wqe, struct hca_tx *tx, when_t now)
{
    struct rc_req *r = &qp->rc.req;
    struct hca_send_wr *wr = &wqe->wr;
    if (!may_ask(qp)) return false;
    uint32_t cost = rc_cost(qp, wqe->length, 0, 1);
    if (!window_admit(qp->hca, &qp->rc.window, cost)) return false;
    struct roce_hdr h = {.psn = r->next, .ackreq = true, .xrc_srqn = wr->xrc_srqn};
    tx->niov = 0;
    tx->payload_len = 0;
    switch (wr->opcode) {
    case HCA_WR_FLUSH: flush_headers(&h, wr); break;
    case HCA_WR_ATOMIC_WRITE:
        atomic_write_headers(&h, wr);
        tx->payload[0] = (struct iovec){&wr->atomic_value, sizeof wr->atomic_value};
        tx->niov = 1;
        tx->payload_len = sizeof wr->atomic_value;
        break;
    default: atomic_headers(&h, wr);
    }
    qp_emit(qp, tx, &h);
    time_it(qp, now);
    r->unasked = 0;
    read_sent(r, 1);
    step(qp, wqe, 1, cost);
    return true;
}

/* ---- WQEs -------------------------------------------------------------------------------- */

/* Executed when all before it has been sent, so that what follows finds it done: no peer may have
 * the key of a bind before. It completes in its turn. Only a fence makes it wait (IBTA 10.8.3.3).
 */
static bool execute_local(struct hca_qp *qp, const struct wqe *wqe, when_t now)
{
    enum hca_wc_status status = mw_execute(qp, &wqe->wr);
    if (status != HCA_WC_SUCCESS) return fault(qp, status, now);
    qp->sq.next++;
    qp->rc.req.send_index++;
    rc_req_complete_local(qp, now);
    return true;
}

void rc_req_complete_local(struct hca_qp *qp, when_t now)
{
    const struct sq *sq = &qp->sq;
    while (sq->head != sq->next && wqe_is_local(sq_at(sq, sq->head)))
        wqe_complete(qp, HCA_WC_SUCCESS, now);
}

/* HCA_WC_SUCCESS, or why this WQE can never be sent. */
static enum hca_wc_status wqe_fault(const struct hca_qp *qp, const struct wqe *wqe)
{
    if (wqe->length > HCA_MAX_MSG) return HCA_WC_LOC_LEN_ERR;
    switch (wqe->wr.opcode) {
    case HCA_WR_RDMA_WRITE:
    case HCA_WR_RDMA_WRITE_WITH_IMM:
    case HCA_WR_SEND:
    case HCA_WR_SEND_WITH_IMM:
    case HCA_WR_SEND_WITH_INV: return HCA_WC_SUCCESS;
    case HCA_WR_ATOMIC_CMP_AND_SWP:
    case HCA_WR_ATOMIC_FETCH_AND_ADD:
        if (wqe->length != 8) return HCA_WC_LOC_LEN_ERR;
        /* fall through */
    case HCA_WR_FLUSH:
    case HCA_WR_ATOMIC_WRITE:
    case HCA_WR_RDMA_READ: return reads_allowed(qp) ? HCA_WC_SUCCESS : HCA_WC_LOC_QP_OP_ERR;
    default: return HCA_WC_LOC_QP_OP_ERR;
    }
}

/* Starts the WQE at sq.next: from now on its PSNs are its own. False: it has to wait, or failed. */
static bool start_wqe(struct hca_qp *qp, when_t now)
{
    struct rc_req *r = &qp->rc.req;
    struct wqe *wqe = sq_at(&qp->sq, qp->sq.next);
    if (qp->state != HCA_QPS_RTS) return false;
    if ((wqe->wr.flags & HCA_SEND_FENCE) && r->reads_open) return false;
    if (wqe_is_local(wqe)) return execute_local(qp, wqe, now);
    enum hca_wc_status status = wqe_fault(qp, wqe);
    if (status != HCA_WC_SUCCESS) return fault(qp, status, now);
    wqe->first_psn = r->start;
    wqe->npsn = packets(qp, wqe->length);
    wqe->done = false;
    r->start = psn_add(r->start, wqe->npsn);
    r->send_pkt = 0;
    if (rc_is_answered(wqe)) r->reads_open++;
    qp->sq.next++;
    return true;
}

void rc_req_start(struct rc_req *r, psn_t first)
{
    *r = (struct rc_req){.una = first, .next = first, .top = first, .start = first};
}

size_t rc_req_output(struct hca_qp *qp, struct hca_tx *out, size_t max, when_t now)
{
    struct rc_req *r = &qp->rc.req;
    if (qp->state != HCA_QPS_RTS && qp->state != HCA_QPS_SQD) return 0;
    if (rc_timer_in_rnr(&qp->rc.timer)) return 0;
    size_t n = 0;
    while (n < max) {
        if (r->send_index == qp->sq.next) {
            if (qp->sq.next == qp->sq.tail || !start_wqe(qp, now)) break;
            if (r->send_index == qp->sq.next) continue; /* it was local, and is executed */
        }
        struct wqe *wqe = sq_at(&qp->sq, r->send_index);
        bool sent;
        if (wqe->wr.opcode == HCA_WR_RDMA_READ)
            sent = emit_read(qp, wqe, &out[n], now);
        else if (rc_is_answered(wqe))
            sent = emit_single(qp, wqe, &out[n], now);
        else
            sent = emit_plain(qp, wqe, &out[n], now);
        if (!sent) break;
        n++;
    }
    if (n) ask_with_last(r, &out[n - 1]);
    return n;
}

void rc_req_rewind(struct hca_qp *qp)
{
    struct rc_req *r = &qp->rc.req;
    if (psn_diff(r->top, r->next) == 0) {
        r->top_index = r->send_index;
        r->top_pkt = r->send_pkt;
    }
    r->next = r->una;
    r->send_index = qp->sq.head;
    r->send_pkt = r->una_pkt;
    r->unasked = 0;
    r->reads.cursor = r->reads.head;
    window_rewound(qp->hca, &qp->rc.window);
}

void rc_req_resume(struct hca_qp *qp)
{
    struct rc_req *r = &qp->rc.req;
    if (psn_diff(r->top, r->next) == 0) return;
    uint32_t cost = 0, pkt = r->una_pkt;
    for (uint32_t i = qp->sq.head; i != r->top_index; i++, pkt = 0) {
        const struct wqe *wqe = sq_at(&qp->sq, i);
        if (!wqe_is_local(wqe)) cost += rc_cost(qp, wqe->length, pkt, wqe->npsn - pkt);
    }
    if (r->top_pkt > pkt)
        cost += rc_cost(qp, sq_at(&qp->sq, r->top_index)->length, pkt, r->top_pkt - pkt);
    r->next = r->top;
    r->send_index = r->top_index;
    r->send_pkt = r->top_pkt;
    r->unasked = 0;
    r->reads.cursor = r->reads.tail;
    window_resumed(qp->hca, &qp->rc.window, cost);
}

void rc_req_fail(struct hca_qp *qp, enum hca_wc_status status, when_t now)
{
    must(!sq_is_empty(&qp->sq));
    if (qp->sq.head == qp->sq.next) qp->sq.next++;
    wqe_complete(qp, status, now);
    qp_fail(qp, now);
}

bool rc_req_waits(const struct hca_qp *qp)
{
    const struct rc_req *r = &qp->rc.req;
    if (psn_diff(r->top, r->una) > 0) return true;
    if (qp->member != STEER_NO_MEMBER) return false;
    return qp->state == HCA_QPS_RTS ? !sq_is_empty(&qp->sq) : qp->sq.head != qp->sq.next;
}
