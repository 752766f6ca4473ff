/* Detours: a QP leaves the member that its table names, see detour.c. */
#ifndef RBOND_HCA_DETOUR_H
#define RBOND_HCA_DETOUR_H

#include "hca/hca.h"

struct hca_qp;

struct detour {
    bool on;          /* qp->member is not the table's choice */
    bool peer_moved;  /* its packets have come to arrive on another member since the last table */
    uint8_t heard;    /* the member they arrive on; STEER_NO_MEMBER: not known yet */
    when_t until;     /* then the table's choice is tried again */
    uint64_t hold_ns; /* how long the next one lasts */
};

void detour_reset(struct detour *d);
/* The peer is silent: the next usable member in turn, if there is another. What is unacknowledged is
 * the caller's to resend. */
void detour_start(struct hca_qp *qp, when_t now);
/* A packet of the peer's arrived on `member`. */
void detour_heard(struct hca_qp *qp, uint8_t member);
/* The peer repeats itself by way of `member`: what we answered may not have reached it. */
void detour_follow(struct hca_qp *qp, uint8_t member, when_t now);
/* Before output: back to the table's choice when the time is over. */
void detour_end_if_due(struct hca_qp *qp, when_t now);

#endif
