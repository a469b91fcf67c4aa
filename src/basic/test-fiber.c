#include <fcntl.h>
#include <fenv.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "basic/fiber.h"
#include "basic/test.h"

static sd_event *event;

static void run(FiberFunc func) {
        CHECK_EQ(sd_event_new(&event), 0);
        CHECK_EQ(fiber_run(event, func, NULL), 0);
        event = sd_event_unref(event);
        CHECK_EQ(fiber_count(), 0);
}

static int n_steps;

static int sleeper(void *userdata) {
        int r = fiber_sleep((uint64_t) (uintptr_t) userdata);

        n_steps++;
        return r;
}

static int many(void *userdata) {
        enum { N = 10000 };
        static Fiber *fibers[N];

        n_steps = 0;
        for (int i = 0; i < N; i++)
                CHECK_EQ(fiber_spawn(event, "sleeper", sleeper, (void *) (uintptr_t) (i % 50), NULL, &fibers[i]), 0);
        for (int i = 0; i < N; i++) {
                int result = 1;

                CHECK_EQ(fiber_join(fibers[i], &result), 0);
                CHECK_EQ(result, 0);
                fiber_unref(fibers[i]);
        }
        CHECK_EQ(n_steps, N);
        return 0;
}

static void test_thousands_sleep_and_are_joined(void) {
        run(many);
}

/* Each kind of wait, ended by cancellation. */
static FiberQueue queue;
static FiberLock lock;
static int pipe_fds[2];
static Fiber *forever;

static int child_pidfd;
static sd_bus *bus_client, *bus_server;

static int wait_suspend(void *userdata) {
        return fiber_suspend();
}
static int wait_sleep(void *userdata) {
        return fiber_sleep(1000 * USEC_PER_SEC);
}
static int wait_fd(void *userdata) {
        return fiber_wait_fd(pipe_fds[0], EPOLLIN, USEC_INFINITY);
}
static int wait_queue(void *userdata) {
        return fiber_queue_wait(&queue);
}
static int wait_lock(void *userdata) {
        return fiber_lock(&lock);
}
static int wait_join(void *userdata) {
        return fiber_join(forever, NULL);
}
static int wait_pidfd(void *userdata) {
        return fiber_wait_pidfd(child_pidfd, USEC_INFINITY, NULL);
}
static int wait_bus(void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        int r;

        CHECK(sd_bus_message_new_method_call(bus_client, &m, NULL, "/", "a.b", userdata ? userdata : "Silent") >= 0);
        r = fiber_bus_call(bus_client, m, 0, &error, &reply);
        CHECK(r >= 0 ? reply != NULL : !reply);
        CHECK_EQ(sd_bus_error_is_set(&error),
                 r == -EOPNOTSUPP || r == -ENOTCONN || r == -ECONNRESET || r == -ETIMEDOUT);
        return r;
}

/* Answers to "Echo" and "Fail", and to nothing else. */
static int serve(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        if (sd_bus_message_is_method_call(m, "a.b", "Echo"))
                return sd_bus_reply_method_return(m, "s", "echo");
        if (sd_bus_message_is_method_call(m, "a.b", "Fail"))
                return sd_bus_reply_method_errorf(m, SD_BUS_ERROR_NOT_SUPPORTED, "no");
        return 1;
}

static void bus_pair(void) {
        int fds[2];
        sd_id128_t id;

        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
        CHECK(sd_id128_randomize(&id) >= 0);
        CHECK(sd_bus_new(&bus_server) >= 0 && sd_bus_new(&bus_client) >= 0);
        CHECK(sd_bus_set_fd(bus_server, fds[0], fds[0]) >= 0 && sd_bus_set_fd(bus_client, fds[1], fds[1]) >= 0);
        CHECK(sd_bus_set_server(bus_server, true, id) >= 0 && sd_bus_set_anonymous(bus_server, true) >= 0);
        CHECK(sd_bus_set_anonymous(bus_client, true) >= 0);
        CHECK(sd_bus_add_filter(bus_server, NULL, serve, NULL) >= 0);
        CHECK(sd_bus_start(bus_server) >= 0 && sd_bus_start(bus_client) >= 0);
        CHECK(sd_bus_attach_event(bus_server, event, 0) >= 0 && sd_bus_attach_event(bus_client, event, 0) >= 0);
}

static void bus_pair_done(void) {
        bus_client = sd_bus_close_unref(bus_client);
        bus_server = sd_bus_close_unref(bus_server);
}

