#pragma once
/* Inside src/systemd: the connection and what hangs on it. */

#include <uthash.h>

#include "basic/fiber.h"
#include "systemd/properties.h"
#include "systemd/systemd.h"

#define SYSTEMD_NAME "org.freedesktop.systemd1"
#define SYSTEMD_PATH "/org/freedesktop/systemd1"
#define SYSTEMD_MANAGER SYSTEMD_NAME ".Manager"
#define SYSTEMD_UNIT SYSTEMD_NAME ".Unit"
#define PROPERTIES_INTERFACE "org.freedesktop.DBus.Properties"

/* dbus-daemon refuses a connection's 129th unanswered call and its 513th match rule (its limits
 * max_replies_per_connection and max_match_rules_per_connection); we stay well below both. */
#define CALLS_MAX 64U
#define NARROW_MATCHES_MAX 400U
/* Reads of watched units under way at once, so that they don't keep the other calls out. */
#define READS_MAX 16U
/* And of those that nobody waits for. */
#define LATER_READS_MAX 4U

#define CONNECT_RETRY_MIN_USEC (100 * USEC_PER_MSEC)
#define CONNECT_RETRY_MAX_USEC (5 * USEC_PER_SEC)
/* How long a call waits for a connection before its caller is told: a restart of the bus takes a second or two. */
#define CONNECT_WAIT_USEC (30 * USEC_PER_SEC)
/* How long an answer may take; PID 1 answers in a millisecond unless it is reloading or starved. */
#define CALL_USEC (25 * USEC_PER_SEC)
/* How long what was begun is given to go away again when its caller has left. */
#define UNDO_USEC (15 * USEC_PER_SEC)

/* One fiber waiting for the job of one unit; lives on its stack. */
typedef struct JobWait {
        const char *unit;
        Fiber *fiber;
        char *job;          /* its object path, once the reply named it */
        char *result;       /* "done", "failed", …: JobRemoved has come */
        /* Jobs of the unit that were removed while the reply is outstanding: "PATH RESULT" pairs. */
        char **early;
        bool reply_pending;
        unsigned generation; /* of the connection; another one means that signals may be missing */
        struct JobWait *prev, *next;
} JobWait;

/* One fiber waiting for a reply; lives on its stack. */
typedef struct CallWait {
        Fiber *fiber;
        struct CallWait *next;
} CallWait;

struct UnitWatch {
        Systemd *systemd;
        char *unit, *path;
        UnitWatchFunc func;
        void *userdata;
        UnitState state;
        sd_bus_slot *match, *read;
        bool need_read;  /* the cache can't be trusted */
        bool later;      /* nobody waits for the first reading */
        bool brief;      /* of which the main process is enough */
        bool maybe_gone; /* UnitRemoved came during a reload */
        bool removed;    /* UnitRemoved came while an answer was awaited */
        bool changed;    /* by the first signal of a pair */
        bool linked;     /* in Systemd.watches */
        UT_hash_handle hh; /* by path */
};

typedef enum ConnectionState {
        CONNECTION_DOWN,
        CONNECTION_SETUP, /* the first replies are awaited, or systemd's name has no owner just now */
        CONNECTION_UP,
} ConnectionState;

struct Systemd {
        sd_event *event;
        sd_bus *bus;
        bool is_private; /* PID 1's own socket: no bus between us */
        bool started;    /* connected, or trying to */
        ConnectionState state;
        unsigned generation; /* counts the times signals may have been lost */
        char *owner;     /* the unique bus name signals must come from; NULL on the private socket */
        char *version;
        char *last_error;
        sd_event_source *retry;
        uint64_t retry_usec;
        FiberQueue connect_queue;

        CallWait *calls; /* of fibers, unanswered */
        size_t n_calls;
        FiberQueue call_queue;

        SystemdStatistics statistics;
        JobWait *waits;
        UnitWatch *watches;
        size_t n_reads;
        char **running; /* sorted names of systemd_note_running() */
        size_t n_running;
        bool reloading;    /* between Reloading(true) and Reloading(false) */
        bool wide;         /* one match for all units instead of one each */
        sd_bus_slot *wide_match, *list_slot;

        /* For tests: other sockets than the system's. */
        char *bus_address, *private_address;
};

/* Begins to connect, without waiting. */
void systemd_start(Systemd *s);
/* Tests: D-Bus addresses to use instead; NULL: there is none of the kind. Before the first connection. */
int systemd_set_addresses(Systemd *s, const char *bus_address, const char *private_address);

/* connection.c: fills *ret with a message for the current connection; called again for each try. */
typedef int (*MessageBuilder)(Systemd *s, const void *userdata, sd_bus_message **ret);
/* Waits for a connection and calls; until is absolute (CLOCK_MONOTONIC), USEC_INFINITY for only our own limits.
 * Returns 0, or -errno with *ret_error filled when systemd answered with an error, -ECONNRESET when the reply was
 * cut off or too late (it may have been carried out or not), -ECANCELED, -ETIME, or what kept us from connecting,
 * with *error filled. */
int systemd_call_once(Systemd *s, MessageBuilder build, const void *userdata, uint64_t until, sd_bus_error *ret_error,
                      sd_bus_message **ret_reply, Error *error);
/* The same for calls that may be repeated: sent again until there is an answer. */
int systemd_call(Systemd *s, MessageBuilder build, const void *userdata, uint64_t until, sd_bus_error *ret_error,
                 sd_bus_message **ret_reply, Error *error);
int systemd_manager_call_new(Systemd *s, const char *member, sd_bus_message **ret);
int systemd_match(Systemd *s, sd_bus_slot **ret, const char *path, const char *interface, const char *member,
                  const char *rest, sd_bus_message_handler_t func, void *userdata);
/* Whether the message comes from PID 1. On a bus anybody can send a signal to our unique name. */
bool systemd_sent(const Systemd *s, sd_bus_message *m);
/* Sets an Error from systemd's answer. Returns the negative errno of it. */
int systemd_error(Error *error, const sd_bus_error *e, int r, const char *format, ...) _printf_(4, 5);
/* Whether a negative errno or error name of a call means that the reply was cut off. */
bool systemd_error_is_cut_off(int r, const sd_bus_error *e);

/* unit-state.c */
typedef struct UnitLook {
        UnitState state;
        char *description;
        bool transient;
        uint32_t job_id;
        uint64_t begin_usec; /* CLOCK_MONOTONIC: when it last left "inactive" */
        pid_t exec_start_pid;
        int exec_start_code, exec_start_status; /* of the ExecStart command, for Type=forking's */
        int status_errno; /* what its process said of a failure, beside StatusText; 0: nothing */
} UnitLook;
void unit_look_done(UnitLook *l);
int unit_look(Systemd *s, const char *unit, UnitLook *ret, Error *error);
bool unit_is_loaded(const UnitState *state);
/* Not running, not starting, not stopping. */
bool unit_is_down(const UnitState *state);
/* Merges an a{sv} into *state: 1 when something changed, 0 when not. The look may be NULL. */
int unit_state_merge(UnitState *state, UnitLook *look, sd_bus_message *m);

/* jobs.c */
void jobs_removed(Systemd *s, const char *job, const char *unit, const char *result);
/* Signals may have been lost: everyone who waits has a look. */
void jobs_look_again(Systemd *s);

/* watch.c */
void watches_connected(Systemd *s);
void watches_disconnected(Systemd *s);
void watches_unit_removed(Systemd *s, const char *path);
void watches_reloaded(Systemd *s);
/* After a start of ours: a unit that was not there before announces itself by UnitNew alone. */
void watches_unit_started(Systemd *s, const char *unit);
