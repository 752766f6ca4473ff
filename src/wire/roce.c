/* BTH and extended headers: bytes <-> struct. Which headers an opcode has is opcode.c's. */
#include "wire/roce.h"
#include "base/bits.h"
#include "base/must.h"
#include "wire/opcode.h"
#include <string.h>

static void decode_bth(struct roce_hdr *h, const uint8_t *b)
{
    h->opcode = b[0];
    h->solicited = b[1] & 0x80;
    h->migreq = b[1] & 0x40;
    h->pad = b[1] >> 4 & 3;
    h->tver = b[1] & 0xf;
    h->pkey = get_be16(b + 2);
    h->fecn = b[4] & 0x80;
    h->becn = b[4] & 0x40;
    h->dqpn = get_be24(b + 5);
    h->ackreq = b[8] & 0x80;
    h->psn = psn_of(get_be24(b + 9));
}

static void encode_bth(uint8_t *b, const struct roce_hdr *h)
{
    b[0] = h->opcode;
    b[1] = (uint8_t)(h->solicited << 7 | h->migreq << 6 | (h->pad & 3) << 4 | (h->tver & 0xf));
    put_be16(b + 2, h->pkey);
    b[4] = (uint8_t)(h->fecn << 7 | h->becn << 6);
    put_be24(b + 5, h->dqpn);
    b[8] = (uint8_t)(h->ackreq << 7);
    put_be24(b + 9, h->psn.v);
}

enum roce_verdict roce_decode(struct roce_hdr *h, const uint8_t *buf, size_t len, size_t *hdr_len)
{
    *h = (struct roce_hdr){0};
    if (len < ROCE_BTH_LEN) return ROCE_TOO_SHORT;
    decode_bth(h, buf);
    const struct roce_opcode *op = roce_opcode(h->opcode);
    if (!op->props) return ROCE_BAD_OPCODE;
    if (h->tver) return ROCE_BAD_VERSION;
    if (len < op->hdr_len) return ROCE_TOO_SHORT;
    if (h->pad > len - op->hdr_len) return ROCE_BAD_PAD;

    const uint8_t *p = buf + ROCE_BTH_LEN;
    if (op->props & OP_XRCETH) {
        h->xrc_srqn = get_be24(p + 1);
        p += 4;
    }
    if (op->props & OP_DETH) {
        h->deth.qkey = get_be32(p);
        h->deth.sqpn = get_be24(p + 5);
        p += 8;
    }
    if (op->props & OP_FETH) {
        h->feth.placement = p[3] & 0xf;
        h->feth.selectivity = p[3] >> 4 & 3;
        p += 4;
    }
    if (op->props & OP_RETH) {
        h->reth.va = get_be64(p);
        h->reth.rkey = get_be32(p + 8);
        h->reth.len = get_be32(p + 12);
        p += 16;
    }
    if (op->props & OP_ATOMICETH) {
        h->atomic.va = get_be64(p);
        h->atomic.rkey = get_be32(p + 8);
        h->atomic.swap_add = get_be64(p + 12);
        h->atomic.compare = get_be64(p + 20);
        p += 28;
    }
    if (op->props & OP_AETH) {
        h->aeth.syndrome = p[0];
        h->aeth.msn = get_be24(p + 1);
        p += 4;
    }
    if (op->props & OP_ATOMICACK) h->atomic_ack = get_be64(p);
    if (op->props & OP_IMM) memcpy(&h->imm_be, p, 4);
    if (op->props & OP_IETH) h->ieth_rkey = get_be32(p);
    *hdr_len = op->hdr_len;
    return ROCE_OK;
}

size_t roce_encode(uint8_t *buf, const struct roce_hdr *h)
{
    const struct roce_opcode *op = roce_opcode(h->opcode);
    must(op->props);
    /* Reserved fields, a CNP's 16 bytes among them, are sent as zero. */
    memset(buf, 0, op->hdr_len);
    encode_bth(buf, h);

    uint8_t *p = buf + ROCE_BTH_LEN;
    if (op->props & OP_XRCETH) {
        put_be24(p + 1, h->xrc_srqn);
        p += 4;
    }
    if (op->props & OP_DETH) {
        put_be32(p, h->deth.qkey);
        put_be24(p + 5, h->deth.sqpn);
        p += 8;
    }
    if (op->props & OP_FETH) {
        p[3] = (uint8_t)((h->feth.selectivity & 3) << 4 | (h->feth.placement & 0xf));
        p += 4;
    }
    if (op->props & OP_RETH) {
        put_be64(p, h->reth.va);
        put_be32(p + 8, h->reth.rkey);
        put_be32(p + 12, h->reth.len);
        p += 16;
    }
    if (op->props & OP_ATOMICETH) {
        put_be64(p, h->atomic.va);
        put_be32(p + 8, h->atomic.rkey);
        put_be64(p + 12, h->atomic.swap_add);
        put_be64(p + 20, h->atomic.compare);
        p += 28;
    }
    if (op->props & OP_AETH) {
        p[0] = h->aeth.syndrome;
        put_be24(p + 1, h->aeth.msn);
        p += 4;
    }
    if (op->props & OP_ATOMICACK) put_be64(p, h->atomic_ack);
    if (op->props & OP_IMM) memcpy(p, &h->imm_be, 4);
    if (op->props & OP_IETH) put_be32(p, h->ieth_rkey);
    return op->hdr_len;
}
