/* The chain of atomics on one word (IBTA 9.4.5, 9.7.5.1.x: each executed exactly once,
 * indivisibly). Operands are drawn from 64 bits, so a value occurs once in a word's life: from the
 * initial value each operation that fetched the current one is found, and makes the next.
 * Operations whose fetched value nobody has seen (their queue pair ended) may stand between others,
 * or may not have been executed. */
#include "base/must.h"
#include "sim/oracle.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SEARCH_MAX 200000

struct step {
    const struct oracle_qp *qp;
    const struct request *request;
    bool known;
    uint32_t used; /* the depth of the search at which it was placed; 0: not yet */
};

struct chain {
    struct step *step; /* by queue pair, in the order posted */
    size_t n;
    uint64_t end;    /* what the word holds in the end */
    uint32_t visits; /* of the search for unseen ones; beyond SEARCH_MAX anything is believed */
};

static uint64_t after(const struct request *r, uint64_t value)
{
    if (r->op == HCA_WR_ATOMIC_FETCH_AND_ADD) return value + r->compare_add;
    return value == r->compare_add ? r->swap : value;
}

static void gather(struct oracle *o, const struct word *w, struct chain *c)
{
    for (uint32_t k = 0; k < o->nqp; k++) {
        const struct oracle_qp *q = &o->qp[k];
        for (uint32_t i = 0; i < q->posted; i++) {
            const struct request *r = &q->request[i];
            if (r->word != w || r->must_fail) continue;
            if (c->step) c->step[c->n] = (struct step){q, r, r->state == WORK_DONE, 0};
            c->n++;
        }
    }
}

/* Everything a queue pair executes before step i has been placed, unseen ones apart. */
static bool elders_placed(const struct chain *c, size_t i)
{
    for (size_t k = i; k-- > 0 && c->step[k].qp == c->step[i].qp;)
        if (c->step[k].known && !c->step[k].used) return false;
    return true;
}

static bool all_known_placed(const struct chain *c)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->step[i].known && !c->step[i].used) return false;
    return true;
}

static bool search(struct chain *c, uint64_t value, uint32_t depth);

/* Tries step i next; takes it back where that leads nowhere. */
static bool try_step(struct chain *c, size_t i, uint64_t value, uint32_t depth)
{
    struct step *s = &c->step[i];
    s->used = depth;
    if (search(c, after(s->request, value), depth + 1)) return true;
    s->used = 0;
    return false;
}

/* Is there an order for all that is left, from `value` to the end? A value occurs once, so a known
 * operation that fetched it and changed it can only be the next. Unseen ones may come where no
 * known one does, of one queue pair in order, and need not come at all. */
static bool search(struct chain *c, uint64_t value, uint32_t depth)
{
    if (c->visits++ > SEARCH_MAX) return true;
    size_t next = c->n;
    for (size_t i = 0; i < c->n; i++) {
        struct step *s = &c->step[i];
        if (!s->known || s->used || s->request->result != value || !elders_placed(c, i)) continue;
        if (after(s->request, value) == value)
            s->used = depth; /* a compare that failed */
        else
            next = i;
    }
    bool found;
    if (next < c->n) {
        found = try_step(c, next, value, depth);
    } else {
        found = value == c->end && all_known_placed(c);
        for (size_t i = 0; i < c->n && !found; i++) {
            const struct step *s = &c->step[i];
            if (s->known || s->used || after(s->request, value) == value) continue;
            if (elders_placed(c, i)) found = try_step(c, i, value, depth);
        }
    }
    for (size_t i = 0; i < c->n && !found; i++)
        if (c->step[i].used == depth) c->step[i].used = 0;
    return found;
}

void oracle_check_word(struct oracle *o, const struct word *w)
{
    struct chain c = {0};
    gather(o, w, &c);
    c.step = calloc(c.n + 1, sizeof *c.step);
    must(c.step);
    c.n = 0;
    gather(o, w, &c);
    memcpy(&c.end, w->plot->bytes, 8);
    if (!search(&c, w->init, 1))
        oracle_says(
            o,
            "h%u: an atomic word began as %016" PRIx64 " and holds %016" PRIx64
            ": no sequence of single executions gives that and what its %zu operations fetched",
            w->plot->host, w->init, c.end, c.n);
    free(c.step);
}
