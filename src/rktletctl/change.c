/* stop, kill, remove, prune, pull: what changes something. */

#include "rktletctl/ctl.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "config.h"
#include "image/reference.h"

#define STOP_DEFAULT "10s"
#define BAR_WIDTH 30U

/* Each of them, and what failed is told in the end. */
static int for_each(sd_bus *bus, char **args, Kinds kinds,
                    int (*func)(sd_bus *bus, const Object *o, const char *what)) {
        int result = 0;

        for (size_t i = 0; args[i]; i++) {
                _cleanup_object_ Object o = {};
                int r;

                r = find_object(bus, args[i], kinds, &o);
                if (r >= 0)
                        r = func(bus, &o, args[i]);
                if (r < 0)
                        result = EXIT_FAILURE;
        }
        return result;
}

static uint64_t stop_timeout;

static int stop_one(sd_bus *bus, const Object *o, const char *what) {
        if (streq(o->interface, POD_INTERFACE))
                return call(bus, o->path, POD_INTERFACE, "Stop", LONG_USEC, NULL, "");
        return call(bus, o->path, CONTAINER_INTERFACE, "Stop", stop_timeout + LONG_USEC, NULL, "t", stop_timeout);
}

int stop_objects(sd_bus *bus, char **args) {
        const char *timeout = arg.timeout ? arg.timeout : STOP_DEFAULT;

        if (config_parse_time(timeout, &stop_timeout) < 0 || stop_timeout > LONG_USEC) {
                fprintf(stderr, "--timeout=%s is no time span up to an hour, such as \"10s\"\n", timeout);
                return -EINVAL;
        }
        return for_each(bus, args, KIND_POD | KIND_CONTAINER, stop_one);
}

static int signal_number;

static int kill_one(sd_bus *bus, const Object *o, const char *what) {
        if (streq(o->interface, POD_INTERFACE))
                return call(bus, o->path, POD_INTERFACE, "Kill", 0, NULL, "i", (int32_t) signal_number);
        return call(bus, o->path, CONTAINER_INTERFACE, "Kill", 0, NULL, "si", arg.whom ? arg.whom : "main",
                    (int32_t) signal_number);
}

/* "TERM", "SIGTERM" or "15". */
static int parse_signal(const char *s) {
        const char *name = startswith(s, "SIG") ? s + 3 : s;
        uint32_t n;

        if (parse_u32(s, &n) >= 0)
                return n > 0 && n <= (uint32_t) SIGRTMAX ? (int) n : -EINVAL;
        for (int i = 1; i < SIGRTMIN; i++) {
                const char *abbreviation = sigabbrev_np(i);

                if (abbreviation && streq(abbreviation, name))
                        return i;
        }
        return -EINVAL;
}

int kill_objects(sd_bus *bus, char **args) {
        signal_number = parse_signal(arg.signal ? arg.signal : "TERM");
        if (signal_number < 0) {
                fprintf(stderr, "--signal=%s is no signal\n", arg.signal);
                return -EINVAL;
        }
        return for_each(bus, args, KIND_POD | KIND_CONTAINER, kill_one);
}

static int remove_one(sd_bus *bus, const Object *o, const char *what) {
        /* By the name that was given: an image's other names stay. */
        if (streq(o->interface, IMAGE_INTERFACE))
                return call(bus, BUS_PATH, MANAGER_INTERFACE, "RemoveImage", LONG_USEC, NULL, "s", what);
        return call(bus, o->path, o->interface, "Remove", LONG_USEC, NULL, "");
}

int remove_objects(sd_bus *bus, char **args) {
        return for_each(bus, args, KIND_POD | KIND_CONTAINER | KIND_IMAGE, remove_one);
}

int prune_objects(sd_bus *bus, char **args) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        _cleanup_json_ json_t *j = json_array();
        const char *kind, *id;
        int r;

        r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, BUS_PATH, MANAGER_INTERFACE, "Prune");
        if (r >= 0)
                r = sd_bus_message_append_strv(m, args);
        if (r >= 0)
                r = sd_bus_call(bus, m, LONG_USEC, &e, &reply);
        if (r >= 0)
                r = sd_bus_message_enter_container(reply, 'a', "(ss)");
        if (r < 0)
                return fail(r, &e);
        while ((r = sd_bus_message_read(reply, "(ss)", &kind, &id)) > 0)
                if (arg.json)
                        (void) json_array_append_new(j, json_pack("{s:s, s:s}", "kind", kind, "id", id));
                else
                        printf("%s %s\n", kind, id);
        return r < 0 ? fail(r, NULL) : arg.json ? print_json(j) : 0;
}

/* --- pull -------------------------------------------------------------------------------------------------------- */

