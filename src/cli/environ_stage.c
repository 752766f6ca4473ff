/* A directory of the kernel's, to which entries can be added: a tmpfs lies over it, and each entry
 * that was there is bound into it, or copied if it is a symbolic link; links of /sys/class are
 * relative, and `..` leads where it led before. What appears in the directory later stays hidden:
 * the class of a module loaded meanwhile, a device plugged in.
 *
 * Where the kernel has no directory of a name, the tree's own is bound there, and follows rbondd by
 * itself. Where it has one (there are real adapters), links lead from it to the tree's entries of
 * this moment; later ones librbond finds. */
#include "cli/environ.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static bool copy_link(int old, int fresh, const char *name)
{
    char target[PATH_MAX];
    ssize_t len = readlinkat(old, name, target, sizeof target - 1);

    if (len < 0) return false;
    target[len] = 0;
    return !symlinkat(target, fresh, name);
}

/* An entry that went meanwhile is no failure. */
static bool keep_entry(int old, int fresh, const char *name)
{
    char from[NAME_MAX + 32], to[NAME_MAX + 32];
    struct stat st;

    if (fstatat(old, name, &st, AT_SYMLINK_NOFOLLOW)) return errno == ENOENT;
    if (S_ISLNK(st.st_mode)) return copy_link(old, fresh, name);
    if (S_ISDIR(st.st_mode) ? mkdirat(fresh, name, 0755) : mknodat(fresh, name, S_IFREG, 0))
        return false;
    snprintf(from, sizeof from, "/proc/self/fd/%d/%s", old, name);
    snprintf(to, sizeof to, "/proc/self/fd/%d/%s", fresh, name);
    return !mount(from, to, NULL, MS_BIND | MS_REC, NULL);
}

static bool keep_entries(int old, int fresh)
{
    int copy = fcntl(old, F_DUPFD_CLOEXEC, 0);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    const struct dirent *entry;
    bool ok = dir;

    while (ok && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            ok = keep_entry(old, fresh, entry->d_name);
    if (dir) closedir(dir);
    return ok;
}

static int open_dir(int at, const char *path)
{
    return openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The descriptor of what lies over `path` now, or -1. */
static int cover(const char *path, int old)
{
    char options[64];
    struct stat st;
    int fresh;

    if (fstat(old, &st)) return -1;
    snprintf(options, sizeof options, "mode=%o,size=16m", (unsigned)st.st_mode & 07777);
    if (mount("rbond", path, "tmpfs", MS_NOSUID | MS_NOEXEC, options)) return -1;
    fresh = open_dir(AT_FDCWD, path);
    if (fresh >= 0 && keep_entries(old, fresh)) return fresh;
    if (fresh >= 0) close(fresh);
    umount2(path, MNT_DETACH);
    return -1;
}

/* ---- the tree's directories -------------------------------------------------------------- */

struct places {
    char path[PATH_MAX], tree[PATH_MAX];
};

/* The next directory of the tree. */
static bool next(DIR *list, struct places *at, const char *parent, const char *tree)
{
    const struct dirent *entry;

    while (list && (entry = readdir(list))) {
        if (entry->d_name[0] == '.') continue;
        snprintf(at->path, sizeof at->path, "%s/%s", parent, entry->d_name);
        snprintf(at->tree, sizeof at->tree, "%s/%s", tree, entry->d_name);
        return true;
    }
    return false;
}

static void link_entries(int fresh, const char *tree)
{
    DIR *list = opendir(tree);
    struct places at;

    while (next(list, &at, "", tree))
        if (symlinkat(at.tree, fresh, at.path + 1)) continue; /* a real device's */
    if (list) closedir(list);
}

/* Over a directory that is there. */
static void add_entries(const struct places *at, int old)
{
    int fresh = cover(at->path, old);

    if (fresh < 0) return;
    link_entries(fresh, at->tree);
    close(fresh);
}

/* The host's own parent stays as it is. */
static bool cover_parent(const char *parent)
{
    int old = open_dir(AT_FDCWD, parent), fresh = old < 0 ? -1 : cover(parent, old);

    if (old >= 0) close(old);
    if (fresh >= 0) close(fresh);
    return fresh >= 0;
}

void environ_stage(const char *parent, const char *tree)
{
    DIR *list = opendir(tree);
    struct places at;
    bool covered = false;

    while (next(list, &at, parent, tree)) {
        int old = open_dir(AT_FDCWD, at.path);
        if (old >= 0) {
            add_entries(&at, old);
            close(old);
            continue;
        }
        covered = covered || cover_parent(parent);
        if (!covered || mkdir(at.path, 0755)) break;
        if (mount(at.tree, at.path, NULL, MS_BIND, NULL)) break;
    }
    if (list) closedir(list);
}

bool environ_staged(const char *parent, const char *tree)
{
    DIR *list = opendir(tree);
    struct stat here, there;
    struct places at;
    bool all = list;

    while (all && next(list, &at, parent, tree))
        all = !stat(at.path, &here) && !stat(at.tree, &there) && here.st_dev == there.st_dev &&
              here.st_ino == there.st_ino;
    if (list) closedir(list);
    return all;
}
