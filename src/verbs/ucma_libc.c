/* The libc calls through which librdmacm speaks to what it took for /dev/infiniband/rdma_cm. Every
 * other descriptor passes with one load of a table. What else stands in for the kernel and is
 * written to or closed like any file is asked here, too. */
#include "verbs/hook.h"
#include "verbs/netlink.h"
#include "verbs/ucma.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The kernel's. What stands in its place for programs to see is the null device, which would take
 * every command and do none. */
static int open_kernels(int flags)
{
    struct stat st;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, UCMA_DEV_PATH, flags);

    if (fd < 0 || syscall(SYS_fstat, fd, &st) != 0 || st.st_rdev != makedev(1, 3)) return fd;
    syscall(SYS_close, fd);
    errno = ENODEV;
    return -1;
}

bool ucma_try_open(const char *path, int flags, int *fd)
{
    if (!path || strcmp(path, UCMA_DEV_PATH)) return false;
    *fd = ucma_open(flags);
    if (*fd < 0 && errno == ENXIO) *fd = open_kernels(flags); /* no rbondd answers */
    return true;
}

HOOK ssize_t write(int fd, const void *buf, size_t len)
{
    if (__builtin_expect(ucma_is_channel(fd), 0)) return ucma_write(fd, buf, len);
    if (netlink_any() && netlink_is_socket(fd)) return netlink_send(fd, buf, len);
    LIBC(write);
    return real(fd, buf, len);
}

HOOK int close(int fd)
{
    if (__builtin_expect(ucma_is_channel(fd), 0)) ucma_forget(fd);
    bool of_netlink = netlink_any() && netlink_is_socket(fd);
    LIBC(close);
    int ret = real(fd);
    if (of_netlink) netlink_closed();
    return ret;
}

HOOK int fstat(int fd, struct stat *st)
{
    LIBC(fstat);
    int ret = real(fd, st);
    if (ret == 0 && __builtin_expect(ucma_is_channel(fd), 0)) ucma_disguise(fd, st);
    return ret;
}
