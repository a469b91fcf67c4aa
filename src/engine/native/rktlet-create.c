/* The process with which a container's unit starts: enters the pod's mount namespace and becomes the OCI runtime
 * there. PID 1 can't do that for a transient unit of ours, and the daemon isn't the unit's parent.
 *
 *     rktlet-create --log FILE --mount-namespace PATH [--cgroup NAME] [--limits FILE] [--shared MOUNT]… -- RUNTIME ARGUMENT…
 *     rktlet-create --wait FILE -- RUNTIME ARGUMENT…
 *     rktlet-create --remove PATH
 *     rktlet-create --usage PATH
 *     rktlet-create --environment FILE -- COMMAND ARGUMENT…
 *
 * --shared MOUNT: mounts that the container makes are to reach the host, so it is made in a copy of the host's mount
 * namespace, into which these (the rootfs first) are taken over from the pod's.
 * --cgroup NAME: moves to a cgroup below its own, for a runtime that makes another one there.
 * --limits FILE: writes the soft and hard limit of open files there, for a runtime that doesn't leave them alone.
 * --wait FILE: the runtime makes a process, writes its ID to FILE and ends; then that process is waited for, and its
 * exit code (128 + n after a signal) is this one's.
 * --remove: removes a tree; it can be large, and the daemon doesn't wait for disks.
 * --usage: prints the bytes and inodes that a tree takes.
 * --environment FILE: inside a container, whose command it becomes; the file has variables with bytes that the OCI
 * configuration can't hold, each ended by a NUL.
 *
 * A failure is one line of JSON in FILE, as the OCI runtime writes it. */

#include <fcntl.h>
#include <sched.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "basic/file-util.h"
#include "stats/tree-usage.h"

static const char *log_path;

static int fail(const char *what, const char *which) {
        int error = errno, fd = -1;

        if (log_path)
                fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                dprintf(STDERR_FILENO, "rktlet-create: %s %s: %s\n", what, which, strerror(error));
        else
                dprintf(fd, "{\"msg\":\"%s %s: %s\",\"level\":\"error\"}\n", what, which, strerror(error));
        return EXIT_FAILURE;
}

/* The mount that holds a path, which is made private, so that what is mounted below it stays here. */
static int make_private(const char *path) {
        char *mount_point = strdup(path), *slash;
        int r = -1;

        while (mount_point) {
                r = mount(NULL, mount_point, NULL, MS_PRIVATE, NULL);
                if (r >= 0 || errno != EINVAL) /* EINVAL: no mount point */
                        break;
                slash = strrchr(mount_point, '/');
                if (!slash)
                        break;
                slash[slash == mount_point] = 0;
                if (slash == mount_point) {
                        r = mount(NULL, "/", NULL, MS_PRIVATE, NULL);
                        break;
                }
        }
        free(mount_point);
        return r;
}

#define SHARED_MAX 4097U /* the rootfs, and all mounts that a container can have */

typedef struct Shared {
        const char *path;
        int tree;
} Shared;

static Shared shared[SHARED_MAX];
static size_t n_shared;

static int attach_tree(const Shared *s) {
        struct stat st;
        char *slash;

        if (fstat(s->tree, &st) < 0)
                return fail("cannot look at", s->path);
        if (make_private(s->path) < 0)
                return fail("cannot make private the mount of", s->path);
        /* RUN/mounts, for one. */
        slash = strrchr(s->path, '/');
        if (slash && slash > s->path) {
                char *parent = strndup(s->path, (size_t) (slash - s->path));

                if (!parent || (mkdir(parent, 0711) < 0 && errno != EEXIST))
                        return fail("cannot make the folder of", s->path);
                free(parent);
        }
        if ((S_ISDIR(st.st_mode) ? mkdir(s->path, 0700) : mknod(s->path, S_IFREG | 0600, 0)) < 0 && errno != EEXIST)
                return fail("cannot make", s->path);
        if (move_mount(s->tree, "", AT_FDCWD, s->path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
                return fail("cannot mount", s->path);
        (void) close(s->tree);
        return EXIT_SUCCESS;
}

static int take_over(int host_fd) {
        int r = EXIT_SUCCESS;

        for (size_t i = 0; i < n_shared; i++) {
                shared[i].tree = open_tree(AT_FDCWD, shared[i].path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
                if (shared[i].tree < 0)
                        return fail("cannot take over", shared[i].path);
        }
        if (setns(host_fd, CLONE_NEWNS) < 0 || unshare(CLONE_NEWNS) < 0)
                return fail("cannot copy", "the mount namespace of the host");
        for (size_t i = 0; i < n_shared && r == EXIT_SUCCESS; i++)
                r = attach_tree(&shared[i]);
        return r;
}

static int enter(const char *namespace) {
        int fd = open(namespace, O_RDONLY | O_CLOEXEC), host_fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);

        if (fd < 0 || host_fd < 0)
                return fail("cannot open", namespace);
        if (setns(fd, CLONE_NEWNS) < 0)
                return fail("cannot enter", namespace);
        return n_shared > 0 ? take_over(host_fd) : EXIT_SUCCESS;
}

#define ENVIRONMENT_MAX (2U * 1024U * 1024U)

static int with_environment(const char *path, char **command) {
        char *text = NULL;
        size_t size;
        int r;

        r = read_file(AT_FDCWD, path, ENVIRONMENT_MAX, &text, &size);
        if (r < 0) {
                errno = -r;
                return fail("cannot read", path);
        }
        for (char *s = text; s < text + size; s += strlen(s) + 1)
                if (putenv(s) != 0)
                        return fail("cannot set", "a variable");
        (void) execvp(command[0], command);
        r = errno;
        (void) fail("cannot execute", command[0]);
        return r == ENOENT ? 127 : 126;
}

/* Makes a cgroup below this process's and moves there. */
static int move_below(const char *name) {
        char path[PATH_MAX], *text = NULL, *own;
        int fd, r;

        r = read_file(AT_FDCWD, "/proc/self/cgroup", 65536, &text, NULL);
        errno = -r;
        if (r < 0)
                return fail("cannot read", "/proc/self/cgroup");
        /* The line of cgroup v2; a test machine has others. */
        own = startswith(text, "0::") ? text : strstr(text, "\n0::");
        errno = ENOENT;
        if (!own)
                return fail("cannot find", "the cgroup of this process");
        own = strchr(own, '/');
        own[strcspn(own, "\n")] = 0;
        if (snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s/cgroup.procs", own, name) >= (int) sizeof path) {
                errno = ENAMETOOLONG;
                return fail("cannot move to", name);
        }
        free(text);
        *strrchr(path, '/') = 0;
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
                return fail("cannot make cgroup", path);
        path[strlen(path)] = '/';
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) < 0)
                return fail("cannot move to", path);
        (void) close(fd);
        return EXIT_SUCCESS;
}

