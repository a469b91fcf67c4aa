#pragma once
/* For tests of the native engine against a real systemd: an engine, pods and containers with a busybox image.
 * Everything lies below one directory in /var/lib and one in /run, and is checked to be gone at the end. */

#include "basic/fiber.h"
#include "basic/file-util.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "engine/engine.h"

typedef struct Harness {
        sd_event *event;
        Systemd *systemd;
        Engine *engine;
        char *state, *run, *libexec;
} Harness;

typedef struct Seen {
        int exits;
        EngineContainerState state;
} Seen;

typedef struct TestPod {
        Harness *h;
        char *id, *unit, *slice, *directory, *run_directory;
        runtime_v1_PodSandboxConfig config;
        EnginePod view;
        EnginePodState state;
} TestPod;

typedef struct TestContainer {
        TestPod *pod;
        char *id, *unit, *directory, *run_directory, *log_path;
        char **argv;
        runtime_v1_ContainerConfig config;
        EngineContainer view;
        EngineContainerInfo info;
} TestContainer;

/* False: this isn't the place for it (no root, or PID 1 is no systemd); a reason was printed. */
bool harness_init(Harness *h);
void harness_done(Harness *h);
/* As if the daemon had been restarted. */
void harness_restart(Harness *h);
/* A shell command in the mount namespace of PID 1; fails unless it succeeds. */
void harness_on_host(const char *format, ...) _printf_(1, 2);
/* Fails unless there is no unit of ours, and nothing in the directories. */
void harness_check_empty(Harness *h);
/* The last state told for a container, and how often an exit was. */
Seen harness_seen(const char *id);
int harness_pod_events(void);

TestPod *pod_new(Harness *h);
void pod_start(TestPod *p);
void pod_end(TestPod *p); /* stop, remove, free */
TestContainer *container_new(TestPod *p, const char *script);
int container_try_create(TestContainer *c, Error *error);
void container_create(TestContainer *c);
void container_start(TestContainer *c);
TestContainer *container_run(TestPod *p, const char *script);
EngineContainerState container_wait(TestContainer *c);
void container_stop(TestContainer *c, uint64_t timeout_usec);
void container_remove(TestContainer *c); /* and free */
/* The text of one stream in the log; owned by the caller. */
char *container_output(TestContainer *c, const char *stream);
void container_wait_output(TestContainer *c, const char *text);
/* Runs, waits, returns the standard output, removes. */
char *container_output_of(TestPod *p, const char *script, int expected_code);
/* Standard output of a command; its exit code must be 0. */
char *container_exec(TestContainer *c, const char *script);
void check_contains(const char *text, const char *what);

/* A test case that runs in a fiber of the harness h: test_NAME() for NAME(). */
#define TEST_IN_FIBER(name)                                                                                            \
        static void test_##name(void) {                                                                                \
                CHECK_EQ(fiber_run(h.event, name, NULL), 0);                                                           \
        }
/* main() of such a test. An argument: the number of the only case to run. */
int harness_main(Harness *h, const TestCase *cases, size_t n, int argc, char **argv);
