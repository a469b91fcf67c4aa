/* Images: ListImages, StreamImages, ImageStatus, PullImage, RemoveImage, ImageFsInfo. */

#include <sys/stat.h>
#include <systemd/sd-event.h>

#include "basic/log.h"
#include "cri/describe.h"
#include "cri/info.h"
#include "cri/internal.h"
#include "cri/stream.h"
#include "image/reference.h"

#define PROGRESS_USEC (5 * USEC_PER_SEC)

static int image_required(const runtime_v1_ImageSpec *spec, bool given, Error *error) {
        if (given && !isempty(spec->image))
                return 0;
        return error_setf(error, GRPC_INVALID_ARGUMENT, "image.image is empty: give a reference or an ID");
}

/* All images, or the one the filter names; NULL-terminated, in the arena or the caller's to free. */
static int images_listed(CriCall *c, bool has_filter, const runtime_v1_ImageFilter *filter, Image ***ret,
                         Error *error) {
        Image **images, *one;
        int r;

        r = image_store_refresh(c->manager->images, error);
        if (r < 0)
                return r;
        if (!has_filter || !filter->has_image || isempty(filter->image.image))
                images = image_store_list(c->manager->images);
        else {
                one = image_store_find(c->manager->images, filter->image.image);
                images = calloc(2, sizeof(Image *));
                if (images)
                        images[0] = one;
        }
        if (!images)
                return error_oom(error);
        *ret = images;
        return 0;
}

static bool put_image(pb_ostream_t *stream, const pb_field_iter_t *field, const Image *i) {
        _cleanup_arena_ Arena arena = ARENA_INIT;
        runtime_v1_Image item;

        return image_describe(i, &arena, &item) >= 0 && message_put(stream, field, runtime_v1_Image_fields, &item);
}

static bool put_images(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        for (Image *const *i = *arg; *i; i++)
                if (!put_image(stream, field, *i))
                        return false;
        return true;
}

int cri_list_images(CriCall *c, Error *error) {
        const runtime_v1_ListImagesRequest *request = c->request;
        runtime_v1_ListImagesResponse response = { .images.funcs.encode = put_images };
        _cleanup_free_ Image **images = NULL;
        int r;

        r = images_listed(c, request->has_filter, &request->filter, &images, error);
        if (r < 0)
                return r;
        response.images.arg = images;
        return CRI_REPLY(c, ListImagesResponse, &response, error);
}

static bool put_image_batch(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        const StreamBatch *batch = *arg;

        for (size_t i = 0; i < batch->n; i++)
                if (!put_image(stream, field, batch->items[i]))
                        return false;
        return true;
}

static int send_image_batch(CriCall *c, StreamBatch *batch, Error *error) {
        runtime_v1_StreamImagesResponse response = {
                .images = { .funcs.encode = put_image_batch, .arg = batch },
        };

        return CRI_REPLY(c, StreamImagesResponse, &response, error);
}

static void unref_image(void *i) {
        image_unref(i);
}

int cri_stream_images(CriCall *c, Error *error) {
        const runtime_v1_StreamImagesRequest *request = c->request;
        _cleanup_(stream_list_done) StreamList list = { .unref = unref_image };
        _cleanup_free_ Image **images = NULL;
        int r;

        r = images_listed(c, request->has_filter, &request->filter, &images, error);
        if (r < 0)
                return r;
        for (Image **i = images; *i; i++) {
                r = stream_list_add(&list, *i);
                if (r < 0)
                        return error_oom(error);
                image_ref(*i);
        }
        return stream_list_send(c, &list, send_image_batch, error);
}

int cri_image_status(CriCall *c, Error *error) {
        const runtime_v1_ImageStatusRequest *request = c->request;
        runtime_v1_ImageStatusResponse response = {};
        runtime_v1_ImageStatusResponse_InfoEntry info = {};
        const Image *i;
        int r;

        r = image_required(&request->image, request->has_image, error);
        if (r < 0)
                return r;
        r = image_store_refresh(c->manager->images, error);
        if (r < 0)
                return r;
        i = image_store_find(c->manager->images, request->image.image);
        if (i) {
                response.has_image = true;
                r = image_describe(i, &c->arena, &response.image);
                if (r < 0)
                        return error_oom(error);
                /* The handler that was asked for has it. */
                response.image.spec.runtime_handler = request->image.runtime_handler;
        }
        if (i && request->verbose) {
                r = image_info(i, &c->arena, &info, error);
                if (r < 0)
                        return r;
                response.info = &info;
                response.info_count = 1;
        }
        return CRI_REPLY(c, ImageStatusResponse, &response, error);
}

/* The same images serve all handlers, but one that isn't there is a mistake. */
static int check_handler(CriCall *c, const runtime_v1_ImageSpec *spec, Error *error) {
        Engine *e = c->manager->engine;

        if (isempty(spec->runtime_handler) || !e || !e->ops->handler_check)
                return 0;
        return e->ops->handler_check(e, spec->runtime_handler, error);
}

/* A pull that takes long says how far it is. */
typedef struct PullProgress {
        ImageStore *images;
        char *name; /* as the store calls it */
        sd_event_source *timer;
} PullProgress;

static void pull_progress_done(PullProgress *p) {
        sd_event_source_disable_unref(p->timer);
        free(p->name);
}

