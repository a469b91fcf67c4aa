#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "basic/fiber.h"
#include "basic/kill-point.h"
#include "engine/native/pod-client.h"
#include "pod/pod-protocol.h"

/* For all tries of a request together. */
#define REQUEST_TIMEOUT_USEC (30 * USEC_PER_SEC)
/* Between two tries when the socket is not there, or its backlog is full: it is on the way. */
#define RETRY_USEC (10 * USEC_PER_MSEC)

typedef struct Call {
        PodRequest header;
        const char *id, *path;
        int fds[_POD_DESCRIPTOR_MAX];
} Call;

static Call call_make(uint32_t operation, const char *id, const char *path) {
        Call c = { .header = { .magic = POD_PROTOCOL_MAGIC, .operation = operation }, .id = id, .path = path };

        for (size_t i = 0; i < _POD_DESCRIPTOR_MAX; i++)
                c.fds[i] = -1;
        return c;
}

static int call_connect(const char *socket_path, uint64_t until) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_close_ int fd = -1;
        int r;

        if (strlen(socket_path) >= sizeof address.sun_path)
                return -ENAMETOOLONG;
        strcpy(address.sun_path, socket_path);

        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        while (connect(fd, (struct sockaddr *) &address, sizeof address) < 0) {
                /* A full backlog: nothing tells when there is room. */
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
                if (now_usec(CLOCK_MONOTONIC) >= until)
                        return -ETIMEDOUT;
                r = fiber_sleep(RETRY_USEC);
                if (r < 0)
                        return r;
        }
        return TAKE_FD(fd);
}

static int call_send(int fd, const Call *c) {
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(sizeof(int) * _POD_DESCRIPTOR_MAX)];
        } control = {};
        PodRequest header = c->header;
        struct iovec iov[] = {
                { .iov_base = &header, .iov_len = sizeof header },
                { .iov_base = (char *) strempty(c->id), .iov_len = strlen(strempty(c->id)) },
                { .iov_base = (char *) strempty(c->path), .iov_len = strlen(strempty(c->path)) },
        };
        struct msghdr m = { .msg_iov = iov, .msg_iovlen = ELEMENTSOF(iov) };
        int passed[_POD_DESCRIPTOR_MAX];
        size_t n = 0;

        for (size_t i = 0; i < _POD_DESCRIPTOR_MAX; i++)
                if (c->fds[i] >= 0) {
                        header.descriptors |= 1U << i;
                        passed[n++] = c->fds[i];
                }
        header.id_size = (uint16_t) iov[1].iov_len;
        header.path_size = (uint16_t) iov[2].iov_len;
        if (n > 0) {
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(sizeof(int) * n);
                memcpy(CMSG_DATA(&control.header), passed, sizeof(int) * n);
                m.msg_control = &control;
                m.msg_controllen = CMSG_SPACE(sizeof(int) * n);
        }

        /* The one packet always fits into the empty socket. */
        return sendmsg(fd, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

typedef struct Answer {
        PodReply reply;
        char words[POD_WORDS_MAX + 1];
} Answer;

static int call_receive(int fd, uint64_t until, Answer *ret) {
        Answer a = {};
        ssize_t n;
        int r;

        for (;;) {
                uint64_t now = now_usec(CLOCK_MONOTONIC);

                n = recv(fd, &a, sizeof a - 1, MSG_DONTWAIT);
                if (n >= 0)
                        break;
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
                if (now >= until)
                        return -ETIMEDOUT;
                r = fiber_wait_fd(fd, EPOLLIN, until - now);
                if (r < 0)
                        return r;
        }
        if (n == 0)
                return -ECONNRESET;
        if ((size_t) n < sizeof a.reply || a.reply.magic != POD_PROTOCOL_MAGIC)
                return -EBADMSG;
        *ret = a;
        return 0;
}

/* One connection, which *ret_fd (may be NULL) gets when the answer is good. */
static int call_try(const char *socket_path, const Call *c, uint64_t until, Answer *ret, int *ret_fd) {
        _cleanup_close_ int fd = -1;
        int r;

        fd = call_connect(socket_path, until);
        if (fd < 0)
                return fd;
        r = call_send(fd, c);
        if (r < 0)
                return r;
        KILL_POINT_OF("pod-process.asked", c->id);
        r = call_receive(fd, until, ret);
        KILL_POINT_OF("pod-process.answered", c->id);
        if (r >= 0 && ret_fd && ret->reply.result >= 0)
                *ret_fd = TAKE_FD(fd);
        return r;
}

/* Sends the request until it is answered: a pod process that was killed is started again and has the same socket. */
static int call_run_for(const char *socket_path, const Call *c, int *ret_fd, Error *error) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + REQUEST_TIMEOUT_USEC;
        Answer a;
        int r;

        if (strlen(strempty(c->id)) > POD_ID_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "The container ID is longer than %d bytes", POD_ID_MAX);
        if (strlen(strempty(c->path)) > POD_PATH_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "The path is longer than %d bytes", POD_PATH_MAX);

        for (;;) {
                r = call_try(socket_path, c, until, &a, ret_fd);
                if ((r != -ECONNRESET && r != -EPIPE) || now_usec(CLOCK_MONOTONIC) >= until)
                        break;
                r = fiber_sleep(RETRY_USEC);
                if (r < 0)
                        break;
        }
        if (r < 0)
                return error_set(error, r, "cannot reach the pod's process at %s", socket_path);
        if (a.reply.result < 0 && a.words[0])
                return error_setf(error, grpc_code_from_errno(a.reply.result), "%s", a.words), a.reply.result;
        if (a.reply.result < 0)
                return error_set(error, a.reply.result, "the pod's process refused");
        return 0;
}

