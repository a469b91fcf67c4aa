/* Names in the tree of a layer. They come from the archive and are hostile: every directory is opened by
 * openat2(RESOLVE_IN_ROOT), so that a symbolic link the layer made before leads somewhere inside of the tree or
 * nowhere. Directories that entries imply are made, and remembered for unpack-adopt.c. */

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "basic/string-util.h"
#include "image/unpack-tree.h"

#define OPAQUE_XATTR "trusted.overlay.opaque"

#define SYMLINKS_MAX 40U
#define AGAIN_MAX    100000U

void tree_implied_free(UnpackTree *t, Implied *i) {
        HASH_DEL(t->implied, i);
        free(i->path);
        free(i);
}

int tree_open(int root_fd, const char *path, int flags) {
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

int tree_refuse(Error *error, const char *path, const char *why) {
        _cleanup_free_ char *clean = utf8_sanitize(path);

        return error_setf(error, GRPC_DATA_LOSS, "The layer is refused: \"%.200s\" %s", strempty(clean), why);
}

int tree_failed(Error *error, int r, const char *what) {
        if (r == -ENOSPC || r == -EDQUOT)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED,
                                  "No space left for the layer on the file system of the image store: remove images "
                                  "or "
                                  "make it larger"),
                       r;
        /* Names and links as no sane tool writes them. */
        if (r == -ELOOP || r == -ENAMETOOLONG)
                return error_setf(error, GRPC_DATA_LOSS, "The layer is refused: %s: %s", what, strerror(-r));
        return error_set(error, r, "%s", what);
}

int tree_charge_path(UnpackTree *t, size_t n, Error *error) {
        t->path_bytes += n + 64;
        if (t->path_bytes > UNPACK_PATHS_MAX)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED, "The layer has too many directories");
        return 0;
}

