#pragma once
/* What a plugin's ADD said (CNI specification, section 5), as far as anybody here needs it: the pod's addresses. */

#include <jansson.h>

#include "net/cni.h"

/* Results of all versions are understood: "ips" since 0.3.0, "ip4" and "ip6" before. Internal when an address is none,
 * or when there is not one that is the pod's: a pod without an address is of no use to the kubelet. */
int cni_result_from_json(const json_t *j, CniResult *ret, Error *error);
