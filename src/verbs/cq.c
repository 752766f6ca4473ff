/* Completion queues: creation, arming, polling, destruction. The extended way to poll is cq_ex.c.
 */
#include "rbond/rbonddv.h"
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/real.h"
#include <rdma/ib_user_verbs.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* Completions converted at a time. */
#define BATCH 16
/* A program that always finds completions drives after so many polls, so that its acknowledgements
 * and further sends do not wait for the CQ to run dry. */
#define POLLS_PER_DRIVE 16

/* ---- polling ----------------------------------------------------------------------------- */

bool cq_is_consumer(struct rb_cq *cq)
{
    return atomic_load_explicit(&cq->consumer, memory_order_relaxed) == thread_self();
}

void cq_consumer_in(struct rb_cq *cq)
{
    const uintptr_t self = thread_self();
    uintptr_t none = 0;

    while (!atomic_compare_exchange_weak_explicit(&cq->consumer, &none, self, memory_order_acquire,
                                                  memory_order_relaxed)) {
        if (none == self) break;
        if (none) sched_yield();
        none = 0;
    }
    cq->consumer_depth++;
}

void cq_consumer_out(struct rb_cq *cq)
{
    if (--cq->consumer_depth == 0) atomic_store_explicit(&cq->consumer, 0, memory_order_release);
}

static void convert(const struct hca_wc *from, struct ibv_wc *to)
{
    to->wr_id = from->wr_id;
    to->status = (enum ibv_wc_status)from->status;
    to->opcode = (enum ibv_wc_opcode)from->opcode;
    to->vendor_err = from->vendor_err;
    to->byte_len = from->byte_len;
    if (from->flags & HCA_WC_WITH_INV)
        to->invalidated_rkey = from->inv_rkey;
    else
        to->imm_data = from->imm_be;
    to->qp_num = from->qpn;
    to->src_qp = from->src_qpn;
    to->wc_flags = from->flags;
    to->pkey_index = 0;
    to->slid = 0;
    to->sl = from->sl;
    to->dlid_path_bits = 0;
}

/* Up to `max` completions; negative where the CQ has overrun. */
static int take(struct rb_cq *cq, int max, struct ibv_wc *wc)
{
    struct hca_wc batch[BATCH];
    int done = 0;

    cq_consumer_in(cq);
    while (done < max) {
        int want = max - done < BATCH ? max - done : BATCH;
        int n = hca_cq_poll(cq->hca, batch, want);
        if (n < 0 && done == 0) done = -verb_result(-n);
        if (n <= 0) break;
        for (int i = 0; i < n; i++) convert(&batch[i], &wc[done + i]);
        done += n;
        if (n < want) break;
    }
    if (done) function_consumed(cq->f);
    cq_consumer_out(cq);
    return done;
}

int rb_poll_cq(struct ibv_cq *ibv, int max, struct ibv_wc *wc)
{
    struct rb_cq *cq = rb_cq(ibv);

    if (!cq || max < 0 || function_is_dead(cq->f)) return -verb_result(EINVAL);
    int n = take(cq, max, wc);
    if (n == 0) {
        if (function_spin(cq->f)) n = take(cq, max, wc);
    } else if (++cq->polls % POLLS_PER_DRIVE == 0) {
        function_spin(cq->f);
    }
    return n;
}

int rb_req_notify_cq(struct ibv_cq *ibv, int solicited_only)
{
    struct rb_cq *cq = rb_cq(ibv);

    if (!cq) return verb_result(EINVAL);
    int rc = function_lock(cq->f);
    if (rc) return verb_result(rc);
    hca_cq_arm(cq->f->hca, cq->hca, solicited_only != 0);
    if (cq->ex.channel) function_armed(cq->f);
    events_deliver(cq->f); /* it may have fired already */
    function_unlock(cq->f);
    return 0;
}

/* ---- life -------------------------------------------------------------------------------- */

static void channel_ref(struct ibv_context *context, struct ibv_comp_channel *channel, int by)
{
    if (!channel) return;
    pthread_mutex_lock(&context->mutex);
    channel->refcnt += by;
    pthread_mutex_unlock(&context->mutex);
}

static bool init_is_right(struct ibv_context *context, const struct ibv_cq_init_attr_ex *init)
{
    struct ibv_comp_channel *channel = init->channel;
    return init->cqe > 0 && init->cqe <= HCA_MAX_CQE &&
           init->comp_vector < (uint32_t)context->num_comp_vectors &&
           (!channel || (rb_channel(channel) && channel->context == context));
}

static int create_in_adapter(struct rb_cq *cq, uint32_t *cqe)
{
    int rc = pd_ring_alloc(cq->parent, hca_cq_bytes(*cqe), RBONDDV_RESOURCE_CQ, &cq->ring);
    if (rc) return rc;
    rc = function_lock(cq->f);
    if (rc == 0) {
        rc = hca_cq_create_in(cq->f->hca, cqe, cq, cq->ring.at, &cq->hca);
        if (rc == 0) list_add_tail(&cq->f->cqs, &cq->link);
        function_unlock(cq->f);
    }
    if (rc) pd_ring_free(&cq->ring);
    return rc;
}

struct rb_cq *cq_new(struct ibv_context *context, const struct ibv_cq_init_attr_ex *init,
                     struct rb_pd *parent)
{
    struct rb_context *ctx = rb_context(context);
    uint32_t cqe = init->cqe;

