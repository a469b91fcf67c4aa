#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "basic/fiber.h"
#include "basic/log.h"
#include "basic/message.h"
#include "basic/process.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "bus/internal.h"
#include "systemd/fake-systemd.h"

/* --- stand-ins for the manager ---------------------------------------------------------------------------------- */

static Manager manager;
static Pod pod, starting;
static Container container;
static unsigned n_pod_stop, n_container_stop, n_pod_remove, n_container_remove, n_container_start;
static int exec_result;
static bool create_fails;
static uint64_t last_timeout;
static bool stop_hangs;

void manager_subscribe(Manager *m, ManagerSubscription *s) {
        s->next = m->subscriptions;
        m->subscriptions = s;
}
void manager_unsubscribe(Manager *m, ManagerSubscription *s) {
        CHECK(m->subscriptions == s);
        m->subscriptions = s->next;
}
int manager_find_pod(Manager *m, const char *id, Pod **ret, Error *error) {
        if (!startswith(pod.id, id) || isempty(id))
                return error_setf(error, GRPC_NOT_FOUND, "There is no pod %s", id);
        *ret = &pod;
        return 0;
}
int manager_find_container(Manager *m, const char *id, Container **ret, Error *error) {
        if (!startswith(container.id, id) || isempty(id))
                return error_setf(error, GRPC_NOT_FOUND, "There is no container %s", id);
        *ret = &container;
        return 0;
}
Pod *pod_ref(Pod *p) {
        p->n_ref++;
        return p;
}
Pod *pod_unref(Pod *p) {
        if (p)
                p->n_ref--;
        return NULL;
}
Container *container_ref(Container *c) {
        c->n_ref++;
        return c;
}
Container *container_unref(Container *c) {
        if (c)
                c->n_ref--;
        return NULL;
}
const char *pod_phase_to_string(PodPhase p) {
        return p == POD_READY ? "ready" : "not-ready";
}
const char *container_phase_to_string(ContainerPhase p) {
        return p == CONTAINER_RUNNING ? "running" : "exited";
}
int pod_stop(Pod *p, Error *error) {
        n_pod_stop++;
        return fiber_sleep(stop_hangs ? 1000 * USEC_PER_SEC : USEC_PER_MSEC);
}
int container_stop(Container *c, uint64_t timeout_usec, Error *error) {
        n_container_stop++;
        last_timeout = timeout_usec;
        return error_setf(error, GRPC_FAILED_PRECONDITION, "It does not want to");
}
int pod_remove(Pod *p, Error *error) {
        n_pod_remove++;
        return 0;
}
int container_remove(Container *c, Error *error) {
        n_container_remove++;
        return 0;
}
int container_start(Container *c, Error *error) {
        n_container_start++;
        return 0;
}
int container_check_running(const Container *c, const char *what, Error *error) {
        return c->phase == CONTAINER_RUNNING ? 0 : error_setf(error, GRPC_FAILED_PRECONDITION, "It does not run");
}
int container_read_stats(Container *c, CgroupStatsFlags flags, CgroupStats *ret, uint64_t *ret_nano_cores,
                         Error *error) {
        *ret = (CgroupStats) { .cpu_usage_nsec = 5, .memory_working_set = 6, .processes = 7, .n_devices = 1,
                               .devices[0].read_bytes = 8 };
        return 0;
}
/* What was asked for is kept, for the test to look at. */
static runtime_v1_RunPodSandboxRequest run_request;
static runtime_v1_CreateContainerRequest create_request;
int pod_run(Manager *m, const void *request, size_t size, Pod **ret, Error *error) {
        CHECK_EQ(message_decode(runtime_v1_RunPodSandboxRequest_fields, request, size, &run_request, error), 0);
        *ret = &pod;
        return 0;
}
int container_create(Manager *m, const void *request, size_t size, Container **ret, Error *error) {
        CHECK_EQ(message_decode(runtime_v1_CreateContainerRequest_fields, request, size, &create_request, error), 0);
        if (create_fails)
                return error_setf(error, GRPC_NOT_FOUND, "No such thing");
        *ret = &container;
        return 0;
}
/* A command that says hello and waits until it is told to end. */
int container_exec(Container *c, const EngineExec *exec, int *ret_exit_code, Error *error) {
        EnginePipes pipes = ENGINE_PIPES_NONE;
        int in[2], out[2], r;

        CHECK_STREQ(exec->argv[0], "hello");
        CHECK(exec->in && exec->out && exec->err && !exec->tty);
        CHECK(pipe2(in, O_CLOEXEC | O_NONBLOCK) == 0 && pipe2(out, O_CLOEXEC | O_NONBLOCK) == 0);
        pipes.in = in[1];
        pipes.out = out[0];
        pipes.err = fcntl(out[0], F_DUPFD_CLOEXEC, 3);
        CHECK(write(out[1], "hello", 5) == 5);
        r = exec->started(&pipes, exec->userdata);
        if (r >= 0)
                r = fiber_wait_fd(in[0], EPOLLIN, 10 * USEC_PER_SEC);
        if (r >= 0 && !(r & EPOLLIN))
                r = fiber_sleep(10 * USEC_PER_SEC); /* its input ended, and it takes no notice */
        exec_result = r;
        close(in[0]);
        close(out[1]);
        *ret_exit_code = 7;
        return r < 0 ? r : 0;
}
int container_attach(Container *c, EngineAttachFlags flags, int *ret_fd, Error *error) {
        int fds[2];

        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
        CHECK(write(fds[1], "\1out", 4) == 4);
        close(fds[1]);
        *ret_fd = fds[0];
        return 0;
}

static char *tags[] = { (char *) "a/b:1", NULL };
static char *label_keys[] = { (char *) "vendor", NULL }, *label_values[] = { (char *) "us", NULL };
static Image image;
static ImageChangedFunc image_changed;
static void *image_userdata;
static char pulled[64], pull_user[64], image_removed[80];

