/* rktletctl: looks at the pods, containers and images of this node, and stops them, over org.rktlet1 on the system
 * bus. */

#include <getopt.h>
#include <inttypes.h>
#include <systemd/sd-bus.h>
#include <time.h>

#include "basic/json-util.h"
#include "basic/macro.h"
#include "basic/string-util.h"
#include "config.h"
#include "table.h"

#define BUS_NAME "org.rktlet1"
#define BUS_PATH "/org/rktlet1"
#define MANAGER_INTERFACE "org.rktlet1.Manager"
/* Stopping a pod takes as long as its containers' grace. */
#define STOP_USEC (3600 * USEC_PER_SEC)

static bool arg_json;
static const char *arg_timeout = "10s";

static int print_json(json_t *j) {
        int r;

        if (!j)
                return -ENOMEM;
        r = json_dumpf(j, stdout, JSON_INDENT(8)) < 0 ? -EIO : 0;
        putchar('\n');
        return r;
}

/* --- the bus ---------------------------------------------------------------------------------------------------- */

static int fail(int r, const sd_bus_error *e) {
        if (sd_bus_error_has_name(e, SD_BUS_ERROR_SERVICE_UNKNOWN) ||
            sd_bus_error_has_name(e, SD_BUS_ERROR_NAME_HAS_NO_OWNER))
                fputs("rktlet does not run, or has not found the system bus. See 'systemctl status rktlet'.\n", stderr);
        else if (sd_bus_error_has_name(e, SD_BUS_ERROR_ACCESS_DENIED))
                fprintf(stderr, "Only root may speak to rktlet.\n");
        else
                fprintf(stderr, "%s\n", sd_bus_error_is_set(e) && e->message ? e->message : strerror(-r));
        return r;
}

static int call(sd_bus *bus, const char *path, const char *interface, const char *member, uint64_t timeout,
                sd_bus_message **ret, const char *types, ...);
static int call(sd_bus *bus, const char *path, const char *interface, const char *member, uint64_t timeout,
                sd_bus_message **ret, const char *types, ...) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        va_list ap;
        int r;

        r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, path, interface, member);
        if (r < 0)
                return fail(r, NULL);
        va_start(ap, types);
        r = sd_bus_message_appendv(m, types, ap);
        va_end(ap);
        if (r < 0)
                return fail(r, NULL);
        /* Looking must not start anything. */
        r = sd_bus_message_set_auto_start(m, false);
        if (r < 0)
                return fail(r, NULL);
        r = sd_bus_call(bus, m, timeout, &e, ret);
        return r < 0 ? fail(r, &e) : 0;
}

static int call_manager(sd_bus *bus, const char *member, const char *types, sd_bus_message **ret) {
        int r;

        r = call(bus, BUS_PATH, MANAGER_INTERFACE, member, 0, ret, "");
        if (r < 0)
                return r;
        r = sd_bus_message_enter_container(*ret, 'a', types);
        return r < 0 ? fail(r, NULL) : 0;
}

/* --- lists ------------------------------------------------------------------------------------------------------ */

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

static int list_pods(sd_bus *bus, char **args) {
        static const char *const headers[] = { "ID", "NAMESPACE", "NAME", "STATE", "AGE", "IP", "UNIT", NULL };
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(table_done) Table t = { headers, "pods", NULL };
        _cleanup_json_ json_t *j = json_array();
        _cleanup_free_ Row *rows = NULL;
        size_t n = 0;
        int r;

        r = call_manager(bus, "ListPods", "(sssstsso)", &m);
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

                if (arg_json) {
                        json_t *o = json_pack("{s:s,s:s,s:s,s:s,s:I,s:s,s:s}", "id", p->s[0], "namespace", p->s[1], "name",
                                              p->s[2], "state", p->s[3], "created_usec", (json_int_t) p->created, "ip",
                                              p->s[4], "unit", p->s[5]);

                        if (json_array_append_new(j, o) < 0)
                                return -ENOMEM;
                        continue;
                }
                if (table_cell_id(&t, p->s[0]) < 0 || table_cell(&t, p->s[1]) < 0 || table_cell(&t, p->s[2]) < 0 ||
                    table_cell(&t, p->s[3]) < 0 ||
                    table_cell_age(&t, p->created) < 0 || table_cell(&t, p->s[4]) < 0)
                        return -ENOMEM;
                r = table_full ? table_cell(&t, p->s[5])
                               : strv_extendf(&t.cells, "%.23s%s", p->s[5], strlen(p->s[5]) > 23 ? "…" : "");
                if (r < 0)
                        return r;
        }
        if (arg_json)
                return print_json(j);
        table_print(&t);
        return 0;
}

