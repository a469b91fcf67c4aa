/* Containers: CreateContainer, StartContainer, StopContainer, RemoveContainer, ContainerStatus, ListContainers,
 * StreamContainers, ReopenContainerLog, UpdateContainerResources, CheckpointContainer. */

#include "cri/describe.h"
#include "cri/info.h"
#include "cri/internal.h"
#include "cri/stream.h"

/* A longer grace than this is this one: nobody waits for it, and it fits any clock. */
#define STOP_TIMEOUT_MAX_SEC (INT64_C(10) * 365 * 24 * 3600)

int cri_create_container(CriCall *c, Error *error) {
        runtime_v1_CreateContainerResponse response = {};
        _cleanup_(container_unrefp) _unused_ Container *held = NULL;
        Container *k;
        int r;

        r = container_create(c->manager, c->raw, c->raw_size, &k, error);
        if (r < 0)
                return r;
        cri_note_container(c, k);
        response.container_id = c->container_id;
        held = container_ref(k);
        r = CRI_REPLY(c, CreateContainerResponse, &response, error);
        k->answered = r >= 0;
        return r;
}

int cri_start_container(CriCall *c, Error *error) {
        const runtime_v1_StartContainerRequest *request = c->request;
        runtime_v1_StartContainerResponse response = {};
        _cleanup_(container_unrefp) _unused_ Container *held = NULL;
        Container *k;
        int r;

        r = cri_find_container(c, request->container_id, &k, error);
        if (r < 0)
                return r;
        held = container_ref(k);
        r = container_start(k, error);
        if (r < 0)
                return r;
        r = CRI_REPLY(c, StartContainerResponse, &response, error);
        k->start_answered = r >= 0;
        return r;
}

int cri_stop_container(CriCall *c, Error *error) {
        const runtime_v1_StopContainerRequest *request = c->request;
        /* Below zero there is no grace, as with the peers: a container must be stoppable. */
        int64_t seconds = request->timeout < 0 ? 0 : MIN(request->timeout, STOP_TIMEOUT_MAX_SEC);
        runtime_v1_StopContainerResponse response = {};
        Container *k;
        int r;

        r = cri_find_container_if_any(c, request->container_id, &k, error);
        if (r < 0)
                return r;
        if (k) {
                r = container_stop(k, (uint64_t) seconds * USEC_PER_SEC, error);
                if (r < 0)
                        return r;
        }
        return CRI_REPLY(c, StopContainerResponse, &response, error);
}

int cri_remove_container(CriCall *c, Error *error) {
        const runtime_v1_RemoveContainerRequest *request = c->request;
        runtime_v1_RemoveContainerResponse response = {};
        Container *k;
        int r;

        r = cri_find_container_if_any(c, request->container_id, &k, error);
        if (r < 0)
                return r;
        if (k) {
                r = container_remove(k, error);
                if (r < 0)
                        return r;
        }
        return CRI_REPLY(c, RemoveContainerResponse, &response, error);
}

int cri_container_status(CriCall *c, Error *error) {
        const runtime_v1_ContainerStatusRequest *request = c->request;
        runtime_v1_ContainerStatusResponse response = { .has_status = true };
        runtime_v1_ContainerStatusResponse_InfoEntry info = {};
        Container *k;
        int r;

        r = cri_find_container(c, request->container_id, &k, error);
        if (r < 0)
                return r;
        r = container_describe_status(k, &c->arena, &response.status);
        if (r < 0)
                return error_oom(error);
        if (request->verbose) {
                r = container_info(k, &c->arena, &info, error);
                if (r < 0)
                        return r;
                response.info = &info;
                response.info_count = 1;
        }
        return CRI_REPLY(c, ContainerStatusResponse, &response, error);
}

typedef struct ContainerList {
        const Manager *manager;
        const runtime_v1_ContainerFilter *filter;
} ContainerList;

static bool put_container(pb_ostream_t *stream, const pb_field_iter_t *field, const Container *k) {
        runtime_v1_Container item;

        container_describe(k, &item);
        return message_put(stream, field, runtime_v1_Container_fields, &item);
}

static bool put_containers(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        const ContainerList *list = *arg;

        for (const Container *k = list->manager->containers; k; k = k->hh.next)
                if (container_matches(k, list->filter) && !put_container(stream, field, k))
                        return false;
        return true;
}

int cri_list_containers(CriCall *c, Error *error) {
        const runtime_v1_ListContainersRequest *request = c->request;
        ContainerList list = { c->manager, request->has_filter ? &request->filter : NULL };
        runtime_v1_ListContainersResponse response = {
                .containers = { .funcs.encode = put_containers, .arg = &list },
        };

        return CRI_REPLY(c, ListContainersResponse, &response, error);
}

static bool put_container_batch(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        const StreamBatch *batch = *arg;

        for (size_t i = 0; i < batch->n; i++)
                if (!put_container(stream, field, batch->items[i]))
                        return false;
        return true;
}

static int send_container_batch(CriCall *c, StreamBatch *batch, Error *error) {
        runtime_v1_StreamContainersResponse response = {
                .containers = { .funcs.encode = put_container_batch, .arg = batch },
        };

        return CRI_REPLY(c, StreamContainersResponse, &response, error);
}

static void unref_container(void *k) {
        container_unref(k);
}

int cri_stream_containers(CriCall *c, Error *error) {
        const runtime_v1_StreamContainersRequest *request = c->request;
        _cleanup_(stream_list_done) StreamList list = { .unref = unref_container };
        int r;

        for (Container *k = c->manager->containers; k; k = k->hh.next) {
                if (!container_matches(k, request->has_filter ? &request->filter : NULL))
                        continue;
                r = stream_list_add(&list, k);
                if (r < 0)
                        return error_oom(error);
                container_ref(k);
        }
        return stream_list_send(c, &list, send_container_batch, error);
}

int cri_reopen_container_log(CriCall *c, Error *error) {
        const runtime_v1_ReopenContainerLogRequest *request = c->request;
        runtime_v1_ReopenContainerLogResponse response = {};
        Container *k;
        int r;

        r = cri_find_container(c, request->container_id, &k, error);
        if (r < 0)
                return r;
        r = container_reopen_log(k, error);
        if (r < 0)
                return r;
        return CRI_REPLY(c, ReopenContainerLogResponse, &response, error);
}

/* Annotations are the caller's own; nothing here is steered by them. */
int cri_update_container_resources(CriCall *c, Error *error) {
        const runtime_v1_UpdateContainerResourcesRequest *request = c->request;
        static const runtime_v1_LinuxContainerResources nothing;
        runtime_v1_UpdateContainerResourcesResponse response = {};
        Container *k;
        int r;

        r = cri_find_container(c, request->container_id, &k, error);
        if (r < 0)
                return r;
        r = container_update(k, request->has_linux ? &request->linux : &nothing, error);
        if (r < 0)
                return r;
        return CRI_REPLY(c, UpdateContainerResourcesResponse, &response, error);
}

int cri_checkpoint_container(CriCall *c, Error *error) {
        const runtime_v1_CheckpointContainerRequest *request = c->request;
        int64_t seconds = MIN(MAX(request->timeout, INT64_C(0)), STOP_TIMEOUT_MAX_SEC);
        runtime_v1_CheckpointContainerResponse response = {};
        Container *k;
        int r;

        r = cri_find_container(c, request->container_id, &k, error);
        if (r < 0)
                return r;
        r = container_checkpoint(k, request->location, (uint64_t) seconds * USEC_PER_SEC, error);
        if (r < 0)
                return r;
        return CRI_REPLY(c, CheckpointContainerResponse, &response, error);
}
