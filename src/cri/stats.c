/* Figures: ContainerStats, PodSandboxStats, their lists and streams. Only what runs has any; figures that the kernel
 * doesn't count here are left out. Items are read while they are encoded, and no wait comes in between. */

#include "cri/describe.h"
#include "cri/internal.h"
#include "cri/stream.h"

#define DEFAULT_INTERFACE "eth0" /* as cni_add() makes it */

/* A field of UInt64Value, absent when it isn't known. */
#define SET_VALUE(message, field, v)                                                                                  \
        ({                                                                                                            \
                uint64_t _v = (v);                                                                                    \
                (message)->has_##field = _v != STAT_UNKNOWN;                                                          \
                (message)->field.value = _v;                                                                          \
        })

static runtime_v1_PsiData describe_pressure_line(const PressureLine *l) {
        return (runtime_v1_PsiData) {
                .Total = l->total_usec,
                .Avg10 = l->avg10,
                .Avg60 = l->avg60,
                .Avg300 = l->avg300,
        };
}

#define SET_PSI(message, pressure)                                                                                    \
        ({                                                                                                            \
                const Pressure *_p = (pressure);                                                                      \
                (message)->has_psi = _p->known;                                                                       \
                (message)->psi.has_Some = (message)->psi.has_Full = _p->known;                                        \
                (message)->psi.Some = describe_pressure_line(&_p->some);                                              \
                (message)->psi.Full = describe_pressure_line(&_p->full);                                              \
        })

static void describe_cpu(const CgroupStats *s, uint64_t nano_cores, bool *ret_has, runtime_v1_CpuUsage *ret) {
        *ret_has = true;
        ret->timestamp = (int64_t) s->timestamp_nsec;
        SET_VALUE(ret, usage_core_nano_seconds, s->cpu_usage_nsec);
        SET_VALUE(ret, usage_nano_cores, nano_cores);
        SET_PSI(ret, &s->cpu_pressure);
}

static void describe_memory(const CgroupStats *s, bool *ret_has, runtime_v1_MemoryUsage *ret) {
        *ret_has = s->memory_usage != STAT_UNKNOWN;
        ret->timestamp = (int64_t) s->timestamp_nsec;
        SET_VALUE(ret, working_set_bytes, s->memory_working_set);
        SET_VALUE(ret, available_bytes,
                  s->memory_limit == STAT_UNKNOWN || s->memory_working_set == STAT_UNKNOWN ? STAT_UNKNOWN
                  : s->memory_limit > s->memory_working_set ? s->memory_limit - s->memory_working_set
                                                            : 0);
        SET_VALUE(ret, usage_bytes, s->memory_usage);
        SET_VALUE(ret, rss_bytes, s->memory_anon);
        SET_VALUE(ret, page_faults, s->memory_page_faults);
        SET_VALUE(ret, major_page_faults, s->memory_major_page_faults);
        SET_PSI(ret, &s->memory_pressure);
}

static void describe_swap(const CgroupStats *s, bool *ret_has, runtime_v1_SwapUsage *ret) {
        *ret_has = s->swap_usage != STAT_UNKNOWN;
        ret->timestamp = (int64_t) s->timestamp_nsec;
        SET_VALUE(ret, swap_usage_bytes, s->swap_usage);
        SET_VALUE(ret, swap_available_bytes,
                  s->swap_limit == STAT_UNKNOWN     ? STAT_UNKNOWN
                  : s->swap_limit > s->swap_usage ? s->swap_limit - s->swap_usage
                                                  : 0);
}

static void describe_io(const CgroupStats *s, bool *ret_has, runtime_v1_IoUsage *ret) {
        *ret_has = s->io_pressure.known;
        ret->timestamp = (int64_t) s->timestamp_nsec;
        SET_PSI(ret, &s->io_pressure);
}

