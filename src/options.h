#pragma once
/* The daemon's command line. */

typedef enum Action {
        ACTION_SERVE,
        ACTION_DUMP_CONFIG,
        ACTION_CHECK,
        ACTION_REPAIR,
} Action;

typedef struct Options {
        Action action;
        const char *config_path;        /* NULL: where it always is */
        const char *socket, *log_level; /* instead of what the configuration says; or NULL */
} Options;

/* 0: go on. 1: done (--help, --version). Negative: wrong usage, and told so. The strings are argv's. */
int options_parse(int argc, char *argv[], Options *ret);
