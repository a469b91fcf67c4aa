#pragma once
/* What DEL needs, kept from ADD: one file a pod, written before the first plugin runs, so that a crash at any moment
 * can be cleaned up after. */

#include "net/cni-config.h"

typedef struct CniCache {
        CniNetwork network;
        char *args, *netns;
        json_t *capability_args; /* object */
        json_t *result;          /* the last plugin's; NULL while ADD has not finished, or when it was lost */
        char **ips;              /* the pod's addresses, where the result was lost */
} CniCache;

void cni_cache_done(CniCache *c);
int cni_cache_write(const char *directory, const char *pod_id, const CniCache *c, Error *error);
/* -ENOENT when there is none. A damaged file is -EBADMSG. */
int cni_cache_read(const char *directory, const char *pod_id, CniCache *ret, Error *error);
int cni_cache_remove(const char *directory, const char *pod_id, Error *error);
