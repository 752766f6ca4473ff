/* ibv_open_qp: more handles of an XRC target. All are equal: each hears of its events, may modify
 * it, and keeps it alive (ibv_open_qp(3)). */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/qp_remote.h"
#include <stdlib.h>

/* Holding the lock. NULL: no such target in this domain, ours or opened before. */
static struct rb_qp *target(struct function *f, uint32_t qp_num, uint32_t domain)
{
    list_for_each (node, &f->qps) {
        struct rb_qp *qp = container_of(node, struct rb_qp, link);
        if (qp->xrc_domain == domain && qp_public(qp)->qp_num == qp_num && !qp->lost) return qp;
    }
    return NULL;
}

static int join(struct rb_qp *qp)
{
    int rc = function_lock(qp->f);
    if (rc) return rc;
    struct rb_qp *other = target(qp->f, qp_public(qp)->qp_num, qp->xrc_domain);
    if (other) {
        qp->hca = other->hca;
        qp->elsewhere = other->elsewhere;
        qp->addressed = other->addressed;
        list_add_tail(&other->handles, &qp->handles);
    }
    function_unlock(qp->f);
    return other ? 0 : EINVAL;
}

/* Another function's, which has not been opened here yet. */
static int open_elsewhere(struct rb_qp *qp)
{
    struct ibv_qp_init_attr_ex init = {.qp_type = IBV_QPT_XRC_RECV};

    qp->elsewhere = (uint16_t)(qp_public(qp)->qp_num >> HCA_INDEX_BITS);
    int rc = qp_remote_open(qp);
    if (rc) return rc;
    rc = qp_create_in_adapter(qp, &init);
    if (rc) qp_remote_close(qp);
    return rc;
}

static int open_qp(struct rb_qp *qp)
{
    int rc = join(qp);
    bool ours = qp_public(qp)->qp_num >> HCA_INDEX_BITS == qp->f->opened.function;

    return rc == EINVAL && !ours && xrcd_is_shared(qp->xrcd) ? open_elsewhere(qp) : rc;
}

struct ibv_qp *rb_open_qp(struct ibv_context *context, struct ibv_qp_open_attr *attr)
{
    const uint32_t wanted = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_TYPE;

    if (attr->comp_mask & ~(wanted | IBV_QP_OPEN_ATTR_CONTEXT)) return fail_with(EOPNOTSUPP);
    if ((attr->comp_mask & wanted) != wanted || attr->qp_type != IBV_QPT_XRC_RECV ||
        attr->qp_num > 0xffffff)
        return fail_with(EINVAL);
    struct rb_xrcd *xrcd = rb_xrcd(attr->xrcd);
    if (!xrcd || xrcd->ibv.context != context) return fail_with(EINVAL);
    struct rb_qp *qp = calloc(1, sizeof *qp);
    if (!qp) return fail_with(ENOMEM);
    list_init(&qp->handles);
    qp->f = rb_context(context)->f;
    qp->xrcd = xrcd;
    qp->xrc_domain = xrcd_number(xrcd);
    qp_fill(qp, context, attr->comp_mask & IBV_QP_OPEN_ATTR_CONTEXT ? attr->qp_context : NULL,
            IBV_QPT_XRC_RECV, attr->qp_num);
    int rc = open_qp(qp);
    if (rc) {
        qp_free(qp);
        return fail_with(rc);
    }
    atomic_fetch_add(&xrcd->refs, 1);
    return qp_public(qp);
}

bool qp_leave(struct rb_qp *qp)
{
    if (list_empty(&qp->handles)) return false;
    struct rb_qp *other = container_of(qp->handles.next, struct rb_qp, handles);
    list_del(&qp->handles);
    if (!list_empty(&qp->link)) {
        list_del(&qp->link);
        list_add_tail(&qp->f->qps, &other->link);
        hca_qp_set_owner(qp->hca, other);
    }
    return true;
}
