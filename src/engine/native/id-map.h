#pragma once
/* User namespaces of pods, and mappings of mounts: which IDs inside are which outside. */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "runtime.pb.h"

#define ID_MAP_RANGES_MAX 32U /* of users, and of groups; the pod process takes as many */

typedef struct IdRange {
        uint32_t inside, outside, count;
} IdRange;

typedef struct IdRanges {
        IdRange ranges[ID_MAP_RANGES_MAX];
        size_t n;
} IdRanges;

typedef struct IdMap {
        IdRanges uids, gids; /* n 0: IDs are what they are */
} IdMap;

/* Takes over and checks: complete, not empty, nothing mapped twice. what: for the error, InvalidArgument. */
int id_map_from_cri(const runtime_v1_IDMapping *uids, size_t n_uids, const runtime_v1_IDMapping *gids, size_t n_gids,
                    const char *what, IdMap *ret, Error *error);
bool id_map_equal(const IdMap *a, const IdMap *b);
static inline bool id_map_is_set(const IdMap *m) {
        return m->uids.n > 0;
}

/* What an ID inside is outside; -ENOENT when it isn't mapped. */
int id_ranges_outside(const IdRanges *r, uint32_t inside, uint32_t *ret);
/* The array of the OCI runtime configuration; NULL when out of memory. */
json_t *id_ranges_to_json(const IdRanges *r);

/* Makes a user namespace with these IDs: *ret_fd is owned by the caller. It takes part of a millisecond. */
int id_map_make_namespace(const IdMap *m, int *ret_fd, Error *error);
