/* Pages of the program's own memory: are they there, may they be written, bring them in. */
#ifndef RBOND_VERBS_PAGES_H
#define RBOND_VERBS_PAGES_H

#include <stdbool.h>
#include <stddef.h>

/* Does this kernel bring pages in on request (MADV_POPULATE_*, Linux 5.14)? On demand paging needs
 * it. */
bool pages_on_demand(void);
/* Is [addr, addr + length) there, to be read or written? Brings its pages in, too, as pinning
 * would. 0, EINVAL where the range wraps, EFAULT where parts of it are not mapped or not of these
 * rights. An old kernel tells only what is not mapped. */
int pages_probe(const void *addr, size_t length, bool write);
/* hca_conf.page_in: the same at each access to a region on demand. Where another thread unmaps the
 * page in the moment between this answer and the access, that thread's program faults. */
bool pages_in(void *at, size_t len, bool write);
/* Are all pages of it in memory now? Nothing is brought in. EFAULT as above. */
int pages_look(const void *addr, size_t length);

#endif
