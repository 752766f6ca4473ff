/* The broker as librdmacm sees it: commands in, events out, over real sockets in a namespace of the
 * test's own. One device, whose address is on lo, so that both ends are this process. */
#include "base/bits.h"
#include "hca/hca.h"
#include "prog.h"

#include <endian.h>
#include <infiniband/ib.h>
#include <infiniband/verbs.h>
#include <net/if.h>
#include <stdlib.h>

static ssize_t set_option(struct prog *p, uint32_t id, uint32_t name, int value)
{
    struct {
        struct rdma_ucm_cmd_hdr hdr;
        struct rdma_ucm_set_option o;
        int value;
    } c = {.hdr = {.cmd = RDMA_USER_CM_CMD_SET_OPTION, .in = sizeof c.o, .out = 0},
           .o = {.id = id, .level = RDMA_OPTION_ID, .optname = name, .optlen = sizeof value},
           .value = value};
    return cmbroker_command(p->channel, &c, offsetof(__typeof__(c), value) + sizeof value, p->reply,
                            sizeof p->reply);
}

static uint32_t listener(struct prog *p, uint64_t uid)
{
    uint32_t id = create(p, uid, RDMA_PS_TCP);
    assert_int_equal(bind_to(p, id, ipv4(0, PORT)), 0);
    assert_int_equal(COMMAND(p, LISTEN, (struct rdma_ucm_listen){.id = id, .backlog = 4}), 0);
    return id;
}

static void request(struct prog *p, uint32_t id, uint32_t qpn)
{
    assert_int_equal(resolve(p, id, HERE), 0);
    expect(p, ADDR_RESOLVED);
    assert_int_equal(COMMAND(p, RESOLVE_ROUTE, (struct rdma_ucm_resolve_route){.id = id}), 0);
    expect(p, ROUTE_RESOLVED);
    struct rdma_ucm_connect c = {.id = id,
                                 .conn_param = {.qp_num = qpn,
                                                .valid = 1,
                                                .responder_resources = 3,
                                                .initiator_depth = 4,
                                                .retry_count = 7,
                                                .rnr_retry_count = 7,
                                                .private_data = "hi",
                                                .private_data_len = 2}};
    assert_int_equal(COMMAND(p, CONNECT, c), 0);
}

static ssize_t attributes(struct prog *p, uint32_t id, uint32_t qp_state,
                          struct ib_uverbs_qp_attr *a)
{
    struct rdma_ucm_init_qp_attr q = {.id = id, .qp_state = qp_state};
    ssize_t n = COMMAND(p, INIT_QP_ATTR, q);
    if (n > 0) memcpy(a, p->reply, sizeof *a);
    return n;
}

/* Both ends up; the client's uid is 1, the listener's 2, the server's 3. */
static void establish(struct prog *c, uint32_t client, struct prog *s, uint32_t *server)
{
    request(c, client, 0x111);
    struct rdma_ucm_event_resp req = expect(s, CONNECT_REQUEST);
    assert_int_equal(req.uid, 2);
    assert_int_equal(req.param.conn.qp_num, 0x111);
    assert_int_equal(req.param.conn.responder_resources, 4);
    assert_int_equal(req.param.conn.initiator_depth, 3);
    assert_int_equal(req.param.conn.private_data_len, 56);
    assert_memory_equal(req.param.conn.private_data, "hi\0", 3);
    *server = req.id;
    struct ib_uverbs_qp_attr at_server, at_client;
    assert_int_equal(attributes(s, req.id, IBV_QPS_RTR, &at_server), sizeof at_server);
    assert_int_equal(at_server.dest_qp_num, 0x111);
    assert_int_equal(attributes(s, req.id, IBV_QPS_INIT, &at_server), sizeof at_server);
    assert_int_equal(at_server.qp_access_flags,
                     IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |
                         HCA_ACCESS_FLUSH_GLOBAL | HCA_ACCESS_FLUSH_PERSISTENT);
    assert_int_equal(attributes(s, req.id, IBV_QPS_RTR, &at_server), sizeof at_server);
    struct rdma_ucm_accept a = {.id = req.id,
                                .uid = 3,
                                .conn_param = {.qp_num = 0x222,
                                               .valid = 1,
                                               .responder_resources = 4,
                                               .initiator_depth = 3,
                                               .rnr_retry_count = 7}};
    assert_int_equal(COMMAND(s, ACCEPT, a), 0);
    assert_int_equal(attributes(c, client, IBV_QPS_RTR, &at_client),
                     -EINVAL); /* not yet answered */
    assert_int_equal(expect(c, CONNECT_RESPONSE).param.conn.qp_num, 0x222);
    assert_int_equal(attributes(c, client, IBV_QPS_RTS, &at_client), sizeof at_client);
    assert_int_equal(at_client.sq_psn, at_server.rq_psn);
    assert_int_equal(at_client.timeout, 17);
    assert_int_equal(attributes(c, client, IBV_QPS_RTR, &at_client), sizeof at_client);
    assert_int_equal(at_client.path_mtu, IBV_MTU_4096);
    assert_int_equal(at_client.ah_attr.grh.sgid_index, 1);
    assert_int_equal(at_client.ah_attr.is_global, 1);
    assert_int_equal(at_client.max_dest_rd_atomic, 3);
    assert_int_equal(COMMAND(c, ACCEPT, (struct rdma_ucm_accept){.id = client}), 0);
    assert_int_equal(expect(s, ESTABLISHED).uid, 3);
}

