#include "systemd/fake-systemd.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "basic/fiber.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "systemd/internal.h"

#define SERVICE SYSTEMD_NAME ".Service"

/* --- units ------------------------------------------------------------------------------------------------------ */

FakeUnit *fake_systemd_unit(FakeSystemd *f, const char *name) {
        for (FakeUnit *u = f->units; u; u = u->next)
                if (streq(u->name, name))
                        return u;
        return NULL;
}

FakeUnit *fake_systemd_add_unit(FakeSystemd *f, const char *name, const char *active) {
        FakeUnit *u = fake_systemd_unit(f, name);

        if (!u) {
                u = calloc(1, sizeof *u);
                CHECK(u);
                u->name = strdup(name);
                u->description = strdup("");
                u->next = f->units;
                f->units = u;
        }
        u->loaded = u->transient = true;
        u->active = active;
        u->sub = streq(active, "active") ? "running" : "dead";
        u->result = "success";
        u->main_pid = 0;
        u->exec_main_code = u->exec_main_status = 0;
        u->begin_usec = 0;
        u->job = 0;
        return u;
}

static void unit_path(const FakeUnit *u, char **ret) {
        *ret = unit_object_path(u->name);
        CHECK(*ret);
}

static void emit(FakeSystemd *f, sd_bus_message *(*make)(FakeSystemd *f, sd_bus *bus, const void *data),
                 const void *data) {
        for (size_t i = 0; i <= f->n_buses; i++) {
                sd_bus *bus = i < f->n_buses ? f->buses[i] : f->bus;
                sd_bus_message *m;

                if (!bus || sd_bus_is_open(bus) <= 0)
                        continue;
                m = make(f, bus, data);
                (void) sd_bus_send(bus, m, NULL);
                sd_bus_message_unref(m);
        }
}

typedef struct JobSignal {
        uint32_t id;
        const char *unit, *result;
} JobSignal;

static sd_bus_message *make_job_removed(FakeSystemd *f, sd_bus *bus, const void *data) {
        const JobSignal *j = data;
        sd_bus_message *m;
        char path[128];

        snprintf(path, sizeof path, SYSTEMD_PATH "/job/%u", j->id);
        CHECK(sd_bus_message_new_signal(bus, &m, SYSTEMD_PATH, SYSTEMD_MANAGER, "JobRemoved") >= 0);
        CHECK(sd_bus_message_append(m, "uoss", j->id, path, j->unit, j->result) >= 0);
        return m;
}

static void finish_job(FakeSystemd *f, FakeUnit *u) {
        JobSignal j = { u->job, u->name, "done" };

        if (u->job == 0)
                return;
        u->job = 0;
        if (u->job_is_stop) {
                u->active = "inactive";
                u->sub = "dead";
                u->main_pid = 0;
                if (f->remove_stopped)
                        u->loaded = false;
        } else {
                j.result = f->job_result ? f->job_result : "done";
                u->begin_usec = now_usec(CLOCK_MONOTONIC);
                if (streq(j.result, "done")) {
                        u->active = "active";
                        u->sub = "running";
                        u->main_pid = 4711;
                } else {
                        u->active = u->sub = "failed";
                        u->result = "exit-code";
                        u->exec_main_code = CLD_EXITED;
                        u->exec_main_status = 203;
                        u->status_text = f->status_text;
                        u->status_errno = f->status_errno;
                }
        }
        emit(f, make_job_removed, &j);
}

void fake_systemd_finish_jobs(FakeSystemd *f) {
        for (FakeUnit *u = f->units; u; u = u->next)
                finish_job(f, u);
}

static void append_common(sd_bus_message *m, const FakeUnit *u) {
        char job[128];

        snprintf(job, sizeof job, "%s", u->job ? SYSTEMD_PATH "/job/1" : "/");
        CHECK(sd_bus_message_append(m, "{sv}{sv}{sv}", "ActiveState", "s", u->active, "SubState", "s", u->sub, "Job",
                                    "(uo)", u->job, job) >= 0);
}

