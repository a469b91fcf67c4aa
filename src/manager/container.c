#include <fcntl.h>
#include <limits.h>
#include <signal.h>

#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "basic/log.h"
#include "basic/message-equal.h"
#include "basic/message.h"
#include "manager/internal.h"
#include "manager/state.h"

#define CONTAINER_NAME_MAX 4096U /* bytes; Kubernetes allows 253 */
#define EXIT_CODE_UNKNOWN 255    /* what the field answers when nobody saw the end */
#define EXIT_CODE_START_ERROR 128

static const char *const phase_names[_CONTAINER_PHASE_MAX] = {
        [CONTAINER_CREATING] = "creating",
        [CONTAINER_CREATED] = "created",
        [CONTAINER_RUNNING] = "running",
        [CONTAINER_EXITED] = "exited",
        [CONTAINER_UNKNOWN] = "unknown",
};

const char *container_phase_to_string(ContainerPhase p) {
        return p >= 0 && p < _CONTAINER_PHASE_MAX ? phase_names[p] : NULL;
}

ContainerPhase container_phase_from_string(const char *s) {
        for (ContainerPhase p = 0; p < _CONTAINER_PHASE_MAX; p++)
                if (streq(phase_names[p], s))
                        return p;
        return _CONTAINER_PHASE_INVALID;
}

Container *container_ref(Container *c) {
        if (c)
                c->n_ref++;
        return c;
}

Container *container_unref(Container *c) {
        if (!c || --c->n_ref > 0)
                return NULL;
        pb_release(runtime_v1_CreateContainerRequest_fields, &c->request);
        free(c->name_key);
        free(c->unit);
        free(c->directory);
        free(c->run_directory);
        free(c->log_path);
        image_unref(c->image);
        free(c->image_id);
        strv_free(c->layers);
        strv_free(c->volume_layers);
        strv_free(c->volume_images);
        engine_container_info_done(&c->info);
        free(c->reason);
        free(c->message);
        pod_unref(c->pod);
        free(c);
        return NULL;
}

int container_new(Manager *m, Pod *pod, const char *id, Container **ret) {
        _cleanup_(container_unrefp) Container *c = calloc(1, sizeof(Container));

        if (!c)
                return -ENOMEM;
        c->n_ref = 1;
        c->manager = m;
        c->pod = pod_ref(pod);
        memcpy(c->id, id, ID_LENGTH);
        c->info.uid = c->info.gid = -1;
        c->unit = strprintf("rktlet-ctr-%s.service", id);
        c->directory = strprintf("%s/containers/%s", m->config.state_directory, id);
        c->run_directory = strprintf("%s/containers/%s", m->config.run_directory, id);
        if (!c->unit || !c->directory || !c->run_directory)
                return -ENOMEM;
        *ret = TAKE_PTR(c);
        return 0;
}

/* A relative path without ".." below the log directory. */
static int container_log_path(const Container *c, const char *log_directory, char **ret, Error *error) {
        const char *path = c->request.config.log_path;
        char *joined;

        if (isempty(path) || isempty(log_directory)) {
                *ret = NULL;
                return 0;
        }
        if (log_directory[0] != '/')
                return error_setf(error, GRPC_INVALID_ARGUMENT, "the pod's log_directory \"%s\" is not absolute",
                                  log_directory);
        /* An absolute one stays below the log directory, as with the peers. */
        path += strspn(path, "/");
        for (const char *p = path; *p;) {
                size_t n = strcspn(p, "/");

                if (n == 2 && p[0] == '.' && p[1] == '.')
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "config.log_path \"%s\" leads out of the pod's log directory", path);
                p += n;
                p += strspn(p, "/");
        }
        joined = strprintf("%s/%s", log_directory, path);
        if (!joined)
                return error_oom(error);
        if (strlen(joined) >= PATH_MAX) {
                free(joined);
                return error_setf(error, GRPC_INVALID_ARGUMENT, "config.log_path is longer than %d bytes with the "
                                  "pod's log directory", PATH_MAX - 1);
        }
        *ret = joined;
        return 0;
}

