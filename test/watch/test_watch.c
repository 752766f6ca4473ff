/* The link and address watcher against a real kernel, in a network namespace of its own. */
#include "netns.h"
#include "watch/ethtool.h"
#include "watch/watch.h"
#include <linux/if_arp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#define MAX 512

/* A consumer as the daemon's registry is one: tables, swept after a dump. */
struct tables {
    struct watch_link link[MAX];
    struct watch_addr addr[MAX];
    bool has_link[MAX], has_addr[MAX], seen[MAX];
    unsigned dumps;
    when_t last;
};

static void on_link(void *ctx, const struct watch_link *link, bool gone, when_t when)
{
    struct tables *t = ctx;
    assert_true(link->ifindex < MAX);
    t->link[link->ifindex] = *link;
    t->has_link[link->ifindex] = t->seen[link->ifindex] = !gone;
    t->last = when;
}

static void on_addr(void *ctx, const struct watch_addr *addr, bool gone, when_t when)
{
    struct tables *t = ctx;
    for (unsigned i = 0; i < MAX; i++) {
        if (t->has_addr[i] && t->addr[i].ifindex == addr->ifindex &&
            gid_equal(&t->addr[i].addr, &addr->addr)) {
            t->has_addr[i] = !gone;
            t->addr[i] = *addr;
            return;
        }
    }
    for (unsigned i = 0; i < MAX && !gone; i++) {
        if (t->has_addr[i]) continue;
        t->has_addr[i] = true;
        t->addr[i] = *addr;
        return;
    }
}

static void on_begin(void *ctx)
{
    struct tables *t = ctx;
    memset(t->seen, 0, sizeof t->seen);
    memset(t->has_addr, 0, sizeof t->has_addr);
}

static void on_end(void *ctx, when_t when)
{
    struct tables *t = ctx;
    t->dumps++;
    for (unsigned i = 0; i < MAX; i++) t->has_link[i] = t->has_link[i] && t->seen[i];
}

static const struct watch_ops ops = {on_link, on_addr, on_begin, on_end};

static void sh(const char *command)
{
    if (system(command) != 0) fail_msg("failed: %s", command);
}

static const struct watch_link *find(const struct tables *t, const char *name)
{
    for (unsigned i = 0; i < MAX; i++)
        if (t->has_link[i] && strcmp(t->link[i].name, name) == 0) return &t->link[i];
    return NULL;
}

static bool has_addr(const struct tables *t, uint32_t ifindex, const struct gid *gid)
{
    for (unsigned i = 0; i < MAX; i++)
        if (t->has_addr[i] && t->addr[i].ifindex == ifindex && gid_equal(&t->addr[i].addr, gid))
            return true;
    return false;
}

/* The kernel reports carrier changes from a work queue, at worst a second later. */
static void read_until_carrier(struct watch *w, struct tables *t, const char *name, bool want)
{
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(watch_read(w), 0);
        const struct watch_link *l = find(t, name);
        if (l && l->carrier == want) return;
        usleep(10000);
    }
    fail_msg("%s: carrier never became %d", name, want);
}

/* An IPv6 address is told of from a work queue, too. */
static void read_until_addr(struct watch *w, struct tables *t, uint32_t ifindex,
                            const struct gid *gid)
{
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(watch_read(w), 0);
        if (has_addr(t, ifindex, gid)) return;
        usleep(10000);
    }
    fail_msg("the address never came");
}

static struct tables tables;

static void test_life_of_a_link(void **state)
{
    struct watch *w;
    struct tables *t = &tables;
    const struct gid v4 = {{[10] = 0xff, 0xff, 10, 1, 2, 3}}, v6 = {{0xfd, [15] = 9}};

    memset(t, 0, sizeof *t);
    assert_int_equal(watch_new(&w, &ops, t), 0);
    assert_int_equal(watch_dump(w), 0);
    assert_non_null(find(t, "lo"));
    assert_int_equal(find(t, "lo")->type, ARPHRD_LOOPBACK);

    sh("ip link add va address 02:00:00:00:00:07 mtu 9000 type veth peer name vb");
    sh("ip link set va up; ip link set vb up");
    read_until_carrier(w, t, "va", true);
    const struct watch_link *va = find(t, "va");
    assert_int_equal(va->type, ARPHRD_ETHER);
    assert_string_equal(va->kind, "veth");
    assert_int_equal(va->mtu, 9000);
    assert_true(va->up && va->has_mac);
    assert_memory_equal(va->mac, "\2\0\0\0\0\7", 6);
    assert_true(t->last.ns > 0);

    sh("ip addr add 10.1.2.3/24 dev va; ip addr add fd00::9/64 dev va nodad");
    read_until_addr(w, t, va->ifindex, &v6);
    assert_true(has_addr(t, va->ifindex, &v4));
    sh("ip addr del 10.1.2.3/24 dev va");
    assert_int_equal(watch_read(w), 0);
    assert_false(has_addr(t, va->ifindex, &v4));

    sh("ip link set vb down");
    read_until_carrier(w, t, "va", false);
    assert_true(va->up);

    sh("ip link add br0 type bridge; ip link set va master br0");
    assert_int_equal(watch_read(w), 0);
    assert_string_equal(find(t, "br0")->kind, "bridge");
    assert_int_equal(va->master, find(t, "br0")->ifindex);
    sh("ip link set va nomaster");
    assert_int_equal(watch_read(w), 0);
    assert_int_equal(va->master, 0);

    sh("ip link del va; ip link del br0");
    assert_int_equal(watch_read(w), 0);
    assert_null(find(t, "va"));
    assert_null(find(t, "vb"));
    assert_null(find(t, "br0"));
    watch_free(w);
}

/* More news than the socket holds: nothing is missed in the end. */
static void test_overrun(void **state)
{
    struct watch *w;
    struct tables *t = &tables;
    int small = 2048;

    memset(t, 0, sizeof *t);
    sh("ip link add old0 type veth peer name old1");
    assert_int_equal(watch_new(&w, &ops, t), 0);
    assert_int_equal(watch_dump(w), 0);
    assert_non_null(find(t, "old0"));
    assert_int_equal(setsockopt(watch_fd(w), SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    sh("ip link del old0; for i in $(seq 20); do ip link add n$i type veth peer name m$i; done");
    while (watch_overruns(w) == 0) assert_int_equal(watch_read(w), 0);
    assert_int_equal(watch_read(w), 0);
    assert_int_equal(t->dumps, 1 + watch_overruns(w));
    assert_null(find(t, "old0"));
    for (unsigned i = 1; i <= 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%u", i);
        assert_non_null(find(t, name));
    }
    sh("for i in $(seq 20); do ip link del n$i; done");
    watch_free(w);
}

static void test_speed(void **state)
{
    sh("ip link add va type veth peer name vb");
    assert_int_equal(ethtool_speed_mbps("va"), 10000); /* what veth claims */
    assert_int_equal(ethtool_speed_mbps("lo"), 0);
    assert_int_equal(ethtool_speed_mbps("nonesuch"), 0);
    assert_int_equal(ethtool_numa_node("nonesuch", 1), NUMA_NONE);
    sh("ip link del va");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life_of_a_link),
        cmocka_unit_test(test_overrun),
        cmocka_unit_test(test_speed),
    };
    if (!netns_enter()) {
        perror("unshare");
        return 77; /* meson: skipped */
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
