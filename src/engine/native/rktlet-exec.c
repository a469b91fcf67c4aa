/* A command in a container that runs: joins its namespaces, becomes what its process is, and executes. It does what
 * `crun exec` does for the plain containers that rktlet makes, in a third of the time (exec-direct.c says which).
 *
 * It gives up its rights before any process of it is in the container's PID namespace: what the container can see of
 * it, and trace, has the container's own rights, no descriptor of the host's, and a program file on a mount that
 * nobody can write to (CVE-2019-5736, CVE-2024-21626).
 *
 * It ends as the command does, with 128 + N after signal N. */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/native/exec-request.h"

#define NAMESPACES (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET)
#define LOG_FD 3 /* once the others are closed */
#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

typedef struct Command {
        const ExecRequest *head;
        const gid_t *groups;
        struct sock_fprog filter;
        const char *cwd;
        char **argv, **env;
} Command;

static int log_fd = EXEC_LOG_FD;

static _Noreturn void fail(const char *what) {
        dprintf(log_fd, "{\"msg\":\"%s: %s\",\"level\":\"error\"}\n", what, strerror(errno));
        _exit(1);
}

/* --- the request ------------------------------------------------------------------------------------------------- */

/* The next string of the request, which ends inside of it. */
static const char *next_string(const char **p, const char *end) {
        const char *s = *p, *nul = s < end ? memchr(s, 0, (size_t) (end - s)) : NULL;

        if (!nul) {
                errno = EBADMSG;
                fail("cannot understand the command");
        }
        *p = nul + 1;
        return s;
}

static char **next_strings(const char **p, const char *end, size_t n) {
        char **l = calloc(n + 1, sizeof(char *));

        if (!l)
                fail("cannot read the command");
        for (size_t i = 0; i < n; i++)
                l[i] = (char *) next_string(p, end);
        return l;
}

static void read_command(Command *ret) {
        const ExecRequest *r;
        const char *p, *end;
        struct stat st;
        size_t fixed;

        if (fstat(EXEC_REQUEST_FD, &st) < 0)
                fail("cannot read the command");
        errno = EBADMSG;
        if (st.st_size < (off_t) sizeof(ExecRequest) || st.st_size > (off_t) EXEC_REQUEST_MAX)
                fail("cannot understand the command");
        r = mmap(NULL, (size_t) st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, EXEC_REQUEST_FD, 0);
        if (r == MAP_FAILED)
                fail("cannot read the command");
        errno = EBADMSG;
        fixed = sizeof *r + (size_t) r->n_groups * sizeof(gid_t) + r->filter_size;
        if (r->magic != EXEC_REQUEST_MAGIC || r->n_args == 0 || r->filter_size % sizeof(struct sock_filter) != 0 ||
            r->filter_size / sizeof(struct sock_filter) > BPF_MAXINSNS || fixed > (size_t) st.st_size)
                fail("cannot understand the command");
        p = (const char *) r + fixed;
        end = (const char *) r + st.st_size;
        ret->head = r;
        ret->groups = (const gid_t *) (r + 1);
        ret->filter.filter = (struct sock_filter *) (void *) ((char *) (r + 1) + r->n_groups * sizeof(gid_t));
        ret->filter.len = (unsigned short) (r->filter_size / sizeof(struct sock_filter));
        ret->cwd = next_string(&p, end);
        ret->argv = next_strings(&p, end, r->n_args);
        ret->env = next_strings(&p, end, r->n_env);
}

/* --- becoming the container's ------------------------------------------------------------------------------------ */

static void set_filter(const Command *c) {
        if (c->filter.len > 0 &&
            syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &c->filter) < 0)
                fail("cannot set the seccomp filter");
}

/* The kernel may have fewer capabilities than there are bits. */
static void drop_bounding(uint64_t keep) {
        for (unsigned i = 0; i < 64; i++)
                if (!(keep & (UINT64_C(1) << i)) && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0) {
                        if (errno == EINVAL)
                                return;
                        fail("cannot drop a capability");
                }
}

static void set_capabilities(const ExecRequest *r) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2];

        for (unsigned i = 0; i < 2; i++)
                data[i] = (struct __user_cap_data_struct) {
                        .effective = (uint32_t) (r->effective >> (32 * i)),
                        .permitted = (uint32_t) (r->permitted >> (32 * i)),
                        .inheritable = (uint32_t) (r->inheritable >> (32 * i)),
                };
        if (syscall(SYS_capset, &header, data) < 0)
                fail("cannot set the capabilities");
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
                fail("cannot set the ambient capabilities");
        for (unsigned i = 0; i < 64; i++)
                if ((r->ambient & (UINT64_C(1) << i)) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) < 0)
                        fail("cannot set the ambient capabilities");
}