static int describe_container_stats(Container *k, runtime_v1_ContainerStats *ret, Error *error) {
        const runtime_v1_ContainerConfig *config = &k->request.config;
        uint64_t nano_cores;
        CgroupStats s;
        int r;

        r = container_read_stats(k, 0, &s, &nano_cores, error);
        if (r < 0)
                return r;
        *ret = (runtime_v1_ContainerStats) {
                .has_attributes = true,
                .attributes.id = k->id,
                .attributes.has_metadata = true,
                .attributes.metadata = config->metadata,
        };
        LEND_MAP(&ret->attributes, config, labels);
        LEND_MAP(&ret->attributes, config, annotations);
        describe_cpu(&s, nano_cores, &ret->has_cpu, &ret->cpu);
        describe_memory(&s, &ret->has_memory, &ret->memory);
        describe_swap(&s, &ret->has_swap, &ret->swap);
        describe_io(&s, &ret->has_io, &ret->io);
        if (k->layer.timestamp_nsec > 0) {
                ret->has_writable_layer = true;
                ret->writable_layer = (runtime_v1_FilesystemUsage) {
                        .timestamp = (int64_t) k->layer.timestamp_nsec,
                        .has_fs_id = true,
                        .fs_id.mountpoint = (char *) k->manager->config.state_directory,
                        .has_used_bytes = true,
                        .used_bytes.value = k->layer.usage.bytes,
                        .has_inodes_used = true,
                        .inodes_used.value = k->layer.usage.inodes,
                };
        }
        return 0;
}

/* --- containers -------------------------------------------------------------------------------------------------- */

/* The same for lists, whose filter can't ask for a state. */
static runtime_v1_ContainerFilter running_containers(bool has_filter, const runtime_v1_ContainerStatsFilter *filter) {
        runtime_v1_ContainerFilter f = {
                .has_state = true,
                .state.state = runtime_v1_ContainerState_CONTAINER_RUNNING,
        };

        if (has_filter) {
                f.id = filter->id;
                f.pod_sandbox_id = filter->pod_sandbox_id;
                LEND_MAP(&f, filter, label_selector);
        }
        return f;
}

int cri_container_stats(CriCall *c, Error *error) {
        const runtime_v1_ContainerStatsRequest *request = c->request;
        runtime_v1_ContainerStatsResponse response = { .has_stats = true };
        _cleanup_(container_unrefp) Container *held = NULL;
        Container *k;
        int r;

        r = cri_find_container(c, request->container_id, &k, error);
        if (r < 0)
                return r;
        held = container_ref(k);
        manager_measure_layers(c->manager, /* pod= */ NULL, k);
        r = describe_container_stats(k, &response.stats, error);
        if (r < 0)
                return r;
        return CRI_REPLY(c, ContainerStatsResponse, &response, error);
}

/* What ended since it was chosen is left out. */
static bool put_container_stats(pb_ostream_t *stream, const pb_field_iter_t *field, Container *k) {
        runtime_v1_ContainerStats item;

        return describe_container_stats(k, &item, NULL) < 0 ||
               message_put(stream, field, runtime_v1_ContainerStats_fields, &item);
}

typedef struct StatsList {
        const Manager *manager;
        const void *filter;
} StatsList;

static bool put_all_container_stats(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        const StatsList *list = *arg;

        for (Container *k = list->manager->containers; k; k = k->hh.next)
                if (container_matches(k, list->filter) && !put_container_stats(stream, field, k))
                        return false;
        return true;
}

int cri_list_container_stats(CriCall *c, Error *error) {
        const runtime_v1_ListContainerStatsRequest *request = c->request;
        runtime_v1_ContainerFilter filter = running_containers(request->has_filter, &request->filter);
        StatsList list = { c->manager, &filter };
        runtime_v1_ListContainerStatsResponse response = {
                .stats = { .funcs.encode = put_all_container_stats, .arg = &list },
        };

        manager_measure_layers(c->manager, /* pod= */ NULL, /* c= */ NULL);
        return CRI_REPLY(c, ListContainerStatsResponse, &response, error);
}

static bool put_container_batch(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        const StreamBatch *batch = *arg;

        for (size_t i = 0; i < batch->n; i++)
                if (!put_container_stats(stream, field, batch->items[i]))
                        return false;
        return true;
}

static int send_container_batch(CriCall *c, StreamBatch *batch, Error *error) {
        runtime_v1_StreamContainerStatsResponse response = {
                .container_stats = { .funcs.encode = put_container_batch, .arg = batch },
        };

        return CRI_REPLY(c, StreamContainerStatsResponse, &response, error);
}

static void unref_container(void *k) {
        container_unref(k);
}

