/* Getting one layer: its bytes go from the connection through a pipe into the unpacker while they arrive, so that
 * downloading, decompressing and writing overlap and nothing compressed is ever stored. A layer that several pulls
 * want at once is fetched once. */

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>

#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "basic/log.h"
#include "basic/process.h"
#include "image/store.h"
#include "image/unpack.h"

#define PIPE_SIZE  (1024 * 1024)
#define OUTPUT_MAX 4096U

struct LayerFetch {
        unsigned n_ref;
        LayerStore *store;
        RegistrySession *session;
        char *digest, *diff_id, *chain;
        uint64_t size, fetched; /* bytes of it; what has come so far */
        Fiber *fiber;
        FiberQueue queue;
        unsigned n_waiters;
        bool done;
        int result;
        Error error;
        ImageLayer *layer; /* a use, until the last waiter has taken its own */
};

static LayerFetch *fetch_unref(LayerFetch *f) {
        if (!f || --f->n_ref > 0)
                return NULL;
        layer_unuse(f->layer);
        registry_session_unref(f->session);
        fiber_unref(f->fiber);
        error_clear(&f->error);
        free(f->digest);
        free(f->diff_id);
        free(f->chain);
        store_unref(f->store);
        free(f);
        return NULL;
}
DEFINE_TRIVIAL_CLEANUP_FUNC(LayerFetch *, fetch_unref);

/* The unpacker of one attempt. */
typedef struct Unpacker {
        LayerStore *store;
        char *temporary; /* below tmp/ */
        int pidfd, in, out, err;
} Unpacker;

static void unpacker_done(Unpacker *u) {
        u->in = safe_close(u->in);
        u->out = safe_close(u->out);
        u->err = safe_close(u->err);
        if (u->pidfd >= 0) {
                siginfo_t si;

                FIBER_SHIELDED_SCOPE;
                (void) syscall(SYS_pidfd_send_signal, u->pidfd, SIGKILL, NULL, 0U);
                (void) fiber_wait_pidfd(u->pidfd, USEC_INFINITY, &si);
                u->pidfd = safe_close(u->pidfd);
        }
        if (u->temporary) {
                store_doom(u->store, u->temporary);
                u->temporary = mfree(u->temporary);
                store_wait_doomed(u->store);
        }
}

static int make_pipe(int *ret_read, int *ret_write, Error *error) {
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return error_set(error, -errno, "Cannot make a pipe");
        *ret_read = fds[0];
        *ret_write = fds[1];
        return 0;
}

