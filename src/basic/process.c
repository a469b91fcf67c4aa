#include "basic/process.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "basic/fiber.h"
#include "basic/file-util.h"

#define READ_SIZE (16U * 1024U)
#define NOFILE_SOFT 1024U /* what programs expect: select(2) knows no larger descriptors */
#define KILL_WAIT_USEC (60 * USEC_PER_SEC) /* a killed child that doesn't go hangs in the kernel */

void process_result_done(ProcessResult *r) {
        free(r->output);
        free(r->error);
        *r = (ProcessResult) {};
}

const char *process_result_describe(const ProcessResult *r) {
        static char text[96];

        if (r->code == CLD_EXITED)
                (void) snprintf(text, sizeof text, "exited with status %d", r->status);
        else
                (void) snprintf(text, sizeof text, "was killed by signal %d (%s)", r->status,
                                strempty(sigabbrev_np(r->status)));
        return text;
}

/* What the child needs, made ready before the clone: there it only makes system calls. */
typedef struct Child {
        const ProcessOptions *options;
        int std[3];
        int error_fd; /* where the errno of a failed step goes; closed by a successful exec */
        const char *const *env;
        bool spared;  /* our own OOM score is negative */
        int keep_base; /* descriptors are first moved above this number, so that they don't overwrite each other */
} Child;

static _Noreturn void child_fail(const Child *c, int error) {
        (void) !write(c->error_fd, &error, sizeof error);
        _exit(127);
}

/* What the daemon has for itself is not handed down, least of all into containers: a raised number of descriptors, and
 * being spared by the OOM killer. */
static void child_reset_limits(const Child *c) {
        struct rlimit l;

        if (getrlimit(RLIMIT_NOFILE, &l) >= 0 && l.rlim_cur > NOFILE_SOFT) {
                l.rlim_cur = NOFILE_SOFT;
                (void) setrlimit(RLIMIT_NOFILE, &l);
        }
        if (c->spared) {
                int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

                if (fd >= 0)
                        (void) !write(fd, "0", 1);
                (void) safe_close(fd);
        }
}

static _Noreturn void child_run(Child *c) {
        const ProcessOptions *o = c->options;
        int n_keep = 3 + (int) o->n_pass_fds, error_fd;
        sigset_t none;

        for (int sig = 1; sig < _NSIG; sig++)
                if (sig != SIGKILL && sig != SIGSTOP)
                        (void) signal(sig, SIG_DFL);
        child_reset_limits(c);
        if (o->kill_group && setpgid(0, 0) < 0)
                child_fail(c, errno);
        if (chdir(o->working_directory ? o->working_directory : "/") < 0)
                child_fail(c, errno);

        error_fd = fcntl(c->error_fd, F_DUPFD_CLOEXEC, c->keep_base + n_keep);
        if (error_fd < 0)
                child_fail(c, errno);
        for (int i = 0; i < n_keep; i++)
                if (fcntl(i < 3 ? c->std[i] : o->pass_fds[i - 3], F_DUPFD_CLOEXEC, c->keep_base) < 0)
                        child_fail(c, errno);
        c->error_fd = error_fd;
        /* F_DUPFD took the lowest free numbers from keep_base on, in order: nothing else is open up there. */
        for (int i = 0; i < n_keep; i++)
                if (dup2(c->keep_base + i, i) < 0)
                        child_fail(c, errno);
        /* Close-on-exec rather than closed: the pipe must live until the exec. */
        (void) syscall(SYS_close_range, (unsigned) n_keep, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */);
        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        (void) execve(o->argv[0], (char *const *) o->argv, (char *const *) c->env);
        child_fail(c, errno);
}

