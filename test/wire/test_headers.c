/* Ethernet, IP and UDP headers: values, checksums, and what is refused. */
#include "wire/arp.h"
#include "wire/cmocka_all.h"
#include "wire/eth.h"
#include "wire/ip.h"
#include "wire/udp.h"
#include <string.h>

static void test_eth(void **state)
{
    uint8_t b[ETH_HDR_MAX_LEN], again[ETH_HDR_MAX_LEN];
    struct eth_hdr h = {
        .dst = {1, 2, 3, 4, 5, 6}, .src = {7, 8, 9, 10, 11, 12}, .type = ETH_TYPE_IPV6};
    struct eth_hdr got;
    assert_int_equal(eth_encode(b, &h), 14);
    assert_int_equal(eth_decode(&got, b, 14), 14);
    assert_memory_equal(&got, &h, sizeof h);
    assert_int_equal(eth_decode(&got, b, 13), 0);
    h.tagged = true;
    h.tci = 0x6123;
    assert_int_equal(eth_encode(b, &h), 18);
    assert_int_equal(eth_decode(&got, b, 17), 0);
    assert_int_equal(eth_decode(&got, b, 18), 18);
    assert_int_equal(got.tci, 0x6123);
    assert_int_equal(eth_encode(again, &got), 18);
    assert_memory_equal(again, b, 18);
}

/* The example of RFC 1071's literature: a header whose checksum is known to be 0xb861. */
static const uint8_t v4_example[20] = {0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11,
                                       0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7};

static void test_ipv4(void **state)
{
    uint8_t b[0x73] = {0}, again[IPV4_HDR_LEN];
    struct ip_hdr h;
    size_t hdr_len;
    memcpy(b, v4_example, 20);
    assert_int_equal(ip_decode(&h, b, sizeof b, &hdr_len), IP_OK);
    assert_int_equal(hdr_len, 20);
    assert_int_equal(h.payload_len, 0x73 - 20);
    assert_true(h.df && !h.mf && h.frag_off == 0 && h.id == 0);
    assert_int_equal(h.hop_limit, 64);
    assert_true(gid_is_ipv4(&h.src) && h.dst.raw[15] == 0xc7);
    assert_int_equal(ip_encode(again, &h), 20);
    assert_memory_equal(again, v4_example, 20);

    for (size_t len = 0; len < sizeof b; len++)
        assert_int_equal(ip_decode(&h, b, len, &hdr_len), IP_TOO_SHORT);
    b[11] ^= 1;
    assert_int_equal(ip_decode(&h, b, sizeof b, &hdr_len), IP_BAD_CHECKSUM);
    b[0] = 0x44;
    assert_int_equal(ip_decode(&h, b, sizeof b, &hdr_len), IP_BAD_HEADER);
    b[0] = 0x4f;
    b[3] = 40; /* header of 60 bytes in a datagram of 40 */
    assert_int_equal(ip_decode(&h, b, sizeof b, &hdr_len), IP_BAD_HEADER);
    b[0] = 0x55;
    assert_int_equal(ip_decode(&h, b, sizeof b, &hdr_len), IP_BAD_VERSION);
}

static void test_ipv6(void **state)
{
    struct ip_hdr h = {.src = {{0xfe, 0x80, [15] = 1}},
                       .dst = {{0x20, 0x01, [15] = 2}},
                       .traffic_class = 0xa5,
                       .hop_limit = 3,
                       .proto = 17,
                       .payload_len = 8,
                       .flow_label = 0xbcdef};
    struct ip_hdr got;
    uint8_t b[48] = {0};
    size_t hdr_len;
    assert_int_equal(ip_encode(b, &h), 40);
    assert_int_equal(ip_decode(&got, b, 48, &hdr_len), IP_OK);
    assert_int_equal(hdr_len, 40);
    assert_memory_equal(&got, &h, sizeof h);
    for (size_t len = 0; len < 48; len++)
        assert_int_equal(ip_decode(&got, b, len, &hdr_len), IP_TOO_SHORT);
}

static void test_checksum_odd(void **state)
{
    const uint8_t b[] = {0x01, 0x02, 0x03};
    assert_int_equal(ip_checksum(b, 3), 0xffff - (0x0102 + 0x0300));
}

static void test_udp(void **state)
{
    struct udp_hdr h = {.sport = 0xc001, .dport = 4791, .len = 20, .checksum = 0x1234}, got;
    uint8_t b[20] = {0};
    udp_encode(b, &h);
    assert_true(udp_decode(&got, b, 20));
    assert_memory_equal(&got, &h, sizeof h);
    assert_false(udp_decode(&got, b, 19));
    assert_false(udp_decode(&got, b, 7));
    b[5] = 7;
    assert_false(udp_decode(&got, b, 20));
}

/* 192.0.2.1 is at 02:00:00:00:00:01, as arping -U sends it. */
static void test_arp_announcement(void **state)
{
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1}, ipv4[4] = {192, 0, 2, 1};
    static const uint8_t want[ARP_LEN] = {0,   1, 8, 0, 6, 4, 0, 1, 2, 0, 0,   0, 0, 1,
                                          192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1};
    uint8_t got[ARP_LEN];
    arp_announcement(got, mac, ipv4);
    assert_memory_equal(got, want, ARP_LEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eth),  cmocka_unit_test(test_ipv4),
        cmocka_unit_test(test_ipv6), cmocka_unit_test(test_checksum_odd),
        cmocka_unit_test(test_udp),  cmocka_unit_test(test_arp_announcement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
