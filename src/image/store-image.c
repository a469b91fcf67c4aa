/* Images: one small file each, and the manifests and configs they need as blobs.
 *
 *   images/HEX.json  {"version", "id", "tags", "digests", "manifestDigest", "size", "layers": [N…], "blobs":
 * [digest…], "saved": µs since 1970}; of two files with one tag, after a crash in between, the later is right */

#include <fcntl.h>
#include <fnmatch.h>
#include <openssl/evp.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/kill-point.h"
#include "basic/layout.h"
#include "basic/log.h"
#include "image/store.h"

#define BLOCK_SIZE UINT64_C(4096)

int digest_of_bytes(const void *data, size_t size, char ret[static 72]) {
        uint8_t md[32];
        unsigned n = 0;

        if (EVP_Digest(data, size, md, &n, EVP_sha256(), NULL) != 1 || n != sizeof md)
                return -EIO;
        memcpy(ret, "sha256:", 7);
        hex_encode(md, sizeof md, ret + 7);
        return 0;
}

int image_chains(char *const *diff_ids, char (**ret)[72]) {
        size_t n = strv_length(diff_ids);
        _cleanup_free_ char (*chains)[72] = calloc(MAX(n, (size_t) 1), sizeof *chains);

        if (!chains)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                char text[160];

                if (i == 0) {
                        memcpy(chains[0], diff_ids[0], 72);
                        continue;
                }
                (void) snprintf(text, sizeof text, "%s %s", chains[i - 1], diff_ids[i]);
                if (digest_of_bytes(text, strlen(text), chains[i]) < 0)
                        return -EIO;
        }
        *ret = TAKE_PTR(chains);
        return 0;
}

void stored_image_destroy(Image *i) {
        StoredImage *stored = CONTAINER_OF(i, StoredImage, image);

        image_done(i);
        strv_free(stored->blobs);
        free(stored->layers); /* its uses were given back when the store let go of it */
        free(stored);
}

/* For an image that the store doesn't have (yet): gives its uses back as well. */
StoredImage *stored_image_free(StoredImage *i) {
        if (!i)
                return NULL;
        for (size_t k = 0; k < i->n_layers; k++)
                layer_unuse(i->layers[k]);
        i->n_layers = 0;
        (void) image_unref(&i->image);
        return NULL;
}

void store_tell(LayerStore *s, ImageChange change, Image *image) {
        if (s->base.changed)
                s->base.changed(image, change, s->base.changed_userdata);
}

StoredImage *store_find_id(LayerStore *s, const char *id) {
        for (size_t i = 0; i < s->n_images; i++)
                if (streq(s->images[i]->image.id, id))
                        return s->images[i];
        return NULL;
}

int stored_image_list_layers(StoredImage *i) {
        _cleanup_strv_free_ char **list = NULL;
        size_t first = 0;
        int r;

        for (size_t k = 0; k < i->n_layers; k++)
                if (i->layers[k]->opaque_root)
                        first = k;
        for (size_t k = first; k < i->n_layers; k++) {
                bool again = false;

                /* overlayfs refuses a directory that comes twice. What the lower one shows, the upper one shows over
                 * it. */
                for (size_t m = k + 1; m < i->n_layers; m++)
                        again = again || i->layers[m] == i->layers[k];
                if (again)
                        continue;
                r = strv_extend(&list, i->layers[k]->name);
                if (r < 0)
                        return r;
        }
        strv_free(i->image.layers);
        i->image.layers = TAKE_PTR(list);
        return 0;
}

int store_write_blob(LayerStore *s, const char *digest, const void *data, size_t size, Error *error) {
        const char *hex = digest + STRLEN("sha256:");
        struct stat st;
        int r;

        if (fstatat(s->blobs_fd, hex, &st, AT_SYMLINK_NOFOLLOW) >= 0 && S_ISREG(st.st_mode) &&
            (size_t) st.st_size == size) {
                _cleanup_free_ char *have = NULL;
                size_t n;

                if (store_read_blob(s, digest, &have, &n) >= 0)
                        return 0;
        }
        r = layout_clear_file(s->blobs_fd, hex);
        if (r >= 0)
                r = write_file_atomic(s->blobs_fd, hex, data, size, 0600, 0);
        KILL_POINT_OF("image-blob.written", digest);
        return r < 0 ? store_write_failed(s, r, error) : 0;
}

