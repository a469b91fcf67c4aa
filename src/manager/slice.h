#pragma once
/* The slice a pod lives in: what the kubelet calls the cgroup parent, checked against systemd's rules for slice names
 * (systemd.slice(5): "a-b.slice" lies in "a.slice"). */

#include "basic/error.h"
#include "basic/macro.h"

/* Turns PodSandboxConfig.linux.cgroup_parent into a slice unit's name, owned by the caller. Accepts a bare name or a
 * path whose folders are those systemd derives from the name. InvalidArgument when it is no slice. */
int slice_from_cgroup_parent(const char *cgroup_parent, char **ret, Error *error);
