/* The connection manager's world: two hosts with an engine of cm/ each, users that connect, accept,
 * reject, resolve, disconnect and let go at random moments, programs that die with all their users,
 * hosts that die and come back knowing nothing, and a network that loses, doubles, delays, reorders
 * and for a time carries nothing. All in virtual time, all from one seed.
 *
 *   cm_world.c   hosts, deaths, the network, the clock
 *   cm_user.c    what users do
 *   cm_oracle.c  what they must hear of it
 *   cm_main.c    seeds by the thousand */
#ifndef RBOND_SIM_CM_WORLD_H
#define RBOND_SIM_CM_WORLD_H

#include "cm/cm.h"
#include "sim/rng.h"
#include <stdio.h>

#define CMW_USERS 512
#define CMW_PAIRS 256
#define CMW_FLIGHT 8192
#define CMW_QPS 48
#define CMW_PROGRAMS 3
#define CMW_SERVICE 0x01060001ull

enum cm_phase {
    CMP_IDLE,     /* has not asked yet */
    CMP_ASKING,   /* REQ or SIDR_REQ sent */
    CMP_ASKED,    /* has a request to answer */
    CMP_ACCEPTED, /* REP sent */
    CMP_REJECTED,
    CMP_GOT_REP,
    CMP_UP,
    CMP_LEAVING,
    CMP_OVER,
};

/* One end of one connection or resolution. */
struct cm_user {
    int node;
    unsigned epoch; /* of its host */
    unsigned program;
    struct cm_id *id;
    bool active, sidr;
    bool gone;      /* let go, or dead */
    bool cancelled; /* let go before the connection was up */
    enum cm_phase phase;
    when_t act_at;
    uint32_t pair; /* index in world.pairs: this user and its peers, the active one first */
    int qp;        /* index in host.qp; -1: none */
    bool taken;    /* cm_taken */
    bool ready;    /* active: cm_ready called */
    bool refused;  /* passive: cm_reject called */
    psn_t rq_psn;
    unsigned ups, ends, exits;
};

struct cm_pair {
    bool disturbed; /* a host died or the network was cut while it was under way */
    bool reused;    /* one of its QP numbers had an owner before */
    uint32_t active;
};

struct cm_host {
    struct cm *cm; /* NULL: dead */
    unsigned epoch;
    struct gid gid;
    when_t fate; /* dies, or returns */
    struct {
        bool taken, used;
        when_t free_at;
    } qp[CMW_QPS];
};

struct cm_flight {
    when_t at;
    int to;
    struct cm_out out;
};

struct cm_world {
    struct rng rng;
    when_t now;
    struct cm_host host[2];
    struct cm_listener *listener; /* on host 1 */
    uint32_t backlog;
    when_t gap; /* the server ends its listener, or makes the next */
    struct cm_user users[CMW_USERS];
    struct cm_pair pairs[CMW_PAIRS];
    size_t nusers, npairs, nflight;
    struct cm_flight flight[CMW_FLIGHT];
    unsigned loss, dup; /* percent */
    bool cut;           /* the network carries nothing */
    when_t cut_at;      /* it begins or ends */
    when_t program_death;
    uint64_t max_delay_ns, max_think_ns;
    bool slow;   /* users think for longer than a DREQ is repeated */
    FILE *trace; /* or NULL */
    const char *fault;
};

/* Plays one seed to its end. What was broken, or NULL. */
const char *cm_world_play(struct cm_world *w, uint64_t seed, FILE *trace);

#define CMW_CHECK(w, cond)                                                                         \
    do {                                                                                           \
        if (!(cond) && !(w)->fault) (w)->fault = #cond;                                            \
    } while (0)

static inline bool cmw_chance(struct cm_world *w, unsigned percent)
{
    return rng_percent(&w->rng, percent);
}

static inline when_t cmw_soon(struct cm_world *w, uint64_t within_ns)
{
    return when_add(w->now, rng_below(&w->rng, within_ns));
}

/* cm_world.c: a free QP number's index, -1: none. */
int cmw_take_qp(struct cm_world *w, int node, struct cm_pair *pair);
void cmw_drop_qp(struct cm_world *w, int node, int qp);
qpn_t cmw_qpn(int node, int qp);

/* cm_user.c */
void cmw_add_client(struct cm_world *w, uint64_t within_ns);
void cmw_act(struct cm_world *w, struct cm_user *u);
void cmw_let_go(struct cm_world *w, struct cm_user *u);
void cmw_think(struct cm_world *w, struct cm_user *u);

/* cm_oracle.c */
void cmw_event(struct cm_world *w, int node, const struct cm_event *e);
/* The world stands still: who must be where. */
void cmw_judge_rest(struct cm_world *w);

#endif
