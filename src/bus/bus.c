/* The connection to the system bus: made when there is one, made again when it was restarted. */

#include "bus/internal.h"

#include "basic/log.h"

#define RETRY_USEC (2 * USEC_PER_SEC)
#define SYSTEM_BUS_ADDRESS "unix:path=/run/dbus/system_bus_socket"

static int connection_open(Bus *b);

/* sd-bus passes the found object to property and method callbacks, not what the vtable was registered with. There
 * is one manager in the daemon, and so one Bus; tests have one at a time as well. */
static Bus *only_bus;

Bus *bus_of_manager(const Manager *m) {
        return only_bus && only_bus->manager == m ? only_bus : NULL;
}

Bus *the_bus(void) {
        return only_bus;
}

void bus_set_register_machines(Bus *b, bool yes) {
        b->register_machines = yes;
}

bool bus_is_served(const Bus *b) {
        return b->served;
}

/* --- announcements ---------------------------------------------------------------------------------------------- */

static void announce_added(Bus *b, char *path) {
        _cleanup_free_ char *p = path;

        if (p && sd_bus_emit_object_added(b->bus, p) < 0)
                log_debug("%s could not be announced, ignoring", p);
}

static void announce_removed(Bus *b, char *path) {
        _cleanup_free_ char *p = path;

        if (p && sd_bus_emit_object_removed(b->bus, p) < 0)
                log_debug("The end of %s could not be announced, ignoring", p);
}

static void announce_pod_changed(Bus *b, const Pod *pod) {
        _cleanup_free_ char *p = pod_object_path(pod);

        if (p && pod_is_shown(pod))
                (void) sd_bus_emit_properties_changed(b->bus, p, POD_INTERFACE, "State", "IPs", "PID", NULL);
}

static void announce_container_changed(Bus *b, const Container *c) {
        _cleanup_free_ char *p = container_object_path(c);

        if (p && container_is_shown(c))
                (void) sd_bus_emit_properties_changed(b->bus, p, CONTAINER_INTERFACE, "State", "PID", "StartedAt",
                                                     "FinishedAt", "ExitCode", "Reason", "Message", "OOMKilled", NULL);
}

static void announce_numbers(Bus *b) {
        (void) sd_bus_emit_properties_changed(b->bus, BUS_PATH, MANAGER_INTERFACE, "NPods", "NContainers", NULL);
}

/* The Event signal: what happened, for people and simple tools, which need not follow objects. details: pairs of key
 * and value, the last key NULL. */
static void announce_event(Bus *b, const char *what, char *object, const char *const *details) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_free_ char *path = object;
        size_t n = 0;
        int r;

        if (!path)
                return;
        while (details[2 * n])
                n++;
        r = sd_bus_message_new_signal(b->bus, &m, BUS_PATH, MANAGER_INTERFACE, "Event");
        if (r >= 0)
                r = sd_bus_message_append(m, "tso", now_usec(CLOCK_REALTIME), what, path);
        if (r >= 0)
                r = append_strings(m, details, n);
        if (r >= 0)
                r = sd_bus_send(b->bus, m, NULL);
        if (r < 0)
                log_debug_errno(r, "The event %s could not be announced, ignoring", what);
}

static void announce_pod_event(Bus *b, const char *what, const Pod *p) {
        const runtime_v1_PodSandboxMetadata *m = &p->request.config.metadata;

        announce_event(b, what, pod_object_path(p),
                       (const char *const[]) { "pod", p->id, "namespace", strempty(m->namespace), "name",
                                               strempty(m->name), NULL });
}

static void announce_container_event(Bus *b, const char *what, const Container *c) {
        const runtime_v1_PodSandboxMetadata *m = &c->pod->request.config.metadata;
        bool exited = c->phase == CONTAINER_EXITED && streq(what, "container-exited");
        char code[16];

        (void) snprintf(code, sizeof code, "%d", c->exit_code);
        announce_event(b, what, container_object_path(c),
                       (const char *const[]) { "container", c->id, "pod", c->pod->id, "namespace",
                                             strempty(m->namespace), "pod_name", strempty(m->name), "name",
                                             strempty(c->request.config.metadata.name), "image",
                                             container_image_name(c), exited ? "exit_code" : NULL, code, "reason",
                                             strempty(c->reason), NULL});
}

static void on_image_changed(Image *image, ImageChange change, void *userdata) {
        static const char *const names[] = { "image-added", "image-changed", "image-removed" };
        Bus *b = userdata;

        if (!b->served || !b->loaded)
                return;
        b->leaving_image = image;
        if (change == IMAGE_ADDED)
                announce_added(b, image_object_path(image));
        else if (change == IMAGE_REMOVED)
                announce_removed(b, image_object_path(image));
        else {
                _cleanup_free_ char *p = image_object_path(image);

                if (p)
                        (void) sd_bus_emit_properties_changed(b->bus, p, IMAGE_INTERFACE, "Tags", "Digests", "Pinned",
                                                              NULL);
        }
        announce_event(b, names[change], image_object_path(image),
                       (const char *const[]) { "image", image->id, "name", image_display_name(image), NULL });
        b->leaving_image = NULL;
        if (change != IMAGE_CHANGED)
                (void) sd_bus_emit_properties_changed(b->bus, BUS_PATH, MANAGER_INTERFACE, "NImages", NULL);
}

