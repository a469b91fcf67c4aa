/* Layers: each unpacked once, shared by its diff ID, gone with its last user.
 *
 *   layers/N/fs          the tree
 *   layers/N/layer.json  {"version", "diffID", "chain"?, "bytes", "inodes", "opaqueRoot"}
 *   layers/N/implied     the directories it implies, each ended by NUL; only with a chain
 *   layers/N/sums        checksums of its files, see store.h
 *   layers/N/damaged     the checker has found its tree to be damaged: containers that have it keep it, nobody else gets it
 *   layers/N/unsynced    a symbolic link to the boot ID, until a sync has passed. A layer with another boot's ID may
 * have lost anything in a power cut and is thrown away: so no pull ever waits for the disk.
 *
 * A layer appears by one rename from tmp/ and disappears by one rename to it. */

#include <fcntl.h>
#include <sys/xattr.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/kill-point.h"
#include "basic/layout.h"
#include "basic/log.h"
#include "image/store.h"
#include "stats/tree-usage.h"

int store_read_boot_id(char ret[static 64]) {
        _cleanup_free_ char *text = NULL;
        size_t n;
        int r;

        r = read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 256, &text, &n);
        if (r < 0)
                return r;
        text[strcspn(text, "\n")] = '\0';
        (void) snprintf(ret, 64, "%.63s", text);
        return 0;
}

ImageLayer *layer_free(ImageLayer *l) {
        if (!l)
                return NULL;
        free(l->name);
        free(l->diff_id);
        free(l->chain);
        free(l);
        return NULL;
}
DEFINE_TRIVIAL_CLEANUP_FUNC(ImageLayer *, layer_free);

ImageLayer *store_find_layer(LayerStore *s, const char *diff_id, const char *chain) {
        for (size_t i = 0; i < s->n_layers; i++)
                if (!s->layers[i]->damaged && streq(s->layers[i]->diff_id, diff_id) &&
                    (!s->layers[i]->chain || streq(s->layers[i]->chain, chain)))
                        return s->layers[i];
        return NULL;
}

ImageLayer *store_find_layer_by_name(LayerStore *s, const char *name) {
        for (size_t i = 0; i < s->n_layers; i++)
                if (streq(s->layers[i]->name, name))
                        return s->layers[i];
        return NULL;
}

ImageLayer *layer_use(ImageLayer *l) {
        l->n_users++;
        return l;
}

static int layer_register(LayerStore *s, ImageLayer *l) {
        int r;

        r = list_append(&s->layers, &s->n_layers, l);
        if (r < 0)
                return r;
        l->store = s;
        s->bytes += l->bytes;
        s->inodes += l->inodes;
        return 0;
}

/* Takes layers/name out of sight at once; the tree goes behind. */
static void remove_directory(LayerStore *s, const char *name) {
        _cleanup_free_ char *gone = store_temporary(s, "layer");

        if (!gone || renameat(s->layers_fd, name, s->tmp_fd, gone) < 0) {
                log_warning_errno(-errno, "Cannot remove layer %s of the image store, ignoring", name);
                return;
        }
        KILL_POINT_OF("image-layer.taken-away", name);
        store_doom(s, gone);
}

void layer_unuse(ImageLayer *l) {
        LayerStore *s;

        if (!l || --l->n_users > 0)
                return;
        s = l->store;
        s->bytes -= l->bytes;
        s->inodes -= l->inodes;
        list_remove(&s->layers, &s->n_layers, l);
        if (!s->closing)
                remove_directory(s, l->name);
        layer_free(l);
}

void layers_unuse(ImageLayer **layers, size_t n) {
        for (size_t i = 0; i < n; i++)
                layer_unuse(layers[i]);
        free(layers);
}

static int layer_write(int dir_fd, const ImageLayer *l) {
        _cleanup_json_ json_t *j = NULL;
        _cleanup_free_ char *text = NULL;

        j = json_pack("{s:i, s:s, s:s*, s:I, s:I, s:b}", "version", STORE_VERSION, "diffID", l->diff_id, "chain",
                      l->chain, "bytes", (json_int_t) l->bytes, "inodes", (json_int_t) l->inodes, "opaqueRoot",
                      l->opaque_root);
        text = json_dump_sealed(j, JSON_COMPACT);
        if (!text)
                return -ENOMEM;
        return write_file_atomic(dir_fd, "layer.json", text, strlen(text), 0600, 0);
}

