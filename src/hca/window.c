/* How much an RC requester may have unacknowledged. Neighbours: rc_req.c asks before it sends,
 * rc_comp.c and rc.c report what became of it.
 *
 * InfiniBand's own fabric never drops; ours ends in a socket's receive buffer of perhaps 200 KB
 * that all QPs of the peer share. So each QP has a window in bytes, READ data that it has asked for
 * included: slow start from conf.start_window, then one packet more per window, cut by half for a
 * loss, once per window. A timer that strikes proves no loss: until it is known what there was
 * (rc_doubt.c), one packet goes out at a time and nothing is cut.
 *
 * Above the QPs stands conf.inflight_cap. Each QP that has bytes out or wants to may have an equal
 * share of it, though always one packet; where even that is too much, QPs wait in hca->starved and
 * are woken in order, ahead of the QP whose bytes came back. */
#include "hca/window.h"
#include "base/must.h"
#include "hca/adapter.h"
#include "hca/qp.h"

#define DEFAULT_MAX_WINDOW (1u << 20)
#define DEFAULT_START_WINDOW (64u << 10)

/* A packet costs its overhead at least, so this bounds the PSNs unacknowledged: RC_MAX_UNACKED. */
#define MOST_WINDOW (RC_MAX_UNACKED / 2 * WINDOW_PACKET_OVERHEAD)

static uint32_t max_window(const struct hca *hca)
{
    uint32_t most = hca->conf.max_window ? hca->conf.max_window : DEFAULT_MAX_WINDOW;
    return most < MOST_WINDOW ? most : MOST_WINDOW;
}

static uint32_t start_window(const struct hca *hca)
{
    uint32_t start = hca->conf.start_window ? hca->conf.start_window : DEFAULT_START_WINDOW;
    return start < max_window(hca) ? start : max_window(hca);
}

static uint64_t cap(const struct hca *hca)
{
    return hca->conf.inflight_cap ? hca->conf.inflight_cap : UINT32_MAX;
}

static bool waits(const struct window *w) { return !list_empty(&w->starved); }

/* A QP takes part while it has bytes out or wants room. */
static bool is_user(const struct window *w) { return w->in_flight || waits(w) || w->woken; }

static void count_user(struct hca *hca, const struct window *w, bool before)
{
    bool after = is_user(w);
    if (before == after) return;
    if (after)
        hca->inflight_users++;
    else
        hca->inflight_users--;
    uint32_t users = hca->inflight_users;
    hca->inflight_share = (uint32_t)(users > 1 ? cap(hca) / users : cap(hca));
}

/* Is there room for `cost` more bytes, what is kept for others aside? An idle adapter always has.
 */
static bool has_room(const struct hca *hca, const struct window *w, uint32_t cost)
{
    uint64_t kept = hca->inflight_reserved - (w->woken ? w->packet : 0);
    uint64_t used = hca->inflight + kept;
    return used == 0 || used + cost <= cap(hca);
}

/* The QPs that have waited longest get their turn: as many as have room for a packet each, which is
 * kept for them meanwhile. */
static void wake(struct hca *hca)
{
    while (!list_empty(&hca->starved)) {
        struct hca_qp *qp = container_of(hca->starved.next, struct hca_qp, rc.window.starved);
        struct window *w = &qp->rc.window;
        if (!has_room(hca, w, w->packet)) return;
        list_del(&w->starved);
        w->woken = true;
        hca->inflight_reserved += w->packet;
        agenda_ready(qp);
    }
}

static void end_reservation(struct hca *hca, struct window *w)
{
    if (!w->woken) return;
    w->woken = false;
    hca->inflight_reserved -= w->packet;
}

static void give_back(struct hca *hca, struct window *w, uint32_t cost)
{
    if (!cost) return;
    must(hca->inflight >= cost && w->in_flight >= cost);
    w->in_flight -= cost;
    hca->inflight -= cost;
    count_user(hca, w, true);
    if (!list_empty(&hca->starved)) wake(hca);
}

