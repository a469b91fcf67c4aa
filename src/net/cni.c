#include "net/cni.h"

#include <fcntl.h>

#include "basic/fiber.h"
#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/kill-point.h"
#include "basic/log.h"
#include "basic/string-util.h"
#include "net/cni-cache.h"
#include "net/cni-config.h"
#include "net/cni-plugin.h"
#include "net/cni-result.h"
#include "net/cni-template.h"

#define TEMPLATE_SIZE_MAX (256U * 1024U)
#define TIMEOUT_USEC (60 * USEC_PER_SEC)
#define BURST_DEFAULT INT32_MAX /* bits: what the bandwidth plugin takes for "as much as it likes" */

struct Cni {
        char **conf_directories, **bin_directories;
        char *cache_directory;
        char *template; /* NULL: none */
        uint64_t timeout_usec;
        char ***retired; /* earlier bin_directories */
        size_t n_retired;

        CniNetwork network; /* no name: none */
        char *fingerprint;  /* of the folders when network was read */
};

int cni_new(sd_event *event, const CniConfig *config, Cni **ret) {
        _cleanup_(cni_freep) Cni *c = NULL;

        if (!config->cache_directory)
                return -EINVAL;
        c = calloc(1, sizeof(Cni));
        if (!c)
                return -ENOMEM;
        c->cache_directory = strdup(config->cache_directory);
        if (!c->cache_directory || cni_configure(c, config) < 0)
                return -ENOMEM;
        *ret = TAKE_PTR(c);
        return 0;
}

/* Plugins under way have the list they were started with. */
static int retire(Cni *c, char **l) {
        char ***retired;

        if (!l)
                return 0;
        retired = reallocarray(c->retired, c->n_retired + 1, sizeof *retired);
        if (!retired)
                return -ENOMEM;
        c->retired = retired;
        c->retired[c->n_retired++] = l;
        return 0;
}

int cni_configure(Cni *c, const CniConfig *config) {
        static char *const none[] = { NULL };
        _cleanup_strv_free_ char **conf = strv_copy(config->conf_directories ?: none),
                                 **bin = strv_copy(config->bin_directories ?: none);
        _cleanup_free_ char *template = isempty(config->template) ? NULL : strdup(config->template);

        if (!conf || !bin || (!isempty(config->template) && !template) || retire(c, c->bin_directories) < 0)
                return -ENOMEM;
        strv_free(c->conf_directories);
        c->conf_directories = TAKE_PTR(conf);
        c->bin_directories = TAKE_PTR(bin);
        free(c->template);
        c->template = TAKE_PTR(template);
        c->timeout_usec = config->timeout_usec > 0 ? config->timeout_usec : TIMEOUT_USEC;
        /* Read anew when it is next asked for. */
        c->fingerprint = mfree(c->fingerprint);
        return 0;
}

Cni *cni_free(Cni *c) {
        if (!c)
                return NULL;
        strv_free(c->conf_directories);
        strv_free(c->bin_directories);
        for (size_t i = 0; i < c->n_retired; i++)
                strv_free(c->retired[i]);
        free(c->retired);
        free(c->cache_directory);
        free(c->template);
        cni_network_done(&c->network);
        free(c->fingerprint);
        free(c);
        return NULL;
}

int cni_status(Cni *c, Error *error) {
        _cleanup_free_ char *fingerprint = NULL;
        int r;

        r = cni_config_fingerprint(c->conf_directories, &fingerprint);
        if (r < 0)
                return error_set(error, r, "cannot look at the CNI configuration");
        /* A plugin that was taken away is noticed as a changed file is. */
        if (c->network.name && streq_ptr(fingerprint, c->fingerprint) &&
            cni_network_check_plugins(&c->network, c->bin_directories, NULL) >= 0)
                return 0;

        cni_network_done(&c->network);
        free(c->fingerprint);
        c->fingerprint = TAKE_PTR(fingerprint);
        return cni_network_load(c->conf_directories, c->bin_directories, &c->network, error);
}

