#include "ctl/tree.h"
#include "ctl/client.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

void ctl_tree_of(const char *socket, char path[CTL_TREE_LEN])
{
    snprintf(path, CTL_TREE_LEN, "%s.d", socket);
}

/* Anybody may make a directory in /tmp under another user's name before he does. A system call, not
 * the function of that name: librbond, which hooks that one, asks us. */
static bool usable(const char *tree)
{
    struct statx sx;

    if (syscall(SYS_statx, AT_FDCWD, tree, AT_SYMLINK_NOFOLLOW, STATX_TYPE | STATX_UID, &sx))
        return false;
    if (!S_ISDIR(sx.stx_mode)) return false;
    return strncmp(tree, "/tmp/rbond-", 11) || sx.stx_uid == geteuid() || !sx.stx_uid;
}

bool ctl_tree_find(char path[CTL_TREE_LEN])
{
    char socket[108];

    for (unsigned i = 0; ctl_path(i, socket); i++) {
        ctl_tree_of(socket, path);
        if (usable(path)) return true;
    }
    return false;
}

void ctl_tree_remove(int at, const char *name)
{
    int dir = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *list = dir < 0 ? NULL : fdopendir(dir);
    const struct dirent *entry;

    while (list && (entry = readdir(list))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (unlinkat(dir, entry->d_name, 0)) ctl_tree_remove(dir, entry->d_name);
    }
    if (list) closedir(list);
    unlinkat(at, name, AT_REMOVEDIR);
}
