/* See seeds.h. */
#include "sim/seeds.h"
#include <stdlib.h>

uint64_t seeds_number(struct argp_state *state, const char *arg)
{
    char *end;
    uint64_t number = strtoull(arg, &end, 0);
    if (*end || end == arg) argp_error(state, "not a number: %s", arg);
    return number;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct seeds *s = state->input;
    switch (key) {
    case 'n': s->count = seeds_number(state, arg); break;
    case 'f': s->from = seeds_number(state, arg); break;
    case 'x':
        s->from = seeds_number(state, arg);
        s->count = 1;
        break;
    case 't': s->trace = true; break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_option option_list[] = {
    {"seeds", 'n', "N", 0, "run N seeds", 0},
    {"from", 'f', "K", 0, "start with seed K", 0},
    {"seed", 'x', "X", 0, "run this seed alone", 0},
    {"trace", 't', NULL, 0, "every packet, message and event", 0},
    {0}};

const struct argp seeds_argp = {.options = option_list, .parser = parse};
