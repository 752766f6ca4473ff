/* What is remembered of a lab between two commands: one small file in a directory of the user's
 * own. */
#include "cli/lab.h"
#include "ctl/tree.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOOT_LEN 40

const char *const LAB_HOST_NAMES[LAB_HOSTS] = {"a", "b", "wire"};

static void boot_id(char boot[BOOT_LEN])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

    boot[0] = 0;
    if (!file) return;
    if (fscanf(file, "%39s", boot) != 1) boot[0] = 0;
    fclose(file);
}

static bool make_dir(const char *path)
{
    struct stat stat;

    if (!mkdir(path, 0700)) return true;
    return errno == EEXIST && !lstat(path, &stat) && S_ISDIR(stat.st_mode) &&
           stat.st_uid == geteuid();
}

bool lab_locate(struct lab *lab)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char base[PATH_MAX / 4];

    if (runtime && *runtime && !access(runtime, W_OK) && strlen(runtime) < sizeof base / 2)
        snprintf(base, sizeof base, "%s/rbond-lab", runtime);
    else if (!geteuid() && !access("/run", W_OK))
        snprintf(base, sizeof base, "/run/rbond-lab");
    else
        snprintf(base, sizeof base, "/tmp/rbond-lab-%u", (unsigned)geteuid());
    if (!make_dir(base)) {
        failed("cannot use %s for the lab's state: it is not a directory of yours", base);
        return false;
    }
    snprintf(lab->dir, sizeof lab->dir, "%s/%s", base, lab->name);
    /* The control socket lies there too, and its path has to fit into a sockaddr_un. */
    if (strlen(lab->dir) > 96) {
        failed("the path %s is too long for a socket: give a shorter --name", lab->dir);
        return false;
    }
    return true;
}

static void state_file(const struct lab *lab, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/state", lab->dir);
}

void lab_socket(const struct lab *lab, enum lab_host host, char path[108])
{
    snprintf(path, 108, "%.96s/%s.sock", lab->dir, LAB_HOST_NAMES[host]);
}

void lab_log(const struct lab *lab, enum lab_host host, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/rbondd-%s.log", lab->dir, LAB_HOST_NAMES[host]);
}

/* Field 22 of /proc/PID/stat; the name before it is in parentheses and may hold anything. */
static bool process_start(pid_t pid, uint64_t *start)
{
    char path[64], text[1024], state;
    const char *rest;
    size_t len;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    if (!file) return false;
    len = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[len] = 0;
    rest = strrchr(text, ')');
    return rest &&
           sscanf(rest + 1,
                  " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                  "%" SCNu64,
                  &state, start) == 2 &&
           state != 'Z';
}

struct lab_process lab_process_of(pid_t pid)
{
    struct lab_process process = {.pid = pid};

    if (!process_start(pid, &process.start)) process.pid = 0;
    return process;
}

bool lab_alive(const struct lab_process *process)
{
    uint64_t start;

    return process->pid > 0 && process_start(process->pid, &start) && start == process->start;
}

bool lab_save(const struct lab *lab)
{
    char path[PATH_MAX], fresh[PATH_MAX + 8], boot[BOOT_LEN];
    FILE *file;
    bool ok;

    state_file(lab, path);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    if (!make_dir(lab->dir) || !(file = fopen(fresh, "we"))) {
        failed("cannot write the lab's state to %s: %s", lab->dir, strerror(errno));
        return false;
    }
    boot_id(boot);
    fprintf(file, "boot %s\nlinks %u\nmtu %u\nmode %s\nbond %d\n", boot, lab->links, lab->mtu,
            lab->mode, lab->bond);
    for (int i = 0; i < LAB_HOSTS; i++)
        fprintf(file, "holder %d %" PRIu64 "\n", (int)lab->holder[i].pid, lab->holder[i].start);
    for (int i = 0; i < 2; i++)
        fprintf(file, "rbondd %d %" PRIu64 "\n", (int)lab->rbondd[i].pid, lab->rbondd[i].start);
    ok = !fclose(file) && !rename(fresh, path);
    if (!ok) failed("cannot write the lab's state to %s: %s", path, strerror(errno));
    return ok;
}

static bool read_process(FILE *file, const char *format, struct lab_process *process)
{
    int pid;

    if (fscanf(file, format, &pid, &process->start) != 2) return false;
    process->pid = pid;
    return true;
}

static bool read_state(FILE *file, struct lab *lab, char boot[BOOT_LEN])
{
    int bond;
    bool ok = fscanf(file, " boot %39s links %u mtu %u mode %31s bond %d", boot, &lab->links,
                     &lab->mtu, lab->mode, &bond) == 5;

    for (int i = 0; ok && i < LAB_HOSTS; i++)
        ok = read_process(file, " holder %d %" SCNu64, &lab->holder[i]);
    for (int i = 0; ok && i < 2; i++)
        ok = read_process(file, " rbondd %d %" SCNu64, &lab->rbondd[i]);
    lab->bond = ok && bond;
    return ok && lab->links <= LAB_MAX_LINKS;
}

enum lab_presence lab_load(struct lab *lab)
{
    char path[PATH_MAX], boot[BOOT_LEN] = "", now[BOOT_LEN];
    FILE *file;
    bool ok;

    state_file(lab, path);
    file = fopen(path, "re");
    if (!file) return LAB_NONE;
    ok = read_state(file, lab, boot);
    fclose(file);
    boot_id(now);
    if (!ok || strcmp(boot, now)) {
        memset(lab->holder, 0, sizeof lab->holder);
        memset(lab->rbondd, 0, sizeof lab->rbondd);
        return LAB_STALE;
    }
    for (int i = 0; i < LAB_HOSTS; i++)
        if (!lab_alive(&lab->holder[i])) return LAB_STALE;
    return LAB_UP;
}

void lab_forget(const struct lab *lab)
{
    char path[PATH_MAX], tree[CTL_TREE_LEN];

    for (int host = 0; host < LAB_WIRE; host++) {
        lab_log(lab, (enum lab_host)host, path);
        unlink(path);
        lab_socket(lab, (enum lab_host)host, path);
        unlink(path);
        ctl_tree_of(path, tree); /* a daemon that was killed leaves it */
        ctl_tree_remove(AT_FDCWD, tree);
    }
    state_file(lab, path);
    unlink(path);
    rmdir(lab->dir);
}
