/* Units started and stopped, and their jobs waited for.
 *
 * PID 1 answers a start with the object path of a job and says by JobRemoved what became of it, perhaps before our
 * fiber has seen the answer: so the unit is put on the list of those awaited first. When the answer is cut off, or
 * signals may have been lost (see connection.c), the unit itself is looked at and the wait goes on from what it
 * shows. */

#include <signal.h>
#include <sys/wait.h>
#include <utlist.h>

#include "basic/kill-point.h"
#include "basic/log.h"
#include "basic/string-util.h"
#include "systemd/internal.h"

#define STOP_TRIES_MAX 3U
#define JOB_PATH SYSTEMD_PATH "/job"

static void job_wait_begin(Systemd *s, const char *unit, JobWait *w) {
        *w = (JobWait) { .unit = unit, .fiber = fiber_current(), .reply_pending = true, .generation = s->generation };
        DL_APPEND(s->waits, w);
}

static void job_wait_forget(JobWait *w) {
        w->job = mfree(w->job);
        w->result = mfree(w->result);
        strv_free(w->early);
        w->early = NULL;
        w->reply_pending = true;
}

static void job_wait_end(Systemd *s, JobWait *w) {
        DL_DELETE(s->waits, w);
        job_wait_forget(w);
}

void jobs_removed(Systemd *s, const char *job, const char *unit, const char *result) {
        for (JobWait *w = s->waits; w; w = w->next) {
                bool oom = false;

                if (w->result || !streq(w->unit, unit))
                        continue;
                if (w->job && streq(w->job, job)) {
                        w->result = strdup(result);
                        oom = !w->result;
                } else if (w->reply_pending)
                        oom = strv_extend(&w->early, job) < 0 || strv_extend(&w->early, result) < 0;
                else
                        continue;
                if (oom)
                        w->generation--; /* the signal is lost, so have a look */
                fiber_wake(w->fiber, 0);
        }
}

void jobs_look_again(Systemd *s) {
        for (JobWait *w = s->waits; w; w = w->next)
                fiber_wake(w->fiber, 0);
}

/* The job's name has become known; perhaps it is done already. */
static int job_wait_named(JobWait *w, const char *job) {
        char *copy = strdup(job);

        if (!copy)
                return -ENOMEM;
        free(w->job);
        w->job = copy;
        w->reply_pending = false;
        for (size_t i = 0; w->early && w->early[i] && w->early[i + 1]; i += 2)
                if (streq(w->early[i], job)) {
                        w->result = strdup(w->early[i + 1]);
                        if (!w->result)
                                return -ENOMEM;
                }
        return 0;
}

static int job_wait_read(JobWait *w, sd_bus_message *reply) {
        const char *job;
        int r;

        r = sd_bus_message_read(reply, "o", &job);
        if (r < 0)
                return r;
        return job_wait_named(w, job);
}

