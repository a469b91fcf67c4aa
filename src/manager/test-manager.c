/* The manager alone: an engine, images, networks and a systemd that live in memory and can be told to fail or hang. */

#include <fcntl.h>
#include <sys/stat.h>

#include "basic/fiber.h"
#include "basic/file-util.h"
#include "basic/message.h"
#include "basic/test.h"
#include "manager/check.h"
#include "manager/internal.h"
#include "manager/recover.h"

static char directory[] = "/dev/shm/test-manager-XXXXXX";
static sd_event *event;
static Manager *manager;
static Engine engine;

/* What the parts below were asked, a letter each, and where to fail or hang. */
static char calls[256];
static char fail_at, hang_at;
static unsigned pods_up, containers_up, networks_up;
static EngineContainerState container_state;
static EnginePodState pod_state;

static int call(char c, Error *error) {
        size_t n = strlen(calls);

        if (n + 1 < sizeof calls)
                calls[n] = c;
        if (c == fail_at)
                return error_setf(error, GRPC_INTERNAL, "told to fail at %c", c);
        return c == hang_at ? fiber_sleep(1000 * USEC_PER_SEC) : fiber_yield();
}

/* --- stand-ins --- */
static int e_pod_start(Engine *e, const EnginePod *p, EnginePodState *ret, Error *error) {
        int r = call('P', error);

        if (r >= 0)
                pods_up++;
        *ret = (EnginePodState) { .running = true, .pid = 1, .started_usec = 1 };
        return r;
}
static int e_pod_netns(Engine *e, const EnginePod *p, char **ret, Error *error) {
        *ret = strdup("/proc/self/ns/net");
        return 0;
}
static int e_pod_stop(Engine *e, const EnginePod *p, Error *error) {
        if (pods_up > 0)
                pods_up--;
        return call('s', error);
}
static int e_pod_remove(Engine *e, const EnginePod *p, Error *error) {
        return call('r', error);
}
static int e_pod_load(Engine *e, const EnginePod *p, EnginePodState *ret, Error *error) {
        *ret = pod_state;
        return 0;
}
static int e_create(Engine *e, const EngineContainer *c, EngineContainerInfo *ret, Error *error) {
        _cleanup_free_ char *upper = strprintf("%s/upper", c->directory);
        int r = call('C', error);

        if (r >= 0) {
                containers_up++;
                CHECK(mkdir(upper, 0700) >= 0);
        }
        *ret = (EngineContainerInfo) { .uid = 5, .gid = 6, .stop_signal = 15 };
        return r;
}
static int e_start(Engine *e, const EngineContainer *c, EngineContainerState *ret, Error *error) {
        int r = call('S', error);

        *ret = (EngineContainerState) { .phase = ENGINE_CONTAINER_RUNNING, .pid = 7, .started_usec = 100 };
        return r;
}
static int e_stop(Engine *e, const EngineContainer *c, int signo, uint64_t timeout, Error *error) {
        int r = call('K', error);
        EngineContainerState s = { .phase = ENGINE_CONTAINER_EXITED, .exit_code = 143, .started_usec = 100, .finished_usec = 200 };

        if (r >= 0)
                e->events.container_changed(c->id, &s, e->events.userdata);
        return r;
}
static int e_remove(Engine *e, const EngineContainer *c, Error *error) {
        if (containers_up > 0)
                containers_up--;
        return call('R', error);
}
static int e_load(Engine *e, const EngineContainer *c, EngineContainerState *ret, Error *error) {
        *ret = container_state;
        return 0;
}
static int e_exec(Engine *e, const EngineContainer *c, const char *const *argv, uint64_t t, EngineExecResult *ret, Error *error) {
        return call('X', error);
}
static int e_reopen(Engine *e, const EngineContainer *c, Error *error) {
        return call('O', error);
}
/* The limits as the engine last got them, and a cgroup and a layer that are made up. */
static runtime_v1_LinuxContainerResources limits;
static unsigned walks;
static bool walk_hangs;
static int e_update(Engine *e, const EngineContainer *c, const runtime_v1_LinuxContainerResources *r, Error *error) {
        limits = *r;
        return call('U', error);
}
static int e_pod_update(Engine *e, const EnginePod *p, const runtime_v1_LinuxContainerResources *r, Error *error) {
        limits = *r;
        return call('u', error);
}
static const char *e_container_cgroup(Engine *e, const char *id) {
        return NULL;
}
static int e_pod_cgroup(Engine *e, const EnginePod *p, char **ret) {
        return -ENOENT;
}
static int e_layer_usage(Engine *e, const EngineContainer *c, TreeUsage *ret, Error *error) {
        if (walk_hangs)
                return fiber_sleep(1000 * USEC_PER_SEC);
        walks++;
        *ret = (TreeUsage) { 4096, 2 };
        return fiber_yield();
}
static const EngineOps ops = {
        .name = "stand-in",
        .pod_start = e_pod_start,
        .pod_netns = e_pod_netns,
        .pod_stop = e_pod_stop,
        .pod_remove = e_pod_remove,
        .pod_load = e_pod_load,
        .container_create = e_create,
        .container_start = e_start,
        .container_stop = e_stop,
        .container_remove = e_remove,
        .container_load = e_load,
        .container_exec_sync = e_exec,
        .container_reopen_log = e_reopen,
        .container_update = e_update,
        .pod_update = e_pod_update,
        .container_cgroup = e_container_cgroup,
        .pod_cgroup = e_pod_cgroup,
        .container_layer_usage = e_layer_usage,
};
void engine_container_info_done(EngineContainerInfo *i) {
        free(i->supplementary_groups);
}

static Image image = { .n_ref = 1, .id = (char *) "sha256:feed" };
int image_store_refresh(ImageStore *s, Error *error) {
        return 0;
}

Image *image_store_find(ImageStore *s, const char *reference) {
        return streq(reference, "busybox") || streq(reference, image.id) ? &image : NULL;
}
Image *image_ref(Image *i) {
        return i;
}
Image *image_unref(Image *i) {
        return NULL;
}
const char *image_store_layers_path(const ImageStore *s) {
        return "/nonexistent";
}
static int holds;
bool image_store_has_layer(ImageStore *s, const char *name) {
        return true;
}
int image_store_hold(ImageStore *s, const char *holder, char *const *layers) {
        holds++;
        return 0;
}
void image_store_release(ImageStore *s, const char *holder) {
        holds--;
}
int image_store_collect(ImageStore *s, Error *error) {
        return 0;
}

