/* Exec: a command in a container whose standard streams somebody is at, over pipes or a terminal. */

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "basic/file-util.h"
#include "basic/process.h"
#include "engine/native/exec.h"

#define TERMINAL_TIMEOUT_USEC (30 * USEC_PER_SEC)
#define KILLED_TIMEOUT_USEC (10 * USEC_PER_SEC)

enum { STDIN, STDOUT, STDERR, _STREAM_MAX };

typedef struct Exec {
        NativeEngine *engine;
        const EngineContainer *c;
        const NativeContainer *container;
        const EngineExec *exec;
        Error *error;

        ExecCgroup cgroup;
        ExecProcess process;
        int log_fd;
        int child[_STREAM_MAX]; /* the command's ends */
        EnginePipes pipes;      /* ours */
        char *console;          /* path of the socket at which the runtime delivers the terminal */
        int console_fd;
        int pidfd;
} Exec;

static void exec_done(Exec *x) {
        exec_cgroup_done(&x->cgroup);
        exec_process_done(&x->process);
        (void) safe_close(x->log_fd);
        for (size_t i = 0; i < _STREAM_MAX; i++)
                (void) safe_close(x->child[i]);
        (void) safe_close(x->pipes.in);
        (void) safe_close(x->pipes.out);
        (void) safe_close(x->pipes.err);
        (void) safe_close(x->pipes.tty);
        if (x->console_fd >= 0)
                (void) unlink(x->console);
        (void) safe_close(x->console_fd);
        free(x->console);
        (void) safe_close(x->pidfd);
}

/* --- streams ----------------------------------------------------------------------------------------------------- */

/* The command's end belongs to its user, so that it can open /dev/stdout again; ours doesn't block. */
static int make_pipe(Exec *x, int stream, int *ret_own) {
        int fds[2], own = stream == STDIN ? 1 : 0;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return error_set(x->error, -errno, "cannot make a pipe");
        *ret_own = fds[own];
        x->child[stream] = fds[!own];
        if (fd_set_nonblock(fds[own], true) < 0 || fchown(fds[!own], x->process.uid, x->process.gid) < 0)
                return error_set(x->error, -errno, "cannot set up a pipe for user %u", x->process.uid);
        return 0;
}

static int listen_console(Exec *x) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_close_ int dir_fd = -1, fd = -1;

        x->console = strprintf("%s/%s.tty", x->c->run_directory, x->cgroup.name);
        if (!x->console)
                return error_oom(x->error);
        dir_fd = open_directory(AT_FDCWD, x->c->run_directory);
        if (dir_fd < 0)
                return error_set(x->error, dir_fd, "cannot open %s", x->c->run_directory);
        /* A socket's address has room for 107 bytes. */
        (void) snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s.tty", dir_fd, x->cgroup.name);
        (void) unlink(x->console);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof address) < 0 || listen(fd, 1) < 0)
                return error_set(x->error, -errno, "cannot listen for a terminal");
        x->console_fd = TAKE_FD(fd);
        return 0;
}

static int make_streams(Exec *x) {
        int r;

        if (x->exec->tty)
                return listen_console(x);
        r = x->exec->in ? make_pipe(x, STDIN, &x->pipes.in) : 0;
        if (r >= 0 && x->exec->out)
                r = make_pipe(x, STDOUT, &x->pipes.out);
        if (r >= 0 && x->exec->err)
                r = make_pipe(x, STDERR, &x->pipes.err);
        return r;
}

static int receive_terminal(int socket_fd) {
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(sizeof(int))];
        } control = {};
        char text[256];
        struct iovec iov = { text, sizeof text };
        struct msghdr m = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof control,
        };
        int fd, r;

        if (recvmsg(socket_fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) < 0)
                return -errno;
        if (m.msg_controllen < CMSG_LEN(sizeof(int)) || control.header.cmsg_level != SOL_SOCKET ||
            control.header.cmsg_type != SCM_RIGHTS)
                return -EBADMSG;
        memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
        r = fd_set_nonblock(fd, true);
        if (r < 0) {
                (void) safe_close(fd);
                return r;
        }
        return fd;
}

/* Waits until the socket can be read, or the runtime has ended: -ESRCH. */
static int wait_socket(Exec *x, int socket_fd) {
        _cleanup_close_ int set = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event event = { .events = EPOLLIN, .data.fd = socket_fd };
        struct epoll_event end = { .events = EPOLLIN, .data.fd = -1 };
        int r;

        if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, socket_fd, &event) < 0 ||
            epoll_ctl(set, EPOLL_CTL_ADD, x->pidfd, &end) < 0)
                return -errno;
        r = fiber_wait_fd(set, EPOLLIN, TERMINAL_TIMEOUT_USEC);
        if (r < 0)
                return r;
        r = epoll_wait(set, (struct epoll_event[2]) {}, 2, 0);
        if (r < 0)
                return -errno;
        (void) epoll_ctl(set, EPOLL_CTL_DEL, x->pidfd, NULL);
        return epoll_wait(set, &event, 1, 0) > 0 ? 0 : -ESRCH;
}

