/* Points in time as values. Engines are told the time and never read a clock; the drivers feed
 * them CLOCK_MONOTONIC nanoseconds, the simulator its own virtual time. */
#ifndef RBOND_BASE_WHEN_H
#define RBOND_BASE_WHEN_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint64_t ns;
} when_t;

#define NEVER ((when_t){UINT64_MAX})
#define US_NS 1000ull
#define MS_NS 1000000ull
#define SEC_NS 1000000000ull

static inline bool when_is_never(when_t w) { return w.ns == UINT64_MAX; }

/* Has the moment `w` come at `now`? NEVER has not, at any time. */
static inline bool when_due(when_t w, when_t now) { return !when_is_never(w) && w.ns <= now.ns; }

static inline bool when_before(when_t a, when_t b) { return a.ns < b.ns; }

static inline when_t when_min(when_t a, when_t b) { return a.ns < b.ns ? a : b; }

/* `w` plus `ns` nanoseconds; saturates at NEVER. */
static inline when_t when_add(when_t w, uint64_t ns)
{
    return (when_t){w.ns > UINT64_MAX - ns ? UINT64_MAX : w.ns + ns};
}

/* Nanoseconds from `then` to `now`; 0 where `then` lies ahead. */
static inline uint64_t when_since(when_t now, when_t then)
{
    return now.ns > then.ns ? now.ns - then.ns : 0;
}

#endif
