#pragma once
/* Shared by the files of the rkt engine. */

#include <uthash.h>

#include "basic/fiber.h"
#include "basic/log.h"
#include "basic/string-util.h"
#include "engine/rkt/answer.h"
#include "engine/rkt/arguments.h"
#include "engine/rkt/call.h"
#include "engine/rkt/limits.h"
#include "engine/rkt/log.h"
#include "engine/rkt/rkt.h"

#define RKT_UNIT_STOP_USEC (30 * USEC_PER_SEC)
#define RKT_KILL_USEC (60 * USEC_PER_SEC)

typedef struct RktEngine RktEngine;
typedef struct RktContainer RktContainer;

/* A pod that is followed. */
typedef struct RktPod {
        unsigned n_ref;
        RktEngine *engine; /* NULL once it is no longer followed */
        char *id, *unit, *directory;
        char *log_directory; /* where rkt writes its apps' logs, ours alone */
        char *uuid;          /* NULL until rkt has said it */
        char *rootfs;        /* of its stage1, as the host sees it */
        UnitWatch *watch;
        bool seen, up;
        EnginePodState state;
        char *control_group;
        sd_event_source *status_source; /* rkt notes the apps' ends in files there */
        sd_event_source *log_source;
        FiberQueue changed;
        UT_hash_handle hh;
} RktPod;

/* A container that is followed. */
struct RktContainer {
        unsigned n_ref;
        RktEngine *engine; /* NULL once it is no longer followed */
        RktPod *pod;       /* a reference */
        char *id;
        bool up, started;
        bool looking; /* a fiber asks rkt for its state */
        bool again;   /* and has to ask once more */
        int signo;    /* the last signal that we sent; 0: none */
        bool killed;
        EngineContainerState state;
        RktLog *log;
        sd_event_source *pump; /* enabled while there is more to convert */
        char *control_group;   /* as it was last found */
        unsigned n_execs;
        FiberQueue changed;
        UT_hash_handle hh;
};

struct RktEngine {
        Engine engine;
        sd_event *event;
        Systemd *systemd;
        Rkt rkt;
        RktPod *pods;
        RktContainer *containers;
};

static inline RktEngine *rkt_engine(Engine *e) {
        return CONTAINER_OF(e, RktEngine, engine);
}

/* pod.c */
RktPod *rkt_pod_find(RktEngine *e, const char *id);
/* Where rkt writes the logs of a pod's apps for us, beside its own data: whatever happens to our state, it goes on
 * there. Owned by the caller. */
char *rkt_log_directory(const Rkt *rkt, const char *pod_id);
/* What rkt has called the pod, from the pod's directory, or by our mark in rkt's list where it may have begun before it
 * could say so; owned by the caller. -ENOENT: it never was rkt's. */
int rkt_pod_find_uuid(const Rkt *rkt, const EnginePod *pod, char **ret, Error *error);
RktPod *rkt_pod_ref(RktPod *p);
RktPod *rkt_pod_unref(RktPod *p);
DEFINE_TRIVIAL_CLEANUP_FUNC(RktPod *, rkt_pod_unref);
void rkt_pod_forget(RktPod *p);
int rkt_pod_start(Engine *e, const EnginePod *pod, EnginePodState *ret, Error *error);
int rkt_pod_netns(Engine *e, const EnginePod *pod, char **ret, Error *error);
int rkt_pod_stop(Engine *e, const EnginePod *pod, Error *error);
int rkt_pod_remove(Engine *e, const EnginePod *pod, Error *error);
int rkt_pod_load(Engine *e, const EnginePod *pod, EnginePodState *ret, Error *error);
int rkt_pod_cgroup(Engine *e, const EnginePod *pod, char **ret);
int rkt_pod_update(Engine *e, const EnginePod *pod, const runtime_v1_LinuxContainerResources *resources, Error *error);

