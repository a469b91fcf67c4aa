/* Trailers, and a watch over the peer, on top of h2o 2.2's HTTP/2 server. The one file that knows h2o's private
 * structs.
 *
 * Trailers: h2o sends HEADERS and DATA, with flow control and priorities, but is never told that a response is final,
 * so no frame of its carries END_STREAM. Once all data are framed, we append the closing HEADERS frame to the
 * connection's output and put the stream into the state that h2o itself uses for "all said": it is closed when the
 * output is written.
 *
 * Watch: h2o calls a function pointer of the connection for each frame. We put our own there, which sees the frame
 * first and calls h2o's. That is where the stream limit is raised from 100, header blocks and bodies are bounded,
 * and GOAWAY is done in a way that loses no answer (h2o's own may close a connection with bytes still in its
 * buffer). */

#include "grpc/h2-connection.h"

#include <h2o/http2.h>
#include <h2o/http2_internal.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "basic/log.h"

#if !H2O_USE_LIBUV
#error "h2o's structs differ without -DH2O_USE_LIBUV=1, which its .pc file leaves out"
#endif

/* A send window no WINDOW_UPDATE or SETTINGS of the peer can lift above zero. Streams that were ended get it: h2o
 * asserts that such a stream isn't waiting for the write to complete at the moment its window opens. */
#define WINDOW_SHUT (-((ssize_t) 1 << 62))
/* h2o's own limit of streams, which is a constant of its. */
#define H2O_STREAMS_MAX 100U
/* What h2_stream_frame_now() frames at most, so that a large answer doesn't pass by others that wait. */
#define FRAME_NOW_MAX (64U * 1024U)

static const uint8_t drain_ping[8] = "goodbye";

typedef struct Frame {
        uint32_t length, stream_id;
        uint8_t type, flags;
} Frame;

static h2o_http2_stream_t *stream_of(h2o_req_t *req) {
        return H2O_STRUCT_FROM_MEMBER(h2o_http2_stream_t, req, req);
}

static h2o_http2_conn_t *connection_of(h2o_req_t *req) {
        return (h2o_http2_conn_t *) req->conn;
}

H2Connection *h2_connection_of(h2o_req_t *req) {
        return connection_of(req)->sock->on_close.data;
}

/* Streams are in a hash table whose layout we don't have, so this walks over all requests. Used only where a peer did
 * something that is worth a look. */
typedef struct Walk {
        const h2o_http2_conn_t *conn;
        uint32_t stream_id;
        h2o_http2_stream_t *found;
        size_t body_bytes;
} Walk;

static int walk_one(h2o_req_t *req, void *userdata) {
        Walk *w = userdata;
        h2o_http2_stream_t *stream = stream_of(req);

        if (connection_of(req) != w->conn)
                return 0;
        if (stream->_req_body)
                w->body_bytes += stream->_req_body->size;
        if (stream->stream_id == w->stream_id)
                w->found = stream;
        return 0;
}

static Walk walk_streams(h2o_http2_conn_t *conn, uint32_t stream_id) {
        Walk w = { .conn = conn, .stream_id = stream_id };

        (void) conn->super.ctx->globalconf->http2.callbacks.foreach_request(conn->super.ctx, walk_one, &w);
        return w;
}

/* h2o's handler for this frame. It leaves its next one where ours was. */
static ssize_t pass(H2Connection *c, const uint8_t *src, size_t size, const char **err_desc) {
        return c->next(c->h2o, src, size, err_desc);
}

static void reset_stream(h2o_http2_conn_t *conn, h2o_http2_stream_t *stream, int error) {
        h2o_http2__encode_rst_stream_frame(&conn->_write.buf, stream->stream_id, -error);
        h2o_http2_stream_reset(conn, stream);
        h2o_http2_conn_request_write(conn);
}

