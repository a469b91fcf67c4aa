/* The connection to PID 1: made on first use, made again when it breaks, and the signals of the manager object that
 * everything else here hangs on.
 *
 * The system bus is preferred; without one, root speaks to PID 1's private socket. Two things break: the bus itself
 * (Disconnected, then a new connection), and PID 1's end of it at a re-execution (its name loses its owner, while ours
 * lives on). Both count as a new generation: signals may have been lost, so whoever waits for one has a look. */

#include <stdarg.h>

#include "basic/log.h"
#include "basic/string-util.h"
#include "systemd/internal.h"

static int connection_open(Systemd *s);
static int schedule_retry(Systemd *s, uint64_t usec);

int systemd_new(sd_event *event, Systemd **ret) {
        _cleanup_(systemd_freep) Systemd *s = NULL;

        s = calloc(1, sizeof *s);
        if (!s)
                return -ENOMEM;
        s->event = sd_event_ref(event);
        s->retry_usec = CONNECT_RETRY_MIN_USEC;
        s->bus_address = strdup("unix:path=/run/dbus/system_bus_socket");
        s->private_address = strdup("unix:path=/run/systemd/private");
        if (!s->bus_address || !s->private_address)
                return -ENOMEM;
        *ret = TAKE_PTR(s);
        return 0;
}

int systemd_set_addresses(Systemd *s, const char *bus_address, const char *private_address) {
        char *b = bus_address ? strdup(bus_address) : NULL, *p = private_address ? strdup(private_address) : NULL;

        free(s->bus_address);
        free(s->private_address);
        s->bus_address = b;
        s->private_address = p;
        return (bus_address && !b) || (private_address && !p) ? -ENOMEM : 0;
}

static void connection_close(Systemd *s) {
        watches_disconnected(s);
        /* sd-bus forgets the calls of a connection that is closed on purpose. */
        for (CallWait *w = s->calls; w; w = w->next)
                fiber_wake(w->fiber, -ECONNRESET);
        s->state = CONNECTION_DOWN;
        s->reloading = false;
        s->owner = mfree(s->owner);
        if (s->bus) {
                (void) sd_bus_detach_event(s->bus);
                sd_bus_close(s->bus);
                s->bus = sd_bus_unref(s->bus);
        }
}

Systemd *systemd_free(Systemd *s) {
        if (!s)
                return NULL;
        connection_close(s);
        while (s->watches)
                (void) unit_watch_free(s->watches);
        systemd_forget_running(s);
        sd_event_source_disable_unref(s->retry);
        sd_event_unref(s->event);
        free(s->version);
        free(s->last_error);
        free(s->bus_address);
        free(s->private_address);
        free(s);
        return NULL;
}

bool systemd_is_connected(const Systemd *s) {
        return s->state == CONNECTION_UP;
}

const char *systemd_version(const Systemd *s) {
        return s->version;
}

bool systemd_sent(const Systemd *s, sd_bus_message *m) {
        return s->is_private || (s->owner && streq_ptr(sd_bus_message_get_sender(m), s->owner));
}

/* --- up and down ------------------------------------------------------------------------------------------------ */

static void remember_error(Systemd *s, const char *format, ...) _printf_(2, 3);
static void remember_error(Systemd *s, const char *format, ...) {
        va_list ap;

        s->last_error = mfree(s->last_error);
        va_start(ap, format);
        if (vasprintf(&s->last_error, format, ap) < 0)
                s->last_error = NULL;
        va_end(ap);
        log_debug("%s", strempty(s->last_error));
}

/* Everything is subscribed to: from here on nothing is missed. */
static void connection_up(Systemd *s) {
        s->state = CONNECTION_UP;
        s->generation++;
        s->retry_usec = CONNECT_RETRY_MIN_USEC;
        s->last_error = mfree(s->last_error);
        log_debug("Connected to systemd %s over %s", strempty(s->version),
                  s->is_private ? "its private socket" : "D-Bus");
        fiber_queue_wake(&s->connect_queue, 0);
        jobs_look_again(s);
        watches_connected(s);
}

