/* CDI devices: which file has each, and what that makes of the OCI runtime configuration. */

#include "engine/native/cdi.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/string-util.h"
#include "engine/native/cdi-spec.h"
#include "engine/native/oci-mounts.h"

const char *const cdi_folders[] = { "/etc/cdi", "/var/run/cdi", NULL };

typedef struct Spec {
        json_t *json;
        char *path;
        size_t folder; /* later ones win */
        bool used;     /* its own edits are in the configuration */
} Spec;

typedef struct Cdi {
        Spec specs[CDI_FILES_MAX];
        size_t n_specs, n_files;
        char *flaw; /* of the first file that can't be used, for errors */
        const char *folder_path;
        size_t folder;
        json_t *config;
        UnitProperties *properties;
        Error *error;
} Cdi;

static void cdi_done(Cdi *c) {
        for (size_t i = 0; i < c->n_specs; i++) {
                json_decref(c->specs[i].json);
                free(c->specs[i].path);
        }
        free(c->flaw);
}

/* --- files ------------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end) {
        size_t n = strlen(s), m = strlen(end);

        return n > m && streq(s + n - m, end);
}

/* A file that can't be used is none: others may have the device. */
static int set_aside(Cdi *c, const char *path, const char *why) {
        if (!c->flaw)
                c->flaw = strprintf("%s: %s", path, why);
        return c->flaw ? 0 : error_oom(c->error);
}

static int load_file(int dir_fd, const char *name, void *userdata) {
        Cdi *c = userdata;
        _cleanup_free_ char *path = NULL, *text = NULL;
        _cleanup_error_ Error why = ERROR_INIT;
        json_t *json = NULL;
        struct stat st;
        size_t size;
        int r;

        if (name[0] == '.' || (!ends_with(name, ".json") && !ends_with(name, ".yaml")))
                return 0;
        if (++c->n_files > CDI_FILES_MAX)
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "there are more than %u CDI files", CDI_FILES_MAX);
        path = strprintf("%s/%s", c->folder_path, name);
        if (!path)
                return error_oom(c->error);
        if (fstatat(dir_fd, name, &st, 0) < 0)
                return errno == ENOENT ? 0 : set_aside(c, path, strerror(errno));
        if (!S_ISREG(st.st_mode))
                return set_aside(c, path, "it is no regular file");
        r = read_file(dir_fd, name, CDI_FILE_SIZE_MAX, &text, &size);
        if (r < 0)
                return set_aside(c, path, r == -E2BIG ? "it is too large" : strerror(-r));
        r = cdi_spec_parse(text, size, ends_with(name, ".yaml"), &json, &why);
        if (r < 0)
                return set_aside(c, path, strempty(why.message));
        c->specs[c->n_specs++] = (Spec) { .json = json, .path = TAKE_PTR(path), .folder = c->folder };
        return 0;
}

static int load_all(Cdi *c, const char *const *folders) {
        int r;

        for (c->folder = 0; folders[c->folder]; c->folder++) {
                c->folder_path = folders[c->folder];
                r = directory_foreach(AT_FDCWD, c->folder_path, load_file, c);
                if (r < 0 && r != -ENOENT && r != -ENOTDIR)
                        return error_set(c->error, r, "cannot read %s", c->folder_path);
        }
        return 0;
}

static json_t *find_in_spec(const Spec *s, const char *kind, size_t n_kind, const char *name) {
        const char *own = strempty(json_get_string(s->json, "kind"));
        json_t *device;
        size_t i;

        if (strncmp(own, kind, n_kind) != 0 || own[n_kind])
                return NULL;
        json_array_foreach(json_get_array(s->json, "devices"), i, device)
                if (streq_ptr(json_get_string(device, "name"), name))
                        return device;
        return NULL;
}

