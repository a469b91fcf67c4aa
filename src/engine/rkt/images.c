/* Images by rkt: fetched, listed, described and removed by executing it. rkt makes an image of its own of each name that is
 * fetched, with a hash of its own; what the CRI calls an image are all of those with one Docker image ID. The list is kept
 * in memory and compared with rkt's before each use. */

#include <fcntl.h>
#include <fnmatch.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "engine/native/internal.h"
#include "engine/rkt/internal.h"
#include "image/image-config.h"
#include "image/reference.h"
#include "image/registry.h"

#define IMAGES_MAX 10000U
#define AUTH_PREFIX "rkt-auth-"
#define USAGE_KEEP_USEC (60 * USEC_PER_SEC)

/* One of rkt's images. */
typedef struct RktEntry {
        char *hash; /* "sha512-…" */
        char *id;   /* "sha256:…" of its Docker config; the hash for an image that never was Docker's */
        char *tag, *digest, *manifest_digest; /* names; NULL where there is none */
        uint64_t size, imported;
        ImageConfig config;
        char *manifest;
        bool hidden; /* rkt's own: stage1 */
        bool seen;
} RktEntry;

typedef struct RktImage {
        Image image;
        char *hash; /* of the entry that containers are made of */
} RktImage;

typedef struct RktStore {
        ImageStore base;
        Rkt rkt;
        char *usage_path;
        char **pinned;
        RktEntry **entries;
        size_t n_entries;
        RktImage **images;
        size_t n_images;
        FiberLock lock;
        TreeUsage usage;
        uint64_t usage_usec; /* CLOCK_MONOTONIC, when it was measured; 0: never */
} RktStore;

static inline RktStore *rkt_store(ImageStore *s) {
        return CONTAINER_OF(s, RktStore, base);
}

static RktEntry *entry_free(RktEntry *x) {
        if (!x)
                return NULL;
        free(x->hash);
        free(x->id);
        free(x->tag);
        free(x->digest);
        free(x->manifest_digest);
        free(x->manifest);
        image_config_done(&x->config);
        free(x);
        return NULL;
}
DEFINE_TRIVIAL_CLEANUP_FUNC(RktEntry *, entry_free);

static void destroy_image(Image *i) {
        RktImage *x = CONTAINER_OF(i, RktImage, image);

        image_done(i);
        free(x->hash);
        free(x);
}

const char *rkt_image_id(const Image *i) {
        return CONTAINER_OF(i, const RktImage, image)->hash;
}

static void forget_images(RktStore *s) {
        for (size_t i = 0; i < s->n_images; i++)
                image_unref(&s->images[i]->image);
        free(s->images);
        s->images = NULL;
        s->n_images = 0;
}

static ImageStore *store_free(ImageStore *store) {
        RktStore *s = rkt_store(store);

        forget_images(s);
        for (size_t i = 0; i < s->n_entries; i++)
                entry_free(s->entries[i]);
        free(s->entries);
        strv_free(s->pinned);
        free(s->usage_path);
        rkt_done(&s->rkt);
        free(s);
        return NULL;
}

/* --- manifests --------------------------------------------------------------------------------------------------- */

/* Lists of {"name", "value"}: labels, annotations, the environment. */
static const char *list_get(const json_t *o, const char *list, const char *name) {
        const json_t *item;
        size_t i;

        json_array_foreach(json_get_array(o, list), i, item)
                if (streq(strempty(json_get_string(item, "name")), name))
                        return json_get_string(item, "value");
        return NULL;
}

static int copy_string(const char *s, char **ret) {
        if (!s)
                return 0;
        *ret = strdup(s);
        return *ret ? 0 : -ENOMEM;
}

/* An annotation with a JSON list in it. */
static int list_from_text(const char *text, char ***ret) {
        _cleanup_json_ json_t *list = NULL;

        if (isempty(text) || json_parse(text, strlen(text), &list, NULL) < 0)
                return 0;
        return json_is_array(list) ? json_to_strv(list, ret) : 0;
}

