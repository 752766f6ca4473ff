/* The UDP port between two network namespaces. Argument: the links' MTU. */
#include "base/bits.h"
#include "net.h"
#include "packets.h"
#include "wire/cmocka_all.h"
#include "wire/frame.h"
#include "wire/roce.h"
#include <arpa/inet.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FUNCTION_QPN(f, i) ((qpn_t)(f) << HCA_INDEX_BITS | (i))
#define GROUP 4

static int mtu;
static struct port *a, *b[GROUP]; /* A's function 0; B's 0..3 */
static struct packets pk;

static uint32_t full(void) { return mtu >= 9000 ? 4096 : 1024; }

static int set_up(void **state)
{
    net_enter(HOST_A);
    int fd = port_udp_rx_socket();
    assert_true(fd >= 0);
    a = packets_port(0, HOST_A, fd, 4);
    net_enter(HOST_B);
    for (uint16_t f = 0; f < GROUP; f++) {
        fd = port_udp_rx_socket();
        assert_true(fd >= 0);
        if (f == 0) assert_int_equal(port_udp_steer(fd), 0);
        assert_int_equal(port_udp_lock(fd), 0);
        b[f] = packets_port(f, HOST_B, fd, 2);
    }
    net_enter(HOST_A);
    packets_clear(&pk);
    return 0;
}

static int tear_down(void **state)
{
    a->ops->close(a);
    for (int f = 0; f < GROUP; f++) b[f]->ops->close(b[f]);
    return 0;
}

static void send_all(void) { assert_int_equal(a->ops->tx(a, pk.tx, pk.n), pk.n); }

static void all_arrive(struct port *port)
{
    packets_receive(&pk, port);
    assert_int_equal(pk.wrong, 0);
    assert_int_equal(pk.arrived, pk.n);
}

static void test_equal_packets(void **state)
{
    for (int ipv4 = 0; ipv4 < 2; ipv4++) {
        packets_clear(&pk);
        uint64_t trains = a->stats.tx_trains;
        for (int i = 0; i < 64; i++) packets_add(&pk, ipv4, 5, full(), 1 + i % 3);
        send_all();
        all_arrive(b[0]);
        assert_true(gid_equal(&pk.last.src, &pk.tx[0].src));
        assert_true(gid_equal(&pk.last.dst, &pk.tx[0].dst));
        assert_int_equal(pk.last.member, 0);
        assert_in_range(a->stats.tx_trains - trains, 1, 6); /* 15 of 4112 bytes go in 64 KiB */
    }
    assert_int_equal(a->stats.tx_packets, 128);
    assert_int_equal(b[0]->stats.rx_datagrams, 128);
    assert_true(b[0]->stats.rx_trains <= 12);
}

/* Sizes 0 to full in an order that makes and breaks trains, pads of all lengths, both links. */
static void test_unequal_packets(void **state)
{
    for (int ipv4 = 0; ipv4 < 2; ipv4++) {
        packets_clear(&pk);
        srand(7);
        for (int i = 0; i < 200; i++) {
            uint32_t len = rand() % 4 ? full() : (uint32_t)rand() % full();
            struct hca_tx *tx =
                packets_add(&pk, ipv4, 5, len, (uint8_t)(len ? 1 + rand() % 16 : 0));
            if (i >= 100)
                tx->member = 1, tx->src = net_gid(ipv4, HOST_A, 1),
                tx->dst = net_gid(ipv4, HOST_B, 1);
        }
        send_all();
        all_arrive(b[0]);
        assert_int_equal(pk.last.member, 1);
    }
    assert_int_equal(b[0]->stats.rx_icrc_errors, 0);
}

static void test_link_local(void **state)
{
    for (int member = 0; member < 2; member++) {
        packets_clear(&pk);
        for (int i = 0; i < 10; i++) {
            struct hca_tx *tx = packets_add(&pk, false, 5, 300, 1);
            tx->member = (uint8_t)member;
            tx->src = net_link_local(HOST_A);
            tx->dst = net_link_local(HOST_B);
        }
        send_all();
        all_arrive(b[0]);
        assert_int_equal(pk.last.member, member);
    }
}

