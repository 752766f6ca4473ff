/* Packets to send and a sink that compares them with what arrives. */
#ifndef RBOND_TEST_PORT_PACKETS_H
#define RBOND_TEST_PORT_PACKETS_H

#include "net.h"
#include "port/port.h"

#define PACKETS_MAX 256

struct packets {
    size_t n, arrived;
    struct hca_tx tx[PACKETS_MAX];
    uint8_t expect[PACKETS_MAX][8192]; /* BTH .. pad */
    size_t expect_len[PACKETS_MAX];
    struct hca_rx last; /* data gone */
    unsigned wrong;     /* bytes, order or length not as sent */
};

/* Appends a packet of `len` payload bytes in `niov` pieces of memory that lasts: an RC SEND_ONLY
 * from A to B (or as `tx` is changed afterwards, headers excepted). */
struct hca_tx *packets_add(struct packets *p, bool ipv4, qpn_t dqpn, uint32_t len, uint8_t niov);
void packets_clear(struct packets *p);
/* A sink for port rx; ctx is the packets. They must come in the order sent. */
void packets_sink(void *ctx, const struct hca_rx *rx);
/* Receives until all have arrived, or nothing has for two seconds (50 ms where none should). */
void packets_receive(struct packets *p, struct port *port);

/* A port of the current host with `ntx` sockets, its members both links. */
struct port *packets_port(uint16_t function, enum net_host host, int rx_fd, size_t ntx);

#endif
