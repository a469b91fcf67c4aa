#pragma once
/* A gRPC server (unary and server streaming) on libh2o, in the sd-event loop. Speaks bytes; basic/message.h turns them
 * into nanopb structs. Wire format: gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md).
 *
 * Each call runs its handler in a fiber: the client's cancellation, a torn connection and the deadline from
 * grpc-timeout end that fiber's waits. */

#include <systemd/sd-event.h>

#include "basic/error.h"
#include "basic/macro.h"

#define GRPC_MESSAGE_MAX (16U * 1024U * 1024U)
#define GRPC_STREAMS_MAX 1000U
/* Beyond so many connections, that which has been idle the longest is told to go (its client connects again when it has
 * a call to make); more than the maximum are closed at once. More calls than this in the whole server answer
 * ResourceExhausted. */
#define GRPC_CONNECTIONS_KEPT 256U
#define GRPC_CONNECTIONS_MAX 1024U
#define GRPC_CALLS_MAX 4096U

typedef struct GrpcServer GrpcServer;
typedef struct GrpcCall GrpcCall;

/* Serves one call, in a fiber that has the call's deadline. request stays valid until it returns. A unary handler
 * calls grpc_call_send() once and returns 0; a streaming one as often as it has something. The return value ends
 * the call: 0 is OK, a negative errno an error, with the code and text of *error (an unset one gets them from the
 * errno). A unary answer leaves when the handler has returned, so an error after it takes its place. */
typedef int (*GrpcHandler)(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error);

typedef struct GrpcMethod {
        const char *path; /* "/runtime.v1.RuntimeService/Version" */
        GrpcHandler handler;
        void *data; /* for the handler: grpc_call_method(call)->data */
        bool streaming; /* any number of messages may be sent, each leaves at once; otherwise exactly one */
} GrpcMethod;

/* methods ends with a NULL path and must outlive the server and its handlers; other paths answer Unimplemented.
 * SIGPIPE is ignored from here on, unless it has a handler. */
int grpc_server_new(sd_event *event, const GrpcMethod *methods, void *userdata, GrpcServer **ret);
/* Cuts all connections and cancels the calls (drain first to be polite). Handlers that still undo things go on in
 * their fibers. Not from a handler. */
GrpcServer *grpc_server_free(GrpcServer *s);
DEFINE_TRIVIAL_CLEANUP_FUNC(GrpcServer *, grpc_server_free);
/* Accepts on a listening stream socket (AF_UNIX); takes the descriptor in any case. */
int grpc_server_listen(GrpcServer *s, int fd, Error *error);
/* Binds an own AF_UNIX socket: mode 0660, root:root, a stale one replaced, a live one -EADDRINUSE. Its file goes
 * away when the server stops accepting. */
int grpc_server_listen_unix(GrpcServer *s, const char *path, Error *error);

/* Stops accepting, sends GOAWAY; running calls go on. (fiber) grpc_server_drain_wait() returns 0 when all have
 * ended and connections are closed. After timeout_usec (relative) the rest is cancelled: those clients read
 * Unavailable, and get GRPC_DRAIN_CANCEL_USEC to do so; then -ETIMEDOUT. */
#define GRPC_DRAIN_CANCEL_USEC (1 * USEC_PER_SEC)
void grpc_server_drain(GrpcServer *s);
int grpc_server_drain_wait(GrpcServer *s, uint64_t timeout_usec);

/* Sends one message (the bytes are copied, or taken by _take, which frees with free()). Waits while more than
 * GRPC_QUEUE_MAX bytes of this call are unsent, so a slow client slows its own handler only. -ECANCELED once the
 * client is gone, -EMSGSIZE above GRPC_MESSAGE_MAX, -EINVAL for a second message of a unary call, -EAGAIN instead of
 * waiting when not called in a fiber. */
#define GRPC_QUEUE_MAX (1024U * 1024U)
int grpc_call_send(GrpcCall *c, const void *data, size_t size);
/* message: from grpc_message_alloc(size), which leaves GRPC_MESSAGE_HEADROOM bytes for the prefix before it (or any
 * malloc()ed memory with that much before the message); taken in any case. */
#define GRPC_MESSAGE_HEADROOM 5U
void *grpc_message_alloc(size_t size);
/* As realloc(): on NULL the old one is still there. */
void *grpc_message_realloc(void *message, size_t size);
void grpc_message_free(void *message);
int grpc_call_send_take(GrpcCall *c, void *message, size_t size);

const GrpcMethod *grpc_call_method(const GrpcCall *c);
/* Bytes queued and not yet handed to the socket. */
size_t grpc_call_queued(const GrpcCall *c);
/* Calls under way in the whole server, for tests and metrics. */
size_t grpc_server_live_calls(const GrpcServer *s);
