#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <linux/magic.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "basic/test.h"

static char directory[64];
static int dir_fd = -1;

static void setup_in(const char *above) {
        (void) snprintf(directory, sizeof directory, "%s/test-file-util-XXXXXX", above);
        CHECK(mkdtemp(directory));
        dir_fd = open_directory(AT_FDCWD, directory);
        CHECK(dir_fd >= 0);
}

static void setup(void) {
        setup_in("/tmp");
}

static int count_entry(int fd, const char *name, void *userdata) {
        (*(int *) userdata)++;
        return 0;
}

static int entries(void) {
        int n = 0;

        CHECK_EQ(directory_foreach(AT_FDCWD, directory, count_entry, &n), 0);
        return n;
}

/* Nothing may be left over. */
static void teardown(void) {
        CHECK_EQ(entries(), 0);
        dir_fd = safe_close(dir_fd);
        CHECK_EQ(rmdir(directory), 0);
}

static mode_t mode_of(const char *name) {
        struct stat st;

        CHECK_EQ(fstatat(dir_fd, name, &st, 0), 0);
        return st.st_mode & 07777;
}

static void test_a_file_is_replaced_at_once_and_nothing_else_is_left(void) {
        _cleanup_free_ char *data = NULL;
        mode_t mask = umask(0077);
        size_t size;

        setup();
        CHECK_EQ(write_file_atomic(dir_fd, "a", "one", 3, 0600, 0), 0);
        CHECK_EQ(write_file_atomic(dir_fd, "a", "second", 6, 0644, WRITE_SYNC), 0);
        CHECK_EQ(mode_of("a"), 0644); /* whatever the umask is */
        (void) umask(mask);
        CHECK_EQ(read_file(dir_fd, "a", 6, &data, &size), 0);
        CHECK_STREQ(data, "second");
        CHECK_EQ(size, 6);
        CHECK_EQ(entries(), 1);
        CHECK_EQ(write_file_atomic(dir_fd, "none/b", "x", 1, 0600, 0), -ENOENT);
        CHECK_EQ(write_file_atomic(dir_fd, "a/b", "x", 1, 0600, 0), -ENOTDIR);
        CHECK_EQ(write_file_atomic(dir_fd, "", "x", 1, 0600, 0), -EINVAL);
        CHECK_EQ(write_file_atomic(dir_fd, "..", "x", 1, 0600, 0), -EINVAL);
        CHECK_EQ(mkdirat(dir_fd, "d", 0755), 0);
        CHECK_EQ(write_file_atomic(dir_fd, "d", "x", 1, 0600, 0), -EISDIR);
        CHECK_EQ(entries(), 2);

        _cleanup_free_ char *absolute = strprintf("%s/d/deep", directory);
        CHECK_EQ(write_file_atomic(AT_FDCWD, absolute, "x", 1, 0600, WRITE_SYNC), 0);
        /* A symlink is replaced, not followed. */
        CHECK_EQ(symlinkat("d/deep", dir_fd, "link"), 0);
        CHECK_EQ(write_file_atomic(dir_fd, "link", "new", 3, 0600, 0), 0);
        data = mfree(data);
        CHECK_EQ(read_file(dir_fd, "d/deep", 100, &data, NULL), 0);
        CHECK_STREQ(data, "x");
        CHECK_EQ(remove_tree(dir_fd, "a"), 0);
        CHECK_EQ(remove_tree(dir_fd, "a"), 0);
        CHECK_EQ(remove_tree(dir_fd, "d"), 0);
        CHECK_EQ(remove_tree(dir_fd, "link"), 0);
        teardown();
}

static void test_a_write_that_fails_leaves_the_old_file(void) {
        _cleanup_free_ char *data = NULL, *big = calloc(1, 8192);
        struct rlimit old, limit;

        setup();
        CHECK(big);
        CHECK_EQ(write_file_atomic(dir_fd, "a", "old", 3, 0600, 0), 0);
        CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
        CHECK_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
        limit = old;
        limit.rlim_cur = 4096;
        CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
        CHECK_EQ(write_file_atomic(dir_fd, "a", big, 8192, 0600, 0), -EFBIG);
        CHECK_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
        CHECK_EQ(entries(), 1);
        CHECK_EQ(read_file(dir_fd, "a", 100, &data, NULL), 0);
        CHECK_STREQ(data, "old");
        CHECK_EQ(remove_tree(dir_fd, "a"), 0);
        teardown();
}

