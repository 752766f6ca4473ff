#include "daemon/memfd.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static int create(const char *name, size_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0) return -errno;
    if (ftruncate(fd, (off_t)size) == 0) return fd;
    int rc = -errno;
    close(fd);
    return rc;
}

static int seal(int fd, int seals)
{
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | seals) == 0) return fd;
    int rc = -errno;
    close(fd);
    return rc;
}

int memfd_published(const char *name, size_t size, void **map)
{
    int fd = create(name, size);
    if (fd < 0) return fd;

    *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*map == MAP_FAILED) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    /* Our mapping stays writable; no other can be made so from now on. */
    fd = seal(fd, F_SEAL_FUTURE_WRITE);
    if (fd < 0) munmap(*map, size);
    return fd;
}

int memfd_shared(const char *name, size_t size)
{
    int fd = create(name, size);

    return fd < 0 ? fd : seal(fd, 0);
}
