/* A container while it lives: followed through its unit, started, stopped, and its end completed and told. */

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "basic/process.h"
#include "engine/native/exec.h"
#include "engine/native/internal.h"
#include "engine/native/resources.h"
#include "engine/native/rootfs.h"
#include "engine/native/volume.h"

#define START_ERROR_MAX 4096U
#define CGROUP_FILE_MAX 16384U

/* --- objects ----------------------------------------------------------------------------------------------------- */

NativeContainer *native_container_ref(NativeContainer *n) {
        if (n)
                n->n_ref++;
        return n;
}

NativeContainer *native_container_unref(NativeContainer *n) {
        if (!n || --n->n_ref > 0)
                return NULL;
        unit_watch_free(n->watch);
        sd_event_source_disable_unref(n->memory_events_source);
        (void) safe_close(n->memory_events_fd);
        (void) safe_close(n->slice_memory_events_fd);
        free(n->id);
        free(n->pod_id);
        free(n->unit);
        free(n->pod_socket_path);
        free(n->control_group);
        free(n->start_error);
        free(n->runtime_state);
        free(n);
        return NULL;
}

static void unrefp(void *p) {
        native_container_unref(p);
}

NativeContainer *native_container_find(NativeEngine *e, const char *id) {
        NativeContainer *n;

        HASH_FIND_STR(e->containers, id, n);
        return n;
}

int native_container_new(NativeEngine *e, const EngineContainer *c, NativeContainer **ret, Error *error) {
        _cleanup_(native_container_unrefp) NativeContainer *n = calloc(1, sizeof *n);

        if (!n)
                return error_oom(error);
        n->n_ref = 1;
        n->memory_events_fd = -1;
        n->slice_memory_events_fd = -1;
        n->state.phase = ENGINE_CONTAINER_CREATED;
        n->id = strdup(c->id);
        n->pod_id = strdup(c->pod->id);
        n->unit = strdup(c->unit);
        n->pod_socket_path = strprintf("%s/pod.sock", c->pod->run_directory);
        n->runtime = native_runtime_find(e, c->pod->runtime_handler);
        n->runtime_state = native_runtime_state(e, c->pod->runtime_handler, c->id);
        if (!n->id || !n->pod_id || !n->unit || !n->pod_socket_path || !n->runtime_state)
                return error_oom(error);
        if (native_container_find(e, c->id))
                return error_setf(error, GRPC_ALREADY_EXISTS, "container %s is there already", c->id);
        n->engine = e;
        HASH_ADD_KEYPTR(hh, e->containers, n->id, strlen(n->id), n);
        *ret = TAKE_PTR(n);
        return 0;
}

char *native_container_process_group(const NativeContainer *n) {
        if (!n->control_group)
                return NULL;
        return n->runtime && runtime_has_leaf(n->runtime) ? strprintf("%s/" RUNTIME_LEAF, n->control_group)
                                                          : strdup(n->control_group);
}

int native_container_check_runtime(const NativeContainer *n, Error *error) {
        if (n->runtime)
                return 0;
        return error_setf(error, GRPC_FAILED_PRECONDITION,
                          "the runtime handler of container %s is not configured any more: bring its section back to "
                          "rktlet.conf, or remove the pod", n->id);
}

static void stop_following(NativeContainer *n) {
        n->watch = unit_watch_free(n->watch);
        n->memory_events_source = sd_event_source_disable_unref(n->memory_events_source);
        n->memory_events_fd = safe_close(n->memory_events_fd);
}

void native_container_forget(NativeContainer *n) {
        if (!n->engine)
                return;
        HASH_DEL(n->engine->containers, n);
        n->engine = NULL;
        stop_following(n);
        fiber_queue_wake(&n->changed, 0);
        native_container_unref(n);
}

/* --- the end ----------------------------------------------------------------------------------------------------- */

static bool has_ended(const NativeContainer *n) {
        return n->state.phase == ENGINE_CONTAINER_EXITED || n->state.phase == ENGINE_CONTAINER_UNKNOWN;
}

