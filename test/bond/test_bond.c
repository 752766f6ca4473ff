/* The bond engine under virtual time. */
#include "bond/bond.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static when_t at_ms(uint64_t ms) { return (when_t){ms * MS_NS}; }

static struct bond make(enum bond_mode mode, uint8_t n, uint8_t primary)
{
    struct bond b;
    struct bond_conf conf = {.mode = mode, .nmembers = n, .primary = primary};

    assert_int_equal(bond_init(&b, &conf, at_ms(0)), 0);
    return b;
}

static void all_up(struct bond *b, uint64_t ms)
{
    for (uint8_t m = 0; m < b->conf.nmembers; m++) bond_link(b, m, true, true, at_ms(ms));
}

static void test_bad_conf(void **state)
{
    struct bond b;
    struct bond_conf conf = {.mode = BOND_BALANCE_XOR, .nmembers = 0, .primary = STEER_NO_MEMBER};

    assert_int_equal(bond_init(&b, &conf, at_ms(0)), -EINVAL);
    conf.nmembers = STEER_MAX_MEMBERS + 1;
    assert_int_equal(bond_init(&b, &conf, at_ms(0)), -EINVAL);
    conf.nmembers = 2;
    conf.mode = 0;
    assert_int_equal(bond_init(&b, &conf, at_ms(0)), -EINVAL);
    conf.mode = BOND_ACTIVE_BACKUP;
    conf.primary = 2;
    assert_int_equal(bond_init(&b, &conf, at_ms(0)), -EINVAL);
}

static void test_active_backup(void **state)
{
    struct bond b = make(BOND_ACTIVE_BACKUP, 2, STEER_NO_MEMBER);

    assert_int_equal(b.table.generation, 1);
    assert_int_equal(b.table.active[0], STEER_NO_MEMBER);
    assert_false(b.port_active);

    struct bond_change c = bond_link(&b, 1, true, true, at_ms(1));
    assert_true(c.table && c.port && !c.failover);
    assert_int_equal(c.came, 2);
    assert_int_equal(b.table.active[255], 1);
    assert_int_equal(b.table.home[255], 1);

    c = bond_link(&b, 0, true, true, at_ms(2));     /* no primary: stays */
    assert_true(c.table && !c.port && !c.failover); /* but a detour may use it */
    assert_int_equal(c.came, 1);
    assert_int_equal(b.table.active[255], 1);
    assert_int_equal(b.table.usable, 3);

    c = bond_link(&b, 1, false, true, at_ms(3000));
    assert_true(c.table && c.failover && !c.port);
    assert_int_equal(c.old, 1);
    assert_int_equal(c.active, 0);
    assert_int_equal(b.table.changed.ns, at_ms(3000).ns);
    assert_int_equal(b.failovers, 1);

    c = bond_link(&b, 0, true, false, at_ms(4000)); /* administratively down counts as well */
    assert_true(c.table && c.port && !c.failover);
    assert_int_equal(b.table.active[7], STEER_NO_MEMBER);
    assert_int_equal(b.table.usable, 0);
    assert_int_equal(b.table.home[7], 0);

    c = bond_link(&b, 0, true, false, at_ms(4001)); /* no news */
    assert_false(c.table || c.port || c.came || c.left);
}

static void test_primary_returns(void **state)
{
    struct bond b = make(BOND_ACTIVE_BACKUP, 3, 2);

    all_up(&b, 0);
    assert_int_equal(b.table.active[0], 2);
    bond_link(&b, 2, false, true, at_ms(2000));
    assert_int_equal(b.table.active[0], 0);
    assert_int_equal(b.table.home[0], 2);
    struct bond_change c = bond_link(&b, 2, true, true, at_ms(3000));
    assert_true(c.failover);
    assert_int_equal(b.table.active[0], 2);
}