static int take_names(RktEntry *x, const json_t *manifest) {
        const char *original = list_get(manifest, "annotations", "appc.io/docker/originalname"),
                   *hash = list_get(manifest, "annotations", "appc.io/docker/manifesthash"),
                   *name = json_get_string(manifest, "name"), *version = list_get(manifest, "labels", "version");
        _cleanup_image_reference_ ImageReference r = {};

        if (isempty(original)) {
                x->tag = isempty(version) ? copy_string(name, &x->tag) < 0 ? NULL : x->tag
                                          : strprintf("%s:%s", strempty(name), version);
                return x->tag || isempty(name) ? 0 : -ENOMEM;
        }
        if (image_reference_parse(original, &r, NULL) < 0)
                return 0;
        if (r.tag && !r.digest && !(x->tag = strprintf("%s:%s", r.name, r.tag)))
                return -ENOMEM;
        if (r.digest && !(x->digest = strprintf("%s@%s", r.name, r.digest)))
                return -ENOMEM;
        if (digest_is_valid(strempty(hash))) {
                x->manifest_digest = strdup(hash);
                if (!x->digest)
                        x->digest = strprintf("%s@%s", r.name, hash);
                if (!x->manifest_digest || !x->digest)
                        return -ENOMEM;
        }
        return 0;
}

static int take_config(RktEntry *x, const json_t *manifest) {
        const json_t *app = json_get_object(manifest, "app"), *item;
        const char *user = json_get_string(app, "user"), *group = json_get_string(app, "group");
        ImageConfig *c = &x->config;
        size_t i;
        int r;

        json_array_foreach(json_get_array(app, "environment"), i, item) {
                r = strv_extendf(&c->env, "%s=%s", strempty(json_get_string(item, "name")),
                                 strempty(json_get_string(item, "value")));
                if (r < 0)
                        return r;
        }
        json_array_foreach(json_get_array(app, "mountPoints"), i, item) {
                r = strv_extend(&c->volumes, strempty(json_get_string(item, "path")));
                if (r < 0)
                        return r;
        }
        r = list_from_text(list_get(manifest, "annotations", "appc.io/docker/entrypoint"), &c->entrypoint);
        if (r >= 0)
                r = list_from_text(list_get(manifest, "annotations", "appc.io/docker/cmd"), &c->cmd);
        if (r >= 0 && !c->entrypoint && !c->cmd)
                r = json_to_strv(json_get_array(app, "exec"), &c->entrypoint);
        if (r < 0)
                return r;
        /* rkt says "0" for what the image left open. */
        if (!isempty(user) && !(streq(user, "0") && streq(strempty(group), "0"))) {
                c->user = isempty(group) || streq(group, "0") ? strdup(user) : strprintf("%s:%s", user, group);
                if (!c->user)
                        return -ENOMEM;
        }
        if (copy_string(json_get_string(app, "workingDirectory"), &c->working_dir) < 0 ||
            copy_string(list_get(manifest, "labels", "arch"), &c->architecture) < 0 ||
            copy_string(list_get(manifest, "labels", "os"), &c->os) < 0 ||
            copy_string(list_get(manifest, "annotations", "created"), &c->created) < 0)
                return -ENOMEM;
        return 0;
}

