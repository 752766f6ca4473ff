/* One host's memory: plots that requests use, each between guard zones, grouped in lots. A lot
 * becomes one memory region. Every byte has an expected value at all times: a pattern that follows
 * from a key and an offset, so that a byte says which message, and which place in it, it came from.
 *
 * Use: ground_lot and ground_plot while planning, ground_build once, then paint and check. */
#ifndef RBOND_SIM_GROUND_H
#define RBOND_SIM_GROUND_H

#include "sim/rng.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GROUND_MAX_LOTS 8
#define BUF_MAX_PLOTS 8

struct plot {
    uint8_t *bytes;
    uint32_t len;
    uint8_t host, lot;
    uint32_t offset; /* in its lot */
    uint64_t key;    /* what it holds: pattern(key, koff + i) ... */
    uint32_t koff;
    uint64_t pending_key; /* ... or a prefix of this, where a write is under way; 0: none */
    uint32_t pending_koff;
    uint32_t uses; /* requests that still need it; sealed when the last is done */
    bool wild;     /* contents not checked at the end (atomics have their own check) */
};

struct lot {
    uint8_t *bytes;
    uint32_t len;
    uint32_t head_guard, tail_guard;
};

struct ground {
    uint8_t host;
    uint64_t seed;
    uint8_t *arena;
    size_t arena_len;
    uint32_t nlots;
    struct lot lot[GROUND_MAX_LOTS];
    struct plot **plot;
    size_t nplots, room;
};

/* A message's bytes on one host: plots in turn. */
struct buf {
    uint32_t len;
    uint8_t n;
    struct plot *plot[BUF_MAX_PLOTS];
};

void ground_init(struct ground *g, uint8_t host, uint64_t seed);
void ground_free(struct ground *g);
uint8_t ground_lot(struct ground *g);
struct plot *ground_plot(struct ground *g, uint8_t lot, uint32_t len);
void ground_build(struct ground *g);
/* Are all guard zones whole? Else *where is the arena offset of the first bad byte. */
bool ground_outside_ok(const struct ground *g, size_t *where); /* only what no region covers */
bool ground_guards_ok(const struct ground *g, size_t *where);

/* The first `len` bytes get pattern(key, koff ..); the plot's expected contents become that. */
void plot_paint(struct plot *p, uint64_t key, uint32_t koff);
/* One user less; the last one's leaving repaints the plot, so that a late writer shows. */
void plot_release(struct plot *p);
bool plot_holds(const struct plot *p, uint64_t key, uint32_t koff, uint32_t len);
/* What it should hold, or where a write is pending a prefix of that and then the old. */
bool plot_as_expected(const struct plot *p);

void buf_paint(struct buf *b, uint64_t key);
/* Bytes [0, len) of the message are pattern(key, 0 ..). */
bool buf_holds(const struct buf *b, uint64_t key, uint32_t len);
/* After `len` bytes of pattern `key` the rest is as it was. */
bool buf_tail_untouched(const struct buf *b, uint32_t len);
/* Some prefix is pattern(key), the rest as it was. */
bool buf_prefix(const struct buf *b, uint64_t key);
void buf_expect(struct buf *b, uint64_t key);
void buf_settle(struct buf *b, uint64_t key, uint32_t len);
void buf_release(struct buf *b);

uint8_t pattern_byte(uint64_t key, uint32_t off);
void pattern_fill(uint8_t *to, uint64_t key, uint32_t off, uint32_t len);
/* How many of the `len` bytes are the pattern's, from the start. */
uint32_t pattern_match(const uint8_t *at, uint64_t key, uint32_t off, uint32_t len);

#endif
