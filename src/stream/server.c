/* Listens, hands out tokens, and takes HTTP/1.1 requests to the change of protocols. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "basic/log.h"
#include "basic/string-util.h"
#include "stream/http.h"
#include "stream/session.h"

#define BACKLOG 128
#define REFUSAL_LINGER_USEC (2 * USEC_PER_SEC)

typedef struct Token {
        char name[ID_LENGTH + 1];
        StreamRequest request;
        uint64_t expires_usec;
        UT_hash_handle hh; /* in the order of their making, which is that of their end */
} Token;

struct StreamServer {
        sd_event *event;
        int fd;
        sd_event_source *accept_source, *expiry_source;
        StreamTls *tls; /* NULL: plain */
        char *address;  /* as in a URL */
        uint16_t port;
        Token *tokens;
        StreamSession *sessions;
        size_t n_sessions;
        FiberQueue session_gone;
};

static const char *const kind_names[_STREAM_KIND_MAX] = { "exec", "attach", "portforward" };

/* --- tokens ------------------------------------------------------------------------------------------------------ */

static void request_done(StreamRequest *q) {
        if (q->ops && q->ops->free)
                q->ops->free(q->userdata);
        q->ops = NULL;
}

static void token_free(StreamServer *s, Token *t) {
        HASH_DEL(s->tokens, t);
        request_done(&t->request);
        free(t);
}

void stream_server_expire(StreamServer *s, uint64_t now) {
        while (s->tokens && s->tokens->expires_usec <= now)
                token_free(s, s->tokens);
        if (!s->tokens) {
                (void) sd_event_source_set_enabled(s->expiry_source, SD_EVENT_OFF);
                return;
        }
        (void) sd_event_source_set_time(s->expiry_source, s->tokens->expires_usec);
        (void) sd_event_source_set_enabled(s->expiry_source, SD_EVENT_ONESHOT);
}

static int on_expiry(sd_event_source *source, uint64_t usec, void *userdata) {
        stream_server_expire(userdata, now_usec(CLOCK_MONOTONIC));
        return 0;
}

int stream_server_prepare(StreamServer *s, const StreamRequest *request, char **ret_url, Error *error) {
        StreamRequest own = *request;
        _cleanup_(freep) Token *t = NULL;
        char *url = NULL;
        int r;

        stream_server_expire(s, now_usec(CLOCK_MONOTONIC));
        if (HASH_COUNT(s->tokens) >= STREAM_TOKENS_MAX) {
                request_done(&own);
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED,
                                  "%u streaming requests wait for their clients already; try again in a minute",
                                  STREAM_TOKENS_MAX);
        }
        t = calloc(1, sizeof *t);
        r = t ? random_id(t->name) : -ENOMEM;
        if (r >= 0) {
                url = strprintf("%s://%s:%u/%s/%s", s->tls ? "https" : "http", s->address, s->port, kind_names[own.kind], t->name);
                r = url ? 0 : -ENOMEM;
        }
        if (r < 0) {
                request_done(&own);
                return error_set(error, r, "cannot prepare a stream");
        }
        t->request = own;
        t->expires_usec = now_usec(CLOCK_MONOTONIC) + STREAM_TOKEN_USEC;
        HASH_ADD_STR(s->tokens, name, t);
        TAKE_PTR(t);
        stream_server_expire(s, now_usec(CLOCK_MONOTONIC));
        *ret_url = url;
        return 0;
}

/* "/exec/TOKEN": takes the request away, so that it is used once. */
static int take_token(StreamServer *s, const char *target, StreamRequest *ret) {
        const char *name = strrchr(target, '/'), *kind;
        Token *t;

        stream_server_expire(s, now_usec(CLOCK_MONOTONIC));
        if (!name || strlen(name + 1) != ID_LENGTH)
                return -ENOENT;
        HASH_FIND_STR(s->tokens, name + 1, t);
        if (!t)
                return -ENOENT;
        kind = kind_names[t->request.kind];
        if ((size_t) (name - target) != strlen(kind) + 1 || memcmp(target + 1, kind, strlen(kind)) != 0)
                return -ENOENT;
        *ret = t->request;
        t->request.ops = NULL;
        token_free(s, t);
        return 0;
}

/* --- HTTP -------------------------------------------------------------------------------------------------------- */

typedef struct Refusal {
        unsigned status;
        const char *reason, *text;
} Refusal;

