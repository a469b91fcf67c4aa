/* A session from the change of protocols to its end: the connection's own fiber reads, the runner's does the work. */

#include "stream/session.h"

#include "basic/log.h"
#include "basic/string-util.h"

#define READ_SIZE (64U * 1024U)
#define READS_A_TURN 16U /* then the others get theirs */
#define LINGER_USEC (5 * USEC_PER_SEC)
#define STATUS_PIECE 16384U

void session_over(StreamSession *s) {
        s->over = true;
        connection_interrupt(&s->connection);
}

static bool wants(const StreamSession *s, StreamChannel kind) {
        const StreamRequest *q = &s->request;

        switch (kind) {
        case STREAM_STDIN:
                return q->in;
        case STREAM_STDOUT:
                return q->out;
        case STREAM_STDERR:
                return q->err && !q->tty;
        case STREAM_ERROR:
                return true;
        case STREAM_RESIZE:
                return q->tty && s->protocol->version >= 3;
        default:
                return false;
        }
}

bool session_has_streams(const StreamSession *s) {
        for (StreamChannel kind = 0; kind < _STREAM_CHANNEL_MAX; kind++)
                if (wants(s, kind) && !s->by_kind[kind])
                        return false;
        return true;
}

/* --- the work ---------------------------------------------------------------------------------------------------- */

/* (fiber) The status can be longer than the room there is now. */
static int put_all(Channel *c, const char *text) {
        size_t left = strlen(text), room;
        int r;

        while (left > 0) {
                size_t n = MIN(left, (size_t) STATUS_PIECE);

                r = channel_wait_room(c, &room);
                if (r < 0)
                        return r;
                n = MIN(n, room);
                r = channel_put(c, text, n);
                if (r < 0)
                        return r;
                text += n;
                left -= n;
        }
        return 0;
}

static int run_session(void *userdata) {
        StreamSession *s = userdata;
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_free_ char *text = NULL;
        int r, exit_code = 0;

        /* Tells a WebSocket client that all is set up. */
        if (!s->spdy)
                (void) session_put_data(s, s->by_kind[wants(s, STREAM_STDOUT)   ? STREAM_STDOUT
                                                      : wants(s, STREAM_STDERR) ? STREAM_STDERR
                                                                                : STREAM_ERROR],
                                        NULL, 0, /* fin= */ false);
        r = s->request.ops->run(s, s->request.userdata, &exit_code, &error);
        session_pumps_stop(s);
        if (fiber_check() < 0)
                return 0;
        if (r < 0)
                log_debug("A streaming session failed: %s", error.message ? error.message : strerror(-r));
        for (StreamChannel kind = STREAM_STDOUT; kind <= STREAM_STDERR; kind++)
                if (s->by_kind[kind])
                        channel_end(s->by_kind[kind]);
        text = status_text(s->protocol->version, r, exit_code, &error);
        if (text)
                (void) put_all(s->by_kind[STREAM_ERROR], text);
        for (StreamChannel kind = 0; kind < _STREAM_CHANNEL_MAX; kind++)
                if (s->by_kind[kind])
                        channel_end(s->by_kind[kind]);
        session_put_end(s);
        session_over(s);
        return 0;
}

static int start(StreamSession *s) {
        return fiber_spawn(s->event, "stream-run", run_session, s, NULL, &s->runner);
}

/* --- streams ----------------------------------------------------------------------------------------------------- */

static int kind_from_string(const char *type) {
        static const char *const names[_STREAM_CHANNEL_MAX] = { "stdin", "stdout", "stderr", "error", "resize" };

        for (int i = 0; i < _STREAM_CHANNEL_MAX; i++)
                if (streq_ptr(type, names[i]))
                        return i;
        return -EINVAL;
}

