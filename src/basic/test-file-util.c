#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/test.h"

static char directory[] = "/tmp/test-file-util-XXXXXX";

static int count_entry(int dir_fd, const char *name, void *userdata) {
        (*(int *) userdata)++;
        return 0;
}

static int entries(void) {
        int n = 0;

        CHECK_EQ(directory_foreach(AT_FDCWD, directory, count_entry, &n), 0);
        return n;
}

static void test_a_file_is_replaced_at_once_and_nothing_else_is_left(void) {
        _cleanup_close_ int fd = open_directory(AT_FDCWD, directory);
        _cleanup_free_ char *data = NULL;
        struct stat st;
        size_t size;

        CHECK(mkdtemp(directory) || true);
        safe_close(TAKE_FD(fd));
        fd = open_directory(AT_FDCWD, directory);
        CHECK(fd >= 0);
        CHECK_EQ(write_file_atomic(fd, "a", "one", 3, 0600, 0), 0);
        CHECK_EQ(write_file_atomic(fd, "a", "second", 6, 0640, WRITE_SYNC), 0);
        CHECK_EQ(fstatat(fd, "a", &st, 0), 0);
        CHECK_EQ(st.st_mode & 0777, 0640);
        CHECK_EQ(read_file(fd, "a", 6, &data, &size), 0);
        CHECK_STREQ(data, "second");
        CHECK_EQ(entries(), 1);
        data = mfree(data);
        CHECK_EQ(read_file(fd, "a", 5, &data, &size), -E2BIG);
        CHECK_EQ(write_file_atomic(fd, "none/b", "x", 1, 0600, 0), -ENOENT);
        CHECK_EQ(remove_tree(fd, "a"), 0);
        CHECK_EQ(remove_tree(fd, "a"), 0);
        CHECK_EQ(entries(), 0);
}

static void test_a_deep_and_wide_tree_is_removed(void) {
        _cleanup_close_ int fd = open_directory(AT_FDCWD, directory), top;
        int here;

        CHECK_EQ(mkdirat(fd, "deep", 0755), 0);
        here = openat(fd, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        top = dup(here);
        for (int i = 0; i < 20000; i++) {
                int next;

                CHECK_EQ(mkdirat(here, "d", 0755), 0);
                if (i % 1000 == 0)
                        CHECK_EQ(symlinkat("/", here, "link"), 0);
                next = openat(here, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                CHECK(next >= 0);
                (void) close(here);
                here = next;
        }
        (void) close(here);
        for (int i = 0; i < 1000; i++) {
                char name[32];

                (void) snprintf(name, sizeof name, "f%d", i);
                here = openat(top, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
                CHECK(here >= 0);
                (void) close(here);
        }
        CHECK_EQ(remove_tree(fd, "deep"), 0);
        CHECK_EQ(entries(), 0);
}

static void test_paths_resolve_inside_the_root(void) {
        _cleanup_close_ int fd = open_directory(AT_FDCWD, directory), file = -1;

        CHECK_EQ(mkdir_parents(fd, "root/etc/deep", 0711), 0);
        CHECK_EQ(mkdir_parents(fd, "root/etc/deep", 0711), 0);
        CHECK_EQ(symlinkat("/etc", fd, "root/link"), 0);
        CHECK_EQ(symlinkat("../../../../../etc", fd, "root/up"), 0);
        CHECK_EQ(write_file_atomic(fd, "root/etc/passwd", "inside", 6, 0600, 0), 0);
        _cleanup_close_ int root = open_directory(fd, "root");
        for (const char *const *p = (const char *const[]) { "/etc/passwd", "link/passwd", "up/passwd", "../etc/passwd", NULL }; *p;
             p++) {
                _cleanup_free_ char *data = NULL;
                size_t size;

                file = open_in_root(root, *p, O_RDONLY, 0);
                CHECK(file >= 0);
                CHECK_EQ(read_fd(file, 100, &data, &size), 0);
                CHECK_STREQ(data, "inside");
                file = safe_close(file);
        }
        CHECK_EQ(remove_tree(fd, "root"), 0);
        CHECK_EQ(rmdir(directory), 0);
}

TEST_MAIN(TEST_CASE(test_a_file_is_replaced_at_once_and_nothing_else_is_left),
          TEST_CASE(test_a_deep_and_wide_tree_is_removed), TEST_CASE(test_paths_resolve_inside_the_root))