static void test_updelay(void **state)
{
    struct bond_conf conf = {
        .mode = BOND_ACTIVE_BACKUP, .nmembers = 2, .primary = 0, .updelay_ns = 200 * MS_NS};
    struct bond b;

    bond_init(&b, &conf, at_ms(0));
    assert_true(when_is_never(bond_deadline(&b)));
    /* nothing else is there: no waiting */
    bond_link(&b, 1, true, true, at_ms(10));
    assert_int_equal(b.table.active[0], 1);
    bond_link(&b, 0, true, true, at_ms(20));
    assert_int_equal(b.table.active[0], 1);
    assert_int_equal(bond_deadline(&b).ns, at_ms(220).ns);
    assert_false(bond_expire(&b, at_ms(219)).table);
    assert_true(bond_expire(&b, at_ms(220)).table);
    assert_int_equal(b.table.active[0], 0);
    assert_true(when_is_never(bond_deadline(&b)));

    /* the one in use dies while the other waits: the other is used at once */
    bond_link(&b, 1, false, true, at_ms(5000));
    bond_link(&b, 1, true, true, at_ms(5010));
    bond_link(&b, 0, false, true, at_ms(5020));
    assert_int_equal(b.table.active[0], 1);
    assert_true(b.port_active);
}

static void test_downdelay(void **state)
{
    struct bond_conf conf = {.mode = BOND_ACTIVE_BACKUP,
                             .nmembers = 2,
                             .primary = STEER_NO_MEMBER,
                             .downdelay_ns = 50 * MS_NS};
    struct bond b;

    bond_init(&b, &conf, at_ms(0));
    all_up(&b, 0);
    assert_false(bond_link(&b, 0, false, true, at_ms(2000)).table);
    assert_int_equal(b.table.active[0], 0);
    bond_link(&b, 0, true, true, at_ms(2020)); /* a blink */
    assert_true(when_is_never(bond_deadline(&b)));
    assert_int_equal(b.member[0].downs, 0);
    bond_link(&b, 0, false, true, at_ms(4000));
    assert_true(bond_expire(&b, at_ms(4050)).failover);
    assert_int_equal(b.table.active[0], 1);
    assert_int_equal(b.member[0].downs, 1);
}

static void test_min_links(void **state)
{
    struct bond_conf conf = {
        .mode = BOND_BALANCE_XOR, .nmembers = 3, .min_links = 2, .primary = STEER_NO_MEMBER};
    struct bond b;

    bond_init(&b, &conf, at_ms(0));
    assert_false(bond_link(&b, 0, true, true, at_ms(0)).port);
    assert_int_equal(b.table.active[0], STEER_NO_MEMBER);
    assert_true(bond_link(&b, 1, true, true, at_ms(0)).port);
    assert_true(b.port_active);
    bond_link(&b, 2, true, true, at_ms(0));
    assert_false(bond_link(&b, 0, false, true, at_ms(2000)).port);
    struct bond_change c = bond_link(&b, 1, false, true, at_ms(2000));
    assert_true(c.port && c.table && !c.failover);
    assert_int_equal(b.table.active[0], STEER_NO_MEMBER);
    conf.min_links = 1;
    assert_int_equal(bond_configure(&b, &conf, at_ms(2100), &c), 0);
    assert_true(c.port && b.port_active);
    assert_int_equal(b.table.active[0], 2);
}

/* For every order of losses and returns: only what must move moves. */
static void test_only_displaced_move(void **state)
{
    srand(3);
    for (unsigned run = 0; run < 300; run++) {
        uint8_t n = (uint8_t)(2 + rand() % 7);
        struct bond b = make(BOND_BALANCE_XOR, n, STEER_NO_MEMBER);
        all_up(&b, 0);
        uint8_t up = (uint8_t)((1u << n) - 1);
        uint64_t ms = 10;
        for (unsigned step = 0; step < 40; step++, ms += 5000) {
            struct steering before = b.table;
            uint8_t m = (uint8_t)(rand() % n);
            bool was = up >> m & 1;
            up ^= (uint8_t)(1u << m);
            struct bond_change c = bond_link(&b, m, !was, true, at_ms(ms));
            assert_int_equal(b.usable, up);
            assert_memory_equal(before.home, b.table.home, sizeof before.home);
            for (unsigned k = 0; k < STEER_BUCKETS; k++) {
                uint8_t a = b.table.active[k], o = before.active[k];
                assert_true(up ? (a < n && (up >> a & 1)) : a == STEER_NO_MEMBER);
                if (a == o) continue;
                /* it moved: off the lost one, or back home, or up from nothing */
                assert_true(was ? o == m
                                : (a == m && (b.table.home[k] == m || o == STEER_NO_MEMBER)));
            }
            assert_int_equal(b.table.generation, before.generation + c.table);
        }
    }
}

