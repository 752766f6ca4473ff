/* A guest stands for another function's XRC target, and executes what that one calls for: a
 * responder of its own (rc_resp.c) that has neither peer nor number nor state, whose PSNs are the
 * caller's and whose answers go back with the verdict. It is made by the first call of its target.
 */
#include "hca/xrc_guest.h"
#include "hca/qp.h"
#include "wire/opcode.h"
#include <stdlib.h>

#define MAX_GUESTS (4 * HCA_MAX_QP)

struct guest {
    struct list node; /* in hca->guests */
    uint16_t function;
    bool refused; /* what else comes of refused_epoch is dropped without a word */
    uint32_t refused_epoch;
    struct hca_qp qp;
};

/* ---- which there are ----------------------------------------------------------------------- */

static struct list *chain(struct hca *hca, qpn_t qpn) { return &hca->guests[qpn % GUEST_CHAINS]; }

static struct guest *guest_find(struct hca *hca, uint32_t xrcd, qpn_t qpn)
{
    list_for_each (node, chain(hca, qpn)) {
        struct guest *g = container_of(node, struct guest, node);
        if (g->qp.qpn == qpn && g->qp.xrcd == xrcd) return g;
    }
    return NULL;
}

static void guest_free(struct guest *g)
{
    struct hca *hca = g->qp.hca;
    list_del(&g->node);
    hca->nguests--;
    rc_fini(&g->qp);
    free(g);
}

static struct guest *guest_new(struct hca *hca, uint32_t xrcd, uint16_t function, qpn_t qpn)
{
    struct guest *g = hca->nguests < MAX_GUESTS ? calloc(1, sizeof *g) : NULL;
    if (!g) return NULL;
    struct hca_qp *qp = &g->qp;
    g->function = function;
    qp->hca = hca;
    qp->qpn = qpn;
    qp->type = HCA_QPT_XRC_RECV;
    qp->xrcd = xrcd;
    qp->member = STEER_NO_MEMBER;
    qp->alarm = HEAP_NODE_IDLE;
    qp->attr.max_dest_rd_atomic = 1;
    list_init(&qp->windows);
    if (rc_init(qp) < 0) {
        free(g);
        return NULL;
    }
    hca->nguests++;
    list_add_tail(chain(hca, qpn), &g->node);
    return g;
}

/* Its target fails, or its process ends: a receive that its message has taken is flushed. Where the
 * target is reset it is lost, as one of our own targets would lose it. */
static void guest_end(struct guest *g, when_t now)
{
    rc_resp_stop(&g->qp, now);
    guest_free(g);
}

void xrc_guests_srq_gone(struct hca *hca, const struct hca_srq *srq)
{
    for (size_t i = 0; i < GUEST_CHAINS; i++)
        list_for_each (node, &hca->guests[i])
            rc_resp_srq_gone(&container_of(node, struct guest, node)->qp, srq);
}

void xrc_guests_gone(struct hca *hca, uint32_t xrcd, uint16_t function, when_t now)
{
    for (size_t i = 0; i < GUEST_CHAINS; i++)
        list_for_each_safe (node, tmp, &hca->guests[i]) {
            struct guest *g = container_of(node, struct guest, node);
            if (g->qp.xrcd == xrcd && g->function == function) guest_end(g, now);
        }
}

void xrc_guests_free_all(struct hca *hca)
{
    for (size_t i = 0; i < GUEST_CHAINS; i++)
        while (!list_empty(&hca->guests[i]))
            guest_free(container_of(hca->guests[i].next, struct guest, node));
}

/* ---- requests ------------------------------------------------------------------------------ */

static bool mtu_is_sane(uint32_t mtu)
{
    return mtu >= 256 && mtu <= HCA_MAX_MTU && (mtu & (mtu - 1)) == 0;
}

static bool decode(const struct hca_call *call, struct roce_hdr *h)
{
    size_t hdr_len;
    if (call->hdr_len > sizeof call->hdr || call->len > HCA_MAX_MTU || !mtu_is_sane(call->mtu))
        return false;
    if (roce_decode(h, call->hdr, call->hdr_len, &hdr_len) != ROCE_OK || h->pad) return false;
    return hdr_len == call->hdr_len && (h->opcode & 0xe0) == ROCE_XRC &&
           !(roce_opcode(h->opcode)->props & OP_RESPONSE);
}

