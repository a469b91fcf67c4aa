#pragma once
/* Our side of org.freedesktop.systemd1 (see org.freedesktop.systemd1(5)): transient units started, stopped, killed,
 * changed and followed over D-Bus, without ever blocking the loop. The connection is the system bus or, where there is
 * none, PID 1's private socket; it is made again when it breaks (bus restarted, PID 1 re-executed).
 *
 * The *_wait functions and all property reads must be called in a fiber. Times are µs. Errors are negative errno with
 * the Error filled with what systemd said. */

#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "basic/error.h"
#include "basic/histogram.h"
#include "basic/macro.h"

typedef struct Systemd Systemd;
typedef struct UnitProperties UnitProperties;
typedef struct UnitWatch UnitWatch;

/* Does not connect yet; the first use does (and systemd_connect() does on request). */
int systemd_new(sd_event *event, Systemd **ret);
Systemd *systemd_free(Systemd *s);
DEFINE_TRIVIAL_CLEANUP_FUNC(Systemd *, systemd_free);
int systemd_connect(Systemd *s, Error *error);
bool systemd_is_connected(const Systemd *s);
/* Whether the machine is on its way down (SystemState is "stopping"). */
int systemd_is_stopping(Systemd *s, bool *ret, Error *error);
/* PID 1's Version property ("252.39-1~deb12u1"); NULL before the first connection. */
const char *systemd_version(const Systemd *s);

/* Of unit_start_wait() and unit_stop_wait(). */
typedef struct SystemdStatistics {
        Histogram start, stop;
        uint64_t start_failed, stop_failed;
} SystemdStatistics;
const SystemdStatistics *systemd_statistics(const Systemd *s);

/* --- the properties of a transient unit ------------------------------------------------------------------------- */
/* A list that grows; the first failure is remembered and reported by unit_start_wait(), so that callers need not check
 * each call. "$" in ExecStart arguments and "%" are escaped where systemd would expand them. */
int unit_properties_new(UnitProperties **ret);
UnitProperties *unit_properties_free(UnitProperties *p);
DEFINE_TRIVIAL_CLEANUP_FUNC(UnitProperties *, unit_properties_free);
int unit_properties_add_string(UnitProperties *p, const char *name, const char *value);
int unit_properties_add_bool(UnitProperties *p, const char *name, bool value);
int unit_properties_add_i32(UnitProperties *p, const char *name, int32_t value);
int unit_properties_add_u32(UnitProperties *p, const char *name, uint32_t value);
int unit_properties_add_u64(UnitProperties *p, const char *name, uint64_t value);
int unit_properties_add_strv(UnitProperties *p, const char *name, char *const *value);
/* A byte array, such as AllowedCPUs (cpu set as little-endian bit mask). */
int unit_properties_add_bytes(UnitProperties *p, const char *name, const void *data, size_t size);
/* A descriptor (type h), such as StandardOutputFileDescriptor; duplicated. */
int unit_properties_add_fd(UnitProperties *p, const char *name, int fd);
/* ExecStart, ExecStop…: one command line, type a(sasb). argv[0] included. A unit that is to be restarted after a
 * daemon-reload must have no "$" and ";" in it: systemd 252 garbles these when it reads its own file of the unit
 * again. */
int unit_properties_add_exec(UnitProperties *p, const char *name, const char *path, char *const *argv);
/* DeviceAllow: a(ss). */
int unit_properties_add_device_allow(UnitProperties *p, const char *device, const char *access);
/* LogExtraFields: aay of "KEY=value". */
int unit_properties_add_log_fields(UnitProperties *p, char *const *fields);
/* Bare pair of name and u64 limits where (uint64_t) -1 is infinity, e.g. MemoryMax, TasksMax: use add_u64. */

/* --- what a unit is doing --------------------------------------------------------------------------------------- */
typedef struct UnitState {
        char *load_state;   /* "loaded", "not-found", … */
        char *active_state; /* "active", "inactive", "failed", "activating", "deactivating", "reloading" */
        char *sub_state;    /* "running", "exited", "dead", "failed", … */
        char *result;       /* "success", "exit-code", "signal", "oom-kill", "timeout", … */
        char *control_group;
        char *status_text;
        char *slice;
        pid_t main_pid;
        pid_t exec_main_pid;
        int exec_main_code; /* CLD_EXITED, CLD_KILLED, CLD_DUMPED; 0 while it runs or never ran */
        int exec_main_status;
        uint64_t exec_main_start_usec; /* CLOCK_REALTIME; 0 unknown */
        uint64_t exec_main_exit_usec;
        uint32_t n_restarts;
} UnitState;
void unit_state_done(UnitState *s);
#define _cleanup_unit_state_ _cleanup_(unit_state_done)