void window_start(struct hca *hca, struct window *w, uint32_t mtu)
{
    window_stop(hca, w);
    uint32_t packet = mtu + WINDOW_PACKET_OVERHEAD, size = start_window(hca);
    *w = (struct window){.packet = packet, .threshold = max_window(hca)};
    w->size = size > packet ? size : packet;
    list_init(&w->starved);
}

void window_stop(struct hca *hca, struct window *w)
{
    bool before = is_user(w);
    if (waits(w)) list_del(&w->starved);
    end_reservation(hca, w);
    hca->inflight -= w->in_flight;
    w->in_flight = 0;
    count_user(hca, w, before);
    if (!list_empty(&hca->starved)) wake(hca);
}

void window_turn_over(struct hca *hca, struct window *w)
{
    if (!w->woken) return;
    end_reservation(hca, w);
    count_user(hca, w, true);
    if (!list_empty(&hca->starved)) wake(hca);
}

uint32_t window_room(const struct hca *hca, const struct window *w)
{
    uint32_t limit = w->size;
    if (w->probing) return 0;
    if (hca->inflight_users > 1 && hca->inflight_share < limit) limit = hca->inflight_share;
    if (limit < w->packet) limit = w->packet;
    return limit > w->in_flight ? limit - w->in_flight : 0;
}

bool window_admit(struct hca *hca, struct window *w, uint32_t cost)
{
    if (w->in_flight && cost > window_room(hca, w)) {
        if (!w->probing) w->filled = w->in_flight;
        return false;
    }
    if (!has_room(hca, w, cost)) {
        bool before = is_user(w);
        if (!waits(w)) list_add_tail(&hca->starved, &w->starved);
        end_reservation(hca, w);
        count_user(hca, w, before);
        return false;
    }
    return true;
}

void window_sent(struct hca *hca, struct window *w, uint32_t cost)
{
    bool before = is_user(w);
    if (waits(w)) list_del(&w->starved);
    end_reservation(hca, w);
    w->in_flight += cost;
    hca->inflight += cost;
    count_user(hca, w, before);
}

void window_acked(struct hca *hca, struct window *w, uint32_t cost)
{
    /* After a rewind more can be acknowledged than was sent since. */
    give_back(hca, w, cost < w->in_flight ? cost : w->in_flight);
    uint32_t full = cost < w->filled ? cost : w->filled;
    if (full == 0) return;
    w->filled -= full;
    if (w->size < w->threshold) {
        w->size += full;
    } else {
        w->credit += full;
        if (w->credit < w->size) return;
        w->credit -= w->size;
        w->size += w->packet;
    }
    if (w->size > max_window(hca)) w->size = max_window(hca);
    if (w->size < w->packet) w->size = w->packet;
}

void window_rewound(struct hca *hca, struct window *w) { give_back(hca, w, w->in_flight); }

void window_resumed(struct hca *hca, struct window *w, uint32_t cost)
{
    window_rewound(hca, w);
    window_sent(hca, w, cost);
}

void window_cut(struct window *w, psn_t una, psn_t top)
{
    if (w->recovering && psn_diff(una, w->recover) < 0) return;
    w->recovering = true;
    w->recover = top;
    w->size /= 2;
    if (w->size < w->packet) w->size = w->packet;
    w->threshold = w->size;
    w->credit = w->filled = 0;
}

void window_probe(struct window *w) { w->probing = true; }

void window_probe_over(struct window *w) { w->probing = false; }

void window_ack_seen(struct window *w, psn_t una)
{
    if (w->recovering && psn_diff(una, w->recover) >= 0) w->recovering = false;
}

void window_moved(const struct hca *hca, struct window *w)
{
    w->probing = w->recovering = false;
    w->credit = 0;
    if (w->size > start_window(hca)) w->size = start_window(hca);
    if (w->size < w->packet) w->size = w->packet;
}
