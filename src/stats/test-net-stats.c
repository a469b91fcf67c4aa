#include "stats/net-stats.h"

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "basic/test.h"

#define HEAD                                                                                                          \
        "Inter-|   Receive                                                |  Transmit\n"                              \
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls "    \
        "carrier compressed\n"

static void test_interfaces_and_their_counters(void) {
        NetInterface i[NET_INTERFACES_MAX];

        CHECK_EQ(net_stats_parse(HEAD "    lo:     100       1    0    0    0     0          0         0      100 1 0 0 0\n"
                                      "  eth0: 18446744073709551615 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
                                      "eth0:1: 21 22 23 24 0 0 0 0 25 26 27 28 0 0 0 0", i), 2);
        CHECK_STREQ(i[0].name, "eth0");
        CHECK(i[0].rx_bytes == UINT64_MAX);
        CHECK_EQ(i[0].rx_packets, 2);
        CHECK_EQ(i[0].rx_errors, 3);
        CHECK_EQ(i[0].rx_dropped, 4);
        CHECK_EQ(i[0].tx_bytes, 9);
        CHECK_EQ(i[0].tx_packets, 10);
        CHECK_EQ(i[0].tx_errors, 11);
        CHECK_EQ(i[0].tx_dropped, 12);
        CHECK_STREQ(i[1].name, "eth0:1");
        CHECK_EQ(i[1].tx_dropped, 28);
}

static void test_nonsense_is_left_out(void) {
        NetInterface i[NET_INTERFACES_MAX];

        CHECK_EQ(net_stats_parse("", i), 0);
        CHECK_EQ(net_stats_parse(HEAD, i), 0);
        CHECK_EQ(net_stats_parse(HEAD "eth0: 1 2 3\n: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n"
                                      "aninterfacewithalongname: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n", i), 0);
}

static void test_more_interfaces_than_the_limit(void) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        NetInterface i[NET_INTERFACES_MAX];

        for (unsigned n = 0; n < 2 * NET_INTERFACES_MAX; n++)
                CHECK_EQ(buffer_appendf(&b, "e%u: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n", n), 0);
        CHECK_EQ(net_stats_parse(b.data, i), NET_INTERFACES_MAX);
}

static void test_only_a_process_in_that_namespace_is_read(void) {
        _cleanup_close_ int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC),
                            other = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
        NetInterface i[NET_INTERFACES_MAX];
        size_t n = SIZE_MAX;

        CHECK_EQ(net_stats_read(getpid(), own, i, &n), 0);
        CHECK(n <= NET_INTERFACES_MAX);
        CHECK_EQ(net_stats_read(getpid(), other, i, &n), -ESRCH);
        CHECK_EQ(net_stats_read(999999999, own, i, &n), -ESRCH);
        CHECK_EQ(net_stats_read(0, own, i, &n), -ESRCH);
        CHECK_EQ(net_stats_read(getpid(), -1, i, &n), -ESRCH);
}

TEST_MAIN(TEST_CASE(test_interfaces_and_their_counters), TEST_CASE(test_nonsense_is_left_out),
          TEST_CASE(test_more_interfaces_than_the_limit), TEST_CASE(test_only_a_process_in_that_namespace_is_read))
