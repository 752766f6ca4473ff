/* Shared receive queues. */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/real.h"
#include <rdma/ib_user_verbs.h>
#include <stdlib.h>

static struct ibv_srq *create(struct rb_pd *pd, void *srq_context, struct ibv_srq_attr *attr,
                              struct rb_xrcd *xrcd, struct rb_cq *cq)
{
    struct rb_context *ctx = rb_context(pd->ibv.context);
    struct rb_srq *srq = calloc(1, sizeof *srq);
    if (!srq) return fail_with(ENOMEM);
    srq->f = ctx->f;
    srq->xrcd = xrcd;
    struct hca_srq_init hi = {.pd = pd->num,
                              .max_wr = attr->max_wr,
                              .max_sge = attr->max_sge,
                              .xrcd = xrcd ? xrcd_number(xrcd) : 0,
                              .cq = cq ? cq->hca : NULL,
                              .owner = srq};
    int rc = function_lock(ctx->f);
    if (rc == 0) {
        /* srq_limit has no meaning at creation, says ibv_create_srq(3) */
        rc = hca_srq_create(ctx->f->hca, &hi, &srq->hca);
        function_unlock(ctx->f);
    }
    if (rc) {
        free(srq);
        return fail_with(rc);
    }
    attr->max_wr = hi.max_wr;
    attr->max_sge = hi.max_sge;
    srq->tag = tag_new(ctx, RB_SRQ);
    srq->ibv.context = pd->ibv.context;
    srq->ibv.srq_context = srq_context;
    srq->ibv.pd = &pd->ibv;
    srq->ibv.handle = srq->tag.id;
    pthread_mutex_init(&srq->ibv.mutex, NULL);
    pthread_cond_init(&srq->ibv.cond, NULL);
    atomic_fetch_add(&pd->refs, 1);
    if (xrcd) atomic_fetch_add(&xrcd->refs, 1);
    return &srq->ibv;
}

EXPORT struct ibv_srq *ibv_create_srq(struct ibv_pd *ibv, struct ibv_srq_init_attr *init)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_create_srq, "IBVERBS_1.1")(ibv, init);

    struct rb_pd *pd = rb_pd(ibv);
    return pd ? create(pd, init->srq_context, &init->attr, NULL, NULL) : fail_with(EINVAL);
}

/* The inline ibv_create_srq_ex takes most basic SRQs to ibv_create_srq; what else there is comes
 * here. Tag matching there is none: max_num_tags of ibv_query_device_ex is 0. */
struct ibv_srq *rb_create_srq_ex(struct ibv_context *context, struct ibv_srq_init_attr_ex *init)
{
    const uint32_t known = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_XRCD |
                           IBV_SRQ_INIT_ATTR_CQ;
    const uint32_t of_xrc = IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ;
    bool typed = init->comp_mask & IBV_SRQ_INIT_ATTR_TYPE;
    enum ibv_srq_type type = typed ? init->srq_type : IBV_SRQT_BASIC;

    if ((init->comp_mask & ~known) || (type != IBV_SRQT_BASIC && type != IBV_SRQT_XRC))
        return fail_with(EOPNOTSUPP);
    struct rb_pd *pd = init->comp_mask & IBV_SRQ_INIT_ATTR_PD ? rb_pd(init->pd) : NULL;
    if (!pd || pd->ibv.context != context) return fail_with(EINVAL);
    if (type == IBV_SRQT_BASIC) return create(pd, init->srq_context, &init->attr, NULL, NULL);
    if ((init->comp_mask & of_xrc) != of_xrc) return fail_with(EINVAL);
    struct rb_xrcd *xrcd = rb_xrcd(init->xrcd);
    struct rb_cq *cq = rb_cq(init->cq);
    if (!xrcd || !cq || xrcd->ibv.context != context || cq->ex.context != context)
        return fail_with(EINVAL);
    return create(pd, init->srq_context, &init->attr, xrcd, cq);
}

int rb_get_srq_num(struct ibv_srq *ibv, uint32_t *num)
{
    struct rb_srq *srq = rb_srq(ibv);

    if (!srq || !srq->xrcd) return verb_result(EINVAL);
    *num = hca_srq_num(srq->hca);
    return 0;
}

EXPORT int ibv_modify_srq(struct ibv_srq *ibv, struct ibv_srq_attr *attr, int mask)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_modify_srq, "IBVERBS_1.1")(ibv, attr, mask);

    struct rb_srq *srq = rb_srq(ibv);
    if (!srq || (mask & ~(IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT))) return verb_result(EINVAL);
    int rc = function_lock(srq->f);
    if (rc) return verb_result(rc);
    rc = -hca_srq_modify(srq->f->hca, srq->hca, mask & IBV_SRQ_MAX_WR ? &attr->max_wr : NULL,
                         mask & IBV_SRQ_LIMIT ? &attr->srq_limit : NULL);
    events_deliver(srq->f);
    function_unlock(srq->f);
    return verb_result(rc);
}

EXPORT int ibv_query_srq(struct ibv_srq *ibv, struct ibv_srq_attr *attr)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_query_srq, "IBVERBS_1.1")(ibv, attr);

    struct rb_srq *srq = rb_srq(ibv);
    if (!srq) return verb_result(EINVAL);
    int rc = function_lock(srq->f);
    if (rc) return verb_result(rc);
    hca_srq_query(srq->hca, &attr->max_wr, &attr->max_sge, &attr->srq_limit);
    function_unlock(srq->f);
    return 0;
}

static int detach(struct rb_srq *srq)
{
    struct function *f = srq->f;

    int rc = function_lock(f);
    if (rc) return 0; /* a forked child frees its copy */
    events_deliver(f);
    rc = -hca_srq_destroy(f->hca, srq->hca);
    if (rc == 0) srq->async_events -= events_purge_async(f, rb_context(srq->ibv.context), srq);
    function_unlock(f);
    return rc;
}

EXPORT int ibv_destroy_srq(struct ibv_srq *ibv)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_destroy_srq, "IBVERBS_1.1")(ibv);

    struct rb_srq *srq = rb_srq(ibv);
    if (!srq) return verb_result(EINVAL);
    int rc = detach(srq);
    if (rc) return verb_result(rc);
    pthread_mutex_lock(&ibv->mutex);
    while (!function_is_dead(srq->f) && ibv->events_completed != srq->async_events)
        pthread_cond_wait(&ibv->cond, &ibv->mutex);
    pthread_mutex_unlock(&ibv->mutex);
    struct rb_pd *pd = rb_pd(ibv->pd);
    if (pd) atomic_fetch_sub(&pd->refs, 1);
    if (srq->xrcd) atomic_fetch_sub(&srq->xrcd->refs, 1);
    srq->tag.magic = 0;
    pthread_mutex_destroy(&ibv->mutex);
    pthread_cond_destroy(&ibv->cond);
    free(srq);
    return 0;
}
