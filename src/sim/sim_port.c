/* See sim_port.h. */
#include "sim/sim_port.h"
#include "base/must.h"
#include "sim/rng.h"
#include "wire/icrc.h"
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
    struct icrc_path path = path_of(d);
    uint32_t crc = icrc_of(&path, d->bytes, body);
    for (int i = 0; i < 4; i++) d->bytes[body + i] = (uint8_t)(crc >> (8 * i));
    return d;
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
        .data = d->bytes,
        .len = body,
    };
    return true;
}
