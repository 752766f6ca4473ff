/* The simulated port: hca_tx -> datagram with a real ICRC, and back to hca_rx where that is right.
 */
#ifndef RBOND_SIM_PORT_H
#define RBOND_SIM_PORT_H

#include "hca/hca.h"

struct datagram {
    struct gid src, dst;
    uint8_t traffic_class, hop_limit;
    uint8_t src_host, src_member, dst_host, dst_member;
    uint16_t sport, ip_id;
    bool corrupted;   /* a link flipped bits: for the trace, the receiver does not look */
    qpn_t sqpn, dqpn; /* as the sender meant them */
    uint32_t len;     /* BTH .. pad .. ICRC */
    uint8_t bytes[];
};

#define DATAGRAM_WIRE_OVERHEAD                                                                     \
    66 /* Ethernet with preamble and gap, IPv4, UDP: for serialisation                             \
        */

/* Gathers headers, payload, pad and ICRC. Freed with free(). */
struct datagram *sim_port_tx(const struct hca_tx *tx, uint16_t ip_id);
/* False where the ICRC is wrong. `rx->data` points into `d`. */
bool sim_port_rx(const struct datagram *d, struct hca_rx *rx);

/* Another's packet instead: one field of the headers is changed and the ICRC made right again. */
void sim_port_forge(struct datagram *d, uint64_t chance);

#endif
