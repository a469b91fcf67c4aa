/* ID mappings of user namespaces and of mounts. */

#include "engine/native/id-map.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/string-util.h"

static bool overlap(uint32_t a, uint32_t n_a, uint32_t b, uint32_t n_b) {
        return a < (uint64_t) b + n_b && b < (uint64_t) a + n_a;
}

static int ranges_from_cri(const runtime_v1_IDMapping *m, size_t n, const char *kind, const char *what, IdRanges *ret,
                           Error *error) {
        IdRanges r = {};

        if (n == 0 || n > ID_MAP_RANGES_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "%s: %s has %zu ranges of IDs, not 1 to %u", what, kind,
                                  n, ID_MAP_RANGES_MAX);
        for (size_t i = 0; i < n; i++) {
                const IdRange range = { m[i].container_id, m[i].host_id, m[i].length };

                /* The last ID is the invalid one. */
                if (range.count == 0 || (uint64_t) range.inside + range.count > UINT32_MAX ||
                    (uint64_t) range.outside + range.count > UINT32_MAX)
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "%s: range %u:%u:%u of %s is empty, or goes beyond the last ID", what,
                                          range.inside, range.outside, range.count, kind);
                for (size_t j = 0; j < i; j++)
                        if (overlap(r.ranges[j].inside, r.ranges[j].count, range.inside, range.count) ||
                            overlap(r.ranges[j].outside, r.ranges[j].count, range.outside, range.count))
                                return error_setf(error, GRPC_INVALID_ARGUMENT, "%s: %s maps an ID twice", what, kind);
                r.ranges[r.n++] = range;
        }
        *ret = r;
        return 0;
}

int id_map_from_cri(const runtime_v1_IDMapping *uids, size_t n_uids, const runtime_v1_IDMapping *gids, size_t n_gids,
                    const char *what, IdMap *ret, Error *error) {
        IdMap m;
        int r;

        r = ranges_from_cri(uids, n_uids, "the mapping of users", what, &m.uids, error);
        if (r >= 0)
                r = ranges_from_cri(gids, n_gids, "the mapping of groups", what, &m.gids, error);
        if (r < 0)
                return r;
        *ret = m;
        return 0;
}

static bool ranges_equal(const IdRanges *a, const IdRanges *b) {
        if (a->n != b->n)
                return false;
        for (size_t i = 0; i < a->n; i++)
                if (a->ranges[i].inside != b->ranges[i].inside || a->ranges[i].outside != b->ranges[i].outside ||
                    a->ranges[i].count != b->ranges[i].count)
                        return false;
        return true;
}

bool id_map_equal(const IdMap *a, const IdMap *b) {
        return ranges_equal(&a->uids, &b->uids) && ranges_equal(&a->gids, &b->gids);
}

int id_ranges_outside(const IdRanges *r, uint32_t inside, uint32_t *ret) {
        for (size_t i = 0; i < r->n; i++)
                if (inside >= r->ranges[i].inside && inside - r->ranges[i].inside < r->ranges[i].count) {
                        *ret = r->ranges[i].outside + (inside - r->ranges[i].inside);
                        return 0;
                }
        if (r->n > 0)
                return -ENOENT;
        *ret = inside;
        return 0;
}

json_t *id_ranges_to_json(const IdRanges *r) {
        json_t *a = json_array();

        for (size_t i = 0; a && i < r->n; i++)
                if (json_array_append_new(a, json_pack("{s:I, s:I, s:I}", "containerID", (json_int_t) r->ranges[i].inside,
                                                       "hostID", (json_int_t) r->ranges[i].outside, "size",
                                                       (json_int_t) r->ranges[i].count)) < 0) {
                        json_decref(a);
                        return NULL;
                }
        return a;
}

/* --- a namespace ------------------------------------------------------------------------------------------------- */

static int write_map(pid_t pid, const char *name, const IdRanges *r) {
        char path[64], text[ID_MAP_RANGES_MAX * 36];
        _cleanup_close_ int fd = -1;
        size_t size = 0;

        for (size_t i = 0; i < r->n; i++)
                size += (size_t) snprintf(text + size, sizeof text - size, "%u %u %u\n", r->ranges[i].inside,
                                          r->ranges[i].outside, r->ranges[i].count);
        (void) snprintf(path, sizeof path, "/proc/%d/%s", (int) pid, name);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        /* In one go, or not at all. */
        return write(fd, text, size) == (ssize_t) size ? 0 : -errno;
}

static int open_user_namespace(pid_t pid) {
        char path[64];
        int fd;

        (void) snprintf(path, sizeof path, "/proc/%d/ns/user", (int) pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

int id_map_make_namespace(const IdMap *m, int *ret_fd, Error *error) {
        pid_t pid;
        int fd, r;

        /* The namespace's first process, which does nothing and doesn't live long. */
        pid = (pid_t) syscall(SYS_clone, SIGCHLD | CLONE_NEWUSER, 0, 0, 0, 0);
        if (pid < 0)
                return error_set(error, -errno, "cannot make a user namespace");
        if (pid == 0)
                for (;;)
                        (void) pause();
        r = write_map(pid, "uid_map", &m->uids);
        if (r >= 0)
                r = write_map(pid, "gid_map", &m->gids);
        fd = r < 0 ? r : open_user_namespace(pid);
        (void) kill(pid, SIGKILL);
        (void) waitpid(pid, NULL, 0);
        if (fd < 0)
                return error_set(error, fd, "cannot map the IDs of a user namespace");
        *ret_fd = fd;
        return 0;
}
