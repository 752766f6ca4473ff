/* Where the daemon listens: directory, lock file, socket. The lock, not the socket file, says
 * whether a daemon lives: a killed one leaves its socket, the kernel drops its lock. */
#include "ctl/client.h"
#include "ctl/server.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Makes the last directory of the path. One that stands already must be ours (or root's), or
 * whoever owns it could put his own socket there. */
static int make_directory(const char *path)
{
    char copy[108];
    struct stat st;

    snprintf(copy, sizeof copy, "%s", path);
    const char *dir = dirname(copy);
    mode_t old = umask(022);
    int rc = mkdir(dir, 0755);
    int err = errno;
    umask(old);
    if (rc == 0) return 0;
    if (err != EEXIST) return -err;
    if (strncmp(dir, "/tmp/rbond-", 11) != 0) return 0;
    if (lstat(dir, &st) != 0) return -errno;
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid()) return -EPERM;
    return 0;
}

/* Opens and locks the lock file. A daemon that ends removes the file with the lock held, so the
 * file that was locked must still be the one of that name. */
static int take_lock(const char *path)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        struct stat held, named;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0) return -errno;
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int err = errno == EWOULDBLOCK ? EADDRINUSE : errno;
            close(fd);
            return -err;
        }
        if (fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_ino == named.st_ino &&
            held.st_dev == named.st_dev)
            return fd;
        close(fd);
    }
    return -EAGAIN;
}

static int bind_socket(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};

    memcpy(sun.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) unlink(path);
    if (bind(fd, (struct sockaddr *)&sun, sizeof sun) != 0 || chmod(path, 0666) != 0 ||
        listen(fd, 128) != 0) {
        int err = errno == EADDRINUSE ? EEXIST : errno; /* something that is no socket */
        close(fd);
        return -err;
    }
    return fd;
}

static int listen_at(struct ctl_listener *l, const char *path)
{
    if (strlen(path) >= sizeof l->path) return -ENAMETOOLONG;
    snprintf(l->path, sizeof l->path, "%s", path);
    snprintf(l->lock_path, sizeof l->lock_path, "%s.lock", path);

    int rc = make_directory(path);
    if (rc < 0) return rc;
    l->lock_fd = take_lock(l->lock_path);
    if (l->lock_fd < 0) return l->lock_fd;
    l->fd = bind_socket(path);
    if (l->fd >= 0) return 0;
    rc = l->fd;
    unlink(l->lock_path);
    close(l->lock_fd);
    l->lock_fd = -1;
    return rc;
}

int ctl_listen(struct ctl_listener *listener, const char *path)
{
    char candidate[108];
    int rc = -ENOENT;

    *listener = (struct ctl_listener){.fd = -1, .lock_fd = -1};
    if (path) return listen_at(listener, path);
    for (unsigned i = 0; ctl_path(i, candidate); i++) {
        rc = listen_at(listener, candidate);
        if (rc == 0 || rc == -EADDRINUSE) return rc;
    }
    return rc;
}

void ctl_listener_close(struct ctl_listener *listener)
{
    if (listener->fd >= 0) {
        close(listener->fd);
        unlink(listener->path);
    }
    if (listener->lock_fd >= 0) {
        unlink(listener->lock_path);
        close(listener->lock_fd);
    }
    listener->fd = listener->lock_fd = -1;
}
