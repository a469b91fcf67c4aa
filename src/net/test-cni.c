/* Real plugins in network namespaces of our own, and scripts that behave badly. */

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
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

#define POD_ID "0123abcd"

static CniPod pod(void) {
        static char netns[64];

        (void) snprintf(netns, sizeof netns, "/proc/%d/ns/net", pod_pid);
        return (CniPod) { .id = POD_ID, .name = "web", .namespace_ = "default", .uid = "u-1", .netns_path = netns };
}

typedef struct Call {
        bool del;
        CniPod pod;
        CniResult result;
        Error error;
        int r;
} Call;

static int call_fiber(void *userdata) {
        Call *c = userdata;

        c->r = c->del ? cni_del(cni, &c->pod, &c->error) : cni_add(cni, &c->pod, &c->result, &c->error);
        return 0;
}

static Call call_for(bool del, CniPod p) {
        Call c = { .del = del, .pod = p };

        CHECK_EQ(fiber_run(event, call_fiber, &c), 0);
        CHECK_EQ(error_is_set(&c.error), c.r < 0);
        return c;
}

static Call call(bool del) {
        return call_for(del, pod());
}

/* Where nothing is to be looked at afterwards. */
static int add(void);
static int del(void);

static void call_done(Call *c) {
        cni_result_done(&c->result);
        error_clear(&c->error);
}
#define _cleanup_call_ _cleanup_(call_done)

static int add(void) {
        _cleanup_call_ Call c = call(false);

        if (c.r < 0)
                fprintf(stderr, "%s\n", c.error.message);
        return c.r;
}

static int del(void) {
        _cleanup_call_ Call c = call(true);

        return c.r;
}

static void expect_words(const Error *e, const char *words) {
        if (!strstr(e->message, words))
                fprintf(stderr, "%s\n", e->message);
        CHECK(strstr(e->message, words));
}

/* Whether the pod's interface has the address, seen from inside. */
static bool pod_has_address(const char *ip) {
        int status;
        pid_t pid = fork();

        CHECK(pid >= 0);
        if (pid == 0) {
                _cleanup_free_ char *path = strprintf("/proc/%d/ns/net", pod_pid);
                int fd = open(path, O_RDONLY | O_CLOEXEC);
                struct ifaddrs *all;
                char text[INET6_ADDRSTRLEN];

                if (fd < 0 || setns(fd, CLONE_NEWNET) < 0 || getifaddrs(&all) < 0)
                        _exit(2);
                for (struct ifaddrs *a = all; a; a = a->ifa_next) {
                        const struct sockaddr *sa = a->ifa_addr;

                        if (!sa || !streq(a->ifa_name, "eth0"))
                                continue;
                        if (sa->sa_family == AF_INET)
                                (void) inet_ntop(AF_INET, &((const struct sockaddr_in *) (const void *) sa)->sin_addr,
                                                 text, sizeof text);
                        else if (sa->sa_family == AF_INET6)
                                (void) inet_ntop(AF_INET6,
                                                 &((const struct sockaddr_in6 *) (const void *) sa)->sin6_addr, text,
                                                 sizeof text);
                        else
                                continue;
                        if (streq(text, ip))
                                _exit(0);
                }
                _exit(1);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) < 2);
        return WEXITSTATUS(status) == 0;
}

/* The bridge's configuration with two families, and what is to follow it in the chain. */
static void write_bridge(const char *more) {
        _cleanup_free_ char *conflist = NULL;

        conflist = strprintf(
                        "{\"cniVersion\":\"1.0.0\",\"name\":\"pods\",\"plugins\":[{\"type\":\"bridge\",\"bridge\":"
                        "\"cni0\","
                        "\"isGateway\":true,\"ipam\":{\"type\":\"host-local\",\"dataDir\":\"%s/leases\",\"ranges\":"
                        "[[{\"subnet\":\"10.99.0.0/24\"}],[{\"subnet\":\"fd00:99::/64\"}]]}}%s]}",
                        directory, more);
        write_text("conf/10-pods.conflist", 0644, conflist);
}

