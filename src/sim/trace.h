/* What happened, in order: a running hash that two runs of one seed must share, and, where wanted,
 * a line of text each. */
#ifndef RBOND_SIM_TRACE_H
#define RBOND_SIM_TRACE_H

#include "sim/sim_port.h"
#include <stdio.h>

struct trace {
    uint64_t hash;
    uint64_t events;
    FILE *out; /* NULL: hash only */
};

void trace_bytes(struct trace *t, const void *bytes, size_t len);
/* A line of text, not hashed: what it tells must follow from facts that are. */
void trace_line(struct trace *t, when_t now, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void trace_packet(struct trace *t, when_t now, const char *what, const struct datagram *d);
void trace_wc(struct trace *t, when_t now, uint8_t host, const struct hca_wc *wc);

const char *wc_status_name(enum hca_wc_status s);
const char *wr_opcode_name(enum hca_wr_opcode op);

#endif
