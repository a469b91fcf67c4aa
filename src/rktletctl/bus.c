/* Speaking to the daemon: method calls, finding objects, properties as JSON. */

#include "rktletctl/ctl.h"

int fail(int r, const sd_bus_error *e) {
        if (sd_bus_error_has_name(e, SD_BUS_ERROR_SERVICE_UNKNOWN) ||
            sd_bus_error_has_name(e, SD_BUS_ERROR_NAME_HAS_NO_OWNER))
                fputs("rktlet does not run, or has not found the system bus. See 'systemctl status rktlet'.\n",
                      stderr);
        else
                fprintf(stderr, "%s\n", sd_bus_error_is_set(e) && e->message ? e->message : strerror(-r));
        return r;
}

int call(sd_bus *bus, const char *path, const char *interface, const char *member, uint64_t timeout,
         sd_bus_message **ret, const char *types, ...) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        va_list ap;
        int r;

        r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, path, interface, member);
        if (r < 0)
                return fail(r, NULL);
        va_start(ap, types);
        r = sd_bus_message_appendv(m, types, ap);
        va_end(ap);
        /* Looking must not start anything. */
        if (r >= 0)
                r = sd_bus_message_set_auto_start(m, false);
        if (r >= 0)
                r = sd_bus_message_set_allow_interactive_authorization(m, isatty(STDIN_FILENO));
        if (r < 0)
                return fail(r, NULL);
        r = sd_bus_call(bus, m, timeout, &e, ret);
        return r < 0 ? fail(r, &e) : 0;
}

int call_list(sd_bus *bus, const char *member, const char *types, sd_bus_message **ret) {
        int r;

        r = call(bus, BUS_PATH, MANAGER_INTERFACE, member, 0, ret, "");
        if (r < 0)
                return r;
        r = sd_bus_message_enter_container(*ret, 'a', types);
        return r < 0 ? fail(r, NULL) : 0;
}

/* --- objects ----------------------------------------------------------------------------------------------------- */

void object_done(Object *o) {
        o->path = mfree(o->path);
}

static int get_object(sd_bus *bus, const char *member, const char *what, char **ret, sd_bus_error *e) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        const char *path;
        int r;

        r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, BUS_PATH, MANAGER_INTERFACE, member);
        if (r >= 0)
                r = sd_bus_message_append(m, "s", what);
        if (r >= 0)
                r = sd_bus_message_set_auto_start(m, false);
        if (r >= 0)
                r = sd_bus_call(bus, m, 0, e, &reply);
        if (r >= 0)
                r = sd_bus_message_read(reply, "o", &path);
        if (r < 0)
                return r;
        *ret = strdup(path);
        return *ret ? 0 : -ENOMEM;
}

int find_object(sd_bus *bus, const char *what, Kinds kinds, Object *ret) {
        static const struct {
                Kinds kind;
                const char *member, *interface;
        } all[] = {
                { KIND_POD, "GetPod", POD_INTERFACE },
                { KIND_CONTAINER, "GetContainer", CONTAINER_INTERFACE },
                { KIND_IMAGE, "GetImage", IMAGE_INTERFACE },
        };

        for (size_t i = 0; i < ELEMENTSOF(all); i++) {
                _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
                int r;

                if (!(kinds & all[i].kind))
                        continue;
                r = get_object(bus, all[i].member, what, &ret->path, &e);
                if (r >= 0) {
                        ret->interface = all[i].interface;
                        return 0;
                }
                if (!sd_bus_error_has_name(&e, BUS_NAME ".Error.NotFound"))
                        return fail(r, &e);
        }
        fprintf(stderr, "There is no %s%s%s with the ID, unit or name \"%s\" on this node.\n",
                kinds & KIND_POD ? "pod" : "", kinds & KIND_POD && kinds & KIND_CONTAINER ? " or " : "",
                kinds & KIND_CONTAINER   ? kinds & KIND_IMAGE ? "container or image" : "container"
                : kinds & KIND_POD ? "" : "image",
                what);
        return -ENOENT;
}

/* --- properties -------------------------------------------------------------------------------------------------- */

static int read_value(sd_bus_message *m, json_t **ret);

/* An array: of pairs becomes an object, of anything else a list. */
static int read_array(sd_bus_message *m, const char *contents, json_t **ret) {
        bool pairs = contents[0] == '{';
        json_t *j = pairs ? json_object() : json_array();
        int r;

        r = sd_bus_message_enter_container(m, 'a', contents);
        while (r >= 0 && sd_bus_message_at_end(m, false) == 0) {
                const char *key = NULL;
                json_t *value = NULL;

                if (pairs) {
                        r = sd_bus_message_enter_container(m, 'e', "ss");
                        if (r >= 0)
                                r = sd_bus_message_read(m, "s", &key);
                }
                if (r >= 0)
                        r = read_value(m, &value);
                if (r >= 0 && (pairs ? json_object_set_new(j, key, value) : json_array_append_new(j, value)) < 0)
                        r = -ENOMEM;
                if (r >= 0 && pairs)
                        r = sd_bus_message_exit_container(m);
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        if (r < 0) {
                json_decref(j);
                return r;
        }
        *ret = j;
        return 0;
}

static int read_value(sd_bus_message *m, json_t **ret) {
        const char *contents;
        union {
                const char *s;
                uint32_t u;
                int32_t i;
                uint64_t t;
                int b;
        } v;
        char type;
        int r;

        r = sd_bus_message_peek_type(m, &type, &contents);
        if (r < 0)
                return r;
        if (type == 'a')
                return read_array(m, contents, ret);
        if (!strchr("souitb", type))
                return -EOPNOTSUPP;
        r = sd_bus_message_read_basic(m, type, &v);
        if (r < 0)
                return r;
        *ret = type == 's' || type == 'o' ? json_string(v.s)
               : type == 'u'              ? json_integer(v.u)
               : type == 'i'              ? json_integer(v.i)
               : type == 't'              ? json_integer((json_int_t) v.t)
                                          : json_boolean(v.b);
        return *ret ? 0 : -ENOMEM;
}

int read_properties(sd_bus *bus, const char *path, const char *interface, json_t **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_json_ json_t *j = json_object();
        int r;

        r = call(bus, path, "org.freedesktop.DBus.Properties", "GetAll", 0, &m, "s", interface);
        if (r < 0)
                return r;
        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                const char *name, *contents;
                json_t *value = NULL;

                r = sd_bus_message_read(m, "s", &name);
                if (r >= 0)
                        r = sd_bus_message_peek_type(m, NULL, &contents);
                if (r >= 0)
                        r = sd_bus_message_enter_container(m, 'v', contents);
                if (r >= 0)
                        r = read_value(m, &value);
                if (r >= 0 && json_object_set_new(j, name, value) < 0)
                        r = -ENOMEM;
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        if (r < 0)
                return fail(r, NULL);
        *ret = json_incref(j);
        return 0;
}
