/* libFuzzer: whatever a client does, the server lives, and nothing is left of it when the client is gone.
 *
 * The input is a list of things to do: frames of any kind, whole calls, floods that fill the socket, reading some
 * of what came back, turns of the loop. Random bytes alone would hardly get past the first frame; the states worth
 * finding (such as h2o's assertions) need streams, windows and a peer that doesn't read. */

#include <fcntl.h>
#include <sys/socket.h>

#include "grpc/server-internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FRAME_HEADER 9U
#define STREAMS 32U

typedef struct Input {
        const uint8_t *data;
        size_t size;
} Input;

typedef struct Client {
        sd_event *event;
        int fd;
        uint32_t next_stream;
        bool stuck; /* the socket is full: nothing more is sent until something is read */
} Client;

static uint8_t take(Input *in) {
        if (in->size == 0)
                return 0;
        in->size--;
        return *in->data++;
}

static size_t take_bytes(Input *in, size_t size, const uint8_t **ret) {
        size = MIN(size, in->size);
        *ret = in->data;
        in->data += size;
        in->size -= size;
        return size;
}

static void turn(Client *c, unsigned n) {
        while (n-- > 0 && sd_event_run(c->event, 0) > 0)
                ;
}

static void send_bytes(Client *c, const void *bytes, size_t size) {
        const uint8_t *p = bytes;

        for (unsigned tries = 0; size > 0 && !c->stuck;) {
                ssize_t n = send(c->fd, p, size, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0) {
                        c->stuck = ++tries > 16;
                        turn(c, 8);
                        continue;
                }
                p += n;
                size -= (size_t) n;
        }
}

static void receive(Client *c, size_t size) {
        uint8_t buffer[16384];

        while (size > 0) {
                ssize_t n = recv(c->fd, buffer, MIN(size, sizeof buffer), MSG_DONTWAIT);

                if (n <= 0)
                        return;
                size -= (size_t) n;
                c->stuck = false;
                turn(c, 4); /* the server writes more of what is stuck */
        }
}

static void put_word(uint8_t word[static 4], uint32_t value) {
        word[0] = (uint8_t) (value >> 24);
        word[1] = (uint8_t) (value >> 16);
        word[2] = (uint8_t) (value >> 8);
        word[3] = (uint8_t) value;
}

static void send_frame(Client *c, uint8_t type, uint8_t flags, uint32_t stream_id, const void *payload, size_t size) {
        uint8_t frame[FRAME_HEADER + 64 * 256];

        put_word(frame, (uint32_t) size << 8 | type);
        frame[4] = flags;
        put_word(frame + 5, stream_id);
        memcpy(frame + FRAME_HEADER, payload, size);
        send_bytes(c, frame, FRAME_HEADER + size);
}

static void send_setting(Client *c, uint8_t id, uint32_t value) {
        uint8_t payload[6] = { 0, id };

        put_word(payload + 2, value);
        send_frame(c, 4, 0, 0, payload, sizeof payload);
}

static uint8_t *put(uint8_t *p, const char *s) {
        size_t n = strlen(s);

        *p++ = (uint8_t) n;
        return (uint8_t *) mempcpy(p, s, n);
}

static const char *const paths[] = { "/f/Echo", "/f/Sleep", "/f/Stream", "/f/Fail", "/f/Silent", "/f/Large", "/none" };
static const char *const timeouts[] = { NULL, "1m", "0S", "100u", "bad" };

/* A call with a good header block, or nearly; its message is from the input. */
static void send_call(Client *c, Input *in) {
        uint8_t block[512], body[5 + 255] = {}, *p = block, variant = take(in);
        const char *timeout = timeouts[variant % ELEMENTSOF(timeouts)];
        const uint8_t *message;
        uint32_t id = c->next_stream;
        size_t size;

        *p++ = 0x83; /* :method POST */
        *p++ = 0x86; /* :scheme http */
        *p++ = 0x04;
        p = put(p, paths[take(in) % ELEMENTSOF(paths)]);
        *p++ = 0x0f; /* content-type */
        *p++ = 0x10;
        p = put(p, variant & 64 ? "text/plain" : "application/grpc");
        if (timeout) {
                *p++ = 0;
                p = put(p, "grpc-timeout");
                p = put(p, timeout);
        }
        if (variant & 128) {
                *p++ = 0;
                p = put(p, "x-bad");
                p = put(p, "a\1b");
        }

        c->next_stream += 2;
        send_frame(c, 1, variant & 32 ? 5 : 4, id, block, (size_t) (p - block));
        size = take_bytes(in, take(in), &message);
        body[4] = (uint8_t) size;
        memcpy(body + 5, message, size);
        if (!(variant & 32))
                send_frame(c, 0, variant & 16 ? 0 : 1, id, body, 5 + size);
}

