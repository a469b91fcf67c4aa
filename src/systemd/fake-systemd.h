#pragma once
/* For tests: an org.freedesktop.systemd1 that does what it is told, in the test's own event loop. It remembers
 * units, runs no process, and can be made to misbehave: late or early signals, replies that never come, connections
 * that break, a name without an owner. Speaks as PID 1's private socket does, or over a dbus-daemon of the test's
 * own. */

#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "basic/macro.h"

typedef struct FakeUnit {
        char *name, *description;
        bool loaded, transient;
        const char *active, *sub, *result;
        uint32_t main_pid;
        int exec_main_code, exec_main_status, status_errno;
        const char *status_text;
        uint64_t begin_usec;
        uint32_t job; /* 0: none */
        bool job_is_stop;
        struct FakeUnit *next;
} FakeUnit;

typedef struct FakeSystemd {
        sd_event *event;
        char *directory, *bus_address, *private_address;
        FakeUnit *units;
        uint32_t last_job;

        /* Knobs */
        unsigned cut_before;    /* so many starts and stops are cut off before they are carried out */
        unsigned cut_after;     /* the same, after they were */
        bool signal_first;      /* JobRemoved comes before the reply */
        bool hold_jobs;         /* until fake_systemd_finish_jobs() */
        bool silent;            /* no reply to anything */
        const char *job_result; /* of starts; NULL: "done" */
        const char *status_text; /* what those say that fail; NULL: nothing */
        int status_errno;
        bool remove_stopped;    /* a stopped unit is unloaded */

        /* Counters */
        unsigned n_start, n_stop, n_reset, n_get_all, n_get, n_kill, n_set, n_list, n_subscribe, n_connections;
        char last_kill[64];

        /* Private */
        int listen_fd;
        sd_event_source *listen_source;
        sd_bus *buses[64];
        size_t n_buses;
        sd_bus *bus; /* to the dbus-daemon */
        pid_t daemon_pid;
} FakeSystemd;

FakeSystemd *fake_systemd_new(sd_event *event);
FakeSystemd *fake_systemd_free(FakeSystemd *f);
DEFINE_TRIVIAL_CLEANUP_FUNC(FakeSystemd *, fake_systemd_free);

/* PID 1's private socket: starts listening; stops and breaks all connections. */
void fake_systemd_listen(FakeSystemd *f);
void fake_systemd_hang_up(FakeSystemd *f, bool keep_listening);

/* A dbus-daemon of our own: false where there is none installed. */
bool fake_systemd_start_daemon(FakeSystemd *f);
void fake_systemd_stop_daemon(FakeSystemd *f);
/* Appears on it, or leaves it. */
void fake_systemd_join(FakeSystemd *f);
void fake_systemd_leave(FakeSystemd *f);

FakeUnit *fake_systemd_unit(FakeSystemd *f, const char *name);
FakeUnit *fake_systemd_add_unit(FakeSystemd *f, const char *name, const char *active);
void fake_systemd_finish_jobs(FakeSystemd *f);
/* PropertiesChanged for the unit's type and for all units. */
void fake_systemd_changed(FakeSystemd *f, FakeUnit *u);
void fake_systemd_unload(FakeSystemd *f, FakeUnit *u);
void fake_systemd_reload(FakeSystemd *f);
