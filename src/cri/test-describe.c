/* Pods, containers and images as the CRI describes them, and the filters of lists. */

#include <signal.h>

#include "basic/json-util.h"
#include "cri/describe.h"
#include "cri/test-call.h"

static void test_list_pods(void) {
        static runtime_v1_PodSandboxFilter_LabelSelectorEntry shop[] = {
                { (char *) "app", (char *) "shop" },
                { (char *) "tier", (char *) "web" },
        };
        static runtime_v1_PodSandboxFilter_LabelSelectorEntry old[] = { { (char *) "app", (char *) "old" } };

        build();
#define PODS LISTED(ListPodSandbox, items, PodSandbox)
        CHECK_EQ(CALL(ListPodSandbox), 0);
        CHECK_STREQ(PODS, "ab");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true), 0);
        CHECK_STREQ(PODS, "ab");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.id = s("aaaa")), 0);
        CHECK_STREQ(PODS, "a");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.id = s("ab")), 0);
        CHECK_STREQ(PODS, "");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.id = s("c")), 0);
        CHECK_STREQ(PODS, "");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.has_state = true), 0);
        CHECK_STREQ(PODS, "a");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.has_state = true,
                      .filter.state.state = runtime_v1_PodSandboxState_SANDBOX_NOTREADY),
                 0);
        CHECK_STREQ(PODS, "b");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.label_selector = shop,
                      .filter.label_selector_count = 2),
                 0);
        CHECK_STREQ(PODS, "a");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.label_selector = old,
                      .filter.label_selector_count = 1),
                 0);
        CHECK_STREQ(PODS, "");
}

static void test_list_containers(void) {
        static runtime_v1_ContainerFilter_LabelSelectorEntry shop[] = { { (char *) "app", (char *) "shop" } };
        static runtime_v1_ContainerFilter_LabelSelectorEntry none[] = { { (char *) "none", (char *) "" } };
        static const struct {
                runtime_v1_ContainerState state;
                const char *ids;
        } states[] = {
                { runtime_v1_ContainerState_CONTAINER_CREATED, "" },
                { runtime_v1_ContainerState_CONTAINER_RUNNING, "1" },
                { runtime_v1_ContainerState_CONTAINER_EXITED, "2" },
                { runtime_v1_ContainerState_CONTAINER_UNKNOWN, "3" },
        };

        build();
#define CONTAINERS LISTED(ListContainers, containers, Container)
        CHECK_EQ(CALL(ListContainers), 0);
        CHECK_STREQ(CONTAINERS, "123");
        CHECK_EQ(CALL(ListContainers, .has_filter = true, .filter.id = s("22")), 0);
        CHECK_STREQ(CONTAINERS, "2");
        CHECK_EQ(CALL(ListContainers, .has_filter = true, .filter.pod_sandbox_id = s("aaa")), 0);
        CHECK_STREQ(CONTAINERS, "12");
        CHECK_EQ(CALL(ListContainers, .has_filter = true, .filter.pod_sandbox_id = s("b"), .filter.id = s("1")), 0);
        CHECK_STREQ(CONTAINERS, "");
        for (size_t i = 0; i < ELEMENTSOF(states); i++) {
                CHECK_EQ(CALL(ListContainers, .has_filter = true, .filter.has_state = true,
                              .filter.state.state = states[i].state),
                         0);
                CHECK_STREQ(CONTAINERS, states[i].ids);
        }
        CHECK_EQ(CALL(ListContainers, .has_filter = true, .filter.label_selector = shop,
                      .filter.label_selector_count = 1),
                 0);
        CHECK_STREQ(CONTAINERS, "1");
        CHECK_EQ(CALL(ListContainers, .has_filter = true, .filter.label_selector = none,
                      .filter.label_selector_count = 1),
                 0);
        CHECK_STREQ(CONTAINERS, "");
}