static void test_displaced_spread(void **state)
{
    struct bond b = make(BOND_BALANCE_XOR, 4, STEER_NO_MEMBER);
    unsigned load[4] = {0};

    all_up(&b, 0);
    struct bond_change c = bond_link(&b, 1, false, true, at_ms(2000));
    assert_true(c.failover);
    assert_int_equal(c.old, 1);
    for (unsigned k = 0; k < STEER_BUCKETS; k++) load[b.table.active[k]]++;
    assert_int_equal(load[1], 0);
    for (unsigned m = 0; m < 4; m++)
        if (m != 1) assert_in_range(load[m], 84, 87);
    assert_false(bond_member_active(&b, 1));
    assert_true(bond_member_active(&b, 2));
}

/* A flapping member is held off longer each time, and forgiven after a stable second. */
static void test_flapping(void **state)
{
    struct bond b = make(BOND_ACTIVE_BACKUP, 2, 0);
    uint64_t ms = 5000;

    all_up(&b, 0);
    unsigned moved = 0;
    for (unsigned i = 0; i < 100; i++, ms += 20) {
        moved += bond_link(&b, 0, false, true, at_ms(ms)).table;
        moved += bond_link(&b, 0, true, true, at_ms(ms + 10)).table;
        assert_true(b.port_active);
    }
    assert_in_range(moved, 2, 8);
    assert_int_equal(b.table.active[0], 1);
    assert_int_equal(bond_deadline(&b).ns, at_ms(ms - 10).ns + MEMBER_HOLD_MAX_NS);
    bond_expire(&b, bond_deadline(&b));
    assert_int_equal(b.table.active[0], 0);

    ms += 60000;
    bond_link(&b, 0, false, true, at_ms(ms));
    assert_int_equal(b.member[0].flaps, 0);
    bond_link(&b, 0, true, true, at_ms(ms + 10));
    assert_int_equal(b.table.active[0], 0);

    /* even a held-off member is better than none */
    for (unsigned i = 0; i < 10; i++) {
        bond_link(&b, 0, false, true, at_ms(ms + 100 + i * 20));
        bond_link(&b, 0, true, true, at_ms(ms + 110 + i * 20));
    }
    assert_int_equal(b.table.active[0], 1);
    bond_link(&b, 1, false, true, at_ms(ms + 400));
    assert_int_equal(b.table.active[0], 0);
}

static void test_configure(void **state)
{
    struct bond b = make(BOND_ACTIVE_BACKUP, 2, STEER_NO_MEMBER);
    struct bond_conf conf = b.conf;
    struct bond_change c;

    all_up(&b, 0);
    assert_int_equal(b.table.active[0], 0);
    conf.primary = 1;
    assert_int_equal(bond_configure(&b, &conf, at_ms(5), &c), 0);
    assert_true(c.table && c.failover);
    assert_int_equal(b.table.active[0], 1);
    conf.mode = BOND_BALANCE_XOR;
    uint32_t generation = b.table.generation;
    assert_int_equal(bond_configure(&b, &conf, at_ms(6), &c), 0);
    assert_true(c.table);
    assert_int_equal(b.table.generation, generation + 1);
    assert_int_equal(b.table.active[0], 0);
    assert_int_equal(b.table.active[1], 1);
    conf.nmembers = 3;
    assert_int_equal(bond_configure(&b, &conf, at_ms(7), &c), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_conf),
        cmocka_unit_test(test_active_backup),
        cmocka_unit_test(test_primary_returns),
        cmocka_unit_test(test_updelay),
        cmocka_unit_test(test_downdelay),
        cmocka_unit_test(test_min_links),
        cmocka_unit_test(test_only_displaced_move),
        cmocka_unit_test(test_displaced_spread),
        cmocka_unit_test(test_flapping),
        cmocka_unit_test(test_configure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
