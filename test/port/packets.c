/* Packets to send and a sink that compares. */
#include "packets.h"
#include "base/must.h"
#include "wire/roce.h"
#include <poll.h>
#include <stdlib.h>

static uint8_t memory[1 << 20];

static void fill_memory(void)
{
    for (size_t i = 0; i < sizeof memory; i++) memory[i] = (uint8_t)(i * 2654435761u >> 13);
}

struct hca_tx *packets_add(struct packets *p, bool ipv4, qpn_t dqpn, uint32_t len, uint8_t niov)
{
    must(p->n < PACKETS_MAX && niov <= HCA_MAX_SGE);
    if (!memory[1]) fill_memory();
    size_t k = p->n++;
    struct hca_tx *tx = &p->tx[k];
    struct roce_hdr h = {.opcode = 0x04, .pkey = 0xffff, .dqpn = dqpn, .psn = psn_of((uint32_t)k)};
    h.pad = -len & 3;
    *tx = (struct hca_tx){.src = net_gid(ipv4, HOST_A, 0),
                          .dst = net_gid(ipv4, HOST_B, 0),
                          .hop_limit = 64,
                          .pad = h.pad,
                          .niov = niov,
                          .dqpn = dqpn,
                          .payload_len = len};
    tx->hdr_len = (uint8_t)roce_encode(tx->hdr, &h);
    uint8_t *want = p->expect[k];
    memcpy(want, tx->hdr, tx->hdr_len);
    size_t at = tx->hdr_len;
    for (uint8_t i = 0; i < niov; i++) {
        uint32_t piece = i == niov - 1 ? len - len / niov * (niov - 1u) : len / niov;
        tx->payload[i] = (struct iovec){memory + (k * 4099 + i * 131) % (sizeof memory / 2), piece};
        memcpy(want + at, tx->payload[i].iov_base, piece);
        at += piece;
    }
    memset(want + at, 0, tx->pad);
    p->expect_len[k] = at + tx->pad;
    must(p->expect_len[k] <= sizeof p->expect[k]);
    return tx;
}

void packets_clear(struct packets *p)
{
    p->n = p->arrived = 0;
    p->wrong = 0;
}

void packets_sink(void *ctx, const struct hca_rx *rx)
{
    struct packets *p = ctx;
    size_t k = p->arrived++;
    p->last = *rx;
    if (k >= p->n || rx->len != p->expect_len[k] || memcmp(rx->data, p->expect[k], rx->len) != 0)
        p->wrong++;
}

void packets_receive(struct packets *p, struct port *port)
{
    const int patience_ms = p->n ? 2000 : 50;
    do {
        struct pollfd pfd = {.fd = port->rx_fd, .events = POLLIN};
        if (poll(&pfd, 1, patience_ms) <= 0) return;
        port->ops->rx(port, packets_sink, p);
    } while (p->arrived < p->n);
}

struct port *packets_port(uint16_t function, enum net_host host, int rx_fd, size_t ntx)
{
    int tx_fds[16];
    const char *names[2][2] = {{"va0", "va1"}, {"vb0", "vb1"}};
    struct port_member members[2];
    for (size_t i = 0; i < ntx; i++) {
        tx_fds[i] = port_udp_tx_socket();
        must(tx_fds[i] >= 0);
    }
    struct port *port = port_udp_new(function, rx_fd, tx_fds, ntx);
    must(port);
    for (int i = 0; i < 2; i++) members[i].ifindex = net_ifindex(names[host][i]);
    port->ops->set_members(port, members, 2);
    return port;
}
