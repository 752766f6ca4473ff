/* Local identifiers. RoCE has none: its ports show LID 0 and refuse an address without a GRH. So
 * programs that know LIDs alone, and exchange no GIDs, run on no RoCE adapter: qperf, datagram
 * rsockets, ibv_rc_pingpong without -g.
 *
 * Here a port has one, made of its first address (IPv4 before IPv6, none that is link-local): the
 * last LID_BITS of it, which keep within the unicast LIDs (IBTA 4.1.3). A LID leads to the address
 * in the port's own network that ends in it. So hosts reach each other by LID where the rest of
 * their addresses is the same: within a /17, or a /113. Pure. */
#ifndef RBOND_WIRE_LID_H
#define RBOND_WIRE_LID_H

#include "wire/gid.h"
#include <stddef.h>

#define LID_BITS 15

/* The LID of a port with these `n` GIDs, and at *index the one that it is made of; 0: none. */
uint16_t lid_of(const struct gid *gids, size_t n, size_t *index);
/* The GID of the port with this LID; `own` is the one that lid_of has named. */
struct gid lid_gid(const struct gid *own, uint16_t lid);

#endif