static void append_service(sd_bus_message *m, const FakeUnit *u) {
        CHECK(sd_bus_message_append(m, "{sv}{sv}{sv}{sv}{sv}{sv}", "Result", "s", u->result, "MainPID", "u",
                                    u->main_pid, "ExecMainCode", "i", u->exec_main_code, "ExecMainStatus", "i",
                                    u->exec_main_status, "StatusText", "s", strempty(u->status_text), "StatusErrno",
                                    "i", u->status_errno) >= 0);
}

typedef struct Change {
        const FakeUnit *unit;
        bool service;
} Change;

static sd_bus_message *make_changed(FakeSystemd *f, sd_bus *bus, const void *data) {
        _cleanup_free_ char *path = NULL;
        const Change *c = data;
        sd_bus_message *m;

        unit_path(c->unit, &path);
        CHECK(sd_bus_message_new_signal(bus, &m, path, PROPERTIES_INTERFACE, "PropertiesChanged") >= 0);
        CHECK(sd_bus_message_append(m, "s", c->service ? SERVICE : SYSTEMD_UNIT) >= 0);
        CHECK(sd_bus_message_open_container(m, 'a', "{sv}") >= 0);
        (c->service ? append_service : append_common)(m, c->unit);
        CHECK(sd_bus_message_close_container(m) >= 0);
        CHECK(sd_bus_message_append(m, "as", 0) >= 0);
        return m;
}

void fake_systemd_changed(FakeSystemd *f, FakeUnit *u) {
        emit(f, make_changed, &(Change) { u, true });
        emit(f, make_changed, &(Change) { u, false });
}

static sd_bus_message *make_removed(FakeSystemd *f, sd_bus *bus, const void *data) {
        _cleanup_free_ char *path = NULL;
        const FakeUnit *u = data;
        sd_bus_message *m;

        unit_path(u, &path);
        CHECK(sd_bus_message_new_signal(bus, &m, SYSTEMD_PATH, SYSTEMD_MANAGER, "UnitRemoved") >= 0);
        CHECK(sd_bus_message_append(m, "so", u->name, path) >= 0);
        return m;
}

void fake_systemd_unload(FakeSystemd *f, FakeUnit *u) {
        u->loaded = false;
        u->active = "inactive";
        u->sub = "dead";
        u->main_pid = 0;
        emit(f, make_removed, u);
}

static sd_bus_message *make_reloading(FakeSystemd *f, sd_bus *bus, const void *data) {
        sd_bus_message *m;

        CHECK(sd_bus_message_new_signal(bus, &m, SYSTEMD_PATH, SYSTEMD_MANAGER, "Reloading") >= 0);
        CHECK(sd_bus_message_append(m, "b", *(const int *) data) >= 0);
        return m;
}

/* As PID 1 does it: every unit is removed and comes again. */
void fake_systemd_reload(FakeSystemd *f) {
        emit(f, make_reloading, &(int) { 1 });
        for (FakeUnit *u = f->units; u; u = u->next)
                emit(f, make_removed, u);
        emit(f, make_reloading, &(int) { 0 });
}

/* --- calls ------------------------------------------------------------------------------------------------------ */

static void reply(sd_bus_message *call, const char *types, ...) {
        sd_bus_message *m;
        va_list ap;

        CHECK(sd_bus_message_new_method_return(call, &m) >= 0);
        va_start(ap, types);
        CHECK(sd_bus_message_appendv(m, types, ap) >= 0);
        va_end(ap);
        (void) sd_bus_send(NULL, m, NULL);
        sd_bus_message_unref(m);
}

static int no_such_unit(sd_bus_message *m, const char *name) {
        return sd_bus_reply_method_errorf(m, SYSTEMD_NAME ".NoSuchUnit", "Unit %s not loaded.", name);
}

/* The connection the call came over breaks, as it does when PID 1 re-executes. */
static void cut(FakeSystemd *f, sd_bus_message *m) {
        sd_bus *bus = sd_bus_message_get_bus(m);

        if (bus == f->bus)
                fake_systemd_leave(f);
        else
                sd_bus_close(bus);
}

