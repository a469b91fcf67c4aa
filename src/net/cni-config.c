#include "net/cni-config.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/string-util.h"

#define CONF_SIZE_MAX (1U * 1024U * 1024U)
#define CONF_FILES_MAX 256U
#define PLUGINS_MAX 32U
#define NETWORK_NAME_MAX 255U

void cni_network_done(CniNetwork *n) {
        free(n->name);
        free(n->version);
        free(n->file);
        json_decref(n->plugins);
        *n = (CniNetwork) {};
}

/* The specification: a letter or digit, then letters, digits, "_", "." and "-". */
static bool network_name_is_valid(const char *s) {
        size_t n = strlen(s);

        return n > 0 && n <= NETWORK_NAME_MAX && !strchr("_.-", s[0]) &&
               strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == n;
}

static const char *const known_versions[] = { "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0" };

/* In the order of the versions; -1 for one we don't know. */
static int version_rank(const char *v) {
        for (size_t i = 0; i < ELEMENTSOF(known_versions); i++)
                if (streq(v, known_versions[i]))
                        return (int) i;
        return -1;
}

/* The highest that both we and the configuration know: of "cniVersions", or "cniVersion", or what is assumed where
 * there is neither. */
static int version_select(const json_t *list, const char *file, const char **ret, Error *error) {
        const char *version = json_get_string(list, "cniVersion");
        int best = version_rank(version ? version : known_versions[0]);
        json_t *v;
        size_t i;

        json_array_foreach(json_get_array(list, "cniVersions"), i, v)
                if (json_is_string(v))
                        best = MAX(best, version_rank(json_string_value(v)));
        if (best < 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "%s: cniVersion \"%s\" is not supported (%s to %s are)", file, strempty(version),
                                  known_versions[0], known_versions[ELEMENTSOF(known_versions) - 1]);
        *ret = known_versions[best];
        return 0;
}

int cni_network_parse(json_t *list, const char *file, CniNetwork *ret, Error *error) {
        _cleanup_(cni_network_done) CniNetwork n = {};
        const char *name = json_get_string(list, "name"), *version = NULL;
        json_t *plugins = json_get_array(list, "plugins"), *p;
        size_t i;
        int r;

        if (!name || !network_name_is_valid(name))
                return error_setf(error, GRPC_FAILED_PRECONDITION, "%s: \"name\" is missing or no network name", file);
        r = version_select(list, file, &version, error);
        if (r < 0)
                return r;

        /* A plain conf is one plugin. */
        n.plugins = plugins ? json_incref(plugins) : json_pack("[O]", list);
        n.name = strdup(name);
        n.version = strdup(version);
        n.file = strdup(file);
        if (!n.plugins || !n.name || !n.version || !n.file)
                return error_oom(error);
        if (json_array_size(n.plugins) == 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "%s: there are no plugins in it", file);
        if (json_array_size(n.plugins) > PLUGINS_MAX)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "%s: more than %u plugins", file, PLUGINS_MAX);
        json_array_foreach(n.plugins, i, p) {
                const char *type = json_get_string(p, "type");

                if (isempty(type) || strchr(type, '/') || streq(type, ".") || streq(type, ".."))
                        return error_setf(error, GRPC_FAILED_PRECONDITION,
                                          "%s: plugin %zu has no \"type\" that names a program", file, i);
        }
        *ret = n;
        n = (CniNetwork) {};
        return 0;
}

int cni_plugin_find(char *const *bin_directories, const char *type, char **ret, Error *error) {
        _cleanup_free_ char *where = NULL;

        STRV_FOREACH(d, bin_directories) {
                _cleanup_free_ char *path = strprintf("%s/%s", *d, type);
                struct stat st;

                if (!path)
                        return error_oom(error);
                if (stat(path, &st) >= 0 && S_ISREG(st.st_mode) && access(path, X_OK) >= 0) {
                        *ret = TAKE_PTR(path);
                        return 0;
                }
        }
        where = strv_join(bin_directories, ", ");
        error_setf(error, GRPC_FAILED_PRECONDITION, "CNI plugin \"%s\" is not in %s: install it there", type,
                   strempty(where));
        return -ENOENT;
}

/* What a plugin executes itself ("ipam") is its own business: some have it elsewhere. */
int cni_network_check_plugins(const CniNetwork *n, char *const *bin_directories, Error *error) {
        json_t *p;
        size_t i;
        int r;

        json_array_foreach(n->plugins, i, p) {
                _cleanup_free_ char *path = NULL;

                r = cni_plugin_find(bin_directories, json_get_string(p, "type"), &path, error);
                if (r < 0)
                        return error_prefix(error, r, "network \"%s\" of %s cannot be used", n->name, n->file);
        }
        return 0;
}

