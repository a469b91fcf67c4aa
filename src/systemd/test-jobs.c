#include "basic/fiber.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "systemd/fake-systemd.h"
#include "systemd/internal.h"

/* Each test runs twice: over something like PID 1's private socket, and over a dbus-daemon. */
static bool over_bus;
static sd_event *event;
static FakeSystemd *fake;
static Systemd *systemd;
static UnitProperties *properties;

static bool setup(void) {
        CHECK(sd_event_new(&event) >= 0);
        fake = fake_systemd_new(event);
        CHECK_EQ(systemd_new(event, &systemd), 0);
        CHECK_EQ(systemd_set_addresses(systemd, over_bus ? fake->bus_address : NULL,
                                       over_bus ? NULL : fake->private_address), 0);
        CHECK_EQ(unit_properties_new(&properties), 0);
        CHECK_EQ(unit_properties_add_string(properties, "Description", "Pod a/b"), 0);
        if (!over_bus)
                fake_systemd_listen(fake);
        else if (!fake_systemd_start_daemon(fake))
                return false;
        else
                fake_systemd_join(fake);
        return true;
}

static void teardown(void) {
        properties = unit_properties_free(properties);
        systemd = systemd_free(systemd);
        fake = fake_systemd_free(fake);
        CHECK_EQ(fiber_count(), 0);
        event = sd_event_unref(event);
}

static void run(FiberFunc func) {
        for (int i = 0; i < 2; i++) {
                over_bus = i == 1;
                if (setup())
                        CHECK_EQ(fiber_run(event, func, NULL), 0);
                else
                        printf("# no dbus-daemon here\n");
                teardown();
        }
}

/* PID 1 re-executed: it comes back with all units. */
static int comes_back(void *userdata) {
        (void) fiber_sleep(50 * USEC_PER_MSEC);
        fake_systemd_join(fake);
        return 0;
}

/* On its private socket it listens all the time. */
static void come_back_later(void) {
        if (over_bus)
                CHECK_EQ(fiber_spawn(event, "comes back", comes_back, NULL, NULL, NULL), 0);
}

static int start(const char *unit, uint64_t timeout, Error *error) {
        return unit_start_wait(systemd, unit, properties, timeout, error);
}

static int start_body(void *userdata) {
        _cleanup_error_ Error e = ERROR_INIT;

        CHECK_EQ(start("a.service", 0, &e), 0);
        CHECK_STREQ(fake_systemd_unit(fake, "a.service")->active, "active");
        CHECK_STREQ(systemd_version(systemd), "252 (fake)");
        CHECK_EQ(fake->n_start, 1);
        /* One call and one signal are all it takes. */
        CHECK_EQ(fake->n_get_all + fake->n_list + fake->n_reset, 0);
        CHECK_EQ(fake->n_subscribe, over_bus ? 1 : 0);
        CHECK_EQ(start("a.service", 0, &e), -EEXIST);
        CHECK_EQ(e.code, GRPC_ALREADY_EXISTS);
        CHECK_STREQ(fake_systemd_unit(fake, "a.service")->active, "active");
        return 0;
}

static void a_start_takes_one_call(void) {
        run(start_body);
}

static int signal_first_body(void *userdata) {
        fake->signal_first = true;
        CHECK_EQ(start("a.service", 0, NULL), 0);
        CHECK_EQ(unit_stop_wait(systemd, "a.service", 0, NULL), 0);
        CHECK_EQ(fake->n_get_all, 0);
        CHECK_STREQ(fake_systemd_unit(fake, "a.service")->active, "inactive");
        return 0;
}

static void a_job_removed_before_the_reply_is_not_missed(void) {
        run(signal_first_body);
}

