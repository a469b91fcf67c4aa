#include "stats/tree-usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "basic/string-util.h"

#define BLOCK_SIZE 512U /* of st_blocks, stat(2) */

/* A directory on the way down: who it is, to find it again on the way up, and where the names of its subdirectories
 * that are still to be visited begin. So one descriptor is enough, however deep it goes. */
typedef struct Level {
        dev_t device;
        ino_t inode;
        size_t names;
} Level;

typedef struct Walk {
        int fd; /* of the uppermost level */
        Level *levels;
        size_t n_levels, allocated;
        Buffer names; /* each with its NUL */
        uint64_t left;
        /* A file of several names counts a part for each of them. */
        double bytes, inodes;
} Walk;

static void walk_done(Walk *w) {
        (void) safe_close(w->fd);
        free(w->levels);
        buffer_done(&w->names);
}

static void count(Walk *w, const struct stat *st) {
        double share = S_ISDIR(st->st_mode) || st->st_nlink == 0 ? 1 : 1 / (double) st->st_nlink;

        w->bytes += (double) st->st_blocks * BLOCK_SIZE * share;
        w->inodes += share;
}

static int push_level(Walk *w, const struct stat *st) {
        if (w->n_levels == w->allocated) {
                size_t n = MAX(w->allocated * 2, (size_t) 32);
                Level *l = reallocarray(w->levels, n, sizeof(Level));

                if (!l)
                        return -ENOMEM;
                w->levels = l;
                w->allocated = n;
        }
        w->levels[w->n_levels++] = (Level) { st->st_dev, st->st_ino, w->names.size };
        return 0;
}

/* Counts what is in the directory and keeps the names of its subdirectories. */
static int scan(Walk *w) {
        dev_t device = w->levels[w->n_levels - 1].device;
        int fd = fcntl(w->fd, F_DUPFD_CLOEXEC, 3), r = 0;
        DIR *d = fd < 0 ? NULL : fdopendir(fd);

        if (!d) {
                r = -errno;
                (void) safe_close(fd);
                return r;
        }
        rewinddir(d);
        for (struct dirent *e; r >= 0 && (e = readdir(d));) {
                struct stat st;

                if (streq(e->d_name, ".") || streq(e->d_name, ".."))
                        continue;
                if (w->left-- == 0)
                        r = -E2BIG;
                else if (fstatat(w->fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_dev != device)
                        continue; /* gone, or a mount */
                else {
                        count(w, &st);
                        if (S_ISDIR(st.st_mode))
                                r = buffer_append(&w->names, e->d_name, strlen(e->d_name) + 1);
                }
        }
        (void) closedir(d);
        return r;
}

/* Goes into the directory that was found last. */
static int descend(Walk *w) {
        Level *level = &w->levels[w->n_levels - 1];
        _cleanup_close_ int fd = -1;
        size_t begin = w->names.size - 1;
        struct stat st;
        int r;

        while (begin > level->names && w->names.data[begin - 1])
                begin--;
        fd = openat(w->fd, w->names.data + begin, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        w->names.size = begin;
        if (fd < 0 || fstat(fd, &st) < 0 || st.st_dev != level->device)
                return 0;
        r = push_level(w, &st);
        if (r < 0)
                return r;
        (void) close(w->fd);
        w->fd = TAKE_FD(fd);
        return scan(w);
}

/* Goes back to where it came from. 1: it isn't there any more, and nothing above can be found either. */
static int ascend(Walk *w) {
        _cleanup_close_ int fd = -1;
        const Level *level;
        struct stat st;

        if (--w->n_levels == 0)
                return 0;
        level = &w->levels[w->n_levels - 1];
        fd = openat(w->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0 || st.st_dev != level->device || st.st_ino != level->inode)
                return 1;
        (void) close(w->fd);
        w->fd = TAKE_FD(fd);
        return 0;
}

int tree_usage(int dir_fd, const char *path, uint64_t max_entries, TreeUsage *ret) {
        _cleanup_(walk_done) Walk w = { .fd = -1, .left = max_entries > 0 ? max_entries : UINT64_MAX };
        struct stat st;
        int r;

        w.fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (w.fd < 0 || fstat(w.fd, &st) < 0)
                return -errno;
        count(&w, &st);
        r = push_level(&w, &st);
        if (r >= 0)
                r = scan(&w);
        while (r == 0 && w.n_levels > 0)
                r = w.names.size > w.levels[w.n_levels - 1].names ? descend(&w) : ascend(&w);
        if (r < 0)
                return r;
        *ret = (TreeUsage) { (uint64_t) (w.bytes + .5), (uint64_t) (w.inodes + .5) };
        return 0;
}