static void test_class_and_hop_limit(void **state)
{
    for (int ipv4 = 0; ipv4 < 2; ipv4++) {
        const uint8_t hops[] = {64, 1, 255};
        for (int i = 0; i < 3; i++) {
            packets_clear(&pk);
            struct hca_tx *tx = packets_add(&pk, ipv4, 5, 64, 1);
            tx->hop_limit = hops[i];
            tx->traffic_class = (uint8_t)(i * 0x68); /* DSCP 0, 26, 52 */
            tx->flow_label = 0x54321;
            send_all();
            all_arrive(b[0]);
            assert_int_equal(pk.last.hop_limit, hops[i]);
            assert_int_equal(pk.last.traffic_class, i * 0x68);
        }
    }
}

/* ---- on the wire ------------------------------------------------------------------------ */

static void test_captured_frames(void **state)
{
    static uint8_t bytes[65536];
    net_enter(HOST_B);
    int capture = net_capture("vb0");
    assert_true(capture >= 0);
    net_enter(HOST_A);
    assert_true(net_no_offload("va0"));
    for (int i = 0; i < 150; i++)
        packets_add(&pk, i >= 75, 5, i % 20 == 19 ? 77 : full() - (i / 40 ? 0 : 3), 1 + i % 2)
            ->flow_label = 0x54321;
    send_all();
    all_arrive(b[0]);

    unsigned frames = 0, ids = 0;
    ssize_t n;
    while ((n = recv(capture, bytes, sizeof bytes, 0)) > 0) {
        struct frame f;
        if (!frame_open(&f, bytes, (size_t)n)) continue;
        frames++;
        assert_int_equal(f.icrc, frame_icrc(&f));
        assert_true(f.udp.sport >= ROCE_SPORT_MIN);
        assert_in_range(f.udp.len, 8 + 12 + 4, full() + 24);
        if (!gid_is_ipv4(&f.ip.dst)) {
            assert_int_equal(f.ip.flow_label, 0x54321);
            continue;
        }
        assert_true(f.ip.df);
        ids += f.ip.id != 0;
    }
    close(capture);
    assert_int_equal(frames, 150);
    assert_in_range(ids, 50, 74); /* trains of up to 20: most have an id of their own */
}

/* A plain socket on A that sends bytes as they are to B's 4791. */
static int plain_socket(bool ipv4)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(ROCE_UDP_PORT)};
    struct gid dst = net_gid(ipv4, HOST_B, 0);
    memcpy(&to.sin6_addr, dst.raw, 16);
    int fd = port_udp_tx_socket();
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static struct icrc_path path_of(int fd, bool ipv4, size_t len)
{
    struct sockaddr_in6 self;
    socklen_t n = sizeof self;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&self, &n), 0);
    return (struct icrc_path){.src = net_gid(ipv4, HOST_A, 0),
                              .dst = net_gid(ipv4, HOST_B, 0),
                              .sport = ntohs(self.sin6_port),
                              .dport = ROCE_UDP_PORT,
                              .df = true,
                              .udp_len = (uint16_t)(8 + len + ROCE_ICRC_LEN)};
}

static void finish(uint8_t *bytes, size_t len, const struct icrc_path *path)
{
    put_be32(bytes + len, __builtin_bswap32(icrc_of(path, bytes, len)));
}

static void test_corrupted(void **state)
{
    unsigned sent = 0;
    for (int ipv4 = 0; ipv4 < 2; ipv4++) {
        int fd = plain_socket(ipv4);
        packets_clear(&pk);
        for (size_t byte = 0; byte < 120; byte += 7) {
            packets_add(&pk, ipv4, 5, 100, 1);
            uint8_t bytes[200];
            memcpy(bytes, pk.expect[0], pk.expect_len[0]);
            struct icrc_path path = path_of(fd, ipv4, pk.expect_len[0]);
            finish(bytes, pk.expect_len[0], &path);
            if (byte % pk.expect_len[0] == 4) continue; /* FECN and BECN may change */
            bytes[byte % pk.expect_len[0]] ^= 0x10;
            assert_true(send(fd, bytes, pk.expect_len[0] + 4, 0) > 0);
            sent++;
        }
        const size_t lens[] = {0, 1, 4, 11, 12, 15};
        for (size_t i = 0; i < 6; i++)
            assert_int_equal(send(fd, "short short shor", lens[i], 0), lens[i]);
        close(fd);
    }
    packets_clear(&pk);
    for (int f = 0; f < GROUP; f++) packets_receive(&pk, b[f]);
    assert_int_equal(pk.arrived, 0);
    uint64_t bad = 0, short_ones = 0;
    for (int f = 0; f < GROUP; f++) {
        bad += b[f]->stats.rx_icrc_errors;
        short_ones += b[f]->stats.rx_short;
    }
    assert_int_equal(bad, sent);
    assert_int_equal(short_ones, 12);
}