/* The connection's first frame is on its way out, with h2o's limit of streams in it: put ours there. */
static void raise_stream_limit(h2o_http2_conn_t *conn) {
        static const uint8_t settings[] = {
                0, 0, 12, H2O_HTTP2_FRAME_TYPE_SETTINGS, 0, 0, 0, 0, 0, /* frame header */
                0, H2O_HTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0, 0, 0, H2O_STREAMS_MAX,
        };
        const size_t size = 9 + 12;
        h2o_buffer_t *buf = conn->_write.buf;
        uint8_t *at;

        if (buf->size < size)
                return;
        at = (uint8_t *) buf->bytes + buf->size - size;
        if (memcmp(at, settings, sizeof settings) == 0)
                (void) h2o_http2_encode32u(at + 11, H2_STREAMS_MAX);
}

/* HEADERS and CONTINUATION. Without END_HEADERS h2o only stores the block. */
static ssize_t pass_header_block(H2Connection *c, const Frame *f, const uint8_t *src, size_t size,
                                 const char **err_desc) {
        h2o_http2_conn_t *conn = c->h2o;
        uint32_t send_body = conn->num_streams.pull.send_body, shift;
        uint64_t n_requests = c->n_requests;
        h2o_http2_stream_t *stream;
        size_t block;
        ssize_t r;

        /* Frame headers count too, or endless empty CONTINUATIONs would be free. */
        if (f->type == H2O_HTTP2_FRAME_TYPE_HEADERS)
                c->header_bytes = 0;
        c->header_bytes += H2O_HTTP2_FRAME_HEADER_SIZE + f->length;
        if (c->header_bytes > H2_HEADER_BLOCK_MAX) {
                *err_desc = "header block is too large";
                return H2O_HTTP2_ERROR_ENHANCE_YOUR_CALM;
        }
        if (!(f->flags & H2O_HTTP2_FRAME_FLAG_END_HEADERS))
                return pass(c, src, size, err_desc);
        block = c->header_bytes;

        /* h2o refuses a stream when it is more than the 100th: let it see fewer of them than there are, or, after
         * the final GOAWAY, too many. (Refusing is up to h2o since it has to decode the block, for the decoder's
         * state.) */
        shift = c->goaway == H2_GOAWAY_FINAL
                                ? UINT32_C(1) << 20
                                : -MIN(conn->num_streams.pull.open, H2_STREAMS_MAX - H2O_STREAMS_MAX);
        conn->num_streams.pull.open += shift;
        r = pass(c, src, size, err_desc);
        conn->num_streams.pull.open -= shift;
        if (r < 0)
                return r;

        /* h2o answered itself, 400 for a bad character in a field, with a stream in a state whose window an assertion
         * watches over. End it here. */
        if (conn->num_streams.pull.send_body > send_body && c->n_requests == n_requests) {
                stream = walk_streams(conn, f->stream_id).found;
                if (stream)
                        reset_stream(conn, stream, H2O_HTTP2_ERROR_PROTOCOL);
                return r;
        }

        /* One byte may stand for a field that takes 70 bytes here, and a cache-digest for 50 times its size. Small
         * blocks, which is what clients send all day, cannot hold much of it. (Requests complete by now are looked at
         * in the handler.) */
        if (block > H2_HEADER_FIELDS_MAX + 28) {
                stream = walk_streams(conn, f->stream_id).found;
                if (stream && stream->state == H2O_HTTP2_STREAM_STATE_RECV_BODY &&
                    (stream->req.headers.size > H2_HEADER_FIELDS_MAX || stream->cache_digests))
                        reset_stream(conn, stream, H2O_HTTP2_ERROR_ENHANCE_YOUR_CALM);
        }
        return r;
}

/* h2o would refuse a body that is too large with RST_STREAM, which clients take for "try again". Let the request be
 * complete as it is instead: the handler sees a message prefix that is larger than allowed, or than what follows. */
