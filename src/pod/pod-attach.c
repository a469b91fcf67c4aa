#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "pod/pod-attach.h"

#define CLIENTS_MAX 16
#define BUFFER_BYTES (2 * 1024 * 1024) /* of a socket; the kernel takes it twice, for its own overhead */
#define ROUNDS_MAX 16                  /* packets at a time, then the others get theirs */

#define EPOLL_INPUT (EPOLL_ATTACH + CLIENTS_MAX)

typedef struct Client {
        bool used, waiting; /* waiting: until the container takes input */
        int fd, input;      /* input: a descriptor of its own, since the epoll set knows each once; -1: none */
        uint32_t container, flags;
        uint32_t n_done;    /* bytes of the first packet that the container has */
} Client;

static struct {
        uint32_t n;
        Client client[CLIENTS_MAX];
} attach;

/* Pages of their own, whole ones, so that they can be given back without anything else. */
static struct {
        char packet[(1 + POD_PACKET_MAX + 4095U) & ~4095U];
} room __attribute__((__aligned__(4096)));

void attach_trim(void) {
        (void) SYS(madvise, &room, sizeof room, MADV_DONTNEED);
}

static int watch(int operation, int fd, uint32_t events, uint32_t number) {
        struct epoll_event event = { .events = events, .data.u64 = number };

        return SYS(epoll_ctl, pump.epoll, operation, fd, &event);
}

static uint32_t client_number(const Client *c) {
        return (uint32_t) (c - attach.client);
}

/* Before a descriptor is closed: others of the same file would keep it in the set. */
static void client_close_input(Client *c) {
        if (c->waiting) {
                (void) watch(EPOLL_CTL_DEL, c->input, 0, 0);
                (void) watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, EPOLL_ATTACH + client_number(c));
        }
        c->waiting = false;
        c->n_done = 0;
        c->input = sys_close(c->input);
}

/* The container reads the end of its input. */
static void close_stdin(uint32_t container) {
        for (uint32_t i = 0; i < CLIENTS_MAX; i++)
                if (attach.client[i].used && attach.client[i].container == container)
                        client_close_input(&attach.client[i]);
        container_close_stdin(container);
}

static void client_remove(Client *c) {
        bool once = (c->flags & POD_ATTACH_STDIN) && (c->flags & POD_ATTACH_STDIN_ONCE);
        uint32_t container = c->container;

        client_close_input(c);
        c->fd = sys_close(c->fd);
        c->used = false;
        attach.n--;
        if (once && bit_test(pump.state->used, container))
                close_stdin(container);
}

