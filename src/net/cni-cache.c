#include "net/cni-cache.h"

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/layout.h"
#include "basic/string-util.h"

#define CACHE_VERSION 1
#define CACHE_SIZE_MAX (4U * 1024U * 1024U)

void cni_cache_done(CniCache *c) {
        cni_network_done(&c->network);
        free(c->args);
        free(c->netns);
        json_decref(c->capability_args);
        json_decref(c->result);
        strv_free(c->ips);
        *c = (CniCache) {};
}

static char *cache_path(const char *directory, const char *pod_id) {
        return strprintf("%s/%s.json", directory, pod_id);
}

int cni_cache_write(const char *directory, const char *pod_id, const CniCache *c, Error *error) {
        _cleanup_free_ char *path = cache_path(directory, pod_id), *text = NULL;
        _cleanup_json_ json_t *j = NULL;
        int r;

        if (!path)
                return error_oom(error);
        j = json_pack("{s:i, s:{s:s, s:s, s:O}, s:s, s:s, s:O, s:O?}", "version", CACHE_VERSION, "network", "name",
                      c->network.name, "cniVersion", c->network.version, "plugins", c->network.plugins, "args",
                      c->args, "netns", strempty(c->netns), "capabilityArgs", c->capability_args, "result", c->result);
        if (j && c->ips && json_object_set_new(j, "ips", json_from_strv(c->ips)) < 0)
                return error_oom(error);
        text = json_dump_sealed(j, JSON_COMPACT);
        if (!text)
                return error_oom(error);
        r = write_file_atomic(AT_FDCWD, path, text, strlen(text), 0600, 0);
        if (r == -ENOENT || r == -ENOTDIR) {
                r = layout_make_directory(AT_FDCWD, directory, 0700);
                if (r < 0)
                        return error_set(error, r, "cannot make directory %s", directory);
                r = write_file_atomic(AT_FDCWD, path, text, strlen(text), 0600, 0);
        }
        if (r < 0)
                return error_set(error, r, "cannot write %s", path);
        return 0;
}

int cni_cache_read(const char *directory, const char *pod_id, CniCache *ret, Error *error) {
        _cleanup_free_ char *path = cache_path(directory, pod_id), *text = NULL;
        _cleanup_(cni_cache_done) CniCache c = {};
        _cleanup_json_ json_t *j = NULL;
        size_t size;
        int r;

        if (!path)
                return error_oom(error);
        r = read_file(AT_FDCWD, path, CACHE_SIZE_MAX, &text, &size);
        if (r == -ENOENT)
                return r;
        if (r == -ENOMEM)
                return error_oom(error);
        /* No file at all, or one that is too large: as good as damaged, and DEL is owed all the same. */
        if (r >= 0)
                r = json_parse_sealed(text, size, &j, NULL);
        if (r < 0 || json_integer_value(json_object_get(j, "version")) != CACHE_VERSION ||
            cni_network_parse(json_get_object(j, "network"), path, &c.network, NULL) < 0) {
                error_setf(error, GRPC_DATA_LOSS, "%s is damaged", path);
                return -EBADMSG;
        }
        c.args = strdup(strempty(json_get_string(j, "args")));
        c.netns = strdup(strempty(json_get_string(j, "netns")));
        c.capability_args = json_incref(json_get_object(j, "capabilityArgs"));
        c.result = json_incref(json_get_object(j, "result"));
        r = json_to_strv(json_get_array(j, "ips"), &c.ips);
        if (!c.args || !c.netns || r == -ENOMEM)
                return error_oom(error);
        *ret = c;
        c = (CniCache) {};
        return 0;
}

int cni_cache_remove(const char *directory, const char *pod_id, Error *error) {
        _cleanup_free_ char *path = cache_path(directory, pod_id);
        int r;

        if (!path)
                return error_oom(error);
        r = remove_tree(AT_FDCWD, path);
        if (r < 0)
                return error_set(error, r, "cannot remove %s", path);
        return 0;
}