/* In the server's order of no importance: the client's decides. */
static const Protocol protocols[] = {
        { "v4.channel.k8s.io", TRANSPORT_SPDY, .version = 4 },
        { "v3.channel.k8s.io", TRANSPORT_SPDY, .version = 3 },
        { "v2.channel.k8s.io", TRANSPORT_SPDY, .version = 2 },
        { "channel.k8s.io", TRANSPORT_SPDY, .version = 1 },
        { "portforward.k8s.io", TRANSPORT_SPDY, .port_forward = true },
        { "v5.channel.k8s.io", TRANSPORT_WEBSOCKET, .version = 5 },
        { "v4.channel.k8s.io", TRANSPORT_WEBSOCKET, .version = 4 },
        { "v4.base64.channel.k8s.io", TRANSPORT_WEBSOCKET, .version = 4, .base64 = true },
        { "channel.k8s.io", TRANSPORT_WEBSOCKET, .version = 1 },
        { "base64.channel.k8s.io", TRANSPORT_WEBSOCKET, .version = 1, .base64 = true },
        { "SPDY/3.1+portforward.k8s.io", TRANSPORT_TUNNEL, .port_forward = true },
};

static const Protocol *find_protocol(const char *name, size_t n, bool spdy, bool port_forward) {
        for (size_t i = 0; i < ELEMENTSOF(protocols); i++) {
                const Protocol *p = &protocols[i];

                if ((p->transport == TRANSPORT_SPDY) == spdy && p->port_forward == port_forward &&
                    strlen(p->name) == n && memcmp(p->name, name, n) == 0)
                        return p;
        }
        return NULL;
}

/* The first one of the client's that we speak; *ret_given: it named some. */
static const Protocol *negotiate(const HttpRequest *q, const char *field, bool spdy, bool port_forward,
                                 bool *ret_given) {
        const char *value;

        *ret_given = false;
        for (size_t i = 0; (value = http_field(q, field, i)); i++)
                while (*value) {
                        const Protocol *p;
                        size_t n;

                        value += strspn(value, ", \t");
                        n = strcspn(value, ", \t");
                        if (n > 0)
                                *ret_given = true;
                        p = find_protocol(value, n, spdy, port_forward);
                        if (p)
                                return p;
                        value += n;
                }
        return NULL;
}

static int upgrade_spdy(StreamSession *s, const HttpRequest *q, Refusal *refusal) {
        static const char field[] = "X-Stream-Protocol-Version";
        bool port_forward = s->request.kind == STREAM_PORT_FORWARD, given;
        char head[256];
        int n;

        s->protocol = negotiate(q, field, /* spdy= */ true, port_forward, &given);
        /* Clients of the first version don't name it. */
        if (!given)
                s->protocol = port_forward ? find_protocol("portforward.k8s.io", 18, true, true)
                                           : find_protocol("channel.k8s.io", 14, true, false);
        if (!s->protocol) {
                *refusal = (Refusal) { 403, "Forbidden",
                                       "none of the protocols in X-Stream-Protocol-Version is known here" };
                return -EPROTONOSUPPORT;
        }
        n = snprintf(head, sizeof head,
                     "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n%s%s%s\r\n",
                     given ? "X-Stream-Protocol-Version: " : "", given ? s->protocol->name : "", given ? "\r\n" : "");
        return connection_put(&s->connection, &(const struct iovec) { head, (size_t) n }, 1);
}

static int upgrade_websocket(StreamSession *s, const HttpRequest *q, Refusal *refusal) {
        const char *key = http_field(q, "Sec-WebSocket-Key", 0);
        bool port_forward = s->request.kind == STREAM_PORT_FORWARD, given;
        char accept[WEBSOCKET_ACCEPT_SIZE + 1], head[384];
        int n;

        if (!streq_ptr(http_field(q, "Sec-WebSocket-Version", 0), "13")) {
                *refusal = (Refusal) { 426, "Upgrade Required", "only version 13 of WebSocket is spoken here" };
                return -EPROTONOSUPPORT;
        }
        if (!key || websocket_accept(key, accept) < 0 || !streq(q->method, "GET")) {
                *refusal = (Refusal) { 400, "Bad Request", "no WebSocket handshake" };
                return -EBADMSG;
        }
        s->protocol = negotiate(q, "Sec-WebSocket-Protocol", /* spdy= */ false, port_forward, &given);
        if (!given && !port_forward)
                s->protocol = find_protocol("channel.k8s.io", 14, /* spdy= */ false, false);
        if (!s->protocol) {
                *refusal = (Refusal) { 403, "Forbidden",
                                       "none of the protocols in Sec-WebSocket-Protocol is known here" };
                return -EPROTONOSUPPORT;
        }
        n = snprintf(head, sizeof head,
                     "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     "Sec-WebSocket-Accept: %s\r\n%s%s%s\r\n",
                     accept, given ? "Sec-WebSocket-Protocol: " : "", given ? s->protocol->name : "",
                     given ? "\r\n" : "");
        return connection_put(&s->connection, &(const struct iovec) { head, (size_t) n }, 1);
}

