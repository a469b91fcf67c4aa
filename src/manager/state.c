#include "manager/state.h"

#include <fcntl.h>
#include <zlib.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/layout.h"

#define STATE_MAX (1U * 1024U * 1024U)
#define REQUEST_MAX (16U * 1024U * 1024U) /* a gRPC message is never larger */

int state_open(const char *directory, Error *error) {
        _cleanup_close_ int fd = open_directory(AT_FDCWD, directory);

        if (fd < 0)
                return error_set(error, fd, "cannot open %s", directory);
        return layout_open(fd, directory, &(Layout) { .version = STATE_VERSION }, error);
}

static int state_write(const char *directory, json_t *o, Error *error) {
        _cleanup_free_ char *path = NULL, *text = NULL;
        int r;

        text = json_dump_sealed(o, JSON_INDENT(1));
        path = strprintf("%s/state.json", directory);
        if (!text || !path)
                return error_oom(error);
        r = write_file_atomic(AT_FDCWD, path, text, strlen(text), 0600, 0);
        if (r < 0)
                return error_set(error, r, "cannot write %s", path);
        return 0;
}

static int state_read(const char *directory, json_t **ret, Error *error) {
        _cleanup_free_ char *path = NULL, *text = NULL;
        _cleanup_json_ json_t *o = NULL;
        size_t size;
        int r;

        path = strprintf("%s/state.json", directory);
        if (!path)
                return error_oom(error);
        r = read_file(AT_FDCWD, path, STATE_MAX, &text, &size);
        if (r < 0)
                return error_set(error, r, "cannot read %s", path);
        r = json_parse_sealed(text, size, &o, error);
        if (r < 0)
                return r;
        if (json_integer_value(json_object_get(o, "version")) != STATE_VERSION)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "it is not of version %d", STATE_VERSION);
        *ret = TAKE_PTR(o);
        return 0;
}

int request_save(const char *directory, const void *data, size_t size, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/request.pb", directory);
        int r;

        if (!path)
                return error_oom(error);
        r = write_file_atomic(AT_FDCWD, path, data, size, 0600, 0);
        if (r < 0)
                return error_set(error, r, "cannot write %s", path);
        return 0;
}

uint32_t request_checksum(const void *data, size_t size) {
        return (uint32_t) crc32_z(0, data, size);
}

int state_remove_directory(const char *directory) {
        const char *name = strrchr(directory, '/') + 1;
        _cleanup_free_ char *gone = strprintf("%.*s" STATE_REMOVING "%s", (int) (name - directory), directory, name);
        int r;

        if (!gone)
                return -ENOMEM;
        /* Left by one that was cut off: its name is free again. */
        r = remove_tree(AT_FDCWD, gone);
        if (r < 0)
                return r;
        if (rename(directory, gone) < 0)
                return errno == ENOENT ? 0 : -errno;
        return remove_tree(AT_FDCWD, gone);
}

int request_load(const char *directory, void **ret, size_t *ret_size, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/request.pb", directory);
        int r;

        if (!path)
                return error_oom(error);
        r = read_file(AT_FDCWD, path, REQUEST_MAX, (char **) ret, ret_size);
        if (r < 0)
                return error_set(error, r, "cannot read %s", path);
        return 0;
}

/* jansson's setters take the new value's reference and refuse NULL; a missing string is a missing member. */
static int set_string(json_t *o, const char *key, const char *value) {
        if (!value)
                return 0;
        return json_object_set_new(o, key, json_string(value));
}

static int set_strv(json_t *o, const char *key, char *const *l) {
        return json_object_set_new(o, key, json_from_strv(l));
}

static int get_string(const json_t *o, const char *key, char **ret) {
        const char *s = json_get_string(o, key);
        char *copy = NULL;

        if (s) {
                copy = strdup(s);
                if (!copy)
                        return -ENOMEM;
        }
        free(*ret);
        *ret = copy;
        return 0;
}

