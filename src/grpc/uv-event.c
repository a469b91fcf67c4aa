/* A libuv loop as a guest of sd-event.
 *
 * sd-event watches libuv's epoll descriptor, which covers all its descriptors. libuv's timers and its "run me right
 * now" (closing handles, descriptors not yet in its epoll set) are asked for in a prepare callback, which sd-event
 * calls just before it sleeps: so it doesn't matter whether libuv's state was last changed by libuv itself or by
 * somebody else's handler, such as a fiber that answers a call from a D-Bus reply. */

#include "grpc/uv-event.h"

#include <sys/epoll.h>

#include "basic/fiber.h"
#include "basic/log.h"

struct UvEvent {
        uv_loop_t loop;
        sd_event_source *io, *timer, *soon;
        uint64_t armed; /* when the timer fires, USEC_INFINITY while it is off */
        UvEventIdle idle;
        void *idle_userdata;
};

void uv_event_dispatch(UvEvent *u) {
        (void) uv_run(&u->loop, UV_RUN_NOWAIT);
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        uv_event_dispatch(userdata);
        return 0;
}

static int on_soon(sd_event_source *s, void *userdata) {
        uv_event_dispatch(userdata);
        return 0;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        UvEvent *u = userdata;

        u->armed = USEC_INFINITY;
        uv_event_dispatch(u);
        return 0;
}

static int on_prepare(sd_event_source *s, void *userdata) {
        UvEvent *u = userdata;
        uint64_t at;
        int r, msec;

        if (u->idle)
                u->idle(u->idle_userdata);

        /* Without anything alive uv_backend_timeout() is 0 for ever. */
        if (!uv_loop_alive(&u->loop))
                return 0;

        uv_update_time(&u->loop); /* libuv's clock stands still between its rounds */
        msec = uv_backend_timeout(&u->loop);
        if (msec == 0)
                return sd_event_source_set_enabled(u->soon, SD_EVENT_ONESHOT);
        if (msec < 0)
                return 0;

        /* Only ever armed earlier. A timer that moved away costs one wake-up at the old time, instead of a system call
         * each time a connection's idle timeout is pushed back, which is at every read. */
        at = now_usec(CLOCK_MONOTONIC) + (uint64_t) msec * USEC_PER_MSEC;
        if (at >= u->armed)
                return 0;
        r = sd_event_source_set_time(u->timer, at);
        if (r < 0)
                return r;
        u->armed = at;
        return sd_event_source_set_enabled(u->timer, SD_EVENT_ONESHOT);
}

int uv_event_new(sd_event *event, UvEvent **ret) {
        UvEvent *u;
        int r;

        u = calloc(1, sizeof *u);
        if (!u)
                return -ENOMEM;
        u->armed = USEC_INFINITY;
        r = uv_loop_init(&u->loop); /* libuv's errors are negative errnos */
        if (r < 0) {
                free(u);
                return r;
        }

        r = sd_event_add_io(event, &u->io, uv_backend_fd(&u->loop), EPOLLIN, on_io, u);
        if (r >= 0)
                r = sd_event_source_set_prepare(u->io, on_prepare);
        if (r >= 0)
                /* accuracy= */
                r = sd_event_add_time(event, &u->timer, CLOCK_MONOTONIC, 0, 1, on_timer, u);
        if (r >= 0)
                r = sd_event_source_set_enabled(u->timer, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_defer(event, &u->soon, on_soon, u);
        if (r >= 0)
                r = sd_event_source_set_enabled(u->soon, SD_EVENT_OFF);
        if (r < 0) {
                uv_event_free(u);
                return r;
        }
        (void) sd_event_source_set_description(u->io, "uv-io");
        (void) sd_event_source_set_description(u->timer, "uv-timer");
        (void) sd_event_source_set_description(u->soon, "uv-soon");

        *ret = u;
        return 0;
}

UvEvent *uv_event_free(UvEvent *u) {
        if (!u)
                return NULL;

        sd_event_source_disable_unref(u->io);
        sd_event_source_disable_unref(u->timer);
        sd_event_source_disable_unref(u->soon);
        /* A closed handle's callback runs in the next round, and may close others. */
        for (unsigned i = 0; i < 16; i++) {
                if (uv_loop_close(&u->loop) == 0)
                        return mfree(u);
                uv_event_dispatch(u);
        }
        log_debug("A libuv handle was left open, leaving its loop allocated");
        return NULL;
}

uv_loop_t *uv_event_loop(UvEvent *u) {
        return &u->loop;
}

void uv_event_set_idle(UvEvent *u, UvEventIdle idle, void *userdata) {
        u->idle = idle;
        u->idle_userdata = userdata;
}