static int failed_body(void *userdata) {
        _cleanup_error_ Error e = ERROR_INIT;

        fake->job_result = "failed";
        CHECK_EQ(start("a.service", 0, &e), -EIO);
        CHECK_EQ(e.code, GRPC_INTERNAL);
        CHECK(strstr(e.message, "a.service") && strstr(e.message, "exit-code") && strstr(e.message, "203 (EXEC") &&
              strstr(e.message, "journalctl -u a.service"));
        CHECK(!fake_systemd_unit(fake, "a.service")->loaded);
        CHECK_EQ(fake->n_reset, 1);

        /* What its process said of it. */
        error_clear(&e);
        fake->status_text = "cannot listen";
        fake->status_errno = EADDRINUSE;
        CHECK_EQ(start("a.service", 0, &e), -EIO);
        CHECK(strstr(e.message, ": cannot listen; see"));
        error_clear(&e);
        fake->status_errno = ENOSPC;
        CHECK_EQ(start("a.service", 0, &e), -ENOSPC);
        CHECK_EQ(e.code, GRPC_RESOURCE_EXHAUSTED);

        error_clear(&e);
        fake->job_result = "dependency";
        CHECK_EQ(start("b.service", 0, &e), -EBUSY);
        CHECK_EQ(e.code, GRPC_FAILED_PRECONDITION);
        fake->job_result = "timeout";
        error_clear(&e);
        CHECK_EQ(start("c.service", 0, &e), -ETIMEDOUT);
        CHECK_EQ(e.code, GRPC_DEADLINE_EXCEEDED);
        fake->job_result = NULL;
        CHECK_EQ(start("a.service", 0, NULL), 0);
        return 0;
}

static void a_failed_start_says_why_and_frees_the_name(void) {
        run(failed_body);
}

static int cut_body(void *userdata) {
        _cleanup_error_ Error e = ERROR_INIT;

        CHECK_EQ(systemd_connect(systemd, &e), 0);
        fake->cut_before = 1;
        come_back_later();
        CHECK_EQ(start("before.service", 0, &e), 0);
        CHECK_STREQ(fake_systemd_unit(fake, "before.service")->active, "active");
        CHECK_EQ(fake->n_start, 2);

        fake->cut_after = 1;
        come_back_later();
        CHECK_EQ(start("after.service", 0, &e), 0);
        CHECK_STREQ(fake_systemd_unit(fake, "after.service")->active, "active");
        CHECK_EQ(fake->n_start, 3);

        fake->cut_before = 1;
        come_back_later();
        CHECK_EQ(unit_stop_wait(systemd, "before.service", 0, &e), 0);
        fake->cut_after = 1;
        come_back_later();
        CHECK_EQ(unit_stop_wait(systemd, "after.service", 0, &e), 0);
        CHECK_STREQ(fake_systemd_unit(fake, "before.service")->active, "inactive");
        CHECK_STREQ(fake_systemd_unit(fake, "after.service")->active, "inactive");

        /* Cut off after it was carried out, and it failed. */
        fake->cut_after = 1;
        fake->job_result = "failed";
        come_back_later();
        CHECK_EQ(start("failed.service", 0, &e), -EIO);
        CHECK(!fake_systemd_unit(fake, "failed.service")->loaded);
        return 0;
}

static void a_reply_cut_off_fails_no_start_and_no_stop(void) {
        run(cut_body);
}

static int foreign_body(void *userdata) {
        _cleanup_error_ Error e = ERROR_INIT;
        FakeUnit *u;

        /* Another's unit of that name must not be taken for ours, nor taken down. */
        u = fake_systemd_add_unit(fake, "a.service", "active");
        u->begin_usec = 1;
        fake->cut_before = 1;
        CHECK_EQ(systemd_connect(systemd, &e), 0);
        come_back_later();
        CHECK_EQ(start("a.service", 0, &e), -EEXIST);
        CHECK_STREQ(u->active, "active");
        CHECK_EQ(fake->n_stop, 0);
        return 0;
}

static void anothers_unit_is_left_alone(void) {
        run(foreign_body);
}

static int only_start(void *userdata) {
        return start("a.service", 0, NULL);
}

