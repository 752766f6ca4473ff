/* A function: one software adapter of this process and what drives it.
 *
 * Whoever holds `lock` may drive. Three do: a program in ibv_poll_cq (function_spin), a program
 * that posts (function_flush), and the worker thread, which must serve passive RDMA, timers and
 * arriving packets while the program sleeps or computes. So that a spinning program and the worker
 * do not fight for the socket, the worker stays away from it while the program polls often, and
 * only looks now and then whether it still does (spin.h). A CQ that is armed means that the program
 * is about to sleep: then the worker is on the socket at once. */
#ifndef RBOND_VERBS_FUNCTION_H
#define RBOND_VERBS_FUNCTION_H

#include "ctl/client.h"
#include "ctl/page.h"
#include "hca/hca.h"
#include "port/port.h"
#include "verbs/object.h"
#include "verbs/spin.h"
#include <pthread.h>
#include <stdatomic.h>

/* With events that found a pipe full, or counters not yet published: look again after this. */
#define SOON_NS (10 * MS_NS)

struct function {
    struct rb_context *ctx;
    struct ctl_opened opened;
    struct list link; /* process.c's */
    pthread_t worker;
    bool has_worker;
    _Atomic bool stop;
    _Atomic bool dead;   /* in a forked child: the adapter stayed with the parent */
    _Atomic bool forked; /* process.c: since then each change counts */
    bool quiet;          /* while forking: holds the lock */
    int owner;           /* while dead: a pidfd of whoever has the adapter; -1: not to be had */
    uint64_t epoch;      /* while dead: the page's, at the fork */
    struct spin spin;    /* does the program drive? */
    _Atomic uint32_t waiters; /* threads that wait for the lock */
    _Atomic bool away;        /* the worker sleeps and does not watch the socket */
    int doorbell;             /* eventfd: wakes the worker */

    pthread_mutex_t lock; /* guards all below */
    struct hca *hca;
    struct port *port;              /* NULL: handed back, nothing is sent or received */
    const struct device_page *page; /* rbondd's */
    struct function_page *out;      /* ours, read by rbondd */
    struct device_state state;      /* the last consistent copy of the page */
    struct ctl_client *ctl;         /* the worker's alone once it runs; NULL: rbondd has gone */
    struct list qps, cqs;           /* rb_qp.link, rb_cq.link */
    bool unsent;                    /* events wait for room in a pipe */
    bool is_late;                   /* `late` does, before those in the adapter */
    struct hca_event late;
    bool qps_late;       /* rb_qp.late does, somewhere */
    bool ports_late;     /* rb_context.late_port of some context does */
    struct list imports; /* rb_context.link: imported from `ctx` */
    struct list exports; /* rb_export.link: what they may import */
    bool fatal;          /* the device has gone */
    struct list questions; /* qp_remote.c: other functions are asked, and have not answered yet */
    uint32_t questions_asked;
    struct kinship *kin; /* kin.c; NULL: no XRC domain of a file was opened yet */
    uint8_t next_bucket;
    uint32_t memberships; /* in out->membership */
    _Atomic uint32_t idle_spins;
    bool holding; /* hold.c: acknowledgements are kept back */
    when_t held_since;
    int32_t hold_worth; /* > 0: it has been worth it lately */
    uint32_t hold_chances;
    when_t now;             /* of the burst being received */
    when_t wake_at;         /* when the worker wakes by itself */
    when_t rejoin_at;       /* the worker's alone: without rbondd, when to look for a new one */
    struct port_stats gone; /* of ports before this one */
    bool dirty;             /* the counters page is behind */
    when_t published;
    const struct rb_qp *round_head; /* publish.c: where this round began; compared only */
    struct hca_tx tx[PORT_BURST];
};

/* Asks rbondd for a function of `device` and starts its worker. Negative errno; a line on stderr
 * says why. */
int function_open(struct rb_context *ctx, const char *device, struct function **out);
/* Stops the worker and frees all of it. In a forked child only memory and copies of descriptors. */
void function_close(struct function *f);

/* What CTL_OPEN and CTL_RECLAIM bring. Negative errno: nothing is kept. */
struct function_parts {
    const struct device_page *page;
    struct function_page *out;
    struct port *port;
};
int function_take(struct ctl_reply *reply, const struct ctl_opened *opened,
                  struct function_parts *parts);
