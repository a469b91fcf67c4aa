/* logs: what a container wrote, from its CRI log file, across its rotations. */

#include "rktletctl/ctl.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#define BLOCK_SIZE 65536U

typedef struct Log {
        const char *path;
        FILE *f;
        char *line;
        size_t allocated;
        bool in_line;      /* what was printed last has no end yet */
        int inotify, watch; /* watch: the file's, the directory's is another */
} Log;

static void log_done(Log *l) {
        if (l->f)
                (void) fclose(l->f);
        free(l->line);
        (void) safe_close(l->inotify);
}

/* "2026-11-24T18:00:00.123456789Z stdout F text": a P is a piece of a line that goes on. */
static void print_entry(Log *l, const char *line, size_t n) {
        const char *stream = memchr(line, ' ', n), *flag = stream ? strchr(stream + 1, ' ') : NULL,
                   *text = flag ? strchr(flag + 1, ' ') : NULL;

        if (!text) {
                (void) fwrite(line, 1, n, stdout);
                return;
        }
        if (arg.timestamps && !l->in_line)
                printf("%.*s ", (int) (stream - line), line);
        l->in_line = flag[1] == 'P';
        text++;
        n -= (size_t) (text - line);
        (void) fwrite(text, 1, l->in_line && n > 0 && text[n - 1] == '\n' ? n - 1 : n, stdout);
}

/* Whole lines only: what is being written now is read when it is done. */
static int print_rest(Log *l) {
        for (;;) {
                long where = ftell(l->f);
                ssize_t n = getline(&l->line, &l->allocated, l->f);

                if (n <= 0 || l->line[n - 1] != '\n') {
                        if (fseek(l->f, where, SEEK_SET) < 0)
                                return -errno;
                        clearerr(l->f);
                        (void) fflush(stdout);
                        return 0;
                }
                print_entry(l, l->line, (size_t) n);
        }
}

/* To where the last so many lines begin. Pieces of a line are one. */
static int seek_lines(FILE *f, uint64_t lines) {
        char block[BLOCK_SIZE];
        uint64_t found = 0;
        struct stat st;
        off_t at;

        if (fstat(fileno(f), &st) < 0)
                return -errno;
        for (at = st.st_size; at > 0;) {
                size_t n = (size_t) MIN(at, (off_t) sizeof block);

                at -= (off_t) n;
                if (pread(fileno(f), block, n, at) != (ssize_t) n)
                        return -EIO;
                for (size_t i = n; i-- > 0;) {
                        if (block[i] != '\n' || at + (off_t) i + 1 == st.st_size)
                                continue;
                        if (++found == lines)
                                return fseeko(f, at + (off_t) i + 1, SEEK_SET) < 0 ? -errno : 0;
                }
        }
        return fseeko(f, 0, SEEK_SET) < 0 ? -errno : 0;
}

int print_log_end(const char *path, uint64_t lines) {
        _cleanup_(log_done) Log l = { .path = path, .inotify = -1, .watch = -1 };
        int r;

        l.f = fopen(path, "re");
        if (!l.f)
                return errno == ENOENT ? 0 : -errno;
        r = lines == 0 ? (fseek(l.f, 0, SEEK_END) < 0 ? -errno : 0) : seek_lines(l.f, lines);
        return r < 0 ? r : print_rest(&l);
}

/* --- following --------------------------------------------------------------------------------------------------- */

static int log_watch(Log *l) {
        _cleanup_free_ char *directory = strndup(l->path, (size_t) (strrchr(l->path, '/') - l->path));

        if (!directory)
                return -ENOMEM;
        l->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (l->inotify < 0 || inotify_add_watch(l->inotify, directory, IN_CREATE | IN_MOVED_TO) < 0)
                return -errno;
        l->watch = inotify_add_watch(l->inotify, l->path, IN_MODIFY);
        return 0;
}

/* Whether there is a new file of that name: the kubelet has renamed the old one. */
static bool log_read_events(const Log *l) {
        char buffer[4096] __attribute__((__aligned__(__alignof__(struct inotify_event))));
        const char *name = strrchr(l->path, '/') + 1;
        bool rotated = false;
        ssize_t n;

        while ((n = read(l->inotify, buffer, sizeof buffer)) > 0)
                for (char *p = buffer; p < buffer + n;) {
                        const struct inotify_event *e = (const struct inotify_event *) (void *) p;

                        rotated = rotated || (e->len > 0 && streq(e->name, name));
                        p += sizeof *e + e->len;
                }
        return rotated;
}

