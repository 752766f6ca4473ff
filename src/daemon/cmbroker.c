/* See cmbroker.h. This file holds the broker together: channels, the view of the registry's
 * devices, and the pump that lets cm/, the network and the ids hear of each other. */
#include "daemon/ucma.h"

#include "base/must.h"
#include "daemon/functions.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CM_IDS 32768

when_t broker_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (when_t){(uint64_t)ts.tv_sec * SEC_NS + (uint64_t)ts.tv_nsec};
}

uint64_t broker_random(struct cmbroker *broker)
{
    uint64_t v;
    if (getrandom(&v, sizeof v, GRND_NONBLOCK) == sizeof v) return v;
    return broker->random = broker->random * 6364136223846793005ull + broker_now().ns;
}

/* ---- devices
 * --------------------------------------------------------------------------------------- */

bool broker_device_by_gid(struct cmbroker *broker, const struct gid *gid, uint32_t ifindex,
                          struct cmbroker_device *out, uint8_t *index)
{
    if (gid_is_zero(gid)) return false;
    for (size_t i = 0; broker->conf.device(broker->conf.ctx, i, out); i++) {
        for (uint8_t g = 0; g < CTL_MAX_GIDS; g++) {
            if (!gid_equal(&out->state->gid[g], gid)) continue;
            if (ifindex && out->state->gid_ifindex[g] && out->state->gid_ifindex[g] != ifindex)
                continue;
            *index = g;
            return true;
        }
    }
    return false;
}

bool broker_device_by_guid(struct cmbroker *broker, uint64_t guid, struct cmbroker_device *out)
{
    for (size_t i = 0; broker->conf.device(broker->conf.ctx, i, out); i++)
        if (out->guid == guid) return true;
    return false;
}

/* As the kernel reckons (rdma/ib_addr.h): the largest that fits with the longest headers. */
uint8_t broker_path_mtu(uint32_t mtu)
{
    const uint32_t headers = 40 + 8 + 12 + 4 + 28 + 4; /* IPv6 UDP BTH XRCETH AtomicETH ICRC */
    uint32_t room = mtu > headers ? mtu - headers : 0;
    uint8_t path_mtu = 5;
    while (path_mtu > 1 && room < 128u << path_mtu) path_mtu--;
    return path_mtu;
}

/* ---- the pump
 * -------------------------------------------------------------------------------------- */

static void send_out(struct cmbroker *b, const struct cm_out *out)
{
    struct cmbroker_device dev, peer;
    uint8_t index;
    if (!broker_device_by_gid(b, &out->route.local, 0, &dev, &index)) return; /* it has gone */
    bool local = broker_device_by_gid(b, &out->route.remote, 0, &peer, &index);
    gsi_send(b->gsi, dev.state, out, local);
}

static void on_timer(uv_timer_t *timer)
{
    struct cmbroker *b = timer->data;
    cm_expire(b->cm, broker_now());
    ucma_resolve_expire(b, broker_now());
    broker_pump(b);
}

static void set_timer(struct cmbroker *b)
{
    when_t at = when_min(cm_deadline(b->cm), heap_when(&b->resolving));
    if (when_is_never(at)) {
        uv_timer_stop(&b->timer);
        return;
    }
    uint64_t ns = when_since(at, broker_now());
    uv_timer_start(&b->timer, on_timer, (ns + MS_NS - 1) / MS_NS, 0);
}

void broker_pump(struct cmbroker *b)
{
    if (b->pumping) return; /* an event's handler came here: the loop below goes on */
    b->pumping = true;
    struct cm_event event;
    struct cm_out out;
    bool more = true;
    while (more) {
        more = false;
        while (cm_next_event(b->cm, &event)) {
            ucma_cm_event(&event);
            more = true;
        }
        while (cm_output(b->cm, &out, 1)) send_out(b, &out);
    }
    b->pumping = false;
    set_timer(b);
}

static void on_mad(void *ctx, const uint8_t *mad, const struct cm_route *route)
{
    struct cmbroker *b = ctx;
    struct cmbroker_device dev;
    uint8_t index;
    if (!broker_device_by_gid(b, &route->local, 0, &dev, &index)) return; /* not a GID of ours */
    cm_input(b->cm, mad, MAD_LEN, route, broker_now());
    broker_pump(b);
}

