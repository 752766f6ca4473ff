/* Shared receive queues (IBTA 10.2.9). The limit event fires once: when a WQE is taken and fewer
 * than the limit remain, the limit is disarmed until ibv_modify_srq(3) sets it again. */
#include "hca/srq.h"
#include "hca/qp.h"
#include <errno.h>
#include <stdlib.h>

int hca_srq_create(struct hca *hca, uint32_t pd, uint32_t *max_wr, uint32_t *max_sge,
                   uint32_t limit, void *owner, struct hca_srq **out)
{
    if (*max_wr == 0 || *max_wr > HCA_MAX_WR || *max_sge > HCA_MAX_SGE || limit > *max_wr)
        return -EINVAL;
    struct hca_srq *srq = calloc(1, sizeof *srq);
    if (!srq) return -ENOMEM;
    if (*max_sge == 0) *max_sge = 1;
    if (rq_init(&srq->rq, *max_wr, *max_sge) < 0) {
        free(srq);
        return -ENOMEM;
    }
    srq->hca = hca;
    srq->pd = pd;
    srq->limit = limit;
    srq->events.owner = owner;
    list_add_tail(&hca->srqs, &srq->all);
    *out = srq;
    return 0;
}

int hca_srq_modify(struct hca *hca, struct hca_srq *srq, const uint32_t *max_wr,
                   const uint32_t *limit)
{
    uint32_t size = max_wr ? *max_wr : srq->rq.size;
    if (size == 0 || size > HCA_MAX_WR || (limit && *limit > size)) return -EINVAL;
    if (max_wr) {
        int err = rq_resize(&srq->rq, size);
        if (err < 0) return err;
    }
    if (limit) srq->limit = *limit;
    return 0;
}

void hca_srq_query(const struct hca_srq *srq, uint32_t *max_wr, uint32_t *max_sge, uint32_t *limit)
{
    *max_wr = srq->rq.size;
    *max_sge = srq->rq.max_sge;
    *limit = srq->limit;
}

int hca_srq_destroy(struct hca *hca, struct hca_srq *srq)
{
    if (srq->users) return -EBUSY;
    event_forget(&srq->events);
    list_del(&srq->all);
    rq_fini(&srq->rq);
    free(srq);
    return 0;
}

int hca_srq_post(struct hca *hca, struct hca_srq *srq, const struct hca_recv_wr *wr)
{
    return rq_push(&srq->rq, wr);
}

bool srq_take(struct hca_srq *srq, struct rwqe *out)
{
    if (!rq_take(&srq->rq, out)) return false;
    if (rq_count(&srq->rq) < srq->limit) {
        srq->limit = 0;
        event_raise(srq->hca, &srq->events, HCA_EVENT_SRQ_LIMIT_REACHED);
    }
    return true;
}