static int log_reopen(Log *l) {
        FILE *f = fopen(l->path, "re");

        if (!f)
                return errno == ENOENT ? 0 : -errno;
        if (l->f)
                (void) fclose(l->f);
        l->f = f;
        if (l->watch >= 0)
                (void) inotify_rm_watch(l->inotify, l->watch);
        l->watch = inotify_add_watch(l->inotify, l->path, IN_MODIFY);
        return 0;
}

/* 1: it may still write. */
static int may_write(sd_bus *bus, const char *path) {
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        _cleanup_free_ char *state = NULL;
        int r;

        r = sd_bus_get_property_string(bus, BUS_NAME, path, CONTAINER_INTERFACE, "State", &e, &state);
        return r >= 0 && (streq(state, "running") || streq(state, "created"));
}

static int log_follow(sd_bus *bus, Log *l, const char *path) {
        bool going = may_write(bus, path);
        int r;

        for (;;) {
                struct pollfd p[] = { { l->inotify, POLLIN, 0 }, { sd_bus_get_fd(bus), POLLIN, 0 } };

                r = l->f ? print_rest(l) : 0;
                if (r < 0 || !going)
                        return r;
                if (poll(p, ELEMENTSOF(p), -1) < 0 && errno != EINTR)
                        return -errno;
                if (log_read_events(l)) {
                        r = l->f ? print_rest(l) : 0;
                        if (r >= 0)
                                r = log_reopen(l);
                        if (r < 0)
                                return r;
                }
                if (p[1].revents) {
                        while ((r = sd_bus_process(bus, NULL)) > 0)
                                ;
                        /* When it has ended its log is complete. */
                        going = r >= 0 && may_write(bus, path);
                }
        }
}

static int watch_container(sd_bus *bus, const char *path) {
        return sd_bus_match_signal(bus, NULL, BUS_NAME, path, "org.freedesktop.DBus.Properties", "PropertiesChanged",
                                   NULL, NULL);
}

/* A pod with one container stands for that. */
static int find_log(sd_bus *bus, const char *what, char **ret_object, char **ret_path) {
        _cleanup_json_ json_t *j = NULL;
        _cleanup_object_ Object o = {};
        const char *path;
        int r;

        r = find_object(bus, what, KIND_CONTAINER | KIND_POD, &o);
        if (r >= 0)
                r = read_properties(bus, o.path, o.interface, &j);
        if (r >= 0 && streq(o.interface, POD_INTERFACE)) {
                const json_t *containers = json_object_get(j, "Containers");

                if (json_array_size(containers) != 1) {
                        fprintf(stderr, "The pod has %zu containers: name one of them. See 'rktletctl status %s'.\n",
                                json_array_size(containers), what);
                        return -EINVAL;
                }
                free(o.path);
                o.path = strdup(json_string_value(json_array_get(containers, 0)));
                json_decref(TAKE_PTR(j));
                r = o.path ? read_properties(bus, o.path, CONTAINER_INTERFACE, &j) : -ENOMEM;
        }
        if (r < 0)
                return r;
        path = json_get_string(j, "LogPath");
        if (isempty(path)) {
                fprintf(stderr, "Container %s has no log file\n", what);
                return -ENOENT;
        }
        *ret_path = strdup(path);
        *ret_object = TAKE_PTR(o.path);
        return *ret_path ? 0 : -ENOMEM;
}

int show_logs(sd_bus *bus, char **args) {
        _cleanup_(log_done) Log l = { .inotify = -1, .watch = -1 };
        _cleanup_free_ char *object = NULL, *path = NULL;
        int r;

        r = find_log(bus, args[0], &object, &path);
        if (r < 0)
                return r == -ENOENT ? EXIT_NO_SUCH : r;
        l.path = path;
        if (arg.follow) {
                r = log_watch(&l);
                if (r >= 0)
                        r = watch_container(bus, object);
        } else
                pager_open();
        if (r >= 0) {
                l.f = fopen(path, "re");
                if (!l.f && !arg.follow)
                        r = -errno;
        }
        if (r >= 0 && l.f && arg.lines != UINT64_MAX)
                r = arg.lines == 0 ? (fseek(l.f, 0, SEEK_END) < 0 ? -errno : 0) : seek_lines(l.f, arg.lines);
        if (r >= 0)
                r = arg.follow ? log_follow(bus, &l, object) : print_rest(&l);
        if (r < 0)
                fprintf(stderr, "Cannot read %s: %s\n", path, strerror(-r));
        return r;
}
