/* ExecSync: a command in a container, with its output caught. Each runs in a cgroup of its own below the container's,
 * so that its end can be made the end of all it started. */

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/process.h"
#include "engine/native/exec.h"
#include "engine/native/oci-config.h"
#include "engine/native/resources.h"

#define CONFIG_MAX (16U * 1024U * 1024U)
#define EXEC_PREFIX "rktlet-exec-" /* a container may make cgroups of its own, with names of its own */
#define MOVE_ROUNDS 16 /* a process that forks while it is moved is met in the next round */
#define EMPTY_TIMEOUT_USEC (2 * USEC_PER_SEC)

static unsigned process_user(const json_t *process, const char *key) {
        return (unsigned) json_integer_value(json_object_get(json_object_get(process, "user"), key));
}

/* Outside of the container's user namespace. */
static int map_user(const EngineContainer *c, const json_t *process, uid_t *ret_uid, gid_t *ret_gid, Error *error) {
        IdMap map;
        int r;

        r = pod_id_map(c->pod, &map, error);
        if (r < 0)
                return r;
        /* They are mapped: the container could not have been made otherwise. */
        (void) id_ranges_outside(&map.uids, process_user(process, "uid"), ret_uid);
        (void) id_ranges_outside(&map.gids, process_user(process, "gid"), ret_gid);
        return 0;
}

void exec_process_done(ExecProcess *p) {
        (void) safe_close(p->fd);
        (void) safe_close(p->pidfd);
}

static int make_file(const json_t *process, int *ret, Error *error) {
        _cleanup_free_ char *text = json_dumps(process, JSON_COMPACT);
        _cleanup_close_ int fd = -1;
        int r;

        if (!text)
                return error_oom(error);
        fd = memfd_create("rktlet-exec", MFD_CLOEXEC);
        if (fd < 0)
                return error_set(error, -errno, "cannot make a file in memory");
        r = write_all(fd, text, strlen(text));
        if (r < 0)
                return error_set(error, r, "cannot write a file in memory");
        *ret = TAKE_FD(fd);
        return 0;
}

