#include "cri/test-stub.h"

#include <signal.h>

#include "image/reference.h"

/* --- what lies below -------------------------------------------------------------------------------------------- */

Stub stub;

static int stub_result(Error *error, const char *text) {
        return stub.result < 0 ? error_set(error, stub.result, "%s", text) : 0;
}

int manager_wait_loaded(Manager *m, Error *error) {
        return stub.loaded < 0 ? error_setf(error, GRPC_UNAVAILABLE, "still loading") : 0;
}
int log_fields_of(const Pod *p, const Container *c, char ***fields) {
        return strv_extendf(fields, "POD_ID=%s", p->id);
}
int manager_find_pod(Manager *m, const char *id, Pod **ret, Error *error) {
        if (isempty(id) || streq(id, "ambiguous"))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "bad pod ID \"%s\"", id);
        for (Pod *p = m->pods; p; p = p->hh.next)
                if (startswith(p->id, id)) {
                        *ret = p;
                        return 0;
                }
        return error_setf(error, GRPC_NOT_FOUND, "no pod \"%s\"", id);
}
int manager_find_container(Manager *m, const char *id, Container **ret, Error *error) {
        if (isempty(id) || streq(id, "ambiguous"))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "bad container ID \"%s\"", id);
        for (Container *k = m->containers; k; k = k->hh.next)
                if (startswith(k->id, id)) {
                        *ret = k;
                        return 0;
                }
        return error_setf(error, GRPC_NOT_FOUND, "no container \"%s\"", id);
}
int manager_network_status(Manager *m, Error *error) {
        return stub.network < 0 ? error_setf(error, GRPC_UNAVAILABLE, "no conf in /etc/cni/net.d") : 0;
}
int manager_set_pod_cidrs(Manager *m, const char *cidrs, Error *error) {
        CHECK(strlen(cidrs) < sizeof stub.pod_cidrs);
        strcpy(stub.pod_cidrs, cidrs);
        return stub.network < 0 ? error_setf(error, GRPC_INVALID_ARGUMENT, "no CIDR") : 0;
}
void manager_subscribe(Manager *m, ManagerSubscription *s) {
        s->next = m->subscriptions;
        m->subscriptions = s;
}
void manager_unsubscribe(Manager *m, ManagerSubscription *s) {
        CHECK(m->subscriptions == s);
        m->subscriptions = s->next;
}
const char *pod_phase_to_string(PodPhase p) {
        return p == POD_READY ? "ready" : "not-ready";
}
const char *container_phase_to_string(ContainerPhase p) {
        return p == CONTAINER_RUNNING ? "running" : "exited";
}
Pod *pod_ref(Pod *p) {
        p->n_ref++;
        return p;
}
Pod *pod_unref(Pod *p) {
        CHECK(p->n_ref-- > 0);
        return NULL;
}
Container *container_ref(Container *k) {
        k->n_ref++;
        return k;
}
Container *container_unref(Container *k) {
        CHECK(k->n_ref-- > 0);
        return NULL;
}
int pod_run(Manager *m, const void *request, size_t size, Pod **ret, Error *error) {
        stub.raw = request;
        stub.raw_size = size;
        *ret = m->pods;
        return stub_result(error, "cannot run the pod");
}
int pod_stop(Pod *p, Error *error) {
        stub.pod = p;
        return stub_result(error, "cannot stop the pod");
}
int pod_remove(Pod *p, Error *error) {
        stub.pod = p;
        return stub_result(error, "cannot remove the pod");
}
int container_create(Manager *m, const void *request, size_t size, Container **ret, Error *error) {
        stub.raw = request;
        stub.raw_size = size;
        *ret = m->containers;
        return stub_result(error, "cannot create the container");
}
int container_start(Container *k, Error *error) {
        stub.container = k;
        for (ManagerSubscription *sub = manager.subscriptions; sub; sub = sub->next)
                sub->func(&manager, MANAGER_CONTAINER_STARTED, k->pod, k, sub->userdata);
        return stub_result(error, "cannot start the container");
}
int container_stop(Container *k, uint64_t timeout_usec, Error *error) {
        stub.container = k;
        stub.timeout_usec = timeout_usec;
        return stub_result(error, "cannot stop the container");
}
int container_remove(Container *k, Error *error) {
        stub.container = k;
        return stub_result(error, "cannot remove the container");
}
int container_reopen_log(Container *k, Error *error) {
        stub.container = k;
        return stub_result(error, "cannot reopen the log");
}
int container_exec_sync(Container *k, const char *const *argv, uint64_t timeout_usec, EngineExecResult *ret,
                        Error *error) {
        stub.container = k;
        stub.timeout_usec = timeout_usec;
        free(stub.argv);
        stub.argv = strv_join((char *const *) argv, "|");
        if (stub.result < 0)
                return stub.result;
        *ret = stub.exec;
        return 0;
}
int container_check_running(const Container *k, const char *what, Error *error) {
        return k->phase == CONTAINER_RUNNING ? 0 : error_setf(error, GRPC_FAILED_PRECONDITION, "not running");
}
int pod_check_ready(const Pod *p, const char *what, Error *error) {
        return p->phase == POD_READY ? 0 : error_setf(error, GRPC_FAILED_PRECONDITION, "not ready");
}
int container_exec(Container *k, const EngineExec *exec, int *ret_exit_code, Error *error) {
        return stub_result(error, "cannot execute");
}
int container_attach(Container *k, EngineAttachFlags flags, int *ret_fd, Error *error) {
        return stub_result(error, "cannot attach");
}
int pod_netns(Pod *p, char **ret, Error *error) {
        stub.pod = p;
        *ret = NULL;
        return stub_result(error, "no such namespace");
}
int container_update(Container *k, const runtime_v1_LinuxContainerResources *resources, Error *error) {
        stub.container = k;
        stub.memory_limit = resources->memory_limit_in_bytes;
        return stub_result(error, "cannot change the limits");
}
int pod_update(Pod *p, const runtime_v1_LinuxContainerResources *overhead,
               const runtime_v1_LinuxContainerResources *resources, Error *error) {
        stub.pod = p;
        stub.memory_limit = (overhead ? overhead->memory_limit_in_bytes : 0) +
                            (resources ? resources->memory_limit_in_bytes : 0);
        return stub_result(error, "cannot change the limits");
}

