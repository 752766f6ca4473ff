/* See prog.h. */
#include "prog.h"
#include "port/port.h"

#include "../watch/netns.h"
#include <net/if.h>
#include <stdlib.h>

uv_loop_t loop;
struct cmbroker *broker;
struct device_state state;
bool removed;

static bool device(void *ctx, size_t index, struct cmbroker_device *out)
{
    (void)ctx;
    *out = (struct cmbroker_device){"rb_test", GUID, &state};
    return index == 0 && !removed;
}

int open_prog_of(struct prog *p, pid_t pid, uid_t uid)
{
    return cmbroker_open(broker, pid, uid, &p->channel, &p->opened, &p->fd);
}

void open_prog(struct prog *p, pid_t pid) { assert_int_equal(open_prog_of(p, pid, 0), 0); }

void close_prog(struct prog *p)
{
    cmbroker_close(p->channel);
    close(p->fd);
}

ssize_t command_of(struct prog *p, uint32_t cmd, const void *body, size_t in)
{
    uint8_t bytes[CTL_CM_MAX_CMD];
    struct rdma_ucm_cmd_hdr hdr = {.cmd = cmd, .in = (uint16_t)in, .out = 1024};
    memcpy(bytes, &hdr, sizeof hdr);
    memcpy(bytes + sizeof hdr, body, in);
    return cmbroker_command(p->channel, bytes, sizeof hdr + in, p->reply, sizeof p->reply);
}

bool readable(int fd)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    return poll(&pfd, 1, 0) == 1;
}

struct rdma_ucm_event_resp expect(struct prog *p, uint32_t type)
{
    struct rdma_ucm_event_resp e;
    char token;
    for (int i = 0; i < 10000 && !readable(p->fd); i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_true(readable(p->fd));
    assert_int_equal(read(p->fd, &token, 1), 1);
    assert_int_equal(COMMAND(p, GET_EVENT, (struct rdma_ucm_get_event){0}), sizeof e);
    memcpy(&e, p->reply, sizeof e);
    assert_int_equal(e.event, type);
    return e;
}

void expect_none(struct prog *p)
{
    for (int i = 0; i < 5; i++) uv_run(&loop, UV_RUN_NOWAIT);
    assert_false(readable(p->fd));
    assert_int_equal(COMMAND(p, GET_EVENT, (struct rdma_ucm_get_event){0}), -EAGAIN);
}

uint32_t create(struct prog *p, uint64_t uid, uint16_t ps)
{
    uint32_t id;
    assert_int_equal(COMMAND(p, CREATE_ID, (struct rdma_ucm_create_id){.uid = uid, .ps = ps}), 4);
    memcpy(&id, p->reply, sizeof id);
    return id;
}

uint32_t destroy(struct prog *p, uint32_t id)
{
    uint32_t reported;
    assert_int_equal(COMMAND(p, DESTROY_ID, (struct rdma_ucm_destroy_id){.id = id}), 4);
    memcpy(&reported, p->reply, sizeof reported);
    return reported;
}

struct sockaddr_in6 ipv4(uint32_t addr, uint16_t port)
{
    struct sockaddr_in6 room = {0};
    struct sockaddr_in *in = (struct sockaddr_in *)&room;
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    in->sin_addr.s_addr = htonl(addr);
    return room;
}

ssize_t bind_to(struct prog *p, uint32_t id, struct sockaddr_in6 addr)
{
    return COMMAND(p, BIND_IP, (struct rdma_ucm_bind_ip){.id = id, .addr = addr});
}

ssize_t resolve(struct prog *p, uint32_t id, uint32_t addr)
{
    struct rdma_ucm_resolve_ip r = {.id = id, .dst_addr = ipv4(addr, PORT), .timeout_ms = 2000};
    return COMMAND(p, RESOLVE_IP, r);
}

/* ---- set-up ------------------------------------------------------------------------------ */

int prog_network(void)
{
    if (!netns_enter()) return 77; /* skipped */
    return system("ip link set lo up && ip addr add 10.3.0.1/32 dev lo && "
                  "ip link add va type veth peer name vb && ip link set va up && "
                  "ip link set vb up && ip addr add 10.4.0.1/24 dev va") != 0;
}

int prog_set_up(void **st)
{
    (void)st;
    state.steering = (struct steering){.generation = 1, .nmembers = 1};
    state.member_ifindex[0] = if_nametoindex("lo");
    state.mtu = 9000;
    state.gid[1] = (struct gid){{[10] = 0xff, [11] = 0xff, 10, 3, 0, 1}};
    state.gid_ifindex[1] = state.member_ifindex[0];
    uv_loop_init(&loop);
    struct cmbroker_conf conf = {.loop = &loop, .device = device, .ntx = 1};
    conf.rx_fd = port_udp_rx_socket();
    conf.tx_fd[0] = port_udp_tx_socket();
    assert_true(conf.rx_fd >= 0 && conf.tx_fd[0] >= 0);
    return cmbroker_new(&broker, &conf);
}

int prog_tear_down(void **st)
{
    (void)st;
    cmbroker_free(broker);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}
