#include "daemon/tree.h"
#include "daemon/log.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the thread -------------------------------------------------------------------------- */

static bool is_name(const char name[CTL_NAME_LEN])
{
    return memchr(name, 0, CTL_NAME_LEN) && *name && *name != '.' && !strchr(name, '/');
}

static bool is_listed(const struct records *devices, const char *name)
{
    const struct ctl_dev *dev = devices->bytes;

    for (size_t i = 0; i < devices->count; i++)
        if (!strncmp(dev[i].name, name, CTL_NAME_LEN)) return true;
    return false;
}

static DIR *list_of(int dir)
{
    int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return copy < 0 ? NULL : fdopendir(copy);
}

/* Ours are directories; links stand for the kernel's. */
static void remove_gone(const struct tree *tree, const struct records *devices)
{
    DIR *list = list_of(tree->sysfs);
    const struct dirent *entry;

    while (list && (entry = readdir(list))) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.') continue;
        if (is_listed(devices, entry->d_name)) continue;
        ctl_tree_remove(tree->sysfs, entry->d_name);
        ctl_tree_remove(tree->verbs, entry->d_name);
        unlinkat(tree->nodes, entry->d_name, 0);
    }
    if (list) closedir(list);
}

/* A program that lists the directory here finds the kernel's own devices, too. */
static void link_real(const char *path, int ours)
{
    DIR *list = opendir(path);
    const struct dirent *entry;
    char target[PATH_MAX];

    while (list && (entry = readdir(list))) {
        if (entry->d_name[0] == '.') continue;
        snprintf(target, sizeof target, "%s/%s", path, entry->d_name);
        if (symlinkat(target, ours, entry->d_name)) continue; /* there already */
    }
    if (list) closedir(list);
}

/* A character device that everybody may open, which is all that programs look for. One that is
 * there stays: the same. */
static void add_node(int nodes, const char *name)
{
    if (symlinkat("/dev/null", nodes, name) && errno != EEXIST)
        log_warning("cannot make node %s: %s", name, strerror(errno));
}

static void write_all(const struct tree *tree)
{
    const struct ctl_dev *dev = tree->facts.devices.bytes;

    for (size_t i = 0; i < tree->facts.devices.count; i++) {
        if (!is_name(dev[i].name)) continue;
        tree_device_write(tree->sysfs, dev + i, &tree->facts);
        tree_uverbs_write(tree->verbs, dev + i);
        add_node(tree->nodes, dev[i].name);
    }
    add_node(tree->nodes, "rdma_cm");
    remove_gone(tree, &tree->facts.devices);
}

static void write_counters(const struct tree *tree)
{
    const struct ctl_dev *dev = tree->facts.devices.bytes;

    for (size_t i = 0; i < tree->facts.devices.count; i++)
        if (is_name(dev[i].name))
            tree_counters_write(tree->sysfs, dev[i].name, &tree->facts.stats, &tree->last);
}

static void on_thread(void *arg)
{
    const struct tree *tree = arg;

    if (tree->whole)
        write_all(tree);
    else
        write_counters(tree);
}

/* ---- the loop ---------------------------------------------------------------------------- */

static void forget(struct records *records)
{
    free(records->bytes);
    *records = (struct records){0};
}

static void forget_facts(struct tree_facts *facts)
{
    forget(&facts->devices);
    forget(&facts->gids);
    forget(&facts->stats);
}

static void set_to_work(struct tree *tree, bool whole);

static void on_written(uv_poll_t *poll, int status, int events)
{
    struct tree *tree = poll->data;

    if (!tree_pen_done(&tree->pen)) return;
    tree->writing = false;
    forget(&tree->last);
    tree->last = tree->facts.stats;
    tree->facts.stats = (struct records){0};
    forget_facts(&tree->facts);
    if (tree->again) set_to_work(tree, true);
}

static void set_to_work(struct tree *tree, bool whole)
{
    struct tree_facts *facts = &tree->facts;

    if (uv_is_closing((uv_handle_t *)&tree->timer)) return;
    if (tree->writing) {
        tree->again = tree->again || whole;
        return;
    }
    list_devices(tree->registry, &facts->devices);
    list_stats(tree->registry, tree->functions, NULL, &facts->stats);
    if (whole) list_gids(tree->registry, &facts->gids);
    tree->whole = whole;
    if (whole) tree->again = false;
    tree->writing = !facts->devices.failed && !facts->gids.failed && !facts->stats.failed;
    if (tree->writing)
        tree_pen_order(&tree->pen);
    else
        forget_facts(facts);
}

