/* The tree of one layer. Names come from the archive and are hostile: every parent is opened by
 * openat2(RESOLVE_IN_ROOT), so that a symbolic link the layer made before leads somewhere inside of the tree or nowhere;
 * the last component is only ever touched by *at() calls that don't follow. Deletions are written down the way overlayfs
 * reads them: a character device 0/0 for a name, trusted.overlay.opaque for all of a lower directory. */

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <uthash.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "image/unpack.h"

#define WHITEOUT_PREFIX ".wh."
#define WHITEOUT_META_PREFIX ".wh..wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"
#define OPAQUE_XATTR "trusted.overlay.opaque"

#define BLOCK_SIZE UINT64_C(4096)
#define SYMLINKS_MAX 40U
#define AGAIN_MAX 100000U

typedef struct Implied {
        ino_t ino;
        char *path;
        UT_hash_handle hh;
} Implied;

typedef struct DirectoryTime {
        char *path;
        struct timespec mtime;
} DirectoryTime;

struct UnpackTree {
        int root_fd;
        /* The parent of the last entry; most entries have the same one. */
        int parent_fd;
        bool parent_valid;
        char parent_path[PATH_MAX];
        /* The normalized path of the current entry; its last component follows parent_length. */
        char path[PATH_MAX];
        Implied *implied;
        DirectoryTime *times;
        size_t n_times, allocated_times;
        size_t path_bytes;
        uint64_t bytes, inodes;
        bool opaque_root;
};

static void implied_free(UnpackTree *t, Implied *i) {
        HASH_DEL(t->implied, i);
        free(i->path);
        free(i);
}

UnpackTree *unpack_tree_free(UnpackTree *t) {
        Implied *i, *tmp;

        if (!t)
                return NULL;
        HASH_ITER(hh, t->implied, i, tmp)
                implied_free(t, i);
        for (size_t k = 0; k < t->n_times; k++)
                free(t->times[k].path);
        free(t->times);
        safe_close(t->parent_fd);
        free(t);
        return NULL;
}

int unpack_tree_new(int root_fd, UnpackTree **ret, Error *error) {
        UnpackTree *t = calloc(1, sizeof *t);

        if (!t)
                return error_oom(error);
        t->root_fd = root_fd;
        t->parent_fd = -1;
        t->inodes = 1;
        t->bytes = BLOCK_SIZE;
        *ret = t;
        return 0;
}

uint64_t unpack_tree_bytes(const UnpackTree *t) {
        return t->bytes;
}

uint64_t unpack_tree_inodes(const UnpackTree *t) {
        return t->inodes;
}

size_t unpack_tree_implied(const UnpackTree *t) {
        return HASH_COUNT(t->implied);
}

bool unpack_tree_opaque_root(const UnpackTree *t) {
        return t->opaque_root;
}

static int open_beneath(int root_fd, const char *path, int flags) {
        struct open_how how = {
                .flags = (uint64_t) (unsigned) (flags | O_CLOEXEC),
                .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
        };
        int fd;

        /* EAGAIN: something was renamed anywhere on the machine while the kernel checked that a ".." stays inside. */
        for (unsigned i = 0; i < AGAIN_MAX; i++) {
                fd = (int) syscall(SYS_openat2, root_fd, path[0] ? path : ".", &how, sizeof how);
                if (fd >= 0 || errno != EAGAIN)
                        break;
        }
        return fd < 0 ? -errno : fd;
}

static int refuse(Error *error, const char *path, const char *why) {
        _cleanup_free_ char *clean = utf8_sanitize(path);

        return error_setf(error, GRPC_DATA_LOSS, "The layer is refused: \"%.200s\" %s", strempty(clean), why);
}

static int failed(Error *error, int r, const char *what) {
        if (r == -ENOSPC || r == -EDQUOT)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED,
                                  "No space left for the layer on the file system of the image store: remove images or "
                                  "make it larger"),
                       r;
        /* Names and links as no sane tool writes them. */
        if (r == -ELOOP || r == -ENAMETOOLONG)
                return error_setf(error, GRPC_DATA_LOSS, "The layer is refused: %s: %s", what, strerror(-r));
        return error_set(error, r, "%s", what);
}

