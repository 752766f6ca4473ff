/* cm-sim: plays seeds of the connection manager's world. A broken promise is printed with the one
 * command that shows it again. */
#include "sim/cm_world.h"

#include <argp.h>
#include <stdlib.h>

struct options {
    uint64_t seeds, from;
    bool trace;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    char *end = "";
    switch (key) {
    case 'n': o->seeds = strtoull(arg, &end, 0); break;
    case 'f': o->from = strtoull(arg, &end, 0); break;
    case 'x':
        o->from = strtoull(arg, &end, 0);
        o->seeds = 1;
        break;
    case 't': o->trace = true; break;
    case ARGP_KEY_ARG: argp_error(state, "not understood: %s", arg); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    if (*end) argp_error(state, "not a number: %s", arg);
    return 0;
}

static const struct argp_option option_list[] = {
    {"seeds", 'n', "N", 0, "play N seeds (5000)", 0},
    {"from", 'f', "K", 0, "start with seed K (1)", 0},
    {"seed", 'x', "X", 0, "play this seed alone", 0},
    {"trace", 't', NULL, 0, "every message and event", 0},
    {0}};

static const struct argp argp = {
    .options = option_list,
    .parser = parse,
    .doc = "Plays rbond's connection manager over hostile links, with ends that die."};

int main(int argc, char **argv)
{
    struct options o = {.seeds = 5000, .from = 1};
    static struct cm_world w;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    for (uint64_t seed = o.from; seed < o.from + o.seeds; seed++) {
        const char *fault = cm_world_play(&w, seed, o.trace ? stdout : NULL);
        if (!fault) continue;
        printf("cm-sim: seed %llu at %.6f s: broken: %s\nreplay: %s --seed %llu --trace\n",
               (unsigned long long)seed, (double)w.now.ns / 1e9, fault, argv[0],
               (unsigned long long)seed);
        return EXIT_FAILURE;
    }
    printf("cm-sim: %llu seeds passed\n", (unsigned long long)o.seeds);
    return EXIT_SUCCESS;
}
