/* A timer struck and the oldest packet was resent. Was it lost, or does its answer only take
 * longer? Where the peer is slow or far, resending all that is out would double the traffic for
 * nothing, and cutting the window for it keeps the window at one packet for ever.
 *
 * RoCE has no timestamps to tell which sending an answer belongs to (RFC 3522, Eifel). But a
 * responder executes in order, and one packet alone was resent:
 *
 * - An answer that comes sooner after the resend than any answer ever came is to the first sending.
 * - One that acknowledges more than was resent shows that more of the first sending had arrived; it
 *   may still be the resend that has brought it out, after a lost NAK or ACK. So one more packet is
 *   resent, and the next answer decides (RFC 5682, F-RTO): if again it goes beyond what was resent,
 *   or comes too soon, the first sending is being answered.
 * - If it acknowledges just what was resent, the rest was lost.
 *
 * Where no round trip was measured yet, the first answer's delay stands for it. To call a doubt
 * unfounded is to wait for the timer once more, so it is not done twice without an answer between.
 */
#include "hca/rc_doubt.h"

void rc_doubt_struck(struct rc_doubt *d, when_t now)
{
    d->state = RC_DOUBT_ASKED;
    d->asked_at = now;
    d->first_ns = 0;
}

void rc_doubt_over(struct rc_doubt *d) { *d = (struct rc_doubt){0}; }

/* Sooner than the way there and back takes, with a margin for a measurement that was unlucky. */
static bool too_soon(const struct rc_doubt *d, uint64_t took_ns, uint64_t least_rtt_ns)
{
    uint64_t least = least_rtt_ns ? least_rtt_ns : d->first_ns;
    return took_ns < least / 4 * 3;
}

enum rc_doubt_verdict rc_doubt_answered(struct rc_doubt *d, bool all, bool ahead,
                                        uint64_t least_rtt_ns, when_t now)
{
    if (d->state == RC_DOUBT_IDLE) {
        d->trusting = false;
        return RC_DOUBT_NONE;
    }
    uint64_t took = when_since(now, d->asked_at);
    bool again = d->state == RC_DOUBT_ASKED_AGAIN;
    if (all) {
        rc_doubt_over(d);
        return RC_DOUBT_ALL_THERE;
    }
    if (!d->trusting && (too_soon(d, took, least_rtt_ns) || (again && ahead))) {
        rc_doubt_over(d);
        d->trusting = true;
        return RC_DOUBT_UNFOUNDED;
    }
    if (again) {
        rc_doubt_over(d);
        return RC_DOUBT_FOUNDED;
    }
    d->state = RC_DOUBT_ASKED_AGAIN;
    d->asked_at = now;
    d->first_ns = took;
    return RC_DOUBT_STANDS;
}
