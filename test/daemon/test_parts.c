/* The daemon's pure parts: GID slots, the configuration, one device's page. */
#include "daemon/conf.h"
#include "daemon/functions.h"
#include "daemon/owners.h"
#include <errno.h>
#include <linux/if_addr.h>
#include <net/if_arp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

/* ---- GIDs -------------------------------------------------------------------------------- */

static struct gid v4(uint8_t last) { return (struct gid){{[10] = 0xff, 0xff, 10, 0, 0, last}}; }

static struct gid v6(uint8_t first, uint8_t last)
{
    struct gid g = {{first, [15] = last}};
    if (first == 0xfe) g.raw[1] = 0x80;
    return g;
}

static void put(struct netdevs *nds, uint32_t ifindex, struct gid addr, uint32_t flags)
{
    struct watch_addr a = {.ifindex = ifindex, .addr = addr, .flags = flags};
    netdevs_addr(nds, &a, false);
}

static void take(struct netdevs *nds, uint32_t ifindex, struct gid addr)
{
    struct watch_addr a = {.ifindex = ifindex, .addr = addr};
    netdevs_addr(nds, &a, true);
}

static struct netdev *link_up(struct netdevs *nds, uint32_t ifindex, const char *name,
                              uint16_t type)
{
    struct watch_link l = {.ifindex = ifindex,
                           .type = type,
                           .mtu = 1500,
                           .up = true,
                           .carrier = true,
                           .has_mac = true,
                           .mac = {2, 0, 0, 0, 0, (uint8_t)ifindex}};
    strncpy(l.name, name, sizeof l.name - 1);
    return netdevs_link(nds, &l, false);
}

static void slot_is(const struct gid_table *t, unsigned i, struct gid want)
{
    assert_true(gid_equal(&t->slot[i], &want));
}

static void test_gid_slots(void **state)
{
    struct netdevs nds;
    struct gid_table t = {0};
    const struct gid none = {{0}};

    netdevs_init(&nds);
    struct netdev *nd = link_up(&nds, 5, "nil5", ARPHRD_ETHER);
    put(&nds, 5, v4(1), 0);
    put(&nds, 5, v6(0xfe, 1), IFA_F_TENTATIVE);
    put(&nds, 5, v6(0xfd, 1), IFA_F_DADFAILED);
    assert_true(gids_update(&t, nd));
    assert_false(gids_update(&t, nd));
    slot_is(&t, 0, none);
    slot_is(&t, 1, v4(1));
    assert_int_equal(gids_count(&t), 1);

    put(&nds, 5, v6(0xfe, 1), 0); /* duplicate detection has ended */
    put(&nds, 5, v4(2), 0);
    put(&nds, 5, v4(3), 0);
    assert_true(gids_update(&t, nd));
    slot_is(&t, 0, v6(0xfe, 1));
    slot_is(&t, 2, v4(2));
    slot_is(&t, 3, v4(3));

    /* gone: the others hold still; back: where it was, even if another came meanwhile */
    take(&nds, 5, v4(2));
    assert_true(gids_update(&t, nd));
    slot_is(&t, 2, none);
    put(&nds, 5, v4(9), 0);
    put(&nds, 5, v4(2), 0);
    assert_true(gids_update(&t, nd));
    slot_is(&t, 2, v4(2));
    slot_is(&t, 4, v4(9));
    slot_is(&t, 3, v4(3));

    /* the net device goes */
    assert_true(gids_update(&t, NULL));
    assert_int_equal(gids_count(&t), 0);
    netdevs_free(&nds);
}

static void test_gid_full(void **state)
{
    struct netdevs nds;
    struct gid_table t = {0};

    netdevs_init(&nds);
    struct netdev *nd = link_up(&nds, 5, "nil5", ARPHRD_ETHER);
    for (unsigned i = 1; i <= 40; i++) put(&nds, 5, v4((uint8_t)i), 0);
    gids_update(&t, nd);
    assert_int_equal(gids_count(&t), CTL_MAX_GIDS - 1); /* slot 0 waits for the link-local one */
    take(&nds, 5, v4(7));
    gids_update(&t, nd);
    slot_is(&t, 7, v4(32)); /* a later one takes the empty slot */
    netdevs_free(&nds);
}