static int cancelled_waiter(void *userdata) {
        FiberFunc wait = (FiberFunc) (uintptr_t) userdata;

        fiber_cancel(fiber_current());
        return wait(NULL);
}

static int cancel_each(void *userdata) {
        const FiberFunc waits[] = { wait_suspend, wait_sleep, wait_fd,    wait_queue,
                                    wait_lock,    wait_join,  wait_pidfd, wait_bus };
        pid_t pid;

        CHECK_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                (void) pause();
                _exit(0);
        }
        child_pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        CHECK(child_pidfd >= 0);
        bus_pair();
        CHECK_EQ(fiber_lock(&lock), 0);
        CHECK_EQ(fiber_spawn(event, "forever", wait_suspend, NULL, NULL, &forever), 0);
        for (size_t i = 0; i < ELEMENTSOF(waits); i++)
                for (int by_deadline = 0; by_deadline < 2; by_deadline++) {
                        int result = 0;
                        Fiber *f;

                        CHECK_EQ(fiber_spawn(event, "waiter", waits[i], NULL, NULL, &f), 0);
                        CHECK_EQ(fiber_yield(), 0);
                        CHECK(!fiber_is_done(f));
                        if (by_deadline)
                                CHECK_EQ(fiber_set_deadline(f, now_usec(CLOCK_MONOTONIC) + 1000), 0);
                        else
                                fiber_cancel(f);
                        CHECK_EQ(fiber_join(f, &result), 0);
                        CHECK_EQ(result, by_deadline ? -ETIME : -ECANCELED);
                        fiber_unref(f);

                        /* One that is cancelled already doesn't begin to wait. */
                        if (by_deadline)
                                continue;
                        CHECK_EQ(fiber_spawn(event, "late", cancelled_waiter, (void *) (uintptr_t) waits[i], NULL, &f),
                                 0);
                        CHECK(fiber_is_done(f));
                        CHECK_EQ(fiber_result(f), -ECANCELED);
                        fiber_unref(f);
                }
        CHECK_EQ(kill(pid, SIGKILL), 0);
        CHECK_EQ(fiber_wait_pidfd(child_pidfd, USEC_INFINITY, NULL), 0);
        (void) close(child_pidfd);
        bus_pair_done();
        CHECK(!queue.waiters && !lock.queue.waiters);
        fiber_unlock(&lock);
        fiber_cancel(forever);
        CHECK_EQ(fiber_join(forever, NULL), 0);
        fiber_unref(forever);
        (void) close(pipe_fds[0]);
        (void) close(pipe_fds[1]);
        return 0;
}

static void test_cancellation_and_deadline_end_every_kind_of_wait(void) {
        run(cancel_each);
}

static int shielded(void *userdata) {
        {
                FIBER_SHIELDED_SCOPE;
                CHECK_EQ(fiber_sleep(5000), 0);
                n_steps++;
        }
        return fiber_sleep(1000 * USEC_PER_SEC);
}

static int shield(void *userdata) {
        int result;
        Fiber *f;

        n_steps = 0;
        CHECK_EQ(fiber_spawn(event, "shielded", shielded, NULL, NULL, &f), 0);
        fiber_cancel(f);
        CHECK_EQ(fiber_join(f, &result), 0);
        CHECK_EQ(result, -ECANCELED);
        CHECK_EQ(n_steps, 1);
        fiber_unref(f);
        return 0;
}

static void test_a_shielded_wait_is_finished_and_the_next_one_ends(void) {
        run(shield);
}

static int wake_first(void *userdata) {
        fiber_wake(fiber_current(), 7);
        fiber_wake(fiber_current(), 8);
        CHECK_EQ(fiber_suspend(), 7);
        CHECK_EQ(fiber_suspend_until(now_usec(CLOCK_MONOTONIC) + 1000), -ETIMEDOUT);
        return 0;
}

static void test_a_wake_up_before_the_sleep_is_kept_once(void) {
        run(wake_first);
}

static char order[16];

static int locker(void *userdata) {
        CHECK_EQ(fiber_lock(&lock), 0);
        order[strlen(order)] = (char) (uintptr_t) userdata;
        CHECK_EQ(fiber_sleep(1000), 0);
        fiber_unlock(&lock);
        return 0;
}

