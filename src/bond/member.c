#include "bond/member.h"

void member_init(struct member *m)
{
    *m = (struct member){.state = MEMBER_DOWN, .deadline = NEVER, .rose = NEVER};
}

static void set_state(struct member *m, enum member_state state, when_t deadline)
{
    if (state == MEMBER_DOWN && member_usable(m)) m->downs++;
    m->state = state;
    m->deadline = deadline;
}

static uint64_t hold_ns(const struct member *m)
{
    if (m->flaps <= MEMBER_FREE_FLAPS) return 0;
    uint32_t doublings = m->flaps - MEMBER_FREE_FLAPS - 1;
    if (doublings > 16) return MEMBER_HOLD_MAX_NS;
    uint64_t hold = MEMBER_HOLD_NS << doublings;
    return hold < MEMBER_HOLD_MAX_NS ? hold : MEMBER_HOLD_MAX_NS;
}

static void link_came(struct member *m, uint64_t updelay_ns, when_t now)
{
    m->rose = now;
    if (m->state == MEMBER_FALLING) { /* back before anybody left it */
        set_state(m, MEMBER_UP, NEVER);
        return;
    }
    uint64_t hold = hold_ns(m);
    uint64_t wait = updelay_ns > hold ? updelay_ns : hold;
    if (wait)
        set_state(m, MEMBER_RISING, when_add(now, wait));
    else
        set_state(m, MEMBER_UP, NEVER);
}

static void link_went(struct member *m, uint64_t downdelay_ns, when_t now)
{
    if (when_since(now, m->rose) < MEMBER_STABLE_NS)
        m->flaps++;
    else
        m->flaps = 0;
    if (m->state == MEMBER_UP && downdelay_ns)
        set_state(m, MEMBER_FALLING, when_add(now, downdelay_ns));
    else
        set_state(m, MEMBER_DOWN, NEVER);
}

void member_link(struct member *m, bool link, uint64_t updelay_ns, uint64_t downdelay_ns,
                 when_t now)
{
    bool had = m->state == MEMBER_RISING || m->state == MEMBER_UP;

    if (link && !had) link_came(m, updelay_ns, now);
    if (!link && had) link_went(m, downdelay_ns, now);
}

void member_expire(struct member *m, when_t now)
{
    if (!when_due(m->deadline, now)) return;
    if (m->state == MEMBER_RISING) set_state(m, MEMBER_UP, NEVER);
    if (m->state == MEMBER_FALLING) set_state(m, MEMBER_DOWN, NEVER);
}

void member_promote(struct member *m)
{
    if (m->state == MEMBER_RISING) set_state(m, MEMBER_UP, NEVER);
}