int cni_status(Cni *c, Error *error) {
        return 0;
}
int cni_add(Cni *c, const CniPod *pod, CniResult *ret, Error *error) {
        int r = call('N', error);

        if (r < 0)
                return r;
        networks_up++;
        *ret = (CniResult) { .ips = strv_copy((char *[]) { (char *) "10.0.0.2", NULL }), .json = strdup("{}") };
        return 0;
}
int cni_del(Cni *c, const CniPod *pod, Error *error) {
        int r;

        /* Without a cached ADD it does nothing. */
        if (networks_up == 0)
                return 0;
        r = call('D', error);
        if (r >= 0)
                networks_up--;
        return r;
}
int cni_cached_result(Cni *c, const char *pod_id, CniResult *ret) {
        return -ENOENT;
}
int cni_make_cache_again(Cni *c, const CniPod *pod, char *const *ips, Error *error) {
        return 0;
}
int cni_collect(Cni *c, bool (*keep)(const char *pod_id, void *userdata), void *userdata, Error *error) {
        return 0;
}
void cni_result_done(CniResult *r) {
        strv_free(r->ips);
        free(r->json);
}
int systemd_list_units(Systemd *s, const char *pattern, UnitInfo **ret, size_t *ret_n, Error *error) {
        return 0;
}
void unit_info_free_array(UnitInfo *infos, size_t n) {
}
int unit_kill(Systemd *s, const char *unit, const char *whom, int signo, Error *error) {
        return 0;
}
int unit_release_wait(Systemd *s, const char *unit, uint64_t timeout_usec, Error *error) {
        return 0;
}
int unit_stop_wait(Systemd *s, const char *unit, uint64_t timeout_usec, Error *error) {
        return 0;
}

/* --- the frame --- */
static void open_manager(void) {
        ManagerConfig config = { .default_slice = "rktlet.slice" };
        _cleanup_free_ char *state = strprintf("%s/lib", directory), *run = strprintf("%s/run", directory);
        static char kept[2][256];

        (void) snprintf(kept[0], sizeof kept[0], "%s", state);
        (void) snprintf(kept[1], sizeof kept[1], "%s", run);
        config.state_directory = kept[0];
        config.run_directory = kept[1];
        CHECK_EQ(manager_new(event, &config, NULL, NULL, NULL, &manager, NULL), 0);
        engine = (Engine) { .ops = &ops, .events = manager_engine_events(manager) };
        manager_set_engine(manager, &engine);
}

static int load(void *userdata) {
        return manager_load(manager, NULL);
}

static int entries_of(const char *name);

static void begin(void) {
        /* In memory, where it is possible: many nodes are made, and each syncs its version. */
        strcpy(directory, access("/dev/shm", W_OK) >= 0 ? "/dev/shm/test-manager-XXXXXX" : "/tmp/test-manager-XXXXXX");
        CHECK(mkdtemp(directory));
        memset(calls, 0, sizeof calls);
        fail_at = hang_at = 0;
        pods_up = containers_up = networks_up = 0;
        holds = 0;
        container_state = (EngineContainerState) {};
        pod_state = (EnginePodState) { .running = true, .pid = 1 };
        CHECK_EQ(sd_event_new(&event), 0);
        open_manager();
        CHECK_EQ(fiber_run(event, load, NULL), 0);
}

static void restart(void) {
        manager = manager_free(manager);
        open_manager();
        CHECK_EQ(fiber_run(event, load, NULL), 0);
}

static char *kept_pod, *kept_running, *kept_exited, *kept_created;

static void end(void) {
        kept_pod = mfree(kept_pod);
        kept_running = mfree(kept_running);
        kept_exited = mfree(kept_exited);
        kept_created = mfree(kept_created);
        manager = manager_free(manager);
        event = sd_event_unref(event);
        CHECK_EQ(remove_tree(AT_FDCWD, directory), 0);
        CHECK_EQ(fiber_count(), 0);
}

static int count_entry(int dir_fd, const char *name, void *userdata) {
        (*(int *) userdata)++;
        return 0;
}

static int entries_of(const char *name) {
        _cleanup_free_ char *p = strprintf("%s/%s", directory, name);
        int n = 0;

        CHECK_EQ(directory_foreach(AT_FDCWD, p, count_entry, &n), 0);
        return n;
}

static void nothing_is_left(void) {
        CHECK_EQ(HASH_COUNT(manager->pods), 0);
        CHECK_EQ(HASH_COUNT(manager->containers), 0);
        CHECK_EQ(entries_of("lib/pods") + entries_of("lib/containers") + entries_of("run/pods") + entries_of("run/containers"), 0);
        CHECK_EQ(pods_up + containers_up + networks_up, 0);
        CHECK_EQ(holds, 0);
}

static bool answers_arrive = true;
static const char *hostname;

static int run_pod(const char *name, char **ret_id, Error *error) {
        runtime_v1_RunPodSandboxRequest q = {
                .has_config = true,
                .config = {
                        .has_metadata = true,
                        .metadata = { .name = (char *) name, .namespace = (char *) "default", .uid = (char *) "u" },
                        .log_directory = (char *) "/tmp",
                        .hostname = (char *) hostname,
                },
        };
        void *data;
        size_t size;
        Pod *p;
        int r;

        CHECK_EQ(message_encode(runtime_v1_RunPodSandboxRequest_fields, &q, 0, 1 << 20, &data, &size, NULL), 0);
        r = pod_run(manager, data, size, &p, error);
        free(data);
        if (r >= 0)
                p->answered = answers_arrive;
        if (r >= 0 && ret_id)
                *ret_id = strdup(p->id);
        return r;
}

static int create(const char *pod_id, const char *name, const char *image_name, char **ret_id, Error *error) {
        runtime_v1_CreateContainerRequest q = {
                .pod_sandbox_id = (char *) pod_id,
                .has_config = true,
                .config = {
                        .has_metadata = true,
                        .metadata = { .name = (char *) name },
                        .has_image = true,
                        .image = { .image = (char *) image_name },
                },
                /* As the kubelet sends it. */
                .has_sandbox_config = true,
                .sandbox_config = {
                        .has_metadata = true,
                        .metadata = { .name = (char *) "a", .namespace = (char *) "default", .uid = (char *) "u" },
                        .log_directory = (char *) "/tmp",
                },
        };
        Container *c;
        void *data;
        size_t size;
        int r;

        CHECK_EQ(message_encode(runtime_v1_CreateContainerRequest_fields, &q, 0, 1 << 20, &data, &size, NULL), 0);
        r = container_create(manager, data, size, &c, error);
        free(data);
        if (r >= 0)
                c->answered = answers_arrive;
        if (r >= 0 && ret_id)
                *ret_id = strdup(c->id);
        return r;
}

