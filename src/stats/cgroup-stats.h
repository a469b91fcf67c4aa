#pragma once
/* What the kernel has counted for a cgroup (v2): CPU, memory, swap, pressure, processes, block devices. Files that are
 * not there, because a controller is not enabled or the kernel is older, leave their figures unknown. */

#include "basic/macro.h"

#define STAT_UNKNOWN UINT64_MAX
#define CGROUP_DEVICES_MAX 16U   /* block devices reported for one cgroup */
#define CGROUP_DEPTH_MAX 16      /* levels below a cgroup whose processes are counted */

typedef struct PressureLine {
        double avg10, avg60, avg300; /* per cent of the time */
        uint64_t total_usec;
} PressureLine;

typedef struct Pressure {
        bool known;
        PressureLine some, full;
} Pressure;

typedef struct DeviceStats {
        unsigned major, minor;
        uint64_t read_bytes, write_bytes, reads, writes;
} DeviceStats;

/* Limits: unknown as well when there is none ("max"). */
typedef struct CgroupStats {
        uint64_t timestamp_nsec; /* CLOCK_REALTIME */

        uint64_t cpu_usage_nsec, cpu_user_nsec, cpu_system_nsec;
        uint64_t cpu_periods, cpu_throttled_periods, cpu_throttled_nsec;
        Pressure cpu_pressure;

        /* Where the memory controller is not enabled: sums over the cgroup's processes, as proc(5) has them. */
        uint64_t memory_usage, memory_limit;
        uint64_t memory_working_set; /* without what can be dropped at once: file pages not used lately */
        uint64_t memory_anon, memory_file, memory_file_mapped, memory_kernel;
        uint64_t memory_page_faults, memory_major_page_faults;
        uint64_t swap_usage, swap_limit;
        Pressure memory_pressure, io_pressure;

        /* With CGROUP_STATS_DETAILS only. */
        uint64_t memory_peak, memory_limit_hits, oom_kills;
        uint64_t processes, threads, threads_limit;
        DeviceStats devices[CGROUP_DEVICES_MAX];
        size_t n_devices;
} CgroupStats;

typedef enum CgroupStatsFlags {
        CGROUP_STATS_DETAILS = 1 << 0,
} CgroupStatsFlags;

/* dir_fd: the cgroup's directory. -ENODEV or -ENOENT when it is gone. */
int cgroup_stats_read(int dir_fd, CgroupStatsFlags flags, CgroupStats *ret);

/* Processes (not threads) of the cgroup and those below it. */
int cgroup_count_processes(int dir_fd, uint64_t *ret);

/* What processes of the cgroup and those below it have open, as /proc shows it: files (sockets among them), and sockets.
 * Counting ends at `max` files. */
int cgroup_count_descriptors(int dir_fd, uint64_t max, uint64_t *ret_files, uint64_t *ret_sockets);

/* How much CPU was used between two readings; kept by whoever reads. Zeroed memory is one that knows nothing yet. */
typedef struct CpuRate {
        uint64_t timestamp_nsec, usage_nsec;
        uint64_t nano_cores; /* of the last window, valid when known */
        bool known;
} CpuRate;

/* Readings nearer to each other than this are one: a rate over a few milliseconds says nothing. */
#define CPU_RATE_WINDOW_NSEC (NSEC_PER_SEC / 2)

/* Takes a reading into account; the rate as far as one is known, STAT_UNKNOWN otherwise. */
uint64_t cpu_rate_update(CpuRate *r, uint64_t timestamp_nsec, uint64_t usage_nsec);
