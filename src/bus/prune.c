/* Prune: removes what has ended and what nobody uses. */

#include "bus/internal.h"

typedef struct Prune {
        Pod **pods;
        Container **containers;
        Image **images;
        size_t n_pods, n_containers, n_images;
} Prune;

static void prune_done(Prune *p) {
        for (size_t i = 0; i < p->n_pods; i++)
                (void) pod_unref(p->pods[i]);
        for (size_t i = 0; i < p->n_containers; i++)
                (void) container_unref(p->containers[i]);
        for (size_t i = 0; i < p->n_images; i++)
                (void) image_unref(p->images[i]);
        free(p->pods);
        free(p->containers);
        free(p->images);
}

static bool wanted(char *const *kinds, const char *kind) {
        return !kinds || !kinds[0] || strv_contains(kinds, kind);
}

/* A list first: the tables change while things are removed. */
static int collect(Prune *p, const Manager *m, char *const *kinds) {
        p->pods = calloc(HASH_CNT(hh, m->pods) + 1, sizeof(Pod *));
        p->containers = calloc(HASH_CNT(hh, m->containers) + 1, sizeof(Container *));
        if (!p->pods || !p->containers)
                return -ENOMEM;
        for (Pod *pod = m->pods; pod && wanted(kinds, "pods"); pod = pod->hh.next)
                if (pod_is_shown(pod) && pod->phase == POD_NOT_READY)
                        p->pods[p->n_pods++] = pod_ref(pod);
        for (Container *c = m->containers; c && wanted(kinds, "containers"); c = c->hh.next)
                if (container_is_shown(c) && c->phase == CONTAINER_EXITED)
                        p->containers[p->n_containers++] = container_ref(c);
        return 0;
}

static bool image_is_used(const Manager *m, const Image *i) {
        for (const Container *c = m->containers; c; c = c->hh.next)
                if (c->image == i || (c->image_id && streq(c->image_id, i->id)))
                        return true;
        return false;
}

static int collect_images(Prune *p, const Manager *m) {
        p->images = image_store_list(m->images);
        if (!p->images)
                return -ENOMEM;
        for (size_t i = 0; p->images[i]; i++)
                if (!p->images[i]->pinned && !image_is_used(m, p->images[i]))
                        p->images[p->n_images++] = image_ref(p->images[i]);
        return 0;
}

static int check_kinds(char *const *kinds, Error *error) {
        STRV_FOREACH(k, kinds)
                if (!streq(*k, "pods") && !streq(*k, "containers") && !streq(*k, "images"))
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "\"%s\" can't be pruned: \"pods\", \"containers\" and \"images\" can", *k);
        return 0;
}

int task_prune(Task *t, Error *error) {
        _cleanup_strv_free_ char **kinds = NULL;
        _cleanup_(prune_done) Prune p = {};
        const Manager *m = t->bus->manager;
        int r;

        r = sd_bus_message_read_strv(t->message, &kinds);
        if (r < 0)
                return r;
        r = check_kinds(kinds, error);
        if (r < 0)
                return r;
        r = collect(&p, m, kinds);
        if (r >= 0)
                r = sd_bus_message_new_method_return(t->message, &t->reply);
        if (r >= 0)
                r = sd_bus_message_open_container(t->reply, 'a', "(ss)");
        for (size_t i = 0; i < p.n_containers && r >= 0; i++) {
                r = container_remove(p.containers[i], error);
                if (r >= 0)
                        r = sd_bus_message_append(t->reply, "(ss)", "container", p.containers[i]->id);
        }
        for (size_t i = 0; i < p.n_pods && r >= 0; i++) {
                r = pod_remove(p.pods[i], error);
                if (r >= 0)
                        r = sd_bus_message_append(t->reply, "(ss)", "pod", p.pods[i]->id);
        }
        /* After the containers, whose images nobody uses any more now. */
        if (r >= 0 && wanted(kinds, "images")) {
                r = image_store_refresh(m->images, error);
                if (r >= 0)
                        r = collect_images(&p, m);
        }
        for (size_t i = 0; i < p.n_images && r >= 0; i++) {
                if (image_is_used(m, p.images[i]))
                        continue;
                r = image_store_remove(m->images, p.images[i]->id, error);
                if (r >= 0)
                        r = sd_bus_message_append(t->reply, "(ss)", "image", p.images[i]->id);
        }
        return r < 0 ? r : sd_bus_message_close_container(t->reply);
}
