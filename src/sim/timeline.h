/* The event queue of virtual time: a binary heap, equal moments in the order they were entered. */
#ifndef RBOND_SIM_TIMELINE_H
#define RBOND_SIM_TIMELINE_H

#include "base/when.h"
#include <stdbool.h>
#include <stddef.h>

struct event {
    when_t at;
    uint64_t order;
    void (*fn)(void *ctx, uint64_t arg);
    void *ctx;
    uint64_t arg;
};

struct timeline {
    struct event *heap;
    size_t n, room;
    uint64_t order;
};

void timeline_free(struct timeline *t);
void timeline_at(struct timeline *t, when_t at, void (*fn)(void *ctx, uint64_t arg), void *ctx,
                 uint64_t arg);
/* NEVER when empty. */
when_t timeline_next(const struct timeline *t);
bool timeline_pop(struct timeline *t, struct event *out);

#endif