static void test_pod_status(void) {
        static char *ips[] = { (char *) "10.0.0.7", (char *) "fd00::7", (char *) "fd01::7", NULL };
        runtime_v1_PodSandboxStatusResponse reply = {};
        runtime_v1_NamespaceOption *options;
        _cleanup_json_ json_t *info = NULL;
        const json_t *namespaces;

        build();
        pods[0].ips = ips;
        pods[0].network_json = s("{\"cniVersion\":\"1.0.0\"}");
        pods[0].engine_state.pid = 4711;
        pods[0].request.config.has_linux = true;
        pods[0].request.config.linux.has_security_context = true;
        pods[0].request.config.linux.security_context.has_namespace_options = true;
        options = &pods[0].request.config.linux.security_context.namespace_options;
        options->pid = runtime_v1_NamespaceMode_CONTAINER;
        options->ipc = runtime_v1_NamespaceMode_NODE;
        pods[0].request.runtime_handler = s("crun");
        CHECK_EQ(CALL(PodSandboxStatus, .pod_sandbox_id = s("aa"), .verbose = true), 0);
        REPLY(PodSandboxStatus, &reply);
        CHECK_STREQ(reply.status.id, pods[0].id);
        CHECK_STREQ(reply.status.metadata.name, "web");
        CHECK_STREQ(reply.status.metadata.uid, "uid-1");
        CHECK_STREQ(reply.status.metadata.namespace, "default");
        CHECK_EQ(reply.status.metadata.attempt, 2);
        CHECK_EQ(reply.status.state, runtime_v1_PodSandboxState_SANDBOX_READY);
        CHECK_EQ(reply.status.created_at, 1700000000000001000);
        CHECK_STREQ(reply.status.network.ip, "10.0.0.7");
        CHECK_EQ(reply.status.network.additional_ips_count, 2);
        CHECK_STREQ(reply.status.network.additional_ips[1].ip, "fd01::7");
        CHECK_EQ(reply.status.linux.namespaces.options.pid, runtime_v1_NamespaceMode_CONTAINER);
        CHECK_EQ(reply.status.linux.namespaces.options.ipc, runtime_v1_NamespaceMode_NODE);
        CHECK_EQ(reply.status.labels_count, 3);
        CHECK_STREQ(reply.status.labels[1].value, "web");
        CHECK_EQ(reply.status.annotations_count, 1);
        CHECK_STREQ(reply.status.annotations[0].key, "note");
        CHECK_STREQ(reply.status.runtime_handler, "crun");
        CHECK_EQ(reply.containers_statuses_count, 2);
        CHECK(reply.timestamp > 1700000000000000000);
        CHECK_EQ(json_parse(reply.info[0].value, strlen(reply.info[0].value), &info, NULL), 0);
        CHECK_EQ(json_integer_value(json_object_get(info, "pid")), 4711);
        CHECK_STREQ(json_get_string(info, "slice"), "kubepods.slice");
        namespaces = json_get_array(json_get_object(json_get_object(info, "runtimeSpec"), "linux"), "namespaces");
        /* mount, network, uts: PID and IPC are not the pod's here */
        CHECK_EQ(json_array_size(namespaces), 3);
        CHECK_STREQ(json_get_string(json_array_get(namespaces, 1), "type"), "network");
        CHECK_STREQ(json_get_string(json_array_get(namespaces, 1), "path"), "/proc/4711/ns/net");
        CHECK_STREQ(json_get_string(json_get_object(info, "cniResult"), "cniVersion"), "1.0.0");
        CHECK_STREQ(json_get_string(json_get_object(json_get_object(info, "config"), "labels"), "tier"), "web");
        CHECK_STREQ(json_get_string(json_get_object(json_get_object(info, "config"), "metadata"), "namespace"),
                    "default");
        RELEASE(PodSandboxStatus, &reply);

        /* the host's network: the message is there, without an address */
        CHECK_EQ(CALL(PodSandboxStatus, .pod_sandbox_id = s("b")), 0);
        REPLY(PodSandboxStatus, &reply);
        CHECK(reply.status.has_network);
        CHECK(isempty(reply.status.network.ip));
        CHECK_EQ(reply.status.state, runtime_v1_PodSandboxState_SANDBOX_NOTREADY);
        CHECK(reply.status.linux.namespaces.has_options);
        CHECK_EQ(reply.info_count, 0);
        RELEASE(PodSandboxStatus, &reply);

        CHECK(CALL(PodSandboxStatus, .pod_sandbox_id = s("f")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
}

static void test_container_status(void) {
        runtime_v1_ContainerStatusResponse reply = {};
        const runtime_v1_ContainerStatus *status = &reply.status;
        _cleanup_json_ json_t *info = NULL;
        json_t *config;

        build();
        fill_container(&containers[1]);
        CHECK_EQ(CALL(ContainerStatus, .container_id = s("22"), .verbose = true), 0);
        REPLY(ContainerStatus, &reply);
        CHECK_STREQ(status->id, containers[1].id);
        CHECK_STREQ(status->metadata.name, "init");
        CHECK_EQ(status->metadata.attempt, 1);
        CHECK_EQ(status->state, runtime_v1_ContainerState_CONTAINER_EXITED);
        CHECK_EQ(status->created_at, 1700000000000002000);
        CHECK_EQ(status->started_at, 1700000000000003000);
        CHECK_EQ(status->finished_at, 1700000000000004000);
        CHECK_EQ(status->exit_code, 137);
        CHECK_STREQ(status->image.image, "nginx");
        CHECK_STREQ(status->image_ref, "sha256:aa");
        CHECK_STREQ(status->image_id, "sha256:aa");
        CHECK_STREQ(status->reason, "OOMKilled");
        CHECK_STREQ(status->message, "out of memory");
        CHECK_STREQ(status->log_path, "/var/log/pods/x/main/0.log");
        CHECK_EQ(status->mounts_count, 2);
        CHECK_STREQ(status->mounts[0].host_path, "/srv");
        CHECK_EQ(status->mounts[0].propagation, runtime_v1_MountPropagation_PROPAGATION_BIDIRECTIONAL);
        CHECK_STREQ(status->mounts[1].image.image, "data:1");
        CHECK_EQ(status->resources.linux.cpu_shares, 512);
        CHECK_EQ(status->resources.linux.oom_score_adj, -5);
        CHECK_EQ(status->user.linux.uid, 1000);
        CHECK_EQ(status->user.linux.gid, 2000);
        CHECK_EQ(status->user.linux.supplemental_groups_count, 2);
        CHECK_EQ(status->user.linux.supplemental_groups[1], 6);
        CHECK_EQ(status->stop_signal, runtime_v1_Signal_SIGQUIT);
        CHECK_EQ(json_parse(reply.info[0].value, strlen(reply.info[0].value), &info, NULL), 0);
        CHECK_EQ(json_integer_value(json_object_get(info, "pid")), 99);
        CHECK_STREQ(json_get_string(info, "sandboxID"), pods[0].id);
        config = json_get_object(info, "config");
        CHECK_STREQ(json_string_value(json_array_get(json_get_array(config, "args"), 1)), "exit 3");
        CHECK_EQ(json_integer_value(json_object_get(json_get_object(json_get_object(config, "linux"), "resources"),
                                                    "oom_score_adj")),
                 -5);
        CHECK_STREQ(json_get_string(json_array_get(json_get_array(config, "envs"), 0), "value"), "\xef\xbf\xbdx");
        RELEASE(ContainerStatus, &reply);

        /* what is not known is not there */
        CHECK_EQ(CALL(ContainerStatus, .container_id = s("1")), 0);
        REPLY(ContainerStatus, &reply);
        CHECK(!status->has_user);
        CHECK(!status->has_resources);
        CHECK_EQ(status->finished_at, 0);
        CHECK_EQ(status->stop_signal, runtime_v1_Signal_RUNTIME_DEFAULT);
        CHECK_EQ(reply.info_count, 0);
        RELEASE(ContainerStatus, &reply);
}

static void test_container_image_name(void) {
        static const struct {
                const char *image, *user_specified, *expect;
        } cases[] = {
                { "nginx", NULL, "nginx" },
                { "sha256:aa", NULL, "docker.io/library/nginx:1" },
                { "sha256:aa", "nginx:2", "docker.io/library/nginx:2" },
                { "sha256:aa", "nginx:7", "docker.io/library/nginx:1" },
        };
        Arena arena = ARENA_INIT;
        runtime_v1_ContainerStatus status;

        build();
        containers[0].image = &images[0];
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                containers[0].request.config.image.image = s(cases[i].image);
                containers[0].request.config.image.user_specified_image = (char *) cases[i].user_specified;
                CHECK_EQ(container_describe_status(&containers[0], &arena, &status), 0);
                CHECK_STREQ(status.image.image, cases[i].expect);
        }
        /* the image is gone, or has no name any more */
        containers[0].image = NULL;
        CHECK_EQ(container_describe_status(&containers[0], &arena, &status), 0);
        CHECK_STREQ(status.image.image, "sha256:aa");
        containers[0].image = &images[2];
        CHECK_EQ(container_describe_status(&containers[0], &arena, &status), 0);
        CHECK_STREQ(status.image.image, "sha256:aa");
        arena_done(&arena);
}

static void test_signals(void) {
        CHECK_EQ(signal_to_cri(SIGTERM), 23);
        CHECK_EQ(signal_to_cri(SIGKILL), 13);
        CHECK_EQ(signal_to_cri(SIGRTMIN), 35);
        CHECK_EQ(signal_to_cri(SIGRTMIN + 3), runtime_v1_Signal_SIGRTMINPLUS3);
        CHECK_EQ(signal_to_cri(SIGRTMAX - 14), runtime_v1_Signal_SIGRTMAXMINUS14);
        CHECK_EQ(signal_to_cri(SIGRTMAX), 65);
        CHECK_EQ(signal_to_cri(0), 0);
        CHECK_EQ(signal_to_cri(32), 0);
        CHECK_EQ(signal_to_cri(-1), 0);
        CHECK_EQ(signal_to_cri(65), 0);
        for (int i = 1; i < 32; i++)
                CHECK(signal_to_cri(i) != runtime_v1_Signal_RUNTIME_DEFAULT);
}

static void test_images(void) {
        runtime_v1_ImageStatusResponse reply = {};
        runtime_v1_ImageFsInfoResponse fs = {};

        build();
#define IMAGES LISTED(ListImages, images, Image)
        CHECK_EQ(CALL(ListImages), 0);
        CHECK_STREQ(IMAGES, "abc");
        CHECK_EQ(CALL(ListImages, .has_filter = true, .filter.has_image = true,
                      .filter.image.image = s("docker.io/library/nginx:2")),
                 0);
        CHECK_STREQ(IMAGES, "a");
        CHECK_EQ(CALL(ListImages, .has_filter = true, .filter.has_image = true, .filter.image.image = s("other")), 0);
        CHECK_STREQ(IMAGES, "");

        CHECK_EQ(CALL(ImageStatus, .has_image = true, .image.image = s("sha256:aa")), 0);
        REPLY(ImageStatus, &reply);
        CHECK(reply.has_image);
        CHECK_STREQ(reply.image.id, "sha256:aa");
        CHECK_EQ(reply.image.repo_tags_count, 2);
        CHECK_STREQ(reply.image.repo_digests[0], "docker.io/library/nginx@sha256:cc");
        CHECK_EQ(reply.image.size, 1234);
        CHECK(!reply.image.has_uid);
        CHECK(isempty(reply.image.username));
        CHECK(!reply.image.pinned);
        RELEASE(ImageStatus, &reply);
        CHECK_EQ(CALL(ImageStatus, .has_image = true, .image.image = s("sha256:bb")), 0);
        REPLY(ImageStatus, &reply);
        CHECK(reply.image.has_uid);
        CHECK_EQ(reply.image.uid.value, 1000);
        CHECK(reply.image.pinned);
        RELEASE(ImageStatus, &reply);
        CHECK_EQ(CALL(ImageStatus, .has_image = true, .image.image = s("sha256:cc")), 0);
        REPLY(ImageStatus, &reply);
        CHECK(!reply.image.has_uid);
        CHECK_STREQ(reply.image.username, "www-data");
        RELEASE(ImageStatus, &reply);
        CHECK_EQ(CALL(ImageStatus, .has_image = true, .image.image = s("unknown"), .verbose = true), 0);
        REPLY(ImageStatus, &reply);
        CHECK(!reply.has_image);
        CHECK_EQ(reply.info_count, 0);
        CHECK(CALL(ImageStatus) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK(CALL(RemoveImage) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK_EQ(CALL(RemoveImage, .has_image = true, .image.image = s("unknown")), 0);

        CHECK_EQ(CALL(ImageFsInfo), 0);
        REPLY(ImageFsInfo, &fs);
        CHECK_EQ(fs.image_filesystems_count, 1);
        CHECK_EQ(fs.image_filesystems[0].timestamp, 7000000001);
        CHECK_STREQ(fs.image_filesystems[0].fs_id.mountpoint, "/var");
        CHECK_EQ(fs.image_filesystems[0].used_bytes.value, 4096);
        CHECK_EQ(fs.image_filesystems[0].inodes_used.value, 3);
        RELEASE(ImageFsInfo, &fs);
}

/* ImageStatus verbose carries the image's own configuration. */
static void test_image_info(void) {
        runtime_v1_ImageStatusResponse reply = {};
        _cleanup_json_ json_t *info = NULL;

        build();
        images[0].config_json = s("{\"architecture\":\"amd64\"}");
        images[0].manifest_digest = s("sha256:dd");
        CHECK_EQ(CALL(ImageStatus, .has_image = true, .image.image = s("sha256:aa"), .verbose = true), 0);
        REPLY(ImageStatus, &reply);
        CHECK_EQ(json_parse(reply.info[0].value, strlen(reply.info[0].value), &info, NULL), 0);
        CHECK_STREQ(json_get_string(info, "manifestDigest"), "sha256:dd");
        CHECK_STREQ(json_get_string(json_get_object(info, "imageSpec"), "architecture"), "amd64");
        RELEASE(ImageStatus, &reply);
}

static void test_pull(void) {
        runtime_v1_PullImageResponse reply = {};

        build();
        CHECK_EQ(CALL(PullImage, .has_image = true, .image.image = s("nginx")), 0);
        CHECK(!stub.auth);
        REPLY(PullImage, &reply);
        CHECK_STREQ(reply.image_ref, "sha256:aa");
        RELEASE(PullImage, &reply);
        CHECK_EQ(images[0].n_ref, 0);
        CHECK_EQ(CALL(PullImage, .has_image = true, .image.image = s("nginx"), .has_auth = true,
                      .auth = { s("u"), s("p"), s("a"), s("srv"), s("i"), s("r") }),
                 0);
        CHECK_STREQ(stub.auth, "u|p|a|srv|i|r");
        stub.result = -ENOENT;
        CHECK(CALL(PullImage, .has_image = true, .image.image = s("nginx")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
        CHECK(CALL(PullImage) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
}

int main(void) {
        static const TestCase cases[] = {
                TEST_CASE(test_list_pods),
                TEST_CASE(test_list_containers),
                TEST_CASE(test_pod_status),
                TEST_CASE(test_container_status),
                TEST_CASE(test_container_image_name),
                TEST_CASE(test_signals),
                TEST_CASE(test_images),
                TEST_CASE(test_image_info),
                TEST_CASE(test_pull),
        };

        return run_tests(cases, ELEMENTSOF(cases));
}
