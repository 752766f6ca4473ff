/* Route lookups against the kernel, in a namespace with a veth pair. */
#include "watch/route.h"

#include "netns.h"
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct gid gid(const char *text)
{
    struct gid g = {{[10] = 0xff, [11] = 0xff}};
    if (strchr(text, ':'))
        assert_int_equal(inet_pton(AF_INET6, text, g.raw), 1);
    else
        assert_int_equal(inet_pton(AF_INET, text, g.raw + 12), 1);
    return g;
}

static int look(struct route *r, const char *dst, uint32_t oif, struct route_answer *a)
{
    struct route_query q = {.dst = gid(dst), .oif = oif};
    return route_lookup(r, &q, a);
}

static void assert_gid(const struct gid *got, const char *want)
{
    struct gid w = gid(want);
    assert_memory_equal(got->raw, w.raw, 16);
}

static void test_lookups(void **state)
{
    (void)state;
    struct route *r;
    struct route_answer a;
    assert_int_equal(route_open(&r), 0);
    uint32_t va = if_nametoindex("va"), lo = if_nametoindex("lo");

    assert_int_equal(look(r, "10.9.0.2", 0, &a), 0);
    assert_int_equal(a.oif, va);
    assert_gid(&a.prefsrc, "10.9.0.1");
    assert_true(gid_is_zero(&a.gateway));
    assert_false(a.local);

    assert_int_equal(look(r, "10.77.0.1", 0, &a), 0);
    assert_gid(&a.gateway, "10.9.0.2");
    assert_int_equal(a.mtu, 1280);

    assert_int_equal(look(r, "10.9.0.1", 0, &a), 0);
    assert_true(a.local);
    assert_gid(&a.prefsrc, "10.9.0.1");
    assert_int_equal(a.oif, lo);

    assert_int_equal(look(r, "fd00:9::2", 0, &a), 0);
    assert_int_equal(a.oif, va);
    assert_gid(&a.prefsrc, "fd00:9::1");

    assert_int_equal(look(r, "192.0.2.1", 0, &a), -ENETUNREACH);
    assert_int_equal(look(r, "fd00:9::2", 0, &a), 0); /* an error does not spoil the next answer */

    struct gid v6 = gid("fd00:9::1");
    struct route_query mixed = {.dst = gid("10.9.0.2"), .src = &v6};
    assert_int_equal(route_lookup(r, &mixed, &a), -EINVAL);
    route_close(r);
}

static void test_neighbours(void **state)
{
    (void)state;
    struct route *r;
    uint32_t va = if_nametoindex("va");
    struct gid known = gid("10.9.0.7"), never = gid("10.9.0.8"), six = gid("fd00:9::7");
    assert_int_equal(route_open(&r), 0);
    assert_int_equal(route_neighbour(r, va, &never, NULL), 0);
    route_seek_neighbour(va, &never);
    assert_int_equal(route_neighbour(r, va, &never, NULL), 0); /* nobody answers on this link */
    assert_int_equal(system("ip neigh add 10.9.0.7 lladdr 02:00:00:00:00:07 dev va && "
                            "ip neigh add fd00:9::7 lladdr 02:00:00:00:00:07 dev va"),
                     0);
    assert_int_equal(route_neighbour(r, va, &known, NULL), 1);
    assert_int_equal(route_neighbour(r, va, &six, NULL), 1);
    assert_int_equal(route_neighbour(r, if_nametoindex("vb"), &known, NULL), 0);
    assert_int_equal(route_neighbour(r, 9999, &known, NULL), -ENODEV);
    route_close(r);
}

int main(void)
{
    if (!netns_enter()) return 77; /* skipped */
    int rc = system("ip link add va type veth peer name vb && ip link set lo up && "
                    "ip link set va up && ip link set vb up && ip addr add 10.9.0.1/24 dev va && "
                    "ip -6 addr add fd00:9::1/64 dev va nodad && "
                    "ip route add 10.77.0.0/16 via 10.9.0.2 mtu 1280");
    if (rc != 0) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lookups),
                                       cmocka_unit_test(test_neighbours)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
