#include "stats/cgroup-stats.h"

#include <fcntl.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "basic/test.h"

static char directory[] = "/tmp/test-cgroup-XXXXXX";
static int dir_fd = -1;

static void begin(void) {
        memcpy(directory + STRLEN("/tmp/test-cgroup-"), "XXXXXX", 6);
        CHECK(mkdtemp(directory));
        dir_fd = open_directory(AT_FDCWD, directory);
        CHECK(dir_fd >= 0);
}

static void end(void) {
        dir_fd = safe_close(dir_fd);
        CHECK_EQ(remove_tree(AT_FDCWD, directory), 0);
}

static void put(const char *name, const char *text) {
        CHECK_EQ(write_file_atomic(dir_fd, name, text, strlen(text), 0600, 0), 0);
}

static void test_all_figures_of_a_cgroup_are_read(void) {
        CgroupStats s;

        begin();
        put("cpu.stat", "usage_usec 5000001\nuser_usec 3000000\nsystem_usec 2000001\ncore_sched.force_idle_usec 9\n"
                        "nr_periods 10\nnr_throttled 4\nthrottled_usec 1500\nnr_bursts 0\nburst_usec 0\n");
        put("memory.current", "10485760\n");
        put("memory.max", "33554432\n");
        put("memory.stat", "anon 4096000\nfile 6000000\nkernel 12345\nfile_mapped 77\ninactive_anon 1\n"
                           "inactive_file 485760\npgfault 100\npgmajfault 3\n");
        put("memory.swap.current", "4096\n");
        put("memory.swap.max", "8192\n");
        put("memory.peak", "20000000\n");
        put("memory.events", "low 0\nhigh 0\nmax 5\noom 2\noom_kill 1\n");
        put("pids.current", "12\n");
        put("pids.max", "max\n");
        put("cpu.pressure", "some avg10=1.50 avg60=2.25 avg300=0.10 total=123456\n");
        put("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
                               "full avg10=0.00 avg60=0.50 avg300=0.00 total=5\n");
        put("io.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"
                           "full avg10=3.00 avg60=0.00 avg300=0.00 total=2\n");
        put("io.stat", "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:0 \n"
                       "8:0 rbytes=9 wbytes=8 rios=7 wios=6 dbytes=0 dios=0\n");
        put("cgroup.procs", "1\n2\n3\n");
        CHECK_EQ(cgroup_stats_read(dir_fd, CGROUP_STATS_DETAILS, &s), 0);
        CHECK(s.timestamp_nsec > 0);
        CHECK_EQ(s.cpu_usage_nsec, 5000001000);
        CHECK_EQ(s.cpu_user_nsec, 3000000000);
        CHECK_EQ(s.cpu_system_nsec, 2000001000);
        CHECK_EQ(s.cpu_periods, 10);
        CHECK_EQ(s.cpu_throttled_periods, 4);
        CHECK_EQ(s.cpu_throttled_nsec, 1500000);
        CHECK_EQ(s.memory_usage, 10485760);
        CHECK_EQ(s.memory_limit, 33554432);
        CHECK_EQ(s.memory_working_set, 10000000);
        CHECK_EQ(s.memory_anon, 4096000);
        CHECK_EQ(s.memory_file, 6000000);
        CHECK_EQ(s.memory_kernel, 12345);
        CHECK_EQ(s.memory_file_mapped, 77);
        CHECK_EQ(s.memory_page_faults, 100);
        CHECK_EQ(s.memory_major_page_faults, 3);
        CHECK_EQ(s.swap_usage, 4096);
        CHECK_EQ(s.swap_limit, 8192);
        CHECK_EQ(s.memory_peak, 20000000);
        CHECK_EQ(s.memory_limit_hits, 5);
        CHECK_EQ(s.oom_kills, 1);
        CHECK_EQ(s.threads, 12);
        CHECK(s.threads_limit == STAT_UNKNOWN);
        CHECK_EQ(s.processes, 3);
        CHECK(s.cpu_pressure.known && fabs(s.cpu_pressure.some.avg60 - 2.25) < 1e-9);
        CHECK_EQ(s.cpu_pressure.some.total_usec, 123456);
        CHECK_EQ(s.cpu_pressure.full.total_usec, 0);
        CHECK(s.memory_pressure.known && fabs(s.memory_pressure.full.avg60 - .5) < 1e-9);
        CHECK_EQ(s.memory_pressure.some.total_usec, 7);
        CHECK_EQ(s.io_pressure.full.total_usec, 2);
        CHECK_EQ(s.n_devices, 2);
        CHECK_EQ(s.devices[0].minor, 16);
        CHECK_EQ(s.devices[1].read_bytes, 9);
        CHECK_EQ(s.devices[1].writes, 6);
        end();
}

