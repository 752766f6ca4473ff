/* Protection domains; thread domains; and parent domains, which join one of each and serve wherever
 * a protection domain does. A thread domain promises that one thread at a time uses its objects:
 * the adapter's lock is then never waited for, which is all there is to gain from it.
 *
 * A parent domain may bring an allocator: the rings of work queues and CQs made with it are the
 * program's memory. The adapter is not locked while it is called, for it may take locks of the
 * program's that other callers of verbs hold. */
#include "rbond/rbonddv.h"
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/import.h"
#include "verbs/real.h"
#include <stdlib.h>

#define RING_ALIGN 64

static struct rb_pd *pd_new(struct ibv_context *context, struct rb_pd *of)
{
    struct rb_context *ctx = rb_context(context);
    struct rb_pd *pd = calloc(1, sizeof *pd);
    if (!pd) return fail_with(ENOMEM);
    int rc = function_lock(ctx->f);
    if (rc) {
        free(pd);
        return fail_with(rc);
    }
    pd->num = of ? of->num : hca_pd_alloc(ctx->f->hca);
    function_unlock(ctx->f);
    pd->tag = tag_new(ctx, RB_PD);
    pd->ibv.context = context;
    pd->ibv.handle = pd->tag.id;
    export_add(ctx->f, &pd->export, pd->tag);
    return pd;
}

EXPORT struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
    if (!context_is_ours(context)) return REAL(ibv_alloc_pd, "IBVERBS_1.1")(context);
    struct rb_pd *pd = pd_new(context, NULL);
    return pd ? &pd->ibv : NULL;
}

EXPORT int ibv_dealloc_pd(struct ibv_pd *ibv)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_dealloc_pd, "IBVERBS_1.1")(ibv);

    struct rb_pd *pd = rb_pd(ibv);
    if (!pd || pd->unimported) return verb_result(EINVAL);
    if (atomic_load(&pd->refs)) return verb_result(EBUSY);
    if (pd->source)
        atomic_fetch_sub(&pd->source->refs, 1);
    else
        export_del(rb_context(ibv->context)->f, &pd->export);
    if (pd->of) atomic_fetch_sub(&pd->of->refs, 1);
    if (pd->td) atomic_fetch_sub(&pd->td->refs, 1);
    pd->tag.magic = 0;
    free(pd);
    return 0;
}

/* ---- thread domains ---------------------------------------------------------------------- */

static struct rb_td *rb_td(struct ibv_td *ibv)
{
    struct rb_td *td = container_of(ibv, struct rb_td, ibv);
    return ibv && td->tag.magic == RB_TD ? td : NULL;
}

struct ibv_td *rb_alloc_td(struct ibv_context *context, struct ibv_td_init_attr *init)
{
    if (init->comp_mask) return fail_with(EINVAL);
    if (function_is_dead(rb_context(context)->f)) return fail_with(EIO);
    struct rb_td *td = calloc(1, sizeof *td);
    if (!td) return fail_with(ENOMEM);
    td->tag = tag_new(rb_context(context), RB_TD);
    td->ibv.context = context;
    return &td->ibv;
}

int rb_dealloc_td(struct ibv_td *ibv)
{
    struct rb_td *td = rb_td(ibv);
    if (!td) return verb_result(EINVAL);
    if (atomic_load(&td->refs)) return verb_result(EBUSY);
    td->tag.magic = 0;
    free(td);
    return 0;
}

/* ---- parent domains ---------------------------------------------------------------------- */

/* Newer than our headers: unprotected memory in a confidential guest is all right. */
#define ALLOW_CC_UNPROTECTED_ALLOC (1u << 2)

static int check_parent(struct ibv_context *context, const struct ibv_parent_domain_init_attr *a)
{
    const uint32_t known = IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS |
                           IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT | ALLOW_CC_UNPROTECTED_ALLOC;

    if (a->comp_mask & ~known) return EINVAL;
    struct rb_pd *pd = rb_pd(a->pd);
    if (!pd || pd->of || pd->source || a->pd->context != context) return EINVAL;
    if (a->td && (!rb_td(a->td) || a->td->context != context)) return EINVAL;
    if ((a->comp_mask & IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS) && (!a->alloc || !a->free))
        return EINVAL;
    return 0;
}

struct ibv_pd *rb_alloc_parent_domain(struct ibv_context *context,
                                      struct ibv_parent_domain_init_attr *attr)
{
    int rc = check_parent(context, attr);
    if (rc) return fail_with(rc);
    struct rb_pd *pd = pd_new(context, rb_pd(attr->pd));
    if (!pd) return NULL;
    pd->of = rb_pd(attr->pd);
    atomic_fetch_add(&pd->of->refs, 1);
    if (attr->td) {
        pd->td = rb_td(attr->td);
        atomic_fetch_add(&pd->td->refs, 1);
    }
    if (attr->comp_mask & IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS) {
        pd->alloc = attr->alloc;
        pd->free = attr->free;
    }
    if (attr->comp_mask & IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT)
        pd->alloc_context = attr->pd_context;
    return &pd->ibv;
}

int pd_ring_alloc(struct rb_pd *pd, size_t size, uint64_t resource, struct pd_ring *ring)
{
    *ring = (struct pd_ring){0};
    if (!pd || !pd->alloc || size == 0) return 0;
    void *at = pd->alloc(&pd->ibv, pd->alloc_context, size, RING_ALIGN, resource);
    if (at == IBV_ALLOCATOR_USE_DEFAULT) return 0;
    if (!at) return ENOMEM;
    *ring = (struct pd_ring){.at = at, .pd = pd, .resource = resource};
    return 0;
}

void pd_ring_free(struct pd_ring *ring)
{
    struct rb_pd *pd = ring->pd;
    if (ring->at) pd->free(&pd->ibv, pd->alloc_context, ring->at, ring->resource);
    *ring = (struct pd_ring){0};
}
