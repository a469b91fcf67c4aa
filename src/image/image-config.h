#pragma once
/* The config blob of an image (OCI image spec, config.md; Docker's is the same where it matters). */

#include "image/image.h"
#include "image/manifest.h"

void image_config_done(ImageConfig *c);
#define _cleanup_image_config_ _cleanup_(image_config_done)

/* Reads a config blob. *ret_diff_ids are its rootfs.diff_ids, each checked by digest_is_valid(); may be NULL. */
int image_config_parse(const char *text, size_t size, ImageConfig *ret, char ***ret_diff_ids, Error *error);