static void send_job(FakeSystemd *f, sd_bus_message *m, FakeUnit *u) {
        char path[128];

        snprintf(path, sizeof path, SYSTEMD_PATH "/job/%u", u->job);
        if (f->signal_first && !f->hold_jobs)
                finish_job(f, u);
        reply(m, "o", path);
        if (!f->hold_jobs)
                finish_job(f, u);
}

static int call_start(FakeSystemd *f, sd_bus_message *m) {
        const char *name, *mode, *key;
        FakeUnit *u;

        f->n_start++;
        if (f->cut_before > 0) {
                f->cut_before--;
                cut(f, m);
                return 1;
        }
        CHECK(sd_bus_message_read(m, "ss", &name, &mode) >= 0);
        CHECK_STREQ(mode, "fail");
        u = fake_systemd_unit(f, name);
        if (u && u->loaded)
                return sd_bus_reply_method_errorf(m, SYSTEMD_NAME ".UnitExists", "Unit %s already exists.", name);
        u = fake_systemd_add_unit(f, name, "inactive");
        CHECK(sd_bus_message_enter_container(m, 'a', "(sv)") >= 0);
        while (sd_bus_message_enter_container(m, 'r', "sv") > 0) {
                CHECK(sd_bus_message_read(m, "s", &key) >= 0);
                if (streq(key, "Description")) {
                        const char *description;

                        CHECK(sd_bus_message_read(m, "v", "s", &description) >= 0);
                        free(u->description);
                        u->description = strdup(description);
                } else
                        CHECK(sd_bus_message_skip(m, "v") >= 0);
                CHECK(sd_bus_message_exit_container(m) >= 0);
        }
        u->job = ++f->last_job;
        u->job_is_stop = false;
        if (f->cut_after > 0) {
                f->cut_after--;
                if (!f->hold_jobs)
                        finish_job(f, u);
                cut(f, m);
                return 1;
        }
        send_job(f, m, u);
        return 1;
}

static int call_stop(FakeSystemd *f, sd_bus_message *m) {
        const char *name, *mode;
        FakeUnit *u;

        f->n_stop++;
        CHECK(sd_bus_message_read(m, "ss", &name, &mode) >= 0);
        u = fake_systemd_unit(f, name);
        if (!u || !u->loaded)
                return no_such_unit(m, name);
        if (f->cut_before > 0) {
                f->cut_before--;
                cut(f, m);
                return 1;
        }
        if (u->job != 0) {
                JobSignal j = { u->job, u->name, "canceled" };
                emit(f, make_job_removed, &j);
        }
        u->job = ++f->last_job;
        u->job_is_stop = true;
        if (f->cut_after > 0) {
                f->cut_after--;
                if (!f->hold_jobs)
                        finish_job(f, u);
                cut(f, m);
                return 1;
        }
        send_job(f, m, u);
        return 1;
}

static char *unit_of_path(const char *path) {
        char *name = NULL;

        CHECK(sd_bus_path_decode(path, "/org/freedesktop/systemd1/unit", &name) > 0);
        return name;
}

