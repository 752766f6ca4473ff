/* See spin.h. */
#include "verbs/spin.h"

/* Since this was last asked: has the program polled often, and still does? */
static bool has_polled(struct spin *s, when_t now)
{
    when_t last = {atomic_load_explicit(&s->last_ns, memory_order_relaxed)};
    uint32_t polls = atomic_load_explicit(&s->polls, memory_order_relaxed);
    uint32_t came = polls - s->polls_then;
    bool often = came * SPIN_POLL_NS >= when_since(now, s->since);
    bool armed = atomic_exchange(&s->armed, false);

    s->since = now;
    s->polls_then = polls;
    return often && !armed && when_since(now, last) <= SPIN_STALE_NS;
}

static uint64_t proof(const struct spin *s)
{
    return s->proof_ns ? s->proof_ns : SPIN_PROOF_LEAST_NS;
}

bool spin_leave(struct spin *s, when_t now)
{
    bool asked = atomic_load(&s->armed) || when_since(now, s->since) >= proof(s);

    if (!asked || !has_polled(s, now)) return false;
    s->left = now;
    s->look_ns = SPIN_LOOK_LEAST_NS;
    return true;
}

uint64_t spin_look_after(struct spin *s)
{
    uint64_t ns = s->look_ns;
    s->look_ns = ns * 2 < SPIN_LOOK_MOST_NS ? ns * 2 : SPIN_LOOK_MOST_NS;
    return ns;
}

bool spin_goes_on(struct spin *s, bool inside, when_t now)
{
    if (atomic_load(&s->armed)) return false; /* no mistake */
    uint64_t longer = proof(s) * 2 < SPIN_PROOF_MOST_NS ? proof(s) * 2 : SPIN_PROOF_MOST_NS;
    bool worth = when_since(now, s->left) >= SPIN_WORTH_NS;

    if (has_polled(s, now) || inside) return true;
    s->proof_ns = worth ? SPIN_PROOF_LEAST_NS : longer;
    return false;
}
