/* Was what a timer resent lost at all? See rc_doubt.c. Knows nothing of packets. */
#ifndef RBOND_HCA_RC_DOUBT_H
#define RBOND_HCA_RC_DOUBT_H

#include "base/when.h"
#include <stdbool.h>
#include <stdint.h>

struct rc_doubt {
    enum { RC_DOUBT_IDLE, RC_DOUBT_ASKED, RC_DOUBT_ASKED_AGAIN } state;
    bool trusting;     /* the last doubt was called unfounded, and no answer has come since */
    when_t asked_at;   /* when the oldest was resent */
    uint64_t first_ns; /* from there to the first answer */
};

enum rc_doubt_verdict {
    RC_DOUBT_NONE,      /* nothing was in doubt */
    RC_DOUBT_STANDS,    /* one more packet may be resent, for another answer */
    RC_DOUBT_ALL_THERE, /* everything is acknowledged */
    RC_DOUBT_UNFOUNDED, /* the first sending is being answered: nothing need be resent */
    RC_DOUBT_FOUNDED,   /* it was lost */
};

/* A timer has struck, and the oldest unacknowledged packet alone is resent. */
void rc_doubt_struck(struct rc_doubt *d, when_t now);
/* `una` has moved on: as far as what was sent ever (`all`), further than what was resent (`ahead`).
 * least_rtt_ns: no answer was ever faster; 0: not known. */
enum rc_doubt_verdict rc_doubt_answered(struct rc_doubt *d, bool all, bool ahead,
                                        uint64_t least_rtt_ns, when_t now);
/* Something else has decided: a NAK, a new port. */
void rc_doubt_over(struct rc_doubt *d);

#endif
