/* A layer that has a/b/file and no entries for a and a/b shows those two directories, in the merged tree, over the
 * ones of the layers below: so they get the owner, mode and time that are found there, as if the file had been written
 * into the merged tree. */

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "image/unpack.h"

static int open_plain(int root_fd, const char *path, int flags) {
        struct open_how how = {
                        .flags = (uint64_t) (unsigned) (flags | O_CLOEXEC),
                        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
        };
        int fd = (int) syscall(SYS_openat2, root_fd, path, &how, sizeof how);

        return fd < 0 ? -errno : fd;
}

static bool is_opaque(int fd) {
        char c;

        return fgetxattr(fd, "trusted.overlay.opaque", &c, 1) == 1 && c == 'y';
}

typedef enum Sight {
        SIGHT_NOTHING, /* look further down */
        SIGHT_HIDDEN,  /* what is further down doesn't show */
        SIGHT_FOUND,
} Sight;

/* What a layer says about a path: it walks from the top, a step at a time (so that a deep path costs its depth and no
 * more), because a file, a whiteout or an opaque directory on the way decides as well. *ret_fd on SIGHT_FOUND. */
static Sight look(int root_fd, const char *path, int *ret_fd) {
        _cleanup_close_ int fd = -1;
        bool opaque = false;

        for (const char *p = path;;) {
                size_t n = strcspn(p, "/");
                char name[NAME_MAX + 1];
                int next;

                if (n > NAME_MAX)
                        return SIGHT_HIDDEN;
                if (n > 0) {
                        memcpy(name, p, n);
                        name[n] = '\0';
                        next = open_plain(fd < 0 ? root_fd : fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
                        if (next == -ENOENT)
                                return opaque ? SIGHT_HIDDEN : SIGHT_NOTHING;
                        if (next < 0)
                                return SIGHT_HIDDEN;
                        if (fd >= 0)
                                (void) close(fd);
                        fd = next;
                        opaque = opaque || is_opaque(fd);
                }
                p += n;
                if (!*p)
                        break;
                p++;
        }
        if (fd < 0)
                return SIGHT_HIDDEN;
        *ret_fd = TAKE_FD(fd);
        return SIGHT_FOUND;
}

static int adopt(const char *path, const int *tree_fds, size_t n_trees, Error *error) {
        _cleanup_close_ int own = -1, other = -1;
        struct timespec times[2];
        struct stat st;

        if (!path[0] || path[0] == '/' || strlen(path) >= PATH_MAX)
                return 0;
        /* Its parents may be links of this layer; that isn't worth more than the default mode. */
        if (look(tree_fds[0], path, &own) != SIGHT_FOUND || is_opaque(own))
                return 0;
        for (size_t i = 1; i < n_trees; i++) {
                Sight s = look(tree_fds[i], path, &other);

                if (s == SIGHT_HIDDEN)
                        return 0;
                if (s == SIGHT_FOUND)
                        break;
        }
        if (other < 0)
                return 0;
        if (fstat(other, &st) < 0)
                return error_set(error, -errno, "Cannot look at a directory of a layer");
        times[0] = st.st_atim;
        times[1] = st.st_mtim;
        if (fchown(own, st.st_uid, st.st_gid) < 0 || fchmod(own, st.st_mode & 07777) < 0 || futimens(own, times) < 0)
                return error_set(error, -errno, "Cannot set a directory's owner and mode");
        return 0;
}

int unpack_adopt(int list_fd, const int *tree_fds, size_t n_trees, Error *error) {
        _cleanup_free_ char *list = NULL;
        size_t size = 0;
        int r;

        r = read_fd(list_fd, UNPACK_PATHS_MAX, &list, &size);
        if (r < 0)
                return error_set(error, r, "Cannot read the list of directories");
        for (size_t i = 0; i < size; i += strlen(list + i) + 1) {
                r = adopt(list + i, tree_fds, n_trees, error);
                if (r < 0)
                        return r;
        }
        return 0;
}
