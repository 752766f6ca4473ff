/* Where rbondd keeps what programs look for around an RDMA device, as files: a directory beside its
 * socket, in which SYS_CLASS/infiniband, SYS_CLASS/infiniband_verbs and DEV/infiniband lie as a
 * program expects them under /. daemon/tree.c writes it; `rbond run` mounts its parts where they are
 * expected, and librbond leads calls there where that cannot be done. */
#ifndef RBOND_CTL_TREE_H
#define RBOND_CTL_TREE_H

#include <stdbool.h>

#define CTL_TREE_LEN 112

/* The tree beside this socket, whether or not there is one. */
void ctl_tree_of(const char *socket, char path[CTL_TREE_LEN]);
/* The tree of this network namespace's rbondd, one that may be trusted; false: there is none. */
bool ctl_tree_find(char path[CTL_TREE_LEN]);
/* Removes directory `name` below descriptor `at` with all that is in it; no link is followed. */
void ctl_tree_remove(int at, const char *name);

#endif
