/* What the OCI runtime says when it fails: lines of JSON in a log file of ours. */

#include <fcntl.h>

#include "basic/file-util.h"
#include "engine/native/internal.h"

#define LOG_MAX (256U * 1024U)
#define MESSAGE_MAX 1024U

static char *message_of_line(const char *line, size_t size) {
        _cleanup_json_ json_t *j = NULL;
        const char *message;

        if (json_parse(line, size, &j, NULL) < 0)
                return NULL;
        message = json_get_string(j, "msg");
        return message ? strndup(message, MESSAGE_MAX) : NULL;
}

char *runtime_log_message(int dir_fd, const char *path) {
        _cleanup_free_ char *text = NULL, *last = NULL;

        if (read_file(dir_fd, path, LOG_MAX, &text, NULL) < 0)
                return NULL;
        for (char *line = text, *end; line && *line; line = end) {
                char *message;

                end = strchr(line, '\n');
                if (end)
                        *end++ = 0;
                message = message_of_line(line, strlen(line));
                if (message) {
                        free(last);
                        last = message;
                }
        }
        return TAKE_PTR(last);
}

int runtime_error_is_exec(const char *message, const char *command, char **ret) {
        const char *why = NULL;

        if (startswith(message, "executable file ") && strstr(message, " not found"))
                why = command[0] == '/' ? "no such file or directory" : "executable file not found in $PATH";
        else if (startswith(message, "open executable") || startswith(message, "executable path not specified"))
                /* crun says EPERM for what is no regular file. */
                why = strstr(message, "Operation not permitted") ? "not an executable file" : "permission denied";
        if (!why)
                return 0;
        *ret = strprintf("exec: \"%s\": %s", command, why);
        return *ret ? 1 : -ENOMEM;
}
