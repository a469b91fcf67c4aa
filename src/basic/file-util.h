#pragma once
/* Files and directories: atomic writes, bounded reads, trees removed in bounded memory. Names are resolved below a
 * directory descriptor (AT_FDCWD allowed where the path is ours); descriptors are O_CLOEXEC. */

#include "basic/macro.h"

typedef enum WriteFlags {
        WRITE_SYNC = 1 << 0, /* fsync the file before the rename, and the directory after it */
} WriteFlags;

/* Replaces the file at once: temporary file, write, rename. 0 or negative errno; nothing is left behind on failure. */
int write_file_atomic(int dir_fd, const char *name, const void *data, size_t size, mode_t mode, WriteFlags flags);

/* Reads a regular file of at most max bytes (-E2BIG beyond); the result is NUL-terminated and owned by the caller. */
int read_file(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_size);
int read_fd(int fd, size_t max, char **ret, size_t *ret_size);
int write_all(int fd, const void *data, size_t size);

/* Makes the directory and those above it that are missing, all with that mode. Existing ones are left as they are. */
int mkdir_parents(int dir_fd, const char *path, mode_t mode);
/* Opens a directory, O_PATH not set. */
int open_directory(int dir_fd, const char *path);

/* Removes the tree (or file), however deep, without crossing mount points and without following symlinks, in bounded
 * memory and descriptors. A missing one is no error. */
int remove_tree(int dir_fd, const char *name);

/* openat2(RESOLVE_IN_ROOT): resolves an untrusted path as if root_fd were /. Symlinks and .. stay inside. */
int open_in_root(int root_fd, const char *path, int flags, mode_t mode);

int fd_set_cloexec(int fd, bool cloexec);
int fd_set_nonblock(int fd, bool nonblock);

/* Calls func with each name of the directory but . and ..; stops at the first non-zero result and returns it. */
int directory_foreach(int dir_fd, const char *path, int (*func)(int dir_fd, const char *name, void *userdata),
                      void *userdata);