static int find_device(Cdi *c, const char *full, const char *const *folders, Spec **ret_spec, json_t **ret) {
        const char *equals = strchr(full, '=');
        _cleanup_free_ char *kind = equals ? strndup(full, (size_t) (equals - full)) : NULL;
        Spec *found = NULL;
        json_t *device = NULL;

        if (equals && !kind)
                return error_oom(c->error);
        if (!equals || !cdi_kind_is_valid(kind) || !cdi_name_is_valid(equals + 1))
                return error_setf(c->error, GRPC_INVALID_ARGUMENT,
                                  "'%.128s' is no name of a CDI device: VENDOR/CLASS=NAME", full);
        for (size_t i = 0; i < c->n_specs; i++) {
                Spec *s = &c->specs[i];
                json_t *d = find_in_spec(s, kind, strlen(kind), equals + 1);

                if (!d || (found && found->folder > s->folder))
                        continue;
                if (found && found->folder == s->folder)
                        return error_setf(c->error, GRPC_FAILED_PRECONDITION,
                                          "CDI device %.128s is in two files, %s and %s", full, found->path, s->path);
                found = s;
                device = d;
        }
        if (!found)
                return error_setf(c->error, GRPC_FAILED_PRECONDITION,
                                  "CDI device %.128s is not on this node: no file in %s or %s has it%s%s%s", full,
                                  folders[0], strempty(folders[0] ? folders[1] : NULL),
                                  c->flaw ? " (one that can't be used: " : "", strempty(c->flaw), c->flaw ? ")" : "");
        *ret_spec = found;
        *ret = device;
        return 0;
}

/* --- edits ------------------------------------------------------------------------------------------------------- */

/* The array member of an object, made when it is missing; NULL when out of memory. */
static json_t *array_of(json_t *o, const char *name) {
        json_t *a = json_get_array(o, name);

        if (!a && json_object_set_new(o, name, json_array()) >= 0)
                a = json_get_array(o, name);
        return a;
}

static int add_variable(Cdi *c, const char *assignment) {
        json_t *env = array_of(json_get_object(c->config, "process"), "env"), *j;
        const char *equals = strchr(assignment, '=');
        size_t i, n;

        if (!equals || equals == assignment)
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "'%.64s' is no environment variable", assignment);
        n = (size_t) (equals + 1 - assignment);
        json_array_foreach(env, i, j)
                if (strncmp(strempty(json_string_value(j)), assignment, n) == 0)
                        return json_array_set_new(env, i, json_string(assignment)) < 0 ? error_oom(c->error) : 0;
        return json_array_append_new(env, json_string(assignment)) < 0 ? error_oom(c->error) : 0;
}

/* Takes away those with that path. */
static void remove_member(json_t *array, const char *key, const char *path) {
        for (size_t i = json_array_size(array); i-- > 0;)
                if (streq_ptr(json_get_string(json_array_get(array, i), key), path))
                        (void) json_array_remove(array, i);
}

static json_int_t integer_or(const json_t *o, const char *key, json_int_t otherwise) {
        const json_t *j = json_object_get(o, key);

        return json_is_integer(j) ? json_integer_value(j) : otherwise;
}

typedef struct Node {
        char type; /* b, c, p */
        json_int_t major, minor, mode;
} Node;

/* What isn't said in the file is looked up on the node. */
static int look_at_node(Cdi *c, const json_t *o, const char *host, Node *ret) {
        const char *type = strempty(json_get_string(o, "type"));
        struct stat st;
        char found;

        if (!isempty(type) && (strlen(type) != 1 || !strchr("bcup", type[0])))
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "type '%.16s' of device %s is none of b, c and p",
                                  type, host);
        *ret = (Node) { type[0] == 'u' ? 'c' : type[0], integer_or(o, "major", 0), integer_or(o, "minor", 0),
                        integer_or(o, "fileMode", 0666) };
        if (ret->type && (ret->type == 'p' || ret->major != 0))
                return 0;
        if (stat(host, &st) < 0)
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "device %s of the host: %s", host,
                                  strerror(errno));
        found = S_ISBLK(st.st_mode) ? 'b' : S_ISCHR(st.st_mode) ? 'c' : S_ISFIFO(st.st_mode) ? 'p' : 0;
        if (!found || (ret->type && ret->type != found))
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "%s of the host is no such device", host);
        *ret = (Node) { found, major(st.st_rdev), minor(st.st_rdev),
                        integer_or(o, "fileMode", (json_int_t) (st.st_mode & 07777)) };
        return 0;
}

static int allow_node(Cdi *c, const Node *n, const char *permissions) {
        char name[64];

        if (!c->properties || n->type == 'p')
                return 0;
        (void) snprintf(name, sizeof name, "/dev/%s/%u:%u", n->type == 'b' ? "block" : "char", (unsigned) n->major,
                        (unsigned) n->minor);
        (void) unit_properties_add_device_allow(c->properties, name, permissions);
        return 0;
}

