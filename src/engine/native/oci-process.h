#pragma once
/* What a container's process is started with: arguments, environment, working directory, as Kubernetes defines them
 * from the image's configuration and the request. */

#include <jansson.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "basic/string-util.h"
#include "image/image.h"
#include "runtime.pb.h"

#define OCI_ENV_MAX 65536U               /* variables */
#define OCI_ENV_SIZE_MAX (1024U * 1024U) /* bytes of all together; execve(2) takes 6 MiB at most */
#define OCI_ENV_ONE_MAX (128U * 1024U)    /* bytes of "NAME=VALUE" with its NUL, MAX_ARG_STRLEN of execve(2) */
#define OCI_PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Each returns a new reference; image may be NULL. InvalidArgument with a sentence for what can't be. */

/* command replaces entry point and command of the image, args replaces the image's command. */
int oci_args(const runtime_v1_ContainerConfig *config, const ImageConfig *image, json_t **ret, Error *error);

/* The later wins: PATH, TERM, then the image's, HOSTNAME, then the request's; HOME (of passwd) only where there is
 * none. The OCI configuration is JSON, through which only UTF-8 gets: variables with other bytes are appended to
 * `raw`, each as "NAME=VALUE" with a NUL, and the process has to set them itself (rktlet-create --environment). */
int oci_env(const runtime_v1_ContainerConfig *config, const ImageConfig *image, const char *hostname, const char *home,
            json_t **ret, Buffer *raw, Error *error);

/* An absolute path, borrowed. */
int oci_cwd(const runtime_v1_ContainerConfig *config, const ImageConfig *image, const char **ret, Error *error);

/* The signal that stops the container: of the request, else of the image ("SIGQUIT", "QUIT", "3"), else SIGTERM. */
int oci_stop_signal(const runtime_v1_ContainerConfig *config, const ImageConfig *image, int *ret, Error *error);
/* -EINVAL when it is none. */
int signal_from_name(const char *s);