static int lock_order(void *userdata) {
        Fiber *f[4];

        for (int i = 0; i < 4; i++)
                CHECK_EQ(fiber_spawn(event, "locker", locker, (void *) (uintptr_t) ("abcd"[i]), NULL, &f[i]), 0);
        for (int i = 0; i < 4; i++) {
                CHECK_EQ(fiber_join(f[i], NULL), 0);
                fiber_unref(f[i]);
        }
        CHECK_STREQ(order, "abcd");
        CHECK(!lock.owner);
        return 0;
}

static void test_a_lock_is_handed_on_in_order(void) {
        run(lock_order);
}

static int fd_and_child(void *userdata) {
        siginfo_t si;
        int fds[2], pidfd;
        pid_t pid;

        CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
        CHECK_EQ(fiber_wait_fd(fds[0], EPOLLIN, 2000), -ETIMEDOUT);
        CHECK_EQ(write(fds[1], "x", 1), 1);
        CHECK(fiber_wait_fd(fds[0], EPOLLIN, USEC_INFINITY) & EPOLLIN);
        (void) close(fds[0]);
        (void) close(fds[1]);

        pid = fork();
        if (pid == 0)
                _exit(9);
        pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        CHECK(pidfd >= 0);
        CHECK_EQ(fiber_wait_pidfd(pidfd, USEC_INFINITY, &si), 0);
        CHECK_EQ(si.si_status, 9);
        (void) close(pidfd);
        return 0;
}

static void test_descriptors_and_children_are_waited_for(void) {
        run(fd_and_child);
}

static void count_destroy(void *userdata) {
        (*(int *) userdata)++;
}

static int nothing(void *userdata) {
        return 0;
}

static void test_destroy_is_called_once_when_it_has_ended(void) {
        int destroyed = 0;

        CHECK_EQ(sd_event_new(&event), 0);
        CHECK_EQ(fiber_spawn(event, "nothing", nothing, &destroyed, count_destroy, NULL), 0);
        CHECK_EQ(destroyed, 1);
        event = sd_event_unref(event);
}

static int bus(void *userdata) {
        char echo[] = "Echo", fail[] = "Fail";
        int result;
        Fiber *f;

        bus_pair();
        CHECK_EQ(wait_bus(echo), 0);
        CHECK_EQ(wait_bus(fail), -EOPNOTSUPP);
        CHECK_EQ(fiber_spawn(event, "caller", wait_bus, NULL, NULL, &f), 0);
        CHECK_EQ(fiber_sleep(1000), 0);
        CHECK(!fiber_is_done(f));
        bus_server = sd_bus_close_unref(bus_server);
        CHECK_EQ(fiber_join(f, &result), 0);
        CHECK(result < 0 && result != -ECANCELED);
        fiber_unref(f);
        bus_pair_done();
        return 0;
}

static void test_a_bus_call_ends_with_the_reply_the_error_or_the_connection(void) {
        run(bus);
}

static int sleep_long(void *userdata) {
        uint64_t t = now_usec(CLOCK_MONOTONIC);

        CHECK_EQ(fiber_sleep(20 * USEC_PER_MSEC), 0);
        CHECK(now_usec(CLOCK_MONOTONIC) - t >= 20 * USEC_PER_MSEC);
        return fiber_queue_wait(&queue);
}

static int foreign_wakes(void *userdata) {
        int result = 1;
        Fiber *f;

        CHECK_EQ(fiber_spawn(event, "sleeper", sleep_long, NULL, NULL, &f), 0);
        for (int i = 0; i < 3; i++) {
                fiber_wake(f, -EIO);
                CHECK_EQ(fiber_sleep(1000), 0);
        }
        while (!queue.waiters)
                CHECK_EQ(fiber_sleep(1000), 0);
        fiber_wake(f, -EIO);
        CHECK_EQ(fiber_sleep(1000), 0);
        CHECK(!fiber_is_done(f));
        fiber_queue_wake(&queue, 5);
        CHECK_EQ(fiber_join(f, &result), 0);
        CHECK_EQ(result, 5);
        fiber_unref(f);

        /* Yielding doesn't use up a wake-up. */
        fiber_wake(fiber_current(), 6);
        CHECK_EQ(fiber_yield(), 0);
        CHECK_EQ(fiber_suspend(), 6);
        return 0;
}

static void test_wake_ups_meant_for_another_wait_end_none(void) {
        run(foreign_wakes);
}

static int queue_waiter(void *userdata) {
        int r = fiber_queue_wait(&queue);

        if (r == 3)
                CHECK_EQ(n_steps++, (int) (uintptr_t) userdata);
        return r;
}