/* network.c */
int rkt_pod_get_addresses(Engine *e, const EnginePod *pod, char ***ret, Error *error);
/* The network of pods: the name in the first configuration. Owned by the caller. */
int rkt_network_name(const Rkt *rkt, char **ret, Error *error);
int rkt_network_status(Engine *e, Error *error);

/* collect.c, recover.c */
int rkt_recover(Engine *e, const char *state_directory, Error *error);
/* (fiber) `rkt app status` as it comes. */
int rkt_app_query_json(const Rkt *rkt, const char *uuid, const char *id, json_t **ret, Error *error);
int rkt_collect(Engine *e, bool (*is_known)(const char *pod_id, void *userdata), void *userdata, Error *error);
/* (fiber) `rkt status` of one pod. */
int rkt_pod_query(const Rkt *rkt, const char *uuid, uint64_t wait_ready_usec, json_t **ret, Error *error);
/* (fiber) `rkt list`: an array. */
int rkt_pod_query_all(const Rkt *rkt, json_t **ret, Error *error);

/* container.c */
RktContainer *rkt_container_find(RktEngine *e, const char *id);
RktContainer *rkt_container_ref(RktContainer *n);
RktContainer *rkt_container_unref(RktContainer *n);
DEFINE_TRIVIAL_CLEANUP_FUNC(RktContainer *, rkt_container_unref);
void rkt_container_forget(RktContainer *n);
/* Something has happened to it: asks rkt what, in a fiber of its own. */
void rkt_container_look(RktContainer *n);
void rkt_container_on_log(RktContainer *n);
int rkt_container_create(Engine *e, const EngineContainer *c, EngineContainerInfo *ret, Error *error);
int rkt_container_start(Engine *e, const EngineContainer *c, EngineContainerState *ret, Error *error);
int rkt_container_stop(Engine *e, const EngineContainer *c, int signo, uint64_t timeout_usec, Error *error);
int rkt_container_remove(Engine *e, const EngineContainer *c, Error *error);
int rkt_container_load(Engine *e, const EngineContainer *c, EngineContainerState *ret, Error *error);
int rkt_container_reopen_log(Engine *e, const EngineContainer *c, Error *error);
int rkt_container_update(Engine *e, const EngineContainer *c, const runtime_v1_LinuxContainerResources *resources,
                         Error *error);
int rkt_container_checkpoint(Engine *e, const EngineContainer *c, const char *location, uint64_t timeout_usec, Error *error);
int rkt_container_layer_usage(Engine *e, const EngineContainer *c, TreeUsage *ret, Error *error);

/* cgroup.c: the app's processes, which run under the pod's own systemd */
/* Finds the app's cgroup below the pod's unit; NULL when it has none. Borrowed from the container. */
const char *rkt_container_find_cgroup(RktContainer *n);
const char *rkt_container_cgroup(Engine *e, const char *id);
/* The app itself, and the pod's PID 1; 0: not found. */
pid_t rkt_container_pid(RktContainer *n);
pid_t rkt_pod_pid(const RktPod *p);
/* A signal to the app's main process, or to all of them. -ESRCH when there is none. */
int rkt_container_kill_with(RktContainer *n, bool all, int signo);
int rkt_container_signal(Engine *e, const char *id, bool all, int signo, Error *error);
/* All of its processes, at once. */
int rkt_container_kill(RktContainer *n);

/* exec.c */
int rkt_container_exec_sync(Engine *e, const EngineContainer *c, const char *const *argv, uint64_t timeout_usec,
                            EngineExecResult *ret, Error *error);
int rkt_container_exec(Engine *e, const EngineContainer *c, const EngineExec *exec, int *ret_exit_code, Error *error);
int rkt_find_running(RktEngine *e, const EngineContainer *c, RktContainer **ret, Error *error);

/* attach.c */
int rkt_container_attach(Engine *e, const EngineContainer *c, EngineAttachFlags flags, int *ret_fd, Error *error);
