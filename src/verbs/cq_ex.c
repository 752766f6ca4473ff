/* Extended CQs: ibv_start_poll, ibv_next_poll and the ibv_wc_read_* functions. From a start_poll
 * that succeeds to end_poll the thread is the CQ's one consumer: another start_poll of its own is
 * refused, those of other threads wait. */
#include "verbs/context.h"
#include "verbs/function.h"
#include <string.h>
#include <time.h>

#define WC_FLAGS                                                                                   \
    (IBV_WC_STANDARD_FLAGS | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP |                                 \
     IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK)

static struct rb_cq *of(struct ibv_cq_ex *ex) { return container_of(ex, struct rb_cq, ex); }

static const struct hca_wc *current(struct ibv_cq_ex *ex) { return &of(ex)->wc; }

/* Takes the next completion. 0, ENOENT, or the CQ's failure. */
static int advance(struct rb_cq *cq)
{
    int n = hca_cq_poll(cq->hca, &cq->wc, 1);
    if (n <= 0) return n == 0 ? ENOENT : verb_result(-n);
    function_consumed(cq->f);
    cq->ex.wr_id = cq->wc.wr_id;
    cq->ex.status = (enum ibv_wc_status)cq->wc.status;
    return 0;
}

static int start_poll(struct ibv_cq_ex *ex, struct ibv_poll_cq_attr *attr)
{
    struct rb_cq *cq = of(ex);

    if (attr && attr->comp_mask) return verb_result(EINVAL);
    if (function_is_dead(cq->f)) return verb_result(EIO);
    if (cq_is_consumer(cq)) return verb_result(EBUSY);
    cq_consumer_in(cq);
    int rc = advance(cq);
    if (rc == ENOENT) {
        cq_consumer_out(cq); /* the driver may have to wait for a destroyer */
        if (!function_spin(cq->f)) return ENOENT;
        cq_consumer_in(cq);
        rc = advance(cq);
    }
    if (rc) cq_consumer_out(cq);
    return rc;
}

static int next_poll(struct ibv_cq_ex *ex) { return advance(of(ex)); }

static void end_poll(struct ibv_cq_ex *ex)
{
    struct rb_cq *cq = of(ex);
    bool drive = ++cq->polls % 16 == 0;
    cq_consumer_out(cq);
    if (drive) function_spin(cq->f);
}

/* ---- reading ----------------------------------------------------------------------------- */

static enum ibv_wc_opcode read_opcode(struct ibv_cq_ex *ex)
{
    return (enum ibv_wc_opcode)current(ex)->opcode;
}

static uint32_t read_vendor_err(struct ibv_cq_ex *ex) { return current(ex)->vendor_err; }
static uint32_t read_byte_len(struct ibv_cq_ex *ex) { return current(ex)->byte_len; }

static __be32 read_imm_data(struct ibv_cq_ex *ex)
{
    const struct hca_wc *wc = current(ex);
    return wc->flags & HCA_WC_WITH_INV ? wc->inv_rkey : wc->imm_be;
}

static uint32_t read_qp_num(struct ibv_cq_ex *ex) { return current(ex)->qpn; }
static uint32_t read_src_qp(struct ibv_cq_ex *ex) { return current(ex)->src_qpn; }
static unsigned read_wc_flags(struct ibv_cq_ex *ex) { return current(ex)->flags; }
static uint8_t read_sl(struct ibv_cq_ex *ex) { return current(ex)->sl; }

static uint32_t read_slid(struct ibv_cq_ex *ex)
{
    (void)ex;
    return 0; /* RoCE has no LIDs */
}

static uint8_t read_dlid_path_bits(struct ibv_cq_ex *ex)
{
    (void)ex;
    return 0;
}

static uint64_t read_completion_ts(struct ibv_cq_ex *ex) { return current(ex)->stamp_ns; }

static uint64_t read_completion_wallclock_ns(struct ibv_cq_ex *ex)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    uint64_t now = (uint64_t)wall.tv_sec * SEC_NS + (uint64_t)wall.tv_nsec;
    return now - when_since(function_now(), (when_t){current(ex)->stamp_ns});
}

void cq_ex_fill(struct rb_cq *cq)
{
    struct ibv_cq_ex *ex = &cq->ex;

    ex->start_poll = start_poll;
    ex->next_poll = next_poll;
    ex->end_poll = end_poll;
    ex->read_opcode = read_opcode;
    ex->read_vendor_err = read_vendor_err;
    ex->read_byte_len = read_byte_len;
    ex->read_imm_data = read_imm_data;
    ex->read_qp_num = read_qp_num;
    ex->read_src_qp = read_src_qp;
    ex->read_wc_flags = read_wc_flags;
    ex->read_slid = read_slid;
    ex->read_sl = read_sl;
    ex->read_dlid_path_bits = read_dlid_path_bits;
    ex->read_completion_ts = read_completion_ts;
    ex->read_completion_wallclock_ns = read_completion_wallclock_ns;
}

struct ibv_cq_ex *rb_create_cq_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *init)
{
    /* Of one thread alone: a hint, with nothing to gain. */
    const uint32_t known = IBV_CREATE_CQ_ATTR_SINGLE_THREADED | IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN;
    uint32_t flags = init->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS ? init->flags : 0;
    struct rb_pd *parent = NULL;

    if (init->comp_mask & ~(uint32_t)(IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD))
        return fail_with(EOPNOTSUPP);
    if ((flags & ~known) || (init->wc_flags & ~(uint64_t)WC_FLAGS)) return fail_with(EOPNOTSUPP);
    if (init->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD) {
        parent = rb_pd(init->parent_domain);
        if (!parent || !parent->of || init->parent_domain->context != context)
            return fail_with(EINVAL);
    }
    struct rb_cq *cq = cq_new(context, init, parent);
    if (!cq) return NULL;
    if (flags & IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN) hca_cq_ignore_overrun(cq->hca);
    cq_ex_fill(cq);
    return &cq->ex;
}
