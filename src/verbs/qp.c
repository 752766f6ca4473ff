/* Queue pairs: creation, states, queries, destruction. Posting is post.c and wr.c. */
#include "rbond/rbonddv.h"
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/qp_remote.h"
#include "verbs/real.h"
#include <rdma/ib_user_verbs.h>
#include <stdlib.h>
#include <string.h>

/* ---- creation ---------------------------------------------------------------------------- */

/* Two CQs that may be one, or not there: the first first. */
static void consumers_in(struct rb_cq *a, struct rb_cq *b)
{
    if (a) cq_consumer_in(a);
    if (b != a) cq_consumer_in(b);
}

static void consumers_out(struct rb_cq *a, struct rb_cq *b)
{
    if (b != a) cq_consumer_out(b);
    if (a) cq_consumer_out(a);
}

/* In the order of their addresses, so that two destroyers cannot wait for each other. */
static void qp_consumers(struct rb_qp *qp, void (*how)(struct rb_cq *, struct rb_cq *))
{
    struct rb_cq *s = (struct rb_cq *)qp->ex.qp_base.send_cq;
    struct rb_cq *r = (struct rb_cq *)qp->ex.qp_base.recv_cq;
    how(s < r ? s : r, s < r ? r : s);
}

/* The consumers first: see object.h. 0 or EIO, with neither, in a forked child: there a consumer
 * of the parent's may stay in the copy for ever. */
static int lock_with_consumers(struct rb_qp *qp)
{
    if (function_is_dead(qp->f)) return EIO;
    qp_consumers(qp, consumers_in);
    int rc = function_lock(qp->f);
    if (rc) qp_consumers(qp, consumers_out);
    return rc;
}

static void unlock_with_consumers(struct rb_qp *qp)
{
    function_unlock(qp->f);
    qp_consumers(qp, consumers_out);
}

static uint32_t create_flags(const struct ibv_qp_init_attr_ex *init)
{
    return init->comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS ? init->create_flags : 0;
}

/* Are the objects there that a QP of this type is made of? Those of another context are another
 * adapter's. */
static int check_objects(const struct ibv_context *context, const struct ibv_qp_init_attr_ex *init)
{
    const struct rb_xrcd *xrcd =
        init->comp_mask & IBV_QP_INIT_ATTR_XRCD ? rb_xrcd(init->xrcd) : NULL;

    switch (init->qp_type) {
    case IBV_QPT_XRC_RECV: return xrcd && xrcd->ibv.context == context ? 0 : EINVAL;
    case IBV_QPT_XRC_SEND: break;
    case IBV_QPT_RC:
    case IBV_QPT_UC:
    case IBV_QPT_UD:
        if (!rb_cq(init->recv_cq) || init->recv_cq->context != context) return EINVAL;
        if (init->srq && (!rb_srq(init->srq) || init->srq->context != context)) return EINVAL;
        break;
    default: return EOPNOTSUPP;
    }
    if (!(init->comp_mask & IBV_QP_INIT_ATTR_PD)) return EINVAL;
    if (!rb_pd(init->pd) || init->pd->context != context) return EINVAL;
    return rb_cq(init->send_cq) && init->send_cq->context == context ? 0 : EINVAL;
}

static int check_init(const struct ibv_context *context, const struct ibv_qp_init_attr_ex *init)
{
    const uint32_t known = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_XRCD |
                           IBV_QP_INIT_ATTR_CREATE_FLAGS | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;

    if (init->comp_mask & ~known) return EOPNOTSUPP;
    if (create_flags(init) & ~(uint32_t)IBV_QP_CREATE_BLOCK_SELF_MCAST_LB) return EOPNOTSUPP;
    if (create_flags(init) && init->qp_type != IBV_QPT_UD) return EINVAL;
    if ((init->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS) &&
        (init->send_ops_flags & ~wr_operations(init->qp_type)))
        return EOPNOTSUPP;
    return check_objects(context, init);
}

