#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "basic/string-util.h"
#include "basic/test.h"
#include "systemd/properties.h"

/* A bus that nobody answers on: enough to make messages. */
static sd_bus *bus;
static int fds[2];

static void setup(void) {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) >= 0);
        CHECK(sd_bus_new(&bus) >= 0);
        CHECK(sd_bus_set_fd(bus, fds[0], fds[0]) >= 0);
        CHECK(sd_bus_negotiate_fds(bus, 1) >= 0);
        CHECK(sd_bus_start(bus) >= 0);
}

static sd_bus_message *message_of(const UnitProperties *p) {
        sd_bus_message *m;

        CHECK(sd_bus_message_new_method_call(bus, &m, "a.b", "/", "a.b", "C") >= 0);
        CHECK(unit_properties_append(p, m) >= 0);
        CHECK(sd_bus_message_seal(m, 1, 0) >= 0);
        CHECK(sd_bus_message_rewind(m, 1) >= 0);
        CHECK(sd_bus_message_enter_container(m, 'a', "(sv)") > 0);
        return m;
}

static void each_type_arrives_as_systemd_wants_it(void) {
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;
        sd_bus_message *m;
        const char *name, *s, *s2;
        const void *bytes;
        size_t size;
        uint64_t t;
        uint32_t u;
        int32_t i;
        int b, fd;
        struct stat st, expected;
        char **l;

        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_properties_add_string(p, "Description", "Pod a/b"), 0);
        CHECK_EQ(unit_properties_add_bool(p, "Delegate", true), 0);
        CHECK_EQ(unit_properties_add_i32(p, "OOMScoreAdjust", -997), 0);
        CHECK_EQ(unit_properties_add_u32(p, "UMask", 0xffffffffU), 0);
        CHECK_EQ(unit_properties_add_u64(p, "MemoryMax", UINT64_MAX), 0);
        CHECK_EQ(unit_properties_add_strv(p, "After",
                                          (char *[]) { (char *) "a.service", (char *) "b.service", NULL }), 0);
        CHECK_EQ(unit_properties_add_strv(p, "Empty", NULL), 0);
        CHECK_EQ(unit_properties_add_bytes(p, "AllowedCPUs", "\x05\x00\x80", 3), 0);
        CHECK_EQ(unit_properties_add_fd(p, "StandardOutputFileDescriptor", STDERR_FILENO), 0);
        CHECK_EQ(unit_properties_add_device_allow(p, "/dev/null", "rwm"), 0);
        CHECK_EQ(unit_properties_add_log_fields(p, (char *[]) { (char *) "K=\xff\n", NULL }), 0);
        CHECK_STREQ(unit_properties_description(p), "Pod a/b");

        m = message_of(p);
        CHECK(sd_bus_message_read(m, "(sv)", &name, "s", &s) > 0);
        CHECK_STREQ(name, "Description");
        CHECK_STREQ(s, "Pod a/b");
        CHECK(sd_bus_message_read(m, "(sv)", &name, "b", &b) > 0);
        CHECK_EQ(b, 1);
        CHECK(sd_bus_message_read(m, "(sv)", &name, "i", &i) > 0);
        CHECK_EQ(i, -997);
        CHECK(sd_bus_message_read(m, "(sv)", &name, "u", &u) > 0);
        CHECK_EQ(u, 0xffffffffU);
        CHECK(sd_bus_message_read(m, "(sv)", &name, "t", &t) > 0);
        CHECK(t == UINT64_MAX);
        CHECK(sd_bus_message_enter_container(m, 'r', "sv") > 0);
        CHECK(sd_bus_message_read(m, "s", &name) > 0);
        CHECK(sd_bus_message_enter_container(m, 'v', "as") > 0);
        CHECK(sd_bus_message_read_strv(m, &l) > 0);
        CHECK_EQ(strv_length(l), 2);
        CHECK_STREQ(l[1], "b.service");
        strv_free(l);
        CHECK(sd_bus_message_exit_container(m) > 0);
        CHECK(sd_bus_message_exit_container(m) > 0);
        CHECK(sd_bus_message_skip(m, "(sv)") > 0);
        CHECK(sd_bus_message_enter_container(m, 'r', "sv") > 0);
        CHECK(sd_bus_message_read(m, "s", &name) > 0);
        CHECK(sd_bus_message_enter_container(m, 'v', "ay") > 0);
        CHECK(sd_bus_message_read_array(m, 'y', &bytes, &size) > 0);
        CHECK_EQ(size, 3);
        CHECK(memcmp(bytes, "\x05\x00\x80", 3) == 0);
        CHECK(sd_bus_message_exit_container(m) > 0);
        CHECK(sd_bus_message_exit_container(m) > 0);
        CHECK(sd_bus_message_read(m, "(sv)", &name, "h", &fd) > 0);
        CHECK(fd != STDERR_FILENO && fstat(fd, &st) >= 0 && fstat(STDERR_FILENO, &expected) >= 0);
        CHECK(st.st_ino == expected.st_ino && st.st_dev == expected.st_dev);
        CHECK(sd_bus_message_read(m, "(sv)", &name, "a(ss)", 1, &s, &s2) > 0);
        CHECK_STREQ(name, "DeviceAllow");
        CHECK_STREQ(s, "/dev/null");
        CHECK_STREQ(s2, "rwm");
        CHECK(sd_bus_message_enter_container(m, 'r', "sv") > 0);
        CHECK(sd_bus_message_read(m, "s", &name) > 0);
        CHECK(sd_bus_message_enter_container(m, 'v', "aay") > 0);
        CHECK(sd_bus_message_enter_container(m, 'a', "ay") > 0);
        CHECK(sd_bus_message_read_array(m, 'y', &bytes, &size) > 0);
        CHECK_EQ(size, 4);
        CHECK(memcmp(bytes, "K=\xff\n", 4) == 0);
        sd_bus_message_unref(m);
}

