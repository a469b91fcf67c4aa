/* Containers: apps of a rkt pod. What they are doing only `rkt app status` says; when to ask, rkt's files and the pod's
 * unit tell. */

#include <fcntl.h>
#include <signal.h>

#include "basic/file-util.h"
#include "engine/native/internal.h"
#include "engine/native/oci-process.h"
#include "engine/rkt/internal.h"

#define EXIT_EXEC 203 /* systemd's EXIT_EXEC: there is no such command */
#define REMOVE_KILL_USEC (10 * USEC_PER_SEC)
#define USAGE_ENTRIES_MAX 100000U

/* --- objects ----------------------------------------------------------------------------------------------------- */

RktContainer *rkt_container_ref(RktContainer *n) {
        if (n)
                n->n_ref++;
        return n;
}

RktContainer *rkt_container_unref(RktContainer *n) {
        if (!n || --n->n_ref > 0)
                return NULL;
        sd_event_source_disable_unref(n->pump);
        rkt_log_free(n->log);
        rkt_pod_unref(n->pod);
        free(n->id);
        free(n->control_group);
        free(n);
        return NULL;
}

static void unrefp(void *p) {
        rkt_container_unref(p);
}

RktContainer *rkt_container_find(RktEngine *e, const char *id) {
        RktContainer *n;

        HASH_FIND_STR(e->containers, id, n);
        return n;
}

void rkt_container_forget(RktContainer *n) {
        if (!n->engine)
                return;
        HASH_DEL(n->engine->containers, n);
        n->engine = NULL;
        n->pump = sd_event_source_disable_unref(n->pump);
        fiber_queue_wake(&n->changed, 0);
        rkt_container_unref(n);
}

static int on_pump(sd_event_source *source, void *userdata) {
        RktContainer *n = userdata;

        if (rkt_log_pump(n->log) <= 0)
                (void) sd_event_source_set_enabled(source, SD_EVENT_OFF);
        return 0;
}

static int container_new(RktEngine *e, const EngineContainer *c, RktContainer **ret, Error *error) {
        _cleanup_(rkt_container_unrefp) RktContainer *n = calloc(1, sizeof *n);
        _cleanup_free_ char *source = NULL, *record = NULL;
        int r;

        if (!n)
                return error_oom(error);
        n->n_ref = 1;
        n->state.phase = ENGINE_CONTAINER_CREATED;
        n->id = strdup(c->id);
        n->pod = rkt_pod_ref(rkt_pod_find(e, c->pod->id));
        if (!n->id)
                return error_oom(error);
        if (!n->pod)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "pod %s of container %s is not known to rkt",
                                  c->pod->id, c->id);
        if (rkt_container_find(e, c->id))
                return error_setf(error, GRPC_ALREADY_EXISTS, "container %s is there already", c->id);
        source = strprintf("%s/%s.log", n->pod->log_directory, c->id);
        record = strprintf("%s/%s.position", n->pod->log_directory, c->id);
        if (!source || !record)
                return error_oom(error);
        r = rkt_log_new(source, c->log_path, record, e->rkt.log_line_max, &n->log, error);
        if (r < 0)
                return r;
        r = sd_event_add_defer(e->event, &n->pump, on_pump, n);
        if (r >= 0)
                r = sd_event_source_set_priority(n->pump, SD_EVENT_PRIORITY_IDLE);
        if (r >= 0)
                r = sd_event_source_set_enabled(n->pump, SD_EVENT_OFF);
        if (r < 0)
                return error_set(error, r, "cannot follow the log of container %s", c->id);
        n->engine = e;
        HASH_ADD_KEYPTR(hh, e->containers, n->id, strlen(n->id), n);
        *ret = TAKE_PTR(n);
        return 0;
}

void rkt_container_on_log(RktContainer *n) {
        if (rkt_log_pump(n->log) > 0)
                (void) sd_event_source_set_enabled(n->pump, SD_EVENT_ON);
}

