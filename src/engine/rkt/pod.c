/* Pods: a transient service whose main process is `rkt app sandbox`. */

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "engine/native/internal.h"
#include "engine/native/resources.h"
#include "engine/rkt/internal.h"

#define SANDBOX_WORDS_MAX (64U * 1024U)
#define STOP_SEC 10 /* nspawn's, for the pod's systemd to end */

/* --- objects ----------------------------------------------------------------------------------------------------- */

RktPod *rkt_pod_ref(RktPod *p) {
        if (p)
                p->n_ref++;
        return p;
}

static void stop_following(RktPod *p) {
        p->watch = unit_watch_free(p->watch);
        p->status_source = sd_event_source_disable_unref(p->status_source);
        p->log_source = sd_event_source_disable_unref(p->log_source);
}

RktPod *rkt_pod_unref(RktPod *p) {
        if (!p || --p->n_ref > 0)
                return NULL;
        stop_following(p);
        free(p->id);
        free(p->unit);
        free(p->directory);
        free(p->log_directory);
        free(p->uuid);
        free(p->rootfs);
        free(p->control_group);
        free(p);
        return NULL;
}

RktPod *rkt_pod_find(RktEngine *e, const char *id) {
        RktPod *p;

        HASH_FIND_STR(e->pods, id, p);
        return p;
}

void rkt_pod_forget(RktPod *p) {
        if (!p->engine)
                return;
        HASH_DEL(p->engine->pods, p);
        p->engine = NULL;
        stop_following(p);
        p->state.running = false;
        fiber_queue_wake(&p->changed, -ENOENT);
        rkt_pod_unref(p);
}

static int pod_new(RktEngine *e, const EnginePod *pod, RktPod **ret, Error *error) {
        _cleanup_(rkt_pod_unrefp) RktPod *p = calloc(1, sizeof *p);

        if (!p)
                return error_oom(error);
        p->n_ref = 1;
        p->id = strdup(pod->id);
        p->unit = strdup(pod->unit);
        p->directory = strdup(pod->directory);
        p->log_directory = rkt_log_directory(&e->rkt, pod->id);
        if (!p->id || !p->unit || !p->directory || !p->log_directory)
                return error_oom(error);
        if (rkt_pod_find(e, pod->id))
                return error_setf(error, GRPC_ALREADY_EXISTS, "pod %s is there already", pod->id);
        p->engine = e;
        HASH_ADD_KEYPTR(hh, e->pods, p->id, strlen(p->id), p);
        *ret = TAKE_PTR(p);
        return 0;
}

char *rkt_log_directory(const Rkt *rkt, const char *pod_id) {
        return strprintf("%s/log/%s", rkt->directory, pod_id);
}

/* rkt has written it as soon as the pod had a name, long before it is ready. -ENOENT: it didn't come so far. */
static int read_uuid(const char *directory, char **ret) {
        _cleanup_free_ char *path = strprintf("%s/uuid", directory), *text = NULL;
        int r;

        if (!path)
                return -ENOMEM;
        r = read_file(AT_FDCWD, path, 128, &text, NULL);
        if (r < 0)
                return r;
        text[strcspn(text, "\n")] = 0;
        if (!rkt_uuid_is_valid(text))
                return text[0] ? -EBADMSG : -ENOENT;
        *ret = TAKE_PTR(text);
        return 0;
}

static int save_uuid(const char *directory, const char *uuid, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/uuid", directory);
        int r;

        r = path ? write_file_atomic(AT_FDCWD, path, uuid, strlen(uuid), 0600, 0) : -ENOMEM;
        return r < 0 ? error_set(error, r, "cannot write %s/uuid", directory) : 0;
}

/* By our mark, when the file was lost or never written. */
static int search_uuid(const Rkt *rkt, const EnginePod *pod, char **ret, Error *error) {
        _cleanup_json_ json_t *list = NULL;
        const json_t *o;
        size_t i;
        int r;

        r = rkt_pod_query_all(rkt, &list, error);
        if (r < 0)
                return r;
        json_array_foreach(list, i, o) {
                const char *uuid = json_get_string(o, "name");

                if (!streq_ptr(rkt_pod_annotation(o, RKT_KEY_POD_ID), pod->id) || !uuid || !rkt_uuid_is_valid(uuid))
                        continue;
                r = save_uuid(pod->directory, uuid, error);
                if (r < 0)
                        return r;
                *ret = strdup(uuid);
                return *ret ? 0 : error_oom(error);
        }
        return -ENOENT;
}