int container_decode(Container *c, const void *request, size_t size, Error *error) {
        const runtime_v1_ContainerConfig *config = &c->request.config;
        int r;

        r = message_decode(runtime_v1_CreateContainerRequest_fields, request, size, &c->request, error);
        if (r < 0)
                return r;
        /* The pod has its own; two copies would be half of a container's memory. */
        if (c->request.has_sandbox_config) {
                pb_release(runtime_v1_PodSandboxConfig_fields, &c->request.sandbox_config);
                memset(&c->request.sandbox_config, 0, sizeof c->request.sandbox_config);
                c->request.has_sandbox_config = false;
        }
        if (!c->request.has_config || !config->has_metadata || isempty(config->metadata.name))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "config.metadata.name is empty: a container needs a name");
        if (strlen(config->metadata.name) > CONTAINER_NAME_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "config.metadata.name is longer than %u bytes",
                                  CONTAINER_NAME_MAX);
        if (!config->has_image || isempty(config->image.image))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "config.image.image is empty: a container needs an image");

        c->name_key = strprintf("%s/%s/%u", c->pod->id, config->metadata.name, config->metadata.attempt);
        if (!c->name_key)
                return error_oom(error);
        return container_log_path(c, c->pod->request.config.log_directory, &c->log_path, error);
}

int container_link(Container *c, Error *error) {
        Manager *m = c->manager;
        Container *other;

        HASH_FIND(hh_name, m->containers_by_name, c->name_key, strlen(c->name_key), other);
        if (other)
                return error_setf(error, GRPC_ALREADY_EXISTS,
                                  "container %s (attempt %u) of pod %s exists already, as %s: remove it, or ask for "
                                  "another attempt",
                                  c->request.config.metadata.name, c->request.config.metadata.attempt, c->pod->id,
                                  other->id);
        HASH_ADD(hh, m->containers, id, ID_LENGTH, c);
        HASH_ADD_KEYPTR(hh_name, m->containers_by_name, c->name_key, strlen(c->name_key), c);
        c->pod_next = c->pod->containers;
        c->pod->containers = c;
        container_ref(c);
        return 0;
}

void container_unlink(Container *c) {
        Manager *m = c->manager;

        if (c->removed)
                return;
        c->removed = true;
        HASH_DELETE(hh, m->containers, c);
        HASH_DELETE(hh_name, m->containers_by_name, c);
        for (Container **p = &c->pod->containers; *p; p = &(*p)->pod_next)
                if (*p == c) {
                        *p = c->pod_next;
                        break;
                }
        c->pod_next = NULL;
        if (c->holds_layers)
                image_store_release(m->images, c->id);
        fiber_queue_wake(&c->exited, 0);
        fiber_queue_wake(&c->gone, 0);
        container_unref(c);
}

EngineContainer container_engine_view(const Container *c, EnginePod *storage) {
        *storage = pod_engine_view(c->pod);
        return (EngineContainer) {
                .pod = storage,
                .id = c->id,
                .unit = c->unit,
                .directory = c->directory,
                .run_directory = c->run_directory,
                .log_path = c->log_path,
                .layers_path = image_store_layers_path(c->manager->images),
                .config = &c->request.config,
                .image = c->image,
                .layers = c->layers,
        };
}

/* The directory of the log is the kubelet's to make, but other clients leave it to us, as the peers allow. */
static int container_make_log_directory(const Container *c, Error *error) {
        _cleanup_free_ char *directory = NULL;
        int r;

        if (!c->log_path)
                return 0;
        directory = strndup(c->log_path, (size_t) (strrchr(c->log_path, '/') - c->log_path));
        if (!directory)
                return error_oom(error);
        r = mkdir_parents(AT_FDCWD, directory, 0755);
        if (r < 0)
                return error_set(error, r, "cannot make the log directory %s", directory);
        return 0;
}

static int container_make_directories(Container *c, Error *error) {
        const char *const paths[] = { c->directory, c->run_directory };
        int r;

        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                r = mkdir_parents(AT_FDCWD, paths[i], 0700);
                if (r < 0)
                        return error_set(error, r, "cannot make directory %s", paths[i]);
        }
        return container_make_log_directory(c, error);
}

static int container_find_image(Container *c, Error *error) {
        const char *name = c->request.config.image.image;
        Image *image;
        int r;

        r = image_store_refresh(c->manager->images, error);
        if (r < 0)
                return r;
        image = image_store_find(c->manager->images, name);
        /* As the peers do it. CRIU would give its processes whatever credentials the archive says they had. */
        if (!image && name[0] == '/')
                return error_setf(error, GRPC_UNIMPLEMENTED,
                                  "\"%s\" is a path: containers are not restored from checkpoint archives", name);
        if (!image)
                return error_setf(error, GRPC_NOT_FOUND, "image \"%s\" is not on this node: pull it first", name);
        c->image = image_ref(image);
        c->image_id = strdup(image->id);
        c->layers = strv_copy(image->layers);
        if (!c->image_id || (image->layers && !c->layers))
                return error_oom(error);
        return 0;
}