/* --- what rkt says of it ----------------------------------------------------------------------------------------- */

/* `rkt app COMMAND UUID --app=ID` */
static int app_argv(const Rkt *rkt, const char *command, const char *uuid, const char *id, char ***ret) {
        _cleanup_strv_free_ char **argv = NULL;
        int r;

        r = rkt_argv_new(rkt, "app", NULL, &argv);
        if (r >= 0)
                r = strv_extend(&argv, command);
        if (r >= 0)
                r = strv_extend(&argv, uuid);
        if (r >= 0)
                r = strv_extendf(&argv, "--app=%s", id);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(argv);
        return 0;
}

static int app_call(const Rkt *rkt, const char *command, const char *uuid, const char *id, const char *what, Error *error) {
        _cleanup_strv_free_ char **argv = NULL;

        if (app_argv(rkt, command, uuid, id, &argv) < 0)
                return error_oom(error);
        return rkt_call(rkt, argv, 0, what, NULL, error);
}

static int app_status(const Rkt *rkt, const char *uuid, const char *id, RktResult *ret, Error *error) {
        _cleanup_strv_free_ char **argv = NULL;

        if (app_argv(rkt, "status", uuid, id, &argv) < 0 || strv_extend(&argv, "--format=json") < 0)
                return error_oom(error);
        return rkt_call(rkt, argv, 0, "ask for the app's status", ret, error);
}

static int app_query(const Rkt *rkt, const char *uuid, const char *id, RktApp *ret, Error *error) {
        _cleanup_rkt_result_ RktResult result = {};
        int r;

        r = app_status(rkt, uuid, id, &result, error);
        return r < 0 ? r : rkt_parse_app(result.output, result.output_size, ret, error);
}

int rkt_app_query_json(const Rkt *rkt, const char *uuid, const char *id, json_t **ret, Error *error) {
        _cleanup_rkt_result_ RktResult result = {};
        int r;

        r = app_status(rkt, uuid, id, &result, error);
        return r < 0 ? r : rkt_parse_json("app status", result.output, result.output_size, ret, error);
}

static bool has_ended(const RktContainer *n) {
        return n->state.phase == ENGINE_CONTAINER_EXITED || n->state.phase == ENGINE_CONTAINER_UNKNOWN;
}

/* rkt gives systemd's ExecMainStatus, which is the exit status or the signal without saying which. The signals that end
 * containers all day are taken for signals, and so is the one that we sent. */
static int exit_code_of(const RktContainer *n, const RktApp *a) {
        if (a->exit_code < 0)
                return 128 + SIGKILL; /* it went with its pod */
        if (a->exit_code == SIGKILL || a->exit_code == SIGTERM || (n->signo > 0 && a->exit_code == n->signo))
                return 128 + a->exit_code;
        return a->exit_code;
}

static void tell(RktContainer *n) {
        if (n->engine && n->up && n->engine->engine.events.container_changed)
                n->engine->engine.events.container_changed(n->id, &n->state, n->engine->engine.events.userdata);
        fiber_queue_wake(&n->changed, 0);
}

static void take_exit(RktContainer *n, const RktApp *a) {
        if (rkt_log_drain(n->log) < 0)
                log_warning("The log of container %s could not be written to its end", n->id);
        n->state.phase = ENGINE_CONTAINER_EXITED;
        n->state.pid = 0;
        if (a->started_usec > 0)
                n->state.started_usec = a->started_usec;
        n->state.finished_usec = a->finished_usec > 0 ? a->finished_usec : now_usec(CLOCK_REALTIME);
        n->state.exit_code = exit_code_of(n, a);
}

static void take_unknown(RktContainer *n) {
        (void) rkt_log_drain(n->log);
        n->state.phase = ENGINE_CONTAINER_UNKNOWN;
        n->state.pid = 0;
        n->state.finished_usec = 0;
}