int store_read_blob(LayerStore *s, const char *digest, char **ret, size_t *ret_size) {
        _cleanup_free_ char *data = NULL;
        char actual[72];
        size_t n;
        int r;

        r = read_file(s->blobs_fd, digest + STRLEN("sha256:"), MANIFEST_SIZE_MAX, &data, &n);
        if (r < 0)
                return r;
        r = digest_of_bytes(data, n, actual);
        if (r < 0)
                return r;
        if (!streq(actual, digest))
                return -ENOENT;
        *ret = TAKE_PTR(data);
        *ret_size = n;
        return 0;
}

static bool blob_is_needed(const LayerStore *s, const char *digest) {
        for (size_t i = 0; i < s->n_images; i++)
                if (strv_contains(s->images[i]->blobs, digest))
                        return true;
        return false;
}

void store_remove_unneeded_blobs(LayerStore *s, char *const *digests) {
        STRV_FOREACH(d, digests)
                if (!blob_is_needed(s, *d)) {
                        (void) unlinkat(s->blobs_fd, *d + STRLEN("sha256:"), 0);
                        KILL_POINT_OF("image-blob.removed", *d);
                }
}

static char *image_file_name(const char *id) {
        return strprintf("%s.json", id + STRLEN("sha256:"));
}

static int image_save(LayerStore *s, StoredImage *i, Error *error) {
        _cleanup_json_ json_t *j = NULL, *tags = json_from_strv(i->image.repo_tags),
                              *digests = json_from_strv(i->image.repo_digests), *blobs = json_from_strv(i->blobs),
                              *layers = json_array();
        _cleanup_free_ char *text = NULL, *name = image_file_name(i->image.id);
        int r;

        for (size_t k = 0; layers && k < i->n_layers; k++)
                if (json_array_append_new(layers, json_string(i->layers[k]->name)) < 0)
                        return error_oom(error);
        if (!name || !tags || !digests || !blobs || !layers)
                return error_oom(error);
        i->saved_usec = now_usec(CLOCK_REALTIME);
        j = json_pack("{s:i, s:s, s:O, s:O, s:s, s:I, s:O, s:O, s:I}", "version", STORE_VERSION, "id", i->image.id,
                      "tags", tags, "digests", digests, "manifestDigest", i->image.manifest_digest, "size",
                      (json_int_t) i->image.size, "layers", layers, "blobs", blobs, "saved", (json_int_t) i->saved_usec);
        text = json_dump_sealed(j, JSON_COMPACT);
        if (!text)
                return error_oom(error);
        r = write_file_atomic(s->images_fd, name, text, strlen(text), 0600, 0);
        if (r < 0)
                return store_write_failed(s, r, error);
        KILL_POINT_OF("image-file.saved", i->image.id);
        store_sync_later(s);
        return 0;
}

void store_find_pinned(const LayerStore *s, StoredImage *i) {
        i->image.pinned = false;
        STRV_FOREACH(p, s->pinned) {
                STRV_FOREACH(t, i->image.repo_tags)
                        i->image.pinned = i->image.pinned || fnmatch(*p, *t, 0) == 0;
                STRV_FOREACH(d, i->image.repo_digests)
                        i->image.pinned = i->image.pinned || fnmatch(*p, *d, 0) == 0;
        }
}

static int image_register(LayerStore *s, StoredImage *i) {
        int r;

        if (s->n_images >= STORE_IMAGES_MAX)
                return -ENOSPC;
        r = list_append(&s->images, &s->n_images, i);
        if (r < 0)
                return r;
        i->store = s;
        i->blob_bytes = BLOCK_SIZE;
        STRV_FOREACH(b, i->blobs) {
                struct stat st;

                if (fstatat(s->blobs_fd, *b + STRLEN("sha256:"), &st, AT_SYMLINK_NOFOLLOW) >= 0)
                        i->blob_bytes += (uint64_t) st.st_blocks * 512;
        }
        s->bytes += i->blob_bytes;
        s->inodes += 1 + strv_length(i->blobs);
        for (size_t k = 0; k < i->n_layers; k++)
                i->layers[k]->adopted = true;
        return 0;
}

