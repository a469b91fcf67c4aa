#pragma once
/* The OCI runtime: how it is executed, and what it says when it fails. */

#include <sys/stat.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "engine/engine.h"

/* What a runtime says that it can. */
typedef struct RuntimeFeatures {
        bool recursive_read_only; /* the mount option "rro" */
        bool user_namespaces;
        bool id_mapped_mounts;
        bool checkpoint;          /* with CRIU */
} RuntimeFeatures;

/* A runtime of the configuration.
 *
 * The program is executed on a read-only mount of our own, if it is crun: that protects itself from a container that
 * writes to its file through /proc/PID/exe (CVE-2019-5736): unless it was started from a read-only mount, it makes one, and
 * executes itself a second time. That costs as much as the rest of its start, and a kill in between leaves files in
 * /tmp. */
typedef struct Runtime {
        char *name;       /* "" for the default */
        char *path;
        char *root;       /* of its state: a folder for each container */
        NativeRuntimeType type;
        RuntimeFeatures features;
        struct stat features_seen; /* the program that has them; st_ino 0: not asked yet */

        int fd;           /* of the mount; -1: none */
        struct stat seen; /* what it was made from: a package manager may have replaced it */
        char fd_path[48]; /* "/proc/PID/fd/N" */
} Runtime;

/* The cgroups below a container's unit, where the runtime manages cgroups itself: the one it makes for the container,
 * and the one in which it runs meanwhile, since a cgroup with others below it must not have processes. */
#define RUNTIME_LEAF "container"
#define RUNTIME_OWN_LEAF "runtime"

static inline bool runtime_has_leaf(const Runtime *r) {
        return r->type == NATIVE_RUNTIME_RUNC;
}

void runtime_done(Runtime *r);
int runtime_init(Runtime *r, const char *name, const char *path, const char *root, NativeRuntimeType type);
/* (fiber) Asks it what it can, once for each program that is found there. One that can't be asked can little. */
int runtime_features(Runtime *r, RuntimeFeatures *ret, Error *error);
/* Appends the program and its global options; log: a file for its messages, NULL: none. */
int runtime_arguments(Runtime *r, const char *log, char ***argv);
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
