/* PullImage, and the PullProgress signals of all pulls, the kubelet's too, while somebody on the bus waits for one. */

#include "bus/internal.h"

#include "basic/log.h"

#define PROGRESS_USEC (100 * USEC_PER_MSEC)

static void announce_progress(Bus *b) {
        _cleanup_free_ ImagePullProgress *l = NULL;
        size_t n;

        if (!b->served || image_store_pulls(b->manager->images, &l, &n) < 0)
                return;
        for (size_t i = 0; i < n; i++)
                if (sd_bus_emit_signal(b->bus, BUS_PATH, MANAGER_INTERFACE, "PullProgress", "sttuu", l[i].name,
                                       l[i].fetched, l[i].size, (uint32_t) l[i].n_done, (uint32_t) l[i].n_layers) < 0)
                        log_debug("The progress of %s could not be announced, ignoring", l[i].name);
}

static int on_progress(sd_event_source *source, uint64_t usec, void *userdata) {
        Bus *b = userdata;

        announce_progress(b);
        (void) sd_event_source_set_time_relative(source, PROGRESS_USEC);
        return sd_event_source_set_enabled(source, b->n_pulls > 0 ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static void begin_progress(Bus *b) {
        if (b->n_pulls++ > 0)
                return;
        b->progress = sd_event_source_disable_unref(b->progress);
        /* It is only told about. */
        if (sd_event_add_time_relative(b->event, &b->progress, CLOCK_MONOTONIC, PROGRESS_USEC, PROGRESS_USEC / 10,
                                       on_progress, b) < 0)
                log_debug("The progress of pulls can't be announced, ignoring");
}

static void end_progress(Bus *b) {
        if (--b->n_pulls == 0)
                b->progress = sd_event_source_disable_unref(b->progress);
}

static int pull_option(sd_bus_message *m, const char *key, void *userdata, Error *error) {
        ImageAuth *a = userdata;
        const char **value = streq(key, "Username")        ? &a->username
                             : streq(key, "Password")      ? &a->password
                             : streq(key, "IdentityToken") ? &a->identity_token
                                                           : NULL;

        return value ? sd_bus_message_read(m, "s", value) : -EINVAL;
}

int task_pull(Task *t, Error *error) {
        _cleanup_(image_unrefp) Image *image = NULL;
        _cleanup_free_ char *path = NULL;
        ImageAuth auth = {};
        const char *reference;
        int r;

        r = sd_bus_message_sensitive(t->message);
        if (r >= 0)
                r = sd_bus_message_read(t->message, "s", &reference);
        if (r < 0)
                return r;
        r = read_options(t->message, pull_option, &auth, error);
        if (r < 0)
                return r;
        begin_progress(t->bus);
        r = image_store_pull(t->bus->manager->images, reference, auth.username || auth.identity_token ? &auth : NULL,
                             &image, error);
        end_progress(t->bus);
        if (r < 0)
                return r;
        path = image_object_path(image);
        if (!path)
                return -ENOMEM;
        r = sd_bus_message_new_method_return(t->message, &t->reply);
        return r < 0 ? r : sd_bus_message_append(t->reply, "o", path);
}
