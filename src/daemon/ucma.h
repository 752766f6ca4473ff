/* Inside the broker: ids of the RDMA connection manager as programs see them.
 *
 *   cmbroker.c   channels, devices, the pump between cm/, gsi.c and the ids
 *   ucma_cmd.c   commands by number: their lengths, create, destroy, migrate, options
 *   ucma_addr.c  socket addresses, binding; ucma_port.c port numbers
 *   ucma_resolve.c address and route resolution
 *   ucma_conn.c  connect, listen, accept, reject, disconnect; what cm/ reports
 *   ucma_mcast.c JOIN_MCAST, LEAVE_MCAST
 *   ucma_query.c QUERY, QUERY_ROUTE, INIT_QP_ATTR
 *   ucma_event.c the queue of events and its tokens
 *   ucma_user.c  what each user has of all that */
#ifndef RBOND_DAEMON_UCMA_H
#define RBOND_DAEMON_UCMA_H

#include "base/heap.h"
#include "base/list.h"
#include "cm/cm.h"
#include "daemon/cmbroker.h"
#include "daemon/gsi.h"
#include "watch/route.h"
#include <netinet/in.h>
#include <rdma/rdma_user_cm.h>

#define UCMA_MAX_IDS 65536 /* librdmacm's own index of them has 16 bits */
#define UCMA_MAX_CHANNELS 4096
#define UCMA_MAX_MCASTS 65536 /* all ids' */
/* A user's, who is neither root nor rbondd's own. Ids: half of the connections that cm/ keeps.
 * Channels: with FUNCTIONS_PER_USER they are CTL_CONNS_PER_USER. */
#define UCMA_IDS_PER_USER 16384
#define UCMA_CHANNELS_PER_USER 1536
#define UCMA_MCASTS_PER_USER (UCMA_MAX_MCASTS / 2)
#define UCMA_MAX_BACKLOG 1024
#define UCMA_MAX_WAITING 256 /* events of an id that may still ask for more */
#define UCMA_PORT_HASH 1024

/* A Linux RoCE path lives 4.096 us * 2^16; the ACK timeout is one more (kernel: cma_resolve_iboe).
 */
#define UCMA_PACKET_LIFETIME 16
/* 20.48 ms: with the five retries that programs ask for, a peer that is slow to post a receive has
 * 0.1 s. The kernel leaves 0 here, which is 655 ms each time. */
#define UCMA_MIN_RNR_TIMER 22

/* Events as the ABI numbers them: librdmacm's enum rdma_cm_event_type, whose header cannot stand
 * beside the kernel's. */
enum ucma_event_type {
    UCMA_EV_ADDR_RESOLVED = 0,
    UCMA_EV_ADDR_ERROR = 1,
    UCMA_EV_ROUTE_RESOLVED = 2,
    UCMA_EV_CONNECT_REQUEST = 4,
    UCMA_EV_CONNECT_RESPONSE = 5,
    UCMA_EV_UNREACHABLE = 7,
    UCMA_EV_REJECTED = 8,
    UCMA_EV_ESTABLISHED = 9,
    UCMA_EV_DISCONNECTED = 10,
    UCMA_EV_DEVICE_REMOVAL = 11,
    UCMA_EV_MULTICAST_JOIN = 12,
    UCMA_EV_MULTICAST_ERROR = 13,
    UCMA_EV_TIMEWAIT_EXIT = 15,
};

#define UCMA_UDP_QKEY 0x01234567u /* RDMA_UDP_QKEY */

enum ucma_state {
    UCMA_IDLE,
    UCMA_BOUND,
    UCMA_RESOLVING,
    UCMA_ADDR_RESOLVED,
    UCMA_ROUTE_RESOLVED,
    UCMA_LISTENING,
    UCMA_CONNECTING, /* from CONNECT or a request until it is over */
    UCMA_DISCONNECTED,
};

struct ucma_id {
    struct cmbroker *broker;
    struct cmbroker_channel *channel;
    struct list all; /* channel->ids */
    uint32_t handle; /* its index in broker->ids */
    uint64_t uid;
    enum ucma_state state;
    uint16_t ps;
    uint8_t qp_type; /* enum ibv_qp_type */
    uint32_t events_reported, nevents; /* that the program has, that wait */

    struct sockaddr_in6 src, dst; /* AF_INET6 or, in the same room, struct sockaddr_in */
    struct list port;             /* broker->ports while it holds src's port */

