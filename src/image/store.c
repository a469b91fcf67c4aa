/* The image store as others see it: opened, listed, held on to, measured. */

#include <fcntl.h>
#include <signal.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "basic/layout.h"
#include "basic/log.h"
#include "image/store.h"

#define PARALLEL_LAYERS_DEFAULT       3U
#define PARALLEL_LAYERS_MAX           64U
#define PROGRESS_TIMEOUT_DEFAULT_USEC (60 * USEC_PER_SEC)

int list_append(void *array, size_t *n, void *item) {
        void ***a = array, **p;

        p = reallocarray(*a, *n + 1, sizeof *p);
        if (!p)
                return -ENOMEM;
        *a = p;
        p[(*n)++] = item;
        return 0;
}

void list_remove(void *array, size_t *n, const void *item) {
        void ***a = array;

        for (size_t i = 0; i < *n; i++)
                if ((*a)[i] == item) {
                        memmove(*a + i, *a + i + 1, (*n - i - 1) * sizeof **a);
                        (*n)--;
                        return;
                }
}

int store_write_failed(const LayerStore *s, int r, Error *error) {
        if (r == -ENOSPC || r == -EDQUOT) {
                (void) error_setf(error, GRPC_RESOURCE_EXHAUSTED,
                                 "No space left on the file system of the image store %s: remove images or make it "
                                 "larger",
                                 s->directory);
                return r;
        }
        return error_set(error, r, "Cannot write to the image store %s", s->directory);
}

LayerStore *store_ref(LayerStore *s) {
        s->n_ref++;
        return s;
}

static void hold_free(ImageHold *h) {
        layers_unuse(h->layers, h->n_layers);
        free(h->holder);
        free(h);
}

LayerStore *store_unref(LayerStore *s) {
        if (!s || --s->n_ref > 0)
                return NULL;
        while (s->n_images > 0)
                store_forget_image(s, s->images[s->n_images - 1]);
        while (s->n_holds > 0)
                hold_free(s->holds[--s->n_holds]);
        while (s->n_layers > 0)
                layer_free(s->layers[--s->n_layers]);
        free(s->images);
        free(s->holds);
        free(s->layers);
        free(s->pulls);
        free(s->fetches);
        strv_free(s->doomed);
        strv_free(s->pinned);
        http_client_free(s->http);
        sd_event_source_disable_unref(s->sync_timer);
        sd_event_unref(s->event);
        safe_close(s->fd);
        safe_close(s->blobs_fd);
        safe_close(s->layers_fd);
        safe_close(s->images_fd);
        safe_close(s->tmp_fd);
        free(s->directory);
        free(s->layers_path);
        free(s->registries_directory);
        free(s->verifiers_directory);
        free(s->unpack_path);
        free(s);
        return NULL;
}

static LayerStore *layer_store_free(LayerStore *s) {
        if (!s)
                return NULL;
        s->closing = true;
        s->sync_timer = sd_event_source_disable_unref(s->sync_timer);
        store_cancel_pulls(s);
        store_cancel_fetches(s);
        return store_unref(s);
}

DEFINE_TRIVIAL_CLEANUP_FUNC(LayerStore *, layer_store_free);

static int doom_one(int dir_fd, const char *name, void *userdata) {
        store_doom(userdata, name);
        return 0;
}

static int open_subdirectory(LayerStore *s, const char *name, int *ret_fd, Error *error) {
        int fd, r;

        r = layout_make_directory(s->fd, name, 0700);
        if (r < 0)
                return error_set(error, r, "Cannot make %s/%s", s->directory, name);
        if (r > 0)
                log_warning("%s/%s was no directory and has been moved aside", s->directory, name);
        fd = open_directory(s->fd, name);
        if (fd < 0)
                return error_set(error, fd, "Cannot open %s/%s", s->directory, name);
        *ret_fd = fd;
        return 0;
}

static const char *layer_store_layers_path(const ImageStore *store) {
        return CONTAINER_OF(store, const LayerStore, base)->layers_path;
}

static Image **layer_store_list(ImageStore *store) {
        const LayerStore *s = layer_store(store);
        Image **l = calloc(s->n_images + 1, sizeof *l);

        for (size_t i = 0; l && i < s->n_images; i++)
                l[i] = &s->images[i]->image;
        return l;
}

