#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>

#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "basic/log.h"
#include "basic/message-equal.h"
#include "basic/message.h"
#include "manager/internal.h"
#include "manager/slice.h"
#include "manager/state.h"

#define POD_NAME_PART_MAX 4096U /* bytes of each part of a pod's name; Kubernetes allows 253 */
#define HOSTNAME_MAX 64U        /* HOST_NAME_MAX of Linux, sethostname(2) */
#define SLICE_STOP_TIMEOUT_USEC (10 * USEC_PER_SEC)

const char *pod_phase_to_string(PodPhase p) {
        static const char *const names[_POD_PHASE_MAX] = {
                [POD_STARTING] = "starting",
                [POD_READY] = "ready",
                [POD_NOT_READY] = "not-ready",
        };
        return p >= 0 && p < _POD_PHASE_MAX ? names[p] : NULL;
}

Pod *pod_ref(Pod *p) {
        if (p)
                p->n_ref++;
        return p;
}

Pod *pod_unref(Pod *p) {
        if (!p || --p->n_ref > 0)
                return NULL;
        pb_release(runtime_v1_RunPodSandboxRequest_fields, &p->request);
        free(p->name_key);
        free(p->unit);
        free(p->slice);
        free(p->directory);
        free(p->run_directory);
        strv_free(p->ips);
        free(p->network_json);
        safe_close(p->netns_fd);
        free(p);
        return NULL;
}

int pod_new(Manager *m, const char *id, Pod **ret) {
        _cleanup_(pod_unrefp) Pod *p = calloc(1, sizeof(Pod));

        if (!p)
                return -ENOMEM;
        p->n_ref = 1;
        p->netns_fd = -1;
        p->manager = m;
        memcpy(p->id, id, ID_LENGTH);
        p->unit = strprintf("rktlet-pod-%s.service", id);
        p->directory = strprintf("%s/pods/%s", m->config.state_directory, id);
        p->run_directory = strprintf("%s/pods/%s", m->config.run_directory, id);
        if (!p->unit || !p->directory || !p->run_directory)
                return -ENOMEM;
        *ret = TAKE_PTR(p);
        return 0;
}

bool pod_uses_host_network(const Pod *p) {
        const runtime_v1_PodSandboxConfig *c = &p->request.config;

        return c->has_linux && c->linux.has_security_context && c->linux.security_context.has_namespace_options &&
               c->linux.security_context.namespace_options.network == runtime_v1_NamespaceMode_NODE;
}

/* An absolute path without "..": the kubelet's, or somebody's mistake. */
static bool log_directory_is_fine(const char *path) {
        if (path[0] != '/' || strlen(path) >= PATH_MAX)
                return false;
        for (const char *p = path; (p = strstr(p, "/..")); p++)
                if (p[3] == '/' || !p[3])
                        return false;
        return true;
}

static int pod_check_port(const runtime_v1_PortMapping *pm, Error *error) {
        struct in6_addr address;

        if (pm->host_port < 0 || pm->host_port > UINT16_MAX || pm->container_port < 0 || pm->container_port > UINT16_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "port mapping of container port %d to host port %d is outside 0 to 65535",
                                  pm->container_port, pm->host_port);
        if (!isempty(pm->host_ip) && inet_pton(AF_INET, pm->host_ip, &address) != 1 &&
            inet_pton(AF_INET6, pm->host_ip, &address) != 1)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "host_ip \"%s\" of the mapping of host port %d is no IP address", pm->host_ip,
                                  pm->host_port);
        return 0;
}

static int pod_check_config(Pod *p, Error *error) {
        const runtime_v1_PodSandboxConfig *c = &p->request.config;
        const struct {
                const char *field, *value;
        } names[] = {
                { "name", c->metadata.name },
                { "namespace", c->metadata.namespace },
                { "uid", c->metadata.uid },
        };
        int r;

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                if (isempty(names[i].value))
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "config.metadata.%s is empty: a pod sandbox is told apart by its name, namespace "
                                          "and uid", names[i].field);
                if (strlen(names[i].value) > POD_NAME_PART_MAX)
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "config.metadata.%s is longer than %u bytes",
                                          names[i].field, POD_NAME_PART_MAX);
        }
        if (strlen(strempty(c->hostname)) > HOSTNAME_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "config.hostname is longer than %u bytes, the most "
                                  "Linux takes", HOSTNAME_MAX);
        if (!isempty(c->log_directory) && !log_directory_is_fine(c->log_directory))
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "config.log_directory \"%.200s\" is no absolute path without \"..\"", c->log_directory);
        for (size_t i = 0; i < c->port_mappings_count; i++) {
                r = pod_check_port(&c->port_mappings[i], error);
                if (r < 0)
                        return r;
        }
        return 0;
}

