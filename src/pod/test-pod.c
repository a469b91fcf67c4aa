/* The pod process but its logs: namespaces, init, socket, mounts, and the daemon's side of the socket. */

#include <dirent.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "basic/fiber.h"
#include "basic/test.h"
#include "engine/native/pod-client.h"
#include "pod/test-pod-harness.h"

#define TMPFS_MAGIC 0x01021994

static const char *const all_namespaces[] = { "--net", "--ipc", "--uts", "--hostname=pod-name", "--pid",
                                              "--sysctl=net.ipv4.ip_unprivileged_port_start=77",
                                              "--sysctl=kernel.shm_rmid_forced=1", NULL };
static const char *const in_userns[] = { "--net", "--ipc", "--uts", "--hostname=pod-name", "--pid",
                                         "--sysctl=net.ipv4.ip_unprivileged_port_start=77",
                                         "--sysctl=kernel.shm_rmid_forced=1", "--uid-map=0:100000:65536",
                                         "--gid-map=0:200000:1000", "--gid-map=1000:300000:64536", NULL };
static const char *const kinds[] = { "net", "ipc", "uts", "mnt", "pid_for_children" };

static void proc_link(pid_t pid, const char *what, char ret[128]) {
        char path[64];
        ssize_t n;

        CHECK(snprintf(path, sizeof path, "/proc/%d/%s", pid, what) > 0);
        n = readlink(path, ret, 127);
        CHECK(n > 0);
        ret[n] = 0;
}

static bool same_namespace(pid_t a, pid_t b, const char *kind) {
        char what[64], x[128], y[128];

        CHECK(snprintf(what, sizeof what, "ns/%s", kind) > 0);
        proc_link(a, what, x);
        proc_link(b, what, y);
        return streq(x, y);
}

static void read_text(const char *path, char *ret, size_t size) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        CHECK(fd >= 0);
        n = read(fd, ret, size - 1);
        CHECK(n >= 0);
        ret[n] = 0;
        close(fd);
}

/* The only child of a process, 0 when it has none. */
static pid_t child_of(pid_t pid) {
        char path[64], text[256];

        CHECK(snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid) > 0);
        read_text(path, text, sizeof text);
        return atoi(text);
}

/* Runs func in a child that has entered the process's namespaces. */
static void in_namespaces(pid_t pid, int flags, void (*func)(void)) {
        int fd = (int) syscall(SYS_pidfd_open, pid, 0), status;
        pid_t p = fork();

        CHECK(fd >= 0 && p >= 0);
        if (p == 0) {
                CHECK_EQ(setns(fd, flags), 0);
                func();
                _exit(0);
        }
        close(fd);
        CHECK_EQ(waitpid(p, &status, 0), p);
        CHECK_EQ(status, 0);
}

static void check_inside(void) {
        struct ifreq request = { .ifr_name = "lo" };
        char text[64];
        int fd;

        CHECK_EQ(gethostname(text, sizeof text), 0);
        CHECK_STREQ(text, "pod-name");
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        CHECK_EQ(ioctl(fd, SIOCGIFFLAGS, &request), 0);
        CHECK(request.ifr_flags & IFF_UP);
        close(fd);
        read_text("/proc/sys/net/ipv4/ip_unprivileged_port_start", text, sizeof text);
        CHECK_STREQ(text, "77\n");
        read_text("/proc/sys/kernel/shm_rmid_forced", text, sizeof text);
        CHECK_STREQ(text, "1\n");
}

static void test_namespaces_outlive_the_process(void) {
        char before[ELEMENTSOF(kinds)][128], after[128], what[64];
        size_t store;
        Harness h;

        harness_init(&h, all_namespaces);
        harness_start(&h);
        CHECK_STREQ(h.status, "Running");
        store = h.n_store;
        for (size_t i = 0; i < ELEMENTSOF(kinds); i++) {
                (void) snprintf(what, sizeof what, "ns/%s", kinds[i]);
                proc_link(h.pid, what, before[i]);
                CHECK(!same_namespace(h.pid, getpid(), kinds[i]));
        }
        CHECK(same_namespace(h.pid, getpid(), "pid"));
        in_namespaces(h.pid, CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC, check_inside);
        for (int k = 0; k < 20; k++) {
                harness_kill(&h);
                harness_start(&h);
                for (size_t i = 0; i < ELEMENTSOF(kinds); i++) {
                        (void) snprintf(what, sizeof what, "ns/%s", kinds[i]);
                        proc_link(h.pid, what, after);
                        CHECK_STREQ(after, before[i]);
                }
                CHECK_EQ(h.n_store, store);
        }
        in_namespaces(h.pid, CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC, check_inside);
        harness_done(&h);
}

