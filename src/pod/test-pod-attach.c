/* Attached clients of a pod process: what they get and give, and that nothing of it reaches the log's promises. */

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "basic/test.h"
#include "pod/test-pod-harness.h"

#define ALL (POD_ATTACH_STDIN | POD_ATTACH_STDOUT | POD_ATTACH_STDERR)

/* A client's socket, or the request's error. */
static int attach(Harness *h, const char *id, uint32_t flags) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct {
                PodRequest request;
                char id[16];
        } q = { .request = { .magic = POD_PROTOCOL_MAGIC, .operation = POD_ATTACH, .flags = flags } };
        struct {
                PodReply reply;
                char words[POD_WORDS_MAX];
        } a = {};
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        strcpy(address.sun_path, h->socket);
        q.request.id_size = (uint16_t) strlen(id);
        strcpy(q.id, id);
        CHECK(connect(fd, (struct sockaddr *) &address, sizeof address) >= 0);
        CHECK(send(fd, &q, sizeof q.request + q.request.id_size, MSG_NOSIGNAL) > 0);
        CHECK(recv(fd, &a, sizeof a, 0) >= (ssize_t) sizeof a.reply);
        if (a.reply.result >= 0)
                return fd;
        close(fd);
        return a.reply.result;
}

static char packet[1 + POD_PACKET_MAX + 1];

/* The next packet's size without its first byte; -1: the end. */
static ssize_t next(int fd) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        ssize_t n;

        CHECK_EQ(poll(&p, 1, 5000), 1);
        n = recv(fd, packet, sizeof packet - 1, 0);
        packet[MAX(n, (ssize_t) 0)] = 0;
        return n > 0 ? n - 1 : -1;
}

static void say(int fd, uint8_t type, const void *data, size_t n) {
        char p[64] = { (char) type };

        if (n > 0)
                memcpy(p + 1, data, n);
        CHECK_EQ(send(fd, p, n + 1, MSG_NOSIGNAL), (ssize_t) n + 1);
}

static void write_text(int fd, const char *text) {
        CHECK_EQ(write(fd, text, strlen(text)), (ssize_t) strlen(text));
}

static char *path_of(Harness *h, const char *name) {
        static char path[4096];

        (void) snprintf(path, sizeof path, "%s/%s", h->directory, name);
        return path;
}

static ssize_t read_some(int fd, char *buffer, size_t size) {
        struct pollfd p = { .fd = fd, .events = POLLIN };

        CHECK_EQ(poll(&p, 1, 5000), 1);
        return read(fd, buffer, size);
}

static void test_clients_get_output_and_give_input(void) {
        char buffer[64];
        int a, b, n = 0;
        Harness h;
        Pipes p;

        harness_init(&h, NULL);
        harness_start(&h);
        pipes_open(&p, true);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_of(&h, "a.log"), 0, p.fds, NULL), 0);
        CHECK_EQ(attach(&h, "b", ALL), -ENOENT);
        a = attach(&h, "a", ALL);
        b = attach(&h, "a", POD_ATTACH_STDOUT);
        CHECK(a >= 0 && b >= 0);

        write_text(p.fds[POD_STDOUT_WRITE], "half");
        CHECK_EQ(next(a), 4);
        CHECK_STREQ(packet + 1, "half");
        CHECK_EQ(packet[0], POD_PACKET_STDOUT);
        CHECK_EQ(next(b), 4);
        write_text(p.fds[POD_STDERR_WRITE], "e\n");
        CHECK_EQ(next(a), 2);
        CHECK_EQ(packet[0], POD_PACKET_STDERR);
        write_text(p.fds[POD_STDOUT_WRITE], " line\n");
        CHECK_EQ(next(a), 6);
        CHECK_EQ(next(b), 6);
        CHECK_STREQ(packet + 1, " line\n");

        say(a, POD_PACKET_STDIN, "in", 2);
        CHECK_EQ(read_some(p.fds[POD_STDIN_READ], buffer, sizeof buffer), 2);
        /* Idle so long that memory is given back, and nothing but what is not needed. */
        usleep(1500000);
        /* Without stdin_once its end is nobody's, and the other's input is not taken. */
        say(a, POD_PACKET_STDIN_END, NULL, 0);
        say(b, POD_PACKET_STDIN, "no", 2);
        say(a, POD_PACKET_STDIN, "more", 4);
        CHECK_EQ(read_some(p.fds[POD_STDIN_READ], buffer, sizeof buffer), 4);
        CHECK(ioctl(p.fds[POD_STDIN_READ], FIONREAD, &n) >= 0 && n == 0);

        CHECK_EQ(harness_request(&h, POD_REMOVE_STREAMS, "a", NULL, 0, NULL, NULL), 0);
        CHECK_EQ(next(a), 0);
        CHECK_EQ(packet[0], POD_PACKET_END);
        CHECK_EQ(next(a), -1);
        log_check((const char *[]) { path_of(&h, "a.log"), NULL }, POD_LINE_DEFAULT, "half line\n", 10, "e\n", 2);
        close(a);
        close(b);
        pipes_close(&p);
        harness_done(&h);
}

