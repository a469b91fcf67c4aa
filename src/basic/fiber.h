#pragma once
/* Fibers: a request runs on a small stack of its own and reads from top to bottom; whenever it waits, the sd-event
 * loop goes on with the others. No threads: a fiber is only ever left inside one of the wait functions below.
 *
 * Cancellation: fiber_cancel() makes the current wait, and every later one, return -ECANCELED. A deadline does the
 * same with -ETIME. Code that undoes what was begun and has to wait for it runs shielded (fiber_shield()): there waits
 * ignore both. */

#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "basic/macro.h"

typedef struct Fiber Fiber;
typedef int (*FiberFunc)(void *userdata);

/* Makes a fiber and runs it at once, until its first wait. `destroy` (may be NULL) is called with userdata when the
 * fiber has ended. ret may be NULL: the fiber then frees itself. Returns -ENOMEM when there is no room for a stack.
 * `name` is for logs; it is not copied and must outlive the fiber. */
int fiber_spawn(sd_event *event, const char *name, FiberFunc func, void *userdata, void (*destroy)(void *userdata),
                Fiber **ret);
Fiber *fiber_ref(Fiber *f);
Fiber *fiber_unref(Fiber *f);
DEFINE_TRIVIAL_CLEANUP_FUNC(Fiber *, fiber_unref);

/* The running fiber, or NULL in the loop's own context. */
Fiber *fiber_current(void);
const char *fiber_name(const Fiber *f);
sd_event *fiber_event(const Fiber *f);
bool fiber_is_done(const Fiber *f);
/* Cancelled, or past its deadline: its waits end. */
bool fiber_is_cancelled(const Fiber *f);
/* What the function returned; -EBUSY while it runs. */
int fiber_result(const Fiber *f);

void fiber_cancel(Fiber *f);
/* Absolute, CLOCK_MONOTONIC µs; USEC_INFINITY for none. A new one takes the place of one that has passed. */
int fiber_set_deadline(Fiber *f, uint64_t usec);
uint64_t fiber_deadline(const Fiber *f);

/* While shielded, cancellation and deadline don't end waits. Nests. */
void fiber_shield(void);
void fiber_unshield(void);
static inline void fiber_unshield_cleanup(const int *unused) {
        fiber_unshield();
}
/* `FIBER_SHIELDED_SCOPE;` shields until the block ends. */
#define FIBER_SHIELDED_SCOPE FIBER_SHIELDED_SCOPE_(__COUNTER__)
#define FIBER_SHIELDED_SCOPE_(n) FIBER_SHIELDED_SCOPE__(n)
#define FIBER_SHIELDED_SCOPE__(n)                                                                                      \
        _cleanup_(fiber_unshield_cleanup) _unused_ const int _shielded_##n = (fiber_shield(), 0)

/* 0, or why a wait would end now: -ECANCELED, -ETIME. For long work between waits. */
int fiber_check(void);

/* Sleeps until somebody calls fiber_wake(); returns what fiber_wake() gave (0 or negative), or -ECANCELED, -ETIME.
 * A wake-up that comes before the sleep is not lost; several before one sleep are one, the first result stays.
 * Call it in a loop around the condition. */
int fiber_suspend(void);
/* The same, at most until the time (absolute CLOCK_MONOTONIC µs), then -ETIMEDOUT. */
int fiber_suspend_until(uint64_t usec);
/* For wait functions made of these: 0 for any wake-up, whatever its result was, -ETIMEDOUT at the time, -ECANCELED,
 * -ETIME. A wake-up that was meant for an earlier wait may be among them: the loop looks at its own condition. */
int fiber_pause_until(uint64_t usec);
/* Makes the fiber runnable; it continues from the loop, never inside this call. Safe on a fiber that is done. */
void fiber_wake(Fiber *f, int result);

/* For the end of a handler of a source of one's own: runs what is ready now, not in the loop's next turn. Does nothing
 * inside a fiber. */
void fiber_run_ready(void);

/* This and the waits below take no notice of what fiber_wake() gave: they go on until their own end. */

/* Gives the loop one turn, so that others run. */
int fiber_yield(void);
int fiber_sleep(uint64_t usec);

/* Waits until the other fiber has ended; *ret_result gets what it returned. Being cancelled ends this wait only. */
int fiber_join(Fiber *f, int *ret_result);

/* Waits for events (EPOLLIN, …) on a descriptor. Returns the events, or -ETIMEDOUT after timeout_usec (relative,
 * USEC_INFINITY for never), -ECANCELED, -ETIME. */
int fiber_wait_fd(int fd, uint32_t events, uint64_t timeout_usec);

/* Waits for a child through its pidfd and reaps it (waitid(P_PIDFD, WEXITED)). Does not kill on cancellation. */
int fiber_wait_pidfd(int pidfd, uint64_t timeout_usec, siginfo_t *ret);

/* An asynchronous method call, waited for. As sd_bus_call(): 0 or positive, or a negative errno with *error set.
 * timeout_usec 0 means sd-bus's default. On cancellation the reply is dropped. */
int fiber_bus_call(sd_bus *bus, sd_bus_message *m, uint64_t timeout_usec, sd_bus_error *error,
                   sd_bus_message **ret_reply);

/* Fibers that wait for one thing. */
typedef struct FiberQueue {
        struct FiberWaiter *waiters;
} FiberQueue;

/* Waits until fiber_queue_wake() of that queue; returns its result. The queue must outlive the wait. */
int fiber_queue_wait(FiberQueue *q);
int fiber_queue_wait_until(FiberQueue *q, uint64_t usec);
/* Wakes all that wait now. */
void fiber_queue_wake(FiberQueue *q, int result);

/* One fiber at a time, in the order they came. Zeroed memory is an unlocked lock. */
typedef struct FiberLock {
        Fiber *owner;
        FiberQueue queue;
} FiberLock;

/* Waits for the lock; -ECANCELED, -ETIME: not locked. -EDEADLK: it is ours already. */
int fiber_lock(FiberLock *l);
/* Hands it to the fiber that has waited longest. */
void fiber_unlock(FiberLock *l);
static inline void fiber_unlockp(FiberLock **l) {
        if (*l)
                fiber_unlock(*l);
}
/* `_cleanup_fiber_unlock_ FiberLock *lock = &p->lock;` after fiber_lock(). */
#define _cleanup_fiber_unlock_ _cleanup_(fiber_unlockp) _unused_

/* Runs func in a fiber on the loop until it has ended, for tests and tools: the loop runs meanwhile. Returns func's
 * result. */
int fiber_run(sd_event *event, FiberFunc func, void *userdata);

uint64_t now_usec(clockid_t clock);
/* Fibers that exist now, for tests. */
size_t fiber_count(void);