void store_forget_image(LayerStore *s, StoredImage *i) {
        _cleanup_free_ char *name = image_file_name(i->image.id);

        list_remove(&s->images, &s->n_images, i);
        s->bytes -= i->blob_bytes;
        s->inodes -= 1 + strv_length(i->blobs);
        i->store = NULL;
        if (!s->closing) {
                /* The file first: what is left over without it is garbage, not a damaged image. */
                if (name && unlinkat(s->images_fd, name, 0) < 0 && errno != ENOENT)
                        log_warning_errno(-errno, "Cannot remove the file of image %s, ignoring", i->image.id);
                KILL_POINT_OF("image-file.removed", i->image.id);
                store_remove_unneeded_blobs(s, i->blobs);
                store_sync_later(s);
                store_tell(s, IMAGE_REMOVED, &i->image);
        }
        (void) stored_image_free(i);
}

static void strv_remove(char **l, const char *s) {
        char **to = l;

        for (char **from = l; from && *from; from++) {
                if (streq(*from, s))
                        free(*from);
                else
                        *to++ = *from;
        }
        if (l)
                *to = NULL;
}

int store_name_image(LayerStore *s, StoredImage *i, const char *tag, const char *digest, Error *error) {
        bool is_new = !i->store, add_tag = tag && !strv_contains(i->image.repo_tags, tag),
             add_digest = digest && !strv_contains(i->image.repo_digests, digest);
        int r;

        if (!is_new && !add_tag && !add_digest)
                return 0;
        if (strv_length(i->image.repo_tags) + strv_length(i->image.repo_digests) + add_tag + add_digest >
            STORE_IMAGE_NAMES_MAX)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED, "The image has %u names already: remove some",
                                  STORE_IMAGE_NAMES_MAX);
        if (is_new && s->n_images >= STORE_IMAGES_MAX)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED, "There are %u images already: remove some",
                                  STORE_IMAGES_MAX);
        if ((add_tag && strv_extend(&i->image.repo_tags, tag) < 0) ||
            (add_digest && strv_extend(&i->image.repo_digests, digest) < 0))
                return error_oom(error);
        store_find_pinned(s, i);
        r = image_save(s, i, error);
        if (r < 0) {
                if (add_tag)
                        strv_remove(i->image.repo_tags, tag);
                if (add_digest)
                        strv_remove(i->image.repo_digests, digest);
                return r;
        }
        if (is_new) {
                r = image_register(s, i);
                if (r < 0) {
                        _cleanup_free_ char *name = image_file_name(i->image.id);

                        if (name)
                                (void) unlinkat(s->images_fd, name, 0);
                        return error_oom(error);
                }
        }
        store_tell(s, is_new ? IMAGE_ADDED : IMAGE_CHANGED, &i->image);

        KILL_POINT_OF("image-tag.given", tag);
        /* A tag means one image. */
        for (size_t k = 0; tag && k < s->n_images; k++) {
                StoredImage *other = s->images[k];

                if (other == i || !strv_contains(other->image.repo_tags, tag))
                        continue;
                strv_remove(other->image.repo_tags, tag);
                store_find_pinned(s, other);
                /* If it can't be written, the next start finds the later file to be right. */
                if (image_save(s, other, NULL) < 0)
                        log_debug("Cannot take the tag %s away from image %s on disk, ignoring", tag, other->image.id);
                KILL_POINT_OF("image-tag.taken", tag);
                store_tell(s, IMAGE_CHANGED, &other->image);
        }
        return 0;
}

