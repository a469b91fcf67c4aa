#include "manager/recover.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/layout.h"
#include "basic/message.h"
#include "manager/internal.h"
#include "manager/state.h"

const FlawText *flaw_text(StateKind kind, StateFlaws flaw) {
        static const FlawText pod[] = {
                { "state.json", "its time of creation is that of its request, its addresses are those of the CNI result",
                  "made again from its request and its unit" },
                { "request.pb", "changes that its containers' copy of its config doesn't have", "made again from a container's "
                  "request" },
                { "request.pb", "some value in it is not what it was", "kept as it reads; run a new pod to be sure" },
                { "resources.pb", "limits set by UpdatePodSandboxResources are in force, but not shown", "removed" },
                { "", "nothing: it was never begun", "removed" },
                { "", "the pod: nobody knows its name any more. Its containers are ended", "moved to damaged/" },
        }, container[] = {
                { "state.json", "the image, user and stop signal it was created with are those its image gives now; an exit "
                  "code that its unit doesn't have any more", "made again from its request and its unit" },
                { "request.pb", "", "" },
                { "request.pb", "some value in it is not what it was", "kept as it reads; create a new container to be "
                  "sure" },
                { "resources.pb", "limits set by UpdateContainerResources are in force, but not shown", "removed" },
                { "", "nothing: it was never begun", "removed" },
                { "", "the container: nobody knows its name any more. It is ended", "moved to damaged/" },
        };
        unsigned i = (unsigned) __builtin_ctz((unsigned) flaw);

        return kind == STATE_POD ? &pod[i] : &container[i];
}

/* --- pieces ------------------------------------------------------------------------------------------------------ */

static void pod_reset(Pod *p) {
        pb_release(runtime_v1_RunPodSandboxRequest_fields, &p->request);
        p->request = (runtime_v1_RunPodSandboxRequest) {};
        p->name_key = mfree(p->name_key);
        p->slice = mfree(p->slice);
        p->slice_is_ours = false;
}

static void container_reset(Container *c) {
        pb_release(runtime_v1_CreateContainerRequest_fields, &c->request);
        c->request = (runtime_v1_CreateContainerRequest) {};
        c->name_key = mfree(c->name_key);
        c->log_path = mfree(c->log_path);
}

/* When the request was written: what comes nearest to the object's creation. */
static uint64_t request_time(const char *directory) {
        _cleanup_free_ char *path = strprintf("%s/request.pb", directory);
        struct stat st;

        if (!path || stat(path, &st) < 0)
                return now_usec(CLOCK_REALTIME);
        return (uint64_t) st.st_mtim.tv_sec * USEC_PER_SEC + (uint64_t) st.st_mtim.tv_nsec / NSEC_PER_USEC;
}

static bool file_is_there(const char *directory, const char *name) {
        _cleanup_free_ char *path = strprintf("%s/%s", directory, name);
        struct stat st;

        return path && lstat(path, &st) >= 0;
}

static int is_other(int dir_fd, const char *name, void *userdata) {
        /* Temporary files of state.json and request.pb begin with a dot. */
        return name[0] != '.' && !streq(name, "state.json") && !streq(name, "request.pb");
}

/* Neither begun, nor a damaged one that has more. */
static bool is_half_made(const char *directory, bool starting) {
        if (file_is_there(directory, "request.pb"))
                return false;
        if (starting)
                return true;
        return !file_is_there(directory, "state.json") && directory_foreach(AT_FDCWD, directory, is_other, NULL) == 0;
}

static bool resources_are_damaged(const char *directory, const pb_msgdesc_t *fields, void *storage) {
        _cleanup_free_ char *path = strprintf("%s/resources.pb", directory), *data = NULL;
        size_t size;
        int r;

        if (!path)
                return false;
        r = read_file(AT_FDCWD, path, 1 << 20, &data, &size);
        if (r == -ENOENT || r == -ENOMEM)
                return false;
        /* An update without anything in it is not saved: an empty file was cut off. */
        if (r < 0 || size == 0)
                return true;
        r = message_decode(fields, data, size, storage, NULL);
        if (r < 0)
                return r != -ENOMEM;
        pb_release(fields, storage);
        return false;
}

