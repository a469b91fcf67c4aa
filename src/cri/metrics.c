/* Metrics: ListMetricDescriptors, ListPodSandboxMetrics, StreamPodSandboxMetrics. Names, help and labels are those of
 * cAdvisor, so that dashboards made for the kubelet's /metrics/cadvisor go on as they were. Values are whole numbers
 * in the CRI: of seconds, too. A pod's own series, those of its slice and its network, have no container, image and
 * name. */

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include "cri/describe.h"
#include "cri/internal.h"
#include "cri/stream.h"

#define METRICS_MAX 1024U /* of a container, or of a pod itself */
#define N_BASE_LABELS 6
#define BASE_LABELS "container", "id", "image", "name", "namespace", "pod"

/* A metric, its type, its own labels, its help. */
#define LABELS(...) { BASE_LABELS, ##__VA_ARGS__ }
#define METRICS(X)                                                                                                    \
        X(container_cpu_usage_seconds_total, COUNTER, "Cumulative cpu time consumed in seconds.", "cpu")              \
        X(container_cpu_user_seconds_total, COUNTER, "Cumulative user cpu time consumed in seconds.")                 \
        X(container_cpu_system_seconds_total, COUNTER, "Cumulative system cpu time consumed in seconds.")             \
        X(container_cpu_cfs_periods_total, COUNTER, "Number of elapsed enforcement period intervals.")                \
        X(container_cpu_cfs_throttled_periods_total, COUNTER, "Number of throttled period intervals.")                \
        X(container_cpu_cfs_throttled_seconds_total, COUNTER,                                                         \
          "Total time duration the container has been throttled.")                                                    \
        X(container_memory_usage_bytes, GAUGE,                                                                        \
          "Current memory usage in bytes, including all memory regardless of when it was accessed")                   \
        X(container_memory_working_set_bytes, GAUGE, "Current working set in bytes.")                                 \
        X(container_memory_rss, GAUGE, "Size of RSS in bytes.")                                                       \
        X(container_memory_cache, GAUGE, "Number of bytes of page cache memory.")                                     \
        X(container_memory_mapped_file, GAUGE, "Size of memory mapped files in bytes.")                               \
        X(container_memory_kernel_usage, GAUGE, "Size of kernel memory allocated in bytes.")                          \
        X(container_memory_swap, GAUGE, "Container swap usage in bytes.")                                             \
        X(container_memory_max_usage_bytes, GAUGE, "Maximum memory usage recorded in bytes")                          \
        X(container_memory_failcnt, COUNTER, "Number of memory usage hits limits")                                    \
        X(container_memory_failures_total, COUNTER, "Cumulative count of memory allocation failures.",                \
          "failure_type", "scope")                                                                                    \
        X(container_oom_events_total, COUNTER, "Count of out of memory events observed for the container")            \
        X(container_pressure_cpu_waiting_seconds_total, COUNTER,                                                      \
          "Total time duration tasks in the container have waited due to CPU congestion.")                            \
        X(container_pressure_cpu_stalled_seconds_total, COUNTER,                                                      \
          "Total time duration no tasks in the container could make progress due to CPU congestion.")                 \
        X(container_pressure_memory_waiting_seconds_total, COUNTER,                                                   \
          "Total time duration tasks in the container have waited due to memory congestion.")                         \
        X(container_pressure_memory_stalled_seconds_total, COUNTER,                                                   \
          "Total time duration no tasks in the container could make progress due to memory congestion.")              \
        X(container_pressure_io_waiting_seconds_total, COUNTER,                                                       \
          "Total time duration tasks in the container have waited due to IO congestion.")                             \
        X(container_pressure_io_stalled_seconds_total, COUNTER,                                                       \
          "Total time duration no tasks in the container could make progress due to IO congestion.")                  \
        X(container_blkio_device_usage_total, COUNTER, "Blkio Device bytes usage", "device", "major", "minor",        \
          "operation")                                                                                                \
        X(container_fs_reads_bytes_total, COUNTER, "Cumulative count of bytes read", "device")                        \
        X(container_fs_reads_total, COUNTER, "Cumulative count of reads completed", "device")                         \
        X(container_fs_writes_bytes_total, COUNTER, "Cumulative count of bytes written", "device")                    \
        X(container_fs_writes_total, COUNTER, "Cumulative count of writes completed", "device")                       \
        X(container_fs_usage_bytes, GAUGE, "Number of bytes that are consumed by the container on this filesystem.",  \
          "device")                                                                                                   \
        X(container_fs_limit_bytes, GAUGE,                                                                            \
          "Number of bytes that can be consumed by the container on this filesystem.", "device")                                                                                                   \
        X(container_fs_inodes_total, GAUGE, "Number of Inodes", "device")                                             \
        X(container_fs_inodes_free, GAUGE, "Number of available Inodes", "device")                                    \
        X(container_network_receive_bytes_total, COUNTER, "Cumulative count of bytes received", "interface")          \
        X(container_network_receive_packets_total, COUNTER, "Cumulative count of packets received", "interface")      \
        X(container_network_receive_packets_dropped_total, COUNTER,                                                   \
          "Cumulative count of packets dropped while receiving", "interface")                                         \
        X(container_network_receive_errors_total, COUNTER,                                                            \
          "Cumulative count of errors encountered while receiving", "interface")                                      \
        X(container_network_transmit_bytes_total, COUNTER, "Cumulative count of bytes transmitted", "interface")      \
        X(container_network_transmit_packets_total, COUNTER, "Cumulative count of packets transmitted", "interface")  \
        X(container_network_transmit_packets_dropped_total, COUNTER,                                                  \
          "Cumulative count of packets dropped while transmitting", "interface")                                      \
        X(container_network_transmit_errors_total, COUNTER,                                                           \
          "Cumulative count of errors encountered while transmitting", "interface")                                   \
        X(container_processes, GAUGE, "Number of processes running inside the container.")                            \
        X(container_threads, GAUGE, "Number of threads running inside the container")                                 \
        X(container_threads_max, GAUGE,                                                                               \
          "Maximum number of threads allowed inside the container, infinity if value is zero")                        \
        X(container_file_descriptors, GAUGE, "Number of open file descriptors for the container.")                    \
        X(container_sockets, GAUGE, "Number of open sockets for the container.")                                      \
        X(container_ulimits_soft, GAUGE,                                                                              \
          "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice", "ulimit")   \
        X(container_start_time_seconds, GAUGE, "Start time of the container since unix epoch in seconds.")            \
        X(container_last_seen, GAUGE, "Last time a container was seen by the exporter")                               \
        X(container_spec_cpu_period, GAUGE, "CPU period of the container.")                                           \
        X(container_spec_cpu_quota, GAUGE, "CPU quota of the container.")                                             \
        X(container_spec_cpu_shares, GAUGE, "CPU share of the container.")                                            \
        X(container_spec_memory_limit_bytes, GAUGE, "Memory limit for the container.")                                \
        X(container_spec_memory_swap_limit_bytes, GAUGE, "Memory swap limit for the container.")                      \
        X(container_spec_memory_reservation_limit_bytes, GAUGE, "Memory reservation limit for the container.")

