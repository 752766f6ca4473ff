/* See ground.h. */
#include "sim/ground.h"
#include "base/must.h"
#include <stdlib.h>
#include <string.h>

#define GUARD_BYTE 0xa7

static uint64_t pattern_word(uint64_t key, uint32_t index)
{
    return mix64(key + index * 0xd1342543de82ef95ull);
}

uint8_t pattern_byte(uint64_t key, uint32_t off)
{
    return (uint8_t)(pattern_word(key, off >> 3) >> (8 * (off & 7)));
}

void pattern_fill(uint8_t *to, uint64_t key, uint32_t off, uint32_t len)
{
    for (; len && (off & 7); len--) *to++ = pattern_byte(key, off++);
    for (; len >= 8; len -= 8, off += 8, to += 8) {
        uint64_t w = pattern_word(key, off >> 3);
        memcpy(to, &w, 8);
    }
    for (; len; len--) *to++ = pattern_byte(key, off++);
}

uint32_t pattern_match(const uint8_t *at, uint64_t key, uint32_t off, uint32_t len)
{
    uint32_t done = 0;
    while (done < len) {
        if (((off + done) & 7) == 0 && len - done >= 8) {
            uint64_t want = pattern_word(key, (off + done) >> 3), got;
            memcpy(&got, at + done, 8);
            if (want == got) {
                done += 8;
                continue;
            }
        }
        if (at[done] != pattern_byte(key, off + done)) break;
        done++;
    }
    return done;
}

void ground_init(struct ground *g, uint8_t host, uint64_t seed)
{
    *g = (struct ground){.host = host, .seed = seed};
}

void ground_free(struct ground *g)
{
    for (size_t i = 0; i < g->nplots; i++) free(g->plot[i]);
    free(g->plot);
    free(g->arena);
    *g = (struct ground){0};
}

uint8_t ground_lot(struct ground *g)
{
    must(g->nlots < GROUND_MAX_LOTS);
    return (uint8_t)g->nlots++;
}

struct plot *ground_plot(struct ground *g, uint8_t lot, uint32_t len)
{
    must(lot < g->nlots && !g->arena);
    if (g->nplots == g->room) {
        g->room = g->room ? g->room * 2 : 64;
        g->plot = realloc(g->plot, g->room * sizeof *g->plot);
        must(g->plot);
    }
    struct plot *p = calloc(1, sizeof *p);
    must(p);
    *p = (struct plot){.len = len, .host = g->host, .lot = lot};
    /* Odd places are welcome, atomics want 8-byte alignment: plots of 8 bytes get it. */
    struct lot *l = &g->lot[lot];
    uint64_t chance = mix64(g->seed + g->nplots);
    uint32_t guard = 16 + (uint32_t)(chance % 23);
    if (len == 8) guard += (8 - (l->len + guard) % 8) % 8;
    p->offset = l->len + guard;
    l->len = p->offset + len;
    g->plot[g->nplots++] = p;
    return p;
}

void ground_build(struct ground *g)
{
    size_t total = 0;
    for (uint32_t i = 0; i < g->nlots; i++) {
        struct lot *l = &g->lot[i];
        l->head_guard = 64;
        l->tail_guard = 64 + (8 - l->len % 8) % 8;
        l->len += 16; /* inside the region, behind the last plot */
        l->tail_guard += (8 - (l->len + l->tail_guard) % 8) % 8;
        total += l->head_guard + l->len + l->tail_guard;
    }
    g->arena_len = total;
    g->arena = malloc(total + 1);
    must(g->arena);
    memset(g->arena, GUARD_BYTE, total);
    uint8_t *at = g->arena;
    for (uint32_t i = 0; i < g->nlots; i++) {
        struct lot *l = &g->lot[i];
        l->bytes = at + l->head_guard;
        at += l->head_guard + l->len + l->tail_guard;
    }
    for (size_t i = 0; i < g->nplots; i++) {
        struct plot *p = g->plot[i];
        p->bytes = g->lot[p->lot].bytes + p->offset;
        plot_paint(p, mix64(g->seed ^ (i + 1) << 20) | 1, 0);
    }
}

static bool guard_ok(const struct ground *g, size_t from, size_t to, size_t *where)
{
    for (size_t i = from; i < to; i++) {
        if (g->arena[i] == GUARD_BYTE) continue;
        *where = i;
        return false;
    }
    return true;
}

