/* Keeps a program's directories true. A process of its own does it, no child of the program's and
 * apart from its terminal and its streams: state, GIDs and devices follow rbondd's events at once,
 * counters every second. It ends when the program does; what the program leaves running then sees
 * the last state. */
#include "cli/environ.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PERIOD_MS 1000

/* ---- the state of things ----------------------------------------------------------------- */

static bool is_name(const char name[CTL_NAME_LEN])
{
    return memchr(name, 0, CTL_NAME_LEN) && *name && *name != '.' && !strchr(name, '/');
}

/* A character device that everybody may open, which is all that programs look for. */
static void add_node(int nodes, const char *name)
{
    char path[CTL_NAME_LEN + 32];

    if (mknodat(nodes, name, S_IFREG, 0)) return; /* it is there */
    snprintf(path, sizeof path, "/proc/self/fd/%d/%.*s", nodes, CTL_NAME_LEN, name);
    if (mount("/dev/null", path, NULL, MS_BIND, NULL)) unlinkat(nodes, name, 0);
}

static void remove_node(int nodes, const char *name)
{
    char path[CTL_NAME_LEN + 32];

    snprintf(path, sizeof path, "/proc/self/fd/%d/%.*s", nodes, CTL_NAME_LEN, name);
    umount2(path, MNT_DETACH);
    unlinkat(nodes, name, 0);
}

static bool is_listed(const struct ctl_reply *devices, const char *name)
{
    const struct ctl_dev *dev = devices->records;

    for (size_t i = 0; i < devices->count; i++)
        if (!strncmp(dev[i].name, name, CTL_NAME_LEN)) return true;
    return false;
}

/* Ours are directories, real ones symbolic links. */
static void remove_gone(const struct environ_dirs *dirs, const struct ctl_reply *devices)
{
    int copy = openat(dirs->sysfs, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy < 0 ? NULL : fdopendir(copy);
    const struct dirent *entry;

    while (list && (entry = readdir(list))) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.') continue;
        if (is_listed(devices, entry->d_name)) continue;
        environ_sysfs_remove(dirs->sysfs, entry->d_name);
        if (dirs->nodes >= 0) remove_node(dirs->nodes, entry->d_name);
    }
    if (list) closedir(list);
}

static bool ask(struct ctl_client *client, enum ctl_type type, size_t size, struct ctl_reply *reply)
{
    return !ctl_call(client, type, NULL, 0, size, reply);
}

bool environ_update(const struct environ_dirs *dirs, struct ctl_client *client)
{
    struct environ_facts facts = {0};
    const struct ctl_dev *dev;
    bool ok = ask(client, CTL_DEV_LIST, sizeof *dev, &facts.devices) &&
              ask(client, CTL_GID_LIST, sizeof(struct ctl_gid), &facts.gids) &&
              ask(client, CTL_STAT, sizeof(struct ctl_stat), &facts.stats);

    dev = facts.devices.records;
    for (size_t i = 0; ok && i < facts.devices.count; i++) {
        if (!is_name(dev[i].name)) continue;
        if (dirs->sysfs >= 0) environ_sysfs_write(dirs->sysfs, dev + i, &facts);
        if (dirs->nodes >= 0) add_node(dirs->nodes, dev[i].name);
    }
    if (ok && dirs->nodes >= 0) add_node(dirs->nodes, "rdma_cm");
    if (ok && dirs->sysfs >= 0) remove_gone(dirs, &facts.devices);
    ctl_reply_free(&facts.devices);
    ctl_reply_free(&facts.gids);
    ctl_reply_free(&facts.stats);
    return ok;
}

/* ---- the keeper -------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void hang_up(struct ctl_client **client)
{
    if (*client) ctl_close(*client);
    *client = NULL;
}

static void call_up(struct ctl_client **client)
{
    struct ctl_reply reply;

    if (ctl_connect(client, NULL)) {
        *client = NULL;
        return;
    }
    if (ctl_call(*client, CTL_MONITOR, NULL, 0, 0, &reply)) hang_up(client);
    ctl_reply_free(&reply);
}

/* Did anything happen that the files speak of? Programs come and go without a trace in them. */
static bool news(struct ctl_client **client)
{
    struct ctl_event event;
    bool any = false;
    int rc;

    while ((rc = ctl_next_event(*client, &event, false)) == 1)
        any = any || (event.type != CTL_EV_FUNCTION_ADD && event.type != CTL_EV_FUNCTION_DEL);
    if (rc < 0) hang_up(client);
    return any;
}

static _Noreturn void keep(const struct environ_dirs *dirs, int program)
{
    struct ctl_client *client = NULL;
    int64_t next = 0;

    for (;;) {
        int64_t left = next - now_ms();
        struct pollfd fds[2] = {{program, POLLIN, 0}, {client ? ctl_fd(client) : -1, POLLIN, 0}};

        if (poll(fds, 2, left > 0 ? (int)left : 0) < 0 && errno != EINTR) _exit(1);
        if (fds[0].revents) _exit(0);
        if (!(fds[1].revents && news(&client)) && now_ms() < next) continue;
        if (!client) call_up(&client);
        if (client && !environ_update(dirs, client)) hang_up(&client);
        /* What came while we asked waits in the client, and its descriptor does not show it. */
        next = now_ms() + (client && news(&client) ? 0 : PERIOD_MS);
    }
}

/* Nothing of the program's is held: no terminal, no pipe that somebody reads to its end. */
static _Noreturn void become_keeper(const struct environ_dirs *dirs, int program)
{
    const int from[] = {open("/dev/null", O_RDWR), -1, -1, program, dirs->sysfs, dirs->nodes};
    const char *socket = getenv("RBOND_SOCKET");
    int high[6];

    for (int i = 0; i < 6; i++) high[i] = fcntl(from[i] < 0 ? from[0] : from[i], F_DUPFD, 16);
    for (int i = 0; i < 6; i++)
        if (dup2(high[i], i) < 0) _exit(1);
    close_range(6, ~0u, 0);
    if (setsid() < 0) _exit(1);
    if ((!socket || *socket == '/') && chdir("/")) _exit(1);
    prctl(PR_SET_NAME, "rbond-environ");
    keep(&(struct environ_dirs){dirs->sysfs < 0 ? -1 : 4, dirs->nodes < 0 ? -1 : 5}, 3);
}

void environ_keep(const struct environ_dirs *dirs)
{
    int program = (int)syscall(SYS_pidfd_open, getpid(), 0);
    pid_t pid;

    /* The first process of a container would inherit the keeper as its child. */
    if (program < 0 || getpid() == 1) return;
    pid = fork();
    if (!pid) {
        if (!fork()) become_keeper(dirs, program);
        _exit(0);
    }
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    close(program);
}
