#pragma once
/* What the files of this folder share and nobody else sees. */

#include "manager/manager.h"

void manager_emit(Manager *m, ManagerEvent event, Pod *pod, Container *container);

/* Makes the object with its directories' names; not in any table yet. */
int pod_new(Manager *m, const char *id, Pod **ret);
int container_new(Manager *m, Pod *pod, const char *id, Container **ret);
/* Decode and check the request (the bytes as they came) into the new object. */
int pod_decode(Pod *p, const void *request, size_t size, Error *error);
int container_decode(Container *c, const void *request, size_t size, Error *error);
/* Into and out of the tables; the tables hold a reference. -EEXIST (AlreadyExists) when the name is taken. */
int pod_link(Pod *p, Error *error);
void pod_unlink(Pod *p);
int container_link(Container *c, Error *error);
void container_unlink(Container *c);

/* The object as the engine wants it; borrows everything. */
EnginePod pod_engine_view(const Pod *p);
/* Those of its image and of mounted ones; owned by the caller, NULL when out of memory. */
char **container_all_layers(const Container *c);
EngineContainer container_engine_view(const Container *c, EnginePod *storage);

/* (fiber) Takes back whatever was begun, shielded, and forgets the object. Best effort: what fails is logged. */
void pod_undo(Pod *p);
void container_undo(Container *c);
/* Opens Pod.netns_fd, if the pod has a network namespace and it isn't open yet. */
void pod_open_netns(Pod *p);
/* (fiber) CNI DEL, if owed. */
int pod_network_remove(Pod *p, Error *error);

/* What the engine saw: takes it over, saves it, tells the subscribers. */
void pod_apply_state(Pod *p, const EnginePodState *state);
void container_apply_state(Container *c, const EngineContainerState *state);
void container_set_exited(Container *c, uint64_t finished_usec, int exit_code, const char *reason, const char *message);

/* status.c: after an event, what the pod's unit says is brought up to date in a while. */
void status_note_event(Manager *m, ManagerEvent event, Pod *pod);
void status_done(Manager *m);

/* journal.c */
void journal_note_event(ManagerEvent event, const Pod *pod, const Container *container);

/* resources.c: what UpdateContainerResources and UpdatePodSandboxResources left is put over the request. */
void container_load_resources(Container *c);
void pod_load_resources(Pod *p);
/* systemd keeps what was set for a slice, also when it is gone. */
void pod_forget_limits(const Pod *p);