static void test_gids_of_lo(void **state)
{
    struct netdevs nds;
    struct gid_table t = {0};
    const struct gid v4_localhost = {{[10] = 0xff, 0xff, 127, 0, 0, 1}};

    netdevs_init(&nds);
    struct netdev *nd = link_up(&nds, 1, "lo", ARPHRD_LOOPBACK);
    put(&nds, 1, v4_localhost, 0);
    put(&nds, 1, v6(0, 1), 0);
    put(&nds, 1, v6(0xfe, 1), 0);
    put(&nds, 1, v4(1), 0);
    gids_update(&t, nd);
    assert_int_equal(gids_count(&t), 1);
    slot_is(&t, 0, v4(1));
    netdevs_free(&nds);
}

/* ---- configuration ----------------------------------------------------------------------- */

static void test_conf(void **state)
{
    struct conf conf;
    struct conf_error error;

    assert_int_equal(conf_parse(&conf,
                                "{\"include\":[\"eth*\"],\"exclude\":[\"eth9\"],\"log_level\":"
                                "\"debug\",\"bonds\":[{\"name\":\"b\",\"members\":[\"eth0\","
                                "\"eth1\"],\"mode\":\"balance-xor\",\"updelay\":200,\"min_links\":"
                                "2,\"netdev\":\"nil0\"}]}",
                                "t", &error),
                     0);
    assert_true(conf_includes(&conf, "eth3"));
    assert_false(conf_includes(&conf, "xeth3"));
    assert_true(conf_excludes(&conf, "eth9"));
    assert_int_equal(conf.log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(conf.nbonds, 1);
    assert_int_equal(conf.bond[0].nmembers, 2);
    assert_int_equal(conf.bond[0].mode, CTL_MODE_BALANCE_XOR);
    assert_int_equal(conf.bond[0].updelay_ms, 200);
    assert_string_equal(conf.bond[0].member[1], "eth1");
    assert_string_equal(conf.bond[0].netdev, "nil0");
}

static void test_bad_confs(void **state)
{
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"{", "t:"},
        {"[]", "not a JSON object"},
        {"{\"inclde\":[]}", "unknown key \"inclde\""},
        {"{\"include\":\"x\"}", "wants a list"},
        {"{\"include\":[1]}", "wants a string"},
        {"{\"bonds\":[1]}", "a bond is an object"},
        {"{\"bonds\":[{\"mode\":\"lacp\"}]}", "unknown bond mode \"lacp\""},
        {"{\"bonds\":[{\"updelay\":-1}]}", "not negative"},
        {"{\"bonds\":[{\"name\":\"0123456789012345\"}]}", "longer than 15"},
        {"{\"bonds\":[{\"members\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\"]}]}",
         "more than 8"},
        {"{\"log_level\":\"loud\"}", "unknown log level"},
    };
    struct conf conf;

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct conf_error error = {""};
        assert_int_equal(conf_parse(&conf, bad[i].text, "t", &error), -EINVAL);
        if (!strstr(error.text, bad[i].words)) fail_msg("%s: %s", bad[i].text, error.text);
    }
    struct conf_error error;
    assert_int_equal(conf_read(&conf, "/nonexistent/x", &error), -ENOENT);
}

/* ---- a device ---------------------------------------------------------------------------- */

static void test_device_page(void **state)
{
    struct netdevs nds;
    struct ctl_bond_conf conf = {.name = "b",
                                 .netdev = "lo",
                                 .mode = CTL_MODE_BALANCE_XOR,
                                 .nmembers = 2,
                                 .member = {"nil5", "nil6"}};
    struct device_state s;

    netdevs_init(&nds);
    struct device *d = device_new(&conf, true, 1, (when_t){1});
    assert_string_equal(d->name, "rb_b");
    page_read(d->page, &s);
    assert_int_equal(s.steering.generation, 1);
    assert_int_equal(s.port_state, CTL_PORT_DOWN);

    link_up(&nds, 5, "nil5", ARPHRD_ETHER)->speed_mbps = 1000;
    struct netdev *nd6 = link_up(&nds, 6, "nil6", ARPHRD_ETHER);
    nd6->speed_mbps = 10000;
    nd6->link.mtu = 9000;
    struct device_change c = device_refresh(d, &nds, (when_t){2});
    assert_true(c.page && c.bond.table && c.bond.port);
    page_read(d->page, &s);
    assert_int_equal(s.steering.generation, 2);
    assert_int_equal(s.mtu, 1500);
    assert_int_equal(s.speed_mbps, 11000);
    assert_int_equal(s.member_ifindex[1], 6);
    assert_int_equal(s.steering.active[1], 1);
    assert_false(device_refresh(d, &nds, (when_t){3}).page); /* no news, no generation */

    c = device_link(d, 1, false, true, (when_t){4});
    assert_true(c.page && c.bond.failover);
    page_read(d->page, &s);
    assert_int_equal(s.steering.active[1], 0);
    assert_int_equal(s.steering.changed.ns, 4);
    assert_int_equal(atomic_load(&d->page->generation), s.steering.generation);

    device_withdraw(d, (when_t){5});
    page_read(d->page, &s);
    assert_int_equal(s.steering.active[0], STEER_NO_MEMBER);
    assert_int_equal(s.port_state, CTL_PORT_DOWN);
    device_free(d);
    netdevs_free(&nds);
}

