/* The part of a plan that is messages: requests, their memory, and the receives for them. */
#ifndef RBOND_SIM_PLAN_MESSAGES_H
#define RBOND_SIM_PLAN_MESSAGES_H

#include "sim/plan.h"

void plan_messages(struct plan *p, struct rng *rng);

#endif
