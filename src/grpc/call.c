/* Calls: from an HTTP/2 request to its handler's fiber and back.
 *
 * A call is held by its stream and by its fiber, and either may go first. The stream goes when the answer is
 * written, the peer resets it or the connection is lost; the latter two cancel the fiber. Messages wait in a queue
 * and are given to h2o one batch at a time. A unary answer waits for the handler's end, so that all of it leaves in
 * one write. */

#include <strings.h>
#include <utlist.h>

#include "basic/log.h"
#include "basic/string-util.h"
#include "grpc/server-internal.h"
#include "grpc/wire.h"

/* While more answer bytes than this wait on a connection, its new calls wait to begin. */
#define CONNECTION_QUEUE_MAX (32U * 1024U * 1024U)
/* What one h2o_send() gets. */
#define BATCH_MAX 32U

typedef struct Message Message;
struct Message {
        Message *next;
        uint8_t *data; /* prefix and message, from malloc() */
        size_t size;   /* of both */
};

struct GrpcCall {
        h2o_generator_t generator; /* first: h2o gives us its address */
        unsigned n_ref;
        GrpcServer *server;
        H2Connection *connection;
        h2o_req_t *req; /* NULL once the stream is gone */
        const GrpcMethod *method;
        GrpcCall *prev, *next;

        h2o_buffer_t *body;
        const void *request;
        size_t request_size, held;
        uint64_t deadline;
        Fiber *fiber; /* while the handler runs */

        Message *waiting, **waiting_tail; /* to be given to h2o */
        Message *given;                   /* h2o reads from them */
        size_t queued;
        FiberQueue room;

        bool started;   /* response headers are on their way */
        bool sent;      /* the handler sent a message */
        bool too_large; /* it tried to send one that is */
        bool finished;  /* code and text are set, no more messages */
        bool ended;     /* and the stream knows */
        bool cancelled; /* by us, not by the client */
        GrpcCode code;
        char *text; /* percent-encoded, may be NULL */
};

static void message_list_free(Message *m) {
        while (m) {
                Message *next = m->next;

                free(m->data);
                free(m);
                m = next;
        }
}

static size_t message_list_size(const Message *m) {
        size_t size = 0;

        for (; m; m = m->next)
                size += m->size;
        return size;
}

static GrpcCall *call_ref(GrpcCall *c) {
        c->n_ref++;
        return c;
}

static GrpcCall *call_unref(GrpcCall *c) {
        GrpcServer *s;

        if (!c || --c->n_ref > 0)
                return NULL;

        s = c->server;
        DL_DELETE(s->calls, c);
        s->n_calls--;
        server_progress(s);
        h2_connection_unref(c->connection);
        free(c->text);
        free(c);
        server_unref(s);
        return NULL;
}
DEFINE_TRIVIAL_CLEANUP_FUNC(GrpcCall *, call_unref);

GrpcCall *call_next(GrpcCall *c) {
        return c->next;
}

const GrpcMethod *grpc_call_method(const GrpcCall *c) {
        return c->method;
}

size_t grpc_call_queued(const GrpcCall *c) {
        return c->queued;
}

static void call_unqueue(GrpcCall *c, size_t size) {
        bool was_full = c->connection->queued > CONNECTION_QUEUE_MAX;

        c->queued -= size;
        c->connection->queued -= size;
        if (c->queued <= GRPC_QUEUE_MAX)
                fiber_queue_wake(&c->room, 0);
        if (was_full && c->connection->queued <= CONNECTION_QUEUE_MAX)
                fiber_queue_wake(&c->connection->room, 0);
}

/* h2o doesn't read from them any more. */
static void call_drop_given(GrpcCall *c) {
        Message *given = TAKE_PTR(c->given);

        call_unqueue(c, message_list_size(given));
        message_list_free(given);
}

static void call_drop_messages(GrpcCall *c) {
        Message *waiting = TAKE_PTR(c->waiting);

        c->waiting_tail = &c->waiting;
        call_unqueue(c, message_list_size(waiting));
        message_list_free(waiting);
        call_drop_given(c);
}

static void call_drop_request(GrpcCall *c) {
        c->connection->held -= c->held;
        c->held = 0;
        if (c->body)
                h2o_buffer_dispose(&c->body);
        c->body = NULL;
}

