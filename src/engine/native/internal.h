#pragma once
/* Shared by the files of the native engine. */

#include <sys/inotify.h>
#include <uthash.h>

#include "basic/fiber.h"
#include "basic/json-util.h"
#include "basic/log.h"
#include "basic/string-util.h"
#include "engine/engine.h"
#include "engine/native/id-map.h"
#include "engine/native/oci-mounts.h"
#include "engine/native/pod-client.h"
#include "engine/native/resources.h"
#include "engine/native/runtime.h"

#define POD_START_TIMEOUT_USEC (60 * USEC_PER_SEC)
#define UNIT_STOP_TIMEOUT_USEC (30 * USEC_PER_SEC)
#define CONTAINER_CREATE_TIMEOUT_USEC (120 * USEC_PER_SEC)
#define RUNTIME_TIMEOUT_USEC (60 * USEC_PER_SEC) /* crun start */
#define KILL_TIMEOUT_USEC (60 * USEC_PER_SEC)    /* a killed process that doesn't go hangs in the kernel */

typedef struct NativeRuntimes {
        Runtime *list;
        size_t n;
} NativeRuntimes;

typedef struct NativeEngine NativeEngine;

/* A pod that is followed. */
typedef struct NativePod {
        unsigned n_ref;
        NativeEngine *engine; /* NULL once it is no longer followed */
        char *id, *unit, *socket_path;
        UnitWatch *watch;
        bool seen;     /* the watch has reported at least once */
        bool up;       /* its events go to the manager: the start is complete */
        bool stopped;  /* by us, and nothing of it has run since */
        EnginePodState state;
        sd_event_source *settle; /* set while the unit is down and may be about to be started again */
        char *control_group;
        FiberQueue changed;
        UT_hash_handle hh;
} NativePod;

/* A container that is followed. */
typedef struct NativeContainer {
        unsigned n_ref;
        NativeEngine *engine; /* NULL once it is no longer followed */
        char *id, *pod_id, *unit, *pod_socket_path;
        Runtime *runtime;    /* borrowed; NULL: its handler isn't configured any more */
        char *runtime_state; /* the folder of its runtime */
        UnitWatch *watch;
        bool seen;
        bool up;       /* its events go to the manager: the creation is complete */
        bool started;
        bool exiting;  /* its end was seen, and is being completed */
        bool unit_failed; /* the unit is "failed": to forget it is all it takes */
        EngineContainerState state;
        char *control_group;
        char *start_error; /* why it can't be started; then there is no unit */
        int memory_events_fd;
        sd_event_source *memory_events_source;
        int slice_memory_events_fd; /* of the cgroup above: it is still there when the container's own has gone */
        uint64_t slice_oom_kills;   /* its count when the container was followed first */
        unsigned n_execs;
        FiberQueue changed;
        UT_hash_handle hh;
} NativeContainer;

struct NativeEngine {
        Engine engine;
        sd_event *event;
        Systemd *systemd;
        Runtime *runtimes; /* the default first */
        size_t n_runtimes;
        NativeRuntimes *retired; /* of earlier configurations */
        size_t n_retired;
        Runtime exec_program; /* rktlet-exec, which needs what crun needs: a file that nobody can write to */
        char *pod_path, *create_path, *checkpoint_path, *run_directory, *crun_root, *scratch;
        size_t log_line_max;
        uint64_t unit_stop_timeout_usec, journal_interval_usec;
        uint32_t journal_burst;
        bool log_to_journal;
        uint64_t capabilities; /* what PID 1 may hand out */
        int oom_score_adj_min;
        int user_namespaces; /* 1: they can be had, -1: not, 0: not looked at yet */
        NativePod *pods;
        NativeContainer *containers;
};

static inline NativeEngine *native_engine(Engine *e) {
        return CONTAINER_OF(e, NativeEngine, engine);
}

/* native.c */
/* A copy without what could break a line of a unit file. */
char *unit_text(const char *format, ...) _printf_(1, 2);
/* POD_NAME= and so on, with CONTAINER_… when c is given. */
int log_fields_new(const EnginePod *pod, const EngineContainer *c, char ***ret);
/* Kills all processes of a unit's cgroup, at once and without a race; nothing there: 0. */
int cgroup_kill(const char *control_group);
/* The OOM score of the container's main process as text in static memory, for what is executed beside it; NULL when it
 * can't be read. */
const char *native_container_oom_score_adj(const NativeContainer *n);
/* The runtime of a handler; NULL when there is none of that name. Borrowed. */
Runtime *native_runtime_find(NativeEngine *e, const char *handler);
int native_handler_check(Engine *e, const char *handler, Error *error);
/* The folder that a runtime has, or had, for a container; owned by the caller, NULL: no memory. */
char *native_runtime_state(const NativeEngine *e, const char *handler, const char *id);
/* Waits until a cgroup has no process any more, or is gone. */
int cgroup_wait_empty(const char *control_group, uint64_t timeout_usec);
/* (fiber) tree_usage() of a large tree, by a child process: rktlet-create. */
int usage_by_child(const char *program, const char *path, TreeUsage *ret, Error *error);

