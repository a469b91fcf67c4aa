#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "basic/test.h"
#include "pod/test-pod-harness.h"

#define PATIENCE_MSEC 20000
#define IDLE_MSEC 20

void harness_init(Harness *h, const char *const *args) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        size_t n = 0;

        *h = (Harness) {};
        strcpy(h->directory, "/tmp/rktlet-test-pod-XXXXXX");
        CHECK(mkdtemp(h->directory));
        CHECK(snprintf(h->socket, sizeof h->socket, "%s/pod.sock", h->directory) > 0);
        for (; args && args[n]; n++)
                h->args[n] = args[n];

        CHECK((size_t) snprintf(address.sun_path, sizeof address.sun_path, "%s/notify", h->directory) <
              sizeof address.sun_path);
        h->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        CHECK(h->notify >= 0);
        CHECK_EQ(bind(h->notify, (struct sockaddr *) &address, sizeof address), 0);
}

void harness_done(Harness *h) {
        char command[128];

        if (h->pid > 0)
                CHECK_EQ(harness_stop(h, SIGTERM), 0);
        for (size_t i = 0; i < h->n_store; i++)
                close(h->store[i].fd);
        close(h->notify);
        CHECK(snprintf(command, sizeof command, "rm -rf %s", h->directory) > 0);
        CHECK_EQ(system(command), 0);
}

static void store_add(Harness *h, const char *name, int fd) {
        CHECK(h->n_store < HARNESS_STORE_MAX);
        /* As the manager does: the same open file is kept once. */
        for (size_t i = 0; i < h->n_store; i++)
                if (syscall(SYS_kcmp, getpid(), getpid(), 0 /* KCMP_FILE */, fd, h->store[i].fd) == 0) {
                        close(fd);
                        return;
                }
        CHECK(strlen(name) < sizeof h->store[0].name);
        strcpy(h->store[h->n_store].name, name);
        h->store[h->n_store++].fd = fd;
}

static void store_remove(Harness *h, const char *name) {
        size_t k = 0;

        for (size_t i = 0; i < h->n_store; i++)
                if (streq(h->store[i].name, name))
                        close(h->store[i].fd);
                else
                        h->store[k++] = h->store[i];
        h->n_store = k;
}

size_t harness_store_count(const Harness *h, const char *prefix) {
        size_t n = 0;

        for (size_t i = 0; i < h->n_store; i++)
                n += startswith(h->store[i].name, prefix) != NULL;
        return n;
}

static bool harness_process_one(Harness *h) {
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(sizeof(int) * 64)];
        } control = {};
        char text[2048], *name = NULL, *save = NULL;
        struct iovec iov = { .iov_base = text, .iov_len = sizeof text - 1 };
        struct msghdr m = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof control };
        ssize_t n = recvmsg(h->notify, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        bool add = false, forget = false, no_poll = false;
        size_t n_fds = 0;
        int fds[64];

        if (n < 0)
                return false;
        CHECK(!(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)));
        if (m.msg_controllen > 0) {
                CHECK_EQ(control.header.cmsg_type, SCM_RIGHTS);
                n_fds = (control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
                memcpy(fds, CMSG_DATA(&control.header), n_fds * sizeof(int));
        }
        text[n] = 0;

        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                if (streq(line, "READY=1"))
                        h->ready = true;
                else if (streq(line, "FDSTORE=1"))
                        add = true;
                else if (streq(line, "FDSTOREREMOVE=1"))
                        forget = true;
                else if (streq(line, "FDPOLL=0"))
                        no_poll = true;
                else if (startswith(line, "FDNAME="))
                        name = line + STRLEN("FDNAME=");
                else if (startswith(line, "STATUS="))
                        (void) snprintf(h->status, sizeof h->status, "%s", line + STRLEN("STATUS="));
                else if (startswith(line, "ERRNO="))
                        h->status_errno = atoi(line + STRLEN("ERRNO="));
                else
                        CHECK(streq(line, "STOPPING=1"));
        }
        CHECK(add == (n_fds > 0));
        CHECK(!add || (name && no_poll));
        CHECK(!forget || name);
        for (size_t i = 0; i < n_fds; i++)
                store_add(h, name, fds[i]);
        if (forget)
                store_remove(h, name);
        return true;
}

