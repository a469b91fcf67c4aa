#include "basic/fiber.h"

#include <sys/mman.h>
#include <time.h>

#include "basic/context.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define STACK_SIZE (512U * 1024U)
#else
#define STACK_SIZE (128U * 1024U) /* address space; only what is touched becomes memory */
#endif
#define GUARD_SIZE (64U * 1024U) /* below the stack: more than one frame of any function */
#define STACK_POOL_MAX 16U

struct Fiber {
        unsigned n_ref;
        sd_event *event;
        const char *name;
        FiberFunc func;
        void *userdata;
        void (*destroy)(void *userdata);

        void *stack; /* with its guard below */
        Context context;
        Context *resumer;

        bool done, suspended, ready;
        bool woken, timed_out, cancelled, expired;
        int wake_result, result;
        unsigned shield;
        uint64_t deadline;
        sd_event_source *deadline_source, *timer_source;
        Fiber *ready_next;
        FiberQueue joiners;
};

/* A ring, of which the queue points to the last. */
struct FiberWaiter {
        Fiber *fiber;
        struct FiberWaiter *next, *previous;
        bool woken;
        int result;
};

/* One loop, one thread. */
static struct {
        Fiber *current;
        Context main;
        Fiber *ready_head, **ready_tail;
        sd_event *event;          /* borrowed: the source's event */
        sd_event_source *defer;   /* floating; cleared by its destroy callback */
        void *stacks[STACK_POOL_MAX];
        size_t n_stacks;
        size_t n_fibers;
} scheduler = { .ready_tail = &scheduler.ready_head };

uint64_t now_usec(clockid_t clock) {
        struct timespec ts;

        (void) clock_gettime(clock, &ts);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / NSEC_PER_USEC;
}

size_t fiber_count(void) {
        return scheduler.n_fibers;
}

static void *stack_new(void) {
        void *p;

        if (scheduler.n_stacks > 0)
                return scheduler.stacks[--scheduler.n_stacks];
        p = mmap(NULL, GUARD_SIZE + STACK_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1,
                 0);
        if (p == MAP_FAILED)
                return NULL;
        if (mprotect((char *) p + GUARD_SIZE, STACK_SIZE, PROT_READ | PROT_WRITE) < 0) {
                (void) munmap(p, GUARD_SIZE + STACK_SIZE);
                return NULL;
        }
        return p;
}

static void stack_free(void *p) {
        if (!p)
                return;
#if defined(__SANITIZE_ADDRESS__)
        /* The frames that were never returned from. */
        ASAN_UNPOISON_MEMORY_REGION((char *) p + GUARD_SIZE, STACK_SIZE);
#endif
        if (scheduler.n_stacks < STACK_POOL_MAX)
                scheduler.stacks[scheduler.n_stacks++] = p;
        else
                (void) munmap(p, GUARD_SIZE + STACK_SIZE);
}

static void fiber_main(void) {
        Fiber *f = scheduler.current;

        context_entered(f->resumer);
        f->result = f->func(f->userdata);
        f->done = true;
        context_switch(&f->context, f->resumer, /* last= */ true);
        abort();
}

static void fiber_finish(Fiber *f) {
        f->deadline_source = sd_event_source_disable_unref(f->deadline_source);
        f->timer_source = sd_event_source_disable_unref(f->timer_source);
        stack_free(f->stack);
        f->stack = NULL;
        scheduler.n_fibers--;
        if (f->destroy)
                f->destroy(f->userdata);
        fiber_queue_wake(&f->joiners, 0);
        fiber_unref(f);
}

/* Runs f until it suspends or ends; nested only in fiber_spawn(). */
static void fiber_resume(Fiber *f) {
        Fiber *previous = scheduler.current;

        f->suspended = false;
        f->resumer = previous ? &previous->context : &scheduler.main;
        scheduler.current = f;
        context_switch(f->resumer, &f->context, /* last= */ false);
        scheduler.current = previous;
        if (f->done)
                fiber_finish(f);
}

