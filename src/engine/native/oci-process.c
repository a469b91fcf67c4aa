/* Arguments, environment, working directory and stop signal of a container's process. */

#include "engine/native/oci-process.h"

#include <signal.h>
#include <uthash.h>

#include "basic/json-util.h"
#include "basic/string-util.h"

static int append(json_t *array, const char *s, const char *what, Error *error) {
        if (!utf8_is_valid(s, strlen(s)))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "%s is not UTF-8", what);
        return json_array_append_new(array, json_string(s)) < 0 ? error_oom(error) : 0;
}

static int append_all(json_t *array, char *const *l, size_t n, const char *what, Error *error) {
        int r;

        for (size_t i = 0; i < n; i++) {
                r = append(array, l[i], what, error);
                if (r < 0)
                        return r;
        }
        return 0;
}

int oci_args(const runtime_v1_ContainerConfig *config, const ImageConfig *image, json_t **ret, Error *error) {
        _cleanup_json_ json_t *a = json_array();
        int r;

        if (!a)
                return error_oom(error);
        if (config->command_count > 0)
                r = append_all(a, config->command, config->command_count, "the container's command", error);
        else
                r = append_all(a, image ? image->entrypoint : NULL, image ? strv_length(image->entrypoint) : 0,
                               "the image's entry point", error);
        if (r < 0)
                return r;
        if (config->args_count > 0)
                r = append_all(a, config->args, config->args_count, "an argument of the container", error);
        else if (config->command_count == 0)
                r = append_all(a, image ? image->cmd : NULL, image ? strv_length(image->cmd) : 0,
                               "the image's command", error);
        if (r < 0)
                return r;
        if (json_array_size(a) == 0)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "no command: neither the container nor its image says what to execute");
        *ret = TAKE_PTR(a);
        return 0;
}

/* The environment being put together: one entry a name, in the order of first appearance. */
typedef struct Variable {
        size_t index;
        char *raw; /* its whole text instead, when that is not UTF-8 */
        size_t raw_size;
        UT_hash_handle hh;
        char name[];
} Variable;

typedef struct Env {
        json_t *array;
        Variable *names;
        size_t size;
} Env;

static void env_done(Env *e) {
        Variable *v, *next;

        HASH_ITER(hh, e->names, v, next) {
                HASH_DEL(e->names, v);
                free(v->raw);
                free(v);
        }
        json_decref(e->array);
}

static int env_add(Env *e, const char *name, size_t name_size, Variable **ret) {
        Variable *v = malloc(sizeof *v + name_size + 1);

        if (!v)
                return -ENOMEM;
        memcpy(v->name, name, name_size);
        v->name[name_size] = 0;
        v->raw = NULL;
        v->raw_size = 0;
        v->index = json_array_size(e->array);
        HASH_ADD_KEYPTR(hh, e->names, v->name, name_size, v);
        if (json_array_append_new(e->array, json_null()) < 0)
                return -ENOMEM;
        *ret = v;
        return 0;
}

static int env_set(Env *e, const char *name, size_t name_size, const char *value, size_t value_size, const char *whose,
                   Error *error) {
        _cleanup_free_ char *text = NULL;
        Variable *v;

        if (name_size == 0 || memchr(name, '=', name_size) || memchr(name, 0, name_size))
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "a name in the environment of the %s is empty, or has '=' or NUL in it", whose);
        if (value_size > 0 && memchr(value, 0, value_size))
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "environment variable '%.*s' of the %s has a NUL in its value",
                                  (int)MIN(name_size, (size_t)64), name, whose);
        if (name_size + value_size + 2 > OCI_ENV_ONE_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "environment variable '%.*s' of the %s is longer than %u bytes with its name, the most that "
                                  "Linux takes", (int) MIN(name_size, (size_t) 64), name, whose, OCI_ENV_ONE_MAX - 1);
        e->size += name_size + value_size + 2;
        if (e->size > OCI_ENV_SIZE_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "the environment is larger than %u bytes",
                                  OCI_ENV_SIZE_MAX);

        text = malloc(name_size + value_size + 2);
        if (!text)
                return error_oom(error);
        memcpy(text, name, name_size);
        text[name_size] = '=';
        if (value_size > 0)
                memcpy(text + name_size + 1, value, value_size);
        text[name_size + 1 + value_size] = 0;
        HASH_FIND(hh, e->names, name, name_size, v);
        if (!v) {
                if (json_array_size(e->array) >= OCI_ENV_MAX)
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "more than %u environment variables",
                                          OCI_ENV_MAX);
                if (env_add(e, name, name_size, &v) < 0)
                        return error_oom(error);
        }
        v->raw = mfree(v->raw);
        if (!utf8_is_valid(text, name_size + 1 + value_size)) {
                v->raw = TAKE_PTR(text);
                v->raw_size = name_size + 1 + value_size;
                return json_array_set_new(e->array, v->index, json_null()) < 0 ? error_oom(error) : 0;
        }
        if (json_array_set_new(e->array, v->index, json_string(text)) < 0)
                return error_oom(error);
        return 0;
}

