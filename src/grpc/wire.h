#pragma once
/* The small formats of gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md): timeouts, message prefixes, status texts. Pure
 * functions on bytes. */

#include "basic/error.h"
#include "basic/macro.h"

/* What precedes each message: a byte that says whether it is compressed, and its length, big-endian. */
#define WIRE_PREFIX 5U
/* Status texts are cut at so many bytes before they are encoded (which may triple them): the trailers then fit into
 * the smallest HTTP/2 frame that a peer may insist on, 16 KiB. */
#define WIRE_TEXT_MAX 2048U

/* The value of grpc-timeout: 1 to 8 digits and a unit of H, M, S, m, u, n. Gives µs, rounded up. -EINVAL for
 * others. */
int wire_parse_timeout(const char *s, size_t size, uint64_t *ret_usec);

/* Finds the one message of a complete request body. Compressed ones are Unimplemented, those above max
 * ResourceExhausted, none or several Internal. The result points into body. */
int wire_parse_request(const void *body, size_t size, size_t max, const void **ret, size_t *ret_size, Error *error);

void wire_put_prefix(uint8_t prefix[static WIRE_PREFIX], size_t size);

/* Percent-encodes a text for grpc-message: what is not printable ASCII, and '%'. Cut at WIRE_TEXT_MAX bytes, not
 * inside a character. NULL when out of memory; free() it. */
char *wire_encode_text(const char *text);

/* Whether a content-type says gRPC: application/grpc, also with +proto or parameters. */
bool wire_is_grpc(const char *content_type, size_t size);
