#pragma once
/* The networks of the configuration folders (CNI specification, section 1: network configuration format). */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"

/* One network: what a conflist says, or a single plugin's conf in the form of a list. */
typedef struct CniNetwork {
        char *name, *version, *file;
        json_t *plugins; /* array, at least one, each with a "type" that is a plain file name */
} CniNetwork;

void cni_network_done(CniNetwork *n);

/* The first network by file name in the first folder that has one; a file that is none is passed over. -ENETDOWN when
 * there is none, or a plugin of it is missing: the error names what was found instead. */
int cni_network_load(char *const *conf_directories, char *const *bin_directories, CniNetwork *ret, Error *error);
/* A network from its cached form (name, version and plugins). */
int cni_network_parse(json_t *list, const char *file, CniNetwork *ret, Error *error);
/* Whether the programs of all its plugins are there; -ENOENT. */
int cni_network_check_plugins(const CniNetwork *n, char *const *bin_directories, Error *error);
/* A fingerprint of the folders' contents: the same as long as no file was added, removed or changed. */
int cni_config_fingerprint(char *const *conf_directories, char **ret);
/* The absolute path of a plugin, owned by the caller; -ENOENT. */
int cni_plugin_find(char *const *bin_directories, const char *type, char **ret, Error *error);
