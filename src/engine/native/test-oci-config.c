/* The OCI configuration, part by part. */

#include <signal.h>

#include "basic/json-util.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "engine/native/capability.h"
#include "engine/native/oci-config.h"
#include "engine/native/oci-process.h"
#include "engine/native/seccomp.h"

#define ALL_CAPABILITIES UINT64_C(0x1ffffffffff)

/* What a test starts from: a command, a privileged pod, an image. */
typedef struct Fixture {
        runtime_v1_PodSandboxConfig pod_config;
        runtime_v1_ContainerConfig config;
        EnginePod pod;
        EngineContainer container;
        Image image;
        OciUser user;
        OciInput in;
} Fixture;

static char *image_env[] = {(char *)"PATH=/image", (char *)"BOTH=image", (char *)"BAD",
                            (char *)"=x",          (char *)"EMPTY=",     NULL};
static char *image_entrypoint[] = { (char *) "/entry", (char *) "point", NULL };
static char *image_cmd[] = { (char *) "one", (char *) "two", NULL };
static char *command[] = { (char *) "sh" };

static void fixture(Fixture *f) {
        *f = (Fixture) {
                .config.command = command,
                .config.command_count = 1,
                .config.has_linux = true,
                .config.linux.has_security_context = true,
                .pod_config.has_linux = true,
                .pod_config.linux.has_security_context = true,
                .pod_config.linux.security_context.privileged = true,
                .image.config = { .env = image_env, .entrypoint = image_entrypoint, .cmd = image_cmd },
                .user = { .uid = 5, .gid = 6, .home = (char *) "/home/x" },
        };
        f->pod.config = &f->pod_config;
        f->container = (EngineContainer) { .pod = &f->pod, .config = &f->config, .image = &f->image };
        f->in = (OciInput) {
                .container = &f->container,
                .user = &f->user,
                .capabilities = ALL_CAPABILITIES,
                .oom_score_adj_min = -1000,
                .hostname = "host",
                .rootfs = "/run/rootfs",
                .files = { "/p/hostname", "/p/hosts", "/p/resolv.conf", "/p/shm" },
                .net = "/proc/7/fd/1",
                .ipc = "/proc/7/fd/2",
                .uts = "/proc/7/fd/3",
                .pid_private = true,
        };
}

static json_t *make(Fixture *f) {
        _cleanup_error_ Error error = ERROR_INIT;
        OciOutput out = {};

        if (oci_config_make(&f->in, NULL, &out, &error) < 0) {
                fprintf(stderr, "%s\n", error.message);
                abort();
        }
        CHECK_EQ(out.environment.size, 0);
        return out.config;
}

static void refused(Fixture *f, GrpcCode code, const char *words) {
        _cleanup_error_ Error error = ERROR_INIT;
        OciOutput out = {};

        CHECK(oci_config_make(&f->in, NULL, &out, &error) < 0);
        CHECK_EQ(error.code, code);
        if (!strstr(error.message, words)) {
                fprintf(stderr, "'%s' is not in '%s'\n", words, error.message);
                abort();
        }
}

/* "a b c" of an array of strings. */
static char *words(const json_t *array) {
        _cleanup_strv_free_ char **l = NULL;

        CHECK_EQ(json_to_strv(array, &l), 0);
        return strv_join(l, " ");
}

#define CHECK_WORDS(array, want)                                                                                       \
        do {                                                                                                           \
                _cleanup_free_ char *_got = words(array);                                                              \
                CHECK_STREQ(_got, (want));                                                                             \
        } while (0)

