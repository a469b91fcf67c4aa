#pragma once
/* The manager's objects as the CRI's messages, and the filters over them. The messages borrow from the object and the
 * arena, and are good until the next wait: encode them before. */

#include "basic/arena.h"
#include "manager/manager.h"
#include "runtime.pb.h"

/* nanopb makes a struct of its own for the entries of each map; all are a key and a value (describe.c asserts it), so that
 * one message's map can be lent to another. */
#define LEND_MAP(to, from, field)                                                                                     \
        ({                                                                                                            \
                (to)->field = (void *) (from)->field;                                                                 \
                (to)->field##_count = (from)->field##_count;                                                          \
        })

/* A NULL filter matches everything that is not still being made. An ID matches by prefix. */
bool pod_matches(const Pod *p, const runtime_v1_PodSandboxFilter *filter);
bool container_matches(const Container *k, const runtime_v1_ContainerFilter *filter);

void pod_describe(const Pod *p, runtime_v1_PodSandbox *ret);
void container_describe(const Container *k, runtime_v1_Container *ret);

/* -ENOMEM. */
int image_describe(const Image *i, Arena *arena, runtime_v1_Image *ret);
int pod_describe_status(const Pod *p, Arena *arena, runtime_v1_PodSandboxStatus *ret);
int container_describe_status(const Container *k, Arena *arena, runtime_v1_ContainerStatus *ret);
/* Those of all containers of the pod but `without` (may be NULL). */
int pod_describe_containers(const Pod *p, const Container *without, Arena *arena, runtime_v1_ContainerStatus **ret,
                            pb_size_t *ret_n);

/* Between the kernel's signal numbers and the CRI's; RUNTIME_DEFAULT for what has none. */
runtime_v1_Signal signal_to_cri(int signo);
