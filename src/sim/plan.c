/* Drawing a plan: hosts, links, queue pairs, cuts, controls. The messages are in plan_messages.c.
 */
#include "sim/plan.h"
#include "base/must.h"
#include "sim/plan_messages.h"
#include <stdlib.h>
#include <string.h>

static const char *const profile_names[] = {
#define X(id, name) name,
    PROFILES(X)
#undef X
};

const char *profile_name(enum profile p) { return profile_names[p]; }

enum profile profile_named(const char *name)
{
    for (int i = 0; i < PROFILE_COUNT; i++)
        if (strcmp(name, profile_names[i]) == 0) return (enum profile)i;
    return PROFILE_COUNT;
}

static bool cuts_links(enum profile p) { return p >= PROFILE_CUTS && p <= PROFILE_STAYS_DOWN; }

/* ---- links and hosts ------------------------------------------------------------------------- */

static struct link_profile draw_link(struct plan *p, struct rng *rng)
{
    struct link_profile l = {
        .delay_ns = rng_percent(rng, 85) ? rng_range(rng, 500, 50 * US_NS)
                                         : rng_range(rng, 100 * US_NS, 2 * MS_NS),
        .jitter_ns = rng_percent(rng, 50) ? 0 : rng_range(rng, 0, 10 * US_NS),
    };
    bool mixed = p->profile == PROFILE_MIXED;
    if (p->profile == PROFILE_LOSSY || mixed) {
        l.loss_ppm = (uint32_t)rng_range(rng, 100, rng_percent(rng, 70) ? 10000 : 60000);
        if (rng_percent(rng, 30)) l.burst_loss_ppm = (uint32_t)rng_range(rng, 100, 3000);
    }
    if (p->profile == PROFILE_REORDER || mixed) {
        l.reorder = true;
        l.jitter_ns = rng_range(rng, 1 * US_NS, 200 * US_NS);
    }
    if (p->profile == PROFILE_DOUBLE) l.reorder = rng_percent(rng, 50);
    if (p->profile == PROFILE_DOUBLE || mixed)
        l.dup_ppm = (uint32_t)rng_range(rng, 1000, rng_percent(rng, 70) ? 50000 : 300000);
    if (p->profile == PROFILE_FAR) {
        l.delay_ns = rng_range(rng, 5 * MS_NS, 200 * MS_NS);
        l.jitter_ns = rng_percent(rng, 50) ? 0 : rng_range(rng, 0, l.delay_ns);
        l.reorder = rng_percent(rng, 25);
        l.loss_ppm = p->links_lose ? (uint32_t)rng_range(rng, 100, 10000) : 0;
        l.dup_ppm = rng_percent(rng, 30) ? (uint32_t)rng_range(rng, 1000, 50000) : 0;
    }
    if (rng_percent(rng, 20)) l.mark_ppm = (uint32_t)rng_range(rng, 1000, 300000);
    if (p->profile == PROFILE_CORRUPT || mixed)
        l.corrupt_ppm = (uint32_t)rng_range(rng, 100, rng_percent(rng, 70) ? 10000 : 50000);
    return l;
}

