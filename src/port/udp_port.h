/* Inside the UDP port: what udp.c (the object), udp_rx.c (trains in) and udp_tx.c (trains out)
 * share, and udp_way.c (sockets bound to a member). A *train* is what one GSO send or GRO receive
 * carries: datagrams of one 4-tuple, all of one size but the last, which may be shorter. */
#ifndef RBOND_PORT_UDP_PORT_H
#define RBOND_PORT_UDP_PORT_H

#include "port/port.h"
#include <assert.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#define UDP_RX_TRAINS 8     /* messages a recvmmsg takes */
#define UDP_TRAIN_MAX 65536 /* a train never exceeds an IP datagram */
#define UDP_MAX_TX_SOCKETS 16
#define UDP_MAX_LOCAL 64
#define UDP_MAX_WAYS STEER_MAX_MEMBERS
#define UDP_WAY_SOCKETS 4
/* BTH .. ICRC at the largest path MTU */
#define UDP_DATAGRAM_MAX (ROCE_MAX_HDR_LEN + 4096 + 3 + ROCE_ICRC_LEN)

struct udp_tx_socket {
    int fd;
    uint16_t sport;
    bool no_gso;         /* the kernel refuses UDP_SEGMENT on the way this socket goes */
    uint64_t blocked_at; /* CLOCK_MONOTONIC ns of the first refusal since it last took something */
};

struct udp_rx {
    struct mmsghdr msg[UDP_RX_TRAINS];
    struct iovec iov[UDP_RX_TRAINS];
    struct sockaddr_in6 from[UDP_RX_TRAINS];
    union {
        struct cmsghdr align;
        uint8_t bytes[192];
    } control[UDP_RX_TRAINS];
    uint8_t buf[UDP_RX_TRAINS][UDP_TRAIN_MAX];
};

/* See udp_way.c. */
struct udp_way {
    uint32_t ifindex;
    size_t nsockets; /* 0: not open */
    struct udp_tx_socket socket[UDP_WAY_SOCKETS];
};

struct udp_train {
    const struct hca_tx *pkts;
    uint32_t npkts;
    uint32_t segment; /* UDP payload of the first packet, bytes */
    uint32_t bytes;
    bool closed; /* ended with a shorter one */
    struct udp_tx_socket *socket;
};

struct udp_tx {
    struct udp_tx_socket socket[UDP_MAX_TX_SOCKETS];
    size_t nsockets;
    struct udp_way way[UDP_MAX_WAYS];
    size_t next_way; /* to be reused next */
    struct udp_train train[PORT_BURST];
    struct mmsghdr msg[PORT_BURST];
    struct sockaddr_in6 to[PORT_BURST];
    union {
        struct cmsghdr align;
        uint8_t bytes[128];
    } control[PORT_BURST];
    struct iovec iov[PORT_BURST];
    uint8_t buf[PORT_BURST * UDP_DATAGRAM_MAX];
};

struct udp_port {
    struct port port;
    uint16_t function;
    uint8_t nmembers;
    struct port_member member[STEER_MAX_MEMBERS];
    struct gid local[UDP_MAX_LOCAL];
    size_t nlocal;
    struct udp_tx tx;
    struct udp_rx rx;
};

int udp_rx(struct port *port, void (*sink)(void *ctx, const struct hca_rx *rx), void *ctx);
size_t udp_tx(struct port *port, const struct hca_tx *pkts, size_t n);

/* Is it one of this device's own addresses? */
bool udp_is_local(const struct udp_port *p, const struct gid *gid);

/* The local port that the socket is bound to; 0: none. */
uint16_t udp_source_port(int fd);

/* The open way of a net device; NULL: the kernel refuses one. Reuses the oldest. */
struct udp_way *udp_way(struct udp_tx *tx, uint32_t ifindex);
void udp_ways_close(struct udp_tx *tx);

/* Points the receive vectors at their buffers, once. */
void udp_rx_init(struct udp_rx *rx);

/* What follows BTH .. pad in a datagram handed on over loopback: where it came from. */
struct udp_handed {
    struct gid src, dst;
    uint8_t traffic_class, hop_limit;
};
static_assert(sizeof(struct udp_handed) == 34, "no padding on the wire");

/* Sends one datagram (BTH .. pad) of another function's to this host's reuseport group, over the
 * loopback address of the family. False where the kernel refuses. */
bool udp_hand_on(struct udp_port *p, bool ipv4, const struct hca_rx *from, uint8_t *roce,
                 size_t len);

#endif
