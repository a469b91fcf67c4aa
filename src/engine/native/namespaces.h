#pragma once
/* The namespaces of a pod, opened, so that they stay those of this pod whatever becomes of its process meanwhile. */

#include "engine/native/internal.h"

typedef enum PodNamespace {
        POD_NAMESPACE_MNT,
        POD_NAMESPACE_NET,
        POD_NAMESPACE_IPC,
        POD_NAMESPACE_UTS,
        POD_NAMESPACE_PID,
        POD_NAMESPACE_USER,
        _POD_NAMESPACE_MAX,
} PodNamespace;

typedef struct PodNamespaces {
        int fds[_POD_NAMESPACE_MAX]; /* -1: the host's, or the container's own */
        char *paths[_POD_NAMESPACE_MAX]; /* "/proc/PID/fd/N" of the daemon: for whoever else has to open it */
} PodNamespaces;

#define POD_NAMESPACES_INIT ((PodNamespaces) { .fds = { -1, -1, -1, -1, -1, -1 } })

void pod_namespaces_done(PodNamespaces *n);
/* (fiber) What the container is to join. Waits while the pod's process is started again. */
int pod_namespaces_open(NativeEngine *e, const EngineContainer *c, PodNamespaces *ret, Error *error);
