/* The verbs objects that programs hold: each begins with libibverbs' public struct and adds what
 * the adapter needs. Beside it: how ours are told from a real device's, and how a handle is checked
 * before use.
 *
 *   device.c context.c          the list, opening            real.c         the real libibverbs
 *   function.c worker.c         the adapter's driver         publish.c      its counters page
 *   hold.c                      acknowledgements that wait for company
 *   mr.c mr_ex.c mw.c dm.c dmabuf.c odp.c      memory, which pages.c knows page by page
 *   mcast.c                     groups: the adapter's and the socket's
 *   pd.c cq.c cq_ex.c comp_channel.c qp.c post.c wr.c srq.c ah.c event.c query.c
 *   qp_open.c qp_remote.c xrcd.c kin.c  XRC: targets with more handles, domains, who else is in them
 *   l2.c                        a peer's MAC address
 *   import.c                    more handles of a context and what is in it
 *   comp_cntr.c                 completion counters, refused
 *   dv.c                        rbond's own extensions       refuse.c       what is not supported
 */
#ifndef RBOND_VERBS_OBJECT_H
#define RBOND_VERBS_OBJECT_H

#include "base/list.h"
#include "ctl/proto.h"
#include "hca/hca.h"
#include "verbs/newer.h"
#include <errno.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define EXPORT __attribute__((visibility("default")))

struct domain;
struct function;

/* Other libraries read fields of theirs behind struct ibv_device (mlx5dv_is_supported,
 * efadv_query_device): they must find zeroes there. */
#define DEVICE_TAIL 4096

struct rb_device {
    struct ibv_device ibv;
    unsigned char tail[DEVICE_TAIL];
    struct ctl_dev ctl; /* as of the last list */
    struct rb_device *next;
};

struct rb_context {
    struct function *f;
    struct rb_context *origin; /* the context that this one was imported from, or NULL */
    struct list link;          /* in function->imports, or in context.c's list */
    uint32_t late_port;        /* 1 << enum ibv_event_type: wait for room in the pipe */
    int async_wr;              /* the writing end of ibv.async_fd */
    _Atomic uint32_t handles;
    _Atomic uint32_t holds; /* context.c: the program's, and those of imports of it */
    _Atomic size_t dm_used; /* bytes of device memory */
    struct verbs_context v; /* last: v.context is what the program holds */
};

/* Set in every object, so that a stale or foreign pointer is refused rather than followed. */
enum rb_magic {
    RB_PD = 0x72625001,
    RB_MR = 0x72625002,
    RB_CHANNEL = 0x72625003,
    RB_CQ = 0x72625004,
    RB_QP = 0x72625005,
    RB_SRQ = 0x72625006,
    RB_AH = 0x72625007,
    RB_TD = 0x72625008,
    RB_MW = 0x72625009,
    RB_DM = 0x7262500a,
    RB_DMAH = 0x7262500b,
    RB_BUF = 0x7262500c,
    RB_XRCD = 0x72625010,
    RB_UNIMPORTED = 0x72625011, /* a PD whose handle is given back: import.c */
};

/* What every object carries besides its public part. `id` repeats the public handle. */
struct rb_tag {
    enum rb_magic magic;
    uint32_t id;
};

/* What may be imported by its handle: import.c. */
struct rb_export {
    struct list link; /* in function->exports */
    struct rb_tag tag;
};

struct rb_pd {
    struct ibv_pd ibv;
    struct rb_tag tag;
    struct rb_export export;
    uint32_t num;
    _Atomic uint32_t refs;
    struct rb_pd *source; /* of an imported one */
    bool unimported;      /* its handle is given back, and its objects are left: import.c */
    /* of a parent domain */
    struct rb_pd *of; /* the protection domain that it stands for; NULL: it is one itself */
    struct rb_td *td;
    __typeof__(((struct ibv_parent_domain_init_attr *)0)->alloc) alloc;
    __typeof__(((struct ibv_parent_domain_init_attr *)0)->free) free;
    void *alloc_context;
};

