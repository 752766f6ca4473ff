/* See link.h. */
#include "sim/link.h"

static when_t arrival(struct link *l, struct rng *rng, when_t now, bool *overtakes)
{
    when_t at = when_add(now, l->profile.delay_ns);
    if (l->profile.jitter_ns) at = when_add(at, rng_below(rng, l->profile.jitter_ns));
    if (when_before(at, l->last_arrival)) {
        if (l->profile.reorder) {
            *overtakes = true;
            l->overtaken++;
            return at;
        }
        at = l->last_arrival;
    }
    l->last_arrival = at;
    return at;
}

struct link_fate link_carry(struct link *l, struct rng *rng, when_t now)
{
    struct link_fate f = {0};
    if (when_before(now, l->burst_until)) {
        f.lost = true;
    } else if (rng_ppm(rng, l->profile.burst_loss_ppm)) {
        l->burst_until = when_add(now, rng_range(rng, 5 * US_NS, 200 * US_NS));
        f.lost = true;
    } else {
        f.lost = rng_ppm(rng, l->profile.loss_ppm);
    }
    if (f.lost) {
        l->lost++;
        return f;
    }
    f.copies = 1;
    f.marked = rng_ppm(rng, l->profile.mark_ppm);
    f.arrive[0] = arrival(l, rng, now, &f.overtakes);
    if (rng_ppm(rng, l->profile.corrupt_ppm)) {
        f.corrupt = true;
        l->corrupted++;
    }
    if (rng_ppm(rng, l->profile.dup_ppm)) {
        f.copies = 2;
        f.arrive[1] = arrival(l, rng, now, &f.overtakes);
        /* Some copies take the long way round. */
        if (l->profile.reorder && rng_percent(rng, 30))
            f.arrive[1] = when_add(f.arrive[1], rng_below(rng, (20 * MS_NS) >> rng_below(rng, 12)));
        l->doubled++;
    }
    return f;
}

void link_corrupt(struct datagram *d, struct rng *rng)
{
    uint32_t body = d->len - ROCE_ICRC_LEN;
    uint64_t flips = rng_range(rng, 1, 8);
    for (uint64_t i = 0; i < flips; i++) {
        uint32_t bit = (uint32_t)rng_below(rng, (uint64_t)body * 8);
        d->bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    d->corrupted = true;
}
