/* Inside the adapter: what a QP is made of, and how its machines meet.
 *
 *   qp.c       states, attribute masks, creation, flush           qpt.c     QPN -> QP
 *   sq.c rq.c  the work queues                                    agenda.c  deadlines and turns
 *   rc_req.c   RC requester: WQEs -> packets, responses -> completions
 *   rc_resp.c  RC responder: requests -> memory, ACKs, READ and atomic replies
 *   rc_timer.c when an RC requester must resend, and what it costs
 *   window.c   the byte window: growth and cut
 *   uc.c ud.c  the unacknowledged services                        mr.c cq.c srq.c  as named
 *
 * One machine never writes another's fields: it reports a fact by a function named for it. */
#ifndef RBOND_HCA_QP_H
#define RBOND_HCA_QP_H

#include "base/list.h"
#include "hca/cq.h"
#include "hca/hca.h"
#include "hca/mr.h"
#include "hca/rc.h"
#include "hca/rq.h"
#include "hca/sq.h"
#include "hca/uc.h"

struct hca_qp {
    struct hca *hca;
    void *owner;
    qpn_t qpn;
    enum hca_qp_type type;
    enum hca_qp_state state;
    uint32_t pd;
    bool sig_all;
    bool last_wqe_reported, comm_established;
    struct hca_qp_attr attr;
    uint32_t mtu;                  /* bytes: 256 << (attr.path_mtu - 1) */
    struct hca_cq *send_cq, *recv_cq;
    struct hca_srq *srq;
    struct sq sq;
    struct rq rq;                  /* unused with an SRQ */
    uint8_t bucket, member;        /* member: active one now; STEER_NO_MEMBER: hold */
    struct list turn;              /* in hca->ready while it may have packets */
    when_t deadline;               /* kept by agenda.c */
    size_t agenda_slot;
    union {
        struct rc rc;
        struct uc uc;
    };
    struct hca_qp_view view;       /* counters; the rest is filled by hca_qp_view */
    when_t gap_from;               /* a remap waits for its first acknowledgement; NEVER: none */
};

/* qp.c: facts that the machines report */

/* A work request failed: completes the request that failed with `status`, moves the QP to ERR and
 * flushes the rest. Which request failed, the machine has already said by completing it. */
void qp_fail(struct hca_qp *qp, when_t now);
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

/* Fills addresses, member, BTH (opcode, pad from payload_len, pkey, dqpn, psn) and encodes headers;
 * counts it. `h` carries what the extended headers want. Payload iov must be set already. */
void qp_emit(struct hca_qp *qp, struct hca_tx *tx, struct roce_hdr *h);

/* agenda.c */
void agenda_ready(struct hca_qp *qp);                  /* may have packets: gets a turn */
void agenda_deadline(struct hca_qp *qp, when_t when);  /* NEVER: none */

#endif
