/* Words of the command line, after iproute2: any unique prefix will do, `help` works at every
 * level. */
#include "cli/words.h"
#include "base/must.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_COMMANDS 16

static void complain(const char *format, va_list args)
{
    fflush(stdout);
    fputs("rbond: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

enum cli_exit failed(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    complain(format, args);
    va_end(args);
    return CLI_FAILED;
}

enum cli_exit misused(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    complain(format, args);
    va_end(args);
    return CLI_USAGE;
}

int words_find(const char *word, const char *const names[], size_t count)
{
    size_t len = strlen(word);
    int found = WORD_UNKNOWN;

    if (!len) return WORD_UNKNOWN;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(word, names[i], len)) continue;
        if (!names[i][len]) return (int)i;
        found = found == WORD_UNKNOWN ? (int)i : WORD_AMBIGUOUS;
    }
    return found;
}

bool words_number(const char *word, uint32_t max, uint32_t *out)
{
    char *end;
    unsigned long value;

    if (*word < '0' || *word > '9') return false;
    errno = 0;
    value = strtoul(word, &end, 10);
    if (*end || errno || value > max) return false;
    *out = (uint32_t)value;
    return true;
}

void words_help(const char *object, const struct command *table, size_t count)
{
    if (!*object) printf("Usage: rbond [-j] [-p] OBJECT COMMAND ...\n");
    for (size_t i = 0; i < count; i++) {
        char left[160];

        snprintf(left, sizeof left, "rbond %s%s%s%s%s", object,
                 *object && *table[i].name ? " " : "", table[i].name, *table[i].args ? " " : "",
                 table[i].args);
        printf("    %s\n", left);
        if (*table[i].help) printf("            %s\n", table[i].help);
    }
}

int words_run(struct cli *cli, const char *object, const struct command *table, size_t count,
              int argc, char **argv)
{
    const char *names[MAX_COMMANDS + 1];
    const char *gap = *object ? " " : "";
    int at;

    must(count && count <= MAX_COMMANDS);
    if (argc == 0) return table[0].run(cli, 0, argv);
    for (size_t i = 0; i < count; i++) names[i] = table[i].name;
    names[count] = "help";
    at = words_find(argv[0], names, count + 1);
    if (at == (int)count || !strcmp(argv[0], "-h") || !strcmp(argv[0], "--help")) {
        words_help(object, table, count);
        return CLI_OK;
    }
    if (at == WORD_AMBIGUOUS)
        return misused("'%s' could be several things: try 'rbond %s%shelp'", argv[0], object, gap);
    if (at < 0)
        return misused("%s '%s' is unknown: try 'rbond %s%shelp'", *object ? "command" : "object",
                       argv[0], object, gap);
    if (argc > 1 && !strcmp(argv[1], "help") && *object) {
        words_help(object, table + at, 1);
        return CLI_OK;
    }
    return table[at].run(cli, argc - 1, argv + 1);
}