static void draw_host(struct plan *p, struct rng *rng, uint8_t i, struct link_profile link,
                      uint8_t nmembers, bool ipv6)
{
    static const uint32_t windows[] = {16 << 10, 64 << 10, 256 << 10, 1 << 20};
    uint32_t ceiling = windows[rng_below(rng, 4)];
    p->host[i] = (struct host_conf){
        .nmembers = nmembers,
        .mode = rng_percent(rng, 50) ? BOND_ACTIVE_BACKUP : BOND_BALANCE_XOR,
        .updelay_ns = rng_percent(rng, 70) ? 0 : rng_below(rng, 5 * MS_NS),
        .downdelay_ns = rng_percent(rng, 80) ? 0 : rng_below(rng, 2 * MS_NS),
        .ipv6 = ipv6,
        .link = link,
        .hca = {.function = (uint16_t)(1 + i * 3),
                .seed = rng_u64(rng),
                .max_window = ceiling,
                .start_window = rng_percent(rng, 50) ? 4096u << rng_below(rng, 3) : ceiling,
                .inflight_cap = ceiling * (1 + (uint32_t)rng_below(rng, 4))},
        .tx_burst = rng_percent(rng, 40) ? 64 : (uint32_t)rng_range(rng, 1, 32),
        .rx_burst = rng_percent(rng, 40) ? 64 : (uint32_t)rng_range(rng, 1, 16),
        .rx_room = 64 << 20,
        .hold_percent = rng_percent(rng, 70) ? 0 : (uint32_t)rng_range(rng, 10, 100),
        .rx_wake_ns = rng_range(rng, 100, 3000),
        .rx_cost_ns = rng_range(rng, 50, 600),
        .timer_lag_ns = rng_percent(rng, 50) ? 0 : rng_range(rng, 0, 200 * US_NS),
    };
    if (rng_percent(rng, 40))
        p->host[i].hca_speed = p->bytes_per_ms && rng_percent(rng, 50)
                                   ? p->bytes_per_ms * 1000
                                   : 1000000ull << rng_below(rng, 12);
    if (p->host[i].hca.start_window > ceiling) p->host[i].hca.start_window = ceiling;
    if (p->profile == PROFILE_TINY_SOCKET)
        p->host[i].rx_room = (uint32_t)rng_range(rng, 9000, 48 << 10);
    p->cq_mode[i] = (enum cq_mode)rng_below(rng, 3);
    p->cq_shared[i] = rng_percent(rng, 40);
}

static void draw_world(struct plan *p, struct rng *rng)
{
    static const uint64_t rates[] = {12500, 125000, 1250000, 1250000, 3125000, 0, 0};
    static const uint64_t notices[] = {0, 50 * US_NS, 500 * US_NS, 5 * MS_NS, 5 * MS_NS};
    p->bytes_per_ms = rates[rng_below(rng, 7)];
    p->notice_max_ns = notices[rng_below(rng, 5)];
    p->nhosts = rng_percent(rng, 75) ? 2 : 3;
    p->fabric = rng_percent(rng, 60) ? FABRIC_PAIRED : FABRIC_SWITCH;
    bool needs_two = p->profile >= PROFILE_CUTS && p->profile <= PROFILE_BOTH_ENDS;
    uint8_t members = (uint8_t)rng_range(rng, needs_two ? 2 : 1, WORLD_MAX_MEMBERS);
    bool ipv6 = rng_percent(rng, 40);
    struct link_profile link = draw_link(p, rng);
    for (uint8_t i = 0; i < p->nhosts; i++) {
        uint8_t n = members;
        if (p->fabric == FABRIC_SWITCH)
            n = (uint8_t)rng_range(rng, needs_two ? 2 : 1, WORLD_MAX_MEMBERS);
        draw_host(p, rng, i, link, n, ipv6);
    }
}

/* From a cut to the time that traffic has left the member. */
static uint64_t slowest_notice(const struct plan *p)
{
    uint64_t down = 0;
    for (uint8_t i = 0; i < p->nhosts; i++)
        if (p->host[i].downdelay_ns > down) down = p->host[i].downdelay_ns;
    return p->notice_max_ns + down + 200 * US_NS;
}

/* ---- queue pairs -------------------------------------------------------------------------------
 */

/* The smallest timeout exponent under which a healthy world never times out; of far hosts, one
 * whose retries together last for some round trips. */
static uint8_t least_timeout(const struct plan *p)
{
    uint64_t ns = 300 * US_NS, cap = 0;
    for (uint8_t i = 0; i < p->nhosts; i++) {
        const struct host_conf *h = &p->host[i];
        cap += h->hca.inflight_cap;
        ns += 2 * (h->link.delay_ns + h->link.jitter_ns + h->timer_lag_ns + h->rx_wake_ns);
    }
    ns += (uint64_t)p->npackets * 4 * 600;
    uint64_t bytes = (uint64_t)p->npackets * (4096 + DATAGRAM_WIRE_OVERHEAD);
    if (p->bytes_per_ms) ns += 2 * (bytes < cap ? bytes : cap) * MS_NS / p->bytes_per_ms;
    if (cuts_links(p->profile)) ns += slowest_notice(p);
    if (p->profile == PROFILE_FAR) ns = ns / 8 * 3;
    uint8_t e = 1;
    while (e < 22 && (4096ull << e) < ns) e++;
    return e;
}

