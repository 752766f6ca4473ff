/* See timeline.h. */
#include "sim/timeline.h"
#include "base/must.h"
#include <stdlib.h>

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at.ns < b->at.ns || (a->at.ns == b->at.ns && a->order < b->order);
}

void timeline_free(struct timeline *t)
{
    free(t->heap);
    *t = (struct timeline){0};
}

void timeline_at(struct timeline *t, when_t at, void (*fn)(void *ctx, uint64_t arg), void *ctx,
                 uint64_t arg)
{
    if (t->n == t->room) {
        t->room = t->room ? t->room * 2 : 256;
        t->heap = realloc(t->heap, t->room * sizeof *t->heap);
        must(t->heap);
    }
    struct event e = {at, t->order++, fn, ctx, arg};
    size_t i = t->n++;
    for (; i > 0 && earlier(&e, &t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = e;
}

when_t timeline_next(const struct timeline *t) { return t->n ? t->heap[0].at : NEVER; }

bool timeline_pop(struct timeline *t, struct event *out)
{
    if (t->n == 0) return false;
    *out = t->heap[0];
    struct event last = t->heap[--t->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= t->n) break;
        if (child + 1 < t->n && earlier(&t->heap[child + 1], &t->heap[child])) child++;
        if (!earlier(&t->heap[child], &last)) break;
        t->heap[i] = t->heap[child];
        i = child;
    }
    if (t->n) t->heap[i] = last;
    return true;
}
