/* A bond listens to a multicast group on every member, because nobody knows by which the others
 * send. Where two members lead to one switch each datagram arrives by both. Twins have the same
 * sender, source QPN and PSN, which a UD sender counts up with every datagram, and come within
 * moments of each other; what comes again by the same member is none: its sender began anew.
 *
 * One flow per sending QP; the one that was silent for longest is forgotten for a new one. */
#include "hca/twins.h"
#include <stdlib.h>
#include <string.h>

enum {
    FLOWS = 64,
    /* PSNs remembered: members' receive queues are emptied in turn, some hundred packets each. */
    WINDOW = 1024,
};
/* After such a silence a flow begins anew. */
#define SILENCE_NS (100 * MS_NS)

struct flow {
    struct gid src;
    qpn_t sqpn;
    bool used;
    psn_t newest;
    when_t heard;
    uint8_t member[WINDOW]; /* at PSN modulo WINDOW: by which it came, plus 1; 0: not yet */
};

struct twins {
    struct flow flow[FLOWS];
};

struct twins *twins_new(void) { return calloc(1, sizeof(struct twins)); }
void twins_free(struct twins *twins) { free(twins); }

static uint8_t *cell(struct flow *f, psn_t psn) { return &f->member[psn.v % WINDOW]; }

static void begin(struct flow *f, psn_t newest)
{
    memset(f->member, 0, sizeof f->member);
    f->newest = newest;
}

static struct flow *flow_of(struct twins *twins, const struct hca_rx *rx, const struct roce_hdr *h)
{
    struct flow *oldest = &twins->flow[0];
    for (size_t i = 0; i < FLOWS; i++) {
        struct flow *f = &twins->flow[i];
        if (f->used && f->sqpn == h->deth.sqpn && gid_equal(&f->src, &rx->src)) return f;
        if (oldest->used && (!f->used || when_before(f->heard, oldest->heard))) oldest = f;
    }
    *oldest = (struct flow){.src = rx->src, .sqpn = h->deth.sqpn, .used = true, .newest = h->psn};
    return oldest;
}

bool twins_heard(struct twins *twins, const struct hca_rx *rx, const struct roce_hdr *h, when_t now)
{
    if (rx->member >= STEER_MAX_MEMBERS) return false;
    struct flow *f = flow_of(twins, rx, h);
    int32_t ahead = psn_diff(h->psn, f->newest);
    if (ahead >= WINDOW || ahead <= -WINDOW || when_since(now, f->heard) > SILENCE_NS) {
        begin(f, h->psn);
    } else if (ahead > 0) {
        for (int32_t i = 1; i <= ahead; i++) *cell(f, psn_add(f->newest, (uint32_t)i)) = 0;
        f->newest = h->psn;
    }
    f->heard = now;
    uint8_t *came_by = cell(f, h->psn), me = (uint8_t)(rx->member + 1);
    if (*came_by && *came_by != me) return true;
    *came_by = me;
    return false;
}
