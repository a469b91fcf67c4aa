#include "basic/process.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "basic/file-util.h"
#include "basic/kill-point.h"

/* As vfork(2): the child borrows our memory and we stand still until it has executed the program, so that nothing
 * needs to be copied however large we are. It has a stack of its own, no signal handlers, and all signals blocked.
 * AddressSanitizer doesn't bear a stack it doesn't know; there and on other machines the child gets a copy. */
#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(__SANITIZE_ADDRESS__)
#define SHARE_MEMORY 1
#else
#define SHARE_MEMORY 0
#endif
#define CHILD_STACK_SIZE (32U * 1024U)

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
        const char *const *env;
        bool spared; /* our own OOM score is negative */
        int *fds; /* what shall become its descriptors 0, 1, 2, 3, …; the child writes into it */
        int n_fds;
} Child;

/* In memory that the child shares with us in any case. */
typedef struct ChildFailure {
        int error;
        const char *what;
} ChildFailure;
static ChildFailure *failure;

static _Noreturn void child_fail(const char *what) {
        failure->error = errno;
        failure->what = what;
        _exit(127);
}

/* What the daemon has for itself is not handed down, least of all into containers: a raised number of descriptors, and
 * being spared by the OOM killer. The child shares our memory, but neither limits nor score. */
static void child_reset_limits(const Child *c) {
        struct rlimit l;

        if (getrlimit(RLIMIT_NOFILE, &l) >= 0 && l.rlim_cur > PROCESS_NOFILE_SOFT) {
                l.rlim_cur = PROCESS_NOFILE_SOFT;
                (void) setrlimit(RLIMIT_NOFILE, &l);
        }
        if (c->spared || c->options->oom_score_adj) {
                const char *score = c->options->oom_score_adj ? c->options->oom_score_adj : "0";
                int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

                if (fd >= 0)
                        (void) !write(fd, score, strlen(score));
                (void) safe_close(fd);
        }
}

static _Noreturn void child_run(void *arg) {
        const struct sigaction default_action = { .sa_handler = SIG_DFL };
        Child *c = arg;
        const ProcessOptions *o = c->options;
        sigset_t none;

        /* Caught ones are reset by the clone, but what is ignored would stay so. The two that glibc keeps for itself
         * are refused. */
        for (int sig = 1; sig < _NSIG; sig++)
                if (sig != SIGKILL && sig != SIGSTOP)
                        (void) sigaction(sig, &default_action, NULL);
        child_reset_limits(c);
        if (o->host_mounts) {
                int fd = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);

                if (fd < 0 || setns(fd, CLONE_NEWNS) < 0)
                        child_fail("cannot enter the host's mount namespace for");
        }
        if (o->kill_group && setpgid(0, 0) < 0)
                child_fail("cannot make a process group for");
        if (chdir(o->working_directory ? o->working_directory : "/") < 0)
                child_fail("cannot change to the working directory of");

        /* First out of the way of each other, then to their places. */
        for (int i = 0; i < c->n_fds; i++)
                if (c->fds[i] < c->n_fds) {
                        c->fds[i] = fcntl(c->fds[i], F_DUPFD_CLOEXEC, c->n_fds);
                        if (c->fds[i] < 0)
                                child_fail("cannot hand a descriptor to");
                }
        for (int i = 0; i < c->n_fds; i++)
                if (dup2(c->fds[i], i) < 0)
                        child_fail("cannot hand a descriptor to");
        if (syscall(SYS_close_range, (unsigned) c->n_fds, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */) < 0)
                child_fail("cannot close our descriptors for");

        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        (void) execve(o->argv[0], (char *const *) o->argv, (char *const *) c->env);
        child_fail("cannot execute");
}

#if SHARE_MEMORY
long clone3_call(struct clone_args *args, size_t size, void (*func)(void *), void *arg); /* clone.S */
#endif

/* Returns when the child has executed its program or ended: the pid, or a negative errno. */
static pid_t clone_child(Child *c, int *ret_pidfd) {
        struct clone_args args = {
                .flags = CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND |
                         (c->options->cgroup_fd > 0 ? CLONE_INTO_CGROUP : 0),
                .pidfd = (uint64_t) (uintptr_t) ret_pidfd,
                .exit_signal = SIGCHLD,
                .cgroup = c->options->cgroup_fd > 0 ? (uint64_t) c->options->cgroup_fd : 0,
        };
#if SHARE_MEMORY
        static char stack[CHILD_STACK_SIZE] __attribute__((__aligned__(16)));

        args.flags |= CLONE_VM;
        args.stack = (uint64_t) (uintptr_t) stack;
        args.stack_size = sizeof stack;
        return (pid_t) clone3_call(&args, sizeof args, child_run, c);
#else
        pid_t pid = (pid_t) syscall(SYS_clone3, &args, sizeof args);

        if (pid == 0)
                child_run(c);
        return pid < 0 ? -errno : pid;
#endif
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

int process_spawn_with(const ProcessOptions *o, const int std[static 3], pid_t *ret_pid, int *ret_pidfd,
                       Error *error) {
        static const char *const default_env[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                                   NULL };
        _cleanup_free_ int *fds = calloc(3 + o->n_pass_fds, sizeof(int));
        Child child = {
                .options = o,
                .env = o->env ? o->env : default_env,
                .spared = is_spared(),
                .fds = fds,
                .n_fds = 3 + (int) o->n_pass_fds,
        };
        sigset_t all, old;
        int pidfd = -1;
        pid_t pid;

        if (!fds)
                return error_oom(error);
        for (int i = 0; i < 3; i++)
                fds[i] = std[i];
        for (size_t i = 0; i < o->n_pass_fds; i++)
                fds[3 + i] = o->pass_fds[i];
        if (!failure) {
                void *p = mmap(NULL, sizeof(ChildFailure), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

                if (p == MAP_FAILED)
                        return error_oom(error);
                failure = p;
        }
        *failure = (ChildFailure) {};

        (void) sigfillset(&all);
        (void) sigprocmask(SIG_BLOCK, &all, &old);
        pid = clone_child(&child, &pidfd);
        (void) sigprocmask(SIG_SETMASK, &old, NULL);
        if (pid < 0)
                return error_set(error, pid, "cannot start %s", o->argv[0]);
        if (failure->error > 0) {
                int r = -failure->error;

                (void) waitid(P_PIDFD, (id_t) pidfd, &(siginfo_t) {}, WEXITED);
                (void) close(pidfd);
                return error_set(error, r, "%s %s", failure->what, o->argv[0]);
        }
        KILL_POINT_OF("process.started", o->argv[0]);
        *ret_pid = pid;
        *ret_pidfd = pidfd;
        return 0;
}

int process_spawn(const ProcessOptions *o, pid_t *ret_pid, int *ret_pidfd, Error *error) {
        _cleanup_close_ int null_fd = -1;
        int std[3] = { o->stdin_fd, o->stdout_fd, o->stderr_fd };

        for (int i = 0; i < 3; i++) {
                if (std[i] > 0)
                        continue;
                if (null_fd < 0) {
                        null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
                        if (null_fd < 0)
                                return error_set(error, -errno, "cannot open /dev/null");
                }
                std[i] = null_fd;
        }
        return process_spawn_with(o, std, ret_pid, ret_pidfd, error);
}