int tree_normalize(const char *path, char ret[static PATH_MAX], const char **ret_base, Error *error) {
        size_t n = 0, base = 0;

        for (const char *p = path; *p;) {
                size_t l = strcspn(p, "/");

                if (l == 2 && p[0] == '.' && p[1] == '.')
                        return tree_refuse(error, path, "steps out of its directory");
                if (l > NAME_MAX)
                        return tree_refuse(error, path, "has a name longer than 255 bytes");
                if (l > 0 && !(l == 1 && p[0] == '.')) {
                        if (n + l + 2 > PATH_MAX)
                                return tree_refuse(error, path, "is longer than 4095 bytes");
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

int tree_set_opaque(int fd, Error *error) {
        if (fsetxattr(fd, OPAQUE_XATTR, "y", 1, 0) < 0)
                return tree_failed(error, -errno,
                                   "Cannot mark a directory opaque (extended attributes trusted.* are needed)");
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
                return tree_failed(error, -errno, "Cannot make a directory of the layer");
        t->inodes++;
        t->bytes += TREE_BLOCK_SIZE;
        fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0 || fchmod(fd, 0755) < 0 || fchown(fd, 0, 0) < 0)
                return tree_failed(error, -errno, "Cannot make a directory of the layer");
        if (opaque) {
                r = tree_set_opaque(fd, error);
                if (r < 0)
                        return r;
        }

        r = tree_charge_path(t, strlen(path), error);
        if (r < 0)
                return r;
        HASH_FIND(hh, t->implied, &st.st_ino, sizeof st.st_ino, old);
        if (old)
                tree_implied_free(t, old);
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

/* Opens a directory and makes what is missing of it. A link that leads nowhere yet is followed as the kernel would:
 * its target is made, inside of the tree. */
static int make_directories(UnpackTree *t, const char *path, unsigned depth, int *ret_fd, Error *error) {
        _cleanup_close_ int current = -1;
        _cleanup_free_ char *prefix = NULL;
        const char *p = path;
        int r;

        if (depth > SYMLINKS_MAX)
                return tree_refuse(error, path, "has too many symbolic links");
        if (strlen(path) >= PATH_MAX)
                return tree_refuse(error, path, "is longer than 4095 bytes");
        current = tree_open(t->root_fd, "", O_RDONLY | O_DIRECTORY);
        if (current < 0)
                return tree_failed(error, current, "Cannot open the layer's directory");
        prefix = calloc(1, strlen(path) + 1);
        if (!prefix)
                return error_oom(error);

        while (*(p += strspn(p, "/"))) {
                size_t l = strcspn(p, "/");
                _cleanup_close_ int next = -1;
                char name[NAME_MAX + 1];
                struct stat st;

                if (l > NAME_MAX)
                        return tree_refuse(error, path, "has a name longer than 255 bytes");
                memcpy(name, p, l);
                name[l] = '\0';
                p += l;
                memcpy(prefix, path, (size_t) (p - path));
                prefix[p - path] = '\0';

                /* One plain step down; only links and ".." need the kernel to look from the root. */
                next = streq(name, "..") ? -ENOTDIR
                                         : openat(current, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (next == -1)
                        next = -errno;
                if (next == -ENOENT) {
                        r = make_implied(t, current, name, prefix, /* opaque= */ false, &next, error);
                        if (r < 0)
                                return r;
                } else if (next == -ENOTDIR || next == -ELOOP)
                        next = tree_open(t->root_fd, prefix, O_RDONLY | O_DIRECTORY);
                if (next == -ENOENT || next == -ENOTDIR) {
                        if (fstatat(current, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                                return tree_failed(error, -errno, "Cannot look at a file of the layer");
                        if (S_ISLNK(st.st_mode)) {
                                _cleanup_free_ char *longer = NULL;
                                char target[PATH_MAX];
                                ssize_t n = readlinkat(current, name, target, sizeof target - 1);

                                if (n < 0)
                                        return tree_failed(error, -errno, "Cannot read a symbolic link of the layer");
                                target[n] = '\0';
                                longer = target[0] == '/' ? strprintf("%s/%s", target, p)
                                                          : strprintf("%.*s/%s/%s", (int) (p - path - (ssize_t) l), path,
                                                                      target, p);
                                if (!longer)
                                        return error_oom(error);
                                return make_directories(t, longer, depth + 1, ret_fd, error);
                        }
                        if (!is_whiteout(&st))
                                return tree_refuse(error, prefix, "is used as a directory and isn't one");
                        /* Deleted below and begun anew in this layer. */
                        if (unlinkat(current, name, 0) < 0)
                                return tree_failed(error, -errno, "Cannot replace a file of the layer");
                        r = make_implied(t, current, name, prefix, /* opaque= */ true, &next, error);
                        if (r < 0)
                                return r;
                }
                if (next < 0)
                        return tree_failed(error, next, "Cannot open a directory of the layer");
                safe_close(current);
                current = TAKE_FD(next);
        }
        *ret_fd = TAKE_FD(current);
        return 0;
}

/* The first n bytes of a normalized path as a directory, borrowed until the next call but one. */
static int open_parent_of(UnpackTree *t, const char *path, size_t n, int *ret_fd, Error *error) {
        Parent *slot = t->parents;
        int r;

        for (Parent *p = t->parents; p < t->parents + TREE_PARENTS_MAX; p++) {
                if (p->valid && p->length == n && memcmp(p->path, path, n) == 0) {
                        p->used = ++t->clock;
                        *ret_fd = p->fd;
                        return 0;
                }
                if (p->used < slot->used)
                        slot = p;
        }

        slot->valid = false;
        slot->fd = safe_close(slot->fd);
        memcpy(slot->path, path, n);
        slot->path[n] = '\0';
        slot->length = n;
        r = tree_open(t->root_fd, slot->path, O_RDONLY | O_DIRECTORY);
        if (r == -ENOENT || r == -ENOTDIR)
                r = make_directories(t, slot->path, 0, &slot->fd, error);
        else if (r < 0)
                r = tree_failed(error, r, "Cannot open a directory of the layer");
        else
                slot->fd = r;
        if (r < 0)
                return r;
        slot->valid = true;
        slot->used = ++t->clock;
        *ret_fd = slot->fd;
        return 0;
}

int tree_open_parent(UnpackTree *t, const char *path, const char *base, int *ret_fd, Error *error) {
        return open_parent_of(t, path, base > path ? (size_t) (base - path - 1) : 0, ret_fd, error);
}

void tree_forget_parents(UnpackTree *t) {
        for (Parent *p = t->parents; p < t->parents + TREE_PARENTS_MAX; p++)
                p->valid = false;
}
