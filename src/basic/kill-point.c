#include "basic/kill-point.h"

#if KILL_POINTS

#include <fcntl.h>
#include <signal.h>

#define ARMED_MAX 4096U

/* What the linker makes of the section's name. */
extern const KillPoint __start_kill_points[], __stop_kill_points[];

static int directory_fd = -1;

void kill_points_begin(void) {
        const char *path = getenv("RKTLET_KILL_POINTS");

        if (path)
                directory_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

void kill_points_list(FILE *f) {
        for (const KillPoint *p = __start_kill_points; p < __stop_kill_points; p++)
                (void) fprintf(f, "%s\n", p->name);
}

static void note(const char *name, const char *detail) {
        _cleanup_close_ int fd = openat(directory_fd, "passed", O_WRONLY | O_APPEND | O_CLOEXEC);
        char line[512];
        int n;

        if (fd < 0)
                return;
        n = snprintf(line, sizeof line, "%s %s\n", name, strempty(detail));
        if (n > 0)
                (void) !write(fd, line, MIN((size_t) n, sizeof line - 1));
}

/* Whether this passing is the one. Otherwise it is counted. */
static bool is_armed(const char *name) {
        _cleanup_close_ int fd = openat(directory_fd, "armed", O_RDWR | O_CLOEXEC);
        char text[ARMED_MAX], rest[ARMED_MAX + 256], *line, *number;
        unsigned long left;
        ssize_t size;
        int n;

        if (fd < 0)
                return false;
        size = pread(fd, text, sizeof text - 1, 0);
        if (size <= 0)
                return false;
        text[size] = 0;
        line = text + strcspn(text, "\n");
        if (*line)
                *line++ = 0;
        number = strrchr(text, ' ');
        if (!number)
                return false;
        *number++ = 0;
        if (!streq(text, "*") && !streq(text, name))
                return false;
        left = strtoul(number, NULL, 10);
        n = left > 1 ? snprintf(rest, sizeof rest, "%s %lu\n%s", text, left - 1, line)
                     : snprintf(rest, sizeof rest, "%s", line);
        if (n > 0 && (pwrite(fd, rest, (size_t) n, 0) < 0 || ftruncate(fd, n) < 0))
                return false;
        if (n == 0 && unlinkat(directory_fd, "armed", 0) < 0)
                return false;
        return left <= 1;
}

void kill_point_pass(const KillPoint *p, const char *detail) {
        int saved = errno;

        if (directory_fd < 0)
                return;
        note(p->name, detail);
        if (is_armed(p->name))
                (void) kill(getpid(), SIGKILL);
        errno = saved;
}

#endif