int image_store_refresh(ImageStore *s, Error *error) {
        return 0;
}
Image **image_store_list(ImageStore *s) {
        Image **l = calloc(2, sizeof *l);

        l[0] = &image;
        return l;
}
Image *image_store_find(ImageStore *s, const char *reference) {
        return streq(reference, "a/b:1") || streq(reference, image.id) ? &image : NULL;
}
void image_store_listen(ImageStore *s, ImageChangedFunc func, void *userdata) {
        image_changed = func;
        image_userdata = userdata;
}
int image_store_pulls(ImageStore *s, ImagePullProgress **ret, size_t *ret_n) {
        *ret = calloc(1, sizeof **ret);
        **ret = (ImagePullProgress) { .name = "docker.io/library/c:latest", .fetched = 10, .size = 20, .n_layers = 2 };
        *ret_n = 1;
        return 0;
}
int image_store_pull(ImageStore *s, const char *reference, const ImageAuth *auth, Image **ret, Error *error) {
        snprintf(pulled, sizeof pulled, "%s", reference);
        snprintf(pull_user, sizeof pull_user, "%s", auth ? strempty(auth->username) : "none");
        CHECK_EQ(fiber_sleep(250 * USEC_PER_MSEC), 0);
        if (streq(reference, "missing"))
                return error_setf(error, GRPC_NOT_FOUND, "There is no such image");
        *ret = image_ref(&image);
        return 0;
}
int image_store_remove(ImageStore *s, const char *reference, Error *error) {
        snprintf(image_removed, sizeof image_removed, "%s", reference);
        return 0;
}
Image *image_ref(Image *i) {
        i->n_ref++;
        return i;
}
Image *image_unref(Image *i) {
        if (i)
                i->n_ref--;
        return NULL;
}

#define F32 "ffffffffffffffffffffffffffffffff"
#define F64 F32 F32

static void fill(void) {
        static runtime_v1_PodSandboxConfig_LabelsEntry label = { (char *) "app", (char *) "web" };
        static char *ips[] = { (char *) "10.0.0.9", (char *) "fd00::9", NULL };
        runtime_v1_PodSandboxConfig *c = &pod.request.config;

        manager = (Manager) { .loaded = true, .config = { .run_directory = "/nonexistent/run", .state_directory = "/s" } };
        image = (Image) { .n_ref = 1, .id = (char *) "sha256:" F64, .repo_tags = tags, .size = 42 };
        image.config.label_keys = label_keys;
        image.config.label_values = label_values;
        pod = (Pod) { .n_ref = 1, .manager = &manager, .phase = POD_READY, .created_usec = 77, .unit = (char *) "rktlet-pod-x" };
        memset(pod.id, 'a', ID_LENGTH);
        pod.ips = ips;
        c->metadata.name = (char *) "nginx";
        c->metadata.namespace = (char *) "default";
        c->labels_count = 1;
        c->labels = &label;
        starting = (Pod) { .n_ref = 1, .manager = &manager, .phase = POD_STARTING };
        memset(starting.id, 'b', ID_LENGTH);
        container = (Container) { .n_ref = 1, .manager = &manager, .pod = &pod, .phase = CONTAINER_RUNNING, .pid = 12 };
        memset(container.id, '1', ID_LENGTH);
        container.request.config.metadata.name = (char *) "web";
        container.request.config.image.image = (char *) "sha256:feed";
        container.request.config.image.user_specified_image = (char *) "nginx:1";
        pod.containers = &container;
        HASH_ADD_STR(manager.pods, id, (&pod));
        HASH_ADD_STR(manager.pods, id, (&starting));
        HASH_ADD_STR(manager.containers, id, (&container));
}

static void event_of(ManagerEvent e) {
        for (ManagerSubscription *s = manager.subscriptions; s; s = s->next)
                s->func(&manager, e, &pod, e >= MANAGER_CONTAINER_CREATED ? &container : NULL, s->userdata);
}

/* --- a client --------------------------------------------------------------------------------------------------- */

static sd_event *event;
static FakeSystemd *fake;
static Bus *served;
static sd_bus *client;
static char signals[4096];

static int on_signal(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *first = "", *interface = "";
        size_t n = strlen(signals);

        if (streq(sd_bus_message_get_member(m), "NameAcquired"))
                return 0;
        if (streq(sd_bus_message_get_member(m), "Event"))
                CHECK(sd_bus_message_read(m, "ts", NULL, &first) >= 0);
        else if (streq(sd_bus_message_get_member(m), "PullProgress"))
                CHECK(sd_bus_message_read(m, "s", &first) >= 0);
        else if (streq(sd_bus_message_get_member(m), "PropertiesChanged"))
                CHECK(sd_bus_message_read(m, "s", &interface) >= 0);
        else
                CHECK(sd_bus_message_read(m, "o", &first) >= 0);
        snprintf(signals + n, sizeof signals - n, "%s(%.24s%s) ", sd_bus_message_get_member(m), first, interface);
        return 0;
}

static void connect_client(void) {
        CHECK(sd_bus_new(&client) >= 0);
        CHECK(sd_bus_set_address(client, fake->bus_address) >= 0);
        CHECK(sd_bus_set_bus_client(client, 1) >= 0);
        CHECK(sd_bus_start(client) >= 0);
        CHECK(sd_bus_attach_event(client, event, 0) >= 0);
        CHECK(sd_bus_add_match_async(client, NULL, "type='signal',sender='org.rktlet1'", on_signal, NULL, NULL) >= 0);
}