static void test_a_bridge_network_gives_two_addresses_and_takes_them_back(void) {
        setup(0);
        write_bridge(",{\"type\":\"tuning\",\"sysctl\":{\"net.core.somaxconn\":\"77\"}}");
        _cleanup_call_ Call a = call(false);
        if (a.r < 0)
                fprintf(stderr, "%s\n", a.error.message);
        CHECK_EQ(a.r, 0);
        CHECK_EQ(strv_length(a.result.ips), 2);
        CHECK_STREQ(a.result.ips[0], "10.99.0.2");
        CHECK_STREQ(a.result.ips[1], "fd00:99::2");
        CHECK(file_exists("leases/pods/10.99.0.2"));
        CHECK(pod_has_address("10.99.0.2") && pod_has_address("fd00:99::2"));

        /* The folder's file is gone, and the daemon was restarted: DEL has all it needs. */
        _cleanup_free_ char *conf = path_of("conf/10-pods.conflist");
        CHECK_EQ(unlink(conf), 0);
        CniResult cached = {};
        CHECK_EQ(cni_cached_result(cni, POD_ID, &cached), 0);
        CHECK_STREQ(cached.ips[0], "10.99.0.2");
        CHECK_STREQ(cached.json, a.result.json);
        cni_result_done(&cached);
        CHECK_EQ(del(), 0);
        CHECK(!pod_has_address("10.99.0.2"));
        CHECK(!file_exists("leases/pods/10.99.0.2") && !file_exists("leases/pods/fd00:99::2"));
        CHECK_EQ(cni_cached_result(cni, POD_ID, &cached), -ENOENT);
        CHECK_EQ(del(), 0);
        teardown();
}

/* Cut off, flipped, gone: the folder's network is what it was added to, and its addresses are given back. */
static void test_a_damaged_or_missing_cache_costs_no_address(void) {
        for (unsigned way = 0; way < 6; way++) {
                _cleanup_free_ char *path = NULL, *text = NULL;
                size_t size;

                setup(0);
                write_bridge("");
                CHECK_EQ(add(), 0);
                CHECK(file_exists("leases/pods/10.99.0.2"));
                path = path_of("cache/" POD_ID ".json");
                CHECK_EQ(read_file(AT_FDCWD, path, 1 << 20, &text, &size), 0);
                text[size / 2] ^= 4;
                if (way == 0)
                        CHECK(unlink(path) >= 0);
                else if (way == 1)
                        CHECK(unlink(path) >= 0 && mkdir(path, 0700) >= 0);
                else if (way == 2)
                        CHECK(unlink(path) >= 0 && mkfifo(path, 0600) >= 0);
                else if (way == 3)
                        CHECK(truncate(path, 0) >= 0);
                else if (way == 4)
                        CHECK(truncate(path, (off_t) size / 2) >= 0);
                else
                        CHECK_EQ(write_file_atomic(AT_FDCWD, path, text, size, 0600, 0), 0);
                CniPod p = pod();
                p.added = true;
                if (way == 5) {
                        /* As the checker does: with what is known still. */
                        CniResult cached = {};
                        char *ips[] = { (char *) "10.99.0.2", NULL };

                        CHECK_EQ(cni_cached_result(cni, POD_ID, &cached), -EBADMSG);
                        CHECK_EQ(cni_make_cache_again(cni, &p, ips, NULL), 0);
                        CHECK_EQ(cni_cached_result(cni, POD_ID, &cached), 0);
                        CHECK_STREQ(cached.ips[0], "10.99.0.2");
                        cni_result_done(&cached);
                }
                _cleanup_call_ Call d = call_for(true, p);
                CHECK_EQ(d.r, 0);
                CHECK(!file_exists("leases/pods/10.99.0.2") && !file_exists("leases/pods/fd00:99::2"));
                CHECK(!file_exists("cache/" POD_ID ".json"));
                teardown();
        }
}

static void test_a_pod_that_is_gone_still_gives_its_address_back(void) {
        setup(0);
        write_bridge("");
        CHECK_EQ(add(), 0);
        CHECK_EQ(kill(pod_pid, SIGKILL), 0);
        CHECK_EQ(waitpid(pod_pid, NULL, 0), pod_pid);
        CniPod gone = pod();
        gone.netns_path = NULL;
        _cleanup_call_ Call d = call_for(true, gone);
        CHECK_EQ(d.r, 0);
        CHECK(!file_exists("leases/pods/10.99.0.2"));
        pod_pid = fork();
        if (pod_pid == 0)
                _exit(0);
        teardown();
}

