#pragma once
/* Protobuf messages as bytes: nanopb with bounds, clear errors and UTF-8 checked both ways (Go clients refuse a message
 * with a string that is not UTF-8). Knows no particular message. */

#include <pb.h>

#include "basic/error.h"
#include "basic/macro.h"

/* Decodes into *ret, which must be zeroed; pointers in it are heap memory for pb_release(). InvalidArgument when the
 * bytes are no such message. On failure nothing is left allocated. */
int message_decode(const pb_msgdesc_t *fields, const void *data, size_t size, void *ret, Error *error);
/* Encodes in one pass into memory from grpc_message_alloc()-like room: `headroom` bytes are left free before the message.
 * The result is owned by the caller (free() of *ret - headroom). Strings that are not UTF-8 are an Internal error naming
 * the field. ResourceExhausted beyond max. */
int message_encode(const pb_msgdesc_t *fields, const void *message, size_t headroom, size_t max, void **ret,
                   size_t *ret_size, Error *error);
