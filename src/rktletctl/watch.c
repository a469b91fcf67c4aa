/* top, events, dump: what goes on. */

#include "rktletctl/ctl.h"

#include <poll.h>
#include <time.h>

#include "config.h"
#include "rktletctl/table.h"

#define DELAY_DEFAULT "1s"

/* --- top --------------------------------------------------------------------------------------------------------- */

typedef struct Usage {
        char id[65];
        uint64_t cpu_nsec;
} Usage;

typedef struct Line {
        const char *id, *pod, *name;
        uint64_t cpu, memory, processes, read, written;
        double percent; /* of one CPU; negative: not known yet */
} Line;

typedef struct Sample {
        Usage *usages;
        size_t n;
        uint64_t time_usec;
} Sample;

static uint64_t now(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * USEC_PER_SEC + (uint64_t) t.tv_nsec / NSEC_PER_USEC;
}

static double percent_of(const Sample *before, const Line *l, uint64_t time_usec) {
        for (size_t i = 0; i < before->n; i++)
                if (streq(before->usages[i].id, l->id) && l->cpu != UINT64_MAX &&
                    before->usages[i].cpu_nsec <= l->cpu && time_usec > before->time_usec)
                        return (double) (l->cpu - before->usages[i].cpu_nsec) / 10.0 /
                               (double) (time_usec - before->time_usec);
        return -1;
}

static int compare_lines(const void *a, const void *b) {
        const Line *x = a, *y = b;

        return x->percent < y->percent ? 1 : x->percent > y->percent ? -1 : strcmp(x->id, y->id);
}

static int read_usage(sd_bus *bus, sd_bus_message **ret, Line **ret_lines, size_t *ret_n) {
        _cleanup_free_ Line *lines = NULL;
        size_t n = 0;
        int r;

        r = call_list(bus, "ListUsage", "(sssttttt)", ret);
        if (r < 0)
                return r;
        for (;; n++) {
                Line *l = reallocarray(lines, n + 1, sizeof *lines);

                if (!l)
                        return -ENOMEM;
                lines = l;
                l += n;
                *l = (Line) {};
                r = sd_bus_message_read(*ret, "(sssttttt)", &l->id, &l->pod, &l->name, &l->cpu, &l->memory,
                                        &l->processes, &l->read, &l->written);
                if (r <= 0)
                        break;
        }
        if (r < 0)
                return fail(r, NULL);
        *ret_lines = TAKE_PTR(lines);
        *ret_n = n;
        return 0;
}

static int add_line(Table *t, const Line *l) {
        char percent[16] = "-", processes[24] = "-";

        if (l->percent >= 0)
                (void) snprintf(percent, sizeof percent, "%.1f", l->percent);
        if (l->processes != UINT64_MAX)
                (void) snprintf(processes, sizeof processes, "%" PRIu64, l->processes);
        return table_cell_id(t, l->id) < 0 || table_cell_id(t, l->pod) < 0 || table_cell(t, l->name) < 0 ||
                                       table_cell(t, percent) < 0 || table_cell_size(t, l->memory) < 0 ||
                                       table_cell(t, processes) < 0 || table_cell_size(t, l->read) < 0 ||
                                       table_cell_size(t, l->written) < 0
                               ? -ENOMEM
                               : 0;
}

static int print_usage(const Line *lines, size_t n) {
        static const char *const headers[] = { "ID",    "POD",  "NAME",    "%CPU", "MEMORY",
                                               "TASKS", "READ", "WRITTEN", NULL };
        _cleanup_(table_done) Table t = { headers, "containers", NULL };
        _cleanup_json_ json_t *j = json_array();

        for (size_t i = 0; i < n; i++) {
                const Line *l = lines + i;

                if (arg.json)
                        (void) json_array_append_new(j, json_pack("{s:s, s:s, s:s, s:f, s:I, s:I, s:I, s:I, s:I}", "id",
                                                                 l->id, "pod", l->pod, "name", l->name, "cpu_percent",
                                                                 l->percent, "cpu_nsec", (json_int_t) l->cpu, "memory",
                                                                 (json_int_t) l->memory, "tasks",
                                                                 (json_int_t) l->processes, "read", (json_int_t) l->read,
                                                                 "written", (json_int_t) l->written));
                else if (add_line(&t, l) < 0)
                        return -ENOMEM;
        }
        if (arg.json)
                return print_json(j);
        table_print(&t);
        return 0;
}