static int log_progress(sd_event_source *timer, uint64_t usec, void *userdata) {
        PullProgress *p = userdata;
        _cleanup_free_ ImagePullProgress *pulls = NULL;
        size_t n = 0;

        if (image_store_pulls(p->images, &pulls, &n) < 0)
                n = 0;
        for (size_t i = 0; i < n; i++)
                if (streq_ptr(pulls[i].name, p->name)) {
                        log_info("PullImage, image %s: %llu of %llu KiB, %zu of %zu layers", p->name,
                                 (unsigned long long) (pulls[i].fetched / 1024), (unsigned long long) (pulls[i].size / 1024),
                                 pulls[i].n_done, pulls[i].n_layers);
                        break;
                }
        (void) sd_event_source_set_time_relative(timer, PROGRESS_USEC);
        (void) sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
        return 0;
}

/* Whatever fails here costs a line in the log. */
static void pull_progress_begin(PullProgress *p, CriCall *c, const char *reference) {
        _cleanup_image_reference_ ImageReference r = {};

        p->images = c->manager->images;
        if (!c->manager->event || image_reference_parse(reference, &r, NULL) < 0)
                return;
        p->name = r.digest ? strprintf("%s@%s", r.name, r.digest) : strprintf("%s:%s", r.name, r.tag);
        if (p->name)
                (void) sd_event_add_time_relative(c->manager->event, &p->timer, CLOCK_MONOTONIC, PROGRESS_USEC, 0,
                                                  log_progress, p);
}

static void wipe(char *s) {
        if (s)
                explicit_bzero(s, strlen(s));
}

int cri_pull_image(CriCall *c, Error *error) {
        runtime_v1_PullImageRequest *request = c->request;
        runtime_v1_AuthConfig *a = &request->auth;
        runtime_v1_PullImageResponse response = {};
        _cleanup_(image_unrefp) Image *image = NULL;
        _cleanup_(pull_progress_done) PullProgress progress = {};
        ImageAuth auth = {
                .username = a->username,
                .password = a->password,
                .auth = a->auth,
                .server_address = a->server_address,
                .identity_token = a->identity_token,
                .registry_token = a->registry_token,
        };
        int r;

        r = image_required(&request->image, request->has_image, error);
        if (r >= 0)
                r = check_handler(c, &request->image, error);
        if (r < 0)
                return r;
        c->subject = arena_printf(&c->arena, "image %s", request->image.image);
        pull_progress_begin(&progress, c, request->image.image);
        r = image_store_pull(c->manager->images, request->image.image, request->has_auth ? &auth : NULL, &image,
                             error);
        wipe(a->password);
        wipe(a->auth);
        wipe(a->identity_token);
        wipe(a->registry_token);
        if (r < 0)
                return r;
        response.image_ref = image->id;
        return CRI_REPLY(c, PullImageResponse, &response, error);
}

int cri_remove_image(CriCall *c, Error *error) {
        const runtime_v1_RemoveImageRequest *request = c->request;
        runtime_v1_RemoveImageResponse response = {};
        int r;

        r = image_required(&request->image, request->has_image, error);
        if (r < 0)
                return r;
        c->subject = arena_printf(&c->arena, "image %s", request->image.image);
        r = image_store_remove(c->manager->images, request->image.image, error);
        if (r < 0)
                return r;
        return CRI_REPLY(c, RemoveImageResponse, &response, error);
}

/* The writable layers, once all of them were measured; the kubelet takes a missing entry for "where the images
 * are". */
static int containers_fs_usage(CriCall *c, const char *images_mountpoint, runtime_v1_FilesystemUsage *ret,
                               Error *error) {
        struct stat images, containers;
        uint64_t timestamp_nsec;
        TreeUsage sum;
        char *path;

        manager_measure_layers(c->manager, /* pod= */ NULL, /* c= */ NULL);
        if (!manager_sum_layers(c->manager, &sum, &timestamp_nsec))
                return 0;
        path = arena_printf(&c->arena, "%s/containers", c->manager->config.state_directory);
        if (!path)
                return error_oom(error);
        *ret = (runtime_v1_FilesystemUsage) {
                .timestamp = (int64_t) timestamp_nsec,
                .has_fs_id = true,
                .fs_id.mountpoint = path,
                .has_used_bytes = true,
                .used_bytes.value = sum.bytes,
                .has_inodes_used = true,
                .inodes_used.value = sum.inodes,
        };
        /* On one file system they must have one name. */
        if (images_mountpoint && stat(images_mountpoint, &images) >= 0 && stat(path, &containers) >= 0 &&
            images.st_dev == containers.st_dev)
                ret->fs_id.mountpoint = (char *) images_mountpoint;
        return 1;
}

int cri_image_fs_info(CriCall *c, Error *error) {
        _cleanup_(image_fs_info_done) ImageFsInfo info = {};
        runtime_v1_FilesystemUsage usage = {}, containers = {};
        runtime_v1_ImageFsInfoResponse response = { .image_filesystems = &usage, .image_filesystems_count = 1 };
        int r;

        r = image_store_fs_info(c->manager->images, &info, error);
        if (r < 0)
                return r;
        usage = (runtime_v1_FilesystemUsage) {
                .timestamp = (int64_t) info.timestamp_nsec,
                .has_fs_id = true,
                .fs_id.mountpoint = info.mountpoint,
                .has_used_bytes = true,
                .used_bytes.value = info.used_bytes,
                .has_inodes_used = true,
                .inodes_used.value = info.inodes_used,
        };
        r = containers_fs_usage(c, info.mountpoint, &containers, error);
        if (r < 0)
                return r;
        response.container_filesystems = &containers;
        response.container_filesystems_count = (pb_size_t) r;
        return CRI_REPLY(c, ImageFsInfoResponse, &response, error);
}
