/* The net devices of this namespace as watch/ tells of them: links, their addresses in order of
 * appearance, and the speed. A table, no policy: what becomes a device is registry.c's. */
#ifndef RBOND_DAEMON_NETDEVS_H
#define RBOND_DAEMON_NETDEVS_H

#include "base/list.h"
#include "watch/watch.h"
#include <stddef.h>

/* More addresses than a device has GIDs are of no use; some may be filtered out. */
#define NETDEV_MAX_ADDRS 128

struct netdev {
    struct list node;
    struct watch_link link;
    uint32_t speed_mbps;
    uint8_t numa_node;
    bool seen; /* during a dump */
    size_t naddrs;
    struct watch_addr addr[NETDEV_MAX_ADDRS];
    bool addr_seen[NETDEV_MAX_ADDRS];
};

struct netdevs {
    struct list all;
};

void netdevs_init(struct netdevs *nds);
void netdevs_free(struct netdevs *nds);

/* NULL: it went, or memory is short. */
struct netdev *netdevs_link(struct netdevs *nds, const struct watch_link *link, bool gone);
void netdevs_addr(struct netdevs *nds, const struct watch_addr *addr, bool gone);
void netdevs_dump_begin(struct netdevs *nds);
void netdevs_dump_end(struct netdevs *nds);

struct netdev *netdevs_by_index(const struct netdevs *nds, uint32_t ifindex);
struct netdev *netdevs_by_name(const struct netdevs *nds, const char *name);

#endif