static int charge_path(UnpackTree *t, size_t n, Error *error) {
        t->path_bytes += n + 64;
        if (t->path_bytes > UNPACK_PATHS_MAX)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED, "The layer has too many directories");
        return 0;
}

/* "/./a//b/" → "a/b"; "" is the root. No name may step upwards. */
static int normalize(const char *path, char ret[static PATH_MAX], const char **ret_base, Error *error) {
        size_t n = 0, base = 0;

        for (const char *p = path; *p;) {
                size_t l = strcspn(p, "/");

                if (l == 2 && p[0] == '.' && p[1] == '.')
                        return refuse(error, path, "steps out of its directory");
                if (l > NAME_MAX)
                        return refuse(error, path, "has a name longer than 255 bytes");
                if (l > 0 && !(l == 1 && p[0] == '.')) {
                        if (n + l + 2 > PATH_MAX)
                                return refuse(error, path, "is longer than 4095 bytes");
                        if (n > 0)
                                ret[n++] = '/';
                        base = n;
                        memcpy(ret + n, p, l);
                        n += l;
                }
                p += l;
                while (*p == '/')
                        p++;
        }
        ret[n] = '\0';
        *ret_base = ret + base;
        return 0;
}

static bool is_whiteout(const struct stat *st) {
        return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}

static int set_opaque(int fd, Error *error) {
        if (fsetxattr(fd, OPAQUE_XATTR, "y", 1, 0) < 0)
                return failed(error, -errno, "Cannot mark a directory opaque (extended attributes trusted.* are needed)");
        return 0;
}

/* One directory nobody described; owner and mode may later come from the layers below. */
static int make_implied(UnpackTree *t, int parent_fd, const char *name, const char *path, bool opaque, int *ret_fd,
                        Error *error) {
        _cleanup_close_ int fd = -1;
        struct stat st;
        Implied *i, *old;
        int r;

        if (mkdirat(parent_fd, name, 0755) < 0)
                return failed(error, -errno, "Cannot make a directory of the layer");
        t->inodes++;
        t->bytes += BLOCK_SIZE;
        fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0 || fchmod(fd, 0755) < 0 || fchown(fd, 0, 0) < 0)
                return failed(error, -errno, "Cannot make a directory of the layer");
        if (opaque) {
                r = set_opaque(fd, error);
                if (r < 0)
                        return r;
        }

        r = charge_path(t, strlen(path), error);
        if (r < 0)
                return r;
        HASH_FIND(hh, t->implied, &st.st_ino, sizeof st.st_ino, old);
        if (old)
                implied_free(t, old);
        i = calloc(1, sizeof *i);
        if (!i || !(i->path = strdup(path))) {
                free(i);
                return error_oom(error);
        }
        i->ino = st.st_ino;
        HASH_ADD(hh, t->implied, ino, sizeof i->ino, i);
        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* Opens a directory and makes what is missing of it. A link that leads nowhere yet is followed as the kernel would: its
 * target is made, inside of the tree. */