/* Figures that tell which is which; without a memory controller when stub.no_memory. */
static CgroupStats figures(void) {
        uint64_t memory = stub.no_memory ? STAT_UNKNOWN : 0;
        CgroupStats s = {
                .timestamp_nsec = 1700000000000000005,
                .cpu_usage_nsec = 61000000000,
                .cpu_user_nsec = 40000000000,
                .cpu_system_nsec = 21000000000,
                .cpu_periods = STAT_UNKNOWN,
                .cpu_throttled_periods = STAT_UNKNOWN,
                .cpu_throttled_nsec = STAT_UNKNOWN,
                .memory_usage = memory + 1000,
                .memory_limit = memory + 5000,
                .memory_working_set = memory + 900,
                .memory_anon = memory + 800,
                .memory_file = memory + 100,
                .memory_file_mapped = memory + 10,
                .memory_kernel = memory + 20,
                .memory_page_faults = memory + 30,
                .memory_major_page_faults = memory + 3,
                .swap_usage = memory + 64,
                .swap_limit = STAT_UNKNOWN,
                .memory_pressure = { true, { 1.5, 2.5, 3.5, 4000000 }, { .total_usec = 3000000 } },
                .memory_peak = memory + 2000,
                .memory_limit_hits = memory,
                .oom_kills = memory,
                .processes = 2,
                .threads = 3,
                .threads_limit = STAT_UNKNOWN,
                .devices = { { 7, 255, 11, 12, 13, 14 } },
                .n_devices = 1,
        };
        uint64_t *const unknown[] = { &s.memory_usage, &s.memory_limit, &s.memory_working_set, &s.memory_anon,
                                      &s.memory_file, &s.memory_file_mapped, &s.memory_kernel, &s.memory_page_faults,
                                      &s.memory_major_page_faults, &s.swap_usage, &s.memory_peak };

        for (size_t i = 0; stub.no_memory && i < ELEMENTSOF(unknown); i++)
                *unknown[i] = STAT_UNKNOWN;
        s.memory_pressure.known = !stub.no_memory;
        return s;
}
int container_read_stats(Container *k, CgroupStatsFlags flags, CgroupStats *ret, uint64_t *ret_nano_cores,
                         Error *error) {
        if (k->phase != CONTAINER_RUNNING)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s is not running", k->id);
        *ret = figures();
        *ret_nano_cores = 250000000;
        return 0;
}
int pod_read_stats(Pod *p, CgroupStatsFlags flags, CgroupStats *ret, uint64_t *ret_nano_cores, Error *error) {
        if (p->phase != POD_READY)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "pod %s is not running", p->id);
        *ret = figures();
        *ret_nano_cores = STAT_UNKNOWN;
        return 0;
}
bool container_read_limits(const Container *k, runtime_v1_LinuxContainerResources *resources) {
        return false;
}
const char *container_cgroup(const Container *k) {
        return "/kubepods.slice/rktlet-ctr-x.service";
}
int container_checkpoint(Container *k, const char *location, uint64_t timeout_usec, Error *error) {
        return 0;
}

char *container_spec(Container *k) {
        return strdup("{\"ociVersion\":\"1.0.2\"}");
}

