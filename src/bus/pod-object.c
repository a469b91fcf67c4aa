/* /org/rktlet1/pod/ID: one pod. */

#include "bus/internal.h"

#include "basic/string-util.h"

char *pod_object_path(const Pod *p) {
        return strprintf(POD_PATH "/%s", p->id);
}

bool pod_is_shown(const Pod *p) {
        return p->phase != POD_STARTING && !p->removed;
}

int pod_object_find(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret_found,
                    sd_bus_error *error) {
        const char *id = startswith(path, POD_PATH "/");
        Bus *b = userdata;
        Pod *p = NULL;

        if (!id)
                return 0;
        if (b->leaving_pod && streq(b->leaving_pod->id, id))
                p = b->leaving_pod;
        else {
                HASH_FIND_STR(b->manager->pods, id, p);
                if (p && !pod_is_shown(p))
                        p = NULL;
        }
        if (!p)
                return 0;
        *ret_found = p;
        return 1;
}

int pod_node_enumerator(sd_bus *bus, const char *prefix, void *userdata, char ***ret, sd_bus_error *error) {
        _cleanup_strv_free_ char **l = NULL;
        Bus *b = userdata;
        Pod *p, *tmp;
        int r;

        HASH_ITER(hh, b->manager->pods, p, tmp) {
                _cleanup_free_ char *path = NULL;

                if (!pod_is_shown(p))
                        continue;
                path = pod_object_path(p);
                if (!path)
                        return -ENOMEM;
                r = strv_push(&l, path);
                if (r < 0)
                        return r;
                TAKE_PTR(path);
        }
        *ret = TAKE_PTR(l);
        return 0;
}

static int get_string(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Pod *p = userdata;
        const runtime_v1_PodSandboxMetadata *m = &p->request.config.metadata;
        const char *value = NULL;

        if (streq(property, "Id"))
                value = p->id;
        else if (streq(property, "Name"))
                value = m->name;
        else if (streq(property, "Namespace"))
                value = m->namespace;
        else if (streq(property, "UID"))
                value = m->uid;
        else if (streq(property, "State"))
                value = pod_phase_to_string(p->phase);
        else if (streq(property, "Unit"))
                value = p->unit;
        else if (streq(property, "Slice"))
                value = p->slice;
        else if (streq(property, "RuntimeHandler"))
                value = p->request.runtime_handler;
        else if (streq(property, "Hostname"))
                value = p->request.config.hostname;
        else if (streq(property, "LogDirectory"))
                value = p->request.config.log_directory;
        return sd_bus_message_append(reply, "s", strempty(value));
}

static int get_number(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Pod *p = userdata;

        if (streq(property, "Attempt"))
                return sd_bus_message_append(reply, "u", p->request.config.metadata.attempt);
        if (streq(property, "PID"))
                return sd_bus_message_append(reply, "u", p->engine_state.running ? (uint32_t) p->engine_state.pid : 0);
        return sd_bus_message_append(reply, "t", p->created_usec);
}

static int get_ips(sd_bus *bus, const char *path, const char *interface, const char *property, sd_bus_message *reply,
                   void *userdata, sd_bus_error *error) {
        const Pod *p = userdata;

        return sd_bus_message_append_strv(reply, p->ips);
}

static int get_pairs(sd_bus *bus, const char *path, const char *interface, const char *property, sd_bus_message *reply,
                     void *userdata, sd_bus_error *error) {
        const Pod *p = userdata;
        const runtime_v1_PodSandboxConfig *c = &p->request.config;

        /* nanopb gives both the same form: key, value. */
        return streq(property, "Labels")
                               ? append_strings(reply, (const char *const *) c->labels, c->labels_count)
                               : append_strings(reply, (const char *const *) c->annotations, c->annotations_count);
}

static int get_containers(sd_bus *bus, const char *path, const char *interface, const char *property,
                          sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Pod *p = userdata;
        int r;

        r = sd_bus_message_open_container(reply, 'a', "o");
        if (r < 0)
                return r;
        for (const Container *c = p->containers; c; c = c->pod_next) {
                _cleanup_free_ char *object = NULL;

                if (!container_is_shown(c))
                        continue;
                object = container_object_path(c);
                if (!object)
                        return -ENOMEM;
                r = sd_bus_message_append(reply, "o", object);
                if (r < 0)
                        return r;
        }
        return sd_bus_message_close_container(reply);
}

int task_stop_pod(Task *t, Error *error) {
        return pod_stop(t->pod, error);
}

int task_remove_pod(Task *t, Error *error) {
        return pod_remove(t->pod, error);
}

static int run(sd_bus_message *m, Pod *p, TaskFunc func, sd_bus_error *error) {
        return bus_task_run(bus_of_manager(p->manager), m, func, p, NULL, NULL, error);
}

static int method_stop(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return run(m, userdata, task_stop_pod, error);
}

static int method_kill(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return run(m, userdata, task_kill_pod, error);
}

static int method_remove(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return run(m, userdata, task_remove_pod, error);
}

const sd_bus_vtable pod_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Id", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Name", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Namespace", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("UID", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Attempt", "u", get_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("State", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Unit", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Slice", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("CreatedAt", "t", get_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("IPs", "as", get_ips, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("PID", "u", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("RuntimeHandler", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Hostname", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("LogDirectory", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Labels", "a{ss}", get_pairs, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Annotations", "a{ss}", get_pairs, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Containers", "ao", get_containers, 0, 0),
        SD_BUS_METHOD_WITH_ARGS("Stop", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, method_stop, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Kill", SD_BUS_ARGS("i", signal), SD_BUS_NO_RESULT, method_kill,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Remove", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, method_remove, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};
