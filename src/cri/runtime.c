/* What the runtime says of itself: Version, Status, RuntimeConfig, UpdateRuntimeConfig. */

#include "basic/log.h"
#include "cri/info.h"
#include "cri/internal.h"

/* What pods can have, if their handler's runtime can do it. True only for what is built and tested. */
#define HANDLER_RECURSIVE_READ_ONLY_MOUNTS true

static bool has_user_namespaces(const Manager *m) {
        const char *layers = m->images ? image_store_layers_path(m->images) : NULL;
        Engine *e = m->engine;

        return e && layers && e->ops->has_user_namespaces && e->ops->has_user_namespaces(e, layers);
}

int cri_version(CriCall *c, Error *error) {
        /* The kubelet's own API version, fixed since the CRI began; the client's is not looked at, as with the peers.
         */
        runtime_v1_VersionResponse response = {
                .version = (char *) "0.1.0",
                .runtime_name = (char *) "rktlet",
                .runtime_version = (char *) PROJECT_VERSION,
                .runtime_api_version = (char *) "v1",
        };

        return CRI_REPLY(c, VersionResponse, &response, error);
}

static void condition(runtime_v1_RuntimeCondition *ret, const char *type, int r, const char *reason,
                      const Error *cause) {
        *ret = (runtime_v1_RuntimeCondition) { .type = (char *) type, .status = r >= 0 };
        if (r >= 0)
                return;
        ret->reason = (char *) reason;
        ret->message = cause->message ? cause->message : strerror(-r);
}

static int describe_handlers(CriCall *c, runtime_v1_RuntimeHandler **ret, pb_size_t *ret_n, Error *error) {
        _cleanup_free_ EngineHandler *handlers = NULL;
        runtime_v1_RuntimeHandler *l;
        const bool user_namespaces = has_user_namespaces(c->manager);
        Engine *e = c->manager->engine;
        size_t n = 0;
        int r;

        if (e && e->ops->handlers) {
                r = e->ops->handlers(e, &handlers, &n, error);
                if (r < 0)
                        return r;
        } else {
                handlers = calloc(1, sizeof *handlers);
                if (!handlers)
                        return error_oom(error);
                handlers[n++].name = "";
        }
        l = arena_new(&c->arena, runtime_v1_RuntimeHandler, n);
        if (!l)
                return error_oom(error);
        for (size_t i = 0; i < n; i++)
                l[i] = (runtime_v1_RuntimeHandler) {
                        .name = (char *) handlers[i].name,
                        .has_features = true,
                        .features.recursive_read_only_mounts =
                                        HANDLER_RECURSIVE_READ_ONLY_MOUNTS && handlers[i].recursive_read_only_mounts,
                        .features.user_namespaces = user_namespaces && handlers[i].user_namespaces,
                };
        *ret = l;
        *ret_n = (pb_size_t) n;
        return 0;
}

int cri_status(CriCall *c, Error *error) {
        const runtime_v1_StatusRequest *request = c->request;
        _cleanup_error_ Error systemd_error = ERROR_INIT, network_error = ERROR_INIT;
        const bool user_namespaces = has_user_namespaces(c->manager);
        Engine *engine = c->manager->engine;
        runtime_v1_RuntimeCondition conditions[2];
        runtime_v1_StatusResponse_InfoEntry info = {};
        runtime_v1_StatusResponse response = {
                .has_status = true,
                .status.conditions = conditions,
                .status.conditions_count = ELEMENTSOF(conditions),
                .has_features = true,
                .features.supplemental_groups_policy = engine && engine->ops->supplemental_groups_policy,
                .features.user_namespaces_host_network = user_namespaces,
        };
        const char *reason = "SystemdNotReachable";
        int r;

        r = systemd_is_connected(c->manager->systemd) ? 0 : systemd_connect(c->manager->systemd, &systemd_error);
        if (r == -ECANCELED || r == -ETIME)
                return error_set(error, r, "gave up asking systemd");
        if (r >= 0 && engine && engine->ops->status) {
                reason = "EngineNotUsable";
                r = engine->ops->status(engine, &systemd_error);
        }
        condition(&conditions[0], "RuntimeReady", r, reason, &systemd_error);

        r = manager_network_status(c->manager, &network_error);
        condition(&conditions[1], "NetworkReady", r, "NetworkPluginNotReady", &network_error);

        r = describe_handlers(c, &response.runtime_handlers, &response.runtime_handlers_count, error);
        if (r < 0)
                return r;
        if (request->verbose) {
                r = status_info(c, &info, error);
                if (r < 0)
                        return r;
                response.info = &info;
                response.info_count = 1;
        }
        return CRI_REPLY(c, StatusResponse, &response, error);
}

int cri_runtime_config(CriCall *c, Error *error) {
        runtime_v1_RuntimeConfigResponse response = {
                .has_linux = true,
                .linux.cgroup_driver = runtime_v1_CgroupDriver_SYSTEMD,
        };

        return CRI_REPLY(c, RuntimeConfigResponse, &response, error);
}

/* The kubelet sends nothing until the node has a pod CIDR. */
int cri_update_runtime_config(CriCall *c, Error *error) {
        const runtime_v1_UpdateRuntimeConfigRequest *request = c->request;
        const char *cidrs = strempty(request->runtime_config.network_config.pod_cidr);
        runtime_v1_UpdateRuntimeConfigResponse response = {};
        int r;

        if (!isempty(cidrs)) {
                r = manager_set_pod_cidrs(c->manager, cidrs, error);
                if (r < 0)
                        return r;
        }
        return CRI_REPLY(c, UpdateRuntimeConfigResponse, &response, error);
}
