/* How a command has ended, for the client: a metav1.Status in JSON since version 4 of the protocol, before that a
 * sentence, and nothing at all for success. */

#include "basic/json-util.h"
#include "basic/string-util.h"
#include "stream/session.h"

static json_t *success(void) {
        return json_pack("{s:{}, s:s}", "metadata", "status", "Success");
}

static json_t *exited(int exit_code) {
        _cleanup_free_ char *number = strprintf("%d", exit_code), *message = NULL;

        message = strprintf("command terminated with non-zero exit code: %d", exit_code);
        if (!number || !message)
                return NULL;
        return json_pack("{s:{}, s:s, s:s, s:s, s:{s:[{s:s, s:s}]}}", "metadata", "status", "Failure", "message",
                         message, "reason", "NonZeroExitCode", "details", "causes", "reason", "ExitCode", "message", number);
}

static json_t *failed(const char *message) {
        return json_pack("{s:{}, s:s, s:s, s:s, s:{s:[{s:s}]}, s:i}", "metadata", "status", "Failure", "message",
                         message, "reason", "InternalError", "details", "causes", "message", message, "code", 500);
}

char *status_text(unsigned version, int r, int exit_code, const Error *error) {
        _cleanup_json_ json_t *status = NULL;
        _cleanup_free_ char *message = NULL;

        if (r < 0) {
                message = utf8_sanitize(error && error->message ? error->message : strerror(-r));
                if (!message)
                        return NULL;
        }
        if (version < 4) {
                if (r < 0)
                        return TAKE_PTR(message);
                return exit_code == 0 ? strdup("")
                                      : strprintf("command terminated with non-zero exit code: %d", exit_code);
        }
        status = r < 0 ? failed(message) : exit_code == 0 ? success() : exited(exit_code);
        return status ? json_dumps(status, JSON_COMPACT) : NULL;
}