/* The container's side alone is left open: so it sees the end when the pod process and the store have let go. */
static void test_stdin_once_ends_the_input(void) {
        for (int how = 0; how < 3; how++) {
                char buffer[64];
                size_t store;
                Harness h;
                Pipes p;
                int a, b;

                harness_init(&h, NULL);
                harness_start(&h);
                pipes_open(&p, true);
                CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_of(&h, "a.log"), 0, p.fds, NULL), 0);
                close(p.fds[POD_STDIN_WRITE]);
                p.fds[POD_STDIN_WRITE] = -1;
                store = h.n_store;
                b = attach(&h, "a", ALL);
                a = attach(&h, "a", ALL | POD_ATTACH_STDIN_ONCE);
                say(a, POD_PACKET_STDIN, "last", 4);
                if (how == 0)
                        say(a, POD_PACKET_STDIN_END, NULL, 0);
                else if (how == 1)
                        close(a);
                else {
                        /* A kill in between changes nothing: it is open until a client ends it. */
                        CHECK_EQ(read_some(p.fds[POD_STDIN_READ], buffer, sizeof buffer), 4);
                        harness_kill(&h);
                        harness_start(&h);
                        CHECK_EQ(h.n_store, store);
                        CHECK_EQ(next(a), -1);
                        close(a);
                        a = attach(&h, "a", ALL | POD_ATTACH_STDIN_ONCE);
                        say(a, POD_PACKET_STDIN, "last", 4);
                        say(a, POD_PACKET_STDIN_END, NULL, 0);
                }
                CHECK_EQ(read_some(p.fds[POD_STDIN_READ], buffer, sizeof buffer), 4);
                for (int i = 0; i < 500 && h.n_store != store - 2; i++) {
                        usleep(10000);
                        harness_process(&h);
                }
                CHECK_EQ(h.n_store, store - 2);
                CHECK_EQ(read_some(p.fds[POD_STDIN_READ], buffer, sizeof buffer), 0);
                CHECK_EQ(attach(&h, "a", ALL), -EPIPE);
                harness_kill(&h);
                harness_start(&h);
                CHECK_EQ(attach(&h, "a", ALL), -EPIPE);
                write_text(p.fds[POD_STDOUT_WRITE], "goes on\n");
                CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), 0);
                log_check((const char *[]) { path_of(&h, "a.log"), NULL }, POD_LINE_DEFAULT, "goes on\n", 8, "", 0);
                close(b);
                if (how != 1)
                        close(a);
                pipes_close(&p);
                harness_done(&h);
        }
}

