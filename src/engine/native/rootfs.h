#pragma once
/* The root of a container: an overlay of the image's layers and a directory of its own, as a detached mount that
 * nobody sees until the pod process attaches it in the pod's mount namespace. */

#include "basic/error.h"
#include "basic/macro.h"
#include "engine/engine.h"
#include "engine/native/id-map.h"

/* Bytes of mount(2)'s options: one page. Some 400 layers. */
#define ROOTFS_OPTIONS_MAX 4095U

/* Makes upper/ and work/ in c->directory, and the mount. scratch: an empty directory for kernels and images that need
 * one; the caller's mount namespace must be a private one. map, userns_fd (or NULL, -1): of a container in a user
 * namespace, which sees as its own what the image says is root's. Does not wait. */
int rootfs_mount(const EngineContainer *c, const char *scratch, const IdMap *map, int userns_fd, int *ret_fd,
                 Error *error);

/* The same of an image alone, read-only. */
int layers_mount(const EngineContainer *c, char *const *layers, const char *scratch, int userns_fd, int *ret_fd,
                 Error *error);

/* Maps the IDs of a detached mount (open_tree(2)) into a user namespace; with those below it where their file systems
 * can. Negative errno. */
int mount_map_ids(int mount_fd, int userns_fd);

/* Removes what rootfs_mount() made in the directory. Must be called in a fiber: a large tree is removed by a child
 * process, `helper` (rktlet-create). Idempotent. */
int rootfs_remove(const char *directory, const char *helper, Error *error);
