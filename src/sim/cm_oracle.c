/* What users must hear. Of a pair that nothing disturbed: a request is shown once, both ends agree
 * on QPs, PSNs, resources and private data, and nothing fails that no user made fail. Of every
 * pair: events come in their order, each once, none after cm_id_destroy; nobody who waits is
 * forgotten; a far QP is in one connection only. */
#include "sim/cm_world.h"

#include "base/bits.h"

static struct cm_pair *pair_of(struct cm_world *w, const struct cm_user *u)
{
    return &w->pairs[u->pair];
}

/* Something may fail that no user wanted. */
static bool may_fail(struct cm_world *w, const struct cm_user *u)
{
    return pair_of(w, u)->disturbed || pair_of(w, u)->reused;
}

static struct cm_user *active_of(struct cm_world *w, const struct cm_user *u)
{
    return &w->users[pair_of(w, u)->active];
}

/* The pair's passive user, the latest; NULL: the request has not been seen. */
static struct cm_user *passive_of(struct cm_world *w, uint32_t pair)
{
    for (size_t i = w->nusers; i-- > 0;)
        if (w->users[i].pair == pair && !w->users[i].active) return &w->users[i];
    return NULL;
}

static struct cm_user *peer_of(struct cm_world *w, const struct cm_user *u)
{
    return u->active ? passive_of(w, u->pair) : active_of(w, u);
}

/* ---- requests ---------------------------------------------------------------------------- */

static void on_request(struct cm_world *w, int node, const struct cm_event *e)
{
    bool sidr = e->type == CM_EVENT_SIDR_REQ;
    uint32_t pair = get_be32(sidr ? e->msg.sidr_req.private_data : e->msg.req.private_data);
    CMW_CHECK(w, pair < w->npairs && e->owner == w);
    CMW_CHECK(w, w->nusers < CMW_USERS);
    if (w->fault) return;
    struct cm_user *client = &w->users[w->pairs[pair].active];
    CMW_CHECK(w, client->sidr == sidr);
    CMW_CHECK(w, !passive_of(w, pair) || client->cancelled || may_fail(w, client));
    struct cm_user *u = &w->users[w->nusers++];
    *u = (struct cm_user){.node = node,
                          .epoch = w->host[node].epoch,
                          .program = (unsigned)rng_below(&w->rng, CMW_PROGRAMS),
                          .id = e->id,
                          .phase = CMP_ASKED,
                          .sidr = sidr,
                          .pair = pair,
                          .qp = -1};
    struct cm_qp_params p;
    if (sidr || cm_qp_params(e->id, &p) == 0)
        u->rq_psn = sidr ? psn_of(0) : p.rq_psn;
    else
        CMW_CHECK(w, may_fail(w, client) || client->cancelled); /* its REJ is the next event */
    cm_id_set_owner(e->id, u);
    if (!w->slow && cmw_chance(w, 70)) {
        cm_taken(e->id);
        u->taken = true;
    }
    cmw_think(w, u);
}

/* ---- a connection comes up --------------------------------------------------------------- */

static void on_rep(struct cm_world *w, struct cm_user *u, const struct cm_event *e)
{
    struct cm_qp_params p = {0};
    CMW_CHECK(w, u->active && u->phase == CMP_ASKING);
    CMW_CHECK(w, cm_qp_params(u->id, &p) == 0 && p.remote_known);
    struct cm_user *server = passive_of(w, u->pair);
    CMW_CHECK(w, server && p.rq_psn.v == u->pair * 7);
    CMW_CHECK(w, p.max_rd_atomic == 5 && p.max_dest_rd_atomic == 3);
    CMW_CHECK(w, get_be32(e->msg.rep.private_data) == ~u->pair);
    if (server && !server->gone && !may_fail(w, u))
        CMW_CHECK(w, p.dest_qpn == cmw_qpn(server->node, server->qp) &&
                         p.sq_psn.v == server->rq_psn.v);
    u->phase = CMP_GOT_REP;
    cmw_think(w, u);
}

static void on_established(struct cm_world *w, struct cm_user *u)
{
    struct cm_user *client = active_of(w, u);
    CMW_CHECK(w, !u->active && u->phase == CMP_ACCEPTED && client->ready);
    CMW_CHECK(w, ++u->ups == 1);
    struct cm_qp_params p;
    if (cm_qp_params(u->id, &p) == 0) /* else the DREQ came instead of the RTU */
        CMW_CHECK(w, p.max_rd_atomic == 3 && p.max_dest_rd_atomic == 5 &&
                         p.rq_psn.v == u->rq_psn.v && p.sq_psn.v == u->pair * 7 &&
                         (client->gone || p.dest_qpn == cmw_qpn(client->node, client->qp)));
    u->phase = CMP_UP;
    if (cmw_chance(w, 50)) cmw_think(w, u);
}

static void on_rejected(struct cm_world *w, struct cm_user *u, const struct cm_event *e)
{
    struct cm_user *peer = peer_of(w, u);
    bool wanted = peer && (peer->cancelled || peer->refused);
    CMW_CHECK(w, wanted || (peer && peer->gone) || may_fail(w, u));
    CMW_CHECK(w, u->phase == CMP_ASKING || u->phase == CMP_GOT_REP || u->phase == CMP_ACCEPTED ||
                     u->phase == CMP_ASKED || u->phase == CMP_UP);
    if (u->active && wanted && peer->refused && !peer->cancelled && !may_fail(w, u))
        CMW_CHECK(w, e->msg.rej.reason == CM_REJ_CONSUMER_DEFINED &&
                         get_be32(e->msg.rej.private_data) == ~u->pair);
    if (u->phase == CMP_UP) { /* its TIMEWAIT_EXIT will follow */
        CMW_CHECK(w, ++u->ends == 1);
        u->phase = CMP_LEAVING;
        u->act_at = NEVER;
        return;
    }
    u->phase = CMP_OVER;
    cmw_think(w, u);
}

