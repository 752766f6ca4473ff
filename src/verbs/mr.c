/* Memory regions. The adapter reads and writes the program's memory by its own pointers:
 * registering must find out what the kernel would by pinning, that the range is mapped and may be
 * written. */
#include "verbs/function.h"
#include "verbs/pages.h"
#include "verbs/real.h"
#include <stdlib.h>

#undef ibv_reg_mr
#undef ibv_reg_mr_iova

#define WRITES                                                                                     \
    ((unsigned)(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC))

static bool access_writes(unsigned access) { return access & WRITES; }

/* The whole address space, as ibv_reg_mr(3) has it. */
static bool is_implicit(const void *addr, size_t length, unsigned access)
{
    return (access & IBV_ACCESS_ON_DEMAND) && !addr && length == SIZE_MAX;
}

/* 0, or an errno where the memory cannot be registered so. On demand nothing need be there yet. */
static int check_memory(void *addr, size_t length, uint64_t iova, unsigned access)
{
    if (!(access & IBV_ACCESS_ON_DEMAND)) return pages_probe(addr, length, access_writes(access));
    if (!pages_on_demand()) return EOPNOTSUPP;
    if (is_implicit(addr, length, access) && (iova || (access & IBV_ACCESS_HUGETLB))) return EINVAL;
    return 0;
}

static struct ibv_mr *reg(struct ibv_pd *ibv, void *addr, size_t length, uint64_t iova,
                          unsigned access)
{
    struct rb_pd *pd = rb_pd(ibv);
    if (!pd) return fail_with(EINVAL);
    struct rb_context *ctx = rb_context(ibv->context);

    /* Of the optional flags (they may be ignored, says ibv_reg_mr(3)) one has a meaning here. */
    access &= ~(IBV_ACCESS_OPTIONAL_RANGE & ~(unsigned)IBV_ACCESS_RELAXED_ORDERING);
    int rc = check_memory(addr, length, iova, access);
    if (rc) return fail_with(rc);
    struct rb_mr *mr = calloc(1, sizeof *mr);
    if (!mr) return fail_with(ENOMEM);
    rc = function_lock(ctx->f);
    if (rc == 0) {
        rc = hca_mr_reg(ctx->f->hca, pd->num, addr, length, iova, access, &mr->hca);
        function_unlock(ctx->f);
    }
    if (rc) {
        free(mr);
        return fail_with(rc);
    }
    atomic_fetch_add(&pd->refs, 1);
    mr->tag = tag_new(ctx, RB_MR);
    mr->ibv = (struct ibv_mr){.context = ibv->context,
                              .pd = ibv,
                              .addr = addr,
                              .length = length,
                              .handle = mr->tag.id,
                              .lkey = hca_mr_lkey(mr->hca),
                              .rkey = hca_mr_rkey(mr->hca)};
    return &mr->ibv;
}

EXPORT struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
    if (!context_is_ours(pd->context))
        return REAL(ibv_reg_mr, "IBVERBS_1.1")(pd, addr, length, access);
    return reg(pd, addr, length, (uintptr_t)addr, (unsigned)access);
}

EXPORT struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
                                      int access)
{
    if (!context_is_ours(pd->context))
        return REAL(ibv_reg_mr_iova, "IBVERBS_1.7")(pd, addr, length, iova, access);
    return reg(pd, addr, length, iova, (unsigned)access);
}

EXPORT struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
                                       unsigned access)
{
    if (!context_is_ours(pd->context))
        return REAL(ibv_reg_mr_iova2, "IBVERBS_1.8")(pd, addr, length, iova, access);
    return reg(pd, addr, length, iova, access);
}

EXPORT int ibv_dereg_mr(struct ibv_mr *ibv)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_dereg_mr, "IBVERBS_1.1")(ibv);

    struct rb_mr *mr = rb_mr(ibv);
    if (!mr) return EINVAL;
    struct function *f = rb_context(ibv->context)->f;
    int rc = function_lock(f);
    if (rc == 0) {
        rc = -hca_mr_dereg(f->hca, mr->hca);
        function_unlock(f);
        if (rc) return rc;
    } /* in a forked child the object goes, the region stays with the parent */
    struct rb_pd *pd = rb_pd(ibv->pd);
    if (pd) atomic_fetch_sub(&pd->refs, 1);
    mr->tag.magic = 0;
    free(mr);
    return 0;
}

EXPORT int ibv_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length,
                        int access)
{
    if (!context_is_ours(mr->context))
        return REAL(ibv_rereg_mr, "IBVERBS_1.1")(mr, flags, pd, addr, length, access);
    errno = EOPNOTSUPP;
    return IBV_REREG_MR_ERR_INPUT;
}

EXPORT struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length,
                                        uint64_t iova, int fd, int access)
{
    if (!context_is_ours(pd->context))
        return REAL(ibv_reg_dmabuf_mr, "IBVERBS_1.12")(pd, offset, length, iova, fd, access);
    return fail_with(EOPNOTSUPP);
}
