#pragma once
/* The pod's namespaces: made once, kept as descriptors in the FD store, entered again after a restart. */

#include "pod/sys.h"

#define POD_SYSCTLS_MAX 64
#define POD_ID_MAPS_MAX 32 /* ranges of users, and of groups */

typedef struct PodOptions {
        const char *socket;
        const char *run_directory; /* mounts are made below it only */
        bool net, ipc, uts, pid;
        const char *hostname, *domainname;
        const char *sysctl[POD_SYSCTLS_MAX];
        size_t n_sysctls;
        const char *uid_map[POD_ID_MAPS_MAX], *gid_map[POD_ID_MAPS_MAX]; /* "INSIDE:OUTSIDE:COUNT" */
        size_t n_uid_maps, n_gid_maps; /* not 0: the other namespaces belong to a user namespace of the pod */
} PodOptions;

static inline bool has_userns(const PodOptions *o) {
        return o->n_uid_maps > 0;
}

enum {
        NAMESPACE_NET,
        NAMESPACE_IPC,
        NAMESPACE_UTS,
        NAMESPACE_MNT,
        NAMESPACE_PID,
        NAMESPACE_USER, /* owns the others; the pod process itself stays outside */
        _NAMESPACE_MAX,
};

typedef struct Namespaces {
        int fd[_NAMESPACE_MAX]; /* -1: the host's */
        int init_pidfd;         /* the pid namespace's init, or -1 */
} Namespaces;
#define NAMESPACES_INIT ((Namespaces) { .fd = { -1, -1, -1, -1, -1, -1 }, .init_pidfd = -1 })

/* What the FD store calls them; index: NAMESPACE_…. */
extern const char *const namespace_names[_NAMESPACE_MAX];

/* Makes what the options ask for, enters it, and puts the descriptors into the store. */
int namespaces_make(const PodOptions *o, Namespaces *n, Text *why);
/* Enters the ones that came from the store. */
int namespaces_enter(const PodOptions *o, const Namespaces *n, Text *why);

/* Writes "name=value" into the pod's own namespaces. Only sysctls of a namespace the pod has for itself are taken. */
int sysctl_write(const PodOptions *o, const char *assignment, Text *why);

/* Kills the init, which ends every process of the pid namespace, and waits for it up to a second. */
void init_kill(int pidfd);
