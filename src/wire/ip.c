/* IPv4 and IPv6 headers. */
#include "wire/ip.h"
#include "base/bits.h"

uint16_t ip_checksum(const uint8_t *buf, size_t len)
{
    uint64_t sum = 0;
    for (; len > 1; buf += 2, len -= 2) sum += get_be16(buf);
    if (len) sum += (uint32_t)buf[0] << 8;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void map_ipv4(struct gid *gid, const uint8_t *address)
{
    *gid = (struct gid){{[10] = 0xff, [11] = 0xff}};
    memcpy(gid->raw + 12, address, 4);
}

static enum ip_verdict decode_v4(struct ip_hdr *h, const uint8_t *b, size_t len, size_t *hdr_len)
{
    if (len < IPV4_HDR_LEN) return IP_TOO_SHORT;
    size_t n = (b[0] & 0xf) * 4u;
    size_t total = get_be16(b + 2);
    if (n < IPV4_HDR_LEN || n > total) return IP_BAD_HEADER;
    if (total > len) return IP_TOO_SHORT;
    if (ip_checksum(b, n) != 0) return IP_BAD_CHECKSUM;
    h->traffic_class = b[1];
    h->payload_len = (uint16_t)(total - n);
    h->id = get_be16(b + 4);
    h->df = b[6] & 0x40;
    h->mf = b[6] & 0x20;
    h->frag_off = get_be16(b + 6) & 0x1fff;
    h->hop_limit = b[8];
    h->proto = b[9];
    map_ipv4(&h->src, b + 12);
    map_ipv4(&h->dst, b + 16);
    *hdr_len = n;
    return IP_OK;
}

static enum ip_verdict decode_v6(struct ip_hdr *h, const uint8_t *b, size_t len, size_t *hdr_len)
{
    if (len < IPV6_HDR_LEN) return IP_TOO_SHORT;
    h->payload_len = get_be16(b + 4);
    if (h->payload_len > len - IPV6_HDR_LEN) return IP_TOO_SHORT;
    h->traffic_class = (uint8_t)(get_be16(b) >> 4);
    h->flow_label = get_be32(b) & 0xfffff;
    h->proto = b[6];
    h->hop_limit = b[7];
    memcpy(h->src.raw, b + 8, 16);
    memcpy(h->dst.raw, b + 24, 16);
    *hdr_len = IPV6_HDR_LEN;
    return IP_OK;
}

enum ip_verdict ip_decode(struct ip_hdr *h, const uint8_t *buf, size_t len, size_t *hdr_len)
{
    *h = (struct ip_hdr){0};
    if (!len) return IP_TOO_SHORT;
    switch (buf[0] >> 4) {
    case 4: return decode_v4(h, buf, len, hdr_len);
    case 6: return decode_v6(h, buf, len, hdr_len);
    default: return IP_BAD_VERSION;
    }
}

static size_t encode_v4(uint8_t *b, const struct ip_hdr *h)
{
    b[0] = 0x45;
    b[1] = h->traffic_class;
    put_be16(b + 2, (uint16_t)(IPV4_HDR_LEN + h->payload_len));
    put_be16(b + 4, h->id);
    put_be16(b + 6, (uint16_t)(h->df << 14 | h->mf << 13 | (h->frag_off & 0x1fff)));
    b[8] = h->hop_limit;
    b[9] = h->proto;
    put_be16(b + 10, 0);
    memcpy(b + 12, h->src.raw + 12, 4);
    memcpy(b + 16, h->dst.raw + 12, 4);
    put_be16(b + 10, ip_checksum(b, IPV4_HDR_LEN));
    return IPV4_HDR_LEN;
}

size_t ip_encode(uint8_t *b, const struct ip_hdr *h)
{
    if (gid_is_ipv4(&h->dst)) return encode_v4(b, h);
    put_be32(b, 6u << 28 | (uint32_t)h->traffic_class << 20 | (h->flow_label & 0xfffff));
    put_be16(b + 4, h->payload_len);
    b[6] = h->proto;
    b[7] = h->hop_limit;
    memcpy(b + 8, h->src.raw, 16);
    memcpy(b + 24, h->dst.raw, 16);
    return IPV6_HDR_LEN;
}