static void test_what_no_controller_counts_is_unknown(void) {
        CgroupStats s;

        begin();
        put("cpu.stat", "usage_usec 7\nuser_usec 4\nsystem_usec 3\n");
        put("cgroup.procs", "");
        CHECK_EQ(cgroup_stats_read(dir_fd, CGROUP_STATS_DETAILS, &s), 0);
        CHECK_EQ(s.cpu_usage_nsec, 7000);
        CHECK(s.memory_limit == STAT_UNKNOWN && s.swap_limit == STAT_UNKNOWN);
        CHECK(s.threads == STAT_UNKNOWN && s.threads_limit == STAT_UNKNOWN);
        /* What can't happen without one happened never. */
        CHECK(s.cpu_periods == 0 && s.cpu_throttled_periods == 0 && s.cpu_throttled_nsec == 0);
        CHECK(s.oom_kills == 0 && s.memory_limit_hits == 0);
        CHECK(!s.cpu_pressure.known && !s.memory_pressure.known && !s.io_pressure.known);
        CHECK_EQ(s.n_devices, 0);
        CHECK_EQ(s.processes, 0);
        end();
}

static void test_memory_no_controller_counts_is_that_of_the_processes(void) {
        const size_t size = 16U * 1024U * 1024U;
        CgroupStats one, two;
        char pid[64];
        char *touched;

        begin();
        put("cpu.stat", "usage_usec 7\n");
        CHECK_EQ(cgroup_stats_read(dir_fd, 0, &one), 0);
        CHECK(one.memory_usage == STAT_UNKNOWN && one.memory_page_faults == STAT_UNKNOWN);

        put("cgroup.procs", "");
        CHECK_EQ(cgroup_stats_read(dir_fd, 0, &one), 0);
        CHECK(one.memory_usage == 0 && one.memory_working_set == 0 && one.swap_usage == 0);

        (void) snprintf(pid, sizeof pid, "%d\n999999999\n", (int) getpid());
        put("cgroup.procs", pid);
        CHECK_EQ(cgroup_stats_read(dir_fd, CGROUP_STATS_DETAILS, &one), 0);
        touched = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(touched != MAP_FAILED);
        memset(touched, 1, size);
        CHECK_EQ(cgroup_stats_read(dir_fd, CGROUP_STATS_DETAILS, &two), 0);
        CHECK(one.memory_usage > 0 && one.memory_file_mapped > 0 && one.memory_page_faults > 0);
        CHECK(one.memory_usage == one.memory_anon + one.memory_file + one.memory_kernel);
        CHECK(two.memory_anon >= one.memory_anon + size && two.memory_anon < one.memory_anon + 4 * size);
        CHECK(two.memory_working_set >= one.memory_working_set + size);
        CHECK(two.memory_peak >= two.memory_anon && two.memory_page_faults > one.memory_page_faults);
        CHECK_EQ(munmap(touched, size), 0);
        end();
}

static void test_no_limit_is_no_number(void) {
        CgroupStats s;

        begin();
        put("cpu.stat", "usage_usec 7\n");
        put("memory.current", "100\n");
        put("memory.max", "max\n");
        put("memory.stat", "inactive_file 200\n");
        CHECK_EQ(cgroup_stats_read(dir_fd, 0, &s), 0);
        CHECK(s.memory_limit == STAT_UNKNOWN);
        CHECK_EQ(s.memory_working_set, 0); /* not less than nothing */
        CHECK(s.threads == STAT_UNKNOWN && s.processes == STAT_UNKNOWN);
        end();
}

static void test_a_cgroup_that_is_gone_is_an_error(void) {
        CgroupStats s;

        begin();
        CHECK_EQ(cgroup_stats_read(dir_fd, 0, &s), -ENOENT);
        end();
}

static void test_nonsense_in_files_is_no_figure(void) {
        static const char *const names[] = { "memory.current", "memory.max", "memory.stat", "cpu.pressure", "io.stat",
                                             "memory.events", "pids.current" };
        static const char *const texts[] = { "", "\n", "x", "-1\n", "some\n", "some avg10=x\n",
                                             "99999999999999999999\n", "8:0\n", "a b c\n", "anon\nfile x\n" };
        CgroupStats s;

        begin();
        put("cpu.stat", "usage_usec\nuser_usec x\n\nsystem_usec 3");
        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                for (size_t j = 0; j < ELEMENTSOF(names); j++)
                        put(names[j], texts[i]);
                CHECK_EQ(cgroup_stats_read(dir_fd, CGROUP_STATS_DETAILS, &s), 0);
                CHECK(s.cpu_usage_nsec == STAT_UNKNOWN && s.memory_usage == STAT_UNKNOWN && !s.cpu_pressure.known);
                CHECK_EQ(s.cpu_system_nsec, 3000);
                CHECK_EQ(s.n_devices, 0);
        }
        end();
}

