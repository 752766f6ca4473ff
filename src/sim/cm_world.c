/* See cm_world.h. */
#include "sim/cm_world.h"

#include "base/must.h"
#include <string.h>

/* Short of the second for which a request waits for a listener. */
#define GAP_NS (900 * MS_NS)
/* Longer than a packet lives here: the number may be used anew. */
#define QP_REST_NS (150 * MS_NS)
#define MAX_STEPS 400000

/* ---- QP numbers: few, so that they come again soon ------------------------------------------ */

qpn_t cmw_qpn(int node, int qp) { return (qpn_t)(node ? 0x800010 : 0x10) + (qpn_t)qp; }

int cmw_take_qp(struct cm_world *w, int node, struct cm_pair *pair)
{
    struct cm_host *h = &w->host[node];
    for (int i = 0; i < CMW_QPS; i++) {
        if (h->qp[i].taken || w->now.ns < h->qp[i].free_at.ns) continue;
        if (h->qp[i].used) pair->reused = true;
        h->qp[i].taken = h->qp[i].used = true;
        return i;
    }
    return -1;
}

void cmw_drop_qp(struct cm_world *w, int node, int qp)
{
    if (qp < 0) return;
    w->host[node].qp[qp].taken = false;
    w->host[node].qp[qp].free_at = when_add(w->now, QP_REST_NS);
}

/* ---- hosts ------------------------------------------------------------------------------- */

static void disturb_all(struct cm_world *w)
{
    for (size_t i = 0; i < w->npairs; i++) w->pairs[i].disturbed = true;
}

static void listen_again(struct cm_world *w)
{
    CMW_CHECK(w, cm_listen(w->host[1].cm, CMW_SERVICE, CM_SCOPE_ANY, NULL, w->backlog, w,
                           &w->listener, w->now) == 0);
}

static void bring_up(struct cm_world *w, int node)
{
    struct cm_host *h = &w->host[node];
    h->cm = cm_new(&(struct cm_conf){.seed = rng_u64(&w->rng), .max_ids = 256});
    must(h->cm);
    if (node == 1) listen_again(w);
}

static void die(struct cm_world *w, int node)
{
    struct cm_host *h = &w->host[node];
    for (size_t i = 0; i < w->nusers; i++) {
        struct cm_user *u = &w->users[i];
        if (u->node != node || u->gone) continue;
        u->gone = true;
        u->act_at = NEVER;
        cmw_drop_qp(w, node, u->qp);
    }
    disturb_all(w);
    cm_free(h->cm);
    h->cm = NULL;
    h->epoch++;
    if (node == 1) {
        w->listener = NULL;
        w->gap = NEVER;
    }
}

static void host_fate(struct cm_world *w, int node)
{
    struct cm_host *h = &w->host[node];
    if (!when_due(h->fate, w->now)) return;
    if (w->trace)
        fprintf(w->trace, "%.6f host %d %s\n", (double)w->now.ns / 1e9, node,
                h->cm ? "dies" : "returns");
    if (h->cm) {
        die(w, node);
        h->fate = when_add(w->now, QP_REST_NS + rng_below(&w->rng, 10 * SEC_NS));
        return;
    }
    bring_up(w, node);
    h->fate = cmw_chance(w, 30) ? cmw_soon(w, 20 * SEC_NS) : NEVER;
    for (unsigned n = (unsigned)rng_below(&w->rng, 8); n > 0; n--) cmw_add_client(w, 2 * SEC_NS);
}

static void program_dies(struct cm_world *w)
{
    if (!when_due(w->program_death, w->now)) return;
    w->program_death = cmw_chance(w, 50) ? cmw_soon(w, 4 * SEC_NS) : NEVER;
    int node = (int)rng_below(&w->rng, 2);
    unsigned program = (unsigned)rng_below(&w->rng, CMW_PROGRAMS);
    for (size_t i = 0; i < w->nusers; i++) {
        struct cm_user *u = &w->users[i];
        if (u->node == node && u->program == program && !u->gone && u->id) cmw_let_go(w, u);
    }
}

static void mind_the_gap(struct cm_world *w)
{
    if (!when_due(w->gap, w->now)) return;
    if (w->listener) {
        cm_listener_destroy(w->listener);
        w->listener = NULL;
        w->gap = cmw_soon(w, GAP_NS);
        return;
    }
    w->gap = cmw_chance(w, 50) ? cmw_soon(w, SEC_NS) : NEVER;
    listen_again(w);
}

/* ---- the network ------------------------------------------------------------------------- */

static void cut_or_mend(struct cm_world *w)
{
    if (!when_due(w->cut_at, w->now)) return;
    w->cut = !w->cut;
    disturb_all(w);
    w->cut_at = w->cut              ? cmw_soon(w, cmw_chance(w, 50) ? 5 * SEC_NS : 90 * SEC_NS)
                : cmw_chance(w, 30) ? cmw_soon(w, 10 * SEC_NS)
                                    : NEVER;
}

static void launch(struct cm_world *w, int from, const struct cm_out *out)
{
    bool lost = w->cut || cmw_chance(w, w->loss);
    if (w->trace)
        fprintf(w->trace, "%.6f %d: %s%s\n", (double)w->now.ns / 1e9, from,
                cm_msg_name((enum cm_attr)out->mad[17]), lost ? " lost" : "");
    if (lost) return;
    unsigned copies = cmw_chance(w, w->dup) ? 2 : 1;
    for (unsigned i = 0; i < copies && w->nflight < CMW_FLIGHT; i++)
        w->flight[w->nflight++] = (struct cm_flight){
            .at = when_add(cmw_soon(w, w->max_delay_ns), 1000), .to = !from, .out = *out};
}

