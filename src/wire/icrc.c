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
/* Bytes from behind the identification to BTH: the rest of the IPv4 header, and UDP's. */
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

uint32_t icrc_begin(const struct icrc_path *path)
{
    uint8_t buf[40 + 8];
    size_t n = gid_is_ipv4(&path->dst) ? masked_ipv4(buf, path) : masked_ipv6(buf, path);
    put_be16(buf + n, path->sport);
    put_be16(buf + n + 2, path->dport);
    put_be16(buf + n + 4, path->udp_len);
    put_be16(buf + n + 6, 0xffff); /* checksum */
    return crc_feed(AFTER_LRH, buf, n + 8);
}

uint32_t icrc_renumber(uint32_t begun, uint16_t ip_id)
{
    /* What each bit of the id, then AFTER_ID zero bytes, leave in a register of zero. */
    static const uint32_t bit[16] = {
        0x9b73ead4u, 0xed96d3e9u, 0x005ca193u, 0x00b94326u, 0x0172864cu, 0x02e50c98u,
        0x05ca1930u, 0x0b943260u, 0x81256527u, 0xd93bcc0fu, 0x69069e5fu, 0xd20d3cbeu,
        0x7f6b7f3du, 0xfed6fe7au, 0x26dcfab5u, 0x4db9f56au,
    };
    for (unsigned id = ip_id; id; id &= id - 1) begun ^= bit[__builtin_ctz(id)];
    return begun;
}

uint32_t icrc_feed_bth(uint32_t crc, uint8_t *bth, size_t len)
{
    uint8_t fecn_becn = bth[4];
    bth[4] = 0xff; /* switches may change it */
    crc = crc_feed(crc, bth, len);
    bth[4] = fecn_becn;
    return crc;
}

uint32_t icrc_feed(uint32_t crc, const void *bytes, size_t len)
{
    return crc_feed(crc, bytes, len);
}

uint32_t icrc_end(uint32_t crc) { return ~crc; }

uint32_t icrc_of(const struct icrc_path *path, const uint8_t *roce, size_t len)
{
    uint8_t bth[12];
    memcpy(bth, roce, sizeof bth);
    uint32_t crc = icrc_feed_bth(icrc_begin(path), bth, sizeof bth);
    return icrc_end(icrc_feed(crc, roce + 12, len - 12));
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

/* undo_bytes of all that follows the id in a datagram of `len`, and of the 4 bytes by which a
 * register runs ahead of its message. Peers use a few lengths: they are remembered. */
static uint32_t undo_after_id(size_t len)
{
    /* Racing threads store the same word; 0 is never a power. */
    static _Atomic uint32_t cache[4096 + 64];
    bool small = len < sizeof cache / sizeof *cache;
    uint32_t undo = small ? atomic_load_explicit(&cache[len], memory_order_relaxed) : 0;
    if (undo) return undo;
    undo = undo_bytes(AFTER_ID + len + 4);
    if (small) atomic_store_explicit(&cache[len], undo, memory_order_relaxed);
    return undo;
}

/* The CRC is linear: want ^ got is what the two id bytes and zeros after them leave in a register
 * of zero. With these undone the id itself stands in the upper half, and nothing in the lower. */
bool icrc_explained_v4(uint32_t want, uint32_t got, size_t len, uint16_t *ip_id)
{
    uint32_t v = gf_mul(want ^ got, undo_after_id(len));
    if (v & 0xffff) return false;
    *ip_id = (uint16_t)((v >> 16 & 0xff) << 8 | v >> 24);
    return true;
}
