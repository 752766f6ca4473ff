/* The speed at which an adapter's unacknowledged traffic leaves: see pace.c. */
#ifndef RBOND_HCA_PACE_H
#define RBOND_HCA_PACE_H

#include "hca/hca.h"

struct pace {
    uint64_t bytes_per_sec; /* 0: as fast as it goes */
    uint32_t packet_ns;     /* the least time for a packet */
    when_t idle_at;         /* when the port will have sent all that it was given */
};

/* The port's own pace: of packets, too. */
void pace_port(struct pace *pace, uint64_t bytes_per_sec);
/* That of one QP, from ibv_modify_qp_rate_limit(3); 0 kbps: no limit. */
void pace_limit(struct pace *pace, uint32_t kbps);

/* May more be given to the port now? */
bool pace_admits(const struct pace *pace, when_t now);
/* When it may, if not now. */
when_t pace_resume_at(const struct pace *pace);
/* These packets go to the port. */
void pace_sent(struct pace *pace, const struct hca_tx *tx, size_t n, when_t now);

#endif
