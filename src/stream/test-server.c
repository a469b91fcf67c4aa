/* The server with clients on loopback: tokens, refusals, and sessions whose command is a loop of ours. */

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "basic/string-util.h"
#include "basic/test.h"
#include "stream/session.h"

static StreamServer *server;
static unsigned n_freed, n_run, n_cancelled;

/* --- what the sessions do ---------------------------------------------------------------------------------------- */

/* "cat" and an exit code. */
static int run_cat(StreamSession *s, void *userdata, int *ret_exit_code, Error *error) {
        int in[2], out[2];
        StreamPipes pipes = STREAM_PIPES_NONE;

        n_run++;
        CHECK(pipe2(in, O_CLOEXEC | O_NONBLOCK) >= 0 && pipe2(out, O_CLOEXEC | O_NONBLOCK) >= 0);
        pipes.in = in[1];
        pipes.out = out[0];
        CHECK_EQ(stream_session_start(s, &pipes), 0);
        for (;;) {
                char buffer[4096];
                ssize_t n;
                int r = fiber_wait_fd(in[0], EPOLLIN, USEC_INFINITY);

                if (r < 0) {
                        n_cancelled++;
                        close(in[0]);
                        close(out[1]);
                        return error_set(error, r, "given up");
                }
                n = read(in[0], buffer, sizeof buffer);
                if (n <= 0 || buffer[0] == 'q')
                        break;
                CHECK_EQ(write(out[1], buffer, (size_t) n), n);
        }
        CHECK_EQ(write(out[1], "bye", 3), 3);
        close(in[0]);
        close(out[1]);
        *ret_exit_code = 3;
        return stream_session_finish(s);
}

static int connect_nowhere(uint16_t port, void *userdata, int *ret_fd, Error *error) {
        return error_setf(error, GRPC_UNAVAILABLE, "nobody at %u", port);
}

static void free_request(void *userdata) {
        n_freed++;
}

static const StreamOps ops = { .run = run_cat, .connect = connect_nowhere, .free = free_request };

/* --- clients ----------------------------------------------------------------------------------------------------- */

/* Not inlined: GCC 12 would take what is returned for the address of the variable, and warn. */
__attribute__((noinline)) static char *prepare(StreamKind kind) {
        char *url = NULL;

        CHECK_EQ(stream_server_prepare(server, &(StreamRequest) { kind, .in = true, .out = true, .ops = &ops }, &url, NULL), 0);
        return url;
}

static int dial(const char *url) {
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        unsigned port;

        CHECK_EQ(sscanf(url, "http://127.0.0.1:%u/", &port), 1);
        address.sin_port = htons((uint16_t) port);
        CHECK(fd >= 0);
        CHECK(connect(fd, (struct sockaddr *) &address, sizeof address) >= 0 || errno == EINPROGRESS);
        CHECK(fiber_wait_fd(fd, EPOLLOUT, 5 * USEC_PER_SEC) > 0);
        return fd;
}

static void ask(int fd, const char *url, const char *fields) {
        _cleanup_free_ char *head = strprintf("GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", strchr(url + 7, '/'), fields);

        CHECK(head && write(fd, head, strlen(head)) == (ssize_t) strlen(head));
}

/* Reads until the text is there, or the end; the buffer is kept between calls. */
static char got[65536];
static size_t n_got;

static bool read_until(int fd, const char *text) {
        for (;;) {
                ssize_t n;

                if (text && memmem(got, n_got, text, strlen(text)))
                        return true;
                if (fiber_wait_fd(fd, EPOLLIN, 5 * USEC_PER_SEC) < 0)
                        return false;
                n = read(fd, got + n_got, sizeof got - 1 - n_got);
                if (n <= 0)
                        return !text;
                n_got += (size_t) n;
                got[n_got] = 0;
        }
}

#define WEBSOCKET(protocol)                                                                                           \
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"                                  \
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: " protocol "\r\n"

static int begin(const char *url, const char *fields) {
        int fd = dial(url);

        n_got = 0;
        ask(fd, url, fields);
        return fd;
}

/* A message with a mask of zeroes. */
static void say(int fd, uint8_t first, const char *data, size_t n) {
        uint8_t frame[128] = { first, (uint8_t) (0x80 | n) };

        memcpy(frame + 6, data, n);
        CHECK_EQ(write(fd, frame, n + 6), (ssize_t) n + 6);
}