static int query_manifest(RktStore *s, RktEntry *x, Error *error) {
        _cleanup_rkt_result_ RktResult result = {};
        _cleanup_strv_free_ char **argv = NULL;
        _cleanup_json_ json_t *o = NULL;
        const char *id;
        int r;

        if (rkt_argv_new(&s->rkt, "image", NULL, &argv) < 0 || strv_extend(&argv, "cat-manifest") < 0 ||
            strv_extend(&argv, x->hash) < 0)
                return error_oom(error);
        r = rkt_call(&s->rkt, argv, 0, "read the image's manifest", &result, error);
        if (r >= 0)
                r = rkt_parse_json("image cat-manifest", result.output, result.output_size, &o, error);
        if (r < 0)
                return r;
        id = list_get(o, "annotations", "appc.io/docker/imageid");
        x->id = strdup(digest_is_valid(strempty(id)) ? id : x->hash);
        if (!x->id || take_names(x, o) < 0 || take_config(x, o) < 0)
                return error_oom(error);
        x->hidden = startswith(strempty(json_get_string(o, "name")), "coreos.com/rkt/stage1") != NULL;
        x->manifest = TAKE_PTR(result.output);
        return 0;
}

/* --- what there is ----------------------------------------------------------------------------------------------- */

static int strv_add_once(char ***l, const char *s) {
        return !s || strv_contains(*l, s) ? 0 : strv_extend(l, s);
}

/* Of several with one tag the one imported last has it. */
static bool has_its_tag(const RktStore *s, const RktEntry *x) {
        for (size_t i = 0; i < s->n_entries; i++)
                if (s->entries[i] != x && streq_ptr(s->entries[i]->tag, x->tag) &&
                    (s->entries[i]->imported > x->imported ||
                     (s->entries[i]->imported == x->imported && strcmp(s->entries[i]->hash, x->hash) > 0)))
                        return false;
        return x->tag;
}

static int config_copy(const ImageConfig *c, ImageConfig *ret) {
        if ((c->env && !(ret->env = strv_copy(c->env))) ||
            (c->entrypoint && !(ret->entrypoint = strv_copy(c->entrypoint))) ||
            (c->cmd && !(ret->cmd = strv_copy(c->cmd))) || (c->volumes && !(ret->volumes = strv_copy(c->volumes))) ||
            copy_string(c->user, &ret->user) < 0 || copy_string(c->working_dir, &ret->working_dir) < 0 ||
            copy_string(c->architecture, &ret->architecture) < 0 || copy_string(c->os, &ret->os) < 0 ||
            copy_string(c->created, &ret->created) < 0)
                return -ENOMEM;
        return 0;
}

static RktImage *find_in(RktImage *const *images, size_t n, const char *id) {
        for (size_t i = 0; i < n; i++)
                if (streq(images[i]->image.id, id))
                        return images[i];
        return NULL;
}

static int image_add_entry(RktStore *s, const RktEntry *x) {
        RktImage *i = find_in(s->images, s->n_images, x->id), **images;

        if (!i) {
                images = reallocarray(s->images, s->n_images + 1, sizeof *images);
                if (!images)
                        return -ENOMEM;
                s->images = images;
                i = calloc(1, sizeof *i);
                if (!i)
                        return -ENOMEM;
                i->image.n_ref = 1;
                i->image.destroy = destroy_image;
                s->images[s->n_images++] = i;
                i->image.size = x->size;
                i->hash = strdup(x->hash);
                i->image.id = strdup(x->id);
                if (!i->hash || !i->image.id || config_copy(&x->config, &i->image.config) < 0 ||
                    copy_string(x->manifest_digest, &i->image.manifest_digest) < 0 ||
                    copy_string(x->manifest, &i->image.config_json) < 0)
                        return -ENOMEM;
        }
        if ((has_its_tag(s, x) && strv_add_once(&i->image.repo_tags, x->tag) < 0) ||
            strv_add_once(&i->image.repo_digests, x->digest) < 0)
                return -ENOMEM;
        if (x->digest && x->manifest_digest) {
                _cleanup_free_ char *name = strprintf("%.*s@%s", (int) strcspn(x->digest, "@"), x->digest,
                                                      x->manifest_digest);

                if (!name || strv_add_once(&i->image.repo_digests, name) < 0)
                        return -ENOMEM;
        }
        return 0;
}

