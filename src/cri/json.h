#pragma once
/* Requests as JSON, for the verbose answers: field names as in the .proto, zero values left out. */

#include <jansson.h>
#include <pb.h>

#include "basic/arena.h"
#include "basic/error.h"
#include "basic/macro.h"

/* New reference, NULL when out of memory. Fields of messages this file doesn't know are left out. */
json_t *message_to_json(const pb_msgdesc_t *fields, const void *message);

/* The text as JSON; null when there is none, or it is none. New reference, NULL when out of memory. */
json_t *json_from_text(const char *text);

/* The compact text; j may be NULL (out of memory). */
int json_to_arena(json_t *j, Arena *arena, char **ret, Error *error);
