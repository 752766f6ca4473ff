/* hca_qp_modify: which transitions there are, and which attributes each wants or allows (IBTA
 * 11.2.4.2, table "QP state transition properties"; ibv_modify_qp(3)). The table is total: a pair
 * that is not in it is not valid. A refused call changes nothing. */
#include "base/must.h"
#include "hca/qp.h"
#include <errno.h>

#define M(name) HCA_QP_##name

struct masks {
    uint32_t required, optional;
};

struct transition {
    bool valid;
    struct masks rc, uc, ud, ini, tgt;
};

#define RESET HCA_QPS_RESET
#define INIT HCA_QPS_INIT
#define RTR HCA_QPS_RTR
#define RTS HCA_QPS_RTS
#define SQD HCA_QPS_SQD
#define SQE HCA_QPS_SQE
#define ERR HCA_QPS_ERR

/* clang-format off */
#define RESET_INIT_CONN {M(PKEY_INDEX) | M(PORT) | M(ACCESS_FLAGS), 0}
#define INIT_INIT_CONN  {0, M(PKEY_INDEX) | M(PORT) | M(ACCESS_FLAGS)}
#define RTR_CONN        (M(AV) | M(PATH_MTU) | M(DEST_QPN) | M(RQ_PSN))
#define RTR_CONN_OPT    (M(PKEY_INDEX) | M(ACCESS_FLAGS) | M(ALT_PATH))
#define RUN_UC          (M(CUR_STATE) | M(ACCESS_FLAGS) | M(ALT_PATH) | M(PATH_MIG_STATE))
#define RUN_RC          (RUN_UC | M(MIN_RNR_TIMER))
#define RUN_UD          (M(CUR_STATE) | M(QKEY))
/* An initiator responds to nothing, a target requests nothing (annex A14; ib_modify_qp_is_ok). */
#define RTR_RESPONDS         (RTR_CONN | M(MAX_DEST_RD_ATOMIC) | M(MIN_RNR_TIMER))
#define RTS_REQUESTS         (M(SQ_PSN) | M(TIMEOUT) | M(RETRY_CNT) | M(RNR_RETRY) | M(MAX_QP_RD_ATOMIC))
#define SQD_INI         (SQD_UC | M(PORT) | M(TIMEOUT) | M(RETRY_CNT) | M(RNR_RETRY) |             \
                         M(MAX_QP_RD_ATOMIC))
#define SQD_TGT         (SQD_UC | M(PORT) | M(TIMEOUT) | M(MAX_DEST_RD_ATOMIC) | M(MIN_RNR_TIMER))
#define SQD_UC          (M(AV) | M(PKEY_INDEX) | M(ACCESS_FLAGS) | M(ALT_PATH) | M(PATH_MIG_STATE))
#define SQD_RC          (SQD_UC | M(PORT) | M(TIMEOUT) | M(RETRY_CNT) | M(RNR_RETRY) |             \
                         M(MAX_QP_RD_ATOMIC) | M(MAX_DEST_RD_ATOMIC) | M(MIN_RNR_TIMER))

#define RUNNING                                                                                    \
    {true, .rc = {0, RUN_RC}, .uc = {0, RUN_UC}, .ud = {0, RUN_UD}, .ini = {0, RUN_UC},            \
     .tgt = {0, RUN_RC}}

static const struct transition table[ERR + 1][ERR + 1] = {
    [RESET] = {
        [RESET] = {true},
        [INIT] = {true, .rc = RESET_INIT_CONN, .uc = RESET_INIT_CONN,
                  .ini = RESET_INIT_CONN, .tgt = RESET_INIT_CONN,
                  .ud = {M(PKEY_INDEX) | M(PORT) | M(QKEY), 0}},
        [ERR] = {true},
    },
    [INIT] = {
        [RESET] = {true},
        [INIT] = {true, .rc = INIT_INIT_CONN, .uc = INIT_INIT_CONN,
                  .ini = INIT_INIT_CONN, .tgt = INIT_INIT_CONN,
                  .ud = {0, M(PKEY_INDEX) | M(PORT) | M(QKEY)}},
        [RTR] = {true,
                 .rc = {RTR_RESPONDS, RTR_CONN_OPT},
                 .uc = {RTR_CONN, RTR_CONN_OPT},
                 .ini = {RTR_CONN, RTR_CONN_OPT},
                 .tgt = {RTR_RESPONDS, RTR_CONN_OPT},
                 .ud = {0, M(PKEY_INDEX) | M(QKEY)}},
        [ERR] = {true},
    },
    [RTR] = {
        [RESET] = {true},
        [RTS] = {true,
                 .rc = {RTS_REQUESTS, RUN_RC},
                 .uc = {M(SQ_PSN), RUN_UC},
                 .ini = {RTS_REQUESTS, RUN_UC},
                 .tgt = {M(SQ_PSN) | M(TIMEOUT), RUN_RC},
                 .ud = {M(SQ_PSN), RUN_UD}},
        [ERR] = {true},
    },
    [RTS] = {
        [RESET] = {true},
        [RTS] = RUNNING,
        [SQD] = {true, .rc = {0, M(EN_SQD_ASYNC_NOTIFY)}, .uc = {0, M(EN_SQD_ASYNC_NOTIFY)},
                 .ud = {0, M(EN_SQD_ASYNC_NOTIFY)}, .ini = {0, M(EN_SQD_ASYNC_NOTIFY)},
                 .tgt = {0, M(EN_SQD_ASYNC_NOTIFY)}},
        [ERR] = {true},
    },
    [SQD] = {
        [RESET] = {true},
        [RTS] = RUNNING,
        [SQD] = {true, .rc = {0, SQD_RC}, .uc = {0, SQD_UC}, .ud = {0, M(PKEY_INDEX) | M(QKEY)},
                 .ini = {0, SQD_INI}, .tgt = {0, SQD_TGT}},
        [ERR] = {true},
    },
    [SQE] = { /* UC and UD; an RC QP never comes here */
        [RESET] = {true},
        [RTS] = {true, .uc = {0, M(CUR_STATE) | M(ACCESS_FLAGS)}, .ud = {0, RUN_UD}},
        [ERR] = {true},
    },
    [ERR] = {
        [RESET] = {true},
        [ERR] = {true},
    },
};
/* clang-format on */

