/* The connection to the system bus: made when there is one, made again when it was restarted, and what is announced
 * over it. */

#include "bus/internal.h"

#include <utlist.h>

#include "basic/log.h"

#define RETRY_USEC (2 * USEC_PER_SEC)
#define SYSTEM_BUS_ADDRESS "unix:path=/run/dbus/system_bus_socket"

static int connection_open(Bus *b);

/* sd-bus passes the found object to property and method callbacks, not what the vtable was registered with. There
 * is one manager in the daemon, and so one Bus; tests have one at a time as well. */
static Bus *the_bus;

Bus *bus_of_manager(const Manager *m) {
        return the_bus && the_bus->manager == m ? the_bus : NULL;
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

static void on_manager_event(Manager *m, ManagerEvent event, Pod *pod, Container *container, void *userdata) {
        Bus *b = userdata;

        if (!b->served || !b->loaded)
                return;
        b->leaving_pod = pod;
        b->leaving_container = container;
        switch (event) {
        case MANAGER_POD_ADDED:
                announce_added(b, pod_object_path(pod));
                break;
        case MANAGER_POD_CHANGED:
                announce_pod_changed(b, pod);
                break;
        case MANAGER_POD_REMOVED:
                announce_removed(b, pod_object_path(pod));
                break;
        case MANAGER_CONTAINER_CREATED:
                announce_added(b, container_object_path(container));
                break;
        case MANAGER_CONTAINER_STARTED:
        case MANAGER_CONTAINER_STOPPED:
                announce_container_changed(b, container);
                break;
        case MANAGER_CONTAINER_REMOVED:
                announce_removed(b, container_object_path(container));
                break;
        default:
                break;
        }
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
        the_bus = b;
        (void) connection_open(b);
        *ret = TAKE_PTR(b);
        return 0;
}

Bus *bus_free(Bus *b) {
        if (!b)
                return NULL;
        if (b->subscription.func)
                manager_unsubscribe(b->manager, &b->subscription);
        if (the_bus == b)
                the_bus = NULL;
        b->draining = true;
        b->retry = sd_event_source_disable_unref(b->retry);
        if (b->bus)
                (void) sd_bus_flush(b->bus);
        connection_close(b);
        sd_event_unref(b->event);
        free(b->address);
        free(b);
        return NULL;
}

/* --- methods that wait ------------------------------------------------------------------------------------------ */

int bus_error(sd_bus_error *error, const Error *e) {
        char name[64];

        (void) snprintf(name, sizeof name, BUS_NAME ".Error.%s", grpc_code_to_string(e->code));
        return sd_bus_error_setf(error, name, "%s", strempty(e->message));
}

/* The bus's policy lets nobody but root in; a node whose policy is laxer is no reason to let others stop its pods. */
static int check_caller(Task *t, Error *error) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        uint32_t uid;
        int r;

        r = sd_bus_message_new_method_call(sd_bus_message_get_bus(t->message), &m, "org.freedesktop.DBus",
                                           "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetConnectionUnixUser");
        if (r < 0)
                return error_set(error, r, "Cannot find out who calls");
        r = sd_bus_message_append(m, "s", strempty(sd_bus_message_get_sender(t->message)));
        if (r < 0)
                return error_set(error, r, "Cannot find out who calls");
        r = fiber_bus_call(sd_bus_message_get_bus(t->message), m, 0, &e, &reply);
        if (r < 0)
                return error_set(error, r, "Cannot find out who calls");
        r = sd_bus_message_read(reply, "u", &uid);
        if (r < 0)
                return error_set(error, r, "Cannot find out who calls");
        if (uid != 0 && uid != geteuid())
                return error_setf(error, GRPC_PERMISSION_DENIED, "Only root may do that");
        return 0;
}

static int task_fiber(void *userdata) {
        _cleanup_error_ Error error = ERROR_INIT;
        Task *t = userdata;
        int r;

        t->fiber = fiber_current();
        r = check_caller(t, &error);
        if (r >= 0)
                r = t->func(t, &error);
        if (r >= 0)
                r = sd_bus_reply_method_return(t->message, NULL);
        else {
                _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;

                (void) error_set(&error, r, "Cannot do it");
                (void) bus_error(&e, &error);
                r = sd_bus_reply_method_error(t->message, &e);
        }
        if (r < 0)
                log_debug_errno(r, "A method's caller got no reply, ignoring");
        return 0;
}

static void task_free(Task *t) {
        Bus *b = t->bus;

        DL_DELETE(b->tasks, t);
        b->n_tasks--;
        (void) pod_unref(t->pod);
        (void) container_unref(t->container);
        sd_bus_message_unref(t->message);
        free(t);
        if (b->n_tasks == 0)
                fiber_queue_wake(&b->idle, 0);
}

static void task_destroy(void *userdata) {
        task_free(userdata);
}

int bus_task_run(Bus *b, sd_bus_message *m, int (*func)(Task *t, Error *error), Pod *pod, Container *container,
                 uint64_t timeout_usec, sd_bus_error *error) {
        Task *t;
        int r;

        if (!b || b->draining)
                return sd_bus_error_set(error, BUS_NAME ".Error.Unavailable", "rktlet is ending");
        if (b->n_tasks >= TASKS_MAX)
                return sd_bus_error_setf(error, BUS_NAME ".Error.ResourceExhausted",
                                         "%u methods are under way already; try again later", TASKS_MAX);
        t = calloc(1, sizeof *t);
        if (!t)
                return -ENOMEM;
        *t = (Task) {
                .bus = b,
                .message = sd_bus_message_ref(m),
                .func = func,
                .pod = pod ? pod_ref(pod) : NULL,
                .container = container ? container_ref(container) : NULL,
                .timeout_usec = timeout_usec,
        };
        DL_APPEND(b->tasks, t);
        b->n_tasks++;
        /* It may end, and t be gone, before this returns; so the fiber is asked for itself in task_fiber(). */
        r = fiber_spawn(b->event, "bus-method", task_fiber, t, task_destroy, NULL);
        if (r < 0) {
                task_free(t);
                return r;
        }
        return 1;
}

void bus_drain_wait(Bus *b) {
        b->draining = true;
        if (b->served)
                (void) sd_bus_release_name_async(b->bus, NULL, BUS_NAME, NULL, NULL);
        b->served = false;
        for (Task *t = b->tasks; t; t = t->next)
                if (t->fiber)
                        fiber_cancel(t->fiber);
        while (b->n_tasks > 0)
                if (fiber_queue_wait(&b->idle) < 0)
                        return;
}
