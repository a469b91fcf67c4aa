#include <fcntl.h>
#include <linux/mount.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "pod/pod-init.h"
#include "pod/pod-namespace.h"
#include "pod/pod-notify.h"

const char *const namespace_names[_NAMESPACE_MAX] = {
        [NAMESPACE_NET] = "net",
        [NAMESPACE_IPC] = "ipc",
        [NAMESPACE_UTS] = "uts",
        [NAMESPACE_MNT] = "mnt",
        [NAMESPACE_PID] = "pid",
        [NAMESPACE_USER] = "user",
};

static const struct {
        int flag;
        const char *path;
} kinds[_NAMESPACE_MAX] = {
        [NAMESPACE_NET] = { CLONE_NEWNET, "/proc/self/ns/net" },
        [NAMESPACE_IPC] = { CLONE_NEWIPC, "/proc/self/ns/ipc" },
        [NAMESPACE_UTS] = { CLONE_NEWUTS, "/proc/self/ns/uts" },
        [NAMESPACE_MNT] = { CLONE_NEWNS, "/proc/self/ns/mnt" },
        [NAMESPACE_PID] = { CLONE_NEWPID, "/proc/self/ns/pid_for_children" },
        [NAMESPACE_USER] = { CLONE_NEWUSER, "/proc/self/ns/user" },
};

static bool wanted(const PodOptions *o, int kind) {
        switch (kind) {
        case NAMESPACE_NET:
                return o->net;
        case NAMESPACE_IPC:
                return o->ipc;
        case NAMESPACE_UTS:
                return o->uts;
        case NAMESPACE_PID:
                return o->pid;
        case NAMESPACE_USER:
                return has_userns(o);
        default:
                return true; /* container mounts live in a mount namespace of the pod, where PID 1 doesn't see them */
        }
}

