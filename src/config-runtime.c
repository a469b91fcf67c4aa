#include "config-runtime.h"

#include "basic/string-util.h"

static const char *const type_names[_CONFIG_RUNTIME_TYPE_MAX] = {
        [CONFIG_RUNTIME_CRUN] = "crun",
        [CONFIG_RUNTIME_RUNC] = "runc",
};

static ConfigRuntimeType type_from_string(const char *s) {
        for (ConfigRuntimeType t = 0; t < _CONFIG_RUNTIME_TYPE_MAX; t++)
                if (streq(type_names[t], s))
                        return t;
        return _CONFIG_RUNTIME_TYPE_INVALID;
}

static void runtime_done(ConfigRuntime *r) {
        free(r->name);
        free(r->path);
}

void config_runtimes_done(ConfigRuntimes *l) {
        for (size_t i = 0; i < l->n; i++)
                runtime_done(&l->list[i]);
        free(l->list);
        *l = (ConfigRuntimes) {};
}

bool config_runtime_is_section(const char *section, const char **ret_name) {
        const char *name = startswith(section, "Runtime ");

        if (!name)
                return false;
        *ret_name = name + strspn(name, " ");
        return true;
}

/* The name is a folder's too; Kubernetes takes DNS labels. */
static bool name_is_valid(const char *s) {
        size_t n = strlen(s);

        return n > 0 && n <= CONFIG_RUNTIME_NAME_MAX && s[0] != '.' &&
               strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n;
}

int config_runtime_get(ConfigRuntimes *l, const char *name, ConfigRuntime **ret) {
        ConfigRuntime *list;
        char *copy;

        for (size_t i = 0; i < l->n; i++)
                if (streq(l->list[i].name, name)) {
                        *ret = &l->list[i];
                        return 0;
                }
        if (!name_is_valid(name))
                return -EINVAL;
        if (l->n >= CONFIG_RUNTIMES_MAX)
                return -E2BIG;
        list = reallocarray(l->list, l->n + 1, sizeof *list);
        if (!list)
                return -ENOMEM;
        l->list = list;
        copy = strdup(name);
        if (!copy)
                return -ENOMEM;
        l->list[l->n] = (ConfigRuntime) { .name = copy, .type = CONFIG_RUNTIME_RUNC };
        *ret = &l->list[l->n++];
        return 0;
}

/* Whatever isn't crun has most likely been written after runc's command line. */
static void derive_type(ConfigRuntime *r) {
        const char *slash = r->path ? strrchr(r->path, '/') : NULL;

        if (!r->type_given)
                r->type = slash && startswith(slash + 1, "crun") ? CONFIG_RUNTIME_CRUN : CONFIG_RUNTIME_RUNC;
}

int config_runtime_assign(ConfigRuntime *r, const char *key, const char *value, const char **ret_expected) {
        if (streq(key, "Path")) {
                char *copy;

                if (!isempty(value) && value[0] != '/') {
                        *ret_expected = "an absolute path";
                        return -EINVAL;
                }
                copy = isempty(value) ? NULL : strdup(value);
                if (!copy && !isempty(value))
                        return -ENOMEM;
                free(r->path);
                r->path = copy;
        } else if (streq(key, "Type")) {
                ConfigRuntimeType t = isempty(value) ? CONFIG_RUNTIME_RUNC : type_from_string(value);

                if (t < 0) {
                        *ret_expected = "one of crun, runc";
                        return -EINVAL;
                }
                r->type = t;
                r->type_given = !isempty(value);
        } else
                return -ENOENT;
        derive_type(r);
        return 0;
}

char *config_runtimes_drop_incomplete(ConfigRuntimes *l) {
        for (size_t i = 0; i < l->n; i++)
                if (!l->list[i].path) {
                        char *name = TAKE_PTR(l->list[i].name);

                        runtime_done(&l->list[i]);
                        memmove(&l->list[i], &l->list[i + 1], (--l->n - i) * sizeof l->list[0]);
                        return name;
                }
        return NULL;
}

void config_runtimes_dump(const ConfigRuntimes *l, FILE *f) {
        for (size_t i = 0; i < l->n; i++)
                fprintf(f, "\n[Runtime %s]\nPath=%s\nType=%s\n", l->list[i].name, strempty(l->list[i].path),
                        type_names[l->list[i].type]);
}