static void settle(struct cm_world *w)
{
    struct cm_event e;
    struct cm_out out[16];
    for (int n = 0; n < 2; n++) {
        if (!w->host[n].cm) continue;
        while (!w->fault && cm_next_event(w->host[n].cm, &e)) {
            if (w->trace)
                fprintf(w->trace, "%.6f %d: event %d\n", (double)w->now.ns / 1e9, n, (int)e.type);
            cmw_event(w, n, &e);
        }
        for (size_t got; (got = cm_output(w->host[n].cm, out, 16)) > 0;)
            for (size_t i = 0; i < got; i++) launch(w, n, &out[i]);
    }
}

static void deliver_due(struct cm_world *w)
{
    for (size_t i = 0; i < w->nflight && !w->fault; i++) {
        if (w->flight[i].at.ns > w->now.ns) continue;
        struct cm_flight f = w->flight[i];
        w->flight[i--] = w->flight[--w->nflight];
        if (!w->host[f.to].cm) continue;
        struct cm_route back = {.local = f.out.route.remote, .remote = f.out.route.local};
        cm_input(w->host[f.to].cm, f.out.mad, sizeof f.out.mad, &back, w->now);
        settle(w);
    }
}

/* ---- the clock --------------------------------------------------------------------------- */

static when_t next_moment(const struct cm_world *w)
{
    when_t t = when_min(when_min(w->gap, w->cut_at), w->program_death);
    for (int n = 0; n < 2; n++) {
        t = when_min(t, w->host[n].fate);
        if (w->host[n].cm) t = when_min(t, cm_deadline(w->host[n].cm));
    }
    for (size_t i = 0; i < w->nflight; i++) t = when_min(t, w->flight[i].at);
    for (size_t i = 0; i < w->nusers; i++) t = when_min(t, w->users[i].act_at);
    return t;
}

static void act_all(struct cm_world *w)
{
    for (size_t i = 0; i < w->nusers && !w->fault; i++) {
        struct cm_user *u = &w->users[i];
        if (!when_due(u->act_at, w->now)) continue;
        if (w->host[u->node].cm)
            cmw_act(w, u);
        else
            cmw_think(w, u);
    }
}

static void run(struct cm_world *w)
{
    for (unsigned steps = 0; !w->fault; steps++) {
        CMW_CHECK(w, steps < MAX_STEPS);
        when_t t = next_moment(w);
        if (when_is_never(t)) break;
        if (t.ns > w->now.ns) w->now = t;
        cut_or_mend(w);
        for (int n = 0; n < 2; n++) host_fate(w, n);
        mind_the_gap(w);
        deliver_due(w);
        for (int n = 0; n < 2; n++)
            if (w->host[n].cm) cm_expire(w->host[n].cm, w->now);
        settle(w);
        program_dies(w);
        settle(w);
        act_all(w);
        settle(w);
    }
}

/* ---- a seed ------------------------------------------------------------------------------ */

static void draw(struct cm_world *w)
{
    w->loss = (unsigned)rng_below(&w->rng, 16);
    w->dup = (unsigned)rng_below(&w->rng, 21);
    w->max_delay_ns = cmw_chance(w, 50) ? MS_NS : 60 * MS_NS;
    w->slow = cmw_chance(w, 10);
    w->max_think_ns = w->slow ? 100 * SEC_NS : cmw_chance(w, 50) ? 10 * MS_NS : 4 * SEC_NS;
    w->backlog = cmw_chance(w, 20) && w->max_think_ns < SEC_NS ? 1 : 64;
    w->gap = cmw_chance(w, 50) ? cmw_soon(w, SEC_NS) : NEVER;
    w->cut_at = cmw_chance(w, 15) ? cmw_soon(w, 5 * SEC_NS) : NEVER;
    w->program_death = cmw_chance(w, 25) ? cmw_soon(w, 4 * SEC_NS) : NEVER;
    for (int n = 0; n < 2; n++)
        w->host[n].fate = cmw_chance(w, 15) ? cmw_soon(w, 5 * SEC_NS) : NEVER;
}

const char *cm_world_play(struct cm_world *w, uint64_t seed, FILE *trace)
{
    memset(w, 0, sizeof *w);
    w->rng = (struct rng){seed};
    w->trace = trace;
    draw(w);
    for (int n = 0; n < 2; n++) {
        w->host[n].gid = (struct gid){{[10] = 0xff, [11] = 0xff, 10, 0, 0, (uint8_t)n}};
        bring_up(w, n);
    }
    for (unsigned n = 1 + (unsigned)rng_below(&w->rng, 20); n > 0; n--)
        cmw_add_client(w, 2 * SEC_NS);
    run(w);
    if (!w->fault) cmw_judge_rest(w);
    for (size_t i = 0; i < w->nusers && !w->fault; i++)
        if (!w->users[i].gone) cmw_let_go(w, &w->users[i]);
    settle(w);
    run(w);
    for (int n = 0; n < 2; n++) {
        CMW_CHECK(w, w->host[n].cm && cm_ids(w->host[n].cm) == 0);
        if (w->host[n].cm) cm_free(w->host[n].cm);
    }
    CMW_CHECK(w, w->now.ns < 3600 * SEC_NS);
    return w->fault;
}
