#pragma once
/* What the files of this folder share: a session is one client's connection after the change of protocols, its
 * channels are SPDY streams or the numbers of a WebSocket sub-protocol. */

#include <uthash.h>

#include "stream/connection.h"
#include "stream/spdy.h"
#include "stream/stream.h"
#include "stream/websocket.h"

#define PUMP_SIZE (32U * 1024U) /* bytes moved at once */
#define RESIZE_MAX 256U         /* bytes of a terminal's size in JSON */

typedef struct Channel {
        StreamSession *session;
        uint32_t id;          /* the stream's or channel's number */
        StreamChannel kind;   /* STREAM_STDIN for a port-forward's data */
        char *in;             /* what has come and was not yet taken */
        size_t in_start, in_size, in_allocated;
        bool in_ended, out_ended;
        bool reset;           /* by the peer */
        bool discard;         /* nobody takes the input any more */
        int64_t window;       /* SPDY: what the peer lets us send */
        uint32_t credit;      /* SPDY: taken, but not yet told the peer */
        struct Forward *forward; /* of a port-forward, borrowed */
        FiberQueue readable;
        UT_hash_handle hh;
} Channel;

typedef enum Transport {
        TRANSPORT_SPDY,
        TRANSPORT_WEBSOCKET,
        TRANSPORT_TUNNEL, /* SPDY in WebSocket */
} Transport;

typedef struct Protocol {
        const char *name;
        Transport transport;
        bool port_forward;
        unsigned version; /* of the remote command protocol, 1 to 5 */
        bool base64;
} Protocol;

typedef struct Pump {
        StreamSession *session;
        StreamChannel kind;
        int fd; /* borrowed */
        Fiber *fiber;
} Pump;

struct StreamSession {
        StreamServer *server; /* NULL when that is gone */
        StreamSession *next, *previous;
        sd_event *event;
        Fiber *fiber; /* reads; borrowed */
        Connection connection;
        StreamRequest request;
        const Protocol *protocol;

        Spdy *spdy;
        WebSocket websocket;
        Channel *channels; /* by id */
        Channel *by_kind[_STREAM_CHANNEL_MAX];
        Channel *message; /* WebSocket: whose message is under way */
        bool message_closes; /* … which is v5's close signal */
        uint8_t quartet[4];   /* base64: what is not yet four characters */
        size_t n_quartet;
        size_t n_in; /* bytes in all channels */
        bool windowed; /* the peer takes part in SPDY's flow control; those of the field don't */
        int64_t window, initial_window;
        uint32_t credit;
        uint32_t last_id;
        FiberQueue window_grown;

        Fiber *runner;
        uint64_t created_usec;
        bool over;

        StreamPipes pipes;
        Pump pumps[_STREAM_CHANNEL_MAX];
        bool ending; /* stream_session_end() */
        Fiber *packets;

        struct Forward *forwards;
        size_t n_forwards;
        FiberQueue forward_gone;
};

/* session.c */
/* (fiber) The whole of a session, from the first byte behind the request's head to the last. */
int session_run(StreamSession *s, const void *data, size_t size);
/* Frees what belongs to the session's protocol; the fibers have ended. */
void session_clear(StreamSession *s);
/* From a session's fiber: the connection is to end in good order. */
void session_over(StreamSession *s);

/* channel.c */
int channel_new(StreamSession *s, uint32_t id, StreamChannel kind, Channel **ret);
void channel_free(Channel *c);
Channel *channel_find(StreamSession *s, uint32_t id);
/* Input from the peer. */
int channel_input(Channel *c, const void *data, size_t size);
void channel_input_end(Channel *c);
void channel_reset(Channel *c);
/* (fiber) Waits for input; *ret_size 0: the peer has ended it. Stays until channel_take(). -EPIPE: reset. */
int channel_read(Channel *c, const char **ret, size_t *ret_size);
void channel_take(Channel *c, size_t size);
/* Input is dropped from now on. */
void channel_discard(Channel *c);
/* (fiber) Waits until something may be sent: how much, at most. -EPIPE: nobody wants it. */
int channel_wait_room(Channel *c, size_t *ret);
/* Sends; no more than there is room for. */
int channel_put(Channel *c, const void *data, size_t size);
/* Nothing more will be sent on it. */
void channel_end(Channel *c);

/* session-frames.c: to and from the wire */
int session_frames_init(StreamSession *s);
int session_feed(StreamSession *s, void *data, size_t size);
int session_put_data(StreamSession *s, Channel *c, const void *data, size_t size, bool fin);
int session_put_window(StreamSession *s, uint32_t id, uint32_t delta);
void session_put_reset(StreamSession *s, uint32_t id, SpdyStatus status);
void session_put_end(StreamSession *s);
/* What a session wants to know of a new SPDY stream: > 0: refused with that status. */
int session_stream(StreamSession *s, uint32_t id, const SpdyHeaders *h, bool fin);
bool session_has_streams(const StreamSession *s);

/* pump.c */
void session_pumps_stop(StreamSession *s);
/* (fiber) The next size of the terminal that the client tells. */
int session_resize(StreamSession *s, uint16_t *ret_columns, uint16_t *ret_rows);

/* forward.c */
/* > 0: refused with that SPDY status. */
int forward_stream(StreamSession *s, uint32_t id, const SpdyHeaders *h);
void forward_reset(Channel *c);
/* (fiber) Ends all of them. */
void forwards_stop(StreamSession *s);

/* status.c */
/* What the error channel says at the end; NULL when out of memory. r: what run() returned. */
char *status_text(unsigned version, int r, int exit_code, const Error *error);
