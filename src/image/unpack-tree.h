#pragma once
/* The inside of the tree that a layer is unpacked to: what unpack-tree.c (entries) and unpack-path.c (names) share. */

#include <limits.h>
#include <sys/stat.h>
#include <uthash.h>

#include "image/unpack.h"

#define TREE_BLOCK_SIZE  UINT64_C(4096)
#define TREE_PARENTS_MAX 16U

typedef struct Implied {
        ino_t ino;
        char *path;
        UT_hash_handle hh;
} Implied;

typedef struct DirectoryTime {
        char *path;
        struct timespec mtime;
} DirectoryTime;

/* Directories that entries lay in lately: most lie in the same ones, or in their parents. */
typedef struct Parent {
        int fd;
        bool valid;
        uint64_t used;
        size_t length;
        char path[PATH_MAX];
} Parent;

struct UnpackTree {
        int root_fd;
        Parent parents[TREE_PARENTS_MAX];
        uint64_t clock;
        /* The normalized path of the current entry. */
        char path[PATH_MAX];
        bool setgid_seen;        /* a directory hands its group down */
        bool directory_replaced, replaced; /* a remembered directory may be something else now */
        Implied *implied;
        DirectoryTime *times;
        size_t n_times, allocated_times;
        size_t path_bytes;
        uint64_t bytes, inodes;
        bool opaque_root;
};

static inline bool is_whiteout(const struct stat *st) {
        return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}

int tree_refuse(Error *error, const char *path, const char *why);
/* What a system call's failure means to whoever pulls. Returns r or the code's errno. */
int tree_failed(Error *error, int r, const char *what);
/* Accounts for memory that paths take. */
int tree_charge_path(UnpackTree *t, size_t n, Error *error);
/* "/./a//b/" becomes "a/b"; "" is the root. No name may step upwards. *ret_base points at the last component. */
int tree_normalize(const char *path, char ret[static PATH_MAX], const char **ret_base, Error *error);
/* Opens what a path means within the tree. */
int tree_open(int root_fd, const char *path, int flags);
int tree_set_opaque(int fd, Error *error);
void tree_implied_free(UnpackTree *t, Implied *i);
/* The directory of a normalized path, up to its last component, made if it is missing; borrowed until the next call
 * but one. */
int tree_open_parent(UnpackTree *t, const char *path, const char *base, int *ret_fd, Error *error);
/* Paths may mean something else now. The descriptors stay until they are needed for others. */
void tree_forget_parents(UnpackTree *t);