int native_container_wait_exit(NativeContainer *n, uint64_t until_usec) {
        _cleanup_(native_container_unrefp) _unused_ NativeContainer *held = native_container_ref(n);
        int r;

        while (n->engine && !has_ended(n)) {
                r = fiber_queue_wait_until(&n->changed, until_usec);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* What was left in its cgroup ends with it, its output is written, and only then the end is told. */
static int complete_exit(void *userdata) {
        NativeContainer *n = userdata;
        _cleanup_error_ Error error = ERROR_INIT;
        int r;

        KILL_POINT_OF("container-exit.seen", n->id);
        r = cgroup_kill(n->control_group);
        if (r >= 0)
                r = cgroup_wait_empty(n->control_group, KILL_TIMEOUT_USEC);
        if (r < 0)
                log_debug_errno(r, "Processes of container %s are left, ignoring", n->id);
        KILL_POINT_OF("container-exit.killed", n->id);
        r = pod_client_drain(n->pod_socket_path, n->id, &error);
        if (r < 0 && r != -ENOENT)
                log_debug("The log of container %s may miss its end: %s, ignoring", n->id, strempty(error.message));

        KILL_POINT_OF("container-exit.drained", n->id);
        n->state.phase = n->state.finished_usec > 0 ? ENGINE_CONTAINER_EXITED : ENGINE_CONTAINER_UNKNOWN;
        n->state.pid = 0;
        if (n->engine && n->up && n->engine->engine.events.container_changed)
                n->engine->engine.events.container_changed(n->id, &n->state, n->engine->engine.events.userdata);
        fiber_queue_wake(&n->changed, 0);
        return 0;
}

static void begin_exit(NativeContainer *n) {
        int r;

        if (n->exiting)
                return;
        n->exiting = true;
        r = fiber_spawn(n->engine->event, "container-exit", complete_exit, native_container_ref(n), unrefp, NULL);
        if (r < 0) {
                /* No memory for it: told without. */
                native_container_unref(n);
                n->state.phase = ENGINE_CONTAINER_EXITED;
                fiber_queue_wake(&n->changed, 0);
        }
}

/* --- out of memory ----------------------------------------------------------------------------------------------- */

/* The number of processes that the kernel ended for want of memory; 0 when it can't be read (any more). */
static uint64_t read_oom_kills(int memory_events_fd) {
        char text[512], *line;
        ssize_t size;

        if (memory_events_fd < 0)
                return 0;
        size = pread(memory_events_fd, text, sizeof text - 1, 0);
        if (size <= 0)
                return 0;
        text[size] = 0;
        line = strstr(text, "oom_kill ");
        return line ? strtoull(line + STRLEN("oom_kill "), NULL, 10) : 0;
}

static uint64_t count_oom_kills(const NativeContainer *n) {
        return read_oom_kills(n->memory_events_fd);
}

/* A container whose main process was killed loses its cgroup at once, before anybody can read it. The cgroup above
 * counts what happened below. */
static bool killed_below_slice(const NativeContainer *n, const UnitState *state) {
        return state->exec_main_code != CLD_EXITED && state->exec_main_status == SIGKILL &&
               read_oom_kills(n->slice_memory_events_fd) > n->slice_oom_kills;
}

/* The file is gone with the cgroup, so it is read when the kernel tells, not when the end is seen. */
static int on_memory_events(sd_event_source *source, const struct inotify_event *event, void *userdata) {
        NativeContainer *n = userdata;

        if (count_oom_kills(n) > 0)
                n->state.oom_killed = true;
        return 0;
}

static void watch_memory(NativeContainer *n) {
        _cleanup_close_ int dir_fd = cgroup_open(n->control_group);
        int r;

        if (dir_fd < 0)
                return;
        n->memory_events_fd = openat(dir_fd, "memory.events", O_RDONLY | O_CLOEXEC);
        if (n->memory_events_fd < 0)
                return; /* no memory controller */
        r = sd_event_add_inotify_fd(n->engine->event, &n->memory_events_source, n->memory_events_fd, IN_MODIFY,
                                    on_memory_events, n);
        if (r < 0)
                log_debug_errno(r, "The memory events of container %s can't be watched, ignoring", n->id);
        n->state.oom_killed = count_oom_kills(n) > 0;
        n->slice_memory_events_fd = openat(dir_fd, "../memory.events", O_RDONLY | O_CLOEXEC);
        n->slice_oom_kills = read_oom_kills(n->slice_memory_events_fd);
}

const char *native_container_oom_score_adj(const NativeContainer *n) {
        static char score[16];
        _cleanup_free_ char *text = NULL;
        char path[64];

        (void) snprintf(path, sizeof path, "/proc/%d/oom_score_adj", n->state.pid);
        if (n->state.pid <= 0 || read_file(AT_FDCWD, path, sizeof score - 1, &text, NULL) < 0)
                return NULL;
        (void) snprintf(score, sizeof score, "%.*s", (int) strcspn(text, "\n"), text);
        return score;
}

/* --- following --------------------------------------------------------------------------------------------------- */

static void take_exit(NativeContainer *n, const UnitState *state) {
        n->state.finished_usec = state->exec_main_exit_usec ?: now_usec(CLOCK_REALTIME);
        n->state.exit_code =
                        state->exec_main_code == CLD_EXITED ? state->exec_main_status : 128 + state->exec_main_status;
        if (streq_ptr(state->result, "oom-kill") || count_oom_kills(n) > 0 || killed_below_slice(n, state))
                n->state.oom_killed = true;
        if (n->state.exit_code == 0)
                n->state.oom_killed = false; /* it was another process, and the container got over it */
}

static void on_unit(const char *unit, const UnitState *state, void *userdata) {
        NativeContainer *n = userdata;
        const char *active = strempty(state->active_state);
        bool gone;

        n->seen = true;
        if (!isempty(state->control_group) && !streq_ptr(state->control_group, n->control_group)) {
                char *copy = strdup(state->control_group);

                if (copy) {
                        free(n->control_group);
                        n->control_group = copy;
                }
        }
        n->unit_failed = streq(active, "failed");
        if (n->exiting)
                return;
        if (n->memory_events_fd < 0 && n->control_group)
                watch_memory(n);
        /* A unit that is gone without a word: somebody removed it, or the machine was started again. */
        gone = streq_ptr(state->load_state, "not-found") || streq(active, "inactive") || streq(active, "failed");
        if (state->exec_main_code != 0 && state->main_pid == 0) {
                take_exit(n, state);
                begin_exit(n);
        } else if (gone) {
                n->state.finished_usec = 0;
                begin_exit(n);
        } else
                n->state.pid = state->main_pid;
        fiber_queue_wake(&n->changed, 0);
}

int native_container_watch(NativeContainer *n, Error *error) {
        int r;

        if (n->watch)
                return 0;
        n->seen = false;
        if (n->control_group && n->state.pid > 0)
                r = unit_watch_new_running(n->engine->systemd, n->unit, n->control_group, on_unit, n, &n->watch);
        else
                r = unit_watch_new(n->engine->systemd, n->unit, on_unit, n, &n->watch);
        if (r < 0)
                return error_set(error, r, "cannot follow unit %s", n->unit);
        if (n->control_group)
                watch_memory(n);
        return 0;
}

int native_container_wait_seen(NativeContainer *n, Error *error) {
        int r;

        while (n->engine && !n->seen) {
                r = fiber_queue_wait(&n->changed);
                if (r < 0)
                        return error_set(error, r, "gave up waiting for the state of unit %s", n->unit);
        }
        return 0;
}

/* --- start ------------------------------------------------------------------------------------------------------- */

static bool process_lives(const NativeContainer *n) {
        return n->state.pid > 0 && kill(n->state.pid, 0) >= 0;
}

/* 1: it was started; 0: the runtime's own command has to do it. */
static int start_by_fifo(const NativeContainer *n, Error *error) {
        _cleanup_free_ char *fifo = NULL;
        int r;

        /* Nobody waits there, and it lives: it was started by a daemon that was killed in the middle. */
        if (n->runtime->type == NATIVE_RUNTIME_CRUN) {
                r = runtime_start_by_fifo(n->runtime_state);
                if (r >= 0 || (r == -ENXIO && process_lives(n)))
                        return 1;
                if (r == -ENXIO)
                        return error_setf(error, GRPC_FAILED_PRECONDITION,
                                          "cannot start container %s: its process has ended", n->id);
                return 0;
        }
        fifo = strprintf("%s/exec.fifo", n->runtime_state);
        if (!fifo)
                return error_oom(error);
        return access(fifo, F_OK) < 0 && errno == ENOENT && process_lives(n);
}

static int run_start(NativeEngine *e, const NativeContainer *n, Error *error) {
        _cleanup_(process_result_done) ProcessResult result = {};
        _cleanup_strv_free_ char **argv = NULL;
        _cleanup_free_ char *why = NULL;
        int r;

        r = native_container_check_runtime(n, error);
        if (r < 0)
                return r;
        r = start_by_fifo(n, error);
        if (r != 0)
                return r;
        if (runtime_arguments(n->runtime, /* log= */ NULL, &argv) < 0 || strv_extend(&argv, "start") < 0 ||
            strv_extend(&argv, n->id) < 0)
                return error_oom(error);
        r = process_run(&(ProcessOptions) { .argv = (const char *const *) argv,
                                            .error_max = 4096,
                                            .timeout_usec = RUNTIME_TIMEOUT_USEC },
                        &result, error);
        if (r < 0)
                return r;
        if (result.code == CLD_EXITED && result.status == 0)
                return 0;
        why = utf8_sanitize(strempty(result.error));
        if (why)
                why[strcspn(why, "\n")] = 0;
        return error_setf(error, GRPC_INTERNAL, "cannot start container %s: the OCI runtime %s%s%s", n->id,
                          process_result_describe(&result), isempty(why) ? "" : ": ", strempty(why));
}

static int kill_all(NativeContainer *n, Error *error) {
        int r;

        if (n->control_group) {
                r = cgroup_kill(n->control_group);
                if (r >= 0)
                        return 0;
        }
        r = unit_kill(n->engine->systemd, n->unit, "all", SIGKILL, error);
        if (r == -ESRCH) {
                error_clear(error);
                return 0;
        }
        return r;
}

int native_container_start(Engine *engine, const EngineContainer *c, EngineContainerState *ret, Error *error) {
        NativeEngine *e = native_engine(engine);
        NativeContainer *n = native_container_find(e, c->id);
        int r;

        if (!n)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s was not created", c->id);
        if (n->start_error)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "cannot start container %s: %s", c->id,
                                  n->start_error);
        if (n->started || n->exiting)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s is not in the state created", c->id);
        r = fiber_check();
        if (r < 0)
                return error_set(error, r, "container %s was not started", c->id);

        /* From here on it can't be undone, and takes a few milliseconds. */
        FIBER_SHIELDED_SCOPE;
        _cleanup_(native_container_unrefp) _unused_ NativeContainer *held = native_container_ref(n);
        n->started = true;
        n->state.started_usec = now_usec(CLOCK_REALTIME);
        r = run_start(e, n, error);
        if (r < 0) {
                _cleanup_error_ Error ignored = ERROR_INIT;

                n->up = false; /* its end is told by this error */
                if (n->engine && kill_all(n, &ignored) >= 0)
                        (void) native_container_wait_exit(n, now_usec(CLOCK_MONOTONIC) + KILL_TIMEOUT_USEC);
                return r;
        }
        if (!has_ended(n))
                n->state.phase = ENGINE_CONTAINER_RUNNING;
        *ret = n->state;
        ret->phase = ENGINE_CONTAINER_RUNNING;
        return 0;
}

/* --- stop -------------------------------------------------------------------------------------------------------- */

/* The stop signal and the grace. 0: it has ended; -ETIMEDOUT: it hasn't. */
static int stop_gently(NativeContainer *n, int signo, uint64_t timeout_usec, Error *error) {
        _cleanup_error_ Error ignored = ERROR_INIT;
        int r;

        r = unit_kill(n->engine->systemd, n->unit, "main", signo, &ignored);
        if (r < 0 && r != -ESRCH && r != -ENOENT) {
                error_move(error, &ignored);
                return r;
        }
        return native_container_wait_exit(n, now_usec(CLOCK_MONOTONIC) + timeout_usec);
}

int native_container_stop(Engine *engine, const EngineContainer *c, int signo, uint64_t timeout_usec, Error *error) {
        NativeEngine *e = native_engine(engine);
        NativeContainer *n = native_container_find(e, c->id);
        EngineContainerState state;
        int r;

        if (!n) {
                /* It could not be looked at when the daemon started; perhaps now. */
                r = native_container_load(engine, c, &state, error);
                if (r < 0)
                        return r;
                n = native_container_find(e, c->id);
        }
        if (!n || n->start_error || has_ended(n))
                return 0;

        _cleanup_(native_container_unrefp) _unused_ NativeContainer *held = native_container_ref(n);
        if (n->started && timeout_usec > 0 && !n->exiting) {
                /* More than five hundred thousand years are for ever. */
                r = stop_gently(n, signo, MIN(timeout_usec, USEC_INFINITY / 4), error);
                if (r >= 0)
                        return 0;
                if (r != -ETIMEDOUT)
                        return error_set(error, r, "container %s was not stopped", c->id);
        }
        if (n->engine && !n->exiting) {
                r = kill_all(n, error);
                if (r < 0)
                        return r;
        }
        r = native_container_wait_exit(n, now_usec(CLOCK_MONOTONIC) + KILL_TIMEOUT_USEC);
        if (r < 0)
                return error_set(error, r, "container %s was killed, but did not end", c->id);
        return 0;
}

/* --- after a restart of the daemon ------------------------------------------------------------------------------- */

static uint64_t usec_of(const struct timespec *ts) {
        return (uint64_t) ts->tv_sec * USEC_PER_SEC + (uint64_t) ts->tv_nsec / NSEC_PER_USEC;
}

/* Whether `crun start` was done is seen from the FIFO on which the container waits for it; when, from the time of its
 * removal. */
static void look_at_runtime_state(NativeContainer *n) {
        _cleanup_free_ char *fifo = strprintf("%s/exec.fifo", n->runtime_state);
        struct stat st;

        if (!fifo || stat(n->runtime_state, &st) < 0)
                return;
        n->started = access(fifo, F_OK) < 0;
        if (n->started)
                n->state.started_usec = usec_of(&st.st_mtim);
}

static int is_same_file(int dir_fd, const char *name, void *userdata) {
        const struct stat *file = userdata;
        struct stat st;

        return fstatat(dir_fd, name, &st, 0) >= 0 && st.st_ino == file->st_ino && st.st_dev == file->st_dev;
}

/* A daemon that dies between telling the container to go on and removing the FIFO leaves one that runs, and a FIFO that
 * says it waits. Who waits has the FIFO open, and what was written to it last says when. */
static void finish_start(NativeContainer *n) {
        _cleanup_free_ char *fifo = strprintf("%s/exec.fifo", n->runtime_state);
        char descriptors[64];
        struct stat st;

        if (!fifo || n->state.pid <= 0 || stat(fifo, &st) < 0)
                return;
        (void) snprintf(descriptors, sizeof descriptors, "/proc/%d/fd", n->state.pid);
        if (directory_foreach(AT_FDCWD, descriptors, is_same_file, &st) != 0)
                return;
        n->started = true;
        n->state.started_usec = usec_of(&st.st_mtim);
        (void) unlink(fifo);
}

/* Who has ended by itself, not by a signal, had been started, though nobody took note: the FIFO may be there still, as a
 * start was cut off. When that was isn't known better than by what was written to it last, and not after its end. */
static void date_start(NativeContainer *n) {
        _cleanup_free_ char *fifo = strprintf("%s/exec.fifo", n->runtime_state);
        struct stat st;

        if (n->start_error || n->state.started_usec > 0 || n->state.exit_code >= 128)
                return;
        n->state.started_usec = n->state.finished_usec;
        if (fifo && stat(fifo, &st) >= 0)
                n->state.started_usec = MIN(usec_of(&st.st_mtim), n->state.finished_usec);
}

/* What systemd would say of a unit that runs, from files: the process that the runtime noted, if it is in the unit's
 * cgroup. That one which has put itself elsewhere is asked for. */
static bool look_at_running(NativeContainer *n, const EngineContainer *c) {
        _cleanup_free_ char *pid_file = strprintf("%s/pid", c->run_directory), *text = NULL, *cgroups = NULL;
        char *path, *name, file[64];
        uint32_t pid;

        if (!pid_file || !systemd_noted_running(n->engine->systemd, n->unit) ||
            read_file(AT_FDCWD, pid_file, 16, &text, NULL) < 0 || parse_u32(text, &pid) < 0 || pid == 0)
                return false;
        (void) snprintf(file, sizeof file, "/proc/%u/cgroup", pid);
        if (read_file(AT_FDCWD, file, CGROUP_FILE_MAX, &cgroups, NULL) < 0)
                return false;
        path = startswith(cgroups, "0::/") ? cgroups : strstr(cgroups, "\n0::/");
        if (!path)
                return false;
        path = strchr(path, '/');
        path[strcspn(path, "\n")] = 0;
        name = strrchr(path, '/');
        if (!streq(name + 1, n->unit))
                return false;
        free(n->control_group);
        n->control_group = strdup(path);
        n->state.pid = (pid_t) pid;
        return n->control_group;
}

static int read_start_error(const EngineContainer *c, char **ret, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/start-error", c->directory), *text = NULL;
        int r;

        if (!path)
                return error_oom(error);
        r = read_file(AT_FDCWD, path, START_ERROR_MAX, &text, NULL);
        if (r < 0 && r != -ENOENT)
                return error_set(error, r, "cannot read %s", path);
        *ret = TAKE_PTR(text);
        return 0;
}

int native_container_load(Engine *engine, const EngineContainer *c, EngineContainerState *ret, Error *error) {
        NativeEngine *e = native_engine(engine);
        NativeContainer *n = native_container_find(e, c->id);
        int r;

        if (!n) {
                r = native_container_new(e, c, &n, error);
                if (r < 0)
                        return r;
        }
        _cleanup_(native_container_unrefp) NativeContainer *held = native_container_ref(n);
        if (!n->watch) {
                free(n->start_error);
                n->start_error = NULL;
                r = read_start_error(c, &n->start_error, error);
                if (r >= 0 && !n->start_error) {
                        bool runs = look_at_running(n, c);

                        look_at_runtime_state(n);
                        r = native_container_watch(n, error);
                        if (r >= 0 && !runs)
                                r = native_container_wait_seen(n, error);
                }
                if (r < 0) {
                        native_container_forget(n);
                        return r;
                }
                if (!n->started && !n->exiting && !n->start_error && n->runtime &&
                    n->runtime->type == NATIVE_RUNTIME_CRUN)
                        finish_start(n);
        }
        if (n->exiting) {
                r = native_container_wait_exit(n, USEC_INFINITY);
                if (r < 0)
                        return error_set(error, r, "gave up waiting for the end of container %s", c->id);
                date_start(n);
        } else if (n->started && !n->start_error) {
                n->state.phase = ENGINE_CONTAINER_RUNNING;
                if (!n->up)
                        exec_end_leftovers(n);
        }
        n->up = true;
        *ret = n->state;
        return 0;
}

/* --- removal ----------------------------------------------------------------------------------------------------- */

typedef struct Release {
        NativeEngine *engine;
        const char *unit;
        bool failed;
        Error error;
} Release;

static int release_unit(void *userdata) {
        Release *l = userdata;
        FIBER_SHIELDED_SCOPE;

        if (l->failed)
                return unit_reset_failed(l->engine->systemd, l->unit, &l->error);
        return unit_release_wait(l->engine->systemd, l->unit, UNIT_STOP_TIMEOUT_USEC, &l->error);
}

/* The pod process's part. When the pod is down there is nothing left of it. */
static int release_in_pod(NativeEngine *e, const EngineContainer *c, Error *error) {
        _cleanup_free_ char *socket_path = strprintf("%s/pod.sock", c->pod->run_directory),
                            *rootfs = strprintf("%s/rootfs", c->run_directory);
        NativePod *p = native_pod_find(e, c->pod->id);
        _cleanup_error_ Error why = ERROR_INIT;
        int r;

        if (!socket_path || !rootfs)
                return error_oom(error);
        if (!p || !p->state.running)
                return 0;
        r = pod_client_remove_streams(socket_path, c->id, &why);
        if (r >= 0)
                r = pod_client_unmount(socket_path, rootfs, &why);
        if (r >= 0)
                r = volumes_detach(c, socket_path, &why);
        /* Nobody listens: it is down, and its mounts went with it. (While its process is started again systemd holds
         * the socket.) */
        if (r == -ENOENT || r == -ECONNREFUSED)
                return 0;
        if (r < 0)
                error_move(error, &why);
        return r;
}

static int remove_files(NativeEngine *e, const EngineContainer *c, Error *error) {
        _cleanup_free_ char *state = native_runtime_state(e, c->pod->runtime_handler, c->id),
                            *start_error = strprintf("%s/start-error", c->directory);
        const char *paths[] = { state, start_error, c->run_directory };
        int r;

        if (!state || !start_error)
                return error_oom(error);
        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                r = remove_tree(AT_FDCWD, paths[i]);
                if (r < 0)
                        return error_set(error, r, "cannot remove %s", paths[i]);
        }
        /* The last one of a runtime that isn't configured any more takes its folder along. */
        if (!native_runtime_find(e, c->pod->runtime_handler)) {
                *strrchr(state, '/') = 0;
                (void) rmdir(state);
        }
        return rootfs_remove(c->directory, e->create_path, error);
}

