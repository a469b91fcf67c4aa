/* Limits that are changed while it runs: a change is put over what was there, done by the engine, and saved. */

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "basic/log.h"
#include "basic/message.h"
#include "manager/internal.h"

#define RESOURCES_MAX (4U * 1024U * 1024U) /* bytes of resources.pb */
#define SYSTEM_CONTROL "/run/systemd/system.control" /* where SetUnitProperties(runtime) puts it, systemd.unit(5) */
#define ENTRIES_MAX 1024U                  /* of `unified`, and of huge pages */

typedef runtime_v1_LinuxContainerResources Limits;

static void limits_done(Limits *l) {
        pb_release(runtime_v1_LinuxContainerResources_fields, l);
}

/* A deep copy. */
static int limits_copy(const Limits *l, Limits *ret, Error *error) {
        _cleanup_free_ void *data = NULL;
        size_t size;
        int r;

        r = message_encode(runtime_v1_LinuxContainerResources_fields, l, /* allocator= */ NULL, RESOURCES_MAX, &data,
                           &size, error);
        if (r < 0)
                return r;
        return message_decode(runtime_v1_LinuxContainerResources_fields, data, size, ret, error);
}

static int replace_string(char **s, const char *by) {
        char *copy;

        if (isempty(by))
                return 0;
        copy = strdup(by);
        if (!copy)
                return -ENOMEM;
        free(*s);
        *s = copy;
        return 0;
}

/* Room for one entry more at the end, zeroed. */
static int extend(void **array, pb_size_t *n, size_t size) {
        char *a;

        if (*n >= ENTRIES_MAX)
                return -E2BIG;
        a = reallocarray(*array, *n + 1U, size);
        if (!a)
                return -ENOMEM;
        memset(a + *n * size, 0, size);
        *array = a;
        (*n)++;
        return 0;
}

static int merge_unified(Limits *l, const Limits *change) {
        int r = 0;

        for (pb_size_t i = 0; r >= 0 && i < change->unified_count; i++) {
                const char *key = strempty(change->unified[i].key);
                pb_size_t j = 0;

                while (j < l->unified_count && !streq(strempty(l->unified[j].key), key))
                        j++;
                if (j == l->unified_count) {
                        r = extend((void **) &l->unified, &l->unified_count, sizeof l->unified[0]);
                        if (r >= 0)
                                r = replace_string(&l->unified[j].key, key);
                }
                if (r >= 0)
                        r = replace_string(&l->unified[j].value, change->unified[i].value);
        }
        return r;
}

static int merge_huge_pages(Limits *l, const Limits *change) {
        int r = 0;

        for (pb_size_t i = 0; r >= 0 && i < change->hugepage_limits_count; i++) {
                const char *page = strempty(change->hugepage_limits[i].page_size);
                pb_size_t j = 0;

                while (j < l->hugepage_limits_count && !streq(strempty(l->hugepage_limits[j].page_size), page))
                        j++;
                if (j == l->hugepage_limits_count) {
                        r = extend((void **) &l->hugepage_limits, &l->hugepage_limits_count,
                                   sizeof l->hugepage_limits[0]);
                        if (r >= 0)
                                r = replace_string(&l->hugepage_limits[j].page_size, page);
                }
                if (r >= 0)
                        l->hugepage_limits[j].limit = change->hugepage_limits[i].limit;
        }
        return r;
}

/* memory_swap_limit counts memory and swap together: the swap stays what it was when only the memory changes. */
static void merge_memory(Limits *l, const Limits *change) {
        int64_t memory = change->memory_limit_in_bytes, both = change->memory_swap_limit_in_bytes;
        int64_t swap = l->memory_swap_limit_in_bytes - l->memory_limit_in_bytes;

        if (memory != 0 && both == 0 && l->memory_swap_limit_in_bytes > 0 && l->memory_limit_in_bytes > 0) {
                if (memory < 0 || __builtin_add_overflow(memory, swap, &both))
                        both = -1;
        }
        if (memory != 0)
                l->memory_limit_in_bytes = memory;
        if (both != 0)
                l->memory_swap_limit_in_bytes = both;
}

/* The OOM score is the process's, not the cgroup's: it is what it was made with. */
static int limits_merge(Limits *l, const Limits *change) {
        int r;

        if (change->cpu_period != 0)
                l->cpu_period = change->cpu_period;
        if (change->cpu_quota != 0)
                l->cpu_quota = change->cpu_quota;
        if (change->cpu_shares != 0)
                l->cpu_shares = change->cpu_shares;
        merge_memory(l, change);
        r = replace_string(&l->cpuset_cpus, change->cpuset_cpus);
        if (r >= 0)
                r = replace_string(&l->cpuset_mems, change->cpuset_mems);
        if (r >= 0)
                r = merge_unified(l, change);
        if (r >= 0)
                r = merge_huge_pages(l, change);
        return r;
}

