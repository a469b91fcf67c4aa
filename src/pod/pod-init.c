/* Processes of the pod see this one as /proc/1, and some may trace it (a debug container has CAP_SYS_PTRACE). So it gives
 * away everything first: an empty read-only root, no descriptors, no capabilities, no user of note. */

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "pod/pod-init.h"
#include "pod/pod-namespace.h"
#include "pod/pod-notify.h"
#include "pod/pod-protocol.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

#define NOBODY 65534
#define KILL_WAIT_SEC 1

/* An empty file system as root, seen by this process alone. */
static int init_empty_root(void) {
        int r;

        r = SYS(unshare, CLONE_NEWNS);
        if (r < 0)
                return r;
        r = SYS(mount, NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
        if (r < 0)
                return r;
        r = SYS(mount, "tmpfs", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
                "size=4k,nr_inodes=2,mode=0555");
        if (r < 0)
                return r;
        r = SYS(chdir, "/proc");
        if (r < 0)
                return r;
        r = SYS(pivot_root, ".", ".");
        if (r < 0)
                return r;
        r = SYS(umount2, ".", MNT_DETACH);
        if (r < 0)
                return r;
        return SYS(chdir, "/");
}

static int init_drop_privileges(void) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2] = {};
        int r;

        for (int i = 0; i < 64; i++) {
                r = SYS(prctl, PR_CAPBSET_DROP, i, 0, 0, 0);
                if (r == -EINVAL)
                        break; /* beyond the kernel's last one */
                if (r < 0)
                        return r;
        }
        r = SYS(setgroups, 0, NULL);
        if (r < 0)
                return r;
        /* EINVAL: the pod's user namespace has no such ID. */
        r = SYS(setresgid, NOBODY, NOBODY, NOBODY);
        if (r < 0 && r != -EINVAL)
                return r;
        r = SYS(setresuid, NOBODY, NOBODY, NOBODY);
        if (r < 0 && r != -EINVAL)
                return r;
        r = SYS(capset, &header, data);
        if (r < 0)
                return r;
        return SYS(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static _Noreturn void init_run(int fd) {
        uint64_t mask = ~UINT64_C(0);
        char go;
        int r;

        (void) SYS(prctl, PR_SET_NAME, "rktlet-init");
        if (fd != 0) {
                (void) SYS(dup3, fd, 0, O_CLOEXEC);
                fd = 0;
        }
        (void) SYS(close_range, 1, ~0U, 0);

        r = init_empty_root();
        if (r >= 0)
                r = init_drop_privileges();
        (void) SYS(write, fd, &r, sizeof r);

        /* The word to go on comes when this process is in the FD store; when it doesn't come, nobody knows of it. */
        if (r < 0 || SYS(read, fd, &go, 1) != 1)
                sys_exit(EXIT_FAILURE);
        (void) SYS(close, fd);

        /* All signals are blocked (pod_main()), and those without a handler don't reach the first process of a pid
         * namespace anyway; SIGKILL from outside does. */
        for (;;) {
                r = SYS(waitid, P_ALL, 0, NULL, WEXITED, NULL);
                if (r == -ECHILD)
                        (void) SYS(rt_sigtimedwait, &mask, NULL, NULL, sizeof mask);
        }
}

int init_prepare(InitStart *s, Text *why) {
        int pair[2], r;

        r = SYS(socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
        if (r < 0)
                return fail(why, r, "cannot make a socket pair", NULL);
        s->ours = pair[0];
        s->theirs = pair[1];
        return 0;
}

void init_done(InitStart *s) {
        s->ours = sys_close(s->ours);
        s->theirs = sys_close(s->theirs);
}

int init_fork(const InitStart *s, int flags) {
        int pid = (int) sys_call(__NR_clone, SIGCHLD | flags, 0, 0, 0, 0, 0);

        if (pid == 0)
                init_run(s->theirs);
        return pid;
}

int init_complete(InitStart *s, int pid, int *ret_pidfd, Text *why) {
        _cleanup_fd_ int pidfd = -1;
        int told, r;

        s->theirs = sys_close(s->theirs);
        pidfd = SYS(pidfd_open, pid, 0);
        if (pidfd < 0)
                return fail(why, pidfd, "cannot follow the pod's init", NULL);
        r = SYS(read, s->ours, &told, sizeof told);
        if (r != (int) sizeof told)
                return fail(why, r < 0 ? r : -ECHILD, "the pod's init died at once", NULL);
        if (told < 0)
                return fail(why, told, "the pod's init cannot lock itself in", NULL);
        r = notify_store("init", &pidfd, 1);
        if (r < 0)
                return fail(why, r, "cannot store the pod's init", NULL);
        r = SYS(write, s->ours, "", 1);
        if (r < 0)
                return fail(why, r, "the pod's init died", NULL);

        *ret_pidfd = pidfd;
        pidfd = -1;
        return 0;
}

void init_kill(int pidfd) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };
        struct timespec timeout = { .tv_sec = KILL_WAIT_SEC };

        if (pidfd < 0)
                return;
        (void) SYS(pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        (void) SYS(ppoll, &p, 1, &timeout, NULL, 0);
        (void) SYS(waitid, P_PIDFD, pidfd, NULL, WEXITED | WNOHANG, NULL);
}
