#include "engine/test-engine-harness.h"

#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <uthash.h>

#include "basic/process.h"

#define BUSYBOX "/bin/busybox"
#define WAIT_USEC (20 * USEC_PER_SEC)

typedef struct Told {
        Seen seen;
        UT_hash_handle hh;
        char id[];
} Told;
static Told *told;
static int pod_events;

static void on_container(const char *id, const EngineContainerState *state, void *userdata) {
        Told *t;

        HASH_FIND_STR(told, id, t);
        if (!t) {
                t = calloc(1, sizeof *t + strlen(id) + 1);
                CHECK(t);
                strcpy(t->id, id);
                HASH_ADD_KEYPTR(hh, told, t->id, strlen(id), t);
        }
        t->seen.state = *state;
        if (state->phase == ENGINE_CONTAINER_EXITED || state->phase == ENGINE_CONTAINER_UNKNOWN)
                t->seen.exits++;
}

static void on_pod(const char *id, const EnginePodState *state, void *userdata) {
        pod_events++;
}

Seen harness_seen(const char *id) {
        Told *t;

        HASH_FIND_STR(told, id, t);
        return t ? t->seen : (Seen) {};
}

int harness_pod_events(void) {
        return pod_events;
}

static void engine_new(Harness *h) {
        const EngineEvents events = { .container_changed = on_container, .pod_changed = on_pod };
        const NativeEngineConfig config = {
                        .crun_path = "/usr/bin/crun", .libexec_path = h->libexec, .run_directory = h->run};
        _cleanup_error_ Error error = ERROR_INIT;

        CHECK_EQ(systemd_new(h->event, &h->systemd), 0);
        if (native_engine_new(h->event, h->systemd, &config, &events, &h->engine, &error) < 0) {
                fprintf(stderr, "%s\n", error.message);
                abort();
        }
}

/* The image's only layer: busybox with some of its applets, users and groups. */
static void make_layer(const char *layers) {
        static const char *const applets[] = {"sh",       "cat",  "echo", "sleep",    "ls",    "id",    "true",
                                              "false",    "kill", "ps",   "readlink", "touch", "mkdir", "stat",
                                              "hostname", "grep", "yes",  "seq",      "head",  "tail",  "pwd",
                                              "env",      "tr",   "dd",   "wc",       "mount", "stty",  "setsid"};
        _cleanup_free_ char *root = strprintf("%s/1/fs", layers), *program = NULL,
                            *to = strprintf("%s/bin/busybox", root);
        size_t size;
        int fd;

        CHECK_EQ(mkdir_parents(AT_FDCWD, root, 0755), 0);
        fd = open_directory(AT_FDCWD, root);
        CHECK(fd >= 0);
        CHECK_EQ(mkdirat(fd, "bin", 0755), 0);
        CHECK_EQ(mkdirat(fd, "etc", 0755), 0);
        CHECK_EQ(mkdirat(fd, "tmp", 01777), 0);
        CHECK_EQ(read_file(AT_FDCWD, BUSYBOX, 16U << 20, &program, &size), 0);
        CHECK_EQ(write_file_atomic(AT_FDCWD, to, program, size, 0755, 0), 0);
        for (size_t i = 0; i < ELEMENTSOF(applets); i++) {
                _cleanup_free_ char *name = strprintf("bin/%s", applets[i]);

                CHECK_EQ(symlinkat("busybox", fd, name), 0);
        }
        const char *passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1001:1001:app:/home/app:/bin/sh\n";
        const char *group = "root:x:0:\napp:x:1001:\nextra:x:2001:app\n";
        CHECK_EQ(write_file_atomic(fd, "etc/passwd", passwd, strlen(passwd), 0644, 0), 0);
        CHECK_EQ(write_file_atomic(fd, "etc/group", group, strlen(group), 0644, 0), 0);
        (void) close(fd);
}

