/* What a unit is doing: its properties read by GetAll, or as they come with PropertiesChanged, and the list of
 * units. */

#include "basic/string-util.h"
#include "systemd/internal.h"

/* ListUnitsByPatterns answers all at once; a node has some hundred pods. */
#define UNITS_MAX 100000U

char *unit_object_path(const char *unit) {
        char *path;

        return sd_bus_path_encode(SYSTEMD_PATH "/unit", unit, &path) < 0 ? NULL : path;
}

void unit_state_done(UnitState *s) {
        free(s->load_state);
        free(s->active_state);
        free(s->sub_state);
        free(s->result);
        free(s->control_group);
        free(s->status_text);
        free(s->slice);
        *s = (UnitState) {};
}

void unit_look_done(UnitLook *l) {
        unit_state_done(&l->state);
        free(l->description);
        *l = (UnitLook) {};
}

bool unit_is_loaded(const UnitState *state) {
        return streq_ptr(state->load_state, "loaded");
}

bool unit_is_down(const UnitState *state) {
        return !unit_is_loaded(state) || streq_ptr(state->active_state, "inactive") ||
               streq_ptr(state->active_state, "failed");
}

static const struct {
        const char *name;
        const char *type;
        size_t offset;
} properties[] = {
        { "LoadState", "s", offsetof(UnitState, load_state) },
        { "ActiveState", "s", offsetof(UnitState, active_state) },
        { "SubState", "s", offsetof(UnitState, sub_state) },
        { "Result", "s", offsetof(UnitState, result) },
        { "ControlGroup", "s", offsetof(UnitState, control_group) },
        { "StatusText", "s", offsetof(UnitState, status_text) },
        { "Slice", "s", offsetof(UnitState, slice) },
        { "MainPID", "u", offsetof(UnitState, main_pid) },
        { "ExecMainPID", "u", offsetof(UnitState, exec_main_pid) },
        { "ExecMainCode", "i", offsetof(UnitState, exec_main_code) },
        { "ExecMainStatus", "i", offsetof(UnitState, exec_main_status) },
        { "ExecMainStartTimestamp", "t", offsetof(UnitState, exec_main_start_usec) },
        { "ExecMainExitTimestamp", "t", offsetof(UnitState, exec_main_exit_usec) },
        { "NRestarts", "u", offsetof(UnitState, n_restarts) },
};
_Static_assert(sizeof(pid_t) == 4 && sizeof(int) == 4, "D-Bus u and i are read into pid_t and int");

/* Reads the variant that comes next. 1: changed, 0: not, -ENOENT: none of ours, nothing read. */
static int merge_state(UnitState *state, const char *name, sd_bus_message *m) {
        for (size_t i = 0; i < ELEMENTSOF(properties); i++) {
                void *field = (char *) state + properties[i].offset;
                const char *string;
                uint64_t number = 0;
                size_t size = properties[i].type[0] == 't' ? 8 : 4;
                int r;

                if (!streq(name, properties[i].name))
                        continue;
                if (properties[i].type[0] == 's') {
                        char **old = field, *copy;

                        r = sd_bus_message_read(m, "v", "s", &string);
                        if (r < 0)
                                return r;
                        if (streq_ptr(*old, string))
                                return 0;
                        copy = strdup(string);
                        if (!copy)
                                return -ENOMEM;
                        free(*old);
                        *old = copy;
                        return 1;
                }
                r = sd_bus_message_read(m, "v", properties[i].type, &number);
                if (r < 0)
                        return r;
                if (memcmp(field, &number, size) == 0)
                        return 0;
                memcpy(field, &number, size);
                return 1;
        }
        return -ENOENT;
}

/* ExecStart is a(sasbttttuii): path, arguments, ignore failure, four times, PID, code, status. Of several commands the
 * last that ran is meant. */
