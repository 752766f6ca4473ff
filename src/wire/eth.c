/* The Ethernet header. */
#include "wire/eth.h"
#include "base/bits.h"

size_t eth_decode(struct eth_hdr *h, const uint8_t *buf, size_t len)
{
    *h = (struct eth_hdr){0};
    if (len < ETH_HDR_LEN) return 0;
    memcpy(h->dst, buf, 6);
    memcpy(h->src, buf + 6, 6);
    h->type = get_be16(buf + 12);
    if (h->type != ETH_TYPE_VLAN) return ETH_HDR_LEN;
    if (len < ETH_HDR_MAX_LEN) return 0;
    h->tagged = true;
    h->tci = get_be16(buf + 14);
    h->type = get_be16(buf + 16);
    return ETH_HDR_MAX_LEN;
}

size_t eth_encode(uint8_t *buf, const struct eth_hdr *h)
{
    memcpy(buf, h->dst, 6);
    memcpy(buf + 6, h->src, 6);
    if (!h->tagged) {
        put_be16(buf + 12, h->type);
        return ETH_HDR_LEN;
    }
    put_be16(buf + 12, ETH_TYPE_VLAN);
    put_be16(buf + 14, h->tci);
    put_be16(buf + 16, h->type);
    return ETH_HDR_MAX_LEN;
}
