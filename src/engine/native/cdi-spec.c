/* What a file of the Container Device Interface may have in it, by version of the specification. */

#include "engine/native/cdi-spec.h"

#include "basic/json-util.h"
#include "basic/string-util.h"

#define VERSION(major, minor) ((major) * 1000U + (minor))
#define VERSION_FIRST VERSION(0U, 1U)
#define VERSION_LAST VERSION(1U, 1U)

typedef enum Type {
        STRING,
        INTEGER,
        BOOLEAN,
        STRINGS,  /* an array of them */
        INTEGERS,
        OBJECT,   /* of `members` */
        OBJECTS,  /* an array of such */
        ANYTHING, /* an object that is not looked into */
} Type;

typedef struct Member {
        const char *name;
        Type type;
        bool required;
        unsigned since; /* version; 0: always */
        const struct Member *members;
} Member;

static const Member device_node[] = {
        { "path", STRING, true },     { "hostPath", STRING, .since = VERSION(0U, 5U) },
        { "type", STRING },           { "major", INTEGER },
        { "minor", INTEGER },         { "fileMode", INTEGER },
        { "permissions", STRING },    { "uid", INTEGER },
        { "gid", INTEGER },           {},
};
static const Member mount[] = {
        { "hostPath", STRING, true }, { "containerPath", STRING, true },
        { "options", STRINGS },       { "type", STRING, .since = VERSION(0U, 4U) },
        {},
};
static const Member hook[] = {
        { "hookName", STRING, true }, { "path", STRING, true }, { "args", STRINGS }, { "env", STRINGS },
        { "timeout", INTEGER },       {},
};
static const Member intel_rdt[] = {
        { "closID", STRING },     { "l3CacheSchema", STRING }, { "memBwSchema", STRING },
        { "enableCMT", BOOLEAN }, { "enableMBM", BOOLEAN },    { "schemata", STRINGS, .since = VERSION(1U, 1U) },
        { "enableMonitoring", BOOLEAN, .since = VERSION(1U, 1U) }, {},
};
static const Member edits[] = {
        { "env", STRINGS },
        { "deviceNodes", OBJECTS, .members = device_node },
        { "mounts", OBJECTS, .members = mount },
        { "hooks", OBJECTS, .members = hook },
        { "intelRdt", OBJECT, .since = VERSION(0U, 7U), .members = intel_rdt },
        { "additionalGids", INTEGERS, .since = VERSION(0U, 7U) },
        { "netDevices", ANYTHING, .since = VERSION(1U, 1U) },
        {},
};
static const Member device[] = {
        { "name", STRING, true },
        { "annotations", ANYTHING, .since = VERSION(0U, 6U) },
        { "containerEdits", OBJECT, true, .members = edits },
        {},
};
static const Member spec[] = {
        { "cdiVersion", STRING, true },
        { "kind", STRING, true },
        { "annotations", ANYTHING, .since = VERSION(0U, 6U) },
        { "devices", OBJECTS, true, .members = device },
        { "containerEdits", OBJECT, .members = edits },
        {},
};

/* --- names ------------------------------------------------------------------------------------------------------- */

