/* The table writer: the same rows as text and as JSON. */
#include "cli/table.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct column COLUMNS[] = {
    {"name", "NAME"}, {"bytes", "BYTES"}, {"hidden", NULL},
    {"up", "UP"},     {"rate", "RATE"},   {"members", "MEMBERS"},
};

static void fill(struct table *table)
{
    static const char UNTERMINATED[4] = {'v', 'a', '0', '0'};

    table_row(table);
    table_text(table, "name", "rb_bond0");
    table_number(table, "bytes", UINT64_MAX);
    table_number(table, "hidden", 1);
    table_flag(table, "up", true);
    table_real(table, "rate", 2.5);
    table_list(table, "members", "va0");
    table_list(table, "members", "va1");
    table_row(table);
    table_field(table, "name", UNTERMINATED);
    table_number(table, "bytes", 7);
    table_flag(table, "up", false);
    table_list(table, "members", "");
}

/* What `write` prints for the rows of fill(). */
static void caught(struct cli cli, bool stream, char out[1024])
{
    struct table *table = table_new(&cli, COLUMNS, sizeof COLUMNS / sizeof *COLUMNS);
    FILE *file = tmpfile();
    int keep = dup(1);
    size_t len;

    assert_non_null(file);
    fflush(stdout);
    dup2(fileno(file), 1);
    fill(table);
    if (stream) {
        table_stream(table);
        fill(table);
        table_stream(table);
        table_free(table);
    } else {
        assert_int_equal(table_print(table), CLI_OK);
    }
    fflush(stdout);
    dup2(keep, 1);
    close(keep);
    rewind(file);
    len = fread(out, 1, 1023, file);
    out[len] = 0;
    fclose(file);
}

static void text(void **state)
{
    char out[1024];

    caught((struct cli){0}, false, out);
    assert_string_equal(out, "NAME                     BYTES  UP   RATE  MEMBERS\n"
                             "rb_bond0  18446744073709551615  yes  2.50  va0,va1\n"
                             "va00                         7  no   -     -\n");
}

static void json(void **state)
{
    char out[1024];

    caught((struct cli){.json = true}, false, out);
    assert_string_equal(
        out, "[{\"name\":\"rb_bond0\",\"bytes\":18446744073709551615,\"hidden\":1,\"up\":true,"
             "\"rate\":2.50,\"members\":[\"va0\",\"va1\"]},"
             "{\"name\":\"va00\",\"bytes\":7,\"up\":false,\"members\":[]}]\n");
}

static void streams(void **state)
{
    char out[1024];
    size_t lines = 0;

    caught((struct cli){0}, true, out);
    for (const char *c = out; *c; c++) lines += *c == '\n';
    assert_int_equal(lines, 5); /* one head, twice two rows */
    caught((struct cli){.json = true}, true, out);
    assert_non_null(strstr(out, "}\n{"));
    assert_null(strstr(out, "},{"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text),
        cmocka_unit_test(json),
        cmocka_unit_test(streams),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
