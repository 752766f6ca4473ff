/* Connections whose one end, the owner, lets the other, the user, at its memory through a window of
 * type 2 alone. The user's requests are in epochs: those of an epoch are posted once the owner has
 * seen the bind of it complete, and the owner closes the window once they all are complete, unless
 * the user's last one is a SEND that closes it. Then the next epoch's key has another tag. One
 * request may come when its epoch is over: it must be refused. */
#ifndef RBOND_SIM_PLAN_WINDOWS_H
#define RBOND_SIM_PLAN_WINDOWS_H

#include "sim/plan.h"

/* Queue pair `qi` becomes an owner, where it may; before faults and receives are planned. */
void plan_windows(struct plan *p, struct rng *rng, uint32_t qi);

#endif