static bool any_open(const struct tree *tree)
{
    list_for_each (node, &tree->registry->devices)
        if (container_of(node, struct device, node)->functions) return true;
    return false;
}

/* Once more after the last program: what it did to its end. */
static void on_timer(uv_timer_t *timer)
{
    struct tree *tree = timer->data;

    set_to_work(tree, false);
    if (!any_open(tree)) uv_timer_stop(timer);
}

void tree_opened(struct tree *tree)
{
    if (tree->sysfs >= 0 && !uv_is_active((uv_handle_t *)&tree->timer))
        uv_timer_start(&tree->timer, on_timer, TREE_PERIOD_MS, TREE_PERIOD_MS);
}

void tree_changed(struct tree *tree)
{
    if (tree->sysfs >= 0) set_to_work(tree, true);
}

/* ---- the directories --------------------------------------------------------------------- */

/* Makes `path`, whose parts but the first are `parts`, and opens it. */
static int make(const char *tree, const char *parts)
{
    char path[CTL_TREE_LEN + 64];
    int at = snprintf(path, sizeof path, "%s", tree);
    struct stat st;

    if (mkdir(path, 0755) && errno != EEXIST) return -1;
    if (lstat(path, &st)) return -1;
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
        errno = EPERM; /* somebody else's */
        return -1;
    }
    for (const char *end = parts; *end; parts = end + 1) {
        end = strchrnul(parts, '/');
        at += snprintf(path + at, sizeof path - (size_t)at, "/%.*s", (int)(end - parts), parts);
        if (mkdir(path, 0755) && errno != EEXIST) return -1;
    }
    return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static void close_all(struct tree *tree)
{
    if (tree->sysfs >= 0) close(tree->sysfs);
    if (tree->verbs >= 0) close(tree->verbs);
    if (tree->nodes >= 0) close(tree->nodes);
    tree->sysfs = tree->verbs = tree->nodes = -1;
}

static void make_all(struct tree *tree)
{
    int rc = 0;

    tree->sysfs = make(tree->path, "sys/class/infiniband");
    tree->verbs = make(tree->path, "sys/class/infiniband_verbs");
    tree->nodes = make(tree->path, "dev/infiniband");
    if (tree->sysfs < 0 || tree->verbs < 0 || tree->nodes < 0)
        rc = -errno;
    else
        rc = tree_pen_start(&tree->pen, on_thread, tree);
    if (rc == 0) return;
    log_warning("no files for programs that look for their device: %s: %s", tree->path,
                strerror(-rc));
    close_all(tree);
}

void tree_start(struct tree *tree, uv_loop_t *loop, const char *socket,
                const struct registry *registry, const struct functions *functions)
{
    *tree = (struct tree){.registry = registry, .functions = functions};
    ctl_tree_of(socket, tree->path);
    make_all(tree);
    uv_timer_init(loop, &tree->timer);
    tree->timer.data = tree;
    if (tree->sysfs < 0) return;
    uv_poll_init(loop, &tree->written, tree->pen.done);
    tree->written.data = tree;
    uv_poll_start(&tree->written, UV_READABLE, on_written);
    link_real("/sys/class/infiniband", tree->sysfs);
    link_real("/sys/class/infiniband_verbs", tree->verbs);
    link_real("/dev/infiniband", tree->nodes);
    tree_changed(tree);
}

void tree_stop(struct tree *tree)
{
    tree->stays = any_open(tree);
    uv_close((uv_handle_t *)&tree->timer, NULL);
    if (tree->sysfs >= 0) uv_close((uv_handle_t *)&tree->written, NULL);
}

void tree_end(struct tree *tree)
{
    if (tree->sysfs < 0) return;
    tree_pen_end(&tree->pen);
    forget_facts(&tree->facts);
    forget(&tree->last);
    close_all(tree);
    if (!tree->stays) ctl_tree_remove(AT_FDCWD, tree->path);
}
