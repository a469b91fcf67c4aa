/* A command in a container without the OCI runtime: rktlet-exec does what `crun exec` does, without reading and
 * checking the whole configuration again, and with two processes instead of three. Only for containers of which every
 * setting that matters to it is known here; whatever is new or rare goes to the runtime. */

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/pidfd.h>

#include "basic/file-util.h"
#include "engine/native/capability.h"
#include "engine/native/exec-request.h"
#include "engine/native/exec.h"

#define FILTER_MAX (64U * 1024U) /* more instructions than the kernel takes */
#define CGROUP_FILE_MAX 16384U
#define SECCOMP_ANNOTATION "run.oci.seccomp_bpf_data"

static bool only_keys(const json_t *object, const char *const *keys, size_t n) {
        const char *key;
        json_t *value;

        json_object_foreach((json_t *) object, key, value) {
                size_t i;

                for (i = 0; i < n && !streq(key, keys[i]); i++)
                        ;
                if (i == n)
                        return false;
        }
        return true;
}
#define ONLY_KEYS(object, ...)                                                                                       \
        only_keys(object, (const char *const[]) { __VA_ARGS__ },                                                     \
                  ELEMENTSOF(((const char *const[]) { __VA_ARGS__ })))

static bool namespaces_are_plain(const json_t *namespaces) {
        static const char *const types[] = { "mount", "network", "ipc", "uts", "pid", "cgroup" };
        json_t *n;
        size_t i;

        json_array_foreach(namespaces, i, n) {
                const char *type = json_get_string(n, "type");
                size_t k;

                for (k = 0; k < ELEMENTSOF(types) && !streq_ptr(type, types[k]); k++)
                        ;
                if (k == ELEMENTSOF(types))
                        return false;
        }
        return true;
}

static bool is_plain(const json_t *config, const json_t *process) {
        json_t *l = json_get_object(config, "linux"), *annotations = json_object_get(config, "annotations");

        return l &&
               ONLY_KEYS(config, "ociVersion", "process", "root", "mounts", "linux", "annotations", "hostname") &&
               ONLY_KEYS(l, "namespaces", "devices", "maskedPaths", "readonlyPaths", "rootfsPropagation") &&
               ONLY_KEYS(process, "terminal", "user", "args", "env", "cwd", "capabilities", "noNewPrivileges",
                         "oomScoreAdj") &&
               ONLY_KEYS(json_object_get(process, "user"), "uid", "gid", "additionalGids") &&
               ONLY_KEYS(json_object_get(process, "capabilities"), "bounding", "effective", "inheritable",
                         "permitted", "ambient") &&
               (!annotations || ONLY_KEYS(annotations, SECCOMP_ANNOTATION)) &&
               !json_is_true(json_object_get(process, "terminal")) &&
               namespaces_are_plain(json_object_get(l, "namespaces"));
}

static int read_capabilities(const json_t *process, const char *set, uint64_t *ret) {
        json_t *name;
        size_t i;

        *ret = 0;
        json_array_foreach(json_object_get(json_object_get(process, "capabilities"), set), i, name) {
                int capability = capability_from_name(strempty(json_string_value(name)));

                if (capability < 0 || capability >= 64)
                        return -EINVAL;
                *ret |= UINT64_C(1) << capability;
        }
        return 0;
}

static int append_string(Buffer *b, const json_t *string) {
        const char *s = json_string_value(string);

        /* An OCI runtime would take what is before a NUL. */
        if (!s || strlen(s) != json_string_length(string))
                return -EINVAL;
        return buffer_append(b, s, strlen(s) + 1);
}

