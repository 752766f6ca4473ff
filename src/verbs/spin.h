/* Does the program drive its adapter by itself? The judgement that the worker goes by; no clock, no
 * lock.
 *
 * A program that spins in ibv_poll_cq looks at its socket every microsecond or so, and is best left
 * alone. One that spins on its memory for an RDMA WRITE, and polls once between two of them, is
 * just as lively at the moment of its poll; but then it waits for a packet that nobody takes. So it
 * is the rate of polls that counts, and not a pause between them, since a processor that is shared
 * makes pauses, not least by waking the worker.
 *
 * The worker leaves when the program has polled often for some time, and looks again soon, then
 * later and later. If it finds at once that the polls have ceased it should not have left: each
 * time it watches for twice as long before it tries again, so that a program which only seems to
 * spin loses little.
 *
 * A CQ that is armed says that the program is about to sleep, until it has polled often again. It
 * may do so with the CQ still armed: UCX arms one for its connections and spins on others. */
#ifndef RBOND_VERBS_SPIN_H
#define RBOND_VERBS_SPIN_H

#include "base/when.h"
#include <stdatomic.h>

/* Polls that come this often, on average, are those of a program that drives. */
#define SPIN_POLL_NS (8 * US_NS)
/* Without a poll for so long it has stopped. */
#define SPIN_STALE_NS (150 * US_NS)
/* How long polls must have come often for the worker to leave: at first, and at most. */
#define SPIN_PROOF_LEAST_NS (50 * US_NS)
#define SPIN_PROOF_MOST_NS (16 * SPIN_PROOF_LEAST_NS)
/* How long it stays away before it looks. A wake-up costs the program some 30 us on a virtual
 * machine, so less and less often while it spins. */
#define SPIN_LOOK_LEAST_NS (50 * US_NS)
#define SPIN_LOOK_MOST_NS MS_NS
/* If the program has driven for so long it was right to leave. */
#define SPIN_WORTH_NS (150 * US_NS)

struct spin {
    /* The polling threads'. Of polls by two of them at once one may go uncounted. */
    _Atomic uint64_t last_ns; /* when a poll last drove */
    _Atomic uint32_t polls;
    _Atomic bool armed; /* since the worker last judged */
    /* The worker's. */
    when_t since; /* the time that it judges by began here, and how many polls there were then */
    uint32_t polls_then;
    uint64_t proof_ns; /* 0: SPIN_PROOF_LEAST_NS */
    uint64_t look_ns;
    when_t left;
};

/* A thread of the program's has done what takes about as long as `n` polls. */
static inline void spin_count(struct spin *s, uint32_t n)
{
    uint32_t polls = atomic_load_explicit(&s->polls, memory_order_relaxed);
    atomic_store_explicit(&s->polls, polls + n, memory_order_relaxed);
}

/* It polls. */
static inline void spin_polled(struct spin *s, when_t now)
{
    atomic_store_explicit(&s->last_ns, now.ns, memory_order_relaxed);
    spin_count(s, 1);
}

/* It has armed a CQ, and so is about to sleep. */
static inline void spin_armed(struct spin *s) { atomic_store(&s->armed, true); }

/* The worker is on watch; may it leave? True: it does. */
bool spin_leave(struct spin *s, when_t now);
/* How long it stays away from here on, ns. */
uint64_t spin_look_after(struct spin *s);
/* It looks. `inside`: a thread of the program's drives just now. True: it can stay away. */
bool spin_goes_on(struct spin *s, bool inside, when_t now);

#endif