/* The bus object may be in use further up the stack, so it is put away from the loop. */
static void connection_lost(Systemd *s, const char *why) {
        if (s->state == CONNECTION_DOWN && s->retry)
                return;
        remember_error(s, "The connection to systemd broke: %s", why);
        s->state = CONNECTION_DOWN;
        (void) schedule_retry(s, 0);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        Systemd *s = userdata;

        s->retry = sd_event_source_disable_unref(s->retry);
        connection_close(s);
        (void) connection_open(s);
        return 0;
}

static int schedule_retry(Systemd *s, uint64_t usec) {
        int r;

        s->retry = sd_event_source_disable_unref(s->retry);
        r = sd_event_add_time_relative(s->event, &s->retry, CLOCK_MONOTONIC, usec, USEC_PER_MSEC, on_retry, s);
        if (r < 0)
                remember_error(s, "Cannot plan another try to reach systemd: %s", strerror(-r));
        return r;
}

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        connection_lost(userdata, "the other end closed it");
        return 0;
}

static int on_version(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Systemd *s = userdata;
        const sd_bus_error *e = sd_bus_message_get_error(m);
        const char *version;
        char *copy;

        if (e) {
                /* PID 1 went away once more in the meantime: its next appearance starts this again. */
                if (!s->is_private && systemd_error_is_cut_off(-sd_bus_error_get_errno(e), e)) {
                        remember_error(s, "systemd does not answer: %s", strempty(e->message));
                        return schedule_retry(s, CONNECT_RETRY_MAX_USEC);
                }
                connection_lost(s, strempty(e->message));
                return 0;
        }
        if (sd_bus_message_read(m, "v", "s", &version) < 0) {
                connection_lost(s, "its Version property is no string");
                return 0;
        }
        copy = strdup(version);
        if (!copy) {
                connection_lost(s, "out of memory");
                return 0;
        }
        free(s->version);
        s->version = copy;
        s->retry = sd_event_source_disable_unref(s->retry);
        if (!s->is_private) {
                /* The name of the one that answers: signals are believed from it alone. */
                copy = strdup(strempty(sd_bus_message_get_sender(m)));
                if (!copy) {
                        connection_lost(s, "out of memory");
                        return 0;
                }
                free(s->owner);
                s->owner = copy;
        }
        connection_up(s);
        return 0;
}

/* Asks for the manager's signals, and then for its version: that answer says that the subscription holds. */
static int subscribe(Systemd *s) {
        int r;

        s->state = CONNECTION_SETUP;
        if (!s->is_private) {
                _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

                r = systemd_manager_call_new(s, "Subscribe", &m);
                if (r < 0)
                        return r;
                /* AlreadySubscribed is as good; anything else shows in the next call. */
                r = sd_bus_message_set_expect_reply(m, false);
                if (r < 0)
                        return r;
                r = sd_bus_send(s->bus, m, NULL);
                if (r < 0)
                        return r;
        }
        return sd_bus_call_method_async(s->bus, NULL, SYSTEMD_NAME, SYSTEMD_PATH, PROPERTIES_INTERFACE, "Get",
                                        on_version, s, "ss", SYSTEMD_MANAGER, "Version");
}

/* --- signals of the manager object ------------------------------------------------------------------------------ */

static int on_name_owner_changed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *name, *old_owner, *new_owner;
        Systemd *s = userdata;
        int r;

        r = sd_bus_message_read(m, "sss", &name, &old_owner, &new_owner);
        if (r < 0 || !streq(name, SYSTEMD_NAME))
                return 0;
        log_debug("%s went from \"%s\" to \"%s\"", name, old_owner, new_owner);
        if (isempty(new_owner)) {
                /* Calls wait until it is back. */
                if (s->state == CONNECTION_UP)
                        s->state = CONNECTION_SETUP;
                s->owner = mfree(s->owner);
                s->reloading = false;
                return 0;
        }
        r = subscribe(s);
        if (r < 0)
                connection_lost(s, strerror(-r));
        return 0;
}

