/* An intrusive binary heap of moments: the earliest is at hand, any may change. A node lies in one
 * heap at most; its room is reserved when it is made, so that setting it allocates nothing. */
#ifndef RBOND_BASE_HEAP_H
#define RBOND_BASE_HEAP_H

#include "base/must.h"
#include "base/when.h"
#include <errno.h>
#include <stdlib.h>

struct heap_node {
    when_t when;   /* NEVER: in no heap */
    uint32_t slot; /* its place, plus 1; 0: in no heap */
};

struct heap {
    struct heap_node **nodes;
    uint32_t len, room;
};

#define HEAP_NODE_IDLE ((struct heap_node){.when = NEVER})

/* Room for `n` nodes in all. 0 or -ENOMEM. */
static inline int heap_reserve(struct heap *h, uint32_t n)
{
    if (n <= h->room) return 0;
    uint32_t room = h->room ? h->room * 2 : 16;
    while (room < n) room *= 2;
    struct heap_node **nodes = realloc(h->nodes, room * sizeof *nodes);
    if (!nodes) return -ENOMEM;
    h->nodes = nodes;
    h->room = room;
    return 0;
}

static inline void heap_free(struct heap *h) { free(h->nodes); }

static inline struct heap_node *heap_first(const struct heap *h)
{
    return h->len ? h->nodes[0] : NULL;
}

static inline when_t heap_when(const struct heap *h) { return h->len ? h->nodes[0]->when : NEVER; }

static inline void heap_put_(struct heap *h, uint32_t at, struct heap_node *n)
{
    h->nodes[at] = n;
    n->slot = at + 1;
}

static inline void heap_up_(struct heap *h, uint32_t at, struct heap_node *n)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (!when_before(n->when, h->nodes[parent]->when)) break;
        heap_put_(h, at, h->nodes[parent]);
        at = parent;
    }
    heap_put_(h, at, n);
}

static inline void heap_down_(struct heap *h, uint32_t at, struct heap_node *n)
{
    for (;;) {
        uint32_t child = at * 2 + 1;
        if (child >= h->len) break;
        if (child + 1 < h->len && when_before(h->nodes[child + 1]->when, h->nodes[child]->when))
            child++;
        if (!when_before(h->nodes[child]->when, n->when)) break;
        heap_put_(h, at, h->nodes[child]);
        at = child;
    }
    heap_put_(h, at, n);
}

static inline void heap_drop_(struct heap *h, struct heap_node *n)
{
    uint32_t at = n->slot - 1;
    must(at < h->len && h->nodes[at] == n);
    n->slot = 0;
    struct heap_node *last = h->nodes[--h->len];
    if (last == n) return;
    if (at > 0 && when_before(last->when, h->nodes[(at - 1) / 2]->when))
        heap_up_(h, at, last);
    else
        heap_down_(h, at, last);
}

/* Gives the node another moment; NEVER takes it out. */
static inline void heap_set(struct heap *h, struct heap_node *n, when_t when)
{
    when_t before = n->when;
    if (before.ns == when.ns) return;
    n->when = when;
    if (when_is_never(when)) {
        heap_drop_(h, n);
    } else if (n->slot == 0) {
        must(h->len < h->room);
        heap_up_(h, h->len++, n);
    } else if (when_before(when, before)) {
        heap_up_(h, n->slot - 1, n);
    } else {
        heap_down_(h, n->slot - 1, n);
    }
}

#endif
