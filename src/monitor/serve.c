/* HTTP/1.1 for one page. A client gets an answer and is done with. */

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <utlist.h>

#include "basic/file-util.h"
#include "basic/log.h"
#include "basic/string-util.h"
#include "grpc/listen.h"
#include "monitor/internal.h"
#include "stream/http.h"

#define CLIENT_TIMEOUT_USEC (10 * USEC_PER_SEC)
#define BACKLOG 16
#define METRICS_GROUP "rktlet"

struct MonitorClient {
        Monitor *monitor;
        int fd;
        Fiber *fiber;
        MonitorClient *prev, *next;
};

static int read_head(int fd, uint64_t until, char head[static HTTP_HEAD_MAX], size_t *ret_size) {
        size_t n = 0;

        for (;;) {
                uint64_t now = now_usec(CLOCK_MONOTONIC);
                ssize_t k;
                int r;

                *ret_size = n > 0 ? http_head_size(head, n) : 0;
                if (*ret_size > 0)
                        return 0;
                if (n >= HTTP_HEAD_MAX)
                        return -E2BIG;
                k = recv(fd, head + n, HTTP_HEAD_MAX - n, 0);
                if (k > 0) {
                        n += (size_t) k;
                        continue;
                }
                if (k == 0)
                        return -ECONNRESET;
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
                if (now >= until)
                        return -ETIMEDOUT;
                r = fiber_wait_fd(fd, EPOLLIN, until - now);
                if (r < 0)
                        return r;
        }
}

static int send_all(int fd, uint64_t until, const char *data, size_t size) {
        while (size > 0) {
                uint64_t now = now_usec(CLOCK_MONOTONIC);
                ssize_t k = send(fd, data, size, MSG_NOSIGNAL);
                int r;

                if (k >= 0) {
                        data += k;
                        size -= (size_t) k;
                        continue;
                }
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
                if (now >= until)
                        return -ETIMEDOUT;
                r = fiber_wait_fd(fd, EPOLLOUT, until - now);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int answer(int fd, uint64_t until, const char *status, const char *type, const char *body, size_t size, bool head_only) {
        _cleanup_free_ char *head = strprintf("HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%sConnection: "
                                              "close\r\n\r\n", status, type, size,
                                              startswith(status, "405") ? "Allow: GET, HEAD\r\n" : "");
        int r;

        if (!head)
                return -ENOMEM;
        r = send_all(fd, until, head, strlen(head));
        return r < 0 || head_only ? r : send_all(fd, until, body, size);
}

static int refuse(int fd, uint64_t until, const char *status) {
        _cleanup_free_ char *body = strprintf("%s\n", status + 4);

        return body ? answer(fd, until, status, "text/plain; charset=utf-8", body, strlen(body), false) : -ENOMEM;
}

static int serve_metrics(MonitorClient *c, uint64_t until, bool head_only) {
        _cleanup_free_ char *text = NULL;
        size_t size = 0;
        FILE *f = open_memstream(&text, &size);
        int r;

        if (!f)
                return -ENOMEM;
        r = monitor_write(c->monitor, f);
        if (fclose(f) != 0 || r < 0)
                return refuse(c->fd, until, "500 Internal Server Error");
        return answer(c->fd, until, "200 OK", "text/plain; version=0.0.4; charset=utf-8", text, size, head_only);
}

static int serve_client(void *userdata) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + CLIENT_TIMEOUT_USEC;
        _cleanup_free_ char *head = malloc(HTTP_HEAD_MAX);
        _cleanup_free_ HttpRequest *q = calloc(1, sizeof *q);
        MonitorClient *c = userdata;
        bool head_only;
        size_t size;
        int r;

        if (!head || !q)
                return -ENOMEM;
        r = read_head(c->fd, until, head, &size);
        if (r < 0)
                return r == -E2BIG ? refuse(c->fd, until, "431 Request Header Fields Too Large") : r;
        if (http_parse(head, size, q) < 0)
                return refuse(c->fd, until, "400 Bad Request");
        head_only = streq(q->method, "HEAD");
        if (!head_only && !streq(q->method, "GET"))
                return refuse(c->fd, until, "405 Method Not Allowed");
        if (!streq(q->target, "/metrics"))
                return refuse(c->fd, until, "404 Not Found");
        return serve_metrics(c, until, head_only);
}

static void client_free(void *userdata) {
        MonitorClient *c = userdata;

        if (c->monitor) {
                DL_DELETE(c->monitor->clients, c);
                c->monitor->n_clients--;
        }
        /* What was sent arrives, also when more came than was read. */
        (void) shutdown(c->fd, SHUT_WR);
        (void) safe_close(c->fd);
        fiber_unref(c->fiber);
        free(c);
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        Monitor *m = userdata;
        int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        MonitorClient *c;

        if (client < 0)
                return 0;
        c = m->n_clients < MONITOR_CONNECTIONS_MAX ? calloc(1, sizeof *c) : NULL;
        if (!c) {
                (void) safe_close(client);
                return 0;
        }
        c->fd = client;
        c->monitor = m;
        DL_APPEND(m->clients, c);
        m->n_clients++;
        if (fiber_spawn(m->event, "metrics", serve_client, c, client_free, &c->fiber) < 0)
                client_free(c);
        else
                fiber_run_ready();
        return 0;
}

/* Members of the group that sysusers.d makes may read. (Looked up in the file: the system's services for names would load
 * themselves into the daemon for it.) */
static void give_to_group(const char *path) {
        _cleanup_fclose_ FILE *f = fopen("/etc/group", "re");
        const struct group *g = NULL;

        do
                g = f ? fgetgrent(f) : NULL;
        while (g && !streq(g->gr_name, METRICS_GROUP));
        if (g && lchown(path, (uid_t) -1, g->gr_gid) < 0)
                log_debug_errno(-errno, "Cannot give %s to group " METRICS_GROUP ", ignoring", path);
}

static int listen_port(uint16_t port, int *ret_fd, Error *error) {
        struct sockaddr_in address = {
                .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        };
        _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int one = 1;

        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
            bind(fd, (struct sockaddr *) &address, sizeof address) < 0 || listen(fd, BACKLOG) < 0)
                return error_set(error, -errno, "Cannot serve metrics at 127.0.0.1 port %u (MetricsPort=)", port);
        *ret_fd = TAKE_FD(fd);
        return 0;
}