static int lost_signal_start(void *userdata) {
        Fiber *f;
        int r;

        CHECK_EQ(systemd_connect(systemd, NULL), 0);
        fake->hold_jobs = true;
        CHECK_EQ(fiber_spawn(event, "start", only_start, NULL, NULL, &f), 0);
        while (!fake_systemd_unit(fake, "a.service"))
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        CHECK_EQ(fiber_sleep(20 * USEC_PER_MSEC), 0);
        if (over_bus)
                fake_systemd_leave(fake);
        else
                fake_systemd_hang_up(fake, /* keep_listening= */ true);
        fake_systemd_finish_jobs(fake);
        come_back_later();
        CHECK_EQ(fiber_join(f, &r), 0);
        CHECK_EQ(r, 0);
        CHECK_EQ(fake->n_start, 1);
        fiber_unref(f);
        return 0;
}

static void a_job_that_ends_unheard_is_found(void) {
        run(lost_signal_start);
}

/* The same, but it goes on after the interruption. */
static int job_survives_body(void *userdata) {
        Fiber *f;
        int r;

        CHECK_EQ(systemd_connect(systemd, NULL), 0);
        fake->hold_jobs = true;
        CHECK_EQ(fiber_spawn(event, "start", only_start, NULL, NULL, &f), 0);
        while (!fake_systemd_unit(fake, "a.service"))
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        if (over_bus)
                fake_systemd_leave(fake);
        else
                fake_systemd_hang_up(fake, /* keep_listening= */ true);
        come_back_later();
        while (fake->n_get_all == 0)
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        CHECK_EQ(fiber_sleep(20 * USEC_PER_MSEC), 0);
        CHECK(!fiber_is_done(f));
        fake_systemd_finish_jobs(fake);
        CHECK_EQ(fiber_join(f, &r), 0);
        CHECK_EQ(r, 0);
        fiber_unref(f);
        return 0;
}

static void a_job_that_outlives_the_connection_is_waited_for(void) {
        run(job_survives_body);
}

static int cancel_body(void *userdata) {
        Fiber *f;
        int r;

        fake->hold_jobs = true;
        fake->remove_stopped = true;
        CHECK_EQ(fiber_spawn(event, "start", only_start, NULL, NULL, &f), 0);
        while (!fake_systemd_unit(fake, "a.service"))
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        CHECK_EQ(fiber_sleep(20 * USEC_PER_MSEC), 0);
        fiber_cancel(f);
        while (fake->n_stop == 0)
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        /* The stop needs no grace, */
        CHECK_STREQ(fake->last_kill, "a.service all-fail 9");
        /* and it waits until the unit is gone. */
        CHECK_EQ(fiber_sleep(20 * USEC_PER_MSEC), 0);
        CHECK(!fiber_is_done(f));
        fake_systemd_finish_jobs(fake);
        CHECK_EQ(fiber_join(f, &r), 0);
        CHECK_EQ(r, -ECANCELED);
        CHECK(!fake_systemd_unit(fake, "a.service")->loaded);
        fiber_unref(f);

        /* And the name can be used at once. */
        fake->hold_jobs = false;
        CHECK_EQ(start("a.service", 0, NULL), 0);
        return 0;
}

static void a_cancelled_start_leaves_nothing(void) {
        run(cancel_body);
}

static int cancel_early_body(void *userdata) {
        Fiber *f;
        int r;

        /* Cancelled while the call itself is under way. */
        CHECK_EQ(systemd_connect(systemd, NULL), 0);
        fake->remove_stopped = true;
        CHECK_EQ(fiber_spawn(event, "start", only_start, NULL, NULL, &f), 0);
        fiber_cancel(f);
        CHECK_EQ(fiber_join(f, &r), 0);
        CHECK_EQ(r, -ECANCELED);
        CHECK_EQ(fake->n_start, 1);
        CHECK(!fake_systemd_unit(fake, "a.service")->loaded);
        fiber_unref(f);
        return 0;
}

static void a_start_cancelled_at_once_leaves_nothing(void) {
        run(cancel_early_body);
}

static int finish_stops(void *userdata) {
        while (fake->n_stop == 0)
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        CHECK_EQ(fiber_sleep(20 * USEC_PER_MSEC), 0);
        fake_systemd_finish_jobs(fake);
        return 0;
}

