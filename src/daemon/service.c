#include "daemon/service.h"
#include "ctl/codec.h"
#include "daemon/bonds.h"
#include "daemon/lists.h"
#include "daemon/log.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* What a connection has; made with its first request. */
struct client {
    struct list functions;
    bool monitor;
    struct cmbroker_channel *channel;
    struct waiting { /* a request that waits for the group of functions */
        bool any;
        struct ctl_hdr hdr;
        uint8_t body[64];
        size_t len;
    } waiting;
    struct xrc_claim *xrc;
};
static_assert(sizeof(struct ctl_reclaim) <= sizeof((struct waiting *)0)->body, "it has room");

static when_t clock_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (when_t){(uint64_t)ts.tv_sec * SEC_NS + (uint64_t)ts.tv_nsec};
}

/* ---- events ------------------------------------------------------------------------------ */

static bool owns_on(const struct client *client, const struct device *device)
{
    list_for_each (node, &client->functions)
        if (container_of(node, struct function, node)->device == device) return true;
    return false;
}

static void on_event(void *ctx, const struct device *device, const struct ctl_event *event)
{
    struct service *s = ctx;

    if (!s->server) return;
    for (struct ctl_conn *c = ctl_conn_next(s->server, NULL); c; c = ctl_conn_next(s->server, c)) {
        const struct client *client = ctl_conn_data(c);
        if (client && (client->monitor || (device && owns_on(client, device))))
            ctl_send_event(c, event);
    }
}

static void on_device_gone(void *ctx, struct device *device)
{
    struct service *s = ctx;

    functions_detach(s->functions, device);
}

static void on_changed(void *ctx)
{
    struct service *s = ctx;

    if (s->broker) cmbroker_devices_changed(s->broker);
    if (s->tree) tree_changed(s->tree);
}

const struct registry_ops service_listener = {
    .event = on_event, .device_gone = on_device_gone, .changed = on_changed};

static void function_event(struct service *s, const struct function *fn, enum ctl_event_type type)
{
    struct ctl_event event = {.type = type, .value = fn->number, .at_ns = clock_now().ns};

    memcpy(event.device, fn->device_name, sizeof event.device);
    on_event(s, NULL, &event);
}

/* ---- handlers ---------------------------------------------------------------------------- */

struct call {
    struct service *s;
    struct ctl_conn *conn;
    struct client *client;
    const struct ctl_hdr *hdr;
    const void *body;
    size_t len;
};

static void done(const struct call *c) { ctl_send_reply(c->conn, c->hdr, NULL, 0, 0, NULL, 0); }

static void hello(const struct call *c)
{
    struct ctl_hello out = {.pid = (uint32_t)getpid()};

    ctl_string_set(out.version, sizeof out.version, RBOND_VERSION);
    ctl_send_reply(c->conn, c->hdr, &out, 1, sizeof out, NULL, 0);
}

static void open_refused(const struct call *c, const char *name, int rc)
{
    if (rc == -EUSERS)
        ctl_send_error(c->conn, c->hdr, rc, "too many functions: all %u are open",
                       FUNCTIONS_MAX - 1);
    else if (rc == -EDQUOT)
        ctl_send_error(c->conn, c->hdr, rc, "too many functions: user %u has %u open",
                       (unsigned)ctl_conn_uid(c->conn), FUNCTIONS_PER_USER);
    else if (rc == -EMFILE || rc == -ENFILE)
        ctl_send_error(c->conn, c->hdr, rc, "rbondd is out of file descriptors (see ulimit -n)");
    else
        ctl_send_error(c->conn, c->hdr, rc, "cannot open %s: %s", name, strerror(-rc));
}

static void open_function(const struct call *c, const char *name, unsigned wanted)
{
    struct device *d = registry_by_name(c->s->registry, name);
    struct function *fn;
    struct ctl_opened out = {0};
    int fds[CTL_MAX_FDS];
    socklen_t len = sizeof out.rcvbuf;

    if (!d) {
        ctl_send_error(c->conn, c->hdr, -ENODEV, "no such device: %s", name);
        return;
    }
    int rc = functions_open(c->s->functions, d, ctl_conn_pid(c->conn), ctl_conn_uid(c->conn),
                            wanted, clock_now(), &fn, fds, &out.ntx);
    if (rc < 0) {
        open_refused(c, name, rc);
        return;
    }
    list_add_tail(&c->client->functions, &fn->node);
    owners_set(&c->s->owners, fn->number, ctl_conn_uid(c->conn), ctl_conn_pid(c->conn));
    device_describe(d, &c->s->registry->netdevs, &out.dev);
    out.function = fn->number;
    if (getrandom(&out.key_seed, sizeof out.key_seed, 0) != sizeof out.key_seed)
        out.key_seed = clock_now().ns;
    getsockopt(fds[2], SOL_SOCKET, SO_RCVBUF, &out.rcvbuf, &len);
    ctl_send_reply(c->conn, c->hdr, &out, 1, sizeof out, fds, 3 + out.ntx);
    functions_sent(fds, out.ntx);
    if (c->s->tree) tree_opened(c->s->tree);
    function_event(c->s, fn, CTL_EV_FUNCTION_ADD);
}

