/* Images whoever keeps them, and the way to the store in use. */

#include "image/image.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "basic/string-util.h"
#include "image/image-config.h"

void image_done(Image *i) {
        free(i->id);
        strv_free(i->repo_tags);
        strv_free(i->repo_digests);
        strv_free(i->layers);
        free(i->manifest_digest);
        free(i->config_json);
        image_config_done(&i->config);
}

Image *image_ref(Image *i) {
        i->n_ref++;
        return i;
}

Image *image_unref(Image *i) {
        if (i && --i->n_ref == 0)
                i->destroy(i);
        return NULL;
}

ImageStore *image_store_free(ImageStore *s) {
        return s ? s->ops->free(s) : NULL;
}

int image_store_refresh(ImageStore *s, Error *error) {
        return s->ops->refresh ? s->ops->refresh(s, error) : 0;
}

const char *image_store_layers_path(const ImageStore *s) {
        return s->ops->layers_path ? s->ops->layers_path(s) : NULL;
}

int image_store_pull(ImageStore *s, const char *reference, const ImageAuth *auth, Image **ret, Error *error) {
        return s->ops->pull(s, reference, auth, ret, error);
}

int image_store_pulls(ImageStore *s, ImagePullProgress **ret, size_t *ret_n) {
        if (s->ops->pulls)
                return s->ops->pulls(s, ret, ret_n);
        *ret = NULL;
        *ret_n = 0;
        return 0;
}

void image_store_listen(ImageStore *s, ImageChangedFunc func, void *userdata) {
        s->changed = func;
        s->changed_userdata = userdata;
}

Image *image_store_find(ImageStore *s, const char *reference) {
        return s->ops->find(s, reference);
}

Image **image_store_list(ImageStore *s) {
        return s->ops->list(s);
}

int image_store_remove(ImageStore *s, const char *reference, Error *error) {
        return s->ops->remove(s, reference, error);
}

int image_store_configure(ImageStore *s, const ImageStoreConfig *config) {
        return s->ops->configure ? s->ops->configure(s, config) : 0;
}

bool image_store_has_layer(ImageStore *s, const char *name) {
        return !s->ops->has_layer || s->ops->has_layer(s, name);
}

int image_store_hold(ImageStore *s, const char *holder, char *const *layers) {
        return s->ops->hold ? s->ops->hold(s, holder, layers) : 0;
}

void image_store_release(ImageStore *s, const char *holder) {
        if (s->ops->release)
                s->ops->release(s, holder);
}

int image_store_collect(ImageStore *s, Error *error) {
        return s->ops->collect ? s->ops->collect(s, error) : 0;
}

int image_store_sync(ImageStore *s, Error *error) {
        return s->ops->sync ? s->ops->sync(s, error) : 0;
}

int image_store_fs_info(ImageStore *s, ImageFsInfo *ret, Error *error) {
        return s->ops->fs_info(s, ret, error);
}

void image_fs_info_done(ImageFsInfo *i) {
        if (i)
                i->mountpoint = mfree(i->mountpoint);
}

/* Walks up to the directory whose parent lies in another mount. */
int image_find_mountpoint(const char *path, char **ret) {
        _cleanup_free_ char *here = realpath(path, NULL);
        struct statx sx, parent;

        if (!here)
                return -errno;
        if (statx(AT_FDCWD, here, 0, STATX_MNT_ID, &sx) < 0)
                return -errno;
        while (here[1]) {
                _cleanup_free_ char *up = strdup(here);
                char *slash;

                if (!up)
                        return -ENOMEM;
                slash = strrchr(up, '/');
                slash[slash == up ? 1 : 0] = '\0';
                if (statx(AT_FDCWD, up, 0, STATX_MNT_ID, &parent) < 0)
                        return -errno;
                if (parent.stx_mnt_id != sx.stx_mnt_id || parent.stx_dev_major != sx.stx_dev_major ||
                    parent.stx_dev_minor != sx.stx_dev_minor)
                        break;
                free(here);
                here = TAKE_PTR(up);
        }
        *ret = TAKE_PTR(here);
        return 0;
}
