/* The RC responder: the PSN it expects, the message it is in, and what it owes the requester. */
#ifndef RBOND_HCA_RC_RESP_H
#define RBOND_HCA_RC_RESP_H

#include "hca/hca.h"
#include "hca/rq.h"
#include "wire/opcode.h"

struct hca_qp;
struct hca_srq;
struct xrc_calls;

/* A responder resource (IBTA 9.7.5.1.2): a READ, atomic, FLUSH or ATOMIC WRITE that was executed, kept
 * so that a duplicate can be answered: a READ by reading again, an atomic from `result`, never by
 * executing it again. Packets [cur, end) of its response are still to be sent. */
struct rc_resource {
    psn_t psn;
    uint32_t npsn;
    uint32_t cur, end;
    uint64_t va;
    uint32_t pd, rkey, length;
    uint32_t srqn; /* whose function has the memory: xrc_calls.c; 0: this one */
    uint64_t result;
    uint8_t op;  /* enum roce_op of the request */
    bool fresh;  /* the next packet is the first of a response: RDMA READ response FIRST or ONLY */
    bool replay; /* answered whole before: this is a duplicate's answer, and may be dropped */
};

enum rc_message { RC_NO_MESSAGE, RC_IN_SEND, RC_IN_WRITE };

struct rc_resp {
    psn_t epsn;              /* the PSN expected */
    uint32_t msn;            /* 24 bits: messages completed */
    enum rc_message message; /* one is under way; the rest says how far */
    uint32_t offset;         /* bytes of it that have arrived */
    uint64_t va;             /* a WRITE's RETH */
    uint32_t rkey, length;
    bool have_rwqe;
    struct rwqe rwqe;

    bool muted; /* epsn is NAKed: drop without a word what comes beyond it */
    bool ack_due;
    bool plain_seen; /* plain_psn is one */
    psn_t plain_psn; /* of the SEND or WRITE packet executed last: what an ACK names */
    uint8_t nak;     /* enum aeth_syndrome to send; 0: none */
    psn_t nak_psn;
    bool dead;    /* the NAK is the last word: afterwards the QP fails */
    int8_t event; /* enum hca_event_type then raised; -1: none */

    struct rc_resource *ring; /* RC_RESOURCES */
    uint32_t tail, emit;      /* indices only grow: [emit, tail) may have something to send */
    struct xrc_calls *calls;  /* NULL: all requests are executed here */
};

/* max_dest_rd_atomic bounds how many are answered at a time, FLUSHes not counted; more are
 * remembered. */
#define RC_RESOURCES HCA_MAX_RD_ATOMIC

/* rc_resp.c: requests in */
void rc_resp_start(struct rc_resp *resp, psn_t first);
void rc_resp_input(struct hca_qp *qp, uint8_t via, const struct roce_hdr *h, const uint8_t *payload, size_t len,
                   when_t now);
void rc_resp_stop(struct hca_qp *qp, when_t now);
/* The request with the PSN expected: checks and executes it. What comes of it is as after its
 * arrival: epsn has moved, or a NAK is due. */
void rc_resp_execute(struct hca_qp *qp, const struct roce_hdr *h, const uint8_t *payload, size_t len,
                     when_t now);
/* The same request was executed by another function; `result`: an atomic's. */
void rc_resp_executed_elsewhere(struct hca_qp *qp, const struct roce_hdr *h, uint64_t result,
                                when_t now);
/* It is refused, with an enum aeth_syndrome. */
void rc_resp_refuse(struct hca_qp *qp, uint8_t syndrome);
/* An XRC SRQ is being destroyed, and a message that has taken a receive from it loses that. */
void rc_resp_srq_gone(struct hca_qp *qp, const struct hca_srq *srq);

/* rc_reply.c: responses out, READ data, atomic results and ACKs in the order of their requests. */
size_t rc_reply_output(struct hca_qp *qp, struct hca_tx *out, size_t max, when_t now);
/* The ACK that is due: 0 or 1 packets. It may wait while the owner holds acknowledgements. */
size_t rc_reply_ack_output(struct hca_qp *qp, struct hca_tx *out);
/* Room for a new resource, zeroed but for `op`; NULL: the requester has too many out. */
struct rc_resource *rc_reply_new(struct hca_qp *qp, enum roce_op op);
/* A duplicate of what has an answer: answers again where it is remembered. */
void rc_reply_again(struct hca_qp *qp, const struct roce_hdr *h);
/* Is a READ's first answer not all out yet? */
bool rc_reply_owes_read(const struct hca_qp *qp);
/* An ACK of the SEND or WRITE packet executed last, if there was one. */
void rc_reply_ack(struct hca_qp *qp);
/* `event` -1 or enum hca_event_type: NAK, then fail. */
void rc_reply_nak(struct hca_qp *qp, uint8_t syndrome);
void rc_reply_fatal(struct hca_qp *qp, uint8_t syndrome, psn_t psn, int event);

#endif