static int call(const char *path, const char *interface, const char *member, sd_bus_error *e, sd_bus_message **reply,
                const char *types, ...) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        va_list ap;

        CHECK(sd_bus_message_new_method_call(client, &m, BUS_NAME, path, interface, member) >= 0);
        va_start(ap, types);
        CHECK(sd_bus_message_appendv(m, types, ap) >= 0);
        va_end(ap);
        return fiber_bus_call(client, m, 0, e, reply);
}

static void wait_served(void) {
        for (int i = 0; i < 1000 && !bus_is_served(served); i++)
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        CHECK(bus_is_served(served));
}

#define A32 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ONE32 "11111111111111111111111111111111"

static int read_body(void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        const char *id, *namespace, *name, *state, *ip, *unit, *path, *xml;
        uint64_t created;
        uint32_t n;

        wait_served();
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "ListPods", &e, &m, ""), 0);
        CHECK(sd_bus_message_enter_container(m, 'a', "(sssstsso)") > 0);
        CHECK(sd_bus_message_read(m, "(sssstsso)", &id, &namespace, &name, &state, &created, &ip, &unit, &path) > 0);
        CHECK_STREQ(id, A32 A32);
        CHECK_STREQ(namespace, "default");
        CHECK_STREQ(name, "nginx");
        CHECK_STREQ(state, "ready");
        CHECK_EQ(created, 77);
        CHECK_STREQ(ip, "10.0.0.9");
        CHECK_STREQ(path, "/org/rktlet1/pod/" A32 A32);
        /* The one that is only starting isn't shown. */
        CHECK_EQ(sd_bus_message_at_end(m, false), 1);
        m = sd_bus_message_unref(m);

        CHECK_EQ(call(BUS_PATH, "org.freedesktop.DBus.Properties", "Get", &e, &m, "ss", MANAGER_INTERFACE, "NPods"), 0);
        CHECK(sd_bus_message_read(m, "v", "u", &n) > 0);
        CHECK_EQ(n, 1);
        m = sd_bus_message_unref(m);

        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "GetContainer", &e, &m, "s", "11"), 0);
        CHECK(sd_bus_message_read(m, "o", &path) > 0);
        CHECK_STREQ(path, "/org/rktlet1/container/" ONE32 ONE32);
        m = sd_bus_message_unref(m);

        CHECK(call(BUS_PATH, MANAGER_INTERFACE, "GetPod", &e, &m, "s", "zz") < 0);
        CHECK(sd_bus_error_has_name(&e, "org.rktlet1.Error.NotFound"));
        sd_bus_error_free(&e);

        CHECK_EQ(call("/org/rktlet1/container/" ONE32 ONE32, "org.freedesktop.DBus.Properties", "Get", &e, &m, "ss",
                      CONTAINER_INTERFACE, "Image"), 0);
        CHECK(sd_bus_message_read(m, "v", "s", &name) > 0);
        CHECK_STREQ(name, "nginx:1");
        m = sd_bus_message_unref(m);
        CHECK(call("/org/rktlet1/pod/b", "org.freedesktop.DBus.Properties", "GetAll", &e, &m, "s", "") < 0);
        sd_bus_error_free(&e);

        CHECK_EQ(call(POD_PATH, "org.freedesktop.DBus.Introspectable", "Introspect", &e, &m, ""), 0);
        CHECK(sd_bus_message_read(m, "s", &xml) > 0);
        CHECK(strstr(xml, "<node name=\"" A32 A32 "\"") && !strstr(xml, "bbbb"));
        m = sd_bus_message_unref(m);

        CHECK_EQ(call(BUS_PATH, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", &e, &m, ""), 0);
        m = sd_bus_message_unref(m);
        CHECK_EQ(call("/org/rktlet1/pod/" A32 A32, "org.freedesktop.DBus.Properties", "GetAll", &e, &m, "s",
                      POD_INTERFACE), 0);
        m = sd_bus_message_unref(m);
        CHECK_EQ(call("/org/rktlet1/container/" ONE32 ONE32, "org.freedesktop.DBus.Properties", "GetAll", &e, &m, "s",
                      CONTAINER_INTERFACE), 0);
        m = sd_bus_message_unref(m);
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "ListContainers", &e, &m, ""), 0);
        m = sd_bus_message_unref(m);
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "ListImages", &e, &m, ""), 0);
        CHECK_STREQ(sd_bus_message_get_signature(m, true), "a(sasastbo)");
        bus_drain_wait(served);
        return 0;
}

static int stop_body(void *userdata) {
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;

        wait_served();
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "StopPod", &e, NULL, "s", "aaaa"), 0);
        CHECK_EQ(call("/org/rktlet1/pod/" A32 A32, POD_INTERFACE, "Stop", &e, NULL, ""), 0);
        CHECK_EQ(n_pod_stop, 2);
        CHECK(call(BUS_PATH, MANAGER_INTERFACE, "StopContainer", &e, NULL, "st", "1", UINT64_C(5000000)) < 0);
        CHECK(sd_bus_error_has_name(&e, "org.rktlet1.Error.FailedPrecondition"));
        CHECK_STREQ(e.message, "It does not want to");
        CHECK_EQ(last_timeout, 5000000);
        CHECK_EQ(n_container_stop, 1);
        CHECK_EQ(fiber_yield(), 0);
        CHECK_EQ(pod.n_ref, 1);
        CHECK_EQ(container.n_ref, 1);
        bus_drain_wait(served);
        return 0;
}

static int stop_one(void *userdata) {
        return call(BUS_PATH, MANAGER_INTERFACE, "StopPod", userdata, NULL, "s", "aaaa");
}

