/* Completion queues. The engine produces, under its owner's lock; one thread at a time polls, under
 * none. All else here runs under the lock, and what moves entries (resize, forget, destroy) with
 * the consumer kept out besides. */
#include "hca/cq.h"
#include "base/must.h"
#include "hca/qp.h"
#include <errno.h>
#include <stdlib.h>

static uint32_t entries_for(uint32_t cqe)
{
    uint32_t entries = 1;
    while (entries < cqe) entries *= 2;
    return entries;
}

size_t hca_cq_bytes(uint32_t cqe)
{
    if (cqe == 0 || cqe > HCA_MAX_CQE) return 0;
    return entries_for(cqe) * sizeof(struct hca_wc);
}

int hca_cq_create_in(struct hca *hca, uint32_t *cqe, void *owner, void *ring, struct hca_cq **out)
{
    if (*cqe == 0 || *cqe > HCA_MAX_CQE) return -EINVAL;
    struct hca_cq *cq = aligned_alloc(alignof(struct hca_cq), sizeof *cq);
    if (!cq) return -ENOMEM;
    memset(cq, 0, sizeof *cq);
    if (!ring) ring = cq->own = calloc(1, hca_cq_bytes(*cqe));
    if (!ring) {
        free(cq);
        return -ENOMEM;
    }
    cq->ring = ring;
    *cqe = entries_for(*cqe);
    cq->mask = *cqe - 1;
    cq->hca = hca;
    cq->events.owner = owner;
    list_add_tail(&hca->cqs, &cq->all);
    *out = cq;
    return 0;
}

int hca_cq_create(struct hca *hca, uint32_t *cqe, void *owner, struct hca_cq **out)
{
    return hca_cq_create_in(hca, cqe, owner, NULL, out);
}

void hca_cq_ignore_overrun(struct hca_cq *cq) { cq->ignore_overrun = true; }

int hca_cq_destroy(struct hca *hca, struct hca_cq *cq)
{
    if (cq->users) return -EBUSY;
    event_forget(&cq->events);
    list_del(&cq->notified);
    list_del(&cq->overrun_node);
    list_del(&cq->moderation.node);
    list_del(&cq->all);
    free(cq->own);
    free(cq);
    return 0;
}

