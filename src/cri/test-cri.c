/* The handlers over a manager built by hand: below them everything is a stub of this file. */

#include "basic/fiber.h"
#include "basic/json-util.h"
#include "basic/log.h"
#include "basic/test.h"
#include "cri/describe.h"
#include "cri/internal.h"
#include "cri/stream.h"
#include "image/reference.h"

#include <signal.h>

/* --- the transport ---------------------------------------------------------------------------------------------- */

struct GrpcCall {
        const GrpcMethod *method;
        struct {
                uint8_t *data;
                size_t size;
        } sent[64];
        size_t n_sent;
};

void *grpc_message_alloc(size_t size) {
        return malloc(size);
}
void *grpc_message_realloc(void *message, size_t size) {
        return realloc(message, size);
}
void grpc_message_free(void *message) {
        free(message);
}
int grpc_call_send_take(GrpcCall *c, void *message, size_t size) {
        CHECK(c->n_sent < ELEMENTSOF(c->sent));
        CHECK(size <= GRPC_MESSAGE_MAX);
        c->sent[c->n_sent].data = message;
        c->sent[c->n_sent++].size = size;
        return 0;
}
const GrpcMethod *grpc_call_method(const GrpcCall *c) {
        return c->method;
}

/* --- what lies below -------------------------------------------------------------------------------------------- */

static struct {
        const void *raw;
        size_t raw_size;
        Pod *pod;
        Container *container;
        uint64_t timeout_usec;
        char *argv;
        EngineExecResult exec;
        char *auth;
        Image *images[8];
        int result; /* of operations */
        int loaded, network, systemd;
} stub;

static int stub_result(Error *error, const char *text) {
        return stub.result < 0 ? error_set(error, stub.result, "%s", text) : 0;
}

