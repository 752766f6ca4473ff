/* sim: runs seeds. Each is a world of its own; a broken promise is printed with the one command
 * that shows it again. */
#include "sim/seeds.h"
#include "sim/workload.h"
#include <stdlib.h>
#include <time.h>

struct options {
    struct seeds seeds;
    double seconds;
    enum profile only;
    bool verbose, twice, keep_going;
    uint32_t forge_ppm;
};

static struct {
    uint64_t runs, failed, packets, completions, retry_excs;
} sum[PROFILE_COUNT];

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    char *end = "";
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &o->seeds; break;
    case 's':
        o->seconds = strtod(arg, &end);
        if (*end) argp_error(state, "not a number: %s", arg);
        break;
    case 'p':
        o->only = profile_named(arg);
        if (o->only == PROFILE_COUNT) argp_error(state, "no such profile: %s", arg);
        break;
    case 'F': o->forge_ppm = (uint32_t)seeds_number(state, arg); break;
    case 'v': o->verbose = true; break;
    case '2': o->twice = true; break;
    case 'k': o->keep_going = true; break;
    case ARGP_KEY_ARG: argp_error(state, "not understood: %s", arg); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_option option_list[] = {
    {"seconds", 's', "S", 0, "stop after S seconds, however many seeds that was", 0},
    {"profile", 'p', "NAME", 0,
     "links of this kind only: clean, lossy, reorder, double, corrupt, mixed, "
     "cuts, flapping, both-ends, one-sided, silent, blackout, stays-down, tiny-socket, far",
     0},
    {"twice", '2', NULL, 0, "run each seed twice: both must do exactly the same", 0},
    {"keep-going", 'k', NULL, 0, "go on after a failure", 0},
    {"forge", 'F', "PPM", 0,
     "forge so many packets in a million, and judge only crashes and memory", 0},
    {"verbose", 'v', NULL, 0, "a line for each seed", 0},
    {0}};

static const struct argp_child children[] = {{&seeds_argp, 0, NULL, 0}, {0}};

static const struct argp argp = {
    .options = option_list,
    .parser = parse,
    .doc =
        "Runs rbond's adapter over simulated hostile links and checks every promise of RDMA: 10000 "
        "seeds from 0 on, or others.",
    .children = children};

static double seconds_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static bool run_seed(const struct options *o, const char *program, uint64_t seed)
{
    struct plan *plan = malloc(sizeof *plan);
    struct outcome out, again;
    if (!plan) return false;
    plan_draw(plan, seed, o->only);
    enum profile profile = plan->profile;
    plan->forge_ppm = o->forge_ppm;
    workload_run_plan(&out, plan, o->seeds.trace ? stdout : NULL);
    plan_free(plan);
    free(plan);
    sum[profile].runs++;
    sum[profile].packets += out.packets;
    sum[profile].completions += out.completions;
    sum[profile].retry_excs += out.retry_excs;
    if (o->twice && !o->forge_ppm && !out.violation[0]) {
        workload_run(&again, seed, o->only, NULL);
        if (again.hash != out.hash)
            snprintf(out.violation, sizeof out.violation, "a second run went another way");
    }
    if (o->verbose)
        printf("seed %llu %s: %llu packets, %llu completions, %.3f ms, hash %016llx\n",
               (unsigned long long)seed, profile_name(profile), (unsigned long long)out.packets,
               (unsigned long long)out.completions,
               (double)when_since(out.ended, out.started) / (double)MS_NS,
               (unsigned long long)out.hash);
    if (!out.violation[0]) return true;
    sum[profile].failed++;
    printf("seed %llu (%s links): %s\n", (unsigned long long)seed, profile_name(profile),
           out.violation);
    printf("replay: %s --seed %llu --trace%s%s\n", program, (unsigned long long)seed,
           o->only == PROFILE_COUNT ? "" : " --profile ",
           o->only == PROFILE_COUNT ? "" : profile_name(o->only));
    fflush(stdout);
    return false;
}

static void print_sums(void)
{
    printf("%-12s %9s %7s %12s %12s %10s\n", "links", "seeds", "failed", "packets", "completions",
           "retry-exc");
    for (int p = 0; p < PROFILE_COUNT; p++)
        if (sum[p].runs)
            printf("%-12s %9llu %7llu %12llu %12llu %10llu\n", profile_name((enum profile)p),
                   (unsigned long long)sum[p].runs, (unsigned long long)sum[p].failed,
                   (unsigned long long)sum[p].packets, (unsigned long long)sum[p].completions,
                   (unsigned long long)sum[p].retry_excs);
}

int main(int argc, char **argv)
{
    struct options o = {.seeds.count = 10000, .only = PROFILE_COUNT};
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    double start = seconds_now(), said = start;
    uint64_t failed = 0, done = 0;
    for (; done < o.seeds.count; done++) {
        double now = seconds_now();
        if (o.seconds > 0 && now - start > o.seconds) break;
        if (now - said > 10) {
            printf("%llu of %llu seeds\n", (unsigned long long)done,
                   (unsigned long long)o.seeds.count);
            fflush(stdout);
            said = now;
        }
        if (run_seed(&o, argv[0], o.seeds.from + done)) continue;
        failed++;
        if (!o.keep_going) {
            done++;
            break;
        }
    }
    if (o.seeds.count > 1) print_sums();
    printf("sim: %llu seeds, %llu failed, %.1f s\n", (unsigned long long)done,
           (unsigned long long)failed, seconds_now() - start);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
