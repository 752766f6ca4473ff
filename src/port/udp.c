/* The UDP port as an object; udp_rx.c and udp_tx.c do the work, udp_sock.c makes the sockets. */
#include "port/udp_port.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void udp_set_members(struct port *port, const struct port_member *members, uint8_t n)
{
    struct udp_port *p = (struct udp_port *)port;
    p->nmembers = n < STEER_MAX_MEMBERS ? n : STEER_MAX_MEMBERS;
    if (p->nmembers) memcpy(p->member, members, p->nmembers * sizeof *members);
}

static void udp_set_local(struct port *port, const struct gid *gids, size_t n)
{
    struct udp_port *p = (struct udp_port *)port;
    p->nlocal = n < UDP_MAX_LOCAL ? n : UDP_MAX_LOCAL;
    if (p->nlocal) memcpy(p->local, gids, p->nlocal * sizeof *gids);
}

static void udp_close(struct port *port)
{
    struct udp_port *p = (struct udp_port *)port;
    close(p->port.rx_fd);
    for (size_t i = 0; i < p->tx.nsockets; i++) close(p->tx.socket[i].fd);
    udp_ways_close(&p->tx);
    free(p);
}

static const struct port_ops udp_ops = {
    .rx = udp_rx,
    .tx = udp_tx,
    .set_members = udp_set_members,
    .set_local = udp_set_local,
    .close = udp_close,
};

bool udp_is_local(const struct udp_port *p, const struct gid *gid)
{
    for (size_t i = 0; i < p->nlocal; i++)
        if (gid_equal(&p->local[i], gid)) return true;
    return false;
}

uint16_t udp_source_port(int fd)
{
    struct sockaddr_in6 self = {0};
    socklen_t len = sizeof self;
    if (getsockname(fd, (struct sockaddr *)&self, &len) != 0) return 0;
    return self.sin6_family == AF_INET6 ? ntohs(self.sin6_port) : 0;
}

struct port *port_udp_new(uint16_t function, int rx_fd, const int *tx_fds, size_t ntx)
{
    if (ntx == 0 || ntx > UDP_MAX_TX_SOCKETS) return NULL;
    struct udp_port *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    for (size_t i = 0; i < ntx; i++) {
        p->tx.socket[i] =
            (struct udp_tx_socket){.fd = tx_fds[i], .sport = udp_source_port(tx_fds[i])};
        if (p->tx.socket[i].sport == 0) {
            free(p);
            return NULL;
        }
    }
    p->port = (struct port){.ops = &udp_ops, .rx_fd = rx_fd, .tx_fd = tx_fds[0]};
    p->function = function;
    p->tx.nsockets = ntx;
    udp_rx_init(&p->rx);
    return &p->port;
}
