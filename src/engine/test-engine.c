/* The native engine against a real systemd and crun: to be run in a machine of test/machine. */

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "engine/test-engine-harness.h"

static Harness h;

static int life(void *userdata) {
        TestPod *p = pod_new(&h);
        _cleanup_free_ char *out = NULL, *err = NULL, *path = NULL;
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_unit_state_ UnitState unit = {};
        EngineContainerState state;
        struct stat st;
        TestContainer *c;

        pod_start(p);
        CHECK_EQ(h.engine->ops->pod_netns(h.engine, &p->view, &path, &error), 0);
        CHECK(startswith(path, "/proc/"));
        c = container_new(p, "echo out; echo err >&2; exit 7");
        container_create(c);
        CHECK_EQ(c->info.uid, 0);
        CHECK_EQ(c->info.stop_signal, SIGTERM);
        CHECK_EQ(harness_seen(c->id).exits, 0);
        CHECK_EQ(unit_get_state(h.systemd, c->unit, &unit, &error), 0);
        CHECK_STREQ(unit.sub_state, "running");
        CHECK_STREQ(unit.slice, p->slice);
        container_start(c);
        state = container_wait(c);
        CHECK_EQ(state.phase, ENGINE_CONTAINER_EXITED);
        CHECK_EQ(state.exit_code, 7);
        CHECK(state.finished_usec >= state.started_usec);
        CHECK(!state.oom_killed);
        out = container_output(c, "stdout");
        err = container_output(c, "stderr");
        CHECK_STREQ(out, "out\n");
        CHECK_STREQ(err, "err\n");
        CHECK_EQ(stat(c->log_path, &st), 0);
        container_stop(c, USEC_PER_SEC);
        container_remove(c);
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

static int exits(void *userdata) {
        static const struct {
                const char *script;
                int code;
        } cases[] = {
                { "exit 0", 0 },
                { "exit 255", 255 },
        };
        TestPod *p = pod_new(&h);
        TestContainer *c;

        pod_start(p);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                free(container_output_of(p, cases[i].script, cases[i].code));
        c = container_run(p, "sleep 1000");
        container_stop(c, 0);
        CHECK_EQ(container_wait(c).exit_code, 137);
        container_remove(c);
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

static int stops(void *userdata) {
        TestPod *p = pod_new(&h);
        TestContainer *c;
        uint64_t begin;

        pod_start(p);
        c = container_run(p, "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.02; done");
        container_wait_output(c, "up\n");
        container_stop(c, 10 * USEC_PER_SEC);
        CHECK_EQ(harness_seen(c->id).exits, 1);
        CHECK_EQ(container_wait(c).exit_code, 5);
        container_wait_output(c, "bye\n");
        container_remove(c);

        c = container_run(p, "trap '' TERM; echo up; while :; do sleep 0.02; done");
        container_wait_output(c, "up\n");
        begin = now_usec(CLOCK_MONOTONIC);
        container_stop(c, 300 * USEC_PER_MSEC);
        CHECK(now_usec(CLOCK_MONOTONIC) - begin >= 300 * USEC_PER_MSEC);
        CHECK(now_usec(CLOCK_MONOTONIC) - begin < 3 * USEC_PER_SEC);
        CHECK_EQ(container_wait(c).exit_code, 137);
        container_remove(c);

        /* Created only: there is nothing to be gentle with. */
        c = container_new(p, "exit 3");
        container_create(c);
        begin = now_usec(CLOCK_MONOTONIC);
        container_stop(c, 10 * USEC_PER_SEC);
        CHECK(now_usec(CLOCK_MONOTONIC) - begin < 3 * USEC_PER_SEC);
        CHECK_EQ(container_wait(c).exit_code, 137);
        container_remove(c);

        /* A running one is removed. */
        c = container_run(p, "trap '' TERM; while :; do sleep 0.02; done");
        container_remove(c);
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

typedef struct Stop {
        TestContainer *c;
        uint64_t timeout;
} Stop;

static int stop_it(void *userdata) {
        Stop *s = userdata;
        Error error = ERROR_INIT;
        int r;

        r = h.engine->ops->container_stop(h.engine, &s->c->view, SIGTERM, s->timeout, &error);
        error_clear(&error);
        return r;
}

static int stops_together(void *userdata) {
        TestPod *p = pod_new(&h);
        TestContainer *c;
        Fiber *gentle, *cancelled;
        Stop long_stop, short_stop;
        int r;

        pod_start(p);
        c = container_run(p, "trap '' TERM; echo up; while :; do sleep 0.02; done");
        container_wait_output(c, "up\n");
        long_stop = (Stop) { c, 60 * USEC_PER_SEC };
        short_stop = (Stop) { c, 200 * USEC_PER_MSEC };
        /* A call that is given up does not go on to SIGKILL. */
        CHECK_EQ(fiber_spawn(h.event, "cancelled", stop_it, &short_stop, NULL, &cancelled), 0);
        CHECK_EQ(fiber_sleep(50 * USEC_PER_MSEC), 0);
        fiber_cancel(cancelled);
        CHECK_EQ(fiber_join(cancelled, &r), 0);
        CHECK_EQ(r, -ECANCELED);
        CHECK_EQ(fiber_sleep(400 * USEC_PER_MSEC), 0);
        CHECK_EQ(harness_seen(c->id).exits, 0);
        /* One with less patience ends the wait of the other. */
        CHECK_EQ(fiber_spawn(h.event, "gentle", stop_it, &long_stop, NULL, &gentle), 0);
        CHECK_EQ(fiber_sleep(50 * USEC_PER_MSEC), 0);
        container_stop(c, 0);
        CHECK_EQ(fiber_join(gentle, &r), 0);
        CHECK_EQ(r, 0);
        fiber_unref(gentle);
        fiber_unref(cancelled);
        container_remove(c);
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

static int start_error(void *userdata) {
        TestPod *p = pod_new(&h);
        static const char *const commands[][2] = {
                { "no-such", "exec: \"no-such\": executable file not found in $PATH" },
                { "/no/such", "exec: \"/no/such\": no such file or directory" },
                { "/etc/passwd", "exec: \"/etc/passwd\": permission denied" },
        };

        pod_start(p);
        for (size_t i = 0; i < ELEMENTSOF(commands); i++)
                for (int restart = 0; restart < 2; restart++) {
                        TestContainer *c = container_new(p, "");
                        _cleanup_error_ Error error = ERROR_INIT;
                        EngineContainerState state;

                        free(c->argv[0]);
                        c->argv[0] = strdup(commands[i][0]);
                        container_create(c);
                        if (restart) {
                                harness_restart(&h);
                                CHECK_EQ(h.engine->ops->pod_load(h.engine, &p->view, &p->state, &error), 0);
                                CHECK_EQ(h.engine->ops->container_load(h.engine, &c->view, &state, &error), 0);
                                CHECK_EQ(state.phase, ENGINE_CONTAINER_CREATED);
                        }
                        CHECK(h.engine->ops->container_start(h.engine, &c->view, &state, &error) < 0);
                        check_contains(error.message, commands[i][1]);
                        container_stop(c, USEC_PER_SEC);
                        container_remove(c);
                }
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

static int execs(void *userdata) {
        TestPod *p = pod_new(&h);
        TestContainer *c;
        _cleanup_free_ char *out = NULL;
        static const char *const failing[] = { "sh", "-c", "echo o; echo e >&2; exit 3", NULL };
        static const char *const killed[] = { "sh", "-c", "kill -9 $$", NULL };
        static const char *const missing[] = { "no-such", NULL };
        static const char *const hanging[] = {"sh", "-c", "trap '' TERM; sleep 8765 & setsid sleep 8765 & sleep 8765",
                                              NULL};
        static const char *const background[] = { "sh", "-c", "sleep 5 >/dev/null 2>&1 & echo done", NULL };
        EngineExecResult result = {};
        Error error = ERROR_INIT;
        uint64_t begin;

        pod_start(p);
        c = container_run(p, "while :; do sleep 0.02; done");
        CHECK_EQ(h.engine->ops->container_exec_sync(h.engine, &c->view, failing, 0, &result, &error), 0);
        CHECK_EQ(result.exit_code, 3);
        CHECK_STREQ(result.output, "o\n");
        CHECK_STREQ(result.error, "e\n");
        engine_exec_result_done(&result);
        CHECK_EQ(h.engine->ops->container_exec_sync(h.engine, &c->view, killed, 0, &result, &error), 0);
        CHECK_EQ(result.exit_code, 137);
        engine_exec_result_done(&result);
        CHECK(h.engine->ops->container_exec_sync(h.engine, &c->view, missing, 0, &result, &error) < 0);
        check_contains(error.message, "no-such");
        error_clear(&error);

        begin = now_usec(CLOCK_MONOTONIC);
        CHECK_EQ(h.engine->ops->container_exec_sync(h.engine, &c->view, hanging, 300 * USEC_PER_MSEC, &result, &error),
                 -ETIMEDOUT);
        CHECK_EQ(error.code, GRPC_DEADLINE_EXCEEDED);
        CHECK(now_usec(CLOCK_MONOTONIC) - begin < 2 * USEC_PER_SEC);
        error_clear(&error);
        out = container_exec(c, "ps; ls /proc/self/fd; cat /proc/self/oom_score_adj; ls /sys/fs/cgroup | grep exec-");
        CHECK(!strstr(out, "8765"));
        free(out);

        CHECK_EQ(h.engine->ops->container_exec_sync(h.engine, &c->view, background, 0, &result, &error), 0);
        CHECK_STREQ(result.output, "done\n");
        engine_exec_result_done(&result);
        out = container_exec(c, "ps; ls -d /sys/fs/cgroup/*exec-* | wc -l; ls /proc/self/fd | wc -l");
        check_contains(out, "sleep 5");
        check_contains(out, "\n1\n4\n"); /* its own cgroup; 0, 1, 2 and ls's own */
        container_remove(c);
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

static int pod_killed(void *userdata) {
        for (int shared = 0; shared < 2; shared++) {
                TestPod *p = pod_new(&h);
                TestContainer *c;
                _cleanup_free_ char *out = NULL;
                _cleanup_error_ Error error = ERROR_INIT;
                char *line, *end;
                int n = 0;

                if (shared)
                        p->config.linux.security_context.namespace_options.pid = runtime_v1_NamespaceMode_POD;
                pod_start(p);
                c = container_run(p, "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i; "
                                     "[ $((i % 100)) = 0 ] && sleep 0.01; done");
                container_wait_output(c, "\n500\n");
                for (int i = 0; i < 3; i++) {
                        _cleanup_unit_state_ UnitState unit = {};
                        _cleanup_free_ char *hello = NULL;

                        CHECK_EQ(unit_get_state(h.systemd, p->unit, &unit, &error), 0);
                        CHECK(unit.main_pid > 0);
                        CHECK_EQ(kill(unit.main_pid, SIGKILL), 0);
                        hello = container_output_of(p, "echo hello; cat /etc/hostname", 0);
                        check_contains(hello, "hello\n");
                }
                CHECK_EQ(harness_seen(c->id).exits, 0);
                container_stop(c, 10 * USEC_PER_SEC);
                CHECK_EQ(container_wait(c).exit_code, 0);
                out = container_output(c, "stdout");
                for (line = out; *line; line = end + 1) {
                        end = strchr(line, '\n');
                        CHECK(end);
                        CHECK_EQ(atoi(line), ++n);
                }
                CHECK(n > 500);
                container_remove(c);
                pod_end(p);
                harness_check_empty(&h);
        }
        return 0;
}

static int restarted(void *userdata) {
        TestPod *p = pod_new(&h), *down = pod_new(&h);
        TestContainer *running, *created, *exited, *dying;
        _cleanup_error_ Error error = ERROR_INIT;
        EngineContainerState state;
        uint64_t died;
        pid_t pid;

        pod_start(p);
        pod_start(down);
        running = container_run(p, "trap 'exit 4' TERM; echo up; while :; do sleep 0.02; done");
        dying = container_run(p, "trap 'echo last words; exit 6' USR1; echo up; while :; do sleep 0.02; done");
        exited = container_run(p, "exit 5");
        created = container_new(p, "exit 3");
        container_create(created);
        CHECK_EQ(container_wait(exited).exit_code, 5);
        container_wait_output(running, "up\n");
        container_wait_output(dying, "up\n");
        CHECK_EQ(h.engine->ops->container_load(h.engine, &running->view, &state, &error), 0);
        pid = state.pid;
        CHECK(pid > 0);
        CHECK_EQ(h.engine->ops->container_load(h.engine, &dying->view, &state, &error), 0);
        h.engine = engine_free(h.engine);
        CHECK_EQ(kill(state.pid, SIGUSR1), 0);
        for (uint64_t until = now_usec(CLOCK_MONOTONIC) + 5 * USEC_PER_SEC; kill(state.pid, 0) >= 0;) {
                CHECK(now_usec(CLOCK_MONOTONIC) < until);
                CHECK_EQ(fiber_sleep(USEC_PER_MSEC), 0);
        }
        died = now_usec(CLOCK_REALTIME);
        CHECK_EQ(unit_stop_wait(h.systemd, down->unit, 0, &error), 0);
        harness_restart(&h);

        CHECK_EQ(h.engine->ops->load_begin(h.engine, &error), 0);
        CHECK_EQ(h.engine->ops->pod_load(h.engine, &down->view, &down->state, &error), 0);
        CHECK(!down->state.running);
        CHECK_EQ(h.engine->ops->pod_load(h.engine, &p->view, &p->state, &error), 0);
        CHECK(p->state.running);
        CHECK_EQ(h.engine->ops->container_load(h.engine, &running->view, &state, &error), 0);
        CHECK_EQ(state.phase, ENGINE_CONTAINER_RUNNING);
        CHECK_EQ(state.pid, pid);
        CHECK(state.started_usec > 0 && state.started_usec <= died);
        CHECK_EQ(h.engine->ops->container_load(h.engine, &created->view, &state, &error), 0);
        CHECK_EQ(state.phase, ENGINE_CONTAINER_CREATED);
        CHECK_EQ(h.engine->ops->container_load(h.engine, &exited->view, &state, &error), 0);
        CHECK_EQ(state.phase, ENGINE_CONTAINER_EXITED);
        CHECK_EQ(state.exit_code, 5);
        CHECK_EQ(h.engine->ops->container_load(h.engine, &dying->view, &state, &error), 0);
        CHECK_EQ(state.phase, ENGINE_CONTAINER_EXITED);
        CHECK_EQ(state.exit_code, 6);
        CHECK(state.finished_usec <= died && state.finished_usec + 300 * USEC_PER_MSEC > died);
        h.engine->ops->load_end(h.engine);
        container_wait_output(dying, "last words\n");

        container_start(created);
        CHECK_EQ(container_wait(created).exit_code, 3);
        container_stop(running, 5 * USEC_PER_SEC);
        CHECK_EQ(container_wait(running).exit_code, 4);
        container_remove(running);
        container_remove(created);
        container_remove(dying);
        /* Also without looking at it first. */
        harness_restart(&h);
        container_remove(exited);
        pod_end(p);
        pod_end(down);
        harness_check_empty(&h);
        return 0;
}

static int systemctl_stop(void *userdata) {
        TestPod *p = pod_new(&h);
        _cleanup_error_ Error error = ERROR_INIT;
        TestContainer *c, *d;
        int before;

        pod_start(p);
        c = container_run(p, "trap 'exit 6' TERM; echo up; while :; do sleep 0.02; done");
        d = container_run(p, "trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done");
        container_wait_output(c, "up\n");
        container_wait_output(d, "up\n");
        CHECK_EQ(unit_stop_wait(h.systemd, c->unit, 0, &error), 0);
        CHECK_EQ(container_wait(c).exit_code, 6);
        CHECK_EQ(unit_stop_wait(h.systemd, d->unit, 0, &error), 0);
        CHECK_EQ(container_wait(d).exit_code, 0);
        container_remove(c);
        container_remove(d);

        c = container_run(p, "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done");
        container_wait_output(c, "up\n");
        before = harness_pod_events();
        CHECK_EQ(unit_stop_wait(h.systemd, p->unit, 0, &error), 0);
        for (int i = 0; harness_pod_events() == before; i++) {
                CHECK(i < 500);
                CHECK_EQ(fiber_sleep(10 * USEC_PER_MSEC), 0);
        }
        container_stop(c, 5 * USEC_PER_SEC);
        CHECK_EQ(container_wait(c).exit_code, 7);
        container_remove(c);
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

static int large_tree(void *userdata) {
        TestPod *p = pod_new(&h);
        _cleanup_free_ char *out = NULL;

        pod_start(p);
        out = container_output_of(p, "i=0; while [ $i -lt 400 ]; do mkdir -p /d/$i; echo > /d/$i/f; i=$((i+1)); done",
                                  0);
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

typedef struct Attempt {
        TestContainer *c;
        TestPod *p;
        Error error;
} Attempt;

static int attempt_create(void *userdata) {
        Attempt *a = userdata;

        return container_try_create(a->c, &a->error);
}

static int attempt_pod(void *userdata) {
        Attempt *a = userdata;

        return h.engine->ops->pod_start(h.engine, &a->p->view, &a->p->state, &a->error);
}

static int cancelled(void *userdata) {
        TestPod *p = pod_new(&h);
        TestContainer *c;
        uint64_t pod_usec, create_usec;
        int done = 0, r;

        pod_usec = now_usec(CLOCK_MONOTONIC);
        pod_start(p);
        create_usec = now_usec(CLOCK_MONOTONIC);
        pod_usec = create_usec - pod_usec;
        c = container_new(p, "true");
        container_create(c);
        create_usec = now_usec(CLOCK_MONOTONIC) - create_usec;
        container_remove(c);
        for (unsigned i = 0; i < 40; i++) {
                Attempt a = { .c = container_new(p, "true"), .p = pod_new(&h) };
                Fiber *f, *g;

                CHECK_EQ(fiber_spawn(h.event, "create", attempt_create, &a, NULL, &f), 0);
                CHECK_EQ(fiber_sleep(i * create_usec / 35), 0);
                fiber_cancel(f);
                CHECK_EQ(fiber_join(f, &r), 0);
                done += r >= 0;
                error_clear(&a.error);
                CHECK_EQ(mkdir_parents(AT_FDCWD, a.c->run_directory, 0700), 0);
                container_remove(a.c);

                CHECK_EQ(fiber_spawn(h.event, "pod", attempt_pod, &a, NULL, &g), 0);
                CHECK_EQ(fiber_sleep(i * pod_usec / 35), 0);
                fiber_cancel(g);
                CHECK_EQ(fiber_join(g, &r), 0);
                done += r >= 0;
                error_clear(&a.error);
                pod_end(a.p);
                fiber_unref(f);
                fiber_unref(g);
        }
        printf("# %d of 80 were done before they could be given up\n", done);
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

static int compare(const void *a, const void *b) {
        return (*(const uint64_t *) a > *(const uint64_t *) b) - (*(const uint64_t *) a < *(const uint64_t *) b);
}

static int latency(void *userdata) {
        enum { POD, CREATE, START, EXEC, STOP, REMOVE, POD_END, _N };
        static const char *const names[_N] = { "pod start", "create", "start", "exec", "stop", "remove", "pod end" };
        enum { ROUNDS = 20 };
        uint64_t t[_N][ROUNDS], x;

        for (int i = 0; i < ROUNDS; i++) {
                TestPod *p = pod_new(&h);
                TestContainer *c = container_new(p, "sleep 1000");

                x = now_usec(CLOCK_MONOTONIC);
                pod_start(p);
                t[POD][i] = now_usec(CLOCK_MONOTONIC) - x;
                x = now_usec(CLOCK_MONOTONIC);
                container_create(c);
                t[CREATE][i] = now_usec(CLOCK_MONOTONIC) - x;
                x = now_usec(CLOCK_MONOTONIC);
                container_start(c);
                t[START][i] = now_usec(CLOCK_MONOTONIC) - x;
                x = now_usec(CLOCK_MONOTONIC);
                free(container_exec(c, "true"));
                t[EXEC][i] = now_usec(CLOCK_MONOTONIC) - x;
                x = now_usec(CLOCK_MONOTONIC);
                container_stop(c, 0);
                t[STOP][i] = now_usec(CLOCK_MONOTONIC) - x;
                x = now_usec(CLOCK_MONOTONIC);
                container_remove(c);
                t[REMOVE][i] = now_usec(CLOCK_MONOTONIC) - x;
                x = now_usec(CLOCK_MONOTONIC);
                pod_end(p);
                t[POD_END][i] = now_usec(CLOCK_MONOTONIC) - x;
        }
        for (int i = 0; i < _N; i++) {
                qsort(t[i], ROUNDS, sizeof t[i][0], compare);
                printf("# %-10s p50 %6.2f ms, p90 %6.2f ms\n", names[i], (double) t[i][ROUNDS / 2] / 1000,
                       (double) t[i][ROUNDS * 9 / 10] / 1000);
        }
        return 0;
}

TEST_IN_FIBER(life)
TEST_IN_FIBER(exits)
TEST_IN_FIBER(stops)
TEST_IN_FIBER(stops_together)
TEST_IN_FIBER(start_error)
TEST_IN_FIBER(execs)
TEST_IN_FIBER(pod_killed)
TEST_IN_FIBER(restarted)
TEST_IN_FIBER(systemctl_stop)
TEST_IN_FIBER(large_tree)
TEST_IN_FIBER(cancelled)
TEST_IN_FIBER(latency)

int main(int argc, char **argv) {
        static const TestCase cases[] = {
                { "a pod and a container live and leave nothing", test_life },
                { "exit codes", test_exits },
                { "the stop signal, the grace, SIGKILL", test_stops },
                { "stops side by side, and one that is given up", test_stops_together },
                { "a command that can't be executed fails at start, also after a restart", test_start_error },
                { "commands are executed, and end as a whole", test_execs },
                { "a pod process that is killed loses nothing", test_pod_killed },
                { "a restarted daemon finds everything again", test_restarted },
                { "units stopped by hand", test_systemctl_stop },
                { "a large tree is removed", test_large_tree },
                { "what is given up leaves nothing", test_cancelled },
                { "latency", test_latency },
        };

        return harness_main(&h, cases, ELEMENTSOF(cases), argc, argv);
}