static void test_arguments(void) {
        char *own_command[] = { (char *) "/c", (char *) "x" }, *args[] = { (char *) "$HOME", (char *) "" };
        runtime_v1_ContainerConfig c = {};
        ImageConfig image = { .entrypoint = image_entrypoint, .cmd = image_cmd };
        Error error = ERROR_INIT;
        json_t *j = NULL;
        const struct {
                bool command, args;
                const char *want;
        } cases[] = {
                { false, false, "/entry point one two" },
                { false, true, "/entry point $HOME " },
                { true, false, "/c x" },
                { true, true, "/c x $HOME " },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                c.command = own_command;
                c.command_count = cases[i].command ? 2 : 0;
                c.args = args;
                c.args_count = cases[i].args ? 2 : 0;
                CHECK_EQ(oci_args(&c, &image, &j, &error), 0);
                CHECK_WORDS(j, cases[i].want);
                json_decref(j);
        }
        c.command_count = c.args_count = 0;
        CHECK(oci_args(&c, NULL, &j, &error) < 0);
        CHECK_EQ(error.code, GRPC_INVALID_ARGUMENT);
        error_clear(&error);
}

static int env_of(const char *name, const char *value, json_t **ret, Error *error) {
        runtime_v1_KeyValue kv = { (char *) name, (char *) value };
        runtime_v1_ContainerConfig c = { .envs = &kv, .envs_count = 1 };
        _cleanup_(buffer_done) Buffer raw = BUFFER_INIT;
        int r = oci_env(&c, &(ImageConfig) { .env = image_env }, "host", "/home/x", ret, &raw, error);

        CHECK_EQ(raw.size, 0);
        return r;
}

static void test_environment(void) {
        static const struct {
                const char *name, *value;
        } wrong[] = { { "", "x" }, { "A=B", "x" } };
        static char longest[OCI_ENV_ONE_MAX];
        Error error = ERROR_INIT;
        json_t *j = NULL;

        /* A value may be as long as the kernel takes, and no longer. */
        memset(longest, 'x', sizeof longest - 3);
        CHECK_EQ(env_of("A", longest, &j, &error), 0);
        json_decref(j);
        longest[sizeof longest - 3] = 'x';
        CHECK(env_of("A", longest, &j, &error) < 0);
        CHECK_EQ(error.code, GRPC_INVALID_ARGUMENT);
        CHECK(strstr(error.message, "'A' of the container is longer than 131071 bytes"));
        error_clear(&error);

        CHECK_EQ(env_of("BOTH", "a=b\n$X", &j, &error), 0);
        CHECK_WORDS(j, "PATH=/image BOTH=a=b\n$X EMPTY= HOSTNAME=host HOME=/home/x");
        json_decref(j);
        CHECK_EQ(env_of("HOME", "/own", &j, &error), 0);
        CHECK_WORDS(j, "PATH=/image BOTH=image EMPTY= HOSTNAME=host HOME=/own");
        json_decref(j);
        CHECK_EQ(env_of("A", NULL, &j, &error), 0);
        CHECK_WORDS(j, "PATH=/image BOTH=image EMPTY= HOSTNAME=host A= HOME=/home/x");
        json_decref(j);
        for (size_t i = 0; i < ELEMENTSOF(wrong); i++) {
                CHECK(env_of(wrong[i].name, wrong[i].value, &j, &error) < 0);
                CHECK_EQ(error.code, GRPC_INVALID_ARGUMENT);
                error_clear(&error);
        }
}

static void test_environment_is_bounded_and_fast(void) {
        size_t n = 60000;
        runtime_v1_KeyValue *kv = calloc(n, sizeof *kv);
        runtime_v1_ContainerConfig c = { .envs = kv, .envs_count = (pb_size_t) n };
        Buffer raw = BUFFER_INIT;
        Error error = ERROR_INIT;
        json_t *j = NULL;

        for (size_t i = 0; i < n; i++)
                kv[i].key = strprintf("K%zu", i);
        CHECK_EQ(oci_env(&c, NULL, NULL, "/", &j, &raw, &error), 0);
        CHECK_EQ(json_array_size(j), n + 2);
        json_decref(j);
        for (size_t i = 0; i < n; i++) {
                free(kv[i].key);
                kv[i].key = strprintf("KEY_OF_SOME_LENGTH_%zu", i);
        }
        CHECK(oci_env(&c, NULL, NULL, "/", &j, &raw, &error) < 0);
        CHECK_EQ(error.code, GRPC_INVALID_ARGUMENT);
        error_clear(&error);
        for (size_t i = 0; i < n; i++)
                free(kv[i].key);
        free(kv);
}

