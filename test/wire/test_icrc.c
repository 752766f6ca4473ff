/* The ICRC against a plain bitwise model, and what icrc_explained_v4 accepts. */
#include "base/bits.h"
#include "wire/cmocka_all.h"
#include "wire/icrc.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const struct icrc_path v4 = {
    .src = {{[10] = 0xff, 0xff, 10, 9, 0, 1}},
    .dst = {{[10] = 0xff, 0xff, 10, 9, 0, 2}},
    .sport = 0xc123,
    .dport = 4791,
    .df = true,
};

static const struct icrc_path v6 = {.src = {{0xfe, 0x80, [15] = 1}},
                                    .dst = {{0xfe, 0x80, [15] = 2}},
                                    .sport = 0xd001,
                                    .dport = 4791};

static uint32_t bitwise_crc(uint32_t crc, const uint8_t *p, size_t n)
{
    while (n--) {
        crc ^= *p++;
        for (int i = 0; i < 8; i++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return crc;
}

/* Annex A17.3 word for word: a datagram with its variant fields set to ones. */
static uint32_t model(const struct icrc_path *path, const uint8_t *roce, size_t len)
{
    uint8_t p[128];
    size_t n;
    memset(p, 0xff, sizeof p);
    if (gid_is_ipv4(&path->dst)) {
        p[8] = 0x45;
        put_be16(p + 10, (uint16_t)(path->udp_len + 20));
        put_be16(p + 12, path->ip_id);
        put_be16(p + 14, path->df ? 0x4000 : 0);
        p[17] = 17;
        memcpy(p + 20, path->src.raw + 12, 4);
        memcpy(p + 24, path->dst.raw + 12, 4);
        n = 28;
    } else {
        p[8] = 0x6f;
        put_be16(p + 12, path->udp_len);
        p[14] = 17;
        memcpy(p + 16, path->src.raw, 16);
        memcpy(p + 32, path->dst.raw, 16);
        n = 48;
    }
    put_be16(p + n, path->sport);
    put_be16(p + n + 2, path->dport);
    put_be16(p + n + 4, path->udp_len);
    memcpy(p + n + 8, roce, 12);
    p[n + 8 + 4] = 0xff;
    return ~bitwise_crc(bitwise_crc(~0u, p, n + 20), roce + 12, len - 12);
}

static void fill(uint8_t *p, size_t n, unsigned seed)
{
    srand(seed);
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)rand();
}

static void test_model(void **state)
{
    uint8_t roce[300];
    for (size_t len = 12; len <= sizeof roce; len += 4) {
        fill(roce, len, (unsigned)len);
        struct icrc_path path = len & 4 ? v4 : v6;
        path.udp_len = (uint16_t)(8 + len + 4);
        path.ip_id = (uint16_t)(len * 77);
        assert_int_equal(icrc_of(&path, roce, len), model(&path, roce, len));
        /* In pieces, as the port feeds it. */
        struct icrc_path unnumbered = path;
        unnumbered.ip_id = 0;
        uint32_t crc = icrc_begin(&unnumbered);
        if (gid_is_ipv4(&path.dst)) crc = icrc_renumber(crc, path.ip_id);
        size_t half = len / 2 < 12 ? 12 : len / 2;
        uint8_t bth4 = roce[4];
        crc = icrc_feed_bth(crc, roce, half);
        assert_int_equal(roce[4], bth4);
        crc = icrc_feed(crc, roce + half, len - half);
        assert_int_equal(icrc_end(crc), model(&path, roce, len));
    }
}

static void test_switches_may_change(void **state)
{
    uint8_t roce[64];
    fill(roce, sizeof roce, 1);
    struct icrc_path path = v4;
    path.udp_len = 8 + sizeof roce + 4;
    uint32_t before = icrc_of(&path, roce, sizeof roce);
    roce[4] ^= 0xc0; /* FECN, BECN */
    assert_int_equal(icrc_of(&path, roce, sizeof roce), before);
    roce[5] ^= 1;
    assert_int_not_equal(icrc_of(&path, roce, sizeof roce), before);
}

static const size_t lengths[] = {12, 16, 44, 1036, 4112, 4160, 9000, 65000};
static uint8_t big[65000];

static void test_explains_every_id(void **state)
{
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        size_t len = lengths[k];
        struct icrc_path path = v4;
        path.udp_len = (uint16_t)(8 + len + 4);
        uint32_t want = icrc_of(&path, big, len);
        /* Short frames with each id made in full; long ones by every 257th. */
        for (uint32_t i = 0; i < 65536; i += len < 100 ? 1 : 257) {
            uint16_t id = 0;
            path.ip_id = (uint16_t)i;
            assert_true(icrc_explained_v4(want, icrc_of(&path, big, len), len, &id));
            assert_int_equal(id, i);
        }
        path.ip_id = 0;
    }
}

static void test_rejects_what_no_id_explains(void **state)
{
    enum { TRIES = 1 << 22 };
    unsigned accepted = 0;
    uint16_t id;
    uint64_t x = 88172645463325252ull;
    for (unsigned i = 0; i < TRIES; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        accepted += icrc_explained_v4(0, (uint32_t)(x >> 16), lengths[i & 3], &id);
    }
    /* 2^22 * 2^-16 = 64, give or take five deviations of 8. */
    assert_in_range(accepted, 24, 104);
    /* Any error of the payload that a CRC finds in 16 bits or fewer is found whatever the id. */
    struct icrc_path path = v4;
    path.udp_len = 8 + 1036 + 4;
    uint32_t want = icrc_of(&path, big, 1036);
    for (int bit = 0; bit < 1024 * 8; bit++) {
        big[12 + bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(icrc_explained_v4(icrc_of(&path, big, 1036), want, 1036, &id));
        big[12 + bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void test_cost(void **state)
{
    enum { N = 1000000 };
    struct timespec a, b;
    uint16_t id;
    unsigned sum = 0;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (uint32_t i = 0; i < N; i++) sum += icrc_explained_v4(i * 2654435761u, 0, 4112, &id);
    clock_gettime(CLOCK_MONOTONIC, &b);
    double ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
    print_message("icrc_explained_v4: %.0f ns (%u accepted)\n", ns / N, sum);
}

int main(void)
{
    fill(big, sizeof big, 42);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_switches_may_change),
        cmocka_unit_test(test_explains_every_id),
        cmocka_unit_test(test_rejects_what_no_id_explains),
        cmocka_unit_test(test_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