static void on_sidr_rep(struct cm_world *w, struct cm_user *u, const struct cm_sidr_rep *rep)
{
    struct cm_user *server = passive_of(w, u->pair);
    CMW_CHECK(w, u->active && u->sidr && u->phase == CMP_ASKING && server);
    if (rep->status == CM_SIDR_OK)
        CMW_CHECK(w, rep->qpn == u->pair && rep->qkey == ~u->pair && server && !server->refused);
    else
        CMW_CHECK(w, server && (server->refused || server->cancelled || may_fail(w, u)));
    u->phase = CMP_OVER;
    cmw_think(w, u);
}

/* ---- and down ---------------------------------------------------------------------------- */

static void on_end(struct cm_world *w, struct cm_user *u, enum cm_event_type type)
{
    CMW_CHECK(w, ++u->ends == 1);
    if (type == CM_EVENT_DREQ) {
        CMW_CHECK(w, u->phase == CMP_UP || u->phase == CMP_GOT_REP);
        cmw_think(w, u);
    } else {
        /* Without our asking only where a new connection has proven this one dead. */
        struct cm_user *peer = peer_of(w, u);
        bool proven = u->phase == CMP_UP && ((peer && peer->gone) || may_fail(w, u));
        CMW_CHECK(w, u->phase == CMP_LEAVING || proven);
        u->act_at = NEVER;
    }
    if (type == CM_EVENT_DREQ_ERROR) CMW_CHECK(w, w->slow || may_fail(w, u));
    u->phase = CMP_LEAVING;
}

static void on_failed(struct cm_world *w, struct cm_user *u, enum cm_event_type type)
{
    CMW_CHECK(w, may_fail(w, u) || (w->slow && u->sidr)); /* SIDR knows no MRA */
    CMW_CHECK(w, u->phase == (type == CM_EVENT_REP_ERROR ? CMP_ACCEPTED : CMP_ASKING));
    CMW_CHECK(w, (type == CM_EVENT_SIDR_ERROR) == u->sidr);
    u->phase = CMP_OVER;
    cmw_think(w, u);
}

void cmw_event(struct cm_world *w, int node, const struct cm_event *e)
{
    if (e->type == CM_EVENT_REQ || e->type == CM_EVENT_SIDR_REQ) {
        on_request(w, node, e);
        return;
    }
    struct cm_user *u = e->owner;
    CMW_CHECK(w, !u->gone && u->id == e->id && u->exits == 0);
    switch (e->type) {
    case CM_EVENT_REP: on_rep(w, u, e); break;
    case CM_EVENT_ESTABLISHED: on_established(w, u); break;
    case CM_EVENT_REJ: on_rejected(w, u, e); break;
    case CM_EVENT_DREQ:
    case CM_EVENT_DREP:
    case CM_EVENT_DREQ_ERROR: on_end(w, u, e->type); break;
    case CM_EVENT_TIMEWAIT_EXIT:
        CMW_CHECK(w, u->phase == CMP_LEAVING && ++u->exits == 1 && u->ends == 1);
        u->phase = CMP_OVER;
        cmw_think(w, u);
        break;
    case CM_EVENT_REQ_ERROR:
    case CM_EVENT_REP_ERROR:
    case CM_EVENT_SIDR_ERROR: on_failed(w, u, e->type); break;
    case CM_EVENT_SIDR_REP: on_sidr_rep(w, u, &e->msg.sidr_rep); break;
    default: CMW_CHECK(w, !"an unknown event"); break;
    }
}

/* ---- at rest ----------------------------------------------------------------------------- */

static void judge_far_qps(struct cm_world *w)
{
    struct cm_qp_params a, b;
    for (size_t i = 0; i < w->nusers; i++) {
        const struct cm_user *u = &w->users[i];
        if (u->gone || cm_qp_params(u->id, &a) < 0) continue;
        for (size_t k = 0; k < i; k++) {
            const struct cm_user *v = &w->users[k];
            if (v->gone || v->node != u->node || cm_qp_params(v->id, &b) < 0) continue;
            CMW_CHECK(w, a.dest_qpn != b.dest_qpn);
        }
    }
}

void cmw_judge_rest(struct cm_world *w)
{
    for (size_t i = 0; i < w->nusers && !w->fault; i++) {
        struct cm_user *u = &w->users[i];
        CMW_CHECK(w, u->gone || u->phase == CMP_UP);
        if (u->gone || u->active || pair_of(w, u)->disturbed) continue;
        struct cm_user *client = active_of(w, u);
        CMW_CHECK(w, u->ups == 1 && !client->gone && client->phase == CMP_UP);
    }
    for (size_t i = 0; i < w->nusers && !w->fault; i++) {
        struct cm_user *u = &w->users[i];
        if (u->gone || !u->active || pair_of(w, u)->disturbed) continue;
        struct cm_user *server = passive_of(w, u->pair);
        CMW_CHECK(w, server && !server->gone && server->phase == CMP_UP);
    }
    judge_far_qps(w);
}