static void test_only_what_is_asked_for_is_unshared(void) {
        Harness h;

        harness_init(&h, NULL);
        harness_start(&h);
        for (size_t i = 0; i < ELEMENTSOF(kinds); i++)
                CHECK_EQ(same_namespace(h.pid, getpid(), kinds[i]), !streq(kinds[i], "mnt"));
        CHECK_EQ(child_of(h.pid), 0);
        harness_done(&h);
}

static void check_refused(const char *const *args, const char *word, int error) {
        Harness h;
        int status;

        harness_init(&h, args);
        harness_spawn(&h);
        CHECK_EQ(waitpid(h.pid, &status, 0), h.pid);
        h.pid = 0;
        harness_process(&h);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == POD_EXIT_FAILED);
        CHECK(!h.ready);
        CHECK(strstr(h.status, word));
        CHECK_EQ(h.status_errno, error);
        harness_done(&h);
}

static void test_a_failed_start_says_why(void) {
        check_refused((const char *[]) { "--net", "--sysctl=net.no.such=1", NULL }, "net.no.such=1", ENOENT);
        check_refused((const char *[]) { "--net", "--sysctl=net.ipv4.ip_forward=fish", NULL }, "ip_forward=fish", EINVAL);
        check_refused((const char *[]) { "--ipc", "--sysctl=net.ipv4.ip_forward=1", NULL }, "ip_forward=1", EPERM);
        check_refused((const char *[]) { "--net", "--sysctl=kernel.shmmax=1", NULL }, "shmmax", EPERM);
        check_refused((const char *[]) { "--net", "--sysctl=kernel.panic=1", NULL }, "panic", EPERM);
        check_refused((const char *[]) { "--net", "--sysctl=net/../kernel/panic=1", NULL }, "panic", EINVAL);
        check_refused((const char *[]) { "--net", "--sysctl=net.ipv4", NULL }, "NAME=VALUE", EINVAL);
        check_refused((const char *[]) { "--hostname=x", NULL }, "--uts", EINVAL);
        check_refused((const char *[]) { "--whatever", NULL }, "--whatever", EINVAL);
        check_refused((const char *[]) { "--net", "--pid", "--sysctl=net.no.such=1", NULL }, "net.no.such", ENOENT);
}

static size_t count_entries(pid_t pid, const char *what) {
        char path[64];
        size_t n = 0;
        DIR *d;

        CHECK(snprintf(path, sizeof path, "/proc/%d/%s", pid, what) > 0);
        d = opendir(path);
        CHECK(d);
        for (struct dirent *e; (e = readdir(d));)
                n += e->d_name[0] != '.';
        closedir(d);
        return n;
}

static bool status_has(pid_t pid, const char *line) {
        char path[64], text[4096];

        CHECK(snprintf(path, sizeof path, "/proc/%d/status", pid) > 0);
        read_text(path, text, sizeof text);
        return strstr(text, line);
}

/* In the pod's pid namespace after a fork: leaves orphans behind. */
static void leave_orphans(void) {
        pid_t p = fork();

        CHECK(p >= 0);
        if (p == 0) {
                for (int i = 0; i < 20; i++)
                        if (fork() == 0) {
                                usleep(300000); /* seen by the test meanwhile, however busy the machine is */
                                _exit(i);
                        }
                _exit(0);
        }
        CHECK_EQ(waitpid(p, NULL, 0), p);
}