int rkt_pod_find_uuid(const Rkt *rkt, const EnginePod *pod, char **ret, Error *error) {
        _cleanup_free_ char *begun = strprintf("%s/sandbox-error", pod->run_directory);
        int r;

        r = begun ? read_uuid(pod->directory, ret) : -ENOMEM;
        if (r == -ENOMEM)
                return error_oom(error);
        if (r < 0 && access(begun, F_OK) < 0)
                return -ENOENT;
        return r < 0 ? search_uuid(rkt, pod, ret, error) : 0;
}

static int take_uuid(RktPod *p, const char *uuid) {
        free(p->uuid);
        free(p->rootfs);
        p->uuid = strdup(uuid);
        p->rootfs = strprintf("%s/pods/run/%s/stage1/rootfs", p->engine->rkt.directory, uuid);
        return p->uuid && p->rootfs ? 0 : -ENOMEM;
}

/* --- following --------------------------------------------------------------------------------------------------- */

static void on_down(RktPod *p) {
        RktContainer *n, *next;

        HASH_ITER(hh, p->engine->containers, n, next)
                if (n->pod == p)
                        rkt_container_look(n);
}

static void set_state(RktPod *p, bool running, pid_t pid) {
        bool was = p->state.running, tell = was != running || (p->state.pid != pid && pid > 0);

        p->state.running = running;
        p->state.pid = pid;
        fiber_queue_wake(&p->changed, 0);
        if (was && !running && p->engine)
                on_down(p);
        if (tell && p->up && p->engine && p->engine->engine.events.pod_changed)
                p->engine->engine.events.pod_changed(p->id, &p->state, p->engine->engine.events.userdata);
}

static void on_unit(const char *unit, const UnitState *state, void *userdata) {
        const char *active = strempty(state->active_state);
        RktPod *p = userdata;
        bool down = streq(active, "inactive") || streq(active, "failed") || streq_ptr(state->load_state, "not-found");
        pid_t pid;

        p->seen = true;
        if (!isempty(state->control_group) && !streq_ptr(state->control_group, p->control_group)) {
                char *copy = strdup(state->control_group);

                if (copy) {
                        free(p->control_group);
                        p->control_group = copy;
                }
        }
        if (state->main_pid > 0 && p->state.started_usec == 0)
                p->state.started_usec = state->exec_main_start_usec;
        pid = down ? 0 : rkt_pod_pid(p);
        set_state(p, !down, pid > 0 ? pid : state->main_pid);
}

/* The app's name is the container's ID; "ID-created" and "ID-started" are there as well. */
static int on_status_file(sd_event_source *source, const struct inotify_event *event, void *userdata) {
        RktPod *p = userdata;
        RktContainer *n, *next;

        if (event->mask & IN_Q_OVERFLOW)
                on_down(p);
        if (event->len == 0 || !p->engine)
                return 0;
        HASH_ITER(hh, p->engine->containers, n, next)
                if (n->pod == p && streq(n->id, event->name))
                        rkt_container_look(n);
        return 0;
}

static int on_log_file(sd_event_source *source, const struct inotify_event *event, void *userdata) {
        RktPod *p = userdata;
        RktContainer *n, *next;

        if (!p->engine)
                return 0;
        HASH_ITER(hh, p->engine->containers, n, next)
                if (n->pod == p && ((event->mask & IN_Q_OVERFLOW) ||
                                    (event->len > 0 && strncmp(event->name, n->id, ID_LENGTH) == 0)))
                        rkt_container_on_log(n);
        return 0;
}

