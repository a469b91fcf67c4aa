#pragma once
/* Image manifests and indexes: Docker's schema 2 and OCI's, told apart strictly, so that no two readers of one
 * document can see two different images in it (GHSA-5j5w-g665-5m35). */

#include "basic/error.h"
#include "basic/macro.h"

/* What a registry may send at most as a manifest, index or config. */
#define MANIFEST_SIZE_MAX (4U * 1024U * 1024U)
#define CONFIG_SIZE_MAX   (4U * 1024U * 1024U)
/* overlayfs takes 500 lower layers; its option string, a page, has room for these. */
#define MANIFEST_LAYERS_MAX 256U
/* One layer's compressed bytes: what no image comes near. */
#define LAYER_SIZE_MAX (UINT64_C(1) << 40)

typedef struct ImageDescriptor {
        char *media_type;
        char *digest; /* checked by digest_is_valid() */
        uint64_t size;
} ImageDescriptor;

typedef struct ImagePlatform {
        char os[16], architecture[16], variant[8];
} ImagePlatform;

typedef struct ImageManifest {
        bool is_index;
        /* of an index: the manifest or index chosen for the platform */
        ImageDescriptor chosen;
        /* of an image */
        ImageDescriptor config;
        ImageDescriptor *layers;
        size_t n_layers;
} ImageManifest;

void image_manifest_done(ImageManifest *m);
#define _cleanup_image_manifest_ _cleanup_(image_manifest_done)

/* The media types asked for, as the value of an Accept header. */
extern const char manifest_accept[];

/* What this machine runs. */
void image_platform_host(ImagePlatform *ret);

/* content_type is the response's header, NULL when there was none; expected_type the descriptor's media type when the
 * document was reached through one, else NULL. Errors: DataLoss for documents that contradict themselves or their
 * transport, NotFound when an index has nothing for the platform, Unimplemented for old or foreign kinds. */
int image_manifest_parse(const char *text, size_t size, const char *content_type, const char *expected_type,
                         const ImagePlatform *platform, ImageManifest *ret, Error *error);

/* Whether an image of that platform runs on this host ("" stands for unknown and runs); lower is better, negative: no.
 */
int image_platform_rank(const ImagePlatform *host, const char *os, const char *architecture, const char *variant);