static Container *container_of(const char *id) {
        Container *c;

        CHECK_EQ(manager_find_container(manager, id, &c, NULL), 0);
        return c;
}

static Pod *pod_of(const char *id) {
        Pod *p;

        CHECK_EQ(manager_find_pod(manager, id, &p, NULL), 0);
        return p;
}

/* --- tests --- */
static int life(void *userdata) {
        _cleanup_free_ char *pod = NULL, *ctr = NULL, *prefix = NULL;
        _cleanup_error_ Error e = ERROR_INIT;

        CHECK_EQ(run_pod("a", &pod, NULL), 0);
        CHECK_STREQ(pod_of(pod)->ips[0], "10.0.0.2");
        prefix = strndup(pod, 10);
        CHECK(pod_of(prefix) == pod_of(pod));
        CHECK_EQ(run_pod("a", NULL, &e), -EEXIST);
        CHECK(strstr(e.message, pod));
        CHECK_EQ(create(pod, "c", "busybox", &ctr, NULL), 0);
        CHECK_EQ(create(pod, "c", "busybox", NULL, NULL), -EEXIST);
        CHECK_EQ(create(pod, "d", "unknown", NULL, NULL), -ENOENT);
        CHECK_EQ(container_of(ctr)->phase, CONTAINER_CREATED);
        CHECK_EQ(container_exec_sync(container_of(ctr), NULL, 0, NULL, NULL), grpc_code_to_errno(GRPC_FAILED_PRECONDITION));
        CHECK_EQ(container_start(container_of(ctr), NULL), 0);
        CHECK_EQ(container_of(ctr)->phase, CONTAINER_RUNNING);
        container_of(ctr)->start_answered = true;
        CHECK_EQ(container_start(container_of(ctr), NULL), grpc_code_to_errno(GRPC_FAILED_PRECONDITION));
        CHECK_EQ(container_stop(container_of(ctr), 0, NULL), 0);
        CHECK_EQ(container_of(ctr)->exit_code, 143);
        CHECK_STREQ(container_of(ctr)->reason, "Error");
        CHECK_EQ(container_stop(container_of(ctr), 0, NULL), 0);
        CHECK_EQ(pod_stop(pod_of(pod), NULL), 0);
        CHECK_EQ(pod_stop(pod_of(pod), NULL), 0);
        CHECK_EQ(pod_of(pod)->phase, POD_NOT_READY);
        CHECK_EQ(create(pod, "late", "busybox", NULL, NULL), grpc_code_to_errno(GRPC_FAILED_PRECONDITION));
        CHECK_EQ(pod_remove(pod_of(pod), NULL), 0);
        nothing_is_left();
        return 0;
}

static void test_a_pod_and_a_container_live_and_go(void) {
        begin();
        CHECK_EQ(fiber_run(event, life, NULL), 0);
        end();
}

static int lose_answers(void *userdata) {
        _cleanup_free_ char *pod = NULL, *again = NULL, *ctr = NULL, *same = NULL;

        answers_arrive = false;
        CHECK_EQ(run_pod("a", &pod, NULL), 0);
        CHECK_EQ(run_pod("a", &again, NULL), 0);
        CHECK_STREQ(again, pod);
        CHECK_EQ(pods_up, 1);
        hostname = "other";
        CHECK_EQ(run_pod("a", NULL, NULL), -EEXIST);
        hostname = NULL;

        CHECK_EQ(create(pod, "c", "busybox", &ctr, NULL), 0);
        CHECK_EQ(create(pod, "c", "busybox", &same, NULL), 0);
        CHECK_STREQ(same, ctr);
        CHECK_EQ(containers_up, 1);
        CHECK_EQ(create(pod, "c", image.id, NULL, NULL), -EEXIST);
        /* Somebody has the pod's ID. */
        CHECK_EQ(run_pod("a", NULL, NULL), -EEXIST);

        CHECK_EQ(container_start(container_of(ctr), NULL), 0);
        CHECK_EQ(container_start(container_of(ctr), NULL), 0);
        CHECK_EQ(create(pod, "c", "busybox", NULL, NULL), -EEXIST);
        CHECK_EQ(container_stop(container_of(ctr), 0, NULL), 0);
        CHECK_EQ(container_start(container_of(ctr), NULL), 0);
        container_of(ctr)->start_answered = true;
        CHECK_EQ(container_start(container_of(ctr), NULL), grpc_code_to_errno(GRPC_FAILED_PRECONDITION));
        CHECK_EQ(pod_remove(pod_of(pod), NULL), 0);
        nothing_is_left();
        answers_arrive = true;
        return 0;
}

static void test_a_request_whose_answer_was_lost_gets_the_same_again(void) {
        begin();
        CHECK_EQ(fiber_run(event, lose_answers, NULL), 0);
        end();
}

/* One that ended before it was started was never started. */
static int start_too_late(void *userdata) {
        _cleanup_free_ char *pod = NULL, *ctr = NULL;

        CHECK_EQ(run_pod("a", &pod, NULL), 0);
        CHECK_EQ(create(pod, "c", "busybox", &ctr, NULL), 0);
        fail_at = 'S';
        CHECK(container_start(container_of(ctr), NULL) < 0);
        fail_at = 0;
        CHECK_EQ(container_of(ctr)->phase, CONTAINER_EXITED);
        CHECK_EQ(container_start(container_of(ctr), NULL), grpc_code_to_errno(GRPC_FAILED_PRECONDITION));
        CHECK_EQ(pod_remove(pod_of(pod), NULL), 0);
        return 0;
}

static void test_a_start_that_failed_is_not_taken_for_one_that_was_answered(void) {
        begin();
        CHECK_EQ(fiber_run(event, start_too_late, NULL), 0);
        end();
}

static int run_first(void *userdata) {
        CHECK_EQ(run_pod("a", userdata, NULL), 0);
        return 0;
}

static int run_after_restart(void *userdata) {
        _cleanup_free_ char *again = NULL, *ctr = NULL, *same = NULL;
        const char *pod = userdata;

        CHECK_EQ(run_pod("a", &again, NULL), 0);
        CHECK_STREQ(again, pod);
        CHECK_EQ(run_pod("a", NULL, NULL), -EEXIST);
        CHECK_EQ(create(pod, "c", "busybox", &ctr, NULL), 0);
        CHECK_EQ(create(pod, "c", "busybox", &same, NULL), -EEXIST);
        CHECK_EQ(pod_remove(pod_of(pod), NULL), 0);
        return 0;
}

