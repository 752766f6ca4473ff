/* A network namespace of the test's own, with or without root. It goes with the process. */
#ifndef RBOND_TEST_NETNS_H
#define RBOND_TEST_NETNS_H

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static inline bool netns_write(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0) return false;
    bool ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return ok;
}

/* Call before any thread is made. False: the machine does not let us. */
static inline bool netns_enter(void)
{
    char map[64];
    unsigned uid = geteuid(), gid = getegid();

    if (uid == 0) return unshare(CLONE_NEWNET) == 0;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return false;
    netns_write("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "0 %u 1", uid);
    if (!netns_write("/proc/self/uid_map", map)) return false;
    snprintf(map, sizeof map, "0 %u 1", gid);
    return netns_write("/proc/self/gid_map", map);
}

#endif