typedef struct Pull {
        char *name; /* in full, as the signals have it */
        bool bar, done;
        int result;
        char *image;
} Pull;

static int on_progress(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        uint64_t fetched, size, width;
        uint32_t done, layers;
        char a[32], b[32];
        const char *name;
        Pull *p = userdata;

        if (sd_bus_message_read(m, "sttuu", &name, &fetched, &size, &done, &layers) < 0 || !streq(name, p->name) ||
            !p->bar)
                return 0;
        if (size == 0) {
                fprintf(stderr, "\r\033[K%s: looking it up", p->name);
                return 0;
        }
        format_size(fetched, a, sizeof a);
        format_size(size, b, sizeof b);
        width = fetched * BAR_WIDTH / size;
        fprintf(stderr, "\r\033[K[%.*s%*s] %3" PRIu64 "%% %s of %s, %u of %u layers", (int) width,
                "##############################", (int) (BAR_WIDTH - width), "", fetched * 100 / size, a, b, done,
                layers);
        return 0;
}

static int on_pulled(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Pull *p = userdata;
        const char *path;

        if (p->bar)
                fputs("\r\033[K", stderr);
        p->done = true;
        if (sd_bus_message_is_method_error(m, NULL))
                p->result = fail(-sd_bus_message_get_errno(m), sd_bus_message_get_error(m));
        else {
                p->result = sd_bus_message_read(m, "o", &path);
                p->image = p->result >= 0 ? strdup(strrchr(path, '/') + 1) : NULL;
        }
        return 0;
}

/* Asked for on a terminal, else the first line of standard input: never an argument, which everybody can see. */
static int read_password(char *ret, size_t size) {
        bool terminal = isatty(STDIN_FILENO);
        struct termios saved, quiet;
        bool ok;

        if (terminal && tcgetattr(STDIN_FILENO, &saved) >= 0) {
                quiet = saved;
                quiet.c_lflag &= (tcflag_t) ~ECHO;
                fprintf(stderr, "Password of %s: ", arg.user);
                (void) tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
        }
        ok = fgets(ret, (int) size, stdin);
        if (terminal) {
                (void) tcsetattr(STDIN_FILENO, TCSAFLUSH, &saved);
                fputc('\n', stderr);
        }
        if (!ok) {
                fprintf(stderr, "There is no password on standard input\n");
                return -EINVAL;
        }
        ret[strcspn(ret, "\r\n")] = '\0';
        return 0;
}

static int begin_pull(sd_bus *bus, const char *reference, Pull *p) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        char password[1024] = "";
        int r;

        r = arg.user ? read_password(password, sizeof password) : 0;
        if (r < 0)
                return r;
        r = sd_bus_match_signal(bus, NULL, BUS_NAME, BUS_PATH, MANAGER_INTERFACE, "PullProgress", on_progress, p);
        if (r >= 0)
                r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, BUS_PATH, MANAGER_INTERFACE, "PullImage");
        if (r >= 0)
                r = sd_bus_message_sensitive(m);
        if (r >= 0)
                r = arg.user ? sd_bus_message_append(m, "sa{sv}", reference, 2, "Username", "s", arg.user, "Password",
                                                     "s", password)
                             : sd_bus_message_append(m, "sa{sv}", reference, 0);
        explicit_bzero(password, sizeof password);
        if (r >= 0)
                r = sd_bus_call_async(bus, NULL, m, on_pulled, p, LONG_USEC);
        return r < 0 ? fail(r, NULL) : 0;
}

int pull_image(sd_bus *bus, char **args) {
        _cleanup_image_reference_ ImageReference reference = {};
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_free_ char *name = NULL, *image = NULL;
        Pull p = { .bar = isatty(STDERR_FILENO) && !arg.json };
        int r;

        if (args[1]) {
                fprintf(stderr, "pull wants one image\n");
                return -EINVAL;
        }
        r = image_reference_parse(args[0], &reference, &error);
        if (r < 0) {
                fprintf(stderr, "%s\n", strempty(error.message));
                return r;
        }
        p.name = name = reference.digest ? strprintf("%s@%s", reference.name, reference.digest)
                                         : strprintf("%s:%s", reference.name, reference.tag);
        if (!name)
                return -ENOMEM;
        r = begin_pull(bus, args[0], &p);
        while (r >= 0 && !p.done) {
                r = sd_bus_process(bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(bus, UINT64_MAX);
        }
        image = p.image;
        if (r < 0 || p.result < 0)
                return r < 0 ? r : p.result;
        if (arg.json) {
                _cleanup_json_ json_t *j = json_pack("{s:s, s:s+}", "name", name, "id", "sha256:", strempty(image));

                return print_json(j);
        }
        printf("sha256:%s\n", strempty(image));
        return 0;
}