static void test_reading_is_bounded_and_wants_a_regular_file(void) {
        _cleanup_free_ char *data = NULL;
        int fds[2];
        size_t size;

        setup();
        CHECK_EQ(write_file_atomic(dir_fd, "a", "12345", 5, 0600, 0), 0);
        CHECK_EQ(write_file_atomic(dir_fd, "empty", "", 0, 0600, 0), 0);
        CHECK_EQ(read_file(dir_fd, "a", 4, &data, &size), -E2BIG);
        CHECK(!data);
        CHECK_EQ(read_file(dir_fd, "empty", 0, &data, &size), 0);
        CHECK_STREQ(data, "");
        data = mfree(data);
        /* One that says it is empty and isn't. */
        CHECK_EQ(read_file(AT_FDCWD, "/proc/self/status", 100, &data, &size), -E2BIG);
        CHECK_EQ(read_file(AT_FDCWD, "/proc/self/status", 100000, &data, &size), 0);
        CHECK(size > 100 && strlen(data) == size);
        data = mfree(data);
        /* A FIFO would wait for ever, a device never end. */
        CHECK_EQ(mkfifoat(dir_fd, "fifo", 0600), 0);
        CHECK_EQ(read_file(dir_fd, "fifo", 100, &data, &size), -EBADFD);
        CHECK_EQ(read_file(AT_FDCWD, "/dev/zero", 100, &data, &size), -EBADFD);
        CHECK_EQ(read_file(dir_fd, ".", 100, &data, &size), -EISDIR);
        CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
        CHECK_EQ(write_all(fds[1], "through", 7), 0);
        (void) close(fds[1]);
        CHECK_EQ(read_fd(fds[0], 7, &data, &size), 0);
        CHECK_STREQ(data, "through");
        (void) close(fds[0]);
        CHECK_EQ(remove_tree(dir_fd, "a"), 0);
        CHECK_EQ(remove_tree(dir_fd, "empty"), 0);
        CHECK_EQ(remove_tree(dir_fd, "fifo"), 0);
        teardown();
}

static void test_missing_directories_are_made_and_present_ones_left(void) {
        mode_t mask = umask(0077);

        setup();
        CHECK_EQ(mkdirat(dir_fd, "p", 0700), 0);
        CHECK_EQ(mkdir_parents(dir_fd, "p/q//r/", 0751), 0);
        CHECK_EQ(mode_of("p"), 0700);
        CHECK_EQ(mode_of("p/q"), 0751);
        CHECK_EQ(mode_of("p/q/r"), 0751);
        CHECK_EQ(mkdir_parents(dir_fd, "p/q/r", 0700), 0);
        CHECK_EQ(mode_of("p/q/r"), 0751);
        CHECK_EQ(symlinkat("q", dir_fd, "p/link"), 0);
        CHECK_EQ(mkdir_parents(dir_fd, "p/link/s/t", 0755), 0);
        CHECK_EQ(mode_of("p/q/s/t"), 0755);
        CHECK_EQ(write_file_atomic(dir_fd, "f", "", 0, 0600, 0), 0);
        CHECK_EQ(mkdir_parents(dir_fd, "f", 0755), -ENOTDIR);
        CHECK_EQ(mkdir_parents(dir_fd, "f/g", 0755), -ENOTDIR);
        CHECK_EQ(mkdir_parents(dir_fd, "", 0755), -EINVAL);
        CHECK_EQ(mkdir_parents(AT_FDCWD, "/", 0755), 0);
        (void) umask(mask);
        CHECK_EQ(remove_tree(dir_fd, "p"), 0);
        CHECK_EQ(remove_tree(dir_fd, "f"), 0);
        teardown();
}