/* Those that can't be in JSON leave the array. */
static int env_split(Env *e, json_t **ret, Buffer *raw, Error *error) {
        _cleanup_json_ json_t *array = json_array();
        Variable *v, *next;
        json_t *text;
        size_t i;

        if (!array)
                return error_oom(error);
        json_array_foreach(e->array, i, text)
                if (json_is_string(text) && json_array_append(array, text) < 0)
                        return error_oom(error);
        HASH_ITER(hh, e->names, v, next)
                if (v->raw && buffer_append(raw, v->raw, v->raw_size + 1) < 0)
                        return error_oom(error);
        *ret = TAKE_PTR(array);
        return 0;
}

static int env_set_string(Env *e, const char *name, const char *value, Error *error) {
        return env_set(e, name, strlen(name), value, strlen(value), "container", error);
}

static int env_set_of_image(Env *e, char *const *l, Error *error) {
        int r;

        STRV_FOREACH(s, l) {
                const char *equals = strchr(*s, '=');
                size_t n = equals ? (size_t) (equals - *s) : strlen(*s);

                /* What is no assignment is left out, as the peers do: an image is not refused for it. */
                if (!equals || n == 0)
                        continue;
                r = env_set(e, *s, n, equals + 1, strlen(equals + 1), "image", error);
                if (r < 0)
                        return r;
        }
        return 0;
}

int oci_env(const runtime_v1_ContainerConfig *config, const ImageConfig *image, const char *hostname, const char *home,
            json_t **ret, Buffer *raw, Error *error) {
        _cleanup_(env_done) Env e = { .array = json_array() };
        Variable *v;
        int r;

        if (!e.array)
                return error_oom(error);
        r = env_set_string(&e, "PATH", OCI_PATH_DEFAULT, error);
        if (r >= 0 && config->tty)
                r = env_set_string(&e, "TERM", "xterm", error);
        if (r >= 0 && image)
                r = env_set_of_image(&e, image->env, error);
        if (r >= 0 && hostname)
                r = env_set_string(&e, "HOSTNAME", hostname, error);
        for (size_t i = 0; r >= 0 && i < config->envs_count; i++) {
                const runtime_v1_KeyValue *kv = &config->envs[i];

                r = env_set(&e, strempty(kv->key), strlen(strempty(kv->key)),
                            kv->value, strlen(strempty(kv->value)), "container", error);
        }
        if (r < 0)
                return r;
        HASH_FIND(hh, e.names, "HOME", STRLEN("HOME"), v);
        if (!v) {
                r = env_set_string(&e, "HOME", home, error);
                if (r < 0)
                        return r;
        }
        return env_split(&e, ret, raw, error);
}

int oci_cwd(const runtime_v1_ContainerConfig *config, const ImageConfig *image, const char **ret, Error *error) {
        bool own = !isempty(config->working_dir);
        const char *cwd = own ? config->working_dir : image && !isempty(image->working_dir) ? image->working_dir : "/";

        if (cwd[0] != '/')
                return error_setf(error, own ? GRPC_INVALID_ARGUMENT : GRPC_FAILED_PRECONDITION,
                                  "the working directory of the %s is not absolute", own ? "container" : "image");
        if (!utf8_is_valid(cwd, strlen(cwd)))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "the working directory is not UTF-8");
        *ret = cwd;
        return 0;
}

