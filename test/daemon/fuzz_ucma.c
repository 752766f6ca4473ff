/* The broker's commands under libFuzzer: programs that write what they like to their rdma_cm nodes,
 * over real sockets in a network namespace of their own. One device, whose address is on lo, so
 * that connections begin and end here. The input is a run of commands, most of them well formed. */
#include "../watch/netns.h"
#include "base/must.h"
#include "daemon/cmbroker.h"
#include "fuzz/bytes.h"
#include "port/port.h"
#include <net/if.h>
#include <netinet/in.h>
#include <rdma/rdma_user_cm.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PROGRAMS = 3, HANDLES = 8 };

static uv_loop_t loop;
static struct cmbroker *broker;
static struct device_state state;
static bool removed;

static struct program {
    struct cmbroker_channel *channel;
    struct ctl_cm_opened opened;
    int fd;
    uint32_t handle[HANDLES]; /* ids and groups, as they came */
    uint32_t n;
} program[PROGRAMS];

static bool device(void *ctx, size_t index, struct cmbroker_device *out)
{
    (void)ctx;
    *out = (struct cmbroker_device){"rb_test", 0x1122334455667788ull, &state};
    return index == 0 && !removed;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (!netns_enter()) {
        fprintf(stderr, "no right to make a network namespace\n");
        exit(77);
    }
    must(system("ip link set lo up && ip addr add 10.3.0.1/32 dev lo") == 0);
    state.steering = (struct steering){.generation = 1, .nmembers = 1};
    state.member_ifindex[0] = if_nametoindex("lo");
    state.mtu = 9000;
    state.gid[1] = (struct gid){{[10] = 0xff, [11] = 0xff, 10, 3, 0, 1}};
    state.gid_ifindex[1] = state.member_ifindex[0];
    return 0;
}

/* ---- what commands look like ------------------------------------------------------------ */

#define NOWHERE 0xffff

struct shape {
    uint16_t size, id, addr, size_of_addr; /* offsets in the body; NOWHERE: it has none */
};

#define SHAPE(type)                                                                                \
    {                                                                                              \
        sizeof(struct type), offsetof(struct type, id), NOWHERE, NOWHERE                           \
    }
#define TO(type, addr)                                                                             \
    {                                                                                              \
        sizeof(struct type), offsetof(struct type, id), offsetof(struct type, addr), NOWHERE       \
    }
#define SIZED(type, addr, size)                                                                    \
    {                                                                                              \
        sizeof(struct type), offsetof(struct type, id), offsetof(struct type, addr),               \
            offsetof(struct type, size)                                                            \
    }

static const struct shape shapes[] = {
    [RDMA_USER_CM_CMD_CREATE_ID] = {sizeof(struct rdma_ucm_create_id), NOWHERE, NOWHERE, NOWHERE},
    [RDMA_USER_CM_CMD_DESTROY_ID] = SHAPE(rdma_ucm_destroy_id),
    [RDMA_USER_CM_CMD_BIND_IP] = TO(rdma_ucm_bind_ip, addr),
    [RDMA_USER_CM_CMD_RESOLVE_IP] = TO(rdma_ucm_resolve_ip, dst_addr),
    [RDMA_USER_CM_CMD_RESOLVE_ROUTE] = SHAPE(rdma_ucm_resolve_route),
    [RDMA_USER_CM_CMD_QUERY_ROUTE] = SHAPE(rdma_ucm_query),
    [RDMA_USER_CM_CMD_CONNECT] = SHAPE(rdma_ucm_connect),
    [RDMA_USER_CM_CMD_LISTEN] = SHAPE(rdma_ucm_listen),
    [RDMA_USER_CM_CMD_ACCEPT] = SHAPE(rdma_ucm_accept),
    [RDMA_USER_CM_CMD_REJECT] = SHAPE(rdma_ucm_reject),
    [RDMA_USER_CM_CMD_DISCONNECT] = SHAPE(rdma_ucm_disconnect),
    [RDMA_USER_CM_CMD_INIT_QP_ATTR] = SHAPE(rdma_ucm_init_qp_attr),
    [RDMA_USER_CM_CMD_GET_EVENT] = {sizeof(struct rdma_ucm_get_event), NOWHERE, NOWHERE, NOWHERE},
    [RDMA_USER_CM_CMD_SET_OPTION] = SHAPE(rdma_ucm_set_option),
    [RDMA_USER_CM_CMD_NOTIFY] = SHAPE(rdma_ucm_notify),
    [RDMA_USER_CM_CMD_JOIN_IP_MCAST] = TO(rdma_ucm_join_ip_mcast, addr),
    [RDMA_USER_CM_CMD_LEAVE_MCAST] = SHAPE(rdma_ucm_destroy_id),
    [RDMA_USER_CM_CMD_MIGRATE_ID] = SHAPE(rdma_ucm_migrate_id),
    [RDMA_USER_CM_CMD_QUERY] = SHAPE(rdma_ucm_query),
    [RDMA_USER_CM_CMD_BIND] = SIZED(rdma_ucm_bind, addr, addr_size),
    [RDMA_USER_CM_CMD_RESOLVE_ADDR] = SIZED(rdma_ucm_resolve_addr, dst_addr, dst_size),
    [RDMA_USER_CM_CMD_JOIN_MCAST] = SIZED(rdma_ucm_join_mcast, addr, addr_size),
};
#define NCMDS (sizeof shapes / sizeof *shapes)