/* What the type has no use for is not looked at. */
static void take_objects(struct rb_qp *qp, const struct ibv_qp_init_attr_ex *init)
{
    struct ibv_qp *base = qp_public(qp);

    list_init(&qp->handles);
    if (init->qp_type == IBV_QPT_XRC_RECV) {
        /* librdmacm names a PD, and finds it here when it makes the SRQ. */
        if ((init->comp_mask & IBV_QP_INIT_ATTR_PD) && rb_pd(init->pd)) base->pd = init->pd;
        qp->xrcd = rb_xrcd(init->xrcd);
        qp->xrc_domain = xrcd_number(qp->xrcd);
        return;
    }
    base->pd = init->pd;
    base->send_cq = init->send_cq;
    if (init->qp_type == IBV_QPT_XRC_SEND) return;
    base->recv_cq = init->recv_cq;
    base->srq = init->srq;
}

static void hold_objects(struct rb_qp *qp, uint32_t by)
{
    struct rb_pd *pd = rb_pd(qp->ex.qp_base.pd);
    if (pd) atomic_fetch_add(&pd->refs, by);
    if (qp->xrcd) atomic_fetch_add(&qp->xrcd->refs, by);
}

void qp_fill(struct rb_qp *qp, struct ibv_context *context, void *qp_context, enum ibv_qp_type type,
             uint32_t qp_num)
{
    struct ibv_qp *base = qp_public(qp);

    qp->tag = tag_new(rb_context(context), RB_QP);
    base->context = context;
    base->qp_context = qp_context;
    base->handle = qp->tag.id;
    base->qp_num = qp_num;
    base->state = IBV_QPS_RESET;
    base->qp_type = type;
    pthread_mutex_init(&base->mutex, NULL);
    pthread_cond_init(&base->cond, NULL);
    pthread_mutex_init(&qp->staging, NULL);
}

void qp_free(struct rb_qp *qp)
{
    struct ibv_qp *base = qp_public(qp);

    wr_free(qp);
    qp->tag.magic = 0;
    pthread_mutex_destroy(&qp->staging);
    pthread_mutex_destroy(&base->mutex);
    pthread_cond_destroy(&base->cond);
    free(qp);
}

int qp_create_in_adapter(struct rb_qp *qp, struct ibv_qp_init_attr_ex *init)
{
    struct function *f = qp->f;
    const struct ibv_qp *base = qp_public(qp);
    struct hca_qp_init hi = {.type = (enum hca_qp_type)init->qp_type,
                             .pd = base->pd ? rb_pd(base->pd)->num : 0,
                             .xrcd = qp->xrcd ? xrcd_number(qp->xrcd) : 0,
                             .xrcd_shared = qp->xrcd && !qp->elsewhere && xrcd_is_shared(qp->xrcd),
                             .send_cq = base->send_cq ? rb_cq(base->send_cq)->hca : NULL,
                             .recv_cq = base->recv_cq ? rb_cq(base->recv_cq)->hca : NULL,
                             .srq = base->srq ? rb_srq(base->srq)->hca : NULL,
                             .cap = {.max_send_wr = init->cap.max_send_wr,
                                     .max_recv_wr = init->cap.max_recv_wr,
                                     .max_send_sge = init->cap.max_send_sge,
                                     .max_recv_sge = init->cap.max_recv_sge,
                                     .max_inline_data = init->cap.max_inline_data},
                             .sq_sig_all = init->sq_sig_all != 0,
                             .block_own_mcast =
                                 create_flags(init) & IBV_QP_CREATE_BLOCK_SELF_MCAST_LB,
                             .owner = qp};

    int rc = pd_ring_alloc(rb_pd(base->pd), hca_qp_bytes(&hi), RBONDDV_RESOURCE_QP, &qp->queues);
    if (rc) return rc;
    hi.queues = qp->queues.at;
    rc = function_lock(f);
    if (rc == 0) {
        hi.bucket = f->next_bucket++;
        rc = f->fatal ? EIO : -hca_qp_create(f->hca, &hi, &qp->hca);
        if (rc == 0) {
            list_add_tail(&f->qps, &qp->link);
            function_dirty(f, function_now());
        }
        function_unlock(f);
    }
    if (rc) pd_ring_free(&qp->queues);
    qp->cap = init->cap = (struct ibv_qp_cap){.max_send_wr = hi.cap.max_send_wr,
                                              .max_recv_wr = hi.cap.max_recv_wr,
                                              .max_send_sge = hi.cap.max_send_sge,
                                              .max_recv_sge = hi.cap.max_recv_sge,
                                              .max_inline_data = hi.cap.max_inline_data};
    return rc;
}

