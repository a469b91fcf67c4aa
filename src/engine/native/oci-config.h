#pragma once
/* The OCI runtime configuration (config.json) of a container, from the request, the pod's and the image's configuration.
 * Pure: it looks at nothing but the host's /dev and, where asked for, a seccomp profile. */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "engine/engine.h"
#include "engine/native/oci-mounts.h"
#include "engine/native/oci-user.h"

typedef struct OciInput {
        const EngineContainer *container;
        const OciUser *user;
        uint64_t capabilities;  /* those that PID 1 has */
        int oom_score_adj_min;  /* the lowest that can be set */
        const char *hostname;   /* for the environment */
        const char *rootfs;     /* where the root is mounted */
        OciPodFiles files;
        /* Paths of namespaces; NULL: the host's. */
        const char *net, *ipc, *uts;
        const char *pid;
        bool pid_private;       /* a pid namespace of its own instead */
} OciInput;

/* p (may be NULL) gets the properties that go with it: devices. *ret_shared: the container must be made in a mount
 * namespace that propagates to the host. */
int oci_config_make(const OciInput *in, UnitProperties *p, json_t **ret, bool *ret_shared, Error *error);

/* Refuses what isn't built: user namespaces, AppArmor and SELinux where they would matter. */
int oci_config_check(const EngineContainer *c, Error *error);
/* Whose pid namespace: the container's own choice, else the pod's. */
runtime_v1_NamespaceMode oci_pid_mode(const EngineContainer *c);