bool harness_init(Harness *h) {
        const char *pod = getenv("RKTLET_POD"), *create = getenv("RKTLET_CREATE"), *exec = getenv("RKTLET_EXEC");
        _cleanup_free_ char *comm = NULL, *layers = NULL, *link = NULL, *link2 = NULL, *link3 = NULL;

        if (geteuid() != 0 || access("/run/systemd/private", F_OK) < 0 ||
            read_file(AT_FDCWD, "/proc/1/comm", 64, &comm, NULL) < 0 || !startswith(comm, "systemd") ||
            access("/usr/bin/crun", X_OK) < 0 || access(BUSYBOX, X_OK) < 0 || !pod || !create || !exec) {
                fprintf(stderr,
                        "This needs root, systemd as PID 1, crun, busybox, RKTLET_{POD,CREATE,EXEC}\n");
                return false;
        }
        *h = (Harness) {
                .state = strprintf("/var/lib/rktlet/test-engine-%d", (int) getpid()),
                .run = strdup("/run/rktlet-test"),
        };
        CHECK_EQ(sd_event_default(&h->event), 1);
        CHECK_EQ(remove_tree(AT_FDCWD, h->run), 0);
        CHECK_EQ(mkdir_parents(AT_FDCWD, h->run, 0711), 0);
        h->libexec = strprintf("%s/libexec", h->state);
        layers = strprintf("%s/layers", h->state);
        CHECK_EQ(mkdir_parents(AT_FDCWD, h->libexec, 0755), 0);
        link = strprintf("%s/rktlet-pod", h->libexec);
        link2 = strprintf("%s/rktlet-create", h->libexec);
        CHECK_EQ(symlink(pod, link), 0);
        CHECK_EQ(symlink(create, link2), 0);
        link3 = strprintf("%s/rktlet-exec", h->libexec);
        CHECK_EQ(symlink(exec, link3), 0);
        make_layer(layers);
        /* As main() does: what is mounted on the way stays ours. */
        CHECK_EQ(unshare(CLONE_NEWNS), 0);
        CHECK_EQ(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL), 0);
        engine_new(h);
        return true;
}

void harness_restart(Harness *h) {
        h->engine = engine_free(h->engine);
        h->systemd = systemd_free(h->systemd);
        engine_new(h);
}

void harness_done(Harness *h) {
        Told *t, *next;

        h->engine = engine_free(h->engine);
        h->systemd = systemd_free(h->systemd);
        h->event = sd_event_unref(h->event);
        CHECK_EQ(remove_tree(AT_FDCWD, h->state), 0);
        CHECK_EQ(remove_tree(AT_FDCWD, h->run), 0);
        free(h->state);
        free(h->run);
        free(h->libexec);
        HASH_ITER(hh, told, t, next) {
                HASH_DEL(told, t);
                free(t);
        }
}

void harness_on_host(const char *format, ...) {
        _cleanup_free_ char *script = NULL;
        const char *argv[] = { "/usr/bin/nsenter", "--mount=/proc/1/ns/mnt", "/bin/sh", "-c", NULL, NULL };
        _cleanup_(process_result_done) ProcessResult result = {};
        _cleanup_error_ Error error = ERROR_INIT;
        va_list ap;

        va_start(ap, format);
        CHECK(vasprintf(&script, format, ap) >= 0);
        va_end(ap);
        argv[4] = script;
        CHECK_EQ(process_run(&(ProcessOptions) { .argv = argv, .error_max = 4096 }, &result, &error), 0);
        if (result.code != CLD_EXITED || result.status != 0) {
                fprintf(stderr, "%s: %s: %s\n", script, process_result_describe(&result), result.error);
                abort();
        }
}

static int print_entry(int dir_fd, const char *name, void *userdata) {
        fprintf(stderr, "left: %s/%s\n", (const char *) userdata, name);
        return 1;
}

void harness_check_empty(Harness *h) {
        static const char *const directories[] = { "%s/pods", "%s/containers", "%s/crun" };
        _cleanup_error_ Error error = ERROR_INIT;
        UnitInfo *units;
        size_t n;

        CHECK_EQ(systemd_list_units(h->systemd, "rktlet-*-t*", &units, &n, &error), 0);
        for (size_t i = 0; i < n; i++)
                fprintf(stderr, "left: %s %s\n", units[i].name, units[i].active_state);
        CHECK_EQ(n, 0);
        unit_info_free_array(units, n);
        for (size_t i = 0; i < 2 * ELEMENTSOF(directories); i++) {
                _cleanup_free_ char *path = strprintf(directories[i / 2], i % 2 ? h->state : h->run);

                CHECK(directory_foreach(AT_FDCWD, path, print_entry, path) <= 0);
        }
}

/* --- pods -------------------------------------------------------------------------------------------------------- */

static char *test_id(void) {
        char id[ID_LENGTH + 1];

        CHECK_EQ(random_id(id), 0);
        id[0] = 't';
        return strdup(id);
}

static void must(int r, const Error *error, const char *what) {
        if (r >= 0)
                return;
        fprintf(stderr, "%s: %d: %s\n", what, r, strempty(error->message));
        abort();
}