static const struct masks *masks_of(const struct transition *t, enum hca_qp_type type)
{
    switch (type) {
    case HCA_QPT_RC: return &t->rc;
    case HCA_QPT_UC: return &t->uc;
    case HCA_QPT_UD: return &t->ud;
    case HCA_QPT_XRC_SEND: return &t->ini;
    case HCA_QPT_XRC_RECV: return &t->tgt;
    }
    must(!"a QP is of one of these types");
    return NULL;
}

static int check_masks(const struct hca_qp *qp, enum hca_qp_state next, uint32_t mask)
{
    const struct transition *t = &table[qp->state][next];
    if (!t->valid) return -EINVAL;
    const struct masks *masks = masks_of(t, qp->type);
    mask &= ~(uint32_t)HCA_QP_STATE;
    /* An attribute of the send queue of any type, since IBTA's table was made. */
    if (next == RTS && qp->state != SQE && qp->type != HCA_QPT_XRC_RECV)
        mask &= ~(uint32_t)HCA_QP_RATE_LIMIT;
    if ((mask & masks->required) != masks->required) return -EINVAL;
    if (mask & ~(masks->required | masks->optional)) return -EINVAL;
    /* The port has no alternate path to load, as a device without automatic path migration. */
    if (mask & HCA_QP_ALT_PATH) return -EOPNOTSUPP;
    return 0;
}

static int check_values(const struct hca_qp *qp, const struct hca_qp_attr *a, uint32_t mask)
{
    /* Programs pass the flags of their regions; five of them mean something to a QP. */
    const uint32_t access = HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_WRITE |
                            HCA_ACCESS_REMOTE_READ | HCA_ACCESS_REMOTE_ATOMIC | HCA_ACCESS_MW_BIND |
                            HCA_ACCESS_ZERO_BASED | HCA_ACCESS_ON_DEMAND | HCA_ACCESS_HUGETLB |
                            HCA_ACCESS_RELAXED_ORDERING | HCA_ACCESS_FLUSH_GLOBAL |
                            HCA_ACCESS_FLUSH_PERSISTENT;
    if ((mask & HCA_QP_ACCESS_FLAGS) && (a->access & ~access)) return -EINVAL;
    if ((mask & HCA_QP_PKEY_INDEX) && a->pkey_index != 0) return -EINVAL;
    if ((mask & HCA_QP_PORT) && a->port_num != 1) return -EINVAL;
    if ((mask & HCA_QP_PATH_MTU) &&
        (a->path_mtu < 1 || a->path_mtu > 5 || 128u << a->path_mtu > qp->hca->mtu))
        return -EINVAL;
    if ((mask & HCA_QP_TIMEOUT) && a->timeout > 31) return -EINVAL;
    if ((mask & HCA_QP_RETRY_CNT) && a->retry_cnt > 7) return -EINVAL;
    if ((mask & HCA_QP_RNR_RETRY) && a->rnr_retry > 7) return -EINVAL;
    if ((mask & HCA_QP_MIN_RNR_TIMER) && a->min_rnr_timer > 31) return -EINVAL;
    if ((mask & HCA_QP_MAX_QP_RD_ATOMIC) && a->max_rd_atomic > HCA_MAX_RD_ATOMIC) return -EINVAL;
    if ((mask & HCA_QP_MAX_DEST_RD_ATOMIC) && a->max_dest_rd_atomic > HCA_MAX_RD_ATOMIC)
        return -EINVAL;
    if ((mask & HCA_QP_RATE_LIMIT) && a->rate_limit > HCA_MAX_RATE_KBPS) return -EINVAL;
    if ((mask & HCA_QP_DEST_QPN) && a->dest_qpn > 0xffffff) return -EINVAL;
    if (mask & HCA_QP_AV) {
        if (gid_is_zero(&a->av.dgid) || gid_is_ipv4(&a->av.sgid) != gid_is_ipv4(&a->av.dgid))
            return -EINVAL;
        if (a->av.port_num != 0 && a->av.port_num != 1) return -EINVAL;
    }
    return 0;
}