/* A peer that numbers its datagrams, as rxe does: a connected socket takes ids from a counter. */
static void test_foreign_ids(void **state)
{
    int fd = plain_socket(true);
    for (unsigned i = 0; i < 50; i++) {
        packets_add(&pk, true, 5, 500, 1);
        size_t len = pk.expect_len[i];
        uint8_t bytes[600];
        memcpy(bytes, pk.expect[i], len);
        struct icrc_path path = path_of(fd, true, len);
        path.ip_id = (uint16_t)(i * 1311 + 1); /* not what is sent: nobody can see */
        finish(bytes, len, &path);
        assert_true(send(fd, bytes, len + 4, 0) > 0);
    }
    close(fd);
    all_arrive(b[0]);
    assert_int_equal(b[0]->stats.rx_icrc_errors, 0);
}

/* RoCE's UDP checksum may be 0, over IPv6, too, and rxe's is: the ICRC does its work. */
static void test_no_udp_checksum(void **state)
{
    int fd = plain_socket(false), on = 1;
    assert_int_equal(setsockopt(fd, IPPROTO_UDP, UDP_NO_CHECK6_TX, &on, sizeof on), 0);
    for (unsigned i = 0; i < 20; i++) {
        packets_add(&pk, false, 5, 500, 1);
        size_t len = pk.expect_len[i];
        uint8_t bytes[600];
        memcpy(bytes, pk.expect[i], len);
        struct icrc_path path = path_of(fd, false, len);
        finish(bytes, len, &path);
        assert_true(send(fd, bytes, len + 4, 0) > 0);
    }
    close(fd);
    all_arrive(b[0]);
    assert_int_equal(b[0]->stats.rx_icrc_errors, 0);
}

/* ---- functions -------------------------------------------------------------------------- */

static void test_steering(void **state)
{
    for (int ipv4 = 0; ipv4 < 2; ipv4++)
        for (uint16_t f = 0; f < GROUP; f++) {
            packets_clear(&pk);
            for (uint32_t i = 0; i < 20; i++)
                packets_add(&pk, ipv4, FUNCTION_QPN(f, i * 800), 200, 1);
            send_all();
            all_arrive(b[f]);
        }
    for (uint16_t f = 0; f < GROUP; f++) {
        assert_int_equal(b[f]->stats.rx_datagrams, 40);
        assert_int_equal(b[f]->stats.rx_handed_on + b[f]->stats.rx_foreign, 0);
    }
}

/* A train in which GRO has merged functions 0, 2 and 9 (of which there is none). */
static void test_handing_on(void **state)
{
    for (int ipv4 = 0; ipv4 < 2; ipv4++) {
        static uint8_t bytes[16 * 512];
        const uint16_t functions[] = {0, 2, 0, 2, 9};
        uint64_t handed = b[0]->stats.rx_handed_on;
        int fd = plain_socket(ipv4);
        size_t at = 0;
        packets_clear(&pk);
        for (uint16_t i = 0; i < 5; i++) {
            packets_add(&pk, ipv4, FUNCTION_QPN(functions[i], 1), 400, 1);
            size_t len = pk.expect_len[i];
            memcpy(bytes + at, pk.expect[i], len);
            struct icrc_path path = path_of(fd, ipv4, len);
            path.ip_id = i;
            finish(bytes + at, len, &path);
            at += len + 4;
        }
        int segment = (int)pk.expect_len[0] + 4;
        assert_int_equal(setsockopt(fd, SOL_UDP, 103 /* UDP_SEGMENT */, &segment, sizeof segment),
                         0);
        assert_true(send(fd, bytes, at, 0) > 0);
        close(fd);
        struct packets *all = malloc(sizeof *all);
        *all = pk;
        /* What function 2 is to get is the second and fourth. */
        pk.n = 2;
        memcpy(pk.expect[0], all->expect[0], 512);
        memcpy(pk.expect[1], all->expect[2], 512);
        all_arrive(b[0]);
        assert_int_equal(b[0]->stats.rx_handed_on - handed, 3);
        pk.arrived = 0;
        memcpy(pk.expect[0], all->expect[1], 512);
        memcpy(pk.expect[1], all->expect[3], 512);
        all_arrive(b[2]);
        /* The adapter must see its peer, not the loopback. */
        assert_true(gid_equal(&pk.last.src, &all->tx[0].src));
        assert_true(gid_equal(&pk.last.dst, &all->tx[0].dst));
        free(all);
        /* The one for function 9 comes to some socket by the hash, and is dropped there. */
        packets_clear(&pk);
        for (int f = 0; f < GROUP; f++) packets_receive(&pk, b[f]);
        assert_int_equal(pk.arrived, 0);
    }
    uint64_t foreign = 0;
    for (int f = 0; f < GROUP; f++) foreign += b[f]->stats.rx_foreign;
    assert_int_equal(foreign, 2);
}