Image *layer_store_find(ImageStore *store, const char *reference) {
        LayerStore *s = layer_store(store);
        _cleanup_image_reference_ ImageReference r = {};
        _cleanup_free_ char *name = NULL;
        const char *hex;
        StoredImage *found = NULL;
        size_t n;

        if (isempty(reference))
                return NULL;
        if (digest_is_valid(reference))
                return (Image *) store_find_id(s, reference);

        if (image_reference_parse(reference, &r, NULL) >= 0) {
                name = r.digest ? strprintf("%s@%s", r.name, r.digest) : strprintf("%s:%s", r.name, r.tag);
                if (!name)
                        return NULL;
                for (size_t i = 0; i < s->n_images; i++)
                        if (strv_contains(r.digest ? s->images[i]->image.repo_digests : s->images[i]->image.repo_tags,
                                          name))
                                return &s->images[i]->image;
        }

        hex = startswith(reference, "sha256:");
        if (!hex)
                hex = reference;
        n = strlen(hex);
        if (n < 4 || n > 64 || !is_hex(hex))
                return NULL;
        for (size_t i = 0; i < s->n_images; i++)
                if (strncmp(s->images[i]->image.id + STRLEN("sha256:"), hex, n) == 0) {
                        if (found)
                                return NULL;
                        found = s->images[i];
                }
        return (Image *) found;
}

int layer_store_remove(ImageStore *store, const char *reference, Error *error) {
        LayerStore *s = layer_store(store);
        _cleanup_image_reference_ ImageReference r = {};
        Image *image = layer_store_find(store, reference);
        StoredImage *i = (StoredImage *) image;
        int k;

        if (!i)
                return 0;
        if (image_reference_parse(reference, &r, NULL) >= 0 && !r.digest) {
                _cleanup_free_ char *tag = strprintf("%s:%s", r.name, r.tag);

                if (!tag)
                        return error_oom(error);
                if (strv_contains(image->repo_tags, tag) && strv_length(image->repo_tags) > 1) {
                        strv_remove(image->repo_tags, tag);
                        store_find_pinned(s, i);
                        k = image_save(s, i, error);
                        KILL_POINT_OF("image-tag.removed", tag);
                        if (k < 0 && strv_extend(&image->repo_tags, tag) < 0)
                                log_warning("Out of memory, tag %s is lost until the next start", tag);
                        if (k >= 0)
                                store_tell(s, IMAGE_CHANGED, image);
                        return k;
                }
        }
        KILL_POINT_OF("image-remove.begin", i->image.id);
        store_forget_image(s, i);
        KILL_POINT("image-remove.forgotten");
        if (fiber_current())
                store_wait_doomed(s);
        KILL_POINT("image-remove.done");
        return 0;
}

static int load_strv(const json_t *j, const char *key, char ***ret) {
        const json_t *list = json_get_array(j, key);

        return list ? json_to_strv(list, ret) : -EINVAL;
}

/* A tag means one image: of two that have it the one saved later. */
static void settle_tags(StoredImage *a, StoredImage *b) {
        StoredImage *earlier = a->saved_usec < b->saved_usec ? a : b, *later = earlier == a ? b : a;

        STRV_FOREACH(t, later->image.repo_tags)
                strv_remove(earlier->image.repo_tags, *t);
}

/* An image knows by their order what its layers are. */
static int learn_layer(LayerStore *s, ImageLayer *l, char *const *diff_ids, size_t i) {
        _cleanup_free_ char (*chains)[72] = NULL;
        _cleanup_close_ int fd = -1;
        int r;

        r = image_chains(diff_ids, &chains);
        if (r < 0)
                return r;
        fd = open_directory(s->layers_fd, l->name);
        if (fd < 0)
                return fd;
        r = layer_make_again(fd, diff_ids[i], chains[i], l);
        if (r < 0)
                return r;
        s->bytes += l->bytes;
        s->inodes += l->inodes;
        l->unknown = false;
        l->damaged = faccessat(fd, "damaged", F_OK, AT_SYMLINK_NOFOLLOW) >= 0;
        return 0;
}

