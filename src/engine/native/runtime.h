#pragma once
/* The OCI runtime: how it is executed, and what it says when it fails. */

#include <sys/stat.h>

#include "basic/error.h"
#include "basic/macro.h"

/* The runtime's program, on a read-only mount of our own. crun (as runc) protects itself from a container that writes
 * to its file through /proc/PID/exe (CVE-2019-5736): unless it was started from a read-only mount, it makes one, and
 * executes itself a second time. That costs as much as the rest of its start, and a kill in between leaves files in
 * /tmp. */
typedef struct Runtime {
        const char *path; /* borrowed */
        int fd;           /* of the mount; -1: none */
        struct stat seen; /* what it was made from: a package manager may have replaced it */
        char fd_path[48]; /* "/proc/PID/fd/N" */
} Runtime;

#define RUNTIME_INIT ((Runtime) { .fd = -1 })

void runtime_done(Runtime *r);
/* What to execute, also in another mount namespace, as long as this process lives; borrowed until the next call. */
const char *runtime_program(Runtime *r);

/* What the OCI runtime wrote to its log (the last message), or NULL. Owned by the caller. */
char *runtime_log_message(int dir_fd, const char *path);
/* Whether the message says that the command can't be executed: then creation succeeds and the start fails. *ret gets a
 * sentence for the caller. */
int runtime_error_is_exec(const char *message, const char *command, char **ret);
/* The code for any other failure: something of the node's is used up, or what was asked for can't be had on this node or
 * with this image. */
GrpcCode runtime_error_code(const char *message);

/* Starts what `create` made, as `crun start` does: a byte for the FIFO on which the container's process waits. -ENOENT
 * when there is none, and the command has to do it. */
int runtime_start_by_fifo(const char *state_directory);
