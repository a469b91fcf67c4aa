#pragma once
/* One execution of one plugin (CNI specification, section 2: execution protocol). */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"

#define CNI_INTERFACE "eth0" /* what the kubelet expects a pod's interface to be called */

/* Everything that is the same for all plugins of one operation. Borrowed. */
typedef struct CniRuntime {
        const char *container_id, *netns, *args;
        const char *network_name, *version;
        char *const *bin_directories;
        const json_t *capability_args; /* object: capability to its runtimeConfig */
        uint64_t timeout_usec;
} CniRuntime;

/* (fiber) Runs the plugin with the command "ADD" or "DEL"; prev_result may be NULL. *ret (may be NULL) gets the
 * result, a new reference, NULL where the plugin printed none. The plugin's own words are in the error. */
int cni_plugin_run(const CniRuntime *runtime, const char *command, const json_t *plugin, const json_t *prev_result,
                   json_t **ret, Error *error);
