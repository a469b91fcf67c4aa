/* What an OCI runtime can: it says so itself (`features`, of the OCI runtime specification), or older ones in the lines
 * of their version. */

#include <linux/mount.h>
#include <sys/mount.h>

#include "basic/json-util.h"
#include "basic/log.h"
#include "basic/process.h"
#include "basic/string-util.h"
#include "engine/native/runtime.h"

#define OUTPUT_MAX (1024U * 1024U)
#define ASK_TIMEOUT_USEC (20 * USEC_PER_SEC)
#define CRUN_RRO_MAJOR 1 /* crun 1.4 was the first to know "rro" */
#define CRUN_RRO_MINOR 4

static bool has_string(const json_t *array, const char *s) {
        const json_t *j;
        size_t i;

        json_array_foreach(array, i, j)
                if (streq_ptr(json_string_value(j), s))
                        return true;
        return false;
}

static RuntimeFeatures features_from_json(const json_t *o) {
        const json_t *l = json_get_object(o, "linux"),
                     *idmap = json_get_object(json_get_object(l, "mountExtensions"), "idmap"),
                     *annotations = json_get_object(o, "annotations");

        return (RuntimeFeatures) {
                .recursive_read_only = has_string(json_get_array(o, "mountOptions"), "rro"),
                .user_namespaces = has_string(json_get_array(l, "namespaces"), "user"),
                .id_mapped_mounts = json_is_true(json_object_get(idmap, "enabled")),
                .checkpoint = streq_ptr(json_get_string(annotations, "org.opencontainers.runc.checkpoint.enabled"),
                                        "true") ||
                              streq_ptr(json_get_string(annotations, "run.oci.checkpoint.enabled"), "true"),
        };
}

/* "crun version 1.8.1", and a line of what it was built with: "+SYSTEMD +CRIU …". */
static RuntimeFeatures features_from_version(const char *text) {
        unsigned major = 0, minor = 0;

        if (sscanf(text, "crun version %u.%u", &major, &minor) != 2)
                return (RuntimeFeatures) {};
        return (RuntimeFeatures) {
                .recursive_read_only = major > CRUN_RRO_MAJOR || (major == CRUN_RRO_MAJOR && minor >= CRUN_RRO_MINOR),
                .user_namespaces = true,
                .id_mapped_mounts = major > CRUN_RRO_MAJOR || (major == CRUN_RRO_MAJOR && minor >= CRUN_RRO_MINOR),
                .checkpoint = strstr(text, "+CRIU") != NULL,
        };
}

static int ask(const Runtime *r, const char *what, char **ret, Error *error) {
        const char *const argv[] = { r->path, what, NULL };
        _cleanup_(process_result_done) ProcessResult result = {};
        int k;

        k = process_run(&(ProcessOptions) {
                                .argv = argv,
                                .output_max = OUTPUT_MAX,
                                .kill_on_overflow = true,
                                .timeout_usec = ASK_TIMEOUT_USEC,
                        },
                        &result, error);
        if (k < 0)
                return k;
        *ret = result.code == CLD_EXITED && result.status == 0 ? TAKE_PTR(result.output) : NULL;
        return 0;
}

/* What the runtime asks the kernel for must be there too. */
static void limit_to_kernel(RuntimeFeatures *f) {
        struct mount_attr attr = {};

        if (mount_setattr(-1, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0 && errno == ENOSYS)
                f->recursive_read_only = f->id_mapped_mounts = false;
        if (access("/proc/self/ns/user", F_OK) < 0)
                f->user_namespaces = false;
}

int runtime_features(Runtime *r, RuntimeFeatures *ret, Error *error) {
        _cleanup_free_ char *text = NULL;
        _cleanup_json_ json_t *o = NULL;
        RuntimeFeatures f = {};
        struct stat st;
        int k;

        if (stat(r->path, &st) < 0)
                return error_set(error, -errno, "cannot execute %s", r->path);
        if (r->features_seen.st_ino == st.st_ino && r->features_seen.st_mtim.tv_sec == st.st_mtim.tv_sec &&
            r->features_seen.st_mtim.tv_nsec == st.st_mtim.tv_nsec) {
                *ret = r->features;
                return 0;
        }
        k = ask(r, "features", &text, error);
        if (k < 0)
                return k;
        if (text && json_parse(text, strlen(text), &o, NULL) >= 0)
                f = features_from_json(o);
        else {
                free(text);
                text = NULL;
                k = ask(r, "--version", &text, error);
                if (k < 0)
                        return k;
                if (text)
                        f = features_from_version(text);
        }
        limit_to_kernel(&f);
        r->features = f;
        r->features_seen = st;
        *ret = f;
        return 0;
}
