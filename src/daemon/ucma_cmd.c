/* Commands by number. Each is checked here for its length, for room for its response, and for an id
 * that is this channel's; what it does is in the other ucma files. A program built with older
 * headers sends shorter structs: what is missing at the end counts as zero. */
#include "daemon/ucma.h"

#include <errno.h>
#include <infiniband/verbs.h>
#include <stdlib.h>

/* ---- ids
 * --------------------------------------------------------------------------------------------- */

int ucma_id_new(struct cmbroker_channel *channel, struct ucma_id **out)
{
    struct cmbroker *b = channel->broker;
    if (!ucma_user_may(channel->user, channel->user->ids, UCMA_IDS_PER_USER)) return -EDQUOT;
    uint32_t handle = UCMA_MAX_IDS;
    for (uint32_t i = 0; i < UCMA_MAX_IDS && handle == UCMA_MAX_IDS; i++) {
        uint32_t candidate = b->next_handle++ % UCMA_MAX_IDS;
        if (!b->ids[candidate]) handle = candidate;
    }
    struct ucma_id *id = handle < UCMA_MAX_IDS ? calloc(1, sizeof *id) : NULL;
    if (!id) return -ENOMEM;
    channel->user->ids++;
    id->broker = b;
    id->channel = channel;
    id->handle = handle;
    id->qkey = UCMA_UDP_QKEY;
    id->look_again = HEAP_NODE_IDLE;
    list_init(&id->port);
    list_init(&id->mcasts);
    list_add_tail(&channel->ids, &id->all);
    b->ids[handle] = id;
    *out = id;
    return 0;
}

void ucma_id_free(struct ucma_id *id)
{
    if (id->listener) cm_listener_destroy(id->listener);
    ucma_drop_events(id);
    ucma_forget_mcasts(id);
    if (id->cm) cm_id_destroy(id->cm, broker_now());
    heap_set(&id->broker->resolving, &id->look_again, NEVER);
    ucma_release_port(id);
    list_del(&id->all);
    id->broker->ids[id->handle] = NULL;
    id->channel->user->ids--;
    free(id);
}

static struct ucma_id *find(struct cmbroker_channel *ch, uint32_t handle)
{
    struct ucma_id *id = handle < UCMA_MAX_IDS ? ch->broker->ids[handle] : NULL;
    return id && id->channel == ch ? id : NULL;
}

/* ---- handlers
 * ---------------------------------------------------------------------------------------- */

union body {
    struct rdma_ucm_create_id create;
    struct rdma_ucm_destroy_id destroy;
    struct rdma_ucm_bind_ip bind_ip;
    struct rdma_ucm_bind bind;
    struct rdma_ucm_resolve_ip resolve_ip;
    struct rdma_ucm_resolve_addr resolve_addr;
    struct rdma_ucm_resolve_route resolve_route;
    struct rdma_ucm_query query;
    struct rdma_ucm_connect connect;
    struct rdma_ucm_listen listen;
    struct rdma_ucm_accept accept;
    struct rdma_ucm_reject reject;
    struct rdma_ucm_disconnect disconnect;
    struct rdma_ucm_init_qp_attr init_qp_attr;
    struct rdma_ucm_get_event get_event;
    struct rdma_ucm_set_option set_option;
    struct rdma_ucm_notify notify;
    struct rdma_ucm_migrate_id migrate;
    struct rdma_ucm_join_ip_mcast join_ip;
    struct rdma_ucm_join_mcast join;
};

struct call {
    struct cmbroker_channel *channel;
    struct ucma_id *id; /* where the command names one */
    const union body *body;
    const uint8_t *extra; /* SET_OPTION's value */
    size_t extra_len;
    void *reply;
};

static ssize_t do_create(struct call *c)
{
    uint8_t qp_type;
    switch (c->body->create.ps) {
    case RDMA_PS_TCP: qp_type = IBV_QPT_RC; break;
    case RDMA_PS_UDP: qp_type = IBV_QPT_UD; break;
    case RDMA_PS_IB:
        qp_type = c->body->create.qp_type;
        if (!ucma_qp_type_is_known(qp_type)) return -EINVAL;
        break;
    case RDMA_PS_IPOIB: return -EOPNOTSUPP; /* there is no IPoIB on Ethernet */
    default: return -EINVAL;
    }
    struct ucma_id *id;
    int err = ucma_id_new(c->channel, &id);
    if (err) return err;
    id->uid = c->body->create.uid;
    id->ps = c->body->create.ps;
    id->qp_type = qp_type;
    struct rdma_ucm_create_id_resp r = {.id = id->handle};
    memcpy(c->reply, &r, sizeof r);
    return sizeof r;
}

