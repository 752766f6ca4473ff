/* Unreliable datagrams (IBTA 9.8.3): a message is one packet, from any QP to any. */
#include "hca/ud.h"
#include "base/bits.h"
#include "base/must.h"
#include "hca/qp.h"
#include "wire/opcode.h"

/* A work request's Q_Key with this bit means: the QP's own (IBTA 10.2.5). */
#define QKEY_PRIVILEGED 0x80000000u

enum { IPV4_LEN = 20, IPV6_LEN = 40, UDP_LEN = 8, PROTO_UDP = 17 };

/* A completion says what L3 header a datagram came with (annex A17.4.5.1). Verbs have no field for
 * it: adapters use the service level, which RoCE leaves free, and UCX reads it there. */
enum { SL_UDP_IPV6 = 8 | 1, SL_UDP_IPV4 = 8 | 2 };

/* ---- sender ----------------------------------------------------------------------------- */

static void fail_send(struct hca_qp *qp, enum hca_wc_status status, when_t now)
{
    qp_complete_sent(qp, now);
    wqe_complete(qp, status, now);
    qp_fail_send(qp, now);
}

size_t ud_output(struct hca_qp *qp, struct hca_tx *out, size_t max, when_t now)
{
    struct sq *sq = &qp->sq;
    size_t n = 0;
    while (qp->state == HCA_QPS_RTS && sq->next != sq->tail && n < max) {
        const struct wqe *wqe = sq_at(sq, sq->next);
        struct hca_tx *tx = &out[n];
        if (wqe->length > qp->hca->mtu) {
            fail_send(qp, HCA_WC_LOC_LEN_ERR, now);
            break;
        }
        int niov = wqe_gather(qp, wqe, 0, wqe->length, tx->payload);
        if (niov < 0) {
            fail_send(qp, (enum hca_wc_status) - niov, now);
            break;
        }
        if (qp->member != STEER_NO_MEMBER) {
            bool imm = wqe->wr.opcode == HCA_WR_SEND_WITH_IMM;
            uint32_t qkey = wqe->wr.remote_qkey;
            struct roce_hdr h = {
                .opcode = ROCE_UD | (imm ? ROCE_SEND_ONLY_IMM : ROCE_SEND_ONLY),
                .psn = qp->attr.sq_psn,
                .solicited = wqe->wr.flags & HCA_SEND_SOLICITED,
                .deth = {qkey & QKEY_PRIVILEGED ? qp->attr.qkey : qkey, qp->qpn},
                .imm_be = wqe->wr.imm_be,
            };
            tx->niov = (uint8_t)niov;
            tx->payload_len = wqe->length;
            qp_emit_to(qp, tx, &h, &wqe->wr.ah, wqe->wr.remote_qpn);
            if (gid_is_multicast(&wqe->wr.ah.dgid)) qp->hca->counters.tx_multicast++;
            n++;
        }
        qp->attr.sq_psn = psn_add(qp->attr.sq_psn, 1);
        sq->next++;
        qp_sent(qp);
    }
    return n;
}

/* ---- receiver --------------------------------------------------------------------------- */

static uint16_t ipv4_checksum(const uint8_t *header)
{
    uint32_t sum = 0;
    for (int i = 0; i < IPV4_LEN; i += 2) sum += get_be16(header + i);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* What a receive buffer begins with (annex A17.4.5.1): the IP header as it arrived, made anew from
 * what the port tells. The socket does not show flow label and identification: they are 0. */
static void make_grh(uint8_t grh[UD_GRH_LEN], const struct hca_rx *rx)
{
    uint16_t udp_len = (uint16_t)(UDP_LEN + rx->len + ROCE_ICRC_LEN);
    memset(grh, 0, UD_GRH_LEN);
    if (gid_is_ipv4(&rx->src)) {
        uint8_t *ip = grh + UD_GRH_LEN - IPV4_LEN;
        ip[0] = 0x45;
        ip[1] = rx->traffic_class;
        put_be16(ip + 2, (uint16_t)(IPV4_LEN + udp_len));
        put_be16(ip + 6, 0x4000); /* DF */
        ip[8] = rx->hop_limit;
        ip[9] = PROTO_UDP;
        memcpy(ip + 12, rx->src.raw + 12, 4);
        memcpy(ip + 16, rx->dst.raw + 12, 4);
        put_be16(ip + 10, ipv4_checksum(ip));
    } else {
        put_be32(grh, 6u << 28 | (uint32_t)rx->traffic_class << 20);
        put_be16(grh + 4, udp_len);
        grh[6] = PROTO_UDP;
        grh[7] = rx->hop_limit;
        memcpy(grh + 8, rx->src.raw, 16);
        memcpy(grh + 24, rx->dst.raw, 16);
    }
}

void ud_input(struct hca_qp *qp, const struct hca_rx *rx, const struct roce_hdr *h,
              const uint8_t *payload, size_t len, when_t now)
{
    struct hca_counters *c = &qp->hca->counters;
    if (h->deth.qkey != qp->attr.qkey) {
        c->rx_bad_qkey++;
        return;
    }
    const struct rwqe *next = qp_peek_recv(qp);
    if (!next) {
        c->rx_dropped++;
        return;
    }
    /* Too long for the buffer, or for any datagram, as a net device's MTU may be larger: dropped,
     * and the buffer kept, so that no stranger can end the QP. */
    if (len > HCA_MAX_MTU || len + UD_GRH_LEN > next->length) {
        c->resp_local_length_error++;
        return;
    }
    struct rwqe rwqe;
    must(qp_take_recv(qp, &rwqe));
    uint8_t grh[UD_GRH_LEN];
    make_grh(grh, rx);
    int err = rwqe_scatter(qp, &rwqe, 0, grh, UD_GRH_LEN);
    if (err == 0) err = rwqe_scatter(qp, &rwqe, UD_GRH_LEN, payload, (uint32_t)len);
    if (err < 0) {
        rwqe_fail(qp, &rwqe, (enum hca_wc_status) - err, now);
        qp_fail(qp, now);
        return;
    }
    bool imm = roce_opcode(h->opcode)->props & OP_IMM;
    struct hca_wc wc = {
        .wr_id = rwqe.wr_id,
        .status = HCA_WC_SUCCESS,
        .opcode = HCA_WC_RECV,
        .byte_len = (uint32_t)(UD_GRH_LEN + len),
        .imm_be = imm ? h->imm_be : 0,
        .flags = HCA_WC_GRH | (imm ? HCA_WC_WITH_IMM : 0),
        .qpn = qp->qpn,
        .src_qpn = h->deth.sqpn,
        .sl = gid_is_ipv4(&rx->src) ? SL_UDP_IPV4 : SL_UDP_IPV6,
    };
    cq_push(qp->recv_cq, &wc, h->solicited, now);
}
