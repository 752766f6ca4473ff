/* See sim_port.h. */
#include "sim/sim_port.h"
#include "base/must.h"
#include "sim/rng.h"
#include "wire/icrc.h"
#include "wire/opcode.h"
#include <stdlib.h>
#include <string.h>

static struct icrc_path path_of(const struct datagram *d)
{
    return (struct icrc_path){
        .src = d->src,
        .dst = d->dst,
        .sport = d->sport,
        .dport = ROCE_UDP_PORT,
        .ip_id = d->ip_id,
        .df = true,
        .udp_len = (uint16_t)(8 + d->len),
    };
}

static void seal(struct datagram *d)
{
    uint32_t body = d->len - ROCE_ICRC_LEN;
    struct icrc_path path = path_of(d);
    uint32_t crc = icrc_of(&path, d->bytes, body);
    for (int i = 0; i < 4; i++) d->bytes[body + i] = (uint8_t)(crc >> (8 * i));
}

struct datagram *sim_port_tx(const struct hca_tx *tx, uint16_t ip_id)
{
    uint32_t body = tx->hdr_len + tx->payload_len + tx->pad;
    must(tx->hdr_len >= ROCE_BTH_LEN && tx->hdr_len <= ROCE_MAX_HDR_LEN);
    must(tx->niov <= HCA_MAX_SGE && tx->pad < 4 && body % 4 == 0);
    must(tx->member != STEER_NO_MEMBER);
    struct datagram *d = malloc(sizeof *d + body + ROCE_ICRC_LEN);
    must(d);
    *d = (struct datagram){
        .src = tx->src,
        .dst = tx->dst,
        .traffic_class = tx->traffic_class,
        .hop_limit = tx->hop_limit,
        .src_member = tx->member,
        .sport = (uint16_t)(ROCE_SPORT_MIN | (mix64(tx->dqpn) & 0x3fff)),
        .ip_id = gid_is_ipv4(&tx->src) ? ip_id : 0,
        .sqpn = tx->qpn,
        .dqpn = tx->dqpn,
        .len = body + ROCE_ICRC_LEN,
    };
    uint8_t *at = d->bytes;
    memcpy(at, tx->hdr, tx->hdr_len);
    at += tx->hdr_len;
    uint32_t left = tx->payload_len;
    for (uint32_t i = 0; i < tx->niov; i++) {
        must(tx->payload[i].iov_len <= left);
        if (tx->payload[i].iov_len) memcpy(at, tx->payload[i].iov_base, tx->payload[i].iov_len);
        at += tx->payload[i].iov_len;
        left -= (uint32_t)tx->payload[i].iov_len;
    }
    must(left == 0);
    memset(at, 0, tx->pad);
    seal(d);
    return d;
}

void sim_port_forge(struct datagram *d, uint64_t chance)
{
    struct roce_hdr h;
    size_t len;
    if (roce_decode(&h, d->bytes, d->len - ROCE_ICRC_LEN, &len) != ROCE_OK) return;
    uint32_t small = chance >> 8 & 15, big = (uint32_t)(chance >> 16);
    uint8_t service = h.opcode & 0xe0;
    switch (chance & 15) {
    case 0: h.psn = psn_add(h.psn, small + 1); break;
    case 1: h.psn = psn_add(h.psn, 0u - small - 1); break;
    case 2: h.psn = psn_of(big); break;
    case 3: h.aeth.syndrome = (uint8_t)big; break;
    case 4: h.aeth.syndrome = (uint8_t)(0x60 | (big & 7)); break;
    case 5: h.aeth.msn = big & 0xffffff; break;
    case 6: h.reth.len = big; break;
    case 7: h.reth.len += small; break;
    case 8: h.reth.va += small; break;
    case 9: h.reth.rkey ^= 1u << small; break;
    case 10: h.ackreq = !h.ackreq; break;
    case 11: h.solicited = !h.solicited; break;
    case 12: h.pad = chance >> 8 & 3; break;
    case 13: h.atomic.va += small; break;
    case 14: d->len -= d->len - ROCE_ICRC_LEN > len + 4 * small ? 4 * small : 0; break;
    default: break;
    }
    /* A header of another length would move the payload: opcodes change among those of one length.
     */
    uint8_t other = service | (big & 31);
    const struct roce_opcode *op = roce_opcode(other);
    if ((chance & 15) == 15 && (op->props & OP_KNOWN) && op->hdr_len == len) h.opcode = other;
    roce_encode(d->bytes, &h);
    seal(d);
    d->corrupted = true;
}

bool sim_port_rx(const struct datagram *d, struct hca_rx *rx)
{
    if (d->len < ROCE_BTH_LEN + ROCE_ICRC_LEN) return false;
    uint32_t body = d->len - ROCE_ICRC_LEN, got = 0;
    for (int i = 0; i < 4; i++) got |= (uint32_t)d->bytes[body + i] << (8 * i);
    struct icrc_path path = path_of(d);
    if (icrc_of(&path, d->bytes, body) != got) return false;
    *rx = (struct hca_rx){
        .src = d->src,
        .dst = d->dst,
        .traffic_class = d->traffic_class,
        .hop_limit = d->hop_limit,
        .member = d->dst_member,
        .own = d->src_host == d->dst_host,
        .data = d->bytes,
        .len = body,
    };
    return true;
}