static void test_guids(void **state)
{
    struct netdevs nds;

    netdevs_init(&nds);
    const struct netdev *nd = link_up(&nds, 5, "nil5", ARPHRD_ETHER);
    assert_int_equal(guid_of_port(nd), 0x000000fffe000005ull);
    uint64_t a = guid_of_bond(nd, "a"), b = guid_of_bond(nd, "b");
    assert_int_not_equal(a, b);
    assert_int_equal(a, guid_of_bond(nd, "a"));
    assert_int_not_equal(a >> 24 & 0xffff, 0xfffe);
    netdevs_free(&nds);
}

/* ---- functions --------------------------------------------------------------------------- */

/* All numbers are taken: whoever has less than his share hears that, and who has all of it that. */
static void test_share_of_a_user(void **state)
{
    static struct functions fs;
    static struct function owned[FUNCTIONS_MAX];
    struct device device = {.name = "rb_x0"};
    struct function *fn;
    int fds[CTL_MAX_FDS];
    uint32_t ntx;

    fs.nslots = FUNCTIONS_MAX;
    for (unsigned n = 1; n < FUNCTIONS_MAX; n++) {
        owned[n].uid = n <= FUNCTIONS_PER_USER ? 12345 : 12346; /* the second has one less */
        fs.slot[n].function = &owned[n];
    }
    assert_int_equal(functions_open(&fs, &device, 1, 12345, 0, (when_t){1}, &fn, fds, &ntx),
                     -EDQUOT);
    assert_int_equal(functions_open(&fs, &device, 1, 12346, 0, (when_t){1}, &fn, fds, &ntx),
                     -EUSERS);
    assert_int_equal(functions_open(&fs, &device, 1, 0, 7, (when_t){1}, &fn, fds, &ntx), -EBUSY);
    owned[1].uid = 0;
    assert_int_equal(functions_open(&fs, &device, 1, 12345, 0, (when_t){1}, &fn, fds, &ntx),
                     -EUSERS);
    for (unsigned n = 1; n < FUNCTIONS_MAX; n++) owned[n].uid = 0;
    assert_int_equal(functions_open(&fs, &device, 1, 0, 0, (when_t){1}, &fn, fds, &ntx), -EUSERS);
}

/* What one rbondd gave, the next knows. */
static void test_owners(void **state)
{
    static struct owners owners;
    char socket[] = "/tmp/rbond-owners-XXXXXX", path[64];
    int fd = mkstemp(socket);

    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(owners_open(&owners, socket), 0);
    owners_set(&owners, 5, 1000, 77);
    owners_set(&owners, FUNCTIONS_MAX - 1, 0, 78);
    owners_close(&owners, true);
    assert_int_equal(owners_open(&owners, socket), 0);
    assert_true(owners_allow(&owners, 5, 1000, 99));
    assert_true(owners_allow(&owners, 5, 0, 99));
    assert_true(owners_allow(&owners, 5, 1001, 77)); /* it has become another user's */
    assert_false(owners_allow(&owners, 5, 1001, 99));
    assert_false(owners_allow(&owners, FUNCTIONS_MAX - 1, 1000, 99));
    assert_false(owners_allow(&owners, 5, 1001, 0)); /* of a namespace that we do not see */
    assert_true(owners_allow(&owners, 6, 1001, 99));
    assert_true(owners_allow(&owners, 0xffffffff, 1001, 99));
    owners_set(&owners, 5, 1001, 99);
    assert_false(owners_allow(&owners, 5, 1000, 77));
    owners_close(&owners, false);
    snprintf(path, sizeof path, "%s.owners", socket);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(symlink("/dev/null", path), 0);
    assert_int_equal(owners_open(&owners, socket), -ELOOP);
    unlink(path);
    unlink(socket);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_owners),          cmocka_unit_test(test_gid_slots),
        cmocka_unit_test(test_share_of_a_user), cmocka_unit_test(test_gid_full),
        cmocka_unit_test(test_gids_of_lo),      cmocka_unit_test(test_conf),
        cmocka_unit_test(test_bad_confs),       cmocka_unit_test(test_device_page),
        cmocka_unit_test(test_guids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
