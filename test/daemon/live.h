/* A live rbondd in a network namespace of the test's own. */
#ifndef RBOND_TEST_LIVE_H
#define RBOND_TEST_LIVE_H

#include "../watch/netns.h"
#include "ctl/client.h"
#include "ctl/page.h"
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
// clang-format off
#include <cmocka.h>
// clang-format on

struct live {
    pid_t pid;
    char dir[64], path[96], config[96];
};

static inline uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SEC_NS + (uint64_t)ts.tv_nsec;
}

static inline void sh(const char *command)
{
    if (system(command) != 0) fail_msg("failed: %s", command);
}

/* Into a network namespace of its own, where `links` are laid, and with as many descriptors as may
 * be. False: to be skipped (77). */
static inline bool live_enter(const char *links)
{
    struct rlimit lim;

    if (!netns_enter()) {
        perror("unshare");
        return false;
    }
    getrlimit(RLIMIT_NOFILE, &lim);
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
    sh(links);
    return true;
}

static inline pid_t live_spawn(const struct live *l)
{
    const char *rbondd = getenv("RBONDD");
    pid_t pid;

    assert_non_null(rbondd);
    pid = fork();
    if (pid != 0) return pid;
    if (!getenv("RBOND_TEST_VERBOSE") && !freopen("/dev/null", "w", stderr)) _exit(126);
    execl(rbondd, rbondd, "--socket", l->path, "--config", l->config, "-l", "debug", NULL);
    _exit(127);
}

static inline struct ctl_client *live_connect(const struct live *l)
{
    struct ctl_client *c;

    for (unsigned i = 0; i < 400; i++) {
        if (ctl_connect(&c, l->path) == 0) return c;
        usleep(5000);
    }
    fail_msg("rbondd does not answer");
    return NULL;
}

static inline void live_start(struct live *l, const char *config)
{
    strcpy(l->dir, "/tmp/rbond-test-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    assert_int_equal(chmod(l->dir, 0755), 0);
    snprintf(l->path, sizeof l->path, "%s/sock", l->dir);
    snprintf(l->config, sizeof l->config, "%s/conf", l->dir);
    FILE *f = fopen(l->config, "w");
    fputs(config, f);
    fclose(f);
    l->pid = live_spawn(l);
    ctl_close(live_connect(l));
}

static inline int exit_code(pid_t pid)
{
    int status = 0;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* SIGTERM: a clean exit that leaves nothing behind. */
static inline void live_stop(struct live *l)
{
    kill(l->pid, SIGTERM);
    assert_int_equal(exit_code(l->pid), 0);
    assert_int_equal(unlink(l->config), 0);
    assert_int_equal(rmdir(l->dir), 0);
}

/* ---- calls ------------------------------------------------------------------------------- */

static inline struct ctl_dev *find_device(struct ctl_client *c, const char *name,
                                          struct ctl_dev *out)
{
    struct ctl_reply r;
    struct ctl_dev *found = NULL;

    assert_int_equal(ctl_call(c, CTL_DEV_LIST, NULL, 0, sizeof *out, &r), 0);
    for (size_t i = 0; i < r.count; i++) {
        if (strcmp(((struct ctl_dev *)r.records)[i].name, name) != 0) continue;
        *out = ((struct ctl_dev *)r.records)[i];
        found = out;
    }
    ctl_reply_free(&r);
    return found;
}

struct opened {
    struct ctl_opened info;
    const struct device_page *page;
    int page_fd, function_fd, rx_fd;
};

/* Keeps the pages and the rx socket. */
static inline int open_device(struct ctl_client *c, const char *name, struct opened *o)
{
    struct ctl_name n = {""};
    struct ctl_reply r;

    memset(o, 0, sizeof *o);
    snprintf(n.name, sizeof n.name, "%s", name);
    int rc = ctl_call(c, CTL_OPEN, &n, sizeof n, sizeof o->info, &r);
    if (rc == 0) {
        assert_int_equal(r.count, 1);
        o->info = *(struct ctl_opened *)r.records;
        assert_int_equal(r.nfds, 3 + o->info.ntx);
        o->page_fd = r.fds[0];
        o->function_fd = r.fds[1];
        o->rx_fd = r.fds[2];
        r.fds[0] = r.fds[1] = r.fds[2] = -1;
        o->page = mmap(NULL, sizeof *o->page, PROT_READ, MAP_SHARED, o->page_fd, 0);
        assert_ptr_not_equal(o->page, MAP_FAILED);
    }
    ctl_reply_free(&r);
    return rc;
}

static inline void close_opened(struct opened *o)
{
    munmap((void *)o->page, sizeof *o->page);
    close(o->page_fd);
    close(o->function_fd);
    close(o->rx_fd);
}

static inline struct ctl_bond_conf bond_conf(const char *name, const char *m0, const char *m1)
{
    struct ctl_bond_conf conf = {.mode = CTL_MODE_ACTIVE_BACKUP};

    snprintf(conf.name, sizeof conf.name, "%s", name);
    if (m0) snprintf(conf.member[conf.nmembers++], CTL_NAME_LEN, "%s", m0);
    if (m1) snprintf(conf.member[conf.nmembers++], CTL_NAME_LEN, "%s", m1);
    return conf;
}

/* Returns the status; `text` gets the refusal. */
static inline int call_text(struct ctl_client *c, enum ctl_type type, const void *body, size_t len,
                            char text[232])
{
    struct ctl_reply r;
    int rc = ctl_call(c, type, body, len, 0, &r);

    memcpy(text, r.error, 232);
    ctl_reply_free(&r);
    return rc;
}

/* Waits for an event of the type, three seconds at most; events of other types are skipped. */
static inline bool await_event(struct ctl_client *c, uint32_t type, struct ctl_event *event)
{
    for (unsigned i = 0; i < 20000; i++) {
        int rc = ctl_next_event(c, event, false);
        if (rc == 1 && event->type == type) return true;
        if (rc == 0) usleep(1000);
        if (rc < 0) return false;
    }
    return false;
}

#endif
