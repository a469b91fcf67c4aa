#pragma once
/* Containers' lines to the journal, beside their log files: for people, who look there first. The log file is what
 * counts: a journal that doesn't keep up never makes a container wait, and after a kill of this process some lines
 * come twice. */

#include "pod/pod-log.h"

/* The socket of systemd-journald's native protocol; the text must stay. */
void journal_set_path(const char *path);
/* From now on this container's lines go there under this name; its first 63 bytes count. */
int journal_begin(uint32_t container, const char *name, Text *why);
static inline bool journal_wants(uint32_t index) {
        return pump.state->container[index / 2].journal;
}
/* One line, or a piece of one, of a stream; without a newline. */
void journal_line(uint32_t index, const char *p, size_t n, bool full);