static void dollars_in_arguments_are_doubled(void) {
        static char *const argv[] = {
                (char *) "$0", (char *) "a$B", (char *) "${C}$$", (char *) "%n", (char *) "", NULL,
        };
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;
        sd_bus_message *m;
        const char *name, *path;
        char **l;
        int b;

        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_properties_add_exec(p, "ExecStart", "/bin/a$b", argv), 0);
        m = message_of(p);
        CHECK(sd_bus_message_enter_container(m, 'r', "sv") > 0);
        CHECK(sd_bus_message_read(m, "s", &name) > 0);
        CHECK(sd_bus_message_enter_container(m, 'v', "a(sasb)") > 0);
        CHECK(sd_bus_message_enter_container(m, 'a', "(sasb)") > 0);
        CHECK(sd_bus_message_enter_container(m, 'r', "sasb") > 0);
        CHECK(sd_bus_message_read(m, "s", &path) > 0);
        /* The path is no argument: it is not expanded. */
        CHECK_STREQ(path, "/bin/a$b");
        CHECK(sd_bus_message_read_strv(m, &l) > 0);
        CHECK_EQ(strv_length(l), 5);
        CHECK_STREQ(l[0], "$$0");
        CHECK_STREQ(l[1], "a$$B");
        CHECK_STREQ(l[2], "$${C}$$$$");
        CHECK_STREQ(l[3], "%n");
        CHECK_STREQ(l[4], "");
        CHECK(sd_bus_message_read(m, "b", &b) > 0);
        CHECK_EQ(b, 0);
        strv_free(l);
        sd_bus_message_unref(m);
}

static void the_first_failure_is_remembered(void) {
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;
        sd_bus_message *m;

        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_properties_add_string(p, "Description", "caf\xe9"), -EINVAL);
        CHECK_EQ(unit_properties_add_bool(p, "Delegate", true), -EINVAL);
        CHECK(sd_bus_message_new_method_call(bus, &m, "a.b", "/", "a.b", "C") >= 0);
        CHECK_EQ(unit_properties_append(p, m), -EINVAL);
        sd_bus_message_unref(m);
        p = unit_properties_free(p);

        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_properties_add_exec(p, "ExecStart", "relative", (char *[]) { (char *) "x", NULL }), -EINVAL);
        p = unit_properties_free(p);

        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_properties_add_fd(p, "StandardOutputFileDescriptor", 9999), -EBADF);
        p = unit_properties_free(p);

        CHECK_EQ(unit_properties_new(&p), 0);
        for (unsigned i = 0; i < 256; i++)
                CHECK_EQ(unit_properties_add_u32(p, "X", i), 0);
        CHECK_EQ(unit_properties_add_u32(p, "X", 0), -E2BIG);
}

static void a_list_can_be_sent_twice(void) {
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;

        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_properties_add_fd(p, "StandardOutputFileDescriptor", STDERR_FILENO), 0);
        for (int i = 0; i < 2; i++) {
                sd_bus_message *m = message_of(p);
                const char *name;
                int fd;

                CHECK(sd_bus_message_read(m, "(sv)", &name, "h", &fd) > 0);
                CHECK(fcntl(fd, F_GETFD) >= 0);
                sd_bus_message_unref(m);
        }
}

static void unit_paths_are_escaped(void) {
        _cleanup_free_ char *path = unit_object_path("rktlet-ctr-0a.service");

        CHECK_STREQ(path, "/org/freedesktop/systemd1/unit/rktlet_2dctr_2d0a_2eservice");
}

static void teardown(void) {
        sd_bus_close(bus);
        bus = sd_bus_unref(bus);
        close(fds[1]);
}

TEST_MAIN(TEST_CASE(setup), TEST_CASE(each_type_arrives_as_systemd_wants_it),
          TEST_CASE(dollars_in_arguments_are_doubled),
          TEST_CASE(the_first_failure_is_remembered), TEST_CASE(a_list_can_be_sent_twice),
          TEST_CASE(unit_paths_are_escaped), TEST_CASE(teardown))
