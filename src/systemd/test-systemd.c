/* Against the systemd that is PID 1 here. It starts and stops units named test-rktlet-*.service, re-executes PID 1 and
 * restarts the bus, so it wants a machine of its own: see test/machine. */

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include "basic/fiber.h"
#include "basic/file-util.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "systemd/internal.h"

extern char **environ;
static bool over_bus;
static sd_event *event;
static Systemd *systemd;

static void run(FiberFunc func) {
        for (int i = 0; i < 2; i++) {
                over_bus = i == 0;
                CHECK(sd_event_new(&event) >= 0);
                CHECK_EQ(systemd_new(event, &systemd), 0);
                CHECK_EQ(systemd_set_addresses(systemd, over_bus ? "unix:path=/run/dbus/system_bus_socket" : NULL,
                                               over_bus ? NULL : "unix:path=/run/systemd/private"), 0);
                CHECK_EQ(fiber_run(event, func, NULL), 0);
                systemd = systemd_free(systemd);
                CHECK_EQ(fiber_count(), 0);
                event = sd_event_unref(event);
        }
}

/* Not waited for here. */
static pid_t spawn(const char *a, const char *b, const char *c) {
        char *argv[] = { (char *) a, (char *) b, (char *) c, NULL };
        pid_t pid;

        CHECK_EQ(posix_spawnp(&pid, a, NULL, NULL, argv, environ), 0);
        return pid;
}

static void reap(pid_t pid) {
        int status;

        while (waitpid(pid, &status, WNOHANG) == 0)
                CHECK_EQ(fiber_sleep(10 * USEC_PER_MSEC), 0);
        CHECK_EQ(status, 0);
}

/* A service that runs a line of shell. */
static UnitProperties *shell(const char *type, const char *line) {
        UnitProperties *p;

        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_properties_add_string(p, "Description", "Test of rktlet"), 0);
        CHECK_EQ(unit_properties_add_string(p, "Type", type), 0);
        CHECK_EQ(unit_properties_add_bool(p, "RemainAfterExit", true), 0);
        CHECK_EQ(unit_properties_add_u64(p, "TimeoutStopUSec", 2 * USEC_PER_SEC), 0);
        CHECK_EQ(unit_properties_add_exec(p, "ExecStart", "/bin/sh",
                                          (char *[]) { (char *) "sh", (char *) "-c", (char *) line, NULL }), 0);
        return p;
}

static void start(const char *unit, const char *type, const char *line, int expected, Error *error) {
        _cleanup_(unit_properties_freep) UnitProperties *p = shell(type, line);
        int r;

        r = unit_start_wait(systemd, unit, p, 0, error);
        if (r != expected)
                fprintf(stderr, "%s: %s\n", unit, error ? strempty(error->message) : "");
        CHECK_EQ(r, expected);
}

static void check_state(const char *unit, const char *load, const char *active, const char *sub) {
        _cleanup_unit_state_ UnitState s = {};

        CHECK_EQ(unit_get_state(systemd, unit, &s, NULL), 0);
        CHECK_STREQ(s.load_state, load);
        CHECK_STREQ(s.active_state, active);
        if (sub)
                CHECK_STREQ(s.sub_state, sub);
}

#define A "test-rktlet-a.service"

static int life_body(void *userdata) {
        _cleanup_unit_state_ UnitState s = {};
        _cleanup_error_ Error e = ERROR_INIT;
        UnitInfo *infos;
        size_t n;

        start(A, "exec", "exec sleep 1000", 0, &e);
        start(A, "exec", "exec sleep 1000", -EEXIST, &e);
        CHECK_EQ(unit_get_state(systemd, A, &s, NULL), 0);
        CHECK_STREQ(s.active_state, "active");
        CHECK_STREQ(s.slice, "system.slice");
        CHECK(endswith(s.control_group, "/system.slice/" A));
        CHECK(s.main_pid > 1 && s.exec_main_pid == s.main_pid);
        CHECK(s.exec_main_start_usec > 0 && s.exec_main_exit_usec == 0);
        CHECK(strlen(systemd_version(systemd)) > 0);
        CHECK_EQ(systemd_list_units(systemd, "test-rktlet-*", &infos, &n, NULL), 0);
        CHECK_EQ(n, 1);
        CHECK_STREQ(infos[0].name, A);
        CHECK_STREQ(infos[0].description, "Test of rktlet");
        unit_info_free_array(infos, n);
        CHECK_EQ(unit_release_wait(systemd, A, 0, NULL), 0);
        check_state(A, "not-found", "inactive", NULL);
        CHECK_EQ(unit_release_wait(systemd, A, 0, NULL), 0);
        return 0;
}

