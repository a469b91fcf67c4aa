#include "stream/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#define IOV_MAX_HERE 8U

static void set_events(Connection *c, uint32_t events) {
        if (c->events == events || !c->source)
                return;
        if (sd_event_source_set_io_events(c->source, events) >= 0)
                c->events = events;
}

static void fail(Connection *c, int r) {
        if (c->error == 0)
                c->error = r;
        free(c->out);
        c->out = NULL;
        c->out_start = c->out_size = c->out_allocated = 0;
        /* A dead socket is ready for ever. */
        if (c->source)
                (void) sd_event_source_set_enabled(c->source, SD_EVENT_OFF);
        fiber_queue_wake(&c->readable, 0);
        fiber_queue_wake(&c->writable, 0);
}

/* Negative errno, as with stream_tls_read() and stream_tls_write(). */
static ssize_t receive(Connection *c, void *data, size_t size) {
        ssize_t n;

        if (c->ssl)
                return stream_tls_read(c->ssl, data, size, &c->read_writes);
        n = recv(c->fd, data, size, MSG_DONTWAIT);
        return n < 0 ? -errno : n;
}

static ssize_t transmit(Connection *c, const struct iovec *iov, size_t n) {
        struct msghdr m = { .msg_iov = (struct iovec *) iov, .msg_iovlen = n };
        ssize_t k, sum = 0;

        if (!c->ssl) {
                k = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
                return k < 0 ? -errno : k;
        }
        for (size_t i = 0; i < n; i++)
                for (size_t done = 0; done < iov[i].iov_len; done += (size_t) k) {
                        k = stream_tls_write(c->ssl, (const char *) iov[i].iov_base + done, iov[i].iov_len - done);
                        if (k < 0)
                                return sum > 0 && k == -EAGAIN ? sum : k;
                        sum += k;
                }
        return sum;
}

static void send_queued(Connection *c) {
        while (c->out_size > 0) {
                ssize_t n = transmit(c, &(const struct iovec) { c->out + c->out_start, c->out_size }, 1);

                if (n == -EINTR)
                        continue;
                if (n < 0) {
                        if (n != -EAGAIN)
                                fail(c, (int) n);
                        break;
                }
                c->out_start += (size_t) n;
                c->out_size -= (size_t) n;
                c->active_usec = now_usec(CLOCK_MONOTONIC);
        }
        if (c->out_size == 0) {
                /* Sessions are idle most of the time. */
                free(c->out);
                c->out = NULL;
                c->out_start = c->out_allocated = 0;
        }
        set_events(c, c->out_size > 0 ? c->events | EPOLLOUT : c->events & ~(uint32_t) EPOLLOUT);
        if (connection_has_room(c))
                fiber_queue_wake(&c->writable, 0);
}

static int on_socket(sd_event_source *s, int fd, uint32_t events, void *userdata) {
        Connection *c = userdata;

        if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                c->hangup = true;
        if (events & (EPOLLHUP | EPOLLERR) && !(events & EPOLLIN)) {
                int error = 0;

                (void) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t) { sizeof error });
                fail(c, error > 0 ? -error : -ECONNRESET);
                fiber_run_ready();
                return 0;
        }
        if (events & EPOLLOUT) {
                if (c->read_writes)
                        set_events(c, c->events & ~(uint32_t) EPOLLOUT); /* the reader wakes up and tries again */
                send_queued(c);
        }
        /* Left on while somebody reads, which saves two system calls a read. */
        if ((events & (EPOLLIN | EPOLLRDHUP)) && !c->readable.waiters)
                set_events(c, c->events & ~(uint32_t) (EPOLLIN | EPOLLRDHUP));
        fiber_queue_wake(&c->readable, 0);
        fiber_run_ready();
        return 0;
}

int connection_init(Connection *c, sd_event *event, int fd, StreamTls *tls) {
        int r = 0;

        *c = (Connection) { .fd = fd, .active_usec = now_usec(CLOCK_MONOTONIC) };
        if (tls)
                r = stream_tls_accept(tls, fd, &c->ssl);
        if (r >= 0)
                r = sd_event_add_io(event, &c->source, fd, 0, on_socket, c);
        if (r < 0) {
                connection_done(c);
                return r;
        }
        (void) sd_event_source_set_description(c->source, "stream-connection");
        return 0;
}

