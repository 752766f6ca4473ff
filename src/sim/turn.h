/* Inside workload: the turns of one host's programs, at moments drawn from the seed: they post, and take
 * events, notices and completions, which the oracle hears of. */
#ifndef RBOND_SIM_TURN_H
#define RBOND_SIM_TURN_H

#include "sim/actor.h"

/* Its programs shall post again soon; and poll. */
void board_want_tick(struct board *b);
void board_want_poll(struct board *b);
/* All that waits, now. */
void board_take_events(struct board *b);
void board_take_notices(struct board *b);
/* How many completions there were. */
uint32_t board_poll_cq(struct board *b, struct board_cq *cq);

#endif