/* now (nothing: NULL) with change on top. */
static int limits_new(const Limits *now, const Limits *change, Limits *ret, Error *error) {
        _cleanup_(limits_done) Limits l = {};
        int r;

        if (now) {
                r = limits_copy(now, &l, error);
                if (r < 0)
                        return r;
        }
        if (change) {
                r = limits_merge(&l, change);
                if (r == -E2BIG)
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "more than %u limits of a kind", ENTRIES_MAX);
                if (r < 0)
                        return error_oom(error);
        }
        *ret = l;
        l = (Limits) {};
        return 0;
}

/* --- on disk ----------------------------------------------------------------------------------------------------- */

static int save(const char *directory, const pb_msgdesc_t *fields, const void *message, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/resources.pb", directory);
        _cleanup_free_ void *data = NULL;
        size_t size;
        int r;

        if (!path)
                return error_oom(error);
        r = message_encode(fields, message, /* allocator= */ NULL, RESOURCES_MAX, &data, &size, error);
        if (r < 0)
                return r;
        r = write_file_atomic(AT_FDCWD, path, data, size, 0600, 0);
        return r < 0 ? error_set(error, r, "the limits are in force, but cannot be saved in %s", path) : 0;
}

/* 0: there is none, or none that can be read. */
static int load(const char *directory, const pb_msgdesc_t *fields, void *ret) {
        _cleanup_free_ char *path = strprintf("%s/resources.pb", directory), *data = NULL;
        _cleanup_error_ Error error = ERROR_INIT;
        size_t size;
        int r;

        if (!path)
                return -ENOMEM;
        r = read_file(AT_FDCWD, path, RESOURCES_MAX, &data, &size);
        if (r == -ENOENT)
                return 0;
        if (r >= 0)
                r = message_decode(fields, data, size, ret, &error);
        if (r < 0) {
                log_warning_errno(r, "Cannot read %s: the limits shown are those of the creation, ignoring", path);
                return 0;
        }
        return 1;
}

/* --- containers -------------------------------------------------------------------------------------------------- */

static void container_set_limits(Container *c, Limits *l) {
        runtime_v1_LinuxContainerConfig *linux_config = &c->request.config.linux;

        if (c->request.config.has_linux && linux_config->has_resources)
                limits_done(&linux_config->resources);
        c->request.config.has_linux = linux_config->has_resources = true;
        linux_config->resources = *l;
        *l = (Limits) {};
}

static int container_save_limits(Container *c, Error *error) {
        runtime_v1_UpdateContainerResourcesRequest q = {
                .has_linux = true,
                .linux = c->request.config.linux.resources,
        };

        return save(c->directory, runtime_v1_UpdateContainerResourcesRequest_fields, &q, error);
}

void container_load_resources(Container *c) {
        runtime_v1_UpdateContainerResourcesRequest q = {};

        if (load(c->directory, runtime_v1_UpdateContainerResourcesRequest_fields, &q) <= 0)
                return;
        if (q.has_linux)
                container_set_limits(c, &q.linux);
        pb_release(runtime_v1_UpdateContainerResourcesRequest_fields, &q);
}

int container_update(Container *c, const Limits *resources, Error *error) {
        _cleanup_(container_unrefp) _unused_ Container *held = container_ref(c);
        const runtime_v1_ContainerConfig *config = &c->request.config;
        _cleanup_(limits_done) Limits l = {};
        EnginePod pod;
        EngineContainer view;
        int r;

        r = fiber_lock(&c->lock);
        if (r < 0)
                return error_set(error, r, "gave up waiting for another operation on container %s", c->id);
        _cleanup_fiber_unlock_ FiberLock *lock = &c->lock;

        if (c->removed)
                return error_setf(error, GRPC_NOT_FOUND, "container %s was removed meanwhile", c->id);
        if (c->phase != CONTAINER_CREATED && c->phase != CONTAINER_RUNNING)
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "container %s is %s: only a created or running one has limits to change", c->id,
                                  container_phase_to_string(c->phase));
        r = limits_new(config->has_linux && config->linux.has_resources ? &config->linux.resources : NULL, resources,
                       &l, error);
        if (r < 0)
                return r;
        view = container_engine_view(c, &pod);
        r = c->manager->engine->ops->container_update(c->manager->engine, &view, &l, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("container-update.done", c->id);
        container_set_limits(c, &l);
        return container_save_limits(c, error);
}

/* --- pods -------------------------------------------------------------------------------------------------------- */

