#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "pod/pod-attach.h"
#include "pod/pod-notify.h"
#include "pod/pod-stream.h"

#define LOG_MODE 0640
/* This many last components of a log's path must not be symbolic links: those that the pod's own directories consist of
 * (NAMESPACE_POD_UID/CONTAINER/0.log). What is above them is the administrator's, who may have moved it. */
#define LOG_STRICT_COMPONENTS 3
/* Read at most by a drain of a terminal, which doesn't tell how much it holds. */
#define DRAIN_MAX (1024U * 1024U)

Pump pump; /* set up by pump_start(): without a value from the file an idle process has a page less */

static void used_set(uint32_t i, bool used) {
        uint64_t bit = UINT64_C(1) << (i % 64), *word = &pump.state->used[i / 64];

        commit(word, used ? *word | bit : *word & ~bit);
}

static void container_reset(Container *c) {
        *c = (Container) { .tty = -1, .log = -1 };
        for (int k = 0; k < _POD_PIPES_MAX; k++)
                c->pipe[k] = -1;
}

/* "container-3-17": the descriptors of slot 3, of generation 17. */
static const char *store_name(Text *t, const char *kind, uint32_t i, uint32_t generation) {
        *t = (Text) {};
        text_add(t, kind);
        text_add_number(t, i);
        text_add(t, "-");
        text_add_number(t, generation);
        return t->s;
}

static bool store_name_parse(const char *name, const char *kind, uint32_t *ret_i, uint32_t *ret_generation) {
        const char *p = startswith(name, kind);
        uint32_t number[2] = {};

        if (!p)
                return false;
        for (int k = 0; k < 2; k++) {
                for (; *p >= '0' && *p <= '9'; p++)
                        number[k] = number[k] * 10 + (uint32_t) (*p - '0');
                if (*p != (k == 0 ? '-' : 0))
                        return false;
                p++;
        }
        *ret_i = number[0];
        *ret_generation = number[1];
        return true;
}

static int pump_make_map(Text *why) {
        pump.state = sys_mmap(sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED, pump.state_fd);
        if (!pump.state)
                return fail(why, -ENOMEM, "cannot map the state", NULL);
        FOREACH_CONTAINER(i)
                container_reset(&pump.container[i]);
        return 0;
}

int pump_start(Text *why) {
        pump.state_fd = pump.staging_read = pump.staging_write = -1;
        pump.epoll = SYS(epoll_create1, EPOLL_CLOEXEC);
        if (pump.epoll < 0)
                return fail(why, pump.epoll, "cannot make an epoll", NULL);
        return 0;
}

int pump_make(Text *why) {
        int pipe[2], r;

        pump.state_fd = SYS(memfd_create, "rktlet-pod", MFD_CLOEXEC);
        if (pump.state_fd < 0)
                return fail(why, pump.state_fd, "cannot make the state memory", NULL);
        r = SYS(ftruncate, pump.state_fd, sizeof(State));
        if (r < 0)
                return fail(why, r, "cannot size the state memory", NULL);
        r = pump_make_map(why);
        if (r < 0)
                return r;
        pump.state->magic = STATE_MAGIC;
        pump.state->version = STATE_VERSION;

        r = SYS(pipe2, pipe, O_CLOEXEC | O_NONBLOCK);
        if (r < 0)
                return fail(why, r, "cannot make the staging pipe", NULL);
        pump.staging_read = pipe[0];
        pump.staging_write = pipe[1];
        (void) SYS(fcntl, pipe[1], F_SETPIPE_SZ, BLOCK_MAX); /* smaller does as well */
        r = notify_store("staging", pipe, 2);
        if (r < 0)
                return fail(why, r, "cannot store the staging pipe", NULL);
        return 0;
}

int pump_commit(Text *why) {
        int r;

        r = notify_store("state", &pump.state_fd, 1);
        if (r < 0)
                return fail(why, r, "cannot store the state", NULL);
        return 0;
}

static bool is_write_end(int fd) {
        return (SYS(fcntl, fd, F_GETFL, 0) & O_ACCMODE) == O_WRONLY;
}

bool pump_take(const char *name, int fd) {
        int *where;

        if (streq(name, "state"))
                where = &pump.state_fd;
        else if (streq(name, "staging"))
                where = is_write_end(fd) ? &pump.staging_write : &pump.staging_read;
        else
                return false;

        (void) sys_close(*where);
        *where = fd;
        return true;
}

