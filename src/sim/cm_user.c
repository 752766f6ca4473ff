/* Users of the connection manager: each acts, thinks for a while, and acts again. Their private
 * data carries the number of their pair, by which the oracle knows who belongs to whom. */
#include "sim/cm_world.h"

#include "base/bits.h"

static struct cm *engine(struct cm_world *w, const struct cm_user *u)
{
    return w->host[u->node].cm;
}

void cmw_think(struct cm_world *w, struct cm_user *u) { u->act_at = cmw_soon(w, w->max_think_ns); }

static void give_qp_back(struct cm_world *w, struct cm_user *u)
{
    cmw_drop_qp(w, u->node, u->qp);
    u->qp = -1;
}

void cmw_let_go(struct cm_world *w, struct cm_user *u)
{
    if (u->phase < CMP_UP) u->cancelled = true;
    u->gone = true;
    u->act_at = NEVER;
    if (u->id) cm_id_destroy(u->id, w->now);
    give_qp_back(w, u);
}

void cmw_add_client(struct cm_world *w, uint64_t within_ns)
{
    if (w->nusers == CMW_USERS || w->npairs == CMW_PAIRS) return;
    uint32_t pair = (uint32_t)w->npairs++;
    w->pairs[pair] = (struct cm_pair){.active = (uint32_t)w->nusers};
    struct cm_user *u = &w->users[w->nusers++];
    *u = (struct cm_user){.active = true,
                          .epoch = w->host[0].epoch,
                          .program = (unsigned)rng_below(&w->rng, CMW_PROGRAMS),
                          .sidr = cmw_chance(w, 15),
                          .pair = pair,
                          .qp = -1};
    u->act_at = cmw_soon(w, within_ns);
}

/* ---- asking ------------------------------------------------------------------------------ */

static void connect_it(struct cm_world *w, struct cm_user *u, const uint8_t *data, size_t len)
{
    struct cm_connect_param p = {
        .route = {.local = w->host[u->node].gid, .remote = w->host[!u->node].gid},
        .service_id = CMW_SERVICE,
        .path_mtu = 3,
        .ack_timeout = 14,
        .offer = {.qpn = cmw_qpn(u->node, u->qp),
                  .psn = psn_of(u->pair * 7),
                  .retry_count = 7,
                  .rnr_retry_count = 7,
                  .responder_resources = 3,
                  .initiator_depth = 5,
                  .ca_guid = 1,
                  .private_data = data,
                  .private_len = len}};
    CMW_CHECK(w, cm_connect(engine(w, u), &p, u, &u->id, w->now) == 0);
}

static void ask(struct cm_world *w, struct cm_user *u)
{
    uint8_t data[8] = {0};
    put_be32(data, u->pair);
    struct cm_route route = {.local = w->host[u->node].gid, .remote = w->host[!u->node].gid};
    if (!u->sidr && (u->qp = cmw_take_qp(w, u->node, &w->pairs[u->pair])) < 0) {
        cmw_think(w, u); /* all are in use: later */
        return;
    }
    if (!w->host[!u->node].cm || w->cut) w->pairs[u->pair].disturbed = true;
    if (u->sidr)
        CMW_CHECK(w, cm_sidr(engine(w, u), &route, CMW_SERVICE, data, sizeof data, u, &u->id,
                             w->now) == 0);
    else
        connect_it(w, u, data, sizeof data);
    u->phase = CMP_ASKING;
    if (cmw_chance(w, 10)) cmw_think(w, u); /* may give up */
}

/* ---- answering --------------------------------------------------------------------------- */

static void accept_it(struct cm_world *w, struct cm_user *u, const uint8_t *data, size_t len)
{
    u->qp = cmw_take_qp(w, u->node, &w->pairs[u->pair]);
    if (u->qp < 0) {
        cmw_think(w, u);
        return;
    }
    struct cm_offer o = {.qpn = cmw_qpn(u->node, u->qp),
                         .ca_guid = 2,
                         .rnr_retry_count = 7,
                         .responder_resources = 5,
                         .initiator_depth = 3,
                         .private_data = data,
                         .private_len = len};
    CMW_CHECK(w, cm_accept(u->id, &o, w->now) == 0);
    u->phase = CMP_ACCEPTED;
}

static void answer(struct cm_world *w, struct cm_user *u)
{
    uint8_t data[8] = {0};
    put_be32(data, ~u->pair);
    if (!u->taken) cm_taken(u->id);
    u->taken = true;
    u->refused = cmw_chance(w, 12);
    if (u->sidr) {
        uint8_t status = u->refused ? CM_SIDR_REJECTED : CM_SIDR_OK;
        CMW_CHECK(w,
                  cm_sidr_answer(u->id, status, u->pair, ~u->pair, data, sizeof data, w->now) == 0);
        u->phase = CMP_OVER;
        cmw_think(w, u);
    } else if (u->refused) {
        CMW_CHECK(w, cm_reject(u->id, CM_REJ_CONSUMER_DEFINED, data, sizeof data, w->now) == 0);
        u->phase = CMP_REJECTED;
        cmw_think(w, u);
    } else {
        accept_it(w, u, data, sizeof data);
    }
}

/* ---- going on ---------------------------------------------------------------------------- */

static void finish(struct cm_world *w, struct cm_user *u)
{
    if (cmw_chance(w, 5)) {
        u->cancelled = true;
        CMW_CHECK(w, cm_reject(u->id, CM_REJ_CONSUMER_DEFINED, NULL, 0, w->now) == 0);
        u->phase = CMP_OVER;
        cmw_think(w, u);
        return;
    }
    CMW_CHECK(w, cm_ready(u->id, w->now) == 0);
    u->ready = true;
    u->phase = CMP_UP;
    if (cmw_chance(w, 60)) cmw_think(w, u);
}

void cmw_act(struct cm_world *w, struct cm_user *u)
{
    u->act_at = NEVER;
    if (u->phase > CMP_ASKING && u->phase != CMP_OVER && cmw_chance(w, 6)) {
        cmw_let_go(w, u);
        return;
    }
    switch (u->phase) {
    case CMP_IDLE: ask(w, u); break;
    case CMP_ASKED: answer(w, u); break;
    case CMP_GOT_REP: finish(w, u); break;
    case CMP_UP:
    case CMP_LEAVING:
        CMW_CHECK(w, cm_disconnect(u->id, w->now) == 0);
        u->phase = CMP_LEAVING;
        break;
    case CMP_ASKING:
    case CMP_REJECTED:
    case CMP_OVER: cmw_let_go(w, u); break;
    case CMP_ACCEPTED: break;
    }
}