/* So that the command can open /dev/stdout again. Only pipes are its own. */
static void give_pipes(const ExecRequest *r) {
        struct stat st;

        for (int i = 0; i < 3; i++)
                if (fstat(i, &st) >= 0 && S_ISFIFO(st.st_mode))
                        (void) fchown(i, r->uid, r->gid);
}

static void become(const Command *c) {
        const ExecRequest *r = c->head;
        bool in_place;

        /* With no descriptor of a directory open: the path is the container's, and may lead through /proc/self/fd.
         * Where only root can go, or only the user, as on some network file systems, both are tried. */
        in_place = chdir(c->cwd) >= 0;
        if (setgroups(r->n_groups, c->groups) < 0)
                fail("cannot set the supplementary groups");
        give_pipes(r);
        /* A filter wants CAP_SYS_ADMIN, or that nothing is ever gained: the one is about to go, the other to come. */
        if (!r->no_new_privileges)
                set_filter(c);
        drop_bounding(r->bounding);
        if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
                fail("cannot keep capabilities");
        if (setresgid(r->gid, r->gid, r->gid) < 0 || setresuid(r->uid, r->uid, r->uid) < 0)
                fail("cannot become the container's user");
        set_capabilities(r);
        if (!in_place && chdir(c->cwd) < 0)
                fail("cannot change to the working directory");
        (void) umask(0022);
        if (r->no_new_privileges) {
                if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                        fail("cannot set no_new_privs");
                set_filter(c);
        }
}

/* --- the command ------------------------------------------------------------------------------------------------- */

static const char *path_of(char **env) {
        for (; *env; env++)
                if (strncmp(*env, "PATH=", 5) == 0)
                        return *env + 5;
        return PATH_DEFAULT;
}

/* As execvpe(3), but a file without a format isn't taken for a shell script. Returns why it could not. */
static int execute(const Command *c) {
        static char file[4096];
        const char *name = c->argv[0];
        int error = ENOENT, n;

        if (strchr(name, '/')) {
                (void) execve(name, c->argv, c->env);
                return errno;
        }
        for (const char *dir = path_of(c->env), *end; dir; dir = *end ? end + 1 : NULL) {
                end = strchrnul(dir, ':');
                n = snprintf(file, sizeof file, "%.*s%s%s", (int) (end - dir), dir, end > dir ? "/" : "./", name);
                if (!*name || n < 0 || n >= (int) sizeof file)
                        continue;
                (void) execve(file, c->argv, c->env);
                if (errno == EACCES)
                        error = EACCES; /* perhaps there is another one */
                else if (errno != ENOENT && errno != ENOTDIR)
                        return errno;
        }
        return error;
}

/* In the words of crun, which the daemon knows. */
static _Noreturn void fail_to_execute(int error) {
        errno = error;
        if (error == ENOENT || error == ENOTDIR)
                fail("executable file of the command not found");
        if (error == EACCES)
                fail("open executable");
        fail("cannot execute it");
}

/* As vfork(), but with memory of its own: the child is in the container's PID namespace, where a process with
 * CAP_SYS_PTRACE can write to it, and its parent, which is not, must not follow. */
static pid_t start_child(void) {
        return (pid_t) syscall(SYS_clone, CLONE_VFORK | SIGCHLD, NULL, NULL, NULL, NULL);
}

int main(void) {
        volatile int *failure; /* of the child to execute: the one thing that both write to */
        Command c = {};
        int status;
        pid_t pid;

        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                fail("cannot hide from the container");
        read_command(&c);
        failure = mmap(NULL, sizeof *failure, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (failure == MAP_FAILED)
                fail("cannot prepare a process");
        if (setns(EXEC_PIDFD_FD, NAMESPACES) < 0)
                fail("cannot enter the container's namespaces");
        if (dup3(EXEC_LOG_FD, LOG_FD, O_CLOEXEC) < 0 || syscall(SYS_close_range, LOG_FD + 1, ~0U, 0U) < 0)
                fail("cannot close descriptors");
        log_fd = LOG_FD;
        if (setsid() < 0)
                fail("cannot make a session");
        become(&c);

        pid = start_child();
        if (pid < 0)
                fail("cannot start a process in the container");
        if (pid == 0) {
                (void) close(LOG_FD);
                *failure = execute(&c);
                _exit(1);
        }
        /* It is for the command to keep them open. */
        for (int i = 0; i < 3; i++)
                (void) close(i);
        if (*failure > 0)
                fail_to_execute(*failure);
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        fail("cannot wait for the command");
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
