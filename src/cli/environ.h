/* What programs expect around a verbs device: /sys/class/infiniband/DEV and /dev/infiniband/DEV, in
 * a mount namespace of the program's own.
 *   environ.c        the namespace, and the order of things
 *   environ_stage.c  a directory to which entries can be added
 *   environ_sysfs.c  what the files of a device say
 *   environ_keep.c   keeps them true while the program runs */
#ifndef RBOND_CLI_ENVIRON_H
#define RBOND_CLI_ENVIRON_H

#include "ctl/client.h"
#include <stdbool.h>

struct environ_dirs {
    int sysfs; /* /sys/class/infiniband */
    int nodes; /* /dev/infiniband */
};

/* Gives this process, and what it starts, the two directories. It needs root, or user namespaces
 * that an ordinary user may make; where it cannot be done, or RBOND_ENVIRON=0 forbids it, nothing
 * changes. To be called right before the program starts, with one thread. */
void environ_make(void);

/* Puts a tmpfs over `parent`/`leaf`, or over `parent` where that has no such directory, in which
 * everything that was there is there. The descriptor of `parent`/`leaf`, or -1: nothing changed. */
int environ_stage(const char *parent, const char *leaf);

struct environ_facts {
    struct ctl_reply devices, gids, stats;
};

/* Writes or corrects the files of a device below `sysfs`. The record's name was checked. */
void environ_sysfs_write(int sysfs, const struct ctl_dev *dev, const struct environ_facts *facts);
void environ_sysfs_remove(int sysfs, const char *device);

/* Brings both directories in line with rbondd; false when it does not answer. */
bool environ_update(const struct environ_dirs *dirs, struct ctl_client *client);
/* Does so in a process of its own until this one ends. */
void environ_keep(const struct environ_dirs *dirs);

#endif
