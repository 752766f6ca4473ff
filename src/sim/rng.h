/* The simulator's only source of chance: splitmix64, so that a run follows from its 64-bit seed. */
#ifndef RBOND_SIM_RNG_H
#define RBOND_SIM_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t state;
};

static inline uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static inline uint64_t rng_u64(struct rng *r) { return mix64(r->state += 0x9e3779b97f4a7c15ull); }

/* Uniform in [0, n); 0 for n 0. */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)rng_u64(r) * n) >> 64);
}

/* Uniform in [lo, hi]. */
static inline uint64_t rng_range(struct rng *r, uint64_t lo, uint64_t hi)
{
    return lo + rng_below(r, hi - lo + 1);
}

/* True with a chance of n in a million. */
static inline bool rng_ppm(struct rng *r, uint32_t n) { return n && rng_below(r, 1000000) < n; }

static inline bool rng_percent(struct rng *r, uint32_t n) { return rng_below(r, 100) < n; }

/* A generator of its own for one purpose, so that drawing more there moves nothing elsewhere. */
static inline struct rng rng_fork(const struct rng *r, uint64_t purpose)
{
    return (struct rng){mix64(r->state ^ mix64(purpose * 0x9e3779b97f4a7c15ull + 1))};
}

#endif
