#include "daemon/netdevs.h"
#include "watch/ethtool.h"
#include <stdlib.h>
#include <string.h>

void netdevs_init(struct netdevs *nds) { list_init(&nds->all); }

static void netdev_free(struct netdev *nd)
{
    list_del(&nd->node);
    free(nd);
}

void netdevs_free(struct netdevs *nds)
{
    list_for_each_safe (node, tmp, &nds->all) netdev_free(container_of(node, struct netdev, node));
}

struct netdev *netdevs_by_index(const struct netdevs *nds, uint32_t ifindex)
{
    list_for_each (node, &nds->all) {
        struct netdev *nd = container_of(node, struct netdev, node);
        if (nd->link.ifindex == ifindex) return nd;
    }
    return NULL;
}

struct netdev *netdevs_by_name(const struct netdevs *nds, const char *name)
{
    list_for_each (node, &nds->all) {
        struct netdev *nd = container_of(node, struct netdev, node);
        if (strcmp(nd->link.name, name) == 0) return nd;
    }
    return NULL;
}

/* The speed is asked for when a link comes: a loss, where every microsecond counts, asks nothing.
 */
static void ask_speed(struct netdev *nd)
{
    nd->speed_mbps = ethtool_speed_mbps(nd->link.name);
    nd->numa_node = ethtool_numa_node(nd->link.name, nd->link.ifindex);
}

struct netdev *netdevs_link(struct netdevs *nds, const struct watch_link *link, bool gone)
{
    struct netdev *nd = netdevs_by_index(nds, link->ifindex);

    if (gone) {
        if (nd) netdev_free(nd);
        return NULL;
    }
    bool fresh = !nd;
    if (fresh) {
        nd = calloc(1, sizeof *nd);
        if (!nd) return NULL;
        list_add_tail(&nds->all, &nd->node);
    }
    bool came = link->carrier && !nd->link.carrier;
    nd->link = *link;
    nd->seen = true;
    if (fresh || came) ask_speed(nd);
    return nd;
}

static size_t find_addr(const struct netdev *nd, const struct gid *addr)
{
    size_t i = 0;

    while (i < nd->naddrs && !gid_equal(&nd->addr[i].addr, addr)) i++;
    return i;
}

static void drop_addr(struct netdev *nd, size_t i)
{
    nd->naddrs--;
    memmove(&nd->addr[i], &nd->addr[i + 1], (nd->naddrs - i) * sizeof nd->addr[0]);
    memmove(&nd->addr_seen[i], &nd->addr_seen[i + 1], (nd->naddrs - i) * sizeof nd->addr_seen[0]);
}

void netdevs_addr(struct netdevs *nds, const struct watch_addr *addr, bool gone)
{
    struct netdev *nd = netdevs_by_index(nds, addr->ifindex);
    if (!nd) return;
    size_t i = find_addr(nd, &addr->addr);

    if (gone) {
        if (i < nd->naddrs) drop_addr(nd, i);
        return;
    }
    if (i == NETDEV_MAX_ADDRS) return;
    if (i == nd->naddrs) nd->naddrs++;
    nd->addr[i] = *addr;
    nd->addr_seen[i] = true;
}

void netdevs_dump_begin(struct netdevs *nds)
{
    list_for_each (node, &nds->all) {
        struct netdev *nd = container_of(node, struct netdev, node);
        nd->seen = false;
        memset(nd->addr_seen, 0, sizeof nd->addr_seen);
    }
}

void netdevs_dump_end(struct netdevs *nds)
{
    list_for_each_safe (node, tmp, &nds->all) {
        struct netdev *nd = container_of(node, struct netdev, node);
        if (!nd->seen) {
            netdev_free(nd);
            continue;
        }
        for (size_t i = nd->naddrs; i-- > 0;)
            if (!nd->addr_seen[i]) drop_addr(nd, i);
    }
}
