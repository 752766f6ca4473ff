/* Which seeds a simulator's command line asks for: --seeds, --from, --seed, --trace. */
#ifndef RBOND_SIM_SEEDS_H
#define RBOND_SIM_SEEDS_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

struct seeds {
    uint64_t count, from;
    bool trace;
};

/* A child parser of both programs: its input is a struct seeds with the defaults. */
extern const struct argp seeds_argp;

/* A number, all of it; what is none ends the program. */
uint64_t seeds_number(struct argp_state *state, const char *arg);

#endif
