#pragma once
/* Named points at which a test kills the daemon, as a crash would. In an ordinary build they are nothing at all; with
 * -Dkill-points=true each one is in a list of the binary's (rktlet --list-kill-points), and passing one looks into the
 * directory that $RKTLET_KILL_POINTS names:
 *
 *   armed   lines "NAME N": the N-th passing of NAME from now on is the last thing this process does. "*" is any name.
 *           Only the first line counts; it is taken away before the process dies, the next one is for the next process.
 *   passed  if it is there, each passing adds a line "NAME DETAIL" to it
 *
 * Names are "what.step"; a point says what is done already, not what comes next. */

#include "basic/macro.h"

#if KILL_POINTS

typedef struct KillPoint {
        const char *name;
} KillPoint;

/* detail: which file, unit, program; may be NULL. Leaves errno as it is. */
#define KILL_POINT_OF(point, detail)                                                                                   \
        do {                                                                                                           \
                static KillPoint _kill_point __attribute__((__section__("kill_points"), __used__)) = { point };        \
                kill_point_pass(&_kill_point, (detail));                                                               \
        } while (false)
#define KILL_POINT(point) KILL_POINT_OF(point, NULL)

void kill_point_pass(const KillPoint *p, const char *detail);
/* From here on points count in this process. Without the variable, or the directory, nothing happens. */
void kill_points_begin(void);
/* One name a line. */
void kill_points_list(FILE *f);

#else

#define KILL_POINT_OF(point, detail)                                                                                   \
        do {                                                                                                           \
        } while (false)
#define KILL_POINT(point) KILL_POINT_OF(point, NULL)

static inline void kill_points_begin(void) {}

#endif
