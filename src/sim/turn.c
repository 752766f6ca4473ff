/* See turn.h. */
#include "sim/turn.h"
#include "base/must.h"

static void tick(void *ctx, uint64_t arg);
static void poll_board(void *ctx, uint64_t arg);

void board_want_tick(struct board *b)
{
    if (b->tick_due) return;
    b->tick_due = true;
    world_at(&b->work->world, rng_below(&b->work->rng, b->work->pace_ns), tick, b, 0);
}

void board_want_poll(struct board *b)
{
    if (b->poll_due) return;
    b->poll_due = true;
    struct rng *rng = &b->work->rng;
    uint64_t lag = rng_percent(rng, 90) ? 3 * US_NS : 100 * US_NS;
    world_at(&b->work->world, rng_below(rng, lag), poll_board, b, 0);
}

static void tick(void *ctx, uint64_t arg)
{
    struct board *b = ctx;
    struct work *w = b->work;
    b->tick_due = false;
    bool more = false;
    for (uint32_t i = 0; i < w->nactors; i++) {
        struct actor *a = &w->actor[i];
        if (a->board != b) continue;
        more = actor_post_receives(a) || more;
        more = actor_post(a) || more;
    }
    for (uint32_t i = 0; i < PLAN_SRQS; i++) more = board_post_shared(b, i) || more;
    if (more && oracle_content(&w->oracle)) board_want_tick(b);
    board_want_poll(b); /* posting in ERR completes at once */
}

void board_take_events(struct board *b)
{
    struct work *w = b->work;
    struct hca_event e;
    struct hca *wing = b->host->wing;
    while (hca_next_event(b->host->hca, &e) || (wing && hca_next_event(wing, &e))) {
        trace_bytes(&w->world.trace, &e.type, sizeof e.type);
        trace_line(&w->world.trace, w->world.now, "event     h%u %d", b->host->index, e.type);
        if (e.type == HCA_EVENT_CQ_ERR) {
            oracle_says(&w->oracle, "h%u: a CQ with room for all has overrun", b->host->index);
            continue;
        }
        if (e.type == HCA_EVENT_SRQ_LIMIT_REACHED || e.type == HCA_EVENT_SRQ_ERR) continue;
        struct actor *a = e.owner;
        must(a >= w->actor && a < w->actor + w->nactors);
        if (!a->qp) {
            oracle_says(&w->oracle, "h%u: event %d for a destroyed queue pair", b->host->index,
                        e.type);
            continue;
        }
        oracle_event(&w->oracle, a->oracle, e.type);
        if (w->plan->windows) board_want_tick(b); /* a failed one waits for no window any more */
        if (e.type == HCA_EVENT_SQ_DRAINED) {
            struct hca_qp_attr attr = {.state = HCA_QPS_RTS};
            if (actor_state(a) == HCA_QPS_SQD &&
                hca_qp_modify(a->hca, a->qp, &attr, HCA_QP_STATE, w->world.now))
                oracle_says(&w->oracle, "h%u: SQD to RTS refused after the drained event",
                            b->host->index);
            world_kick(b->host);
        }
    }
}

static void note_shared(struct board *b, const struct hca_wc *wc)
{
    if (wc->wr_id >> 56 != 'R') return;
    uint32_t id = (uint32_t)(wc->wr_id >> 32 & 0xffffff);
    for (int i = 0; i < PLAN_SRQS; i++)
        if (b->work->plan->srq[b->host->index][i].receive &&
            b->work->plan->srq[b->host->index][i].id == id)
            b->srq_done[i]++;
}

/* Does this completion wake those who asked for solicited ones only? */
static bool wakes(const struct work *w, const struct hca_wc *wc)
{
    return wc->status != HCA_WC_SUCCESS || (wc->wr_id >> 56 == 'R' && w->oracle.last_solicited);
}

uint32_t board_poll_cq(struct board *b, struct board_cq *cq)
{
    struct work *w = b->work;
    struct hca_wc wc[16];
    uint32_t taken = 0;
    for (;;) {
        int n = hca_cq_poll(cq->cq, wc, (int)rng_range(&w->rng, 1, 16));
        if (n < 0) oracle_says(&w->oracle, "h%u: hca_cq_poll gives %d", b->host->index, n);
        if (n <= 0) return taken;
        taken += (uint32_t)n;
        for (int i = 0; i < n && oracle_content(&w->oracle); i++) {
            trace_wc(&w->world.trace, w->world.now, b->host->index, &wc[i]);
            oracle_completion(&w->oracle, cq->id, &wc[i], w->world.now);
            note_shared(b, &wc[i]);
            cq->woken = cq->woken || wakes(w, &wc[i]);
            cq->disturbed = cq->disturbed || w->oracle.last_uncertain;
        }
    }
}

/* An armed CQ that was found empty when it was armed: what is in it now came after, and the notice
 * must say so, and only so. */
static void check_notice(struct board *b, struct board_cq *cq, bool solicited, uint32_t n)
{
    bool due = solicited ? cq->woken : n > 0;
    if (cq->disturbed || !oracle_content(&b->work->oracle) || due == cq->notified) return;
    oracle_says(&b->work->oracle, "h%u: CQ %u, armed for %s completions, %s", b->host->index,
                cq->id, solicited ? "solicited" : "all",
                due ? "got one and did not notify" : "notified and has none");
}

/* As programs do it: take what is there, arm, and take once more what came between. */
static uint32_t serve_cq(struct board *b, struct board_cq *cq)
{
    enum cq_mode mode = b->work->plan->cq_mode[b->host->index];
    if (mode == CQ_POLLED) return board_poll_cq(b, cq);
    if (mode == CQ_ARMED && cq->armed && !cq->notified) return 0;
    cq->woken = false;
    uint32_t n = board_poll_cq(b, cq);
    if (cq->armed) check_notice(b, cq, mode == CQ_ARMED_SOLICITED, n);
    if (cq->armed && !cq->notified) return n;
    hca_cq_arm(b->host->hca, cq->cq, mode == CQ_ARMED_SOLICITED);
    cq->armed = true;
    cq->notified = cq->disturbed = false;
    return n + board_poll_cq(b, cq);
}

void board_take_notices(struct board *b)
{
    struct board_cq *cq;
    while ((cq = hca_next_notified(b->host->hca))) {
        must(cq >= b->cq && cq < b->cq + b->ncqs);
        if (!cq->armed || cq->notified)
            oracle_says(&b->work->oracle, "h%u: CQ %u notifies without being armed", b->host->index,
                        cq->id);
        cq->notified = true;
    }
}

static void poll_board(void *ctx, uint64_t arg)
{
    struct board *b = ctx;
    struct work *w = b->work;
    b->poll_due = false;
    board_take_events(b);
    board_take_notices(b);
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->ncqs; i++) n += serve_cq(b, &b->cq[i]);
    if (n) board_want_tick(b);
    /* What one end has seen lets the other go on: programs tell each other. */
    for (uint8_t h = 0; n && w->plan->windows && h < w->plan->nhosts; h++)
        board_want_tick(&w->board[h]);
}
