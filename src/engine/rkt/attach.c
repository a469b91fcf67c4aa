/* Attach: `rkt attach`, which speaks to the endpoints of rkt's multiplexer, between a packet socket and its pipes. Each
 * direction is a fiber. rkt has no way to tell an app that its input has ended, nor a terminal its size. */

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>

#include "basic/file-util.h"
#include "engine/rkt/internal.h"
#include "stream/stream.h"

#define ENDED_TIMEOUT_USEC (10 * USEC_PER_SEC)

typedef struct Attach {
        unsigned n_ref;
        int socket;                /* ours */
        int in, out, err;          /* pipes of rkt attach */
        int pidfd;
        unsigned n_outputs;        /* fibers that still carry output */
} Attach;

typedef struct Output {
        Attach *attach;
        int fd;
        StreamPacket packet;
} Output;

static void attach_unref(void *p) {
        Attach *a = p;

        if (!a || --a->n_ref > 0)
                return;
        (void) safe_close(a->socket);
        (void) safe_close(a->in);
        (void) safe_close(a->out);
        (void) safe_close(a->err);
        (void) safe_close(a->pidfd);
        free(a);
}

static void attach_unrefp(Attach **a) {
        attach_unref(*a);
}

static void output_free(void *p) {
        Output *o = p;

        attach_unref(o->attach);
        free(o);
}

static int send_packet(int fd, StreamPacket packet, const void *data, size_t size) {
        unsigned char kind = (unsigned char) packet;
        struct iovec iov[2] = { { &kind, 1 }, { (void *) data, size } };
        struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
        int r;

        for (;;) {
                if (sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
                        return 0;
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
                r = fiber_wait_fd(fd, EPOLLOUT, USEC_INFINITY);
                if (r < 0)
                        return r;
        }
}

static ssize_t read_some(int fd, char *data, size_t size) {
        for (;;) {
                ssize_t n = read(fd, data, size);
                int r;

                if (n >= 0)
                        return n;
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
                r = fiber_wait_fd(fd, EPOLLIN, USEC_INFINITY);
                if (r < 0)
                        return r;
        }
}

/* From rkt to the client, until rkt ends. */
static int carry_output(void *userdata) {
        _cleanup_free_ char *data = malloc(STREAM_PACKET_MAX);
        Output *o = userdata;
        Attach *a = o->attach;
        ssize_t n = -ENOMEM;

        while (data) {
                n = read_some(o->fd, data, STREAM_PACKET_MAX);
                if (n <= 0 || send_packet(a->socket, o->packet, data, (size_t) n) < 0)
                        break;
        }
        if (--a->n_outputs == 0) {
                (void) send_packet(a->socket, STREAM_PACKET_END, NULL, 0);
                (void) shutdown(a->socket, SHUT_RDWR);
        }
        return 0;
}

static int write_input(Attach *a, const char *data, size_t size) {
        while (size > 0) {
                ssize_t n = write(a->in, data, size);
                int r;

                if (n > 0) {
                        data += n;
                        size -= (size_t) n;
                        continue;
                }
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
                r = fiber_wait_fd(a->in, EPOLLOUT, USEC_INFINITY);
                if (r < 0)
                        return r;
        }
        return 0;
}

static ssize_t receive(Attach *a, char *packet) {
        for (;;) {
                ssize_t n = recv(a->socket, packet, 1 + STREAM_PACKET_MAX, MSG_DONTWAIT);
                int r;

                if (n >= 0)
                        return n;
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
                r = fiber_wait_fd(a->socket, EPOLLIN, USEC_INFINITY);
                if (r < 0)
                        return r;
        }
}

/* From the client to rkt, until the client leaves or rkt has ended; then rkt is ended as well. */
static int carry_input(void *userdata) {
        _cleanup_free_ char *packet = malloc(1 + STREAM_PACKET_MAX);
        Attach *a = userdata;

        while (packet) {
                ssize_t n = receive(a, packet);

                if (n <= 0)
                        break;
                if (packet[0] == STREAM_PACKET_STDIN && a->in >= 0 && write_input(a, packet + 1, (size_t) n - 1) < 0)
                        a->in = safe_close(a->in);
                /* rkt would only leave: the app's input stays open whatever is done here. */
        }
        FIBER_SHIELDED_SCOPE;
        (void) pidfd_send_signal(a->pidfd, SIGKILL, NULL, 0);
        (void) fiber_wait_pidfd(a->pidfd, ENDED_TIMEOUT_USEC, NULL);
        return 0;
}

static int begin_output(RktEngine *e, Attach *a, int fd, StreamPacket packet) {
        Output *o = calloc(1, sizeof *o);
        int r;

        if (!o)
                return -ENOMEM;
        *o = (Output) { .attach = a, .fd = fd, .packet = packet };
        a->n_ref++;
        a->n_outputs++;
        r = fiber_spawn(e->event, "rkt-attach-output", carry_output, o, output_free, NULL);
        if (r < 0) {
                a->n_outputs--;
                output_free(o);
        }
        return r;
}

static int spawn(const Rkt *rkt, const RktContainer *n, const char *mode, Attach *a, Error *error) {
        _cleanup_strv_free_ char **argv = NULL;
        int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 }, r;
        pid_t pid;

        r = rkt_argv_new(rkt, "attach", NULL, &argv);
        if (r >= 0)
                r = strv_extendf(&argv, "--mode=%s", mode);
        if (r >= 0)
                r = strv_extendf(&argv, "--app=%s", n->id);
        if (r >= 0)
                r = strv_extend(&argv, n->pod->uuid);
        if (r < 0)
                return error_oom(error);
        if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
                r = error_set(error, -errno, "cannot make a pipe");
        else
                r = process_spawn_with(&(ProcessOptions) { .argv = (const char *const *) argv, .env = rkt_environment,
                                                           .host_mounts = true },
                                       (const int[]) { in[0], out[1], err[1] }, &pid, &a->pidfd, error);
        (void) safe_close(in[0]);
        (void) safe_close(out[1]);
        (void) safe_close(err[1]);
        a->in = in[1];
        a->out = out[0];
        a->err = err[0];
        if (r >= 0 && (fd_set_nonblock(a->in, true) < 0 || fd_set_nonblock(a->out, true) < 0 ||
                       fd_set_nonblock(a->err, true) < 0))
                r = error_set(error, -errno, "cannot set up a pipe");
        return r;
}

