/* What <infiniband/verbs.h> has since rdma-core 44, whose headers we build with: declared here where
 * the installed ones do not have it. Layouts are ABI and stay as they are. */
#ifndef RBOND_VERBS_NEWER_H
#define RBOND_VERBS_NEWER_H

#include <infiniband/verbs.h>
#include <stddef.h>

#ifndef HAVE_IBV_WR_FLUSH /* rdma-core 45 */

enum {
    IBV_WC_FLUSH = 8,
    IBV_WR_FLUSH = 14,
    IBV_ACCESS_FLUSH_GLOBAL = 1 << 8,
    IBV_ACCESS_FLUSH_PERSISTENT = 1 << 9,
    IBV_QP_EX_WITH_FLUSH = 1 << 11,
};

enum ibv_placement_type { IBV_FLUSH_GLOBAL = 1u << 0, IBV_FLUSH_PERSISTENT = 1u << 1 };

enum ibv_selectivity_level { IBV_FLUSH_RANGE, IBV_FLUSH_MR };

#endif

#ifndef HAVE_IBV_ODP_SUPPORT_FLUSH /* rdma-core 58 */

enum {
    IBV_ODP_SUPPORT_FLUSH = 1 << 6,
    IBV_ODP_SUPPORT_ATOMIC_WRITE = 1 << 7,
};

#endif

/* struct ibv_qp_ex has grown by it at its end, where `send_ops_flags` has asked for it. */
#define WR_FLUSH_OFFSET (offsetof(struct ibv_qp_ex, wr_atomic_write) + sizeof(void *))
typedef void wr_flush_fn(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t remote_addr, size_t len,
                         uint8_t type, uint8_t level);

/* Bits of device_cap_flags_ex that only the kernel's headers name: IB_UVERBS_DEVICE_*. */
#define DEVICE_FLUSH_GLOBAL (UINT64_C(1) << 38)
#define DEVICE_ATOMIC_WRITE (UINT64_C(1) << 40)

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