static void a_unit_lives_and_its_name_is_free_again(void) {
        run(life_body);
}

static int arguments_body(void *userdata) {
        static char *const argv[] = {
                (char *) "sh", (char *) "-c", (char *) "printf '[%s]\\n' \"$@\" >/run/test-rktlet-out", (char *) "x$y",
                (char *) "$HOME", (char *) "${HOME}", (char *) "a$b$$", (char *) "%n %%", (char *) "", (char *) ";",
                (char *) "\\\\ \"'", NULL,
        };
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;
        _cleanup_free_ char *out = NULL;

        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_properties_add_string(p, "Description", "%n $HOME"), 0);
        CHECK_EQ(unit_properties_add_string(p, "Type", "oneshot"), 0);
        CHECK_EQ(unit_properties_add_bool(p, "RemainAfterExit", true), 0);
        CHECK_EQ(unit_properties_add_exec(p, "ExecStart", "/bin/sh", argv), 0);
        CHECK_EQ(unit_start_wait(systemd, A, p, 0, NULL), 0);
        CHECK_EQ(read_file(AT_FDCWD, "/run/test-rktlet-out", 4096, &out, NULL), 0);
        CHECK_STREQ(out, "[$HOME]\n[${HOME}]\n[a$b$$]\n[%n %%]\n[]\n[;]\n[\\\\ \"']\n");

        CHECK_EQ(unit_release_wait(systemd, A, 0, NULL), 0);
        (void) unlink("/run/test-rktlet-out");
        return 0;
}

static void arguments_arrive_as_they_are(void) {
        run(arguments_body);
}

static int reloaded_arguments_body(void *userdata) {
        static char *const argv[] = {
                (char *) "echo", (char *) "%n %%", (char *) "", (char *) "\\ \"'", (char *) "a b", NULL,
        };
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;
        _cleanup_free_ char *out = NULL;

        /* What systemd has written to the unit's file and read back. "$" and ";" are not among it: 252 writes "\$"
         * and "\;" and doesn't understand that itself, so a unit that may be restarted must not have any; see
         * systemd.h. */
        (void) unlink("/run/test-rktlet-out");
        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_properties_add_string(p, "Type", "oneshot"), 0);
        CHECK_EQ(unit_properties_add_bool(p, "RemainAfterExit", true), 0);
        CHECK_EQ(unit_properties_add_string(p, "StandardOutputFile", "/run/test-rktlet-out"), 0);
        CHECK_EQ(unit_properties_add_exec(p, "ExecStart", "/bin/echo", argv), 0);
        CHECK_EQ(unit_start_wait(systemd, A, p, 0, NULL), 0);
        reap(spawn("systemctl", "daemon-reload", NULL));
        reap(spawn("systemctl", "restart", A));
        CHECK_EQ(read_file(AT_FDCWD, "/run/test-rktlet-out", 4096, &out, NULL), 0);
        CHECK_STREQ(out, "%n %%  \\ \"' a b\n");
        CHECK_EQ(unit_release_wait(systemd, A, 0, NULL), 0);
        (void) unlink("/run/test-rktlet-out");
        return 0;
}

static void arguments_survive_a_reload(void) {
        run(reloaded_arguments_body);
}