static int call_run(const char *socket_path, const Call *c, Error *error) {
        return call_run_for(socket_path, c, NULL, error);
}

int pod_client_add_streams(const char *socket_path, const PodStreams *streams, Error *error) {
        Call c = call_make(POD_ADD_STREAMS, streams->container_id, streams->log_path);

        if (streams->line_max > POD_LINE_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "Log lines can have %u bytes at most", POD_LINE_MAX);
        c.header.line_max = (uint32_t) streams->line_max;
        c.fds[POD_STDIN_READ] = streams->stdin_read_fd;
        c.fds[POD_STDIN_WRITE] = streams->stdin_write_fd;
        c.fds[POD_STDOUT_READ] = streams->stdout_read_fd;
        c.fds[POD_STDOUT_WRITE] = streams->stdout_write_fd;
        c.fds[POD_STDERR_READ] = streams->stderr_read_fd;
        c.fds[POD_STDERR_WRITE] = streams->stderr_write_fd;
        c.fds[POD_TTY] = streams->tty_fd;
        return call_run(socket_path, &c, error);
}

int pod_client_reopen_log(const char *socket_path, const char *container_id, Error *error) {
        Call c = call_make(POD_REOPEN_LOG, container_id, NULL);

        return call_run(socket_path, &c, error);
}

int pod_client_drain(const char *socket_path, const char *container_id, Error *error) {
        Call c = call_make(POD_DRAIN, container_id, NULL);

        return call_run(socket_path, &c, error);
}

int pod_client_remove_streams(const char *socket_path, const char *container_id, Error *error) {
        Call c = call_make(POD_REMOVE_STREAMS, container_id, NULL);

        return call_run(socket_path, &c, error);
}

int pod_client_mount(const char *socket_path, int mount_fd, const char *target, Error *error) {
        Call c = call_make(POD_MOUNT, NULL, target);

        c.fds[POD_MOUNT_FD] = mount_fd;
        return call_run(socket_path, &c, error);
}

int pod_client_unmount(const char *socket_path, const char *target, Error *error) {
        Call c = call_make(POD_UNMOUNT, NULL, target);

        return call_run(socket_path, &c, error);
}

int pod_client_sysctl(const char *socket_path, const char *assignment, Error *error) {
        Call c = call_make(POD_SYSCTL, NULL, assignment);

        return call_run(socket_path, &c, error);
}

int pod_client_journal(const char *socket_path, const char *container_id, const char *name, Error *error) {
        Call c = call_make(POD_JOURNAL, container_id, name);

        return call_run(socket_path, &c, error);
}

int pod_client_status(const char *socket_path, const char *text, Error *error) {
        Call c = call_make(POD_STATUS, NULL, text);

        return call_run(socket_path, &c, error);
}

int pod_client_attach(const char *socket_path, const char *container_id, uint32_t flags, int *ret_fd, Error *error) {
        Call c = call_make(POD_ATTACH, container_id, NULL);

        c.header.flags = flags;
        return call_run_for(socket_path, &c, ret_fd, error);
}
