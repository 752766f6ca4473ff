/* Words: unique prefixes, numbers, dispatch and its complaints. */
#include "cli/words.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const NAMES[] = {"show", "set", "status", "stat", "del"};
#define COUNT (sizeof NAMES / sizeof *NAMES)

static void prefixes(void **state)
{
    assert_int_equal(words_find("sh", NAMES, COUNT), 0);
    assert_int_equal(words_find("d", NAMES, COUNT), 4);
    assert_int_equal(words_find("del", NAMES, COUNT), 4);
    assert_int_equal(words_find("s", NAMES, COUNT), WORD_AMBIGUOUS);
    assert_int_equal(words_find("sta", NAMES, COUNT), WORD_AMBIGUOUS);
    assert_int_equal(words_find("delete", NAMES, COUNT), WORD_UNKNOWN);
    assert_int_equal(words_find("", NAMES, COUNT), WORD_UNKNOWN);
}

static void exact_wins(void **state)
{
    assert_int_equal(words_find("stat", NAMES, COUNT), 3);
    assert_int_equal(words_find("status", NAMES, COUNT), 2);
}

static void numbers(void **state)
{
    static const char *const BAD[] = {
        "", "-1", "+1", " 1", "1 ", "x", "0x10", "101", "99999999999999999999"};
    uint32_t value = 7;

    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        assert_false(words_number(BAD[i], 100, &value));
    assert_int_equal(value, 7);
    assert_true(words_number("100", 100, &value));
    assert_int_equal(value, 100);
    assert_true(words_number("0", 100, &value));
    assert_int_equal(value, 0);
}

static int seen_argc;
static const char *seen_first;

static int first(struct cli *cli, int argc, char **argv)
{
    seen_argc = argc;
    seen_first = argc ? argv[0] : "";
    return 40;
}

static int second(struct cli *cli, int argc, char **argv)
{
    first(cli, argc, argv);
    return 41;
}

static const struct command TABLE[] = {
    {"show", "[X]", "first", first},
    {"set", "X", "second", second},
};

/* Runs the words with stdout and stderr caught in `out`. */
static int run(const char *object, char *words[], char out[1024])
{
    struct cli cli = {0};
    FILE *file = tmpfile();
    int keep[2] = {dup(1), dup(2)}, argc = 0, rc;
    size_t len;

    assert_non_null(file);
    fflush(stdout);
    dup2(fileno(file), 1);
    dup2(fileno(file), 2);
    while (words[argc]) argc++;
    rc = words_run(&cli, object, TABLE, 2, argc, words);
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        dup2(keep[i], i + 1);
        close(keep[i]);
    }
    rewind(file);
    len = fread(out, 1, 1023, file);
    out[len] = 0;
    fclose(file);
    return rc;
}

static void dispatch(void **state)
{
    char out[1024];

    assert_int_equal(run("bond", (char *[]){NULL}, out), 40);
    assert_int_equal(seen_argc, 0);
    assert_int_equal(run("bond", (char *[]){"sh", "bond0", NULL}, out), 40);
    assert_int_equal(seen_argc, 1);
    assert_string_equal(seen_first, "bond0");
    assert_int_equal(run("bond", (char *[]){"set", "bond0", "x", NULL}, out), 41);
    assert_int_equal(seen_argc, 2);
}

static void complaints(void **state)
{
    char out[1024];

    assert_int_equal(run("bond", (char *[]){"s", NULL}, out), CLI_USAGE);
    assert_string_equal(out, "rbond: 's' could be several things: try 'rbond bond help'\n");
    assert_int_equal(run("bond", (char *[]){"fly", NULL}, out), CLI_USAGE);
    assert_string_equal(out, "rbond: command 'fly' is unknown: try 'rbond bond help'\n");
    assert_int_equal(run("", (char *[]){"fly", NULL}, out), CLI_USAGE);
    assert_string_equal(out, "rbond: object 'fly' is unknown: try 'rbond help'\n");
}

static void help(void **state)
{
    char out[1024];

    assert_int_equal(run("bond", (char *[]){"help", NULL}, out), CLI_OK);
    assert_string_equal(out, "    rbond bond show [X]\n            first\n"
                             "    rbond bond set X\n            second\n");
    assert_int_equal(run("bond", (char *[]){"set", "help", NULL}, out), CLI_OK);
    assert_string_equal(out, "    rbond bond set X\n            second\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefixes), cmocka_unit_test(exact_wins), cmocka_unit_test(numbers),
        cmocka_unit_test(dispatch), cmocka_unit_test(complaints), cmocka_unit_test(help),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
