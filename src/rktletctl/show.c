/* status, show and cat: one object after the other, for people, for scripts, and as systemd has them. */

#include "rktletctl/ctl.h"

#include <fcntl.h>

#include "basic/file-util.h"

#define FILE_MAX (4U * 1024U * 1024U)

static void print_time(const char *key, json_int_t usec) {
        char text[64];

        format_time((uint64_t) usec, text, sizeof text);
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

/* Without a name: of the daemon itself. */
int show_properties(sd_bus *bus, char **args) {
        _cleanup_json_ json_t *all = json_array();
        size_t n = 0;

        if (!arg.json)
                pager_open();
        do {
                _cleanup_object_ Object o = {};
                _cleanup_json_ json_t *j = NULL;
                const char *key;
                json_t *value;
                int r = 0;

                if (args[n])
                        r = find_object(bus, args[n], KIND_POD | KIND_CONTAINER | KIND_IMAGE, &o);
                if (r >= 0)
                        r = read_properties(bus, o.path ? o.path : BUS_PATH, o.path ? o.interface : MANAGER_INTERFACE,
                                            &j);
                if (r < 0)
                        return r == -ENOENT ? EXIT_NO_SUCH : r;
                if (arg.json) {
                        if (json_array_append(all, j) < 0)
                                return -ENOMEM;
                        continue;
                }
                if (n > 0)
                        putchar('\n');
                json_object_foreach(j, key, value)
                        print_property(key, value);
        } while (args[n] && args[++n]);
        return arg.json ? print_json(n > 1 ? all : json_array_get(all, 0)) : 0;
}

/* --- status ------------------------------------------------------------------------------------------------------ */

static uint64_t get_time(const json_t *j, const char *key) {
        return (uint64_t) json_integer_value(json_object_get(j, key));
}

static void print_line(const char *key, const char *value) {
        if (isempty(value))
                return;
        printf("%11s: ", key);
        print_clean(value);
        putchar('\n');
}

static void print_since(const char *key, uint64_t usec) {
        char when[64], ago[32];

        if (usec == 0)
                return;
        format_time(usec, when, sizeof when);
        format_ago(usec, ago, sizeof ago);
        printf("%11s: %s; %s\n", key, when, ago);
}

static void print_list(const char *key, const json_t *list) {
        const char *separator = "";
        json_t *v;
        size_t i;

        if (json_array_size(list) == 0)
                return;
        printf("%11s: ", key);
        json_array_foreach(list, i, v) {
                fputs(separator, stdout);
                print_clean(strempty(json_string_value(v)));
                separator = ", ";
        }
        putchar('\n');
}

static void print_head(const char *state, const char *name, const char *what) {
        printf("%s%s%s ", colour_of_state(state), streq(state, "ready") || streq(state, "running") ? "●" : "○",
               colour_off());
        print_clean(name);
        printf(" - %s\n%11s: %s%s%s\n", what, "State", colour_of_state(state), state, colour_off());
}

static void print_containers(sd_bus *bus, const json_t *paths) {
        const char *key = "Containers";
        json_t *v;
        size_t i;

        json_array_foreach(paths, i, v) {
                _cleanup_json_ json_t *j = NULL;
                const char *state;

                if (read_properties(bus, json_string_value(v), CONTAINER_INTERFACE, &j) < 0)
                        continue;
                state = strempty(json_get_string(j, "State"));
                printf("%11s%c %.12s ", key, key[0] ? ':' : ' ', strempty(json_get_string(j, "Id")));
                print_clean(strempty(json_get_string(j, "Name")));
                printf(" %s%s%s", colour_of_state(state), state, colour_off());
                if (streq(state, "exited"))
                        printf(" (%" JSON_INTEGER_FORMAT ", %s)", json_integer_value(json_object_get(j, "ExitCode")),
                               strempty(json_get_string(j, "Reason")));
                putchar('\n');
                key = "";
        }
}

static int pod_status(sd_bus *bus, const json_t *j) {
        _cleanup_free_ char *name = strprintf("%s/%s", strempty(json_get_string(j, "Namespace")),
                                              strempty(json_get_string(j, "Name")));
        const char *state = strempty(json_get_string(j, "State"));

        if (!name)
                return -ENOMEM;
        print_head(state, name, "pod");
        print_line("ID", json_get_string(j, "Id"));
        print_since("Since", get_time(j, "CreatedAt"));
        print_line("Unit", json_get_string(j, "Unit"));
        print_line("Slice", json_get_string(j, "Slice"));
        print_list("IP", json_object_get(j, "IPs"));
        print_line("Hostname", json_get_string(j, "Hostname"));
        print_line("Handler", json_get_string(j, "RuntimeHandler"));
        print_containers(bus, json_object_get(j, "Containers"));
        return streq(state, "ready") ? 0 : EXIT_NOT_RUNNING;
}

static int container_status(sd_bus *bus, const json_t *j) {
        const char *state = strempty(json_get_string(j, "State")), *message = json_get_string(j, "Message");
        uint64_t lines = arg.lines == UINT64_MAX ? 10 : arg.lines;
        _cleanup_json_ json_t *pod = NULL;
        _cleanup_free_ char *name = NULL;
        int r;

        r = read_properties(bus, json_get_string(j, "Pod"), POD_INTERFACE, &pod);
        if (r < 0)
                return r;
        name = strprintf("%s/%s/%s", strempty(json_get_string(pod, "Namespace")),
                         strempty(json_get_string(pod, "Name")), strempty(json_get_string(j, "Name")));
        if (!name)
                return -ENOMEM;
        print_head(state, name, "container");
        print_line("ID", json_get_string(j, "Id"));
        print_line("Pod", json_get_string(j, "PodId"));
        print_line("Unit", json_get_string(j, "Unit"));
        print_line("Image", json_get_string(j, "Image"));
        print_since("Created", get_time(j, "CreatedAt"));
        print_since("Started", get_time(j, "StartedAt"));
        print_since("Finished", get_time(j, "FinishedAt"));
        if (streq(state, "exited"))
                printf("%11s: %" JSON_INTEGER_FORMAT " (%s)\n", "Exit code",
                       json_integer_value(json_object_get(j, "ExitCode")), strempty(json_get_string(j, "Reason")));
        print_line("Message", message);
        if (json_integer_value(json_object_get(j, "PID")) > 0)
                printf("%11s: %" JSON_INTEGER_FORMAT "\n", "Main PID", json_integer_value(json_object_get(j, "PID")));
        print_line("Log", json_get_string(j, "LogPath"));
        if (lines > 0 && !isempty(json_get_string(j, "LogPath"))) {
                putchar('\n');
                r = print_log_end(json_get_string(j, "LogPath"), lines);
                if (r < 0)
                        return r;
        }
        return streq(state, "running") ? 0 : EXIT_NOT_RUNNING;
}

static int image_status(const json_t *j) {
        char size[32];

        printf("%s%s%s - image\n", colour_bold(), strempty(json_get_string(j, "Id")), colour_off());
        print_list("Tags", json_object_get(j, "Tags"));
        print_list("Digests", json_object_get(j, "Digests"));
        format_size(get_time(j, "Size"), size, sizeof size);
        print_line("Size", size);
        printf("%11s: %s\n", "Pinned", json_is_true(json_object_get(j, "Pinned")) ? "yes" : "no");
        printf("%11s: %s/%s\n", "Platform", strempty(json_get_string(j, "OS")),
               strempty(json_get_string(j, "Architecture")));
        print_line("Created", json_get_string(j, "Created"));
        print_list("Entrypoint", json_object_get(j, "Entrypoint"));
        print_list("Command", json_object_get(j, "Command"));
        print_line("User", json_get_string(j, "User"));
        return 0;
}

static int daemon_status(sd_bus *bus) {
        _cleanup_json_ json_t *j = NULL;
        bool loaded;
        int r;

        r = read_properties(bus, BUS_PATH, MANAGER_INTERFACE, &j);
        if (r < 0)
                return r;
        if (arg.json)
                return print_json(j);
        loaded = json_is_true(json_object_get(j, "Loaded"));
        printf("%s●%s rktlet %s\n", loaded ? colour_of_state("ready") : "", colour_off(),
               strempty(json_get_string(j, "Version")));
        print_line("State", loaded ? "serving" : "looking for pods and containers");
        print_line("systemd", json_get_string(j, "SystemdVersion"));
        print_line("Engine", json_get_string(j, "Engine"));
        print_line("Directory", json_get_string(j, "StateDirectory"));
        printf("%11s: %" JSON_INTEGER_FORMAT "\n%11s: %" JSON_INTEGER_FORMAT "\n%11s: %" JSON_INTEGER_FORMAT "\n",
               "Pods", json_integer_value(json_object_get(j, "NPods")), "Containers",
               json_integer_value(json_object_get(j, "NContainers")), "Images",
               json_integer_value(json_object_get(j, "NImages")));
        return 0;
}

int show_status(sd_bus *bus, char **args) {
        int result = 0;

        if (!args[0])
                return daemon_status(bus);
        if (arg.json)
                return show_properties(bus, args);
        pager_open();
        for (size_t i = 0; args[i]; i++) {
                _cleanup_object_ Object o = {};
                _cleanup_json_ json_t *j = NULL;
                int r;

                r = find_object(bus, args[i], KIND_POD | KIND_CONTAINER | KIND_IMAGE, &o);
                if (r == -ENOENT) {
                        result = EXIT_NO_SUCH;
                        continue;
                }
                if (r >= 0)
                        r = read_properties(bus, o.path, o.interface, &j);
                if (r < 0)
                        return r;
                if (i > 0)
                        putchar('\n');
                r = streq(o.interface, POD_INTERFACE)         ? pod_status(bus, j)
                    : streq(o.interface, CONTAINER_INTERFACE) ? container_status(bus, j)
                                                              : image_status(j);
                if (r < 0)
                        return r;
                result = MAX(result, r);
        }
        return result;
}

/* --- cat --------------------------------------------------------------------------------------------------------- */

static int print_file(const char *path) {
        _cleanup_free_ char *text = NULL;
        size_t size;
        int r;

        r = read_file(AT_FDCWD, path, FILE_MAX, &text, &size);
        if (r == -ENOENT)
                return 0;
        if (r < 0) {
                fprintf(stderr, "Cannot read %s: %s\n", path, strerror(-r));
                return r;
        }
        printf("%s# %s%s\n", colour_bold(), path, colour_off());
        for (size_t i = 0; i < size; i++)
                putchar(text[i] == '\n' || text[i] == '\t' || (unsigned char) text[i] >= 32 ? text[i] : '?');
        if (size > 0 && text[size - 1] != '\n')
                putchar('\n');
        return 1;
}

/* The unit as systemd keeps it, and of a container the configuration that its OCI runtime got. */
int show_files(sd_bus *bus, char **args) {
        _cleanup_json_ json_t *manager = NULL;
        int r;

        r = read_properties(bus, BUS_PATH, MANAGER_INTERFACE, &manager);
        if (r < 0)
                return r;
        pager_open();
        for (size_t i = 0; args[i]; i++) {
                _cleanup_free_ char *unit = NULL, *config = NULL;
                _cleanup_object_ Object o = {};
                _cleanup_json_ json_t *j = NULL;

                r = find_object(bus, args[i], KIND_POD | KIND_CONTAINER, &o);
                if (r >= 0)
                        r = read_properties(bus, o.path, o.interface, &j);
                if (r < 0)
                        return r == -ENOENT ? EXIT_NO_SUCH : r;
                unit = strprintf("/run/systemd/transient/%s", strempty(json_get_string(j, "Unit")));
                config = strprintf("%s/containers/%s/config.json", strempty(json_get_string(manager, "RunDirectory")),
                                   strempty(json_get_string(j, "Id")));
                if (!unit || !config)
                        return -ENOMEM;
                if (i > 0)
                        putchar('\n');
                r = print_file(unit);
                if (r == 0)
                        fprintf(stderr, "%s is not loaded any more\n", strempty(json_get_string(j, "Unit")));
                if (r >= 0 && streq(o.interface, CONTAINER_INTERFACE)) {
                        putchar('\n');
                        r = print_file(config);
                }
                if (r < 0)
                        return r;
        }
        return 0;
}