static struct ibv_qp *create(struct ibv_context *context, struct ibv_qp_init_attr_ex *init)
{
    struct rb_context *ctx = rb_context(context);
    int rc = check_init(context, init);
    if (rc) return fail_with(rc);
    struct rb_qp *qp = calloc(1, sizeof *qp);
    if (!qp) return fail_with(ENOMEM);
    qp->f = ctx->f;
    qp->sq_sig_all = init->sq_sig_all != 0;
    take_objects(qp, init);
    /* Before the worker can find it among the function's. */
    qp_fill(qp, context, init->qp_context, init->qp_type, 0);
    rc = qp_create_in_adapter(qp, init);
    if (rc) {
        qp_free(qp);
        return fail_with(rc);
    }
    qp_public(qp)->qp_num = hca_qp_num(qp->hca);
    hold_objects(qp, 1);
    return qp_public(qp);
}

EXPORT struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *init)
{
    if (!context_is_ours(pd->context)) return REAL(ibv_create_qp, "IBVERBS_1.1")(pd, init);

    struct ibv_qp_init_attr_ex ex = {.comp_mask = IBV_QP_INIT_ATTR_PD, .pd = pd};
    /* The one begins with the other, up to where the shorter is padded. */
    memcpy(&ex, init, offsetof(struct ibv_qp_init_attr_ex, comp_mask));
    struct ibv_qp *qp = create(pd->context, &ex);
    if (qp) init->cap = ex.cap;
    return qp;
}

struct ibv_qp *rb_create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *init)
{
    struct ibv_qp *base = create(context, init);
    if (base && (init->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)) wr_fill(rb_qp(base));
    return base;
}

EXPORT struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *ibv)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_qp_to_qp_ex, "IBVERBS_1.6")(ibv);
    struct rb_qp *qp = rb_qp(ibv);
    return qp && qp->is_ex ? &qp->ex : NULL;
}

/* ---- modify ------------------------------------------------------------------------------ */

static int convert_attr(struct function *f, const struct ibv_qp_attr *from, int mask,
                        struct hca_qp_attr *to)
{
    *to = (struct hca_qp_attr){
        .state = (enum hca_qp_state)from->qp_state,
        .cur_state = (enum hca_qp_state)from->cur_qp_state,
        .path_mtu = (uint8_t)from->path_mtu,
        .timeout = from->timeout,
        .retry_cnt = from->retry_cnt,
        .rnr_retry = from->rnr_retry,
        .min_rnr_timer = from->min_rnr_timer,
        .max_rd_atomic = from->max_rd_atomic,
        .max_dest_rd_atomic = from->max_dest_rd_atomic,
        .port_num = from->port_num,
        .pkey_index = from->pkey_index,
        .qkey = from->qkey,
        .access = from->qp_access_flags,
        .rq_psn = psn_of(from->rq_psn),
        .sq_psn = psn_of(from->sq_psn),
        .dest_qpn = from->dest_qp_num & 0xffffff,
        .en_sqd_async_notify = from->en_sqd_async_notify,
        .rate_limit = from->rate_limit,
    };
    /* Without automatic path migration a QP is in this state, and in no other. */
    if ((mask & IBV_QP_PATH_MIG_STATE) && from->path_mig_state != IBV_MIG_MIGRATED)
        return EOPNOTSUPP;
    if (mask & IBV_QP_AV) {
        int rc = ah_resolve(f, &from->ah_attr, &to->av);
        if (rc) return rc;
    }
    if (mask & IBV_QP_PATH_MTU) {
        struct device_state state;
        function_state(f, &state);
        if (from->path_mtu < IBV_MTU_256 || from->path_mtu > function_mtu(state.mtu)) return EINVAL;
    }
    return 0;
}

