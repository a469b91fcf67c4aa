/* Run: one container of an image in a pod of its own, for trying a node. What the kubelet would send is made here. */

#include "bus/internal.h"

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/log.h"
#include "basic/message.h"

#define RUN_NAMESPACE "rktletctl"
#define REQUEST_MAX (1024U * 1024U)

typedef struct Run {
        const char *image, *name, *directory;
        char **command, **environment;
        int host_network, terminal, input, privileged, start;

        char *pod_name, *log_directory, uid[ID_LENGTH + 1];
        runtime_v1_KeyValue *envs;
        size_t n_envs;
} Run;

static void run_done(Run *x) {
        strv_free(x->command);
        strv_free(x->environment);
        for (size_t i = 0; i < x->n_envs; i++) {
                free(x->envs[i].key);
                free(x->envs[i].value);
        }
        free(x->envs);
        free(x->pod_name);
        free(x->log_directory);
}

static int run_option(sd_bus_message *m, const char *key, void *userdata, Error *error) {
        Run *x = userdata;

        if (streq(key, "Name"))
                return sd_bus_message_read(m, "s", &x->name);
        if (streq(key, "WorkingDirectory"))
                return sd_bus_message_read(m, "s", &x->directory);
        if (streq(key, "Environment")) {
                strv_free(TAKE_PTR(x->environment));
                return sd_bus_message_read_strv(m, &x->environment);
        }
        if (streq(key, "HostNetwork"))
                return sd_bus_message_read(m, "b", &x->host_network);
        if (streq(key, "Terminal"))
                return sd_bus_message_read(m, "b", &x->terminal);
        if (streq(key, "Input"))
                return sd_bus_message_read(m, "b", &x->input);
        if (streq(key, "Privileged"))
                return sd_bus_message_read(m, "b", &x->privileged);
        if (streq(key, "Start"))
                return sd_bus_message_read(m, "b", &x->start);
        return -EINVAL;
}

static int make_environment(Run *x, Error *error) {
        x->envs = calloc(strv_length(x->environment) + 1, sizeof *x->envs);
        if (!x->envs)
                return -ENOMEM;
        STRV_FOREACH(e, x->environment) {
                const char *equal = strchr(*e, '=');
                runtime_v1_KeyValue *kv = &x->envs[x->n_envs];

                if (!equal || equal == *e)
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "\"%s\" is no NAME=VALUE", *e);
                kv->key = strndup(*e, (size_t) (equal - *e));
                kv->value = strdup(equal + 1);
                x->n_envs++;
                if (!kv->key || !kv->value)
                        return -ENOMEM;
        }
        return 0;
}

static bool name_is_valid(const char *s) {
        size_t n = strlen(s);

        return n > 0 && n <= 63 && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == n && s[0] != '-' &&
               s[n - 1] != '-';
}

static int prepare(Run *x, const Manager *m, Error *error) {
        int r;

        r = random_id(x->uid);
        if (r < 0)
                return r;
        if (x->name && !name_is_valid(x->name))
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "\"%.80s\" is no name: use up to 63 of a-z, 0-9 and -", x->name);
        x->pod_name = x->name ? strdup(x->name) : strprintf("run-%.8s", x->uid);
        x->log_directory = x->pod_name ? strprintf("%s/logs/%s", m->config.run_directory, x->pod_name) : NULL;
        if (!x->log_directory)
                return -ENOMEM;
        return make_environment(x, error);
}

static runtime_v1_NamespaceOption namespaces(const Run *x) {
        return (runtime_v1_NamespaceOption) {
                .network = x->host_network ? runtime_v1_NamespaceMode_NODE : runtime_v1_NamespaceMode_POD,
                .pid = runtime_v1_NamespaceMode_CONTAINER,
        };
}

static void describe_pod(const Run *x, runtime_v1_PodSandboxConfig *ret) {
        *ret = (runtime_v1_PodSandboxConfig) {
                .has_metadata = true,
                .metadata.name = x->pod_name,
                .metadata.namespace = (char *) RUN_NAMESPACE,
                .metadata.uid = (char *) x->uid,
                .hostname = x->pod_name,
                .log_directory = x->log_directory,
                .has_linux = true,
                .linux.has_security_context = true,
                .linux.security_context.privileged = x->privileged,
                .linux.security_context.has_namespace_options = true,
                .linux.security_context.namespace_options = namespaces(x),
        };
}

static int run_pod(const Run *x, Manager *m, Pod **ret, Error *error) {
        runtime_v1_RunPodSandboxRequest request = { .has_config = true };
        _cleanup_free_ void *data = NULL;
        size_t size;
        int r;

        describe_pod(x, &request.config);
        r = message_encode(runtime_v1_RunPodSandboxRequest_fields, &request, NULL, REQUEST_MAX, &data, &size, error);
        return r < 0 ? r : pod_run(m, data, size, ret, error);
}