const char *cni_network_name(Cni *c) {
        return cni_status(c, NULL) >= 0 ? c->network.name : NULL;
}

/* Whether the network that pods get is one we made. */
static bool network_is_generated(const Cni *c) {
        const char *name = c->network.file ? strrchr(c->network.file, '/') : NULL;

        return name && streq(name + 1, CNI_GENERATED_NAME);
}

static int read_template(const Cni *c, json_t **ret, Error *error) {
        _cleanup_error_ Error cause = ERROR_INIT;
        _cleanup_free_ char *text = NULL;
        size_t size;
        int r;

        r = read_file(AT_FDCWD, c->template, TEMPLATE_SIZE_MAX, &text, &size);
        if (r < 0)
                return error_set(error, r, "cannot read the CNI template %s", c->template);
        r = json_parse(text, size, ret, &cause);
        if (r < 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "the CNI template %s: %s", c->template,
                                  cause.message);
        return 0;
}

int cni_set_pod_cidrs(Cni *c, const char *cidrs, Error *error) {
        _cleanup_(cni_network_done) CniNetwork network = {};
        _cleanup_json_ json_t *template = NULL, *conf = NULL;
        _cleanup_free_ char *text = NULL, *before = NULL;
        _cleanup_strv_free_ char **l = NULL;
        _cleanup_close_ int dir_fd = -1;
        int r;

        r = cni_parse_cidrs(cidrs, &l, error);
        if (r < 0)
                return r;
        if (!c->template || !c->conf_directories[0])
                return 0;
        if (cni_status(c, NULL) >= 0 && !network_is_generated(c)) {
                log_debug("Pods have network %s of %s: no configuration is made of %s", c->network.name,
                          c->network.file, c->template);
                return 0;
        }
        r = read_template(c, &template, error);
        if (r < 0)
                return r;
        r = cni_template_fill(template, l, &conf, error);
        if (r < 0)
                return r;
        /* What would be no network stays unwritten. */
        r = cni_network_parse(conf, c->template, &network, error);
        if (r < 0)
                return r;
        text = json_dumps(conf, JSON_INDENT(2));
        if (!text)
                return error_oom(error);
        r = mkdir_parents(AT_FDCWD, c->conf_directories[0], 0755);
        if (r < 0)
                return error_set(error, r, "cannot make %s", c->conf_directories[0]);
        dir_fd = open_directory(AT_FDCWD, c->conf_directories[0]);
        if (dir_fd < 0)
                return error_set(error, dir_fd, "cannot open %s", c->conf_directories[0]);
        /* The kubelet says it again and again. */
        if (read_file(dir_fd, CNI_GENERATED_NAME, TEMPLATE_SIZE_MAX, &before, NULL) >= 0 && streq(before, text))
                return 0;
        r = write_file_atomic(dir_fd, CNI_GENERATED_NAME, text, strlen(text), 0644, WRITE_SYNC);
        if (r < 0)
                return error_set(error, r, "cannot write %s/" CNI_GENERATED_NAME, c->conf_directories[0]);
        log_info("Pod CIDR %s: %s/" CNI_GENERATED_NAME " was made of %s", cidrs, c->conf_directories[0], c->template);
        return 0;
}

static int set_string(json_t *o, const char *key, const char *value) {
        return isempty(value) ? 0 : json_object_set_new(o, key, json_string(value));
}

/* The plugin refuses a rate without a burst. */
static int set_rate(json_t *o, const char *rate_key, const char *burst_key, uint64_t rate, uint64_t burst) {
        if (rate == 0)
                return 0;
        if (json_object_set_new(o, rate_key, json_integer((json_int_t) MIN(rate, (uint64_t) INT64_MAX))) < 0)
                return -ENOMEM;
        if (burst == 0 || burst > BURST_DEFAULT)
                burst = BURST_DEFAULT;
        return json_object_set_new(o, burst_key, json_integer((json_int_t) burst));
}

