/* See world.h. */
#include "sim/world.h"
#include "base/must.h"
#include "sim/wing.h"
#include "wire/ip.h"
#include <stdlib.h>
#include <string.h>

#define EGRESS_QUEUE_NS (100 * US_NS) /* what a member's driver takes before it pushes back */
#define LOOPBACK_NS (2 * US_NS)
#define HOLD_MAX_NS (40 * US_NS)
#define PULLS_AT_ONCE 4
#define SAME_MOMENT_MAX 20000

static void deliver(void *ctx, uint64_t arg);

void world_init(struct world *w, uint64_t seed)
{
    *w = (struct world){.rng = {mix64(seed ^ 0x77)}, .now = {SEC_NS}};
    w->trace.hash = seed;
    w->notice_max_ns = 5 * MS_NS;
}

void world_free(struct world *w)
{
    struct event e;
    while (timeline_pop(&w->timeline, &e))
        if (e.fn == deliver) free((void *)(uintptr_t)e.arg);
    timeline_free(&w->timeline);
    for (uint8_t i = 0; i < w->nhosts; i++) {
        struct host *h = &w->host[i];
        for (uint32_t k = h->rxq_head; k != h->rxq_tail; k++) free(h->rxq[k % h->rxq_room]);
        free(h->rxq);
        hca_free(h->hca);
        hca_free(h->wing);
    }
}

void world_at(struct world *w, uint64_t delay_ns, void (*fn)(void *ctx, uint64_t arg), void *ctx,
              uint64_t arg)
{
    timeline_at(&w->timeline, when_add(w->now, delay_ns), fn, ctx, arg);
}

/* ---- the bond ----------------------------------------------------------------------------- */

static void apply(struct host *h, const struct bond_change *change)
{
    struct world *w = h->world;
    if (!change->table) return;
    const struct steering *t = &h->bond.table;
    hca_steer(h->hca, t, w->now);
    if (h->wing) hca_steer(h->wing, t, w->now);
    trace_bytes(&w->trace, t->active, STEER_MAX_MEMBERS);
    trace_line(&w->trace, w->now, "steers    h%u generation %u, bucket 0 on %d", h->index,
               t->generation, t->active[0] == STEER_NO_MEMBER ? -1 : t->active[0]);
    world_kick(h);
    if (w->hooks.paths_changed) w->hooks.paths_changed(w->hooks.ctx);
}

static void start_bond(struct host *h, const struct host_conf *conf)
{
    struct bond_conf b = {.mode = conf->mode,
                          .updelay_ns = conf->updelay_ns,
                          .downdelay_ns = conf->downdelay_ns,
                          .nmembers = conf->nmembers,
                          .primary = STEER_NO_MEMBER};
    /* The links came up long ago: nothing is rising any more. */
    when_t then = {h->world->now.ns - SEC_NS / 2};
    must(bond_init(&h->bond, &b, then) == 0);
    for (uint8_t i = 0; i < h->nmembers; i++) bond_link(&h->bond, i, true, true, then);
    struct bond_change change = bond_expire(&h->bond, h->world->now);
    change.table = true;
    apply(h, &change);
}

static void add_wing(struct host *h, const struct host_conf *conf)
{
    struct hca_conf wing = conf->hca;
    h->function = conf->hca.function;
    h->wing_function = wing.function = conf->wing_function;
    h->xrcd = conf->xrcd;
    h->line_ns = conf->line_ns;
    if (!conf->wing_function) return;
    wing.seed++;
    h->wing = hca_new(&wing);
    must(h->wing);
    if (conf->hca_speed) hca_set_speed(h->wing, conf->hca_speed);
}