static void call_end(GrpcCall *c) {
        char code[12];
        H2Field fields[2] = {
                { .name = "grpc-status", .name_size = STRLEN("grpc-status"), .value = code },
                { .name = "grpc-message", .name_size = STRLEN("grpc-message"), .value = c->text },
        };
        size_t n_fields = c->text ? 2 : 1;

        fields[0].value_size = (size_t) snprintf(code, sizeof code, "%d", (int) c->code);
        fields[1].value_size = strlen(strempty(c->text));
        c->ended = true;

        if (c->started)
                h2_stream_end(c->req, fields, n_fields);
        else {
                /* Nothing was sent before: status and headers are one frame ("Trailers-Only"). */
                for (size_t i = 0; i < n_fields; i++)
                        h2o_add_header_by_str(&c->req->pool, &c->req->res.headers, fields[i].name, fields[i].name_size,
                                              /* maybe_token= */ 0, NULL, fields[i].value, fields[i].value_size);
                h2_stream_end_with_headers(c->req);
        }
        call_drop_messages(c);
}

/* Does what can be done now: gives messages to h2o, or ends the stream. */
static void call_pump(GrpcCall *c) {
        h2o_iovec_t batch[BATCH_MAX];
        size_t n = 0;
        Message *m;

        if (!c->req || c->ended || !h2_stream_is_open(c->req))
                return;

        if (c->given) {
                /* Framed already, only not written: trailers may follow at once. */
                if (!c->waiting && c->finished && h2_stream_is_framed(c->req))
                        call_end(c);
                return;
        }
        if (!c->waiting) {
                if (c->finished)
                        call_end(c);
                return;
        }

        while ((m = c->waiting) && n < BATCH_MAX) {
                batch[n++] = h2o_iovec_init(m->data, m->size);
                c->waiting = m->next;
                m->next = c->given;
                c->given = m;
        }
        if (!c->waiting)
                c->waiting_tail = &c->waiting;
        c->started = true;
        h2o_send(c->req, batch, n, H2O_SEND_STATE_IN_PROGRESS);

        /* The last ones: with what windows allow now, headers, messages and trailers leave in one write. */
        if (c->finished && !c->waiting && h2_stream_frame_now(c->req))
                call_end(c);
}

/* h2o wrote what it was given. */
static void on_proceed(h2o_generator_t *generator, h2o_req_t *req) {
        GrpcCall *c = (GrpcCall *) generator;

        call_drop_given(c);
        call_pump(c);
}

static void on_stream_closed(void *userdata) {
        GrpcCall *c = userdata;

        c->req = NULL;
        c->finished = true;
        call_drop_messages(c);
        fiber_queue_wake(&c->room, -ECANCELED);
        if (c->fiber)
                fiber_cancel(c->fiber);
        else
                call_drop_request(c);
        call_unref(c);
}

void call_cancel(GrpcCall *c) {
        c->cancelled = true;
        if (c->fiber)
                fiber_cancel(c->fiber);
}

/* Sets how the call ends, from what its handler returned. */
static void call_finish(GrpcCall *c, int r, Error *error) {
        _cleanup_free_ char *text = NULL;

        if (c->finished)
                return;

        if (r >= 0 && !c->method->streaming && !c->sent)
                r = error_setf(error, GRPC_INTERNAL, "The handler of %s sent no answer", c->method->path);
        if (r < 0) {
                if (c->too_large)
                        (void) error_setf(error, GRPC_RESOURCE_EXHAUSTED,
                                          "The answer is larger than the limit of %u bytes; ask for less",
                                          GRPC_MESSAGE_MAX);
                else if (r == -ETIME)
                        (void) error_setf(error, GRPC_DEADLINE_EXCEEDED, "The deadline of the call has passed");
                else if (r == -ECANCELED && c->cancelled) {
                        error_clear(error);
                        (void) error_setf(error, GRPC_UNAVAILABLE, "The server is shutting down; try again");
                } else if (!error_is_set(error))
                        (void) error_setf(error, grpc_code_from_errno(r), "%s", strerror(-r));

                c->code = error->code;
                text = utf8_sanitize(strempty(error->message));
                if (!isempty(text))
                        c->text = wire_encode_text(text); /* without memory for it: no text */
                /* An answer that hasn't left gives way to the error. */
                if (!c->method || !c->method->streaming)
                        call_drop_messages(c);
        }
        c->finished = true;
        call_pump(c);
}

