/* Mounts of a container. The order is the OCI runtime's order of mounting: what every container has, the pod's files,
 * then the request's, outer ones before those below them. What the request mounts itself replaces ours. */

#include "engine/native/oci-mounts.h"

#include <limits.h>
#include <sys/stat.h>

#include "basic/json-util.h"
#include "basic/string-util.h"
#include "engine/native/volume.h"

typedef struct DefaultMount {
        const char *destination, *type, *source;
        const char *const options[8];
} DefaultMount;

static const DefaultMount defaults[] = {
                {"/proc", "proc", "proc", {"nosuid", "noexec", "nodev"}},
                {"/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}},
                {"/dev/pts",
                 "devpts",
                 "devpts",
                 {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
                {"/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}},
                {"/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "ro"}},
                {"/sys/fs/cgroup", "cgroup", "cgroup", {"nosuid", "noexec", "nodev", "relatime", "ro"}},
};

/* Compares as mount points: slashes at the end and doubled ones mean nothing. */
static bool path_equal(const char *a, const char *b) {
        for (;;) {
                size_t n;

                a += strspn(a, "/");
                b += strspn(b, "/");
                n = strcspn(a, "/");
                if (n != strcspn(b, "/") || strncmp(a, b, n) != 0)
                        return false;
                if (n == 0)
                        return true;
                a += n;
                b += n;
        }
}

static size_t path_depth(const char *s) {
        size_t n = 0;

        for (;;) {
                s += strspn(s, "/");
                if (!*s)
                        return n;
                n++;
                s += strcspn(s, "/");
        }
}

static bool is_asked_for(const runtime_v1_ContainerConfig *config, const char *destination) {
        for (size_t i = 0; i < config->mounts_count; i++)
                if (path_equal(strempty(config->mounts[i].container_path), destination))
                        return true;
        return false;
}

static int add_default(json_t *array, const DefaultMount *d, bool privileged, Error *error) {
        _cleanup_json_ json_t *options = json_array();

        for (size_t i = 0; options && i < ELEMENTSOF(d->options) && d->options[i]; i++) {
                const char *o = privileged && streq(d->options[i], "ro") ? "rw" : d->options[i];

                if (json_array_append_new(options, json_string(o)) < 0)
                        return error_oom(error);
        }
        if (!options ||
            json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:O}", "destination", d->destination, "type",
                                                   d->type, "source", d->source, "options", options)) < 0)
                return error_oom(error);
        return 0;
}

static int add_bind(json_t *array, const char *source, const char *destination, const char *const *options,
                    Error *error) {
        _cleanup_json_ json_t *o = json_array();

        for (size_t i = 0; o && options[i]; i++)
                if (json_array_append_new(o, json_string(options[i])) < 0)
                        return error_oom(error);
        if (!o || json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:O}", "destination", destination, "type",
                                                         "bind", "source", source, "options", o)) < 0)
                return error_oom(error);
        return 0;
}

static bool is_below(const char *path, const char *top) {
        const char *rest;

        path += strspn(path, "/");
        rest = startswith(path, top);
        return rest && (!*rest || *rest == '/');
}

static int check_image(const runtime_v1_Mount *m, Error *error) {
        const char *inside = strempty(m->container_path);

        if (!isempty(m->host_path))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "mount %s has both an image and a host_path", inside);
        if (!m->readonly)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "mount %s is an image, which can't be written to: set readonly",
                                  inside);
        if (m->propagation != runtime_v1_MountPropagation_PROPAGATION_PRIVATE)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "mount %s is an image: it has private propagation",
                                  inside);
        if (strlen(strempty(m->image_sub_path)) >= PATH_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "image_sub_path of mount %s is longer than %d bytes",
                                  inside, PATH_MAX - 1);
        /* Below these the runtime makes device nodes, and trusts what is there. */
        if (is_below(inside, "dev") || is_below(inside, "proc") || is_below(inside, "sys"))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "an image can't be mounted at %s", inside);
        return 0;
}

static int check_mount(const runtime_v1_Mount *m, Error *error) {
        const char *host = strempty(m->host_path), *inside = strempty(m->container_path);
        const bool image = m->has_image && !isempty(m->image.image);

        if (isempty(inside))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "a mount of %s has no container_path", host);
        if (image) {
                int r = check_image(m, error);

                if (r < 0)
                        return r;
        } else if (host[0] != '/')
                return error_setf(error, GRPC_INVALID_ARGUMENT, "host_path '%s' of mount %s is not absolute", host,
                                  inside);
        else if (!isempty(m->image_sub_path))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "mount %s has an image_sub_path, but no image", inside);
        if (strlen(host) >= PATH_MAX || strlen(inside) >= PATH_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "a path of mount %.64s is longer than %d bytes",
                                  inside, PATH_MAX - 1);
        if (path_depth(inside) == 0)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "nothing can be mounted over the root of a container");
        if (m->propagation != runtime_v1_MountPropagation_PROPAGATION_PRIVATE &&
            m->propagation != runtime_v1_MountPropagation_PROPAGATION_HOST_TO_CONTAINER &&
            m->propagation != runtime_v1_MountPropagation_PROPAGATION_BIDIRECTIONAL)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "propagation %d of mount %s is unknown",
                                  (int) m->propagation, inside);
        if (m->recursive_read_only && !m->readonly)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "mount %s is recursive_read_only, but not readonly",
                                  inside);
        if (m->recursive_read_only && m->propagation != runtime_v1_MountPropagation_PROPAGATION_PRIVATE)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "mount %s is recursive_read_only, which needs private propagation", inside);
        if (m->propagation == runtime_v1_MountPropagation_PROPAGATION_BIDIRECTIONAL && volume_is_ours(m))
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "mount %s maps IDs: what is mounted there can't propagate to the host", inside);
        return 0;
}