static int failures_body(void *userdata) {
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;
        _cleanup_error_ Error e = ERROR_INIT;

        start(A, "oneshot", "exit 3", -EIO, &e);
        printf("# %s\n", e.message);
        CHECK(strstr(e.message, A) && strstr(e.message, "exit-code") && strstr(e.message, "status 3") &&
              strstr(e.message, "journalctl -u " A));
        check_state(A, "not-found", "inactive", NULL);

        error_clear(&e);
        start(A, "oneshot", "kill -SEGV $$", -EIO, &e);
        CHECK(strstr(e.message, "signal 11 (SEGV)"));

        /* The command of Type=forking is not the main process. */
        error_clear(&e);
        start(A, "forking", "exit 4", -EIO, &e);
        CHECK(strstr(e.message, "status 4"));

        error_clear(&e);
        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_properties_add_string(p, "Type", "exec"), 0);
        CHECK_EQ(unit_properties_add_exec(p, "ExecStart", "/nonexistent/x", (char *[]) { (char *) "x", NULL }), 0);
        CHECK_EQ(unit_start_wait(systemd, A, p, 0, &e), -EIO);
        CHECK(strstr(e.message, "203 (EXEC"));
        p = unit_properties_free(p);

        error_clear(&e);
        p = shell("notify", "exec sleep 1000");
        CHECK_EQ(unit_properties_add_u64(p, "TimeoutStartUSec", 200 * USEC_PER_MSEC), 0);
        CHECK_EQ(unit_start_wait(systemd, A, p, 0, &e), -ETIMEDOUT);
        CHECK_EQ(e.code, GRPC_DEADLINE_EXCEEDED);
        check_state(A, "not-found", "inactive", NULL);
        p = unit_properties_free(p);

        error_clear(&e);
        p = shell("notify", "exec sleep 1000");
        CHECK_EQ(unit_start_wait(systemd, A, p, 200 * USEC_PER_MSEC, &e), -ETIMEDOUT);
        CHECK_EQ(e.code, GRPC_DEADLINE_EXCEEDED);
        check_state(A, "not-found", "inactive", NULL);
        p = unit_properties_free(p);

        /* A unit that would be restarted for ever is taken down as well. */
        error_clear(&e);
        p = shell("notify", "exit 5");
        CHECK_EQ(unit_properties_add_string(p, "Restart", "always"), 0);
        CHECK_EQ(unit_start_wait(systemd, A, p, 0, &e), -EIO);
        check_state(A, "not-found", "inactive", NULL);
        p = unit_properties_free(p);

        error_clear(&e);
        p = shell("exec", "true");
        CHECK_EQ(unit_properties_add_string(p, "Slice", "no-slice.service"), 0);
        CHECK_EQ(unit_start_wait(systemd, A, p, 0, &e), -EINVAL);
        CHECK_EQ(e.code, GRPC_INVALID_ARGUMENT);
        printf("# %s\n", e.message);
        return 0;
}

static void failures_say_why_and_leave_nothing(void) {
        run(failures_body);
}

static int start_sleeping_notify(void *userdata) {
        _cleanup_(unit_properties_freep) UnitProperties *p = shell("notify", "exec sleep 1000");

        return unit_start_wait(systemd, A, p, 0, NULL);
}

static int cancel_body(void *userdata) {
        Fiber *f;
        int r;

        for (unsigned i = 0; i < 10; i++) {
                CHECK_EQ(fiber_spawn(event, "start", start_sleeping_notify, NULL, NULL, &f), 0);
                CHECK_EQ(fiber_sleep(i * USEC_PER_MSEC), 0);
                fiber_cancel(f);
                CHECK_EQ(fiber_join(f, &r), 0);
                CHECK_EQ(r, -ECANCELED);
                fiber_unref(f);
                check_state(A, "not-found", "inactive", NULL);
        }
        return 0;
}

static void a_cancelled_start_leaves_nothing(void) {
        run(cancel_body);
}

typedef struct Seen {
        unsigned n;
        UnitState last;
} Seen;

static void on_state(const char *unit, const UnitState *state, void *userdata) {
        Seen *seen = userdata;

        seen->n++;
        unit_state_done(&seen->last);
        seen->last.load_state = strdup(strempty(state->load_state));
        seen->last.active_state = strdup(strempty(state->active_state));
        seen->last.sub_state = strdup(strempty(state->sub_state));
        seen->last.result = strdup(strempty(state->result));
        seen->last.control_group = strdup(strempty(state->control_group));
        seen->last.main_pid = state->main_pid;
        seen->last.exec_main_code = state->exec_main_code;
        seen->last.exec_main_status = state->exec_main_status;
        seen->last.exec_main_exit_usec = state->exec_main_exit_usec;
}