bool ground_outside_ok(const struct ground *g, size_t *where)
{
    size_t at = 0;
    for (uint32_t lot = 0; lot < g->nlots; lot++) {
        size_t start = (size_t)(g->lot[lot].bytes - g->arena);
        if (!guard_ok(g, at, start, where)) return false;
        at = start + g->lot[lot].len;
    }
    return guard_ok(g, at, g->arena_len, where);
}

bool ground_guards_ok(const struct ground *g, size_t *where)
{
    size_t at = 0;
    /* Plots lie in the arena lot by lot, and in a lot in the order they were made. */
    for (uint32_t lot = 0; lot < g->nlots; lot++) {
        for (size_t i = 0; i < g->nplots; i++) {
            const struct plot *p = g->plot[i];
            if (p->lot != lot) continue;
            size_t start = (size_t)(p->bytes - g->arena);
            if (!guard_ok(g, at, start, where)) return false;
            at = start + p->len;
        }
    }
    return guard_ok(g, at, g->arena_len, where);
}

void plot_paint(struct plot *p, uint64_t key, uint32_t koff)
{
    pattern_fill(p->bytes, key, koff, p->len);
    p->key = key;
    p->koff = koff;
    p->pending_key = 0;
}

void plot_release(struct plot *p)
{
    must(p->uses > 0);
    if (--p->uses == 0 && !p->wild) plot_paint(p, mix64(p->key + 77) | 1, 0);
}

bool plot_holds(const struct plot *p, uint64_t key, uint32_t koff, uint32_t len)
{
    return pattern_match(p->bytes, key, koff, len) == len;
}

bool plot_as_expected(const struct plot *p)
{
    if (p->wild) return true;
    uint32_t k = 0;
    if (p->pending_key) k = pattern_match(p->bytes, p->pending_key, p->pending_koff, p->len);
    return pattern_match(p->bytes + k, p->key, p->koff + k, p->len - k) == p->len - k;
}

void buf_paint(struct buf *b, uint64_t key)
{
    uint32_t off = 0;
    for (uint32_t i = 0; i < b->n; off += b->plot[i++]->len) plot_paint(b->plot[i], key, off);
}

bool buf_holds(const struct buf *b, uint64_t key, uint32_t len)
{
    uint32_t off = 0;
    for (uint32_t i = 0; i < b->n && off < len; off += b->plot[i++]->len) {
        uint32_t take = b->plot[i]->len < len - off ? b->plot[i]->len : len - off;
        if (!plot_holds(b->plot[i], key, off, take)) return false;
    }
    return off >= len;
}

bool buf_tail_untouched(const struct buf *b, uint32_t len)
{
    uint32_t off = 0;
    for (uint32_t i = 0; i < b->n; off += b->plot[i++]->len) {
        const struct plot *p = b->plot[i];
        if (off + p->len <= len) continue;
        uint32_t skip = len > off ? len - off : 0;
        if (pattern_match(p->bytes + skip, p->key, p->koff + skip, p->len - skip) != p->len - skip)
            return false;
    }
    return true;
}

bool buf_prefix(const struct buf *b, uint64_t key)
{
    uint32_t off = 0;
    for (uint32_t i = 0; i < b->n; off += b->plot[i++]->len) {
        struct plot p = *b->plot[i];
        p.pending_key = key;
        p.pending_koff = off;
        if (!plot_as_expected(&p)) return false;
    }
    return true;
}

void buf_expect(struct buf *b, uint64_t key)
{
    uint32_t off = 0;
    for (uint32_t i = 0; i < b->n; off += b->plot[i++]->len) {
        b->plot[i]->pending_key = key;
        b->plot[i]->pending_koff = off;
    }
}

void buf_settle(struct buf *b, uint64_t key, uint32_t len)
{
    uint32_t off = 0;
    for (uint32_t i = 0; i < b->n; off += b->plot[i++]->len) {
        struct plot *p = b->plot[i];
        p->pending_key = 0;
        if (off + p->len > len) break; /* partly filled: released, hence repainted, by the caller */
        p->key = key;
        p->koff = off;
    }
}

void buf_release(struct buf *b)
{
    for (uint32_t i = 0; i < b->n; i++) plot_release(b->plot[i]);
}
