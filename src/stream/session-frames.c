/* A session's bytes: channels in SPDY, in WebSocket messages, or in SPDY within WebSocket messages. */

#include <openssl/evp.h>

#include "stream/session.h"

#define CLOSE_SIGNAL 255U /* v5: the next byte is the channel that ends */
#define BASE64_SIZE(n) (4U * (((n) + 2U) / 3U))
#define CHUNK_MAX PUMP_SIZE
_Static_assert(CHUNK_MAX >= STREAM_PACKET_MAX, "a packet is one message");

/* --- out --------------------------------------------------------------------------------------------------------- */

/* SPDY's frames, in a message of their own where they are tunnelled. */
static int put_spdy(StreamSession *s, const void *frame, size_t frame_size, const void *data, size_t size) {
        uint8_t header[WEBSOCKET_HEADER_MAX];
        size_t header_size = 0;

        if (s->protocol->transport == TRANSPORT_TUNNEL)
                header_size = websocket_put_header(header, WEBSOCKET_BINARY, frame_size + size);
        return connection_put(&s->connection,
                              (const struct iovec[]) {
                                      { header, header_size },
                                      { (void *) frame, frame_size },
                                      { (void *) data, size },
                              },
                              3);
}

static int put_message(StreamSession *s, WebSocketOpcode opcode, const void *first, size_t first_size,
                       const void *data, size_t size) {
        uint8_t header[WEBSOCKET_HEADER_MAX];
        size_t header_size = websocket_put_header(header, opcode, first_size + size);

        return connection_put(&s->connection,
                              (const struct iovec[]) {
                                      { header, header_size },
                                      { (void *) first, first_size },
                                      { (void *) data, size },
                              },
                              3);
}

static int put_base64(StreamSession *s, uint8_t channel, const void *data, size_t size) {
        static unsigned char text[BASE64_SIZE(CHUNK_MAX) + 1];
        int n = EVP_EncodeBlock(text, data, (int) size);

        channel = (uint8_t) ('0' + channel);
        return put_message(s, WEBSOCKET_TEXT, &channel, 1, text, (size_t) n);
}

int session_put_data(StreamSession *s, Channel *c, const void *data, size_t size, bool fin) {
        uint8_t channel = (uint8_t) c->id, header[SPDY_FRAME_HEADER];

        if (s->spdy) {
                spdy_put_data(header, c->id, fin, (uint32_t) size);
                return put_spdy(s, header, sizeof header, data, size);
        }
        /* Only the client can say that a channel ends. */
        if (fin)
                return 0;
        if (size > CHUNK_MAX)
                return -EMSGSIZE;
        if (s->protocol->base64)
                return put_base64(s, channel, data, size);
        return put_message(s, WEBSOCKET_BINARY, &channel, 1, data, size);
}

int session_put_window(StreamSession *s, uint32_t id, uint32_t delta) {
        uint8_t frame[16];

        return put_spdy(s, frame, spdy_put_window(frame, id, delta), NULL, 0);
}

void session_put_reset(StreamSession *s, uint32_t id, SpdyStatus status) {
        uint8_t frame[16];

        (void) put_spdy(s, frame, spdy_put_reset(frame, id, status), NULL, 0);
}

void session_put_end(StreamSession *s) {
        static const uint8_t normal[2] = { WEBSOCKET_CLOSE_NORMAL >> 8, WEBSOCKET_CLOSE_NORMAL & 0xff };
        uint8_t frame[16];

        if (s->spdy)
                (void) put_spdy(s, frame, spdy_put_going_away(frame, s->last_id, 0), NULL, 0);
        if (s->protocol->transport != TRANSPORT_SPDY && !s->websocket.closed)
                (void) put_message(s, WEBSOCKET_CLOSE, normal, sizeof normal, NULL, 0);
}

/* --- in: SPDY ---------------------------------------------------------------------------------------------------- */

static int on_stream(uint32_t id, const SpdyHeaders *h, bool fin, void *userdata) {
        StreamSession *s = userdata;
        uint8_t frame[SPDY_REPLY_MAX];
        Channel *c;
        size_t n;
        int r;

        s->last_id = id;
        r = HASH_COUNT(s->channels) >= STREAM_CHANNELS_MAX ? SPDY_REFUSED_STREAM : session_stream(s, id, h, fin);
        if (r < 0)
                return r;
        if (r > 0) {
                session_put_reset(s, id, (SpdyStatus) r);
                return 0;
        }
        n = spdy_put_reply(s->spdy, frame, id);
        if (n == 0)
                return -ENOMEM;
        r = put_spdy(s, frame, n, NULL, 0);
        if (r < 0)
                return r;
        c = channel_find(s, id);
        if (c && fin)
                channel_input_end(c);
        return 0;
}

static int on_data(uint32_t id, const void *data, size_t n, bool fin, void *userdata) {
        StreamSession *s = userdata;
        Channel *c = channel_find(s, id);
        int r;

        if (!c) {
                /* It may be on its way while we end the stream; one that never was is an error. */
                if (id == 0 || id > s->last_id)
                        return -EPROTO;
                return 0;
        }
        if (c->in_ended && n > 0) {
                if (!c->reset)
                        session_put_reset(s, id, SPDY_PROTOCOL_ERROR);
                return 0;
        }
        r = channel_input(c, data, n);
        if (r < 0)
                return r;
        if (fin)
                channel_input_end(c);
        return 0;
}

static int on_reset(uint32_t id, void *userdata) {
        Channel *c = channel_find(userdata, id);

        if (c) {
                channel_reset(c);
                forward_reset(c);
        }
        return 0;
}

