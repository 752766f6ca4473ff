/* One rtnetlink message -> one fact. The kernel is trusted, lengths are checked all the same. */
#ifndef RBOND_WATCH_PARSE_H
#define RBOND_WATCH_PARSE_H

#include "watch/watch.h"
#include <linux/netlink.h>

/* False: not such a message, or one of no interest (a bridge's own view of its ports: AF_BRIDGE).
 */
bool watch_parse_link(const struct nlmsghdr *nlh, struct watch_link *link);
bool watch_parse_addr(const struct nlmsghdr *nlh, struct watch_addr *addr);

#endif
