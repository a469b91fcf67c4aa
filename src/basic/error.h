#pragma once
/* The error a caller gets to read: a gRPC status code and one sentence that says what failed, why, and what to do.
 *
 * Functions return a negative errno and, where they take an `Error *`, fill it once, at the place where the cause is
 * known. Passing NULL is allowed. The first text stays: a later error_set() on a filled Error only prefixes it by
 * error_prefix(). Codes are those of the gRPC specification (doc/statuscodes.md). */

#include "basic/macro.h"

typedef enum GrpcCode {
        GRPC_OK = 0,
        GRPC_CANCELLED = 1,
        GRPC_UNKNOWN = 2,
        GRPC_INVALID_ARGUMENT = 3,
        GRPC_DEADLINE_EXCEEDED = 4,
        GRPC_NOT_FOUND = 5,
        GRPC_ALREADY_EXISTS = 6,
        GRPC_PERMISSION_DENIED = 7,
        GRPC_RESOURCE_EXHAUSTED = 8,
        GRPC_FAILED_PRECONDITION = 9,
        GRPC_ABORTED = 10,
        GRPC_OUT_OF_RANGE = 11,
        GRPC_UNIMPLEMENTED = 12,
        GRPC_INTERNAL = 13,
        GRPC_UNAVAILABLE = 14,
        GRPC_DATA_LOSS = 15,
        GRPC_UNAUTHENTICATED = 16,
        _GRPC_CODE_MAX,
} GrpcCode;

typedef struct Error {
        GrpcCode code; /* GRPC_OK while nothing was set */
        char *message; /* owned; UTF-8 */
} Error;

#define ERROR_INIT ((Error) {})

void error_clear(Error *e);
#define _cleanup_error_ _cleanup_(error_clear)

static inline bool error_is_set(const Error *e) {
        return e && e->code != GRPC_OK;
}

/* The gRPC code that a negative errno stands for. */
GrpcCode grpc_code_from_errno(int r);
/* The negative errno that stands for a gRPC code. */
int grpc_code_to_errno(GrpcCode code);
const char *grpc_code_to_string(GrpcCode code);
/* Whether another program's error text says that something is used up (GRPC_RESOURCE_EXHAUSTED), in strerror()'s words or
 * Go's. */
bool text_says_exhausted(const char *text);

/* Sets code (from the negative errno r) and text, unless the error is set already; ": " and strerror(-r) are appended.
 * Returns r. */
int error_set(Error *e, int r, const char *format, ...) _printf_(3, 4);

/* The same with a code of the caller's choice and the text alone. Returns the negative errno for the code. */
int error_setf(Error *e, GrpcCode code, const char *format, ...) _printf_(3, 4);

/* Puts words in front of an error that is set already ("cannot start pod X: …"). Returns r. */
int error_prefix(Error *e, int r, const char *format, ...) _printf_(3, 4);

/* Moves src into *dest (if dest is given and not yet set) and clears src. */
void error_move(Error *dest, Error *src);

static inline int error_oom(Error *e) {
        return error_setf(e, GRPC_RESOURCE_EXHAUSTED, "Out of memory"), -ENOMEM;
}
