#pragma once
/* Shared by server.c, call.c and the fuzzer only. */

#include "basic/fiber.h"
#include "grpc/grpc.h"
#include "grpc/h2-connection.h"
#include "grpc/uv-event.h"

typedef struct Listener Listener;

struct GrpcServer {
        unsigned n_ref; /* the owner's, and one for each call and connection */
        sd_event *event;
        UvEvent *uv;
        h2o_globalconf_t conf;
        h2o_context_t context;
        h2o_accept_ctx_t accept;
        bool h2o_ready, freed;

        const GrpcMethod *methods;
        size_t *path_sizes; /* of methods, in their order */
        size_t n_methods;
        void *userdata;

        Listener *listeners;
        H2Connection *connections; /* the one used last is last */
        size_t n_connections;
        GrpcCall *calls;
        size_t n_calls;
        size_t n_running; /* of their handlers */

        bool draining, cancelling;
        sd_event_source *goaway_timer;
        FiberQueue drained; /* woken when a call or connection has gone */
};

GrpcServer *server_ref(GrpcServer *s);
GrpcServer *server_unref(GrpcServer *s);
DEFINE_TRIVIAL_CLEANUP_FUNC(GrpcServer *, server_unref);
const GrpcMethod *server_find_method(const GrpcServer *s, const char *path, size_t size);
/* Serves a connected socket, which is taken. */
void server_accept(GrpcServer *s, int fd);
/* A request has come on it. */
void server_connection_used(GrpcServer *s, H2Connection *c);
/* A call was freed or a connection closed. */
void server_progress(GrpcServer *s);

/* Takes over a request: makes a call of it and runs its handler. */
void call_start(GrpcServer *s, h2o_req_t *req);
/* Ends the waits of the call's handler; the client, if it is still there, gets Unavailable. */
void call_cancel(GrpcCall *c);
GrpcCall *call_next(GrpcCall *c);
