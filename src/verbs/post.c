/* Posting by lists: ibv_post_send, ibv_post_recv, ibv_post_srq_recv. A posted request leaves at
 * once: the poster drives the output. */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/mr.h"
#include <string.h>

#define SEND_FLAGS                                                                                 \
    ((unsigned)(IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED | IBV_SEND_INLINE))

static int convert_ud(const struct ibv_send_wr *from, struct hca_send_wr *to)
{
    struct rb_ah *ah = from->wr.ud.ah ? rb_ah(from->wr.ud.ah) : NULL;
    if (!ah) return EINVAL;
    to->ah = ah->hca;
    to->remote_qpn = from->wr.ud.remote_qpn & 0xffffff;
    to->remote_qkey = from->wr.ud.remote_qkey;
    return 0;
}

static int convert(const struct rb_qp *qp, const struct ibv_send_wr *from, struct hca_send_wr *to)
{
    if (from->send_flags & ~SEND_FLAGS) return EINVAL;
    if (from->num_sge < 0) return EINVAL;
    memset(to, 0, sizeof *to);
    to->wr_id = from->wr_id;
    to->opcode = (enum hca_wr_opcode)from->opcode;
    to->flags = from->send_flags;
    to->sge = (const struct hca_sge *)from->sg_list;
    to->num_sge = (uint32_t)from->num_sge;
    if (qp->ex.qp_base.qp_type == IBV_QPT_UD) {
        int rc = convert_ud(from, to);
        if (rc) return rc;
    }
    if (qp->ex.qp_base.qp_type == IBV_QPT_XRC_SEND)
        to->xrc_srqn = from->qp_type.xrc.remote_srqn & 0xffffff;
    switch (from->opcode) {
    case IBV_WR_SEND: break;
    case IBV_WR_SEND_WITH_IMM: to->imm_be = from->imm_data; break;
    case IBV_WR_SEND_WITH_INV:
    case IBV_WR_LOCAL_INV: to->inv_rkey = from->invalidate_rkey; break;
    case IBV_WR_RDMA_WRITE_WITH_IMM: to->imm_be = from->imm_data; /* fallthrough */
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_READ:
        to->remote_addr = from->wr.rdma.remote_addr;
        to->rkey = from->wr.rdma.rkey;
        break;
    case IBV_WR_ATOMIC_CMP_AND_SWP:
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
        to->remote_addr = from->wr.atomic.remote_addr;
        to->rkey = from->wr.atomic.rkey;
        to->compare_add = from->wr.atomic.compare_add;
        to->swap = from->wr.atomic.swap;
        break;
    case IBV_WR_BIND_MW:
        return mw_convert(from->bind_mw.mw, from->bind_mw.rkey, &from->bind_mw.bind_info, to);
    default: return EINVAL;
    }
    return 0;
}

int rb_post_send(struct ibv_qp *ibv, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    struct hca_send_wr to;
    struct rb_qp *qp = rb_qp(ibv);

    *bad = wr;
    if (!qp) return verb_result(EINVAL);
    struct function *f = qp->f;
    int rc = function_lock(f);
    if (rc) return verb_result(rc);
    when_t now = function_now();
    for (; wr; wr = wr->next) {
        rc = convert(qp, wr, &to);
        if (rc == 0) rc = -hca_post_send(f->hca, qp->hca, &to, now);
        if (rc) {
            *bad = wr;
            break;
        }
    }
    function_flush(f, now);
    function_unlock(f);
    return verb_result(rc);
}

static bool convert_recv(const struct ibv_recv_wr *from, struct hca_recv_wr *to)
{
    *to = (struct hca_recv_wr){.wr_id = from->wr_id,
                               .sge = (const struct hca_sge *)from->sg_list,
                               .num_sge = (uint32_t)from->num_sge};
    return from->num_sge >= 0;
}

int rb_post_recv(struct ibv_qp *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
    struct hca_recv_wr to;
    struct rb_qp *qp = rb_qp(ibv);

    *bad = wr;
    if (!qp) return verb_result(EINVAL);
    struct function *f = qp->f;
    int rc = function_lock(f);
    if (rc) return verb_result(rc);
    when_t now = function_now();
    for (; wr; wr = wr->next) {
        rc = convert_recv(wr, &to) ? -hca_post_recv(f->hca, qp->hca, &to, now) : EINVAL;
        if (rc) {
            *bad = wr;
            break;
        }
    }
    events_deliver(f); /* in the error state receives are flushed at once */
    function_unlock(f);
    return verb_result(rc);
}

int rb_post_srq_recv(struct ibv_srq *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
    struct hca_recv_wr to;
    struct rb_srq *srq = rb_srq(ibv);

    *bad = wr;
    if (!srq) return verb_result(EINVAL);
    struct function *f = srq->f;
    int rc = function_lock(f);
    if (rc) return verb_result(rc);
    for (; wr; wr = wr->next) {
        rc = convert_recv(wr, &to) ? -hca_srq_post(f->hca, srq->hca, &to) : EINVAL;
        if (rc) {
            *bad = wr;
            break;
        }
    }
    function_unlock(f);
    return verb_result(rc);
}
