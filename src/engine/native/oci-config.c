/* The OCI runtime configuration. Nothing of the request's or image's annotations and labels gets into it: some
 * runtimes obey some of them (CVE-2024-3154). */

#include "engine/native/oci-config.h"

#include "basic/json-util.h"
#include "basic/string-util.h"
#include "engine/native/capability.h"
#include "engine/native/cdi.h"
#include "engine/native/oci-process.h"
#include "engine/native/seccomp.h"
#include "engine/native/security-module.h"

static const char *const masked_paths[] = {
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
        "/sys/firmware",
};
static const char *const readonly_paths[] = {
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
};

static const runtime_v1_LinuxContainerSecurityContext *context_of(const EngineContainer *c) {
        return c->config->has_linux && c->config->linux.has_security_context ? &c->config->linux.security_context
                                                                             : NULL;
}

static const runtime_v1_LinuxSandboxSecurityContext *pod_context_of(const EngineContainer *c) {
        const runtime_v1_PodSandboxConfig *p = c->pod->config;

        return p->has_linux && p->linux.has_security_context ? &p->linux.security_context : NULL;
}

runtime_v1_NamespaceMode oci_pid_mode(const EngineContainer *c) {
        const runtime_v1_LinuxContainerSecurityContext *s = context_of(c);
        const runtime_v1_LinuxSandboxSecurityContext *p = pod_context_of(c);

        if (s && s->has_namespace_options)
                return s->namespace_options.pid;
        return p && p->has_namespace_options ? p->namespace_options.pid : runtime_v1_NamespaceMode_POD;
}

static bool mappings_equal(const runtime_v1_IDMapping *a, size_t n_a, const runtime_v1_IDMapping *b, size_t n_b) {
        for (size_t i = 0; i < n_a && i < n_b; i++)
                if (a[i].container_id != b[i].container_id || a[i].host_id != b[i].host_id || a[i].length != b[i].length)
                        return false;
        return n_a == n_b;
}

/* Where the container says anything about it, it has to be what its pod has. */
static int check_userns(const runtime_v1_LinuxContainerSecurityContext *s, const runtime_v1_LinuxSandboxSecurityContext *p,
                        Error *error) {
        static const runtime_v1_UserNamespace of_node = { .mode = runtime_v1_NamespaceMode_NODE };
        const runtime_v1_UserNamespace *u = &s->namespace_options.userns_options;
        const runtime_v1_UserNamespace *of_pod =
                        p && p->has_namespace_options && p->namespace_options.has_userns_options
                                        ? &p->namespace_options.userns_options
                                        : &of_node;

        if (u->mode == of_pod->mode &&
            (u->mode == runtime_v1_NamespaceMode_NODE ||
             (mappings_equal(u->uids, u->uids_count, of_pod->uids, of_pod->uids_count) &&
              mappings_equal(u->gids, u->gids_count, of_pod->gids, of_pod->gids_count))))
                return 0;
        return error_setf(error, GRPC_INVALID_ARGUMENT, "the container asks for another user namespace than its pod has");
}

int oci_config_check(const EngineContainer *c, Error *error) {
        const runtime_v1_LinuxContainerSecurityContext *s = context_of(c);
        const runtime_v1_LinuxSandboxSecurityContext *p = pod_context_of(c);
        const runtime_v1_NamespaceMode pid = oci_pid_mode(c);

        if (pid != runtime_v1_NamespaceMode_POD && pid != runtime_v1_NamespaceMode_CONTAINER &&
            pid != runtime_v1_NamespaceMode_NODE && pid != runtime_v1_NamespaceMode_TARGET)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "PID namespace mode %d is unknown", (int) pid);
        if (!s)
                return 0;
        if (s->privileged && !(p && p->privileged))
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "a privileged container needs a pod sandbox that is privileged too");
        if (s->has_namespace_options && s->namespace_options.has_userns_options) {
                int r = check_userns(s, p, error);

                if (r < 0)
                        return r;
        }
        return 0;
}

static json_t *user_to_json(const OciUser *u) {
        json_t *groups = json_array();

        for (size_t i = 0; groups && i < u->n_groups; i++)
                if (json_array_append_new(groups, json_integer(u->groups[i])) < 0) {
                        json_decref(groups);
                        return NULL;
                }
        return json_pack("{s:I, s:I, s:o}", "uid", (json_int_t)u->uid, "gid", (json_int_t)u->gid, "additionalGids",
                         groups);
}

static int oom_score_adj(const OciInput *in, int *ret, Error *error) {
        const runtime_v1_ContainerConfig *config = in->container->config;
        int64_t v = config->has_linux && config->linux.has_resources ? config->linux.resources.oom_score_adj : 0;

        if (v < -1000 || v > 1000)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "oom_score_adj %lld is not between -1000 and 1000",
                                  (long long) v);
        *ret = MAX((int) v, in->oom_score_adj_min);
        return 0;
}

