/* Kill: a signal for what runs, as systemctl kill sends it. */

#include "bus/internal.h"

#include <signal.h>

static int kill_container(Container *c, const char *whom, int signo, Error *error) {
        Engine *engine = c->manager->engine;
        int r;

        if (signo <= 0 || signo > SIGRTMAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "%d is no signal", signo);
        if (!streq(whom, "main") && !streq(whom, "all"))
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "a signal goes to \"main\" or to \"all\", not to \"%s\"", whom);
        r = container_check_running(c, "send a signal to", error);
        if (r < 0)
                return r;
        r = engine && engine->ops->container_signal
                            ? engine->ops->container_signal(engine, c->id, streq(whom, "all"), signo, error)
                            : unit_kill(c->manager->systemd, c->unit, whom, signo, error);
        if (r == -ESRCH && !error_is_set(error))
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s has no process any more", c->id);
        return r;
}

int task_kill_container(Task *t, Error *error) {
        const char *whom;
        int32_t signo;
        int r;

        r = sd_bus_message_read(t->message, "si", &whom, &signo);
        return r < 0 ? r : kill_container(t->container, whom, signo, error);
}

/* A list first: they may be removed while signals are sent. */
int task_kill_pod(Task *t, Error *error) {
        _cleanup_free_ Container **l = NULL;
        size_t n = 0;
        int32_t signo;
        int r;

        r = sd_bus_message_read(t->message, "i", &signo);
        if (r < 0)
                return r;
        if (signo <= 0 || signo > SIGRTMAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "%d is no signal", signo);
        for (Container *c = t->pod->containers; c; c = c->pod_next)
                n++;
        l = calloc(n + 1, sizeof *l);
        if (!l)
                return -ENOMEM;
        n = 0;
        for (Container *c = t->pod->containers; c; c = c->pod_next)
                if (c->phase == CONTAINER_RUNNING)
                        l[n++] = container_ref(c);
        for (size_t i = 0; i < n; i++) {
                _cleanup_error_ Error e = ERROR_INIT;
                int k;

                k = kill_container(l[i], "main", signo, &e);
                /* One that ended meanwhile got what was wanted. */
                if (k < 0 && e.code != GRPC_FAILED_PRECONDITION && r >= 0) {
                        r = k;
                        error_move(error, &e);
                }
                (void) container_unref(l[i]);
        }
        return MIN(r, 0);
}
