#pragma once
/* The version of a directory's layout, in a file version.json in it: which rktlet may read and write what is there. */

#include "basic/error.h"
#include "basic/macro.h"

#define LAYOUT_FILE "version.json"

typedef struct Layout {
        unsigned version; /* what this program reads and writes, 1 or more */
        /* The step from version `from` to the next, NULL where it takes none. Has to be repeatable: a crash in the
         * middle is answered by doing it again. May be NULL altogether. */
        int (*upgrade)(int dir_fd, unsigned from, void *userdata, Error *error);
        void *userdata;
} Layout;

/* 1 with *ret_version; 0 when there is no such file (a new directory, or one of a program from before it: version 0);
 * -EBADMSG when it is damaged. */
int layout_read(int dir_fd, unsigned *ret_version, Error *error);
/* Brings the directory up to date and notes the version. -EPROTONOSUPPORT (FailedPrecondition) when it is of a later
 * one: nothing has been touched then. A damaged file is written again: each file below says its own version too. When it cannot be written
 * (a full disk) that is no error: the next start tries again. shown is what the directory is called in errors. */
int layout_open(int dir_fd, const char *shown, const Layout *l, Error *error);

/* Makes a directory of ours, with those above it. What is in its place but no directory moves aside, to
 * NAME.damaged-NUMBER: 1 then, and 0 otherwise. */
int layout_make_directory(int dir_fd, const char *path, mode_t mode);
/* Removes what stands where a file of ours belongs and is none: a directory, a FIFO, … A rename doesn't replace them. */
int layout_clear_file(int dir_fd, const char *path);