static int loopback_up(Text *why) {
        struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
        _cleanup_fd_ int fd = SYS(socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        int r;

        if (fd < 0)
                return fail(why, fd, "cannot make a socket", NULL);
        r = SYS(ioctl, fd, SIOCSIFFLAGS, &request);
        if (r < 0)
                return fail(why, r, "cannot bring the loopback interface up", NULL);
        return 0;
}

/* net., the parts of kernel. that belong to an IPC namespace, fs.mqueue., and names of the UTS namespace. */
static bool sysctl_is_ours(const PodOptions *o, const char *name) {
        static const char *const ipc[] = { "kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/" };

        if (startswith(name, "net/"))
                return o->net;
        for (size_t i = 0; i < ELEMENTSOF(ipc); i++)
                if (startswith(name, ipc[i]))
                        return o->ipc;
        if (streq(name, "kernel/domainname") || streq(name, "kernel/hostname"))
                return o->uts;
        return false;
}

int sysctl_write(const PodOptions *o, const char *assignment, Text *why) {
        char path[256] = "/proc/sys/";
        size_t n = STRLEN("/proc/sys/"), value_size;
        const char *value = assignment;
        bool slashes = false;
        _cleanup_fd_ int fd = -1;
        int r;

        /* The first separator tells which of them separates: "net.ipv4.conf.eth0/1.forwarding", or with slashes. */
        for (const char *p = assignment; *p && *p != '='; p++)
                if (*p == '.' || *p == '/') {
                        slashes = *p == '/';
                        break;
                }
        for (; *value && *value != '='; value++) {
                bool fine = (*value >= 'a' && *value <= 'z') || (*value >= 'A' && *value <= 'Z') ||
                            (*value >= '0' && *value <= '9') || *value == '_' || *value == '-' || *value == '.' ||
                            *value == '/' || *value == ':' || *value == '@';

                if (!fine || n + 1 >= sizeof path)
                        return fail(why, -EINVAL, "no valid sysctl name in \"", assignment, "\"", NULL);
                if (!slashes && (*value == '.' || *value == '/'))
                        path[n++] = *value == '.' ? '/' : '.';
                else
                        path[n++] = *value;
                if (path[n - 1] == '.' && path[n - 2] == '.')
                        return fail(why, -EINVAL, "no valid sysctl name in \"", assignment, "\"", NULL);
        }
        path[n] = 0;
        if (*value != '=')
                return fail(why, -EINVAL, "a sysctl must be NAME=VALUE, not \"", assignment, "\"", NULL);
        value++;

        if (!sysctl_is_ours(o, path + STRLEN("/proc/sys/")))
                return fail(why, -EPERM, "sysctl \"", assignment,
                            "\" does not belong to a namespace that the pod has for itself", NULL);

        fd = SYS(openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0);
        if (fd < 0)
                return fail(why, fd, "cannot open sysctl ", assignment, NULL);
        value_size = strlen(value);
        r = SYS(write, fd, value, value_size);
        if (r < 0)
                return fail(why, r, "cannot set sysctl ", assignment, NULL);
        if ((size_t) r != value_size)
                return fail(why, -EINVAL, "sysctl took a part of its value only: ", assignment, NULL);
        return 0;
}

static int names_set(const PodOptions *o, Text *why) {
        int r;

        if (o->hostname) {
                r = SYS(sethostname, o->hostname, strlen(o->hostname));
                if (r < 0)
                        return fail(why, r, "cannot set hostname \"", o->hostname, "\"", NULL);
        }
        if (o->domainname) {
                r = SYS(setdomainname, o->domainname, strlen(o->domainname));
                if (r < 0)
                        return fail(why, r, "cannot set domain name \"", o->domainname, "\"", NULL);
        }
        return 0;
}

/* --- in a user namespace ----------------------------------------------------------------------------------------- */

/* What the child that makes the namespaces says after each step. */
typedef struct Told {
        int result;
        int init; /* process ID */
        Text why;
} Told;

/* The others belong to the user namespace in which they are made. This process is gone when they have been taken over. */
static _Noreturn void make_inside(const PodOptions *o, int fd, InitStart *init) {
        static const int order[] = { NAMESPACE_NET, NAMESPACE_IPC, NAMESPACE_UTS, NAMESPACE_PID };
        Told told = {};
        char go;

        told.result = SYS(unshare, CLONE_NEWUSER);
        (void) SYS(write, fd, &told, sizeof told);
        /* Until the IDs are mapped. */
        if (told.result < 0 || SYS(read, fd, &go, 1) != 1)
                sys_exit(EXIT_FAILURE);
        /* Root of it, if it has one. */
        (void) SYS(setgroups, 0, NULL);
        (void) SYS(setresgid, 0, 0, 0);
        (void) SYS(setresuid, 0, 0, 0);
        for (size_t i = 0; i < ELEMENTSOF(order) && told.result >= 0; i++)
                if (wanted(o, order[i]))
                        told.result = SYS(unshare, kinds[order[i]].flag);
        /* Those of an IPC namespace are its own root's, who else is only a guest there. */
        for (size_t i = 0; i < o->n_sysctls && told.result >= 0; i++)
                told.result = sysctl_write(o, o->sysctl[i], &told.why);
        if (told.result >= 0 && o->pid) {
                told.init = init_fork(init, CLONE_PARENT);
                told.result = told.init < 0 ? told.init : 0;
        }
        init_done(init);
        (void) SYS(write, fd, &told, sizeof told);
        (void) SYS(read, fd, &go, 1);
        sys_exit(EXIT_SUCCESS);
}

/* "0:100000:65536" as "0 100000 65536" and a newline. */
static int map_write(int pid, const char *file, const char *const *maps, size_t n, Text *why) {
        char lines[POD_ID_MAPS_MAX * 36];
        _cleanup_fd_ int fd = -1;
        size_t size = 0;
        Text path = {};
        int r;

        for (size_t i = 0; i < n; i++) {
                for (const char *s = maps[i]; *s; s++) {
                        if (((*s < '0' || *s > '9') && *s != ':') || size + 2 >= sizeof lines)
                                return fail(why, -EINVAL, "no range of IDs: ", maps[i], NULL);
                        lines[size++] = *s == ':' ? ' ' : *s;
                }
                lines[size++] = '\n';
        }
        text_add(&path, "/proc/");
        text_add_number(&path, (uint64_t) pid);
        text_add(&path, file);
        fd = SYS(openat, AT_FDCWD, path.s, O_WRONLY | O_CLOEXEC, 0);
        if (fd < 0)
                return fail(why, fd, "cannot open ", path.s, NULL);
        r = SYS(write, fd, lines, size);
        if (r < 0)
                return fail(why, r, "cannot map the IDs of the pod's user namespace", NULL);
        return 0;
}

static int take_over(const PodOptions *o, int pid, Namespaces *n, Text *why) {
        int r;

        for (int i = 0; i < _NAMESPACE_MAX; i++) {
                Text path = {};

                if (!wanted(o, i) || i == NAMESPACE_MNT)
                        continue;
                text_add(&path, "/proc/");
                text_add_number(&path, (uint64_t) pid);
                text_add(&path, kinds[i].path + STRLEN("/proc/self"));
                n->fd[i] = SYS(openat, AT_FDCWD, path.s, O_RDONLY | O_CLOEXEC, 0);
                if (n->fd[i] < 0)
                        return fail(why, n->fd[i], "cannot open ", path.s, NULL);
                r = i == NAMESPACE_USER ? 0 : SYS(setns, n->fd[i], kinds[i].flag);
                if (r < 0)
                        return fail(why, r, "cannot enter the pod's ", namespace_names[i], " namespace", NULL);
                r = notify_store(namespace_names[i], &n->fd[i], 1);
                if (r < 0)
                        return fail(why, r, "cannot store the ", namespace_names[i], " namespace", NULL);
        }
        return 0;
}

static int hear(int fd, Told *told, Text *why) {
        int r = SYS(read, fd, told, sizeof *told);

        if (r != (int) sizeof *told)
                return fail(why, r < 0 ? r : -ECHILD, "the process that makes the namespaces died", NULL);
        if (told->result < 0)
                return told->why.n > 0 ? fail(why, 0, told->why.s, NULL), told->result
                                       : fail(why, told->result, "cannot make the pod's namespaces in a user namespace",
                                              NULL);
        return 0;
}

static int lead_inside(const PodOptions *o, int fd, int pid, InitStart *init, Namespaces *n, Text *why) {
        Told told;
        int r;

        r = hear(fd, &told, why);
        if (r >= 0)
                r = map_write(pid, "/uid_map", o->uid_map, o->n_uid_maps, why);
        if (r >= 0)
                r = map_write(pid, "/gid_map", o->gid_map, o->n_gid_maps, why);
        if (r >= 0 && SYS(write, fd, "", 1) < 0)
                return fail(why, -ECHILD, "the process that makes the namespaces died", NULL);
        if (r >= 0)
                r = hear(fd, &told, why);
        if (r >= 0)
                r = take_over(o, pid, n, why);
        if (r >= 0 && o->pid)
                r = init_complete(init, told.init, &n->init_pidfd, why);
        return r;
}

static int make_in_userns(const PodOptions *o, Namespaces *n, Text *why) {
        InitStart init = INIT_START_INIT;
        int pair[2], pid, r = 0;

        if (o->pid)
                r = init_prepare(&init, why);
        if (r < 0)
                return r;
        r = SYS(socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
        if (r < 0) {
                init_done(&init);
                return fail(why, r, "cannot make a socket pair", NULL);
        }
        pid = (int) sys_call(__NR_clone, SIGCHLD, 0, 0, 0, 0, 0);
        if (pid == 0) {
                (void) sys_close(pair[0]);
                make_inside(o, pair[1], &init);
        }
        (void) sys_close(pair[1]);
        init.theirs = sys_close(init.theirs);
        if (pid < 0)
                r = fail(why, pid, "cannot start a process that makes the namespaces", NULL);
        else
                r = lead_inside(o, pair[0], pid, &init, n, why);
        /* It ends with the socket. */
        (void) sys_close(pair[0]);
        if (pid > 0)
                (void) SYS(wait4, pid, NULL, 0, NULL);
        init_done(&init);
        return r;
}

/* ----------------------------------------------------------------------------------------------------------------- */

static int init_start(int *ret_pidfd, Text *why) {
        InitStart s = INIT_START_INIT;
        int pid, r;

        r = init_prepare(&s, why);
        if (r < 0)
                return r;
        pid = init_fork(&s, 0);
        r = pid < 0 ? fail(why, pid, "cannot start the pod's init", NULL) : init_complete(&s, pid, ret_pidfd, why);
        init_done(&s);
        return r;
}

int namespaces_make(const PodOptions *o, Namespaces *n, Text *why) {
        int r;

        if (has_userns(o)) {
                r = make_in_userns(o, n, why);
                if (r < 0)
                        return r;
        }
        for (int i = 0; i < _NAMESPACE_MAX; i++) {
                if (!wanted(o, i) || n->fd[i] >= 0)
                        continue;
                r = SYS(unshare, kinds[i].flag);
                if (r < 0)
                        return fail(why, r, "cannot make the pod's ", namespace_names[i], " namespace", NULL);
                if (i == NAMESPACE_PID) {
                        /* The namespace has no descriptor before its first process. */
                        r = init_start(&n->init_pidfd, why);
                        if (r < 0)
                                return r;
                }
                n->fd[i] = SYS(openat, AT_FDCWD, kinds[i].path, O_RDONLY | O_CLOEXEC, 0);
                if (n->fd[i] < 0)
                        return fail(why, n->fd[i], "cannot open ", kinds[i].path, NULL);
                r = notify_store(namespace_names[i], &n->fd[i], 1);
                if (r < 0)
                        return fail(why, r, "cannot store the ", namespace_names[i], " namespace", NULL);
        }

        r = SYS(mount, NULL, "/", NULL, MS_REC | MS_SLAVE, NULL);
        if (r < 0)
                return fail(why, r, "cannot make the pod's mounts its own", NULL);

        if (o->net) {
                r = loopback_up(why);
                if (r < 0)
                        return r;
        }
        if (o->uts) {
                r = names_set(o, why);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < o->n_sysctls && !has_userns(o); i++) {
                r = sysctl_write(o, o->sysctl[i], why);
                if (r < 0)
                        return r;
        }
        return 0;
}

int namespaces_enter(const PodOptions *o, const Namespaces *n, Text *why) {
        int r;

        for (int i = 0; i < _NAMESPACE_MAX; i++) {
                if (!wanted(o, i))
                        continue;
                if (n->fd[i] < 0)
                        return fail(why, -EBADF, "the ", namespace_names[i], " namespace did not come back", NULL);
                if (i == NAMESPACE_USER)
                        continue;
                r = SYS(setns, n->fd[i], kinds[i].flag);
                if (r < 0)
                        return fail(why, r, "cannot enter the pod's ", namespace_names[i], " namespace", NULL);
        }
        return 0;
}
