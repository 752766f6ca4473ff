/* rbond: shows and changes what the rbondd of this network namespace keeps, runs programs over it,
 * and keeps a lab of two hosts. `rbond OBJECT COMMAND`, after iproute2; a file per object. */
#include "cli/words.h"
#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const struct command OBJECTS[] = {
    {"dev", "[show]", "verbs devices", dev_main},
    {"link", "[show]", "net devices under them", link_main},
    {"bond", "show|add|del|set", "managed bonds", bond_main},
    {"resource", "show qp|function", "what programs hold", resource_main},
    {"statistic", "show|rate", "counters", statistic_main},
    {"monitor", "", "events as they happen", monitor_main},
    {"run", "-- CMD", "an unmodified program with rbond's devices", run_main},
    {"lab", "up|exec|cut|mend|status|down", "two hosts in network namespaces, to try things",
     lab_main},
};
#define NOBJECTS (sizeof OBJECTS / sizeof *OBJECTS)

static int usage(void)
{
    words_help("", OBJECTS, NOBJECTS);
    printf("Any word may be shortened while it stays unique; 'rbond OBJECT help' says more.\n"
           "    -j JSON   -p JSON with line breaks   -V version   -h this\n");
    return CLI_OK;
}

int main(int argc, char **argv)
{
    static const struct option LONG[] = {
        {"json", no_argument, NULL, 'j'},    {"pretty", no_argument, NULL, 'p'},
        {"Version", no_argument, NULL, 'V'}, {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},    {0},
    };
    struct cli cli = {0};
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, "+jpVh", LONG, NULL)) != -1) {
        switch (option) {
        case 'j': cli.json = true; break;
        case 'p': cli.json = cli.pretty = true; break;
        case 'V': printf("rbond %s\n", RBOND_VERSION); return CLI_OK;
        case 'h': return usage();
        default: return misused("option '%s' is unknown: try 'rbond help'", argv[optind - 1]);
        }
    }
    if (optind == argc) {
        usage();
        return CLI_USAGE;
    }
    if (!strcmp(argv[optind], "help")) return usage();
    return words_run(&cli, "", OBJECTS, NOBJECTS, argc - optind, argv + optind);
}
