/* The user of a container's process. Published flaws of peers that are held off here: a passwd file that is huge, a
 * device, a FIFO or a link out of the image (CVE-2026-47262); numbers that wrap (CVE-2024-40635); a user named like a
 * number (CVE-2026-30892); line breaks that travel into the environment (CVE-2022-4318). */

#include "engine/native/oci-user.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/string-util.h"

void oci_user_done(OciUser *u) {
        free(u->groups);
        free(u->home);
        *u = (OciUser) {};
}

/* Reads a regular file of the image; a missing one is "". */
static int read_image_file(int rootfs_fd, const char *path, char **ret, Error *error) {
        _cleanup_close_ int path_fd = -1, fd = -1;
        char proc[64];
        struct stat st;
        int r;

        /* Looked at before it is opened: opening a device or a FIFO can have effects, and can wait. */
        path_fd = open_in_root(rootfs_fd, path, O_PATH, 0);
        if (path_fd == -ENOENT || path_fd == -ENOTDIR) {
                *ret = strdup("");
                return *ret ? 0 : error_oom(error);
        }
        if (path_fd < 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "%s of the image can't be opened: %s", path,
                                  strerror(-path_fd));
        if (fstat(path_fd, &st) < 0)
                return error_set(error, -errno, "cannot look at %s of the image", path);
        if (!S_ISREG(st.st_mode))
                return error_setf(error, GRPC_FAILED_PRECONDITION, "%s of the image is no regular file", path);
        (void) snprintf(proc, sizeof proc, "/proc/self/fd/%d", path_fd);
        fd = open(proc, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
                return error_set(error, -errno, "cannot open %s of the image", path);
        r = read_fd(fd, OCI_USER_FILE_MAX, ret, NULL);
        if (r == -E2BIG)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "%s of the image is larger than %u bytes", path,
                                  OCI_USER_FILE_MAX);
        if (r < 0)
                return error_set(error, r, "cannot read %s of the image", path);
        return 0;
}

/* Takes the line apart at its colons, in place; returns the number of fields, at most n. */
static size_t split_line(char *line, char **fields, size_t n) {
        size_t i = 0;

        while (i < n) {
                fields[i++] = line;
                line = strchr(line, ':');
                if (!line)
                        break;
                *line++ = 0;
        }
        return i;
}

static char *next_line(char **text) {
        char *line = *text, *end;

        if (!line || !*line)
                return NULL;
        end = strchr(line, '\n');
        if (end)
                *end++ = 0;
        *text = end;
        return line;
}

static int parse_id(const char *s, uint32_t *ret) {
        uint64_t v;
        int r;

        r = parse_u64(s, &v);
        if (r < 0)
                return r;
        if (v > OCI_USER_ID_MAX)
                return -ERANGE;
        *ret = (uint32_t) v;
        return 0;
}

static bool is_number(const char *s) {
        return s[0] && strspn(s, "0123456789") == strlen(s);
}

static bool has_control(const char *s) {
        for (; *s; s++)
                if ((unsigned char) *s < ' ' || *s == 0x7f)
                        return true;
        return false;
}

typedef struct PasswdEntry {
        char *name, *home; /* point into the text */
        uint32_t uid, gid;
} PasswdEntry;

/* By name, or by number when name is NULL. Lines that are none are passed over. Changes the text. */
static bool passwd_find(char *text, const char *name, uint32_t uid, PasswdEntry *ret) {
        char *line, *fields[7];

        while ((line = next_line(&text))) {
                PasswdEntry e;

                if (split_line(line, fields, ELEMENTSOF(fields)) < 6)
                        continue;
                if (name && !streq(fields[0], name))
                        continue;
                if (parse_id(fields[2], &e.uid) < 0 || parse_id(fields[3], &e.gid) < 0)
                        continue;
                if (!name && e.uid != uid)
                        continue;
                e.name = fields[0];
                e.home = fields[5];
                *ret = e;
                return true;
        }
        return false;
}

