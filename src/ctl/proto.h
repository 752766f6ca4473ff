/* The control protocol between rbondd and everyone else (librbond, the CLI): fixed little-endian
 * records over a SOCK_SEQPACKET unix socket, one message a packet, descriptors by SCM_RIGHTS.
 * Every message begins with struct ctl_hdr; a reply repeats type and seq. Lists come as one or more
 * messages of records, all but the last with CTL_MORE. What arrives is hostile: codec.c checks
 * length and version before anyone looks inside. Strings are NUL-terminated within their field.
 * (x86-64 and arm64 are little endian: structs are the wire form; proto.h asserts their sizes.) */
#ifndef RBOND_CTL_PROTO_H
#define RBOND_CTL_PROTO_H

#include <assert.h>
#include <stdint.h>

#define CTL_VERSION 1
#define CTL_MAX_MSG 65536
#define CTL_NAME_LEN 32
#define CTL_MAX_MEMBERS 8
#define CTL_MAX_GIDS 32
#define CTL_TX_SOCKETS 8

enum ctl_type {
    /* requests, each with its reply */
    CTL_HELLO = 1,        /* -> ctl_hello */
    CTL_DEV_LIST,         /* -> ctl_dev[] */
    CTL_OPEN,             /* ctl_name -> ctl_opened + fds: device page, function page, rx, tx... */
    CTL_BOND_ADD,         /* ctl_bond_conf */
    CTL_BOND_DEL,         /* ctl_name */
    CTL_BOND_SET,         /* ctl_bond_conf, the fields of ctl_bond_conf.mask */
    CTL_BOND_LIST,        /* -> ctl_bond[] */
    CTL_LINK_LIST,        /* -> ctl_link[]: net devices as rbondd sees them */
    CTL_FUNCTION_LIST,    /* -> ctl_function[] */
    CTL_QP_LIST,          /* -> ctl_qp[] */
    CTL_STAT,             /* -> ctl_stat[] per device, member */
    CTL_MONITOR,          /* subscribes: CTL_EVENT messages follow */
    CTL_CM_OPEN,          /* ucma channel: see ctl/ucma.h -> fd: event pipe */
    CTL_CM_CMD,           /* one ucma write() -> its response bytes */
    CTL_GID_LIST,         /* -> ctl_gid[]: slots that hold one */
    CTL_RECLAIM,          /* ctl_reclaim -> as CTL_OPEN; see there */
    CTL_CM_ID_LIST,       /* -> ctl_cm_id[]: ids of the RDMA connection manager */
    CTL_XRCD,             /* ctl_xrcd + fd: see there */
    /* unsolicited, to owners of a function and to monitors */
    CTL_EVENT = 64,       /* ctl_event */
};

#define CTL_MORE 1u

struct ctl_hdr {
    uint16_t version, type;
    uint32_t len;    /* whole message, bytes */
    uint32_t seq;
    int32_t status;  /* replies: 0 or a negative errno; then ctl_error follows */
    uint32_t flags;
    uint32_t count;  /* records that follow */
};
static_assert(sizeof(struct ctl_hdr) == 24, "ctl_hdr");

/* Says in one line what was wrong and what to do. */
struct ctl_error {
    char text[232];
};

struct ctl_name {
    char name[CTL_NAME_LEN];
};

struct ctl_hello {
    uint32_t pid, flags;
    char version[24];
};

enum ctl_port_state { CTL_PORT_DOWN = 1, CTL_PORT_ACTIVE = 4 }; /* enum ibv_port_state */

struct ctl_dev {
    char name[CTL_NAME_LEN];   /* rb_eth0 */
    char netdev[CTL_NAME_LEN]; /* whose addresses are its GIDs */
    uint64_t guid;             /* node GUID, host order */
    uint32_t ifindex, mtu;     /* L3 MTU of the net device, bytes; a bond: the least of its members */
    uint32_t speed_mbps;
    uint8_t port_state, is_bond, nmembers, ngids;
    uint8_t numa_node, pad;    /* 0xff: none */
    uint16_t number;           /* no other device has it while this one is there */
    char member[CTL_MAX_MEMBERS][CTL_NAME_LEN];
};

/* An opened function. Descriptors, in order: device page (read only), function page (writable),
 * rx socket, `ntx` tx sockets. The connection that opened it owns it: closing frees it. */
struct ctl_opened {
    struct ctl_dev dev;
    uint32_t function, ntx;
    uint64_t key_seed;
    uint32_t rcvbuf, pad;
};

/* A function that an earlier rbondd gave, wanted again under its number: its program has closed its
 * sockets. The answer waits until all others have, too: the group's order is the functions'. */
struct ctl_reclaim {
    char name[CTL_NAME_LEN]; /* of the device */
    uint32_t function, pad;
};

enum ctl_bond_mode { CTL_MODE_ACTIVE_BACKUP = 1, CTL_MODE_BALANCE_XOR = 2 }; /* kernel's numbers */

