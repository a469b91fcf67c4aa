/* An OCI runtime. Its failures are lines of JSON in a log file of ours. */

#include "engine/native/runtime.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/kill-point.h"
#include "basic/log.h"
#include "basic/string-util.h"

#define LOG_MAX (256U * 1024U)
#define MESSAGE_MAX 1024U

void runtime_done(Runtime *r) {
        r->fd = safe_close(r->fd);
        free(r->name);
        free(r->path);
        free(r->root);
}

int runtime_init(Runtime *r, const char *name, const char *path, const char *root, NativeRuntimeType type) {
        *r = (Runtime) { .fd = -1, .type = type, .name = strdup(name), .path = strdup(path), .root = strdup(root) };
        return r->name && r->path && r->root ? 0 : -ENOMEM;
}

static int mount_read_only(const char *path) {
        struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
        _cleanup_close_ int fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

        if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
                return -errno;
        return TAKE_FD(fd);
}

const char *runtime_program(Runtime *r) {
        struct stat st;

        if (r->type != NATIVE_RUNTIME_CRUN)
                return r->path;
        if (stat(r->path, &st) < 0)
                return r->path; /* its execution will say why */
        if (r->fd >= 0 && st.st_ino == r->seen.st_ino && st.st_dev == r->seen.st_dev &&
            st.st_size == r->seen.st_size && st.st_mtim.tv_sec == r->seen.st_mtim.tv_sec &&
            st.st_mtim.tv_nsec == r->seen.st_mtim.tv_nsec)
                return r->fd_path;
        r->fd = safe_close(r->fd);
        r->fd = mount_read_only(r->path);
        if (r->fd < 0) {
                log_debug_errno(r->fd, "%s gets no mount of its own, ignoring", r->path);
                return r->path;
        }
        r->seen = st;
        (void) snprintf(r->fd_path, sizeof r->fd_path, "/proc/%d/fd/%d", (int) getpid(), r->fd);
        return r->fd_path;
}

int runtime_arguments(Runtime *r, const char *log, char ***argv) {
        const char *const l[] = {
                runtime_program(r),
                "--root", r->root,
                r->type == NATIVE_RUNTIME_CRUN ? "--cgroup-manager=disabled" : NULL,
                log ? "--log" : NULL, log,
                log ? "--log-format" : NULL, log ? "json" : NULL,
        };
        int k;

        for (size_t i = 0; i < ELEMENTSOF(l); i++)
                if (l[i]) {
                        k = strv_extend(argv, l[i]);
                        if (k < 0)
                                return k;
                }
        return 0;
}

int runtime_start_by_fifo(const char *state_directory) {
        _cleanup_close_ int dir_fd = open_directory(AT_FDCWD, state_directory), fd = -1;
        int r;

        if (dir_fd < 0)
                return dir_fd;
        /* ENXIO: nobody waits. */
        fd = openat(dir_fd, "exec.fifo", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        r = write_all(fd, "", 1);
        if (r < 0)
                return r == -EPIPE ? -ENXIO : r;
        KILL_POINT_OF("container-start.told", state_directory);
        /* Afterwards: a daemon that dies in between leaves one that runs, not one that waits for ever. */
        return unlinkat(dir_fd, "exec.fifo", 0) < 0 ? -errno : 0;
}

static char *message_of_line(const char *line, size_t size) {
        _cleanup_json_ json_t *j = NULL;
        const char *message;

        if (json_parse(line, size, &j, NULL) < 0)
                return NULL;
        message = json_get_string(j, "msg");
        return message ? strndup(message, MESSAGE_MAX) : NULL;
}

char *runtime_log_message(int dir_fd, const char *path) {
        _cleanup_free_ char *text = NULL, *last = NULL;

        if (read_file(dir_fd, path, LOG_MAX, &text, NULL) < 0)
                return NULL;
        for (char *line = text, *end; line && *line; line = end) {
                char *message;

                end = strchr(line, '\n');
                if (end)
                        *end++ = 0;
                message = message_of_line(line, strlen(line));
                if (message) {
                        free(last);
                        last = message;
                }
        }
        return TAKE_PTR(last);
}

int runtime_error_is_exec(const char *message, const char *command, char **ret) {
        const char *why = NULL, *exec;

        /* runc says what and why, in words of its own: "…: exec: \"x\": executable file not found in $PATH". */
        exec = strstr(message, "unable to start container process: exec: ");
        if (exec) {
                exec += STRLEN("unable to start container process: ");
                *ret = endswith(exec, ": no such file or directory")
                                       ? strprintf("exec: \"%s\": no such file or directory", command)
                                       : strdup(exec);
                return *ret ? 1 : -ENOMEM;
        }
        if (startswith(message, "executable file ") && strstr(message, " not found"))
                why = command[0] == '/' ? "no such file or directory" : "executable file not found in $PATH";
        else if (startswith(message, "open executable") || startswith(message, "executable path not specified"))
                /* crun says EPERM for what is no regular file. */
                why = strstr(message, "Operation not permitted") ? "not an executable file" : "permission denied";
        if (!why)
                return 0;
        *ret = strprintf("exec: \"%s\": %s", command, why);
        return *ret ? 1 : -ENOMEM;
}

GrpcCode runtime_error_code(const char *message) {
        return text_says_exhausted(message) ? GRPC_RESOURCE_EXHAUSTED : GRPC_FAILED_PRECONDITION;
}
