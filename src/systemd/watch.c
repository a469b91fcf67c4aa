/* Units followed by PropertiesChanged, each with the complete state it has.
 *
 * A match on each unit's object path keeps what other units do away from us. Because dbus-daemon allows a
 * connection only so many matches, beyond NARROW_MATCHES_MAX a single wide one takes their place. PID 1 always
 * sends the properties of the unit's type first and those common to all units right after them; a watch is told
 * after the second, so that it never sees half of a change. */

#include "basic/log.h"
#include "basic/string-util.h"
#include "systemd/internal.h"

static void reads_pump(Systemd *s);

static void watch_report(UnitWatch *w) {
        /* Nothing may touch w after this. */
        w->func(w->unit, &w->state, w->userdata);
}

static void watch_want_read(UnitWatch *w) {
        w->need_read = true;
        w->later = false;
        reads_pump(w->systemd);
}

/* --- reading the whole state ------------------------------------------------------------------------------------ */

static int on_read(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(unit_state_done) UnitState state = {};
        UnitWatch *w = userdata;
        Systemd *s = w->systemd;
        int r;

        w->read = sd_bus_slot_unref(w->read);
        s->n_reads--;
        if (sd_bus_message_is_method_error(m, NULL)) {
                /* Cut off: asked again when systemd is back. */
                log_debug("The state of %s could not be read: %s", w->unit,
                          strempty(sd_bus_message_get_error(m)->message));
                w->need_read = true;
                if (s->state == CONNECTION_UP && !systemd_error_is_cut_off(0, sd_bus_message_get_error(m)))
                        reads_pump(s);
                return 0;
        }
        r = unit_state_merge(&state, NULL, m);
        if (r < 0) {
                log_debug_errno(r, "The state of %s could not be understood", w->unit);
                reads_pump(s);
                return 0;
        }
        unit_state_done(&w->state);
        w->state = state;
        state = (UnitState) {};
        /* Answered before it was removed. */
        w->need_read |= w->removed && unit_is_loaded(&w->state);
        w->removed = false;
        reads_pump(s);
        watch_report(w);
        return 0;
}

/* Of a unit that is said to run. If it does, the rest is known. */
static int on_brief_read(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        UnitWatch *w = userdata;
        Systemd *s = w->systemd;
        uint32_t pid = 0;

        w->read = sd_bus_slot_unref(w->read);
        s->n_reads--;
        w->brief = false;
        if (!w->need_read && !w->removed && !sd_bus_message_is_method_error(m, NULL) &&
            sd_bus_message_read(m, "v", "u", &pid) >= 0 && pid > 0)
                w->state.load_state = strdup("loaded");
        if (w->state.load_state) {
                w->state.main_pid = w->state.exec_main_pid = (pid_t) pid;
                reads_pump(s);
                watch_report(w);
                return 0;
        }
        w->need_read = true;
        w->removed = false;
        reads_pump(s);
        return 0;
}

static int read_start(UnitWatch *w) {
        sd_bus *bus = w->systemd->bus;
        int r;

        r = w->brief ? sd_bus_call_method_async(bus, &w->read, SYSTEMD_NAME, w->path, PROPERTIES_INTERFACE, "Get",
                                                on_brief_read, w, "ss", SYSTEMD_NAME ".Service", "MainPID")
                     : sd_bus_call_method_async(bus, &w->read, SYSTEMD_NAME, w->path, PROPERTIES_INTERFACE, "GetAll",
                                                on_read, w, "s", "");
        if (r < 0)
                return r;
        w->need_read = w->maybe_gone = false;
        w->systemd->n_reads++;
        return 0;
}

static void reads_start(Systemd *s, bool later, size_t max) {
        UnitWatch *w, *tmp;

        HASH_ITER(hh, s->watches, w, tmp) {
                if (s->n_reads >= max)
                        return;
                if (!w->need_read || w->read || w->later != later)
                        continue;
                if (read_start(w) < 0)
                        return; /* the connection is about to be found broken */
        }
}

/* Asks for the states that are wanted, a few at a time. */
static void reads_pump(Systemd *s) {
        if (s->state != CONNECTION_UP)
                return;
        reads_start(s, /* later= */ false, READS_MAX);
        reads_start(s, /* later= */ true, LATER_READS_MAX);
}