static void test_after_a_restart_a_pod_is_answered_once_more(void) {
        _cleanup_free_ char *pod = NULL;

        begin();
        CHECK_EQ(fiber_run(event, run_first, &pod), 0);
        restart();
        CHECK_EQ(fiber_run(event, run_after_restart, pod), 0);
        end();
}

static int fail_everywhere(void *userdata) {
        for (const char *p = "PNC"; *p; p++) {
                _cleanup_free_ char *pod = NULL;
                _cleanup_error_ Error e = ERROR_INIT;

                fail_at = *p;
                if (*p == 'C') {
                        CHECK_EQ(run_pod("a", &pod, NULL), 0);
                        CHECK_EQ(create(pod, "c", "busybox", NULL, &e), -EIO);
                        CHECK_EQ(containers_up, 0);
                        CHECK_EQ(pod_remove(pod_of(pod), NULL), 0);
                } else
                        CHECK_EQ(run_pod("a", NULL, &e), -EIO);
                CHECK(strstr(e.message, "told to fail"));
                fail_at = 0;
                nothing_is_left();
        }
        return 0;
}

static void test_a_failure_at_any_step_leaves_nothing(void) {
        begin();
        CHECK_EQ(fiber_run(event, fail_everywhere, NULL), 0);
        end();
}

static int run_a(void *userdata) {
        return run_pod("a", NULL, NULL);
}

static int cancel_and_retry(void *userdata) {
        for (const char *p = "PN"; *p; p++) {
                _cleanup_free_ char *id = NULL;
                int result;
                Fiber *f;

                hang_at = *p;
                CHECK_EQ(fiber_spawn(event, "run", run_a, NULL, NULL, &f), 0);
                CHECK_EQ(fiber_sleep(1000), 0);
                CHECK(!fiber_is_done(f));
                CHECK_EQ(run_pod("a", NULL, NULL), -EEXIST);
                fiber_cancel(f);
                hang_at = 0;
                /* At once, while the first is still being undone. */
                CHECK_EQ(run_pod("a", &id, NULL), 0);
                CHECK_EQ(fiber_join(f, &result), 0);
                CHECK_EQ(result, -ECANCELED);
                fiber_unref(f);
                CHECK_EQ(HASH_COUNT(manager->pods), 1);
                CHECK_EQ(pod_remove(pod_of(id), NULL), 0);
                nothing_is_left();
        }
        return 0;
}

static void test_a_cancelled_pod_is_undone_and_its_retry_works_at_once(void) {
        begin();
        CHECK_EQ(fiber_run(event, cancel_and_retry, NULL), 0);
        end();
}

static int make_three(void *userdata) {
        CHECK_EQ(run_pod("a", &kept_pod, NULL), 0);
        CHECK_EQ(create(kept_pod, "running", "busybox", &kept_running, NULL), 0);
        CHECK_EQ(create(kept_pod, "exited", "busybox", &kept_exited, NULL), 0);
        CHECK_EQ(create(kept_pod, "created", "busybox", &kept_created, NULL), 0);
        CHECK_EQ(container_start(container_of(kept_running), NULL), 0);
        CHECK_EQ(container_start(container_of(kept_exited), NULL), 0);
        CHECK_EQ(container_stop(container_of(kept_exited), 0, NULL), 0);
        return 0;
}

static int remove_kept(void *userdata) {
        CHECK_EQ(pod_remove(pod_of(kept_pod), NULL), 0);
        return 0;
}

static void test_a_restart_knows_all_and_takes_over_what_happened(void) {
        begin();
        CHECK_EQ(fiber_run(event, make_three, NULL), 0);
        /* It ended while nobody looked. */
        container_state = (EngineContainerState) {
                .phase = ENGINE_CONTAINER_EXITED, .started_usec = 100, .finished_usec = 300, .exit_code = 42,
        };
        restart();
        CHECK_EQ(pod_of(kept_pod)->phase, POD_READY);
        CHECK_STREQ(pod_of(kept_pod)->ips[0], "10.0.0.2");
        CHECK_STREQ(pod_of(kept_pod)->request.config.metadata.name, "a");
        CHECK_EQ(container_of(kept_running)->phase, CONTAINER_EXITED);
        CHECK_EQ(container_of(kept_running)->exit_code, 42);
        CHECK_EQ(container_of(kept_running)->finished_usec, 300);
        CHECK_EQ(container_of(kept_exited)->exit_code, 143);
        CHECK_STREQ(container_of(kept_exited)->image_id, "sha256:feed");
        CHECK_EQ(container_of(kept_exited)->info.uid, 5);
        CHECK_EQ(fiber_run(event, remove_kept, NULL), 0);
        holds = 0; /* the first manager's were dropped with it */
        networks_up = pods_up = containers_up = 0;
        nothing_is_left();
        end();
}

static void test_after_a_reboot_all_is_known_exited_and_removable(void) {
        begin();
        CHECK_EQ(fiber_run(event, make_three, NULL), 0);
        container_state = (EngineContainerState) { .phase = ENGINE_CONTAINER_UNKNOWN };
        pod_state = (EnginePodState) {};
        restart();
        CHECK_EQ(pod_of(kept_pod)->phase, POD_NOT_READY);
        CHECK_EQ(container_of(kept_running)->phase, CONTAINER_EXITED);
        CHECK_EQ(container_of(kept_running)->exit_code, 255);
        CHECK_EQ(container_of(kept_created)->phase, CONTAINER_EXITED);
        CHECK_EQ(fiber_run(event, remove_kept, NULL), 0);
        CHECK_EQ(HASH_COUNT(manager->pods), 0);
        end();
}

static void damage(const char *kind, const char *id, const char *file, const char *text) {
        _cleanup_free_ char *p = strprintf("%s/lib/%s/%s/%s", directory, kind, id, file);

        CHECK_EQ(write_file_atomic(AT_FDCWD, p, text, strlen(text), 0600, 0), 0);
}

static void test_damaged_files_cost_only_their_own_object(void) {
        begin();
        CHECK_EQ(fiber_run(event, make_three, NULL), 0);
        container_state = (EngineContainerState) { .phase = ENGINE_CONTAINER_RUNNING, .started_usec = 1, .pid = 3 };
        damage("containers", kept_exited, "request.pb", "\xff\xff\xff");
        restart();
        CHECK_EQ(HASH_COUNT(manager->containers), 2);
        CHECK_EQ(container_of(kept_running)->phase, CONTAINER_RUNNING);
        CHECK_EQ(entries_of("lib/containers"), 2);
        /* It is kept for whoever wants to look at it. */
        CHECK_EQ(entries_of("lib/damaged"), 1);
        end();
}