static ssize_t cut_body(H2Connection *c, const Frame *f, const char **err_desc) {
        uint8_t end[H2O_HTTP2_FRAME_HEADER_SIZE];
        ssize_t r;

        (void) h2o_http2_encode_frame_header(end, 0, H2O_HTTP2_FRAME_TYPE_DATA, H2O_HTTP2_FRAME_FLAG_END_STREAM,
                                             (int32_t) f->stream_id);
        h2o_http2_window_consume_window(&c->h2o->_input_window, f->length);
        r = pass(c, end, sizeof end, err_desc);
        return r < 0 ? r : (ssize_t) (H2O_HTTP2_FRAME_HEADER_SIZE + f->length);
}

static ssize_t pass_data(H2Connection *c, const Frame *f, const uint8_t *src, size_t size, const char **err_desc) {
        h2o_globalconf_t *conf = c->h2o->super.ctx->globalconf;
        size_t max = conf->max_request_entity_size;
        ssize_t r;
        Walk w;

        c->body_bytes += f->length;
        if (c->body_bytes <= H2_BODY_MAX)
                return pass(c, src, size, err_desc);

        w = walk_streams(c->h2o, f->stream_id);
        c->body_bytes = w.body_bytes + c->held + f->length;
        if (w.found && w.found->state == H2O_HTTP2_STREAM_STATE_RECV_BODY && w.found->_req_body &&
            w.found->_req_body->size + f->length > H2_BODY_MAX)
                return cut_body(c, f, err_desc);
        if (c->body_bytes <= H2_BODIES_MAX)
                return pass(c, src, size, err_desc);

        /* All requests together are too much: refuse this one's stream. */
        conf->max_request_entity_size = 0;
        r = pass(c, src, size, err_desc);
        conf->max_request_entity_size = max;
        return r;
}

static ssize_t pass_frame(H2Connection *c, const uint8_t *src, size_t size, const char **err_desc) {
        Frame f;
        ssize_t r;

        if (!c->usual) {
                r = pass(c, src, size, err_desc);
                if (r > 0) {
                        raise_stream_limit(c->h2o);
                        c->usual = c->h2o->_read_expect;
                }
                return r;
        }

        /* Incomplete and oversized frames are up to h2o. */
        if (size < H2O_HTTP2_FRAME_HEADER_SIZE)
                return H2O_HTTP2_ERROR_INCOMPLETE;
        f = (Frame) { .length = h2o_http2_decode24u(src),
                      .type = src[3],
                      .flags = src[4],
                      .stream_id = h2o_http2_decode32u(src + 5) & 0x7fffffff };
        if (f.length > H2O_HTTP2_SETTINGS_HOST.max_frame_size || size - H2O_HTTP2_FRAME_HEADER_SIZE < f.length)
                return pass(c, src, size, err_desc);

        switch (f.type) {
        case H2O_HTTP2_FRAME_TYPE_DATA:
                return pass_data(c, &f, src, size, err_desc);
        case H2O_HTTP2_FRAME_TYPE_HEADERS:
        case H2O_HTTP2_FRAME_TYPE_CONTINUATION:
                return pass_header_block(c, &f, src, size, err_desc);
        case H2O_HTTP2_FRAME_TYPE_PING:
                r = pass(c, src, size, err_desc);
                if (r > 0 && c->goaway == H2_GOAWAY_ANNOUNCED && f.flags & H2O_HTTP2_FRAME_FLAG_ACK &&
                    memcmp(src + H2O_HTTP2_FRAME_HEADER_SIZE, drain_ping, sizeof drain_ping) == 0)
                        h2_connection_goaway(c, H2_GOAWAY_FINAL);
                return r;
        case H2O_HTTP2_FRAME_TYPE_PRIORITY:
        case H2O_HTTP2_FRAME_TYPE_RST_STREAM:
        case H2O_HTTP2_FRAME_TYPE_SETTINGS:
        case H2O_HTTP2_FRAME_TYPE_PUSH_PROMISE:
        case H2O_HTTP2_FRAME_TYPE_GOAWAY:
        case H2O_HTTP2_FRAME_TYPE_WINDOW_UPDATE:
                return pass(c, src, size, err_desc);
        default:
                /* To be ignored, says RFC 9113 5.5; h2o does that with a line on standard error for each. Amid a
                 * header block it is an error, which h2o finds. */
                if (c->next != c->usual)
                        return pass(c, src, size, err_desc);
                return (ssize_t) (H2O_HTTP2_FRAME_HEADER_SIZE + f.length);
        }
}