static void take_values(struct hca_qp *qp, const struct hca_qp_attr *a, uint32_t mask)
{
    struct hca_qp_attr *to = &qp->attr;
    if (mask & HCA_QP_EN_SQD_ASYNC_NOTIFY) to->en_sqd_async_notify = a->en_sqd_async_notify;
    if (mask & HCA_QP_ACCESS_FLAGS) to->access = a->access;
    if (mask & HCA_QP_PKEY_INDEX) to->pkey_index = a->pkey_index;
    if (mask & HCA_QP_PORT) to->port_num = a->port_num;
    if (mask & HCA_QP_QKEY) to->qkey = a->qkey;
    if (mask & HCA_QP_AV) to->av = a->av;
    if (mask & HCA_QP_PATH_MTU) {
        to->path_mtu = a->path_mtu;
        qp->mtu = 128u << a->path_mtu;
    }
    if (mask & HCA_QP_TIMEOUT) to->timeout = a->timeout;
    if (mask & HCA_QP_RETRY_CNT) to->retry_cnt = a->retry_cnt;
    if (mask & HCA_QP_RNR_RETRY) to->rnr_retry = a->rnr_retry;
    if (mask & HCA_QP_RQ_PSN) to->rq_psn = psn_of(a->rq_psn.v);
    if (mask & HCA_QP_SQ_PSN) to->sq_psn = psn_of(a->sq_psn.v);
    if (mask & HCA_QP_MAX_QP_RD_ATOMIC) to->max_rd_atomic = a->max_rd_atomic;
    if (mask & HCA_QP_MAX_DEST_RD_ATOMIC) to->max_dest_rd_atomic = a->max_dest_rd_atomic;
    if (mask & HCA_QP_MIN_RNR_TIMER) to->min_rnr_timer = a->min_rnr_timer;
    if (mask & HCA_QP_DEST_QPN) to->dest_qpn = a->dest_qpn;
    if (mask & HCA_QP_RATE_LIMIT) qp_rate_set(qp, a->rate_limit, 0);
}

static void to_rtr(struct hca_qp *qp)
{
    qp->state = RTR;
    if (qp_is_reliable(qp)) rc_to_rtr(qp);
    if (qp->type == HCA_QPT_UC) uc_to_rtr(qp);
}

static void to_rts(struct hca_qp *qp)
{
    bool starts = qp->state == RTR;
    qp->state = RTS;
    qp->attr.sq_draining = false;
    if (starts && qp_is_reliable(qp)) rc_to_rts(qp);
    if (starts && qp->type == HCA_QPT_UC) uc_to_rts(qp);
    agenda_ready(qp);
}

int hca_qp_modify(struct hca *hca, struct hca_qp *qp, const struct hca_qp_attr *attr, uint32_t mask,
                  when_t now)
{
    if ((mask & HCA_QP_CUR_STATE) && attr->cur_state != qp->state) return -EINVAL;
    enum hca_qp_state next = mask & HCA_QP_STATE ? attr->state : qp->state;
    if ((unsigned)next > ERR) return -EINVAL;
    int err = check_masks(qp, next, mask);
    if (err == 0) err = check_values(qp, attr, mask);
    if (err < 0) return err;
    /* Packets of the requests that drain still use the old path. */
    if (qp->state == SQD && next == SQD && qp->attr.sq_draining && (mask & ~(uint32_t)M(STATE)))
        return -EINVAL;

    enum hca_qp_state before = qp->state;
    take_values(qp, attr, mask);
    switch (next) {
    case RESET: qp_to_reset(qp); break;
    case INIT: qp->state = INIT; break;
    case RTR: to_rtr(qp); break;
    case RTS: to_rts(qp); break;
    case SQD:
        if (before == RTS) qp_to_sqd(qp);
        break;
    case SQE: must(!"no transition leads here by request"); break;
    case ERR: qp_fail(qp, now); break;
    }
    if (qp_is_reliable(qp) && before == next && next >= RTS && next <= SQD)
        rc_attr_changed(qp);
    else if (qp_is_reliable(qp) && before == SQD && next == RTS)
        rc_attr_changed(qp);
    cq_fail_overrun(hca, now);
    return 0;
}
