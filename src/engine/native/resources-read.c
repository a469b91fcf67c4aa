/* The way back: what a unit's cgroup has in force, in the terms of the CRI. Reading three small files is all it takes,
 * so that it can be done whenever a container's status is asked for. */

#include "engine/native/resources.h"

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/string-util.h"

#define PAGE_BYTES 65536U /* the kernel rounds limits of memory to pages, of whichever size */
#define WEIGHT_DEFAULT 100U

/* "max" is UINT64_MAX. */
static int read_number(int dir_fd, const char *name, uint64_t *ret) {
        _cleanup_free_ char *text = NULL;
        int r;

        r = read_file(dir_fd, name, 64, &text, NULL);
        if (r < 0)
                return r;
        text[strcspn(text, "\n")] = '\0';
        if (streq(text, "max")) {
                *ret = UINT64_MAX;
                return 0;
        }
        return parse_u64(text, ret);
}

static uint64_t distance(uint64_t a, uint64_t b) {
        return a > b ? a - b : b - a;
}

static bool read_memory(int dir_fd, const Resources *asked, runtime_v1_LinuxContainerResources *r) {
        uint64_t max, expected = asked->memory_max == LIMIT_UNSET ? UINT64_MAX : asked->memory_max;

        if (read_number(dir_fd, "memory.max", &max) < 0 || distance(max, expected) < PAGE_BYTES)
                return false;
        r->memory_limit_in_bytes = max == UINT64_MAX ? 0 : (int64_t) MIN(max, (uint64_t) INT64_MAX);
        return true;
}

static bool read_weight(int dir_fd, const Resources *asked, runtime_v1_LinuxContainerResources *r) {
        uint64_t weight, expected = asked->cpu_weight == LIMIT_UNSET ? WEIGHT_DEFAULT : asked->cpu_weight;

        if (read_number(dir_fd, "cpu.weight", &weight) < 0 || weight == expected)
                return false;
        r->cpu_shares = resources_shares_from_weight(weight);
        return true;
}

/* systemd may take another period than was asked for: the rate counts. */
static bool read_quota(int dir_fd, const Resources *asked, runtime_v1_LinuxContainerResources *r) {
        uint64_t expected = asked->cpu_quota_per_sec_usec == LIMIT_UNSET ? UINT64_MAX : asked->cpu_quota_per_sec_usec;
        unsigned long long quota, period;
        _cleanup_free_ char *text = NULL;

        if (read_file(dir_fd, "cpu.max", 64, &text, NULL) < 0)
                return false;
        if (startswith(text, "max")) {
                if (expected == UINT64_MAX)
                        return false;
                r->cpu_quota = -1;
                return true;
        }
        if (sscanf(text, "%llu %llu", &quota, &period) != 2 || period == 0 || quota > UINT64_MAX / USEC_PER_SEC ||
            distance(quota * USEC_PER_SEC / period, expected) <= USEC_PER_SEC / 1000)
                return false;
        r->cpu_quota = (int64_t) quota;
        r->cpu_period = (int64_t) period;
        return true;
}

bool resources_read_back(const char *control_group, runtime_v1_LinuxContainerResources *r) {
        _cleanup_(resources_done) Resources asked = RESOURCES_INIT;
        _cleanup_close_ int fd = -1;
        bool corrected;

        if (isempty(control_group) || resources_parse(r, &asked, NULL) < 0)
                return false;
        fd = cgroup_open(control_group);
        if (fd < 0)
                return false;
        corrected = read_memory(fd, &asked, r);
        corrected = read_weight(fd, &asked, r) || corrected;
        return read_quota(fd, &asked, r) || corrected;
}