static void test_a_port_of_the_host_is_mapped(void) {
        CniPortMapping ports[] = { { "tcp", 80, 8080, NULL }, { "udp", 53, 0, NULL } };

        setup(0);
        if (access("/usr/sbin/iptables", X_OK) < 0) {
                TEST_SKIP("there is no iptables");
                teardown();
                return;
        }
        write_bridge(",{\"type\":\"portmap\",\"capabilities\":{\"portMappings\":true}}");
        CniPod p = pod();
        p.port_mappings = ports;
        p.n_port_mappings = 2; /* the second has no port of the host */
        _cleanup_call_ Call a = call_for(false, p);
        if (a.r < 0)
                fprintf(stderr, "%s\n", a.error.message);
        CHECK_EQ(a.r, 0);
        CHECK_EQ(system("iptables-save -t nat 2>/dev/null | grep -q -- '--dport 8080 .*--to-destination "
                        "10.99.0.2:80'"),
                 0);
        CHECK_EQ(del(), 0); /* which is not told of the ports again */
        CHECK(system("iptables-save -t nat 2>/dev/null | grep -q -- '--to-destination 10.99.0.2:80'") != 0);
        teardown();
}

typedef struct ManyPod {
        pid_t pid;
        char id[16], netns[64];
        Call call;
} ManyPod;

static int many_fiber(void *userdata) {
        ManyPod *m = userdata;

        return call_fiber(&m->call);
}

static int many(void *userdata) {
        enum { N = 6 };
        static ManyPod pods[N];
        Fiber *fibers[N];

        for (int step = 0; step < 2; step++) {
                for (int i = 0; i < N; i++) {
                        ManyPod *m = &pods[i];

                        if (step == 0) {
                                int fds[2];
                                char c;

                                CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
                                m->pid = fork();
                                if (m->pid == 0) {
                                        if (unshare(CLONE_NEWNET) < 0 || write(fds[1], "x", 1) != 1)
                                                _exit(1);
                                        (void) pause();
                                        _exit(0);
                                }
                                CHECK_EQ(read(fds[0], &c, 1), 1);
                                (void) close(fds[0]);
                                (void) close(fds[1]);
                                (void) snprintf(m->id, sizeof m->id, "pod%d", i);
                                (void) snprintf(m->netns, sizeof m->netns, "/proc/%d/ns/net", m->pid);
                                m->call.pod = pod();
                                m->call.pod.id = m->id;
                                m->call.pod.netns_path = m->netns;
                        }
                        m->call.del = step == 1;
                        CHECK_EQ(fiber_spawn(event, "pod", many_fiber, m, NULL, &fibers[i]), 0);
                }
                for (int i = 0; i < N; i++) {
                        CHECK_EQ(fiber_join(fibers[i], NULL), 0);
                        fiber_unref(fibers[i]);
                        CHECK_EQ(pods[i].call.r, 0);
                        for (int k = 0; k < i && step == 0; k++)
                                CHECK(!streq(pods[i].call.result.ips[0], pods[k].call.result.ips[0]));
                }
        }
        for (int i = 0; i < N; i++) {
                (void) kill(pods[i].pid, SIGKILL);
                CHECK_EQ(waitpid(pods[i].pid, NULL, 0), pods[i].pid);
                call_done(&pods[i].call);
        }
        return 0;
}

static void test_pods_are_added_side_by_side(void) {
        setup(0);
        write_bridge("");
        CHECK_EQ(fiber_run(event, many, NULL), 0);
        CHECK(!file_exists("leases/pods/10.99.0.2"));
        teardown();
}

static void test_a_plugin_that_does_not_know_the_version_says_so(void) {
        setup(0);
        write_text("conf/1.conflist", 0644,
                   "{\"cniVersion\":\"1.1.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"loopback\"}]}");
        _cleanup_call_ Call a = call(false);
        if (a.r >= 0)
                TEST_SKIP("the installed plugins know 1.1.0");
        else
                expect_words(&a.error, "incompatible CNI versions");
        teardown();
}

