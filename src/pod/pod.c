/* rktlet-pod, the main process of a pod's unit: it holds the pod's namespaces, as pause containers do elsewhere, pumps
 * the containers' output into their log files, and keeps the containers' mounts. Killed, it is started again by the
 * service manager and goes on where it was: all it needs to know is in the unit's FD store. pod-protocol.h has the
 * command line and what the unit must look like. */

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>

#include "pod/pod-attach.h"
#include "pod/pod-control.h"
#include "pod/pod-journal.h"
#include "pod/pod-log.h"
#include "pod/pod-namespace.h"
#include "pod/pod-notify.h"
#include "pod/pod-protocol.h"
#include "pod/pod-stream.h"

#define EVENTS_MAX 32
#define TRIM_MSEC 1000       /* idle for so long: give pages back */
#define RETRY_MSEC 250       /* a log that could not be written is tried again */
#define NSEC_PER_MSEC (1000 * 1000)
#define STOP_NSEC (2 * NSEC_PER_SEC) /* at the end a log may be unwritable for so long */

/* epoll numbers beyond the control socket's */
#define EPOLL_SIGNAL (EPOLL_OTHER + 0x1000U)
#define EPOLL_INIT (EPOLL_OTHER + 0x1001U)

typedef struct Pod {
        PodOptions options;
        Namespaces namespaces;
        int socket;
        int signals;
} Pod;

static int add_map(const char **maps, size_t *n, const char *value, Text *why) {
        if (*n == POD_ID_MAPS_MAX)
                return fail(why, -E2BIG, "more than 32 ranges of IDs", NULL);
        maps[(*n)++] = value;
        return 0;
}

static int options_parse(PodOptions *o, int argc, char **argv, Text *why) {
        int r;

        o->run_directory = "/run/rktlet";
        journal_set_path("/run/systemd/journal/socket");

        for (int i = 1; i < argc; i++) {
                const char *value;

                if (streq(argv[i], "--net"))
                        o->net = true;
                else if (streq(argv[i], "--ipc"))
                        o->ipc = true;
                else if (streq(argv[i], "--uts"))
                        o->uts = true;
                else if (streq(argv[i], "--pid"))
                        o->pid = true;
                else if ((value = startswith(argv[i], "--socket=")))
                        o->socket = value;
                else if ((value = startswith(argv[i], "--run-directory=")))
                        o->run_directory = value;
                else if ((value = startswith(argv[i], "--journal=")))
                        journal_set_path(value);
                else if ((value = startswith(argv[i], "--hostname=")))
                        o->hostname = value;
                else if ((value = startswith(argv[i], "--domainname=")))
                        o->domainname = value;
                else if ((value = startswith(argv[i], "--sysctl="))) {
                        if (o->n_sysctls == POD_SYSCTLS_MAX)
                                return fail(why, -E2BIG, "more than 64 sysctls", NULL);
                        o->sysctl[o->n_sysctls++] = value;
                } else if ((value = startswith(argv[i], "--uid-map="))) {
                        r = add_map(o->uid_map, &o->n_uid_maps, value, why);
                        if (r < 0)
                                return r;
                } else if ((value = startswith(argv[i], "--gid-map="))) {
                        r = add_map(o->gid_map, &o->n_gid_maps, value, why);
                        if (r < 0)
                                return r;
                } else
                        return fail(why, -EINVAL, "unknown argument \"", argv[i], "\"", NULL);
        }
        if (!o->socket)
                return fail(why, -EINVAL, "--socket= is missing", NULL);
        if ((o->hostname || o->domainname) && !o->uts)
                return fail(why, -EINVAL, "a hostname needs --uts", NULL);
        if ((o->n_uid_maps > 0) != (o->n_gid_maps > 0))
                return fail(why, -EINVAL, "--uid-map= and --gid-map= go together", NULL);
        return 0;
}

/* The first look at what the FD store gave back: our own. */
static void take_own(const char *name, int fd, void *userdata) {
        Pod *p = userdata;

        for (int i = 0; i < _NAMESPACE_MAX; i++)
                if (streq(name, namespace_names[i])) {
                        p->namespaces.fd[i] = fd;
                        return;
                }
        if (streq(name, "init"))
                p->namespaces.init_pidfd = fd;
        else if (streq(name, "socket"))
                p->socket = fd;
        else
                (void) pump_take(name, fd);
}

/* The second: the containers'. */
static void take_containers(const char *name, int fd, void *userdata) {
        (void) pump_adopt(name, fd);
}

/* A first start that was killed before it was complete has left something; none of it is of use. */
static void drop(const char *name, int fd, void *userdata) {
        notify_forget(name);
        (void) sys_close(fd);
}

static int pod_make(Pod *p, Text *why) {
        int r;

        r = namespaces_make(&p->options, &p->namespaces, why);
        if (r < 0)
                return r;
        p->socket = control_make(&p->options, why);
        if (p->socket < 0)
                return p->socket;
        r = pump_make(why);
        if (r < 0)
                return r;
        return pump_commit(why);
}

static int pod_watch(Pod *p, Text *why) {
        struct epoll_event event = { .events = EPOLLIN, .data.u64 = EPOLL_SIGNAL };
        uint64_t mask = UINT64_C(1) << (SIGTERM - 1) | UINT64_C(1) << (SIGCHLD - 1);
        int r;

        p->signals = SYS(signalfd4, -1, &mask, sizeof mask, SFD_CLOEXEC | SFD_NONBLOCK);
        if (p->signals < 0)
                return fail(why, p->signals, "cannot watch signals", NULL);
        r = SYS(epoll_ctl, pump.epoll, EPOLL_CTL_ADD, p->signals, &event);
        if (r < 0)
                return fail(why, r, "cannot watch signals", NULL);

        if (p->namespaces.init_pidfd >= 0) {
                event.data.u64 = EPOLL_INIT;
                r = SYS(epoll_ctl, pump.epoll, EPOLL_CTL_ADD, p->namespaces.init_pidfd, &event);
                if (r < 0)
                        return fail(why, r, "cannot watch the pod's init", NULL);
        }
        return control_start(&p->options, p->socket, why);
}