/* Without CLONE_VM: the child has a copy of the (small) address space, so nothing it does reaches us. */
static pid_t clone_child(int cgroup_fd, int *ret_pidfd) {
        struct clone_args args = {
                .flags = CLONE_PIDFD | (cgroup_fd > 0 ? CLONE_INTO_CGROUP : 0),
                .pidfd = (uint64_t) (uintptr_t) ret_pidfd,
                .exit_signal = SIGCHLD,
                .cgroup = cgroup_fd > 0 ? (uint64_t) cgroup_fd : 0,
        };

        return (pid_t) syscall(SYS_clone3, &args, sizeof args);
}

/* Set once, by systemd, before the process begins. */
static bool is_spared(void) {
        static int cached = -1;

        if (cached < 0) {
                _cleanup_free_ char *text = NULL;

                cached = read_file(AT_FDCWD, "/proc/self/oom_score_adj", 64, &text, NULL) >= 0 && text[0] == '-';
        }
        return cached;
}

static int spawn(const ProcessOptions *o, const int std[3], pid_t *ret_pid, int *ret_pidfd, Error *error) {
        static const char *const default_env[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };
        _cleanup_close_ int error_read = -1, error_write = -1;
        Child child = { .options = o, .env = o->env ? o->env : default_env, .spared = is_spared() };
        int pipe_fds[2], pidfd = -1, child_errno = 0, highest = 0, n;
        sigset_t all, old;
        pid_t pid;

        if (pipe2(pipe_fds, O_CLOEXEC) < 0)
                return error_set(error, -errno, "cannot make a pipe");
        error_read = pipe_fds[0];
        error_write = pipe_fds[1];
        child.error_fd = error_write;
        for (int i = 0; i < 3; i++) {
                child.std[i] = std[i];
                highest = MAX(highest, std[i]);
        }
        for (size_t i = 0; i < o->n_pass_fds; i++)
                highest = MAX(highest, o->pass_fds[i]);
        /* Anything may be open between; the child looks for free numbers only above all that is open. */
        n = fcntl(error_write, F_DUPFD_CLOEXEC, MAX(highest, error_write) + 1);
        if (n < 0)
                return error_set(error, -errno, "cannot duplicate a descriptor");
        child.keep_base = n;
        (void) close(n);

        /* A signal must not run a handler of ours in the child. */
        (void) sigfillset(&all);
        (void) sigprocmask(SIG_BLOCK, &all, &old);
        pid = clone_child(o->cgroup_fd, &pidfd);
        if (pid == 0)
                child_run(&child);
        n = errno;
        (void) sigprocmask(SIG_SETMASK, &old, NULL);
        if (pid < 0)
                return error_set(error, -n, "cannot start %s", o->argv[0]);

        error_write = safe_close(error_write);
        do
                n = (int) read(error_read, &child_errno, sizeof child_errno);
        while (n < 0 && errno == EINTR);
        if (n == sizeof child_errno && child_errno > 0) {
                siginfo_t si;

                (void) waitid(P_PIDFD, (id_t) pidfd, &si, WEXITED);
                (void) close(pidfd);
                return error_set(error, -child_errno, "cannot execute %s", o->argv[0]);
        }
        *ret_pid = pid;
        *ret_pidfd = pidfd;
        return 0;
}

