#pragma once
/* Files of the Container Device Interface: read, and checked as its specification wants it. */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"

/* Understands a file's text, JSON or YAML (.yaml); *ret is a new reference, an object with a valid version and kind, of
 * known members with the right types only. Error: FailedPrecondition, without the file's name. */
int cdi_spec_parse(const char *text, size_t size, bool yaml, json_t **ret, Error *error);

/* "vendor.example/class", and the name of a device of it. */
bool cdi_kind_is_valid(const char *kind);
bool cdi_name_is_valid(const char *name);

/* YAML as JSON: mappings, sequences and scalars; anchors, tags and more than one document are refused. */
int yaml_to_json(const char *text, size_t size, json_t **ret, Error *error);