static int drain_body(void *userdata) {
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        Fiber *f;
        int r;

        wait_served();
        stop_hangs = true;
        CHECK_EQ(fiber_spawn(event, "stop", stop_one, &e, NULL, &f), 0);
        while (n_pod_stop == 0)
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        bus_drain_wait(served);
        CHECK_EQ(pod.n_ref, 1);
        CHECK_EQ(fiber_join(f, &r), 0);
        CHECK(r < 0);
        CHECK(sd_bus_error_has_name(&e, "org.rktlet1.Error.Canceled"));
        fiber_unref(f);
        return 0;
}

static int signals_body(void *userdata) {
        wait_served();
        CHECK_EQ(fiber_sleep(50 * USEC_PER_MSEC), 0);
        signals[0] = 0;
        event_of(MANAGER_CONTAINER_STARTED);
        event_of(MANAGER_POD_CHANGED);
        HASH_DELETE(hh, manager.containers, &container);
        container.removed = true;
        event_of(MANAGER_CONTAINER_REMOVED);
        CHECK_EQ(fiber_sleep(50 * USEC_PER_MSEC), 0);
        printf("# %s\n", signals);
        CHECK_STREQ(signals, "PropertiesChanged(org.rktlet1.Container) Event(container-started) "
                             "PropertiesChanged(org.rktlet1.Pod) "
                             "InterfacesRemoved(/org/rktlet1/container/1) Event(container-removed) "
                             "PropertiesChanged(org.rktlet1.Manager) ");
        signals[0] = 0;
        HASH_ADD_STR(manager.containers, id, (&container));
        container.removed = false;
        event_of(MANAGER_CONTAINER_CREATED);
        event_of(MANAGER_POD_ADDED);
        CHECK_EQ(fiber_sleep(50 * USEC_PER_MSEC), 0);
        CHECK_STREQ(signals, "InterfacesAdded(/org/rktlet1/container/1) Event(container-created) "
                             "PropertiesChanged(org.rktlet1.Manager) "
                             "InterfacesAdded(/org/rktlet1/pod/aaaaaaa) Event(pod-started) "
                             "PropertiesChanged(org.rktlet1.Manager) ");
        signals[0] = 0;
        image_changed(&image, IMAGE_ADDED, image_userdata);
        image_changed(&image, IMAGE_CHANGED, image_userdata);
        image_changed(&image, IMAGE_REMOVED, image_userdata);
        CHECK_EQ(fiber_sleep(50 * USEC_PER_MSEC), 0);
        CHECK_STREQ(signals, "InterfacesAdded(/org/rktlet1/image/fffff) Event(image-added) "
                             "PropertiesChanged(org.rktlet1.Manager) "
                             "PropertiesChanged(org.rktlet1.Image) Event(image-changed) "
                             "InterfacesRemoved(/org/rktlet1/image/fffff) Event(image-removed) "
                             "PropertiesChanged(org.rktlet1.Manager) ");
        bus_drain_wait(served);
        return 0;
}

static int methods_body(void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        const char *path, *name, *json;
        uint64_t cpu, memory, processes, read_bytes, written;

        wait_served();
        /* By a unit's name, and by what kubectl calls it. */
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "GetPod", &e, &m, "s", "rktlet-pod-" A32 A32 ".service"), 0);
        m = sd_bus_message_unref(m);
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "GetPod", &e, &m, "s", "default/nginx"), 0);
        m = sd_bus_message_unref(m);
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "GetContainer", &e, &m, "s", "default/nginx/web"), 0);
        m = sd_bus_message_unref(m);
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "GetContainer", &e, &m, "s", "web"), 0);
        m = sd_bus_message_unref(m);
        CHECK(call(BUS_PATH, MANAGER_INTERFACE, "GetContainer", &e, NULL, "s", "other/nginx/web") < 0);
        sd_bus_error_free(&e);
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "GetImage", &e, &m, "s", "a/b:1"), 0);
        CHECK(sd_bus_message_read(m, "o", &path) > 0);
        CHECK_STREQ(path, "/org/rktlet1/image/" F64);
        m = sd_bus_message_unref(m);
        CHECK_EQ(call("/org/rktlet1/image/" F64, "org.freedesktop.DBus.Properties", "GetAll", &e, &m, "s", IMAGE_INTERFACE),
                 0);
        m = sd_bus_message_unref(m);

        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "ListUsage", &e, &m, ""), 0);
        CHECK(sd_bus_message_enter_container(m, 'a', "(sssttttt)") > 0);
        CHECK(sd_bus_message_read(m, "(sssttttt)", NULL, NULL, &name, &cpu, &memory, &processes, &read_bytes, &written) > 0);
        CHECK_STREQ(name, "web");
        CHECK(cpu == 5 && memory == 6 && processes == 7 && read_bytes == 8 && written == 0);
        m = sd_bus_message_unref(m);

        signals[0] = 0;
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "PullImage", &e, &m, "sa{sv}", "c", 2, "Username", "s", "me", "Password",
                      "s", "secret"), 0);
        CHECK_STREQ(pulled, "c");
        CHECK_STREQ(pull_user, "me");
        CHECK(strstr(signals, "PullProgress(docker.io/library/c:late"));
        m = sd_bus_message_unref(m);
        CHECK(call(BUS_PATH, MANAGER_INTERFACE, "PullImage", &e, NULL, "sa{sv}", "c", 1, "Passwort", "s", "secret") < 0);
        CHECK(sd_bus_error_has_name(&e, "org.rktlet1.Error.InvalidArgument"));
        sd_bus_error_free(&e);
        CHECK(call(BUS_PATH, MANAGER_INTERFACE, "PullImage", &e, NULL, "sa{sv}", "missing", 0) < 0);
        CHECK(sd_bus_error_has_name(&e, "org.rktlet1.Error.NotFound"));
        sd_bus_error_free(&e);

        CHECK_EQ(call("/org/rktlet1/image/" F64, IMAGE_INTERFACE, "Remove", &e, NULL, ""), 0);
        CHECK_STREQ(image_removed, "sha256:" F64);
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "RemoveImage", &e, NULL, "s", "a/b:1"), 0);
        CHECK_STREQ(image_removed, "a/b:1");
        CHECK(call(BUS_PATH, MANAGER_INTERFACE, "RemoveImage", &e, NULL, "s", "nothing") < 0);
        sd_bus_error_free(&e);
        CHECK_EQ(call("/org/rktlet1/pod/" A32 A32, POD_INTERFACE, "Remove", &e, NULL, ""), 0);
        CHECK_EQ(n_pod_remove, 1);
        CHECK_EQ(call("/org/rktlet1/container/" ONE32 ONE32, CONTAINER_INTERFACE, "Remove", &e, NULL, ""), 0);
        CHECK_EQ(n_container_remove, 1);
        CHECK(call(BUS_PATH, MANAGER_INTERFACE, "KillContainer", &e, NULL, "ssi", "1", "someone", 9) < 0);
        CHECK(sd_bus_error_has_name(&e, "org.rktlet1.Error.InvalidArgument"));
        sd_bus_error_free(&e);

        /* The image of nobody, and the container that has exited. */
        container.phase = CONTAINER_EXITED;
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "Prune", &e, &m, "as", 0), 0);
        CHECK_STREQ(sd_bus_message_get_signature(m, true), "a(ss)");
        m = sd_bus_message_unref(m);
        CHECK_EQ(n_container_remove, 2);
        CHECK_STREQ(image_removed, "sha256:" F64);
        CHECK(call(BUS_PATH, MANAGER_INTERFACE, "Prune", &e, NULL, "as", 1, "everything") < 0);
        sd_bus_error_free(&e);

        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "Dump", &e, &m, ""), 0);
        CHECK(sd_bus_message_read(m, "s", &json) > 0);
        CHECK(strstr(json, "\"name\": \"nginx\"") && strstr(json, "a/b:1"));
        bus_drain_wait(served);
        return 0;
}

