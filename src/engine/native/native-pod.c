/* A pod: one unit, whose process (rktlet-pod) holds the namespaces, and the watch that tells when it ends. */

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "engine/native/internal.h"
#include "engine/native/resources.h"
#include "engine/native/security-module.h"
#include "pod/pod-protocol.h"

#define SHM_SIZE "67108864" /* as everywhere in the field */
#define POD_OOM_SCORE_ADJ (-998)
#define POD_STOP_TIMEOUT_USEC (5 * USEC_PER_SEC)
#define SETTLE_USEC USEC_PER_SEC /* a unit that is down for so long is not about to be started again */

static const runtime_v1_NamespaceOption *namespaces_of(const EnginePod *pod) {
        static const runtime_v1_NamespaceOption defaults;
        const runtime_v1_PodSandboxConfig *c = pod->config;

        return c->has_linux && c->linux.has_security_context && c->linux.security_context.has_namespace_options
                       ? &c->linux.security_context.namespace_options
                       : &defaults;
}

bool pod_has_network(const EnginePod *pod) {
        return namespaces_of(pod)->network != runtime_v1_NamespaceMode_NODE;
}

bool pod_has_ipc(const EnginePod *pod) {
        return namespaces_of(pod)->ipc != runtime_v1_NamespaceMode_NODE;
}

bool pod_has_pid(const EnginePod *pod) {
        return namespaces_of(pod)->pid == runtime_v1_NamespaceMode_POD;
}

bool pod_has_userns(const EnginePod *pod) {
        const runtime_v1_NamespaceOption *n = namespaces_of(pod);

        return n->has_userns_options && n->userns_options.mode == runtime_v1_NamespaceMode_POD;
}

/* One namespace at least is made in the user namespace, which is found by it. */
bool pod_has_uts(const EnginePod *pod) {
        return pod_has_network(pod) || pod_has_userns(pod);
}

int pod_id_map(const EnginePod *pod, IdMap *ret, Error *error) {
        const runtime_v1_UserNamespace *u = &namespaces_of(pod)->userns_options;
        uint32_t ignored;
        IdMap m;
        int r;

        if (!pod_has_userns(pod)) {
                *ret = (IdMap) {};
                return 0;
        }
        r = id_map_from_cri(u->uids, u->uids_count, u->gids, u->gids_count, "the user namespace of the pod", &m, error);
        if (r < 0)
                return r;
        /* Files and namespaces must have an owner there. */
        if (id_ranges_outside(&m.uids, 0, &ignored) < 0 || id_ranges_outside(&m.gids, 0, &ignored) < 0)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "the user namespace of the pod has no user or group 0: map the container's ID 0");
        *ret = m;
        return 0;
}

/* With the host's network comes the host's name. */
char *pod_hostname(const EnginePod *pod) {
        struct utsname u;

        if (pod_has_network(pod) && !isempty(pod->config->hostname))
                return strdup(pod->config->hostname);
        return strdup(uname(&u) >= 0 ? u.nodename : "localhost");
}

/* What belongs to the host can't be used by who isn't root there: /proc of its processes, for one. */
static int check_userns(const EnginePod *pod, Error *error) {
        const runtime_v1_NamespaceOption *n = namespaces_of(pod);
        const runtime_v1_UserNamespace *u = &n->userns_options;
        IdMap map;

        if (!n->has_userns_options)
                return 0;
        if (u->mode != runtime_v1_NamespaceMode_POD && u->mode != runtime_v1_NamespaceMode_NODE)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "user namespace mode %d is not that of a pod sandbox",
                                  (int) u->mode);
        if (u->mode == runtime_v1_NamespaceMode_NODE) {
                if (u->uids_count > 0 || u->gids_count > 0)
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "IDs are to be mapped, but the pod has the host's user namespace");
                return 0;
        }
        if (n->pid == runtime_v1_NamespaceMode_NODE || n->ipc == runtime_v1_NamespaceMode_NODE)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "a pod with a user namespace can't have the host's PID or IPC namespace");
        return pod_id_map(pod, &map, error);
}

