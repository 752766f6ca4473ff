#include "verbs/paths.h"
#include "ctl/tree.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const OURS[] = {"/sys/class/infiniband", "/sys/class/infiniband_verbs",
                                   "/dev/infiniband"};

/* The path behind the directory's name; NULL: it is not that directory, nor below it. */
static const char *behind(const char *path, const char *dir)
{
    size_t len = strlen(dir);

    if (strncmp(path, dir, len)) return NULL;
    return path[len] == '/' || !path[len] ? path + len : NULL;
}

static bool is_ours(const char *path)
{
    for (size_t i = 0; i < sizeof OURS / sizeof *OURS; i++)
        if (behind(path, OURS[i])) return true;
    return false;
}

static bool in_tree(const char *path, char to[PATH_MAX])
{
    char tree[CTL_TREE_LEN];

    return ctl_tree_find(tree) && snprintf(to, PATH_MAX, "%s%s", tree, path) < PATH_MAX;
}

/* Programs that walk down from a descriptor of / or /sys/class (hwloc). */
static bool absolute(int at, const char *path, char full[PATH_MAX])
{
    char link[32];
    ssize_t len;

    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    len = readlink(link, full, PATH_MAX - 1);
    if (len <= 0 || *full != '/') return false;
    if (len == 1) len = 0;
    return snprintf(full + len, (size_t)(PATH_MAX - len), "/%s", path) < PATH_MAX - len;
}

static bool lead(int at, const char *path, char to[PATH_MAX])
{
    char full[PATH_MAX];

    if (*path == '/') return is_ours(path) && in_tree(path, to);
    if (at == AT_FDCWD || !strstr(path, "infiniband")) return false;
    return absolute(at, path, full) && is_ours(full) && in_tree(full, to);
}

bool paths_lead(int at, const char *path, char to[PATH_MAX])
{
    const int saved = errno;

    if ((saved != ENOENT && saved != ENOTDIR) || !path) return false;
    bool led = lead(at, path, to);
    errno = saved;
    return led;
}

bool paths_lead_list(const char *path, char to[PATH_MAX])
{
    const int saved = errno;
    bool led = false;

    for (size_t i = 0; path && i < sizeof OURS / sizeof *OURS && !led; i++) {
        const char *rest = behind(path, OURS[i]);
        led = rest && !rest[strspn(rest, "/")] && in_tree(path, to);
    }
    errno = saved;
    return led;
}
