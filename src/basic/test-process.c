#include <sys/resource.h>

#include "basic/fiber.h"
#include "basic/process.h"
#include "basic/test.h"

static void in_fiber(FiberFunc func, void *userdata) {
        sd_event *e;

        CHECK_EQ(sd_event_new(&e), 0);
        CHECK_EQ(fiber_run(e, func, userdata), 0);
        sd_event_unref(e);
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
        ProcessOptions o = { .argv = SH("yes | head -c 3000000; yes | head -c 3000000 >&2"), .output_max = 1000, .error_max = 10 };

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

static int limits(void *userdata) {
        _cleanup_(process_result_done) ProcessResult r = {};
        ProcessOptions o = { .argv = SH("ulimit -Sn; cat /proc/self/oom_score_adj"), .output_max = 100 };

        CHECK_EQ(process_run(&o, &r, NULL), 0);
        CHECK(strstr(r.output, "1024\n") == r.output);
        CHECK(!strchr(r.output, '-'));
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

TEST_MAIN(TEST_CASE(test_input_output_and_status_come_through),
          TEST_CASE(test_output_is_kept_up_to_its_bound_and_drained_beyond),
          TEST_CASE(test_a_timeout_kills_and_keeps_what_was_said),
          TEST_CASE(test_a_program_that_is_not_there_is_an_error_with_its_name),
          TEST_CASE(test_a_child_has_its_own_descriptors_only), TEST_CASE(test_cancellation_kills_and_reaps),
          TEST_CASE(test_raised_limits_are_not_handed_down))
