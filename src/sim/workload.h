/* The programs: they carry out a plan over the verbs of hca.h on every host of a world, at moments
 * drawn from the seed, and tell the oracle what they did and saw. */
#ifndef RBOND_SIM_WORKLOAD_H
#define RBOND_SIM_WORKLOAD_H

#include "sim/plan.h"

struct outcome {
    char violation[512]; /* empty: every promise held */
    uint64_t hash;       /* of all that happened */
    uint64_t packets, completions, retry_excs, events;
    uint64_t windows_opened, windows_closed, windows_refused; /* refused: used when closed */
    when_t started, ended; /* virtual */
    struct hca_counters counters[WORLD_MAX_HOSTS];
    struct hca_qp_view view[PLAN_MAX_QPS]; /* as they ended; zero for destroyed ones */
};

/* Draws the plan of `seed` (profile `only`, or any with PROFILE_COUNT) and runs it to the end.
 * `trace`: every packet and completion, where not NULL. */
void workload_run(struct outcome *out, uint64_t seed, enum profile only, FILE *trace);
/* The same for a plan made by hand; does not free it. */
void workload_run_plan(struct outcome *out, struct plan *plan, FILE *trace);

#endif
