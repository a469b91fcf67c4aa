/* Pods: RunPodSandbox, StopPodSandbox, RemovePodSandbox, PodSandboxStatus, ListPodSandbox, StreamPodSandboxes,
 * UpdatePodSandboxResources. */

#include "cri/describe.h"
#include "cri/info.h"
#include "cri/internal.h"
#include "cri/stream.h"

int cri_run_pod_sandbox(CriCall *c, Error *error) {
        runtime_v1_RunPodSandboxResponse response = {};
        _cleanup_(pod_unrefp) _unused_ Pod *held = NULL;
        Pod *p;
        int r;

        r = pod_run(c->manager, c->raw, c->raw_size, &p, error);
        if (r < 0)
                return r;
        cri_note_pod(c, p);
        response.pod_sandbox_id = c->pod_id;
        held = pod_ref(p);
        r = CRI_REPLY(c, RunPodSandboxResponse, &response, error);
        p->answered = r >= 0;
        return r;
}

int cri_stop_pod_sandbox(CriCall *c, Error *error) {
        const runtime_v1_StopPodSandboxRequest *request = c->request;
        runtime_v1_StopPodSandboxResponse response = {};
        Pod *p;
        int r;

        r = cri_find_pod_if_any(c, request->pod_sandbox_id, &p, error);
        if (r < 0)
                return r;
        if (p) {
                r = pod_stop(p, error);
                if (r < 0)
                        return r;
        }
        return CRI_REPLY(c, StopPodSandboxResponse, &response, error);
}

int cri_remove_pod_sandbox(CriCall *c, Error *error) {
        const runtime_v1_RemovePodSandboxRequest *request = c->request;
        runtime_v1_RemovePodSandboxResponse response = {};
        Pod *p;
        int r;

        r = cri_find_pod_if_any(c, request->pod_sandbox_id, &p, error);
        if (r < 0)
                return r;
        if (p) {
                r = pod_remove(p, error);
                if (r < 0)
                        return r;
        }
        return CRI_REPLY(c, RemovePodSandboxResponse, &response, error);
}

int cri_pod_sandbox_status(CriCall *c, Error *error) {
        const runtime_v1_PodSandboxStatusRequest *request = c->request;
        runtime_v1_PodSandboxStatusResponse response = { .has_status = true };
        runtime_v1_PodSandboxStatusResponse_InfoEntry info = {};
        Pod *p;
        int r;

        r = cri_find_pod(c, request->pod_sandbox_id, &p, error);
        if (r < 0)
                return r;
        r = pod_describe_status(p, &c->arena, &response.status);
        if (r < 0)
                return error_oom(error);
        r = pod_describe_containers(p, /* without= */ NULL, &c->arena, &response.containers_statuses,
                                    &response.containers_statuses_count);
        if (r < 0)
                return error_oom(error);
        response.timestamp = (int64_t) (now_usec(CLOCK_REALTIME) * NSEC_PER_USEC);
        if (request->verbose) {
                r = pod_info(p, &c->arena, &info, error);
                if (r < 0)
                        return r;
                response.info = &info;
                response.info_count = 1;
        }
        return CRI_REPLY(c, PodSandboxStatusResponse, &response, error);
}

typedef struct PodList {
        const Manager *manager;
        const runtime_v1_PodSandboxFilter *filter;
} PodList;

static bool put_pod(pb_ostream_t *stream, const pb_field_iter_t *field, const Pod *p) {
        runtime_v1_PodSandbox item;

        pod_describe(p, &item);
        return message_put(stream, field, runtime_v1_PodSandbox_fields, &item);
}

static bool put_pods(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        const PodList *list = *arg;

        for (const Pod *p = list->manager->pods; p; p = p->hh.next)
                if (pod_matches(p, list->filter) && !put_pod(stream, field, p))
                        return false;
        return true;
}

int cri_list_pod_sandbox(CriCall *c, Error *error) {
        const runtime_v1_ListPodSandboxRequest *request = c->request;
        PodList list = { c->manager, request->has_filter ? &request->filter : NULL };
        runtime_v1_ListPodSandboxResponse response = { .items = { .funcs.encode = put_pods, .arg = &list } };

        return CRI_REPLY(c, ListPodSandboxResponse, &response, error);
}

static bool put_pod_batch(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        const StreamBatch *batch = *arg;

        for (size_t i = 0; i < batch->n; i++)
                if (!put_pod(stream, field, batch->items[i]))
                        return false;
        return true;
}

static int send_pod_batch(CriCall *c, StreamBatch *batch, Error *error) {
        runtime_v1_StreamPodSandboxesResponse response = {
                .pod_sandboxes = { .funcs.encode = put_pod_batch, .arg = batch },
        };

        return CRI_REPLY(c, StreamPodSandboxesResponse, &response, error);
}

static void unref_pod(void *p) {
        pod_unref(p);
}

int cri_stream_pod_sandboxes(CriCall *c, Error *error) {
        const runtime_v1_StreamPodSandboxesRequest *request = c->request;
        _cleanup_(stream_list_done) StreamList list = { .unref = unref_pod };
        int r;

        for (Pod *p = c->manager->pods; p; p = p->hh.next) {
                if (!pod_matches(p, request->has_filter ? &request->filter : NULL))
                        continue;
                r = stream_list_add(&list, p);
                if (r < 0)
                        return error_oom(error);
                pod_ref(p);
        }
        return stream_list_send(c, &list, send_pod_batch, error);
}

int cri_update_pod_sandbox_resources(CriCall *c, Error *error) {
        const runtime_v1_UpdatePodSandboxResourcesRequest *request = c->request;
        runtime_v1_UpdatePodSandboxResourcesResponse response = {};
        Pod *p;
        int r;

        r = cri_find_pod(c, request->pod_sandbox_id, &p, error);
        if (r < 0)
                return r;
        r = pod_update(p, request->has_overhead ? &request->overhead : NULL,
                       request->has_resources ? &request->resources : NULL, error);
        if (r < 0)
                return r;
        return CRI_REPLY(c, UpdatePodSandboxResourcesResponse, &response, error);
}