static int follow_unit(RktPod *p, Error *error) {
        int r;

        if (p->watch)
                return 0;
        p->seen = false;
        r = unit_watch_new(p->engine->systemd, p->unit, on_unit, p, &p->watch);
        if (r < 0)
                return error_set(error, r, "cannot follow unit %s", p->unit);
        while (p->engine && !p->seen) {
                r = fiber_queue_wait(&p->changed);
                if (r < 0)
                        return error_set(error, r, "gave up waiting for the state of unit %s", p->unit);
        }
        return 0;
}

static int follow_files(RktPod *p, Error *error) {
        _cleanup_free_ char *status = strprintf("%s/rkt/status", p->rootfs);
        int r = 0;

        if (!status)
                return error_oom(error);
        if (!p->log_source)
                r = sd_event_add_inotify(p->engine->event, &p->log_source, p->log_directory,
                                         IN_MODIFY | IN_CREATE | IN_ONLYDIR, on_log_file, p);
        if (r < 0)
                return error_set(error, r, "cannot watch %s", p->log_directory);
        if (!p->status_source)
                r = sd_event_add_inotify(p->engine->event, &p->status_source, status,
                                         IN_CLOSE_WRITE | IN_MOVED_TO | IN_ONLYDIR, on_status_file, p);
        return r < 0 ? error_set(error, r, "cannot watch %s, where rkt notes how apps end", status) : 0;
}

/* --- start ------------------------------------------------------------------------------------------------------- */

static int sandbox_properties(const EnginePod *pod, const Rkt *rkt, char *const *argv, int stderr_fd,
                              UnitProperties **ret, Error *error) {
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;
        _cleanup_strv_free_ char **fields = NULL;
        _cleanup_free_ char *description = NULL, *identifier = NULL;
        char *documentation[] = { (char *) "man:rktlet-rkt(7)", NULL };
        const runtime_v1_PodSandboxMetadata *m = &pod->config->metadata;

        description = unit_text("Pod %s/%s", strempty(m->namespace), strempty(m->name));
        identifier = unit_text("%s", isempty(m->name) ? "pod" : m->name);
        if (!description || !identifier || unit_properties_new(&p) < 0 || log_fields_new(pod, NULL, &fields) < 0)
                return error_oom(error);

        /* The first failure is kept in the list and reported by unit_start_wait(). */
        (void) unit_properties_add_string(p, "Description", description);
        (void) unit_properties_add_strv(p, "Documentation", documentation);
        (void) unit_properties_add_string(p, "Slice", pod->slice);
        (void) unit_properties_add_string(p, "Type", "notify");
        (void) unit_properties_add_string(p, "NotifyAccess", "main");
        (void) unit_properties_add_exec(p, "ExecStart", rkt->path, argv);
        (void) unit_properties_add_strv(p, "Environment", (char **) rkt_environment + 1);
        (void) unit_properties_add_bool(p, "Delegate", true);
        (void) unit_properties_add_u64(p, "TimeoutStopUSec", STOP_SEC * USEC_PER_SEC);
        (void) unit_properties_add_string(p, "OOMPolicy", "continue");
        (void) unit_properties_add_fd(p, "StandardErrorFileDescriptor", stderr_fd);
        (void) unit_properties_add_string(p, "SyslogIdentifier", identifier);
        (void) unit_properties_add_log_fields(p, fields);
        *ret = TAKE_PTR(p);
        return 0;
}

static int open_stderr(const EnginePod *pod, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/sandbox-error", pod->run_directory);
        int fd;

        if (!path)
                return error_oom(error);
        fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        return fd < 0 ? error_set(error, -errno, "cannot open %s", path) : fd;
}

/* Why the sandbox did not come up: systemd tells the exit status, rkt's own words are in the file. */
static int explain(const EnginePod *pod, int r, int stderr_fd, Error *cause, Error *error) {
        _cleanup_free_ char *text = NULL, *words = NULL;

        if (r != -ECANCELED && lseek(stderr_fd, 0, SEEK_SET) == 0 &&
            read_fd(stderr_fd, SANDBOX_WORDS_MAX, &text, NULL) >= 0)
                words = rkt_words(text);
        if (isempty(words)) {
                error_move(error, cause);
                return error_prefix(error, r, "cannot start pod %s", pod->id);
        }
        (void) error_setf(error, cause->code, "cannot start pod %s: %s; rkt said: %s", pod->id, strempty(cause->message),
                          words);
        return r;
}