static void on_gsi_idle(void *ctx) { broker_pump(ctx); }

static const struct gsi_ops gsi_ops = {.mad = on_mad, .idle = on_gsi_idle};

/* ---- the broker
 * ------------------------------------------------------------------------------------ */

static int make_parts(struct cmbroker *b)
{
    b->ids = calloc(UCMA_MAX_IDS, sizeof(struct ucma_id *));
    b->cm = cm_new(&(struct cm_conf){.seed = broker_random(b), .max_ids = CM_IDS});
    if (!b->ids || !b->cm || heap_reserve(&b->resolving, UCMA_MAX_IDS) < 0) return -ENOMEM;
    int err = route_open(&b->routes);
    if (err) return err;
    return gsi_new(&b->gsi, b->conf.loop, b->conf.rx_fd, b->conf.tx_fd, b->conf.ntx, &gsi_ops, b);
}

static void free_parts(struct cmbroker *b)
{
    if (b->cm) cm_free(b->cm);
    route_close(b->routes);
    heap_free(&b->resolving);
    free(b->ids);
    free(b);
}

int cmbroker_new(struct cmbroker **out, const struct cmbroker_conf *conf)
{
    if (conf->ntx > CTL_TX_SOCKETS) return -EINVAL;
    struct cmbroker *b = calloc(1, sizeof *b);
    if (!b) return -ENOMEM;
    b->conf = *conf;
    list_init(&b->channels);
    list_init(&b->users);
    for (size_t i = 0; i < UCMA_PORT_HASH; i++) list_init(&b->ports[i]);
    int err = make_parts(b);
    if (err) {
        free_parts(b);
        return err;
    }
    uv_timer_init(conf->loop, &b->timer);
    b->timer.data = b;
    *out = b;
    return 0;
}

static void on_closed(uv_handle_t *handle) { free_parts(handle->data); }

void cmbroker_free(struct cmbroker *broker)
{
    list_for_each_safe (pos, tmp, &broker->channels)
        cmbroker_close(container_of(pos, struct cmbroker_channel, all));
    broker_pump(broker);
    gsi_close(broker->gsi);
    uv_timer_stop(&broker->timer);
    uv_close((uv_handle_t *)&broker->timer, on_closed);
}

/* A device that goes takes its ids' connections with it; their programs hear of it once. */
void cmbroker_devices_changed(struct cmbroker *broker)
{
    for (size_t i = 0; i < UCMA_MAX_IDS; i++) {
        struct ucma_id *id = broker->ids[i];
        struct cmbroker_device dev;
        if (!id || !id->guid || id->removed || broker_device_by_guid(broker, id->guid, &dev))
            continue;
        id->removed = true;
        if (id->uid) ucma_report(id, UCMA_EV_DEVICE_REMOVAL, 0);
    }
    broker_pump(broker);
}

static uint8_t shown_state(enum ucma_state state)
{
    static const uint8_t shown[] = {
        [UCMA_IDLE] = CTL_CM_IDLE,
        [UCMA_BOUND] = CTL_CM_ADDR_BOUND,
        [UCMA_RESOLVING] = CTL_CM_ADDR_QUERY,
        [UCMA_ADDR_RESOLVED] = CTL_CM_ADDR_RESOLVED,
        [UCMA_ROUTE_RESOLVED] = CTL_CM_ROUTE_RESOLVED,
        [UCMA_LISTENING] = CTL_CM_LISTEN,
        [UCMA_CONNECTING] = CTL_CM_CONNECT,
        [UCMA_DISCONNECTED] = CTL_CM_DISCONNECT,
    };
    return shown[state];
}

bool cmbroker_id(struct cmbroker *broker, size_t *cursor, struct ctl_cm_id *out)
{
    while (*cursor < UCMA_MAX_IDS && !broker->ids[*cursor]) ++*cursor;
    if (*cursor == UCMA_MAX_IDS) return false;
    const struct ucma_id *id = broker->ids[(*cursor)++];
    struct cmbroker_device dev;
    *out = (struct ctl_cm_id){.pid = (uint32_t)id->channel->pid,
                              .lqpn = id->qpn,
                              .ps = id->ps,
                              .src_port = ucma_addr_port(&id->src),
                              .dst_port = ucma_addr_port(&id->dst),
                              .qp_type = id->qp_type,
                              .state = shown_state(id->state)};
    memcpy(out->comm, id->channel->comm, sizeof out->comm);
    if (id->guid && broker_device_by_guid(broker, id->guid, &dev))
        snprintf(out->device, sizeof out->device, "%s", dev.name);
    struct gid src = ucma_addr_gid(&id->src), dst = ucma_addr_gid(&id->dst);
    memcpy(out->src, src.raw, sizeof out->src);
    memcpy(out->dst, dst.raw, sizeof out->dst);
    return true;
}

