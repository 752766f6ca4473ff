#include "daemon/fdstore.h"
#include "daemon/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* With the version of what the numbers mean: another rbondd must not take them for its own. */
#define NAME "rbond1-"
#define FIRST_FD 3 /* sd_listen_fds(3) */
#define PATIENCE_S 2

/* ---- to the manager ---------------------------------------------------------------------- */

/* A socket that is connected to the manager, or -1: there is none. */
static int manager(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const struct timeval patience = {.tv_sec = PATIENCE_S};

    if (!path || (*path != '/' && *path != '@') || strlen(path) >= sizeof to.sun_path) return -1;
    strcpy(to.sun_path, path);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (*path == '@') to.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (const struct sockaddr *)&to, len) == 0) return fd;
    close(fd);
    return -1;
}

/* `fd` -1: none goes along. */
static bool tell(int to, char *text, int fd)
{
    union {
        struct cmsghdr cm;
        char room[CMSG_SPACE(sizeof fd)];
    } control = {
        .cm = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)}};
    struct iovec iov = {text, strlen(text)};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (fd >= 0) {
        memcpy(CMSG_DATA(&control.cm), &fd, sizeof fd);
        mh.msg_control = &control;
        mh.msg_controllen = sizeof control;
    }
    do n = sendmsg(to, &mh, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n >= 0;
}

void fdstore_keep(unsigned number, int fd)
{
    char text[64];
    int to = manager();

    if (to < 0) return;
    snprintf(text, sizeof text, "FDSTORE=1\nFDPOLL=0\nFDNAME=" NAME "%u", number);
    if (!tell(to, text, fd)) {
        log_warning("the service manager does not keep function %u's socket: %s", number,
                    strerror(errno));
        snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=" NAME "0");
        tell(to, text, -1);
    }
    close(to);
}

/* ---- and back ---------------------------------------------------------------------------- */

/* How many descriptors were passed to this process. */
static int passed(void)
{
    const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");

    if (!pid || !n || strtol(pid, NULL, 10) != getpid()) return 0;
    long fds = strtol(n, NULL, 10);
    return fds > 0 && fds < 65536 ? (int)fds : 0;
}

static bool is_udp(int fd)
{
    int type = 0;
    socklen_t len = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_DGRAM;
}

/* Where it belongs, or nowhere. */
static void sort_in(int fd, const char *name, int *fds, unsigned max)
{
    char *end;
    const size_t prefix = strlen(NAME);
    unsigned long number = max;

    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (strncmp(name, NAME, prefix) == 0) {
        number = strtoul(name + prefix, &end, 10);
        if (end == name + prefix || *end) number = max;
    }
    if (number < max && fds[number] < 0 && is_udp(fd))
        fds[number] = fd;
    else
        close(fd);
}

/* All of them, or none: how many. */
static unsigned count(int *fds, unsigned max)
{
    unsigned n = 0, all = 0;

    while (n < max && fds[n] >= 0) n++;
    for (unsigned i = 0; i < max; i++) all += fds[i] >= 0;
    if (n == all) return n;
    for (unsigned i = 0; i < max; i++)
        if (fds[i] >= 0) close(fds[i]);
    return 0;
}

unsigned fdstore_take(int *fds, unsigned max)
{
    int n = passed();
    const char *given = getenv("LISTEN_FDNAMES");
    char *names = strdup(given ? given : ""), *rest = names;

    for (unsigned i = 0; i < max; i++) fds[i] = -1;
    for (int i = 0; i < n; i++) {
        const char *name = rest ? strsep(&rest, ":") : "";
        sort_in(FIRST_FD + i, name, fds, max);
    }
    free(names);
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return count(fds, max);
}
