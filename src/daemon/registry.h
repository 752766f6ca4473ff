/* What devices there are. Net devices (watch/) and managed bonds in, devices and events out:
 * every Ethernet port has a device unless it is excluded, has a master, or a managed bond has taken
 * it; every managed bond has one.
 *
 * Owns the bonds' timers, nothing else of the loop. Functions and connections are functions.c's and
 * service.c's, which listen through registry_ops. */
#ifndef RBOND_DAEMON_REGISTRY_H
#define RBOND_DAEMON_REGISTRY_H

#include "daemon/conf.h"
#include "daemon/device.h"
#include "daemon/netdevs.h"
#include <uv.h>

#define REGISTRY_MAX_DEVICES 1024

struct registry_ops {
    /* Something that owners of functions on `device` (NULL: of none) and monitors want to hear. */
    void (*event)(void *ctx, const struct device *device, const struct ctl_event *event);
    /* The device goes; what refers to it must let go now. */
    void (*device_gone)(void *ctx, struct device *device);
    /* After all events of one change: devices, GIDs, tables or port states are different. */
    void (*changed)(void *ctx);
};

struct registry {
    const struct conf *conf;
    const struct registry_ops *ops;
    void *ctx;
    uv_loop_t *loop;
    uv_timer_t timer; /* the first deadline of any bond */
    struct netdevs netdevs;
    struct list devices;
    size_t ndevices;
    uint16_t next_number;
    bool dumping;
    bool unsettled; /* facts have come that devices do not show yet */
    bool dirty;     /* devices have changed since ops->changed */
};

int registry_init(struct registry *reg, uv_loop_t *loop, const struct conf *conf,
                  const struct registry_ops *ops, void *ctx);
/* Frees every device. Their pages stay as they are with the programs that have them: those go on
 * without a daemon. The timer's handle closes on the loop. */
void registry_close(struct registry *reg);

/* Facts, as struct watch_ops has them; `ctx` is the registry. A link's loss or return is in the
 * published table when the call returns; all else waits for registry_settle, once for a whole burst
 * of facts, so that no loss waits behind the bookkeeping of others. */
extern const struct watch_ops registry_watch_ops;
void registry_settle(struct registry *reg);

struct device *registry_by_name(const struct registry *reg, const char *name);
struct device *registry_by_guid(const struct registry *reg, uint64_t guid);
/* Device number `index`, in an order that holds still between changes; NULL past the last. */
struct device *registry_at(const struct registry *reg, size_t index);

/* The device whose member, or whose bond's net device, this one is; NULL: free. */
struct device *registry_bond_of(const struct registry *reg, const char *netdev);

/* Managed bonds whose configuration bonds.c has checked. -ENOMEM: the bond is not there. */
int registry_put_bond(struct registry *reg, const struct ctl_bond_conf *conf);
void registry_drop_bond(struct registry *reg, struct device *bond);
int registry_change_bond(struct registry *reg, struct device *bond,
                         const struct ctl_bond_conf *conf);

#endif
