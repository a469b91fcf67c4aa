#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "engine/native/oci-user.h"

static char root[] = "/tmp/test-oci-user-XXXXXX";
static int root_fd = -1;

static void put(const char *name, const char *text) {
        CHECK_EQ(write_file_atomic(root_fd, name, text, strlen(text), 0644, 0), 0);
}

static void fresh(void) {
        static bool made;

        if (made) {
                (void) close(root_fd);
                CHECK_EQ(remove_tree(AT_FDCWD, root), 0);
                CHECK_EQ(mkdir(root, 0755), 0);
        } else
                CHECK(mkdtemp(root));
        made = true;
        root_fd = open_directory(AT_FDCWD, root);
        CHECK(root_fd >= 0);
        CHECK_EQ(mkdirat(root_fd, "etc", 0755), 0);
        put("etc/passwd",
            "# comment\n"
            "root:x:0:0:root:/root:/bin/sh\n"
            "broken:x\n"
            "late:x:notanumber:5::/:\n"
            "app:x:1001:1002:App:/home/app:/bin/sh\n"
            "1000:x:0:0:a user named like a number:/evil:/bin/sh\n"
            "rel:x:1003:1003::home/rel:/bin/sh\n"
            "last:x:1004:1004::/home/last:/bin/sh");
        put("etc/group", "root:x:0:\napp:x:1002:\nextra:x:2001:other,app\nmore:x:2002:app,last\nbad:x:4294967296:"
                         "app\nend:x:2003:last");
}

static void done(void) {
        root_fd = safe_close(root_fd);
        CHECK_EQ(remove_tree(AT_FDCWD, root), 0);
}

static char *resolve(const runtime_v1_LinuxContainerSecurityContext *c, const char *image_user) {
        _cleanup_(oci_user_done) OciUser u = {};
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        _cleanup_error_ Error error = ERROR_INIT;
        int r;

        r = oci_user_resolve(root_fd, c, image_user, &u, &error);
        if (r < 0) {
                CHECK(error.code == GRPC_INVALID_ARGUMENT || error.code == GRPC_FAILED_PRECONDITION);
                CHECK(error.message[0]);
                return strprintf("code %d", (int) error.code);
        }
        CHECK_EQ(buffer_appendf(&b, "%u:%u", u.uid, u.gid), 0);
        for (size_t i = 0; i < u.n_groups; i++)
                CHECK_EQ(buffer_appendf(&b, " %u", u.groups[i]), 0);
        CHECK_EQ(buffer_appendf(&b, " %s", u.home), 0);
        return TAKE_PTR(b.data);
}

#define CHECK_USER(context, image_user, want)                                                                          \
        do {                                                                                                           \
                _cleanup_free_ char *_got = resolve((context), (image_user));                                          \
                CHECK_STREQ(_got, (want));                                                                             \
        } while (0)

static void test_users_of_images(void) {
        fresh();
        CHECK_USER(NULL, NULL, "0:0 0 /root");
        CHECK_USER(NULL, "", "0:0 0 /root");
        CHECK_USER(NULL, "app", "1001:1002 1002 2001 2002 /home/app");
        CHECK_USER(NULL, "app:extra", "1001:2001 2001 2002 /home/app");
        CHECK_USER(NULL, "1001", "1001:1002 1002 2001 2002 /home/app");
        CHECK_USER(NULL, "1234:5678", "1234:5678 5678 /");
        CHECK_USER(NULL, "1234", "1234:0 0 /");
        CHECK_USER(NULL, "last", "1004:1004 1004 2002 2003 /home/last");
        CHECK_USER(NULL, "rel", "1003:1003 1003 /");
        CHECK_USER(NULL, ":2001", "0:2001 2001 /root");
        CHECK_USER(NULL, "2147483647", "2147483647:0 0 /");
        done();
}

static void test_users_that_are_none(void) {
        static const char *const users[] = { "ghost", "app:ghost", "-1", "0x0", " 1", "1 ", "+1", "2147483648",
                                             "4294967296", "99999999999999999999", "1:2147483648", "app:-5", "late",
                                             "broken", "1:2:3", "app\n", "\xff" };

        fresh();
        for (size_t i = 0; i < ELEMENTSOF(users); i++)
                CHECK_USER(NULL, users[i], "code 9");
        done();
}

static void test_a_number_stays_a_number_where_a_user_is_called_so(void) {
        runtime_v1_LinuxContainerSecurityContext c = { .has_run_as_user = true, .run_as_user.value = 1000 };

        fresh();
        CHECK_USER(NULL, "1000", "1000:0 0 /");
        CHECK_USER(&c, NULL, "1000:0 0 /");
        done();
}

