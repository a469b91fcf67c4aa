/* Where the figures of pods and containers come from: their cgroups, known without asking systemd, and writable
 * layers. */

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/process.h"
#include "engine/native/internal.h"
#include "engine/native/resources.h"

#define SMALL_LAYER_ENTRIES 256 /* counted in place, which takes less than starting a child */
#define SPEC_MAX (8U * 1024U * 1024U) /* an answer has room for 16 MiB */
#define USAGE_TIMEOUT_USEC (10 * 60 * USEC_PER_SEC)

int slice_path(const char *slice, char **ret) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        int r = 0;

        for (const char *dash = strchr(slice, '-'); dash && r >= 0; dash = strchr(dash + 1, '-'))
                r = buffer_appendf(&b, "/%.*s.slice", (int) (dash - slice), slice);
        if (r >= 0)
                r = buffer_appendf(&b, "/%s", slice);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(b.data);
        return 0;
}

int native_pod_cgroup(Engine *engine, const EnginePod *pod, char **ret) {
        const NativePod *p = native_pod_find(native_engine(engine), pod->id);
        const char *slash;

        if (!p || !p->state.running)
                return -ENOENT;
        slash = p->control_group ? strrchr(p->control_group, '/') : NULL;
        /* A unit that was started a moment ago is not described yet. */
        if (!slash || slash == p->control_group)
                return slice_path(pod->slice, ret);
        *ret = strndup(p->control_group, (size_t) (slash - p->control_group));
        return *ret ? 0 : -ENOMEM;
}

const char *native_container_cgroup(Engine *engine, const char *id) {
        const NativeContainer *n = native_container_find(native_engine(engine), id);

        return n && n->watch && !n->exiting ? n->control_group : NULL;
}

bool native_container_read_limits(Engine *engine, const char *id, runtime_v1_LinuxContainerResources *resources) {
        return resources_read_back(native_container_cgroup(engine, id), resources);
}

int native_container_spec(Engine *engine, const EngineContainer *c, char **ret) {
        _cleanup_free_ char *path = strprintf("%s/config.json", c->run_directory);

        return path ? read_file(AT_FDCWD, path, SPEC_MAX, ret, NULL) : -ENOMEM;
}

int usage_by_child(const char *program, const char *path, TreeUsage *ret, Error *error) {
        const char *const argv[] = { program, "--usage", path, NULL };
        _cleanup_(process_result_done) ProcessResult result = {};
        unsigned long long bytes, inodes;
        int r;

        r = process_run(&(ProcessOptions) {
                                .argv = argv,
                                .output_max = 128,
                                .error_max = 1024,
                                .timeout_usec = USAGE_TIMEOUT_USEC,
                        },
                        &result, error);
        if (r < 0)
                return r;
        if (result.code != CLD_EXITED || result.status != 0 ||
            sscanf(strempty(result.output), "%llu %llu", &bytes, &inodes) != 2) {
                _cleanup_free_ char *why = utf8_sanitize(strempty(result.error));

                return error_setf(error, GRPC_INTERNAL, "cannot measure %s: %s %s", path,
                                  process_result_describe(&result), strempty(why));
        }
        *ret = (TreeUsage) { bytes, inodes };
        return 0;
}

int native_container_layer_usage(Engine *engine, const EngineContainer *c, TreeUsage *ret, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/upper", c->directory);
        int r;

        if (!path)
                return error_oom(error);
        r = tree_usage(AT_FDCWD, path, SMALL_LAYER_ENTRIES, ret);
        if (r == -E2BIG)
                return usage_by_child(native_engine(engine)->create_path, path, ret, error);
        return r < 0 ? error_set(error, r, "cannot measure %s", path) : 0;
}
