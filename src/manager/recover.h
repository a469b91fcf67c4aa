#pragma once
/* Pods and containers as they are on disk, also where files of them are damaged or missing: what can be made again from
 * the rest is. Reading writes nothing; used by a daemon's start and by the checker. */

#include "manager/manager.h"

/* What is wrong with an object's files. */
typedef enum StateFlaws {
        FLAW_STATE = 1 << 0,     /* state.json cannot be used: made again from the request */
        FLAW_REQUEST = 1 << 1,   /* request.pb cannot be used: made again from a container's (of a pod alone) */
        FLAW_CHANGED = 1 << 2,   /* request.pb can be read, but isn't what was written */
        FLAW_RESOURCES = 1 << 3, /* resources.pb cannot be used */
        FLAW_HALF_MADE = 1 << 4, /* a crash in its first moment: nothing had been begun */
        FLAW_LOST = 1 << 5,      /* nothing can be made of it */
} StateFlaws;

typedef enum StateKind {
        STATE_POD,
        STATE_CONTAINER,
} StateKind;

/* Reads into an object fresh from pod_new() or container_new(), which is not in any table yet. With FLAW_HALF_MADE and
 * FLAW_LOST alone nothing was read. why says what is wrong, and is not set when nothing is. Only -ENOMEM is returned.
 * Containers want their pods to be in the manager's table. */
int pod_read(Pod *p, StateFlaws *ret, Error *why);
int container_read(Container *c, StateFlaws *ret, Error *why);

/* Writes again what the flaws say is damaged, but for what is lost. */
int pod_mend(Pod *p, StateFlaws flaws, Error *error);
int container_mend(Container *c, StateFlaws flaws, Error *error);

/* What one flaw (a single bit) means: the file, what is lost with it, and what is done about it. */
typedef struct FlawText {
        const char *file; /* "" for the whole directory */
        const char *lost, *done;
} FlawText;
const FlawText *flaw_text(StateKind kind, StateFlaws flaw);
#define FOREACH_FLAW(flaw, flaws)                                                                                      \
        for (StateFlaws flaw = FLAW_STATE; flaw <= FLAW_LOST; flaw = (StateFlaws) ((unsigned) flaw << 1))              \
                if ((flaws) & flaw)

/* Moves a lost object's directory to damaged/KIND-ID of the state directory, for somebody to look at; removes it when
 * there are DAMAGED_MAX already. 1: it was kept, 0: removed. */
#define DAMAGED_MAX 16U
int state_set_aside(const Manager *m, StateKind kind, const char *id);
