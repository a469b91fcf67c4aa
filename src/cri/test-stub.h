#pragma once
/* For the tests of the handlers: a manager built by hand, and stubs of everything below it. */

#include "basic/log.h"
#include "basic/test.h"
#include "cri/internal.h"

/* What the stubs answer, and what they were asked. */
typedef struct Stub {
        const void *raw;
        size_t raw_size;
        Pod *pod;
        Container *container;
        uint64_t timeout_usec;
        char *argv;
        EngineExecResult exec;
        char *auth;
        Image *images[8];
        int result; /* of operations */
        int loaded, network, systemd;
        char pod_cidrs[128]; /* the last ones told */
        int64_t memory_limit;
        bool no_memory, no_network, no_layers;
        unsigned measured;
} Stub;

extern Stub stub;
extern Manager manager;
extern Cri *cri;
extern Pod pods[3];             /* a: ready, b: not ready, c: starting */
extern Container containers[4]; /* 1: running in a, 2: exited in a, 3: unknown in b, 4: being created in a */
extern Image images[3];         /* sha256:aa, sha256:bb, sha256:cc */

/* A literal where nanopb wants a char pointer. */
static inline char *s(const char *text) {
        return (char *) text;
}

/* All of the above as new. */
void build(void);
void make_container(Container *k, char digit, Pod *p, const char *name, ContainerPhase phase);
/* Everything that can be known of a container. */
void fill_container(Container *k);
