/* The command lines of a pod's and a container's life, word for word, and what is refused instead of being given to rkt. */

#include "engine/rkt/arguments.h"

#include "basic/string-util.h"
#include "basic/test.h"
#include "engine/rkt/limits.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define UUID "669f2088-e718-4bfd-af98-83de7b17c052"
#define HASH "sha512-80d5f3e52921236315392572f7d2fd9aaa4bc1c0854babd0e6781ef1506f4d14"
#define S(s) ((char *) (s))

static const Rkt rkt = {
        .path = S("/usr/bin/rkt"),
        .directory = S("/var/lib/rktlet/data"),
        .stage1_name = S(""),
        .insecure_options = S("image,ondisk"),
        .local_config = S("/etc/rkt"),
};

static void check_words(char **argv, const char *const *want, size_t n) {
        for (size_t i = 0; i < n; i++)
                CHECK_STREQ(argv && i < strv_length(argv) ? argv[i] : "(nothing)", want[i]);
        CHECK_EQ(strv_length(argv), n);
}
#define CHECK_WORDS(argv, ...)                                                                                         \
        ({                                                                                                             \
                const char *_want[] = { __VA_ARGS__ };                                                                 \
                check_words((argv), _want, ELEMENTSOF(_want));                                                         \
        })

static runtime_v1_PodSandboxConfig pod_config(void) {
        return (runtime_v1_PodSandboxConfig) {
                .has_metadata = true,
                .metadata = { .name = S("n1"), .namespace = S("default"), .uid = S("uid-n1"), .attempt = 0 },
        };
}

static void a_sandbox_is_as_measured(void) {
        static char *servers[] = { S("10.0.0.10") }, *searches[] = { S("svc.local") }, *options[] = { S("ndots:5") };
        static runtime_v1_PortMapping ports[] = {
                { .container_port = 80, .host_port = 8080, .host_ip = S("0.0.0.0") },
                { .protocol = runtime_v1_Protocol_UDP, .container_port = 53, .host_port = 5353 },
                { .container_port = 99 },
        };
        static runtime_v1_PodSandboxConfig_AnnotationsEntry annotations[] = { { S("x"), S("y=z") },
                                                                              { S("k8s.io/reserved/pod-uid"), S("forged") } };
        static runtime_v1_PodSandboxConfig_LabelsEntry labels[] = { { S("app"), S("old") }, { S("app"), S("web") } };
        runtime_v1_PodSandboxConfig c = pod_config();
        EnginePod pod = { .id = ID, .config = &c };
        _cleanup_strv_free_ char **argv = NULL;

        c.hostname = S("n1");
        c.log_directory = S("/var/log/pods/n1");
        c.has_dns_config = true;
        c.dns_config = (runtime_v1_DNSConfig) { 1, servers, 1, searches, 1, options };
        c.port_mappings = ports;
        c.port_mappings_count = ELEMENTSOF(ports);
        c.annotations = annotations;
        c.annotations_count = ELEMENTSOF(annotations);
        c.labels = labels;
        c.labels_count = ELEMENTSOF(labels);
        CHECK_EQ(rkt_sandbox_argv(&rkt, &pod, "/run/uuid", "/log", "rkt.kubernetes.io", &argv, NULL), 0);
        CHECK_WORDS(argv, "/usr/bin/rkt", "app", "--dir=/var/lib/rktlet/data", "--insecure-options=image,ondisk", "sandbox",
                    "--uuid-file-save=/run/uuid", "--annotation=coreos.com/rkt/experiment/logmode=k8s-plain",
                    "--annotation=coreos.com/rkt/experiment/kubernetes-log-dir=/log", "--hostname=n1", "--dns=10.0.0.10",
                    "--dns-search=svc.local", "--dns-opt=ndots:5", "--port=tcp-80-8080:tcp:80:0.0.0.0:8080",
                    "--port=udp-53-5353:udp:53:5353", "--net=rkt.kubernetes.io",
                    "--user-annotation=k8s.io/reserved/pod-uid=uid-n1", "--user-annotation=k8s.io/reserved/pod-name=n1",
                    "--user-annotation=k8s.io/reserved/pod-namespace=default",
                    "--user-annotation=k8s.io/reserved/pod-attempt=0", "--user-annotation=org.rktlet1/pod-id=" ID,
                    "--user-annotation=org.rktlet1/log-directory=/var/log/pods/n1", "--user-annotation=x=y=z",
                    "--user-label=app=web");
}

