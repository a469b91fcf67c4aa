#pragma once
/* A gRPC server (unary and server streaming) on libh2o, in the sd-event loop. Speaks bytes; grpc/message.h turns them
 * into nanopb structs. Wire format: gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md).
 *
 * Each call runs its handler in a fiber: the client's cancellation, a torn connection and the deadline from
 * grpc-timeout end that fiber's waits. */

#include <systemd/sd-event.h>

#include "basic/error.h"
#include "basic/macro.h"

#define GRPC_MESSAGE_MAX (16U * 1024U * 1024U)
#define GRPC_STREAMS_MAX 1000U

typedef struct GrpcServer GrpcServer;
typedef struct GrpcCall GrpcCall;

/* Serves one call, in a fiber. request stays valid until it returns. A unary handler calls grpc_call_send() once and
 * returns 0; a streaming one as often as it has something. The return value ends the call: 0 is OK, a negative errno
 * an error, with the code and text of *error (an unset one gets them from the errno). */
typedef int (*GrpcHandler)(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error);

typedef struct GrpcMethod {
        const char *path; /* "/runtime.v1.RuntimeService/Version" */
        GrpcHandler handler;
        void *data; /* for the handler: grpc_call_method(call)->data */
} GrpcMethod;

/* methods ends with a NULL path and must outlive the server; other paths answer UNIMPLEMENTED. */
int grpc_server_new(sd_event *event, const GrpcMethod *methods, void *userdata, GrpcServer **ret);
GrpcServer *grpc_server_free(GrpcServer *s);
DEFINE_TRIVIAL_CLEANUP_FUNC(GrpcServer *, grpc_server_free);
/* Accepts on a listening stream socket (AF_UNIX); takes the descriptor. */
int grpc_server_listen(GrpcServer *s, int fd, Error *error);
/* Binds an own AF_UNIX socket: mode 0660, root:root, a stale one replaced, a live one -EADDRINUSE. */
int grpc_server_listen_unix(GrpcServer *s, const char *path, Error *error);

/* Stops accepting, sends GOAWAY; running calls go on. (fiber) grpc_server_drain_wait() returns when all have ended and
 * connections are closed, or -ETIMEDOUT; then the rest is cancelled. */
void grpc_server_drain(GrpcServer *s);
int grpc_server_drain_wait(GrpcServer *s, uint64_t timeout_usec);

/* Sends one message (the bytes are copied, or taken by _take, which frees with free()). Waits while more than
 * GRPC_QUEUE_MAX bytes of this call are unsent, so a slow client slows its own handler only. -ECANCELED once the
 * client is gone. */
#define GRPC_QUEUE_MAX (1024U * 1024U)
int grpc_call_send(GrpcCall *c, const void *data, size_t size);
/* buffer: from grpc_message_alloc(size), which leaves room for the prefix; taken in any case. */
void *grpc_message_alloc(size_t size);
void *grpc_message_realloc(void *message, size_t size);
void grpc_message_free(void *message);
int grpc_call_send_take(GrpcCall *c, void *message, size_t size);

const GrpcMethod *grpc_call_method(const GrpcCall *c);
/* Bytes queued and not yet handed to the socket. */
size_t grpc_call_queued(const GrpcCall *c);
/* Calls under way in the whole server, for tests and metrics. */
size_t grpc_server_live_calls(const GrpcServer *s);