int pod_decode(Pod *p, const void *request, size_t size, Error *error) {
        const runtime_v1_PodSandboxConfig *c = &p->request.config;
        int r;

        r = message_decode(runtime_v1_RunPodSandboxRequest_fields, request, size, &p->request, error);
        if (r < 0)
                return r;
        if (!p->request.has_config || !c->has_metadata)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "config.metadata is missing: a pod sandbox needs a "
                                  "name, a namespace and a uid");
        r = pod_check_config(p, error);
        if (r < 0)
                return r;

        /* Lengths keep ("a/b", "c") and ("a", "b/c") apart. */
        p->name_key = strprintf("%zu:%s/%zu:%s/%s/%u", strlen(strempty(c->metadata.namespace)),
                                strempty(c->metadata.namespace), strlen(c->metadata.name), c->metadata.name,
                                strempty(c->metadata.uid), c->metadata.attempt);
        if (!p->name_key)
                return error_oom(error);

        if (c->has_linux && !isempty(c->linux.cgroup_parent))
                return slice_from_cgroup_parent(c->linux.cgroup_parent, &p->slice, error);

        p->slice_is_ours = true;
        p->slice = strprintf("%.*s-%s.slice", (int) strcspn(p->manager->config.default_slice, "."),
                             p->manager->config.default_slice, p->id);
        return p->slice ? 0 : error_oom(error);
}

int pod_link(Pod *p, Error *error) {
        Manager *m = p->manager;
        Pod *other;

        HASH_FIND(hh_name, m->pods_by_name, p->name_key, strlen(p->name_key), other);
        if (other)
                return error_setf(error, GRPC_ALREADY_EXISTS,
                                  "pod sandbox %s/%s (uid %s, attempt %u) exists already, as %s: remove it, or ask for "
                                  "another attempt",
                                  strempty(p->request.config.metadata.namespace), p->request.config.metadata.name,
                                  strempty(p->request.config.metadata.uid), p->request.config.metadata.attempt,
                                  other->id);
        HASH_ADD(hh, m->pods, id, ID_LENGTH, p);
        HASH_ADD_KEYPTR(hh_name, m->pods_by_name, p->name_key, strlen(p->name_key), p);
        pod_ref(p);
        return 0;
}

void pod_unlink(Pod *p) {
        Manager *m = p->manager;

        if (p->removed)
                return;
        p->removed = true;
        HASH_DELETE(hh, m->pods, p);
        HASH_DELETE(hh_name, m->pods_by_name, p);
        fiber_queue_wake(&p->gone, 0);
        pod_unref(p);
}

EnginePod pod_engine_view(const Pod *p) {
        return (EnginePod) {
                .id = p->id,
                .unit = p->unit,
                .slice = p->slice,
                .directory = p->directory,
                .run_directory = p->run_directory,
                .config = &p->request.config,
                .runtime_handler = strempty(p->request.runtime_handler),
                .stopped = p->phase == POD_NOT_READY,
        };
}

