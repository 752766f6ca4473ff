/* The opcode table, grown from one list of operations: which services have it, its properties.
 * A header's length follows from the properties, so no row can disagree with itself. */
#include "wire/opcode.h"
#include "wire/roce.h"

#define FIRST OP_FIRST
#define LAST OP_LAST
#define ONLY (OP_FIRST | OP_LAST)
#define SEND (OP_SEND | OP_PAYLOAD)
#define WRITE (OP_WRITE | OP_PAYLOAD)
#define RESP (OP_RESPONSE | OP_PAYLOAD)

/* On a connection, in the order of their numbers. X: also UC; R: RC (and XRC) alone. */
#define CONNECTED_OPS(X, R)                                                                        \
    X(SEND_FIRST, FIRST | SEND)                                                                    \
    X(SEND_MIDDLE, SEND)                                                                           \
    X(SEND_LAST, LAST | SEND)                                                                      \
    X(SEND_LAST_IMM, LAST | SEND | OP_IMM)                                                         \
    X(SEND_ONLY, ONLY | SEND)                                                                      \
    X(SEND_ONLY_IMM, ONLY | SEND | OP_IMM)                                                         \
    X(WRITE_FIRST, FIRST | WRITE | OP_RETH)                                                        \
    X(WRITE_MIDDLE, WRITE)                                                                         \
    X(WRITE_LAST, LAST | WRITE)                                                                    \
    X(WRITE_LAST_IMM, LAST | WRITE | OP_IMM)                                                       \
    X(WRITE_ONLY, ONLY | WRITE | OP_RETH)                                                          \
    X(WRITE_ONLY_IMM, ONLY | WRITE | OP_RETH | OP_IMM)                                             \
    R(READ_REQUEST, ONLY | OP_READ_REQ | OP_RETH)                                                  \
    R(READ_RESP_FIRST, FIRST | RESP | OP_AETH)                                                     \
    R(READ_RESP_MIDDLE, RESP)                                                                      \
    R(READ_RESP_LAST, LAST | RESP | OP_AETH)                                                       \
    R(READ_RESP_ONLY, ONLY | RESP | OP_AETH)                                                       \
    R(ACK, ONLY | OP_RESPONSE | OP_AETH)                                                           \
    R(ATOMIC_ACK, ONLY | OP_RESPONSE | OP_AETH | OP_ATOMICACK)                                     \
    R(CMP_SWAP, ONLY | OP_ATOMIC_REQ | OP_ATOMICETH)                                               \
    R(FETCH_ADD, ONLY | OP_ATOMIC_REQ | OP_ATOMICETH)                                              \
    R(SEND_LAST_INV, LAST | SEND | OP_IETH)                                                        \
    R(SEND_ONLY_INV, ONLY | SEND | OP_IETH)                                                        \
    R(FLUSH, ONLY | OP_FLUSH_REQ | OP_FETH | OP_RETH)                                              \
    R(ATOMIC_WRITE, ONLY | OP_ATOMIC_WRITE_REQ | OP_RETH | OP_PAYLOAD)

#define DATAGRAM_OPS(X)                                                                            \
    X(SEND_ONLY, ONLY | SEND | OP_DETH)                                                            \
    X(SEND_ONLY_IMM, ONLY | SEND | OP_DETH | OP_IMM)

#define CNP_RESERVED_LEN 16 /* annex A17.9.3 */

#define HDR_LEN(p)                                                                                 \
    (ROCE_BTH_LEN + ((p)&OP_XRCETH ? 4 : 0) + ((p)&OP_DETH ? 8 : 0) + ((p)&OP_FETH ? 4 : 0) +      \
     ((p)&OP_RETH ? 16 : 0) + ((p)&OP_ATOMICETH ? 28 : 0) + ((p)&OP_AETH ? 4 : 0) +                \
     ((p)&OP_ATOMICACK ? 8 : 0) + ((p)&OP_IMM ? 4 : 0) + ((p)&OP_IETH ? 4 : 0))

#define ROW(service, op, p)                                                                        \
    [ROCE_##service | ROCE_##op] = {#service " " #op, OP_KNOWN | (p), HDR_LEN(p)},
/* In the XRC service each request names the SRQ; responses are RC's. */
#define XRC_PROPS(p) ((p) | ((p)&OP_RESPONSE ? 0 : OP_XRCETH))

#define RC_ROW(op, p) ROW(RC, op, p)
#define UC_ROW(op, p) ROW(UC, op, p)
#define UD_ROW(op, p) ROW(UD, op, p)
#define XRC_ROW(op, p) ROW(XRC, op, XRC_PROPS(p))
#define NO_ROW(op, p)

static const struct roce_opcode table[256] = {
    CONNECTED_OPS(RC_ROW, RC_ROW)   //
    CONNECTED_OPS(UC_ROW, NO_ROW)   //
    DATAGRAM_OPS(UD_ROW)            //
    CONNECTED_OPS(XRC_ROW, XRC_ROW) //
        [ROCE_CNP_OPCODE] = {"CNP", OP_KNOWN, ROCE_BTH_LEN + CNP_RESERVED_LEN},
};

const struct roce_opcode *roce_opcode(uint8_t opcode) { return &table[opcode]; }