static bool root_is_opaque(int dir_fd) {
        _cleanup_close_ int fd = open_directory(dir_fd, "fs");
        char value[2] = "";

        return fd >= 0 && fgetxattr(fd, "trusted.overlay.opaque", value, 1) == 1 && value[0] == 'y';
}

int layer_make_again(int dir_fd, const char *diff_id, const char *chain, ImageLayer *l) {
        TreeUsage usage;
        struct stat st = {};
        int r;

        r = tree_usage(dir_fd, "fs", 0, &usage);
        if (r < 0)
                return r;
        free(l->diff_id);
        l->diff_id = strdup(diff_id);
        free(l->chain);
        (void) fstatat(dir_fd, "implied", &st, AT_SYMLINK_NOFOLLOW);
        l->chain = st.st_size > 0 ? strdup(chain) : NULL;
        if (!l->diff_id || (st.st_size > 0 && !l->chain))
                return -ENOMEM;
        l->bytes = usage.bytes;
        l->inodes = usage.inodes;
        l->opaque_root = root_is_opaque(dir_fd);
        r = layout_clear_file(dir_fd, "layer.json");
        return r < 0 ? r : layer_write(dir_fd, l);
}

int store_commit_layer(LayerStore *s, const char *temporary, const char *diff_id, const char *chain, uint64_t bytes,
                       uint64_t inodes, bool opaque_root, ImageLayer **ret, Error *error) {
        _cleanup_(layer_freep) ImageLayer *l = calloc(1, sizeof *l);
        _cleanup_close_ int fd = -1;
        char boot_id[64];
        int r;

        if (!l)
                return error_oom(error);
        l->n_users = 1;
        l->bytes = bytes;
        l->inodes = inodes;
        l->opaque_root = opaque_root;
        l->unsynced = true;
        l->diff_id = strdup(diff_id);
        l->name = strprintf("%llu", (unsigned long long) s->next_layer);
        if (!l->diff_id || !l->name || (chain && !(l->chain = strdup(chain))))
                return error_oom(error);

        fd = open_directory(s->tmp_fd, temporary);
        if (fd < 0)
                return error_set(error, fd, "Cannot open a layer's directory");
        r = layer_write(fd, l);
        if (r < 0)
                return store_write_failed(s, r, error);
        KILL_POINT_OF("image-layer.described", diff_id);
        r = store_read_boot_id(boot_id);
        if (r >= 0 && symlinkat(boot_id, fd, "unsynced") < 0)
                r = -errno;
        if (r < 0)
                return store_write_failed(s, r, error);
        KILL_POINT_OF("image-layer.marked", diff_id);
        if (renameat(s->tmp_fd, temporary, s->layers_fd, l->name) < 0)
                return store_write_failed(s, -errno, error);
        KILL_POINT_OF("image-layer.committed", diff_id);
        r = layer_register(s, l);
        if (r < 0) {
                remove_directory(s, l->name);
                return error_oom(error);
        }
        s->next_layer++;
        store_sync_later(s);
        *ret = TAKE_PTR(l);
        return 0;
}

