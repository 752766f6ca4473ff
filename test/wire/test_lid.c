/* A port's LID: of which of its addresses it is made, and where a LID leads. */
#include "wire/cmocka_all.h"
#include "wire/lid.h"
#include <arpa/inet.h>

static struct gid gid_of(const char *text)
{
    struct gid gid = {{0}};

    if (*text) assert_int_equal(inet_pton(AF_INET6, text, gid.raw), 1);
    return gid;
}

static uint16_t lid_among(const char *const *text, size_t n, size_t *index)
{
    struct gid gids[8];

    for (size_t i = 0; i < n; i++) gids[i] = gid_of(text[i]);
    return lid_of(gids, n, index);
}

static void test_of_the_first_address(void **state)
{
    static const char *const NONE[] = {"", "fe80::1", ""};
    static const char *const IPV6[] = {"fe80::1", "", "fd99::2", "fd99::3"};
    static const char *const BOTH[] = {"fd99::2", "::ffff:10.99.0.7", "::ffff:10.98.0.8"};
    static const char *const HIGH[] = {"::ffff:192.168.200.1"}; /* 0xc801 were a multicast LID */
    static const char *const NETWORK[] = {"::ffff:10.128.0.0"};
    size_t index = 99;

    assert_int_equal(lid_among(NONE, 3, &index), 0);
    assert_int_equal(index, 99);
    assert_int_equal(lid_among(IPV6, 4, &index), 2);
    assert_int_equal(index, 2);
    assert_int_equal(lid_among(BOTH, 3, &index), 7);
    assert_int_equal(index, 1);
    assert_int_equal(lid_among(HIGH, 1, &index), 0x4801);
    assert_int_equal(lid_among(NETWORK, 1, &index), 0);
}

/* Within a /17 and a /113, every host finds every other. */
static void test_leads_to_its_neighbour(void **state)
{
    static const char *const PAIRS[][2] = {
        {"::ffff:10.99.0.1", "::ffff:10.99.0.2"},
        {"::ffff:192.168.200.1", "::ffff:192.168.255.254"},
        {"::ffff:10.99.127.1", "::ffff:10.99.0.1"},
        {"fd99::1", "fd99::7ffe"},
        {"fd99::1:8001", "fd99::1:ffff"},
    };

    for (size_t i = 0; i < sizeof PAIRS / sizeof *PAIRS; i++) {
        struct gid a = gid_of(PAIRS[i][0]), b = gid_of(PAIRS[i][1]), found;
        size_t index;

        found = lid_gid(&a, lid_of(&b, 1, &index));
        assert_true(gid_equal(&found, &b));
        found = lid_gid(&b, lid_of(&a, 1, &index));
        assert_true(gid_equal(&found, &a));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_of_the_first_address),
        cmocka_unit_test(test_leads_to_its_neighbour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
