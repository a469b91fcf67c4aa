/* CheckpointContainer: the OCI runtime has CRIU write down the processes, while the container is frozen its writable layer
 * is packed with that, and it goes on. The archive has the form of containerd's and CRI-O's, so that their tools read it.
 *
 * It is not restored here: CRIU gives processes back the credentials, capabilities and seccomp filters that its files say
 * they had, and has to be root of the node for it. An archive from somewhere would be what the requests are: trusted. */

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/process.h"
#include "engine/native/internal.h"
#include "engine/native/namespaces.h"

#define FREEZE_TIMEOUT_USEC (10 * USEC_PER_SEC)
#define ERROR_MAX 4096U
#define DUMP_LOG_MAX (16U * 1024U * 1024U)

typedef struct Checkpoint {
        NativeEngine *engine;
        const EngineContainer *c;
        NativeContainer *container;
        const char *location;
        uint64_t until_usec; /* CLOCK_MONOTONIC; USEC_INFINITY: however long */
        Error *error;

        char *work;       /* a folder for what goes into the archive */
        int location_fd;  /* the archive's folder */
        char *name, *partial;
        PodNamespaces namespaces;
        bool frozen;
} Checkpoint;

static uint64_t time_left(const Checkpoint *k) {
        uint64_t now = now_usec(CLOCK_MONOTONIC);

        return k->until_usec == USEC_INFINITY ? 0 : now < k->until_usec ? k->until_usec - now : 1;
}

/* --- what it takes ----------------------------------------------------------------------------------------------- */

static bool criu_is_there(void) {
        static const char *const folders[] = { "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin",
                                               "/bin" };

        for (size_t i = 0; i < ELEMENTSOF(folders); i++) {
                char path[64];

                (void) snprintf(path, sizeof path, "%s/criu", folders[i]);
                if (access(path, X_OK) >= 0)
                        return true;
        }
        return false;
}

static int check_runtime(Checkpoint *k) {
        RuntimeFeatures f;
        int r;

        r = runtime_features(k->container->runtime, &f, k->error);
        if (r < 0)
                return r;
        if (!f.checkpoint)
                return error_setf(k->error, GRPC_UNIMPLEMENTED,
                                  "the OCI runtime %s was built without CRIU: give the pod a runtime handler that can make "
                                  "checkpoints, such as runc", k->container->runtime->path);
        if (!criu_is_there())
                return error_setf(k->error, GRPC_FAILED_PRECONDITION,
                                  "a checkpoint takes the program criu, which is not installed on this node");
        return 0;
}

static int open_location(Checkpoint *k) {
        const char *slash = strrchr(strempty(k->location), '/');
        _cleanup_free_ char *folder = NULL;
        struct stat st;

        if (!slash || k->location[0] != '/' || !slash[1] || streq(slash, "/.") || streq(slash, "/..") ||
            strlen(k->location) >= PATH_MAX)
                return error_setf(k->error, GRPC_INVALID_ARGUMENT,
                                  "location '%.200s' is no absolute path of a file to be made", strempty(k->location));
        folder = strndup(k->location, MAX((size_t) (slash - k->location), (size_t) 1));
        k->name = strdup(slash + 1);
        k->partial = strprintf(".%.200s.%.12s.partial", slash + 1, k->c->id);
        if (!folder || !k->name || !k->partial)
                return error_oom(k->error);
        k->location_fd = open_directory(AT_FDCWD, folder);
        if (k->location_fd < 0)
                return error_setf(k->error, GRPC_FAILED_PRECONDITION, "cannot open the folder %s of the checkpoint: %s",
                                  folder, strerror(-k->location_fd));
        if (fstatat(k->location_fd, k->name, &st, AT_SYMLINK_NOFOLLOW) >= 0)
                return error_setf(k->error, GRPC_ALREADY_EXISTS, "%s is there already: give another location",
                                  k->location);
        return 0;
}

