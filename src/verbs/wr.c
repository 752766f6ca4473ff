/* The ibv_wr_* API. Requests are staged in the QP, inline bytes copied, and handed to the adapter
 * by ibv_wr_complete through the very call that ibv_post_send uses: there is one writer of work
 * requests, hca_post_send. A mistake in any of them is kept and returned by ibv_wr_complete, which
 * then posts none (ibv_wr_post(3)). */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/mr.h"
#include <stdlib.h>
#include <string.h>

static struct rb_qp *of(struct ibv_qp_ex *ex) { return container_of(ex, struct rb_qp, ex); }

uint64_t wr_operations(enum ibv_qp_type type)
{
    const uint64_t send = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
    const uint64_t write = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM;
    const uint64_t local = IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW;

    switch (type) {
    case IBV_QPT_UD: return send;
    case IBV_QPT_UC: return send | write | local;
    case IBV_QPT_RC:
    case IBV_QPT_XRC_SEND:
        return send | write | IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |
               IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | IBV_QP_EX_WITH_SEND_WITH_INV |
               IBV_QP_EX_WITH_FLUSH | IBV_QP_EX_WITH_ATOMIC_WRITE | local;
    default: return 0;
    }
}

/* IBV_QP_EX_WITH_* are 1 << IBV_WR_*, and those the adapter's opcodes; but the two since FLUSH come
 * without the gap before it. */
static uint64_t operation(enum hca_wr_opcode opcode)
{
    if (opcode == HCA_WR_FLUSH) return IBV_QP_EX_WITH_FLUSH;
    if (opcode == HCA_WR_ATOMIC_WRITE) return IBV_QP_EX_WITH_ATOMIC_WRITE;
    return UINT64_C(1) << opcode;
}

void wr_free(struct rb_qp *qp)
{
    for (uint32_t i = 0; i < qp->staged_room; i++) free(qp->staged[i].inline_data);
    free(qp->staged);
}

/* ---- staging ----------------------------------------------------------------------------- */

static void note(struct rb_qp *qp, int error)
{
    if (!qp->staged_error) qp->staged_error = error;
}

static bool grow(struct rb_qp *qp)
{
    uint32_t room = qp->staged_room ? qp->staged_room * 2 : 4;
    struct staged_wr *staged = realloc(qp->staged, room * sizeof *staged);
    if (!staged) return false;
    memset(staged + qp->staged_room, 0, (room - qp->staged_room) * sizeof *staged);
    qp->staged = staged;
    qp->staged_room = room;
    return true;
}

/* A new request, or NULL with the error noted. */
static struct hca_send_wr *begin(struct ibv_qp_ex *ex, enum hca_wr_opcode opcode)
{
    struct rb_qp *qp = of(ex);

    if (ex->wr_flags &
        ~(unsigned)(IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED | IBV_SEND_INLINE))
        note(qp, EINVAL);
    if (!(wr_operations(qp->ex.qp_base.qp_type) & operation(opcode))) note(qp, EINVAL);
    if (qp->nstaged == qp->cap.max_send_wr || (qp->nstaged == qp->staged_room && !grow(qp)))
        note(qp, ENOMEM);
    if (qp->staged_error) return NULL;
    struct staged_wr *s = &qp->staged[qp->nstaged++];
    memset(&s->wr, 0, sizeof s->wr);
    s->wr.wr_id = ex->wr_id;
    s->wr.flags = ex->wr_flags & ~(unsigned)IBV_SEND_INLINE; /* set by wr_set_inline_data */
    s->wr.opcode = opcode;
    return &s->wr;
}

/* The request that the setters speak of. */
static struct staged_wr *latest(struct ibv_qp_ex *ex)
{
    struct rb_qp *qp = of(ex);
    if (qp->nstaged == 0) note(qp, EINVAL);
    return qp->staged_error ? NULL : &qp->staged[qp->nstaged - 1];
}

static void wr_start(struct ibv_qp_ex *ex)
{
    struct rb_qp *qp = of(ex);
    pthread_mutex_lock(&qp->staging);
    qp->stager = thread_self();
    qp->nstaged = 0;
    qp->staged_error = 0;
}

static void end_staging(struct rb_qp *qp)
{
    qp->stager = 0;
    pthread_mutex_unlock(&qp->staging);
}

static void wr_abort(struct ibv_qp_ex *ex) { end_staging(of(ex)); }

/* All or none: room for all is made sure of first, and what else could fail fails for the first
 * request already (the state) or was noted while staging (opcode, SGE count, length, inline data).
 */
