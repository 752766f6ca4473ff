/* When QPs want to be woken (a binary heap of deadlines), and which may have packets (a list,
 * served in turns by hca_output). Every QP is in each at most once. */
#include "base/must.h"
#include "hca/qp.h"
#include <errno.h>
#include <stdlib.h>

int agenda_reserve(struct hca *hca, uint32_t nqps)
{
    if (nqps <= hca->heap_room) return 0;
    uint32_t room = hca->heap_room ? hca->heap_room * 2 : 16;
    while (room < nqps) room *= 2;
    struct hca_qp **heap = realloc(hca->heap, room * sizeof *heap);
    if (!heap) return -ENOMEM;
    hca->heap = heap;
    hca->heap_room = room;
    return 0;
}

void agenda_ready(struct hca_qp *qp)
{
    if (list_empty(&qp->turn)) list_add_tail(&qp->hca->ready, &qp->turn);
}

static void put(struct hca *hca, uint32_t at, struct hca_qp *qp)
{
    hca->heap[at] = qp;
    qp->agenda_slot = at + 1;
}

static void sift_up(struct hca *hca, uint32_t at, struct hca_qp *qp)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (!when_before(qp->deadline, hca->heap[parent]->deadline)) break;
        put(hca, at, hca->heap[parent]);
        at = parent;
    }
    put(hca, at, qp);
}

static void sift_down(struct hca *hca, uint32_t at, struct hca_qp *qp)
{
    for (;;) {
        uint32_t child = at * 2 + 1;
        if (child >= hca->heap_len) break;
        if (child + 1 < hca->heap_len &&
            when_before(hca->heap[child + 1]->deadline, hca->heap[child]->deadline))
            child++;
        if (!when_before(hca->heap[child]->deadline, qp->deadline)) break;
        put(hca, at, hca->heap[child]);
        at = child;
    }
    put(hca, at, qp);
}

static void drop(struct hca *hca, struct hca_qp *qp)
{
    uint32_t at = qp->agenda_slot - 1;
    must(at < hca->heap_len && hca->heap[at] == qp);
    qp->agenda_slot = 0;
    struct hca_qp *last = hca->heap[--hca->heap_len];
    if (last == qp) return;
    if (at > 0 && when_before(last->deadline, hca->heap[(at - 1) / 2]->deadline))
        sift_up(hca, at, last);
    else
        sift_down(hca, at, last);
}

void agenda_deadline(struct hca_qp *qp, when_t when)
{
    struct hca *hca = qp->hca;
    when_t before = qp->deadline;
    if (before.ns == when.ns) return;
    qp->deadline = when;
    if (when_is_never(when)) {
        drop(hca, qp);
    } else if (qp->agenda_slot == 0) {
        must(hca->heap_len < hca->heap_room);
        sift_up(hca, hca->heap_len++, qp);
    } else if (when_before(when, before)) {
        sift_up(hca, qp->agenda_slot - 1, qp);
    } else {
        sift_down(hca, qp->agenda_slot - 1, qp);
    }
}