static ImageHold *find_hold(LayerStore *s, const char *holder) {
        for (size_t i = 0; i < s->n_holds; i++)
                if (streq(s->holds[i]->holder, holder))
                        return s->holds[i];
        return NULL;
}

static bool layer_store_has_layer(ImageStore *store, const char *name) {
        return store_find_layer_by_name(layer_store(store), name);
}

static int layer_store_hold(ImageStore *store, const char *holder, char *const *layers) {
        LayerStore *s = layer_store(store);
        ImageHold *h, *old = find_hold(s, holder);
        int r;

        h = calloc(1, sizeof *h);
        if (!h)
                return -ENOMEM;
        h->holder = strdup(holder);
        h->layers = calloc(strv_length(layers) + 1, sizeof *h->layers);
        r = h->holder && h->layers ? 0 : -ENOMEM;
        STRV_FOREACH(name, layers) {
                ImageLayer *l = r >= 0 ? store_find_layer_by_name(s, *name) : NULL;

                if (l)
                        h->layers[h->n_layers++] = layer_use(l);
                else if (r >= 0)
                        r = -ENOENT;
        }
        if (r >= 0)
                r = list_append(&s->holds, &s->n_holds, h);
        if (r < 0) {
                /* Nothing may go that was there before: right after a start layers have no other user yet. */
                for (size_t i = 0; i < h->n_layers; i++)
                        h->layers[i]->n_users--;
                h->n_layers = 0;
                hold_free(h);
                return r;
        }
        if (old) {
                list_remove(&s->holds, &s->n_holds, old);
                hold_free(old);
        }
        return 0;
}

static void layer_store_release(ImageStore *store, const char *holder) {
        LayerStore *s = layer_store(store);
        ImageHold *h = find_hold(s, holder);

        if (!h)
                return;
        list_remove(&s->holds, &s->n_holds, h);
        hold_free(h);
}

static int collect_blob(int dir_fd, const char *name, void *userdata) {
        LayerStore *s = userdata;
        _cleanup_free_ char *digest = strprintf("sha256:%s", name);

        /* A pull under way may have written it just now. */
        if (!digest || s->n_pulls > 0)
                return 0;
        if (!digest_is_valid(digest)) {
                (void) unlinkat(dir_fd, name, 0);
                return 0;
        }
        store_remove_unneeded_blobs(s, (char *const[]){digest, NULL});
        return 0;
}

static int layer_store_collect(ImageStore *store, Error *error) {
        LayerStore *s = layer_store(store);
        int r;

        for (size_t i = s->n_layers; i > 0; i--)
                if (s->layers[i - 1]->n_users == 0)
                        layer_unuse(layer_use(s->layers[i - 1]));
        KILL_POINT("image-collect.layers");
        r = directory_foreach(s->blobs_fd, ".", collect_blob, s);
        if (r < 0)
                return error_set(error, r, "Cannot read %s/blobs", s->directory);
        KILL_POINT("image-collect.blobs");
        if (fiber_current())
                store_wait_doomed(s);
        return 0;
}

static int layer_store_fs_info(ImageStore *store, ImageFsInfo *ret, Error *error) {
        LayerStore *s = layer_store(store);
        struct timespec ts;
        char *mountpoint;
        int r;

        r = image_find_mountpoint(s->directory, &mountpoint);
        if (r < 0)
                return error_set(error, r, "Cannot find the file system of %s", s->directory);
        (void) clock_gettime(CLOCK_REALTIME, &ts);
        *ret = (ImageFsInfo){
                        .timestamp_nsec = (uint64_t) ts.tv_sec * NSEC_PER_SEC + (uint64_t) ts.tv_nsec,
                        .mountpoint = mountpoint,
                        .used_bytes = s->bytes,
                        .inodes_used = s->inodes,
        };
        return 0;
}

static ImageStore *free_store(ImageStore *store) {
        return layer_store_free(layer_store(store)), NULL;
}

