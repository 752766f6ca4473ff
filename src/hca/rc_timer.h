/* When an RC requester must resend, and what it costs: see rc_timer.c. Knows nothing of packets. */
#ifndef RBOND_HCA_RC_TIMER_H
#define RBOND_HCA_RC_TIMER_H

#include "base/when.h"
#include "wire/roce.h"
#include <stdbool.h>
#include <stdint.h>

struct rc_timer {
    uint64_t timeout_ns;          /* the local ACK timeout as configured; 0: never */
    uint8_t retry_cnt, rnr_retry; /* as configured */
    uint8_t retries, rnrs;        /* left */
    uint8_t backoff;              /* the probe's: doublings */
    bool have_rtt, timing;
    bool resent; /* a clock has struck since `silent_since`: an answer may be to any sending */
    uint64_t srtt_ns, rttvar_ns;
    uint64_t least_rtt_ns; /* of this path; 0: not known */
    uint64_t took_ns;      /* such an answer; 0: measured since */
    uint64_t patience_ns;  /* known to be needed, since that one was to the first; 0: the same */
    psn_t timed_psn;
    when_t timed_at;
    when_t silent_since;    /* waiting began, or was answered last */
    when_t path_since;      /* and on this path */
    when_t ack, probe, rnr; /* the clocks; NEVER: stopped */
};

enum rc_timer_verdict {
    RC_TIMER_IDLE,      /* nothing has come due */
    RC_TIMER_PROBE,     /* resend the oldest, uncharged */
    RC_TIMER_RETRY,     /* resend, a retry is charged */
    RC_TIMER_EXHAUSTED, /* no retry is left: RETRY_EXC_ERR */
    RC_TIMER_RNR_OVER,  /* the receiver may be ready now */
};

/* timeout: the code of 5 bits; rnr_retry 7: infinite. */
void rc_timer_start(struct rc_timer *t);
void rc_timer_conf(struct rc_timer *t, uint8_t timeout, uint8_t retry_cnt, uint8_t rnr_retry);
/* Responses are awaited, or no longer: the clocks start unless they run, or stop. */
void rc_timer_await(struct rc_timer *t, bool awaited, when_t now);
/* A packet with AckReq, or a READ, was sent for the first time: it may be timed. */
void rc_timer_sent(struct rc_timer *t, psn_t psn, when_t now);
/* `una` has moved on: the retry counts are whole again. */
void rc_timer_ack_seen(struct rc_timer *t, psn_t una, bool awaited, when_t now);
/* [psn, psn + n) was sent again: an answer can no longer be told from one to the first sending. */
void rc_timer_resent(struct rc_timer *t, psn_t psn, uint32_t n);
/* What was acknowledged after a resend had arrived before it: the clocks did not wait long enough. */
void rc_timer_was_hasty(struct rc_timer *t);
/* The QP moved to another port: clocks begin anew, nothing is charged. */
void rc_timer_moved(struct rc_timer *t, bool awaited, when_t now);
/* An RNR NAK came. False: rnr_retry is exhausted. */
bool rc_timer_rnr_seen(struct rc_timer *t, uint8_t code, when_t now);
static inline bool rc_timer_in_rnr(const struct rc_timer *t) { return !when_is_never(t->rnr); }
when_t rc_timer_deadline(const struct rc_timer *t);
/* Has there been no answer for so long that the path itself is in doubt? Asked after a verdict. */
bool rc_timer_is_silent(const struct rc_timer *t, when_t now);
/* Another path is tried; what is charged stays so. */
void rc_timer_detoured(struct rc_timer *t, when_t now);
/* No answer came faster on this path; 0: not known. */
static inline uint64_t rc_timer_least_rtt(const struct rc_timer *t) { return t->least_rtt_ns; }
enum rc_timer_verdict rc_timer_expire(struct rc_timer *t, when_t now);

/* IBTA table 45: the wait that a 5-bit RNR NAK timer code asks for. */
uint64_t rc_rnr_ns(uint8_t code);

#endif