/* h2o lets a write that is under way end before it closes a connection whose peer has closed, which a peer that closed
 * one direction only and doesn't read would delay for ever. Let it fail. */
static void on_read(h2o_socket_t *sock, const char *error) {
        H2Connection *c = sock->on_close.data;

        if (error)
                h2_connection_cut(c);
        c->read(sock, error);
}

/* Again whenever h2o may have started to read anew. */
static void watch_reader(H2Connection *c) {
        h2o_socket_t *sock = c->h2o->sock;

        if (sock->_cb.read && sock->_cb.read != on_read) {
                c->read = sock->_cb.read;
                sock->_cb.read = on_read;
        }
}

static ssize_t on_frame(h2o_http2_conn_t *conn, const uint8_t *src, size_t size, const char **err_desc) {
        H2Connection *c = conn->sock->on_close.data;
        ssize_t r;

        conn->_read_expect = c->next;
        r = pass_frame(c, src, size, err_desc);
        c->next = conn->_read_expect;
        conn->_read_expect = on_frame;

        /* A peer that asks and asks and reads nothing: answered streams stay until their answer is written. h2o
         * starts to read again when it is. */
        if (c->n_streams > H2_STREAMS_KEPT_MAX && conn->_write.buf_in_flight && h2o_socket_is_reading(conn->sock))
                h2o_socket_read_stop(conn->sock);
        watch_reader(c);
        return r;
}

static void on_socket_close(void *userdata) {
        H2Connection *c = userdata;

        c->h2o = NULL;
        c->fd = -1;
        c->closed(c, c->userdata);
        h2_connection_unref(c);
}

/* The library is another than the one this was built against, perhaps? */
static bool layout_matches(const h2o_http2_conn_t *conn, const h2o_context_t *ctx, const h2o_socket_t *sock) {
        return conn->super.ctx == ctx && conn->sock == sock && conn->_output_header_table.hpack_capacity == 4096 &&
               conn->_write.window._avail == 65535 && conn->peer_settings.max_frame_size == 16384 &&
               conn->state == H2O_HTTP2_CONN_STATE_OPEN && !conn->_write.buf_in_flight && conn->_read_expect;
}

int h2_connection_accept(h2o_accept_ctx_t *accept, int fd, void (*closed)(H2Connection *c, void *userdata),
                         void *userdata, H2Connection **ret) {
        _cleanup_close_ int owned = fd;
        _cleanup_free_ H2Connection *c = NULL;
        _cleanup_free_ uv_pipe_t *pipe = NULL;
        h2o_http2_conn_t *conn;
        h2o_socket_t *sock;
        struct timeval now;
        int r;

        c = malloc(sizeof *c);
        pipe = malloc(sizeof *pipe);
        if (!c || !pipe)
                return -ENOMEM;

        r = uv_pipe_init(accept->ctx->loop, pipe, /* ipc= */ 0);
        if (r < 0)
                return r;
        r = uv_pipe_open(pipe, owned);
        if (r < 0) {
                uv_close((uv_handle_t *) TAKE_PTR(pipe), (uv_close_cb) free);
                return r;
        }
        TAKE_FD(owned);

        sock = h2o_uv_socket_create((uv_stream_t *) TAKE_PTR(pipe), (uv_close_cb) free);
        (void) gettimeofday(&now, NULL);
        h2o_http2_accept(accept, sock, now);
        conn = sock->data;
        if (!layout_matches(conn, accept->ctx, sock)) {
                log_error("libh2o differs from the version that this program was built against, not serving");
                abort();
        }

        *c = (H2Connection) {
                .n_ref = 1,
                .h2o = conn,
                .fd = fd,
                .closed = closed,
                .userdata = userdata,
                .next = conn->_read_expect,
        };
        conn->_read_expect = on_frame;
        sock->on_close.cb = on_socket_close;
        sock->on_close.data = c;
        watch_reader(c);
        *ret = TAKE_PTR(c);
        return 0;
}

