/* Makes the archive of a checkpoint, in the form that containerd and CRI-O give it:
 *
 *     rktlet-checkpoint WORK UPPER [LAYER…]
 *
 * WORK: a folder of ours, in which checkpoint/ has what CRIU wrote; it gets
 *     rootfs-diff.tar   what the container changed in its root: the upper layer of its overlay, without what overlayfs
 *                       itself wrote there
 *     deleted.files     a JSON list of what it removed
 * and all of WORK goes as a tar archive to standard output. LAYER…: the image's layers, lowest first, for what a
 * directory that was removed and made anew hides.
 *
 * It is a process of its own since trees are large, and the daemon doesn't wait for disks. Nothing in the trees is
 * followed or executed; a failure is one line on standard error. */

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/string-util.h"

#define OVERLAY_PREFIX "trusted.overlay."
#define OVERLAY_OPAQUE "trusted.overlay.opaque"
#define BLOCK_SIZE 10240
#define CHUNK_SIZE 65536

typedef struct Packer {
        struct archive *out;
        struct archive *disk;
        struct archive_entry_linkresolver *links;
        json_t *deleted; /* NULL: the tree is no layer */
        const char *upper;
        char *const *layers;
} Packer;

static int fail(const char *what, const char *which, const char *why) {
        fprintf(stderr, "cannot %s %s: %s\n", what, which, why);
        return -EIO;
}

static bool is_overlay_own(const struct stat *st) {
        return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}

/* --- what was removed ------------------------------------------------------------------------------------------- */

static int note_deleted(Packer *p, const char *path) {
        _cleanup_free_ char *text = utf8_sanitize(path), *absolute = text ? strprintf("/%s", text) : NULL;

        return absolute && json_array_append_new(p->deleted, json_string(absolute)) >= 0
                       ? 0
                       : fail("list", path, "no memory");
}

