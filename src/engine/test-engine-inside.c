/* What a container is given and what it sees, against a real systemd and crun: to be run in a machine of test/machine.
 */

#include <fcntl.h>
#include <sys/stat.h>

#include "engine/test-engine-harness.h"

static Harness h;

static int inside(void *userdata) {
        TestPod *p = pod_new(&h);
        char *servers[] = { (char *) "10.0.0.1" };
        _cleanup_free_ char *out = NULL;
        runtime_v1_KeyValue *kv;
        TestContainer *c;

        p->config.hostname = (char *) "envy";
        p->config.has_dns_config = true;
        p->config.dns_config.servers = servers;
        p->config.dns_config.servers_count = 1;
        p->config.linux.sysctls_count = 1;
        p->config.linux.sysctls = &(runtime_v1_LinuxPodSandboxConfig_SysctlsEntry) {
                (char *) "net.ipv4.ip_local_port_range", (char *) "2000 3000" };
        pod_start(p);
        c = container_new(p, "cat /etc/hostname /etc/resolv.conf /proc/sys/net/ipv4/ip_local_port_range; hostname; id "
                             "-u; id -G;"
                             "pwd; env | grep -e HOME -e HOSTNAME; grep -e Cap -e NoNew -e Seccomp: /proc/self/status;"
                             "ls /proc/self/fd; cat /proc/self/cgroup; echo x >/dev/stdout; echo shm > /dev/shm/x;"
                             "grep -e ' / ' -e ' /dev/shm ' /proc/mounts; cat /proc/self/oom_score_adj");
        c->config.has_linux = c->config.linux.has_security_context = c->config.linux.has_resources = true;
        c->config.linux.resources.oom_score_adj = 500;
        c->config.linux.security_context.has_run_as_user = true;
        c->config.linux.security_context.run_as_user.value = 1001;
        c->config.linux.security_context.no_new_privs = true;
        c->config.linux.security_context.has_seccomp = true;
        c->config.working_dir = (char *) "/made/for/me";
        container_create(c);
        CHECK_EQ(c->info.gid, 1001);
        CHECK_EQ(c->info.n_supplementary_groups, 2);
        container_start(c);
        CHECK_EQ(container_wait(c).exit_code, 0);
        out = container_output(c, "stdout");
        check_contains(out, "envy\nnameserver 10.0.0.1\n2000\t3000\nenvy\n1001\n1001 2001\n/made/for/me\n");
        check_contains(out, "HOME=/home/app\n");
        check_contains(out, "HOSTNAME=envy\n");
        check_contains(out, "CapInh:\t0000000000000000\n");
        check_contains(out, "CapEff:\t0000000000000000\n");
        check_contains(out, "CapBnd:\t00000000a80425fb\n");
        check_contains(out, "NoNewPrivs:\t1\n");
        check_contains(out, "Seccomp:\t2\n");
        check_contains(out, "Seccomp:\t2\n0\n1\n2\n3\n");
        check_contains(out, "\n0::/\nx\n");
        check_contains(out, "overlay / overlay");
        check_contains(out, "\n500\n");
        container_remove(c);
        free(out);
        out = container_output_of(p, "cat /dev/shm/x", 0);
        CHECK_STREQ(out, "shm\n");

        /* Bytes that JSON can't hold, for the process and for an exec. */
        free(out);
        c = container_new(p, "printf %s \"$X\" >/tmp/x; env | grep -c '^PATH='; while :; do sleep 0.02; done");
        kv = calloc(1, sizeof *kv);
        kv->key = (char *) "X";
        kv->value = strdup("\xff\n\xfe");
        c->config.envs = kv;
        c->config.envs_count = 1;
        container_create(c);
        container_start(c);
        container_wait_output(c, "1\n");
        out = container_exec(c, "cat /tmp/x; printf %s \"$X\"");
        CHECK_STREQ(out, "\xff\n\xfe\xff\n\xfe");
        container_remove(c);
        free(kv->value);
        free(kv);
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

static int mounts(void *userdata) {
        TestPod *p = pod_new(&h);
        _cleanup_free_ char *from = strprintf("%s/volume", h.state), *missing = strprintf("%s/missing", h.state),
                            *file = strprintf("%s/volume/file", h.state), *out = NULL;
        runtime_v1_Mount m[2] = { { .host_path = from, .container_path = (char *) "/a/b" },
                                  { .host_path = from, .container_path = (char *) "/ro", .readonly = true } };
        _cleanup_error_ Error error = ERROR_INIT;
        TestContainer *c;

        CHECK_EQ(mkdir(from, 0755), 0);
        CHECK_EQ(write_file_atomic(AT_FDCWD, file, "text\n", 5, 0644, 0), 0);
        pod_start(p);
        c = container_new(p, "cat /a/b/file /ro/file; touch /ro/x && exit 1; echo y > /a/b/new");
        c->config.mounts = m;
        c->config.mounts_count = 2;
        container_create(c);
        container_start(c);
        CHECK_EQ(container_wait(c).exit_code, 0);
        out = container_output(c, "stdout");
        CHECK_STREQ(out, "text\ntext\n");
        container_remove(c);

        c = container_new(p, "true");
        m[0].host_path = missing;
        c->config.mounts = m;
        c->config.mounts_count = 1;
        CHECK(container_try_create(c, &error) < 0);
        CHECK_EQ(error.code, GRPC_FAILED_PRECONDITION);
        check_contains(error.message, missing);
        CHECK(access(missing, F_OK) < 0);
        CHECK_EQ(mkdir_parents(AT_FDCWD, c->run_directory, 0700), 0);
        container_remove(c);
        pod_end(p);
        CHECK_EQ(remove_tree(AT_FDCWD, from), 0);
        harness_check_empty(&h);
        return 0;
}

static int propagation(void *userdata) {
        TestPod *p = pod_new(&h);
        _cleanup_free_ char *from = strprintf("%s/shared", h.state), *later = strprintf("%s/later", from),
                            *seen = strprintf("%s/inside/x", from);
        runtime_v1_Mount m = { .host_path = from, .container_path = (char *) "/mnt" };
        TestContainer *c[3];

        CHECK_EQ(mkdir_parents(AT_FDCWD, later, 0755), 0);
        /* In the host's mount namespace, of which this one is a slave. */
        harness_on_host("mount --bind %s %s && mount --make-rshared %s", from, from, from);
        p->config.linux.security_context.privileged = true;
        pod_start(p);
        for (int i = 0; i < 3; i++) {
                c[i] = container_new(p, "trap 'exit 0' TERM; while :; do sleep 0.02; done");
                m.propagation = (runtime_v1_MountPropagation) i;
                c[i]->config.mounts = &m;
                c[i]->config.mounts_count = 1;
                c[i]->config.has_linux = c[i]->config.linux.has_security_context = true;
                c[i]->config.linux.security_context.privileged = true;
                container_create(c[i]);
                container_start(c[i]);
        }
        harness_on_host("mount -t tmpfs later %s && touch %s/x", later, later);
        for (int i = 0; i < 3; i++) {
                _cleanup_free_ char *out = container_exec(c[i], "ls /mnt/later");

                CHECK_STREQ(out, i == 0 ? "" : "x\n");
        }
        free(container_exec(c[2], "mkdir /mnt/inside && mount -t tmpfs inside /mnt/inside && touch /mnt/inside/x"));
        harness_on_host("test -e %s", seen);
        /* Nothing else got out. */
        harness_on_host("! grep -q -e ' /run/rktlet-test' -e overlay.*test-engine /proc/mounts");
        for (int i = 0; i < 3; i++) {
                container_stop(c[i], 5 * USEC_PER_SEC);
                container_remove(c[i]);
        }
        pod_end(p);
        harness_on_host("umount --recursive %s", from);
        CHECK_EQ(remove_tree(AT_FDCWD, from), 0);
        harness_check_empty(&h);
        return 0;
}

static int privileged(void *userdata) {
        TestPod *p = pod_new(&h);
        _cleanup_free_ char *out = NULL;
        TestContainer *c;

        p->config.linux.security_context.privileged = true;
        p->config.linux.security_context.namespace_options.network = runtime_v1_NamespaceMode_NODE;
        p->config.linux.security_context.namespace_options.ipc = runtime_v1_NamespaceMode_NODE;
        p->config.linux.security_context.namespace_options.pid = runtime_v1_NamespaceMode_NODE;
        pod_start(p);
        c = container_new(p, "cat /proc/1/comm; ls /dev/fuse; mount -t tmpfs x /tmp && echo mounted; hostname;"
                             "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; touch /etc/x "
                             "/proc/sys/kernel/hostname");
        c->config.has_linux = c->config.linux.has_security_context = true;
        c->config.linux.security_context.privileged = true;
        container_create(c);
        container_start(c);
        CHECK_EQ(container_wait(c).exit_code, 0);
        out = container_output(c, "stdout");
        check_contains(out, "systemd\n/dev/fuse\nmounted\n");
        for (int i = 0; i < 4; i++) {
                static const char *const names[] = { "net", "ipc", "uts", "pid" };
                char path[32], link[64] = {};

                (void) snprintf(path, sizeof path, "/proc/1/ns/%s", names[i]);
                CHECK(readlink(path, link, sizeof link - 1) > 0);
                check_contains(out, link);
        }
        container_remove(c);

        /* And one that may do nothing. */
        free(out);
        c = container_new(p,
                          "for p in /x /etc/hosts /etc/resolv.conf /proc/sys/kernel/hostname /sys/x; do touch $p && "
                          "exit 1; done;"
                          "mount -t tmpfs x /tmp && exit 2; echo h > /proc/sysrq-trigger && exit 3; touch /dev/shm/y;"
                          "test -e /dev/fuse && exit 4; setsid true && ! unshare -U true && cat /proc/keys | wc -c; "
                          "true");
        c->config.has_linux = c->config.linux.has_security_context = true;
        c->config.linux.security_context.readonly_rootfs = true;
        c->config.linux.security_context.has_seccomp = true;
        container_create(c);
        container_start(c);
        CHECK_EQ(container_wait(c).exit_code, 0);
        container_remove(c);
        out = NULL;
        (void) unlink("/dev/shm/y");
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

static int pids(void *userdata) {
        TestPod *p = pod_new(&h);
        _cleanup_free_ char *out = NULL, *out2 = NULL;
        _cleanup_error_ Error error = ERROR_INIT;
        TestContainer *a, *b, *t;

        p->config.linux.security_context.namespace_options.pid = runtime_v1_NamespaceMode_POD;
        pod_start(p);
        a = container_run(p, "exec sleep 4321");
        b = container_run(p, "while :; do sleep 0.02; done");
        out = container_exec(b, "ps; sleep 3210 >/dev/null 2>&1 & true");
        check_contains(out, "sleep 4321");
        container_stop(a, 0);
        CHECK_EQ(harness_seen(b->id).exits, 0);
        container_remove(a);
        /* What a container of a shared namespace leaves behind goes with it. */
        container_stop(b, 0);
        container_remove(b);
        b = container_run(p, "exec sleep 1000");
        out2 = container_exec(b, "ps");
        CHECK(!strstr(out2, "3210"));

        t = container_new(p, "ps; exit 6");
        t->config.has_linux = t->config.linux.has_security_context = true;
        t->config.linux.security_context.has_namespace_options = true;
        t->config.linux.security_context.namespace_options.pid = runtime_v1_NamespaceMode_TARGET;
        t->config.linux.security_context.namespace_options.target_id = b->id;
        container_create(t);
        container_start(t);
        CHECK_EQ(container_wait(t).exit_code, 6);
        free(out);
        out = container_output(t, "stdout");
        check_contains(out, "sleep 1000");
        container_remove(t);
        t = container_new(p, "true");
        t->config.has_linux = t->config.linux.has_security_context = true;
        t->config.linux.security_context.has_namespace_options = true;
        t->config.linux.security_context.namespace_options.pid = runtime_v1_NamespaceMode_TARGET;
        t->config.linux.security_context.namespace_options.target_id = (char *) "nobody";
        CHECK(container_try_create(t, &error) < 0);
        CHECK_EQ(error.code, GRPC_INVALID_ARGUMENT);
        CHECK_EQ(mkdir_parents(AT_FDCWD, t->run_directory, 0700), 0);
        container_remove(t);
        /* A pod that is ended with its container running takes it along. */
        {
                _cleanup_error_ Error e = ERROR_INIT;

                CHECK_EQ(h.engine->ops->pod_stop(h.engine, &p->view, &e), 0);
                CHECK_EQ(container_wait(b).exit_code, 137);
        }
        container_remove(b);
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

static int limits(void *userdata) {
        TestPod *p = pod_new(&h);
        runtime_v1_LinuxContainerResources_UnifiedEntry unified[] = { { (char *) "memory.high", (char *) "33000000" },
                                                                      { (char *) "memory.oom.group", (char *) "1" } };
        runtime_v1_HugepageLimit huge = { (char *) "2MB", 0 };
        runtime_v1_LinuxContainerResources update = { .memory_limit_in_bytes = 77000000, .cpu_shares = 2 };
        _cleanup_error_ Error error = ERROR_INIT;
        TestContainer *c;

        pod_start(p);
        c = container_new(p, "while :; do sleep 0.02; done");
        c->config.has_linux = c->config.linux.has_resources = true;
        c->config.linux.resources = (runtime_v1_LinuxContainerResources) {
                .cpu_shares = 1024,
                .cpu_quota = 50000,
                .cpu_period = 100000,
                .memory_limit_in_bytes = 64000000,
                .memory_swap_limit_in_bytes = 65000000,
                .cpuset_cpus = (char *) "0-1",
                .cpuset_mems = (char *) "0",
                .unified = unified,
                .unified_count = ELEMENTSOF(unified),
                .hugepage_limits = &huge,
                .hugepage_limits_count = 1,
        };
        container_create(c);
        container_start(c);
        harness_on_host("systemctl show %s >/tmp/show; for p in CPUWeight=39 CPUQuotaPerSecUSec=500ms "
                        "CPUQuotaPeriodUSec=100ms MemoryMax=64000000 MemorySwapMax=1000000 AllowedCPUs=0-1 "
                        "AllowedMemoryNodes=0 MemoryHigh=33000000 OOMPolicy=kill TasksMax=infinity "
                        "DevicePolicy=closed Delegate=yes IgnoreSIGPIPE=no KillMode=mixed; do "
                        "grep -qx $p /tmp/show || { echo $p >&2; exit 1; }; done", c->unit);
        CHECK_EQ(h.engine->ops->container_update(h.engine, &c->view, &update, &error), 0);
        harness_on_host("systemctl show %s >/tmp/show; for p in CPUWeight=1 MemoryMax=77000000 MemoryHigh=33000000; do "
                        "grep -qx $p /tmp/show || { echo $p >&2; exit 1; }; done; rm /tmp/show", c->unit);
        container_remove(c);

        /* A file that the kernel doesn't have is an error, and nothing is left. */
        unified[0] = (runtime_v1_LinuxContainerResources_UnifiedEntry) { (char *) "no.such", (char *) "1" };
        c = container_new(p, "true");
        c->config.has_linux = c->config.linux.has_resources = true;
        c->config.linux.resources.unified = unified;
        c->config.linux.resources.unified_count = 1;
        CHECK(container_try_create(c, &error) < 0);
        check_contains(error.message, "no.such");
        CHECK_EQ(mkdir_parents(AT_FDCWD, c->run_directory, 0700), 0);
        container_remove(c);
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

static int terminal(void *userdata) {
        TestPod *p = pod_new(&h);
        TestContainer *c = container_new(p, "stty -a >/dev/null && echo tty; readlink /proc/self/fd/0; exit 9");
        _cleanup_free_ char *out = NULL;

        c->config.tty = true;
        pod_start(p);
        container_create(c);
        container_start(c);
        CHECK_EQ(container_wait(c).exit_code, 9);
        out = container_output(c, "stdout");
        check_contains(out, "tty\r\n/dev/pts/0\r\n");
        container_remove(c);
        pod_end(p);
        harness_check_empty(&h);
        return 0;
}

TEST_IN_FIBER(inside)
TEST_IN_FIBER(mounts)
TEST_IN_FIBER(propagation)
TEST_IN_FIBER(privileged)
TEST_IN_FIBER(pids)
TEST_IN_FIBER(limits)
TEST_IN_FIBER(terminal)

int main(int argc, char **argv) {
        static const TestCase cases[] = {
                { "what a container sees", test_inside },
                { "mounts", test_mounts },
                { "mounts reach the container and the host as asked", test_propagation },
                { "privileged, the host's namespaces, and the opposite", test_privileged },
                { "PID namespaces that are shared", test_pids },
                { "limits are properties of the unit", test_limits },
                { "a terminal", test_terminal },
        };

        return harness_main(&h, cases, ELEMENTSOF(cases), argc, argv);
}