static int call_get_all(FakeSystemd *f, sd_bus_message *m) {
        const char *object = sd_bus_message_get_path(m);
        FakeUnit *u, none = { .description = (char *) "", .active = "inactive", .sub = "dead", .result = "success" };
        sd_bus_message *r;

        f->n_get_all++;
        for (u = f->units; u; u = u->next) {
                _cleanup_free_ char *path = NULL;

                unit_path(u, &path);
                if (streq(path, object))
                        break;
        }
        if (!u || !u->loaded)
                u = &none;
        CHECK(sd_bus_message_new_method_return(m, &r) >= 0);
        CHECK(sd_bus_message_open_container(r, 'a', "{sv}") >= 0);
        CHECK(sd_bus_message_append(r, "{sv}{sv}{sv}{sv}{sv}", "Id", "s", strempty(u->name), "LoadState", "s",
                                    u->loaded ? "loaded" : "not-found", "Description", "s", u->description,
                                    "Transient", "b", (int) u->transient, "InactiveExitTimestampMonotonic", "t",
                                    u->begin_usec) >= 0);
        append_common(r, u);
        append_service(r, u);
        CHECK(sd_bus_message_append(r, "{sv}{sv}{sv}", "ControlGroup", "s", "/fake", "NRestarts", "u", 0, "ExecStart",
                                    "a(sasbttttuii)", 1, "/bin/x", 1, "x", 0, (uint64_t) 0, (uint64_t) 0, (uint64_t) 0,
                                    (uint64_t) 0, 0, 0, 0) >= 0);
        CHECK(sd_bus_message_close_container(r) >= 0);
        (void) sd_bus_send(NULL, r, NULL);
        sd_bus_message_unref(r);
        /* To be asked, PID 1 loads a unit that isn't there, and unloads it again. */
        if (u == &none) {
                none.name = unit_of_path(object);
                CHECK(none.name);
                emit(f, make_removed, &none);
                free(none.name);
        }
        return 1;
}

static int call_get(FakeSystemd *f, sd_bus_message *m) {
        const char *interface, *name, *object = sd_bus_message_get_path(m);
        uint32_t pid = 0;

        CHECK(sd_bus_message_read(m, "ss", &interface, &name) >= 0);
        if (!streq(name, "MainPID")) {
                reply(m, "v", "s", "252 (fake)");
                return 1;
        }
        f->n_get++;
        for (FakeUnit *u = f->units; u; u = u->next) {
                _cleanup_free_ char *path = NULL;

                unit_path(u, &path);
                if (streq(path, object) && u->loaded)
                        pid = u->main_pid;
        }
        reply(m, "v", "u", pid);
        return 1;
}

static int call_list(FakeSystemd *f, sd_bus_message *m) {
        _cleanup_strv_free_ char **states = NULL;
        sd_bus_message *r;

        f->n_list++;
        CHECK(sd_bus_message_read_strv(m, &states) >= 0);
        CHECK(sd_bus_message_new_method_return(m, &r) >= 0);
        CHECK(sd_bus_message_open_container(r, 'a', "(ssssssouso)") >= 0);
        for (FakeUnit *u = f->units; u; u = u->next) {
                _cleanup_free_ char *path = NULL;

                unit_path(u, &path);
                if (u->loaded && (strv_length(states) == 0 || strv_contains(states, u->active) ||
                                  strv_contains(states, u->sub)))
                        CHECK(sd_bus_message_append(r, "(ssssssouso)", u->name, u->description, "loaded", u->active,
                                                    u->sub, "", path, 0, "", "/") >= 0);
        }
        CHECK(sd_bus_message_close_container(r) >= 0);
        (void) sd_bus_send(NULL, r, NULL);
        sd_bus_message_unref(r);
        return 1;
}

static int call_simple(FakeSystemd *f, sd_bus_message *m) {
        const char *member = sd_bus_message_get_member(m), *name, *whom;
        FakeUnit *u;
        int signo;

        CHECK(sd_bus_message_read(m, "s", &name) >= 0);
        u = fake_systemd_unit(f, name);
        if (streq(member, "ResetFailedUnit"))
                f->n_reset++;
        else if (streq(member, "SetUnitProperties"))
                f->n_set++;
        else
                f->n_kill++;
        if (!u || !u->loaded)
                return no_such_unit(m, name);
        if (streq(member, "ResetFailedUnit") && streq(u->active, "failed"))
                fake_systemd_unload(f, u);
        if (streq(member, "KillUnit")) {
                CHECK(sd_bus_message_read(m, "si", &whom, &signo) >= 0);
                snprintf(f->last_kill, sizeof f->last_kill, "%s %s %d", name, whom, signo);
                if (u->main_pid == 0)
                        return sd_bus_reply_method_errorf(m, SYSTEMD_NAME ".NoSuchProcess", "No main process to kill");
        }
        reply(m, "");
        return 1;
}

