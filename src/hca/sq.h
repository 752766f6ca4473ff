/* The send queue: a ring of WQEs. [head, next) are started and incomplete, [next, tail) wait.
 * Indices only grow; sq_at masks. A WQE holds its own copy of the SGE list and of inline bytes. */
#ifndef RBOND_HCA_SQ_H
#define RBOND_HCA_SQ_H

#include "hca/hca.h"

struct wqe {
    struct hca_send_wr wr; /* wr.sge points to sge[] below */
    struct hca_sge sge[HCA_MAX_SGE];
    uint8_t *inline_data;  /* room of cap.max_inline_data bytes; in use with HCA_SEND_INLINE */
    uint32_t length;       /* bytes of payload: all SGEs, or of ATOMIC WRITE */
    /* the requester's, set when the WQE is started */
    psn_t first_psn;
    uint32_t npsn;         /* PSNs it takes: packets sent, or responses awaited */
    bool done;             /* acknowledged, waits for its elders to complete */
};

struct sq {
    struct wqe *ring;
    uint8_t *inline_room;
    void *own;                /* what sq_fini frees; NULL where the memory is the caller's */
    uint32_t mask;            /* entries of the ring - 1 */
    uint32_t size, max_sge, max_inline;
    uint32_t head, next, tail;
};

/* What a send queue of these capacities takes. */
size_t sq_bytes(const struct hca_qp_cap *cap);
/* In `memory`: sq_bytes() zeroes, aligned as malloc does; NULL: memory of its own. */
int sq_init(struct sq *sq, const struct hca_qp_cap *cap, void *memory);
void sq_fini(struct sq *sq);
static inline struct wqe *sq_at(const struct sq *sq, uint32_t index)
{
    return &sq->ring[index & sq->mask];
}
static inline bool sq_is_empty(const struct sq *sq) { return sq->head == sq->tail; }
/* -ENOMEM full; -EINVAL SGE count or inline length. */
int sq_push(struct sq *sq, const struct hca_send_wr *wr);
void sq_clear(struct sq *sq);
/* Executed by the adapter alone, without a packet: it takes no PSN. */
static inline bool wqe_is_local(const struct wqe *wqe)
{
    return wqe->wr.opcode == HCA_WR_LOCAL_INV || wqe->wr.opcode == HCA_WR_BIND_MW;
}

struct hca_qp;
/* Fills iov with `len` bytes of the WQE's payload from `offset`; returns the count of pieces, or a
 * negated hca_wc_status (-HCA_WC_LOC_PROT_ERR) where an SGE's key, range or access is wrong. */
int wqe_gather(const struct hca_qp *qp, const struct wqe *wqe, uint32_t offset, uint32_t len,
               struct iovec iov[HCA_MAX_SGE]);
/* Copies `len` bytes into the WQE's SGEs from `offset` (READ and atomic responses): 0 or as
 * above. */
int wqe_scatter(const struct hca_qp *qp, const struct wqe *wqe, uint32_t offset, const void *bytes,
                uint32_t len);
/* Completes the WQE at sq->head with this status and steps head on. Writes a CQE if it is
 * signalled, the QP signals all, or the status is an error. */
void wqe_complete(struct hca_qp *qp, enum hca_wc_status status, when_t now);

#endif
