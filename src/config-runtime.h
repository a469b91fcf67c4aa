#pragma once
/* [Runtime NAME] sections of the configuration: OCI runtimes that pods can ask for by name (a RuntimeClass's handler). */

#include <stdio.h>

#include "basic/macro.h"

#define CONFIG_RUNTIMES_MAX 64U
#define CONFIG_RUNTIME_NAME_MAX 64U

typedef enum ConfigRuntimeType {
        CONFIG_RUNTIME_CRUN,
        CONFIG_RUNTIME_RUNC,
        _CONFIG_RUNTIME_TYPE_MAX,
        _CONFIG_RUNTIME_TYPE_INVALID = -EINVAL,
} ConfigRuntimeType;

typedef struct ConfigRuntime {
        char *name;
        char *path;             /* NULL: not given */
        ConfigRuntimeType type; /* by the path's last part, unless given */
        bool type_given;
} ConfigRuntime;

typedef struct ConfigRuntimes {
        ConfigRuntime *list;
        size_t n;
} ConfigRuntimes;

void config_runtimes_done(ConfigRuntimes *l);
/* Whether a section's name ("Runtime runc") is one of these; *ret_name the runtime's, borrowed from it. */
bool config_runtime_is_section(const char *section, const char **ret_name);
/* The entry of that name, made where there is none. -EINVAL for what is no name, -E2BIG for too many. */
int config_runtime_get(ConfigRuntimes *l, const char *name, ConfigRuntime **ret);
/* -ENOENT: no such key; -EINVAL with *ret_expected when the value is wrong. */
int config_runtime_assign(ConfigRuntime *r, const char *key, const char *value, const char **ret_expected);
/* Takes out those without a path, one a call: its name, owned by the caller, or NULL when there is none (any more). */
char *config_runtimes_drop_incomplete(ConfigRuntimes *l);
void config_runtimes_dump(const ConfigRuntimes *l, FILE *f);
