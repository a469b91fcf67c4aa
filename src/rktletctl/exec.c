/* exec, shell and run: something is executed, and we are its terminal. */

#include "rktletctl/ctl.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>

/* With a terminal here there is one for the command, unless told otherwise. */
static bool want_terminal(bool by_default) {
        return arg.tty || (by_default && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO));
}

/* "exit 3" or "error NotFound why". */
static int parse_result(const char *result) {
        const char *p = startswith(result, "exit ");

        if (p)
                return atoi(p);
        p = startswith(result, "error ");
        if (p && strchr(p, ' '))
                fprintf(stderr, "%s", strchr(p, ' ') + 1);
        else
                fprintf(stderr, "The connection to the command broke\n");
        return EXIT_FAILURE;
}

static int execute(sd_bus *bus, const char *what, char **argv, bool tty, bool input) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        _cleanup_object_ Object o = {};
        Pump p = { .in_fd = -1, .out_fd = -1, .err_fd = -1, .packets_fd = -1, .result_fd = -1, .tty = tty };
        char result[2048] = "";
        int r, fds[3] = { -1, -1, -1 };
        size_t n = 0;

        r = find_object(bus, what, KIND_CONTAINER, &o);
        if (r < 0)
                return r == -ENOENT ? EXIT_NO_SUCH : r;
        r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, o.path, CONTAINER_INTERFACE, "Exec");
        if (r >= 0)
                r = sd_bus_message_append_strv(m, argv);
        if (r >= 0)
                r = sd_bus_message_append(m, "bb", (int) tty, (int) input);
        if (r >= 0)
                r = sd_bus_call(bus, m, LONG_USEC, &e, &reply);
        if (r < 0)
                return fail(r, &e);
        r = sd_bus_message_enter_container(reply, 'a', "h");
        while (r >= 0 && n < ELEMENTSOF(fds) && sd_bus_message_at_end(reply, false) == 0) {
                r = sd_bus_message_read(reply, "h", &fds[n]);
                n++;
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(reply);
        if (r >= 0)
                r = sd_bus_message_read(reply, "h", &p.result_fd);
        if (r < 0)
                return fail(r, NULL);
        if (tty)
                p.in_fd = p.out_fd = fds[0];
        else {
                /* The message has descriptors of its own: the input is closed when ours has ended, so it is ours. */
                p.in_fd = input ? fcntl(fds[0], F_DUPFD_CLOEXEC, 3) : -1;
                p.out_fd = fcntl(fds[input ? 1 : 0], F_DUPFD_CLOEXEC, 3);
                p.err_fd = fcntl(fds[input ? 2 : 1], F_DUPFD_CLOEXEC, 3);
                p.result_fd = fcntl(p.result_fd, F_DUPFD_CLOEXEC, 3);
                reply = sd_bus_message_unref(reply);
        }
        r = pump_run(&p, result, sizeof result);
        if (r < 0)
                return fail(r, NULL);
        if (r > 0) {
                fprintf(stderr, "\nDisconnected.\n");
                return 0;
        }
        return parse_result(result);
}

int exec_command(sd_bus *bus, char **args) {
        bool tty = want_terminal(/* by_default= */ false);

        if (!args[1]) {
                fprintf(stderr, "exec wants a container and a command\n");
                return -EINVAL;
        }
        return execute(bus, args[0], args + 1, tty, tty || arg.interactive || !isatty(STDIN_FILENO));
}

/* The first of the image's shells. */
int exec_shell(sd_bus *bus, char **args) {
        char *shell[] = { (char *) "sh", (char *) "-c", (char *) "exec $(command -v bash || echo sh)", NULL };

        return execute(bus, args[0], args[1] ? args + 1 : shell, want_terminal(/* by_default= */ true), true);
}

/* --- run --------------------------------------------------------------------------------------------------------- */

typedef struct Watched {
        sd_bus *bus;
        const char *path;
} Watched;

static bool container_ended(void *userdata) {
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        const Watched *w = userdata;
        _cleanup_free_ char *state = NULL;

        return sd_bus_get_property_string(w->bus, BUS_NAME, w->path, CONTAINER_INTERFACE, "State", &e, &state) < 0 ||
               streq(state, "exited");
}

static int append_option(sd_bus_message *m, const char *key, const char *value) {
        return value ? sd_bus_message_append(m, "{sv}", key, "s", value) : 0;
}