static ssize_t do_destroy(struct call *c)
{
    struct rdma_ucm_destroy_id_resp r = {.events_reported = c->id->events_reported};
    ucma_id_free(c->id);
    memcpy(c->reply, &r, sizeof r);
    return sizeof r;
}

static ssize_t do_bind_ip(struct call *c)
{
    return ucma_bind(c->id, (const struct sockaddr *)&c->body->bind_ip.addr,
                     sizeof c->body->bind_ip.addr);
}

static ssize_t do_bind(struct call *c)
{
    if (c->body->bind.addr_size > sizeof c->body->bind.addr) return -EINVAL;
    return ucma_bind(c->id, (const struct sockaddr *)&c->body->bind.addr, c->body->bind.addr_size);
}

static ssize_t do_resolve_ip(struct call *c)
{
    const struct rdma_ucm_resolve_ip *r = &c->body->resolve_ip;
    return ucma_resolve_addr(c->id, (const struct sockaddr *)&r->src_addr, sizeof r->src_addr,
                             (const struct sockaddr *)&r->dst_addr, sizeof r->dst_addr,
                             r->timeout_ms);
}

static ssize_t do_resolve_addr(struct call *c)
{
    const struct rdma_ucm_resolve_addr *r = &c->body->resolve_addr;
    if (r->src_size > sizeof r->src_addr || r->dst_size > sizeof r->dst_addr) return -EINVAL;
    return ucma_resolve_addr(c->id, (const struct sockaddr *)&r->src_addr, r->src_size,
                             (const struct sockaddr *)&r->dst_addr, r->dst_size, r->timeout_ms);
}

static ssize_t do_resolve_route(struct call *c) { return ucma_resolve_route(c->id); }
static ssize_t do_query_route(struct call *c) { return ucma_query_route(c->id, c->reply); }

static ssize_t do_query(struct call *c)
{
    return ucma_query(c->id, c->body->query.option, c->reply);
}

static ssize_t do_connect(struct call *c)
{
    if (!c->body->connect.conn_param.valid) return -EINVAL;
    return ucma_connect(c->id, &c->body->connect.conn_param, &c->body->connect.ece);
}

static ssize_t do_listen(struct call *c) { return ucma_listen(c->id, c->body->listen.backlog); }

static ssize_t do_accept(struct call *c)
{
    const struct rdma_ucm_accept *a = &c->body->accept;
    if (!a->conn_param.valid) return ucma_accept(c->id, NULL, NULL);
    uint64_t uid = c->id->uid;
    c->id->uid = a->uid;
    int err = ucma_accept(c->id, &a->conn_param, &a->ece);
    if (err) c->id->uid = uid;
    return err;
}

static ssize_t do_reject(struct call *c)
{
    const struct rdma_ucm_reject *r = &c->body->reject;
    if (r->reason && r->reason != CM_REJ_CONSUMER_DEFINED &&
        r->reason != CM_REJ_VENDOR_OPTION_NOT_SUPPORTED)
        return -EINVAL;
    return ucma_reject(c->id, r->reason, r->private_data, r->private_data_len);
}

static ssize_t do_disconnect(struct call *c) { return ucma_disconnect(c->id); }

static ssize_t do_init_qp_attr(struct call *c)
{
    return ucma_init_qp_attr(c->id, c->body->init_qp_attr.qp_state, c->reply);
}

static ssize_t do_get_event(struct call *c)
{
    struct ucma_event *e = ucma_take_event(c->channel);
    if (!e) return -EAGAIN;
    e->id->events_reported++;
    if (e->mcast) e->mcast->events_reported++;
    if (e->request && e->request->cm) cm_taken(e->request->cm);
    memcpy(c->reply, &e->resp, sizeof e->resp);
    free(e);
    return sizeof(struct rdma_ucm_event_resp);
}

static int set_flag(struct call *c, bool *flag)
{
    int v;
    if (c->extra_len != sizeof v) return -EINVAL;
    memcpy(&v, c->extra, sizeof v);
    *flag = v != 0;
    return 0;
}

static int set_reuseaddr(struct call *c)
{
    bool reuse;
    int err = set_flag(c, &reuse);
    if (err) return err;
    bool late = reuse ? c->id->state == UCMA_LISTENING : c->id->state != UCMA_IDLE;
    if (late) return -EINVAL;
    c->id->reuseaddr = reuse;
    return 0;
}