static int post_all(struct rb_qp *qp)
{
    struct function *f = qp->f;
    int rc = function_lock(f);
    if (rc) return rc;
    when_t now = function_now();
    if (hca_qp_send_room(qp->hca) < qp->nstaged) rc = ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < qp->nstaged; i++) {
        struct staged_wr *s = &qp->staged[i];
        s->wr.sge = s->sge;
        rc = -hca_post_send(f->hca, qp->hca, &s->wr, now);
    }
    function_flush(f, now);
    function_unlock(f);
    return rc;
}

static int wr_complete(struct ibv_qp_ex *ex)
{
    struct rb_qp *qp = of(ex);
    int rc = qp->staged_error;

    if (rc == 0 && qp->nstaged) rc = post_all(qp);
    end_staging(qp);
    return verb_result(rc);
}

/* ---- operations -------------------------------------------------------------------------- */

static void wr_send(struct ibv_qp_ex *ex) { begin(ex, HCA_WR_SEND); }

static void wr_send_imm(struct ibv_qp_ex *ex, __be32 imm)
{
    struct hca_send_wr *wr = begin(ex, HCA_WR_SEND_WITH_IMM);
    if (wr) wr->imm_be = imm;
}

static void wr_send_inv(struct ibv_qp_ex *ex, uint32_t rkey)
{
    struct hca_send_wr *wr = begin(ex, HCA_WR_SEND_WITH_INV);
    if (wr) wr->inv_rkey = rkey;
}

static void wr_local_inv(struct ibv_qp_ex *ex, uint32_t rkey)
{
    struct hca_send_wr *wr = begin(ex, HCA_WR_LOCAL_INV);
    if (wr) wr->inv_rkey = rkey;
}

static void wr_bind_mw(struct ibv_qp_ex *ex, struct ibv_mw *mw, uint32_t rkey,
                       const struct ibv_mw_bind_info *info)
{
    struct hca_send_wr *wr = begin(ex, HCA_WR_BIND_MW);
    int rc = wr ? mw_convert(mw, rkey, info, wr) : 0;
    if (rc) note(of(ex), rc);
}

static struct hca_send_wr *begin_remote(struct ibv_qp_ex *ex, enum hca_wr_opcode opcode,
                                        uint32_t rkey, uint64_t remote_addr)
{
    struct hca_send_wr *wr = begin(ex, opcode);
    if (!wr) return NULL;
    wr->rkey = rkey;
    wr->remote_addr = remote_addr;
    return wr;
}

static void wr_rdma_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr)
{
    begin_remote(ex, HCA_WR_RDMA_WRITE, rkey, remote_addr);
}

static void wr_rdma_write_imm(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, __be32 imm)
{
    struct hca_send_wr *wr = begin_remote(ex, HCA_WR_RDMA_WRITE_WITH_IMM, rkey, remote_addr);
    if (wr) wr->imm_be = imm;
}

static void wr_rdma_read(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr)
{
    begin_remote(ex, HCA_WR_RDMA_READ, rkey, remote_addr);
}

static void wr_atomic_cmp_swp(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr,
                              uint64_t compare, uint64_t swap)
{
    struct hca_send_wr *wr = begin_remote(ex, HCA_WR_ATOMIC_CMP_AND_SWP, rkey, remote_addr);
    if (!wr) return;
    wr->compare_add = compare;
    wr->swap = swap;
}

static void wr_atomic_fetch_add(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr,
                                uint64_t add)
{
    struct hca_send_wr *wr = begin_remote(ex, HCA_WR_ATOMIC_FETCH_AND_ADD, rkey, remote_addr);
    if (wr) wr->compare_add = add;
}

static void wr_flush(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr, size_t len,
                     uint8_t type, uint8_t level)
{
    struct hca_send_wr *wr = begin_remote(ex, HCA_WR_FLUSH, rkey, remote_addr);
    if (!wr) return;
    wr->flush_type = type;
    wr->flush_level = level;
    if (level == IBV_FLUSH_RANGE) wr->flush_length = len < UINT32_MAX ? (uint32_t)len : UINT32_MAX;
    if (!hca_flush_is_sound(wr)) note(of(ex), EINVAL);
}

static void wr_atomic_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote_addr,
                            const void *value)
{
    struct hca_send_wr *wr = begin_remote(ex, HCA_WR_ATOMIC_WRITE, rkey, remote_addr);
    if (wr) memcpy(&wr->atomic_value, value, sizeof wr->atomic_value);
}

/* ---- setters ----------------------------------------------------------------------------- */

static void set_ud_addr(struct ibv_qp_ex *ex, struct ibv_ah *ibv, uint32_t qpn, uint32_t qkey)
{
    struct staged_wr *s = latest(ex);
    struct rb_ah *ah = rb_ah(ibv);

    if (!s) return;
    if (!ah) {
        note(of(ex), EINVAL);
        return;
    }
    s->wr.ah = ah->hca;
    s->wr.remote_qpn = qpn & 0xffffff;
    s->wr.remote_qkey = qkey;
}