static int queue_order(void *userdata) {
        enum { N = 5000 };
        static Fiber *fibers[N];
        int result;

        n_steps = 0;
        for (int i = 0; i < N; i++)
                CHECK_EQ(fiber_spawn(event, "waiter", queue_waiter, (void *) (uintptr_t) (i / 2), NULL, &fibers[i]),
                         0);
        /* Every other one leaves the queue before its time: the first, the last, and those between. */
        for (int i = 1; i < N; i += 2)
                fiber_cancel(fibers[i]);
        CHECK_EQ(fiber_yield(), 0);
        CHECK_EQ(n_steps, 0);
        fiber_queue_wake(&queue, 3);
        CHECK(!queue.waiters);
        for (int i = 0; i < N; i++) {
                CHECK_EQ(fiber_join(fibers[i], &result), 0);
                CHECK_EQ(result, i % 2 ? -ECANCELED : 3);
                fiber_unref(fibers[i]);
        }
        CHECK_EQ(n_steps, N / 2);
        CHECK_EQ(fiber_queue_wait_until(&queue, now_usec(CLOCK_MONOTONIC) + 2000), -ETIMEDOUT);
        CHECK(!queue.waiters);
        return 0;
}

static void test_a_queue_wakes_all_in_order_and_can_be_left(void) {
        run(queue_order);
}

static int deadlines(void *userdata) {
        Fiber *f = fiber_current();
        uint64_t now = now_usec(CLOCK_MONOTONIC);

        CHECK(fiber_deadline(f) == USEC_INFINITY);
        CHECK_EQ(fiber_set_deadline(f, now - 1), 0);
        CHECK_EQ(fiber_check(), -ETIME);
        CHECK_EQ(fiber_sleep(1), -ETIME);
        CHECK_EQ(fiber_yield(), -ETIME);
        CHECK_EQ(fiber_lock(&lock), -ETIME);
        CHECK(!lock.owner);
        {
                FIBER_SHIELDED_SCOPE;
                {
                        FIBER_SHIELDED_SCOPE;
                        CHECK_EQ(fiber_check(), 0);
                }
                CHECK_EQ(fiber_sleep(2000), 0);
                CHECK_EQ(fiber_suspend_until(now), -ETIMEDOUT);
        }
        CHECK_EQ(fiber_check(), -ETIME);
        CHECK_EQ(fiber_set_deadline(f, now + 1000 * USEC_PER_SEC), 0);
        CHECK_EQ(fiber_sleep(1000), 0);
        /* Without the loop having had a turn: by the clock. */
        CHECK_EQ(fiber_set_deadline(f, now_usec(CLOCK_MONOTONIC) + 2000), 0);
        CHECK_EQ(fiber_check(), 0);
        while (fiber_check() == 0)
                CHECK(now_usec(CLOCK_MONOTONIC) - now < 100 * USEC_PER_SEC);
        CHECK_EQ(fiber_check(), -ETIME);
        CHECK_EQ(fiber_set_deadline(f, USEC_INFINITY), 0);
        CHECK_EQ(fiber_sleep(5000), 0);
        return 0;
}

static void test_a_deadline_holds_until_it_is_replaced(void) {
        run(deadlines);
}

static int try_lock(void *userdata) {
        int r = fiber_lock(&lock);

        if (r >= 0) {
                _cleanup_fiber_unlock_ FiberLock *held = &lock;

                CHECK_EQ(fiber_lock(&lock), -EDEADLK);
                n_steps++;
        }
        return r;
}

static int lock_given_up(void *userdata) {
        int result;
        Fiber *f[3];

        n_steps = 0;
        CHECK_EQ(fiber_lock(&lock), 0);
        for (int i = 0; i < 3; i++)
                CHECK_EQ(fiber_spawn(event, "locker", try_lock, NULL, NULL, &f[i]), 0);
        CHECK_EQ(fiber_yield(), 0);
        /* The first is given the lock and cancelled in one turn: the second gets it, and then the third. */
        fiber_unlock(&lock);
        fiber_cancel(f[0]);
        for (int i = 0; i < 3; i++) {
                CHECK_EQ(fiber_join(f[i], &result), 0);
                CHECK_EQ(result, i == 0 ? -ECANCELED : 0);
                fiber_unref(f[i]);
        }
        CHECK_EQ(n_steps, 2);
        CHECK(!lock.owner && !lock.queue.waiters);
        return 0;
}