static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        FakeSystemd *f = userdata;

        if (sd_bus_message_is_method_call(m, NULL, NULL) <= 0)
                return 0;
        if (f->silent)
                return 1;
        if (sd_bus_message_is_method_call(m, SYSTEMD_MANAGER, "StartTransientUnit"))
                return call_start(f, m);
        if (sd_bus_message_is_method_call(m, SYSTEMD_MANAGER, "StopUnit"))
                return call_stop(f, m);
        if (sd_bus_message_is_method_call(m, PROPERTIES_INTERFACE, "GetAll"))
                return call_get_all(f, m);
        if (sd_bus_message_is_method_call(m, SYSTEMD_MANAGER, "ListUnitsByPatterns"))
                return call_list(f, m);
        if (sd_bus_message_is_method_call(m, SYSTEMD_MANAGER, "Subscribe")) {
                f->n_subscribe++;
                if (sd_bus_message_get_expect_reply(m))
                        reply(m, "");
                return 1;
        }
        if (sd_bus_message_is_method_call(m, PROPERTIES_INTERFACE, "Get"))
                return call_get(f, m);
        if (sd_bus_message_is_method_call(m, SYSTEMD_MANAGER, "ResetFailedUnit") ||
            sd_bus_message_is_method_call(m, SYSTEMD_MANAGER, "KillUnit") ||
            sd_bus_message_is_method_call(m, SYSTEMD_MANAGER, "SetUnitProperties"))
                return call_simple(f, m);
        return 0;
}

/* --- PID 1's private socket ------------------------------------------------------------------------------------- */

static int on_accept(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        FakeSystemd *f = userdata;
        sd_id128_t id;
        sd_bus *bus;
        int c;

        c = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (c < 0)
                return 0;
        CHECK(f->n_buses < ELEMENTSOF(f->buses));
        f->n_connections++;
        CHECK(sd_id128_randomize(&id) >= 0);
        CHECK(sd_bus_new(&bus) >= 0);
        CHECK(sd_bus_set_fd(bus, c, c) >= 0);
        CHECK(sd_bus_set_server(bus, 1, id) >= 0);
        CHECK(sd_bus_negotiate_fds(bus, 1) >= 0);
        CHECK(sd_bus_start(bus) >= 0);
        CHECK(sd_bus_add_filter(bus, NULL, on_message, f) >= 0);
        CHECK(sd_bus_attach_event(bus, f->event, 0) >= 0);
        f->buses[f->n_buses++] = bus;
        return 0;
}

void fake_systemd_listen(FakeSystemd *f) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };

        if (f->listen_source)
                return;
        snprintf(sa.sun_path, sizeof sa.sun_path, "%s/private", f->directory);
        (void) unlink(sa.sun_path);
        f->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        CHECK(f->listen_fd >= 0);
        CHECK(bind(f->listen_fd, (struct sockaddr *) &sa, sizeof sa) >= 0);
        CHECK(listen(f->listen_fd, 16) >= 0);
        CHECK(sd_event_add_io(f->event, &f->listen_source, f->listen_fd, EPOLLIN, on_accept, f) >= 0);
}

void fake_systemd_hang_up(FakeSystemd *f, bool keep_listening) {
        if (!keep_listening) {
                f->listen_source = sd_event_source_disable_unref(f->listen_source);
                f->listen_fd = safe_close(f->listen_fd);
        }
        for (size_t i = 0; i < f->n_buses; i++) {
                sd_bus_close(f->buses[i]);
                sd_bus_unref(f->buses[i]);
        }
        f->n_buses = 0;
}

/* --- a dbus-daemon ---------------------------------------------------------------------------------------------- */

