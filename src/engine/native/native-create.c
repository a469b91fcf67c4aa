/* A container is made: its root mounted in the pod's mount namespace, its OCI configuration written, its unit started
 * with the OCI runtime as first process; then its streams are handed to the pod's process. */

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>

#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "engine/native/internal.h"
#include "engine/native/namespaces.h"
#include "engine/native/oci-config.h"
#include "engine/native/oci-process.h"
#include "engine/native/resources.h"
#include "engine/native/rootfs.h"
#include "engine/native/volume.h"

#define CONSOLE_TIMEOUT_USEC (5 * USEC_PER_SEC)

enum { STDIN, STDOUT, STDERR, _STREAM_MAX };

/* What is in the making. */
typedef struct Creation {
        NativeEngine *engine;
        const EngineContainer *c;
        Error *error;

        char *rootfs, *log, *pid_file, *console;
        OciUser user;
        uint32_t uid, gid; /* the same outside of the pod's user namespace */
        Resources resources;
        PodNamespaces namespaces;
        IdMap id_map;
        int pipes[_STREAM_MAX][2]; /* read, write */
        int console_fd, tty_fd;
        UnitProperties *properties;
        char *command;             /* the first argument */
        Runtime *runtime;          /* borrowed */
        char *limits;              /* a file, see restore_limits() */
        char *cgroup;              /* the leaf that the runtime makes; NULL: none */
        char *control_group;       /* what the unit's will be */
        bool shared;
        int stop_signal;
} Creation;

static void creation_done(Creation *k) {
        free(k->rootfs);
        free(k->log);
        free(k->pid_file);
        free(k->console);
        free(k->command);
        free(k->cgroup);
        free(k->limits);
        free(k->control_group);
        oci_user_done(&k->user);
        resources_done(&k->resources);
        pod_namespaces_done(&k->namespaces);
        for (size_t i = 0; i < _STREAM_MAX; i++)
                for (size_t j = 0; j < 2; j++)
                        (void) safe_close(k->pipes[i][j]);
        (void) safe_close(k->console_fd);
        (void) safe_close(k->tty_fd);
        unit_properties_free(k->properties);
}

static int creation_init(Creation *k) {
        const char *d = k->c->run_directory;

        k->rootfs = strprintf("%s/rootfs", d);
        k->log = strprintf("%s/runtime.log", d);
        k->pid_file = strprintf("%s/pid", d);
        k->console = strprintf("%s/tty", d);
        k->limits = strprintf("%s/limits", d);
        return k->rootfs && k->log && k->pid_file && k->console && k->limits && unit_properties_new(&k->properties) >= 0
                       ? 0
                       : -ENOMEM;
}

/* --- streams ----------------------------------------------------------------------------------------------------- */

/* The pipes belong to the container's user, so that it can open /dev/stdout again. */
static int make_pipe(Creation *k, int stream) {
        int *fds = k->pipes[stream];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return error_set(k->error, -errno, "cannot make a pipe");
        if (fchown(fds[stream == STDIN ? 0 : 1], k->uid, k->gid) < 0)
                return error_set(k->error, -errno, "cannot give a pipe to user %u", k->uid);
        return 0;
}

/* The socket at which the runtime delivers the terminal's master. */
static int listen_console(Creation *k) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_close_ int dir_fd = -1, fd = -1;

        dir_fd = open_directory(AT_FDCWD, k->c->run_directory);
        if (dir_fd < 0)
                return error_set(k->error, dir_fd, "cannot open %s", k->c->run_directory);
        /* A socket's address has room for 107 bytes. */
        (void) snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/tty", dir_fd);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof address) < 0 || listen(fd, 1) < 0)
                return error_set(k->error, -errno, "cannot listen for the terminal of container %s", k->c->id);
        k->console_fd = TAKE_FD(fd);
        return 0;
}

static int make_streams(Creation *k) {
        const runtime_v1_ContainerConfig *config = k->c->config;
        static const char *const names[] = { "StandardInputFileDescriptor", "StandardOutputFileDescriptor",
                                             "StandardErrorFileDescriptor" };
        int r;

        if (config->tty) {
                (void) unit_properties_add_string(k->properties, "StandardOutput", "null");
                (void) unit_properties_add_string(k->properties, "StandardError", "null");
                return listen_console(k);
        }
        for (int i = config->stdin ? STDIN : STDOUT; i < _STREAM_MAX; i++) {
                r = make_pipe(k, i);
                if (r < 0)
                        return r;
                (void) unit_properties_add_fd(k->properties, names[i], k->pipes[i][i == STDIN ? 0 : 1]);
        }
        return 0;
}

