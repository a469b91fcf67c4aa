/* The log pump, from outside: the real program, killed wherever it can be. */

#include <dirent.h>
#include <fcntl.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "basic/test.h"
#include "pod/test-pod-harness.h"

static char *path_in(const Harness *h, const char *name) {
        static char path[8][128];
        static unsigned i;

        i = (i + 1) % 8;
        CHECK(snprintf(path[i], sizeof path[0], "%s/%s", h->directory, name) < (int) sizeof path[0]);
        return path[i];
}

static void put(int fd, const char *text, size_t n) {
        while (n > 0) {
                ssize_t k = write(fd, text, n);

                CHECK(k > 0);
                text += k;
                n -= (size_t) k;
        }
}

static off_t file_size(const char *path) {
        struct stat st;

        return stat(path, &st) < 0 ? -1 : st.st_size;
}

static void check_words(Harness *h, const char *path, size_t line_max, const char *out, const char *err) {
        log_check((const char *[]) { path, NULL }, line_max, out, strlen(out), err, strlen(err));
}

/* Waits for the log to grow to that size. */
static void wait_size(Harness *h, const char *path, off_t size) {
        for (int i = 0; i < 10000 && file_size(path) < size; i++) {
                harness_process(h);
                usleep(1000);
        }
        CHECK_EQ(file_size(path), size);
}

static void test_lines_are_split_and_flushed(void) {
        Harness h;
        Pipes p;
        char *path;

        harness_init(&h, NULL);
        harness_start(&h);
        path = path_in(&h, "a.log");
        pipes_open(&p, true);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path, 10, p.fds, NULL), 0);

        put(p.fds[POD_STDOUT_WRITE], "one\n\n0123456789\n01234567890\nunfinish", 36);
        wait_size(&h, path, 5 * 41 + 3 + 10 + 10 + 1);
        check_words(&h, path, 10, "one\n\n0123456789\n01234567890\n", "");
        put(p.fds[POD_STDERR_WRITE], "\0binary\xff\n", 9);
        put(p.fds[POD_STDOUT_WRITE], "ed", 2);
        CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), 0);
        log_check((const char *[]) { path, NULL }, 10, "one\n\n0123456789\n01234567890\nunfinished", 38,
                  "\0binary\xff\n", 9);

        /* A drain is not the end. */
        put(p.fds[POD_STDOUT_WRITE], "more", 4);
        CHECK_EQ(harness_request(&h, POD_REMOVE_STREAMS, "a", NULL, 0, NULL, NULL), 0);
        log_check((const char *[]) { path, NULL }, 10, "one\n\n0123456789\n01234567890\nunfinished\nmore", 43,
                  "\0binary\xff\n", 9);
        CHECK_EQ(harness_request(&h, POD_REMOVE_STREAMS, "a", NULL, 0, NULL, NULL), 0);
        CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), -ENOENT);
        pipes_close(&p);
        harness_done(&h);
}

/* The poke of harness_kill_at(). */
typedef struct Poke {
        Harness *h;
        const Pipes *p;
        const char *out, *err;
        size_t n_out, n_err;
        uint32_t operation;
        const char *path;
        int fd;
} Poke;

static void poke(void *userdata) {
        Poke *k = userdata;

        if (k->n_out)
                put(k->p->fds[POD_STDOUT_WRITE], k->out, k->n_out);
        if (k->n_err)
                put(k->p->fds[POD_STDERR_WRITE], k->err, k->n_err);
        if (k->operation)
                k->fd = harness_send(k->h, k->operation, "a", k->path, 100,
                                     k->operation == POD_ADD_STREAMS ? k->p->fds : NULL);
}

