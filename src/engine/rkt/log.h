#pragma once
/* From rkt's log to the kubelet's. rkt's multiplexer writes "TIME STREAM TEXT" lines, without a tag and without splitting,
 * into a file that it keeps open; here they become lines of a CRI log, each exactly once, whenever the daemon is killed.
 * What was converted is given back to the file system. No fibers: whoever watches the source calls
 * rkt_log_pump(). */

#include "basic/error.h"
#include "basic/macro.h"

#define RKT_LOG_HEADER_MAX 64U /* bytes of "TIME STREAM" */

typedef struct RktLog RktLog;

/* source: rkt's file, may be missing yet. target: the kubelet's, made if need be; NULL: what rkt writes is only dropped.
 * record: a small file of ours that says how far it is, made if need be. line_max: bytes of text in one line. */
int rkt_log_new(const char *source, const char *target, const char *record, size_t line_max, RktLog **ret, Error *error);
RktLog *rkt_log_free(RktLog *l);
DEFINE_TRIVIAL_CLEANUP_FUNC(RktLog *, rkt_log_free);

/* Converts what there is, at most about a MiB. 1: there is more; 0: that was all; negative: the target can't be written
 * now, nothing is lost, call again. */
int rkt_log_pump(RktLog *l);
/* Until all is converted. */
int rkt_log_drain(RktLog *l);
/* Goes on in a new file of the same name, once the old one has all that is there. */
int rkt_log_reopen(RktLog *l, Error *error);

/* The conversion alone, for its test: takes as much of data as it can, appends to out. header is the state between calls:
 * not empty inside of a line that has begun to be split. *ret_used is how much of data was taken. */
struct Buffer;
int rkt_log_convert(const char *data, size_t size, size_t line_max, char header[static RKT_LOG_HEADER_MAX],
                    struct Buffer *out, size_t *ret_used);
