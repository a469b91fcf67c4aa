#include "basic/leftover.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "basic/fiber.h"
#include "basic/file-util.h"
#include "basic/log.h"
#include "basic/string-util.h"

#define CGROUP_TEXT_MAX (64U * 1024U)
#define KILL_WAIT_USEC (2 * USEC_PER_SEC)

/* /sys/fs/cgroup/…/NAME.service/cgroup.procs; -ENOENT where we are in no unit of our own. */
static int procs_path(char **ret) {
        _cleanup_free_ char *text = NULL;
        char *path, *end;
        int r;

        r = read_file(AT_FDCWD, "/proc/self/cgroup", CGROUP_TEXT_MAX, &text, NULL);
        if (r < 0)
                return r;
        path = strstr(text, "0::/");
        if (!path || (path != text && path[-1] != '\n'))
                return -ENOENT;
        path += STRLEN("0::");
        end = path + strcspn(path, "\n");
        *end = '\0';
        if (end - path < (ssize_t) STRLEN(".service") || !streq(end - STRLEN(".service"), ".service"))
                return -ENOENT;
        *ret = strprintf("/sys/fs/cgroup%s/cgroup.procs", path);
        return *ret ? 0 : -ENOMEM;
}

/* The parent's number from /proc/PID/stat; 0 when the process is gone. */
static pid_t parent_of(pid_t pid) {
        _cleanup_free_ char *path = strprintf("/proc/%d/stat", (int) pid), *text = NULL;
        char *p;

        if (!path || read_file(AT_FDCWD, path, 4096, &text, NULL) < 0)
                return 0;
        p = strrchr(text, ')'); /* the name before it may hold anything */
        return p && strlen(p) > 4 ? (pid_t) strtol(p + 4, NULL, 10) : 0;
}

/* A descriptor of the first process that somebody else left here; -ENOENT when there is none. */
static int find_stranger(const char *procs, pid_t *ret) {
        _cleanup_free_ char *text = NULL;
        int r;

        r = read_file(AT_FDCWD, procs, CGROUP_TEXT_MAX, &text, NULL);
        if (r < 0)
                return r;
        for (char *p = text, *end; *p; p = end) {
                pid_t pid = (pid_t) strtol(p, &end, 10);
                int fd;

                if (end == p)
                        break;
                end += strspn(end, "\n");
                if (pid <= 1 || pid == getpid() || parent_of(pid) != 1)
                        continue;
                fd = (int) syscall(SYS_pidfd_open, pid, 0U);
                if (fd >= 0) {
                        *ret = pid;
                        return fd;
                }
        }
        return -ENOENT;
}

int leftover_wait(uint64_t timeout_usec) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + timeout_usec;
        _cleanup_free_ char *procs = NULL;

        if (getppid() != 1 || procs_path(&procs) < 0)
                return 0;
        for (;;) {
                _cleanup_close_ int fd = -1;
                uint64_t now = now_usec(CLOCK_MONOTONIC);
                pid_t pid;
                int r;

                fd = find_stranger(procs, &pid);
                if (fd < 0)
                        return 0;
                r = now < until ? fiber_wait_fd(fd, EPOLLIN, until - now) : -ETIMEDOUT;
                if (r == -ETIMEDOUT) {
                        log_notice("Process %d of an earlier run does not end, killing it", (int) pid);
                        (void) syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0U);
                        r = fiber_wait_fd(fd, EPOLLIN, KILL_WAIT_USEC);
                        if (r == -ETIMEDOUT) {
                                log_warning("Process %d of an earlier run cannot be killed, ignoring", (int) pid);
                                return 0;
                        }
                }
                if (r < 0)
                        return r;
        }
}