static void test_variables_that_are_not_utf8_go_another_way(void) {
        runtime_v1_KeyValue kv[] = { { (char *) "X", (char *) "\xff\xfe" }, { (char *) "Y", (char *) "\xff" },
                                     { (char *) "Y", (char *) "fine" } };
        _cleanup_(oci_output_done) OciOutput out = {};
        Error error = ERROR_INIT;
        json_t *mounts, *process;
        Fixture f;

        fixture(&f);
        f.config.envs = kv;
        f.config.envs_count = ELEMENTSOF(kv);
        f.in.helper = "/libexec/helper";
        f.in.environment = "/run/environment";
        CHECK_EQ(oci_config_make(&f.in, NULL, &out, &error), 0);
        CHECK_EQ(out.environment.size, 5);
        CHECK(memcmp(out.environment.data, "X=\xff\xfe", 5) == 0);
        process = json_object_get(out.config, "process");
        CHECK_WORDS(json_object_get(process, "env"),
                    "PATH=/image BOTH=image EMPTY= HOSTNAME=host Y=fine HOME=/home/x");
        CHECK_WORDS(json_object_get(process, "args"), OCI_HELPER_PATH " --environment " OCI_ENVIRONMENT_PATH " -- sh");
        mounts = json_object_get(out.config, "mounts");
        CHECK_STREQ(json_get_string(json_array_get(mounts, json_array_size(mounts) - 2), "source"), "/libexec/helper");
        CHECK_STREQ(json_get_string(json_array_get(mounts, json_array_size(mounts) - 1), "source"),
                    "/run/environment");
}

static void test_working_directory(void) {
        runtime_v1_ContainerConfig c = {};
        ImageConfig image = { .working_dir = (char *) "/image" };
        Error error = ERROR_INIT;
        const char *cwd;

        CHECK_EQ(oci_cwd(&c, NULL, &cwd, &error), 0);
        CHECK_STREQ(cwd, "/");
        CHECK_EQ(oci_cwd(&c, &image, &cwd, &error), 0);
        CHECK_STREQ(cwd, "/image");
        c.working_dir = (char *) "/own";
        CHECK_EQ(oci_cwd(&c, &image, &cwd, &error), 0);
        CHECK_STREQ(cwd, "/own");
        c.working_dir = (char *) "relative";
        CHECK(oci_cwd(&c, &image, &cwd, &error) < 0);
        CHECK_EQ(error.code, GRPC_INVALID_ARGUMENT);
        error_clear(&error);
}

static void test_stop_signals(void) {
        static const struct {
                const char *name;
                int number;
        } names[] = { { "SIGQUIT", SIGQUIT }, { "QUIT", SIGQUIT }, { "3", 3 },       { "SIGIO", SIGIO },
                      { "SIGCLD", SIGCHLD },  { "TERM", SIGTERM }, { "0", -EINVAL }, { "65", -EINVAL },
                      { "SIG", -EINVAL },     { "x", -EINVAL },    { "-1", -EINVAL }, { "", -EINVAL },
                      { "RTMIN+99", -EINVAL } };
        runtime_v1_ContainerConfig c = {};
        ImageConfig image = { .stop_signal = (char *) "SIGUSR1" };
        Error error = ERROR_INIT;
        int s;

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                CHECK_EQ(signal_from_name(names[i].name), names[i].number);
        CHECK_EQ(signal_from_name("SIGRTMIN+3"), SIGRTMIN + 3);
        CHECK_EQ(signal_from_name("RTMAX-1"), SIGRTMAX - 1);
        CHECK_EQ(oci_stop_signal(&c, NULL, &s, &error), 0);
        CHECK_EQ(s, SIGTERM);
        CHECK_EQ(oci_stop_signal(&c, &image, &s, &error), 0);
        CHECK_EQ(s, SIGUSR1);
        image.stop_signal = (char *) "bogus";
        CHECK_EQ(oci_stop_signal(&c, &image, &s, &error), 0);
        CHECK_EQ(s, SIGTERM);
        for (int i = 1; i <= runtime_v1_Signal_SIGRTMAX; i++) {
                c.stop_signal = (runtime_v1_Signal) i;
                CHECK_EQ(oci_stop_signal(&c, &image, &s, &error), 0);
                CHECK(s > 0 && s <= SIGRTMAX);
        }
        c.stop_signal = runtime_v1_Signal_SIGHUP;
        CHECK_EQ(oci_stop_signal(&c, &image, &s, &error), 0);
        CHECK_EQ(s, SIGHUP);
        c.stop_signal = 66;
        CHECK(oci_stop_signal(&c, &image, &s, &error) < 0);
        error_clear(&error);
}

