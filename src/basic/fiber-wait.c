/* The waits of a fiber that stand on a source of sd-event or a reply of sd-bus. */

#include <sys/epoll.h>

#include "basic/fiber.h"
#include "basic/kill-point.h"

typedef struct FdWait {
        Fiber *fiber;
        uint32_t events;
} FdWait;

static int on_io(sd_event_source *s, int fd, uint32_t events, void *userdata) {
        FdWait *w = userdata;

        /* Not SD_EVENT_ONESHOT, which would cost another epoll_ctl(). */
        (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
        w->events = events;
        fiber_wake(w->fiber, 0);
        fiber_run_ready(); /* *w is gone from here on */
        return 0;
}

static void source_disable_unrefp(sd_event_source **s) {
        (void) sd_event_source_disable_unref(*s);
}

int fiber_wait_fd(int fd, uint32_t events, uint64_t timeout_usec) {
        _cleanup_(source_disable_unrefp) sd_event_source *s = NULL;
        FdWait w = { .fiber = fiber_current() };
        uint64_t until = USEC_INFINITY;
        int r;

        if (!w.fiber)
                return -EDEADLK;
        r = fiber_check();
        if (r < 0)
                return r;
        r = sd_event_add_io(fiber_event(w.fiber), &s, fd, events, on_io, &w);
        if (r < 0)
                return r;
        if (timeout_usec != USEC_INFINITY && __builtin_add_overflow(now_usec(CLOCK_MONOTONIC), timeout_usec, &until))
                until = USEC_INFINITY;
        do {
                r = fiber_pause_until(until);
                if (w.events != 0 && (r >= 0 || r == -ETIMEDOUT))
                        return (int) w.events;
        } while (r >= 0);
        return r;
}

int fiber_wait_pidfd(int pidfd, uint64_t timeout_usec, siginfo_t *ret) {
        siginfo_t si = {};
        int r;

        r = fiber_wait_fd(pidfd, EPOLLIN, timeout_usec);
        if (r < 0)
                return r;
        if (waitid(P_PIDFD, (id_t) pidfd, &si, WEXITED) < 0)
                return -errno;
        if (ret)
                *ret = si;
        return 0;
}

typedef struct BusWait {
        Fiber *fiber;
        sd_bus_message *reply;
} BusWait;

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        BusWait *w = userdata;

        w->reply = sd_bus_message_ref(m);
        fiber_wake(w->fiber, 0);
        return 0;
}

int fiber_bus_call(sd_bus *bus, sd_bus_message *m, uint64_t timeout_usec, sd_bus_error *error,
                   sd_bus_message **ret_reply) {
        BusWait w = { .fiber = fiber_current() };
        sd_bus_slot *slot = NULL;
        int r;

        if (!w.fiber)
                return -EDEADLK;
        r = fiber_check();
        if (r < 0)
                return r;
        r = sd_bus_call_async(bus, &slot, m, on_reply, &w, timeout_usec);
        if (r < 0)
                return r;
        KILL_POINT_OF("bus-call.sent", sd_bus_message_get_member(m));
        do
                r = fiber_pause_until(USEC_INFINITY);
        while (r >= 0 && !w.reply);
        sd_bus_slot_unref(slot);
        if (r < 0) {
                sd_bus_message_unref(w.reply);
                return r;
        }
        if (sd_bus_message_is_method_error(w.reply, NULL)) {
                const sd_bus_error *e = sd_bus_message_get_error(w.reply);

                r = -sd_bus_message_get_errno(w.reply);
                if (error)
                        (void) sd_bus_error_copy(error, e);
                sd_bus_message_unref(w.reply);
                return r < 0 ? r : -EIO;
        }
        if (ret_reply)
                *ret_reply = w.reply;
        else
                sd_bus_message_unref(w.reply);
        return 0;
}
