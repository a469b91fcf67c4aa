/* What is asked of a unit that is there: signals, new limits, a failure forgotten. Each is one call, sent again
 * when its reply is cut off: a signal may then arrive twice, which none of ours minds. */

#include "basic/kill-point.h"
#include "systemd/internal.h"

typedef struct KillCall {
        const char *unit, *whom;
        int signo;
} KillCall;

static int build_kill(Systemd *s, const void *userdata, sd_bus_message **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        const KillCall *k = userdata;
        int r;

        r = systemd_manager_call_new(s, "KillUnit", &m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "ssi", k->unit, k->whom, k->signo);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(m);
        return 0;
}

int unit_kill(Systemd *s, const char *unit, const char *whom, int signo, Error *error) {
        /* The plain words succeed when there was nobody to kill. */
        static const struct {
                const char *whom, *strict;
        } words[] = { { "main", "main-fail" }, { "control", "control-fail" }, { "all", "all-fail" } };
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        KillCall k = { unit, whom, signo };
        int r;

        for (size_t i = 0; i < ELEMENTSOF(words); i++)
                if (streq(whom, words[i].whom))
                        k.whom = words[i].strict;

        KILL_POINT_OF("unit-kill.begin", unit);
        r = systemd_call(s, build_kill, &k, USEC_INFINITY, &e, NULL, error);
        KILL_POINT_OF("unit-kill.done", unit);
        if (sd_bus_error_has_name(&e, SYSTEMD_NAME ".NoSuchUnit") ||
            sd_bus_error_has_name(&e, SYSTEMD_NAME ".NoSuchProcess"))
                return error_setf(error, GRPC_NOT_FOUND, "Unit %s has no process to send signal %d to", unit, signo),
                       -ESRCH;
        return systemd_error(error, &e, r, "Cannot send signal %d to unit %s", signo, unit);
}

typedef struct SetCall {
        const char *unit;
        const UnitProperties *properties;
} SetCall;

static int build_set(Systemd *s, const void *userdata, sd_bus_message **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        const SetCall *c = userdata;
        int r;

        r = systemd_manager_call_new(s, "SetUnitProperties", &m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "sb", c->unit, /* runtime= */ 1);
        if (r < 0)
                return r;
        r = unit_properties_append(c->properties, m);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(m);
        return 0;
}

int unit_set_properties(Systemd *s, const char *unit, const UnitProperties *p, Error *error) {
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        SetCall c = { unit, p };
        int r;

        KILL_POINT_OF("unit-set.begin", unit);
        r = systemd_call(s, build_set, &c, USEC_INFINITY, &e, NULL, error);
        KILL_POINT_OF("unit-set.done", unit);
        return systemd_error(error, &e, r, "Cannot change unit %s", unit);
}

static int build_reset(Systemd *s, const void *userdata, sd_bus_message **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r;

        r = systemd_manager_call_new(s, "ResetFailedUnit", &m);
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "s", userdata);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(m);
        return 0;
}

int unit_reset_failed(Systemd *s, const char *unit, Error *error) {
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        int r;

        KILL_POINT_OF("unit-reset.begin", unit);
        r = systemd_call(s, build_reset, unit, USEC_INFINITY, &e, NULL, error);
        KILL_POINT_OF("unit-reset.done", unit);
        if (sd_bus_error_has_name(&e, SYSTEMD_NAME ".NoSuchUnit"))
                return 0;
        return systemd_error(error, &e, r, "Cannot reset the failed unit %s", unit);
}

static int build_get_state(Systemd *s, const void *userdata, sd_bus_message **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r;

        r = sd_bus_message_new_method_call(s->bus, &m, s->is_private ? NULL : SYSTEMD_NAME, SYSTEMD_PATH,
                                           PROPERTIES_INTERFACE, "Get");
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "ss", SYSTEMD_MANAGER, "SystemState");
        if (r < 0)
                return r;
        *ret = TAKE_PTR(m);
        return 0;
}

int systemd_is_stopping(Systemd *s, bool *ret, Error *error) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        const char *state;
        int r;

        r = systemd_call(s, build_get_state, NULL, now_usec(CLOCK_MONOTONIC) + CALL_USEC, &e, &reply, error);
        if (r >= 0)
                r = sd_bus_message_read(reply, "v", "s", &state);
        if (r < 0)
                return systemd_error(error, &e, r, "Cannot ask systemd for its state");
        *ret = streq(state, "stopping");
        return 0;
}
