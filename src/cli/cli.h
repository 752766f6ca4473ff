/* What every command of rbond gets, and how it ends. One object a file; main.c lists them. */
#ifndef RBOND_CLI_CLI_H
#define RBOND_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>

struct cli {
    bool json, pretty;
};

/* Exit codes. `run` and `lab exec` give the program's own instead, 126 or 127 when it cannot start.
 */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NOT_RUNNABLE = 126,
    CLI_NOT_FOUND = 127
};

/* Print one line, "rbond: what: why: what to do", and give the exit code to return. */
enum cli_exit failed(const char *format, ...) __attribute__((format(printf, 1, 2)));
enum cli_exit misused(const char *format, ...) __attribute__((format(printf, 1, 2)));

int dev_main(struct cli *cli, int argc, char **argv);
int link_main(struct cli *cli, int argc, char **argv);
int bond_main(struct cli *cli, int argc, char **argv);
int resource_main(struct cli *cli, int argc, char **argv);
int statistic_main(struct cli *cli, int argc, char **argv);
int monitor_main(struct cli *cli, int argc, char **argv);
int run_main(struct cli *cli, int argc, char **argv);
int lab_main(struct cli *cli, int argc, char **argv);

#endif