static int call_run_handler(GrpcCall *c, Error *error) {
        int r;

        r = fiber_set_deadline(c->fiber, c->deadline);
        if (r < 0)
                return r;
        while (c->req && c->connection->queued > CONNECTION_QUEUE_MAX) {
                r = fiber_queue_wait(&c->connection->room);
                if (r < 0)
                        return r;
        }
        r = fiber_check();
        if (r < 0)
                return r;
        if (!c->req)
                return -ECANCELED;

        return c->method->handler(c, c->request, c->request_size, c->server->userdata, error);
}

static int call_run(void *userdata) {
        _cleanup_error_ Error error = ERROR_INIT;
        GrpcCall *c = userdata;
        int r;

        c->fiber = fiber_ref(fiber_current());
        c->server->n_running++;
        c->connection->n_running++;
        r = call_run_handler(c, &error);
        c->server->n_running--;
        c->connection->n_running--;
        c->fiber = fiber_unref(c->fiber);

        call_drop_request(c);
        call_finish(c, r, &error);
        return 0;
}

static void call_run_done(void *userdata) {
        call_unref(userdata);
}

static int call_parse_deadline(GrpcCall *c, Error *error) {
        const h2o_headers_t *headers = &c->req->headers;
        uint64_t usec;
        ssize_t at;

        c->deadline = USEC_INFINITY;
        at = h2o_find_header_by_str(headers, H2O_STRLIT("grpc-timeout"), -1);
        if (at < 0)
                return 0;
        if (wire_parse_timeout(headers->entries[at].value.base, headers->entries[at].value.len, &usec) < 0)
                return error_setf(error, GRPC_INTERNAL, "The grpc-timeout of the call is malformed");
        if (usec == 0)
                return error_setf(error, GRPC_DEADLINE_EXCEEDED, "The deadline of the call has passed");
        c->deadline = now_usec(CLOCK_MONOTONIC) + usec;
        return 0;
}

/* What can be said without a handler. */
static int call_check(GrpcCall *c, Error *error) {
        const h2o_req_t *req = c->req;
        const GrpcServer *s = c->server;
        int r;

        if (req->headers.size > H2_HEADER_FIELDS_MAX)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED, "The call has %zu header fields, the limit is %u",
                                  req->headers.size, H2_HEADER_FIELDS_MAX);
        c->method = server_find_method(s, req->input.path.base, req->input.path.len);
        if (!c->method)
                return error_setf(error, GRPC_UNIMPLEMENTED, "Unknown method %.*s",
                                  (int) MIN(req->input.path.len, (size_t) WIRE_TEXT_MAX), req->input.path.base);
        r = call_parse_deadline(c, error);
        if (r < 0)
                return r;
        if (s->cancelling)
                return error_setf(error, GRPC_UNAVAILABLE, "The server is shutting down; try again");
        /* Handlers of streams that their client has reset may still be undoing things. */
        if (s->n_running >= GRPC_CALLS_MAX || c->connection->n_running >= GRPC_STREAMS_MAX)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED, "Too many calls are under way; try again later");

        return wire_parse_request(c->body ? c->body->bytes : NULL, c->body ? c->body->size : 0, GRPC_MESSAGE_MAX,
                                  &c->request, &c->request_size, error);
}

static GrpcCall *call_new(GrpcServer *s, h2o_req_t *req) {
        GrpcCall *c;

        c = calloc(1, sizeof *c);
        if (!c)
                return NULL;
        c->generator.proceed = on_proceed;
        c->n_ref = 1;
        c->server = server_ref(s);
        c->connection = h2_connection_ref(h2_connection_of(req));
        c->req = req;
        c->waiting_tail = &c->waiting;
        DL_APPEND(s->calls, c);
        s->n_calls++;

        c->body = h2_stream_take_body(req);
        if (c->body) {
                c->held = c->body->size;
                c->connection->held += c->held;
        }
        return c;
}

/* Answers with an HTTP status alone: what asked doesn't speak gRPC. */
static void refuse(h2o_req_t *req, int status) {
        static h2o_generator_t nothing;

        h2_stream_start(req, NULL, NULL);
        req->res.status = status;
        h2o_start_response(req, &nothing);
        h2_stream_end_with_headers(req);
}

