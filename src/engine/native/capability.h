#pragma once
/* Linux capabilities by name, and what a container's security context makes of them. */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "runtime.pb.h"

typedef struct Capabilities {
        uint64_t bounding; /* permitted and effective too: bit N is capability N */
        uint64_t ambient;  /* inheritable too */
} Capabilities;

/* With or without "CAP_", any case; -EINVAL when there is none of that name. */
int capability_from_name(const char *name);

/* available: what PID 1 may hand out; others are left out silently. InvalidArgument for a name that is none. context
 * may be NULL. */
int capabilities_from_config(const runtime_v1_LinuxContainerSecurityContext *context, uint64_t available,
                             Capabilities *ret, Error *error);

/* The object `process.capabilities` of the OCI runtime configuration; NULL when out of memory. */
json_t *capabilities_to_json(const Capabilities *c);
/* An array of the names ("CAP_CHOWN", …). */
json_t *capability_mask_to_json(uint64_t mask);

/* Reads the bounding set of a process, of PID 1 for what units can have. */
int capability_bounding_set(pid_t pid, uint64_t *ret);
