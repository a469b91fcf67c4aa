#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "basic/fiber.h"
#include "basic/file-util.h"
#include "basic/process.h"
#include "basic/test.h"

static int count_one(int dir_fd, const char *name, void *userdata) {
        (*(int *) userdata)++;
        return 0;
}

static int open_descriptors(void) {
        int n = 0;

        CHECK_EQ(directory_foreach(AT_FDCWD, "/proc/self/fd", count_one, &n), 0);
        return n;
}

static void in_fiber(FiberFunc func, void *userdata) {
        int before = open_descriptors();
        sd_event *e;

        CHECK_EQ(sd_event_new(&e), 0);
        CHECK_EQ(fiber_run(e, func, userdata), 0);
        sd_event_unref(e);
        CHECK_EQ(open_descriptors(), before);
}

#define SH(script) ((const char *const[]) { "/bin/sh", "-c", (script), NULL })

static int output(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        _cleanup_error_ Error e = ERROR_INIT;
        ProcessOptions o = {
                .argv = SH("cat; echo err >&2; exit 3"),
                .input = "hello",
                .input_size = 5,
                .output_max = 100,
                .error_max = 100,
        };

        CHECK_EQ(process_run(&o, &r, &e), 0);
        CHECK_EQ(r.code, CLD_EXITED);
        CHECK_EQ(r.status, 3);
        CHECK_STREQ(r.output, "hello");
        CHECK_STREQ(r.error, "err\n");
        CHECK_STREQ(process_result_describe(&r), "exited with status 3");
        return 0;
}

static void test_input_output_and_status_come_through(void) {
        in_fiber(output, NULL);
}

static int bounded(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        ProcessOptions o = { .argv = SH("yes | head -c 3000000; yes | head -c 3000000 >&2"),
                             .output_max = 1000,
                             .error_max = 10 };

        CHECK_EQ(process_run(&o, &r, NULL), 0);
        CHECK_EQ(r.status, 0);
        CHECK_EQ(r.output_size, 1000);
        CHECK_EQ(r.error_size, 10);
        CHECK(r.output_truncated && r.error_truncated);
        return 0;
}

static void test_output_is_kept_up_to_its_bound_and_drained_beyond(void) {
        in_fiber(bounded, NULL);
}

static int timeout(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        _cleanup_error_ Error e = ERROR_INIT;
        ProcessOptions o = {
                .argv = SH("echo begun; sleep 100 & sleep 100"),
                .output_max = 100,
                .timeout_usec = 200 * USEC_PER_MSEC,
                .kill_group = true,
        };
        uint64_t t = now_usec(CLOCK_MONOTONIC);

        CHECK_EQ(process_run(&o, &r, &e), -ETIMEDOUT);
        CHECK_EQ(e.code, GRPC_DEADLINE_EXCEEDED);
        CHECK_STREQ(r.output, "begun\n");
        CHECK(now_usec(CLOCK_MONOTONIC) - t < 20 * USEC_PER_SEC);
        return 0;
}

static void test_a_timeout_kills_and_keeps_what_was_said(void) {
        in_fiber(timeout, NULL);
}

static int missing(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        _cleanup_error_ Error e = ERROR_INIT;
        ProcessOptions o = { .argv = (const char *const[]) { "/nonexistent/program", NULL } };

        CHECK_EQ(process_run(&o, &r, &e), -ENOENT);
        CHECK(strstr(e.message, "/nonexistent/program"));
        return 0;
}

static void test_a_program_that_is_not_there_is_an_error_with_its_name(void) {
        in_fiber(missing, NULL);
}

static int descriptors(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        int fds[2];

        CHECK_EQ(pipe(fds), 0); /* not close-on-exec on purpose */
        ProcessOptions o = {
                .argv = SH("ls /proc/self/fd | tr '\\n' ' '; echo there >&4"),
                .output_max = 100,
                .pass_fds = (const int[]) { fds[0], fds[1] },
                .n_pass_fds = 2,
        };
        char data[16] = "";

        CHECK_EQ(process_run(&o, &r, NULL), 0);
        /* 5 is ls's own. */
        CHECK_STREQ(r.output, "0 1 2 3 4 5 ");
        CHECK_EQ(read(fds[0], data, sizeof data), 6);
        (void) close(fds[0]);
        (void) close(fds[1]);
        return 0;
}

static void test_a_child_has_its_own_descriptors_only(void) {
        in_fiber(descriptors, NULL);
}

static int cancelled_child(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        ProcessOptions o = { .argv = SH("exec sleep 100") };

        CHECK_EQ(process_run(&o, &r, NULL), -ECANCELED);
        return 0;
}

