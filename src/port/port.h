/* The fast path's contact with the kernel: bursts of packets in, bursts out, a descriptor to wait on.
 * An implementation fills a `struct port_ops`: udp.c (any Linux net device, no privilege needed);
 * packet.c and xdp.c are later ones. The simulator has its own in sim/, above the same engine.
 *
 * The port makes and checks all that lies outside BTH .. pad: IP and UDP headers, pad, ICRC. One
 * port belongs to one function and is used under that function's lock. */
#ifndef RBOND_PORT_PORT_H
#define RBOND_PORT_PORT_H

#include "hca/hca.h"
#include <stddef.h>
#include <stdint.h>

#define PORT_BURST 64

/* A member as the port needs it. */
struct port_member {
    uint32_t ifindex;
};

struct port_stats {
    uint64_t rx_datagrams, rx_trains, rx_icrc_errors, rx_short, rx_foreign, rx_handed_on;
    uint64_t tx_packets, tx_trains, tx_would_block, tx_errors;
};

struct port;

struct port_ops {
    /* Receives what is there, at most about PORT_BURST datagrams (a GRO train counts by its
     * segments), and calls `sink` for each whose ICRC is right. Returns how many it gave; 0: nothing
     * there. Never blocks. */
    int (*rx)(struct port *port, void (*sink)(void *ctx, const struct hca_rx *rx), void *ctx);
    /* Sends `n` packets; returns how many were handed to the kernel or dropped and counted. Less than
     * `n` only where the socket is full: then wait for `tx_fd` to be writable, or try later. */
    size_t (*tx)(struct port *port, const struct hca_tx *pkts, size_t n);
    /* The members may have changed (index = member). */
    void (*set_members)(struct port *port, const struct port_member *members, uint8_t n);
    /* This device's own addresses: packets to them stay on the host, whatever the member. */
    void (*set_local)(struct port *port, const struct gid *gids, size_t n);
    void (*close)(struct port *port);
};

struct port {
    const struct port_ops *ops;
    int rx_fd; /* readable when packets wait */
    int tx_fd; /* writable when `tx` may go on; after a short `tx`, the socket that was full */
    struct port_stats stats;
};

/* The UDP port. Takes ownership of the descriptors (rbondd's, or port_udp_sockets' own):
 * `rx_fd` bound to [::]:4791, `tx_fds` to source ports of 0xC000 and up. `function`: packets whose
 * QPN says another function are handed on over loopback and counted; their source and destination
 * are then the loopback address. NULL when memory is short or a descriptor is not such a socket. */
struct port *port_udp_new(uint16_t function, int rx_fd, const int *tx_fds, size_t ntx);

/* Makes sockets as port_udp_new wants them, all options set (dual stack, GRO, PKTINFO, TOS, PMTU
 * probing, buffers as large as allowed). rx: SO_REUSEPORT, bound to [::]:4791; the caller
 * attaches the steering program (port_udp_steer) to the first of the group. Negative errno. */
int port_udp_rx_socket(void);
int port_udp_tx_socket(void);
/* Attaches the classic-BPF program that picks the socket of a reuseport group from the QPN. To be
 * called for the first of the group, which is to hear no multicast itself. */
int port_udp_steer(int rx_fd);
/* SO_LOCK_FILTER. */
int port_udp_lock(int rx_fd);
/* Makes an rx socket hear a multicast group on a net device, or no more: IGMP or MLD tell the
 * network, by the kernel, which gives each datagram to every socket of the reuseport group that
 * has joined. 0 or a negative errno, as of
 * IP_ADD_MEMBERSHIP and IPV6_ADD_MEMBERSHIP. */
int port_udp_join(int rx_fd, const struct gid *group, uint32_t ifindex);
int port_udp_leave(int rx_fd, const struct gid *group, uint32_t ifindex);

#endif