/* What the kubelet hides and protects. */
static const char *const masked_paths[] = { "/proc/asound",      "/proc/acpi",         "/proc/kcore",
                                            "/proc/keys",        "/proc/latency_stats", "/proc/timer_list",
                                            "/proc/timer_stats", "/proc/sched_debug",  "/proc/scsi",
                                            "/sys/firmware",     "/sys/devices/virtual/powercap" };
static const char *const readonly_paths[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                              "/proc/sysrq-trigger" };

static int create_container(const Run *x, Manager *m, const Pod *pod, const Image *image, Container **ret,
                            Error *error) {
        runtime_v1_CreateContainerRequest request = {
                .pod_sandbox_id = (char *) pod->id,
                .has_config = true,
                .config = {
                        .has_metadata = true,
                        .metadata.name = (char *) "main",
                        .has_image = true,
                        .image.image = image->id,
                        .image.user_specified_image = (char *) x->image,
                        .args = x->command,
                        .args_count = (pb_size_t) strv_length(x->command),
                        .working_dir = (char *) x->directory,
                        .envs = x->envs,
                        .envs_count = (pb_size_t) x->n_envs,
                        .log_path = (char *) "main.log",
                        .stdin = x->input,
                        .stdin_once = x->input,
                        .tty = x->terminal,
                        .has_linux = true,
                        .linux.has_security_context = true,
                        .linux.security_context.privileged = x->privileged,
                        .linux.security_context.has_namespace_options = true,
                        .linux.security_context.namespace_options = namespaces(x),
                        .linux.security_context.has_seccomp = !x->privileged,
                        .linux.security_context.seccomp.profile_type =
                                        runtime_v1_SecurityProfile_ProfileType_RuntimeDefault,
                },
                .has_sandbox_config = true,
        };
        _cleanup_free_ void *data = NULL;
        size_t size;
        int r;

        if (!x->privileged) {
                runtime_v1_LinuxContainerSecurityContext *s = &request.config.linux.security_context;

                s->masked_paths = (char **) masked_paths;
                s->masked_paths_count = ELEMENTSOF(masked_paths);
                s->readonly_paths = (char **) readonly_paths;
                s->readonly_paths_count = ELEMENTSOF(readonly_paths);
        }
        describe_pod(x, &request.sandbox_config);
        r = message_encode(runtime_v1_CreateContainerRequest_fields, &request, NULL, REQUEST_MAX, &data, &size, error);
        return r < 0 ? r : container_create(m, data, size, ret, error);
}

static int reply_paths(Task *t, const Pod *pod, const Container *c) {
        _cleanup_free_ char *pod_path = pod_object_path(pod), *path = container_object_path(c);
        int r;

        if (!pod_path || !path)
                return -ENOMEM;
        r = sd_bus_message_new_method_return(t->message, &t->reply);
        return r < 0 ? r : sd_bus_message_append(t->reply, "oo", pod_path, path);
}

/* The command takes the place of the image's; the entry point is left alone. */
int task_run_container(Task *t, Error *error) {
        _cleanup_(run_done) Run x = { .start = true };
        _cleanup_(image_unrefp) Image *image = NULL;
        Manager *m = t->bus->manager;
        Container *c;
        Pod *pod;
        int r;

        r = sd_bus_message_read(t->message, "s", &x.image);
        if (r >= 0)
                r = sd_bus_message_read_strv(t->message, &x.command);
        if (r >= 0)
                r = read_options(t->message, run_option, &x, error);
        if (r >= 0)
                r = prepare(&x, m, error);
        if (r < 0)
                return r;
        r = image_store_refresh(m->images, error);
        if (r < 0)
                return r;
        image = image_store_find(m->images, x.image);
        if (image)
                image_ref(image);
        else {
                r = image_store_pull(m->images, x.image, NULL, &image, error);
                if (r < 0)
                        return r;
        }
        r = run_pod(&x, m, &pod, error);
        if (r < 0)
                return r;
        _cleanup_(pod_unrefp) Pod *held = pod_ref(pod);
        r = create_container(&x, m, held, image, &c, error);
        if (r >= 0 && x.start)
                r = container_start(c, error);
        if (r >= 0)
                r = reply_paths(t, held, c);
        if (r < 0) {
                FIBER_SHIELDED_SCOPE;
                _cleanup_error_ Error ignored = ERROR_INIT;

                if (pod_remove(held, &ignored) < 0)
                        log_warning("Cannot remove pod %s again: %s, ignoring", held->id, strempty(ignored.message));
        }
        return r;
}

void run_forget_logs(Bus *b, const Pod *p) {
        const runtime_v1_PodSandboxConfig *c = &p->request.config;
        _cleanup_free_ char *parent = strprintf("%s/logs", b->manager->config.run_directory), *directory = NULL;

        if (!parent || !streq(strempty(c->metadata.namespace), RUN_NAMESPACE) ||
            !name_is_valid(strempty(c->metadata.name)))
                return;
        directory = strprintf("%s/%s", parent, c->metadata.name);
        if (!directory || !streq(directory, strempty(c->log_directory)))
                return;
        (void) remove_tree(AT_FDCWD, directory);
        (void) rmdir(parent);
}