/* A file has nothing below it, and the OCI runtimes take "rro" for directories only. */
static bool is_directory(const char *path) {
        struct stat st;

        return stat(path, &st) >= 0 && S_ISDIR(st.st_mode);
}

static int add_asked_for(json_t *array, const EngineContainer *c, size_t index, Error *error) {
        static const char *const of_image[] = { "rbind", "rprivate", "ro", "nosuid", "nodev", NULL };
        const runtime_v1_Mount *m = &c->config->mounts[index];
        _cleanup_free_ char *ours = NULL;
        const char *options[4] = { "rbind" };
        size_t n = 1;

        if (volume_is_ours(m)) {
                ours = volume_path(c, index);
                if (!ours)
                        return error_oom(error);
        }
        if (m->has_image && !isempty(m->image.image))
                return add_bind(array, ours, m->container_path, of_image, error);

        options[n++] = m->propagation == runtime_v1_MountPropagation_PROPAGATION_BIDIRECTIONAL       ? "rshared"
                       : m->propagation == runtime_v1_MountPropagation_PROPAGATION_HOST_TO_CONTAINER ? "rslave"
                                                                                                     : "rprivate";
        options[n++] = m->recursive_read_only && !ours && is_directory(m->host_path) ? "rro" : m->readonly ? "ro" : "rw";
        options[n] = NULL;
        return add_bind(array, ours ?: m->host_path, m->container_path, options, error);
}

typedef struct Ordered {
        size_t depth, index;
} Ordered;

static int compare_depth(const void *a, const void *b) {
        const Ordered *x = a, *y = b;

        if (x->depth != y->depth)
                return x->depth < y->depth ? -1 : 1;
        return x->index < y->index ? -1 : 1;
}

static int add_all_asked_for(json_t *array, const EngineContainer *c, bool *ret_shared, Error *error) {
        const runtime_v1_ContainerConfig *config = c->config;
        _cleanup_free_ Ordered *order = NULL;
        bool shared = false;
        int r;

        if (config->mounts_count > OCI_MOUNTS_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "more than %u mounts", OCI_MOUNTS_MAX);
        order = calloc(config->mounts_count + 1, sizeof *order);
        if (!order)
                return error_oom(error);
        for (size_t i = 0; i < config->mounts_count; i++) {
                const runtime_v1_Mount *m = &config->mounts[i];

                r = check_mount(m, error);
                if (r < 0)
                        return r;
                order[i] = (Ordered) { path_depth(m->container_path), i };
                shared = shared || m->propagation == runtime_v1_MountPropagation_PROPAGATION_BIDIRECTIONAL;
        }
        qsort(order, config->mounts_count, sizeof *order, compare_depth);
        for (size_t i = 0; i < config->mounts_count; i++) {
                r = add_asked_for(array, c, order[i].index, error);
                if (r < 0)
                        return r;
        }
        *ret_shared = shared;
        return 0;
}

int oci_mounts(const EngineContainer *c, const OciPodFiles *files, bool privileged, json_t **ret, bool *ret_shared,
               Error *error) {
        const runtime_v1_ContainerConfig *config = c->config;
        /* In a user namespace nosuid and nodev of the host's /run can't be taken away, which a remount without them would
         * mean. */
        const char *const bind[] = { "rbind", "rprivate", "rw", "nosuid", "nodev", NULL };
        const char *const bind_sys[] = { "rbind", "rprivate", "ro", "nosuid", "noexec", "nodev", NULL };
        const char *const bind_shm[] = { "rbind", "rprivate", "rw", "nosuid", "noexec", "nodev", NULL };
        const bool readonly_root = config->has_linux && config->linux.has_security_context &&
                                   config->linux.security_context.readonly_rootfs;
        const char *const bind_ro[] = { "rbind", "rprivate", "ro", "nosuid", "nodev", NULL };
        const struct {
                const char *source, *destination;
                const char *const *options;
        } pod_files[] = {
                { files->shm, "/dev/shm", bind_shm },
                { files->hostname, "/etc/hostname", readonly_root ? bind_ro : bind },
                { files->hosts, "/etc/hosts", readonly_root ? bind_ro : bind },
                { files->resolv_conf, "/etc/resolv.conf", readonly_root ? bind_ro : bind },
        };
        _cleanup_json_ json_t *a = json_array();
        bool shared = false;
        int r;

        if (!a)
                return error_oom(error);
        for (size_t i = 0; i < ELEMENTSOF(defaults); i++)
                if (!is_asked_for(config, defaults[i].destination)) {
                        if (files->bind_sys && streq(defaults[i].destination, "/sys"))
                                r = add_bind(a, "/sys", "/sys", bind_sys, error);
                        else
                                r = add_default(a, &defaults[i], privileged, error);
                        if (r < 0)
                                return r;
                }
        for (size_t i = 0; i < ELEMENTSOF(pod_files); i++)
                if (pod_files[i].source && !is_asked_for(config, pod_files[i].destination)) {
                        r = add_bind(a, pod_files[i].source, pod_files[i].destination, pod_files[i].options, error);
                        if (r < 0)
                                return r;
                }
        r = add_all_asked_for(a, c, &shared, error);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(a);
        *ret_shared = shared;
        return 0;
}