static void look_once(RktContainer *n) {
        _cleanup_error_ Error error = ERROR_INIT;
        RktApp app;
        int r;

        r = app_query(&n->engine->rkt, n->pod->uuid, n->id, &app, &error);
        if (!n->engine || has_ended(n))
                return;
        if (r >= 0 && app.state == RKT_APP_EXITED)
                take_exit(n, &app);
        else if (r < 0 && (error.code == GRPC_NOT_FOUND || !n->pod->state.running)) {
                log_warning("Container %s ended, and rkt does not say how: %s", n->id, strempty(error.message));
                take_unknown(n);
        } else {
                if (r < 0)
                        log_warning("Cannot see what container %s does: %s", n->id, strempty(error.message));
                return;
        }
        tell(n);
}

static int look(void *userdata) {
        RktContainer *n = userdata;

        do {
                n->again = false;
                look_once(n);
        } while (n->again && n->engine && !has_ended(n));
        n->looking = false;
        return 0;
}

void rkt_container_look(RktContainer *n) {
        if (!n->engine || !n->started || has_ended(n) || !n->pod->uuid)
                return;
        n->again = true;
        if (n->looking)
                return;
        n->looking = true;
        if (fiber_spawn(n->engine->event, "rkt-look", look, rkt_container_ref(n), unrefp, NULL) < 0) {
                n->looking = false;
                rkt_container_unref(n);
        }
}

static int wait_exit(RktContainer *n, uint64_t until_usec) {
        int r;

        while (n->engine && !has_ended(n)) {
                r = fiber_queue_wait_until(&n->changed, until_usec);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* --- create ------------------------------------------------------------------------------------------------------ */

static int container_info(const EngineContainer *c, EngineContainerInfo *ret, Error *error) {
        const runtime_v1_LinuxContainerSecurityContext *s = &c->config->linux.security_context;
        size_t n = c->config->has_linux && c->config->linux.has_security_context ? s->supplemental_groups_count : 0;
        EngineContainerInfo i = {};
        int r;

        r = oci_stop_signal(c->config, c->image ? &c->image->config : NULL, &i.stop_signal, error);
        if (r < 0)
                return r;
        rkt_container_user(c, &i.uid, &i.gid);
        if (n > 0) {
                i.supplementary_groups = calloc(n, sizeof *i.supplementary_groups);
                if (!i.supplementary_groups)
                        return error_oom(error);
                memcpy(i.supplementary_groups, s->supplemental_groups, n * sizeof *i.supplementary_groups);
                i.n_supplementary_groups = n;
        }
        *ret = i;
        return 0;
}

int rkt_container_create(Engine *engine, const EngineContainer *c, EngineContainerInfo *ret, Error *error) {
        RktEngine *e = rkt_engine(engine);
        RktPod *p = rkt_pod_find(e, c->pod->id);
        _cleanup_(engine_container_info_done) EngineContainerInfo info = {};
        _cleanup_strv_free_ char **argv = NULL;
        RktContainer *n;
        int r;

        if (!p || !p->uuid || !p->state.running)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "pod %s is not running", c->pod->id);
        r = rkt_check_container(c->config, error);
        if (r >= 0)
                r = rkt_add_argv(&e->rkt, c, p->uuid, rkt_image_id(c->image), &argv, error);
        if (r >= 0)
                r = container_info(c, &info, error);
        if (r >= 0)
                r = container_new(e, c, &n, error);
        if (r < 0)
                return r;
        _cleanup_(rkt_container_unrefp) _unused_ RktContainer *held = rkt_container_ref(n);
        r = rkt_call(&e->rkt, argv, 0, "add the container to its pod", NULL, error);
        if (r < 0) {
                FIBER_SHIELDED_SCOPE;
                _cleanup_error_ Error ignored = ERROR_INIT;

                /* rkt leaves a half-made app behind when it fails. */
                if (rkt_container_remove(engine, c, &ignored) < 0)
                        log_debug("Container %s could not be undone: %s, ignoring", c->id, strempty(ignored.message));
                return r;
        }
        n->up = true;
        *ret = info;
        info = (EngineContainerInfo) {};
        return 0;
}

/* --- start ------------------------------------------------------------------------------------------------------- */

static int fail_start(RktContainer *n, int r) {
        n->up = false; /* its end is told by this error */
        (void) rkt_container_kill(n);
        take_unknown(n);
        fiber_queue_wake(&n->changed, 0);
        return r;
}

int rkt_container_start(Engine *engine, const EngineContainer *c, EngineContainerState *ret, Error *error) {
        RktEngine *e = rkt_engine(engine);
        RktContainer *n = rkt_container_find(e, c->id);
        _cleanup_error_ Error ignored = ERROR_INIT;
        RktApp app = { .state = RKT_APP_UNKNOWN };
        int r;

        if (!n)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s was not created", c->id);
        if (n->started || has_ended(n))
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s is not in the state created", c->id);
        r = fiber_check();
        if (r < 0)
                return error_set(error, r, "container %s was not started", c->id);

        /* From here on it can't be undone, and rkt's deadline is short. */
        FIBER_SHIELDED_SCOPE;
        _cleanup_(rkt_container_unrefp) _unused_ RktContainer *held = rkt_container_ref(n);
        n->started = true;
        n->state.started_usec = now_usec(CLOCK_REALTIME);
        r = app_call(&e->rkt, "start", n->pod->uuid, n->id, "start the container", error);
        if (r < 0)
                return fail_start(n, r);
        /* It says yes as well when there is nothing to execute. */
        r = app_query(&e->rkt, n->pod->uuid, n->id, &app, &ignored);
        if (r < 0)
                log_warning("Container %s was started, but rkt does not say what became of it: %s", n->id,
                            strempty(ignored.message));
        else if (app.state == RKT_APP_EXITED && app.exit_code == EXIT_EXEC) {
                (void) error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "cannot start container %s: rkt's systemd could not execute %s (status %d)", n->id,
                                  c->config->command_count > 0 ? c->config->command[0] : "the image's command",
                                  EXIT_EXEC);
                return fail_start(n, -EINVAL);
        }
        if (app.started_usec > 0)
                n->state.started_usec = app.started_usec;
        if (!has_ended(n)) {
                n->state.phase = ENGINE_CONTAINER_RUNNING;
                n->state.pid = rkt_container_pid(n);
        }
        *ret = n->state;
        ret->phase = ENGINE_CONTAINER_RUNNING;
        if (r >= 0 && app.state == RKT_APP_EXITED)
                rkt_container_look(n);
        return 0;
}