static void test_a_file_longer_than_the_buffer_is_read_as_far_as_it_goes(void) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        CgroupStats s;

        begin();
        put("cpu.stat", "usage_usec 1\n");
        for (unsigned i = 0; i < 1000; i++)
                CHECK_EQ(buffer_appendf(&b, "8:%u rbytes=%u wbytes=1 rios=1 wios=1 dbytes=0 dios=0\n", i, i), 0);
        put("io.stat", b.data);
        CHECK_EQ(cgroup_stats_read(dir_fd, CGROUP_STATS_DETAILS, &s), 0);
        CHECK_EQ(s.n_devices, CGROUP_DEVICES_MAX);
        CHECK_EQ(s.devices[15].read_bytes, 15);
        end();
}

static void test_processes_below_are_counted_too(void) {
        uint64_t n, files, sockets;
        char pid[32];
        int pair[2];

        begin();
        put("cgroup.procs", "10\n11\n");
        put("cgroup.stat", "nr_descendants 2\nnr_dying_descendants 0\n");
        CHECK_EQ(mkdirat(dir_fd, "a", 0700), 0);
        CHECK_EQ(mkdirat(dir_fd, "a/b", 0700), 0);
        put("a/cgroup.procs", "");
        put("a/b/cgroup.procs", "12\n");
        CHECK_EQ(cgroup_count_processes(dir_fd, &n), 0);
        CHECK_EQ(n, 3);
        put("cgroup.stat", "nr_descendants 0\n");
        CHECK_EQ(cgroup_count_processes(dir_fd, &n), 0);
        CHECK_EQ(n, 2);

        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        (void) snprintf(pid, sizeof pid, "%d\n999999999\n", (int) getpid());
        put("cgroup.procs", pid);
        CHECK_EQ(cgroup_count_descriptors(dir_fd, 1000, &files, &sockets), 0);
        CHECK(files >= sockets + 1 && sockets >= 2);
        CHECK_EQ(cgroup_count_descriptors(dir_fd, 1, &files, &sockets), 0);
        CHECK_EQ(files, 1);
        (void) close(pair[0]);
        (void) close(pair[1]);
        end();
}

static void test_the_rate_is_that_between_two_readings(void) {
        CpuRate r = {};

        CHECK(cpu_rate_update(&r, 10 * NSEC_PER_SEC, 1000) == STAT_UNKNOWN);
        /* Too near: nothing known yet. */
        CHECK(cpu_rate_update(&r, 10 * NSEC_PER_SEC + 1000, 2000) == STAT_UNKNOWN);
        CHECK_EQ(cpu_rate_update(&r, 12 * NSEC_PER_SEC, 1000 + NSEC_PER_SEC), NSEC_PER_SEC / 2);
        /* Too near: the last one holds. */
        CHECK_EQ(cpu_rate_update(&r, 12 * NSEC_PER_SEC + 1, 1000 + NSEC_PER_SEC), NSEC_PER_SEC / 2);
        CHECK_EQ(cpu_rate_update(&r, 13 * NSEC_PER_SEC, 1000 + NSEC_PER_SEC), 0);
        /* The clock was set back. */
        CHECK(cpu_rate_update(&r, 5 * NSEC_PER_SEC, 1000 + NSEC_PER_SEC) == STAT_UNKNOWN);
        CHECK_EQ(cpu_rate_update(&r, 6 * NSEC_PER_SEC, 1000 + 2 * NSEC_PER_SEC), NSEC_PER_SEC);
}

TEST_MAIN(TEST_CASE(test_all_figures_of_a_cgroup_are_read), TEST_CASE(test_what_no_controller_counts_is_unknown),
          TEST_CASE(test_memory_no_controller_counts_is_that_of_the_processes), TEST_CASE(test_no_limit_is_no_number), TEST_CASE(test_a_cgroup_that_is_gone_is_an_error),
          TEST_CASE(test_nonsense_in_files_is_no_figure),
          TEST_CASE(test_a_file_longer_than_the_buffer_is_read_as_far_as_it_goes),
          TEST_CASE(test_processes_below_are_counted_too), TEST_CASE(test_the_rate_is_that_between_two_readings))
