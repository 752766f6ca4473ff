/* The oracle: what the IBTA promises to programs, held against what they see. It knows nothing of
 * the engine: it is told what was planned and posted, what completed, and what the links did, and
 * it looks at memory (ground.h). The first broken promise is kept as text.
 *
 * Checked (IBTA 9.7, 9.8, 10.7, 10.8; man pages of ibv_post_send, ibv_poll_cq):
 *  - every request completes exactly once, in the order posted, with the right status, opcode,
 * length, immediate; unsignalled ones are silent and implied by the next; errors are never silent;
 *  - after the first error all that follows on that queue pair is flushed, and only with a cause;
 *  - at an RC success the bytes are where they belong, a FLUSH's those of all before it; a SEND used
 *    exactly the receive due;
 *  - nothing else in memory has changed, not even later (finished plots are repainted and looked at
 *    again at the end, which shows a request that is executed twice);
 *  - atomics form a chain that sequential execution could have made, each in it once;
 *  - RETRY_EXC only where links explain it, not before the retries are used up, and not never;
 *  - through a memory window what is done while it is open succeeds, and what is done when an
 *    invalidate has completed is refused;
 *  - UC in order; UD and UC never doubled by us; multicast heard by those attached, each once. */
#ifndef RBOND_SIM_ORACLE_H
#define RBOND_SIM_ORACLE_H

#include "hca/hca.h"
#include "sim/ground.h"

/* An XRC initiator and its target are the two halves of RC. */
static inline bool is_reliable(enum hca_qp_type type)
{
    return type == HCA_QPT_RC || type == HCA_QPT_XRC_SEND || type == HCA_QPT_XRC_RECV;
}

enum work_state { WORK_PLANNED, WORK_POSTED, WORK_DONE, WORK_FAILED, WORK_FLUSHED, WORK_GONE };

/* An 8-byte word that atomics of any queue pair work on. */
struct word {
    struct plot *plot;
    uint64_t init;
};

struct request {
    /* the plan */
    enum hca_wr_opcode op;
    uint32_t flags, len, imm_be;
    struct buf local;    /* source; sink of READ and atomics */
    struct plot *remote; /* WRITE, ATOMIC WRITE: destination; READ: source; FLUSH: its range */
    uint64_t key;        /* of its bytes */
    struct word *word;
    uint64_t compare_add, swap;
    uint16_t to;        /* UD: queue pair that it is addressed to */
    uint32_t group;     /* UD: to a multicast group instead: bit k: queue pair k may hear it */
    bool stray;         /* UD: with a wrong Q_Key, it must not arrive */
    uint32_t must_fail; /* statuses (1 << status) of which it must end in one; 0: success */
    uint32_t epoch;     /* of a window: plan_windows.h; 0: none */
    bool after_close;   /* to be posted when that is over */
    bool whole;         /* FLUSH: of the region, whatever its range */
    bool chained;       /* its source is an earlier request's sink: do not paint */
    /* the course of events */
    enum work_state state;
    bool delivered;   /* its receive has completed */
    uint32_t heard;   /* of a group: by these */
    uint32_t receive; /* number of the receive it must use, where queue pairs own theirs */
    when_t posted;
    uint64_t result; /* atomics: what they fetched */
};

struct receive {
    struct buf room;
    struct plot *grh; /* UD: 40 bytes before the room */
    uint32_t must_fail;
    enum work_state state;
};

struct recv_queue {
    bool shared;
    uint32_t id; /* in wr_id */
    struct receive *receive;
    uint32_t planned, posted;
    uint32_t head; /* not shared: the next to complete */
};

struct oracle_qp {
    /* the plan */
    enum hca_qp_type type;
    uint8_t host;
    qpn_t qpn;
    uint16_t index, peer;
    uint32_t send_cq, recv_cq;
    bool sig_all;
    uint64_t timeout_ns; /* 0: infinite */
    uint8_t retry_cnt;
    struct request *request;
    uint32_t planned;
    struct recv_queue *rq;
    /* the course of events */
    uint32_t posted, head;  /* requests: next to post, next to complete */
    uint32_t next_arrival;  /* of the peer's requests: where to look for the next message */
    uint32_t opened, closed; /* epochs of its window: binds and invalidates seen to be done */
    uint32_t window_key;     /* of epoch 1; the tag grows */
    uint32_t receives_used; /* receives of the peer that our requests posted so far use up */
    bool failed;            /* a cause for ERR is known */
    bool flush_seen;        /* a flush was seen, a cause must be known at the end */
    bool requests_flushed;  /* flushes among its requests: none may succeed any more */
    bool gone;              /* was reset or destroyed at some time */
    bool event_seen;
    when_t last_progress, last_fault, path_bad_since, last_bad;
    uint32_t faults;     /* packets lost since last_progress */
    char unexcused[160]; /* a RETRY_EXC for which only the peer's end can be the reason */
};

