/* See workload.h. The schedule of a run: set-up, the programs' turns and polls, cuts and controls
 * from the plan, and the judgement when nothing more can happen. */
#include "sim/workload.h"
#include "base/must.h"
#include "sim/actor.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PACKETS_MAX 300000
#define TIME_MAX_NS (4000 * SEC_NS)
#define QUIET_NS (1 * SEC_NS) /* after a RESET, until every packet of before is gone */

/* ---- turns and polls
 * ----------------------------------------------------------------------------- */

static void tick(void *ctx, uint64_t arg);
static void poll_board(void *ctx, uint64_t arg);

static void want_tick(struct board *b)
{
    if (b->tick_due) return;
    b->tick_due = true;
    world_at(&b->work->world, rng_below(&b->work->rng, b->work->pace_ns), tick, b, 0);
}

static void want_poll(struct board *b)
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
    if (more && oracle_content(&w->oracle)) want_tick(b);
    want_poll(b); /* posting in ERR completes at once */
}

static void take_events(struct board *b)
{
    struct work *w = b->work;
    struct hca_event e;
    while (hca_next_event(b->host->hca, &e)) {
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
        if (w->plan->windows) want_tick(b); /* a failed one waits for no window any more */
        if (e.type == HCA_EVENT_SQ_DRAINED) {
            struct hca_qp_attr attr = {.state = HCA_QPS_RTS};
            if (actor_state(a) == HCA_QPS_SQD &&
                hca_qp_modify(b->host->hca, a->qp, &attr, HCA_QP_STATE, w->world.now))
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

static uint32_t poll_cq(struct board *b, struct board_cq *cq)
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
    if (mode == CQ_POLLED) return poll_cq(b, cq);
    if (mode == CQ_ARMED && cq->armed && !cq->notified) return 0;
    cq->woken = false;
    uint32_t n = poll_cq(b, cq);
    if (cq->armed) check_notice(b, cq, mode == CQ_ARMED_SOLICITED, n);
    if (cq->armed && !cq->notified) return n;
    hca_cq_arm(b->host->hca, cq->cq, mode == CQ_ARMED_SOLICITED);
    cq->armed = true;
    cq->notified = cq->disturbed = false;
    return n + poll_cq(b, cq);
}

static void take_notices(struct board *b)
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
    take_events(b);
    take_notices(b);
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->ncqs; i++) n += serve_cq(b, &b->cq[i]);
    if (n) want_tick(b);
    /* What one end has seen lets the other go on: programs tell each other. */
    for (uint8_t h = 0; n && w->plan->windows && h < w->plan->nhosts; h++) want_tick(&w->board[h]);
}

static void ran(void *ctx, struct host *host)
{
    struct work *w = ctx;
    want_poll(&w->board[host->index]);
    /* A driver may call it before the time. */
    if (!rng_percent(&w->rng, 1)) return;
    hca_expire(host->hca, w->world.now);
    world_kick(host);
}

/* ---- what the links do
 * ------------------------------------------------------------------------------ */

static void faulted(void *ctx, const struct datagram *d, enum fault why)
{
    struct work *w = ctx;
    for (uint32_t i = 0; i < w->nactors; i++) {
        struct oracle_qp *q = &w->oracle_qp[i];
        if ((q->qpn == d->dqpn && q->host == d->dst_host) ||
            (q->qpn == d->sqpn && q->host == d->src_host))
            oracle_fault(&w->oracle, q, w->world.now);
    }
}

static void paths_changed(void *ctx)
{
    struct work *w = ctx;
    for (uint32_t i = 0; i < w->nactors; i++) {
        const struct plan_qp *a = w->actor[i].plan, *b = &w->plan->qp[a->peer];
        bool ok = world_path_ok(&w->world, a->host, b->host, a->bucket) &&
                  world_path_ok(&w->world, b->host, a->host, b->bucket);
        oracle_path(&w->oracle, w->actor[i].oracle, ok, w->world.now);
    }
}

static void do_cut(void *ctx, uint64_t arg)
{
    struct work *w = ctx;
    const struct plan_cut *c = &w->plan->cut[arg];
    world_cut(&w->world, c->host, c->member, c->tx, c->rx, c->carrier);
}

static void do_mend(void *ctx, uint64_t arg)
{
    struct work *w = ctx;
    const struct plan_cut *c = &w->plan->cut[arg];
    world_mend(&w->world, c->host, c->member);
}

/* ---- what programs do to their queue pairs
 * ----------------------------------------------------------- */