struct host *world_add_host(struct world *w, const struct host_conf *conf)
{
    must(w->nhosts < WORLD_MAX_HOSTS && conf->nmembers >= 1 && conf->nmembers <= WORLD_MAX_MEMBERS);
    struct host *h = &w->host[w->nhosts];
    *h = (struct host){
        .world = w,
        .index = w->nhosts++,
        .nmembers = conf->nmembers,
        .hold_percent = conf->hold_percent,
        .tx_burst = conf->tx_burst,
        .rx_burst = conf->rx_burst,
        .rx_room = conf->rx_room,
        .rx_wake_ns = conf->rx_wake_ns,
        .rx_cost_ns = conf->rx_cost_ns,
        .timer_lag_ns = conf->timer_lag_ns,
        .rxq_room = 64,
    };
    must(h->tx_burst >= 1 && h->tx_burst <= 64 && h->rx_burst >= 1);
    h->rxq = malloc(h->rxq_room * sizeof *h->rxq);
    h->hca = hca_new(&conf->hca);
    must(h->rxq && h->hca);
    add_wing(h, conf);
    if (conf->hca_speed) hca_set_speed(h->hca, conf->hca_speed);
    if (conf->ipv6) {
        const uint8_t prefix[8] = {0xfd, 0, 0, 0, 0, 0, 0, 1};
        memcpy(h->gid.raw, prefix, sizeof prefix);
        h->gid.raw[15] = (uint8_t)(h->index + 1);
        h->group = (struct gid){{0xff, 0x15, [15] = 1}};
    } else {
        const uint8_t mapped[16] = {[10] = 0xff, 0xff, 10, 0, 0, (uint8_t)(h->index + 1)};
        memcpy(h->gid.raw, mapped, sizeof mapped);
        h->group = (struct gid){{[10] = 0xff, [11] = 0xff, 239, 0, 0, 1}};
    }
    for (uint8_t i = 0; i < h->nmembers; i++) {
        h->nic[i].carrier = h->nic[i].seen = true;
        for (uint8_t j = 0; j < WORLD_MAX_HOSTS; j++) h->nic[i].to[j].profile = conf->link;
    }
    start_bond(h, conf);
    return h;
}

static void notice(void *ctx, uint64_t arg)
{
    struct host *h = ctx;
    struct world *w = h->world;
    struct nic *m = &h->nic[arg];
    if (m->seen == m->carrier) return;
    m->seen = m->carrier;
    trace_line(&w->trace, w->now, "notices   h%u.%u %s", h->index, (unsigned)arg,
               m->seen ? "up" : "down");
    struct bond_change change = bond_link(&h->bond, (uint8_t)arg, m->seen, true, w->now);
    apply(h, &change);
}

static void set_carrier(struct world *w, struct host *h, uint8_t member, bool carrier)
{
    if (h->nic[member].carrier == carrier) return;
    h->nic[member].carrier = carrier;
    world_at(w, rng_below(&w->rng, w->notice_max_ns + 1), notice, h, member);
}

void world_cut(struct world *w, uint8_t host, uint8_t member, bool tx, bool rx, bool carrier)
{
    struct host *h = &w->host[host];
    struct nic *m = &h->nic[member];
    m->tx_cut = m->tx_cut || tx;
    m->rx_cut = m->rx_cut || rx;
    trace_line(&w->trace, w->now, "cuts      h%u.%u%s%s%s", host, member, tx ? " tx" : "",
               rx ? " rx" : "", carrier ? "" : " silently");
    if (carrier) set_carrier(w, h, member, false);
    if (w->hooks.paths_changed) w->hooks.paths_changed(w->hooks.ctx);
}

void world_mend(struct world *w, uint8_t host, uint8_t member)
{
    struct host *h = &w->host[host];
    h->nic[member].tx_cut = h->nic[member].rx_cut = false;
    trace_line(&w->trace, w->now, "mends     h%u.%u", host, member);
    set_carrier(w, h, member, true);
    if (w->hooks.paths_changed) w->hooks.paths_changed(w->hooks.ctx);
}

/* ---- a packet's way ------------------------------------------------------------------------- */

/* The member of `to` that a packet sent on `src_member` arrives at. */
static uint8_t ingress(const struct world *w, const struct host *to, uint8_t src_member,
                       uint64_t flow)
{
    if (w->fabric == FABRIC_PAIRED) return (uint8_t)(src_member % to->nmembers);
    uint8_t up[WORLD_MAX_MEMBERS], n = 0;
    for (uint8_t i = 0; i < to->nmembers; i++)
        if (to->nic[i].carrier) up[n++] = i;
    return n ? up[mix64(flow) % n] : 0;
}

