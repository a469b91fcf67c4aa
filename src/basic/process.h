#pragma once
/* Child processes: started with clone3 (pidfd, optionally straight into a cgroup), waited for in a fiber, output
 * caught with a bound. After the clone the child only makes system calls and execs; it has no descriptor but those it
 * is given. Signal dispositions and mask, the soft limit of open files and the OOM score are those of an ordinary
 * process, whatever the daemon has. */

#include "basic/error.h"
#include "basic/macro.h"

#define PROCESS_NOFILE_SOFT 1024U /* what programs expect: select(2) knows no larger descriptors */

typedef struct ProcessOptions {
        const char *const *argv;       /* argv[0] is an absolute path */
        const char *const *env;        /* "K=v", NULL-terminated; NULL: only PATH */
        const char *working_directory; /* NULL: / */
        const void *input;             /* the contents of its standard input (a file in memory); NULL: /dev/null */
        size_t input_size;
        size_t output_max;             /* bytes of standard output kept, 0: /dev/null. More is read and dropped. */
        size_t error_max;              /* the same for standard error */
        bool kill_on_overflow;         /* a child that prints more than output_max is killed: it may never end */
        int stdin_fd, stdout_fd, stderr_fd; /* > 0: used instead of the above; 0 (unset) or negative: not given */
        int cgroup_fd;                 /* > 0: directory of the cgroup to be born in (CLONE_INTO_CGROUP) */
        const int *pass_fds;           /* kept open in the child at the numbers 3, 4, … */
        size_t n_pass_fds;
        uint64_t timeout_usec;         /* 0: none; then SIGKILL and -ETIMEDOUT */
        const char *oom_score_adj;     /* proc(5), as text; NULL: 0 where ours is below that, else ours */
        uint64_t cancel_grace_usec;    /* on cancellation and deadline: time to end by itself before it is killed */
        bool host_mounts;              /* the child is in the mount namespace of PID 1: what it mounts is the host's */
        bool kill_group;               /* the child leads its own process group, and the group is killed */
} ProcessOptions;

typedef struct ProcessResult {
        int code;   /* si_code: CLD_EXITED, CLD_KILLED, CLD_DUMPED */
        int status; /* exit status or signal */
        char *output, *error; /* NUL-terminated, owned; NULL where nothing was to be kept */
        size_t output_size, error_size;
        bool output_truncated, error_truncated;
} ProcessResult;

void process_result_done(ProcessResult *r);

/* Starts a child without waiting for it: pidfd (to be closed by the caller) and pid. The option fields input,
 * output_max, error_max and timeout are not looked at. */
int process_spawn(const ProcessOptions *options, pid_t *ret_pid, int *ret_pidfd, Error *error);

/* The same with all three standard descriptors given. */
int process_spawn_with(const ProcessOptions *options, const int std[static 3], pid_t *ret_pid, int *ret_pidfd,
                       Error *error);

/* Runs a child to its end. Must be called in a fiber. On cancellation, deadline and timeout it is killed and reaped
 * before the call returns; ret is filled (output so far) on -ETIMEDOUT as well. A child that exits non-zero is no
 * error of this function. */
int process_run(const ProcessOptions *options, ProcessResult *ret, Error *error);

/* One line that says how it ended: "exited with status 3", "was killed by signal 9 (KILL)". Static buffer. */
const char *process_result_describe(const ProcessResult *r);
