/* The server: h2o's context in our loop, listening sockets, connections, and how all that ends. */

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <utlist.h>

#include "basic/log.h"
#include "grpc/listen.h"
#include "grpc/server-internal.h"

/* How many connections one turn of the loop accepts. */
#define ACCEPT_BATCH 16
/* Without descriptors or memory for a connection: when to look again. */
#define ACCEPT_RETRY_USEC (100 * USEC_PER_MSEC)
/* A peer that doesn't answer our PING gets the final GOAWAY after this. */
#define GOAWAY_DELAY_USEC (1 * USEC_PER_SEC)
/* A connection without a request is closed after this; a client's pool opens another when it needs one. */
#define IDLE_TIMEOUT_MSEC (UINT64_C(24) * 3600 * 1000)

struct Listener {
        GrpcServer *server;
        int fd;
        sd_event_source *io, *retry;
        char *path; /* of an own socket, else NULL */
        struct stat identity;
        Listener *next;
};

typedef struct Handler {
        h2o_handler_t super;
        GrpcServer *server;
} Handler;

GrpcServer *server_ref(GrpcServer *s) {
        s->n_ref++;
        return s;
}

GrpcServer *server_unref(GrpcServer *s) {
        if (!s || --s->n_ref > 0)
                return NULL;

        free(s->path_sizes);
        sd_event_unref(s->event);
        return mfree(s);
}

void server_progress(GrpcServer *s) {
        fiber_queue_wake(&s->drained, 0);
}

const GrpcMethod *server_find_method(const GrpcServer *s, const char *path, size_t size) {
        for (size_t i = 0; i < s->n_methods; i++)
                if (s->path_sizes[i] == size && memcmp(s->methods[i].path, path, size) == 0)
                        return &s->methods[i];
        return NULL;
}

size_t grpc_server_live_calls(const GrpcServer *s) {
        return s->n_calls;
}

static Listener *listener_free(Listener *l) {
        sd_event_source_disable_unref(l->io);
        sd_event_source_disable_unref(l->retry);
        if (l->path && l->fd >= 0)
                listen_unlink(l->path, &l->identity);
        safe_close(l->fd);
        free(l->path);
        return mfree(l);
}
DEFINE_TRIVIAL_CLEANUP_FUNC(Listener *, listener_free);

static void on_connection_closed(H2Connection *c, void *userdata) {
        GrpcServer *s = userdata;

        DL_DELETE2(s->connections, c, prev, next_connection);
        s->n_connections--;
        fiber_queue_wake(&c->room, -ECANCELED);
        server_progress(s);
        server_unref(s);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        Listener *l = userdata;

        l->retry = sd_event_source_disable_unref(l->retry);
        return sd_event_source_set_enabled(l->io, SD_EVENT_ON);
}

/* The descriptor stays readable: rest, instead of finding the same again and again. */
static int listener_pause(Listener *l) {
        int r;

        r = sd_event_add_time_relative(l->server->event, &l->retry, CLOCK_MONOTONIC, ACCEPT_RETRY_USEC, 0, on_retry,
                                       l);
        if (r < 0)
                return r;
        return sd_event_source_set_enabled(l->io, SD_EVENT_OFF);
}

void server_connection_used(GrpcServer *s, H2Connection *c) {
        DL_DELETE2(s->connections, c, prev, next_connection);
        DL_APPEND2(s->connections, c, prev, next_connection);
}

/* Programs leave connections open that they will never use again. */
static void server_let_idle_go(GrpcServer *s) {
        H2Connection *c;

        DL_FOREACH2(s->connections, c, next_connection)
                if (c->n_streams == 0 && c->n_running == 0 && c->goaway == H2_GOAWAY_NONE) {
                        h2_connection_goaway(c, H2_GOAWAY_ANNOUNCED);
                        return;
                }
}

void server_accept(GrpcServer *s, int fd) {
        H2Connection *c;
        int r;

        if (s->n_connections >= GRPC_CONNECTIONS_MAX) {
                log_debug("More than %u connections, closing a new one", GRPC_CONNECTIONS_MAX);
                safe_close(fd);
                return;
        }
        if (s->n_connections >= GRPC_CONNECTIONS_KEPT)
                server_let_idle_go(s);
        r = h2_connection_accept(&s->accept, fd, on_connection_closed, s, &c);
        if (r < 0) {
                (void) log_debug_errno(r, "Cannot serve a connection");
                return;
        }
        (void) server_ref(s);
        DL_APPEND2(s->connections, c, prev, next_connection);
        s->n_connections++;
}

