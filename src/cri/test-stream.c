/* Lists of thousands, in one message and in batches; the stream of events. */

#include "basic/fiber.h"
#include "cri/stream.h"
#include "cri/test-call.h"

/* A crowd of containers: batches of streams, and how long a list takes. */
static void test_many_containers(void) {
        enum { N = 5000 };
        static char names[N][16];
        static runtime_v1_ContainerConfig_LabelsEntry labels[] = {
                { (char *) "io.kubernetes.container.name", (char *) "main" },
                { (char *) "io.kubernetes.pod.name", (char *) "web-7d4b9c5f6d-x2x8q" },
                { (char *) "io.kubernetes.pod.namespace", (char *) "production" },
                { (char *) "io.kubernetes.pod.uid", (char *) "f3b1c7a2-0f5e-4c5b-9c0e-1d2f3a4b5c6d" },
        };
        static runtime_v1_ContainerConfig_AnnotationsEntry annotations[] = {
                { (char *) "io.kubernetes.container.hash", (char *) "b4d5f1c" },
                { (char *) "io.kubernetes.container.restartCount", (char *) "0" },
                { (char *) "io.kubernetes.container.terminationMessagePath", (char *) "/dev/termination-log" },
        };
        Container *many = calloc(N, sizeof(Container));
        uint64_t best = UINT64_MAX;

        build();
        CHECK(many);
        HASH_CLEAR(hh, manager.containers);
        pods[0].containers = NULL;
        for (size_t i = 0; i < N; i++) {
                Container *k = &many[i];

                (void) snprintf(names[i], sizeof names[i], "main-%zu", i);
                make_container(k, '5', &pods[0], names[i], CONTAINER_RUNNING);
                HASH_DELETE(hh, manager.containers, k);
                (void) snprintf(k->id, sizeof k->id, "%064zx", i);
                HASH_ADD(hh, manager.containers, id, ID_LENGTH, k);
                k->request.config.labels = labels;
                k->request.config.labels_count = ELEMENTSOF(labels);
                k->request.config.annotations = annotations;
                k->request.config.annotations_count = ELEMENTSOF(annotations);
        }
        for (int i = 0; i < 10; i++) {
                uint64_t begin = now_usec(CLOCK_MONOTONIC);

                CHECK_EQ(CALL(ListContainers), 0);
                best = MIN(best, now_usec(CLOCK_MONOTONIC) - begin);
        }
        printf("# ListContainers of %d: %zu bytes in %.2f ms\n", N, call.sent[0].size, (double) best / 1000);
        CHECK_EQ(strlen(LISTED(ListContainers, containers, Container)), N);

        CHECK_EQ(CALL(StreamContainers), 0);
        CHECK_EQ(call.n_sent, N / STREAM_BATCH_MAX);
        CHECK_EQ(strlen(LISTED(StreamContainers, containers, Container)), N);
        for (size_t i = 0; i < N; i++)
                CHECK_EQ(many[i].n_ref, 0);
        /* a remainder is a batch of its own; nothing is no message at all */
        CHECK_EQ(CALL(StreamContainers, .has_filter = true,
                      .filter.id = s("00000000000000000000000000000000"
                                     "000000000000000000000000000010")),
                 0);
        CHECK_EQ(call.n_sent, 1);
        CHECK_EQ(strlen(LISTED(StreamContainers, containers, Container)), 256);
        CHECK_EQ(CALL(StreamContainers, .has_filter = true, .filter.id = s("f")), 0);
        CHECK_EQ(call.n_sent, 0);

        CHECK_EQ(CALL(StreamPodSandboxes), 0);
        CHECK_STREQ(LISTED(StreamPodSandboxes, pod_sandboxes, PodSandbox), "ab");
        CHECK_EQ(CALL(StreamImages), 0);
        CHECK_STREQ(LISTED(StreamImages, images, Image), "abc");
        HASH_CLEAR(hh, manager.containers);
        free(many);
}

/* --- events ----------------------------------------------------------------------------------------------------- */

static int events_result;

static int events_fiber(void *userdata) {
        events_result = call_raw("GetContainerEvents", "", 0);
        return events_result;
}

static void emit(ManagerEvent event, Pod *p, Container *k) {
        ManagerSubscription *sub = manager.subscriptions;

        CHECK(sub);
        manager.event_usec = 1700000000000001;
        sub->func(&manager, event, p, k, sub->userdata);
}

static void check_event(size_t i, const char *id, runtime_v1_ContainerEventType type, size_t n_containers) {
        runtime_v1_ContainerEventResponse e = {};

        decode_reply(i, runtime_v1_ContainerEventResponse_fields, &e);
        CHECK_STREQ(e.container_id, id);
        CHECK_EQ(e.container_event_type, type);
        CHECK(e.created_at == 1700000000000001000);
        CHECK_STREQ(e.pod_sandbox_status.id, pods[0].id);
        CHECK_EQ(e.containers_statuses_count, n_containers);
        pb_release(runtime_v1_ContainerEventResponse_fields, &e);
}

