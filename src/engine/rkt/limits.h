#pragma once
/* What rkt cannot do and nothing beside it can make up for: refused with Unimplemented. rktlet-rkt(7) has the same
 * table, and a test holds the two together. */

#include "basic/error.h"
#include "engine/engine.h"

typedef enum RktLimit {
        RKT_LIMIT_USERNS,
        RKT_LIMIT_HOST_PID,
        RKT_LIMIT_HOST_IPC,
        RKT_LIMIT_TARGET_PID,
        RKT_LIMIT_SYSCTLS,
        RKT_LIMIT_SCTP,
        RKT_LIMIT_SELINUX,
        RKT_LIMIT_APPARMOR,
        RKT_LIMIT_SECCOMP,
        RKT_LIMIT_NO_NEW_PRIVS,
        RKT_LIMIT_AMBIENT,
        RKT_LIMIT_GROUPS,
        RKT_LIMIT_DEVICES,
        RKT_LIMIT_CDI,
        RKT_LIMIT_PROPAGATION,
        RKT_LIMIT_RECURSIVE,
        RKT_LIMIT_ID_MAPPED,
        RKT_LIMIT_IMAGE_VOLUMES,
        RKT_LIMIT_CPUSET,
        RKT_LIMIT_SWAP,
        RKT_LIMIT_HUGEPAGES,
        RKT_LIMIT_UNIFIED,
        RKT_LIMIT_DASHES,
        RKT_LIMIT_UPDATE,
        RKT_LIMIT_CHECKPOINT,
        RKT_LIMIT_EXEC_USER,
        RKT_LIMIT_EXEC_TTY,
        RKT_LIMIT_TOKENS,
        _RKT_LIMIT_MAX,
} RktLimit;

typedef struct RktLimitText {
        const char *what; /* "user namespaces" */
        const char *why;  /* a sentence */
} RktLimitText;
const RktLimitText *rkt_limit_text(RktLimit l);

/* Unimplemented: "WHAT: not with Engine=rkt. WHY". */
int rkt_refuse(RktLimit l, Error *error);

/* Unimplemented for what a request wants and rkt can't. */
int rkt_check_pod(const runtime_v1_PodSandboxConfig *config, Error *error);
int rkt_check_container(const runtime_v1_ContainerConfig *config, Error *error);
