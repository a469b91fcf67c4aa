/* The properties of a transient unit: a list of names and typed values that becomes the a(sv) of StartTransientUnit
 * and SetUnitProperties. It is kept as plain values, not as a message, because a message belongs to one connection
 * and a cut-off call is sent again over the next. */

#include "systemd/properties.h"

#include <fcntl.h>

#include "basic/string-util.h"

/* More than any unit of ours needs; a list beyond it is a bug that PID 1 should not have to suffer. */
#define PROPERTIES_MAX 256U

typedef enum PropertyType {
        PROPERTY_STRING,
        PROPERTY_BOOL,
        PROPERTY_I32,
        PROPERTY_U32,
        PROPERTY_U64,
        PROPERTY_STRV,
        PROPERTY_BYTES,
        PROPERTY_FD,
        PROPERTY_EXEC,
        PROPERTY_DEVICE_ALLOW,
        PROPERTY_LOG_FIELDS,
} PropertyType;

typedef struct Property {
        PropertyType type;
        char *name;
        char *string, *string2; /* STRING; path of EXEC; device and access of DEVICE_ALLOW; data of BYTES */
        char **strv;            /* STRV, LOG_FIELDS, arguments of EXEC */
        uint64_t number;        /* BOOL, I32, U32, U64; size of BYTES */
        int fd;
} Property;

struct UnitProperties {
        Property *items;
        size_t n, allocated;
        int error; /* the first failure */
};

static void property_done(Property *p) {
        free(p->name);
        free(p->string);
        free(p->string2);
        strv_free(p->strv);
        (void) safe_close(p->fd);
}

int unit_properties_new(UnitProperties **ret) {
        UnitProperties *p = calloc(1, sizeof *p);

        if (!p)
                return -ENOMEM;
        *ret = p;
        return 0;
}

UnitProperties *unit_properties_free(UnitProperties *p) {
        if (!p)
                return NULL;
        for (size_t i = 0; i < p->n; i++)
                property_done(p->items + i);
        free(p->items);
        free(p);
        return NULL;
}

static int fail(UnitProperties *p, int r) {
        if (p->error >= 0)
                p->error = r;
        return r;
}

/* A fresh item at the end of the list, which already counts; the caller fills it or calls fail(). */
static int add(UnitProperties *p, PropertyType type, const char *name, Property **ret) {
        Property *item;

        if (p->error < 0)
                return p->error;
        if (isempty(name))
                return fail(p, -EINVAL);
        if (p->n >= PROPERTIES_MAX)
                return fail(p, -E2BIG);
        if (p->n == p->allocated) {
                size_t n = p->allocated ? p->allocated * 2 : 16;

                item = realloc(p->items, n * sizeof *item);
                if (!item)
                        return fail(p, -ENOMEM);
                p->items = item;
                p->allocated = n;
        }
        item = p->items + p->n;
        *item = (Property) { .type = type, .fd = -1 };
        item->name = strdup(name);
        if (!item->name)
                return fail(p, -ENOMEM);
        p->n++;
        *ret = item;
        return 0;
}

static int add_number(UnitProperties *p, PropertyType type, const char *name, uint64_t value) {
        Property *item;
        int r;

        r = add(p, type, name, &item);
        if (r < 0)
                return r;
        item->number = value;
        return 0;
}

/* systemd refuses strings with control characters only sometimes; sd-bus refuses what is not UTF-8 with an -EINVAL
 * that names nothing, so that is found here, where the property is known. */
static int add_text(UnitProperties *p, const char *value, char **ret) {
        if (!value || !utf8_is_valid(value, strlen(value)))
                return fail(p, -EINVAL);
        *ret = strdup(value);
        return *ret ? 0 : fail(p, -ENOMEM);
}

static int add_list(UnitProperties *p, char *const *value, char ***ret) {
        char **copy = NULL;

        STRV_FOREACH(s, value)
                if (!utf8_is_valid(*s, strlen(*s)))
                        return fail(p, -EINVAL);
        if (value) {
                copy = strv_copy(value);
                if (!copy)
                        return fail(p, -ENOMEM);
        }
        *ret = copy;
        return 0;
}

