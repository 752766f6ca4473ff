/* The send queue: work requests are checked and copied here once, whichever API posted them. */
#include "hca/sq.h"
#include "base/must.h"
#include "hca/qp.h"
#include <errno.h>
#include <stdlib.h>

static size_t ring_bytes(const struct hca_qp_cap *cap, uint32_t *entries)
{
    *entries = 1;
    while (*entries < cap->max_send_wr) *entries *= 2;
    return *entries * sizeof(struct wqe);
}

size_t sq_bytes(const struct hca_qp_cap *cap)
{
    uint32_t entries;
    size_t ring = ring_bytes(cap, &entries);
    return ring + (size_t)entries * cap->max_inline_data;
}

int sq_init(struct sq *sq, const struct hca_qp_cap *cap, void *memory)
{
    uint32_t entries;
    size_t ring = ring_bytes(cap, &entries);

    *sq = (struct sq){.size = cap->max_send_wr,
                      .max_sge = cap->max_send_sge,
                      .max_inline = cap->max_inline_data,
                      .mask = entries - 1};
    if (!memory) memory = sq->own = calloc(1, sq_bytes(cap));
    if (!memory) return -ENOMEM;
    sq->ring = memory;
    if (sq->max_inline) sq->inline_room = (uint8_t *)memory + ring;
    return 0;
}

void sq_fini(struct sq *sq)
{
    free(sq->own);
    *sq = (struct sq){0};
}

void sq_clear(struct sq *sq) { sq->head = sq->next = sq->tail = 0; }

static void copy_inline(const struct sq *sq, struct wqe *wqe, const struct hca_send_wr *wr)
{
    size_t slot = (size_t)(wqe - sq->ring);
    wqe->inline_data = sq->inline_room ? sq->inline_room + slot * sq->max_inline : NULL;
    uint8_t *to = wqe->inline_data;
    for (uint32_t i = 0; i < wr->num_sge; i++) {
        if (wr->sge[i].length == 0) continue;
        memcpy(to, (const void *)(uintptr_t)wr->sge[i].addr, wr->sge[i].length);
        to += wr->sge[i].length;
    }
}

int sq_push(struct sq *sq, const struct hca_send_wr *wr)
{
    if (wr->num_sge > sq->max_sge) return -EINVAL;
    uint64_t length = 0; /* at most 16 times 2^32: no wrap */
    for (uint32_t i = 0; i < wr->num_sge; i++) length += wr->sge[i].length;
    if (length > HCA_MAX_MSG) return -EINVAL;
    if ((wr->flags & HCA_SEND_INLINE) && length > sq->max_inline) return -EINVAL;
    if (sq->tail - sq->head >= sq->size) return -ENOMEM;

    struct wqe *wqe = sq_at(sq, sq->tail);
    wqe->wr = *wr;
    wqe->length = wr->opcode == HCA_WR_ATOMIC_WRITE ? sizeof wr->atomic_value : (uint32_t)length;
    wqe->npsn = 0;
    wqe->done = false;
    if (wr->flags & HCA_SEND_INLINE) {
        copy_inline(sq, wqe, wr);
        wqe->wr.num_sge = 0;
    } else {
        for (uint32_t i = 0; i < wr->num_sge; i++) wqe->sge[i] = wr->sge[i];
    }
    wqe->wr.sge = wqe->sge;
    sq->tail++;
    return 0;
}

int wqe_gather(const struct hca_qp *qp, const struct wqe *wqe, uint32_t offset, uint32_t len,
               struct iovec iov[HCA_MAX_SGE])
{
    must((uint64_t)offset + len <= wqe->length);
    if (len == 0) return 0;
    if (wqe->wr.flags & HCA_SEND_INLINE) {
        iov[0] = (struct iovec){wqe->inline_data + offset, len};
        return 1;
    }
    int n = 0;
    for (const struct hca_sge *sge = wqe->sge; len > 0; sge++) {
        if (offset >= sge->length) {
            offset -= sge->length;
            continue;
        }
        uint32_t piece = sge->length - offset < len ? sge->length - offset : len;
        uint8_t *at = mr_at(qp->hca, qp->pd, sge->lkey, sge->addr + offset, piece, 0);
        if (!at) return -HCA_WC_LOC_PROT_ERR;
        iov[n++] = (struct iovec){at, piece};
        len -= piece;
        offset = 0;
    }
    return n;
}

int wqe_scatter(const struct hca_qp *qp, const struct wqe *wqe, uint32_t offset, const void *bytes,
                uint32_t len)
{
    if ((uint64_t)offset + len > wqe->length) return -HCA_WC_LOC_LEN_ERR;
    const uint8_t *from = bytes;
    for (const struct hca_sge *sge = wqe->sge; len > 0; sge++) {
        if (offset >= sge->length) {
            offset -= sge->length;
            continue;
        }
        uint32_t piece = sge->length - offset < len ? sge->length - offset : len;
        uint8_t *at =
            mr_at(qp->hca, qp->pd, sge->lkey, sge->addr + offset, piece, HCA_ACCESS_LOCAL_WRITE);
        if (!at) return -HCA_WC_LOC_PROT_ERR;
        memcpy(at, from, piece);
        from += piece;
        len -= piece;
        offset = 0;
    }
    return 0;
}

static enum hca_wc_opcode wc_opcode(enum hca_wr_opcode opcode)
{
    switch (opcode) {
    case HCA_WR_RDMA_WRITE:
    case HCA_WR_RDMA_WRITE_WITH_IMM: return HCA_WC_RDMA_WRITE;
    case HCA_WR_SEND:
    case HCA_WR_SEND_WITH_IMM:
    case HCA_WR_SEND_WITH_INV: return HCA_WC_SEND;
    case HCA_WR_RDMA_READ: return HCA_WC_RDMA_READ;
    case HCA_WR_ATOMIC_CMP_AND_SWP: return HCA_WC_COMP_SWAP;
    case HCA_WR_ATOMIC_FETCH_AND_ADD: return HCA_WC_FETCH_ADD;
    case HCA_WR_LOCAL_INV: return HCA_WC_LOCAL_INV;
    case HCA_WR_BIND_MW: return HCA_WC_BIND_MW;
    case HCA_WR_FLUSH: return HCA_WC_FLUSH;
    case HCA_WR_ATOMIC_WRITE: return HCA_WC_ATOMIC_WRITE;
    }
    must(!"a posted opcode is one of these");
    return HCA_WC_SEND;
}

void wqe_complete(struct hca_qp *qp, enum hca_wc_status status, when_t now)
{
    struct sq *sq = &qp->sq;
    must(sq->head != sq->tail);
    const struct wqe *wqe = sq_at(sq, sq->head);
    bool signalled = qp->sig_all || (wqe->wr.flags & HCA_SEND_SIGNALED);
    struct hca_wc wc = {
        .wr_id = wqe->wr.wr_id,
        .status = status,
        .opcode = wc_opcode(wqe->wr.opcode),
        .byte_len = wqe->length,
        .qpn = qp->qpn,
    };
    if (sq->next == sq->head) sq->next++;
    sq->head++;
    if (signalled || status != HCA_WC_SUCCESS) cq_push(qp->send_cq, &wc, false, now);
}
