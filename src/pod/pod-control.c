#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "pod/pod-attach.h"
#include "pod/pod-control.h"
#include "pod/pod-journal.h"
#include "pod/pod-mount.h"
#include "pod/pod-notify.h"

#define CONNECTIONS_MAX 16
#define BACKLOG 64
/* How long a log may be unwritable before a drain says so, and before a removal drops what is left. */
#define DRAIN_NSEC (3 * NSEC_PER_SEC)
#define REMOVE_NSEC (2 * NSEC_PER_SEC)

typedef struct Connection {
        int fd;             /* -1: free */
        uint32_t waits_for; /* POD_DRAIN, POD_REMOVE_STREAMS; 0: its request has not come */
        uint32_t container, generation;
        uint64_t since, deadline;
} Connection;

static struct {
        const PodOptions *options;
        int socket;
        bool full;
        Connection connection[CONNECTIONS_MAX];
} control = { .socket = -1 };

int control_make(const PodOptions *o, Text *why) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        size_t n = strlen(o->socket);
        int fd, r;

        if (n >= sizeof address.sun_path)
                return fail(why, -ENAMETOOLONG, "cannot listen at ", o->socket, NULL);
        memcpy(address.sun_path, o->socket, n);

        fd = SYS(socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return fail(why, fd, "cannot make the control socket", NULL);
        (void) SYS(unlinkat, AT_FDCWD, o->socket, 0);
        (void) SYS(umask, 0177);
        r = SYS(bind, fd, &address, sizeof address);
        (void) SYS(umask, 0);
        if (r < 0)
                return fail(why, r, "cannot bind ", o->socket, NULL);
        r = SYS(listen, fd, BACKLOG);
        if (r < 0)
                return fail(why, r, "cannot listen at ", o->socket, NULL);
        r = notify_store("socket", &fd, 1);
        if (r < 0)
                return fail(why, r, "cannot store the control socket", NULL);
        return fd;
}

static int watch(int fd, uint32_t number) {
        struct epoll_event event = { .events = EPOLLIN, .data.u64 = EPOLL_OTHER + number };

        return SYS(epoll_ctl, pump.epoll, EPOLL_CTL_ADD, fd, &event);
}

int control_start(const PodOptions *o, int socket, Text *why) {
        int r;

        control.options = o;
        control.socket = socket;
        for (size_t i = 0; i < CONNECTIONS_MAX; i++)
                control.connection[i].fd = -1;
        r = watch(socket, 0);
        if (r < 0)
                return fail(why, r, "cannot watch the control socket", NULL);
        return 0;
}

