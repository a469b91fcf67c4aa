#include "cri/cri.h"

#include <inttypes.h>

#include "basic/kill-point.h"
#include "basic/log.h"
#include "basic/message-id.h"
#include "cri/internal.h"

static MethodStatistics *statistics_new(void);

int cri_new(Manager *manager, Cri **ret) {
        Cri *c = calloc(1, sizeof(Cri));

        if (!c)
                return -ENOMEM;
        c->manager = manager;
        c->statistics = statistics_new();
        if (!c->statistics) {
                free(c);
                return -ENOMEM;
        }
        *ret = c;
        return 0;
}

void cri_set_streams(Cri *c, StreamServer *streams) {
        c->streams = streams;
}

int cri_set_settings(Cri *c, const char *text) {
        char *copy = strdup(text);

        if (!copy)
                return -ENOMEM;
        free(c->settings);
        c->settings = copy;
        return 0;
}

Cri *cri_free(Cri *c) {
        if (c) {
                free(c->settings);
                free(c->statistics);
        }
        return mfree(c);
}

static void *message_realloc(void *p, size_t size) {
        return p ? grpc_message_realloc(p, size) : grpc_message_alloc(size);
}

const MessageAllocator cri_allocator = { message_realloc, grpc_message_free };

int cri_reply(CriCall *c, const pb_msgdesc_t *fields, const void *response, Error *error) {
        void *data;
        size_t size;
        int r;

        r = message_encode(fields, response, &cri_allocator, GRPC_MESSAGE_MAX, &data, &size, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("call.done", c->method->name);
        r = grpc_call_send_take(c->call, data, size);
        if (r < 0)
                return error_set(error, r, "cannot send the answer");
        return 0;
}

void cri_note_pod(CriCall *c, const Pod *p) {
        const runtime_v1_PodSandboxMetadata *metadata = &p->request.config.metadata;

        memcpy(c->pod_id, p->id, sizeof c->pod_id);
        c->subject = arena_printf(&c->arena, "pod sandbox %s/%s", strempty(metadata->namespace),
                                  strempty(metadata->name));
}

void cri_note_container(CriCall *c, const Container *k) {
        cri_note_pod(c, k->pod);
        memcpy(c->container_id, k->id, sizeof c->container_id);
        c->subject = arena_printf(&c->arena, "container %s of %s", strempty(k->request.config.metadata.name),
                                  strempty(c->subject));
}

int cri_find_pod(CriCall *c, const char *id, Pod **ret, Error *error) {
        int r;

        r = manager_find_pod(c->manager, strempty(id), ret, error);
        if (r < 0)
                return r;
        cri_note_pod(c, *ret);
        return 0;
}

int cri_find_container(CriCall *c, const char *id, Container **ret, Error *error) {
        int r;

        r = manager_find_container(c->manager, strempty(id), ret, error);
        if (r < 0)
                return r;
        cri_note_container(c, *ret);
        return 0;
}

/* Takes the error over, unless it only says that there is none. */
static int unless_not_found(int r, Error *cause, Error *error) {
        if (r < 0 && cause->code == GRPC_NOT_FOUND)
                return 0;
        if (r < 0)
                error_move(error, cause);
        return r;
}

int cri_find_pod_if_any(CriCall *c, const char *id, Pod **ret, Error *error) {
        _cleanup_error_ Error cause = ERROR_INIT;
        Pod *p = NULL;
        int r;

        r = unless_not_found(cri_find_pod(c, id, &p, &cause), &cause, error);
        if (r < 0)
                return r;
        *ret = p;
        return 0;
}

int cri_find_container_if_any(CriCall *c, const char *id, Container **ret, Error *error) {
        _cleanup_error_ Error cause = ERROR_INIT;
        Container *k = NULL;
        int r;

        r = unless_not_found(cri_find_container(c, id, &k, &cause), &cause, error);
        if (r < 0)
                return r;
        *ret = k;
        return 0;
}

/* The kubelet asks again and again for what is gone, and for what not every runtime has: no news. */
static int failure_level(const CriCall *c, int r, const Error *error) {
        if (error->code == GRPC_UNIMPLEMENTED || (error->code == GRPC_NOT_FOUND && !(c->method->flags & CRI_CHANGES)))
                return LOG_DEBUG;
        if (r == -ECANCELED)
                return c->method->flags & CRI_STREAMS ? LOG_DEBUG : LOG_INFO;
        return LOG_WARNING;
}

/* The request, and whom it was about; by the ID alone once that is gone. */
static int log_fields(const CriCall *c, bool failed, char ***ret) {
        Container *k = NULL;
        Pod *p = NULL;
        int r;

        r = strv_extendf(ret, "CRI_METHOD=%s", c->method->name);
        if (r >= 0 && failed)
                r = strv_extend(ret, MESSAGE_CALL_FAILED);
        if (c->container_id[0])
                HASH_FIND(hh, c->manager->containers, c->container_id, ID_LENGTH, k);
        if (c->pod_id[0])
                HASH_FIND(hh, c->manager->pods, c->pod_id, ID_LENGTH, p);
        if (r >= 0 && (k || p))
                return log_fields_of(k ? k->pod : p, k, ret);
        if (r >= 0 && c->pod_id[0])
                r = strv_extendf(ret, "POD_ID=%s", c->pod_id);
        if (r >= 0 && c->container_id[0])
                r = strv_extendf(ret, "CONTAINER_ID=%s", c->container_id);
        return r;
}

static void log_end(const CriCall *c, int r, const Error *error, uint64_t begin_usec) {
        uint64_t msec = (now_usec(CLOCK_MONOTONIC) - begin_usec) / USEC_PER_MSEC;
        int level = r >= 0 ? LOG_INFO : failure_level(c, r, error);
        _cleanup_strv_free_ char **fields = NULL;

        if ((r >= 0 && !(c->method->flags & CRI_CHANGES)) || level > log_get_max_level())
                return;
        (void) log_fields(c, r < 0 && r != -ECANCELED, &fields);
        if (r >= 0)
                log_struct(level, (const char *const *) fields, "%s%s%s: done in %" PRIu64 " ms", c->method->name,
                           c->subject ? ", " : "", strempty(c->subject), msec);
        else
                log_struct(level, (const char *const *) fields, "%s%s%s: failed after %" PRIu64 " ms: %s",
                           c->method->name, c->subject ? ", " : "", strempty(c->subject), msec,
                           error->message ? error->message : strerror(-r));
}

static int decode_and_serve(CriCall *c, Error *error) {
        const CriMethod *m = c->method;
        int r;

        if (!m->serve)
                return error_setf(error, GRPC_UNIMPLEMENTED, "%s is not implemented by rktlet " PROJECT_VERSION,
                                  m->name);
        if (!(m->flags & CRI_BEFORE_LOAD)) {
                r = manager_wait_loaded(c->manager, error);
                if (r < 0)
                        return r;
        }
        if (!m->request)
                return m->serve(c, error);

        c->request = arena_alloc(&c->arena, m->request_size);
        if (!c->request)
                return error_oom(error);
        r = message_decode(m->request, c->raw, c->raw_size, c->request, error);
        if (r < 0)
                return r;
        r = m->serve(c, error);
        pb_release(m->request, c->request);
        return r;
}

static void count(const CriCall *c, int r, const Error *error, uint64_t begin_usec);

static int serve(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        _cleanup_error_ Error cause = ERROR_INIT;
        uint64_t begin_usec = now_usec(CLOCK_MONOTONIC);
        Cri *cri = userdata;
        CriCall c = {
                .cri = cri,
                .manager = cri->manager,
                .call = call,
                .method = grpc_call_method(call)->data,
                .raw = request,
                .raw_size = size,
        };
        int r;

        KILL_POINT_OF("call.begin", c.method->name);
        r = decode_and_serve(&c, &cause);
        count(&c, r, &cause, begin_usec);
        KILL_POINT_OF("call.end", c.method->name);
        log_end(&c, r, &cause, begin_usec);
        arena_done(&c.arena);
        if (r < 0)
                error_move(error, &cause);
        return r;
}

/* A service, a method, the request's type (or what to take instead), handler, flags. */
#define DECODED(type) .request = runtime_v1_##type##Request_fields, .request_size = sizeof(runtime_v1_##type##Request)
#define RAW           .request = NULL
#define METHODS(X)                                                                                                    \
        X(RuntimeService, Version, DECODED(Version), cri_version, CRI_BEFORE_LOAD)                                    \
        X(RuntimeService, Status, DECODED(Status), cri_status, 0)                                                     \
        X(RuntimeService, RuntimeConfig, DECODED(RuntimeConfig), cri_runtime_config, 0)                               \
        X(RuntimeService, UpdateRuntimeConfig, DECODED(UpdateRuntimeConfig), cri_update_runtime_config, 0)            \
        X(RuntimeService, RunPodSandbox, RAW, cri_run_pod_sandbox, CRI_CHANGES)                                       \
        X(RuntimeService, StopPodSandbox, DECODED(StopPodSandbox), cri_stop_pod_sandbox, CRI_CHANGES)                 \
        X(RuntimeService, RemovePodSandbox, DECODED(RemovePodSandbox), cri_remove_pod_sandbox, CRI_CHANGES)           \
        X(RuntimeService, PodSandboxStatus, DECODED(PodSandboxStatus), cri_pod_sandbox_status, 0)                     \
        X(RuntimeService, ListPodSandbox, DECODED(ListPodSandbox), cri_list_pod_sandbox, 0)                           \
        X(RuntimeService, StreamPodSandboxes, DECODED(StreamPodSandboxes), cri_stream_pod_sandboxes, CRI_STREAMS)     \
        X(RuntimeService, CreateContainer, RAW, cri_create_container, CRI_CHANGES)                                    \
        X(RuntimeService, StartContainer, DECODED(StartContainer), cri_start_container, CRI_CHANGES)                  \
        X(RuntimeService, StopContainer, DECODED(StopContainer), cri_stop_container, CRI_CHANGES)                     \
        X(RuntimeService, RemoveContainer, DECODED(RemoveContainer), cri_remove_container, CRI_CHANGES)               \
        X(RuntimeService, ListContainers, DECODED(ListContainers), cri_list_containers, 0)                            \
        X(RuntimeService, StreamContainers, DECODED(StreamContainers), cri_stream_containers, CRI_STREAMS)            \
        X(RuntimeService, ContainerStatus, DECODED(ContainerStatus), cri_container_status, 0)                         \
        X(RuntimeService, ReopenContainerLog, DECODED(ReopenContainerLog), cri_reopen_container_log, 0)               \
        X(RuntimeService, ExecSync, DECODED(ExecSync), cri_exec_sync, 0)                                              \
        X(RuntimeService, GetContainerEvents, DECODED(GetEvents), cri_get_container_events, CRI_STREAMS)              \
        X(RuntimeService, UpdateContainerResources, DECODED(UpdateContainerResources),                                \
          cri_update_container_resources, CRI_CHANGES)                                                                \
        X(RuntimeService, Exec, DECODED(Exec), cri_exec, 0)                                                           \
        X(RuntimeService, Attach, DECODED(Attach), cri_attach, 0)                                                     \
        X(RuntimeService, PortForward, DECODED(PortForward), cri_port_forward, 0)                                     \
        X(RuntimeService, ContainerStats, DECODED(ContainerStats), cri_container_stats, 0)                            \
        X(RuntimeService, ListContainerStats, DECODED(ListContainerStats), cri_list_container_stats, 0)               \
        X(RuntimeService, StreamContainerStats, DECODED(StreamContainerStats),                                        \
          cri_stream_container_stats, CRI_STREAMS)                                                                    \
        X(RuntimeService, PodSandboxStats, DECODED(PodSandboxStats), cri_pod_sandbox_stats, 0)                        \
        X(RuntimeService, ListPodSandboxStats, DECODED(ListPodSandboxStats), cri_list_pod_sandbox_stats, 0)           \
        X(RuntimeService, StreamPodSandboxStats, DECODED(StreamPodSandboxStats),                                      \
          cri_stream_pod_sandbox_stats, CRI_STREAMS)                                                                  \
        X(RuntimeService, CheckpointContainer, DECODED(CheckpointContainer), cri_checkpoint_container, CRI_CHANGES)   \
        X(RuntimeService, ListMetricDescriptors, DECODED(ListMetricDescriptors), cri_list_metric_descriptors, 0)      \
        X(RuntimeService, ListPodSandboxMetrics, DECODED(ListPodSandboxMetrics), cri_list_pod_sandbox_metrics, 0)     \
        X(RuntimeService, StreamPodSandboxMetrics, DECODED(StreamPodSandboxMetrics),                                  \
          cri_stream_pod_sandbox_metrics, CRI_STREAMS)                                                                \
        X(RuntimeService, UpdatePodSandboxResources, DECODED(UpdatePodSandboxResources),                              \
          cri_update_pod_sandbox_resources, CRI_CHANGES)                                                              \
        X(ImageService, ListImages, DECODED(ListImages), cri_list_images, 0)                                          \
        X(ImageService, StreamImages, DECODED(StreamImages), cri_stream_images, CRI_STREAMS)                          \
        X(ImageService, ImageStatus, DECODED(ImageStatus), cri_image_status, 0)                                       \
        X(ImageService, PullImage, DECODED(PullImage), cri_pull_image, CRI_CHANGES)                                   \
        X(ImageService, RemoveImage, DECODED(RemoveImage), cri_remove_image, CRI_CHANGES)                             \
        X(ImageService, ImageFsInfo, DECODED(ImageFsInfo), cri_image_fs_info, 0)

#define AS_INDEX(service, method, request, func, method_flags) METHOD_##method,
enum { METHODS(AS_INDEX) _METHOD_MAX };

#define AS_DETAIL(service, method, request_, func, method_flags)                                                      \
        [METHOD_##method] = { .name = #method, request_, .serve = (func), .flags = (method_flags) },
static const CriMethod details[_METHOD_MAX] = { METHODS(AS_DETAIL) };

#define AS_GRPC(service, method, request, func, method_flags)                                                         \
        { .path = "/runtime.v1." #service "/" #method,                                                                \
          .handler = serve,                                                                                           \
          .data = (void *) &details[METHOD_##method],                                                                 \
          .streaming = ((method_flags) & CRI_STREAMS) != 0 },

const GrpcMethod *cri_methods(void) {
        static const GrpcMethod methods[_METHOD_MAX + 1] = { METHODS(AS_GRPC) };

        return methods;
}

static MethodStatistics *statistics_new(void) {
        return calloc(_METHOD_MAX, sizeof(MethodStatistics));
}

static void count(const CriCall *c, int r, const Error *error, uint64_t begin_usec) {
        MethodStatistics *s = &c->cri->statistics[c->method - details];
        GrpcCode code = r >= 0 ? GRPC_OK : error_is_set(error) ? error->code : grpc_code_from_errno(r);

        s->code[code >= 0 && code < _GRPC_CODE_MAX ? code : GRPC_UNKNOWN]++;
        histogram_add(&s->duration, now_usec(CLOCK_MONOTONIC) - begin_usec);
}

void cri_write_metrics(const Cri *c, FILE *f) {
        const uint64_t *pulls = c->statistics[METHOD_PullImage].code;
        uint64_t failed = 0;
        char labels[128];

        metric_head(f, "rktlet_requests_total", "counter", "Requests of the CRI that were answered, by method and code.");
        for (size_t i = 0; i < _METHOD_MAX; i++)
                for (GrpcCode code = 0; code < _GRPC_CODE_MAX; code++) {
                        if (c->statistics[i].code[code] == 0)
                                continue;
                        (void) snprintf(labels, sizeof labels, "method=\"%s\",code=\"%s\"", details[i].name,
                                        grpc_code_to_string(code));
                        metric_value(f, "rktlet_requests_total", labels, c->statistics[i].code[code]);
                }
        metric_head(f, "rktlet_request_duration_seconds", "histogram",
                    "How long requests of the CRI took until they were answered, streams until they ended.");
        for (size_t i = 0; i < _METHOD_MAX; i++) {
                if (histogram_count(&c->statistics[i].duration) == 0)
                        continue;
                (void) snprintf(labels, sizeof labels, "method=\"%s\"", details[i].name);
                metric_histogram(f, "rktlet_request_duration_seconds", labels, &c->statistics[i].duration);
        }
        for (GrpcCode code = GRPC_OK + 1; code < _GRPC_CODE_MAX; code++)
                failed += pulls[code];
        metric_head(f, "rktlet_pulls_total", "counter", "Pulls of images that have ended, by what came of them.");
        metric_value(f, "rktlet_pulls_total", "result=\"done\"", pulls[GRPC_OK]);
        metric_value(f, "rktlet_pulls_total", "result=\"failed\"", failed);
}
