/* One process per host keeps its network and mount namespaces while the lab is up. An ordinary
 * user's lab lies in a user namespace besides, made by the first holder; everything else is the
 * same code. */
#include "cli/lab.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEP_US 10000
#define END_STEPS 300

static bool put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0) close(fd);
    return ok;
}

/* Carrier loss must take a link out of the routes at once, and its return bring it back. Duplicate
 * address detection would hold an address back for a second; link-local ones are ours to choose. */
static bool set_up_host(void)
{
    static const struct {
        const char *path, *value;
    } SETTINGS[] = {
        {"ipv4/conf/all/rp_filter", "0"},
        {"ipv4/conf/default/rp_filter", "0"},
        {"ipv4/conf/all/ignore_routes_with_linkdown", "1"},
        {"ipv4/conf/default/ignore_routes_with_linkdown", "1"},
        {"ipv4/fib_multipath_hash_policy", "1"},
        {"ipv6/conf/all/ignore_routes_with_linkdown", "1"},
        {"ipv6/conf/default/ignore_routes_with_linkdown", "1"},
        {"ipv6/conf/default/accept_dad", "0"},
        {"ipv6/conf/default/accept_ra", "0"},
        {"ipv6/conf/default/addr_gen_mode", "1"},
        {"ipv6/fib_multipath_hash_policy", "1"},
    };
    char path[128];

    for (size_t i = 0; i < sizeof SETTINGS / sizeof *SETTINGS; i++) {
        snprintf(path, sizeof path, "/proc/sys/net/%s", SETTINGS[i].path);
        if (!put(path, SETTINGS[i].value)) return false;
    }
    return true;
}

static bool make_user_namespace(void)
{
    char map[64];
    unsigned uid = geteuid(), gid = getegid();

    if (unshare(CLONE_NEWUSER)) return false;
    snprintf(map, sizeof map, "0 %u 1", uid);
    if (!put("/proc/self/uid_map", map) || !put("/proc/self/setgroups", "deny")) return false;
    snprintf(map, sizeof map, "0 %u 1", gid);
    return put("/proc/self/gid_map", map);
}

static bool make_namespaces(const struct lab *lab, enum lab_host host)
{
    const int flags = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS;

    if (host != LAB_A && !lab_enter(lab, LAB_A)) return false;
    if (unshare(flags) &&
        (errno != EPERM || host != LAB_A || !make_user_namespace() || unshare(flags)))
        return false;
    /* An ordinary user's process that changed its credentials would hide its /proc entries. */
    prctl(PR_SET_DUMPABLE, 1);
    if (sethostname(LAB_HOST_NAMES[host], strlen(LAB_HOST_NAMES[host]))) return false;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) return false;
    return host == LAB_WIRE ? put("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
                            : set_up_host();
}

static _Noreturn void hold(const struct lab *lab, enum lab_host host, int ready)
{
    int null, error = 0;

    setsid();
    if (chdir("/") || !make_namespaces(lab, host)) error = errno ? errno : EPERM;
    if (write(ready, &error, sizeof error) != sizeof error || error) _exit(1);
    prctl(PR_SET_NAME, "rbond-lab-hold");
    null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3 && null >= 0; fd++) dup2(null, fd);
    close_range(3, ~0u, 0);
    for (;;) pause();
}

bool lab_hold(struct lab *lab, enum lab_host host)
{
    int pipefd[2], error = EPIPE;
    pid_t pid;

    if (pipe2(pipefd, O_CLOEXEC) || (pid = fork()) < 0) {
        failed("cannot start host '%s': %s", LAB_HOST_NAMES[host], strerror(errno));
        return false;
    }
    if (!pid) hold(lab, host, pipefd[1]);
    close(pipefd[1]);
    if (read(pipefd[0], &error, sizeof error) != sizeof error) error = EPIPE;
    close(pipefd[0]);
    if (error) {
        waitpid(pid, NULL, 0);
        failed(
            "cannot make the namespaces of host '%s': %s: run as root, or allow user namespaces to "
            "ordinary users (sysctl kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu)",
            LAB_HOST_NAMES[host], strerror(error));
        return false;
    }
    lab->holder[host] = lab_process_of(pid);
    return lab->holder[host].pid > 0;
}

static bool same_namespace(pid_t pid, const char *kind)
{
    char path[64];
    struct stat theirs, ours;

    snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, kind);
    if (stat(path, &theirs)) return false;
    snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
    return !stat(path, &ours) && theirs.st_ino == ours.st_ino && theirs.st_dev == ours.st_dev;
}

/* All are opened before any is entered: afterwards /proc may answer differently. */
bool lab_enter(const struct lab *lab, enum lab_host host)
{
    static const char *const KINDS[] = {"user", "net", "uts", "mnt"};
    int fds[4];
    char path[64], cwd[PATH_MAX];
    bool ok = true, at_cwd = getcwd(cwd, sizeof cwd) != NULL;

    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)lab->holder[host].pid, KINDS[i]);
        fds[i] =
            same_namespace(lab->holder[host].pid, KINDS[i]) ? -1 : open(path, O_RDONLY | O_CLOEXEC);
        if (fds[i] < 0 && !same_namespace(lab->holder[host].pid, KINDS[i])) ok = false;
    }
    for (int i = 0; i < 4; i++) {
        if (fds[i] < 0) continue;
        if (ok && setns(fds[i], 0)) ok = false;
        close(fds[i]);
    }
    /* A new mount namespace starts at its root. */
    return ok && (!at_cwd || !chdir(cwd) || !chdir("/"));
}

static void signal_tenants(const struct lab *lab, int signal)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;

    while (proc && (entry = readdir(proc))) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        bool tenant = false;

        if (pid <= 0 || pid == getpid()) continue;
        for (int host = 0; host < LAB_HOSTS; host++) {
            char mine[64], theirs[64];
            struct stat a, b;

            snprintf(mine, sizeof mine, "/proc/%d/ns/net", (int)lab->holder[host].pid);
            snprintf(theirs, sizeof theirs, "/proc/%d/ns/net", (int)pid);
            if (pid == lab->holder[host].pid) {
                tenant = false;
                break;
            }
            if (!stat(mine, &a) && !stat(theirs, &b) && a.st_ino == b.st_ino) tenant = true;
        }
        if (tenant) kill(pid, signal);
    }
    if (proc) closedir(proc);
}

static void end(const struct lab_process *process, int signal)
{
    if (!lab_alive(process)) return;
    kill(process->pid, signal);
    for (int i = 0; i < END_STEPS && lab_alive(process); i++) {
        waitpid(process->pid, NULL, WNOHANG);
        usleep(STEP_US);
    }
    if (lab_alive(process)) kill(process->pid, SIGKILL);
}

void lab_release(const struct lab *lab)
{
    bool holders = true;

    for (int i = 0; i < 2; i++) end(&lab->rbondd[i], SIGTERM);
    /* Without its holders there is no telling who lives in the lab's namespaces. */
    for (int i = 0; i < LAB_HOSTS; i++) holders = holders && lab_alive(&lab->holder[i]);
    if (holders) {
        signal_tenants(lab, SIGTERM);
        usleep(20 * STEP_US);
        signal_tenants(lab, SIGKILL);
    }
    for (int i = 0; i < LAB_HOSTS; i++) end(&lab->holder[i], SIGKILL);
}