static void make_deep(const char *name, int depth) {
        int here;

        CHECK_EQ(mkdirat(dir_fd, name, 0755), 0);
        here = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK(here >= 0);
        for (int i = 0; i < depth; i++) {
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
}

/* Each level is work where the file system is no memory; with RKTLET_TEST_LONG set it is as deep as is ever asked of.
 */
static void test_a_tree_of_any_depth_is_removed_in_bounded_memory_and_descriptors(void) {
        struct rlimit old, limit;
        struct rusage before, after;
        struct statfs st;
        bool in_memory = statfs("/dev/shm", &st) >= 0 && st.f_type == TMPFS_MAGIC && access("/dev/shm", W_OK) >= 0;

        setup_in(in_memory ? "/dev/shm" : "/tmp");
        make_deep("deep", getenv("RKTLET_TEST_LONG") ? 100000 : in_memory ? 20000 : 3000);
        CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
        limit = old;
        limit.rlim_cur = 16;
        CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
        CHECK_EQ(getrusage(RUSAGE_SELF, &before), 0);
        CHECK_EQ(remove_tree(dir_fd, "deep"), 0);
        CHECK_EQ(getrusage(RUSAGE_SELF, &after), 0);
#if !defined(__SANITIZE_ADDRESS__) /* which keeps what was freed */
        CHECK(after.ru_maxrss - before.ru_maxrss < 4096);
#endif
        CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
        teardown();
}

static void test_a_wide_tree_is_removed_and_symlinks_are_not_followed(void) {
        char name[64];

        setup();
        CHECK_EQ(mkdir_parents(dir_fd, "kept/inside", 0755), 0);
        CHECK_EQ(mkdirat(dir_fd, "t", 0755), 0);
        CHECK_EQ(symlinkat("../kept", dir_fd, "t/relative"), 0);
        CHECK_EQ(symlinkat(directory, dir_fd, "t/absolute"), 0);
        for (int i = 0; i < 600; i++) {
                (void) snprintf(name, sizeof name, "t/%d/%d/%d", i % 3, i % 50, i);
                CHECK_EQ(mkdir_parents(dir_fd, name, i % 2 ? 0755 : 0), 0);
                (void) snprintf(name, sizeof name, "t/%d/%d/f%d", i % 3, i % 50, i);
                CHECK_EQ(mknodat(dir_fd, name, S_IFREG | 0600, 0), 0);
        }
        /* The names that removing itself uses. */
        CHECK_EQ(mkdir_parents(dir_fd, "t/.removing-0/.removing-1/x", 0755), 0);
        CHECK_EQ(remove_tree(dir_fd, "t"), 0);
        CHECK_EQ(entries(), 1);
        CHECK_EQ(mode_of("kept/inside"), 0755);
        CHECK_EQ(symlinkat("kept", dir_fd, "link"), 0);
        CHECK_EQ(remove_tree(dir_fd, "link"), 0);
        CHECK_EQ(mode_of("kept/inside"), 0755);
        CHECK_EQ(remove_tree(dir_fd, "."), -EINVAL);
        CHECK_EQ(remove_tree(dir_fd, "kept/.."), -EINVAL);
        CHECK_EQ(remove_tree(dir_fd, "absent/too"), 0);
        CHECK_EQ(remove_tree(dir_fd, "kept"), 0);
        teardown();
}

static void remove_with_mount(void) {
        _cleanup_free_ char *point = strprintf("%s/t/a/b/mount", directory);

        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                _exit(TEST_SKIPPED);
        if (mount("tmpfs", point, "tmpfs", 0, NULL) < 0)
                _exit(TEST_SKIPPED);
        /* The old one is of the mounts we left. */
        (void) close(dir_fd);
        dir_fd = open_directory(AT_FDCWD, directory);
        CHECK_EQ(mkdir_parents(dir_fd, "t/a/b/mount/x/y", 0755), 0);
        CHECK_EQ(remove_tree(dir_fd, "t/a/b/mount"), -EBUSY);
        CHECK_EQ(remove_tree(dir_fd, "t"), -EBUSY);
        /* All that was on the mount is there still, wherever the mount has come to lie. */
        _cleanup_free_ char *mounts = NULL;
        CHECK_EQ(read_file(AT_FDCWD, "/proc/self/mountinfo", 1024 * 1024, &mounts, NULL), 0);
        char *at = strstr(mounts, directory);
        CHECK(at);
        at[strcspn(at, " ")] = 0;
        _cleanup_free_ char *inside = strprintf("%s/x/y", at);
        CHECK_EQ(access(inside, F_OK), 0);
        _exit(0);
}

static void test_a_mount_in_the_tree_is_not_crossed(void) {
        int status;
        pid_t pid;

        setup();
        CHECK_EQ(mkdir_parents(dir_fd, "t/a/b/mount", 0755), 0);
        pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
                remove_with_mount();
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK(WIFEXITED(status));
        if (WEXITSTATUS(status) == TEST_SKIPPED)
                TEST_SKIP("mounts cannot be made here");
        else
                CHECK_EQ(WEXITSTATUS(status), 0);
        CHECK_EQ(remove_tree(dir_fd, "t"), 0);
        teardown();
}

static void test_paths_resolve_inside_the_root(void) {
        static const char *const inside[] = { "/etc/passwd", "link/passwd", "up/passwd", "../etc/passwd",
                                              "/../../etc/passwd" };
        _cleanup_close_ int file = -1, root = -1;
        struct stat a, b;

        setup();
        CHECK_EQ(mkdir_parents(dir_fd, "root/etc/deep", 0711), 0);
        CHECK_EQ(symlinkat("/etc", dir_fd, "root/link"), 0);
        CHECK_EQ(symlinkat("../../../../../etc", dir_fd, "root/up"), 0);
        CHECK_EQ(symlinkat("/proc/self/root/etc", dir_fd, "root/magic"), 0);
        CHECK_EQ(symlinkat("loop", dir_fd, "root/loop"), 0);
        CHECK_EQ(symlinkat("/made", dir_fd, "root/new"), 0);
        CHECK_EQ(write_file_atomic(dir_fd, "root/etc/passwd", "inside", 6, 0600, 0), 0);
        root = open_directory(dir_fd, "root");
        for (size_t i = 0; i < ELEMENTSOF(inside); i++) {
                _cleanup_free_ char *data = NULL;
                size_t size;

                file = open_in_root(root, inside[i], O_RDONLY, 0);
                CHECK(file >= 0);
                CHECK(fcntl(file, F_GETFD) & FD_CLOEXEC);
                CHECK_EQ(read_fd(file, 100, &data, &size), 0);
                CHECK_STREQ(data, "inside");
                file = safe_close(file);
        }
        CHECK_EQ(open_in_root(root, "magic/passwd", O_RDONLY, 0), -ENOENT);
        CHECK_EQ(open_in_root(root, "loop", O_RDONLY, 0), -ELOOP);
        CHECK_EQ(open_in_root(root, "link/passwd/x", O_RDONLY, 0), -ENOTDIR);
        file = open_in_root(root, "new", O_WRONLY | O_CREAT, 0640);
        CHECK(file >= 0);
        CHECK_EQ(mode_of("root/made") & 0700, 0600);
        file = safe_close(file);
        file = open_in_root(root, "", O_PATH, 0);
        CHECK(fstat(file, &a) >= 0 && fstat(root, &b) >= 0 && a.st_ino == b.st_ino);
        CHECK_EQ(remove_tree(dir_fd, "root"), 0);
        teardown();
}

static int stop_at_b(int fd, const char *name, void *userdata) {
        ++*(int *) userdata;
        return streq(name, "b") ? -EXFULL : 0;
}

static void test_names_are_visited_until_one_ends_it(void) {
        int n = 0;

        setup();
        CHECK_EQ(mkdir_parents(dir_fd, "d/b", 0755), 0);
        CHECK_EQ(directory_foreach(dir_fd, "d", stop_at_b, &n), -EXFULL);
        CHECK_EQ(n, 1);
        CHECK_EQ(directory_foreach(dir_fd, "absent", stop_at_b, &n), -ENOENT);
        CHECK_EQ(write_file_atomic(dir_fd, "f", "", 0, 0600, 0), 0);
        CHECK_EQ(directory_foreach(dir_fd, "f", stop_at_b, &n), -ENOTDIR);
        CHECK_EQ(remove_tree(dir_fd, "f"), 0);
        CHECK_EQ(remove_tree(dir_fd, "d"), 0);
        teardown();
}

TEST_MAIN(TEST_CASE(test_a_file_is_replaced_at_once_and_nothing_else_is_left),
          TEST_CASE(test_a_write_that_fails_leaves_the_old_file),
          TEST_CASE(test_reading_is_bounded_and_wants_a_regular_file),
          TEST_CASE(test_missing_directories_are_made_and_present_ones_left),
          TEST_CASE(test_a_tree_of_any_depth_is_removed_in_bounded_memory_and_descriptors),
          TEST_CASE(test_a_wide_tree_is_removed_and_symlinks_are_not_followed),
          TEST_CASE(test_a_mount_in_the_tree_is_not_crossed), TEST_CASE(test_paths_resolve_inside_the_root),
          TEST_CASE(test_names_are_visited_until_one_ends_it))