/* Kills it at the entry and the exit of each system call of a block's way, and some instructions later. */
static void test_kill_at_each_system_call(void) {
        const size_t N = 9000;
        Harness h;
        Pipes p;
        char *path, *out = text_make(1, N * 400), *err = text_make(2, N * 400);
        size_t at = 0;
        unsigned kills = 0;

        harness_init(&h, NULL);
        harness_start(&h);
        path = path_in(&h, "a.log");
        pipes_open(&p, false);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path, 100, p.fds, NULL), 0);

        for (unsigned steps = 0; steps < 90; steps = steps < 3 ? steps + 1 : steps + 29)
                for (unsigned n = 1;; n++) {
                        Poke k = { &h, &p, out + at, err + at, N - n, N - n };

                        CHECK(at + N < N * 400);
                        at += N - n;
                        if (!harness_kill_at(&h, n, steps, poke, &k))
                                break;
                        kills++;
                        harness_start(&h);
                }
        CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), 0);
        log_check((const char *[]) { path, NULL }, 100, out, at, err, at);
        fprintf(stderr, "# %u kills\n", kills);
        CHECK(kills > 60);
        pipes_close(&p);
        harness_done(&h);
        free(out);
        free(err);
}

/* The same for the requests: add, reopen, drain, remove. The request is sent again until it is answered. */
static void test_kill_at_each_system_call_of_a_request(void) {
        Harness h;
        Pipes p, q;
        char *first, *second, *path;
        size_t store;

        harness_init(&h, NULL);
        harness_start(&h);
        pipes_open(&q, true);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "other", NULL, 0, q.fds, NULL), 0);
        store = h.n_store;
        path = path_in(&h, "a.log");
        first = path_in(&h, "a.log.1");
        for (unsigned n = 1;; n++) {
                bool all_idle = true;

                pipes_open(&p, true);
                for (uint32_t operation = POD_ADD_STREAMS; operation <= POD_REMOVE_STREAMS; operation++) {
                        Poke k = { &h, &p, "x\ny", "z\nzz", 3, 4, operation, path };
                        int r;

                        if (operation == POD_ADD_STREAMS)
                                k.n_out = k.n_err = 0;
                        if (operation == POD_REOPEN_LOG)
                                CHECK_EQ(rename(path, first), 0);
                        if (harness_kill_at(&h, n, operation % 2 * 17, poke, &k)) {
                                all_idle = false;
                                harness_start(&h);
                        }
                        r = harness_receive(&h, k.fd, NULL);
                        if (r == -ECONNRESET)
                                r = harness_request(&h, operation, "a", path, 100, p.fds, NULL);
                        CHECK_EQ(r, 0);
                        if (operation == POD_ADD_STREAMS)
                                CHECK_EQ(h.n_store, store + 7);
                }
                CHECK_EQ(h.n_store, store);
                second = path;
                log_check((const char *[]) { first, second, NULL }, 100, "x\nyx\ny\nx\ny", 10,
                          "z\nzzz\nzz\nz\nzz", 13);
                CHECK_EQ(unlink(first), 0);
                CHECK_EQ(unlink(second), 0);
                pipes_close(&p);
                if (all_idle)
                        break;
        }
        pipes_close(&q);
        harness_done(&h);
}

static pid_t writer(int fd, const char *text, size_t n, unsigned seed) {
        pid_t pid = fork();

        CHECK(pid >= 0);
        if (pid > 0)
                return pid;
        srand(seed);
        while (n > 0) {
                size_t k = MIN((size_t) (rand() % 5 == 0 ? rand() % 20000 : rand() % 200) + 1, n);

                put(fd, text, k);
                text += k;
                n -= k;
                if (rand() % 64 == 0)
                        usleep((useconds_t) (rand() % 300));
        }
        _exit(0);
}