static void find_pinned(const RktStore *s, Image *image) {
        STRV_FOREACH(p, s->pinned) {
                STRV_FOREACH(t, image->repo_tags)
                        image->pinned = image->pinned || fnmatch(*p, *t, 0) == 0;
                STRV_FOREACH(d, image->repo_digests)
                        image->pinned = image->pinned || fnmatch(*p, *d, 0) == 0;
        }
}

static bool strv_equal(char *const *a, char *const *b) {
        size_t n = strv_length(a);

        for (size_t i = 0; i < n; i++)
                if (!strv_contains(b, a[i]))
                        return false;
        return n == strv_length(b);
}

static void tell(const RktStore *s, RktImage *image, ImageChange change) {
        if (s->base.changed)
                s->base.changed(&image->image, change, s->base.changed_userdata);
}

static void tell_changes(const RktStore *s, RktImage *const *old, size_t n_old) {
        for (size_t i = 0; i < s->n_images; i++) {
                RktImage *image = s->images[i], *before = find_in(old, n_old, image->image.id);

                if (!before)
                        tell(s, image, IMAGE_ADDED);
                else if (!strv_equal(image->image.repo_tags, before->image.repo_tags) ||
                         !strv_equal(image->image.repo_digests, before->image.repo_digests))
                        tell(s, image, IMAGE_CHANGED);
        }
        for (size_t i = 0; i < n_old; i++)
                if (!find_in(s->images, s->n_images, old[i]->image.id))
                        tell(s, old[i], IMAGE_REMOVED);
}

/* From rkt's images those of the CRI, anew. */
static int make_images(RktStore *s) {
        RktImage **old = s->images;
        size_t n_old = s->n_images;
        int r = 0;

        s->images = NULL;
        s->n_images = 0;
        for (size_t i = 0; i < s->n_entries && r >= 0; i++)
                if (!s->entries[i]->hidden)
                        r = image_add_entry(s, s->entries[i]);
        for (size_t i = 0; i < s->n_images; i++)
                find_pinned(s, &s->images[i]->image);
        if (r >= 0)
                tell_changes(s, old, n_old);
        for (size_t i = 0; i < n_old; i++)
                image_unref(&old[i]->image);
        free(old);
        return r;
}

static RktEntry *find_entry(RktStore *s, const char *hash) {
        for (size_t i = 0; i < s->n_entries; i++)
                if (streq(s->entries[i]->hash, hash))
                        return s->entries[i];
        return NULL;
}

/* 1: the list has changed. */
static int take_listed(RktStore *s, const json_t *item, Error *error) {
        const char *hash = json_get_string(item, "id");
        _cleanup_(entry_freep) RktEntry *x = NULL;
        _cleanup_error_ Error cause = ERROR_INIT;
        RktEntry *old, **entries;
        int r;

        if (!hash || !rkt_hash_is_valid(hash))
                return error_setf(error, GRPC_INTERNAL, "rkt's answer to image list has an image without a hash");
        old = find_entry(s, hash);
        if (old) {
                old->seen = true;
                return 0;
        }
        if (s->n_entries >= IMAGES_MAX)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED, "rkt has more than %u images: remove some", IMAGES_MAX);
        x = calloc(1, sizeof *x);
        if (!x)
                return error_oom(error);
        x->hash = strdup(hash);
        x->size = (uint64_t) MAX(json_integer_value(json_object_get(item, "size")), (json_int_t) 0);
        x->imported = (uint64_t) MAX(json_integer_value(json_object_get(item, "import_time")), (json_int_t) 0);
        x->seen = true;
        if (!x->hash)
                return error_oom(error);
        r = query_manifest(s, x, &cause);
        if (r == -ECANCELED || r == -ETIME || r == -ENOMEM || cause.code == GRPC_DEADLINE_EXCEEDED) {
                error_move(error, &cause);
                return r;
        }
        if (r < 0) {
                /* One that is being removed, or is damaged, must not hide the others. */
                log_warning("Image %s is left out: %s", hash, strempty(cause.message));
                return 0;
        }
        entries = reallocarray(s->entries, s->n_entries + 1, sizeof *entries);
        if (!entries)
                return error_oom(error);
        s->entries = entries;
        s->entries[s->n_entries++] = TAKE_PTR(x);
        return 1;
}