int pump_map(Text *why) {
        int r;

        if (pump.state_fd < 0)
                return -ENODATA;
        if (pump.staging_read < 0 || pump.staging_write < 0)
                return fail(why, -EBADF, "the staging pipe did not come back", NULL);
        r = SYS(ftruncate, pump.state_fd, sizeof(State));
        if (r < 0)
                return fail(why, r, "cannot size the state memory", NULL);
        r = pump_make_map(why);
        if (r < 0)
                return r;
        if (pump.state->magic != STATE_MAGIC || pump.state->version != STATE_VERSION)
                return fail(why, -EINVAL, "the state is of another version of this program", NULL);
        return 0;
}

static int descriptor_inode(int fd, uint32_t type, uint64_t *ret) {
        struct statx st;
        int r;

        r = SYS(statx, fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO, &st);
        if (r < 0)
                return r;
        if ((st.stx_mode & S_IFMT) != type)
                return -EINVAL;
        *ret = st.stx_ino;
        return 0;
}

bool pump_adopt(const char *name, int fd) {
        uint32_t i, generation;
        bool log = store_name_parse(name, "log-", &i, &generation);
        ContainerRecord *record;
        Container *c;
        uint64_t inode;

        if (!log && !store_name_parse(name, "container-", &i, &generation) &&
            !store_name_parse(name, "stdin-", &i, &generation))
                return false;
        record = i < POD_CONTAINERS_MAX && bit_test(pump.state->used, i) ? &pump.state->container[i] : NULL;
        if (!record || generation != (log ? record->log_generation : record->generation)) {
                notify_forget(name);
                (void) sys_close(fd);
                return true;
        }

        c = &pump.container[i];
        if (log)
                c->log = fd;
        else if (descriptor_inode(fd, S_IFIFO, &inode) < 0)
                c->tty = fd;
        else {
                for (int k = 0; k < _POD_PIPES_MAX && fd >= 0; k++)
                        if (record->inode[k / 2] == inode && (k % 2 > 0) == is_write_end(fd) && c->pipe[k] < 0)
                                c->pipe[k] = TAKE_FD(fd);
                (void) sys_close(fd);
        }
        return true;
}

const char *container_log_path(uint32_t i) {
        const ContainerRecord *record = &pump.state->container[i];

        return record->path_size <= PATH_INLINE ? record->path : pump.state->long_path[i];
}

