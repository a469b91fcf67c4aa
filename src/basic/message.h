#pragma once
/* Protobuf messages as bytes: nanopb's structs with bounds, clear errors and UTF-8 checked both ways (Go clients
 * refuse a message with a string that is not UTF-8). Knows no particular message. Wire format: protobuf.dev,
 * "Encoding". */

#include <pb_decode.h>
#include <pb_encode.h>

#include "basic/error.h"
#include "basic/macro.h"

/* What nanopb as Debian builds it can count: entries of one list, bytes of one `bytes` field that is a pointer. */
#define MESSAGE_LIST_MAX  65535U
#define MESSAGE_BYTES_MAX 65535U
/* Messages within messages; deeper ones are refused. */
#define MESSAGE_DEPTH_MAX 16U

/* Decodes into *ret, which must be zeroed; pointers in it are heap memory for pb_release(). InvalidArgument, naming
 * the field by the numbers that lead to it, when the bytes are no such message, a string is not UTF-8 or has a NUL in
 * it, or a list or bytes are longer than the limits above. On failure nothing is left allocated. */
int message_decode(const pb_msgdesc_t *fields, const void *data, size_t size, void *ret, Error *error);

/* Fields of the protocol's type `bytes` that are strings to nanopb (proto/runtime.options), so that they can be longer than
 * MESSAGE_BYTES_MAX: they need not be UTF-8, but a NUL is refused. The list, ended by { NULL, 0 }, is kept; there is one
 * for the process. */
typedef struct MessageRaw {
        const pb_msgdesc_t *fields;
        uint32_t tag;
} MessageRaw;
void message_set_raw(const MessageRaw *list);
bool message_is_raw(const pb_field_iter_t *field);

/* Where an encoded message is put: realloc(3) and free(3), or those of a transport that wants room around it. */
typedef struct MessageAllocator {
        void *(*realloc)(void *p, size_t size);
        void (*free)(void *p);
} MessageAllocator;

/* Encodes in one pass; *ret is from the allocator (NULL: malloc) and owned by the caller. ResourceExhausted beyond max
 * bytes. A string that is not UTF-8 is an Internal error naming the field. */
int message_encode(const pb_msgdesc_t *fields, const void *message, const MessageAllocator *allocator, size_t max,
                   void **ret, size_t *ret_size, Error *error);

/* For the encode callbacks of FT_CALLBACK fields, called by message_encode(): one more entry of a repeated message
 * field, or the value of a bytes field. False (with the reason kept for message_encode()) when that failed; the
 * callback returns false then as well. */
bool message_put(pb_ostream_t *stream, const pb_field_iter_t *field, const pb_msgdesc_t *fields, const void *message);
bool message_put_bytes(pb_ostream_t *stream, const pb_field_iter_t *field, const void *data, size_t size);
/* Bytes encoded so far, for a callback that stops in time. */
size_t message_put_size(const pb_ostream_t *stream);
