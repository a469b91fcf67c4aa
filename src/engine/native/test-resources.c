#include "basic/string-util.h"
#include "basic/test.h"
#include "engine/native/resources.h"

static void check_list(const char *s, const char *want) {
        CpuList l = {};
        char hex[64];

        CHECK_EQ(cpu_list_parse(s, &l), 0);
        CHECK(l.size * 2 < sizeof hex);
        hex_encode(l.mask, l.size, hex);
        CHECK_STREQ(hex, want);
        free(l.mask);
}

static void test_cpu_lists(void) {
        static const char *const wrong[] = {"",
                                            ",",
                                            "1,",
                                            "a",
                                            "-1",
                                            "1-",
                                            "3-1",
                                            "1--2",
                                            "1-2-3",
                                            " 1",
                                            "1 ",
                                            "8192",
                                            "0-99999999999",
                                            "18446744073709551616",
                                            "1;2"};
        CpuList l;

        check_list("0", "01");
        check_list("0-3,7", "8f");
        check_list("8", "0001");
        check_list("7-8,0", "8101");
        check_list("3,3,1-3", "0e");
        for (size_t i = 0; i < ELEMENTSOF(wrong); i++)
                CHECK(cpu_list_parse(wrong[i], &l) < 0);
}

static Resources parse(const runtime_v1_LinuxContainerResources *r) {
        Resources ret = RESOURCES_INIT;
        Error error = ERROR_INIT;

        if (resources_parse(r, &ret, &error) < 0) {
                fprintf(stderr, "%s\n", error.message);
                abort();
        }
        return ret;
}

static void refused(const runtime_v1_LinuxContainerResources *r) {
        _cleanup_error_ Error error = ERROR_INIT;
        Resources ret = RESOURCES_INIT;

        CHECK_EQ(resources_parse(r, &ret, &error), grpc_code_to_errno(GRPC_INVALID_ARGUMENT));
        CHECK_EQ(error.code, GRPC_INVALID_ARGUMENT);
}

static void test_nothing_given_limits_nothing(void) {
        Resources r = parse(NULL), s = parse(&(runtime_v1_LinuxContainerResources) {});

        CHECK_EQ(r.cpu_weight, LIMIT_UNSET);
        CHECK_EQ(s.cpu_weight, LIMIT_UNSET);
        CHECK_EQ(s.cpu_quota_per_sec_usec, LIMIT_UNSET);
        CHECK_EQ(s.memory_max, LIMIT_UNSET);
        CHECK_EQ(s.tasks_max, LIMIT_UNSET);
        CHECK(!s.cpus.mask && !s.files && !s.oom_group);
}

static void test_cpu(void) {
        static const int64_t shares[][2] = { { 1, 1 }, { 2, 1 }, { 1024, 39 }, { 262144, 10000 }, { 500000, 10000 } };
        Resources r;

        for (size_t i = 0; i < ELEMENTSOF(shares); i++) {
                r = parse(&(runtime_v1_LinuxContainerResources) { .cpu_shares = shares[i][0] });
                CHECK_EQ(r.cpu_weight, shares[i][1]);
        }
        r = parse(&(runtime_v1_LinuxContainerResources) { .cpu_quota = 50000, .cpu_period = 100000 });
        CHECK_EQ(r.cpu_quota_per_sec_usec, 500000);
        CHECK_EQ(r.cpu_quota_period_usec, 100000);
        r = parse(&(runtime_v1_LinuxContainerResources) { .cpu_quota = 250000 });
        CHECK_EQ(r.cpu_quota_per_sec_usec, 2500000);
        r = parse(&(runtime_v1_LinuxContainerResources) { .cpu_quota = -1, .cpu_period = 100000 });
        CHECK_EQ(r.cpu_quota_per_sec_usec, USEC_INFINITY);
        /* systemd computes quota = per second * period / second: what was asked for comes out again. */
        r = parse(&(runtime_v1_LinuxContainerResources) { .cpu_quota = 1000, .cpu_period = 30000 });
        CHECK_EQ(r.cpu_quota_per_sec_usec * 30000 / USEC_PER_SEC, 1000);
        refused(&(runtime_v1_LinuxContainerResources) { .cpu_shares = -1 });
        refused(&(runtime_v1_LinuxContainerResources) { .cpu_period = 10 });
        refused(&(runtime_v1_LinuxContainerResources) { .cpu_period = 2000000 });
        refused(&(runtime_v1_LinuxContainerResources) { .cpu_quota = INT64_MAX });
        refused(&(runtime_v1_LinuxContainerResources) { .cpuset_cpus = (char *) "0-x" });
}

