/* The command line's words: unique prefixes, a command table per object, and its help. */
#ifndef RBOND_CLI_WORDS_H
#define RBOND_CLI_WORDS_H

#include "cli/cli.h"
#include <stdint.h>

struct command {
    const char *name, *args, *help;
    int (*run)(struct cli *cli, int argc, char **argv); /* argv[0]: the first word after `name` */
};

/* Runs the command that argv[0] names, or the first of the table when there is none. `object` is
 * "bond", or "" at the top level; "help" prints the table. */
int words_run(struct cli *cli, const char *object, const struct command *table, size_t count,
              int argc, char **argv);
void words_help(const char *object, const struct command *table, size_t count);

enum { WORD_UNKNOWN = -1, WORD_AMBIGUOUS = -2 };

/* The index of the only name that begins with `word`; an exact match wins over longer names. */
int words_find(const char *word, const char *const names[], size_t count);

/* A whole decimal number in [0, max]; false, and nothing written, for anything else. */
bool words_number(const char *word, uint32_t max, uint32_t *out);

#endif
