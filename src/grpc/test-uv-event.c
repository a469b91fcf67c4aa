#include <sys/socket.h>

#include "basic/fiber.h"
#include "basic/test.h"
#include "grpc/uv-event.h"

static unsigned n_idle;

static void count_idle(void *userdata) {
        n_idle++;
}

static void on_uv_timer(uv_timer_t *timer) {
        (*(unsigned *) timer->data)++;
}

static void run_for(sd_event *event, uint64_t usec) {
        uint64_t end = now_usec(CLOCK_MONOTONIC) + usec, now;

        while ((now = now_usec(CLOCK_MONOTONIC)) < end)
                CHECK(sd_event_run(event, end - now) >= 0);
}

static void uv_timers_fire_on_time_and_nothing_spins(void) {
        _cleanup_(sd_event_unrefp) sd_event *event = NULL;
        UvEvent *u = NULL;
        unsigned n = 0;
        uv_timer_t timer;
        uint64_t start;

        CHECK(sd_event_new(&event) >= 0);
        CHECK(uv_event_new(event, &u) >= 0);
        uv_event_set_idle(u, count_idle, NULL);
        CHECK(uv_timer_init(uv_event_loop(u), &timer) == 0);
        timer.data = &n;
        CHECK(uv_timer_start(&timer, on_uv_timer, 50, 0) == 0);
        start = now_usec(CLOCK_MONOTONIC);
        n_idle = 0;
        while (n == 0)
                CHECK(sd_event_run(event, USEC_PER_SEC) >= 0);
        CHECK(now_usec(CLOCK_MONOTONIC) - start >= 49 * USEC_PER_MSEC);
        CHECK(now_usec(CLOCK_MONOTONIC) - start < 900 * USEC_PER_MSEC);
        CHECK(n_idle < 10);

        /* One that is put off costs at most one wake-up at the old time; one that is pulled in fires earlier. */
        CHECK(uv_timer_start(&timer, on_uv_timer, 40, 0) == 0);
        CHECK(sd_event_run(event, 0) >= 0);
        CHECK(uv_timer_start(&timer, on_uv_timer, 10000, 0) == 0);
        n_idle = 0;
        run_for(event, 100 * USEC_PER_MSEC);
        CHECK(n == 1 && n_idle < 10);
        CHECK(uv_timer_start(&timer, on_uv_timer, 20, 0) == 0);
        run_for(event, 100 * USEC_PER_MSEC);
        CHECK(n == 2);

        uv_close((uv_handle_t *) &timer, NULL);
        uv_event_free(u);
}

static void uv_runs_although_somebody_else_changed_it(void) {
        _cleanup_(sd_event_unrefp) sd_event *event = NULL;
        UvEvent *u = NULL;
        unsigned n = 0;
        uv_timer_t timer;

        CHECK(sd_event_new(&event) >= 0);
        CHECK(uv_event_new(event, &u) >= 0);
        CHECK(sd_event_run(event, 0) >= 0);
        /* From outside any callback, and due at once. */
        CHECK(uv_timer_init(uv_event_loop(u), &timer) == 0);
        timer.data = &n;
        CHECK(uv_timer_start(&timer, on_uv_timer, 0, 0) == 0);
        CHECK(sd_event_run(event, USEC_PER_SEC) > 0);
        CHECK(n == 1);
        uv_close((uv_handle_t *) &timer, NULL);
        CHECK(sd_event_run(event, USEC_PER_SEC) > 0);
        /* With nothing alive in it there is nothing to do either. */
        CHECK(sd_event_run(event, 10 * USEC_PER_MSEC) == 0);
        uv_event_free(u);
}

static void alloc_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buf) {
        static char memory[64];

        *buf = uv_buf_init(memory, sizeof memory);
}

static void on_uv_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf) {
        if (size > 0)
                *(unsigned *) stream->data += (unsigned) size;
}

static void uv_descriptors_are_served(void) {
        _cleanup_(sd_event_unrefp) sd_event *event = NULL;
        _cleanup_close_ int peer = -1;
        UvEvent *u = NULL;
        unsigned n = 0;
        uv_pipe_t pipe;
        int fds[2];

        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
        peer = fds[1];
        CHECK(sd_event_new(&event) >= 0);
        CHECK(uv_event_new(event, &u) >= 0);
        CHECK(uv_pipe_init(uv_event_loop(u), &pipe, 0) == 0);
        CHECK(uv_pipe_open(&pipe, fds[0]) == 0);
        pipe.data = &n;
        CHECK(uv_read_start((uv_stream_t *) &pipe, alloc_buffer, on_uv_read) == 0);
        for (unsigned i = 1; i <= 10; i++) {
                CHECK(write(peer, "x", 1) == 1);
                while (n < i)
                        CHECK(sd_event_run(event, USEC_PER_SEC) > 0);
        }
        uv_close((uv_handle_t *) &pipe, NULL);
        uv_event_free(u);
}

TEST_MAIN(TEST_CASE(uv_timers_fire_on_time_and_nothing_spins), TEST_CASE(uv_runs_although_somebody_else_changed_it),
          TEST_CASE(uv_descriptors_are_served))