static int check_pod(const EnginePod *pod, Error *error) {
        const runtime_v1_NamespaceOption *n = namespaces_of(pod);
        const char *hostname = strempty(pod->config->hostname);
        int r;

        if ((n->network != runtime_v1_NamespaceMode_POD && n->network != runtime_v1_NamespaceMode_NODE) ||
            (n->ipc != runtime_v1_NamespaceMode_POD && n->ipc != runtime_v1_NamespaceMode_NODE) ||
            (n->pid != runtime_v1_NamespaceMode_POD && n->pid != runtime_v1_NamespaceMode_CONTAINER &&
             n->pid != runtime_v1_NamespaceMode_NODE))
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "namespace modes (network %d, PID %d, IPC %d) are not those of a pod sandbox",
                                  (int) n->network, (int) n->pid, (int) n->ipc);
        if (strlen(hostname) > 64 ||
            strspn(hostname, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") != strlen(hostname))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "'%.80s' is no hostname of at most 64 characters",
                                  hostname);
        r = security_modules_check_pod(pod->config->has_linux && pod->config->linux.has_security_context
                                                       ? &pod->config->linux.security_context
                                                       : NULL,
                                       "/sys", error);
        return r < 0 ? r : check_userns(pod, error);
}

/* --- following --------------------------------------------------------------------------------------------------- */

NativePod *native_pod_ref(NativePod *p) {
        if (p)
                p->n_ref++;
        return p;
}

NativePod *native_pod_unref(NativePod *p) {
        if (!p || --p->n_ref > 0)
                return NULL;
        unit_watch_free(p->watch);
        sd_event_source_disable_unref(p->settle);
        free(p->id);
        free(p->unit);
        free(p->socket_path);
        free(p->control_group);
        free(p);
        return NULL;
}

NativePod *native_pod_find(NativeEngine *e, const char *id) {
        NativePod *p;

        HASH_FIND_STR(e->pods, id, p);
        return p;
}

void native_pod_forget(NativePod *p) {
        if (!p->engine)
                return;
        HASH_DEL(p->engine->pods, p);
        p->engine = NULL;
        p->watch = unit_watch_free(p->watch);
        p->settle = sd_event_source_disable_unref(p->settle);
        p->state.running = false;
        p->state.pid = 0;
        fiber_queue_wake(&p->changed, -ENOENT);
        native_pod_unref(p);
}

static void set_state(NativePod *p, bool running, pid_t pid) {
        bool tell = p->state.running != running || (p->state.pid != pid && pid > 0);

        p->state.running = running;
        p->state.pid = pid;
        p->stopped &= !running;
        fiber_queue_wake(&p->changed, 0);
        if (tell && p->up && p->engine && p->engine->engine.events.pod_changed)
                p->engine->engine.events.pod_changed(p->id, &p->state, p->engine->engine.events.userdata);
}

static int on_settled(sd_event_source *source, uint64_t usec, void *userdata) {
        NativePod *p = userdata;

        p->settle = sd_event_source_disable_unref(p->settle);
        set_state(p, /* running= */ false, /* pid= */ 0);
        return 0;
}

/* systemd says "failed" and "inactive" on its way from a killed process to the new one. */
static bool may_come_back(const UnitState *state) {
        static const char *const results[] = { "signal", "core-dump", "timeout", "watchdog", "success" };

        if (streq_ptr(state->load_state, "not-found"))
                return false;
        for (size_t i = 0; i < ELEMENTSOF(results); i++)
                if (streq_ptr(state->result, results[i]))
                        return true;
        return false;
}