static void nap(long ms) { nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL); }

/* Addresses on lo, and a route with a next hop per link to the peer's: the member decides the link,
 * not the kernel's hash. */
static void test_managed_bond(void **state)
{
    static const char *const setup[2][5] = {
        {"addr add 10.9.0.1/32 dev lo", "addr add fd09::1/128 dev lo nodad",
         "route add 10.9.0.2 nexthop via 10.7.0.2 dev va0 nexthop via 10.7.1.2 dev va1",
         "route add fd09::2 nexthop via fe80::2 dev va0 nexthop via fe80::2 dev va1", NULL},
        {"addr add 10.9.0.2/32 dev lo", "addr add fd09::2/128 dev lo nodad",
         "route add 10.9.0.1 nexthop via 10.7.0.1 dev vb0 nexthop via 10.7.1.1 dev vb1",
         "route add fd09::1 nexthop via fe80::1 dev vb0 nexthop via fe80::1 dev vb1", NULL}};
    for (int host = 0; host < 2; host++) {
        net_enter(host);
        for (int i = 0; setup[host][i]; i++) assert_true(net_ip("%s", setup[host][i]));
    }
    nap(100); /* the kernel's worker makes an IPv6 address usable */
    net_enter(HOST_A);
    for (int ipv4 = 0; ipv4 < 2; ipv4++)
        for (uint8_t i = 0; i < 32; i++) {
            packets_clear(&pk);
            struct hca_tx *tx = packets_add(&pk, ipv4, FUNCTION_QPN(i % GROUP, 1), 64, 1);
            tx->member = i / 4 % 2;
            tx->src = tx->dst = (struct gid){{0xfd, 0x09}};
            if (ipv4) tx->src = tx->dst = (struct gid){{[10] = 0xff, 0xff, 10, 9, 0}};
            tx->src.raw[15] = 1;
            tx->dst.raw[15] = 2;
            send_all();
            all_arrive(b[i % GROUP]);
            assert_int_equal(pk.last.member, tx->member);
        }
}

/* ---- what does not work ----------------------------------------------------------------- */

static void test_dead_ways(void **state)
{
    const struct port_member gone[] = {{net_ifindex("va0")}, {4711}};
    a->ops->set_members(a, gone, 2);
    packets_add(&pk, true, 5, 100, 1)->member = 1; /* no such device */
    packets_add(&pk, true, 5, 100, 1)->member = 7; /* no such member */
    packets_add(&pk, true, 5, 3000, 1);            /* too large for 1500, not for 9000 */
    packets_add(&pk, true, 5, 100, 1)->src = net_gid(true, HOST_B, 0); /* not our address */
    for (int i = 0; i < 5; i++) packets_add(&pk, false, 5, 3000, 1);
    packets_add(&pk, true, 5, 100, 1);
    send_all();
    unsigned good = mtu >= 9000 ? 7 : 1;
    assert_int_equal(a->stats.tx_errors, 10 - good);
    assert_int_equal(a->stats.tx_packets, good);
    packets_receive(&pk, b[0]);
    assert_int_equal(pk.arrived, good);
    /* An oversized train does not make the socket forget GSO. */
    uint64_t trains = a->stats.tx_trains;
    packets_clear(&pk);
    for (int i = 0; i < 10; i++) packets_add(&pk, false, 5, full(), 1);
    send_all();
    all_arrive(b[0]);
    assert_int_equal(a->stats.tx_trains - trains, 1);
}

