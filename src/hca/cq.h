/* Completion queues: a single-producer, single-consumer ring; the producer is the engine. */
#ifndef RBOND_HCA_CQ_H
#define RBOND_HCA_CQ_H

#include "hca/adapter.h"
#include <stdalign.h>
#include <stdatomic.h>

enum cq_armed { CQ_NOT_ARMED, CQ_ARMED_SOLICITED, CQ_ARMED_ANY };

/* Events are held back until `count` completions have come since the CQ was armed, or `period_ns`
 * has passed since the first of them. 0: that one does not count; both 0: nothing is held back. */
struct cq_moderation {
    uint32_t count;
    uint64_t period_ns;
    uint32_t held;    /* completions that have come */
    when_t due;       /* NEVER without a period */
    struct list node; /* in hca->moderated while one is held, by `due` */
};

struct hca_cq {
    /* The ring. Indices only grow; both sides mask them. */
    struct hca_wc *ring;
    void *own; /* what is freed with it; NULL where the memory is the caller's */
    uint32_t mask;
    bool ignore_overrun;
    _Atomic bool overran;

    alignas(64) _Atomic uint32_t tail; /* the producer's */
    uint32_t head_seen;                /* the producer's last look at `head` */
    uint32_t solicited_end;            /* just after the last one that is solicited, or failed */
    uint32_t announced_end;            /* where `tail` was at the last notification */
    enum cq_armed armed;
    struct cq_moderation moderation;
    struct hca *hca;
    struct event_source events;        /* and the owner */
    struct list all;                   /* in hca->cqs */
    struct list notified;              /* in hca->notified: armed, and its completion came */
    struct list overrun_node;          /* in hca->overrun */
    uint32_t users;                    /* work queues of QPs */

    alignas(64) _Atomic uint32_t head; /* the consumer's */
};

/* Adds a completion. `solicited` counts for CQs armed for solicited ones; failures always do. A
 * full ring overruns: the CQ goes to error, HCA_EVENT_CQ_ERR is queued, its QPs fail. */
void cq_push(struct hca_cq *cq, const struct hca_wc *wc, bool solicited, when_t now);
/* The QP is reset or destroyed: its completions that wait are taken out (ibv_destroy_qp(3)). The
 * owner keeps the consumer out meanwhile. */
void cq_forget_qp(struct hca_cq *cq, qpn_t qpn);

#endif