static void control_accept(void) {
        struct ucred peer = {};
        socklen_t size = sizeof peer;
        uint32_t i = 0;
        int fd;

        while (i < CONNECTIONS_MAX && control.connection[i].fd >= 0)
                i++;
        if (i == CONNECTIONS_MAX) {
                /* The others wait in the backlog. */
                struct epoll_event event = {};

                control.full = true;
                (void) SYS(epoll_ctl, pump.epoll, EPOLL_CTL_DEL, control.socket, &event);
                return;
        }
        fd = SYS(accept4, control.socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
                return;
        if (SYS(getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.uid != 0 || watch(fd, i + 1) < 0) {
                (void) sys_close(fd);
                return;
        }
        control.connection[i] = (Connection) { .fd = fd };
}

/* The slot is free again. */
static void connection_release(Connection *c) {
        c->fd = -1;
        c->waits_for = 0;
        if (control.full && watch(control.socket, 0) >= 0)
                control.full = false;
}

static void connection_close(Connection *c) {
        (void) sys_close(c->fd);
        connection_release(c);
}

static void connection_send(const Connection *c, int result, const Text *words) {
        struct {
                PodReply reply;
                char words[POD_WORDS_MAX];
        } packet = { .reply = { .magic = POD_PROTOCOL_MAGIC, .result = result } };

        memcpy(packet.words, words->s, words->n);
        (void) SYS(sendto, c->fd, &packet, sizeof packet.reply + words->n, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
}

static void connection_reply(Connection *c, int result, const Text *words) {
        connection_send(c, result, words);
        connection_close(c);
}

/* Drains, or waits until the log takes what there is, the deadline passes or the daemon gives up. */
static void connection_drain(Connection *c) {
        uint32_t i = c->container;
        bool there = bit_test(pump.state->used, i) && pump.state->container[i].generation == c->generation;
        Text words = {};
        int r;

        r = there ? container_drain(i) : 0;
        if (r < 0 && sys_now(CLOCK_MONOTONIC) < c->deadline)
                return;
        if (c->waits_for == POD_REMOVE_STREAMS) {
                if (there)
                        container_forget(i);
                r = 0;
        }
        (void) (r < 0 && fail(&words, r, "cannot write log ", container_log_path(i), NULL));
        connection_reply(c, r, &words);
}

void control_retry(void) {
        for (size_t i = 0; i < CONNECTIONS_MAX; i++)
                if (control.connection[i].fd >= 0 && control.connection[i].waits_for > 0)
                        connection_drain(&control.connection[i]);
}

bool control_is_waiting(void) {
        for (size_t i = 0; i < CONNECTIONS_MAX; i++)
                if (control.connection[i].fd >= 0 && control.connection[i].waits_for > 0)
                        return true;
        return false;
}

static void request_run(Connection *c, const PodRequest *q, const char *id, const char *path, int *fds) {
        bool about_container = (q->operation >= POD_REOPEN_LOG && q->operation <= POD_REMOVE_STREAMS) ||
                               q->operation == POD_ATTACH || q->operation == POD_JOURNAL;
        int r = 0, i = about_container ? container_find(id) : -1;
        Text words = {};

        if (about_container && i < 0) {
                if (q->operation != POD_REMOVE_STREAMS)
                        r = fail(&words, -ENOENT, "the pod has no container ", id, NULL);
                connection_reply(c, r, &words);
                return;
        }

        switch (q->operation) {
        case POD_ADD_STREAMS:
                r = container_add(id, path, q->line_max, fds, &words);
                break;
        case POD_REOPEN_LOG:
                r = container_reopen((uint32_t) i, &words);
                break;
        case POD_DRAIN:
        case POD_REMOVE_STREAMS:
                c->waits_for = q->operation;
                c->container = (uint32_t) i;
                c->generation = pump.state->container[i].generation;
                c->deadline = sys_now(CLOCK_MONOTONIC) + (q->operation == POD_DRAIN ? DRAIN_NSEC : REMOVE_NSEC);
                connection_drain(c);
                return;
        case POD_MOUNT:
                r = fds[POD_MOUNT_FD] < 0
                                    ? fail(&words, -EINVAL, "no mount came with the request", NULL)
                                    : mount_attach(control.options->run_directory, fds[POD_MOUNT_FD], path, &words);
                break;
        case POD_UNMOUNT:
                r = mount_detach(control.options->run_directory, path, &words);
                break;
        case POD_SYSCTL:
                r = sysctl_write(control.options, path, &words);
                break;
        case POD_STATUS:
                notify_status(NULL, path, 0);
                break;
        case POD_JOURNAL:
                r = journal_begin((uint32_t) i, path, &words);
                break;
        case POD_ATTACH:
                r = attach_add(c->fd, (uint32_t) i, q->flags, &words);
                if (r < 0)
                        break;
                connection_send(c, 0, &words);
                connection_release(c); /* it is the client's now */
                return;
        default:
                r = fail(&words, -EOPNOTSUPP, "this pod process is older and doesn't know the request", NULL);
        }
        connection_reply(c, r, &words);
}

/* Takes the two strings apart; both are NUL-terminated in place (there is room behind). */
static bool request_parse(char *packet, size_t size, char id[POD_ID_MAX + 1], const char **ret_path) {
        const PodRequest *q = (const void *) packet;
        char *strings = packet + sizeof *q;

        if (size < sizeof *q || q->magic != POD_PROTOCOL_MAGIC || q->id_size > POD_ID_MAX ||
            q->path_size > POD_PATH_MAX || size != sizeof *q + q->id_size + q->path_size)
                return false;
        for (size_t i = 0; i < (size_t) q->id_size + q->path_size; i++)
                if (strings[i] == 0)
                        return false;

        memcpy(id, strings, q->id_size);
        id[q->id_size] = 0;
        strings[q->id_size + q->path_size] = 0;
        *ret_path = strings + q->id_size;
        return true;
}

static void connection_read(Connection *c) {
        /* Pages of its own, given back afterwards: the stack would keep them. */
        static struct {
                _Alignas(PodRequest) char packet[POD_REQUEST_MAX];
        } room __attribute__((__aligned__(4096)));
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(sizeof(int) * _POD_DESCRIPTOR_MAX)];
        } control_room = {};
        struct iovec iov = { .iov_base = room.packet, .iov_len = sizeof room.packet - 1 };
        struct msghdr m = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control_room,
                .msg_controllen = sizeof control_room,
        };
        int passed[_POD_DESCRIPTOR_MAX], fds[_POD_DESCRIPTOR_MAX], n;
        const PodRequest *q = (const void *) room.packet;
        size_t n_passed = 0, n_wanted = 0;
        char id[POD_ID_MAX + 1];
        const char *path;

        n = SYS(recvmsg, c->fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (n == -EAGAIN || n == -EINTR)
                return;
        if (n > 0 && m.msg_controllen >= CMSG_LEN(0) && control_room.header.cmsg_level == SOL_SOCKET &&
            control_room.header.cmsg_type == SCM_RIGHTS) {
                n_passed = (control_room.header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
                memcpy(passed, CMSG_DATA(&control_room.header), n_passed * sizeof(int));
        }

        for (size_t k = 0; k < _POD_DESCRIPTOR_MAX; k++)
                fds[k] = -1;
        if (n > 0 && c->waits_for == 0 && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
            request_parse(room.packet, (size_t) n, id, &path)) {
                for (size_t k = 0; k < _POD_DESCRIPTOR_MAX && n_wanted < n_passed; k++)
                        if (q->descriptors >> k & 1)
                                fds[k] = passed[n_wanted++];
                n_passed = n_wanted < n_passed ? n_passed : 0;
                if (n_wanted == (size_t) __builtin_popcount(q->descriptors))
                        request_run(c, q, id, path, fds);
                else
                        connection_close(c);
                for (size_t k = 0; k < _POD_DESCRIPTOR_MAX; k++)
                        (void) sys_close(fds[k]);
                for (size_t k = n_wanted; k < n_passed; k++)
                        (void) sys_close(passed[k]);
        } else {
                /* Gone, or not one of ours. */
                for (size_t k = 0; k < n_passed; k++)
                        (void) sys_close(passed[k]);
                connection_close(c);
        }
        (void) SYS(madvise, &room, sizeof room, MADV_DONTNEED);
        pump.dirty = true;
}

void control_event(uint32_t number) {
        if (number == EPOLL_OTHER)
                control_accept();
        else if (number <= EPOLL_OTHER + CONNECTIONS_MAX) {
                Connection *c = &control.connection[number - EPOLL_OTHER - 1];

                if (c->fd >= 0)
                        connection_read(c);
        }
}
