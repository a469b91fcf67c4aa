#include "monitor/monitor.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>

#include "basic/fiber.h"
#include "basic/file-util.h"
#include "basic/string-util.h"
#include "monitor/internal.h"

int monitor_loop(sd_event *event, Histogram *turns) {
        int r, code;

        while (sd_event_get_state(event) != SD_EVENT_FINISHED) {
                uint64_t begin;

                r = sd_event_prepare(event);
                if (r == 0)
                        r = sd_event_wait(event, UINT64_MAX);
                if (r < 0)
                        return r;
                if (r == 0)
                        continue;
                begin = now_usec(CLOCK_MONOTONIC);
                r = sd_event_dispatch(event);
                if (r < 0)
                        return r;
                histogram_add(turns, now_usec(CLOCK_MONOTONIC) - begin);
        }
        r = sd_event_get_exit_code(event, &code);
        return r < 0 ? r : code;
}

static void write_objects(Monitor *m, FILE *f) {
        unsigned pods[_POD_PHASE_MAX] = {}, containers[_CONTAINER_PHASE_MAX] = {};
        Container *c, *next_container;
        char label[64];
        Pod *p, *next_pod;

        HASH_ITER(hh, m->config.manager->pods, p, next_pod)
                pods[p->phase]++;
        HASH_ITER(hh, m->config.manager->containers, c, next_container)
                containers[c->phase]++;
        metric_head(f, "rktlet_pods", "gauge", "Pods there are, by what they are doing.");
        for (PodPhase i = 0; i < _POD_PHASE_MAX; i++) {
                (void) snprintf(label, sizeof label, "state=\"%s\"", pod_phase_to_string(i));
                metric_value(f, "rktlet_pods", label, pods[i]);
        }
        metric_head(f, "rktlet_containers", "gauge", "Containers there are, by what they are doing.");
        for (ContainerPhase i = 0; i < _CONTAINER_PHASE_MAX; i++) {
                (void) snprintf(label, sizeof label, "state=\"%s\"", container_phase_to_string(i));
                metric_value(f, "rktlet_containers", label, containers[i]);
        }
}

static void write_images(Monitor *m, FILE *f) {
        _cleanup_free_ Image **l = image_store_list(m->config.images);
        _cleanup_(image_fs_info_done) ImageFsInfo info = {};
        uint64_t n = 0;

        while (l && l[n])
                n++;
        metric_head(f, "rktlet_images", "gauge", "Images there are.");
        metric_value(f, "rktlet_images", "", n);
        if (image_store_fs_info(m->config.images, &info, NULL) < 0)
                return;
        metric_head(f, "rktlet_image_bytes", "gauge", "Disk space that images and their layers take.");
        metric_value(f, "rktlet_image_bytes", "", info.used_bytes);
        metric_head(f, "rktlet_image_inodes", "gauge", "Inodes that images and their layers take.");
        metric_value(f, "rktlet_image_inodes", "", info.inodes_used);
}

static void write_units(Monitor *m, FILE *f) {
        const SystemdStatistics *s = systemd_statistics(m->config.systemd);

        metric_head(f, "rktlet_unit_jobs_total", "counter", "Units that systemd was asked to start or stop, by what came of it.");
        metric_value(f, "rktlet_unit_jobs_total", "job=\"start\",result=\"done\"", histogram_count(&s->start) - s->start_failed);
        metric_value(f, "rktlet_unit_jobs_total", "job=\"start\",result=\"failed\"", s->start_failed);
        metric_value(f, "rktlet_unit_jobs_total", "job=\"stop\",result=\"done\"", histogram_count(&s->stop) - s->stop_failed);
        metric_value(f, "rktlet_unit_jobs_total", "job=\"stop\",result=\"failed\"", s->stop_failed);
        metric_head(f, "rktlet_unit_job_duration_seconds", "histogram", "How long systemd took to start and stop units.");
        metric_histogram(f, "rktlet_unit_job_duration_seconds", "job=\"start\"", &s->start);
        metric_histogram(f, "rktlet_unit_job_duration_seconds", "job=\"stop\"", &s->stop);
        metric_head(f, "rktlet_systemd_connected", "gauge", "Whether there is a connection to systemd.");
        metric_value(f, "rktlet_systemd_connected", "", systemd_is_connected(m->config.systemd));
}

static void write_loop(Monitor *m, FILE *f) {
        metric_head(f, "rktlet_loop_turn_duration_seconds", "histogram",
                    "How long the event loop was busy with one thing, and deaf to all others.");
        metric_histogram(f, "rktlet_loop_turn_duration_seconds", "", m->config.turns);
        metric_head(f, "rktlet_fibers", "gauge", "Requests and other work under way.");
        metric_value(f, "rktlet_fibers", "", fiber_count());
}

static int count_entry(int dir_fd, const char *name, void *userdata) {
        ++*(uint64_t *) userdata;
        return 0;
}

/* The names are those of Prometheus's own client libraries. */
static void write_process(FILE *f) {
        unsigned long long total = 0, resident = 0;
        struct mallinfo2 heap = mallinfo2();
        uint64_t descriptors = 0;
        _cleanup_free_ char *statm = NULL;
        struct rusage usage;
        struct rlimit limit;

        if (read_file(AT_FDCWD, "/proc/self/statm", 256, &statm, NULL) >= 0 &&
            sscanf(statm, "%llu %llu", &total, &resident) == 2) {
                uint64_t page = (uint64_t) sysconf(_SC_PAGESIZE);

                metric_head(f, "process_resident_memory_bytes", "gauge", "Memory of the process that is in RAM.");
                metric_value(f, "process_resident_memory_bytes", "", resident * page);
                metric_head(f, "process_virtual_memory_bytes", "gauge", "Address space of the process.");
                metric_value(f, "process_virtual_memory_bytes", "", total * page);
        }
        metric_head(f, "rktlet_heap_bytes", "gauge", "Memory that is allocated.");
        metric_value(f, "rktlet_heap_bytes", "", heap.uordblks + heap.hblkhd);
        if (getrusage(RUSAGE_SELF, &usage) >= 0) {
                metric_head(f, "process_cpu_seconds_total", "counter", "CPU time of the process.");
                metric_seconds(f, "process_cpu_seconds_total", "",
                               (uint64_t) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * USEC_PER_SEC +
                                               (uint64_t) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec));
        }
        if (directory_foreach(AT_FDCWD, "/proc/self/fd", count_entry, &descriptors) >= 0) {
                metric_head(f, "process_open_fds", "gauge", "Open file descriptors.");
                metric_value(f, "process_open_fds", "", descriptors - 1); /* not the one that counts */
        }
        if (getrlimit(RLIMIT_NOFILE, &limit) >= 0) {
                metric_head(f, "process_max_fds", "gauge", "File descriptors that may be open.");
                metric_value(f, "process_max_fds", "", limit.rlim_cur);
        }
}

int monitor_write(Monitor *m, FILE *f) {
        metric_head(f, "rktlet_build_info", "gauge", "The version that runs; always 1.");
        metric_value(f, "rktlet_build_info", "version=\"" PROJECT_VERSION "\"", 1);
        cri_write_metrics(m->config.cri, f);
        metric_head(f, "rktlet_requests_in_progress", "gauge", "Requests of the CRI under way, streams among them.");
        metric_value(f, "rktlet_requests_in_progress", "", grpc_server_live_calls(m->config.server));
        write_objects(m, f);
        write_images(m, f);
        write_units(m, f);
        write_loop(m, f);
        write_process(f);
        return ferror(f) ? -ENOMEM : 0;
}