static int note_limits(const char *path) {
        struct rlimit limit;
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

        if (fd < 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0 ||
            dprintf(fd, "%llu %llu\n", (unsigned long long) limit.rlim_cur, (unsigned long long) limit.rlim_max) < 0)
                return fail("cannot write", path);
        (void) close(fd);
        return EXIT_SUCCESS;
}

static char *const environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };

static int exit_code(int status) {
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The process that the runtime made is a child of this one once the runtime has ended. */
static int wait_for_command(const char *pid_file, char **command) {
        char *text = NULL;
        pid_t pid, child;
        int status, r;

        if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
                return fail("cannot wait for", "children of children");
        child = fork();
        if (child == 0) {
                (void) execve(command[0], command, environment);
                _exit(fail("cannot execute", command[0]));
        }
        if (child < 0 || TEMP_FAILURE_RETRY(waitpid(child, &status, 0)) < 0)
                return fail("cannot execute", command[0]);
        if (exit_code(status) != 0)
                return exit_code(status);
        r = read_file(AT_FDCWD, pid_file, 16, &text, NULL);
        errno = -r;
        if (r < 0)
                return fail("cannot read", pid_file);
        pid = (pid_t) strtol(text, NULL, 10);
        do
                child = wait(&status);
        while ((child >= 0 && child != pid) || (child < 0 && errno == EINTR));
        return child < 0 ? fail("cannot wait for", "the command") : exit_code(status);
}

static int print_usage(const char *path) {
        TreeUsage usage;
        int r;

        r = tree_usage(AT_FDCWD, path, /* max_entries= */ 0, &usage);
        errno = -r;
        if (r < 0)
                return fail("cannot look at", path);
        printf("%llu %llu\n", (unsigned long long) usage.bytes, (unsigned long long) usage.inodes);
        return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv) {
        const char *namespace = NULL, *variables = NULL, *cgroup = NULL, *pid_file = NULL, *limits = NULL;
        int i, r;

        for (i = 1; i + 1 < argc && !streq(argv[i], "--"); i += 2) {
                if (streq(argv[i], "--log"))
                        log_path = argv[i + 1];
                else if (streq(argv[i], "--mount-namespace"))
                        namespace = argv[i + 1];
                else if (streq(argv[i], "--shared") && n_shared < SHARED_MAX)
                        shared[n_shared++].path = argv[i + 1];
                else if (streq(argv[i], "--cgroup"))
                        cgroup = argv[i + 1];
                else if (streq(argv[i], "--limits"))
                        limits = argv[i + 1];
                else if (streq(argv[i], "--wait"))
                        pid_file = argv[i + 1];
                else if (streq(argv[i], "--environment"))
                        variables = argv[i + 1];
                else if (streq(argv[i], "--remove")) {
                        r = remove_tree(AT_FDCWD, argv[i + 1]);
                        errno = -r;
                        return r < 0 ? fail("cannot remove", argv[i + 1]) : EXIT_SUCCESS;
                } else if (streq(argv[i], "--usage"))
                        return print_usage(argv[i + 1]);
                else
                        break;
        }
        if (i + 1 >= argc || !streq(argv[i], "--") || (!namespace && !variables && !pid_file)) {
                errno = EINVAL;
                return fail("cannot understand", "its arguments");
        }
        if (variables)
                return with_environment(variables, argv + i + 1);

        if (pid_file)
                return wait_for_command(pid_file, argv + i + 1);

        r = cgroup ? move_below(cgroup) : EXIT_SUCCESS;
        if (r == EXIT_SUCCESS && limits)
                r = note_limits(limits);
        if (r == EXIT_SUCCESS)
                r = enter(namespace);
        if (r != EXIT_SUCCESS)
                return r;
        /* Nothing of the unit's environment (NOTIFY_SOCKET, above all) and no other descriptor is for the runtime. */
        (void) syscall(SYS_close_range, 3U, ~0U, 0U);
        (void) execve(argv[i + 1], argv + i + 1, environment);
        return fail("cannot execute", argv[i + 1]);
}