static void test_a_slow_client_is_left_behind_and_the_log_is_whole(void) {
        size_t size = 12 * 1024 * 1024, n = 0;
        char *text = text_make(7, size);
        struct pollfd pfd;
        Harness h;
        Pipes p;
        int a;

        harness_init(&h, NULL);
        harness_start(&h);
        pipes_open(&p, false);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_of(&h, "a.log"), 0, p.fds, NULL), 0);
        a = attach(&h, "a", POD_ATTACH_STDOUT);
        CHECK(a >= 0);
        pfd = (struct pollfd) { .fd = p.fds[POD_STDOUT_WRITE], .events = POLLOUT };
        while (n < size) {
                ssize_t k;

                CHECK_EQ(poll(&pfd, 1, 5000), 1);
                k = write(pfd.fd, text + n, MIN(size - n, (size_t) 4096));
                CHECK(k > 0);
                n += (size_t) k;
        }
        CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), 0);
        log_check((const char *[]) { path_of(&h, "a.log"), NULL }, POD_LINE_DEFAULT, text, size, "", 0);
        /* What it did get is the beginning, and then it is told. */
        n = 0;
        for (;;) {
                ssize_t k = next(a);

                CHECK(k >= 0);
                if (packet[0] == POD_PACKET_OVERRUN)
                        break;
                CHECK(memcmp(packet + 1, text + n, (size_t) k) == 0);
                n += (size_t) k;
        }
        CHECK(n > 100000 && n < size);
        CHECK_EQ(next(a), -1);
        close(a);
        free(text);
        pipes_close(&p);
        harness_done(&h);
}

static void test_input_that_is_not_read_waits(void) {
        static char data[POD_PACKET_MAX + 1];
        char buffer[4096];
        size_t sent = 0, got = 0;
        Harness h;
        Pipes p;
        int a;

        harness_init(&h, NULL);
        harness_start(&h);
        pipes_open(&p, true);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_of(&h, "a.log"), 0, p.fds, NULL), 0);
        a = attach(&h, "a", ALL);
        for (;;) {
                for (size_t i = 1; i < sizeof data; i++)
                        data[i] = (char) ((sent + i - 1) % 251);
                if (send(a, data, sizeof data, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
                        /* Twice in a row: it isn't only on its way. */
                        usleep(50000);
                        if (send(a, data, sizeof data, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                                break;
                }
                sent += POD_PACKET_MAX;
        }
        /* Neither the log nor others wait for it. */
        write_text(p.fds[POD_STDOUT_WRITE], "x\n");
        CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), 0);
        CHECK(sent > 65536);
        while (got < sent) {
                ssize_t n = read_some(p.fds[POD_STDIN_READ], buffer, sizeof buffer);

                CHECK(n > 0);
                for (ssize_t i = 0; i < n; i++)
                        CHECK_EQ((unsigned char) buffer[i], (got + (size_t) i) % 251);
                got += (size_t) n;
        }
        close(a);
        pipes_close(&p);
        harness_done(&h);
}

static void test_clients_are_bounded_and_leave_nothing(void) {
        int fds[17];
        Harness h;
        Pipes p;

        harness_init(&h, NULL);
        harness_start(&h);
        pipes_open(&p, true);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_of(&h, "a.log"), 0, p.fds, NULL), 0);
        for (int round = 0; round < 50; round++) {
                for (int i = 0; i < 16; i++) {
                        fds[i] = attach(&h, "a", ALL);
                        CHECK(fds[i] >= 0);
                }
                CHECK_EQ(attach(&h, "a", ALL), -EBUSY);
                write_text(p.fds[POD_STDOUT_WRITE], "x\n");
                for (int i = 0; i < 16; i++)
                        close(fds[i]);
                /* Once they are gone there is room: the request comes after what it saw of them. */
                CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), 0);
                for (int i = 0; i < 500; i++) {
                        fds[16] = attach(&h, "a", ALL);
                        if (fds[16] >= 0)
                                break;
                        usleep(1000);
                }
                CHECK(fds[16] >= 0);
                close(fds[16]);
                usleep(2000);
        }
        harness_done(&h);
        pipes_close(&p);
}

int main(void) {
        static const TestCase cases[] = {
                        TEST_CASE(test_clients_get_output_and_give_input),
                        TEST_CASE(test_stdin_once_ends_the_input),
                        TEST_CASE(test_a_slow_client_is_left_behind_and_the_log_is_whole),
                        TEST_CASE(test_input_that_is_not_read_waits),
                        TEST_CASE(test_clients_are_bounded_and_leave_nothing),
        };

        if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return TEST_SKIPPED;
        return test_main(cases, ELEMENTSOF(cases));
}
