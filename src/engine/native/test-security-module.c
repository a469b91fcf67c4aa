#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/test.h"
#include "engine/native/security-module.h"

typedef runtime_v1_LinuxContainerSecurityContext Context;

static char sys_path[] = "/tmp/test-security-module-XXXXXX";

static void put(const char *name, const char *text) {
        char path[128];

        CHECK(snprintf(path, sizeof path, "%s/%s", sys_path, name) > 0);
        *strrchr(path, '/') = 0;
        CHECK_EQ(mkdir_parents(AT_FDCWD, path, 0755), 0);
        path[strlen(path)] = '/';
        CHECK_EQ(write_file_atomic(AT_FDCWD, path, text, strlen(text), 0644, 0), 0);
}

static void with_modules(void) {
        CHECK_EQ(remove_tree(AT_FDCWD, sys_path), 0);
        put("module/apparmor/parameters/enabled", "Y\n");
        put("kernel/security/apparmor/profiles", "docker-default (enforce)\nmine (complain)\nmine-too (enforce)\n");
        put("fs/selinux/enforce", "1");
}

static void without_modules(void) {
        CHECK_EQ(remove_tree(AT_FDCWD, sys_path), 0);
}

/* What comes out, "PROFILE LABEL FILE-LABEL"; or the error's words. */
static void check(const Context *c, const char *want) {
        _cleanup_json_ json_t *process = json_object(), *part = json_object();
        _cleanup_error_ Error error = ERROR_INIT;
        char got[512];
        int r;

        r = security_modules_add(c, sys_path, process, part, &error);
        (void) snprintf(got, sizeof got, "%s %s %s", json_get_string(process, "apparmorProfile") ?: "-",
                        json_get_string(process, "selinuxLabel") ?: "-", json_get_string(part, "mountLabel") ?: "-");
        if (r < 0 ? !strstr(error.message, want) : !streq(got, want)) {
                fprintf(stderr, "%s, not %s\n", r < 0 ? error.message : got, want);
                CHECK(false);
        }
        if (r < 0)
                CHECK(error.code == GRPC_INVALID_ARGUMENT || error.code == GRPC_FAILED_PRECONDITION);
}

static Context apparmor(runtime_v1_SecurityProfile_ProfileType type, const char *name) {
        return (Context) { .has_apparmor = true, .apparmor = { .profile_type = type, .localhost_ref = (char *) name } };
}

static Context old(const char *profile) {
        return (Context) { .apparmor_profile = (char *) profile };
}

static void test_apparmor(void) {
        const runtime_v1_SecurityProfile_ProfileType def = runtime_v1_SecurityProfile_ProfileType_RuntimeDefault,
                                                     none = runtime_v1_SecurityProfile_ProfileType_Unconfined,
                                                     local = runtime_v1_SecurityProfile_ProfileType_Localhost;
        Context c;

        without_modules();
        check(NULL, "- - -");
        c = apparmor(def, NULL), check(&c, "- - -");
        c = apparmor(none, NULL), check(&c, "- - -");
        c = apparmor(local, "mine"), check(&c, "has no AppArmor");
        c = old("localhost/mine"), check(&c, "has no AppArmor");
        c = old("runtime/default"), check(&c, "- - -");

        with_modules();
        check(NULL, "- - -"); /* the default isn't loaded */
        c = apparmor(def, NULL), check(&c, "'rktlet-default' is not loaded");
        c = apparmor(none, NULL), check(&c, "unconfined - -");
        c = apparmor(local, "mine"), check(&c, "mine - -");
        c = apparmor(local, "localhost/mine-too"), check(&c, "mine-too - -");
        c = apparmor(local, "min"), check(&c, "'min' is not loaded");
        c = apparmor(local, "mine (complain)"), check(&c, "blank");
        c = apparmor(local, ""), check(&c, "no valid name");
        c = apparmor(local, NULL), check(&c, "no valid name");
        c = apparmor(77, NULL), check(&c, "77");
        c = old("localhost/mine"), check(&c, "mine - -");
        c = old("unconfined"), check(&c, "unconfined - -");
        c = old("mine"), check(&c, "'mine' is none of");

        put("kernel/security/apparmor/profiles", "rktlet-default (enforce)\n");
        check(NULL, "rktlet-default - -");
        c = apparmor(def, NULL), check(&c, "rktlet-default - -");
        c = (Context) { .privileged = true }, check(&c, "- - -");
}

static void test_selinux(void) {
        Context c = { .has_selinux_options = true };

        without_modules();
        check(&c, "- - -");
        c.selinux_options.level = (char *) "s0:c1,c2";
        check(&c, "has no SELinux");
        with_modules();
        check(&c, "- system_u:system_r:container_t:s0:c1,c2 system_u:object_r:container_file_t:s0:c1,c2");
        c.selinux_options = (runtime_v1_SELinuxOption) { .user = (char *) "u", .role = (char *) "r", .type = (char *) "t",
                                                         .level = (char *) "s1" };
        check(&c, "- u:r:t:s1 system_u:object_r:container_file_t:s1");
        c.selinux_options.type = (char *) "t:x";
        check(&c, "no SELinux type");
        c.selinux_options.type = (char *) "t\nx";
        check(&c, "no SELinux type");
        without_modules();
}

int main(void) {
        static const TestCase cases[] = {
                TEST_CASE(test_apparmor),
                TEST_CASE(test_selinux),
        };

        CHECK(mkdtemp(sys_path));
        return test_main(cases, ELEMENTSOF(cases));
}