/* --- signals ---------------------------------------------------------------------------------------------------- */

static int on_properties_changed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *interface, *path = strempty(sd_bus_message_get_path(m));
        Systemd *s = userdata;
        UnitWatch *w;
        int r;

        HASH_FIND_STR(s->watches, path, w);
        if (!w || !systemd_sent(s, m))
                return 0;
        r = sd_bus_message_read(m, "s", &interface);
        if (r < 0)
                return 0;
        /* LoadState and the like are constant for a loaded unit and don't come with signals; and a read under way may
         * have been answered before this change. */
        if (w->read || w->need_read || !unit_is_loaded(&w->state)) {
                watch_want_read(w);
                return 0;
        }
        r = unit_state_merge(&w->state, NULL, m);
        if (r < 0) {
                watch_want_read(w);
                return 0;
        }
        if (!streq(interface, SYSTEMD_UNIT)) {
                w->changed |= r > 0;
                return 0;
        }
        if (r == 0 && !w->changed)
                return 0;
        w->changed = false;
        /* The control group is made with the first process and has no signal of its own. */
        if (isempty(w->state.control_group) && !unit_is_down(&w->state)) {
                watch_want_read(w);
                return 0;
        }
        watch_report(w);
        return 0;
}

void watches_unit_removed(Systemd *s, const char *path) {
        UnitWatch *w;

        HASH_FIND_STR(s->watches, path, w);
        if (!w)
                return;
        /* A daemon-reload removes all units and loads them again: the whole list is compared after it. */
        if (s->reloading)
                w->maybe_gone = true;
        /* PID 1 loads a unit that isn't there to answer for it, and tells of its removal afterwards: to read again then
         * would never end. While an answer is awaited it says which of both this is. */
        else if (w->read)
                w->removed = true;
        else if (unit_is_loaded(&w->state))
                watch_want_read(w);
}

static int on_reloaded_list(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *name, *load, *path;
        UnitWatch *w, *tmp;
        Systemd *s = userdata;
        int r;

        s->list_slot = sd_bus_slot_unref(s->list_slot);
        r = sd_bus_message_is_method_error(m, NULL) ? -EIO : sd_bus_message_enter_container(m, 'a', "(ssssssouso)");
        while (r >= 0) {
                r = sd_bus_message_read(m, "(ssssssouso)", &name, NULL, &load, NULL, NULL, NULL, &path, NULL, NULL,
                                        NULL);
                if (r <= 0)
                        break;
                HASH_FIND_STR(s->watches, path, w);
                if (w && streq(load, "loaded"))
                        w->maybe_gone = false;
        }
        HASH_ITER(hh, s->watches, w, tmp)
                if (w->maybe_gone)
                        w->need_read = true;
        reads_pump(s);
        return 0;
}

void watches_reloaded(Systemd *s) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        bool any = false;
        UnitWatch *w, *tmp;
        int r;

        HASH_ITER(hh, s->watches, w, tmp)
                any |= w->maybe_gone;
        if (!any || s->list_slot)
                return;
        r = systemd_manager_call_new(s, "ListUnitsByPatterns", &m);
        if (r >= 0)
                r = sd_bus_message_append(m, "as", 0);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "s");
        if (r >= 0)
                HASH_ITER(hh, s->watches, w, tmp)
                        if (w->maybe_gone && r >= 0)
                                r = sd_bus_message_append(m, "s", w->unit);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        if (r >= 0)
                r = sd_bus_call_async(s->bus, &s->list_slot, m, on_reloaded_list, s, 0);
        if (r >= 0)
                return;
        HASH_ITER(hh, s->watches, w, tmp)
                w->need_read |= w->maybe_gone;
        reads_pump(s);
}

void watches_unit_started(Systemd *s, const char *unit) {
        _cleanup_free_ char *path = NULL;
        UnitWatch *w;

        if (!s->watches)
                return;
        path = unit_object_path(unit);
        if (!path)
                return;
        HASH_FIND_STR(s->watches, path, w);
        if (w && !unit_is_loaded(&w->state))
                watch_want_read(w);
}

/* --- matches ---------------------------------------------------------------------------------------------------- */

static int match_narrow(UnitWatch *w) {
        return systemd_match(w->systemd, &w->match, w->path, PROPERTIES_INTERFACE, "PropertiesChanged", "",
                             on_properties_changed, w->systemd);
}