static const struct {
        int resource;
        const char *name;
} rlimits[] = {
        { RLIMIT_AS, "RLIMIT_AS" },           { RLIMIT_CORE, "RLIMIT_CORE" },         { RLIMIT_CPU, "RLIMIT_CPU" },
        { RLIMIT_DATA, "RLIMIT_DATA" },       { RLIMIT_FSIZE, "RLIMIT_FSIZE" },       { RLIMIT_LOCKS, "RLIMIT_LOCKS" },
        { RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK" }, { RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE" }, { RLIMIT_NICE, "RLIMIT_NICE" },
        { RLIMIT_NOFILE, "RLIMIT_NOFILE" },   { RLIMIT_NPROC, "RLIMIT_NPROC" },       { RLIMIT_RSS, "RLIMIT_RSS" },
        { RLIMIT_RTPRIO, "RLIMIT_RTPRIO" },   { RLIMIT_RTTIME, "RLIMIT_RTTIME" },     { RLIMIT_STACK, "RLIMIT_STACK" },
        { RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING" },
};

/* The command is the daemon's child; where the container's unit has other limits, they are the command's, too. Those
 * above ours can't be had without CAP_SYS_RESOURCE. */
static int add_limits(NativeEngine *e, const NativeContainer *n, pid_t pid, json_t *process, Error *error) {
        const bool may_raise = e->capabilities & (UINT64_C(1) << CAP_SYS_RESOURCE);
        _cleanup_json_ json_t *l = json_array();

        for (size_t i = 0; l && i < ELEMENTSOF(rlimits); i++) {
                struct rlimit ours, theirs;

                if (prlimit(0, rlimits[i].resource, NULL, &ours) < 0 ||
                    prlimit(pid, rlimits[i].resource, NULL, &theirs) < 0)
                        continue;
                if (rlimits[i].resource == RLIMIT_NOFILE)
                        ours.rlim_cur = MIN(ours.rlim_cur, (rlim_t) PROCESS_NOFILE_SOFT);
                if (!may_raise)
                        theirs.rlim_max = MIN(theirs.rlim_max, ours.rlim_max);
                theirs.rlim_cur = MIN(theirs.rlim_cur, theirs.rlim_max);
                /* (Go's runtime raises the limit of open files, see native-create.c.) */
                if (theirs.rlim_cur == ours.rlim_cur && theirs.rlim_max == ours.rlim_max &&
                    (n->runtime->type == NATIVE_RUNTIME_CRUN || rlimits[i].resource != RLIMIT_NOFILE))
                        continue;
                /* Infinity is 2^64 - 1 in the specification; JSON integers here end at 2^63 - 1, which is as good. */
                if (json_array_append_new(l, json_pack("{s:s, s:I, s:I}", "type", rlimits[i].name, "soft",
                                                       (json_int_t) MIN(theirs.rlim_cur, (rlim_t) INT64_MAX), "hard",
                                                       (json_int_t) MIN(theirs.rlim_max, (rlim_t) INT64_MAX))) < 0)
                        return error_oom(error);
        }
        if (!l || (json_array_size(l) > 0 && json_object_set(process, "rlimits", l) < 0))
                return error_oom(error);
        return 0;
}

int exec_process_make(NativeEngine *e, const NativeContainer *n, const EngineContainer *c, const char *const *argv,
                      bool terminal, ExecProcess *ret, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/config.json", c->run_directory), *text = NULL;
        _cleanup_json_ json_t *config = NULL, *args = json_array();
        ExecProcess p = EXEC_PROCESS_INIT;
        json_t *process, *old;
        size_t size;
        int r;

        if (!path || !args)
                return error_oom(error);
        r = read_file(AT_FDCWD, path, CONFIG_MAX, &text, &size);
        if (r < 0)
                return error_set(error, r, "cannot read %s", path);
        r = json_parse(text, size, &config, error);
        if (r < 0)
                return error_prefix(error, r, "cannot understand %s", path);
        process = json_get_object(config, "process");
        old = json_get_array(process, "args");
        if (streq_ptr(json_string_value(json_array_get(old, 0)), OCI_HELPER_PATH))
                for (size_t i = 0; i < OCI_HELPER_ARGUMENTS; i++)
                        if (json_array_append(args, json_array_get(old, i)) < 0)
                                return error_oom(error);
        for (size_t i = 0; argv[i]; i++) {
                if (!utf8_is_valid(argv[i], strlen(argv[i])))
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "an argument of the command is not UTF-8");
                if (json_array_append_new(args, json_string(argv[i])) < 0)
                        return error_oom(error);
        }
        if (!process || json_object_set(process, "args", args) < 0 ||
            json_object_set_new(process, "terminal", json_boolean(terminal)) < 0)
                return error_oom(error);
        r = add_limits(e, n, n->state.pid, process, error);
        if (r >= 0)
                r = map_user(c, process, &p.uid, &p.gid, error);
        if (r < 0)
                return r;
        r = exec_direct(e, n, config, process, &p.fd, &p.pidfd) ? 0 : make_file(process, &p.fd, error);
        if (r < 0)
                return r;
        *ret = p;
        return 0;
}

void exec_cgroup_done(ExecCgroup *g) {
        (void) safe_close(g->parent_fd);
        (void) safe_close(g->fd);
        free(g->path);
        if (g->pid_file)
                (void) unlink(g->pid_file);
        free(g->pid_file);
}

