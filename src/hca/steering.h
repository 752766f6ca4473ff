/* The steering table as an adapter reads it: which member each affinity bucket uses now.
 * rbondd computes it (bond/) and publishes it (ctl/); the driver copies a consistent snapshot and
 * hands it to the engine with hca_steer(). A plain port is a table with one member. */
#ifndef RBOND_HCA_STEERING_H
#define RBOND_HCA_STEERING_H

#include "base/when.h"
#include <stdint.h>

#define STEER_MAX_MEMBERS 8
#define STEER_BUCKETS 256
#define STEER_NO_MEMBER 0xff

struct steering {
    uint32_t generation;           /* grows with every change; 0 is none yet */
    uint8_t nmembers;              /* member indices 0 .. nmembers-1 are stable while the bond lives */
    uint8_t home[STEER_BUCKETS];   /* the configured member of each bucket */
    uint8_t active[STEER_BUCKETS]; /* the member it uses now; STEER_NO_MEMBER: none is usable */
    uint8_t usable;                /* bit m: member m may carry traffic, chosen now or not */
    when_t changed;                /* when the cause of this generation was seen (CLOCK_MONOTONIC) */
};

#endif