#define LIST(plugins) "{\"cniVersion\":\"0.4.0\",\"name\":\"n\",\"plugins\":[" plugins "]}"
#define GOOD_RESULT "echo '{\"cniVersion\":\"0.4.0\",\"ips\":[{\"version\":\"4\",\"address\":\"10.1.1.5/24\"}]}'"
#define RECORD                                                                                                        \
        "echo $0 $CNI_COMMAND $CNI_ARGS >> ${0%/bin/*}/calls; cat >> ${0%/bin/*}/input; echo >> ${0%/bin/*}/input; "
#define AT_ADD "[ $CNI_COMMAND = ADD ] || exit 0; "

static void test_a_failing_plugin_is_quoted_and_all_are_undone(void) {
        setup(0);
        write_plugin("one", RECORD GOOD_RESULT);
        write_plugin("two", RECORD AT_ADD "echo '{\"code\":7,\"msg\":\"no luck\",\"details\":\"today\"}'; exit 1");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"one\"},{\"type\":\"two\"}"));
        _cleanup_call_ Call a = call(false);
        CHECK_EQ(a.r, -EIO);
        expect_words(&a.error, "no luck: today (code 7)");
        expect_words(&a.error, "\"two\"");
        _cleanup_free_ char *calls = contents("calls");
        CHECK(strstr(calls, "/one ADD IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;"
                            "K8S_POD_INFRA_CONTAINER_ID=" POD_ID ";K8S_POD_UID=u-1\n") < strstr(calls, "/two ADD"));
        CHECK(strstr(calls, "/two ADD") < strstr(calls, "/two DEL"));
        CHECK(strstr(calls, "/two DEL") && strstr(calls, "/two DEL") < strstr(calls, "/one DEL"));
        CHECK(!file_exists("cache/" POD_ID ".json"));
        teardown();
}

static void test_try_again_later_is_unavailable(void) {
        setup(0);
        write_plugin("one", AT_ADD "echo '{\"code\":11,\"msg\":\"later\"}'; exit 1");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"one\"}"));
        _cleanup_call_ Call a = call(false);
        CHECK_EQ(a.error.code, GRPC_UNAVAILABLE);
        teardown();
}

static int collect(void *userdata);

static void test_what_cannot_be_undone_is_tried_again(void) {
        _cleanup_free_ char *stubborn = NULL;

        setup(0);
        write_plugin("one", RECORD "[ ! -e ${0%/bin/*}/stubborn ] || exit 1; " GOOD_RESULT);
        write_plugin("two", RECORD AT_ADD "exit 1");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"one\"},{\"type\":\"two\"}"));
        CHECK_EQ(add() < 0, true);
        CHECK(!file_exists("cache/" POD_ID ".json"));
        write_text("stubborn", 0600, "");
        CHECK_EQ(add() < 0, true);
        CHECK(file_exists("cache/" POD_ID ".json"));
        CHECK(del() < 0);
        CHECK(file_exists("cache/" POD_ID ".json"));
        stubborn = path_of("stubborn");
        CHECK_EQ(unlink(stubborn), 0);
        CHECK_EQ(fiber_run(event, collect, NULL), 0);
        CHECK(!file_exists("cache/" POD_ID ".json"));
        teardown();
}