/* A unit that nobody follows: undone halves of an earlier life of the daemon. */
static int kill_unfollowed(NativeEngine *e, const EngineContainer *c, Error *error) {
        _cleanup_unit_state_ UnitState state = {};
        int r;

        r = unit_get_state(e->systemd, c->unit, &state, error);
        if (r < 0 || isempty(state.control_group))
                return r;
        r = cgroup_kill(state.control_group);
        return r < 0 ? error_set(error, r, "cannot end the processes of container %s", c->id) : 0;
}

int native_container_remove(Engine *engine, const EngineContainer *c, Error *error) {
        NativeEngine *e = native_engine(engine);
        NativeContainer *n = native_container_find(e, c->id);
        Release release = { .engine = e, .unit = c->unit };
        _cleanup_(fiber_unrefp) Fiber *fiber = NULL;
        int r, released = 0;

        /* Once begun it is brought to an end: half a container is of no use to anybody. */
        FIBER_SHIELDED_SCOPE;
        _cleanup_(native_container_unrefp) _unused_ NativeContainer *held = native_container_ref(n);
        if (n && n->watch && !has_ended(n)) {
                r = n->exiting ? 0 : kill_all(n, error);
                if (r >= 0)
                        r = native_container_wait_exit(n, now_usec(CLOCK_MONOTONIC) + KILL_TIMEOUT_USEC);
        } else
                r = n && n->watch ? 0 : kill_unfollowed(e, c, error);
        if (r < 0)
                return error_set(error, r, "cannot end container %s", c->id);
        if (n) {
                release.failed = n->watch && n->unit_failed;
                stop_following(n);
        }

        r = fiber_spawn(e->event, "unit-release", release_unit, &release, NULL, &fiber);
        if (r < 0)
                return error_set(error, r, "cannot remove container %s", c->id);
        r = release_in_pod(e, c, error);
        KILL_POINT_OF("container-release.pod", c->id);
        (void) fiber_join(fiber, &released);
        KILL_POINT_OF("container-release.unit", c->id);
        if (r >= 0 && released < 0) {
                error_move(error, &release.error);
                r = released;
        }
        error_clear(&release.error);
        if (r >= 0)
                r = remove_files(e, c, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("container-release.files", c->id);
        if (n)
                native_container_forget(n);
        return 0;
}

/* --- smaller ones ------------------------------------------------------------------------------------------------ */

int native_container_reopen_log(Engine *engine, const EngineContainer *c, Error *error) {
        NativeContainer *n = native_container_find(native_engine(engine), c->id);

        if (!n)
                return error_setf(error, GRPC_NOT_FOUND, "container %s is not there", c->id);
        return pod_client_reopen_log(n->pod_socket_path, c->id, error);
}

void native_container_mirror_limits(const NativeContainer *n, const Resources *r) {
        _cleanup_free_ char *group = NULL;

        if (!n->runtime || !runtime_has_leaf(n->runtime))
                return;
        group = native_container_process_group(n);
        if (group)
                resources_mirror(r, group);
}

int native_container_update(Engine *engine, const EngineContainer *c,
                            const runtime_v1_LinuxContainerResources *resources, Error *error) {
        NativeEngine *e = native_engine(engine);
        NativeContainer *n = native_container_find(e, c->id);
        _cleanup_(resources_done) Resources r = RESOURCES_INIT;
        int k;

        if (!n || !n->watch || n->exiting)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s doesn't run", c->id);
        _cleanup_(native_container_unrefp) _unused_ NativeContainer *held = native_container_ref(n);
        k = resources_parse(resources, &r, error);
        if (k < 0)
                return k;
        k = resources_set_properties(&r, e->systemd, c->unit, error);
        if (k < 0)
                return k;
        native_container_mirror_limits(n, &r);
        return resources_write_files(&r, n->control_group, error);
}