int cri_stream_container_stats(CriCall *c, Error *error) {
        const runtime_v1_StreamContainerStatsRequest *request = c->request;
        runtime_v1_ContainerFilter filter = running_containers(request->has_filter, &request->filter);
        _cleanup_(stream_list_done) StreamList list = { .unref = unref_container };

        manager_measure_layers(c->manager, /* pod= */ NULL, /* c= */ NULL);
        for (Container *k = c->manager->containers; k; k = k->hh.next)
                if (container_matches(k, &filter)) {
                        if (stream_list_add(&list, k) < 0)
                                return error_oom(error);
                        container_ref(k);
                }
        return stream_list_send(c, &list, send_container_batch, error);
}

/* --- pods -------------------------------------------------------------------------------------------------------- */

static runtime_v1_PodSandboxFilter ready_pods(bool has_filter, const runtime_v1_PodSandboxStatsFilter *filter) {
        runtime_v1_PodSandboxFilter f = {
                .has_state = true,
                .state.state = runtime_v1_PodSandboxState_SANDBOX_READY,
        };

        if (has_filter) {
                f.id = filter->id;
                LEND_MAP(&f, filter, label_selector);
        }
        return f;
}

static runtime_v1_NetworkInterfaceUsage describe_interface(NetInterface *i) {
        return (runtime_v1_NetworkInterfaceUsage) {
                .name = i->name,
                .has_rx_bytes = true,
                .rx_bytes.value = i->rx_bytes,
                .has_rx_errors = true,
                .rx_errors.value = i->rx_errors,
                .has_tx_bytes = true,
                .tx_bytes.value = i->tx_bytes,
                .has_tx_errors = true,
                .tx_errors.value = i->tx_errors,
        };
}

static int describe_network(Pod *p, Arena *arena, bool *ret_has, runtime_v1_NetworkUsage *ret) {
        NetInterface *interfaces = arena_new(arena, NetInterface, NET_INTERFACES_MAX);
        size_t n;

        if (!interfaces)
                return -ENOMEM;
        n = pod_read_network(p, interfaces);
        if (n == 0)
                return 0;
        ret->interfaces = arena_new(arena, runtime_v1_NetworkInterfaceUsage, n);
        if (!ret->interfaces)
                return -ENOMEM;
        ret->timestamp = (int64_t) (now_usec(CLOCK_REALTIME) * NSEC_PER_USEC);
        for (size_t i = 0; i < n; i++)
                if (streq(interfaces[i].name, DEFAULT_INTERFACE)) {
                        ret->has_default_interface = true;
                        ret->default_interface = describe_interface(&interfaces[i]);
                } else
                        ret->interfaces[ret->interfaces_count++] = describe_interface(&interfaces[i]);
        *ret_has = true;
        return 0;
}

static int describe_pod_containers(Pod *p, Arena *arena, runtime_v1_LinuxPodSandboxStats *ret) {
        size_t n = 0;

        for (const Container *k = p->containers; k; k = k->pod_next)
                n += k->phase == CONTAINER_RUNNING;
        n = MIN(n, (size_t) PB_SIZE_MAX);
        if (n == 0)
                return 0;
        ret->containers = arena_new(arena, runtime_v1_ContainerStats, n);
        if (!ret->containers)
                return -ENOMEM;
        for (Container *k = p->containers; k && ret->containers_count < n; k = k->pod_next)
                if (k->phase == CONTAINER_RUNNING &&
                    describe_container_stats(k, &ret->containers[ret->containers_count], NULL) >= 0)
                        ret->containers_count++;
        return 0;
}

