/* Bytes between our standard streams and a command or container, by poll(2): standard input may be a plain file, which
 * epoll refuses. */

#include "rktletctl/ctl.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>

#include "basic/file-util.h"
#include "stream/stream.h"

#define ESCAPE 0x1d /* ^] three times within a second, as with machinectl */

static struct termios saved;
static bool is_raw;

static void terminal_restore(void) {
        if (is_raw)
                (void) tcsetattr(STDIN_FILENO, TCSANOW, &saved);
        is_raw = false;
}

static void terminal_raw(void) {
        struct termios t;

        if (tcgetattr(STDIN_FILENO, &saved) < 0)
                return;
        t = saved;
        cfmakeraw(&t);
        if (tcsetattr(STDIN_FILENO, TCSANOW, &t) < 0)
                return;
        is_raw = true;
        (void) atexit(terminal_restore);
}

typedef struct Running {
        const Pump *p;
        int in_fd, out_fd, err_fd, result_fd, signals;
        char input[STREAM_PACKET_MAX + 1]; /* the first byte is a packet's type */
        size_t n_input, n_sent;
        bool input_ended, finishing;
        unsigned escapes;
        uint64_t escape_usec;
        char *result;
        size_t n_result, result_size;
} Running;

static void send_size(const Running *x) {
        struct winsize w;

        if (!x->p->tty || ioctl(STDIN_FILENO, TIOCGWINSZ, &w) < 0)
                return;
        if (x->p->packets_fd < 0)
                (void) ioctl(x->p->in_fd, TIOCSWINSZ, &w);
        else {
                const uint16_t n[2] = { w.ws_col, w.ws_row };
                char packet[1 + sizeof n] = { STREAM_PACKET_RESIZE };

                memcpy(packet + 1, n, sizeof n);
                (void) send(x->p->packets_fd, packet, sizeof packet, MSG_NOSIGNAL);
        }
}

static uint64_t now(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * USEC_PER_SEC + (uint64_t) t.tv_nsec / NSEC_PER_USEC;
}

static bool is_escape(Running *x, const char *data, size_t n) {
        for (size_t i = 0; i < n; i++) {
                if (data[i] != ESCAPE) {
                        x->escapes = 0;
                        continue;
                }
                if (x->escapes++ == 0)
                        x->escape_usec = now();
                if (x->escapes < 3)
                        continue;
                if (now() - x->escape_usec <= USEC_PER_SEC)
                        return true;
                x->escapes = 0;
        }
        return false;
}

/* 1: the user wants to leave. */
static int read_input(Running *x) {
        ssize_t n = read(STDIN_FILENO, x->input + 1, sizeof x->input - 1);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        x->n_sent = 0;
        x->n_input = n > 0 ? (size_t) n : 0;
        if (n <= 0)
                x->input_ended = true;
        return x->p->tty && is_escape(x, x->input + 1, x->n_input);
}

static void close_input(Running *x) {
        char end = STREAM_PACKET_STDIN_END;

        if (x->p->packets_fd >= 0)
                (void) send(x->p->packets_fd, &end, 1, MSG_NOSIGNAL);
        else if (!x->p->tty)
                (void) safe_close(x->in_fd);
        x->in_fd = -1;
}

static void write_input(Running *x) {
        ssize_t n;

        if (x->p->packets_fd >= 0) {
                x->input[0] = STREAM_PACKET_STDIN;
                n = send(x->p->packets_fd, x->input, 1 + x->n_input, MSG_NOSIGNAL | MSG_DONTWAIT);
                n = n > 0 ? (ssize_t) x->n_input : n;
        } else
                n = write(x->in_fd, x->input + 1 + x->n_sent, x->n_input - x->n_sent);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n < 0) {
                x->n_input = x->n_sent = 0; /* nobody reads any more */
                x->input_ended = true;
                x->in_fd = -1;
                return;
        }
        x->n_sent += (size_t) n;
        if (x->n_sent == x->n_input)
                x->n_input = x->n_sent = 0;
}

/* False: nothing more will come. */
static bool read_output(int fd, int to, int *ret) {
        char data[STREAM_PACKET_MAX];
        ssize_t n = read(fd, data, sizeof data);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return true;
        if (n <= 0)
                return false;
        *ret = write_all(to, data, (size_t) n);
        return *ret >= 0;
}

/* As above; all packets that are there. */
static bool read_packets(const Running *x, int *ret) {
        char data[1 + STREAM_PACKET_MAX];

        for (;;) {
                ssize_t n = recv(x->p->packets_fd, data, sizeof data, MSG_DONTWAIT);

                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return true;
                if (n <= 0 || data[0] == STREAM_PACKET_END)
                        return false;
                if (data[0] == STREAM_PACKET_OVERRUN) {
                        fputs("\nThe rest of the output came too fast to be shown; it is in the container's log.\n",
                              stderr);
                        return false;
                }
                if (data[0] == STREAM_PACKET_STDOUT || data[0] == STREAM_PACKET_STDERR)
                        *ret = write_all(data[0] == STREAM_PACKET_STDERR ? STDERR_FILENO : STDOUT_FILENO, data + 1,
                                         (size_t) n - 1);
                if (*ret < 0)
                        return false;
        }
}