static void test_capabilities(void) {
        char *all[] = { (char *) "ALL" }, *chown[] = { (char *) "CHOWN" }, *admin[] = { (char *) "cap_net_admin" },
             *wrong[] = { (char *) "NO_SUCH" };
        runtime_v1_LinuxContainerSecurityContext s = { .has_capabilities = true };
        Error error = ERROR_INIT;
        Capabilities c;
        const struct {
                char **add, **drop, **ambient;
                uint64_t bounding, ambient_want;
        } cases[] = {
                { NULL, NULL, NULL, 0xa80425fb, 0 },
                { admin, NULL, NULL, 0xa80435fb, 0 },
                { NULL, chown, NULL, 0xa80425fa, 0 },
                { NULL, all, NULL, 0, 0 },
                { chown, all, NULL, 1, 0 },
                { all, NULL, NULL, ALL_CAPABILITIES, 0 },
                { all, chown, NULL, ALL_CAPABILITIES - 1, 0 },
                { NULL, NULL, chown, 0xa80425fb, 1 },
                { NULL, NULL, admin, 0xa80435fb, 0x1000 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                s.capabilities.add_capabilities = cases[i].add;
                s.capabilities.add_capabilities_count = cases[i].add ? 1 : 0;
                s.capabilities.drop_capabilities = cases[i].drop;
                s.capabilities.drop_capabilities_count = cases[i].drop ? 1 : 0;
                s.capabilities.add_ambient_capabilities = cases[i].ambient;
                s.capabilities.add_ambient_capabilities_count = cases[i].ambient ? 1 : 0;
                CHECK_EQ(capabilities_from_config(&s, ALL_CAPABILITIES, &c, &error), 0);
                CHECK_EQ(c.bounding, cases[i].bounding);
                CHECK_EQ(c.ambient, cases[i].ambient_want);
        }
        s.capabilities.add_capabilities = wrong;
        s.capabilities.add_capabilities_count = 1;
        CHECK(capabilities_from_config(&s, ALL_CAPABILITIES, &c, &error) < 0);
        CHECK_EQ(error.code, GRPC_INVALID_ARGUMENT);
        error_clear(&error);
        s.privileged = true;
        CHECK_EQ(capabilities_from_config(&s, 0xff, &c, &error), 0);
        CHECK_EQ(c.bounding, 0xff);
}

static json_t *get(json_t *j, const char *a, const char *b) {
        return json_object_get(json_object_get(j, a), b);
}

static void test_process(void) {
        _cleanup_json_ json_t *j = NULL;
        Fixture f;

        fixture(&f);
        f.config.linux.has_resources = true;
        f.config.linux.resources.oom_score_adj = -500;
        f.in.oom_score_adj_min = 0;
        j = make(&f);
        CHECK_WORDS(get(j, "process", "args"), "sh");
        CHECK_EQ(json_integer_value(json_object_get(get(j, "process", "user"), "uid")), 5);
        CHECK_EQ(json_integer_value(get(j, "process", "oomScoreAdj")), 0);
        CHECK(json_is_false(get(j, "process", "noNewPrivileges")));
        CHECK_EQ(json_array_size(json_object_get(get(j, "process", "capabilities"), "inheritable")), 0);
        CHECK_EQ(json_array_size(json_object_get(get(j, "process", "capabilities"), "effective")), 14);
        CHECK_STREQ(json_get_string(json_object_get(j, "root"), "path"), "/run/rootfs");
        f.config.linux.resources.oom_score_adj = 1001;
        refused(&f, GRPC_INVALID_ARGUMENT, "1001");
}

static void test_namespaces(void) {
        _cleanup_json_ json_t *j = NULL, *k = NULL;
        Fixture f;

        fixture(&f);
        j = make(&f);
        CHECK_EQ(json_array_size(get(j, "linux", "namespaces")), 6);
        f.in.net = f.in.ipc = f.in.uts = NULL;
        f.in.pid_private = false;
        f.config.linux.security_context.privileged = true;
        k = make(&f);
        CHECK_EQ(json_array_size(get(k, "linux", "namespaces")), 1); /* mount */
        f.pod_config.linux.security_context.privileged = false;
        refused(&f, GRPC_INVALID_ARGUMENT, "privileged");
        fixture(&f);
        f.config.linux.security_context.has_namespace_options = true;
        f.config.linux.security_context.namespace_options.pid = 77;
        refused(&f, GRPC_INVALID_ARGUMENT, "77");
        f.config.linux.security_context.namespace_options.pid = 0;
        f.config.linux.security_context.namespace_options.has_userns_options = true;
        refused(&f, GRPC_INVALID_ARGUMENT, "another user namespace");
}

/* "destination<source" of all mounts. */
static char *mount_words(json_t *j) {
        _cleanup_strv_free_ char **l = NULL;
        json_t *m;
        size_t i;

        json_array_foreach(json_object_get(j, "mounts"), i, m) CHECK_EQ(
                        strv_extendf(&l, "%s<%s", json_get_string(m, "destination"), json_get_string(m, "source")), 0);
        return strv_join(l, " ");
}

static void test_mounts(void) {
        runtime_v1_Mount m[] = {
                { .container_path = (char *) "/mnt/inner/", .host_path = (char *) "/h/1" },
                { .container_path = (char *) "/mnt", .host_path = (char *) "/h/2" },
                { .container_path = (char *) "//etc/hosts", .host_path = (char *) "/h/3" },
                { .container_path = (char *) "/sys/", .host_path = (char *) "/h/4" },
        };
        _cleanup_json_ json_t *j = NULL, *k = NULL;
        _cleanup_free_ char *got = NULL, *got2 = NULL;
        Fixture f;

        fixture(&f);
        j = make(&f);
        got = mount_words(j);
        CHECK_STREQ(got,
                    "/proc<proc /dev<tmpfs /dev/pts<devpts /dev/mqueue<mqueue /sys<sysfs /sys/fs/cgroup<cgroup "
                    "/dev/shm</p/shm /etc/hostname</p/hostname /etc/hosts</p/hosts /etc/resolv.conf</p/resolv.conf");
        f.config.mounts = m;
        f.config.mounts_count = ELEMENTSOF(m);
        k = make(&f);
        got2 = mount_words(k);
        CHECK_STREQ(got2, "/proc<proc /dev<tmpfs /dev/pts<devpts /dev/mqueue<mqueue /sys/fs/cgroup<cgroup "
                          "/dev/shm</p/shm /etc/hostname</p/hostname /etc/resolv.conf</p/resolv.conf "
                          "/mnt</h/2 /sys/</h/4 /mnt/inner/</h/1 //etc/hosts</h/3");
}

static void test_mount_options(void) {
        runtime_v1_Mount m = { .container_path = (char *) "/m", .host_path = (char *) "/" };
        const struct {
                bool readonly, recursive;
                runtime_v1_MountPropagation propagation;
                const char *options, *root;
        } cases[] = {
                        {false, false, 0, "rbind rprivate rw", "rprivate"},
                        {true, false, 0, "rbind rprivate ro", "rprivate"},
                        {true, true, 0, "rbind rprivate rro", "rprivate"},
                        {false, false, runtime_v1_MountPropagation_PROPAGATION_HOST_TO_CONTAINER, "rbind rslave rw",
                         "rslave"},
                        {false, false, runtime_v1_MountPropagation_PROPAGATION_BIDIRECTIONAL, "rbind rshared rw",
                         "rshared"},
        };
        Fixture f;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_json_ json_t *j = NULL;
                json_t *all;

                fixture(&f);
                m.readonly = cases[i].readonly;
                m.recursive_read_only = cases[i].recursive;
                m.propagation = cases[i].propagation;
                f.config.mounts = &m;
                f.config.mounts_count = 1;
                j = make(&f);
                all = json_object_get(j, "mounts");
                CHECK_WORDS(json_object_get(json_array_get(all, json_array_size(all) - 1), "options"),
                            cases[i].options);
                CHECK_STREQ(json_string_value(get(j, "linux", "rootfsPropagation")), cases[i].root);
        }
}