/* Sleeps until the job is done (0), or until signals may have been lost (-EAGAIN). */
static int job_wait_sleep(Systemd *s, JobWait *w, uint64_t until) {
        while (!w->result) {
                int r;

                if (w->generation != s->generation) {
                        w->generation = s->generation;
                        return -EAGAIN;
                }
                r = fiber_suspend_until(until);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* --- start ------------------------------------------------------------------------------------------------------ */

typedef struct Start {
        Systemd *systemd;
        const char *unit;
        const UnitProperties *properties;
        uint64_t begun_usec;
        bool sent;
        JobWait wait;
} Start;

static void start_done(Start *start) {
        job_wait_end(start->systemd, &start->wait);
}

static int build_start(Systemd *s, const void *userdata, sd_bus_message **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        Start *start = (Start *) userdata;
        int r;

        r = systemd_manager_call_new(s, "StartTransientUnit", &m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "ss", start->unit, "fail");
        if (r < 0)
                return r;
        r = unit_properties_append(start->properties, m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "a(sa(sv))", 0);
        if (r < 0)
                return r;
        start->sent = true;
        start->wait.generation = s->generation;
        *ret = TAKE_PTR(m);
        return 0;
}

/* Whether what is there was made by this call of ours, and not by somebody before it. */
static bool is_ours(const Start *start, const UnitLook *look) {
        const char *description = unit_properties_description(start->properties);

        if (!unit_is_loaded(&look->state) || !look->transient)
                return false;
        if (description && !streq_ptr(description, look->description))
                return false;
        return look->begin_usec == 0 || look->begin_usec >= start->begun_usec;
}

/* What a process that ended says, for an error text: "exited with status 203 (EXEC …)". */
static char *describe_exit(const UnitLook *look) {
        static const struct {
                int status;
                const char *meaning;
        } meanings[] = {
                /* systemd.exec(5), "Process Exit Codes" */
                { 200, "CHDIR: the working directory cannot be entered" },
                { 203, "EXEC: the command cannot be executed" },
                { 208, "STDIN: standard input cannot be set up" },
                { 209, "STDOUT: standard output cannot be set up" },
                { 216, "GROUP: the group cannot be taken on" },
                { 217, "USER: the user cannot be taken on" },
                { 219, "CGROUP: the control group cannot be prepared" },
                { 222, "STDERR: standard error cannot be set up" },
                { 225, "NETWORK: the network namespace cannot be set up" },
                { 226, "NAMESPACE: the mount namespace cannot be set up" },
        };
        bool has_main = look->state.exec_main_code != 0;
        int code = has_main ? look->state.exec_main_code : look->exec_start_code;
        int status = has_main ? look->state.exec_main_status : look->exec_start_status;

        if (code == CLD_KILLED || code == CLD_DUMPED)
                return strprintf(", its process was killed by signal %d (%s)", status, strempty(sigabbrev_np(status)));
        if (code != CLD_EXITED || status == 0)
                return strdup("");
        for (size_t i = 0; i < ELEMENTSOF(meanings); i++)
                if (meanings[i].status == status)
                        return strprintf(", its process exited with status %d (%s)", status, meanings[i].meaning);
        return strprintf(", its process exited with status %d", status);
}

/* Whatever became of it, the unit's name is free afterwards. */
static void release_bounded(Systemd *s, const char *unit) {
        _cleanup_error_ Error e = ERROR_INIT;
        int r;

        r = unit_release_wait(s, unit, UNDO_USEC, &e);
        if (r == -ETIMEDOUT) {
                (void) unit_kill(s, unit, "all", SIGKILL, NULL);
                error_clear(&e);
                r = unit_release_wait(s, unit, UNDO_USEC, &e);
        }
        if (r < 0)
                log_debug("Unit %s could not be taken back: %s", unit, strempty(e.message));
}

/* The job is done, and the unit isn't up: says why, and tidies up. */
static int start_failed(Start *start, const char *job_result, Error *error) {
        FIBER_SHIELDED_SCOPE;
        _cleanup_(unit_look_done) UnitLook look = {};
        _cleanup_free_ char *exit = NULL;
        const char *unit = start->unit;
        GrpcCode code = GRPC_INTERNAL;

        if (unit_look(start->systemd, unit, &look, NULL) >= 0) {
                exit = describe_exit(&look);
                if (streq_ptr(look.state.active_state, "failed") && look.job_id == 0)
                        (void) unit_reset_failed(start->systemd, unit, NULL);
                else if (unit_is_loaded(&look.state))
                        release_bounded(start->systemd, unit);
        } else
                release_bounded(start->systemd, unit);

        if (streq(job_result, "canceled"))
                return error_setf(error, GRPC_ABORTED, "Unit %s was not started: another request to stop it came in "
                                  "between", unit);
        if (streq(job_result, "dependency"))
                return error_setf(error, GRPC_FAILED_PRECONDITION, "Unit %s was not started: a unit that it depends "
                                  "on failed; see 'systemctl list-dependencies %s'", unit, unit);
        if (streq(job_result, "timeout") || streq_ptr(look.state.result, "timeout"))
                return error_setf(error, GRPC_DEADLINE_EXCEEDED, "Unit %s did not come up within its start timeout; "
                                  "see 'journalctl -u %s'", unit, unit),
                       -ETIMEDOUT;
        /* What its process said is the cause, in words. Of its codes one is worth telling apart: try again later. */
        if (look.status_errno > 0 && grpc_code_from_errno(-look.status_errno) == GRPC_RESOURCE_EXHAUSTED)
                code = GRPC_RESOURCE_EXHAUSTED;
        return error_setf(error, code, "Unit %s failed to start: job %s, result %s%s%s%s; see 'journalctl -u %s'", unit,
                          job_result, look.state.result ? look.state.result : "unknown", strempty(exit),
                          isempty(look.state.status_text) ? "" : ": ", strempty(look.state.status_text), unit);
}

/* The caller has left, or cannot wait longer: what was begun goes away again. */
static int start_undo(Start *start, int r, uint64_t timeout_usec, Error *error) {
        FIBER_SHIELDED_SCOPE;
        _cleanup_(unit_look_done) UnitLook look = {};

        /* The look comes after the start in PID 1's queue, so it shows whether that was carried out. */
        if (start->sent && unit_look(start->systemd, start->unit, &look, NULL) >= 0 && is_ours(start, &look)) {
                /* Nobody has used it, so there is nothing to end well: the grace of its stop may be long. */
                (void) unit_kill(start->systemd, start->unit, "all", SIGKILL, NULL);
                release_bounded(start->systemd, start->unit);
        }

        if (r == -ETIMEDOUT)
                return error_setf(error, GRPC_DEADLINE_EXCEEDED, "Unit %s did not come up within %.3g s; see "
                                  "'journalctl -u %s'", start->unit, (double) timeout_usec / USEC_PER_SEC,
                                  start->unit),
                       r;
        return error_set(error, r, "Unit %s was not started", start->unit);
}

/* 1: it is up. 0: its job is still under way, and the wait knows which. -EAGAIN: it isn't there. Else an error. */
static int start_look(Start *start, Error *error) {
        _cleanup_(unit_look_done) UnitLook look = {};
        const char *active;
        int r;

        r = unit_look(start->systemd, start->unit, &look, error);
        if (r < 0)
                return r;
        log_debug("Looked at %s: %s, %s, %s, job %u", start->unit, strempty(look.state.load_state),
                  strempty(look.state.active_state), strempty(look.state.sub_state), look.job_id);
        if (!unit_is_loaded(&look.state))
                return -EAGAIN;
        if (!is_ours(start, &look))
                return error_setf(error, GRPC_ALREADY_EXISTS, "Unit %s exists already", start->unit), -EEXIST;
        if (look.job_id != 0) {
                _cleanup_free_ char *job = strprintf(JOB_PATH "/%" PRIu32, look.job_id);

                r = job ? job_wait_named(&start->wait, job) : -ENOMEM;
                return r < 0 ? error_set(error, r, "Cannot wait for unit %s", start->unit) : 0;
        }
        active = strempty(look.state.active_state);
        if (streq(active, "active") || streq(active, "reloading"))
                return 1;
        /* It came up and ended in the meantime, as its command wanted it. */
        if (streq(active, "inactive") && look.begin_usec != 0 && streq_ptr(look.state.result, "success"))
                return 1;
        return start_failed(start, "failed", error);
}

static int start_send(Start *start, uint64_t until, Error *error) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        bool again = start->sent;
        int r;

        KILL_POINT_OF("unit-start.begin", start->unit);
        r = systemd_call_once(start->systemd, build_start, start, until, &e, &reply, error);
        if (r >= 0) {
                KILL_POINT_OF("unit-start.answered", start->unit);
                r = job_wait_read(&start->wait, reply);
                if (r < 0)
                        return error_set(error, r, "Cannot understand systemd's answer to starting %s", start->unit);
                return 0;
        }
        /* It was carried out after all, if only after our look. */
        if (again && sd_bus_error_has_name(&e, SYSTEMD_NAME ".UnitExists"))
                return -ECONNRESET;
        if (sd_bus_error_is_set(&e))
                start->sent = false; /* refused: nothing to take back */
        return systemd_error(error, &e, r, "Cannot start unit %s", start->unit);
}

static int start_wait(Start *start, uint64_t until, Error *error) {
        Systemd *s = start->systemd;
        int r;

        r = start_send(start, until, error);
        for (;;) {
                if (r == 0)
                        r = job_wait_sleep(s, &start->wait, until);
                if (start->wait.result)
                        return streq(start->wait.result, "done") ? 0 : start_failed(start, start->wait.result, error);
                if (r != -ECONNRESET && r != -EAGAIN)
                        return r;
                if (now_usec(CLOCK_MONOTONIC) >= until)
                        return -ETIMEDOUT;

                r = start_look(start, error);
                if (r > 0)
                        return 0;
                if (r == -EAGAIN && !start->wait.reply_pending)
                        /* The job had begun, and nothing is left of it. */
                        return error_setf(error, GRPC_INTERNAL, "Unit %s is gone while it was starting; see "
                                          "'journalctl -u %s'", start->unit, start->unit);
                if (r == -EAGAIN) {
                        job_wait_forget(&start->wait);
                        r = start_send(start, until, error);
                }
        }
}

const SystemdStatistics *systemd_statistics(const Systemd *s) {
        return &s->statistics;
}

static int do_start(Systemd *s, const char *unit, const UnitProperties *p, uint64_t timeout_usec, Error *error) {
        _cleanup_(start_done) Start start = {
                .systemd = s, .unit = unit, .properties = p, .begun_usec = now_usec(CLOCK_MONOTONIC),
        };
        int r;

        job_wait_begin(s, unit, &start.wait);
        r = start_wait(&start, timeout_usec > 0 ? start.begun_usec + timeout_usec : USEC_INFINITY, error);
        if (r == -ECANCELED || r == -ETIME || (r == -ETIMEDOUT && !error_is_set(error)) || r == -ENOTCONN)
                return start_undo(&start, r, timeout_usec, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("unit-start.done", unit);
        watches_unit_started(s, unit);
        return 0;
}

int unit_start_wait(Systemd *s, const char *unit, const UnitProperties *p, uint64_t timeout_usec, Error *error) {
        uint64_t begin = now_usec(CLOCK_MONOTONIC);
        int r;

        r = do_start(s, unit, p, timeout_usec, error);
        histogram_add(&s->statistics.start, now_usec(CLOCK_MONOTONIC) - begin);
        s->statistics.start_failed += r < 0;
        return r;
}

/* --- stop ------------------------------------------------------------------------------------------------------- */

typedef struct Stop {
        Systemd *systemd;
        const char *unit;
        bool gone; /* it was not loaded (any more) */
        JobWait wait;
} Stop;

static void stop_done(Stop *stop) {
        job_wait_end(stop->systemd, &stop->wait);
}

static int build_stop(Systemd *s, const void *userdata, sd_bus_message **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        Stop *stop = (Stop *) userdata;
        int r;

        r = systemd_manager_call_new(s, "StopUnit", &m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "ss", stop->unit, "replace");
        if (r < 0)
                return r;
        stop->wait.generation = s->generation;
        *ret = TAKE_PTR(m);
        return 0;
}

/* 1: it is down. 0: a job is under way, and the wait knows which. -EAGAIN: neither. Else an error. */
static int stop_look(Stop *stop, Error *error) {
        _cleanup_(unit_look_done) UnitLook look = {};
        _cleanup_free_ char *job = NULL;
        int r;

        r = unit_look(stop->systemd, stop->unit, &look, error);
        if (r < 0)
                return r;
        if (look.job_id == 0)
                return unit_is_down(&look.state) ? 1 : -EAGAIN;
        job = strprintf(JOB_PATH "/%" PRIu32, look.job_id);
        r = job ? job_wait_named(&stop->wait, job) : -ENOMEM;
        return r < 0 ? error_set(error, r, "Cannot wait for unit %s", stop->unit) : 0;
}

static int stop_send(Stop *stop, uint64_t until, Error *error) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        int r;

        job_wait_forget(&stop->wait);
        KILL_POINT_OF("unit-stop.begin", stop->unit);
        r = systemd_call(stop->systemd, build_stop, stop, until, &e, &reply, error);
        stop->gone = sd_bus_error_has_name(&e, SYSTEMD_NAME ".NoSuchUnit");
        if (stop->gone)
                return 1;
        if (r < 0)
                return systemd_error(error, &e, r, "Cannot stop unit %s", stop->unit);
        KILL_POINT_OF("unit-stop.answered", stop->unit);
        r = job_wait_read(&stop->wait, reply);
        return r < 0 ? error_set(error, r, "Cannot understand systemd's answer to stopping %s", stop->unit) : 0;
}

static int stop_wait(Stop *stop, uint64_t until, Error *error) {
        unsigned tries = 0;
        int r;

        r = stop_send(stop, until, error);
        while (r == 0) {
                r = job_wait_sleep(stop->systemd, &stop->wait, until);
                if (stop->wait.result && streq(stop->wait.result, "done"))
                        return 0;
                if (r < 0 && r != -EAGAIN)
                        return r;
                if (stop->wait.result) {
                        /* Failed, or somebody started it meanwhile: the unit's state decides, but not for ever. */
                        if (++tries >= STOP_TRIES_MAX)
                                return error_setf(error, GRPC_ABORTED, "Unit %s could not be stopped: job %s; see "
                                                  "'journalctl -u %s'", stop->unit, stop->wait.result, stop->unit);
                        job_wait_forget(&stop->wait);
                }
                r = stop_look(stop, error);
                if (r == -EAGAIN)
                        r = stop_send(stop, until, error);
        }
        return r < 0 ? r : 0;
}

static int do_stop(Systemd *s, const char *unit, uint64_t timeout_usec, bool *ret_gone, Error *error) {
        _cleanup_(stop_done) Stop stop = { .systemd = s, .unit = unit };
        int r;

        job_wait_begin(s, unit, &stop.wait);
        r = stop_wait(&stop, timeout_usec > 0 ? now_usec(CLOCK_MONOTONIC) + timeout_usec : USEC_INFINITY, error);
        *ret_gone = stop.gone;
        KILL_POINT_OF("unit-stop.done", unit);
        if (r == -ETIMEDOUT)
                return error_setf(error, GRPC_DEADLINE_EXCEEDED, "Unit %s did not stop within %.3g s", unit,
                                  (double) timeout_usec / USEC_PER_SEC),
                       r;
        return error_set(error, r, "Cannot wait until unit %s has stopped", unit);
}

static int timed_stop(Systemd *s, const char *unit, uint64_t timeout_usec, bool *ret_gone, Error *error) {
        uint64_t begin = now_usec(CLOCK_MONOTONIC);
        int r;

        r = do_stop(s, unit, timeout_usec, ret_gone, error);
        histogram_add(&s->statistics.stop, now_usec(CLOCK_MONOTONIC) - begin);
        s->statistics.stop_failed += r < 0;
        return r;
}

int unit_stop_wait(Systemd *s, const char *unit, uint64_t timeout_usec, Error *error) {
        bool gone;

        return timed_stop(s, unit, timeout_usec, &gone, error);
}

int unit_release_wait(Systemd *s, const char *unit, uint64_t timeout_usec, Error *error) {
        bool gone;
        int r;

        r = timed_stop(s, unit, timeout_usec, &gone, error);
        return r < 0 || gone ? r : unit_reset_failed(s, unit, error);
}