static int look_exec_start(UnitLook *look, sd_bus_message *m) {
        int r;

        r = sd_bus_message_enter_container(m, 'v', "a(sasbttttuii)");
        if (r < 0)
                return r;
        r = sd_bus_message_enter_container(m, 'a', "(sasbttttuii)");
        if (r < 0)
                return r;
        while ((r = sd_bus_message_enter_container(m, 'r', "sasbttttuii")) > 0) {
                uint32_t pid;
                int32_t code, status;

                r = sd_bus_message_skip(m, "sasbtttt");
                if (r < 0)
                        return r;
                r = sd_bus_message_read(m, "uii", &pid, &code, &status);
                if (r < 0)
                        return r;
                if (pid != 0) {
                        look->exec_start_pid = (pid_t) pid;
                        look->exec_start_code = code;
                        look->exec_start_status = status;
                }
                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;
        r = sd_bus_message_exit_container(m);
        if (r < 0)
                return r;
        return sd_bus_message_exit_container(m);
}

/* As merge_state(), for what only unit_look() wants. */
static int merge_look(UnitLook *look, const char *name, sd_bus_message *m) {
        const char *string;
        int b, r;

        if (streq(name, "ExecStart"))
                return look_exec_start(look, m);
        if (streq(name, "Job"))
                return sd_bus_message_read(m, "v", "(uo)", &look->job_id, &string);
        if (streq(name, "InactiveExitTimestampMonotonic"))
                return sd_bus_message_read(m, "v", "t", &look->begin_usec);
        if (streq(name, "StatusErrno"))
                return sd_bus_message_read(m, "v", "i", &look->status_errno);
        if (streq(name, "Transient")) {
                r = sd_bus_message_read(m, "v", "b", &b);
                look->transient = r >= 0 && b;
                return r;
        }
        if (streq(name, "Description")) {
                r = sd_bus_message_read(m, "v", "s", &string);
                if (r < 0)
                        return r;
                free(look->description);
                look->description = strdup(string);
                return look->description ? 0 : -ENOMEM;
        }
        return -ENOENT;
}

int unit_state_merge(UnitState *state, UnitLook *look, sd_bus_message *m) {
        bool changed = false;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        if (r < 0)
                return r;
        while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                const char *name;

                r = sd_bus_message_read(m, "s", &name);
                if (r < 0)
                        return r;
                r = merge_state(state, name, m);
                if (r > 0)
                        changed = true;
                if (r == -ENOENT && look)
                        r = merge_look(look, name, m);
                if (r == -ENOENT)
                        r = sd_bus_message_skip(m, "v");
                if (r < 0)
                        return r;
                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;
        r = sd_bus_message_exit_container(m);
        if (r < 0)
                return r;
        return changed;
}

static int build_get_all(Systemd *s, const void *userdata, sd_bus_message **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r;

        r = sd_bus_message_new_method_call(s->bus, &m, SYSTEMD_NAME, userdata, PROPERTIES_INTERFACE, "GetAll");
        if (r < 0)
                return r;
        /* The properties of all its interfaces in one answer. */
        r = sd_bus_message_append(m, "s", "");
        if (r < 0)
                return r;
        *ret = TAKE_PTR(m);
        return 0;
}

int unit_look(Systemd *s, const char *unit, UnitLook *ret, Error *error) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        _cleanup_(unit_look_done) UnitLook look = {};
        _cleanup_free_ char *path = NULL;
        int r;

        path = unit_object_path(unit);
        if (!path)
                return error_oom(error);
        r = systemd_call(s, build_get_all, path, USEC_INFINITY, &e, &reply, error);
        if (r < 0)
                return systemd_error(error, &e, r, "Cannot read the state of unit %s", unit);
        r = unit_state_merge(&look.state, &look, reply);
        if (r < 0)
                return error_set(error, r, "Cannot understand systemd's description of unit %s", unit);
        *ret = look;
        look = (UnitLook) {};
        return 0;
}

int unit_get_state(Systemd *s, const char *unit, UnitState *ret, Error *error) {
        _cleanup_(unit_look_done) UnitLook look = {};
        int r;

        r = unit_look(s, unit, &look, error);
        if (r < 0)
                return r;
        *ret = look.state;
        look.state = (UnitState) {};
        return 0;
}

void unit_info_free_array(UnitInfo *infos, size_t n) {
        for (size_t i = 0; i < n; i++) {
                free(infos[i].name);
                free(infos[i].load_state);
                free(infos[i].active_state);
                free(infos[i].sub_state);
                free(infos[i].description);
        }
        free(infos);
}

typedef struct ListQuery {
        const char *const *states, *const *patterns;
        size_t n_states, n_patterns;
} ListQuery;

