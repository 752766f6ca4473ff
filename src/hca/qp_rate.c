/* A QP's rate limit (IBV_QP_RATE_LIMIT, ibv_modify_qp_rate_limit(3)): of what its send queue sends.
 * What it owes in return, ACKs and READ responses, is the peer's doing and goes at once. */
#include "hca/qp.h"
#include <errno.h>

enum { DEFAULT_BURST = 16 };

int hca_qp_rate_limit(struct hca *hca, struct hca_qp *qp, uint32_t kbps, uint32_t burst)
{
    if (qp->state != HCA_QPS_RTS || qp->type == HCA_QPT_XRC_RECV || kbps > HCA_MAX_RATE_KBPS)
        return -EINVAL;
    qp_rate_set(qp, kbps, burst);
    return 0;
}

void qp_rate_set(struct hca_qp *qp, uint32_t kbps, uint32_t burst)
{
    uint32_t mtu = qp->type == HCA_QPT_UD ? qp->hca->mtu : qp->mtu;
    uint32_t packets = burst / mtu;

    pace_limit(&qp->limit, kbps);
    qp->attr.rate_limit = kbps;
    qp->limit_burst = burst == 0 ? DEFAULT_BURST : packets ? packets : 1;
    agenda_ready(qp); /* it may have been held by the old one */
}

size_t qp_rate_room(struct hca_qp *qp, size_t max, when_t now)
{
    if (qp->limit.bytes_per_sec == 0) return max;
    if (pace_admits(&qp->limit, now)) return max < qp->limit_burst ? max : qp->limit_burst;
    when_t at = pace_resume_at(&qp->limit);
    if (when_before(at, qp->alarm.when)) agenda_deadline(qp, at);
    return 0;
}

void qp_rate_sent(struct hca_qp *qp, const struct hca_tx *tx, size_t n, bool more, when_t now)
{
    if (qp->limit.bytes_per_sec == 0) return;
    pace_sent(&qp->limit, tx, n, now);
    if (more) agenda_ready(qp);
}
