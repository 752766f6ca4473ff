/* Inside the adapter: what a QP is made of, and how its machines meet.
 *
 *   qp.c       creation, states, flush, emission              numbers.c QPN -> QP
 *   qp_rate.c  the rate limit of one QP
 *   qp_modify.c  which transition wants which attributes
 *   sq.c rq.c  the work queues                                    agenda.c  deadlines and turns
 *   rc.c       the RC service, made of:
 *   rc_req.c rc_comp.c    the requester: WQEs -> packets, and responses -> completions
 *   rc_resp.c rc_reply.c  the responder: requests -> memory, and ACKs, READ and atomic replies
 *   xrc_calls.c  what an XRC responder has other functions execute
 *   rc_timer.c when an RC requester must resend, and what it costs
 *   rc_doubt.c was what a timer resent lost at all?
 *   window.c   the byte window: growth and cut
 *   uc.c ud.c  the unacknowledged services                        mr.c mw.c cq.c srq.c  as named
 *
 * One machine never writes another's fields: it reports a fact by a function named for it. */
#ifndef RBOND_HCA_QP_H
#define RBOND_HCA_QP_H

#include "base/list.h"
#include "hca/adapter.h"
#include "hca/cq.h"
#include "hca/detour.h"
#include "hca/hca.h"
#include "hca/mr.h"
#include "hca/rc.h"
#include "hca/rq.h"
#include "hca/sq.h"
#include "hca/srq.h"
#include "hca/uc.h"

struct hca_qp {
    struct hca *hca;
    struct event_source events;    /* and the owner */
    struct list all;               /* in hca->qps */
    qpn_t qpn;
    enum hca_qp_type type;
    uint8_t service;               /* its opcodes' upper three bits */
    enum hca_qp_state state;
    uint32_t pd, xrcd;
    bool sig_all;
    bool last_wqe_reported, comm_established;
    bool block_own_mcast;
    uint32_t mcast_groups;         /* it is attached to so many */
    struct hca_qp_attr attr;
    uint32_t mtu;                  /* bytes: 256 << (attr.path_mtu - 1) */
    struct hca_cq *send_cq, *recv_cq;
    struct hca_srq *srq;           /* XRC_RECV: the one that the request executed last has named */
    struct sq sq;
    struct rq rq;                  /* where qp_has_rq */
    uint8_t bucket, member;        /* member: active one now; STEER_NO_MEMBER: hold */
    struct detour detour;
    struct pace limit;             /* the program's own rate limit */
    uint32_t limit_burst;          /* packets that may go in one turn */
    struct list turn;              /* in hca->ready while it may have packets */
    struct list sent;              /* in hca->sent: UC and UD */
    struct list held;              /* in hca->held: RC */
    struct list windows;           /* region.link: windows of type 2 bound to it */
    struct heap_node alarm;        /* in hca->alarms; kept by agenda.c */
    union {
        struct rc rc;
        struct uc uc;
    };
    struct hca_qp_view view;       /* counters; the rest is filled by hca_qp_view */
    when_t gap_from;               /* a remap waits for its first acknowledgement; NEVER: none */
};

/* The RC machines serve XRC, too: an initiator is a requester alone, a target a responder alone. */
static inline bool qp_is_reliable(const struct hca_qp *qp)
{
    return qp->type == HCA_QPT_RC || qp->type == HCA_QPT_XRC_SEND || qp->type == HCA_QPT_XRC_RECV;
}

/* A receive queue of its own? */
static inline bool qp_has_rq(const struct hca_qp *qp)
{
    return !qp->srq && qp->type != HCA_QPT_XRC_SEND && qp->type != HCA_QPT_XRC_RECV;
}

/* Where the receive taken last completes. */
static inline struct hca_cq *qp_recv_cq(const struct hca_qp *qp)
{
    return qp->type == HCA_QPT_XRC_RECV ? qp->srq->cq : qp->recv_cq;
}