static void wait_gone(size_t n) {
        for (unsigned i = 0; i < 500 && stream_server_sessions(server) > n; i++)
                CHECK(fiber_sleep(10 * USEC_PER_MSEC) >= 0);
        CHECK_EQ(stream_server_sessions(server), n);
}

/* --- tests ------------------------------------------------------------------------------------------------------- */

static int sessions(void *userdata) {
        _cleanup_free_ char *url = prepare(STREAM_EXEC), *url2 = NULL, *url3 = NULL;
        int fd;

        fd = begin(url, WEBSOCKET("v9.channel.k8s.io, v5.channel.k8s.io"));
        CHECK(read_until(fd, "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"));
        say(fd, 0x82, "\0hello", 6);
        CHECK(read_until(fd, "\001hello"));
        say(fd, 0x89, "ping", 4);
        CHECK(read_until(fd, "\x8a\004ping"));
        say(fd, 0x82, "\xff\0", 2); /* the end of its input */
        CHECK(read_until(fd, "\001bye"));
        CHECK(read_until(fd, "\"ExitCode\",\"message\":\"3\""));
        CHECK(read_until(fd, "\x88\002\x03\xe8"));
        close(fd);
        wait_gone(0);
        CHECK_EQ(n_freed, 1);

        url2 = prepare(STREAM_EXEC);
        fd = begin(url2, WEBSOCKET("base64.channel.k8s.io"));
        CHECK(read_until(fd, "base64.channel.k8s.io\r\n\r\n"));
        say(fd, 0x81, "0aGVsbG8=", 9);
        CHECK(read_until(fd, "1aGVsbG8="));
        say(fd, 0x81, "0cQ==", 5);
        CHECK(read_until(fd, "1Ynll"));
        CHECK(read_until(fd, "\x88\002"));
        close(fd);

        /* One that is torn. */
        url3 = prepare(STREAM_EXEC);
        fd = begin(url3, WEBSOCKET("v4.channel.k8s.io"));
        CHECK(read_until(fd, "\r\n\r\n"));
        say(fd, 0x82, "\0hello", 6);
        CHECK(read_until(fd, "\001hello"));
        close(fd);
        wait_gone(0);
        CHECK_EQ(n_cancelled, 1);
        CHECK_EQ(n_run, 3);
        return 0;
}

static int refusals(void *userdata) {
        static const struct {
                const char *fields, *status;
        } cases[] = {
                { "", "400" },
                { "Connection: Upgrade\r\nUpgrade: h2c\r\n", "400" },
                { "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v9\r\n", "403" },
                { WEBSOCKET("v9.channel.k8s.io"), "403" },
                { WEBSOCKET("SPDY/3.1+portforward.k8s.io"), "403" },
                { "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n", "426" },
                { "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", "400" },
        };
        unsigned freed = n_freed;
        int fd;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *url = prepare(STREAM_EXEC), *as = NULL;

                as = strprintf("HTTP/1.1 %s ", cases[i].status);
                fd = begin(url, cases[i].fields);
                CHECK(read_until(fd, as));
                CHECK(read_until(fd, NULL));
                close(fd);
                wait_gone(0);
                CHECK_EQ(n_freed, freed + i + 1);
                /* It is used up. */
                fd = begin(url, WEBSOCKET("v4.channel.k8s.io"));
                CHECK(read_until(fd, "HTTP/1.1 404 "));
                close(fd);
        }
        /* Another kind's path. */
        _cleanup_free_ char *url = prepare(STREAM_EXEC), *attach = NULL;

        attach = strprintf("http://127.0.0.1:%d/attach/%s", atoi(url + STRLEN("http://127.0.0.1:")), strrchr(url, '/') + 1);
        fd = begin(attach, WEBSOCKET("v4.channel.k8s.io"));
        CHECK(read_until(fd, "HTTP/1.1 404 "));
        close(fd);
        CHECK_EQ(stream_server_tokens(server), 1);
        fd = begin(url, WEBSOCKET("v4.channel.k8s.io"));
        CHECK(read_until(fd, "HTTP/1.1 101 "));
        close(fd);
        fd = dial(url);
        n_got = 0;
        CHECK(write(fd, "nonsense\r\n\r\n", 12) == 12);
        CHECK(read_until(fd, "HTTP/1.1 400 "));
        close(fd);
        wait_gone(0);
        return 0;
}

