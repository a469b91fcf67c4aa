#pragma once
/* Devices by the Container Device Interface (version 1.1.0 of its specification and all before it): files of the node,
 * which the vendor's software writes, say what a container needs for a device. They are the administrator's, and as
 * trusted as the kubelet; what they can't be understood in is an error nevertheless.
 *
 * Annotations that name devices are not looked at: no annotation steers anything here. */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "runtime.pb.h"
#include "systemd/systemd.h"

#define CDI_FILES_MAX 256U                     /* in all folders */
#define CDI_FILE_SIZE_MAX (4U * 1024U * 1024U) /* bytes */
#define CDI_DEVICES_MAX 256U                   /* asked for by one container */

/* Where they are, NULL-terminated; what a later folder says wins. */
extern const char *const cdi_folders[];

/* Changes the OCI runtime configuration as the devices need it. p: gets DeviceAllow=; NULL for a container that may open
 * everything. InvalidArgument for a name that is none, FailedPrecondition for a device that the node hasn't. */
int cdi_add_to_config(const runtime_v1_CDIDevice *devices, size_t n, const char *const *folders, json_t *config,
                      UnitProperties *p, Error *error);