static int unpacker_start(Unpacker *u, const LayerFetch *f, Error *error) {
        _cleanup_close_ int dir_fd = -1, tree_fd = -1, implied_fd = -1, sums_fd = -1, in = -1, out = -1, err = -1;
        char size[32];
        const char *const argv[] = {u->store->unpack_path, "layer", f->digest, size, f->diff_id, NULL};
        ProcessOptions o = {.argv = argv};
        pid_t pid;
        int r;

        (void) snprintf(size, sizeof size, "%llu", (unsigned long long) f->size);
        u->temporary = store_temporary(u->store, "unpack");
        if (!u->temporary)
                return error_oom(error);
        if (mkdirat(u->store->tmp_fd, u->temporary, 0700) < 0) {
                r = store_write_failed(u->store, -errno, error);
                u->temporary = mfree(u->temporary);
                return r;
        }
        dir_fd = open_directory(u->store->tmp_fd, u->temporary);
        if (dir_fd < 0)
                return error_set(error, dir_fd, "Cannot open a directory of the image store");
        /* The mode of a tree without an entry for its root, whatever our umask is. */
        if (mkdirat(dir_fd, "fs", 0755) < 0 || fchmodat(dir_fd, "fs", 0755, 0) < 0)
                return store_write_failed(u->store, -errno, error);
        tree_fd = open_directory(dir_fd, "fs");
        implied_fd = openat(dir_fd, "implied", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        sums_fd = openat(dir_fd, "sums", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (tree_fd < 0 || implied_fd < 0 || sums_fd < 0)
                return store_write_failed(u->store, -errno, error);

        if ((r = make_pipe(&in, &u->in, error)) < 0 || (r = make_pipe(&u->out, &out, error)) < 0 ||
            (r = make_pipe(&u->err, &err, error)) < 0)
                return r;
        /* Fewer switches between the two; a limit for pipes may forbid it. */
        (void) fcntl(u->in, F_SETPIPE_SZ, PIPE_SIZE);
        r = fd_set_nonblock(u->in, true);
        if (r >= 0)
                r = fd_set_nonblock(u->out, true);
        if (r >= 0)
                r = fd_set_nonblock(u->err, true);
        if (r < 0)
                return error_set(error, r, "Cannot set up a pipe");

        o.stdin_fd = in;
        o.stdout_fd = out;
        o.stderr_fd = err;
        o.pass_fds = (const int[]){tree_fd, implied_fd, sums_fd};
        o.n_pass_fds = 3;
        return process_spawn(&o, &pid, &u->pidfd, error);
}

/* What it has said; it is gone, so nothing more comes. */
static void read_output(int fd, char ret[static OUTPUT_MAX + 1]) {
        size_t n = 0;

        while (n < OUTPUT_MAX) {
                ssize_t k = read(fd, ret + n, OUTPUT_MAX - n);

                if (k <= 0)
                        break;
                n += (size_t) k;
        }
        ret[n] = '\0';
        ret[strcspn(ret, "\n")] = '\0';
}

typedef struct UnpackResult {
        uint64_t bytes, inodes, implied;
        bool opaque_root;
} UnpackResult;

static int unpacker_finish(Unpacker *u, UnpackResult *ret, Error *error) {
        char text[OUTPUT_MAX + 1];
        unsigned long long bytes, inodes, implied;
        siginfo_t si = {};
        int r, opaque;

        r = fiber_wait_pidfd(u->pidfd, USEC_INFINITY, &si);
        if (r < 0)
                return r;
        u->pidfd = safe_close(u->pidfd);

        if (si.si_code != CLD_EXITED)
                return error_setf(error, GRPC_INTERNAL, "The unpacker was killed by signal %d (%s)", si.si_status,
                                  strempty(sigabbrev_np(si.si_status)));
        if (si.si_status != 0) {
                read_output(u->err, text);
                if (si.si_status < 0 || si.si_status >= _GRPC_CODE_MAX || !text[0])
                        return error_setf(error, GRPC_INTERNAL, "The unpacker exited with status %d", si.si_status);
                return error_setf(error, (GrpcCode) si.si_status, "%s", text);
        }
        read_output(u->out, text);
        if (sscanf(text, "%llu %llu %llu %d", &bytes, &inodes, &implied, &opaque) != 4)
                return error_setf(error, GRPC_INTERNAL, "The unpacker's answer can't be understood");
        *ret = (UnpackResult){.bytes = bytes, .inodes = inodes, .implied = implied, .opaque_root = opaque};
        return 0;
}

static int fetch_from_host(LayerFetch *f, size_t host, Error *error) {
        _cleanup_(unpacker_done) Unpacker u = {.store = f->store, .pidfd = -1, .in = -1, .out = -1, .err = -1};
        UnpackResult result;
        int r;

        r = unpacker_start(&u, f, error);
        if (r < 0)
                return error_prefix(error, r, "Cannot start to unpack a layer");
        KILL_POINT_OF("image-layer.begin", f->digest);
        r = registry_stream_blob(f->session, host, f->digest, f->size, u.in, &f->fetched, error);
        KILL_POINT_OF("image-layer.downloaded", f->digest);
        u.in = safe_close(u.in);
        /* -EPIPE: the unpacker ended early and says why. */
        if (r < 0 && r != -EPIPE)
                return r;
        r = unpacker_finish(&u, &result, error);
        if (r < 0)
                return error_prefix(error, r, "Cannot unpack layer %.19s… of %s from %s", f->digest,
                                    registry_session_name(f->session), registry_session_host(f->session, host));

        KILL_POINT_OF("image-layer.unpacked", f->digest);
        if (result.implied == 0) {
                _cleanup_free_ char *path = strprintf("%s/implied", u.temporary);

                if (path)
                        (void) unlinkat(f->store->tmp_fd, path, 0);
        }
        r = store_commit_layer(f->store, u.temporary, f->diff_id, result.implied > 0 ? f->chain : NULL, result.bytes,
                               result.inodes, result.opaque_root, &f->layer, error);
        if (r < 0)
                return r;
        u.temporary = mfree(u.temporary);
        return 0;
}

/* A host may be down or send the wrong bytes; a full disk or an odd compression is the same from everywhere. */
static bool worth_another_host(int r, const Error *error) {
        return r < 0 && r != -ECANCELED && r != -ETIME && r != -ENOMEM && error->code != GRPC_RESOURCE_EXHAUSTED &&
               error->code != GRPC_UNIMPLEMENTED && error->code != GRPC_INTERNAL;
}

static int fetch_run(void *userdata) {
        LayerFetch *f = userdata;
        size_t n = registry_session_hosts(f->session);
        int r = -EIO;

        for (size_t i = 0; i < n; i++) {
                error_clear(&f->error);
                r = fetch_from_host(f, i, &f->error);
                if (!worth_another_host(r, &f->error))
                        break;
                if (i + 1 < n)
                        log_debug("%s; trying the next host", strempty(f->error.message));
        }
        f->result = r;
        f->done = true;
        list_remove(&f->store->fetches, &f->store->n_fetches, f);
        fiber_queue_wake(&f->queue, 0);
        return r;
}

static void fetch_destroy(void *userdata) {
        fetch_unref(userdata);
}

static int fetch_start(LayerStore *s, RegistrySession *session, const char *digest, uint64_t size, const char *diff_id,
                       const char *chain, LayerFetch **ret, Error *error) {
        _cleanup_(fetch_unrefp) LayerFetch *f = calloc(1, sizeof *f);
        int r;

        if (!f)
                return error_oom(error);
        f->n_ref = 1;
        f->store = store_ref(s);
        f->session = registry_session_ref(session);
        f->size = size;
        f->digest = strdup(digest);
        f->diff_id = strdup(diff_id);
        f->chain = strdup(chain);
        if (!f->digest || !f->diff_id || !f->chain)
                return error_oom(error);
        r = list_append(&s->fetches, &s->n_fetches, f);
        if (r < 0)
                return error_oom(error);
        f->n_ref++; /* the fiber's */
        r = fiber_spawn(s->event, "image-layer", fetch_run, f, fetch_destroy, &f->fiber);
        if (r < 0) {
                f->n_ref--;
                list_remove(&s->fetches, &s->n_fetches, f);
                return error_set(error, r, "Cannot start to get a layer");
        }
        *ret = TAKE_PTR(f);
        return 0;
}

static LayerFetch *find_fetch(LayerStore *s, const char *diff_id) {
        for (size_t i = 0; i < s->n_fetches; i++)
                if (streq(s->fetches[i]->diff_id, diff_id))
                        return s->fetches[i];
        return NULL;
}

/* Waits for a fetch; ends it when nobody else wants it any more. */
static int fetch_wait(LayerFetch *f) {
        int r = 0;

        f->n_waiters++;
        while (!f->done && r >= 0)
                r = fiber_queue_wait(&f->queue);
        f->n_waiters--;
        if (f->done)
                return 0;
        if (f->n_waiters == 0) {
                FIBER_SHIELDED_SCOPE;

                list_remove(&f->store->fetches, &f->store->n_fetches, f);
                fiber_cancel(f->fiber);
                (void) fiber_join(f->fiber, NULL);
        }
        return r;
}

int store_get_layer(LayerStore *s, RegistrySession *session, const char *digest, uint64_t size, const char *diff_id,
                    const char *chain, ImageLayer **ret, Error *error) {
        int r;

        for (;;) {
                _cleanup_(fetch_unrefp) LayerFetch *f = NULL;
                ImageLayer *l = store_find_layer(s, diff_id, chain);
                bool mine;

                if (l) {
                        *ret = layer_use(l);
                        return 0;
                }
                f = find_fetch(s, diff_id);
                mine = !f;
                if (f)
                        f->n_ref++;
                else {
                        r = fetch_start(s, session, digest, size, diff_id, chain, &f, error);
                        if (r < 0)
                                return r;
                }
                r = fetch_wait(f);
                if (r < 0)
                        return r;
                if (f->result >= 0 && (!f->layer->chain || streq(f->layer->chain, chain))) {
                        *ret = layer_use(f->layer);
                        return 0;
                }
                if (f->result < 0 && mine) {
                        error_move(error, &f->error);
                        return f->result;
                }
                /* Another pull's failure, maybe of its credentials, or a layer made for other parents: do it
                 * ourselves. */
        }
}

uint64_t store_fetched_bytes(LayerStore *s, const char *diff_id) {
        const LayerFetch *f = find_fetch(s, diff_id);

        return f ? f->fetched : 0;
}

void store_cancel_fetches(LayerStore *s) {
        for (size_t i = 0; i < s->n_fetches; i++)
                fiber_cancel(s->fetches[i]->fiber);
}
