#include "basic/file-util.h"
#include "basic/kill-point.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "basic/string-util.h"

#define READ_CHUNK 4096U

static void closedirp(DIR **d) {
        if (*d)
                (void) closedir(*d);
}

static int openat2_call(int dir_fd, const char *path, int flags, mode_t mode, uint64_t resolve) {
        struct open_how how = {
                .flags = (uint64_t) (unsigned) (flags | O_CLOEXEC),
                .mode = flags & (O_CREAT | O_TMPFILE) ? mode : 0,
                .resolve = resolve,
        };
        int fd;

        /* EAGAIN: something was renamed meanwhile (openat2(2)). */
        for (unsigned i = 0; i < 32; i++) {
                fd = (int) syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
                if (fd >= 0 || errno != EAGAIN)
                        break;
        }
        return fd < 0 ? -errno : fd;
}

int open_in_root(int root_fd, const char *path, int flags, mode_t mode) {
        return openat2_call(root_fd, path[0] ? path : ".", flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

int fd_set_cloexec(int fd, bool cloexec) {
        return fcntl(fd, F_SETFD, cloexec ? FD_CLOEXEC : 0) < 0 ? -errno : 0;
}

int fd_set_nonblock(int fd, bool nonblock) {
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0)
                return -errno;
        flags = nonblock ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
        return fcntl(fd, F_SETFL, flags) < 0 ? -errno : 0;
}

int write_all(int fd, const void *data, size_t size) {
        const char *p = data;

        while (size > 0) {
                ssize_t n = write(fd, p, size);

                if (n < 0) {
                        if (errno == EINTR)
                                continue;
                        return -errno;
                }
                p += n;
                size -= (size_t) n;
        }
        return 0;
}

/* "a/b/c" into "a/b" and "c"; a name alone has "." above it, "/c" has "/". */
static int split_path(const char *path, char **ret_directory, const char **ret_base) {
        const char *slash = strrchr(path, '/');
        char *d;

        d = !slash ? strdup(".") : slash == path ? strdup("/") : strndup(path, (size_t) (slash - path));
        if (!d)
                return -ENOMEM;
        *ret_directory = d;
        *ret_base = slash ? slash + 1 : path;
        return 0;
}

/* A name beside `name` that nobody else uses; the caller still makes it with O_EXCL. */
static int temporary_name(const char *name, char **ret) {
        const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
        static uint64_t number;
        char *p;

        if (!base[0] || streq(base, ".") || streq(base, ".."))
                return -EINVAL;
        if (number == 0 && getrandom(&number, sizeof number, 0) != (ssize_t) sizeof number)
                return -errno;
        p = strprintf("%.*s.%.200s.%016llx", (int) (base - name), name, base, (unsigned long long) number++);
        if (!p)
                return -ENOMEM;
        *ret = p;
        return 0;
}

static int sync_directory_of(int dir_fd, const char *name) {
        _cleanup_free_ char *directory = NULL;
        _cleanup_close_ int fd = -1;
        const char *base;
        int r;

        r = split_path(name, &directory, &base);
        if (r < 0)
                return r;
        fd = open_directory(dir_fd, directory);
        if (fd < 0)
                return fd;
        return fsync(fd) < 0 ? -errno : 0;
}

int write_file_atomic(int dir_fd, const char *name, const void *data, size_t size, mode_t mode, WriteFlags flags) {
        _cleanup_free_ char *temporary = NULL;
        _cleanup_close_ int fd = -1;
        int r;

        r = temporary_name(name, &temporary);
        if (r < 0)
                return r;
        KILL_POINT_OF("write-file.begin", name);
        fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        if (fd < 0)
                return -errno;
        KILL_POINT_OF("write-file.opened", name);
        /* The umask must not decide. */
        r = fchmod(fd, mode) < 0 ? -errno : 0;
        if (r >= 0)
                r = write_all(fd, data, size);
        if (r >= 0 && (flags & WRITE_SYNC) && fsync(fd) < 0)
                r = -errno;
        KILL_POINT_OF("write-file.written", name);
        if (r >= 0 && renameat(dir_fd, temporary, dir_fd, name) < 0)
                r = -errno;
        KILL_POINT_OF("write-file.renamed", name);
        if (r < 0) {
                (void) unlinkat(dir_fd, temporary, 0);
                return r;
        }
        return flags & WRITE_SYNC ? sync_directory_of(dir_fd, name) : 0;
}

int read_fd(int fd, size_t max, char **ret, size_t *ret_size) {
        _cleanup_free_ char *data = NULL;
        size_t size = 0, allocated = 0;
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (S_ISREG(st.st_mode) && (uint64_t) st.st_size > max)
                return -E2BIG;
        for (;;) {
                ssize_t n;

                if (allocated - size < 2) {
                        size_t want = size == 0 && S_ISREG(st.st_mode) && st.st_size > 0
                                                      ? (size_t) st.st_size + 2
                                                      : MAX(allocated * 2, (size_t) READ_CHUNK);
                        char *p = realloc(data, want);

                        if (!p)
                                return -ENOMEM;
                        data = p;
                        allocated = want;
                }
                n = read(fd, data + size, allocated - size - 1);
                if (n < 0) {
                        if (errno == EINTR)
                                continue;
                        return -errno;
                }
                if (n == 0)
                        break;
                size += (size_t) n;
                if (size > max)
                        return -E2BIG;
        }
        data[size] = 0;
        *ret = TAKE_PTR(data);
        if (ret_size)
                *ret_size = size;
        return 0;
}

int read_file(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_size) {
        _cleanup_close_ int fd = -1;
        struct stat st;

        fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return S_ISDIR(st.st_mode) ? -EISDIR : -EBADFD;
        return read_fd(fd, max, ret, ret_size);
}

/* 1: made, 0: it was there. */
static int mkdir_one(int dir_fd, const char *path, mode_t mode) {
        struct stat st;

        if (mkdirat(dir_fd, path, mode) >= 0)
                /* The umask must not decide. */
                return fchmodat(dir_fd, path, mode, 0) < 0 ? -errno : 1;
        if (errno != EEXIST)
                return -errno;
        if (fstatat(dir_fd, path, &st, 0) < 0)
                return -errno;
        return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int mkdir_parents(int dir_fd, const char *path, mode_t mode) {
        _cleanup_free_ char *copy = NULL;
        int r;

        if (!path[0])
                return -EINVAL;
        /* Mostly only the last one, or none, is missing. */
        r = mkdir_one(dir_fd, path, mode);
        if (r != -ENOENT)
                return MIN(r, 0);
        copy = strdup(path);
        if (!copy)
                return -ENOMEM;
        for (char *slash = copy;;) {
                char saved;

                slash += strspn(slash, "/");
                slash += strcspn(slash, "/");
                saved = *slash;
                *slash = 0;
                r = mkdir_one(dir_fd, copy, mode);
                if (r < 0)
                        return r;
                *slash = saved;
                if (slash[strspn(slash, "/")] == 0)
                        return 0;
        }
}

int open_directory(int dir_fd, const char *path) {
        int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
}

/* Takes the descriptor. */
static int foreach_name(int fd, int (*func)(int dir_fd, const char *name, void *userdata), void *userdata) {
        _cleanup_(closedirp) DIR *d = fdopendir(fd);
        struct dirent *e;
        int r;

        if (!d) {
                r = -errno;
                (void) close(fd);
                return r;
        }
        for (;;) {
                errno = 0;
                e = readdir(d);
                if (!e)
                        return -errno;
                if (streq(e->d_name, ".") || streq(e->d_name, ".."))
                        continue;
                r = func(dirfd(d), e->d_name, userdata);
                if (r != 0)
                        return r;
        }
}

/* Opens a child directory that is on the same mount and no symlink. */
static int open_child_directory(int dir_fd, const char *name) {
        int fd = openat2_call(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0,
                              RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS);

        return fd == -EXDEV ? -EBUSY : fd;
}

/* 0: it is gone; -ENOTEMPTY: a directory that has something in it. */
static int remove_one(int dir_fd, const char *name) {
        int r;

        if (unlinkat(dir_fd, name, 0) >= 0 || errno == ENOENT)
                return 0;
        /* EPERM is what POSIX wants for a directory, and what an immutable file gives. */
        r = -errno;
        if (r != -EISDIR && r != -EPERM)
                return r;
        if (unlinkat(dir_fd, name, AT_REMOVEDIR) >= 0 || errno == ENOENT)
                return 0;
        return errno == EEXIST ? -ENOTEMPTY : errno == ENOTDIR ? r : -errno;
}

typedef struct RemoveTree {
        int root_fd;
        uint64_t counter;
        char lifted[64]; /* the last one */
} RemoveTree;

/* A directory that is not empty moves up into the root of the tree: so nothing is ever deeper than two levels, and
 * depth costs neither memory nor descriptors. */
static int remove_or_lift(int dir_fd, const char *name, void *userdata) {
        RemoveTree *t = userdata;
        int r;

        r = remove_one(dir_fd, name);
        if (r != -ENOTEMPTY)
                return r;
        do {
                (void) snprintf(t->lifted, sizeof t->lifted, ".removing-%llu", (unsigned long long) t->counter++);
                r = renameat2(dir_fd, name, t->root_fd, t->lifted, RENAME_NOREPLACE) < 0 ? -errno : 0;
        } while (r == -EEXIST);
        return r == -EXDEV ? -EBUSY : r;
}

/* What was lifted out of it goes at once: in a chain of directories that saves a listing of the root for each. */
static int remove_below_root(int dir_fd, const char *name, void *userdata) {
        RemoveTree *t = userdata;
        char next[sizeof t->lifted];
        int fd, r;

        r = remove_one(dir_fd, name);
        KILL_POINT_OF("remove-tree.within", name);
        if (r != -ENOTEMPTY)
                return r;
        for (;;) {
                fd = open_child_directory(dir_fd, name);
                if (fd < 0)
                        return fd;
                t->lifted[0] = 0;
                r = foreach_name(fd, remove_or_lift, t);
                if (r < 0)
                        return r;
                if (unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
                        return errno == ENOTEMPTY || errno == EEXIST ? 0 : -errno;
                if (!t->lifted[0])
                        return 0;
                strcpy(next, t->lifted);
                name = next;
        }
}

int remove_tree(int dir_fd, const char *name) {
        _cleanup_free_ char *directory = NULL;
        _cleanup_close_ int parent_fd = -1, root_fd = -1;
        RemoveTree t = {};
        const char *base;
        int r;

        r = split_path(name, &directory, &base);
        if (r < 0)
                return r;
        if (!base[0] || streq(base, ".") || streq(base, ".."))
                return -EINVAL;
        parent_fd = open_directory(dir_fd, directory);
        if (parent_fd < 0)
                return parent_fd == -ENOENT ? 0 : parent_fd;
        r = remove_one(parent_fd, base);
        KILL_POINT_OF("remove-tree.begun", name);
        if (r != -ENOTEMPTY)
                return r;
        root_fd = open_child_directory(parent_fd, base);
        if (root_fd < 0)
                return root_fd;
        t.root_fd = root_fd;
        do {
                r = directory_foreach(root_fd, ".", remove_below_root, &t);
                if (r < 0)
                        return r;
                r = remove_one(parent_fd, base);
        } while (r == -ENOTEMPTY);
        KILL_POINT_OF("remove-tree.done", name);
        return r;
}

int directory_foreach(int dir_fd, const char *path, int (*func)(int dir_fd, const char *name, void *userdata),
                      void *userdata) {
        int fd = open_directory(dir_fd, path);

        return fd < 0 ? fd : foreach_name(fd, func, userdata);
}
