#include "cri/info.h"

#include "basic/json-util.h"
#include "basic/log.h"
#include "cri/json.h"

/* Puts what is there into the object, under its name. */
static int add(json_t *o, const char *key, json_t *value) {
        return value ? json_object_set_new(o, key, value) : 0;
}

/* --- the daemon -------------------------------------------------------------------------------------------------- */

/* Settings as --dump-config prints them: an object for each section. */
static json_t *settings_to_json(const char *text) {
        json_t *o = json_object(), *section = NULL;

        for (const char *line = strempty(text), *end; o && *line; line = end + (*end == '\n')) {
                const char *equals;

                end = line + strcspn(line, "\n");
                equals = memchr(line, '=', (size_t) (end - line));
                if (*line == '[' && end[-1] == ']') {
                        _cleanup_free_ char *name = strndup(line + 1, (size_t) (end - line) - 2);

                        section = json_object();
                        if (!name || json_object_set_new(o, name, section) < 0)
                                break;
                } else if (equals && section) {
                        _cleanup_free_ char *key = strndup(line, (size_t) (equals - line));

                        if (!key || add(section, key, json_stringn(equals + 1, (size_t) (end - equals) - 1)) < 0)
                                break;
                }
        }
        return o;
}

int status_info(CriCall *c, runtime_v1_StatusResponse_InfoEntry *ret, Error *error) {
        const Manager *m = c->manager;
        _cleanup_error_ Error network_error = ERROR_INIT;
        const char *network_status = "OK";
        _cleanup_json_ json_t *o = NULL;

        if (manager_network_status(c->manager, &network_error) < 0)
                network_status = strempty(network_error.message);
        o = json_pack("{s:s, s:s, s:s?, s:s?, s:s?, s:s, s:s?, s:s?, s:I, s:I}",
                      "runtimeVersion", PROJECT_VERSION,
                      "cgroupDriver", "systemd",
                      "engine", m->engine ? m->engine->ops->name : NULL,
                      "systemdVersion", systemd_version(m->systemd),
                      "network", cni_network_name(m->cni),
                      "lastCNILoadStatus", network_status,
                      "stateDirectory", m->config.state_directory,
                      "runDirectory", m->config.run_directory,
                      "pods", (json_int_t) HASH_COUNT(m->pods),
                      "containers", (json_int_t) HASH_CNT(hh, m->containers));
        if (!o || (c->cri->settings && add(o, "settings", settings_to_json(c->cri->settings)) < 0))
                return error_oom(error);
        ret->key = (char *) "config";
        return json_to_arena(o, &c->arena, &ret->value, error);
}

/* --- pods -------------------------------------------------------------------------------------------------------- */

static int add_namespace(json_t *array, const char *type, const char *name, pid_t pid) {
        char path[64];

        (void) snprintf(path, sizeof path, "/proc/%d/ns/%s", (int) pid, name);
        return json_array_append_new(array, json_pack("{s:s, s:s}", "type", type, "path", path));
}

/* There is no OCI container for the pod itself. What people look for in one, its namespaces and its cgroup, is here in the
 * same places. */
