/* Rows are kept as JSON objects; text is derived from them, so both always say the same. */
#include "cli/table.h"
#include "base/must.h"
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CELL_MAX 512

struct table {
    const struct column *columns;
    size_t count;
    bool json, pretty, headed;
    struct json_object *rows, *row;
};

struct table *table_new(const struct cli *cli, const struct column *columns, size_t count)
{
    struct table *table = calloc(1, sizeof *table);

    must(table);
    table->columns = columns;
    table->count = count;
    table->json = cli->json;
    table->pretty = cli->pretty;
    table->rows = json_object_new_array();
    must(table->rows);
    return table;
}

void table_free(struct table *table)
{
    json_object_put(table->rows);
    free(table);
}

void table_row(struct table *table)
{
    table->row = json_object_new_object();
    must(table->row);
    json_object_array_add(table->rows, table->row);
}

static void put(struct table *table, const char *key, struct json_object *value)
{
    size_t at = 0;

    while (at < table->count && strcmp(table->columns[at].key, key)) at++;
    must(at < table->count && table->row && value);
    json_object_object_add(table->row, key, value);
}

void table_text(struct table *table, const char *key, const char *value)
{
    put(table, key, json_object_new_string(value));
}

void table_textf(struct table *table, const char *key, const char *format, ...)
{
    char text[CELL_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    table_text(table, key, text);
}

void table_bytes(struct table *table, const char *key, const char *field, size_t size)
{
    put(table, key, json_object_new_string_len(field, (int)strnlen(field, size)));
}

void table_number(struct table *table, const char *key, uint64_t value)
{
    put(table, key, json_object_new_uint64(value));
}

void table_real(struct table *table, const char *key, double value)
{
    char digits[64];

    snprintf(digits, sizeof digits, "%.2f", value);
    put(table, key, json_object_new_double_s(value, digits));
}

void table_flag(struct table *table, const char *key, bool value)
{
    put(table, key, json_object_new_boolean(value));
}

void table_list(struct table *table, const char *key, const char *item)
{
    struct json_object *list;

    if (!json_object_object_get_ex(table->row, key, &list)) {
        list = json_object_new_array();
        put(table, key, list);
    }
    if (*item) json_object_array_add(list, json_object_new_string(item));
}

static bool is_number(struct json_object *cell)
{
    return json_object_is_type(cell, json_type_int) || json_object_is_type(cell, json_type_double);
}

/* A cell as text; what is absent or empty shows as "-" so that columns can be counted by scripts.
 */
static void cell_text(struct json_object *cell, char text[CELL_MAX])
{
    size_t used = 0, items;

    snprintf(text, CELL_MAX, "%s", cell ? json_object_get_string(cell) : "");
    if (json_object_is_type(cell, json_type_boolean)) {
        snprintf(text, CELL_MAX, "%s", json_object_get_boolean(cell) ? "yes" : "no");
    } else if (json_object_is_type(cell, json_type_array)) {
        *text = 0;
        items = json_object_array_length(cell);
        for (size_t i = 0; i < items && used < CELL_MAX - 1; i++)
            used += (size_t)snprintf(text + used, CELL_MAX - used, "%s%s", i ? "," : "",
                                     json_object_get_string(json_object_array_get_idx(cell, i)));
    }
    if (!*text) strcpy(text, "-");
}

static struct json_object *cell_at(const struct table *table, size_t row, size_t column)
{
    struct json_object *cell = NULL;

    json_object_object_get_ex(json_object_array_get_idx(table->rows, row),
                              table->columns[column].key, &cell);
    return cell;
}

/* Widths come from what is shown; numbers go to the right, text to the left, no trailing blanks. */
static void print_text(const struct table *table, bool head)
{
    size_t rows = json_object_array_length(table->rows), last = 0;
    int *width = calloc(table->count, sizeof *width);
    char text[CELL_MAX];

    must(width);
    for (size_t c = 0; c < table->count; c++) {
        if (!table->columns[c].head) continue;
        last = c;
        width[c] = (int)strlen(table->columns[c].head);
        for (size_t r = 0; r < rows; r++) {
            cell_text(cell_at(table, r, c), text);
            if ((int)strlen(text) > width[c]) width[c] = (int)strlen(text);
        }
    }
    for (size_t r = head ? 0 : 1; r <= rows && rows; r++) {
        for (size_t c = 0; c < table->count; c++) {
            struct json_object *cell = cell_at(table, r ? r - 1 : 0, c);

            if (!table->columns[c].head) continue;
            cell_text(cell, text);
            printf("%*s%s",
                   is_number(cell) ? width[c]
                   : c == last     ? 0
                                   : -width[c],
                   r ? text : table->columns[c].head, c == last ? "\n" : "  ");
        }
    }
    free(width);
}

static void print_json(const struct table *table, struct json_object *value)
{
    int flags =
        table->pretty ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED : JSON_C_TO_STRING_PLAIN;

    puts(json_object_to_json_string_ext(value, flags | JSON_C_TO_STRING_NOSLASHESCAPE));
}

enum cli_exit table_print(struct table *table)
{
    if (table->json)
        print_json(table, table->rows);
    else
        print_text(table, true);
    table_free(table);
    return fflush(stdout) ? failed("cannot write the output") : CLI_OK;
}

void table_stream(struct table *table)
{
    size_t rows = json_object_array_length(table->rows);

    if (table->json)
        for (size_t r = 0; r < rows; r++)
            print_json(table, json_object_array_get_idx(table->rows, r));
    else
        print_text(table, !table->headed);
    table->headed = true;
    fflush(stdout);
    json_object_put(table->rows);
    table->rows = json_object_new_array();
    table->row = NULL;
    must(table->rows);
}
