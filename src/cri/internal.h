#pragma once
/* What the handlers of the groups share. */

#include "basic/arena.h"
#include "basic/histogram.h"
#include "basic/message.h"
#include "cri/cri.h"

typedef struct EventStream EventStream;

/* Calls of one method that have ended. */
typedef struct MethodStatistics {
        Histogram duration;
        uint64_t code[_GRPC_CODE_MAX];
} MethodStatistics;

struct Cri {
        Manager *manager;
        StreamServer *streams;
        EventStream *event_streams;
        char *settings; /* for the verbose status; may be NULL */
        bool ending;
        MethodStatistics *statistics; /* by method */
};

typedef struct CriCall CriCall;

typedef enum CriFlags {
        CRI_CHANGES = 1 << 0,     /* success is worth a line in the log */
        CRI_BEFORE_LOAD = 1 << 1, /* answered while the state is still being read */
        CRI_STREAMS = 1 << 2,     /* any number of messages; that the client ends it is no failure */
} CriFlags;

typedef struct CriMethod {
        const char *name;
        const pb_msgdesc_t *request; /* NULL: the handler takes the bytes as they are */
        size_t request_size;
        int (*serve)(CriCall *c, Error *error); /* NULL: not implemented */
        CriFlags flags;
} CriMethod;

struct CriCall {
        Cri *cri;
        Manager *manager;
        GrpcCall *call;
        const CriMethod *method;
        const void *raw; /* the request's bytes */
        size_t raw_size;
        void *request; /* decoded; freed after the handler */
        Arena arena;   /* for the reply */

        /* For the log, as far as known. */
        char pod_id[ID_LENGTH + 1], container_id[ID_LENGTH + 1];
        const char *subject; /* "pod sandbox default/web", in the arena */
};

/* Encodes and sends one message; may wait when the client is slow. */
int cri_reply(CriCall *c, const pb_msgdesc_t *fields, const void *response, Error *error);
#define CRI_REPLY(c, type, response, error) cri_reply((c), runtime_v1_##type##_fields, (response), (error))
/* The same for bytes that message_encode() made with cri_allocator. */
extern const MessageAllocator cri_allocator;

/* By ID or prefix, noted for the log. The pointer is borrowed: take a reference before waiting. */
int cri_find_pod(CriCall *c, const char *id, Pod **ret, Error *error);
int cri_find_container(CriCall *c, const char *id, Container **ret, Error *error);
/* For what is idempotent: an unknown one is 0 and NULL. */
int cri_find_pod_if_any(CriCall *c, const char *id, Pod **ret, Error *error);
int cri_find_container_if_any(CriCall *c, const char *id, Container **ret, Error *error);
void cri_note_pod(CriCall *c, const Pod *p);
void cri_note_container(CriCall *c, const Container *k);

/* runtime.c */
int cri_version(CriCall *c, Error *error);
int cri_status(CriCall *c, Error *error);
int cri_runtime_config(CriCall *c, Error *error);
int cri_update_runtime_config(CriCall *c, Error *error);
/* sandbox.c */
int cri_run_pod_sandbox(CriCall *c, Error *error);
int cri_stop_pod_sandbox(CriCall *c, Error *error);
int cri_remove_pod_sandbox(CriCall *c, Error *error);
int cri_pod_sandbox_status(CriCall *c, Error *error);
int cri_list_pod_sandbox(CriCall *c, Error *error);
int cri_stream_pod_sandboxes(CriCall *c, Error *error);
int cri_update_pod_sandbox_resources(CriCall *c, Error *error);
/* container.c */
int cri_create_container(CriCall *c, Error *error);
int cri_start_container(CriCall *c, Error *error);
int cri_stop_container(CriCall *c, Error *error);
int cri_remove_container(CriCall *c, Error *error);
int cri_container_status(CriCall *c, Error *error);
int cri_list_containers(CriCall *c, Error *error);
int cri_stream_containers(CriCall *c, Error *error);
int cri_reopen_container_log(CriCall *c, Error *error);
int cri_update_container_resources(CriCall *c, Error *error);
int cri_checkpoint_container(CriCall *c, Error *error);
/* stats.c */
int cri_container_stats(CriCall *c, Error *error);
int cri_list_container_stats(CriCall *c, Error *error);
int cri_stream_container_stats(CriCall *c, Error *error);
int cri_pod_sandbox_stats(CriCall *c, Error *error);
int cri_list_pod_sandbox_stats(CriCall *c, Error *error);
int cri_stream_pod_sandbox_stats(CriCall *c, Error *error);
/* metrics.c */
int cri_list_metric_descriptors(CriCall *c, Error *error);
int cri_list_pod_sandbox_metrics(CriCall *c, Error *error);
int cri_stream_pod_sandbox_metrics(CriCall *c, Error *error);
/* exec.c */
int cri_exec_sync(CriCall *c, Error *error);
/* streaming.c */
int cri_exec(CriCall *c, Error *error);
int cri_attach(CriCall *c, Error *error);
int cri_port_forward(CriCall *c, Error *error);
/* image.c */
int cri_list_images(CriCall *c, Error *error);
int cri_stream_images(CriCall *c, Error *error);
int cri_image_status(CriCall *c, Error *error);
int cri_pull_image(CriCall *c, Error *error);
int cri_remove_image(CriCall *c, Error *error);
int cri_image_fs_info(CriCall *c, Error *error);
/* events.c */
int cri_get_container_events(CriCall *c, Error *error);
