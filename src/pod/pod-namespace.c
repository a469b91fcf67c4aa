#include <fcntl.h>
#include <linux/mount.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>

#include "pod/pod-init.h"
#include "pod/pod-namespace.h"
#include "pod/pod-notify.h"

const char *const namespace_names[_NAMESPACE_MAX] = {
        [NAMESPACE_NET] = "net",
        [NAMESPACE_IPC] = "ipc",
        [NAMESPACE_UTS] = "uts",
        [NAMESPACE_MNT] = "mnt",
        [NAMESPACE_PID] = "pid",
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

int namespaces_make(const PodOptions *o, Namespaces *n, Text *why) {
        int r;

        for (int i = 0; i < _NAMESPACE_MAX; i++) {
                if (!wanted(o, i))
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
        for (size_t i = 0; i < o->n_sysctls; i++) {
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
                r = SYS(setns, n->fd[i], kinds[i].flag);
                if (r < 0)
                        return fail(why, r, "cannot enter the pod's ", namespace_names[i], " namespace", NULL);
        }
        return 0;
}
