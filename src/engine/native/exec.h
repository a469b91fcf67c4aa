#pragma once
/* What a command in a container needs, with its output caught (exec.c) or streamed (exec-stream.c). */

#include "basic/process.h"
#include "engine/native/internal.h"

/* A cgroup of its own below the container's. */
typedef struct ExecCgroup {
        int parent_fd, fd;
        char name[32];
        char *path;     /* as ControlGroup has it */
        char *pid_file; /* where the runtime says which process it made; NULL: it is the runtime's own */
} ExecCgroup;
#define EXEC_CGROUP_INIT ((ExecCgroup) { .parent_fd = -1, .fd = -1 })

void exec_cgroup_done(ExecCgroup *g);
int exec_cgroup_make(NativeContainer *n, const EngineContainer *c, ExecCgroup *g, Error *error);
/* (fiber) Waits while the container is frozen (a checkpoint is made, or somebody froze its unit): a process born into a
 * frozen cgroup doesn't come as far as its execve(2), and this one would wait for that, with all its loop. timeout 0: none.
 */
int exec_cgroup_wait_thawed(const NativeContainer *n, const ExecCgroup *g, uint64_t timeout_usec, Error *error);
/* kill: whatever is in it dies; else it goes on in the container's own cgroup. (fiber) */
void exec_cgroup_remove(ExecCgroup *g, bool kill);
/* process_run() of a command failed with r: says so where it was killed at its timeout. Returns r. */
int exec_failed(int r, uint64_t timeout_usec, Error *error);
/* What the command came to; takes the outputs. */
EngineExecResult exec_take_result(ProcessResult *result);
/* What a daemon that was killed had executed in a container: nobody can have its output, or its end, any more. */
void exec_end_leftovers(NativeContainer *n);

/* The container's own process with other arguments: same user, environment, capabilities, and so on. Either for the
 * runtime or for rktlet-exec. */
typedef struct ExecProcess {
        uid_t uid;
        gid_t gid;
        int fd;    /* a file in memory, for descriptor 3 */
        int pidfd; /* for descriptor 5, the container's first process: rktlet-exec; -1: the runtime */
} ExecProcess;
#define EXEC_PROCESS_INIT ((ExecProcess) { .fd = -1, .pidfd = -1 })

void exec_process_done(ExecProcess *p);
int exec_process_make(NativeEngine *e, const NativeContainer *n, const EngineContainer *c, const char *const *argv,
                      bool terminal, ExecProcess *ret, Error *error);
/* exec-direct.c: 1 when rktlet-exec can do it, with its request and the container's first process; 0 when the runtime
 * has to: the container has a setting that isn't known there, or it can't be said why not. */
int exec_direct(NativeEngine *e, const NativeContainer *n, const json_t *config, const json_t *process, int *ret_fd,
                int *ret_pidfd);
/* The runtime's command line: process and log at descriptors 3 and 4. console: the socket for a terminal, or NULL. */
int exec_arguments(NativeEngine *e, const EngineContainer *c, const NativeContainer *n, const ExecCgroup *g,
                   const char *console, char ***ret, Error *error);
/* The runtime itself failed, not the command: what it wrote to its log. */
int exec_check_runtime(int log_fd, const char *command, Error *error);
/* FailedPrecondition unless it runs. Borrowed. */
int exec_find_container(NativeEngine *e, const EngineContainer *c, NativeContainer **ret, Error *error);
