#pragma once
/* AppArmor and SELinux: what a container's security context asks for, and what the kernel of this node has. */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "runtime.pb.h"

/* The profile of containers that ask for none, or for the runtime's default; used where the administrator has loaded
 * it. */
#define APPARMOR_DEFAULT_PROFILE "rktlet-default"
#define SELINUX_DEFAULT_USER "system_u"
#define SELINUX_DEFAULT_ROLE "system_r"
#define SELINUX_DEFAULT_TYPE "container_t"
#define SELINUX_DEFAULT_LEVEL "s0"
#define SELINUX_FILE_LABEL "system_u:object_r:container_file_t:" /* and the level */

/* sys: where sysfs is, "/sys". Adds apparmorProfile and selinuxLabel to the process, mountLabel to `linux_part`.
 * context may be NULL. InvalidArgument for what makes no sense; FailedPrecondition for what this node hasn't. */
int security_modules_add(const runtime_v1_LinuxContainerSecurityContext *context, const char *sys, json_t *process,
                         json_t *linux_part, Error *error);
/* The same checks for a pod, whose own process is confined by its unit alone. */
int security_modules_check_pod(const runtime_v1_LinuxSandboxSecurityContext *context, const char *sys, Error *error);
