/* QP numbers of this function -> QPs. Numbers are handed out by a cursor that goes round, from a
 * random start: a packet that is late finds nobody for as long as possible. Indices 0 and 1 are
 * kept out: of function 0 they are the management QPs. */
#include "hca/qp.h"
#include <errno.h>

enum { FIRST_INDEX = 2, NINDEX = HCA_MAX_QP - FIRST_INDEX };

int qpt_add(struct hca *hca, struct hca_qp *qp)
{
    for (uint32_t i = 0; i < NINDEX; i++) {
        uint32_t index = FIRST_INDEX + (hca->qpt_cursor + i) % NINDEX;
        if (hca->qpt[index]) continue;
        hca->qpt[index] = qp;
        hca->qpt_cursor = (index - FIRST_INDEX + 1) % NINDEX;
        qp->qpn = (qpn_t)hca->conf.function << HCA_INDEX_BITS | index;
        return 0;
    }
    return -ENOMEM;
}

void qpt_del(struct hca *hca, struct hca_qp *qp) { hca->qpt[qp->qpn & (HCA_MAX_QP - 1)] = NULL; }

struct hca_qp *qpt_find(const struct hca *hca, qpn_t qpn)
{
    if (qpn >> HCA_INDEX_BITS != hca->conf.function) return NULL;
    return hca->qpt[qpn & (HCA_MAX_QP - 1)];
}