static int make_work(Checkpoint *k) {
        int r;

        k->work = strprintf("%s/checkpoint", k->c->directory);
        if (!k->work)
                return error_oom(k->error);
        r = remove_tree(AT_FDCWD, k->work);
        if (r >= 0 && mkdir(k->work, 0700) < 0)
                r = -errno;
        return r < 0 ? error_set(k->error, r, "cannot make %s", k->work) : 0;
}

/* --- freezing ---------------------------------------------------------------------------------------------------- */

static int write_freeze(Checkpoint *k, const char *value) {
        _cleanup_free_ char *group = native_container_process_group(k->container);
        _cleanup_close_ int dir_fd = cgroup_open(group), fd = -1;

        fd = dir_fd < 0 ? -1 : openat(dir_fd, "cgroup.freeze", O_WRONLY | O_CLOEXEC);
        return fd < 0 ? -ENOENT : write_all(fd, value, 1);
}

static int freeze(Checkpoint *k) {
        _cleanup_free_ char *group = native_container_process_group(k->container);
        _cleanup_close_ int dir_fd = cgroup_open(group), fd = -1;
        uint64_t until = now_usec(CLOCK_MONOTONIC) + FREEZE_TIMEOUT_USEC;
        int r;

        fd = dir_fd < 0 ? -1 : openat(dir_fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return error_setf(k->error, GRPC_FAILED_PRECONDITION, "container %s doesn't run: its cgroup is gone",
                                  k->c->id);
        k->frozen = true;
        r = write_freeze(k, "1");
        while (r >= 0) {
                char text[256];
                uint64_t now = now_usec(CLOCK_MONOTONIC);
                ssize_t n = pread(fd, text, sizeof text - 1, 0);

                if (n < 0)
                        return error_set(k->error, -errno, "cannot look at the cgroup of container %s", k->c->id);
                text[n] = 0;
                if (strstr(text, "frozen 1"))
                        return 0;
                r = now < until ? fiber_wait_fd(fd, EPOLLPRI, until - now) : -ETIMEDOUT;
        }
        return error_set(k->error, r, "cannot freeze container %s", k->c->id);
}

/* --- its parts --------------------------------------------------------------------------------------------------- */

static int write_json(Checkpoint *k, const char *name, json_t *o) {
        _cleanup_free_ char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
        _cleanup_close_ int fd = open_directory(AT_FDCWD, k->work);
        int r;

        if (!text)
                return error_oom(k->error);
        r = fd < 0 ? fd : write_file_atomic(fd, name, text, strlen(text), 0600, 0);
        return r < 0 ? error_set(k->error, r, "cannot write %s/%s", k->work, name) : 0;
}

static void format_time(uint64_t usec, char *buffer, size_t size) {
        time_t t = (time_t) (usec / USEC_PER_SEC);
        struct tm tm;

        (void) strftime(buffer, size, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
}

/* What the container was, under the names that the peers' tools know. */
static int write_descriptions(Checkpoint *k) {
        const Image *image = k->c->image;
        const char *name = image && image->repo_tags && image->repo_tags[0] ? image->repo_tags[0]
                                                                            : strempty(k->c->config->image.image);
        const runtime_v1_PodSandboxMetadata *m = &k->c->pod->config->metadata;
        _cleanup_json_ json_t *config = NULL, *spec = NULL, *annotations = NULL;
        _cleanup_free_ char *text = NULL;
        char now[32], started[32];
        int r;

        format_time(now_usec(CLOCK_REALTIME), now, sizeof now);
        format_time(k->container->state.started_usec, started, sizeof started);
        config = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b}",
                           "id", k->c->id,
                           "name", strempty(k->c->config->metadata.name),
                           "rootfsImage", name,
                           "rootfsImageName", name,
                           "rootfsImageRef", image ? image->id : "",
                           "runtime", k->container->runtime->path,
                           "createdTime", started,
                           "checkpointedTime", now,
                           "restored", 0);
        r = write_json(k, "config.dump", config);
        if (r < 0)
                return r;
        r = native_container_spec(&k->engine->engine, k->c, &text);
        if (r >= 0)
                r = json_parse(text, strlen(text), &spec, k->error);
        if (r < 0)
                return error_set(k->error, r, "cannot read the OCI configuration of container %s", k->c->id);
        annotations = json_pack("{s:s, s:s, s:s, s:s, s:s}",
                                "io.kubernetes.cri.container-type", "container",
                                "io.kubernetes.cri.container-name", strempty(k->c->config->metadata.name),
                                "io.kubernetes.cri.sandbox-id", k->c->pod->id,
                                "io.kubernetes.cri.sandbox-name", strempty(m->name),
                                "io.kubernetes.cri.sandbox-namespace", strempty(m->namespace));
        if (!annotations || json_object_set(spec, "annotations", annotations) < 0)
                return error_oom(k->error);
        return write_json(k, "spec.dump", spec);
}

