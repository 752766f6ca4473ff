/* One RDMA device: rb_<netdev> on a plain port, rb_<name> on a managed bond. Both are the same
 * thing here: a steering engine (bond/) over one or more members, a GID table, a page that programs
 * read. What exists is decided by registry.c; this file keeps one device's page true and says what
 * changed. */
#ifndef RBOND_DAEMON_DEVICE_H
#define RBOND_DAEMON_DEVICE_H

#include "bond/bond.h"
#include "ctl/page.h"
#include "daemon/gids.h"

struct device {
    struct list node;
    struct ctl_bond_conf conf; /* name, netdev, members, mode; a plain port: one member, itself */
    bool is_bond;
    char name[CTL_NAME_LEN];
    uint32_t ifindex; /* a plain port's */
    uint16_t number;  /* the registry's, for as long as the device is there */
    uint64_t guid;
    struct bond engine;
    uint32_t generation; /* of the page */
    struct gid_table gids;
    struct device_state state; /* as published */
    struct device_page *page;
    int page_fd;        /* to pass on: maps read only */
    unsigned functions; /* open ones */
    /* Counts of functions that have ended; live ones are read from their pages. */
    uint64_t past[64];
    struct hca_member_counters past_member[STEER_MAX_MEMBERS];
};

/* What device_refresh found. */
struct device_change {
    bool page; /* anything at all */
    struct bond_change bond;
    bool gids, mtu, speed;
};

/* NULL: memory or descriptors are short, or the configuration is none (bond_init). */
struct device *device_new(const struct ctl_bond_conf *conf, bool is_bond, uint64_t guid,
                          when_t now);
void device_free(struct device *device);

/* A member's link, the fast way: engine and page, nothing else looked at. */
struct device_change device_link(struct device *device, uint8_t member, bool carrier, bool up,
                                 when_t when);
struct device_change device_expire(struct device *device, when_t now);
/* Everything that the net devices say. */
struct device_change device_refresh(struct device *device, const struct netdevs *nds, when_t when);
/* Changed attributes of a bond; the members must be the same. */
int device_configure(struct device *device, const struct ctl_bond_conf *conf, when_t now,
                     struct device_change *change);
/* The device goes: what programs still see is a dead port. */
void device_withdraw(struct device *device, when_t now);

/* The member's index; STEER_NO_MEMBER if it is none. */
uint8_t device_member(const struct device *device, const char *netdev);

void device_describe(const struct device *device, const struct netdevs *nds, struct ctl_dev *out);
void device_describe_bond(const struct device *device, const struct netdevs *nds,
                          struct ctl_bond *out);

/* EUI-64 of a MAC, as adapters make node GUIDs. */
uint64_t guid_of_port(const struct netdev *nd);
/* Differs from that of every member, and from that of another bond of theirs. */
uint64_t guid_of_bond(const struct netdev *first, const char *name);

#endif