/* 0: there is none, since the runtime failed; the caller finds out why. */
static int take_terminal(Exec *x) {
        _cleanup_close_ int fd = -1;
        int r;

        r = wait_socket(x, x->console_fd);
        if (r == -ESRCH)
                return 0;
        if (r >= 0) {
                fd = accept4(x->console_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                r = fd < 0 ? -errno : wait_socket(x, fd);
        }
        if (r == -ESRCH)
                return 0;
        if (r >= 0)
                r = receive_terminal(fd);
        if (r < 0)
                return error_set(x->error, r, "the terminal of the command did not come");
        x->pipes.tty = r;
        return 0;
}

/* --- the command ------------------------------------------------------------------------------------------------- */

static int spawn(Exec *x) {
        const char *const direct_argv[] = { runtime_program(&x->engine->exec_program), NULL };
        _cleanup_strv_free_ char **argv = NULL;
        bool direct = x->process.pidfd >= 0;
        pid_t pid;
        int r;

        r = exec_arguments(x->engine, x->c, x->container, &x->cgroup, x->exec->tty ? x->console : NULL, &argv, x->error);
        if (r < 0)
                return r;
        r = process_spawn(&(ProcessOptions) {
                                  .argv = direct ? direct_argv : (const char *const *) argv,
                                  .stdin_fd = x->child[STDIN],
                                  .stdout_fd = x->child[STDOUT],
                                  .stderr_fd = x->child[STDERR],
                                  .oom_score_adj = native_container_oom_score_adj(x->container),
                                  .cgroup_fd = x->cgroup.fd,
                                  .pass_fds = (const int[]) { x->process.fd, x->log_fd, x->process.pidfd },
                                  .n_pass_fds = direct ? 3 : 2,
                          },
                          &pid, &x->pidfd, x->error);
        for (size_t i = 0; i < _STREAM_MAX; i++)
                x->child[i] = safe_close(x->child[i]);
        return r;
}

static int follow(Exec *x, siginfo_t *ret) {
        EnginePipes pipes;
        int r;

        if (x->exec->tty) {
                r = take_terminal(x);
                if (r < 0)
                        return r;
        }
        pipes = x->pipes;
        x->pipes = ENGINE_PIPES_NONE;
        r = x->exec->started(&pipes, x->exec->userdata);
        if (r < 0)
                return error_set(x->error, r, "cannot move the command's input and output");
        r = fiber_wait_pidfd(x->pidfd, USEC_INFINITY, ret);
        return r < 0 ? error_set(x->error, r, "the command was given up") : 0;
}

/* It is not to outlive whoever wanted it. */
static void kill_command(Exec *x) {
        FIBER_SHIELDED_SCOPE;

        (void) cgroup_kill(x->cgroup.path);
        (void) fiber_wait_pidfd(x->pidfd, KILLED_TIMEOUT_USEC, NULL);
}

static int run(Exec *x, siginfo_t *ret) {
        int r;

        r = make_streams(x);
        if (r < 0)
                return r;
        r = spawn(x);
        if (r < 0)
                return r;
        r = follow(x, ret);
        if (r < 0)
                kill_command(x);
        return r;
}

int native_container_exec(Engine *engine, const EngineContainer *c, const EngineExec *exec, int *ret_exit_code,
                          Error *error) {
        _cleanup_(exec_done) Exec x = {
                .engine = native_engine(engine),
                .c = c,
                .exec = exec,
                .error = error,
                .cgroup = EXEC_CGROUP_INIT,
                .process = EXEC_PROCESS_INIT,
                .log_fd = -1,
                .child = { -1, -1, -1 },
                .pipes = ENGINE_PIPES_NONE,
                .console_fd = -1,
                .pidfd = -1,
        };
        siginfo_t end = {};
        NativeContainer *n;
        int r;

        r = exec_find_container(x.engine, c, &n, error);
        if (r < 0)
                return r;
        _cleanup_(native_container_unrefp) _unused_ NativeContainer *held = native_container_ref(n);
        x.container = n;
        r = exec_process_make(x.engine, n, c, exec->argv, exec->tty, &x.process, error);
        if (r < 0)
                return r;
        x.log_fd = memfd_create("rktlet-exec-log", MFD_CLOEXEC);
        if (x.log_fd < 0)
                return error_set(error, -errno, "cannot make a file in memory");
        r = exec_cgroup_make(n, c, &x.cgroup, error);
        if (r < 0)
                return r;
        r = exec_cgroup_wait_thawed(n, &x.cgroup, /* timeout_usec= */ 0, error);
        if (r >= 0)
                r = run(&x, &end);
        exec_cgroup_remove(&x.cgroup, r < 0);
        if (r < 0)
                return r;
        r = exec_check_runtime(x.log_fd, exec->argv[0], error);
        if (r < 0)
                return r;
        *ret_exit_code = end.si_code == CLD_EXITED ? end.si_status : 128 + end.si_status;
        return 0;
}
