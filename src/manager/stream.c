/* What a streaming client does with a container or a pod. */

#include "manager/internal.h"

int container_exec(Container *c, const EngineExec *exec, int *ret_exit_code, Error *error) {
        _cleanup_(container_unrefp) _unused_ Container *held = container_ref(c);
        EnginePod pod;
        EngineContainer view = container_engine_view(c, &pod);
        int r;

        r = container_check_running(c, "execute a command in", error);
        if (r < 0)
                return r;
        return c->manager->engine->ops->container_exec(c->manager->engine, &view, exec, ret_exit_code, error);
}

int container_attach(Container *c, EngineAttachFlags flags, int *ret_fd, Error *error) {
        _cleanup_(container_unrefp) _unused_ Container *held = container_ref(c);
        EnginePod pod;
        EngineContainer view = container_engine_view(c, &pod);
        int r;

        /* Before its start nothing of its output is missed. */
        r = c->phase == CONTAINER_CREATED && !c->removed ? 0 : container_check_running(c, "attach to", error);
        if (r < 0)
                return r;
        return c->manager->engine->ops->container_attach(c->manager->engine, &view, flags, ret_fd, error);
}

int pod_netns(Pod *p, char **ret, Error *error) {
        _cleanup_(pod_unrefp) _unused_ Pod *held = pod_ref(p);
        EnginePod view = pod_engine_view(p);
        int r;

        r = pod_check_ready(p, "reach", error);
        if (r < 0)
                return r;
        return p->manager->engine->ops->pod_netns(p->manager->engine, &view, ret, error);
}

int pod_check_ready(const Pod *p, const char *what, Error *error) {
        if (p->phase != POD_READY)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "cannot %s pod %s: it is %s, not ready", what,
                                  p->id, pod_phase_to_string(p->phase));
        return 0;
}
