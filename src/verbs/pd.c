/* Protection domains. */
#include "verbs/function.h"
#include "verbs/real.h"
#include <stdlib.h>

EXPORT struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
    if (!context_is_ours(context)) return REAL(ibv_alloc_pd, "IBVERBS_1.1")(context);

    struct rb_context *ctx = rb_context(context);
    struct rb_pd *pd = calloc(1, sizeof *pd);
    if (!pd) return fail_with(ENOMEM);
    int rc = function_lock(ctx->f);
    if (rc) {
        free(pd);
        return fail_with(rc);
    }
    pd->num = hca_pd_alloc(ctx->f->hca);
    function_unlock(ctx->f);
    pd->tag = tag_new(ctx, RB_PD);
    pd->ibv.context = context;
    pd->ibv.handle = pd->tag.id;
    return &pd->ibv;
}

EXPORT int ibv_dealloc_pd(struct ibv_pd *ibv)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_dealloc_pd, "IBVERBS_1.1")(ibv);

    struct rb_pd *pd = rb_pd(ibv);
    if (!pd) return EINVAL;
    if (atomic_load(&pd->refs)) return EBUSY;
    pd->tag.magic = 0;
    free(pd);
    return 0;
}
