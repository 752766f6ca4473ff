/* The RC requester: its place in the PSN space, and the READ requests it has out.
 *
 *          una             next             top
 *   acked   |  unacked      |  to be resent  |  never sent
 *
 * `una` is the oldest PSN unacknowledged, `next` the one to send next, `top` one past the highest
 * ever sent. A rewind sets next to una; acknowledgements up to top count all the same. `una` always
 * lies in the WQE at sq.head. A giant message may take 2^23 PSNs, more than psn_diff can tell
 * apart: so places inside a message are packet counts, and una, next and top stay within
 * RC_MAX_UNACKED. */
#ifndef RBOND_HCA_RC_REQ_H
#define RBOND_HCA_RC_REQ_H

#include "hca/hca.h"

struct hca_qp;
struct wqe;

#define RC_MAX_UNACKED (1 << 22) /* PSNs; half of what psn_diff can order. window.c sees to it */

/* AETH syndromes (IBTA 9.7.5.2.1, 9.7.5.2.8). 31 as credit count: no end-to-end flow control. */
enum aeth_syndrome {
    AETH_ACK = 0x1f,
    AETH_RNR_NAK = 0x20, /* OR the timer code */
    AETH_NAK_PSN_SEQUENCE = 0x60,
    AETH_NAK_INVALID_REQUEST = 0x61,
    AETH_NAK_REMOTE_ACCESS = 0x62,
    AETH_NAK_REMOTE_OPERATION = 0x63,
};

/* Requests with answers of their own (rc_is_answered) on the wire whose responses are not all in. Once
 * sent, a request keeps
 * its end: a resend may ask for a part of it but never for more, since the responder knows
 * duplicates only inside of what was asked first (IBTA 9.7.5.1.2). */
struct rc_reads {
    psn_t end[HCA_MAX_RD_ATOMIC]; /* one past the last response */
    uint32_t head, tail;          /* [head, tail) have no whole answer; indices only grow */
    uint32_t cursor; /* [head, cursor) are out since the last rewind: at most max_rd_atomic */
};

struct rc_req {
    psn_t una, next, top;
    psn_t start;         /* of the WQE started next */
    uint32_t una_pkt;    /* packets of the WQE at sq.head that are acknowledged */
    uint32_t send_index; /* WQE of `next`; sq.next: none started yet */
    uint32_t send_pkt;   /* and the packet in it */
    uint32_t top_index, top_pkt; /* the same of `top`, while next is behind it */
    uint32_t reads_open; /* WQEs with answers of their own started, not completed: a fence waits */
    uint32_t unasked;    /* bytes sent since the last AckReq */
    bool gap_handled;    /* rewound for the gap at una; more signs of it say nothing new */
    struct rc_reads reads;
};

/* rc_req.c */
void rc_req_start(struct rc_req *req, psn_t first);
size_t rc_req_output(struct hca_qp *qp, struct hca_tx *out, size_t max, when_t now);
/* Nothing sent since una counts as sent. */
void rc_req_rewind(struct hca_qp *qp);
/* All sent since una counts as sent after all. */
void rc_req_resume(struct hca_qp *qp);
/* The WQE at sq.head cannot go on: completes it so, the QP fails. */
void rc_req_fail(struct hca_qp *qp, enum hca_wc_status status, when_t now);
/* Completes the local WQEs at sq.head, which are executed and waited for their elders. */
void rc_req_complete_local(struct hca_qp *qp, when_t now);
/* Is something awaited from the peer, or held for want of a member? */
bool rc_req_waits(const struct hca_qp *qp);

/* Bytes of payload in packets [first, first + n) of a message, and what they cost the window. */
uint32_t rc_payload(const struct hca_qp *qp, uint32_t length, uint32_t first, uint32_t n);
uint32_t rc_cost(const struct hca_qp *qp, uint32_t length, uint32_t first, uint32_t n);
/* Has it a response of its own, and so one of the max_rd_atomic places? READ, the atomics, FLUSH and
 * ATOMIC WRITE (IBTA 9.7.3.1, annex A19). */
bool rc_is_answered(const struct wqe *wqe);

/* rc_comp.c: ACKs, NAKs and answers. */
void rc_comp_input(struct hca_qp *qp, const struct roce_hdr *h, const uint8_t *payload, size_t len,
                   when_t now);

#endif
