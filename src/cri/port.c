#include "cri/port.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "basic/fiber.h"
#include "basic/log.h"

/* A socket belongs to the network namespace in which it was made, whatever its owner is in later: so the daemon, which
 * has one thread, goes there for one system call. */
static int socket_in(const char *netns, int family, int *ret, Error *error) {
        _cleanup_close_ int own = -1, there = -1;
        int fd, saved;

        if (netns) {
                own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
                if (own < 0)
                        return error_set(error, -errno, "cannot open our own network namespace");
                there = open(netns, O_RDONLY | O_CLOEXEC);
                if (there < 0)
                        return error_set(error, -errno, "cannot open the pod's network namespace");
                if (setns(there, CLONE_NEWNET) < 0)
                        return error_set(error, -errno, "cannot enter the pod's network namespace");
        }
        fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        saved = errno;
        if (netns && setns(own, CLONE_NEWNET) < 0) {
                /* Everything after this would be done in the wrong network. */
                log_error("Cannot return to our network namespace: %s", strerror(errno));
                abort();
        }
        if (fd < 0)
                return error_set(error, -saved, "cannot make a socket in the pod's network namespace");
        *ret = fd;
        return 0;
}

static int connect_to(int fd, const struct sockaddr *address, socklen_t size) {
        int r, result = 0;

        if (connect(fd, address, size) >= 0)
                return 0;
        if (errno != EINPROGRESS)
                return -errno;
        r = fiber_wait_fd(fd, EPOLLOUT, PORT_CONNECT_USEC);
        if (r < 0)
                return r;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &result, &(socklen_t) { sizeof result }) < 0)
                return -errno;
        return -result;
}

int port_connect(const char *netns, uint16_t port, int *ret_fd, Error *error) {
        const struct sockaddr_in in = {
                .sin_family = AF_INET,
                .sin_port = htons(port),
                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        };
        const struct sockaddr_in6 in6 = {
                .sin6_family = AF_INET6,
                .sin6_port = htons(port),
                .sin6_addr = IN6ADDR_LOOPBACK_INIT,
        };
        const struct {
                const struct sockaddr *address;
                socklen_t size;
        } tries[] = { { (const struct sockaddr *) &in, sizeof in }, { (const struct sockaddr *) &in6, sizeof in6 } };
        int r = 0, first = 0, one = 1;

        for (size_t i = 0; i < ELEMENTSOF(tries); i++) {
                _cleanup_error_ Error cause = ERROR_INIT;
                _cleanup_close_ int fd = -1;

                r = socket_in(netns, tries[i].address->sa_family, &fd, &cause);
                if (r >= 0)
                        r = connect_to(fd, tries[i].address, tries[i].size);
                if (r >= 0) {
                        (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                        *ret_fd = TAKE_FD(fd);
                        return 0;
                }
                if (r == -ECANCELED || r == -ETIME)
                        return r;
                if (i == 0) {
                        first = r;
                        if (error_is_set(&cause)) {
                                error_move(error, &cause);
                                return r;
                        }
                }
        }
        /* The kernel may be without IPv6: the first one says more. */
        return error_set(error, first, "nobody answers at 127.0.0.1 or [::1] in the pod");
}