static int on_job_removed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *job, *unit, *result;
        Systemd *s = userdata;
        uint32_t id;

        if (systemd_sent(s, m) && sd_bus_message_read(m, "uoss", &id, &job, &unit, &result) >= 0)
                jobs_removed(s, job, unit, result);
        return 0;
}

static int on_unit_removed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Systemd *s = userdata;
        const char *unit, *path;

        if (systemd_sent(s, m) && sd_bus_message_read(m, "so", &unit, &path) >= 0)
                watches_unit_removed(s, path);
        return 0;
}

static int on_reloading(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Systemd *s = userdata;
        int active;

        if (!systemd_sent(s, m) || sd_bus_message_read(m, "b", &active) < 0)
                return 0;
        s->reloading = active;
        if (!active) {
                s->generation++;
                jobs_look_again(s);
                watches_reloaded(s);
        }
        return 0;
}

/* Adds a match whose installation is not waited for: a bus carries out a connection's calls in order, so whatever is
 * called afterwards finds it there. PID 1's private socket has no bus that would need to know. */
int systemd_match(Systemd *s, sd_bus_slot **ret, const char *path, const char *interface, const char *member,
                  const char *rest, sd_bus_message_handler_t func, void *userdata) {
        _cleanup_free_ char *rule = NULL;

        if (asprintf(&rule, "type='signal'%s,path%s='%s',interface='%s',member='%s'%s",
                     s->is_private ? "" : ",sender='" SYSTEMD_NAME "'", endswith(path, "/unit") ? "_namespace" : "",
                     path, interface, member, rest) < 0)
                return -ENOMEM;
        return sd_bus_add_match_async(s->bus, ret, rule, func, NULL, userdata);
}

static int add_matches(Systemd *s) {
        static const struct {
                const char *member;
                sd_bus_message_handler_t func;
        } signals[] = {
                { "JobRemoved", on_job_removed },
                { "UnitRemoved", on_unit_removed },
                { "Reloading", on_reloading },
        };
        int r;

        r = sd_bus_add_match_async(s->bus, NULL,
                                   "type='signal',sender='org.freedesktop.DBus.Local',"
                                   "path='/org/freedesktop/DBus/Local',interface='org.freedesktop.DBus.Local',"
                                   "member='Disconnected'",
                                   on_disconnected, NULL, s);
        if (r < 0)
                return r;
        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                r = systemd_match(s, NULL, SYSTEMD_PATH, SYSTEMD_MANAGER, signals[i].member, "", signals[i].func, s);
                if (r < 0)
                        return r;
        }
        if (s->is_private)
                return 0;
        return sd_bus_add_match_async(s->bus, NULL,
                                      "type='signal',sender='org.freedesktop.DBus',path='/org/freedesktop/DBus',"
                                      "interface='org.freedesktop.DBus',member='NameOwnerChanged',"
                                      "arg0='" SYSTEMD_NAME "'",
                                      on_name_owner_changed, NULL, s);
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

static int open_address(Systemd *s, const char *address, bool is_private) {
        int r;

        s->is_private = is_private;
        r = sd_bus_new(&s->bus);
        if (r < 0)
                return r;
        r = sd_bus_set_description(s->bus, is_private ? "systemd-private" : "systemd");
        if (r < 0)
                return r;
        r = sd_bus_set_address(s->bus, address);
        if (r < 0)
                return r;
        r = sd_bus_set_bus_client(s->bus, !is_private);
        if (r < 0)
                return r;
        r = sd_bus_negotiate_fds(s->bus, true);
        if (r < 0)
                return r;
        r = sd_bus_start(s->bus);
        if (r < 0)
                return r;
        r = sd_bus_attach_event(s->bus, s->event, SD_EVENT_PRIORITY_NORMAL);
        if (r < 0)
                return r;
        r = add_matches(s);
        if (r < 0)
                return r;
        return subscribe(s);
}

