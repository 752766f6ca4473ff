/* Acknowledgements that wait for company. A request has come in, the program is about to answer it
 * with a request of its own: then ACK and answer leave in one burst, which saves a system call on
 * the way of the answer; and the peer is still in ibv_poll_cq, waiting for the ACK, when the answer
 * arrives, and takes it itself instead of waking its worker. So programs that answer each other by
 * RDMA WRITE, spinning on memory, run without their workers (ib_write_lat: a sixth of the time).
 *
 * An ACK that nothing follows is HOLD_NS late. So it is done only while it pays: every post that
 * takes a held ACK along earns, every one that went alone costs, and when all is spent only one
 * chance in PROBE_EVERY is tried. A program that is served passively pays for these few.
 *
 * Where it has paid often the ACK may wait longer, for more than a round trip between two workers:
 * then the next packet wakes the worker before its timer does, which would find that the ACK has
 * gone. A thread that has just been woken in vain is not let in front of a spinning program again
 * when the packet comes, but waits for the tick. */
#include "verbs/function.h"

#define HOLD_NS (20 * US_NS)
#define HOLD_LONG_NS (200 * US_NS)
#define MOST_WORTH 16
#define LONG_WORTH 8
#define PROBE_EVERY 64

when_t hold_deadline(const struct function *f)
{
    if (!f->holding) return NEVER;
    return when_add(f->held_since, f->hold_worth < LONG_WORTH ? HOLD_NS : HOLD_LONG_NS);
}

void hold_release(struct function *f)
{
    if (f->holding && f->hold_worth < MOST_WORTH) f->hold_worth++;
    f->holding = false;
    hca_hold_acks(f->hca, false);
}

void hold_decide(struct function *f, bool by_worker, bool received, when_t now)
{
    if (f->holding) {
        if (!when_due(hold_deadline(f), now)) return;
        if (f->hold_worth > 0) f->hold_worth--;
        f->holding = false;
        hca_hold_acks(f->hca, false);
        return;
    }
    /* Somebody must be there to end it: the worker itself, or the worker that looks again soon. */
    bool watched = by_worker || atomic_load_explicit(&f->away, memory_order_relaxed);
    bool worth = f->hold_worth > 0 || (received && f->hold_chances++ % PROBE_EVERY == 0);
    hca_hold_acks(f->hca, watched && worth);
}

void hold_note(struct function *f, when_t now)
{
    bool held = hca_acks_held(f->hca);
    if (held && !f->holding) f->held_since = now;
    f->holding = held;
}
