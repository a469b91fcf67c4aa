/* The handlers of figures, metrics and limits. */

#include <math.h>

#include "cri/test-call.h"

static void test_a_containers_figures(void) {
        runtime_v1_ContainerStatsResponse r = {};

        build();
        containers[0].layer = (LayerUsage) { { 4096, 3 }, 99, 0, false, false };
        CHECK_EQ(CALL(ContainerStats, .container_id = s("11")), 0);
        CHECK_EQ(stub.measured, 1);
        REPLY(ContainerStats, &r);
        CHECK_STREQ(r.stats.attributes.id, containers[0].id);
        CHECK_STREQ(r.stats.attributes.metadata.name, "main");
        CHECK_EQ(r.stats.attributes.labels_count, 3);
        CHECK_EQ(r.stats.cpu.timestamp, 1700000000000000005);
        CHECK_EQ(r.stats.cpu.usage_core_nano_seconds.value, 61000000000);
        CHECK_EQ(r.stats.cpu.usage_nano_cores.value, 250000000);
        CHECK(!r.stats.cpu.has_psi && !r.stats.has_io);
        CHECK_EQ(r.stats.memory.working_set_bytes.value, 900);
        CHECK_EQ(r.stats.memory.available_bytes.value, 4100);
        CHECK_EQ(r.stats.memory.usage_bytes.value, 1000);
        CHECK_EQ(r.stats.memory.rss_bytes.value, 800);
        CHECK_EQ(r.stats.memory.page_faults.value, 30);
        CHECK_EQ(r.stats.memory.major_page_faults.value, 3);
        CHECK_EQ(r.stats.memory.psi.Some.Total, 4000000);
        CHECK(fabs(r.stats.memory.psi.Some.Avg60 - 2.5) < 1e-9);
        CHECK_EQ(r.stats.memory.psi.Full.Total, 3000000);
        CHECK_EQ(r.stats.swap.swap_usage_bytes.value, 64);
        CHECK(!r.stats.swap.has_swap_available_bytes);
        CHECK_EQ(r.stats.writable_layer.used_bytes.value, 4096);
        CHECK_EQ(r.stats.writable_layer.inodes_used.value, 3);
        CHECK_EQ(r.stats.writable_layer.timestamp, 99);
        CHECK_STREQ(r.stats.writable_layer.fs_id.mountpoint, "/var/lib/rktlet");
        RELEASE(ContainerStats, &r);
}

static void test_what_is_not_counted_is_left_out(void) {
        runtime_v1_ContainerStatsResponse r = {};

        build();
        stub.no_memory = true;
        CHECK_EQ(CALL(ContainerStats, .container_id = s("1")), 0);
        REPLY(ContainerStats, &r);
        CHECK(r.stats.has_cpu && !r.stats.has_memory && !r.stats.has_swap && !r.stats.has_io);
        CHECK(!r.stats.has_writable_layer);
        RELEASE(ContainerStats, &r);
}