int unit_properties_add_string(UnitProperties *p, const char *name, const char *value) {
        Property *item;
        int r;

        r = add(p, PROPERTY_STRING, name, &item);
        if (r < 0)
                return r;
        return add_text(p, value, &item->string);
}

int unit_properties_add_bool(UnitProperties *p, const char *name, bool value) {
        return add_number(p, PROPERTY_BOOL, name, value);
}

int unit_properties_add_i32(UnitProperties *p, const char *name, int32_t value) {
        return add_number(p, PROPERTY_I32, name, (uint32_t) value);
}

int unit_properties_add_u32(UnitProperties *p, const char *name, uint32_t value) {
        return add_number(p, PROPERTY_U32, name, value);
}

int unit_properties_add_u64(UnitProperties *p, const char *name, uint64_t value) {
        return add_number(p, PROPERTY_U64, name, value);
}

int unit_properties_add_strv(UnitProperties *p, const char *name, char *const *value) {
        Property *item;
        int r;

        r = add(p, PROPERTY_STRV, name, &item);
        if (r < 0)
                return r;
        return add_list(p, value, &item->strv);
}

int unit_properties_add_bytes(UnitProperties *p, const char *name, const void *data, size_t size) {
        Property *item;
        int r;

        r = add(p, PROPERTY_BYTES, name, &item);
        if (r < 0)
                return r;
        item->string = malloc(MAX(size, (size_t) 1));
        if (!item->string)
                return fail(p, -ENOMEM);
        if (size > 0)
                memcpy(item->string, data, size);
        item->number = size;
        return 0;
}

int unit_properties_add_fd(UnitProperties *p, const char *name, int fd) {
        Property *item;
        int r;

        r = add(p, PROPERTY_FD, name, &item);
        if (r < 0)
                return r;
        item->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return item->fd < 0 ? fail(p, -errno) : 0;
}

/* systemd replaces $X and ${X} in every argument when it executes the command, and makes $$ into $. Specifiers (%n) it
 * expands in unit files only, not in what comes over D-Bus; it doubles them itself where it writes the unit's file. */
static char *escape_argument(const char *s) {
        size_t n = 0;
        char *e, *q;

        for (const char *c = s; *c; c++)
                n += *c == '$' ? 2 : 1;
        e = q = malloc(n + 1);
        if (!e)
                return NULL;
        for (; *s; s++) {
                if (*s == '$')
                        *q++ = '$';
                *q++ = *s;
        }
        *q = 0;
        return e;
}

int unit_properties_add_exec(UnitProperties *p, const char *name, const char *path, char *const *argv) {
        Property *item;
        int r;

        r = add(p, PROPERTY_EXEC, name, &item);
        if (r < 0)
                return r;
        if (!path || path[0] != '/' || !argv || !argv[0])
                return fail(p, -EINVAL);
        r = add_text(p, path, &item->string);
        if (r < 0)
                return r;
        STRV_FOREACH(a, argv) {
                _cleanup_free_ char *e = NULL;

                if (!utf8_is_valid(*a, strlen(*a)))
                        return fail(p, -EINVAL);
                e = escape_argument(*a);
                if (!e || strv_push(&item->strv, e) < 0)
                        return fail(p, -ENOMEM);
                TAKE_PTR(e);
        }
        return 0;
}

int unit_properties_add_device_allow(UnitProperties *p, const char *device, const char *access) {
        Property *item;
        int r;

        r = add(p, PROPERTY_DEVICE_ALLOW, "DeviceAllow", &item);
        if (r < 0)
                return r;
        r = add_text(p, device, &item->string);
        if (r < 0)
                return r;
        return add_text(p, access, &item->string2);
}

int unit_properties_add_log_fields(UnitProperties *p, char *const *fields) {
        Property *item;
        int r;

        /* Bytes to systemd and to the journal: they need not be UTF-8. */
        r = add(p, PROPERTY_LOG_FIELDS, "LogExtraFields", &item);
        if (r < 0)
                return r;
        item->strv = strv_copy(fields);
        return fields && !item->strv ? fail(p, -ENOMEM) : 0;
}

