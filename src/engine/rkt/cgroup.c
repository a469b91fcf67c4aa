/* An app's processes. rkt runs them under the pod's own systemd, in a cgroup below that of the pod's unit; signals and
 * figures go there, past rkt. */

#include <fcntl.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>

#include "basic/file-util.h"
#include "engine/native/internal.h"
#include "engine/native/resources.h"
#include "engine/rkt/internal.h"

#define PROCS_MAX (1024U * 1024U)

const char *rkt_container_find_cgroup(RktContainer *n) {
        /* systemd-nspawn keeps the pod's own hierarchy below "payload"; older ones had it in place. */
        static const char *const where[] = { "payload/system.slice", "system.slice" };
        const char *unit = n->pod->control_group;

        for (size_t i = 0; unit && i < ELEMENTSOF(where); i++) {
                _cleanup_free_ char *path = strprintf("%s/%s/%s.service", unit, where[i], n->id);
                _cleanup_close_ int fd = path ? cgroup_open(path) : -1;

                if (fd < 0)
                        continue;
                if (!streq_ptr(path, n->control_group)) {
                        free(n->control_group);
                        n->control_group = TAKE_PTR(path);
                }
                return n->control_group;
        }
        return NULL;
}

const char *rkt_container_cgroup(Engine *engine, const char *id) {
        RktContainer *n = rkt_container_find(rkt_engine(engine), id);

        return n && n->state.phase == ENGINE_CONTAINER_RUNNING ? rkt_container_find_cgroup(n) : NULL;
}

/* When it was started, in the kernel's ticks; 0: it is gone. */
static unsigned long long start_time(pid_t pid) {
        _cleanup_free_ char *text = NULL;
        unsigned long long ticks = 0;
        char path[64], *rest;

        (void) snprintf(path, sizeof path, "/proc/%d/stat", (int) pid);
        if (read_file(AT_FDCWD, path, 4096, &text, NULL) < 0)
                return 0;
        /* The name is in brackets and may have anything in it; the 22nd field is wanted. */
        rest = strrchr(text, ')');
        for (int field = 2; rest && field < 22; field++) {
                rest = strchr(rest + 1, ' ');
        }
        if (rest)
                ticks = strtoull(rest, NULL, 10);
        return ticks;
}

/* The first process that was started there: the app itself. 0: none. */
static pid_t main_process(const char *control_group) {
        _cleanup_close_ int dir_fd = cgroup_open(control_group);
        _cleanup_free_ char *text = NULL;
        unsigned long long first = 0;
        pid_t found = 0;

        if (dir_fd < 0 || read_file(dir_fd, "cgroup.procs", PROCS_MAX, &text, NULL) < 0)
                return 0;
        for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
                pid_t pid = (pid_t) atoi(line);
                unsigned long long started = pid > 0 ? start_time(pid) : 0;

                if (started > 0 && (found == 0 || started < first || (started == first && pid < found))) {
                        found = pid;
                        first = started;
                }
        }
        return found;
}

pid_t rkt_container_pid(RktContainer *n) {
        const char *control_group = rkt_container_find_cgroup(n);

        return control_group ? main_process(control_group) : 0;
}

pid_t rkt_pod_pid(const RktPod *p) {
        _cleanup_free_ char *path = p->control_group ? strprintf("%s/payload/init.scope", p->control_group) : NULL;

        return path ? main_process(path) : 0;
}

static int signal_main(const char *control_group, int signo) {
        _cleanup_close_ int fd = -1;
        pid_t pid = main_process(control_group);

        if (pid <= 0)
                return -ESRCH;
        fd = pidfd_open(pid, 0);
        /* The number may be somebody else's by now. */
        if (fd < 0 || main_process(control_group) != pid)
                return -ESRCH;
        return pidfd_send_signal(fd, signo, NULL, 0) < 0 ? -errno : 0;
}

static int signal_all(const char *control_group, int signo) {
        _cleanup_close_ int dir_fd = cgroup_open(control_group);
        _cleanup_free_ char *text = NULL;
        int r = -ESRCH;

        if (dir_fd < 0 || read_file(dir_fd, "cgroup.procs", PROCS_MAX, &text, NULL) < 0)
                return -ESRCH;
        for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n')
                if (atoi(line) > 0 && kill((pid_t) atoi(line), signo) >= 0)
                        r = 0;
        return r;
}

int rkt_container_kill_with(RktContainer *n, bool all, int signo) {
        const char *control_group = rkt_container_find_cgroup(n);
        int r;

        if (!control_group)
                return -ESRCH;
        r = all ? signal_all(control_group, signo) : signal_main(control_group, signo);
        if (r >= 0)
                n->signo = signo;
        return r;
}

int rkt_container_signal(Engine *engine, const char *id, bool all, int signo, Error *error) {
        RktContainer *n = rkt_container_find(rkt_engine(engine), id);
        int r;

        r = n ? rkt_container_kill_with(n, all, signo) : -ESRCH;
        if (r == -ESRCH)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s has no process", id), r;
        return r < 0 ? error_set(error, r, "cannot send signal %d to container %s", signo, id) : 0;
}

int rkt_container_kill(RktContainer *n) {
        const char *control_group = rkt_container_find_cgroup(n);

        if (!control_group)
                return -ESRCH;
        n->killed = true;
        return cgroup_kill(control_group);
}
