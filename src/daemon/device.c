#include "daemon/device.h"
#include "ctl/codec.h"
#include "daemon/memfd.h"
#include "watch/ethtool.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- identity ---------------------------------------------------------------------------- */

uint64_t guid_of_port(const struct netdev *nd)
{
    const uint8_t *m = nd->link.mac;
    const uint8_t eui[8] = {m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]};
    uint64_t guid = 0;

    for (unsigned i = 0; i < 8; i++) guid = guid << 8 | eui[i];
    /* Devices without a MAC must differ all the same. */
    return nd->link.has_mac ? guid : guid_of_bond(NULL, nd->link.name);
}

/* FNV-1a over MAC and name; not ff:fe in the middle, so that no EUI-64 is equal. */
uint64_t guid_of_bond(const struct netdev *first, const char *name)
{
    uint64_t hash = 0xcbf29ce484222325ull;

    for (unsigned i = 0; first && i < 6; i++) hash = (hash ^ first->link.mac[i]) * 0x100000001b3ull;
    for (; *name; name++) hash = (hash ^ (uint8_t)*name) * 0x100000001b3ull;
    return (hash & ~0x000000ffff000000ull) | 0x0200000b0d000000ull;
}

static struct bond_conf engine_conf(const struct ctl_bond_conf *conf)
{
    struct bond_conf out = {.mode = (enum bond_mode)conf->mode,
                            .min_links = conf->min_links,
                            .updelay_ns = conf->updelay_ms * MS_NS,
                            .downdelay_ns = conf->downdelay_ms * MS_NS,
                            .nmembers = conf->nmembers,
                            .primary = STEER_NO_MEMBER};

    for (uint8_t m = 0; m < conf->nmembers && m < CTL_MAX_MEMBERS; m++)
        if (conf->primary[0] && strcmp(conf->member[m], conf->primary) == 0) out.primary = m;
    return out;
}

static void publish(struct device *device)
{
    device->state.steering = device->engine.table;
    /* Readers look for a new generation: whatever changed, there is one. */
    device->state.steering.generation = ++device->generation;
    device->state.port_state = device->engine.port_active ? CTL_PORT_ACTIVE : CTL_PORT_DOWN;
    page_write(device->page, &device->state);
}

struct device *device_new(const struct ctl_bond_conf *conf, bool is_bond, uint64_t guid, when_t now)
{
    struct device *d = calloc(1, sizeof *d);
    struct bond_conf engine = engine_conf(conf);

    if (!d) return NULL;
    d->conf = *conf;
    d->is_bond = is_bond;
    d->guid = guid;
    snprintf(d->name, sizeof d->name, "rb_%.28s", conf->name);
    void *map = NULL;
    d->page_fd = memfd_published("rbond-device", sizeof *d->page, &map);
    if (d->page_fd < 0 || bond_init(&d->engine, &engine, now) < 0) {
        if (d->page_fd >= 0) {
            munmap(map, sizeof *d->page);
            close(d->page_fd);
        }
        free(d);
        return NULL;
    }
    d->page = map;
    publish(d);
    return d;
}

void device_free(struct device *device)
{
    munmap(device->page, sizeof *device->page);
    close(device->page_fd);
    free(device);
}

uint8_t device_member(const struct device *device, const char *netdev)
{
    for (uint8_t m = 0; m < device->conf.nmembers; m++)
        if (strcmp(device->conf.member[m], netdev) == 0) return m;
    return STEER_NO_MEMBER;
}

/* ---- facts ------------------------------------------------------------------------------- */

/* Several facts in one go: what they changed together. */
static void merge(struct bond_change *sum, const struct bond_change *c)
{
    if (!sum->failover) {
        sum->old = c->old;
        sum->active = c->active;
    } else if (c->failover) {
        sum->active = c->active;
    }
    sum->failover = sum->failover || c->failover;
    sum->table = sum->table || c->table;
    sum->port = sum->port != c->port;
    sum->came |= c->came;
    sum->left |= c->left;
}

static struct device_change apply(struct device *device, struct bond_change bond)
{
    struct device_change change = {.bond = bond, .page = bond.table || bond.port};

    if (change.page) publish(device);
    return change;
}

struct device_change device_link(struct device *device, uint8_t member, bool carrier, bool up,
                                 when_t when)
{
    return apply(device, bond_link(&device->engine, member, carrier, up, when));
}

struct device_change device_expire(struct device *device, when_t now)
{
    return apply(device, bond_expire(&device->engine, now));
}

static uint32_t speed_of(const struct device *device, const struct netdevs *nds)
{
    uint64_t sum = 0;

    for (uint8_t m = 0; m < device->conf.nmembers; m++) {
        const struct netdev *nd = netdevs_by_name(nds, device->conf.member[m]);
        bool counts = device->engine.usable >> m & 1;
        if (device->engine.conf.mode == BOND_ACTIVE_BACKUP)
            counts = device->engine.table.active[0] == m;
        /* A plain port keeps its speed while it is down, as adapters do. */
        if (nd && (counts || !device->is_bond)) sum += nd->speed_mbps;
    }
    return sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
}

