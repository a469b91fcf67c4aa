#include "stats/tree-usage.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/test.h"

#define DEEP 1000

static char directory[] = "/tmp/test-usage-XXXXXX";
static int dir_fd = -1;

static void begin(void) {
        memcpy(directory + STRLEN("/tmp/test-usage-"), "XXXXXX", 6);
        CHECK(mkdtemp(directory));
        dir_fd = open_directory(AT_FDCWD, directory);
        CHECK(dir_fd >= 0);
}

static void end(void) {
        dir_fd = safe_close(dir_fd);
        CHECK_EQ(remove_tree(AT_FDCWD, directory), 0);
}

static void put(const char *name, size_t size) {
        char *data = calloc(1, size);

        CHECK(data);
        memset(data, 'x', size);
        CHECK_EQ(write_file_atomic(dir_fd, name, data, size, 0600, WRITE_SYNC), 0);
        free(data);
}

static uint64_t blocks(const char *name) {
        struct stat st;

        CHECK_EQ(fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
        return (uint64_t) st.st_blocks * 512;
}

static void test_files_directories_and_links_are_counted_as_du_does(void) {
        TreeUsage u;

        begin();
        CHECK_EQ(mkdirat(dir_fd, "a", 0700), 0);
        CHECK_EQ(mkdirat(dir_fd, "a/b", 0700), 0);
        CHECK_EQ(mkdirat(dir_fd, "c", 0700), 0);
        put("a/b/large", 100000);
        put("small", 10);
        CHECK_EQ(symlinkat("/etc", dir_fd, "a/link"), 0);
        CHECK_EQ(linkat(dir_fd, "a/b/large", dir_fd, "c/again", 0), 0);
        CHECK_EQ(linkat(dir_fd, "a/b/large", dir_fd, "c/and-again", 0), 0);
        CHECK_EQ(tree_usage(AT_FDCWD, directory, 0, &u), 0);
        CHECK_EQ(u.inodes, 7);
        CHECK_EQ(u.bytes, blocks(".") + blocks("a") + blocks("a/b") + blocks("c") + blocks("a/b/large") +
                                          blocks("small") + blocks("a/link"));
        CHECK(u.bytes >= 100000);
        /* It begins at the top each time. */
        CHECK_EQ(tree_usage(dir_fd, ".", 0, &u), 0);
        CHECK_EQ(tree_usage(dir_fd, ".", 0, &u), 0);
        CHECK_EQ(u.inodes, 7);
        end();
}

static void test_an_empty_tree_and_none(void) {
        TreeUsage u;

        begin();
        CHECK_EQ(tree_usage(dir_fd, ".", 0, &u), 0);
        CHECK_EQ(u.inodes, 1);
        CHECK_EQ(tree_usage(dir_fd, "none", 0, &u), -ENOENT);
        CHECK_EQ(symlinkat("/", dir_fd, "link"), 0);
        CHECK(tree_usage(dir_fd, "link", 0, &u) < 0);
        end();
}

static void test_the_limit_of_entries(void) {
        TreeUsage u;

        begin();
        for (unsigned i = 0; i < 5; i++) {
                char name[8];

                (void) snprintf(name, sizeof name, "%u", i);
                CHECK_EQ(mkdirat(dir_fd, name, 0700), 0);
        }
        CHECK_EQ(tree_usage(dir_fd, ".", 5, &u), 0);
        CHECK_EQ(u.inodes, 6);
        CHECK_EQ(tree_usage(dir_fd, ".", 4, &u), -E2BIG);
        end();
}

static void test_a_deep_tree_takes_one_descriptor(void) {
        _cleanup_close_ int fd = -1;
        TreeUsage u;

        begin();
        fd = dup(dir_fd);
        for (unsigned i = 0; i < DEEP; i++) {
                int next;

                CHECK_EQ(mkdirat(fd, "d", 0700), 0);
                CHECK_EQ(mkdirat(fd, "e", 0700), 0);
                next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                CHECK(next >= 0);
                (void) close(fd);
                fd = next;
        }
        CHECK_EQ(tree_usage(dir_fd, ".", 0, &u), 0);
        CHECK_EQ(u.inodes, 2 * DEEP + 1);
        end();
}

TEST_MAIN(TEST_CASE(test_files_directories_and_links_are_counted_as_du_does), TEST_CASE(test_an_empty_tree_and_none),
          TEST_CASE(test_the_limit_of_entries), TEST_CASE(test_a_deep_tree_takes_one_descriptor))