/* Holding the lock: these from now on. */
void function_refit(struct function *f, const struct function_parts *parts);

/* rejoin.c: the worker, without the lock; f->ctl is NULL. If rbondd is back, hands the function to
 * it. False: rbondd will not have it. */
bool function_rejoin(struct function *f);

/* process.c: in a child, takes the adapter over if the parent has ended and left it as it was.
 * True: it is this process's. */
bool function_inherit(struct function *f);
void process_add(struct function *f);
void process_remove(struct function *f);

static inline bool function_is_dead(struct function *f)
{
    return __builtin_expect(atomic_load_explicit(&f->dead, memory_order_relaxed), 0) &&
           !function_inherit(f);
}

/* Holding the lock: the adapter changes, or may. Children's copies are behind from here on. */
static inline void function_touch(struct function *f)
{
    if (__builtin_expect(atomic_load_explicit(&f->forked, memory_order_relaxed), 0))
        f->out->epoch++;
}

/* Without the lock: the program has taken a completion or an event, which children's copies still
 * have. Before it looks at what it took. */
void function_consumed_after_fork(struct function *f);
static inline void function_consumed(struct function *f)
{
    if (__builtin_expect(atomic_load_explicit(&f->forked, memory_order_relaxed), 0))
        function_consumed_after_fork(f);
}

void function_lock_init(struct function *f);
/* 0, holding the lock; EIO without it where the function is dead. */
int function_lock(struct function *f);
void function_unlock(struct function *f);

when_t function_now(void);

/* Holding the lock: sends what waits, delivers events. After a post or a change of a QP. */
void function_flush(struct function *f, when_t now);
/* Holding the lock: one round of receiving, timers, sending and events. True: there was work. */
bool function_drive(struct function *f, bool by_worker, when_t now);
/* Holding the lock, before a QP ends: an adapter has acknowledged what its program saw complete,
 * and has taken what the peer acknowledged; so nothing stays in the socket, and no ACK is owed. */
void function_settle(struct function *f, when_t now);
/* Without the lock, from an empty poll. True: something may have completed. */
bool function_spin(struct function *f);
/* Holding the lock: a CQ was armed. */
void function_armed(struct function *f);
/* Holding the lock: has the worker wake at `at`, if it would sleep for longer. One that is away
 * looks soon in any case. */
void function_hasten(struct function *f, when_t at);
/* Holding the lock, not the worker: the counters page is behind, which the worker mends soon. */
void function_dirty(struct function *f, when_t now);
/* Wakes the worker. */
void function_ring(struct function *f);
/* Without the lock, also in a forked child: a fresh copy of rbondd's page. */
void function_state(struct function *f, struct device_state *state);
/* Bytes of payload a RoCE packet may carry over this L3 MTU, as enum ibv_mtu. */
uint8_t function_mtu(uint32_t l3_mtu);

/* hold.c: holding the lock */
/* Before output in a round of driving: shall acknowledgements wait for the program's next post? */
void hold_decide(struct function *f, bool by_worker, bool received, when_t now);
/* After it. */
void hold_note(struct function *f, when_t now);
/* The program posts: what is held goes along. */
void hold_release(struct function *f);
/* When held ones must go by themselves; NEVER: none is held. */
when_t hold_deadline(const struct function *f);

/* worker.c */
int worker_start(struct function *f);
void worker_stop(struct function *f);

/* publish.c: holding the lock */
void publish_if_due(struct function *f, when_t now);
void publish_now(struct function *f, when_t now);
void publish_qp(struct function *f, struct rb_qp *qp);
void publish_qp_gone(struct function *f, qpn_t qpn);

/* mcast.c */
/* Holding the lock: the receive socket joins and leaves groups, as QPs and members now are. */
void mcast_follow(struct function *f);
/* The group as it is on the wire. */
struct gid mcast_wire(const struct gid *group);

/* event.c: holding the lock */
void events_deliver(struct function *f);
/* Takes the object's unread async events out of its context's pipe again and returns how many they
 * were. */
uint32_t events_purge_async(struct function *f, struct rb_context *ctx, const void *object);
void events_port(struct function *f, enum ibv_event_type type);
/* The QP's handles hear of these, 1 << enum ibv_event_type. */
void events_qp(struct function *f, struct rb_qp *qp, uint32_t events);

#endif