static bool group_find(char *text, const char *name, uint32_t *ret) {
        char *line, *fields[4];

        while ((line = next_line(&text)))
                if (split_line(line, fields, ELEMENTSOF(fields)) >= 3 && streq(fields[0], name) &&
                    parse_id(fields[2], ret) >= 0)
                        return true;
        return false;
}

static int groups_add(OciUser *u, uint32_t gid, Error *error) {
        uint32_t *p;

        for (size_t i = 0; i < u->n_groups; i++)
                if (u->groups[i] == gid)
                        return 0;
        if (u->n_groups >= OCI_USER_GROUPS_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "more than %u groups", OCI_USER_GROUPS_MAX);
        /* Grows by the next power of two. */
        if ((u->n_groups & (u->n_groups - 1)) == 0) {
                p = reallocarray(u->groups, MAX(u->n_groups * 2, (size_t) 4), sizeof(uint32_t));
                if (!p)
                        return error_oom(error);
                u->groups = p;
        }
        u->groups[u->n_groups++] = gid;
        return 0;
}

static bool member_of(char *members, const char *name) {
        for (char *m = members, *comma; m; m = comma) {
                comma = strchr(m, ',');
                if (comma)
                        *comma++ = 0;
                if (streq(m, name))
                        return true;
        }
        return false;
}

/* All groups of which the image says that the user is a member. */
static int groups_add_of_image(OciUser *u, char *text, const char *name, Error *error) {
        char *line, *fields[4];
        uint32_t gid;
        int r;

        while ((line = next_line(&text))) {
                if (split_line(line, fields, ELEMENTSOF(fields)) < 4 || !member_of(fields[3], name) ||
                    parse_id(fields[2], &gid) < 0)
                        continue;
                r = groups_add(u, gid, error);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* What was asked for: a user (name or number), perhaps a group. */
typedef struct Wanted {
        char *user, *group; /* NULL: not given; owned */
        bool from_image;
} Wanted;

static void wanted_done(Wanted *w) {
        free(w->user);
        free(w->group);
}

static int check_id(int64_t id, const char *what, Error *error) {
        if (id < 0 || id > OCI_USER_ID_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "%s %lld is not between 0 and %lld", what,
                                  (long long)id, (long long)OCI_USER_ID_MAX);
        return 0;
}

static int wanted_from_context(const runtime_v1_LinuxContainerSecurityContext *c, Wanted *w, Error *error) {
        int r;

        if (c->has_run_as_user && !isempty(c->run_as_username))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "run_as_user and run_as_username are both set");
        if (c->has_run_as_group && !c->has_run_as_user && isempty(c->run_as_username))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "run_as_group is set without a user");
        if (c->has_run_as_user) {
                r = check_id(c->run_as_user.value, "run_as_user", error);
                if (r < 0)
                        return r;
                w->user = strprintf("%lld", (long long) c->run_as_user.value);
                if (!w->user)
                        return error_oom(error);
        } else if (!isempty(c->run_as_username)) {
                w->user = strdup(c->run_as_username);
                if (!w->user)
                        return error_oom(error);
        }
        if (c->has_run_as_group) {
                r = check_id(c->run_as_group.value, "run_as_group", error);
                if (r < 0)
                        return r;
                w->group = strprintf("%lld", (long long) c->run_as_group.value);
                if (!w->group)
                        return error_oom(error);
        }
        return 0;
}

/* "user", "user:group", each a name or a number. */
static int wanted_from_image(const char *user, Wanted *w, Error *error) {
        const char *colon = strchr(user, ':');

        w->from_image = true;
        w->user = colon == user ? strdup("0") : strndup(user, colon ? (size_t) (colon - user) : strlen(user));
        if (!w->user)
                return error_oom(error);
        if (colon && colon[1]) {
                w->group = strdup(colon + 1);
                if (!w->group)
                        return error_oom(error);
        }
        return 0;
}