static void draw_qp(struct plan *p, struct rng *rng, uint32_t i, enum hca_qp_type type,
                    uint8_t host, uint16_t peer, uint8_t mtu)
{
    uint8_t least = least_timeout(p);
    p->qp[i] = (struct plan_qp){
        .type = type,
        .host = host,
        .peer = peer,
        .mtu = mtu,
        .pd = (uint8_t)rng_below(rng, 2),
        .timeout = (uint8_t)rng_range(rng, least, least + 2),
        .retry_cnt = 7,
        .rnr_retry = 7,
        .min_rnr_timer = (uint8_t)rng_range(rng, 1, 12),
        .max_dest_rd_atomic = (uint8_t)rng_range(rng, 1, rng_percent(rng, 60) ? 4 : 16),
        .bucket = (uint8_t)rng_u64(rng),
        .send_depth = (uint32_t)rng_range(rng, 2, rng_percent(rng, 50) ? 8 : 64),
        .recv_depth = (uint32_t)rng_range(rng, 2, rng_percent(rng, 50) ? 8 : 64),
        .max_inline = rng_percent(rng, 50) ? (uint32_t)rng_range(rng, 1, 512) : 0,
        .max_sge = (uint32_t)rng_range(rng, 1, BUF_MAX_PLOTS),
        .sq_psn = (uint32_t)rng_u64(rng) & 0xffffff,
        .sig_all = rng_percent(rng, 30),
    };
    struct plan_qp *q = &p->qp[i];
    if (rng_percent(rng, 50)) q->sq_psn = 0xffffff - (uint32_t)rng_below(rng, 40);
    if (cuts_links(p->profile) && !p->must_survive) q->retry_cnt = (uint8_t)rng_range(rng, 1, 7);
    if (p->profile == PROFILE_STAYS_DOWN) q->retry_cnt = (uint8_t)rng_range(rng, 0, 3);
    if (p->profile == PROFILE_CLEAN && rng_percent(rng, 10)) q->timeout = 0;
    q->shared_receives = p->srq[host][q->pd].shared && rng_percent(rng, 60);
    q->rq.shared = q->shared_receives;
}

static void draw_qps(struct plan *p, struct rng *rng)
{
    for (uint8_t h = 0; h < p->nhosts; h++)
        for (int pd = 0; pd < 2; pd++) p->srq[h][pd].shared = rng_percent(rng, 30);
    uint32_t pairs = (uint32_t)rng_range(rng, 1, rng_percent(rng, 50) ? 2 : PLAN_MAX_QPS / 2);
    for (uint32_t c = 0; c < pairs; c++) {
        enum hca_qp_type type = rng_percent(rng, 76)   ? HCA_QPT_RC
                                : rng_percent(rng, 50) ? HCA_QPT_UC
                                                       : HCA_QPT_UD;
        uint8_t a = (uint8_t)rng_below(rng, p->nhosts);
        uint8_t b = (uint8_t)((a + 1 + rng_below(rng, p->nhosts - 1u)) % p->nhosts);
        if (rng_percent(rng, 5)) b = a;
        uint8_t mtu = (uint8_t)rng_range(rng, 1, 5);
        uint32_t i = p->nqps;
        draw_qp(p, rng, i, type, a, (uint16_t)(i + 1), mtu);
        draw_qp(p, rng, i + 1, type, b, (uint16_t)i, mtu);
        p->nqps += 2;
        for (int end = 0; end < 2; end++) {
            struct plan_qp *q = &p->qp[i + end], *peer = &p->qp[q->peer];
            q->rq_psn = peer->sq_psn;
            q->max_rd_atomic = (uint8_t)rng_range(rng, 1, peer->max_dest_rd_atomic);
        }
    }
}