/* CRIU's own words, which the runtime doesn't pass on; owned by the caller, NULL: none. */
static char *dump_log_error(const Checkpoint *k) {
        _cleanup_free_ char *path = strprintf("%s/dump.log", k->work), *text = NULL, *found = NULL;

        if (!path || read_file(AT_FDCWD, path, DUMP_LOG_MAX, &text, NULL) < 0)
                return NULL;
        for (char *p = text; (p = strstr(p, "Error (")); p++) {
                free(found);
                found = strndup(p, MIN(strcspn(p, "\n"), (size_t) 200));
        }
        return found ? utf8_sanitize(found) : NULL;
}

static int run(Checkpoint *k, char *const *argv, int stdout_fd, const char *what) {
        _cleanup_(process_result_done) ProcessResult result = {};
        _cleanup_free_ char *why = NULL;
        int r;

        r = process_run(&(ProcessOptions) {
                                .argv = (const char *const *) argv,
                                .stdout_fd = stdout_fd,
                                .error_max = ERROR_MAX,
                                .timeout_usec = time_left(k),
                                .kill_group = true,
                        },
                        &result, k->error);
        if (r == -ETIMEDOUT) {
                error_clear(k->error);
                return error_setf(k->error, GRPC_DEADLINE_EXCEEDED, "the checkpoint was not done within the timeout"),
                       -ETIMEDOUT;
        }
        if (r < 0 || (result.code == CLD_EXITED && result.status == 0))
                return r;
        why = utf8_sanitize(strempty(result.error));
        if (why)
                why[strcspn(why, "\n")] = 0;
        return error_setf(k->error, GRPC_FAILED_PRECONDITION, "%s %s%s%s", what, process_result_describe(&result),
                          isempty(why) ? "" : ": ", strempty(why));
}

/* In the pod's mount namespace, where the container's root is. */
static int dump(Checkpoint *k) {
        _cleanup_free_ char *images = strprintf("%s/checkpoint", k->work), *log = strprintf("%s/runtime.log", k->c->run_directory),
                            *message = NULL, *words = NULL;
        _cleanup_strv_free_ char **argv = NULL;
        const char *const enter[] = { k->engine->create_path, "--log", log, "--mount-namespace",
                                      k->namespaces.paths[POD_NAMESPACE_MNT], "--" };
        const char *const command[] = { "checkpoint", "--image-path", images, "--work-path", k->work,
                                        "--leave-running", "--file-locks",
                                        k->c->id };
        _cleanup_error_ Error cause = ERROR_INIT;
        Error *error = k->error;
        int r = 0;

        if (!images || !log)
                return error_oom(k->error);
        (void) unlink(log);
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(enter); i++)
                r = strv_extend(&argv, enter[i]);
        if (r >= 0)
                r = runtime_arguments(k->container->runtime, log, &argv);
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(command); i++)
                r = strv_extend(&argv, command[i]);
        if (r < 0)
                return error_oom(k->error);
        k->error = &cause;
        r = run(k, argv, /* stdout_fd= */ 0, "the OCI runtime");
        k->error = error;
        if (r >= 0)
                return 0;
        if (cause.code != GRPC_FAILED_PRECONDITION) {
                error_move(error, &cause);
                return r;
        }
        message = runtime_log_message(AT_FDCWD, log);
        words = dump_log_error(k);
        return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s can't be checkpointed: %s%s%s", k->c->id,
                          message ?: strempty(cause.message), words ? "; CRIU says: " : "", strempty(words));
}