static int connection_open(Systemd *s) {
        int bus_error = -ENOENT, private_error = -ENOENT;

        s->started = true;
        if (s->bus_address) {
                bus_error = open_address(s, s->bus_address, /* is_private= */ false);
                if (bus_error >= 0)
                        return 0;
                connection_close(s);
        }
        if (s->private_address) {
                private_error = open_address(s, s->private_address, /* is_private= */ true);
                if (private_error >= 0)
                        return 0;
                connection_close(s);
        }
        remember_error(s, "Neither the system bus (%s) nor systemd's private socket (%s) can be reached",
                       strerror(-bus_error), strerror(-private_error));
        s->retry_usec = MIN(s->retry_usec * 2, CONNECT_RETRY_MAX_USEC);
        (void) schedule_retry(s, s->retry_usec);
        return bus_error;
}

void systemd_start(Systemd *s) {
        if (!s->started)
                (void) connection_open(s);
}

static int connect_until(Systemd *s, uint64_t until, Error *error) {
        int r;

        systemd_start(s);
        while (s->state != CONNECTION_UP) {
                r = fiber_queue_wait_until(&s->connect_queue, until);
                if (r == -ETIMEDOUT)
                        return error_setf(error, GRPC_UNAVAILABLE, "systemd does not answer (%s). Is dbus running, "
                                          "and is systemd PID 1?", s->last_error ? s->last_error : "no reply yet"),
                               -ENOTCONN;
                if (r < 0)
                        return error_set(error, r, "Cannot wait for a connection to systemd");
        }
        return 0;
}

int systemd_connect(Systemd *s, Error *error) {
        return connect_until(s, now_usec(CLOCK_MONOTONIC) + CONNECT_WAIT_USEC, error);
}

/* --- calls ------------------------------------------------------------------------------------------------------ */

int systemd_manager_call_new(Systemd *s, const char *member, sd_bus_message **ret) {
        return sd_bus_message_new_method_call(s->bus, ret, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER, member);
}

bool systemd_error_is_cut_off(int r, const sd_bus_error *e) {
        static const char *const names[] = {
                SD_BUS_ERROR_NO_REPLY,
                SD_BUS_ERROR_DISCONNECTED,
                SD_BUS_ERROR_TIMEOUT,
                SD_BUS_ERROR_SERVICE_UNKNOWN,
                SD_BUS_ERROR_NAME_HAS_NO_OWNER,
                "org.freedesktop.DBus.Error.TimedOut",
                "org.freedesktop.DBus.Error.LimitsExceeded",
                "org.freedesktop.DBus.Error.Spawn.ChildExited",
        };

        if (sd_bus_error_is_set(e)) {
                for (size_t i = 0; i < ELEMENTSOF(names); i++)
                        if (sd_bus_error_has_name(e, names[i]))
                                return true;
                return false;
        }
        return r == -ECONNRESET || r == -ENOTCONN || r == -EPIPE || r == -ESHUTDOWN || r == -ECONNREFUSED;
}

