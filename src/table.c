/* Tables for the terminal: columns as wide as their contents, and nothing in them that steers it. */

#include "table.h"

#include <ctype.h>
#include <inttypes.h>
#include <time.h>

#include "basic/string-util.h"

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

/* Whatever comes from others must not steer the terminal. */
void table_print_cell(const char *s, size_t width) {
        size_t n = width_of(s);

        for (; *s; s++)
                putchar(iscntrl((unsigned char) *s) ? '?' : *s);
        for (; n < width; n++)
                putchar(' ');
}

void table_print(const Table *t) {
        size_t widths[COLUMNS_MAX] = {}, n_columns = 0, n_cells = strv_length(t->cells);

        while (t->headers[n_columns])
                n_columns++;
        for (size_t i = 0; i < n_columns; i++) {
                widths[i] = table_legend ? strlen(t->headers[i]) : 0;
                for (size_t c = i; c < n_cells; c += n_columns)
                        widths[i] = MAX(widths[i], width_of(t->cells[c]));
        }
        if (table_legend)
                for (size_t i = 0; i < n_columns; i++) {
                        table_print_cell(t->headers[i], i + 1 < n_columns ? widths[i] + 1 : 0);
                        if (i + 1 == n_columns)
                                putchar('\n');
                }
        for (size_t c = 0; c < n_cells; c++) {
                bool last = c % n_columns == n_columns - 1;

                table_print_cell(t->cells[c], last ? 0 : widths[c % n_columns] + 1);
                if (last)
                        putchar('\n');
        }
        if (table_legend)
                printf("\n%zu %s listed.\n", n_cells / n_columns, t->noun);
}

int table_cell(Table *t, const char *s) {
        return strv_extend(&t->cells, isempty(s) ? "-" : s);
}

/* 12 digits are enough to tell IDs apart, and commands take prefixes. */
int table_cell_id(Table *t, const char *id) {
        const char *hex = startswith(id, "sha256:");

        if (table_full)
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
        static const char *const units[] = { "B", "K", "M", "G", "T" };
        double d = (double) size;
        size_t i = 0;

        for (; d >= 1024 && i + 1 < ELEMENTSOF(units); i++)
                d /= 1024;
        return strv_extendf(&t->cells, i > 0 ? "%.1f%s" : "%.0f%s", d, units[i]);
}
