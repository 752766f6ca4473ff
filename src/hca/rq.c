/* The receive queue: a ring of receive WQEs, a QP's own or an SRQ's. */
#include "hca/rq.h"
#include "hca/qp.h"
#include <errno.h>
#include <stdlib.h>

static uint32_t entries_for(uint32_t max_wr)
{
    uint32_t entries = 1;
    while (entries < max_wr) entries *= 2;
    return entries;
}

size_t rq_bytes(uint32_t max_wr) { return entries_for(max_wr) * sizeof(struct rwqe); }

/* Copies what counts: the SGE array is long, and mostly unused. */
static void rwqe_copy(struct rwqe *to, const struct rwqe *from)
{
    to->wr_id = from->wr_id;
    to->num_sge = from->num_sge;
    to->length = from->length;
    memcpy(to->sge, from->sge, from->num_sge * sizeof *from->sge);
}

int rq_init(struct rq *rq, uint32_t max_wr, uint32_t max_sge, void *memory)
{
    *rq = (struct rq){.size = max_wr, .max_sge = max_sge, .mask = entries_for(max_wr) - 1};
    if (!memory) memory = rq->own = calloc(1, rq_bytes(max_wr));
    rq->ring = memory;
    return memory ? 0 : -ENOMEM;
}

void rq_fini(struct rq *rq)
{
    free(rq->own);
    *rq = (struct rq){0};
}

int rq_resize(struct rq *rq, uint32_t max_wr)
{
    uint32_t count = rq_count(rq);
    if (max_wr < count) return -EINVAL;
    struct rwqe *ring = calloc(1, rq_bytes(max_wr));
    if (!ring) return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) rwqe_copy(&ring[i], &rq->ring[(rq->head + i) & rq->mask]);
    free(rq->own);
    rq->ring = rq->own = ring;
    rq->mask = entries_for(max_wr) - 1;
    rq->size = max_wr;
    rq->head = 0;
    rq->tail = count;
    return 0;
}

int rq_push(struct rq *rq, const struct hca_recv_wr *wr)
{
    if (wr->num_sge > rq->max_sge) return -EINVAL;
    if (rq_count(rq) >= rq->size) return -ENOMEM;
    struct rwqe *rwqe = &rq->ring[rq->tail & rq->mask];
    uint64_t length = 0;
    for (uint32_t i = 0; i < wr->num_sge; i++) {
        rwqe->sge[i] = wr->sge[i];
        length += wr->sge[i].length;
    }
    rwqe->wr_id = wr->wr_id;
    rwqe->num_sge = wr->num_sge;
    /* No message is longer than HCA_MAX_MSG: room beyond it cannot be used. */
    rwqe->length = length < HCA_MAX_MSG ? (uint32_t)length : HCA_MAX_MSG;
    rq->tail++;
    return 0;
}

bool rq_take(struct rq *rq, struct rwqe *out)
{
    const struct rwqe *rwqe = rq_peek(rq);
    if (!rwqe) return false;
    rwqe_copy(out, rwqe);
    rq->head++;
    return true;
}

void rwqe_fail(struct hca_qp *qp, const struct rwqe *rwqe, enum hca_wc_status status, when_t now)
{
    struct hca_wc wc = {
        .wr_id = rwqe->wr_id, .status = status, .opcode = HCA_WC_RECV, .qpn = qp->qpn};
    cq_push(qp_recv_cq(qp), &wc, false, now);
}

int rwqe_scatter(const struct hca_qp *qp, const struct rwqe *rwqe, uint32_t offset,
                 const void *bytes, uint32_t len)
{
    if ((uint64_t)offset + len > rwqe->length) return -HCA_WC_LOC_LEN_ERR;
    uint32_t pd = qp->srq ? qp->srq->pd : qp->pd;
    const uint8_t *from = bytes;
    for (const struct hca_sge *sge = rwqe->sge; len > 0; sge++) {
        if (offset >= sge->length) {
            offset -= sge->length;
            continue;
        }
        uint32_t piece = sge->length - offset < len ? sge->length - offset : len;
        uint8_t *at =
            mr_at(qp->hca, pd, sge->lkey, sge->addr + offset, piece, HCA_ACCESS_LOCAL_WRITE);
        if (!at) return -HCA_WC_LOC_PROT_ERR;
        memcpy(at, from, piece);
        from += piece;
        len -= piece;
        offset = 0;
    }
    return 0;
}
