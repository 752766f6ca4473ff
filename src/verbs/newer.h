/* What <infiniband/verbs.h> has since rdma-core 44, whose headers we build with: declared here where
 * the installed ones do not have it. Layouts are ABI and stay as they are. */
#ifndef RBOND_VERBS_NEWER_H
#define RBOND_VERBS_NEWER_H

#include <infiniband/verbs.h>

#ifndef HAVE_IBV_REG_MR_EX /* 1.15: rdma-core 58 */

struct ibv_dmah {
    struct ibv_context *context;
};

enum ibv_dmah_init_attr_mask {
    IBV_DMAH_INIT_ATTR_MASK_CPU_ID = 1 << 0,
    IBV_DMAH_INIT_ATTR_MASK_PH = 1 << 1,
    IBV_DMAH_INIT_ATTR_MASK_TPH_MEM_TYPE = 1 << 2,
};

struct ibv_dmah_init_attr {
    uint32_t comp_mask;
    uint32_t cpu_id;
    uint8_t ph;
    uint8_t tph_mem_type;
};

struct ibv_buf;

enum ibv_mr_init_attr_mask {
    IBV_REG_MR_MASK_IOVA = 1 << 0,
    IBV_REG_MR_MASK_ADDR = 1 << 1,
    IBV_REG_MR_MASK_FD = 1 << 2,
    IBV_REG_MR_MASK_FD_OFFSET = 1 << 3,
    IBV_REG_MR_MASK_DMAH = 1 << 4,
};

struct ibv_mr_init_attr {
    size_t length;
    int access;
    uint64_t comp_mask;
    uint64_t iova;
    void *addr;
    int fd;
    uint64_t fd_offset;
    struct ibv_dmah *dmah;
    struct ibv_buf *buf; /* since 1.17, where comp_mask says so */
};

struct ibv_dmah *ibv_alloc_dmah(struct ibv_context *context, struct ibv_dmah_init_attr *attr);
int ibv_dealloc_dmah(struct ibv_dmah *dmah);
struct ibv_mr *ibv_reg_mr_ex(struct ibv_pd *pd, struct ibv_mr_init_attr *attr);

#endif
#ifndef HAVE_IBV_DM_EXPORT_DMABUF_FD /* 1.16 */

int ibv_dm_export_dmabuf_fd(struct ibv_dm *dm);

#endif
#ifndef HAVE_IBV_ALLOC_BUF /* 1.17 and 1.18 */

#define IBV_REG_MR_MASK_BUF (1 << 5)

void *ibv_alloc_buf(struct ibv_pd *pd, size_t size, struct ibv_buf **buf);
void ibv_free_buf(struct ibv_buf *buf);
struct ibv_mr *ibv_reg_buf_mr(struct ibv_pd *pd, struct ibv_buf *buf, void *addr, size_t length,
                              int access);
int ibv_export_buf_dmabuf_fd(struct ibv_buf *buf);

#endif
#endif
