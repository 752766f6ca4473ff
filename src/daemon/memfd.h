/* Shared memory with programs: sealed, so that its size never changes under anybody. */
#ifndef RBOND_DAEMON_MEMFD_H
#define RBOND_DAEMON_MEMFD_H

#include <stddef.h>

/* A page that only this process can write: *map is its mapping, the descriptor returned can be
 * mapped read only. Negative errno. */
int memfd_published(const char *name, size_t size, void **map);
/* A page that whoever has the descriptor may write. */
int memfd_shared(const char *name, size_t size);

#endif