static void announce_manager_event(Bus *b, ManagerEvent event, const Pod *pod, const Container *c) {
        switch (event) {
        case MANAGER_POD_ADDED:
                announce_added(b, pod_object_path(pod));
                announce_pod_event(b, "pod-started", pod);
                break;
        case MANAGER_POD_CHANGED:
                announce_pod_changed(b, pod);
                if (pod->phase == POD_NOT_READY)
                        announce_pod_event(b, "pod-stopped", pod);
                break;
        case MANAGER_POD_REMOVED:
                announce_removed(b, pod_object_path(pod));
                announce_pod_event(b, "pod-removed", pod);
                break;
        case MANAGER_CONTAINER_CREATED:
                announce_added(b, container_object_path(c));
                announce_container_event(b, "container-created", c);
                break;
        case MANAGER_CONTAINER_STARTED:
                announce_container_changed(b, c);
                announce_container_event(b, "container-started", c);
                machine_register(b, c);
                break;
        case MANAGER_CONTAINER_STOPPED:
                announce_container_changed(b, c);
                announce_container_event(b, "container-exited", c);
                break;
        case MANAGER_CONTAINER_REMOVED:
                announce_removed(b, container_object_path(c));
                announce_container_event(b, "container-removed", c);
                break;
        default:
                break;
        }
}

static void on_manager_event(Manager *m, ManagerEvent event, Pod *pod, Container *container, void *userdata) {
        Bus *b = userdata;

        if (event == MANAGER_POD_REMOVED)
                run_forget_logs(b, pod);
        if (!b->served || !b->loaded)
                return;
        b->leaving_pod = pod;
        b->leaving_container = container;
        announce_manager_event(b, event, pod, container);
        b->leaving_pod = NULL;
        b->leaving_container = NULL;
        if (event != MANAGER_POD_CHANGED && event != MANAGER_CONTAINER_STARTED && event != MANAGER_CONTAINER_STOPPED)
                announce_numbers(b);
}

static void announce_all(Bus *b) {
        Container *c, *ctmp;
        Pod *p, *ptmp;

        HASH_ITER(hh, b->manager->pods, p, ptmp)
                if (pod_is_shown(p))
                        announce_added(b, pod_object_path(p));
        HASH_ITER(hh, b->manager->containers, c, ctmp)
                if (container_is_shown(c))
                        announce_added(b, container_object_path(c));
        announce_numbers(b);
}

void bus_set_loaded(Bus *b) {
        if (b->loaded)
                return;
        b->loaded = true;
        if (b->served)
                announce_all(b);
}

/* --- the connection --------------------------------------------------------------------------------------------- */

static void connection_close(Bus *b) {
        b->served = false;
        access_forget(b);
        if (!b->bus)
                return;
        (void) sd_bus_detach_event(b->bus);
        sd_bus_close(b->bus);
        b->bus = sd_bus_unref(b->bus);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        Bus *b = userdata;

        b->retry = sd_event_source_disable_unref(b->retry);
        connection_close(b);
        (void) connection_open(b);
        return 0;
}

static void schedule_retry(Bus *b, uint64_t usec) {
        int r;

        b->served = false;
        if (b->retry || b->draining)
                return;
        r = sd_event_add_time_relative(b->event, &b->retry, CLOCK_MONOTONIC, usec, 100 * USEC_PER_MSEC, on_retry, b);
        if (r < 0)
                log_warning_errno(r, "Cannot plan to connect to the system bus again, ignoring");
}

/* Said once; what follows is at debug level until it worked. */
static void tell(Bus *b, const char *what) {
        if (b->told)
                log_debug("%s", what);
        else
                log_info("%s", what);
        b->told = true;
}

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = userdata;

        tell(b, "The system bus is gone: " BUS_NAME " is served again when it is back");
        schedule_retry(b, RETRY_USEC / 20);
        return 0;
}

static int on_name(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const sd_bus_error *e = sd_bus_message_get_error(m);
        Bus *b = userdata;

        if (e) {
                if (!b->draining)
                        log_warning("Cannot take the name " BUS_NAME " on the system bus: %s. Is the D-Bus policy "
                                    "installed, and no other rktlet running? Going on without", strempty(e->message));
                return 0;
        }
        b->served = true;
        b->told = false;
        log_debug("Serving " BUS_NAME);
        if (b->loaded)
                announce_all(b);
        return 0;
}

