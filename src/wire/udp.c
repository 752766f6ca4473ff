/* The UDP header. */
#include "wire/udp.h"
#include "base/bits.h"

bool udp_decode(struct udp_hdr *h, const uint8_t *buf, size_t len)
{
    *h = (struct udp_hdr){0};
    if (len < UDP_HDR_LEN) return false;
    h->sport = get_be16(buf);
    h->dport = get_be16(buf + 2);
    h->len = get_be16(buf + 4);
    h->checksum = get_be16(buf + 6);
    return h->len >= UDP_HDR_LEN && h->len <= len;
}

void udp_encode(uint8_t *buf, const struct udp_hdr *h)
{
    put_be16(buf, h->sport);
    put_be16(buf + 2, h->dport);
    put_be16(buf + 4, h->len);
    put_be16(buf + 6, h->checksum);
}