static void a_privileged_sandbox_on_the_hosts_network(void) {
        runtime_v1_PodSandboxConfig c = pod_config();
        EnginePod pod = { .id = ID, .config = &c };
        _cleanup_strv_free_ char **argv = NULL;
        Rkt own = rkt;

        own.stage1_name = S("coreos.com/rkt/stage1-host:1.30.0");
        own.local_config = S("/srv/rkt");
        c.has_linux = c.linux.has_security_context = true;
        c.linux.security_context.privileged = true;
        c.linux.security_context.has_namespace_options = true;
        c.linux.security_context.namespace_options.network = runtime_v1_NamespaceMode_NODE;
        CHECK_EQ(rkt_sandbox_argv(&own, &pod, "/run/uuid", "/log", NULL, &argv, NULL), 0);
        CHECK_WORDS(argv, "/usr/bin/rkt", "app", "--dir=/var/lib/rktlet/data", "--insecure-options=image,ondisk,all-run",
                    "--local-config=/srv/rkt", "sandbox", "--uuid-file-save=/run/uuid",
                    "--annotation=coreos.com/rkt/experiment/logmode=k8s-plain",
                    "--annotation=coreos.com/rkt/experiment/kubernetes-log-dir=/log",
                    "--stage1-name=coreos.com/rkt/stage1-host:1.30.0", "--dns=host", "--net=host", "--hosts-entry=host",
                    "--user-annotation=k8s.io/reserved/pod-uid=uid-n1", "--user-annotation=k8s.io/reserved/pod-name=n1",
                    "--user-annotation=k8s.io/reserved/pod-namespace=default",
                    "--user-annotation=k8s.io/reserved/pod-attempt=0", "--user-annotation=org.rktlet1/pod-id=" ID,
                    "--user-annotation=org.rktlet1/host-network=true");
}

static runtime_v1_ContainerConfig container_config(void) {
        return (runtime_v1_ContainerConfig) {
                .has_metadata = true,
                .metadata = { .name = S("c1"), .attempt = 2 },
                .has_image = true,
                .image.image = S("example.com/bb:1.0.0"),
        };
}

static int add(const runtime_v1_ContainerConfig *config, char ***ret, Error *error) {
        EngineContainer c = { .id = ID, .config = config };

        return rkt_add_argv(&rkt, &c, UUID, HASH, ret, error);
}

#define BEGIN "/usr/bin/rkt", "app", "--dir=/var/lib/rktlet/data"
#define NAMED                                                                                                          \
        "--annotation=coreos.com/rkt/experiment/kubernetes-log-path=" ID ".log", "--name=" ID
#define RESERVED                                                                                                       \
        "--user-annotation=k8s.io/reserved/image-name=example.com/bb:1.0.0",                                           \
                "--user-annotation=k8s.io/reserved/container-name=c1",                                                 \
                "--user-annotation=k8s.io/reserved/container-attempt=2"
#define DEFAULT_CAPS                                                                                                   \
        "CAP_CHOWN,CAP_DAC_OVERRIDE,CAP_FOWNER,CAP_FSETID,CAP_KILL,CAP_SETGID,CAP_SETUID,CAP_SETPCAP,"                 \
        "CAP_NET_BIND_SERVICE,CAP_NET_RAW,CAP_SYS_CHROOT,CAP_MKNOD,CAP_AUDIT_WRITE,CAP_SETFCAP"