void connection_done(Connection *c) {
        c->source = sd_event_source_disable_unref(c->source);
        SSL_free(c->ssl);
        c->ssl = NULL;
        c->fd = safe_close(c->fd);
        free(c->out);
        c->out = NULL;
        c->out_size = 0;
}

ssize_t connection_read(Connection *c, void *data, size_t size, uint64_t until) {
        int r;

        for (;;) {
                ssize_t n;

                if (c->interrupted)
                        return -EINTR;
                if (c->error < 0)
                        return c->error;
                n = receive(c, data, size);
                if (n >= 0) {
                        if (n > 0)
                                c->active_usec = now_usec(CLOCK_MONOTONIC);
                        return n;
                }
                if (n == -EINTR)
                        continue;
                if (n != -EAGAIN)
                        return n;
                set_events(c, c->events | EPOLLIN | EPOLLRDHUP | (c->read_writes ? (uint32_t) EPOLLOUT : 0));
                r = fiber_queue_wait_until(&c->readable, until);
                if (r < 0)
                        return r;
        }
}

int connection_pause(Connection *c, uint64_t until) {
        if (c->interrupted)
                return -EINTR;
        if (c->error < 0 || c->hangup)
                return c->error < 0 ? c->error : -ECONNRESET;
        set_events(c, (c->events & ~(uint32_t) EPOLLIN) | EPOLLRDHUP);
        return fiber_queue_wait_until(&c->readable, until);
}

void connection_resume(Connection *c) {
        fiber_queue_wake(&c->readable, 0);
}

void connection_interrupt(Connection *c) {
        c->interrupted = true;
        fiber_queue_wake(&c->readable, 0);
}

static int append(Connection *c, const char *data, size_t size) {
        size_t end = c->out_start + c->out_size;

        if (c->out_size + size > CONNECTION_OUT_MAX)
                return -ENOBUFS;
        if (end + size > c->out_allocated && c->out_start > 0) {
                memmove(c->out, c->out + c->out_start, c->out_size);
                c->out_start = 0;
                end = c->out_size;
        }
        if (end + size > c->out_allocated) {
                size_t allocated = MAX(MIN(c->out_allocated * 2, CONNECTION_OUT_MAX), end + size);
                char *p = realloc(c->out, allocated);

                if (!p)
                        return -ENOMEM;
                c->out = p;
                c->out_allocated = allocated;
        }
        memcpy(c->out + end, data, size);
        c->out_size += size;
        return 0;
}

int connection_put(Connection *c, const struct iovec *iov, size_t n) {
        size_t sent = 0;
        int r;

        if (c->error < 0)
                return c->error;
        if (n > IOV_MAX_HERE)
                return -EINVAL;
        if (c->out_size == 0) {
                ssize_t k = transmit(c, iov, n);

                if (k < 0 && k != -EAGAIN && k != -EINTR) {
                        fail(c, (int) k);
                        return (int) k;
                }
                if (k > 0) {
                        sent = (size_t) k;
                        c->active_usec = now_usec(CLOCK_MONOTONIC);
                }
        }
        for (size_t i = 0; i < n; i++) {
                size_t skip = MIN(sent, iov[i].iov_len);

                sent -= skip;
                if (skip == iov[i].iov_len)
                        continue;
                r = append(c, (const char *) iov[i].iov_base + skip, iov[i].iov_len - skip);
                if (r < 0) {
                        fail(c, r);
                        return r;
                }
        }
        if (c->out_size > 0)
                set_events(c, c->events | EPOLLOUT);
        return 0;
}

int connection_wait_room(Connection *c) {
        int r;

        for (;;) {
                if (c->error < 0)
                        return c->error;
                if (connection_has_room(c))
                        return 0;
                r = fiber_queue_wait(&c->writable);
                if (r < 0)
                        return r;
        }
}

int connection_flush(Connection *c, uint64_t until) {
        int r;

        while (c->error == 0 && c->out_size > 0) {
                r = fiber_queue_wait_until(&c->writable, until);
                if (r < 0)
                        return r;
        }
        return c->error;
}

void connection_linger(Connection *c, uint64_t until) {
        static char ignored[16 * 1024];
        ssize_t n;

        c->interrupted = false;
        if (connection_flush(c, until) < 0)
                return;
        if (c->ssl)
                (void) SSL_shutdown(c->ssl); /* says that nothing is missing */
        if (shutdown(c->fd, SHUT_WR) < 0)
                return;
        do
                n = connection_read(c, ignored, sizeof ignored, until);
        while (n > 0);
}