#define AS_INDEX(name, type, help, ...) METRIC_##name,
typedef enum MetricIndex { METRICS(AS_INDEX) _METRIC_MAX } MetricIndex;

#define AS_KEYS(name, type, help, ...) static char *const keys_##name[] = LABELS(__VA_ARGS__);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdiscarded-qualifiers"
#pragma GCC diagnostic ignored "-Wwrite-strings"
METRICS(AS_KEYS)
#pragma GCC diagnostic pop

typedef struct MetricInfo {
        const char *name, *help;
        runtime_v1_MetricType type;
        char *const *keys;
        pb_size_t n_keys;
} MetricInfo;

#define AS_INFO(name_, type_, help_, ...)                                                                             \
        { #name_, help_, runtime_v1_MetricType_##type_, keys_##name_, ELEMENTSOF(keys_##name_) },
static const MetricInfo infos[_METRIC_MAX] = { METRICS(AS_INFO) };

int cri_list_metric_descriptors(CriCall *c, Error *error) {
        runtime_v1_MetricDescriptor descriptors[_METRIC_MAX];
        runtime_v1_ListMetricDescriptorsResponse response = {
                .descriptors = descriptors,
                .descriptors_count = _METRIC_MAX,
        };

        for (size_t i = 0; i < _METRIC_MAX; i++)
                descriptors[i] = (runtime_v1_MetricDescriptor) {
                        .name = (char *) infos[i].name,
                        .help = (char *) infos[i].help,
                        .label_keys = (char **) infos[i].keys,
                        .label_keys_count = infos[i].n_keys,
                };
        return CRI_REPLY(c, ListMetricDescriptorsResponse, &response, error);
}

/* --- samples ----------------------------------------------------------------------------------------------------- */

/* Where the samples of one container, or pod, are put. */
typedef struct Samples {
        Arena *arena;
        const char *labels[N_BASE_LABELS];
        int64_t timestamp_nsec;
        runtime_v1_Metric *metrics;
        size_t n;
        bool failed; /* no memory */
} Samples;

/* An unknown value is no sample. More labels than the base's follow in the order of the metric's keys. */
static void add_labelled(Samples *s, MetricIndex index, uint64_t value, const char *const *more) {
        const MetricInfo *info = &infos[index];
        char **labels;

        if (value == STAT_UNKNOWN || s->failed || s->n >= METRICS_MAX)
                return;
        if (!s->metrics)
                s->metrics = arena_new(s->arena, runtime_v1_Metric, METRICS_MAX);
        labels = arena_new(s->arena, char *, info->n_keys);
        if (!s->metrics || !labels) {
                s->failed = true;
                return;
        }
        for (size_t i = 0; i < info->n_keys; i++)
                labels[i] = (char *) (i < N_BASE_LABELS ? s->labels[i] : more[i - N_BASE_LABELS]);
        s->metrics[s->n++] = (runtime_v1_Metric) {
                .name = (char *) info->name,
                .timestamp = s->timestamp_nsec,
                .metric_type = info->type,
                .label_values = labels,
                .label_values_count = info->n_keys,
                .has_value = true,
                .value.value = value,
        };
}

#define ADD(s, name, value, ...) add_labelled((s), METRIC_##name, (value), (const char *const[]){ __VA_ARGS__ NULL })

static uint64_t seconds(uint64_t nsec) {
        return nsec == STAT_UNKNOWN ? STAT_UNKNOWN : nsec / NSEC_PER_SEC;
}

static void add_pressure(Samples *s, const Pressure *p, MetricIndex waiting, MetricIndex stalled) {
        if (!p->known)
                return;
        add_labelled(s, waiting, p->some.total_usec / USEC_PER_SEC, NULL);
        add_labelled(s, stalled, p->full.total_usec / USEC_PER_SEC, NULL);
}

/* "/dev/sda", or nothing for a device without a node. */
static const char *device_name(Arena *arena, unsigned major_number, unsigned minor_number) {
        char path[64], target[512];
        const char *name;
        ssize_t n;

        (void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major_number, minor_number);
        n = readlink(path, target, sizeof target - 1);
        if (n <= 0)
                return "";
        target[n] = 0;
        name = strrchr(target, '/');
        name = arena_printf(arena, "/dev/%s", name ? name + 1 : target);
        return name ? name : "";
}

static void add_devices(Samples *s, const CgroupStats *g) {
        for (size_t i = 0; i < g->n_devices; i++) {
                const DeviceStats *d = &g->devices[i];
                const char *name = device_name(s->arena, d->major, d->minor),
                           *major_text = arena_printf(s->arena, "%u", d->major),
                           *minor_text = arena_printf(s->arena, "%u", d->minor);

                if (!major_text || !minor_text) {
                        s->failed = true;
                        return;
                }
                ADD(s, container_blkio_device_usage_total, d->read_bytes, name, major_text, minor_text, "Read",);
                ADD(s, container_blkio_device_usage_total, d->write_bytes, name, major_text, minor_text, "Write",);
                ADD(s, container_fs_reads_bytes_total, d->read_bytes, name,);
                ADD(s, container_fs_reads_total, d->reads, name,);
                ADD(s, container_fs_writes_bytes_total, d->write_bytes, name,);
                ADD(s, container_fs_writes_total, d->writes, name,);
        }
}

/* What a cgroup says, of containers and of pods. */
static void add_cgroup(Samples *s, const CgroupStats *g) {
        ADD(s, container_cpu_usage_seconds_total, seconds(g->cpu_usage_nsec), "total",);
        ADD(s, container_cpu_user_seconds_total, seconds(g->cpu_user_nsec));
        ADD(s, container_cpu_system_seconds_total, seconds(g->cpu_system_nsec));
        ADD(s, container_cpu_cfs_periods_total, g->cpu_periods);
        ADD(s, container_cpu_cfs_throttled_periods_total, g->cpu_throttled_periods);
        ADD(s, container_cpu_cfs_throttled_seconds_total, seconds(g->cpu_throttled_nsec));
        ADD(s, container_memory_usage_bytes, g->memory_usage);
        ADD(s, container_memory_working_set_bytes, g->memory_working_set);
        ADD(s, container_memory_rss, g->memory_anon);
        ADD(s, container_memory_cache, g->memory_file);
        ADD(s, container_memory_mapped_file, g->memory_file_mapped);
        ADD(s, container_memory_kernel_usage, g->memory_kernel);
        ADD(s, container_memory_swap, g->swap_usage);
        ADD(s, container_memory_max_usage_bytes, g->memory_peak);
        ADD(s, container_memory_failcnt, g->memory_limit_hits);
        ADD(s, container_memory_failures_total, g->memory_page_faults, "pgfault", "container",);
        ADD(s, container_memory_failures_total, g->memory_page_faults, "pgfault", "hierarchy",);
        ADD(s, container_memory_failures_total, g->memory_major_page_faults, "pgmajfault", "container",);
        ADD(s, container_memory_failures_total, g->memory_major_page_faults, "pgmajfault", "hierarchy",);
        ADD(s, container_oom_events_total, g->oom_kills);
        add_pressure(s, &g->cpu_pressure, METRIC_container_pressure_cpu_waiting_seconds_total,
                     METRIC_container_pressure_cpu_stalled_seconds_total);
        add_pressure(s, &g->memory_pressure, METRIC_container_pressure_memory_waiting_seconds_total,
                     METRIC_container_pressure_memory_stalled_seconds_total);
        add_pressure(s, &g->io_pressure, METRIC_container_pressure_io_waiting_seconds_total,
                     METRIC_container_pressure_io_stalled_seconds_total);
        add_devices(s, g);
        ADD(s, container_processes, g->processes);
        ADD(s, container_threads, g->threads);
        ADD(s, container_threads_max, g->threads_limit == STAT_UNKNOWN ? 0 : g->threads_limit);
        ADD(s, container_last_seen, seconds(g->timestamp_nsec));
}

static uint64_t limit_or(int64_t v, uint64_t otherwise) {
        return v > 0 ? (uint64_t) v : otherwise;
}

static void add_spec(Samples *s, const runtime_v1_LinuxContainerResources *r) {
        uint64_t reservation = 0;

        for (size_t i = 0; i < r->unified_count; i++)
                if (streq(strempty(r->unified[i].key), "memory.low") &&
                    parse_u64(strempty(r->unified[i].value), &reservation) < 0)
                        reservation = 0;
        ADD(s, container_spec_cpu_period, limit_or(r->cpu_period, 100000));
        ADD(s, container_spec_cpu_quota, limit_or(r->cpu_quota, STAT_UNKNOWN));
        ADD(s, container_spec_cpu_shares, limit_or(r->cpu_shares, 1024));
        ADD(s, container_spec_memory_limit_bytes, limit_or(r->memory_limit_in_bytes, 0));
        ADD(s, container_spec_memory_swap_limit_bytes, limit_or(r->memory_swap_limit_in_bytes, 0));
        ADD(s, container_spec_memory_reservation_limit_bytes, reservation);
}

/* The file system of the writable layer. */
static void add_file_system(Samples *s, const Container *k) {
        const char *device;
        struct statvfs fs;
        struct stat st;

        if (stat(k->directory, &st) < 0 || statvfs(k->directory, &fs) < 0)
                return;
        device = device_name(s->arena, major(st.st_dev), minor(st.st_dev));
        ADD(s, container_fs_usage_bytes, k->layer.timestamp_nsec > 0 ? k->layer.usage.bytes : STAT_UNKNOWN, device,);
        ADD(s, container_fs_limit_bytes, (uint64_t) fs.f_blocks * fs.f_frsize, device,);
        ADD(s, container_fs_inodes_total, fs.f_files, device,);
        ADD(s, container_fs_inodes_free, fs.f_ffree, device,);
}

static void add_processes(Samples *s, Container *k) {
        uint64_t files, sockets;
        struct rlimit limit;

        container_count_descriptors(k, &files, &sockets);
        ADD(s, container_file_descriptors, files);
        ADD(s, container_sockets, sockets);
        if (k->pid > 0 && prlimit(k->pid, RLIMIT_NOFILE, NULL, &limit) >= 0 && limit.rlim_cur != RLIM_INFINITY)
                ADD(s, container_ulimits_soft, limit.rlim_cur, "max_open_files",);
}

static void add_network(Samples *s, Pod *p) {
        NetInterface *interfaces = arena_new(s->arena, NetInterface, NET_INTERFACES_MAX);
        size_t n;

        if (!interfaces) {
                s->failed = true;
                return;
        }
        n = pod_read_network(p, interfaces);
        for (size_t i = 0; i < n; i++) {
                const NetInterface *f = &interfaces[i];

                ADD(s, container_network_receive_bytes_total, f->rx_bytes, f->name,);
                ADD(s, container_network_receive_packets_total, f->rx_packets, f->name,);
                ADD(s, container_network_receive_packets_dropped_total, f->rx_dropped, f->name,);
                ADD(s, container_network_receive_errors_total, f->rx_errors, f->name,);
                ADD(s, container_network_transmit_bytes_total, f->tx_bytes, f->name,);
                ADD(s, container_network_transmit_packets_total, f->tx_packets, f->name,);
                ADD(s, container_network_transmit_packets_dropped_total, f->tx_dropped, f->name,);
                ADD(s, container_network_transmit_errors_total, f->tx_errors, f->name,);
        }
}

/* --- pods and containers ----------------------------------------------------------------------------------------- */

static Samples samples_of(const Pod *p, const Container *k, const CgroupStats *g, const char *cgroup, Arena *arena) {
        const runtime_v1_PodSandboxMetadata *m = &p->request.config.metadata;
        runtime_v1_ContainerStatus status;

        if (k && container_describe_status(k, arena, &status) < 0)
                status = (runtime_v1_ContainerStatus) {};
        return (Samples) {
                .arena = arena,
                .labels = { k ? strempty(k->request.config.metadata.name) : "", strempty(cgroup),
                            k ? strempty(status.image.image) : "", k ? k->id : "", strempty(m->namespace),
                            strempty(m->name) },
                .timestamp_nsec = (int64_t) g->timestamp_nsec,
        };
}

/* 0: it has ended, and has no samples. */
static int describe_container_metrics(Container *k, Arena *arena, runtime_v1_ContainerMetrics *ret) {
        static const runtime_v1_LinuxContainerResources no_limits;
        const runtime_v1_ContainerConfig *config = &k->request.config;
        uint64_t nano_cores;
        CgroupStats g;
        Samples s;

        if (container_read_stats(k, CGROUP_STATS_DETAILS, &g, &nano_cores, NULL) < 0)
                return 0;
        s = samples_of(k->pod, k, &g, container_cgroup(k), arena);
        add_cgroup(&s, &g);
        add_processes(&s, k);
        add_file_system(&s, k);
        add_spec(&s, config->has_linux && config->linux.has_resources ? &config->linux.resources : &no_limits);
        ADD(&s, container_start_time_seconds, k->started_usec / USEC_PER_SEC);
        if (s.failed)
                return -ENOMEM;
        *ret = (runtime_v1_ContainerMetrics) {
                .container_id = k->id,
                .metrics = s.metrics,
                .metrics_count = (pb_size_t) s.n,
        };
        return 1;
}

static int describe_pod_metrics(Pod *p, Arena *arena, runtime_v1_PodSandboxMetrics *ret) {
        _cleanup_free_ char *cgroup = NULL;
        uint64_t nano_cores;
        size_t n = 0;
        CgroupStats g;
        Samples s;
        int r;

        if (pod_read_stats(p, CGROUP_STATS_DETAILS, &g, &nano_cores, NULL) < 0)
                return 0;
        cgroup = pod_cgroup(p);
        s = samples_of(p, NULL, &g, cgroup ? arena_strdup(arena, cgroup) : NULL, arena);
        add_cgroup(&s, &g);
        add_network(&s, p);
        ADD(&s, container_start_time_seconds, p->created_usec / USEC_PER_SEC);
        if (s.failed)
                return -ENOMEM;
        *ret = (runtime_v1_PodSandboxMetrics) {
                .pod_sandbox_id = p->id,
                .metrics = s.metrics,
                .metrics_count = (pb_size_t) s.n,
        };
        for (const Container *k = p->containers; k; k = k->pod_next)
                n += k->phase == CONTAINER_RUNNING;
        n = MIN(n, (size_t) PB_SIZE_MAX);
        if (n == 0)
                return 1;
        ret->container_metrics = arena_new(arena, runtime_v1_ContainerMetrics, n);
        if (!ret->container_metrics)
                return -ENOMEM;
        for (Container *k = p->containers; k && ret->container_metrics_count < n; k = k->pod_next) {
                if (k->phase != CONTAINER_RUNNING)
                        continue;
                r = describe_container_metrics(k, arena, &ret->container_metrics[ret->container_metrics_count]);
                if (r < 0)
                        return r;
                ret->container_metrics_count += (pb_size_t) r;
        }
        return 1;
}

static bool put_pod_metrics(pb_ostream_t *stream, const pb_field_iter_t *field, Pod *p) {
        _cleanup_arena_ Arena arena = ARENA_INIT;
        runtime_v1_PodSandboxMetrics item;
        int r;

        r = describe_pod_metrics(p, &arena, &item);
        return r >= 0 && (r == 0 || message_put(stream, field, runtime_v1_PodSandboxMetrics_fields, &item));
}

static bool put_all_metrics(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        const Manager *m = *arg;

        for (Pod *p = m->pods; p; p = p->hh.next)
                if (p->phase == POD_READY && !put_pod_metrics(stream, field, p))
                        return false;
        return true;
}

int cri_list_pod_sandbox_metrics(CriCall *c, Error *error) {
        runtime_v1_ListPodSandboxMetricsResponse response = {
                .pod_metrics = { .funcs.encode = put_all_metrics, .arg = c->manager },
        };

        manager_measure_layers(c->manager, /* pod= */ NULL, /* c= */ NULL);
        return CRI_REPLY(c, ListPodSandboxMetricsResponse, &response, error);
}

static bool put_batch(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        const StreamBatch *batch = *arg;

        for (size_t i = 0; i < batch->n; i++)
                if (!put_pod_metrics(stream, field, batch->items[i]))
                        return false;
        return true;
}

static int send_batch(CriCall *c, StreamBatch *batch, Error *error) {
        runtime_v1_StreamPodSandboxMetricsResponse response = {
                .pod_sandbox_metrics = { .funcs.encode = put_batch, .arg = batch },
        };

        return CRI_REPLY(c, StreamPodSandboxMetricsResponse, &response, error);
}

static void unref_pod(void *p) {
        pod_unref(p);
}

int cri_stream_pod_sandbox_metrics(CriCall *c, Error *error) {
        _cleanup_(stream_list_done) StreamList list = { .unref = unref_pod };

        manager_measure_layers(c->manager, /* pod= */ NULL, /* c= */ NULL);
        for (Pod *p = c->manager->pods; p; p = p->hh.next)
                if (p->phase == POD_READY) {
                        if (stream_list_add(&list, p) < 0)
                                return error_oom(error);
                        pod_ref(p);
                }
        return stream_list_send(c, &list, send_batch, error);
}