bool world_path_ok(const struct world *w, uint8_t from, uint8_t to, uint8_t bucket)
{
    const struct host *a = &w->host[from], *b = &w->host[to];
    uint8_t m = a->bond.table.active[bucket];
    if (m == STEER_NO_MEMBER) return false;
    if (from == to) return true;
    if (a->nic[m].tx_cut) return false;
    if (w->fabric == FABRIC_PAIRED) return !b->nic[m % b->nmembers].rx_cut;
    bool some = false;
    for (uint8_t i = 0; i < b->nmembers; i++) {
        if (!b->nic[i].carrier) continue;
        if (b->nic[i].rx_cut) return false; /* the hash may pick it */
        some = true;
    }
    return some;
}

static void fault(struct world *w, struct datagram *d, enum fault why, const char *word)
{
    trace_packet(&w->trace, w->now, word, d);
    if (w->hooks.fault) w->hooks.fault(w->hooks.ctx, d, why);
}

static void release_acks(void *ctx, uint64_t arg)
{
    struct host *h = ctx;
    h->holding = false;
    hca_hold_acks(h->hca, false);
    if (h->wing) hca_hold_acks(h->wing, false);
    world_kick(h);
}

/* A driver may let acknowledgements wait for what the program is about to send. */
static void hold_acks(struct host *h)
{
    struct world *w = h->world;
    if (h->holding || !rng_percent(&w->rng, h->hold_percent)) return;
    h->holding = true;
    hca_hold_acks(h->hca, true);
    if (h->wing) hca_hold_acks(h->wing, true);
    world_at(w, rng_below(&w->rng, HOLD_MAX_NS), release_acks, h, 0);
}

/* The kernel's steering program. */
static struct hca *function_of(const struct host *h, qpn_t dqpn)
{
    return h->wing && dqpn >> HCA_INDEX_BITS == h->wing_function ? h->wing : h->hca;
}

static void rx_serve(void *ctx, uint64_t arg)
{
    struct host *h = ctx;
    struct world *w = h->world;
    uint32_t n = 0;
    for (; n < h->rx_burst && h->rxq_head != h->rxq_tail; n++) {
        struct datagram *d = h->rxq[h->rxq_head++ % h->rxq_room];
        h->rx_bytes -= d->len;
        struct hca_rx rx;
        if (sim_port_rx(d, &rx)) {
            h->received++;
            hca_input(function_of(h, d->dqpn), &rx, w->now);
        } else {
            h->icrc_errors++;
            hca_count_bad_rx(h->hca);
            fault(w, d, FAULT_CORRUPT, "bad icrc");
        }
        free(d);
    }
    hold_acks(h);
    wing_pull(h);
    world_kick(h);
    if (w->hooks.ran) w->hooks.ran(w->hooks.ctx, h);
    h->rx_running = h->rxq_head != h->rxq_tail;
    if (h->rx_running) world_at(w, n * h->rx_cost_ns, rx_serve, h, 0);
}

static void enqueue(struct host *h, struct datagram *d)
{
    if (h->rxq_tail - h->rxq_head == h->rxq_room) {
        struct datagram **bigger = malloc(2 * h->rxq_room * sizeof *bigger);
        must(bigger);
        uint32_t n = h->rxq_tail - h->rxq_head;
        for (uint32_t i = 0; i < n; i++) bigger[i] = h->rxq[(h->rxq_head + i) % h->rxq_room];
        free(h->rxq);
        h->rxq = bigger;
        h->rxq_room *= 2;
        h->rxq_head = 0;
        h->rxq_tail = n;
    }
    h->rxq[h->rxq_tail++ % h->rxq_room] = d;
    h->rx_bytes += d->len;
}

static void deliver(void *ctx, uint64_t arg)
{
    struct host *h = ctx;
    struct world *w = h->world;
    struct datagram *d = (struct datagram *)(uintptr_t)arg;
    bool loopback = d->src_host == d->dst_host;
    const struct nic *from = &w->host[d->src_host].nic[d->src_member];
    if (!loopback && (from->tx_cut || h->nic[d->dst_member].rx_cut)) {
        fault(w, d, FAULT_CUT, "cut");
        free(d);
        return;
    }
    if (h->rx_bytes + d->len > h->rx_room) {
        h->tail_drops++;
        fault(w, d, FAULT_FULL, "tail drop");
        free(d);
        return;
    }
    trace_packet(&w->trace, w->now, "arrives", d);
    enqueue(h, d);
    if (h->rx_running) return;
    h->rx_running = true;
    world_at(w, h->rx_wake_ns, rx_serve, h, 0);
}