static void test_only_what_runs_has_figures(void) {
        build();
        CHECK(CALL(ContainerStats, .container_id = s("2")) < 0);
        CHECK_EQ(last_error.code, GRPC_FAILED_PRECONDITION);
        CHECK(CALL(ContainerStats, .container_id = s("9")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
        CHECK(CALL(ContainerStats, .container_id = s("")) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK(CALL(PodSandboxStats, .pod_sandbox_id = s("b")) < 0);
        CHECK_EQ(last_error.code, GRPC_FAILED_PRECONDITION);
        CHECK(CALL(PodSandboxStats, .pod_sandbox_id = s("9")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
}

/* The lists' entries begin with their attributes, which begin with the ID. */
static bool collect(pb_istream_t *stream, const pb_field_iter_t *field, void **arg) {
        const pb_msgdesc_t *fields = *arg;
        union {
                runtime_v1_ContainerStats container;
                runtime_v1_PodSandboxStats pod;
                runtime_v1_PodSandboxMetrics metrics;
        } u = {};

        CHECK(pb_decode(stream, fields, &u));
        ids[strlen(ids)] = fields == runtime_v1_ContainerStats_fields    ? u.container.attributes.id[0]
                           : fields == runtime_v1_PodSandboxStats_fields ? u.pod.attributes.id[0]
                                                                         : u.metrics.pod_sandbox_id[0];
        pb_release(fields, &u);
        return true;
}

#define STATS_LISTED(method, list_field, type)                                                                        \
        ({                                                                                                            \
                runtime_v1_##method##Response _r = { .list_field = { { .decode = collect },                           \
                                                                     (void *) runtime_v1_##type##_fields } };         \
                memset(ids, 0, sizeof ids);                                                                           \
                for (size_t _i = 0; _i < call.n_sent; _i++)                                                           \
                        decode_reply(_i, runtime_v1_##method##Response_fields, &_r);                                  \
                ids;                                                                                                  \
        })

static void test_lists_and_streams_have_what_runs_and_matches(void) {
        static runtime_v1_ContainerStatsFilter_LabelSelectorEntry shop = { (char *) "app", (char *) "shop" },
                                                                  old = { (char *) "app", (char *) "old" };
        static runtime_v1_PodSandboxStatsFilter_LabelSelectorEntry web = { (char *) "tier", (char *) "web" };

        build();
        CHECK_EQ(CALL(ListContainerStats, ), 0);
        CHECK_STREQ(STATS_LISTED(ListContainerStats, stats, ContainerStats), "1");
        CHECK_EQ(CALL(StreamContainerStats, ), 0);
        CHECK_EQ(call.n_sent, 1);
        CHECK_STREQ(STATS_LISTED(StreamContainerStats, container_stats, ContainerStats), "1");
        containers[1].phase = containers[2].phase = CONTAINER_RUNNING;
        CHECK_EQ(CALL(ListContainerStats, ), 0);
        CHECK_STREQ(STATS_LISTED(ListContainerStats, stats, ContainerStats), "123");
        CHECK_EQ(CALL(ListContainerStats, .has_filter = true, .filter.id = s("2")), 0);
        CHECK_STREQ(STATS_LISTED(ListContainerStats, stats, ContainerStats), "2");
        CHECK_EQ(CALL(ListContainerStats, .has_filter = true, .filter.pod_sandbox_id = s("b")), 0);
        CHECK_STREQ(STATS_LISTED(ListContainerStats, stats, ContainerStats), "3");
        CHECK_EQ(CALL(StreamContainerStats, .has_filter = true, .filter.label_selector = &shop,
                      .filter.label_selector_count = 1), 0);
        CHECK_STREQ(STATS_LISTED(StreamContainerStats, container_stats, ContainerStats), "1");
        CHECK_EQ(CALL(ListContainerStats, .has_filter = true, .filter.label_selector = &old,
                      .filter.label_selector_count = 1), 0);
        CHECK_STREQ(STATS_LISTED(ListContainerStats, stats, ContainerStats), "");
        CHECK_EQ(CALL(StreamContainerStats, .has_filter = true, .filter.id = s("8")), 0);
        CHECK_EQ(call.n_sent, 0);

        CHECK_EQ(CALL(ListPodSandboxStats, ), 0);
        CHECK_STREQ(STATS_LISTED(ListPodSandboxStats, stats, PodSandboxStats), "a");
        pods[1].phase = POD_READY;
        CHECK_EQ(CALL(StreamPodSandboxStats, ), 0);
        CHECK_STREQ(STATS_LISTED(StreamPodSandboxStats, pod_sandbox_stats, PodSandboxStats), "ab");
        CHECK_EQ(CALL(ListPodSandboxStats, .has_filter = true, .filter.id = s("b")), 0);
        CHECK_STREQ(STATS_LISTED(ListPodSandboxStats, stats, PodSandboxStats), "b");
        CHECK_EQ(CALL(ListPodSandboxStats, .has_filter = true, .filter.label_selector = &web,
                      .filter.label_selector_count = 1), 0);
        CHECK_STREQ(STATS_LISTED(ListPodSandboxStats, stats, PodSandboxStats), "a");
        CHECK_EQ(CALL(StreamPodSandboxMetrics, ), 0);
        CHECK_STREQ(STATS_LISTED(StreamPodSandboxMetrics, pod_sandbox_metrics, PodSandboxMetrics), "ab");
        CHECK_EQ(stub.measured, 13); /* by each of these */
}

static void test_a_pods_figures(void) {
        runtime_v1_PodSandboxStatsResponse r = {};

        build();
        CHECK_EQ(CALL(PodSandboxStats, .pod_sandbox_id = s("aa")), 0);
        REPLY(PodSandboxStats, &r);
        CHECK_STREQ(r.stats.attributes.metadata.namespace, "default");
        CHECK_EQ(r.stats.attributes.annotations_count, 1);
        CHECK(!r.stats.has_windows && r.stats.has_linux);
        CHECK_EQ(r.stats.linux.cpu.usage_core_nano_seconds.value, 61000000000);
        CHECK(!r.stats.linux.cpu.has_usage_nano_cores);
        CHECK_EQ(r.stats.linux.memory.working_set_bytes.value, 900);
        CHECK_EQ(r.stats.linux.process.process_count.value, 7);
        CHECK_STREQ(r.stats.linux.network.default_interface.name, "eth0");
        CHECK_EQ(r.stats.linux.network.default_interface.rx_bytes.value, 11);
        CHECK_EQ(r.stats.linux.network.default_interface.rx_errors.value, 13);
        CHECK_EQ(r.stats.linux.network.default_interface.tx_bytes.value, 15);
        CHECK_EQ(r.stats.linux.network.default_interface.tx_errors.value, 17);
        CHECK_EQ(r.stats.linux.network.interfaces_count, 1);
        CHECK_STREQ(r.stats.linux.network.interfaces[0].name, "net1");
        CHECK_EQ(r.stats.linux.containers_count, 1);
        CHECK_STREQ(r.stats.linux.containers[0].attributes.id, containers[0].id);
        RELEASE(PodSandboxStats, &r);

        stub.no_network = true;
        memset(&r, 0, sizeof r);
        CHECK_EQ(CALL(PodSandboxStats, .pod_sandbox_id = s("aa")), 0);
        REPLY(PodSandboxStats, &r);
        CHECK(!r.stats.linux.has_network);
        RELEASE(PodSandboxStats, &r);
}

/* --- metrics ----------------------------------------------------------------------------------------------------- */

static runtime_v1_PodSandboxMetrics sandbox_metrics;

static bool keep_metrics(pb_istream_t *stream, const pb_field_iter_t *field, void **arg) {
        pb_release(runtime_v1_PodSandboxMetrics_fields, &sandbox_metrics);
        memset(&sandbox_metrics, 0, sizeof sandbox_metrics);
        CHECK(pb_decode(stream, runtime_v1_PodSandboxMetrics_fields, &sandbox_metrics));
        return true;
}

static const runtime_v1_Metric *find(const runtime_v1_Metric *metrics, size_t n, const char *name,
                                     const char *last_label) {
        for (size_t i = 0; i < n; i++)
                if (streq(metrics[i].name, name) &&
                    (!last_label || streq(metrics[i].label_values[metrics[i].label_values_count - 1], last_label)))
                        return &metrics[i];
        return NULL;
}

static void test_metrics_have_the_labels_of_their_descriptors(void) {
        runtime_v1_ListMetricDescriptorsResponse d = {};
        runtime_v1_ListPodSandboxMetricsResponse r = { .pod_metrics.funcs.decode = keep_metrics };
        const runtime_v1_ContainerMetrics *k;
        const runtime_v1_Metric *m;

        build();
        fill_container(&containers[0]);
        containers[0].request.config.linux.resources.memory_limit_in_bytes = 5000;
        CHECK_EQ(CALL(ListPodSandboxMetrics, ), 0);
        REPLY(ListPodSandboxMetrics, &r);
        CHECK_STREQ(sandbox_metrics.pod_sandbox_id, pods[0].id);
        CHECK_EQ(sandbox_metrics.container_metrics_count, 1);
        k = &sandbox_metrics.container_metrics[0];
        CHECK_STREQ(k->container_id, containers[0].id);

        m = find(k->metrics, k->metrics_count, "container_cpu_usage_seconds_total", "total");
        CHECK(m && m->metric_type == runtime_v1_MetricType_COUNTER);
        CHECK_EQ(m->value.value, 61);
        CHECK_EQ(m->timestamp, 1700000000000000005);
        CHECK_EQ(m->label_values_count, 7);
        CHECK_STREQ(m->label_values[0], "main");
        CHECK_STREQ(m->label_values[1], "/kubepods.slice/rktlet-ctr-x.service");
        CHECK_STREQ(m->label_values[2], "nginx");
        CHECK_STREQ(m->label_values[3], containers[0].id);
        CHECK_STREQ(m->label_values[4], "default");
        CHECK_STREQ(m->label_values[5], "web");
        m = find(k->metrics, k->metrics_count, "container_memory_working_set_bytes", NULL);
        CHECK(m && m->metric_type == runtime_v1_MetricType_GAUGE);
        CHECK_EQ(m->value.value, 900);
        CHECK_EQ(find(k->metrics, k->metrics_count, "container_processes", NULL)->value.value, 2);
        CHECK_EQ(find(k->metrics, k->metrics_count, "container_threads_max", NULL)->value.value, 0);
        CHECK_EQ(find(k->metrics, k->metrics_count, "container_file_descriptors", NULL)->value.value, 9);
        CHECK_EQ(find(k->metrics, k->metrics_count, "container_sockets", NULL)->value.value, 4);
        CHECK_EQ(find(k->metrics, k->metrics_count, "container_spec_memory_limit_bytes", NULL)->value.value, 5000);
        CHECK_EQ(find(k->metrics, k->metrics_count, "container_spec_cpu_shares", NULL)->value.value, 512);
        CHECK_EQ(find(k->metrics, k->metrics_count, "container_blkio_device_usage_total", "Write")->value.value, 12);
        CHECK_EQ(find(k->metrics, k->metrics_count, "container_pressure_memory_waiting_seconds_total",
                      NULL)->value.value, 4);
        CHECK_EQ(find(k->metrics, k->metrics_count, "container_start_time_seconds", NULL)->value.value, 1700000000);
        CHECK(!find(k->metrics, k->metrics_count, "container_cpu_cfs_periods_total", NULL));
        CHECK(!find(k->metrics, k->metrics_count, "container_network_receive_bytes_total", NULL));

        m = find(sandbox_metrics.metrics, sandbox_metrics.metrics_count, "container_network_receive_bytes_total",
                 "eth0");
        CHECK_EQ(m->value.value, 11);
        CHECK_STREQ(m->label_values[0], "");
        CHECK_STREQ(m->label_values[1], "/kubepods.slice");
        CHECK_STREQ(m->label_values[3], "");
        CHECK_STREQ(m->label_values[5], "web");
        CHECK_EQ(find(sandbox_metrics.metrics, sandbox_metrics.metrics_count,
                      "container_network_transmit_errors_total", "net1")->value.value, 7);

        CHECK_EQ(CALL(ListMetricDescriptors, ), 0);
        REPLY(ListMetricDescriptors, &d);
        CHECK(d.descriptors_count > 50);
        for (size_t i = 0; i < d.descriptors_count; i++) {
                CHECK(!isempty(d.descriptors[i].name) && !isempty(d.descriptors[i].help));
                CHECK_STREQ(d.descriptors[i].label_keys[0], "container");
                CHECK_STREQ(d.descriptors[i].label_keys[5], "pod");
                for (size_t j = 0; j < i; j++)
                        CHECK(!streq(d.descriptors[i].name, d.descriptors[j].name));
        }
        for (size_t i = 0; i < k->metrics_count + sandbox_metrics.metrics_count; i++) {
                size_t j = 0;

                m = i < k->metrics_count ? &k->metrics[i] : &sandbox_metrics.metrics[i - k->metrics_count];
                while (j < d.descriptors_count && !streq(d.descriptors[j].name, m->name))
                        j++;
                CHECK(j < d.descriptors_count);
                CHECK_EQ(d.descriptors[j].label_keys_count, m->label_values_count);
        }
        RELEASE(ListMetricDescriptors, &d);
        pb_release(runtime_v1_PodSandboxMetrics_fields, &sandbox_metrics);
        memset(&sandbox_metrics, 0, sizeof sandbox_metrics);
}

/* --- limits ------------------------------------------------------------------------------------------------------ */

static void test_limits_reach_the_object(void) {
        build();
        CHECK_EQ(CALL(UpdateContainerResources, .container_id = s("1"), .has_linux = true,
                      .linux.memory_limit_in_bytes = 77), 0);
        CHECK(stub.container == &containers[0]);
        CHECK_EQ(stub.memory_limit, 77);
        CHECK_EQ(CALL(UpdateContainerResources, .container_id = s("1")), 0);
        CHECK_EQ(stub.memory_limit, 0);
        CHECK(CALL(UpdateContainerResources, .container_id = s("9")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
        CHECK_EQ(CALL(UpdatePodSandboxResources, .pod_sandbox_id = s("a"), .has_overhead = true,
                      .overhead.memory_limit_in_bytes = 7, .has_resources = true,
                      .resources.memory_limit_in_bytes = 70), 0);
        CHECK(stub.pod == &pods[0]);
        CHECK_EQ(stub.memory_limit, 77);
        CHECK(CALL(UpdatePodSandboxResources, .pod_sandbox_id = s("9")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
        stub.result = -EIO;
        CHECK_EQ(CALL(UpdateContainerResources, .container_id = s("1")), -EIO);
        CHECK_EQ(CALL(UpdatePodSandboxResources, .pod_sandbox_id = s("a")), -EIO);
}

static void test_the_containers_file_system_is_told_when_all_of_it_is_known(void) {
        runtime_v1_ImageFsInfoResponse r = {};

        build();
        CHECK_EQ(CALL(ImageFsInfo, ), 0);
        CHECK_EQ(stub.measured, 1);
        REPLY(ImageFsInfo, &r);
        CHECK_EQ(r.image_filesystems_count, 1);
        CHECK_EQ(r.container_filesystems_count, 1);
        CHECK_EQ(r.container_filesystems[0].used_bytes.value, 8192);
        CHECK_EQ(r.container_filesystems[0].inodes_used.value, 5);
        CHECK_EQ(r.container_filesystems[0].timestamp, 7000000002);
        CHECK_STREQ(r.container_filesystems[0].fs_id.mountpoint, "/var/lib/rktlet/containers");
        RELEASE(ImageFsInfo, &r);
        memset(&r, 0, sizeof r);
        stub.no_layers = true;
        CHECK_EQ(CALL(ImageFsInfo, ), 0);
        REPLY(ImageFsInfo, &r);
        CHECK_EQ(r.image_filesystems_count, 1);
        CHECK_EQ(r.container_filesystems_count, 0);
        RELEASE(ImageFsInfo, &r);
}

static const TestCase cases[] = {
        TEST_CASE(test_a_containers_figures),
        TEST_CASE(test_what_is_not_counted_is_left_out),
        TEST_CASE(test_only_what_runs_has_figures),
        TEST_CASE(test_lists_and_streams_have_what_runs_and_matches),
        TEST_CASE(test_a_pods_figures),
        TEST_CASE(test_metrics_have_the_labels_of_their_descriptors),
        TEST_CASE(test_limits_reach_the_object),
        TEST_CASE(test_the_containers_file_system_is_told_when_all_of_it_is_known),
};

int main(void) {
        return run_tests(cases, ELEMENTSOF(cases));
}