static void set_buffer(int fd, int size) {
        if (SYS(setsockopt, fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
                (void) SYS(setsockopt, fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

static int send_packet(int fd, uint8_t type, const char *data, size_t n) {
        struct iovec iov[2] = { { &type, 1 }, { (char *) data, n } };
        struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };

        return SYS(sendmsg, fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int container_input(uint32_t container) {
        const Container *c = &pump.container[container];

        return c->tty >= 0 ? c->tty : c->pipe[POD_STDIN_WRITE];
}

int attach_add(int fd, uint32_t container, uint32_t flags, Text *why) {
        int input = -1, r;
        uint32_t i = 0;
        Client *c;

        while (i < CLIENTS_MAX && attach.client[i].used)
                i++;
        if (i == CLIENTS_MAX)
                return fail(why, -EBUSY, "16 clients are attached to containers of the pod already", NULL);
        if (flags & POD_ATTACH_STDIN) {
                int from = container_input(container);

                if (from < 0)
                        return fail(why, -EPIPE, "the container has no standard input, or it was closed", NULL);
                input = SYS(fcntl, from, F_DUPFD_CLOEXEC, 3);
                if (input < 0)
                        return fail(why, input, "cannot duplicate the container's standard input", NULL);
                /* The reading end is another open file: the container sees nothing of this. */
                r = SYS(fcntl, input, F_GETFL, 0);
                (void) SYS(fcntl, input, F_SETFL, r | O_NONBLOCK);
        }
        r = watch(EPOLL_CTL_MOD, fd, EPOLLIN, EPOLL_ATTACH + i);
        if (r < 0) {
                (void) sys_close(input);
                return fail(why, r, "cannot watch the client", NULL);
        }
        set_buffer(fd, BUFFER_BYTES);
        c = &attach.client[i];
        *c = (Client) { .used = true, .fd = fd, .input = input, .container = container, .flags = flags };
        attach.n++;
        return 0;
}

void attach_output(uint32_t index, const char *data, size_t n) {
        uint32_t flag = index % 2 ? POD_ATTACH_STDERR : POD_ATTACH_STDOUT;

        if (attach.n == 0)
                return;
        for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
                Client *c = &attach.client[i];
                int r = 0;

                if (!c->used || c->container != index / 2 || !(c->flags & flag))
                        continue;
                for (size_t k = 0; k < n && r >= 0; k += POD_PACKET_MAX)
                        r = send_packet(c->fd, index % 2 ? POD_PACKET_STDERR : POD_PACKET_STDOUT, data + k,
                                        MIN(n - k, (size_t) POD_PACKET_MAX));
                if (r >= 0)
                        continue;
                if (r == -EAGAIN) {
                        /* Room for one more word. */
                        set_buffer(c->fd, BUFFER_BYTES + 64 * 1024);
                        (void) send_packet(c->fd, POD_PACKET_OVERRUN, NULL, 0);
                }
                client_remove(c);
        }
}

void attach_forget(uint32_t container) {
        for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
                Client *c = &attach.client[i];

                if (!c->used || c->container != container)
                        continue;
                (void) send_packet(c->fd, POD_PACKET_END, NULL, 0);
                client_remove(c);
        }
}

/* Gives the container the rest of the first packet. False: it doesn't take it now. */
static bool client_input(Client *c, size_t size) {
        while (c->input >= 0 && c->n_done < size) {
                int r = SYS(write, c->input, room.packet + 1 + c->n_done, size - c->n_done);

                if (r == -EINTR)
                        continue;
                if (r == -EAGAIN)
                        return false;
                if (r <= 0)
                        break; /* nobody reads any more */
                c->n_done += (uint32_t) r;
        }
        c->n_done = 0;
        return true;
}

static void client_resize(const Client *c, size_t size) {
        int tty = pump.container[c->container].tty;
        struct winsize w = {};
        uint16_t n[2];

        if (size != sizeof n || tty < 0)
                return;
        memcpy(n, room.packet + 1, sizeof n);
        w.ws_col = n[0];
        w.ws_row = n[1];
        (void) SYS(ioctl, tty, TIOCSWINSZ, &w);
}

static void client_wait(Client *c) {
        uint32_t i = client_number(c);

        if (watch(EPOLL_CTL_ADD, c->input, EPOLLOUT, EPOLL_INPUT + i) < 0) {
                client_remove(c);
                return;
        }
        (void) watch(EPOLL_CTL_MOD, c->fd, 0, EPOLL_ATTACH + i);
        c->waiting = true;
}

static void client_read(Client *c) {
        pump.dirty = true;
        for (int round = 0; round < ROUNDS_MAX && c->used; round++) {
                bool end = false;
                int n;

                /* A packet stays in the socket until the container has all of it. */
                n = SYS(recvfrom, c->fd, room.packet, 1 + POD_PACKET_MAX, MSG_PEEK | MSG_DONTWAIT, NULL, NULL);
                if (n == -EAGAIN || n == -EINTR)
                        return;
                if (n <= 0) {
                        client_remove(c);
                        return;
                }
                switch (room.packet[0]) {
                case POD_PACKET_STDIN:
                        if (!client_input(c, (size_t) n - 1)) {
                                client_wait(c);
                                return;
                        }
                        break;
                case POD_PACKET_STDIN_END:
                        end = c->flags & POD_ATTACH_STDIN_ONCE;
                        break;
                case POD_PACKET_RESIZE:
                        client_resize(c, (size_t) n - 1);
                        break;
                default:
                        break;
                }
                (void) SYS(recvfrom, c->fd, room.packet, 1, MSG_DONTWAIT, NULL, NULL);
                if (end && pump.container[c->container].tty < 0)
                        close_stdin(c->container);
        }
}

void attach_event(uint32_t number) {
        uint32_t i = number - EPOLL_ATTACH;
        Client *c = &attach.client[i % CLIENTS_MAX];

        if (i >= 2 * CLIENTS_MAX || !c->used)
                return; /* removed by an event before this one */
        if (i < CLIENTS_MAX && c->waiting) {
                /* Not for reading: the client is gone. */
                client_remove(c);
                return;
        }
        if (i >= CLIENTS_MAX) {
                if (!c->waiting)
                        return;
                (void) watch(EPOLL_CTL_DEL, c->input, 0, 0);
                (void) watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, EPOLL_ATTACH + i % CLIENTS_MAX);
                c->waiting = false;
        }
        client_read(c);
}
