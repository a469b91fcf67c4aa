#pragma once
/* A client's socket: reads in one fiber, output that any fiber may queue. What a client doesn't read is bounded: data
 * is only queued when there is room, and a peer that makes us answer more than CONNECTION_OUT_MAX is cut off. */

#include <sys/uio.h>

#include "basic/fiber.h"
#include "basic/macro.h"
#include "stream/tls.h"

#define CONNECTION_OUT_MARK (64U * 1024U)  /* unsent bytes above which nobody adds data */
#define CONNECTION_OUT_MAX  (512U * 1024U) /* with answers to what the peer sends, pings above all */

typedef struct Connection {
        int fd;
        SSL *ssl;         /* NULL: plain */
        bool read_writes; /* TLS has to write before it can read on */
        sd_event_source *source;
        uint32_t events; /* that the source waits for */
        char *out;
        size_t out_start, out_size, out_allocated;
        int error;        /* negative errno: the connection is of no use any more */
        bool interrupted; /* connection_read() returns */
        bool hangup;      /* the peer will send nothing more, or is gone */
        uint64_t active_usec; /* CLOCK_MONOTONIC: when bytes last went either way */
        FiberQueue readable, writable;
} Connection;

/* Takes the socket, which is non-blocking, in any case. tls: NULL for none; only used here. */
int connection_init(Connection *c, sd_event *event, int fd, StreamTls *tls);
void connection_done(Connection *c);

/* (fiber; one at a time) Waits for bytes. 0: the peer has ended its side. -EINTR after connection_interrupt(),
 * -ETIMEDOUT at `until` (CLOCK_MONOTONIC µs). */
ssize_t connection_read(Connection *c, void *data, size_t size, uint64_t until);
/* (fiber) Without reading, so that the peer has to wait: until connection_interrupt(), or connection_resume(), or the
 * peer is gone (-ECONNRESET). */
int connection_pause(Connection *c, uint64_t until);
void connection_resume(Connection *c);
void connection_interrupt(Connection *c);

/* Queues, and sends what the kernel takes now; doesn't wait. An error is the connection's end. */
int connection_put(Connection *c, const struct iovec *iov, size_t n);
static inline bool connection_has_room(const Connection *c) {
        return c->out_size < CONNECTION_OUT_MARK;
}
/* (fiber) Waits until there is room for more. */
int connection_wait_room(Connection *c);
/* (fiber) Waits until all is sent. */
int connection_flush(Connection *c, uint64_t until);
/* (fiber) After the last byte: ends our side and waits until the peer has taken note, since closing with unread input
 * would throw away what is on its way. */
void connection_linger(Connection *c, uint64_t until);