static int age(void *userdata) {
        _cleanup_free_ char *url = prepare(STREAM_EXEC);
        uint64_t made = now_usec(CLOCK_MONOTONIC);
        unsigned freed = n_freed;
        int fd;

        CHECK_EQ(STREAM_TOKEN_USEC, 60 * USEC_PER_SEC);
        CHECK_EQ(stream_server_tokens(server), 1);
        stream_server_expire(server, made + STREAM_TOKEN_USEC - USEC_PER_SEC);
        CHECK_EQ(stream_server_tokens(server), 1);
        stream_server_expire(server, made + STREAM_TOKEN_USEC);
        CHECK_EQ(stream_server_tokens(server), 0);
        CHECK_EQ(n_freed, freed + 1);
        fd = begin(url, WEBSOCKET("v4.channel.k8s.io"));
        CHECK(read_until(fd, "HTTP/1.1 404 "));
        close(fd);
        wait_gone(0);
        return 0;
}

static int limits(void *userdata) {
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_free_ char *last = NULL;
        unsigned freed = n_freed;
        char *url;

        for (unsigned i = 0; i < STREAM_TOKENS_MAX; i++) {
                free(last);
                last = prepare(STREAM_PORT_FORWARD);
        }
        CHECK(stream_server_prepare(server, &(StreamRequest) { STREAM_EXEC, .ops = &ops }, &url, &error) < 0);
        CHECK_EQ(error.code, GRPC_RESOURCE_EXHAUSTED);
        CHECK_EQ(n_freed, freed + 1);
        return 0;
}

static size_t descriptors(void) {
        DIR *d = opendir("/proc/self/fd");
        size_t n = 0;

        CHECK(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static int deaths(void *userdata) {
        size_t before = descriptors();

        for (unsigned i = 0; i < 1000; i++) {
                _cleanup_free_ char *url = prepare(STREAM_EXEC);
                int fd = i % 4 == 0 ? dial(url) : begin(url, i % 4 == 1 ? "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
                                                                        : WEBSOCKET("v5.channel.k8s.io"));

                if (i % 4 == 3)
                        CHECK(read_until(fd, "\r\n\r\n"));
                if (i % 2)
                        (void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger) { 1, 0 }, sizeof(struct linger));
                close(fd);
        }
        wait_gone(0);
        CHECK_EQ(descriptors(), before);
        return 0;
}

static void with_server(FiberFunc func) {
        unsigned freed = n_freed;
        sd_event *event = NULL;

        CHECK_EQ(sd_event_new(&event), 0);
        CHECK_EQ(stream_server_new(event, NULL, 0, NULL, &server, NULL), 0);
        CHECK_EQ(fiber_run(event, func, NULL), 0);
        server = stream_server_free(server);
        CHECK(n_freed > freed);
        while (fiber_count() > 0)
                CHECK(sd_event_run(event, 100 * USEC_PER_MSEC) >= 0);
        sd_event_unref(event);
}

static void sessions_move_bytes_and_end(void) {
        with_server(sessions);
}
static void what_is_not_right_is_refused_and_used_up(void) {
        with_server(refusals);
}
static void a_url_lasts_a_minute(void) {
        with_server(age);
}
static void pending_requests_are_bounded(void) {
        with_server(limits);
}
static void a_thousand_deaths_leave_nothing(void) {
        with_server(deaths);
}
static void only_addresses_are_listened_at(void) {
        sd_event *event = NULL;

        CHECK_EQ(sd_event_new(&event), 0);
        CHECK(stream_server_new(event, "localhost", 0, NULL, &server, NULL) < 0);
        CHECK_EQ(stream_server_new(event, "::1", 0, NULL, &server, NULL), 0);
        server = stream_server_free(server);
        sd_event_unref(event);
}

TEST_MAIN(TEST_CASE(sessions_move_bytes_and_end), TEST_CASE(what_is_not_right_is_refused_and_used_up),
          TEST_CASE(a_url_lasts_a_minute), TEST_CASE(pending_requests_are_bounded), TEST_CASE(a_thousand_deaths_leave_nothing),
          TEST_CASE(only_addresses_are_listened_at))
