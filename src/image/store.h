#pragma once
/* The inside of our own image store: what its files share. */

#include <sys/stat.h>

#include "basic/fiber.h"
#include "image/http.h"
#include "image/image-config.h"
#include "image/image.h"
#include "image/registry.h"

/* What the store keeps in memory and on disk, at most. */
#define STORE_IMAGES_MAX      10000U
#define STORE_IMAGE_NAMES_MAX 1000U
#define STORE_FILE_MAX        (1024U * 1024U)
#define STORE_VERSION         1

typedef struct LayerStore LayerStore;

typedef struct ImageLayer {
        LayerStore *store;
        unsigned n_users; /* images, holds and pulls */
        char *name;       /* below layers/ */
        char *diff_id;
        char *chain;  /* of all layers up to this one, when it took directories' modes from those below; else NULL */
        bool adopted; /* that has been done */
        bool opaque_root; /* nothing below it shows */
        bool unsynced;    /* would not survive a power cut yet */
        bool damaged;     /* stays for the containers that hold it, and is given to nobody else */
        bool unknown;     /* only in that its layer.json cannot be read */
        uint64_t bytes, inodes;
} ImageLayer;

typedef struct StoredImage {
        Image image;         /* first: Image * and StoredImage * are one address */
        LayerStore *store;   /* NULL once it was removed */
        ImageLayer **layers; /* all of them, lowest first, a use of each; image.layers leaves out what can't show */
        size_t n_layers;
        char **blobs; /* digests of the manifests and configs it needs */
        uint64_t blob_bytes;
        uint64_t saved_usec; /* CLOCK_REALTIME */
} StoredImage;

typedef struct ImageHold {
        char *holder;
        ImageLayer **layers;
        size_t n_layers;
} ImageHold;

struct LayerStore {
        ImageStore base;
        unsigned n_ref; /* the owner's, and one for each fiber under way */
        bool closing;
        sd_event *event;
        HttpClient *http;
        char *directory, *layers_path, *registries_directory, *verifiers_directory, *unpack_path;
        char **pinned;
        unsigned max_parallel_layers;
        uint64_t progress_timeout_usec;
        int fd, blobs_fd, layers_fd, images_fd, tmp_fd;

        StoredImage **images;
        size_t n_images;
        ImageLayer **layers;
        size_t n_layers;
        ImageHold **holds;
        size_t n_holds;
        uint64_t next_layer;
        uint64_t next_temporary;
        uint64_t bytes, inodes; /* of layers and images */

        struct Pull **pulls;
        size_t n_pulls;
        struct LayerFetch **fetches;
        size_t n_fetches;

        /* Trees in tmp/ that wait for their removal, and the fiber that does it. */
        char **doomed;
        bool removing;
        FiberQueue removed;
        uint64_t n_doomed, n_removed;

        sd_event_source *sync_timer;
        bool syncing;
};

static inline LayerStore *layer_store(ImageStore *s) {
        return CONTAINER_OF(s, LayerStore, base);
}

LayerStore *store_ref(LayerStore *s);
LayerStore *store_unref(LayerStore *s);
DEFINE_TRIVIAL_CLEANUP_FUNC(LayerStore *, store_unref);

/* Tells the listener. */
void store_tell(LayerStore *s, ImageChange change, Image *image);
/* What a failure to write means to whoever pulls. Returns r. */
int store_write_failed(const LayerStore *s, int r, Error *error);

/* Pointer arrays: append, and take out by value. */
int list_append(void *array, size_t *n, void *item);
void list_remove(void *array, size_t *n, const void *item);

/* store-layer.c */
int store_read_boot_id(char ret[static 64]);
/* Reads layers/. A layer that isn't whole is thrown away. */
int store_load_layers(LayerStore *s);
/* The layer for a diff ID at a place: chain is the digest of all layers up to it. */
ImageLayer *store_find_layer(LayerStore *s, const char *diff_id, const char *chain);
ImageLayer *store_find_layer_by_name(LayerStore *s, const char *name);
ImageLayer *layer_use(ImageLayer *l);
/* Gives a use back; the layer goes, in the background, with its last. Takes NULL. */
void layer_unuse(ImageLayer *l);
void layers_unuse(ImageLayer **layers, size_t n);
/* Makes the unpacked tree tmp/temporary a layer, with one use. chain is NULL unless it implies directories. */
int store_commit_layer(LayerStore *s, const char *temporary, const char *diff_id, const char *chain, uint64_t bytes,
                       uint64_t inodes, bool opaque_root, ImageLayer **ret, Error *error);
