#pragma once
/* What h2o 2.2 doesn't offer in public: trailers, and a watch over what a peer may do to us. h2-connection.c is the
 * one file that includes h2o's private header. */

#include "basic/fiber.h" /* before h2o.h, which redefines MIN and MAX (from a system header, silently) */
#include "basic/macro.h"

#include <h2o.h>

/* What one peer may use up. Beyond a limit its stream or connection ends, with an error that says so. */
#define H2_STREAMS_MAX 1000U                    /* streams at the same time */
#define H2_STREAMS_KEPT_MAX 2000U               /* including those whose end wasn't written yet */
#define H2_HEADER_BLOCK_MAX (16U * 1024U)       /* bytes of one HEADERS + CONTINUATION…, as sent */
#define H2_HEADER_FIELDS_MAX 100U               /* fields after decoding */
#define H2_BODY_MAX (16U * 1024U * 1024U + 5U)  /* bytes of one request; longer ones are cut there and answered */
#define H2_BODIES_MAX (64U * 1024U * 1024U)     /* bytes of all requests of a connection that aren't served yet */

typedef enum H2Goaway {
        H2_GOAWAY_NONE,
        H2_GOAWAY_ANNOUNCED, /* the peer was asked to open no more streams; those under way to us are still served */
        H2_GOAWAY_FINAL,     /* new streams are refused */
} H2Goaway;

typedef struct H2Connection H2Connection;
struct H2Connection {
        unsigned n_ref; /* h2o's connection is one, each call another */
        struct st_h2o_http2_conn_t *h2o; /* NULL once it is closed */
        int fd;
        void (*closed)(H2Connection *c, void *userdata);
        void *userdata;

        /* h2o's frame handler for what is to come next (we stand before it), and its usual one */
        ssize_t (*next)(struct st_h2o_http2_conn_t *conn, const uint8_t *src, size_t size, const char **err_desc);
        ssize_t (*usual)(struct st_h2o_http2_conn_t *conn, const uint8_t *src, size_t size, const char **err_desc);
        H2Goaway goaway;
        h2o_socket_cb read; /* h2o's reader, before which we stand, too */
        size_t header_bytes;       /* of the header block that is arriving */
        size_t body_bytes;         /* of requests, an upper bound that is corrected when it gets large */
        uint64_t n_requests;       /* that reached our handler */
        size_t n_streams;          /* those of them that are still there */

        /* Kept by the calls: request bytes they hold, answer bytes not yet sent, handlers that run. */
        size_t held, queued;
        unsigned n_running;
        FiberQueue room; /* waits for queued to shrink */

        H2Connection *prev, *next_connection;
};

/* Serves HTTP/2 (prior knowledge) on a connected socket, which is taken in any case. `closed` is called once when
 * h2o has let go of the connection. */
int h2_connection_accept(h2o_accept_ctx_t *accept, int fd, void (*closed)(H2Connection *c, void *userdata),
                         void *userdata, H2Connection **ret);
H2Connection *h2_connection_ref(H2Connection *c);
H2Connection *h2_connection_unref(H2Connection *c);
/* The connection a request came on. */
H2Connection *h2_connection_of(h2o_req_t *req);

/* Sends GOAWAY: first the announcement, and when the peer has surely read it (it answers a PING, or somebody calls
 * this again) the final one. */
void h2_connection_goaway(H2Connection *c, H2Goaway stage);
/* Closes a connection that has said its final GOAWAY, has no stream left and all bytes sent. */
void h2_connection_close_if_quiet(H2Connection *c);
/* Cuts it. h2o finds out in the next rounds of the loop. */
void h2_connection_cut(H2Connection *c);

/* To be called first for each request. `closed` runs when the stream is gone, for whatever reason; req is invalid
 * then. */
void h2_stream_start(h2o_req_t *req, void (*closed)(void *userdata), void *userdata);
/* The request body, whose bytes stay valid until h2o_buffer_dispose(). NULL if there was none. */
h2o_buffer_t *h2_stream_take_body(h2o_req_t *req);
/* Whether something can be sent: neither reset by the peer nor ended by us. */
bool h2_stream_is_open(h2o_req_t *req);
/* Whether all that was given to h2o_send() is framed, so that h2_stream_end() may be called. */
bool h2_stream_is_framed(h2o_req_t *req);
/* Frames what windows allow right now, instead of when the connection writes. True if that was all. */
bool h2_stream_frame_now(h2o_req_t *req);

typedef struct H2Field {
        const char *name, *value;
        size_t name_size, value_size;
} H2Field;

/* Ends a stream whose data were given to h2o_send(H2O_SEND_STATE_IN_PROGRESS) and are framed, with trailers. The
 * generator gets no more calls. */
void h2_stream_end(h2o_req_t *req, const H2Field *fields, size_t n_fields);
/* Ends a stream of which nothing was sent with one HEADERS frame, made of req->res. */
void h2_stream_end_with_headers(h2o_req_t *req);
