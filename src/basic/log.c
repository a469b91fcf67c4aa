#include "basic/log.h"

#include <stdarg.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

static int max_level = LOG_INFO;

int log_set_max_level(int level) {
        int old = max_level;
        max_level = level;
        return old;
}

int log_get_max_level(void) {
        return max_level;
}

static const char *const level_names[] = { "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug" };
static const char *const target_names[_LOG_TARGET_MAX] = { "auto", "journal", "console", "null" };
static LogTarget log_target;

static int find_name(const char *const *names, size_t n, const char *s) {
        for (size_t i = 0; i < n; i++)
                if (streq(names[i], s))
                        return (int) i;
        return -EINVAL;
}

const char *log_level_to_string(int level) {
        return level >= 0 && (size_t) level < ELEMENTSOF(level_names) ? level_names[level] : "debug";
}

int log_level_from_string(const char *s) {
        return find_name(level_names, ELEMENTSOF(level_names), s);
}

void log_set_target(LogTarget target) {
        log_target = target;
}

LogTarget log_get_target(void) {
        return log_target;
}

const char *log_target_to_string(LogTarget target) {
        return target_names[target];
}

int log_target_from_string(const char *s) {
        return find_name(target_names, ELEMENTSOF(target_names), s);
}

/* systemd tells a service by JOURNAL_STREAM=DEVICE:INODE that its standard error is the journal (systemd.exec(5)). */
static bool stderr_is_journal(void) {
        static int cached = -1;
        unsigned long long dev, ino;
        struct stat st;
        const char *e;

        if (cached >= 0)
                return cached;
        e = getenv("JOURNAL_STREAM");
        cached = e && sscanf(e, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) >= 0 &&
                 st.st_dev == (dev_t) dev && st.st_ino == (ino_t) ino;
        return cached;
}

void log_internal(int level, const char *file, int line, const char *func, const char *const *fields,
                  const char *format, ...) {
        char text[4096] = "MESSAGE=", where[4][256];
        struct iovec iov[32];
        size_t n = 0;
        va_list ap;
        int saved = errno;

        if (level > max_level || log_target == LOG_TARGET_NULL)
                return;

        va_start(ap, format);
        (void) vsnprintf(text + STRLEN("MESSAGE="), sizeof text - STRLEN("MESSAGE="), format, ap);
        va_end(ap);

        if (log_target == LOG_TARGET_CONSOLE || (log_target == LOG_TARGET_AUTO && !stderr_is_journal())) {
                (void) dprintf(STDERR_FILENO, "<%d>%s\n", level, text + STRLEN("MESSAGE="));
                errno = saved;
                return;
        }

        (void) snprintf(where[0], sizeof where[0], "PRIORITY=%d", level);
        (void) snprintf(where[1], sizeof where[1], "CODE_FILE=%s", file);
        (void) snprintf(where[2], sizeof where[2], "CODE_LINE=%d", line);
        (void) snprintf(where[3], sizeof where[3], "CODE_FUNC=%s", func);
        iov[n++] = (struct iovec) { text, strlen(text) };
        for (size_t i = 0; i < ELEMENTSOF(where); i++)
                iov[n++] = (struct iovec) { where[i], strlen(where[i]) };
        iov[n++] = (struct iovec) { (char *) "SYSLOG_IDENTIFIER=rktlet", STRLEN("SYSLOG_IDENTIFIER=rktlet") };
        for (; fields && *fields && n < ELEMENTSOF(iov); fields++)
                iov[n++] = (struct iovec) { (char *) *fields, strlen(*fields) };
        (void) sd_journal_sendv(iov, (int) n);
        errno = saved;
}