int manager_wait_loaded(Manager *m, Error *error) {
        return stub.loaded < 0 ? error_setf(error, GRPC_UNAVAILABLE, "still loading") : 0;
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

static Manager manager;
static Cri *cri;
static Pod pods[3];
static Container containers[4];
static Image images[3];

static char *s(const char *text) {
        return (char *) text;
}

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

static void make_container(Container *k, char digit, Pod *p, const char *name, ContainerPhase phase) {
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

static void build(void) {
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

/* --- calling ---------------------------------------------------------------------------------------------------- */

static GrpcCall call;
static Error last_error;

static void clear_call(void) {
        for (size_t i = 0; i < call.n_sent; i++)
                free(call.sent[i].data);
        call = (GrpcCall) {};
        error_clear(&last_error);
}

static int call_raw(const char *method, const void *data, size_t size) {
        const GrpcMethod *m;

        clear_call();
        for (m = cri_methods(); m->path; m++)
                if (streq(strrchr(m->path, '/') + 1, method))
                        break;
        CHECK(m->path);
        call.method = m;
        return m->handler(&call, data, size, cri, &last_error);
}

static int call_message(const char *method, const pb_msgdesc_t *fields, const void *request) {
        _cleanup_free_ void *data = NULL;
        size_t size;

        CHECK_EQ(message_encode(fields, request, NULL, SIZE_MAX, &data, &size, NULL), 0);
        return call_raw(method, data, size);
}
#define CALL(method, ...)                                                                                             \
        call_message(#method, runtime_v1_##method##Request_fields, &(runtime_v1_##method##Request){ __VA_ARGS__ })

static void decode_reply(size_t i, const pb_msgdesc_t *fields, void *ret) {
        pb_istream_t stream;

        CHECK(i < call.n_sent);
        stream = pb_istream_from_buffer(call.sent[i].data, call.sent[i].size);
        CHECK(pb_decode(&stream, fields, ret));
}
#define REPLY(method, ret)                                                                                            \
        ({                                                                                                            \
                CHECK_EQ(call.n_sent, 1);                                                                             \
                decode_reply(0, runtime_v1_##method##Response_fields, (ret));                                         \
        })
#define RELEASE(method, reply) pb_release(runtime_v1_##method##Response_fields, (reply))

/* Lists are callbacks: the first byte of each entry's ID is enough to know it. */
static char ids[8192];
static bool collect_ids(pb_istream_t *stream, const pb_field_iter_t *field, void **arg) {
        const pb_msgdesc_t *fields = *arg;
        union {
                runtime_v1_PodSandbox pod;
                runtime_v1_Container container;
                runtime_v1_Image image;
        } u = {};
        const char *id;

        CHECK(pb_decode(stream, fields, &u));
        id = fields == runtime_v1_PodSandbox_fields  ? u.pod.id
             : fields == runtime_v1_Container_fields ? u.container.id
                                                     : u.image.id;
        if (strlen(ids) < sizeof ids - 1)
                ids[strlen(ids)] = startswith(id, "sha256:") ? id[7] : id[0];
        pb_release(fields, &u);
        return true;
}
#define LISTED(method, list_field, type)                                                                              \
        ({                                                                                                            \
                runtime_v1_##method##Response _r = { .list_field = { { .decode = collect_ids },                       \
                                                                     (void *) runtime_v1_##type##_fields } };         \
                memset(ids, 0, sizeof ids);                                                                           \
                for (size_t _i = 0; _i < call.n_sent; _i++)                                                           \
                        decode_reply(_i, runtime_v1_##method##Response_fields, &_r);                                  \
                ids;                                                                                                  \
        })

/* --- tests ------------------------------------------------------------------------------------------------------ */

static void test_all_methods_are_there(void) {
        const GrpcMethod *methods = cri_methods();
        size_t n = 0, unimplemented = 0;

        build();
        for (const GrpcMethod *m = methods; m->path; m++, n++) {
                const CriMethod *detail = m->data;

                CHECK(startswith(m->path, "/runtime.v1.RuntimeService/") ||
                      startswith(m->path, "/runtime.v1.ImageService/"));
                CHECK_STREQ(strrchr(m->path, '/') + 1, detail->name);
                for (const GrpcMethod *o = methods; o < m; o++)
                        CHECK(!streq(o->path, m->path));
                if (detail->serve)
                        continue;
                unimplemented++;
                CHECK(call_raw(detail->name, "", 0) < 0);
                CHECK_EQ(last_error.code, GRPC_UNIMPLEMENTED);
                CHECK(strstr(last_error.message, detail->name));
        }
        CHECK_EQ(n, 41);
        CHECK(unimplemented < n);
}

static void test_damaged_requests(void) {
        build();
        CHECK_EQ(call_raw("ContainerStatus", "\x0a\x05x", 3), -EINVAL);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK_EQ(call_raw("StopContainer", "\x0a\x01\xff", 3), -EINVAL);
        CHECK(strstr(last_error.message, "not UTF-8"));
        CHECK_EQ(call.n_sent, 0);
}

static void test_version_while_loading(void) {
        runtime_v1_VersionResponse version = {};

        build();
        stub.loaded = -1;
        CHECK_EQ(CALL(Version), 0);
        REPLY(Version, &version);
        CHECK_STREQ(version.version, "0.1.0");
        CHECK_STREQ(version.runtime_name, "rktlet");
        CHECK_STREQ(version.runtime_version, PROJECT_VERSION);
        CHECK_STREQ(version.runtime_api_version, "v1");
        RELEASE(Version, &version);
        CHECK(CALL(Status) < 0);
        CHECK_EQ(last_error.code, GRPC_UNAVAILABLE);
}

static void test_status(void) {
        runtime_v1_StatusResponse status = {};
        _cleanup_json_ json_t *info = NULL;

        build();
        CHECK_EQ(CALL(Status, .verbose = true), 0);
        REPLY(Status, &status);
        CHECK_EQ(status.status.conditions_count, 2);
        CHECK_STREQ(status.status.conditions[0].type, "RuntimeReady");
        CHECK(status.status.conditions[0].status);
        CHECK_STREQ(status.status.conditions[1].type, "NetworkReady");
        CHECK(status.status.conditions[1].status);
        CHECK_EQ(status.runtime_handlers_count, 1);
        CHECK(status.runtime_handlers[0].has_features);
        CHECK_EQ(status.info_count, 1);
        CHECK_EQ(json_parse(status.info[0].value, strlen(status.info[0].value), &info, NULL), 0);
        CHECK_EQ(json_integer_value(json_object_get(info, "containers")), 4);
        CHECK_STREQ(json_get_string(info, "systemdVersion"), "252");
        RELEASE(Status, &status);

        stub.network = stub.systemd = -1;
        CHECK_EQ(CALL(Status), 0);
        REPLY(Status, &status);
        CHECK(!status.status.conditions[0].status);
        CHECK_STREQ(status.status.conditions[0].message, "no bus");
        CHECK(!status.status.conditions[1].status);
        CHECK_STREQ(status.status.conditions[1].reason, "NetworkPluginNotReady");
        CHECK_STREQ(status.status.conditions[1].message, "no conf in /etc/cni/net.d");
        CHECK_EQ(status.info_count, 0);
        RELEASE(Status, &status);
}

static void test_runtime_config(void) {
        runtime_v1_RuntimeConfigResponse config = {};

        build();
        CHECK_EQ(CALL(RuntimeConfig), 0);
        REPLY(RuntimeConfig, &config);
        CHECK(config.has_linux);
        CHECK_EQ(config.linux.cgroup_driver, runtime_v1_CgroupDriver_SYSTEMD);
        CHECK_EQ(CALL(UpdateRuntimeConfig, .has_runtime_config = true, .runtime_config.has_network_config = true,
                      .runtime_config.network_config.pod_cidr = s("10.0.0.0/24")),
                 0);
        CHECK_EQ(call.n_sent, 1);
}

static void test_list_pods(void) {
        static runtime_v1_PodSandboxFilter_LabelSelectorEntry shop[] = {
                { (char *) "app", (char *) "shop" },
                { (char *) "tier", (char *) "web" },
        };
        static runtime_v1_PodSandboxFilter_LabelSelectorEntry old[] = { { (char *) "app", (char *) "old" } };

        build();
#define PODS LISTED(ListPodSandbox, items, PodSandbox)
        CHECK_EQ(CALL(ListPodSandbox), 0);
        CHECK_STREQ(PODS, "ab");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true), 0);
        CHECK_STREQ(PODS, "ab");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.id = s("aaaa")), 0);
        CHECK_STREQ(PODS, "a");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.id = s("ab")), 0);
        CHECK_STREQ(PODS, "");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.id = s("c")), 0);
        CHECK_STREQ(PODS, "");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.has_state = true), 0);
        CHECK_STREQ(PODS, "a");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.has_state = true,
                      .filter.state.state = runtime_v1_PodSandboxState_SANDBOX_NOTREADY),
                 0);
        CHECK_STREQ(PODS, "b");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.label_selector = shop,
                      .filter.label_selector_count = 2),
                 0);
        CHECK_STREQ(PODS, "a");
        CHECK_EQ(CALL(ListPodSandbox, .has_filter = true, .filter.label_selector = old,
                      .filter.label_selector_count = 1),
                 0);
        CHECK_STREQ(PODS, "");
}