static void test_init(void) {
        Harness h;
        pid_t init;

        harness_init(&h, (const char *[]) { "--pid", NULL });
        harness_start(&h);
        init = child_of(h.pid);
        CHECK(init > 0);
        CHECK(status_has(init, "Name:\trktlet-init\n"));

        /* Nothing is to be had from it. */
        CHECK(status_has(init, "\nUid:\t65534\t65534\t65534\t65534\n"));
        CHECK(status_has(init, "\nGid:\t65534\t65534\t65534\t65534\n"));
        CHECK(status_has(init, "\nCapPrm:\t0000000000000000\n"));
        CHECK(status_has(init, "\nCapEff:\t0000000000000000\n"));
        CHECK(status_has(init, "\nCapBnd:\t0000000000000000\n"));
        CHECK(status_has(init, "\nNoNewPrivs:\t1\n"));
        for (int i = 0; i < 5000 && count_entries(init, "fd") > 0; i++)
                usleep(1000); /* the last one goes when it was told to go on */
        CHECK_EQ(count_entries(init, "fd"), 0);
        CHECK_EQ(count_entries(init, "root"), 0);

        CHECK_EQ(child_of(init), 0);
        for (int round = 0; round < 2; round++) {
                in_namespaces(init, CLONE_NEWPID, leave_orphans);
                CHECK(child_of(init) > 0);
                for (int i = 0; i < 5000 && child_of(init) > 0; i++)
                        usleep(1000);
                CHECK_EQ(child_of(init), 0);

                /* It outlives the process, and does as well afterwards. */
                harness_kill(&h);
                CHECK_EQ(kill(init, 0), 0);
                harness_start(&h);
                CHECK_EQ(child_of(h.pid), 0);
                CHECK_EQ(kill(init, SIGTERM), 0);
                CHECK_EQ(kill(init, SIGHUP), 0);
                CHECK(!status_has(init, "\nState:\tZ"));
        }

        CHECK_EQ(harness_stop(&h, SIGTERM), 0);
        CHECK(kill(init, 0) < 0 || status_has(init, "\nState:\tZ"));
        harness_done(&h);
}

static void test_the_death_of_init_is_the_pods(void) {
        Harness h;
        int status;

        for (int restarted = 0; restarted < 2; restarted++) {
                pid_t init;

                harness_init(&h, (const char *[]) { "--pid", NULL });
                harness_start(&h);
                init = child_of(h.pid);
                if (restarted) {
                        harness_kill(&h);
                        harness_start(&h);
                }
                CHECK_EQ(kill(init, SIGKILL), 0);
                CHECK_EQ(waitpid(h.pid, &status, 0), h.pid);
                CHECK(WIFEXITED(status) && WEXITSTATUS(status) == POD_EXIT_INIT_DIED);
                h.pid = 0;
                harness_process(&h);
                CHECK(strstr(h.status, "init"));
                harness_done(&h);
        }
}

/* Whatever a kill in the middle of the first start leaves: the next start is complete, and no process is left over. */
static void kill_at_each_system_call_of_the_start(const char *const *args, size_t n_store) {
        Harness h;
        bool killed = true;

        CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
        for (unsigned n = 1; killed; n++) {
                size_t store;

                harness_init(&h, args);
                killed = harness_spawn_kill_at(&h, n);
                if (killed)
                        harness_start(&h);
                store = h.n_store;
                CHECK_EQ(store, n_store);
                in_namespaces(h.pid, CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC, check_inside);

                /* And the same when it goes on from its store. */
                harness_kill(&h);
                if (harness_spawn_kill_at(&h, n))
                        harness_start(&h);
                CHECK_EQ(h.n_store, store);
                in_namespaces(h.pid, CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC, check_inside);
                harness_done(&h);

                for (int i = 0; i < 5000 && waitpid(-1, NULL, WNOHANG) >= 0; i++)
                        usleep(1000);
                CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
        }
}

static void test_kill_at_each_system_call_of_the_start(void) {
        /* 5 namespaces, init, socket, state, both ends of the staging pipe */
        kill_at_each_system_call_of_the_start(all_namespaces, 10);
        kill_at_each_system_call_of_the_start(in_userns, 11);
}

static ino_t owner_of(pid_t pid, const char *kind) {
        char path[64];
        struct stat st;
        int fd, owner;

        CHECK(snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kind) > 0);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        CHECK(fd >= 0);
        owner = ioctl(fd, NS_GET_USERNS);
        CHECK(owner >= 0);
        CHECK_EQ(fstat(owner, &st), 0);
        close(fd);
        close(owner);
        return st.st_ino;
}

