#pragma once
/* The OCI runtime configuration (config.json) of a container, from the request, the pod's and the image's
 * configuration. Pure: it looks at nothing but the host's /dev and, where asked for, a seccomp profile. */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "basic/string-util.h"
#include "engine/engine.h"
#include "engine/native/id-map.h"
#include "engine/native/oci-mounts.h"
#include "engine/native/oci-user.h"

typedef struct OciInput {
        const EngineContainer *container;
        const OciUser *user;
        uint64_t capabilities;  /* those that PID 1 has */
        int oom_score_adj_min;  /* the lowest that can be set */
        const char *hostname;   /* for the environment */
        const char *const *cdi_folders; /* NULL: the usual ones */
        const char *sys;        /* where the kernel says which security modules it has; NULL: /sys */
        const char *rootfs;     /* where the root is mounted */
        bool seccomp_profile;   /* the default seccomp filter as a profile, not as crun takes it */
        const char *cgroup;     /* that the runtime has to make; NULL: it has nothing to do with cgroups */
        OciPodFiles files;
        /* Paths of namespaces; NULL: the host's. */
        const char *net, *ipc, *uts, *userns;
        const char *pid;
        const IdMap *id_map;    /* of the user namespace, or NULL */
        bool pid_private;       /* a pid namespace of its own instead */
        /* Only looked at when there are variables that JSON can't hold: paths of rktlet-create and of a file for them.
         */
        const char *helper, *environment;
} OciInput;

/* Where these two are in such a container, and how many arguments come before the command's own. */
#define OCI_HELPER_PATH "/dev/.rktlet-exec"
#define OCI_ENVIRONMENT_PATH "/dev/.rktlet-environment"
#define OCI_HELPER_ARGUMENTS 4U

typedef struct OciOutput {
        json_t *config;
        bool shared;        /* the container must be made in a mount namespace that propagates to the host */
        Buffer environment; /* to be written to in->environment unless it is empty */
} OciOutput;

void oci_output_done(OciOutput *o);

/* p (may be NULL) gets the properties that go with it: devices. */
int oci_config_make(const OciInput *in, UnitProperties *p, OciOutput *ret, Error *error);

/* Refuses what makes no sense, or can't be had on this node. */
int oci_config_check(const EngineContainer *c, Error *error);
/* Whose pid namespace: the container's own choice, else the pod's. */
runtime_v1_NamespaceMode oci_pid_mode(const EngineContainer *c);