    uint64_t guid; /* 0: no device yet */
    struct cm_route route;
    uint8_t sgid_index;
    uint8_t path_mtu;
    struct heap_node look_again; /* UCMA_RESOLVING: in broker->resolving */
    when_t resolve_until;
    uint64_t look_ns;

    uint8_t tos, ack_timeout;
    bool reuseaddr, afonly, afonly_set; /* by the program */
    bool removed;                       /* the program knows that the device has gone */
    bool is_ib;                         /* bound by an address of InfiniBand's: src is a wildcard */
    uint32_t qkey;
    qpn_t qpn; /* as CONNECT or ACCEPT said; 0: not yet */

    struct cm_id *cm;
    struct cm_listener *listener;
    struct list mcasts; /* ucma_mcast.all */
};

/* A multicast group that an id has joined. */
struct ucma_mcast {
    struct list all;
    struct ucma_id *id;
    uint32_t handle;
    uint64_t uid;
    uint32_t events_reported;
};

struct ucma_event {
    struct list all;
    struct ucma_id *id;       /* whose events_reported counts it */
    struct ucma_id *request;  /* CONNECT_REQUEST: the new id */
    struct ucma_mcast *mcast; /* of a group's; its events_reported counts it, too */
    struct rdma_ucm_event_resp resp;
};

struct ucma_user {
    struct list all;
    uid_t uid;
    uint32_t channels, ids, mcasts;
    uint32_t ports; /* ids that hold one */
};

struct cmbroker_channel {
    struct cmbroker *broker;
    struct ucma_user *user;
    struct list all;
    uint32_t number;
    pid_t pid;
    char comm[CTL_NAME_LEN];
    int token_in, token_out; /* where tokens are put, and whence they can be taken back */
    uint32_t tokens, nevents;
    bool full; /* the socket: no more tokens for now */
    struct list events, ids;
};

struct cmbroker {
    struct cmbroker_conf conf;
    struct cm *cm;
    struct gsi *gsi;
    struct route *routes;
    uv_timer_t timer;
    struct list channels, users, ports[UCMA_PORT_HASH];
    struct ucma_event lost; /* for one more event there was no memory */
    struct heap resolving; /* room for UCMA_MAX_IDS */
    uint32_t nchannels, next_channel, next_handle, next_port;
    uint32_t nmcasts, next_mcast;
    struct ucma_id **ids;            /* UCMA_MAX_IDS */
    uint32_t port_first, port_count; /* for ids that name no port */
    bool bindv6only;
    when_t settings_until;
    uint64_t random;
    bool pumping;
};

/* ---- cmbroker.c ----------------------------------------------------------------------------- */

when_t broker_now(void);
uint64_t broker_random(struct cmbroker *broker);
/* Lets cm/ speak: events to ids, MADs to the network, the timer set. Every entry point ends so. */
void broker_pump(struct cmbroker *broker);
/* The device with this GID; on net device `ifindex` unless 0. *index: its place in the table. */
bool broker_device_by_gid(struct cmbroker *broker, const struct gid *gid, uint32_t ifindex,
                          struct cmbroker_device *out, uint8_t *index);
bool broker_device_by_guid(struct cmbroker *broker, uint64_t guid, struct cmbroker_device *out);
/* The path MTU (enum ibv_mtu) that packets of a net device of this MTU carry. */
uint8_t broker_path_mtu(uint32_t mtu);

/* ---- ids: ucma_cmd.c ------------------------------------------------------------------------- */

/* 0; -EDQUOT: the user has his share; -ENOMEM, also where the table is full. */
int ucma_id_new(struct cmbroker_channel *channel, struct ucma_id **out);
/* Undoes all of it: connection, listener, port, events, requests not yet fetched. */
void ucma_id_free(struct ucma_id *id);
/* The reply's length or a negative errno. */
ssize_t ucma_command(struct cmbroker_channel *channel, const void *bytes, size_t len, void *reply,
                     size_t cap);

/* ---- ucma_user.c ----------------------------------------------------------------------------- */

/* A channel of this user's begins and ends. NULL: no memory. */
struct ucma_user *ucma_user_in(struct cmbroker *broker, uid_t uid);
void ucma_user_out(struct ucma_user *user);
/* May the user, who has so many of something, have one more? */
bool ucma_user_may(const struct ucma_user *user, uint32_t has, uint32_t share);

/* ---- ucma_event.c ---------------------------------------------------------------------------- */

