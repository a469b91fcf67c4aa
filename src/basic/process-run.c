/* A child from its start to its end, with what it says, while the loop goes on. */

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "basic/fiber.h"
#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "basic/process.h"

#define READ_SIZE (64U * 1024U) /* what a pipe holds */
#define KILL_WAIT_USEC (10 * USEC_PER_SEC) /* a killed child that doesn't go hangs in the kernel */

void process_result_done(ProcessResult *r) {
        free(r->output);
        free(r->error);
        *r = (ProcessResult) {};
}

/* One of the child's outputs while it runs. */
typedef struct Stream {
        sd_event_source *source;
        int fd;
        char *data;
        size_t size, allocated, max;
        bool truncated;
        struct Run *run;
} Stream;

typedef struct Run {
        const ProcessOptions *options;
        Fiber *fiber;
        Stream streams[2]; /* standard output, standard error */
        sd_event_source *exit_source;
        pid_t pid;
        int pidfd;
        bool exited, reaped;
} Run;

static void stream_close(Stream *s) {
        s->source = sd_event_source_disable_unref(s->source);
        s->fd = safe_close(s->fd);
}

static int on_late_exit(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        (void) waitid(P_PIDFD, (id_t) fd, &(siginfo_t) {}, WEXITED);
        (void) sd_event_source_set_floating(source, false);
        sd_event_source_disable_unref(source);
        return 0;
}

/* A child that didn't even go by SIGKILL is left to the loop, which reaps it when the kernel lets go of it. */
static void reap_later(Run *run) {
        sd_event_source *s = NULL;

        if (sd_event_add_io(fiber_event(run->fiber), &s, run->pidfd, EPOLLIN, on_late_exit, NULL) < 0)
                return;
        if (sd_event_source_set_io_fd_own(s, true) >= 0 && sd_event_source_set_floating(s, true) >= 0)
                run->pidfd = -1;
        sd_event_source_unref(s);
}

static void run_done(Run *run) {
        for (size_t i = 0; i < ELEMENTSOF(run->streams); i++) {
                stream_close(&run->streams[i]);
                free(run->streams[i].data);
        }
        run->exit_source = sd_event_source_disable_unref(run->exit_source);
        if (run->pidfd >= 0 && !run->reaped)
                reap_later(run);
        run->pidfd = safe_close(run->pidfd);
}

/* Keeps what fits and drops the rest, so that the child never blocks on a full pipe. */
static void stream_keep(Stream *s, const char *data, size_t n) {
        size_t keep = MIN(n, s->max - s->size);

        if (s->size + keep + 1 > s->allocated) {
                size_t want = MIN(MAX(s->allocated * 2, s->size + keep + 1), s->max + 1);
                char *p = realloc(s->data, want);

                if (p) {
                        s->data = p;
                        s->allocated = want;
                } else
                        keep = 0;
        }
        if (keep < n)
                s->truncated = true;
        if (keep == 0)
                return;
        memcpy(s->data + s->size, data, keep);
        s->size += keep;
        s->data[s->size] = 0;
}

/* 1: something came, 0: end of file, -EAGAIN: nothing now. */
static int stream_read(Stream *s) {
        static char buffer[READ_SIZE]; /* too large for a fiber's stack */
        ssize_t n;

        n = read(s->fd, buffer, sizeof buffer);
        if (n < 0)
                return errno == EINTR ? -EAGAIN : -errno;
        if (n == 0)
                return 0;
        stream_keep(s, buffer, (size_t) n);
        return 1;
}

static void run_kill(Run *run) {
        /* Before the child is reaped its number, and so that of its group, is nobody else's. */
        if (run->options->kill_group)
                (void) kill(-run->pid, SIGKILL);
        (void) syscall(SYS_pidfd_send_signal, run->pidfd, SIGKILL, NULL, 0U);
}

static int on_stream(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        Stream *s = userdata;
        int r;

        r = stream_read(s);
        if (s->truncated && s == &s->run->streams[0] && s->run->options->kill_on_overflow)
                run_kill(s->run);
        if (r <= 0 && r != -EAGAIN)
                stream_close(s);
        return 0;
}

static int on_exit_of_child(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        Run *run = userdata;

        run->exited = true;
        (void) sd_event_source_set_enabled(source, SD_EVENT_OFF);
        fiber_wake(run->fiber, 0);
        fiber_run_ready();
        return 0;
}