static int list_containers(sd_bus *bus, char **args) {
        static const char *const headers[] = { "ID", "POD", "NAME", "STATE", "AGE", "IMAGE", NULL };
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(table_done) Table t = { headers, "containers", NULL };
        _cleanup_json_ json_t *j = json_array();
        _cleanup_free_ Row *rows = NULL;
        size_t n = 0;
        int r;

        r = call_manager(bus, "ListContainers", "(sssstisso)", &m);
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

                if (arg_json) {
                        json_t *o = json_pack("{s:s,s:s,s:s,s:s,s:I,s:i,s:s,s:s}", "id", c->s[0], "pod", c->s[1], "name",
                                              c->s[2], "state", c->s[3], "created_usec", (json_int_t) c->created,
                                              "exit_code", c->exit_code, "image", c->s[4], "unit", c->s[5]);

                        if (json_array_append_new(j, o) < 0)
                                return -ENOMEM;
                        continue;
                }
                if (table_cell_id(&t, c->s[0]) < 0 || table_cell_id(&t, c->s[1]) < 0 || table_cell(&t, c->s[2]) < 0 ||
                    (exited ? strv_extendf(&t.cells, "exited (%d)", c->exit_code) : table_cell(&t, c->s[3])) < 0 ||
                    table_cell_age(&t, c->created) < 0)
                        return -ENOMEM;
                r = startswith(c->s[4], "sha256:") ? table_cell_id(&t, c->s[4]) : table_cell(&t, c->s[4]);
                if (r < 0)
                        return r;
        }
        if (arg_json)
                return print_json(j);
        table_print(&t);
        return 0;
}