static int on_connect(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Listener *l = userdata;

        for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
                int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (accepted < 0)
                        switch (errno) {
                        case EAGAIN:
                                return 0;
                        case EINTR:
                        case ECONNABORTED:
                                continue;
                        default:
                                (void) log_debug_errno(-errno, "Cannot accept a connection, trying again soon");
                                return listener_pause(l);
                        }
                server_accept(l->server, accepted);
        }
        return 0;
}

static int server_add_listener(GrpcServer *s, int fd, const char *path, const struct stat *identity, Error *error) {
        _cleanup_close_ int owned = fd;
        _cleanup_(listener_freep) Listener *l = NULL;
        int r;

        l = malloc(sizeof *l);
        if (!l)
                return error_oom(error);
        *l = (Listener) { .server = s, .fd = TAKE_FD(owned) };
        if (path) {
                l->identity = *identity;
                l->path = strdup(path);
                if (!l->path)
                        return error_oom(error);
        }
        r = sd_event_add_io(s->event, &l->io, l->fd, EPOLLIN, on_connect, l);
        if (r < 0)
                return error_set(error, r, "Cannot watch a listening socket");
        (void) sd_event_source_set_description(l->io, "grpc-listen");

        LL_PREPEND(s->listeners, l);
        (void) TAKE_PTR(l);
        return 0;
}

int grpc_server_listen(GrpcServer *s, int fd, Error *error) {
        _cleanup_close_ int owned = fd;
        int r;

        r = listen_check(owned, error);
        if (r < 0)
                return r;
        return server_add_listener(s, TAKE_FD(owned), NULL, NULL, error);
}

int grpc_server_listen_unix(GrpcServer *s, const char *path, Error *error) {
        _cleanup_close_ int fd = -1;
        struct stat identity;
        int r;

        r = listen_unix(path, &fd, &identity, error);
        if (r < 0)
                return r;
        return server_add_listener(s, TAKE_FD(fd), path, &identity, error);
}

static int on_request(h2o_handler_t *handler, h2o_req_t *req) {
        call_start(((Handler *) handler)->server, req);
        return 0;
}

/* h2o links a "write soon" timer for each request and mostly writes before it fires, but leaves libuv's timer running,
 * which would cost a round of the loop each time. */
static void on_idle(void *userdata) {
        GrpcServer *s = userdata;
        H2Connection *c;

        if (h2o_linklist_is_empty(&s->context.zero_timeout._entries))
                (void) uv_timer_stop(&s->context.zero_timeout._backend.timer);
        if (s->draining)
                DL_FOREACH2(s->connections, c, next_connection)
                        h2_connection_close_if_quiet(c);
}

static void server_configure(GrpcServer *s) {
        h2o_hostconf_t *host;
        h2o_pathconf_t *path;
        Handler *handler;

        /* Bodies of up to 16 MiB are in memory, instead of in a mapped file below /tmp. */
        h2o_socket_buffer_mmap_settings.threshold = SIZE_MAX;

        h2o_config_init(&s->conf);
        s->conf.server_name = h2o_iovec_init(NULL, 0); /* no such field */
        s->conf.max_request_entity_size = H2_BODY_MAX + 64 * 1024; /* h2-connection.c cuts before */
        s->conf.http2.idle_timeout = IDLE_TIMEOUT_MSEC;
        s->conf.http2.max_concurrent_requests_per_connection = H2_STREAMS_MAX;
        host = h2o_config_register_host(&s->conf, h2o_iovec_init(H2O_STRLIT("default")), 65535);
        path = h2o_config_register_path(host, "/", 0);
        handler = (Handler *) h2o_create_handler(path, sizeof *handler);
        handler->super.on_req = on_request;
        handler->server = s;
        h2o_context_init(&s->context, uv_event_loop(s->uv), &s->conf);
        s->accept.ctx = &s->context;
        s->accept.hosts = s->conf.hosts;
        s->h2o_ready = true;
}