static void test_plugins_get_the_result_before_them_and_the_capabilities_they_ask_for(void) {
        CniPortMapping ports[] = { { "tcp", 80, 8080, "10.0.0.1" } };
        _cleanup_free_ char *input = NULL;
        char *line[4], *next;

        setup(0);
        write_plugin("one", RECORD GOOD_RESULT);
        write_plugin("two", RECORD
                     "echo '{\"cniVersion\":\"0.4.0\",\"ips\":[{\"version\":\"4\",\"address\":\"10.1.1.6/24\"}]}'");
        write_text("conf/1.conflist", 0644,
                   LIST("{\"type\":\"one\",\"capabilities\":{\"dns\":true,\"portMappings\":false,\"unknown\":true}},"
                        "{\"type\":\"two\",\"own\":[1],\"capabilities\":{\"portMappings\":true,\"bandwidth\":true,"
                        "\"cgroupPath\":true}}"));
        CniPod p = pod();
        p.port_mappings = ports;
        p.n_port_mappings = 1;
        p.dns_servers = (char *[]) { (char *) "192.0.2.1", NULL };
        p.ingress_rate = 1000;
        p.cgroup_parent = "/kubepods.slice";
        _cleanup_call_ Call a = call_for(false, p);
        CHECK_EQ(a.r, 0);
        CHECK_STREQ(a.result.ips[0], "10.1.1.6");
        CHECK_EQ(strv_length(a.result.ips), 1);
        CHECK_EQ(del(), 0);
        next = input = contents("input");
        for (size_t i = 0; i < ELEMENTSOF(line); i++)
                CHECK(line[i] = strsep(&next, "\n"));
        CHECK(next && !next[0]);
        /* In the order they were called: ADD of one and two, DEL of two and one. */
        CHECK(!strstr(line[0], "prevResult"));
        CHECK(strstr(line[0],
                     "\"runtimeConfig\":{\"dns\":{\"servers\":[\"192.0.2.1\"],\"searches\":[],\"options\":[]}}"));
        CHECK(strstr(line[0], "\"name\":\"n\"") && strstr(line[0], "\"cniVersion\":\"0.4.0\""));
        CHECK(strstr(line[1], "\"prevResult\":{") && strstr(line[1], "10.1.1.5/24") && strstr(line[1], "\"own\":[1]"));
        for (int i = 1; i <= 2; i++) {
                CHECK(strstr(line[i], "\"portMappings\":[{\"hostPort\":8080,\"containerPort\":80,\"protocol\":\"tcp\","
                                      "\"hostIP\":\"10.0.0.1\"}]"));
                CHECK(strstr(line[i], "\"bandwidth\":{\"ingressRate\":1000,\"ingressBurst\":2147483647}"));
                CHECK(strstr(line[i], "\"cgroupPath\":\"/kubepods.slice\""));
        }
        /* DEL knows the last result. */
        CHECK(strstr(line[2], "10.1.1.6/24") && strstr(line[3], "10.1.1.6/24"));
        teardown();
}

static void test_portmap_runs_only_for_pods_with_ports(void) {
        CniPortMapping ports[] = { { "tcp", 80, 8080, NULL }, { "tcp", 81, 0, NULL } };
        _cleanup_free_ char *input = NULL;
        CniPod p;

        setup(0);
        write_plugin("one", RECORD GOOD_RESULT);
        write_plugin("portmap", RECORD GOOD_RESULT);
        write_text("conf/1.conflist", 0644,
                   LIST("{\"type\":\"one\"},{\"type\":\"portmap\",\"capabilities\":{\"portMappings\":true}}"));
        p = pod();
        p.port_mappings = ports + 1; /* a port that isn't one of the host's */
        p.n_port_mappings = 1;
        _cleanup_call_ Call without = call_for(false, p);
        CHECK_EQ(without.r, 0);
        CHECK_STREQ(without.result.ips[0], "10.1.1.5");
        CHECK_EQ(del(), 0);
        input = contents("input");
        CHECK(!strstr(input, "portmap"));
        input = mfree(input);

        p.port_mappings = ports;
        p.n_port_mappings = 2;
        _cleanup_call_ Call with = call_for(false, p);
        CHECK_EQ(with.r, 0);
        /* The ports are remembered: DEL is not told them again. */
        CHECK_EQ(del(), 0);
        input = contents("input");
        CHECK(strstr(input, "portmap") && strstr(strstr(input, "portmap") + 1, "portmap"));
        input = mfree(input);

        /* Alone it has to say itself what it makes of that. */
        write_text("input", 0600, "");
        write_text("conf/1.conflist", 0644,
                   LIST("{\"type\":\"portmap\",\"capabilities\":{\"portMappings\":true}}"));
        CHECK_EQ(add(), 0);
        input = contents("input");
        CHECK(strstr(input, "portmap"));
        CHECK_EQ(del(), 0);
        teardown();
}