/* What the responder has come to: an acknowledgement that the caller gives, or a refusal. */
static void take_verdict(struct guest *g, struct hca_answer *a)
{
    struct rc_resp *r = &g->qp.rc.resp;
    list_del(&g->qp.turn); /* it has nothing to send */
    a->syndrome = AETH_ACK;
    a->event = -1;
    if (r->nak) {
        a->syndrome = r->nak;
        a->fatal = r->dead;
        a->event = r->dead ? r->event : -1;
    } else if (r->emit != r->tail) {
        struct rc_resource *res = &r->ring[r->emit % RC_RESOURCES];
        a->result = res->result;
        res->cur = res->end;
    }
    r->nak = 0;
    r->emit = r->tail;
    r->dead = r->ack_due = r->muted = false;
}

static bool request(struct hca *hca, uint32_t xrcd, uint16_t function, const struct hca_call *call,
                    struct hca_answer *a, when_t now)
{
    struct roce_hdr h;
    if (!decode(call, &h)) return false;
    struct guest *g = guest_find(hca, xrcd, call->qpn);
    if (!g) g = guest_new(hca, xrcd, function, call->qpn);
    *a = (struct hca_answer){
        .kind = call->kind, .qpn = call->qpn, .epoch = call->epoch, .psn = h.psn, .event = -1};
    if (!g) {
        a->syndrome = AETH_NAK_REMOTE_OPERATION;
        a->fatal = true;
        return true;
    }
    if (g->refused && g->refused_epoch == call->epoch) return false;
    g->qp.attr.dest_qpn = call->src_qpn;
    g->qp.attr.access = call->access;
    g->qp.attr.min_rnr_timer = call->min_rnr_timer;
    g->qp.mtu = call->mtu;
    g->qp.rc.resp.epsn = h.psn;
    rc_resp_execute(&g->qp, &h, call->payload, call->len, now);
    take_verdict(g, a);
    g->refused = a->syndrome != AETH_ACK;
    g->refused_epoch = call->epoch;
    return true;
}

/* ---- READ data ------------------------------------------------------------------------------ */

static bool find_pieces(struct hca *hca, const struct hca_srq *srq, const struct hca_call *call,
                        struct hca_answer *a)
{
    for (uint32_t done = 0; done < call->bytes;) {
        uint32_t len = call->bytes - done < MR_MAX_PIECE ? call->bytes - done : MR_MAX_PIECE;
        uint8_t *at = mr_remote_at(hca, srq->pd, call->qpn, call->rkey, call->va + done, len,
                                   HCA_ACCESS_REMOTE_READ);
        if (!at) return false;
        a->piece[a->pieces++] = (struct iovec){.iov_base = at, .iov_len = len};
        done += len;
    }
    return true;
}

static void read_data(struct hca *hca, uint32_t xrcd, const struct hca_call *call,
                      struct hca_answer *a)
{
    const struct hca_srq *srq = srq_find(hca, call->srqn);
    a->kind = call->kind;
    a->qpn = call->qpn;
    a->epoch = call->epoch;
    a->pieces = 0;
    bool granted = srq && srq->xrcd == xrcd && call->bytes && call->bytes <= HCA_CALL_DATA &&
                   find_pieces(hca, srq, call, a);
    a->bytes = granted ? call->bytes : 0;
    if (!granted) a->pieces = 0;
}

/* -------------------------------------------------------------------------------------------- */

bool hca_call_input(struct hca *hca, uint32_t xrcd, uint16_t function, const struct hca_call *call,
                    struct hca_answer *answer, when_t now)
{
    bool answered = false;
    if (call->qpn >> HCA_INDEX_BITS != function) return false;
    if (call->kind == HCA_CALL_REQUEST) {
        answered = request(hca, xrcd, function, call, answer, now);
    } else if (call->kind == HCA_CALL_READ) {
        read_data(hca, xrcd, call, answer);
        answered = true;
    } else if (call->kind == HCA_CALL_END) {
        struct guest *g = guest_find(hca, xrcd, call->qpn);
        if (g && call->failed)
            guest_end(g, now);
        else if (g)
            guest_free(g);
    }
    cq_fail_overrun(hca, now);
    return answered;
}
