/* Port-forward: the client opens two streams for each connection, "error" and "data", that carry the same request ID
 * and port. Each pair has a fiber that connects and then moves what comes back; another moves what goes there. */

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "basic/string-util.h"
#include "stream/session.h"

#define REQUEST_ID_MAX 63U
#define ROUNDS_A_TURN 8U

typedef struct Forward {
        StreamSession *session;
        struct Forward *next, *previous;
        char id[REQUEST_ID_MAX + 1];
        uint16_t port;
        Channel *data, *error;
        Fiber *fiber, *up;
        int fd, up_fd; /* one each, since the loop watches a descriptor once only */
        FiberQueue complete;
} Forward;

/* --- moving ------------------------------------------------------------------------------------------------------ */

/* From the client into the pod. */
static int move_up(void *userdata) {
        Forward *f = userdata;
        const char *data;
        size_t size;
        ssize_t n;
        int r;

        for (unsigned round = 1;; round++) {
                r = channel_read(f->data, &data, &size);
                if (r < 0)
                        return r;
                if (size == 0) {
                        (void) shutdown(f->fd, SHUT_WR);
                        return 0;
                }
                n = send(f->up_fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (n >= 0) {
                        channel_take(f->data, (size_t) n);
                        r = round % ROUNDS_A_TURN == 0 ? fiber_yield() : 0;
                } else if (errno == EAGAIN)
                        r = fiber_wait_fd(f->up_fd, EPOLLOUT, USEC_INFINITY);
                else if (errno != EINTR) {
                        /* It may still have something to say. */
                        channel_discard(f->data);
                        return 0;
                }
                if (r < 0)
                        return r;
        }
}

/* And back. */
static int move_down(Forward *f) {
        static char buffer[PUMP_SIZE]; /* never kept across a wait */
        size_t room;
        ssize_t n;
        int r;

        for (unsigned round = 1;; round++) {
                r = channel_wait_room(f->data, &room);
                if (r < 0)
                        return r;
                n = recv(f->fd, buffer, MIN(room, sizeof buffer), MSG_DONTWAIT);
                if (n > 0) {
                        r = channel_put(f->data, buffer, (size_t) n);
                        if (r >= 0 && round % ROUNDS_A_TURN == 0)
                                r = fiber_yield();
                } else if (n == 0)
                        return 0;
                else if (errno == EAGAIN)
                        r = fiber_wait_fd(f->fd, EPOLLIN, USEC_INFINITY);
                else if (errno != EINTR)
                        return -errno;
                if (r < 0)
                        return r;
        }
}

/* --- a pair ------------------------------------------------------------------------------------------------------ */

static void tell(Forward *f, int r, const Error *error) {
        _cleanup_free_ char *text = strprintf("cannot forward to port %u: %s", f->port,
                                              error->message ? error->message : strerror(-r));

        if (text)
                (void) channel_put(f->error, text, MIN(strlen(text), (size_t) PUMP_SIZE));
}

static int forward(Forward *f) {
        _cleanup_error_ Error error = ERROR_INIT;
        StreamSession *s = f->session;
        uint64_t until = now_usec(CLOCK_MONOTONIC) + STREAM_CREATION_USEC;
        int r;

        while (!f->data || !f->error) {
                r = fiber_queue_wait_until(&f->complete, until);
                if (r < 0)
                        return r;
        }
        r = s->request.ops->connect(f->port, s->request.userdata, &f->fd, &error);
        if (r < 0) {
                if (fiber_check() >= 0)
                        tell(f, r, &error);
                return r;
        }
        f->up_fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 3);
        if (f->up_fd < 0)
                return -errno;
        r = fiber_spawn(s->event, "stream-forward-up", move_up, f, NULL, &f->up);
        if (r < 0)
                return r;
        r = move_down(f);
        /* The other direction goes on, until the client has ended it as well. */
        if (r >= 0) {
                channel_end(f->data);
                (void) fiber_join(f->up, NULL);
        }
        /* That one connection was reset is no message: the field's client gives up all of them for one. */
        return r;
}

static void end_channel(Channel *c) {
        if (!c)
                return;
        channel_end(c);
        channel_free(c);
}