static int is_conf_file(const struct dirent *e) {
        return e->d_name[0] != '.' &&
               (endswith(e->d_name, ".conflist") || endswith(e->d_name, ".conf") || endswith(e->d_name, ".json"));
}

static void free_entries(struct dirent **entries, int n) {
        for (int i = 0; i < n; i++)
                free(entries[i]);
        free(entries);
}

static int compare_names(const struct dirent **a, const struct dirent **b) {
        return strcmp((*a)->d_name, (*b)->d_name);
}

/* The configuration files of a folder by name; none where the folder is missing. */
static int list_files(const char *directory, char ***ret) {
        _cleanup_strv_free_ char **l = NULL;
        struct dirent **entries;
        int n, r = 0;

        n = scandir(directory, &entries, is_conf_file, compare_names);
        if (n < 0)
                return errno == ENOENT ? (*ret = NULL, 0) : -errno;
        for (int i = 0; i < n && i < (int) CONF_FILES_MAX && r >= 0; i++)
                r = strv_extendf(&l, "%s/%s", directory, entries[i]->d_name);
        free_entries(entries, n);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(l);
        return 0;
}

static int load_file(const char *file, CniNetwork *ret, Error *error) {
        _cleanup_(cni_network_done) CniNetwork n = {};
        _cleanup_free_ char *text = NULL;
        _cleanup_json_ json_t *j = NULL;
        size_t size;
        int r;

        r = read_file(AT_FDCWD, file, CONF_SIZE_MAX, &text, &size);
        if (r < 0)
                return error_set(error, r, "cannot read %s", file);
        r = json_parse(text, size, &j, error);
        if (r < 0)
                return error_prefix(error, r, "%s", file);
        if (!json_is_object(j))
                return error_setf(error, GRPC_FAILED_PRECONDITION, "%s: not a JSON object", file);
        if (endswith(file, ".conflist") && !json_get_array(j, "plugins"))
                return error_setf(error, GRPC_FAILED_PRECONDITION, "%s: \"plugins\" is missing", file);
        r = cni_network_parse(j, file, &n, error);
        if (r < 0)
                return r;
        *ret = n;
        n = (CniNetwork) {};
        return 0;
}

int cni_network_load(char *const *conf_directories, char *const *bin_directories, CniNetwork *ret, Error *error) {
        _cleanup_error_ Error first = ERROR_INIT;
        _cleanup_free_ char *where = NULL;
        int r;

        STRV_FOREACH(d, conf_directories) {
                _cleanup_strv_free_ char **files = NULL;

                r = list_files(*d, &files);
                if (r < 0)
                        (void) error_set(&first, r, "cannot read %s", *d);
                STRV_FOREACH(f, files) {
                        _cleanup_(cni_network_done) CniNetwork n = {};

                        r = load_file(*f, &n, &first);
                        if (r < 0)
                                continue;
                        /* Pods must not land in the next file's network because a program is missing. */
                        r = cni_network_check_plugins(&n, bin_directories, error);
                        if (r < 0)
                                return -ENETDOWN;
                        *ret = n;
                        n = (CniNetwork) {};
                        return 0;
                }
        }
        where = strv_join(conf_directories, ", ");
        if (error_is_set(&first))
                error_setf(error, GRPC_FAILED_PRECONDITION, "no usable CNI network: %s", strempty(first.message));
        else
                error_setf(error, GRPC_FAILED_PRECONDITION,
                           "no CNI network is configured: put a .conflist file into %s", strempty(where));
        return -ENETDOWN;
}

int cni_config_fingerprint(char *const *conf_directories, char **ret) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        int r;

        r = buffer_append(&b, "", 0);
        if (r < 0)
                return r;
        STRV_FOREACH(d, conf_directories) {
                _cleanup_strv_free_ char **files = NULL;

                r = list_files(*d, &files);
                if (r < 0)
                        continue;
                STRV_FOREACH(f, files) {
                        struct stat st;

                        if (stat(*f, &st) < 0)
                                continue;
                        r = buffer_appendf(&b, "%s %llu %lld.%09ld %lld\n", *f, (unsigned long long) st.st_ino,
                                           (long long) st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long long) st.st_size);
                        if (r < 0)
                                return r;
                }
        }
        *ret = TAKE_PTR(b.data);
        return 0;
}
