#pragma once
/* Who a container's process is: numbers from the request, the image's configuration, and the image's own /etc/passwd
 * and /etc/group, which are as untrusted as anything else in an image. */

#include "basic/error.h"
#include "basic/macro.h"
#include "runtime.pb.h"

#define OCI_USER_FILE_MAX (4U * 1024U * 1024U) /* bytes of the image's /etc/passwd and /etc/group, each */
#define OCI_USER_ID_MAX INT32_MAX              /* as the peers have it */
#define OCI_USER_GROUPS_MAX 4096U              /* supplementary groups of one container */

typedef struct OciUser {
        uint32_t uid, gid;
        uint32_t *groups; /* supplementary ones, the primary one first; none twice */
        size_t n_groups;
        char *home;       /* absolute, of the passwd file; "/" without one */
} OciUser;

void oci_user_done(OciUser *u);

/* rootfs_fd: the container's root. context may be NULL, image_user NULL or "". InvalidArgument for what the request
 * has wrong, FailedPrecondition for what the image has. */
int oci_user_resolve(int rootfs_fd, const runtime_v1_LinuxContainerSecurityContext *context, const char *image_user,
                     OciUser *ret, Error *error);