static int image_load(LayerStore *s, const char *name, StoredImage **ret) {
        _cleanup_(stored_image_freep) StoredImage *i = calloc(1, sizeof *i);
        _cleanup_strv_free_ char **layers = NULL, **diff_ids = NULL;
        _cleanup_free_ char *text = NULL, *expected = NULL;
        _cleanup_json_ json_t *j = NULL;
        const char *id, *manifest;
        size_t size, config_size;
        int r;

        if (!i)
                return -ENOMEM;
        i->image.n_ref = 1;
        i->image.destroy = stored_image_destroy;
        r = read_file(s->images_fd, name, STORE_FILE_MAX, &text, &size);
        if (r < 0)
                return r;
        r = json_parse_sealed(text, size, &j, NULL);
        if (r < 0)
                return r;
        id = json_get_string(j, "id");
        manifest = json_get_string(j, "manifestDigest");
        if (json_integer_value(json_object_get(j, "version")) != STORE_VERSION || !digest_is_valid(id) ||
            !digest_is_valid(manifest))
                return -EINVAL;
        expected = image_file_name(id);
        i->image.id = strdup(id);
        i->image.manifest_digest = strdup(manifest);
        if (!expected || !i->image.id || !i->image.manifest_digest)
                return -ENOMEM;
        if (!streq(expected, name) || store_find_id(s, id))
                return -EINVAL;
        i->image.size = (uint64_t) json_integer_value(json_object_get(j, "size"));
        if ((r = load_strv(j, "tags", &i->image.repo_tags)) < 0 ||
            (r = load_strv(j, "digests", &i->image.repo_digests)) < 0 || (r = load_strv(j, "layers", &layers)) < 0 ||
            (r = load_strv(j, "blobs", &i->blobs)) < 0)
                return r;
        STRV_FOREACH(b, i->blobs)
                if (!digest_is_valid(*b))
                        return -EINVAL;

        r = store_read_blob(s, id, &i->image.config_json, &config_size);
        if (r < 0)
                return r;
        r = image_config_parse(i->image.config_json, config_size, &i->image.config, &diff_ids, NULL);
        if (r < 0)
                return r;
        i->layers = calloc(MAX(strv_length(layers), (size_t) 1), sizeof *i->layers);
        if (!i->layers)
                return -ENOMEM;
        STRV_FOREACH(l, layers) {
                ImageLayer *layer = store_find_layer_by_name(s, *l);

                if (layer && layer->unknown && strv_length(diff_ids) == strv_length(layers) &&
                    learn_layer(s, layer, diff_ids, i->n_layers) >= 0)
                        log_notice("layer.json of layer %s was made again from its image", layer->name);
                if (!layer || layer->damaged) {
                        /* The uses taken so far are only taken back, nothing is removed: somebody else may need them.
                         */
                        for (size_t k = 0; k < i->n_layers; k++)
                                i->layers[k]->n_users--;
                        i->n_layers = 0;
                        return -ENOLINK;
                }
                i->layers[i->n_layers++] = layer_use(layer);
        }
        r = stored_image_list_layers(i);
        if (r < 0)
                return r;
        i->saved_usec = (uint64_t) json_integer_value(json_object_get(j, "saved"));
        for (size_t k = 0; k < s->n_images; k++)
                settle_tags(s->images[k], i);
        store_find_pinned(s, i);
        r = image_register(s, i);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(i);
        return 0;
}

static int load_one(int dir_fd, const char *name, void *userdata) {
        _cleanup_free_ char *aside = NULL;
        LayerStore *s = userdata;
        StoredImage *i;
        int r;

        if (name[0] == '.') {
                /* Of a write that was cut off: none is under way before the store is open. */
                (void) unlinkat(dir_fd, name, 0);
                return 0;
        }
        if (!endswith(name, ".json"))
                return 0;
        r = image_load(s, name, &i);
        if (r >= 0 || r == -ENOMEM)
                return MIN(r, 0);

        aside = strprintf("%s.damaged", name);
        log_warning_errno(r,
                          "Image file %s/images/%s can't be used and is set aside; the image has to be pulled again",
                          s->directory, name);
        if (aside)
                (void) layout_clear_file(s->images_fd, aside);
        if (aside && renameat(s->images_fd, name, s->images_fd, aside) < 0)
                log_warning_errno(-errno, "Cannot rename it, ignoring");
        return 0;
}

int store_load_images(LayerStore *s) {
        return directory_foreach(s->images_fd, ".", load_one, s);
}
