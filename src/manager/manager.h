#pragma once
/* The node's pods and containers as objects: what was asked for (the request as it came, on disk), what became of it,
 * and the operations on them. Knows nothing of gRPC or D-Bus; cri/ and bus/ call it, engine/ does the work below.
 *
 * Operations marked (fiber) wait. Operations on one pod, or one container, are done one after the other; those on
 * different ones side by side. Objects are counted: keep a reference across a wait. All are idempotent as CRI.md says. */

#include <systemd/sd-event.h>
#include <uthash.h>

#include "basic/error.h"
#include "basic/fiber.h"
#include "basic/macro.h"
#include "basic/string-util.h"
#include "engine/engine.h"
#include "image/image.h"
#include "net/cni.h"
#include "runtime.pb.h"
#include "stats/cgroup-stats.h"
#include "stats/net-stats.h"
#include "systemd/systemd.h"

typedef struct Manager Manager;
typedef struct Pod Pod;
typedef struct Container Container;

typedef enum PodPhase {
        POD_STARTING, /* RunPodSandbox is under way; not listed */
        POD_READY,
        POD_NOT_READY, /* stopped, or its unit ended by itself */
        _POD_PHASE_MAX,
        _POD_PHASE_INVALID = -EINVAL,
} PodPhase;
const char *pod_phase_to_string(PodPhase p); /* "starting", "ready", "not-ready" */

typedef enum ContainerPhase {
        CONTAINER_CREATING, /* CreateContainer is under way; not listed */
        CONTAINER_CREATED,
        CONTAINER_RUNNING,
        CONTAINER_EXITED,
        CONTAINER_UNKNOWN,
        _CONTAINER_PHASE_MAX,
        _CONTAINER_PHASE_INVALID = -EINVAL,
} ContainerPhase;
const char *container_phase_to_string(ContainerPhase p);
ContainerPhase container_phase_from_string(const char *s);

/* What a container's writable layer took when it was last measured. */
typedef struct LayerUsage {
        TreeUsage usage;
        uint64_t timestamp_nsec; /* CLOCK_REALTIME; 0: never */
        uint64_t next_usec;      /* CLOCK_MONOTONIC, not measured again before */
        bool wanted, final;      /* final: nothing writes there any more */
} LayerUsage;

struct Pod {
        unsigned n_ref;
        Manager *manager;
        char id[ID_LENGTH + 1];
        char *name_key; /* unique while the pod exists: "namespace/name/uid/attempt", lengths checked */
        char *unit, *slice;
        bool slice_is_ours; /* no cgroup_parent was given */
        char *directory, *run_directory;

        /* The request as it came, decoded; request.config is never missing its metadata. */
        runtime_v1_RunPodSandboxRequest request;
        uint32_t request_crc32; /* of its bytes; 0: not known */

        PodPhase phase;
        uint64_t created_usec; /* CLOCK_REALTIME */
        EnginePodState engine_state;
        char **ips;            /* the primary first; NULL for the host's network */
        char *network_json;    /* the CNI result, or NULL */
        bool network_added;    /* DEL is owed */
        int netns_fd;          /* keeps the network namespace for DEL when the pod process is gone; -1: none */
        bool removed;          /* no longer in the tables; references may live on */
        bool undoing, stopping;
        /* Whoever asked for it has (as far as can be known) got the answer; see pod_run(). */
        bool answered;
        CpuRate cpu_rate;
        bool status_due;       /* what its unit says is out of date */
        Fiber *starter;        /* runs pod_run(), borrowed; NULL once that is done */
        FiberQueue gone;       /* woken when it leaves the tables */

        FiberLock lock;
        Container *containers; /* linked by Container.pod_next */
        UT_hash_handle hh;     /* Manager.pods, by id */
        UT_hash_handle hh_name;
};

struct Container {
        unsigned n_ref;
        Manager *manager;
        Pod *pod; /* a reference */
        char id[ID_LENGTH + 1];
        char *name_key; /* "POD_ID/name/attempt" */
        char *unit;
        char *directory, *run_directory;
        char *log_path; /* absolute, or NULL */

        /* The request as it came, decoded, without its sandbox_config (that is the pod's). */
        runtime_v1_CreateContainerRequest request;
        uint32_t request_crc32; /* of its bytes; 0: not known */

        Image *image;    /* a reference; NULL when the image was removed and the daemon restarted since */
        char *image_id;  /* "sha256:…", what image_id and image_ref answer */
        char **layers;
        char **volume_layers; /* of images that are mounted in it */
        char **volume_images; /* their IDs, in the order of the mounts */
        bool holds_layers;
        EngineContainerInfo info;

        ContainerPhase phase;
        uint64_t created_usec, started_usec, finished_usec; /* CLOCK_REALTIME, 0: not yet */
        int exit_code;
        pid_t pid;
        char *reason, *message; /* "Completed", "Error", "OOMKilled", "StartError", …; NULL while none */
        bool oom_killed, removed, undoing, starting;
        bool answered, start_answered; /* as Pod.answered, for container_create() and container_start() */
        CpuRate cpu_rate;
        LayerUsage layer;
        Fiber *creator;        /* runs container_create(), borrowed; NULL once that is done */
        FiberQueue gone;       /* woken when it leaves the tables */