static int add_objects(Bus *b) {
        int r;

        r = sd_bus_add_object_vtable(b->bus, NULL, BUS_PATH, MANAGER_INTERFACE, manager_vtable, b->manager);
        if (r < 0)
                return r;
        r = sd_bus_add_fallback_vtable(b->bus, NULL, POD_PATH, POD_INTERFACE, pod_vtable, pod_object_find, b);
        if (r < 0)
                return r;
        r = sd_bus_add_node_enumerator(b->bus, NULL, POD_PATH, pod_node_enumerator, b);
        if (r < 0)
                return r;
        r = sd_bus_add_fallback_vtable(b->bus, NULL, CONTAINER_PATH, CONTAINER_INTERFACE, container_vtable,
                                       container_object_find, b);
        if (r < 0)
                return r;
        r = sd_bus_add_node_enumerator(b->bus, NULL, CONTAINER_PATH, container_node_enumerator, b);
        if (r < 0)
                return r;
        r = sd_bus_add_fallback_vtable(b->bus, NULL, IMAGE_PATH, IMAGE_INTERFACE, image_vtable, image_object_find, b);
        if (r < 0)
                return r;
        r = sd_bus_add_node_enumerator(b->bus, NULL, IMAGE_PATH, image_node_enumerator, b);
        if (r < 0)
                return r;
        r = sd_bus_add_object_vtable(b->bus, NULL, LOG_CONTROL_PATH, LOG_CONTROL_INTERFACE, log_control_vtable, b);
        if (r < 0)
                return r;
        r = sd_bus_add_filter(b->bus, NULL, access_filter, b);
        if (r < 0)
                return r;
        return sd_bus_add_object_manager(b->bus, NULL, BUS_PATH);
}

static int connection_start(Bus *b) {
        int r;

        r = sd_bus_new(&b->bus);
        if (r < 0)
                return r;
        r = sd_bus_set_description(b->bus, BUS_NAME);
        if (r < 0)
                return r;
        r = sd_bus_set_address(b->bus, b->address);
        if (r < 0)
                return r;
        r = sd_bus_set_bus_client(b->bus, true);
        if (r < 0)
                return r;
        /* Waits by inotify until the socket is there. */
        r = sd_bus_set_watch_bind(b->bus, true);
        if (r < 0)
                return r;
        r = sd_bus_start(b->bus);
        if (r < 0)
                return r;
        r = sd_bus_attach_event(b->bus, b->event, SD_EVENT_PRIORITY_NORMAL);
        if (r < 0)
                return r;
        r = sd_bus_add_match_async(b->bus, NULL,
                                   "type='signal',sender='org.freedesktop.DBus.Local',"
                                   "path='/org/freedesktop/DBus/Local',interface='org.freedesktop.DBus.Local',"
                                   "member='Disconnected'",
                                   on_disconnected, NULL, b);
        if (r < 0)
                return r;
        r = add_objects(b);
        if (r < 0)
                return r;
        return sd_bus_request_name_async(b->bus, NULL, BUS_NAME, 0, on_name, b);
}

static int connection_open(Bus *b) {
        const char *path = startswith(b->address, "unix:path=");
        int r;

        if (path && access(path, F_OK) < 0)
                tell(b, "There is no system bus: " BUS_NAME " is served when it appears");
        r = connection_start(b);
        if (r >= 0)
                return 0;
        connection_close(b);
        tell(b, "The system bus cannot be reached: " BUS_NAME " is served when it can");
        log_debug_errno(r, "Cannot open the system bus");
        schedule_retry(b, RETRY_USEC);
        return r;
}

int bus_new(sd_event *event, Manager *manager, const char *address, Bus **ret) {
        _cleanup_(bus_freep) Bus *b = NULL;

        b = calloc(1, sizeof *b);
        if (!b)
                return -ENOMEM;
        b->event = sd_event_ref(event);
        b->manager = manager;
        b->loaded = manager->loaded;
        b->address = strdup(address ? address : SYSTEM_BUS_ADDRESS);
        if (!b->address)
                return -ENOMEM;
        b->subscription = (ManagerSubscription) { .func = on_manager_event, .userdata = b };
        manager_subscribe(manager, &b->subscription);
        only_bus = b;
        image_store_listen(manager->images, on_image_changed, b);
        (void) connection_open(b);
        *ret = TAKE_PTR(b);
        return 0;
}

Bus *bus_free(Bus *b) {
        if (!b)
                return NULL;
        if (b->subscription.func)
                manager_unsubscribe(b->manager, &b->subscription);
        if (only_bus == b) {
                image_store_listen(b->manager->images, NULL, NULL);
                only_bus = NULL;
        }
        b->draining = true;
        b->retry = sd_event_source_disable_unref(b->retry);
        b->progress = sd_event_source_disable_unref(b->progress);
        if (b->bus)
                (void) sd_bus_flush(b->bus);
        connection_close(b);
        sd_event_unref(b->event);
        free(b->address);
        free(b);
        return NULL;
}

void bus_drain_wait(Bus *b) {
        b->draining = true;
        if (b->served)
                (void) sd_bus_release_name_async(b->bus, NULL, BUS_NAME, NULL, NULL);
        b->served = false;
        bus_task_cancel_all(b);
        while (b->n_tasks > 0)
                if (fiber_queue_wait(&b->idle) < 0)
                        return;
}