static int wait_ready(RktPod *p, Error *error) {
        RktEngine *e = p->engine;
        _cleanup_free_ char *uuid = NULL;
        _cleanup_json_ json_t *o = NULL;
        int r;

        r = read_uuid(p->directory, &uuid);
        if (r < 0)
                return error_set(error, r, "rkt's sandbox is up, but did not say its UUID");
        if (take_uuid(p, uuid) < 0)
                return error_oom(error);
        r = rkt_pod_query(&e->rkt, uuid, e->rkt.ready_timeout_usec, &o, error);
        if (r < 0)
                return error_prefix(error, r, "the pod's supervisor did not get ready");
        if (!rkt_pod_is_running(o))
                return error_setf(error, GRPC_INTERNAL, "rkt says that the pod is '%.40s', not running",
                                  json_get_string(o, "state"));
        return 0;
}

static int start(RktPod *p, const EnginePod *pod, Error *error) {
        _cleanup_(unit_properties_freep) UnitProperties *properties = NULL;
        _cleanup_free_ char *uuid_file = strprintf("%s/uuid", p->directory), *network = NULL;
        _cleanup_error_ Error cause = ERROR_INIT;
        _cleanup_strv_free_ char **argv = NULL;
        _cleanup_close_ int stderr_fd = -1;
        RktEngine *e = p->engine;
        int r;

        if (!uuid_file)
                return error_oom(error);
        if (!rkt_pod_has_host_network(pod->config)) {
                r = rkt_network_name(&e->rkt, &network, error);
                if (r < 0)
                        return r;
        }
        r = mkdir_parents(AT_FDCWD, p->log_directory, 0700);
        if (r < 0)
                return error_set(error, r, "cannot make %s", p->log_directory);
        r = rkt_sandbox_argv(&e->rkt, pod, uuid_file, p->log_directory, network, &argv, error);
        if (r < 0)
                return r;
        stderr_fd = open_stderr(pod, error);
        if (stderr_fd < 0)
                return stderr_fd;
        r = sandbox_properties(pod, &e->rkt, argv, stderr_fd, &properties, error);
        if (r < 0)
                return r;
        r = unit_start_wait(e->systemd, pod->unit, properties, e->rkt.ready_timeout_usec, &cause);
        if (r < 0)
                return explain(pod, r, stderr_fd, &cause, error);
        p->state.started_usec = now_usec(CLOCK_REALTIME);
        r = wait_ready(p, error);
        if (r >= 0)
                r = follow_files(p, error);
        if (r >= 0)
                r = follow_unit(p, error);
        if (r < 0)
                return error_prefix(error, r, "cannot start pod %s", pod->id);
        if (!p->state.running)
                return error_setf(error, GRPC_INTERNAL, "cannot start pod %s: its sandbox ended at once", pod->id);
        /* From here on it is the journal's. */
        (void) ftruncate(stderr_fd, 0);
        return 0;
}