void oci_output_done(OciOutput *o) {
        json_decref(o->config);
        buffer_done(&o->environment);
        *o = (OciOutput) {};
}

/* The command is executed by a program of ours, which has to set variables that JSON can't hold. */
static int add_helper(const OciInput *in, json_t *args, json_t *mounts, Error *error) {
        const char *const before[OCI_HELPER_ARGUMENTS] = {OCI_HELPER_PATH, "--environment", OCI_ENVIRONMENT_PATH,
                                                          "--"};
        const char *const files[][2] = { { in->helper, OCI_HELPER_PATH }, { in->environment, OCI_ENVIRONMENT_PATH } };

        for (size_t i = 0; i < ELEMENTSOF(before); i++)
                if (json_array_insert_new(args, i, json_string(before[i])) < 0)
                        return error_oom(error);
        for (size_t i = 0; i < ELEMENTSOF(files); i++)
                if (json_array_append_new(mounts, json_pack("{s:s, s:s, s:s, s:[s, s, s, s, s]}", "destination", files[i][1],
                                                            "type", "bind", "source", files[i][0], "options", "bind",
                                                            "rprivate", "ro", "nosuid", "nodev")) < 0)
                        return error_oom(error);
        return 0;
}

static int make_process(const OciInput *in, const Capabilities *caps, json_t *mounts, json_t **ret, Buffer *raw,
                        Error *error) {
        const runtime_v1_ContainerConfig *config = in->container->config;
        const ImageConfig *image = in->container->image ? &in->container->image->config : NULL;
        const runtime_v1_LinuxContainerSecurityContext *s = context_of(in->container);
        _cleanup_json_ json_t *args = NULL, *env = NULL;
        const char *cwd;
        int r, adj = 0;

        r = oci_args(config, image, &args, error);
        if (r >= 0)
                r = oci_env(config, image, in->hostname, in->user->home, &env, raw, error);
        if (r >= 0)
                r = oci_cwd(config, image, &cwd, error);
        if (r >= 0)
                r = oom_score_adj(in, &adj, error);
        if (r >= 0 && raw->size > 0)
                r = add_helper(in, args, mounts, error);
        if (r < 0)
                return r;
        *ret = json_pack("{s:b, s:o, s:O, s:O, s:s, s:o, s:b, s:i}",
                         "terminal", config->tty,
                         "user", user_to_json(in->user),
                         "args", args,
                         "env", env,
                         "cwd", cwd,
                         "capabilities", capabilities_to_json(caps),
                         "noNewPrivileges", s && s->no_new_privs,
                         "oomScoreAdj", adj);
        return *ret ? 0 : error_oom(error);
}

static int add_namespace(json_t *array, const char *type, const char *path) {
        json_t *n = path ? json_pack("{s:s, s:s}", "type", type, "path", path) : json_pack("{s:s}", "type", type);

        return json_array_append_new(array, n);
}

static int make_namespaces(const OciInput *in, bool privileged, json_t **ret, Error *error) {
        _cleanup_json_ json_t *a = json_array();
        bool failed;

        if (!a)
                return error_oom(error);
        failed = (in->userns && add_namespace(a, "user", in->userns) < 0) || add_namespace(a, "mount", NULL) < 0 || (in->net && add_namespace(a, "network", in->net) < 0) ||
                 (in->ipc && add_namespace(a, "ipc", in->ipc) < 0) ||
                 (in->uts && add_namespace(a, "uts", in->uts) < 0) ||
                 ((in->pid || in->pid_private) && add_namespace(a, "pid", in->pid_private ? NULL : in->pid) < 0) ||
                 (!privileged && add_namespace(a, "cgroup", NULL) < 0);
        if (failed)
                return error_oom(error);
        *ret = TAKE_PTR(a);
        return 0;
}

/* The request's list, or ours when it has neither of the two lists. Privileged containers see everything. */
static json_t *make_paths(char *const *given, size_t n_given, const char *const *ours, size_t n_ours) {
        json_t *a = json_array();

        for (size_t i = 0; a && i < n_given; i++)
                (void) json_array_append_new(a, json_string(given[i]));
        for (size_t i = 0; a && i < n_ours; i++)
                (void) json_array_append_new(a, json_string(ours[i]));
        if (a && json_array_size(a) != n_given + n_ours) {
                json_decref(a);
                return NULL;
        }
        return a;
}

