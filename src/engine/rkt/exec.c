/* Commands in a container, by `rkt app exec`. It runs as root and without a terminal, whatever the app is, and its
 * command outlives it: so each gets a cgroup of its own below the app's, which is killed with the call. */

#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "engine/native/exec.h"
#include "engine/native/resources.h"
#include "engine/rkt/internal.h"

#define KILLED_TIMEOUT_USEC (10 * USEC_PER_SEC)
#define NO_APP 6 /* exit codes of rkt's `enter` */

int rkt_find_running(RktEngine *e, const EngineContainer *c, RktContainer **ret, Error *error) {
        RktContainer *n = rkt_container_find(e, c->id);

        if (!n || n->state.phase != ENGINE_CONTAINER_RUNNING || !n->pod->uuid)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s doesn't run", c->id);
        *ret = n;
        return 0;
}

/* Below the app's cgroup, and below the pod's unit when that isn't found. */
static int make_cgroup(RktContainer *n, ExecCgroup *g, Error *error) {
        const char *parent = rkt_container_find_cgroup(n);

        if (!parent)
                parent = n->pod->control_group;
        if (!parent)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s doesn't run: its cgroup is gone", n->id);
        g->parent_fd = cgroup_open(parent);
        if (g->parent_fd < 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s doesn't run: its cgroup is gone", n->id);
        do
                (void) snprintf(g->name, sizeof g->name, "exec-%u", n->n_execs++);
        while (mkdirat(g->parent_fd, g->name, 0755) < 0 && errno == EEXIST);
        g->fd = open_directory(g->parent_fd, g->name);
        if (g->fd < 0)
                return error_set(error, g->fd, "cannot make a cgroup below that of container %s", n->id);
        g->path = strprintf("%s/%s", parent, g->name);
        return g->path ? 0 : error_oom(error);
}

static int prepare(RktEngine *e, const EngineContainer *c, const char *const *argv, RktContainer **ret_container,
                   char ***ret_argv, Error *error) {
        _cleanup_strv_free_ char **l = NULL;
        int64_t uid, gid;
        int r;

        if (!argv || isempty(argv[0]))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "no command is given");
        r = rkt_find_running(e, c, ret_container, error);
        if (r < 0)
                return r;
        rkt_container_user(c, &uid, &gid);
        if (uid != 0)
                return rkt_refuse(RKT_LIMIT_EXEC_USER, error);
        r = rkt_argv_new(&e->rkt, "app", NULL, &l);
        if (r >= 0)
                r = strv_extend(&l, "exec");
        if (r >= 0)
                r = strv_extendf(&l, "--app=%s", c->id);
        if (r >= 0)
                r = strv_extend(&l, (*ret_container)->pod->uuid);
        for (const char *const *a = argv; *a && r >= 0; a++)
                r = strv_extend(&l, *a);
        if (r < 0)
                return error_oom(error);
        *ret_argv = TAKE_PTR(l);
        return 0;
}

/* Whether the words are rkt's own and not the command's: one line, in one of the forms that rkt has. */
static int check_words(int exit_code, const char *words, const char *command, Error *error) {
        _cleanup_free_ char *missing = strprintf("Error: Unable to open \"%s\":", command), *line = rkt_words(words);

        if (!missing || !line)
                return error_oom(error);
        if (exit_code == 1 && startswith(line, missing) && !strchr(line, ';'))
                return error_setf(error, GRPC_FAILED_PRECONDITION, "cannot execute the command: %s", line);
        if (exit_code == NO_APP && startswith(line, "Error: Unable to fopen \"/rkt/env/"))
                return error_setf(error, GRPC_NOT_FOUND, "cannot execute the command: rkt has no such app: %s", line);
        if (exit_code == RKT_EXIT_ERROR && (startswith(line, "exec: ") || startswith(line, "Error: ")))
                return rkt_error(&(RktResult) { .exit_code = exit_code, .error = (char *) words }, "execute the command",
                                 error);
        return 0;
}

static int exit_code_from(int code, int status) {
        return code == CLD_EXITED ? status : 128 + status;
}