static void open_device(const struct call *c)
{
    const struct ctl_name *name = c->body;

    open_function(c, name->name, 0);
}

static void reclaim(const struct call *c)
{
    const struct ctl_reclaim *reclaim = c->body;

    if (!owners_allow(&c->s->owners, reclaim->function, ctl_conn_uid(c->conn),
                      ctl_conn_pid(c->conn))) {
        ctl_send_error(c->conn, c->hdr, -EPERM, "function %u was another user's",
                       reclaim->function);
        return;
    }
    open_function(c, reclaim->name, reclaim->function);
}

/* Bonds are the administrator's: root of the daemon's user namespace, or who runs it. */
static bool may_change(const struct call *c)
{
    uid_t uid = ctl_conn_uid(c->conn);

    if (uid == 0 || uid == geteuid()) return true;
    ctl_send_error(c->conn, c->hdr, -EPERM, "only root or the user who runs rbondd changes bonds");
    return false;
}

static void answer(const struct call *c, int rc, const struct ctl_error *error)
{
    if (rc < 0)
        ctl_send_error(c->conn, c->hdr, rc, "%s", error->text);
    else
        done(c);
}

static void bond_add(const struct call *c)
{
    struct ctl_error error = {""};

    if (may_change(c)) answer(c, bonds_add(c->s->registry, c->body, false, &error), &error);
}

static void bond_del(const struct call *c)
{
    const struct ctl_name *name = c->body;
    struct ctl_error error = {""};

    if (may_change(c)) answer(c, bonds_del(c->s->registry, name->name, &error), &error);
}

static void bond_set(const struct call *c)
{
    struct ctl_error error = {""};

    if (may_change(c)) answer(c, bonds_set(c->s->registry, c->body, &error), &error);
}

static void send_list(const struct call *c, struct records *r)
{
    if (r->failed)
        ctl_send_error(c->conn, c->hdr, -ENOMEM, "out of memory");
    else
        ctl_send_reply(c->conn, c->hdr, r->bytes, r->count, r->size, NULL, 0);
    free(r->bytes);
}

static void list(const struct call *c)
{
    struct records r = {0};

    switch (c->hdr->type) {
    case CTL_DEV_LIST: list_devices(c->s->registry, &r); break;
    case CTL_BOND_LIST: list_bonds(c->s->registry, &r); break;
    case CTL_LINK_LIST: list_links(c->s->registry, &r); break;
    case CTL_FUNCTION_LIST: list_functions(c->s->functions, &r); break;
    case CTL_GID_LIST: list_gids(c->s->registry, &r); break;
    case CTL_CM_ID_LIST: list_cm_ids(c->s->broker, &r); break;
    case CTL_QP_LIST: list_qps(c->s->functions, &r); break;
    default: list_stats(c->s->registry, c->s->functions, c->s->broker, &r); break;
    }
    send_list(c, &r);
}

static void monitor(const struct call *c)
{
    c->client->monitor = true;
    done(c);
}

static void cm_open(const struct call *c)
{
    struct ctl_cm_opened opened = {0};
    int fd = -1;

    if (!c->s->broker) {
        ctl_send_error(c->conn, c->hdr, -EOPNOTSUPP, "rbondd runs without a connection manager");
        return;
    }
    if (c->client->channel) {
        ctl_send_error(c->conn, c->hdr, -EBUSY, "this connection has a channel already");
        return;
    }
    int rc = cmbroker_open(c->s->broker, ctl_conn_pid(c->conn), ctl_conn_uid(c->conn),
                           &c->client->channel, &opened, &fd);
    if (rc < 0) {
        c->client->channel = NULL;
        ctl_send_error(c->conn, c->hdr, rc, "no channel to the connection manager: %s",
                       strerror(-rc));
        return;
    }
    ctl_send_reply(c->conn, c->hdr, &opened, 1, sizeof opened, &fd, 1);
    close(fd);
}

