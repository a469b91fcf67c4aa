#pragma once
/* Tables, row by row. */

#include "basic/macro.h"

typedef struct Table {
        const char *const *headers; /* NULL-terminated, 8 at most */
        const char *noun;           /* "pods", for the sum below */
        char **cells;               /* row by row */
} Table;

/* Headers and sum; whole IDs. */
extern bool table_legend, table_full;

void table_done(Table *t);
void table_print(const Table *t);

/* Each adds a cell: 0 or -ENOMEM. Empty ones are shown as "-". */
int table_cell(Table *t, const char *s);
/* 12 digits of it on a terminal, unless table_full. */
int table_cell_id(Table *t, const char *id);
/* How long ago that was, in CLOCK_REALTIME µs; 0: unknown. */
int table_cell_age(Table *t, uint64_t usec);
int table_cell_size(Table *t, uint64_t size);
