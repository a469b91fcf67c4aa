/* The rkt engine's operations, made and taken apart. */

#include <fcntl.h>

#include "basic/file-util.h"
#include "engine/rkt/internal.h"

static Engine *rkt_free(Engine *engine) {
        RktEngine *e = rkt_engine(engine);
        RktContainer *n, *next;
        RktPod *p, *next_pod;

        HASH_ITER(hh, e->containers, n, next)
                rkt_container_forget(n);
        HASH_ITER(hh, e->pods, p, next_pod)
                rkt_pod_forget(p);
        sd_event_unref(e->event);
        rkt_done(&e->rkt);
        free(e);
        return NULL;
}

static int rkt_status(Engine *engine, Error *error) {
        const char *path = rkt_engine(engine)->rkt.path;

        return access(path, X_OK) < 0 ? error_set(error, -errno, "RktPath=%s can't be executed", path) : 0;
}

static int rkt_handler_check(Engine *engine, const char *handler, Error *error) {
        return isempty(handler) ? 0
                                : error_setf(error, GRPC_INVALID_ARGUMENT,
                                             "no runtime handler \"%s\": the rkt engine has only the default", handler);
}

static const EngineOps rkt_ops = {
        .name = "rkt",
        .free = rkt_free,
        .status = rkt_status,
        .handler_check = rkt_handler_check,
        .pod_start = rkt_pod_start,
        .pod_netns = rkt_pod_netns,
        .pod_stop = rkt_pod_stop,
        .pod_remove = rkt_pod_remove,
        .pod_load = rkt_pod_load,
        .pod_addresses = rkt_pod_get_addresses,
        .network_status = rkt_network_status,
        .recover = rkt_recover,
        .collect = rkt_collect,
        .pod_cgroup = rkt_pod_cgroup,
        .pod_update = rkt_pod_update,
        .container_create = rkt_container_create,
        .container_start = rkt_container_start,
        .container_stop = rkt_container_stop,
        .container_remove = rkt_container_remove,
        .container_load = rkt_container_load,
        .container_exec_sync = rkt_container_exec_sync,
        .container_exec = rkt_container_exec,
        .container_attach = rkt_container_attach,
        .container_signal = rkt_container_signal,
        .container_reopen_log = rkt_container_reopen_log,
        .container_update = rkt_container_update,
        .container_cgroup = rkt_container_cgroup,
        .container_checkpoint = rkt_container_checkpoint,
        .container_layer_usage = rkt_container_layer_usage,
};

int rkt_engine_new(sd_event *event, Systemd *systemd, const RktConfig *config, const EngineEvents *events, Engine **ret,
                   Error *error) {
        _cleanup_(engine_freep) Engine *engine = NULL;
        RktEngine *e = calloc(1, sizeof *e);
        int r;

        if (!e)
                return error_oom(error);
        engine = &e->engine;
        e->engine.ops = &rkt_ops;
        if (events)
                e->engine.events = *events;
        e->event = sd_event_ref(event);
        e->systemd = systemd;
        r = rkt_init(&e->rkt, config, error);
        if (r < 0)
                return r;
        r = mkdir_parents(AT_FDCWD, e->rkt.directory, 0700);
        if (r < 0)
                return error_set(error, r, "cannot make %s", e->rkt.directory);
        *ret = TAKE_PTR(engine);
        return 0;
}