static int run_changed(void (*change)(runtime_v1_PodSandboxConfig *c)) {
        runtime_v1_RunPodSandboxRequest q = {
                .has_config = true,
                .config = {
                        .has_metadata = true,
                        .metadata = { .name = (char *) "n", .namespace = (char *) "default", .uid = (char *) "u" },
                },
        };
        void *data;
        size_t size;
        Pod *p;
        int r;

        change(&q.config);
        CHECK_EQ(message_encode(runtime_v1_RunPodSandboxRequest_fields, &q, NULL, 1 << 20, &data, &size, NULL), 0);
        r = pod_run(manager, data, size, &p, NULL);
        free(data);
        return r;
}

static void no_namespace(runtime_v1_PodSandboxConfig *c) {
        c->metadata.namespace = NULL;
}
static void no_uid(runtime_v1_PodSandboxConfig *c) {
        c->metadata.uid = NULL;
}
static void relative_log_directory(runtime_v1_PodSandboxConfig *c) {
        c->log_directory = (char *) "var/log";
}
static void log_directory_upwards(runtime_v1_PodSandboxConfig *c) {
        c->log_directory = (char *) "/var/log/..";
}
static void no_slice(runtime_v1_PodSandboxConfig *c) {
        c->has_linux = true;
        c->linux.cgroup_parent = (char *) "/kubepods/pod1";
}
static void bad_host_ip(runtime_v1_PodSandboxConfig *c) {
        static runtime_v1_PortMapping pm = { .container_port = 80, .host_port = 80, .host_ip = (char *) "1.2.3" };

        c->port_mappings = &pm;
        c->port_mappings_count = 1;
}

static int bad_requests(void *userdata) {
        void (*const changes[])(runtime_v1_PodSandboxConfig *) = {
                no_namespace, no_uid, relative_log_directory, log_directory_upwards, no_slice, bad_host_ip,
        };
        _cleanup_error_ Error e = ERROR_INIT;
        Pod *p;

        for (size_t i = 0; i < ELEMENTSOF(changes); i++)
                CHECK_EQ(run_changed(changes[i]), -EINVAL);

        CHECK_EQ(pod_run(manager, "", 0, &p, &e), -EINVAL);
        CHECK_EQ(pod_run(manager, "\xff\xff", 2, &p, NULL), -EINVAL);
        CHECK_EQ(run_pod("", NULL, NULL), -EINVAL);
        CHECK_EQ(create("", "c", "busybox", NULL, NULL), -EINVAL);
        CHECK_EQ(create("abcd", "c", "busybox", NULL, NULL), -ENOENT);
        nothing_is_left();
        return 0;
}

static void test_bad_requests_are_refused_before_anything_begins(void) {
        begin();
        CHECK_EQ(fiber_run(event, bad_requests, NULL), 0);
        CHECK_STREQ(calls, "");
        end();
}

/* --- limits and figures --- */
#define SHOWN(c) ((c)->request.config.linux.resources)

static int change_limits(void *userdata) {
        static runtime_v1_LinuxContainerResources_UnifiedEntry unified[] = { { (char *) "pids.max", (char *) "5" },
                                                                             { (char *) "memory.high", (char *) "6" } };
        static runtime_v1_HugepageLimit pages[] = { { (char *) "2MB", 7 } };
        runtime_v1_LinuxContainerResources r = {
                .cpu_quota = 20000, .cpu_period = 50000, .memory_limit_in_bytes = 1000,
                .memory_swap_limit_in_bytes = 1500, .cpuset_cpus = (char *) "0-1", .oom_score_adj = 5,
                .unified = unified, .unified_count = 1, .hugepage_limits = pages, .hugepage_limits_count = 1,
        };
        Container *c;

        CHECK_EQ(make_three(NULL), 0);
        c = container_of(kept_running);
        CHECK_EQ(container_update(c, &r, NULL), 0);
        CHECK_EQ(limits.memory_swap_limit_in_bytes, 1500);
        /* Only the memory: the swap, which is the difference, stays. */
        r = (runtime_v1_LinuxContainerResources) { .memory_limit_in_bytes = 3000 };
        CHECK_EQ(container_update(c, &r, NULL), 0);
        CHECK_EQ(limits.memory_limit_in_bytes, 3000);
        CHECK_EQ(limits.memory_swap_limit_in_bytes, 3500);
        CHECK_EQ(limits.cpu_quota, 20000);
        /* Of lists what has the same key is replaced. */
        unified[0].value = (char *) "9";
        pages[0].limit = 8;
        r = (runtime_v1_LinuxContainerResources) {
                .cpu_quota = -1, .unified = unified, .unified_count = 2, .hugepage_limits = pages, .hugepage_limits_count = 1,
        };
        CHECK_EQ(container_update(c, &r, NULL), 0);
        CHECK_EQ(limits.unified_count, 2);
        CHECK_EQ(limits.hugepage_limits_count, 1);
        /* What the engine refuses is not shown. */
        fail_at = 'U';
        r = (runtime_v1_LinuxContainerResources) { .cpu_shares = 99 };
        CHECK_EQ(container_update(c, &r, NULL), -EIO);
        fail_at = 0;
        CHECK_EQ(SHOWN(c).cpu_shares, 0);
        CHECK_EQ(container_update(container_of(kept_created), &r, NULL), 0);
        CHECK_EQ(container_update(container_of(kept_exited), &r, NULL), grpc_code_to_errno(GRPC_FAILED_PRECONDITION));

        r = (runtime_v1_LinuxContainerResources) { .memory_limit_in_bytes = 100, .cpu_quota = 1000 };
        CHECK_EQ(pod_update(pod_of(kept_pod), NULL, &r, NULL), 0);
        CHECK_EQ(limits.memory_limit_in_bytes, 100);
        r = (runtime_v1_LinuxContainerResources) { .memory_limit_in_bytes = 7 };
        CHECK_EQ(pod_update(pod_of(kept_pod), &r, NULL, NULL), 0);
        CHECK_EQ(limits.memory_limit_in_bytes, 107);
        CHECK_EQ(limits.cpu_quota, 1000);
        return 0;
}

