/* Shared receive queues (IBTA 10.2.9), basic ones and those of XRC (annex A14), which have a number
 * for peers to name them by, a domain and a CQ. The limit event fires once: when a WQE is taken and
 * fewer than the limit remain, the limit is disarmed until ibv_modify_srq(3) sets it again. */
#include "hca/srq.h"
#include "hca/qp.h"
#include "hca/xrc_guest.h"
#include <errno.h>
#include <stdlib.h>

int hca_srq_create(struct hca *hca, struct hca_srq_init *init, struct hca_srq **out)
{
    if (init->max_wr == 0 || init->max_wr > HCA_MAX_WR || init->max_sge > HCA_MAX_SGE ||
        init->limit > init->max_wr || !init->xrcd != !init->cq)
        return -EINVAL;
    struct hca_srq *srq = calloc(1, sizeof *srq);
    if (!srq) return -ENOMEM;
    if (init->max_sge == 0) init->max_sge = 1;
    int err = rq_init(&srq->rq, init->max_wr, init->max_sge, NULL);
    if (err == 0 && init->xrcd) err = numbers_add(hca, &hca->srqns, srq, &srq->num);
    if (err < 0) {
        rq_fini(&srq->rq);
        free(srq);
        return err;
    }
    srq->hca = hca;
    srq->pd = init->pd;
    srq->limit = init->limit;
    srq->xrcd = init->xrcd;
    srq->cq = init->cq;
    srq->events.owner = init->owner;
    if (srq->cq) srq->cq->users++;
    list_add_tail(&hca->srqs, &srq->all);
    *out = srq;
    return 0;
}

uint32_t hca_srq_num(const struct hca_srq *srq) { return srq->num; }

struct hca_srq *srq_find(const struct hca *hca, uint32_t num)
{
    return numbers_find(hca, &hca->srqns, num);
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
    if (srq->xrcd) {
        list_for_each (node, &hca->qps)
            rc_resp_srq_gone(container_of(node, struct hca_qp, all), srq);
        xrc_guests_srq_gone(hca, srq);
        numbers_del(&hca->srqns, srq->num);
        srq->cq->users--;
    }
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

void srq_fail(struct hca_srq *srq)
{
    srq->failed = true;
    event_raise(srq->hca, &srq->events, HCA_EVENT_SRQ_ERR);
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
