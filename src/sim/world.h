/* The world: hosts, the links between them, and the clock. Nothing runs beside anything else: the
 * run loop takes the earliest of all events and all adapters' deadlines, and time jumps there.
 *
 * A host is an adapter, its steering table, its members (ports) and a receive socket of limited
 * size that is emptied at a limited rate. What drives programs on it is workload.c, through the
 * hooks. */
#ifndef RBOND_SIM_WORLD_H
#define RBOND_SIM_WORLD_H

#include "bond/bond.h"
#include "hca/hca.h"
#include "sim/link.h"
#include "sim/rng.h"
#include "sim/timeline.h"
#include "sim/trace.h"

#define WORLD_MAX_HOSTS 3
#define WORLD_MAX_MEMBERS 4

/* How members of different hosts are joined. */
enum fabric {
    FABRIC_PAIRED, /* member i reaches member i: one wire, or one switch, for each i */
    FABRIC_SWITCH, /* one switch: it picks any member of the receiver that has carrier */
};

struct nic {
    bool tx_cut, rx_cut; /* packets do not pass, whatever anyone knows */
    bool carrier;        /* what the hardware says */
    bool seen;           /* what the host has noticed so far */
    when_t busy_until;   /* serialising */
    struct link to[WORLD_MAX_HOSTS];
};

struct host {
    struct world *world;
    uint8_t index, nmembers;
    struct gid gid, group; /* group: the one multicast group there is */
    struct hca *hca;
    uint16_t function, wing_function;
    struct hca *wing; /* wing.h; NULL: none */
    uint32_t xrcd;    /* the domain of both */
    uint64_t line_ns; /* at most, each way */
    when_t line_last[2];
    bool line_full;
    struct bond bond;
    struct nic nic[WORLD_MAX_MEMBERS];
    /* the driver's habits, drawn from the seed */
    uint32_t tx_burst, rx_burst;
    uint64_t rx_wake_ns, rx_cost_ns; /* first packet after a pause; each packet */
    uint32_t hold_percent;           /* of receive bursts after which ACKs wait for company */
    uint64_t timer_lag_ns;           /* how late hca_expire is called */
    uint32_t rx_room;                /* bytes of the receive socket */
    /* the driver's state */
    struct datagram **rxq;
    uint32_t rxq_room, rxq_head, rxq_tail, rx_bytes;
    bool rx_running, pump_due, holding;
    uint64_t sent, received, tail_drops, icrc_errors;
};

enum fault { FAULT_LOST, FAULT_CORRUPT, FAULT_CUT, FAULT_FULL };

struct world_hooks {
    void *ctx;
    /* A packet will not arrive. */
    void (*fault)(void *ctx, const struct datagram *d, enum fault why);
    /* The adapter of this host has done something: completions and events may wait. */
    void (*ran)(void *ctx, struct host *host);
    /* A cut, a mend, or a new steering table. */
    void (*paths_changed)(void *ctx);
};

struct world {
    when_t now;
    struct rng rng;
    struct timeline timeline;
    struct trace trace;
    enum fabric fabric;
    uint64_t bytes_per_ms;  /* of every member; 0: infinite */
    uint64_t notice_max_ns; /* a carrier change is seen after 0 .. this */
    uint32_t forge_ppm;     /* packets replaced by forgeries */
    uint8_t nhosts;
    struct host host[WORLD_MAX_HOSTS];
    struct world_hooks hooks;
    uint64_t steps, packets;
    const char *broken; /* the run loop itself saw something impossible */
};

struct host_conf {
    uint8_t nmembers;
    enum bond_mode mode;
    uint64_t updelay_ns, downdelay_ns;
    bool ipv6;
    struct hca_conf hca;
    uint16_t wing_function; /* 0: no wing */
    uint32_t xrcd;
    uint64_t line_ns;
    uint64_t hca_speed; /* bytes per second, for hca_set_speed; 0: none */
    struct link_profile link;
    uint32_t tx_burst, rx_burst, rx_room, hold_percent;
    uint64_t rx_wake_ns, rx_cost_ns, timer_lag_ns;
};

void world_init(struct world *w, uint64_t seed);
void world_free(struct world *w);
struct host *world_add_host(struct world *w, const struct host_conf *conf);
/* What the host's functions have counted together. */
void world_counters(const struct host *h, struct hca_counters *c);

/* Runs what comes next; false when nothing will ever happen again, or something broke. */
bool world_step(struct world *w);
/* The adapter may have packets: pull them soon. */
void world_kick(struct host *host);
void world_at(struct world *w, uint64_t delay_ns, void (*fn)(void *ctx, uint64_t arg), void *ctx,
              uint64_t arg);

/* What happens to ports. `carrier` tells whether the hardware notices. */
void world_cut(struct world *w, uint8_t host, uint8_t member, bool tx, bool rx, bool carrier);
void world_mend(struct world *w, uint8_t host, uint8_t member);
/* Would a packet of this bucket get from `from` to `to` now, links' chances apart? */
bool world_path_ok(const struct world *w, uint8_t from, uint8_t to, uint8_t bucket);

#endif