/* False: the line is complete, or there is none. */
static bool read_result(Running *x) {
        ssize_t n = read(x->result_fd, x->result + x->n_result, x->result_size - 1 - x->n_result);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return true;
        if (n > 0)
                x->n_result += (size_t) n;
        x->result[x->n_result] = '\0';
        return n > 0 && !strchr(x->result, '\n') && x->n_result + 1 < x->result_size;
}

/* What is still in the pipes once the end is known; a process in the background may hold them open for ever. */
static int read_remainder(Running *x) {
        bool more[2] = { x->out_fd >= 0, x->err_fd >= 0 };
        int r = 0;

        if (x->p->packets_fd >= 0)
                (void) read_packets(x, &r);
        while ((more[0] || more[1]) && r >= 0)
                for (size_t i = 0; i < 2; i++) {
                        struct pollfd p = { i == 0 ? x->out_fd : x->err_fd, POLLIN, 0 };

                        if (!more[i])
                                continue;
                        more[i] = poll(&p, 1, 0) > 0 && (p.revents & POLLIN) &&
                                  read_output(p.fd, i == 0 ? STDOUT_FILENO : STDERR_FILENO, &r);
                }
        return r;
}

enum { STDIN, INPUT, OUTPUT, ERROR, PACKETS, RESULT, BUS, SIGNALS, _POLL_MAX };

static void prepare_poll(const Running *x, struct pollfd p[static _POLL_MAX]) {
        bool reading = x->in_fd >= 0 && !x->input_ended && x->n_input == 0;
        short writing = x->in_fd >= 0 && x->n_input > 0 ? POLLOUT : 0;

        p[STDIN] = (struct pollfd) { reading ? STDIN_FILENO : -1, POLLIN, 0 };
        p[INPUT] = (struct pollfd) { x->p->packets_fd < 0 && writing ? x->in_fd : -1, POLLOUT, 0 };
        p[OUTPUT] = (struct pollfd) { x->out_fd, POLLIN, 0 };
        p[ERROR] = (struct pollfd) { x->err_fd, POLLIN, 0 };
        p[PACKETS] = (struct pollfd) { x->p->packets_fd, (short) (POLLIN | writing), 0 };
        p[RESULT] = (struct pollfd) { x->result_fd, POLLIN, 0 };
        p[BUS] = (struct pollfd) { x->p->bus ? sd_bus_get_fd(x->p->bus) : -1, POLLIN, 0 };
        p[SIGNALS] = (struct pollfd) { x->signals, POLLIN, 0 };
}

/* 0: go on, 1: it has ended, 2: the user wants to leave. */
static int step(Running *x) {
        struct signalfd_siginfo si;
        struct pollfd p[_POLL_MAX];
        int r = 0;

        prepare_poll(x, p);
        if (poll(p, ELEMENTSOF(p), -1) < 0)
                return errno == EINTR ? 0 : -errno;
        if (p[STDIN].revents && read_input(x) > 0)
                return 2;
        if (p[INPUT].revents || (x->n_input > 0 && p[PACKETS].revents & POLLOUT))
                write_input(x);
        if (x->input_ended && x->n_input == 0 && x->in_fd >= 0)
                close_input(x);
        if (p[OUTPUT].revents && !read_output(x->out_fd, STDOUT_FILENO, &r))
                x->out_fd = -1;
        if (r >= 0 && p[ERROR].revents && !read_output(x->err_fd, STDERR_FILENO, &r))
                x->err_fd = -1;
        if (r < 0)
                return r;
        if (p[PACKETS].revents & (POLLIN | POLLHUP) && !read_packets(x, &r))
                return r < 0 ? r : 1;
        if (p[RESULT].revents && !read_result(x))
                return 1;
        if (p[SIGNALS].revents && read(x->signals, &si, sizeof si) == (ssize_t) sizeof si)
                send_size(x);
        if (p[BUS].revents) {
                while ((r = sd_bus_process(x->p->bus, NULL)) > 0)
                        ;
                if (r < 0)
                        return r;
                if (x->p->ended && x->p->ended(x->p->userdata))
                        return 1;
        }
        return 0;
}

int pump_drain(const Pump *p) {
        Running x = { .p = p, .in_fd = -1, .out_fd = p->out_fd, .err_fd = p->err_fd, .result_fd = -1 };

        return read_remainder(&x);
}

int pump_run(const Pump *p, char *result, size_t size) {
        Running x = {
                .p = p,
                .in_fd = p->packets_fd >= 0 ? (p->in_fd >= 0 ? p->packets_fd : -1) : p->in_fd,
                .out_fd = p->out_fd,
                .err_fd = p->err_fd,
                .result_fd = p->result_fd,
                .result = result,
                .result_size = size,
        };
        sigset_t set;
        int r;

        sigemptyset(&set);
        sigaddset(&set, SIGWINCH);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        x.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        (void) signal(SIGPIPE, SIG_IGN);
        if (p->tty) {
                terminal_raw();
                send_size(&x);
        }
        do
                r = step(&x);
        while (r == 0);
        if (r == 1)
                r = read_remainder(&x);
        else if (r == 2)
                r = 1;
        terminal_restore();
        (void) safe_close(x.signals);
        return r;
}