/* Some RC connections are XRC's instead: requests go one way, to an SRQ by its number. */
static void draw_xrc(struct plan *p, struct rng *rng)
{
    for (uint32_t i = 0; i < p->nqps; i += 2) {
        struct plan_qp *ini = &p->qp[i], *tgt = &p->qp[i + 1];
        if (ini->type != HCA_QPT_RC || !rng_percent(rng, 20)) continue;
        ini->type = HCA_QPT_XRC_SEND;
        tgt->type = HCA_QPT_XRC_RECV;
        ini->shared_receives = ini->rq.shared = false;
        tgt->shared_receives = tgt->rq.shared = true;
        p->srq[tgt->host][plan_srq_of(tgt)].shared = true;
    }
}

/* Half of the hosts with XRC targets have these in another function than the SRQs. */
static void draw_wings(struct plan *p, struct rng *rng)
{
    for (uint32_t i = 0; i < p->nqps; i++) {
        struct host_conf *h = &p->host[p->qp[i].host];
        if (p->qp[i].type != HCA_QPT_XRC_RECV || h->wing_function || !rng_percent(rng, 50))
            continue;
        h->wing_function = (uint16_t)(h->hca.function + 1);
        h->xrcd = PLAN_XRCD;
        h->line_ns = rng_percent(rng, 20) ? 0 : rng_below(rng, 40 * US_NS);
    }
}

/* ---- what happens meanwhile ---------------------------------------------------------------------
 */

static uint64_t draw_moment(struct rng *rng)
{
    static const uint64_t scale[] = {20 * US_NS, 200 * US_NS, 2 * MS_NS, 10 * MS_NS};
    return rng_below(rng, scale[rng_below(rng, 4)]);
}

static void add_cut(struct plan *p, uint64_t at, uint64_t mend, uint8_t host, uint8_t member,
                    bool tx, bool rx, bool carrier)
{
    if (p->ncuts == PLAN_MAX_CUTS || member >= p->host[host].nmembers) return;
    p->cut[p->ncuts++] = (struct plan_cut){at, mend, host, member, tx, rx, carrier};
}

/* Cuts a wire: the port of one host, and its other end where there is just one. */
static void cut_wire(struct plan *p, uint64_t at, uint64_t mend, uint8_t host, uint8_t member,
                     bool carrier)
{
    add_cut(p, at, mend, host, member, true, true, carrier);
    if (p->fabric == FABRIC_PAIRED)
        for (uint8_t h = 0; h < p->nhosts; h++)
            if (h != host) add_cut(p, at, mend, h, member, true, true, carrier);
}

static uint64_t least_budget(const struct plan *p)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < p->nqps; i++) {
        const struct plan_qp *q = &p->qp[i];
        uint64_t b = (4096ull << q->timeout) * q->retry_cnt;
        if (is_reliable(q->type) && b < least) least = b;
    }
    return least == UINT64_MAX ? 50 * MS_NS : least;
}

static void draw_single_cuts(struct plan *p, struct rng *rng)
{
    uint32_t n = p->profile == PROFILE_FLAPPING ? (uint32_t)rng_range(rng, 4, 12)
                                                : (uint32_t)rng_range(rng, 1, 3);
    uint64_t at = draw_moment(rng), notice = slowest_notice(p);
    uint8_t host = (uint8_t)rng_below(rng, p->nhosts);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t down = p->profile == PROFILE_FLAPPING ? rng_range(rng, 1, 2 * notice)
                                                       : notice + draw_moment(rng);
        uint8_t member = (uint8_t)rng_below(rng, p->host[host].nmembers);
        cut_wire(p, at, at + down, host, member, true);
        if (p->profile == PROFILE_BOTH_ENDS) {
            /* The other end loses another port, at once or while ours is being resent. */
            uint8_t other = (uint8_t)((host + 1) % p->nhosts);
            uint8_t second = (uint8_t)((member + 1) % p->host[other].nmembers);
            if (p->fabric == FABRIC_SWITCH || p->host[0].nmembers > 2)
                cut_wire(p, at + (rng_percent(rng, 50) ? 0 : rng_below(rng, notice)), at + down,
                         other, second, true);
        }
        at += down + (p->profile == PROFILE_FLAPPING ? rng_below(rng, 2 * notice)
                                                     : 2 * notice + draw_moment(rng));
    }
}