/* ---- tests
 * ---------------------------------------------------------------------------------------- */

static void test_life(void **st)
{
    (void)st;
    struct prog c, s;
    uint32_t server;
    open_prog(&c, 10);
    open_prog(&s, 11);
    uint32_t l = listener(&s, 2), client = create(&c, 1, RDMA_PS_TCP);
    establish(&c, client, &s, &server);

    struct rdma_ucm_query_route_resp r;
    assert_int_equal(COMMAND(&c, QUERY_ROUTE, (struct rdma_ucm_query){.id = client}), sizeof r);
    memcpy(&r, c.reply, sizeof r);
    assert_int_equal(get_be64(&r.node_guid), GUID);
    assert_int_equal(r.num_paths, 1);
    assert_int_equal(r.port_num, 1);
    assert_int_equal(r.src_addr.sin6_family, AF_INET);
    assert_int_not_equal(r.src_addr.sin6_port, 0);
    assert_memory_equal(r.ib_route[0].sgid, state.gid[1].raw, 16);

    assert_int_equal(COMMAND(&c, DISCONNECT, (struct rdma_ucm_disconnect){.id = client}), 0);
    assert_int_equal(expect(&s, DISCONNECTED).uid, 3);
    expect_none(&c);
    assert_int_equal(COMMAND(&s, DISCONNECT, (struct rdma_ucm_disconnect){.id = server}), 0);
    assert_int_equal(expect(&c, DISCONNECTED).uid, 1);
    expect(&c, TIMEWAIT_EXIT);
    expect(&s, TIMEWAIT_EXIT);
    /* What librdmacm waits for before it frees an id. */
    assert_int_equal(destroy(&c, client), 5);
    assert_int_equal(destroy(&s, server), 3);
    assert_int_equal(destroy(&s, l), 1);
    close_prog(&c);
    close_prog(&s);
}

static void test_tokens_of_dropped_events(void **st)
{
    (void)st;
    struct prog p;
    char token;
    open_prog(&p, 10);
    uint32_t a = create(&p, 1, RDMA_PS_TCP), b = create(&p, 2, RDMA_PS_TCP);
    assert_int_equal(resolve(&p, a, HERE), 0);
    assert_int_equal(resolve(&p, b, HERE), 0);
    assert_int_equal(destroy(&p, a), 0);
    assert_int_equal(expect(&p, ADDR_RESOLVED).uid, 2);
    expect_none(&p);
    /* The program has the token in its hand when the event goes. */
    uint32_t d = create(&p, 4, RDMA_PS_TCP);
    assert_int_equal(resolve(&p, d, HERE), 0);
    assert_int_equal(read(p.fd, &token, 1), 1);
    assert_int_equal(destroy(&p, d), 0);
    expect_none(&p);
    uint32_t e = create(&p, 5, RDMA_PS_TCP);
    assert_int_equal(resolve(&p, e, HERE), 0);
    assert_int_equal(expect(&p, ADDR_RESOLVED).uid, 5);
    expect_none(&p);
    close_prog(&p);
}