char **container_all_layers(const Container *c) {
        _cleanup_strv_free_ char **l = strv_copy(c->layers);

        if (c->layers && !l)
                return NULL;
        STRV_FOREACH(name, c->volume_layers)
                if (strv_extend(&l, *name) < 0)
                        return NULL;
        return l ? TAKE_PTR(l) : calloc(1, sizeof(char *));
}

typedef struct Volumes {
        EngineVolume *l;
        size_t n;
} Volumes;

static void volumes_done(Volumes *v) {
        for (size_t i = 0; i < v->n; i++)
                strv_free(v->l[i].layers);
        free(v->l);
}

/* Images that are to be mounted in it. */
static int container_find_volumes(Container *c, Volumes *v, Error *error) {
        const runtime_v1_ContainerConfig *config = &c->request.config;

        for (size_t i = 0; i < config->mounts_count; i++) {
                const runtime_v1_Mount *m = &config->mounts[i];
                Image *image;

                if (!m->has_image || isempty(m->image.image))
                        continue;
                image = image_store_find(c->manager->images, m->image.image);
                if (!image)
                        return error_setf(error, GRPC_NOT_FOUND, "image \"%s\" of mount %s is not on this node: pull it "
                                          "first", m->image.image, strempty(m->container_path));
                if (!v->l)
                        v->l = calloc(config->mounts_count, sizeof *v->l);
                if (!v->l)
                        return error_oom(error);
                v->l[v->n] = (EngineVolume) { .mount = i, .layers = strv_copy(image->layers) };
                if (image->layers && !v->l[v->n].layers)
                        return error_oom(error);
                v->n++;
                if (strv_extend(&c->volume_images, image->id) < 0)
                        return error_oom(error);
                STRV_FOREACH(name, image->layers)
                        if (strv_extend(&c->volume_layers, *name) < 0)
                                return error_oom(error);
        }
        return 0;
}

static int container_hold_layers(Container *c, Error *error) {
        _cleanup_strv_free_ char **all = container_all_layers(c);
        int r;

        if (!all)
                return error_oom(error);
        r = image_store_hold(c->manager->images, c->id, all);
        if (r < 0)
                return error_set(error, r, "cannot hold the layers of image %s", c->request.config.image.image);
        c->holds_layers = true;
        return 0;
}