static void test_memory(void) {
        Resources r;

        r = parse(&(runtime_v1_LinuxContainerResources){.memory_limit_in_bytes = 100,
                                                        .memory_swap_limit_in_bytes = 150});
        CHECK_EQ(r.memory_max, 100);
        CHECK_EQ(r.memory_swap_max, 50);
        r = parse(&(runtime_v1_LinuxContainerResources){.memory_limit_in_bytes = 100,
                                                        .memory_swap_limit_in_bytes = 100});
        CHECK_EQ(r.memory_swap_max, 0);
        r = parse(&(runtime_v1_LinuxContainerResources){.memory_limit_in_bytes = -1,
                                                        .memory_swap_limit_in_bytes = -1});
        CHECK_EQ(r.memory_max, UINT64_MAX);
        CHECK_EQ(r.memory_swap_max, UINT64_MAX);
        refused(&(runtime_v1_LinuxContainerResources) { .memory_limit_in_bytes = -2 });
        refused(&(runtime_v1_LinuxContainerResources) { .memory_swap_limit_in_bytes = 5 });
        refused(&(runtime_v1_LinuxContainerResources){.memory_limit_in_bytes = 10, .memory_swap_limit_in_bytes = 5});
}

static void test_unified(void) {
        runtime_v1_LinuxContainerResources_UnifiedEntry e[] = {
                { (char *) "memory.high", (char *) "4096" },   { (char *) "memory.min", (char *) "0" },
                { (char *) "pids.max", (char *) "max" },       { (char *) "cpu.max", (char *) "max 50000" },
                { (char *) "memory.oom.group", (char *) "1" }, { (char *) "misc.max", (char *) "res_a 5" },
                { (char *) "cpuset.cpus", (char *) "1" },
        };
        static const char *const wrong[][2] = {
                        {"../memory.max", "1"},
                        {"memory/max", "1"},
                        {"cgroup.procs", "1"},
                        {"noDot", "1"},
                        {"", "1"},
                        {"memory.max", "-1"},
                        {"memory.max", "x"},
                        {"misc.max", "a\nb"},
                        {"memory.oom.group", "2"},
                        {"cpu.max", "1 2 3"},
                        {"a..b", "1"},
                        {".hidden", "1"},
        };
        runtime_v1_HugepageLimit huge[] = { { (char *) "2MB", 0 }, { (char *) "1GB", 5 } };
        Resources r;

        r = parse(&(runtime_v1_LinuxContainerResources) {
                .unified = e, .unified_count = ELEMENTSOF(e), .hugepage_limits = huge, .hugepage_limits_count = 2 });
        CHECK_EQ(r.memory_high, 4096);
        CHECK_EQ(r.memory_min, 0);
        CHECK_EQ(r.tasks_max, UINT64_MAX);
        CHECK_EQ(r.cpu_quota_per_sec_usec, USEC_INFINITY);
        CHECK_EQ(r.cpu_quota_period_usec, 50000);
        CHECK(r.oom_group);
        CHECK_EQ(r.cpus.mask[0], 2);
        CHECK_STREQ(r.files[0], "misc.max=res_a 5");
        CHECK(!r.files[1]);
        CHECK_STREQ(r.optional_files[0], "hugetlb.2MB.max=0");
        CHECK_STREQ(r.optional_files[1], "hugetlb.1GB.max=5");
        resources_done(&r);

        for (size_t i = 0; i < ELEMENTSOF(wrong); i++)
                refused(&(runtime_v1_LinuxContainerResources){
                                .unified = &(runtime_v1_LinuxContainerResources_UnifiedEntry){(char *)wrong[i][0],
                                                                                              (char *)wrong[i][1]},
                                .unified_count = 1});
        refused(&(runtime_v1_LinuxContainerResources){
                        .hugepage_limits = &(runtime_v1_HugepageLimit){(char *)"../../x", 1},
                        .hugepage_limits_count = 1});
}

TEST_MAIN(TEST_CASE(test_cpu_lists), TEST_CASE(test_nothing_given_limits_nothing), TEST_CASE(test_cpu),
          TEST_CASE(test_memory), TEST_CASE(test_unified))
