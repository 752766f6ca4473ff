#include "daemon/registry.h"
#include "ctl/codec.h"
#include "daemon/presence.h"
#include <errno.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static when_t clock_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (when_t){(uint64_t)ts.tv_sec * SEC_NS + (uint64_t)ts.tv_nsec};
}

static struct device *device_of(struct list *node)
{
    return container_of(node, struct device, node);
}

/* ---- lookups ----------------------------------------------------------------------------- */

struct device *registry_by_name(const struct registry *reg, const char *name)
{
    list_for_each (node, &reg->devices)
        if (strcmp(device_of(node)->name, name) == 0) return device_of(node);
    return NULL;
}

struct device *registry_by_guid(const struct registry *reg, uint64_t guid)
{
    list_for_each (node, &reg->devices)
        if (device_of(node)->guid == guid) return device_of(node);
    return NULL;
}

struct device *registry_at(const struct registry *reg, size_t index)
{
    list_for_each (node, &reg->devices)
        if (index-- == 0) return device_of(node);
    return NULL;
}

struct device *registry_bond_of(const struct registry *reg, const char *netdev)
{
    list_for_each (node, &reg->devices) {
        struct device *d = device_of(node);
        if (!d->is_bond) continue;
        if (device_member(d, netdev) != STEER_NO_MEMBER || strcmp(d->conf.netdev, netdev) == 0)
            return d;
    }
    return NULL;
}

static struct device *device_with_member(const struct registry *reg, const char *netdev)
{
    list_for_each (node, &reg->devices)
        if (device_member(device_of(node), netdev) != STEER_NO_MEMBER) return device_of(node);
    return NULL;
}

/* ---- events ------------------------------------------------------------------------------ */

static void tell(struct registry *reg, const struct device *d, enum ctl_event_type type,
                 uint32_t value, const char *member, const char *old, when_t when)
{
    struct ctl_event event = {.type = type, .value = value, .at_ns = when.ns};

    if (d) ctl_string_set(event.device, sizeof event.device, d->name);
    ctl_string_set(event.member, sizeof event.member, member);
    ctl_string_set(event.old, sizeof event.old, old);
    reg->ops->event(reg->ctx, d, &event);
}

static const char *member_name(const struct device *d, uint8_t member)
{
    return member < d->conf.nmembers ? d->conf.member[member] : "";
}

static void announce(struct registry *reg, const struct device *d,
                     const struct device_change *change, when_t when)
{
    const struct bond_change *b = &change->bond;

    if (!change->page) return;
    reg->dirty = true;
    tell(reg, d, CTL_EV_TABLE, d->generation, "", "", when);
    if (b->failover)
        tell(reg, d, CTL_EV_FAILOVER, (uint32_t)d->engine.failovers, member_name(d, b->active),
             member_name(d, b->old), when);
    if (b->port)
        tell(reg, d, d->engine.port_active ? CTL_EV_PORT_ACTIVE : CTL_EV_PORT_ERR, 0, "", "", when);
    if (change->gids) tell(reg, d, CTL_EV_GID_CHANGE, d->state.gid_generation, "", "", when);
    if (b->failover)
        log_info("%s: %s -> %s", d->name, member_name(d, b->old), member_name(d, b->active));
    if (d->is_bond && b->left) presence_announce(d, &reg->netdevs);
    if (b->port) log_info("%s: port %s", d->name, d->engine.port_active ? "active" : "down");
}

/* ---- timers ------------------------------------------------------------------------------ */

static void on_timer(uv_timer_t *timer);

static void rearm(struct registry *reg)
{
    when_t first = NEVER, now = clock_now();

    list_for_each (node, &reg->devices)
        first = when_min(first, bond_deadline(&device_of(node)->engine));
    if (when_is_never(first)) {
        uv_timer_stop(&reg->timer);
        return;
    }
    uv_update_time(reg->loop);
    uv_timer_start(&reg->timer, on_timer, (when_since(first, now) + MS_NS - 1) / MS_NS, 0);
}

static void reconcile(struct registry *reg, when_t when);

static void on_timer(uv_timer_t *timer)
{
    struct registry *reg = timer->data;
    when_t now = clock_now();

    list_for_each (node, &reg->devices) {
        struct device *d = device_of(node);
        struct device_change change = device_expire(d, now);
        announce(reg, d, &change, now);
    }
    reconcile(reg, now); /* speeds follow the members */
}

/* ---- which devices there are ------------------------------------------------------------- */

