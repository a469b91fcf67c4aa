/* A tar's entries, read by libarchive, into the tree. */

#include <archive.h>
#include <archive_entry.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#if HAVE_ISAL
#include <isa-l/crc.h>
#else
#include <zlib.h>
#endif

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "image/unpack-tree.h"

static void archive_freep(struct archive **a) {
        if (*a)
                (void) archive_read_free(*a);
}

typedef struct Reader {
        UnpackStream *stream;
        Error *error;
} Reader;

static la_ssize_t read_callback(struct archive *a, void *userdata, const void **ret) {
        Reader *reader = userdata;
        ssize_t n = unpack_stream_next(reader->stream, ret, reader->error);

        if (n < 0) {
                archive_set_error(a, EIO, "%s", "the stream ended");
                return ARCHIVE_FATAL;
        }
        return n;
}

/* What made libarchive fail: our stream, whose error is set already, or the archive itself. */
static int archive_failed(struct archive *a, Error *error) {
        _cleanup_free_ char *text = NULL;

        if (archive_errno(a) == ENOMEM)
                return error_oom(error);
        text = utf8_sanitize(strempty(archive_error_string(a)));
        return error_setf(error, GRPC_DATA_LOSS, "The layer's tar archive is damaged: %s", strempty(text));
}

/* Extended attributes that mean something in a container. Everything else says something to the host:
 * trusted.overlay.* would let a layer point into others, security.ima or SELinux labels belong to the node's policy.
 */
static int set_xattrs(int fd, struct archive_entry *e, Error *error) {
        const char *name;
        const void *value;
        size_t size;

        if (archive_entry_xattr_reset(e) == 0)
                return 0;
        while (archive_entry_xattr_next(e, &name, &value, &size) == ARCHIVE_OK) {
                if (!name || startswith(name, "user.overlay."))
                        continue;
                if (!streq(name, "security.capability") && !startswith(name, "user."))
                        continue;
                if (fsetxattr(fd, name, value, size, 0) < 0) {
                        /* A file system without them loses them, as everywhere. */
                        if (errno == EOPNOTSUPP || errno == ERANGE || errno == EINVAL)
                                continue;
                        return error_set(error, -errno, "Cannot set an extended attribute");
                }
        }
        return 0;
}

/* Checksums of the files, for the checker of the store. A sparse file's isn't known: its holes aren't read here. */
typedef struct Sums {
        int fd; /* -1: not wanted */
        Buffer lines;
} Sums;

#define SUMS_FLUSH (64U * 1024U)

static int sums_flush(Sums *s, Error *error) {
        int r = write_all(s->fd, strempty(s->lines.data), s->lines.size);

        s->lines.size = 0;
        return r < 0 ? tree_failed(error, r, "Cannot write the checksums of the layer") : 0;
}

static int sums_add(Sums *s, const char *path, uint32_t crc, bool known, uint64_t size, Error *error) {
        char sum[9] = "-";
        int r;

        if (s->fd < 0)
                return 0;
        if (known)
                (void) snprintf(sum, sizeof sum, "%08x", crc);
        r = buffer_appendf(&s->lines, "%s %llu %s", sum, (unsigned long long) size, path);
        if (r >= 0)
                r = buffer_append(&s->lines, "", 1);
        if (r < 0)
                return error_oom(error);
        return s->lines.size < SUMS_FLUSH ? 0 : sums_flush(s, error);
}

/* What a line says of a path isn't so any more when something else took its place. That is rare, and then nothing is
 * said at all. */
static int sums_finish(Sums *s, const UnpackTree *t, Error *error) {
        if (s->fd < 0)
                return 0;
        if (!unpack_tree_replaced(t))
                return sums_flush(s, error);
        return ftruncate(s->fd, 0) < 0 ? tree_failed(error, -errno, "Cannot write the checksums of the layer") : 0;
}

static uint32_t sum_more(uint32_t crc, const void *data, size_t n) {
#if HAVE_ISAL
        return crc32_gzip_refl(crc, data, n);
#else
        return (uint32_t) crc32_z(crc, data, n);
#endif
}

static int write_contents(struct archive *a, struct archive_entry *e, int fd, Sums *sums, uint64_t *ret_written,
                          Error *error) {
        la_int64_t size = archive_entry_size(e);
        uint64_t written = 0;
        la_int64_t end = 0;
        uint32_t crc = 0;
        bool known = true;

        if (size < 0 || size > UNPACK_FILE_SIZE_MAX)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED, "The layer has a file of %lld bytes",
                                  (long long) size);

        for (;;) {
                const void *data;
                la_int64_t offset;
                size_t n;
                int r;

                r = archive_read_data_block(a, &data, &n, &offset);
                if (r == ARCHIVE_EOF)
                        break;
                if (r != ARCHIVE_OK)
                        return archive_failed(a, error);
                if (n == 0)
                        continue;
                if (offset < end || offset > UNPACK_FILE_SIZE_MAX || (la_int64_t) n > size - offset)
                        return error_setf(error, GRPC_DATA_LOSS, "The layer's tar archive has a damaged sparse file");
                known = known && offset == end;
                if (sums->fd >= 0 && known)
                        crc = sum_more(crc, data, n);
                end = offset + (la_int64_t) n;
                while (n > 0) {
                        ssize_t k = pwrite(fd, data, n, offset);

                        if (k < 0) {
                                if (errno == EINTR)
                                        continue;
                                return tree_failed(error, -errno, "Cannot write a file of the layer");
                        }
                        data = (const char *) data + k;
                        n -= (size_t) k;
                        offset += k;
                        written += (uint64_t) k;
                }
        }
        if (end < size && ftruncate(fd, size) < 0)
                return tree_failed(error, -errno, "Cannot write a file of the layer");
        *ret_written = written;
        return sums_add(sums, archive_entry_pathname(e), crc, known && end == size, (uint64_t) size, error);
}

