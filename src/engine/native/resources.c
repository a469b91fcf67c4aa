/* Limits of a container: what systemd knows is set by its properties, so that systemctl shows it and a reload keeps
 * it; the rest are files of the cgroup, which is delegated to us. */

#include "engine/native/resources.h"

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/string-util.h"

#define CPU_SHARES_MIN 2
#define CPU_SHARES_MAX 262144
#define CPU_WEIGHT_MAX 10000
#define CPU_PERIOD_DEFAULT_USEC 100000
#define CPU_PERIOD_MIN_USEC 1000
#define CPU_PERIOD_MAX_USEC 1000000

void resources_done(Resources *r) {
        free(r->cpus.mask);
        free(r->memory_nodes.mask);
        strv_free(r->files);
        strv_free(r->optional_files);
        *r = RESOURCES_INIT;
}

/* "12" or "12-15" at *s, which is moved behind it. */
static int range_parse(const char **s, uint32_t *ret_first, uint32_t *ret_last) {
        uint32_t v[2];
        size_t i = 0;

        for (;; i++) {
                char digits[11];
                size_t n = strspn(*s, "0123456789");
                int r;

                if (n == 0 || n >= sizeof digits)
                        return -EINVAL;
                memcpy(digits, *s, n);
                digits[n] = 0;
                r = parse_u32(digits, &v[i]);
                if (r < 0)
                        return r;
                *s += n;
                if (i == 1 || **s != '-')
                        break;
                (*s)++;
        }
        *ret_first = v[0];
        *ret_last = i == 1 ? v[1] : v[0];
        return *ret_first <= *ret_last && *ret_last < RESOURCES_CPUS_MAX ? 0 : -ERANGE;
}

int cpu_list_parse(const char *s, CpuList *ret) {
        uint8_t mask[RESOURCES_CPUS_MAX / 8] = {};
        uint32_t first, last, highest = 0;
        uint8_t *copy;
        int r;

        for (;;) {
                r = range_parse(&s, &first, &last);
                if (r < 0)
                        return r;
                for (uint32_t i = first; i <= last; i++)
                        mask[i / 8] |= (uint8_t) (1U << i % 8);
                highest = MAX(highest, last);
                if (!*s)
                        break;
                if (*s++ != ',')
                        return -EINVAL;
        }
        copy = malloc(highest / 8 + 1);
        if (!copy)
                return -ENOMEM;
        memcpy(copy, mask, highest / 8 + 1);
        *ret = (CpuList) { copy, highest / 8 + 1 };
        return 0;
}

static int parse_cpu_list(const char *s, const char *what, CpuList *ret, Error *error) {
        CpuList l;
        int r;

        if (isempty(s))
                return 0;
        r = cpu_list_parse(s, &l);
        if (r == -ENOMEM)
                return error_oom(error);
        if (r < 0)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "%s '%.64s' is no list such as 0-3,7 with numbers below %u", what, s,
                                  RESOURCES_CPUS_MAX);
        free(ret->mask);
        *ret = l;
        return 0;
}

/* Shares of cgroup v1 as weight of v2: the line from 2..262144 to 1..10000, as the OCI runtimes convert it. */
static uint64_t weight_from_shares(int64_t shares) {
        shares = MIN(MAX(shares, (int64_t) CPU_SHARES_MIN), (int64_t) CPU_SHARES_MAX);
        return (uint64_t) (1 + (shares - CPU_SHARES_MIN) * (CPU_WEIGHT_MAX - 1) / (CPU_SHARES_MAX - CPU_SHARES_MIN));
}

int64_t resources_shares_from_weight(uint64_t weight) {
        weight = MIN(MAX(weight, UINT64_C(1)), (uint64_t) CPU_WEIGHT_MAX);
        return (int64_t) (CPU_SHARES_MIN + (weight - 1) * (CPU_SHARES_MAX - CPU_SHARES_MIN) / (CPU_WEIGHT_MAX - 1));
}