int session_stream(StreamSession *s, uint32_t id, const SpdyHeaders *h, bool fin) {
        int r, kind;
        Channel *c;

        if (s->request.kind == STREAM_PORT_FORWARD)
                return forward_stream(s, id, h);
        kind = kind_from_string(spdy_header(h, "streamtype"));
        if (kind < 0 || !wants(s, (StreamChannel) kind) || s->by_kind[kind])
                return SPDY_REFUSED_STREAM;
        r = channel_new(s, id, (StreamChannel) kind, &c);
        if (r < 0)
                return r;
        s->by_kind[kind] = c;
        /* Nothing is to come on these. */
        if (kind != STREAM_STDIN && kind != STREAM_RESIZE)
                c->discard = true;
        return 0;
}

static int open_channels(StreamSession *s) {
        int r;

        for (StreamChannel kind = 0; kind < _STREAM_CHANNEL_MAX; kind++) {
                if (!wants(s, kind))
                        continue;
                r = channel_new(s, kind, kind, &s->by_kind[kind]);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* --- reading ----------------------------------------------------------------------------------------------------- */

static bool is_waiting_for_streams(const StreamSession *s) {
        return s->request.kind != STREAM_PORT_FORWARD && !s->runner;
}

static int feed(StreamSession *s, void *data, size_t size) {
        int r;

        r = session_feed(s, data, size);
        if (r < 0)
                return r;
        return is_waiting_for_streams(s) && session_has_streams(s) ? start(s) : 0;
}

/* Until the client is gone, breaks the rules, or is too slow for them. 0: the session is over. */
static int read_all(StreamSession *s) {
        static uint8_t buffer[READ_SIZE]; /* never kept across a wait */
        unsigned turns = 0;
        int r;

        while (!s->over) {
                uint64_t until = is_waiting_for_streams(s) ? s->created_usec + STREAM_CREATION_USEC
                                                           : s->connection.active_usec + STREAM_IDLE_USEC;
                ssize_t n;

                if (s->n_in > STREAM_INPUT_MAX) {
                        r = connection_pause(&s->connection, until);
                        if (r < 0 && r != -EINTR && (r != -ETIMEDOUT || now_usec(CLOCK_MONOTONIC) >= until))
                                return r;
                        continue;
                }
                if (++turns % READS_A_TURN == 0) {
                        r = fiber_yield();
                        if (r < 0)
                                return r;
                }
                n = connection_read(&s->connection, buffer, sizeof buffer, until);
                if (n == -EINTR)
                        continue;
                /* Something was sent meanwhile. */
                if (n == -ETIMEDOUT && !is_waiting_for_streams(s) &&
                    s->connection.active_usec + STREAM_IDLE_USEC > now_usec(CLOCK_MONOTONIC))
                        continue;
                if (n <= 0)
                        return n < 0 ? (int) n : -ECONNRESET;
                r = feed(s, buffer, (size_t) n);
                if (r < 0)
                        return r;
        }
        return 0;
}

int session_run(StreamSession *s, const void *data, size_t size) {
        _cleanup_free_ void *first = NULL;
        int r;

        s->created_usec = now_usec(CLOCK_MONOTONIC);
        r = session_frames_init(s);
        if (r >= 0 && s->protocol->transport == TRANSPORT_WEBSOCKET) {
                r = open_channels(s);
                if (r >= 0)
                        r = start(s);
        }
        if (r >= 0 && size > 0) {
                first = malloc(size);
                if (!first)
                        return -ENOMEM;
                memcpy(first, data, size);
                r = feed(s, first, size);
        }
        if (r >= 0)
                r = read_all(s);
        if (r < 0)
                log_debug("A streaming client is cut off: %s", strerror(-r));

        fiber_cancel(s->runner);
        if (s->runner) {
                FIBER_SHIELDED_SCOPE;

                (void) fiber_join(s->runner, NULL);
        }
        forwards_stop(s);
        if (r == -EPROTO || r == -EMSGSIZE)
                session_put_end(s);
        if (r == 0 || r == -EPROTO || r == -EMSGSIZE)
                connection_linger(&s->connection, now_usec(CLOCK_MONOTONIC) + LINGER_USEC);
        return r;
}

void session_clear(StreamSession *s) {
        Channel *c, *next;

        s->runner = fiber_unref(s->runner);
        HASH_ITER(hh, s->channels, c, next)
                channel_free(c);
        s->spdy = spdy_free(s->spdy);
}
