/* Inside the adapter: the whole of it, and the small parts that no machine of one QP owns.
 *
 *   hca.c      packets in and out, QPs in turn    numbers.c QPN -> QP, SRQ number -> SRQ
 *   agenda.c   deadlines and turns                event.c   async events that wait for the owner
 *   pace.c     the speed of what is not acknowledged
 *   mcast.c    multicast groups -> UD QPs         twins.c   copies that came by two members
 *   xrc_guest.c  other functions' targets in our SRQs */
#ifndef RBOND_HCA_ADAPTER_H
#define RBOND_HCA_ADAPTER_H

#include "base/heap.h"
#include "base/list.h"
#include "hca/hca.h"
#include "hca/mcast.h"
#include "hca/pace.h"

#define GUEST_CHAINS 64

/* What can raise async events. Each type waits once: an event not yet taken stands for the ones
 * that follow it, so the queue needs no memory of its own and cannot overflow. */
struct event_source {
    struct list node; /* in hca->events while `pending` has a bit */
    uint32_t pending; /* 1 << enum hca_event_type */
    void *owner;
};

/* Numbers of this function -> objects. Numbers are handed out by a cursor that goes round, from a
 * random start: a packet that is late finds nobody for as long as possible. */
struct numbers {
    uint32_t cursor;
    void *at[HCA_MAX_QP];
};

struct mr_table {
    struct region **slot;
    uint32_t used, room; /* slots handed out ever, slots allocated; slot 0 stays empty */
    struct list free;    /* region.link: least recently freed first */
};

struct hca {
    struct hca_conf conf;
    struct hca_counters counters;
    struct hca_member_counters members[STEER_MAX_MEMBERS];
    struct steering table;
    uint32_t mtu; /* of the port, bytes of payload: hca_set_mtu */

    struct pace pace;  /* UC and UD together */
    struct list ready; /* hca_qp.turn */
    struct list sent;  /* hca_qp.sent: their packets of the last burst are not completed yet */
    bool hold_acks;
    struct list held;     /* hca_qp.held: their ACKs are kept back */
    struct heap alarms;   /* agenda.c: QPs by deadline */

    struct list events;   /* event_source.node */
    struct list notified; /* hca_cq.notified */
    struct list overrun;  /* hca_cq.overrun_node: their QPs are to fail */
    struct list moderated; /* hca_cq.moderation.node: their events are held back, first due first */

    struct list qps, cqs, srqs; /* all there are */
    uint32_t nqps;
    uint32_t next_pd;
    struct mr_table mrs;
    struct mcast mcast;
    uint64_t random; /* state of hca_random */

    uint64_t inflight;          /* window.c: bytes unacknowledged, all QPs */
    struct list starved;        /* window.c: QPs that wait for inflight_cap */
    uint64_t inflight_reserved; /* window.c: room kept for QPs that were woken for it */
    uint32_t inflight_users, inflight_share; /* window.c: QPs with a part in it, the part of each */

    struct numbers qpns, srqns;

    /* XRC between functions */
    struct list calling, calls_full; /* xrc_calls.node: have calls to send; found no room for them */
    struct list guests[GUEST_CHAINS];  /* xrc_guest.c: other functions' targets, by QPN */
    uint32_t nguests;
};

/* A 64-bit number for keys and tags. */
uint64_t hca_random(struct hca *hca);

/* IBTA 9.6.1 (header validation): the counter that says why not, or NULL where the QP may have the
 * packet. */
uint64_t *hca_refuse(struct hca *hca, const struct hca_qp *qp, const struct roce_hdr *h,
                     const struct hca_rx *rx);

/* numbers.c: -ENOMEM when all are taken. One is reused only after all others have had their turn, so
 * that packets of a dead object do not find a live one. */
int numbers_add(struct hca *hca, struct numbers *numbers, void *object, uint32_t *number);
void numbers_del(struct numbers *numbers, uint32_t number);
/* NULL: no such object, or another function's. */
void *numbers_find(const struct hca *hca, const struct numbers *numbers, uint32_t number);

/* agenda.c: room for a QP is made at its creation, so that the data path need not allocate. */
int agenda_reserve(struct hca *hca, uint32_t nqps);

/* event.c */
void event_raise(struct hca *hca, struct event_source *source, enum hca_event_type type);
void event_forget(struct event_source *source);

/* cq.c: the QPs of CQs that have overrun fail now that no machine is half-way. Every entry point
 * that can complete something ends with this. */
void cq_fail_overrun(struct hca *hca, when_t now);

/* mr.c */
void mr_free_all(struct hca *hca);

#endif