static int parse_cpu(const runtime_v1_LinuxContainerResources *r, Resources *ret, Error *error) {
        int64_t period = r->cpu_period;

        if (r->cpu_shares < 0)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "cpu_shares is negative");
        if (r->cpu_shares > 0)
                ret->cpu_weight = weight_from_shares(r->cpu_shares);
        if (period != 0 && (period < CPU_PERIOD_MIN_USEC || period > CPU_PERIOD_MAX_USEC))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "cpu_period %lld is not between %d and %d µs",
                                  (long long) period, CPU_PERIOD_MIN_USEC, CPU_PERIOD_MAX_USEC);
        if (r->cpu_quota == 0 && period == 0)
                return 0;
        if (period == 0)
                period = CPU_PERIOD_DEFAULT_USEC;
        ret->cpu_quota_period_usec = (uint64_t) period;
        if (r->cpu_quota < 0)
                ret->cpu_quota_per_sec_usec = USEC_INFINITY;
        else if (r->cpu_quota > 0) {
                if ((uint64_t) r->cpu_quota > UINT64_MAX / 4 / USEC_PER_SEC)
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "cpu_quota is too large");
                /* Rounded up, so that systemd's way back gives what was asked for. */
                ret->cpu_quota_per_sec_usec = ((uint64_t) r->cpu_quota * USEC_PER_SEC + (uint64_t) period - 1) /
                                              (uint64_t) period;
        }
        return 0;
}

static int parse_memory(const runtime_v1_LinuxContainerResources *r, Resources *ret, Error *error) {
        int64_t limit = r->memory_limit_in_bytes, both = r->memory_swap_limit_in_bytes;

        if (limit < -1 || both < -1)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "a memory limit is negative");
        if (limit != 0)
                ret->memory_max = limit < 0 ? UINT64_MAX : (uint64_t) limit;
        if (both == -1)
                ret->memory_swap_max = UINT64_MAX;
        else if (both > 0) {
                if (limit <= 0)
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "memory_swap_limit_in_bytes is given without memory_limit_in_bytes");
                if (both < limit)
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "memory_swap_limit_in_bytes %lld counts memory too, and is less than "
                                          "memory_limit_in_bytes %lld", (long long) both, (long long) limit);
                ret->memory_swap_max = (uint64_t) (both - limit);
        }
        return 0;
}

static int unified_number(const char *key, const char *value, uint64_t *ret, Error *error) {
        if (streq(value, "max")) {
                *ret = UINT64_MAX;
                return 0;
        }
        if (parse_u64(value, ret) < 0 || *ret >= LIMIT_UNSET)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "'%.64s' of unified '%s' is no number and not 'max'",
                                  value, key);
        return 0;
}

/* "QUOTA PERIOD", each a number of microseconds, QUOTA perhaps "max". */
static int unified_cpu_max(const char *value, Resources *ret, Error *error) {
        runtime_v1_LinuxContainerResources r = {};
        _cleanup_strv_free_ char **words = NULL;
        uint64_t quota, period = CPU_PERIOD_DEFAULT_USEC;
        int k;

        k = strv_split(value, " ", &words);
        if (k < 0)
                return error_oom(error);
        if (strv_length(words) < 1 || strv_length(words) > 2)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "'%.64s' of unified 'cpu.max' is not \"QUOTA PERIOD\"",
                                  value);
        k = unified_number("cpu.max", words[0], &quota, error);
        if (k < 0)
                return k;
        if (words[1] && parse_u64(words[1], &period) < 0)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "'%.64s' of unified 'cpu.max' is not \"QUOTA PERIOD\"",
                                  value);
        r.cpu_quota = quota == UINT64_MAX ? -1 : (int64_t) MIN(quota, (uint64_t) INT64_MAX);
        r.cpu_period = (int64_t) MIN(period, (uint64_t) INT64_MAX);
        return parse_cpu(&r, ret, error);
}

/* A file name of a cgroup: "misc.max", "hugetlb.2MB.max". */
static bool file_name_is_valid(const char *s) {
        size_t n = strlen(s);

        return n > 0 && n <= 64 && strchr(s, '.') && s[0] != '.' && !strstr(s, "..") && !startswith(s, "cgroup.") &&
               strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._") == n;
}