static int unknown(const Wanted *w, const char *what, const char *name, Error *error) {
        _cleanup_free_ char *text = utf8_sanitize(name);

        return error_setf(error, w->from_image ? GRPC_FAILED_PRECONDITION : GRPC_INVALID_ARGUMENT,
                          "the image has no %s '%.64s'%s", what, strempty(text),
                          is_number(name) ? ", and it is no valid number" : "");
}

/* The user's entry, if the image has one. Numbers are numbers, even where a user is called like one. */
static int resolve_user(const Wanted *w, char *passwd, OciUser *u, PasswdEntry *ret, bool *ret_found, Error *error) {
        bool found, number = is_number(w->user);
        PasswdEntry e = {};

        if (number && parse_id(w->user, &u->uid) < 0)
                return unknown(w, "user", w->user, error);
        found = passwd_find(passwd, number ? NULL : w->user, u->uid, &e);
        if (!found && !number)
                return unknown(w, "user", w->user, error);
        if (found) {
                u->uid = e.uid;
                u->gid = e.gid;
        }
        *ret = e;
        *ret_found = found;
        return 0;
}

static int resolve_group(const Wanted *w, const char *group_file, OciUser *u, Error *error) {
        _cleanup_free_ char *copy = NULL;

        if (!w->group)
                return 0;
        if (is_number(w->group))
                return parse_id(w->group, &u->gid) < 0 ? unknown(w, "group", w->group, error) : 0;
        copy = strdup(group_file);
        if (!copy)
                return error_oom(error);
        return group_find(copy, w->group, &u->gid) ? 0 : unknown(w, "group", w->group, error);
}

int oci_user_resolve(int rootfs_fd, const runtime_v1_LinuxContainerSecurityContext *context, const char *image_user,
                     OciUser *ret, Error *error) {
        _cleanup_free_ char *passwd = NULL, *group = NULL;
        _cleanup_(oci_user_done) OciUser u = {};
        _cleanup_(wanted_done) Wanted w = {};
        PasswdEntry e = {};
        bool found = false, strict = false;
        int r;

        if (context) {
                if (context->supplemental_groups_policy != runtime_v1_SupplementalGroupsPolicy_Merge &&
                    context->supplemental_groups_policy != runtime_v1_SupplementalGroupsPolicy_Strict)
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "supplemental_groups_policy %d is unknown",
                                          (int) context->supplemental_groups_policy);
                strict = context->supplemental_groups_policy == runtime_v1_SupplementalGroupsPolicy_Strict;
                r = wanted_from_context(context, &w, error);
                if (r < 0)
                        return r;
        }
        if (!w.user) {
                r = wanted_from_image(isempty(image_user) ? "0" : image_user, &w, error);
                if (r < 0)
                        return r;
        }

        r = read_image_file(rootfs_fd, "/etc/passwd", &passwd, error);
        if (r < 0)
                return r;
        r = read_image_file(rootfs_fd, "/etc/group", &group, error);
        if (r < 0)
                return r;
        r = resolve_user(&w, passwd, &u, &e, &found, error);
        if (r < 0)
                return r;
        r = resolve_group(&w, group, &u, error);
        if (r < 0)
                return r;

        r = groups_add(&u, u.gid, error);
        if (r < 0)
                return r;
        for (size_t i = 0; context && i < context->supplemental_groups_count; i++) {
                r = check_id(context->supplemental_groups[i], "the supplemental group", error);
                if (r < 0)
                        return r;
                r = groups_add(&u, (uint32_t) context->supplemental_groups[i], error);
                if (r < 0)
                        return r;
        }
        if (found && !strict) {
                r = groups_add_of_image(&u, group, e.name, error);
                if (r < 0)
                        return r;
        }

        u.home = strdup(found && e.home[0] == '/' && !has_control(e.home) && utf8_is_valid(e.home, strlen(e.home))
                                ? e.home
                                : "/");
        if (!u.home)
                return error_oom(error);
        *ret = u;
        u = (OciUser) {};
        return 0;
}