        FiberLock lock;
        Container *pod_next;
        FiberQueue exited; /* woken when the phase becomes EXITED */
        UT_hash_handle hh; /* Manager.containers, by id */
        UT_hash_handle hh_name;
};

typedef enum ManagerEvent {
        MANAGER_POD_ADDED,
        MANAGER_POD_CHANGED,
        MANAGER_POD_REMOVED,
        MANAGER_CONTAINER_CREATED,
        MANAGER_CONTAINER_STARTED,
        MANAGER_CONTAINER_STOPPED,
        MANAGER_CONTAINER_REMOVED,
} ManagerEvent;
/* pod is never NULL, container only for MANAGER_CONTAINER_*. Called in whatever context the change happens; must not
 * wait. */
typedef void (*ManagerEventFunc)(Manager *m, ManagerEvent event, Pod *pod, Container *container, void *userdata);
typedef struct ManagerSubscription {
        ManagerEventFunc func;
        void *userdata;
        struct ManagerSubscription *next;
} ManagerSubscription;

typedef struct ManagerConfig {
        const char *state_directory; /* /var/lib/rktlet */
        const char *run_directory;   /* /run/rktlet */
        const char *default_slice;   /* parent of the slices we make for pods without a cgroup_parent:
                                      * "rktlet.slice" gives rktlet-ID.slice */
        uint64_t stop_timeout_usec;  /* grace of containers that still run when their pod is stopped; 0: SIGKILL at
                                      * once, as StopPodSandbox's "forcibly terminated" has it */
} ManagerConfig;

struct Manager {
        sd_event *event;
        ManagerConfig config;
        /* Borrowed from main(), which outlives the manager. */
        Systemd *systemd;
        ImageStore *images;
        Cni *cni;
        Engine *engine;

        Pod *pods, *pods_by_name;
        Container *containers, *containers_by_name;
        ManagerSubscription *subscriptions;
        uint64_t event_usec; /* CLOCK_REALTIME: of the event that subscribers are told at this moment */
        bool loaded; /* manager_load() is done: until then everything but Version answers Unavailable */
        FiberQueue load_queue;

        sd_event_source *status_timer;
        Fiber *teller;   /* tells the pods' units what they are to say; NULL while there is nothing to tell */
        Fiber *measurer; /* measures writable layers, one after the other; NULL while there is nothing to do */
        FiberQueue measured;
};

/* engine_events are what the engine must be made with; call it before the engine exists (userdata is the manager). */
int manager_new(sd_event *event, const ManagerConfig *config, Systemd *systemd, ImageStore *images, Cni *cni,
                Manager **ret, Error *error);
void manager_set_stop_timeout(Manager *m, uint64_t usec);
EngineEvents manager_engine_events(Manager *m);
void manager_set_engine(Manager *m, Engine *engine);
Manager *manager_free(Manager *m);
DEFINE_TRIVIAL_CLEANUP_FUNC(Manager *, manager_free);
/* (fiber) After a restart: reads what is on disk, asks systemd what became of it, undoes what was half done. */
int manager_load(Manager *m, Error *error);
/* (fiber) Waits until that is done. */
int manager_wait_loaded(Manager *m, Error *error);

void manager_subscribe(Manager *m, ManagerSubscription *subscription); /* owned by the caller */
void manager_unsubscribe(Manager *m, ManagerSubscription *subscription);

/* POD_NAME= and so on, and of a container (may be NULL) CONTAINER_…, for log_struct(). 0 or -ENOMEM. */
int log_fields_of(const Pod *p, const Container *c, char ***fields);

/* By ID or unambiguous prefix. Borrowed. NotFound, or InvalidArgument for an ambiguous or empty one. Pods and containers
 * still being made are not found. */
int manager_find_pod(Manager *m, const char *id, Pod **ret, Error *error);
int manager_find_container(Manager *m, const char *id, Container **ret, Error *error);

/* Whether the network is usable, for Status: 0 or the reason. */
int manager_network_status(Manager *m, Error *error);
/* What the kubelet says the node's pods' addresses are of: see cni_set_pod_cidrs(). */
int manager_set_pod_cidrs(Manager *m, const char *cidrs, Error *error);

Pod *pod_ref(Pod *p);
Pod *pod_unref(Pod *p);
DEFINE_TRIVIAL_CLEANUP_FUNC(Pod *, pod_unref);
Container *container_ref(Container *c);
Container *container_unref(Container *c);
DEFINE_TRIVIAL_CLEANUP_FUNC(Container *, container_unref);