static void test_mounts_that_are_refused(void) {
        const struct {
                runtime_v1_Mount mount;
                GrpcCode code;
        } cases[] = {
                        {{.container_path = (char *)"/m", .host_path = (char *)""}, GRPC_INVALID_ARGUMENT},
                        {{.container_path = (char *)"/m", .host_path = (char *)"rel"}, GRPC_INVALID_ARGUMENT},
                        {{.container_path = (char *)"", .host_path = (char *)"/h"}, GRPC_INVALID_ARGUMENT},
                        {{.container_path = (char *)"/", .host_path = (char *)"/h"}, GRPC_INVALID_ARGUMENT},
                        {{.container_path = (char *)"/m", .host_path = (char *)"/h", .propagation = 9},
                         GRPC_INVALID_ARGUMENT},
                        {{.container_path = (char *)"/m", .host_path = (char *)"/h", .recursive_read_only = true},
                         GRPC_INVALID_ARGUMENT},
                        {{.container_path = (char *)"/m", .host_path = (char *)"/h", .has_image = true,
                          .image.image = (char *)"x"},
                         GRPC_INVALID_ARGUMENT},
                        {{.container_path = (char *)"/dev", .has_image = true, .image.image = (char *)"x"},
                         GRPC_INVALID_ARGUMENT},
                        {{.container_path = (char *)"//proc/x", .has_image = true, .image.image = (char *)"x"},
                         GRPC_INVALID_ARGUMENT},
                        {{.container_path = (char *)"/m", .host_path = (char *)"/h", .image_sub_path = (char *)"x"},
                         GRPC_INVALID_ARGUMENT},
        };
        Fixture f;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                fixture(&f);
                f.config.mounts = (runtime_v1_Mount *) &cases[i].mount;
                f.config.mounts_count = 1;
                refused(&f, cases[i].code, "");
        }
}

