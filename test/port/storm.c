/* Random and malformed RoCE datagrams. */
#include "storm.h"
#include "base/bits.h"
#include "wire/cm_msg.h"
#include "wire/opcode.h"

#define GSI_QKEY 0x80010000u

void storm_init(struct storm *s, uint64_t seed)
{
    *s = (struct storm){.state = seed * 2 + 0x9e3779b97f4a7c15ull, .qkey = GSI_QKEY};
}

uint64_t storm_random(struct storm *s)
{
    uint64_t z = s->state += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

bool storm_chance(struct storm *s, uint32_t n) { return storm_random(s) % n == 0; }

static qpn_t some_qpn(struct storm *s)
{
    uint64_t r = storm_random(s);
    if (storm_chance(s, 20)) return r & 0xffffff;
    if (s->nqpn && !storm_chance(s, 10)) return s->qpn[r % s->nqpn];
    /* The first QPs of the first functions, GSI among them. */
    return (qpn_t)((r & 7) << 14 | (r >> 8 & 15));
}

static uint32_t some_length(struct storm *s)
{
    static const uint32_t edges[] = {0,    1,     4,          255,        256,        1024,
                                     4096, 65536, 0x7fffffff, 0x80000000, 0x80000001, 0xffffffff};
    uint64_t r = storm_random(s);
    return storm_chance(s, 2) ? edges[r % (sizeof edges / sizeof *edges)] : r & 0xffff;
}

/* For `len` bytes: inside region `k`, about its beginning, or to its end and a little over. */
static uint64_t some_address(struct storm *s, size_t k, uint32_t len)
{
    uint64_t r = storm_random(s);
    if (!s->nmr || storm_chance(s, 8)) return storm_chance(s, 2) ? r : ~0ull - (r & 63);
    switch (storm_random(s) % 4) {
    case 0: return s->va[k] + s->va_len[k] - len + (r & 3);
    case 1: return s->va[k] - (r & 3);
    default: return s->va[k] + r % (s->va_len[k] + 1);
    }
}

static void some_headers(struct storm *s, struct roce_hdr *h, uint32_t payload)
{
    uint64_t r = storm_random(s);
    size_t k = s->nmr ? r % s->nmr : 0;
    h->solicited = r & 1;
    h->migreq = r & 2;
    h->ackreq = r & 4;
    h->fecn = !(r & 0x78);
    h->becn = !(r & 0x780);
    h->pad = storm_chance(s, 4) ? r >> 16 & 3 : 0;
    h->tver = storm_chance(s, 50) ? 1 : 0;
    h->pkey = storm_chance(s, 30) ? (uint16_t)(r >> 20) : ROCE_PKEY_DEFAULT;
    h->dqpn = some_qpn(s);
    h->psn = psn_of(storm_chance(s, 10)  ? (uint32_t)(r >> 32)
                    : storm_chance(s, 2) ? s->psn + 1
                                         : s->psn + (r >> 32 & 15) - 4);
    h->deth.qkey = storm_chance(s, 8) ? (uint32_t)r : s->qkey;
    h->deth.sqpn = storm_chance(s, 4) ? (qpn_t)r & 0xffffff : 1;
    h->reth.len = storm_chance(s, 2) ? payload : some_length(s);
    h->reth.va = some_address(s, k, h->reth.len);
    h->atomic.va = some_address(s, k, 8);
    h->reth.rkey = h->atomic.rkey =
        s->nmr && !storm_chance(s, 8) ? s->rkey[k] : (uint32_t)storm_random(s);
    h->atomic.swap_add = storm_random(s);
    h->atomic.compare = storm_random(s);
    h->aeth.syndrome = (uint8_t)(storm_chance(s, 3) ? r >> 8 : (r >> 8 & 0x60) | (r >> 16 & 7));
    h->aeth.msn = r & 0xffffff;
    h->atomic_ack = r;
    h->imm_be = (uint32_t)r;
    h->ieth_rkey = s->nmr && storm_chance(s, 2) ? s->rkey[k] : (uint32_t)r;
    h->xrc_srqn = r & 0xffffff;
}

/* A CM message to the GSI, its fields random. */
static size_t make_mad(struct storm *s, uint8_t *buf)
{
    struct roce_hdr h = {.opcode = ROCE_UD | ROCE_SEND_ONLY, .pkey = ROCE_PKEY_DEFAULT, .dqpn = 1};
    h.deth.qkey = GSI_QKEY;
    h.deth.sqpn = 1;
    h.psn = psn_of((uint32_t)storm_random(s));
    size_t n = roce_encode(buf, &h);
    uint8_t *mad = buf + n;
    for (size_t i = 0; i < MAD_LEN; i += 8)
        put_be64(mad + i, storm_chance(s, 3) ? storm_random(s) : 0);
    mad_encode(mad, &(struct mad_hdr){.base_version = MAD_BASE_VERSION,
                                      .mgmt_class = CM_CLASS,
                                      .class_version = CM_CLASS_VERSION,
                                      .method = MAD_METHOD_SEND,
                                      .tid = storm_random(s),
                                      .attr_id = (uint16_t)(0x0f + storm_random(s) % 13)});
    return n + MAD_LEN;
}

static uint8_t some_opcode(struct storm *s)
{
    uint8_t opcode;
    do opcode = (uint8_t)storm_random(s);
    while (!roce_opcode(opcode)->props && !storm_chance(s, 100));
    return opcode;
}

static uint32_t some_payload(struct storm *s)
{
    uint32_t payload = storm_chance(s, 3) ? 0 : (uint32_t)storm_random(s) % 1200;
    if (!storm_chance(s, 4)) payload &= ~3u;
    return storm_chance(s, 4) ? 1024 : payload;
}

size_t storm_make(struct storm *s, uint8_t buf[STORM_MAX_LEN])
{
    struct roce_hdr h = {.opcode = some_opcode(s)};
    size_t len;
    if (storm_chance(s, 16)) {
        len = make_mad(s, buf);
    } else {
        const struct roce_opcode *op = roce_opcode(h.opcode);
        uint32_t payload = some_payload(s);
        some_headers(s, &h, payload);
        if (storm_chance(s, 2)) h.pad = -payload & 3;
        if (!op->props) h.opcode = 0x04; /* something to encode; the opcode comes after */
        uint8_t opcode = op->props ? h.opcode : (uint8_t)storm_random(s);
        len = roce_encode(buf, &h);
        buf[0] = opcode;
        for (uint32_t i = 0; i < payload; i += 8) put_be64(buf + len + i, storm_random(s));
        len += payload;
    }
    return storm_chance(s, 10) ? storm_mutate(s, buf, len) : len;
}

size_t storm_mutate(struct storm *s, uint8_t *buf, size_t len)
{
    if (len == 0) return 0;
    size_t early = len < 48 ? len : 48;
    switch (storm_random(s) % 5) {
    case 0: buf[storm_random(s) % early] ^= (uint8_t)(1u << (storm_random(s) & 7)); break;
    case 1: buf[storm_random(s) % early] = (uint8_t)storm_random(s); break;
    case 2: buf[0] = some_opcode(s); break;
    case 3: return storm_random(s) % len;
    default: return storm_random(s) % early;
    }
    return len;
}