/* The whole input as a file: it can't block, and nobody gets SIGPIPE when the child doesn't read it. */
static int input_new(const void *data, size_t size, int *ret) {
        _cleanup_close_ int fd = -1;
        int r;

        fd = memfd_create("input", MFD_CLOEXEC | 8U /* MFD_NOEXEC_SEAL */);
        if (fd < 0 && errno == EINVAL)
                fd = memfd_create("input", MFD_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = write_all(fd, data, size);
        if (r < 0)
                return r;
        if (lseek(fd, 0, SEEK_SET) < 0)
                return -errno;
        *ret = TAKE_FD(fd);
        return 0;
}

static int stream_open(Run *run, Stream *s, size_t max, int *ret_child_fd) {
        int fds[2], r;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        s->fd = fds[0];
        s->max = max;
        s->run = run;
        *ret_child_fd = fds[1];
        r = fd_set_nonblock(s->fd, true);
        if (r < 0)
                return r;
        return sd_event_add_io(fiber_event(run->fiber), &s->source, s->fd, EPOLLIN, on_stream, s);
}

/* Makes what the child gets as its standard descriptors, and starts it. */
static int run_start(Run *run, Error *error) {
        _cleanup_close_ int in = -1, out = -1, err = -1, null_fd = -1;
        const ProcessOptions *o = run->options;
        int r, std[3] = { o->stdin_fd, o->stdout_fd, o->stderr_fd };

        if (std[0] <= 0 && o->input) {
                r = input_new(o->input, o->input_size, &in);
                if (r < 0)
                        return error_set(error, r, "cannot prepare the input of %s", o->argv[0]);
                std[0] = in;
        }
        if (std[1] <= 0 && o->output_max > 0) {
                r = stream_open(run, &run->streams[0], o->output_max, &out);
                if (r < 0)
                        return error_set(error, r, "cannot make a pipe for %s", o->argv[0]);
                std[1] = out;
        }
        if (std[2] <= 0 && o->error_max > 0) {
                r = stream_open(run, &run->streams[1], o->error_max, &err);
                if (r < 0)
                        return error_set(error, r, "cannot make a pipe for %s", o->argv[0]);
                std[2] = err;
        }
        if (std[0] <= 0 || std[1] <= 0 || std[2] <= 0) {
                null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
                if (null_fd < 0)
                        return error_set(error, -errno, "cannot open /dev/null");
        }
        for (int i = 0; i < 3; i++)
                if (std[i] <= 0)
                        std[i] = null_fd;
        return process_spawn_with(o, std, &run->pid, &run->pidfd, error);
}

static int run_wait(Run *run, uint64_t timeout_usec) {
        uint64_t until = USEC_INFINITY;
        int r;

        if (timeout_usec > 0 && __builtin_add_overflow(now_usec(CLOCK_MONOTONIC), timeout_usec, &until))
                until = USEC_INFINITY;
        while (!run->exited) {
                r = fiber_pause_until(until);
                if (r < 0 && !run->exited)
                        return r;
        }
        return 0;
}

/* What is still in the pipes when the child is gone. Whoever inherited them may hold them open, and fill them, for
 * ever: no more is read than can be kept. */
static void run_drain(Run *run) {
        for (size_t i = 0; i < ELEMENTSOF(run->streams); i++)
                while (run->streams[i].fd >= 0 && !run->streams[i].truncated && stream_read(&run->streams[i]) > 0)
                        ;
}

static char *stream_take(Stream *s) {
        return s->data || s->max == 0 ? TAKE_PTR(s->data) : strdup("");
}

int process_run(const ProcessOptions *o, ProcessResult *ret, Error *error) {
        _cleanup_(run_done) Run run = {
                .options = o,
                .fiber = fiber_current(),
                .streams = { { .fd = -1 }, { .fd = -1 } },
                .pidfd = -1,
        };
        siginfo_t si = {};
        int r;

        if (!run.fiber)
                return error_set(error, -EDEADLK, "a child can be waited for in a fiber only");
        r = fiber_check();
        if (r < 0)
                return error_set(error, r, "%s was not started", o->argv[0]);
        r = run_start(&run, error);
        if (r < 0)
                return r;

        r = sd_event_add_io(fiber_event(run.fiber), &run.exit_source, run.pidfd, EPOLLIN, on_exit_of_child, &run);
        if (r >= 0)
                r = run_wait(&run, o->timeout_usec);
        if (r < 0) {
                FIBER_SHIELDED_SCOPE;

                if (r != -ETIMEDOUT && o->cancel_grace_usec > 0 && run.exit_source)
                        (void) run_wait(&run, o->cancel_grace_usec);
                run_kill(&run);
                if (run.exit_source)
                        (void) run_wait(&run, KILL_WAIT_USEC);
                run_kill(&run); /* those that were forked meanwhile */
        }
        if (run.exited) {
                run.reaped = true;
                if (waitid(P_PIDFD, (id_t) run.pidfd, &si, WEXITED) < 0 && r >= 0)
                        r = -errno;
        }
        run_drain(&run);
        KILL_POINT_OF("process.ended", o->argv[0]);

        if (r < 0 && r != -ETIMEDOUT)
                return error_set(error, r, "%s was ended before it was done", o->argv[0]);
        *ret = (ProcessResult) {
                .code = si.si_code,
                .status = si.si_status,
                .output = stream_take(&run.streams[0]),
                .error = stream_take(&run.streams[1]),
                .output_size = run.streams[0].size,
                .error_size = run.streams[1].size,
                .output_truncated = run.streams[0].truncated,
                .error_truncated = run.streams[1].truncated,
        };
        if ((run.streams[0].max > 0 && !ret->output) || (run.streams[1].max > 0 && !ret->error)) {
                process_result_done(ret);
                return error_oom(error);
        }
        if (r == -ETIMEDOUT)
                return error_set(error, r, "%s took longer than %llu ms and was killed", o->argv[0],
                                 (unsigned long long) (o->timeout_usec / USEC_PER_MSEC));
        return 0;
}
