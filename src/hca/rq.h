/* The receive queue, and the body of an SRQ: a ring of receive WQEs. */
#ifndef RBOND_HCA_RQ_H
#define RBOND_HCA_RQ_H

#include "hca/hca.h"

struct rwqe {
    uint64_t wr_id;
    uint32_t num_sge;
    uint32_t length; /* bytes of room, all SGEs */
    struct hca_sge sge[HCA_MAX_SGE];
};

struct rq {
    struct rwqe *ring;
    void *own; /* what is freed with it; NULL where the memory is the caller's */
    uint32_t mask, size, max_sge;
    uint32_t head, tail;
};

/* What a queue of so many takes. */
size_t rq_bytes(uint32_t max_wr);
/* In `memory`: rq_bytes() zeroes, aligned as malloc does; NULL: memory of its own. */
int rq_init(struct rq *rq, uint32_t max_wr, uint32_t max_sge, void *memory);
void rq_fini(struct rq *rq);
static inline uint32_t rq_count(const struct rq *rq) { return rq->tail - rq->head; }
int rq_push(struct rq *rq, const struct hca_recv_wr *wr);
bool rq_take(struct rq *rq, struct rwqe *out);
static inline const struct rwqe *rq_peek(const struct rq *rq)
{
    return rq->head == rq->tail ? NULL : &rq->ring[rq->head & rq->mask];
}
/* Gives the ring room for at least max_wr WQEs, in memory of its own; those inside stay. -EINVAL
 * below their count. */
int rq_resize(struct rq *rq, uint32_t max_wr);

struct hca_qp;
/* Completes a receive WQE that gave no data: an error, or a flush. */
void rwqe_fail(struct hca_qp *qp, const struct rwqe *rwqe, enum hca_wc_status status, when_t now);
/* Copies `len` bytes into the receive WQE's SGEs from `offset`: 0, or a negated hca_wc_status
 * (LOC_LEN_ERR beyond its end, LOC_PROT_ERR for a bad key or access). */
int rwqe_scatter(const struct hca_qp *qp, const struct rwqe *rwqe, uint32_t offset,
                 const void *bytes, uint32_t len);

#endif
