#pragma once
/* What a pod engine does. The manager decides what shall be; an engine makes it so and reports what became of it.
 * engine/native is the default (crun under transient units), engine/rkt executes rkt.
 *
 * All operations may wait and must be called in a fiber. They are idempotent where said. An operation that fails, or
 * is cancelled, leaves nothing behind: what it began it undoes, shielded, before it returns. */

#include <systemd/sd-event.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "image/image.h"
#include "runtime.pb.h" /* made from proto/runtime.proto */
#include "stats/tree-usage.h"
#include "systemd/systemd.h"

typedef struct Engine Engine;

/* A pod as the manager describes it; borrowed for the call. */
typedef struct EnginePod {
        const char *id;
        const char *unit;          /* rktlet-pod-ID.service */
        const char *slice;         /* where pod and containers live, "….slice" */
        const char *directory;     /* /var/lib/rktlet/pods/ID, there, 0700 */
        const char *run_directory; /* /run/rktlet/pods/ID, there, 0700 */
        const runtime_v1_PodSandboxConfig *config;
        const char *runtime_handler;
        bool stopped;              /* it was stopped, or its end was told: it isn't about to come back */
} EnginePod;

/* An image that is mounted in a container. */
typedef struct EngineVolume {
        size_t mount;  /* index in config->mounts */
        char **layers; /* names below layers_path, lowest first */
} EngineVolume;

typedef struct EngineContainer {
        const EnginePod *pod;
        const char *id;
        const char *unit;          /* rktlet-ctr-ID.service */
        const char *directory;     /* /var/lib/rktlet/containers/ID, there, 0700: upper, work, config.json */
        const char *run_directory; /* /run/rktlet/containers/ID, there, 0700: bundle, rootfs mount point */
        const char *log_path;      /* absolute, or NULL: no log file */
        const char *layers_path;   /* image_store_layers_path() */
        const runtime_v1_ContainerConfig *config;
        const Image *image;        /* may be NULL for operations after create */
        char *const *layers;       /* names below layers_path, lowest first */
        const EngineVolume *volumes; /* for create; afterwards there are none */
        size_t n_volumes;
} EngineContainer;

typedef struct EnginePodState {
        bool running;
        pid_t pid;              /* holds the namespaces; 0 while it is not known yet, or started again */
        uint64_t started_usec;  /* CLOCK_REALTIME */
} EnginePodState;

typedef enum EngineContainerPhase {
        ENGINE_CONTAINER_CREATED, /* no process yet, or never started */
        ENGINE_CONTAINER_RUNNING,
        ENGINE_CONTAINER_EXITED,
        ENGINE_CONTAINER_UNKNOWN, /* it was started, and no trace of it is left (a reboot) */
} EngineContainerPhase;

typedef struct EngineContainerState {
        EngineContainerPhase phase;
        pid_t pid;
        uint64_t started_usec, finished_usec; /* CLOCK_REALTIME; 0 unknown */
        int exit_code;                        /* 128 + n after a signal */
        bool oom_killed;
} EngineContainerState;

/* What pods can ask for as their runtime handler. */
typedef struct EngineHandler {
        const char *name; /* "" is the default; borrowed */
        bool recursive_read_only_mounts, user_namespaces;
} EngineHandler;

/* What was decided at create, and is reported by the CRI. Owned by the caller. */
typedef struct EngineContainerInfo {
        int64_t uid, gid;       /* the process's user; -1 unknown */
        int64_t *supplementary_groups;
        size_t n_supplementary_groups;
        int stop_signal;        /* of config, then image, then SIGTERM */
} EngineContainerInfo;
void engine_container_info_done(EngineContainerInfo *i);

typedef struct EngineExecResult {
        int exit_code;
        char *output, *error;
        size_t output_size, error_size;
} EngineExecResult;
void engine_exec_result_done(EngineExecResult *r);
#define ENGINE_EXEC_OUTPUT_MAX (16U * 1024U * 1024U) /* each stream, as the peers cap it */

/* Our ends of a command's standard streams: non-blocking, -1 where there is none. With a terminal only its master. */
typedef struct EnginePipes {
        int in, out, err, tty;
} EnginePipes;
#define ENGINE_PIPES_NONE ((EnginePipes) { -1, -1, -1, -1 })

typedef struct EngineExec {
        const char *const *argv;
        bool in, out, err, tty; /* which streams somebody is at; the others are /dev/null. A terminal is all of them. */
        /* Called in the same fiber when the command has been started; takes the descriptors in any case. */
        int (*started)(EnginePipes *pipes, void *userdata);
        void *userdata;
} EngineExec;

