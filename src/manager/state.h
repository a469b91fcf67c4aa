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
 * Files are replaced at once, by a rename, and JSON is sealed (basic/json-util.h): a reader sees the old file or the new
 * one, and knows one that is neither. state.json has the checksum of request.pb, and is written before it: so a
 * directory without state.json is damaged, and one with state.json "starting" or "creating" alone was never begun.
 * A directory leaves by one rename to .removing-ID, so that what is half removed doesn't look damaged.
 *
 * Nothing here is synced, on purpose. A sync costs as much as all else at a pod's start, and buys nothing: as long as
 * the kernel lives what was written is there, whatever dies above it. When it doesn't (a power cut), no pod and no
 * container runs any more. Those started in the last half a minute may be missing or damaged then (on a journalling file
 * system an entry of a directory comes before whatever was made later, so that the CNI cache of each pod that has an
 * address is there, if perhaps empty, and its addresses are given back); the kubelet starts them again, as it would have
 * anyhow. Nothing that was promised to outlive the machine is in these files alone. What decides how everything else is
 * read, version.json (basic/layout.h), is synced, once in the directory's life.
 *
 * Reading never writes. */

#include "manager/manager.h"

#define STATE_VERSION 1
/* What the name of a directory begins with while it is being removed. */
#define STATE_REMOVING ".removing-"

/* The state directory's version: refused when it is a later one, brought up to date when it is an earlier one. */
int state_open(const char *directory, Error *error);

int pod_state_save(Pod *p, Error *error);
/* Fills p from its state file; p->directory and p->id are set. */
int pod_state_load(Pod *p, Error *error);
/* The runtime handler it was started with, or NULL; owned by the caller. */
int pod_state_get_handler(const char *directory, char **ret);
int container_state_save(Container *c, Error *error);
/* *ret_pod_id is owned by the caller. */
int container_state_load(Container *c, char **ret_pod_id, Error *error);

/* request.pb of an object's directory, and the checksum of it that state.json has. */
int request_save(const char *directory, const void *data, size_t size, Error *error);
uint32_t request_checksum(const void *data, size_t size);
int request_load(const char *directory, void **ret, size_t *ret_size, Error *error);

/* Moves the directory of an object out of sight by one rename, and removes it. Missing is fine. */
int state_remove_directory(const char *directory);