static void test_the_highest_common_version_is_spoken(void) {
        _cleanup_free_ char *input = NULL;

        setup(0);
        write_plugin("one", RECORD "echo '{\"ip4\":{\"ip\":\"10.1.1.7/24\"},\"ip6\":{\"ip\":\"fd00::7/64\"}}'");
        write_text("conf/1.conflist", 0644,
                   "{\"cniVersion\":\"0.3.1\",\"cniVersions\":[\"0.3.1\",\"1.0.0\",\"7.0.0\"],\"name\":\"n\","
                   "\"plugins\":[{\"type\":\"one\"}]}");
        _cleanup_call_ Call a = call(false);
        CHECK_EQ(a.r, 0);
        CHECK_EQ(strv_length(a.result.ips), 2);
        CHECK_STREQ(a.result.ips[1], "fd00::7");
        input = contents("input");
        CHECK(strstr(input, "\"cniVersion\":\"1.0.0\""));
        CHECK_EQ(del(), 0);
        input = mfree(input);

        /* Before 0.4.0 a plugin doesn't get a result at DEL. */
        write_text("input", 0600, "");
        write_text("conf/1.conflist", 0644,
                   "{\"cniVersion\":\"0.3.1\",\"name\":\"n\",\"plugins\":[{\"type\":\"one\"}]}");
        CHECK_EQ(add(), 0);
        CHECK_EQ(del(), 0);
        input = contents("input");
        CHECK(strstr(input, "0.3.1") && !strstr(input, "prevResult"));
        teardown();
}

static void test_a_hanging_plugin_is_killed(void) {
        uint64_t t = now_usec(CLOCK_MONOTONIC);

        setup(300 * USEC_PER_MSEC);
        write_plugin("slow", "if [ $CNI_COMMAND = ADD ]; then sleep 100; fi");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"slow\"}"));
        _cleanup_call_ Call a = call(false);
        CHECK_EQ(a.r, -ETIMEDOUT);
        CHECK_EQ(a.error.code, GRPC_DEADLINE_EXCEEDED);
        expect_words(&a.error, "\"slow\"");
        CHECK(!file_exists("cache/" POD_ID ".json"));

        /* And at DEL, which is owed until it was done. */
        write_plugin("slow", AT_ADD GOOD_RESULT);
        CHECK_EQ(add(), 0);
        write_plugin("slow", "sleep 100");
        _cleanup_call_ Call d = call(true);
        CHECK_EQ(d.r, -ETIMEDOUT);
        CHECK(file_exists("cache/" POD_ID ".json"));
        write_plugin("slow", "true");
        CHECK_EQ(del(), 0);
        CHECK(!file_exists("cache/" POD_ID ".json"));
        CHECK(now_usec(CLOCK_MONOTONIC) - t < 60 * USEC_PER_SEC);
        teardown();
}

static int cancelled(void *userdata) {
        Call c = { .pod = pod() };
        Fiber *f;

        CHECK_EQ(fiber_spawn(event, "add", call_fiber, &c, NULL, &f), 0);
        while (!file_exists("begun"))
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        fiber_cancel(f);
        CHECK_EQ(fiber_join(f, NULL), 0);
        fiber_unref(f);
        CHECK_EQ(c.r, -ECANCELED);
        call_done(&c);
        return 0;
}

static void test_a_cancelled_add_is_undone(void) {
        setup(0);
        write_plugin("one", RECORD GOOD_RESULT);
        write_plugin("slow", RECORD "if [ $CNI_COMMAND = ADD ]; then touch ${0%/bin/*}/begun; sleep 100; fi");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"one\"},{\"type\":\"slow\"}"));
        CHECK_EQ(fiber_run(event, cancelled, NULL), 0);
        _cleanup_free_ char *calls = contents("calls");
        CHECK(strstr(calls, "/slow DEL") && strstr(calls, "/one DEL"));
        CHECK(!file_exists("cache/" POD_ID ".json"));
        teardown();
}