static void cm_command(const struct call *c)
{
    uint8_t out[CTL_CM_MAX_REPLY];

    if (!c->client->channel) {
        ctl_send_error(c->conn, c->hdr, -EBADF, "this connection has no channel");
        return;
    }
    ssize_t n = cmbroker_command(c->client->channel, c->body, c->len, out, sizeof out);
    if (n < 0)
        ctl_send_error(c->conn, c->hdr, (int)n, "%s", strerror((int)-n));
    else
        ctl_send_reply(c->conn, c->hdr, out, (size_t)n, 1, NULL, 0);
}

static void xrcd(const struct call *c)
{
    if (c->client->xrc)
        ctl_send_error(c->conn, c->hdr, -EINVAL, "this connection has an XRC domain already");
    else
        c->client->xrc = xrc_claim(&c->s->xrc, c->s->functions, c->conn, c->hdr, c->body,
                                   ctl_conn_take_fd(c->conn));
}

static void (*const handlers[])(const struct call *) = {
    [CTL_HELLO] = hello,       [CTL_DEV_LIST] = list,     [CTL_OPEN] = open_device,
    [CTL_BOND_ADD] = bond_add, [CTL_BOND_DEL] = bond_del, [CTL_BOND_SET] = bond_set,
    [CTL_BOND_LIST] = list,    [CTL_LINK_LIST] = list,    [CTL_FUNCTION_LIST] = list,
    [CTL_QP_LIST] = list,      [CTL_STAT] = list,         [CTL_MONITOR] = monitor,
    [CTL_CM_OPEN] = cm_open,   [CTL_CM_CMD] = cm_command, [CTL_GID_LIST] = list,
    [CTL_RECLAIM] = reclaim,   [CTL_CM_ID_LIST] = list,   [CTL_XRCD] = xrcd,
};

/* ---- connections ------------------------------------------------------------------------- */

static struct client *client_of(struct ctl_conn *conn)
{
    struct client *client = ctl_conn_data(conn);

    if (client) return client;
    client = calloc(1, sizeof *client);
    if (!client) return NULL;
    list_init(&client->functions);
    ctl_conn_set_data(conn, client);
    return client;
}

/* ---- before the group of functions is there ---------------------------------------------- */

static bool needs_group(uint16_t type)
{
    return type == CTL_OPEN || type == CTL_RECLAIM || type == CTL_CM_OPEN;
}

static void let_wait(const struct call *c)
{
    struct waiting *w = &c->client->waiting;

    if (w->any || c->len > sizeof w->body) {
        ctl_send_error(c->conn, c->hdr, -EAGAIN, "rbondd waits for programs of an earlier one");
        return;
    }
    w->any = true;
    w->hdr = *c->hdr;
    w->len = c->len;
    memcpy(w->body, c->body, c->len);
}

static void on_request(void *ctx, struct ctl_conn *conn, const struct ctl_hdr *hdr,
                       const void *body, size_t len)
{
    struct call call = {ctx, conn, client_of(conn), hdr, body, len};

    if (!call.client) {
        ctl_send_error(conn, hdr, -ENOMEM, "out of memory");
        return;
    }
    if (functions_ready(call.s->functions) || !needs_group(hdr->type))
        handlers[hdr->type](&call); /* ctl_check_request knows no other types */
    else
        let_wait(&call);
}

void service_ready(struct service *s)
{
    for (struct ctl_conn *c = ctl_conn_next(s->server, NULL); c; c = ctl_conn_next(s->server, c)) {
        struct client *client = ctl_conn_data(c);
        struct waiting *w = client ? &client->waiting : NULL;
        if (!w || !w->any) continue;
        w->any = false;
        handlers[w->hdr.type](&(struct call){s, c, client, &w->hdr, w->body, w->len});
    }
}

unsigned service_claims(const struct service *s)
{
    unsigned n = 0;

    for (struct ctl_conn *c = ctl_conn_next(s->server, NULL); c; c = ctl_conn_next(s->server, c)) {
        const struct client *client = ctl_conn_data(c);
        n += client && client->waiting.any && client->waiting.hdr.type == CTL_RECLAIM;
    }
    return n;
}

static void on_gone(void *ctx, struct ctl_conn *conn)
{
    struct service *s = ctx;
    struct client *client = ctl_conn_data(conn);

    if (!client) return;
    ctl_conn_set_data(conn, NULL);
    if (client->channel) cmbroker_close(client->channel);
    if (client->xrc) xrc_release(client->xrc);
    list_for_each_safe (node, tmp, &client->functions) {
        struct function *fn = container_of(node, struct function, node);
        struct function gone = *fn;
        xrc_function_gone(&s->xrc, fn->number);
        functions_close(s->functions, fn, clock_now());
        function_event(s, &gone, CTL_EV_FUNCTION_DEL);
    }
    free(client);
}

const struct ctl_server_ops service_ops = {.request = on_request, .gone = on_gone};
