#include <fcntl.h>
#include <sys/epoll.h>

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
        enum { N = 3000 };
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

static int cancel_each(void *userdata) {
        const FiberFunc waits[] = { wait_suspend, wait_sleep, wait_fd, wait_queue, wait_lock, wait_join };

        CHECK_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
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
                }
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
        pidfd = (int) syscall(434 /* pidfd_open */, pid, 0);
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

TEST_MAIN(TEST_CASE(test_thousands_sleep_and_are_joined),
          TEST_CASE(test_cancellation_and_deadline_end_every_kind_of_wait),
          TEST_CASE(test_a_shielded_wait_is_finished_and_the_next_one_ends),
          TEST_CASE(test_a_wake_up_before_the_sleep_is_kept_once), TEST_CASE(test_a_lock_is_handed_on_in_order),
          TEST_CASE(test_descriptors_and_children_are_waited_for),
          TEST_CASE(test_destroy_is_called_once_when_it_has_ended))
