/* The byte window of one RC requester, and its part in what all of an adapter may have in flight:
 * see window.c. */
#ifndef RBOND_HCA_WINDOW_H
#define RBOND_HCA_WINDOW_H

#include "base/list.h"
#include "wire/roce.h"
#include <stdbool.h>
#include <stdint.h>

struct hca;

/* Added to each packet's payload: a kernel charges a receive buffer for its sk_buff and
 * skb_shared_info too, so that 270 empty packets fill 200 KB as surely as 45 large ones. */
#define WINDOW_PACKET_OVERHEAD 512u

struct window {
    uint32_t size, threshold; /* slow start below the threshold */
    uint32_t credit;          /* bytes acknowledged since the last linear step */
    uint32_t in_flight;
    uint32_t packet; /* one full packet with its overhead: the least window */
    uint32_t filled; /* of these, what filled it: the rest does not let it grow */
    bool probing;    /* one packet at a time: a timer has struck */
    bool woken;      /* room is kept for one packet of it until its turn is over */
    bool recovering; /* cut for a loss below `recover`: not cut again before */
    psn_t recover;
    struct list starved; /* in hca->starved: waits for the others' bytes */
};

void window_start(struct hca *hca, struct window *w, uint32_t mtu);
void window_stop(struct hca *hca, struct window *w);
/* Bytes that this QP may add now; at least one packet where nothing is in flight. */
uint32_t window_room(const struct hca *hca, const struct window *w);
/* May `cost` more bytes go? False: the window is full, or all of the adapter's bytes are out, in
 * which case the QP gets its turn (agenda_ready) when some come back. */
bool window_admit(struct hca *hca, struct window *w, uint32_t cost);
void window_sent(struct hca *hca, struct window *w, uint32_t cost);
void window_acked(struct hca *hca, struct window *w, uint32_t cost);
/* The QP had its turn and has no more to send: what was kept for it goes to the next. */
void window_turn_over(struct hca *hca, struct window *w);
/* All in flight counts as lost, or will be sent again. */
void window_rewound(struct hca *hca, struct window *w);
/* That was wrong: `cost` is in flight. */
void window_resumed(struct hca *hca, struct window *w, uint32_t cost);
/* Losses and their signs. `una` and `top` as in rc_req.h. */
void window_cut(struct window *w, psn_t una, psn_t top);
/* One packet at a time from now on, until it is over. */
void window_probe(struct window *w);
void window_probe_over(struct window *w);
void window_ack_seen(struct window *w, psn_t una);
void window_moved(const struct hca *hca, struct window *w);

#endif
