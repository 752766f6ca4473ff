/* A device's GID table: addresses in slots that hold still. Pure. */
#ifndef RBOND_DAEMON_GIDS_H
#define RBOND_DAEMON_GIDS_H

#include "ctl/proto.h"
#include "daemon/netdevs.h"
#include "wire/gid.h"

struct gid_table {
    struct gid slot[CTL_MAX_GIDS];   /* zero: empty */
    struct gid former[CTL_MAX_GIDS]; /* who had the slot last; zero: never used */
};

/* Brings the table in line with the addresses of `nd` (NULL: none); true where it changed. On an
 * Ethernet device slot 0 is kept for its link-local address, as adapters have it; on others, lo
 * above all, link-local and host addresses are left out and slot 0 is like the rest. A GID that
 * goes leaves its slot empty; it comes back to the same slot unless a later one had to take it.
 * Tentative addresses and those that failed duplicate detection wait. */
bool gids_update(struct gid_table *table, const struct netdev *nd);

unsigned gids_count(const struct gid_table *table);

#endif