/* Hundreds of kills at any time while four streams write all they can and logs are rotated. */
static void test_kill_at_random_under_load(void) {
        enum { N_CONTAINERS = 2, KILLS = 300, ROTATIONS = 20 };
        const size_t N = 24 * 1024 * 1024;
        const char *paths[N_CONTAINERS][ROTATIONS + 2] = {};
        char *text[N_CONTAINERS * 2], names[N_CONTAINERS][ROTATIONS + 1][160];
        pid_t writers[N_CONTAINERS * 2];
        Pipes p[N_CONTAINERS];
        Harness h;
        int rotated = 0;

        srand(17);
        harness_init(&h, (const char *[]) { "--net", NULL });
        harness_start(&h);
        for (int c = 0; c < N_CONTAINERS; c++) {
                for (int i = 0; i <= ROTATIONS; i++)
                        (void) snprintf(names[c][i], sizeof names[0][0], "%s/%d.log%s%.0d", h.directory, c,
                                        i ? "." : "", i);
                pipes_open(&p[c], true);
                CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, c ? "c1" : "c0", names[c][0], c ? 0 : 700, p[c].fds, NULL),
                         0);
        }
        for (int i = 0; i < N_CONTAINERS * 2; i++) {
                text[i] = text_make((uint32_t) i + 20, N);
                writers[i] = writer(p[i / 2].fds[i % 2 ? POD_STDERR_WRITE : POD_STDOUT_WRITE], text[i], N, (unsigned) i);
        }

        for (int i = 0; i < KILLS; i++) {
                harness_process(&h);
                usleep((useconds_t) (rand() % 3000));
                harness_kill(&h);
                harness_spawn(&h);
                if (rand() % 4)
                        harness_wait_ready(&h);
                if (rotated < ROTATIONS && i % 12 == 5) {
                        rotated++;
                        for (int c = 0; c < N_CONTAINERS; c++) {
                                int fd;

                                CHECK_EQ(rename(names[c][0], names[c][rotated]), 0);
                                fd = harness_send(&h, POD_REOPEN_LOG, c ? "c1" : "c0", NULL, 0, NULL);
                                if (rand() % 2) {
                                        usleep((useconds_t) (rand() % 500));
                                        harness_kill(&h);
                                        harness_spawn(&h);
                                }
                                if (harness_receive(&h, fd, NULL) != 0)
                                        CHECK_EQ(harness_request(&h, POD_REOPEN_LOG, c ? "c1" : "c0", NULL, 0, NULL,
                                                                 NULL), 0);
                        }
                }
        }

        for (int i = 0; i < N_CONTAINERS * 2; i++) {
                int status, r;

                while ((r = waitpid(writers[i], &status, WNOHANG)) == 0) {
                        harness_process(&h);
                        usleep(1000);
                }
                CHECK(r == writers[i] && status == 0);
        }
        for (int c = 0; c < N_CONTAINERS; c++) {
                int n = 0;

                CHECK_EQ(harness_request(&h, POD_DRAIN, c ? "c1" : "c0", NULL, 0, NULL, NULL), 0);
                for (int i = 1; i <= rotated; i++)
                        paths[c][n++] = names[c][i];
                paths[c][n] = names[c][0];
                log_check(paths[c], c ? POD_LINE_DEFAULT : 700, text[c * 2], N, text[c * 2 + 1], N);
                pipes_close(&p[c]);
        }
        for (int i = 0; i < N_CONTAINERS * 2; i++)
                free(text[i]);
        harness_done(&h);
}