void harness_process(Harness *h) {
        while (harness_process_one(h))
                ;
}

static void child(Harness *h, bool traced) {
        size_t n = h->n_store, n_args = 0, n_names = 1;
        char *names = malloc(n * 64 + 16), pid[32], count[32], notify[128], socket[128], run[96], *env[8];
        const char *argv[24];
        int *moved = malloc(n * sizeof(int) + 1);

        CHECK(names && moved);
        strcpy(names, "LISTEN_FDNAMES=");
        for (size_t i = 0; i < n; i++) {
                strcat(names, i ? ":" : "");
                strcat(names, h->store[i].name);
                /* Up, out of the way of the numbers that they shall get. */
                moved[i] = fcntl(h->store[i].fd, F_DUPFD_CLOEXEC, 2000);
                CHECK(moved[i] >= 0);
        }
        for (size_t i = 0; i < n; i++)
                CHECK(dup2(moved[i], 3 + (int) i) >= 0);
        CHECK_EQ(close_range(3 + (unsigned) n, ~0U, 0), 0);

        (void) snprintf(pid, sizeof pid, "LISTEN_PID=%d", getpid());
        (void) snprintf(count, sizeof count, "LISTEN_FDS=%zu", n);
        (void) snprintf(notify, sizeof notify, "NOTIFY_SOCKET=%s/notify", h->directory);
        (void) snprintf(socket, sizeof socket, "--socket=%s", h->socket);
        (void) snprintf(run, sizeof run, "--run-directory=%s", h->directory);
        env[0] = notify;
        if (n > 0) {
                env[1] = pid;
                env[2] = count;
                env[3] = names;
                n_names = 4;
        }
        env[n_names] = NULL;

        argv[n_args++] = "rktlet-pod";
        argv[n_args++] = socket;
        argv[n_args++] = run;
        for (size_t i = 0; h->args[i]; i++)
                argv[n_args++] = h->args[i];
        argv[n_args] = NULL;
        if (traced) {
                CHECK_EQ(ptrace(PTRACE_TRACEME, 0, NULL, NULL), 0);
                raise(SIGSTOP);
        }
        execve(getenv("RKTLET_POD"), (char **) argv, env);
        _exit(99);
}

static void harness_fork(Harness *h, bool traced) {
        CHECK_EQ(h->pid, 0);
        CHECK(getenv("RKTLET_POD"));
        h->ready = false;
        h->pid = fork();
        CHECK(h->pid >= 0);
        if (h->pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                child(h, traced);
        }
}

void harness_spawn(Harness *h) {
        harness_fork(h, /* traced= */ false);
}

void harness_wait_ready(Harness *h) {
        for (int i = 0; i < PATIENCE_MSEC && !h->ready; i++) {
                struct pollfd p = { .fd = h->notify, .events = POLLIN };

                (void) poll(&p, 1, 1);
                harness_process(h);
                if (!h->ready)
                        CHECK_EQ(waitpid(h->pid, NULL, WNOHANG), 0);
        }
        CHECK(h->ready);
}

static int harness_reap(Harness *h) {
        int status;

        CHECK_EQ(waitpid(h->pid, &status, __WALL), h->pid);
        h->pid = 0;
        harness_process(h);
        return status;
}

void harness_kill(Harness *h) {
        CHECK_EQ(kill(h->pid, SIGKILL), 0);
        CHECK_EQ(harness_reap(h), SIGKILL);
}

int harness_stop(Harness *h, int signo) {
        CHECK_EQ(kill(h->pid, signo), 0);
        return harness_reap(h);
}

/* Is it stopped where it starts to wait for events? */
static bool waits_for_events(Harness *h) {
        struct __ptrace_syscall_info info = {};

        return ptrace(PTRACE_GET_SYSCALL_INFO, h->pid, sizeof info, &info) > 0 &&
               info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_epoll_pwait;
}

/* Waits for the next stop; false when none comes for a while, though it `may_wait` for something. */
static bool next_stop(Harness *h, bool may_wait, int *ret_status) {
        for (int i = 0; i < (may_wait ? IDLE_MSEC : PATIENCE_MSEC) * 10; i++) {
                pid_t p = waitpid(h->pid, ret_status, __WALL | WNOHANG);

                CHECK(p >= 0);
                if (p > 0)
                        return true;
                harness_process(h);
                (void) usleep(100);
        }
        CHECK(may_wait);
        return false;
}