/* Capability arguments by their well-known names (CNI conventions, "dynamic plugin specific fields"). */
static json_t *capability_args(const CniPod *pod) {
        _cleanup_json_ json_t *args = json_object(), *ports = json_array(), *dns = NULL;

        if (!args || !ports)
                return NULL;
        for (size_t i = 0; i < pod->n_port_mappings; i++) {
                const CniPortMapping *pm = &pod->port_mappings[i];
                json_t *o;

                /* Without a host's port there is nothing to map, and portmap refuses 0. */
                if (pm->host_port == 0)
                        continue;
                o = json_pack("{s:i, s:i, s:s}", "hostPort", pm->host_port, "containerPort", pm->container_port,
                              "protocol", pm->protocol);
                if (json_array_append_new(ports, o) < 0 || set_string(o, "hostIP", pm->host_ip) < 0)
                        return NULL;
        }
        if (json_array_size(ports) > 0 && json_object_set(args, "portMappings", ports) < 0)
                return NULL;
        if (strv_length(pod->dns_servers) > 0 || strv_length(pod->dns_searches) > 0 ||
            strv_length(pod->dns_options) > 0) {
                dns = json_object();
                if (!dns || json_object_set_new(dns, "servers", json_from_strv(pod->dns_servers)) < 0 ||
                    json_object_set_new(dns, "searches", json_from_strv(pod->dns_searches)) < 0 ||
                    json_object_set_new(dns, "options", json_from_strv(pod->dns_options)) < 0 ||
                    json_object_set(args, "dns", dns) < 0)
                        return NULL;
        }
        if (pod->ingress_rate > 0 || pod->egress_rate > 0) {
                json_t *o = json_object();

                if (json_object_set_new(args, "bandwidth", o) < 0 ||
                    set_rate(o, "ingressRate", "ingressBurst", pod->ingress_rate, pod->ingress_burst) < 0 ||
                    set_rate(o, "egressRate", "egressBurst", pod->egress_rate, pod->egress_burst) < 0)
                        return NULL;
        }
        if (set_string(args, "cgroupPath", pod->cgroup_parent) < 0)
                return NULL;
        return TAKE_PTR(args);
}

/* CNI_ARGS is a list of K=V separated by ";": a value with one of these would be another argument. */
static bool arg_is_safe(const char *s) {
        return !strpbrk(strempty(s), ";=\n");
}

static char *pod_args(const CniPod *pod) {
        return strprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;"
                         "K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s",
                         strempty(pod->namespace_), strempty(pod->name), pod->id, strempty(pod->uid));
}

static CniRuntime runtime_new(const Cni *c, const char *pod_id, const CniCache *cache, const char *netns) {
        return (CniRuntime) {
                .container_id = pod_id,
                .netns = netns,
                .args = cache->args,
                .network_name = cache->network.name,
                .version = cache->network.version,
                .bin_directories = c->bin_directories,
                .capability_args = cache->capability_args,
                .timeout_usec = c->timeout_usec,
        };
}

/* portmap without a port to map passes on what it was given, and has nothing to take back. Most pods have none, and to
 * start it only for that takes several milliseconds of a processor. What it may be told in other ways is its own. */
static bool plugin_is_idle(const CniCache *cache, const json_t *plugin) {
        return streq_ptr(json_get_string(plugin, "type"), "portmap") &&
               json_is_true(json_object_get(json_get_object(plugin, "capabilities"), "portMappings")) &&
               !json_object_get(plugin, "runtimeConfig") && !json_object_get(plugin, "runtime") &&
               json_array_size(json_object_get(cache->capability_args, "portMappings")) == 0;
}

/* In reverse order, all of them even if one fails: what the others hold must be freed. The cache goes when all are
 * done, and stays otherwise, for another try. */
