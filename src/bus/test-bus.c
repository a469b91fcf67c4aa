#include "basic/fiber.h"
#include "basic/process.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "bus/internal.h"
#include "systemd/fake-systemd.h"

/* --- stand-ins for the manager ---------------------------------------------------------------------------------- */

static Manager manager;
static Pod pod, starting;
static Container container;
static unsigned n_pod_stop, n_container_stop;
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
Image **image_store_list(ImageStore *s) {
        static char *tags[] = { (char *) "a/b:1", NULL };
        static Image image = { .id = (char *) "sha256:feed", .repo_tags = tags, .size = 42 };
        Image **l = calloc(2, sizeof *l);

        l[0] = &image;
        return l;
}

static void fill(void) {
        static runtime_v1_PodSandboxConfig_LabelsEntry label = { (char *) "app", (char *) "web" };
        static char *ips[] = { (char *) "10.0.0.9", (char *) "fd00::9", NULL };
        runtime_v1_PodSandboxConfig *c = &pod.request.config;

        manager = (Manager) { .loaded = true };
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

        if (streq(sd_bus_message_get_member(m), "PropertiesChanged"))
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
        CHECK_STREQ(sd_bus_message_get_signature(m, true), "a(sasastb)");
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
        CHECK_STREQ(signals, "PropertiesChanged(org.rktlet1.Container) PropertiesChanged(org.rktlet1.Pod) "
                             "InterfacesRemoved(/org/rktlet1/container/1) PropertiesChanged(org.rktlet1.Manager) ");
        signals[0] = 0;
        HASH_ADD_STR(manager.containers, id, (&container));
        container.removed = false;
        event_of(MANAGER_CONTAINER_CREATED);
        event_of(MANAGER_POD_ADDED);
        CHECK_EQ(fiber_sleep(50 * USEC_PER_MSEC), 0);
        CHECK_STREQ(signals, "InterfacesAdded(/org/rktlet1/container/1) PropertiesChanged(org.rktlet1.Manager) "
                             "InterfacesAdded(/org/rktlet1/pod/aaaaaaa) PropertiesChanged(org.rktlet1.Manager) ");
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
        ctl("list-pods", 0, "ID           NAMESPACE NAME  STATE AGE", "");
        ctl("", 0, "aaaaaaaaaaaa default   nginx ready ", "");
        ctl("list-pods", 0, "\n1 pods listed.\n", "");
        ctl("--full --no-legend list-pods", 0, A32 A32 " default nginx ready ", "");
        ctl("list-containers", 0, "111111111111 aaaaaaaaaaaa web  running ", "");
        ctl("list-images", 0, "feed a/b:1 42B  no\n", "");
        ctl("-j list-images", 0, "\"tags\": [\n                        \"a/b:1\"\n", "");
        ctl("--json list-pods", 0, "\"ip\": \"10.0.0.9\"", "");
        ctl("-j list-containers", 0, "\"exit_code\": 0", "");
        ctl("status", 0, "   Containers: 1\n", "");
        ctl("show a 1", 0, "Labels.app=web\n", "");
        ctl("show a 1", 0, "\nImage=nginx:1\n", "");
        ctl("show a", 0, "\nIPs=10.0.0.9 fd00::9\n", "");
        ctl("-j show a", 0, "\"Namespace\": \"default\"", "");
        ctl("show zz", 1, "", "There is no pod and no container with ID \"zz\"");
        ctl("stop-pod aaa", 0, "", "");
        CHECK_EQ(n_pod_stop, 1);
        ctl("-t 2s stop-container 11", 1, "", "It does not want to\n");
        CHECK_EQ(last_timeout, 2000000);
        ctl("-t never stop-container 11", 1, "", "--timeout=never is no time span");
        ctl("show", 1, "", "show wants at least one ID");
        ctl("nonsense", 1, "", "Unknown command \"nonsense\"");
        ctl("--nonsense", 1, "", "unrecognized option");
        ctl("--help", 0, "list-containers", "");
        ctl("--version", 0, "rktletctl " PROJECT_VERSION, "");

        /* Nothing that is shown steers the terminal. */
        pod.request.config.metadata.name = (char *) "a\033[2Jb";
        ctl("list-pods", 0, " a?[2Jb ", "");
        bus_drain_wait(served);
        CHECK_EQ(fiber_sleep(50 * USEC_PER_MSEC), 0);
        ctl("list-pods", 1, "", "rktlet does not run");
        return 0;
}

static void run(FiberFunc func, bool late) {
        fill();
        n_pod_stop = n_container_stop = 0;
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
static void rktletctl_shows_and_stops_them(void) {
        if (getenv("RKTLETCTL"))
                run(ctl_body, false);
        else
                printf("# RKTLETCTL= is not set\n");
}

TEST_MAIN(TEST_CASE(pods_and_containers_are_objects), TEST_CASE(methods_stop_them),
          TEST_CASE(draining_ends_what_is_under_way), TEST_CASE(changes_are_announced),
          TEST_CASE(a_bus_that_appears_later_is_taken), TEST_CASE(a_bus_that_was_restarted_is_taken_again),
          TEST_CASE(rktletctl_shows_and_stops_them))