/* What CNI gets to know of the pod. The port mappings' array is the caller's to free. */
static int pod_cni_view(const Pod *p, const char *netns, CniPod *ret, CniPortMapping **ret_ports) {
        const runtime_v1_PodSandboxConfig *c = &p->request.config;
        CniPortMapping *ports = NULL;
        size_t n = 0;

        if (c->port_mappings_count > 0) {
                ports = calloc(c->port_mappings_count, sizeof(CniPortMapping));
                if (!ports)
                        return -ENOMEM;
        }
        for (size_t i = 0; i < c->port_mappings_count; i++) {
                const runtime_v1_PortMapping *pm = &c->port_mappings[i];

                /* Without a host port there is nothing to map. */
                if (pm->host_port == 0)
                        continue;
                ports[n++] = (CniPortMapping) {
                        .protocol = pm->protocol == runtime_v1_Protocol_UDP    ? "udp"
                                    : pm->protocol == runtime_v1_Protocol_SCTP ? "sctp"
                                                                               : "tcp",
                        .container_port = (uint16_t) pm->container_port,
                        .host_port = (uint16_t) pm->host_port,
                        .host_ip = isempty(pm->host_ip) ? NULL : pm->host_ip,
                };
        }
        *ret = (CniPod) {
                .id = p->id,
                .name = c->metadata.name,
                .namespace_ = strempty(c->metadata.namespace),
                .uid = strempty(c->metadata.uid),
                .netns_path = netns,
                .cgroup_parent = c->has_linux ? c->linux.cgroup_parent : NULL,
                .added = p->network_added,
                .port_mappings = ports,
                .n_port_mappings = n,
        };
        *ret_ports = ports;
        return 0;
}

/* nanopb's lists are not NULL-terminated. */
static int strv_from_list(char *const *list, size_t n, char ***ret) {
        _cleanup_strv_free_ char **l = NULL;

        for (size_t i = 0; i < n; i++)
                if (strv_extend(&l, list[i]) < 0)
                        return -ENOMEM;
        *ret = TAKE_PTR(l);
        return 0;
}

static int pod_network_add(Pod *p, Error *error) {
        const runtime_v1_PodSandboxConfig *c = &p->request.config;
        _cleanup_strv_free_ char **servers = NULL, **searches = NULL, **options = NULL;
        _cleanup_(cni_result_done) CniResult result = {};
        _cleanup_free_ CniPortMapping *ports = NULL;
        _cleanup_free_ char *netns = NULL;
        Engine *engine = p->manager->engine;
        EnginePod view = pod_engine_view(p);
        CniPod cni;
        int r;

        if (engine->ops->pod_addresses) {
                pod_open_netns(p); /* for the figures */
                return engine->ops->pod_addresses(engine, &view, &p->ips, error);
        }
        r = engine->ops->pod_netns(engine, &view, &netns, error);
        if (r < 0)
                return r;
        if (!netns)
                return 0;
        p->netns_fd = open(netns, O_RDONLY | O_CLOEXEC);
        if (p->netns_fd < 0)
                return error_set(error, -errno, "cannot open the network namespace of pod %s", p->id);
        r = pod_cni_view(p, netns, &cni, &ports);
        if (r < 0 || (c->has_dns_config && (strv_from_list(c->dns_config.servers, c->dns_config.servers_count, &servers) < 0 ||
                      strv_from_list(c->dns_config.searches, c->dns_config.searches_count, &searches) < 0 ||
                      strv_from_list(c->dns_config.options, c->dns_config.options_count, &options) < 0)))
                return error_oom(error);
        cni.dns_servers = servers;
        cni.dns_searches = searches;
        cni.dns_options = options;

        KILL_POINT_OF("pod-run.network", p->id);
        r = cni_add(p->manager->cni, &cni, &result, error);
        if (r < 0)
                return error_prefix(error, r, "cannot set up the network of pod %s", p->id);
        p->network_added = true;
        p->ips = TAKE_PTR(result.ips);
        p->network_json = TAKE_PTR(result.json);
        return 0;
}

/* The namespace of a pod whose process is gone is still ours: plugins that look into it for what to take down on the
 * host (masquerading, port mappings) find it. After a reboot there is none, and DEL frees the address. */
void pod_open_netns(Pod *p) {
        _cleanup_free_ char *netns = NULL;
        EnginePod view = pod_engine_view(p);

        if (p->netns_fd >= 0 ||
            p->manager->engine->ops->pod_netns(p->manager->engine, &view, &netns, NULL) < 0 || !netns)
                return;
        p->netns_fd = open(netns, O_RDONLY | O_CLOEXEC);
}