static int run_body(void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        const runtime_v1_ContainerConfig *c = &create_request.config;
        const char *pod_path, *path;

        wait_served();
        CHECK_EQ(call(BUS_PATH, MANAGER_INTERFACE, "Run", &e, &m, "sasa{sv}", "a/b:1", 2, "echo", "hi", 4, "Environment",
                      "as", 1, "A=b=c", "HostNetwork", "b", 1, "Name", "s", "try", "Terminal", "b", 1), 0);
        CHECK(sd_bus_message_read(m, "oo", &pod_path, &path) > 0);
        CHECK_STREQ(path, "/org/rktlet1/container/" ONE32 ONE32);
        CHECK_STREQ(run_request.config.metadata.name, "try");
        CHECK_STREQ(run_request.config.metadata.namespace, "rktletctl");
        CHECK_STREQ(run_request.config.log_directory, "/nonexistent/run/logs/try");
        CHECK_EQ(run_request.config.linux.security_context.namespace_options.network, runtime_v1_NamespaceMode_NODE);
        CHECK_STREQ(c->image.image, "sha256:" F64);
        CHECK_EQ(c->args_count, 2);
        CHECK_STREQ(c->args[1], "hi");
        CHECK_STREQ(c->envs[0].key, "A");
        CHECK_STREQ(c->envs[0].value, "b=c");
        CHECK(c->tty && c->linux.security_context.masked_paths_count > 5);
        CHECK_EQ(n_container_start, 1);
        CHECK_EQ(n_pod_remove, 0);
        pb_release(runtime_v1_RunPodSandboxRequest_fields, &run_request);
        pb_release(runtime_v1_CreateContainerRequest_fields, &create_request);

        CHECK(call(BUS_PATH, MANAGER_INTERFACE, "Run", &e, NULL, "sasa{sv}", "a/b:1", 0, 1, "Name", "s", "../up") < 0);
        CHECK(sd_bus_error_has_name(&e, "org.rktlet1.Error.InvalidArgument"));
        sd_bus_error_free(&e);
        /* What can't be made complete leaves no pod behind. */
        create_fails = true;
        CHECK(call(BUS_PATH, MANAGER_INTERFACE, "Run", &e, NULL, "sasa{sv}", "a/b:1", 0, 0) < 0);
        CHECK(sd_bus_error_has_name(&e, "org.rktlet1.Error.NotFound"));
        CHECK_EQ(n_pod_remove, 1);
        create_fails = false;
        pb_release(runtime_v1_RunPodSandboxRequest_fields, &run_request);
        pb_release(runtime_v1_CreateContainerRequest_fields, &create_request);
        CHECK_EQ(pod.n_ref, 1);
        bus_drain_wait(served);
        return 0;
}

static void read_result(int fd, const char *expected) {
        char text[256] = "";
        size_t n = 0;

        while (!strchr(text, '\n')) {
                ssize_t k;

                CHECK(fiber_wait_fd(fd, EPOLLIN, 5 * USEC_PER_SEC) > 0);
                k = read(fd, text + n, sizeof text - 1 - n);
                CHECK(k > 0);
                n += (size_t) k;
        }
        CHECK_STREQ(text, expected);
}