int signal_from_name(const char *s) {
        const char *name = startswith(s, "SIG") ?: s, *offset;
        uint32_t n;

        if (parse_u32(s, &n) >= 0)
                return n > 0 && n < _NSIG ? (int) n : -EINVAL;
        for (int i = 1; i < SIGRTMIN; i++) {
                const char *known = sigabbrev_np(i);

                if (known && streq(known, name))
                        return i;
        }
        if (streq(name, "CLD"))
                return SIGCHLD;
        if (streq(name, "IOT"))
                return SIGABRT;
        if (streq(name, "IO"))
                return SIGIO;
        if (streq(name, "RTMIN"))
                return SIGRTMIN;
        if (streq(name, "RTMAX"))
                return SIGRTMAX;
        if ((offset = startswith(name, "RTMIN+")) && parse_u32(offset, &n) >= 0 &&
            n <= (uint32_t)(SIGRTMAX - SIGRTMIN))
                return SIGRTMIN + (int) n;
        if ((offset = startswith(name, "RTMAX-")) && parse_u32(offset, &n) >= 0 &&
            n <= (uint32_t)(SIGRTMAX - SIGRTMIN))
                return SIGRTMAX - (int) n;
        return -EINVAL;
}

/* The interface's numbers up to SIGXFSZ, by name; the real-time ones follow in a row. */
static const char *const cri_signals[] = {
        [runtime_v1_Signal_SIGABRT] = "ABRT",     [runtime_v1_Signal_SIGALRM] = "ALRM",
        [runtime_v1_Signal_SIGBUS] = "BUS",       [runtime_v1_Signal_SIGCHLD] = "CHLD",
        [runtime_v1_Signal_SIGCLD] = "CLD",       [runtime_v1_Signal_SIGCONT] = "CONT",
        [runtime_v1_Signal_SIGFPE] = "FPE",       [runtime_v1_Signal_SIGHUP] = "HUP",
        [runtime_v1_Signal_SIGILL] = "ILL",       [runtime_v1_Signal_SIGINT] = "INT",
        [runtime_v1_Signal_SIGIO] = "IO",         [runtime_v1_Signal_SIGIOT] = "IOT",
        [runtime_v1_Signal_SIGKILL] = "KILL",     [runtime_v1_Signal_SIGPIPE] = "PIPE",
        [runtime_v1_Signal_SIGPOLL] = "POLL",     [runtime_v1_Signal_SIGPROF] = "PROF",
        [runtime_v1_Signal_SIGPWR] = "PWR",       [runtime_v1_Signal_SIGQUIT] = "QUIT",
        [runtime_v1_Signal_SIGSEGV] = "SEGV",     [runtime_v1_Signal_SIGSTKFLT] = "STKFLT",
        [runtime_v1_Signal_SIGSTOP] = "STOP",     [runtime_v1_Signal_SIGSYS] = "SYS",
        [runtime_v1_Signal_SIGTERM] = "TERM",     [runtime_v1_Signal_SIGTRAP] = "TRAP",
        [runtime_v1_Signal_SIGTSTP] = "TSTP",     [runtime_v1_Signal_SIGTTIN] = "TTIN",
        [runtime_v1_Signal_SIGTTOU] = "TTOU",     [runtime_v1_Signal_SIGURG] = "URG",
        [runtime_v1_Signal_SIGUSR1] = "USR1",     [runtime_v1_Signal_SIGUSR2] = "USR2",
        [runtime_v1_Signal_SIGVTALRM] = "VTALRM", [runtime_v1_Signal_SIGWINCH] = "WINCH",
        [runtime_v1_Signal_SIGXCPU] = "XCPU",     [runtime_v1_Signal_SIGXFSZ] = "XFSZ",
};

static int signal_from_cri(runtime_v1_Signal s) {
        if (s > 0 && (size_t) s < ELEMENTSOF(cri_signals))
                return signal_from_name(cri_signals[s]);
        if (s >= runtime_v1_Signal_SIGRTMIN && s <= runtime_v1_Signal_SIGRTMINPLUS15)
                return SIGRTMIN + (int) (s - runtime_v1_Signal_SIGRTMIN);
        if (s >= runtime_v1_Signal_SIGRTMAXMINUS14 && s <= runtime_v1_Signal_SIGRTMAX)
                return SIGRTMAX - (int) (runtime_v1_Signal_SIGRTMAX - s);
        return -EINVAL;
}

int oci_stop_signal(const runtime_v1_ContainerConfig *config, const ImageConfig *image, int *ret, Error *error) {
        int r;

        if (config->stop_signal != runtime_v1_Signal_RUNTIME_DEFAULT) {
                r = signal_from_cri(config->stop_signal);
                if (r < 0)
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "stop_signal %d is unknown",
                                          (int) config->stop_signal);
                *ret = r;
                return 0;
        }
        r = image && image->stop_signal ? signal_from_name(image->stop_signal) : -ENODATA;
        *ret = r > 0 ? r : SIGTERM;
        return 0;
}
