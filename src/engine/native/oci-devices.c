/* Devices of a container: the nodes that the OCI runtime makes in its /dev, and what its unit lets it open. The unit
 * does that (systemd attaches the BPF program), not the OCI runtime: crun needs CAP_SYS_RESOURCE for it. */

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/string-util.h"
#include "engine/native/oci-mounts.h"

#define DEPTH_MAX 8U

typedef struct Devices {
        json_t *array;
        UnitProperties *properties;
        const char *permissions;
        bool allow; /* privileged containers may open everything anyway */
        const char *host, *inside;
        unsigned depth;
        Error *error;
} Devices;

static int add_node(Devices *d, const char *inside, const struct stat *st) {
        const char *kind = S_ISCHR(st->st_mode) ? "char" : "block";
        json_t *node;

        if (json_array_size(d->array) >= (d->allow ? OCI_DEVICES_ALLOWED_MAX : OCI_DEVICES_MAX))
                return error_setf(d->error, GRPC_INVALID_ARGUMENT, "more than %zu devices", json_array_size(d->array));
        node = json_pack("{s:s, s:s, s:i, s:i, s:i, s:I, s:I}",
                         "path", inside, "type", S_ISCHR(st->st_mode) ? "c" : "b",
                         "major", (int) major(st->st_rdev), "minor", (int) minor(st->st_rdev),
                         "fileMode", (int) (st->st_mode & 07777),
                         "uid", (json_int_t) st->st_uid, "gid", (json_int_t) st->st_gid);
        if (json_array_append_new(d->array, node) < 0)
                return error_oom(d->error);
        if (d->allow && d->properties) {
                char name[64];

                /* By number: the name is the host's, and systemd would look it up once more. */
                (void) snprintf(name, sizeof name, "/dev/%s/%u:%u", kind, major(st->st_rdev), minor(st->st_rdev));
                (void) unit_properties_add_device_allow(d->properties, name, d->permissions);
        }
        return 0;
}

static int add_directory(Devices *d, int dir_fd, const char *path, const char *inside);

static int add_entry(int dir_fd, const char *name, void *userdata) {
        Devices *d = userdata;
        _cleanup_free_ char *inside = NULL;
        struct stat st;

        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return 0; /* gone meanwhile */
        inside = strprintf("%s/%s", d->inside, name);
        if (!inside)
                return error_oom(d->error);
        if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
                return add_node(d, inside, &st);
        if (S_ISDIR(st.st_mode))
                return add_directory(d, dir_fd, name, inside);
        return 0;
}

/* What a container has of its own, or must not have. */
static bool is_special(const char *inside) {
        static const char *const special[] = { "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/hugepages",
                                               "/dev/console", "/dev/ptmx", "/dev/.udev", "/dev/.lxc" };

        for (size_t i = 0; i < ELEMENTSOF(special); i++)
                if (streq(inside, special[i]))
                        return true;
        return false;
}

static int add_directory(Devices *d, int dir_fd, const char *path, const char *inside) {
        Devices below = *d;
        int r;

        if (is_special(inside) || d->depth >= DEPTH_MAX)
                return 0;
        below.inside = inside;
        below.depth = d->depth + 1;
        r = directory_foreach(dir_fd, path, add_entry, &below);
        return r == -ENOENT || r == -ENOTDIR ? 0 : r;
}

static int add_all_of_host(Devices *d) {
        int r;

        r = add_directory(d, AT_FDCWD, "/dev", "/dev");
        if (r < 0)
                return error_set(d->error, r, "cannot look at the devices of the host");
        return 0;
}

static bool permissions_are_valid(const char *s) {
        size_t n = strlen(s);

        return n > 0 && n <= 3 && strspn(s, "rwm") == n;
}

static int add_asked_for(Devices *d, const runtime_v1_Device *device) {
        const char *host = strempty(device->host_path);
        const char *inside = isempty(device->container_path) ? host : device->container_path;
        struct stat st;
        int r;

        d->permissions = isempty(device->permissions) ? "rwm" : device->permissions;
        if (!permissions_are_valid(d->permissions))
                return error_setf(d->error, GRPC_INVALID_ARGUMENT,
                                  "permissions '%.16s' of device %s are something else than r, w and m",
                                  d->permissions, host);
        if (host[0] != '/' || inside[0] != '/')
                return error_setf(d->error, GRPC_INVALID_ARGUMENT, "a path of device '%s' is not absolute", host);
        if (stat(host, &st) < 0)
                return error_setf(d->error, GRPC_FAILED_PRECONDITION, "device %s of the host: %s", host,
                                  strerror(errno));
        if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
                return add_node(d, inside, &st);
        if (!S_ISDIR(st.st_mode))
                return error_setf(d->error, GRPC_FAILED_PRECONDITION,
                                  "%s of the host is neither a device nor a folder", host);
        r = add_directory(d, AT_FDCWD, host, inside);
        return r < 0 ? error_set(d->error, r, "cannot look at the devices below %s", host) : 0;
}

int oci_devices(const runtime_v1_ContainerConfig *config, bool privileged, UnitProperties *p, json_t **ret,
                Error *error) {
        _cleanup_json_ json_t *a = json_array();
        Devices d = { .array = a, .properties = p, .allow = !privileged, .error = error };
        int r;

        if (!a)
                return error_oom(error);
        if (privileged) {
                r = add_all_of_host(&d);
                if (r < 0)
                        return r;
        } else if (p) {
                /* "closed" has null, zero, full, random, urandom, tty, ptmx and pts; any node may be made, none
                 * opened. */
                (void) unit_properties_add_string(p, "DevicePolicy", "closed");
                (void) unit_properties_add_device_allow(p, "char-*", "m");
                (void) unit_properties_add_device_allow(p, "block-*", "m");
        }
        for (size_t i = 0; i < config->devices_count; i++) {
                r = add_asked_for(&d, &config->devices[i]);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(a);
        return 0;
}
