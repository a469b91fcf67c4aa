#pragma once
/* Counters of network interfaces, as /proc/PID/net/dev has them for the network namespace of a process: no need to go
 * there. */

#include <net/if.h>

#include "basic/macro.h"

#define NET_INTERFACES_MAX 64U /* interfaces reported for one pod */

typedef struct NetInterface {
        char name[IFNAMSIZ];
        uint64_t rx_bytes, rx_packets, rx_errors, rx_dropped;
        uint64_t tx_bytes, tx_packets, tx_errors, tx_dropped;
} NetInterface;

/* The text of net/dev; without the loopback interface. Returns the number of interfaces. */
size_t net_stats_parse(const char *text, NetInterface ret[static NET_INTERFACES_MAX]);

/* netns_fd: the namespace the process has to be in, so that a process that has the ID by now is not mistaken for it.
 * -ESRCH: it is another one, or none. */
int net_stats_read(pid_t pid, int netns_fd, NetInterface ret[static NET_INTERFACES_MAX], size_t *ret_n);