static void test_a_lock_given_to_a_cancelled_fiber_goes_on_to_the_next(void) {
        run(lock_given_up);
}

static void note_destroy(void *userdata) {
        CHECK(fiber_current() == NULL || streq(fiber_name(fiber_current()), "run"));
        order[strlen(order)] = 'd';
}

static int note_end(void *userdata) {
        int r = fiber_suspend();

        order[strlen(order)] = 'e';
        return r;
}

static int note_join(void *userdata) {
        CHECK_EQ(fiber_join(userdata, NULL), 0);
        order[strlen(order)] = 'j';
        return 0;
}

static int destroy_order(void *userdata) {
        Fiber *f, *joiner;

        memset(order, 0, sizeof order);
        CHECK_EQ(fiber_spawn(event, "ending", note_end, NULL, note_destroy, &f), 0);
        CHECK_EQ(fiber_spawn(event, "joiner", note_join, f, NULL, &joiner), 0);
        fiber_wake(f, 0);
        CHECK_STREQ(order, ""); /* never inside of fiber_wake() */
        fiber_unref(f);         /* while it waits for its turn, and somebody joins it */
        CHECK_EQ(fiber_join(joiner, NULL), 0);
        fiber_unref(joiner);
        CHECK_STREQ(order, "edj");

        /* A reference outlives the fiber; what is done to it then has no effect. */
        CHECK_EQ(fiber_spawn(event, "nothing", sleeper, NULL, NULL, &f), 0);
        CHECK_EQ(fiber_result(f), -EBUSY);
        CHECK_EQ(fiber_join(f, NULL), 0);
        CHECK(fiber_is_done(f));
        fiber_wake(f, 0);
        fiber_cancel(f);
        CHECK_EQ(fiber_set_deadline(f, 0), 0);
        CHECK_EQ(fiber_result(f), 0);
        fiber_unref(f);
        return 0;
}

static void test_the_end_is_told_first_to_destroy_and_then_to_joiners(void) {
        run(destroy_order);
}

static int nest(void *userdata) {
        uintptr_t depth = (uintptr_t) userdata;
        volatile double mark = (double) depth * 1.5;
        int result = -1;
        Fiber *f;

        if (depth == 0)
                return fiber_yield();
        CHECK_EQ(fiber_spawn(event, "nested", nest, (void *) (depth - 1), NULL, &f), 0);
        CHECK_EQ(fiber_yield(), 0);
        CHECK_EQ(fiber_join(f, &result), 0);
        CHECK_EQ(result, 0);
        fiber_unref(f);
        CHECK(mark == (double) depth * 1.5);
        return 0;
}

static int nested(void *userdata) {
        return nest((void *) (uintptr_t) 100);
}

static void test_fibers_start_fibers(void) {
        run(nested);
}

static int round_up(void *userdata) {
        CHECK_EQ(fesetround(FE_UPWARD), 0);
        CHECK_EQ(fiber_sleep(2000), 0);
        CHECK_EQ(fegetround(), FE_UPWARD);
        return 0;
}

static int floating_point(void *userdata) {
        Fiber *f;

        CHECK_EQ(fiber_spawn(event, "rounding", round_up, NULL, NULL, &f), 0);
        CHECK_EQ(fegetround(), FE_TONEAREST);
        CHECK_EQ(fiber_join(f, NULL), 0);
        CHECK_EQ(fegetround(), FE_TONEAREST);
        fiber_unref(f);
        return 0;
}

static void test_each_fiber_has_its_floating_point_mode(void) {
        run(floating_point);
}

#if !defined(__SANITIZE_ADDRESS__) /* it needs terabytes of address space, and catches the overflow itself */
static int no_room(void *userdata) {
        enum { N = 10000 };
        static Fiber *fibers[N];
        struct rlimit old, limit;
        size_t before = fiber_count();
        int n, r = 0;

        CHECK_EQ(getrlimit(RLIMIT_AS, &old), 0);
        limit = old;
        limit.rlim_cur = 512 * 1024 * 1024;
        CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
        for (n = 0; n < N; n++) {
                r = fiber_spawn(event, "many", wait_suspend, NULL, NULL, &fibers[n]);
                if (r < 0)
                        break;
        }
        CHECK_EQ(setrlimit(RLIMIT_AS, &old), 0);
        CHECK_EQ(r, -ENOMEM);
        CHECK_EQ(fiber_count() - before, n);
        while (n-- > 0) {
                fiber_wake(fibers[n], 0);
                CHECK_EQ(fiber_join(fibers[n], NULL), 0);
                fiber_unref(fibers[n]);
        }
        CHECK_EQ(fiber_count(), before);
        return 0;
}