static int match_wide(Systemd *s) {
        UnitWatch *w, *tmp;
        int r;

        r = systemd_match(s, &s->wide_match, SYSTEMD_PATH "/unit", PROPERTIES_INTERFACE, "PropertiesChanged", "",
                          on_properties_changed, s);
        if (r < 0)
                return r;
        HASH_ITER(hh, s->watches, w, tmp)
                w->match = sd_bus_slot_unref(w->match);
        s->wide = true;
        return 0;
}

/* Makes sure that the unit's signals reach us from now on. Once wide, it stays so until the connection is made
 * anew. */
static int watch_match(UnitWatch *w) {
        Systemd *s = w->systemd;

        if (!s->bus || s->state == CONNECTION_DOWN || s->wide || w->match)
                return 0;
        if (HASH_COUNT(s->watches) > NARROW_MATCHES_MAX)
                return match_wide(s);
        return match_narrow(w);
}

void watches_connected(Systemd *s) {
        UnitWatch *w, *tmp;

        HASH_ITER(hh, s->watches, w, tmp) {
                int r;

                r = watch_match(w);
                if (r < 0)
                        log_debug_errno(r, "Unit %s cannot be followed until the next connection", w->unit);
                w->need_read = true;
        }
        reads_pump(s);
}

void watches_disconnected(Systemd *s) {
        UnitWatch *w, *tmp;

        HASH_ITER(hh, s->watches, w, tmp) {
                w->match = sd_bus_slot_unref(w->match);
                w->read = sd_bus_slot_unref(w->read);
                w->need_read = true;
                w->brief = false;
        }
        s->n_reads = 0;
        s->wide = false;
        s->wide_match = sd_bus_slot_unref(s->wide_match);
        s->list_slot = sd_bus_slot_unref(s->list_slot);
}

static int watch_new(Systemd *s, const char *unit, const char *control_group, UnitWatchFunc func, void *userdata,
                     UnitWatch **ret) {
        _cleanup_(unit_watch_freep) UnitWatch *w = NULL;
        UnitWatch *other;
        int r;

        w = calloc(1, sizeof *w);
        if (!w)
                return -ENOMEM;
        w->systemd = s;
        w->func = func;
        w->userdata = userdata;
        w->unit = strdup(unit);
        w->path = unit_object_path(unit);
        if (!w->unit || !w->path)
                return -ENOMEM;
        if (control_group) {
                w->brief = true;
                w->state.active_state = strdup("active");
                w->state.sub_state = strdup("running");
                w->state.control_group = strdup(control_group);
                if (!w->state.active_state || !w->state.sub_state || !w->state.control_group)
                        return -ENOMEM;
        }
        HASH_FIND_STR(s->watches, w->path, other);
        if (other)
                return -EEXIST;
        HASH_ADD_KEYPTR(hh, s->watches, w->path, strlen(w->path), w);
        w->linked = true;
        r = watch_match(w);
        /* Broken, which the loop has yet to tell us: the next connection has the match and reads the state. */
        if (r < 0 && !systemd_error_is_cut_off(r, NULL))
                return r;
        w->need_read = true;
        w->later = systemd_noted_running(s, unit);
        reads_pump(s);
        if (!s->started)
                systemd_start(s);
        *ret = TAKE_PTR(w);
        return 0;
}

int unit_watch_new(Systemd *s, const char *unit, UnitWatchFunc func, void *userdata, UnitWatch **ret) {
        return watch_new(s, unit, /* control_group= */ NULL, func, userdata, ret);
}

int unit_watch_new_running(Systemd *s, const char *unit, const char *control_group, UnitWatchFunc func, void *userdata,
                           UnitWatch **ret) {
        return watch_new(s, unit, control_group, func, userdata, ret);
}

UnitWatch *unit_watch_free(UnitWatch *w) {
        Systemd *s;

        if (!w)
                return NULL;
        s = w->systemd;
        if (w->linked)
                HASH_DEL(s->watches, w);
        if (w->read) {
                w->read = sd_bus_slot_unref(w->read);
                s->n_reads--;
                reads_pump(s);
        }
        sd_bus_slot_unref(w->match);
        unit_state_done(&w->state);
        free(w->unit);
        free(w->path);
        free(w);
        return NULL;
}
