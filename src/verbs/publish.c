/* Writes the function page: counters and one view per QP, for rbondd's `rbond resource` and
 * `rbond statistic`. Whoever drives does so about every PUBLISH_NS; rbondd tolerates torn records,
 * so nothing here waits for it. */
#include "verbs/function.h"
#include <string.h>

#define PUBLISH_NS (10 * MS_NS)
/* Views per round: with more QPs than this a round takes several turns. */
#define PUBLISH_QPS 256

static_assert(sizeof(struct hca_counters) / 8 <= 64, "function_page.counters has room");

static struct hca_qp_view *slot(struct function *f, qpn_t qpn)
{
    return &f->out->qp[qpn & (HCA_MAX_QP - 1)];
}

void publish_qp(struct function *f, struct rb_qp *qp)
{
    if (qp->elsewhere) return; /* its own function does */
    struct hca_qp_view view;
    hca_qp_view(qp->hca, &view);
    *slot(f, view.qpn) = view;
}

void publish_qp_gone(struct function *f, qpn_t qpn)
{
    memset(slot(f, qpn), 0, sizeof(struct hca_qp_view));
}

static void publish_counters(struct function *f)
{
    struct hca_counters counters = *hca_counters(f->hca);
    uint64_t words[sizeof counters / 8];

    /* The adapter never sees what the port refuses. */
    const struct port_stats none = {0}, *stats = f->port ? &f->port->stats : &none;
    counters.rx_icrc_encapsulated = f->gone.rx_icrc_errors + stats->rx_icrc_errors;
    counters.tx_dropped = f->gone.tx_errors + stats->tx_errors;
    counters.rx_bad_header += counters.rx_icrc_encapsulated + f->gone.rx_short + stats->rx_short;
    memcpy(words, &counters, sizeof words);
    for (size_t i = 0; i < sizeof words / 8; i++)
        atomic_store_explicit(&f->out->counters[i], words[i], memory_order_relaxed);
    for (uint8_t m = 0; m < STEER_MAX_MEMBERS; m++)
        f->out->member[m] = *hca_member_counters(f->hca, m);
}

/* Some QPs from the head of the list, which then go to its tail: all get their turn. */
static void publish_qps(struct function *f)
{
    for (int i = 0; i < PUBLISH_QPS && !list_empty(&f->qps); i++) {
        struct rb_qp *qp = container_of(f->qps.next, struct rb_qp, link);
        if (i == 0)
            f->round_head = qp;
        else if (qp == f->round_head)
            return;
        publish_qp(f, qp);
        list_del(&qp->link);
        list_add_tail(&f->qps, &qp->link);
    }
}

void publish_now(struct function *f, when_t now)
{
    publish_counters(f);
    publish_qps(f);
    f->published = now;
    f->dirty = false;
}

void publish_if_due(struct function *f, when_t now)
{
    if (f->dirty && when_since(now, f->published) >= PUBLISH_NS) publish_now(f, now);
}