/* The PD of the peer's keys. An XRC target has none: it is the one of the SRQ that the request names,
 * since that says whose memory is meant (annex A14). */
static inline uint32_t qp_remote_pd(const struct hca_qp *qp)
{
    return qp->type == HCA_QPT_XRC_RECV ? qp->srq->pd : qp->pd;
}

/* qp.c: facts that the machines report */

/* A work request failed: moves the QP to ERR and flushes both queues. The machine has already said
 * which request failed, and with what status, by completing it. rc_to_err() and uc_to_err() are
 * called from inside: the machine returns at once afterwards. */
void qp_fail(struct hca_qp *qp, when_t now);
/* UC and UD: a send request failed and was completed so: the QP moves to SQE, the rest of the send
 * queue is flushed, the receive queue lives on (IBTA 10.3.1). */
void qp_fail_send(struct hca_qp *qp, when_t now);
/* The responder found a fault that is reported as an event, not by a completion. */
void qp_fail_event(struct hca_qp *qp, enum hca_event_type type, when_t now);
/* The first packet in RTR. */
void qp_comm_established(struct hca_qp *qp);
/* Something was acknowledged: ends a remap's gap. */
void qp_ack_seen(struct hca_qp *qp, when_t now);
/* The send queue has run dry while in SQD. */
void qp_sq_drained(struct hca_qp *qp);

/* Takes the next receive WQE, from the SRQ or the QP's own queue; false: none (RNR). */
bool qp_take_recv(struct hca_qp *qp, struct rwqe *out);
/* The one qp_take_recv would give, valid until then; NULL: none. */
const struct rwqe *qp_peek_recv(const struct hca_qp *qp);

/* Packets of reliable connections say that their sender heeds congestion notifications: ECT(0), unless
 * the program's traffic class has an ECN field of its own (RFC 3168). CNPs themselves are not marked.
 *
 * Fills addresses and member from attr.av, BTH (pad from payload_len, pkey, dqpn) and encodes
 * headers; counts it. `h` carries opcode, psn, solicited, ackreq and what the extended headers
 * want. Payload, niov and payload_len must be set already. The QP must have a member. */
void qp_emit(struct hca_qp *qp, struct hca_tx *tx, struct roce_hdr *h);
/* The same to an address of a work request's own (UD). */
void qp_emit_to(struct hca_qp *qp, struct hca_tx *tx, struct roce_hdr *h, const struct hca_ah *ah,
                qpn_t dqpn);
/* UC and UD, after emitting a message's last packet: [sq.head, sq.next) completes at the next
 * hca_output, when the port has read the packets' payload. */
void qp_sent(struct hca_qp *qp);
/* What qp_sent promised is due at once: flush, or a failing request behind them. */
void qp_complete_sent(struct hca_qp *qp, when_t now);

/* qp.c, for qp_modify.c: what a transition does */
void qp_to_reset(struct hca_qp *qp);
void qp_to_sqd(struct hca_qp *qp);
/* qp.c, for hca.c: the QP's bucket goes out of another member from `changed` on. */
void qp_steer(struct hca_qp *qp, uint8_t member, when_t changed, when_t now);
/* The same without a word to the QP's machines: nothing is resent. */
void qp_set_member(struct hca_qp *qp, uint8_t member);

/* qp_rate.c: no more than `kbps`, in bursts of so many bytes; 0: no limit, a burst as it comes. */
void qp_rate_set(struct hca_qp *qp, uint32_t kbps, uint32_t burst);
/* How many of `max` request packets may go in this turn. 0: it will have another when some may. */
size_t qp_rate_room(struct hca_qp *qp, size_t max, when_t now);
/* These have gone; `more` may wait. */
void qp_rate_sent(struct hca_qp *qp, const struct hca_tx *tx, size_t n, bool more, when_t now);

/* agenda.c */
void agenda_ready(struct hca_qp *qp);                  /* may have packets: gets a turn */
void agenda_deadline(struct hca_qp *qp, when_t when);  /* NEVER: none */

#endif