/* What an attached client is at; stdin ends for the container when the client ends it, if its config says so. */
typedef enum EngineAttachFlags {
        ENGINE_ATTACH_STDIN = 1 << 0,
        ENGINE_ATTACH_STDOUT = 1 << 1,
        ENGINE_ATTACH_STDERR = 1 << 2,
} EngineAttachFlags;

/* Reports; called in the loop's context, must not wait. */
typedef struct EngineEvents {
        void (*container_changed)(const char *id, const EngineContainerState *state, void *userdata);
        void (*pod_changed)(const char *id, const EnginePodState *state, void *userdata);
        void *userdata;
} EngineEvents;

typedef struct EngineOps {
        const char *name;
        bool supplemental_groups_policy; /* it knows Strict as well as Merge */
        Engine *(*free)(Engine *e);
        /* Whether it can run anything, beside systemd, or why not. NULL: yes. Doesn't wait. */
        int (*status)(Engine *e, Error *error);

        /* Around the pod_load and container_load of all there is, after a restart of the daemon: what one look at all can
         * tell need not be asked for each. May be NULL. */
        int (*load_begin)(Engine *e, Error *error);
        void (*load_end)(Engine *e);
        /* InvalidArgument unless pods can have that handler. NULL: only "". Doesn't wait. */
        int (*handler_check)(Engine *e, const char *handler, Error *error);
        /* All of them, the default first, and what they can; the array is the caller's. NULL: as above. */
        int (*handlers)(Engine *e, EngineHandler **ret, size_t *ret_n, Error *error);

        /* The pod's unit is up and its namespaces exist. */
        int (*pod_start)(Engine *e, const EnginePod *pod, EnginePodState *ret, Error *error);
        /* /proc/PID/ns/net or the like, owned by the caller; NULL for the host's network; -ENOENT when the pod is
         * down. */
        int (*pod_netns)(Engine *e, const EnginePod *pod, char **ret, Error *error);
        /* All of the pod's processes are gone. Idempotent, also for a pod that never started. */
        int (*pod_stop)(Engine *e, const EnginePod *pod, Error *error);
        /* Nothing of it is left in systemd or /run. Idempotent. */
        int (*pod_remove)(Engine *e, const EnginePod *pod, Error *error);
        /* After a restart of the daemon: looks at what there is and follows it. */
        int (*pod_load)(Engine *e, const EnginePod *pod, EnginePodState *ret, Error *error);
        /* An engine that sets up the pods' networks itself: the addresses, the primary first, owned by the caller. NULL
         * (the member): the manager does it, with CNI in the namespace. */
        int (*pod_addresses)(Engine *e, const EnginePod *pod, char ***ret, Error *error);
        /* Of such an engine: whether it can give pods a network, or why not. Doesn't wait. */
        int (*network_status)(Engine *e, Error *error);
        /* After a restart, before what is on disk is read: for pods and containers that the engine knows and that have no
         * folder there it writes the request as far as it is known (manager/state.h). May be NULL. */
        int (*recover)(Engine *e, const char *state_directory, Error *error);
        /* After a restart, once all pods are loaded: removes what is left of others. May be NULL. */
        int (*collect)(Engine *e, bool (*is_known)(const char *pod_id, void *userdata), void *userdata, Error *error);
        /* What the status of the pod's unit says, for people. NULL (the member): nothing. */
        int (*pod_status)(Engine *e, const EnginePod *pod, const char *text, Error *error);
        /* The cgroup of the pod's slice, as systemd's ControlGroup has it ("/kubepods.slice/…"), owned by the caller;
         * -ENOENT when the pod is down. Doesn't wait. */
        int (*pod_cgroup)(Engine *e, const EnginePod *pod, char **ret);
        /* Limits of the slice, which must be the pod's own; what isn't given stays as it is. */
        int (*pod_update)(Engine *e, const EnginePod *pod, const runtime_v1_LinuxContainerResources *resources,
                          Error *error);

        int (*container_create)(Engine *e, const EngineContainer *c, EngineContainerInfo *ret, Error *error);
        int (*container_start)(Engine *e, const EngineContainer *c, EngineContainerState *ret, Error *error);
        /* Sends the signal, waits up to timeout, then SIGKILL to all of the unit; returns when it has exited and its
         * log is complete. timeout 0: SIGKILL at once. Idempotent. A cancelled call does not go on to SIGKILL. */
        int (*container_stop)(Engine *e, const EngineContainer *c, int signo, uint64_t timeout_usec, Error *error);
        /* Kills what still runs; nothing of it is left in systemd, /run and its directory. Idempotent. */
        int (*container_remove)(Engine *e, const EngineContainer *c, Error *error);
        int (*container_load)(Engine *e, const EngineContainer *c, EngineContainerState *ret, Error *error);
        /* timeout 0: none. -ETIMEDOUT (DeadlineExceeded) when it ran out; all processes of the exec are killed. */
        int (*container_exec_sync)(Engine *e, const EngineContainer *c, const char *const *argv, uint64_t timeout_usec,
                                   EngineExecResult *ret, Error *error);
        /* Runs a command to its end; 128 + n after a signal. Cancelled, all that it started is killed; otherwise what it
         * left in the background goes on. */
        int (*container_exec)(Engine *e, const EngineContainer *c, const EngineExec *exec, int *ret_exit_code,
                              Error *error);
        /* *ret_fd: a non-blocking SOCK_SEQPACKET socket that carries StreamPacket (stream/stream.h), with what the container
         * writes from now on; owned by the caller. It ends without a word when the pod's process is started again: attach
         * again. FailedPrecondition when stdin is asked for and there is none. */
        int (*container_attach)(Engine *e, const EngineContainer *c, EngineAttachFlags flags, int *ret_fd,
                                Error *error);
        /* A signal, to its main process or to all. NULL (the member): its unit gets it. -ESRCH: there is no process. */
        int (*container_signal)(Engine *e, const char *id, bool all, int signo, Error *error);
        int (*container_reopen_log)(Engine *e, const EngineContainer *c, Error *error);
        /* Changes the limits of one that is created or runs; what isn't given stays as it is. */
        int (*container_update)(Engine *e, const EngineContainer *c,
                                const runtime_v1_LinuxContainerResources *resources, Error *error);
        /* Its cgroup, as above; borrowed until the next wait, NULL when there is none. Doesn't wait. */
        const char *(*container_cgroup)(Engine *e, const char *id);
        /* Corrects the limits of one that runs to what is in force, if somebody else has changed them. True: it did. NULL:
         * nobody does. Doesn't wait. */
        bool (*container_read_limits)(Engine *e, const char *id, runtime_v1_LinuxContainerResources *resources);
        /* Whether pods can have user namespaces, with layers in this folder; NULL (the member): no. Doesn't wait. */
        bool (*has_user_namespaces)(Engine *e, const char *layers_path);
        /* Writes an archive of it, processes and files, to the path location, which must not be there yet; it goes on.
         * timeout 0: none. Unimplemented where the runtime can't. NULL: as that. */
        int (*container_checkpoint)(Engine *e, const EngineContainer *c, const char *location, uint64_t timeout_usec,
                                    Error *error);
        /* Its OCI runtime configuration as JSON, owned by the caller; -ENOENT when there is none. NULL: never. Doesn't
         * wait. */
        int (*container_spec)(Engine *e, const EngineContainer *c, char **ret);
        /* What its writable layer takes. Large ones take a child and their time. */
        int (*container_layer_usage)(Engine *e, const EngineContainer *c, TreeUsage *ret, Error *error);
} EngineOps;