static int run_del(Cni *c, const char *pod_id, const char *netns, const CniCache *cache, Error *error) {
        CniRuntime runtime = runtime_new(c, pod_id, cache, netns);
        /* Plugins of earlier versions don't know it at DEL. */
        const json_t *prev_result = strcmp(cache->network.version, "0.4.0") >= 0 ? cache->result : NULL;
        int r = 0;

        for (size_t i = json_array_size(cache->network.plugins); i > 0; i--) {
                json_t *plugin = json_array_get(cache->network.plugins, i - 1);
                int k;

                if (plugin_is_idle(cache, plugin))
                        continue;
                k = cni_plugin_run(&runtime, "DEL", plugin, prev_result, NULL, error);
                KILL_POINT_OF("cni-del.plugin-done", pod_id);
                if (k < 0 && r >= 0)
                        r = k;
        }
        KILL_POINT_OF("cni-del.plugins-done", pod_id);
        r = r < 0 ? r : cni_cache_remove(c->cache_directory, pod_id, error);
        KILL_POINT_OF("cni-del.forgotten", pod_id);
        return r;
}

static int run_add(Cni *c, const CniPod *pod, CniCache *cache, Error *error) {
        CniRuntime runtime = runtime_new(c, pod->id, cache, pod->netns_path);
        json_t *plugin;
        size_t i;
        int r;

        json_array_foreach(cache->network.plugins, i, plugin) {
                json_t *result = NULL;

                if (cache->result && plugin_is_idle(cache, plugin))
                        continue;
                r = cni_plugin_run(&runtime, "ADD", plugin, cache->result, &result, error);
                if (r < 0)
                        return r;
                KILL_POINT_OF("cni-add.plugin-done", pod->id);
                if (result) {
                        json_decref(cache->result);
                        cache->result = result;
                }
        }
        KILL_POINT_OF("cni-add.plugins-done", pod->id);
        if (!cache->result)
                return error_setf(error, GRPC_INTERNAL, "the plugins of CNI network \"%s\" printed no result",
                                  cache->network.name);
        return cni_cache_write(c->cache_directory, pod->id, cache, error);
}

static int network_copy(const CniNetwork *from, CniNetwork *ret) {
        *ret = (CniNetwork) {
                .name = strdup(from->name),
                .version = strdup(from->version),
                .file = strdup(from->file),
                .plugins = json_incref(from->plugins),
        };
        return ret->name && ret->version && ret->file ? 0 : -ENOMEM;
}

/* All that the plugins are given for this pod on the folder's network. */
static int cni_cache_new(Cni *c, const CniPod *pod, CniCache *ret, Error *error) {
        _cleanup_(cni_cache_done) CniCache cache = {};
        int r;

        r = cni_status(c, error);
        if (r < 0)
                return r;
        if (!arg_is_safe(pod->namespace_) || !arg_is_safe(pod->name) || !arg_is_safe(pod->uid))
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "the pod's name, namespace or uid has a \";\", \"=\" or newline, which CNI cannot "
                                  "carry");
        cache.capability_args = capability_args(pod);
        cache.args = pod_args(pod);
        cache.netns = strdup(strempty(pod->netns_path));
        if (!cache.capability_args || !cache.args || !cache.netns || network_copy(&c->network, &cache.network) < 0)
                return error_oom(error);
        *ret = cache;
        cache = (CniCache) {};
        return 0;
}

