/* The libc calls by which programs look for /sys/class/infiniband and /dev/infiniband. Each is
 * libc's own; only one that fails is looked at, and called again where paths.c leads. So a program
 * pays for the hooks with a jump. */
#include "verbs/hook.h"
#include "verbs/paths.h"
#include "verbs/ucma.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Defines `type name(parameters)`: arguments with P for the path, which is relative to `at`. */
#define LED(type, name, parameters, at, failed, ...)                                               \
    HOOK type name parameters                                                                      \
    {                                                                                              \
        char to[PATH_MAX];                                                                         \
        const char *P = path;                                                                      \
        LIBC(name);                                                                                \
        type result = real(__VA_ARGS__);                                                           \
        if (__builtin_expect(result == (failed), 0) && paths_lead(at, path, to)) {                 \
            P = to;                                                                                \
            result = real(__VA_ARGS__);                                                            \
        }                                                                                          \
        return result;                                                                             \
    }

/* ---- what it is -------------------------------------------------------------------------- */

LED(int, stat, (const char *restrict path, struct stat *restrict st), AT_FDCWD, -1, P, st)
LED(int, lstat, (const char *restrict path, struct stat *restrict st), AT_FDCWD, -1, P, st)
LED(int, stat64, (const char *restrict path, struct stat64 *restrict st), AT_FDCWD, -1, P, st)
LED(int, lstat64, (const char *restrict path, struct stat64 *restrict st), AT_FDCWD, -1, P, st)
LED(int, fstatat, (int at, const char *restrict path, struct stat *restrict st, int flags), at, -1,
    at, P, st, flags)
LED(int, fstatat64, (int at, const char *restrict path, struct stat64 *restrict st, int flags), at,
    -1, at, P, st, flags)
LED(int, statx,
    (int at, const char *restrict path, int flags, unsigned mask, struct statx *restrict sx), at,
    -1, at, P, flags, mask, sx)

/* Of programs built before glibc 2.33. */
int __xstat(int version, const char *path, struct stat *st);
int __lxstat(int version, const char *path, struct stat *st);
int __xstat64(int version, const char *path, struct stat64 *st);
int __lxstat64(int version, const char *path, struct stat64 *st);

LED(int, __xstat, (int version, const char *path, struct stat *st), AT_FDCWD, -1, version, P, st)
LED(int, __lxstat, (int version, const char *path, struct stat *st), AT_FDCWD, -1, version, P, st)
LED(int, __xstat64, (int version, const char *path, struct stat64 *st), AT_FDCWD, -1, version, P,
    st)
LED(int, __lxstat64, (int version, const char *path, struct stat64 *st), AT_FDCWD, -1, version, P,
    st)

LED(int, access, (const char *path, int mode), AT_FDCWD, -1, P, mode)
LED(int, faccessat, (int at, const char *path, int mode, int flags), at, -1, at, P, mode, flags)

/* ls asks for these. */
LED(ssize_t, getxattr, (const char *path, const char *name, void *value, size_t size), AT_FDCWD, -1,
    P, name, value, size)
LED(ssize_t, lgetxattr, (const char *path, const char *name, void *value, size_t size), AT_FDCWD,
    -1, P, name, value, size)

/* ---- where it leads ---------------------------------------------------------------------- */

ssize_t __readlink_chk(const char *path, char *buf, size_t len, size_t room);
char *__realpath_chk(const char *path, char *resolved, size_t room);

LED(ssize_t, readlink, (const char *restrict path, char *restrict buf, size_t len), AT_FDCWD, -1, P,
    buf, len)
LED(ssize_t, readlinkat, (int at, const char *restrict path, char *restrict buf, size_t len), at,
    -1, at, P, buf, len)
LED(ssize_t, __readlink_chk, (const char *path, char *buf, size_t len, size_t room), AT_FDCWD, -1,
    P, buf, len, room)
LED(char *, realpath, (const char *restrict path, char *restrict resolved), AT_FDCWD, NULL, P,
    resolved)
LED(char *, __realpath_chk, (const char *path, char *resolved, size_t room), AT_FDCWD, NULL, P,
    resolved, room)
