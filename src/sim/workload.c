/* See workload.h. The schedule of a run: set-up, cuts and controls from the plan, and the judgement
 * when nothing more can happen. */
#include "sim/workload.h"
#include "base/must.h"
#include "sim/actor.h"
#include "sim/control.h"
#include "sim/turn.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PACKETS_MAX 300000
#define TIME_MAX_NS (4000 * SEC_NS)

/* ---- what the links do ------------------------------------------------------------------- */

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

static void ran(void *ctx, struct host *host)
{
    struct work *w = ctx;
    board_want_poll(&w->board[host->index]);
    /* A driver may call it before the time. */
    if (!rng_percent(&w->rng, 1)) return;
    hca_expire(host->hca, w->world.now);
    if (host->wing) hca_expire(host->wing, w->world.now);
    world_kick(host);
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
                                HCA_ACCESS_MW_BIND | HCA_ACCESS_FLUSH_GLOBAL;
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
                                    .xrcd = xrc ? PLAN_XRCD : 0,
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
        board_want_tick(&w->board[h]);
        board_want_poll(&w->board[h]);
    }
    for (uint32_t i = 0; i < plan->ncuts; i++) {
        world_at(&w->world, plan->cut[i].at_ns, do_cut, w, i);
        if (plan->cut[i].mend_ns) world_at(&w->world, plan->cut[i].mend_ns, do_mend, w, i);
    }
    for (uint32_t i = 0; i < plan->ncontrols; i++)
        world_at(&w->world, plan->control[i].at_ns, control_run, w, i);
}

/* ---- the end
 * ------------------------------------------------------------------------------------------- */

/* All is quiet. What lies in CQs now was never announced. */
static void final_poll(struct work *w)
{
    for (uint8_t h = 0; h < w->plan->nhosts; h++) {
        struct board *b = &w->board[h];
        board_take_events(b);
        board_take_notices(b);
        for (uint32_t i = 0; i < b->ncqs && oracle_content(&w->oracle); i++)
            if (board_poll_cq(b, &b->cq[i]))
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
        if (a->plan->in_group && hca_mcast_detach(a->hca, a->qp, &a->board->host->group))
            oracle_says(&w->oracle, "QP not detached from the group");
        if (hca_qp_destroy(a->hca, a->qp)) oracle_says(&w->oracle, "QP not destroyed");
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
    /* What waits for another function finds no more room at some time, and comes again. */
    for (uint8_t h = 0; h < p->nhosts; h++) tame = tame && !p->host[h].wing_function;
    for (uint8_t h = 0; h < p->nhosts; h++) {
        const struct host *host = w->board[h].host;
        struct hca_counters sum, *c = &sum;
        uint64_t tx = 0, rx = 0;
        world_counters(host, c);
        for (uint8_t m = 0; m < STEER_MAX_MEMBERS; m++) {
            const struct hca_member_counters *mc = hca_member_counters(host->hca, m);
            tx += mc->tx_packets;
            rx += mc->rx_packets;
            if (!host->wing) continue;
            mc = hca_member_counters(host->wing, m);
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
        world_counters(w->board[h].host, &out->counters[h]);
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