char *pod_cgroup(const Pod *p) {
        return strdup("/kubepods.slice");
}
uint64_t pod_count_processes(Pod *p) {
        return 7;
}
void container_count_descriptors(Container *k, uint64_t *ret_files, uint64_t *ret_sockets) {
        *ret_files = 9;
        *ret_sockets = 4;
}
size_t pod_read_network(Pod *p, NetInterface ret[static NET_INTERFACES_MAX]) {
        if (stub.no_network)
                return 0;
        ret[0] = (NetInterface) { "net1", 1, 2, 3, 4, 5, 6, 7, 8 };
        ret[1] = (NetInterface) { "eth0", 11, 12, 13, 14, 15, 16, 17, 18 };
        return 2;
}
void manager_measure_layers(Manager *m, Pod *pod, Container *c) {
        stub.measured++;
}
bool manager_sum_layers(Manager *m, TreeUsage *ret, uint64_t *ret_timestamp_nsec) {
        if (stub.no_layers)
                return false;
        *ret = (TreeUsage) { 8192, 5 };
        *ret_timestamp_nsec = 7000000002;
        return true;
}

void engine_exec_result_done(EngineExecResult *r) {
}

Image *image_ref(Image *i) {
        i->n_ref++;
        return i;
}
Image *image_unref(Image *i) {
        CHECK(i->n_ref-- > 0);
        return NULL;
}
const char *image_store_layers_path(const ImageStore *s) {
        return NULL;
}

int image_store_refresh(ImageStore *s, Error *error) {
        return 0;
}

Image *image_store_find(ImageStore *s, const char *reference) {
        for (size_t i = 0; stub.images[i]; i++)
                if (streq(stub.images[i]->id, reference) || strv_contains(stub.images[i]->repo_tags, reference))
                        return stub.images[i];
        return NULL;
}
Image **image_store_list(ImageStore *s) {
        Image **l = calloc(ELEMENTSOF(stub.images), sizeof(Image *));

        memcpy(l, stub.images, sizeof stub.images);
        return l;
}
int image_store_pulls(ImageStore *s_, ImagePullProgress **ret, size_t *ret_n) {
        return -ENOSYS;
}

int image_store_pull(ImageStore *s, const char *reference, const ImageAuth *auth, Image **ret, Error *error) {
        free(stub.auth);
        stub.auth = auth ? strprintf("%s|%s|%s|%s|%s|%s", strempty(auth->username), strempty(auth->password),
                                     strempty(auth->auth), strempty(auth->server_address),
                                     strempty(auth->identity_token), strempty(auth->registry_token))
                         : NULL;
        if (stub.result < 0)
                return stub_result(error, "no such image in the registry");
        *ret = image_ref(stub.images[0]);
        return 0;
}
int image_store_remove(ImageStore *s, const char *reference, Error *error) {
        return stub_result(error, "cannot remove the image");
}
int image_store_fs_info(ImageStore *s, ImageFsInfo *ret, Error *error) {
        *ret = (ImageFsInfo) { 7000000001, strdup("/var"), 4096, 3 };
        return 0;
}
void image_fs_info_done(ImageFsInfo *i) {
        free(i->mountpoint);
}
/* "name:tag" is all this needs of the grammar. */
int image_reference_parse(const char *text, ImageReference *ret, Error *error) {
        const char *colon = strrchr(text, ':');

        *ret = (ImageReference) {
                .name = colon ? strprintf("docker.io/library/%.*s", (int) (colon - text), text)
                              : strprintf("docker.io/library/%s", text),
                .tag = strdup(colon ? colon + 1 : "latest"),
        };
        return 0;
}
void image_reference_done(ImageReference *r) {
        free(r->name);
        free(r->tag);
}

bool systemd_is_connected(const Systemd *s) {
        return stub.systemd >= 0;
}
int systemd_connect(Systemd *s, Error *error) {
        return error_setf(error, GRPC_UNAVAILABLE, "no bus");
}
const char *systemd_version(const Systemd *s) {
        return "252";
}
const char *cni_network_name(Cni *c) {
        return NULL;
}

/* --- a manager by hand ------------------------------------------------------------------------------------------ */

Manager manager;
Cri *cri;
Pod pods[3];
Container containers[4];
Image images[3];

static void make_pod(Pod *p, char digit, const char *name, PodPhase phase) {
        *p = (Pod) { .manager = &manager, .phase = phase, .created_usec = 1700000000000001 };
        memset(p->id, digit, ID_LENGTH);
        p->unit = s("rktlet-pod-x.service");
        p->slice = s("kubepods.slice");
        p->directory = s("/var/lib/rktlet/pods/x");
        p->run_directory = s("/run/rktlet/pods/x");
        p->request.has_config = true;
        p->request.config.has_metadata = true;
        p->request.config.metadata = (runtime_v1_PodSandboxMetadata) { s(name), s("uid-1"), s("default"), 2 };
        HASH_ADD(hh, manager.pods, id, ID_LENGTH, p);
}