int rkt_container_exec_sync(Engine *engine, const EngineContainer *c, const char *const *argv, uint64_t timeout_usec,
                            EngineExecResult *ret, Error *error) {
        _cleanup_(process_result_done) ProcessResult result = {};
        _cleanup_(exec_cgroup_done) ExecCgroup g = EXEC_CGROUP_INIT;
        _cleanup_strv_free_ char **command = NULL;
        RktContainer *n = NULL;
        int r;

        r = prepare(rkt_engine(engine), c, argv, &n, &command, error);
        if (r < 0)
                return r;
        _cleanup_(rkt_container_unrefp) _unused_ RktContainer *held = rkt_container_ref(n);
        r = make_cgroup(n, &g, error);
        if (r < 0)
                return r;
        r = process_run(&(ProcessOptions) {
                                .argv = (const char *const *) command,
                                .env = rkt_environment,
                                .host_mounts = true,
                                .output_max = ENGINE_EXEC_OUTPUT_MAX,
                                .error_max = ENGINE_EXEC_OUTPUT_MAX,
                                .cgroup_fd = g.fd,
                                .timeout_usec = timeout_usec,
                        },
                        &result, error);
        exec_cgroup_remove(&g, r < 0);
        if (r < 0)
                return exec_failed(r, timeout_usec, error);
        if (result.output_size == 0) {
                r = check_words(exit_code_from(result.code, result.status), strempty(result.error), argv[0], error);
                if (r < 0)
                        return r;
        }
        *ret = exec_take_result(&result);
        return 0;
}

/* --- with somebody at its streams -------------------------------------------------------------------------------- */

enum { STDIN, STDOUT, STDERR, _STREAM_MAX };

typedef struct Exec {
        ExecCgroup cgroup;
        int child[_STREAM_MAX];
        EnginePipes pipes;
        int pidfd;
} Exec;

static void exec_done(Exec *x) {
        exec_cgroup_done(&x->cgroup);
        for (size_t i = 0; i < _STREAM_MAX; i++)
                (void) safe_close(x->child[i]);
        (void) safe_close(x->pipes.in);
        (void) safe_close(x->pipes.out);
        (void) safe_close(x->pipes.err);
        (void) safe_close(x->pidfd);
}

static int make_pipe(Exec *x, int stream, int *ret_own) {
        int fds[2], own = stream == STDIN ? 1 : 0;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        *ret_own = fds[own];
        x->child[stream] = fds[!own];
        return fd_set_nonblock(fds[own], true);
}

static int run(Exec *x, char *const *command, const EngineExec *exec, siginfo_t *ret, Error *error) {
        EnginePipes pipes;
        pid_t pid;
        int r;

        r = exec->in ? make_pipe(x, STDIN, &x->pipes.in) : 0;
        if (r >= 0 && exec->out)
                r = make_pipe(x, STDOUT, &x->pipes.out);
        if (r >= 0 && exec->err)
                r = make_pipe(x, STDERR, &x->pipes.err);
        if (r < 0)
                return error_set(error, r, "cannot make a pipe");
        r = process_spawn(&(ProcessOptions) {
                                  .argv = (const char *const *) command,
                                  .env = rkt_environment,
                                  .host_mounts = true,
                                  .stdin_fd = x->child[STDIN],
                                  .stdout_fd = x->child[STDOUT],
                                  .stderr_fd = x->child[STDERR],
                                  .cgroup_fd = x->cgroup.fd,
                          },
                          &pid, &x->pidfd, error);
        for (size_t i = 0; i < _STREAM_MAX; i++)
                x->child[i] = safe_close(x->child[i]);
        if (r < 0)
                return r;
        pipes = x->pipes;
        x->pipes = ENGINE_PIPES_NONE;
        r = exec->started(&pipes, exec->userdata);
        if (r >= 0)
                r = fiber_wait_pidfd(x->pidfd, USEC_INFINITY, ret);
        if (r < 0) {
                FIBER_SHIELDED_SCOPE;

                /* It is not to outlive whoever wanted it. */
                (void) cgroup_kill(x->cgroup.path);
                (void) fiber_wait_pidfd(x->pidfd, KILLED_TIMEOUT_USEC, NULL);
                return error_set(error, r, "the command was given up");
        }
        return 0;
}

int rkt_container_exec(Engine *engine, const EngineContainer *c, const EngineExec *exec, int *ret_exit_code, Error *error) {
        _cleanup_(exec_done) Exec x = {
                .cgroup = EXEC_CGROUP_INIT,
                .child = { -1, -1, -1 },
                .pipes = ENGINE_PIPES_NONE,
                .pidfd = -1,
        };
        _cleanup_strv_free_ char **command = NULL;
        RktContainer *n = NULL;
        siginfo_t end = {};
        int r;

        if (exec->tty)
                return rkt_refuse(RKT_LIMIT_EXEC_TTY, error);
        r = prepare(rkt_engine(engine), c, exec->argv, &n, &command, error);
        if (r < 0)
                return r;
        _cleanup_(rkt_container_unrefp) _unused_ RktContainer *held = rkt_container_ref(n);
        r = make_cgroup(n, &x.cgroup, error);
        if (r < 0)
                return r;
        r = run(&x, command, exec, &end, error);
        exec_cgroup_remove(&x.cgroup, r < 0);
        if (r < 0)
                return r;
        *ret_exit_code = exit_code_from(end.si_code, end.si_status);
        return 0;
}