void call_start(GrpcServer *s, h2o_req_t *req) {
        static const char post[] = "POST";
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_(call_unrefp) GrpcCall *c = NULL;
        const h2o_iovec_t *type;
        ssize_t at;
        int r;

        if (!h2o_memis(req->method.base, req->method.len, post, STRLEN("POST"))) {
                refuse(req, 405);
                return;
        }
        at = h2o_find_header(&req->headers, H2O_TOKEN_CONTENT_TYPE, -1);
        type = at >= 0 ? &req->headers.entries[at].value : NULL;
        if (!type || !wire_is_grpc(type->base, type->len)) {
                refuse(req, 415);
                return;
        }
        c = call_new(s, req);
        if (!c) {
                refuse(req, 503);
                return;
        }

        server_connection_used(s, c->connection);
        h2_stream_start(req, on_stream_closed, call_ref(c));
        req->res.status = 200;
        h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL, H2O_STRLIT("application/grpc"));
        h2o_start_response(req, &c->generator);

        r = call_check(c, &error);
        if (r >= 0) {
                /* Runs until the handler's first wait; a short one is over when this returns. */
                r = fiber_spawn(s->event, c->method->path, call_run, call_ref(c), call_run_done, NULL);
                if (r >= 0)
                        return;
                call_unref(c);
                (void) error_setf(&error, GRPC_RESOURCE_EXHAUSTED, "Cannot run the call: %s", strerror(-r));
        }
        call_drop_request(c);
        call_finish(c, r, &error);
}

void *grpc_message_alloc(size_t size) {
        uint8_t *p;

        if (size > SIZE_MAX - WIRE_PREFIX)
                return NULL;
        p = malloc(WIRE_PREFIX + size);
        return p ? p + WIRE_PREFIX : NULL;
}

void *grpc_message_realloc(void *message, size_t size) {
        uint8_t *p;

        if (!message)
                return grpc_message_alloc(size);
        if (size > SIZE_MAX - WIRE_PREFIX)
                return NULL;
        p = realloc((uint8_t *) message - WIRE_PREFIX, WIRE_PREFIX + size);
        return p ? p + WIRE_PREFIX : NULL;
}

void grpc_message_free(void *message) {
        if (message)
                free((uint8_t *) message - WIRE_PREFIX);
}
DEFINE_TRIVIAL_CLEANUP_FUNC(void *, grpc_message_free);

/* Waits until the queue has room. */
static int call_wait_room(GrpcCall *c) {
        int r;

        while (c->req && !c->ended && c->queued > GRPC_QUEUE_MAX) {
                if (!fiber_current())
                        return -EAGAIN;
                r = fiber_queue_wait(&c->room);
                if (r < 0)
                        return r;
        }
        return c->req && !c->finished ? 0 : -ECANCELED;
}

int grpc_call_send_take(GrpcCall *c, void *message, size_t size) {
        _cleanup_(grpc_message_freep) void *owned = message;
        Message *m;
        int r;

        if (!c->req || c->finished)
                return -ECANCELED;
        if (size > GRPC_MESSAGE_MAX) {
                c->too_large = true;
                return -EMSGSIZE;
        }
        if (c->sent && !c->method->streaming)
                return -EINVAL;
        r = call_wait_room(c);
        if (r < 0)
                return r;

        m = malloc(sizeof *m);
        if (!m)
                return -ENOMEM;
        *m = (Message) { .data = (uint8_t *) TAKE_PTR(owned) - WIRE_PREFIX, .size = WIRE_PREFIX + size };
        wire_put_prefix(m->data, size);
        *c->waiting_tail = m;
        c->waiting_tail = &m->next;
        c->queued += m->size;
        c->connection->queued += m->size;
        c->sent = true;

        if (c->method->streaming)
                call_pump(c);
        return 0;
}

int grpc_call_send(GrpcCall *c, const void *data, size_t size) {
        void *message;

        if (size > GRPC_MESSAGE_MAX) {
                c->too_large = true;
                return -EMSGSIZE;
        }
        message = grpc_message_alloc(size);
        if (!message)
                return -ENOMEM;
        if (size > 0)
                memcpy(message, data, size);
        return grpc_call_send_take(c, message, size);
}