static void set_xrc_srqn(struct ibv_qp_ex *ex, uint32_t srqn)
{
    struct staged_wr *s = latest(ex);
    if (s) s->wr.xrc_srqn = srqn & 0xffffff;
}

static void set_sge_list(struct ibv_qp_ex *ex, size_t n, const struct ibv_sge *list)
{
    struct staged_wr *s = latest(ex);
    uint64_t length = 0; /* at most 16 times 2^32: no wrap */

    if (!s) return;
    if (n > of(ex)->cap.max_send_sge || n > HCA_MAX_SGE || s->wr.opcode == HCA_WR_ATOMIC_WRITE) {
        note(of(ex), EINVAL);
        return;
    }
    for (size_t i = 0; i < n; i++) length += list[i].length;
    if (length > HCA_MAX_MSG) {
        note(of(ex), EINVAL);
        return;
    }
    if (s->wr.opcode == HCA_WR_FLUSH) return; /* allowed (ibv_wr_post(3)), but it moves no data */
    memcpy(s->sge, list, n * sizeof *list);
    s->wr.num_sge = (uint32_t)n;
}

static void set_sge(struct ibv_qp_ex *ex, uint32_t lkey, uint64_t addr, uint32_t length)
{
    const struct ibv_sge sge = {addr, length, lkey};
    set_sge_list(ex, 1, &sge);
}

static bool takes_inline(enum hca_wr_opcode opcode)
{
    return opcode != HCA_WR_RDMA_READ && opcode != HCA_WR_ATOMIC_CMP_AND_SWP &&
           opcode != HCA_WR_ATOMIC_FETCH_AND_ADD && opcode != HCA_WR_FLUSH &&
           opcode != HCA_WR_ATOMIC_WRITE;
}

static void set_inline_data_list(struct ibv_qp_ex *ex, size_t n, const struct ibv_data_buf *list)
{
    struct rb_qp *qp = of(ex);
    struct staged_wr *s = latest(ex);
    size_t len = 0;

    if (!s) return;
    if (!takes_inline(s->wr.opcode)) {
        note(qp, EINVAL);
        return;
    }
    if (!s->inline_data) s->inline_data = malloc(qp->cap.max_inline_data + 1);
    if (!s->inline_data) {
        note(qp, ENOMEM);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (list[i].length > qp->cap.max_inline_data - len) {
            note(qp, EINVAL);
            return;
        }
        memcpy(s->inline_data + len, list[i].addr, list[i].length);
        len += list[i].length;
    }
    s->wr.flags |= HCA_SEND_INLINE;
    s->sge[0] = (struct hca_sge){.addr = (uintptr_t)s->inline_data, .length = (uint32_t)len};
    s->wr.num_sge = 1;
}

static void set_inline_data(struct ibv_qp_ex *ex, void *addr, size_t length)
{
    const struct ibv_data_buf buf = {addr, length};
    set_inline_data_list(ex, 1, &buf);
}

/* ---- what is not there ------------------------------------------------------------------- */

static void refuse_tso(struct ibv_qp_ex *ex, void *hdr, uint16_t len, uint16_t mss)
{
    note(of(ex), EOPNOTSUPP);
}

/* All are set whatever was asked for: one that was not fails when its type of QP refuses it. */
void wr_fill(struct rb_qp *qp)
{
    struct ibv_qp_ex *ex = &qp->ex;

    qp->is_ex = true;
    ex->wr_start = wr_start;
    ex->wr_complete = wr_complete;
    ex->wr_abort = wr_abort;
    ex->wr_send = wr_send;
    ex->wr_send_imm = wr_send_imm;
    ex->wr_send_inv = wr_send_inv;
    ex->wr_local_inv = wr_local_inv;
    ex->wr_bind_mw = wr_bind_mw;
    ex->wr_rdma_write = wr_rdma_write;
    ex->wr_rdma_write_imm = wr_rdma_write_imm;
    ex->wr_rdma_read = wr_rdma_read;
    ex->wr_atomic_cmp_swp = wr_atomic_cmp_swp;
    ex->wr_atomic_fetch_add = wr_atomic_fetch_add;
    ex->wr_set_ud_addr = set_ud_addr;
    ex->wr_set_sge = set_sge;
    ex->wr_set_sge_list = set_sge_list;
    ex->wr_set_inline_data = set_inline_data;
    ex->wr_set_inline_data_list = set_inline_data_list;
    ex->wr_send_tso = refuse_tso;
    ex->wr_set_xrc_srqn = set_xrc_srqn;
    ex->wr_atomic_write = wr_atomic_write;
    qp->newer.wr_flush = wr_flush;
}
