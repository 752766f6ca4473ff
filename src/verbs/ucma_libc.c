/* The libc calls through which librdmacm reaches /dev/infiniband/rdma_cm. These symbols carry no
 * version node (a node of ours would break programs that want libc's own). Every other descriptor
 * passes with one load of a table. */
#include "verbs/ucma.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOOK __attribute__((visibility("default")))

/* libc's own, found at the first call: a constructor of somebody else may run before ours. */
#define REAL(name)                                                                                 \
    static __typeof__(&name) real;                                                                 \
    if (__builtin_expect(!__atomic_load_n(&real, __ATOMIC_RELAXED), 0))                            \
    __atomic_store_n(&real, (__typeof__(&name))dlsym(RTLD_NEXT, #name), __ATOMIC_RELAXED)

/* 1: *fd is the answer (perhaps -1 with errno); 0: not our path, or no rbondd answers: libc's turn.
 */
static int try_open(const char *path, int flags, int *fd)
{
    if (!path || strcmp(path, UCMA_DEV_PATH) != 0) return 0;
    int saved = errno;
    *fd = ucma_open(flags);
    if (*fd >= 0 || errno != ENXIO) return 1;
    errno = saved;
    return 0;
}

static mode_t mode_of(int flags, va_list ap)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(ap, mode_t) : 0;
}

HOOK int open(const char *path, int flags, ...)
{
    REAL(open);
    int fd;
    if (try_open(path, flags, &fd)) return fd;
    va_list ap;
    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    return real(path, flags, mode);
}

HOOK int open64(const char *path, int flags, ...)
{
    REAL(open64);
    int fd;
    if (try_open(path, flags, &fd)) return fd;
    va_list ap;
    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    return real(path, flags, mode);
}

HOOK ssize_t write(int fd, const void *buf, size_t len)
{
    if (__builtin_expect(ucma_is_channel(fd), 0)) return ucma_write(fd, buf, len);
    REAL(write);
    return real(fd, buf, len);
}

HOOK int close(int fd)
{
    if (__builtin_expect(ucma_is_channel(fd), 0)) ucma_forget(fd);
    REAL(close);
    return real(fd);
}

HOOK int fstat(int fd, struct stat *st)
{
    REAL(fstat);
    int ret = real(fd, st);
    if (ret == 0 && __builtin_expect(ucma_is_channel(fd), 0)) ucma_disguise(fd, st);
    return ret;
}
