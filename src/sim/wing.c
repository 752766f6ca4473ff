/* See wing.h. */
#include "sim/wing.h"
#include "base/must.h"
#include "hca/call.h"
#include "sim/world.h"
#include <stdlib.h>
#include <string.h>

#define FULL_FOR_NS (50 * US_NS)

struct message {
    bool is_answer;
    struct hca_call call;
    struct hca_answer answer;
    uint8_t bytes[HCA_CALL_DATA];
};

static void arrive(void *ctx, uint64_t arg);

static void send(struct host *h, struct message *m)
{
    struct world *w = h->world;
    when_t *last = &h->line_last[m->is_answer];
    when_t at = when_add(w->now, rng_below(&w->rng, h->line_ns + 1));
    if (when_before(at, *last)) at = *last;
    *last = at;
    world_at(w, when_since(at, w->now), arrive, h, (uint64_t)(uintptr_t)m);
}

static void answer(struct host *h, const struct hca_answer *a)
{
    struct message *m = calloc(1, sizeof *m);
    size_t have = 0;
    must(m);
    m->is_answer = true;
    m->answer = *a;
    for (uint32_t i = 0; a->kind == HCA_CALL_READ && i < a->pieces; i++) {
        memcpy(m->bytes + have, a->piece[i].iov_base, a->piece[i].iov_len);
        m->answer.piece[i].iov_base = m->bytes + have;
        have += a->piece[i].iov_len;
    }
    send(h, m);
}

static void arrive(void *ctx, uint64_t arg)
{
    struct host *h = ctx;
    struct world *w = h->world;
    struct message *m = (struct message *)(uintptr_t)arg;
    struct hca_answer a;
    if (m->is_answer)
        hca_answer_input(h->wing, h->xrcd, h->function, &m->answer, w->now);
    else if (hca_call_input(h->hca, h->xrcd, h->wing_function, &m->call, &a, w->now))
        answer(h, &a);
    free(m);
    wing_pull(h);
    world_kick(h);
    if (w->hooks.ran) w->hooks.ran(w->hooks.ctx, h);
}

static void resume(void *ctx, uint64_t arg)
{
    struct host *h = ctx;
    h->line_full = false;
    hca_calls_resume(h->wing);
    wing_pull(h);
}

static void call(struct host *h, const struct hca_call *c)
{
    struct message *m = calloc(1, sizeof *m);
    must(m);
    m->call = *c;
    if (c->kind == HCA_CALL_REQUEST) {
        must(c->len <= HCA_MAX_MTU);
        memcpy(m->bytes, c->payload, c->len);
        m->call.payload = m->bytes;
    }
    send(h, m);
    hca_call_sent(h->wing, c);
}

void wing_pull(struct host *h)
{
    struct world *w = h->world;
    struct hca_call c;
    if (!h->wing) return;
    while (hca_next_call(h->wing, &c)) {
        if (!h->line_full && rng_percent(&w->rng, 2)) {
            h->line_full = true;
            world_at(w, rng_below(&w->rng, FULL_FOR_NS), resume, h, 0);
        }
        if (c.function != h->function) {
            hca_call_lost(h->wing, &c, w->now);
            world_kick(h);
        } else if (h->line_full) {
            hca_call_full(h->wing, &c);
        } else {
            call(h, &c);
        }
    }
}