static void test_users_of_requests(void) {
        int64_t groups[] = { 77, 99, 77 }, negative[] = { -1 };
        runtime_v1_LinuxContainerSecurityContext c = {};

        fresh();
        CHECK_USER(&c, "app", "1001:1002 1002 2001 2002 /home/app");
        c.has_run_as_user = true;
        c.run_as_user.value = 4321;
        CHECK_USER(&c, "app", "4321:0 0 /");
        c.has_run_as_group = true;
        c.run_as_group.value = 8765;
        CHECK_USER(&c, "app", "4321:8765 8765 /");
        c.run_as_user.value = 1001;
        c.supplemental_groups = groups;
        c.supplemental_groups_count = 3;
        CHECK_USER(&c, NULL, "1001:8765 8765 77 99 2001 2002 /home/app");
        c.supplemental_groups_policy = runtime_v1_SupplementalGroupsPolicy_Strict;
        CHECK_USER(&c, NULL, "1001:8765 8765 77 99 /home/app");
        c.supplemental_groups_policy = 9;
        CHECK_USER(&c, NULL, "code 3");
        c.supplemental_groups_policy = 0;
        c.supplemental_groups = negative;
        c.supplemental_groups_count = 1;
        CHECK_USER(&c, NULL, "code 3");
        c.supplemental_groups_count = 0;
        c.run_as_user.value = INT64_C(1) << 32;
        CHECK_USER(&c, NULL, "code 3");
        c.run_as_user.value = -1;
        CHECK_USER(&c, NULL, "code 3");
        c.run_as_user.value = INT32_MAX;
        CHECK_USER(&c, NULL, "2147483647:8765 8765 /");
        c.run_as_username = (char *) "app";
        CHECK_USER(&c, NULL, "code 3");
        c.has_run_as_user = false;
        CHECK_USER(&c, NULL, "1001:8765 8765 2001 2002 /home/app");
        c.run_as_username = (char *) "ghost";
        CHECK_USER(&c, NULL, "code 3");
        c.run_as_username = NULL;
        CHECK_USER(&c, NULL, "code 3");
        c.run_as_group.value = -5;
        CHECK_USER(&c, NULL, "code 3");
        done();
}

static void test_files_that_are_missing_mean_nobody_is_known(void) {
        fresh();
        CHECK_EQ(remove_tree(root_fd, "etc"), 0);
        CHECK_USER(NULL, "12", "12:0 0 /");
        CHECK_USER(NULL, "app", "code 9");
        CHECK_EQ(symlinkat("nowhere", root_fd, "etc"), 0);
        CHECK_USER(NULL, "12", "12:0 0 /");
        CHECK_EQ(remove_tree(root_fd, "etc"), 0);
        put("etc", "a file");
        CHECK_USER(NULL, "12", "12:0 0 /");
        done();
}

static void test_links_stay_in_the_image(void) {
        fresh();
        CHECK_EQ(remove_tree(root_fd, "etc/passwd"), 0);
        CHECK_EQ(symlinkat("/etc/group", root_fd, "etc/passwd"), 0);
        put("etc/group", "app:x:7:8:App:/inside:/bin/sh\n");
        CHECK_USER(NULL, "app", "7:8 8 /inside");
        CHECK_EQ(remove_tree(root_fd, "etc/passwd"), 0);
        CHECK_EQ(symlinkat("../../../../../../etc/passwd", root_fd, "etc/passwd"), 0);
        CHECK_USER(NULL, "app", "code 9"); /* a loop of one, inside */
        CHECK_EQ(remove_tree(root_fd, "etc/passwd"), 0);
        CHECK_EQ(symlinkat("/proc/self/root/etc/passwd", root_fd, "etc/passwd"), 0);
        CHECK_USER(NULL, "daemon", "code 9");
        done();
}

static void test_what_is_no_file_is_refused_and_not_opened(void) {
        fresh();
        CHECK_EQ(remove_tree(root_fd, "etc/passwd"), 0);
        CHECK_EQ(mkfifoat(root_fd, "etc/passwd", 0644), 0);
        CHECK_USER(NULL, "12", "code 9");
        CHECK_EQ(remove_tree(root_fd, "etc/passwd"), 0);
        CHECK_EQ(mkdirat(root_fd, "etc/passwd", 0755), 0);
        CHECK_USER(NULL, "12", "code 9");
        CHECK_EQ(remove_tree(root_fd, "etc/passwd"), 0);
        if (mknodat(root_fd, "etc/passwd", S_IFCHR | 0644, makedev(1, 5)) >= 0)
                CHECK_USER(NULL, "12", "code 9");
        done();
}

static void test_size_is_bounded(void) {
        int fd;

        fresh();
        fd = openat(root_fd, "etc/passwd", O_WRONLY | O_CLOEXEC);
        CHECK_EQ(ftruncate(fd, INT64_C(1) << 30), 0);
        (void) close(fd);
        CHECK_USER(NULL, "app", "code 9");
        done();
}

static void test_control_characters_get_nowhere(void) {
        fresh();
        put("etc/passwd", "app:x:1:1::/ho\rme:/bin/sh\nbin:x:2:2::/\xff\xfe:/bin/sh\n");
        CHECK_USER(NULL, "app", "1:1 1 2001 2002 /");
        CHECK_USER(NULL, "bin", "2:2 2 /");
        done();
}

static void test_groups_are_bounded(void) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;

        fresh();
        for (unsigned i = 0; i < OCI_USER_GROUPS_MAX + 5; i++)
                CHECK_EQ(buffer_appendf(&b, "g%u:x:%u:app\n", i, i + 10000), 0);
        put("etc/group", b.data);
        CHECK_USER(NULL, "app", "code 3");
        done();
}

TEST_MAIN(TEST_CASE(test_users_of_images), TEST_CASE(test_users_that_are_none),
          TEST_CASE(test_a_number_stays_a_number_where_a_user_is_called_so), TEST_CASE(test_users_of_requests),
          TEST_CASE(test_files_that_are_missing_mean_nobody_is_known), TEST_CASE(test_links_stay_in_the_image),
          TEST_CASE(test_what_is_no_file_is_refused_and_not_opened), TEST_CASE(test_size_is_bounded),
          TEST_CASE(test_control_characters_get_nowhere), TEST_CASE(test_groups_are_bounded))