static ssize_t do_set_option(struct call *c)
{
    const struct rdma_ucm_set_option *o = &c->body->set_option;
    struct ucma_id *id = c->id;
    if (o->optlen != c->extra_len) return -EINVAL;
    if (o->level == RDMA_OPTION_IB && o->optname == RDMA_OPTION_IB_PATH)
        return ucma_set_path(id, c->extra, c->extra_len);
    if (o->level != RDMA_OPTION_ID) return -ENOSYS;
    switch (o->optname) {
    case RDMA_OPTION_ID_TOS:
        if (o->optlen != 1) return -EINVAL;
        id->tos = id->route.traffic_class = c->extra[0];
        return 0;
    case RDMA_OPTION_ID_REUSEADDR: return set_reuseaddr(c);
    case RDMA_OPTION_ID_AFONLY:
        if (id->state != UCMA_IDLE && id->state != UCMA_BOUND) return -EINVAL;
        id->afonly_set = true;
        return set_flag(c, &id->afonly);
    case RDMA_OPTION_ID_ACK_TIMEOUT:
        if (o->optlen != 1 || c->extra[0] > 31) return -EINVAL;
        id->ack_timeout = c->extra[0];
        return 0;
    default: return -ENOSYS;
    }
}

static ssize_t do_notify(struct call *c) { return ucma_notify(c->id, c->body->notify.event); }

static ssize_t do_join(struct call *c) { return ucma_join(c->id, &c->body->join, c->reply); }

/* The older form of the command. */
static ssize_t do_join_ip(struct call *c)
{
    const struct rdma_ucm_join_ip_mcast *old = &c->body->join_ip;
    struct rdma_ucm_join_mcast join = {.uid = old->uid,
                                       .addr_size = (uint16_t)ucma_addr_len(&old->addr),
                                       .join_flags = RDMA_MC_JOIN_FLAG_FULLMEMBER};
    memcpy(&join.addr, &old->addr, sizeof old->addr);
    return ucma_join(c->id, &join, c->reply);
}

static ssize_t do_leave(struct call *c)
{
    return ucma_leave(c->channel, c->body->destroy.id, c->reply);
}

/* The id leaves the channel that `fd` numbers, which must be the same program's and user's, for
 * this one. */
static ssize_t do_migrate(struct call *c)
{
    struct cmbroker_channel *from = NULL;
    list_for_each (pos, &c->channel->broker->channels) {
        struct cmbroker_channel *ch = container_of(pos, struct cmbroker_channel, all);
        if (ch->number == c->body->migrate.fd && ch->pid == c->channel->pid &&
            ch->user == c->channel->user)
            from = ch;
    }
    struct ucma_id *id = from ? find(from, c->body->migrate.id) : NULL;
    if (!from) return -EINVAL;
    if (!id) return -ENOENT;
    if (from != c->channel) ucma_move(id, c->channel);
    struct rdma_ucm_migrate_resp r = {.events_reported = id->events_reported};
    memcpy(c->reply, &r, sizeof r);
    return sizeof r;
}

/* ---- the table
 * --------------------------------------------------------------------------------------- */

#define NO_ID SIZE_MAX

struct command {
    ssize_t (*run)(struct call *c);
    size_t min_in, min_out;
    size_t id_offset; /* NO_ID: it names none, or not this channel's */
};

#define ROW(type, handler, out)                                                                    \
    {                                                                                              \
        handler, sizeof(struct type), out, offsetof(struct type, id)                               \
    }
#define ROW_UP_TO(type, last, handler, out)                                                        \
    {                                                                                              \
        handler, offsetof(struct type, last), out, offsetof(struct type, id)                       \
    }