/* --- pods -------------------------------------------------------------------------------------------------------- */

typedef struct Search {
        const Pod *pod;
        char *runtime_handler;
        void *request;
        size_t size;
} Search;

/* Takes the pod's config out of the request of one of its containers: the kubelet sends it with each. */
static int search_container(int dir_fd, const char *name, void *userdata) {
        runtime_v1_CreateContainerRequest q = {};
        runtime_v1_RunPodSandboxRequest request = {};
        _cleanup_free_ char *path = NULL, *data = NULL;
        Search *s = userdata;
        size_t size;
        int r = 0;

        if (strlen(name) != ID_LENGTH || !is_hex(name))
                return 0;
        path = strprintf("%s/request.pb", name);
        if (!path)
                return -ENOMEM;
        if (read_file(dir_fd, path, 16U << 20, &data, &size) < 0 ||
            message_decode(runtime_v1_CreateContainerRequest_fields, data, size, &q, NULL) < 0)
                return 0;
        if (q.has_sandbox_config && !isempty(q.pod_sandbox_id) &&
            strncmp(q.pod_sandbox_id, s->pod->id, strlen(q.pod_sandbox_id)) == 0) {
                request = (runtime_v1_RunPodSandboxRequest) { .has_config = true, .config = q.sandbox_config };
                request.runtime_handler = s->runtime_handler;
                r = message_encode(runtime_v1_RunPodSandboxRequest_fields, &request, NULL, 16U << 20, &s->request,
                                   &s->size, NULL);
                r = r < 0 ? (r == -ENOMEM ? r : 0) : 1;
        }
        pb_release(runtime_v1_CreateContainerRequest_fields, &q);
        return r;
}

/* 1: found. ret may be NULL. */
static int pod_request_from_containers(const Pod *p, void **ret, size_t *ret_size) {
        _cleanup_free_ char *path = strprintf("%s/containers", p->manager->config.state_directory);
        Search s = { .pod = p };
        int r;

        if (!path)
                return -ENOMEM;
        /* The containers don't know it. */
        r = pod_state_get_handler(p->directory, &s.runtime_handler);
        if (r == -ENOMEM)
                return r;
        r = directory_foreach(AT_FDCWD, path, search_container, &s);
        free(s.runtime_handler);
        if (r <= 0)
                return r == -ENOMEM ? r : 0;
        if (!ret) {
                free(s.request);
                return 1;
        }
        *ret = s.request;
        *ret_size = s.size;
        return 1;
}

static int pod_decode_again(Pod *p, Error *error) {
        _cleanup_free_ void *request = NULL;
        size_t size = 0;
        int r;

        r = pod_request_from_containers(p, &request, &size);
        if (r <= 0)
                return r;
        pod_reset(p);
        r = pod_decode(p, request, size, error);
        if (r < 0)
                return r;
        p->request_crc32 = request_checksum(request, size);
        return 1;
}

