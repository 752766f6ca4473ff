/* Memory windows. Type 1 is bound by ibv_bind_mw, which chooses the next rkey; type 2 by a work
 * request that says which it wants (ibv_bind_mw(3), ibv_post_send(3)). What is right and what is
 * not turns out when the adapter comes to the bind, and shows in its completion. */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/mr.h"
#include <stdlib.h>

struct rb_mw {
    struct ibv_mw ibv;
    struct rb_tag tag;
    struct hca_mw *hca;
};

RB_OBJECT(rb_mw, rb_mw, struct ibv_mw, ibv, RB_MW)

struct ibv_mw *rb_alloc_mw(struct ibv_pd *ibv, enum ibv_mw_type type)
{
    struct rb_pd *pd = rb_pd(ibv);
    if (!pd || (type != IBV_MW_TYPE_1 && type != IBV_MW_TYPE_2)) return fail_with(EINVAL);
    struct rb_context *ctx = rb_context(ibv->context);
    struct rb_mw *mw = calloc(1, sizeof *mw);
    if (!mw) return fail_with(ENOMEM);
    int rc = function_lock(ctx->f);
    if (rc == 0) {
        rc = hca_mw_alloc(ctx->f->hca, pd->num, (enum hca_mw_type)type, &mw->hca);
        function_unlock(ctx->f);
    }
    if (rc) {
        free(mw);
        return fail_with(rc);
    }
    atomic_fetch_add(&pd->refs, 1);
    mw->tag = tag_new(ctx, RB_MW);
    mw->ibv = (struct ibv_mw){.context = ibv->context,
                              .pd = ibv,
                              .rkey = hca_mw_rkey(mw->hca),
                              .handle = mw->tag.id,
                              .type = type};
    return &mw->ibv;
}

int rb_dealloc_mw(struct ibv_mw *ibv)
{
    struct rb_mw *mw = rb_mw(ibv);
    if (!mw) return verb_result(EINVAL);
    struct function *f = rb_context(ibv->context)->f;
    if (function_lock(f) == 0) {
        hca_mw_dealloc(f->hca, mw->hca);
        function_unlock(f);
    } /* in a forked child the object goes, the window stays with the parent */
    struct rb_pd *pd = rb_pd(ibv->pd);
    if (pd) atomic_fetch_sub(&pd->refs, 1);
    mw->tag.magic = 0;
    free(mw);
    return 0;
}

static int convert(uint32_t rkey, const struct ibv_mw_bind_info *info, struct hca_send_wr *wr)
{
    struct rb_mr *mr = info->mr ? rb_mr(info->mr) : NULL;
    if (!mr && (info->mr || info->length)) return EINVAL;
    wr->opcode = HCA_WR_BIND_MW;
    wr->rkey = rkey;
    wr->remote_addr = info->addr;
    wr->bind_length = info->length;
    wr->bind_lkey = mr ? info->mr->lkey : 0;
    wr->bind_access = info->mw_access_flags;
    return 0;
}

int mw_convert(struct ibv_mw *ibv, uint32_t rkey, const struct ibv_mw_bind_info *info,
               struct hca_send_wr *wr)
{
    struct rb_mw *mw = rb_mw(ibv);
    if (!mw || ibv->type != IBV_MW_TYPE_2) return EINVAL;
    if ((rkey ^ hca_mw_rkey(mw->hca)) >> 8) return EINVAL; /* the tag alone is the program's */
    return convert(rkey, info, wr);
}

int rb_bind_mw(struct ibv_qp *ibv, struct ibv_mw *window, struct ibv_mw_bind *bind)
{
    struct rb_qp *qp = rb_qp(ibv);
    struct rb_mw *mw = rb_mw(window);
    struct hca_send_wr wr = {.wr_id = bind->wr_id, .flags = bind->send_flags};

    if (!qp || !mw || (bind->send_flags & ~(unsigned)(IBV_SEND_FENCE | IBV_SEND_SIGNALED)))
        return verb_result(EINVAL);
    if (bind->bind_info.mw_access_flags & IBV_ACCESS_ZERO_BASED)
        return verb_result(EINVAL); /* type 2 alone */
    int rc = convert(ibv_inc_rkey(window->rkey), &bind->bind_info, &wr);
    if (rc) return verb_result(rc);
    rc = function_lock(qp->f);
    if (rc) return verb_result(rc);
    when_t now = function_now();
    rc = -hca_post_send(qp->f->hca, qp->hca, &wr, now);
    if (rc == 0) window->rkey = wr.rkey;
    function_flush(qp->f, now);
    function_unlock(qp->f);
    return verb_result(rc);
}