static int describe_pod_stats(Pod *p, Arena *arena, runtime_v1_PodSandboxStats *ret, Error *error) {
        const runtime_v1_PodSandboxConfig *config = &p->request.config;
        runtime_v1_LinuxPodSandboxStats *l = &ret->linux;
        uint64_t nano_cores;
        CgroupStats s;
        int r;

        r = pod_read_stats(p, 0, &s, &nano_cores, error);
        if (r < 0)
                return r;
        *ret = (runtime_v1_PodSandboxStats) {
                .has_attributes = true,
                .attributes.id = p->id,
                .attributes.has_metadata = true,
                .attributes.metadata = config->metadata,
                .has_linux = true,
        };
        LEND_MAP(&ret->attributes, config, labels);
        LEND_MAP(&ret->attributes, config, annotations);
        describe_cpu(&s, nano_cores, &l->has_cpu, &l->cpu);
        describe_memory(&s, &l->has_memory, &l->memory);
        describe_io(&s, &l->has_io, &l->io);
        l->has_process = true;
        l->process.timestamp = (int64_t) s.timestamp_nsec;
        SET_VALUE(&l->process, process_count, pod_count_processes(p));
        r = describe_network(p, arena, &l->has_network, &l->network);
        if (r >= 0)
                r = describe_pod_containers(p, arena, l);
        return r < 0 ? error_oom(error) : 0;
}

int cri_pod_sandbox_stats(CriCall *c, Error *error) {
        const runtime_v1_PodSandboxStatsRequest *request = c->request;
        runtime_v1_PodSandboxStatsResponse response = { .has_stats = true };
        _cleanup_(pod_unrefp) Pod *held = NULL;
        Pod *p;
        int r;

        r = cri_find_pod(c, request->pod_sandbox_id, &p, error);
        if (r < 0)
                return r;
        held = pod_ref(p);
        manager_measure_layers(c->manager, p, /* c= */ NULL);
        r = describe_pod_stats(p, &c->arena, &response.stats, error);
        if (r < 0)
                return r;
        return CRI_REPLY(c, PodSandboxStatsResponse, &response, error);
}

static bool put_pod_stats(pb_ostream_t *stream, const pb_field_iter_t *field, Pod *p) {
        _cleanup_arena_ Arena arena = ARENA_INIT;
        runtime_v1_PodSandboxStats item;
        int r;

        r = describe_pod_stats(p, &arena, &item, NULL);
        if (r == -ENOMEM)
                return false;
        return r < 0 || message_put(stream, field, runtime_v1_PodSandboxStats_fields, &item);
}

static bool put_all_pod_stats(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        const StatsList *list = *arg;

        for (Pod *p = list->manager->pods; p; p = p->hh.next)
                if (pod_matches(p, list->filter) && !put_pod_stats(stream, field, p))
                        return false;
        return true;
}

int cri_list_pod_sandbox_stats(CriCall *c, Error *error) {
        const runtime_v1_ListPodSandboxStatsRequest *request = c->request;
        runtime_v1_PodSandboxFilter filter = ready_pods(request->has_filter, &request->filter);
        StatsList list = { c->manager, &filter };
        runtime_v1_ListPodSandboxStatsResponse response = {
                .stats = { .funcs.encode = put_all_pod_stats, .arg = &list },
        };

        manager_measure_layers(c->manager, /* pod= */ NULL, /* c= */ NULL);
        return CRI_REPLY(c, ListPodSandboxStatsResponse, &response, error);
}

static bool put_pod_batch(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        const StreamBatch *batch = *arg;

        for (size_t i = 0; i < batch->n; i++)
                if (!put_pod_stats(stream, field, batch->items[i]))
                        return false;
        return true;
}

static int send_pod_batch(CriCall *c, StreamBatch *batch, Error *error) {
        runtime_v1_StreamPodSandboxStatsResponse response = {
                .pod_sandbox_stats = { .funcs.encode = put_pod_batch, .arg = batch },
        };

        return CRI_REPLY(c, StreamPodSandboxStatsResponse, &response, error);
}

static void unref_pod(void *p) {
        pod_unref(p);
}

int cri_stream_pod_sandbox_stats(CriCall *c, Error *error) {
        const runtime_v1_StreamPodSandboxStatsRequest *request = c->request;
        runtime_v1_PodSandboxFilter filter = ready_pods(request->has_filter, &request->filter);
        _cleanup_(stream_list_done) StreamList list = { .unref = unref_pod };

        manager_measure_layers(c->manager, /* pod= */ NULL, /* c= */ NULL);
        for (Pod *p = c->manager->pods; p; p = p->hh.next)
                if (pod_matches(p, &filter)) {
                        if (stream_list_add(&list, p) < 0)
                                return error_oom(error);
                        pod_ref(p);
                }
        return stream_list_send(c, &list, send_pod_batch, error);
}
