#include "basic/layout.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/test.h"

static char directory[] = "/tmp/test-layout-XXXXXX";
static int dir_fd = -1;
static unsigned steps[8];
static size_t n_steps;

static int upgrade(int fd, unsigned from, void *userdata, Error *error) {
        CHECK_EQ(fd, dir_fd);
        steps[n_steps++] = from;
        return userdata ? error_setf(error, GRPC_INTERNAL, "told to fail") : 0;
}

static void begin(void) {
        strcpy(directory, "/tmp/test-layout-XXXXXX");
        CHECK(mkdtemp(directory));
        dir_fd = open_directory(AT_FDCWD, directory);
        CHECK(dir_fd >= 0);
        n_steps = 0;
}

static void end(void) {
        dir_fd = safe_close(dir_fd);
        CHECK_EQ(remove_tree(AT_FDCWD, directory), 0);
}

static void put(const char *text) {
        CHECK_EQ(write_file_atomic(dir_fd, LAYOUT_FILE, text, strlen(text), 0600, 0), 0);
}

static unsigned version(void) {
        unsigned v = 0;

        CHECK_EQ(layout_read(dir_fd, &v, NULL), 1);
        return v;
}

static void test_a_new_directory_gets_its_version_and_keeps_it(void) {
        Layout l = { .version = 1, .upgrade = upgrade };
        struct stat a, b;
        unsigned v;

        begin();
        CHECK_EQ(layout_read(dir_fd, &v, NULL), 0);
        CHECK_EQ(layout_open(dir_fd, "x", &l, NULL), 0);
        CHECK_EQ(version(), 1);
        CHECK_EQ(n_steps, 1);
        CHECK(fstatat(dir_fd, LAYOUT_FILE, &a, 0) >= 0);
        CHECK_EQ(layout_open(dir_fd, "x", &l, NULL), 0);
        CHECK(fstatat(dir_fd, LAYOUT_FILE, &b, 0) >= 0);
        CHECK_EQ(a.st_ino, b.st_ino);
        CHECK_EQ(n_steps, 1);
        end();
}

static void test_an_old_one_is_upgraded_step_by_step_and_a_step_that_fails_is_done_again(void) {
        Layout one = { .version = 1 }, three = { .version = 3, .upgrade = upgrade, .userdata = steps };
        _cleanup_error_ Error error = ERROR_INIT;

        begin();
        CHECK_EQ(layout_open(dir_fd, "x", &one, NULL), 0);
        CHECK(layout_open(dir_fd, "/the/directory", &three, &error) < 0);
        CHECK(strstr(error.message, "cannot bring /the/directory from version 1 to 2: told to fail"));
        CHECK_EQ(version(), 1);
        three.userdata = NULL;
        CHECK_EQ(layout_open(dir_fd, "x", &three, NULL), 0);
        CHECK_EQ(version(), 3);
        CHECK_EQ(n_steps, 3);
        CHECK_EQ(steps[1], 1);
        CHECK_EQ(steps[2], 2);
        end();
}

static void test_a_later_version_is_refused_and_not_touched(void) {
        Layout one = { .version = 1 }, two = { .version = 2, .upgrade = upgrade };
        _cleanup_error_ Error error = ERROR_INIT;

        begin();
        CHECK_EQ(layout_open(dir_fd, "x", &two, NULL), 0);
        CHECK_EQ(layout_open(dir_fd, "/the/directory", &one, &error), -EPROTONOSUPPORT);
        CHECK_EQ(error.code, GRPC_FAILED_PRECONDITION);
        CHECK(strstr(error.message, "/the/directory is of version 2, this rktlet"));
        CHECK_EQ(version(), 2);
        end();
}

static void test_a_damaged_file_is_written_again(void) {
        static const char *const texts[] = { "", "{", "{\"version\": 1", "[]", "{\"version\": 9, \"crc32\": \"00000000\"}\n", "{}", "{\"version\": -1}" };
        Layout l = { .version = 1 };

        begin();
        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                unsigned v;

                put(texts[i]);
                CHECK_EQ(layout_read(dir_fd, &v, NULL), -EBADMSG);
                CHECK_EQ(layout_open(dir_fd, "x", &l, NULL), 0);
                CHECK_EQ(version(), 1);
        }
        /* Not even a file. */
        CHECK(unlinkat(dir_fd, LAYOUT_FILE, 0) >= 0 && mkdirat(dir_fd, LAYOUT_FILE, 0700) >= 0);
        CHECK_EQ(layout_open(dir_fd, "x", &l, NULL), 0);
        CHECK_EQ(version(), 1);
        CHECK_EQ(layout_clear_file(dir_fd, LAYOUT_FILE), 0);
        CHECK_EQ(version(), 1);
        end();
}

static void test_what_stands_where_a_directory_belongs_moves_aside(void) {
        struct stat st;

        begin();
        CHECK_EQ(layout_make_directory(dir_fd, "a/b", 0700), 0);
        CHECK_EQ(layout_make_directory(dir_fd, "a/b", 0700), 0);
        CHECK(unlinkat(dir_fd, "a/b", AT_REMOVEDIR) >= 0);
        CHECK_EQ(write_file_atomic(dir_fd, "a/b", "x", 1, 0600, 0), 0);
        CHECK_EQ(layout_make_directory(dir_fd, "a/b", 0700), 1);
        CHECK(fstatat(dir_fd, "a/b", &st, AT_SYMLINK_NOFOLLOW) >= 0 && S_ISDIR(st.st_mode));
        CHECK(unlinkat(dir_fd, "a/b", AT_REMOVEDIR) >= 0 && symlinkat("nowhere", dir_fd, "a/b") >= 0);
        CHECK_EQ(layout_make_directory(dir_fd, "a/b", 0700), 1);
        CHECK(fstatat(dir_fd, "a/b.damaged-1", &st, AT_SYMLINK_NOFOLLOW) >= 0 && S_ISLNK(st.st_mode));
        CHECK(fstatat(dir_fd, "a/b", &st, AT_SYMLINK_NOFOLLOW) >= 0 && S_ISDIR(st.st_mode));
        /* What lies above is somebody else's. */
        CHECK_EQ(layout_make_directory(dir_fd, "a/b.damaged-0/c", 0700), -ENOTDIR);
        end();
}

TEST_MAIN(TEST_CASE(test_a_new_directory_gets_its_version_and_keeps_it),
          TEST_CASE(test_an_old_one_is_upgraded_step_by_step_and_a_step_that_fails_is_done_again),
          TEST_CASE(test_a_later_version_is_refused_and_not_touched), TEST_CASE(test_a_damaged_file_is_written_again),
          TEST_CASE(test_what_stands_where_a_directory_belongs_moves_aside))
