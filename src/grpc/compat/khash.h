#pragma once
/* Stands in for klib's khash.h, which h2o/http2_internal.h includes and no package ships with it. h2o's structs only hold
 * pointers to such tables, so opaque ones keep the layout; the lookups that h2o's inline functions mention compile and
 * must never be called (h2-connection.c finds streams another way). */

#include <stdint.h>
#include <stdlib.h>

typedef uint32_t khiter_t;
#define khash_t(name) struct khash_opaque_##name
#define KHASH_MAP_INIT_INT64(name, value_type)                                                                         \
        struct khash_opaque_##name {                                                                                   \
                value_type value;                                                                                      \
        };
#define kh_get(name, table, key) ((void) (table), (void) (key), (khiter_t) 0)
#define kh_end(table) ((void) (table), (khiter_t) 0)
#define kh_val(table, iter) (abort(), (void) (iter), (table)->value)