static int add_node(Cdi *c, const json_t *o) {
        const char *path = json_get_string(o, "path"), *host = json_get_string(o, "hostPath") ?: path,
                   *permissions = json_get_string(o, "permissions") ?: "rwm";
        json_t *devices = array_of(json_get_object(c->config, "linux"), "devices"),
               *user = json_get_object(json_get_object(c->config, "process"), "user");
        Node n;
        int r;

        if (path[0] != '/' || host[0] != '/')
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "a path of device '%.64s' is not absolute", path);
        if (strspn(permissions, "rwm") != strlen(permissions) || strlen(permissions) > 3 || isempty(permissions))
                return error_setf(c->error, GRPC_FAILED_PRECONDITION,
                                  "permissions '%.16s' of device %s are something else than r, w and m", permissions,
                                  path);
        r = look_at_node(c, o, host, &n);
        if (r < 0)
                return r;
        if (json_array_size(devices) >= (c->properties ? OCI_DEVICES_ALLOWED_MAX : OCI_DEVICES_MAX))
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "more than %zu devices", json_array_size(devices));
        remove_member(devices, "path", path);
        if (json_array_append_new(devices, json_pack("{s:s, s:s%, s:I, s:I, s:I, s:I, s:I}", "path", path, "type",
                                                     &n.type, (size_t) 1, "major", n.major, "minor", n.minor, "fileMode",
                                                     n.mode, "uid", integer_or(o, "uid", integer_or(user, "uid", 0)),
                                                     "gid", integer_or(o, "gid", integer_or(user, "gid", 0)))) < 0)
                return error_oom(c->error);
        return allow_node(c, &n, permissions);
}

static bool is_bind(const json_t *options) {
        const json_t *j;
        size_t i;

        json_array_foreach(options, i, j)
                if (streq_ptr(json_string_value(j), "bind") || streq_ptr(json_string_value(j), "rbind"))
                        return true;
        return false;
}

static int check_mount(Cdi *c, const json_t *o, bool bind) {
        const char *host = json_get_string(o, "hostPath"), *inside = json_get_string(o, "containerPath");
        const json_t *j;
        size_t i;

        if (inside[0] != '/' || (bind && host[0] != '/'))
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "a path of mount '%.64s' is not absolute", inside);
        if (bind && access(host, F_OK) < 0)
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "%s, to be mounted at %s: %s", host, inside,
                                  strerror(errno));
        json_array_foreach(json_get_array(o, "options"), i, j)
                if (streq(json_string_value(j), "shared") || streq(json_string_value(j), "rshared"))
                        return error_setf(c->error, GRPC_FAILED_PRECONDITION,
                                          "mount %s is to propagate to the host, which a CDI file can't have", inside);
        return 0;
}

/* Before the first one that is below it. */
static size_t place_of(const json_t *mounts, const char *destination) {
        size_t n = strlen(destination), i;
        const json_t *j;

        json_array_foreach(mounts, i, j) {
                const char *other = strempty(json_get_string(j, "destination"));

                if (strncmp(other, destination, n) == 0 && other[n] == '/')
                        return i;
        }
        return json_array_size(mounts);
}

static int add_mount(Cdi *c, const json_t *o) {
        const char *type = json_get_string(o, "type"), *host = json_get_string(o, "hostPath"),
                   *inside = json_get_string(o, "containerPath");
        _cleanup_json_ json_t *options = json_get_array(o, "options") ? json_copy(json_get_array(o, "options"))
                                                                      : json_array();
        json_t *mounts = array_of(c->config, "mounts");
        bool bind = isempty(type) || streq(type, "bind") || streq(type, "none") || is_bind(options);
        int r;

        r = check_mount(c, o, bind);
        if (r < 0)
                return r;
        if (bind && !is_bind(options) && json_array_append_new(options, json_string("rbind")) < 0)
                return error_oom(c->error);
        if (json_array_size(mounts) >= OCI_MOUNTS_MAX)
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "more than %u mounts", OCI_MOUNTS_MAX);
        remove_member(mounts, "destination", inside);
        if (json_array_insert_new(mounts, place_of(mounts, inside),
                                  json_pack("{s:s, s:s, s:s, s:O}", "destination", inside, "type", bind ? "bind" : type,
                                            "source", host, "options", options)) < 0)
                return error_oom(c->error);
        return 0;
}