static void test_list_containers(void) {
        static runtime_v1_ContainerFilter_LabelSelectorEntry shop[] = { { (char *) "app", (char *) "shop" } };
        static runtime_v1_ContainerFilter_LabelSelectorEntry none[] = { { (char *) "none", (char *) "" } };
        static const struct {
                runtime_v1_ContainerState state;
                const char *ids;
        } states[] = {
                { runtime_v1_ContainerState_CONTAINER_CREATED, "" },
                { runtime_v1_ContainerState_CONTAINER_RUNNING, "1" },
                { runtime_v1_ContainerState_CONTAINER_EXITED, "2" },
                { runtime_v1_ContainerState_CONTAINER_UNKNOWN, "3" },
        };

        build();
#define CONTAINERS LISTED(ListContainers, containers, Container)
        CHECK_EQ(CALL(ListContainers), 0);
        CHECK_STREQ(CONTAINERS, "123");
        CHECK_EQ(CALL(ListContainers, .has_filter = true, .filter.id = s("22")), 0);
        CHECK_STREQ(CONTAINERS, "2");
        CHECK_EQ(CALL(ListContainers, .has_filter = true, .filter.pod_sandbox_id = s("aaa")), 0);
        CHECK_STREQ(CONTAINERS, "12");
        CHECK_EQ(CALL(ListContainers, .has_filter = true, .filter.pod_sandbox_id = s("b"), .filter.id = s("1")), 0);
        CHECK_STREQ(CONTAINERS, "");
        for (size_t i = 0; i < ELEMENTSOF(states); i++) {
                CHECK_EQ(CALL(ListContainers, .has_filter = true, .filter.has_state = true,
                              .filter.state.state = states[i].state),
                         0);
                CHECK_STREQ(CONTAINERS, states[i].ids);
        }
        CHECK_EQ(CALL(ListContainers, .has_filter = true, .filter.label_selector = shop,
                      .filter.label_selector_count = 1),
                 0);
        CHECK_STREQ(CONTAINERS, "1");
        CHECK_EQ(CALL(ListContainers, .has_filter = true, .filter.label_selector = none,
                      .filter.label_selector_count = 1),
                 0);
        CHECK_STREQ(CONTAINERS, "");
}