static struct datagram *copy_of(const struct datagram *d)
{
    struct datagram *c = malloc(sizeof *c + d->len);
    must(c);
    memcpy(c, d, sizeof *c + d->len);
    return c;
}

static void send_over_link(struct world *w, struct host *h, struct host *to, struct datagram *d)
{
    struct nic *m = &h->nic[d->src_member];
    when_t start = when_before(m->busy_until, w->now) ? w->now : m->busy_until;
    uint64_t wire = d->len + DATAGRAM_WIRE_OVERHEAD;
    if (w->bytes_per_ms) start = when_add(start, wire * MS_NS / w->bytes_per_ms);
    m->busy_until = start;
    if (m->tx_cut || to->nic[d->dst_member].rx_cut) {
        fault(w, d, FAULT_CUT, "cut");
        free(d);
        return;
    }
    struct link_fate f = link_carry(&m->to[to->index], &w->rng, start);
    if (f.lost) {
        fault(w, d, FAULT_LOST, "lost");
        free(d);
        return;
    }
    if (f.marked && (d->traffic_class & ECN_MASK)) d->traffic_class |= ECN_CE;
    if (f.copies == 2)
        timeline_at(&w->timeline, f.arrive[1], deliver, to, (uint64_t)(uintptr_t)copy_of(d));
    if (rng_ppm(&w->rng, w->forge_ppm)) sim_port_forge(d, rng_u64(&w->rng));
    if (f.corrupt) link_corrupt(d, &w->rng);
    timeline_at(&w->timeline, f.arrive[0], deliver, to, (uint64_t)(uintptr_t)d);
}

static void send_copy(struct host *h, struct host *to, uint8_t member, const struct datagram *d)
{
    struct datagram *c = copy_of(d);
    c->dst_host = to->index;
    c->dst_member = member;
    if (to == h && member == d->src_member)
        world_at(h->world, LOOPBACK_NS, deliver, to, (uint64_t)(uintptr_t)c);
    else
        send_over_link(h->world, h, to, c);
}

/* To every host, this one included. A switch floods all its ports but the one it came by. */
static void send_to_group(struct host *h, struct datagram *d)
{
    struct world *w = h->world;
    trace_packet(&w->trace, w->now, "sends", d);
    send_copy(h, h, d->src_member, d);
    for (uint8_t i = 0; i < w->nhosts; i++) {
        struct host *to = &w->host[i];
        if (w->fabric == FABRIC_PAIRED && to != h)
            send_copy(h, to, (uint8_t)(d->src_member % to->nmembers), d);
        for (uint8_t m = 0; w->fabric == FABRIC_SWITCH && m < to->nmembers; m++)
            if (to->nic[m].carrier && !(to == h && m == d->src_member)) send_copy(h, to, m, d);
    }
    free(d);
}

static void send_packet(struct host *h, const struct hca_tx *tx)
{
    struct world *w = h->world;
    must(tx->member < h->nmembers && gid_equal(&tx->src, &h->gid));
    if (!(h->bond.table.usable >> tx->member & 1))
        w->broken = "a packet leaves by a member that is not usable";
    struct datagram *d = sim_port_tx(tx, (uint16_t)rng_u64(&w->rng));
    w->packets++;
    h->sent++;
    d->src_host = h->index;
    if (gid_is_multicast(&d->dst)) {
        send_to_group(h, d);
        return;
    }
    struct host *to = NULL;
    for (uint8_t i = 0; i < w->nhosts; i++)
        if (gid_equal(&w->host[i].gid, &d->dst)) to = &w->host[i];
    must(to);
    d->dst_host = to->index;
    d->dst_member = ingress(w, to, d->src_member, d->sport ^ (uint64_t)h->index << 20);
    trace_packet(&w->trace, w->now, "sends", d);
    if (to == h)
        world_at(w, LOOPBACK_NS, deliver, to, (uint64_t)(uintptr_t)d);
    else
        send_over_link(w, h, to, d);
}

