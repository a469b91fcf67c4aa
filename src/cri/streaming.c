/* Exec, Attach, PortForward: checked, then prepared at the streaming server, where the client goes with the URL it is
 * given. What it does there comes back here. */

#include "basic/log.h"
#include "cri/internal.h"
#include "cri/port.h"

/* What a URL stands for. */
typedef struct Streaming {
        Container *container; /* references */
        Pod *pod;
        char **argv;
        StreamRequest request;
        StreamSession *session; /* while it runs */
} Streaming;

static void streaming_free(void *userdata) {
        Streaming *s = userdata;

        (void) container_unref(s->container);
        (void) pod_unref(s->pod);
        strv_free(s->argv);
        free(s);
}

/* --- exec -------------------------------------------------------------------------------------------------------- */

static int exec_started(EnginePipes *pipes, void *userdata) {
        Streaming *s = userdata;
        StreamPipes own = { pipes->in, pipes->out, pipes->err, pipes->tty };

        return stream_session_start(s->session, &own);
}

static int exec_run(StreamSession *session, void *userdata, int *ret_exit_code, Error *error) {
        Streaming *s = userdata;
        const EngineExec exec = {
                .argv = (const char *const *) s->argv,
                .in = s->request.in,
                .out = s->request.out,
                .err = s->request.err,
                .tty = s->request.tty,
                .started = exec_started,
                .userdata = s,
        };
        int r;

        s->session = session;
        r = container_exec(s->container, &exec, ret_exit_code, error);
        if (r < 0)
                return error_prefix(error, r, "error executing command in container");
        return stream_session_finish(session);
}

static const StreamOps exec_ops = { .run = exec_run, .free = streaming_free };

/* --- attach ------------------------------------------------------------------------------------------------------ */

#define ATTACH_TRIES 3U /* a pod's process that was killed is back at once */

/* When the container has ended its log is complete, and so is what came for us. */
static int watch_exit(void *userdata) {
        Streaming *s = userdata;
        int r = 0;

        while (r >= 0 && s->container->phase == CONTAINER_RUNNING)
                r = fiber_queue_wait(&s->container->exited);
        if (r >= 0)
                stream_session_end(s->session);
        return r;
}

static int attach_run(StreamSession *session, void *userdata, int *ret_exit_code, Error *error) {
        Streaming *s = userdata;
        EngineAttachFlags flags = (s->request.in ? ENGINE_ATTACH_STDIN : 0) |
                                  (s->request.out ? ENGINE_ATTACH_STDOUT : 0) | (s->request.err ? ENGINE_ATTACH_STDERR : 0);
        Fiber *watcher = NULL;
        int r = 0;

        s->session = session;
        for (unsigned i = 0; i < ATTACH_TRIES; i++) {
                _cleanup_close_ int fd = -1;

                r = container_attach(s->container, flags, &fd, error);
                if (r < 0)
                        break;
                if (!watcher) {
                        r = fiber_spawn(s->container->manager->event, "attach-exit", watch_exit, s, NULL, &watcher);
                        if (r < 0)
                                break;
                }
                r = stream_session_packets(session, fd);
                log_debug("Attached to container %s until: %s", s->container->id, r < 0 ? strerror(-r) : "its end");
                if (r != -EPIPE || s->container->phase != CONTAINER_RUNNING)
                        break;
        }
        if (watcher) {
                FIBER_SHIELDED_SCOPE;

                fiber_cancel(watcher);
                (void) fiber_join(watcher, NULL);
                (void) fiber_unref(watcher);
        }
        /* The container ended under our hands: as good as after it. */
        if (s->container->phase != CONTAINER_RUNNING && r != -ECANCELED && r != -ENOBUFS)
                r = 0;
        if (r == -ENOBUFS)
                return error_setf(error, GRPC_ABORTED,
                                  "detached: the client did not read as fast as the container writes; "
                                  "all of it is in the container's log"), r;
        if (r < 0)
                return error_set(error, r, "cannot go on attached to the container");
        *ret_exit_code = 0;
        return 0;
}

static const StreamOps attach_ops = { .run = attach_run, .free = streaming_free };

/* --- port-forward ------------------------------------------------------------------------------------------------ */

static int forward_connect(uint16_t port, void *userdata, int *ret_fd, Error *error) {
        const Streaming *s = userdata;
        _cleanup_free_ char *netns = NULL;
        int r;

        r = pod_netns(s->pod, &netns, error);
        if (r < 0)
                return r;
        return port_connect(netns, port, ret_fd, error);
}