struct Engine {
        const EngineOps *ops;
        EngineEvents events;
};

typedef enum NativeRuntimeType {
        NATIVE_RUNTIME_CRUN, /* leaves the cgroup to us */
        NATIVE_RUNTIME_RUNC, /* manages a cgroup itself: it gets a leaf below the container's unit */
} NativeRuntimeType;

/* An OCI runtime that pods can ask for by name. */
typedef struct NativeRuntime {
        const char *name, *path;
        NativeRuntimeType type;
} NativeRuntime;

typedef struct NativeEngineConfig {
        const char *crun_path;       /* /usr/bin/crun, the default */
        const NativeRuntime *runtimes; /* others; one called "crun" takes the place of the default under that name */
        size_t n_runtimes;
        const char *libexec_path;    /* folder of rktlet-pod, rktlet-create and rktlet-exec */
        const char *run_directory;   /* /run/rktlet */
        int max_container_log_line;  /* bytes of a log line before it is split; 0: 16384 */
        bool log_to_journal;         /* containers' output, beside their log files */
        uint64_t journal_interval_usec; /* of each pod: not more than so many lines (0: any number) in this time */
        uint32_t journal_burst;
        uint64_t unit_stop_timeout_usec; /* grace of a container that systemd stops: at shutdown, by systemctl; 0: 10 s */
} NativeEngineConfig;

int native_engine_new(sd_event *event, Systemd *systemd, const NativeEngineConfig *config, const EngineEvents *events,
                      Engine **ret, Error *error);

/* Takes over crun_path, runtimes, max_container_log_line and unit_stop_timeout_usec, for what is made from now on. */
int native_engine_configure(Engine *engine, const NativeEngineConfig *config, Error *error);

static inline Engine *engine_free(Engine *e) {
        return e ? e->ops->free(e) : NULL;
}
DEFINE_TRIVIAL_CLEANUP_FUNC(Engine *, engine_free);