static void test_garbage_and_silence_are_errors(void) {
        const struct {
                const char *script, *words;
        } cases[] = {
                { "echo nonsense", "but: nonsense" },
                { "exec yes", "more than 1048576 bytes" },
                { "echo '[1]'", "no JSON result" },
                { "true", "no result" },
                { "yes | head -c 3000000", "more than 1048576 bytes" },
                { "head -c 100000 /dev/zero | tr '\\0' '['", "nested deeper" },
                { "yes oops | head -c 3000000 >&2; exit 3", "exited with status 3 at ADD: oops" },
                { "printf 'a\\377b\\nc' >&2; exit 3", "a\xef\xbf\xbd" "b" },
                { "echo '{\"code\":\"x\",\"msg\":3}'; exit 1", "it said nothing" },
                { "kill -9 $$", "was killed by signal 9 (KILL)" },
                { "echo '{\"ips\":[]}'", "no address" },
                { "echo '{\"ips\":[{\"address\":\"nowhere\"}]}'", "\"nowhere\" is no address" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *script = strprintf("%s%s", AT_ADD, cases[i].script);

                setup(0);
                write_plugin("bad", script);
                write_text("conf/1.conflist", 0644, LIST("{\"type\":\"bad\"}"));
                _cleanup_call_ Call a = call(false);
                CHECK_EQ(a.r, -EIO);
                expect_words(&a.error, cases[i].words);
                CHECK(!a.result.ips && !a.result.json);
                CHECK(utf8_is_valid(a.error.message, strlen(a.error.message)));
                CHECK(!file_exists("cache/" POD_ID ".json"));
                teardown();
        }
}

static void expect_status(const char *words) {
        _cleanup_error_ Error e = ERROR_INIT;

        CHECK_EQ(cni_status(cni, &e), -ENETDOWN);
        expect_words(&e, words);
        CHECK(!cni_network_name(cni));
}

static void test_status_says_what_is_missing_and_notices_changes(void) {
        _cleanup_free_ char *plugin = NULL, *first = NULL;

        setup(0);
        expect_status("no CNI network is configured");
        write_text("conf/readme.txt", 0644, "{}");
        write_text("conf/.1.conflist", 0644, LIST("{\"type\":\"loopback\"}"));
        expect_status("no CNI network is configured");
        write_text("conf/1.conflist", 0644, "{nonsense");
        expect_status("1.conflist");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"absent\"}"));
        expect_status("\"absent\" is not in");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"../../bin/sh\"}"));
        expect_status("names a program");
        write_text("conf/1.conflist", 0644, LIST(""));
        expect_status("no plugins");
        write_text("conf/1.conflist", 0644, "{\"cniVersion\":\"0.4.0\",\"name\":\"n\",\"type\":\"loopback\"}");
        expect_status("\"plugins\" is missing");
        write_text("conf/1.conflist", 0644,
                   "{\"cniVersion\":\"0.4.0\",\"name\":\"a/b\",\"plugins\":[{\"type\":\"loopback\"}]}");
        expect_status("no network name");
        write_text("conf/1.conflist", 0644,
                   "{\"cniVersion\":\"9.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"loopback\"}]}");
        expect_status("9.0.0");

        /* A folder is no program. */
        plugin = path_of("bin/mine");
        write_text("conf/2.conf", 0644, "{\"cniVersion\":\"0.3.1\",\"name\":\"single\",\"type\":\"mine\"}");
        CHECK_EQ(mkdir(plugin, 0755), 0);
        CHECK_EQ(cni_status(cni, NULL), -ENETDOWN);
        CHECK_EQ(rmdir(plugin), 0);

        /* The bad first one is passed over, and taken once it is good. */
        write_plugin("mine", "true");
        CHECK_EQ(cni_status(cni, NULL), 0);
        CHECK_STREQ(cni_network_name(cni), "single");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"loopback\"}"));
        CHECK_STREQ(cni_network_name(cni), "n");
        first = path_of("conf/1.conflist");
        CHECK_EQ(unlink(first), 0);
        CHECK_STREQ(cni_network_name(cni), "single");
        CHECK_EQ(unlink(plugin), 0);
        CHECK_EQ(cni_status(cni, NULL), -ENETDOWN);
        _cleanup_call_ Call a = call(false);
        CHECK_EQ(a.r, -ENETDOWN);
        CHECK(!file_exists("cache/" POD_ID ".json"));
        teardown();
}

static void test_a_name_that_would_be_another_argument_is_refused(void) {
        setup(0);
        write_plugin("one", RECORD GOOD_RESULT);
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"one\"}"));
        CniPod p = pod();
        p.name = "web;K8S_POD_NAMESPACE=kube-system";
        _cleanup_call_ Call a = call_for(false, p);
        CHECK_EQ(a.r, -EINVAL);
        CHECK(!file_exists("calls"));
        teardown();
}

static bool keep_none(const char *id, void *userdata) {
        return false;
}