static const StreamOps forward_ops = { .connect = forward_connect, .free = streaming_free };

/* --- requests ---------------------------------------------------------------------------------------------------- */

/* Takes the streaming in any case. */
static int prepare(CriCall *c, Streaming *s, char **ret_url, Error *error) {
        _cleanup_free_ char *url = NULL;
        int r;

        s->request.userdata = s;
        r = stream_server_prepare(c->cri->streams, &s->request, &url, error);
        if (r < 0)
                return r;
        *ret_url = arena_strdup(&c->arena, url);
        return *ret_url ? 0 : error_oom(error);
}

static int check_server(const CriCall *c, Error *error) {
        return c->cri->streams ? 0 : error_setf(error, GRPC_UNAVAILABLE, "the streaming server is not up");
}

static int check_streams(bool in, bool out, bool err, bool tty, Error *error) {
        if (tty && err)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "tty and stderr are both set: a terminal has one output, ask for stdout");
        if (!in && !out && !err)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "set at least one of stdin, stdout and stderr");
        return 0;
}

int cri_exec(CriCall *c, Error *error) {
        const runtime_v1_ExecRequest *request = c->request;
        runtime_v1_ExecResponse response = {};
        Streaming *s;
        Container *k;
        int r;

        if (request->cmd_count == 0 || isempty(request->cmd[0]))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "cmd is empty: name a command to execute");
        r = check_streams(request->stdin, request->stdout, request->stderr, request->tty, error);
        if (r >= 0)
                r = cri_find_container(c, request->container_id, &k, error);
        if (r >= 0)
                r = container_check_running(k, "execute a command in", error);
        if (r >= 0)
                r = check_server(c, error);
        if (r < 0)
                return r;
        s = calloc(1, sizeof *s);
        if (!s)
                return error_oom(error);
        s->container = container_ref(k);
        s->request = (StreamRequest) {
                .kind = STREAM_EXEC,
                .in = request->stdin,
                .out = request->stdout,
                .err = request->stderr,
                .tty = request->tty,
                .ops = &exec_ops,
        };
        for (size_t i = 0; i < request->cmd_count; i++)
                if (strv_extend(&s->argv, request->cmd[i]) < 0) {
                        streaming_free(s);
                        return error_oom(error);
                }
        r = prepare(c, s, &response.url, error);
        return r < 0 ? r : CRI_REPLY(c, ExecResponse, &response, error);
}

int cri_attach(CriCall *c, Error *error) {
        const runtime_v1_AttachRequest *request = c->request;
        runtime_v1_AttachResponse response = {};
        Streaming *s;
        Container *k;
        int r;

        r = check_streams(request->stdin, request->stdout, request->stderr, request->tty, error);
        if (r >= 0)
                r = cri_find_container(c, request->container_id, &k, error);
        if (r >= 0)
                r = container_check_running(k, "attach to", error);
        if (r >= 0)
                r = check_server(c, error);
        if (r < 0)
                return r;
        s = calloc(1, sizeof *s);
        if (!s)
                return error_oom(error);
        s->container = container_ref(k);
        s->request = (StreamRequest) {
                .kind = STREAM_ATTACH,
                .in = request->stdin,
                .out = request->stdout,
                .err = request->stderr,
                .tty = request->tty,
                .ops = &attach_ops,
        };
        r = prepare(c, s, &response.url, error);
        return r < 0 ? r : CRI_REPLY(c, AttachResponse, &response, error);
}

int cri_port_forward(CriCall *c, Error *error) {
        const runtime_v1_PortForwardRequest *request = c->request;
        runtime_v1_PortForwardResponse response = {};
        Streaming *s;
        Pod *p;
        int r;

        r = cri_find_pod(c, request->pod_sandbox_id, &p, error);
        if (r >= 0)
                r = pod_check_ready(p, "forward ports of", error);
        if (r >= 0)
                r = check_server(c, error);
        if (r < 0)
                return r;
        s = calloc(1, sizeof *s);
        if (!s)
                return error_oom(error);
        s->pod = pod_ref(p);
        s->request = (StreamRequest) { .kind = STREAM_PORT_FORWARD, .ops = &forward_ops };
        r = prepare(c, s, &response.url, error);
        return r < 0 ? r : CRI_REPLY(c, PortForwardResponse, &response, error);
}
