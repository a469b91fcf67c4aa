#pragma once
/* The CRI's LinuxContainerResources as properties of a unit (systemd.resource-control(5)), and as files of its cgroup
 * where systemd has no property. */

#include "basic/error.h"
#include "basic/macro.h"
#include "runtime.pb.h"
#include "systemd/systemd.h"

#define RESOURCES_CPUS_MAX 8192U   /* number of CPUs and memory nodes in a list */
#define RESOURCES_FILES_MAX 64U    /* cgroup files of `unified` and hugepages */

/* A limit that isn't given. (UINT64_MAX is systemd's infinity.) */
#define LIMIT_UNSET (UINT64_MAX - 1)

typedef struct CpuList {
        uint8_t *mask; /* little-endian bit mask; NULL: not given */
        size_t size;
} CpuList;

typedef struct Resources {
        uint64_t cpu_weight;
        uint64_t cpu_quota_per_sec_usec, cpu_quota_period_usec;
        uint64_t memory_min, memory_low, memory_high, memory_max, memory_swap_max;
        uint64_t tasks_max;
        CpuList cpus, memory_nodes;
        bool oom_group;  /* the kernel ends all of the container when it runs out of memory */
        char **files;    /* "name=value" to be written to the cgroup once it exists; owned */
        char **optional_files; /* the same, where a missing file means that the kernel has no such thing */
} Resources;

#define RESOURCES_INIT                                                                                                 \
        ((Resources) {                                                                                                 \
                .cpu_weight = LIMIT_UNSET, .cpu_quota_per_sec_usec = LIMIT_UNSET,                                      \
                .cpu_quota_period_usec = LIMIT_UNSET, .memory_min = LIMIT_UNSET, .memory_low = LIMIT_UNSET,            \
                .memory_high = LIMIT_UNSET, .memory_max = LIMIT_UNSET, .memory_swap_max = LIMIT_UNSET,                 \
                .tasks_max = LIMIT_UNSET,                                                                              \
        })

void resources_done(Resources *r);

/* r may be NULL: nothing is limited. InvalidArgument for what makes no sense. */
int resources_parse(const runtime_v1_LinuxContainerResources *r, Resources *ret, Error *error);
/* How many properties were added. */
size_t resources_add_properties(const Resources *r, UnitProperties *p);
/* (fiber) Changes those of a loaded unit. */
int resources_set_properties(const Resources *r, Systemd *s, const char *unit, Error *error);
/* Writes the files below the unit's cgroup (a path as ControlGroup has it). */
int resources_write_files(const Resources *r, const char *control_group, Error *error);

/* Writes the limits themselves to a cgroup below the unit's, for programs that want to know how much they have. What
 * can't be written isn't: the unit's own limit counts anyway. */
void resources_mirror(const Resources *r, const char *control_group);

/* Corrects what the cgroup says otherwise: somebody has changed the unit (systemctl set-property). What was asked for is
 * left as it was asked for while that is what is in force. True: something was corrected. */
bool resources_read_back(const char *control_group, runtime_v1_LinuxContainerResources *r);

/* A weight of cgroup v2 as shares, see weight_from_shares(). */
int64_t resources_shares_from_weight(uint64_t weight);

/* "0-3,7" as a bit mask. */
int cpu_list_parse(const char *s, CpuList *ret);

/* Opens a cgroup's directory. control_group: as systemd's ControlGroup has it. */
int cgroup_open(const char *control_group);
