/* Memory windows (IBTA 10.6.7): keys of their own to a part of a region, given and taken back by
 * work requests. Type 1 belongs to a PD, and is bound anew at will; type 2 (here 2B) belongs to the
 * QP that binds it besides, and must be invalidated before it is bound again. A bind or a local
 * invalidate is executed when the send queue comes to it, see rc_req.c and uc.c. */
#include "base/must.h"
#include "hca/mr.h"
#include "hca/qp.h"
#include <errno.h>

#define REMOTE_CHANGES (HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_REMOTE_ATOMIC)
#define WINDOW_ACCESS (REMOTE_CHANGES | HCA_ACCESS_REMOTE_READ)
/* Local write is what programs ask for along with remote write: a window has no such thing. */
#define BIND_ACCESS (WINDOW_ACCESS | HCA_ACCESS_ZERO_BASED | (uint32_t)HCA_ACCESS_LOCAL_WRITE)

int hca_mw_alloc(struct hca *hca, uint32_t pd, enum hca_mw_type type, struct hca_mw **out)
{
    if (type != HCA_MW_TYPE_1 && type != HCA_MW_TYPE_2) return -EINVAL;
    struct region *w = region_take(hca);
    if (!w) return -ENOMEM;
    w->kind = type == HCA_MW_TYPE_1 ? REGION_MW_1 : REGION_MW_2;
    w->pd = pd;
    *out = container_of(w, struct hca_mw, region);
    return 0;
}

static void unbind(struct region *w)
{
    if (!w->under) return;
    w->under->windows--;
    w->under = NULL;
    w->access = 0;
    w->qpn = 0;
    list_del(&w->link);
}

void hca_mw_dealloc(struct hca *hca, struct hca_mw *mw)
{
    unbind(&mw->region);
    region_give(hca, &mw->region);
}

uint32_t hca_mw_rkey(const struct hca_mw *mw) { return mw->region.key; }

/* The region that this bind may open a window in, or NULL (C10-73 to C10-75). */
static struct region *region_to_bind(const struct hca_qp *qp, const struct hca_send_wr *wr)
{
    struct region *r = region_named(qp->hca, wr->bind_lkey);
    if (!r || r->key != wr->bind_lkey || r->kind != REGION_MR || r->pd != qp->pd) return NULL;
    if (!(r->access & HCA_ACCESS_MW_BIND)) return NULL;
    if ((wr->bind_access & REMOTE_CHANGES) && !(r->access & HCA_ACCESS_LOCAL_WRITE)) return NULL;
    uint64_t offset = wr->remote_addr - r->iova;
    if (offset >= r->length || wr->bind_length > r->length - offset) return NULL;
    return r;
}

static void open_window(struct hca_qp *qp, struct region *w, struct region *r,
                        const struct hca_send_wr *wr)
{
    w->iova = wr->bind_access & HCA_ACCESS_ZERO_BASED ? 0 : wr->remote_addr;
    w->length = wr->bind_length;
    w->base = r->base + (uintptr_t)(wr->remote_addr - r->iova);
    w->access = wr->bind_access & WINDOW_ACCESS;
    w->backing = r->backing;
    w->under = r;
    r->windows++;
    if (w->kind != REGION_MW_2) return;
    w->qpn = qp->qpn;
    list_add_tail(&qp->windows, &w->link);
}

static bool bind(struct hca_qp *qp, const struct hca_send_wr *wr)
{
    struct region *w = region_named(qp->hca, wr->rkey), *r = NULL;
    if (!w || (w->kind != REGION_MW_1 && w->kind != REGION_MW_2) || w->pd != qp->pd) return false;
    if (wr->bind_access & ~BIND_ACCESS) return false;
    /* o10-36.2.2: no zero based window of type 1. o10-37.2.30 and .40: type 2 is bound while free,
     * and not to nothing. */
    if (w->kind == REGION_MW_1 && (wr->bind_access & HCA_ACCESS_ZERO_BASED)) return false;
    if (w->kind == REGION_MW_2 && (w->under || wr->bind_length == 0)) return false;
    if (wr->bind_length) {
        r = region_to_bind(qp, wr);
        if (!r) return false;
    }
    unbind(w);
    w->key = wr->rkey;
    if (r) open_window(qp, w, r, wr);
    return true;
}

bool mw_invalidate(struct hca_qp *qp, uint32_t rkey)
{
    struct region *w = region_named(qp->hca, rkey);
    if (!w || w->key != rkey || w->kind != REGION_MW_2 || w->qpn != qp->qpn) return false;
    unbind(w);
    return true;
}

enum hca_wc_status mw_execute(struct hca_qp *qp, const struct hca_send_wr *wr)
{
    if (wr->opcode == HCA_WR_BIND_MW) return bind(qp, wr) ? HCA_WC_SUCCESS : HCA_WC_MW_BIND_ERR;
    must(wr->opcode == HCA_WR_LOCAL_INV);
    return mw_invalidate(qp, wr->inv_rkey) ? HCA_WC_SUCCESS : HCA_WC_LOC_QP_OP_ERR;
}

void mw_forget_qp(struct hca_qp *qp)
{
    while (!list_empty(&qp->windows)) unbind(container_of(qp->windows.next, struct region, link));
}