static int canceller(void *userdata) {
        Fiber *f;

        CHECK_EQ(fiber_spawn(fiber_event(fiber_current()), "child", cancelled_child, NULL, NULL, &f), 0);
        CHECK_EQ(fiber_sleep(10 * USEC_PER_MSEC), 0);
        fiber_cancel(f);
        CHECK_EQ(fiber_join(f, NULL), 0);
        fiber_unref(f);
        CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1); /* nobody is left to be waited for */
        return 0;
}

static void test_cancellation_kills_and_reaps(void) {
        in_fiber(canceller, NULL);
}

static int patient_child(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        ProcessOptions o = {
                .argv = SH("sleep 0.1; echo done >&3"),
                .pass_fds = userdata,
                .n_pass_fds = 1,
                .cancel_grace_usec = 10 * USEC_PER_SEC,
        };

        CHECK_EQ(process_run(&o, &r, NULL), -ECANCELED);
        return 0;
}

static int impatient_canceller(void *userdata) {
        int fds[2];
        char text[8] = {};
        Fiber *f;

        CHECK_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
        CHECK_EQ(fiber_spawn(fiber_event(fiber_current()), "child", patient_child, &fds[1], NULL, &f), 0);
        CHECK_EQ(fiber_sleep(10 * USEC_PER_MSEC), 0);
        fiber_cancel(f);
        CHECK_EQ(fiber_join(f, NULL), 0);
        fiber_unref(f);
        CHECK_EQ(read(fds[0], text, sizeof text), 5);
        CHECK_STREQ(text, "done\n");
        (void) close(fds[0]);
        (void) close(fds[1]);
        return 0;
}

static void test_a_cancelled_child_may_finish_within_its_grace(void) {
        in_fiber(impatient_canceller, NULL);
}

static int limits(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        ProcessOptions o = { .argv = SH("ulimit -Sn; cat /proc/self/oom_score_adj"), .output_max = 100 };
        struct rlimit l;

        CHECK_EQ(process_run(&o, &r, NULL), 0);
        CHECK(strstr(r.output, "1024\n") == r.output);
        CHECK(!strchr(r.output, '-'));
        /* Ours is as it was. */
        CHECK_EQ(getrlimit(RLIMIT_NOFILE, &l), 0);
        CHECK(l.rlim_cur > 1024);
        return 0;
}

static void test_raised_limits_are_not_handed_down(void) {
        struct rlimit old, l;

        CHECK(getrlimit(RLIMIT_NOFILE, &old) >= 0);
        l = old;
        l.rlim_cur = l.rlim_max;
        CHECK(l.rlim_cur > 1024);
        CHECK(setrlimit(RLIMIT_NOFILE, &l) >= 0);
        in_fiber(limits, NULL);
        CHECK(setrlimit(RLIMIT_NOFILE, &old) >= 0);
}

/* Descriptors with holes between them, and given ones that stand where others have to go. */
static int shuffled(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        int fds[2], others[20], given[3];

        CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
        CHECK_EQ(dup2(fds[0], 40), 40);
        for (int i = 0; i < 20; i++) {
                others[i] = 41 + i * 2;
                CHECK_EQ(dup2(STDERR_FILENO, others[i]), others[i]);
        }
        /* The write end first, and both lower than where they end up being in each other's place. */
        given[0] = fds[1];
        given[1] = fds[0];
        given[2] = 40;
        ProcessOptions o = {
                .argv = SH("echo into >&3; read x <&5; echo $x; ls /proc/self/fd | tr '\\n' ' '"),
                .output_max = 100,
                .pass_fds = given,
                .n_pass_fds = 3,
        };

        CHECK_EQ(process_run(&o, &r, NULL), 0);
        CHECK_STREQ(r.output, "into\n0 1 2 3 4 5 6 ");
        for (int i = 0; i < 20; i++)
                (void) close(others[i]);
        (void) close(40);
        (void) close(fds[0]);
        (void) close(fds[1]);
        return 0;
}

static void test_descriptors_go_to_their_places_whatever_lies_between(void) {
        in_fiber(shuffled, NULL);
}

static int signals(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        ProcessOptions o = { .argv = SH("exec sed -n /^Sig[BIC]/p /proc/self/status"), .output_max = 1000 };
        sigset_t term, now;

        CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR && signal(SIGHUP, SIG_IGN) != SIG_ERR);
        (void) sigemptyset(&term);
        (void) sigaddset(&term, SIGTERM);
        CHECK_EQ(sigprocmask(SIG_BLOCK, &term, NULL), 0);
        CHECK_EQ(process_run(&o, &r, NULL), 0);
        CHECK_STREQ(r.output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n");
        /* Ours are as they were. */
        CHECK(signal(SIGPIPE, SIG_DFL) == SIG_IGN && signal(SIGHUP, SIG_DFL) == SIG_IGN);
        CHECK_EQ(sigprocmask(SIG_UNBLOCK, &term, &now), 0);
        CHECK_EQ(sigismember(&now, SIGTERM), 1);
        CHECK_EQ(sigismember(&now, SIGUSR1), 0);
        return 0;
}

