/* cm-sim: plays seeds of the connection manager's world. A broken promise is printed with the one
 * command that shows it again. */
#include "sim/cm_world.h"
#include "sim/seeds.h"

#include <stdlib.h>

static error_t parse(int key, char *arg, struct argp_state *state)
{
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = state->input; break;
    case ARGP_KEY_ARG: argp_error(state, "not understood: %s", arg); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child children[] = {{&seeds_argp, 0, NULL, 0}, {0}};

static const struct argp argp = {
    .parser = parse,
    .doc =
        "Plays rbond's connection manager over hostile links, with ends that die: 5000 seeds from "
        "1 on, or others.",
    .children = children};

int main(int argc, char **argv)
{
    struct seeds s = {.count = 5000, .from = 1};
    static struct cm_world w;
    argp_parse(&argp, argc, argv, 0, NULL, &s);
    for (uint64_t seed = s.from; seed < s.from + s.count; seed++) {
        const char *fault = cm_world_play(&w, seed, s.trace ? stdout : NULL);
        if (!fault) continue;
        printf("cm-sim: seed %llu at %.6f s: broken: %s\nreplay: %s --seed %llu --trace\n",
               (unsigned long long)seed, (double)w.now.ns / 1e9, fault, argv[0],
               (unsigned long long)seed);
        return EXIT_FAILURE;
    }
    printf("cm-sim: %llu seeds passed\n", (unsigned long long)s.count);
    return EXIT_SUCCESS;
}
