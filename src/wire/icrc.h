/* The invariant CRC of RoCE v2 (IBTA annex A17.3, 7.8.1): CRC-32 over 8 bytes of ones, the IP and
 * UDP headers with their variant fields masked, the BTH with its reserved byte masked, and all that
 * follows up to the ICRC itself, which is stored little endian.
 * IPv4's identification field is covered, and a receiving UDP socket cannot see it:
 * icrc_explained_v4 tells whether some identification makes a received ICRC right. */
#ifndef RBOND_WIRE_ICRC_H
#define RBOND_WIRE_ICRC_H

#include "wire/gid.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What of the IP and UDP headers the ICRC covers. `ip_id` and `df` count for IPv4 only. */
struct icrc_path {
    struct gid src, dst;   /* both IPv4-mapped, or neither */
    uint16_t sport, dport; /* host order */
    uint16_t ip_id;
    bool df;
    uint16_t udp_len; /* UDP header, BTH .. ICRC, bytes */
};

/* A running ICRC: seed with the path, feed BTH, feed the rest, then finish. */
uint32_t icrc_begin(const struct icrc_path *path);
/* Takes a value that icrc_begin gave for an IPv4 path with ip_id 0 to another id: the packets of a
 * train share all else. */
uint32_t icrc_renumber(uint32_t begun, uint16_t ip_id);
/* Feeds the BTH and what lies behind it, `len` >= 12 bytes. The byte that the ICRC does not cover
 * is masked in place and restored: the memory must be the caller's alone. */
uint32_t icrc_feed_bth(uint32_t crc, uint8_t *bth, size_t len);
uint32_t icrc_feed(uint32_t crc, const void *bytes, size_t len);
/* The value as the four bytes in the packet read little endian. */
uint32_t icrc_end(uint32_t crc);

/* Whole datagram at once: `roce` is BTH .. pad without ICRC, `len` >= 12. */
uint32_t icrc_of(const struct icrc_path *path, const uint8_t *roce, size_t len);

/* IPv4 only: `want` is icrc_of() with path->ip_id = 0, `got` the ICRC received, `len` as there.
 * True where `got` is the ICRC for some 16-bit identification; *ip_id says which. */
bool icrc_explained_v4(uint32_t want, uint32_t got, size_t len, uint16_t *ip_id);

#endif
