/* The tree of one layer, entry by entry. The last component of a name is only ever touched by *at() calls that don't
 * follow it; unpack-path.c finds its directory. Deletions are written down the way overlayfs reads them: a character
 * device 0/0 for a name, trusted.overlay.opaque for all of a lower directory. */

#include <fcntl.h>
#include <sys/sysmacros.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "image/unpack-tree.h"

#define WHITEOUT_PREFIX      ".wh."
#define WHITEOUT_META_PREFIX ".wh..wh."
#define WHITEOUT_OPAQUE      ".wh..wh..opq"

UnpackTree *unpack_tree_free(UnpackTree *t) {
        Implied *i, *tmp;

        if (!t)
                return NULL;
        HASH_ITER(hh, t->implied, i, tmp)
                tree_implied_free(t, i);
        for (size_t k = 0; k < t->n_times; k++)
                free(t->times[k].path);
        free(t->times);
        for (size_t k = 0; k < TREE_PARENTS_MAX; k++)
                safe_close(t->parents[k].fd);
        free(t);
        return NULL;
}

int unpack_tree_new(int root_fd, UnpackTree **ret, Error *error) {
        UnpackTree *t = calloc(1, sizeof *t);

        if (!t)
                return error_oom(error);
        t->root_fd = root_fd;
        for (size_t k = 0; k < TREE_PARENTS_MAX; k++)
                t->parents[k].fd = -1;
        t->inodes = 1;
        t->bytes = TREE_BLOCK_SIZE;
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

bool unpack_tree_replaced(const UnpackTree *t) {
        return t->replaced;
}

bool unpack_tree_opaque_root(const UnpackTree *t) {
        return t->opaque_root;
}

/* Normalizes the entry's path and opens its parent. */
static int locate(UnpackTree *t, const char *path, int *ret_parent_fd, const char **ret_base, Error *error) {
        int r;

        r = tree_normalize(path, t->path, ret_base, error);
        if (r < 0)
                return r;
        if (!t->path[0])
                return tree_refuse(error, path, "is the root and must be a directory");
        return tree_open_parent(t, t->path, *ret_base, ret_parent_fd, error);
}

/* Makes room for a name. What a remembered parent's path goes through may be gone with it. */
static int replace_existing(UnpackTree *t, int parent_fd, const char *base, Error *error) {
        int r;

        tree_forget_parents(t);
        t->replaced = true;
        if (unlinkat(parent_fd, base, 0) >= 0)
                return 0;
        if (errno != EISDIR)
                return tree_failed(error, -errno, "Cannot replace a file of the layer");
        t->directory_replaced = true;
        r = remove_tree(parent_fd, base);
        return r < 0 ? tree_failed(error, r, "Cannot replace a directory of the layer") : 0;
}

static int remember_time(UnpackTree *t, const char *path, struct timespec mtime, Error *error) {
        int r;

        r = tree_charge_path(t, strlen(path), error);
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

/* New files belong to us and our group; a directory with the set-group-ID bit is the exception. */
static bool owner_is_right(const UnpackTree *t, const UnpackMetadata *m) {
        return m->uid == 0 && m->gid == 0 && !t->setgid_seen;
}

static int open_entry(int parent_fd, const char *base, int *ret_fd, Error *error) {
        int fd = openat(parent_fd, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0)
                return tree_failed(error, -errno, "Cannot open a directory of the layer");
        *ret_fd = fd;
        return 0;
}

/* What is there may be a directory (kept), a whiteout (then nothing of the lower one shows), or anything else
 * (replaced). */
static int make_directory(UnpackTree *t, int parent_fd, const char *base, const UnpackMetadata *m, bool *ret_fresh,
                          bool *ret_opaque, Error *error) {
        struct stat st;
        int r;

        *ret_fresh = true;
        *ret_opaque = false;
        if (mkdirat(parent_fd, base, m->mode & 0777) < 0) {
                if (errno != EEXIST)
                        return tree_failed(error, -errno, "Cannot make a directory of the layer");
                if (fstatat(parent_fd, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
                        return tree_failed(error, -errno, "Cannot look at a file of the layer");
                if (S_ISDIR(st.st_mode)) {
                        *ret_fresh = false;
                        return 0;
                }
                *ret_opaque = is_whiteout(&st);
                r = replace_existing(t, parent_fd, base, error);
                if (r < 0)
                        return r;
                if (mkdirat(parent_fd, base, m->mode & 0777) < 0)
                        return tree_failed(error, -errno, "Cannot make a directory of the layer");
        }
        t->inodes++;
        t->bytes += TREE_BLOCK_SIZE;
        return 0;
}

int unpack_tree_directory(UnpackTree *t, const char *path, const UnpackMetadata *m, int *ret_fd, Error *error) {
        _cleanup_close_ int fd = -1;
        bool fresh = false, opaque = false;
        const char *base;
        int parent_fd, r;

        r = tree_normalize(path, t->path, &base, error);
        if (r < 0)
                return r;
        if (!t->path[0]) {
                fd = tree_open(t->root_fd, "", O_RDONLY | O_DIRECTORY);
                if (fd < 0)
                        return tree_failed(error, fd, "Cannot open the layer's directory");
        } else {
                r = tree_open_parent(t, t->path, base, &parent_fd, error);
                if (r < 0)
                        return r;
                r = make_directory(t, parent_fd, base, m, &fresh, &opaque, error);
                if (r < 0)
                        return r;
                /* The usual one has all it needs by now, but for its time. */
                if (ret_fd || !fresh || opaque || (m->mode & 07000) || !owner_is_right(t, m)) {
                        r = open_entry(parent_fd, base, &fd, error);
                        if (r < 0)
                                return r;
                }
        }
        if (fd >= 0 && (fchown(fd, m->uid, m->gid) < 0 || fchmod(fd, m->mode) < 0))
                return tree_failed(error, -errno, "Cannot set a directory's owner and mode");
        t->setgid_seen = t->setgid_seen || (m->mode & S_ISGID);
        if (opaque) {
                r = tree_set_opaque(fd, error);
                if (r < 0)
                        return r;
        }

        if (!fresh && t->implied) {
                struct stat st;
                Implied *i;

                if (fstat(fd, &st) < 0)
                        return tree_failed(error, -errno, "Cannot look at a directory of the layer");
                HASH_FIND(hh, t->implied, &st.st_ino, sizeof st.st_ino, i);
                if (i)
                        tree_implied_free(t, i);
        }
        r = remember_time(t, t->path, m->mtime, error);
        if (r < 0)
                return r;
        if (ret_fd)
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
                        return tree_failed(error, -errno, "Cannot make a file of the layer");
                r = replace_existing(t, parent_fd, base, error);
                if (r < 0)
                        return r;
        }
        t->inodes++;
        *ret_fd = fd;
        return 0;
}

int unpack_tree_file_owner(UnpackTree *t, int fd, const UnpackMetadata *m, Error *error) {
        if (!owner_is_right(t, m) && fchown(fd, m->uid, m->gid) < 0)
                return tree_failed(error, -errno, "Cannot set a file's owner");
        return 0;
}

int unpack_tree_file_finish(UnpackTree *t, int fd, const UnpackMetadata *m, uint64_t written, Error *error) {
        const struct timespec times[2] = {m->mtime, m->mtime};

        t->bytes += (written + TREE_BLOCK_SIZE - 1) / TREE_BLOCK_SIZE * TREE_BLOCK_SIZE;
        if ((m->mode & 07000) && fchmod(fd, m->mode) < 0)
                return tree_failed(error, -errno, "Cannot set a file's mode");
        if (futimens(fd, times) < 0)
                return tree_failed(error, -errno, "Cannot set a file's time");
        return 0;
}

/* Owner and time of what can't be opened. */
static int set_metadata_at(int parent_fd, const char *base, const UnpackMetadata *m, Error *error) {
        const struct timespec times[2] = {m->mtime, m->mtime};

        if (fchownat(parent_fd, base, m->uid, m->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
            utimensat(parent_fd, base, times, AT_SYMLINK_NOFOLLOW) < 0)
                return tree_failed(error, -errno, "Cannot set a file's owner and time");
        return 0;
}

int unpack_tree_symlink(UnpackTree *t, const char *path, const char *target, const UnpackMetadata *m, Error *error) {
        const char *base;
        int parent_fd, r;

        r = locate(t, path, &parent_fd, &base, error);
        if (r < 0)
                return r;
        if (!target[0] || strlen(target) >= PATH_MAX)
                return tree_refuse(error, path, "is a symbolic link without a usable target");
        if (symlinkat(target, parent_fd, base) < 0) {
                if (errno != EEXIST)
                        return tree_failed(error, -errno, "Cannot make a symbolic link of the layer");
                r = replace_existing(t, parent_fd, base, error);
                if (r < 0)
                        return r;
                if (symlinkat(target, parent_fd, base) < 0)
                        return tree_failed(error, -errno, "Cannot make a symbolic link of the layer");
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
                        return tree_failed(error, -errno, "Cannot make a device node of the layer");
                r = replace_existing(t, parent_fd, base, error);
                if (r < 0)
                        return r;
                if (mknodat(parent_fd, base, type | m->mode, rdev) < 0)
                        return tree_failed(error, -errno, "Cannot make a device node of the layer");
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

        r = tree_normalize(target, target_path, &target_base, error);
        if (r < 0)
                return r;
        if (!target_path[0])
                return tree_refuse(error, path, "is a hard link to the root");
        target_parent = strndup(target_path, target_base > target_path ? (size_t) (target_base - target_path - 1) : 0);
        if (!target_parent)
                return error_oom(error);
        target_fd = tree_open(t->root_fd, target_parent, O_RDONLY | O_DIRECTORY);
        if (target_fd < 0 || fstatat(target_fd, target_base, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return tree_refuse(error, path, "is a hard link to a file that the layer doesn't have");
        if (S_ISDIR(st.st_mode))
                return tree_refuse(error, path, "is a hard link to a directory");

        r = locate(t, path, &parent_fd, &base, error);
        if (r < 0)
                return r;
        if (linkat(target_fd, target_base, parent_fd, base, 0) < 0) {
                if (errno != EEXIST)
                        return tree_failed(error, -errno, "Cannot make a hard link of the layer");
                if (fstatat(parent_fd, base, &have, AT_SYMLINK_NOFOLLOW) >= 0 && have.st_ino == st.st_ino &&
                    have.st_dev == st.st_dev)
                        return 0;
                r = replace_existing(t, parent_fd, base, error);
                if (r < 0)
                        return r;
                if (linkat(target_fd, target_base, parent_fd, base, 0) < 0)
                        return errno == ENOENT ? tree_refuse(error, path, "is a hard link into what it replaces")
                                               : tree_failed(error, -errno, "Cannot make a hard link of the layer");
        }
        return 0;
}

int unpack_tree_whiteout(UnpackTree *t, const char *path, bool *ret_was_one, Error *error) {
        _cleanup_close_ int fd = -1;
        const char *base, *name;
        struct stat st;
        int parent_fd, r;

        r = tree_normalize(path, t->path, &base, error);
        if (r < 0)
                return r;
        *ret_was_one = startswith(base, WHITEOUT_PREFIX);
        if (!*ret_was_one)
                return 0;
        /* What aufs kept for itself. */
        if (startswith(base, WHITEOUT_META_PREFIX) && !streq(base, WHITEOUT_OPAQUE))
                return 0;

        r = tree_open_parent(t, t->path, base, &parent_fd, error);
        if (r < 0)
                return r;
        if (streq(base, WHITEOUT_OPAQUE)) {
                if (base == t->path)
                        t->opaque_root = true;
                return tree_set_opaque(parent_fd, error);
        }

        name = base + STRLEN(WHITEOUT_PREFIX);
        if (!name[0] || streq(name, ".") || streq(name, ".."))
                return tree_refuse(error, path, "deletes no file");
        if (mknodat(parent_fd, name, S_IFCHR, 0) >= 0) {
                t->inodes++;
                return 0;
        }
        if (errno != EEXIST)
                return tree_failed(error, -errno, "Cannot make a whiteout of the layer");
        /* A whiteout is about the layers below. A file of this layer hides theirs already; a directory must not be
         * merged with theirs. */
        if (fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return tree_failed(error, -errno, "Cannot look at a file of the layer");
        if (!S_ISDIR(st.st_mode))
                return 0;
        fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return tree_failed(error, -errno, "Cannot open a directory of the layer");
        return tree_set_opaque(fd, error);
}

int unpack_tree_finish(UnpackTree *t, int implied_fd, Error *error) {
        Implied *i, *tmp;
        int r;

        for (size_t k = 0; k < t->n_times; k++) {
                const struct timespec times[2] = {t->times[k].mtime, t->times[k].mtime};
                const char *path = t->times[k].path, *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
                int parent_fd;

                if (!path[0])
                        continue;
                if (t->directory_replaced) {
                        /* There may be anything now, or nothing. */
                        _cleanup_close_ int fd = tree_open(t->root_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);

                        if (fd >= 0)
                                (void) futimens(fd, times);
                        continue;
                }
                r = tree_open_parent(t, path, base, &parent_fd, error);
                if (r < 0)
                        return r;
                if (utimensat(parent_fd, base, times, AT_SYMLINK_NOFOLLOW) < 0)
                        return tree_failed(error, -errno, "Cannot set a directory's time");
        }
        /* The root has no parent; and nothing is made in it any more. */
        for (size_t k = 0; k < t->n_times; k++) {
                const struct timespec times[2] = {t->times[k].mtime, t->times[k].mtime};

                if (!t->times[k].path[0] && futimens(t->root_fd, times) < 0)
                        return tree_failed(error, -errno, "Cannot set a directory's time");
        }
        HASH_ITER(hh, t->implied, i, tmp) {
                r = write_all(implied_fd, i->path, strlen(i->path) + 1);
                if (r < 0)
                        return tree_failed(error, r, "Cannot write the list of implied directories");
        }
        return 0;
}
