#pragma once
/* What the manager keeps on disk of each pod and container, a directory each below the state directory:
 *
 *   pods/ID/request.pb         RunPodSandboxRequest as it came (runtime.v1, protobuf)
 *   pods/ID/state.json         what became of it
 *   containers/ID/request.pb   CreateContainerRequest as it came
 *   containers/ID/state.json
 *   pods/ID/resources.pb       UpdatePodSandboxResourcesRequest: limits as they are, once they were changed
 *   containers/ID/resources.pb the same, UpdateContainerResourcesRequest
 *
 * Files are replaced at once. They are not synced: after a power cut no pod runs, and one whose files are damaged is
 * removed at the next start. Reading never writes. */

#include "manager/manager.h"

#define STATE_VERSION 1

int pod_state_save(Pod *p, Error *error);
/* Fills p from its state file; p->directory and p->id are set. */
int pod_state_load(Pod *p, Error *error);
int container_state_save(Container *c, Error *error);
/* *ret_pod_id is owned by the caller. */
int container_state_load(Container *c, char **ret_pod_id, Error *error);

/* request.pb of an object's directory. */
int request_save(const char *directory, const void *data, size_t size, Error *error);
int request_load(const char *directory, void **ret, size_t *ret_size, Error *error);
