/* The table of methods, and what the runtime says of itself; idempotence, limits and errors of the others. */

#include "basic/json-util.h"
#include "cri/test-call.h"

static void test_all_methods_are_there(void) {
        const GrpcMethod *methods = cri_methods();
        size_t n = 0, unimplemented = 0;

        build();
        for (const GrpcMethod *m = methods; m->path; m++, n++) {
                const CriMethod *detail = m->data;

                CHECK(startswith(m->path, "/runtime.v1.RuntimeService/") ||
                      startswith(m->path, "/runtime.v1.ImageService/"));
                CHECK_STREQ(strrchr(m->path, '/') + 1, detail->name);
                for (const GrpcMethod *o = methods; o < m; o++)
                        CHECK(!streq(o->path, m->path));
                CHECK_EQ(m->streaming,
                         startswith(detail->name, "Stream") || streq(detail->name, "GetContainerEvents"));
                if (detail->serve)
                        continue;
                unimplemented++;
                CHECK(call_raw(detail->name, "", 0) < 0);
                CHECK_EQ(last_error.code, GRPC_UNIMPLEMENTED);
                CHECK(strstr(last_error.message, detail->name));
        }
        CHECK_EQ(n, 41);
        CHECK(unimplemented < n);
}

static void test_damaged_requests(void) {
        build();
        CHECK_EQ(call_raw("ContainerStatus", "\x0a\x05x", 3), -EINVAL);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK_EQ(call_raw("StopContainer", "\x0a\x01\xff", 3), -EINVAL);
        CHECK(strstr(last_error.message, "not UTF-8"));
        CHECK_EQ(call.n_sent, 0);
}

static void test_version_while_loading(void) {
        runtime_v1_VersionResponse version = {};

        build();
        stub.loaded = -1;
        CHECK_EQ(CALL(Version), 0);
        REPLY(Version, &version);
        CHECK_STREQ(version.version, "0.1.0");
        CHECK_STREQ(version.runtime_name, "rktlet");
        CHECK_STREQ(version.runtime_version, PROJECT_VERSION);
        CHECK_STREQ(version.runtime_api_version, "v1");
        RELEASE(Version, &version);
        CHECK(CALL(Status) < 0);
        CHECK_EQ(last_error.code, GRPC_UNAVAILABLE);
}

static void test_status(void) {
        runtime_v1_StatusResponse status = {};
        _cleanup_json_ json_t *info = NULL;

        build();
        CHECK_EQ(CALL(Status, .verbose = true), 0);
        REPLY(Status, &status);
        CHECK_EQ(status.status.conditions_count, 2);
        CHECK_STREQ(status.status.conditions[0].type, "RuntimeReady");
        CHECK(status.status.conditions[0].status);
        CHECK_STREQ(status.status.conditions[1].type, "NetworkReady");
        CHECK(status.status.conditions[1].status);
        CHECK_EQ(status.runtime_handlers_count, 1);
        CHECK(status.runtime_handlers[0].has_features);
        CHECK_EQ(status.info_count, 1);
        CHECK_EQ(json_parse(status.info[0].value, strlen(status.info[0].value), &info, NULL), 0);
        CHECK_EQ(json_integer_value(json_object_get(info, "containers")), 4);
        CHECK_STREQ(json_get_string(info, "systemdVersion"), "252");
        RELEASE(Status, &status);

        stub.network = stub.systemd = -1;
        CHECK_EQ(CALL(Status), 0);
        REPLY(Status, &status);
        CHECK(!status.status.conditions[0].status);
        CHECK_STREQ(status.status.conditions[0].message, "no bus");
        CHECK(!status.status.conditions[1].status);
        CHECK_STREQ(status.status.conditions[1].reason, "NetworkPluginNotReady");
        CHECK_STREQ(status.status.conditions[1].message, "no conf in /etc/cni/net.d");
        CHECK_EQ(status.info_count, 0);
        RELEASE(Status, &status);
}

