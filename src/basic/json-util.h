#pragma once
/* Short-hands around jansson. */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"

static inline void json_decrefp_(json_t **j) {
        json_decref(*j);
}
#define _cleanup_json_ _cleanup_(json_decrefp_)

/* Nesting deeper, or a text larger than max, is refused. New reference. */
int json_parse(const char *text, size_t size, json_t **ret, Error *error);
/* Borrowed string member, or NULL when it is missing or no string. */
const char *json_get_string(const json_t *o, const char *key);
/* The member if it has that type, else NULL. Borrowed. */
json_t *json_get_array(const json_t *o, const char *key);
json_t *json_get_object(const json_t *o, const char *key);
/* NULL-terminated copy of an array of strings; -EINVAL when a member is none; *ret NULL when j is NULL. */
int json_to_strv(const json_t *j, char ***ret);
json_t *json_from_strv(char *const *l);

/* State files carry a checksum as their last member, "crc32", so that a flipped bit is told from what was written. It is
 * there against accidents, not against malice. Files of before have none, and are taken as they are. */
/* The object's text with its checksum, owned by the caller; NULL when out of memory, or o is. */
char *json_dump_sealed(const json_t *o, size_t flags);
/* As json_parse(), for an object; -EBADMSG with the error set for whatever is wrong with it. */
int json_parse_sealed(const char *text, size_t size, json_t **ret, Error *error);
