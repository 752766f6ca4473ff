/* IPv4 (RFC 791) and IPv6 (RFC 8200) headers: bytes <-> struct, pure. Addresses are GIDs, IPv4's
 * mapped, so that nothing above needs to know the family twice. */
#ifndef RBOND_WIRE_IP_H
#define RBOND_WIRE_IP_H

#include "wire/gid.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IPV4_HDR_LEN 20
#define IPV6_HDR_LEN 40
#define IP_PROTO_UDP 17

/* The ECN field: the lowest two bits of TOS or traffic class (RFC 3168). */
enum { ECN_MASK = 3, ECN_ECT0 = 2, ECN_CE = 3 };

struct ip_hdr {
    struct gid src, dst;   /* both IPv4-mapped, or neither: this decides the version */
    uint8_t traffic_class; /* TOS */
    uint8_t hop_limit;     /* TTL */
    uint8_t proto;         /* next header */
    uint16_t payload_len;  /* bytes after this header */
    uint16_t id;           /* IPv4 only, as the next three */
    bool df, mf;
    uint16_t frag_off;   /* in units of 8 bytes */
    uint32_t flow_label; /* IPv6 only */
};

enum ip_verdict {
    IP_OK,
    IP_TOO_SHORT,    /* not the header, or not the bytes it promises */
    IP_BAD_VERSION,  /* neither 4 nor 6 */
    IP_BAD_HEADER,   /* IPv4: header length below 5 words or past the datagram */
    IP_BAD_CHECKSUM, /* IPv4 */
};

/* On IP_OK the payload is buf[*hdr_len .. *hdr_len + h->payload_len); what lies past it is the
 * link's padding. IPv4 options are skipped, IPv6 extension headers are left to `proto`. */
enum ip_verdict ip_decode(struct ip_hdr *h, const uint8_t *buf, size_t len, size_t *hdr_len);
/* Writes 20 or 40 bytes and returns how many. */
size_t ip_encode(uint8_t *buf, const struct ip_hdr *h);

/* The internet checksum (RFC 1071) of `len` bytes, as the 16 bits to store in network order. */
uint16_t ip_checksum(const uint8_t *buf, size_t len);

#endif