/* SO_NO_CHECK is one way to make the kernel refuse UDP_SEGMENT, and only that. */
static void test_without_gso(void **state)
{
    int on = 1, tx_fd = port_udp_tx_socket();
    assert_true(tx_fd >= 0);
    assert_int_equal(setsockopt(tx_fd, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on), 0);
    struct port *port = port_udp_new(0, dup(a->rx_fd), &tx_fd, 1);
    const struct port_member member = {net_ifindex("va0")};
    port->ops->set_members(port, &member, 1);
    for (int i = 0; i < 30; i++) packets_add(&pk, true, 5, 1000, 1);
    for (int round = 0; round < 2; round++) {
        pk.arrived = 0;
        assert_int_equal(port->ops->tx(port, pk.tx, pk.n), pk.n);
        all_arrive(b[0]);
    }
    assert_int_equal(port->stats.tx_errors, 0);
    assert_int_equal(port->stats.tx_packets, 60);
    assert_int_equal(port->stats.tx_trains, 60);
    port->ops->close(port);
}

/* A neighbour that does not answer keeps what is sent to it queued. Its socket fills; soon its
 * packets are dropped, and those of the other member go on. */
static void test_full_socket(void **state)
{
    int small = 4096, tx_fds[2];
    for (int i = 0; i < 2; i++) {
        tx_fds[i] = port_udp_tx_socket();
        assert_int_equal(setsockopt(tx_fds[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    }
    struct port *port = port_udp_new(0, dup(a->rx_fd), tx_fds, 2);
    const struct port_member members[] = {{net_ifindex("va0")}, {net_ifindex("va1")}};
    port->ops->set_members(port, members, 2);
    for (int i = 0; i < 64; i++) {
        struct hca_tx *tx = packets_add(&pk, true, 5, 1000 + (uint32_t)i * 2 % 8, 1);
        tx->dst.raw[15] = 99;
    }
    size_t done = port->ops->tx(port, pk.tx, pk.n);
    assert_true(done < pk.n);
    assert_int_equal(port->stats.tx_would_block, 1);
    assert_true(port->tx_fd == tx_fds[0] || port->tx_fd == tx_fds[1]);
    struct pollfd pfd = {.fd = port->tx_fd, .events = POLLOUT};
    assert_int_equal(poll(&pfd, 1, 0), 0);
    nap(3);
    assert_int_equal(port->ops->tx(port, pk.tx + done, pk.n - done), pk.n - done);
    assert_int_equal(port->stats.tx_errors, pk.n - done);

    packets_clear(&pk);
    for (int i = 0; i < 3; i++) { /* same peer by hash, other member */
        struct hca_tx *tx = packets_add(&pk, true, 5, 1000, 1);
        tx->dst.raw[15] = 99;
        tx->member = 1;
        tx->src = net_gid(true, HOST_A, 1);
    }
    uint64_t errors = port->stats.tx_errors;
    assert_int_equal(port->ops->tx(port, pk.tx, 1), 1);
    assert_int_equal(port->stats.tx_errors, errors);
    port->ops->close(port);
}

/* To an address of our own: over loopback, whatever the member. */
static void test_local(void **state)
{
    net_enter(HOST_B);
    for (int ipv4 = 0; ipv4 < 2; ipv4++) {
        struct gid self = net_gid(ipv4, HOST_B, 0);
        b[1]->ops->set_local(b[1], &self, 1);
        packets_clear(&pk);
        for (int i = 0; i < 40; i++) {
            struct hca_tx *tx = packets_add(&pk, ipv4, FUNCTION_QPN(3, 2), 1000, 1);
            tx->src = self;
            tx->member = 1;
        }
        assert_int_equal(b[1]->ops->tx(b[1], pk.tx, pk.n), pk.n);
        all_arrive(b[3]);
        assert_true(gid_equal(&pk.last.src, &self));
        assert_int_equal(b[3]->stats.rx_handed_on + b[3]->stats.rx_foreign, 0);
    }
    net_enter(HOST_A);
}

int main(int argc, char **argv)
{
    mtu = argc > 1 ? atoi(argv[1]) : 1500;
    if (!net_up(mtu)) {
        fprintf(stderr, "no right to make network namespaces: skipped\n");
        return 77;
    }
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(test_equal_packets),   CASE(test_unequal_packets),
        CASE(test_link_local),      CASE(test_class_and_hop_limit),
        CASE(test_corrupted),       CASE(test_foreign_ids),
        CASE(test_steering),        CASE(test_handing_on),
        CASE(test_dead_ways),       CASE(test_without_gso),
        CASE(test_full_socket),     CASE(test_local),
        CASE(test_managed_bond),    CASE(test_captured_frames),
        CASE(test_no_udp_checksum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
