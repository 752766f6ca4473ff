/* The tree (ctl/tree.h): what programs look for around an RDMA device, as files in a directory of
 * rbondd's. State, GIDs and devices follow each change at once; counters every second while a
 * program has a device open. A thread of its own writes, from records that the loop has copied.
 *   tree.c        when, and which directories
 *   tree_pen.c    the thread
 *   tree_sysfs.c  what the files of a device say */
#ifndef RBOND_DAEMON_TREE_H
#define RBOND_DAEMON_TREE_H

#include "ctl/tree.h"
#include "daemon/lists.h"
#include <pthread.h>
#include <uv.h>

#define TREE_PERIOD_MS 1000 /* between two looks at the counters */

/* ---- tree_sysfs.c: files of one device ---------------------------------------------------- */

struct tree_facts {
    struct records devices, gids, stats; /* struct ctl_dev, ctl_gid, ctl_stat */
};

/* Writes or corrects the files of a device below `sysfs`, a descriptor of SYS_CLASS/infiniband. The
 * record's name was checked. */
void tree_device_write(int sysfs, const struct ctl_dev *dev, const struct tree_facts *facts);
/* Of those, the counters alone, for what differs from `before`. */
void tree_counters_write(int sysfs, const char *device, const struct records *stats,
                         const struct records *before);
/* The device's entry of SYS_CLASS/infiniband_verbs, whose descriptor is `verbs`. */
void tree_uverbs_write(int verbs, const struct ctl_dev *dev);

/* ---- tree_pen.c: a thread that writes when told to ---------------------------------------- */

/* Not libuv's pool: its loop spins until the thread that woke it has gone on, and a loop of realtime
 * priority keeps that thread from its processor meanwhile. Here nobody waits for anybody. */
struct tree_pen {
    void (*write)(void *arg); /* on the thread */
    void *arg;
    int order, done; /* eventfds; `done` is readable after a write */
    _Atomic bool ends;
    pthread_t thread;
};

/* Starts it: 0 or a negative errno. */
int tree_pen_start(struct tree_pen *pen, void (*write)(void *arg), void *arg);
/* Lets it write. What `write` reads is the thread's until tree_pen_done. */
void tree_pen_order(struct tree_pen *pen);
/* Takes the news from `done`. True: it has written. */
bool tree_pen_done(struct tree_pen *pen);
/* Waits for what it is at. */
void tree_pen_end(struct tree_pen *pen);

/* ---- tree.c ------------------------------------------------------------------------------- */

struct tree {
    const struct registry *registry;
    const struct functions *functions;
    char path[CTL_TREE_LEN];
    int sysfs, verbs, nodes; /* its three directories; -1: there is no tree */
    uv_timer_t timer;        /* while functions are open */
    struct tree_pen pen;
    uv_poll_t written; /* pen.done */
    bool writing, again;     /* the thread is at it; more has changed meanwhile */
    bool whole;              /* what it writes: everything, or counters */
    bool stays;              /* programs live on without rbondd: they may look there */
    struct tree_facts facts; /* the thread's while it writes */
    struct records last;     /* the stats that the files show */
};

/* Makes the directories beside `socket`, or takes those over that are there. Without them (a line
 * in the log says why) the other calls do nothing. */
void tree_start(struct tree *tree, uv_loop_t *loop, const char *socket,
                const struct registry *registry, const struct functions *functions);
/* Devices, GIDs or port states are different. */
void tree_changed(struct tree *tree);
/* A program has opened a device. */
void tree_opened(struct tree *tree);
/* While functions are still known; then, when the loop has ended. */
void tree_stop(struct tree *tree);
void tree_end(struct tree *tree);

#endif