void fiber_run_ready(void) {
        Fiber *list = scheduler.ready_head;

        if (scheduler.current)
                return;
        /* Those made ready meanwhile wait for the next turn, so that sources get theirs. */
        scheduler.ready_head = NULL;
        scheduler.ready_tail = &scheduler.ready_head;
        while (list) {
                Fiber *f = list;

                list = f->ready_next;
                f->ready_next = NULL;
                f->ready = false;
                if (!f->done && f->suspended)
                        fiber_resume(f);
                fiber_unref(f);
        }
        if (!scheduler.ready_head && scheduler.defer)
                (void) sd_event_source_set_enabled(scheduler.defer, SD_EVENT_OFF);
}

static int on_defer(sd_event_source *s, void *userdata) {
        fiber_run_ready();
        return 0;
}

static void on_defer_destroyed(void *userdata) {
        scheduler.defer = NULL;
        scheduler.event = NULL;
}

static int scheduler_attach(sd_event *event) {
        sd_event_source *s;
        int r;

        if (scheduler.defer && scheduler.event == event)
                return 0;
        if (scheduler.n_fibers > 0)
                return -EBUSY;
        if (scheduler.defer)
                (void) sd_event_source_set_floating(scheduler.defer, false),
                                sd_event_source_disable_unref(scheduler.defer);
        r = sd_event_add_defer(event, &s, on_defer, NULL);
        if (r < 0)
                return r;
        (void) sd_event_source_set_description(s, "fibers");
        (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
        (void) sd_event_source_set_destroy_callback(s, on_defer_destroyed);
        r = sd_event_source_set_floating(s, true);
        if (r < 0) {
                sd_event_source_unref(s);
                return r;
        }
        sd_event_source_unref(s);
        scheduler.defer = s;
        scheduler.event = event;
        return 0;
}

static void fiber_make_ready(Fiber *f) {
        if (f->ready || f->done || !f->suspended)
                return;
        f->ready = true;
        fiber_ref(f);
        *scheduler.ready_tail = f;
        scheduler.ready_tail = &f->ready_next;
        if (scheduler.defer)
                (void) sd_event_source_set_enabled(scheduler.defer, SD_EVENT_ONESHOT);
}

int fiber_spawn(sd_event *event, const char *name, FiberFunc func, void *userdata, void (*destroy)(void *userdata),
                Fiber **ret) {
        Fiber *f;
        int r;

        r = scheduler_attach(event);
        if (r < 0)
                return r;
        f = calloc(1, sizeof(Fiber));
        if (!f)
                return -ENOMEM;
        f->stack = stack_new();
        if (!f->stack) {
                free(f);
                return -ENOMEM;
        }
        f->n_ref = ret ? 2 : 1;
        f->event = sd_event_ref(event);
        f->name = name;
        f->func = func;
        f->userdata = userdata;
        f->destroy = destroy;
        f->deadline = USEC_INFINITY;
        context_init(&f->context, (char *) f->stack + GUARD_SIZE, STACK_SIZE, fiber_main);
        scheduler.n_fibers++;
        if (ret)
                *ret = f;
        fiber_resume(f);
        return 0;
}

Fiber *fiber_ref(Fiber *f) {
        if (f)
                f->n_ref++;
        return f;
}

Fiber *fiber_unref(Fiber *f) {
        if (!f || --f->n_ref > 0)
                return NULL;
        sd_event_unref(f->event);
        free(f);
        return NULL;
}

Fiber *fiber_current(void) {
        return scheduler.current;
}

const char *fiber_name(const Fiber *f) {
        return f->name;
}

sd_event *fiber_event(const Fiber *f) {
        return f->event;
}

bool fiber_is_done(const Fiber *f) {
        return f->done;
}

bool fiber_is_cancelled(const Fiber *f) {
        return f && (f->cancelled || f->expired);
}

int fiber_result(const Fiber *f) {
        return f->done ? f->result : -EBUSY;
}

void fiber_cancel(Fiber *f) {
        if (!f || f->done)
                return;
        f->cancelled = true;
        if (f->shield == 0)
                fiber_make_ready(f);
}

static int on_deadline(sd_event_source *s, uint64_t usec, void *userdata) {
        Fiber *f = userdata;

        f->expired = true;
        if (f->shield == 0)
                fiber_make_ready(f);
        return 0;
}

static int arm_timer(Fiber *f, sd_event_source **s, uint64_t usec, uint64_t accuracy,
                     sd_event_time_handler_t handler) {
        int r;

        if (!*s)
                return sd_event_add_time(f->event, s, CLOCK_MONOTONIC, usec, accuracy, handler, f);
        r = sd_event_source_set_time(*s, usec);
        if (r < 0)
                return r;
        r = sd_event_source_set_time_accuracy(*s, accuracy);
        if (r < 0)
                return r;
        return sd_event_source_set_enabled(*s, SD_EVENT_ONESHOT);
}

int fiber_set_deadline(Fiber *f, uint64_t usec) {
        uint64_t now;

        if (f->done)
                return 0;
        f->deadline = usec;
        f->expired = false;
        if (usec == USEC_INFINITY) {
                f->deadline_source = sd_event_source_disable_unref(f->deadline_source);
                return 0;
        }
        /* A far deadline need not be kept to the microsecond: so those of many requests share one wake-up. */
        now = now_usec(CLOCK_MONOTONIC);
        return arm_timer(f, &f->deadline_source, usec,
                         MIN(usec > now ? (usec - now) / 64 + 1 : 1, 250 * USEC_PER_MSEC), on_deadline);
}

uint64_t fiber_deadline(const Fiber *f) {
        return f->deadline;
}

void fiber_shield(void) {
        if (scheduler.current)
                scheduler.current->shield++;
}

void fiber_unshield(void) {
        if (scheduler.current && scheduler.current->shield > 0)
                scheduler.current->shield--;
}

int fiber_check(void) {
        Fiber *f = scheduler.current;

        if (!f || f->shield > 0)
                return 0;
        if (f->cancelled)
                return -ECANCELED;
        /* By the clock, too: a fiber that works for long doesn't let the timer's event in. */
        if (f->expired || (f->deadline != USEC_INFINITY && now_usec(CLOCK_MONOTONIC) >= f->deadline))
                return -ETIME;
        return 0;
}

static void switch_out(Fiber *f) {
        f->suspended = true;
        context_switch(&f->context, f->resumer, /* last= */ false);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        Fiber *f = userdata;

        f->timed_out = true;
        fiber_make_ready(f);
        fiber_run_ready();
        return 0;
}

/* *ret_result gets what fiber_wake() gave; written on 0 only. */
static int suspend(uint64_t until, int *ret_result) {
        Fiber *f = scheduler.current;
        int r;

        if (!f)
                return -EDEADLK;
        f->timed_out = false;
        if (until != USEC_INFINITY && !f->woken) {
                r = arm_timer(f, &f->timer_source, until, /* accuracy= */ 1, on_timer);
                if (r < 0)
                        return r;
        }
        for (;;) {
                r = fiber_check();
                if (r < 0 || f->woken)
                        break;
                if (f->timed_out) {
                        r = -ETIMEDOUT;
                        break;
                }
                switch_out(f);
        }
        if (until != USEC_INFINITY && f->timer_source)
                (void) sd_event_source_set_enabled(f->timer_source, SD_EVENT_OFF);
        f->woken = false;
        if (r < 0)
                return r;
        *ret_result = f->wake_result;
        return 0;
}

int fiber_suspend_until(uint64_t usec) {
        int r, result;

        r = suspend(usec, &result);
        return r < 0 ? r : result;
}

int fiber_suspend(void) {
        return fiber_suspend_until(USEC_INFINITY);
}

int fiber_pause_until(uint64_t usec) {
        int unused;

        return suspend(usec, &unused);
}

void fiber_wake(Fiber *f, int result) {
        if (!f || f->done || f->woken)
                return;
        f->woken = true;
        f->wake_result = result;
        fiber_make_ready(f);
}

int fiber_yield(void) {
        Fiber *f = scheduler.current;
        int r;

        if (!f)
                return -EDEADLK;
        r = fiber_check();
        if (r < 0)
                return r;
        /* Not by a wake-up: one that is there already must not be lost. */
        f->suspended = true;
        fiber_make_ready(f);
        switch_out(f);
        return fiber_check();
}

int fiber_sleep(uint64_t usec) {
        uint64_t until, now = now_usec(CLOCK_MONOTONIC);
        int r;

        if (__builtin_add_overflow(now, usec, &until))
                until = USEC_INFINITY;
        do
                r = fiber_pause_until(until);
        while (r >= 0);
        return r == -ETIMEDOUT ? 0 : r;
}

static void queue_add(FiberQueue *q, struct FiberWaiter *w) {
        struct FiberWaiter *last = q->waiters;

        w->next = last ? last->next : w;
        w->previous = last ? last : w;
        w->next->previous = w->previous->next = w;
        q->waiters = w;
}

static void queue_remove(FiberQueue *q, struct FiberWaiter *w) {
        if (w->next == w)
                q->waiters = NULL;
        else {
                w->next->previous = w->previous;
                w->previous->next = w->next;
                if (q->waiters == w)
                        q->waiters = w->previous;
        }
}

int fiber_queue_wait_until(FiberQueue *q, uint64_t usec) {
        struct FiberWaiter w = { .fiber = scheduler.current };
        int r;

        if (!w.fiber)
                return -EDEADLK;
        queue_add(q, &w);
        do
                r = fiber_pause_until(usec);
        while (r >= 0 && !w.woken);
        if (!w.woken)
                queue_remove(q, &w);
        /* What was waited for came, even if the time was up in the same turn. */
        else if (r >= 0 || r == -ETIMEDOUT)
                return w.result;
        return r;
}

int fiber_queue_wait(FiberQueue *q) {
        return fiber_queue_wait_until(q, USEC_INFINITY);
}

static void wake_first(FiberQueue *q, int result) {
        struct FiberWaiter *w = q->waiters->next;

        queue_remove(q, w);
        w->woken = true;
        w->result = result;
        fiber_wake(w->fiber, result);
}

void fiber_queue_wake(FiberQueue *q, int result) {
        while (q->waiters)
                wake_first(q, result);
}

int fiber_lock(FiberLock *l) {
        Fiber *f = scheduler.current;
        int r;

        if (!f || l->owner == f)
                return -EDEADLK;
        if (!l->owner) {
                r = fiber_check();
                if (r < 0)
                        return r;
                l->owner = f;
                return 0;
        }
        r = fiber_queue_wait(&l->queue);
        if (r < 0 && l->owner == f)
                /* Handed to us while we gave up. */
                fiber_unlock(l);
        return r;
}

void fiber_unlock(FiberLock *l) {
        l->owner = l->queue.waiters ? l->queue.waiters->next->fiber : NULL;
        if (l->owner)
                wake_first(&l->queue, 0);
}

int fiber_join(Fiber *f, int *ret_result) {
        _cleanup_(fiber_unrefp) _unused_ Fiber *keep = fiber_ref(f);
        int r;

        if (f == scheduler.current)
                return -EDEADLK;
        while (!f->done) {
                r = fiber_queue_wait(&f->joiners);
                if (r < 0)
                        return r;
        }
        if (ret_result)
                *ret_result = f->result;
        return 0;
}

int fiber_run(sd_event *event, FiberFunc func, void *userdata) {
        Fiber *f;
        int r;

        r = fiber_spawn(event, "run", func, userdata, /* destroy= */ NULL, &f);
        if (r < 0)
                return r;
        while (!f->done) {
                r = sd_event_run(event, UINT64_MAX);
                if (r < 0)
                        break;
        }
        if (f->done)
                r = f->result;
        fiber_unref(f);
        return r;
}
