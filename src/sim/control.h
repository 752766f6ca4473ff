/* Inside workload: what programs do to their queue pairs as a whole, when the plan says so: SQD, RESET and
 * again, destroy, ERR, another bucket. */
#ifndef RBOND_SIM_CONTROL_H
#define RBOND_SIM_CONTROL_H

#include "sim/actor.h"

/* `ctx` is the struct work, `arg` the index of the plan's control: for world_at. */
void control_run(void *ctx, uint64_t arg);

#endif
