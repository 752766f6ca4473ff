/* rbondd: one per network namespace, driver and firmware of the software adapters in it. This file
 * reads the command line, puts the parts together on one loop, and takes them apart again. */
#include "base/must.h"
#include "daemon/bonds.h"
#include "daemon/conf.h"
#include "daemon/log.h"
#include "daemon/service.h"
#include "daemon/tree.h"
#include "daemon/urgency.h"
#include "port/port.h"
#include "watch/watch.h"
#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define WAIT_STEP_MS 10
#define WAIT_FIRST_MS 2000 /* programs look for a new rbondd five times a second */
#define WAIT_ALL_MS 20000
#define DEFAULT_CONFIG "/etc/rbond/rbondd.json"

/* ---- command line ------------------------------------------------------------------------ */

struct arguments {
    const char *config, *socket;
    bool has_log_level;
    enum log_level log_level;
};

enum { OPT_SOCKET = 256, OPT_FOREGROUND };

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "Read this configuration (default " DEFAULT_CONFIG ", if there)", 0},
    {"socket", OPT_SOCKET, "PATH", 0, "Listen here instead of at the namespace's own path", 0},
    {"log-level", 'l', "LEVEL", 0, "error, warning, info (default) or debug", 0},
    {"foreground", OPT_FOREGROUND, NULL, 0, "Stay in the foreground (it always does)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 'c': a->config = arg; return 0;
    case OPT_SOCKET: a->socket = arg; return 0;
    case OPT_FOREGROUND: return 0;
    case 'l':
        a->has_log_level = log_level_parse(arg, &a->log_level);
        if (!a->has_log_level) argp_error(state, "unknown log level '%s'", arg);
        return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* glibc reads it from here. */
__attribute__((visibility("default"))) const char *argp_program_version = "rbondd " RBOND_VERSION;

static const struct argp parser = {
    options,
    parse,
    NULL,
    "RDMA bonding in user space: devices, bonds and connections of this network namespace.",
    NULL,
    NULL,
    NULL};

/* ---- the daemon -------------------------------------------------------------------------- */

struct daemon {
    int alone; /* a socket that stands for this network namespace's rbondd */
    uv_loop_t loop;
    uv_signal_t sigterm, sigint;
    uv_poll_t news;
    struct conf conf;
    struct ctl_listener listener;
    struct watch *watch;
    struct functions functions;
    struct registry registry;
    struct service service;
    struct tree tree;
    struct urgency urgency;
    uv_timer_t wait; /* for programs of an earlier rbondd, while they hold the port */
    uint64_t waiting_since_ms;
    bool failed;
};

static bool read_config(struct daemon *d, const struct arguments *a)
{
    struct conf_error error = {""};
    int rc = conf_read(&d->conf, a->config ? a->config : DEFAULT_CONFIG, &error);

    if (rc < 0 && (a->config || rc != -ENOENT)) {
        log_error("%s", error.text);
        return false;
    }
    if (a->has_log_level)
        log_set_level(a->log_level);
    else if (d->conf.has_log_level)
        log_set_level(d->conf.log_level);
    return true;
}

/* Every function takes descriptors. */
static void ask_for_room(void)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) != 0) return;
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
}

/* A name that the kernel keeps apart by network namespace, and gives back when rbondd ends. */
static bool claim_namespace(struct daemon *d)
{
    static const struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0rbondd"};

    d->alone = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (d->alone >= 0 && !bind(d->alone, (const struct sockaddr *)&name,
                               offsetof(struct sockaddr_un, sun_path) + sizeof "rbondd"))
        return true;
    if (errno == EADDRINUSE)
        log_error("another rbondd runs in this network namespace");
    else
        log_error("cannot claim this network namespace: %s", strerror(errno));
    return false;
}