static int unified_one(const char *key, const char *value, Resources *ret, Error *error) {
        const struct {
                const char *key;
                uint64_t *limit;
        } numbers[] = {
                { "memory.min", &ret->memory_min },   { "memory.low", &ret->memory_low },
                { "memory.high", &ret->memory_high }, { "memory.max", &ret->memory_max },
                { "memory.swap.max", &ret->memory_swap_max }, { "pids.max", &ret->tasks_max },
                { "cpu.weight", &ret->cpu_weight },
        };
        int k;

        for (size_t i = 0; i < ELEMENTSOF(numbers); i++)
                if (streq(key, numbers[i].key))
                        return unified_number(key, value, numbers[i].limit, error);
        if (streq(key, "cpu.max"))
                return unified_cpu_max(value, ret, error);
        if (streq(key, "cpuset.cpus"))
                return parse_cpu_list(value, "unified cpuset.cpus", &ret->cpus, error);
        if (streq(key, "cpuset.mems"))
                return parse_cpu_list(value, "unified cpuset.mems", &ret->memory_nodes, error);
        if (streq(key, "memory.oom.group")) {
                if (!streq(value, "0") && !streq(value, "1"))
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "unified memory.oom.group is neither 0 nor 1");
                ret->oom_group = value[0] == '1';
                return 0;
        }
        if (!file_name_is_valid(key) || strpbrk(value, "\n\r") || strlen(value) > 4096)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "unified '%.64s' is no cgroup file that can be set",
                                  key);
        k = strv_extendf(&ret->files, "%s=%s", key, value);
        return k < 0 ? error_oom(error) : 0;
}

static int parse_files(const runtime_v1_LinuxContainerResources *r, Resources *ret, Error *error) {
        int k;

        if (r->unified_count + r->hugepage_limits_count > RESOURCES_FILES_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "more than %u unified and hugepage limits",
                                  RESOURCES_FILES_MAX);
        for (size_t i = 0; i < r->unified_count; i++) {
                k = unified_one(strempty(r->unified[i].key), strempty(r->unified[i].value), ret, error);
                if (k < 0)
                        return k;
        }
        for (size_t i = 0; i < r->hugepage_limits_count; i++) {
                const runtime_v1_HugepageLimit *h = &r->hugepage_limits[i];
                _cleanup_free_ char *name = strprintf("hugetlb.%s.max", strempty(h->page_size));

                if (!name)
                        return error_oom(error);
                if (isempty(h->page_size) || strchr(h->page_size, '.') || !file_name_is_valid(name))
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "'%.64s' is no size of a huge page, such as 2MB", strempty(h->page_size));
                k = strv_extendf(&ret->optional_files, "%s=%llu", name, (unsigned long long) h->limit);
                if (k < 0)
                        return error_oom(error);
        }
        return 0;
}

int resources_parse(const runtime_v1_LinuxContainerResources *r, Resources *ret, Error *error) {
        _cleanup_(resources_done) Resources a = RESOURCES_INIT;
        int k;

        if (r) {
                k = parse_cpu(r, &a, error);
                if (k >= 0)
                        k = parse_memory(r, &a, error);
                if (k >= 0)
                        k = parse_cpu_list(r->cpuset_cpus, "cpuset_cpus", &a.cpus, error);
                if (k >= 0)
                        k = parse_cpu_list(r->cpuset_mems, "cpuset_mems", &a.memory_nodes, error);
                if (k >= 0)
                        k = parse_files(r, &a, error);
                if (k < 0)
                        return k;
        }
        *ret = a;
        a = RESOURCES_INIT;
        return 0;
}

size_t resources_add_properties(const Resources *r, UnitProperties *p) {
        const struct {
                const char *name;
                uint64_t value;
        } numbers[] = {
                { "CPUWeight", r->cpu_weight },
                { "CPUQuotaPerSecUSec", r->cpu_quota_per_sec_usec },
                { "CPUQuotaPeriodUSec", r->cpu_quota_period_usec },
                { "MemoryMin", r->memory_min },
                { "MemoryLow", r->memory_low },
                { "MemoryHigh", r->memory_high },
                { "MemoryMax", r->memory_max },
                { "MemorySwapMax", r->memory_swap_max },
                { "TasksMax", r->tasks_max },
        };

        size_t n = 0;

        for (size_t i = 0; i < ELEMENTSOF(numbers); i++)
                if (numbers[i].value != LIMIT_UNSET) {
                        (void) unit_properties_add_u64(p, numbers[i].name, numbers[i].value);
                        n++;
                }
        if (r->cpus.mask) {
                (void) unit_properties_add_bytes(p, "AllowedCPUs", r->cpus.mask, r->cpus.size);
                n++;
        }
        if (r->memory_nodes.mask) {
                (void) unit_properties_add_bytes(p, "AllowedMemoryNodes", r->memory_nodes.mask, r->memory_nodes.size);
                n++;
        }
        return n;
}