static size_t address(struct bytes *in, uint8_t *room)
{
    static const uint32_t hosts[] = {0x0a030001, 0, 0x7f000001, 0xef010203, 0x0a030009};
    uint8_t how = take8(in);
    struct sockaddr_in in4 = {.sin_family = AF_INET,
                              .sin_port = htons((uint16_t)(7000 + (how >> 6))),
                              .sin_addr.s_addr = htonl(hosts[how % 5])};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = in4.sin_port};
    if (how & 32) {
        in6.sin6_addr.s6_addr[0] = how & 16 ? 0xff : 0;
        memcpy(room, &in6, sizeof in6);
        return sizeof in6;
    }
    memcpy(room, &in4, sizeof in4);
    return sizeof in4;
}

static bool has_param(uint32_t cmd)
{
    return cmd == RDMA_USER_CM_CMD_CONNECT || cmd == RDMA_USER_CM_CMD_ACCEPT;
}

/* The body, and what follows it, at `body`: its length. */
static size_t compose(struct bytes *in, uint32_t cmd, const struct program *p, uint8_t *body)
{
    const struct shape *s = &shapes[cmd];
    uint8_t how = take8(in);
    size_t got, at = take16(in) % (s->size ? s->size : 1u);
    memset(body, 0, 1024);
    if (s->addr != NOWHERE && (how & 1)) {
        uint16_t size = (uint16_t)address(in, body + s->addr);
        if (s->size_of_addr != NOWHERE) memcpy(body + s->size_of_addr, &size, sizeof size);
    }
    if (cmd == RDMA_USER_CM_CMD_CREATE_ID) {
        static const uint16_t spaces[] = {RDMA_PS_TCP, RDMA_PS_UDP, RDMA_PS_IB, RDMA_PS_IPOIB};
        struct rdma_ucm_create_id create = {.uid = 1 + p->n, .ps = spaces[how >> 1 & 3]};
        create.qp_type = (uint8_t)(how >> 4);
        memcpy(body, &create, sizeof create);
    }
    if (has_param(cmd) && (how & 2))
        body[(cmd == RDMA_USER_CM_CMD_CONNECT ? offsetof(struct rdma_ucm_connect, conn_param)
                                              : offsetof(struct rdma_ucm_accept, conn_param)) +
             offsetof(struct rdma_ucm_conn_param, valid)] = 1;
    if (cmd == RDMA_USER_CM_CMD_MIGRATE_ID)
        memcpy(body + offsetof(struct rdma_ucm_migrate_id, fd),
               &program[how % PROGRAMS].opened.channel, 4);
    const uint8_t *run = take_run(in, how >> 3 & 15, &got);
    memcpy(body + at, run, got);
    if (s->id != NOWHERE && p->n && !(how & 128))
        memcpy(body + s->id, &p->handle[take8(in) % p->n], sizeof p->handle[0]);
    return s->size;
}

static void note(struct program *p, uint32_t handle)
{
    if (p->n < HANDLES)
        p->handle[p->n++] = handle;
    else
        p->handle[handle % HANDLES] = handle;
}

