/* cm-sim: two connection managers joined by a network that loses, doubles, delays and reorders, and
 * users that connect, accept, reject, disconnect and let go at random moments, in virtual time.
 * The oracle: every handshake that no user gave up comes to its end without an error; both ends
 * know the same QPs, PSNs and private data; events come in their order and never after
 * cm_id_destroy; a request is shown to the server once; when all users have gone, nothing is left
 * behind.
 *
 *   cm-sim [--seeds N] [--from K]     a failing seed prints the line that replays it */
#include "cm/engine.h"

#include "base/bits.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_USERS 128
#define MAX_FLIGHT 4096
#define SERVICE 0x01060001ull

enum phase { CONNECTING, ASKED, ACCEPTED, REJECTED, GOT_REP, UP, LEAVING, OVER };

struct user {
    int node;
    struct cm_id *id;
    bool active, gone, cancelled; /* cancelled: let go before the connection was up */
    enum phase phase;
    when_t act_at;
    uint32_t tag;
    bool ready;
    psn_t rq_psn; /* the server's */
    unsigned ups, ends, exits;
};

struct flight {
    when_t at;
    int to;
    struct cm_out out;
};

struct world {
    uint64_t seed, random;
    when_t now;
    struct cm *cm[2];
    struct gid gid[2];
    struct cm_listener *listener;
    uint32_t backlog;
    when_t gap; /* the server ends its listener, or makes the next */
    struct user user[MAX_USERS];
    size_t nusers, nflight;
    struct flight flight[MAX_FLIGHT];
    unsigned loss, dup; /* percent */
    uint64_t max_delay_ns, max_think_ns;
    const char *fault;
};

