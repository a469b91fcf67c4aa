/* How things are written: colours and a pager on a terminal, neither elsewhere; JSON; times and sizes for people. */

#include "rktletctl/ctl.h"

#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static pid_t pager;
static bool was_terminal; /* before the pager took its place */

bool on_terminal(void) {
        return was_terminal || isatty(STDOUT_FILENO);
}

/* As systemd's tools: $SYSTEMD_COLORS decides, else $NO_COLOR (no-color.org) and the terminal do. */
static bool colours(void) {
        static int cached = -1;
        const char *e, *term;

        if (cached >= 0)
                return cached;
        e = getenv("SYSTEMD_COLORS");
        term = getenv("TERM");
        cached = e ? parse_bool(e) > 0 : !getenv("NO_COLOR") && on_terminal() && term && !streq(term, "dumb");
        return cached;
}

const char *colour_of_state(const char *state) {
        if (!colours())
                return "";
        if (streq(state, "ready") || streq(state, "running"))
                return "\033[0;1;32m";
        if (streq(state, "created") || streq(state, "not-ready") || streq(state, "exited") ||
            streq(state, "exited(0)"))
                return "\033[0;38;5;245m";
        return startswith(state, "exited") || streq(state, "unknown") ? "\033[0;1;31m" : "";
}

const char *colour_bold(void) {
        return colours() ? "\033[0;1;39m" : "";
}

const char *colour_off(void) {
        return colours() ? "\033[0m" : "";
}

int print_json(json_t *j) {
        int r;

        if (!j)
                return -ENOMEM;
        r = json_dumpf(j, stdout, arg.json == JSON_SHORT ? JSON_COMPACT : JSON_INDENT(8)) < 0 ? -EIO : 0;
        putchar('\n');
        return r;
}

void print_clean(const char *s) {
        for (; *s; s++) {
                /* U+0080 to U+009F steer a terminal, too. */
                if ((unsigned char) s[0] == 0xc2 && (unsigned char) s[1] >= 0x80 && (unsigned char) s[1] < 0xa0) {
                        putchar('?');
                        s++;
                } else
                        putchar(iscntrl((unsigned char) *s) ? '?' : *s);
        }
}

void format_time(uint64_t usec, char *ret, size_t size) {
        time_t t = (time_t) (usec / USEC_PER_SEC);
        struct tm tm;

        ret[0] = '\0';
        if (usec > 0 && localtime_r(&t, &tm))
                (void) strftime(ret, size, "%a %Y-%m-%d %H:%M:%S %Z", &tm);
}

void format_ago(uint64_t usec, char *ret, size_t size) {
        uint64_t now = (uint64_t) time(NULL), s = usec / USEC_PER_SEC;

        s = now > s ? now - s : 0;
        if (s < 120)
                (void) snprintf(ret, size, "%" PRIu64 "s ago", s);
        else if (s < 120 * 60)
                (void) snprintf(ret, size, "%" PRIu64 "min ago", s / 60);
        else if (s < 48 * 3600)
                (void) snprintf(ret, size, "%" PRIu64 "h ago", s / 3600);
        else
                (void) snprintf(ret, size, "%" PRIu64 " days ago", s / 86400);
}

void format_size(uint64_t size, char *ret, size_t n) {
        static const char *const units[] = { "B", "K", "M", "G", "T" };
        double d = (double) size;
        size_t i = 0;

        if (size == UINT64_MAX) {
                (void) snprintf(ret, n, "-");
                return;
        }
        for (; d >= 1024 && i + 1 < ELEMENTSOF(units); i++)
                d /= 1024;
        (void) snprintf(ret, n, i > 0 ? "%.1f%s" : "%.0f%s", d, units[i]);
}

/* --- the pager --------------------------------------------------------------------------------------------------- */

static void pager_exec(void) {
        const char *command = getenv("SYSTEMD_PAGER");

        if (!command)
                command = getenv("PAGER");
        /* Quits when it fits, keeps colours, and leaves the text on the screen. */
        (void) setenv("LESS", getenv("SYSTEMD_LESS") ? getenv("SYSTEMD_LESS") : "FRSXMK", 1);
        if (!isempty(command)) {
                (void) execlp("sh", "sh", "-c", command, NULL);
                _exit(EXIT_FAILURE);
        }
        (void) execlp("less", "less", NULL);
        (void) execlp("more", "more", NULL);
        (void) execlp("cat", "cat", NULL);
        _exit(EXIT_FAILURE);
}

void pager_open(void) {
        const char *command = getenv("SYSTEMD_PAGER") ? getenv("SYSTEMD_PAGER") : getenv("PAGER");
        int fds[2];

        if (arg.no_pager || pager > 0 || !isatty(STDOUT_FILENO) ||
            (command && (isempty(command) || streq(command, "cat"))))
                return;
        (void) fflush(stdout);
        was_terminal = true;
        if (pipe2(fds, O_CLOEXEC) < 0)
                return;
        pager = fork();
        if (pager == 0) {
                (void) dup2(fds[0], STDIN_FILENO);
                pager_exec();
        }
        if (pager > 0)
                (void) dup2(fds[1], STDOUT_FILENO);
        (void) close(fds[0]);
        (void) close(fds[1]);
        /* Whoever quits it has seen enough. */
        (void) signal(SIGPIPE, SIG_DFL);
}

void pager_close(void) {
        (void) fflush(stdout);
        if (pager <= 0)
                return;
        (void) fclose(stdout);
        (void) close(STDOUT_FILENO);
        while (waitpid(pager, NULL, 0) < 0 && errno == EINTR)
                ;
        pager = 0;
}