int pod_network_remove(Pod *p, Error *error) {
        _cleanup_free_ CniPortMapping *ports = NULL;
        char netns[64];
        CniPod cni;
        int r;

        /* An ADD that failed may still owe its DEL: without a cached ADD this does nothing. */
        if (pod_uses_host_network(p))
                return 0;
        if (p->manager->engine->ops->pod_addresses) {
                p->netns_fd = safe_close(p->netns_fd);
                return 0;
        }
        pod_open_netns(p);
        (void) snprintf(netns, sizeof netns, "/proc/%d/fd/%d", getpid(), p->netns_fd);
        r = pod_cni_view(p, p->netns_fd >= 0 ? netns : NULL, &cni, &ports);
        if (r < 0)
                return error_oom(error);
        r = cni_del(p->manager->cni, &cni, error);
        if (r < 0)
                return error_prefix(error, r, "cannot take down the network of pod %s", p->id);
        p->network_added = false;
        p->netns_fd = safe_close(p->netns_fd);
        return 0;
}

static int pod_make_directories(Pod *p, Error *error) {
        const char *const paths[] = { p->directory, p->run_directory };
        int r;

        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                r = mkdir_parents(AT_FDCWD, paths[i], 0700);
                if (r < 0)
                        return error_set(error, r, "cannot make directory %s", paths[i]);
        }
        return 0;
}