static void test_limits_are_merged_saved_and_known_after_a_restart(void) {
        begin();
        CHECK_EQ(fiber_run(event, change_limits, NULL), 0);
        container_state = (EngineContainerState) { .phase = ENGINE_CONTAINER_RUNNING, .started_usec = 1, .pid = 3 };
        restart();
        CHECK_EQ(SHOWN(container_of(kept_running)).memory_limit_in_bytes, 3000);
        CHECK_EQ(SHOWN(container_of(kept_running)).memory_swap_limit_in_bytes, 3500);
        CHECK_EQ(SHOWN(container_of(kept_running)).cpu_quota, -1);
        CHECK_EQ(SHOWN(container_of(kept_running)).cpu_period, 50000);
        CHECK_EQ(SHOWN(container_of(kept_running)).oom_score_adj, 0); /* that of the creation */
        CHECK_STREQ(SHOWN(container_of(kept_running)).cpuset_cpus, "0-1");
        CHECK_STREQ(SHOWN(container_of(kept_running)).unified[0].value, "9");
        CHECK_STREQ(SHOWN(container_of(kept_running)).unified[1].key, "memory.high");
        CHECK_EQ(SHOWN(container_of(kept_running)).hugepage_limits[0].limit, 8);
        CHECK_EQ(SHOWN(container_of(kept_created)).cpu_shares, 99);
        CHECK_EQ(pod_of(kept_pod)->request.config.linux.overhead.memory_limit_in_bytes, 7);
        CHECK_EQ(pod_of(kept_pod)->request.config.linux.resources.memory_limit_in_bytes, 100);
        damage("containers", kept_running, "resources.pb", "\xff\xff\xff");
        restart();
        CHECK_EQ(SHOWN(container_of(kept_running)).memory_limit_in_bytes, 0);
        end();
}

static int measure(void *userdata) {
        CgroupStats stats;
        TreeUsage sum;
        uint64_t t;

        CHECK_EQ(make_three(NULL), 0);
        CHECK(!manager_sum_layers(manager, &sum, &t));
        walks = 0;
        manager_measure_layers(manager, NULL, container_of(kept_running));
        CHECK_EQ(walks, 1);
        CHECK_EQ(container_of(kept_running)->layer.usage.bytes, 4096);
        CHECK(!manager_sum_layers(manager, &sum, &t));
        /* Not again within a minute; the others are new. */
        manager_measure_layers(manager, NULL, NULL);
        CHECK_EQ(walks, 3);
        manager_measure_layers(manager, pod_of(kept_pod), NULL);
        CHECK_EQ(walks, 3);
        CHECK(manager_sum_layers(manager, &sum, &t));
        CHECK_EQ(sum.bytes, 3 * 4096);
        CHECK_EQ(sum.inodes, 6);
        /* What has ended doesn't change any more. */
        CHECK(container_of(kept_exited)->layer.final && !container_of(kept_running)->layer.final);
        container_of(kept_running)->layer.next_usec = container_of(kept_exited)->layer.next_usec = 0;
        manager_measure_layers(manager, NULL, NULL);
        while (walks < 4)
                CHECK_EQ(fiber_yield(), 0);
        CHECK_EQ(fiber_sleep(1000), 0);
        CHECK_EQ(walks, 4);
        CHECK(!manager->measurer);
        CHECK_EQ(container_read_stats(container_of(kept_exited), 0, &stats, &t, NULL),
                 grpc_code_to_errno(GRPC_FAILED_PRECONDITION));
        /* One that hangs is not waited for. */
        container_of(kept_running)->layer = (LayerUsage) {};
        walk_hangs = true;
        t = now_usec(CLOCK_MONOTONIC);
        manager_measure_layers(manager, NULL, NULL);
        CHECK(now_usec(CLOCK_MONOTONIC) - t < 5 * USEC_PER_SEC);
        CHECK(manager->measurer);
        fiber_cancel(manager->measurer);
        CHECK_EQ(fiber_sleep(1000), 0);
        walk_hangs = false;
        return 0;
}

static void test_layers_are_measured_seldom_and_one_by_one(void) {
        begin();
        CHECK_EQ(fiber_run(event, measure, NULL), 0);
        end();
}

/* Ways to damage a file; false when there are no more. */
static bool damage_file(const char *path, unsigned way) {
        static const char *const texts[] = { "{}", "[]", "\xff\xff\xff\xff", "{\"version\": 2}" };
        _cleanup_free_ char *data = NULL;
        size_t size = 0, n;

        CHECK_EQ(read_file(AT_FDCWD, path, 1 << 20, &data, &size), 0);
        if (way == 0)
                return unlink(path) >= 0;
        if (way == 1)
                return unlink(path) >= 0 && mkdir(path, 0700) >= 0;
        if (way == 2)
                return unlink(path) >= 0 && mkfifo(path, 0600) >= 0;
        if (way == 3)
                return unlink(path) >= 0 && symlink("nowhere", path) >= 0;
        way -= 4;
        if (way < ELEMENTSOF(texts))
                return write_file_atomic(AT_FDCWD, path, texts[way], strlen(texts[way]), 0600, 0) >= 0;
        way -= (unsigned) ELEMENTSOF(texts);
        /* Cut off in places, then flipped in places. */
        n = MIN(size, (size_t) 16);
        if (way < n)
                return truncate(path, (off_t) (size * way / n)) >= 0;
        way -= (unsigned) n;
        n = MIN(size * 8, (size_t) 64);
        if (way >= n)
                return false;
        n = size * 8 * way / n;
        data[n / 8] ^= (char) (1 << n % 8);
        return write_file_atomic(AT_FDCWD, path, data, size, 0600, 0) >= 0;
}

static bool manager_has(const char *kind, const char *id) {
        Container *c;
        Pod *p;

        return streq(kind, "pods") ? manager_find_pod(manager, id, &p, NULL) >= 0 : manager_find_container(manager, id, &c, NULL) >= 0;
}

static int flaws_of(const char *kind, const char *id, StateFlaws *ret) {
        _cleanup_(container_unrefp) Container *c = NULL;
        _cleanup_(pod_unrefp) Pod *p = NULL;

        if (streq(kind, "pods")) {
                CHECK_EQ(pod_new(manager, id, &p), 0);
                return pod_read(p, ret, NULL);
        }
        CHECK_EQ(container_new(manager, NULL, id, &c), 0);
        return container_read(c, ret, NULL);
}