static int refresh_locked(RktStore *s, Error *error) {
        _cleanup_rkt_result_ RktResult result = {};
        _cleanup_strv_free_ char **argv = NULL;
        _cleanup_json_ json_t *list = NULL;
        const json_t *item;
        bool changed = false;
        size_t i, n = 0;
        int r;

        if (rkt_argv_new(&s->rkt, "image", NULL, &argv) < 0 || strv_extend(&argv, "list") < 0 ||
            strv_extend(&argv, "--full") < 0 || strv_extend(&argv, "--format=json") < 0 ||
            strv_extend(&argv, "--sort=importtime") < 0)
                return error_oom(error);
        r = rkt_call(&s->rkt, argv, 0, "list the images", &result, error);
        if (r >= 0)
                r = rkt_parse_json("image list", result.output, result.output_size, &list, error);
        if (r >= 0 && !json_is_array(list))
                r = error_setf(error, GRPC_INTERNAL, "rkt's answer to image list is no list");
        if (r < 0)
                return r;
        for (i = 0; i < s->n_entries; i++)
                s->entries[i]->seen = false;
        json_array_foreach(list, i, item) {
                r = take_listed(s, item, error);
                if (r < 0)
                        return r;
                changed |= r > 0;
        }
        for (i = 0; i < s->n_entries; i++)
                if (s->entries[i]->seen)
                        s->entries[n++] = s->entries[i];
                else {
                        entry_free(s->entries[i]);
                        changed = true;
                }
        s->n_entries = n;
        if (!changed)
                return 0;
        s->usage_usec = 0;
        return make_images(s) < 0 ? error_oom(error) : 0;
}

static int store_refresh(ImageStore *store, Error *error) {
        RktStore *s = rkt_store(store);
        int r;

        r = fiber_lock(&s->lock);
        if (r < 0)
                return error_set(error, r, "gave up waiting for rkt's list of images");
        _cleanup_fiber_unlock_ FiberLock *lock = &s->lock;
        return refresh_locked(s, error);
}

static Image **store_list(ImageStore *store) {
        const RktStore *s = rkt_store(store);
        Image **l = calloc(s->n_images + 1, sizeof *l);

        for (size_t i = 0; l && i < s->n_images; i++)
                l[i] = &s->images[i]->image;
        return l;
}

static Image *store_find(ImageStore *store, const char *reference) {
        const RktStore *s = rkt_store(store);
        _cleanup_image_reference_ ImageReference r = {};
        _cleanup_free_ char *name = NULL;
        const char *hex = startswith(strempty(reference), "sha256:");
        Image *found = NULL;

        if (isempty(reference))
                return NULL;
        for (size_t i = 0; i < s->n_images; i++)
                if (streq(s->images[i]->image.id, reference) || streq(s->images[i]->hash, reference))
                        return &s->images[i]->image;
        if (image_reference_parse(reference, &r, NULL) >= 0) {
                name = r.digest ? strprintf("%s@%s", r.name, r.digest) : strprintf("%s:%s", r.name, r.tag);
                for (size_t i = 0; name && i < s->n_images; i++)
                        if (strv_contains(r.digest ? s->images[i]->image.repo_digests : s->images[i]->image.repo_tags,
                                          name) ||
                            strv_contains(s->images[i]->image.repo_tags, reference))
                                return &s->images[i]->image;
        }
        if (!hex)
                hex = reference;
        if (strlen(hex) < 4 || strlen(hex) > 64 || !is_hex(hex))
                return NULL;
        for (size_t i = 0; i < s->n_images; i++) {
                const char *id = startswith(s->images[i]->image.id, "sha256:");

                if (!id || !startswith(id, hex))
                        continue;
                if (found)
                        return NULL;
                found = &s->images[i]->image;
        }
        return found;
}

