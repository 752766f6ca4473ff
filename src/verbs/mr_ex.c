/* Registration as rdma-core has it since 1.15: by one record of attributes, with DMA handles and
 * buffers that the device allocates. A DMA handle is a hint how a PCIe device should place data
 * (ibv_alloc_dmah(3)): there is none here, and the hint has no effect. */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/mr.h"
#include "verbs/newer.h"
#include "verbs/real.h"
#include <stdlib.h>
#include <sys/mman.h>

#undef ibv_reg_mr

/* ---- DMA handles ------------------------------------------------------------------------- */

struct rb_dmah {
    struct ibv_dmah ibv;
    enum rb_magic magic;
};

static struct rb_dmah *rb_dmah(struct ibv_dmah *ibv)
{
    struct rb_dmah *dmah = container_of(ibv, struct rb_dmah, ibv);
    return ibv && dmah->magic == RB_DMAH ? dmah : NULL;
}

EXPORT struct ibv_dmah *ibv_alloc_dmah(struct ibv_context *context, struct ibv_dmah_init_attr *attr)
{
    const uint32_t tag = IBV_DMAH_INIT_ATTR_MASK_CPU_ID | IBV_DMAH_INIT_ATTR_MASK_TPH_MEM_TYPE;

    if (!context_is_ours(context)) return REAL(ibv_alloc_dmah, "IBVERBS_1.15")(context, attr);
    if (attr->comp_mask & ~(tag | IBV_DMAH_INIT_ATTR_MASK_PH)) return fail_with(EOPNOTSUPP);
    /* The hint itself is a must; who names a CPU names a type of memory. */
    if (!(attr->comp_mask & IBV_DMAH_INIT_ATTR_MASK_PH) || attr->ph > 3) return fail_with(EINVAL);
    if ((attr->comp_mask & tag) && ((attr->comp_mask & tag) != tag || attr->tph_mem_type > 1))
        return fail_with(EINVAL);
    struct rb_dmah *dmah = calloc(1, sizeof *dmah);
    if (!dmah) return fail_with(ENOMEM);
    dmah->magic = RB_DMAH;
    dmah->ibv.context = context;
    return &dmah->ibv;
}

EXPORT int ibv_dealloc_dmah(struct ibv_dmah *ibv)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_dealloc_dmah, "IBVERBS_1.15")(ibv);
    struct rb_dmah *dmah = rb_dmah(ibv);
    if (!dmah) return verb_result(EINVAL);
    dmah->magic = 0;
    free(dmah);
    return 0;
}

/* ---- buffers ----------------------------------------------------------------------------- */

/* Begins as libibverbs' own does, which looks for the PD there. */
struct rb_buf {
    void *addr;
    size_t size;
    struct ibv_pd *pd;
    int dmabuf_fd; /* -1: ordinary memory */
    enum rb_magic magic;
};

static struct rb_buf *rb_buf(struct ibv_buf *ibv)
{
    struct rb_buf *buf = (struct rb_buf *)ibv;
    return buf && context_is_ours(buf->pd->context) && buf->magic == RB_BUF ? buf : NULL;
}

static bool buf_is_ours(struct ibv_buf *ibv)
{
    return context_is_ours(((struct rb_buf *)ibv)->pd->context);
}

EXPORT void *ibv_alloc_buf(struct ibv_pd *pd, size_t size, struct ibv_buf **out)
{
    if (!context_is_ours(pd->context)) return REAL(ibv_alloc_buf, "IBVERBS_1.17")(pd, size, out);
    if (!rb_pd(pd) || size == 0) return fail_with(EINVAL);
    struct rb_buf *buf = calloc(1, sizeof *buf);
    if (!buf) return fail_with(ENOMEM);
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        free(buf);
        return fail_with(ENOMEM);
    }
    *buf = (struct rb_buf){at, size, pd, -1, RB_BUF};
    atomic_fetch_add(&rb_pd(pd)->refs, 1);
    *out = (struct ibv_buf *)buf;
    return at;
}