static bool wanted(const struct registry *reg, const struct netdev *nd)
{
    const struct netdev *master = netdevs_by_index(&reg->netdevs, nd->link.master);
    const char *name = nd->link.name;

    if (nd->link.type != ARPHRD_ETHER || conf_excludes(reg->conf, name)) return false;
    /* A VRF's port keeps its addresses; another master's has none of its own. */
    if (nd->link.master && !(master && strcmp(master->link.kind, "vrf") == 0)) return false;
    if (registry_bond_of(reg, name)) return false;
    if (conf_includes(reg->conf, name)) return true;
    return reg->conf->ninclude == 0 && strcmp(nd->link.kind, "bridge") != 0;
}

static bool numbered(const struct registry *reg, uint16_t number)
{
    list_for_each (node, &reg->devices)
        if (container_of(node, struct device, node)->number == number) return true;
    return false;
}

/* One that has gone leaves its number unused for as long as may be: programs may still mean it. */
static uint16_t new_number(struct registry *reg)
{
    while (numbered(reg, reg->next_number)) reg->next_number++;
    return reg->next_number++;
}

static struct device *add_device(struct registry *reg, const struct ctl_bond_conf *conf,
                                 bool is_bond, uint64_t guid, when_t when)
{
    char name[CTL_NAME_LEN];

    snprintf(name, sizeof name, "rb_%.28s", conf->name);
    if (reg->ndevices == REGISTRY_MAX_DEVICES || registry_by_name(reg, name)) return NULL;
    if (registry_by_guid(reg, guid)) guid = guid_of_bond(NULL, conf->name);
    struct device *d = device_new(conf, is_bond, guid, when);
    if (!d) {
        log_error("no memory or descriptors for a device on %s", conf->name);
        return NULL;
    }
    d->number = new_number(reg);
    list_add_tail(&reg->devices, &d->node);
    reg->ndevices++;
    reg->dirty = true;
    device_refresh(d, &reg->netdevs, when);
    log_info("%s: added%s", d->name, d->is_bond ? " (managed bond)" : "");
    tell(reg, d, CTL_EV_DEVICE_ADD, 0, "", "", when);
    return d;
}

static void remove_device(struct registry *reg, struct device *d, when_t when)
{
    log_info("%s: removed", d->name);
    list_del(&d->node);
    reg->ndevices--;
    reg->dirty = true;
    device_withdraw(d, when);
    tell(reg, d, CTL_EV_DEVICE_DEL, 0, "", "", when);
    reg->ops->device_gone(reg->ctx, d);
    device_free(d);
}

static void remove_unwanted(struct registry *reg, when_t when)
{
    list_for_each_safe (node, tmp, &reg->devices) {
        struct device *d = device_of(node);
        if (d->is_bond) continue;
        const struct netdev *nd = netdevs_by_name(&reg->netdevs, d->conf.netdev);
        if (!nd || nd->link.ifindex != d->ifindex || !wanted(reg, nd)) remove_device(reg, d, when);
    }
}

static void add_missing(struct registry *reg, when_t when)
{
    list_for_each (node, &reg->netdevs.all) {
        const struct netdev *nd = container_of(node, struct netdev, node);
        struct ctl_bond_conf conf = {.mode = CTL_MODE_ACTIVE_BACKUP, .nmembers = 1};
        if (device_with_member(reg, nd->link.name) || !wanted(reg, nd)) continue;
        ctl_string_set(conf.name, sizeof conf.name, nd->link.name);
        ctl_string_set(conf.netdev, sizeof conf.netdev, nd->link.name);
        ctl_string_set(conf.member[0], sizeof conf.member[0], nd->link.name);
        struct device *d = add_device(reg, &conf, false, guid_of_port(nd), when);
        if (d) d->ifindex = nd->link.ifindex;
    }
}

static void reconcile(struct registry *reg, when_t when)
{
    reg->unsettled = false;
    remove_unwanted(reg, when);
    add_missing(reg, when);
    list_for_each (node, &reg->devices) {
        struct device *d = device_of(node);
        struct device_change change = device_refresh(d, &reg->netdevs, when);
        announce(reg, d, &change, when);
    }
    rearm(reg);
    if (reg->dirty) reg->ops->changed(reg->ctx);
    reg->dirty = false;
}

/* ---- facts ------------------------------------------------------------------------------- */

static void link_event(struct registry *reg, const struct watch_link *link, bool was, bool is,
                       when_t when)
{
    if (was == is) return;
    const struct device *d = device_with_member(reg, link->name);
    log_info("link %s %s", link->name, is ? "up" : "down");
    tell(reg, d, is ? CTL_EV_LINK_UP : CTL_EV_LINK_DOWN, link->ifindex, link->name, "", when);
}