/* --- stop -------------------------------------------------------------------------------------------------------- */

#define KILL_AGAIN_USEC (USEC_PER_SEC / 4)

/* The stop signal and the grace are ours: rkt has neither. 0: it has ended; -ETIMEDOUT: it hasn't. */
static int stop_gently(RktContainer *n, int signo, uint64_t timeout_usec) {
        int r;

        r = rkt_container_kill_with(n, /* all= */ false, signo);
        if (r == -ESRCH)
                rkt_container_look(n); /* it has ended, or is about to begin */
        return wait_exit(n, now_usec(CLOCK_MONOTONIC) + timeout_usec);
}

/* SIGKILL to all, past rkt; through rkt where the processes can't be found. */
static int stop_at_once(RktContainer *n, Error *error) {
        const uint64_t until = now_usec(CLOCK_MONOTONIC) + RKT_KILL_USEC;
        _cleanup_free_ char *control_group = NULL;
        int r;

        /* Again and again: rkt's systemd may be about to put a process there. */
        do {
                r = rkt_container_kill(n);
                if (r >= 0 && n->control_group) {
                        free(control_group);
                        control_group = strdup(n->control_group);
                        r = control_group ? cgroup_wait_empty(control_group, KILL_AGAIN_USEC) : -ENOMEM;
                }
        } while (r == -ETIMEDOUT && now_usec(CLOCK_MONOTONIC) < until);
        if (r == -ESRCH) {
                r = app_call(&n->engine->rkt, "stop", n->pod->uuid, n->id, "stop the container", error);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return error_set(error, r, "container %s was not killed", n->id);
        rkt_container_look(n);
        r = wait_exit(n, now_usec(CLOCK_MONOTONIC) + RKT_KILL_USEC);
        return r < 0 ? error_set(error, r, "container %s was killed, but rkt does not say that it ended", n->id) : 0;
}

int rkt_container_stop(Engine *engine, const EngineContainer *c, int signo, uint64_t timeout_usec, Error *error) {
        RktEngine *e = rkt_engine(engine);
        RktContainer *n = rkt_container_find(e, c->id);
        EngineContainerState state;
        int r;

        if (!n) {
                /* It could not be looked at when the daemon started; perhaps now. */
                r = rkt_container_load(engine, c, &state, error);
                if (r < 0)
                        return r;
                n = rkt_container_find(e, c->id);
        }
        if (!n || has_ended(n) || !n->started)
                return 0;
        _cleanup_(rkt_container_unrefp) _unused_ RktContainer *held = rkt_container_ref(n);
        if (timeout_usec > 0) {
                /* More than five hundred thousand years are for ever. */
                r = stop_gently(n, signo, MIN(timeout_usec, USEC_INFINITY / 4));
                if (r >= 0)
                        return 0;
                if (r != -ETIMEDOUT)
                        return error_set(error, r, "container %s was not stopped", c->id);
        }
        return n->engine && !has_ended(n) ? stop_at_once(n, error) : 0;
}

/* --- after a restart of the daemon ------------------------------------------------------------------------------- */

int rkt_container_load(Engine *engine, const EngineContainer *c, EngineContainerState *ret, Error *error) {
        RktEngine *e = rkt_engine(engine);
        RktContainer *n = rkt_container_find(e, c->id);
        _cleanup_error_ Error cause = ERROR_INIT;
        RktApp app = {};
        int r;

        if (!n) {
                r = container_new(e, c, &n, error);
                if (r < 0)
                        return r;
        }
        _cleanup_(rkt_container_unrefp) _unused_ RktContainer *held = rkt_container_ref(n);
        r = n->pod->uuid ? app_query(&e->rkt, n->pod->uuid, n->id, &app, &cause)
                         : error_setf(&cause, GRPC_NOT_FOUND, "rkt has no pod for it");
        if (r < 0 && cause.code != GRPC_NOT_FOUND) {
                rkt_container_forget(n);
                error_move(error, &cause);
                return r;
        }
        n->started = r >= 0 && app.state != RKT_APP_CREATED;
        if (r < 0 || app.state == RKT_APP_UNKNOWN)
                take_unknown(n);
        else if (app.state == RKT_APP_EXITED)
                take_exit(n, &app);
        else {
                n->state.phase = app.state == RKT_APP_RUNNING ? ENGINE_CONTAINER_RUNNING : ENGINE_CONTAINER_CREATED;
                n->state.started_usec = app.started_usec;
                n->state.pid = rkt_container_pid(n);
                rkt_container_on_log(n);
        }
        n->up = true;
        *ret = n->state;
        return 0;
}

/* --- removal ----------------------------------------------------------------------------------------------------- */

static int remove_app(RktEngine *e, const EngineContainer *c, const char *uuid, Error *error) {
        _cleanup_error_ Error cause = ERROR_INIT;
        int r;

        r = app_call(&e->rkt, "rm", uuid, c->id, "remove the container", &cause);
        if (r >= 0 || cause.code == GRPC_NOT_FOUND)
                return 0;
        error_move(error, &cause);
        return r;
}

static int remove_log(const char *directory, const char *id, Error *error) {
        static const char *const names[] = { "log", "position" };

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_free_ char *path = strprintf("%s/%s.%s", directory, id, names[i]);

                if (!path)
                        return error_oom(error);
                if (unlink(path) < 0 && errno != ENOENT)
                        return error_set(error, -errno, "cannot remove %s", path);
        }
        return 0;
}