/* In all ways, one after the other, each in a node of its own. */
static void damage_in_all_ways(const char *kind, char **id, const char *file, void (*check)(void)) {
        for (unsigned way = 0; way < 200; way++) {
                _cleanup_free_ char *path = NULL;

                begin();
                CHECK_EQ(fiber_run(event, change_limits, NULL), 0);
                container_state = (EngineContainerState) { .phase = ENGINE_CONTAINER_RUNNING, .started_usec = 1, .pid = 3 };
                path = strprintf("%s/lib/%s/%s/%s", directory, kind, *id, file);
                if (!damage_file(path, way)) {
                        end();
                        CHECK(way > 20);
                        return;
                }
                /* What has been mended stays so. */
                for (unsigned i = 0; i < 2; i++) {
                        StateFlaws flaws = 0;

                        restart();
                        check();
                        if (i > 0 && manager_has(kind, *id)) {
                                CHECK_EQ(flaws_of(kind, *id, &flaws), 0);
                                CHECK_EQ(flaws, 0);
                        }
                }
                CHECK_EQ(fiber_run(event, remove_kept, NULL), 0);
                CHECK_EQ(HASH_COUNT(manager->pods), 0);
                CHECK_EQ(entries_of("lib/pods") + entries_of("lib/containers"), 0);
                end();
        }
}

static void check_pod(void) {
        CHECK_EQ(pod_of(kept_pod)->phase, POD_READY);
        CHECK_STREQ(pod_of(kept_pod)->request.config.metadata.name, "a");
        CHECK_STREQ(pod_of(kept_pod)->request.config.log_directory, "/tmp");
        CHECK(startswith(pod_of(kept_pod)->slice, "rktlet-"));
        CHECK(pod_of(kept_pod)->created_usec > 0 && pod_of(kept_pod)->created_usec <= now_usec(CLOCK_REALTIME));
}

static void check_running(void) {
        CHECK_EQ(container_of(kept_running)->phase, CONTAINER_RUNNING);
        CHECK_EQ(container_of(kept_running)->pid, 3);
        CHECK_STREQ(container_of(kept_running)->image_id, "sha256:feed");
        CHECK(container_of(kept_running)->info.stop_signal == 15);
        CHECK(container_of(kept_running)->holds_layers);
}

static void check_others(void) {
        check_pod();
        CHECK_EQ(container_of(kept_created)->phase, CONTAINER_RUNNING);
        CHECK_EQ(container_of(kept_exited)->phase, CONTAINER_EXITED);
        CHECK_EQ(container_of(kept_exited)->exit_code, 143);
}

static void check_all(void) {
        check_others();
        check_running();
        CHECK_EQ(HASH_COUNT(manager->containers), 3);
}

static void test_a_damaged_pod_state_costs_nothing(void) {
        damage_in_all_ways("pods", &kept_pod, "state.json", check_all);
}

static void test_a_damaged_pod_request_is_made_again_from_a_containers(void) {
        damage_in_all_ways("pods", &kept_pod, "request.pb", check_all);
}

static void test_a_damaged_container_state_costs_nothing(void) {
        damage_in_all_ways("containers", &kept_running, "state.json", check_all);
}

static void test_a_damaged_container_request_costs_at_most_that_container(void) {
        damage_in_all_ways("containers", &kept_running, "request.pb", check_others);
}

static void test_damaged_limits_cost_nothing_else(void) {
        damage_in_all_ways("containers", &kept_running, "resources.pb", check_all);
        damage_in_all_ways("pods", &kept_pod, "resources.pb", check_all);
}

static int run_again(void *userdata) {
        return run_pod("again", NULL, NULL);
}

static void test_folders_that_are_none_or_missing_cost_no_start(void) {
        static const char *const names[] = { "pods", "containers" };

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                for (unsigned way = 0; way < 3; way++) {
                        _cleanup_free_ char *path = NULL;

                        begin();
                        CHECK_EQ(fiber_run(event, make_three, NULL), 0);
                        path = strprintf("%s/lib/%s", directory, names[i]);
                        CHECK_EQ(remove_tree(AT_FDCWD, path), 0);
                        if (way == 1)
                                CHECK_EQ(write_file_atomic(AT_FDCWD, path, "x", 1, 0600, 0), 0);
                        else if (way == 2)
                                CHECK(symlink("nowhere", path) >= 0);
                        container_state = (EngineContainerState) { .phase = ENGINE_CONTAINER_RUNNING, .started_usec = 1, .pid = 3 };
                        restart();
                        CHECK_EQ(HASH_COUNT(manager->containers), 0);
                        CHECK_EQ(HASH_COUNT(manager->pods), i == 0 ? 0 : 1);
                        if (i == 1)
                                check_pod();
                        CHECK_EQ(fiber_run(event, run_again, NULL), 0);
                        end();
                }
}

