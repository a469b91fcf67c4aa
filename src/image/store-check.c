/* The checker of a store that no daemon has open, or at least not for writing as far as we go. */

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/layout.h"
#include "image/store.h"

typedef struct CheckedLayer {
        char *name;
        char *why; /* what is wrong; NULL: nothing */
        bool unknown; /* layer.json alone is damaged */
        bool marked;  /* it was known before, and is for containers alone */
        bool half_synced, used, held;
} CheckedLayer;

typedef struct StoreCheck {
        Check *check;
        const char *directory;
        char *const *held;
        bool sure;
        int fd, layers_fd, images_fd, blobs_fd;
        CheckedLayer *layers;
        size_t n_layers;
        char **blobs; /* needed ones, digests */
        char boot_id[64];
} StoreCheck;

static char *path_of(const StoreCheck *c, const char *folder, const char *name) {
        return strprintf("%s/%s/%s", c->directory, folder, name);
}

static int found(StoreCheck *c, const char *folder, const char *name, const char *why, const char *lost, const char *done,
                 int r) {
        _cleanup_free_ char *path = path_of(c, folder, name);

        if (!path)
                return -ENOMEM;
        check_found(c->check, path, why, lost, done, r);
        return 0;
}

static CheckedLayer *find_layer(StoreCheck *c, const char *name) {
        for (size_t i = 0; i < c->n_layers; i++)
                if (streq(c->layers[i].name, name))
                        return &c->layers[i];
        return NULL;
}

/* --- layers ------------------------------------------------------------------------------------------------------ */

static int read_layer(StoreCheck *c, int fd, CheckedLayer *l) {
        _cleanup_error_ Error why = ERROR_INIT, sums = ERROR_INIT;
        ImageLayer layer = {};
        char target[64];
        ssize_t n;
        int r;

        l->marked = faccessat(fd, "damaged", F_OK, AT_SYMLINK_NOFOLLOW) >= 0;
        n = readlinkat(fd, "unsynced", target, sizeof target - 1);
        if (n >= 0) {
                target[n] = '\0';
                l->half_synced = !streq(target, c->boot_id);
        }
        r = layer_read(fd, &layer, &why);
        free(layer.diff_id);
        free(layer.chain);
        if (r == -ENOMEM)
                return r;
        l->unknown = r < 0;
        r = layer_check_sums(fd, &sums);
        if (r == -ENOMEM)
                return r;
        if (r < 0)
                l->unknown = false;
        else if (l->half_synced) {
                (void) error_setf(&sums, GRPC_DATA_LOSS, "it wasn't safe on disk when the machine stopped");
                l->unknown = false;
        }
        if (error_is_set(&sums) || l->unknown) {
                l->why = strdup(strempty(error_is_set(&sums) ? sums.message : why.message));
                if (!l->why)
                        return -ENOMEM;
        }
        return 0;
}

static int look_at_layer(int dir_fd, const char *name, void *userdata) {
        StoreCheck *c = userdata;
        CheckedLayer *l;
        uint64_t number;
        int fd, r;

        if (parse_u64(name, &number) < 0)
                return 0;
        c->check->n_looked++;
        l = reallocarray(c->layers, c->n_layers + 1, sizeof *l);
        if (!l)
                return -ENOMEM;
        c->layers = l;
        l += c->n_layers++;
        *l = (CheckedLayer){.name = strdup(name), .held = strv_contains(c->held, name)};
        if (!l->name)
                return -ENOMEM;
        fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) {
                l->why = strdup("it is no directory");
                return l->why ? 0 : -ENOMEM;
        }
        r = read_layer(c, fd, l);
        (void) close(fd);
        return r;
}