/* The directory hides all that lies below it in the layers: what it doesn't have itself is gone. */
static int note_hidden(Packer *p, const char *path) {
        for (char *const *layer = p->layers; *layer; layer++) {
                _cleanup_free_ char *below = strprintf("%s/fs/%s", *layer, path);
                int fd = below ? open(below, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
                DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
                int r = 0;

                if (!d)
                        continue; /* not in this layer */
                for (struct dirent *e; r >= 0 && (e = readdir(d));) {
                        _cleanup_free_ char *name = NULL, *own = NULL;
                        struct stat st;

                        if (streq(e->d_name, ".") || streq(e->d_name, ".."))
                                continue;
                        name = strprintf("%s/%s", path, e->d_name);
                        own = strprintf("%s/%s", p->upper, name);
                        if (!name || !own)
                                r = fail("look at", path, "no memory");
                        else if (lstat(own, &st) < 0 && errno == ENOENT)
                                r = note_deleted(p, name);
                }
                (void) closedir(d);
                if (r < 0)
                        return r;
        }
        return 0;
}

static void archive_entry_freep(struct archive_entry **e) {
        archive_entry_free(*e);
}

/* --- archives ---------------------------------------------------------------------------------------------------- */

static int write_content(Packer *p, struct archive_entry *entry, const char *path) {
        static char buffer[CHUNK_SIZE];
        int64_t left = archive_entry_size(entry);
        int fd;

        if (archive_write_header(p->out, entry) < ARCHIVE_WARN)
                return fail("write", path, archive_error_string(p->out));
        if (archive_entry_filetype(entry) != AE_IFREG || left == 0 || archive_entry_hardlink(entry))
                return 0;
        fd = open(archive_entry_sourcepath(entry) ?: path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
                return fail("open", path, strerror(errno));
        while (left > 0) {
                ssize_t n = read(fd, buffer, MIN((size_t) left, sizeof buffer));

                if (n <= 0 || archive_write_data(p->out, buffer, (size_t) n) != n) {
                        (void) close(fd);
                        return fail("copy", path, n == 0 ? "it became shorter" : n < 0 ? strerror(errno)
                                                                                     : archive_error_string(p->out));
                }
                left -= n;
        }
        (void) close(fd);
        return 0;
}

/* Attributes by which overlayfs remembers where things come from mean nothing elsewhere. */
static int drop_overlay_attributes(struct archive_entry **entry) {
        _cleanup_(archive_entry_freep) struct archive_entry *copy = NULL;
        const void *value;
        const char *name;
        size_t size;

        if (archive_entry_xattr_reset(*entry) == 0)
                return 0;
        copy = archive_entry_clone(*entry);
        if (!copy)
                return fail("pack", archive_entry_pathname(*entry), "no memory");
        archive_entry_xattr_clear(copy);
        (void) archive_entry_xattr_reset(*entry);
        while (archive_entry_xattr_next(*entry, &name, &value, &size) == ARCHIVE_OK)
                if (!startswith(name, OVERLAY_PREFIX))
                        archive_entry_xattr_add_entry(copy, name, value, size);
        archive_entry_free(*entry);
        *entry = TAKE_PTR(copy);
        return 0;
}

/* *entry may be replaced. */
static int add_entry(Packer *p, struct archive_entry **owned) {
        struct archive_entry *entry = *owned, *spare = NULL;
        const char *path = archive_entry_pathname(entry);
        char opaque[2];
        int r;

        path = startswith(path, "./") ?: path;
        if (p->deleted) {
                if (streq(path, "."))
                        return 0;
                if (is_overlay_own(archive_entry_stat(entry)))
                        return note_deleted(p, path);
                if (archive_entry_filetype(entry) == AE_IFDIR &&
                    lgetxattr(path, OVERLAY_OPAQUE, opaque, sizeof opaque) == 1 && opaque[0] == 'y') {
                        r = note_hidden(p, path);
                        if (r < 0)
                                return r;
                }
                r = drop_overlay_attributes(owned);
                if (r < 0)
                        return r;
                entry = *owned;
                path = startswith(archive_entry_pathname(entry), "./") ?: archive_entry_pathname(entry);
        }
        /* A socket is made by whoever binds it. */
        if (archive_entry_filetype(entry) == AE_IFSOCK)
                return 0;
        archive_entry_linkify(p->links, &entry, &spare);
        r = entry ? write_content(p, entry, path) : 0;
        return r >= 0 && spare ? write_content(p, spare, path) : r;
}

/* The working directory's tree. */
static int add_tree(Packer *p) {
        int r = 0, k;

        if (archive_read_disk_open(p->disk, ".") != ARCHIVE_OK)
                return fail("read", "the tree", archive_error_string(p->disk));
        while (r >= 0) {
                struct archive_entry *entry = archive_entry_new();

                k = entry ? archive_read_next_header2(p->disk, entry) : ARCHIVE_FATAL;
                if (k == ARCHIVE_EOF) {
                        archive_entry_free(entry);
                        break;
                }
                if (k < ARCHIVE_WARN)
                        r = fail("read", "the tree", archive_error_string(p->disk));
                else {
                        (void) archive_read_disk_descend(p->disk);
                        r = add_entry(p, &entry);
                }
                archive_entry_free(entry);
        }
        (void) archive_read_close(p->disk);
        return r;
}

/* Archives a directory to a descriptor. */
static int pack(const char *directory, int to_fd, json_t *deleted, const char *upper, char *const *layers) {
        Packer p = {
                .out = archive_write_new(),
                .disk = archive_read_disk_new(),
                .links = archive_entry_linkresolver_new(),
                .deleted = deleted,
                .upper = upper,
                .layers = layers,
        };
        int r = -ENOMEM;

        if (p.out && p.disk && p.links && archive_write_set_format_pax_restricted(p.out) == ARCHIVE_OK &&
            archive_write_set_bytes_per_block(p.out, BLOCK_SIZE) == ARCHIVE_OK &&
            archive_write_open_fd(p.out, to_fd) == ARCHIVE_OK) {
                archive_entry_linkresolver_set_strategy(p.links, archive_format(p.out));
                (void) archive_read_disk_set_symlink_physical(p.disk);
                (void) archive_read_disk_set_behavior(p.disk, ARCHIVE_READDISK_NO_TRAVERSE_MOUNTS);
                r = chdir(directory) < 0 ? fail("enter", directory, strerror(errno)) : add_tree(&p);
                if (archive_write_close(p.out) != ARCHIVE_OK && r >= 0)
                        r = fail("write", "the archive", archive_error_string(p.out));
        }
        archive_entry_linkresolver_free(p.links);
        (void) archive_read_free(p.disk);
        (void) archive_write_free(p.out);
        return r;
}

static int pack_root(const char *work, const char *upper, char *const *layers) {
        _cleanup_free_ char *diff = strprintf("%s/rootfs-diff.tar", work), *list = strprintf("%s/deleted.files", work),
                            *text = NULL;
        _cleanup_json_ json_t *deleted = json_array();
        _cleanup_close_ int fd = -1;
        int r;

        if (!diff || !list || !deleted)
                return -ENOMEM;
        fd = open(diff, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
                return fail("make", diff, strerror(errno));
        r = pack(upper, fd, deleted, upper, layers);
        if (r < 0 || json_array_size(deleted) == 0)
                return r;
        text = json_dumps(deleted, JSON_COMPACT);
        r = text ? write_file_atomic(AT_FDCWD, list, text, strlen(text), 0600, 0) : -ENOMEM;
        return r < 0 ? fail("write", list, strerror(-r)) : 0;
}

int main(int argc, char **argv) {
        if (argc < 3 || argv[1][0] != '/' || argv[2][0] != '/') {
                fprintf(stderr, "usage: rktlet-checkpoint WORK UPPER [LAYER...]\n");
                return EXIT_FAILURE;
        }
        if (pack_root(argv[1], argv[2], argv + 3) < 0 ||
            pack(argv[1], STDOUT_FILENO, NULL, NULL, (char *[]) { NULL }) < 0)
                return EXIT_FAILURE;
        return EXIT_SUCCESS;
}