static int exec_body(void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        int in, out, err, result, packets;
        char text[16] = "";

        wait_served();
        for (int round = 0; round < 2; round++) {
                exec_result = 1;
                CHECK_EQ(call("/org/rktlet1/container/" ONE32 ONE32, CONTAINER_INTERFACE, "Exec", &e, &m, "asbb", 1, "hello",
                              0, 1), 0);
                CHECK(sd_bus_message_read(m, "ahh", 3, &in, &out, &err, &result) > 0);
                CHECK(read(out, text, sizeof text) == 5);
                CHECK_STREQ(text, "hello");
                if (round == 0) {
                        CHECK(write(in, "x", 1) == 1);
                        read_result(result, "exit 7\n");
                }
                /* The second time the caller just goes away, and the command with it. */
                m = sd_bus_message_unref(m);
                for (int i = 0; i < 400 && exec_result == 1; i++)
                        CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
                CHECK(round == 0 ? exec_result >= 0 : exec_result == -ECANCELED);
        }
        CHECK(call("/org/rktlet1/container/" ONE32 ONE32, CONTAINER_INTERFACE, "Exec", &e, NULL, "asbb", 0, 0, 1) < 0);
        sd_bus_error_free(&e);
        CHECK_EQ(call("/org/rktlet1/container/" ONE32 ONE32, CONTAINER_INTERFACE, "Attach", &e, &m, "b", 1), 0);
        CHECK(sd_bus_message_read(m, "h", &packets) > 0);
        CHECK(recv(packets, text, sizeof text, 0) == 4 && text[0] == 1);
        bus_drain_wait(served);
        return 0;
}

static int log_control_body(void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        int old = log_get_max_level();
        const char *level;

        wait_served();
        CHECK_EQ(call(LOG_CONTROL_PATH, "org.freedesktop.DBus.Properties", "Set", &e, NULL, "ssv", LOG_CONTROL_INTERFACE,
                      "LogLevel", "s", "err"), 0);
        CHECK_EQ(log_get_max_level(), LOG_ERR);
        CHECK_EQ(call(LOG_CONTROL_PATH, "org.freedesktop.DBus.Properties", "Get", &e, &m, "ss", LOG_CONTROL_INTERFACE,
                      "LogLevel"), 0);
        CHECK(sd_bus_message_read(m, "v", "s", &level) > 0);
        CHECK_STREQ(level, "err");
        CHECK(call(LOG_CONTROL_PATH, "org.freedesktop.DBus.Properties", "Set", &e, NULL, "ssv", LOG_CONTROL_INTERFACE,
                   "LogLevel", "s", "loud") < 0);
        sd_bus_error_free(&e);
        CHECK_EQ(call(LOG_CONTROL_PATH, "org.freedesktop.DBus.Properties", "Set", &e, NULL, "ssv", LOG_CONTROL_INTERFACE,
                      "LogTarget", "s", "null"), 0);
        CHECK_EQ(log_get_target(), LOG_TARGET_NULL);
        log_set_target(LOG_TARGET_AUTO);
        (void) log_set_max_level(old);
        bus_drain_wait(served);
        return 0;
}

/* --- machined ---------------------------------------------------------------------------------------------------- */

static char machine[256];

static int on_register(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *name, *service, *class, *root;
        const void *id;
        uint32_t leader;
        size_t n;

        CHECK(sd_bus_message_read(m, "s", &name) > 0 && sd_bus_message_read_array(m, 'y', &id, &n) > 0 &&
              sd_bus_message_read(m, "ssus", &service, &class, &leader, &root) > 0);
        snprintf(machine, sizeof machine, "%s %zu %02x %s %s %u", name, n, *(const uint8_t *) id, service, class, leader);
        return sd_bus_reply_method_return(m, "o", "/machine");
}

