/* The paths at which programs look for an RDMA device, where nothing is mounted there (`rbond run`
 * does that where it may): calls for them that libc cannot serve are led to the same path in
 * rbondd's tree (ctl/tree.h). */
#ifndef RBOND_VERBS_PATHS_H
#define RBOND_VERBS_PATHS_H

#include <limits.h>
#include <stdbool.h>

/* After a call for `path` (relative to descriptor `at`) that failed: is errno ENOENT, the path one
 * of ours, and a tree there? Then `to` is where to look instead, for a second call. */
bool paths_lead(int at, const char *path, char to[PATH_MAX]);
/* Before a directory is listed: one that holds devices, which libc's may lack? */
bool paths_lead_list(const char *path, char to[PATH_MAX]);

#endif