int systemd_call_once(Systemd *s, MessageBuilder build, const void *userdata, uint64_t until, sd_bus_error *ret_error,
                      sd_bus_message **ret_reply, Error *error) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(sd_bus_unrefp) sd_bus *bus = NULL;
        uint64_t now = now_usec(CLOCK_MONOTONIC);
        CallWait wait;
        int r;

        for (;;) {
                r = connect_until(s, MIN(until, now + CONNECT_WAIT_USEC), error);
                if (r < 0)
                        return r;
                if (s->n_calls < CALLS_MAX)
                        break;
                r = fiber_queue_wait_until(&s->call_queue, until);
                if (r < 0)
                        return error_set(error, r, "Cannot wait for systemd");
        }

        r = build(s, userdata, &m);
        if (r < 0)
                return error_set(error, r, "Cannot put together a call to systemd");
        bus = sd_bus_ref(s->bus);
        now = now_usec(CLOCK_MONOTONIC);
        wait = (CallWait) { .fiber = fiber_current(), .next = s->calls };
        s->calls = &wait;
        s->n_calls++;
        r = fiber_bus_call(bus, m, MIN(CALL_USEC, until > now ? until - now : 1), ret_error, ret_reply);
        s->n_calls--;
        for (CallWait **p = &s->calls; *p; p = &(*p)->next)
                if (*p == &wait) {
                        *p = wait.next;
                        break;
                }
        fiber_queue_wake(&s->call_queue, 0);
        if (r >= 0)
                return 0;
        if (systemd_error_is_cut_off(r, ret_error)) {
                log_debug("%s was cut off: %s", sd_bus_message_get_member(m),
                          sd_bus_error_is_set(ret_error) ? ret_error->message : strerror(-r));
                sd_bus_error_free(ret_error);
                return -ECONNRESET;
        }
        if (!sd_bus_error_is_set(ret_error))
                return error_set(error, r, "Cannot call systemd's %s", sd_bus_message_get_member(m));
        return r;
}

int systemd_call(Systemd *s, MessageBuilder build, const void *userdata, uint64_t until, sd_bus_error *ret_error,
                 sd_bus_message **ret_reply, Error *error) {
        uint64_t give_up = MIN(until, now_usec(CLOCK_MONOTONIC) + CONNECT_WAIT_USEC), pause = 10 * USEC_PER_MSEC;

        for (;;) {
                int r;

                r = systemd_call_once(s, build, userdata, until, ret_error, ret_reply, error);
                if (r != -ECONNRESET)
                        return r;
                if (now_usec(CLOCK_MONOTONIC) >= give_up)
                        return error_setf(error, GRPC_UNAVAILABLE, "systemd does not answer"), -ENOTCONN;
                /* The news of a broken connection may still be on its way to us: don't spin until it is here. */
                r = fiber_sleep(pause);
                if (r < 0)
                        return error_set(error, r, "Cannot wait for systemd");
                pause = MIN(pause * 2, USEC_PER_SEC);
        }
}

int systemd_error(Error *error, const sd_bus_error *e, int r, const char *format, ...) {
        static const struct {
                const char *name;
                GrpcCode code;
                int r;
        } table[] = {
                { SYSTEMD_NAME ".UnitExists", GRPC_ALREADY_EXISTS, -EEXIST },
                { SYSTEMD_NAME ".NoSuchUnit", GRPC_NOT_FOUND, -ENOENT },
                { SYSTEMD_NAME ".NoSuchProcess", GRPC_NOT_FOUND, -ESRCH },
                { SYSTEMD_NAME ".BadUnitSetting", GRPC_INVALID_ARGUMENT, -EINVAL },
                { SD_BUS_ERROR_INVALID_ARGS, GRPC_INVALID_ARGUMENT, -EINVAL },
                { SD_BUS_ERROR_PROPERTY_READ_ONLY, GRPC_INVALID_ARGUMENT, -EINVAL },
                { SD_BUS_ERROR_ACCESS_DENIED, GRPC_PERMISSION_DENIED, -EACCES },
                { SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED, GRPC_PERMISSION_DENIED, -EACCES },
                { SD_BUS_ERROR_NO_MEMORY, GRPC_RESOURCE_EXHAUSTED, -ENOMEM },
        };
        _cleanup_free_ char *text = NULL;
        GrpcCode code = grpc_code_from_errno(r);
        va_list ap;
        int n;

        if (r >= 0 || !sd_bus_error_is_set(e))
                return r; /* the cause has set the error already */
        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (sd_bus_error_has_name(e, table[i].name)) {
                        code = table[i].code;
                        r = table[i].r;
                }
        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0)
                text = NULL;
        (void) error_setf(error, code, "%s: systemd says: %s", text ? text : "Cannot do it",
                          isempty(e->message) ? e->name : e->message);
        return r;
}
