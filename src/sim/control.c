/* See control.h. */
#include "sim/control.h"
#include "sim/turn.h"

#define QUIET_NS (1 * SEC_NS) /* after a RESET, until every packet of before is gone */

static void to_state(struct actor *a, enum hca_qp_state state, uint32_t more)
{
    struct hca_qp_attr attr = {.state = state, .en_sqd_async_notify = true};
    int rc = hca_qp_modify(a->hca, a->qp, &attr, HCA_QP_STATE | more, a->work->world.now);
    if (rc)
        oracle_says(&a->work->oracle, "h%u qp %06x: to state %d: %d", a->plan->host, a->oracle->qpn,
                    state, rc);
    world_kick(a->board->host);
}

/* Completions have left the CQs by another way than serve_cq. */
static void disturb(struct board *b)
{
    for (uint32_t i = 0; i < b->ncqs; i++) b->cq[i].disturbed = true;
}

/* What has completed before counts, so it is taken first. */
static void settle(struct actor *a)
{
    struct board *b = a->board;
    board_take_events(b);
    for (uint32_t i = 0; i < b->ncqs; i++) board_poll_cq(b, &b->cq[i]);
    disturb(b);
    board_want_tick(b);
}

static void restart(void *ctx, uint64_t arg)
{
    struct actor *a = ctx, *peer = &a->work->actor[a->plan->peer];
    uint32_t mine = (uint32_t)rng_u64(&a->work->rng) & 0xffffff;
    uint32_t theirs = (uint32_t)rng_u64(&a->work->rng) & 0xffffff;
    actor_connect(a, mine, theirs);
    actor_connect(peer, theirs, mine);
    struct actor *both[2] = {a, peer};
    for (int i = 0; i < 2; i++) {
        both[i]->resting = false;
        both[i]->posts_in_error = both[i]->receives_in_error = 0;
        oracle_reconnected(&a->work->oracle, both[i]->oracle, a->work->world.now);
        board_want_tick(both[i]->board);
    }
}

/* Half of the time completions are left to vanish with the queue pair, as they must. Not with
 * shared receives: nobody could tell then how many of these are used up. */
static bool takes_first(const struct actor *a)
{
    const struct plan_qp *peer = &a->work->plan->qp[a->plan->peer];
    return a->plan->shared_receives || peer->shared_receives || rng_percent(&a->work->rng, 50);
}

static void reset_both(struct actor *a)
{
    struct actor *both[2] = {a, &a->work->actor[a->plan->peer]};
    bool first = takes_first(a);
    for (int i = 0; i < 2; i++) {
        if (first) settle(both[i]);
        to_state(both[i], HCA_QPS_RESET, 0);
        disturb(both[i]->board);
        oracle_gone(&a->work->oracle, both[i]->oracle);
        both[i]->resting = true;
    }
    world_at(&a->work->world, QUIET_NS, restart, a, 0);
}

static void destroy(struct actor *a)
{
    if (takes_first(a)) settle(a);
    int rc = hca_qp_destroy(a->hca, a->qp);
    if (rc) oracle_says(&a->work->oracle, "qp %06x: hca_qp_destroy gives %d", a->oracle->qpn, rc);
    a->qp = NULL;
    world_kick(a->board->host); /* its window may be what others wait for */
    disturb(a->board);
    oracle_gone(&a->work->oracle, a->oracle);
}

void control_run(void *ctx, uint64_t arg)
{
    struct work *w = ctx;
    const struct plan_control *c = &w->plan->control[arg];
    struct actor *a = &w->actor[c->qp];
    if (!a->qp || a->resting) return;
    trace_line(&w->world.trace, w->world.now, "control   %d of h%u qp %06x", c->kind, a->plan->host,
               a->oracle->qpn);
    switch (c->kind) {
    case CONTROL_SQD:
        if (actor_state(a) == HCA_QPS_RTS) to_state(a, HCA_QPS_SQD, HCA_QP_EN_SQD_ASYNC_NOTIFY);
        break;
    case CONTROL_RESET: reset_both(a); break;
    case CONTROL_DESTROY: destroy(a); break;
    case CONTROL_KILL:
        to_state(a, HCA_QPS_ERR, 0);
        oracle_killed(&w->oracle, a->oracle);
        break;
    case CONTROL_BUCKET:
        hca_qp_set_bucket(a->hca, a->qp, c->bucket, w->world.now);
        a->plan->bucket = c->bucket;
        world_kick(a->board->host);
        w->world.hooks.paths_changed(w->world.hooks.ctx);
        break;
    }
    board_want_poll(a->board);
}