static void test_paths(void) {
        char *masked[] = { (char *) "/a", (char *) "/b" };
        _cleanup_json_ json_t *j = NULL, *k = NULL, *l = NULL;
        Fixture f;

        fixture(&f);
        j = make(&f);
        CHECK(json_array_size(get(j, "linux", "maskedPaths")) > 5);
        CHECK_WORDS(get(j, "linux", "readonlyPaths"), "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger");
        f.config.linux.security_context.masked_paths = masked;
        f.config.linux.security_context.masked_paths_count = 2;
        k = make(&f);
        CHECK_WORDS(get(k, "linux", "maskedPaths"), "/a /b");
        CHECK_EQ(json_array_size(get(k, "linux", "readonlyPaths")), 0);
        f.config.linux.security_context.privileged = true;
        l = make(&f);
        CHECK_EQ(json_array_size(get(l, "linux", "maskedPaths")), 0);
}

static void test_devices(void) {
        runtime_v1_Device d = { .container_path = (char *) "/dev/mine", .host_path = (char *) "/dev/null",
                                .permissions = (char *) "rw" };
        _cleanup_json_ json_t *j = NULL, *k = NULL;
        json_t *node;
        Fixture f;

        fixture(&f);
        f.config.devices = &d;
        f.config.devices_count = 1;
        j = make(&f);
        CHECK_EQ(json_array_size(get(j, "linux", "devices")), 1);
        node = json_array_get(get(j, "linux", "devices"), 0);
        CHECK_STREQ(json_get_string(node, "path"), "/dev/mine");
        CHECK_STREQ(json_get_string(node, "type"), "c");
        CHECK_EQ(json_integer_value(json_object_get(node, "major")), 1);
        CHECK_EQ(json_integer_value(json_object_get(node, "minor")), 3);
        d.permissions = (char *) "rwx";
        refused(&f, GRPC_INVALID_ARGUMENT, "rwx");
        d.permissions = (char *) "r";
        d.host_path = (char *) "/dev/no-such";
        refused(&f, GRPC_FAILED_PRECONDITION, "/dev/no-such");
        d.host_path = (char *) "/etc/passwd";
        refused(&f, GRPC_FAILED_PRECONDITION, "/etc/passwd");
        f.config.devices_count = 0;
        f.config.linux.security_context.privileged = true;
        k = make(&f);
        CHECK(json_array_size(get(k, "linux", "devices")) > 4);
}