static void test_more_events_than_the_socket_holds(void **st)
{
    (void)st;
    enum { MANY = 3000 };
    struct prog p;
    open_prog(&p, 10);
    for (uint64_t i = 1; i <= MANY; i++)
        assert_int_equal(resolve(&p, create(&p, i, RDMA_PS_TCP), HERE), 0);
    for (uint64_t i = 1; i <= MANY; i++) assert_int_equal(expect(&p, ADDR_RESOLVED).uid, i);
    expect_none(&p);
    close_prog(&p);
}

/* rbondd's loop does nothing else while it clears up after a program. */
static void test_many_ids_go_at_once(void **st)
{
    (void)st;
    enum { MANY = 40000 };
    struct prog p;
    open_prog(&p, 10);
    for (uint64_t i = 1; i <= MANY; i++)
        assert_int_equal(resolve(&p, create(&p, i, i & 1 ? RDMA_PS_TCP : RDMA_PS_UDP), 0), 0);
    when_t began = {(uint64_t)uv_hrtime()};
    close_prog(&p);
    uint64_t took = (uint64_t)uv_hrtime() - began.ns;
    print_message("%d ids gone in %llu ms\n", MANY, (unsigned long long)(took / MS_NS));
    assert_true(took < SEC_NS);
}

static void test_program_dies(void **st)
{
    (void)st;
    struct prog c, s;
    uint32_t server;
    open_prog(&c, 10);
    open_prog(&s, 11);
    listener(&s, 2);
    establish(&c, create(&c, 1, RDMA_PS_TCP), &s, &server);
    close_prog(&c);
    assert_int_equal(expect(&s, DISCONNECTED).uid, 3);
    close_prog(&s);
}

static void test_request_nobody_fetched(void **st)
{
    (void)st;
    struct prog c, s;
    open_prog(&c, 10);
    open_prog(&s, 11);
    uint32_t l = listener(&s, 2);
    request(&c, create(&c, 1, RDMA_PS_TCP), 0x111);
    for (int i = 0; i < 200 && !readable(s.fd); i++) uv_run(&loop, UV_RUN_NOWAIT);
    assert_true(readable(s.fd));
    assert_int_equal(destroy(&s, l), 0);
    assert_false(readable(s.fd));
    assert_int_equal(expect(&c, REJECTED).status, 8);
    request(&c, create(&c, 1, RDMA_PS_TCP), 0x112); /* nobody listens now */
    assert_int_equal(expect(&c, REJECTED).status, 8);
    close_prog(&c);
    close_prog(&s);
}

static void test_migrate(void **st)
{
    (void)st;
    struct prog a, b, stranger;
    open_prog(&a, 10);
    open_prog(&b, 10);
    open_prog(&stranger, 11);
    uint32_t id = create(&a, 1, RDMA_PS_TCP);
    assert_int_equal(resolve(&a, id, HERE), 0);
    struct rdma_ucm_migrate_id m = {.id = id, .fd = a.opened.channel};
    assert_int_equal(COMMAND(&stranger, MIGRATE_ID, m), -EINVAL);
    assert_int_equal(COMMAND(&b, MIGRATE_ID, m), 4);
    expect_none(&a);
    assert_int_equal(expect(&b, ADDR_RESOLVED).uid, 1);
    assert_int_equal(COMMAND(&a, DESTROY_ID, (struct rdma_ucm_destroy_id){.id = id}), -ENOENT);
    assert_int_equal(destroy(&b, id), 1);
    close_prog(&a);
    close_prog(&b);
    close_prog(&stranger);
}

/* A listener's requests go with it, also those that nobody has fetched. */
static void test_migrate_with_requests(void **st)
{
    (void)st;
    struct prog a, b, c;
    open_prog(&a, 10);
    open_prog(&b, 10);
    open_prog(&c, 11);
    uint32_t l = listener(&a, 2), client = create(&c, 1, RDMA_PS_TCP);
    request(&c, client, 0x111);
    for (int i = 0; i < 200 && !readable(a.fd); i++) uv_run(&loop, UV_RUN_NOWAIT);
    assert_true(readable(a.fd));
    struct rdma_ucm_migrate_id m = {.id = l, .fd = a.opened.channel};
    assert_int_equal(COMMAND(&b, MIGRATE_ID, m), 4);
    close_prog(&a);
    struct rdma_ucm_event_resp req = expect(&b, CONNECT_REQUEST);
    assert_int_equal(req.uid, 2);
    struct ib_uverbs_qp_attr attr;
    assert_int_equal(attributes(&b, req.id, IBV_QPS_RTR, &attr), sizeof attr);
    assert_int_equal(attr.dest_qp_num, 0x111);
    close_prog(&b);
    assert_int_equal(expect(&c, REJECTED).uid, 1);
    close_prog(&c);
}

