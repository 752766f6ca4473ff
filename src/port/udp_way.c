/* Ways: sockets bound to one net device each. For IPv4, IP_PKTINFO's interface picks the next hop
 * of a multipath route. IPv6 takes that interface as a hint only, unless the packet has no source
 * address yet, and then hashes over all next hops: there a socket bound to the device is what holds
 * a packet to its member (Linux 5.7 and later allow the binding to everybody). */
#include "port/udp_port.h"
#include <unistd.h>

#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif

static void close_way(struct udp_way *way)
{
    for (size_t i = 0; i < way->nsockets; i++) close(way->socket[i].fd);
    way->nsockets = 0;
    way->ifindex = 0;
}

static bool open_way(struct udp_way *way, uint32_t ifindex)
{
    close_way(way);
    while (way->nsockets < UDP_WAY_SOCKETS) {
        int index = (int)ifindex, fd = port_udp_tx_socket();
        if (fd < 0) break;
        if (setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &index, sizeof index) != 0) {
            close(fd);
            break;
        }
        way->socket[way->nsockets++] =
            (struct udp_tx_socket){.fd = fd, .sport = udp_source_port(fd)};
    }
    way->ifindex = ifindex;
    return way->nsockets > 0;
}

struct udp_way *udp_way(struct udp_tx *tx, uint32_t ifindex)
{
    for (size_t i = 0; i < UDP_MAX_WAYS; i++)
        if (tx->way[i].ifindex == ifindex && tx->way[i].nsockets) return &tx->way[i];
    struct udp_way *way = &tx->way[tx->next_way++ % UDP_MAX_WAYS];
    return open_way(way, ifindex) ? way : NULL;
}

void udp_ways_close(struct udp_tx *tx)
{
    for (size_t i = 0; i < UDP_MAX_WAYS; i++) close_way(&tx->way[i]);
}
