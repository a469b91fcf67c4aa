/* Which namespaces of its pod, or of another container, a container joins. */

#include "engine/native/namespaces.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>

#include "engine/native/oci-config.h"

#define TRIES 8

void pod_namespaces_done(PodNamespaces *n) {
        for (size_t i = 0; i < _POD_NAMESPACE_MAX; i++) {
                n->fds[i] = safe_close(n->fds[i]);
                free(n->paths[i]);
                n->paths[i] = NULL;
        }
}

static int open_namespace(pid_t pid, const char *name) {
        char path[64];
        int fd;

        (void) snprintf(path, sizeof path, "/proc/%d/ns/%s", (int) pid, name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

static int owner_of(int namespace_fd) {
        int fd = ioctl(namespace_fd, NS_GET_USERNS);

        return fd < 0 ? -errno : fd;
}

/* -ESRCH: the process ended meanwhile, and what was opened may be somebody else's. */
static int open_all(pid_t pid, const bool *wanted, int *fds) {
        static const char *const names[] = {
                [POD_NAMESPACE_MNT] = "mnt", [POD_NAMESPACE_NET] = "net", [POD_NAMESPACE_IPC] = "ipc",
                [POD_NAMESPACE_UTS] = "uts", [POD_NAMESPACE_PID] = "pid_for_children",
        };
        _cleanup_close_ int pidfd = pidfd_open(pid, 0);

        if (pidfd < 0)
                return -errno;
        for (size_t i = 0; i < _POD_NAMESPACE_MAX; i++) {
                if (!wanted[i])
                        continue;
                fds[i] = safe_close(fds[i]);
                /* The process itself is not in the user namespace, but has namespaces that belong to it. */
                fds[i] = i == POD_NAMESPACE_USER ? owner_of(fds[POD_NAMESPACE_UTS]) : open_namespace(pid, names[i]);
                /* One that has ended has none (ENOENT); reaped between the lookup and the opening it looks forbidden. */
                if (fds[i] < 0)
                        return fds[i] == -ENOENT || pidfd_send_signal(pidfd, 0, NULL, 0) < 0 ? -ESRCH : fds[i];
        }
        return pidfd_send_signal(pidfd, 0, NULL, 0) < 0 ? -errno : 0;
}

static NativeContainer *find_target(NativeEngine *e, const EngineContainer *c, const char *id) {
        NativeContainer *n, *next, *found = NULL;

        HASH_ITER(hh, e->containers, n, next)
                if (streq(n->pod_id, c->pod->id) && startswith(n->id, id)) {
                        if (found)
                                return NULL;
                        found = n;
                }
        return found;
}

static int open_target(NativeEngine *e, const EngineContainer *c, int *ret, Error *error) {
        const char *id = strempty(c->config->linux.security_context.namespace_options.target_id);
        NativeContainer *n = isempty(id) ? NULL : find_target(e, c, id);
        _cleanup_close_ int pidfd = -1, fd = -1;

        if (!n)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "container '%.64s', whose PID namespace is to be joined, is not in this pod", id);
        if (n->exiting || n->state.pid <= 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "container %s, whose PID namespace is to be joined, doesn't run", n->id);
        pidfd = pidfd_open(n->state.pid, 0);
        if (pidfd >= 0)
                fd = open_namespace(n->state.pid, "pid");
        if (pidfd < 0 || fd < 0 || pidfd_send_signal(pidfd, 0, NULL, 0) < 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "container %s, whose PID namespace is to be joined, has ended", n->id);
        *ret = TAKE_FD(fd);
        return 0;
}

static int make_paths(PodNamespaces *n) {
        for (size_t i = 0; i < _POD_NAMESPACE_MAX; i++)
                if (n->fds[i] >= 0) {
                        n->paths[i] = strprintf("/proc/%d/fd/%d", (int) getpid(), n->fds[i]);
                        if (!n->paths[i])
                                return -ENOMEM;
                }
        return 0;
}

int pod_namespaces_open(NativeEngine *e, const EngineContainer *c, PodNamespaces *ret, Error *error) {
        const runtime_v1_NamespaceMode pid_mode = oci_pid_mode(c);
        const bool wanted[] = {
                [POD_NAMESPACE_MNT] = true,
                [POD_NAMESPACE_NET] = pod_has_network(c->pod),
                [POD_NAMESPACE_IPC] = pod_has_ipc(c->pod),
                [POD_NAMESPACE_UTS] = pod_has_uts(c->pod),
                [POD_NAMESPACE_PID] = pid_mode == runtime_v1_NamespaceMode_POD,
                [POD_NAMESPACE_USER] = pod_has_userns(c->pod),
        };
        _cleanup_(pod_namespaces_done) PodNamespaces n = POD_NAMESPACES_INIT;
        NativePod *p = native_pod_find(e, c->pod->id);
        pid_t pid;
        int r;

        if (!p)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "pod %s is not running", c->pod->id);
        if (wanted[POD_NAMESPACE_PID] && !pod_has_pid(c->pod))
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "the container is to share the PID namespace of pod %s, which was made without one",
                                  c->pod->id);
        _cleanup_(native_pod_unrefp) _unused_ NativePod *held = native_pod_ref(p);
        for (int i = 0; i < TRIES; i++) {
                r = native_pod_wait_pid(p, &pid, error);
                if (r < 0)
                        return r;
                r = open_all(pid, wanted, n.fds);
                if (r != -ESRCH)
                        break;
                /* Killed a moment ago, and systemd has not said so yet. */
                r = fiber_sleep(5 * USEC_PER_MSEC << i);
                if (r < 0)
                        return error_set(error, r, "gave up waiting for the process of pod %s", c->pod->id);
                r = -ESRCH;
        }
        if (r < 0)
                return error_set(error, r, "cannot open the namespaces of pod %s", c->pod->id);
        if (pid_mode == runtime_v1_NamespaceMode_TARGET) {
                r = open_target(e, c, &n.fds[POD_NAMESPACE_PID], error);
                if (r < 0)
                        return r;
        }
        if (make_paths(&n) < 0)
                return error_oom(error);
        *ret = n;
        n = POD_NAMESPACES_INIT;
        return 0;
}
