/* Where the configuration's files lie and which of them count, as systemd's own (systemd.syntax(7), "main configuration
 * files and their drop-ins"). */

#include <dirent.h>
#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "config.h"

#define CONFIG_NAME     "rktlet.conf"
#define CONFIG_SIZE_MAX (1024U * 1024U)

static const char *const default_directories[] = { "/etc/rktlet", "/run/rktlet", "/usr/local/lib/rktlet", "/usr/lib/rktlet",
                                                   NULL };

static int load_file(Config *c, const char *path, ConfigWarnFunc warn, void *userdata, Error *error) {
        _cleanup_free_ char *text = NULL;
        char target[16];
        size_t size;
        int r;

        /* A file that is masked stands for one that isn't there, and so hides those of the same name further down. */
        if (readlink(path, target, sizeof target) == (ssize_t) STRLEN("/dev/null") &&
            memcmp(target, "/dev/null", STRLEN("/dev/null")) == 0)
                return 0;
        r = read_file(AT_FDCWD, path, CONFIG_SIZE_MAX, &text, &size);
        if (r == -ENOENT)
                return r;
        if (r < 0)
                return error_set(error, r, "Cannot read %s", path);
        if (strlen(text) != size)
                return error_set(error, -EBADMSG, "Cannot read %s: it has a NUL byte", path);
        r = config_parse(c, path, text, warn, userdata);
        if (r >= 0)
                r = strv_extend(&c->files, path);
        return r < 0 ? error_set(error, r, "Cannot read %s", path) : 0;
}

/* A drop-in and where it lies. */
typedef struct DropIn {
        char *name, *path;
} DropIn;

typedef struct DropIns {
        DropIn *list;
        size_t n;
        const char *directory; /* being read */
} DropIns;

static void drop_ins_done(DropIns *l) {
        for (size_t i = 0; i < l->n; i++) {
                free(l->list[i].name);
                free(l->list[i].path);
        }
        free(l->list);
}

static int add_drop_in(int dir_fd, const char *name, void *userdata) {
        DropIns *l = userdata;
        DropIn *list;

        if (name[0] == '.' || !endswith(name, ".conf"))
                return 0;
        for (size_t i = 0; i < l->n; i++)
                if (streq(l->list[i].name, name))
                        return 0; /* of a directory before this one */
        list = reallocarray(l->list, l->n + 1, sizeof *list);
        if (!list)
                return -ENOMEM;
        l->list = list;
        list[l->n] = (DropIn) { .name = strdup(name), .path = strprintf("%s/%s", l->directory, name) };
        l->n++;
        return list[l->n - 1].name && list[l->n - 1].path ? 0 : -ENOMEM;
}

static int compare_drop_ins(const void *a, const void *b) {
        return strcmp(((const DropIn *) a)->name, ((const DropIn *) b)->name);
}

static int load_drop_ins(Config *c, char *const *directories, ConfigWarnFunc warn, void *userdata, Error *error) {
        _cleanup_(drop_ins_done) DropIns l = {};
        int r;

        STRV_FOREACH(d, directories) {
                l.directory = *d;
                r = directory_foreach(AT_FDCWD, *d, add_drop_in, &l);
                if (r < 0 && r != -ENOENT)
                        return error_set(error, r, "Cannot read %s", *d);
        }
        if (l.n > 0)
                qsort(l.list, l.n, sizeof *l.list, compare_drop_ins);
        for (size_t i = 0; i < l.n; i++) {
                r = load_file(c, l.list[i].path, warn, userdata, error);
                if (r < 0 && r != -ENOENT) /* removed in between, or a dangling symlink */
                        return r;
        }
        return 0;
}

/* The first of the main files there are. */
static int load_main(Config *c, char *const *directories, ConfigWarnFunc warn, void *userdata, Error *error) {
        STRV_FOREACH(d, directories) {
                _cleanup_free_ char *path = strprintf("%s/" CONFIG_NAME, *d);
                int r;

                if (!path)
                        return error_oom(error);
                r = load_file(c, path, warn, userdata, error);
                if (r != -ENOENT)
                        return r;
        }
        return 0;
}

static int finish(Config *c, const char *shown, ConfigWarnFunc warn, void *userdata, Config *ret, Error *error) {
        if (config_complete(c) < 0)
                return error_oom(error);
        config_drop_incomplete(c, shown, warn, userdata);
        *ret = *c;
        *c = (Config) {};
        return 0;
}

int config_load_directories(char *const *directories, ConfigWarnFunc warn, void *userdata, Config *ret, Error *error) {
        _cleanup_strv_free_ char **drop_ins = NULL;
        _cleanup_config_ Config c = {};
        int r;

        r = config_init(&c);
        if (r < 0)
                return error_set(error, r, "Cannot set up the configuration");
        r = load_main(&c, directories, warn, userdata, error);
        if (r < 0)
                return r;
        STRV_FOREACH(d, directories)
                if (strv_extendf(&drop_ins, "%s/" CONFIG_NAME ".d", *d) < 0)
                        return error_oom(error);
        r = load_drop_ins(&c, drop_ins, warn, userdata, error);
        return r < 0 ? r : finish(&c, CONFIG_PATH, warn, userdata, ret, error);
}

int config_load(const char *path, ConfigWarnFunc warn, void *userdata, Config *ret, Error *error) {
        _cleanup_strv_free_ char **drop_ins = NULL;
        _cleanup_config_ Config c = {};
        int r;

        if (!path)
                return config_load_directories((char *const *) default_directories, warn, userdata, ret, error);
        r = config_init(&c);
        if (r < 0)
                return error_set(error, r, "Cannot set up the configuration");
        r = load_file(&c, path, warn, userdata, error);
        if (r == -ENOENT)
                return error_set(error, r, "Cannot read %s", path);
        if (r < 0)
                return r;
        if (strv_extendf(&drop_ins, "%s.d", path) < 0)
                return error_oom(error);
        r = load_drop_ins(&c, drop_ins, warn, userdata, error);
        return r < 0 ? r : finish(&c, path, warn, userdata, ret, error);
}
