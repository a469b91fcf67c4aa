#pragma once
/* The root of a container: an overlay of the image's layers and a directory of its own, as a detached mount that
 * nobody sees until the pod process attaches it in the pod's mount namespace. */

#include "basic/error.h"
#include "basic/macro.h"
#include "engine/engine.h"

/* Bytes of mount(2)'s options: one page. Some 400 layers. */
#define ROOTFS_OPTIONS_MAX 4095U

/* Makes upper/ and work/ in c->directory, and the mount. scratch: an empty directory for kernels and images that need
 * one; the caller's mount namespace must be a private one. Does not wait. */
int rootfs_mount(const EngineContainer *c, const char *scratch, int *ret_fd, Error *error);

/* Removes what rootfs_mount() made in the directory. Must be called in a fiber: a large tree is removed by a child
 * process, `helper` (rktlet-create). Idempotent. */
int rootfs_remove(const char *directory, const char *helper, Error *error);
