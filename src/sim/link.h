/* A link: what lies between a member of one host and the hosts behind it. Delay, jitter, loss,
 * duplication, corruption, marks of congestion, bandwidth with a short egress queue. One struct per (host, member,
 * destination host), one direction. Cuts belong to the ports at its ends (world.h). */
#ifndef RBOND_SIM_LINK_H
#define RBOND_SIM_LINK_H

#include "base/when.h"
#include "sim/rng.h"
#include "sim/sim_port.h"

struct link_profile {
    uint64_t delay_ns;
    uint64_t jitter_ns; /* uniform extra, drawn per packet */
    bool reorder;       /* jitter may overtake; else arrivals stay in order */
    uint32_t loss_ppm, dup_ppm, corrupt_ppm;
    uint32_t mark_ppm; /* congestion experienced, of packets that can tell */
    uint32_t burst_loss_ppm; /* begins 5..200 us that lose everything */
};

struct link {
    struct link_profile profile;
    when_t last_arrival;
    when_t burst_until;
    uint64_t lost, doubled, corrupted, overtaken;
};

struct link_fate {
    bool lost, corrupt, marked;
    uint32_t copies; /* 0 when lost */
    when_t arrive[2];
    bool overtakes;
};

/* What becomes of a packet that leaves the port at `now`. */
struct link_fate link_carry(struct link *l, struct rng *rng, when_t now);
/* Flips 1..8 bits between BTH and the end of the pad. */
void link_corrupt(struct datagram *d, struct rng *rng);

#endif
