/* list-pods, list-containers, list-images. */

#include "rktletctl/ctl.h"
#include "rktletctl/table.h"

/* Newest first, as the kubelet's own tools have it. */
typedef struct Row {
        uint64_t created;
        const char *s[7];
        int exit_code;
} Row;

static int compare_rows(const void *a, const void *b) {
        const Row *x = a, *y = b;

        return x->created < y->created ? 1 : x->created > y->created ? -1 : strcmp(x->s[0], y->s[0]);
}

static int grow(Row **rows, size_t n) {
        Row *p;

        if (n & (n - 1))
                return 0;
        p = realloc(*rows, MAX(n * 2, (size_t) 16) * sizeof *p);
        if (!p)
                return -ENOMEM;
        *rows = p;
        return 0;
}

int list_pods(sd_bus *bus, char **args) {
        static const char *const headers[] = { "ID", "NAMESPACE", "NAME", "STATE", "AGE", "IP", "UNIT", NULL };
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(table_done) Table t = { headers, "pods", NULL };
        _cleanup_json_ json_t *j = json_array();
        _cleanup_free_ Row *rows = NULL;
        size_t n = 0;
        int r;

        r = call_list(bus, "ListPods", "(sssstsso)", &m);
        if (r < 0)
                return r;
        for (;; n++) {
                r = grow(&rows, n);
                if (r < 0)
                        return r;
                r = sd_bus_message_read(m, "(sssstsso)", &rows[n].s[0], &rows[n].s[1], &rows[n].s[2], &rows[n].s[3],
                                        &rows[n].created, &rows[n].s[4], &rows[n].s[5], NULL);
                if (r < 0)
                        return fail(r, NULL);
                if (r == 0)
                        break;
        }
        qsort(rows, n, sizeof *rows, compare_rows);
        for (size_t i = 0; i < n; i++) {
                const Row *p = rows + i;

                if (arg.json) {
                        json_t *o = json_pack("{s:s,s:s,s:s,s:s,s:I,s:s,s:s}", "id", p->s[0], "namespace", p->s[1],
                                              "name", p->s[2], "state", p->s[3], "created_usec",
                                              (json_int_t) p->created, "ip", p->s[4], "unit", p->s[5]);

                        if (json_array_append_new(j, o) < 0)
                                return -ENOMEM;
                        continue;
                }
                if (table_cell_id(&t, p->s[0]) < 0 || table_cell(&t, p->s[1]) < 0 || table_cell(&t, p->s[2]) < 0 ||
                    table_cell(&t, p->s[3]) < 0 ||
                    table_cell_age(&t, p->created) < 0 || table_cell(&t, p->s[4]) < 0)
                        return -ENOMEM;
                r = table_full || !on_terminal()
                                    ? table_cell(&t, p->s[5])
                                    : strv_extendf(&t.cells, "%.23s%s", p->s[5], strlen(p->s[5]) > 23 ? "…" : "");
                if (r < 0)
                        return r;
        }
        if (arg.json)
                return print_json(j);
        pager_open();
        table_print(&t);
        return 0;
}

int list_containers(sd_bus *bus, char **args) {
        static const char *const headers[] = { "ID", "POD", "NAME", "STATE", "AGE", "IMAGE", NULL };
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(table_done) Table t = { headers, "containers", NULL };
        _cleanup_json_ json_t *j = json_array();
        _cleanup_free_ Row *rows = NULL;
        size_t n = 0;
        int r;

        r = call_list(bus, "ListContainers", "(sssstisso)", &m);
        if (r < 0)
                return r;
        for (;; n++) {
                r = grow(&rows, n);
                if (r < 0)
                        return r;
                r = sd_bus_message_read(m, "(sssstisso)", &rows[n].s[0], &rows[n].s[1], &rows[n].s[2], &rows[n].s[3],
                                        &rows[n].created, &rows[n].exit_code, &rows[n].s[4], &rows[n].s[5], NULL);
                if (r < 0)
                        return fail(r, NULL);
                if (r == 0)
                        break;
        }
        qsort(rows, n, sizeof *rows, compare_rows);
        for (size_t i = 0; i < n; i++) {
                const Row *c = rows + i;
                bool exited = streq(c->s[3], "exited");

                if (arg.json) {
                        json_t *o = json_pack("{s:s,s:s,s:s,s:s,s:I,s:i,s:s,s:s}", "id", c->s[0], "pod", c->s[1],
                                              "name", c->s[2], "state", c->s[3], "created_usec",
                                              (json_int_t) c->created, "exit_code", c->exit_code, "image", c->s[4],
                                              "unit", c->s[5]);

                        if (json_array_append_new(j, o) < 0)
                                return -ENOMEM;
                        continue;
                }
                if (table_cell_id(&t, c->s[0]) < 0 || table_cell_id(&t, c->s[1]) < 0 || table_cell(&t, c->s[2]) < 0 ||
                    (exited ? strv_extendf(&t.cells, "exited(%d)", c->exit_code) : table_cell(&t, c->s[3])) < 0 ||
                    table_cell_age(&t, c->created) < 0)
                        return -ENOMEM;
                r = startswith(c->s[4], "sha256:") ? table_cell_id(&t, c->s[4]) : table_cell(&t, c->s[4]);
                if (r < 0)
                        return r;
        }
        if (arg.json)
                return print_json(j);
        pager_open();
        table_print(&t);
        return 0;
}

static int image_row(Table *t, json_t *j, const char *id, char **tags, char **digests, uint64_t size, bool pinned) {
        char *none[] = { (char *) "", NULL }, **names = none;

        if (arg.json) {
                json_t *o = json_pack("{s:s,s:o,s:o,s:I,s:b}", "id", id, "tags", json_from_strv(tags), "digests",
                                      json_from_strv(digests), "size", (json_int_t) size, "pinned", (int) pinned);

                return json_array_append_new(j, o) < 0 ? -ENOMEM : 0;
        }
        /* An image without a tag is called by its digest, and one without any name is shown all the same. */
        if (tags && tags[0])
                names = tags;
        else if (digests && digests[0])
                names = digests;
        for (; *names; names++)
                if (table_cell_id(t, id) < 0 || table_cell(t, *names) < 0 || table_cell_size(t, size) < 0 ||
                    table_cell(t, pinned ? "yes" : "no") < 0)
                        return -ENOMEM;
        return 0;
}

int list_images(sd_bus *bus, char **args) {
        static const char *const headers[] = { "ID", "NAME", "SIZE", "PINNED", NULL };
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(table_done) Table t = { headers, "image names", NULL };
        _cleanup_json_ json_t *j = json_array();
        int r;

        r = call_list(bus, "ListImages", "(sasastbo)", &m);
        if (r < 0)
                return r;
        while ((r = sd_bus_message_enter_container(m, 'r', "sasastbo")) > 0) {
                _cleanup_strv_free_ char **tags = NULL, **digests = NULL;
                uint64_t size;
                const char *id;
                int pinned;

                r = sd_bus_message_read(m, "s", &id);
                if (r >= 0)
                        r = sd_bus_message_read_strv(m, &tags);
                if (r >= 0)
                        r = sd_bus_message_read_strv(m, &digests);
                if (r >= 0)
                        r = sd_bus_message_read(m, "tbo", &size, &pinned, NULL);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
                if (r >= 0)
                        r = image_row(&t, j, id, tags, digests, size, pinned);
                if (r < 0)
                        return fail(r, NULL);
        }
        if (r < 0)
                return fail(r, NULL);
        if (arg.json)
                return print_json(j);
        pager_open();
        table_print(&t);
        return 0;
}
