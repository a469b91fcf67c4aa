#pragma once
/* rktlet --check and --repair. */

#include "config.h"

/* Prints what it finds on standard output and returns the exit status, as fsck(8) has it: 0 nothing is damaged, 1 all that
 * was damaged has been repaired, 4 something is damaged, 8 the check failed. */
int checker_run(const Config *config, bool repair);