struct rb_td {
    struct ibv_td ibv;
    struct rb_tag tag;
    _Atomic uint32_t refs;
};

/* Memory that a parent domain's allocator gave; all zeroes: none, the adapter has its own. */
struct pd_ring {
    void *at;
    struct rb_pd *pd;
    uint64_t resource; /* enum rbonddv_resource_type */
};

enum rb_mr_kind { MR_MEMORY, MR_NULL, MR_DM, MR_DMABUF, MR_IMPORTED };

struct rb_mr {
    struct ibv_mr ibv;
    struct rb_tag tag;
    struct rb_export export;
    struct hca_mr *hca;
    enum rb_mr_kind kind;
    uint64_t iova;
    unsigned access;
    struct rb_dm *dm; /* what it is of */
    void *mapping;    /* MR_DMABUF */
    size_t mapping_len;
};

struct rb_dm {
    struct ibv_dm ibv;
    struct rb_tag tag;
    uint8_t *at;
    size_t length;
    int fd;
    bool imported;
    struct rb_export export;
    _Atomic uint32_t refs; /* regions */
};

struct rb_channel {
    struct ibv_comp_channel ibv; /* fd: the reading end of the pipe */
    struct rb_tag tag;
    int wr_fd;
};

struct rb_cq {
    struct ibv_cq_ex ex; /* begins as struct ibv_cq does */
    struct rb_tag tag;
    struct function *f;
    struct hca_cq *hca;
    struct list link;     /* in function->cqs */
    struct rb_pd *parent; /* the domain that it was made with, or NULL */
    struct pd_ring ring;
    /* One consumer at a time: which thread (thread_self), 0: none; and how often over. Taken before
     * function->lock where both are held: a program posts between ibv_start_poll and ibv_end_poll,
     * and may reset or destroy a QP there. */
    _Atomic uintptr_t consumer;
    uint32_t consumer_depth;
    uint32_t polls;
    uint32_t unsent;       /* events that did not fit the channel's pipe */
    uint32_t comp_events;  /* put into the channel, and neither purged */
    uint32_t async_events; /* nor taken back: what destroy waits to see acknowledged */
    struct hca_wc wc;      /* the current completion of ibv_start_poll */
};

struct rb_xrcd {
    struct ibv_xrcd ibv;
    struct rb_tag tag;
    struct domain *domain;
    _Atomic uint32_t refs; /* its QPs and SRQs */
};

/* A work request between ibv_wr_start and ibv_wr_complete. */
struct staged_wr {
    struct hca_send_wr wr;
    struct hca_sge sge[HCA_MAX_SGE];
    uint8_t *inline_data; /* in sge[0], when the request is inline */
};

struct rb_qp {
    union {
        struct ibv_qp_ex ex; /* begins with struct ibv_qp */
        struct {
            unsigned char before[WR_FLUSH_OFFSET];
            wr_flush_fn *wr_flush;
        } newer;
    };
    struct rb_tag tag;
    struct function *f;
    struct hca_qp *hca;
    struct list link;     /* in function->qps; of several handles of an XRC target one is there */
    struct list handles;  /* the other handles of an XRC target: qp_open.c */
    struct rb_xrcd *xrcd; /* an XRC target's */
    uint32_t xrc_domain;  /* its number; 0: no XRC target */
    uint16_t elsewhere;   /* the function whose target it is a handle of: qp_remote.c; 0: ours */
    uint16_t stands_for;  /* the function whose handles it stands for; 0: it is the program's */
    uint32_t stands_times;
    bool lost;            /* the target elsewhere has gone */
    bool is_ex, sq_sig_all, addressed;
    struct ibv_qp_cap cap;
    struct pd_ring queues;
    uint32_t async_events;
    uint32_t late;           /* 1 << enum ibv_event_type: events that wait for room in the pipe */
    pthread_mutex_t staging; /* held from ibv_wr_start to ibv_wr_complete or _abort */
    uintptr_t stager;        /* by which thread (thread_self); 0: none, or one that is about to */
    struct staged_wr *staged;
    uint32_t nstaged, staged_room;
    int staged_error;
};