static void test_no_room_for_a_stack_is_an_error(void) {
        run(no_room);
}

static int recurse(volatile char *above, int depth) {
        volatile char here[1024];

        memset((char *) here, *above, sizeof here);
        return depth == 0 ? here[0] : recurse(here, depth - 1) + here[1];
}

static int overflow(void *userdata) {
        volatile char c = 1;

        return recurse(&c, 10000);
}

static void test_a_stack_that_overflows_hits_its_guard(void) {
        int status;
        pid_t pid = fork();

        CHECK(pid >= 0);
        if (pid == 0) {
                (void) setrlimit(RLIMIT_CORE, &(struct rlimit) {});
                if (sd_event_new(&event) >= 0)
                        (void) fiber_run(event, overflow, NULL);
                _exit(0);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}
#endif

static int own_handler_ran(sd_event_source *s, uint64_t usec, void *userdata) {
        fiber_queue_wake(&queue, 4);
        CHECK_EQ(n_steps, 0);
        fiber_run_ready();
        CHECK_EQ(n_steps, 1);
        return 0;
}

static int queue_once(void *userdata) {
        CHECK_EQ(fiber_queue_wait(&queue), 4);
        n_steps++;
        fiber_run_ready(); /* nothing inside of a fiber */
        return 0;
}

static int from_a_handler(void *userdata) {
        Fiber *f;

        n_steps = 0;
        CHECK_EQ(fiber_spawn(event, "waiter", queue_once, NULL, NULL, &f), 0);
        CHECK(sd_event_add_time_relative(event, NULL, CLOCK_MONOTONIC, 1000, 1, own_handler_ran, NULL) >= 0);
        CHECK_EQ(fiber_join(f, NULL), 0);
        fiber_unref(f);
        return 0;
}

static void test_a_handler_can_run_what_it_woke(void) {
        run(from_a_handler);
}

static void test_outside_of_a_fiber_nothing_waits(void) {
        CHECK(!fiber_current());
        CHECK_EQ(fiber_check(), 0);
        CHECK_EQ(fiber_suspend(), -EDEADLK);
        CHECK_EQ(fiber_sleep(1), -EDEADLK);
        CHECK_EQ(fiber_yield(), -EDEADLK);
        CHECK_EQ(fiber_lock(&lock), -EDEADLK);
        CHECK_EQ(fiber_queue_wait(&queue), -EDEADLK);
        CHECK_EQ(fiber_wait_fd(0, EPOLLIN, 0), -EDEADLK);
}

TEST_MAIN(TEST_CASE(test_thousands_sleep_and_are_joined),
          TEST_CASE(test_cancellation_and_deadline_end_every_kind_of_wait),
          TEST_CASE(test_a_shielded_wait_is_finished_and_the_next_one_ends),
          TEST_CASE(test_a_wake_up_before_the_sleep_is_kept_once), TEST_CASE(test_a_lock_is_handed_on_in_order),
          TEST_CASE(test_descriptors_and_children_are_waited_for),
          TEST_CASE(test_destroy_is_called_once_when_it_has_ended),
          TEST_CASE(test_a_bus_call_ends_with_the_reply_the_error_or_the_connection),
          TEST_CASE(test_wake_ups_meant_for_another_wait_end_none),
          TEST_CASE(test_a_queue_wakes_all_in_order_and_can_be_left),
          TEST_CASE(test_a_deadline_holds_until_it_is_replaced),
          TEST_CASE(test_a_lock_given_to_a_cancelled_fiber_goes_on_to_the_next),
          TEST_CASE(test_the_end_is_told_first_to_destroy_and_then_to_joiners), TEST_CASE(test_fibers_start_fibers),
          TEST_CASE(test_each_fiber_has_its_floating_point_mode),
#if !defined(__SANITIZE_ADDRESS__)
          TEST_CASE(test_no_room_for_a_stack_is_an_error), TEST_CASE(test_a_stack_that_overflows_hits_its_guard),
#endif
          TEST_CASE(test_a_handler_can_run_what_it_woke), TEST_CASE(test_outside_of_a_fiber_nothing_waits))
