/* A session whose other end is a packet socket: a container's streams, of which a pod's process has the descriptors. */

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "stream/session.h"

#define ROUNDS_A_TURN 8U

/* One packet; -EAGAIN: the socket takes none now. */
static int put_packet(int socket, StreamPacket type, const void *data, size_t size) {
        uint8_t first = (uint8_t) type;
        struct iovec iov[] = { { &first, 1 }, { (void *) data, size } };
        struct msghdr m = { .msg_iov = iov, .msg_iovlen = ELEMENTSOF(iov) };
        ssize_t n;

        do
                n = sendmsg(socket, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : 0;
}

static int packets_in(void *userdata) {
        Pump *p = userdata;
        Channel *c = p->session->by_kind[STREAM_STDIN];
        const char *data;
        size_t size;
        int r;

        for (;;) {
                r = channel_read(c, &data, &size);
                if (r < 0)
                        return r;
                size = MIN(size, (size_t) STREAM_PACKET_MAX);
                r = put_packet(p->fd, size > 0 ? STREAM_PACKET_STDIN : STREAM_PACKET_STDIN_END, data, size);
                if (r == -EAGAIN) {
                        r = fiber_wait_fd(p->fd, EPOLLOUT, USEC_INFINITY);
                        if (r < 0)
                                return r;
                        continue; /* the data may have moved meanwhile */
                }
                if (r < 0 || size == 0)
                        return r;
                channel_take(c, size);
        }
}

static int packets_resize(void *userdata) {
        Pump *p = userdata;
        uint16_t size[2];
        int r;

        for (;;) {
                r = session_resize(p->session, &size[0], &size[1]);
                while (r >= 0) {
                        r = put_packet(p->fd, STREAM_PACKET_RESIZE, size, sizeof size);
                        if (r != -EAGAIN)
                                break;
                        r = fiber_wait_fd(p->fd, EPOLLOUT, USEC_INFINITY);
                }
                if (r < 0)
                        return r;
        }
}

/* (fiber) Waits until every channel that output may go to has room: which one it will be is known too late. */
static int wait_room(StreamSession *s) {
        int r;

        r = connection_wait_room(&s->connection);
        for (StreamChannel kind = STREAM_STDOUT; kind <= STREAM_STDERR && r >= 0; kind++) {
                size_t room = STREAM_PACKET_MAX;

                while (r >= 0 && s->by_kind[kind] && !s->by_kind[kind]->out_ended) {
                        r = channel_wait_room(s->by_kind[kind], &room);
                        if (r < 0 || room >= STREAM_PACKET_MAX || !s->windowed)
                                break;
                        r = fiber_queue_wait(&s->window_grown);
                }
                if (r == -EPIPE)
                        r = 0;
        }
        return r;
}

/* One packet. 1: done, 0: that was the last one. */
static int packets_out(StreamSession *s, int socket) {
        static uint8_t packet[1 + STREAM_PACKET_MAX]; /* never kept across a wait */
        StreamChannel kind = STREAM_STDOUT;
        ssize_t n;

        do
                n = recv(socket, packet, sizeof packet, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n <= 0)
                return n < 0 ? -errno : -EPIPE;
        switch (packet[0]) {
        case STREAM_PACKET_STDERR:
                kind = STREAM_STDERR;
                __attribute__((__fallthrough__));
        case STREAM_PACKET_STDOUT:
                if (!s->by_kind[kind] || s->by_kind[kind]->out_ended)
                        return 1; /* nobody wants it */
                return channel_put(s->by_kind[kind], packet + 1, (size_t) n - 1) < 0 ? -EPIPE : 1;
        case STREAM_PACKET_END:
                return 0;
        case STREAM_PACKET_OVERRUN:
                return -ENOBUFS;
        default:
                return 1; /* of a later version */
        }
}

void stream_session_end(StreamSession *s) {
        s->ending = true;
        fiber_wake(s->packets, 0);
}

typedef struct Readiness {
        Fiber *fiber;
} Readiness;

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        Readiness *ready = userdata;

        (void) sd_event_source_set_enabled(source, SD_EVENT_OFF);
        fiber_wake(ready->fiber, 0);
        fiber_run_ready();
        return 0;
}

static int move_packets(StreamSession *s, int socket, sd_event_source *source) {
        int r;

        for (unsigned round = 1;; round++) {
                r = wait_room(s);
                if (r < 0)
                        return r;
                r = packets_out(s, socket);
                if (r == -EAGAIN) {
                        if (s->ending)
                                return 0;
                        r = sd_event_source_set_enabled(source, SD_EVENT_ON);
                        /* By the socket, or by stream_session_end(). */
                        if (r >= 0)
                                r = fiber_pause_until(USEC_INFINITY);
                } else if (r == 0)
                        return 0;
                else if (r > 0 && round % ROUNDS_A_TURN == 0)
                        r = fiber_yield();
                if (r < 0)
                        return r;
        }
}

int stream_session_packets(StreamSession *s, int socket) {
        static const struct {
                StreamChannel kind;
                FiberFunc func;
        } inputs[] = { { STREAM_STDIN, packets_in }, { STREAM_RESIZE, packets_resize } };
        Readiness ready = { .fiber = fiber_current() };
        sd_event_source *source = NULL;
        int r;

        r = sd_event_add_io(s->event, &source, socket, EPOLLIN, on_readable, &ready);
        if (r < 0)
                return r;
        s->packets = fiber_current();
        for (size_t i = 0; i < ELEMENTSOF(inputs) && r >= 0; i++) {
                int *own = inputs[i].kind == STREAM_STDIN ? &s->pipes.in : &s->pipes.tty;
                Pump *p = &s->pumps[inputs[i].kind];

                if (!s->by_kind[inputs[i].kind])
                        continue;
                /* The loop watches a descriptor once only. */
                *own = fcntl(socket, F_DUPFD_CLOEXEC, 3);
                if (*own < 0) {
                        r = -errno;
                        break;
                }
                *p = (Pump) { .session = s, .kind = inputs[i].kind, .fd = *own };
                r = fiber_spawn(s->event, "stream-packets", inputs[i].func, p, NULL, &p->fiber);
        }
        if (r >= 0)
                r = move_packets(s, socket, source);
        s->packets = NULL;
        session_pumps_stop(s);
        sd_event_source_disable_unref(source);
        return r;
}