int hca_cq_resize_in(struct hca *hca, struct hca_cq *cq, uint32_t *cqe, void *ring)
{
    uint32_t head = atomic_load_explicit(&cq->head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(&cq->tail, memory_order_relaxed);
    if (*cqe == 0 || *cqe > HCA_MAX_CQE || *cqe < tail - head) return -EINVAL;
    void *own = ring ? NULL : calloc(1, hca_cq_bytes(*cqe));
    struct hca_wc *to = ring ? ring : own;
    if (!to) return -ENOMEM;
    *cqe = entries_for(*cqe);
    for (uint32_t i = head; i != tail; i++) to[i & (*cqe - 1)] = cq->ring[i & cq->mask];
    free(cq->own);
    cq->own = own;
    cq->ring = to;
    cq->mask = *cqe - 1;
    return 0;
}

int hca_cq_resize(struct hca *hca, struct hca_cq *cq, uint32_t *cqe)
{
    return hca_cq_resize_in(hca, cq, cqe, NULL);
}

int hca_cq_poll(struct hca_cq *cq, struct hca_wc *wc, int max)
{
    uint32_t head = atomic_load_explicit(&cq->head, memory_order_relaxed);
    /* Acquire: pairs with the release of `tail` in cq_push; entries before it are whole, and so is
     * the data that they speak of. */
    uint32_t tail = atomic_load_explicit(&cq->tail, memory_order_acquire);
    if (head == tail) {
        /* Acquire: pairs with the release of `overran` in cq_push, after which `tail` stands still.
         */
        if (!atomic_load_explicit(&cq->overran, memory_order_acquire)) return 0;
        tail = atomic_load_explicit(&cq->tail, memory_order_acquire);
        if (head == tail) return -EOVERFLOW;
    }
    int n = 0;
    while (n < max && head != tail) wc[n++] = cq->ring[head++ & cq->mask];
    /* Release: pairs with the acquire of `head` in cq_push: the entries are copied, they may go. */
    atomic_store_explicit(&cq->head, head, memory_order_release);
    return n;
}

static void fire(struct hca_cq *cq)
{
    cq->armed = CQ_NOT_ARMED;
    cq->announced_end = atomic_load_explicit(&cq->tail, memory_order_relaxed);
    cq->moderation.held = 0;
    list_del(&cq->moderation.node);
    if (list_empty(&cq->notified)) list_add_tail(&cq->hca->notified, &cq->notified);
}

/* The completions before `end` that are not polled yet. */
static uint32_t waiting(const struct hca_cq *cq, uint32_t end)
{
    /* Acquire: as in cq_push. */
    uint32_t head = atomic_load_explicit(&cq->head, memory_order_acquire);
    return (int32_t)(end - head) > 0 ? end - head : 0;
}

/* ibv_req_notify_cq(3): one event for the next completion after the call; to ask for any includes
 * to ask for solicited ones, and is not taken back by asking for these alone.
 *
 * IBTA promises no event for what is in the queue already. Adapters give one, and programs lean on
 * it: UCX arms and sleeps without another look, perftest looks once and takes 16. The usual
 * program, which an event woke and which arms before it polls, has its one completion from that
 * event. */
void hca_cq_arm(struct hca *hca, struct hca_cq *cq, bool solicited)
{
    enum cq_armed kind = solicited ? CQ_ARMED_SOLICITED : CQ_ARMED_ANY;
    uint32_t tail = atomic_load_explicit(&cq->tail, memory_order_relaxed);
    uint32_t left = waiting(cq, solicited ? cq->solicited_end : tail);

    if (cq->armed < kind) cq->armed = kind;
    if (cq->moderation.held) return; /* its notification is on the way */
    if (left > 1 || (left == 1 && !waiting(cq, cq->announced_end))) fire(cq);
}

void *hca_next_notified(struct hca *hca)
{
    if (list_empty(&hca->notified)) return NULL;
    struct hca_cq *cq = container_of(hca->notified.next, struct hca_cq, notified);
    list_del(&cq->notified);
    return cq->events.owner;
}

/* ---- moderation -------------------------------------------------------------------------- */

void hca_cq_moderate(struct hca *hca, struct hca_cq *cq, uint32_t count, uint64_t period_ns)
{
    cq->moderation.count = count;
    cq->moderation.period_ns = period_ns;
    if (cq->moderation.held) fire(cq); /* by the old rule it might never come */
}

/* Among those held back, behind all that are due before. */
static void hold(struct hca_cq *cq, when_t now)
{
    struct cq_moderation *m = &cq->moderation;
    struct list *at = cq->hca->moderated.prev;

    m->due = m->period_ns ? when_add(now, m->period_ns) : NEVER;
    while (at != &cq->hca->moderated &&
           when_before(m->due, container_of(at, struct hca_cq, moderation.node)->moderation.due))
        at = at->prev;
    list_add_tail(at->next, &m->node);
}

/* An armed CQ got what it is armed for. */
static void wanted(struct hca_cq *cq, when_t now)
{
    struct cq_moderation *m = &cq->moderation;

    m->held++;
    if ((m->count == 0 && m->period_ns == 0) || (m->count != 0 && m->held >= m->count))
        fire(cq);
    else if (m->held == 1)
        hold(cq, now);
}

when_t hca_cq_deadline(const struct hca *hca)
{
    if (list_empty(&hca->moderated)) return NEVER;
    return container_of(hca->moderated.next, struct hca_cq, moderation.node)->moderation.due;
}

void hca_cq_expire(struct hca *hca, when_t now)
{
    while (when_due(hca_cq_deadline(hca), now))
        fire(container_of(hca->moderated.next, struct hca_cq, moderation.node));
}

/* ---- completing -------------------------------------------------------------------------- */

static void overrun(struct hca_cq *cq)
{
    /* Release: pairs with the acquire in hca_cq_poll. */
    atomic_store_explicit(&cq->overran, true, memory_order_release);
    event_raise(cq->hca, &cq->events, HCA_EVENT_CQ_ERR);
    list_add_tail(&cq->hca->overrun, &cq->overrun_node);
    if (cq->armed != CQ_NOT_ARMED) fire(cq);
}

void cq_push(struct hca_cq *cq, const struct hca_wc *wc, bool solicited, when_t now)
{
    struct hca_counters *counters = &cq->hca->counters;
    if (wc->status == HCA_WC_WR_FLUSH_ERR)
        counters->cqe_flush_error++;
    else if (wc->status != HCA_WC_SUCCESS)
        counters->cqe_error++;
    if (atomic_load_explicit(&cq->overran, memory_order_relaxed)) return;

    uint32_t tail = atomic_load_explicit(&cq->tail, memory_order_relaxed);
    if (tail - cq->head_seen > cq->mask) {
        /* Acquire: pairs with the release of `head` in hca_cq_poll. */
        cq->head_seen = atomic_load_explicit(&cq->head, memory_order_acquire);
        if (tail - cq->head_seen > cq->mask) {
            if (!cq->ignore_overrun) overrun(cq);
            return;
        }
    }
    struct hca_wc *slot = &cq->ring[tail & cq->mask];
    *slot = *wc;
    slot->stamp_ns = now.ns;
    /* Release: pairs with the acquire of `tail` in hca_cq_poll. */
    atomic_store_explicit(&cq->tail, tail + 1, memory_order_release);
    if (wc->status != HCA_WC_SUCCESS) solicited = true;
    if (solicited) cq->solicited_end = tail + 1;
    if (cq->armed == CQ_ARMED_ANY || (cq->armed == CQ_ARMED_SOLICITED && solicited))
        wanted(cq, now);
}

void cq_forget_qp(struct hca_cq *cq, qpn_t qpn)
{
    uint32_t head = atomic_load_explicit(&cq->head, memory_order_acquire);
    uint32_t tail = atomic_load_explicit(&cq->tail, memory_order_relaxed);
    uint32_t kept = head;
    for (uint32_t i = head; i != tail; i++) {
        if (cq->ring[i & cq->mask].qpn == qpn) continue;
        if (kept != i) cq->ring[kept & cq->mask] = cq->ring[i & cq->mask];
        kept++;
    }
    atomic_store_explicit(&cq->tail, kept, memory_order_release);
    /* Which of the kept ones those were is not known any more: at worst an event too many. */
    cq->solicited_end = kept;
    cq->announced_end = head;
}

void cq_fail_overrun(struct hca *hca, when_t now)
{
    /* A failing QP flushes, and may overrun its other CQ: that one then waits at the list's end.
     * Each CQ overruns once, so this ends. */
    while (!list_empty(&hca->overrun)) {
        struct hca_cq *cq = container_of(hca->overrun.next, struct hca_cq, overrun_node);
        list_del(&cq->overrun_node);
        list_for_each (node, &hca->qps) {
            struct hca_qp *qp = container_of(node, struct hca_qp, all);
            if (qp->send_cq == cq || qp->recv_cq == cq) qp_fail(qp, now);
        }
        list_for_each (node, &hca->srqs) {
            struct hca_srq *srq = container_of(node, struct hca_srq, all);
            if (srq->cq == cq) srq_fail(srq);
        }
    }
}