static void test_a_child_has_the_default_signal_dispositions_and_none_blocked(void) {
        in_fiber(signals, NULL);
}

static int big_input(void *userdata) {
        enum { N = 3 * 1024 * 1024 };
        _cleanup_(process_result_done) ProcessResult r = {}, unread = {};
        _cleanup_free_ char *data = malloc(N);
        ProcessOptions o = { .argv = SH("cat"), .input = data, .input_size = N, .output_max = N + 1 };

        CHECK(data);
        for (int i = 0; i < N; i++)
                data[i] = (char) (i * 7);
        CHECK_EQ(process_run(&o, &r, NULL), 0);
        CHECK_EQ(r.output_size, N);
        CHECK(memcmp(r.output, data, N) == 0);
        CHECK(!r.output_truncated);

        o.argv = SH("exit 0");
        CHECK_EQ(process_run(&o, &unread, NULL), 0);
        CHECK_EQ(unread.status, 0);
        CHECK_STREQ(unread.output, "");
        return 0;
}

static void test_input_of_any_size_is_read_or_left(void) {
        in_fiber(big_input, NULL);
}

static int held_open(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        ProcessOptions o = { .argv = SH("sleep 5 & echo $!"), .output_max = 100 };
        uint64_t t = now_usec(CLOCK_MONOTONIC);
        pid_t pid;

        CHECK_EQ(process_run(&o, &r, NULL), 0);
        CHECK(now_usec(CLOCK_MONOTONIC) - t < 4 * USEC_PER_SEC);
        pid = atoi(r.output);
        CHECK(pid > 1);
        CHECK_EQ(kill(pid, SIGKILL), 0); /* it is there still: only a failed run takes its group along */
        CHECK_EQ(waitpid(pid, NULL, 0), pid);
        return 0;
}

static void test_a_grandchild_that_holds_the_pipe_open_is_not_waited_for(void) {
        CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
        in_fiber(held_open, NULL);
}

static int group(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        ProcessOptions o = {
                .argv = SH("sleep 100 & echo $!; wait"),
                .output_max = 100,
                .timeout_usec = 100 * USEC_PER_MSEC,
                .kill_group = true,
        };
        int status;
        pid_t pid;

        CHECK_EQ(process_run(&o, &r, NULL), -ETIMEDOUT);
        CHECK_EQ(r.code, CLD_KILLED);
        CHECK_STREQ(process_result_describe(&r), "was killed by signal 9 (KILL)");
        pid = atoi(r.output);
        CHECK(pid > 1);
        CHECK_EQ(waitpid(pid, &status, 0), pid); /* we are its reaper */
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        return 0;
}

static void test_a_timeout_kills_the_whole_group(void) {
        CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
        in_fiber(group, NULL);
}

static int past_deadline(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        _cleanup_error_ Error e = ERROR_INIT;
        ProcessOptions o = { .argv = SH("exec sleep 100") };

        CHECK_EQ(fiber_set_deadline(fiber_current(), now_usec(CLOCK_MONOTONIC) + 20 * USEC_PER_MSEC), 0);
        CHECK_EQ(process_run(&o, &r, &e), -ETIME);
        CHECK_EQ(e.code, GRPC_DEADLINE_EXCEEDED);
        CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
        /* None is started any more. */
        CHECK_EQ(process_run(&o, &r, NULL), -ETIME);
        return 0;
}

static void test_the_deadline_kills_and_reaps(void) {
        in_fiber(past_deadline, NULL);
}

