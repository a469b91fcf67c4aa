#pragma once
/* What the verbose answers have under "info", as one JSON object: for people, through `crictl inspect`, and for tools that
 * know the peers' names (pid, runtimeSpec, cniResult, config, imageSpec). Texts in the arena. */

#include "cri/internal.h"

int status_info(CriCall *c, runtime_v1_StatusResponse_InfoEntry *ret, Error *error);
int pod_info(Pod *p, Arena *arena, runtime_v1_PodSandboxStatusResponse_InfoEntry *ret, Error *error);
int container_info(Container *k, Arena *arena, runtime_v1_ContainerStatusResponse_InfoEntry *ret, Error *error);
int image_info(const Image *i, Arena *arena, runtime_v1_ImageStatusResponse_InfoEntry *ret, Error *error);
