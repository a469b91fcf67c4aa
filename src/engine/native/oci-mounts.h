#pragma once
/* The mounts and devices of a container: what every container has, the pod's files, and what the request asks for. */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "engine/engine.h"
#include "runtime.pb.h"
#include "systemd/systemd.h"

#define OCI_MOUNTS_MAX 4096U  /* asked for by one container */
#define OCI_DEVICES_MAX 1024U /* of one container, those of a folder counted each; privileged: all of the host */
#define OCI_DEVICES_ALLOWED_MAX 192U /* of one that is not privileged: each is a property of its unit */

/* What of the pod is shown to its containers; NULL where the host's is. */
typedef struct OciPodFiles {
        const char *hostname, *hosts, *resolv_conf; /* paths of files */
        const char *shm;                            /* a tmpfs, or /dev/shm of the host */
        bool bind_sys; /* /sys is the host's: who doesn't own the network namespace can't mount one */
} OciPodFiles;

/* The array `mounts`. *ret_shared: some mount is to propagate to the host. */
int oci_mounts(const EngineContainer *c, const OciPodFiles *files, bool privileged, json_t **ret, bool *ret_shared,
               Error *error);

/* The array `linux.devices`, and DeviceAllow= and DevicePolicy= for the unit. Looks at the host's /dev. p may be
 * NULL. */
int oci_devices(const runtime_v1_ContainerConfig *config, bool privileged, UnitProperties *p, json_t **ret,
                Error *error);