LED(char *, canonicalize_file_name, (const char *path), AT_FDCWD, NULL, P)

LED(int, chdir, (const char *path), AT_FDCWD, -1, P)

/* ---- opening ----------------------------------------------------------------------------- */

/* To read: what is written to rbondd's tree would change nothing but it. */
#define LED_FOPEN(name)                                                                            \
    HOOK FILE *name(const char *restrict path, const char *restrict mode)                          \
    {                                                                                              \
        char to[PATH_MAX];                                                                         \
        LIBC(name);                                                                                \
        FILE *file = real(path, mode);                                                             \
        if (__builtin_expect(file != NULL, 1) || strpbrk(mode, "wa+")) return file;                \
        return paths_lead(AT_FDCWD, path, to) ? real(to, mode) : NULL;                             \
    }

LED_FOPEN(fopen)
LED_FOPEN(fopen64)

int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int at, const char *path, int flags);
int __openat64_2(int at, const char *path, int flags);

/* The mode is there only where a file may be made: then the path is not led. To write, only device
 * nodes are opened. */
#define LED_OPEN(name, parameters, at, ...)                                                        \
    HOOK int name parameters                                                                       \
    {                                                                                              \
        char to[PATH_MAX];                                                                         \
        const char *P = path;                                                                      \
        mode_t mode = 0;                                                                           \
        int fd;                                                                                    \
        LIBC(name);                                                                                \
        if (ucma_try_open(path, flags, &fd)) return fd;                                            \
        if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {                                 \
            va_list ap;                                                                            \
            va_start(ap, flags);                                                                   \
            mode = va_arg(ap, mode_t);                                                             \
            va_end(ap);                                                                            \
            return real(__VA_ARGS__, mode);                                                        \
        }                                                                                          \
        fd = real(__VA_ARGS__, mode);                                                              \
        if (__builtin_expect(fd >= 0, 1) || !paths_lead(at, path, to)) return fd;                  \
        if ((flags & O_ACCMODE) != O_RDONLY && strncmp(path, "/dev/", 5)) return fd;               \
        P = to;                                                                                    \
        return real(__VA_ARGS__, mode);                                                            \
    }

LED_OPEN(open, (const char *path, int flags, ...), AT_FDCWD, P, flags)
LED_OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, P, flags)
LED_OPEN(openat, (int at, const char *path, int flags, ...), at, at, P, flags)
LED_OPEN(openat64, (int at, const char *path, int flags, ...), at, at, P, flags)

HOOK int __open_2(const char *path, int flags) { return open(path, flags); }
HOOK int __open64_2(const char *path, int flags) { return open64(path, flags); }
HOOK int __openat_2(int at, const char *path, int flags) { return openat(at, path, flags); }
HOOK int __openat64_2(int at, const char *path, int flags) { return openat64(at, path, flags); }

/* ---- listing ----------------------------------------------------------------------------- */

/* The directories that hold the devices are the tree's even where the kernel has them: it leads to
 * the kernel's devices, too. */
HOOK DIR *opendir(const char *path)
{
    char to[PATH_MAX];
    DIR *list;
    LIBC(opendir);

    if (paths_lead_list(path, to) && (list = real(to))) return list;
    list = real(path);
    return !list && paths_lead(AT_FDCWD, path, to) ? real(to) : list;
}

#define LED_SCAN(name, entry)                                                                      \
    HOOK int name(const char *restrict path, struct entry ***restrict list,                        \
                  int (*filter)(const struct entry *),                                             \
                  int (*compare)(const struct entry **, const struct entry **))                    \
    {                                                                                              \
        char to[PATH_MAX];                                                                         \
        int n = -1;                                                                                \
        LIBC(name);                                                                                \
        if (paths_lead_list(path, to)) n = real(to, list, filter, compare);                        \
        if (n < 0) n = real(path, list, filter, compare);                                          \
        return n < 0 && paths_lead(AT_FDCWD, path, to) ? real(to, list, filter, compare) : n;      \
    }

LED_SCAN(scandir, dirent)
LED_SCAN(scandir64, dirent64)