static void to_state(struct actor *a, enum hca_qp_state state, uint32_t more)
{
    struct hca_qp_attr attr = {.state = state, .en_sqd_async_notify = true};
    int rc =
        hca_qp_modify(a->board->host->hca, a->qp, &attr, HCA_QP_STATE | more, a->work->world.now);
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
    take_events(b);
    for (uint32_t i = 0; i < b->ncqs; i++) poll_cq(b, &b->cq[i]);
    disturb(b);
    want_tick(b);
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
        want_tick(both[i]->board);
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
    int rc = hca_qp_destroy(a->board->host->hca, a->qp);
    if (rc) oracle_says(&a->work->oracle, "qp %06x: hca_qp_destroy gives %d", a->oracle->qpn, rc);
    a->qp = NULL;
    world_kick(a->board->host); /* its window may be what others wait for */
    disturb(a->board);
    oracle_gone(&a->work->oracle, a->oracle);
}

static void do_control(void *ctx, uint64_t arg)
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
        hca_qp_set_bucket(a->board->host->hca, a->qp, c->bucket, w->world.now);
        a->plan->bucket = c->bucket;
        world_kick(a->board->host);
        paths_changed(w);
        break;
    }
    want_poll(a->board);
}

/* ---- set-up
 * ------------------------------------------------------------------------------------------- */

static void create_cqs(struct board *b)
{
    struct work *w = b->work;
    const struct plan *p = w->plan;
    bool one = p->cq_shared[b->host->index];
    uint32_t all = b->srq_depth * PLAN_SRQS;
    for (uint32_t i = 0; i < p->nqps; i++)
        if (p->qp[i].host == b->host->index) {
            all += p->qp[i].send_depth + p->qp[i].recv_depth;
            if (!one) b->ncqs += 2;
        }
    if (one || !b->ncqs) b->ncqs = 1;
    for (uint32_t i = 0; i < b->ncqs; i++) {
        struct board_cq *cq = &b->cq[i];
        *cq = (struct board_cq){.host = b->host->index, .id = b->host->index * 100u + i};
        uint32_t cqe = all;
        int rc = hca_cq_create(b->host->hca, &cqe, cq, &cq->cq);
        must(rc == 0 && cqe >= all);
    }
}

static void create_board(struct work *w, uint8_t h)
{
    static const uint32_t all = HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_WRITE |
                                HCA_ACCESS_REMOTE_READ | HCA_ACCESS_REMOTE_ATOMIC |
                                HCA_ACCESS_MW_BIND;
    static const uint8_t pd_of[LOT_COUNT] = {0, 1, 0, 1, 2};
    struct board *b = &w->board[h];
    const struct ground *g = &w->plan->ground[h];
    b->work = w;
    b->host = world_add_host(&w->world, &w->plan->host[h]);
    for (int i = 0; i < 3; i++) b->pd[i] = hca_pd_alloc(b->host->hca);
    for (uint32_t i = 0; i < LOT_COUNT; i++) {
        bool local = i == LOT_LOCAL0 || i == LOT_LOCAL1;
        int rc =
            hca_mr_reg(b->host->hca, b->pd[pd_of[i]], g->lot[i].bytes, g->lot[i].len,
                       board_iova(b, i), local ? (uint32_t)HCA_ACCESS_LOCAL_WRITE : all, &b->mr[i]);
        must(rc == 0);
    }
    b->srq_depth = 24;
    create_cqs(b);
    for (uint32_t i = 0; i < PLAN_SRQS; i++) {
        bool xrc = i >= PLAN_PDS;
        struct hca_srq_init init = {.pd = b->pd[i % PLAN_PDS],
                                    .max_wr = b->srq_depth,
                                    .max_sge = BUF_MAX_PLOTS + 1,
                                    .xrcd = xrc ? SIM_XRCD : 0,
                                    .cq = xrc ? b->cq[0].cq : NULL};
        if (!w->plan->srq[h][i].receive) continue;
        int rc = hca_srq_create(b->host->hca, &init, &b->srq[i]);
        must(rc == 0);
    }
}

static void number_queues(struct work *w)
{
    struct oracle *o = &w->oracle;
    o->rq = w->rq;
    for (uint32_t i = 0; i < w->plan->nqps; i++) {
        struct plan_qp *p = &w->plan->qp[i];
        struct recv_queue *rq =
            p->shared_receives ? &w->plan->srq[p->host][plan_srq_of(p)] : &p->rq;
        bool known = false;
        for (uint32_t k = 0; k < o->nrq; k++) known = known || w->rq[k] == rq;
        if (!known) {
            rq->id = o->nrq;
            rq->shared = p->shared_receives;
            w->rq[o->nrq++] = rq;
        }
        w->oracle_qp[i] = (struct oracle_qp){
            .type = p->type,
            .host = p->host,
            .index = (uint16_t)i,
            .peer = p->peer,
            .sig_all = p->sig_all,
            .timeout_ns = p->timeout ? 4096ull << p->timeout : 0,
            .retry_cnt = p->retry_cnt,
            .request = p->request,
            .planned = p->nrequests,
            .rq = rq,
            .path_bad_since = NEVER,
        };
    }
}

