/* Multicast over the UDP port: who has joined hears it, every one of them, whatever the steering
 * program would say; by the member it was sent on; the sender's host as well. */
#include "net.h"
#include "packets.h"
#include "wire/cmocka_all.h"
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#define GROUP 4

static struct port *a, *b[GROUP]; /* A's function 0; B's 0..3 */
static int rx_fd[GROUP];
static struct packets pk;

static struct gid group_of(int ipv4)
{
    if (ipv4) return (struct gid){{[10] = 0xff, [11] = 0xff, 239, 7, 7, 7}};
    return (struct gid){{0xff, 0x15, [15] = 7}};
}

static int set_up(void **state)
{
    net_enter(HOST_A);
    a = packets_port(0, HOST_A, port_udp_rx_socket(), 4);
    net_enter(HOST_B);
    for (uint16_t f = 0; f < GROUP; f++) {
        rx_fd[f] = port_udp_rx_socket();
        assert_true(rx_fd[f] >= 0);
        if (f == 0) assert_int_equal(port_udp_steer(rx_fd[f]), 0);
        assert_int_equal(port_udp_lock(rx_fd[f]), 0);
        b[f] = packets_port(f, HOST_B, rx_fd[f], 2);
    }
    packets_clear(&pk);
    return 0;
}

static int tear_down(void **state)
{
    a->ops->close(a);
    for (int f = 0; f < GROUP; f++) b[f]->ops->close(b[f]);
    return 0;
}

static void join(int f, int ipv4, const char *netdev)
{
    struct gid group = group_of(ipv4);
    assert_int_equal(port_udp_join(rx_fd[f], &group, net_ifindex(netdev)), 0);
}

static void leave(int f, int ipv4, const char *netdev)
{
    struct gid group = group_of(ipv4);
    assert_int_equal(port_udp_leave(rx_fd[f], &group, net_ifindex(netdev)), 0);
}

static void make(int ipv4, uint8_t member, size_t n)
{
    packets_clear(&pk);
    while (pk.n < n) {
        struct hca_tx *tx = packets_add(&pk, ipv4, ROCE_QPN_MULTICAST, 500, 1);
        tx->src = net_gid(ipv4, HOST_A, 0);
        tx->dst = group_of(ipv4);
        tx->member = member;
    }
}

static void send_from_a(void)
{
    net_enter(HOST_A); /* its port may want new sockets */
    assert_int_equal(a->ops->tx(a, pk.tx, pk.n), pk.n);
    net_enter(HOST_B);
}

/* All, on this member, or none. */
static void hears(int f, int ipv4, uint8_t member)
{
    struct gid group = group_of(ipv4);
    pk.arrived = 0;
    packets_receive(&pk, b[f]);
    assert_int_equal(pk.wrong, 0);
    assert_int_equal(pk.arrived, pk.n);
    assert_int_equal(pk.last.member, member);
    assert_int_equal(pk.last.hop_limit, 64);
    assert_true(gid_equal(&pk.last.dst, &group));
    assert_false(pk.last.own);
}

static void hears_nothing(int f)
{
    struct pollfd pfd = {.fd = b[f]->rx_fd, .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, 0), 0);
}

static void all_that_joined(void **state)
{
    for (int ipv4 = 0; ipv4 < 2; ipv4++) {
        join(1, ipv4, "vb0");
        join(3, ipv4, "vb0");
        make(ipv4, 0, 40);
        send_from_a();
        hears(1, ipv4, 0);
        hears(3, ipv4, 0);
        hears_nothing(0);
        hears_nothing(2);
        leave(3, ipv4, "vb0");
        make(ipv4, 0, 5);
        send_from_a();
        hears(1, ipv4, 0);
        hears_nothing(3);
        leave(1, ipv4, "vb0");
        send_from_a();
        make(ipv4, 0, 0);
        packets_receive(&pk, b[1]);
        assert_int_equal(pk.arrived, 0);
    }
    for (int f = 0; f < GROUP; f++)
        assert_int_equal(b[f]->stats.rx_foreign + b[f]->stats.rx_handed_on, 0);
}

static void by_the_member_it_was_sent_on(void **state)
{
    for (int ipv4 = 0; ipv4 < 2; ipv4++) {
        join(2, ipv4, "vb0");
        join(2, ipv4, "vb1");
        for (uint8_t member = 0; member < 2; member++) {
            make(ipv4, member, 20);
            send_from_a();
            hears(2, ipv4, member);
        }
    }
}

/* The sender's host has joined: each socket hears the sender as one of its own addresses. */
static void on_the_senders_host(void **state)
{
    for (int ipv4 = 0; ipv4 < 2; ipv4++) {
        struct gid self = net_gid(ipv4, HOST_B, 0);
        join(1, ipv4, "vb0");
        join(2, ipv4, "vb0");
        b[1]->ops->set_local(b[1], &self, 1);
        b[2]->ops->set_local(b[2], &self, 1);
        make(ipv4, 0, 10);
        for (size_t i = 0; i < pk.n; i++) pk.tx[i].src = self;
        assert_int_equal(b[1]->ops->tx(b[1], pk.tx, pk.n), pk.n);
        for (int f = 1; f < 3; f++) {
            pk.arrived = 0;
            packets_receive(&pk, b[f]);
            assert_int_equal(pk.arrived, pk.n);
            assert_int_equal(pk.wrong, 0);
            assert_true(pk.last.own);
        }
    }
}

static void link_local_group(void **state)
{
    struct gid group = {{0xff, 0x12, [15] = 3}};
    assert_int_equal(port_udp_join(rx_fd[1], &group, net_ifindex("vb1")), 0);
    assert_int_equal(port_udp_join(rx_fd[1], &group, net_ifindex("vb1")), 0); /* it is in it */
    make(0, 1, 3);
    for (size_t i = 0; i < pk.n; i++) {
        pk.tx[i].src = net_link_local(HOST_A);
        pk.tx[i].dst = group;
        pk.tx[i].hop_limit = 1;
    }
    send_from_a();
    packets_receive(&pk, b[1]);
    assert_int_equal(pk.arrived, 3);
    assert_int_equal(pk.last.hop_limit, 1);
    assert_int_equal(pk.last.member, 1);
}

/* Of a group only the multicast QPN is anybody's. */
static void another_number(void **state)
{
    for (int ipv4 = 0; ipv4 < 2; ipv4++) {
        struct gid group = group_of(ipv4);
        join(1, ipv4, "vb0");
        packets_clear(&pk);
        packets_add(&pk, ipv4, (qpn_t)2 << HCA_INDEX_BITS | 9, 100, 1)->dst = group;
        send_from_a();
        pk.n = 0;
        packets_receive(&pk, b[1]);
        assert_int_equal(pk.arrived, 0);
        assert_int_equal(b[1]->stats.rx_foreign, ipv4 + 1);
        assert_int_equal(b[1]->stats.rx_handed_on, 0);
        hears_nothing(2);
    }
}

int main(void)
{
    if (!net_up(1500)) {
        fprintf(stderr, "no right to make network namespaces: skipped\n");
        return 77;
    }
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(all_that_joined),     CASE(by_the_member_it_was_sent_on),
        CASE(on_the_senders_host), CASE(link_local_group),
        CASE(another_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