int cni_add(Cni *c, const CniPod *pod, CniResult *ret, Error *error) {
        _cleanup_(cni_cache_done) CniCache cache = {};
        int r;

        r = cni_cache_new(c, pod, &cache, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("cni-add.begin", pod->id);
        r = cni_cache_write(c->cache_directory, pod->id, &cache, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("cni-add.noted", pod->id);
        r = run_add(c, pod, &cache, error);
        KILL_POINT_OF("cni-add.saved", pod->id);
        if (r >= 0)
                r = cni_result_from_json(cache.result, ret, error);
        if (r < 0) {
                FIBER_SHIELDED_SCOPE;
                _cleanup_error_ Error undo_error = ERROR_INIT;

                (void) error_set(error, r, "cannot add pod %s to CNI network \"%s\"", pod->id, cache.network.name);
                /* What cannot be undone now stays in the cache, so that cni_del() or cni_collect() can. */
                if (run_del(c, pod->id, pod->netns_path, &cache, &undo_error) < 0)
                        log_debug("Cannot undo the network of pod %s: %s", pod->id, strempty(undo_error.message));
        }
        return r;
}

int cni_del(Cni *c, const CniPod *pod, Error *error) {
        _cleanup_(cni_cache_done) CniCache cache = {};
        _cleanup_error_ Error read_error = ERROR_INIT;
        int r;

        KILL_POINT_OF("cni-del.begin", pod->id);
        r = cni_cache_read(c->cache_directory, pod->id, &cache, &read_error);
        if (r == -ENOENT && !pod->added)
                return 0;
        if (r == -EBADMSG || r == -ENOENT) {
                /* The machine lost power while it was written, say. The folder's network is most likely the one it was
                 * added to; without one nobody will ever know better. */
                r = cni_cache_new(c, pod, &cache, NULL);
                if (r < 0)
                        return cni_cache_remove(c->cache_directory, pod->id, error);
        }
        if (r < 0) {
                error_move(error, &read_error);
                return r;
        }
        return run_del(c, pod->id, pod->netns_path, &cache, error);
}

int cni_cached_result(Cni *c, const char *pod_id, CniResult *ret) {
        _cleanup_(cni_cache_done) CniCache cache = {};
        int r;

        r = cni_cache_read(c->cache_directory, pod_id, &cache, NULL);
        if (r < 0)
                return r;
        if (!cache.result) {
                /* ADD was cut off, or the result lost. */
                *ret = (CniResult) { .ips = TAKE_PTR(cache.ips) };
                return 0;
        }
        return cni_result_from_json(cache.result, ret, NULL);
}

int cni_make_cache_again(Cni *c, const CniPod *pod, char *const *ips, Error *error) {
        _cleanup_(cni_cache_done) CniCache cache = {};
        int r;

        r = cni_cache_new(c, pod, &cache, error);
        if (r < 0)
                return r;
        cache.ips = strv_copy(ips);
        if (ips && !cache.ips)
                return error_oom(error);
        r = cni_cache_remove(c->cache_directory, pod->id, error);
        return r < 0 ? r : cni_cache_write(c->cache_directory, pod->id, &cache, error);
}

typedef struct Collect {
        Cni *cni;
        bool (*keep)(const char *pod_id, void *userdata);
        void *userdata;
        char **ids;
} Collect;

static int collect_entry(int dir_fd, const char *name, void *userdata) {
        const char *suffix = endswith(name, ".json");
        _cleanup_free_ char *id = NULL;
        Collect *l = userdata;

        if (name[0] == '.') {
                /* Of a write that was cut off: none is under way while anybody else runs. */
                (void) unlinkat(dir_fd, name, 0);
                return 0;
        }
        if (!suffix)
                return 0;
        id = strndup(name, (size_t) (suffix - name));
        if (!id)
                return -ENOMEM;
        return l->keep(id, l->userdata) ? 0 : strv_extend(&l->ids, id);
}

int cni_collect(Cni *c, bool (*keep)(const char *pod_id, void *userdata), void *userdata, Error *error) {
        Collect l = { .cni = c, .keep = keep, .userdata = userdata };
        _cleanup_strv_free_ char **ids = NULL;
        int r;

        r = directory_foreach(AT_FDCWD, c->cache_directory, collect_entry, &l);
        ids = l.ids;
        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return error_set(error, r, "cannot read %s", c->cache_directory);
        STRV_FOREACH(id, ids) {
                CniPod pod = { .id = *id };
                int k = cni_del(c, &pod, error);

                if (k < 0)
                        r = k;
        }
        return r;
}