static bool claim(struct daemon *d, const char *socket)
{
    if (!claim_namespace(d)) return false;
    int rc = ctl_listen(&d->listener, socket);

    if (rc == -EADDRINUSE) {
        log_error("another rbondd runs here: it holds %s", d->listener.lock_path);
        return false;
    }
    if (rc < 0) {
        log_error("cannot listen at %s: %s", d->listener.path, strerror(-rc));
        return false;
    }
    rc = functions_init(&d->functions, (when_t){uv_hrtime()});
    if (rc == 0 || rc == -EADDRINUSE) return true; /* on_wait goes on */
    log_error("cannot make the sockets of UDP port %d: %s", ROCE_UDP_PORT, strerror(-rc));
    ctl_listener_close(&d->listener);
    return false;
}

/* ---- the connection manager's view ------------------------------------------------------- */

static bool broker_device(void *ctx, size_t index, struct cmbroker_device *out)
{
    const struct device *d = registry_at(ctx, index);

    if (!d) return false;
    *out = (struct cmbroker_device){d->name, d->guid, &d->state};
    return true;
}

static int start_broker(struct daemon *d)
{
    struct cmbroker_conf conf = {.loop = &d->loop, .ctx = &d->registry, .device = broker_device};

    conf.rx_fd = functions_own_rx(&d->functions);
    if (conf.rx_fd < 0) return conf.rx_fd;
    uint32_t ntx = 0;
    int rc = functions_make_tx(conf.tx_fd, &ntx);
    conf.ntx = ntx;
    if (rc == 0) rc = cmbroker_new(&d->service.broker, &conf);
    if (rc == 0) return 0;
    for (size_t i = 0; i < conf.ntx; i++) close(conf.tx_fd[i]);
    close(conf.rx_fd);
    d->service.broker = NULL;
    return rc;
}

/* ---- run --------------------------------------------------------------------------------- */

static void on_news(uv_poll_t *poll, int status, int events)
{
    struct daemon *d = poll->data;
    int rc = watch_read(d->watch);

    if (rc < 0) log_error("rtnetlink: %s", strerror(-rc));
    registry_settle(&d->registry);
}

static void hold_signals(int how)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(how, &set, NULL);
}

static void on_signal(uv_signal_t *handle, int signum)
{
    struct daemon *d = handle->data;

    log_info("%s: leaving", strsignal(signum));
    uv_stop(&d->loop);
}

static void add_configured_bonds(struct daemon *d)
{
    for (size_t i = 0; i < d->conf.nbonds; i++) {
        struct ctl_error error = {""};
        if (bonds_add(&d->registry, &d->conf.bond[i], true, &error) < 0)
            log_error("bond %s of the configuration: %s", d->conf.bond[i].name, error.text);
    }
}

static void serve_connections(struct daemon *d)
{
    int rc = start_broker(d);

    if (rc < 0) log_warning("no connection manager: %s", strerror(-rc));
}

/* ---- programs of an earlier rbondd ------------------------------------------------------- */

static void give_up(struct daemon *d, int rc)
{
    if (rc == -EADDRINUSE)
        log_error("UDP port %d is taken: by another rbondd, programs of an earlier one, or "
                  "rdma_rxe",
                  ROCE_UDP_PORT);
    else
        log_error("cannot make the sockets of UDP port %d: %s", ROCE_UDP_PORT, strerror(-rc));
    d->failed = true;
    uv_stop(&d->loop);
}

/* Sockets are numbered by the order in which they join the port's group, so a new group begins when
 * the last socket of the old one is closed: programs that live on without rbondd find us, close
 * theirs and wait for new ones. Whoever holds the port otherwise does not. */
static void on_wait(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    unsigned claims = service_claims(&d->service);
    uint64_t waited = uv_now(&d->loop) - d->waiting_since_ms;
    int rc = functions_init(&d->functions, (when_t){uv_hrtime()});

    if (rc == 0) {
        uv_timer_stop(timer);
        log_info("%u functions are handed back", claims);
        serve_connections(d);
        service_ready(&d->service);
    } else if (rc != -EADDRINUSE || waited > (claims ? WAIT_ALL_MS : WAIT_FIRST_MS)) {
        give_up(d, rc);
    }
}