static int accept_console(Creation *k) {
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(sizeof(int))];
        } control = {};
        char text[256];
        struct iovec iov = { text, sizeof text };
        struct msghdr m = {
                        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        _cleanup_close_ int fd = -1;
        int r;

        /* The runtime has sent it before its process ended. */
        r = fiber_wait_fd(k->console_fd, EPOLLIN, CONSOLE_TIMEOUT_USEC);
        if (r >= 0) {
                fd = accept4(k->console_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                r = fd < 0 ? -errno : fiber_wait_fd(fd, EPOLLIN, CONSOLE_TIMEOUT_USEC);
        }
        if (r < 0)
                return error_set(k->error, r, "the terminal of container %s did not come", k->c->id);
        if (recvmsg(fd, &m, MSG_CMSG_CLOEXEC) < 0)
                return error_set(k->error, -errno, "the terminal of container %s did not come", k->c->id);
        if (m.msg_controllen < CMSG_LEN(sizeof(int)) || control.header.cmsg_type != SCM_RIGHTS)
                return error_setf(k->error, GRPC_INTERNAL, "the terminal of container %s came without a descriptor",
                                  k->c->id);
        memcpy(&k->tty_fd, CMSG_DATA(&control.header), sizeof(int));
        return 0;
}

/* A pod's process that is older than the daemon can't; its log file is what counts. */
static int log_to_journal(Creation *k, const char *socket_path) {
        const char *name = strempty(k->c->config->metadata.name);
        _cleanup_error_ Error error = ERROR_INIT;
        int r;

        r = pod_client_journal(socket_path, k->c->id, isempty(name) ? "container" : name, &error);
        if (r == -ECANCELED || r == -ETIME) {
                error_move(k->error, &error);
                return r;
        }
        if (r < 0)
                log_warning("The output of container %s does not go to the journal: %s", k->c->id,
                            strempty(error.message));
        return 0;
}

static int hand_over_streams(Creation *k) {
        const PodStreams streams = {
                .container_id = k->c->id,
                .log_path = k->c->log_path,
                .stdin_read_fd = k->pipes[STDIN][0],
                .stdin_write_fd = k->pipes[STDIN][1],
                .stdout_read_fd = k->pipes[STDOUT][0],
                .stdout_write_fd = k->pipes[STDOUT][1],
                .stderr_read_fd = k->pipes[STDERR][0],
                .stderr_write_fd = k->pipes[STDERR][1],
                .tty_fd = k->tty_fd,
                .line_max = k->engine->log_line_max,
        };
        _cleanup_free_ char *socket_path = strprintf("%s/pod.sock", k->c->pod->run_directory);
        int r;

        if (!socket_path)
                return error_oom(k->error);
        r = pod_client_add_streams(socket_path, &streams, k->error);
        /* Something is there that is no file of ours. */
        if ((r == -ELOOP || r == -EISDIR || r == -ENOTDIR || r == -ENXIO) && error_is_set(k->error))
                k->error->code = GRPC_FAILED_PRECONDITION;
        if (r < 0)
                return error_prefix(k->error, r, "cannot log the output of container %s", k->c->id);
        return k->engine->log_to_journal && k->c->log_path ? log_to_journal(k, socket_path) : 0;
}

/* --- root and configuration -------------------------------------------------------------------------------------- */

/* Of the file systems that every container has: the runtime makes device nodes and mounts there, and follows a symbolic
 * link of the image out of the rootfs while it does so. What the image has below them is out of sight by then. */
static int check_top_mount_points(int rootfs_fd, Error *error) {
        static const char *const names[] = { "dev", "proc", "sys" };
        struct stat st;

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (fstatat(rootfs_fd, names[i], &st, AT_SYMLINK_NOFOLLOW) >= 0 && !S_ISDIR(st.st_mode))
                        return error_setf(error, GRPC_FAILED_PRECONDITION,
                                          "/%s of the image is no directory: it cannot be mounted there", names[i]);
        return 0;
}

static bool is_below_another(json_t *mounts, size_t n, const char *destination) {
        for (size_t i = 0; i < n; i++) {
                const char *above = strempty(json_get_string(json_array_get(mounts, i), "destination"));
                const char *rest = startswith(destination, above);

                if (!isempty(above) && rest && rest[0] == '/')
                        return true;
        }
        return false;
}

/* The runtime resolves the other ones within the rootfs, but opens what is there for writing: that waits at a FIFO, and
 * has effects at a device. */
static int check_mount_points(int rootfs_fd, json_t *mounts, Error *error) {
        json_t *mount;
        size_t i;
        int r;

        r = check_top_mount_points(rootfs_fd, error);
        if (r < 0)
                return r;
        json_array_foreach(mounts, i, mount) {
                const char *destination = strempty(json_get_string(mount, "destination"));
                _cleanup_close_ int fd = -1;
                struct stat st;

                if (is_below_another(mounts, i, destination))
                        continue;
                fd = open_in_root(rootfs_fd, destination, O_PATH, 0);
                if (fd == -ENOENT)
                        continue;
                if (fd < 0)
                        return error_setf(error, GRPC_FAILED_PRECONDITION, "nothing can be mounted at %s of the image: %s",
                                          destination, strerror(-fd));
                if (fstat(fd, &st) < 0)
                        return error_set(error, -errno, "cannot look at %s of the image", destination);
                if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
                        return error_setf(error, GRPC_FAILED_PRECONDITION,
                                          "%s of the image is neither a directory nor a regular file: nothing can be "
                                          "mounted there",
                                          destination);
        }
        return 0;
}

static int write_config(Creation *k, int rootfs_fd) {
        _cleanup_(pod_files_done) OciPodFiles files = {};
        _cleanup_free_ char *hostname = pod_hostname(k->c->pod), *text = NULL, *path = NULL,
                            *environment = strprintf("%s/environment", k->c->run_directory);
        _cleanup_(oci_output_done) OciOutput out = {};
        json_t *args;
        int r;

        if (!hostname || !environment || pod_files_paths(k->c->pod, &files) < 0)
                return error_oom(k->error);
        /* crun does so itself, and better: what is mounted below comes along. */
        files.bind_sys = pod_has_userns(k->c->pod) && !pod_has_network(k->c->pod) &&
                         k->runtime->type != NATIVE_RUNTIME_CRUN;
        r = oci_config_make(&(OciInput) {
                                    .container = k->c,
                                    .user = &k->user,
                                    .capabilities = k->engine->capabilities,
                                    .oom_score_adj_min = k->engine->oom_score_adj_min,
                                    .hostname = hostname,
                                    .rootfs = k->rootfs,
                                    .cgroup = k->cgroup,
                                    .seccomp_profile = k->runtime->type != NATIVE_RUNTIME_CRUN,
                                    .files = files,
                                    .net = k->namespaces.paths[POD_NAMESPACE_NET],
                                    .ipc = k->namespaces.paths[POD_NAMESPACE_IPC],
                                    .uts = k->namespaces.paths[POD_NAMESPACE_UTS],
                                    .pid = k->namespaces.paths[POD_NAMESPACE_PID],
                                    .userns = k->namespaces.paths[POD_NAMESPACE_USER],
                                    .id_map = &k->id_map,
                                    .pid_private = oci_pid_mode(k->c) == runtime_v1_NamespaceMode_CONTAINER,
                                    .helper = k->engine->create_path,
                                    .environment = environment,
                            },
                            k->properties, &out, k->error);
        if (r >= 0)
                r = check_mount_points(rootfs_fd, json_get_array(out.config, "mounts"), k->error);
        if (r < 0)
                return r;
        k->shared = out.shared;
        if (out.environment.size > 0) {
                r = write_file_atomic(AT_FDCWD, environment, out.environment.data, out.environment.size, 0400, 0);
                if (r >= 0 && chown(environment, k->uid, k->gid) < 0)
                        r = -errno;
                if (r < 0)
                        return error_set(k->error, r, "cannot write %s", environment);
        }
        args = json_get_array(json_get_object(out.config, "process"), "args");
        k->command = strdup(strempty(json_string_value(json_array_get(args, 0))));
        text = json_dumps(out.config, JSON_COMPACT);
        path = strprintf("%s/config.json", k->c->run_directory);
        if (!k->command || !text || !path)
                return error_oom(k->error);
        r = write_file_atomic(AT_FDCWD, path, text, strlen(text), 0600, 0);
        return r < 0 ? error_set(k->error, r, "cannot write %s", path) : 0;
}

/* All of its IDs have to be there in the pod's user namespace. */
static int map_user(Creation *k) {
        const OciUser *u = &k->user;
        uint32_t id;
        int r;

        r = id_ranges_outside(&k->id_map.uids, u->uid, &k->uid);
        if (r < 0)
                return error_setf(k->error, GRPC_INVALID_ARGUMENT, "the pod's user namespace has no user %u", u->uid);
        r = id_ranges_outside(&k->id_map.gids, u->gid, &k->gid);
        if (r < 0)
                return error_setf(k->error, GRPC_INVALID_ARGUMENT, "the pod's user namespace has no group %u", u->gid);
        for (size_t i = 0; i < u->n_groups; i++)
                if (id_ranges_outside(&k->id_map.gids, u->groups[i], &id) < 0)
                        return error_setf(k->error, GRPC_INVALID_ARGUMENT, "the pod's user namespace has no group %u",
                                          u->groups[i]);
        return 0;
}

static int make_root(Creation *k) {
        const Image *image = k->c->image;
        _cleanup_free_ char *socket_path = strprintf("%s/pod.sock", k->c->pod->run_directory);
        _cleanup_close_ int fd = -1;
        int r;

        if (!socket_path)
                return error_oom(k->error);
        /* Its root is not root out here, and has to come by on the way to the rootfs. */
        if (id_map_is_set(&k->id_map) && chmod(k->c->run_directory, 0711) < 0)
                return error_set(k->error, -errno, "cannot open %s to the container", k->c->run_directory);
        r = rootfs_mount(k->c, k->engine->scratch, &k->id_map, k->namespaces.fds[POD_NAMESPACE_USER], &fd, k->error);
        if (r < 0)
                return r;
        KILL_POINT_OF("container-make.overlay", k->c->id);
        r = oci_user_resolve(fd,
                             k->c->config->has_linux && k->c->config->linux.has_security_context
                                     ? &k->c->config->linux.security_context
                                     : NULL,
                             image ? image->config.user : NULL, &k->user, k->error);
        if (r < 0)
                return r;
        r = map_user(k);
        if (r >= 0)
                r = volumes_attach(k->engine, k->c, &k->id_map, k->namespaces.fds[POD_NAMESPACE_USER], socket_path,
                                   k->error);
        if (r < 0)
                return r;
        r = write_config(k, fd);
        if (r < 0)
                return r;
        KILL_POINT_OF("container-make.config", k->c->id);
        return pod_client_mount(socket_path, fd, k->rootfs, k->error);
}

/* --- unit -------------------------------------------------------------------------------------------------------- */

/* Beside the pod's own: the same that systemd will say, but sooner. */
static int find_control_group(Creation *k) {
        NativePod *p = native_pod_find(k->engine, k->c->pod->id);
        const char *slash = p && p->control_group ? strrchr(p->control_group, '/') : NULL;

        if (!slash)
                return error_setf(k->error, GRPC_FAILED_PRECONDITION, "pod %s is not running", k->c->pod->id);
        k->control_group = strprintf("%.*s/%s", (int) (slash - p->control_group), p->control_group, k->c->unit);
        if (!k->control_group)
                return error_oom(k->error);
        if (runtime_has_leaf(k->runtime)) {
                k->cgroup = strprintf("%s/" RUNTIME_LEAF, k->control_group);
                if (!k->cgroup)
                        return error_oom(k->error);
        }
        return 0;
}

static int strv_extend_list(char ***l, const char *const *words, size_t n) {
        int r = 0;

        for (size_t i = 0; i < n && r >= 0; i++)
                if (words[i])
                        r = strv_extend(l, words[i]);
        return r;
}

/* What is taken along from the pod's mount namespace to one that propagates to the host. */
static int shared_arguments(Creation *k, char ***l) {
        int r = 0;

        if (!k->shared)
                return 0;
        r = strv_extend(l, "--shared");
        if (r >= 0)
                r = strv_extend(l, k->rootfs);
        for (size_t i = 0; r >= 0 && i < k->c->config->mounts_count; i++) {
                _cleanup_free_ char *path = NULL;

                if (!volume_is_ours(&k->c->config->mounts[i]))
                        continue;
                path = volume_path(k->c, i);
                r = path ? strv_extend(l, "--shared") : -ENOMEM;
                if (r >= 0)
                        r = strv_extend(l, path);
        }
        return r;
}

static int make_argv(Creation *k, char ***ret) {
        const char *const enter[] = {
                k->engine->create_path,
                "--log", k->log,
                "--mount-namespace", k->namespaces.paths[POD_NAMESPACE_MNT],
                k->cgroup ? "--cgroup" : NULL, k->cgroup ? RUNTIME_OWN_LEAF : NULL,
                k->cgroup ? "--limits" : NULL, k->cgroup ? k->limits : NULL,
        };
        const char *const create[] = {
                "create",
                "--bundle", k->c->run_directory,
                "--pid-file", k->pid_file,
                k->c->config->tty ? "--console-socket" : NULL, k->c->config->tty ? k->console : NULL,
                k->c->id,
        };
        _cleanup_strv_free_ char **l = NULL;

        if (strv_extend_list(&l, enter, ELEMENTSOF(enter)) < 0 || shared_arguments(k, &l) < 0 ||
            strv_extend(&l, "--") < 0 || runtime_arguments(k->runtime, k->log, &l) < 0 ||
            strv_extend_list(&l, create, ELEMENTSOF(create)) < 0)
                return -ENOMEM;
        *ret = TAKE_PTR(l);
        return 0;
}

static int describe_unit(Creation *k) {
        const EngineContainer *c = k->c;
        const runtime_v1_PodSandboxMetadata *m = &c->pod->config->metadata;
        const char *name = strempty(c->config->metadata.name);
        _cleanup_free_ char *description = NULL, *identifier = NULL;
        _cleanup_strv_free_ char **fields = NULL, **argv = NULL;
        /* At shutdown it is stopped before its pod, and so before the network. */
        char *after[] = { (char *) c->pod->unit, NULL }, *documentation[] = { (char *) "man:rktlet(8)", NULL };
        UnitProperties *p = k->properties;

        description = unit_text("Container %s of pod %s/%s", name, strempty(m->namespace), strempty(m->name));
        identifier = unit_text("%s", isempty(name) ? "container" : name);
        if (!description || !identifier || log_fields_new(c->pod, c, &fields) < 0 || make_argv(k, &argv) < 0)
                return error_oom(k->error);

        (void) unit_properties_add_string(p, "Description", description);
        (void) unit_properties_add_strv(p, "Documentation", documentation);
        (void) unit_properties_add_string(p, "Slice", c->pod->slice);
        (void) unit_properties_add_strv(p, "After", after);
        (void) unit_properties_add_string(p, "Type", "forking");
        (void) unit_properties_add_string(p, "PIDFile", k->pid_file);
        (void) unit_properties_add_exec(p, "ExecStart", k->engine->create_path, argv);
        /* The exit code stays with the unit until the container is removed. */
        (void) unit_properties_add_bool(p, "RemainAfterExit", true);
        (void) unit_properties_add_bool(p, "Delegate", true);
        (void) unit_properties_add_string(p, "KillMode", "mixed");
        (void) unit_properties_add_string(p, "OOMPolicy", k->resources.oom_group ? "kill" : "continue");
        (void) unit_properties_add_u64(p, "TimeoutStartUSec", CONTAINER_CREATE_TIMEOUT_USEC);
        (void) unit_properties_add_u64(p, "TimeoutStopUSec", k->engine->unit_stop_timeout_usec);
        (void) unit_properties_add_i32(p, "KillSignal", k->stop_signal);
        (void) unit_properties_add_bool(p, "IgnoreSIGPIPE", false);
        (void) unit_properties_add_bool(p, "IOAccounting", true);
        (void) unit_properties_add_string(p, "SyslogIdentifier", identifier);
        (void) unit_properties_add_log_fields(p, fields);
        if (k->resources.tasks_max == LIMIT_UNSET)
                (void) unit_properties_add_u64(p, "TasksMax", UINT64_MAX); /* the pod's slice has the limit */
        (void) resources_add_properties(&k->resources, p);
        return 0;
}

/* Keeps why the command can't be executed for StartContainer, which is where it has to fail. */
static int defer_start_error(Creation *k, NativeContainer *n, const char *text) {
        _cleanup_free_ char *path = strprintf("%s/start-error", k->c->directory);
        int r;

        KILL_POINT_OF("container-make.start-error", k->c->id);
        n->start_error = strdup(text);
        if (!path || !n->start_error)
                return error_oom(k->error);
        r = write_file_atomic(AT_FDCWD, path, text, strlen(text), 0600, 0);
        return r < 0 ? error_set(k->error, r, "cannot write %s", path) : 0;
}

/* The runtime doesn't always say that there was no room for a file in the container's root. */
static bool is_full(const char *directory) {
        struct statvfs st;

        return statvfs(directory, &st) >= 0 && (st.f_bavail == 0 || (st.f_files > 0 && st.f_favail == 0));
}

/* 0: only the command is at fault, and creation goes on without a unit. */
static int explain_failure(Creation *k, NativeContainer *n, int error, Error *why) {
        const char *const directories[] = { k->c->directory, k->c->run_directory };
        _cleanup_free_ char *message = runtime_log_message(AT_FDCWD, k->log), *text = NULL;
        int r;

        if (!message) {
                if (is_full(k->c->run_directory))
                        return error_setf(k->error, GRPC_RESOURCE_EXHAUSTED, "cannot create container %s: no space left "
                                          "for its files in %s", k->c->id, k->c->run_directory);
                error_move(k->error, why);
                return error_prefix(k->error, error, "cannot create container %s", k->c->id);
        }
        r = runtime_error_is_exec(message, k->command, &text);
        if (r < 0)
                return error_oom(k->error);
        if (r > 0)
                return defer_start_error(k, n, text);
        for (size_t i = 0; i < ELEMENTSOF(directories); i++)
                if (is_full(directories[i]))
                        return error_setf(k->error, GRPC_RESOURCE_EXHAUSTED, "cannot create container %s: %s (no space "
                                          "left for its files in %s)", k->c->id, message, directories[i]);
        return error_setf(k->error, runtime_error_code(message), "cannot create container %s: %s", k->c->id, message);
}

/* Go's runtime raises its limit of open files to what it may be, and older versions of runc leave that to the container. A
 * process of another user's takes CAP_SYS_RESOURCE, which some machines lack: there it stays as it is. */
static void restore_limits(const Creation *k, pid_t pid) {
        _cleanup_free_ char *text = NULL;
        unsigned long long soft, hard;

        if (!k->cgroup || read_file(AT_FDCWD, k->limits, 64, &text, NULL) < 0 ||
            sscanf(text, "%llu %llu", &soft, &hard) != 2)
                return;
        if (prlimit(pid, RLIMIT_NOFILE, &(struct rlimit) { .rlim_cur = soft, .rlim_max = hard }, NULL) < 0)
                log_debug_errno(-errno, "Container %s keeps a raised limit of open files, ignoring", k->c->id);
}

/* Its process is in the file that the runtime wrote. */
static int look_at_container(Creation *k, NativeContainer *n) {
        _cleanup_free_ char *text = NULL;
        uint32_t pid;
        int r;

        r = read_file(AT_FDCWD, k->pid_file, 16, &text, NULL);
        if (r < 0)
                return error_set(k->error, r, "cannot read %s", k->pid_file);
        r = parse_u32(text, &pid);
        if (r < 0 || pid == 0)
                return error_setf(k->error, GRPC_INTERNAL, "'%s' in %s is no process ID", text, k->pid_file);
        n->state.pid = (pid_t) pid;
        restore_limits(k, n->state.pid);
        n->control_group = TAKE_PTR(k->control_group);
        return 0;
}

static int start_unit(Creation *k, NativeContainer *n) {
        _cleanup_error_ Error why = ERROR_INIT;
        int r;

        r = unit_start_wait(k->engine->systemd, k->c->unit, k->properties, CONTAINER_CREATE_TIMEOUT_USEC, &why);
        if (r == -ECANCELED || r == -ETIME || r == -EEXIST) {
                error_move(k->error, &why);
                return error_prefix(k->error, r, "container %s was not created", k->c->id);
        }
        if (r < 0)
                return explain_failure(k, n, r, &why);
        KILL_POINT_OF("container-make.unit", k->c->id);
        if (k->console_fd >= 0) {
                r = accept_console(k);
                if (r < 0)
                        return r;
                KILL_POINT_OF("container-make.console", k->c->id);
        }
        /* Only now: what the runtime itself says to standard error is not for the container's log. */
        r = hand_over_streams(k);
        if (r < 0)
                return r;
        KILL_POINT_OF("container-make.streams", k->c->id);
        r = look_at_container(k, n);
        if (r < 0)
                return r;
        r = native_container_watch(n, k->error);
        if (r < 0)
                return r;
        native_container_mirror_limits(n, &k->resources);
        return resources_write_files(&k->resources, n->control_group, k->error);
}

static int create(Creation *k, NativeContainer *n, EngineContainerInfo *info) {
        const ImageConfig *image = k->c->image ? &k->c->image->config : NULL;
        const runtime_v1_ContainerConfig *config = k->c->config;
        int r;

        r = oci_stop_signal(config, image, &info->stop_signal, k->error);
        if (r < 0)
                return r;
        k->stop_signal = info->stop_signal;
        if (r >= 0)
                r = resources_parse(config->has_linux && config->linux.has_resources ? &config->linux.resources : NULL,
                                    &k->resources, k->error);
        if (r >= 0)
                r = pod_id_map(k->c->pod, &k->id_map, k->error);
        if (r >= 0)
                r = pod_namespaces_open(k->engine, k->c, &k->namespaces, k->error);
        if (r >= 0)
                r = find_control_group(k);
        if (r >= 0)
                r = make_root(k);
        if (r >= 0)
                r = make_streams(k);
        if (r >= 0)
                KILL_POINT_OF("container-make.root", k->c->id);
        if (r >= 0)
                r = describe_unit(k);
        if (r >= 0)
                r = start_unit(k, n);
        if (r < 0)
                return r;

        info->uid = k->user.uid;
        info->gid = k->user.gid;
        info->supplementary_groups = calloc(k->user.n_groups + 1, sizeof(int64_t));
        if (!info->supplementary_groups)
                return error_oom(k->error);
        for (size_t i = 0; i < k->user.n_groups; i++)
                info->supplementary_groups[i] = k->user.groups[i];
        info->n_supplementary_groups = k->user.n_groups;
        return 0;
}

/* Takes away all that was made, but, with a start error, the file that says so. */
static void undo(Engine *engine, const EngineContainer *c) {
        FIBER_SHIELDED_SCOPE;
        _cleanup_error_ Error error = ERROR_INIT;

        if (native_container_remove(engine, c, &error) < 0)
                log_debug("Container %s could not be undone: %s, ignoring", c->id, strempty(error.message));
}

/* A runtime that doesn't know an option of a mount must not be asked for it: some leave out what they don't know. */
static int check_features(Creation *k) {
        const runtime_v1_ContainerConfig *config = k->c->config;
        RuntimeFeatures f;
        int r;

        for (size_t i = 0; i < config->mounts_count; i++) {
                if (!config->mounts[i].recursive_read_only)
                        continue;
                r = runtime_features(k->runtime, &f, k->error);
                if (r < 0)
                        return r;
                if (!f.recursive_read_only)
                        return error_setf(k->error, GRPC_FAILED_PRECONDITION,
                                          "mount %s is to be recursively read-only, which %s or the kernel can't do",
                                          strempty(config->mounts[i].container_path), k->runtime->path);
                return 0;
        }
        return 0;
}

int native_container_create(Engine *engine, const EngineContainer *c, EngineContainerInfo *ret, Error *error) {
        NativeEngine *e = native_engine(engine);
        _cleanup_(engine_container_info_done) EngineContainerInfo info = { .uid = -1, .gid = -1 };
        _cleanup_(creation_done) Creation k = {
                .engine = e,
                .c = c,
                .error = error,
                .resources = RESOURCES_INIT,
                .namespaces = POD_NAMESPACES_INIT,
                .pipes = { { -1, -1 }, { -1, -1 }, { -1, -1 } },
                .console_fd = -1,
                .tty_fd = -1,
        };
        NativeContainer *n;
        int r;

        r = oci_config_check(c, error);
        if (r < 0)
                return r;
        r = native_handler_check(engine, c->pod->runtime_handler, error);
        if (r < 0)
                return r;
        k.runtime = native_runtime_find(e, c->pod->runtime_handler);
        r = check_features(&k);
        if (r < 0)
                return r;
        if (creation_init(&k) < 0)
                return error_oom(error);
        r = native_container_new(e, c, &n, error);
        if (r < 0)
                return r;
        _cleanup_(native_container_unrefp) _unused_ NativeContainer *held = native_container_ref(n);
        r = create(&k, n, &info);
        if (r < 0) {
                undo(engine, c);
                return r;
        }
        n->up = true;
        *ret = info;
        info = (EngineContainerInfo) {};
        return 0;
}