static void command(struct bytes *in, struct program *p)
{
    uint8_t bytes[CTL_CM_MAX_CMD + 8], reply[CTL_CM_MAX_REPLY];
    uint8_t which = take8(in);
    struct rdma_ucm_cmd_hdr hdr = {.cmd = which % (NCMDS + 1), .out = 1024};
    size_t len = hdr.cmd < NCMDS ? compose(in, hdr.cmd, p, bytes + sizeof hdr) : take8(in);
    hdr.in = (uint16_t)len;
    if (hdr.cmd == RDMA_USER_CM_CMD_SET_OPTION) { /* the value, as librbond puts it behind */
        struct rdma_ucm_set_option o;
        memcpy(&o, bytes + sizeof hdr, sizeof o);
        o.level &= 1;
        o.optname &= 7;
        o.optlen &= 7;
        memcpy(bytes + sizeof hdr, &o, sizeof o);
        memset(bytes + sizeof hdr + len, take8(in), o.optlen);
        len += o.optlen;
    }
    if (which >= 0xf0) { /* not well formed */
        hdr.in = take16(in);
        hdr.out = take8(in);
        len = take8(in);
    }
    memcpy(bytes, &hdr, sizeof hdr);
    uint8_t *exact = malloc(sizeof hdr + len);
    must(exact);
    memcpy(exact, bytes, sizeof hdr + len);
    ssize_t n = cmbroker_command(p->channel, exact, sizeof hdr + len, reply, sizeof reply);
    free(exact);
    must(n <= (ssize_t)sizeof reply);
    bool named = hdr.cmd == RDMA_USER_CM_CMD_CREATE_ID || hdr.cmd == RDMA_USER_CM_CMD_JOIN_MCAST ||
                 hdr.cmd == RDMA_USER_CM_CMD_JOIN_IP_MCAST;
    struct rdma_ucm_event_resp e;
    if (named && n == 4) {
        uint32_t handle;
        memcpy(&handle, reply, sizeof handle);
        note(p, handle);
    } else if (hdr.cmd == RDMA_USER_CM_CMD_GET_EVENT && n > 0) {
        memcpy(&e, reply, sizeof e);
        note(p, e.id);
    }
}

/* ---- programs --------------------------------------------------------------------------- */

static void open_program(struct program *p)
{
    *p = (struct program){0};
    const unsigned n = p == &program[2];
    must(cmbroker_open(broker, (pid_t)(10 + n), 1000 + n, &p->channel, &p->opened, &p->fd) == 0);
}

static void close_program(struct program *p)
{
    cmbroker_close(p->channel);
    close(p->fd);
}

static void run_loop(int n)
{
    while (n-- > 0) uv_run(&loop, UV_RUN_NOWAIT);
}

static void other(struct bytes *in, struct program *p)
{
    char token;
    switch (pick(in, 6)) {
    case 0:
        close_program(p);
        open_program(p);
        break;
    case 1:
        removed = !removed;
        cmbroker_devices_changed(broker);
        break;
    case 2: (void)!recv(p->fd, &token, 1, MSG_DONTWAIT); break;
    default: run_loop(3); break;
    }
}

/* Sockets take the kernel long to close, so a broker serves many inputs. */
static void new_broker(void)
{
    struct cmbroker_conf conf = {.loop = &loop, .device = device, .ntx = 1};
    uv_loop_init(&loop);
    conf.rx_fd = port_udp_rx_socket();
    conf.tx_fd[0] = port_udp_tx_socket();
    must(conf.rx_fd >= 0 && conf.tx_fd[0] >= 0);
    must(cmbroker_new(&broker, &conf) == 0);
}

static void end_broker(void)
{
    cmbroker_free(broker);
    uv_run(&loop, UV_RUN_DEFAULT);
    must(uv_loop_close(&loop) == 0);
    broker = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned runs;
    struct bytes in = {data, size};
    if (!broker) new_broker();
    removed = false;
    for (int i = 0; i < PROGRAMS; i++) open_program(&program[i]);
    for (int n = 0; in.left && n < 200; n++) {
        uint8_t op = take8(&in);
        struct program *p = &program[op % PROGRAMS];
        if (op < 224)
            command(&in, p);
        else
            other(&in, p);
        if (op & 64) run_loop(2);
    }
    for (int i = 0; i < PROGRAMS; i++) close_program(&program[i]);
    run_loop(3);
    if (++runs % 512 == 0) end_broker();
    return 0;
}