TestPod *pod_new(Harness *h) {
        TestPod *p = calloc(1, sizeof *p);

        CHECK(p);
        p->h = h;
        p->id = test_id();
        p->unit = strprintf("rktlet-pod-%s.service", p->id);
        p->slice = strprintf("rktlet-%.16s.slice", p->id);
        p->directory = strprintf("%s/pods/%s", h->state, p->id);
        p->run_directory = strprintf("%s/pods/%s", h->run, p->id);
        p->config.has_metadata = true;
        p->config.metadata.name = (char *) "web";
        p->config.metadata.namespace = (char *) "test";
        p->config.metadata.uid = p->id;
        p->config.has_linux = p->config.linux.has_security_context = true;
        p->config.linux.security_context.has_namespace_options = true;
        p->config.linux.security_context.namespace_options.pid = runtime_v1_NamespaceMode_CONTAINER;
        p->view = (EnginePod) {
                .id = p->id,
                .unit = p->unit,
                .slice = p->slice,
                .directory = p->directory,
                .run_directory = p->run_directory,
                .config = &p->config,
                .runtime_handler = "",
        };
        CHECK_EQ(mkdir_parents(AT_FDCWD, p->directory, 0700), 0);
        CHECK_EQ(mkdir_parents(AT_FDCWD, p->run_directory, 0700), 0);
        return p;
}

void pod_start(TestPod *p) {
        _cleanup_error_ Error error = ERROR_INIT;

        must(p->h->engine->ops->pod_start(p->h->engine, &p->view, &p->state, &error), &error, "pod_start");
        CHECK(p->state.running);
        CHECK(p->state.started_usec > 0);
}

void pod_end(TestPod *p) {
        _cleanup_error_ Error error = ERROR_INIT;
        Engine *e = p->h->engine;

        must(e->ops->pod_stop(e, &p->view, &error), &error, "pod_stop");
        must(e->ops->pod_remove(e, &p->view, &error), &error, "pod_remove");
        must(unit_stop_wait(p->h->systemd, p->slice, 0, &error), &error, "stop the slice");
        CHECK_EQ(rmdir(p->run_directory), 0);
        CHECK_EQ(rmdir(p->directory), 0);
        free(p->id);
        free(p->unit);
        free(p->slice);
        free(p->directory);
        free(p->run_directory);
        free(p);
}

/* --- containers -------------------------------------------------------------------------------------------------- */

TestContainer *container_new(TestPod *p, const char *script) {
        static char *layers[] = { (char *) "1", NULL };
        TestContainer *c = calloc(1, sizeof *c);
        const char *const argv[] = { "sh", "-c", script, NULL };

        CHECK(c);
        c->pod = p;
        c->id = test_id();
        c->unit = strprintf("rktlet-ctr-%s.service", c->id);
        c->directory = strprintf("%s/containers/%s", p->h->state, c->id);
        c->run_directory = strprintf("%s/containers/%s", p->h->run, c->id);
        c->log_path = strprintf("%s/log-%s", p->h->state, c->id);
        c->argv = strv_copy((char *const *) argv);
        c->config.has_metadata = true;
        c->config.metadata.name = (char *) "main";
        c->config.command = c->argv;
        c->config.command_count = 3;
        c->view = (EngineContainer) {
                .pod = &p->view,
                .id = c->id,
                .unit = c->unit,
                .directory = c->directory,
                .run_directory = c->run_directory,
                .log_path = c->log_path,
                .layers_path = strprintf("%s/layers", p->h->state),
                .config = &c->config,
                .layers = layers,
        };
        return c;
}

int container_try_create(TestContainer *c, Error *error) {
        CHECK_EQ(mkdir_parents(AT_FDCWD, c->directory, 0700), 0);
        CHECK_EQ(mkdir_parents(AT_FDCWD, c->run_directory, 0700), 0);
        return c->pod->h->engine->ops->container_create(c->pod->h->engine, &c->view, &c->info, error);
}

void container_create(TestContainer *c) {
        _cleanup_error_ Error error = ERROR_INIT;

        must(container_try_create(c, &error), &error, "container_create");
}

void container_start(TestContainer *c) {
        _cleanup_error_ Error error = ERROR_INIT;
        EngineContainerState state;

        must(c->pod->h->engine->ops->container_start(c->pod->h->engine, &c->view, &state, &error), &error,
             "container_start");
        CHECK_EQ(state.phase, ENGINE_CONTAINER_RUNNING);
        CHECK(state.started_usec > 0);
}

