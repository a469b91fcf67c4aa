#pragma once
/* The checker of what the manager keeps on disk: pods, containers, the results of CNI. Needs no daemon, no systemd. */

#include "basic/check.h"
#include "manager/manager.h"

/* *ret_layers: the image layers that containers hold, owned by the caller; *ret_sure is false when there may be more, in a
 * container that can't be read. cni: made for the same directories; may be NULL. -errno with the error set when the
 * checking itself failed. */
int manager_check(const ManagerConfig *config, Cni *cni, Check *check, char ***ret_layers, bool *ret_sure, Error *error);
