#pragma once
/* The init of a pod's pid namespace: reaps, and ends the namespace when it is killed. It outlives the pod process. */

#include "pod/sys.h"

/* What the pod process and its init talk over while that starts. */
typedef struct InitStart {
        int ours, theirs;
} InitStart;
#define INIT_START_INIT ((InitStart) { -1, -1 })

int init_prepare(InitStart *s, Text *why);
void init_done(InitStart *s);
/* Forks it into the pid namespace that was unshared before. Returns its ID; flags: further ones of clone(2). */
int init_fork(const InitStart *s, int flags);
/* It is in the FD store as "init" when this returns. pid: a child that nobody has waited for. */
int init_complete(InitStart *s, int pid, int *ret_pidfd, Text *why);
