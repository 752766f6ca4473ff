/* Random and malformed RoCE datagrams: each opcode, wrong lengths and pads, QPNs and keys near the
 * valid ones, CM messages. The same seed gives the same storm. */
#ifndef RBOND_TEST_PORT_STORM_H
#define RBOND_TEST_PORT_STORM_H

#include "wire/roce.h"
#include <stddef.h>
#include <stdint.h>

#define STORM_MAX_LEN 2048
#define STORM_MAX_NEAR 64

struct storm {
    uint64_t state;
    /* What is valid at the target and so worth coming near to. */
    qpn_t qpn[STORM_MAX_NEAR];
    size_t nqpn;
    uint32_t rkey[STORM_MAX_NEAR];
    uint64_t va[STORM_MAX_NEAR], va_len[STORM_MAX_NEAR];
    size_t nmr;
    uint32_t psn; /* the last that was good: others are taken around it */
    uint32_t qkey;
};

void storm_init(struct storm *s, uint64_t seed);
uint64_t storm_random(struct storm *s);
/* One in `n`. */
bool storm_chance(struct storm *s, uint32_t n);
/* Writes a datagram, BTH .. pad, and returns its length, which may be below a BTH's. */
size_t storm_make(struct storm *s, uint8_t buf[STORM_MAX_LEN]);
/* Damages one that may have been good; returns the new length, at most `len`. */
size_t storm_mutate(struct storm *s, uint8_t *buf, size_t len);

#endif