static void an_app_is_as_measured(void) {
        static char *command[] = { S("/bin/sh") }, *args[] = { S("-c"), S("echo $HOME; sleep 1000") };
        static char *capabilities[] = { S("CHOWN"), S("CAP_KILL") }, *all[] = { S("ALL") };
        static int64_t groups[] = { 5, 6 };
        static runtime_v1_Mount mounts[] = {
                { .container_path = S("/data"), .host_path = S("/proc/self/../..//tmp") },
                { .container_path = S("/etc/a,b c"), .host_path = S("/etc/passwd"), .readonly = true },
        };
        runtime_v1_KeyValue envs[] = { { S("FOO"), S("b=\xffz") }, { S("EMPTY"), NULL } };
        static runtime_v1_ContainerConfig_LabelsEntry labels[] = { { S("l"), S("m") } };
        runtime_v1_ContainerConfig c = container_config();
        _cleanup_strv_free_ char **argv = NULL;

        c.command = command;
        c.command_count = 1;
        c.args = args;
        c.args_count = 2;
        c.envs = envs;
        c.envs_count = 2;
        c.labels = labels;
        c.labels_count = 1;
        c.mounts = mounts;
        c.mounts_count = 2;
        c.working_dir = S("/tmp");
        c.stdin = true;
        c.has_linux = c.linux.has_resources = c.linux.has_security_context = true;
        c.linux.resources = (runtime_v1_LinuxContainerResources) {
                .cpu_shares = 512, .cpu_quota = 10000, .cpu_period = 100000, .memory_limit_in_bytes = 33554432, .oom_score_adj = 100,
        };
        c.linux.security_context = (runtime_v1_LinuxContainerSecurityContext) {
                .has_capabilities = true,
                .capabilities = { .add_capabilities = capabilities, .add_capabilities_count = 2,
                                  .drop_capabilities = all, .drop_capabilities_count = 1 },
                .has_run_as_user = true, .run_as_user.value = 1000, .has_run_as_group = true, .run_as_group.value = 1001,
                .supplemental_groups = groups, .supplemental_groups_count = 2, .readonly_rootfs = true,
        };
        CHECK_EQ(add(&c, &argv, NULL), 0);
        CHECK_WORDS(argv, BEGIN, "--insecure-options=image,ondisk", "add", UUID, HASH, NAMED, "--stdin=stream",
                    "--stdout=stream", "--stderr=stream", RESERVED, "--user-label=l=m", "--environment=FOO=b=\xffz",
                    "--environment=EMPTY=", "--cpu-shares=512", "--cpu=100m", "--memory=33554432", "--oom-score-adj=100",
                    "--caps-retain=CAP_CHOWN,CAP_KILL", "--seccomp=mode=retain,@appc.io/all", "--user=1000", "--group=1001",
                    "--supplementary-gids=5,6", "--readonly-rootfs=true", "--working-dir=/tmp",
                    "--mnt-volume=name=volume-0,kind=host,source=/tmp,target=/data,readOnly=false",
                    "--mnt-volume=name=volume-1,kind=host,source=/etc/passwd,target=/etc/a%2Cb%20c,readOnly=true",
                    "--exec=/bin/sh", "--", "-c", "echo $HOME; sleep 1000", "---");
}

static void the_images_own_command_stays(void) {
        static char *args[] = { S("one"), S("--two") };
        runtime_v1_ContainerConfig c = container_config();
        _cleanup_strv_free_ char **argv = NULL, **with_args = NULL;

        CHECK_EQ(add(&c, &argv, NULL), 0);
        CHECK_WORDS(argv, BEGIN, "--insecure-options=image,ondisk", "add", UUID, HASH, NAMED, "--stdin=null",
                    "--stdout=stream", "--stderr=stream", RESERVED, "--caps-retain=" DEFAULT_CAPS,
                    "--seccomp=mode=retain,@appc.io/all");
        c.args = args;
        c.args_count = 2;
        c.tty = true;
        CHECK_EQ(add(&c, &with_args, NULL), 0);
        CHECK_WORDS(with_args, BEGIN, "--insecure-options=image,ondisk", "add", UUID, HASH, NAMED, "--stdin=tty",
                    "--stdout=tty", "--stderr=tty", RESERVED, "--caps-retain=" DEFAULT_CAPS,
                    "--seccomp=mode=retain,@appc.io/all", "--", "one", "--two", "---");
}

