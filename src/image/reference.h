#pragma once
/* Image references, by the grammar of the distribution project: [domain/]path[:tag][@digest]. */

#include "basic/error.h"
#include "basic/macro.h"

typedef struct ImageReference {
        char *domain; /* "docker.io" where none was given */
        char *path;   /* "library/nginx" */
        char *tag;    /* NULL, or "latest" where neither tag nor digest was given */
        char *digest; /* "sha256:HEX" or NULL */
        char *name;   /* domain/path, the canonical name */
} ImageReference;

void image_reference_done(ImageReference *r);
#define _cleanup_image_reference_ _cleanup_(image_reference_done)

/* -EINVAL with a sentence for whatever the grammar refuses (upper case, bad port, over-long, unknown digest
 * algorithm). */
int image_reference_parse(const char *text, ImageReference *ret, Error *error);
/* "sha256:" and 64 lower-case hexadecimal digits. */
bool digest_is_valid(const char *s);
