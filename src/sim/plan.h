/* What one seed means: hosts, links, queue pairs, every request and receive that will be posted,
 * and what will happen to the links and queue pairs meanwhile. Drawn as a whole before anything
 * runs. */
#ifndef RBOND_SIM_PLAN_H
#define RBOND_SIM_PLAN_H

#include "sim/oracle.h"
#include "sim/world.h"

#define PLAN_MAX_QPS 12
#define PLAN_MAX_CUTS 64
#define PLAN_PDS 2
#define PLAN_XRCD 1 /* the one XRC domain there is */
#define PLAN_SRQS (2 * PLAN_PDS) /* of a host: of each protection domain a basic one, and of each one of XRC */

#define PROFILES(X)                                                                                \
    X(CLEAN, "clean")                                                                              \
    X(LOSSY, "lossy")                                                                              \
    X(REORDER, "reorder")                                                                          \
    X(DOUBLE, "double")                                                                            \
    X(CORRUPT, "corrupt")                                                                          \
    X(MIXED, "mixed")                                                                              \
    X(CUTS, "cuts")                                                                                \
    X(FLAPPING, "flapping")                                                                        \
    X(BOTH_ENDS, "both-ends")                                                                      \
    X(ONE_SIDED, "one-sided")                                                                      \
    X(SILENT, "silent")                                                                            \
    X(BLACKOUT, "blackout") X(STAYS_DOWN, "stays-down") X(TINY_SOCKET, "tiny-socket")     \
    X(FAR, "far")

enum profile {
#define X(id, name) PROFILE_##id,
    PROFILES(X)
#undef X
        PROFILE_COUNT
};

enum fault_kind { /* provoked, one on a connection at most */
                  PROVOKE_NONE,
                  PROVOKE_BAD_RKEY,
                  PROVOKE_OUT_OF_BOUNDS,
                  PROVOKE_NO_ACCESS,
                  PROVOKE_OTHER_PD,
                  PROVOKE_BAD_LKEY,
                  PROVOKE_SHORT_RECEIVE,
                  PROVOKE_BAD_RECEIVE_LKEY,
                  PROVOKE_MISALIGNED_ATOMIC,
                  PROVOKE_NO_RECEIVE,
                  PROVOKE_CLOSED_WINDOW, /* drawn in plan_windows.c */
                  PROVOKE_BAD_SRQ,       /* XRC alone */
                  PROVOKE_COUNT
};

/* The lots of a host: two protection domains, each with a region for everything and one for local
 * use; the last belongs to a domain that no queue pair has. */
enum plan_lot { LOT_RW0, LOT_RW1, LOT_LOCAL0, LOT_LOCAL1, LOT_ALIEN, LOT_COUNT };

struct plan_qp {
    enum hca_qp_type type;
    uint8_t host, pd, mtu, timeout, retry_cnt, rnr_retry, min_rnr_timer;
    uint8_t max_rd_atomic, max_dest_rd_atomic, bucket;
    uint16_t peer;
    uint32_t send_depth, recv_depth, max_inline, max_sge;
    uint32_t sq_psn, rq_psn;
    bool sig_all, eager_receives, shared_receives;
    bool in_group, block_own; /* UD: attached to the one multicast group; deaf to itself */
    uint32_t messages_to; /* requests of others that use a receive here */
    uint32_t message_max;
    struct request *request;
    uint32_t nrequests;
    enum fault_kind provoke; /* at the request `provoke_at` */
    uint32_t provoke_at;
    bool window; /* its peer gets at its memory through one alone */
    struct recv_queue rq; /* its own, or a copy of nothing where shared */
};

enum control_kind { CONTROL_SQD, CONTROL_RESET, CONTROL_DESTROY, CONTROL_KILL, CONTROL_BUCKET };

struct plan_control {
    uint64_t at_ns;
    enum control_kind kind;
    uint16_t qp;
    uint8_t bucket;
};

struct plan_cut {
    uint64_t at_ns, mend_ns; /* mend_ns 0: stays */
    uint8_t host, member;
    bool tx, rx, carrier;
};

enum cq_mode { CQ_POLLED, CQ_ARMED, CQ_ARMED_SOLICITED };

struct plan {
    uint64_t seed;
    enum profile profile;
    uint8_t nhosts;
    enum fabric fabric;
    struct host_conf host[WORLD_MAX_HOSTS];
    uint64_t bytes_per_ms, notice_max_ns;
    uint32_t nqps;
    struct plan_qp qp[PLAN_MAX_QPS];
    struct recv_queue srq[WORLD_MAX_HOSTS][PLAN_SRQS]; /* receive NULL: none */
    enum cq_mode cq_mode[WORLD_MAX_HOSTS];
    bool cq_shared[WORLD_MAX_HOSTS]; /* one CQ for all, else two per queue pair */
    uint32_t npackets;               /* about as many as the messages need */
    struct ground ground[WORLD_MAX_HOSTS];
    uint32_t nwords;
    struct word word[8];
    uint32_t ncuts;
    struct plan_cut cut[PLAN_MAX_CUTS];
    uint32_t ncontrols;
    struct plan_control control[8];
    bool links_lose, links_double, must_survive, windows;
    uint32_t forge_ppm; /* with forgeries no promise holds but two: no crash, no byte outside */
};

/* Which of its host's SRQs a queue pair with shared receives takes them from. */
static inline uint32_t plan_srq_of(const struct plan_qp *q)
{
    return q->pd + (q->type == HCA_QPT_XRC_RECV ? PLAN_PDS : 0u);
}

const char *profile_name(enum profile p);
/* PROFILE_COUNT where there is none of this name. */
enum profile profile_named(const char *name);

/* `only`: PROFILE_COUNT for any. */
void plan_draw(struct plan *p, uint64_t seed, enum profile only);
void plan_free(struct plan *p);
void plan_print(const struct plan *p, FILE *out);

#endif
