#pragma once
/* Logging: structured entries to the journal when standard error is connected to it, else lines on standard error. */

#include <syslog.h>

#include "basic/macro.h"

/* LOG_ERR … LOG_DEBUG; messages above are dropped. Returns the old one. */
int log_set_max_level(int level);
int log_get_max_level(void);

/* "emerg" … "debug"; -EINVAL for what is none. */
const char *log_level_to_string(int level);
int log_level_from_string(const char *s);

/* Where to: the journal where standard error leads there, else standard error ("auto", the default); or one of them
 * in any case; or nowhere. */
typedef enum LogTarget {
        LOG_TARGET_AUTO,
        LOG_TARGET_JOURNAL,
        LOG_TARGET_CONSOLE,
        LOG_TARGET_NULL,
        _LOG_TARGET_MAX,
} LogTarget;
void log_set_target(LogTarget target);
LogTarget log_get_target(void);
const char *log_target_to_string(LogTarget target);
int log_target_from_string(const char *s); /* -EINVAL */

/* `fields` is a NULL-terminated list of "KEY=value" strings (POD_ID=…, CONTAINER_ID=…), or NULL. */
void log_internal(int level, const char *file, int line, const char *func, const char *const *fields,
                  const char *format, ...) _printf_(6, 7);

#define log_full(level, ...) log_internal((level), __FILE__, __LINE__, __func__, NULL, __VA_ARGS__)
#define log_struct(level, fields, ...) log_internal((level), __FILE__, __LINE__, __func__, (fields), __VA_ARGS__)
#define log_debug(...) log_full(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_full(LOG_INFO, __VA_ARGS__)
#define log_notice(...) log_full(LOG_NOTICE, __VA_ARGS__)
#define log_warning(...) log_full(LOG_WARNING, __VA_ARGS__)
#define log_error(...) log_full(LOG_ERR, __VA_ARGS__)

/* Logs ": strerror" after the text and returns r. */
#define log_error_errno(r, format, ...)                                                                                \
        ({                                                                                                             \
                int _r = (r);                                                                                          \
                log_error(format ": %s", ##__VA_ARGS__, strerror(-_r));                                                \
                _r;                                                                                                    \
        })
#define log_warning_errno(r, format, ...)                                                                              \
        ({                                                                                                             \
                int _r = (r);                                                                                          \
                log_warning(format ": %s", ##__VA_ARGS__, strerror(-_r));                                              \
                _r;                                                                                                    \
        })
#define log_debug_errno(r, format, ...)                                                                                \
        ({                                                                                                             \
                int _r = (r);                                                                                          \
                log_debug(format ": %s", ##__VA_ARGS__, strerror(-_r));                                                \
                _r;                                                                                                    \
        })