TestContainer *container_run(TestPod *p, const char *script) {
        TestContainer *c = container_new(p, script);

        container_create(c);
        container_start(c);
        return c;
}

EngineContainerState container_wait(TestContainer *c) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + WAIT_USEC;

        while (harness_seen(c->id).exits == 0) {
                CHECK(now_usec(CLOCK_MONOTONIC) < until);
                CHECK_EQ(fiber_sleep(2 * USEC_PER_MSEC), 0);
        }
        CHECK_EQ(harness_seen(c->id).exits, 1);
        return harness_seen(c->id).state;
}

void container_stop(TestContainer *c, uint64_t timeout_usec) {
        _cleanup_error_ Error error = ERROR_INIT;

        must(c->pod->h->engine->ops->container_stop(c->pod->h->engine, &c->view, c->info.stop_signal, timeout_usec,
                                                    &error),
             &error, "container_stop");
}

void container_remove(TestContainer *c) {
        _cleanup_error_ Error error = ERROR_INIT;
        Engine *e = c->pod->h->engine;

        must(e->ops->container_remove(e, &c->view, &error), &error, "container_remove");
        must(e->ops->container_remove(e, &c->view, &error), &error, "container_remove, again");
        CHECK(access(c->run_directory, F_OK) < 0);
        CHECK_EQ(rmdir(c->directory), 0);
        (void) unlink(c->log_path);
        engine_container_info_done(&c->info);
        free(c->id);
        free(c->unit);
        free(c->directory);
        free(c->run_directory);
        free(c->log_path);
        free((char *) c->view.layers_path);
        strv_free(c->argv);
        free(c);
}

char *container_output(TestContainer *c, const char *stream) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        _cleanup_free_ char *text = NULL;

        if (read_file(AT_FDCWD, c->log_path, 64U << 20, &text, NULL) < 0)
                return strdup("");
        for (char *line = text, *end; *line; line = end) {
                char *p = strchr(line, ' ');

                end = line + strcspn(line, "\n");
                if (*end)
                        *end++ = 0;
                CHECK(p);
                if (!startswith(p + 1, stream))
                        continue;
                p += 1 + strlen(stream) + 1; /* "F" or "P" */
                CHECK_EQ(buffer_appendf(&b, "%s%s", p + 2, *p == 'F' ? "\n" : ""), 0);
        }
        return b.data ? TAKE_PTR(b.data) : strdup("");
}

void container_wait_output(TestContainer *c, const char *text) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + WAIT_USEC;

        for (;;) {
                _cleanup_free_ char *output = container_output(c, "stdout");

                if (strstr(output, text))
                        return;
                CHECK(now_usec(CLOCK_MONOTONIC) < until);
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        }
}

char *container_output_of(TestPod *p, const char *script, int expected_code) {
        TestContainer *c = container_run(p, script);
        EngineContainerState state = container_wait(c);
        char *output = container_output(c, "stdout");

        if (state.exit_code != expected_code) {
                _cleanup_free_ char *why = container_output(c, "stderr");
                fprintf(stderr, "%s%s", output, why);
        }
        CHECK_EQ(state.exit_code, expected_code);
        container_remove(c);
        return output;
}

char *container_exec(TestContainer *c, const char *script) {
        const char *const argv[] = { "sh", "-c", script, NULL };
        _cleanup_(engine_exec_result_done) EngineExecResult result = {};
        _cleanup_error_ Error error = ERROR_INIT;

        must(c->pod->h->engine->ops->container_exec_sync(c->pod->h->engine, &c->view, argv, 20 * USEC_PER_SEC, &result,
                                                         &error),
             &error, "container_exec_sync");
        if (result.exit_code != 0)
                fprintf(stderr, "%s%s", result.output, result.error);
        CHECK_EQ(result.exit_code, 0);
        return TAKE_PTR(result.output);
}

void check_contains(const char *text, const char *what) {
        if (strstr(text, what))
                return;
        fprintf(stderr, "\"%s\" is not in:\n%s\n", what, text);
        abort();
}

int harness_main(Harness *h, const TestCase *cases, size_t n, int argc, char **argv) {
        size_t only = argc > 1 ? (size_t) atoi(argv[1]) : 0;
        int r;

        if (!harness_init(h)) {
                printf("1..0 # SKIP not in a machine with systemd\n");
                return EXIT_SUCCESS;
        }
        r = only > 0 && only <= n ? test_main(cases + only - 1, 1) : test_main(cases, n);
        harness_done(h);
        return r;
}
