/* AppArmor and SELinux. What is asked for and can't be had is refused: a pod that counts on it must not run without. */

#include "engine/native/security-module.h"

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/string-util.h"

#define PROFILES_MAX (4U * 1024U * 1024U) /* bytes of the list of loaded profiles */
#define LABEL_PART_MAX 255U

/* 1: there, 0: not. */
static int has_module(const char *sys, const char *file, const char *begins) {
        _cleanup_free_ char *path = strprintf("%s/%s", sys, file), *text = NULL;
        int r;

        if (!path)
                return -ENOMEM;
        r = read_file(AT_FDCWD, path, 64, &text, NULL);
        if (r < 0)
                return r == -ENOMEM ? r : 0;
        return startswith(text, begins) != NULL;
}

/* --- AppArmor ---------------------------------------------------------------------------------------------------- */

/* Lines of "NAME (MODE)". */
static int is_loaded(const char *sys, const char *profile) {
        _cleanup_free_ char *path = strprintf("%s/kernel/security/apparmor/profiles", sys), *text = NULL;
        size_t n = strlen(profile);
        int r;

        if (!path)
                return -ENOMEM;
        r = read_file(AT_FDCWD, path, PROFILES_MAX, &text, NULL);
        if (r < 0)
                return r;
        for (const char *line = text; *line;) {
                if (strncmp(line, profile, n) == 0 && startswith(line + n, " ("))
                        return 1;
                line += strcspn(line, "\n");
                line += *line == '\n';
        }
        return 0;
}

typedef struct Wanted {
        runtime_v1_SecurityProfile_ProfileType type;
        const char *name; /* Localhost */
        bool given;
} Wanted;

/* The older field has it as text: "", "runtime/default", "unconfined", "localhost/NAME". */
static int wanted_profile(const runtime_v1_LinuxContainerSecurityContext *c, Wanted *ret, Error *error) {
        const char *text = strempty(c->apparmor_profile), *name;

        *ret = (Wanted) { .type = runtime_v1_SecurityProfile_ProfileType_RuntimeDefault };
        if (c->has_apparmor) {
                ret->given = true;
                ret->type = c->apparmor.profile_type;
                name = strempty(c->apparmor.localhost_ref);
                ret->name = startswith(name, "localhost/") ?: name;
                if (ret->type != runtime_v1_SecurityProfile_ProfileType_RuntimeDefault &&
                    ret->type != runtime_v1_SecurityProfile_ProfileType_Unconfined &&
                    ret->type != runtime_v1_SecurityProfile_ProfileType_Localhost)
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "AppArmor profile type %d is unknown",
                                          (int) ret->type);
        } else if (streq(text, "unconfined")) {
                ret->given = true;
                ret->type = runtime_v1_SecurityProfile_ProfileType_Unconfined;
        } else if ((name = startswith(text, "localhost/"))) {
                ret->given = true;
                ret->type = runtime_v1_SecurityProfile_ProfileType_Localhost;
                ret->name = name;
        } else if (streq(text, "runtime/default"))
                ret->given = true;
        else if (!isempty(text))
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "AppArmor profile '%.64s' is none of runtime/default, unconfined and localhost/NAME",
                                  text);
        if (ret->type != runtime_v1_SecurityProfile_ProfileType_Localhost)
                return 0;
        for (const char *s = ret->name; *s; s++)
                if ((unsigned char) *s <= ' ' || *s == 0x7f)
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "the AppArmor profile's name has a blank or control character");
        if (isempty(ret->name) || strlen(ret->name) > 4096 || !utf8_is_valid(ret->name, strlen(ret->name)))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "the AppArmor profile has no valid name");
        return 0;
}