static bool harness_step(Harness *h, unsigned n, unsigned steps) {
        bool may_wait = true; /* the first stop is in the middle of waiting */
        int status;

        for (unsigned i = 0; i < n; i++) {
                CHECK_EQ(ptrace(PTRACE_SYSCALL, h->pid, NULL, NULL), 0);
                if (!next_stop(h, may_wait, &status))
                        return false;
                CHECK(WIFSTOPPED(status));
                may_wait = waits_for_events(h);
        }
        for (unsigned i = 0; i < steps; i++) {
                CHECK_EQ(ptrace(PTRACE_SINGLESTEP, h->pid, NULL, NULL), 0);
                if (!next_stop(h, /* may_wait= */ true, &status))
                        break;
                CHECK(WIFSTOPPED(status));
        }
        harness_kill(h);
        return true;
}

bool harness_kill_at(Harness *h, unsigned n, unsigned steps, void (*poke)(void *userdata), void *userdata) {
        int status;

        CHECK_EQ(ptrace(PTRACE_SEIZE, h->pid, NULL, PTRACE_O_TRACESYSGOOD), 0);
        CHECK_EQ(ptrace(PTRACE_INTERRUPT, h->pid, NULL, NULL), 0);
        CHECK(next_stop(h, /* may_wait= */ false, &status));
        if (poke)
                poke(userdata);
        if (harness_step(h, n, steps))
                return true;
        /* Idle: let go of it. */
        CHECK_EQ(ptrace(PTRACE_INTERRUPT, h->pid, NULL, NULL), 0);
        CHECK(next_stop(h, /* may_wait= */ false, &status));
        CHECK_EQ(ptrace(PTRACE_DETACH, h->pid, NULL, NULL), 0);
        return false;
}

bool harness_spawn_kill_at(Harness *h, unsigned n) {
        int status;

        harness_fork(h, /* traced= */ true);
        CHECK(next_stop(h, /* may_wait= */ false, &status));
        for (unsigned i = 0; i < n; i++) {
                CHECK_EQ(ptrace(PTRACE_SYSCALL, h->pid, NULL, NULL), 0);
                CHECK(next_stop(h, /* may_wait= */ false, &status));
                CHECK(WIFSTOPPED(status));
                if (h->ready) {
                        CHECK_EQ(ptrace(PTRACE_DETACH, h->pid, NULL, NULL), 0);
                        return false;
                }
        }
        harness_kill(h);
        return true;
}

int harness_send(Harness *h, uint32_t operation, const char *id, const char *path, uint32_t line_max, const int *fds) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char packet[POD_REQUEST_MAX];
        PodRequest q = {
                .magic = POD_PROTOCOL_MAGIC,
                .operation = operation,
                .line_max = line_max,
                .id_size = (uint16_t) strlen(strempty(id)),
                .path_size = (uint16_t) strlen(strempty(path)),
        };
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(sizeof(int) * _POD_DESCRIPTOR_MAX)];
        } control = {};
        struct iovec iov = { .iov_base = packet };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
        int passed[_POD_DESCRIPTOR_MAX], fd;
        size_t n = 0;

        for (int k = 0; fds && k < _POD_DESCRIPTOR_MAX; k++)
                if (fds[k] >= 0) {
                        q.descriptors |= 1U << k;
                        passed[n++] = fds[k];
                }
        if (n > 0) {
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(sizeof(int) * n);
                memcpy(CMSG_DATA(&control.header), passed, sizeof(int) * n);
                m.msg_control = &control;
                m.msg_controllen = CMSG_SPACE(sizeof(int) * n);
        }
        memcpy(packet, &q, sizeof q);
        memcpy(packet + sizeof q, strempty(id), q.id_size);
        memcpy(packet + sizeof q + q.id_size, strempty(path), q.path_size);
        iov.iov_len = sizeof q + q.id_size + q.path_size;

        strcpy(address.sun_path, h->socket);
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        CHECK(fd >= 0);
        CHECK_EQ(connect(fd, (struct sockaddr *) &address, sizeof address), 0);
        CHECK(sendmsg(fd, &m, MSG_NOSIGNAL) > 0);
        return fd;
}