static int append_strings(Buffer *b, const json_t *array) {
        json_t *string;
        size_t i;
        int r;

        json_array_foreach(array, i, string) {
                r = append_string(b, string);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* The filter that the container was started with, as the runtime keeps it. 0: one is set but not found, or the other
 * way round: the runtime knows. */
static int read_filter(const NativeContainer *n, bool expected, char **ret, size_t *ret_size) {
        _cleanup_free_ char *path = strprintf("%s/seccomp.bpf", n->runtime_state);
        int r;

        if (!path)
                return -ENOMEM;
        r = read_file(AT_FDCWD, path, FILTER_MAX, ret, ret_size);
        if (r == -ENOENT) {
                *ret_size = 0;
                return !expected;
        }
        return r < 0 ? r : expected == (*ret_size > 0);
}

static int make_request(const json_t *process, const char *filter, size_t filter_size, Buffer *b) {
        const json_t *user = json_object_get(process, "user"), *groups = json_object_get(user, "additionalGids");
        const json_t *args = json_object_get(process, "args"), *env = json_object_get(process, "env");
        ExecRequest h = {
                .magic = EXEC_REQUEST_MAGIC,
                .no_new_privileges = json_is_true(json_object_get(process, "noNewPrivileges")),
                .uid = (uint32_t) json_integer_value(json_object_get(user, "uid")),
                .gid = (uint32_t) json_integer_value(json_object_get(user, "gid")),
                .n_groups = (uint32_t) json_array_size(groups),
                .n_args = (uint32_t) json_array_size(args),
                .n_env = (uint32_t) json_array_size(env),
                .filter_size = (uint32_t) filter_size,
        };
        json_t *group;
        size_t i;
        int r;

        r = read_capabilities(process, "bounding", &h.bounding);
        if (r >= 0)
                r = read_capabilities(process, "effective", &h.effective);
        if (r >= 0)
                r = read_capabilities(process, "permitted", &h.permitted);
        if (r >= 0)
                r = read_capabilities(process, "inheritable", &h.inheritable);
        if (r >= 0)
                r = read_capabilities(process, "ambient", &h.ambient);
        if (r >= 0)
                r = buffer_append(b, &h, sizeof h);
        json_array_foreach(groups, i, group) {
                uint32_t gid = (uint32_t) json_integer_value(group);

                if (r >= 0)
                        r = buffer_append(b, &gid, sizeof gid);
        }
        if (r >= 0)
                r = buffer_append(b, filter, filter_size);
        if (r >= 0)
                r = append_string(b, json_object_get(process, "cwd"));
        if (r >= 0)
                r = append_strings(b, args);
        if (r >= 0)
                r = append_strings(b, env);
        return r;
}

/* The container's first process, for sure: what has its number now is in the container's cgroup. */
static int open_process(const NativeContainer *n) {
        _cleanup_free_ char *text = NULL;
        _cleanup_close_ int fd = -1;
        const char *path, *rest = NULL;
        char file[64];

        if (n->state.pid <= 0 || !n->control_group)
                return -ESRCH;
        fd = pidfd_open(n->state.pid, 0);
        if (fd < 0)
                return -errno;
        (void) snprintf(file, sizeof file, "/proc/%d/cgroup", n->state.pid);
        if (read_file(AT_FDCWD, file, CGROUP_FILE_MAX, &text, NULL) < 0)
                return -ESRCH;
        path = startswith(text, "0::/") ? text : strstr(text, "\n0::/");
        if (path)
                rest = startswith(strchr(path, '/'), n->control_group);
        if (!rest || (*rest != '/' && *rest != '\n' && *rest))
                return -ESRCH;
        return TAKE_FD(fd);
}

int exec_direct(NativeEngine *e, const NativeContainer *n, const json_t *config, const json_t *process, int *ret_fd,
                int *ret_pidfd) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        _cleanup_close_ int fd = -1, pidfd = -1;
        _cleanup_free_ char *filter = NULL;
        size_t filter_size;
        int r;

        (void) runtime_program(&e->exec_program);
        /* crun protects its file in other ways where there can be no such mount; this one relies on it. */
        if (!n->runtime || n->runtime->type != NATIVE_RUNTIME_CRUN || e->exec_program.fd < 0 ||
            !is_plain(config, process))
                return 0;
        pidfd = open_process(n);
        if (pidfd < 0)
                return 0;
        r = read_filter(n, json_object_get(json_object_get(config, "annotations"), SECCOMP_ANNOTATION), &filter,
                        &filter_size);
        if (r > 0)
                r = make_request(process, filter, filter_size, &b) < 0 || b.size > EXEC_REQUEST_MAX ? 0 : 1;
        if (r <= 0)
                return 0;
        fd = memfd_create("rktlet-exec", MFD_CLOEXEC);
        if (fd < 0 || write_all(fd, b.data, b.size) < 0)
                return 0;
        *ret_fd = TAKE_FD(fd);
        *ret_pidfd = TAKE_FD(pidfd);
        return 1;
}
