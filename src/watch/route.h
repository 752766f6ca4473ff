/* Asks the kernel how it would reach an address, and whether it knows the neighbour's link address:
 * one RTM_GETROUTE or RTM_GETNEIGH, answered at once. */
#ifndef RBOND_WATCH_ROUTE_H
#define RBOND_WATCH_ROUTE_H

#include "wire/gid.h"
#include <stdbool.h>
#include <stdint.h>

struct route_query {
    struct gid dst;        /* IPv4 mapped, or IPv6 */
    const struct gid *src; /* of the same family; NULL: the kernel's choice */
    uint32_t oif;          /* 0: any; needed for a link-local destination */
};

struct route_answer {
    struct gid prefsrc; /* zero: the kernel gave none */
    struct gid gateway; /* zero: on link */
    uint32_t oif;
    uint32_t mtu; /* of the path, bytes; 0: that of the interface */
    bool local;   /* the destination is an address of this host */
};

/* A socket kept for many questions. */
struct route;

int route_open(struct route **out);
void route_close(struct route *route);

/* 0 or a negative errno, which is the kernel's where it has no route: -ENETUNREACH, -EHOSTUNREACH,
 * -EACCES (prohibited), -EINVAL (unreachable and blackhole routes, families that differ). */
int route_lookup(struct route *route, const struct route_query *query, struct route_answer *answer);

/* Does the kernel know the link address of this neighbour? 1, with the first 6 bytes of it in `mac`
 * (NULL: not wanted); 0; or a negative errno. */
int route_neighbour(struct route *route, uint32_t ifindex, const struct gid *addr, uint8_t *mac);
/* Makes the kernel look for it: an empty datagram goes to its discard port once it is known. */
void route_seek_neighbour(uint32_t ifindex, const struct gid *addr);

#endif
