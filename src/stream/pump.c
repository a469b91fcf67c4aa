/* Moves bytes between a session's channels and what is behind them: pipes, a terminal, a packet socket. Each direction
 * is a fiber that reads only when what it read can go on at once, so that it can be cancelled at any wait without a
 * byte lost. */

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

#include "basic/json-util.h"
#include "basic/string-util.h"
#include "stream/session.h"

#define ROUNDS_A_TURN 8U             /* then the others get theirs */
#define TERMINAL_DRAIN (64U * 1024U) /* a terminal doesn't tell how much it holds */

static char buffer[PUMP_SIZE]; /* never kept across a wait */

/* --- out --------------------------------------------------------------------------------------------------------- */

/* One block. 1: moved, 0: the end, -EAGAIN: nothing now. */
static int move_out(Channel *c, int fd, size_t *moved) {
        size_t room;
        ssize_t n;
        int r;

        r = channel_wait_room(c, &room);
        if (r < 0)
                return r;
        do
                n = read(fd, buffer, MIN(room, sizeof buffer));
        while (n < 0 && errno == EINTR);
        /* EIO: nobody has the terminal open any more. */
        if (n < 0 && errno != EIO)
                return -errno;
        if (n <= 0)
                return 0;
        *moved += (size_t) n;
        r = channel_put(c, buffer, (size_t) n);
        return r < 0 ? r : 1;
}

static int pump_out(Pump *p, Channel *c) {
        size_t moved = 0;
        int r;

        for (unsigned round = 1;; round++) {
                r = move_out(c, p->fd, &moved);
                if (r == 0) {
                        channel_end(c);
                        return 0;
                }
                if (r == -EAGAIN)
                        r = fiber_wait_fd(p->fd, EPOLLIN, USEC_INFINITY);
                else if (r > 0 && round % ROUNDS_A_TURN == 0)
                        r = fiber_yield();
                if (r < 0)
                        return r;
        }
}

/* What is in there now, and no more: what goes on in the background may write for ever. */
static int drain_out(Channel *c, int fd) {
        int size = fcntl(fd, F_GETPIPE_SZ), r;
        size_t moved = 0, max = size > 0 ? (size_t) size : TERMINAL_DRAIN;

        do
                r = moved < max ? move_out(c, fd, &moved) : 0;
        while (r > 0);
        channel_end(c);
        return r == -EAGAIN ? 0 : r;
}

/* --- in ---------------------------------------------------------------------------------------------------------- */

static int pump_in(Pump *p, Channel *c) {
        StreamSession *s = p->session;
        const char *data;
        size_t size;
        ssize_t n;
        int r;

        for (unsigned round = 1;; round++) {
                r = channel_read(c, &data, &size);
                if (r < 0)
                        return r;
                if (size == 0) {
                        /* A terminal has no half that could be closed. */
                        s->pipes.in = safe_close(s->pipes.in);
                        return 0;
                }
                n = write(p->fd, data, size);
                if (n >= 0) {
                        channel_take(c, (size_t) n);
                        r = round % ROUNDS_A_TURN == 0 ? fiber_yield() : 0;
                } else if (errno == EAGAIN)
                        r = fiber_wait_fd(p->fd, EPOLLOUT, USEC_INFINITY);
                else if (errno != EINTR) {
                        /* It reads no more, and may well go on without. */
                        channel_discard(c);
                        return 0;
                }
                if (r < 0)
                        return r;
        }
}

/* A number after "name": in a flat object of JSON, of which the clients' capitals may be small. */
static uint16_t size_member(json_t *o, const char *name, const char *alternative) {
        json_t *n = json_object_get(o, name) ?: json_object_get(o, alternative);
        json_int_t value = json_is_integer(n) ? json_integer_value(n) : 0;

        return value > 0 && value <= UINT16_MAX ? (uint16_t) value : 0;
}