static void on_unit(const char *unit, const UnitState *state, void *userdata) {
        NativePod *p = userdata;
        const char *active = strempty(state->active_state);
        bool down = streq(active, "inactive") || streq(active, "failed") || streq_ptr(state->load_state, "not-found");

        p->seen = true;
        if (!isempty(state->control_group) && !streq_ptr(state->control_group, p->control_group)) {
                char *copy = strdup(state->control_group);

                if (copy) {
                        free(p->control_group);
                        p->control_group = copy;
                }
        }
        if (down && may_come_back(state)) {
                if (!p->settle && p->engine &&
                    sd_event_add_time_relative(p->engine->event, &p->settle, CLOCK_MONOTONIC, SETTLE_USEC, 0,
                                               on_settled, p) < 0)
                        set_state(p, /* running= */ false, /* pid= */ 0);
                else
                        set_state(p, p->state.running || !p->up, /* pid= */ 0);
                return;
        }
        p->settle = sd_event_source_disable_unref(p->settle);
        if (state->main_pid > 0 && p->state.started_usec == 0)
                p->state.started_usec = state->exec_main_start_usec;
        /* "activating" once it is up: the new process isn't ready yet. */
        set_state(p, !down, streq(active, "active") ? state->main_pid : 0);
}

static int native_pod_new(NativeEngine *e, const EnginePod *pod, NativePod **ret, Error *error) {
        _cleanup_(native_pod_unrefp) NativePod *p = calloc(1, sizeof *p);

        if (!p)
                return error_oom(error);
        p->n_ref = 1;
        p->id = strdup(pod->id);
        p->unit = strdup(pod->unit);
        p->socket_path = strprintf("%s/pod.sock", pod->run_directory);
        if (!p->id || !p->unit || !p->socket_path)
                return error_oom(error);
        if (native_pod_find(e, pod->id))
                return error_setf(error, GRPC_ALREADY_EXISTS, "pod %s is there already", pod->id);
        p->engine = e;
        HASH_ADD_KEYPTR(hh, e->pods, p->id, strlen(p->id), p);
        *ret = TAKE_PTR(p);
        return 0;
}

/* Where systemd puts a unit that runs, unless it doesn't manage the whole tree itself. */
static int find_control_group(NativePod *p, const EnginePod *pod) {
        _cleanup_free_ char *slice = NULL, *path = NULL;
        _cleanup_close_ int fd = -1;

        if (p->control_group)
                return 0;
        if (slice_path(pod->slice, &slice) < 0 || !(path = strprintf("%s/%s", slice, pod->unit)))
                return -ENOMEM;
        fd = cgroup_open(path);
        if (fd < 0)
                return fd;
        p->control_group = TAKE_PTR(path);
        return 0;
}

/* Follows the unit. runs: it was seen to, a moment ago. 1: so what is known of it is enough until it changes. */
static int native_pod_watch(NativePod *p, const EnginePod *pod, bool runs, Error *error) {
        int r;

        if (p->watch)
                return 0;
        p->seen = false;
        runs = runs && find_control_group(p, pod) >= 0;
        if (runs)
                r = unit_watch_new_running(p->engine->systemd, p->unit, p->control_group, on_unit, p, &p->watch);
        else
                r = unit_watch_new(p->engine->systemd, p->unit, on_unit, p, &p->watch);
        return r < 0 ? error_set(error, r, "cannot follow unit %s", p->unit) : runs;
}

/* Waits until it is known what the unit does. The unit of a pod that was stopped may be loaded still, because those of its
 * containers are: it is down, and there is nothing to wait for. */
static int native_pod_wait_seen(NativePod *p, bool stopped, Error *error) {
        int r;

        while (p->engine && (!p->seen || (p->settle && !stopped))) {
                r = fiber_queue_wait(&p->changed);
                if (r < 0)
                        return error_set(error, r, "gave up waiting for the state of unit %s", p->unit);
        }
        if (p->settle) {
                p->settle = sd_event_source_disable_unref(p->settle);
                p->state.running = false;
        }
        return 0;
}

int native_pod_wait_pid(NativePod *p, pid_t *ret, Error *error) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + POD_START_TIMEOUT_USEC;
        int r = 0;

        while (p->engine && p->state.running && p->state.pid <= 0 && r >= 0)
                r = fiber_queue_wait_until(&p->changed, until);
        if (p->engine && p->state.running && p->state.pid > 0) {
                *ret = p->state.pid;
                return 0;
        }
        if (r < 0 && r != -ENOENT)
                return error_set(error, r, "the process of pod %s is not running", p->id);
        (void) error_setf(error, GRPC_FAILED_PRECONDITION, "pod %s is not running", p->id);
        return -ENOENT;
}

