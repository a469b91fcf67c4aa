#pragma once
/* Mounts of a container that no OCI runtime makes as the CRI wants them: images, and folders of the host whose IDs are
 * mapped. The daemon makes them, the pod process attaches them where the runtime finds their source. */

#include "engine/native/internal.h"

/* Whether it is one of these. */
bool volume_is_ours(const runtime_v1_Mount *m);
/* Where the mount of that index is attached: "RUN/mounts/N"; owned by the caller. */
char *volume_path(const EngineContainer *c, size_t index);

/* (fiber) map, userns_fd: of the pod's user namespace; not set, -1 without one. */
int volumes_attach(NativeEngine *e, const EngineContainer *c, const IdMap *map, int userns_fd, const char *socket_path,
                   Error *error);
/* (fiber) Idempotent. */
int volumes_detach(const EngineContainer *c, const char *socket_path, Error *error);
