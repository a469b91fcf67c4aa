/* A server for test-protocol.py: methods that do what a test needs, requests and answers being plain text.
 *
 *   grpc-test-server SOCKET|fd:N [DRAIN_MSEC]
 *
 * SIGTERM drains; exits 0 when that was in time, 3 when not. */

#include <malloc.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "basic/fiber.h"
#include "grpc/grpc.h"

static GrpcServer *server;
static unsigned n_ok, n_cancelled, n_expired, n_corrupt;
static uint64_t drain_usec = 5 * USEC_PER_SEC;
static int exit_code = -1;

static int count(int r) {
        if (r >= 0)
                n_ok++;
        else if (r == -ECANCELED)
                n_cancelled++;
        else if (r == -ETIME)
                n_expired++;
        return r;
}

/* The numbers of a request, up to three. */
static void parse(const void *request, size_t size, unsigned long ret[static 3]) {
        char text[128] = "", *p = text;

        memcpy(text, request, MIN(size, sizeof text - 1));
        for (unsigned i = 0; i < 3; i++)
                ret[i] = strtoul(p, &p, 10);
}

static int send_text(GrpcCall *call, const char *text) {
        return grpc_call_send(call, text, strlen(text));
}

static int echo(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        return grpc_call_send(call, request, size);
}

static int do_sleep(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        unsigned long n[3];
        int r;

        parse(request, size, n);
        r = count(fiber_sleep(n[0] * USEC_PER_MSEC));
        return r < 0 ? r : send_text(call, "slept");
}

/* Goes on for a while whatever happens, and looks whether its request is still there. */
static int stubborn(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        _cleanup_free_ char *copy = malloc(size + 1);
        unsigned long n[3];

        if (!copy)
                return -ENOMEM;
        memcpy(copy, request, size);
        parse(request, size, n);
        {
                FIBER_SHIELDED_SCOPE;
                (void) fiber_sleep(n[0] * USEC_PER_MSEC);
        }
        if (memcmp(copy, request, size) != 0)
                n_corrupt++;
        (void) count(fiber_check());
        return send_text(call, "done");
}

static int big(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        unsigned long n[3];
        char *message;

        parse(request, size, n);
        message = grpc_message_alloc(n[0]);
        if (!message)
                return -ENOMEM;
        memset(message, 'x', n[0]);
        return grpc_call_send_take(call, message, n[0]);
}

/* "COUNT SIZE MSEC": so many messages, so long apart. */
static int stream(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        unsigned long n[3];
        int r;

        parse(request, size, n);
        for (unsigned long i = 0; i < n[0]; i++) {
                char *message = grpc_message_alloc(n[1]);

                if (!message)
                        return -ENOMEM;
                memset(message, (int) ('a' + i % 26), n[1]);
                r = grpc_call_send_take(call, message, n[1]);
                if (r < 0)
                        return count(r);
                if (grpc_call_queued(call) > GRPC_QUEUE_MAX + n[1] + 5)
                        n_corrupt++;
                if (n[2] > 0) {
                        r = fiber_sleep(n[2] * USEC_PER_MSEC);
                        if (r < 0)
                                return count(r);
                }
        }
        return count(0);
}

/* "CODE text" */
static int fail(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        char text[8192] = "", *p;
        unsigned long code;

        memcpy(text, request, MIN(size, sizeof text - 1));
        code = strtoul(text, &p, 10);
        return error_setf(error, (GrpcCode) code, "%s", p + (*p == ' '));
}

/* "COUNT CODE": an error after so many messages. */
static int fail_late(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        unsigned long n[3];
        int r;

        parse(request, size, n);
        for (unsigned long i = 0; i < n[0]; i++) {
                r = send_text(call, "before");
                if (r < 0)
                        return r;
        }
        return error_setf(error, (GrpcCode) n[1], "late");
}

static int plain_errno(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        unsigned long n[3];

        parse(request, size, n);
        return -(int) n[0];
}

static int silent(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        return 0;
}

static int twice(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        int r;

        r = send_text(call, "one");
        if (r < 0)
                return r;
        return send_text(call, "two");
}

