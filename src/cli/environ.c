/* The mount namespace of a program that rbond starts. The program's own process enters it, by
 * unshare, so that its root and working directory stay what they are. Mounts of the host go on
 * arriving in it (they are slaves); ours stay inside. */
#include "cli/environ.h"
#include "ctl/client.h"
#include "ctl/tree.h"
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
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

#define AWAIT_MS 2000
#define LOOK_MS 5

static bool wanted(void)
{
    const char *word = getenv("RBOND_ENVIRON");

    return !word || strcmp(word, "0");
}

static bool put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0) close(fd);
    return ok;
}

static bool own_mounts(void)
{
    return !unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL);
}

/* A user stays who he is. The capabilities that come with a user namespace go with exec. */
static bool own_user_namespace(void)
{
    unsigned uid = geteuid(), gid = getegid();
    char map[64];

    if (unshare(CLONE_NEWUSER)) return false;
    snprintf(map, sizeof map, "%u %u 1", uid, uid);
    if (!put("/proc/self/uid_map", map) || !put("/proc/self/setgroups", "deny")) return false;
    snprintf(map, sizeof map, "%u %u 1", gid, gid);
    return put("/proc/self/gid_map", map);
}

/* Somebody with a capability here would lose it in a user namespace of his own. */
static bool has_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    return !geteuid() || syscall(SYS_capget, &header, data) || data[0].effective ||
           data[1].effective;
}

/* Some systems let an ordinary user make a user namespace and forbid mounts in it; there is no way
 * back out of one, so somebody else tries first. */
static bool user_namespace_serves(void)
{
    pid_t pid = fork();
    int status;

    if (!pid)
        _exit(!own_user_namespace() || !own_mounts() ||
              mount("rbond", "/sys/class", "tmpfs", 0, "size=4k"));
    return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

static bool own_namespace(void)
{
    if (own_mounts()) return true;
    return !has_capabilities() && user_namespace_serves() && own_user_namespace() && own_mounts();
}

/* A device's node is what rbondd makes last of it. */
static bool has_nodes(const char *tree, const struct ctl_dev *dev, size_t count)
{
    char node[CTL_TREE_LEN + CTL_NAME_LEN + 32];
    struct stat st;

    for (size_t i = 0; i < count; i++) {
        snprintf(node, sizeof node, "%s/dev/infiniband/%.*s", tree, CTL_NAME_LEN, dev[i].name);
        if (lstat(node, &st)) return false;
    }
    return true;
}

/* rbondd answers the command that makes a device before the tree has it; a program that is started
 * next looks for its files at once. */
static void await_devices(const char *tree)
{
    struct ctl_client *client;
    struct ctl_reply reply;

    if (ctl_connect(&client, NULL)) return;
    if (!ctl_call(client, CTL_DEV_LIST, NULL, 0, sizeof(struct ctl_dev), &reply)) {
        for (int ms = 0; ms < AWAIT_MS && !has_nodes(tree, reply.records, reply.count);
             ms += LOOK_MS)
            nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000L}, NULL);
    }
    ctl_reply_free(&reply);
    ctl_close(client);
}

void environ_make(void)
{
    char tree[CTL_TREE_LEN], class[CTL_TREE_LEN + 16], dev[CTL_TREE_LEN + 16];

    if (!ctl_tree_find(tree)) return;
    await_devices(tree);
    if (!wanted()) return;
    snprintf(class, sizeof class, "%s/sys/class", tree);
    snprintf(dev, sizeof dev, "%s/dev", tree);
    /* A program that was itself started so has them already. */
    if (environ_staged("/sys/class", class) && environ_staged("/dev", dev)) return;
    if (!own_namespace()) return;
    environ_stage("/sys/class", class);
    environ_stage("/dev", dev);
}
