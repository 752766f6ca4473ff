/* See gsi.h. */
#include "daemon/gsi.h"

#include "port/port.h"
#include "wire/opcode.h"
#include "wire/roce.h"
#include <errno.h>
#include <stdlib.h>

#define GSI_QPN 1
#define GSI_QKEY 0x80010000u
#define GSI_HOP_LIMIT 64
#define GSI_BURSTS 16 /* before other events of the loop get their turn */

struct gsi {
    uv_poll_t poll;
    struct port *port;
    const struct gsi_ops *ops;
    void *ctx;
    uint32_t psn;
    struct gsi_counters counters;
};

static void rx_packet(void *ctx, const struct hca_rx *rx)
{
    struct gsi *g = ctx;
    struct roce_hdr h;
    size_t hdr_len;
    if (roce_decode(&h, rx->data, rx->len, &hdr_len) != ROCE_OK) {
        g->counters.gsi_rx_bad++;
        return;
    }
    if (h.dqpn == 0) { /* subnet management: there is no subnet manager on Ethernet */
        g->counters.gsi_rx_smi++;
        return;
    }
    if (h.dqpn != GSI_QPN || h.opcode != (ROCE_UD | ROCE_SEND_ONLY) || h.tver != 0 ||
        (h.pkey & 0x7fff) != (ROCE_PKEY_DEFAULT & 0x7fff) || h.pad != 0 ||
        rx->len - hdr_len != MAD_LEN) {
        g->counters.gsi_rx_bad++;
        return;
    }
    if (h.deth.qkey != GSI_QKEY) {
        g->counters.gsi_rx_bad_qkey++;
        return;
    }
    g->counters.gsi_rx++;
    struct cm_route route = {
        .local = rx->dst, .remote = rx->src, .traffic_class = rx->traffic_class};
    g->ops->mad(g->ctx, rx->data + hdr_len, &route);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct gsi *g = poll->data;
    (void)status;
    (void)events;
    for (int i = 0; i < GSI_BURSTS; i++)
        if (g->port->ops->rx(g->port, rx_packet, g) == 0) break;
    g->ops->idle(g->ctx);
}

int gsi_new(struct gsi **out, uv_loop_t *loop, int rx_fd, const int *tx_fds, size_t ntx,
            const struct gsi_ops *ops, void *ctx)
{
    struct gsi *g = calloc(1, sizeof *g);
    if (!g) return -ENOMEM;
    g->ops = ops;
    g->ctx = ctx;
    g->poll.data = g;
    int err = uv_poll_init(loop, &g->poll, rx_fd);
    if (err) {
        free(g);
        return err;
    }
    g->port = port_udp_new(0, rx_fd, tx_fds, ntx);
    if (!g->port) {
        uv_close((uv_handle_t *)&g->poll, (uv_close_cb)free);
        return -ENOMEM;
    }
    uv_poll_start(&g->poll, UV_READABLE, on_readable);
    *out = g;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct gsi *g = handle->data;
    g->port->ops->close(g->port);
    free(g);
}

void gsi_close(struct gsi *gsi)
{
    uv_poll_stop(&gsi->poll);
    uv_close((uv_handle_t *)&gsi->poll, on_closed);
}

/* The members that some bucket uses now, each once: no packet may leave by another. */
static uint8_t members_in_use(const struct steering *t, uint8_t use[STEER_MAX_MEMBERS])
{
    bool seen[STEER_MAX_MEMBERS] = {false};
    uint8_t n = 0;
    for (size_t b = 0; b < STEER_BUCKETS; b++) {
        uint8_t m = t->active[b];
        if (m >= t->nmembers || m >= STEER_MAX_MEMBERS || seen[m]) continue;
        seen[m] = true;
        use[n++] = m;
    }
    return n;
}

static uint8_t pick_member(const struct steering *t, const struct cm_out *out)
{
    uint8_t use[STEER_MAX_MEMBERS], n = members_in_use(t, use);
    if (n == 0) return STEER_NO_MEMBER;
    uint32_t hash = 0;
    for (size_t i = 0; i < sizeof out->route.remote.raw; i++)
        hash = hash * 31 + out->route.remote.raw[i];
    return use[(hash + out->attempt) % n];
}

static void put_headers(struct gsi *g, struct hca_tx *tx)
{
    struct roce_hdr h = {
        .opcode = ROCE_UD | ROCE_SEND_ONLY,
        .migreq = true,
        .pkey = ROCE_PKEY_DEFAULT,
        .dqpn = GSI_QPN,
        .psn = psn_of(g->psn++),
        .deth = {.qkey = GSI_QKEY, .sqpn = GSI_QPN},
    };
    tx->qpn = tx->dqpn = GSI_QPN;
    tx->hdr_len = (uint8_t)roce_encode(tx->hdr, &h);
}

void gsi_send(struct gsi *gsi, const struct device_state *device, const struct cm_out *out,
              bool local)
{
    uint8_t member = pick_member(&device->steering, out);
    if (member == STEER_NO_MEMBER && local) member = 0;
    if (member == STEER_NO_MEMBER) {
        gsi->counters.gsi_tx_no_member++;
        return;
    }
    struct hca_tx tx = {
        .src = out->route.local,
        .dst = out->route.remote,
        .traffic_class = out->route.traffic_class,
        .hop_limit = GSI_HOP_LIMIT,
        .member = member,
        .niov = 1,
        .payload_len = MAD_LEN,
        .payload[0] = {(void *)out->mad, MAD_LEN},
    };
    put_headers(gsi, &tx);

    /* One port serves all devices, one packet at a time: it is told whose members now count. */
    struct port_member members[STEER_MAX_MEMBERS];
    for (size_t m = 0; m < STEER_MAX_MEMBERS; m++) members[m].ifindex = device->member_ifindex[m];
    uint8_t n = device->steering.nmembers;
    gsi->port->ops->set_members(gsi->port, members, n < STEER_MAX_MEMBERS ? n : STEER_MAX_MEMBERS);
    gsi->port->ops->set_local(gsi->port, &tx.dst, local ? 1 : 0);
    uint64_t errors = gsi->port->stats.tx_errors;
    if (gsi->port->ops->tx(gsi->port, &tx, 1) == 1 && gsi->port->stats.tx_errors == errors)
        gsi->counters.gsi_tx++;
    else
        gsi->counters.gsi_tx_failed++;
}

const struct gsi_counters *gsi_counters(const struct gsi *gsi) { return &gsi->counters; }