    if (!init_is_right(context, init)) return fail_with(EINVAL);
    struct rb_cq *cq = calloc(1, sizeof *cq);
    if (!cq) return fail_with(ENOMEM);
    cq->f = ctx->f;
    cq->parent = parent;
    int rc = create_in_adapter(cq, &cqe);
    if (rc) {
        free(cq);
        return fail_with(rc);
    }
    cq->tag = tag_new(ctx, RB_CQ);
    cq->ex.context = context;
    cq->ex.channel = init->channel;
    cq->ex.cq_context = init->cq_context;
    cq->ex.handle = cq->tag.id;
    cq->ex.cqe = (int)cqe;
    pthread_mutex_init(&cq->ex.mutex, NULL);
    pthread_cond_init(&cq->ex.cond, NULL);
    channel_ref(context, init->channel, 1);
    if (parent) atomic_fetch_add(&parent->refs, 1);
    return cq;
}

EXPORT struct ibv_cq *ibv_create_cq(struct ibv_context *context, int cqe, void *cq_context,
                                    struct ibv_comp_channel *channel, int comp_vector)
{
    if (!context_is_ours(context))
        return REAL(ibv_create_cq, "IBVERBS_1.1")(context, cqe, cq_context, channel, comp_vector);
    if (cqe < 1 || comp_vector < 0) return fail_with(EINVAL);
    const struct ibv_cq_init_attr_ex init = {.cqe = (uint32_t)cqe,
                                             .cq_context = cq_context,
                                             .channel = channel,
                                             .comp_vector = (uint32_t)comp_vector};
    struct rb_cq *cq = cq_new(context, &init, NULL);
    return cq ? cq_public(cq) : NULL;
}

/* The consumer first: see object.h. As lock_with_consumers of qp.c. */
static int lock_with_consumer(struct rb_cq *cq)
{
    if (function_is_dead(cq->f)) return EIO;
    cq_consumer_in(cq);
    int rc = function_lock(cq->f);
    if (rc) cq_consumer_out(cq);
    return rc;
}

static void unlock_with_consumer(struct rb_cq *cq)
{
    function_unlock(cq->f);
    cq_consumer_out(cq);
}

/* ---- modification ------------------------------------------------------------------------ */

EXPORT int ibv_resize_cq(struct ibv_cq *ibv, int cqe)
{
    struct pd_ring ring;

    if (!context_is_ours(ibv->context)) return REAL(ibv_resize_cq, "IBVERBS_1.1")(ibv, cqe);
    struct rb_cq *cq = rb_cq(ibv);
    if (!cq || cqe < 1 || cqe > HCA_MAX_CQE) return verb_result(EINVAL);
    uint32_t size = (uint32_t)cqe;
    int rc = pd_ring_alloc(cq->parent, hca_cq_bytes(size), RBONDDV_RESOURCE_CQ, &ring);
    if (rc) return verb_result(rc);
    rc = lock_with_consumer(cq);
    if (rc == 0) {
        rc = -hca_cq_resize_in(cq->f->hca, cq->hca, &size, ring.at);
        unlock_with_consumer(cq);
    }
    if (rc == 0) {
        struct pd_ring before = cq->ring;
        cq->ring = ring;
        ring = before;
        ibv->cqe = (int)size;
    }
    pd_ring_free(&ring);
    return verb_result(rc);
}

int rb_modify_cq(struct ibv_cq *ibv, struct ibv_modify_cq_attr *attr)
{
    struct rb_cq *cq = rb_cq(ibv);

    if (!cq || (attr->attr_mask & ~(uint32_t)IBV_CQ_ATTR_MODERATE)) return verb_result(EINVAL);
    int rc = function_lock(cq->f);
    if (rc) return verb_result(rc);
    if (attr->attr_mask & IBV_CQ_ATTR_MODERATE)
        hca_cq_moderate(cq->f->hca, cq->hca, attr->moderate.cq_count,
                        attr->moderate.cq_period * US_NS);
    events_deliver(cq->f);
    function_unlock(cq->f);
    return 0;
}

/* ---- destruction ------------------------------------------------------------------------- */

/* Takes the CQ out of the adapter and its unread events out of the pipes. */
static int detach(struct rb_cq *cq)
{
    struct function *f = cq->f;
    struct rb_channel *channel = rb_channel(cq->ex.channel);
    uint64_t element = (uintptr_t)cq_public(cq);

    int rc = lock_with_consumer(cq);
    if (rc) return 0; /* a forked child frees its copy */
    events_deliver(f);
    rc = -hca_cq_destroy(f->hca, cq->hca);
    if (rc == 0) {
        list_del(&cq->link);
        if (channel)
            cq->comp_events -= events_purge(channel->ibv.fd, channel->wr_fd,
                                            sizeof(struct ib_uverbs_comp_event_desc), element);
        cq->async_events -= events_purge_async(f, rb_context(cq->ex.context), cq);
    }
    unlock_with_consumer(cq);
    return rc;
}

EXPORT int ibv_destroy_cq(struct ibv_cq *ibv)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_destroy_cq, "IBVERBS_1.1")(ibv);

    struct rb_cq *cq = rb_cq(ibv);
    if (!cq) return verb_result(EINVAL);
    if (cq_is_consumer(cq)) return verb_result(EBUSY); /* ibv_end_poll is still to come */
    int rc = detach(cq);
    if (rc) return verb_result(rc);
    pthread_mutex_lock(&ibv->mutex);
    while (!function_is_dead(cq->f) && (ibv->comp_events_completed != cq->comp_events ||
                                        ibv->async_events_completed != cq->async_events))
        pthread_cond_wait(&ibv->cond, &ibv->mutex);
    pthread_mutex_unlock(&ibv->mutex);
    channel_ref(ibv->context, ibv->channel, -1);
    pd_ring_free(&cq->ring);
    if (cq->parent) atomic_fetch_sub(&cq->parent->refs, 1);
    cq->tag.magic = 0;
    pthread_mutex_destroy(&ibv->mutex);
    pthread_cond_destroy(&ibv->cond);
    free(cq);
    return 0;
}
