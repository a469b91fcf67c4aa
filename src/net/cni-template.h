#pragma once
/* A CNI configuration that is made when the kubelet tells the node's pod CIDR (UpdateRuntimeConfig), for nodes without a
 * network add-on that writes one. The template is such a configuration, JSON, with words in it that are replaced:
 *
 *   "@POD_CIDR@"              the CIDR; of several, that of the repetition it is in, the first outside of any
 *   "@DEFAULT_ROUTE@"         "0.0.0.0/0" or "::/0", as the CIDR is of IPv4 or IPv6
 *   ["@EACH_POD_CIDR@", X…]   an array of this becomes X… for the first CIDR, then X… for the second
 *
 *   "ranges": ["@EACH_POD_CIDR@", [{ "subnet": "@POD_CIDR@" }]],
 *   "routes": ["@EACH_POD_CIDR@", { "dst": "@DEFAULT_ROUTE@" }]
 */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"

#define CNI_CIDRS_MAX 2U /* one of each family */
#define CNI_GENERATED_NAME "10-rktlet-pod-cidr.conflist"

/* Parses what the kubelet sends: CIDRs with commas between them. Owned by the caller. */
int cni_parse_cidrs(const char *text, char ***ret, Error *error);
/* The configuration that the template is with these CIDRs; a new reference. */
int cni_template_fill(const json_t *template, char *const *cidrs, json_t **ret, Error *error);