/* Attributes of the half that an XRC QP has not are no mistake: the kernel's verbs leave them out,
 * and perftest counts on it. */
static int without_half(enum ibv_qp_type type, int mask)
{
    if (type == IBV_QPT_XRC_SEND) return mask & ~(IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    if (type == IBV_QPT_XRC_RECV)
        return mask & ~(IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY);
    return mask;
}

int qp_change(struct rb_qp *qp, const struct hca_qp_attr *to, int mask)
{
    struct function *f = qp->f;
    bool moves = mask & IBV_QP_STATE;
    bool ends = moves && (to->state == HCA_QPS_RESET || to->state == HCA_QPS_ERR);

    if (f->fatal && moves && !ends) return EIO;
    when_t now = function_now();
    if (ends) function_settle(f, now);
    int rc = -hca_qp_modify(f->hca, qp->hca, to, (uint32_t)mask, now);
    if (rc == 0 && (mask & IBV_QP_AV)) qp->addressed = true;
    if (rc == 0) publish_qp(f, qp);
    function_flush(f, now);
    return rc;
}

static int modify(struct rb_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
    struct hca_qp_attr to;
    bool forgets = (mask & IBV_QP_STATE) && attr->qp_state == IBV_QPS_RESET;

    if ((mask & IBV_QP_STATE) && attr->qp_state > IBV_QPS_ERR) return EINVAL;
    mask = without_half(qp->ex.qp_base.qp_type, mask);
    int rc = convert_attr(qp->f, attr, mask, &to);
    if (rc) return rc;
    if (qp->elsewhere) return qp_remote_modify(qp, &to, mask);
    rc = forgets ? lock_with_consumers(qp) : function_lock(qp->f);
    if (rc) return rc;
    rc = qp_change(qp, &to, mask);
    if (forgets)
        unlock_with_consumers(qp);
    else
        function_unlock(qp->f);
    return rc;
}

EXPORT int ibv_modify_qp(struct ibv_qp *ibv, struct ibv_qp_attr *attr, int mask)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_modify_qp, "IBVERBS_1.1")(ibv, attr, mask);

    struct rb_qp *qp = rb_qp(ibv);
    if (!qp) return verb_result(EINVAL);
    int rc = modify(qp, attr, mask);
    if (rc == 0 && (mask & IBV_QP_STATE)) ibv->state = attr->qp_state;
    return verb_result(rc);
}

int rb_modify_qp_rate_limit(struct ibv_qp *ibv, struct ibv_qp_rate_limit_attr *attr)
{
    struct rb_qp *qp = rb_qp(ibv);

    if (!qp || attr->comp_mask) return verb_result(EINVAL);
    int rc = function_lock(qp->f);
    if (rc) return verb_result(rc);
    rc = -hca_qp_rate_limit(qp->f->hca, qp->hca, attr->rate_limit, attr->max_burst_sz);
    function_flush(qp->f, function_now());
    function_unlock(qp->f);
    return verb_result(rc);
}

/* ---- query ------------------------------------------------------------------------------- */

static void describe(const struct rb_qp *qp, const struct hca_qp_attr *from, struct ibv_qp_attr *to)
{
    *to = (struct ibv_qp_attr){
        .qp_state = (enum ibv_qp_state)from->state,
        .cur_qp_state = (enum ibv_qp_state)from->state,
        .path_mtu = (enum ibv_mtu)from->path_mtu,
        .path_mig_state = IBV_MIG_MIGRATED,
        .qkey = from->qkey,
        .rq_psn = from->rq_psn.v,
        .sq_psn = from->sq_psn.v,
        .dest_qp_num = from->dest_qpn,
        .qp_access_flags = from->access,
        .cap = qp->cap,
        .pkey_index = from->pkey_index,
        .en_sqd_async_notify = from->en_sqd_async_notify,
        .sq_draining = from->sq_draining,
        .max_rd_atomic = from->max_rd_atomic,
        .max_dest_rd_atomic = from->max_dest_rd_atomic,
        .min_rnr_timer = from->min_rnr_timer,
        .port_num = from->port_num,
        .timeout = from->timeout,
        .retry_cnt = from->retry_cnt,
        .rnr_retry = from->rnr_retry,
        .rate_limit = from->rate_limit,
    };
    if (qp->addressed) ah_describe(&from->av, &to->ah_attr);
}