/* Those of a start are run by the OCI runtime. The others are not: a container ends and is removed without it. */
static int add_hook(Cdi *c, const json_t *o) {
        static const char *const known[] = { "prestart", "createRuntime", "createContainer", "startContainer" };
        const char *name = json_get_string(o, "hookName"), *path = json_get_string(o, "path");
        _cleanup_json_ json_t *hook = json_deep_copy(o);
        json_t *hooks = json_get_object(c->config, "hooks");
        size_t i = 0;

        while (i < ELEMENTSOF(known) && !streq(name, known[i]))
                i++;
        if (i == ELEMENTSOF(known))
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "hook '%.32s' is not supported", name);
        if (path[0] != '/')
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "path '%.64s' of a hook is not absolute", path);
        if (json_object_get(o, "timeout") && integer_or(o, "timeout", 0) <= 0)
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "the timeout of hook %s is not positive", path);
        if (!hooks && json_object_set_new(c->config, "hooks", json_object()) >= 0)
                hooks = json_get_object(c->config, "hooks");
        if (!hook || json_object_del(hook, "hookName") < 0 ||
            json_array_append(array_of(hooks, name), hook) < 0)
                return error_oom(c->error);
        return 0;
}

static int add_group(Cdi *c, json_int_t gid) {
        json_t *groups = array_of(json_get_object(json_get_object(c->config, "process"), "user"), "additionalGids"), *j;
        size_t i;

        if (gid < 0 || gid > INT32_MAX)
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "%lld is no group", (long long) gid);
        json_array_foreach(groups, i, j)
                if (json_integer_value(j) == gid)
                        return 0;
        /* As the reference has it, root's group is never given. */
        return gid > 0 && json_array_append_new(groups, json_integer(gid)) < 0 ? error_oom(c->error) : 0;
}

static int for_each(Cdi *c, const json_t *edits, const char *name, int (*func)(Cdi *c, const json_t *o)) {
        const json_t *j;
        size_t i;
        int r = 0;

        json_array_foreach(json_get_array(edits, name), i, j) {
                r = func(c, j);
                if (r < 0)
                        break;
        }
        return r;
}

static int add_variable_of(Cdi *c, const json_t *j) {
        return add_variable(c, json_string_value(j));
}

static int add_group_of(Cdi *c, const json_t *j) {
        return add_group(c, json_integer_value(j));
}

static int apply(Cdi *c, const json_t *edits) {
        json_t *rdt = json_get_object(edits, "intelRdt"), *linux_part = json_get_object(c->config, "linux");
        int r;

        if (json_object_size(json_get_object(edits, "netDevices")) > 0)
                return error_setf(c->error, GRPC_FAILED_PRECONDITION, "netDevices are not supported");
        r = for_each(c, edits, "env", add_variable_of);
        if (r >= 0)
                r = for_each(c, edits, "deviceNodes", add_node);
        if (r >= 0)
                r = for_each(c, edits, "mounts", add_mount);
        if (r >= 0)
                r = for_each(c, edits, "hooks", add_hook);
        if (r >= 0)
                r = for_each(c, edits, "additionalGids", add_group_of);
        if (r >= 0 && rdt && json_object_set(linux_part, "intelRdt", rdt) < 0)
                r = error_oom(c->error);
        return r;
}

/* The edits of a file are made once, those of its devices each. */
static int add_device(Cdi *c, Spec *s, const json_t *device) {
        int r;

        if (!s->used) {
                s->used = true;
                r = apply(c, json_get_object(s->json, "containerEdits"));
                if (r < 0)
                        return error_prefix(c->error, r, "%s", s->path);
        }
        r = apply(c, json_get_object(device, "containerEdits"));
        return r < 0 ? error_prefix(c->error, r, "%s", s->path) : 0;
}

static bool is_asked_twice(const runtime_v1_CDIDevice *devices, size_t i) {
        for (size_t j = 0; j < i; j++)
                if (streq(strempty(devices[j].name), strempty(devices[i].name)))
                        return true;
        return false;
}

int cdi_add_to_config(const runtime_v1_CDIDevice *devices, size_t n, const char *const *folders, json_t *config,
                      UnitProperties *p, Error *error) {
        _cleanup_free_ Cdi *c = NULL;
        int r;

        if (n == 0)
                return 0;
        if (n > CDI_DEVICES_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "more than %u CDI devices", CDI_DEVICES_MAX);
        c = calloc(1, sizeof *c);
        if (!c)
                return error_oom(error);
        c->config = config;
        c->properties = p;
        c->error = error;
        r = load_all(c, folders);
        for (size_t i = 0; r >= 0 && i < n; i++) {
                json_t *device = NULL;
                Spec *s = NULL;

                if (is_asked_twice(devices, i))
                        continue;
                r = find_device(c, strempty(devices[i].name), folders, &s, &device);
                if (r >= 0)
                        r = add_device(c, s, device);
        }
        cdi_done(c);
        return r;
}
