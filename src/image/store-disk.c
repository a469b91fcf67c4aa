/* What the store does on disk in child processes, so that the loop never waits for it: removing trees, syncing. */

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "basic/log.h"
#include "basic/process.h"
#include "image/store.h"

/* After the last change; a layer that isn't synced before a power cut is fetched again, nothing worse. */
#define SYNC_DELAY_USEC (5 * USEC_PER_SEC)
/* Names in one removal command. */
#define DOOMED_AT_ONCE 256U

char *store_temporary(LayerStore *s, const char *what) {
        return strprintf("%s-%llu", what, (unsigned long long) s->next_temporary++);
}

int store_run_helper(LayerStore *s, const char *const *argv, const int *fds, size_t n_fds, int stdin_fd,
                     Error *error) {
        ProcessOptions o = {
                        .argv = argv,
                        .error_max = 4096,
                        .pass_fds = fds,
                        .n_pass_fds = n_fds,
                        .stdin_fd = stdin_fd,
        };
        ProcessResult p = {};
        int r;

        r = process_run(&o, &p, error);
        if (r < 0)
                return r;
        if (p.code != CLD_EXITED || p.status != 0) {
                if (p.code == CLD_EXITED && p.status > 0 && p.status < _GRPC_CODE_MAX && !isempty(p.error)) {
                        p.error[strcspn(p.error, "\n")] = '\0';
                        r = error_setf(error, (GrpcCode) p.status, "%s", p.error);
                } else
                        r = error_setf(error, GRPC_INTERNAL, "%s %s", argv[0], process_result_describe(&p));
        }
        process_result_done(&p);
        return r;
}

static int remove_fiber(void *userdata) {
        LayerStore *s = userdata;

        while (s->doomed && s->doomed[0]) {
                _cleanup_strv_free_ char **names = TAKE_PTR(s->doomed);
                size_t n = strv_length(names);

                for (size_t i = 0; i < n; i += DOOMED_AT_ONCE) {
                        const char *argv[DOOMED_AT_ONCE + 3] = {s->unpack_path, "remove"};
                        _cleanup_error_ Error error = ERROR_INIT;
                        size_t k = MIN(n - i, (size_t) DOOMED_AT_ONCE);

                        for (size_t j = 0; j < k; j++)
                                argv[2 + j] = names[i + j];
                        if (store_run_helper(s, argv, &s->tmp_fd, 1, -1, &error) < 0)
                                log_warning("Cannot remove what is in %s/tmp, it goes at the next start: %s",
                                            s->directory, strempty(error.message));
                }
                s->n_removed += n;
                fiber_queue_wake(&s->removed, 0);
        }
        s->removing = false;
        fiber_queue_wake(&s->removed, 0);
        return 0;
}

static void unref_store(void *userdata) {
        store_unref(userdata);
}

void store_doom(LayerStore *s, const char *name) {
        int r;

        if (strv_extend(&s->doomed, name) < 0)
                return; /* at the next start */
        s->n_doomed++;
        if (s->removing || s->closing)
                return;
        s->removing = true;
        r = fiber_spawn(s->event, "image-remove", remove_fiber, store_ref(s), unref_store, NULL);
        if (r < 0) {
                s->removing = false;
                store_unref(s);
                log_warning_errno(r, "Cannot remove %s/tmp/%s, it goes at the next start", s->directory, name);
        }
}

void store_wait_doomed(LayerStore *s) {
        uint64_t until = s->n_doomed;

        FIBER_SHIELDED_SCOPE;
        while (s->removing && s->n_removed < until)
                if (fiber_queue_wait(&s->removed) < 0)
                        return;
}

int layer_store_sync(ImageStore *store, Error *error) {
        LayerStore *s = layer_store(store);
        const char *const argv[] = {s->unpack_path, "sync", NULL};
        _cleanup_strv_free_ char **names = NULL;
        int r;

        /* Only what is there before the sync is safe after it. */
        for (size_t i = 0; i < s->n_layers; i++)
                if (s->layers[i]->unsynced && strv_extend(&names, s->layers[i]->name) < 0)
                        return error_oom(error);
        if (!names)
                return 0;
        r = store_run_helper(s, argv, &s->fd, 1, -1, error);
        KILL_POINT("image-sync.synced");
        if (r < 0)
                return error_prefix(error, r, "Cannot sync the image store");
        STRV_FOREACH(name, names) {
                ImageLayer *l = store_find_layer_by_name(s, *name);
                _cleanup_free_ char *path = strprintf("%s/unsynced", *name);

                if (l && path && (unlinkat(s->layers_fd, path, 0) >= 0 || errno == ENOENT))
                        l->unsynced = false;
                KILL_POINT_OF("image-sync.noted", *name);
        }
        return 0;
}

static int sync_fiber(void *userdata) {
        LayerStore *s = userdata;
        _cleanup_error_ Error error = ERROR_INIT;
        int r;

        r = layer_store_sync(&s->base, &error);
        s->syncing = false;
        if (r < 0)
                log_debug("%s", strempty(error.message));
        return r;
}

static int on_sync_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        LayerStore *s = userdata;

        if (s->syncing) {
                store_sync_later(s);
                return 0;
        }
        s->syncing = true;
        if (fiber_spawn(s->event, "image-sync", sync_fiber, store_ref(s), unref_store, NULL) < 0) {
                s->syncing = false;
                store_unref(s);
        }
        return 0;
}

void store_sync_later(LayerStore *s) {
        uint64_t when = now_usec(CLOCK_MONOTONIC) + SYNC_DELAY_USEC;
        int r = 0;

        if (s->closing)
                return;
        if (!s->sync_timer)
                r = sd_event_add_time(s->event, &s->sync_timer, CLOCK_MONOTONIC, when, USEC_PER_SEC, on_sync_timer, s);
        else {
                r = sd_event_source_set_time(s->sync_timer, when);
                if (r >= 0)
                        r = sd_event_source_set_enabled(s->sync_timer, SD_EVENT_ONESHOT);
        }
        if (r < 0)
                log_debug_errno(r, "Cannot plan a sync of the image store");
}