static void test_annotations_and_labels_get_nowhere(void) {
        runtime_v1_ContainerConfig_AnnotationsEntry a = { (char *) "run.oci.handler", (char *) "wasm-evil" };
        runtime_v1_ContainerConfig_LabelsEntry label = { (char *) "org.systemd.property.X", (char *) "wasm-evil" };
        runtime_v1_PodSandboxConfig_AnnotationsEntry pod = { (char *) "org.criu.config", (char *) "wasm-evil" };
        _cleanup_json_ json_t *j = NULL;
        _cleanup_free_ char *text = NULL;
        Fixture f;

        fixture(&f);
        f.config.annotations = &a;
        f.config.annotations_count = 1;
        f.config.labels = &label;
        f.config.labels_count = 1;
        f.pod_config.annotations = &pod;
        f.pod_config.annotations_count = 1;
        j = make(&f);
        text = json_dumps(j, 0);
        CHECK(!strstr(text, "wasm-evil") && !strstr(text, "run.oci") && !strstr(text, "criu"));
        CHECK(!json_object_get(j, "annotations"));
}

static void test_seccomp(void) {
        _cleanup_json_ json_t *j = NULL, *k = NULL, *l = NULL;
        const char *one, *two, *three;
        Error error = ERROR_INIT;
        Fixture f;

        fixture(&f);
        j = make(&f);
        CHECK(!json_object_get(j, "annotations") && !get(j, "linux", "seccomp"));
        f.config.linux.security_context.has_seccomp = true;
        k = make(&f);
        CHECK(get(k, "annotations", "run.oci.seccomp_bpf_data"));
        f.config.linux.security_context.privileged = true;
        l = make(&f);
        CHECK(!json_object_get(l, "annotations"));
        f.config.linux.security_context.privileged = false;
        f.config.linux.security_context.seccomp.profile_type = 9;
        refused(&f, GRPC_INVALID_ARGUMENT, "9");
        f.config.linux.security_context.seccomp.profile_type = runtime_v1_SecurityProfile_ProfileType_Localhost;
        refused(&f, GRPC_INVALID_ARGUMENT, "absolute");
        f.config.linux.security_context.seccomp.localhost_ref = (char *) "/no/such.json";
        refused(&f, GRPC_FAILED_PRECONDITION, "/no/such.json");
        f.config.linux.security_context.seccomp.localhost_ref = (char *) "/etc/passwd";
        refused(&f, GRPC_INVALID_ARGUMENT, "/etc/passwd");

        CHECK_EQ(seccomp_default_filter(0xa80425fb, &one, &error), 0);
        CHECK_EQ(seccomp_default_filter(0xa80425fa, &two, &error), 0); /* CHOWN opens no call */
        CHECK_EQ(seccomp_default_filter(0xa80425fb | (UINT64_C(1) << 21), &three, &error), 0);
        CHECK(one == two);
        CHECK(!streq(one, three));
        CHECK(strlen(one) > 1000 && strlen(one) % 4 == 0);
}