static int append_strings(sd_bus_message *m, const char *const *strings, size_t n) {
        int r;

        r = sd_bus_message_open_container(m, 'a', "s");
        for (size_t i = 0; i < n && r >= 0; i++)
                r = sd_bus_message_append(m, "s", strings[i]);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int build_list(Systemd *s, const void *userdata, sd_bus_message **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        const ListQuery *q = userdata;
        int r;

        r = systemd_manager_call_new(s, "ListUnitsByPatterns", &m);
        if (r >= 0)
                r = append_strings(m, q->states, q->n_states);
        if (r >= 0)
                r = append_strings(m, q->patterns, q->n_patterns);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(m);
        return 0;
}

/* One entry is (ssssssouso): name, description, load, active and sub state, followed, path, job ID, type and path. */
static int read_unit_info(sd_bus_message *m, UnitInfo *ret) {
        const char *name, *description, *load, *active, *sub;
        int r;

        r = sd_bus_message_read(m, "(ssssssouso)", &name, &description, &load, &active, &sub, NULL, NULL, NULL, NULL,
                                NULL);
        if (r <= 0)
                return r;
        *ret = (UnitInfo) {
                .name = strdup(name),
                .load_state = strdup(load),
                .active_state = strdup(active),
                .sub_state = strdup(sub),
                .description = strdup(description),
        };
        return ret->name && ret->load_state && ret->active_state && ret->sub_state && ret->description ? 1 : -ENOMEM;
}

static int list_units(Systemd *s, const ListQuery *query, UnitInfo **ret, size_t *ret_n, Error *error) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        UnitInfo *infos = NULL;
        size_t n = 0, allocated = 0;
        int r;

        r = systemd_call(s, build_list, query, USEC_INFINITY, &e, &reply, error);
        if (r < 0)
                return systemd_error(error, &e, r, "Cannot list units \"%s\"", query->patterns[0]);
        r = sd_bus_message_enter_container(reply, 'a', "(ssssssouso)");
        while (r >= 0) {
                if (n == allocated) {
                        UnitInfo *p = realloc(infos, (allocated = allocated ? allocated * 2 : 64) * sizeof *p);

                        if (!p || n >= UNITS_MAX) {
                                infos = p ? p : infos;
                                r = -ENOMEM;
                                break;
                        }
                        infos = p;
                }
                infos[n] = (UnitInfo) {};
                r = read_unit_info(reply, infos + n);
                if (r == 0)
                        break;
                n++;
        }
        if (r < 0) {
                unit_info_free_array(infos, n);
                return error_set(error, r, "Cannot understand systemd's list of units");
        }
        *ret = infos;
        *ret_n = n;
        return 0;
}

int systemd_list_units(Systemd *s, const char *pattern, UnitInfo **ret, size_t *ret_n, Error *error) {
        const char *const patterns[] = { pattern };

        return list_units(s, &(ListQuery) { .patterns = patterns, .n_patterns = 1 }, ret, ret_n, error);
}

/* --- what runs --------------------------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b) {
        return strcmp(*(char *const *) a, *(char *const *) b);
}

void systemd_forget_running(Systemd *s) {
        for (size_t i = 0; i < s->n_running; i++)
                free(s->running[i]);
        s->running = mfree(s->running);
        s->n_running = 0;
}

int systemd_note_running(Systemd *s, const char *const *patterns, size_t n_patterns, Error *error) {
        static const char *const states[] = { "running" };
        ListQuery query = { .states = states, .n_states = 1, .patterns = patterns, .n_patterns = n_patterns };
        UnitInfo *units = NULL;
        size_t n = 0;
        int r;

        systemd_forget_running(s);
        r = list_units(s, &query, &units, &n, error);
        if (r < 0)
                return r;
        s->running = calloc(n + 1, sizeof(char *));
        for (size_t i = 0; i < n && s->running; i++)
                if (streq(units[i].load_state, "loaded") && streq(units[i].active_state, "active") &&
                    streq(units[i].sub_state, "running"))
                        s->running[s->n_running++] = TAKE_PTR(units[i].name);
        unit_info_free_array(units, n);
        if (!s->running)
                return error_oom(error);
        qsort(s->running, s->n_running, sizeof(char *), compare_names);
        return 0;
}

bool systemd_noted_running(const Systemd *s, const char *unit) {
        return s->n_running > 0 && bsearch(&unit, s->running, s->n_running, sizeof(char *), compare_names);
}