static int upgrade(StreamSession *s, const HttpRequest *q, Refusal *refusal) {
        int r;

        if (!s->server) {
                *refusal = (Refusal) { 503, "Service Unavailable", "the server ends" };
                return -ESHUTDOWN;
        }
        r = take_token(s->server, q->target, &s->request);
        if (r < 0) {
                *refusal = (Refusal) { 404, "Not Found", "no such stream: a URL is good for one use within a minute" };
                return r;
        }
        if (http_field_has(q, "Connection", "upgrade") && http_field_has(q, "Upgrade", "SPDY/3.1"))
                return upgrade_spdy(s, q, refusal);
        if (http_field_has(q, "Connection", "upgrade") && http_field_has(q, "Upgrade", "websocket"))
                return upgrade_websocket(s, q, refusal);
        *refusal = (Refusal) { 400, "Bad Request", "upgrade to SPDY/3.1 or WebSocket: nothing else is spoken here" };
        return -EBADMSG;
}

static void refuse(StreamSession *s, const Refusal *refusal) {
        char text[512];
        int n;

        if (refusal->status == 0)
                return;
        n = snprintf(text, sizeof text,
                     "HTTP/1.1 %u %s\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
                     "%sContent-Length: %zu\r\nConnection: close\r\n\r\n%s\n",
                     refusal->status, refusal->reason,
                     refusal->status == 426 ? "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" : "",
                     strlen(refusal->text) + 1, refusal->text);
        (void) connection_put(&s->connection, &(const struct iovec) { text, (size_t) n }, 1);
        connection_linger(&s->connection, now_usec(CLOCK_MONOTONIC) + REFUSAL_LINGER_USEC);
}

/* Reads until the head is complete. */
static int read_head(StreamSession *s, Buffer *b, size_t *ret_head, Refusal *refusal) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + STREAM_HEAD_USEC;
        char piece[2048];
        ssize_t n;
        int r;

        while ((*ret_head = b->size > 0 ? http_head_size(b->data, b->size) : 0) == 0) {
                if (b->size >= HTTP_HEAD_MAX) {
                        *refusal = (Refusal) { 431, "Request Header Fields Too Large",
                                               "the request's head is too large" };
                        return -EMSGSIZE;
                }
                n = connection_read(&s->connection, piece, sizeof piece, until);
                if (n <= 0)
                        return n < 0 ? (int) n : -ECONNRESET;
                r = buffer_append(b, piece, (size_t) n);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int serve(StreamSession *s) {
        _cleanup_(buffer_done) Buffer head = BUFFER_INIT;
        _cleanup_free_ HttpRequest *q = NULL;
        Refusal refusal = {};
        size_t n;
        int r;

        r = read_head(s, &head, &n, &refusal);
        if (r >= 0) {
                q = malloc(sizeof *q);
                r = q ? http_parse(head.data, n, q) : -ENOMEM;
                if (r >= 0)
                        r = upgrade(s, q, &refusal);
                else if (r != -ENOMEM)
                        refusal = (Refusal) { 400, "Bad Request", "no request of HTTP/1.1" };
        }
        if (r < 0) {
                refuse(s, &refusal);
                return r;
        }
        q = mfree(q);
        return session_run(s, head.data + n, head.size - n);
}

/* --- sessions ---------------------------------------------------------------------------------------------------- */

static int run_connection(void *userdata) {
        StreamSession *s = userdata;

        s->fiber = fiber_current();
        return serve(s);
}

static void session_free(void *userdata) {
        StreamSession *s = userdata;

        session_clear(s);
        connection_done(&s->connection);
        request_done(&s->request);
        if (s->server) {
                if (s->next)
                        s->next->previous = s->previous;
                if (s->previous)
                        s->previous->next = s->next;
                else
                        s->server->sessions = s->next;
                s->server->n_sessions--;
                fiber_queue_wake(&s->server->session_gone, 0);
        }
        free(s);
}

static void add_session(StreamServer *server, int fd) {
        StreamSession *s = calloc(1, sizeof *s);
        int one = 1;

        if (!s) {
                (void) safe_close(fd);
                return;
        }
        (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        (void) setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
        s->pipes = STREAM_PIPES_NONE;
        s->event = server->event;
        if (connection_init(&s->connection, server->event, fd, server->tls) < 0) {
                free(s);
                return;
        }
        s->server = server;
        s->next = server->sessions;
        if (s->next)
                s->next->previous = s;
        server->sessions = s;
        server->n_sessions++;
        if (fiber_spawn(server->event, "stream", run_connection, s, session_free, NULL) < 0)
                session_free(s);
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        StreamServer *s = userdata;
        int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (client < 0)
                return 0;
        if (s->n_sessions >= STREAM_CONNECTIONS_MAX) {
                log_debug("%u streaming clients are connected already, closing one more", STREAM_CONNECTIONS_MAX);
                (void) safe_close(client);
                return 0;
        }
        add_session(s, client);
        fiber_run_ready();
        return 0;
}

/* --- server ------------------------------------------------------------------------------------------------------ */

static int make_address(const char *text, uint16_t port, struct sockaddr_storage *ret, socklen_t *ret_size,
                        Error *error) {
        struct sockaddr_in *in = (void *) ret;
        struct sockaddr_in6 *in6 = (void *) ret;

        *ret = (struct sockaddr_storage) {};
        if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
                in->sin_family = AF_INET;
                in->sin_port = htons(port);
                *ret_size = sizeof *in;
                return 0;
        }
        if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) {
                in6->sin6_family = AF_INET6;
                in6->sin6_port = htons(port);
                *ret_size = sizeof *in6;
                return 0;
        }
        return error_setf(error, GRPC_INVALID_ARGUMENT, "'%s' is no IP address to listen at", text);
}