static void test_runtime_config(void) {
        runtime_v1_RuntimeConfigResponse config = {};

        build();
        CHECK_EQ(CALL(RuntimeConfig), 0);
        REPLY(RuntimeConfig, &config);
        CHECK(config.has_linux);
        CHECK_EQ(config.linux.cgroup_driver, runtime_v1_CgroupDriver_SYSTEMD);
        CHECK_EQ(CALL(UpdateRuntimeConfig, .has_runtime_config = true, .runtime_config.has_network_config = true,
                      .runtime_config.network_config.pod_cidr = s("10.0.0.0/24")),
                 0);
        CHECK_EQ(call.n_sent, 1);
        CHECK_STREQ(stub.pod_cidrs, "10.0.0.0/24");
        stub.network = -1;
        CHECK(CALL(UpdateRuntimeConfig, .has_runtime_config = true, .runtime_config.has_network_config = true,
                   .runtime_config.network_config.pod_cidr = s("x")) < 0);
        /* Without one there is nothing to do. */
        CHECK_EQ(CALL(UpdateRuntimeConfig), 0);
}

static void test_idempotent_calls(void) {
        build();
        CHECK_EQ(CALL(StopPodSandbox, .pod_sandbox_id = s("ffff")), 0);
        CHECK_EQ(call.n_sent, 1);
        CHECK_EQ(CALL(RemovePodSandbox, .pod_sandbox_id = s("ffff")), 0);
        CHECK_EQ(CALL(StopContainer, .container_id = s("ffff")), 0);
        CHECK_EQ(CALL(RemoveContainer, .container_id = s("ffff")), 0);
        CHECK(!stub.pod && !stub.container);

        CHECK_EQ(CALL(StopPodSandbox, .pod_sandbox_id = s("aa")), 0);
        CHECK(stub.pod == &pods[0]);
        CHECK_EQ(CALL(RemovePodSandbox, .pod_sandbox_id = s("bb")), 0);
        CHECK(stub.pod == &pods[1]);
        CHECK_EQ(CALL(RemoveContainer, .container_id = s("3")), 0);
        CHECK(stub.container == &containers[2]);

        /* what is not the same as unknown */
        CHECK(CALL(StopPodSandbox) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK(CALL(RemoveContainer, .container_id = s("ambiguous")) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK_EQ(call.n_sent, 0);
}

static void test_stop_timeouts(void) {
        static const struct {
                int64_t seconds;
                uint64_t usec;
        } cases[] = {
                { 0, 0 },
                { 7, 7 * USEC_PER_SEC },
                { -1, 0 },
                { INT64_MAX, 10 * UINT64_C(365) * 24 * 3600 * USEC_PER_SEC },
        };

        build();
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                stub.timeout_usec = 1;
                CHECK_EQ(CALL(StopContainer, .container_id = s("1"), .timeout = cases[i].seconds), 0);
                CHECK_EQ(stub.timeout_usec, cases[i].usec);
        }
}

static void test_unknown_ones(void) {
        build();
        CHECK(CALL(StartContainer, .container_id = s("ffff")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
        CHECK(CALL(ContainerStatus, .container_id = s("ffff")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
        CHECK(CALL(ReopenContainerLog, .container_id = s("ffff")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
        CHECK(CALL(ExecSync, .container_id = s("ffff"), .cmd = (char *[]){ s("true") }, .cmd_count = 1) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
}

static void test_failures_are_told(void) {
        build();
        stub.result = -EBUSY;
        CHECK(CALL(StopPodSandbox, .pod_sandbox_id = s("a")) < 0);
        CHECK(strstr(last_error.message, "cannot stop the pod"));
        CHECK(CALL(StartContainer, .container_id = s("1")) < 0);
        CHECK(strstr(last_error.message, "cannot start the container"));
        CHECK(call_raw("RunPodSandbox", "", 0) < 0);
        CHECK(strstr(last_error.message, "cannot run the pod"));
        CHECK(call_raw("CreateContainer", "", 0) < 0);
        CHECK(strstr(last_error.message, "cannot create the container"));
        CHECK_EQ(call.n_sent, 0);
}

static void test_raw_requests_pass_unchanged(void) {
        static const char raw[] = "whatever it is";
        runtime_v1_RunPodSandboxResponse run = {};
        runtime_v1_CreateContainerResponse create = {};

        build();
        CHECK_EQ(call_raw("RunPodSandbox", raw, sizeof raw), 0);
        CHECK(stub.raw == raw);
        CHECK_EQ(stub.raw_size, sizeof raw);
        REPLY(RunPodSandbox, &run);
        CHECK_STREQ(run.pod_sandbox_id, pods[0].id);
        RELEASE(RunPodSandbox, &run);
        CHECK_EQ(call_raw("CreateContainer", raw, sizeof raw - 1), 0);
        CHECK_EQ(stub.raw_size, sizeof raw - 1);
        REPLY(CreateContainer, &create);
        CHECK_STREQ(create.container_id, containers[0].id);
        RELEASE(CreateContainer, &create);
}

static bool collect_size(pb_istream_t *stream, const pb_field_iter_t *field, void **arg) {
        *(size_t *) *arg = stream->bytes_left;
        return pb_read(stream, NULL, stream->bytes_left);
}

static void test_exec_sync(void) {
        static char *cmd[] = { (char *) "sh", (char *) "-c", (char *) "" };
        static const struct {
                size_t out, err, expect_out, expect_err;
        } cases[] = {
                { 0, 0, 0, 0 },
                { 3, 2, 3, 2 },
                { GRPC_MESSAGE_MAX, 0, GRPC_MESSAGE_MAX - 64, 0 },
                { 0, GRPC_MESSAGE_MAX, 0, GRPC_MESSAGE_MAX - 64 },
                { GRPC_MESSAGE_MAX, GRPC_MESSAGE_MAX, GRPC_MESSAGE_MAX / 2 - 32, GRPC_MESSAGE_MAX / 2 - 32 },
                { GRPC_MESSAGE_MAX, 1000, GRPC_MESSAGE_MAX - 64 - 1000, 1000 },
                { 1000, GRPC_MESSAGE_MAX, 1000, GRPC_MESSAGE_MAX - 64 - 1000 },
        };
        _cleanup_free_ char *output = malloc(GRPC_MESSAGE_MAX);

        build();
        CHECK(output);
        memset(output, 0xff, GRPC_MESSAGE_MAX);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                size_t out = 0, err = 0;
                runtime_v1_ExecSyncResponse reply = {
                        .stdout = { { .decode = collect_size }, &out },
                        .stderr = { { .decode = collect_size }, &err },
                };

                stub.exec = (EngineExecResult) { 3, output, output, cases[i].out, cases[i].err };
                CHECK_EQ(CALL(ExecSync, .container_id = s("1"), .cmd = cmd, .cmd_count = 3, .timeout = 5), 0);
                CHECK_EQ(stub.timeout_usec, 5 * USEC_PER_SEC);
                CHECK_STREQ(stub.argv, "sh|-c|");
                REPLY(ExecSync, &reply);
                CHECK_EQ(reply.exit_code, 3);
                CHECK_EQ(out, cases[i].expect_out);
                CHECK_EQ(err, cases[i].expect_err);
        }

        CHECK(CALL(ExecSync, .container_id = s("1")) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK(CALL(ExecSync, .container_id = s("1"), .cmd = cmd, .cmd_count = 3, .timeout = -1) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        stub.result = -ETIMEDOUT;
        CHECK(CALL(ExecSync, .container_id = s("1"), .cmd = cmd, .cmd_count = 3, .timeout = 2) < 0);
        CHECK_EQ(last_error.code, GRPC_DEADLINE_EXCEEDED);
        CHECK(strstr(last_error.message, "2 seconds"));
}

int main(void) {
        static const TestCase cases[] = {
                TEST_CASE(test_all_methods_are_there),
                TEST_CASE(test_damaged_requests),
                TEST_CASE(test_version_while_loading),
                TEST_CASE(test_status),
                TEST_CASE(test_runtime_config),
                TEST_CASE(test_idempotent_calls),
                TEST_CASE(test_stop_timeouts),
                TEST_CASE(test_unknown_ones),
                TEST_CASE(test_failures_are_told),
                TEST_CASE(test_raw_requests_pass_unchanged),
                TEST_CASE(test_exec_sync),
        };

        return run_tests(cases, ELEMENTSOF(cases));
}
