/* Real plugins in network namespaces of our own, and scripts that behave badly. */

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "basic/fiber.h"
#include "basic/file-util.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "net/cni.h"

#define REAL_PLUGINS "/usr/lib/cni"

static char directory[] = "/tmp/test-cni-XXXXXX";
static sd_event *event;
static Cni *cni;
static pid_t pod_pid;

static char *path_of(const char *name) {
        char *p = strprintf("%s/%s", directory, name);

        CHECK(p);
        return p;
}

static void write_text(const char *name, mode_t mode, const char *text) {
        _cleanup_free_ char *p = path_of(name);

        CHECK_EQ(write_file_atomic(AT_FDCWD, p, text, strlen(text), mode, 0), 0);
}

static void write_plugin(const char *name, const char *script) {
        _cleanup_free_ char *file = strprintf("bin/%s", name), *text = strprintf("#!/bin/sh\n%s\n", script);

        write_text(file, 0755, text);
}

static bool file_exists(const char *name) {
        _cleanup_free_ char *p = path_of(name);

        return access(p, F_OK) >= 0;
}

static char *contents(const char *name) {
        _cleanup_free_ char *p = path_of(name);
        char *text = NULL;
        size_t n;

        return read_file(AT_FDCWD, p, 100000, &text, &n) >= 0 ? text : strdup("");
}

/* A fresh set of folders, and a process that has a network namespace. */
static void setup(uint64_t timeout_usec) {
        _cleanup_free_ char *conf = NULL, *bin = NULL, *cache = NULL;
        int fds[2];
        char c;

        strcpy(directory, "/tmp/test-cni-XXXXXX");
        CHECK(mkdtemp(directory));
        conf = path_of("conf");
        bin = path_of("bin");
        cache = path_of("cache");
        CHECK_EQ(mkdir(conf, 0755), 0);
        CHECK_EQ(mkdir(bin, 0755), 0);
        CHECK_EQ(sd_event_new(&event), 0);
        CniConfig config = {
                .conf_directories = (char *[]) { conf, NULL },
                .bin_directories = (char *[]) { bin, (char *) REAL_PLUGINS, NULL },
                .cache_directory = cache,
                .timeout_usec = timeout_usec,
        };
        CHECK_EQ(cni_new(event, &config, &cni), 0);

        CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
        pod_pid = fork();
        if (pod_pid == 0) {
                if (unshare(CLONE_NEWNET) < 0 || write(fds[1], "x", 1) != 1)
                        _exit(1);
                (void) pause();
                _exit(0);
        }
        CHECK_EQ(read(fds[0], &c, 1), 1);
        (void) close(fds[0]);
        (void) close(fds[1]);
}

static void teardown(void) {
        (void) kill(pod_pid, SIGKILL);
        (void) waitpid(pod_pid, NULL, 0);
        cni = cni_free(cni);
        event = sd_event_unref(event);
        CHECK_EQ(remove_tree(AT_FDCWD, directory), 0);
}

static CniPod pod(void) {
        static char netns[64];

        (void) snprintf(netns, sizeof netns, "/proc/%d/ns/net", pod_pid);
        return (CniPod) { .id = "0123abcd", .name = "web", .namespace_ = "default", .uid = "u-1", .netns_path = netns };
}

typedef struct Call {
        bool del;
        CniResult result;
        Error error;
        int r;
} Call;

static int call_fiber(void *userdata) {
        Call *c = userdata;
        CniPod p = pod();

        c->r = c->del ? cni_del(cni, &p, &c->error) : cni_add(cni, &p, &c->result, &c->error);
        return 0;
}

static Call call(bool del) {
        Call c = { .del = del };

        CHECK_EQ(fiber_run(event, call_fiber, &c), 0);
        return c;
}

static void call_done(Call *c) {
        cni_result_done(&c->result);
        error_clear(&c->error);
}