static void test_full_disk_loses_nothing_and_blocks_nobody(void) {
        const size_t N = 60000;
        char *out = text_make(5, N), *err = text_make(6, N), *log, *filler, *fine, *other, *mounted;
        char words[POD_WORDS_MAX + 1];
        Pipes p, q;
        Harness h;
        int fd;

        harness_init(&h, NULL);
        mounted = path_in(&h, "small");
        CHECK_EQ(mkdir(mounted, 0700), 0);
        CHECK_EQ(mount("tmpfs", mounted, "tmpfs", 0, "size=256k"), 0);
        harness_start(&h);
        log = strdup(path_in(&h, "small/a.log"));
        filler = strdup(path_in(&h, "small/filler"));
        fine = path_in(&h, "fine.log");
        other = path_in(&h, "small/a.log.1");
        pipes_open(&p, false);
        pipes_open(&q, false);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", log, 0, p.fds, NULL), 0);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "b", fine, 0, q.fds, NULL), 0);

        /* Room for some pages only. */
        fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        CHECK(fd >= 0);
        CHECK_EQ(ftruncate(fd, 0), 0);
        CHECK_EQ(fallocate(fd, 0, 0, 256 * 1024 - 5 * 4096), 0);
        put(p.fds[POD_STDOUT_WRITE], out, N);
        put(p.fds[POD_STDERR_WRITE], err, N);
        wait_size(&h, log, 5 * 4096);
        CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, words), -ENOSPC);
        CHECK(strstr(words, "small/a.log") && strstr(words, "no space left"));
        CHECK(strstr(h.status, "small/a.log"));

        /* The other container goes on; kills change nothing; a half written line cannot be left behind. */
        for (int i = 0; i < 3; i++) {
                put(q.fds[POD_STDOUT_WRITE], "fine\n", 5);
                CHECK_EQ(harness_request(&h, POD_DRAIN, "b", NULL, 0, NULL, NULL), 0);
                harness_kill(&h);
                harness_start(&h);
        }
        check_words(&h, fine, 16384, "fine\nfine\nfine\n", "");
        CHECK_EQ(rename(log, other), 0);
        CHECK_EQ(harness_request(&h, POD_REOPEN_LOG, "a", NULL, 0, NULL, words), -ENOSPC);
        CHECK_EQ(rename(other, log), 0);

        CHECK_EQ(ftruncate(fd, 0), 0);
        close(fd);
        CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), 0);
        log_check((const char *[]) { log, NULL }, 16384, out, N, err, N);
        for (int i = 0; i < 1000 && !streq(h.status, "Running"); i++) {
                usleep(1000);
                harness_process(&h);
        }
        CHECK_STREQ(h.status, "Running");

        CHECK_EQ(harness_request(&h, POD_REMOVE_STREAMS, "a", NULL, 0, NULL, NULL), 0);
        pipes_close(&p);
        pipes_close(&q);
        CHECK_EQ(harness_stop(&h, SIGTERM), 0);
        CHECK_EQ(umount2(mounted, MNT_DETACH), 0);
        harness_done(&h);
        free(out);
        free(err);
        free(log);
        free(filler);
}

static void test_only_regular_files_are_logs(void) {
        char words[POD_WORDS_MAX + 1];
        struct stat st;
        Harness h;
        Pipes p;

        harness_init(&h, NULL);
        harness_start(&h);
        pipes_open(&p, false);
        CHECK_EQ(symlink("/etc/passwd", path_in(&h, "link")), 0);
        CHECK_EQ(symlink(".", path_in(&h, "dir")), 0);
        CHECK_EQ(mkfifo(path_in(&h, "fifo"), 0600), 0);
        CHECK_EQ(mkdir(path_in(&h, "sub"), 0700), 0);

        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_in(&h, "link"), 0, p.fds, words), -ELOOP);
        CHECK(strstr(words, "symbolic link") && strstr(words, "/link"));
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_in(&h, "dir/a.log"), 0, p.fds, words), -ELOOP);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_in(&h, "fifo"), 0, p.fds, words), -EINVAL);
        CHECK(strstr(words, "not a regular file"));
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_in(&h, "sub"), 0, p.fds, words), -EINVAL);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_in(&h, "sub/../a.log"), 0, p.fds, words), -EINVAL);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_in(&h, "none/a.log"), 0, p.fds, words), -ENOENT);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", "relative", 0, p.fds, words), -EINVAL);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", "/dev/null", 0, p.fds, words), -EINVAL);
        CHECK_EQ(harness_store_count(&h, "log-") + harness_store_count(&h, "container-") +
                         harness_store_count(&h, "stdin-"), 0);

        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_in(&h, "sub/a.log"), 0, p.fds, words), 0);
        CHECK_EQ(stat(path_in(&h, "sub/a.log"), &st), 0);
        CHECK_EQ(st.st_mode & 07777, 0640);
        pipes_close(&p);
        harness_done(&h);
}

