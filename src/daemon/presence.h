/* Where a bond's addresses are now, for peers on its ports' own layer 2. They sent to the MAC of the
 * port that answered their ARP; once that is out of use they would go on for half a minute. */
#ifndef RBOND_DAEMON_PRESENCE_H
#define RBOND_DAEMON_PRESENCE_H

#include "daemon/device.h"

/* Announces the IPv4 addresses on a member in use: the active one, or the first. Nothing comes of it
 * without the right to (CAP_NET_RAW), or with no member in use. */
void presence_announce(const struct device *device, const struct netdevs *nds);

#endif