static void wait_until(Seen *seen, const char *load, const char *active, const char *sub) {
        for (int i = 0; i < 500; i++) {
                if (streq_ptr(seen->last.load_state, load) && streq_ptr(seen->last.active_state, active) &&
                    (!sub || streq_ptr(seen->last.sub_state, sub)))
                        return;
                CHECK_EQ(fiber_sleep(10 * USEC_PER_MSEC), 0);
        }
        fprintf(stderr, "still %s %s %s\n", seen->last.load_state, seen->last.active_state, seen->last.sub_state);
        CHECK(false);
}

static int watch_body(void *userdata) {
        _cleanup_(unit_watch_freep) UnitWatch *w = NULL;
        _cleanup_error_ Error e = ERROR_INIT;
        Seen seen = {};

        CHECK_EQ(unit_watch_new(systemd, A, on_state, &seen, &w), 0);
        start(A, "exec", "sleep 0.2; exit 7", 0, &e);
        wait_until(&seen, "loaded", "active", "running");
        CHECK(seen.last.main_pid > 1 && !isempty(seen.last.control_group));
        wait_until(&seen, "loaded", "failed", "failed");
        CHECK_EQ(seen.last.exec_main_code, CLD_EXITED);
        CHECK_EQ(seen.last.exec_main_status, 7);
        CHECK_EQ(seen.last.main_pid, 0);
        CHECK(seen.last.exec_main_exit_usec > 0);
        CHECK_STREQ(seen.last.result, "exit-code");
        CHECK_EQ(unit_kill(systemd, A, "main", SIGTERM, NULL), -ESRCH);
        CHECK_EQ(unit_kill(systemd, A, "all", SIGTERM, NULL), -ESRCH);
        CHECK_EQ(unit_release_wait(systemd, A, 0, NULL), 0);
        wait_until(&seen, "not-found", "inactive", NULL);

        start(A, "exec", "trap '' TERM; sleep 1000 & wait", 0, &e);
        wait_until(&seen, "loaded", "active", "running");
        CHECK_EQ(unit_kill(systemd, A, "all", SIGKILL, NULL), 0);
        wait_until(&seen, "loaded", "failed", "failed");
        CHECK_EQ(seen.last.exec_main_code, CLD_KILLED);
        CHECK_EQ(seen.last.exec_main_status, SIGKILL);
        CHECK_EQ(unit_release_wait(systemd, A, 0, NULL), 0);
        wait_until(&seen, "not-found", "inactive", NULL);

        /* Success stays to be read, too. */
        start(A, "exec", "exit 0", 0, &e);
        wait_until(&seen, "loaded", "active", "exited");
        CHECK_EQ(seen.last.exec_main_code, CLD_EXITED);
        CHECK_EQ(seen.last.exec_main_status, 0);
        CHECK_EQ(unit_release_wait(systemd, A, 0, NULL), 0);
        wait_until(&seen, "not-found", "inactive", NULL);
        CHECK_EQ(unit_kill(systemd, A, "main", SIGTERM, NULL), -ESRCH);
        w = unit_watch_free(w);
        unit_state_done(&seen.last);
        return 0;
}

static void a_watch_tells_how_it_ended(void) {
        run(watch_body);
}

static int set_body(void *userdata) {
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;
        _cleanup_error_ Error e = ERROR_INIT;

        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_properties_add_u64(p, "MemoryMax", 64 << 20), 0);
        CHECK_EQ(unit_properties_add_u64(p, "CPUWeight", 50), 0);
        CHECK_EQ(unit_properties_add_bytes(p, "AllowedCPUs", "\x01", 1), 0);
        CHECK_EQ(unit_set_properties(systemd, A, p, &e), -ENOENT);
        start(A, "exec", "exec sleep 1000", 0, &e);
        error_clear(&e);
        CHECK_EQ(unit_set_properties(systemd, A, p, &e), 0);
        CHECK_EQ(unit_properties_add_string(p, "NoSuchProperty", "x"), 0);
        CHECK(unit_set_properties(systemd, A, p, &e) < 0);
        printf("# %s\n", e.message);
        CHECK_EQ(unit_release_wait(systemd, A, 0, NULL), 0);
        return 0;
}