static const sd_bus_vtable machined_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("RegisterMachine", "sayssus", "o", on_register, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

static int machines_body(void *userdata) {
        wait_served();
        CHECK(sd_bus_add_object_vtable(client, NULL, "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager",
                                       machined_vtable, NULL) >= 0);
        CHECK(sd_bus_request_name_async(client, NULL, "org.freedesktop.machine1", 0, NULL, NULL) >= 0);
        CHECK_EQ(fiber_sleep(20 * USEC_PER_MSEC), 0);
        event_of(MANAGER_CONTAINER_STARTED);
        CHECK_EQ(fiber_sleep(50 * USEC_PER_MSEC), 0);
        CHECK_STREQ(machine, ""); /* not unless asked for */
        bus_set_register_machines(served, true);
        container.request.config.metadata.name = (char *) "we b";
        event_of(MANAGER_CONTAINER_STARTED);
        for (int i = 0; i < 400 && !machine[0]; i++)
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        CHECK_STREQ(machine, "nginx-we-b-11111111 16 11 rktlet container 12");
        bus_drain_wait(served);
        return 0;
}

/* --- others than root ------------------------------------------------------------------------------------------- */

static int polkit_answer;
static unsigned n_polkit;

static int on_check_authorization(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *kind, *action;

        CHECK(sd_bus_message_enter_container(m, 'r', "sa{sv}") > 0);
        CHECK(sd_bus_message_read(m, "s", &kind) > 0);
        CHECK(sd_bus_message_skip(m, "a{sv}") > 0);
        CHECK(sd_bus_message_exit_container(m) > 0);
        CHECK(sd_bus_message_read(m, "s", &action) > 0);
        CHECK_STREQ(kind, "system-bus-name");
        CHECK_STREQ(action, "org.rktlet1.inspect");
        n_polkit++;
        return sd_bus_reply_method_return(m, "(bba{ss})", polkit_answer, 0, 0);
}

static const sd_bus_vtable polkit_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("CheckAuthorization", "(sa{sv})sa{ss}us", "(bba{ss})", on_check_authorization,
                      SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

static void nobody_calls(const char *member, const char *arguments, int status, const char *output, const char *errors) {
        _cleanup_strv_free_ char **argv = NULL;
        _cleanup_(process_result_done) ProcessResult result = {};
        _cleanup_free_ char *line = strprintf("/usr/bin/setpriv --reuid=65534 --clear-groups busctl --address=%s call " BUS_NAME
                                              " " BUS_PATH " %s %s",
                                              fake->bus_address, member, arguments);

        CHECK_EQ(strv_split(line, " ", &argv), 0);
        CHECK_EQ(process_run(&(ProcessOptions) { .argv = (const char *const *) argv, .output_max = 65536,
                                                 .error_max = 65536, .timeout_usec = 20 * USEC_PER_SEC }, &result, NULL), 0);
        if (!strstr(result.output, output) || !strstr(result.error, errors) || result.status != status)
                fprintf(stderr, "%s: status %d, %s%s", member, result.status, result.output, result.error);
        CHECK_EQ(result.status, status);
        CHECK(strstr(result.output, output));
        CHECK(strstr(result.error, errors));
}

static int others_body(void *userdata) {
        wait_served();
        if (geteuid() != 0) {
                printf("# this needs root\n");
                bus_drain_wait(served);
                return 0;
        }
        CHECK(chmod(fake->directory, 0755) == 0);
        nobody_calls(MANAGER_INTERFACE, "ListPods", 1, "", "Access denied");
        CHECK(sd_bus_add_object_vtable(client, NULL, "/org/freedesktop/PolicyKit1/Authority",
                                       "org.freedesktop.PolicyKit1.Authority", polkit_vtable, NULL) >= 0);
        CHECK(sd_bus_request_name_async(client, NULL, "org.freedesktop.PolicyKit1", 0, NULL, NULL) >= 0);
        CHECK_EQ(fiber_sleep(20 * USEC_PER_MSEC), 0);
        polkit_answer = false;
        nobody_calls(MANAGER_INTERFACE, "ListPods", 1, "", "Access denied");
        CHECK_EQ(n_polkit, 1);
        polkit_answer = true;
        nobody_calls(MANAGER_INTERFACE, "ListPods", 0, "a(sssstsso) 1 \"aaaa", "");
        nobody_calls("org.freedesktop.DBus.Properties", "Get ss " MANAGER_INTERFACE " NPods", 0, "v u 1", "");
        nobody_calls("org.freedesktop.DBus.ObjectManager", "GetManagedObjects", 0, A32, "");
        CHECK_EQ(n_polkit, 4);
        /* Nothing is changed, whatever polkit would say. */
        nobody_calls(MANAGER_INTERFACE, "StopPod s aaaa", 1, "", "Access denied");
        nobody_calls(MANAGER_INTERFACE, "Dump", 1, "", "Access denied");
        nobody_calls("org.freedesktop.DBus.Properties", "Set ssv a b s c", 1, "", "Access denied");
        CHECK_EQ(n_polkit, 4);
        CHECK_EQ(n_pod_stop, 0);
        bus_drain_wait(served);
        return 0;
}

static int restart_body(void *userdata) {
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;

        wait_served();
        fake_systemd_stop_daemon(fake);
        while (bus_is_served(served))
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        /* Without one, everything goes on. */
        event_of(MANAGER_CONTAINER_STARTED);
        CHECK(fake_systemd_start_daemon(fake));
        wait_served();
        sd_bus_close(client);
        client = sd_bus_unref(client);
        connect_client();
        CHECK_EQ(call(BUS_PATH, "org.freedesktop.DBus.Peer", "Ping", &e, NULL, ""), 0);
        bus_drain_wait(served);
        return 0;
}

static void ctl(const char *arguments, int status, const char *output, const char *errors) {
        _cleanup_strv_free_ char **argv = NULL;
        _cleanup_(process_result_done) ProcessResult result = {};
        _cleanup_free_ char *line = strprintf("%s %s", getenv("RKTLETCTL"), arguments);
        _cleanup_free_ char *address = strprintf("DBUS_SYSTEM_BUS_ADDRESS=%s", fake->bus_address);
        const char *env[] = { address, NULL };

        CHECK_EQ(strv_split(line, " ", &argv), 0);
        CHECK_EQ(process_run(&(ProcessOptions) { .argv = (const char *const *) argv, .env = env, .output_max = 65536,
                                                 .error_max = 65536, .timeout_usec = 20 * USEC_PER_SEC }, &result, NULL), 0);
        if (!strstr(result.output, output) || !strstr(result.error, errors) || result.status != status)
                fprintf(stderr, "%s: status %d, %s%s", arguments, result.status, result.output, result.error);
        CHECK_EQ(result.code, CLD_EXITED);
        CHECK_EQ(result.status, status);
        CHECK(strstr(result.output, output));
        CHECK(strstr(result.error, errors));
}

static int ctl_body(void *userdata) {
        wait_served();
        /* Not on a terminal: whole IDs, one blank between fields, no sum. */
        ctl("list-pods", 0, "ID NAMESPACE NAME STATE AGE IP UNIT\n", "");
        ctl("", 0, A32 A32 " default nginx ready ", "");
        ctl("--no-legend list-containers", 0, ONE32 ONE32 " " A32 A32 " web running ", "");
        ctl("list-images", 0, F64 " a/b:1 42B no\n", "");
        ctl("list-images --json=pretty", 0, "\"tags\": [\n                        \"a/b:1\"\n", "");
        ctl("-j list-images", 0, "\"tags\":[\"a/b:1\"]", "");
        ctl("--json=short list-pods", 0, "\"ip\":\"10.0.0.9\"", "");
        ctl("list-containers --json=short", 0, "\"exit_code\":0", "");
        ctl("list-pods --json=long", 1, "", "pretty, short and off");
        ctl("status", 0, " Containers: 1\n", "");
        ctl("status default/nginx", 0, "● default/nginx - pod\n", "");
        ctl("status 11", 0, "● default/nginx/web - container\n", "");
        ctl("status a/b:1", 0, "       Tags: a/b:1\n", "");
        ctl("status zz", 4, "", "There is no pod or container or image with the ID, unit or name \"zz\"");
        ctl("show a 1", 0, "Labels.app=web\n", "");
        ctl("show a 1", 0, "\nImage=nginx:1\n", "");
        ctl("show a", 0, "\nIPs=10.0.0.9 fd00::9\n", "");
        ctl("show a/b:1", 0, "\nLabels.vendor=us\n", "");
        ctl("show", 0, "StateDirectory=/s\n", "");
        ctl("--json=pretty show a", 0, "\"Namespace\": \"default\"", "");
        ctl("show zz", 4, "", "There is no pod");
        ctl("stop aaa", 0, "", "");
        CHECK_EQ(n_pod_stop, 1);
        ctl("stop --timeout=2s 11", 1, "", "It does not want to\n");
        CHECK_EQ(last_timeout, 2000000);
        ctl("stop --timeout=never 11", 1, "", "--timeout=never is no time span");
        ctl("kill -s NOSUCH 11", 1, "", "--signal=NOSUCH is no signal");
        ctl("remove a", 0, "", "");
        CHECK_EQ(n_pod_remove, 1);
        ctl("remove a/b:1", 0, "", "");
        CHECK_STREQ(image_removed, "a/b:1");
        ctl("prune images --json=short", 0, "{\"kind\":\"image\",\"id\":\"sha256:" F64, "");
        ctl("prune everything", 1, "", "can't be pruned");
        ctl("pull c", 0, "sha256:" F64 "\n", "");
        ctl("pull missing", 1, "", "There is no such image\n");
        ctl("pull NOT/VALID", 1, "", "");
        ctl("top --delay=50ms", 0, "ID POD NAME %CPU MEMORY TASKS READ WRITTEN\n" ONE32 ONE32 " " A32 A32 " web 0.0 6B 7 8B 0B", "");
        ctl("dump", 0, "\"bus_methods\": 0", "");
        ctl("stop", 1, "", "stop wants at least one argument");
        ctl("events now", 1, "", "events takes no arguments");
        ctl("exec 1", 1, "", "exec wants a container and a command");
        ctl("nonsense", 1, "", "Unknown command \"nonsense\"");
        ctl("--nonsense", 1, "", "unrecognized option");
        ctl("--help", 0, "list-containers", "");
        ctl("--version", 0, "rktletctl " PROJECT_VERSION, "");

        /* Nothing that is shown steers the terminal. */
        pod.request.config.metadata.name = (char *) "a\033[2Jb\302\233c";
        ctl("list-pods", 0, " a?[2Jb?c ", "");
        bus_drain_wait(served);
        CHECK_EQ(fiber_sleep(50 * USEC_PER_MSEC), 0);
        ctl("list-pods", 1, "", "rktlet does not run");
        return 0;
}

static void run(FiberFunc func, bool late) {
        (void) signal(SIGPIPE, SIG_IGN); /* as the daemon has it */
        fill();
        n_pod_stop = n_container_stop = n_pod_remove = n_container_remove = n_container_start = 0;
        stop_hangs = false;
        CHECK(sd_event_new(&event) >= 0);
        fake = fake_systemd_new(event);
        CHECK_EQ(systemd_new(event, &manager.systemd), 0);
        if (late)
                CHECK_EQ(bus_new(event, &manager, fake->bus_address, &served), 0);
        if (fake_systemd_start_daemon(fake)) {
                if (!late)
                        CHECK_EQ(bus_new(event, &manager, fake->bus_address, &served), 0);
                connect_client();
                CHECK_EQ(fiber_run(event, func, NULL), 0);
                sd_bus_close(client);
                client = sd_bus_unref(client);
        } else
                printf("# no dbus-daemon here\n");
        served = bus_free(served);
        manager.systemd = systemd_free(manager.systemd);
        fake = fake_systemd_free(fake);
        CHECK_EQ(fiber_count(), 0);
        event = sd_event_unref(event);
        HASH_CLEAR(hh, manager.pods);
        HASH_CLEAR(hh, manager.containers);
}

static void pods_and_containers_are_objects(void) {
        run(read_body, false);
}
static void methods_stop_them(void) {
        run(stop_body, false);
}
static void draining_ends_what_is_under_way(void) {
        run(drain_body, false);
}
static void changes_are_announced(void) {
        run(signals_body, false);
}
static void a_bus_that_appears_later_is_taken(void) {
        run(read_body, true);
}
static void a_bus_that_was_restarted_is_taken_again(void) {
        run(restart_body, false);
}
static void methods_do_what_they_say(void) {
        run(methods_body, false);
}
static void a_container_of_an_image_is_run(void) {
        run(run_body, false);
}
static void exec_hands_out_descriptors_and_ends_with_its_caller(void) {
        run(exec_body, false);
}
static void the_log_level_is_changed_while_it_runs(void) {
        run(log_control_body, false);
}
static void others_may_look_if_polkit_says_so_and_nothing_more(void) {
        run(others_body, false);
}
static void containers_are_machines_when_configured(void) {
        run(machines_body, false);
}
static void rktletctl_shows_and_stops_them(void) {
        if (getenv("RKTLETCTL"))
                run(ctl_body, false);
        else
                printf("# RKTLETCTL= is not set\n");
}

TEST_MAIN(TEST_CASE(pods_and_containers_are_objects), TEST_CASE(methods_stop_them),
          TEST_CASE(draining_ends_what_is_under_way), TEST_CASE(changes_are_announced),
          TEST_CASE(a_bus_that_appears_later_is_taken), TEST_CASE(a_bus_that_was_restarted_is_taken_again),
          TEST_CASE(methods_do_what_they_say), TEST_CASE(a_container_of_an_image_is_run),
          TEST_CASE(exec_hands_out_descriptors_and_ends_with_its_caller), TEST_CASE(the_log_level_is_changed_while_it_runs),
          TEST_CASE(others_may_look_if_polkit_says_so_and_nothing_more), TEST_CASE(containers_are_machines_when_configured), TEST_CASE(rktletctl_shows_and_stops_them))