static void test_a_bridge_network_gives_two_addresses_and_takes_them_back(void) {
        _cleanup_free_ char *conflist = NULL, *leases = NULL;

        setup(0);
        conflist = strprintf("{\"cniVersion\":\"1.0.0\",\"name\":\"pods\",\"plugins\":[{\"type\":\"bridge\",\"bridge\":\"cni0\","
                             "\"isGateway\":true,\"ipam\":{\"type\":\"host-local\",\"dataDir\":\"%s/leases\",\"ranges\":"
                             "[[{\"subnet\":\"10.99.0.0/24\"}],[{\"subnet\":\"fd00:99::/64\"}]]}},"
                             "{\"type\":\"tuning\"}]}",
                             directory);
        write_text("conf/10-pods.conflist", 0644, conflist);
        Call add = call(false);
        if (add.r < 0)
                fprintf(stderr, "%s\n", add.error.message);
        CHECK_EQ(add.r, 0);
        CHECK_EQ(strv_length(add.result.ips), 2);
        CHECK_STREQ(add.result.ips[0], "10.99.0.2");
        CHECK_STREQ(add.result.ips[1], "fd00:99::2");
        CHECK(file_exists("leases/pods/10.99.0.2"));

        /* The folder's file is gone, and the daemon was restarted: DEL has all it needs. */
        _cleanup_free_ char *conf = path_of("conf/10-pods.conflist");
        CHECK_EQ(unlink(conf), 0);
        CniResult cached = {};
        CHECK_EQ(cni_cached_result(cni, "0123abcd", &cached), 0);
        CHECK_STREQ(cached.ips[0], "10.99.0.2");
        cni_result_done(&cached);
        Call del = call(true);
        CHECK_EQ(del.r, 0);
        CHECK(!file_exists("leases/pods/10.99.0.2"));
        CHECK_EQ(cni_cached_result(cni, "0123abcd", &cached), -ENOENT);
        CHECK_EQ(call(true).r, 0);
        call_done(&add);
        call_done(&del);
        teardown();
}

#define LIST(plugins) "{\"cniVersion\":\"0.4.0\",\"name\":\"n\",\"plugins\":[" plugins "]}"
#define GOOD_RESULT "echo '{\"cniVersion\":\"0.4.0\",\"ips\":[{\"version\":\"4\",\"address\":\"10.1.1.5/24\"}]}'"
#define RECORD "echo $0 $CNI_COMMAND $CNI_ARGS >> ${0%/bin/*}/calls; cat >> ${0%/bin/*}/input; "

static void test_a_failing_plugin_is_quoted_and_all_are_undone(void) {
        setup(0);
        write_plugin("one", RECORD GOOD_RESULT);
        write_plugin("two", RECORD "echo '{\"code\":7,\"msg\":\"no luck\",\"details\":\"today\"}'; exit 1");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"one\"},{\"type\":\"two\"}"));
        Call add = call(false);
        CHECK_EQ(add.r, -EIO);
        CHECK(strstr(add.error.message, "no luck: today") && strstr(add.error.message, "\"two\""));
        _cleanup_free_ char *calls = contents("calls");
        CHECK(strstr(calls, "/one ADD IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;") < strstr(calls, "/two ADD"));
        CHECK(strstr(calls, "/two ADD") < strstr(calls, "/two DEL"));
        CHECK(strstr(calls, "/two DEL") && strstr(calls, "/two DEL") < strstr(calls, "/one DEL"));
        CHECK(!file_exists("cache/0123abcd.json"));
        call_done(&add);
        teardown();
}

static void test_the_second_plugin_gets_the_result_of_the_first_and_its_capabilities(void) {
        setup(0);
        write_plugin("one", RECORD GOOD_RESULT);
        write_plugin("two", RECORD "echo '{\"cniVersion\":\"0.4.0\",\"ips\":[{\"version\":\"4\",\"address\":\"10.1.1.6/24\"}]}'");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"one\"},{\"type\":\"two\",\"capabilities\":{\"portMappings\":true}}"));
        Call add = call(false);
        CHECK_EQ(add.r, 0);
        CHECK_STREQ(add.result.ips[0], "10.1.1.6");
        _cleanup_free_ char *input = contents("input");
        CHECK(strstr(input, "\"prevResult\""));
        CHECK(strstr(input, "\"name\":\"n\"") || strstr(input, "\"name\": \"n\""));
        CHECK(!strstr(input, "runtimeConfig")); /* no ports were asked for */
        call_done(&add);
        teardown();
}

static void test_a_hanging_plugin_is_killed(void) {
        setup(300 * USEC_PER_MSEC);
        write_plugin("slow", "if [ $CNI_COMMAND = ADD ]; then sleep 100; fi");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"slow\"}"));
        Call add = call(false);
        CHECK_EQ(add.r, -ETIMEDOUT);
        CHECK_EQ(add.error.code, GRPC_DEADLINE_EXCEEDED);
        CHECK(strstr(add.error.message, "\"slow\""));
        CHECK(!file_exists("cache/0123abcd.json"));
        call_done(&add);
        teardown();
}

