/* What kinds of memory become regions; mr.c makes them all. */
#ifndef RBOND_VERBS_MR_H
#define RBOND_VERBS_MR_H

#include "verbs/object.h"

struct mr_memory {
    void *addr;
    size_t length;
    uint64_t iova;
    unsigned access;
    enum rb_mr_kind kind;
};

/* Registers memory that is known to be there. NULL with errno set. What stands in ibv_mr.addr, and
 * what keeps the memory there (rb_mr.dm, .mapping), is the caller's to set. */
struct rb_mr *mr_register(struct ibv_pd *pd, const struct mr_memory *memory);
/* Does such a region's user, here or there, change its memory? */
bool mr_writes(unsigned access);

/* dmabuf.c */
struct ibv_mr *dmabuf_register(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova,
                               int fd, unsigned access);

/* mr.c, dm.c, odp.c: struct verbs_context */
struct ibv_mr *rb_alloc_null_mr(struct ibv_pd *pd);
int rb_advise_mr(struct ibv_pd *pd, enum ibv_advise_mr_advice advice, uint32_t flags,
                 struct ibv_sge *sg_list, uint32_t num_sge);
struct ibv_dm *rb_alloc_dm(struct ibv_context *context, struct ibv_alloc_dm_attr *attr);
int rb_free_dm(struct ibv_dm *dm);
struct ibv_mr *rb_reg_dm_mr(struct ibv_pd *pd, struct ibv_dm *dm, uint64_t offset, size_t length,
                            unsigned access);
/* Device memory that one context may have, and one piece of it. */
#define DM_MAX ((size_t)64 << 20)

/* mw.c: struct ibv_context_ops */
struct ibv_mw *rb_alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type);
int rb_bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind);
int rb_dealloc_mw(struct ibv_mw *mw);
/* A type 2 window's bind as the adapter wants it, whichever API posts it. 0 or an errno. */
int mw_convert(struct ibv_mw *mw, uint32_t rkey, const struct ibv_mw_bind_info *info,
               struct hca_send_wr *wr);

#endif