void make_container(Container *k, char digit, Pod *p, const char *name, ContainerPhase phase) {
        *k = (Container) { .manager = &manager, .pod = p, .phase = phase, .created_usec = 1700000000000002 };
        memset(k->id, digit, ID_LENGTH);
        k->unit = s("rktlet-ctr-x.service");
        k->image_id = s("sha256:aa");
        k->info.uid = k->info.gid = -1;
        k->request.has_config = true;
        k->request.config.has_metadata = true;
        k->request.config.metadata = (runtime_v1_ContainerMetadata) { s(name), 1 };
        k->request.config.has_image = true;
        k->request.config.image.image = s("nginx");
        k->pod_next = p->containers;
        p->containers = k;
        HASH_ADD(hh, manager.containers, id, ID_LENGTH, k);
}

void build(void) {
        static runtime_v1_PodSandboxConfig_LabelsEntry labels[] = {
                { (char *) "app", (char *) "old" },
                { (char *) "tier", (char *) "web" },
                { (char *) "app", (char *) "shop" }, /* given twice: this one counts */
        };
        static runtime_v1_PodSandboxConfig_AnnotationsEntry annotations[] = { { (char *) "note", NULL } };
        static char *tags[] = { (char *) "docker.io/library/nginx:1", (char *) "docker.io/library/nginx:2", NULL };
        static char *digests[] = { (char *) "docker.io/library/nginx@sha256:cc", NULL };

        HASH_CLEAR(hh, manager.pods);
        HASH_CLEAR(hh, manager.containers);
        manager = (Manager) { .config = { "/var/lib/rktlet", "/run/rktlet", "rktlet.slice", 0 } };
        free(stub.argv);
        free(stub.auth);
        memset(&stub, 0, sizeof stub);
        make_pod(&pods[0], 'a', "web", POD_READY);
        make_pod(&pods[1], 'b', "batch", POD_NOT_READY);
        make_pod(&pods[2], 'c', "starting", POD_STARTING);
        pods[0].request.config.labels = labels;
        pods[0].request.config.labels_count = 3;
        pods[0].request.config.annotations = annotations;
        pods[0].request.config.annotations_count = 1;
        make_container(&containers[0], '1', &pods[0], "main", CONTAINER_RUNNING);
        make_container(&containers[1], '2', &pods[0], "init", CONTAINER_EXITED);
        make_container(&containers[2], '3', &pods[1], "job", CONTAINER_UNKNOWN);
        make_container(&containers[3], '4', &pods[0], "creating", CONTAINER_CREATING);
        containers[0].request.config.labels = (void *) labels;
        containers[0].request.config.labels_count = 3;

        images[0] = (Image) { .id = s("sha256:aa"), .repo_tags = tags, .repo_digests = digests, .size = 1234 };
        images[1] = (Image) { .id = s("sha256:bb"), .config.user = s("1000:2000"), .pinned = true };
        images[2] = (Image) { .id = s("sha256:cc"), .config.user = s("www-data:www-data") };
        for (size_t i = 0; i < 3; i++)
                stub.images[i] = &images[i];
        if (!cri)
                CHECK_EQ(cri_new(&manager, &cri), 0);
}

void fill_container(Container *k) {
        static int64_t groups[] = { 5, 6 };
        static runtime_v1_Mount mounts[2];
        static char *args[] = { (char *) "-c", (char *) "exit 3" };
        static runtime_v1_KeyValue envs[1];

        mounts[0] = (runtime_v1_Mount) {
                .container_path = s("/data"),
                .host_path = s("/srv"),
                .readonly = true,
                .propagation = runtime_v1_MountPropagation_PROPAGATION_BIDIRECTIONAL,
        };
        mounts[1] = (runtime_v1_Mount) { .container_path = s("/img"), .has_image = true, .image.image = s("data:1") };
        envs[0] = (runtime_v1_KeyValue) { s("K"), (char *) "\xffx" };
        k->started_usec = 1700000000000003;
        k->finished_usec = 1700000000000004;
        k->exit_code = 137;
        k->pid = 99;
        k->reason = s("OOMKilled");
        k->message = s("out of memory");
        k->log_path = s("/var/log/pods/x/main/0.log");
        k->image = &images[0];
        k->info = (EngineContainerInfo) { 1000, 2000, groups, 2, SIGQUIT };
        k->request.config.mounts = mounts;
        k->request.config.mounts_count = 2;
        k->request.config.args = args;
        k->request.config.args_count = 2;
        k->request.config.envs = envs;
        k->request.config.envs_count = 1;
        k->request.config.has_linux = true;
        k->request.config.linux.has_resources = true;
        k->request.config.linux.resources.cpu_shares = 512;
        k->request.config.linux.resources.oom_score_adj = -5;
}