static int pod_start(Pod *p, char **envp, Text *why) {
        struct rlimit limit;
        int r;

        if (SYS(prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) >= 0) {
                limit.rlim_cur = limit.rlim_max;
                (void) SYS(prlimit64, 0, RLIMIT_NOFILE, &limit, NULL);
        }
        (void) SYS(umask, 0);
        (void) SYS(chdir, "/");

        r = pump_start(why);
        if (r < 0)
                return r;
        (void) notify_received(envp, take_own, p);
        r = pump_map(why);
        if (r == -ENODATA) {
                init_kill(p->namespaces.init_pidfd);
                (void) notify_received(envp, drop, NULL);
                p->namespaces = NAMESPACES_INIT;
                r = pod_make(p, why);
                if (r < 0)
                        init_kill(p->namespaces.init_pidfd);
        } else if (r >= 0) {
                if (p->socket < 0 || (p->options.pid && p->namespaces.init_pidfd < 0))
                        return fail(why, -EBADF, "the FD store did not keep everything", NULL);
                r = namespaces_enter(&p->options, &p->namespaces, why);
                if (r >= 0)
                        (void) notify_received(envp, take_containers, NULL);
        }
        if (r < 0)
                return r;

        r = pod_watch(p, why);
        if (r < 0)
                return r;
        return pump_recover(why);
}

/* Returns the exit code when it is time to leave, else -1. */
static int pod_signal(Pod *p) {
        struct signalfd_siginfo info;

        while (SYS(read, p->signals, &info, sizeof info) == (int) sizeof info) {
                if (info.ssi_signo == SIGTERM)
                        return EXIT_SUCCESS;
                while (SYS(wait4, -1, NULL, WNOHANG, NULL) > 0)
                        ;
        }
        return -1;
}

static void pod_stop(Pod *p) {
        uint64_t deadline = sys_now(CLOCK_MONOTONIC) + STOP_NSEC;
        struct timespec pause = { .tv_nsec = RETRY_MSEC * NSEC_PER_MSEC };

        notify_status("STOPPING=1", "Stopping", 0);
        init_kill(p->namespaces.init_pidfd);
        for (bool again = true; again;) {
                again = false;
                FOREACH_CONTAINER(i)
                        if (container_drain(i) < 0)
                                again = true;
                if (!again || sys_now(CLOCK_MONOTONIC) >= deadline)
                        break;
                (void) SYS(nanosleep, &pause, NULL);
        }
        (void) SYS(unlinkat, AT_FDCWD, p->options.socket, 0);
}

static int pod_run(Pod *p) {
        uint64_t retried = 0;

        for (;;) {
                bool retrying = pump.stuck || control_is_waiting();
                struct epoll_event event[EVENTS_MAX];
                int n, code;

                n = SYS(epoll_pwait, pump.epoll, event, EVENTS_MAX,
                        retrying     ? RETRY_MSEC
                        : pump.dirty ? TRIM_MSEC
                                     : -1,
                        NULL, 8);
                for (int i = 0; i < n; i++) {
                        uint32_t number = (uint32_t) event[i].data.u64;

                        if (number < EPOLL_OTHER)
                                stream_ready(number);
                        else if (number >= EPOLL_ATTACH)
                                attach_event(number);
                        else if (number == EPOLL_INIT)
                                return POD_EXIT_INIT_DIED;
                        else if (number == EPOLL_SIGNAL) {
                                code = pod_signal(p);
                                if (code >= 0)
                                        return code;
                        } else
                                control_event(number);
                }
                if (retrying && sys_now(CLOCK_MONOTONIC) - retried >= RETRY_MSEC * NSEC_PER_MSEC) {
                        pump_retry();
                        control_retry();
                        retried = sys_now(CLOCK_MONOTONIC);
                }
                if (n == 0 && pump.dirty)
                        pump_trim();
        }
}

int pod_main(int argc, char **argv, char **envp) {
        static Pod pod;
        uint64_t mask = ~UINT64_C(0);
        Text why = {};
        int r;

        pod.namespaces = NAMESPACES_INIT;
        pod.socket = -1;

        /* Whoever sends something else than SIGTERM or SIGKILL means nothing by it; SIGPIPE and SIGXFSZ are errors of
         * the call, too. */
        (void) SYS(rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);

        r = notify_open(envp, &why);
        if (r >= 0)
                r = options_parse(&pod.options, argc, argv, &why);
        if (r >= 0)
                r = pod_start(&pod, envp, &why);
        if (r < 0) {
                (void) fail(&why, r, "cannot start", NULL);
                notify_status(NULL, why.s, r);
                say(why.s);
                return POD_EXIT_FAILED;
        }
        notify_status("READY=1", pump.stuck ? NULL : "Running", 0);

        r = pod_run(&pod);
        if (r == POD_EXIT_INIT_DIED) {
                notify_status(NULL, "The init of the pod's PID namespace was killed", -ESRCH);
                say("the init of the pod's PID namespace was killed");
                return r;
        }
        pod_stop(&pod);
        return r;
}