static int data(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        return send_text(call, grpc_call_method(call)->data);
}

static int stats(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        char text[256];

        (void) snprintf(text, sizeof text, "calls=%zu fibers=%zu ok=%u cancelled=%u expired=%u corrupt=%u",
                        grpc_server_live_calls(server), fiber_count(), n_ok, n_cancelled, n_expired, n_corrupt);
        return send_text(call, text);
}

/* Gives memory back to the kernel, so that a test can look at the resident size. */
static int trim(GrpcCall *call, const void *request, size_t size, void *userdata, Error *error) {
        (void) malloc_trim(0);
        return send_text(call, "trimmed");
}

static const GrpcMethod methods[] = {
        { .path = "/test.Test/Echo", .handler = echo },
        { .path = "/test.Test/Sleep", .handler = do_sleep },
        { .path = "/test.Test/Stubborn", .handler = stubborn },
        { .path = "/test.Test/Big", .handler = big },
        { .path = "/test.Test/Stream", .handler = stream, .streaming = true },
        { .path = "/test.Test/Fail", .handler = fail },
        { .path = "/test.Test/FailLate", .handler = fail_late },
        { .path = "/test.Test/StreamFailLate", .handler = fail_late, .streaming = true },
        { .path = "/test.Test/Errno", .handler = plain_errno },
        { .path = "/test.Test/Silent", .handler = silent },
        { .path = "/test.Test/StreamSilent", .handler = silent, .streaming = true },
        { .path = "/test.Test/Twice", .handler = twice },
        { .path = "/test.Test/Data", .handler = data, .data = (void *) "attached" },
        { .path = "/test.Test/Stats", .handler = stats },
        { .path = "/test.Test/Trim", .handler = trim },
        {},
};

static int drain(void *userdata) {
        int r;

        grpc_server_drain(server);
        r = grpc_server_drain_wait(server, drain_usec);
        exit_code = r < 0 ? 3 : 0;
        return r;
}

static int on_sigterm(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata) {
        return fiber_spawn(sd_event_source_get_event(source), "drain", drain, NULL, NULL, NULL);
}

static int run(const char *address) {
        _cleanup_(sd_event_unrefp) sd_event *event = NULL;
        _cleanup_error_ Error error = ERROR_INIT;
        sigset_t mask;
        int r;

        r = sd_event_new(&event);
        if (r < 0)
                return r;
        (void) sigemptyset(&mask);
        (void) sigaddset(&mask, SIGTERM);
        (void) sigprocmask(SIG_BLOCK, &mask, NULL);
        r = sd_event_add_signal(event, NULL, SIGTERM, on_sigterm, NULL);
        if (r < 0)
                return r;

        r = grpc_server_new(event, methods, NULL, &server);
        if (r < 0)
                return r;
        if (strncmp(address, "fd:", 3) == 0)
                r = grpc_server_listen(server, atoi(address + 3), &error);
        else
                r = grpc_server_listen_unix(server, address, &error);
        if (r < 0) {
                fprintf(stderr, "%s\n", error.message);
                server = grpc_server_free(server);
                return r;
        }
        printf("ready\n");
        (void) fflush(stdout);

        while (exit_code < 0) {
                r = sd_event_run(event, UINT64_MAX);
                if (r < 0)
                        return r;
        }
        server = grpc_server_free(server);
        /* Handlers that still undo things end in the loop. */
        for (unsigned i = 0; fiber_count() > 0 && i < 1000; i++)
                (void) sd_event_run(event, 10 * USEC_PER_MSEC);
        return fiber_count() > 0 ? 4 : exit_code;
}

int main(int argc, char *argv[]) {
        int r;

        if (argc < 2) {
                fprintf(stderr, "usage: %s SOCKET|fd:N [DRAIN_MSEC]\n", argv[0]);
                return 2;
        }
        if (argc > 2)
                drain_usec = strtoul(argv[2], NULL, 10) * USEC_PER_MSEC;
        r = run(argv[1]);
        return r < 0 ? EXIT_FAILURE : r;
}