/* --- start ------------------------------------------------------------------------------------------------------- */

static int ranges_arguments(const IdRanges *r, const char *option, char ***argv) {
        int k = 0;

        for (size_t i = 0; i < r->n && k >= 0; i++)
                k = strv_extendf(argv, "%s=%u:%u:%u", option, r->ranges[i].inside, r->ranges[i].outside,
                                 r->ranges[i].count);
        return k;
}

static int id_map_arguments(const EnginePod *pod, char ***argv, Error *error) {
        IdMap map;
        int r;

        r = pod_id_map(pod, &map, error);
        if (r >= 0)
                r = ranges_arguments(&map.uids, "--uid-map", argv);
        return r >= 0 ? ranges_arguments(&map.gids, "--gid-map", argv) : r;
}

static int pod_arguments(NativeEngine *e, const EnginePod *pod, char ***ret, Error *error) {
        _cleanup_strv_free_ char **argv = NULL;
        _cleanup_free_ char *hostname = NULL;
        int r;

        r = strv_extend(&argv, e->pod_path);
        if (r >= 0)
                r = strv_extendf(&argv, "--socket=%s/pod.sock", pod->run_directory);
        if (r >= 0)
                r = strv_extendf(&argv, "--run-directory=%s", e->run_directory);
        if (r >= 0 && pod_has_network(pod))
                r = strv_extend(&argv, "--net");
        if (r >= 0 && pod_has_uts(pod)) {
                hostname = pod_hostname(pod);
                r = hostname ? strv_extend(&argv, "--uts") : -ENOMEM;
                if (r >= 0)
                        r = strv_extendf(&argv, "--hostname=%s", hostname);
        }
        if (r >= 0 && pod_has_ipc(pod))
                r = strv_extend(&argv, "--ipc");
        if (r >= 0 && pod_has_pid(pod))
                r = strv_extend(&argv, "--pid");
        if (r >= 0)
                r = id_map_arguments(pod, &argv, error);
        if (r < 0)
                return error_is_set(error) ? r : error_oom(error);
        r = pod_sysctl_arguments(pod, &argv, error);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(argv);
        return 0;
}

static int pod_properties(NativeEngine *e, const EnginePod *pod, UnitProperties **ret, Error *error) {
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;
        _cleanup_strv_free_ char **argv = NULL, **fields = NULL;
        _cleanup_free_ char *description = NULL, *identifier = NULL;
        char *documentation[] = { (char *) "man:rktlet-pod(8)", (char *) "man:rktlet(8)", NULL };
        /* The other way round at shutdown: the kubelet ends first, so that it starts nothing again; the network and the
         * file systems of volumes last. */
        char *after[] = { (char *) "network.target", (char *) "remote-fs.target", NULL },
             *before[] = { (char *) "kubelet.service", NULL };
        const runtime_v1_PodSandboxMetadata *m = &pod->config->metadata;
        int r;

        r = pod_arguments(e, pod, &argv, error);
        if (r < 0)
                return r;
        description = unit_text("Pod %s/%s", strempty(m->namespace), strempty(m->name));
        identifier = unit_text("%s", isempty(m->name) ? "pod" : m->name);
        if (!description || !identifier || unit_properties_new(&p) < 0 || log_fields_new(pod, NULL, &fields) < 0)
                return error_oom(error);

        /* The first failure is kept in the list and reported by unit_start_wait(). */
        (void) unit_properties_add_string(p, "Description", description);
        (void) unit_properties_add_strv(p, "Documentation", documentation);
        (void) unit_properties_add_strv(p, "After", after);
        (void) unit_properties_add_strv(p, "Before", before);
        (void) unit_properties_add_string(p, "Slice", pod->slice);
        (void) unit_properties_add_string(p, "Type", "notify");
        (void) unit_properties_add_string(p, "NotifyAccess", "main");
        (void) unit_properties_add_exec(p, "ExecStart", e->pod_path, argv);
        (void) unit_properties_add_bool(p, "Delegate", true);
        (void) unit_properties_add_string(p, "KillMode", "process");
        (void) unit_properties_add_string(p, "Restart", "on-abnormal");
        (void) unit_properties_add_u64(p, "RestartUSec", 0);
        (void) unit_properties_add_u64(p, "StartLimitIntervalUSec", 0);
        (void) unit_properties_add_u32(p, "FileDescriptorStoreMax", POD_FDSTORE_MAX);
        (void) unit_properties_add_u64(p, "TimeoutStopUSec", POD_STOP_TIMEOUT_USEC);
        (void) unit_properties_add_string(p, "OOMPolicy", "continue");
        (void) unit_properties_add_bool(p, "IOAccounting", true);
        (void) unit_properties_add_string(p, "SyslogIdentifier", identifier);
        (void) unit_properties_add_log_fields(p, fields);
        if (e->log_to_journal) {
                (void) unit_properties_add_u64(p, "LogRateLimitIntervalUSec", e->journal_interval_usec);
                (void) unit_properties_add_u32(p, "LogRateLimitBurst", e->journal_burst);
        }
        if (e->oom_score_adj_min <= POD_OOM_SCORE_ADJ)
                (void) unit_properties_add_i32(p, "OOMScoreAdjust", POD_OOM_SCORE_ADJ);
        *ret = TAKE_PTR(p);
        return 0;
}

