#pragma once
/* What the daemon tells rktlet-exec: a command for a container that runs, in a file in memory. All numbers are the
 * machine's own. Behind the head follow the groups, the seccomp filter, and strings that end with a NUL: the working
 * directory, the arguments, the environment. */

#include <stdint.h>

#define EXEC_REQUEST_MAGIC 0x65786563U
#define EXEC_REQUEST_MAX (20U * 1024U * 1024U)

/* Its descriptors. */
#define EXEC_REQUEST_FD 3
#define EXEC_LOG_FD 4   /* lines of JSON, as the OCI runtime writes them */
#define EXEC_PIDFD_FD 5 /* the container's first process */

typedef struct ExecRequest {
        uint32_t magic;
        uint32_t no_new_privileges;
        uint32_t uid, gid;
        uint64_t bounding, effective, permitted, inheritable, ambient; /* bit N is capability N */
        uint32_t n_groups, n_args, n_env;
        uint32_t filter_size; /* bytes of struct sock_filter; 0: none */
} ExecRequest;