static uint64_t rnd(struct world *w)
{
    w->random += 0x9e3779b97f4a7c15ull;
    uint64_t z = w->random;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static bool chance(struct world *w, unsigned percent) { return rnd(w) % 100 < percent; }

#define CHECK(w, cond)                                                                             \
    do {                                                                                           \
        if (!(cond) && !(w)->fault) (w)->fault = #cond;                                            \
    } while (0)

static void think(struct world *w, struct user *u)
{
    u->act_at = when_add(w->now, rnd(w) % w->max_think_ns);
}

static struct user *by_tag(struct world *w, uint32_t tag, bool active)
{
    for (size_t i = 0; i < w->nusers; i++)
        if (w->user[i].tag == tag && w->user[i].active == active) return &w->user[i];
    return NULL;
}

/* ---- users ------------------------------------------------------------------------------- */

static void let_go(struct world *w, struct user *u)
{
    if (u->phase < UP) u->cancelled = true;
    u->gone = true;
    u->act_at = NEVER;
    cm_id_destroy(u->id, w->now);
}

static void act_connect(struct world *w, struct user *u)
{
    uint8_t data[8] = {0};
    put_be32(data, u->tag);
    struct cm_connect_param p = {.route = {.local = w->gid[u->node], .remote = w->gid[!u->node]},
                                 .service_id = SERVICE,
                                 .path_mtu = 3,
                                 .ack_timeout = 14,
                                 .offer = {.qpn = u->tag,
                                           .psn = psn_of(u->tag * 7),
                                           .retry_count = 7,
                                           .rnr_retry_count = 7,
                                           .responder_resources = 3,
                                           .initiator_depth = 5,
                                           .ca_guid = 1,
                                           .private_data = data,
                                           .private_len = sizeof data}};
    CHECK(w, cm_connect(w->cm[u->node], &p, u, &u->id, w->now) == 0);
    u->act_at =
        chance(w, 10) ? when_add(w->now, rnd(w) % w->max_think_ns) : NEVER; /* may give up */
}

static void act_answer(struct world *w, struct user *u)
{
    uint8_t data[8] = {0};
    put_be32(data, ~u->tag);
    if (chance(w, 12)) {
        CHECK(w, cm_reject(u->id, CM_REJ_CONSUMER_DEFINED, data, sizeof data, w->now) == 0);
        u->phase = REJECTED;
        think(w, u);
        return;
    }
    struct cm_offer o = {.qpn = u->tag | 0x800000,

                         .ca_guid = 2,
                         .rnr_retry_count = 7,
                         .responder_resources = 5,
                         .initiator_depth = 3,
                         .private_data = data,
                         .private_len = sizeof data};
    CHECK(w, cm_accept(u->id, &o, w->now) == 0);
    u->phase = ACCEPTED;
    u->act_at = NEVER;
}

static void act(struct world *w, struct user *u)
{
    u->act_at = NEVER;
    if (u->phase != CONNECTING && u->phase != OVER && chance(w, 6)) {
        let_go(w, u);
        return;
    }
    switch (u->phase) {
    case CONNECTING:
        if (u->id)
            let_go(w, u);
        else
            act_connect(w, u);
        break;
    case ASKED: act_answer(w, u); break;
    case GOT_REP:
        if (chance(w, 5)) {
            u->cancelled = true;
            CHECK(w, cm_reject(u->id, CM_REJ_CONSUMER_DEFINED, NULL, 0, w->now) == 0);
            u->phase = OVER;
        } else {
            CHECK(w, cm_ready(u->id, w->now) == 0);
            u->ready = true;
            u->phase = UP;
        }
        if (u->phase == OVER || chance(w, 60)) think(w, u);
        break;
    case UP:
    case LEAVING:
        CHECK(w, cm_disconnect(u->id, w->now) == 0);
        u->phase = LEAVING;
        break;
    case REJECTED:
    case OVER: let_go(w, u); break;
    case ACCEPTED: break;
    }
}

/* ---- events and the oracle --------------------------------------------------------------- */

static void on_request(struct world *w, int node, const struct cm_event *e)
{
    uint32_t tag = get_be32(e->msg.req.private_data);
    struct user *client = by_tag(w, tag, true), *u = by_tag(w, tag, false);
    CHECK(w, client && e->owner == w);
    CHECK(w, w->nusers < MAX_USERS);
    if (!client || w->nusers == MAX_USERS) return;
    CHECK(w, !u || client->cancelled); /* a request is shown once */
    u = &w->user[w->nusers++];
    *u = (struct user){.node = node, .id = e->id, .phase = ASKED, .tag = tag};
    struct cm_qp_params p;
    CHECK(w, cm_qp_params(e->id, &p) == 0 && p.remote_known);
    u->rq_psn = p.rq_psn;
    cm_id_set_owner(e->id, u);
    cm_taken(e->id);
    think(w, u);
}

static void check_agreement(struct world *w, struct user *u, const struct cm_event *e)
{
    struct cm_qp_params p;
    CHECK(w, cm_qp_params(u->id, &p) == 0);
    CHECK(w, p.remote_known && p.dest_qpn == (u->tag | 0x800000));
    struct user *server = by_tag(w, u->tag, false);
    CHECK(w, p.rq_psn.v == u->tag * 7 && server && p.sq_psn.v == server->rq_psn.v);
    CHECK(w, p.max_rd_atomic == 5 && p.max_dest_rd_atomic == 3);
    CHECK(w, get_be32(e->msg.rep.private_data) == ~u->tag);
}

static void on_established(struct world *w, struct user *u)
{
    struct user *client = by_tag(w, u->tag, true);
    CHECK(w, !u->active && u->phase == ACCEPTED && client->ready);
    CHECK(w, ++u->ups == 1);
    struct cm_qp_params p;
    if (cm_qp_params(u->id, &p) == 0)
        CHECK(w, p.dest_qpn == u->tag && p.max_rd_atomic == 3 && p.max_dest_rd_atomic == 5 &&
                     p.rq_psn.v == u->rq_psn.v && p.sq_psn.v == u->tag * 7);
    else
        CHECK(w, u->id->state == CMS_DREQ_RCVD); /* the DREQ came instead of the RTU */
    u->phase = UP;
    if (chance(w, 50)) think(w, u);
}

static void on_rejected(struct world *w, struct user *u, const struct cm_event *e)
{
    struct user *peer = by_tag(w, u->tag, !u->active);
    CHECK(w, u->phase == CONNECTING || u->phase == GOT_REP || u->phase == ACCEPTED ||
                 u->phase == ASKED);
    CHECK(w, peer && (peer->cancelled || peer->phase == REJECTED));
    if (u->active && peer && peer->phase == REJECTED && !peer->cancelled)
        CHECK(w, e->msg.rej.reason == CM_REJ_CONSUMER_DEFINED &&
                     get_be32(e->msg.rej.private_data) == ~u->tag);
    u->phase = OVER;
    think(w, u);
}

static void on_event(struct world *w, int node, const struct cm_event *e)
{
    if (e->type == CM_EVENT_REQ) {
        on_request(w, node, e);
        return;
    }
    struct user *u = e->owner;
    CHECK(w, !u->gone && u->id == e->id && u->exits == 0);
    switch (e->type) {
    case CM_EVENT_REP:
        CHECK(w, u->active && u->phase == CONNECTING);
        check_agreement(w, u, e);
        u->phase = GOT_REP;
        think(w, u);
        break;
    case CM_EVENT_ESTABLISHED: on_established(w, u); break;
    case CM_EVENT_REJ: on_rejected(w, u, e); break;
    case CM_EVENT_DREQ:
        CHECK(w, u->phase == UP || u->phase == GOT_REP);
        CHECK(w, ++u->ends == 1);
        u->phase = LEAVING;
        think(w, u);
        break;
    case CM_EVENT_DREP: CHECK(w, u->phase == LEAVING && ++u->ends == 1); break;
    case CM_EVENT_TIMEWAIT_EXIT:
        CHECK(w, u->phase == LEAVING && ++u->exits == 1 && u->ends == 1);
        u->phase = OVER;
        think(w, u);
        break;
    default: CHECK(w, !"an error though both ends live"); break;
    }
}

/* ---- the network and the clock ----------------------------------------------------------- */

static void launch(struct world *w, int from, const struct cm_out *out)
{
    if (chance(w, w->loss)) return;
    unsigned copies = chance(w, w->dup) ? 2 : 1;
    for (unsigned i = 0; i < copies && w->nflight < MAX_FLIGHT; i++)
        w->flight[w->nflight++] = (struct flight){
            .at = when_add(w->now, 1000 + rnd(w) % w->max_delay_ns), .to = !from, .out = *out};
}

static void settle(struct world *w)
{
    for (int n = 0; n < 2; n++) {
        struct cm_event e;
        while (cm_next_event(w->cm[n], &e)) on_event(w, n, &e);
        struct cm_out out[16];
        for (size_t got; (got = cm_output(w->cm[n], out, 16)) > 0;)
            for (size_t i = 0; i < got; i++) launch(w, n, &out[i]);
    }
}

static void deliver_due(struct world *w)
{
    for (size_t i = 0; i < w->nflight; i++) {
        if (w->flight[i].at.ns > w->now.ns) continue;
        struct flight f = w->flight[i];
        w->flight[i--] = w->flight[--w->nflight];
        struct cm_route back = {.local = f.out.route.remote, .remote = f.out.route.local};
        cm_input(w->cm[f.to], f.out.mad, sizeof f.out.mad, &back, w->now);
        settle(w);
    }
}

static when_t next_moment(const struct world *w)
{
    when_t t = when_min(cm_deadline(w->cm[0]), cm_deadline(w->cm[1]));
    t = when_min(t, w->gap);
    for (size_t i = 0; i < w->nflight; i++) t = when_min(t, w->flight[i].at);
    for (size_t i = 0; i < w->nusers; i++) t = when_min(t, w->user[i].act_at);
    return t;
}

/* Short of the grace that requests are given. */
static void mind_the_gap(struct world *w)
{
    if (!when_due(w->gap, w->now)) return;
    if (w->listener) {
        cm_listener_destroy(w->listener);
        w->listener = NULL;
        w->gap = when_add(w->now, rnd(w) % (CM_GRACE_NS * 9 / 10));
        return;
    }
    w->gap = chance(w, 50) ? when_add(w->now, rnd(w) % SEC_NS) : NEVER;
    CHECK(w, cm_listen(w->cm[1], SERVICE, CM_SCOPE_ANY, NULL, w->backlog, w, &w->listener,
                       w->now) == 0);
}

static void run(struct world *w)
{
    for (unsigned steps = 0; !w->fault; steps++) {
        CHECK(w, steps < 200000);
        when_t t = next_moment(w);
        if (when_is_never(t)) break;
        if (t.ns > w->now.ns) w->now = t;
        mind_the_gap(w);
        deliver_due(w);
        for (int n = 0; n < 2; n++) cm_expire(w->cm[n], w->now);
        settle(w);
        for (size_t i = 0; i < w->nusers; i++)
            if (when_due(w->user[i].act_at, w->now)) act(w, &w->user[i]);
        settle(w);
    }
}

/* The world stands still: everyone has gone, nothing is left. Users that none disturbed sit in UP.
 */
static void check_end(struct world *w)
{
    for (size_t i = 0; i < w->nusers && !w->fault; i++) {
        struct user *u = &w->user[i];
        CHECK(w, u->gone || u->phase == UP);
        if (u->active && u->ready && !u->gone && u->phase == UP) {
            struct user *server = by_tag(w, u->tag, false);
            CHECK(w, server && server->ups == 1 && server->phase == UP && !server->gone);
        }
        if (!u->gone) let_go(w, u);
    }
    settle(w);
    run(w);
    for (size_t i = 0; i < w->nusers; i++) CHECK(w, w->user[i].gone);
    CHECK(w, w->cm[0]->nids == 0 && w->cm[1]->nids == 0);
    CHECK(w, w->now.ns < 3600 * SEC_NS);
}

static struct user *add_client(struct world *w, uint32_t tag)
{
    struct user *u = &w->user[w->nusers++];
    *u = (struct user){.node = 0, .active = true, .phase = CONNECTING, .tag = tag};
    u->act_at = when_add(w->now, rnd(w) % (2 * SEC_NS));
    return u;
}

static const char *play(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->seed = w->random = seed;
    w->loss = (unsigned)(rnd(w) % 16);
    w->dup = (unsigned)(rnd(w) % 21);
    w->max_delay_ns = chance(w, 50) ? MS_NS : 60 * MS_NS;
    w->max_think_ns = chance(w, 50) ? 10 * MS_NS : 4 * SEC_NS;
    for (uint8_t n = 0; n < 2; n++) {
        w->gid[n] = (struct gid){{[10] = 0xff, [11] = 0xff, 10, 0, 0, n}};
        w->cm[n] = cm_new(&(struct cm_conf){.seed = rnd(w), .max_ids = 256});
    }
    w->backlog = chance(w, 20) ? 1 : 64;
    CHECK(w, cm_listen(w->cm[1], SERVICE, CM_SCOPE_ANY, NULL, w->backlog, w, &w->listener,
                       w->now) == 0);
    w->gap = chance(w, 50) ? when_add(w->now, rnd(w) % SEC_NS) : NEVER;
    uint32_t clients = 1 + (uint32_t)(rnd(w) % 20);
    for (uint32_t i = 0; i < clients; i++) add_client(w, 100 + i);
    run(w);
    check_end(w);
    cm_free(w->cm[0]);
    cm_free(w->cm[1]);
    return w->fault;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seeds", required_argument, NULL, 'n'}, {"from", required_argument, NULL, 'k'}, {0}};
    uint64_t seeds = 1000, from = 1;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'n')
            seeds = strtoull(optarg, NULL, 0);
        else if (c == 'k')
            from = strtoull(optarg, NULL, 0);
        else
            return 2;
    }
    static struct world w;
    for (uint64_t seed = from; seed < from + seeds; seed++) {
        const char *fault = play(&w, seed);
        if (!fault) continue;
        printf("cm-sim: seed %lu at %.6f s: %s\nreplay: %s --seeds 1 --from %lu\n", seed,
               (double)w.now.ns / 1e9, fault, argv[0], seed);
        return 1;
    }
    printf("cm-sim: %lu seeds passed\n", seeds);
    return 0;
}
