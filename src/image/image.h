#pragma once
/* Images, and what keeps them. ImageStore is the interface that cri/, bus/ and manager/ use; whoever runs the pods
 * decides what is behind it: our own store, below, or that of rkt (engine/rkt/).
 *
 * Our own: pulled from registries into a content-addressed store, unpacked once a layer, shared by all containers. On
 * disk, below the store's directory (mode 0700):
 *   blobs/sha256/HEX   manifests, configs (layers' compressed blobs are removed once unpacked)
 *   layers/N/          one unpacked layer, N a short number, so that overlayfs' option string stays short
 *   layers/N/fs        its tree; whiteouts as overlayfs has them (character device 0/0, trusted.overlay.opaque)
 *   images/HEX.json    one file an image: id, tags, digests, layers, size
 *   tmp/               what is under way; emptied at start
 *
 * Functions marked (fiber) wait. */

#include <systemd/sd-event.h>

#include "basic/check.h"
#include "basic/error.h"
#include "basic/macro.h"

typedef struct ImageStore ImageStore;

/* What a container takes from the image's config (OCI image spec, config.md). All owned by the image. */
typedef struct ImageConfig {
        char **env;
        char **entrypoint;
        char **cmd;
        char *working_dir;
        char *user;                        /* as written: "", "1000", "www-data", "0:0", … */
        char *stop_signal;                 /* as written: "SIGQUIT", "3", or NULL */
        char **volumes;                    /* paths */
        char **label_keys, **label_values; /* parallel lists */
        char *architecture, *os, *variant, *created;
} ImageConfig;

typedef struct Image {
        unsigned n_ref;
        void (*destroy)(struct Image *i); /* of the store it is from, when its last reference goes */
        char *id;            /* "sha256:HEX" of the config blob; the one ID used everywhere */
        char **repo_tags;    /* "registry/name:tag", canonical */
        char **repo_digests; /* "registry/name@sha256:HEX" */
        char *manifest_digest;
        uint64_t size; /* bytes: compressed layers + config, as the peers count it */
        bool pinned;
        ImageConfig config;
        char **layers;     /* names below layers/, lowest first */
        char *config_json; /* the config blob's text, for verbose status */
} Image;

/* Frees what the fields hold, not the image. For Image.destroy. */
void image_done(Image *i);
Image *image_ref(Image *i);
Image *image_unref(Image *i);
DEFINE_TRIVIAL_CLEANUP_FUNC(Image *, image_unref);

typedef struct ImageAuth {
        const char *username, *password;
        const char *auth; /* base64 of user:password */
        const char *server_address;
        const char *identity_token; /* refresh token for the token server */
        const char *registry_token; /* bearer token, used as it is */
} ImageAuth;

typedef struct ImageFsInfo {
        uint64_t timestamp_nsec; /* CLOCK_REALTIME */
        char *mountpoint;        /* of the file system that holds the store */
        uint64_t used_bytes, inodes_used;
} ImageFsInfo;
void image_fs_info_done(ImageFsInfo *i);
/* The directory where the file system of path is mounted; owned by the caller. */
int image_find_mountpoint(const char *path, char **ret);

/* What a pull that is under way has come to. */
typedef struct ImagePullProgress {
        const char *name;          /* "registry/name:tag" or "registry/name@digest"; borrowed until the next wait */
        uint64_t fetched, size;    /* bytes, compressed; size 0: not known yet */
        size_t n_done, n_layers;
} ImagePullProgress;

typedef enum ImageChange {
        IMAGE_ADDED,
        IMAGE_CHANGED,
        IMAGE_REMOVED,
} ImageChange;
typedef void (*ImageChangedFunc)(Image *image, ImageChange change, void *userdata);

typedef struct ImageStoreConfig {
        const char *directory;            /* /var/lib/rktlet/image */
        const char *registries_directory; /* /etc/rktlet/registries.d: HOST/hosts.conf drop-ins, may be missing */
        const char *verifiers_directory;  /* /etc/rktlet/image-verifiers.d: programs, see verify.h; may be missing; NULL: none */
        const char *unpack_path;          /* the sandboxed unpacker, an absolute path */
        char *const *pinned;              /* reference globs of images never to be removed by the kubelet */
        unsigned max_parallel_layers;     /* 0: 3 */
        uint64_t progress_timeout_usec;   /* a transfer without a byte for so long is ended; 0: 60 s */
} ImageStoreConfig;