int grpc_server_new(sd_event *event, const GrpcMethod *methods, void *userdata, GrpcServer **ret) {
        _cleanup_(grpc_server_freep) GrpcServer *s = NULL;
        struct sigaction action;
        int r;

        s = calloc(1, sizeof *s);
        if (!s)
                return -ENOMEM;
        s->n_ref = 1;
        s->event = sd_event_ref(event);
        s->methods = methods;
        s->userdata = userdata;
        while (methods[s->n_methods].path)
                s->n_methods++;
        s->path_sizes = calloc(s->n_methods + 1, sizeof *s->path_sizes);
        if (!s->path_sizes)
                return -ENOMEM;
        for (size_t i = 0; i < s->n_methods; i++)
                s->path_sizes[i] = strlen(methods[i].path);

        /* libuv writes to sockets without MSG_NOSIGNAL. */
        if (sigaction(SIGPIPE, NULL, &action) >= 0 && action.sa_handler == SIG_DFL) {
                action.sa_handler = SIG_IGN;
                (void) sigaction(SIGPIPE, &action, NULL);
        }

        r = uv_event_new(event, &s->uv);
        if (r < 0)
                return r;
        server_configure(s);
        uv_event_set_idle(s->uv, on_idle, s);

        *ret = TAKE_PTR(s);
        return 0;
}

static void server_close_listeners(GrpcServer *s) {
        Listener *l;

        while ((l = s->listeners)) {
                LL_DELETE(s->listeners, l);
                listener_free(l);
        }
}

static void server_goaway(GrpcServer *s, H2Goaway stage) {
        H2Connection *c;

        DL_FOREACH2(s->connections, c, next_connection)
                h2_connection_goaway(c, stage);
}

static int on_goaway_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        server_goaway(userdata, H2_GOAWAY_FINAL);
        return 0;
}

void grpc_server_drain(GrpcServer *s) {
        int r;

        if (s->draining)
                return;
        s->draining = true;
        server_close_listeners(s);
        server_goaway(s, H2_GOAWAY_ANNOUNCED);
        r = sd_event_add_time_relative(s->event, &s->goaway_timer, CLOCK_MONOTONIC, GOAWAY_DELAY_USEC, 0,
                                       on_goaway_timer, s);
        if (r < 0)
                server_goaway(s, H2_GOAWAY_FINAL);
}

static void server_cancel_calls(GrpcServer *s) {
        s->cancelling = true;
        for (GrpcCall *c = s->calls; c; c = call_next(c))
                call_cancel(c);
}

static void server_cut_connections(GrpcServer *s) {
        H2Connection *c;

        DL_FOREACH2(s->connections, c, next_connection)
                h2_connection_cut(c);
}

static bool server_is_quiet(const GrpcServer *s) {
        return s->n_calls == 0 && s->n_connections == 0;
}

static int server_wait_quiet(GrpcServer *s, uint64_t timeout_usec) {
        uint64_t now = now_usec(CLOCK_MONOTONIC), until;
        int r;

        until = timeout_usec > USEC_INFINITY - now ? USEC_INFINITY : now + timeout_usec;
        while (!server_is_quiet(s)) {
                r = fiber_queue_wait_until(&s->drained, until);
                if (r < 0)
                        return r;
        }
        return 0;
}

int grpc_server_drain_wait(GrpcServer *s, uint64_t timeout_usec) {
        int r;

        r = server_wait_quiet(s, timeout_usec);
        if (r != -ETIMEDOUT)
                return r;

        server_cancel_calls(s);
        server_goaway(s, H2_GOAWAY_FINAL);
        (void) server_wait_quiet(s, GRPC_DRAIN_CANCEL_USEC);
        server_cut_connections(s);
        return -ETIMEDOUT;
}

GrpcServer *grpc_server_free(GrpcServer *s) {
        if (!s)
                return NULL;

        server_close_listeners(s);
        sd_event_source_disable_unref(s->goaway_timer);
        server_cancel_calls(s);
        if (s->h2o_ready) {
                /* h2o closes a connection when it reads its end or fails to write, in the next rounds. */
                server_cut_connections(s);
                for (unsigned i = 0; s->connections && i < 64; i++)
                        uv_event_dispatch(s->uv);
                h2o_context_dispose(&s->context);
                h2o_config_dispose(&s->conf);
        }
        s->uv = uv_event_free(s->uv);
        return server_unref(s);
}
