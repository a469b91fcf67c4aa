#include "basic/error.h"

#include <stdarg.h>

void error_clear(Error *e) {
        if (!e)
                return;
        e->code = GRPC_OK;
        e->message = mfree(e->message);
}

static const struct {
        int error;
        GrpcCode code;
} errno_table[] = {
        /* The first row of a code is its way back. */
        { ECANCELED, GRPC_CANCELLED },
        { EIO, GRPC_INTERNAL },
        { EINVAL, GRPC_INVALID_ARGUMENT },
        { ETIME, GRPC_DEADLINE_EXCEEDED },
        { ETIMEDOUT, GRPC_DEADLINE_EXCEEDED },
        { ENOENT, GRPC_NOT_FOUND },
        { EEXIST, GRPC_ALREADY_EXISTS },
        { EACCES, GRPC_PERMISSION_DENIED },
        { EPERM, GRPC_PERMISSION_DENIED },
        { ENOSPC, GRPC_RESOURCE_EXHAUSTED },
        { ENOMEM, GRPC_RESOURCE_EXHAUSTED },
        { EDQUOT, GRPC_RESOURCE_EXHAUSTED },
        { EMFILE, GRPC_RESOURCE_EXHAUSTED },
        { ENFILE, GRPC_RESOURCE_EXHAUSTED },
        { EAGAIN, GRPC_RESOURCE_EXHAUSTED },
        { EBUSY, GRPC_FAILED_PRECONDITION },
        { ESTALE, GRPC_ABORTED },
        { ERANGE, GRPC_OUT_OF_RANGE },
        { EOPNOTSUPP, GRPC_UNIMPLEMENTED },
        { ENOSYS, GRPC_UNIMPLEMENTED },
        { ECONNREFUSED, GRPC_UNAVAILABLE },
        { ECONNRESET, GRPC_UNAVAILABLE },
        { ENOTCONN, GRPC_UNAVAILABLE },
        { EHOSTUNREACH, GRPC_UNAVAILABLE },
        { ENETUNREACH, GRPC_UNAVAILABLE },
        { EBADMSG, GRPC_DATA_LOSS },
        { EKEYREJECTED, GRPC_UNAUTHENTICATED },
        /* What a path of the caller's can be. */
        { ELOOP, GRPC_INVALID_ARGUMENT },
        { ENOTDIR, GRPC_INVALID_ARGUMENT },
        { EISDIR, GRPC_INVALID_ARGUMENT },
        { ENAMETOOLONG, GRPC_INVALID_ARGUMENT },
        { ENODATA, GRPC_UNKNOWN },
};

GrpcCode grpc_code_from_errno(int r) {
        if (r >= 0)
                return GRPC_OK;
        for (size_t i = 0; i < ELEMENTSOF(errno_table); i++)
                if (errno_table[i].error == -r)
                        return errno_table[i].code;
        return GRPC_INTERNAL;
}

int grpc_code_to_errno(GrpcCode code) {
        if (code == GRPC_OK)
                return 0;
        for (size_t i = 0; i < ELEMENTSOF(errno_table); i++)
                if (errno_table[i].code == code)
                        return -errno_table[i].error;
        return -EIO;
}

bool text_says_exhausted(const char *text) {
        static const int exhausted[] = { ENOSPC, EDQUOT, ENOMEM, EMFILE, ENFILE, EAGAIN };

        /* Go's programs write the same words in lower case. */
        for (size_t i = 0; i < ELEMENTSOF(exhausted); i++)
                if (strcasestr(text, strerror(exhausted[i])))
                        return true;
        return false;
}

const char *grpc_code_to_string(GrpcCode code) {
        static const char *const names[_GRPC_CODE_MAX] = {
                [GRPC_OK] = "OK",
                [GRPC_CANCELLED] = "Canceled",
                [GRPC_UNKNOWN] = "Unknown",
                [GRPC_INVALID_ARGUMENT] = "InvalidArgument",
                [GRPC_DEADLINE_EXCEEDED] = "DeadlineExceeded",
                [GRPC_NOT_FOUND] = "NotFound",
                [GRPC_ALREADY_EXISTS] = "AlreadyExists",
                [GRPC_PERMISSION_DENIED] = "PermissionDenied",
                [GRPC_RESOURCE_EXHAUSTED] = "ResourceExhausted",
                [GRPC_FAILED_PRECONDITION] = "FailedPrecondition",
                [GRPC_ABORTED] = "Aborted",
                [GRPC_OUT_OF_RANGE] = "OutOfRange",
                [GRPC_UNIMPLEMENTED] = "Unimplemented",
                [GRPC_INTERNAL] = "Internal",
                [GRPC_UNAVAILABLE] = "Unavailable",
                [GRPC_DATA_LOSS] = "DataLoss",
                [GRPC_UNAUTHENTICATED] = "Unauthenticated",
        };
        return (unsigned) code < _GRPC_CODE_MAX ? names[code] : "Unknown";
}

int error_set(Error *e, int r, const char *format, ...) {
        _cleanup_free_ char *text = NULL;
        va_list ap;
        int n;

        if (!e || error_is_set(e) || r >= 0)
                return r;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0)
                text = NULL;

        e->code = grpc_code_from_errno(r);
        if (!text || asprintf(&e->message, "%s: %s", text, strerror(-r)) < 0)
                e->message = NULL;
        return r;
}

int error_setf(Error *e, GrpcCode code, const char *format, ...) {
        va_list ap;

        if (e && !error_is_set(e)) {
                e->code = code;
                va_start(ap, format);
                if (vasprintf(&e->message, format, ap) < 0)
                        e->message = NULL;
                va_end(ap);
        }
        return grpc_code_to_errno(code);
}

int error_prefix(Error *e, int r, const char *format, ...) {
        _cleanup_free_ char *text = NULL;
        va_list ap;
        char *joined;
        int n;

        if (!e)
                return r;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0) {
                text = NULL;
                return r;
        }

        if (!error_is_set(e)) {
                e->code = grpc_code_from_errno(r);
                if (asprintf(&e->message, "%s: %s", text, strerror(-r)) < 0)
                        e->message = NULL;
                return r;
        }

        if (asprintf(&joined, "%s: %s", text, strempty(e->message)) >= 0) {
                free(e->message);
                e->message = joined;
        }
        return r;
}

void error_move(Error *dest, Error *src) {
        if (dest && !error_is_set(dest) && error_is_set(src)) {
                error_clear(dest);
                *dest = *src;
                *src = ERROR_INIT;
        } else
                error_clear(src);
}