int exec_cgroup_make(NativeContainer *n, const EngineContainer *c, ExecCgroup *g, Error *error) {
        _cleanup_free_ char *group = native_container_process_group(n);

        g->parent_fd = cgroup_open(group);
        if (g->parent_fd < 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s doesn't run: its cgroup is gone",
                                  n->id);
        do
                /* Some may be left of an earlier life of the daemon. */
                (void) snprintf(g->name, sizeof g->name, EXEC_PREFIX "%u", n->n_execs++);
        while (mkdirat(g->parent_fd, g->name, 0755) < 0 && errno == EEXIST);
        g->fd = open_directory(g->parent_fd, g->name);
        if (g->fd < 0)
                return error_set(error, g->fd, "cannot make a cgroup below that of container %s", n->id);
        g->path = strprintf("%s/%s", group, g->name);
        if (n->runtime->type != NATIVE_RUNTIME_CRUN)
                g->pid_file = strprintf("%s/%s.pid", c->run_directory, g->name);
        return g->path && (n->runtime->type == NATIVE_RUNTIME_CRUN || g->pid_file) ? 0 : error_oom(error);
}

int exec_cgroup_wait_thawed(const NativeContainer *n, const ExecCgroup *g, uint64_t timeout_usec, Error *error) {
        uint64_t until = timeout_usec > 0 ? now_usec(CLOCK_MONOTONIC) + timeout_usec : USEC_INFINITY;
        _cleanup_close_ int fd = openat(g->fd, "cgroup.events", O_RDONLY | O_CLOEXEC), pidfd = -1, set = -1;
        struct epoll_event changed = { .events = EPOLLPRI }, end = { .events = EPOLLIN };
        char text[256];
        ssize_t size;
        int r;

        /* An empty cgroup below one that is being frozen is frozen. */
        while ((size = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0)) >= 0) {
                uint64_t now = now_usec(CLOCK_MONOTONIC);

                text[size] = 0;
                if (!strstr(text, "frozen 1"))
                        return 0;
                if (set < 0) {
                        /* That the container ends is seen from its process: a cgroup's removal wakes nobody. */
                        pidfd = pidfd_open(n->state.pid, 0);
                        set = epoll_create1(EPOLL_CLOEXEC);
                        if (pidfd < 0 || set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, fd, &changed) < 0 ||
                            epoll_ctl(set, EPOLL_CTL_ADD, pidfd, &end) < 0)
                                break;
                }
                r = now < until ? fiber_wait_fd(set, EPOLLIN, until == USEC_INFINITY ? USEC_INFINITY : until - now)
                                : -ETIMEDOUT;
                if (r == -ETIMEDOUT)
                        return error_setf(error, GRPC_DEADLINE_EXCEEDED,
                                          "the container is frozen, and the command could not begin within %llu ms",
                                          (unsigned long long) (timeout_usec / USEC_PER_MSEC)),
                               -ETIMEDOUT;
                if (r < 0)
                        return error_set(error, r, "gave up waiting for the container, which is frozen");
                if (poll(&(struct pollfd) { .fd = pidfd, .events = POLLIN }, 1, 0) > 0)
                        break;
        }
        return error_setf(error, GRPC_FAILED_PRECONDITION, "the container has ended");
}