static void test_what_was_never_begun_or_half_removed_leaves_nothing(void) {
        static const char id[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        _cleanup_free_ char *text = strprintf("{\"version\": 1, \"phase\": \"starting\", \"slice\": \"a.slice\", \"id\": \"%s\"}", id);

        for (unsigned way = 0; way < 3; way++) {
                _cleanup_free_ char *path = NULL;

                begin();
                path = strprintf("%s/lib/pods/%s%s", directory, way == 2 ? ".removing-" : "", id);
                CHECK(mkdir(path, 0700) >= 0);
                if (way == 1)
                        damage("pods", id, "state.json", text);
                if (way == 2)
                        damage("pods", strrchr(path, '/') + 1, "request.pb", "x");
                restart();
                CHECK_EQ(HASH_COUNT(manager->pods), 0);
                CHECK_EQ(entries_of("lib/pods"), 0);
                end();
        }
}

/* What the checker finds, and its text. */
static unsigned run_check(bool repair, char **ret_text, unsigned *ret_repaired) {
        _cleanup_free_ char *state = strprintf("%s/lib", directory), *run = strprintf("%s/run", directory);
        _cleanup_strv_free_ char **layers = NULL;
        Check check = { .repair = repair };
        char *text = NULL;
        size_t size;
        bool sure;

        check.out = open_memstream(&text, &size);
        CHECK_EQ(manager_check(&(ManagerConfig) { .state_directory = state, .run_directory = run, .default_slice = "rktlet.slice" },
                               NULL, &check, &layers, &sure, NULL), 0);
        fclose(check.out);
        CHECK(check.n_looked >= 3);
        if (ret_repaired)
                *ret_repaired = check.n_repaired;
        if (ret_text)
                *ret_text = text;
        else
                free(text);
        return check.n_found;
}

static void check_checker(const char *kind, char **id, const char *file, void (*check)(void)) {
        unsigned way, n_found = 0;

        for (way = 0; way < 200; way++) {
                _cleanup_free_ char *path = NULL, *text = NULL, *text2 = NULL;
                unsigned found, repaired = 0;
                bool more;

                begin();
                CHECK_EQ(fiber_run(event, change_limits, NULL), 0);
                container_state = (EngineContainerState) { .phase = ENGINE_CONTAINER_RUNNING, .started_usec = 1, .pid = 3 };
                CHECK_EQ(run_check(false, NULL, NULL), 0);
                path = strprintf("%s/lib/%s/%s/%s", directory, kind, *id, file);
                more = damage_file(path, way);
                if (!more) {
                        end();
                        break;
                }
                manager = manager_free(manager);
                found = run_check(false, &text, NULL);
                /* The name of the seal itself, or a flip that limits survive: nothing else goes by. */
                n_found += found > 0;
                CHECK_EQ(run_check(false, NULL, NULL), found);
                CHECK_EQ(run_check(true, &text2, &repaired), found);
                CHECK_EQ(repaired, found);
                if (found > 0) {
                        CHECK(strstr(text, *id) && strstr(text, file) && strstr(text, "Lost: ") && strstr(text, "With --repair: "));
                        CHECK(strstr(text2, "Repaired: "));
                }
                CHECK_EQ(run_check(false, NULL, NULL), 0);
                open_manager();
                CHECK_EQ(fiber_run(event, load, NULL), 0);
                check();
                end();
        }
        CHECK(n_found * 10 >= way * (streq(file, "resources.pb") ? 4U : 8U));
}

static void test_the_checker_finds_and_mends_each_damage(void) {
        check_checker("pods", &kept_pod, "state.json", check_all);
        check_checker("pods", &kept_pod, "request.pb", check_all);
        check_checker("pods", &kept_pod, "resources.pb", check_all);
        check_checker("containers", &kept_running, "state.json", check_all);
        check_checker("containers", &kept_running, "resources.pb", check_all);
}

static void test_the_checker_finds_what_is_left_over(void) {
        static const char *const names[] = {
                "lib/.version.json.0123456789abcdef", "lib/pods/.removing-x", "run/pods/00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
                "run/containers/00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
                "lib/containers/00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        };
        _cleanup_free_ char *foreign = NULL, *lost = NULL, *text = NULL;
        struct stat st;

        begin();
        CHECK_EQ(fiber_run(event, make_three, NULL), 0);
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_free_ char *path = strprintf("%s/%s", directory, names[i]);

                CHECK(mkdir(path, 0700) >= 0);
        }
        foreign = strprintf("%s/lib/pods/somebody's", directory);
        CHECK(mkdir(foreign, 0700) >= 0);
        damage("containers", kept_exited, "request.pb", "\xff\xff");
        manager = manager_free(manager);
        /* Its folder below run/ belongs to nothing then. */
        CHECK_EQ(run_check(false, NULL, NULL), ELEMENTSOF(names) + 2);
        CHECK_EQ(run_check(true, &text, NULL), ELEMENTSOF(names) + 2);
        CHECK_EQ(run_check(false, NULL, NULL), 0);
        CHECK(strstr(text, "somebody's: this is not rktlet's, and left alone."));
        CHECK(stat(foreign, &st) >= 0);
        lost = strprintf("%s/lib/damaged/containers-%s/request.pb", directory, kept_exited);
        CHECK(stat(lost, &st) >= 0);
        open_manager();
        CHECK_EQ(fiber_run(event, load, NULL), 0);
        CHECK_EQ(HASH_COUNT(manager->containers), 2);
        end();
}

static void test_a_state_of_a_later_version_is_refused_and_not_touched(void) {
        _cleanup_free_ char *state = strprintf("%s/lib", directory), *version = NULL, *text = NULL;
        _cleanup_error_ Error error = ERROR_INIT, error2 = ERROR_INIT;
        _cleanup_strv_free_ char **layers = NULL;
        Check check = { .repair = true, .out = stderr };
        ManagerConfig config = { .default_slice = "rktlet.slice" };
        Manager *m = NULL;
        bool sure;

        begin();
        free(state);
        state = strprintf("%s/lib", directory);
        version = strprintf("%s/version.json", state);
        CHECK_EQ(read_file(AT_FDCWD, version, 1000, &text, NULL), 0);
        manager = manager_free(manager);
        CHECK_EQ(write_file_atomic(AT_FDCWD, version, "{\"version\": 99}", 15, 0600, 0), 0);
        config.state_directory = config.run_directory = state;
        CHECK(manager_new(event, &config, NULL, NULL, NULL, &m, &error) < 0);
        CHECK_EQ(error.code, GRPC_FAILED_PRECONDITION);
        CHECK(strstr(error.message, "is of version 99, this rktlet"));
        CHECK(manager_check(&config, NULL, &check, &layers, &sure, &error2) < 0);
        CHECK(strstr(error2.message, "is of version 99, this rktlet"));
        /* One from before there was a version is taken over. */
        CHECK(unlink(version) >= 0);
        open_manager();
        CHECK_EQ(access(version, F_OK), 0);
        end();
}

TEST_MAIN(TEST_CASE(test_a_request_whose_answer_was_lost_gets_the_same_again),
          TEST_CASE(test_a_start_that_failed_is_not_taken_for_one_that_was_answered),
          TEST_CASE(test_after_a_restart_a_pod_is_answered_once_more),
          TEST_CASE(test_a_pod_and_a_container_live_and_go), TEST_CASE(test_a_failure_at_any_step_leaves_nothing),
          TEST_CASE(test_a_cancelled_pod_is_undone_and_its_retry_works_at_once),
          TEST_CASE(test_a_restart_knows_all_and_takes_over_what_happened),
          TEST_CASE(test_after_a_reboot_all_is_known_exited_and_removable),
          TEST_CASE(test_damaged_files_cost_only_their_own_object), TEST_CASE(test_a_damaged_pod_state_costs_nothing),
          TEST_CASE(test_a_damaged_pod_request_is_made_again_from_a_containers),
          TEST_CASE(test_a_damaged_container_state_costs_nothing),
          TEST_CASE(test_a_damaged_container_request_costs_at_most_that_container),
          TEST_CASE(test_damaged_limits_cost_nothing_else), TEST_CASE(test_folders_that_are_none_or_missing_cost_no_start),
          TEST_CASE(test_what_was_never_begun_or_half_removed_leaves_nothing),
          TEST_CASE(test_the_checker_finds_and_mends_each_damage), TEST_CASE(test_the_checker_finds_what_is_left_over),
          TEST_CASE(test_a_state_of_a_later_version_is_refused_and_not_touched),
          TEST_CASE(test_limits_are_merged_saved_and_known_after_a_restart),
          TEST_CASE(test_layers_are_measured_seldom_and_one_by_one),
          TEST_CASE(test_bad_requests_are_refused_before_anything_begins))