int rkt_container_remove(Engine *engine, const EngineContainer *c, Error *error) {
        RktEngine *e = rkt_engine(engine);
        RktContainer *n = rkt_container_find(e, c->id);
        RktPod *p = rkt_pod_find(e, c->pod->id);
        _cleanup_free_ char *directory = NULL, *uuid = NULL;
        int r;

        /* Once begun it is brought to an end: half a container is of no use to anybody. */
        FIBER_SHIELDED_SCOPE;
        _cleanup_(rkt_container_unrefp) _unused_ RktContainer *held = rkt_container_ref(n);
        _cleanup_(rkt_pod_unrefp) _unused_ RktPod *held_pod = rkt_pod_ref(p);
        if (n && n->started && !has_ended(n) && rkt_container_kill(n) >= 0)
                (void) wait_exit(n, now_usec(CLOCK_MONOTONIC) + REMOVE_KILL_USEC);
        if (p && p->uuid)
                r = remove_app(e, c, p->uuid, error);
        else {
                r = rkt_pod_find_uuid(&e->rkt, c->pod, &uuid, error);
                if (r >= 0)
                        r = remove_app(e, c, uuid, error);
                else if (r == -ENOENT)
                        r = 0;
        }
        if (r < 0)
                return r;
        if (n) {
                (void) rkt_log_drain(n->log);
                rkt_container_forget(n);
        }
        directory = rkt_log_directory(&e->rkt, c->pod->id);
        return directory ? remove_log(directory, c->id, error) : error_oom(error);
}

