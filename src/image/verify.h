#pragma once
/* Programs of the administrator that say whether an image may be pulled. */

#include "basic/error.h"
#include "basic/macro.h"
#include "image/registry.h"

/* Whether there is any; false where the folder is missing. */
bool image_has_verifiers(const char *directory);
/* (fiber) Asks each of them, in the order of their names, about the manifest or index that a reference means now. They are
 * executed as containerd executes its own: "-name REFERENCE -digest DIGEST -stdin-media-type TYPE", with the OCI descriptor
 * on standard input; to exit with 0 is to agree, and standard output says why not. PermissionDenied when one doesn't, or
 * can't be asked. */
int image_verify(const char *directory, const char *name, const RegistryDocument *document, Error *error);