static int layer_store_configure(ImageStore *store, const ImageStoreConfig *config) {
        _cleanup_free_ char *registries = NULL, *verifiers = NULL;
        LayerStore *s = layer_store(store);
        char **pinned;

        if (config->registries_directory && !(registries = strdup(config->registries_directory)))
                return -ENOMEM;
        if (config->verifiers_directory && !(verifiers = strdup(config->verifiers_directory)))
                return -ENOMEM;
        pinned = strv_copy(config->pinned);
        if (config->pinned && config->pinned[0] && !pinned)
                return -ENOMEM;
        free(s->registries_directory);
        s->registries_directory = TAKE_PTR(registries);
        free(s->verifiers_directory);
        s->verifiers_directory = TAKE_PTR(verifiers);
        strv_free(s->pinned);
        s->pinned = pinned;
        s->max_parallel_layers =
                        MIN(config->max_parallel_layers ? config->max_parallel_layers : PARALLEL_LAYERS_DEFAULT,
                            PARALLEL_LAYERS_MAX);
        s->progress_timeout_usec =
                        config->progress_timeout_usec ? config->progress_timeout_usec : PROGRESS_TIMEOUT_DEFAULT_USEC;
        for (size_t i = 0; i < s->n_images; i++)
                store_find_pinned(s, s->images[i]);
        return 0;
}

static const ImageStoreOps layer_store_ops = {
        .free = free_store,
        .configure = layer_store_configure,
        .layers_path = layer_store_layers_path,
        .pull = layer_store_pull,
        .pulls = layer_store_pulls,
        .find = layer_store_find,
        .list = layer_store_list,
        .remove = layer_store_remove,
        .has_layer = layer_store_has_layer,
        .hold = layer_store_hold,
        .release = layer_store_release,
        .collect = layer_store_collect,
        .sync = layer_store_sync,
        .fs_info = layer_store_fs_info,
};

int image_store_open(sd_event *event, const ImageStoreConfig *config, ImageStore **ret, Error *error) {
        _cleanup_(layer_store_freep) LayerStore *s = calloc(1, sizeof *s);
        struct sigaction sa = {};
        int r;

        if (!s)
                return error_oom(error);
        s->base.ops = &layer_store_ops;
        s->n_ref = 1;
        s->fd = s->blobs_fd = s->layers_fd = s->images_fd = s->tmp_fd = -1;
        s->next_layer = 1;
        s->event = sd_event_ref(event);
        s->directory = strdup(config->directory);
        s->layers_path = strprintf("%s/layers", config->directory);
        s->unpack_path = strdup(config->unpack_path);
        if (!s->directory || !s->layers_path || !s->unpack_path || layer_store_configure(&s->base, config) < 0)
                return error_oom(error);
        r = http_client_new(event, &s->http);
        if (r < 0)
                return error_set(error, r, "Cannot set up the HTTP client");

        /* An unpacker that ends early must not end us; what is set otherwise stays. */
        if (sigaction(SIGPIPE, NULL, &sa) >= 0 && sa.sa_handler == SIG_DFL)
                (void) signal(SIGPIPE, SIG_IGN);

        r = mkdir_parents(AT_FDCWD, s->directory, 0700);
        if (r < 0)
                return error_set(error, r, "Cannot make %s", s->directory);
        s->fd = open_directory(AT_FDCWD, s->directory);
        if (s->fd < 0)
                return error_set(error, s->fd, "Cannot open %s", s->directory);
        r = layout_open(s->fd, s->directory, &(Layout){.version = STORE_VERSION}, error);
        if (r < 0)
                return r;
        if ((r = open_subdirectory(s, "blobs", &s->blobs_fd, error)) < 0)
                return r;
        s->blobs_fd = safe_close(s->blobs_fd);
        if ((r = open_subdirectory(s, "blobs/sha256", &s->blobs_fd, error)) < 0 ||
            (r = open_subdirectory(s, "layers", &s->layers_fd, error)) < 0 ||
            (r = open_subdirectory(s, "images", &s->images_fd, error)) < 0 ||
            (r = open_subdirectory(s, "tmp", &s->tmp_fd, error)) < 0)
                return r;

        /* Names of this run are not those of the last, whose remains are still there. */
        s->next_temporary = now_usec(CLOCK_REALTIME);
        r = directory_foreach(s->tmp_fd, ".", doom_one, s);
        if (r < 0)
                return error_set(error, r, "Cannot read %s/tmp", s->directory);
        r = store_load_layers(s);
        if (r < 0)
                return error_set(error, r, "Cannot read %s", s->layers_path);
        r = store_load_images(s);
        if (r < 0)
                return error_set(error, r, "Cannot read %s/images", s->directory);
        *ret = &TAKE_PTR(s)->base;
        return 0;
}