struct oracle {
    char violation[512];
    struct oracle_qp *qp;
    uint32_t nqp;
    struct recv_queue **rq;
    uint32_t nrq;
    struct ground *ground;
    uint32_t nground;
    struct word *word;
    uint32_t nword;
    bool links_double;   /* links double packets: UD may arrive twice */
    bool links_lose;     /* links lose, delay or corrupt by chance */
    bool must_survive;   /* the profile promises that retries suffice */
    bool last_solicited; /* the receive completed last was of a solicited message ... */
    bool last_uncertain; /* ... if it was that one: too short to tell from others like it */
    bool blind;          /* forgeries are about: only what lies between buffers is judged */
    uint64_t completions, retry_excs;
    uint64_t windows_opened, windows_closed, windows_refused; /* accesses to closed ones */
};

/* FLUSH and ATOMIC WRITE have no local buffer. */
static inline bool oracle_is_bare(enum hca_wr_opcode op)
{
    return op == HCA_WR_FLUSH || op == HCA_WR_ATOMIC_WRITE;
}

/* wr_ids as the oracle reads them. */
uint64_t oracle_send_id(const struct oracle_qp *q, uint32_t request);
uint64_t oracle_recv_id(const struct recv_queue *rq, uint32_t receive);

/* The next planned request (receive) has been accepted by the adapter. */
void oracle_posted(struct oracle *o, struct oracle_qp *q, when_t now);
void oracle_recv_posted(struct oracle *o, struct recv_queue *rq);
void oracle_completion(struct oracle *o, uint32_t cq, const struct hca_wc *wc, when_t now);
void oracle_event(struct oracle *o, struct oracle_qp *q, enum hca_event_type type);
/* The program moved the queue pair to ERR itself. */
void oracle_killed(struct oracle *o, struct oracle_qp *q);
/* RESET or destroy: what is outstanding vanishes. */
void oracle_gone(struct oracle *o, struct oracle_qp *q);
/* Both ends start anew after RESET. */
void oracle_reconnected(struct oracle *o, struct oracle_qp *q, when_t now);
/* A packet to or from this queue pair was lost. */
void oracle_fault(struct oracle *o, struct oracle_qp *q, when_t now);
/* Whether packets pass both ways now, chance apart. */
void oracle_path(struct oracle *o, struct oracle_qp *q, bool ok, when_t now);
/* Nothing more will happen. `state` of each queue pair as the adapter has it. */
void oracle_state(struct oracle *o, struct oracle_qp *q, enum hca_qp_state state);
void oracle_finish(struct oracle *o);

/* Keeps the first violation. */
void oracle_says(struct oracle *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline bool oracle_content(const struct oracle *o) { return !o->violation[0]; }

/* The rkey of an owner's window in an epoch. */
static inline uint32_t oracle_window_key(const struct oracle_qp *owner, uint32_t epoch)
{
    return (owner->window_key & ~0xffu) | ((owner->window_key + epoch) & 0xff);
}

/* Inside the oracle. */

#define says_of(o, q, i, fmt, ...)                                                                 \
    oracle_says(o, "h%u qp %06x request %u (%s, %u bytes): " fmt, (q)->host, (q)->qpn, i,          \
                wr_opcode_name((q)->request[i].op), (q)->request[i].len, ##__VA_ARGS__)

static inline bool oracle_uses_receive(enum hca_wr_opcode op)
{
    return op == HCA_WR_SEND || op == HCA_WR_SEND_WITH_IMM || op == HCA_WR_SEND_WITH_INV ||
           op == HCA_WR_RDMA_WRITE_WITH_IMM;
}

/* oracle_atomic.c: do the atomics on this word form a chain? */
void oracle_check_word(struct oracle *o, const struct word *w);

#endif