static int count_fds(pid_t pid) {
        char path[64];
        int n = 0;
        DIR *d;

        CHECK(snprintf(path, sizeof path, "/proc/%d/fd", pid) > 0);
        d = opendir(path);
        CHECK(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static void test_descriptors_stay_flat(void) {
        int first = -1, fds, patience = 1000;
        size_t store;
        Harness h;
        char *log;

        harness_init(&h, NULL);
        harness_start(&h);
        store = h.n_store;
        log = path_in(&h, "a.log");
        for (int i = 0; i < 200; i++) {
                Pipes p;

                pipes_open(&p, true);
                CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", log, 0, p.fds, NULL), 0);
                /* Sent again: the same. Others under its name: they replace it. */
                CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", log, 0, p.fds, NULL), 0);
                CHECK_EQ(h.n_store, store + 7);
                pipes_close(&p);
                pipes_open(&p, false);
                CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", log, 0, p.fds, NULL), 0);
                CHECK_EQ(h.n_store, store + 5);
                CHECK_EQ(harness_request(&h, POD_REOPEN_LOG, "a", NULL, 0, NULL, NULL), 0);
                CHECK_EQ(h.n_store, store + 5);
                put(p.fds[POD_STDERR_WRITE], "line\n", 5);
                CHECK_EQ(harness_request(&h, POD_REMOVE_STREAMS, "a", NULL, 0, NULL, NULL), 0);
                CHECK_EQ(h.n_store, store);
                pipes_close(&p);
                if (i % 50 == 49) {
                        harness_kill(&h);
                        harness_start(&h);
                        first = -1;
                }

                /* The connection is closed a little after its reply was sent. */
                if (first < 0)
                        usleep(20000);
                for (fds = count_fds(h.pid); first >= 0 && fds != first && patience > 0; patience--) {
                        usleep(1000);
                        fds = count_fds(h.pid);
                }
                CHECK(first < 0 || first == fds);
                first = fds;
        }
        CHECK_EQ(file_size(log), 200 * (41 + 4));
        harness_done(&h);
}

/* Without a log what a container writes is read and dropped, so that it doesn't block. */
static void test_no_log_is_dropped(void) {
        char *text = text_make(9, 1 << 20);
        Harness h;
        Pipes p;

        harness_init(&h, NULL);
        harness_start(&h);
        pipes_open(&p, false);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", NULL, 0, p.fds, NULL), 0);
        put(p.fds[POD_STDOUT_WRITE], text, 1 << 20);
        harness_kill(&h);
        harness_start(&h);
        put(p.fds[POD_STDOUT_WRITE], text, 1 << 20);
        CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), 0);
        CHECK_EQ(harness_request(&h, POD_REOPEN_LOG, "a", NULL, 0, NULL, NULL), -EINVAL);
        CHECK_EQ(harness_request(&h, POD_REMOVE_STREAMS, "a", NULL, 0, NULL, NULL), 0);
        pipes_close(&p);
        harness_done(&h);
        free(text);
}

static void test_terminal(void) {
        int fds[_POD_DESCRIPTOR_MAX], other;
        char *path;
        Harness h;

        for (int k = 0; k < _POD_DESCRIPTOR_MAX; k++)
                fds[k] = -1;
        harness_init(&h, NULL);
        harness_start(&h);
        path = path_in(&h, "tty.log");
        CHECK_EQ(openpty(&fds[POD_TTY], &other, NULL, NULL, NULL), 0);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path, 0, fds, NULL), 0);
        put(other, "first\n", 6);
        harness_kill(&h);
        put(other, "second\n", 7);
        harness_start(&h);
        put(other, "last, unfinished", 16);
        close(other);
        CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), 0);
        check_words(&h, path, 16384, "first\r\nsecond\r\nlast, unfinished", "");
        harness_kill(&h);
        harness_start(&h);
        CHECK_EQ(harness_request(&h, POD_REMOVE_STREAMS, "a", NULL, 0, NULL, NULL), 0);
        check_words(&h, path, 16384, "first\r\nsecond\r\nlast, unfinished", "");
        close(fds[POD_TTY]);
        harness_done(&h);
}