/* The latest moment that some member of this host is busy until. */
static when_t egress_busy(const struct host *h)
{
    when_t busy = {0};
    for (uint8_t i = 0; i < h->nmembers; i++)
        if (when_before(busy, h->nic[i].busy_until)) busy = h->nic[i].busy_until;
    return busy;
}

static size_t output(struct host *h, struct hca_tx *tx)
{
    when_t now = h->world->now;
    size_t n = hca_output(h->hca, tx, h->tx_burst, now);
    if (n || !h->wing) return n;
    n = hca_output(h->wing, tx, h->tx_burst, now);
    wing_pull(h); /* what a READ wants */
    return n;
}

static void pump(void *ctx, uint64_t arg)
{
    struct host *h = ctx;
    struct world *w = h->world;
    struct hca_tx tx[64];
    h->pump_due = false;
    for (int round = 0;; round++) {
        uint64_t backlog = when_since(egress_busy(h), w->now);
        if (backlog > EGRESS_QUEUE_NS || round == PULLS_AT_ONCE) {
            h->pump_due = true;
            world_at(w, backlog > EGRESS_QUEUE_NS ? backlog - EGRESS_QUEUE_NS / 2 : 500, pump, h,
                     0);
            break;
        }
        size_t n = output(h, tx);
        must(n <= h->tx_burst);
        for (size_t i = 0; i < n; i++) send_packet(h, &tx[i]);
        if (n == 0) break;
    }
    if (w->hooks.ran) w->hooks.ran(w->hooks.ctx, h);
}

void world_kick(struct host *host)
{
    if (host->pump_due) return;
    host->pump_due = true;
    world_at(host->world, rng_below(&host->world->rng, 400), pump, host, 0);
}

void world_counters(const struct host *h, struct hca_counters *c)
{
    const struct hca_counters *more = h->wing ? hca_counters(h->wing) : NULL;
    *c = *hca_counters(h->hca);
#define X(name)                                                                                    \
    if (more) c->name += more->name;
    HCA_COUNTERS(X)
#undef X
}

/* ---- the run loop --------------------------------------------------------------------------- */

/* The earliest deadline of an adapter (`bond` false) or a bond, and whose it is. */
static when_t functions_deadline(const struct host *h)
{
    when_t at = hca_deadline(h->hca);
    return h->wing ? when_min(at, hca_deadline(h->wing)) : at;
}

static struct host *next_deadline(struct world *w, when_t *at, bool *bond)
{
    struct host *which = NULL;
    *at = NEVER;
    for (uint8_t i = 0; i < 2 * w->nhosts; i++) {
        struct host *h = &w->host[i / 2];
        when_t d = i & 1 ? bond_deadline(&h->bond) : functions_deadline(h);
        d = when_add(d, h->timer_lag_ns);
        if (when_is_never(d)) continue;
        if (when_before(d, w->now)) d = w->now;
        if (!when_before(d, *at)) continue;
        *at = d;
        *bond = i & 1;
        which = h;
    }
    return which;
}

static void strike(struct world *w, struct host *h, bool bond)
{
    if (bond) {
        struct bond_change change = bond_expire(&h->bond, w->now);
        apply(h, &change);
    } else {
        hca_expire(h->hca, w->now);
        if (h->wing) hca_expire(h->wing, w->now);
    }
    wing_pull(h);
    world_kick(h);
    if (w->hooks.ran) w->hooks.ran(w->hooks.ctx, h);
}

bool world_step(struct world *w)
{
    when_t deadline, before = w->now;
    bool bond = false;
    if (w->broken) return false;
    struct host *h = next_deadline(w, &deadline, &bond);
    if (!when_before(timeline_next(&w->timeline), deadline)) {
        if (!h) return false;
        w->now = deadline;
        strike(w, h, bond);
    } else {
        struct event e;
        timeline_pop(&w->timeline, &e);
        must(!when_before(e.at, w->now));
        w->now = e.at;
        e.fn(e.ctx, e.arg);
    }
    w->steps = w->now.ns == before.ns ? w->steps + 1 : 0;
    if (w->steps > SAME_MOMENT_MAX)
        w->broken = "time stands still: a deadline that expiry leaves past";
    return true;
}