static void test_ports(void **st)
{
    (void)st;
    struct prog p;
    open_prog(&p, 10);
    listener(&p, 2);
    uint32_t id = create(&p, 3, RDMA_PS_TCP);
    assert_int_equal(bind_to(&p, id, ipv4(HERE, PORT)), -EADDRNOTAVAIL); /* a wildcard has it */
    assert_int_equal(bind_to(&p, create(&p, 4, RDMA_PS_UDP), ipv4(HERE, PORT)), 0);
    assert_int_equal(bind_to(&p, id, ipv4(HERE, PORT + 1)), 0);
    assert_int_equal(bind_to(&p, id, ipv4(HERE, PORT + 2)), -EINVAL); /* bound already */
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};
    assert_int_equal(bind_to(&p, create(&p, 5, RDMA_PS_TCP), six), -EADDRNOTAVAIL);
    assert_int_equal(bind_to(&p, create(&p, 6, RDMA_PS_TCP), ipv4(HERE, PORT + 1)), -EADDRINUSE);
    id = create(&p, 7, RDMA_PS_TCP);
    assert_int_equal(set_option(&p, id, RDMA_OPTION_ID_AFONLY, 1), 0);
    assert_int_equal(bind_to(&p, id, six), 0); /* IPv4's listener wants no IPv6, nor this IPv4 */
    close_prog(&p);
}

/* Shared while nobody listens; who listens has it alone. */
static ssize_t bind_ib(struct prog *p, uint32_t id, uint8_t gid_byte, uint64_t sid, uint64_t mask)
{
    struct sockaddr_ib ib = {
        .sib_family = AF_IB, .sib_sid = htobe64(sid), .sib_sid_mask = htobe64(mask)};
    struct rdma_ucm_bind b = {.id = id, .addr_size = sizeof ib};
    ib.sib_addr.sib_raw[0] = gid_byte;
    memcpy(&b.addr, &ib, sizeof ib);
    return COMMAND(p, BIND, b);
}

/* By such a bind librdmacm finds out whether the family is known. */
static void test_infiniband_addresses(void **st)
{
    (void)st;
    struct prog p;
    struct rdma_ucm_query_addr_resp r;
    struct sockaddr_ib ib;
    const uint64_t space = 0xffffffffffff0000;
    open_prog(&p, 10);
    struct rdma_ucm_create_id c = {.uid = 1, .ps = RDMA_PS_IB, .qp_type = IBV_QPT_RC};
    assert_int_equal(COMMAND(&p, CREATE_ID, c), 4);
    uint32_t id;
    memcpy(&id, p.reply, sizeof id);
    assert_int_equal(bind_ib(&p, id, 0xfe, 0x1060000, space), -ENODEV);
    assert_int_equal(bind_ib(&p, id, 0, 0x1070000, space), -EPROTONOSUPPORT);
    assert_int_equal(bind_ib(&p, id, 0, 0x1060000 | PORT, UINT64_MAX), 0);
    struct rdma_ucm_query q = {.id = id, .option = RDMA_USER_CM_QUERY_ADDR};
    assert_true(COMMAND(&p, QUERY, q) > 0);
    memcpy(&r, p.reply, sizeof r);
    assert_int_equal(r.src_size, sizeof ib);
    memcpy(&ib, &r.src_addr, sizeof ib);
    assert_int_equal(ib.sib_family, AF_IB);
    assert_int_equal(be64toh(ib.sib_sid), 0x1060000 | PORT);
    q.option = RDMA_USER_CM_QUERY_GID;
    assert_true(COMMAND(&p, QUERY, q) > 0);
    /* the number is taken in the space that the service id named */
    assert_int_equal(bind_to(&p, create(&p, 2, RDMA_PS_TCP), ipv4(HERE, PORT)), -EADDRNOTAVAIL);
    assert_int_equal(bind_to(&p, create(&p, 2, RDMA_PS_UDP), ipv4(HERE, PORT)), 0);
    assert_int_equal(bind_ib(&p, create(&p, 3, RDMA_PS_TCP), 0, 0x1110000, space),
                     -EPROTONOSUPPORT);
    close_prog(&p);
}