static uint32_t mtu_of(const struct device *device, const struct netdevs *nds)
{
    uint32_t least = 0;

    for (uint8_t m = 0; m < device->conf.nmembers; m++) {
        const struct netdev *nd = netdevs_by_name(nds, device->conf.member[m]);
        if (nd && (least == 0 || nd->link.mtu < least)) least = nd->link.mtu;
    }
    return least ? least : 1500;
}

static bool refresh_members(struct device *device, const struct netdevs *nds, when_t when,
                            struct bond_change *sum)
{
    bool renumbered = false;

    sum->old = sum->active = STEER_NO_MEMBER;
    for (uint8_t m = 0; m < device->conf.nmembers; m++) {
        const struct netdev *nd = netdevs_by_name(nds, device->conf.member[m]);
        uint32_t ifindex = nd ? nd->link.ifindex : 0;
        renumbered = renumbered || device->state.member_ifindex[m] != ifindex;
        device->state.member_ifindex[m] = ifindex;
        struct bond_change c =
            bond_link(&device->engine, m, nd && nd->link.carrier, nd && nd->link.up, when);
        merge(sum, &c);
    }
    return renumbered;
}

static bool refresh_gids(struct device *device, const struct netdevs *nds)
{
    const struct netdev *nd = netdevs_by_name(nds, device->conf.netdev);

    if (!gids_update(&device->gids, nd)) return false;
    memcpy(device->state.gid, device->gids.slot, sizeof device->state.gid);
    for (unsigned i = 0; i < CTL_MAX_GIDS; i++)
        device->state.gid_ifindex[i] =
            gid_is_zero(&device->gids.slot[i]) || !nd ? 0 : nd->link.ifindex;
    device->state.gid_generation++;
    return true;
}

struct device_change device_refresh(struct device *device, const struct netdevs *nds, when_t when)
{
    struct device_change change = {0};
    bool renumbered = refresh_members(device, nds, when, &change.bond);
    uint32_t mtu = mtu_of(device, nds), speed = speed_of(device, nds);

    change.gids = refresh_gids(device, nds);
    change.mtu = mtu != device->state.mtu;
    change.speed = speed != device->state.speed_mbps;
    device->state.mtu = mtu;
    device->state.speed_mbps = speed;
    change.page = change.bond.table || change.bond.port || change.gids || change.mtu ||
                  change.speed || renumbered;
    if (change.page) publish(device);
    return change;
}

int device_configure(struct device *device, const struct ctl_bond_conf *conf, when_t now,
                     struct device_change *change)
{
    struct bond_conf engine = engine_conf(conf);
    struct bond_change bond;

    int rc = bond_configure(&device->engine, &engine, now, &bond);
    if (rc < 0) return rc;
    device->conf = *conf;
    *change = apply(device, bond);
    return 0;
}

void device_withdraw(struct device *device, when_t now)
{
    struct steering *table = &device->state.steering;

    memset(table->active, STEER_NO_MEMBER, sizeof table->active);
    table->generation = ++device->generation;
    table->changed = now;
    device->state.port_state = CTL_PORT_DOWN;
    page_write(device->page, &device->state);
}

/* ---- descriptions ------------------------------------------------------------------------ */

void device_describe(const struct device *device, const struct netdevs *nds, struct ctl_dev *out)
{
    const struct netdev *nd = netdevs_by_name(nds, device->conf.netdev);
    const struct netdev *first = netdevs_by_name(nds, device->conf.member[0]);

    memset(out, 0, sizeof *out);
    ctl_string_set(out->name, sizeof out->name, device->name);
    ctl_string_set(out->netdev, sizeof out->netdev, device->conf.netdev);
    out->guid = device->guid;
    out->ifindex = nd ? nd->link.ifindex : 0;
    out->mtu = device->state.mtu;
    out->speed_mbps = device->state.speed_mbps;
    out->port_state = device->state.port_state;
    out->is_bond = device->is_bond;
    out->nmembers = device->conf.nmembers;
    out->ngids = (uint8_t)gids_count(&device->gids);
    out->number = device->number;
    out->numa_node = first ? first->numa_node : NUMA_NONE;
    memcpy(out->member, device->conf.member, sizeof out->member);
}

void device_describe_bond(const struct device *device, const struct netdevs *nds,
                          struct ctl_bond *out)
{
    memset(out, 0, sizeof *out);
    out->conf = device->conf;
    out->generation = device->generation;
    out->port_state = device->state.port_state;
    out->changed_ns = device->engine.table.changed.ns;
    out->failovers = device->engine.failovers;
    for (uint8_t m = 0; m < device->conf.nmembers; m++) {
        const struct netdev *nd = netdevs_by_name(nds, device->conf.member[m]);
        struct ctl_bond_member *to = &out->member[m];
        memcpy(to->name, device->conf.member[m], sizeof to->name);
        to->ifindex = nd ? nd->link.ifindex : 0;
        to->carrier = nd && nd->link.carrier;
        to->usable = device->engine.usable >> m & 1;
        to->active = bond_member_active(&device->engine, m);
        to->down_count = device->engine.member[m].downs;
    }
}
