/* Figures of pods and containers. Reading cgroups is cheap and done when asked; walking writable layers is not. */

#include <fcntl.h>
#include <time.h>

#include "basic/file-util.h"
#include "basic/log.h"
#include "manager/internal.h"

#define LAYER_INTERVAL_USEC (60 * USEC_PER_SEC)
#define LAYER_LOAD 20                           /* a walk that takes long is done seldom: 1/20 of the time at most */
#define LAYER_WAIT_USEC (250 * USEC_PER_MSEC)   /* for those that were never measured */
#define DESCRIPTORS_MAX 65536U                  /* counted of one container */

static int open_cgroup(const char *control_group) {
        _cleanup_free_ char *path = NULL;

        if (isempty(control_group) || streq(control_group, "/"))
                return -ENOENT;
        path = strprintf("/sys/fs/cgroup%s", control_group);
        return path ? open_directory(AT_FDCWD, path) : -ENOMEM;
}

const char *container_cgroup(const Container *c) {
        Engine *e = c->manager->engine;

        return c->phase == CONTAINER_RUNNING ? e->ops->container_cgroup(e, c->id) : NULL;
}

bool container_read_limits(const Container *c, runtime_v1_LinuxContainerResources *resources) {
        Engine *e = c->manager->engine;

        return c->phase == CONTAINER_RUNNING && e->ops->container_read_limits &&
               e->ops->container_read_limits(e, c->id, resources);
}

char *pod_cgroup(const Pod *p) {
        EnginePod view = pod_engine_view(p);
        char *control_group;

        if (p->phase != POD_READY ||
            p->manager->engine->ops->pod_cgroup(p->manager->engine, &view, &control_group) < 0)
                return NULL;
        return control_group;
}

static int pod_open_cgroup(const Pod *p) {
        _cleanup_free_ char *control_group = pod_cgroup(p);

        return open_cgroup(control_group);
}

static int read_stats(int dir_fd, CgroupStatsFlags flags, CpuRate *rate, CgroupStats *ret, uint64_t *ret_nano_cores) {
        int r;

        if (dir_fd < 0)
                return dir_fd;
        r = cgroup_stats_read(dir_fd, flags, ret);
        if (r < 0)
                return r;
        *ret_nano_cores = ret->cpu_usage_nsec == STAT_UNKNOWN
                                          ? STAT_UNKNOWN
                                          : cpu_rate_update(rate, ret->timestamp_nsec, ret->cpu_usage_nsec);
        return 0;
}

int container_read_stats(Container *c, CgroupStatsFlags flags, CgroupStats *ret, uint64_t *ret_nano_cores,
                         Error *error) {
        _cleanup_close_ int fd = open_cgroup(container_cgroup(c));
        int r;

        r = read_stats(fd, flags, &c->cpu_rate, ret, ret_nano_cores);
        if (r == -ENOENT || r == -ENODEV)
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "container %s is %s: only a running one has statistics", c->id,
                                  c->phase == CONTAINER_RUNNING ? "ending" : container_phase_to_string(c->phase));
        return r < 0 ? error_set(error, r, "cannot read the figures of container %s", c->id) : 0;
}

int pod_read_stats(Pod *p, CgroupStatsFlags flags, CgroupStats *ret, uint64_t *ret_nano_cores, Error *error) {
        _cleanup_close_ int fd = pod_open_cgroup(p);
        int r;

        r = read_stats(fd, flags, &p->cpu_rate, ret, ret_nano_cores);
        if (r == -ENOENT || r == -ENODEV)
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "pod sandbox %s is not running: it has no statistics", p->id);
        return r < 0 ? error_set(error, r, "cannot read the figures of pod sandbox %s", p->id) : 0;
}

uint64_t pod_count_processes(Pod *p) {
        _cleanup_close_ int fd = pod_open_cgroup(p);
        uint64_t n;

        return fd >= 0 && cgroup_count_processes(fd, &n) >= 0 ? n : STAT_UNKNOWN;
}

void container_count_descriptors(Container *c, uint64_t *ret_files, uint64_t *ret_sockets) {
        _cleanup_close_ int fd = open_cgroup(container_cgroup(c));

        if (fd < 0 || cgroup_count_descriptors(fd, DESCRIPTORS_MAX, ret_files, ret_sockets) < 0)
                *ret_files = *ret_sockets = STAT_UNKNOWN;
}