static void set_up(struct work *w, struct plan *plan, FILE *trace)
{
    w->plan = plan;
    static const uint64_t paces[] = {300, 3 * US_NS, 30 * US_NS, 300 * US_NS};
    w->rng = (struct rng){mix64(plan->seed ^ 0xac70)};
    w->pace_ns = paces[rng_below(&w->rng, 4)];
    world_init(&w->world, plan->seed);
    w->world.trace.out = trace;
    w->world.fabric = plan->fabric;
    w->world.bytes_per_ms = plan->bytes_per_ms;
    w->world.notice_max_ns = plan->notice_max_ns;
    w->world.forge_ppm = plan->forge_ppm;
    w->world.hooks = (struct world_hooks){w, faulted, ran, paths_changed};
    w->oracle = (struct oracle){.qp = w->oracle_qp,
                                .nqp = plan->nqps,
                                .ground = plan->ground,
                                .nground = plan->nhosts,
                                .word = plan->word,
                                .nword = plan->nwords,
                                .links_double = plan->links_double,
                                .links_lose = plan->links_lose,
                                .blind = plan->forge_ppm > 0,
                                .must_survive = plan->must_survive};
    number_queues(w);
    for (uint8_t h = 0; h < plan->nhosts; h++) create_board(w, h);
    w->nactors = plan->nqps;
    for (uint32_t i = 0; i < w->nactors; i++) {
        struct actor *a = &w->actor[i];
        *a = (struct actor){.work = w,
                            .board = &w->board[plan->qp[i].host],
                            .plan = &plan->qp[i],
                            .oracle = &w->oracle_qp[i]};
        actor_create(a);
    }
    for (uint32_t i = 0; i < w->nactors; i++)
        actor_connect(&w->actor[i], plan->qp[i].sq_psn, plan->qp[i].rq_psn);
    for (uint32_t i = 0; i < w->nactors; i++) actor_post_receives(&w->actor[i]);
    for (uint8_t h = 0; h < plan->nhosts; h++) {
        want_tick(&w->board[h]);
        want_poll(&w->board[h]);
    }
    for (uint32_t i = 0; i < plan->ncuts; i++) {
        world_at(&w->world, plan->cut[i].at_ns, do_cut, w, i);
        if (plan->cut[i].mend_ns) world_at(&w->world, plan->cut[i].mend_ns, do_mend, w, i);
    }
    for (uint32_t i = 0; i < plan->ncontrols; i++)
        world_at(&w->world, plan->control[i].at_ns, do_control, w, i);
}

/* ---- the end
 * ------------------------------------------------------------------------------------------- */

/* All is quiet. What lies in CQs now was never announced. */
static void final_poll(struct work *w)
{
    for (uint8_t h = 0; h < w->plan->nhosts; h++) {
        struct board *b = &w->board[h];
        take_events(b);
        take_notices(b);
        for (uint32_t i = 0; i < b->ncqs && oracle_content(&w->oracle); i++)
            if (poll_cq(b, &b->cq[i]))
                oracle_says(&w->oracle, "h%u: CQ %u held completions and did not notify", h,
                            b->cq[i].id);
    }
}

static void tear_down(struct work *w)
{
    for (uint32_t i = 0; i < w->nactors; i++) {
        struct actor *a = &w->actor[i];
        if (!a->qp) continue;
        struct board_cq *cq = &a->board->cq[0];
        if (w->plan->cq_shared[a->plan->host] &&
            hca_cq_destroy(a->board->host->hca, cq->cq) != -EBUSY)
            oracle_says(&w->oracle, "a CQ that queue pairs use can be destroyed");
        if (a->plan->in_group &&
            hca_mcast_detach(a->board->host->hca, a->qp, &a->board->host->group))
            oracle_says(&w->oracle, "QP not detached from the group");
        if (hca_qp_destroy(a->board->host->hca, a->qp)) oracle_says(&w->oracle, "QP not destroyed");
        if (a->window) hca_mw_dealloc(a->board->host->hca, a->window);
    }
    for (uint8_t h = 0; h < w->plan->nhosts; h++) {
        struct board *b = &w->board[h];
        for (int i = 0; i < PLAN_SRQS; i++)
            if (b->srq[i] && hca_srq_destroy(b->host->hca, b->srq[i]))
                oracle_says(&w->oracle, "SRQ not destroyed");
        for (uint32_t i = 0; i < b->ncqs; i++)
            if (hca_cq_destroy(b->host->hca, b->cq[i].cq))
                oracle_says(&w->oracle, "CQ not destroyed");
        for (uint32_t i = 0; i < LOT_COUNT; i++)
            if (hca_mr_dereg(b->host->hca, b->mr[i]))
                oracle_says(&w->oracle, "MR not deregistered");
    }
}

