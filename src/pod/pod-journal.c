#include <sys/socket.h>
#include <sys/un.h>

#include "pod/pod-journal.h"
#include "pod/pod-notify.h"

static struct {
        struct sockaddr_un address;
        socklen_t size;
        int fd;    /* 0: not made yet */
        bool told; /* that lines are missing */
} journal;

void journal_set_path(const char *path) {
        size_t n = MIN(strlen(path), sizeof journal.address.sun_path - 1);

        journal.address = (struct sockaddr_un) { .sun_family = AF_UNIX };
        memcpy(journal.address.sun_path, path, n);
        journal.size = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + n + 1);
}

int journal_begin(uint32_t container, const char *name, Text *why) {
        char *to = pump.state->journal_name[container];
        size_t n = MIN(strlen(name), (size_t) JOURNAL_NAME_MAX);

        for (size_t i = 0; i < n; i++)
                to[i] = (unsigned char) name[i] < ' ' ? '?' : name[i];
        to[n] = 0;
        if (n == 0)
                return fail(why, -EINVAL, "a name for the journal is missing", NULL);
        commit32(&pump.state->container[container].journal, 1);
        return 0;
}

static int journal_open(void) {
        if (journal.fd <= 0)
                journal.fd = SYS(socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        return journal.fd;
}

/* OBJECT_SYSTEMD_UNIT makes it an entry of the container's unit for journalctl -u, though it comes from the pod's. The
 * fields of the pod are added by journald: they are the LogExtraFields of our unit. */
static void make_fields(uint32_t index, bool full, Text *t) {
        const ContainerRecord *record = &pump.state->container[index / 2];
        const char *name = pump.state->journal_name[index / 2];

        text_add(t, index % 2 ? "\nPRIORITY=3\nCONTAINER_STREAM=stderr" : "\nPRIORITY=6\nCONTAINER_STREAM=stdout");
        text_add(t, "\nSYSLOG_IDENTIFIER=");
        text_add(t, name);
        text_add(t, "\nCONTAINER_NAME=");
        text_add(t, name);
        text_add(t, "\nCONTAINER_ID=");
        text_add(t, record->id);
        text_add(t, "\nOBJECT_SYSTEMD_UNIT=rktlet-ctr-");
        text_add(t, record->id);
        text_add(t, full ? ".service\n" : ".service\nCONTAINER_PARTIAL_MESSAGE=true\n");
}

void journal_line(uint32_t index, const char *p, size_t n, bool full) {
        Text fields = {};
        struct iovec iov[] = {
                { .iov_base = (char *) "MESSAGE=", .iov_len = STRLEN("MESSAGE=") },
                { .iov_base = (char *) p, .iov_len = n },
                {},
        };
        struct msghdr m = {
                .msg_name = &journal.address,
                .msg_namelen = journal.size,
                .msg_iov = iov,
                .msg_iovlen = ELEMENTSOF(iov),
        };
        int r;

        make_fields(index, full, &fields);
        iov[2] = (struct iovec) { .iov_base = fields.s, .iov_len = fields.n };
        r = journal_open();
        if (r >= 0)
                r = SYS(sendmsg, journal.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (r >= 0 || journal.told)
                return;
        journal.told = true;
        say("the journal does not keep up: some lines are in the containers' log files only");
}