static json_t *pod_spec(Pod *p) {
        const runtime_v1_PodSandboxConfig *config = &p->request.config;
        static const runtime_v1_NamespaceOption defaults;
        const runtime_v1_NamespaceOption *n =
                        config->has_linux && config->linux.has_security_context &&
                                        config->linux.security_context.has_namespace_options
                                ? &config->linux.security_context.namespace_options
                                : &defaults;
        _cleanup_free_ char *cgroup = pod_cgroup(p);
        _cleanup_json_ json_t *namespaces = json_array(), *o = NULL;
        const pid_t pid = p->engine_state.pid;

        if (pid <= 0)
                return json_null();
        if (!namespaces || add_namespace(namespaces, "mount", "mnt", pid) < 0 ||
            (n->network == runtime_v1_NamespaceMode_POD && (add_namespace(namespaces, "network", "net", pid) < 0 ||
                                                            add_namespace(namespaces, "uts", "uts", pid) < 0)) ||
            (n->ipc == runtime_v1_NamespaceMode_POD && add_namespace(namespaces, "ipc", "ipc", pid) < 0) ||
            (n->pid == runtime_v1_NamespaceMode_POD &&
             add_namespace(namespaces, "pid", "pid_for_children", pid) < 0) ||
            (n->has_userns_options && n->userns_options.mode == runtime_v1_NamespaceMode_POD &&
             add_namespace(namespaces, "user", "user", pid) < 0))
                return NULL;
        o = json_pack("{s:s, s:{s:s?, s:O}}", "hostname", strempty(config->hostname), "linux", "cgroupsPath", cgroup,
                      "namespaces", namespaces);
        return json_incref(o);
}

int pod_info(Pod *p, Arena *arena, runtime_v1_PodSandboxStatusResponse_InfoEntry *ret, Error *error) {
        _cleanup_json_ json_t *o =
                        json_pack("{s:I, s:s, s:s?, s:s?, s:s, s:s?, s:s?, s:o, s:o, s:o}",
                                  "pid", (json_int_t) p->engine_state.pid,
                                  "phase", pod_phase_to_string(p->phase),
                                  "unit", p->unit,
                                  "slice", p->slice,
                                  "runtimeHandler", strempty(p->request.runtime_handler),
                                  "directory", p->directory,
                                  "runDirectory", p->run_directory,
                                  "cniResult", json_from_text(p->network_json),
                                  "config", message_to_json(runtime_v1_PodSandboxConfig_fields, &p->request.config),
                                  "runtimeSpec", pod_spec(p));

        ret->key = (char *) "info";
        return json_to_arena(o, arena, &ret->value, error);
}

/* --- containers -------------------------------------------------------------------------------------------------- */

int container_info(Container *k, Arena *arena, runtime_v1_ContainerStatusResponse_InfoEntry *ret, Error *error) {
        const runtime_v1_ContainerConfig *config = &k->request.config;
        _cleanup_free_ char *spec = container_spec(k);
        _cleanup_json_ json_t *o = json_pack(
                        "{s:s, s:I, s:s, s:s?, s:s?, s:s?, s:s, s:s?, s:s?, s:s?, s:b, s:b, s:o*, s:o, s:o}",
                        "sandboxID", k->pod->id,
                        "pid", (json_int_t) k->pid,
                        "phase", container_phase_to_string(k->phase),
                        "unit", k->unit,
                        "slice", k->pod->slice,
                        "cgroup", container_cgroup(k),
                        "runtimeHandler", strempty(k->pod->request.runtime_handler),
                        "imageID", k->image_id,
                        "directory", k->directory,
                        "runDirectory", k->run_directory,
                        "oomKilled", (int) k->oom_killed,
                        "privileged", (int) (config->has_linux && config->linux.has_security_context &&
                                             config->linux.security_context.privileged),
                        "layers", json_from_strv(k->layers),
                        "config", message_to_json(runtime_v1_ContainerConfig_fields, config),
                        "runtimeSpec", json_from_text(spec));

        ret->key = (char *) "info";
        return json_to_arena(o, arena, &ret->value, error);
}

/* --- images ------------------------------------------------------------------------------------------------------ */

int image_info(const Image *i, Arena *arena, runtime_v1_ImageStatusResponse_InfoEntry *ret, Error *error) {
        _cleanup_json_ json_t *o = json_pack("{s:s?, s:b, s:o*, s:o}",
                                             "manifestDigest", i->manifest_digest,
                                             "pinned", (int) i->pinned,
                                             "layers", json_from_strv(i->layers),
                                             "imageSpec", json_from_text(i->config_json));

        ret->key = (char *) "info";
        return json_to_arena(o, arena, &ret->value, error);
}