static int remove_layer(StoreCheck *c, const CheckedLayer *l) {
        int fd, r;

        if (!l->held && c->sure)
                return remove_tree(c->layers_fd, l->name);
        /* A container may run from it: it keeps what there is. */
        r = openat(c->layers_fd, l->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (r < 0)
                return remove_tree(c->layers_fd, l->name);
        fd = openat(r, "damaged", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        (void) close(r);
        if (fd < 0)
                return -errno;
        (void) close(fd);
        return 0;
}

/* Those that an image has described again are sound by now. */
static int report_layers(StoreCheck *c) {
        for (size_t i = 0; i < c->n_layers; i++) {
                const CheckedLayer *l = &c->layers[i];
                bool keep = l->held || !c->sure;
                int r = 0;

                if (l->why && !(l->marked && keep))
                        r = found(c, "layers", l->name, l->why,
                                  keep ? "files of the containers that have it" : "nothing that isn't in its registry",
                                  keep ? "kept for the containers that have it, and pulled again for others" : "removed; it is "
                                  "pulled again with its image", c->check->repair ? remove_layer(c, l) : 0);
                else if (!l->why && !l->used && !keep && !c->check->in_use)
                        r = found(c, "layers", l->name, "no image and no container has it", "nothing", "removed",
                                  c->check->repair ? remove_tree(c->layers_fd, l->name) : 0);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* --- images ------------------------------------------------------------------------------------------------------ */

typedef struct CheckedImage {
        char *id, *manifest;
        char **tags, **layers, **blobs, **diff_ids;
} CheckedImage;

static void checked_image_done(CheckedImage *i) {
        free(i->id);
        free(i->manifest);
        strv_free(i->tags);
        strv_free(i->layers);
        strv_free(i->blobs);
        strv_free(i->diff_ids);
}

/* Whether a blob is there and what its name says. */
static int blob_is_fine(const StoreCheck *c, const char *digest, char **ret, size_t *ret_size) {
        LayerStore store = {.blobs_fd = c->blobs_fd};

        return store_read_blob(&store, digest, ret, ret_size);
}

static int get_strv(const json_t *j, const char *key, char ***ret) {
        const json_t *list = json_get_array(j, key);

        return list ? json_to_strv(list, ret) : -EINVAL;
}

static int read_image(StoreCheck *c, const char *name, CheckedImage *i, Error *why) {
        _cleanup_free_ char *text = NULL, *config = NULL, *expected = NULL;
        _cleanup_json_ json_t *j = NULL;
        ImageConfig parsed = {};
        const char *id, *manifest;
        size_t size;
        int r;

        r = read_file(c->images_fd, name, STORE_FILE_MAX, &text, &size);
        if (r < 0)
                return error_set(why, r, "it cannot be read");
        r = json_parse_sealed(text, size, &j, why);
        if (r < 0)
                return r;
        id = json_get_string(j, "id");
        manifest = json_get_string(j, "manifestDigest");
        if (json_integer_value(json_object_get(j, "version")) != STORE_VERSION || !digest_is_valid(id) ||
            !digest_is_valid(manifest) || get_strv(j, "tags", &i->tags) < 0 || get_strv(j, "layers", &i->layers) < 0 ||
            get_strv(j, "blobs", &i->blobs) < 0)
                return error_setf(why, GRPC_DATA_LOSS, "a member of it is missing, or wrong");
        i->id = strdup(id);
        i->manifest = strdup(manifest);
        expected = strprintf("%s.json", id + STRLEN("sha256:"));
        if (!i->id || !i->manifest || !expected)
                return -ENOMEM;
        if (!streq(expected, name))
                return error_setf(why, GRPC_DATA_LOSS, "it is of another image");
        r = blob_is_fine(c, id, &config, &size);
        if (r == -ENOMEM)
                return r;
        if (r < 0)
                return error_setf(why, GRPC_DATA_LOSS, "its config, %s, is damaged or missing", id);
        r = image_config_parse(config, size, &parsed, &i->diff_ids, why);
        image_config_done(&parsed);
        return r;
}

/* An image knows what its layers are. */
static int describe_layer(StoreCheck *c, CheckedLayer *l, const CheckedImage *i, size_t n) {
        _cleanup_free_ char (*chains)[72] = NULL;
        _cleanup_close_ int fd = -1;
        ImageLayer layer = {};
        int r;

        r = image_chains(i->diff_ids, &chains);
        if (r < 0)
                return r;
        fd = open_directory(c->layers_fd, l->name);
        r = fd < 0 ? fd : layer_make_again(fd, i->diff_ids[n], chains[n], &layer);
        free(layer.diff_id);
        free(layer.chain);
        return r;
}

static int look_at_images_layers(StoreCheck *c, const CheckedImage *i, Error *why) {
        size_t n = strv_length(i->layers);
        int r;

        if (strv_length(i->diff_ids) != n)
                return error_setf(why, GRPC_DATA_LOSS, "it has %zu layers, its config %zu", n, strv_length(i->diff_ids));
        for (size_t k = 0; k < n; k++) {
                CheckedLayer *l = find_layer(c, i->layers[k]);

                if (!l)
                        return error_setf(why, GRPC_DATA_LOSS, "its layer %s is missing", i->layers[k]);
                if (l->unknown && !l->marked) {
                        _cleanup_free_ char *file = strprintf("%s/layer.json", l->name);

                        r = file ? found(c, "layers", file, l->why, "nothing", "made again from its image",
                                         c->check->repair ? describe_layer(c, l, i, k) : 0)
                                 : -ENOMEM;
                        if (r < 0)
                                return r;
                        l->unknown = false;
                        l->why = mfree(l->why);
                }
                if (l->why || l->marked)
                        return error_setf(why, GRPC_DATA_LOSS, "its layer %s is damaged", i->layers[k]);
        }
        return 0;
}

static int image_is_lost(StoreCheck *c, const char *name, const CheckedImage *i, const Error *why) {
        _cleanup_free_ char *names = i->tags && i->tags[0] ? strv_join(i->tags, ", ") : NULL, *lost = NULL;

        lost = strprintf("the image%s%s: it has to be pulled again", names ? " " : "", strempty(names));
        return lost ? found(c, "images", name, strempty(why->message), lost, "removed",
                            c->check->repair ? remove_tree(c->images_fd, name) : 0)
                    : -ENOMEM;
}

/* Takes a blob that is no more out of an image's list. */
static int forget_blob(StoreCheck *c, const char *name, const char *digest) {
        _cleanup_free_ char *text = NULL, *sealed = NULL;
        _cleanup_json_ json_t *j = NULL;
        json_t *blobs, *b;
        size_t size, i;
        int r;

        r = read_file(c->images_fd, name, STORE_FILE_MAX, &text, &size);
        if (r >= 0)
                r = json_parse_sealed(text, size, &j, NULL);
        if (r < 0)
                return r;
        blobs = json_get_array(j, "blobs");
        json_array_foreach(blobs, i, b)
                if (streq(strempty(json_string_value(b)), digest)) {
                        (void) json_array_remove(blobs, i);
                        break;
                }
        sealed = json_dump_sealed(j, JSON_COMPACT);
        if (!sealed)
                return -ENOMEM;
        r = write_file_atomic(c->images_fd, name, sealed, strlen(sealed), 0600, 0);
        return r < 0 ? r : remove_tree(c->blobs_fd, digest + STRLEN("sha256:"));
}

/* Blobs it could do without: none but the config is read to run it. */
static int look_at_images_blobs(StoreCheck *c, const char *name, const CheckedImage *i) {
        STRV_FOREACH(b, i->blobs) {
                _cleanup_free_ char *data = NULL;
                size_t size;
                int r;

                if (!digest_is_valid(*b))
                        continue;
                r = strv_contains(c->blobs, *b) ? 0 : strv_extend(&c->blobs, *b);
                if (r < 0)
                        return r;
                r = blob_is_fine(c, *b, &data, &size);
                if (r >= 0 || r == -ENOMEM)
                        continue;
                r = found(c, "blobs/sha256", *b + STRLEN("sha256:"), "a manifest of an image is damaged or missing",
                          "nothing: what it said has been used, the image can be", "removed",
                          c->check->repair ? forget_blob(c, name, *b) : 0);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int look_at_image(int dir_fd, const char *name, void *userdata) {
        _cleanup_(checked_image_done) CheckedImage i = {};
        _cleanup_error_ Error why = ERROR_INIT;
        StoreCheck *c = userdata;
        int r;

        if (name[0] == '.')
                return 0;
        if (endswith(name, ".json.damaged")) {
                c->check->n_looked++;
                return found(c, "images", name, "it was found damaged and set aside", "the image, unless it was pulled again",
                             "removed", c->check->repair ? remove_tree(dir_fd, name) : 0);
        }
        if (!endswith(name, ".json"))
                return 0;
        c->check->n_looked++;
        r = read_image(c, name, &i, &why);
        if (r >= 0)
                r = look_at_images_layers(c, &i, &why);
        if (r == -ENOMEM)
                return r;
        if (r < 0)
                return c->check->in_use && faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0
                                       ? 0
                                       : image_is_lost(c, name, &i, &why);
        STRV_FOREACH(l, i.layers)
                find_layer(c, *l)->used = true;
        return look_at_images_blobs(c, name, &i);
}

/* --- the rest ---------------------------------------------------------------------------------------------------- */

static int look_at_blob(int dir_fd, const char *name, void *userdata) {
        _cleanup_free_ char *digest = strprintf("sha256:%s", name);
        StoreCheck *c = userdata;

        if (!digest)
                return -ENOMEM;
        c->check->n_looked++;
        if (strv_contains(c->blobs, digest) || check_is_temporary(name))
                return 0;
        return found(c, "blobs/sha256", name, "no image has it", "nothing", "removed",
                     c->check->repair ? remove_tree(dir_fd, name) : 0);
}

static int look_at_temporary(int dir_fd, const char *name, void *userdata) {
        StoreCheck *c = userdata;

        return found(c, "tmp", name, "it was being made or removed when rktlet was killed", "nothing", "removed",
                     c->check->repair ? remove_tree(dir_fd, name) : 0);
}

static int open_folder(StoreCheck *c, const char *name, int *ret_fd) {
        _cleanup_free_ char *path = strprintf("%s/%s", c->directory, name);
        int fd, r = 0;

        if (!path)
                return -ENOMEM;
        fd = openat(c->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) {
                if (c->check->repair && startswith(name, "blobs/"))
                        r = MIN(layout_make_directory(c->fd, "blobs", 0700), 0);
                if (c->check->repair && r >= 0)
                        r = MIN(layout_make_directory(c->fd, name, 0700), 0);
                check_found(c->check, path, "this is no directory, or missing", "the images that had their part in it",
                            "made anew, what was there moved aside", r);
                if (c->check->repair && r >= 0)
                        fd = open_directory(c->fd, name);
        }
        *ret_fd = fd;
        return 0;
}

static int look_at_version(StoreCheck *c, Error *error) {
        static const Layout layout = {.version = STORE_VERSION};
        _cleanup_error_ Error why = ERROR_INIT;
        unsigned version = 0;
        int r;

        r = layout_read(c->fd, &version, &why);
        if (r > 0 && version > STORE_VERSION)
                return layout_open(c->fd, c->directory, &layout, error);
        if (r == -EBADMSG) {
                _cleanup_free_ char *path = strprintf("%s/" LAYOUT_FILE, c->directory);

                check_found(c->check, path ? path : LAYOUT_FILE, strempty(why.message),
                            "nothing: each file says its version too", "written again",
                            c->check->repair ? layout_open(c->fd, c->directory, &layout, NULL) : 0);
        }
        return 0;
}

/* Each needs what was learned before it: what layers there are, which of them images have, what is left over. */
static int look_at_all(StoreCheck *c) {
        static const char *const folders[] = {"images", "blobs/sha256"};
        int r = 0;

        if (c->layers_fd >= 0)
                r = directory_foreach(c->layers_fd, ".", look_at_layer, c);
        if (r >= 0 && c->images_fd >= 0)
                r = directory_foreach(c->images_fd, ".", look_at_image, c);
        if (r >= 0)
                r = report_layers(c);
        for (size_t i = 0; i < ELEMENTSOF(folders) && r >= 0; i++) {
                _cleanup_free_ char *path = strprintf("%s/%s", c->directory, folders[i]);

                r = path ? check_temporaries(c->check, path) : -ENOMEM;
        }
        /* A pull under way has these. */
        if (r >= 0 && !c->check->in_use && c->blobs_fd >= 0)
                r = directory_foreach(c->blobs_fd, ".", look_at_blob, c);
        if (r >= 0 && !c->check->in_use) {
                r = directory_foreach(c->fd, "tmp", look_at_temporary, c);
                r = r == -ENOENT || r == -ENOTDIR ? 0 : r;
        }
        return r < 0 ? r : check_temporaries(c->check, c->directory);
}

int image_store_check(const char *directory, char *const *held, bool sure, Check *check, Error *error) {
        StoreCheck c = {.check = check, .directory = directory, .held = held, .sure = sure};
        int r;

        c.layers_fd = c.images_fd = c.blobs_fd = -1;
        c.fd = open_directory(AT_FDCWD, directory);
        if (c.fd == -ENOENT)
                return 0;
        if (c.fd < 0)
                return error_set(error, c.fd, "Cannot open %s", directory);
        r = store_read_boot_id(c.boot_id);
        if (r >= 0)
                r = look_at_version(&c, error);
        if (r >= 0 && (r = open_folder(&c, "layers", &c.layers_fd)) >= 0 &&
            (r = open_folder(&c, "images", &c.images_fd)) >= 0 && (r = open_folder(&c, "blobs/sha256", &c.blobs_fd)) >= 0)
                r = look_at_all(&c);
        safe_close(c.fd);
        safe_close(c.layers_fd);
        safe_close(c.images_fd);
        safe_close(c.blobs_fd);
        for (size_t i = 0; i < c.n_layers; i++) {
                free(c.layers[i].name);
                free(c.layers[i].why);
        }
        free(c.layers);
        strv_free(c.blobs);
        return r < 0 ? error_set(error, r, "Cannot check %s", directory) : 0;
}