/* The failover path: from the message to the page with nothing in between. */
static void steer_at_once(struct registry *reg, const struct watch_link *link, bool gone,
                          when_t when)
{
    struct device *d = device_with_member(reg, link->name);
    if (!d) return;

    struct device_change change = device_link(d, device_member(d, link->name),
                                              link->carrier && !gone, link->up && !gone, when);
    if (!change.page) return;
    log_debug("%s: %s %s, page written %llu us after the news was read", d->name, link->name,
              link->carrier && !gone ? "up" : "down",
              (unsigned long long)(when_since(clock_now(), when) / US_NS));
    announce(reg, d, &change, when);
}

static void on_link(void *ctx, const struct watch_link *link, bool gone, when_t when)
{
    struct registry *reg = ctx;
    const struct netdev *old = netdevs_by_index(&reg->netdevs, link->ifindex);
    bool was = old && old->link.carrier && old->link.up;

    if (!reg->dumping) steer_at_once(reg, link, gone, when);
    netdevs_link(&reg->netdevs, link, gone);
    link_event(reg, link, was, link->carrier && link->up && !gone, when);
    reg->unsettled = true;
}

static void on_addr(void *ctx, const struct watch_addr *addr, bool gone, when_t when)
{
    struct registry *reg = ctx;

    netdevs_addr(&reg->netdevs, addr, gone);
    reg->unsettled = true;
}

static void on_dump_begin(void *ctx)
{
    struct registry *reg = ctx;

    reg->dumping = true;
    netdevs_dump_begin(&reg->netdevs);
}

static void on_dump_end(void *ctx, when_t when)
{
    struct registry *reg = ctx;

    reg->dumping = false;
    netdevs_dump_end(&reg->netdevs);
    reconcile(reg, when);
}

const struct watch_ops registry_watch_ops = {
    .link = on_link, .addr = on_addr, .dump_begin = on_dump_begin, .dump_end = on_dump_end};

/* ---- life -------------------------------------------------------------------------------- */

int registry_init(struct registry *reg, uv_loop_t *loop, const struct conf *conf,
                  const struct registry_ops *ops, void *ctx)
{
    memset(reg, 0, sizeof *reg);
    reg->loop = loop;
    reg->conf = conf;
    reg->ops = ops;
    reg->ctx = ctx;
    netdevs_init(&reg->netdevs);
    list_init(&reg->devices);
    int rc = uv_timer_init(loop, &reg->timer);
    reg->timer.data = reg;
    return rc;
}

void registry_settle(struct registry *reg)
{
    if (reg->unsettled && !reg->dumping) reconcile(reg, clock_now());
}

void registry_close(struct registry *reg)
{
    list_for_each_safe (node, tmp, &reg->devices) {
        struct device *d = device_of(node);
        list_del(&d->node);
        reg->ops->device_gone(reg->ctx, d);
        device_free(d);
    }
    netdevs_free(&reg->netdevs);
    uv_close((uv_handle_t *)&reg->timer, NULL);
}

/* ---- managed bonds: bonds.c has checked -------------------------------------------------- */

/* The net device whose MAC a bond's GUID is made of: its first member, or what else is there. */
static const struct netdev *namesake(const struct registry *reg, const struct ctl_bond_conf *conf)
{
    for (uint8_t m = 0; m < conf->nmembers; m++) {
        const struct netdev *nd = netdevs_by_name(&reg->netdevs, conf->member[m]);
        if (nd && nd->link.has_mac) return nd;
    }
    list_for_each (node, &reg->netdevs.all) {
        const struct netdev *nd = container_of(node, struct netdev, node);
        if (nd->link.type == ARPHRD_ETHER && nd->link.has_mac) return nd;
    }
    return NULL;
}

int registry_put_bond(struct registry *reg, const struct ctl_bond_conf *conf)
{
    uint64_t guid = guid_of_bond(namesake(reg, conf), conf->name);
    when_t now = clock_now();

    struct device *d = add_device(reg, conf, true, guid, now);
    if (!d) return -ENOMEM;
    if (!reg->dumping) reconcile(reg, now); /* the members' own devices go */
    return 0;
}

void registry_drop_bond(struct registry *reg, struct device *bond)
{
    when_t now = clock_now();

    remove_device(reg, bond, now);
    reconcile(reg, now); /* and return */
}

int registry_change_bond(struct registry *reg, struct device *bond,
                         const struct ctl_bond_conf *conf)
{
    struct device_change change;
    when_t now = clock_now();

    int rc = device_configure(bond, conf, now, &change);
    if (rc < 0) return rc;
    announce(reg, bond, &change, now);
    reconcile(reg, now);
    return 0;
}
