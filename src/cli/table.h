/* One writer for every list that rbond shows: rows of keyed cells, printed as aligned text or JSON.
 */
#ifndef RBOND_CLI_TABLE_H
#define RBOND_CLI_TABLE_H

#include "cli/cli.h"
#include <stdint.h>

struct column {
    const char *key;  /* in JSON */
    const char *head; /* in text; NULL: in JSON only */
};

struct table;

/* `columns` stays the caller's and must outlive the table. Order in text: that of `columns`. */
struct table *table_new(const struct cli *cli, const struct column *columns, size_t count);
void table_row(struct table *table);
/* Cells of the current row; a key outside the columns is a bug of the caller. */
void table_text(struct table *table, const char *key, const char *value);
void table_textf(struct table *table, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A fixed-size field of a record, which need not be terminated. */
void table_bytes(struct table *table, const char *key, const char *field, size_t size);
#define table_field(table, key, field) table_bytes(table, key, field, sizeof(field))
void table_number(struct table *table, const char *key, uint64_t value);
void table_real(struct table *table, const char *key, double value); /* two decimals */
void table_flag(struct table *table, const char *key, bool value);
void table_list(struct table *table, const char *key, const char *item); /* appends one item */
/* Prints everything and frees the table. */
enum cli_exit table_print(struct table *table);
/* Prints the rows so far, one JSON object a line or one line of text, and forgets them: for
 * streams. */
void table_stream(struct table *table);
void table_free(struct table *table);

#endif