EXPORT void ibv_free_buf(struct ibv_buf *ibv)
{
    if (!buf_is_ours(ibv)) {
        REAL(ibv_free_buf, "IBVERBS_1.17")(ibv);
        return;
    }
    struct rb_buf *buf = rb_buf(ibv);
    if (!buf) return;
    atomic_fetch_sub(&rb_pd(buf->pd)->refs, 1);
    munmap(buf->addr, buf->size);
    buf->magic = 0;
    free(buf);
}

EXPORT int ibv_export_buf_dmabuf_fd(struct ibv_buf *ibv)
{
    if (!buf_is_ours(ibv)) return REAL(ibv_export_buf_dmabuf_fd, "IBVERBS_1.18")(ibv);
    errno = ENODATA; /* it is ordinary memory */
    return -1;
}

/* ---- registering ------------------------------------------------------------------------- */

/* Is [addr, addr + length) within the buffer, and the PD its own? */
static bool lies_in(const struct ibv_mr_init_attr *a, struct ibv_pd *pd)
{
    const struct rb_buf *buf = rb_buf(a->buf);
    if (!buf || buf->pd != pd || !(a->comp_mask & IBV_REG_MR_MASK_ADDR)) return false;
    uint64_t offset = (uintptr_t)a->addr - (uintptr_t)buf->addr;
    return offset <= buf->size && a->length <= buf->size - offset;
}

static struct ibv_mr *reg_ex(struct ibv_pd *pd, const struct ibv_mr_init_attr *a)
{
    const uint64_t fd = IBV_REG_MR_MASK_FD | IBV_REG_MR_MASK_FD_OFFSET;
    const uint64_t source = a->comp_mask & (fd | IBV_REG_MR_MASK_ADDR);
    const bool iova = a->comp_mask & IBV_REG_MR_MASK_IOVA;

    if (a->comp_mask & ~(fd | IBV_REG_MR_MASK_ADDR | IBV_REG_MR_MASK_IOVA | IBV_REG_MR_MASK_DMAH |
                         IBV_REG_MR_MASK_BUF))
        return fail_with(EOPNOTSUPP);
    if ((a->comp_mask & IBV_REG_MR_MASK_DMAH) &&
        (!rb_dmah(a->dmah) || a->dmah->context != pd->context))
        return fail_with(EINVAL);
    if ((a->comp_mask & IBV_REG_MR_MASK_BUF) && !lies_in(a, pd)) return fail_with(EINVAL);
    if (source == IBV_REG_MR_MASK_ADDR)
        return ibv_reg_mr_iova2(pd, a->addr, a->length, iova ? a->iova : (uintptr_t)a->addr,
                                (unsigned)a->access);
    if (source != fd || !iova) return fail_with(EINVAL);
    return dmabuf_register(pd, a->fd_offset, a->length, a->iova, a->fd, (unsigned)a->access);
}

EXPORT struct ibv_mr *ibv_reg_mr_ex(struct ibv_pd *pd, struct ibv_mr_init_attr *attr)
{
    if (!context_is_ours(pd->context)) return REAL(ibv_reg_mr_ex, "IBVERBS_1.15")(pd, attr);
    return reg_ex(pd, attr);
}

EXPORT struct ibv_mr *ibv_reg_buf_mr(struct ibv_pd *pd, struct ibv_buf *buf, void *addr,
                                     size_t length, int access)
{
    if (!context_is_ours(pd->context))
        return REAL(ibv_reg_buf_mr, "IBVERBS_1.17")(pd, buf, addr, length, access);
    return reg_ex(
        pd, &(struct ibv_mr_init_attr){.length = length,
                                       .access = access,
                                       .comp_mask = IBV_REG_MR_MASK_BUF | IBV_REG_MR_MASK_ADDR,
                                       .addr = addr,
                                       .buf = buf});
}
