#include "basic/check.h"

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/string-util.h"

void check_found(Check *c, const char *path, const char *why, const char *lost, const char *done, int r) {
        c->n_found++;
        fprintf(c->out, "%s: %s. Lost: %s. ", path, why, lost);
        if (!done)
                fprintf(c->out, "It cannot be repaired.\n");
        else if (!c->repair)
                fprintf(c->out, "With --repair: %s.\n", done);
        else if (r < 0)
                fprintf(c->out, "Not repaired: %s.\n", strerror(-r));
        else {
                c->n_repaired++;
                fprintf(c->out, "Repaired: %s.\n", done);
        }
}

void check_note(Check *c, const char *path, const char *text) {
        fprintf(c->out, "%s: %s.\n", path, text);
}

int check_exit_status(const Check *c) {
        if (c->n_found == 0)
                return CHECK_CLEAN;
        return c->n_repaired == c->n_found ? CHECK_REPAIRED : CHECK_DAMAGED;
}

bool check_is_temporary(const char *name) {
        const char *dot = strrchr(name, '.');

        return name[0] == '.' && dot > name + 1 && strlen(dot + 1) == 16 && is_hex(dot + 1);
}

typedef struct Temporaries {
        Check *check;
        const char *directory;
} Temporaries;

static int look_at_temporary(int dir_fd, const char *name, void *userdata) {
        Temporaries *t = userdata;
        _cleanup_free_ char *path = NULL;

        if (!check_is_temporary(name))
                return 0;
        path = strprintf("%s/%s", t->directory, name);
        if (!path)
                return -ENOMEM;
        check_found(t->check, path, "it was being written when rktlet was killed", "nothing: the file before it is there",
                    "removed", t->check->repair ? remove_tree(dir_fd, name) : 0);
        return 0;
}

int check_temporaries(Check *c, const char *directory) {
        Temporaries t = { .check = c, .directory = directory };
        int r;

        if (c->in_use)
                return 0;
        r = directory_foreach(AT_FDCWD, directory, look_at_temporary, &t);
        return r == -ENOMEM ? r : 0;
}
