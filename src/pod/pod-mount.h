#pragma once
/* Mounts of the pod's containers, in the pod's own mount namespace. */

#include "pod/sys.h"

/* Attaches the detached mount at the target, which must be below `root` and is made when missing (a file for the
 * mount of a file); what is mounted there already is replaced. Doing it twice with the same mount is fine. */
int mount_attach(const char *root, int mount_fd, const char *target, Text *why);
/* Unmounts all that is at the target, and removes the directory, or file. Nothing there: 0. */
int mount_detach(const char *root, const char *target, Text *why);
