/* RDMA netlink sockets inside librbond, by which rdma(8) asks the kernel for its devices: such a
 * socket of the program's is one of ours while an rbondd answers. netlink_libc.c catches the calls.
 */
#ifndef RBOND_VERBS_NETLINK_H
#define RBOND_VERBS_NETLINK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

extern _Atomic unsigned netlink_sockets;

/* Is any such socket open? One load: all that other descriptors' calls pay where none is. */
static inline bool netlink_any(void)
{
    return __builtin_expect(atomic_load_explicit(&netlink_sockets, memory_order_relaxed) != 0, 0);
}

/* Is this descriptor, or what it was duplicated from, one of them? errno stays. */
bool netlink_is_socket(int fd);

/* socket(AF_NETLINK, type, NETLINK_RDMA). False: libc's turn, for no rbondd answers, the calling
 * thread wants the kernel's, or the type is none. Else *fd is the answer, perhaps -1 with errno. */
bool netlink_try_open(int type, int *fd);

/* In the calling thread such a socket is the kernel's: the real libibverbs looks for its devices.
 */
void netlink_stand_aside(bool aside);

/* As the calls of libc: 0 or the count, or -1 with errno. */
int netlink_bind(int fd, const struct sockaddr *address, socklen_t len);
int netlink_getsockname(int fd, struct sockaddr *address, socklen_t *len);
int netlink_setsockopt(int fd, int option, const void *value, socklen_t len);
/* Every request in `bytes` has been answered when this returns: the answers wait to be received. */
ssize_t netlink_send(int fd, const void *bytes, size_t len);
/* Something has been received: who sent it, into an address of *len bytes (NULL: nowhere), and what
 * had no room before comes nearer. */
void netlink_received(int fd, struct sockaddr *address, socklen_t *len);

/* A descriptor of one has been closed. */
void netlink_closed(void);

#endif