static void test_reuseaddr(void **st)
{
    (void)st;
    struct prog p;
    open_prog(&p, 10);
    uint32_t id[3];
    for (int i = 0; i < 3; i++) {
        id[i] = create(&p, 1, RDMA_PS_TCP);
        assert_int_equal(set_option(&p, id[i], RDMA_OPTION_ID_REUSEADDR, 1), 0);
        if (i < 2) assert_int_equal(bind_to(&p, id[i], ipv4(HERE, PORT)), 0);
    }
    struct rdma_ucm_listen listen = {.id = id[0], .backlog = 4};
    assert_int_equal(COMMAND(&p, LISTEN, listen), -EADDRINUSE);
    destroy(&p, id[1]);
    assert_int_equal(COMMAND(&p, LISTEN, listen), 0);
    assert_int_equal(set_option(&p, id[0], RDMA_OPTION_ID_REUSEADDR, 1), -EINVAL);
    assert_int_equal(bind_to(&p, id[2], ipv4(HERE, PORT)), -EADDRINUSE);
    close_prog(&p);
}

/* Numbers from the ephemeral range, each once. */
static void test_any_port(void **st)
{
    (void)st;
    struct prog p;
    open_prog(&p, 10);
    static bool seen[65536];
    for (int i = 0; i < 500; i++) {
        uint32_t id = create(&p, 1, RDMA_PS_TCP);
        assert_int_equal(bind_to(&p, id, ipv4(i & 1 ? HERE : 0, 0)), 0);
        struct rdma_ucm_query q = {.id = id, .option = RDMA_USER_CM_QUERY_ADDR};
        assert_true(COMMAND(&p, QUERY, q) > 0);
        struct rdma_ucm_query_addr_resp r;
        memcpy(&r, p.reply, sizeof r);
        uint16_t port = ntohs(((struct sockaddr_in *)&r.src_addr)->sin_port);
        assert_in_range(port, 1024, 65535);
        assert_false(seen[port]);
        seen[port] = true;
    }
    close_prog(&p);
}

/* The next hop's link address must be known within the program's time. */
static void test_neighbours(void **st)
{
    (void)st;
    struct prog p;
    open_prog(&p, 10);
    uint32_t id = create(&p, 1, RDMA_PS_TCP), va = if_nametoindex("va");
    assert_int_equal(resolve(&p, id, NEAR), 0);
    assert_int_equal((int)expect(&p, ADDR_ERROR).status, -ENODEV); /* va has no device */
    struct device_state before = state;
    state.gid[2] = (struct gid){{[10] = 0xff, [11] = 0xff, 10, 4, 0, 1}};
    state.gid_ifindex[2] = va;
    state.member_ifindex[0] = va;
    struct rdma_ucm_resolve_ip r = {.id = id, .dst_addr = ipv4(NEAR, PORT), .timeout_ms = 30};
    when_t began = {(uint64_t)uv_hrtime()};
    assert_int_equal(COMMAND(&p, RESOLVE_IP, r), 0);
    assert_int_equal((int)expect(&p, ADDR_ERROR).status, -ETIMEDOUT);
    assert_true((uint64_t)uv_hrtime() - began.ns >= 29 * MS_NS);
    r.timeout_ms = 5000;
    assert_int_equal(COMMAND(&p, RESOLVE_IP, r), 0);
    expect_none(&p);
    assert_int_equal(COMMAND(&p, RESOLVE_IP, r), -EINVAL); /* under way */
    assert_int_equal(system("ip neigh replace 10.4.0.9 lladdr 02:00:00:00:00:09 dev va"), 0);
    expect(&p, ADDR_RESOLVED);
    uint32_t late = create(&p, 2, RDMA_PS_TCP);
    r.id = late;
    r.dst_addr = ipv4(NEAR + 1, PORT);
    assert_int_equal(COMMAND(&p, RESOLVE_IP, r), 0);
    assert_int_equal(destroy(&p, late), 0); /* while it looks */
    expect_none(&p);
    state = before;
    close_prog(&p);
}