/* The pod's process is in its network namespace; while it is started again, a container's is. */
size_t pod_read_network(Pod *p, NetInterface ret[static NET_INTERFACES_MAX]) {
        size_t n;

        if (pod_uses_host_network(p) || p->netns_fd < 0)
                return 0;
        if (net_stats_read(p->engine_state.pid, p->netns_fd, ret, &n) >= 0)
                return n;
        for (const Container *c = p->containers; c; c = c->pod_next)
                if (net_stats_read(c->pid, p->netns_fd, ret, &n) >= 0)
                        return n;
        return 0;
}

/* --- writable layers --------------------------------------------------------------------------------------------- */

static uint64_t now_nsec(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t) t.tv_sec * NSEC_PER_SEC + (uint64_t) t.tv_nsec;
}

static int measure_layer(Container *c) {
        _cleanup_(container_unrefp) _unused_ Container *held = container_ref(c);
        _cleanup_error_ Error error = ERROR_INIT;
        EnginePod pod;
        EngineContainer view = container_engine_view(c, &pod);
        uint64_t begin_usec = now_usec(CLOCK_MONOTONIC), now;
        bool final = c->phase == CONTAINER_EXITED;
        TreeUsage usage;
        int r;

        c->layer.wanted = false;
        r = c->manager->engine->ops->container_layer_usage(c->manager->engine, &view, &usage, &error);
        if (r == -ECANCELED)
                return r;
        now = now_usec(CLOCK_MONOTONIC);
        c->layer.next_usec = now + MAX(LAYER_INTERVAL_USEC, (now - begin_usec) * LAYER_LOAD);
        if (r < 0) {
                log_debug("The writable layer of container %s is not measured: %s, ignoring", c->id,
                          strempty(error.message));
                return 0;
        }
        c->layer.usage = usage;
        c->layer.timestamp_nsec = now_nsec();
        c->layer.final = final;
        return 0;
}

static int measure_layers(void *userdata) {
        Manager *m = userdata;
        Container *c, *next;
        bool again;
        int r;

        /* The table may change in each wait, so it is looked at anew. */
        do {
                again = false;
                HASH_ITER(hh, m->containers, c, next)
                        if (c->layer.wanted) {
                                again = true;
                                break;
                        }
                if (again) {
                        r = measure_layer(c);
                        if (r >= 0)
                                r = fiber_yield();
                        if (r < 0)
                                return r; /* the manager is gone */
                }
        } while (again);
        m->measurer = fiber_unref(m->measurer);
        fiber_queue_wake(&m->measured, 0);
        return 0;
}

static bool container_want_measure(Container *c, uint64_t now) {
        if (c->phase == CONTAINER_CREATING || c->layer.final || now < c->layer.next_usec)
                return false;
        c->layer.wanted = true;
        return c->layer.timestamp_nsec == 0;
}

void manager_measure_layers(Manager *m, Pod *pod, Container *c) {
        uint64_t now = now_usec(CLOCK_MONOTONIC), until = now + LAYER_WAIT_USEC;
        bool wait = false, any = false;

        if (c) {
                wait = container_want_measure(c, now);
                any = c->layer.wanted;
        } else if (pod)
                for (c = pod->containers; c; c = c->pod_next) {
                        wait = container_want_measure(c, now) || wait;
                        any = c->layer.wanted || any;
                }
        else
                for (c = m->containers; c; c = c->hh.next) {
                        wait = container_want_measure(c, now) || wait;
                        any = c->layer.wanted || any;
                }
        if (any && !m->measurer &&
            fiber_spawn(m->event, "measure-layers", measure_layers, m, /* destroy= */ NULL, &m->measurer) < 0)
                return;
        while (wait && m->measurer)
                if (fiber_queue_wait_until(&m->measured, until) < 0)
                        return;
}

bool manager_sum_layers(Manager *m, TreeUsage *ret, uint64_t *ret_timestamp_nsec) {
        uint64_t oldest = now_nsec();
        TreeUsage sum = {};

        for (const Container *c = m->containers; c; c = c->hh.next) {
                if (c->phase == CONTAINER_CREATING)
                        continue;
                if (c->layer.timestamp_nsec == 0)
                        return false;
                sum.bytes += c->layer.usage.bytes;
                sum.inodes += c->layer.usage.inodes;
                if (!c->layer.final)
                        oldest = MIN(oldest, c->layer.timestamp_nsec);
        }
        *ret = sum;
        *ret_timestamp_nsec = oldest;
        return true;
}