/* native-pod.c */
NativePod *native_pod_find(NativeEngine *e, const char *id);
NativePod *native_pod_ref(NativePod *p);
NativePod *native_pod_unref(NativePod *p);
DEFINE_TRIVIAL_CLEANUP_FUNC(NativePod *, native_pod_unref);
void native_pod_forget(NativePod *p);
/* Waits while its process is started again; -ENOENT when the pod is down. */
int native_pod_wait_pid(NativePod *p, pid_t *ret, Error *error);
int native_pod_start(Engine *e, const EnginePod *pod, EnginePodState *ret, Error *error);
int native_pod_netns(Engine *e, const EnginePod *pod, char **ret, Error *error);
int native_pod_stop(Engine *e, const EnginePod *pod, Error *error);
int native_pod_remove(Engine *e, const EnginePod *pod, Error *error);
int native_pod_load(Engine *e, const EnginePod *pod, EnginePodState *ret, Error *error);
int native_pod_status(Engine *e, const EnginePod *pod, const char *text, Error *error);
int native_pod_update(Engine *e, const EnginePod *pod, const runtime_v1_LinuxContainerResources *resources, Error *error);
bool pod_has_network(const EnginePod *pod);
bool pod_has_ipc(const EnginePod *pod);
bool pod_has_pid(const EnginePod *pod);
bool pod_has_uts(const EnginePod *pod);
bool pod_has_userns(const EnginePod *pod);
/* The IDs of its user namespace; not set (id_map_is_set()) without one. InvalidArgument for what can't be. */
int pod_id_map(const EnginePod *pod, IdMap *ret, Error *error);
/* The name that its processes see; owned by the caller. */
char *pod_hostname(const EnginePod *pod);

/* pod-files.c */
/* hostname, hosts and resolv.conf in the pod's run directory. */
int pod_files_write(const EnginePod *pod, Error *error);
/* Their paths, owned by the caller (pod_files_done). */
int pod_files_paths(const EnginePod *pod, OciPodFiles *ret);
void pod_files_done(OciPodFiles *f);
/* "--sysctl=NAME=VALUE" for the pod process, checked: only what belongs to a namespace of the pod. */
int pod_sysctl_arguments(const EnginePod *pod, char ***argv, Error *error);

/* native-create.c */
int native_container_create(Engine *e, const EngineContainer *c, EngineContainerInfo *ret, Error *error);

/* native-container.c */
NativeContainer *native_container_find(NativeEngine *e, const char *id);
NativeContainer *native_container_ref(NativeContainer *n);
NativeContainer *native_container_unref(NativeContainer *n);
DEFINE_TRIVIAL_CLEANUP_FUNC(NativeContainer *, native_container_unref);
/* Begins to follow; the reference belongs to the engine. */
int native_container_new(NativeEngine *e, const EngineContainer *c, NativeContainer **ret, Error *error);
int native_container_watch(NativeContainer *n, Error *error);
/* The cgroup of its processes, as ControlGroup has it: the unit's, or a leaf below it. Owned by the caller, NULL: none, or
 * no memory. */
char *native_container_process_group(const NativeContainer *n);
/* FailedPrecondition when its handler isn't configured any more. */
int native_container_check_runtime(const NativeContainer *n, Error *error);
/* Waits until it is known what the unit does. */
int native_container_wait_seen(NativeContainer *n, Error *error);
void native_container_forget(NativeContainer *n);
/* Until the end is complete: leftovers killed, log written, told. USEC_INFINITY: however long. */
int native_container_wait_exit(NativeContainer *n, uint64_t until_usec);
int native_container_start(Engine *e, const EngineContainer *c, EngineContainerState *ret, Error *error);
int native_container_stop(Engine *e, const EngineContainer *c, int signo, uint64_t timeout_usec, Error *error);
int native_container_remove(Engine *e, const EngineContainer *c, Error *error);
int native_container_load(Engine *e, const EngineContainer *c, EngineContainerState *ret, Error *error);
int native_container_reopen_log(Engine *e, const EngineContainer *c, Error *error);
int native_container_update(Engine *e, const EngineContainer *c, const runtime_v1_LinuxContainerResources *resources,
                            Error *error);
/* What limits the unit is written to the leaf below it as well, if there is one: programs look there. */
void native_container_mirror_limits(const NativeContainer *n, const Resources *r);

/* native-stats.c */
/* "a-b.slice" is /a.slice/a-b.slice, as systemd.slice(5) has it. Owned by the caller. */
int slice_path(const char *slice, char **ret);
int native_pod_cgroup(Engine *e, const EnginePod *pod, char **ret);
bool native_container_read_limits(Engine *e, const char *id, runtime_v1_LinuxContainerResources *resources);
const char *native_container_cgroup(Engine *e, const char *id);
int native_container_spec(Engine *e, const EngineContainer *c, char **ret);
int native_container_layer_usage(Engine *e, const EngineContainer *c, TreeUsage *ret, Error *error);

/* checkpoint.c */
int native_container_checkpoint(Engine *e, const EngineContainer *c, const char *location, uint64_t timeout_usec,
                                Error *error);

/* exec.c */
int native_container_exec_sync(Engine *e, const EngineContainer *c, const char *const *argv, uint64_t timeout_usec,
                               EngineExecResult *ret, Error *error);

/* exec-stream.c */
int native_container_exec(Engine *e, const EngineContainer *c, const EngineExec *exec, int *ret_exit_code, Error *error);

/* attach.c */
int native_container_attach(Engine *e, const EngineContainer *c, EngineAttachFlags flags, int *ret_fd, Error *error);
