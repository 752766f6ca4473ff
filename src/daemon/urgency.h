/* How soon the daemon runs when a link dies. On a machine whose processors are all busy (programs
 * that spin on their completions are the rule) an ordinary process waits milliseconds for its turn,
 * so the daemon asks for a realtime priority; where it has no right to one, for a better nice
 * value.
 *
 * Clients can make the daemon work. So that nobody works at realtime priority through it, it steps
 * back to ordinary scheduling while it uses more than a small share of a processor. */
#ifndef RBOND_DAEMON_URGENCY_H
#define RBOND_DAEMON_URGENCY_H

#include "base/when.h"
#include <uv.h>

struct urgency {
    uv_check_t check; /* after each turn of the loop: how much was used? */
    uv_timer_t timer; /* while demoted: try again */
    bool permitted, raised;
    uint64_t window_start_ns, window_cpu_ns;
};

/* Its handles are closed with the loop's others. */
void urgency_start(struct urgency *u, uv_loop_t *loop);

#endif