/* What an adapter says it did, against what the world saw. */
static void check_counters(struct work *w)
{
    const struct plan *p = w->plan;
    bool tame = p->profile == PROFILE_CLEAN && !p->ncontrols;
    for (uint32_t i = 0; i < p->nqps; i++) tame = tame && !p->qp[i].provoke;
    for (uint8_t h = 0; h < p->nhosts; h++) {
        const struct host *host = w->board[h].host;
        const struct hca_counters *c = hca_counters(host->hca);
        uint64_t tx = 0, rx = 0;
        for (uint8_t m = 0; m < STEER_MAX_MEMBERS; m++) {
            const struct hca_member_counters *mc = hca_member_counters(host->hca, m);
            tx += mc->tx_packets;
            rx += mc->rx_packets;
        }
        if (c->tx_packets != host->sent || tx != host->sent)
            oracle_says(&w->oracle,
                        "h%u: tx_packets says %llu, its members %llu, the links saw %llu", h,
                        (unsigned long long)c->tx_packets, (unsigned long long)tx,
                        (unsigned long long)host->sent);
        if (c->rx_packets > host->received || rx > host->received)
            oracle_says(&w->oracle, "h%u: rx_packets says %llu of %llu", h,
                        (unsigned long long)c->rx_packets, (unsigned long long)host->received);
        if (tame && (c->timeouts || c->packet_seq_err || c->out_of_sequence || c->rx_bad_header ||
                     c->rx_bad_qp || c->rx_bad_pkey || c->cqe_error))
            oracle_says(&w->oracle,
                        "h%u: counts faults on links that have none: timeouts %llu, packet_seq_err "
                        "%llu, out_of_sequence %llu, cqe_error %llu",
                        h, (unsigned long long)c->timeouts, (unsigned long long)c->packet_seq_err,
                        (unsigned long long)c->out_of_sequence, (unsigned long long)c->cqe_error);
    }
}

static void report(const struct work *w, struct outcome *out)
{
    *out = (struct outcome){.hash = w->world.trace.hash,
                            .packets = w->world.packets,
                            .completions = w->oracle.completions,
                            .retry_excs = w->oracle.retry_excs,
                            .windows_opened = w->oracle.windows_opened,
                            .windows_closed = w->oracle.windows_closed,
                            .windows_refused = w->oracle.windows_refused,
                            .events = w->world.trace.events,
                            .ended = w->world.now};
    for (uint8_t h = 0; h < w->plan->nhosts; h++)
        out->counters[h] = *hca_counters(w->board[h].host->hca);
    for (uint32_t i = 0; i < w->nactors; i++)
        if (w->actor[i].qp) hca_qp_view(w->actor[i].qp, &out->view[i]);
}

static void judge(struct work *w)
{
    struct oracle *o = &w->oracle;
    if (w->world.broken) oracle_says(o, "%s", w->world.broken);
    if (oracle_content(o) && w->world.packets > PACKETS_MAX)
        oracle_says(o, "still busy after %llu packets", (unsigned long long)w->world.packets);
    if (oracle_content(o) && w->world.now.ns > TIME_MAX_NS)
        oracle_says(o, "still busy at %llu s of virtual time",
                    (unsigned long long)(w->world.now.ns / SEC_NS));
    if (oracle_content(o)) final_poll(w);
    for (uint32_t i = 0; i < w->nactors && oracle_content(o); i++)
        if (w->actor[i].qp) oracle_state(o, w->actor[i].oracle, actor_state(&w->actor[i]));
    if (oracle_content(o)) oracle_finish(o);
    if (oracle_content(o) && !w->plan->forge_ppm) check_counters(w);
}

void workload_run_plan(struct outcome *out, struct plan *plan, FILE *trace)
{
    struct work *w = calloc(1, sizeof *w);
    must(w);
    if (trace) plan_print(plan, trace);
    set_up(w, plan, trace);
    when_t start = w->world.now;
    while (oracle_content(&w->oracle) && w->world.packets <= PACKETS_MAX &&
           w->world.now.ns <= TIME_MAX_NS && world_step(&w->world))
        continue;
    judge(w);
    report(w, out);
    out->started = start;
    if (oracle_content(&w->oracle)) tear_down(w);
    memcpy(out->violation, w->oracle.violation, sizeof out->violation);
    world_free(&w->world);
    free(w);
}

void workload_run(struct outcome *out, uint64_t seed, enum profile only, FILE *trace)
{
    struct plan *plan = malloc(sizeof *plan);
    must(plan);
    plan_draw(plan, seed, only);
    workload_run_plan(out, plan, trace);
    plan_free(plan);
    free(plan);
}