int pod_read(Pod *p, StateFlaws *ret, Error *why) {
        _cleanup_error_ Error state_error = ERROR_INIT, request_error = ERROR_INIT;
        runtime_v1_UpdatePodSandboxResourcesRequest resources = {};
        _cleanup_free_ void *request = NULL;
        size_t size = 0;
        StateFlaws flaws = 0;
        uint32_t crc = 0;
        int r_request, r_state, r;

        r_request = request_load(p->directory, &request, &size, &request_error);
        if (r_request >= 0) {
                crc = request_checksum(request, size);
                r_request = pod_decode(p, request, size, &request_error);
        }
        r_state = pod_state_load(p, &state_error);
        if (r_request == -ENOMEM || r_state == -ENOMEM)
                return -ENOMEM;
        /* Where both are missing its containers know whether it was more. */
        if (is_half_made(p->directory, r_state >= 0 && p->phase == POD_STARTING) &&
            (r_state >= 0 || (r = pod_request_from_containers(p, NULL, NULL)) <= 0)) {
                if (r_state < 0 && r < 0)
                        return r;
                *ret = FLAW_HALF_MADE;
                (void) error_setf(why, GRPC_DATA_LOSS, "its request was not written yet");
                return 0;
        }
        if (r_state < 0) {
                flaws |= FLAW_STATE;
                error_move(why, &state_error);
        }
        if (r_request < 0 || (r_state >= 0 && p->request_crc32 != 0 && p->request_crc32 != crc)) {
                (void) error_setf(why, GRPC_DATA_LOSS, "%s",
                                  r_request < 0 ? strempty(request_error.message) : "its checksum is not that of its contents");
                r = pod_decode_again(p, NULL);
                if (r == -ENOMEM)
                        return r;
                if (r > 0)
                        flaws |= FLAW_REQUEST;
                else if (r_request >= 0) {
                        /* What failed half way has taken the contents away. */
                        pod_reset(p);
                        r = pod_decode(p, request, size, NULL);
                        if (r < 0)
                                return -ENOMEM;
                        flaws |= FLAW_CHANGED;
                        p->request_crc32 = crc;
                } else {
                        *ret = FLAW_LOST;
                        return 0;
                }
                /* The slice is what it was made in, whatever the request says. */
                r_state = flaws & FLAW_STATE ? r_state : MIN(pod_state_load(p, NULL), 0);
        }
        if (flaws & FLAW_STATE) {
                p->phase = POD_READY; /* whether it still is, its unit says */
                p->created_usec = request_time(p->directory);
                p->network_added = !pod_uses_host_network(p);
                if (!(flaws & FLAW_REQUEST))
                        p->request_crc32 = crc;
        }
        if (resources_are_damaged(p->directory, runtime_v1_UpdatePodSandboxResourcesRequest_fields, &resources)) {
                flaws |= FLAW_RESOURCES;
                (void) error_setf(why, GRPC_DATA_LOSS, "it is no such message");
        }
        *ret = flaws;
        return 0;
}

static int clear_file(const char *directory, const char *name, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/%s", directory, name);
        int r;

        if (!path)
                return error_oom(error);
        r = layout_clear_file(AT_FDCWD, path);
        return r < 0 ? error_set(error, r, "cannot remove %s", path) : 0;
}

static int remove_resources(const char *directory) {
        _cleanup_free_ char *path = strprintf("%s/resources.pb", directory);

        return path ? remove_tree(AT_FDCWD, path) : -ENOMEM;
}

int pod_mend(Pod *p, StateFlaws flaws, Error *error) {
        int r;

        if (flaws & FLAW_REQUEST) {
                _cleanup_free_ void *data = NULL;
                size_t size;

                r = message_encode(runtime_v1_RunPodSandboxRequest_fields, &p->request, NULL, 16U << 20, &data, &size, error);
                if (r < 0)
                        return r;
                p->request_crc32 = request_checksum(data, size);
                r = clear_file(p->directory, "request.pb", error);
                if (r < 0)
                        return r;
                r = request_save(p->directory, data, size, error);
                if (r < 0)
                        return r;
        }
        if (flaws & FLAW_RESOURCES) {
                r = remove_resources(p->directory);
                if (r < 0)
                        return error_set(error, r, "cannot remove %s/resources.pb", p->directory);
        }
        if (!(flaws & (FLAW_STATE | FLAW_REQUEST | FLAW_CHANGED)))
                return 0;
        r = clear_file(p->directory, "state.json", error);
        return r < 0 ? r : pod_state_save(p, error);
}

/* --- containers -------------------------------------------------------------------------------------------------- */

/* The pod by the ID of state.json, or as the request names it: by a prefix perhaps. */
static int find_pod(Container *c, const char *pod_id, const void *request, size_t size, Error *error) {
        runtime_v1_CreateContainerRequest peek = {};
        Pod *pod = NULL;
        int r = 0;

        if (pod_id)
                HASH_FIND(hh, c->manager->pods, pod_id, strlen(pod_id), pod);
        else {
                r = message_decode(runtime_v1_CreateContainerRequest_fields, request, size, &peek, error);
                if (r < 0)
                        return r;
                r = manager_find_pod(c->manager, strempty(peek.pod_sandbox_id), &pod, error);
                pb_release(runtime_v1_CreateContainerRequest_fields, &peek);
        }
        if (r < 0 || !pod)
                return error_setf(error, GRPC_NOT_FOUND, "its pod %s is gone", strempty(pod_id));
        c->pod = pod_ref(pod);
        return 0;
}