const char *unit_properties_description(const UnitProperties *p) {
        for (size_t i = 0; i < p->n; i++)
                if (p->items[i].type == PROPERTY_STRING && streq(p->items[i].name, "Description"))
                        return p->items[i].string;
        return NULL;
}

static int append_bytes_list(sd_bus_message *m, char *const *l) {
        int r;

        r = sd_bus_message_open_container(m, 'v', "aay");
        if (r < 0)
                return r;
        r = sd_bus_message_open_container(m, 'a', "ay");
        if (r < 0)
                return r;
        STRV_FOREACH(s, l) {
                r = sd_bus_message_append_array(m, 'y', *s, strlen(*s));
                if (r < 0)
                        return r;
        }
        r = sd_bus_message_close_container(m);
        if (r < 0)
                return r;
        return sd_bus_message_close_container(m);
}

static int append_array(sd_bus_message *m, const char *contents, const Property *p) {
        int r;

        r = sd_bus_message_open_container(m, 'v', contents);
        if (r < 0)
                return r;
        if (p->type == PROPERTY_STRV)
                r = sd_bus_message_append_strv(m, p->strv);
        else
                r = sd_bus_message_append_array(m, 'y', p->string, p->number);
        if (r < 0)
                return r;
        return sd_bus_message_close_container(m);
}

static int append_exec(sd_bus_message *m, const Property *p) {
        static const char open[] = { 'v', 'a', 'r', 0 };
        static const char *const contents[] = { "a(sasb)", "(sasb)", "sasb" };
        int r;

        for (size_t i = 0; i < ELEMENTSOF(contents); i++) {
                r = sd_bus_message_open_container(m, open[i], contents[i]);
                if (r < 0)
                        return r;
        }
        r = sd_bus_message_append(m, "s", p->string);
        if (r < 0)
                return r;
        r = sd_bus_message_append_strv(m, p->strv);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "b", /* ignore failure= */ 0);
        if (r < 0)
                return r;
        for (size_t i = 0; i < ELEMENTSOF(contents); i++) {
                r = sd_bus_message_close_container(m);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int append_value(sd_bus_message *m, const Property *p) {
        switch (p->type) {
        case PROPERTY_STRING:
                return sd_bus_message_append(m, "v", "s", p->string);
        case PROPERTY_BOOL:
                return sd_bus_message_append(m, "v", "b", (int) p->number);
        case PROPERTY_I32:
                return sd_bus_message_append(m, "v", "i", (int32_t) (uint32_t) p->number);
        case PROPERTY_U32:
                return sd_bus_message_append(m, "v", "u", (uint32_t) p->number);
        case PROPERTY_U64:
                return sd_bus_message_append(m, "v", "t", p->number);
        case PROPERTY_STRV:
                return append_array(m, "as", p);
        case PROPERTY_BYTES:
                return append_array(m, "ay", p);
        case PROPERTY_FD:
                return sd_bus_message_append(m, "v", "h", p->fd);
        case PROPERTY_EXEC:
                return append_exec(m, p);
        case PROPERTY_DEVICE_ALLOW:
                return sd_bus_message_append(m, "v", "a(ss)", 1, p->string, p->string2);
        case PROPERTY_LOG_FIELDS:
                return append_bytes_list(m, p->strv);
        default:
                return -EINVAL;
        }
}

int unit_properties_append(const UnitProperties *p, sd_bus_message *m) {
        int r;

        if (p->error < 0)
                return p->error;
        r = sd_bus_message_open_container(m, 'a', "(sv)");
        if (r < 0)
                return r;
        for (size_t i = 0; i < p->n; i++) {
                r = sd_bus_message_open_container(m, 'r', "sv");
                if (r < 0)
                        return r;
                r = sd_bus_message_append(m, "s", p->items[i].name);
                if (r < 0)
                        return r;
                r = append_value(m, p->items + i);
                if (r < 0)
                        return r;
                r = sd_bus_message_close_container(m);
                if (r < 0)
                        return r;
        }
        return sd_bus_message_close_container(m);
}