static void security_is_given_on(void) {
        static char *all[] = { S("ALL") };
        runtime_v1_ContainerConfig c = container_config();
        _cleanup_strv_free_ char **argv = NULL, **bare = NULL;

        c.has_linux = c.linux.has_security_context = true;
        c.linux.security_context.privileged = true;
        CHECK_EQ(add(&c, &argv, NULL), 0);
        CHECK_WORDS(argv, BEGIN, "--insecure-options=image,ondisk,all-run", "add", UUID, HASH, NAMED, "--stdin=null",
                    "--stdout=stream", "--stderr=stream", RESERVED);
        c.linux.security_context = (runtime_v1_LinuxContainerSecurityContext) {
                .has_capabilities = true,
                .capabilities = { .drop_capabilities = all, .drop_capabilities_count = 1 },
                .has_seccomp = true,
                .run_as_username = S("www-data"),
        };
        CHECK_EQ(add(&c, &bare, NULL), 0);
        CHECK_WORDS(bare, BEGIN, "--insecure-options=image,ondisk", "add", UUID, HASH, NAMED, "--stdin=null",
                    "--stdout=stream", "--stderr=stream", RESERVED, "--caps-remove=" DEFAULT_CAPS,
                    "--seccomp=mode=retain,@rkt/default-whitelist", "--user=www-data");
}

static void what_cannot_be_said_is_refused(void) {
        runtime_v1_Mount missing[] = { { .container_path = S("/data"), .host_path = S("/nonexistent/x") } };
        runtime_v1_KeyValue bad[] = { { S("A=B"), NULL } };
        runtime_v1_ContainerConfig c = container_config();
        _cleanup_error_ Error error = ERROR_INIT, env_error = ERROR_INIT;
        char **argv = NULL;

        c.mounts = missing;
        c.mounts_count = 1;
        CHECK_EQ(add(&c, &argv, &error), -ENOENT);
        CHECK(strstr(error.message, "/nonexistent/x") != NULL);
        c.mounts_count = 0;
        c.envs = bad;
        c.envs_count = 1;
        CHECK(add(&c, &argv, &env_error) < 0);
        CHECK_EQ(env_error.code, GRPC_INVALID_ARGUMENT);
}

/* A label may be larger than a command line takes; it stays with us alone. */
static void large_metadata_is_left_out(void) {
        _cleanup_free_ char *large = malloc(200001);
        runtime_v1_ContainerConfig c = container_config();
        _cleanup_strv_free_ char **argv = NULL;

        CHECK(large != NULL);
        memset(large, 'x', 200000);
        large[200000] = 0;
        runtime_v1_ContainerConfig_AnnotationsEntry annotations[] = { { S("large"), large }, { S("small"), S("1") } };
        c.annotations = annotations;
        c.annotations_count = 2;
        CHECK_EQ(add(&c, &argv, NULL), 0);
        CHECK(strv_contains(argv, "--user-annotation=small=1"));
        STRV_FOREACH(a, argv)
                CHECK(strlen(*a) < 100000);
}

#define REFUSED(limit, check, ...)                                                                                     \
        ({                                                                                                             \
                _cleanup_error_ Error _e = ERROR_INIT;                                                                 \
                CHECK(check(__VA_ARGS__, &_e) < 0);                                                                    \
                CHECK_EQ(_e.code, GRPC_UNIMPLEMENTED);                                                                 \
                CHECK(strstr(strempty(_e.message), rkt_limit_text(limit)->what) != NULL);                              \
                CHECK(strstr(strempty(_e.message), rkt_limit_text(limit)->why) != NULL);                               \
        })