#define LOCALHOST 0x7f000001u

/* As libfabric does when it looks for what it could listen on, and qperf and rping do to 127.0.0.1.
 */
static void test_loopback_is_any_address(void **st)
{
    (void)st;
    struct prog p;
    open_prog(&p, 10);
    uint32_t id = create(&p, 1, RDMA_PS_TCP);
    assert_int_equal(bind_to(&p, id, ipv4(LOCALHOST, PORT)), 0);
    assert_int_equal(bind_to(&p, create(&p, 2, RDMA_PS_TCP), ipv4(HERE, PORT)), -EADDRNOTAVAIL);
    struct sockaddr_in6 six = {
        .sin6_family = AF_INET6, .sin6_port = htons(PORT + 1), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    assert_int_equal(bind_to(&p, create(&p, 3, RDMA_PS_TCP), six), 0);
    assert_int_equal(COMMAND(&p, LISTEN, (struct rdma_ucm_listen){.id = id, .backlog = 4}), 0);
    static const uint32_t here[] = {0, LOCALHOST, HERE};
    for (size_t i = 0; i < sizeof here / sizeof *here; i++) {
        uint32_t client = create(&p, 4, RDMA_PS_TCP);
        assert_int_equal(resolve(&p, client, here[i]), 0);
        expect(&p, ADDR_RESOLVED);
        destroy(&p, client);
    }
    close_prog(&p);
}

/* A program that asks and asks does not have rbondd keep answers without end. */
static void test_events_nobody_fetches(void **st)
{
    (void)st;
    struct prog p;
    open_prog(&p, 10);
    uint32_t id = create(&p, 1, RDMA_PS_TCP);
    int n = 0;
    while (n < 5000 && resolve(&p, id, NEAR) == 0) n++; /* va has no device */
    assert_in_range(n, 2, 4000);
    assert_int_equal(resolve(&p, id, NEAR), -ENOMEM);
    assert_int_equal((int)expect(&p, ADDR_ERROR).status, -ENODEV);
    assert_int_equal(resolve(&p, id, NEAR), 0);
    close_prog(&p);
}

static void test_refusals(void **st)
{
    (void)st;
    struct prog p, q;
    open_prog(&p, 10);
    open_prog(&q, 11);
    uint32_t id = create(&p, 1, RDMA_PS_TCP);
    assert_int_equal(resolve(&q, id, HERE), -ENOENT); /* another channel's */
    assert_int_equal(resolve(&p, id, 0xc0000201), -ENETUNREACH);
    assert_int_equal(bind_to(&p, create(&p, 2, RDMA_PS_TCP), ipv4(0xc0000201, 1)), -EADDRNOTAVAIL);
    assert_int_equal(bind_to(&p, create(&p, 2, RDMA_PS_TCP), ipv4(0x0a040001, 1)), -ENODEV);
    struct sockaddr_in6 link_local = {.sin6_family = AF_INET6,
                                      .sin6_addr = {{{0xfe, 0x80, [15] = 1}}}};
    assert_int_equal(bind_to(&p, create(&p, 2, RDMA_PS_TCP), link_local), -EINVAL);
    struct sockaddr_in6 ib = {.sin6_family = AF_IB};
    assert_int_equal(bind_to(&p, create(&p, 2, RDMA_PS_TCP), ib), -EINVAL); /* has no room */
    struct sockaddr_in6 none = {.sin6_family = AF_UNIX};
    assert_int_equal(bind_to(&p, create(&p, 2, RDMA_PS_TCP), none), -EAFNOSUPPORT);
    assert_int_equal(COMMAND(&p, CREATE_ID, (struct rdma_ucm_create_id){.ps = RDMA_PS_IB}),
                     -EINVAL);
    assert_int_equal(COMMAND(&p, CREATE_ID, (struct rdma_ucm_create_id){.ps = RDMA_PS_IPOIB}),
                     -EOPNOTSUPP);
    assert_int_equal(COMMAND(&p, CONNECT, (struct rdma_ucm_connect){.id = id}), -EINVAL);
    assert_int_equal(COMMAND(&p, GET_OPTION, (struct rdma_ucm_set_option){.id = id}), -ENOSYS);
    assert_int_equal(command_of(&p, 99, "", 0), -EINVAL);
    assert_int_equal(command_of(&p, RDMA_USER_CM_CMD_CONNECT, "", 0), -EINVAL);
    uint8_t lie[16] = {[4] = 200};
    assert_int_equal(cmbroker_command(p.channel, lie, sizeof lie, p.reply, sizeof p.reply),
                     -EINVAL);
    assert_int_equal(cmbroker_command(p.channel, lie, 3, p.reply, sizeof p.reply), -EINVAL);
    close_prog(&p);
    close_prog(&q);
}

static void test_device_goes(void **st)
{
    (void)st;
    struct prog p;
    open_prog(&p, 10);
    uint32_t id = create(&p, 1, RDMA_PS_TCP);
    assert_int_equal(bind_to(&p, id, ipv4(HERE, PORT)), 0);
    removed = true;
    cmbroker_devices_changed(broker);
    cmbroker_devices_changed(broker);
    removed = false;
    assert_int_equal(expect(&p, DEVICE_REMOVAL).uid, 1);
    expect_none(&p);
    close_prog(&p);
}

/* ---- nonsense
 * --------------------------------------------------------------------------------------- */

static uint32_t rnd(void)
{
    static uint64_t s = 7;
    s = s * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(s >> 33);
}

static void nonsense(struct prog *p, uint32_t handle)
{
    uint8_t bytes[CTL_CM_MAX_CMD];
    struct rdma_ucm_cmd_hdr hdr = {.cmd = rnd() % 24, .out = rnd() % 8 ? 1024 : (uint16_t)rnd()};
    size_t len = rnd() % 4 ? 400 + rnd() % 400 : rnd() % 1000;
    hdr.in = (uint16_t)(rnd() % 8 ? len : rnd());
    for (size_t i = 0; i < sizeof hdr + len; i++) bytes[i] = rnd() % 3 ? 0 : (uint8_t)rnd();
    memcpy(bytes, &hdr, sizeof hdr);
    /* Where commands have their id: at 0, 8, 36, 56, 280, 284. */
    static const size_t at[] = {0, 8, 36, 56, 272, 280, 284};
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++)
        if (at[i] + 4 <= len && rnd() % 2)
            memcpy(bytes + sizeof hdr + at[i], &handle, sizeof handle);
    struct sockaddr_in6 addr = ipv4(rnd() % 2 ? HERE : 0, rnd() % 2 ? PORT : 0);
    size_t where = (size_t[]){8, 0, 28, 16}[rnd() % 4];
    if (rnd() % 2 && where + sizeof addr <= len)
        memcpy(bytes + sizeof hdr + where, &addr, sizeof addr);
    cmbroker_command(p->channel, bytes, sizeof hdr + len, p->reply, sizeof p->reply);
}

