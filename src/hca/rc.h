/* The reliable connected service of one QP (IBTA vol. 1, chapter 9), made of five machines:
 *
 *   rc_req.c rc_comp.c    the requester: WQEs -> packets, and responses -> completions
 *   rc_resp.c rc_reply.c  the responder: requests -> memory, and what it owes in return
 *   rc_timer.c            when the requester must resend, and what it costs
 *   rc_doubt.c            was what a timer resent lost at all?
 *   window.c              how many bytes may be unacknowledged
 *
 * rc.c joins them: it is what qp.c and hca.c call. */
#ifndef RBOND_HCA_RC_H
#define RBOND_HCA_RC_H

#include "hca/hca.h"
#include "hca/rc_doubt.h"
#include "hca/rc_req.h"
#include "hca/rc_resp.h"
#include "hca/rc_timer.h"
#include "hca/window.h"

struct hca_qp;

/* What is owed for packets marked on their way (annex A17.9). */
struct rc_ecn {
    bool cnp_due;
    when_t quiet_until; /* one was sent lately */
};

struct rc {
    struct rc_req req;
    struct rc_resp resp;
    struct rc_timer timer;
    struct rc_doubt doubt;
    struct rc_ecn ecn;
    struct window window;
};

/* Called by qp.c on the way RESET -> INIT .. RTS; allocates the responder resources. Again on a QP
 * that has them: 0. */
int rc_init(struct hca_qp *qp);
void rc_fini(struct hca_qp *qp);
void rc_to_rtr(struct hca_qp *qp); /* responder starts at attr.rq_psn */
void rc_to_rts(struct hca_qp *qp); /* requester starts at attr.sq_psn (from RTR only) */
/* The QP enters ERR: the receive WQE of an unfinished message completes as flushed, clocks stop,
 * the window is given back. qp.c flushes the queues afterwards. */
void rc_to_err(struct hca_qp *qp, when_t now);
void rc_reset(struct hca_qp *qp);
/* A WQE was pushed to qp->sq. */
void rc_posted(struct hca_qp *qp, when_t now);
/* A packet for this QP, headers decoded; payload inside rx->data. */
void rc_input(struct hca_qp *qp, const struct hca_rx *rx, const struct roce_hdr *h,
              const uint8_t *payload, size_t len, when_t now);
/* A packet for this QP came with this traffic class: where its ECN field tells of congestion, the
 * peer is told (annex A17.9.2). */
void rc_ecn(struct hca_qp *qp, uint8_t traffic_class, when_t now);
/* A congestion notification for this QP (annex A17.9); hca.c has counted it. */
void rc_cnp(struct hca_qp *qp, when_t now);
/* Up to max packets; fewer than max means: nothing more may go now. */
size_t rc_output(struct hca_qp *qp, struct hca_tx *out, size_t max, when_t now);
void rc_expire(struct hca_qp *qp, when_t now);
/* qp->member has changed (perhaps from or to STEER_NO_MEMBER). True: requests were unacknowledged.
 */
bool rc_port_moved(struct hca_qp *qp, when_t now);
/* SQD: stop starting new WQEs; resume with RTS. Draining ends with qp_sq_drained. */
bool rc_sq_idle(const struct hca_qp *qp); /* no started WQE is incomplete */
/* Attributes that count while running have changed (timeout, retry counts, access, min_rnr). */
void rc_attr_changed(struct hca_qp *qp);

#endif