static void draw_cuts(struct plan *p, struct rng *rng)
{
    uint64_t budget = least_budget(p), at = draw_moment(rng);
    uint8_t host = (uint8_t)rng_below(rng, p->nhosts);
    bool short_enough = rng_percent(rng, 60), carrier = rng_percent(rng, 60);
    uint64_t down = short_enough ? rng_below(rng, budget / 2) : rng_below(rng, 12 * budget);
    switch (p->profile) {
    case PROFILE_CUTS:
    case PROFILE_FLAPPING:
    case PROFILE_BOTH_ENDS: draw_single_cuts(p, rng); break;
    case PROFILE_ONE_SIDED: {
        bool tx = rng_percent(rng, 50);
        add_cut(p, at, at + down + 1, host, (uint8_t)rng_below(rng, p->host[host].nmembers), tx,
                !tx, carrier);
        break;
    }
    case PROFILE_SILENT:
        cut_wire(p, at, at + down + 1, host, (uint8_t)rng_below(rng, p->host[host].nmembers),
                 false);
        break;
    case PROFILE_BLACKOUT:
    case PROFILE_STAYS_DOWN:
        for (uint8_t m = 0; m < p->host[host].nmembers; m++)
            cut_wire(p, at, p->profile == PROFILE_BLACKOUT ? at + down + 1 : 0, host, m, carrier);
        break;
    default: break;
    }
}

static void draw_controls(struct plan *p, struct rng *rng)
{
    if (!rng_percent(rng, 35)) return;
    uint32_t n = (uint32_t)rng_range(rng, 1, 4);
    bool drastic[PLAN_MAX_QPS] = {false};
    for (uint32_t i = 0; i < n; i++) {
        struct plan_control c = {.at_ns = draw_moment(rng),
                                 .qp = (uint16_t)rng_below(rng, p->nqps),
                                 .bucket = (uint8_t)rng_u64(rng),
                                 .kind = CONTROL_BUCKET};
        const struct plan_qp *q = &p->qp[c.qp];
        if (rng_percent(rng, 30) && is_reliable(q->type)) c.kind = CONTROL_SQD;
        /* One drastic thing to a connection: which of two came first would be guesswork. */
        if (rng_percent(rng, 45) && q->type != HCA_QPT_UD && !drastic[c.qp] && !drastic[q->peer]) {
            drastic[c.qp] = true;
            c.kind = rng_percent(rng, 40)   ? CONTROL_RESET
                     : rng_percent(rng, 50) ? CONTROL_DESTROY
                                            : CONTROL_KILL;
        }
        p->control[p->ncontrols++] = c;
    }
}

/* Will every queue pair get through, if the engine does what it should? Where links lose by chance,
 * a hundredth of the packets each way and eight tries leave one in 10^13; where they are cut, all
 * the outages together, with the time to notice them, must be shorter than the retries last. */
static bool survivable(const struct plan *p)
{
    const struct link_profile *l = &p->host[0].link;
    if (l->loss_ppm > 10000 || l->corrupt_ppm > 10000) return false;
    if (!cuts_links(p->profile)) return true;
    uint64_t bad = MS_NS;
    for (uint32_t i = 0; i < p->ncuts; i++) {
        const struct plan_cut *c = &p->cut[i];
        if (!c->mend_ns) return false;
        bad += c->mend_ns - c->at_ns + 2 * slowest_notice(p);
    }
    return bad < least_budget(p);
}

void plan_draw(struct plan *p, uint64_t seed, enum profile only)
{
    *p = (struct plan){.seed = seed};
    struct rng rng = {mix64(seed + 0x51b0)};
    p->profile = (enum profile)rng_below(&rng, PROFILE_COUNT);
    if (only != PROFILE_COUNT) p->profile = only;
    p->npackets = (uint32_t)rng_range(&rng, 40, rng_percent(&rng, 70) ? 400 : 3000);
    enum profile f = p->profile;
    p->links_lose = f == PROFILE_LOSSY || f == PROFILE_MIXED || f == PROFILE_CORRUPT ||
                    f == PROFILE_TINY_SOCKET;
    p->links_double = f == PROFILE_DOUBLE || f == PROFILE_MIXED;
    if (f == PROFILE_FAR) {
        p->links_lose = rng_percent(&rng, 50);
        p->links_double =
            true; /* also: of a multicast's two copies one comes long after the other */
    }
    p->must_survive = f == PROFILE_CUTS; /* its cuts leave a member each */
    struct rng part = rng_fork(&rng, 1);
    draw_world(p, &part);
    part = rng_fork(&rng, 2);
    draw_qps(p, &part);
    part = rng_fork(&rng, 6);
    draw_xrc(p, &part);
    part = rng_fork(&rng, 7);
    draw_wings(p, &part);
    part = rng_fork(&rng, 3);
    draw_cuts(p, &part);
    p->must_survive = p->must_survive || survivable(p);
    part = rng_fork(&rng, 4);
    draw_controls(p, &part);
    part = rng_fork(&rng, 5);
    plan_messages(p, &part);
}