int monitor_new(sd_event *event, const MonitorConfig *config, Monitor **ret, Error *error) {
        _cleanup_(monitor_freep) Monitor *m = calloc(1, sizeof *m);
        int r;

        if (!m)
                return error_oom(error);
        m->fds[0] = m->fds[1] = -1;
        m->event = sd_event_ref(event);
        m->config = *config;
        if (!isempty(config->socket)) {
                char *path = strdup(config->socket);

                if (!path)
                        return error_oom(error);
                r = listen_unix(path, &m->fds[0], &m->identity, error);
                if (r < 0) {
                        free(path);
                        return error_prefix(error, r, "Cannot serve metrics (MetricsSocket=)");
                }
                m->path = path;
                give_to_group(path);
                (void) fd_set_nonblock(m->fds[0], true);
        }
        if (config->port > 0) {
                r = listen_port(config->port, &m->fds[1], error);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < ELEMENTSOF(m->fds); i++) {
                if (m->fds[i] < 0)
                        continue;
                r = sd_event_add_io(event, &m->sources[i], m->fds[i], EPOLLIN, on_accept, m);
                if (r < 0)
                        return error_set(error, r, "Cannot wait for clients of the metrics");
        }
        *ret = TAKE_PTR(m);
        return 0;
}

Monitor *monitor_free(Monitor *m) {
        MonitorClient *c, *next;

        if (!m)
                return NULL;
        for (size_t i = 0; i < ELEMENTSOF(m->fds); i++) {
                m->sources[i] = sd_event_source_disable_unref(m->sources[i]);
                m->fds[i] = safe_close(m->fds[i]);
        }
        if (m->path)
                listen_unlink(m->path, &m->identity);
        DL_FOREACH_SAFE(m->clients, c, next) {
                DL_DELETE(m->clients, c);
                c->monitor = NULL;
                fiber_cancel(c->fiber);
        }
        sd_event_unref(m->event);
        free(m->path);
        return mfree(m);
}