static void wait_for_programs(struct daemon *d)
{
    log_info("UDP port %d is taken: waiting for programs of an earlier rbondd", ROCE_UDP_PORT);
    d->waiting_since_ms = uv_now(&d->loop);
    uv_timer_init(&d->loop, &d->wait);
    d->wait.data = d;
    uv_timer_start(&d->wait, on_wait, WAIT_STEP_MS, WAIT_STEP_MS);
}

static int start(struct daemon *d)
{
    int rc = registry_init(&d->registry, &d->loop, &d->conf, &service_listener, &d->service);

    if (rc == 0) rc = watch_new(&d->watch, &registry_watch_ops, &d->registry);
    if (rc == 0) rc = watch_dump(d->watch);
    if (rc < 0) return rc;
    d->service.registry = &d->registry;
    d->service.functions = &d->functions;
    xrc_init(&d->service.xrc);
    rc = owners_open(&d->service.owners, d->listener.path);
    if (rc < 0)
        log_warning("cannot keep whose functions are whose: %s.owners: %s", d->listener.path,
                    strerror(-rc));
    add_configured_bonds(d);
    if (functions_ready(&d->functions)) serve_connections(d);
    tree_start(&d->tree, &d->loop, d->listener.path, &d->registry, &d->functions);
    d->service.tree = &d->tree;
    uv_poll_init(&d->loop, &d->news, watch_fd(d->watch));
    d->news.data = d;
    uv_poll_start(&d->news, UV_READABLE, on_news);
    urgency_start(&d->urgency, &d->loop);
    uv_signal_init(&d->loop, &d->sigterm);
    uv_signal_init(&d->loop, &d->sigint);
    d->sigterm.data = d->sigint.data = d;
    uv_signal_start(&d->sigterm, on_signal, SIGTERM);
    uv_signal_start(&d->sigint, on_signal, SIGINT);
    hold_signals(SIG_UNBLOCK);
    rc = ctl_server_new(&d->service.server, &d->loop, &d->listener, &service_ops, &d->service);
    if (rc == 0 && !functions_ready(&d->functions)) wait_for_programs(d);
    return rc;
}

static void close_left(uv_handle_t *handle, void *arg)
{
    if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

static void stop(struct daemon *d)
{
    if (d->service.tree) tree_stop(&d->tree);
    if (d->service.server) ctl_server_close(d->service.server);
    d->service.server = NULL;
    if (d->service.broker) cmbroker_free(d->service.broker);
    d->service.broker = NULL;
    registry_close(&d->registry);
    uv_run(&d->loop, UV_RUN_NOWAIT);
    uv_walk(&d->loop, close_left, NULL);
    uv_run(&d->loop, UV_RUN_DEFAULT);
    must(uv_loop_close(&d->loop) == 0);
    if (d->service.tree) tree_end(&d->tree);
    owners_close(&d->service.owners, d->service.tree && d->tree.stays);
    if (d->watch) watch_free(d->watch);
    functions_fini(&d->functions);
    ctl_listener_close(&d->listener);
}

int main(int argc, char **argv)
{
    static struct daemon daemon;
    struct daemon *d = &daemon;
    struct arguments arguments = {0};

    argp_parse(&parser, argc, argv, 0, NULL, &arguments);
    /* Until on_signal is in place, which then finds what came meanwhile. */
    hold_signals(SIG_BLOCK);
    setvbuf(stderr, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    umask(022); /* what it shows is for everybody */
    if (!read_config(d, &arguments)) return 1;
    ask_for_room();
    if (!claim(d, arguments.socket)) return 1;
    must(uv_loop_init(&d->loop) == 0);
    int rc = start(d);
    if (rc < 0) {
        log_error("cannot start: %s", strerror(-rc));
    } else {
        log_info("rbondd %s listens at %s", RBOND_VERSION, d->listener.path);
        uv_run(&d->loop, UV_RUN_DEFAULT);
    }
    stop(d);
    return rc < 0 || d->failed ? 1 : 0;
}