/* *ret: borrowed; NULL when there is nothing to set. */
static int apparmor_profile(const runtime_v1_LinuxContainerSecurityContext *c, const char *sys, const char **ret,
                            Error *error) {
        Wanted w;
        int r, here;

        r = wanted_profile(c, &w, error);
        if (r < 0)
                return r;
        here = has_module(sys, "module/apparmor/parameters/enabled", "Y");
        if (here < 0)
                return error_oom(error);
        *ret = NULL;
        if (!here) {
                if (w.type != runtime_v1_SecurityProfile_ProfileType_Localhost)
                        return 0;
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "AppArmor profile '%.64s' is asked for, but the kernel of this node has no AppArmor",
                                  w.name);
        }
        if (w.type == runtime_v1_SecurityProfile_ProfileType_Unconfined) {
                *ret = "unconfined";
                return 0;
        }
        if (w.type == runtime_v1_SecurityProfile_ProfileType_RuntimeDefault) {
                /* As with the peers, a privileged container is confined by what it asks for only. */
                if (!w.given && c->privileged)
                        return 0;
                w.name = APPARMOR_DEFAULT_PROFILE;
        }
        r = is_loaded(sys, w.name);
        if (r < 0)
                return error_set(error, r, "cannot read which AppArmor profiles are loaded");
        if (r == 0 && !w.given)
                return 0;
        if (r == 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "AppArmor profile '%.64s' is not loaded on this node: apparmor_parser(8) does that",
                                  w.name);
        *ret = w.name;
        return 0;
}

/* --- SELinux ----------------------------------------------------------------------------------------------------- */

static int check_part(const char *s, const char *what, Error *error) {
        if (strlen(strempty(s)) > LABEL_PART_MAX ||
            strspn(strempty(s), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-,:") != strlen(strempty(s)) ||
            (!streq(what, "level") && strpbrk(strempty(s), ":,")))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "'%.64s' is no SELinux %s", s, what);
        return 0;
}

/* 1: they are asked for and can be had; 0: not asked for. */
static int check_selinux(const runtime_v1_SELinuxOption *o, const char *sys, Error *error) {
        int r;

        if (isempty(o->user) && isempty(o->role) && isempty(o->type) && isempty(o->level))
                return 0;
        r = check_part(o->user, "user", error);
        if (r >= 0)
                r = check_part(o->role, "role", error);
        if (r >= 0)
                r = check_part(o->type, "type", error);
        if (r >= 0)
                r = check_part(o->level, "level", error);
        if (r < 0)
                return r;
        r = has_module(sys, "fs/selinux/enforce", "");
        if (r < 0)
                return error_oom(error);
        if (r == 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "SELinux options are asked for, but the kernel of this node has no SELinux");
        return 1;
}

static const char *or_default(const char *s, const char *otherwise) {
        return isempty(s) ? otherwise : s;
}

static int add_selinux(const runtime_v1_SELinuxOption *o, json_t *process, json_t *linux_part, Error *error) {
        const char *level = or_default(o->level, SELINUX_DEFAULT_LEVEL);
        _cleanup_free_ char *label = strprintf("%s:%s:%s:%s", or_default(o->user, SELINUX_DEFAULT_USER),
                                               or_default(o->role, SELINUX_DEFAULT_ROLE),
                                               or_default(o->type, SELINUX_DEFAULT_TYPE), level),
                            *file_label = strprintf(SELINUX_FILE_LABEL "%s", level);

        if (!label || !file_label || json_object_set_new(process, "selinuxLabel", json_string(label)) < 0 ||
            json_object_set_new(linux_part, "mountLabel", json_string(file_label)) < 0)
                return error_oom(error);
        return 0;
}

/* ----------------------------------------------------------------------------------------------------------------- */

int security_modules_add(const runtime_v1_LinuxContainerSecurityContext *context, const char *sys, json_t *process,
                         json_t *linux_part, Error *error) {
        static const runtime_v1_LinuxContainerSecurityContext nothing;
        const runtime_v1_LinuxContainerSecurityContext *c = context ?: &nothing;
        const char *profile = NULL;
        int r;

        r = apparmor_profile(c, sys, &profile, error);
        if (r < 0)
                return r;
        if (profile && json_object_set_new(process, "apparmorProfile", json_string(profile)) < 0)
                return error_oom(error);
        if (!c->has_selinux_options)
                return 0;
        r = check_selinux(&c->selinux_options, sys, error);
        return r > 0 ? add_selinux(&c->selinux_options, process, linux_part, error) : r;
}

int security_modules_check_pod(const runtime_v1_LinuxSandboxSecurityContext *context, const char *sys, Error *error) {
        int r;

        if (!context || !context->has_selinux_options)
                return 0;
        r = check_selinux(&context->selinux_options, sys, error);
        return r < 0 ? r : 0;
}
