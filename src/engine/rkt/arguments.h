#pragma once
/* Command lines of rkt: what a sandbox and an app are started with. Pure: a golden test holds them to what was
 * measured. */

#include "engine/rkt/call.h"

#define RKT_LOG_MODE "k8s-plain"
/* What rkt keeps for us with a pod and an app, so that they can be told again from rkt alone. */
#define RKT_KEY_POD_ID        "org.rktlet1/pod-id"
#define RKT_KEY_LOG_DIRECTORY "org.rktlet1/log-directory"
#define RKT_KEY_HOST_NETWORK  "org.rktlet1/host-network"
#define RKT_KEY_LOG_PATH      "org.rktlet1/log-path"
#define RKT_KEY_UID           "k8s.io/reserved/pod-uid"
#define RKT_KEY_NAME          "k8s.io/reserved/pod-name"
#define RKT_KEY_NAMESPACE     "k8s.io/reserved/pod-namespace"
#define RKT_KEY_ATTEMPT       "k8s.io/reserved/pod-attempt"
#define RKT_KEY_IMAGE         "k8s.io/reserved/image-name"
#define RKT_KEY_CTR_NAME      "k8s.io/reserved/container-name"
#define RKT_KEY_CTR_ATTEMPT   "k8s.io/reserved/container-attempt"

bool rkt_pod_has_host_network(const runtime_v1_PodSandboxConfig *config);

/* network: the name in rkt's configuration; not looked at with the host's network. */
int rkt_sandbox_argv(const Rkt *rkt, const EnginePod *pod, const char *uuid_file, const char *log_directory,
                     const char *network, char ***ret, Error *error);
/* The app's name is the container's ID: unique in the pod and for ever, and of characters that rkt takes. image_id:
 * "sha512-…". InvalidArgument for what can't be said on a command line, or a volume that isn't there. */
int rkt_add_argv(const Rkt *rkt, const EngineContainer *c, const char *uuid, const char *image_id, char ***ret,
                 Error *error);
/* User and group as far as they are known without looking into the image. */
void rkt_container_user(const EngineContainer *c, int64_t *ret_uid, int64_t *ret_gid);