static int entry_metadata(struct archive_entry *e, UnpackMetadata *ret, Error *error) {
        la_int64_t uid = archive_entry_uid(e), gid = archive_entry_gid(e);

        if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
                return error_setf(error, GRPC_DATA_LOSS,
                                  "The layer has a file of owner %lld:%lld, which no system has", (long long) uid,
                                  (long long) gid);
        *ret = (UnpackMetadata){
                        .mode = archive_entry_perm(e) & 07777,
                        .uid = (uid_t) uid,
                        .gid = (gid_t) gid,
                        .mtime = {.tv_sec = archive_entry_mtime(e), .tv_nsec = archive_entry_mtime_nsec(e)},
        };
        if (ret->mtime.tv_nsec < 0 || ret->mtime.tv_nsec > 999999999)
                ret->mtime.tv_nsec = 0;
        return 0;
}

static int unpack_entry(struct archive *a, struct archive_entry *e, UnpackTree *t, Sums *sums, Error *error) {
        const char *path = archive_entry_pathname(e), *link = archive_entry_hardlink(e);
        _cleanup_close_ int fd = -1;
        bool whiteout = false;
        UnpackMetadata m;
        uint64_t written = 0;
        int r;

        if (!path)
                return error_setf(error, GRPC_DATA_LOSS, "The layer's tar archive has an entry without a usable name");

        r = unpack_tree_whiteout(t, path, &whiteout, error);
        if (r < 0 || whiteout)
                return r;
        if (link)
                return unpack_tree_hardlink(t, path, link, error);

        r = entry_metadata(e, &m, error);
        if (r < 0)
                return r;

        switch (archive_entry_filetype(e)) {
        case AE_IFDIR:
                r = unpack_tree_directory(t, path, &m, archive_entry_xattr_count(e) > 0 ? &fd : NULL, error);
                if (r < 0 || fd < 0)
                        return r;
                return set_xattrs(fd, e, error);

        case AE_IFREG:
                r = unpack_tree_file(t, path, &m, &fd, error);
                if (r < 0)
                        return r;
                r = write_contents(a, e, fd, sums, &written, error);
                if (r < 0)
                        return r;
                r = unpack_tree_file_owner(t, fd, &m, error);
                if (r < 0)
                        return r;
                r = set_xattrs(fd, e, error);
                if (r < 0)
                        return r;
                return unpack_tree_file_finish(t, fd, &m, written, error);

        case AE_IFLNK:
                return unpack_tree_symlink(t, path, strempty(archive_entry_symlink(e)), &m, error);

        case AE_IFCHR:
        case AE_IFBLK:
        case AE_IFIFO:
                return unpack_tree_node(
                                t, path, archive_entry_filetype(e),
                                makedev((unsigned) archive_entry_rdevmajor(e), (unsigned) archive_entry_rdevminor(e)),
                                &m, error);

        default:
                return error_setf(error, GRPC_DATA_LOSS, "The layer's tar archive has an entry of an unknown kind");
        }
}

static int unpack_entries(UnpackStream *s, UnpackTree *t, Sums *sums, Error *error) {
        _cleanup_(archive_freep) struct archive *a = archive_read_new();
        Reader reader = {.stream = s, .error = error};
        uint64_t n_entries = 0;
        int r;

        if (!a || archive_read_support_format_tar(a) != ARCHIVE_OK ||
            archive_read_support_format_empty(a) != ARCHIVE_OK)
                return error_oom(error);
        if (archive_read_open(a, &reader, NULL, read_callback, NULL) != ARCHIVE_OK)
                return archive_failed(a, error);

        for (;;) {
                struct archive_entry *e;

                r = archive_read_next_header(a, &e);
                if (r == ARCHIVE_EOF)
                        return 0;
                if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
                        return archive_failed(a, error);
                if (++n_entries > UNPACK_ENTRIES_MAX)
                        return error_setf(error, GRPC_RESOURCE_EXHAUSTED, "The layer has more than %u entries",
                                          UNPACK_ENTRIES_MAX);

                r = unpack_entry(a, e, t, sums, error);
                if (r < 0) {
                        _cleanup_free_ char *name = utf8_sanitize(strempty(archive_entry_pathname(e)));

                        if (error_is_set(error) && error->code != GRPC_DATA_LOSS && name)
                                return error_prefix(error, r, "Cannot unpack \"%.200s\"", name);
                        return r;
                }
        }
}

int unpack_layer(UnpackStream *s, UnpackTree *t, int sums_fd, Error *error) {
        Sums sums = {.fd = sums_fd};
        int r;

        r = unpack_entries(s, t, &sums, error);
        if (r >= 0)
                r = sums_finish(&sums, t, error);
        buffer_done(&sums.lines);
        return r;
}