static void limits_are_refused_with_their_reason(void) {
        runtime_v1_ContainerConfig c = container_config();
        runtime_v1_LinuxContainerSecurityContext *s = &c.linux.security_context;
        runtime_v1_Mount m[] = { { .container_path = S("/a"), .host_path = S("/tmp") } };
        runtime_v1_Device d[] = { { S("/dev/x"), S("/dev/null"), S("rw") } };
        char *dashes[] = { S("a"), S("---") };

        CHECK_EQ(rkt_check_container(&c, NULL), 0);
        c.has_linux = c.linux.has_security_context = c.linux.has_resources = true;
        /* What every kubelet asks for must do. */
        s->has_namespace_options = true;
        s->namespace_options.pid = runtime_v1_NamespaceMode_CONTAINER;
        c.linux.resources.unified = &(runtime_v1_LinuxContainerResources_UnifiedEntry) { S("memory.oom.group"), S("1") };
        c.linux.resources.unified_count = 1;
        c.linux.resources.memory_limit_in_bytes = c.linux.resources.memory_swap_limit_in_bytes = 1 << 20;
        c.linux.resources.hugepage_limits = &(runtime_v1_HugepageLimit) { S("2MB"), 0 };
        c.linux.resources.hugepage_limits_count = 1;
        CHECK_EQ(rkt_check_container(&c, NULL), 0);

        s->namespace_options.pid = runtime_v1_NamespaceMode_NODE;
        REFUSED(RKT_LIMIT_HOST_PID, rkt_check_container, &c);
        s->namespace_options.pid = runtime_v1_NamespaceMode_TARGET;
        REFUSED(RKT_LIMIT_TARGET_PID, rkt_check_container, &c);
        s->namespace_options = (runtime_v1_NamespaceOption) { .ipc = runtime_v1_NamespaceMode_NODE };
        REFUSED(RKT_LIMIT_HOST_IPC, rkt_check_container, &c);
        s->namespace_options = (runtime_v1_NamespaceOption) { .has_userns_options = true };
        REFUSED(RKT_LIMIT_USERNS, rkt_check_container, &c);
        s->has_namespace_options = false;
        s->no_new_privs = true;
        REFUSED(RKT_LIMIT_NO_NEW_PRIVS, rkt_check_container, &c);
        s->no_new_privs = false;
        s->supplemental_groups_policy = runtime_v1_SupplementalGroupsPolicy_Strict;
        REFUSED(RKT_LIMIT_GROUPS, rkt_check_container, &c);
        s->supplemental_groups_policy = 0;
        s->has_seccomp = true;
        s->seccomp.profile_type = runtime_v1_SecurityProfile_ProfileType_Localhost;
        REFUSED(RKT_LIMIT_SECCOMP, rkt_check_container, &c);
        s->has_seccomp = false;
        s->has_apparmor = true;
        s->apparmor.profile_type = runtime_v1_SecurityProfile_ProfileType_Localhost;
        REFUSED(RKT_LIMIT_APPARMOR, rkt_check_container, &c);
        s->has_apparmor = false;
        s->has_selinux_options = true;
        s->selinux_options.level = S("s0");
        REFUSED(RKT_LIMIT_SELINUX, rkt_check_container, &c);
        s->has_selinux_options = false;
        s->has_capabilities = true;
        s->capabilities.add_ambient_capabilities = dashes;
        s->capabilities.add_ambient_capabilities_count = 1;
        REFUSED(RKT_LIMIT_AMBIENT, rkt_check_container, &c);
        s->has_capabilities = false;
        c.linux.resources.cpuset_cpus = S("0");
        REFUSED(RKT_LIMIT_CPUSET, rkt_check_container, &c);
        c.linux.resources.cpuset_cpus = NULL;
        c.linux.resources.memory_swap_limit_in_bytes = 2 << 20;
        REFUSED(RKT_LIMIT_SWAP, rkt_check_container, &c);
        c.linux.resources.memory_swap_limit_in_bytes = 0;
        c.linux.resources.hugepage_limits->limit = 1;
        REFUSED(RKT_LIMIT_HUGEPAGES, rkt_check_container, &c);
        c.linux.resources.hugepage_limits_count = 0;
        c.linux.resources.unified->key = S("pids.max");
        REFUSED(RKT_LIMIT_UNIFIED, rkt_check_container, &c);
        c.linux.resources.unified_count = 0;
        c.devices = d;
        c.devices_count = 1;
        REFUSED(RKT_LIMIT_DEVICES, rkt_check_container, &c);
        c.devices_count = 0;
        c.CDI_devices_count = 1;
        REFUSED(RKT_LIMIT_CDI, rkt_check_container, &c);
        c.CDI_devices_count = 0;
        c.args = dashes;
        c.args_count = 2;
        REFUSED(RKT_LIMIT_DASHES, rkt_check_container, &c);
        c.args_count = 0;
        c.mounts = m;
        c.mounts_count = 1;
        CHECK_EQ(rkt_check_container(&c, NULL), 0);
        m[0].propagation = runtime_v1_MountPropagation_PROPAGATION_HOST_TO_CONTAINER;
        REFUSED(RKT_LIMIT_PROPAGATION, rkt_check_container, &c);
        m[0].propagation = 0;
        m[0].recursive_read_only = true;
        REFUSED(RKT_LIMIT_RECURSIVE, rkt_check_container, &c);
        m[0].recursive_read_only = false;
        m[0].uidMappings_count = 1;
        REFUSED(RKT_LIMIT_ID_MAPPED, rkt_check_container, &c);
        m[0].uidMappings_count = 0;
        m[0].has_image = true;
        REFUSED(RKT_LIMIT_IMAGE_VOLUMES, rkt_check_container, &c);
}