static int container_clear(Container *c, Error *error) {
        EnginePod pod;
        EngineContainer view = container_engine_view(c, &pod);
        int r;

        r = c->manager->engine->ops->container_remove(c->manager->engine, &view, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("container-clear.engine", c->id);
        r = remove_tree(AT_FDCWD, c->run_directory);
        if (r < 0)
                return error_set(error, r, "cannot remove %s", c->run_directory);
        KILL_POINT_OF("container-clear.run-directory", c->id);
        r = state_remove_directory(c->directory);
        if (r < 0)
                return error_set(error, r, "cannot remove %s", c->directory);
        return 0;
}

void container_undo(Container *c) {
        FIBER_SHIELDED_SCOPE;
        _cleanup_error_ Error error = ERROR_INIT;

        c->undoing = true;
        KILL_POINT_OF("container-undo.begin", c->id);
        if (container_clear(c, &error) < 0)
                log_warning("Cannot undo container %s: %s, ignoring", c->id, strempty(error.message));
        KILL_POINT_OF("container-undo.done", c->id);
        container_unlink(c);
}

/* As pod_find_unanswered(). */
static Container *container_find_unanswered(const Container *c) {
        Container *other;

        HASH_FIND(hh_name, c->manager->containers_by_name, c->name_key, strlen(c->name_key), other);
        return other && other->phase == CONTAINER_CREATED && !other->answered && !other->starting &&
                               message_equal(runtime_v1_ContainerConfig_fields, &c->request.config, &other->request.config)
                       ? other
                       : NULL;
}

/* As pod_reserve(). */
static int container_reserve(Container *c, Error *error) {
        int r;

        for (;;) {
                Container *other;

                HASH_FIND(hh_name, c->manager->containers_by_name, c->name_key, strlen(c->name_key), other);
                if (!other || other->phase != CONTAINER_CREATING ||
                    !(other->undoing || fiber_is_cancelled(other->creator)))
                        return container_link(c, error);
                _cleanup_(container_unrefp) _unused_ Container *held = container_ref(other);
                r = fiber_queue_wait(&other->gone);
                if (r < 0)
                        return error_set(error, r, "gave up waiting for the end of container %s", other->id);
        }
}

static int container_make(Container *c, const void *request, size_t size, Error *error) {
        EnginePod pod;
        _cleanup_(volumes_done) Volumes volumes = {};
        EngineContainer view;
        int r;

        r = container_find_image(c, error);
        if (r >= 0)
                r = container_find_volumes(c, &volumes, error);
        if (r >= 0)
                r = container_hold_layers(c, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("container-create.image", c->id);
        r = container_make_directories(c, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("container-create.directories", c->id);
        c->request_crc32 = request_checksum(request, size);
        r = container_state_save(c, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("container-create.state-saved", c->id);
        r = request_save(c->directory, request, size, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("container-create.noted", c->id);
        view = container_engine_view(c, &pod);
        view.volumes = volumes.l;
        view.n_volumes = volumes.n;
        r = c->manager->engine->ops->container_create(c->manager->engine, &view, &c->info, error);
        if (r < 0)
                return r;
        r = fiber_check();
        if (r < 0)
                return error_set(error, r, "the creation of container %s was given up", c->id);
        c->phase = CONTAINER_CREATED;
        KILL_POINT_OF("container-create.created", c->id);
        return container_state_save(c, error);
}

int container_create(Manager *m, const void *request, size_t size, Container **ret, Error *error) {
        _cleanup_(container_unrefp) Container *c = NULL;
        _cleanup_(pod_unrefp) Pod *pod = NULL;
        runtime_v1_CreateContainerRequest peek = {};
        char id[ID_LENGTH + 1];
        int r;

        /* The pod is named in the request that the container decodes for itself. */
        r = message_decode(runtime_v1_CreateContainerRequest_fields, request, size, &peek, error);
        if (r < 0)
                return r;
        r = manager_find_pod(m, strempty(peek.pod_sandbox_id), &pod, error);
        pb_release(runtime_v1_CreateContainerRequest_fields, &peek);
        if (r < 0) {
                pod = NULL;
                return r;
        }
        pod_ref(pod);

        r = random_id(id);
        if (r < 0)
                return error_set(error, r, "cannot make an ID");
        r = container_new(m, pod, id, &c);
        if (r < 0)
                return error_oom(error);
        r = container_decode(c, request, size, error);
        if (r < 0)
                return r;
        c->created_usec = now_usec(CLOCK_REALTIME);

        r = fiber_lock(&pod->lock);
        if (r < 0)
                return error_set(error, r, "gave up waiting for another operation on pod %s", pod->id);
        _cleanup_fiber_unlock_ FiberLock *lock = &pod->lock;

        if (pod->removed)
                return error_setf(error, GRPC_NOT_FOUND, "pod sandbox %s was removed meanwhile", pod->id);
        if (pod->phase != POD_READY)
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "pod sandbox %s is not running: run a new one for this container", pod->id);
        pod->answered = true; /* its ID is known */
        *ret = container_find_unanswered(c);
        if (*ret)
                return 0;
        r = container_reserve(c, error);
        if (r < 0)
                return r;

        c->creator = fiber_current();
        r = container_make(c, request, size, error);
        c->creator = NULL;
        if (r < 0) {
                c->phase = CONTAINER_CREATING;
                container_undo(c);
                return r;
        }
        KILL_POINT_OF("container-create.saved", c->id);
        manager_emit(m, MANAGER_CONTAINER_CREATED, c->pod, c);
        *ret = c;
        return 0;
}

static void container_save_or_warn(Container *c) {
        _cleanup_error_ Error error = ERROR_INIT;

        /* The unit says the same after a restart: what can't be written is not lost. */
        if (container_state_save(c, &error) < 0)
                log_warning("Cannot save the state of container %s: %s, ignoring", c->id, strempty(error.message));
}

static void container_set_running(Container *c, const EngineContainerState *state) {
        if (c->phase != CONTAINER_CREATED)
                return;
        c->phase = CONTAINER_RUNNING;
        c->started_usec = state->started_usec > 0 ? state->started_usec : now_usec(CLOCK_REALTIME);
        c->pid = state->pid;
        KILL_POINT_OF("container-running.seen", c->id);
        container_save_or_warn(c);
        KILL_POINT_OF("container-running.saved", c->id);
        manager_emit(c->manager, MANAGER_CONTAINER_STARTED, c->pod, c);
}

void container_set_exited(Container *c, uint64_t finished_usec, int exit_code, const char *reason, const char *message) {
        c->phase = CONTAINER_EXITED;
        c->finished_usec = finished_usec > 0 ? finished_usec : now_usec(CLOCK_REALTIME);
        c->exit_code = exit_code;
        c->pid = 0;
        free(c->reason);
        c->reason = strdup(reason);
        free(c->message);
        c->message = message ? utf8_sanitize(message) : NULL;
        KILL_POINT_OF("container-exited.seen", c->id);
        container_save_or_warn(c);
        KILL_POINT_OF("container-exited.saved", c->id);
        fiber_queue_wake(&c->exited, 0);
        manager_emit(c->manager, MANAGER_CONTAINER_STOPPED, c->pod, c);
}

void container_apply_state(Container *c, const EngineContainerState *state) {
        if (c->removed || c->phase == CONTAINER_CREATING || c->phase == CONTAINER_EXITED)
                return;

        switch (state->phase) {
        case ENGINE_CONTAINER_CREATED:
                c->pid = state->pid;
                return;
        case ENGINE_CONTAINER_RUNNING:
                container_set_running(c, state);
                c->pid = state->pid;
                return;
        case ENGINE_CONTAINER_EXITED:
                /* It ended before the start returned: both are told, in order. */
                if (c->starting)
                        container_set_running(c, state);
                if (c->started_usec == 0)
                        c->started_usec = state->started_usec;
                c->oom_killed = state->oom_killed;
                container_set_exited(c, state->finished_usec, state->exit_code,
                                     state->oom_killed ? "OOMKilled" : state->exit_code == 0 ? "Completed" : "Error",
                                     /* message= */ NULL);
                return;
        case ENGINE_CONTAINER_UNKNOWN:
                container_set_exited(c, state->finished_usec, EXIT_CODE_UNKNOWN, "Unknown",
                                     "nobody saw this container end: the machine was restarted, or its unit was removed");
                return;
        }
}

int container_start(Container *c, Error *error) {
        _cleanup_(container_unrefp) _unused_ Container *held = container_ref(c);
        _cleanup_error_ Error cause = ERROR_INIT;
        EngineContainerState state = {};
        EnginePod pod;
        EngineContainer view;
        int r;

        r = fiber_lock(&c->lock);
        if (r < 0)
                return error_set(error, r, "gave up waiting for another operation on container %s", c->id);
        _cleanup_fiber_unlock_ FiberLock *lock = &c->lock;

        if (c->removed)
                return error_setf(error, GRPC_NOT_FOUND, "container %s was removed meanwhile", c->id);
        c->answered = true; /* its ID is known */
        /* Started (a start that failed has no time), perhaps ended since: that is what was asked for. In a pod that has
         * ended, with the machine perhaps, nothing is started. */
        if (!c->start_answered && c->pod->phase == POD_READY && c->started_usec > 0 && !streq_ptr(c->reason, "StartError") &&
            (c->phase == CONTAINER_RUNNING || c->phase == CONTAINER_EXITED))
                return 0;
        if (c->phase != CONTAINER_CREATED)
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "container %s is %s: only a created one can be started, create a new one", c->id,
                                  container_phase_to_string(c->phase));
        if (c->pod->phase != POD_READY)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "pod sandbox %s of container %s is not running",
                                  c->pod->id, c->id);

        KILL_POINT_OF("container-start.begin", c->id);
        view = container_engine_view(c, &pod);
        c->starting = true;
        r = c->manager->engine->ops->container_start(c->manager->engine, &view, &state, &cause);
        c->starting = false;
        KILL_POINT_OF("container-start.done", c->id);
        if (r == -ECANCELED || r == -ETIME) {
                /* The client may ask again. */
                error_move(error, &cause);
                return r;
        }
        if (r < 0) {
                if (!c->removed && c->phase != CONTAINER_EXITED)
                        container_set_exited(c, 0, EXIT_CODE_START_ERROR, "StartError", cause.message);
                error_move(error, &cause);
                return r;
        }
        /* It may have ended by now; then the engine has told so, and its end is not undone. */
        container_apply_state(c, &state);
        return 0;
}

int container_stop(Container *c, uint64_t timeout_usec, Error *error) {
        _cleanup_(container_unrefp) _unused_ Container *held = container_ref(c);
        EnginePod pod;
        EngineContainer view;
        int r;

        /* Waits for a start under way, but doesn't keep the lock: a later stop with less patience must get through. */
        r = fiber_lock(&c->lock);
        if (r < 0)
                return error_set(error, r, "gave up waiting for another operation on container %s", c->id);
        fiber_unlock(&c->lock);

        if (c->removed || c->phase == CONTAINER_EXITED)
                return 0;
        KILL_POINT_OF("container-stop.begin", c->id);
        view = container_engine_view(c, &pod);
        r = c->manager->engine->ops->container_stop(c->manager->engine, &view, c->info.stop_signal, timeout_usec, error);
        if (r < 0)
                return r;

        KILL_POINT_OF("container-stop.done", c->id);
        /* The engine has reported the end before it returned; one that never ran ends here. */
        if (!c->removed && c->phase != CONTAINER_EXITED)
                container_set_exited(c, 0, 128 + SIGKILL, "Error", "stopped before it was started");
        return 0;
}

int container_remove(Container *c, Error *error) {
        _cleanup_(container_unrefp) _unused_ Container *held = container_ref(c);
        int r;

        r = fiber_lock(&c->lock);
        if (r < 0)
                return error_set(error, r, "gave up waiting for another operation on container %s", c->id);
        _cleanup_fiber_unlock_ FiberLock *lock = &c->lock;

        if (c->removed)
                return 0;
        KILL_POINT_OF("container-remove.begin", c->id);
        r = container_clear(c, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("container-remove.done", c->id);
        manager_emit(c->manager, MANAGER_CONTAINER_REMOVED, c->pod, c);
        container_unlink(c);
        return 0;
}

/* Under the lock: it can neither be stopped nor started meanwhile. */
int container_checkpoint(Container *c, const char *location, uint64_t timeout_usec, Error *error) {
        _cleanup_(container_unrefp) _unused_ Container *held = container_ref(c);
        EnginePod pod;
        EngineContainer view = container_engine_view(c, &pod);
        Engine *e = c->manager->engine;
        int r;

        r = fiber_lock(&c->lock);
        if (r < 0)
                return error_set(error, r, "gave up waiting for another operation on container %s", c->id);
        _cleanup_fiber_unlock_ FiberLock *lock = &c->lock;

        r = container_check_running(c, "make a checkpoint of", error);
        if (r < 0)
                return r;
        if (!e->ops->container_checkpoint)
                return error_setf(error, GRPC_UNIMPLEMENTED, "the %s engine makes no checkpoints", e->ops->name);
        return e->ops->container_checkpoint(e, &view, location, timeout_usec, error);
}

char *container_spec(Container *c) {
        EnginePod pod;
        EngineContainer view = container_engine_view(c, &pod);
        Engine *e = c->manager->engine;
        char *spec = NULL;

        return e->ops->container_spec && e->ops->container_spec(e, &view, &spec) >= 0 ? spec : NULL;
}

int container_check_running(const Container *c, const char *what, Error *error) {
        if (c->phase != CONTAINER_RUNNING)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "cannot %s container %s: it is %s, not running", what,
                                  c->id, container_phase_to_string(c->phase));
        return 0;
}

int container_exec_sync(Container *c, const char *const *argv, uint64_t timeout_usec, EngineExecResult *ret,
                        Error *error) {
        _cleanup_(container_unrefp) _unused_ Container *held = container_ref(c);
        EnginePod pod;
        EngineContainer view = container_engine_view(c, &pod);
        int r;

        r = container_check_running(c, "execute a command in", error);
        if (r < 0)
                return r;
        return c->manager->engine->ops->container_exec_sync(c->manager->engine, &view, argv, timeout_usec, ret, error);
}

int container_reopen_log(Container *c, Error *error) {
        _cleanup_(container_unrefp) _unused_ Container *held = container_ref(c);
        EnginePod pod;
        EngineContainer view = container_engine_view(c, &pod);
        int r;

        r = container_check_running(c, "reopen the log of", error);
        if (r < 0)
                return r;
        return c->manager->engine->ops->container_reopen_log(c->manager->engine, &view, error);
}