struct ctl_bond_conf {
    char name[CTL_NAME_LEN];   /* "bond0" gives the device rb_bond0 */
    char netdev[CTL_NAME_LEN]; /* where the bond's address sits; "" = lo */
    uint32_t mask;             /* CTL_BOND_SET: which of the fields below */
    uint32_t mode, min_links, updelay_ms, downdelay_ms;
    uint8_t nmembers, pad[3];
    char primary[CTL_NAME_LEN];
    char member[CTL_MAX_MEMBERS][CTL_NAME_LEN];
};
#define CTL_BOND_MODE 1u
#define CTL_BOND_MIN_LINKS 2u
#define CTL_BOND_UPDELAY 4u
#define CTL_BOND_DOWNDELAY 8u
#define CTL_BOND_PRIMARY 16u

struct ctl_bond_member {
    char name[CTL_NAME_LEN];
    uint32_t ifindex;
    uint8_t carrier, usable, active, pad;
    uint64_t down_count;
};

struct ctl_bond {
    struct ctl_bond_conf conf;
    uint32_t generation;
    uint8_t port_state, pad[3];
    uint64_t changed_ns, failovers;
    struct ctl_bond_member member[CTL_MAX_MEMBERS];
};

struct ctl_link {
    char name[CTL_NAME_LEN], device[CTL_NAME_LEN], master[CTL_NAME_LEN];
    uint32_t ifindex, mtu;
    uint8_t up, carrier, mac[6];
};

struct ctl_function {
    uint32_t function, pid, qps, pad;
    char device[CTL_NAME_LEN];
    char comm[CTL_NAME_LEN];
};

struct ctl_qp {
    char device[CTL_NAME_LEN];
    uint32_t pid, function, qpn, dqpn;
    uint32_t rq_psn, sq_psn;   /* as ibv_query_qp has them */
    uint8_t type, state, bucket, home, active, pad[3]; /* home, active: member index, 0xff none */
    char home_name[CTL_NAME_LEN], active_name[CTL_NAME_LEN];
    char comm[CTL_NAME_LEN];
    uint8_t dgid[16];
    uint64_t tx_packets, tx_bytes, rx_packets, rx_bytes, retransmits, remaps, remapped_at_ns,
        last_gap_ns;
};

struct ctl_gid {
    char device[CTL_NAME_LEN], netdev[CTL_NAME_LEN];
    uint32_t index, pad;
    uint8_t gid[16];
};

enum ctl_cm_state { /* as rdma-resource(8) names them */
    CTL_CM_IDLE,
    CTL_CM_ADDR_QUERY,
    CTL_CM_ADDR_RESOLVED,
    CTL_CM_ROUTE_RESOLVED,
    CTL_CM_ADDR_BOUND,
    CTL_CM_LISTEN,
    CTL_CM_CONNECT,
    CTL_CM_DISCONNECT,
};

struct ctl_cm_id {
    char device[CTL_NAME_LEN]; /* "": none yet */
    char comm[CTL_NAME_LEN];
    uint32_t pid, lqpn; /* lqpn 0: not known yet */
    uint16_t ps;        /* RDMA_PS_TCP ... */
    uint16_t src_port, dst_port;
    uint8_t qp_type, state; /* enum ibv_qp_type, ctl_cm_state */
    uint8_t src[16], dst[16]; /* zero: none; IPv4 mapped */
};
static_assert(sizeof(struct ctl_cm_id) == 112, "ctl_cm_id");

/* A function takes part in the XRC domain of the file whose descriptor comes along, until the
 * connection ends. -ENOENT: nobody does, and it is not to be made; -EEXIST: some do;
 * -EPERM: the function is another user's.
 *
 * For each other function that takes part, CTL_EV_XRC_PEER follows on this connection, now or when it
 * comes, with two ends of SOCK_SEQPACKET sockets that the other has the other ends of: the first to
 * call it, the second to be called by it (verbs/kin.c). One of its own number, without descriptors,
 * says that all have been named that took part before. */
struct ctl_xrcd {
    uint32_t function, flags;
};
#define CTL_XRCD_CREATE 1u
#define CTL_XRCD_EXCL 2u /* only where nobody takes part yet */

/* One counter of a device or of one member (member "": the device). */
struct ctl_stat {
    char device[CTL_NAME_LEN], member[CTL_NAME_LEN], name[CTL_NAME_LEN];
    uint64_t value;
};

enum ctl_event_type {
    CTL_EV_TABLE = 1,     /* the device page changed: look at it */
    CTL_EV_PORT_ACTIVE,
    CTL_EV_PORT_ERR,
    CTL_EV_GID_CHANGE,
    CTL_EV_DEVICE_ADD,
    CTL_EV_DEVICE_DEL,    /* to owners: IBV_EVENT_DEVICE_FATAL */
    CTL_EV_LINK_UP,
    CTL_EV_LINK_DOWN,
    CTL_EV_FAILOVER,      /* member: the new one; old: the one that left */
    CTL_EV_FUNCTION_ADD,
    CTL_EV_FUNCTION_DEL,
    CTL_EV_XRC_PEER,      /* value: its function; see struct ctl_xrcd */
};

struct ctl_event {
    uint32_t type, value; /* value: generation, function, pid: as the type has it */
    uint64_t at_ns;       /* CLOCK_MONOTONIC */
    char device[CTL_NAME_LEN], member[CTL_NAME_LEN], old[CTL_NAME_LEN];
};

#endif