/* SIGTERM: what is in the pipes is written before the end. */
static void test_orderly_end_drains(void) {
        char *path;
        Harness h;
        Pipes p;

        harness_init(&h, NULL);
        harness_start(&h);
        path = path_in(&h, "a.log");
        pipes_open(&p, false);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path, 0, p.fds, NULL), 0);
        CHECK_EQ(kill(h.pid, SIGSTOP), 0);
        put(p.fds[POD_STDERR_WRITE], "the end", 7);
        CHECK_EQ(kill(h.pid, SIGTERM), 0);
        CHECK_EQ(kill(h.pid, SIGCONT), 0);
        CHECK_EQ(harness_stop(&h, SIGTERM), 0);
        check_words(&h, path, 16384, "", "the end");
        pipes_close(&p);
        harness_done(&h);
}

/* An idle process gives its buffers back; a busy one doesn't hold more than a few. */
static void test_memory_is_given_back(void) {
        char *text = text_make(3, 1 << 20), line[256], path[64];
        long dirty = 0, k;
        Harness h;
        Pipes p;
        FILE *f;

        harness_init(&h, NULL);
        harness_start(&h);
        pipes_open(&p, false);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path_in(&h, "a.log"), 0, p.fds, NULL), 0);
        put(p.fds[POD_STDOUT_WRITE], text, 1 << 20);
        put(p.fds[POD_STDERR_WRITE], "unfinished", 10);
        usleep(1600 * 1000);
        (void) snprintf(path, sizeof path, "/proc/%d/status", h.pid);
        f = fopen(path, "re");
        CHECK(f);
        while (fgets(line, sizeof line, f))
                if (sscanf(line, "RssAnon: %ld kB", &k) == 1 || sscanf(line, "RssShmem: %ld kB", &k) == 1)
                        dirty += k;
        fclose(f);
        fprintf(stderr, "# memory of its own: %ld KiB\n", dirty);
        CHECK(dirty > 0 && dirty <= 70);
        CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), 0);
        log_check((const char *[]) { path_in(&h, "a.log"), NULL }, 16384, text, 1 << 20, "unfinished", 10);
        pipes_close(&p);
        harness_done(&h);
        free(text);
}

static void expect_entry(int fd, const char *const *parts) {
        char data[70000];
        ssize_t n = recv(fd, data, sizeof data - 1, 0);

        CHECK(n > 0);
        data[n] = 0;
        for (; *parts; parts++)
                if (!strstr(data, *parts)) {
                        fprintf(stderr, "no %s in %.300s\n", *parts, data);
                        CHECK(false);
                }
}

static int journal_listen(const char *path, int flags) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | flags, 0);

        CHECK(snprintf(address.sun_path, sizeof address.sun_path, "%s", path) > 0);
        CHECK(fd >= 0 && bind(fd, (struct sockaddr *) &address, sizeof address) == 0);
        CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval) { .tv_sec = 10 }, sizeof(struct timeval)) == 0);
        return fd;
}