/* How a profile answers a call without looking at its arguments: the action and the error, 0 for none. */
static const char *answer(const json_t *profile, const char *call, json_int_t *ret_errno, size_t *ret_rules) {
        const char *action = json_get_string(profile, "defaultAction");
        const json_t *rule, *name;
        size_t i, j;

        *ret_errno = json_integer_value(json_object_get(profile, "defaultErrnoRet"));
        *ret_rules = 0;
        json_array_foreach(json_get_array(profile, "syscalls"), i, rule)
                json_array_foreach(json_get_array(rule, "names"), j, name)
                        if (streq(json_string_value(name), call)) {
                                (*ret_rules)++;
                                action = json_get_string(rule, "action");
                                *ret_errno = json_integer_value(json_object_get(rule, "errnoRet"));
                        }
        return action;
}

static void test_seccomp_as_a_profile(void) {
        static const struct {
                const char *call, *action;
                int error;
                size_t rules;
        } cases[] = {
                { "read", "SCMP_ACT_ALLOW", 0, 1 },         { "mount", "SCMP_ACT_ERRNO", EPERM, 1 },
                { "keyctl", "SCMP_ACT_ERRNO", EPERM, 1 },   { "clone3", "SCMP_ACT_ERRNO", ENOSYS, 0 },
                { "clone", "SCMP_ACT_ALLOW", 0, 1 },        { "personality", "SCMP_ACT_ALLOW", 0, 5 },
                { "no_such_call", "SCMP_ACT_ERRNO", ENOSYS, 0 },
        };
        _cleanup_json_ json_t *profile = NULL, *more = NULL, *config = NULL;
        json_int_t error;
        size_t rules;
        Fixture f;

        CHECK_EQ(seccomp_default_profile(0xa80425fb, &profile), 0);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                CHECK_STREQ(answer(profile, cases[i].call, &error, &rules), cases[i].action);
                CHECK_EQ(error, cases[i].error);
                CHECK_EQ(rules, cases[i].rules);
        }
        CHECK_EQ(seccomp_default_profile(0xa80425fb | (UINT64_C(1) << 21), &more), 0);
        CHECK_STREQ(answer(more, "mount", &error, &rules), "SCMP_ACT_ALLOW");
        CHECK_STREQ(answer(more, "clone3", &error, &rules), "SCMP_ACT_ALLOW");

        fixture(&f);
        f.config.linux.security_context.has_seccomp = true;
        f.in.seccomp_profile = true;
        f.in.cgroup = "/a.slice/b.service/container";
        config = make(&f);
        CHECK(json_equal(get(config, "linux", "seccomp"), profile));
        CHECK(!json_object_get(config, "annotations"));
        CHECK_STREQ(json_string_value(get(config, "linux", "cgroupsPath")), "/a.slice/b.service/container");
}

TEST_MAIN(TEST_CASE(test_arguments), TEST_CASE(test_environment), TEST_CASE(test_environment_is_bounded_and_fast),
          TEST_CASE(test_variables_that_are_not_utf8_go_another_way), TEST_CASE(test_working_directory),
          TEST_CASE(test_stop_signals), TEST_CASE(test_capabilities), TEST_CASE(test_process),
          TEST_CASE(test_namespaces), TEST_CASE(test_mounts), TEST_CASE(test_mount_options),
          TEST_CASE(test_mounts_that_are_refused), TEST_CASE(test_paths), TEST_CASE(test_devices),
          TEST_CASE(test_annotations_and_labels_get_nowhere), TEST_CASE(test_seccomp),
          TEST_CASE(test_seccomp_as_a_profile))