static int failures(void *userdata) {
        _cleanup_close_ int no_cgroup = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        const struct {
                ProcessOptions options;
                int error;
                const char *words;
        } cases[] = {
                { { .argv = (const char *const[]){ "/etc/passwd", NULL } }, -EACCES, "cannot execute /etc/passwd" },
                { { .argv = SH("true"), .working_directory = "/nonexistent" },
                  -ENOENT,
                  "working directory of /bin/sh" },
                { { .argv = SH("true"), .cgroup_fd = no_cgroup }, -EBADF, "cannot start /bin/sh" },
                { { .argv = SH("true"), .pass_fds = (const int[]){ 999 }, .n_pass_fds = 1 },
                  -EBADF,
                  "descriptor to /bin/sh" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(process_result_done) ProcessResult r = {};
                _cleanup_error_ Error e = ERROR_INIT;

                CHECK_EQ(process_run(&cases[i].options, &r, &e), cases[i].error);
                if (!strstr(e.message, cases[i].words))
                        fprintf(stderr, "%s\n", e.message);
                CHECK(strstr(e.message, cases[i].words));
                CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
        }
        return 0;
}

static void test_each_step_that_fails_in_the_child_is_named(void) {
        in_fiber(failures, NULL);
}

static int spawned(void *userdata) {
        int fds[2], pidfd;
        char data[64] = "";
        siginfo_t si;
        pid_t pid;

        CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
        ProcessOptions o = {
                .argv = SH("pwd; echo $A; exit 4"),
                .env = (const char *const[]) { "A=b", NULL },
                .working_directory = "/usr",
                .stdout_fd = fds[1],
        };

        CHECK_EQ(process_spawn(&o, &pid, &pidfd, NULL), 0);
        CHECK(fcntl(pidfd, F_GETFD) & FD_CLOEXEC);
        CHECK_EQ(fiber_wait_pidfd(pidfd, USEC_INFINITY, &si), 0);
        CHECK_EQ(si.si_pid, pid);
        CHECK_EQ(si.si_status, 4);
        CHECK_EQ(read(fds[0], data, sizeof data - 1), 7);
        CHECK_STREQ(data, "/usr\nb\n");
        (void) close(pidfd);
        (void) close(fds[0]);
        (void) close(fds[1]);
        return 0;
}

static void test_a_spawned_child_is_waited_for_by_its_descriptor(void) {
        in_fiber(spawned, NULL);
}

static int one_of_many(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        ProcessOptions o = { .argv = SH("read x; sleep 0.05; echo $x"),
                             .output_max = 100,
                             .input = userdata,
                             .input_size = strlen(userdata) };

        CHECK_EQ(process_run(&o, &r, NULL), 0);
        CHECK_STREQ(r.output, userdata);
        return 0;
}

static int side_by_side(void *userdata) {
        enum { N = 30 };
        Fiber *fibers[N];
        char texts[N][16];

        for (int i = 0; i < N; i++) {
                (void) snprintf(texts[i], sizeof texts[i], "text %d\n", i);
                CHECK_EQ(fiber_spawn(fiber_event(fiber_current()), "child", one_of_many, texts[i], NULL, &fibers[i]),
                         0);
        }
        for (int i = 0; i < N; i++) {
                CHECK_EQ(fiber_join(fibers[i], NULL), 0);
                fiber_unref(fibers[i]);
        }
        return 0;
}

static void test_children_run_side_by_side(void) {
        in_fiber(side_by_side, NULL);
}

static int host_mounts(void *userdata) {
        for (int i = 0; i < 2; i++) {
                _cleanup_(process_result_done) ProcessResult r = {};
                _cleanup_error_ Error e = ERROR_INIT;
                ProcessOptions o = {
                        .argv = SH("readlink /proc/self/ns/mnt"),
                        .output_max = 100,
                        .error_max = 100,
                        .host_mounts = i == 1,
                };
                char host[64] = "";

                CHECK_EQ(process_run(&o, &r, &e), 0);
                CHECK(readlink("/proc/1/ns/mnt", host, sizeof host - 2) > 0);
                (void) strcat(host, "\n");
                CHECK_EQ(streq_ptr(r.output, host), i == 1);
        }
        return 0;
}

static void test_a_child_may_mount_for_the_host(void) {
        char host[64];

        if (readlink("/proc/1/ns/mnt", host, sizeof host) < 0 || unshare(CLONE_NEWNS) < 0) {
                TEST_SKIP("the host's mount namespace is not ours to enter");
                return;
        }
        in_fiber(host_mounts, NULL);
}

TEST_MAIN(TEST_CASE(test_input_output_and_status_come_through),
          TEST_CASE(test_output_is_kept_up_to_its_bound_and_drained_beyond),
          TEST_CASE(test_a_timeout_kills_and_keeps_what_was_said),
          TEST_CASE(test_a_program_that_is_not_there_is_an_error_with_its_name),
          TEST_CASE(test_a_child_has_its_own_descriptors_only), TEST_CASE(test_cancellation_kills_and_reaps),
          TEST_CASE(test_a_cancelled_child_may_finish_within_its_grace),
          TEST_CASE(test_raised_limits_are_not_handed_down),
          TEST_CASE(test_descriptors_go_to_their_places_whatever_lies_between),
          TEST_CASE(test_a_child_has_the_default_signal_dispositions_and_none_blocked),
          TEST_CASE(test_input_of_any_size_is_read_or_left),
          TEST_CASE(test_a_grandchild_that_holds_the_pipe_open_is_not_waited_for),
          TEST_CASE(test_a_timeout_kills_the_whole_group), TEST_CASE(test_the_deadline_kills_and_reaps),
          TEST_CASE(test_each_step_that_fails_in_the_child_is_named),
          TEST_CASE(test_a_spawned_child_is_waited_for_by_its_descriptor), TEST_CASE(test_children_run_side_by_side),
          TEST_CASE(test_a_child_may_mount_for_the_host))