bool fake_systemd_start_daemon(FakeSystemd *f) {
        static const char config[] =
                "<busconfig><type>custom</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>"
                "<policy context=\"default\"><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>"
                "<allow own=\"*\"/><allow user=\"*\"/></policy></busconfig>";
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        char file[256], option[300];
        bool up = false;
        char *argv[] = { (char *) "dbus-daemon", (char *) "--nofork", (char *) "--nopidfile", option, NULL };
        FILE *c;

        snprintf(sa.sun_path, sizeof sa.sun_path, "%s/bus", f->directory);
        snprintf(file, sizeof file, "%s/bus.conf", f->directory);
        snprintf(option, sizeof option, "--config-file=%s", file);
        (void) unlink(sa.sun_path);
        c = fopen(file, "we");
        CHECK(c);
        fprintf(c, config, f->directory);
        fclose(c);
        f->daemon_pid = fork();
        CHECK(f->daemon_pid >= 0);
        if (f->daemon_pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                /* What it says of its limit of files is of no interest. */
                (void) dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
                (void) execvp(argv[0], argv);
                _exit(127);
        }
        for (int i = 0; i < 2000 && !up; i++) {
                int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

                CHECK(fd >= 0);
                up = connect(fd, (struct sockaddr *) &sa, sizeof sa) >= 0;
                (void) close(fd);
                if (up)
                        break;
                if (waitpid(f->daemon_pid, NULL, WNOHANG) > 0) {
                        f->daemon_pid = 0;
                        return false;
                }
                (void) usleep(5000);
        }
        CHECK(up);
        return true;
}

void fake_systemd_stop_daemon(FakeSystemd *f) {
        fake_systemd_leave(f);
        if (f->daemon_pid > 0) {
                (void) kill(f->daemon_pid, SIGKILL);
                (void) waitpid(f->daemon_pid, NULL, 0);
                f->daemon_pid = 0;
        }
}

void fake_systemd_join(FakeSystemd *f) {
        CHECK(!f->bus);
        CHECK(sd_bus_new(&f->bus) >= 0);
        CHECK(sd_bus_set_address(f->bus, f->bus_address) >= 0);
        CHECK(sd_bus_set_bus_client(f->bus, 1) >= 0);
        CHECK(sd_bus_start(f->bus) >= 0);
        CHECK(sd_bus_add_filter(f->bus, NULL, on_message, f) >= 0);
        CHECK(sd_bus_attach_event(f->bus, f->event, 0) >= 0);
        CHECK(sd_bus_request_name_async(f->bus, NULL, SYSTEMD_NAME, 0, NULL, NULL) >= 0);
}

void fake_systemd_leave(FakeSystemd *f) {
        if (!f->bus)
                return;
        sd_bus_close(f->bus);
        f->bus = sd_bus_unref(f->bus);
}

/* --- all of it -------------------------------------------------------------------------------------------------- */

FakeSystemd *fake_systemd_new(sd_event *event) {
        FakeSystemd *f = calloc(1, sizeof *f);
        char template[] = "/tmp/fake-systemd-XXXXXX";

        CHECK(f);
        f->event = sd_event_ref(event);
        f->listen_fd = -1;
        CHECK(mkdtemp(template));
        f->directory = strdup(template);
        CHECK(asprintf(&f->private_address, "unix:path=%s/private", template) > 0);
        CHECK(asprintf(&f->bus_address, "unix:path=%s/bus", template) > 0);
        return f;
}

FakeSystemd *fake_systemd_free(FakeSystemd *f) {
        static const char *const names[] = { "private", "bus", "bus.conf" };

        if (!f)
                return NULL;
        fake_systemd_hang_up(f, /* keep_listening= */ false);
        fake_systemd_stop_daemon(f);
        while (f->units) {
                FakeUnit *u = f->units;

                f->units = u->next;
                free(u->name);
                free(u->description);
                free(u);
        }
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_free_ char *path = strprintf("%s/%s", f->directory, names[i]);
                if (path)
                        (void) unlink(path);
        }
        (void) rmdir(f->directory);
        free(f->directory);
        free(f->private_address);
        free(f->bus_address);
        sd_event_unref(f->event);
        free(f);
        return NULL;
}
