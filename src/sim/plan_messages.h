/* The part of a plan that is messages: requests, their memory, and the receives for them. */
#ifndef RBOND_SIM_PLAN_MESSAGES_H
#define RBOND_SIM_PLAN_MESSAGES_H

#include "sim/plan.h"

void plan_messages(struct plan *p, struct rng *rng);

/* The same in steps, for plans made by hand (script.c): memory, then requests, then receives. */
void plan_grounds(struct plan *p, struct rng *rng);
void plan_count_message(struct plan *p, const struct request *r);
void plan_receives(struct plan *p, struct rng *rng);

#endif
