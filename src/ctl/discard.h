/* Descriptors that clients pass and that nobody wants, or no longer. To close one may take as long as
 * whoever serves its file likes (FUSE, NFS), and that may be the client: each is closed by a thread
 * of its own, so that no loop waits. */
#ifndef RBOND_CTL_DISCARD_H
#define RBOND_CTL_DISCARD_H

#include <stdbool.h>

/* False: so many closes are under way that no more descriptors should be taken. */
bool ctl_discard_has_room(void);
/* Closes it, now or later. -1: nothing. Thread safe. */
void ctl_discard(int fd);

#endif
