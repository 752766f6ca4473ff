/* Memory regions. The adapter reads and writes the program's memory by its own pointers:
 * registering must find out what the kernel would by pinning, that the range is mapped and may be
 * written. */
#include "verbs/mr.h"
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/import.h"
#include "verbs/pages.h"
#include "verbs/real.h"
#include <stdlib.h>
#include <sys/mman.h>

#undef ibv_reg_mr
#undef ibv_reg_mr_iova

bool mr_writes(unsigned access)
{
    return access & (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC);
}

/* ---- registering ------------------------------------------------------------------------- */

/* The whole address space, as ibv_reg_mr(3) has it. */
static bool is_implicit(const void *addr, size_t length, unsigned access)
{
    return (access & IBV_ACCESS_ON_DEMAND) && !addr && length == SIZE_MAX;
}

/* 0, or an errno where the memory cannot be registered so. On demand nothing need be there yet. */
static int check_memory(void *addr, size_t length, uint64_t iova, unsigned access)
{
    if (!(access & IBV_ACCESS_ON_DEMAND)) return pages_probe(addr, length, mr_writes(access));
    if (!pages_on_demand()) return EOPNOTSUPP;
    if (is_implicit(addr, length, access) && (iova || (access & IBV_ACCESS_HUGETLB))) return EINVAL;
    return 0;
}

/* Of the optional flags (they may be ignored, says ibv_reg_mr(3)) one has a meaning here. */
static unsigned without_hints(unsigned access)
{
    return access & ~(IBV_ACCESS_OPTIONAL_RANGE & ~(unsigned)IBV_ACCESS_RELAXED_ORDERING);
}

static int in_adapter(struct rb_mr *mr, const struct rb_pd *pd, const struct mr_memory *m)
{
    struct function *f = rb_context(pd->ibv.context)->f;
    int rc = function_lock(f);
    if (rc) return rc;
    rc = m->kind == MR_NULL ? hca_mr_reg_null(f->hca, pd->num, &mr->hca)
                            : hca_mr_reg(f->hca, pd->num, m->addr, m->length, m->iova,
                                         without_hints(m->access), &mr->hca);
    function_unlock(f);
    return rc;
}

struct rb_mr *mr_register(struct ibv_pd *ibv, const struct mr_memory *m)
{
    struct rb_pd *pd = rb_pd(ibv);
    if (!pd) return fail_with(EINVAL);
    struct rb_mr *mr = calloc(1, sizeof *mr);
    if (!mr) return fail_with(ENOMEM);
    int rc = in_adapter(mr, pd, m);
    if (rc) {
        free(mr);
        return fail_with(rc);
    }
    atomic_fetch_add(&pd->refs, 1);
    mr->tag = tag_new(rb_context(ibv->context), RB_MR);
    mr->kind = m->kind;
    mr->iova = m->iova;
    mr->access = m->access;
    mr->ibv = (struct ibv_mr){.context = ibv->context,
                              .pd = ibv,
                              .length = m->length,
                              .handle = mr->tag.id,
                              .lkey = hca_mr_lkey(mr->hca),
                              .rkey = hca_mr_rkey(mr->hca)};
    export_add(rb_context(ibv->context)->f, &mr->export, mr->tag);
    return mr;
}

static struct ibv_mr *reg(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
                          unsigned access)
{
    int rc = check_memory(addr, length, iova, access);
    if (rc) return fail_with(rc);
    struct rb_mr *mr = mr_register(pd, &(struct mr_memory){addr, length, iova, access, MR_MEMORY});
    if (!mr) return NULL;
    mr->ibv.addr = addr;
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

struct ibv_mr *rb_alloc_null_mr(struct ibv_pd *pd)
{
    struct rb_mr *mr = mr_register(pd, &(struct mr_memory){.length = SIZE_MAX, .kind = MR_NULL});
    if (!mr) return NULL;
    mr->ibv.rkey = 0; /* it is not exposed as one */
    return &mr->ibv;
}

/* ---- and back ---------------------------------------------------------------------------- */

EXPORT int ibv_dereg_mr(struct ibv_mr *ibv)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_dereg_mr, "IBVERBS_1.1")(ibv);

    struct rb_mr *mr = rb_mr(ibv);
    if (!mr) return verb_result(EINVAL);
    struct function *f = rb_context(ibv->context)->f;
    /* An imported one goes alone: the region ends with its own handle. In a forked child, too: the
     * region stays with the parent. */
    if (mr->kind != MR_IMPORTED && function_lock(f) == 0) {
        int rc = -hca_mr_dereg(f->hca, mr->hca);
        function_unlock(f);
        if (rc) return verb_result(rc);
    }
    export_del(f, &mr->export);
    struct rb_pd *pd = rb_pd(ibv->pd);
    if (pd) atomic_fetch_sub(&pd->refs, 1);
    if (mr->dm) atomic_fetch_sub(&mr->dm->refs, 1);
    if (mr->mapping) munmap(mr->mapping, mr->mapping_len);
    mr->tag.magic = 0;
    free(mr);
    return 0;
}

/* ---- changing ---------------------------------------------------------------------------- */

/* Nothing has changed: the old region is as good as it was. */
static int input_error(int error)
{
    errno = error;
    return IBV_REREG_MR_ERR_INPUT;
}

static int rereg(struct rb_mr *mr, const struct mr_memory *m, const struct rb_pd *pd)
{
    struct function *f = rb_context(mr->ibv.context)->f;
    int rc = function_lock(f);
    if (rc) return rc;
    rc = -hca_mr_rereg(f->hca, mr->hca, pd->num, m->addr, m->length, m->iova,
                       without_hints(m->access));
    function_unlock(f);
    return rc;
}

/* The keys stay. */
EXPORT int ibv_rereg_mr(struct ibv_mr *ibv, int flags, struct ibv_pd *pd, void *addr, size_t length,
                        int access)
{
    if (!context_is_ours(ibv->context))
        return REAL(ibv_rereg_mr, "IBVERBS_1.1")(ibv, flags, pd, addr, length, access);

    struct rb_mr *mr = rb_mr(ibv);
    if (!mr || mr->kind != MR_MEMORY) return input_error(EINVAL);
    if (!flags || (flags & ~IBV_REREG_MR_FLAGS_SUPPORTED)) return input_error(EINVAL);
    if ((flags & IBV_REREG_MR_CHANGE_TRANSLATION) && (!addr || !length)) return input_error(EINVAL);
    if (access && !(flags & IBV_REREG_MR_CHANGE_ACCESS)) return input_error(EINVAL);
    if (!(flags & IBV_REREG_MR_CHANGE_PD)) pd = ibv->pd;
    if (!rb_pd(pd) || pd->context != ibv->context) return input_error(EINVAL);

    struct mr_memory m = {ibv->addr, ibv->length, mr->iova, mr->access, MR_MEMORY};
    if (flags & IBV_REREG_MR_CHANGE_TRANSLATION) {
        m.addr = addr;
        m.length = length;
        m.iova = (uintptr_t)addr;
    }
    if (flags & IBV_REREG_MR_CHANGE_ACCESS) m.access = (unsigned)access;
    int rc = check_memory(m.addr, m.length, m.iova, m.access);
    if (rc == 0) rc = rereg(mr, &m, rb_pd(pd));
    if (rc) return input_error(rc);
    atomic_fetch_add(&rb_pd(pd)->refs, 1);
    atomic_fetch_sub(&rb_pd(ibv->pd)->refs, 1);
    ibv->pd = pd;
    ibv->addr = m.addr;
    ibv->length = m.length;
    mr->iova = m.iova;
    mr->access = m.access;
    return 0;
}
