#pragma once
/* The Container Runtime Interface v1 (proto/runtime.proto) on top of the manager and the image store: each call is
 * decoded, checked, done by an object's operation, and answered. Nothing is kept here but the streams that are open.
 */

#include "basic/macro.h"
#include "grpc/grpc.h"
#include "manager/manager.h"
#include "stream/stream.h"

typedef struct Cri Cri;

/* manager is borrowed and must outlive the server. -ENOMEM. */
int cri_new(Manager *manager, Cri **ret);
/* Where Exec, Attach and PortForward send their clients; borrowed. Without one they answer Unavailable. */
void cri_set_streams(Cri *c, StreamServer *streams);
/* The configuration in force, as --dump-config prints it, for the verbose Status. -ENOMEM. */
int cri_set_settings(Cri *c, const char *text);
/* Calls by method and code, and how long they took, as Prometheus reads it. */
void cri_write_metrics(const Cri *c, FILE *f);
/* After the last call has ended. */
Cri *cri_free(Cri *c);
DEFINE_TRIVIAL_CLEANUP_FUNC(Cri *, cri_free);

/* All 41 methods, for grpc_server_new(event, cri_methods(), cri, …). */
const GrpcMethod *cri_methods(void);

/* Lets streams that would go on for ever (GetContainerEvents) end with OK after what is queued, so that a drain comes
 * to its end. New ones answer Unavailable. */
void cri_end_streams(Cri *c);