static int run_forward(void *userdata) {
        Forward *f = userdata;
        StreamSession *s = f->session;

        (void) forward(f);
        if (f->up) {
                FIBER_SHIELDED_SCOPE;

                fiber_cancel(f->up);
                (void) fiber_join(f->up, NULL);
        }
        (void) fiber_unref(f->up);
        (void) safe_close(f->fd);
        (void) safe_close(f->up_fd);
        if (f->data && (!f->data->in_ended || !f->data->out_ended) && !f->data->reset) {
                session_put_reset(s, f->data->id, SPDY_CANCEL);
                f->data->out_ended = true;
        }
        /* The client waits for the end of the error stream. */
        end_channel(f->data);
        end_channel(f->error);

        if (f->next)
                f->next->previous = f->previous;
        if (f->previous)
                f->previous->next = f->next;
        else
                s->forwards = f->next;
        s->n_forwards--;
        fiber_queue_wake(&s->forward_gone, 0);
        (void) fiber_unref(f->fiber);
        free(f);
        return 0;
}

void forward_reset(Channel *c) {
        if (c->forward)
                fiber_cancel(c->forward->fiber);
}

void forwards_stop(StreamSession *s) {
        FIBER_SHIELDED_SCOPE;

        for (Forward *f = s->forwards; f; f = f->next)
                fiber_cancel(f->fiber);
        while (s->forwards)
                (void) fiber_queue_wait(&s->forward_gone);
}

/* --- streams ----------------------------------------------------------------------------------------------------- */

static Forward *find(StreamSession *s, const char *id, uint16_t port, bool is_data) {
        for (Forward *f = s->forwards; f; f = f->next)
                if (streq(f->id, id) && f->port == port && !(is_data ? f->data : f->error) &&
                    !fiber_is_cancelled(f->fiber))
                        return f;
        return NULL;
}

static int add(StreamSession *s, const char *id, uint16_t port, Forward **ret) {
        Forward *f = calloc(1, sizeof *f);
        int r;

        if (!f)
                return -ENOMEM;
        f->session = s;
        f->port = port;
        f->fd = f->up_fd = -1;
        memcpy(f->id, id, strlen(id) + 1);
        f->next = s->forwards;
        if (f->next)
                f->next->previous = f;
        s->forwards = f;
        s->n_forwards++;
        /* Waits for its channels first. */
        r = fiber_spawn(s->event, "stream-forward", run_forward, f, NULL, &f->fiber);
        if (r < 0) {
                s->forwards = f->next;
                if (f->next)
                        f->next->previous = NULL;
                s->n_forwards--;
                free(f);
                return r;
        }
        if (s->forwards != f) /* it could not even wait */
                return -ENOMEM;
        *ret = f;
        return 0;
}

int forward_stream(StreamSession *s, uint32_t id, const SpdyHeaders *h) {
        const char *type = spdy_header(h, "streamtype"), *request_id = spdy_header(h, "requestid");
        bool is_data = streq_ptr(type, "data");
        char number[16];
        uint32_t port;
        Channel *c;
        Forward *f;
        int r;

        if (!is_data && !streq_ptr(type, "error"))
                return SPDY_REFUSED_STREAM;
        if (!spdy_header(h, "port") || parse_u32(spdy_header(h, "port"), &port) < 0 || port == 0 || port > UINT16_MAX)
                return SPDY_REFUSED_STREAM;
        /* Old clients have none: they open the error stream, then the data stream right after it. */
        if (!request_id) {
                (void) snprintf(number, sizeof number, "%u", is_data && id >= 2 ? id - 2 : id);
                request_id = number;
        }
        if (strlen(request_id) > REQUEST_ID_MAX)
                return SPDY_REFUSED_STREAM;

        f = find(s, request_id, (uint16_t) port, is_data);
        if (!f) {
                r = add(s, request_id, (uint16_t) port, &f);
                if (r < 0)
                        return r;
        }
        r = channel_new(s, id, is_data ? STREAM_STDIN : STREAM_ERROR, &c);
        if (r < 0)
                return r;
        c->forward = f;
        if (is_data)
                f->data = c;
        else {
                f->error = c;
                c->discard = true;
        }
        fiber_queue_wake(&f->complete, 0);
        return 0;
}