/* --- credentials ------------------------------------------------------------------------------------------------- */

static int decode_basic(const char *text, char **ret) {
        size_t size = strlen(text);
        _cleanup_free_ unsigned char *out = calloc(1, size + 4);
        int n;

        if (!out)
                return -ENOMEM;
        n = size % 4 == 0 && size < 16384 ? EVP_DecodeBlock(out, (const unsigned char *) text, (int) size) : -1;
        if (n < 0 || !strchr((char *) out, ':'))
                return -EINVAL;
        *ret = (char *) TAKE_PTR(out);
        return 0;
}

static int auth_json(const ImageReference *r, const char *user, const char *password, char **ret) {
        _cleanup_json_ json_t *registries = json_array(), *o = NULL;
        static const char *const docker[] = { "registry-1.docker.io", "index.docker.io" };

        if (!registries || json_array_append_new(registries, json_string(r->domain)) < 0)
                return -ENOMEM;
        for (size_t i = 0; streq(r->domain, "docker.io") && i < ELEMENTSOF(docker); i++)
                if (json_array_append_new(registries, json_string(docker[i])) < 0)
                        return -ENOMEM;
        o = json_pack("{s:s, s:s, s:O, s:{s:s, s:s}}", "rktKind", "dockerAuth", "rktVersion", "v1", "registries", registries,
                      "credentials", "user", user, "password", password);
        *ret = o ? json_dumps(o, JSON_COMPACT) : NULL;
        return *ret ? 0 : -EINVAL;
}

static void wipe_free(char **s) {
        if (*s)
                explicit_bzero(*s, strlen(*s));
        free(*s);
}
#define _cleanup_wipe_ _cleanup_(wipe_free)

/* Writes rkt's configuration for one call: 0600 in a directory of its own, removed afterwards. *ret is NULL where there
 * is nothing to write. */
static int write_auth(RktStore *s, const ImageReference *r, const ImageAuth *auth, char **ret, Error *error) {
        _cleanup_wipe_ char *pair = NULL, *text = NULL;
        _cleanup_free_ char *directory = NULL, *file = NULL;
        const char *user = auth ? auth->username : NULL, *password = auth ? auth->password : NULL;
        int k;

        *ret = NULL;
        if (!auth)
                return 0;
        if (!isempty(auth->identity_token) || !isempty(auth->registry_token))
                return rkt_refuse(RKT_LIMIT_TOKENS, error);
        if (isempty(user) && !isempty(auth->auth)) {
                char *colon;

                k = decode_basic(auth->auth, &pair);
                if (k < 0)
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "auth.auth is no base64 of \"user:password\"");
                colon = strchr(pair, ':');
                *colon = 0;
                user = pair;
                password = colon + 1;
        }
        if (isempty(user))
                return 0;
        k = auth_json(r, user, strempty(password), &text);
        directory = strprintf("%s/" AUTH_PREFIX "XXXXXX", s->rkt.run_directory);
        if (k < 0 || !directory)
                return error_set(error, k < 0 ? k : -ENOMEM, "cannot write the credentials for rkt");
        if (!mkdtemp(directory))
                return error_set(error, -errno, "cannot make a directory for rkt's credentials");
        file = strprintf("%s/auth.d", directory);
        k = file && mkdir(file, 0700) >= 0 ? 0 : -errno;
        if (k >= 0) {
                free(file);
                file = strprintf("%s/auth.d/rktlet.json", directory);
                k = file ? write_file_atomic(AT_FDCWD, file, text, strlen(text), 0600, 0) : -ENOMEM;
        }
        if (k < 0) {
                (void) remove_tree(AT_FDCWD, directory);
                return error_set(error, k, "cannot write the credentials for rkt");
        }
        *ret = TAKE_PTR(directory);
        return 0;
}

