/* Detours: a QP leaves the member that its table names, see detour.c. */
#ifndef RBOND_HCA_DETOUR_H
#define RBOND_HCA_DETOUR_H

#include "hca/hca.h"

struct hca_qp;

struct detour {
    bool on;          /* qp->member is not the table's choice */
    /* The member that the peer's packets arrive on now, and did first since the table last moved;
     * STEER_NO_MEMBER: not known yet. Where they differ, the peer has moved. */
    uint8_t heard, heard_first;
    uint8_t times;    /* the peer has sent `again` so often again, over another member than ours */
    psn_t again;
    when_t until;     /* then the table's choice is tried again */
    uint64_t hold_ns; /* how long the next one lasts */
};

void detour_reset(struct detour *d);
/* The peer is silent: the next usable member in turn, if there is another. What is unacknowledged is
 * the caller's to resend. */
void detour_start(struct hca_qp *qp, when_t now);
/* A packet of the peer's arrived on `member`. */
void detour_heard(struct hca_qp *qp, uint8_t member);
/* The peer repeats a request by way of `member`: what we answered may not have reached it. */
void detour_follow(struct hca_qp *qp, uint8_t member, psn_t psn, when_t now);
/* Is the QP on a detour, over a member that is usable still? */
bool detour_stands(const struct hca_qp *qp);
/* Before output: back to the table's choice when the time is over. */
void detour_end_if_due(struct hca_qp *qp, when_t now);

#endif
