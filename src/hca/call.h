/* XRC between functions (annex A14): a target's requests for SRQs of other functions of its domain.
 *
 * The target's function, the caller, keeps PSNs and order, and answers the peer. The SRQ's function,
 * the callee, has the receives, the memory and the keys. A request comes out of the one as a call and
 * goes into the other, which executes it and says how it went; only then it is acknowledged. Calls
 * of a target go to one callee at a time: what is for another waits until all are answered, so that
 * a refusal leaves nothing executed behind it.
 *
 * The owner carries calls and answers: between two functions each way whole, once and in order, or
 * it says that the other one has gone. */
#ifndef RBOND_HCA_CALL_H
#define RBOND_HCA_CALL_H

#include "hca/hca.h"

/* Of a READ's data, at a time. */
#define HCA_CALL_PIECES 16
#define HCA_CALL_DATA (HCA_CALL_PIECES * HCA_MAX_MTU)

enum hca_call_kind {
    HCA_CALL_REQUEST = 1, /* execute a packet -> the verdict */
    HCA_CALL_READ,        /* some bytes of a READ whose request was granted -> these */
    HCA_CALL_END,         /* the target's message will not be finished; no answer */
};

struct hca_call {
    enum hca_call_kind kind;
    uint32_t xrcd;     /* the caller's number of the domain */
    uint16_t function; /* the callee */
    qpn_t qpn;         /* the target */
    uint32_t epoch;    /* stands in the answer */
    union {
        struct { /* HCA_CALL_REQUEST, with what counts of the target's attributes */
            qpn_t src_qpn;
            uint32_t access, mtu; /* bytes */
            uint8_t min_rnr_timer;
            uint8_t hdr_len;
            uint8_t hdr[ROCE_MAX_HDR_LEN]; /* BTH and extended headers, its pad 0 */
            const uint8_t *payload;        /* valid until the next call on the caller's hca */
            uint32_t len;
        };
        bool failed; /* HCA_CALL_END: the target entered ERR; else it was reset or destroyed */
        struct { /* HCA_CALL_READ */
            uint64_t va;
            uint32_t srqn, rkey;
            uint32_t bytes; /* 1 .. HCA_CALL_DATA */
        };
    };
};

struct hca_answer {
    enum hca_call_kind kind; /* of the call */
    qpn_t qpn;
    uint32_t epoch;
    union {
        struct { /* HCA_CALL_REQUEST */
            psn_t psn;
            uint8_t syndrome; /* enum aeth_syndrome: AETH_ACK, or why not */
            bool fatal;       /* it is the target's last word */
            int8_t event;     /* that the target then raises; -1: none */
            uint64_t result;  /* an atomic's */
        };
        struct { /* HCA_CALL_READ */
            uint32_t bytes; /* 0: refused */
            uint32_t pieces;
            struct iovec piece[HCA_CALL_PIECES]; /* valid until the next call on the callee's hca */
        };
    };
};

/* ---- the caller's side -------------------------------------------------------------------- */

/* The next call that is to go out; false: none now. It stays the next until one of the three below. */
bool hca_next_call(struct hca *hca, struct hca_call *call);
/* It is on its way. */
void hca_call_sent(struct hca *hca, const struct hca_call *call);
/* There is no room on its way just now: it is not given again before hca_calls_resume. */
void hca_call_full(struct hca *hca, const struct hca_call *call);
void hca_calls_resume(struct hca *hca);
/* Its callee does not take part in the domain: the request is refused as one for no SRQ. */
void hca_call_lost(struct hca *hca, const struct hca_call *call, when_t now);
/* Nothing of an answer is trusted. */
void hca_answer_input(struct hca *hca, uint32_t xrcd, uint16_t function, const struct hca_answer *answer,
                      when_t now);

/* ---- the callee's side -------------------------------------------------------------------- */

/* Executes a call of `function`; `xrcd` is the callee's number of the domain that both take part in.
 * True: `answer` is filled and must go back. Nothing of a call is trusted. */
bool hca_call_input(struct hca *hca, uint32_t xrcd, uint16_t function, const struct hca_call *call,
                    struct hca_answer *answer, when_t now);

/* ---- both ---------------------------------------------------------------------------------- */

/* That function has left the domain, or ended. What it was asked is refused as if its SRQs were
 * destroyed; what its targets were in is flushed. */
void hca_function_gone(struct hca *hca, uint32_t xrcd, uint16_t function, when_t now);

#endif
