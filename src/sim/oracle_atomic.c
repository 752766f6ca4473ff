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

struct link_of_chain {
    struct oracle_qp *qp;
    uint32_t index;
    bool known, used;
};

static uint64_t after(const struct request *r, uint64_t value)
{
    if (r->op == HCA_WR_ATOMIC_FETCH_AND_ADD) return value + r->compare_add;
    return value == r->compare_add ? r->swap : value;
}

static size_t gather(struct oracle *o, const struct word *w, struct link_of_chain *out)
{
    size_t n = 0;
    for (uint32_t k = 0; k < o->nqp; k++) {
        struct oracle_qp *q = &o->qp[k];
        for (uint32_t i = 0; i < q->posted; i++) {
            const struct request *r = &q->request[i];
            if (r->word != w || r->must_fail) continue;
            if (out) out[n] = (struct link_of_chain){q, i, r->state == WORK_DONE, false};
            n++;
        }
    }
    return n;
}

/* Does any known operation that is still to be placed, or the end, start from `value`? */
static bool leads_on(const struct link_of_chain *c, size_t n, uint64_t value, uint64_t end)
{
    if (value == end) return true;
    for (size_t i = 0; i < n; i++)
        if (c[i].known && !c[i].used && c[i].qp->request[c[i].index].result == value) return true;
    return false;
}

/* Takes the next step of the chain; false at its end. */
static bool step(struct link_of_chain *c, size_t n, uint64_t *value, uint64_t end)
{
    struct link_of_chain *next = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct request *r = &c[i].qp->request[c[i].index];
        if (!c[i].known || c[i].used || r->result != *value) continue;
        if (after(r, *value) == *value)
            c[i].used = true; /* a compare that failed: anywhere while the value stood */
        else if (!next)
            next = &c[i];
    }
    for (size_t i = 0; i < n && !next; i++) {
        const struct request *r = &c[i].qp->request[c[i].index];
        if (c[i].known || c[i].used) continue;
        uint64_t then = after(r, *value);
        if (then != *value && leads_on(c, n, then, end)) next = &c[i];
    }
    if (!next) return false;
    next->used = true;
    *value = after(&next->qp->request[next->index], *value);
    return true;
}

void oracle_check_word(struct oracle *o, const struct word *w)
{
    size_t n = gather(o, w, NULL);
    struct link_of_chain *c = calloc(n + 1, sizeof *c);
    must(c);
    gather(o, w, c);
    uint64_t value = w->init, end;
    memcpy(&end, w->plot->bytes, 8);
    while (step(c, n, &value, end)) continue;
    for (size_t i = 0; i < n; i++) {
        if (!c[i].known || c[i].used) continue;
        oracle_says(o,
                    "h%u qp %06x request %u: its atomic fetched %016" PRIx64
                    ", which no sequence of single executions gives",
                    c[i].qp->host, c[i].qp->qpn, c[i].index, c[i].qp->request[c[i].index].result);
    }
    if (value != end)
        oracle_says(o, "an atomic word holds %016" PRIx64 ", its operations make %016" PRIx64, end,
                    value);
    free(c);
}