static void limits_change_while_it_runs(void) {
        run(set_body);
}

static int stubborn_body(void *userdata) {
        _cleanup_error_ Error e = ERROR_INIT;

        start(A, "exec", "trap '' TERM; >/run/test-rktlet-out; while :; do sleep 0.1; done", 0, &e);
        while (access("/run/test-rktlet-out", F_OK) < 0)
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        (void) unlink("/run/test-rktlet-out");
        CHECK_EQ(unit_stop_wait(systemd, A, 300 * USEC_PER_MSEC, &e), -ETIMEDOUT);
        CHECK_EQ(unit_kill(systemd, A, "all", SIGKILL, NULL), 0);
        CHECK_EQ(unit_release_wait(systemd, A, 0, NULL), 0);
        check_state(A, "not-found", "inactive", NULL);
        return 0;
}

static void a_stubborn_unit_is_stopped_within_bounds(void) {
        run(stubborn_body);
}

static unsigned busy;

static int busy_one(void *userdata) {
        _cleanup_free_ char *unit = strprintf("test-rktlet-busy-%d.service", (int) (intptr_t) userdata);
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;
        unsigned rounds = 0;

        while (busy > 0) {
                _cleanup_unit_state_ UnitState s = {};
                _cleanup_error_ Error e = ERROR_INIT;
                int r;

                p = unit_properties_free(p);
                p = shell("forking", "sleep 1000 & exit 0");
                r = unit_start_wait(systemd, unit, p, 0, &e);
                if (r >= 0)
                        r = unit_get_state(systemd, unit, &s, &e);
                if (r >= 0 && !streq(s.active_state, "active"))
                        r = -EPROTO;
                if (r >= 0)
                        r = unit_release_wait(systemd, unit, 0, &e);
                if (r < 0) {
                        fprintf(stderr, "%s, round %u: %d %s %s\n", unit, rounds, r, strempty(e.message),
                                strempty(s.active_state));
                        return r;
                }
                rounds++;
        }
        return (int) rounds;
}

static void disturb(const char *a, const char *b, const char *c, unsigned times) {
        UnitInfo *infos;
        unsigned rounds = 0;
        Fiber *f[8];
        size_t n;
        int r;

        busy = 1;
        for (size_t i = 0; i < ELEMENTSOF(f); i++)
                CHECK_EQ(fiber_spawn(event, "busy", busy_one, (void *) (intptr_t) i, NULL, f + i), 0);
        for (unsigned i = 0; i < times; i++) {
                CHECK_EQ(fiber_sleep(150 * USEC_PER_MSEC), 0);
                if (streq_ptr(c, "dbus.service")) /* that often it would not let itself be started */
                        reap(spawn("systemctl", "reset-failed", c));
                reap(spawn(a, b, c));
        }
        CHECK_EQ(fiber_sleep(150 * USEC_PER_MSEC), 0);
        busy = 0;
        for (size_t i = 0; i < ELEMENTSOF(f); i++) {
                CHECK_EQ(fiber_join(f[i], &r), 0);
                CHECK(r > 0);
                rounds += (unsigned) r;
                fiber_unref(f[i]);
        }
        printf("# %u units started and stopped meanwhile\n", rounds);
        CHECK_EQ(systemd_list_units(systemd, "test-rktlet-*", &infos, &n, NULL), 0);
        CHECK_EQ(n, 0);
        unit_info_free_array(infos, n);
}

static int reexec_body(void *userdata) {
        disturb("systemctl", "daemon-reexec", NULL, 8);
        return 0;
}

static void no_call_fails_while_systemd_executes_itself_anew(void) {
        run(reexec_body);
}

static int reload_body(void *userdata) {
        disturb("systemctl", "daemon-reload", NULL, 8);
        return 0;
}

