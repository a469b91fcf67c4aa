/* When our own state is lost: what rkt kept for us with its pods and apps is enough to know them again. Only the requests
 * are written; what becomes of them is looked at as at any start. */

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/message.h"
#include "engine/rkt/internal.h"

typedef runtime_v1_PodSandboxConfig_LabelsEntry Entry;

#define REQUEST_MAX (16U * 1024U * 1024U)

/* The members of an object that are not rkt's or our own; *ret is an array of borrowed strings, owned by the caller. */
static int take_map(const json_t *o, const char *name, Entry **ret, pb_size_t *ret_n) {
        json_t *map = json_get_object(o, name), *value;
        Entry *l = calloc(json_object_size(map) + 1, sizeof *l);
        const char *key;
        size_t n = 0;

        if (!l)
                return -ENOMEM;
        json_object_foreach(map, key, value) {
                if (startswith(key, "k8s.io/reserved/") || startswith(key, "org.rktlet1/") || !json_is_string(value) ||
                    n >= MESSAGE_LIST_MAX)
                        continue;
                l[n++] = (Entry) { (char *) key, (char *) json_string_value(value) };
        }
        *ret = l;
        *ret_n = (pb_size_t) n;
        return 0;
}

static char *annotation(const json_t *o, const char *key) {
        return (char *) rkt_pod_annotation(o, key);
}

static uint32_t attempt_of(const json_t *o, const char *key) {
        uint32_t n = 0;

        (void) parse_u32(strempty(rkt_pod_annotation(o, key)), &n);
        return n;
}

static int write_request(const char *state_directory, const char *kind, const char *id, const pb_msgdesc_t *fields,
                         const void *message, Error *error) {
        _cleanup_free_ char *directory = strprintf("%s/%s/%s", state_directory, kind, id), *path = NULL;
        _cleanup_free_ void *data = NULL;
        size_t size;
        int r;

        path = directory ? strprintf("%s/request.pb", directory) : NULL;
        if (!path)
                return error_oom(error);
        r = message_encode(fields, message, /* allocator= */ NULL, REQUEST_MAX, &data, &size, error);
        if (r < 0)
                return r;
        r = mkdir_parents(AT_FDCWD, directory, 0700);
        if (r >= 0)
                r = write_file_atomic(AT_FDCWD, path, data, size, 0600, 0);
        return r < 0 ? error_set(error, r, "cannot write %s", path) : 0;
}

static bool is_there(const char *state_directory, const char *kind, const char *id) {
        _cleanup_free_ char *path = strprintf("%s/%s/%s", state_directory, kind, id);

        return !path || access(path, F_OK) >= 0;
}

static int recover_pod(RktEngine *e, const char *state_directory, const char *id, const json_t *pod, Error *error) {
        _cleanup_free_ char *unit = strprintf("rktlet-pod-%s.service", id), *own = strprintf("-%s.slice", id);
        _cleanup_unit_state_ UnitState state = {};
        _cleanup_free_ Entry *labels = NULL, *annotations = NULL;
        runtime_v1_RunPodSandboxRequest request = { .has_config = true };
        runtime_v1_PodSandboxConfig *c = &request.config;
        int r;

        if (!unit || !own)
                return error_oom(error);
        r = unit_get_state(e->systemd, unit, &state, error);
        if (r < 0)
                return r;
        if (take_map(pod, "user_labels", &labels, &c->labels_count) < 0 ||
            take_map(pod, "user_annotations", &annotations, &c->annotations_count) < 0)
                return error_oom(error);
        c->has_metadata = true;
        c->metadata = (runtime_v1_PodSandboxMetadata) {
                .name = annotation(pod, RKT_KEY_NAME),
                .namespace = annotation(pod, RKT_KEY_NAMESPACE),
                .uid = annotation(pod, RKT_KEY_UID),
                .attempt = attempt_of(pod, RKT_KEY_ATTEMPT),
        };
        c->log_directory = annotation(pod, RKT_KEY_LOG_DIRECTORY);
        c->labels = labels;
        c->annotations = (void *) annotations;
        c->has_linux = c->linux.has_security_context = c->linux.security_context.has_namespace_options = true;
        c->linux.security_context.namespace_options.pid = runtime_v1_NamespaceMode_CONTAINER;
        if (rkt_pod_annotation(pod, RKT_KEY_HOST_NETWORK))
                c->linux.security_context.namespace_options.network = runtime_v1_NamespaceMode_NODE;
        if (!isempty(state.slice) && !endswith(state.slice, own))
                c->linux.cgroup_parent = state.slice;
        log_notice("Pod %s is known to rkt alone: %s/%s", id, strempty(c->metadata.namespace), strempty(c->metadata.name));
        return write_request(state_directory, "pods", id, runtime_v1_RunPodSandboxRequest_fields, &request, error);
}

static int recover_container(RktEngine *e, const char *state_directory, const char *pod_id, const char *uuid,
                             const char *id, Error *error) {
        _cleanup_free_ Entry *labels = NULL, *annotations = NULL;
        runtime_v1_CreateContainerRequest request = { .pod_sandbox_id = (char *) pod_id, .has_config = true };
        runtime_v1_ContainerConfig *c = &request.config;
        _cleanup_json_ json_t *app = NULL;
        int r;

        r = rkt_app_query_json(&e->rkt, uuid, id, &app, error);
        if (r < 0)
                return r;
        if (take_map(app, "user_labels", &labels, &c->labels_count) < 0 ||
            take_map(app, "user_annotations", &annotations, &c->annotations_count) < 0)
                return error_oom(error);
        c->has_metadata = c->has_image = true;
        c->metadata = (runtime_v1_ContainerMetadata) {
                .name = annotation(app, RKT_KEY_CTR_NAME),
                .attempt = attempt_of(app, RKT_KEY_CTR_ATTEMPT),
        };
        c->image.image = annotation(app, RKT_KEY_IMAGE);
        c->log_path = annotation(app, RKT_KEY_LOG_PATH);
        c->labels = (void *) labels;
        c->annotations = (void *) annotations;
        log_notice("Container %s is known to rkt alone: %s", id, strempty(c->metadata.name));
        return write_request(state_directory, "containers", id, runtime_v1_CreateContainerRequest_fields, &request, error);
}

int rkt_recover(Engine *engine, const char *state_directory, Error *error) {
        RktEngine *e = rkt_engine(engine);
        _cleanup_json_ json_t *list = NULL;
        const json_t *pod, *name;
        size_t i, k;
        int r;

        r = rkt_pod_query_all(&e->rkt, &list, error);
        if (r < 0)
                return r;
        json_array_foreach(list, i, pod) {
                const char *id = rkt_pod_annotation(pod, RKT_KEY_POD_ID), *uuid = json_get_string(pod, "name");

                if (!id || strlen(id) != ID_LENGTH || !is_hex(id) || !uuid || !rkt_uuid_is_valid(uuid))
                        continue;
                r = is_there(state_directory, "pods", id) ? 0 : recover_pod(e, state_directory, id, pod, error);
                if (r < 0)
                        return r;
                json_array_foreach(json_get_array(pod, "app_names"), k, name) {
                        const char *app = json_string_value(name);

                        if (!app || strlen(app) != ID_LENGTH || !is_hex(app) ||
                            is_there(state_directory, "containers", app))
                                continue;
                        r = recover_container(e, state_directory, id, uuid, app, error);
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}