static void test_nonsense(void **st)
{
    (void)st;
    struct prog p[2];
    for (int round = 0; round < 20; round++) {
        uint32_t id[8];
        for (int i = 0; i < 2; i++) open_prog(&p[i], 10 + i);
        for (int i = 0; i < 8; i++) id[i] = create(&p[i & 1], 1 + (uint64_t)i, RDMA_PS_TCP);
        for (int i = 0; i < 2000; i++) {
            nonsense(&p[rnd() % 2], id[rnd() % 8]);
            if (rnd() % 8 == 0) uv_run(&loop, UV_RUN_NOWAIT);
        }
        for (int i = 0; i < 2; i++) close_prog(&p[i]);
    }
}

int main(void)
{
    int rc = prog_network();
    if (rc) return rc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_tokens_of_dropped_events),
        cmocka_unit_test(test_more_events_than_the_socket_holds),
        cmocka_unit_test(test_many_ids_go_at_once),
        cmocka_unit_test(test_program_dies),
        cmocka_unit_test(test_request_nobody_fetched),
        cmocka_unit_test(test_migrate),
        cmocka_unit_test(test_migrate_with_requests),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_infiniband_addresses),
        cmocka_unit_test(test_reuseaddr),
        cmocka_unit_test(test_any_port),
        cmocka_unit_test(test_neighbours),
        cmocka_unit_test(test_loopback_is_any_address),
        cmocka_unit_test(test_events_nobody_fetches),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_device_goes),
        cmocka_unit_test(test_nonsense),
    };
    return cmocka_run_group_tests(tests, prog_set_up, prog_tear_down);
}