static void test_user_namespace(void) {
        char path[64], text[256], *s;
        struct stat st, ours;
        pid_t init;
        Harness h;

        CHECK_EQ(stat("/proc/self/ns/user", &ours), 0);
        harness_init(&h, in_userns);
        harness_start(&h);
        init = child_of(h.pid);
        CHECK(snprintf(path, sizeof path, "/proc/%d/ns/user", init) > 0);
        CHECK_EQ(stat(path, &st), 0);
        CHECK(st.st_ino != ours.st_ino);
        for (int k = 0; k < 2; k++) {
                CHECK(same_namespace(h.pid, getpid(), "user"));
                CHECK_EQ(owner_of(h.pid, "mnt"), ours.st_ino);
                CHECK_EQ(owner_of(h.pid, "net"), st.st_ino);
                CHECK_EQ(owner_of(h.pid, "ipc"), st.st_ino);
                CHECK_EQ(owner_of(h.pid, "uts"), st.st_ino);
                CHECK_EQ(owner_of(h.pid, "pid_for_children"), st.st_ino);
                in_namespaces(h.pid, CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC, check_inside);
                harness_kill(&h);
                harness_start(&h);
        }
        CHECK(snprintf(path, sizeof path, "/proc/%d/gid_map", init) > 0);
        read_text(path, text, sizeof text);
        s = text;
        for (unsigned long want[] = { 0, 200000, 1000, 1000, 300000, 64536 }, i = 0; i < ELEMENTSOF(want); i++)
                CHECK_EQ(strtoul(s, &s, 10), want[i]);
        harness_done(&h);

        check_refused((const char *[]) { "--net", "--uid-map=0:1:1", NULL }, "gid-map", EINVAL);
        check_refused((const char *[]) { "--net", "--uid-map=0:1:1", "--gid-map=0:1:1", "--sysctl=net.no.such=1", NULL },
                      "net.no.such", ENOENT);
        check_refused((const char *[]) { "--net", "--uid-map=0:-1:1", "--gid-map=0:0:1", NULL }, "range", EINVAL);
}

static void test_garbage_on_the_socket(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        static const char zeros[9000];
        PodRequest q = { .magic = POD_PROTOCOL_MAGIC, .operation = POD_DRAIN, .id_size = 3 };
        char packet[64], words[POD_WORDS_MAX + 1];
        int fds[40], fd;
        Harness h;

        harness_init(&h, NULL);
        harness_start(&h);
        strcpy(address.sun_path, h.socket);

        for (int round = 0; round < 3; round++) {
                for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                        fds[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
                        CHECK_EQ(connect(fds[i], (struct sockaddr *) &address, sizeof address), 0);
                }
                /* Some say nothing, some nonsense, and go. */
                for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                        size_t n = sizeof q + 3;

                        memcpy(packet, &q, sizeof q);
                        memcpy(packet + sizeof q, i % 7 == 0 ? "a\0b" : "abc", 3);
                        if (i % 7 == 1)
                                packet[0] ^= 1;
                        if (i % 7 == 2)
                                n--;
                        if (i % 7 == 3)
                                n = 5;
                        if (i % 7 == 4)
                                CHECK_EQ(send(fds[i], zeros, sizeof zeros, MSG_NOSIGNAL), sizeof zeros);
                        else if (i % 7 < 5)
                                (void) send(fds[i], packet, n, MSG_NOSIGNAL);
                        close(fds[i]);
                }
        }
        CHECK_EQ(harness_request(&h, 4711, NULL, NULL, 0, NULL, words), -EOPNOTSUPP);
        CHECK(strstr(words, "older"));

        /* More descriptors than said, less than said. */
        for (uint32_t kind = 0; kind < 2; kind++) {
                union {
                        struct cmsghdr header;
                        char room[CMSG_SPACE(sizeof(int))];
                } control = { .header = { .cmsg_level = SOL_SOCKET,
                                          .cmsg_type = SCM_RIGHTS,
                                          .cmsg_len = CMSG_LEN(sizeof(int)) } };
                struct iovec iov = { .iov_base = packet, .iov_len = sizeof q + 3 };
                struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

                q.descriptors = kind * 6;
                memcpy(packet, &q, sizeof q);
                memcpy(packet + sizeof q, "abc", 3);
                memcpy(CMSG_DATA(&control.header), &h.notify, sizeof(int));
                m.msg_control = &control;
                m.msg_controllen = sizeof control;
                fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
                CHECK_EQ(connect(fd, (struct sockaddr *) &address, sizeof address), 0);
                CHECK(sendmsg(fd, &m, 0) > 0);
                CHECK_EQ(harness_receive(&h, fd, NULL), kind ? -ECONNRESET : -ENOENT);
        }

        /* Another user, if he could get at it. */
        CHECK_EQ(chmod(h.directory, 0755), 0);
        CHECK_EQ(chmod(h.socket, 0666), 0);
        if (fork() == 0) {
                fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
                CHECK_EQ(setresuid(1000, 1000, 1000), 0);
                CHECK_EQ(connect(fd, (struct sockaddr *) &address, sizeof address), 0);
                (void) send(fd, packet, sizeof q + 3, MSG_NOSIGNAL);
                CHECK(recv(fd, packet, sizeof packet, 0) <= 0);
                _exit(0);
        }
        CHECK(wait(&fd) > 0 && fd == 0);

        CHECK_EQ(harness_request(&h, POD_DRAIN, "none", NULL, 0, NULL, words), -ENOENT);
        CHECK(strstr(words, "none"));
        for (int i = 0; i < 1000 && count_entries(h.pid, "fd") > 11; i++)
                usleep(1000);
        CHECK_EQ(count_entries(h.pid, "fd"), 11);
        harness_done(&h);
}

