/* Dump: what the daemon knows, as JSON, for a bug report. No environment, no arguments of containers, no annotations:
 * there are secrets in these. */

#include "bus/internal.h"

#include "basic/json-util.h"

static json_t *integer(uint64_t v) {
        return json_integer((json_int_t) v);
}

static json_t *dump_container(const Container *c) {
        return json_pack(
                        "{s:s, s:s?, s:s?, s:s?, s:s?, s:o, s:o, s:o, s:i, s:i, s:s?, s:s?, s:b, s:s?, s:b, s:b, s:i}",
                        "id", c->id, "name", c->request.config.metadata.name, "state",
                        container_phase_to_string(c->phase), "unit", c->unit, "image", c->image_id, "created_usec",
                        integer(c->created_usec), "started_usec", integer(c->started_usec), "finished_usec",
                        integer(c->finished_usec), "pid", (int) c->pid, "exit_code", c->exit_code, "reason", c->reason,
                        "message", c->message, "oom_killed", (int) c->oom_killed, "log_path", c->log_path, "starting",
                        (int) c->starting, "undoing", (int) c->undoing, "references", (int) c->n_ref);
}

static json_t *dump_pod(const Pod *p) {
        const runtime_v1_PodSandboxMetadata *m = &p->request.config.metadata;
        json_t *containers = json_array();

        for (const Container *c = p->containers; c; c = c->pod_next)
                (void) json_array_append_new(containers, dump_container(c));
        return json_pack(
                        "{s:s, s:s?, s:s?, s:s?, s:i, s:s?, s:s?, s:s?, s:b, s:o, s:i, s:o, s:b, s:b, s:s?, s:i, s:o}",
                        "id", p->id, "namespace", m->namespace, "name", m->name, "uid", m->uid, "attempt",
                        (int) m->attempt, "state", pod_phase_to_string(p->phase), "unit", p->unit, "slice", p->slice,
                        "slice_is_ours", (int) p->slice_is_ours, "created_usec", integer(p->created_usec), "pid",
                        (int) p->engine_state.pid, "ips", p->ips ? json_from_strv(p->ips) : json_array(),
                        "network_added", (int) p->network_added, "undoing", (int) p->undoing, "runtime_handler",
                        p->request.runtime_handler, "references", (int) p->n_ref, "containers", containers);
}

static json_t *dump_images(const Manager *m) {
        _cleanup_free_ Image **l = image_store_list(m->images);
        json_t *j = json_array();

        for (Image **i = l; i && *i; i++)
                (void) json_array_append_new(
                                j,
                                json_pack("{s:s, s:o, s:o, s:o, s:b, s:o}", "id", (*i)->id, "tags",
                                          (*i)->repo_tags ? json_from_strv((*i)->repo_tags) : json_array(), "digests",
                                          (*i)->repo_digests ? json_from_strv((*i)->repo_digests) : json_array(),
                                          "size", integer((*i)->size), "pinned", (int) (*i)->pinned, "layers",
                                          (*i)->layers ? json_from_strv((*i)->layers) : json_array()));
        return j;
}

static json_t *dump_pulls(const Manager *m) {
        _cleanup_free_ ImagePullProgress *l = NULL;
        json_t *j = json_array();
        size_t n = 0;

        (void) image_store_pulls(m->images, &l, &n);
        for (size_t i = 0; i < n; i++)
                (void) json_array_append_new(j, json_pack("{s:s, s:o, s:o}", "name", l[i].name, "fetched",
                                                          integer(l[i].fetched), "size", integer(l[i].size)));
        return j;
}

int dump_state(Bus *b, char **ret) {
        _cleanup_json_ json_t *j = NULL, *pods = json_array();
        const Manager *m;
        char *text;

        if (!b)
                return -ESHUTDOWN;
        m = b->manager;
        for (const Pod *p = m->pods; p; p = p->hh.next)
                (void) json_array_append_new(pods, dump_pod(p));
        j = json_pack("{s:s, s:s?, s:s?, s:b, s:s?, s:s?, s:o, s:i, s:i, s:O, s:o, s:o}", "version", PROJECT_VERSION,
                      "systemd", systemd_version(m->systemd), "engine", m->engine ? m->engine->ops->name : NULL,
                      "loaded", (int) m->loaded, "state_directory", m->config.state_directory, "run_directory",
                      m->config.run_directory, "time_usec", integer(now_usec(CLOCK_REALTIME)), "fibers",
                      (int) fiber_count(), "bus_methods", (int) b->n_tasks, "pods", pods, "images", dump_images(m),
                      "pulls", dump_pulls(m));
        text = j ? json_dumps(j, JSON_INDENT(8)) : NULL;
        if (!text)
                return -ENOMEM;
        *ret = text;
        return 0;
}