static int get_strv(const json_t *o, const char *key, char ***ret) {
        char **l = NULL;
        int r;

        r = json_to_strv(json_get_array(o, key), &l);
        if (r < 0)
                return r;
        strv_free(*ret);
        *ret = l;
        return 0;
}

static uint64_t get_u64(const json_t *o, const char *key) {
        json_int_t i = json_integer_value(json_object_get(o, key));

        return i > 0 ? (uint64_t) i : 0;
}

int pod_state_save(Pod *p, Error *error) {
        _cleanup_json_ json_t *o = json_object();

        if (!o || json_object_set_new(o, "version", json_integer(STATE_VERSION)) < 0 || set_string(o, "id", p->id) < 0 ||
            set_string(o, "phase", pod_phase_to_string(p->phase)) < 0 || set_string(o, "slice", p->slice) < 0 ||
            json_object_set_new(o, "slice_is_ours", json_boolean(p->slice_is_ours)) < 0 ||
            json_object_set_new(o, "created_usec", json_integer((json_int_t) p->created_usec)) < 0 ||
            json_object_set_new(o, "network_added", json_boolean(p->network_added)) < 0 ||
            set_strv(o, "ips", p->ips) < 0 ||
            (!isempty(p->request.runtime_handler) &&
             set_string(o, "runtime_handler", p->request.runtime_handler) < 0) ||
            json_object_set_new(o, "request_crc32", json_integer(p->request_crc32)) < 0)
                return error_oom(error);
        return state_write(p->directory, o, error);
}

int pod_state_load(Pod *p, Error *error) {
        _cleanup_json_ json_t *o = NULL;
        const char *phase;
        int r;

        r = state_read(p->directory, &o, error);
        if (r < 0)
                return r;
        phase = json_get_string(o, "phase");
        p->phase = _POD_PHASE_INVALID;
        for (PodPhase i = 0; phase && i < _POD_PHASE_MAX; i++)
                if (streq(phase, pod_phase_to_string(i)))
                        p->phase = i;
        if (p->phase < 0 || !streq_ptr(json_get_string(o, "id"), p->id) || !json_get_string(o, "slice"))
                return error_setf(error, GRPC_DATA_LOSS, "a member of it is missing, or wrong");
        p->created_usec = get_u64(o, "created_usec");
        p->request_crc32 = (uint32_t) get_u64(o, "request_crc32");
        p->slice_is_ours = json_is_true(json_object_get(o, "slice_is_ours"));
        p->network_added = json_is_true(json_object_get(o, "network_added"));
        if (get_string(o, "slice", &p->slice) < 0)
                return error_oom(error);
        r = get_strv(o, "ips", &p->ips);
        if (r < 0)
                return error_set(error, r, "a list in it is wrong");
        return 0;
}

int pod_state_get_handler(const char *directory, char **ret) {
        _cleanup_json_ json_t *o = NULL;
        char *handler = NULL;
        int r;

        r = state_read(directory, &o, NULL);
        if (r < 0)
                return r;
        r = get_string(o, "runtime_handler", &handler);
        if (r < 0)
                return r;
        *ret = handler;
        return 0;
}