static int image_row(Table *t, json_t *j, const char *id, char **tags, char **digests, uint64_t size, bool pinned) {
        char *none[] = { (char *) "", NULL }, **names = none;

        if (arg_json) {
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

static int list_images(sd_bus *bus, char **args) {
        static const char *const headers[] = { "ID", "NAME", "SIZE", "PINNED", NULL };
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(table_done) Table t = { headers, "image names", NULL };
        _cleanup_json_ json_t *j = json_array();
        int r;

        r = call_manager(bus, "ListImages", "(sasastbo)", &m);
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
        if (arg_json)
                return print_json(j);
        table_print(&t);
        return 0;
}

/* --- properties ------------------------------------------------------------------------------------------------- */

static int read_value(sd_bus_message *m, json_t **ret);

/* An array: of pairs becomes an object, of anything else a list. */
static int read_array(sd_bus_message *m, const char *contents, json_t **ret) {
        bool pairs = contents[0] == '{';
        json_t *j = pairs ? json_object() : json_array();
        int r;

        r = sd_bus_message_enter_container(m, 'a', contents);
        while (r >= 0 && sd_bus_message_at_end(m, false) == 0) {
                const char *key = NULL;
                json_t *value = NULL;

                if (pairs) {
                        r = sd_bus_message_enter_container(m, 'e', "ss");
                        if (r >= 0)
                                r = sd_bus_message_read(m, "s", &key);
                }
                if (r >= 0)
                        r = read_value(m, &value);
                if (r >= 0 && (pairs ? json_object_set_new(j, key, value) : json_array_append_new(j, value)) < 0)
                        r = -ENOMEM;
                if (r >= 0 && pairs)
                        r = sd_bus_message_exit_container(m);
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        if (r < 0) {
                json_decref(j);
                return r;
        }
        *ret = j;
        return 0;
}

static int read_value(sd_bus_message *m, json_t **ret) {
        const char *contents;
        union {
                const char *s;
                uint32_t u;
                int32_t i;
                uint64_t t;
                int b;
        } v;
        char type;
        int r;

        r = sd_bus_message_peek_type(m, &type, &contents);
        if (r < 0)
                return r;
        if (type == 'a')
                return read_array(m, contents, ret);
        if (!strchr("souitb", type))
                return -EOPNOTSUPP;
        r = sd_bus_message_read_basic(m, type, &v);
        if (r < 0)
                return r;
        *ret = type == 's' || type == 'o' ? json_string(v.s)
               : type == 'u'              ? json_integer(v.u)
               : type == 'i'              ? json_integer(v.i)
               : type == 't'              ? json_integer((json_int_t) v.t)
                                          : json_boolean(v.b);
        return *ret ? 0 : -ENOMEM;
}

static int read_properties(sd_bus *bus, const char *path, const char *interface, json_t **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_json_ json_t *j = json_object();
        int r;

        r = call(bus, path, "org.freedesktop.DBus.Properties", "GetAll", 0, &m, "s", interface);
        if (r < 0)
                return r;
        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                const char *name, *contents;
                json_t *value = NULL;

                r = sd_bus_message_read(m, "s", &name);
                if (r >= 0)
                        r = sd_bus_message_peek_type(m, NULL, &contents);
                if (r >= 0)
                        r = sd_bus_message_enter_container(m, 'v', contents);
                if (r >= 0)
                        r = read_value(m, &value);
                if (r >= 0 && json_object_set_new(j, name, value) < 0)
                        r = -ENOMEM;
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        if (r < 0)
                return fail(r, NULL);
        *ret = json_incref(j);
        return 0;
}

static void print_clean(const char *s) {
        table_print_cell(s, 0);
}

static void print_time(const char *key, json_int_t usec) {
        char text[64] = "";
        time_t t = (time_t) (usec / (json_int_t) USEC_PER_SEC);
        struct tm tm;

        if (usec > 0 && localtime_r(&t, &tm))
                (void) strftime(text, sizeof text, "%a %Y-%m-%d %H:%M:%S %Z", &tm);
        printf("%s=%s\n", key, text);
}

/* As systemctl show prints: Key=value; lists with blanks, maps as KEY.NAME=value. */
static void print_property(const char *key, json_t *value) {
        const char *name, *separator = "";
        json_t *v;
        size_t i;

        if (endswith(key, "At") && json_is_integer(value)) {
                print_time(key, json_integer_value(value));
                return;
        }
        if (json_is_object(value)) {
                json_object_foreach(value, name, v) {
                        printf("%s.", key);
                        print_clean(name);
                        putchar('=');
                        print_clean(json_string_value(v));
                        putchar('\n');
                }
                return;
        }
        printf("%s=", key);
        if (json_is_string(value))
                print_clean(json_string_value(value));
        else if (json_is_integer(value))
                printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
        else if (json_is_boolean(value))
                fputs(json_is_true(value) ? "yes" : "no", stdout);
        json_array_foreach(value, i, v) {
                fputs(separator, stdout);
                print_clean(strempty(json_string_value(v)));
                separator = " ";
        }
        putchar('\n');
}

/* A pod's or a container's object; what is said about a miss is about the last one looked for. */
static int find_object(sd_bus *bus, const char *id, char **ret_path, const char **ret_interface) {
        static const struct {
                const char *member, *interface;
        } kinds[] = { { "GetPod", "org.rktlet1.Pod" }, { "GetContainer", "org.rktlet1.Container" } };
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        int r = -ENOENT;

        for (size_t i = 0; i < ELEMENTSOF(kinds); i++) {
                _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
                const char *path;

                sd_bus_error_free(&e);
                r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, BUS_PATH, MANAGER_INTERFACE, kinds[i].member);
                if (r >= 0)
                        r = sd_bus_message_append(m, "s", id);
                if (r >= 0)
                        r = sd_bus_message_set_auto_start(m, false);
                if (r >= 0)
                        r = sd_bus_call(bus, m, 0, &e, &reply);
                if (r < 0) {
                        if (sd_bus_error_has_name(&e, BUS_NAME ".Error.NotFound"))
                                continue;
                        return fail(r, &e);
                }
                r = sd_bus_message_read(reply, "o", &path);
                if (r < 0)
                        return fail(r, NULL);
                *ret_path = strdup(path);
                *ret_interface = kinds[i].interface;
                return *ret_path ? 0 : -ENOMEM;
        }
        fprintf(stderr, "There is no pod and no container with ID \"%s\" or an ID that begins so. See 'rktletctl "
                        "list-pods' and 'rktletctl list-containers'.\n", id);
        return r;
}

static int show(sd_bus *bus, char **args) {
        _cleanup_json_ json_t *all = json_array();

        for (size_t i = 0; args[i]; i++) {
                _cleanup_json_ json_t *j = NULL;
                _cleanup_free_ char *path = NULL;
                const char *interface = NULL, *key;
                json_t *value;
                int r;

                r = find_object(bus, args[i], &path, &interface);
                if (r < 0)
                        return r;
                r = read_properties(bus, path, interface, &j);
                if (r < 0)
                        return r;
                if (arg_json) {
                        if (json_array_append(all, j) < 0)
                                return -ENOMEM;
                        continue;
                }
                if (i > 0)
                        putchar('\n');
                json_object_foreach(j, key, value)
                        print_property(key, value);
        }
        return arg_json ? print_json(args[1] ? all : json_array_get(all, 0)) : 0;
}

static int status(sd_bus *bus, char **args) {
        _cleanup_json_ json_t *j = NULL;
        int r;

        r = read_properties(bus, BUS_PATH, MANAGER_INTERFACE, &j);
        if (r < 0)
                return r;
        if (arg_json)
                return print_json(j);
        printf("      Version: rktlet %s\n"
               "      systemd: %s\n"
               "        State: %s\n"
               "         Pods: %" JSON_INTEGER_FORMAT "\n"
               "   Containers: %" JSON_INTEGER_FORMAT "\n",
               strempty(json_get_string(j, "Version")), strempty(json_get_string(j, "SystemdVersion")),
               json_is_true(json_object_get(j, "Loaded")) ? "serving" : "looking for pods and containers",
               json_integer_value(json_object_get(j, "NPods")), json_integer_value(json_object_get(j, "NContainers")));
        return 0;
}

/* --- stopping --------------------------------------------------------------------------------------------------- */

static int stop_pod(sd_bus *bus, char **args) {
        for (; *args; args++) {
                int r;

                r = call(bus, BUS_PATH, MANAGER_INTERFACE, "StopPod", STOP_USEC, NULL, "s", *args);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int stop_container(sd_bus *bus, char **args) {
        uint64_t timeout;
        int r;

        r = config_parse_time(arg_timeout, &timeout);
        if (r < 0 || timeout > STOP_USEC) {
                fprintf(stderr, "--timeout=%s is no time span up to an hour, such as \"10s\"\n", arg_timeout);
                return -EINVAL;
        }
        for (; *args; args++) {
                r = call(bus, BUS_PATH, MANAGER_INTERFACE, "StopContainer", timeout + STOP_USEC, NULL, "st", *args,
                         timeout);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* --- commands --------------------------------------------------------------------------------------------------- */

static const struct {
        const char *name;
        bool wants_ids;
        int (*func)(sd_bus *bus, char **args);
} commands[] = {
        { "list-pods", false, list_pods },
        { "list-containers", false, list_containers },
        { "list-images", false, list_images },
        { "status", false, status },
        { "show", true, show },
        { "stop-pod", true, stop_pod },
        { "stop-container", true, stop_container },
};

static void help(void) {
        printf("rktletctl [OPTIONS...] COMMAND ...\n\n"
               "Looks at the pods and containers of this node's rktlet.\n\n"
               "Commands:\n"
               "  list-pods               List pods (the default)\n"
               "  list-containers         List containers\n"
               "  list-images             List images\n"
               "  status                  Show what rktlet is doing\n"
               "  show ID...              Show all properties of pods and containers\n"
               "  stop-pod ID...          Stop pods, with all their containers\n"
               "  stop-container ID...    Stop containers\n\n"
               "Options:\n"
               "  -h --help               Show this help\n"
               "     --version            Show the version\n"
               "  -j --json               Write JSON\n"
               "  -l --full               Do not shorten IDs and units\n"
               "     --no-legend          Leave out headers and sums\n"
               "  -t --timeout=TIME       Grace for stop-container before SIGKILL (default: 10s)\n\n"
               "An ID may be shortened as long as it is unambiguous. See rktletctl(1).\n");
}

static int parse_options(int argc, char *argv[]) {
        enum {
                OPTION_VERSION = 256,
                OPTION_NO_LEGEND,
        };
        static const struct option options[] = {
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, OPTION_VERSION },
                { "json", no_argument, NULL, 'j' },
                { "full", no_argument, NULL, 'l' },
                { "no-legend", no_argument, NULL, OPTION_NO_LEGEND },
                { "timeout", required_argument, NULL, 't' },
                {},
        };
        int c;

        while ((c = getopt_long(argc, argv, "hjlt:", options, NULL)) >= 0)
                switch (c) {
                case 'h':
                        help();
                        return 0;
                case OPTION_VERSION:
                        printf("rktletctl %s\n", PROJECT_VERSION);
                        return 0;
                case 'j':
                        arg_json = true;
                        break;
                case 'l':
                        table_full = true;
                        break;
                case OPTION_NO_LEGEND:
                        table_legend = false;
                        break;
                case 't':
                        arg_timeout = optarg;
                        break;
                default:
                        return -EINVAL;
                }
        return 1;
}

int main(int argc, char *argv[]) {
        _cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        static char *no_arguments[] = { NULL };
        const char *command;
        char **args;
        int r;

        r = parse_options(argc, argv);
        if (r <= 0)
                return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
        command = optind < argc ? argv[optind] : "list-pods";
        args = optind < argc ? argv + optind + 1 : no_arguments;
        for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
                if (!streq(commands[i].name, command))
                        continue;
                if (commands[i].wants_ids != (args[0] != NULL)) {
                        fprintf(stderr, "%s %s\n", command,
                                commands[i].wants_ids ? "wants at least one ID" : "takes no arguments");
                        return EXIT_FAILURE;
                }
                r = sd_bus_open_system(&bus);
                if (r < 0) {
                        fprintf(stderr, "Cannot connect to the system bus: %s\n", strerror(-r));
                        return EXIT_FAILURE;
                }
                r = commands[i].func(bus, args);
                if (r == -ENOMEM)
                        fprintf(stderr, "Out of memory\n");
                return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
        }
        fprintf(stderr, "Unknown command \"%s\"; see 'rktletctl --help'\n", command);
        return EXIT_FAILURE;
}