H2Connection *h2_connection_ref(H2Connection *c) {
        c->n_ref++;
        return c;
}

H2Connection *h2_connection_unref(H2Connection *c) {
        if (c && --c->n_ref == 0)
                free(c);
        return NULL;
}

void h2_connection_goaway(H2Connection *c, H2Goaway stage) {
        h2o_http2_conn_t *conn = c->h2o;
        uint32_t last = UINT32_C(0x7fffffff);

        if (!conn || conn->state != H2O_HTTP2_CONN_STATE_OPEN || c->goaway >= stage)
                return;
        if (!c->usual) {
                /* It hasn't said hello, and our first frame must be SETTINGS. */
                h2_connection_cut(c);
                return;
        }

        c->goaway = stage;
        if (stage == H2_GOAWAY_FINAL)
                last = conn->pull_stream_ids.max_open;
        h2o_http2_encode_goaway_frame(&conn->_write.buf, last, H2O_HTTP2_ERROR_NONE,
                                      (h2o_iovec_t) { H2O_STRLIT("please connect again") });
        if (stage == H2_GOAWAY_ANNOUNCED)
                h2o_http2_encode_ping_frame(&conn->_write.buf, /* is_ack= */ 0, drain_ping);
        h2o_http2_conn_request_write(conn);
}

void h2_connection_close_if_quiet(H2Connection *c) {
        h2o_http2_conn_t *conn = c->h2o;

        if (conn && c->goaway == H2_GOAWAY_FINAL && conn->num_streams.pull.open == 0 && conn->_write.buf->size == 0 &&
            !conn->_write.buf_in_flight && !h2o_timeout_is_linked(&conn->_write.timeout_entry))
                h2_connection_cut(c);
}

void h2_connection_cut(H2Connection *c) {
        if (c->fd >= 0)
                (void) shutdown(c->fd, SHUT_RDWR);
}

typedef struct StreamEnd {
        H2Connection *connection;
        void (*closed)(void *userdata);
        void *userdata;
} StreamEnd;

static void on_stream_end(void *p) {
        StreamEnd *e = p;

        e->connection->n_streams--;
        if (e->closed)
                e->closed(e->userdata);
}

void h2_stream_start(h2o_req_t *req, void (*closed)(void *userdata), void *userdata) {
        H2Connection *c = h2_connection_of(req);
        StreamEnd *e;

        /* Memory of the request's pool with a destructor: the pool is cleared as the stream goes. */
        e = h2o_mem_alloc_shared(&req->pool, sizeof *e, on_stream_end);
        *e = (StreamEnd) { c, closed, userdata };
        c->n_requests++;
        c->n_streams++;
}

h2o_buffer_t *h2_stream_take_body(h2o_req_t *req) {
        req->entity = (h2o_iovec_t) {};
        return TAKE_PTR(stream_of(req)->_req_body);
}

bool h2_stream_is_open(h2o_req_t *req) {
        h2o_http2_stream_state_t state = stream_of(req)->state;

        return connection_of(req)->state < H2O_HTTP2_CONN_STATE_IS_CLOSING &&
               (state == H2O_HTTP2_STREAM_STATE_SEND_HEADERS || state == H2O_HTTP2_STREAM_STATE_SEND_BODY);
}

bool h2_stream_is_framed(h2o_req_t *req) {
        return stream_of(req)->_data.size == 0;
}