int store_adopt_layer(LayerStore *s, ImageLayer *const *layers, size_t i, Error *error) {
        const char *const argv[] = {s->unpack_path, "adopt", NULL};
        _cleanup_close_ int list_fd = -1;
        _cleanup_free_ char *path = NULL;
        _cleanup_free_ int *fds = NULL;
        size_t n = 0;
        int r = 0;

        path = strprintf("%s/implied", layers[i]->name);
        fds = calloc(i + 1, sizeof *fds);
        if (!path || !fds)
                return error_oom(error);
        list_fd = openat(s->layers_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (list_fd < 0)
                return error_set(error, -errno, "Cannot open a layer's list of directories");
        for (size_t k = i + 1; k > 0 && r >= 0; k--) {
                _cleanup_free_ char *fs = strprintf("%s/fs", layers[k - 1]->name);

                r = fs ? open_directory(s->layers_fd, fs) : -ENOMEM;
                if (r >= 0)
                        fds[n++] = r;
        }
        if (r >= 0)
                r = store_run_helper(s, argv, fds, n, list_fd, error);
        for (size_t k = 0; k < n; k++)
                safe_close(fds[k]);
        if (r < 0)
                return error_prefix(error, r, "Cannot finish a layer");
        KILL_POINT_OF("image-layer.adopted", layers[i]->name);
        layers[i]->adopted = true;
        return 0;
}

int layer_read(int dir_fd, ImageLayer *l, Error *error) {
        _cleanup_free_ char *text = NULL;
        _cleanup_json_ json_t *j = NULL;
        const char *diff_id, *chain;
        size_t size;
        int r;

        r = read_file(dir_fd, "layer.json", STORE_FILE_MAX, &text, &size);
        if (r < 0)
                return error_set(error, r, "it cannot be read");
        r = json_parse_sealed(text, size, &j, error);
        if (r < 0)
                return r;
        if (json_integer_value(json_object_get(j, "version")) != STORE_VERSION)
                return error_setf(error, GRPC_DATA_LOSS, "it is not of version %d", STORE_VERSION);
        diff_id = json_get_string(j, "diffID");
        chain = json_get_string(j, "chain");
        if (!digest_is_valid(diff_id) || (chain && !digest_is_valid(chain)))
                return error_setf(error, GRPC_DATA_LOSS, "a digest in it is none");
        l->diff_id = strdup(diff_id);
        if (!l->diff_id || (chain && !(l->chain = strdup(chain))))
                return error_oom(error);
        l->bytes = (uint64_t) json_integer_value(json_object_get(j, "bytes"));
        l->inodes = (uint64_t) json_integer_value(json_object_get(j, "inodes"));
        l->opaque_root = json_is_true(json_object_get(j, "opaqueRoot"));
        return 0;
}

/* Reads layers/N. 0 when it isn't worth keeping. */
static int layer_load(LayerStore *s, const char *name, const char *boot_id, ImageLayer **ret) {
        _cleanup_(layer_freep) ImageLayer *l = calloc(1, sizeof *l);
        _cleanup_error_ Error why = ERROR_INIT;
        _cleanup_close_ int fd = -1;
        char target[64];
        struct stat st;
        ssize_t n;
        int r;

        if (!l)
                return -ENOMEM;
        l->name = strdup(name);
        if (!l->name)
                return -ENOMEM;
        fd = open_directory(s->layers_fd, name);
        if (fd < 0)
                return fd == -ENOTDIR ? 0 : fd;

        n = readlinkat(fd, "unsynced", target, sizeof target - 1);
        if (n >= 0) {
                target[n] = '\0';
                if (!streq(target, boot_id)) {
                        log_info("Layer %s of the image store wasn't safe on disk when the machine stopped, removing "
                                 "it",
                                 name);
                        return 0;
                }
                l->unsynced = true;
        }
        if (fstatat(fd, "fs", &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode)) {
                log_warning("Layer %s of the image store is damaged, it has no tree; removing it", name);
                return 0;
        }
        l->damaged = fstatat(fd, "damaged", &st, AT_SYMLINK_NOFOLLOW) >= 0;
        r = layer_read(fd, l, &why);
        if (r == -ENOMEM)
                return r;
        if (r < 0) {
                /* Containers may run from it: it only goes when none does, and stays when its image knows what it is. */
                log_warning("layer.json of layer %s of the image store is damaged: %s", name, strempty(why.message));
                l->damaged = true;
                l->unknown = true;
        }
        *ret = TAKE_PTR(l);
        return 1;
}

typedef struct LoadContext {
        LayerStore *store;
        char boot_id[64];
} LoadContext;

static int load_one(int dir_fd, const char *name, void *userdata) {
        LoadContext *c = userdata;
        ImageLayer *l = NULL;
        uint64_t number;
        int r;

        if (parse_u64(name, &number) < 0)
                return 0;
        c->store->next_layer = MAX(c->store->next_layer, number + 1);
        r = layer_load(c->store, name, c->boot_id, &l);
        if (r < 0)
                return r == -ENOMEM ? r
                                    : (log_warning_errno(r, "Cannot read layer %s of the image store, ignoring", name),
                                       0);
        if (r == 0) {
                remove_directory(c->store, name);
                return 0;
        }
        r = layer_register(c->store, l);
        if (r < 0) {
                layer_free(l);
                return r;
        }
        if (l->unsynced)
                store_sync_later(c->store);
        return 0;
}

int store_load_layers(LayerStore *s) {
        LoadContext c = {.store = s};
        int r;

        r = store_read_boot_id(c.boot_id);
        if (r < 0)
                return r;
        return directory_foreach(s->layers_fd, ".", load_one, &c);
}