static int remove_old_auth(int dir_fd, const char *name, void *userdata) {
        if (startswith(name, AUTH_PREFIX))
                (void) remove_tree(dir_fd, name);
        return 0;
}

/* --- fetch, remove ----------------------------------------------------------------------------------------------- */

static int fetch(RktStore *s, const ImageReference *r, const char *user_config, char **ret_hash, Error *error) {
        _cleanup_rkt_result_ RktResult result = {};
        _cleanup_strv_free_ char **argv = NULL;
        _cleanup_free_ char *what = NULL;
        int k;

        /* rkt fetches without TLS only when it is told so; on loopback there is nothing to protect. */
        k = rkt_argv_new(&s->rkt, "image", registry_authority_is_loopback(r->domain) ? "http" : NULL, &argv);
        if (k >= 0 && user_config)
                k = strv_extendf(&argv, "--user-config=%s", user_config);
        if (k >= 0)
                k = strv_extend(&argv, "fetch");
        if (k >= 0)
                k = strv_extend(&argv, "--pull-policy=update");
        if (k >= 0)
                k = strv_extend(&argv, "--full=true");
        if (k >= 0)
                k = strv_extendf(&argv, "docker://%s%s%s", r->name, r->digest ? "@" : ":", r->digest ? r->digest : r->tag);
        what = strprintf("fetch image %s", r->name);
        if (k < 0 || !what)
                return error_oom(error);
        k = rkt_call(&s->rkt, argv, s->rkt.fetch_timeout_usec, what, &result, error);
        if (k < 0)
                return k;
        result.output[strcspn(result.output, "\r\n")] = 0;
        if (!rkt_hash_is_valid(result.output)) {
                _cleanup_free_ char *shown = rkt_words(result.output);

                return error_setf(error, GRPC_INTERNAL, "cannot %s: rkt answered '%.80s', which is no hash of an image",
                                  what, strempty(shown));
        }
        *ret_hash = TAKE_PTR(result.output);
        return 0;
}

static int store_pull(ImageStore *store, const char *reference, const ImageAuth *auth, Image **ret, Error *error) {
        RktStore *s = rkt_store(store);
        _cleanup_image_reference_ ImageReference parsed = {};
        _cleanup_free_ char *user_config = NULL, *hash = NULL;
        const RktEntry *x;
        Image *image;
        int r;

        r = image_reference_parse(reference, &parsed, error);
        if (r >= 0)
                r = write_auth(s, &parsed, auth, &user_config, error);
        if (r < 0)
                return r;
        r = fetch(s, &parsed, user_config, &hash, error);
        if (user_config)
                (void) remove_tree(AT_FDCWD, user_config);
        if (r < 0)
                return r;
        r = store_refresh(store, error);
        if (r < 0)
                return r;
        x = find_entry(s, hash);
        image = x ? store_find(store, x->id) : NULL;
        if (!image)
                return error_setf(error, GRPC_INTERNAL, "rkt fetched image %s as %s, but does not list it", reference, hash);
        *ret = image_ref(image);
        return 0;
}

static int store_remove(ImageStore *store, const char *reference, Error *error) {
        RktStore *s = rkt_store(store);
        _cleanup_image_reference_ ImageReference r = {};
        _cleanup_strv_free_ char **argv = NULL;
        _cleanup_free_ char *tag = NULL;
        const Image *image;
        size_t n = 0;
        int k;

        k = store_refresh(store, error);
        if (k < 0)
                return k;
        image = store_find(store, reference);
        if (!image)
                return 0;
        if (image_reference_parse(reference, &r, NULL) >= 0 && !r.digest) {
                tag = strprintf("%s:%s", r.name, r.tag);
                if (!tag)
                        return error_oom(error);
                /* With its last tag it goes as a whole. */
                if (!strv_contains(image->repo_tags, tag) || strv_length(image->repo_tags) <= 1)
                        tag = mfree(tag);
        }
        k = rkt_argv_new(&s->rkt, "image", NULL, &argv);
        if (k >= 0)
                k = strv_extend(&argv, "rm");
        for (size_t i = 0; i < s->n_entries && k >= 0; i++) {
                const RktEntry *x = s->entries[i];

                if (!streq(x->id, image->id) || (tag && !streq_ptr(x->tag, tag)))
                        continue;
                k = strv_extend(&argv, x->hash);
                n++;
        }
        if (k < 0)
                return error_oom(error);
        if (n == 0)
                return 0;
        k = rkt_call(&s->rkt, argv, 0, "remove the image", NULL, error);
        if (k < 0)
                return k;
        return store_refresh(store, error);
}

