#include "engine/rkt/log.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "basic/file-util.h"
#include "basic/log.h"
#include "basic/string-util.h"

#define RECORD_MAGIC UINT64_C(0x31474f4c544b5200)
#define READ_MAX (256U * 1024U)
#define PUMP_MAX (1024U * 1024U)
#define PUNCH_MIN (1024U * 1024U) /* given back in pieces of at least so much */
#define PAGE 4096U
#define LOG_MODE 0640
/* This many last components of a log's path must not be symbolic links: those that the pod's own directories consist
 * of. What is above them is the administrator's, who may have moved it. */
#define LOG_STRICT_COMPONENTS 3

/* How far it is: `offset` bytes of the source are in the target whose size then was `size`. What the target has beyond
 * was converted as well, before somebody could say so here: the same bytes come out again and are left out. */
typedef struct Record {
        uint64_t magic, offset, inode, size;
        char header[RKT_LOG_HEADER_MAX];
} Record;

struct RktLog {
        char *source, *target;
        int source_fd, target_fd, record_fd;
        size_t line_max;
        Record record;
        uint64_t punched;
};

RktLog *rkt_log_free(RktLog *l) {
        if (!l)
                return NULL;
        (void) safe_close(l->source_fd);
        (void) safe_close(l->target_fd);
        (void) safe_close(l->record_fd);
        free(l->source);
        free(l->target);
        free(l);
        return NULL;
}

/* --- conversion -------------------------------------------------------------------------------------------------- */

/* The end of "TIME STREAM " in a line, or NULL when it is none of rkt's. */
static const char *header_end(const char *line, size_t size) {
        const char *time_end = memchr(line, ' ', MIN(size, (size_t) RKT_LOG_HEADER_MAX - 8)), *stream;

        if (!time_end || time_end == line)
                return NULL;
        stream = time_end + 1;
        size -= (size_t) (stream - line);
        if (size < 7 || (memcmp(stream, "stdout ", 7) != 0 && memcmp(stream, "stderr ", 7) != 0))
                return NULL;
        return stream + 6;
}

static int put(Buffer *out, const char *header, char tag, const char *text, size_t size) {
        int r;

        r = buffer_appendf(out, "%s %c ", header, tag);
        if (r >= 0)
                r = buffer_append(out, text, size);
        return r >= 0 ? buffer_append(out, "\n", 1) : r;
}

int rkt_log_convert(const char *data, size_t size, size_t line_max, char header[static RKT_LOG_HEADER_MAX], Buffer *out,
                    size_t *ret_used) {
        const char *p = data, *end = data + size;
        int r;

        while (p < end) {
                const char *newline = memchr(p, '\n', (size_t) (end - p)), *text = p;

                if (!header[0]) {
                        const char *h;

                        /* A line is looked at when it is whole, or too long for one line of the target. */
                        if (!newline && (size_t) (end - p) <= line_max + RKT_LOG_HEADER_MAX)
                                break;
                        h = header_end(p, (size_t) ((newline ? newline : end) - p));
                        if (h) {
                                (void) snprintf(header, RKT_LOG_HEADER_MAX, "%.*s", (int) (h - p), p);
                                text = h + 1;
                        } else
                                /* Not rkt's form. Kept whatever it is, and the same however often it is converted. */
                                (void) snprintf(header, RKT_LOG_HEADER_MAX, "1970-01-01T00:00:00Z stdout");
                }
                while ((size_t) ((newline ? newline : end) - text) > line_max) {
                        r = put(out, header, 'P', text, line_max);
                        if (r < 0)
                                return r;
                        text += line_max;
                }
                if (!newline) {
                        p = text;
                        break;
                }
                r = put(out, header, 'F', text, (size_t) (newline - text));
                if (r < 0)
                        return r;
                header[0] = 0;
                p = newline + 1;
        }
        *ret_used = (size_t) (p - data);
        return 0;
}

/* --- files ------------------------------------------------------------------------------------------------------- */

static int open_strictly(int dir_fd, const char *path, int flags, uint64_t resolve) {
        struct open_how how = { .flags = (uint64_t) flags, .mode = flags & O_CREAT ? LOG_MODE : 0, .resolve = resolve };
        long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof how);

        return fd < 0 ? -errno : (int) fd;
}

static int open_target(RktLog *l, Error *error) {
        _cleanup_close_ int dir_fd = -1, fd = -1;
        _cleanup_free_ char *above = strdup(l->target);
        const char *below = l->target;
        struct stat st;

        if (!above)
                return error_oom(error);
        for (size_t i = 0; i < LOG_STRICT_COMPONENTS; i++) {
                char *slash = strrchr(above, '/');

                if (!slash || slash == above)
                        break;
                below = l->target + (slash - above) + 1;
                *slash = 0;
        }
        dir_fd = open(below == l->target ? "/" : above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir_fd < 0)
                return error_set(error, -errno, "cannot open %s, where the log is to be", above);
        below += strspn(below, "/");
        /* To open a device may do something. */
        fd = open_strictly(dir_fd, below, O_PATH | O_CLOEXEC | O_NOFOLLOW, RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH);
        if (fd >= 0 && fstat(fd, &st) >= 0 && !S_ISREG(st.st_mode))
                return error_setf(error, GRPC_FAILED_PRECONDITION, "the log %s is no regular file", l->target);
        fd = safe_close(fd);
        fd = open_strictly(dir_fd, below, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW,
                           RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH);
        if (fd == -ENXIO)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "the log %s is no regular file", l->target);
        if (fd < 0)
                return error_set(error, fd, "cannot open the log file %s", l->target);
        if (fstat(fd, &st) < 0)
                return error_set(error, -errno, "cannot look at the log file %s", l->target);
        if (!S_ISREG(st.st_mode))
                return error_setf(error, GRPC_FAILED_PRECONDITION, "the log %s is no regular file", l->target);
        (void) safe_close(l->target_fd);
        l->target_fd = TAKE_FD(fd);
        /* Of another file nothing is known. */
        if (l->record.inode != st.st_ino || l->record.size > (uint64_t) st.st_size) {
                l->record.inode = st.st_ino;
                l->record.size = (uint64_t) st.st_size;
        }
        return 0;
}