bool h2_stream_frame_now(h2o_req_t *req) {
        h2o_http2_conn_t *conn = connection_of(req);
        h2o_http2_stream_t *stream = stream_of(req);
        size_t start = conn->_write.buf->size, before;

        while (stream->_data.size != 0) {
                before = conn->_write.buf->size;
                if (before - start >= FRAME_NOW_MAX)
                        return false;
                h2o_http2_stream_send_pending_data(conn, stream);
                if (conn->_write.buf->size == before)
                        return false;
        }
        return true;
}

static void end_stream(h2o_http2_conn_t *conn, h2o_http2_stream_t *stream) {
        stream->req._generator = NULL;
        h2o_http2_stream_set_state(conn, stream, H2O_HTTP2_STREAM_STATE_END_STREAM);
        stream->output_window._avail = WINDOW_SHUT;
}

/* Literal, not indexed, with a new name: leaves the table shared with the peer alone. */
static uint8_t *put_field(uint8_t *p, const H2Field *field) {
        *p++ = 0;
        p += h2o_hpack_encode_string(p, field->name, field->name_size);
        p += h2o_hpack_encode_string(p, field->value, field->value_size);
        return p;
}

void h2_stream_end(h2o_req_t *req, const H2Field *fields, size_t n_fields) {
        h2o_http2_conn_t *conn = connection_of(req);
        h2o_http2_stream_t *stream = stream_of(req);
        size_t room = H2O_HTTP2_FRAME_HEADER_SIZE, payload;
        uint8_t *base, *p;

        assert(h2_stream_is_open(req) && stream->_data.size == 0);

        for (size_t i = 0; i < n_fields; i++)
                room += 1 + 2 * H2O_HTTP2_ENCODE_INT_MAX_LENGTH + fields[i].name_size + fields[i].value_size;
        base = (uint8_t *) h2o_buffer_reserve(&conn->_write.buf, room).base;
        p = base + H2O_HTTP2_FRAME_HEADER_SIZE;
        for (size_t i = 0; i < n_fields; i++)
                p = put_field(p, &fields[i]);
        payload = (size_t) (p - base) - H2O_HTTP2_FRAME_HEADER_SIZE;
        assert(payload <= 16384);
        (void) h2o_http2_encode_frame_header(base, payload, H2O_HTTP2_FRAME_TYPE_HEADERS,
                                             H2O_HTTP2_FRAME_FLAG_END_HEADERS | H2O_HTTP2_FRAME_FLAG_END_STREAM,
                                             (int32_t) stream->stream_id);
        conn->_write.buf->size += H2O_HTTP2_FRAME_HEADER_SIZE + payload;

        end_stream(conn, stream);
        /* Closed when the output is written, or when h2o's scheduler comes by if the stream is still in there. */
        if (!h2o_linklist_is_linked(&stream->_refs.link) && !stream->_refs.scheduler._self_is_active)
                h2o_linklist_insert(&conn->_write.streams_to_proceed, &stream->_refs.link);
        h2o_http2_conn_request_write(conn);
}

void h2_stream_end_with_headers(h2o_req_t *req) {
        h2o_http2_conn_t *conn = connection_of(req);
        h2o_http2_stream_t *stream = stream_of(req);
        size_t at = conn->_write.buf->size;
        uint8_t *frame;

        assert(stream->state == H2O_HTTP2_STREAM_STATE_SEND_HEADERS);

        h2o_send(req, NULL, 0, H2O_SEND_STATE_IN_PROGRESS); /* frames HEADERS; the stream waits for the write */
        frame = (uint8_t *) conn->_write.buf->bytes + at;
        assert(frame[3] == H2O_HTTP2_FRAME_TYPE_HEADERS && frame[4] & H2O_HTTP2_FRAME_FLAG_END_HEADERS);
        frame[4] |= H2O_HTTP2_FRAME_FLAG_END_STREAM;
        end_stream(conn, stream);
}
