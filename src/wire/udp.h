/* The UDP header (RFC 768): bytes <-> struct, pure. The checksum is carried, not made: the kernel
 * makes it, and RoCE v2 over IPv4 may leave it 0 (annex A17.9.1). */
#ifndef RBOND_WIRE_UDP_H
#define RBOND_WIRE_UDP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UDP_HDR_LEN 8

struct udp_hdr {
    uint16_t sport, dport;
    uint16_t len; /* this header and the payload, bytes */
    uint16_t checksum;
};

/* False where `len` is too short for the header or for what it promises. */
bool udp_decode(struct udp_hdr *h, const uint8_t *buf, size_t len);
void udp_encode(uint8_t *buf /* UDP_HDR_LEN */, const struct udp_hdr *h);

#endif