bool cmbroker_counter(const struct cmbroker *broker, size_t index, const char **name,
                      uint64_t *value)
{
    static const char *const cm_names[] = {
#define X(counter) "cm_" #counter,
        CM_COUNTERS(X)
#undef X
    };
    static const char *const gsi_names[] = {
#define X(counter) #counter,
        GSI_COUNTERS(X)
#undef X
    };
    const size_t ncm = sizeof cm_names / sizeof cm_names[0];
    const size_t ngsi = sizeof gsi_names / sizeof gsi_names[0];
    if (index < ncm) {
        *name = cm_names[index];
        *value = ((const uint64_t *)cm_counters(broker->cm))[index];
    } else if (index - ncm < ngsi) {
        *name = gsi_names[index - ncm];
        *value = ((const uint64_t *)gsi_counters(broker->gsi))[index - ncm];
    } else {
        return false;
    }
    return true;
}

/* ---- channels
 * -------------------------------------------------------------------------------------- */

static int make_tokens(struct cmbroker_channel *ch, int *event_fd)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return -errno;
    ch->token_out = fcntl(pair[1], F_DUPFD_CLOEXEC, 0);
    if (ch->token_out < 0) {
        int err = -errno;
        close(pair[0]);
        close(pair[1]);
        return err;
    }
    ch->token_in = pair[0];
    *event_fd = pair[1];
    return 0;
}

/* 0 or a negative errno: then there is neither user nor tokens. */
static int make_channel(struct cmbroker_channel *ch, uid_t uid, int *event_fd)
{
    ch->user = ucma_user_in(ch->broker, uid);
    if (!ch->user) return -ENOMEM;
    int err = ucma_user_may(ch->user, ch->user->channels - 1, UCMA_CHANNELS_PER_USER)
                  ? make_tokens(ch, event_fd)
                  : -EDQUOT;
    if (err) ucma_user_out(ch->user);
    return err;
}

int cmbroker_open(struct cmbroker *broker, pid_t pid, uid_t uid, struct cmbroker_channel **channel,
                  struct ctl_cm_opened *opened, int *event_fd)
{
    if (broker->nchannels == UCMA_MAX_CHANNELS) return -EMFILE;
    struct cmbroker_channel *ch = calloc(1, sizeof *ch);
    if (!ch) return -ENOMEM;
    ch->broker = broker;
    int err = make_channel(ch, uid, event_fd);
    if (err) {
        free(ch);
        return err;
    }
    ch->pid = pid;
    process_comm(pid, ch->comm, sizeof ch->comm);
    ch->number = ++broker->next_channel;
    list_init(&ch->events);
    list_init(&ch->ids);
    list_add_tail(&broker->channels, &ch->all);
    broker->nchannels++;
    *opened = (struct ctl_cm_opened){.channel = ch->number};
    *channel = ch;
    return 0;
}

ssize_t cmbroker_command(struct cmbroker_channel *channel, const void *bytes, size_t len,
                         void *reply, size_t cap)
{
    struct cmbroker *b = channel->broker;
    ssize_t n = ucma_command(channel, bytes, len, reply, cap);
    broker_pump(b);
    return n;
}

void cmbroker_close(struct cmbroker_channel *channel)
{
    struct cmbroker *b = channel->broker;
    list_for_each (pos, &channel->ids) {
        struct ucma_id *id = container_of(pos, struct ucma_id, all);
        if (id->listener) cm_listener_destroy(id->listener);
        id->listener = NULL;
    }
    ucma_drop_channel_events(channel);
    while (!list_empty(&channel->ids))
        ucma_id_free(container_of(channel->ids.next, struct ucma_id, all));
    must(channel->nevents == 0);
    close(channel->token_in);
    close(channel->token_out);
    list_del(&channel->all);
    ucma_user_out(channel->user);
    b->nchannels--;
    free(channel);
    broker_pump(b);
}