static int server_listen(StreamServer *s, const char *text, uint16_t port, Error *error) {
        struct sockaddr_storage address;
        int one = 1, r;
        socklen_t size;

        r = make_address(text, port, &address, &size, error);
        if (r < 0)
                return r;
        s->fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (s->fd < 0 || setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
            bind(s->fd, (struct sockaddr *) &address, size) < 0 || listen(s->fd, BACKLOG) < 0)
                return error_set(error, -errno, "cannot listen for streams at %s port %u", text, port);
        if (getsockname(s->fd, (struct sockaddr *) &address, &size) < 0)
                return error_set(error, -errno, "cannot tell the port for streams");
        s->port = ntohs(address.ss_family == AF_INET ? ((struct sockaddr_in *) &address)->sin_port
                                                     : ((struct sockaddr_in6 *) &address)->sin6_port);
        s->address = address.ss_family == AF_INET ? strdup(text) : strprintf("[%s]", text);
        return s->address ? 0 : error_oom(error);
}

int stream_server_new(sd_event *event, const char *address, uint16_t port, const StreamTlsConfig *tls,
                      StreamServer **ret, Error *error) {
        _cleanup_(stream_server_freep) StreamServer *s = calloc(1, sizeof *s);
        struct sigaction action;
        int r;

        if (!s)
                return error_oom(error);
        s->fd = -1;
        s->event = sd_event_ref(event);
        if (sigaction(SIGPIPE, NULL, &action) >= 0 && action.sa_handler == SIG_DFL)
                (void) signal(SIGPIPE, SIG_IGN);
        if (tls) {
                r = stream_tls_new(tls, &s->tls, error);
                if (r < 0)
                        return r;
        }
        r = server_listen(s, isempty(address) ? "127.0.0.1" : address, port, error);
        if (r < 0)
                return r;
        r = sd_event_add_io(event, &s->accept_source, s->fd, EPOLLIN, on_accept, s);
        if (r >= 0)
                r = sd_event_add_time(event, &s->expiry_source, CLOCK_MONOTONIC, 0, USEC_PER_SEC, on_expiry, s);
        if (r >= 0)
                r = sd_event_source_set_enabled(s->expiry_source, SD_EVENT_OFF);
        if (r < 0)
                return error_set(error, r, "cannot watch the socket for streams");
        (void) sd_event_source_set_description(s->accept_source, "stream-accept");
        (void) sd_event_source_set_description(s->expiry_source, "stream-expiry");
        *ret = TAKE_PTR(s);
        return 0;
}

static void stop(StreamServer *s) {
        s->accept_source = sd_event_source_disable_unref(s->accept_source);
        s->fd = safe_close(s->fd);
        for (StreamSession *session = s->sessions; session; session = session->next)
                fiber_cancel(session->fiber);
}

int stream_server_stop(StreamServer *s, uint64_t timeout_usec) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + timeout_usec;
        int r;

        stop(s);
        while (s->sessions) {
                r = fiber_queue_wait_until(&s->session_gone, until);
                if (r < 0)
                        return r;
        }
        return 0;
}

StreamServer *stream_server_free(StreamServer *s) {
        Token *t, *next;

        if (!s)
                return NULL;
        stop(s);
        for (StreamSession *session = s->sessions; session; session = session->next)
                session->server = NULL;
        HASH_ITER(hh, s->tokens, t, next)
                token_free(s, t);
        s->expiry_source = sd_event_source_disable_unref(s->expiry_source);
        sd_event_unref(s->event);
        stream_tls_free(s->tls);
        free(s->address);
        return mfree(s);
}

size_t stream_server_sessions(const StreamServer *s) {
        return s->n_sessions;
}

size_t stream_server_tokens(const StreamServer *s) {
        return HASH_COUNT(s->tokens);
}
