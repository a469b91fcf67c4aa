#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "pod/pod-notify.h"
#include "pod/pod-protocol.h"

#define LISTEN_FDS_START 3
#define NOTIFY_FDS_MAX 16

static struct {
        int fd;
        socklen_t size;
        struct sockaddr_un address;
} notify = { .fd = -1 };

static const char *environment(char **envp, const char *name) {
        for (; *envp; envp++) {
                const char *value = startswith(*envp, name);

                if (value && *value == '=')
                        return value + 1;
        }
        return NULL;
}

static uint64_t number(const char *s) {
        uint64_t n = 0;

        for (; s && *s >= '0' && *s <= '9'; s++)
                n = n * 10 + (uint64_t) (*s - '0');
        return n;
}

int notify_open(char **envp, Text *why) {
        const char *path = environment(envp, "NOTIFY_SOCKET");
        size_t n;

        if (isempty(path))
                return 0;
        n = strlen(path);
        if ((path[0] != '/' && path[0] != '@') || n >= sizeof notify.address.sun_path)
                return fail(why, -EINVAL, "unknown kind of NOTIFY_SOCKET \"", path, "\"", NULL);

        notify.address.sun_family = AF_UNIX;
        memcpy(notify.address.sun_path, path, n);
        if (path[0] == '@')
                notify.address.sun_path[0] = 0;
        notify.size = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + n);

        notify.fd = SYS(socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (notify.fd < 0)
                return fail(why, notify.fd, "cannot make the notification socket", NULL);
        return 0;
}

static int notify_send(const char *message, const int *fds, size_t n, int flags) {
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(sizeof(int) * NOTIFY_FDS_MAX)];
        } control = {};
        struct iovec iov = { .iov_base = (char *) message, .iov_len = strlen(message) };
        struct msghdr m = {
                .msg_name = &notify.address,
                .msg_namelen = notify.size,
                .msg_iov = &iov,
                .msg_iovlen = 1,
        };
        int r;

        if (notify.fd < 0)
                return 0;
        if (n > NOTIFY_FDS_MAX)
                return -E2BIG;
        if (n > 0) {
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(sizeof(int) * n);
                memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * n);
                m.msg_control = &control;
                m.msg_controllen = CMSG_SPACE(sizeof(int) * n);
        }

        do
                r = SYS(sendmsg, notify.fd, &m, MSG_NOSIGNAL | flags);
        while (r == -EINTR);
        return r < 0 ? r : 0;
}

void notify_status(const char *state, const char *status, int error) {
        Text t = {};

        if (state) {
                text_add(&t, state);
                text_add(&t, "\n");
        }
        if (error < 0) {
                text_add(&t, "ERRNO=");
                text_add_number(&t, (uint64_t) -error);
                text_add(&t, "\n");
        }
        if (status) {
                text_add(&t, "STATUS=");
                text_add(&t, status);
        }
        /* Words alone are not worth waiting for a busy manager, while containers wait for their output to be read. */
        (void) notify_send(t.s, NULL, 0, state || error < 0 ? 0 : MSG_DONTWAIT);
}

int notify_store(const char *name, const int *fds, size_t n) {
        Text t = {};

        /* FDPOLL=0: otherwise the manager drops a descriptor when its other end hangs up. */
        text_add(&t, "FDSTORE=1\nFDPOLL=0\nFDNAME=");
        text_add(&t, name);
        return notify_send(t.s, fds, n, 0);
}

void notify_forget(const char *name) {
        Text t = {};

        text_add(&t, "FDSTOREREMOVE=1\nFDNAME=");
        text_add(&t, name);
        (void) notify_send(t.s, NULL, 0, 0);
}

int notify_received(char **envp, void (*func)(const char *name, int fd, void *userdata), void *userdata) {
        const char *names = environment(envp, "LISTEN_FDNAMES");
        uint64_t n = number(environment(envp, "LISTEN_FDS"));

        /* The second argument is not looked at; SYS() wants one. */
        if (number(environment(envp, "LISTEN_PID")) != (uint64_t) SYS(getpid, 0))
                return 0;

        n = MIN(n, (uint64_t) POD_FDSTORE_MAX * 2);
        for (uint64_t i = 0; i < n; i++) {
                int fd = LISTEN_FDS_START + (int) i;
                char name[64];
                size_t k = 0;

                for (; names && *names && *names != ':'; names++)
                        if (k + 1 < sizeof name)
                                name[k++] = *names;
                name[k] = 0;
                if (names && *names == ':')
                        names++;

                (void) SYS(fcntl, fd, F_SETFD, FD_CLOEXEC);
                func(name, fd, userdata);
        }
        return (int) n;
}

void say(const char *words) {
        Text t = {};

        text_add(&t, "rktlet-pod: ");
        text_add(&t, words);
        text_add(&t, "\n");
        /* Usually a socket to the journal; one that is full must not stop us. */
        if (SYS(sendto, STDERR_FILENO, t.s, t.n, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0) == -ENOTSOCK)
                (void) SYS(write, STDERR_FILENO, t.s, t.n);
}