static int on_fin(uint32_t id, void *userdata) {
        Channel *c = channel_find(userdata, id);

        if (c)
                channel_input_end(c);
        return 0;
}

static int on_ping(uint32_t id, void *userdata) {
        uint8_t frame[12];

        /* Even numbers would be answers to ours, and we send none. */
        return id % 2 == 0 ? 0 : put_spdy(userdata, frame, spdy_put_ping(frame, id), NULL, 0);
}

static int grow(int64_t *window, int64_t delta) {
        *window += delta;
        return *window > SPDY_WINDOW_MAX ? -EPROTO : 0;
}

static int on_window(uint32_t id, uint32_t delta, void *userdata) {
        StreamSession *s = userdata;
        Channel *c = channel_find(s, id);
        int r;

        s->windowed = true;
        r = id == 0 ? grow(&s->window, delta) : c ? grow(&c->window, delta) : 0;
        fiber_queue_wake(&s->window_grown, 0);
        return r;
}

static int on_initial_window(uint32_t size, void *userdata) {
        StreamSession *s = userdata;
        int64_t delta = (int64_t) size - s->initial_window;
        int r;

        s->windowed = true;
        s->initial_window = size;
        for (Channel *c = s->channels; c; c = c->hh.next) {
                r = grow(&c->window, delta);
                if (r < 0)
                        return r;
        }
        fiber_queue_wake(&s->window_grown, 0);
        return 0;
}

/* What is under way goes on; the client closes when it has what it wants. */
static int on_going_away(void *userdata) {
        return 0;
}

static const SpdyOps spdy_ops = {
        .stream = on_stream,
        .data = on_data,
        .reset = on_reset,
        .fin = on_fin,
        .ping = on_ping,
        .window = on_window,
        .initial_window = on_initial_window,
        .going_away = on_going_away,
};

/* --- in: WebSocket ----------------------------------------------------------------------------------------------- */

/* The first byte of a message: its channel. */
static int begin_message(StreamSession *s, uint8_t first) {
        uint32_t id = first;

        s->n_quartet = 0;
        s->message_closes = s->protocol->version >= 5 && first == CLOSE_SIGNAL;
        if (s->protocol->base64)
                id = first >= '0' && first <= '9' ? (uint32_t) (first - '0') : UINT32_MAX;
        /* What nobody asked for is dropped, and so is what is said on channels that are ours to speak on. */
        s->message = s->message_closes ? NULL : channel_find(s, id);
        if (s->message && s->message->kind != STREAM_STDIN && s->message->kind != STREAM_RESIZE)
                s->message = NULL;
        return 0;
}

/* In groups of four characters; what is left of a piece waits for the next one. */
static int input_base64(StreamSession *s, const uint8_t *data, size_t n) {
        for (size_t i = 0; i < n; i++) {
                unsigned char bytes[3];
                size_t padding;
                int r;

                s->quartet[s->n_quartet++] = data[i];
                if (s->n_quartet < sizeof s->quartet)
                        continue;
                s->n_quartet = 0;
                if (EVP_DecodeBlock(bytes, s->quartet, sizeof s->quartet) != sizeof bytes)
                        return -EPROTO;
                padding = s->quartet[3] != '=' ? 0 : s->quartet[2] != '=' ? 1 : 2;
                r = channel_input(s->message, bytes, sizeof bytes - padding);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int on_message(WebSocketOpcode opcode, const uint8_t *data, size_t n, bool first, bool last, void *userdata) {
        StreamSession *s = userdata;

        if (s->protocol->transport == TRANSPORT_TUNNEL)
                return opcode == WEBSOCKET_BINARY ? spdy_feed(s->spdy, data, n) : -EPROTO;

        /* A piece without a byte says nothing of the channel. */
        if (first) {
                s->message = NULL;
                s->message_closes = false;
                if (n == 0)
                        return 0;
                (void) begin_message(s, *data++);
                n--;
        }
        if (n == 0)
                return 0;
        if (s->message_closes) {
                Channel *c = channel_find(s, *data);

                if (c)
                        channel_input_end(c);
                s->message_closes = false;
                return 0;
        }
        if (!s->message)
                return 0;
        return s->protocol->base64 ? input_base64(s, data, n) : channel_input(s->message, data, n);
}

static int on_control(WebSocketOpcode opcode, const uint8_t *data, size_t n, void *userdata) {
        StreamSession *s = userdata;

        switch (opcode) {
        case WEBSOCKET_PING:
                return put_message(s, WEBSOCKET_PONG, data, n, NULL, 0);
        case WEBSOCKET_CLOSE:
                /* The answer repeats the code. */
                (void) put_message(s, WEBSOCKET_CLOSE, data, MIN(n, (size_t) 2), NULL, 0);
                return -ECONNRESET;
        default:
                return 0;
        }
}

static const WebSocketOps websocket_ops = {
        .data = on_message,
        .control = on_control,
};

int session_frames_init(StreamSession *s) {
        s->window = s->initial_window = SPDY_WINDOW_INITIAL;
        s->websocket = (WebSocket) { .ops = &websocket_ops, .userdata = s };
        return s->protocol->transport == TRANSPORT_WEBSOCKET ? 0 : spdy_new(&spdy_ops, s, &s->spdy);
}

int session_feed(StreamSession *s, void *data, size_t size) {
        return s->protocol->transport == TRANSPORT_SPDY ? spdy_feed(s->spdy, data, size)
                                                        : websocket_feed(&s->websocket, data, size);
}