static int make_directories(UnpackTree *t, const char *path, unsigned depth, int *ret_fd, Error *error) {
        _cleanup_close_ int current = -1;
        _cleanup_free_ char *prefix = NULL;
        const char *p = path;
        int r;

        if (depth > SYMLINKS_MAX)
                return refuse(error, path, "has too many symbolic links");
        if (strlen(path) >= PATH_MAX)
                return refuse(error, path, "is longer than 4095 bytes");
        current = open_beneath(t->root_fd, "", O_RDONLY | O_DIRECTORY);
        if (current < 0)
                return failed(error, current, "Cannot open the layer's directory");
        prefix = calloc(1, strlen(path) + 1);
        if (!prefix)
                return error_oom(error);

        while (*(p += strspn(p, "/"))) {
                size_t l = strcspn(p, "/");
                _cleanup_close_ int next = -1;
                char name[NAME_MAX + 1];
                struct stat st;

                if (l > NAME_MAX)
                        return refuse(error, path, "has a name longer than 255 bytes");
                memcpy(name, p, l);
                name[l] = '\0';
                p += l;
                memcpy(prefix, path, (size_t) (p - path));
                prefix[p - path] = '\0';

                /* One plain step down; only links and ".." need the kernel to look from the root. */
                next = streq(name, "..") ? -ENOTDIR : openat(current, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (next == -1)
                        next = -errno;
                if (next == -ENOENT) {
                        r = make_implied(t, current, name, prefix, /* opaque= */ false, &next, error);
                        if (r < 0)
                                return r;
                } else if (next == -ENOTDIR || next == -ELOOP)
                        next = open_beneath(t->root_fd, prefix, O_RDONLY | O_DIRECTORY);
                if (next == -ENOENT || next == -ENOTDIR) {
                        if (fstatat(current, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                                return failed(error, -errno, "Cannot look at a file of the layer");
                        if (S_ISLNK(st.st_mode)) {
                                _cleanup_free_ char *longer = NULL;
                                char target[PATH_MAX];
                                ssize_t n = readlinkat(current, name, target, sizeof target - 1);

                                if (n < 0)
                                        return failed(error, -errno, "Cannot read a symbolic link of the layer");
                                target[n] = '\0';
                                longer = target[0] == '/' ? strprintf("%s/%s", target, p)
                                                          : strprintf("%.*s/%s/%s", (int) (p - path - (ssize_t) l), path,
                                                                      target, p);
                                if (!longer)
                                        return error_oom(error);
                                return make_directories(t, longer, depth + 1, ret_fd, error);
                        }
                        if (!is_whiteout(&st))
                                return refuse(error, prefix, "is used as a directory and isn't one");
                        /* Deleted below and begun anew in this layer. */
                        if (unlinkat(current, name, 0) < 0)
                                return failed(error, -errno, "Cannot replace a file of the layer");
                        r = make_implied(t, current, name, prefix, /* opaque= */ true, &next, error);
                        if (r < 0)
                                return r;
                }
                if (next < 0)
                        return failed(error, next, "Cannot open a directory of the layer");
                safe_close(current);
                current = TAKE_FD(next);
        }
        *ret_fd = TAKE_FD(current);
        return 0;
}

/* The directory of the current entry (t->path up to its base), borrowed. */
static int open_parent(UnpackTree *t, const char *base, int *ret_fd, Error *error) {
        size_t n = base > t->path ? (size_t) (base - t->path - 1) : 0;
        char parent[PATH_MAX];
        int fd, r;

        if (t->parent_valid && strlen(t->parent_path) == n && memcmp(t->parent_path, t->path, n) == 0) {
                *ret_fd = t->parent_fd;
                return 0;
        }
        t->parent_valid = false;
        t->parent_fd = safe_close(t->parent_fd);

        memcpy(parent, t->path, n);
        parent[n] = '\0';
        fd = open_beneath(t->root_fd, parent, O_RDONLY | O_DIRECTORY);
        if (fd == -ENOENT || fd == -ENOTDIR) {
                r = make_directories(t, parent, 0, &fd, error);
                if (r < 0)
                        return r;
        }
        if (fd == -ELOOP)
                return refuse(error, t->path, "has too many symbolic links");
        if (fd < 0)
                return failed(error, fd, "Cannot open a directory of the layer");
        t->parent_fd = fd;
        memcpy(t->parent_path, parent, n + 1);
        t->parent_valid = true;
        *ret_fd = fd;
        return 0;
}

/* Normalizes the entry's path and opens its parent. */
static int locate(UnpackTree *t, const char *path, int *ret_parent_fd, const char **ret_base, Error *error) {
        int r;

        r = normalize(path, t->path, ret_base, error);
        if (r < 0)
                return r;
        if (!t->path[0])
                return refuse(error, path, "is the root and must be a directory");
        return open_parent(t, *ret_base, ret_parent_fd, error);
}

/* Makes room for a name. What the cached parent's path goes through may be gone with it. */
static int replace_existing(UnpackTree *t, int parent_fd, const char *base, Error *error) {
        int r;

        t->parent_valid = false;
        if (unlinkat(parent_fd, base, 0) >= 0)
                return 0;
        if (errno != EISDIR)
                return failed(error, -errno, "Cannot replace a file of the layer");
        r = remove_tree(parent_fd, base);
        return r < 0 ? failed(error, r, "Cannot replace a directory of the layer") : 0;
}

static int remember_time(UnpackTree *t, const char *path, struct timespec mtime, Error *error) {
        int r;

        r = charge_path(t, strlen(path), error);
        if (r < 0)
                return r;
        if (t->n_times == t->allocated_times) {
                size_t n = MAX(t->allocated_times * 2, (size_t) 64);
                DirectoryTime *p = reallocarray(t->times, n, sizeof *p);

                if (!p)
                        return error_oom(error);
                t->times = p;
                t->allocated_times = n;
        }
        t->times[t->n_times].path = strdup(path);
        if (!t->times[t->n_times].path)
                return error_oom(error);
        t->times[t->n_times++].mtime = mtime;
        return 0;
}

/* The directory entry itself: what is there may be a directory (kept), a whiteout (then nothing of the lower one shows),
 * or anything else (replaced). */
static int make_directory(UnpackTree *t, int parent_fd, const char *base, int *ret_fd, Error *error) {
        bool opaque = false;
        struct stat st;
        int fd, r;

        if (mkdirat(parent_fd, base, 0700) < 0) {
                if (errno != EEXIST)
                        return failed(error, -errno, "Cannot make a directory of the layer");
                if (fstatat(parent_fd, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
                        return failed(error, -errno, "Cannot look at a file of the layer");
                if (!S_ISDIR(st.st_mode)) {
                        opaque = is_whiteout(&st);
                        r = replace_existing(t, parent_fd, base, error);
                        if (r < 0)
                                return r;
                        if (mkdirat(parent_fd, base, 0700) < 0)
                                return failed(error, -errno, "Cannot make a directory of the layer");
                        t->inodes++;
                        t->bytes += BLOCK_SIZE;
                }
        } else {
                t->inodes++;
                t->bytes += BLOCK_SIZE;
        }
        fd = openat(parent_fd, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return failed(error, -errno, "Cannot open a directory of the layer");
        if (opaque) {
                r = set_opaque(fd, error);
                if (r < 0) {
                        safe_close(fd);
                        return r;
                }
        }
        *ret_fd = fd;
        return 0;
}

int unpack_tree_directory(UnpackTree *t, const char *path, const UnpackMetadata *m, int *ret_fd, Error *error) {
        _cleanup_close_ int fd = -1;
        const char *base;
        int parent_fd, r;

        r = normalize(path, t->path, &base, error);
        if (r < 0)
                return r;
        if (!t->path[0]) {
                fd = open_beneath(t->root_fd, "", O_RDONLY | O_DIRECTORY);
                if (fd < 0)
                        return failed(error, fd, "Cannot open the layer's directory");
        } else {
                r = open_parent(t, base, &parent_fd, error);
                if (r < 0)
                        return r;
                r = make_directory(t, parent_fd, base, &fd, error);
                if (r < 0)
                        return r;
        }

        if (fchown(fd, m->uid, m->gid) < 0 || fchmod(fd, m->mode) < 0)
                return failed(error, -errno, "Cannot set a directory's owner and mode");
        if (t->implied) {
                struct stat st;
                Implied *i;

                if (fstat(fd, &st) < 0)
                        return failed(error, -errno, "Cannot look at a directory of the layer");
                HASH_FIND(hh, t->implied, &st.st_ino, sizeof st.st_ino, i);
                if (i)
                        implied_free(t, i);
        }
        r = remember_time(t, t->path, m->mtime, error);
        if (r < 0)
                return r;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

int unpack_tree_file(UnpackTree *t, const char *path, const UnpackMetadata *m, int *ret_fd, Error *error) {
        const char *base;
        int parent_fd, fd, r;

        r = locate(t, path, &parent_fd, &base, error);
        if (r < 0)
                return r;
        for (unsigned i = 0;; i++) {
                fd = openat(parent_fd, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, m->mode & 0777);
                if (fd >= 0)
                        break;
                if (errno != EEXIST || i > 0)
                        return failed(error, -errno, "Cannot make a file of the layer");
                r = replace_existing(t, parent_fd, base, error);
                if (r < 0)
                        return r;
        }
        t->inodes++;
        *ret_fd = fd;
        return 0;
}

int unpack_tree_file_finish(UnpackTree *t, int fd, const UnpackMetadata *m, uint64_t written, Error *error) {
        const struct timespec times[2] = { m->mtime, m->mtime };

        t->bytes += (written + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE;
        if ((m->mode & 07000) && fchmod(fd, m->mode) < 0)
                return failed(error, -errno, "Cannot set a file's mode");
        if (futimens(fd, times) < 0)
                return failed(error, -errno, "Cannot set a file's time");
        return 0;
}

/* Owner and time of what can't be opened. */
static int set_metadata_at(int parent_fd, const char *base, const UnpackMetadata *m, Error *error) {
        const struct timespec times[2] = { m->mtime, m->mtime };

        if (fchownat(parent_fd, base, m->uid, m->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
            utimensat(parent_fd, base, times, AT_SYMLINK_NOFOLLOW) < 0)
                return failed(error, -errno, "Cannot set a file's owner and time");
        return 0;
}

int unpack_tree_symlink(UnpackTree *t, const char *path, const char *target, const UnpackMetadata *m, Error *error) {
        const char *base;
        int parent_fd, r;

        r = locate(t, path, &parent_fd, &base, error);
        if (r < 0)
                return r;
        if (!target[0] || strlen(target) >= PATH_MAX)
                return refuse(error, path, "is a symbolic link without a usable target");
        if (symlinkat(target, parent_fd, base) < 0) {
                if (errno != EEXIST)
                        return failed(error, -errno, "Cannot make a symbolic link of the layer");
                r = replace_existing(t, parent_fd, base, error);
                if (r < 0)
                        return r;
                if (symlinkat(target, parent_fd, base) < 0)
                        return failed(error, -errno, "Cannot make a symbolic link of the layer");
        }
        t->inodes++;
        return set_metadata_at(parent_fd, base, m, error);
}

int unpack_tree_node(UnpackTree *t, const char *path, mode_t type, dev_t rdev, const UnpackMetadata *m, Error *error) {
        const char *base;
        int parent_fd, r;

        r = locate(t, path, &parent_fd, &base, error);
        if (r < 0)
                return r;
        if (type == S_IFIFO)
                rdev = 0;
        if (mknodat(parent_fd, base, type | m->mode, rdev) < 0) {
                if (errno != EEXIST)
                        return failed(error, -errno, "Cannot make a device node of the layer");
                r = replace_existing(t, parent_fd, base, error);
                if (r < 0)
                        return r;
                if (mknodat(parent_fd, base, type | m->mode, rdev) < 0)
                        return failed(error, -errno, "Cannot make a device node of the layer");
        }
        t->inodes++;
        return set_metadata_at(parent_fd, base, m, error);
}

int unpack_tree_hardlink(UnpackTree *t, const char *path, const char *target, Error *error) {
        char target_path[PATH_MAX];
        const char *base, *target_base;
        _cleanup_close_ int target_fd = -1;
        _cleanup_free_ char *target_parent = NULL;
        struct stat st, have;
        int parent_fd, r;

        r = normalize(target, target_path, &target_base, error);
        if (r < 0)
                return r;
        if (!target_path[0])
                return refuse(error, path, "is a hard link to the root");
        target_parent = strndup(target_path, target_base > target_path ? (size_t) (target_base - target_path - 1) : 0);
        if (!target_parent)
                return error_oom(error);
        target_fd = open_beneath(t->root_fd, target_parent, O_RDONLY | O_DIRECTORY);
        if (target_fd < 0 || fstatat(target_fd, target_base, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return refuse(error, path, "is a hard link to a file that the layer doesn't have");
        if (S_ISDIR(st.st_mode))
                return refuse(error, path, "is a hard link to a directory");

        r = locate(t, path, &parent_fd, &base, error);
        if (r < 0)
                return r;
        if (linkat(target_fd, target_base, parent_fd, base, 0) < 0) {
                if (errno != EEXIST)
                        return failed(error, -errno, "Cannot make a hard link of the layer");
                if (fstatat(parent_fd, base, &have, AT_SYMLINK_NOFOLLOW) >= 0 && have.st_ino == st.st_ino &&
                    have.st_dev == st.st_dev)
                        return 0;
                r = replace_existing(t, parent_fd, base, error);
                if (r < 0)
                        return r;
                if (linkat(target_fd, target_base, parent_fd, base, 0) < 0)
                        return errno == ENOENT ? refuse(error, path, "is a hard link into what it replaces")
                                               : failed(error, -errno, "Cannot make a hard link of the layer");
        }
        return 0;
}

int unpack_tree_whiteout(UnpackTree *t, const char *path, bool *ret_was_one, Error *error) {
        _cleanup_close_ int fd = -1;
        const char *base, *name;
        struct stat st;
        int parent_fd, r;

        r = normalize(path, t->path, &base, error);
        if (r < 0)
                return r;
        *ret_was_one = startswith(base, WHITEOUT_PREFIX);
        if (!*ret_was_one)
                return 0;
        /* What aufs kept for itself. */
        if (startswith(base, WHITEOUT_META_PREFIX) && !streq(base, WHITEOUT_OPAQUE))
                return 0;

        r = open_parent(t, base, &parent_fd, error);
        if (r < 0)
                return r;
        if (streq(base, WHITEOUT_OPAQUE)) {
                if (base == t->path)
                        t->opaque_root = true;
                return set_opaque(parent_fd, error);
        }

        name = base + STRLEN(WHITEOUT_PREFIX);
        if (!name[0] || streq(name, ".") || streq(name, ".."))
                return refuse(error, path, "deletes no file");
        if (mknodat(parent_fd, name, S_IFCHR, 0) >= 0) {
                t->inodes++;
                return 0;
        }
        if (errno != EEXIST)
                return failed(error, -errno, "Cannot make a whiteout of the layer");
        /* A whiteout is about the layers below. A file of this layer hides theirs already; a directory must not be merged
         * with theirs. */
        if (fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return failed(error, -errno, "Cannot look at a file of the layer");
        if (!S_ISDIR(st.st_mode))
                return 0;
        fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return failed(error, -errno, "Cannot open a directory of the layer");
        return set_opaque(fd, error);
}

int unpack_tree_finish(UnpackTree *t, int implied_fd, Error *error) {
        Implied *i, *tmp;
        int r;

        for (size_t k = 0; k < t->n_times; k++) {
                const struct timespec times[2] = { t->times[k].mtime, t->times[k].mtime };
                _cleanup_close_ int fd =
                                open_beneath(t->root_fd, t->times[k].path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);

                /* A later entry may have replaced it. */
                if (fd >= 0 && futimens(fd, times) < 0)
                        return failed(error, -errno, "Cannot set a directory's time");
        }
        HASH_ITER(hh, t->implied, i, tmp) {
                r = write_all(implied_fd, i->path, strlen(i->path) + 1);
                if (r < 0)
                        return failed(error, r, "Cannot write the list of implied directories");
        }
        return 0;
}
