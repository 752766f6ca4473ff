/* The libc calls through which libmnl and libnl speak to the kernel's RDMA netlink. Every other
 * descriptor passes with one load while no such socket is open. write and close are ucma_libc.c's.
 * read is left alone: nobody reads netlink by it, and it gets what is in the pair. */
#include "verbs/hook.h"
#include "verbs/netlink.h"
#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

static bool is_ours(int fd) { return netlink_any() && netlink_is_socket(fd); }

HOOK int socket(int domain, int type, int protocol)
{
    int fd;
    LIBC(socket);
    if (__builtin_expect(domain == AF_NETLINK && protocol == NETLINK_RDMA, 0) &&
        netlink_try_open(type, &fd))
        return fd;
    return real(domain, type, protocol);
}

HOOK int bind(int fd, __CONST_SOCKADDR_ARG address, socklen_t len)
{
    LIBC(bind);
    return is_ours(fd) ? netlink_bind(fd, address.__sockaddr__, len) : real(fd, address, len);
}

HOOK int getsockname(int fd, __SOCKADDR_ARG address, socklen_t *restrict len)
{
    LIBC(getsockname);
    return is_ours(fd) ? netlink_getsockname(fd, address.__sockaddr__, len)
                       : real(fd, address, len);
}

HOOK int setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
    LIBC(setsockopt);
    return level == SOL_NETLINK && is_ours(fd) ? netlink_setsockopt(fd, option, value, len)
                                               : real(fd, level, option, value, len);
}

/* ---- out --------------------------------------------------------------------------------- */

HOOK ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    LIBC(send);
    return is_ours(fd) ? netlink_send(fd, bytes, len) : real(fd, bytes, len, flags);
}

HOOK ssize_t sendto(int fd, const void *bytes, size_t len, int flags, __CONST_SOCKADDR_ARG to,
                    socklen_t tolen)
{
    LIBC(sendto);
    return is_ours(fd) ? netlink_send(fd, bytes, len) : real(fd, bytes, len, flags, to, tolen);
}

/* In one piece. */
static ssize_t send_gathered(int fd, const struct msghdr *msg)
{
    size_t len = 0, at = 0;
    ssize_t n;

    for (size_t i = 0; i < msg->msg_iovlen; i++) len += msg->msg_iov[i].iov_len;
    char *bytes = malloc(len + 1);
    if (!bytes) return -1;
    for (size_t i = 0; i < msg->msg_iovlen; at += msg->msg_iov[i++].iov_len)
        if (msg->msg_iov[i].iov_len)
            memcpy(bytes + at, msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len);
    n = netlink_send(fd, bytes, len);
    free(bytes);
    return n;
}

HOOK ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    LIBC(sendmsg);
    return is_ours(fd) ? send_gathered(fd, msg) : real(fd, msg, flags);
}

/* ---- in ---------------------------------------------------------------------------------- */

HOOK ssize_t recv(int fd, void *bytes, size_t len, int flags)
{
    LIBC(recv);
    ssize_t n = real(fd, bytes, len, flags);
    if (n >= 0 && is_ours(fd)) netlink_received(fd, NULL, NULL);
    return n;
}

HOOK ssize_t recvfrom(int fd, void *restrict bytes, size_t len, int flags, __SOCKADDR_ARG from,
                      socklen_t *restrict fromlen)
{
    LIBC(recvfrom);
    if (!is_ours(fd)) return real(fd, bytes, len, flags, from, fromlen);
    ssize_t n = recv(fd, bytes, len, flags);
    if (n >= 0 && from.__sockaddr__ && fromlen) netlink_received(fd, from.__sockaddr__, fromlen);
    return n;
}

HOOK ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    LIBC(recvmsg);
    if (!is_ours(fd)) return real(fd, msg, flags);
    const socklen_t room = msg ? msg->msg_namelen : 0;
    ssize_t n = real(fd, msg, flags);
    if (n < 0) return n;
    msg->msg_namelen = room;
    netlink_received(fd, msg->msg_name, &msg->msg_namelen);
    return n;
}

/* Of programs built with _FORTIFY_SOURCE. */
ssize_t __recv_chk(int fd, void *bytes, size_t len, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *restrict bytes, size_t len, size_t room, int flags,
                       __SOCKADDR_ARG from, socklen_t *restrict fromlen);
void __chk_fail(void) __attribute__((noreturn));

HOOK ssize_t __recv_chk(int fd, void *bytes, size_t len, size_t room, int flags)
{
    if (len > room) __chk_fail();
    return recv(fd, bytes, len, flags);
}

HOOK ssize_t __recvfrom_chk(int fd, void *restrict bytes, size_t len, size_t room, int flags,
                            __SOCKADDR_ARG from, socklen_t *restrict fromlen)
{
    if (len > room) __chk_fail();
    return recvfrom(fd, bytes, len, flags, from, fromlen);
}
