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
    bool known, used;
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
            if (c->step) c->step[c->n] = (struct step){q, r, r->state == WORK_DONE, false};
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

/* Places the known operations that fetched `value`: compares that failed, then the one that changed
 * it. False: none changed it. */
static bool place_known(struct chain *c, uint64_t *value)
{
    struct step *next = NULL;
    for (size_t i = 0; i < c->n; i++) {
        struct step *s = &c->step[i];
        if (!s->known || s->used || s->request->result != *value || !elders_placed(c, i)) continue;
        if (after(s->request, *value) == *value)
            s->used = true;
        else if (!next)
            next = s;
    }
    if (!next) return false;
    next->used = true;
    *value = after(next->request, *value);
    return true;
}

/* Where the known chain breaks, do unseen operations lead to where it goes on, or to the end?
 * Leaves the value they lead to. Of one queue pair they come in order. */
static bool bridge(struct chain *c, uint64_t *value)
{
    if (c->visits++ > SEARCH_MAX) return true;
    for (size_t i = 0; i < c->n; i++) {
        struct step *s = &c->step[i];
        if (s->known || s->used || !elders_placed(c, i)) continue;
        uint64_t then = after(s->request, *value);
        if (then == *value) continue;
        bool hit = then == c->end;
        for (size_t k = 0; k < c->n; k++)
            hit =
                hit || (c->step[k].known && !c->step[k].used && c->step[k].request->result == then);
        s->used = true;
        uint64_t on = then;
        if (hit || bridge(c, &on)) {
            *value = on;
            return true;
        }
        s->used = false;
    }
    return false;
}

void oracle_check_word(struct oracle *o, const struct word *w)
{
    struct chain c = {0};
    gather(o, w, &c);
    c.step = calloc(c.n + 1, sizeof *c.step);
    must(c.step);
    c.n = 0;
    gather(o, w, &c);
    uint64_t value = w->init;
    memcpy(&c.end, w->plot->bytes, 8);
    do {
        while (place_known(&c, &value)) continue;
    } while (value != c.end && bridge(&c, &value) && c.visits <= SEARCH_MAX);
    for (size_t i = 0; i < c.n && c.visits <= SEARCH_MAX; i++) {
        if (!c.step[i].known || c.step[i].used) continue;
        oracle_says(o,
                    "h%u qp %06x request %u: its atomic fetched %016" PRIx64
                    ", which no sequence of single executions gives",
                    c.step[i].qp->host, c.step[i].qp->qpn,
                    (unsigned)(c.step[i].request - c.step[i].qp->request),
                    c.step[i].request->result);
    }
    if (value != c.end && c.visits <= SEARCH_MAX)
        oracle_says(o, "an atomic word holds %016" PRIx64 ", its operations make %016" PRIx64,
                    c.end, value);
    free(c.step);
}
