/* /org/rktlet1: the node. */

#include "bus/internal.h"


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

static size_t count_images(const Manager *m) {
        _cleanup_free_ Image **l = image_store_list(m->images);
        size_t n = 0;

        while (l && l[n])
                n++;
        return n;
}

static int get_string(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Manager *m = userdata;
        const char *value = NULL;

        if (streq(property, "Version"))
                value = PROJECT_VERSION;
        else if (streq(property, "SystemdVersion"))
                value = systemd_version(m->systemd);
        else if (streq(property, "Engine"))
                value = m->engine ? m->engine->ops->name : NULL;
        else if (streq(property, "StateDirectory"))
                value = m->config.state_directory;
        else if (streq(property, "RunDirectory"))
                value = m->config.run_directory;
        return sd_bus_message_append(reply, "s", strempty(value));
}

static int get_loaded(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Manager *m = userdata;

        return sd_bus_message_append(reply, "b", (int) m->loaded);
}

static int get_number(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Manager *m = userdata;

        return sd_bus_message_append(reply, "u", (uint32_t) (streq(property, "NPods")         ? count_pods(m)
                                                             : streq(property, "NContainers") ? count_containers(m)
                                                                                              : count_images(m)));
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
                _cleanup_free_ char *path = image_object_path(*i);

                if (!path)
                        return -ENOMEM;
                r = sd_bus_message_open_container(reply, 'r', "sasastbo");
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
                r = sd_bus_message_append(reply, "tbo", (*i)->size, (int) (*i)->pinned, path);
                if (r < 0)
                        return r;
                r = sd_bus_message_close_container(reply);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* A store that others may change is looked at again first, which takes its time. */
static int task_list_images(Task *t, Error *error) {
        int r;

        r = image_store_refresh(t->bus->manager->images, error);
        if (r >= 0)
                r = sd_bus_message_new_method_return(t->message, &t->reply);
        if (r >= 0)
                r = sd_bus_message_open_container(t->reply, 'a', "(sasastbo)");
        if (r >= 0)
                r = fill_images(t->reply, t->bus->manager);
        return r < 0 ? r : sd_bus_message_close_container(t->reply);
}

static int method_list_images(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return bus_task_run(bus_of_manager(userdata), m, task_list_images, NULL, NULL, NULL, error);
}

/* Figures of what runs; a container that ends meanwhile is left out. */
static int fill_usage(sd_bus_message *reply, Manager *m) {
        for (Container *c = m->containers; c; c = c->hh.next) {
                uint64_t rate, processes = STAT_UNKNOWN, read = 0, written = 0;
                CgroupStats s;
                int r;

                if (!container_is_shown(c) || c->phase != CONTAINER_RUNNING ||
                    container_read_stats(c, CGROUP_STATS_DETAILS, &s, &rate, NULL) < 0)
                        continue;
                processes = s.processes;
                for (size_t i = 0; i < s.n_devices; i++) {
                        read += s.devices[i].read_bytes;
                        written += s.devices[i].write_bytes;
                }
                r = sd_bus_message_append(reply, "(sssttttt)", c->id, c->pod->id,
                                          strempty(c->request.config.metadata.name), s.cpu_usage_nsec,
                                          s.memory_working_set, processes, read, written);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int method_list_usage(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return reply_list(m, "(sssttttt)", fill_usage, userdata);
}

static int fill_pulls(sd_bus_message *reply, Manager *m) {
        _cleanup_free_ ImagePullProgress *l = NULL;
        size_t n;
        int r;

        r = image_store_pulls(m->images, &l, &n);
        for (size_t i = 0; i < n && r >= 0; i++)
                r = sd_bus_message_append(reply, "(sttuu)", l[i].name, l[i].fetched, l[i].size, (uint32_t) l[i].n_done,
                                          (uint32_t) l[i].n_layers);
        return r;
}

static int method_list_pulls(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return reply_list(m, "(sttuu)", fill_pulls, userdata);
}

/* --- one object -------------------------------------------------------------------------------------------------- */

/* The object that the first argument names; which of them is asked for by what is not NULL. */
static int find(sd_bus_message *m, Manager *manager, Pod **ret_pod, Container **ret_container, Image **ret_image,
                sd_bus_error *error) {
        _cleanup_error_ Error e = ERROR_INIT;
        const char *what;
        int r;

        r = sd_bus_message_read(m, "s", &what);
        if (r < 0)
                return r;
        r = ret_pod         ? lookup_pod(manager, what, ret_pod, &e)
            : ret_container ? lookup_container(manager, what, ret_container, &e)
                            : lookup_image(manager, what, ret_image, &e);
        return r < 0 ? bus_fail(error, r, &e) : 0;
}

static int reply_path(sd_bus_message *m, char *path) {
        _cleanup_free_ char *p = path;

        return p ? sd_bus_reply_method_return(m, "o", p) : -ENOMEM;
}

static int method_get_pod(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Pod *p;
        int r;

        r = find(m, userdata, &p, NULL, NULL, error);
        return r < 0 ? r : reply_path(m, pod_object_path(p));
}

static int method_get_container(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Container *c;
        int r;

        r = find(m, userdata, NULL, &c, NULL, error);
        return r < 0 ? r : reply_path(m, container_object_path(c));
}

static int method_get_image(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Image *i;
        int r;

        r = find(m, userdata, NULL, NULL, &i, error);
        return r < 0 ? r : reply_path(m, image_object_path(i));
}

static int on_pod(sd_bus_message *m, Manager *manager, TaskFunc func, sd_bus_error *error) {
        Pod *p;
        int r;

        r = find(m, manager, &p, NULL, NULL, error);
        return r < 0 ? r : bus_task_run(bus_of_manager(manager), m, func, p, NULL, NULL, error);
}

static int on_container(sd_bus_message *m, Manager *manager, TaskFunc func, sd_bus_error *error) {
        Container *c;
        int r;

        r = find(m, manager, NULL, &c, NULL, error);
        return r < 0 ? r : bus_task_run(bus_of_manager(manager), m, func, NULL, c, NULL, error);
}

static int method_stop_pod(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return on_pod(m, userdata, task_stop_pod, error);
}

static int method_kill_pod(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return on_pod(m, userdata, task_kill_pod, error);
}

static int method_remove_pod(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return on_pod(m, userdata, task_remove_pod, error);
}

static int method_stop_container(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return on_container(m, userdata, task_stop_container, error);
}

static int method_kill_container(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return on_container(m, userdata, task_kill_container, error);
}

static int method_remove_container(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return on_container(m, userdata, task_remove_container, error);
}

/* By tag, if a tag was given: the other names of the image stay. */
static int task_remove_image_name(Task *t, Error *error) {
        _cleanup_error_ Error miss = ERROR_INIT;
        const char *what;
        Image *i;
        int r;

        r = sd_bus_message_read(t->message, "s", &what);
        if (r < 0)
                return r;
        r = lookup_image(t->bus->manager, what, &i, error);
        return r < 0 ? r : image_store_remove(t->bus->manager->images, what, error);
}

static int method_remove_image(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return bus_task_run(bus_of_manager(userdata), m, task_remove_image_name, NULL, NULL, NULL, error);
}

/* --- the node ---------------------------------------------------------------------------------------------------- */

static int method_pull_image(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return bus_task_run(bus_of_manager(userdata), m, task_pull, NULL, NULL, NULL, error);
}

static int method_prune(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return bus_task_run(bus_of_manager(userdata), m, task_prune, NULL, NULL, NULL, error);
}

static int method_run(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return bus_task_run(bus_of_manager(userdata), m, task_run_container, NULL, NULL, NULL, error);
}

static int method_dump(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_free_ char *text = NULL;
        int r;

        r = dump_state(bus_of_manager(userdata), &text);
        return r < 0 ? r : sd_bus_reply_method_return(m, "s", text);
}

/* UNPRIVILEGED: access_filter() has looked at who calls; sd-bus's own check would ask the bus and block the loop. */

const sd_bus_vtable manager_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Version", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("SystemdVersion", "s", get_string, 0, 0),
        SD_BUS_PROPERTY("Engine", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("StateDirectory", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("RunDirectory", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Loaded", "b", get_loaded, 0, 0),
        SD_BUS_PROPERTY("NPods", "u", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("NContainers", "u", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("NImages", "u", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_METHOD_WITH_ARGS("ListPods", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(sssstsso)", pods),
                                method_list_pods, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListContainers", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(sssstisso)", containers),
                                method_list_containers, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListImages", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(sasastbo)", images),
                                method_list_images, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListUsage", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(sssttttt)", usage),
                                method_list_usage, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListPulls", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(sttuu)", pulls),
                                method_list_pulls, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetPod", SD_BUS_ARGS("s", id), SD_BUS_RESULT("o", pod),
                                method_get_pod, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetContainer", SD_BUS_ARGS("s", id), SD_BUS_RESULT("o", container),
                                method_get_container, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetImage", SD_BUS_ARGS("s", name), SD_BUS_RESULT("o", image),
                                method_get_image, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("StopPod", SD_BUS_ARGS("s", id), SD_BUS_NO_RESULT,
                                method_stop_pod, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("StopContainer", SD_BUS_ARGS("s", id, "t", timeout_usec), SD_BUS_NO_RESULT,
                                method_stop_container, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("KillPod", SD_BUS_ARGS("s", id, "i", signal), SD_BUS_NO_RESULT,
                                method_kill_pod, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("KillContainer", SD_BUS_ARGS("s", id, "s", whom, "i", signal), SD_BUS_NO_RESULT,
                                method_kill_container, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("RemovePod", SD_BUS_ARGS("s", id), SD_BUS_NO_RESULT,
                                method_remove_pod, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("RemoveContainer", SD_BUS_ARGS("s", id), SD_BUS_NO_RESULT,
                                method_remove_container, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("RemoveImage", SD_BUS_ARGS("s", name), SD_BUS_NO_RESULT,
                                method_remove_image, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("PullImage", SD_BUS_ARGS("s", reference, "a{sv}", options), SD_BUS_RESULT("o", image),
                                method_pull_image, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Prune", SD_BUS_ARGS("as", kinds), SD_BUS_RESULT("a(ss)", removed),
                                method_prune, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Run", SD_BUS_ARGS("s", image, "as", command, "a{sv}", options),
                                SD_BUS_RESULT("o", pod, "o", container), method_run, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Dump", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", json),
                                method_dump, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_SIGNAL_WITH_ARGS("PullProgress",
                                SD_BUS_ARGS("s", name, "t", fetched, "t", size, "u", layers_done, "u", layers), 0),
        SD_BUS_SIGNAL_WITH_ARGS("Event", SD_BUS_ARGS("t", time_usec, "s", event, "o", object, "a{ss}", details), 0),
        SD_BUS_VTABLE_END,
};
