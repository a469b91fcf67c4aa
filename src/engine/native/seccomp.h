#pragma once
/* Seccomp filters of containers. */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "runtime.pb.h"

#define SECCOMP_PROFILE_MAX (1024U * 1024U) /* bytes of a Localhost profile */

/* Adds to the OCI configuration what the security context asks for: nothing, the default filter, or the JSON profile
 * of a file of the node. context may be NULL. capabilities: the container's, some of which open system calls.
 * as_profile: the default filter as JSON too, for a runtime that isn't crun. */
int seccomp_add_to_config(const runtime_v1_LinuxContainerSecurityContext *context, uint64_t capabilities,
                          bool as_profile, json_t *config, Error *error);

/* The default filter as BPF in base64, made once for each set of capabilities that matters; borrowed. */
int seccomp_default_filter(uint64_t capabilities, const char **ret, Error *error);
/* The same as an OCI profile; a new reference. -ENOMEM is all that can go wrong. */
int seccomp_default_profile(uint64_t capabilities, json_t **ret);