struct rb_srq {
    struct ibv_srq ibv;
    struct rb_tag tag;
    struct function *f;
    struct hca_srq *hca;
    struct rb_xrcd *xrcd; /* an XRC SRQ's */
    uint32_t async_events;
};

struct rb_ah {
    struct ibv_ah ibv;
    struct rb_tag tag;
    struct hca_ah hca;
};

/* ---- ours or theirs ---------------------------------------------------------------------- */

/* Stands in the obsolete _ops of our devices, where a real one has NULL. */
struct ibv_context *device_mark(struct ibv_device *device, int cmd_fd);

static inline bool device_is_ours(const struct ibv_device *device)
{
    return device && device->_ops._dummy1 == device_mark;
}

static inline bool context_is_ours(const struct ibv_context *context)
{
    return context && device_is_ours(context->device);
}

static inline struct rb_device *rb_device(struct ibv_device *device)
{
    return container_of(device, struct rb_device, ibv);
}

static inline struct rb_context *rb_context(struct ibv_context *context)
{
    return container_of(context, struct rb_context, v.context);
}

/* ---- handles ----------------------------------------------------------------------------- */

static inline struct rb_tag tag_new(struct rb_context *ctx, enum rb_magic magic)
{
    if (ctx->origin) ctx = ctx->origin; /* handles are the adapter's */
    return (struct rb_tag){magic, atomic_fetch_add(&ctx->handles, 1)};
}

/* The object of ours behind a public pointer; NULL where it is none, or its handle was garbled. */
#define RB_OBJECT(name, type, public_type, public_member, magic_value)                             \
    static inline struct type *name(public_type *p)                                                \
    {                                                                                              \
        struct type *o = (struct type *)p;                                                         \
        return p && o->tag.magic == (magic_value) && o->tag.id == p->handle ? o : NULL;            \
    }

RB_OBJECT(rb_pd, rb_pd, struct ibv_pd, ibv, RB_PD)
RB_OBJECT(rb_mr, rb_mr, struct ibv_mr, ibv, RB_MR)
RB_OBJECT(rb_cq, rb_cq, struct ibv_cq, ex, RB_CQ)
RB_OBJECT(rb_qp, rb_qp, struct ibv_qp, ex, RB_QP)
RB_OBJECT(rb_srq, rb_srq, struct ibv_srq, ibv, RB_SRQ)
RB_OBJECT(rb_ah, rb_ah, struct ibv_ah, ibv, RB_AH)

/* An XRC domain has no public handle that could be garbled. */
static inline struct rb_xrcd *rb_xrcd(struct ibv_xrcd *p)
{
    struct rb_xrcd *o = (struct rb_xrcd *)p;
    return p && o->tag.magic == RB_XRCD ? o : NULL;
}

static inline struct ibv_cq *cq_public(struct rb_cq *cq) { return ibv_cq_ex_to_cq(&cq->ex); }
static inline struct ibv_qp *qp_public(struct rb_qp *qp) { return &qp->ex.qp_base; }

/* What a verb that returns 0 or an errno value ends with: an error is left in errno, too. The
 * manual pages promise the value alone, but with real devices errno mostly comes along from the
 * kernel's refusal, and programs print it ("%m", perror). */
static inline int verb_result(int error)
{
    if (__builtin_expect(error != 0, 0)) errno = error;
    return error;
}

/* The calling thread; the same in a child for the thread that forks. Never 0. */
static inline uintptr_t thread_self(void) { return (uintptr_t)pthread_self(); }

/* A pointer-returning verb's failure. `error` may be a negative errno or a positive one. */
static inline void *fail_with(int error)
{
    errno = error < 0 ? -error : error;
    return NULL;
}

#endif