static void test_garbage_and_silence_are_errors(void) {
        const char *const scripts[] = { "echo nonsense", "echo '[1]'", "true", "yes | head -c 3000000", "echo oops >&2; exit 3",
                                        "kill -9 $$" };

        for (size_t i = 0; i < ELEMENTSOF(scripts); i++) {
                setup(0);
                write_plugin("bad", scripts[i]);
                write_text("conf/1.conflist", 0644, LIST("{\"type\":\"bad\"}"));
                Call add = call(false);
                CHECK(add.r < 0);
                CHECK(error_is_set(&add.error));
                CHECK(!file_exists("cache/0123abcd.json"));
                call_done(&add);
                teardown();
        }
}

static void expect_status(const char *words) {
        _cleanup_error_ Error e = ERROR_INIT;

        CHECK_EQ(cni_status(cni, &e), -ENETDOWN);
        if (!strstr(e.message, words))
                fprintf(stderr, "%s\n", e.message);
        CHECK(strstr(e.message, words));
}

static void test_status_says_what_is_missing_and_notices_changes(void) {
        _cleanup_free_ char *plugin = NULL;

        setup(0);
        expect_status("no CNI network is configured");
        write_text("conf/1.conflist", 0644, "{nonsense");
        expect_status("1.conflist");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"absent\"}"));
        expect_status("\"absent\" is not in");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"../../bin/sh\"}"));
        expect_status("names a program");
        write_text("conf/1.conflist", 0644, "{\"cniVersion\":\"9.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"loopback\"}]}");
        expect_status("9.0.0");
        write_text("conf/2.conf", 0644, "{\"cniVersion\":\"0.3.1\",\"name\":\"single\",\"type\":\"mine\"}");
        write_plugin("mine", "true");
        CHECK_EQ(cni_status(cni, NULL), 0);
        CHECK_STREQ(cni_network_name(cni), "single");
        plugin = path_of("bin/mine");
        CHECK_EQ(unlink(plugin), 0);
        CHECK_EQ(cni_status(cni, NULL), -ENETDOWN);
        teardown();
}

static bool keep_none(const char *id, void *userdata) {
        return false;
}

static int collect(void *userdata) {
        return cni_collect(cni, keep_none, NULL, NULL);
}

static void test_what_a_crash_left_is_collected(void) {
        setup(0);
        write_plugin("one", RECORD GOOD_RESULT);
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"one\"}"));
        Call add = call(false);
        CHECK_EQ(add.r, 0);
        write_text("cache/damaged.json", 0600, "{");
        CHECK_EQ(fiber_run(event, collect, NULL), 0);
        _cleanup_free_ char *calls = contents("calls");
        CHECK(strstr(calls, "/one DEL"));
        CHECK(!file_exists("cache/0123abcd.json") && !file_exists("cache/damaged.json"));
        call_done(&add);
        teardown();
}

int main(void) {
        static const TestCase cases[] = {
                TEST_CASE(test_a_bridge_network_gives_two_addresses_and_takes_them_back),
                TEST_CASE(test_a_failing_plugin_is_quoted_and_all_are_undone),
                TEST_CASE(test_the_second_plugin_gets_the_result_of_the_first_and_its_capabilities),
                TEST_CASE(test_a_hanging_plugin_is_killed),
                TEST_CASE(test_garbage_and_silence_are_errors),
                TEST_CASE(test_status_says_what_is_missing_and_notices_changes),
                TEST_CASE(test_what_a_crash_left_is_collected),
        };

        if (access(REAL_PLUGINS "/bridge", X_OK) < 0) {
                fprintf(stderr, "SKIP: there are no CNI plugins in " REAL_PLUGINS "\n");
                return TEST_SKIPPED;
        }
        (void) signal(SIGPIPE, SIG_IGN);
        /* A network of our own stands for the host's, so that no bridge appears on this machine. */
        if (unshare(CLONE_NEWNET) < 0) {
                fprintf(stderr, "SKIP: network namespaces cannot be made: %m\n");
                return TEST_SKIPPED;
        }
        return test_main(cases, ELEMENTSOF(cases));
}
