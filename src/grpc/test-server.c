#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "basic/fiber.h"
#include "basic/test.h"
#include "grpc/grpc.h"

static int nothing(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        return 0;
}

static const GrpcMethod methods[] = { { .path = "/a.B/C", .handler = nothing }, {} };

typedef struct Fixture {
        sd_event *event;
        GrpcServer *server;
        char directory[64], path[80];
} Fixture;

static Fixture fixture_new(void) {
        Fixture f = { .directory = "/tmp/test-grpc.XXXXXX" };

        CHECK(mkdtemp(f.directory));
        (void) snprintf(f.path, sizeof f.path, "%s/socket", f.directory);
        CHECK(sd_event_new(&f.event) >= 0);
        CHECK(grpc_server_new(f.event, methods, NULL, &f.server) >= 0);
        return f;
}

static void fixture_done(Fixture *f) {
        grpc_server_free(f->server);
        sd_event_unref(f->event);
        CHECK(access(f->path, F_OK) < 0);
        CHECK(rmdir(f->directory) == 0);
        CHECK_EQ(fiber_count(), 0);
}

static int connect_to(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        CHECK(fd >= 0);
        strcpy(address.sun_path, path);
        if (connect(fd, (struct sockaddr *) &address, sizeof address) < 0) {
                close(fd);
                return -1;
        }
        return fd;
}

static void a_server_that_was_never_used(void) {
        Fixture f = fixture_new();

        fixture_done(&f);
}

static void a_server_that_goes_with_connections_open(void) {
        _cleanup_error_ Error error = ERROR_INIT;
        Fixture f = fixture_new();
        int fds[10];
        char c;

        CHECK(grpc_server_listen_unix(f.server, f.path, &error) == 0);
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                fds[i] = connect_to(f.path);
                CHECK(fds[i] >= 0);
        }
        while (sd_event_run(f.event, 10 * USEC_PER_MSEC) > 0)
                ;
        f.server = grpc_server_free(f.server);
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                CHECK(read(fds[i], &c, 1) == 0);
                close(fds[i]);
        }
        CHECK(connect_to(f.path) < 0);
        fixture_done(&f);
}

static void two_servers_in_one_loop(void) {
        _cleanup_error_ Error error = ERROR_INIT;
        Fixture f = fixture_new(), g = fixture_new();

        CHECK(grpc_server_listen_unix(f.server, f.path, &error) == 0);
        CHECK(grpc_server_listen_unix(g.server, g.path, &error) == 0);
        CHECK_EQ(grpc_server_listen_unix(g.server, f.path, &error), -EADDRINUSE);
        CHECK(error.message && strstr(error.message, "Another process serves"));
        fixture_done(&f);
        error_clear(&error);
        CHECK(grpc_server_listen_unix(g.server, f.path, &error) < 0); /* the directory is gone */
        fixture_done(&g);
}

static void a_listener_must_be_a_listening_unix_stream(void) {
        static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
        Fixture f = fixture_new();

        for (size_t i = 0; i < ELEMENTSOF(types); i++) {
                _cleanup_error_ Error error = ERROR_INIT;
                int fd = socket(AF_UNIX, types[i] | SOCK_CLOEXEC, 0);

                CHECK(fd >= 0);
                CHECK(grpc_server_listen(f.server, fd, &error) < 0);
                CHECK_EQ(error.code, GRPC_INVALID_ARGUMENT);
                CHECK(fcntl(fd, F_GETFD) < 0 && errno == EBADF); /* taken all the same */
        }
        fixture_done(&f);
}

static int drain(void *userdata) {
        Fixture *f = userdata;

        grpc_server_drain(f->server);
        grpc_server_drain(f->server);
        return grpc_server_drain_wait(f->server, 5 * USEC_PER_SEC);
}

static void draining_without_calls_is_quick(void) {
        _cleanup_error_ Error error = ERROR_INIT;
        Fixture f = fixture_new();
        uint64_t start = now_usec(CLOCK_MONOTONIC);
        int fd;

        CHECK(grpc_server_listen_unix(f.server, f.path, &error) == 0);
        fd = connect_to(f.path);
        CHECK(fd >= 0);
        CHECK(sd_event_run(f.event, USEC_PER_SEC) > 0);
        CHECK_EQ(fiber_run(f.event, drain, &f), 0);
        CHECK(now_usec(CLOCK_MONOTONIC) - start < USEC_PER_SEC);
        CHECK(access(f.path, F_OK) < 0);
        close(fd);
        fixture_done(&f);
}

static void sigpipe_is_ignored_but_a_handler_of_it_is_kept(void) {
        struct sigaction action;
        Fixture f;

        CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
        f = fixture_new();
        CHECK(sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_IGN);
        fixture_done(&f);
}

static void message_memory(void) {
        char *m = grpc_message_alloc(10);

        CHECK(m);
        memset(m, 'a', 10);
        m = grpc_message_realloc(m, 100000);
        CHECK(m && memcmp(m, "aaaaaaaaaa", 10) == 0);
        grpc_message_free(m);
        m = grpc_message_realloc(NULL, 0);
        CHECK(m);
        grpc_message_free(m);
        grpc_message_free(NULL);
        CHECK(!grpc_message_alloc(SIZE_MAX - 1));
}

TEST_MAIN(TEST_CASE(a_server_that_was_never_used), TEST_CASE(a_server_that_goes_with_connections_open),
          TEST_CASE(two_servers_in_one_loop), TEST_CASE(a_listener_must_be_a_listening_unix_stream),
          TEST_CASE(draining_without_calls_is_quick), TEST_CASE(sigpipe_is_ignored_but_a_handler_of_it_is_kept),
          TEST_CASE(message_memory))