int container_state_save(Container *c, Error *error) {
        _cleanup_json_ json_t *o = json_object();
        json_t *groups;

        if (!o || json_object_set_new(o, "version", json_integer(STATE_VERSION)) < 0 || set_string(o, "id", c->id) < 0 ||
            set_string(o, "pod_id", c->pod->id) < 0 || set_string(o, "phase", container_phase_to_string(c->phase)) < 0 ||
            set_string(o, "log_path", c->log_path) < 0 || set_string(o, "image_id", c->image_id) < 0 ||
            set_string(o, "reason", c->reason) < 0 || set_string(o, "message", c->message) < 0 ||
            set_strv(o, "layers", c->layers) < 0 || set_strv(o, "volume_layers", c->volume_layers) < 0 ||
            set_strv(o, "volume_images", c->volume_images) < 0 ||
            json_object_set_new(o, "created_usec", json_integer((json_int_t) c->created_usec)) < 0 ||
            json_object_set_new(o, "started_usec", json_integer((json_int_t) c->started_usec)) < 0 ||
            json_object_set_new(o, "finished_usec", json_integer((json_int_t) c->finished_usec)) < 0 ||
            json_object_set_new(o, "exit_code", json_integer(c->exit_code)) < 0 ||
            json_object_set_new(o, "oom_killed", json_boolean(c->oom_killed)) < 0 ||
            json_object_set_new(o, "uid", json_integer(c->info.uid)) < 0 ||
            json_object_set_new(o, "gid", json_integer(c->info.gid)) < 0 ||
            json_object_set_new(o, "stop_signal", json_integer(c->info.stop_signal)) < 0 ||
            json_object_set_new(o, "request_crc32", json_integer(c->request_crc32)) < 0)
                return error_oom(error);

        groups = json_array();
        if (!groups || json_object_set_new(o, "supplementary_groups", groups) < 0)
                return error_oom(error);
        for (size_t i = 0; i < c->info.n_supplementary_groups; i++)
                if (json_array_append_new(groups, json_integer(c->info.supplementary_groups[i])) < 0)
                        return error_oom(error);

        return state_write(c->directory, o, error);
}

int container_state_load(Container *c, char **ret_pod_id, Error *error) {
        _cleanup_json_ json_t *o = NULL;
        _cleanup_free_ char *pod_id = NULL;
        json_t *groups;
        int r;

        r = state_read(c->directory, &o, error);
        if (r < 0)
                return r;
        c->phase = container_phase_from_string(strempty(json_get_string(o, "phase")));
        if (c->phase < 0 || !streq_ptr(json_get_string(o, "id"), c->id) || !json_get_string(o, "pod_id"))
                return error_setf(error, GRPC_DATA_LOSS, "a member of it is missing, or wrong");
        c->created_usec = get_u64(o, "created_usec");
        c->request_crc32 = (uint32_t) get_u64(o, "request_crc32");
        c->started_usec = get_u64(o, "started_usec");
        c->finished_usec = get_u64(o, "finished_usec");
        c->exit_code = (int) json_integer_value(json_object_get(o, "exit_code"));
        c->oom_killed = json_is_true(json_object_get(o, "oom_killed"));
        c->info.uid = json_integer_value(json_object_get(o, "uid"));
        c->info.gid = json_integer_value(json_object_get(o, "gid"));
        c->info.stop_signal = (int) json_integer_value(json_object_get(o, "stop_signal"));
        if (get_string(o, "log_path", &c->log_path) < 0 || get_string(o, "image_id", &c->image_id) < 0 ||
            get_string(o, "reason", &c->reason) < 0 || get_string(o, "message", &c->message) < 0 ||
            get_string(o, "pod_id", &pod_id) < 0)
                return error_oom(error);
        r = get_strv(o, "layers", &c->layers);
        if (r >= 0)
                r = get_strv(o, "volume_layers", &c->volume_layers);
        if (r >= 0)
                r = get_strv(o, "volume_images", &c->volume_images);
        if (r < 0)
                return error_set(error, r, "a list in it is wrong");

        groups = json_get_array(o, "supplementary_groups");
        if (json_array_size(groups) > 0) {
                c->info.supplementary_groups = calloc(json_array_size(groups), sizeof(int64_t));
                if (!c->info.supplementary_groups)
                        return error_oom(error);
                c->info.n_supplementary_groups = json_array_size(groups);
                for (size_t i = 0; i < c->info.n_supplementary_groups; i++)
                        c->info.supplementary_groups[i] = json_integer_value(json_array_get(groups, i));
        }
        *ret_pod_id = TAKE_PTR(pod_id);
        return 0;
}