/* --- figures ----------------------------------------------------------------------------------------------------- */

static int measure(RktStore *s, const char *path, Error *error) {
        int r;

        r = usage_by_child(s->usage_path, path, &s->usage, error);
        if (r >= 0)
                s->usage_usec = now_usec(CLOCK_MONOTONIC);
        return r;
}

static int store_fs_info(ImageStore *store, ImageFsInfo *ret, Error *error) {
        RktStore *s = rkt_store(store);
        _cleanup_free_ char *path = strprintf("%s/cas", s->rkt.directory), *mountpoint = NULL;
        int r;

        if (!path)
                return error_oom(error);
        r = store_refresh(store, error);
        if (r < 0)
                return r;
        if (s->usage_usec == 0 || now_usec(CLOCK_MONOTONIC) - s->usage_usec > USAGE_KEEP_USEC) {
                r = access(path, F_OK) >= 0 ? measure(s, path, error) : 0;
                if (r < 0)
                        return r;
        }
        r = image_find_mountpoint(s->rkt.directory, &mountpoint);
        if (r < 0)
                return error_set(error, r, "cannot find the file system of %s", s->rkt.directory);
        *ret = (ImageFsInfo) {
                .timestamp_nsec = now_usec(CLOCK_REALTIME) * NSEC_PER_USEC,
                .mountpoint = TAKE_PTR(mountpoint),
                .used_bytes = s->usage.bytes,
                .inodes_used = s->usage.inodes,
        };
        return 0;
}

static int store_configure(ImageStore *store, const ImageStoreConfig *config) {
        RktStore *s = rkt_store(store);
        char **pinned = strv_copy(config->pinned);

        if (config->pinned && config->pinned[0] && !pinned)
                return -ENOMEM;
        strv_free(s->pinned);
        s->pinned = pinned;
        for (size_t i = 0; i < s->n_images; i++) {
                s->images[i]->image.pinned = false;
                find_pinned(s, &s->images[i]->image);
        }
        return 0;
}

static const ImageStoreOps store_ops = {
        .free = store_free,
        .configure = store_configure,
        .refresh = store_refresh,
        .pull = store_pull,
        .find = store_find,
        .list = store_list,
        .remove = store_remove,
        .fs_info = store_fs_info,
};

int rkt_image_store_new(const RktConfig *config, char *const *pinned, ImageStore **ret, Error *error) {
        _cleanup_(image_store_freep) ImageStore *store = NULL;
        RktStore *s = calloc(1, sizeof *s);
        int r;

        if (!s)
                return error_oom(error);
        s->base.ops = &store_ops;
        store = &s->base;
        r = rkt_init(&s->rkt, config, error);
        if (r < 0)
                return r;
        s->usage_path = strprintf("%s/rktlet-create", config->libexec_path);
        s->pinned = strv_copy(pinned);
        if (!s->usage_path || (pinned && pinned[0] && !s->pinned))
                return error_oom(error);
        /* Credentials of a call that a dead daemon was at. */
        r = directory_foreach(AT_FDCWD, config->run_directory, remove_old_auth, NULL);
        if (r < 0 && r != -ENOENT)
                return error_set(error, r, "cannot read %s", config->run_directory);
        *ret = TAKE_PTR(store);
        return 0;
}
