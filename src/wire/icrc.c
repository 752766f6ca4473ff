/* The invariant CRC; see icrc.h. The running value is the CRC register itself: ISA-L's routine
 * takes and gives its complement. */
#include "wire/icrc.h"
#include "base/bits.h"
#include <isa-l/crc.h>
#include <stdatomic.h>
#include <string.h>

/* The register after the 8 bytes of ones that stand for InfiniBand's LRH. */
#define AFTER_LRH 0xdebb20e3u
/* CRC-32's polynomial, least significant bit = highest power, as the register holds it. */
#define POLY 0xedb88320u
#define X_TO_0 0x80000000u
/* Bytes after the identification up to BTH: the rest of the IPv4 header, and UDP's. */
#define AFTER_ID (14 + 8)

static uint32_t crc_feed(uint32_t crc, const void *bytes, size_t len)
{
    return ~crc32_gzip_refl(~crc, bytes, len);
}

static size_t masked_ipv4(uint8_t *p, const struct icrc_path *path)
{
    p[0] = 0x45;
    p[1] = 0xff; /* TOS */
    put_be16(p + 2, (uint16_t)(20 + path->udp_len));
    put_be16(p + 4, path->ip_id);
    put_be16(p + 6, path->df ? 0x4000 : 0);
    p[8] = 0xff; /* TTL */
    p[9] = 17;
    put_be16(p + 10, 0xffff); /* checksum */
    memcpy(p + 12, path->src.raw + 12, 4);
    memcpy(p + 16, path->dst.raw + 12, 4);
    return 20;
}

static size_t masked_ipv6(uint8_t *p, const struct icrc_path *path)
{
    put_be32(p, 0x6fffffff); /* traffic class and flow label */
    put_be16(p + 4, path->udp_len);
    p[6] = 17;
    p[7] = 0xff; /* hop limit */
    memcpy(p + 8, path->src.raw, 16);
    memcpy(p + 24, path->dst.raw, 16);
    return 40;
}

uint32_t icrc_begin(const struct icrc_path *path, const uint8_t *bth)
{
    uint8_t buf[40 + 8 + 12];
    size_t n = gid_is_ipv4(&path->dst) ? masked_ipv4(buf, path) : masked_ipv6(buf, path);
    put_be16(buf + n, path->sport);
    put_be16(buf + n + 2, path->dport);
    put_be16(buf + n + 4, path->udp_len);
    put_be16(buf + n + 6, 0xffff); /* checksum */
    memcpy(buf + n + 8, bth, 12);
    buf[n + 8 + 4] = 0xff; /* FECN, BECN and reserved bits, which switches may change */
    return crc_feed(AFTER_LRH, buf, n + 8 + 12);
}

uint32_t icrc_feed(uint32_t crc, const void *bytes, size_t len)
{
    return crc_feed(crc, bytes, len);
}

uint32_t icrc_end(uint32_t crc) { return ~crc; }

uint32_t icrc_of(const struct icrc_path *path, const uint8_t *roce, size_t len)
{
    return icrc_end(icrc_feed(icrc_begin(path, roce), roce + 12, len - 12));
}

/* a * b modulo the polynomial. */
static uint32_t gf_mul(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (int i = 0; i < 32; i++) {
        product ^= b & -(a >> 31);
        a <<= 1;
        b = b >> 1 ^ (POLY & -(b & 1));
    }
    return product;
}

/* x^-8n: what undoes feeding n zero bytes. By squaring from x^-1, which is the polynomial without
 * its constant term, divided by x. */
static uint32_t undo_bytes(size_t n)
{
    uint32_t power = POLY << 1 | 1, result = X_TO_0;
    for (size_t bits = n * 8; bits; bits >>= 1) {
        if (bits & 1) result = gf_mul(result, power);
        power = gf_mul(power, power);
    }
    return result;
}

/* The CRC is linear: want ^ got is what the two id bytes, then `after` zero bytes, leave in a
 * register of zero. Undoing these and the 4 bytes by which a register runs ahead of its message
 * leaves the id itself, in the upper half, and nothing else. */
bool icrc_explained_v4(uint32_t want, uint32_t got, size_t len, uint16_t *ip_id)
{
    /* Peers use a few lengths. Racing threads store the same word; 0 is never a power. */
    static _Atomic uint32_t cache[4096 + 64];
    size_t n = AFTER_ID + len + 4;
    uint32_t undo = 0;
    if (len < sizeof cache / sizeof *cache)
        undo = atomic_load_explicit(&cache[len], memory_order_relaxed);
    if (!undo) {
        undo = undo_bytes(n);
        if (len < sizeof cache / sizeof *cache)
            atomic_store_explicit(&cache[len], undo, memory_order_relaxed);
    }
    uint32_t v = gf_mul(want ^ got, undo);
    if (v & 0xffff) return false;
    *ip_id = (uint16_t)((v >> 16 & 0xff) << 8 | v >> 24);
    return true;
}