static void pod_set_limits(Pod *p, Limits *overhead, Limits *resources) {
        runtime_v1_LinuxPodSandboxConfig *config = &p->request.config.linux;

        if (config->has_overhead)
                limits_done(&config->overhead);
        if (config->has_resources)
                limits_done(&config->resources);
        p->request.config.has_linux = config->has_overhead = config->has_resources = true;
        config->overhead = *overhead;
        config->resources = *resources;
        *overhead = *resources = (Limits) {};
}

static int pod_save_limits(Pod *p, Error *error) {
        runtime_v1_UpdatePodSandboxResourcesRequest q = {
                .has_overhead = true,
                .overhead = p->request.config.linux.overhead,
                .has_resources = true,
                .resources = p->request.config.linux.resources,
        };

        return save(p->directory, runtime_v1_UpdatePodSandboxResourcesRequest_fields, &q, error);
}

void pod_load_resources(Pod *p) {
        runtime_v1_UpdatePodSandboxResourcesRequest q = {};

        if (load(p->directory, runtime_v1_UpdatePodSandboxResourcesRequest_fields, &q) <= 0)
                return;
        pod_set_limits(p, &q.overhead, &q.resources);
        q.has_overhead = q.has_resources = false;
        pb_release(runtime_v1_UpdatePodSandboxResourcesRequest_fields, &q);
}

/* Unlimited with something on top is unlimited; and where the containers' limit isn't known, the overhead alone limits
 * nothing. */
static int64_t add_limits(int64_t resources, int64_t overhead) {
        int64_t sum;

        if (resources <= 0 || overhead <= 0)
                return resources;
        return __builtin_add_overflow(resources, overhead, &sum) ? -1 : sum;
}

/* For the slice: the containers' and the overhead. */
static void add_overhead(Limits *l, const Limits *overhead) {
        int64_t period = l->cpu_period > 0 ? l->cpu_period : 100000;
        int64_t other_period = overhead->cpu_period > 0 ? overhead->cpu_period : 100000;

        l->cpu_shares = add_limits(l->cpu_shares, overhead->cpu_shares);
        l->cpu_quota = add_limits(l->cpu_quota, (int64_t) ((double) overhead->cpu_quota * (double) period /
                                                           (double) other_period));
        l->memory_limit_in_bytes = add_limits(l->memory_limit_in_bytes, overhead->memory_limit_in_bytes);
        l->memory_swap_limit_in_bytes = add_limits(l->memory_swap_limit_in_bytes,
                                                   overhead->memory_swap_limit_in_bytes > 0
                                                                   ? overhead->memory_swap_limit_in_bytes
                                                                   : overhead->memory_limit_in_bytes);
}

int pod_update(Pod *p, const Limits *overhead, const Limits *resources, Error *error) {
        _cleanup_(pod_unrefp) _unused_ Pod *held = pod_ref(p);
        const runtime_v1_LinuxPodSandboxConfig *config = &p->request.config.linux;
        _cleanup_(limits_done) Limits new_overhead = {}, new_resources = {}, both = {};
        EnginePod view = pod_engine_view(p);
        int r;

        r = fiber_lock(&p->lock);
        if (r < 0)
                return error_set(error, r, "gave up waiting for another operation on pod %s", p->id);
        _cleanup_fiber_unlock_ FiberLock *lock = &p->lock;

        if (p->removed)
                return error_setf(error, GRPC_NOT_FOUND, "pod sandbox %s was removed meanwhile", p->id);
        if (p->phase != POD_READY)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "pod sandbox %s is not running", p->id);
        r = limits_new(config->has_overhead ? &config->overhead : NULL, overhead, &new_overhead, error);
        if (r >= 0)
                r = limits_new(config->has_resources ? &config->resources : NULL, resources, &new_resources, error);
        if (r >= 0)
                r = limits_copy(&new_resources, &both, error);
        if (r < 0)
                return r;
        add_overhead(&both, &new_overhead);
        if (p->slice_is_ours) {
                r = p->manager->engine->ops->pod_update(p->manager->engine, &view, &both, error);
                if (r < 0)
                        return r;
        }
        KILL_POINT_OF("pod-update.done", p->id);
        pod_set_limits(p, &new_overhead, &new_resources);
        return pod_save_limits(p, error);
}

/* With a transient unit its drop-ins go, but a slice made for one is none. */
void pod_forget_limits(const Pod *p) {
        _cleanup_free_ char *path = NULL;
        int r;

        if (!p->request.config.has_linux || !p->request.config.linux.has_resources)
                return;
        path = strprintf(SYSTEM_CONTROL "/%s.d", p->slice);
        r = path ? remove_tree(AT_FDCWD, path) : -ENOMEM;
        if (r < 0)
                log_debug_errno(r, "The limits of %s are left in %s, ignoring", p->slice, SYSTEM_CONTROL);
}
