/* The native engine: pods and containers as transient units, with crun as OCI runtime and no shim. */

#include <fcntl.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "engine/native/capability.h"
#include "engine/native/internal.h"
#include "engine/native/resources.h"
#include "engine/native/rootfs.h"

#define OOM_SCORE_ADJ_MIN (-1000)

char *unit_text(const char *format, ...) {
        _cleanup_free_ char *text = NULL;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0) {
                text = NULL;
                return NULL;
        }
        for (char *s = text; *s; s++)
                if ((unsigned char) *s < ' ' || *s == 0x7f)
                        *s = '?';
        return utf8_sanitize(text);
}

int log_fields_new(const EnginePod *pod, const EngineContainer *c, char ***ret) {
        _cleanup_strv_free_ char **l = NULL;
        const runtime_v1_PodSandboxMetadata *m = &pod->config->metadata;
        const struct {
                const char *name, *value;
        } fields[] = {
                { "POD_ID", pod->id },
                { "POD_NAME", strempty(m->name) },
                { "POD_NAMESPACE", strempty(m->namespace) },
                { "POD_UID", strempty(m->uid) },
                { "CONTAINER_ID", c ? c->id : NULL },
                { "CONTAINER_NAME", c ? strempty(c->config->metadata.name) : NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(fields); i++) {
                char *s;

                if (!fields[i].value)
                        continue;
                s = unit_text("%s=%s", fields[i].name, fields[i].value);
                if (!s || strv_push(&l, s) < 0) {
                        free(s);
                        return -ENOMEM;
                }
        }
        *ret = TAKE_PTR(l);
        return 0;
}

int cgroup_kill(const char *control_group) {
        _cleanup_close_ int dir_fd = cgroup_open(control_group), fd = -1;
        int r;

        if (dir_fd < 0)
                return dir_fd == -ENOENT ? 0 : dir_fd;
        fd = openat(dir_fd, "cgroup.kill", O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        r = write_all(fd, "1", 1);
        return r == -ENODEV ? 0 : r;
}

/* 1: a process is in it, 0: none, or it is gone. */
static int cgroup_is_populated(int events_fd) {
        char text[256];
        ssize_t n = pread(events_fd, text, sizeof text - 1, 0);

        if (n < 0)
                return errno == ENODEV ? 0 : -errno;
        text[n] = 0;
        return strstr(text, "populated 1") != NULL;
}

int cgroup_wait_empty(const char *control_group, uint64_t timeout_usec) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + timeout_usec;
        _cleanup_close_ int dir_fd = cgroup_open(control_group), fd = -1;
        int r;

        if (dir_fd < 0)
                return dir_fd == -ENOENT ? 0 : dir_fd;
        fd = openat(dir_fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        for (;;) {
                uint64_t now;

                r = cgroup_is_populated(fd);
                if (r <= 0)
                        return r;
                now = now_usec(CLOCK_MONOTONIC);
                if (now >= until)
                        return -ETIMEDOUT;
                r = fiber_wait_fd(fd, EPOLLPRI, until - now);
                if (r < 0)
                        return r;
        }
}

/* --- runtimes ---------------------------------------------------------------------------------------------------- */

#define DEFAULT_NAME "crun" /* the default has a name too */

static bool is_default(const char *handler) {
        return isempty(handler) || streq(handler, DEFAULT_NAME);
}

/* Where a runtime's state lies depends on the name alone: a pod is taken down also when its handler is not configured any
 * more. */
static char *runtime_root(const NativeEngine *e, const char *handler) {
        return is_default(handler) ? strdup(e->crun_root) : strprintf("%s/runtimes/%s", e->run_directory, handler);
}

char *native_runtime_state(const NativeEngine *e, const char *handler, const char *id) {
        _cleanup_free_ char *root = runtime_root(e, handler);

        return root ? strprintf("%s/%s", root, id) : NULL;
}

Runtime *native_runtime_find(NativeEngine *e, const char *handler) {
        for (size_t i = 0; i < e->n_runtimes; i++)
                if (streq(e->runtimes[i].name, strempty(handler)))
                        return &e->runtimes[i];
        return is_default(handler) ? &e->runtimes[0] : NULL;
}

int native_handler_check(Engine *engine, const char *handler, Error *error) {
        NativeEngine *e = native_engine(engine);
        _cleanup_free_ char *names = NULL;

        if (native_runtime_find(e, handler))
                return 0;
        for (size_t i = 1; i < e->n_runtimes; i++) {
                char *longer = strprintf("%s, %s", names ?: DEFAULT_NAME, e->runtimes[i].name);

                if (!longer)
                        return error_oom(error);
                free(names);
                names = longer;
        }
        return error_setf(error, GRPC_INVALID_ARGUMENT,
                          "no runtime handler \"%.64s\" is configured, only %s: correct the pod's RuntimeClass, or add a "
                          "section [Runtime NAME] to rktlet.conf", handler, names ?: DEFAULT_NAME);
}

static int native_handlers(Engine *engine, EngineHandler **ret, size_t *ret_n, Error *error) {
        NativeEngine *e = native_engine(engine);
        bool named = !streq(native_runtime_find(e, DEFAULT_NAME)->name, DEFAULT_NAME);
        _cleanup_free_ EngineHandler *handlers = calloc(e->n_runtimes + 1, sizeof *handlers);
        size_t n = 0;
        int r;

        if (!handlers)
                return error_oom(error);
        for (size_t i = 0; i < e->n_runtimes; i++) {
                _cleanup_error_ Error ignored = ERROR_INIT;
                RuntimeFeatures f = {};

                r = runtime_features(&e->runtimes[i], &f, &ignored);
                if (r == -ECANCELED || r == -ETIME) {
                        error_move(error, &ignored);
                        return r;
                }
                if (r < 0)
                        log_warning("What runtime %s can is not known: %s", e->runtimes[i].path,
                                    strempty(ignored.message));
                for (size_t j = 0; j < (i == 0 && named ? 2U : 1U); j++)
                        handlers[n++] = (EngineHandler) {
                                .name = j == 0 ? e->runtimes[i].name : DEFAULT_NAME,
                                .recursive_read_only_mounts = f.recursive_read_only,
                                .user_namespaces = f.user_namespaces,
                        };
        }
        *ret = TAKE_PTR(handlers);
        *ret_n = n;
        return 0;
}

static int add_runtimes(NativeEngine *e, const NativeEngineConfig *config, Error *error) {
        int r;

        e->runtimes = calloc(config->n_runtimes + 1, sizeof *e->runtimes);
        if (!e->runtimes)
                return error_oom(error);
        for (size_t i = 0; i <= config->n_runtimes; i++) {
                const NativeRuntime *c = i == 0 ? &(NativeRuntime) { "", config->crun_path, NATIVE_RUNTIME_CRUN }
                                                : &config->runtimes[i - 1];
                _cleanup_free_ char *root = runtime_root(e, c->name);

                if (!root)
                        return error_oom(error);
                e->n_runtimes++; /* also when it is half made */
                if (runtime_init(&e->runtimes[i], c->name, c->path, root, c->type) < 0)
                        return error_oom(error);
                r = mkdir_parents(AT_FDCWD, root, 0700);
                if (r < 0)
                        return error_set(error, r, "cannot make %s", root);
        }
        return 0;
}

#define UNIT_STOP_DEFAULT_USEC (10 * USEC_PER_SEC)

/* What pods and containers get that are made from now on. */
static void set_limits(NativeEngine *e, const NativeEngineConfig *config) {
        e->log_to_journal = config->log_to_journal;
        e->journal_interval_usec = config->journal_interval_usec;
        e->journal_burst = config->journal_burst;
        e->unit_stop_timeout_usec = config->unit_stop_timeout_usec > 0 ? config->unit_stop_timeout_usec
                                                                       : UNIT_STOP_DEFAULT_USEC;
        e->log_line_max = config->max_container_log_line > 0 ? (size_t) config->max_container_log_line : 0;
}

static void free_runtimes(Runtime *runtimes, size_t n) {
        for (size_t i = 0; i < n; i++)
                runtime_done(&runtimes[i]);
        free(runtimes);
}

int native_engine_configure(Engine *engine, const NativeEngineConfig *config, Error *error) {
        NativeEngine *e = native_engine(engine), fresh = { .run_directory = e->run_directory, .crun_root = e->crun_root };
        NativeRuntimes *retired;
        int r;

        /* Containers that are there, and calls under way, keep the runtimes they know. */
        retired = reallocarray(e->retired, e->n_retired + 1, sizeof *retired);
        if (!retired)
                return error_oom(error);
        e->retired = retired;
        r = add_runtimes(&fresh, config, error);
        if (r < 0) {
                free_runtimes(fresh.runtimes, fresh.n_runtimes);
                return r;
        }
        e->retired[e->n_retired++] = (NativeRuntimes) { e->runtimes, e->n_runtimes };
        e->runtimes = fresh.runtimes;
        e->n_runtimes = fresh.n_runtimes;
        set_limits(e, config);
        return 0;
}

static Engine *native_free(Engine *engine) {
        NativeEngine *e = native_engine(engine);
        NativeContainer *n, *next;
        NativePod *p, *next_pod;

        HASH_ITER(hh, e->containers, n, next)
                native_container_forget(n);
        HASH_ITER(hh, e->pods, p, next_pod)
                native_pod_forget(p);
        sd_event_unref(e->event);
        free_runtimes(e->runtimes, e->n_runtimes);
        for (size_t i = 0; i < e->n_retired; i++)
                free_runtimes(e->retired[i].list, e->retired[i].n);
        free(e->retired);
        runtime_done(&e->exec_program);
        free(e->pod_path);
        free(e->create_path);
        free(e->checkpoint_path);
        free(e->run_directory);
        free(e->crun_root);
        free(e->scratch);
        free(e);
        return NULL;
}

static int native_load_begin(Engine *engine, Error *error) {
        static const char *const patterns[] = { "rktlet-pod-*.service", "rktlet-ctr-*.service" };

        return systemd_note_running(native_engine(engine)->systemd, patterns, ELEMENTSOF(patterns), error);
}

static void native_load_end(Engine *engine) {
        systemd_forget_running(native_engine(engine)->systemd);
}

/* The kernel has to make them, and the file system of the layers to map IDs. */
static bool can_map_ids(const char *layers_path) {
        const IdMap map = { .uids = { .ranges = { { 0, 1, 1 } }, .n = 1 }, .gids = { .ranges = { { 0, 1, 1 } }, .n = 1 } };
        _cleanup_close_ int userns_fd = -1, mount_fd = -1;
        _cleanup_error_ Error error = ERROR_INIT;
        int r;

        r = id_map_make_namespace(&map, &userns_fd, &error);
        if (r < 0) {
                log_notice("Pods can't have user namespaces: %s", error.message);
                return false;
        }
        mount_fd = open_tree(AT_FDCWD, layers_path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        r = mount_fd < 0 ? -errno : mount_map_ids(mount_fd, userns_fd);
        if (r < 0)
                log_notice("Pods can't have user namespaces: the file system of %s doesn't map IDs (%s)", layers_path,
                           strerror(-r));
        return r >= 0;
}

static bool has_user_namespaces(Engine *engine, const char *layers_path) {
        NativeEngine *e = native_engine(engine);

        if (e->user_namespaces == 0)
                e->user_namespaces = can_map_ids(layers_path) ? 1 : -1;
        return e->user_namespaces > 0;
}

static const EngineOps native_ops = {
        .name = "native",
        .supplemental_groups_policy = true,
        .free = native_free,
        .load_begin = native_load_begin,
        .load_end = native_load_end,
        .handler_check = native_handler_check,
        .handlers = native_handlers,
        .pod_start = native_pod_start,
        .pod_netns = native_pod_netns,
        .pod_stop = native_pod_stop,
        .pod_remove = native_pod_remove,
        .pod_load = native_pod_load,
        .pod_cgroup = native_pod_cgroup,
        .pod_status = native_pod_status,
        .pod_update = native_pod_update,
        .container_create = native_container_create,
        .container_start = native_container_start,
        .container_stop = native_container_stop,
        .container_remove = native_container_remove,
        .container_load = native_container_load,
        .container_exec_sync = native_container_exec_sync,
        .container_exec = native_container_exec,
        .container_attach = native_container_attach,
        .container_reopen_log = native_container_reopen_log,
        .container_update = native_container_update,
        .container_cgroup = native_container_cgroup,
        .container_read_limits = native_container_read_limits,
        .container_checkpoint = native_container_checkpoint,
        .container_spec = native_container_spec,
        .container_layer_usage = native_container_layer_usage,
        .has_user_namespaces = has_user_namespaces,
};

/* What PID 1 may do decides what units can have; the daemon itself may be more confined. */
static int look_at_pid_1(NativeEngine *e, Error *error) {
        _cleanup_free_ char *text = NULL;
        int r;

        r = capability_bounding_set(1, &e->capabilities);
        if (r < 0)
                return error_set(error, r, "cannot read the capabilities of PID 1");
        if (e->capabilities & (UINT64_C(1) << CAP_SYS_RESOURCE)) {
                e->oom_score_adj_min = OOM_SCORE_ADJ_MIN;
                return 0;
        }
        r = read_file(AT_FDCWD, "/proc/1/oom_score_adj", 16, &text, NULL);
        if (r < 0)
                return error_set(error, r, "cannot read the OOM score of PID 1");
        e->oom_score_adj_min = atoi(text);
        log_notice("PID 1 lacks CAP_SYS_RESOURCE: OOM scores below %d are raised to it", e->oom_score_adj_min);
        return 0;
}

static int make_directories(const NativeEngine *e, Error *error) {
        const char *const paths[] = { e->scratch };
        int r;

        r = mkdir_parents(AT_FDCWD, e->run_directory, 0711);
        if (r < 0)
                return error_set(error, r, "cannot make %s", e->run_directory);
        for (size_t i = 0; i < ELEMENTSOF(paths); i++)
                if (mkdir(paths[i], 0700) < 0 && errno != EEXIST)
                        return error_set(error, -errno, "cannot make %s", paths[i]);
        return 0;
}

int native_engine_new(sd_event *event, Systemd *systemd, const NativeEngineConfig *config, const EngineEvents *events,
                      Engine **ret, Error *error) {
        _cleanup_(engine_freep) Engine *engine = NULL;
        _cleanup_free_ char *exec_path = NULL;
        NativeEngine *e = calloc(1, sizeof *e);
        int r;

        if (!e)
                return error_oom(error);
        engine = &e->engine;
        e->engine.ops = &native_ops;
        if (events)
                e->engine.events = *events;
        e->exec_program.fd = -1;
        e->event = sd_event_ref(event);
        e->systemd = systemd;
        set_limits(e, config);
        e->pod_path = strprintf("%s/rktlet-pod", config->libexec_path);
        e->create_path = strprintf("%s/rktlet-create", config->libexec_path);
        exec_path = strprintf("%s/rktlet-exec", config->libexec_path);
        e->checkpoint_path = strprintf("%s/rktlet-checkpoint", config->libexec_path);
        e->run_directory = strdup(config->run_directory);
        e->crun_root = strprintf("%s/crun", config->run_directory);
        e->scratch = strprintf("%s/scratch", config->run_directory);
        if (!e->pod_path || !e->create_path || !e->checkpoint_path || !exec_path || !e->run_directory || !e->crun_root || !e->scratch ||
            runtime_init(&e->exec_program, "", exec_path, "", NATIVE_RUNTIME_CRUN) < 0)
                return error_oom(error);
        r = look_at_pid_1(e, error);
        if (r < 0)
                return r;
        r = make_directories(e, error);
        if (r < 0)
                return r;
        r = add_runtimes(e, config, error);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(engine);
        return 0;
}
