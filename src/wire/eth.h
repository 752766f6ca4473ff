/* Ethernet II with at most one 802.1Q tag: bytes <-> struct, pure. */
#ifndef RBOND_WIRE_ETH_H
#define RBOND_WIRE_ETH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ETH_HDR_LEN 14
#define ETH_HDR_MAX_LEN 18

enum { ETH_TYPE_IPV4 = 0x0800, ETH_TYPE_VLAN = 0x8100, ETH_TYPE_IPV6 = 0x86dd };

struct eth_hdr {
    uint8_t dst[6], src[6];
    bool tagged;
    uint16_t tci; /* PCP:3 DEI:1 VID:12; counts when tagged */
    uint16_t type;
};

/* The header's length; 0 where `len` is too short. */
size_t eth_decode(struct eth_hdr *h, const uint8_t *buf, size_t len);
/* Writes up to ETH_HDR_MAX_LEN bytes, returns how many. */
size_t eth_encode(uint8_t *buf, const struct eth_hdr *h);

#endif