/* Ends what the engine holds, the slice if it is ours, and the directories. */
static int pod_clear(Pod *p, Error *error) {
        EnginePod view = pod_engine_view(p);
        int r;

        r = p->manager->engine->ops->pod_remove(p->manager->engine, &view, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("pod-clear.engine", p->id);
        if (p->slice_is_ours) {
                r = unit_stop_wait(p->manager->systemd, p->slice, SLICE_STOP_TIMEOUT_USEC, error);
                if (r < 0)
                        return r;
                pod_forget_limits(p);
        }
        KILL_POINT_OF("pod-clear.slice", p->id);
        r = remove_tree(AT_FDCWD, p->run_directory);
        if (r < 0)
                return error_set(error, r, "cannot remove %s", p->run_directory);
        KILL_POINT_OF("pod-clear.run-directory", p->id);
        r = state_remove_directory(p->directory);
        if (r < 0)
                return error_set(error, r, "cannot remove %s", p->directory);
        return 0;
}

void pod_undo(Pod *p) {
        FIBER_SHIELDED_SCOPE;
        _cleanup_error_ Error network_error = ERROR_INIT, error = ERROR_INIT;
        EnginePod view = pod_engine_view(p);

        p->undoing = true;
        KILL_POINT_OF("pod-undo.begin", p->id);
        if (pod_network_remove(p, &network_error) < 0)
                log_warning("%s, ignoring", strempty(network_error.message));
        KILL_POINT_OF("pod-undo.network", p->id);
        if (p->manager->engine->ops->pod_stop(p->manager->engine, &view, &error) < 0 || pod_clear(p, &error) < 0)
                log_warning("Cannot undo pod %s: %s, ignoring", p->id, strempty(error.message));
        KILL_POINT_OF("pod-undo.done", p->id);
        pod_unlink(p);
}

/* The pod of this name, if it is what the same request made and its answer was lost. */
static Pod *pod_find_unanswered(const Pod *p) {
        Pod *other;

        HASH_FIND(hh_name, p->manager->pods_by_name, p->name_key, strlen(p->name_key), other);
        return other && other->phase == POD_READY && !other->answered && !other->stopping && !other->containers &&
                               message_equal(runtime_v1_RunPodSandboxRequest_fields, &p->request, &other->request)
                       ? other
                       : NULL;
}

/* Reserves the name. A pod of the same name whose caller has given up is awaited, so that a retry works. */
static int pod_reserve(Pod *p, Error *error) {
        int r;

        for (;;) {
                Pod *other;

                HASH_FIND(hh_name, p->manager->pods_by_name, p->name_key, strlen(p->name_key), other);
                if (!other || other->phase != POD_STARTING || !(other->undoing || fiber_is_cancelled(other->starter)))
                        return pod_link(p, error);
                _cleanup_(pod_unrefp) _unused_ Pod *held = pod_ref(other);
                r = fiber_queue_wait(&other->gone);
                if (r < 0)
                        return error_set(error, r, "gave up waiting for the end of pod sandbox %s", other->id);
        }
}

/* Only of a new pod: one that is there already is kept, whatever became of the configuration. */
static int pod_check_handler(const Pod *p, Error *error) {
        const char *handler = strempty(p->request.runtime_handler);
        Engine *e = p->manager->engine;

        if (e->ops->handler_check)
                return e->ops->handler_check(e, handler, error);
        if (isempty(handler))
                return 0;
        return error_setf(error, GRPC_INVALID_ARGUMENT,
                          "no runtime handler \"%.64s\": the %s engine has only the default", handler, e->ops->name);
}

static int pod_start(Pod *p, const void *request, size_t size, Error *error) {
        EnginePod view = pod_engine_view(p);
        int r;

        KILL_POINT_OF("pod-run.named", p->id);
        r = pod_make_directories(p, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("pod-run.directories", p->id);
        /* Before anything is begun, so that a start after a crash knows what to undo. */
        p->request_crc32 = request_checksum(request, size);
        r = pod_state_save(p, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("pod-run.state-saved", p->id);
        r = request_save(p->directory, request, size, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("pod-run.noted", p->id);
        r = p->manager->engine->ops->pod_start(p->manager->engine, &view, &p->engine_state, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("pod-run.started", p->id);
        if (!pod_uses_host_network(p)) {
                r = pod_network_add(p, error);
                if (r < 0)
                        return r;
        }
        r = fiber_check();
        if (r < 0)
                return error_set(error, r, "the start of pod %s was given up", p->id);
        p->phase = POD_READY;
        KILL_POINT_OF("pod-run.ready", p->id);
        return pod_state_save(p, error);
}

int pod_run(Manager *m, const void *request, size_t size, Pod **ret, Error *error) {
        _cleanup_(pod_unrefp) Pod *p = NULL;
        char id[ID_LENGTH + 1];
        int r;

        r = random_id(id);
        if (r < 0)
                return error_set(error, r, "cannot make an ID");
        r = pod_new(m, id, &p);
        if (r < 0)
                return error_oom(error);
        r = pod_decode(p, request, size, error);
        if (r < 0)
                return r;
        r = pod_check_handler(p, error);
        if (r < 0)
                return r;
        p->created_usec = now_usec(CLOCK_REALTIME);
        p->phase = POD_STARTING;
        *ret = pod_find_unanswered(p);
        if (*ret)
                return 0;
        r = pod_reserve(p, error);
        if (r < 0)
                return r;

        p->starter = fiber_current();
        r = pod_start(p, request, size, error);
        p->starter = NULL;
        if (r < 0) {
                p->phase = POD_STARTING;
                pod_undo(p);
                return r;
        }
        KILL_POINT_OF("pod-run.saved", p->id);
        manager_emit(m, MANAGER_POD_ADDED, p, NULL);
        *ret = p;
        return 0;
}

typedef struct ContainerStop {
        Container *container;
        uint64_t timeout_usec;
        Fiber *fiber;
        Error error;
        int result;
} ContainerStop;

static int container_stop_fiber(void *userdata) {
        ContainerStop *s = userdata;

        return container_stop(s->container, s->timeout_usec, &s->error);
}

/* All at the same time: their grace periods don't add up. */
static int pod_stop_containers(Pod *p, Error *error) {
        _cleanup_free_ ContainerStop *stops = NULL;
        size_t n = 0, i = 0;
        int r = 0;

        for (Container *c = p->containers; c; c = c->pod_next)
                n++;
        if (n == 0)
                return 0;
        stops = calloc(n, sizeof(ContainerStop));
        if (!stops)
                return error_oom(error);
        for (Container *c = p->containers; c && i < n; c = c->pod_next) {
                if (c->phase == CONTAINER_EXITED)
                        continue;
                stops[i++] = (ContainerStop) {
                        .container = container_ref(c),
                        .timeout_usec = p->manager->config.stop_timeout_usec,
                };
        }
        n = i;
        for (i = 0; i < n; i++)
                stops[i].result = fiber_spawn(p->manager->event, "pod-stop-container", container_stop_fiber, &stops[i],
                                              /* destroy= */ NULL, &stops[i].fiber);
        for (i = 0; i < n; i++) {
                if (stops[i].fiber) {
                        int j = fiber_join(stops[i].fiber, &stops[i].result);

                        /* Given up: so must be the others, and they use our memory. */
                        if (j < 0) {
                                FIBER_SHIELDED_SCOPE;

                                r = j;
                                for (size_t k = i; k < n; k++)
                                        if (stops[k].fiber)
                                                fiber_cancel(stops[k].fiber);
                                (void) fiber_join(stops[i].fiber, &stops[i].result);
                        }
                        stops[i].fiber = fiber_unref(stops[i].fiber);
                }
                if (stops[i].result < 0 && r >= 0)
                        r = stops[i].result;
                error_move(error, &stops[i].error);
                container_unref(stops[i].container);
        }
        return r < 0 ? error_set(error, r, "cannot stop the containers of pod %s", p->id) : 0;
}

static int pod_stop_locked(Pod *p, Error *error) {
        EnginePod view = pod_engine_view(p);
        bool was_ready = p->phase == POD_READY;
        int r;

        KILL_POINT_OF("pod-stop.begin", p->id);
        r = pod_stop_containers(p, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("pod-stop.containers", p->id);
        r = pod_network_remove(p, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("pod-stop.network", p->id);
        p->stopping = true;
        r = p->manager->engine->ops->pod_stop(p->manager->engine, &view, error);
        p->stopping = false;
        if (r < 0)
                return r;
        KILL_POINT_OF("pod-stop.stopped", p->id);
        p->phase = POD_NOT_READY;
        p->engine_state.running = false;
        p->engine_state.pid = 0;
        /* A full disk must not keep a pod from being stopped: at the next start its unit tells the same. */
        if (pod_state_save(p, NULL) < 0)
                log_warning("Cannot save the state of pod %s, ignoring", p->id);
        KILL_POINT_OF("pod-stop.saved", p->id);
        if (was_ready)
                manager_emit(p->manager, MANAGER_POD_CHANGED, p, NULL);
        return 0;
}

int pod_stop(Pod *p, Error *error) {
        _cleanup_(pod_unrefp) _unused_ Pod *held = pod_ref(p);
        int r;

        r = fiber_lock(&p->lock);
        if (r < 0)
                return error_set(error, r, "gave up waiting for another operation on pod %s", p->id);
        _cleanup_fiber_unlock_ FiberLock *lock = &p->lock;

        if (p->removed)
                return 0;
        return pod_stop_locked(p, error);
}

int pod_remove(Pod *p, Error *error) {
        _cleanup_(pod_unrefp) _unused_ Pod *held = pod_ref(p);
        int r;

        r = fiber_lock(&p->lock);
        if (r < 0)
                return error_set(error, r, "gave up waiting for another operation on pod %s", p->id);
        _cleanup_fiber_unlock_ FiberLock *lock = &p->lock;

        if (p->removed)
                return 0;
        r = pod_stop_locked(p, error);
        if (r < 0)
                return r;
        while (p->containers) {
                r = container_remove(p->containers, error);
                if (r < 0)
                        return r;
        }
        KILL_POINT_OF("pod-remove.containers", p->id);
        r = pod_clear(p, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("pod-remove.done", p->id);
        manager_emit(p->manager, MANAGER_POD_REMOVED, p, NULL);
        pod_unlink(p);
        return 0;
}

void pod_apply_state(Pod *p, const EnginePodState *state) {
        /* A process that was started again doesn't know what it said. */
        if (state->running && state->pid > 0 && state->pid != p->engine_state.pid)
                status_note_event(p->manager, MANAGER_POD_CHANGED, p);
        p->engine_state = *state;
        /* Known now, after a restart of ours; that of a pod that starts is opened by its start. */
        if (state->running && state->pid > 0 && p->network_added)
                pod_open_netns(p);
        /* While it starts or stops, the operation's own steps say what it is. */
        if (p->phase != POD_READY || p->stopping || state->running)
                return;
        p->phase = POD_NOT_READY;
        KILL_POINT_OF("pod-ended.seen", p->id);
        if (pod_state_save(p, NULL) < 0)
                log_warning("Cannot save the state of pod %s, ignoring", p->id);
        KILL_POINT_OF("pod-ended.saved", p->id);
        manager_emit(p->manager, MANAGER_POD_CHANGED, p, NULL);
}
