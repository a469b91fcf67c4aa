#pragma once
/* What a checker of files on disk finds, one line of text for each thing: what is damaged, what is lost with it, what was
 * done, or would be. The checkers themselves lie beside what they check. */

#include "basic/error.h"
#include "basic/macro.h"

typedef struct Check {
        bool repair;
        bool in_use; /* a daemon is at work: what may be its work under way is passed over. Never with repair. */
        FILE *out;
        unsigned n_looked;   /* objects: pods, containers, layers, images, … */
        unsigned n_found;    /* findings */
        unsigned n_repaired; /* of these, mended */
} Check;

/* Reports one finding. why: what is wrong, half a sentence; lost: what is gone with it ("nothing"); done: what mends it,
 * a past participle and so on ("removed"), NULL where nothing does. r: how the mending went, if it was tried: 0, or a negative errno. */
void check_found(Check *c, const char *path, const char *why, const char *lost, const char *done, int r);
/* Something worth a line that is no damage. */
void check_note(Check *c, const char *path, const char *text);

/* The exit status, as fsck(8) has it. */
#define CHECK_CLEAN 0
#define CHECK_REPAIRED 1
#define CHECK_DAMAGED 4
#define CHECK_FAILED 8
int check_exit_status(const Check *c);

/* A name that write_file_atomic() leaves when it is killed: ".NAME.16 hexadecimal digits". */
bool check_is_temporary(const char *name);
/* Looks for these in a directory; removes them when repairing. Not while the directory is in use. */
int check_temporaries(Check *c, const char *directory);
