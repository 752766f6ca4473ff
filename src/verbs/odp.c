/* Advice on regions on demand (ibv_advise_mr(3)): their pages are brought in before they are
 * wanted. All advice is followed at once, whether IBV_ADVISE_MR_FLAG_FLUSH asks for that or not. */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/mr.h"
#include "verbs/pages.h"

/* Finds what an SGE names. 0 or an errno. */
static int find(struct rb_pd *pd, const struct ibv_sge *sge, bool write, struct hca_span *span)
{
    struct function *f = rb_context(pd->ibv.context)->f;
    int rc = function_lock(f);
    if (rc) return rc;
    rc = -hca_mr_span(f->hca, pd->num, sge->lkey, sge->addr, sge->length, span);
    function_unlock(f);
    if (rc) return rc == ENOENT ? EFAULT : rc;
    if (!span->on_demand) return EINVAL;
    return write && !span->writable ? EPERM : 0;
}

int rb_advise_mr(struct ibv_pd *ibv, enum ibv_advise_mr_advice advice, uint32_t flags,
                 struct ibv_sge *sg_list, uint32_t num_sge)
{
    struct rb_pd *pd = rb_pd(ibv);
    bool write = advice == IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE;

    if (!pd || (flags & ~(uint32_t)IBV_ADVISE_MR_FLAG_FLUSH) || num_sge == 0)
        return verb_result(EINVAL);
    if (!write && advice != IBV_ADVISE_MR_ADVICE_PREFETCH &&
        advice != IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT)
        return verb_result(ENOTSUP);
    for (uint32_t i = 0; i < num_sge; i++) {
        struct hca_span span;
        int rc = find(pd, &sg_list[i], write, &span);
        if (rc == 0)
            rc = advice == IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT
                     ? pages_look(span.at, sg_list[i].length)
                     : pages_probe(span.at, sg_list[i].length, write);
        if (rc) return verb_result(rc);
    }
    return 0;
}