/* One reading; shown unless it is only there to compare with. */
static int sample(sd_bus *bus, Sample *s, bool show, bool clear) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_free_ Line *lines = NULL;
        uint64_t time_usec;
        Usage *usages;
        size_t n = 0;
        int r;

        r = read_usage(bus, &m, &lines, &n);
        if (r < 0)
                return r;
        time_usec = now();
        usages = calloc(n + 1, sizeof *usages);
        if (!usages)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                lines[i].percent = percent_of(s, lines + i, time_usec);
                (void) snprintf(usages[i].id, sizeof usages[i].id, "%s", lines[i].id);
                usages[i].cpu_nsec = lines[i].cpu;
        }
        free(s->usages);
        *s = (Sample) { usages, n, time_usec };
        if (!show)
                return 0;
        qsort(lines, n, sizeof *lines, compare_lines);
        if (clear)
                fputs("\033[H\033[J", stdout);
        r = print_usage(lines, n);
        (void) fflush(stdout);
        return r;
}

/* On a terminal again and again; elsewhere once, which takes two readings. */
int watch_usage(sd_bus *bus, char **args) {
        const char *delay_text = arg.delay ? arg.delay : DELAY_DEFAULT;
        bool clear = on_terminal() && !arg.json;
        uint64_t delay, times = arg.iterations != UINT64_MAX ? arg.iterations : clear ? UINT64_MAX : 1;
        Sample s = {};
        int r;

        if (config_parse_time(delay_text, &delay) < 0 || delay < 10 * USEC_PER_MSEC || delay > LONG_USEC) {
                fprintf(stderr, "--delay=%s is no time span from 10ms to an hour\n", delay_text);
                return -EINVAL;
        }
        r = sample(bus, &s, /* show= */ clear, clear);
        for (uint64_t i = 0; i < times && r >= 0; i++) {
                (void) poll(NULL, 0, (int) (delay / USEC_PER_MSEC));
                r = sample(bus, &s, /* show= */ true, clear);
        }
        free(s.usages);
        return r;
}

/* --- events ------------------------------------------------------------------------------------------------------ */

static int print_event(sd_bus_message *m) {
        const char *event, *object, *key, *value;
        _cleanup_json_ json_t *j = json_object();
        char when[64];
        uint64_t usec;
        int r;

        r = sd_bus_message_read(m, "tso", &usec, &event, &object);
        if (r >= 0)
                r = sd_bus_message_enter_container(m, 'a', "{ss}");
        if (r < 0)
                return r;
        if (!arg.json) {
                format_time(usec, when, sizeof when);
                printf("%s %s%s%s", when, colour_bold(), event, colour_off());
        }
        while ((r = sd_bus_message_read(m, "{ss}", &key, &value)) > 0) {
                if (arg.json) {
                        (void) json_object_set_new(j, key, json_string(value));
                        continue;
                }
                if (isempty(value))
                        continue;
                printf(" %s=", key);
                print_clean(value);
        }
        if (arg.json) {
                (void) json_object_set_new(j, "time_usec", json_integer((json_int_t) usec));
                (void) json_object_set_new(j, "event", json_string(event));
                (void) json_object_set_new(j, "object", json_string(object));
                r = print_json(j);
        } else
                putchar('\n');
        (void) fflush(stdout);
        return r;
}

static uint64_t n_events;

static int on_event(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        n_events++;
        (void) print_event(m);
        return 0;
}

static int on_owner(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *owner = "";

        if (sd_bus_message_read(m, "sss", NULL, NULL, &owner) >= 0)
                fprintf(stderr, "rktlet %s\n", isempty(owner) ? "has ended" : "is back");
        return 0;
}

/* Goes on over a restart of the daemon. */
int watch_events(sd_bus *bus, char **args) {
        int r;

        r = call(bus, BUS_PATH, "org.freedesktop.DBus.Peer", "Ping", 0, NULL, "");
        if (r < 0)
                return r;
        r = sd_bus_match_signal(bus, NULL, BUS_NAME, BUS_PATH, MANAGER_INTERFACE, "Event", on_event, NULL);
        if (r >= 0)
                r = sd_bus_add_match(bus, NULL,
                                     "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
                                     "member='NameOwnerChanged',arg0='" BUS_NAME "'",
                                     on_owner, NULL);
        while (r >= 0 && n_events < arg.iterations) {
                r = sd_bus_process(bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(bus, UINT64_MAX);
                if (r == -EINTR)
                        r = 0;
        }
        return r < 0 ? fail(r, NULL) : 0;
}

/* --- dump -------------------------------------------------------------------------------------------------------- */

int dump_state(sd_bus *bus, char **args) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_json_ json_t *j = NULL;
        const char *text;
        int r;

        r = call(bus, BUS_PATH, MANAGER_INTERFACE, "Dump", 0, &m, "");
        if (r < 0)
                return r;
        r = sd_bus_message_read(m, "s", &text);
        if (r < 0)
                return fail(r, NULL);
        pager_open();
        if (arg.json != JSON_SHORT) {
                puts(text);
                return 0;
        }
        r = json_parse(text, strlen(text), &j, NULL);
        return r < 0 ? fail(r, NULL) : print_json(j);
}