/* What the command left running in the background goes on in the container's own cgroup. */
static void move_to_parent(ExecCgroup *g) {
        for (int i = 0; i < MOVE_ROUNDS; i++) {
                _cleanup_close_ int to = openat(g->parent_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
                _cleanup_free_ char *text = NULL;

                if (to < 0 || read_file(g->fd, "cgroup.procs", CONFIG_MAX, &text, NULL) < 0 || !text[0])
                        return;
                for (char *line = text, *end; *line; line = end) {
                        end = line + strcspn(line, "\n");
                        if (*end)
                                *end++ = 0;
                        (void) !write(to, line, strlen(line));
                }
        }
}

void exec_cgroup_remove(ExecCgroup *g, bool kill) {
        FIBER_SHIELDED_SCOPE;

        if (kill && g->path)
                (void) cgroup_kill(g->path);
        if (unlinkat(g->parent_fd, g->name, AT_REMOVEDIR) >= 0 || errno != EBUSY)
                return;
        if (!kill)
                move_to_parent(g);
        (void) cgroup_wait_empty(g->path, EMPTY_TIMEOUT_USEC);
        if (unlinkat(g->parent_fd, g->name, AT_REMOVEDIR) < 0)
                log_debug_errno(-errno, "Cgroup %s is left until the container ends, ignoring", g->path);
}

static int note_leftover(int dir_fd, const char *name, void *userdata) {
        char ***left = userdata;

        if (!startswith(name, EXEC_PREFIX))
                return 0;
        return strv_extend(left, name);
}

typedef struct Leftovers {
        char *group;
        char **names;
} Leftovers;

static void leftovers_free(void *userdata) {
        Leftovers *l = userdata;

        free(l->group);
        strv_free(l->names);
        free(l);
}

/* The kernel gives a cgroup free when its last process has ended. */
static int remove_leftovers(void *userdata) {
        Leftovers *l = userdata;

        STRV_FOREACH(name, l->names) {
                ExecCgroup g = { .parent_fd = cgroup_open(l->group), .fd = -1 };

                if (g.parent_fd < 0)
                        break;
                (void) snprintf(g.name, sizeof g.name, "%s", *name);
                g.path = strprintf("%s/%s", l->group, *name);
                if (g.path)
                        exec_cgroup_remove(&g, /* kill= */ true);
                exec_cgroup_done(&g);
        }
        return 0;
}

void exec_end_leftovers(NativeContainer *n) {
        _cleanup_free_ char *group = native_container_process_group(n);
        _cleanup_close_ int dir_fd = cgroup_open(group);
        _cleanup_strv_free_ char **names = NULL;
        Leftovers *l;

        if (dir_fd < 0 || directory_foreach(dir_fd, ".", note_leftover, &names) < 0 || !names)
                return;
        log_info("Ending what an earlier run of the daemon executed in container %s", n->id);
        l = calloc(1, sizeof *l);
        if (!l)
                return;
        l->group = TAKE_PTR(group);
        l->names = TAKE_PTR(names);
        if (fiber_spawn(n->engine->event, "exec-leftovers", remove_leftovers, l, leftovers_free, NULL) < 0)
                leftovers_free(l);
}

/* crun is the command's parent until its end. runc, asked so, would stand between the command and its streams, and would
 * make no terminal at all; detached it makes the command and ends, and rktlet-create waits for that in its place. */
int exec_arguments(NativeEngine *e, const EngineContainer *c, const NativeContainer *n, const ExecCgroup *g,
                   const char *console, char ***ret, Error *error) {
        const char *const before[] = { e->create_path, "--wait", g->pid_file, "--" };
        const char *const detached[] = { "--detach", "--pid-file", g->pid_file, "--cgroup", g->name };
        const char *const rest[] = { "--process", "/proc/self/fd/3", console ? "--console-socket" : c->id, console,
                                     console ? c->id : NULL };
        _cleanup_strv_free_ char **l = NULL;
        int r = 0;

        for (size_t i = 0; g->pid_file && i < ELEMENTSOF(before) && r >= 0; i++)
                r = strv_extend(&l, before[i]);
        if (r >= 0)
                r = runtime_arguments(n->runtime, "/proc/self/fd/4", &l);
        if (r >= 0)
                r = strv_extend(&l, "exec");
        for (size_t i = 0; g->pid_file && i < ELEMENTSOF(detached) && r >= 0; i++)
                r = strv_extend(&l, detached[i]);
        for (size_t i = 0; i < ELEMENTSOF(rest) && r >= 0; i++)
                if (rest[i])
                        r = strv_extend(&l, rest[i]);
        if (r < 0)
                return error_oom(error);
        *ret = TAKE_PTR(l);
        return 0;
}

int exec_check_runtime(int log_fd, const char *command, Error *error) {
        _cleanup_free_ char *message = NULL, *text = NULL;
        char path[32];
        struct stat st;
        int r;

        if (fstat(log_fd, &st) < 0 || st.st_size == 0)
                return 0;
        (void) snprintf(path, sizeof path, "/proc/self/fd/%d", log_fd);
        message = runtime_log_message(AT_FDCWD, path);
        if (!message)
                return 0;
        r = runtime_error_is_exec(message, command, &text);
        if (r < 0)
                return error_oom(error);
        return error_setf(error, r > 0 ? GRPC_FAILED_PRECONDITION : GRPC_INTERNAL, "cannot execute the command: %s",
                          text ?: message);
}

int exec_failed(int r, uint64_t timeout_usec, Error *error) {
        if (r == -ETIMEDOUT && error) {
                error_clear(error);
                (void) error_setf(error, GRPC_DEADLINE_EXCEEDED, "the command did not end within %llu ms and was killed",
                                  (unsigned long long) (timeout_usec / USEC_PER_MSEC));
        }
        return r;
}

EngineExecResult exec_take_result(ProcessResult *result) {
        return (EngineExecResult) {
                .exit_code = result->code == CLD_EXITED ? result->status : 128 + result->status,
                .output = TAKE_PTR(result->output),
                .error = TAKE_PTR(result->error),
                .output_size = result->output_size,
                .error_size = result->error_size,
        };
}

int exec_find_container(NativeEngine *e, const EngineContainer *c, NativeContainer **ret, Error *error) {
        NativeContainer *n = native_container_find(e, c->id);

        if (!n || !n->started || n->exiting || !n->watch)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s doesn't run", c->id);
        *ret = n;
        return native_container_check_runtime(n, error);
}

int native_container_exec_sync(Engine *engine, const EngineContainer *c, const char *const *argv,
                               uint64_t timeout_usec, EngineExecResult *ret, Error *error) {
        NativeEngine *e = native_engine(engine);
        const char *const direct_argv[] = { runtime_program(&e->exec_program), NULL };
        _cleanup_strv_free_ char **runtime_argv = NULL;
        _cleanup_(process_result_done) ProcessResult result = {};
        _cleanup_(exec_cgroup_done) ExecCgroup g = EXEC_CGROUP_INIT;
        _cleanup_(exec_process_done) ExecProcess p = EXEC_PROCESS_INIT;
        _cleanup_close_ int log_fd = -1;
        NativeContainer *n = NULL;
        int r;

        if (!argv || !argv[0])
                return error_setf(error, GRPC_INVALID_ARGUMENT, "no command is given");
        r = exec_find_container(e, c, &n, error);
        if (r < 0)
                return r;
        _cleanup_(native_container_unrefp) _unused_ NativeContainer *held = native_container_ref(n);
        r = exec_process_make(e, n, c, argv, /* terminal= */ false, &p, error);
        if (r < 0)
                return r;
        log_fd = memfd_create("rktlet-exec-log", MFD_CLOEXEC);
        if (log_fd < 0)
                return error_set(error, -errno, "cannot make a file in memory");
        r = exec_cgroup_make(n, c, &g, error);
        if (r >= 0)
                r = exec_arguments(e, c, n, &g, /* console= */ NULL, &runtime_argv, error);
        if (r < 0)
                return r;
        r = exec_cgroup_wait_thawed(n, &g, timeout_usec, error);
        if (r < 0) {
                exec_cgroup_remove(&g, /* kill= */ true);
                return r;
        }
        r = process_run(&(ProcessOptions) {
                                .argv = p.pidfd >= 0 ? direct_argv : (const char *const *) runtime_argv,
                                .output_max = ENGINE_EXEC_OUTPUT_MAX,
                                .error_max = ENGINE_EXEC_OUTPUT_MAX,
                                .oom_score_adj = native_container_oom_score_adj(n),
                                .cgroup_fd = g.fd,
                                .pass_fds = (const int[]) { p.fd, log_fd, p.pidfd },
                                .n_pass_fds = p.pidfd >= 0 ? 3 : 2,
                                .timeout_usec = timeout_usec,
                        },
                        &result, error);
        exec_cgroup_remove(&g, r < 0);
        if (r < 0)
                return exec_failed(r, timeout_usec, error);
        r = exec_check_runtime(log_fd, argv[0], error);
        if (r < 0)
                return r;
        *ret = exec_take_result(&result);
        return 0;
}
