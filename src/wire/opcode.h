/* The opcode table (IBTA 9.2.1, table 38; annex A19 for FLUSH and ATOMIC WRITE): one row per opcode,
 * everything grown from it. */
#ifndef RBOND_WIRE_OPCODE_H
#define RBOND_WIRE_OPCODE_H

#include <stdbool.h>
#include <stdint.h>

/* Upper three bits: the transport service. */
enum { ROCE_RC = 0x00, ROCE_UC = 0x20, ROCE_RD = 0x40, ROCE_UD = 0x60, ROCE_CNP = 0x80, ROCE_XRC = 0xa0 };

/* The one packet of its service (annex A17.9.3): a reliable connection's, whatever its own is. */
enum { ROCE_CNP_OPCODE = ROCE_CNP | 0x01 };

/* Lower five bits; OR with the service. */
enum roce_op {
    ROCE_SEND_FIRST = 0x00,
    ROCE_SEND_MIDDLE = 0x01,
    ROCE_SEND_LAST = 0x02,
    ROCE_SEND_LAST_IMM = 0x03,
    ROCE_SEND_ONLY = 0x04,
    ROCE_SEND_ONLY_IMM = 0x05,
    ROCE_WRITE_FIRST = 0x06,
    ROCE_WRITE_MIDDLE = 0x07,
    ROCE_WRITE_LAST = 0x08,
    ROCE_WRITE_LAST_IMM = 0x09,
    ROCE_WRITE_ONLY = 0x0a,
    ROCE_WRITE_ONLY_IMM = 0x0b,
    ROCE_READ_REQUEST = 0x0c,
    ROCE_READ_RESP_FIRST = 0x0d,
    ROCE_READ_RESP_MIDDLE = 0x0e,
    ROCE_READ_RESP_LAST = 0x0f,
    ROCE_READ_RESP_ONLY = 0x10,
    ROCE_ACK = 0x11,
    ROCE_ATOMIC_ACK = 0x12,
    ROCE_CMP_SWAP = 0x13,
    ROCE_FETCH_ADD = 0x14,
    ROCE_SEND_LAST_INV = 0x16,
    ROCE_SEND_ONLY_INV = 0x17,
    ROCE_FLUSH = 0x1c,
    ROCE_ATOMIC_WRITE = 0x1d,
};

/* An opcode without its service. */
static inline enum roce_op roce_op(uint8_t opcode) { return (enum roce_op)(opcode & 0x1f); }

enum { /* properties */
    OP_KNOWN = 1 << 0,
    OP_FIRST = 1 << 1,   /* starts a message (ONLY has FIRST and LAST) */
    OP_LAST = 1 << 2,    /* ends a message */
    OP_SEND = 1 << 3,
    OP_WRITE = 1 << 4,
    OP_READ_REQ = 1 << 5,
    OP_ATOMIC_REQ = 1 << 6,
    OP_RESPONSE = 1 << 7, /* goes to the requester half */
    OP_PAYLOAD = 1 << 8,  /* may carry payload */
    OP_RETH = 1 << 9,
    OP_AETH = 1 << 10,
    OP_ATOMICETH = 1 << 11,
    OP_ATOMICACK = 1 << 12,
    OP_IMM = 1 << 13,
    OP_IETH = 1 << 14,
    OP_DETH = 1 << 15,
    OP_XRCETH = 1 << 16,
    OP_FETH = 1 << 17,
    OP_FLUSH_REQ = 1 << 18,
    OP_ATOMIC_WRITE_REQ = 1 << 19,
};

struct roce_opcode {
    const char *name;  /* "RC SEND_FIRST"; NULL where unknown */
    uint32_t props;    /* 0 where unknown */
    uint8_t hdr_len;   /* BTH and extended headers, bytes */
};

/* Never NULL; an opcode outside the table has props 0. */
const struct roce_opcode *roce_opcode(uint8_t opcode);

#endif