int session_resize(StreamSession *s, uint16_t *ret_columns, uint16_t *ret_rows) {
        Channel *c = s->by_kind[STREAM_RESIZE];
        const char *data, *end;
        size_t size, seen = 0;
        int r;

        for (;;) {
                _cleanup_json_ json_t *o = NULL;

                r = channel_read(c, &data, &size);
                if (r < 0)
                        return r;
                if (size == 0)
                        return -ENODATA;
                end = memchr(data, '}', size);
                if (!end && (c->in_ended || size > RESIZE_MAX)) {
                        channel_discard(c);
                        return -ENODATA;
                }
                if (!end) {
                        /* The rest of the object is on its way. */
                        if (size == seen) {
                                r = fiber_queue_wait(&c->readable);
                                if (r < 0)
                                        return r;
                        }
                        seen = size;
                        continue;
                }
                size = (size_t) (end - data) + 1;
                seen = 0;
                r = size > RESIZE_MAX ? -EMSGSIZE : json_parse(data, size, &o, NULL);
                channel_take(c, size);
                if (r < 0)
                        continue;
                *ret_columns = size_member(o, "Width", "width");
                *ret_rows = size_member(o, "Height", "height");
                if (*ret_columns > 0 && *ret_rows > 0)
                        return 0;
        }
}

static int pump_resize(Pump *p, Channel *c) {
        struct winsize size = {};
        int r;

        for (;;) {
                r = session_resize(p->session, &size.ws_col, &size.ws_row);
                if (r < 0)
                        return r;
                (void) ioctl(p->fd, TIOCSWINSZ, &size);
        }
}

/* --- of a command ------------------------------------------------------------------------------------------------ */

static int run_pump(void *userdata) {
        Pump *p = userdata;
        Channel *c = p->session->by_kind[p->kind];

        switch (p->kind) {
        case STREAM_STDIN:
                return pump_in(p, c);
        case STREAM_RESIZE:
                return pump_resize(p, c);
        default:
                return pump_out(p, c);
        }
}

static int pump_start(StreamSession *s, StreamChannel kind, int fd) {
        Pump *p = &s->pumps[kind];

        if (!s->by_kind[kind])
                return 0;
        if (fd < 0) {
                if (kind == STREAM_STDIN)
                        channel_discard(s->by_kind[kind]);
                return 0;
        }
        *p = (Pump) { .session = s, .kind = kind, .fd = fd };
        return fiber_spawn(s->event, "stream-pump", run_pump, p, NULL, &p->fiber);
}

int stream_session_start(StreamSession *s, StreamPipes *pipes) {
        int r, tty = pipes->tty;

        s->pipes = *pipes;
        *pipes = STREAM_PIPES_NONE;
        if (tty >= 0) {
                /* The loop watches a descriptor once only. */
                s->pipes.in = fcntl(tty, F_DUPFD_CLOEXEC, 3);
                if (s->pipes.in < 0)
                        return -errno;
        }
        r = pump_start(s, STREAM_RESIZE, tty);
        if (r >= 0)
                r = pump_start(s, STREAM_STDIN, s->pipes.in);
        if (r >= 0)
                r = pump_start(s, STREAM_STDOUT, tty >= 0 ? tty : s->pipes.out);
        if (r >= 0)
                r = pump_start(s, STREAM_STDERR, s->pipes.err);
        return r;
}

static void pumps_cancel(StreamSession *s) {
        FIBER_SHIELDED_SCOPE;

        for (StreamChannel kind = 0; kind < _STREAM_CHANNEL_MAX; kind++) {
                Pump *p = &s->pumps[kind];

                if (!p->fiber)
                        continue;
                fiber_cancel(p->fiber);
                (void) fiber_join(p->fiber, NULL);
                p->fiber = fiber_unref(p->fiber);
        }
}

int stream_session_finish(StreamSession *s) {
        int r = 0;

        pumps_cancel(s);
        for (StreamChannel kind = STREAM_STDOUT; kind <= STREAM_STDERR && r >= 0; kind++) {
                Channel *c = s->by_kind[kind];

                if (c && s->pumps[kind].session && !c->out_ended)
                        r = drain_out(c, s->pumps[kind].fd);
        }
        return r;
}

void session_pumps_stop(StreamSession *s) {
        pumps_cancel(s);
        s->pipes.in = safe_close(s->pipes.in);
        s->pipes.out = safe_close(s->pipes.out);
        s->pipes.err = safe_close(s->pipes.err);
        s->pipes.tty = safe_close(s->pipes.tty);
}