static int timeout_start(void *userdata) {
        _cleanup_error_ Error e = ERROR_INIT;
        uint64_t begin = now_usec(CLOCK_MONOTONIC);

        fake->hold_jobs = true;
        fake->remove_stopped = true;
        CHECK_EQ(fiber_spawn(event, "finish", finish_stops, NULL, NULL, NULL), 0);
        CHECK_EQ(start("a.service", 100 * USEC_PER_MSEC, &e), -ETIMEDOUT);
        CHECK(now_usec(CLOCK_MONOTONIC) - begin >= 100 * USEC_PER_MSEC);
        CHECK_EQ(e.code, GRPC_DEADLINE_EXCEEDED);
        CHECK(strstr(e.message, "a.service") && strstr(e.message, "0.1 s"));
        CHECK(!fake_systemd_unit(fake, "a.service")->loaded);
        return 0;
}

static void a_start_that_takes_too_long_is_taken_back(void) {
        run(timeout_start);
}

static int stop_body(void *userdata) {
        _cleanup_error_ Error e = ERROR_INIT;

        CHECK_EQ(unit_stop_wait(systemd, "unknown.service", 0, &e), 0);
        CHECK_EQ(unit_release_wait(systemd, "unknown.service", 0, &e), 0);
        CHECK_EQ(fake->n_reset, 0); /* there is nothing to be forgotten */
        CHECK_EQ(unit_reset_failed(systemd, "unknown.service", &e), 0);
        fake_systemd_add_unit(fake, "a.service", "active");
        fake->hold_jobs = true;
        CHECK_EQ(unit_stop_wait(systemd, "a.service", 50 * USEC_PER_MSEC, &e), -ETIMEDOUT);
        CHECK_EQ(e.code, GRPC_DEADLINE_EXCEEDED);
        return 0;
}

static void stopping_is_idempotent_and_bounded(void) {
        run(stop_body);
}

static int many_one(void *userdata) {
        _cleanup_free_ char *unit = strprintf("u%d.service", (int) (intptr_t) userdata);
        int r;

        r = start(unit, 0, NULL);
        if (r < 0)
                return r;
        return unit_release_wait(systemd, unit, 0, NULL);
}

static int many_body(void *userdata) {
        Fiber *f[300];
        int r;

        /* More at once than dbus-daemon lets be unanswered. */
        fake->remove_stopped = true;
        for (size_t i = 0; i < ELEMENTSOF(f); i++)
                CHECK_EQ(fiber_spawn(event, "one of many", many_one, (void *) (intptr_t) i, NULL, f + i), 0);
        for (size_t i = 0; i < ELEMENTSOF(f); i++) {
                CHECK_EQ(fiber_join(f[i], &r), 0);
                CHECK_EQ(r, 0);
                fiber_unref(f[i]);
        }
        CHECK_EQ(fake->n_start, ELEMENTSOF(f));
        CHECK_EQ(fake->n_get_all, 0);
        return 0;
}

static void many_starts_at_once_stay_below_the_limits_of_the_bus(void) {
        run(many_body);
}

TEST_MAIN(TEST_CASE(a_start_takes_one_call), TEST_CASE(a_job_removed_before_the_reply_is_not_missed),
          TEST_CASE(a_failed_start_says_why_and_frees_the_name), TEST_CASE(a_reply_cut_off_fails_no_start_and_no_stop),
          TEST_CASE(anothers_unit_is_left_alone), TEST_CASE(a_job_that_ends_unheard_is_found),
          TEST_CASE(a_job_that_outlives_the_connection_is_waited_for), TEST_CASE(a_cancelled_start_leaves_nothing),
          TEST_CASE(a_start_cancelled_at_once_leaves_nothing), TEST_CASE(a_start_that_takes_too_long_is_taken_back),
          TEST_CASE(stopping_is_idempotent_and_bounded),
          TEST_CASE(many_starts_at_once_stay_below_the_limits_of_the_bus))
