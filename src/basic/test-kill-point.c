/* The points themselves, in children that may die. Built with them, whatever the rest is built with. */

#include "basic/kill-point.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "basic/file-util.h"
#include "basic/test.h"

static char directory[] = "/tmp/test-kill-point-XXXXXX";

static void put(const char *name, const char *text) {
        int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        CHECK(fd >= 0);
        CHECK(write_file_atomic(fd, name, text, strlen(text), 0600, 0) >= 0);
        (void) close(fd);
}

static char *get(const char *name) {
        int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        char *text = NULL;

        CHECK(fd >= 0);
        (void) read_file(fd, name, 4096, &text, NULL);
        (void) close(fd);
        return text;
}

static void pass_all(void) {
        KILL_POINT("test.first");
        for (unsigned i = 0; i < 3; i++)
                KILL_POINT_OF("test.loop", i == 0 ? "zero" : NULL);
        KILL_POINT("test.last");
}

/* The signal that ended it; 0: none did. */
static int run(void) {
        siginfo_t si = {};
        pid_t pid = fork();

        if (pid == 0) {
                kill_points_begin();
                errno = EXDEV;
                pass_all();
                _exit(errno == EXDEV ? 0 : 1);
        }
        CHECK(pid > 0);
        CHECK(waitid(P_PID, (id_t) pid, &si, WEXITED) >= 0);
        if (si.si_code == CLD_EXITED)
                CHECK(si.si_status == 0);
        return si.si_code == CLD_KILLED ? si.si_status : 0;
}

static void test_nothing_happens_unless_it_is_armed(void) {
        CHECK(run() == 0);
}

static void test_passings_are_noted(void) {
        char *text;

        put("passed", "");
        CHECK(run() == 0);
        text = get("passed");
        CHECK(streq_ptr(text, "test.first \ntest.loop zero\ntest.loop \ntest.loop \ntest.last \n"));
        free(text);
}

static void test_the_nth_passing_kills_and_the_next_line_is_for_the_next_process(void) {
        char *text;

        put("passed", "");
        put("armed", "test.loop 2\ntest.last 1\n");
        CHECK(run() == SIGKILL);
        text = get("passed");
        CHECK(streq_ptr(text, "test.first \ntest.loop zero\ntest.loop \n"));
        free(text);
        text = get("armed");
        CHECK(streq_ptr(text, "test.last 1\n"));
        free(text);
        CHECK(run() == SIGKILL);
        text = get("armed");
        CHECK(!text);
        CHECK(run() == 0);
}

static void test_any_point_can_be_meant(void) {
        char *text;

        put("passed", "");
        put("armed", "* 3\n");
        CHECK(run() == SIGKILL);
        text = get("passed");
        CHECK(streq_ptr(text, "test.first \ntest.loop zero\ntest.loop \n"));
        free(text);
}

static void test_the_list_has_them_all(void) {
        char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        CHECK(f);
        kill_points_list(f);
        (void) fclose(f);
        CHECK(strstr(text, "test.first\n") && strstr(text, "test.loop\n") && strstr(text, "test.last\n"));
        free(text);
}

static int make_directory(void) {
        return mkdtemp(directory) && setenv("RKTLET_KILL_POINTS", directory, 1) >= 0 ? 0 : -errno;
}

static void test_the_directory_is_needed(void) {
        CHECK(run() == 0);
        CHECK_EQ(make_directory(), 0);
}

static void test_nothing_is_left(void) {
        CHECK_EQ(remove_tree(AT_FDCWD, directory), 0);
        CHECK_EQ(run(), 0);
}

TEST_MAIN(TEST_CASE(test_the_directory_is_needed), TEST_CASE(test_nothing_happens_unless_it_is_armed),
          TEST_CASE(test_passings_are_noted),
          TEST_CASE(test_the_nth_passing_kills_and_the_next_line_is_for_the_next_process),
          TEST_CASE(test_any_point_can_be_meant), TEST_CASE(test_the_list_has_them_all),
          TEST_CASE(test_nothing_is_left))
