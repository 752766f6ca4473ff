/* Inside workload: one host's verbs objects, and one queue pair with the program that drives it.
 * workload.c is the schedule, turn.c a host's turns, actor.c what a program does with its queue pair in
 * them, control.c what it does to it as a whole. */
#ifndef RBOND_SIM_ACTOR_H
#define RBOND_SIM_ACTOR_H

#include "sim/plan.h"

struct work;

struct board_cq {
    uint8_t host;
    uint32_t id;
    struct hca_cq *cq;
    bool armed, notified;
    bool disturbed; /* served out of turn since it was armed */
    bool woken;     /* a completion that wakes has been taken in this turn */
};

struct board {
    struct work *work;
    struct host *host;
    uint32_t pd[3];
    struct hca_mr *mr[LOT_COUNT];
    struct hca_srq *srq[PLAN_SRQS];
    uint32_t srq_depth, srq_done[PLAN_SRQS]; /* shared receives that have completed */
    struct board_cq cq[2 * PLAN_MAX_QPS];
    uint32_t ncqs;
    bool tick_due, poll_due;
};

struct actor {
    struct work *work;
    struct board *board;
    struct plan_qp *plan;
    struct oracle_qp *oracle;
    struct hca_mw *window; /* a window's owner; its region is the board's */
    struct hca *hca;   /* the function that has its queue pair: its host's, or that one's wing */
    struct hca_qp *qp; /* NULL once destroyed */
    uint32_t posts_in_error, receives_in_error;
    bool resting; /* between RESET and RTS again */
};

struct work {
    struct plan *plan;
    struct world world;
    struct oracle oracle;
    struct rng rng;
    uint64_t pace_ns;
    struct board board[WORLD_MAX_HOSTS];
    uint32_t nactors;
    struct actor actor[PLAN_MAX_QPS];
    struct oracle_qp oracle_qp[PLAN_MAX_QPS];
    struct recv_queue *rq[PLAN_MAX_QPS + PLAN_SRQS * WORLD_MAX_HOSTS];
};

uint64_t board_iova(const struct board *b, uint32_t lot);
uint64_t plot_iova(const struct plot *p);

void actor_create(struct actor *a);
void actor_connect(struct actor *a, uint32_t sq_psn, uint32_t rq_psn);
/* Posts what it likes now; true: it could post more. */
bool actor_post(struct actor *a);
bool actor_post_receives(struct actor *a);
bool board_post_shared(struct board *b, uint32_t srq);
enum hca_qp_state actor_state(const struct actor *a);

#endif