int harness_receive(Harness *h, int fd, char *words) {
        struct {
                PodReply reply;
                char words[POD_WORDS_MAX + 1];
        } reply = {};
        ssize_t n;

        for (;;) {
                struct pollfd p[] = { { .fd = fd, .events = POLLIN }, { .fd = h->notify, .events = POLLIN } };

                CHECK(poll(p, 2, PATIENCE_MSEC) > 0);
                harness_process(h);
                if (p[0].revents)
                        break;
        }
        n = recv(fd, &reply, sizeof reply - 1, 0);
        close(fd);
        harness_process(h);
        if (n <= 0)
                return -ECONNRESET;
        CHECK(n >= (ssize_t) sizeof reply.reply);
        CHECK_EQ(reply.reply.magic, POD_PROTOCOL_MAGIC);
        if (words)
                strcpy(words, reply.words);
        return reply.reply.result;
}

int harness_request(Harness *h, uint32_t operation, const char *id, const char *path, uint32_t line_max, const int *fds,
                    char *words) {
        return harness_receive(h, harness_send(h, operation, id, path, line_max, fds), words);
}

void pipes_open(Pipes *p, bool with_stdin) {
        for (int k = 0; k < _POD_DESCRIPTOR_MAX; k++)
                p->fds[k] = -1;
        for (int k = with_stdin ? 0 : 2; k < _POD_PIPES_MAX; k += 2)
                CHECK_EQ(pipe2(p->fds + k, O_CLOEXEC), 0);
}

void pipes_close(Pipes *p) {
        for (int k = 0; k < _POD_DESCRIPTOR_MAX; k++)
                p->fds[k] = safe_close(p->fds[k]);
}

char *text_make(uint32_t seed, size_t n) {
        uint32_t x = seed * 2654435761U + 12345, length;
        char *s = malloc(n + 1);

        CHECK(s);
        for (size_t i = 0; i < n;) {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                length = x % 13 == 0 ? x % 2500 : x % 90;
                for (uint32_t k = 0; k < length && i < n; k++, i++)
                        s[i] = (char) (' ' + (x + i * 7 + k) % 95);
                if (i < n)
                        s[i++] = '\n';
        }
        s[n] = 0;
        return s;
}

static bool is_stamp(const char *p) {
        static const char form[] = "0000-00-00T00:00:00.000000000Z ";

        for (size_t i = 0; form[i]; i++)
                if (form[i] == '0' ? p[i] < '0' || p[i] > '9' : p[i] != form[i])
                        return false;
        return true;
}

void log_check(const char *const *paths, size_t line_max, const char *out, size_t n_out, const char *err, size_t n_err) {
        const char *text[2] = { out, err };
        size_t size[2] = { n_out, n_err }, at[2] = {}, room = 0;
        char *line = NULL;

        for (; *paths; paths++) {
                FILE *f = fopen(*paths, "re");
                ssize_t n;

                CHECK(f);
                while ((n = getline(&line, &room, f)) > 0) {
                        char *p = line + 31;
                        bool full;
                        size_t k;
                        int s;

                        CHECK(n > 41 - 1 && line[n - 1] == '\n' && is_stamp(line));
                        s = strncmp(p, "stderr ", 7) == 0;
                        CHECK(s || strncmp(p, "stdout ", 7) == 0);
                        CHECK((p[7] == 'F' || p[7] == 'P') && p[8] == ' ');
                        full = p[7] == 'F';
                        p += 9;
                        k = (size_t) (line + n - 1 - p);

                        CHECK(at[s] + k <= size[s]);
                        CHECK(memcmp(p, text[s] + at[s], k) == 0);
                        at[s] += k;
                        if (full) {
                                CHECK(k <= line_max);
                                /* The end of the text need not be a newline: that line was flushed. */
                                if (at[s] < size[s])
                                        CHECK(text[s][at[s]++] == '\n');
                        } else {
                                CHECK_EQ(k, line_max);
                                CHECK(at[s] < size[s] && text[s][at[s]] != '\n');
                        }
                }
                fclose(f);
        }
        free(line);
        CHECK_EQ(at[0], n_out);
        CHECK_EQ(at[1], n_err);
}
