/* The sockets of the reuseport group in the service manager's store (sd_notify(3), FDSTORE), where
 * there is one: they outlive rbondd there. While it is dead the group keeps its order, whichever
 * programs end, and the next rbondd takes it over as it is. */
#ifndef RBOND_DAEMON_FDSTORE_H
#define RBOND_DAEMON_FDSTORE_H

#include <stddef.h>

/* Function `number`'s socket, to be kept; they are given in turn from 0. Where one does not get
 * there the store is given up: with a gap its order would be a lie. */
void fdstore_keep(unsigned number, int fd);
/* What an earlier rbondd left, fds[n] for function n, now the caller's; how many: 0 where there is
 * none, or not all of it. Once: the environment says it no longer afterwards. */
unsigned fdstore_take(int *fds, unsigned max);

#endif