static bool is_alnum(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Letters and digits at both ends, those and `others` between. */
static bool is_word(const char *s, size_t n, const char *others) {
        if (n == 0 || n > 253 || !is_alnum(s[0]) || !is_alnum(s[n - 1]))
                return false;
        for (size_t i = 0; i < n; i++)
                if (!is_alnum(s[i]) && !strchr(others, s[i]))
                        return false;
        return true;
}

bool cdi_kind_is_valid(const char *kind) {
        const char *slash = strchr(kind, '/');

        return slash && (kind[0] < '0' || kind[0] > '9') && (slash[1] < '0' || slash[1] > '9') &&
               is_word(kind, (size_t) (slash - kind), "-_.") && is_word(slash + 1, strlen(slash + 1), "-_.");
}

bool cdi_name_is_valid(const char *name) {
        return is_word(name, strlen(name), "-_.:");
}

/* "1.0.0", and "v1.0.0" of some tools. -EINVAL when it is none that is known. */
static int parse_version(const char *s, unsigned *ret) {
        unsigned major, minor, patch;
        int n = 0;

        if (*s == 'v')
                s++;
        if (sscanf(s, "%u.%u.%u%n", &major, &minor, &patch, &n) != 3 || s[n] || major > 99 || minor > 99)
                return -EINVAL;
        *ret = VERSION(major, minor);
        return *ret >= VERSION_FIRST && *ret <= VERSION_LAST ? 0 : -EINVAL;
}

/* --- members ----------------------------------------------------------------------------------------------------- */

static bool all_are(const json_t *array, json_type type) {
        const json_t *j;
        size_t i;

        if (!json_is_array(array))
                return false;
        json_array_foreach(array, i, j)
                if (json_typeof(j) != type)
                        return false;
        return true;
}

static bool has_type(const json_t *j, Type type) {
        switch (type) {
        case STRING:
                return json_is_string(j);
        case INTEGER:
                return json_is_integer(j) && json_integer_value(j) >= 0 && json_integer_value(j) <= UINT32_MAX;
        case BOOLEAN:
                return json_is_boolean(j);
        case STRINGS:
                return all_are(j, JSON_STRING);
        case INTEGERS:
                return all_are(j, JSON_INTEGER);
        case OBJECTS:
                return all_are(j, JSON_OBJECT);
        default:
                return json_is_object(j);
        }
}

static int refuse(Error *error, const char *what, const char *name) {
        return error_setf(error, GRPC_FAILED_PRECONDITION, "'%.64s' in it %s", name, what);
}

static int check_members(const json_t *o, const Member *known, unsigned version, Error *error);

static int check_value(const Member *m, const json_t *j, unsigned version, Error *error) {
        const json_t *k;
        size_t i;
        int r = 0;

        if (!has_type(j, m->type))
                return refuse(error, "is not of the right type", m->name);
        if (m->since > version)
                return refuse(error, "is not known to its version of the specification", m->name);
        if (m->type == OBJECT)
                return check_members(j, m->members, version, error);
        if (m->type == OBJECTS)
                json_array_foreach(j, i, k) {
                        r = check_members(k, m->members, version, error);
                        if (r < 0)
                                break;
                }
        return r;
}

/* As the specification wants it, what isn't known is refused. */
static int check_members(const json_t *o, const Member *known, unsigned version, Error *error) {
        const char *name;
        const json_t *j;
        int r;

        for (const Member *m = known; m->name; m++)
                if (m->required && !json_object_get(o, m->name))
                        return refuse(error, "is missing", m->name);
        json_object_foreach((json_t *) o, name, j) {
                const Member *m = known;

                while (m->name && !streq(m->name, name))
                        m++;
                if (!m->name)
                        return refuse(error, "is unknown", name);
                if (json_is_null(j))
                        continue;
                r = check_value(m, j, version, error);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int check_spec(const json_t *o, Error *error) {
        const char *version = json_get_string(o, "cdiVersion"), *kind = json_get_string(o, "kind");
        const json_t *j;
        unsigned v;
        size_t i;
        int r;

        if (!json_is_object(o) || !version)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "it has no cdiVersion");
        if (parse_version(version, &v) < 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "its cdiVersion '%.32s' is none of 0.1.0 to 1.1.0",
                                  version);
        r = check_members(o, spec, v, error);
        if (r < 0)
                return r;
        if (!cdi_kind_is_valid(strempty(kind)))
                return error_setf(error, GRPC_FAILED_PRECONDITION, "its kind '%.64s' is not of the form VENDOR/CLASS",
                                  strempty(kind));
        json_array_foreach(json_get_array(o, "devices"), i, j)
                if (!cdi_name_is_valid(strempty(json_get_string(j, "name"))))
                        return refuse(error, "is no valid name of a device", strempty(json_get_string(j, "name")));
        return 0;
}

int cdi_spec_parse(const char *text, size_t size, bool yaml, json_t **ret, Error *error) {
        _cleanup_json_ json_t *o = NULL;
        int r;

        r = yaml ? yaml_to_json(text, size, &o, error) : json_parse(text, size, &o, error);
        if (r < 0) {
                if (error && r != -ENOMEM)
                        error->code = GRPC_FAILED_PRECONDITION;
                return r;
        }
        r = check_spec(o, error);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(o);
        return 0;
}
