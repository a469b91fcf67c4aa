/* Tables: columns as wide as their contents, and nothing in them that steers a terminal. */

#include "rktletctl/table.h"

#include <time.h>

#include "rktletctl/ctl.h"

#define COLUMNS_MAX 8U

bool table_legend = true, table_full;

void table_done(Table *t) {
        strv_free(t->cells);
}

/* Terminal columns: code points, which is right for what names and images are made of. */
static size_t width_of(const char *s) {
        size_t n = 0;

        for (; *s; s++)
                n += (*s & 0xc0) != 0x80;
        return n;
}

/* The text, filled up with blanks to the width. */
static void print_cell(const char *s, size_t width) {
        print_clean(s);
        for (size_t n = width_of(s); n < width; n++)
                putchar(' ');
}

/* Columns of even width are for people: programs get one blank between fields. */
void table_print(const Table *t) {
        size_t widths[COLUMNS_MAX] = {}, n_columns = 0, n_cells = strv_length(t->cells);
        bool terminal = on_terminal();

        while (t->headers[n_columns])
                n_columns++;
        for (size_t i = 0; i < n_columns && terminal; i++) {
                widths[i] = table_legend ? strlen(t->headers[i]) : 0;
                for (size_t c = i; c < n_cells; c += n_columns)
                        widths[i] = MAX(widths[i], width_of(t->cells[c]));
        }
        for (size_t i = 0; i < n_columns && table_legend; i++) {
                fputs(colour_bold(), stdout);
                print_cell(t->headers[i], i + 1 < n_columns ? widths[i] : 0);
                fputs(colour_off(), stdout);
                putchar(i + 1 < n_columns ? ' ' : '\n');
        }
        for (size_t c = 0; c < n_cells; c++) {
                bool last = c % n_columns == n_columns - 1;
                const char *colour = streq(t->headers[c % n_columns], "STATE") ? colour_of_state(t->cells[c]) : "";

                fputs(colour, stdout);
                print_cell(t->cells[c], last ? 0 : widths[c % n_columns]);
                if (colour[0])
                        fputs(colour_off(), stdout);
                putchar(last ? '\n' : ' ');
        }
        if (table_legend && terminal)
                printf("\n%zu %s listed.\n", n_cells / n_columns, t->noun);
}

int table_cell(Table *t, const char *s) {
        return strv_extend(&t->cells, isempty(s) ? "-" : s);
}

/* 12 digits are enough to tell IDs apart, and commands take prefixes. */
int table_cell_id(Table *t, const char *id) {
        const char *hex = startswith(id, "sha256:");

        if (table_full || !on_terminal())
                return table_cell(t, id);
        return strv_extendf(&t->cells, "%.12s", hex ? hex : id);
}

int table_cell_age(Table *t, uint64_t usec) {
        uint64_t now = (uint64_t) time(NULL), s = usec / USEC_PER_SEC;

        if (usec == 0)
                return table_cell(t, NULL);
        s = now > s ? now - s : 0;
        if (s < 120)
                return strv_extendf(&t->cells, "%" PRIu64 "s", s);
        if (s < 120 * 60)
                return strv_extendf(&t->cells, "%" PRIu64 "min", s / 60);
        if (s < 48 * 3600)
                return strv_extendf(&t->cells, "%" PRIu64 "h", s / 3600);
        return strv_extendf(&t->cells, "%" PRIu64 "d", s / 86400);
}

int table_cell_size(Table *t, uint64_t size) {
        char text[32];

        format_size(size, text, sizeof text);
        return table_cell(t, text);
}
