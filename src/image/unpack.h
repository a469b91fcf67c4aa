#pragma once
/* rktlet-unpack: one layer from its compressed bytes to a directory tree, in a process of its own that has no network,
 * no path out of that directory and few system calls. The daemon talks to it by arguments and descriptors:
 *
 *   rktlet-unpack layer DIGEST SIZE DIFF-ID   0: the compressed layer; 3: the tree's directory; 4: a file for the list
 *                                             of implied directories; 5: one for checksums (store.h). Prints "BYTES INODES IMPLIED OPAQUE-ROOT".
 *   rktlet-unpack adopt                       0: such a list; 3: the tree; 4, 5, …: the trees below, nearest first
 *   rktlet-unpack remove NAME…                3: the directory that has these trees
 *   rktlet-unpack sync                        3: a directory of the file system to be synced
 *
 * The exit status is a gRPC code (0 is success), with one sentence on standard error. */

#include <sys/stat.h>

#include "basic/error.h"
#include "basic/macro.h"

#define UNPACK_TREE_FD    3
#define UNPACK_IMPLIED_FD 4
#define UNPACK_SUMS_FD    5

/* A layer's entries, all kinds; and the memory its paths may take while it is unpacked. */
#define UNPACK_ENTRIES_MAX 4000000U
#define UNPACK_PATHS_MAX   (256U * 1024U * 1024U)
/* A file's apparent size: sparse files cost nothing, but no file system takes more. */
#define UNPACK_FILE_SIZE_MAX (INT64_C(1) << 43)

/* unpack-stream.c: bytes in, tar out, both hashed. */
typedef struct UnpackStream UnpackStream;
/* size: the compressed bytes announced, more or less is an error; out_max: decompressed bytes accepted. */
int unpack_stream_new(int fd, uint64_t size, uint64_t out_max, UnpackStream **ret, Error *error);
UnpackStream *unpack_stream_free(UnpackStream *s);
DEFINE_TRIVIAL_CLEANUP_FUNC(UnpackStream *, unpack_stream_free);
/* The next decompressed bytes, valid until the next call; 0 at the end. */
ssize_t unpack_stream_next(UnpackStream *s, const void **ret, Error *error);
/* Reads what is left and compares both digests. */
int unpack_stream_finish(UnpackStream *s, const char *digest, const char *diff_id, Error *error);

/* unpack-tree.c: the tree, and nothing outside of it, whatever the names say. */
typedef struct UnpackTree UnpackTree;

typedef struct UnpackMetadata {
        mode_t mode; /* permission bits */
        uid_t uid;
        gid_t gid;
        struct timespec mtime;
} UnpackMetadata;

int unpack_tree_new(int root_fd, UnpackTree **ret, Error *error);
UnpackTree *unpack_tree_free(UnpackTree *t);
DEFINE_TRIVIAL_CLEANUP_FUNC(UnpackTree *, unpack_tree_free);

/* path is as the archive has it. Each makes missing parents and replaces what is there. A directory is only opened
 * when ret_fd is given. */
int unpack_tree_directory(UnpackTree *t, const char *path, const UnpackMetadata *m, int *ret_fd, Error *error);
int unpack_tree_file(UnpackTree *t, const char *path, const UnpackMetadata *m, int *ret_fd, Error *error);
/* Once the file has its contents: its owner, which takes file capabilities away; then the caller sets extended
 * attributes; then mode bits and time. */
int unpack_tree_file_owner(UnpackTree *t, int fd, const UnpackMetadata *m, Error *error);
int unpack_tree_file_finish(UnpackTree *t, int fd, const UnpackMetadata *m, uint64_t written, Error *error);
int unpack_tree_symlink(UnpackTree *t, const char *path, const char *target, const UnpackMetadata *m, Error *error);
int unpack_tree_node(UnpackTree *t, const char *path, mode_t type, dev_t rdev, const UnpackMetadata *m, Error *error);
int unpack_tree_hardlink(UnpackTree *t, const char *path, const char *target, Error *error);
/* Whether the last component of the path is a whiteout, and then does what it means. */
int unpack_tree_whiteout(UnpackTree *t, const char *path, bool *ret_was_one, Error *error);
/* Sets the times of directories, writes the list of implied ones. */
int unpack_tree_finish(UnpackTree *t, int implied_fd, Error *error);

uint64_t unpack_tree_bytes(const UnpackTree *t);
uint64_t unpack_tree_inodes(const UnpackTree *t);
size_t unpack_tree_implied(const UnpackTree *t);
bool unpack_tree_opaque_root(const UnpackTree *t);

/* Something of the layer took the place of something else of it. */
bool unpack_tree_replaced(const UnpackTree *t);

/* unpack-layer.c: from the tar's entries to the tree. sums_fd: a file for the checksums of its files, or -1. */
int unpack_layer(UnpackStream *s, UnpackTree *t, int sums_fd, Error *error);

/* unpack-adopt.c: directories a layer implies but doesn't have get owner and mode from the layers below. */
int unpack_adopt(int list_fd, const int *tree_fds, size_t n_trees, Error *error);

/* unpack-sandbox.c: from here on nothing but the descriptors that are open; root_fd (if not negative) becomes "/". */
typedef enum SandboxFlags {
        SANDBOX_MAKE = 1 << 0, /* may make and own files and nodes */
} SandboxFlags;
int unpack_sandbox(int root_fd, SandboxFlags flags, Error *error);