static const struct command commands[] = {
    [RDMA_USER_CM_CMD_CREATE_ID] = {do_create, sizeof(struct rdma_ucm_create_id),
                                    sizeof(struct rdma_ucm_create_id_resp), NO_ID},
    [RDMA_USER_CM_CMD_DESTROY_ID] =
        ROW(rdma_ucm_destroy_id, do_destroy, sizeof(struct rdma_ucm_destroy_id_resp)),
    [RDMA_USER_CM_CMD_BIND_IP] = ROW(rdma_ucm_bind_ip, do_bind_ip, 0),
    [RDMA_USER_CM_CMD_RESOLVE_IP] = ROW(rdma_ucm_resolve_ip, do_resolve_ip, 0),
    [RDMA_USER_CM_CMD_RESOLVE_ROUTE] = ROW(rdma_ucm_resolve_route, do_resolve_route, 0),
    [RDMA_USER_CM_CMD_QUERY_ROUTE] = ROW(rdma_ucm_query, do_query_route,
                                         offsetof(struct rdma_ucm_query_route_resp, ibdev_index)),
    [RDMA_USER_CM_CMD_CONNECT] = ROW_UP_TO(rdma_ucm_connect, ece, do_connect, 0),
    [RDMA_USER_CM_CMD_LISTEN] = ROW(rdma_ucm_listen, do_listen, 0),
    [RDMA_USER_CM_CMD_ACCEPT] = ROW_UP_TO(rdma_ucm_accept, ece, do_accept, 0),
    [RDMA_USER_CM_CMD_REJECT] = ROW(rdma_ucm_reject, do_reject, 0),
    [RDMA_USER_CM_CMD_DISCONNECT] = ROW(rdma_ucm_disconnect, do_disconnect, 0),
    [RDMA_USER_CM_CMD_INIT_QP_ATTR] =
        ROW(rdma_ucm_init_qp_attr, do_init_qp_attr, sizeof(struct ib_uverbs_qp_attr)),
    [RDMA_USER_CM_CMD_GET_EVENT] = {do_get_event, sizeof(struct rdma_ucm_get_event),
                                    offsetof(struct rdma_ucm_event_resp, reserved), NO_ID},
    [RDMA_USER_CM_CMD_SET_OPTION] = ROW(rdma_ucm_set_option, do_set_option, 0),
    [RDMA_USER_CM_CMD_NOTIFY] = ROW(rdma_ucm_notify, do_notify, 0),
    [RDMA_USER_CM_CMD_JOIN_IP_MCAST] =
        ROW(rdma_ucm_join_ip_mcast, do_join_ip, sizeof(struct rdma_ucm_create_id_resp)),
    [RDMA_USER_CM_CMD_LEAVE_MCAST] = {do_leave, sizeof(struct rdma_ucm_destroy_id),
                                      sizeof(struct rdma_ucm_destroy_id_resp), NO_ID},
    [RDMA_USER_CM_CMD_MIGRATE_ID] = {do_migrate, sizeof(struct rdma_ucm_migrate_id),
                                     sizeof(struct rdma_ucm_migrate_resp), NO_ID},
    [RDMA_USER_CM_CMD_QUERY] =
        ROW(rdma_ucm_query, do_query, offsetof(struct rdma_ucm_query_addr_resp, ibdev_index)),
    [RDMA_USER_CM_CMD_BIND] = ROW(rdma_ucm_bind, do_bind, 0),
    [RDMA_USER_CM_CMD_RESOLVE_ADDR] = ROW(rdma_ucm_resolve_addr, do_resolve_addr, 0),
    [RDMA_USER_CM_CMD_JOIN_MCAST] =
        ROW(rdma_ucm_join_mcast, do_join, sizeof(struct rdma_ucm_create_id_resp)),
};

ssize_t ucma_command(struct cmbroker_channel *channel, const void *bytes, size_t len, void *reply,
                     size_t cap)
{
    struct rdma_ucm_cmd_hdr hdr;
    if (cap < CTL_CM_MAX_REPLY || len < sizeof hdr) return -EINVAL;
    memcpy(&hdr, bytes, sizeof hdr);
    if (hdr.in > len - sizeof hdr) return -EINVAL;
    if (hdr.cmd >= sizeof commands / sizeof commands[0]) return -EINVAL;
    const struct command *cmd = &commands[hdr.cmd];
    if (!cmd->run) return -ENOSYS; /* GET_OPTION, as in the kernel */
    if (hdr.in < cmd->min_in) return -EINVAL;
    if (hdr.out < cmd->min_out) return -ENOSPC;

    union body body;
    memset(&body, 0, sizeof body);
    memcpy(&body, (const uint8_t *)bytes + sizeof hdr, hdr.in < sizeof body ? hdr.in : sizeof body);
    struct call call = {.channel = channel, .body = &body, .reply = reply};
    call.extra = (const uint8_t *)bytes + sizeof hdr + hdr.in;
    call.extra_len = len - sizeof hdr - hdr.in;
    if (cmd->id_offset != NO_ID) {
        uint32_t handle;
        memcpy(&handle, (const uint8_t *)&body + cmd->id_offset, sizeof handle);
        call.id = find(channel, handle);
        if (!call.id) return -ENOENT;
    }
    return cmd->run(&call);
}