static int append_flag(sd_bus_message *m, const char *key, bool value) {
        return value ? sd_bus_message_append(m, "{sv}", key, "b", 1) : 0;
}

static int call_run(sd_bus *bus, char **args, bool tty, bool input, sd_bus_message **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        int r;

        r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, BUS_PATH, MANAGER_INTERFACE, "Run");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", args[0]);
        if (r >= 0)
                r = sd_bus_message_append_strv(m, args + 1);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0)
                r = append_option(m, "Name", arg.name);
        if (r >= 0)
                r = append_option(m, "WorkingDirectory", arg.directory);
        if (r >= 0)
                r = append_flag(m, "HostNetwork", arg.host_network);
        if (r >= 0)
                r = append_flag(m, "Privileged", arg.privileged);
        if (r >= 0)
                r = append_flag(m, "Terminal", tty);
        if (r >= 0)
                r = append_flag(m, "Input", input);
        if (r >= 0 && arg.environment) {
                r = sd_bus_message_open_container(m, 'e', "sv");
                if (r >= 0)
                        r = sd_bus_message_append(m, "s", "Environment");
                if (r >= 0)
                        r = sd_bus_message_open_container(m, 'v', "as");
                if (r >= 0)
                        r = sd_bus_message_append_strv(m, arg.environment);
                if (r >= 0)
                        r = sd_bus_message_close_container(m);
                if (r >= 0)
                        r = sd_bus_message_close_container(m);
        }
        if (r >= 0)
                r = sd_bus_message_append(m, "{sv}", "Start", "b", (int) arg.detach);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        if (r >= 0)
                r = sd_bus_call(bus, m, LONG_USEC, &e, ret);
        return r < 0 ? fail(r, &e) : 0;
}

/* Attached before it is started: nothing of its output is missed. */
static int attach_and_start(sd_bus *bus, const char *path, bool tty, bool input) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_json_ json_t *j = NULL;
        Watched w = { bus, path };
        Pump p = { .bus = bus, .in_fd = input ? STDIN_FILENO : -1, .out_fd = -1, .err_fd = -1, .packets_fd = -1,
                   .result_fd = -1, .tty = tty, .ended = container_ended, .userdata = &w };
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        char result[1] = "";
        int r, k;

        r = sd_bus_call_method(bus, BUS_NAME, path, CONTAINER_INTERFACE, "Attach", &e, &reply, "b", (int) input);
        if (r < 0) {
                /* One whose command can't be executed has nothing to attach to; its start says why. */
                k = call(bus, path, CONTAINER_INTERFACE, "Start", LONG_USEC, NULL, "");
                return k < 0 ? k : fail(r, &e);
        }
        r = sd_bus_message_read(reply, "h", &p.packets_fd);
        if (r >= 0)
                r = sd_bus_match_signal(bus, NULL, BUS_NAME, path, "org.freedesktop.DBus.Properties",
                                        "PropertiesChanged", NULL, NULL);
        if (r < 0)
                return fail(r, NULL);
        r = call(bus, path, CONTAINER_INTERFACE, "Start", LONG_USEC, NULL, "");
        if (r < 0)
                return r;
        if (!container_ended(&w))
                r = pump_run(&p, result, sizeof result);
        else {
                /* It was quick: what it wrote is in the socket. */
                p.ended = NULL;
                p.in_fd = -1;
                r = pump_drain(&p);
        }
        if (r < 0)
                return fail(r, NULL);
        if (r > 0)
                return 0;
        r = read_properties(bus, path, CONTAINER_INTERFACE, &j);
        return r < 0 ? r : (int) json_integer_value(json_object_get(j, "ExitCode"));
}

int run_image(sd_bus *bus, char **args) {
        bool tty = !arg.detach && want_terminal(/* by_default= */ false),
             input = !arg.detach && (tty || arg.interactive);
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        const char *pod, *container;
        int r, k;

        r = call_run(bus, args, tty, input, &reply);
        if (r < 0)
                return r;
        r = sd_bus_message_read(reply, "oo", &pod, &container);
        if (r < 0)
                return fail(r, NULL);
        if (arg.detach) {
                printf("%s\n", strrchr(container, '/') + 1);
                return 0;
        }
        r = attach_and_start(bus, container, tty, input);
        if (arg.keep)
                return r;
        k = call(bus, pod, POD_INTERFACE, "Remove", LONG_USEC, NULL, "");
        return r < 0 ? r : k < 0 ? k : r;
}
