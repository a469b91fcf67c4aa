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
        if (streq(property, "Terminal"))
                return sd_bus_message_append(reply, "b", (int) c->request.config.tty);
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

        return streq(property, "Labels")
                               ? append_strings(reply, (const char *const *) c->labels, c->labels_count)
                               : append_strings(reply, (const char *const *) c->annotations, c->annotations_count);
}

int task_stop_container(Task *t, Error *error) {
        uint64_t timeout;
        int r;

        r = sd_bus_message_read(t->message, "t", &timeout);
        return r < 0 ? r : container_stop(t->container, timeout, error);
}

int task_remove_container(Task *t, Error *error) {
        return container_remove(t->container, error);
}

static int task_start(Task *t, Error *error) {
        return container_start(t->container, error);
}

static int run(sd_bus_message *m, Container *c, TaskFunc func, sd_bus_error *error) {
        return bus_task_run(bus_of_manager(c->manager), m, func, NULL, c, NULL, error);
}

static int method_start(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return run(m, userdata, task_start, error);
}

static int method_stop(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return run(m, userdata, task_stop_container, error);
}

static int method_kill(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return run(m, userdata, task_kill_container, error);
}

static int method_remove(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return run(m, userdata, task_remove_container, error);
}

static int method_exec(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return run(m, userdata, task_exec, error);
}

static int method_attach(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return run(m, userdata, task_attach, error);
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
        SD_BUS_PROPERTY("Terminal", "b", get_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("LogPath", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Labels", "a{ss}", get_pairs, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Annotations", "a{ss}", get_pairs, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_METHOD_WITH_ARGS("Start", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, method_start, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Stop", SD_BUS_ARGS("t", timeout_usec), SD_BUS_NO_RESULT,
                                method_stop, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Kill", SD_BUS_ARGS("s", whom, "i", signal), SD_BUS_NO_RESULT,
                                method_kill, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Remove", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT,
                                method_remove, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Exec", SD_BUS_ARGS("as", command, "b", terminal, "b", input),
                                SD_BUS_RESULT("ah", streams, "h", result), method_exec, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Attach", SD_BUS_ARGS("b", input), SD_BUS_RESULT("h", packets),
                                method_attach, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};