static int query(const struct rb_qp *qp, struct hca_qp_attr *attr)
{
    int rc = function_lock(qp->f);
    if (rc) return rc;
    hca_qp_query(qp->hca, attr);
    function_unlock(qp->f);
    return 0;
}

EXPORT int ibv_query_qp(struct ibv_qp *ibv, struct ibv_qp_attr *attr, int mask,
                        struct ibv_qp_init_attr *init)
{
    struct hca_qp_attr ha = {0};

    if (!context_is_ours(ibv->context))
        return REAL(ibv_query_qp, "IBVERBS_1.1")(ibv, attr, mask, init);
    struct rb_qp *qp = rb_qp(ibv);
    if (!qp) return verb_result(EINVAL);
    int rc = qp->elsewhere ? qp_remote_query(qp, &ha) : query(qp, &ha);
    if (rc) return verb_result(rc);
    describe(qp, &ha, attr);
    *init = (struct ibv_qp_init_attr){.qp_context = ibv->qp_context,
                                      .send_cq = ibv->send_cq,
                                      .recv_cq = ibv->recv_cq,
                                      .srq = ibv->srq,
                                      .cap = qp->cap,
                                      .qp_type = ibv->qp_type,
                                      .sq_sig_all = qp->sq_sig_all};
    if (mask & IBV_QP_STATE) ibv->state = attr->qp_state;
    return 0;
}

/* Payload is copied in ascending order, but a resent packet may be written again. */
EXPORT int ibv_query_qp_data_in_order(struct ibv_qp *qp, enum ibv_wr_opcode op, uint32_t flags)
{
    if (!context_is_ours(qp->context))
        return REAL(ibv_query_qp_data_in_order, "IBVERBS_1.14")(qp, op, flags);
    return 0;
}

/* ---- destruction ------------------------------------------------------------------------- */

/* Its last handle goes. */
static int remove_from_adapter(struct rb_qp *qp)
{
    struct function *f = qp->f;

    qpn_t qpn = hca_qp_num(qp->hca);
    int rc = -hca_qp_destroy(f->hca, qp->hca);
    if (rc) return rc;
    list_del(&qp->link);
    publish_qp_gone(f, qpn);
    function_flush(f, function_now()); /* others may have waited for its share of the window */
    return 0;
}

int qp_detach(struct rb_qp *qp, bool *last)
{
    function_settle(qp->f, function_now());
    *last = !qp_leave(qp);
    return *last ? remove_from_adapter(qp) : 0;
}

static int detach(struct rb_qp *qp, bool *last)
{
    struct function *f = qp->f;

    int rc = lock_with_consumers(qp);
    if (rc) return 0; /* a forked child frees its copy */
    rc = qp_detach(qp, last);
    if (rc == 0) qp->async_events -= events_purge_async(f, rb_context(qp->ex.qp_base.context), qp);
    unlock_with_consumers(qp);
    return rc;
}

EXPORT int ibv_destroy_qp(struct ibv_qp *ibv)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_destroy_qp, "IBVERBS_1.1")(ibv);

    struct rb_qp *qp = rb_qp(ibv);
    if (!qp) return verb_result(EINVAL);
    bool last = false;
    int rc = detach(qp, &last);
    if (rc) return verb_result(rc);
    if (last && qp->elsewhere) qp_remote_close(qp);
    pthread_mutex_lock(&ibv->mutex);
    while (!function_is_dead(qp->f) && ibv->events_completed != qp->async_events)
        pthread_cond_wait(&ibv->cond, &ibv->mutex);
    pthread_mutex_unlock(&ibv->mutex);
    pd_ring_free(&qp->queues);
    hold_objects(qp, -1u);
    qp_free(qp);
    return 0;
}
