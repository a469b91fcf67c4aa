/* /org/rktlet1: the node. */

#include "bus/internal.h"

#include "basic/string-util.h"

static size_t count_pods(const Manager *m) {
        size_t n = 0;

        for (const Pod *p = m->pods; p; p = p->hh.next)
                n += pod_is_shown(p);
        return n;
}

static size_t count_containers(const Manager *m) {
        size_t n = 0;

        for (const Container *c = m->containers; c; c = c->hh.next)
                n += container_is_shown(c);
        return n;
}

static int get_property(sd_bus *bus, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Manager *m = userdata;

        if (streq(property, "Version"))
                return sd_bus_message_append(reply, "s", PROJECT_VERSION);
        if (streq(property, "SystemdVersion"))
                return sd_bus_message_append(reply, "s", strempty(systemd_version(m->systemd)));
        if (streq(property, "Loaded"))
                return sd_bus_message_append(reply, "b", (int) m->loaded);
        return sd_bus_message_append(reply, "u",
                                     (uint32_t) (streq(property, "NPods") ? count_pods(m) : count_containers(m)));
}

static int reply_list(sd_bus_message *m, const char *type, int (*fill)(sd_bus_message *reply, Manager *manager),
                      Manager *manager) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_message_new_method_return(m, &reply);
        if (r < 0)
                return r;
        r = sd_bus_message_open_container(reply, 'a', type);
        if (r < 0)
                return r;
        r = fill(reply, manager);
        if (r < 0)
                return r;
        r = sd_bus_message_close_container(reply);
        if (r < 0)
                return r;
        return sd_bus_send(NULL, reply, NULL);
}

static int fill_pods(sd_bus_message *reply, Manager *m) {
        for (const Pod *p = m->pods; p; p = p->hh.next) {
                const runtime_v1_PodSandboxMetadata *metadata = &p->request.config.metadata;
                _cleanup_free_ char *path = NULL;
                int r;

                if (!pod_is_shown(p))
                        continue;
                path = pod_object_path(p);
                if (!path)
                        return -ENOMEM;
                r = sd_bus_message_append(reply, "(sssstsso)", p->id, strempty(metadata->namespace),
                                          strempty(metadata->name), pod_phase_to_string(p->phase), p->created_usec,
                                          p->ips && p->ips[0] ? p->ips[0] : "", strempty(p->unit), path);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int method_list_pods(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return reply_list(m, "(sssstsso)", fill_pods, userdata);
}

static int fill_containers(sd_bus_message *reply, Manager *m) {
        for (const Container *c = m->containers; c; c = c->hh.next) {
                _cleanup_free_ char *path = NULL;
                int r;

                if (!container_is_shown(c))
                        continue;
                path = container_object_path(c);
                if (!path)
                        return -ENOMEM;
                r = sd_bus_message_append(reply, "(sssstisso)", c->id, c->pod->id,
                                          strempty(c->request.config.metadata.name),
                                          container_phase_to_string(c->phase),
                                          c->created_usec, c->phase == CONTAINER_EXITED ? c->exit_code : 0,
                                          container_image_name(c), strempty(c->unit), path);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int method_list_containers(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return reply_list(m, "(sssstisso)", fill_containers, userdata);
}

static int fill_images(sd_bus_message *reply, Manager *m) {
        _cleanup_free_ Image **images = image_store_list(m->images);
        int r;

        if (!images)
                return -ENOMEM;
        for (Image **i = images; *i; i++) {
                r = sd_bus_message_open_container(reply, 'r', "sasastb");
                if (r < 0)
                        return r;
                r = sd_bus_message_append(reply, "s", (*i)->id);
                if (r < 0)
                        return r;
                r = sd_bus_message_append_strv(reply, (*i)->repo_tags);
                if (r < 0)
                        return r;
                r = sd_bus_message_append_strv(reply, (*i)->repo_digests);
                if (r < 0)
                        return r;
                r = sd_bus_message_append(reply, "tb", (*i)->size, (int) (*i)->pinned);
                if (r < 0)
                        return r;
                r = sd_bus_message_close_container(reply);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int method_list_images(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return reply_list(m, "(sasastb)", fill_images, userdata);
}

static int find(sd_bus_message *m, Manager *manager, Pod **ret_pod, Container **ret_container, sd_bus_error *error) {
        _cleanup_error_ Error e = ERROR_INIT;
        const char *id;
        int r;

        r = sd_bus_message_read(m, "s", &id);
        if (r < 0)
                return r;
        r = ret_pod ? manager_find_pod(manager, id, ret_pod, &e)
                    : manager_find_container(manager, id, ret_container, &e);
        if (r < 0)
                return error_is_set(&e) ? bus_error(error, &e) : r;
        return 0;
}

static int method_get_pod(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_free_ char *path = NULL;
        Pod *p;
        int r;

        r = find(m, userdata, &p, NULL, error);
        if (r < 0)
                return r;
        path = pod_object_path(p);
        return path ? sd_bus_reply_method_return(m, "o", path) : -ENOMEM;
}

static int method_get_container(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_free_ char *path = NULL;
        Container *c;
        int r;

        r = find(m, userdata, NULL, &c, error);
        if (r < 0)
                return r;
        path = container_object_path(c);
        return path ? sd_bus_reply_method_return(m, "o", path) : -ENOMEM;
}

static int task_stop_pod(Task *t, Error *error) {
        return pod_stop(t->pod, error);
}

static int method_stop_pod(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Manager *manager = userdata;
        Pod *p;
        int r;

        r = find(m, manager, &p, NULL, error);
        if (r < 0)
                return r;
        return bus_task_run(bus_of_manager(manager), m, task_stop_pod, p, NULL, 0, error);
}

static int task_stop_container(Task *t, Error *error) {
        return container_stop(t->container, t->timeout_usec, error);
}

static int method_stop_container(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Manager *manager = userdata;
        uint64_t timeout;
        Container *c;
        int r;

        r = find(m, manager, NULL, &c, error);
        if (r < 0)
                return r;
        r = sd_bus_message_read(m, "t", &timeout);
        if (r < 0)
                return r;
        return bus_task_run(bus_of_manager(manager), m, task_stop_container, NULL, c, timeout, error);
}

/* UNPRIVILEGED: the bus's policy decides who may call (org.rktlet1.conf), and bus_task_run() looks once more; sd-bus's
 * own check would ask the bus and block the loop meanwhile. */
const sd_bus_vtable manager_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Version", "s", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("SystemdVersion", "s", get_property, 0, 0),
        SD_BUS_PROPERTY("Loaded", "b", get_property, 0, 0),
        SD_BUS_PROPERTY("NPods", "u", get_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("NContainers", "u", get_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_METHOD_WITH_NAMES("ListPods", NULL,, "a(sssstsso)", SD_BUS_PARAM(pods), method_list_pods,
                                 SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_NAMES("ListContainers", NULL,, "a(sssstisso)", SD_BUS_PARAM(containers),
                                 method_list_containers, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_NAMES("ListImages", NULL,, "a(sasastb)", SD_BUS_PARAM(images), method_list_images,
                                 SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_NAMES("GetPod", "s", SD_BUS_PARAM(id), "o", SD_BUS_PARAM(pod), method_get_pod,
                                 SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_NAMES("GetContainer", "s", SD_BUS_PARAM(id), "o", SD_BUS_PARAM(container),
                                 method_get_container, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_NAMES("StopPod", "s", SD_BUS_PARAM(id), NULL,, method_stop_pod, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_NAMES("StopContainer", "st", SD_BUS_PARAM(id) SD_BUS_PARAM(timeout_usec), NULL,,
                                 method_stop_container, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};