int cgroup_open(const char *control_group) {
        _cleanup_free_ char *path = NULL;

        if (isempty(control_group) || streq(control_group, "/"))
                return -ENOENT;
        path = strprintf("/sys/fs/cgroup%s", control_group);
        if (!path)
                return -ENOMEM;
        return open_directory(AT_FDCWD, path);
}

static int write_file(int dir_fd, const char *name, const char *value) {
        _cleanup_close_ int fd = openat(dir_fd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

        return fd < 0 ? -errno : write_all(fd, value, strlen(value));
}

static int write_files(int dir_fd, char *const *files, bool optional, Error *error) {
        int k;

        STRV_FOREACH(f, files) {
                _cleanup_free_ char *name = strndup(*f, strcspn(*f, "="));

                if (!name)
                        return error_oom(error);
                k = write_file(dir_fd, name, *f + strlen(name) + 1);
                if (k == -ENOENT && optional)
                        continue;
                if (k == -ENOENT)
                        return error_setf(error, GRPC_FAILED_PRECONDITION,
                                          "the container's cgroup has no %s: its controller is not enabled", name);
                if (k < 0)
                        return error_set(error, k, "cannot write '%.64s' to %s of the container's cgroup",
                                         *f + strlen(name) + 1, name);
        }
        return 0;
}

int resources_set_properties(const Resources *r, Systemd *s, const char *unit, Error *error) {
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;

        if (unit_properties_new(&p) < 0)
                return error_oom(error);
        return resources_add_properties(r, p) > 0 ? unit_set_properties(s, unit, p, error) : 0;
}

int resources_write_files(const Resources *r, const char *control_group, Error *error) {
        _cleanup_close_ int fd = -1;
        int k;

        if (!r->files && !r->optional_files)
                return 0;
        fd = cgroup_open(control_group);
        if (fd < 0)
                return error_set(error, fd, "cannot open cgroup %s", strempty(control_group));
        k = write_files(fd, r->files, /* optional= */ false, error);
        if (k < 0)
                return k;
        return write_files(fd, r->optional_files, /* optional= */ true, error);
}

static void mirror_number(int dir_fd, const char *name, uint64_t value) {
        char text[24] = "max";

        if (value == LIMIT_UNSET)
                return;
        if (value != UINT64_MAX)
                (void) snprintf(text, sizeof text, "%llu", (unsigned long long) value);
        (void) write_file(dir_fd, name, text);
}

static void mirror_cpu(int dir_fd, const Resources *r) {
        uint64_t period = r->cpu_quota_period_usec < LIMIT_UNSET ? r->cpu_quota_period_usec : CPU_PERIOD_DEFAULT_USEC;
        char text[64];

        if (r->cpu_quota_per_sec_usec == LIMIT_UNSET)
                return;
        if (r->cpu_quota_per_sec_usec == UINT64_MAX)
                (void) snprintf(text, sizeof text, "max %llu", (unsigned long long) period);
        else
                (void) snprintf(text, sizeof text, "%llu %llu",
                                (unsigned long long) ((unsigned __int128) r->cpu_quota_per_sec_usec * period / USEC_PER_SEC),
                                (unsigned long long) period);
        (void) write_file(dir_fd, "cpu.max", text);
}

void resources_mirror(const Resources *r, const char *control_group) {
        _cleanup_close_ int fd = cgroup_open(control_group);

        if (fd < 0)
                return;
        mirror_cpu(fd, r);
        mirror_number(fd, "memory.high", r->memory_high);
        mirror_number(fd, "memory.max", r->memory_max);
        mirror_number(fd, "memory.swap.max", r->memory_swap_max);
        mirror_number(fd, "pids.max", r->tasks_max);
}