/* Opens a log for appending; a regular file, and the pod's own directories no symbolic links. */
static int log_open(const char *path, Text *why) {
        struct open_how how = {
                .flags = O_PATH | O_CLOEXEC | O_NOFOLLOW,
                .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
        };
        char above[POD_PATH_MAX + 1];
        size_t n = strlen(path), split = n;
        _cleanup_fd_ int directory = -1;
        struct statx st;
        int fd, r;

        if (path[0] != '/' || n > POD_PATH_MAX)
                return fail(why, -EINVAL, "log path must be absolute and shorter than a page: ", path, NULL);
        for (const char *p = path; *p; p++)
                if (p[0] == '/' && p[1] == '.' && p[2] == '.' && (p[3] == '/' || p[3] == 0))
                        return fail(why, -EINVAL, "log path must not contain \"..\": ", path, NULL);

        for (int k = 0; k < LOG_STRICT_COMPONENTS && split > 0;)
                if (path[--split] == '/')
                        k++;
        memcpy(above, path, split + 1); /* with the slash, so that "/" is one */
        above[split + 1] = 0;
        directory = SYS(openat, AT_FDCWD, above, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
        if (directory < 0)
                return fail(why, directory, "cannot open log ", path, NULL);
        path += split + 1;

        /* Looked at first: opening a device or a FIFO can do things already. */
        fd = SYS(openat2, directory, path, &how, sizeof how);
        if (fd >= 0) {
                r = SYS(statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &st);
                (void) sys_close(fd);
                if (r >= 0 && S_ISLNK(st.stx_mode))
                        return fail(why, -ELOOP, "cannot open log ", above, path, NULL);
                if (r >= 0 && !S_ISREG(st.stx_mode))
                        return fail(why, -EINVAL, "log ", above, path, " is not a regular file", NULL);
        }

        how.flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
        how.mode = LOG_MODE;
        fd = SYS(openat2, directory, path, &how, sizeof how);
        if (fd < 0)
                return fail(why, fd, "cannot open log ", above, path, NULL);
        r = SYS(statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &st);
        if (r < 0 || !S_ISREG(st.stx_mode)) {
                (void) sys_close(fd);
                return fail(why, -EINVAL, "log ", above, path, " is not a regular file", NULL);
        }
        return fd;
}

int pump_recover(Text *why) {
        uint32_t owner = pump.state->staging_owner;

        if (owner > N_STREAMS)
                return fail(why, -EINVAL, "the state is damaged", NULL);
        FOREACH_CONTAINER(i) {
                Container *c = &pump.container[i];
                ContainerRecord *record = &pump.state->container[i];

                if (c->log < 0 && record->log_generation > 0) {
                        /* The store kept everything but this one; the path is the best there is. */
                        Text ignored = {};

                        c->log = log_open(container_log_path(i), &ignored);
                }
                stream_claim(i * 2);
                stream_claim(i * 2 + 1);
        }
        pump.touched = N_STREAMS;
        pump.dirty = true;
        FOREACH_CONTAINER(i) {
                stream_recover(i * 2);
                stream_recover(i * 2 + 1);
        }
        pump_retry();
        return 0;
}

static int container_retry(uint32_t i) {
        int r;

        for (uint32_t k = 0; k < 2; k++) {
                r = stream_write(i * 2 + k, /* flush= */ pump.container[i].ended[k]);
                if (r < 0) {
                        stream_stuck(i * 2 + k, r);
                        return r;
                }
        }
        stream_watch(i * 2, true);
        stream_watch(i * 2 + 1, true);
        return 0;
}

void pump_retry(void) {
        bool stuck = false, was = pump.stuck;

        FOREACH_CONTAINER(i)
                if (container_retry(i) < 0)
                        stuck = true;
        pump.stuck = stuck;
        if (was && !stuck)
                notify_status(NULL, "Running", 0);
}

void pump_trim(void) {
        uint32_t owned = 0;

        for (uint32_t b = 0; b < pump.touched; b++) {
                uint32_t first = b;

                while (b < pump.touched && !bit_test(pump.buffers, b))
                        b++;
                if (b > first)
                        (void) SYS(fallocate, pump.state_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                   offsetof(State, buffer) + (size_t) first * BUFFER_SIZE,
                                   (size_t) (b - first) * BUFFER_SIZE);
                if (b < pump.touched)
                        owned = b + 1;
        }
        FOREACH_CONTAINER(i)
                for (uint32_t k = 0; k < 2; k++) {
                        const StreamRecord *r = &pump.state->container[i].stream[k];
                        size_t end = (word_start(r->word) + word_size(r->word) + 4095) & ~(size_t) 4095;

                        if (r->buffer > 0 && end < BUFFER_SIZE)
                                (void) SYS(fallocate, pump.state_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                           offsetof(State, buffer) + (size_t) (r->buffer - 1) * BUFFER_SIZE + end,
                                           BUFFER_SIZE - end);
                }
        stream_trim();
        attach_trim();
        pump.touched = owned;
        pump.dirty = false;
}

int container_find(const char *id) {
        FOREACH_CONTAINER(i)
                if (streq(pump.state->container[i].id, id))
                        return (int) i;
        return -ENOENT;
}

/* Looks at what was passed: pipes in pairs, or a terminal; `inode` tells them apart, a terminal by its number. */
static int descriptors_check(const int *fds, uint64_t *inode, Text *why) {
        uint32_t number = 0;
        int r;

        for (int k = 0; k < _POD_PIPES_MAX; k++) {
                uint64_t n;

                if (fds[k] < 0) {
                        if (fds[k ^ 1] >= 0)
                                return fail(why, -EINVAL, "a pipe has one end only", NULL);
                        continue;
                }
                r = descriptor_inode(fds[k], S_IFIFO, &n);
                if (r < 0)
                        return fail(why, r, "a descriptor of the container's streams is not a pipe", NULL);
                if (is_write_end(fds[k]) != (k % 2 > 0) || (k % 2 > 0 && inode[k / 2] != n))
                        return fail(why, -EINVAL, "the ends of a pipe are mixed up", NULL);
                inode[k / 2] = n;
        }
        if (fds[POD_TTY] >= 0) {
                if (fds[POD_STDOUT_READ] >= 0 || fds[POD_STDERR_READ] >= 0)
                        return fail(why, -EINVAL, "a container has a terminal or pipes, not both", NULL);
                r = SYS(ioctl, fds[POD_TTY], TIOCGPTN, &number);
                if (r < 0)
                        return fail(why, r, "the container's terminal is no pseudo terminal's master", NULL);
                inode[POD_STDOUT_READ / 2] = number;
        } else if (fds[POD_STDOUT_READ] < 0)
                return fail(why, -EINVAL, "a container needs a standard output", NULL);
        return 0;
}

static bool id_is_valid(const char *id) {
        size_t n = strlen(id);

        for (size_t i = 0; i < n; i++)
                if (!((id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'z') ||
                      (id[i] >= 'A' && id[i] <= 'Z') || id[i] == '-' || id[i] == '_' || id[i] == '.'))
                        return false;
        return n > 0 && n <= POD_ID_MAX;
}

/* Is this request the same as the one that made the container? Then it was sent again. */
static bool container_is(uint32_t i, const char *path, uint32_t line_max, const int *fds, const uint64_t *inode) {
        const ContainerRecord *record = &pump.state->container[i];
        const Container *c = &pump.container[i];

        for (int k = 0; k < _POD_PIPES_MAX; k++)
                if ((fds[k] >= 0) != (c->pipe[k] >= 0))
                        return false;
        for (int k = 0; k < _POD_PIPES_MAX / 2; k++)
                if (inode[k] != record->inode[k])
                        return false;
        return (fds[POD_TTY] >= 0) == (c->tty >= 0) && line_max == record->line_max &&
               streq(path, container_log_path(i));
}

int container_add(const char *id, const char *path, uint32_t line_max, int *fds, Text *why) {
        uint64_t inode[_POD_PIPES_MAX / 2] = {};
        _cleanup_fd_ int log = -1;
        ContainerRecord *record;
        int store[_POD_PIPES_MAX + 1], r;
        uint32_t i = 0, log_generation = 0;
        size_t n = 0;
        Container *c;
        Text name;

        line_max = line_max > 0 ? line_max : POD_LINE_DEFAULT;
        if (!id_is_valid(id))
                return fail(why, -EINVAL, "no valid container ID: \"", id, "\"", NULL);
        if (line_max > POD_LINE_MAX)
                return fail(why, -EINVAL, "log lines can have 131072 bytes at most", NULL);
        r = descriptors_check(fds, inode, why);
        if (r < 0)
                return r;

        r = container_find(id);
        if (r >= 0) {
                i = (uint32_t) r;
                if (container_is(i, path, line_max, fds, inode))
                        return 0;
                (void) container_drain(i);
                container_forget(i);
        }

        for (i = 0; i < POD_CONTAINERS_MAX && bit_test(pump.state->used, i);)
                i++;
        if (i == POD_CONTAINERS_MAX)
                return fail(why, -EMFILE, "a pod can have 128 containers at most", NULL);
        record = &pump.state->container[i];
        c = &pump.container[i];

        if (*path) {
                log = log_open(path, why);
                if (log < 0)
                        return log;
                log_generation = ++pump.state->generation;
                r = notify_store(store_name(&name, "log-", i, log_generation), &log, 1);
                if (r < 0)
                        return fail(why, r, "cannot store the log", NULL);
        }

        *record = (ContainerRecord) {
                .generation = ++pump.state->generation,
                .log_generation = log_generation,
                .line_max = line_max,
                .path_size = (uint32_t) strlen(path),
        };
        memcpy(record->inode, inode, sizeof inode);
        memcpy(record->id, id, strlen(id) + 1);
        memcpy((char *) container_log_path(i), path, record->path_size + 1);

        /* The standard input by itself, so that it can be given up while the rest stays. */
        r = fds[POD_STDIN_READ] < 0
                            ? 0
                            : notify_store(store_name(&name, "stdin-", i, record->generation), fds + POD_STDIN_READ, 2);
        for (int k = POD_STDOUT_READ; k <= POD_TTY; k++)
                if (fds[k] >= 0)
                        store[n++] = fds[k];
        if (r >= 0)
                r = notify_store(store_name(&name, "container-", i, record->generation), store, n);
        if (r < 0) {
                notify_forget(store_name(&name, "log-", i, log_generation));
                notify_forget(store_name(&name, "stdin-", i, record->generation));
                return fail(why, r, "cannot store the container's streams", NULL);
        }
        used_set(i, true);

        container_reset(c);
        for (int k = 0; k < _POD_PIPES_MAX; k++)
                c->pipe[k] = TAKE_FD(fds[k]);
        c->tty = TAKE_FD(fds[POD_TTY]);
        c->log = TAKE_FD(log);
        if (c->tty >= 0) /* a pipe is spliced without blocking whatever its flags; a terminal is not */
                (void) SYS(fcntl, c->tty, F_SETFL, O_RDWR | O_NONBLOCK);
        stream_watch(i * 2, true);
        stream_watch(i * 2 + 1, true);
        return 0;
}

int container_reopen(uint32_t i, Text *why) {
        ContainerRecord *record = &pump.state->container[i];
        Container *c = &pump.container[i];
        uint32_t generation, old = record->log_generation;
        Text name;
        int fd, r;

        if (old == 0)
                return fail(why, -EINVAL, "container ", record->id, " has no log", NULL);

        for (uint32_t k = 0; k < 2; k++) {
                r = stream_write(i * 2 + k, /* flush= */ false);
                if (r < 0 && !stream_unwrite(i * 2 + k))
                        return fail(why, r, "cannot finish a line of the old log of container ", record->id, NULL);
        }

        fd = log_open(container_log_path(i), why);
        if (fd < 0)
                return fd;
        generation = ++pump.state->generation;
        r = notify_store(store_name(&name, "log-", i, generation), &fd, 1);
        if (r < 0) {
                (void) sys_close(fd);
                return fail(why, r, "cannot store the log", NULL);
        }
        commit32(&record->log_generation, generation);
        notify_forget(store_name(&name, "log-", i, old));
        (void) sys_close(c->log);
        c->log = fd;
        (void) container_retry(i);
        return 0;
}

int container_drain(uint32_t i) {
        Container *c = &pump.container[i];

        for (uint32_t k = 0; k < 2; k++) {
                uint32_t index = i * 2 + k, first = c->n_read[k];
                int fd = stream_source(index), size, r;

                if (fd < 0)
                        continue;
                /* A pipe never holds more than its size, so that much later all that was in it is read. */
                size = SYS(fcntl, fd, F_GETPIPE_SZ, 0);
                if (size < 0)
                        size = DRAIN_MAX;

                do {
                        r = stream_write(index, /* flush= */ false);
                        if (r < 0)
                                break;
                        r = c->ended[k] ? 0 : stream_read(index);
                        if (r < 0) {
                                c->ended[k] = true;
                                stream_watch(index, false);
                                r = 0;
                        }
                } while (r > 0 && c->n_read[k] - first < (uint32_t) size);
                if (r >= 0 && pump.state->container[i].log_generation > 0)
                        r = stream_write(index, /* flush= */ true);
                if (r < 0) {
                        stream_stuck(index, r);
                        return r;
                }
        }
        return 0;
}

void container_forget(uint32_t i) {
        ContainerRecord *record = &pump.state->container[i];
        Container *c = &pump.container[i];
        Text name;

        /* The store holds them too, so that closing ours would not end the watch. */
        stream_watch(i * 2, false);
        stream_watch(i * 2 + 1, false);
        used_set(i, false);
        attach_forget(i);
        stream_release(i * 2);
        stream_release(i * 2 + 1);
        notify_forget(store_name(&name, "container-", i, record->generation));
        if (c->pipe[POD_STDIN_READ] >= 0)
                notify_forget(store_name(&name, "stdin-", i, record->generation));
        if (record->log_generation > 0)
                notify_forget(store_name(&name, "log-", i, record->log_generation));
        for (int k = 0; k < _POD_PIPES_MAX; k++)
                (void) sys_close(c->pipe[k]);
        (void) sys_close(c->tty);
        (void) sys_close(c->log);
}

void container_close_stdin(uint32_t i) {
        Container *c = &pump.container[i];
        Text name;

        if (c->pipe[POD_STDIN_WRITE] < 0)
                return;
        notify_forget(store_name(&name, "stdin-", i, pump.state->container[i].generation));
        c->pipe[POD_STDIN_READ] = sys_close(c->pipe[POD_STDIN_READ]);
        c->pipe[POD_STDIN_WRITE] = sys_close(c->pipe[POD_STDIN_WRITE]);
}