/* An event to fill in; it is in the queue already. Never NULL: one for which there is no memory is
 * lost, and with it the channel, whose program reads the end of it (ENODEV). */
struct ucma_event *ucma_report(struct ucma_id *id, enum ucma_event_type type, int status);
/* Takes the first out of the queue; NULL: none waits. */
struct ucma_event *ucma_take_event(struct cmbroker_channel *channel);
/* Moves the id to another channel, with its events and the requests nobody has fetched. */
void ucma_move(struct ucma_id *id, struct cmbroker_channel *to);
/* Drops the id's events, and with them requests nobody has fetched. */
void ucma_drop_events(struct ucma_id *id);
/* Drops all of a channel's, whose listeners have gone. */
void ucma_drop_channel_events(struct cmbroker_channel *channel);
/* Drops those of one of its groups. */
void ucma_drop_mcast_events(struct ucma_mcast *mcast);

/* ---- commands: `id` is found and the channel's own; 0, the reply's length, or a negative errno
 * ---- */

int ucma_bind(struct ucma_id *id, const struct sockaddr *addr, size_t len);
int ucma_resolve_addr(struct ucma_id *id, const struct sockaddr *src, size_t src_len,
                      const struct sockaddr *dst, size_t dst_len, uint32_t timeout_ms);
int ucma_resolve_route(struct ucma_id *id);
/* RDMA_OPTION_IB_PATH: the route is this path record. */
int ucma_set_path(struct ucma_id *id, const void *option, size_t len);
/* Resolutions that are to look again. */
void ucma_resolve_expire(struct cmbroker *broker, when_t now);
/* src's port, or with none there one of the kernel's ephemeral range. */
int ucma_take_port(struct ucma_id *id);
int ucma_claim_port(struct ucma_id *id);
void ucma_release_port(struct ucma_id *id);

bool ucma_qp_type_is_known(uint8_t qp_type);
int ucma_connect(struct ucma_id *id, const struct rdma_ucm_conn_param *param,
                 const struct rdma_ucm_ece *ece);
int ucma_listen(struct ucma_id *id, uint32_t backlog);
/* `param` NULL: the active side is ready. */
int ucma_accept(struct ucma_id *id, const struct rdma_ucm_conn_param *param,
                const struct rdma_ucm_ece *ece);
int ucma_reject(struct ucma_id *id, uint8_t reason, const void *data, size_t len);
int ucma_disconnect(struct ucma_id *id);
int ucma_notify(struct ucma_id *id, uint32_t event);
/* What cm/ says of an id or a listener. */
void ucma_cm_event(const struct cm_event *event);

ssize_t ucma_join(struct ucma_id *id, const struct rdma_ucm_join_mcast *join, void *reply);
/* `handle` is a group's, of an id of this channel. */
ssize_t ucma_leave(struct cmbroker_channel *channel, uint32_t handle, void *reply);
/* The id goes: its groups, whose events are gone already. */
void ucma_forget_mcasts(struct ucma_id *id);

ssize_t ucma_query_route(struct ucma_id *id, void *reply);
ssize_t ucma_query(struct ucma_id *id, uint32_t option, void *reply);
ssize_t ucma_init_qp_attr(struct ucma_id *id, uint32_t qp_state, void *reply);

/* ---- addresses: ucma_addr.c -------------------------------------------------------------------
 */

/* -EAFNOSUPPORT, or -EINVAL where it is short. */
int ucma_addr_copy(struct sockaddr_in6 *out, const struct sockaddr *addr, size_t len);
bool ucma_addr_is_any(const struct sockaddr_in6 *addr);    /* or a loopback address */
uint32_t ucma_addr_scope(const struct sockaddr_in6 *addr); /* of a link-local one, else 0 */
bool ucma_gid_is_link_local(const struct gid *gid);
void ucma_use_device(struct ucma_id *id, const struct cmbroker_device *dev, uint8_t index);
size_t ucma_addr_len(const struct sockaddr_in6 *addr);
struct gid ucma_addr_gid(const struct sockaddr_in6 *addr);
uint16_t ucma_addr_port(const struct sockaddr_in6 *addr);
void ucma_addr_set(struct sockaddr_in6 *addr, const struct gid *gid, uint16_t port);

/* As ib_uverbs wants it: the id's peer by the id's own GID. */
struct ib_uverbs_ah_attr ucma_ah_attr(const struct ucma_id *id, uint8_t hop_limit);

#endif