static void limits_of_pods_are_refused(void) {
        runtime_v1_PortMapping ports[] = { { .protocol = runtime_v1_Protocol_SCTP, .container_port = 1, .host_port = 1 } };
        runtime_v1_PodSandboxConfig c = pod_config();
        runtime_v1_LinuxSandboxSecurityContext *s = &c.linux.security_context;

        CHECK_EQ(rkt_check_pod(&c, NULL), 0);
        c.port_mappings = ports;
        c.port_mappings_count = 1;
        REFUSED(RKT_LIMIT_SCTP, rkt_check_pod, &c);
        c.port_mappings_count = 0;
        c.has_linux = c.linux.has_security_context = s->has_namespace_options = true;
        s->namespace_options.pid = runtime_v1_NamespaceMode_NODE;
        REFUSED(RKT_LIMIT_HOST_PID, rkt_check_pod, &c);
        s->namespace_options.pid = runtime_v1_NamespaceMode_CONTAINER;
        s->namespace_options.ipc = runtime_v1_NamespaceMode_NODE;
        REFUSED(RKT_LIMIT_HOST_IPC, rkt_check_pod, &c);
        s->namespace_options.ipc = runtime_v1_NamespaceMode_POD;
        s->namespace_options.has_userns_options = true;
        s->namespace_options.userns_options.mode = runtime_v1_NamespaceMode_POD;
        REFUSED(RKT_LIMIT_USERNS, rkt_check_pod, &c);
        s->has_namespace_options = false;
        c.linux.sysctls_count = 1;
        REFUSED(RKT_LIMIT_SYSCTLS, rkt_check_pod, &c);
}

TEST_MAIN(TEST_CASE(a_sandbox_is_as_measured), TEST_CASE(a_privileged_sandbox_on_the_hosts_network),
          TEST_CASE(an_app_is_as_measured), TEST_CASE(the_images_own_command_stays), TEST_CASE(security_is_given_on),
          TEST_CASE(what_cannot_be_said_is_refused), TEST_CASE(large_metadata_is_left_out),
          TEST_CASE(limits_are_refused_with_their_reason), TEST_CASE(limits_of_pods_are_refused))
