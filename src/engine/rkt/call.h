#pragma once
/* One execution of rkt: asynchronous, with a deadline, standard output and error apart, and its words kept in the
 * error. */

#include "basic/error.h"
#include "basic/process.h"
#include "engine/rkt/rkt.h"

#define RKT_OUTPUT_MAX (8U * 1024U * 1024U) /* what rkt prints at most; more is garbage */
#define RKT_ERROR_MAX  (64U * 1024U)
#define RKT_EXIT_ERROR 254 /* what rkt itself ends with; other codes are a command's own */

typedef struct Rkt {
        char *path, *directory, *stage1_name, *insecure_options, *network_directory, *local_config, *run_directory;
        uint64_t timeout_usec, ready_timeout_usec, fetch_timeout_usec;
        size_t log_line_max;
} Rkt;

int rkt_init(Rkt *rkt, const RktConfig *config, Error *error);
void rkt_done(Rkt *rkt);

/* What rkt is executed with. `attach` and `app` are hidden in rkt without it. */
extern const char *const rkt_environment[];

/* Begins a command line: the program, the command's first word, and the global flags, which have to follow it.
 * more_insecure ("http") is added to the configured options; may be NULL. */
int rkt_argv_new(const Rkt *rkt, const char *word, const char *more_insecure, char ***ret);

typedef struct RktResult {
        int exit_code; /* 128 + n when a signal ended it */
        char *output, *error;
        size_t output_size;
} RktResult;
void rkt_result_done(RktResult *r);
#define _cleanup_rkt_result_ _cleanup_(rkt_result_done)

/* (fiber) Runs it to its end; a non-zero exit code is no failure here. On cancellation rkt gets a moment to finish, since
 * half of what it does is of no use. timeout_usec 0: the configured one. */
int rkt_run(const Rkt *rkt, char *const *argv, uint64_t timeout_usec, RktResult *ret, Error *error);
/* (fiber) The same, and anything but exit code 0 is an error. what: "add app X", for its text. ret may be NULL. */
int rkt_call(const Rkt *rkt, char *const *argv, uint64_t timeout_usec, const char *what, RktResult *ret, Error *error);
/* Turns rkt's words into an error: gRPC code and sentence. Returns the negative errno for it. */
int rkt_error(const RktResult *r, const char *what, Error *error);
/* What rkt said, in one line, without the warnings that mean nothing; owned by the caller. */
char *rkt_words(const char *text);
