#pragma once
/* The init of a pod's pid namespace: reaps, and ends the namespace when it is killed. It outlives the pod process. */

#include "pod/sys.h"

/* Forks it into the pid namespace that was unshared before; it is in the FD store as "init" when this returns. */
int init_start(int *ret_pidfd, Text *why);
