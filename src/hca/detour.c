/* Detours. The steering table knows of links that have lost their carrier. A path may die further
 * on, behind a switch, while both its ends keep theirs: the other host's cable is pulled, and only
 * that host's table says so. Then nothing comes back on the member that our table names. A
 * requester that has been met with silence for a while goes by the other usable members in turn
 * (rc_timer.c: how long), and a responder whose peer repeats itself on another member answers
 * there. So both ends find a way as long as one is left, and no more is charged than the retries
 * that IBTA's clock charges anyway.
 *
 * A detour ends with the next table that chooses otherwise, or by itself: after a second, then two,
 * four, up to a minute, the table's choice is tried again. A path that is still dead then costs a
 * requester one more silence and a responder one repetition. */
#include "hca/adapter.h"
#include "hca/qp.h"

#define HOLD_MIN_NS (1 * SEC_NS)
#define HOLD_MAX_NS (64 * SEC_NS)
#define INSIST_TIMES 2

void detour_reset(struct detour *d)
{
    *d = (struct detour){
        .hold_ns = HOLD_MIN_NS, .heard = STEER_NO_MEMBER, .heard_first = STEER_NO_MEMBER};
}

void detour_heard(struct hca_qp *qp, uint8_t member)
{
    struct detour *d = &qp->detour;
    d->heard = member;
    if (d->heard_first == STEER_NO_MEMBER) d->heard_first = member;
}

static bool is_usable(const struct hca *hca, uint8_t member)
{
    return member < STEER_MAX_MEMBERS && (hca->table.usable >> member & 1);
}

/* The QP will use `member` from now on. */
static void note(struct hca_qp *qp, uint8_t member, when_t now)
{
    struct detour *d = &qp->detour;
    qp->hca->counters.detours++;
    d->on = member != qp->hca->table.active[qp->bucket];
    if (!d->on) return;
    d->until = when_add(now, d->hold_ns);
    if (d->hold_ns < HOLD_MAX_NS) d->hold_ns *= 2;
}

void detour_start(struct hca_qp *qp, when_t now)
{
    if (qp->member == STEER_NO_MEMBER) return;
    for (uint8_t i = 1; i < STEER_MAX_MEMBERS; i++) {
        uint8_t member = (uint8_t)((qp->member + i) % STEER_MAX_MEMBERS);
        if (!is_usable(qp->hca, member)) continue;
        note(qp, member, now);
        qp_set_member(qp, member);
        return;
    }
}

/* One that has moved has its reasons. One that stays where it was may have lost a packet, unless it
 * says the same again and again. */
static bool insists(struct detour *d, psn_t psn)
{
    if (psn_diff(psn, d->again) != 0) d->times = 0;
    d->again = psn;
    if (d->times < INSIST_TIMES) d->times++;
    return d->heard != d->heard_first || d->times == INSIST_TIMES;
}

void detour_follow(struct hca_qp *qp, uint8_t member, psn_t psn, when_t now)
{
    if (member == qp->member || qp->member == STEER_NO_MEMBER || !is_usable(qp->hca, member))
        return;
    if (!insists(&qp->detour, psn)) return;
    note(qp, member, now);
    qp_steer(qp, member, now, now);
}

bool detour_stands(const struct hca_qp *qp)
{
    return qp->detour.on && is_usable(qp->hca, qp->member);
}

void detour_end_if_due(struct hca_qp *qp, when_t now)
{
    if (!qp->detour.on || !when_due(qp->detour.until, now)) return;
    qp->detour.on = false;
    qp_set_member(qp, qp->hca->table.active[qp->bucket]);
}