ImageLayer *layer_free(ImageLayer *l);
/* layer.json of a layer's directory. */
int layer_read(int dir_fd, ImageLayer *l, Error *error);
/* What layer.json said, made again from the tree and from the image that has the layer: chain is the digest of all
 * layers up to it. Writes the file. */
int layer_make_again(int dir_fd, const char *diff_id, const char *chain, ImageLayer *l);
/* (fiber) Gives the directories that layers[i] implies the modes of those below. */
int store_adopt_layer(LayerStore *s, ImageLayer *const *layers, size_t i, Error *error);

/* store-disk.c: work that goes on behind */
/* A name for something in tmp/. */
char *store_temporary(LayerStore *s, const char *what);
/* Removes tmp/name, whatever it is, in the background. */
void store_doom(LayerStore *s, const char *name);
/* (fiber, shielded) Waits until all that was doomed before is gone. */
void store_wait_doomed(LayerStore *s);
/* Something has changed on disk: sync it in a while, behind. */
void store_sync_later(LayerStore *s);
int layer_store_sync(ImageStore *store, Error *error);
/* Starts the unpacker's other commands and waits. (fiber) */
int store_run_helper(LayerStore *s, const char *const *argv, const int *fds, size_t n_fds, int stdin_fd, Error *error);

/* store-image.c */
void stored_image_destroy(Image *i); /* Image.destroy */
Image *layer_store_find(ImageStore *store, const char *reference);
int layer_store_remove(ImageStore *store, const char *reference, Error *error);
int store_load_images(LayerStore *s);
StoredImage *stored_image_free(StoredImage *i);
DEFINE_TRIVIAL_CLEANUP_FUNC(StoredImage *, stored_image_free);
/* Sets Image.pinned from the names it has. */
void store_find_pinned(const LayerStore *s, StoredImage *i);
StoredImage *store_find_id(LayerStore *s, const char *id);
/* Gives an image a tag (taking it from another) and a digest name, either may be NULL, and saves it. Adds it to the
 * store if it is new; the store owns it then. */
int store_name_image(LayerStore *s, StoredImage *i, const char *tag, const char *digest, Error *error);
void store_forget_image(LayerStore *s, StoredImage *i);
int store_write_blob(LayerStore *s, const char *digest, const void *data, size_t size, Error *error);
/* Reads a blob whose digest is right, else -ENOENT. */
int store_read_blob(LayerStore *s, const char *digest, char **ret, size_t *ret_size);
void store_remove_unneeded_blobs(LayerStore *s, char *const *digests);
/* image.layers from layers: what an opaque root covers and what comes twice doesn't show. */
int stored_image_list_layers(StoredImage *i);
/* The digest of all layers up to and with each one, from diff IDs (image-spec, config.md); *ret is owned by the caller. */
int image_chains(char *const *diff_ids, char (**ret)[72]);
int digest_of_bytes(const void *data, size_t size, char ret[static 72]);

/* pull-layer.c */
typedef struct LayerFetch LayerFetch;
/* (fiber) Gets a layer, sharing the work with whoever gets it as well. *ret is a use of it. */
int store_get_layer(LayerStore *s, RegistrySession *session, const char *digest, uint64_t size, const char *diff_id,
                    const char *chain, ImageLayer **ret, Error *error);
/* What has come of a layer that is being fetched; 0 as well when it is not. */
uint64_t store_fetched_bytes(LayerStore *s, const char *diff_id);
void store_cancel_fetches(LayerStore *s);
/* pull.c */
int layer_store_pull(ImageStore *store, const char *reference, const ImageAuth *auth, Image **ret, Error *error);
int layer_store_pulls(ImageStore *store, ImagePullProgress **ret, size_t *ret_n);
void store_cancel_pulls(LayerStore *s);

/* store-sums.c: layers/N/sums, what the unpacker has written, file by file: lines "CRC32 SIZE PATH" ended by NUL, "-" in
 * place of the checksum where it isn't known. No such file, or an empty one: nothing is known. */
/* Compares. 0: all is as it was, or not known; -EBADMSG with the error naming the first file that isn't. */
int layer_check_sums(int dir_fd, Error *error);