static int mount_make(void) {
        int fs = fsopen("tmpfs", FSOPEN_CLOEXEC), fd;

        CHECK(fs >= 0);
        CHECK_EQ(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), 0);
        fd = fsmount(fs, FSMOUNT_CLOEXEC, 0);
        CHECK(fd >= 0);
        close(fs);
        return fd;
}

/* Is a file system of its own there, as that process sees it? */
static bool is_mounted(pid_t pid, const char *path) {
        char inside[256];
        struct statfs s;

        CHECK(snprintf(inside, sizeof inside, "/proc/%d/root%s", pid, path) > 0);
        return statfs(inside, &s) == 0 && s.f_type == TMPFS_MAGIC;
}

/* fds for harness_request() with a mount in them. */
static const int *with_mount(int fd) {
        static int fds[_POD_DESCRIPTOR_MAX];

        for (int i = 0; i < _POD_DESCRIPTOR_MAX; i++)
                fds[i] = i == POD_MOUNT_FD ? fd : -1;
        return fds;
}

static void test_mounts(void) {
        char target[128], other[128], words[POD_WORDS_MAX + 1];
        int first = mount_make(), second = mount_make(), fd;
        Harness h;

        harness_init(&h, NULL);
        harness_start(&h);
        CHECK(snprintf(target, sizeof target, "%s/containers/x/rootfs", h.directory) > 0);

        CHECK_EQ(harness_request(&h, POD_MOUNT, NULL, target, 0, with_mount(first), NULL), 0);
        CHECK(is_mounted(h.pid, target));
        CHECK(!is_mounted(getpid(), target));
        fd = openat(first, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        CHECK(fd >= 0);
        close(fd);
        CHECK(snprintf(other, sizeof other, "/proc/%d/root%s/file", h.pid, target) > 0);
        CHECK_EQ(access(other, F_OK), 0);

        /* The same again changes nothing; it outlives the process; another one replaces it. */
        CHECK_EQ(harness_request(&h, POD_MOUNT, NULL, target, 0, with_mount(first), NULL), 0);
        harness_kill(&h);
        harness_start(&h);
        CHECK(snprintf(other, sizeof other, "/proc/%d/root%s/file", h.pid, target) > 0);
        CHECK_EQ(access(other, F_OK), 0);
        CHECK_EQ(harness_request(&h, POD_MOUNT, NULL, target, 0, with_mount(second), NULL), 0);
        CHECK(is_mounted(h.pid, target));
        CHECK(access(other, F_OK) < 0);

        CHECK_EQ(harness_request(&h, POD_UNMOUNT, NULL, target, 0, NULL, NULL), 0);
        CHECK(!is_mounted(h.pid, target));
        CHECK(access(target, F_OK) < 0);
        CHECK_EQ(harness_request(&h, POD_UNMOUNT, NULL, target, 0, NULL, NULL), 0);
        close(first);
        close(second);

        first = mount_make();
        CHECK_EQ(symlink("/", strcat(strcpy(other, h.directory), "/link")), 0);
        CHECK_EQ(harness_request(&h, POD_MOUNT, NULL, "/etc", 0, with_mount(first), words), -EINVAL);
        CHECK(strstr(words, "/etc"));
        strcat(strcpy(other, h.directory), "x/y");
        CHECK_EQ(harness_request(&h, POD_MOUNT, NULL, other, 0, with_mount(first), NULL), -EINVAL);
        strcat(strcpy(other, h.directory), "/../y");
        CHECK_EQ(harness_request(&h, POD_MOUNT, NULL, other, 0, with_mount(first), NULL), -EINVAL);
        CHECK_EQ(harness_request(&h, POD_UNMOUNT, NULL, other, 0, NULL, NULL), -EINVAL);
        strcat(strcpy(other, h.directory), "/link/tmp");
        CHECK_EQ(harness_request(&h, POD_MOUNT, NULL, other, 0, with_mount(first), NULL), -ELOOP);
        CHECK_EQ(harness_request(&h, POD_UNMOUNT, NULL, other, 0, NULL, NULL), -ELOOP);
        CHECK_EQ(harness_request(&h, POD_MOUNT, NULL, target, 0, NULL, words), -EINVAL);
        CHECK_EQ(harness_request(&h, POD_MOUNT, NULL, target, 0, with_mount(h.notify), words), -EINVAL);
        CHECK_EQ(harness_request(&h, POD_UNMOUNT, NULL, target, 0, NULL, NULL), 0);
        close(first);
        harness_done(&h);
}

/* The daemon's side, in a fiber. */
static int on_notify(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        harness_process(userdata);
        return 0;
}

static int restart_soon(sd_event_source *s, uint64_t usec, void *userdata) {
        Harness *h = userdata;

        CHECK_EQ(kill(h->pid, SIGCONT), 0);
        harness_kill(h);
        harness_spawn(h);
        return 0;
}

static void test_mount_of_a_file(void) {
        char source[96], target[96], inside[160], text[16];
        int fd, mount_fd;
        Harness h;

        harness_init(&h, NULL);
        harness_start(&h);
        CHECK(snprintf(source, sizeof source, "%s/source", h.directory) > 0);
        CHECK(snprintf(target, sizeof target, "%s/a/file", h.directory) > 0);
        fd = open(source, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        CHECK(fd >= 0);
        CHECK_EQ(write(fd, "text", 4), 4);
        close(fd);
        mount_fd = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        CHECK(mount_fd >= 0);
        for (int i = 0; i < 2; i++) {
                CHECK_EQ(harness_request(&h, POD_MOUNT, NULL, target, 0, with_mount(mount_fd), NULL), 0);
                CHECK(snprintf(inside, sizeof inside, "/proc/%d/root%s", h.pid, target) > 0);
                read_text(inside, text, sizeof text);
                CHECK_STREQ(text, "text");
                read_text(target, text, sizeof text); /* not outside */
                CHECK_STREQ(text, "");
        }
        close(mount_fd);
        CHECK_EQ(harness_request(&h, POD_UNMOUNT, NULL, target, 0, NULL, NULL), 0);
        CHECK(access(target, F_OK) < 0);
        read_text(source, text, sizeof text);
        CHECK_STREQ(text, "text");
        harness_done(&h);
}

static int use_client(void *userdata) {
        _cleanup_error_ Error error = ERROR_INIT;
        char path[128], old[128], text[1024], id[16];
        Harness *h = userdata;
        PodStreams s;
        Pipes p;
        int m;

        CHECK(snprintf(path, sizeof path, "%s/a.log", h->directory) > 0);
        CHECK(snprintf(old, sizeof old, "%s/a.log.1", h->directory) > 0);
        pipes_open(&p, true);
        s = (PodStreams) { "a",       path,      p.fds[0], p.fds[1], p.fds[2],
                           p.fds[3],  p.fds[4],  p.fds[5], -1 };
        CHECK_EQ(pod_client_add_streams(h->socket, &s, &error), 0);
        CHECK_EQ(write(p.fds[POD_STDOUT_WRITE], "one\n", 4), 4);

        /* Stopped with the request in its socket, then killed: the request is sent again. */
        CHECK_EQ(kill(h->pid, SIGSTOP), 0);
        CHECK_EQ(sd_event_add_time_relative(fiber_event(fiber_current()), NULL, CLOCK_MONOTONIC, 20000, 0, restart_soon,
                                            h), 0);
        CHECK_EQ(pod_client_drain(h->socket, "a", &error), 0);
        CHECK_EQ(rename(path, old), 0);
        CHECK_EQ(pod_client_reopen_log(h->socket, "a", &error), 0);
        CHECK_EQ(write(p.fds[POD_STDERR_WRITE], "two", 3), 3);
        CHECK_EQ(pod_client_remove_streams(h->socket, "a", &error), 0);
        CHECK_EQ(pod_client_remove_streams(h->socket, "a", &error), 0);
        read_text(old, text, sizeof text);
        CHECK(endswith(text, " stdout F one\n"));
        read_text(path, text, sizeof text);
        CHECK(endswith(text, " stderr F two\n"));

        CHECK_EQ(pod_client_drain(h->socket, "a", &error), -ENOENT);
        CHECK_EQ(error.code, GRPC_NOT_FOUND);
        CHECK(strstr(error.message, "no container a"));
        error_clear(&error);
        s.log_path = "/dev/null";
        CHECK_EQ(pod_client_add_streams(h->socket, &s, &error), -EINVAL);
        CHECK(strstr(error.message, "/dev/null is not a regular file"));
        error_clear(&error);
        s.log_path = NULL;
        s.line_max = POD_LINE_MAX + 1;
        CHECK_EQ(pod_client_add_streams(h->socket, &s, &error), -EINVAL);
        error_clear(&error);
        s.line_max = 0;

        /* As many as there can be, and one more. */
        for (int i = 0; i <= POD_CONTAINERS_MAX; i++) {
                (void) snprintf(id, sizeof id, "c%d", i);
                s.container_id = id;
                pipes_close(&p);
                pipes_open(&p, true);
                s.stdin_read_fd = p.fds[0];
                s.stdin_write_fd = p.fds[1];
                s.stdout_read_fd = p.fds[2];
                s.stdout_write_fd = p.fds[3];
                s.stderr_read_fd = p.fds[4];
                s.stderr_write_fd = p.fds[5];
                CHECK_EQ(pod_client_add_streams(h->socket, &s, &error), i < POD_CONTAINERS_MAX ? 0 : -EMFILE);
        }
        CHECK(strstr(error.message, "128 containers at most"));
        CHECK_EQ(error.code, GRPC_RESOURCE_EXHAUSTED);
        error_clear(&error);
        pipes_close(&p);

        m = mount_make();
        (void) snprintf(path, sizeof path, "%s/m", h->directory);
        CHECK_EQ(pod_client_mount(h->socket, m, path, &error), 0);
        CHECK(is_mounted(h->pid, path));
        CHECK_EQ(pod_client_unmount(h->socket, path, &error), 0);
        CHECK_EQ(pod_client_sysctl(h->socket, "net.ipv4.conf.lo.forwarding=1", &error), 0);
        CHECK_EQ(pod_client_sysctl(h->socket, "kernel.panic=1", &error), -EPERM);
        close(m);
        error_clear(&error);

        CHECK_EQ(pod_client_status(h->socket, "Ready, 10.0.0.1", &error), 0);
        harness_process(h);
        CHECK_STREQ(h->status, "Ready, 10.0.0.1");

        CHECK(pod_client_drain("/tmp/no-such-socket", "a", &error) < 0);
        CHECK(strstr(error.message, "/tmp/no-such-socket"));
        return 0;
}

static void test_client(void) {
        sd_event *event = NULL;
        Harness h;

        harness_init(&h, (const char *[]) { "--net", NULL });
        harness_start(&h);
        CHECK_EQ(sd_event_new(&event), 0);
        CHECK_EQ(sd_event_add_io(event, NULL, h.notify, EPOLLIN, on_notify, &h), 0);
        CHECK_EQ(fiber_run(event, use_client, &h), 0);
        sd_event_unref(event);
        harness_wait_ready(&h);
        /* All of them come back. */
        CHECK_EQ(harness_store_count(&h, "container-") + harness_store_count(&h, "stdin-"), POD_CONTAINERS_MAX * 6);
        harness_kill(&h);
        harness_start(&h);
        CHECK_EQ(harness_request(&h, POD_DRAIN, "c127", NULL, 0, NULL, NULL), 0);
        harness_done(&h);
}

int main(void) {
        static const TestCase cases[] = {
                TEST_CASE(test_namespaces_outlive_the_process),
                TEST_CASE(test_only_what_is_asked_for_is_unshared),
                TEST_CASE(test_a_failed_start_says_why),
                TEST_CASE(test_init),
                TEST_CASE(test_the_death_of_init_is_the_pods),
                TEST_CASE(test_kill_at_each_system_call_of_the_start),
                TEST_CASE(test_garbage_on_the_socket),
                TEST_CASE(test_user_namespace),
                TEST_CASE(test_mounts),
                TEST_CASE(test_mount_of_a_file),
                TEST_CASE(test_client),
        };

        if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return TEST_SKIPPED;
        return test_main(cases, ELEMENTSOF(cases));
}