/* What a store does, see the functions of these names below. NULL: there is nothing to do. */
typedef struct ImageStoreOps {
        ImageStore *(*free)(ImageStore *s);
        int (*configure)(ImageStore *s, const ImageStoreConfig *config);
        int (*refresh)(ImageStore *s, Error *error);
        const char *(*layers_path)(const ImageStore *s);
        int (*pull)(ImageStore *s, const char *reference, const ImageAuth *auth, Image **ret, Error *error);
        int (*pulls)(ImageStore *s, ImagePullProgress **ret, size_t *ret_n);
        Image *(*find)(ImageStore *s, const char *reference);
        Image **(*list)(ImageStore *s);
        int (*remove)(ImageStore *s, const char *reference, Error *error);
        bool (*has_layer)(ImageStore *s, const char *name);
        int (*hold)(ImageStore *s, const char *holder, char *const *layers);
        void (*release)(ImageStore *s, const char *holder);
        int (*collect)(ImageStore *s, Error *error);
        int (*sync)(ImageStore *s, Error *error);
        int (*fs_info)(ImageStore *s, ImageFsInfo *ret, Error *error);
} ImageStoreOps;

struct ImageStore {
        const ImageStoreOps *ops;
        ImageChangedFunc changed; /* the listener; may be NULL */
        void *changed_userdata;
};

/* Opens or makes the store, empties tmp/, loads all images. A damaged image file is set aside with a log line, never
 * fatal. Works on a full disk. */
int image_store_open(sd_event *event, const ImageStoreConfig *config, ImageStore **ret, Error *error);

ImageStore *image_store_free(ImageStore *s);
DEFINE_TRIVIAL_CLEANUP_FUNC(ImageStore *, image_store_free);

/* Takes over what can change while it is open: the two directories of settings, pinned, max_parallel_layers,
 * progress_timeout_usec.
 * Pulls under way go on as they were begun. -ENOMEM: all is as before. */
int image_store_configure(ImageStore *s, const ImageStoreConfig *config);

/* (fiber) Looks what images there are, where others may change that behind our back. Our own store always knows. */
int image_store_refresh(ImageStore *s, Error *error);

/* The absolute path of layers/, in which Image.layers are names (each with fs/ below); NULL where images have none. */
const char *image_store_layers_path(const ImageStore *s);

/* (fiber) Pulls reference ("nginx", "host:5000/a/b:tag", "a@sha256:…"). The same image asked twice at once is pulled
 * once. auth may be NULL. On any failure, and on cancellation, nothing is left. *ret is a new reference. */
int image_store_pull(ImageStore *s, const char *reference, const ImageAuth *auth, Image **ret, Error *error);

/* All pulls under way, owned by the caller (free); *ret_n of them. Doesn't wait. */
int image_store_pulls(ImageStore *s, ImagePullProgress **ret, size_t *ret_n);

/* Tells one listener of each image that came, got or lost a name, or is gone (it is there for the call). Called in
 * whatever context it happens; must not wait. func NULL: no more. */
void image_store_listen(ImageStore *s, ImageChangedFunc func, void *userdata);

/* By ID ("sha256:…", bare hex, unambiguous prefix of at least 4 digits... the peers' rules), tag or digest reference.
 * Borrowed; NULL when unknown. */
Image *image_store_find(ImageStore *s, const char *reference);
/* All images; the array is NULL-terminated, owned by the caller (free), the images are borrowed. */
Image **image_store_list(ImageStore *s);
/* (fiber) By tag: takes the tag away, and the image with its last one; by ID: takes the image away with all its names.
 * Unknown: 0. Layers that a container holds stay until it is released. */
int image_store_remove(ImageStore *s, const char *reference, Error *error);

/* Whether there is such a layer; true where the store has none of its own. */
bool image_store_has_layer(ImageStore *s, const char *name);
/* A container keeps the layers of its image: counted by name in memory; the manager repeats its holds after a restart,
 * and then calls image_store_collect() (fiber) once, which removes layers and blobs nobody needs. Releasing the last
 * hold removes the layers in the background. */
int image_store_hold(ImageStore *s, const char *holder, char *const *layers);
void image_store_release(ImageStore *s, const char *holder);
int image_store_collect(ImageStore *s, Error *error);

/* (fiber) What was pulled a moment ago survives from now on also a sudden end of the machine, which it does anyway a few
 * seconds later. */
int image_store_sync(ImageStore *s, Error *error);

/* (fiber) What images take on disk: sums kept as layers come and go, no scan. */
int image_store_fs_info(ImageStore *s, ImageFsInfo *ret, Error *error);

/* The checker of such a store: reads everything, mends what can be mended when it is told to. held: the layers that
 * containers have, which must stay; sure: there are no others. The store must not be open then. -errno with the error set
 * when the checking itself failed. */
int image_store_check(const char *directory, char *const *held, bool sure, Check *check, Error *error);