static int attach_mode(const EngineContainer *c, EngineAttachFlags flags, char ret[static 32], Error *error) {
        if ((flags & ENGINE_ATTACH_STDIN) && !c->config->stdin)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s was created without stdin", c->id);
        if (c->config->tty)
                return snprintf(ret, 32, "auto") > 0 ? 0 : -EINVAL;
        (void) snprintf(ret, 32, "%s%s%s", flags & ENGINE_ATTACH_STDIN ? ",stdin" : "",
                        flags & ENGINE_ATTACH_STDOUT ? ",stdout" : "", flags & ENGINE_ATTACH_STDERR ? ",stderr" : "");
        memmove(ret, ret + 1, strlen(ret));
        return 0;
}

int rkt_container_attach(Engine *engine, const EngineContainer *c, EngineAttachFlags flags, int *ret_fd, Error *error) {
        RktEngine *e = rkt_engine(engine);
        _cleanup_(attach_unrefp) Attach *a = calloc(1, sizeof *a);
        _cleanup_close_ int theirs = -1;
        RktContainer *n;
        char mode[32];
        int fds[2], r;

        if (!a)
                return error_oom(error);
        a->n_ref = 1;
        a->socket = a->in = a->out = a->err = a->pidfd = -1;
        r = rkt_find_running(e, c, &n, error);
        if (r >= 0)
                r = attach_mode(c, flags, mode, error);
        if (r < 0)
                return r;
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
                return error_set(error, -errno, "cannot make a socket");
        a->socket = fds[0];
        theirs = fds[1];
        r = spawn(&e->rkt, n, mode, a, error);
        if (r < 0)
                return r;
        /* Its fiber reaps rkt, so it is the first. */
        a->n_ref++;
        r = fiber_spawn(e->event, "rkt-attach", carry_input, a, attach_unref, NULL);
        if (r < 0) {
                (void) pidfd_send_signal(a->pidfd, SIGKILL, NULL, 0);
                attach_unref(a);
        }
        if (r >= 0)
                r = begin_output(e, a, a->out, STREAM_PACKET_STDOUT);
        if (r >= 0)
                r = begin_output(e, a, a->err, STREAM_PACKET_STDERR);
        if (r < 0)
                return error_set(error, r, "cannot attach to container %s", c->id);
        *ret_fd = TAKE_FD(theirs);
        return 0;
}
