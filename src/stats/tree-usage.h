#pragma once
/* What a directory tree takes on its file system, as du(1) counts: blocks and inodes. The tree may be a container's
 * writable layer, and change while it is looked at: it can be as deep and as large as it wants, nothing is followed
 * out of it, and a part that is moved away in the middle is left out. */

#include "basic/macro.h"

typedef struct TreeUsage {
        uint64_t bytes, inodes;
} TreeUsage;

/* max_entries: -E2BIG as soon as there are more; 0: no limit. */
int tree_usage(int dir_fd, const char *path, uint64_t max_entries, TreeUsage *ret);