void plan_free(struct plan *p)
{
    for (uint32_t i = 0; i < p->nqps; i++) {
        free(p->qp[i].request);
        free(p->qp[i].rq.receive);
    }
    for (uint8_t h = 0; h < p->nhosts; h++) {
        for (int i = 0; i < PLAN_SRQS; i++) free(p->srq[h][i].receive);
        ground_free(&p->ground[h]);
    }
}

void plan_print(const struct plan *p, FILE *out)
{
    fprintf(out, "seed %llu: %s links, %u hosts, %s, %llu bytes/ms, notice up to %llu us\n",
            (unsigned long long)p->seed, profile_name(p->profile), p->nhosts,
            p->fabric == FABRIC_PAIRED ? "paired" : "switched", (unsigned long long)p->bytes_per_ms,
            (unsigned long long)(p->notice_max_ns / US_NS));
    for (uint8_t i = 0; i < p->nhosts; i++) {
        const struct host_conf *h = &p->host[i];
        fprintf(out,
                "  h%u: %u members, %s,%s window %u..%u, cap %u, bursts tx %u rx %u, socket %u, CQ "
                "mode "
                "%d%s; link delay %llu us jitter %llu us loss %u dup %u corrupt %u ppm\n",
                i, h->nmembers, h->mode == BOND_BALANCE_XOR ? "balance-xor" : "active-backup",
                h->wing_function ? " wing," : "", h->hca.start_window, h->hca.max_window,
                h->hca.inflight_cap, h->tx_burst, h->rx_burst, h->rx_room, p->cq_mode[i],
                p->cq_shared[i] ? " one" : "", (unsigned long long)(h->link.delay_ns / US_NS),
                (unsigned long long)(h->link.jitter_ns / US_NS), h->link.loss_ppm, h->link.dup_ppm,
                h->link.corrupt_ppm);
    }
    for (uint32_t i = 0; i < p->nqps; i++) {
        const struct plan_qp *q = &p->qp[i];
        fprintf(out,
                "  qp %u on h%u: type %d, peer %u, mtu %u, timeout %u retry %u, depth %u/%u, "
                "inline %u, "
                "rd_atomic %u/%u, bucket %u, sq_psn %06x, %u requests, %u messages to it%s%s",
                i, q->host, q->type, q->peer, 128u << q->mtu, q->timeout, q->retry_cnt,
                q->send_depth, q->recv_depth, q->max_inline, q->max_rd_atomic,
                q->max_dest_rd_atomic, q->bucket, q->sq_psn, q->nrequests, q->messages_to,
                q->sig_all ? ", all signalled" : "", q->shared_receives ? ", SRQ" : "");
        if (q->provoke) fprintf(out, ", provokes fault %d at %u", q->provoke, q->provoke_at);
        fputc('\n', out);
    }
    for (uint32_t i = 0; i < p->ncuts; i++) {
        const struct plan_cut *c = &p->cut[i];
        fprintf(out, "  cut h%u.%u at %llu us, mended at %llu us%s%s%s\n", c->host, c->member,
                (unsigned long long)(c->at_ns / US_NS), (unsigned long long)(c->mend_ns / US_NS),
                c->tx ? " tx" : "", c->rx ? " rx" : "", c->carrier ? "" : " silent");
    }
    for (uint32_t i = 0; i < p->ncontrols; i++)
        fprintf(out, "  control %d of qp %u at %llu us\n", p->control[i].kind, p->control[i].qp,
                (unsigned long long)(p->control[i].at_ns / US_NS));
}