/* --- smaller ones ------------------------------------------------------------------------------------------------ */

int rkt_container_reopen_log(Engine *engine, const EngineContainer *c, Error *error) {
        RktContainer *n = rkt_container_find(rkt_engine(engine), c->id);

        if (!n)
                return error_setf(error, GRPC_NOT_FOUND, "container %s is not there", c->id);
        return rkt_log_reopen(n->log, error);
}

int rkt_container_update(Engine *engine, const EngineContainer *c,
                         const runtime_v1_LinuxContainerResources *resources, Error *error) {
        return rkt_refuse(RKT_LIMIT_UPDATE, error);
}

int rkt_container_checkpoint(Engine *engine, const EngineContainer *c, const char *location, uint64_t timeout_usec,
                             Error *error) {
        return rkt_refuse(RKT_LIMIT_CHECKPOINT, error);
}

/* rkt keeps what an app writes in PODS/UUID/overlay/TREE/upper/APP. */
static int find_upper(int dir_fd, const char *name, void *userdata) {
        const char *id = ((void **) userdata)[0];
        TreeUsage *usage = ((void **) userdata)[1];
        _cleanup_free_ char *path = strprintf("%s/upper/%s", name, id);
        int r;

        if (!path)
                return -ENOMEM;
        r = tree_usage(dir_fd, path, USAGE_ENTRIES_MAX, usage);
        return r == -ENOENT || r == -ENOTDIR ? 0 : r < 0 ? r : 1;
}

int rkt_container_layer_usage(Engine *engine, const EngineContainer *c, TreeUsage *ret, Error *error) {
        RktEngine *e = rkt_engine(engine);
        RktPod *p = rkt_pod_find(e, c->pod->id);
        _cleanup_free_ char *path = NULL;
        TreeUsage usage = {};
        int r;

        path = p && p->uuid ? strprintf("%s/pods/run/%s/overlay", e->rkt.directory, p->uuid) : NULL;
        if (!path)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s has no writable layer", c->id);
        r = directory_foreach(AT_FDCWD, path, find_upper, (void *[]) { (void *) c->id, &usage });
        if (r < 0)
                return error_set(error, r, "cannot measure the writable layer of container %s", c->id);
        *ret = usage;
        return 0;
}