/* Reads the state by GetAll; a unit that isn't loaded gives load_state "not-found" and 0. */
int unit_get_state(Systemd *s, const char *unit, UnitState *ret, Error *error);

typedef struct UnitInfo {
        char *name, *load_state, *active_state, *sub_state, *description;
} UnitInfo;
void unit_info_free_array(UnitInfo *infos, size_t n);
/* ListUnitsByPatterns with one glob ("rktlet-*"). Array owned by the caller. */
int systemd_list_units(Systemd *s, const char *pattern, UnitInfo **ret, size_t *ret_n, Error *error);

/* After a restart of ours: asks with one call which units of these patterns are plainly running, for
 * systemd_noted_running(). The own look of a watch that is made for one of them is taken after all others. Forgotten
 * with systemd_forget_running(). */
int systemd_note_running(Systemd *s, const char *const *patterns, size_t n_patterns, Error *error);
bool systemd_noted_running(const Systemd *s, const char *unit);
void systemd_forget_running(Systemd *s);

/* --- what we ask for -------------------------------------------------------------------------------------------- */
/* StartTransientUnit(mode "fail") and wait for its job. JobRemoved is matched before the call. -EEXIST when the name
 * is loaded. When the job fails, the error names the unit's Result and exit status, and the failed unit is reset. On
 * cancellation or deadline the unit is stopped and gone before the call returns. When the connection breaks or PID 1
 * re-executes in the middle, looks whether the unit exists and goes on. timeout_usec 0: only the fiber's deadline. */
int unit_start_wait(Systemd *s, const char *unit, const UnitProperties *p, uint64_t timeout_usec, Error *error);
/* StopUnit and wait for the job; 0 as well when the unit isn't loaded. */
int unit_stop_wait(Systemd *s, const char *unit, uint64_t timeout_usec, Error *error);
/* whom: "main", "control", "all". A unit that isn't loaded, or has no process, is -ESRCH. */
int unit_kill(Systemd *s, const char *unit, const char *whom, int signo, Error *error);
/* SetUnitProperties(runtime=true); -ENOENT when it isn't loaded. */
int unit_set_properties(Systemd *s, const char *unit, const UnitProperties *p, Error *error);
/* 0 as well when it isn't loaded or hasn't failed. */
int unit_reset_failed(Systemd *s, const char *unit, Error *error);
/* StopUnit, then ResetFailedUnit: afterwards the name is free. */
int unit_release_wait(Systemd *s, const char *unit, uint64_t timeout_usec, Error *error);

/* Follows one unit by PropertiesChanged (a narrow match on its object path). The callback runs in the loop's context
 * (it may spawn a fiber, must not wait) each time a property of UnitState changed, with the complete cached state, and
 * once soon after unit_watch_new(), and again after every reconnection. A unit that was unloaded is reported with
 * load_state "not-found". The watch may be freed in the callback. -EEXIST when the unit has a watch already. */
typedef void (*UnitWatchFunc)(const char *unit, const UnitState *state, void *userdata);
int unit_watch_new(Systemd *s, const char *unit, UnitWatchFunc func, void *userdata, UnitWatch **ret);
/* The same for a unit that runs in this control group, as far as one knows: a start of ours was just done, or it was
 * noted running. Instead of its whole state, which is large, only its main process is asked for. What else there is to
 * know comes when it changes. */
int unit_watch_new_running(Systemd *s, const char *unit, const char *control_group, UnitWatchFunc func, void *userdata,
                           UnitWatch **ret);
UnitWatch *unit_watch_free(UnitWatch *w);
DEFINE_TRIVIAL_CLEANUP_FUNC(UnitWatch *, unit_watch_free);

/* The object path of a unit, owned by the caller (sd_bus_path_encode below /org/freedesktop/systemd1/unit). */
char *unit_object_path(const char *unit);
