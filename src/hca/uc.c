/* Unreliable connections (IBTA 9.8.2): messages of many packets, nothing acknowledged. A lost
 * packet loses its message, silently; the receive WQE that it had taken serves the next. */
#include "hca/uc.h"
#include "base/must.h"
#include "hca/qp.h"
#include "wire/opcode.h"

/* A PSN this little behind the expected one is a late copy; further off, the sender is ahead by
 * more than half the numbers, as after a long cut. */
enum { LATE = 1 << 16 };

void uc_to_rtr(struct hca_qp *qp) { qp->uc.expect_psn = qp->attr.rq_psn; }

void uc_to_rts(struct hca_qp *qp) { qp->uc.send_psn = qp->attr.sq_psn; }

void uc_to_err(struct hca_qp *qp, when_t now)
{
    qp->uc.in_message = false;
    if (!qp->uc.have_rwqe) return;
    qp->uc.have_rwqe = false;
    rwqe_fail(qp, &qp->uc.rwqe, HCA_WC_WR_FLUSH_ERR, now);
}

void uc_reset(struct hca_qp *qp)
{
    qp->uc.send_offset = 0;
    qp->uc.in_message = qp->uc.have_rwqe = false;
}

/* ---- sender ----------------------------------------------------------------------------- */

static uint8_t opcode_of(const struct wqe *wqe, bool first, bool last)
{
    bool imm =
        wqe->wr.opcode == HCA_WR_SEND_WITH_IMM || wqe->wr.opcode == HCA_WR_RDMA_WRITE_WITH_IMM;
    if (wqe->wr.opcode == HCA_WR_SEND || wqe->wr.opcode == HCA_WR_SEND_WITH_IMM) {
        if (first && last) return ROCE_UC | (imm ? ROCE_SEND_ONLY_IMM : ROCE_SEND_ONLY);
        if (last) return ROCE_UC | (imm ? ROCE_SEND_LAST_IMM : ROCE_SEND_LAST);
        return ROCE_UC | (first ? ROCE_SEND_FIRST : ROCE_SEND_MIDDLE);
    }
    if (first && last) return ROCE_UC | (imm ? ROCE_WRITE_ONLY_IMM : ROCE_WRITE_ONLY);
    if (last) return ROCE_UC | (imm ? ROCE_WRITE_LAST_IMM : ROCE_WRITE_LAST);
    return ROCE_UC | (first ? ROCE_WRITE_FIRST : ROCE_WRITE_MIDDLE);
}

static void fail_send(struct hca_qp *qp, enum hca_wc_status status, when_t now)
{
    qp_complete_sent(qp, now);
    wqe_complete(qp, status, now);
    qp->uc.send_offset = 0;
    qp_fail_send(qp, now);
}

/* One packet of the WQE at sq.next; false when the request failed. */
static bool emit(struct hca_qp *qp, const struct wqe *wqe, struct hca_tx *tx, when_t now)
{
    struct uc *uc = &qp->uc;
    uint32_t left = wqe->length - uc->send_offset;
    uint32_t len = left < qp->mtu ? left : qp->mtu;
    bool first = uc->send_offset == 0, last = len == left;

    int niov = wqe_gather(qp, wqe, uc->send_offset, len, tx->payload);
    if (niov < 0) {
        fail_send(qp, (enum hca_wc_status) - niov, now);
        return false;
    }
    tx->niov = (uint8_t)niov;
    tx->payload_len = len;
    struct roce_hdr h = {
        .opcode = opcode_of(wqe, first, last),
        .psn = uc->send_psn,
        .solicited = last && (wqe->wr.flags & HCA_SEND_SOLICITED),
        .imm_be = wqe->wr.imm_be,
        .reth = {wqe->wr.remote_addr, wqe->wr.rkey, wqe->length},
    };
    qp_emit(qp, tx, &h);
    uc->send_psn = psn_add(uc->send_psn, 1);
    uc->send_offset += len;
    return true;
}

/* With no member the packets go where those on a dead link go; they take their PSNs along. */
static void lose_rest(struct hca_qp *qp, const struct wqe *wqe)
{
    uint32_t left = wqe->length - qp->uc.send_offset;
    uint32_t packets = left / qp->mtu + (left % qp->mtu != 0 || left == 0);
    qp->uc.send_psn = psn_add(qp->uc.send_psn, packets);
    qp->uc.send_offset = wqe->length;
}

size_t uc_output(struct hca_qp *qp, struct hca_tx *out, size_t max, when_t now)
{
    struct sq *sq = &qp->sq;
    size_t n = 0;
    while (sq->next != sq->tail && n < max) {
        const struct wqe *wqe = sq_at(sq, sq->next);
        if (qp->state != HCA_QPS_RTS && !(qp->state == HCA_QPS_SQD && qp->uc.send_offset > 0))
            break;
        if (wqe_is_local(wqe)) {
            enum hca_wc_status status = mw_execute(qp, &wqe->wr);
            if (status != HCA_WC_SUCCESS) {
                fail_send(qp, status, now);
                break;
            }
            sq->next++;
            qp_sent(qp);
            continue;
        }
        if (qp->member == STEER_NO_MEMBER)
            lose_rest(qp, wqe);
        else if (emit(qp, wqe, &out[n], now))
            n++;
        else
            break;
        if (qp->uc.send_offset < wqe->length) continue;
        qp->uc.send_offset = 0;
        sq->next++;
        qp_sent(qp);
    }
    return n;
}

/* ---- receiver --------------------------------------------------------------------------- */

static void drop_message(struct hca_qp *qp, uint64_t *counter)
{
    qp->uc.in_message = false;
    ++*counter;
}