/* (fiber) request is a serialized RunPodSandboxRequest; it is checked, saved as it is, and done. Borrowed pointer.
 *
 * A client whose answer was lost (its connection broke, this daemon was killed) asks for the same again, and gets the same
 * pod: the kubelet finds a pod that is ready in its list, but whoever just repeats the request must come to the same end.
 * That holds for the same request, to the last field, as long as the pod is as it was made and nobody can have the answer:
 * callers set Pod.answered once they have sent it, and a container in it shows the same. Otherwise the name is taken:
 * AlreadyExists, as it is while the first request is under way. After a restart of the daemon it isn't known who got an
 * answer, and giving it once more does no harm. */
int pod_run(Manager *m, const void *request, size_t size, Pod **ret, Error *error);
/* (fiber) Kills its containers within their grace, CNI DEL, ends the pod process. */
int pod_stop(Pod *p, Error *error);
/* (fiber) Stops it where need be and removes its containers. */
int pod_remove(Pod *p, Error *error);
/* Namespace modes of the request, with the CRI's defaults. */
bool pod_uses_host_network(const Pod *p);

/* (fiber) request is a serialized CreateContainerRequest. Asked again after a lost answer: as above, while it is
 * created. */
int container_create(Manager *m, const void *request, size_t size, Container **ret, Error *error);
/* Asked again after a lost answer, one that was started is fine. */
int container_start(Container *c, Error *error);
int container_stop(Container *c, uint64_t timeout_usec, Error *error);
int container_remove(Container *c, Error *error);
int container_exec_sync(Container *c, const char *const *argv, uint64_t timeout_usec, EngineExecResult *ret,
                        Error *error);
int container_reopen_log(Container *c, Error *error);

/* (fiber) As EngineOps.container_checkpoint. */
int container_checkpoint(Container *c, const char *location, uint64_t timeout_usec, Error *error);
/* Its OCI runtime configuration as JSON, owned by the caller; NULL: there is none (any more). */
char *container_spec(Container *c);
/* FailedPrecondition: "cannot WHAT container …: it is exited, not running". */
int container_check_running(const Container *c, const char *what, Error *error);
int pod_check_ready(const Pod *p, const char *what, Error *error);
/* (fiber) As EngineOps.container_exec. */
int container_exec(Container *c, const EngineExec *exec, int *ret_exit_code, Error *error);
/* (fiber) As EngineOps.container_attach; of one that is created or runs. */
int container_attach(Container *c, EngineAttachFlags flags, int *ret_fd, Error *error);
/* (fiber) Path of its network namespace, owned by the caller; NULL for the host's. */
int pod_netns(Pod *p, char **ret, Error *error);
/* (fiber) Changes limits; what isn't given stays. Saved, so that the request shows what is in force. */
int container_update(Container *c, const runtime_v1_LinuxContainerResources *resources, Error *error);
/* (fiber) The same for a pod, either may be NULL. The slice is changed if it is ours; otherwise its limits are the
 * business of whoever made it (the kubelet, which has set them before it tells us). */
int pod_update(Pod *p, const runtime_v1_LinuxContainerResources *overhead,
               const runtime_v1_LinuxContainerResources *resources, Error *error);

/* --- figures ----------------------------------------------------------------------------------------------------- */

/* What the kernel counts for a running container, or for all of a pod's slice; *ret_nano_cores is the CPU rate since
 * an earlier reading, STAT_UNKNOWN at the first one. FailedPrecondition when it doesn't run. Don't wait. */
int container_read_stats(Container *c, CgroupStatsFlags flags, CgroupStats *ret, uint64_t *ret_nano_cores,
                         Error *error);
int pod_read_stats(Pod *p, CgroupStatsFlags flags, CgroupStats *ret, uint64_t *ret_nano_cores, Error *error);
/* Their cgroups ("/kubepods.slice/…"); borrowed, and owned by the caller. NULL: none, or no memory. */
const char *container_cgroup(const Container *c);
/* Corrects its limits to what is in force, where somebody has changed them by systemd's own means. True: it did. */
bool container_read_limits(const Container *c, runtime_v1_LinuxContainerResources *resources);
char *pod_cgroup(const Pod *p);
/* Processes of the pod's slice, or descriptors of a container's processes; STAT_UNKNOWN where they can't be
 * counted. */
uint64_t pod_count_processes(Pod *p);
void container_count_descriptors(Container *c, uint64_t *ret_files, uint64_t *ret_sockets);
/* The pod's own interfaces; 0 with the host's network, or while they can't be read. */
size_t pod_read_network(Pod *p, NetInterface ret[static NET_INTERFACES_MAX]);

/* (fiber) Has the writable layers measured that weren't for a minute: of one container, else of one pod, else of all.
 * It is done in the background, one after the other, since a tree has to be walked for it (quotas of projects would
 * know at once, but hardly a node's file system is mounted with them); only for those never measured the call waits a
 * moment. Container.layer has the result. */
void manager_measure_layers(Manager *m, Pod *pod, Container *c);
/* All containers' layers, running or not. False when one of them was never measured yet. */
bool manager_sum_layers(Manager *m, TreeUsage *ret, uint64_t *ret_timestamp_nsec);
