#include "stats/net-stats.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"

#define NET_DEV_MAX (64U * 1024U)

/* "  eth0: " and of what was received bytes, packets, errs, drop, fifo, frame, compressed, multicast; then of what was
 * sent bytes, packets, errs, drop, fifo, colls, carrier, compressed. */
static bool parse_line(const char *line, NetInterface *ret) {
        unsigned long long rx[4], tx[4];
        NetInterface i = {};
        const char *colon;
        size_t n;

        line += strspn(line, " ");
        n = strcspn(line, "\n");
        colon = memrchr(line, ':', n);
        if (!colon || colon == line || (size_t) (colon - line) >= sizeof i.name)
                return false;
        memcpy(i.name, line, (size_t) (colon - line));
        if (streq(i.name, "lo") ||
            sscanf(colon + 1, "%llu %llu %llu %llu %*u %*u %*u %*u %llu %llu %llu %llu", &rx[0], &rx[1], &rx[2],
                   &rx[3], &tx[0], &tx[1], &tx[2], &tx[3]) != 8)
                return false;
        i.rx_bytes = rx[0], i.rx_packets = rx[1], i.rx_errors = rx[2], i.rx_dropped = rx[3];
        i.tx_bytes = tx[0], i.tx_packets = tx[1], i.tx_errors = tx[2], i.tx_dropped = tx[3];
        *ret = i;
        return true;
}

size_t net_stats_parse(const char *text, NetInterface ret[static NET_INTERFACES_MAX]) {
        size_t n = 0;

        for (const char *line = text; *line && n < NET_INTERFACES_MAX;) {
                /* The two lines of the heading have no number behind their last colon. */
                if (parse_line(line, &ret[n]))
                        n++;
                line += strcspn(line, "\n");
                line += *line == '\n';
        }
        return n;
}

int net_stats_read(pid_t pid, int netns_fd, NetInterface ret[static NET_INTERFACES_MAX], size_t *ret_n) {
        _cleanup_close_ int dir_fd = -1;
        _cleanup_free_ char *text = NULL;
        struct stat wanted, st;
        char path[32];
        int r;

        if (pid <= 0 || fstat(netns_fd, &wanted) < 0)
                return -ESRCH;
        (void) snprintf(path, sizeof path, "/proc/%d", (int) pid);
        dir_fd = open_directory(AT_FDCWD, path);
        if (dir_fd < 0)
                return dir_fd == -ENOENT ? -ESRCH : dir_fd;
        /* The directory stays that of this process: once it is gone, nothing can be opened there. */
        if (fstatat(dir_fd, "ns/net", &st, 0) < 0 || st.st_dev != wanted.st_dev || st.st_ino != wanted.st_ino)
                return -ESRCH;
        r = read_file(dir_fd, "net/dev", NET_DEV_MAX, &text, NULL);
        if (r < 0)
                return r;
        *ret_n = net_stats_parse(text, ret);
        return 0;
}