static int check_hostname(const char *hostname, Error *error) {
        if (strlen(hostname) > 64 ||
            strspn(hostname, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") != strlen(hostname))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "'%.80s' is no hostname of at most 64 characters",
                                  hostname);
        return 0;
}

int rkt_pod_start(Engine *engine, const EnginePod *pod, EnginePodState *ret, Error *error) {
        RktEngine *e = rkt_engine(engine);
        RktPod *p;
        int r;

        r = rkt_check_pod(pod->config, error);
        if (r >= 0)
                r = check_hostname(strempty(pod->config->hostname), error);
        if (r < 0)
                return r;
        r = pod_new(e, pod, &p, error);
        if (r < 0)
                return r;
        _cleanup_(rkt_pod_unrefp) _unused_ RktPod *held = rkt_pod_ref(p);
        r = start(p, pod, error);
        if (r < 0) {
                FIBER_SHIELDED_SCOPE;
                _cleanup_error_ Error ignored = ERROR_INIT;

                if (rkt_pod_stop(engine, pod, &ignored) < 0 || rkt_pod_remove(engine, pod, &ignored) < 0)
                        log_debug("Pod %s could not be undone: %s, ignoring", pod->id, strempty(ignored.message));
                return r;
        }
        p->up = true;
        *ret = p->state;
        return 0;
}

int rkt_pod_netns(Engine *engine, const EnginePod *pod, char **ret, Error *error) {
        RktEngine *e = rkt_engine(engine);
        RktPod *p = rkt_pod_find(e, pod->id);
        _cleanup_free_ char *path = NULL, *text = NULL;
        int r;

        if (rkt_pod_has_host_network(pod->config)) {
                *ret = NULL;
                return 0;
        }
        if (!p || !p->uuid || !p->state.running) {
                (void) error_setf(error, GRPC_FAILED_PRECONDITION, "pod %s is not running", pod->id);
                return -ENOENT;
        }
        path = strprintf("%s/pods/run/%s/netns", e->rkt.directory, p->uuid);
        if (!path)
                return error_oom(error);
        r = read_file(AT_FDCWD, path, 4096, &text, NULL);
        if (r < 0)
                return error_set(error, r, "cannot read %s, where rkt notes the pod's network namespace", path);
        text[strcspn(text, "\n")] = 0;
        if (text[0] != '/')
                return error_setf(error, GRPC_INTERNAL, "%s has no path of a network namespace in it", path);
        *ret = TAKE_PTR(text);
        return 0;
}

/* --- end --------------------------------------------------------------------------------------------------------- */

static int call_with_uuid(const Rkt *rkt, const char *command, const char *uuid, const char *what, Error *error) {
        _cleanup_strv_free_ char **argv = NULL;
        int r;

        r = rkt_argv_new(rkt, command, NULL, &argv);
        if (r >= 0)
                r = strv_extend(&argv, uuid);
        return r < 0 ? error_oom(error) : rkt_call(rkt, argv, 0, what, NULL, error);
}

static int wait_down(RktPod *p, uint64_t until_usec) {
        int r;

        while (p->engine && p->watch && p->state.running) {
                r = fiber_queue_wait_until(&p->changed, until_usec);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* rkt is asked first, and then its unit is stopped in any case: rkt only asks as well, and may not be able to. */
int rkt_pod_stop(Engine *engine, const EnginePod *pod, Error *error) {
        RktEngine *e = rkt_engine(engine);
        RktPod *p = rkt_pod_find(e, pod->id);
        _cleanup_error_ Error ignored = ERROR_INIT;
        int r;

        _cleanup_(rkt_pod_unrefp) _unused_ RktPod *held = rkt_pod_ref(p);
        if (p && p->uuid && p->state.running) {
                r = call_with_uuid(&e->rkt, "stop", p->uuid, "stop the pod", &ignored);
                if (r >= 0)
                        r = wait_down(p, now_usec(CLOCK_MONOTONIC) + STOP_SEC * USEC_PER_SEC);
                if (r == -ECANCELED || r == -ETIME)
                        return error_set(error, r, "gave up stopping pod %s", pod->id);
                if (r < 0)
                        log_debug("rkt stop: %s; its unit is stopped instead", strempty(ignored.message));
        }
        r = unit_stop_wait(e->systemd, pod->unit, RKT_UNIT_STOP_USEC, error);
        if (r < 0)
                return r;
        if (p && p->control_group) {
                (void) cgroup_kill(p->control_group);
                r = cgroup_wait_empty(p->control_group, RKT_KILL_USEC);
                if (r < 0)
                        return error_set(error, r, "the processes of pod %s don't end", pod->id);
        }
        if (p && p->state.running) {
                /* Whoever asked for it needs no event. */
                p->state.running = false;
                p->state.pid = 0;
                fiber_queue_wake(&p->changed, 0);
                if (p->engine)
                        on_down(p);
        }
        return 0;
}

int rkt_pod_remove(Engine *engine, const EnginePod *pod, Error *error) {
        RktEngine *e = rkt_engine(engine);
        RktPod *p = rkt_pod_find(e, pod->id);
        _cleanup_free_ char *uuid = NULL, *path = strprintf("%s/uuid", pod->directory);
        int r;

        if (!path)
                return error_oom(error);
        r = unit_release_wait(e->systemd, pod->unit, RKT_UNIT_STOP_USEC, error);
        if (r < 0)
                return r;
        r = rkt_pod_find_uuid(&e->rkt, pod, &uuid, error);
        if (r < 0 && r != -ENOENT)
                return r;
        if (r >= 0) {
                _cleanup_error_ Error cause = ERROR_INIT;

                r = call_with_uuid(&e->rkt, "rm", uuid, "remove the pod", &cause);
                if (r < 0 && cause.code != GRPC_NOT_FOUND) {
                        error_move(error, &cause);
                        return r;
                }
                if (unlink(path) < 0 && errno != ENOENT)
                        return error_set(error, -errno, "cannot remove %s", path);
        }
        free(path);
        path = strprintf("%s/sandbox-error", pod->run_directory);
        if (path)
                (void) unlink(path);
        free(path);
        path = rkt_log_directory(&e->rkt, pod->id);
        r = path ? remove_tree(AT_FDCWD, path) : -ENOMEM;
        if (r < 0)
                return error_set(error, r, "cannot remove rkt's logs of pod %s", pod->id);
        p = rkt_pod_find(e, pod->id);
        if (p)
                rkt_pod_forget(p);
        return 0;
}

/* --- after a restart of the daemon ------------------------------------------------------------------------------- */

int rkt_pod_load(Engine *engine, const EnginePod *pod, EnginePodState *ret, Error *error) {
        RktEngine *e = rkt_engine(engine);
        RktPod *p = rkt_pod_find(e, pod->id);
        _cleanup_free_ char *uuid = NULL;
        int r;

        if (!p) {
                r = pod_new(e, pod, &p, error);
                if (r < 0)
                        return r;
        }
        _cleanup_(rkt_pod_unrefp) _unused_ RktPod *held = rkt_pod_ref(p);
        r = follow_unit(p, error);
        if (r < 0)
                return r;
        if (!p->uuid) {
                r = read_uuid(p->directory, &uuid);
                if (r < 0)
                        r = search_uuid(&e->rkt, pod, &uuid, p->state.running ? error : NULL);
                if (r >= 0 && take_uuid(p, uuid) < 0)
                        return error_oom(error);
                if (r < 0 && p->state.running)
                        return error_set(error, r, "rkt knows no pod %s", p->id);
        }
        if (p->state.running) {
                r = follow_files(p, error);
                if (r < 0)
                        return r;
        }
        p->up = true;
        *ret = p->state;
        return 0;
}

/* --- figures ----------------------------------------------------------------------------------------------------- */

int rkt_pod_cgroup(Engine *engine, const EnginePod *pod, char **ret) {
        const RktPod *p = rkt_pod_find(rkt_engine(engine), pod->id);
        const char *slash;

        if (!p || !p->state.running)
                return -ENOENT;
        slash = p->control_group ? strrchr(p->control_group, '/') : NULL;
        if (!slash || slash == p->control_group)
                return -ENOENT;
        *ret = strndup(p->control_group, (size_t) (slash - p->control_group));
        return *ret ? 0 : -ENOMEM;
}

/* The slice is systemd's, not rkt's. */
int rkt_pod_update(Engine *engine, const EnginePod *pod, const runtime_v1_LinuxContainerResources *resources,
                   Error *error) {
        RktEngine *e = rkt_engine(engine);
        _cleanup_(resources_done) Resources r = RESOURCES_INIT;
        _cleanup_free_ char *cgroup = NULL;
        int k;

        k = rkt_pod_cgroup(engine, pod, &cgroup);
        if (k == -ENOMEM)
                return error_oom(error);
        if (k < 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "pod %s is not running", pod->id);
        k = resources_parse(resources, &r, error);
        if (k < 0)
                return k;
        k = resources_set_properties(&r, e->systemd, pod->slice, error);
        if (k < 0)
                return k;
        return resources_write_files(&r, cgroup, error);
}
