/* The InfiniBand transport headers (IBTA vol. 1, 9.2 to 9.4): bytes <-> struct, pure.
 * A RoCE v2 datagram is what UDP port 4791 carries: BTH, extended headers, payload, pad, ICRC.
 * The opcode table is opcode.h; the ICRC is icrc.h. */
#ifndef RBOND_WIRE_ROCE_H
#define RBOND_WIRE_ROCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ROCE_UDP_PORT 4791
#define ROCE_ICRC_LEN 4
#define ROCE_BTH_LEN 12
#define ROCE_MAX_HDR_LEN 64    /* no opcode needs more than BTH + XRCETH + AtomicETH = 44 */
#define ROCE_PKEY_DEFAULT 0xffff
#define ROCE_SPORT_MIN 0xc000
#define ROCE_QPN_MULTICAST 0xffffff /* IBTA 9.3.1: the destination of every multicast packet */

typedef uint32_t qpn_t; /* 24 bits */

/* A packet sequence number: 24 bits, compared modulo 2^24 and only through psn_diff. */
typedef struct {
    uint32_t v;
} psn_t;

static inline psn_t psn_of(uint32_t v) { return (psn_t){v & 0xffffff}; }
static inline psn_t psn_add(psn_t p, uint32_t n) { return psn_of(p.v + n); }
/* a - b as a signed distance in [-2^23, 2^23). */
static inline int32_t psn_diff(psn_t a, psn_t b) { return (int32_t)((a.v - b.v) << 8) >> 8; }

/* Everything a datagram's headers say. Fields of headers that the opcode does not have are 0.
 * Integers are in host order, imm_be excepted: immediate data is opaque to the transport. */
struct roce_hdr {
    uint8_t opcode;
    bool solicited, migreq, ackreq, fecn, becn;
    uint8_t pad;  /* 0..3 bytes after the payload */
    uint8_t tver; /* must be 0 */
    uint16_t pkey;
    qpn_t dqpn;
    psn_t psn;
    struct { uint32_t qkey; qpn_t sqpn; } deth;
    struct { uint8_t placement, selectivity; } feth; /* 4 and 2 bits */
    struct { uint64_t va; uint32_t rkey; uint32_t len; } reth;
    struct { uint64_t va; uint32_t rkey; uint64_t swap_add; uint64_t compare; } atomic;
    struct { uint8_t syndrome; uint32_t msn; } aeth;
    uint64_t atomic_ack;
    uint32_t imm_be;
    uint32_t ieth_rkey;
    uint32_t xrc_srqn;
};

enum roce_verdict {
    ROCE_OK,
    ROCE_TOO_SHORT,   /* not even the headers its opcode needs */
    ROCE_BAD_OPCODE,  /* not in the table */
    ROCE_BAD_VERSION, /* TVer not 0 */
    ROCE_BAD_PAD,     /* pad larger than what follows the headers */
};

/* Reads the headers at `buf` (`len` bytes from BTH to the end of the pad, ICRC not included).
 * On ROCE_OK the payload is buf[*hdr_len .. len - pad). Any bytes are safe. */
enum roce_verdict roce_decode(struct roce_hdr *h, const uint8_t *buf, size_t len, size_t *hdr_len);

/* Writes the headers of h->opcode to `buf` (ROCE_MAX_HDR_LEN bytes) and returns their length.
 * The opcode must be in the table. */
size_t roce_encode(uint8_t *buf, const struct roce_hdr *h);

#endif