static void make_state_again(Container *c) {
        c->phase = CONTAINER_CREATED; /* what became of it, its unit says */
        c->created_usec = request_time(c->directory);
        c->info.uid = c->info.gid = -1;
        c->info.stop_signal = SIGTERM;
}

int container_read(Container *c, StateFlaws *ret, Error *why) {
        _cleanup_error_ Error state_error = ERROR_INIT, request_error = ERROR_INIT;
        runtime_v1_UpdateContainerResourcesRequest resources = {};
        _cleanup_free_ void *request = NULL;
        _cleanup_free_ char *pod_id = NULL;
        size_t size = 0;
        StateFlaws flaws = 0;
        uint32_t crc;
        int r_state, r;

        r_state = container_state_load(c, &pod_id, &state_error);
        r = request_load(c->directory, &request, &size, &request_error);
        if (r_state == -ENOMEM || r == -ENOMEM)
                return -ENOMEM;
        if (is_half_made(c->directory, r_state >= 0 && c->phase == CONTAINER_CREATING)) {
                *ret = FLAW_HALF_MADE;
                (void) error_setf(why, GRPC_DATA_LOSS, "its request was not written yet");
                return 0;
        }
        crc = r >= 0 ? request_checksum(request, size) : 0;
        if (r >= 0)
                r = find_pod(c, r_state >= 0 ? pod_id : NULL, request, size, &request_error);
        if (r >= 0) {
                /* The state has the log path already. */
                container_reset(c);
                r = container_decode(c, request, size, &request_error);
        }
        if (r == -ENOMEM)
                return r;
        if (r < 0) {
                error_move(why, &request_error);
                *ret = FLAW_LOST;
                return 0;
        }
        if (r_state < 0) {
                flaws |= FLAW_STATE;
                error_move(why, &state_error);
                make_state_again(c);
        } else if (c->request_crc32 != 0 && c->request_crc32 != crc) {
                flaws |= FLAW_CHANGED;
                (void) error_setf(why, GRPC_DATA_LOSS, "its checksum is not that of its contents");
        }
        c->request_crc32 = crc;
        if (resources_are_damaged(c->directory, runtime_v1_UpdateContainerResourcesRequest_fields, &resources)) {
                flaws |= FLAW_RESOURCES;
                (void) error_setf(why, GRPC_DATA_LOSS, "it is no such message");
        }
        *ret = flaws;
        return 0;
}

int container_mend(Container *c, StateFlaws flaws, Error *error) {
        int r;

        if (flaws & FLAW_RESOURCES) {
                r = remove_resources(c->directory);
                if (r < 0)
                        return error_set(error, r, "cannot remove %s/resources.pb", c->directory);
        }
        if (!(flaws & (FLAW_STATE | FLAW_CHANGED)))
                return 0;
        r = clear_file(c->directory, "state.json", error);
        return r < 0 ? r : container_state_save(c, error);
}

/* --- what can't be used ------------------------------------------------------------------------------------------ */

static int count_one(int dir_fd, const char *name, void *userdata) {
        ++*(unsigned *) userdata;
        return 0;
}

int state_set_aside(const Manager *m, StateKind kind, const char *id) {
        const char *kinds = kind == STATE_POD ? "pods" : "containers", *base = m->config.state_directory;
        _cleanup_free_ char *directory = strprintf("%s/damaged", base), *from = strprintf("%s/%s/%s", base, kinds, id),
                            *to = strprintf("%s/damaged/%s-%s", base, kinds, id);
        unsigned n = 0;

        if (!directory || !from || !to)
                return -ENOMEM;
        (void) mkdir_parents(AT_FDCWD, directory, 0700);
        (void) directory_foreach(AT_FDCWD, directory, count_one, &n);
        if (n < DAMAGED_MAX && remove_tree(AT_FDCWD, to) >= 0 && rename(from, to) >= 0)
                return 1;
        return remove_tree(AT_FDCWD, from);
}