static int pack(Checkpoint *k) {
        _cleanup_free_ char *program = strprintf("%s", k->engine->checkpoint_path),
                            *upper = strprintf("%s/upper", k->c->directory);
        _cleanup_strv_free_ char **argv = NULL;
        _cleanup_close_ int fd = -1;
        int r;

        if (!program || !upper || strv_extend(&argv, program) < 0 || strv_extend(&argv, k->work) < 0 ||
            strv_extend(&argv, upper) < 0)
                return error_oom(k->error);
        STRV_FOREACH(l, k->c->layers)
                if (strv_extendf(&argv, "%s/%s", k->c->layers_path, *l) < 0)
                        return error_oom(k->error);
        (void) unlinkat(k->location_fd, k->partial, 0);
        fd = openat(k->location_fd, k->partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return error_set(k->error, -errno, "cannot write the checkpoint of container %s", k->c->id);
        r = run(k, argv, fd, "rktlet-checkpoint");
        return r < 0 ? error_prefix(k->error, r, "cannot pack the checkpoint of container %s", k->c->id) : 0;
}

static int make(Checkpoint *k) {
        int r;

        r = check_runtime(k);
        if (r >= 0)
                r = open_location(k);
        if (r >= 0)
                r = pod_namespaces_open(k->engine, k->c, &k->namespaces, k->error);
        if (r >= 0)
                r = make_work(k);
        if (r >= 0)
                r = write_descriptions(k);
        if (r >= 0)
                r = freeze(k);
        if (r >= 0)
                r = dump(k);
        if (r >= 0)
                r = pack(k);
        if (r < 0)
                return r;
        if (renameat2(k->location_fd, k->partial, k->location_fd, k->name, RENAME_NOREPLACE) < 0)
                return error_set(k->error, -errno, "cannot write %s", k->location);
        return 0;
}

/* Whatever happened, it goes on, and nothing is left. */
static void finish(Checkpoint *k) {
        FIBER_SHIELDED_SCOPE;

        if (k->frozen && write_freeze(k, "0") < 0)
                log_debug("The cgroup of container %s is gone, ignoring", k->c->id);
        if (k->location_fd >= 0 && k->partial)
                (void) unlinkat(k->location_fd, k->partial, 0);
        (void) safe_close(k->location_fd);
        if (k->work && remove_tree(AT_FDCWD, k->work) < 0)
                log_debug("%s is left until the container is removed, ignoring", k->work);
        pod_namespaces_done(&k->namespaces);
        free(k->work);
        free(k->name);
        free(k->partial);
}

int native_container_checkpoint(Engine *engine, const EngineContainer *c, const char *location, uint64_t timeout_usec,
                                Error *error) {
        NativeEngine *e = native_engine(engine);
        NativeContainer *n = native_container_find(e, c->id);
        Checkpoint k = {
                .engine = e,
                .c = c,
                .container = n,
                .location = location,
                .until_usec = timeout_usec > 0 ? now_usec(CLOCK_MONOTONIC) + timeout_usec : USEC_INFINITY,
                .error = error,
                .location_fd = -1,
                .namespaces = POD_NAMESPACES_INIT,
        };
        int r;

        if (!n || !n->started || n->exiting || !n->watch)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s doesn't run", c->id);
        r = native_container_check_runtime(n, error);
        if (r < 0)
                return r;
        _cleanup_(native_container_unrefp) _unused_ NativeContainer *held = native_container_ref(n);
        r = make(&k);
        finish(&k);
        return r;
}