/* Beside the log file, and also after the process was started again; a journal that is gone is no matter. */
static void test_lines_go_to_the_journal(void) {
        char option[160], words[POD_WORDS_MAX + 1], line[21000];
        const char *args[] = { option, NULL };
        char *path, *socket_path;
        Harness h;
        Pipes p;
        int fd;

        harness_init(&h, args);
        socket_path = path_in(&h, "journal");
        CHECK(snprintf(option, sizeof option, "--journal=%s", socket_path) > 0);
        fd = journal_listen(socket_path, 0);
        harness_start(&h);
        path = path_in(&h, "a.log");
        pipes_open(&p, false);
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "a", path, 0, p.fds, NULL), 0);
        CHECK_EQ(harness_request(&h, POD_JOURNAL, "b", "name", 0, NULL, words), -ENOENT);
        CHECK_EQ(harness_request(&h, POD_JOURNAL, "a", "web", 0, NULL, NULL), 0);

        put(p.fds[POD_STDOUT_WRITE], "one\ntwo\n", 8);
        expect_entry(fd, (const char *[]) { "MESSAGE=one\n", "\nPRIORITY=6\n", "\nSYSLOG_IDENTIFIER=web\n",
                                            "\nCONTAINER_NAME=web\n", "\nCONTAINER_ID=a\n", "\nCONTAINER_STREAM=stdout\n",
                                            "\nOBJECT_SYSTEMD_UNIT=rktlet-ctr-a.service\n", NULL });
        expect_entry(fd, (const char *[]) { "MESSAGE=two\n", NULL });
        put(p.fds[POD_STDERR_WRITE], "bad\n", 4);
        expect_entry(fd, (const char *[]) { "MESSAGE=bad\n", "\nPRIORITY=3\n", "\nCONTAINER_STREAM=stderr\n", NULL });

        /* Done with it: otherwise it may come once more. */
        CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), 0);
        harness_kill(&h);
        harness_start(&h);
        memset(line, 'x', sizeof line - 1);
        line[sizeof line - 1] = '\n';
        put(p.fds[POD_STDOUT_WRITE], line, sizeof line);
        expect_entry(fd, (const char *[]) { "MESSAGE=xxx", "\nCONTAINER_PARTIAL_MESSAGE=true\n", "=web\n", NULL });
        expect_entry(fd, (const char *[]) { "MESSAGE=xxx", NULL });

        CHECK_EQ(close(fd), 0);
        put(p.fds[POD_STDOUT_WRITE], "three\n", 6);
        put(p.fds[POD_STDOUT_WRITE], "four\n", 5);
        CHECK_EQ(harness_request(&h, POD_DRAIN, "a", NULL, 0, NULL, NULL), 0);
        CHECK(file_size(path) > (off_t) sizeof line);
        CHECK_EQ(harness_request(&h, POD_REMOVE_STREAMS, "a", NULL, 0, NULL, NULL), 0);

        /* The next one in its place is not told of. */
        path = path_in(&h, "b.log");
        CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, "b", path, 0, p.fds, NULL), 0);
        CHECK_EQ(unlink(socket_path), 0);
        fd = journal_listen(socket_path, SOCK_NONBLOCK);
        put(p.fds[POD_STDOUT_WRITE], "five\n", 5);
        CHECK_EQ(harness_request(&h, POD_DRAIN, "b", NULL, 0, NULL, NULL), 0);
        CHECK(recv(fd, line, sizeof line, 0) < 0 && errno == EAGAIN);
        close(fd);
        pipes_close(&p);
        harness_done(&h);
}

int main(void) {
        static const TestCase cases[] = {
                TEST_CASE(test_lines_are_split_and_flushed),
                TEST_CASE(test_lines_go_to_the_journal),
                TEST_CASE(test_kill_at_each_system_call),
                TEST_CASE(test_kill_at_each_system_call_of_a_request),
                TEST_CASE(test_kill_at_random_under_load),
                TEST_CASE(test_full_disk_loses_nothing_and_blocks_nobody),
                TEST_CASE(test_only_regular_files_are_logs),
                TEST_CASE(test_descriptors_stay_flat),
                TEST_CASE(test_no_log_is_dropped),
                TEST_CASE(test_terminal),
                TEST_CASE(test_orderly_end_drains),
                TEST_CASE(test_memory_is_given_back),
        };

        if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return TEST_SKIPPED;
        return test_main(cases, ELEMENTSOF(cases));
}