static const char *root_propagation(const runtime_v1_ContainerConfig *config, bool shared) {
        if (shared)
                return "rshared";
        for (size_t i = 0; i < config->mounts_count; i++)
                if (config->mounts[i].propagation == runtime_v1_MountPropagation_PROPAGATION_HOST_TO_CONTAINER)
                        return "rslave";
        return "rprivate";
}

static int make_linux(const OciInput *in, UnitProperties *p, bool shared, json_t **ret, Error *error) {
        const runtime_v1_ContainerConfig *config = in->container->config;
        const runtime_v1_LinuxContainerSecurityContext *s = context_of(in->container);
        const bool privileged = s && s->privileged;
        const bool given = s && (s->masked_paths_count > 0 || s->readonly_paths_count > 0);
        const bool ours = !given && !privileged;
        const size_t n_masked = given && !privileged ? s->masked_paths_count : 0;
        const size_t n_readonly = given && !privileged ? s->readonly_paths_count : 0;
        _cleanup_json_ json_t *namespaces = NULL, *devices = NULL;
        int r;

        r = make_namespaces(in, privileged, &namespaces, error);
        if (r >= 0)
                r = oci_devices(config, privileged, p, &devices, error);
        if (r < 0)
                return r;
        *ret = json_pack("{s:O, s:O, s:o, s:o, s:s}",
                         "namespaces", namespaces,
                         "devices", devices,
                         "maskedPaths", make_paths(s ? s->masked_paths : NULL, n_masked, masked_paths,
                                                   ours ? ELEMENTSOF(masked_paths) : 0),
                         "readonlyPaths", make_paths(s ? s->readonly_paths : NULL, n_readonly, readonly_paths,
                                                     ours ? ELEMENTSOF(readonly_paths) : 0),
                         "rootfsPropagation", root_propagation(config, shared));
        if (*ret && in->id_map && id_map_is_set(in->id_map) &&
            (json_object_set_new(*ret, "uidMappings", id_ranges_to_json(&in->id_map->uids)) < 0 ||
             json_object_set_new(*ret, "gidMappings", id_ranges_to_json(&in->id_map->gids)) < 0)) {
                json_decref(*ret);
                *ret = NULL;
        }
        return *ret ? 0 : error_oom(error);
}

/* The unit's device policy, which the runtime's comes on top of, says what is allowed. */
static int add_cgroup(const OciInput *in, json_t *linux_part, Error *error) {
        json_t *all;

        if (!in->cgroup)
                return 0;
        all = json_pack("{s:[{s:b, s:s}]}", "devices", "allow", 1, "access", "rwm");
        if (json_object_set_new(linux_part, "cgroupsPath", json_string(in->cgroup)) < 0 ||
            json_object_set_new(linux_part, "resources", all) < 0)
                return error_oom(error);
        return 0;
}

int oci_config_make(const OciInput *in, UnitProperties *p, OciOutput *ret, Error *error) {
        const runtime_v1_LinuxContainerSecurityContext *s = context_of(in->container);
        const bool privileged = s && s->privileged;
        _cleanup_json_ json_t *process = NULL, *mounts = NULL, *linux_part = NULL, *config = NULL;
        _cleanup_(buffer_done) Buffer raw = BUFFER_INIT;
        Capabilities caps;
        bool shared;
        int r;

        r = oci_config_check(in->container, error);
        if (r >= 0)
                r = capabilities_from_config(s, in->capabilities, &caps, error);
        if (r >= 0)
                r = oci_mounts(in->container, &in->files, privileged, &mounts, &shared, error);
        if (r >= 0)
                r = make_process(in, &caps, mounts, &process, &raw, error);
        if (r >= 0)
                r = make_linux(in, p, shared, &linux_part, error);
        if (r >= 0)
                r = security_modules_add(s, in->sys ?: "/sys", process, linux_part, error);
        if (r >= 0)
                r = add_cgroup(in, linux_part, error);
        if (r < 0)
                return r;
        config = json_pack("{s:s, s:O, s:{s:s, s:b}, s:O, s:O}",
                           "ociVersion", "1.0.2",
                           "process", process,
                           "root", "path", in->rootfs, "readonly", s && s->readonly_rootfs,
                           "mounts", mounts,
                           "linux", linux_part);
        if (!config)
                return error_oom(error);
        r = cdi_add_to_config(in->container->config->CDI_devices, in->container->config->CDI_devices_count,
                              in->cdi_folders ?: cdi_folders, config, privileged ? NULL : p, error);
        if (r < 0)
                return r;
        r = seccomp_add_to_config(s, caps.bounding, in->seccomp_profile, config, error);
        if (r < 0)
                return r;
        *ret = (OciOutput) { .config = TAKE_PTR(config), .shared = shared, .environment = raw };
        raw = BUFFER_INIT;
        return 0;
}