static int open_null(int flags) {
        int fd = open("/dev/null", flags | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
}

int process_spawn(const ProcessOptions *o, pid_t *ret_pid, int *ret_pidfd, Error *error) {
        _cleanup_close_ int null_fd = -1;
        int std[3] = { o->stdin_fd, o->stdout_fd, o->stderr_fd };

        for (int i = 0; i < 3; i++) {
                if (std[i] > 0)
                        continue;
                if (null_fd < 0) {
                        null_fd = open_null(O_RDWR);
                        if (null_fd < 0)
                                return error_set(error, null_fd, "cannot open /dev/null");
                }
                std[i] = null_fd;
        }
        return spawn(o, std, ret_pid, ret_pidfd, error);
}

/* One of the child's streams while it runs. */
typedef struct Stream {
        sd_event_source *source;
        int fd;
        bool is_input;
        const char *input;
        size_t input_left;
        char *data;
        size_t size, allocated, max;
        bool truncated;
        struct Run *run;
} Stream;

typedef struct Run {
        Fiber *fiber;
        Stream streams[3];
        sd_event_source *exit_source;
        bool exited;
} Run;

static void stream_close(Stream *s) {
        s->source = sd_event_source_disable_unref(s->source);
        s->fd = safe_close(s->fd);
}

static void run_done(Run *run) {
        for (size_t i = 0; i < ELEMENTSOF(run->streams); i++) {
                stream_close(&run->streams[i]);
                free(run->streams[i].data);
        }
        run->exit_source = sd_event_source_disable_unref(run->exit_source);
}

/* Keeps what fits and drops the rest, so that the child never blocks on a full pipe. */
static int stream_keep(Stream *s, const char *data, size_t n) {
        size_t keep = MIN(n, s->max - s->size);

        if (keep < n)
                s->truncated = true;
        if (keep == 0)
                return 0;
        if (s->size + keep + 1 > s->allocated) {
                size_t want = MIN(MAX(s->allocated * 2, s->size + keep + 1), s->max + 1);
                char *p = realloc(s->data, want);

                if (!p)
                        return -ENOMEM;
                s->data = p;
                s->allocated = want;
        }
        memcpy(s->data + s->size, data, keep);
        s->size += keep;
        s->data[s->size] = 0;
        return 0;
}

/* 1: something came, 0: end of file, -EAGAIN: nothing now. */
static int stream_read(Stream *s) {
        char buffer[READ_SIZE];
        ssize_t n;

        n = read(s->fd, buffer, sizeof buffer);
        if (n < 0)
                return errno == EINTR ? -EAGAIN : -errno;
        if (n == 0)
                return 0;
        return stream_keep(s, buffer, (size_t) n) < 0 ? -ENOMEM : 1;
}

static void stream_write(Stream *s) {
        ssize_t n = s->input_left > 0 ? write(s->fd, s->input, s->input_left) : 0;

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n > 0) {
                s->input += n;
                s->input_left -= (size_t) n;
        }
        /* EPIPE: the child doesn't want it. */
        if (n < 0 || s->input_left == 0)
                stream_close(s);
}

static int on_stream(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        Stream *s = userdata;
        int r;

        if (s->is_input) {
                stream_write(s);
                return 0;
        }
        r = stream_read(s);
        if (r <= 0 && r != -EAGAIN)
                stream_close(s);
        return 0;
}

static int on_exit_of_child(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        Run *run = userdata;

        run->exited = true;
        (void) sd_event_source_set_enabled(source, SD_EVENT_OFF);
        fiber_wake(run->fiber, 0);
        return 0;
}

static int run_stream(Run *run, int i, const ProcessOptions *o, int *ret_child_fd, Error *error) {
        Stream *s = &run->streams[i];
        const int given[3] = { o->stdin_fd, o->stdout_fd, o->stderr_fd };
        int fds[2], r;

        s->run = run;
        s->fd = -1;
        s->is_input = i == 0;
        s->max = i == 1 ? o->output_max : i == 2 ? o->error_max : 0;
        if (given[i] > 0) {
                r = fcntl(given[i], F_DUPFD_CLOEXEC, 3);
                if (r < 0)
                        return error_set(error, -errno, "cannot duplicate a descriptor");
                *ret_child_fd = r;
                return 0;
        }
        if (s->is_input ? !o->input : s->max == 0) {
                r = open_null(O_RDWR);
                if (r < 0)
                        return error_set(error, r, "cannot open /dev/null");
                *ret_child_fd = r;
                return 0;
        }
        if (pipe2(fds, O_CLOEXEC) < 0)
                return error_set(error, -errno, "cannot make a pipe");
        s->fd = fds[s->is_input ? 1 : 0];
        *ret_child_fd = fds[s->is_input ? 0 : 1];
        s->input = o->input;
        s->input_left = o->input_size;
        r = fd_set_nonblock(s->fd, true);
        if (r >= 0)
                r = sd_event_add_io(fiber_event(run->fiber), &s->source, s->fd, s->is_input ? EPOLLOUT : EPOLLIN, on_stream, s);
        if (r < 0)
                return error_set(error, r, "cannot watch a pipe");
        return 0;
}