static uint32_t take_stream(Client *c, Input *in) {
        uint8_t b = take(in);

        /* Mostly one of the last streams, or the next. */
        return b < 224 ? c->next_stream - 2 * MIN(b % STREAMS, c->next_stream / 2) : b - 224U;
}

static uint32_t take_value(Input *in) {
        uint8_t b = take(in);

        /* Small ones, powers of two and their neighbours. */
        return b < 128 ? b : ((UINT32_C(1) << (b & 31)) - (b & 32 ? 1 : 0)) & 0x7fffffff;
}

static void step(Client *c, Input *in) {
        static const uint8_t zeros[8];
        const uint8_t *payload;
        uint8_t op = take(in), flags, word[4];
        uint32_t id;
        size_t size;

        switch (op & 15) {
        case 0 ... 9:
                flags = take(in);
                id = take_stream(c, in);
                size = take_bytes(in, op & 128 ? (size_t) take(in) * 64 : take(in), &payload);
                send_frame(c, op & 15, flags, id, payload, size);
                break;
        case 10:
        case 11:
                send_call(c, in);
                break;
        case 12:
                if (op & 128)
                        send_setting(c, 4, take_value(in));
                else
                        for (unsigned i = take(in) * 8U; i > 0; i--)
                                send_frame(c, 6, 0, 0, zeros, sizeof zeros);
                break;
        case 13:
                id = op & 128 ? 0 : take_stream(c, in);
                put_word(word, take_value(in));
                send_frame(c, 8, 0, id, word, sizeof word);
                break;
        case 14:
                turn(c, op >> 4);
                break;
        case 15:
                receive(c, take(in) * 1024U);
                break;
        }
}

static int echo(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        return grpc_call_send(call, request, size);
}

static int do_sleep(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        int r;

        r = fiber_yield();
        if (r < 0)
                return r;
        return grpc_call_send(call, request, size);
}

static int stream(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        int r;

        for (size_t i = 0; i < size; i++) {
                char *message = grpc_message_alloc(((const uint8_t *) request)[i] * 256U);

                if (!message)
                        return -ENOMEM;
                memset(message, 's', ((const uint8_t *) request)[i] * 256U);
                r = grpc_call_send_take(call, message, ((const uint8_t *) request)[i] * 256U);
                if (r < 0)
                        return r;
                if (i % 3 == 0) {
                        r = fiber_yield();
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}

static int fail(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        return error_setf(error, size > 0 ? 1 + ((const uint8_t *) request)[0] % 16 : GRPC_UNKNOWN, "%.*s", (int) size,
                          (const char *) request);
}

static int silent(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        return 0;
}

static int large(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        char *message = grpc_message_alloc(300000);

        if (!message)
                return -ENOMEM;
        memset(message, 'l', 300000);
        return grpc_call_send_take(call, message, 300000);
}

static const GrpcMethod methods[] = {
        { .path = "/f/Echo", .handler = echo },
        { .path = "/f/Sleep", .handler = do_sleep },
        { .path = "/f/Stream", .handler = stream, .streaming = true },
        { .path = "/f/Fail", .handler = fail },
        { .path = "/f/Silent", .handler = silent },
        { .path = "/f/Large", .handler = large },
        {},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static sd_event *event;
        static GrpcServer *server;
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        Input in = { data, size };
        Client c = { .next_stream = 1 };
        uint8_t mode = take(&in);
        int fds[2];

        if (!event && (sd_event_new(&event) < 0 || grpc_server_new(event, methods, NULL, &server) < 0))
                abort();
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
                abort();
        /* Small, so that a few frames fill it and writes are stuck half-way. */
        if (setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &(int) { 4096 }, sizeof(int)) < 0)
                abort();
        c.event = event;
        c.fd = fds[1];
        server_accept(server, fds[0]);

        if (mode & 1)
                send_bytes(&c, preface, STRLEN("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        if (mode & 2)
                send_setting(&c, 4, take_value(&in));
        if (mode & 4) /* as it comes */
                send_bytes(&c, in.data, in.size);
        else
                while (in.size > 0)
                        step(&c, &in);
        if (mode & 8)
                receive(&c, SIZE_MAX);
        turn(&c, mode >> 4);

        (void) close(c.fd);
        for (unsigned i = 0; server->n_connections > 0 || server->n_calls > 0 || fiber_count() > 0; i++) {
                if (i > 10000)
                        abort();
                (void) sd_event_run(event, USEC_PER_MSEC);
        }
        return 0;
}
