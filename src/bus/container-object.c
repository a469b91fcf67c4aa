/* /org/rktlet1/container/ID: one container. */

#include "bus/internal.h"

#include "basic/string-util.h"

char *container_object_path(const Container *c) {
        return strprintf(CONTAINER_PATH "/%s", c->id);
}

bool container_is_shown(const Container *c) {
        return c->phase != CONTAINER_CREATING && !c->removed;
}

/* As the user wrote it, where the kubelet tells. */
const char *container_image_name(const Container *c) {
        const runtime_v1_ImageSpec *image = &c->request.config.image;

        return isempty(image->user_specified_image) ? strempty(image->image) : image->user_specified_image;
}

int container_object_find(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret_found,
                          sd_bus_error *error) {
        const char *id = startswith(path, CONTAINER_PATH "/");
        Bus *b = userdata;
        Container *c = NULL;

        if (!id)
                return 0;
        if (b->leaving_container && streq(b->leaving_container->id, id))
                c = b->leaving_container;
        else {
                HASH_FIND_STR(b->manager->containers, id, c);
                if (c && !container_is_shown(c))
                        c = NULL;
        }
        if (!c)
                return 0;
        *ret_found = c;
        return 1;
}

int container_node_enumerator(sd_bus *bus, const char *prefix, void *userdata, char ***ret, sd_bus_error *error) {
        _cleanup_strv_free_ char **l = NULL;
        Bus *b = userdata;
        Container *c, *tmp;
        int r;

        HASH_ITER(hh, b->manager->containers, c, tmp) {
                _cleanup_free_ char *path = NULL;

                if (!container_is_shown(c))
                        continue;
                path = container_object_path(c);
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
        const Container *c = userdata;
        const char *value = NULL;

        if (streq(property, "Id"))
                value = c->id;
        else if (streq(property, "Name"))
                value = c->request.config.metadata.name;
        else if (streq(property, "PodId"))
                value = c->pod->id;
        else if (streq(property, "State"))
                value = container_phase_to_string(c->phase);
        else if (streq(property, "Unit"))
                value = c->unit;
        else if (streq(property, "Image"))
                value = container_image_name(c);
        else if (streq(property, "ImageId"))
                value = c->image_id;
        else if (streq(property, "Reason"))
                value = c->reason;
        else if (streq(property, "Message"))
                value = c->message;
        else if (streq(property, "LogPath"))
                value = c->log_path;
        return sd_bus_message_append(reply, "s", strempty(value));
}

static int get_pod(sd_bus *bus, const char *path, const char *interface, const char *property, sd_bus_message *reply,
                   void *userdata, sd_bus_error *error) {
        const Container *c = userdata;
        _cleanup_free_ char *object = pod_object_path(c->pod);

        return object ? sd_bus_message_append(reply, "o", object) : -ENOMEM;
}

static int get_number(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Container *c = userdata;

        if (streq(property, "Attempt"))
                return sd_bus_message_append(reply, "u", c->request.config.metadata.attempt);
        if (streq(property, "PID"))
                return sd_bus_message_append(reply, "u", c->phase == CONTAINER_RUNNING ? (uint32_t) c->pid : 0);
        if (streq(property, "ExitCode"))
                return sd_bus_message_append(reply, "i", c->phase == CONTAINER_EXITED ? c->exit_code : 0);
        if (streq(property, "OOMKilled"))
                return sd_bus_message_append(reply, "b", (int) c->oom_killed);
        return sd_bus_message_append(reply, "t",
                                     streq(property, "CreatedAt")   ? c->created_usec
                                     : streq(property, "StartedAt") ? c->started_usec
                                                                    : c->finished_usec);
}

static int get_pairs(sd_bus *bus, const char *path, const char *interface, const char *property, sd_bus_message *reply,
                     void *userdata, sd_bus_error *error) {
        const Container *container = userdata;
        const runtime_v1_ContainerConfig *c = &container->request.config;
        bool labels = streq(property, "Labels");
        size_t n = labels ? c->labels_count : c->annotations_count;
        int r;

        r = sd_bus_message_open_container(reply, 'a', "{ss}");
        if (r < 0)
                return r;
        for (size_t i = 0; i < n; i++) {
                r = labels ? sd_bus_message_append(reply, "{ss}", strempty(c->labels[i].key),
                                                   strempty(c->labels[i].value))
                           : sd_bus_message_append(reply, "{ss}", strempty(c->annotations[i].key),
                                                   strempty(c->annotations[i].value));
                if (r < 0)
                        return r;
        }
        return sd_bus_message_close_container(reply);
}

static int task_stop(Task *t, Error *error) {
        return container_stop(t->container, t->timeout_usec, error);
}

static int method_stop(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Container *c = userdata;
        uint64_t timeout;
        int r;

        r = sd_bus_message_read(m, "t", &timeout);
        if (r < 0)
                return r;
        return bus_task_run(bus_of_manager(c->manager), m, task_stop, NULL, c, timeout, error);
}

const sd_bus_vtable container_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Id", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Name", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Attempt", "u", get_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Pod", "o", get_pod, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("PodId", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("State", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Unit", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Image", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("ImageId", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("CreatedAt", "t", get_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("StartedAt", "t", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("FinishedAt", "t", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("PID", "u", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("ExitCode", "i", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Reason", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Message", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("OOMKilled", "b", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("LogPath", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Labels", "a{ss}", get_pairs, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Annotations", "a{ss}", get_pairs, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_METHOD_WITH_NAMES("Stop", "t", SD_BUS_PARAM(timeout_usec), NULL,, method_stop,
                                 SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};
