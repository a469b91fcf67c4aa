#include "basic/fiber.h"

#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define STACK_SIZE (512U * 1024U)
#else
#define STACK_SIZE (128U * 1024U) /* address space; only what is touched becomes memory */
#endif
#define STACK_POOL_MAX 8U

/* Where a switch came from, so that ASan knows whose stack it is on. */
typedef struct Context {
        ucontext_t uc;
        void *fake_stack;
        const void *stack_bottom;
        size_t stack_size;
} Context;

struct Fiber {
        unsigned n_ref;
        sd_event *event;
        const char *name;
        FiberFunc func;
        void *userdata;
        void (*destroy)(void *userdata);

        void *stack; /* with its guard page below */
        Context context;
        Context *resumer;

        bool done, suspended, ready, woken, cancelled, expired;
        int wake_result, result;
        unsigned shield;
        uint64_t deadline;
        sd_event_source *deadline_source, *timer_source;
        Fiber *ready_next;
        FiberQueue joiners;
};

struct FiberWaiter {
        Fiber *fiber;
        struct FiberWaiter *next;
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

static size_t page_size(void) {
        return (size_t) sysconf(_SC_PAGESIZE);
}

static void *stack_new(void) {
        void *p;

        if (scheduler.n_stacks > 0)
                return scheduler.stacks[--scheduler.n_stacks];
        p = mmap(NULL, STACK_SIZE + page_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        if (p == MAP_FAILED)
                return NULL;
        if (mprotect((char *) p + page_size(), STACK_SIZE, PROT_READ | PROT_WRITE) < 0) {
                (void) munmap(p, STACK_SIZE + page_size());
                return NULL;
        }
        return p;
}

static void stack_free(void *p) {
        if (!p)
                return;
        if (scheduler.n_stacks < STACK_POOL_MAX)
                scheduler.stacks[scheduler.n_stacks++] = p;
        else
                (void) munmap(p, STACK_SIZE + page_size());
}

/* last: the stack left is never come back to. */
static void context_switch(Context *from, Context *to, bool last) {
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_start_switch_fiber(last ? NULL : &from->fake_stack, to->stack_bottom, to->stack_size);
        (void) swapcontext(&from->uc, &to->uc);
        __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#else
        (void) swapcontext(&from->uc, &to->uc);
#endif
}

static void fiber_main(void) {
        Fiber *f = scheduler.current;

#if defined(__SANITIZE_ADDRESS__)
        /* The first time off the main stack is where its bounds become known. */
        const void *bottom;
        size_t size;
        __sanitizer_finish_switch_fiber(NULL, &bottom, &size);
        if (f->resumer == &scheduler.main) {
                scheduler.main.stack_bottom = bottom;
                scheduler.main.stack_size = size;
        }
#endif
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

static int on_defer(sd_event_source *s, void *userdata) {
        Fiber *list = scheduler.ready_head;

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
                (void) sd_event_source_set_floating(scheduler.defer, false), sd_event_source_disable_unref(scheduler.defer);
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
        if (!f->stack || getcontext(&f->context.uc) < 0) {
                stack_free(f->stack);
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
        f->context.stack_bottom = (char *) f->stack + page_size();
        f->context.stack_size = STACK_SIZE;
        f->context.uc.uc_stack.ss_sp = (char *) f->stack + page_size();
        f->context.uc.uc_stack.ss_size = STACK_SIZE;
        f->context.uc.uc_link = NULL;
        makecontext(&f->context.uc, fiber_main, 0);
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

static int arm_timer(sd_event *event, sd_event_source **s, uint64_t usec, sd_event_time_handler_t handler, Fiber *f) {
        int r;

        if (!*s)
                return sd_event_add_time(event, s, CLOCK_MONOTONIC, usec, /* accuracy= */ 1, handler, f);
        r = sd_event_source_set_time(*s, usec);
        if (r < 0)
                return r;
        return sd_event_source_set_enabled(*s, SD_EVENT_ONESHOT);
}

int fiber_set_deadline(Fiber *f, uint64_t usec) {
        if (f->done)
                return 0;
        f->deadline = usec;
        if (usec == USEC_INFINITY) {
                f->deadline_source = sd_event_source_disable_unref(f->deadline_source);
                return 0;
        }
        return arm_timer(f->event, &f->deadline_source, usec, on_deadline, f);
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
        if (f->expired)
                return -ETIME;
        return 0;
}

int fiber_suspend(void) {
        Fiber *f = scheduler.current;
        int r;

        if (!f)
                return -EDEADLK;
        for (;;) {
                r = fiber_check();
                if (r < 0) {
                        f->woken = false;
                        return r;
                }
                if (f->woken) {
                        f->woken = false;
                        return f->wake_result;
                }
                f->suspended = true;
                context_switch(&f->context, f->resumer, /* last= */ false);
        }
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        fiber_wake(userdata, -ETIMEDOUT);
        return 0;
}

int fiber_suspend_until(uint64_t usec) {
        Fiber *f = scheduler.current;
        int r;

        if (!f)
                return -EDEADLK;
        if (usec == USEC_INFINITY)
                return fiber_suspend();
        r = arm_timer(f->event, &f->timer_source, usec, on_timer, f);
        if (r < 0)
                return r;
        r = fiber_suspend();
        (void) sd_event_source_set_enabled(f->timer_source, SD_EVENT_OFF);
        return r;
}

void fiber_wake(Fiber *f, int result) {
        if (!f || f->done || f->woken)
                return;
        f->woken = true;
        f->wake_result = result;
        fiber_make_ready(f);
}

int fiber_yield(void) {
        fiber_wake(scheduler.current, 0);
        if (!scheduler.current)
                return 0;
        /* A fiber that runs is not put on the list by its own wake-up: it has to be suspended first. */
        Fiber *f = scheduler.current;
        int r = fiber_check();
        if (r < 0) {
                f->woken = false;
                return r;
        }
        f->suspended = true;
        fiber_make_ready(f);
        context_switch(&f->context, f->resumer, /* last= */ false);
        return fiber_suspend();
}

int fiber_sleep(uint64_t usec) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + usec;
        int r;

        do
                r = fiber_suspend_until(until);
        while (r >= 0);
        return r == -ETIMEDOUT ? 0 : r;
}

int fiber_queue_wait_until(FiberQueue *q, uint64_t usec) {
        struct FiberWaiter w = { .fiber = scheduler.current }, **p;
        int r;

        if (!w.fiber)
                return -EDEADLK;
        for (p = &q->waiters; *p; p = &(*p)->next)
                ;
        *p = &w;
        for (;;) {
                r = fiber_suspend_until(usec);
                if (w.woken)
                        return r < 0 && r != -ETIMEDOUT && r != w.result ? r : w.result;
                if (r < 0)
                        break;
        }
        for (p = &q->waiters; *p; p = &(*p)->next)
                if (*p == &w) {
                        *p = w.next;
                        break;
                }
        return r;
}

int fiber_queue_wait(FiberQueue *q) {
        return fiber_queue_wait_until(q, USEC_INFINITY);
}

static void wake_first(FiberQueue *q, int result) {
        struct FiberWaiter *w = q->waiters;

        q->waiters = w->next;
        w->next = NULL;
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

        if (!f)
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
        struct FiberWaiter *w = l->queue.waiters;

        l->owner = w ? w->fiber : NULL;
        if (w)
                wake_first(&l->queue, 0);
}

int fiber_join(Fiber *f, int *ret_result) {
        int r;

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