/* Who its root is outside, as text. */
static int root_of_pod(const EnginePod *pod, char uid[16], char gid[16], Error *error) {
        uint32_t u = 0, g = 0;
        IdMap map;
        int r;

        r = pod_id_map(pod, &map, error);
        if (r < 0)
                return r;
        (void) id_ranges_outside(&map.uids, 0, &u);
        (void) id_ranges_outside(&map.gids, 0, &g);
        (void) snprintf(uid, 16, "%u", u);
        (void) snprintf(gid, 16, "%u", g);
        return 0;
}

/* The pod's /dev/shm, which all its containers share. */
static int mount_shm(const EnginePod *pod, const char *socket_path, Error *error) {
        _cleanup_close_ int fs_fd = -1, fd = -1;
        _cleanup_free_ char *target = strprintf("%s/shm", pod->run_directory);
        char uid[16], gid[16];
        int r;

        if (!target)
                return error_oom(error);
        r = root_of_pod(pod, uid, gid, error);
        if (r < 0)
                return r;
        fs_fd = fsopen("tmpfs", FSOPEN_CLOEXEC);
        if (fs_fd < 0 || fsconfig(fs_fd, FSCONFIG_SET_STRING, "uid", uid, 0) < 0 ||
            fsconfig(fs_fd, FSCONFIG_SET_STRING, "gid", gid, 0) < 0 || fsconfig(fs_fd, FSCONFIG_SET_STRING, "source", "shm", 0) < 0 ||
            fsconfig(fs_fd, FSCONFIG_SET_STRING, "mode", "1777", 0) < 0 ||
            fsconfig(fs_fd, FSCONFIG_SET_STRING, "size", SHM_SIZE, 0) < 0 ||
            fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                return error_set(error, -errno, "cannot make the shared memory of pod %s", pod->id);
        fd = fsmount(fs_fd, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
        if (fd < 0)
                return error_set(error, -errno, "cannot mount the shared memory of pod %s", pod->id);
        return pod_client_mount(socket_path, fd, target, error);
}

static int pod_make(NativeEngine *e, const EnginePod *pod, NativePod *p, UnitProperties *properties, Error *error) {
        int r;

        /* Its containers' root is not root out here, and has to come by on the way to its files. */
        if (pod_has_userns(pod) && chmod(pod->run_directory, 0711) < 0)
                return error_set(error, -errno, "cannot open %s to the pod", pod->run_directory);

        r = unit_start_wait(e->systemd, pod->unit, properties, POD_START_TIMEOUT_USEC, error);
        if (r < 0)
                return error_prefix(error, r, "cannot start pod %s", pod->id);
        KILL_POINT_OF("pod-start.unit", pod->id);
        p->state.running = true;
        p->state.started_usec = now_usec(CLOCK_REALTIME);
        /* Its answer, which says the process's ID, takes a while in PID 1: whoever needs it waits for it. */
        r = native_pod_watch(p, pod, /* runs= */ true, error);
        if (r < 0)
                return r;
        return pod_has_ipc(pod) ? mount_shm(pod, p->socket_path, error) : 0;
}

int native_pod_start(Engine *engine, const EnginePod *pod, EnginePodState *ret, Error *error) {
        NativeEngine *e = native_engine(engine);
        _cleanup_(unit_properties_freep) UnitProperties *properties = NULL;
        NativePod *p;
        int r;

        r = check_pod(pod, error);
        if (r < 0)
                return r;
        r = pod_properties(e, pod, &properties, error);
        if (r < 0)
                return r;
        r = pod_files_write(pod, error);
        if (r < 0)
                return r;
        r = native_pod_new(e, pod, &p, error);
        if (r < 0)
                return r;
        _cleanup_(native_pod_unrefp) _unused_ NativePod *held = native_pod_ref(p);
        r = pod_make(e, pod, p, properties, error);
        if (r < 0) {
                FIBER_SHIELDED_SCOPE;
                _cleanup_error_ Error ignored = ERROR_INIT;

                if (native_pod_stop(engine, pod, &ignored) < 0 || native_pod_remove(engine, pod, &ignored) < 0)
                        log_debug("Pod %s could not be undone: %s, ignoring", pod->id, strempty(ignored.message));
                return r;
        }
        p->up = true;
        *ret = p->state;
        return 0;
}

int native_pod_netns(Engine *engine, const EnginePod *pod, char **ret, Error *error) {
        NativePod *p = native_pod_find(native_engine(engine), pod->id);
        char *path;
        pid_t pid;
        int r;

        if (!pod_has_network(pod)) {
                *ret = NULL;
                return 0;
        }
        if (!p) {
                (void) error_setf(error, GRPC_FAILED_PRECONDITION, "pod %s is not running", pod->id);
                return -ENOENT;
        }
        _cleanup_(native_pod_unrefp) _unused_ NativePod *held = native_pod_ref(p);
        r = native_pod_wait_pid(p, &pid, error);
        if (r < 0)
                return r;
        path = strprintf("/proc/%d/ns/net", (int) pid);
        if (!path)
                return error_oom(error);
        *ret = path;
        return 0;
}

/* --- end --------------------------------------------------------------------------------------------------------- */

/* Containers that nobody stopped go first: their log goes through the pod's process. */
static void kill_containers(NativeEngine *e, const char *pod_id) {
        NativeContainer *n, *next;

        HASH_ITER(hh, e->containers, n, next)
                if (streq(n->pod_id, pod_id) && n->watch && n->state.phase != ENGINE_CONTAINER_EXITED)
                        (void) cgroup_kill(n->control_group);
        for (;;) {
                NativeContainer *left = NULL;

                HASH_ITER(hh, e->containers, n, next)
                        if (streq(n->pod_id, pod_id) && n->up && n->watch &&
                            n->state.phase != ENGINE_CONTAINER_EXITED && n->control_group) {
                                left = n;
                                break;
                        }
                if (!left ||
                    native_container_wait_exit(left, now_usec(CLOCK_MONOTONIC) + KILL_TIMEOUT_USEC) < 0)
                        return;
        }
}

/* The pod's cgroup, owned by the caller; NULL: none. */
static int find_processes(NativeEngine *e, const EnginePod *pod, char **ret, Error *error) {
        NativePod *p = native_pod_find(e, pod->id);
        _cleanup_unit_state_ UnitState state = {};
        int r;

        if (p && p->control_group) {
                *ret = strdup(p->control_group);
                return *ret ? 0 : error_oom(error);
        }
        r = unit_get_state(e->systemd, pod->unit, &state, error);
        if (r < 0)
                return r;
        *ret = isempty(state.control_group) ? NULL : TAKE_PTR(state.control_group);
        return 0;
}

int native_pod_stop(Engine *engine, const EnginePod *pod, Error *error) {
        NativeEngine *e = native_engine(engine);
        _cleanup_free_ char *control_group = NULL;
        NativePod *p;
        int r;

        kill_containers(e, pod->id);
        KILL_POINT_OF("pod-end.containers", pod->id);
        /* Its removal begins with a stop, for whoever did not ask for one. */
        p = native_pod_find(e, pod->id);
        if (p && p->stopped)
                return 0;
        /* Where its processes are: KillMode=process leaves the init of its pid namespace alone. */
        r = find_processes(e, pod, &control_group, error);
        if (r < 0)
                return r;
        r = unit_stop_wait(e->systemd, pod->unit, UNIT_STOP_TIMEOUT_USEC, error);
        if (r < 0)
                return r;
        r = cgroup_kill(control_group);
        if (r < 0)
                return error_set(error, r, "cannot end the processes of pod %s", pod->id);
        KILL_POINT_OF("pod-end.killed", pod->id);
        r = cgroup_wait_empty(control_group, KILL_TIMEOUT_USEC);
        if (r < 0)
                return error_set(error, r, "the processes of pod %s don't end", pod->id);
        KILL_POINT_OF("pod-end.gone", pod->id);
        p = native_pod_find(e, pod->id);
        if (p) {
                /* Whoever asked for it needs no event. */
                p->state.running = false;
                p->state.pid = 0;
                p->stopped = true;
                fiber_queue_wake(&p->changed, 0);
        }
        return 0;
}

int native_pod_remove(Engine *engine, const EnginePod *pod, Error *error) {
        NativeEngine *e = native_engine(engine);
        static const char *const names[] = { "hostname", "hosts", "resolv.conf", "pod.sock", "shm" };
        NativePod *p = native_pod_find(e, pod->id);
        int r;

        /* To look at a unit that is gone would load it again. */
        if (p && p->stopped)
                p->watch = unit_watch_free(p->watch);
        r = unit_release_wait(e->systemd, pod->unit, UNIT_STOP_TIMEOUT_USEC, error);
        if (r < 0)
                return r;
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_free_ char *path = strprintf("%s/%s", pod->run_directory, names[i]);

                if (!path)
                        return error_oom(error);
                r = remove_tree(AT_FDCWD, path);
                if (r < 0)
                        return error_set(error, r, "cannot remove %s", path);
        }
        p = native_pod_find(e, pod->id);
        if (p)
                native_pod_forget(p);
        return 0;
}

int native_pod_load(Engine *engine, const EnginePod *pod, EnginePodState *ret, Error *error) {
        NativeEngine *e = native_engine(engine);
        NativePod *p = native_pod_find(e, pod->id);
        int r;

        if (!p) {
                r = native_pod_new(e, pod, &p, error);
                if (r < 0)
                        return r;
        }
        _cleanup_(native_pod_unrefp) _unused_ NativePod *held = native_pod_ref(p);
        r = native_pod_watch(p, pod, systemd_noted_running(e->systemd, pod->unit), error);
        if (r > 0)
                p->state.running = true; /* its process's ID comes later */
        else if (r == 0)
                r = native_pod_wait_seen(p, pod->stopped, error);
        if (r < 0)
                return r;
        p->up = true;
        *ret = p->state;
        return 0;
}

int native_pod_status(Engine *engine, const EnginePod *pod, const char *text, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/pod.sock", pod->run_directory);

        return path ? pod_client_status(path, text, error) : error_oom(error);
}

int native_pod_update(Engine *engine, const EnginePod *pod, const runtime_v1_LinuxContainerResources *resources,
                      Error *error) {
        NativeEngine *e = native_engine(engine);
        _cleanup_(resources_done) Resources r = RESOURCES_INIT;
        _cleanup_free_ char *cgroup = NULL;
        int k;

        k = native_pod_cgroup(engine, pod, &cgroup);
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