static int collect(void *userdata) {
        return cni_collect(cni, keep_none, NULL, NULL);
}

static void test_what_a_crash_left_is_collected(void) {
        CniResult cached = {};
        int status;
        pid_t pid;

        setup(0);
        /* A plugin that kills the daemon in the middle of ADD. */
        write_plugin("one", RECORD GOOD_RESULT);
        write_plugin("two", RECORD AT_ADD "kill -9 $PPID");
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"one\"},{\"type\":\"two\"}"));
        pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
                /* The loop isn't to be shared with the parent. */
                CHECK_EQ(sd_event_new(&event), 0);
                (void) call(false);
                _exit(0);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK(WIFSIGNALED(status));

        CHECK_EQ(cni_cached_result(cni, POD_ID, &cached), 0);
        CHECK(!cached.ips && !cached.json);
        write_text("cache/damaged.json", 0600, "{");
        write_text("cache/.cut-off.json.0123", 0600, "{");
        CHECK_EQ(cni_cached_result(cni, "damaged", &cached), -EBADMSG);
        CHECK_EQ(fiber_run(event, collect, NULL), 0);
        _cleanup_free_ char *calls = contents("calls");
        CHECK(strstr(calls, "/two DEL") && strstr(calls, "/one DEL"));
        CHECK(strstr(calls, "K8S_POD_INFRA_CONTAINER_ID=damaged"));
        CHECK(!file_exists("cache/" POD_ID ".json") && !file_exists("cache/damaged.json") &&
              !file_exists("cache/.cut-off.json.0123"));
        CHECK_EQ(fiber_run(event, collect, NULL), 0);
        teardown();
}

static bool keep_this(const char *id, void *userdata) {
        return streq(id, POD_ID);
}

static int collect_others(void *userdata) {
        return cni_collect(cni, keep_this, NULL, NULL);
}

static void test_what_is_kept_is_not_collected(void) {
        setup(0);
        CHECK_EQ(fiber_run(event, collect_others, NULL), 0); /* no folder yet */
        write_plugin("one", GOOD_RESULT);
        write_text("conf/1.conflist", 0644, LIST("{\"type\":\"one\"}"));
        CHECK_EQ(add(), 0);
        CHECK_EQ(fiber_run(event, collect_others, NULL), 0);
        CHECK(file_exists("cache/" POD_ID ".json"));
        teardown();
}

int main(void) {
        static const TestCase cases[] = {
                TEST_CASE(test_a_bridge_network_gives_two_addresses_and_takes_them_back),
                TEST_CASE(test_a_damaged_or_missing_cache_costs_no_address),
                TEST_CASE(test_a_pod_that_is_gone_still_gives_its_address_back),
                TEST_CASE(test_a_port_of_the_host_is_mapped),
                TEST_CASE(test_pods_are_added_side_by_side),
                TEST_CASE(test_a_plugin_that_does_not_know_the_version_says_so),
                TEST_CASE(test_a_failing_plugin_is_quoted_and_all_are_undone),
                TEST_CASE(test_try_again_later_is_unavailable),
                TEST_CASE(test_what_cannot_be_undone_is_tried_again),
                TEST_CASE(test_plugins_get_the_result_before_them_and_the_capabilities_they_ask_for),
                TEST_CASE(test_portmap_runs_only_for_pods_with_ports),
                TEST_CASE(test_the_highest_common_version_is_spoken),
                TEST_CASE(test_a_hanging_plugin_is_killed),
                TEST_CASE(test_a_cancelled_add_is_undone),
                TEST_CASE(test_garbage_and_silence_are_errors),
                TEST_CASE(test_status_says_what_is_missing_and_notices_changes),
                TEST_CASE(test_a_name_that_would_be_another_argument_is_refused),
                TEST_CASE(test_what_a_crash_left_is_collected),
                TEST_CASE(test_what_is_kept_is_not_collected),
        };

        if (access(REAL_PLUGINS "/bridge", X_OK) < 0)
                return test_skip_all("there are no CNI plugins in " REAL_PLUGINS);
        /* A network of our own stands for the host's, so that no bridge appears on this machine. */
        if (unshare(CLONE_NEWNET) < 0)
                return test_skip_all("network namespaces cannot be made");
        return test_main(cases, ELEMENTSOF(cases));
}