static int events_script(void *userdata) {
        sd_event *event = userdata;
        Fiber *f;
        int r;

        CHECK_EQ(fiber_spawn(event, "events", events_fiber, NULL, NULL, &f), 0);
        emit(MANAGER_POD_ADDED, &pods[0], NULL);
        emit(MANAGER_CONTAINER_CREATED, &pods[0], &containers[0]);
        emit(MANAGER_CONTAINER_STARTED, &pods[0], &containers[0]);
        CHECK_EQ(fiber_yield(), 0);
        emit(MANAGER_CONTAINER_STOPPED, &pods[0], &containers[0]);
        emit(MANAGER_CONTAINER_REMOVED, &pods[0], &containers[0]);
        emit(MANAGER_POD_CHANGED, &pods[0], NULL); /* still ready: nothing to tell */
        pods[0].phase = POD_NOT_READY;
        emit(MANAGER_POD_CHANGED, &pods[0], NULL);
        emit(MANAGER_POD_REMOVED, &pods[0], NULL);
        cri_end_streams(cri);
        CHECK_EQ(fiber_join(f, &r), 0);
        fiber_unref(f);
        return r;
}

static void test_events(void) {
        sd_event *event = NULL;

        build();
        CHECK_EQ(sd_event_new(&event), 0);
        CHECK_EQ(fiber_run(event, events_script, event), 0);
        CHECK_EQ(call.n_sent, 8);
        check_event(0, pods[0].id, runtime_v1_ContainerEventType_CONTAINER_CREATED_EVENT, 2);
        check_event(1, pods[0].id, runtime_v1_ContainerEventType_CONTAINER_STARTED_EVENT, 2);
        check_event(2, containers[0].id, runtime_v1_ContainerEventType_CONTAINER_CREATED_EVENT, 2);
        check_event(3, containers[0].id, runtime_v1_ContainerEventType_CONTAINER_STARTED_EVENT, 2);
        check_event(4, containers[0].id, runtime_v1_ContainerEventType_CONTAINER_STOPPED_EVENT, 2);
        check_event(5, containers[0].id, runtime_v1_ContainerEventType_CONTAINER_DELETED_EVENT, 1);
        check_event(6, pods[0].id, runtime_v1_ContainerEventType_CONTAINER_STOPPED_EVENT, 2);
        check_event(7, pods[0].id, runtime_v1_ContainerEventType_CONTAINER_DELETED_EVENT, 2);
        CHECK(!manager.subscriptions);

        /* after that, nobody gets a stream that would keep the daemon */
        CHECK(call_raw("GetContainerEvents", "", 0) < 0);
        CHECK_EQ(last_error.code, GRPC_UNAVAILABLE);
        cri->ending = false;
        sd_event_unref(event);
}

static int cancel_script(void *userdata) {
        Fiber *f;
        int r;

        CHECK_EQ(fiber_spawn(userdata, "events", events_fiber, NULL, NULL, &f), 0);
        CHECK(manager.subscriptions);
        emit(MANAGER_POD_ADDED, &pods[0], NULL);
        fiber_cancel(f);
        CHECK_EQ(fiber_join(f, &r), 0);
        fiber_unref(f);
        return r;
}

static void test_events_cancelled(void) {
        sd_event *event = NULL;

        build();
        CHECK_EQ(sd_event_new(&event), 0);
        CHECK_EQ(fiber_run(event, cancel_script, event), -ECANCELED);
        CHECK(!manager.subscriptions);
        CHECK(!cri->event_streams);
        sd_event_unref(event);
}

static int flood_script(void *userdata) {
        Fiber *f;
        int r;

        CHECK_EQ(fiber_spawn(userdata, "events", events_fiber, NULL, NULL, &f), 0);
        for (int i = 0; i < 20; i++) /* more than a MiB each, and nobody reads */
                emit(MANAGER_CONTAINER_STARTED, &pods[0], &containers[0]);
        CHECK_EQ(fiber_join(f, &r), 0);
        fiber_unref(f);
        return r;
}

static void test_events_unread(void) {
        _cleanup_free_ char *text = malloc(1024 * 1024 + 1);
        sd_event *event = NULL;

        build();
        CHECK(text);
        memset(text, 'x', 1024 * 1024);
        text[1024 * 1024] = '\0';
        containers[0].message = text;
        CHECK_EQ(sd_event_new(&event), 0);
        CHECK(fiber_run(event, flood_script, event) < 0);
        CHECK_EQ(last_error.code, GRPC_RESOURCE_EXHAUSTED);
        CHECK_EQ(call.n_sent, 15); /* those before the limit came, in order */
        CHECK(!manager.subscriptions);
        sd_event_unref(event);
}

int main(void) {
        static const TestCase cases[] = {
                TEST_CASE(test_many_containers),
                TEST_CASE(test_events),
                TEST_CASE(test_events_cancelled),
                TEST_CASE(test_events_unread),
        };

        return run_tests(cases, ELEMENTSOF(cases));
}