static void kill_child(const ProcessOptions *o, pid_t pid, int pidfd) {
        if (o->kill_group)
                (void) kill(-pid, SIGKILL);
        (void) syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0U);
}

/* What is still in the pipes when the child is gone. Whoever inherited them may hold them open for ever: only what is
 * there now is read. */
static void run_drain(Run *run) {
        for (int i = 1; i < 3; i++)
                if (run->streams[i].fd >= 0)
                        while (!run->streams[i].truncated && stream_read(&run->streams[i]) > 0)
                                ;
}

static int run_wait(Run *run, uint64_t timeout_usec) {
        uint64_t until = timeout_usec > 0 ? now_usec(CLOCK_MONOTONIC) + timeout_usec : USEC_INFINITY;
        int r;

        while (!run->exited) {
                r = fiber_suspend_until(until);
                if (r < 0)
                        return r;
        }
        return 0;
}

int process_run(const ProcessOptions *o, ProcessResult *ret, Error *error) {
        _cleanup_(run_done) Run run = { .fiber = fiber_current() };
        _cleanup_close_ int in = -1, out = -1, err = -1, pidfd = -1;
        siginfo_t si = {};
        pid_t pid;
        int r, *const child_fds[3] = { &in, &out, &err };

        for (size_t i = 0; i < ELEMENTSOF(run.streams); i++)
                run.streams[i].fd = -1;
        if (!run.fiber)
                return error_set(error, -EDEADLK, "a child can be waited for in a fiber only");
        r = fiber_check();
        if (r < 0)
                return error_set(error, r, "%s was not started", o->argv[0]);
        for (int i = 0; i < 3; i++) {
                r = run_stream(&run, i, o, child_fds[i], error);
                if (r < 0)
                        return r;
        }
        r = spawn(o, (const int[]) { in, out, err }, &pid, &pidfd, error);
        if (r < 0)
                return r;
        in = safe_close(in);
        out = safe_close(out);
        err = safe_close(err);

        r = sd_event_add_io(fiber_event(run.fiber), &run.exit_source, pidfd, EPOLLIN, on_exit_of_child, &run);
        if (r >= 0)
                r = run_wait(&run, o->timeout_usec);
        if (r < 0) {
                FIBER_SHIELDED_SCOPE;

                kill_child(o, pid, pidfd);
                (void) run_wait(&run, KILL_WAIT_USEC);
        }
        if (run.exited && waitid(P_PIDFD, (id_t) pidfd, &si, WEXITED) < 0 && r >= 0)
                r = -errno;
        if (o->kill_group && r < 0)
                (void) kill(-pid, SIGKILL);
        run_drain(&run);

        if (r < 0 && r != -ETIMEDOUT)
                return error_set(error, r, "%s was ended before it was done", o->argv[0]);
        *ret = (ProcessResult) {
                .code = si.si_code,
                .status = si.si_status,
                .output = TAKE_PTR(run.streams[1].data),
                .error = TAKE_PTR(run.streams[2].data),
                .output_size = run.streams[1].size,
                .error_size = run.streams[2].size,
                .output_truncated = run.streams[1].truncated,
                .error_truncated = run.streams[2].truncated,
        };
        if (o->output_max > 0 && !ret->output)
                ret->output = calloc(1, 1);
        if (o->error_max > 0 && !ret->error)
                ret->error = calloc(1, 1);
        if (r == -ETIMEDOUT)
                return error_set(error, r, "%s took longer than %llu ms and was killed", o->argv[0],
                                 (unsigned long long) (o->timeout_usec / USEC_PER_MSEC));
        return 0;
}