static void no_call_fails_while_systemd_reloads(void) {
        run(reload_body);
}

static int restart_bus_body(void *userdata) {
        _cleanup_(unit_watch_freep) UnitWatch *w = NULL;
        _cleanup_error_ Error e = ERROR_INIT;
        Seen seen = {};

        start(A, "exec", "exec sleep 1000", 0, &e);
        CHECK_EQ(unit_watch_new(systemd, A, on_state, &seen, &w), 0);
        wait_until(&seen, "loaded", "active", "running");
        reap(spawn("systemctl", "restart", "dbus.service"));
        CHECK_EQ(unit_kill(systemd, A, "main", SIGKILL, NULL), 0);
        wait_until(&seen, "loaded", "failed", "failed");
        CHECK_EQ(unit_release_wait(systemd, A, 0, NULL), 0);
        wait_until(&seen, "not-found", "inactive", NULL);
        w = unit_watch_free(w);
        unit_state_done(&seen.last);
        disturb("systemctl", "restart", "dbus.service", 3);
        return 0;
}

static void no_call_fails_while_the_bus_restarts(void) {
        run(restart_bus_body);
}

static int compare(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

        return x < y ? -1 : x > y;
}

static int speed_body(void *userdata) {
        enum { ROUNDS = 50 };
        uint64_t started[ROUNDS], read[ROUNDS], released[ROUNDS], t;

        CHECK_EQ(systemd_connect(systemd, NULL), 0);
        for (int i = 0; i < ROUNDS; i++) {
                _cleanup_unit_state_ UnitState s = {};

                t = now_usec(CLOCK_MONOTONIC);
                start(A, "simple", "exec sleep 1000", 0, NULL);
                started[i] = now_usec(CLOCK_MONOTONIC) - t;
                t = now_usec(CLOCK_MONOTONIC);
                CHECK_EQ(unit_get_state(systemd, A, &s, NULL), 0);
                read[i] = now_usec(CLOCK_MONOTONIC) - t;
                t = now_usec(CLOCK_MONOTONIC);
                CHECK_EQ(unit_release_wait(systemd, A, 0, NULL), 0);
                released[i] = now_usec(CLOCK_MONOTONIC) - t;
        }
        qsort(started, ROUNDS, sizeof *started, compare);
        qsort(read, ROUNDS, sizeof *read, compare);
        qsort(released, ROUNDS, sizeof *released, compare);
        printf("# %s: start %.2f ms, read state %.2f ms, stop and reset %.2f ms (medians)\n",
               over_bus ? "system bus" : "private socket", (double) started[ROUNDS / 2] / 1000,
               (double) read[ROUNDS / 2] / 1000, (double) released[ROUNDS / 2] / 1000);
        return 0;
}

static void how_long_it_takes(void) {
        run(speed_body);
}

int main(int argc, char *argv[]) {
        static const TestCase cases[] = {
                TEST_CASE(a_unit_lives_and_its_name_is_free_again),
                TEST_CASE(arguments_arrive_as_they_are),
                TEST_CASE(arguments_survive_a_reload),
                TEST_CASE(failures_say_why_and_leave_nothing),
                TEST_CASE(a_cancelled_start_leaves_nothing),
                TEST_CASE(a_watch_tells_how_it_ended),
                TEST_CASE(limits_change_while_it_runs),
                TEST_CASE(a_stubborn_unit_is_stopped_within_bounds),
                TEST_CASE(no_call_fails_while_systemd_executes_itself_anew),
                TEST_CASE(no_call_fails_while_systemd_reloads),
                TEST_CASE(no_call_fails_while_the_bus_restarts),
                TEST_CASE(how_long_it_takes),
        };

        if (access("/run/systemd/system", F_OK) < 0 || geteuid() != 0) {
                printf("PID 1 is no systemd here, or we are not root: skipped\n");
                return TEST_SKIPPED;
        }
        if (!getenv("RKTLET_TEST_MACHINE")) {
                printf("Re-executes PID 1 and restarts the bus: only with RKTLET_TEST_MACHINE=1\n");
                return TEST_SKIPPED;
        }
        return test_main(cases, ELEMENTSOF(cases));
}
