#include "daemon/owners.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int owners_open(struct owners *owners, const char *socket)
{
    struct stat st;

    memset(owners, 0, sizeof *owners);
    snprintf(owners->path, sizeof owners->path, "%s.owners", socket);
    int fd = open(owners->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return -errno;
    int rc = fstat(fd, &st) < 0 ? -errno : st.st_uid != geteuid() ? -EPERM : 0;
    if (rc == 0 && pread(fd, owners->last, sizeof owners->last, 0) < 0) rc = -errno;
    if (rc < 0) {
        close(fd);
        return rc;
    }
    owners->fd = fd;
    owners->kept = true;
    return 0;
}

void owners_close(struct owners *owners, bool alive)
{
    if (!owners->kept) return;
    if (!alive) unlink(owners->path);
    close(owners->fd);
    owners->kept = false;
}

void owners_set(struct owners *owners, unsigned number, uid_t uid, pid_t pid)
{
    struct owner *o = &owners->last[number];

    *o = (struct owner){uid + 1, pid};
    /* A few bytes into the page cache. Where they are lost, the next rbondd knows less. */
    if (owners->kept) (void)!pwrite(owners->fd, o, sizeof *o, (off_t)(number * sizeof *o));
}

bool owners_allow(const struct owners *owners, unsigned number, uid_t uid, pid_t pid)
{
    if (number >= FUNCTIONS_MAX) return true; /* there is none: refused for that */
    const struct owner *o = &owners->last[number];

    return o->uid_and_1 == 0 || uid == 0 || o->uid_and_1 == uid + 1 || (pid && o->pid == pid);
}
