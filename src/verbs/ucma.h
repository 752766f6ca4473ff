/* The RDMA connection manager's device inside librbond. librdmacm opens /dev/infiniband/rdma_cm,
 * writes ucma commands to it and polls it for events; ucma_libc.c catches those calls, and ucma.c
 * makes a channel to rbondd's broker of each such descriptor. */
#ifndef RBOND_VERBS_UCMA_H
#define RBOND_VERBS_UCMA_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#define UCMA_DEV_PATH "/dev/infiniband/rdma_cm"

/* A new channel as a descriptor that polls readable while an event waits. `flags` are open(2)'s:
 * O_NONBLOCK and O_CLOEXEC count. -1 with errno; ENXIO: no rbondd answers. */
int ucma_open(int flags);

/* An open of `path` with `flags`: true where it is the device's, and *fd the answer (perhaps -1 with
 * errno). False: libc's turn, also when no rbondd answers. */
bool ucma_try_open(const char *path, int flags, int *fd);

/* Is this descriptor a channel's? One load where it is not. */
bool ucma_is_channel(int fd);

/* write(2) to a channel: the command has been answered, its response stored, when this returns. */
ssize_t ucma_write(int fd, const void *buf, size_t len);

/* The descriptor is about to be closed. */
void ucma_forget(int fd);

/* Makes what fstat(2) said of a channel say what it would of the character device. */
void ucma_disguise(int fd, struct stat *st);

#endif