static void test_pod_status(void) {
        static char *ips[] = { (char *) "10.0.0.7", (char *) "fd00::7", (char *) "fd01::7", NULL };
        runtime_v1_PodSandboxStatusResponse reply = {};
        runtime_v1_NamespaceOption *options;
        _cleanup_json_ json_t *info = NULL;

        build();
        pods[0].ips = ips;
        pods[0].network_json = s("{\"cniVersion\":\"1.0.0\"}");
        pods[0].engine_state.pid = 4711;
        pods[0].request.config.has_linux = true;
        pods[0].request.config.linux.has_security_context = true;
        pods[0].request.config.linux.security_context.has_namespace_options = true;
        options = &pods[0].request.config.linux.security_context.namespace_options;
        options->pid = runtime_v1_NamespaceMode_CONTAINER;
        options->ipc = runtime_v1_NamespaceMode_NODE;
        pods[0].request.runtime_handler = s("crun");
        CHECK_EQ(CALL(PodSandboxStatus, .pod_sandbox_id = s("aa"), .verbose = true), 0);
        REPLY(PodSandboxStatus, &reply);
        CHECK_STREQ(reply.status.id, pods[0].id);
        CHECK_STREQ(reply.status.metadata.name, "web");
        CHECK_STREQ(reply.status.metadata.uid, "uid-1");
        CHECK_STREQ(reply.status.metadata.namespace, "default");
        CHECK_EQ(reply.status.metadata.attempt, 2);
        CHECK_EQ(reply.status.state, runtime_v1_PodSandboxState_SANDBOX_READY);
        CHECK_EQ(reply.status.created_at, 1700000000000001000);
        CHECK_STREQ(reply.status.network.ip, "10.0.0.7");
        CHECK_EQ(reply.status.network.additional_ips_count, 2);
        CHECK_STREQ(reply.status.network.additional_ips[1].ip, "fd01::7");
        CHECK_EQ(reply.status.linux.namespaces.options.pid, runtime_v1_NamespaceMode_CONTAINER);
        CHECK_EQ(reply.status.linux.namespaces.options.ipc, runtime_v1_NamespaceMode_NODE);
        CHECK_EQ(reply.status.labels_count, 3);
        CHECK_STREQ(reply.status.labels[1].value, "web");
        CHECK_EQ(reply.status.annotations_count, 1);
        CHECK_STREQ(reply.status.annotations[0].key, "note");
        CHECK_STREQ(reply.status.runtime_handler, "crun");
        CHECK_EQ(reply.containers_statuses_count, 2);
        CHECK(reply.timestamp > 1700000000000000000);
        CHECK_EQ(json_parse(reply.info[0].value, strlen(reply.info[0].value), &info, NULL), 0);
        CHECK_EQ(json_integer_value(json_object_get(info, "pid")), 4711);
        CHECK_STREQ(json_get_string(info, "slice"), "kubepods.slice");
        CHECK_STREQ(json_get_string(json_get_object(info, "cniResult"), "cniVersion"), "1.0.0");
        CHECK_STREQ(json_get_string(json_get_object(json_get_object(info, "config"), "labels"), "tier"), "web");
        CHECK_STREQ(json_get_string(json_get_object(json_get_object(info, "config"), "metadata"), "namespace"),
                    "default");
        RELEASE(PodSandboxStatus, &reply);

        /* the host's network: the message is there, without an address */
        CHECK_EQ(CALL(PodSandboxStatus, .pod_sandbox_id = s("b")), 0);
        REPLY(PodSandboxStatus, &reply);
        CHECK(reply.status.has_network);
        CHECK(isempty(reply.status.network.ip));
        CHECK_EQ(reply.status.state, runtime_v1_PodSandboxState_SANDBOX_NOTREADY);
        CHECK(reply.status.linux.namespaces.has_options);
        CHECK_EQ(reply.info_count, 0);
        RELEASE(PodSandboxStatus, &reply);

        CHECK(CALL(PodSandboxStatus, .pod_sandbox_id = s("f")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
}

static void fill_container(Container *k) {
        static int64_t groups[] = { 5, 6 };
        static runtime_v1_Mount mounts[2];
        static char *args[] = { (char *) "-c", (char *) "exit 3" };
        static struct {
                pb_size_t size;
                pb_byte_t bytes[2];
        } value = { 2, { 0xff, 'x' } };
        static runtime_v1_KeyValue envs[1];

        mounts[0] = (runtime_v1_Mount) {
                .container_path = s("/data"),
                .host_path = s("/srv"),
                .readonly = true,
                .propagation = runtime_v1_MountPropagation_PROPAGATION_BIDIRECTIONAL,
        };
        mounts[1] = (runtime_v1_Mount) { .container_path = s("/img"), .has_image = true, .image.image = s("data:1") };
        envs[0] = (runtime_v1_KeyValue) { s("K"), (pb_bytes_array_t *) &value };
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

static void test_container_status(void) {
        runtime_v1_ContainerStatusResponse reply = {};
        const runtime_v1_ContainerStatus *status = &reply.status;
        _cleanup_json_ json_t *info = NULL;
        json_t *config;

        build();
        fill_container(&containers[1]);
        CHECK_EQ(CALL(ContainerStatus, .container_id = s("22"), .verbose = true), 0);
        REPLY(ContainerStatus, &reply);
        CHECK_STREQ(status->id, containers[1].id);
        CHECK_STREQ(status->metadata.name, "init");
        CHECK_EQ(status->metadata.attempt, 1);
        CHECK_EQ(status->state, runtime_v1_ContainerState_CONTAINER_EXITED);
        CHECK_EQ(status->created_at, 1700000000000002000);
        CHECK_EQ(status->started_at, 1700000000000003000);
        CHECK_EQ(status->finished_at, 1700000000000004000);
        CHECK_EQ(status->exit_code, 137);
        CHECK_STREQ(status->image.image, "nginx");
        CHECK_STREQ(status->image_ref, "sha256:aa");
        CHECK_STREQ(status->image_id, "sha256:aa");
        CHECK_STREQ(status->reason, "OOMKilled");
        CHECK_STREQ(status->message, "out of memory");
        CHECK_STREQ(status->log_path, "/var/log/pods/x/main/0.log");
        CHECK_EQ(status->mounts_count, 2);
        CHECK_STREQ(status->mounts[0].host_path, "/srv");
        CHECK_EQ(status->mounts[0].propagation, runtime_v1_MountPropagation_PROPAGATION_BIDIRECTIONAL);
        CHECK_STREQ(status->mounts[1].image.image, "data:1");
        CHECK_EQ(status->resources.linux.cpu_shares, 512);
        CHECK_EQ(status->resources.linux.oom_score_adj, -5);
        CHECK_EQ(status->user.linux.uid, 1000);
        CHECK_EQ(status->user.linux.gid, 2000);
        CHECK_EQ(status->user.linux.supplemental_groups_count, 2);
        CHECK_EQ(status->user.linux.supplemental_groups[1], 6);
        CHECK_EQ(status->stop_signal, runtime_v1_Signal_SIGQUIT);
        CHECK_EQ(json_parse(reply.info[0].value, strlen(reply.info[0].value), &info, NULL), 0);
        CHECK_EQ(json_integer_value(json_object_get(info, "pid")), 99);
        CHECK_STREQ(json_get_string(info, "sandboxID"), pods[0].id);
        config = json_get_object(info, "config");
        CHECK_STREQ(json_string_value(json_array_get(json_get_array(config, "args"), 1)), "exit 3");
        CHECK_EQ(json_integer_value(json_object_get(json_get_object(json_get_object(config, "linux"), "resources"),
                                                    "oom_score_adj")),
                 -5);
        CHECK_STREQ(json_get_string(json_array_get(json_get_array(config, "envs"), 0), "value"), "\xef\xbf\xbdx");
        RELEASE(ContainerStatus, &reply);

        /* what is not known is not there */
        CHECK_EQ(CALL(ContainerStatus, .container_id = s("1")), 0);
        REPLY(ContainerStatus, &reply);
        CHECK(!status->has_user);
        CHECK(!status->has_resources);
        CHECK_EQ(status->finished_at, 0);
        CHECK_EQ(status->stop_signal, runtime_v1_Signal_RUNTIME_DEFAULT);
        CHECK_EQ(reply.info_count, 0);
        RELEASE(ContainerStatus, &reply);
}

static void test_container_image_name(void) {
        static const struct {
                const char *image, *user_specified, *expect;
        } cases[] = {
                { "nginx", NULL, "nginx" },
                { "sha256:aa", NULL, "docker.io/library/nginx:1" },
                { "sha256:aa", "nginx:2", "docker.io/library/nginx:2" },
                { "sha256:aa", "nginx:7", "docker.io/library/nginx:1" },
        };
        Arena arena = ARENA_INIT;
        runtime_v1_ContainerStatus status;

        build();
        containers[0].image = &images[0];
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                containers[0].request.config.image.image = s(cases[i].image);
                containers[0].request.config.image.user_specified_image = (char *) cases[i].user_specified;
                CHECK_EQ(container_describe_status(&containers[0], &arena, &status), 0);
                CHECK_STREQ(status.image.image, cases[i].expect);
        }
        /* the image is gone, or has no name any more */
        containers[0].image = NULL;
        CHECK_EQ(container_describe_status(&containers[0], &arena, &status), 0);
        CHECK_STREQ(status.image.image, "sha256:aa");
        containers[0].image = &images[2];
        CHECK_EQ(container_describe_status(&containers[0], &arena, &status), 0);
        CHECK_STREQ(status.image.image, "sha256:aa");
        arena_done(&arena);
}

static void test_signals(void) {
        CHECK_EQ(signal_to_cri(SIGTERM), 23);
        CHECK_EQ(signal_to_cri(SIGKILL), 13);
        CHECK_EQ(signal_to_cri(SIGRTMIN), 35);
        CHECK_EQ(signal_to_cri(SIGRTMIN + 3), runtime_v1_Signal_SIGRTMINPLUS3);
        CHECK_EQ(signal_to_cri(SIGRTMAX - 14), runtime_v1_Signal_SIGRTMAXMINUS14);
        CHECK_EQ(signal_to_cri(SIGRTMAX), 65);
        CHECK_EQ(signal_to_cri(0), 0);
        CHECK_EQ(signal_to_cri(32), 0);
        CHECK_EQ(signal_to_cri(-1), 0);
        CHECK_EQ(signal_to_cri(65), 0);
        for (int i = 1; i < 32; i++)
                CHECK(signal_to_cri(i) != runtime_v1_Signal_RUNTIME_DEFAULT);
}

static void test_idempotent_calls(void) {
        build();
        CHECK_EQ(CALL(StopPodSandbox, .pod_sandbox_id = s("ffff")), 0);
        CHECK_EQ(call.n_sent, 1);
        CHECK_EQ(CALL(RemovePodSandbox, .pod_sandbox_id = s("ffff")), 0);
        CHECK_EQ(CALL(StopContainer, .container_id = s("ffff")), 0);
        CHECK_EQ(CALL(RemoveContainer, .container_id = s("ffff")), 0);
        CHECK(!stub.pod && !stub.container);

        CHECK_EQ(CALL(StopPodSandbox, .pod_sandbox_id = s("aa")), 0);
        CHECK(stub.pod == &pods[0]);
        CHECK_EQ(CALL(RemovePodSandbox, .pod_sandbox_id = s("bb")), 0);
        CHECK(stub.pod == &pods[1]);
        CHECK_EQ(CALL(RemoveContainer, .container_id = s("3")), 0);
        CHECK(stub.container == &containers[2]);

        /* what is not the same as unknown */
        CHECK(CALL(StopPodSandbox) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK(CALL(RemoveContainer, .container_id = s("ambiguous")) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK_EQ(call.n_sent, 0);
}

static void test_stop_timeouts(void) {
        static const struct {
                int64_t seconds;
                uint64_t usec;
        } cases[] = {
                { 0, 0 },
                { 7, 7 * USEC_PER_SEC },
                { -1, 0 },
                { INT64_MAX, 10 * UINT64_C(365) * 24 * 3600 * USEC_PER_SEC },
        };

        build();
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                stub.timeout_usec = 1;
                CHECK_EQ(CALL(StopContainer, .container_id = s("1"), .timeout = cases[i].seconds), 0);
                CHECK_EQ(stub.timeout_usec, cases[i].usec);
        }
}

static void test_unknown_ones(void) {
        build();
        CHECK(CALL(StartContainer, .container_id = s("ffff")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
        CHECK(CALL(ContainerStatus, .container_id = s("ffff")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
        CHECK(CALL(ReopenContainerLog, .container_id = s("ffff")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
        CHECK(CALL(ExecSync, .container_id = s("ffff"), .cmd = (char *[]){ s("true") }, .cmd_count = 1) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
}

static void test_failures_are_told(void) {
        build();
        stub.result = -EBUSY;
        CHECK(CALL(StopPodSandbox, .pod_sandbox_id = s("a")) < 0);
        CHECK(strstr(last_error.message, "cannot stop the pod"));
        CHECK(CALL(StartContainer, .container_id = s("1")) < 0);
        CHECK(strstr(last_error.message, "cannot start the container"));
        CHECK(call_raw("RunPodSandbox", "", 0) < 0);
        CHECK(strstr(last_error.message, "cannot run the pod"));
        CHECK(call_raw("CreateContainer", "", 0) < 0);
        CHECK(strstr(last_error.message, "cannot create the container"));
        CHECK_EQ(call.n_sent, 0);
}

static void test_raw_requests_pass_unchanged(void) {
        static const char raw[] = "whatever it is";
        runtime_v1_RunPodSandboxResponse run = {};
        runtime_v1_CreateContainerResponse create = {};

        build();
        CHECK_EQ(call_raw("RunPodSandbox", raw, sizeof raw), 0);
        CHECK(stub.raw == raw);
        CHECK_EQ(stub.raw_size, sizeof raw);
        REPLY(RunPodSandbox, &run);
        CHECK_STREQ(run.pod_sandbox_id, pods[0].id);
        RELEASE(RunPodSandbox, &run);
        CHECK_EQ(call_raw("CreateContainer", raw, sizeof raw - 1), 0);
        CHECK_EQ(stub.raw_size, sizeof raw - 1);
        REPLY(CreateContainer, &create);
        CHECK_STREQ(create.container_id, containers[0].id);
        RELEASE(CreateContainer, &create);
}

static bool collect_size(pb_istream_t *stream, const pb_field_iter_t *field, void **arg) {
        *(size_t *) *arg = stream->bytes_left;
        return pb_read(stream, NULL, stream->bytes_left);
}

static void test_exec_sync(void) {
        static char *cmd[] = { (char *) "sh", (char *) "-c", (char *) "" };
        static const struct {
                size_t out, err, expect_out, expect_err;
        } cases[] = {
                { 0, 0, 0, 0 },
                { 3, 2, 3, 2 },
                { GRPC_MESSAGE_MAX, 0, GRPC_MESSAGE_MAX - 64, 0 },
                { 0, GRPC_MESSAGE_MAX, 0, GRPC_MESSAGE_MAX - 64 },
                { GRPC_MESSAGE_MAX, GRPC_MESSAGE_MAX, GRPC_MESSAGE_MAX / 2 - 32, GRPC_MESSAGE_MAX / 2 - 32 },
                { GRPC_MESSAGE_MAX, 1000, GRPC_MESSAGE_MAX - 64 - 1000, 1000 },
                { 1000, GRPC_MESSAGE_MAX, 1000, GRPC_MESSAGE_MAX - 64 - 1000 },
        };
        _cleanup_free_ char *output = malloc(GRPC_MESSAGE_MAX);

        build();
        CHECK(output);
        memset(output, 0xff, GRPC_MESSAGE_MAX);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                size_t out = 0, err = 0;
                runtime_v1_ExecSyncResponse reply = {
                        .stdout = { { .decode = collect_size }, &out },
                        .stderr = { { .decode = collect_size }, &err },
                };

                stub.exec = (EngineExecResult) { 3, output, output, cases[i].out, cases[i].err };
                CHECK_EQ(CALL(ExecSync, .container_id = s("1"), .cmd = cmd, .cmd_count = 3, .timeout = 5), 0);
                CHECK_EQ(stub.timeout_usec, 5 * USEC_PER_SEC);
                CHECK_STREQ(stub.argv, "sh|-c|");
                REPLY(ExecSync, &reply);
                CHECK_EQ(reply.exit_code, 3);
                CHECK_EQ(out, cases[i].expect_out);
                CHECK_EQ(err, cases[i].expect_err);
        }

        CHECK(CALL(ExecSync, .container_id = s("1")) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK(CALL(ExecSync, .container_id = s("1"), .cmd = cmd, .cmd_count = 3, .timeout = -1) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        stub.result = -ETIMEDOUT;
        CHECK(CALL(ExecSync, .container_id = s("1"), .cmd = cmd, .cmd_count = 3, .timeout = 2) < 0);
        CHECK_EQ(last_error.code, GRPC_DEADLINE_EXCEEDED);
        CHECK(strstr(last_error.message, "2 seconds"));
}

static void test_images(void) {
        runtime_v1_ImageStatusResponse reply = {};
        runtime_v1_ImageFsInfoResponse fs = {};

        build();
#define IMAGES LISTED(ListImages, images, Image)
        CHECK_EQ(CALL(ListImages), 0);
        CHECK_STREQ(IMAGES, "abc");
        CHECK_EQ(CALL(ListImages, .has_filter = true, .filter.has_image = true,
                      .filter.image.image = s("docker.io/library/nginx:2")),
                 0);
        CHECK_STREQ(IMAGES, "a");
        CHECK_EQ(CALL(ListImages, .has_filter = true, .filter.has_image = true, .filter.image.image = s("other")), 0);
        CHECK_STREQ(IMAGES, "");

        CHECK_EQ(CALL(ImageStatus, .has_image = true, .image.image = s("sha256:aa")), 0);
        REPLY(ImageStatus, &reply);
        CHECK(reply.has_image);
        CHECK_STREQ(reply.image.id, "sha256:aa");
        CHECK_EQ(reply.image.repo_tags_count, 2);
        CHECK_STREQ(reply.image.repo_digests[0], "docker.io/library/nginx@sha256:cc");
        CHECK_EQ(reply.image.size, 1234);
        CHECK(!reply.image.has_uid);
        CHECK(isempty(reply.image.username));
        CHECK(!reply.image.pinned);
        RELEASE(ImageStatus, &reply);
        CHECK_EQ(CALL(ImageStatus, .has_image = true, .image.image = s("sha256:bb")), 0);
        REPLY(ImageStatus, &reply);
        CHECK(reply.image.has_uid);
        CHECK_EQ(reply.image.uid.value, 1000);
        CHECK(reply.image.pinned);
        RELEASE(ImageStatus, &reply);
        CHECK_EQ(CALL(ImageStatus, .has_image = true, .image.image = s("sha256:cc")), 0);
        REPLY(ImageStatus, &reply);
        CHECK(!reply.image.has_uid);
        CHECK_STREQ(reply.image.username, "www-data");
        RELEASE(ImageStatus, &reply);
        CHECK_EQ(CALL(ImageStatus, .has_image = true, .image.image = s("unknown"), .verbose = true), 0);
        REPLY(ImageStatus, &reply);
        CHECK(!reply.has_image);
        CHECK_EQ(reply.info_count, 0);
        CHECK(CALL(ImageStatus) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK(CALL(RemoveImage) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
        CHECK_EQ(CALL(RemoveImage, .has_image = true, .image.image = s("unknown")), 0);

        CHECK_EQ(CALL(ImageFsInfo), 0);
        REPLY(ImageFsInfo, &fs);
        CHECK_EQ(fs.image_filesystems_count, 1);
        CHECK_EQ(fs.image_filesystems[0].timestamp, 7000000001);
        CHECK_STREQ(fs.image_filesystems[0].fs_id.mountpoint, "/var");
        CHECK_EQ(fs.image_filesystems[0].used_bytes.value, 4096);
        CHECK_EQ(fs.image_filesystems[0].inodes_used.value, 3);
        RELEASE(ImageFsInfo, &fs);
}

/* ImageStatus verbose carries the image's own configuration. */
static void test_image_info(void) {
        runtime_v1_ImageStatusResponse reply = {};
        _cleanup_json_ json_t *info = NULL;

        build();
        images[0].config_json = s("{\"architecture\":\"amd64\"}");
        images[0].manifest_digest = s("sha256:dd");
        CHECK_EQ(CALL(ImageStatus, .has_image = true, .image.image = s("sha256:aa"), .verbose = true), 0);
        REPLY(ImageStatus, &reply);
        CHECK_EQ(json_parse(reply.info[0].value, strlen(reply.info[0].value), &info, NULL), 0);
        CHECK_STREQ(json_get_string(info, "manifestDigest"), "sha256:dd");
        CHECK_STREQ(json_get_string(json_get_object(info, "imageSpec"), "architecture"), "amd64");
        RELEASE(ImageStatus, &reply);
}

static void test_pull(void) {
        runtime_v1_PullImageResponse reply = {};

        build();
        CHECK_EQ(CALL(PullImage, .has_image = true, .image.image = s("nginx")), 0);
        CHECK(!stub.auth);
        REPLY(PullImage, &reply);
        CHECK_STREQ(reply.image_ref, "sha256:aa");
        RELEASE(PullImage, &reply);
        CHECK_EQ(images[0].n_ref, 0);
        CHECK_EQ(CALL(PullImage, .has_image = true, .image.image = s("nginx"), .has_auth = true,
                      .auth = { s("u"), s("p"), s("a"), s("srv"), s("i"), s("r") }),
                 0);
        CHECK_STREQ(stub.auth, "u|p|a|srv|i|r");
        stub.result = -ENOENT;
        CHECK(CALL(PullImage, .has_image = true, .image.image = s("nginx")) < 0);
        CHECK_EQ(last_error.code, GRPC_NOT_FOUND);
        CHECK(CALL(PullImage) < 0);
        CHECK_EQ(last_error.code, GRPC_INVALID_ARGUMENT);
}

/* A crowd of containers: batches of streams, and how long a list takes. */
static void test_many_containers(void) {
        enum { N = 5000 };
        static char names[N][16];
        static runtime_v1_ContainerConfig_LabelsEntry labels[] = {
                { (char *) "io.kubernetes.container.name", (char *) "main" },
                { (char *) "io.kubernetes.pod.name", (char *) "web-7d4b9c5f6d-x2x8q" },
                { (char *) "io.kubernetes.pod.namespace", (char *) "production" },
                { (char *) "io.kubernetes.pod.uid", (char *) "f3b1c7a2-0f5e-4c5b-9c0e-1d2f3a4b5c6d" },
        };
        static runtime_v1_ContainerConfig_AnnotationsEntry annotations[] = {
                { (char *) "io.kubernetes.container.hash", (char *) "b4d5f1c" },
                { (char *) "io.kubernetes.container.restartCount", (char *) "0" },
                { (char *) "io.kubernetes.container.terminationMessagePath", (char *) "/dev/termination-log" },
        };
        Container *many = calloc(N, sizeof(Container));
        uint64_t best = UINT64_MAX;

        build();
        CHECK(many);
        HASH_CLEAR(hh, manager.containers);
        pods[0].containers = NULL;
        for (size_t i = 0; i < N; i++) {
                Container *k = &many[i];

                (void) snprintf(names[i], sizeof names[i], "main-%zu", i);
                make_container(k, '5', &pods[0], names[i], CONTAINER_RUNNING);
                HASH_DELETE(hh, manager.containers, k);
                (void) snprintf(k->id, sizeof k->id, "%064zx", i);
                HASH_ADD(hh, manager.containers, id, ID_LENGTH, k);
                k->request.config.labels = labels;
                k->request.config.labels_count = ELEMENTSOF(labels);
                k->request.config.annotations = annotations;
                k->request.config.annotations_count = ELEMENTSOF(annotations);
        }
        for (int i = 0; i < 10; i++) {
                uint64_t begin = now_usec(CLOCK_MONOTONIC);

                CHECK_EQ(CALL(ListContainers), 0);
                best = MIN(best, now_usec(CLOCK_MONOTONIC) - begin);
        }
        printf("# ListContainers of %d: %zu bytes in %.2f ms\n", N, call.sent[0].size, (double) best / 1000);
        CHECK_EQ(strlen(LISTED(ListContainers, containers, Container)), N);

        CHECK_EQ(CALL(StreamContainers), 0);
        CHECK_EQ(call.n_sent, N / STREAM_BATCH_MAX);
        CHECK_EQ(strlen(LISTED(StreamContainers, containers, Container)), N);
        for (size_t i = 0; i < N; i++)
                CHECK_EQ(many[i].n_ref, 0);
        /* a remainder is a batch of its own; nothing is no message at all */
        CHECK_EQ(CALL(StreamContainers, .has_filter = true,
                      .filter.id = s("00000000000000000000000000000000"
                                     "000000000000000000000000000010")),
                 0);
        CHECK_EQ(call.n_sent, 1);
        CHECK_EQ(strlen(LISTED(StreamContainers, containers, Container)), 256);
        CHECK_EQ(CALL(StreamContainers, .has_filter = true, .filter.id = s("f")), 0);
        CHECK_EQ(call.n_sent, 0);

        CHECK_EQ(CALL(StreamPodSandboxes), 0);
        CHECK_STREQ(LISTED(StreamPodSandboxes, pod_sandboxes, PodSandbox), "ab");
        CHECK_EQ(CALL(StreamImages), 0);
        CHECK_STREQ(LISTED(StreamImages, images, Image), "abc");
        HASH_CLEAR(hh, manager.containers);
        free(many);
}

/* --- events ----------------------------------------------------------------------------------------------------- */

static int events_result;

static int events_fiber(void *userdata) {
        events_result = call_raw("GetContainerEvents", "", 0);
        return events_result;
}

static void emit(ManagerEvent event, Pod *p, Container *k) {
        ManagerSubscription *sub = manager.subscriptions;

        CHECK(sub);
        sub->func(&manager, event, p, k, sub->userdata);
}

static void check_event(size_t i, const char *id, runtime_v1_ContainerEventType type, size_t n_containers) {
        runtime_v1_ContainerEventResponse e = {};

        decode_reply(i, runtime_v1_ContainerEventResponse_fields, &e);
        CHECK_STREQ(e.container_id, id);
        CHECK_EQ(e.container_event_type, type);
        CHECK(e.created_at > 1700000000000000000);
        CHECK_STREQ(e.pod_sandbox_status.id, pods[0].id);
        CHECK_EQ(e.containers_statuses_count, n_containers);
        pb_release(runtime_v1_ContainerEventResponse_fields, &e);
}

static int events_script(void *userdata) {
        sd_event *event = userdata;
        Fiber *f;
        int r;

        CHECK_EQ(fiber_spawn(event, "events", events_fiber, NULL, NULL, &f), 0);
        emit(MANAGER_POD_ADDED, &pods[0], NULL);
        emit(MANAGER_CONTAINER_CREATED, &pods[0], &containers[0]);
        emit(MANAGER_CONTAINER_STARTED, &pods[0], &containers[0]);
        CHECK_EQ(fiber_yield(), 0);
        emit(MANAGER_CONTAINER_STOPPED, &pods[0], &containers[0]);
        emit(MANAGER_CONTAINER_REMOVED, &pods[0], &containers[0]);
        emit(MANAGER_POD_CHANGED, &pods[0], NULL); /* still ready: nothing to tell */
        pods[0].phase = POD_NOT_READY;
        emit(MANAGER_POD_CHANGED, &pods[0], NULL);
        emit(MANAGER_POD_REMOVED, &pods[0], NULL);
        cri_end_streams(cri);
        CHECK_EQ(fiber_join(f, &r), 0);
        fiber_unref(f);
        return r;
}

static void test_events(void) {
        sd_event *event = NULL;

        build();
        CHECK_EQ(sd_event_new(&event), 0);
        CHECK_EQ(fiber_run(event, events_script, event), 0);
        CHECK_EQ(call.n_sent, 8);
        check_event(0, pods[0].id, runtime_v1_ContainerEventType_CONTAINER_CREATED_EVENT, 2);
        check_event(1, pods[0].id, runtime_v1_ContainerEventType_CONTAINER_STARTED_EVENT, 2);
        check_event(2, containers[0].id, runtime_v1_ContainerEventType_CONTAINER_CREATED_EVENT, 2);
        check_event(3, containers[0].id, runtime_v1_ContainerEventType_CONTAINER_STARTED_EVENT, 2);
        check_event(4, containers[0].id, runtime_v1_ContainerEventType_CONTAINER_STOPPED_EVENT, 2);
        check_event(5, containers[0].id, runtime_v1_ContainerEventType_CONTAINER_DELETED_EVENT, 1);
        check_event(6, pods[0].id, runtime_v1_ContainerEventType_CONTAINER_STOPPED_EVENT, 2);
        check_event(7, pods[0].id, runtime_v1_ContainerEventType_CONTAINER_DELETED_EVENT, 2);
        CHECK(!manager.subscriptions);

        /* after that, nobody gets a stream that would keep the daemon */
        CHECK(call_raw("GetContainerEvents", "", 0) < 0);
        CHECK_EQ(last_error.code, GRPC_UNAVAILABLE);
        cri->ending = false;
        sd_event_unref(event);
}

static int cancel_script(void *userdata) {
        Fiber *f;
        int r;

        CHECK_EQ(fiber_spawn(userdata, "events", events_fiber, NULL, NULL, &f), 0);
        CHECK(manager.subscriptions);
        emit(MANAGER_POD_ADDED, &pods[0], NULL);
        fiber_cancel(f);
        CHECK_EQ(fiber_join(f, &r), 0);
        fiber_unref(f);
        return r;
}

static void test_events_cancelled(void) {
        sd_event *event = NULL;

        build();
        CHECK_EQ(sd_event_new(&event), 0);
        CHECK_EQ(fiber_run(event, cancel_script, event), -ECANCELED);
        CHECK(!manager.subscriptions);
        CHECK(!cri->event_streams);
        sd_event_unref(event);
}

static int flood_script(void *userdata) {
        Fiber *f;
        int r;

        CHECK_EQ(fiber_spawn(userdata, "events", events_fiber, NULL, NULL, &f), 0);
        for (int i = 0; i < 20; i++) /* more than a MiB each, and nobody reads */
                emit(MANAGER_CONTAINER_STARTED, &pods[0], &containers[0]);
        CHECK_EQ(fiber_join(f, &r), 0);
        fiber_unref(f);
        return r;
}

static void test_events_unread(void) {
        _cleanup_free_ char *text = malloc(1024 * 1024 + 1);
        sd_event *event = NULL;

        build();
        CHECK(text);
        memset(text, 'x', 1024 * 1024);
        text[1024 * 1024] = '\0';
        containers[0].message = text;
        CHECK_EQ(sd_event_new(&event), 0);
        CHECK(fiber_run(event, flood_script, event) < 0);
        CHECK_EQ(last_error.code, GRPC_RESOURCE_EXHAUSTED);
        CHECK_EQ(call.n_sent, 15); /* those before the limit came, in order */
        CHECK(!manager.subscriptions);
        sd_event_unref(event);
}

static void test_teardown(void) {
        clear_call();
        free(stub.argv);
        free(stub.auth);
        HASH_CLEAR(hh, manager.pods);
        HASH_CLEAR(hh, manager.containers);
        cri = cri_free(cri);
}

int main(void) {
        static const TestCase cases[] = {
                TEST_CASE(test_all_methods_are_there),
                TEST_CASE(test_damaged_requests),
                TEST_CASE(test_version_while_loading),
                TEST_CASE(test_status),
                TEST_CASE(test_runtime_config),
                TEST_CASE(test_list_pods),
                TEST_CASE(test_list_containers),
                TEST_CASE(test_pod_status),
                TEST_CASE(test_container_status),
                TEST_CASE(test_container_image_name),
                TEST_CASE(test_signals),
                TEST_CASE(test_idempotent_calls),
                TEST_CASE(test_stop_timeouts),
                TEST_CASE(test_unknown_ones),
                TEST_CASE(test_failures_are_told),
                TEST_CASE(test_raw_requests_pass_unchanged),
                TEST_CASE(test_exec_sync),
                TEST_CASE(test_images),
                TEST_CASE(test_image_info),
                TEST_CASE(test_pull),
                TEST_CASE(test_many_containers),
                TEST_CASE(test_events),
                TEST_CASE(test_events_cancelled),
                TEST_CASE(test_events_unread),
                TEST_CASE(test_teardown),
        };

        /* The failures are wanted. */
        log_set_max_level(LOG_CRIT);
        return test_main(cases, ELEMENTSOF(cases));
}
