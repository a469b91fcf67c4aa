#pragma once
/* Helpers of an earlier run of this service: when the daemon is killed, they are left to finish what they do (a plugin
 * that is killed in the middle leaves what nobody finds again), and the next run waits for them before it cleans up. */

#include "basic/macro.h"

/* (fiber) Waits until no process but ours and our children is in this service's control group; after timeout_usec what
 * is left is killed. Does nothing where we are not the main process of a service. 0, -ECANCELED or -ETIME. */
int leftover_wait(uint64_t timeout_usec);
