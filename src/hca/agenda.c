/* When QPs want to be woken (a heap of deadlines), and which may have packets (a list, served in
 * turns by hca_output). Every QP is in each at most once. */
#include "hca/qp.h"

int agenda_reserve(struct hca *hca, uint32_t nqps) { return heap_reserve(&hca->alarms, nqps); }

void agenda_ready(struct hca_qp *qp)
{
    if (list_empty(&qp->turn)) list_add_tail(&qp->hca->ready, &qp->turn);
}

void agenda_deadline(struct hca_qp *qp, when_t when)
{
    heap_set(&qp->hca->alarms, &qp->alarm, when);
}