static void save(RktLog *l) {
        if (pwrite(l->record_fd, &l->record, sizeof l->record, 0) != sizeof l->record)
                log_debug_errno(-errno, "Cannot write how far the log %s is, ignoring", strempty(l->target));
}

int rkt_log_new(const char *source, const char *target, const char *record, size_t line_max, RktLog **ret, Error *error) {
        _cleanup_(rkt_log_freep) RktLog *l = calloc(1, sizeof *l);
        Record old;
        int r;

        if (!l)
                return error_oom(error);
        l->source_fd = l->target_fd = l->record_fd = -1;
        l->line_max = line_max;
        l->source = strdup(source);
        l->target = target ? strdup(target) : NULL;
        if (!l->source || (target && !l->target))
                return error_oom(error);
        l->record.magic = RECORD_MAGIC;
        if (!target) {
                *ret = TAKE_PTR(l);
                return 0;
        }
        l->record_fd = open(record, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (l->record_fd < 0)
                return error_set(error, -errno, "cannot open %s", record);
        if (pread(l->record_fd, &old, sizeof old, 0) == sizeof old && old.magic == RECORD_MAGIC &&
            memchr(old.header, 0, sizeof old.header))
                l->record = old;
        r = open_target(l, error);
        if (r < 0)
                return r;
        save(l);
        *ret = TAKE_PTR(l);
        return 0;
}

/* --- pumping ----------------------------------------------------------------------------------------------------- */

/* The part that is converted takes no room any more; rkt goes on writing where it is. */
static void punch(RktLog *l) {
        uint64_t until = l->record.offset / PAGE * PAGE;

        if (until < l->punched + PUNCH_MIN)
                return;
        if (fallocate(l->source_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t) l->punched,
                      (off_t) (until - l->punched)) < 0)
                log_debug_errno(-errno, "Cannot give back what was converted of %s, ignoring", l->source);
        l->punched = until;
}

static int open_source(RktLog *l) {
        struct stat st;

        if (l->source_fd < 0)
                l->source_fd = open(l->source, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (l->source_fd < 0)
                return -errno;
        /* rkt truncates it when it opens it: an app was started again. */
        if (fstat(l->source_fd, &st) >= 0 && (uint64_t) st.st_size < l->record.offset) {
                l->record.offset = l->punched = 0;
                l->record.header[0] = 0;
        }
        return 0;
}

static int write_out(RktLog *l, const Buffer *out, uint64_t offset, const char *header) {
        struct stat st;
        uint64_t skip;

        if (fstat(l->target_fd, &st) < 0)
                return -errno;
        skip = (uint64_t) st.st_size > l->record.size ? (uint64_t) st.st_size - l->record.size : 0;
        /* Somebody has cut it off: what is there now is what counts. */
        if ((uint64_t) st.st_size < l->record.size)
                l->record.size = (uint64_t) st.st_size;
        if (skip < out->size) {
                int r = write_all(l->target_fd, out->data + skip, out->size - skip);

                if (r < 0)
                        return r;
        }
        l->record.offset = offset;
        l->record.size += out->size;
        (void) snprintf(l->record.header, sizeof l->record.header, "%s", header);
        save(l);
        punch(l);
        return 0;
}

int rkt_log_pump(RktLog *l) {
        size_t done = 0, room = READ_MAX + l->line_max + RKT_LOG_HEADER_MAX;
        _cleanup_free_ char *buffer = NULL;
        int r;

        if (!l->target)
                return 0;
        r = open_source(l);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        buffer = malloc(room);
        if (!buffer)
                return -ENOMEM;
        while (done < PUMP_MAX) {
                _cleanup_(buffer_done) Buffer out = BUFFER_INIT;
                char header[RKT_LOG_HEADER_MAX];
                size_t used;
                ssize_t n;

                n = pread(l->source_fd, buffer, room, (off_t) l->record.offset);
                if (n < 0)
                        return -errno;
                memcpy(header, l->record.header, sizeof header);
                r = rkt_log_convert(buffer, (size_t) n, l->line_max, header, &out, &used);
                if (r < 0)
                        return r;
                if (used == 0)
                        return 0;
                r = write_out(l, &out, l->record.offset + used, header);
                if (r < 0)
                        return r;
                done += used;
        }
        return 1;
}

int rkt_log_drain(RktLog *l) {
        int r;

        do
                r = rkt_log_pump(l);
        while (r > 0);
        return r;
}

int rkt_log_reopen(RktLog *l, Error *error) {
        int r;

        if (!l->target)
                return 0;
        r = rkt_log_drain(l);
        if (r < 0)
                return error_set(error, r, "cannot write the log %s", l->target);
        r = open_target(l, error);
        if (r < 0)
                return r;
        save(l);
        return 0;
}