static bool have_rwqe(struct hca_qp *qp)
{
    struct uc *uc = &qp->uc;
    if (!uc->have_rwqe) uc->have_rwqe = qp_take_recv(qp, &uc->rwqe);
    return uc->have_rwqe;
}

/* IBTA 9.8.2.2: is this packet the next one, or the first of a message after a gap? */
static bool in_sequence(struct hca_qp *qp, const struct roce_hdr *h, uint32_t props)
{
    struct uc *uc = &qp->uc;
    struct hca_counters *c = &qp->hca->counters;
    int32_t ahead = psn_diff(h->psn, uc->expect_psn);
    if (ahead < 0 && ahead >= -LATE) {
        c->duplicate_request++;
        return false;
    }
    uc->expect_psn = psn_add(h->psn, 1);
    if (ahead != 0) {
        c->out_of_sequence++;
        uc->in_message = false;
    }
    if (props & OP_FIRST) {
        if (uc->in_message) drop_message(qp, &c->rx_dropped);
        return true;
    }
    bool is_write = props & OP_WRITE;
    if (uc->in_message && uc->is_write == is_write) return true;
    drop_message(qp, &c->rx_dropped);
    return false;
}

static bool start(struct hca_qp *qp, const struct roce_hdr *h, uint32_t props)
{
    struct uc *uc = &qp->uc;
    struct hca_counters *c = &qp->hca->counters;
    uc->is_write = props & OP_WRITE;
    uc->offset = 0;
    if (!uc->is_write) {
        if (have_rwqe(qp)) return uc->in_message = true;
        c->rx_dropped++;
        return false;
    }
    uc->va = h->reth.va;
    uc->rkey = h->reth.rkey;
    uc->length = h->reth.len;
    /* The key of a WRITE of no bytes is not looked at (IBTA 9.7.4.1.5). */
    if (uc->length > HCA_MAX_MSG ||
        (uc->length > 0 && (!(qp->attr.access & HCA_ACCESS_REMOTE_WRITE) ||
                            !mr_remote_grants(qp->hca, qp->pd, qp->qpn, uc->rkey, uc->va,
                                              uc->length, HCA_ACCESS_REMOTE_WRITE)))) {
        c->resp_remote_access_errors++;
        return false;
    }
    return uc->in_message = true;
}

static bool length_fits(const struct hca_qp *qp, uint32_t props, size_t len)
{
    if (!(props & OP_LAST)) return len == qp->mtu;
    if (!(props & OP_FIRST) && len == 0) return false;
    return len <= qp->mtu;
}

/* Puts the payload where it belongs; false when the message is at its end for that. */
static bool place(struct hca_qp *qp, uint32_t props, const uint8_t *payload, size_t len, when_t now)
{
    struct uc *uc = &qp->uc;
    struct hca_counters *c = &qp->hca->counters;
    if (uc->is_write) {
        uint64_t end = (uint64_t)uc->offset + len;
        if (end > uc->length || ((props & OP_LAST) && end != uc->length)) {
            drop_message(qp, &c->resp_local_length_error);
            return false;
        }
        /* Again for each packet: the region may have gone meanwhile. */
        uint8_t *to = len ? mr_remote_at(qp->hca, qp->pd, qp->qpn, uc->rkey, uc->va + uc->offset,
                                         len, HCA_ACCESS_REMOTE_WRITE)
                          : NULL;
        if (len && !to) {
            drop_message(qp, &c->resp_remote_access_errors);
            return false;
        }
        if (len) memcpy(to, payload, len);
    } else {
        int err = rwqe_scatter(qp, &uc->rwqe, uc->offset, payload, (uint32_t)len);
        if (err == -HCA_WC_LOC_LEN_ERR) {
            drop_message(qp, &c->resp_local_length_error);
            return false;
        }
        if (err < 0) {
            uc->have_rwqe = false;
            rwqe_fail(qp, &uc->rwqe, (enum hca_wc_status) - err, now);
            qp_fail(qp, now);
            return false;
        }
    }
    uc->offset += (uint32_t)len;
    return true;
}

static void finish(struct hca_qp *qp, const struct roce_hdr *h, uint32_t props, when_t now)
{
    struct uc *uc = &qp->uc;
    uc->in_message = false;
    if (uc->is_write && !(props & OP_IMM)) return;
    if (!have_rwqe(qp)) {
        qp->hca->counters.rx_dropped++;
        return;
    }
    uc->have_rwqe = false;
    struct hca_wc wc = {
        .wr_id = uc->rwqe.wr_id,
        .status = HCA_WC_SUCCESS,
        .opcode = uc->is_write ? HCA_WC_RECV_RDMA_WITH_IMM : HCA_WC_RECV,
        .byte_len = uc->offset,
        .imm_be = h->imm_be,
        .flags = props & OP_IMM ? HCA_WC_WITH_IMM : 0,
        .qpn = qp->qpn,
        .src_qpn = qp->attr.dest_qpn,
        .sl = qp->attr.av.sl,
    };
    cq_push(qp->recv_cq, &wc, h->solicited, now);
}

void uc_input(struct hca_qp *qp, const struct hca_rx *rx, const struct roce_hdr *h,
              const uint8_t *payload, size_t len, when_t now)
{
    uint32_t props = roce_opcode(h->opcode)->props;
    if (!(props & (OP_SEND | OP_WRITE))) {
        qp->hca->counters.rx_bad_header++;
        return;
    }
    qp_comm_established(qp);
    if (!in_sequence(qp, h, props)) return;
    if ((props & OP_FIRST) && !start(qp, h, props)) return;
    if (!length_fits(qp, props, len)) {
        drop_message(qp, &qp->hca->counters.resp_local_length_error);
        return;
    }
    if (place(qp, props, payload, len, now) && (props & OP_LAST)) finish(qp, h, props, now);
}
