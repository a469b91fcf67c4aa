/* What people call things: IDs and their beginnings, units as systemctl shows them, names as kubectl shows them. */

#include "bus/internal.h"

/* "rktlet-pod-ID.service", with or without the suffix: the ID. */
static const char *id_of_unit(const char *what, const char *prefix, char buffer[static ID_LENGTH + 1]) {
        const char *id = startswith(what, prefix);
        size_t n;

        if (!id)
                return what;
        n = strcspn(id, ".");
        if (n == 0 || n > ID_LENGTH || !(id[n] == '\0' || streq(id + n, ".service")))
                return what;
        memcpy(buffer, id, n);
        buffer[n] = '\0';
        return buffer;
}

/* "namespace/name", or the name alone. */
static bool pod_is_called(const Pod *p, const char *what, size_t n) {
        const runtime_v1_PodSandboxMetadata *m = &p->request.config.metadata;
        size_t space = strlen(strempty(m->namespace)), name = strlen(strempty(m->name));

        if (n == name && memcmp(what, strempty(m->name), n) == 0)
                return true;
        return n == space + 1 + name && memcmp(what, strempty(m->namespace), space) == 0 && what[space] == '/' &&
               memcmp(what + space + 1, strempty(m->name), name) == 0;
}

/* Of several that are called so the one that is alive is meant: restarts leave the earlier ones behind. */
int lookup_pod(Manager *m, const char *what, Pod **ret, Error *error) {
        _cleanup_error_ Error miss = ERROR_INIT;
        char id[ID_LENGTH + 1];
        Pod *found = NULL;
        bool alive = false;
        size_t n = 0;
        int r;

        r = manager_find_pod(m, id_of_unit(what, "rktlet-pod-", id), ret, &miss);
        if (r >= 0)
                return 0;
        if (miss.code == GRPC_NOT_FOUND)
                for (Pod *p = m->pods; p; p = p->hh.next) {
                        if (!pod_is_shown(p) || !pod_is_called(p, what, strlen(what)))
                                continue;
                        if (alive && p->phase != POD_READY)
                                continue;
                        n = p->phase == POD_READY && !alive ? 1 : n + 1;
                        alive = p->phase == POD_READY;
                        found = p;
                }
        if (n > 1)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "%zu pods are called \"%s\": give the ID of one", n,
                                  what);
        if (!found) {
                error_move(error, &miss);
                return r;
        }
        *ret = found;
        return 0;
}

static bool container_is_called(const Container *c, const char *what) {
        const char *name = strempty(c->request.config.metadata.name), *slash = strrchr(what, '/');

        return slash ? streq(name, slash + 1) && pod_is_called(c->pod, what, (size_t) (slash - what))
                     : streq(name, what);
}

int lookup_container(Manager *m, const char *what, Container **ret, Error *error) {
        _cleanup_error_ Error miss = ERROR_INIT;
        char id[ID_LENGTH + 1];
        Container *found = NULL;
        bool alive = false;
        size_t n = 0;
        int r;

        r = manager_find_container(m, id_of_unit(what, "rktlet-ctr-", id), ret, &miss);
        if (r >= 0)
                return 0;
        if (miss.code == GRPC_NOT_FOUND)
                for (Container *c = m->containers; c; c = c->hh.next) {
                        bool runs = c->phase == CONTAINER_RUNNING;

                        if (!container_is_shown(c) || !container_is_called(c, what) || (alive && !runs))
                                continue;
                        n = runs && !alive ? 1 : n + 1;
                        alive = runs;
                        found = c;
                }
        if (n > 1)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "%zu containers are called \"%s\": give the ID of one",
                                  n, what);
        if (!found) {
                error_move(error, &miss);
                return r;
        }
        *ret = found;
        return 0;
}

int lookup_image(Manager *m, const char *what, Image **ret, Error *error) {
        Image *i = image_store_find(m->images, what);

        if (!i)
                return error_setf(error, GRPC_NOT_FOUND, "There is no image \"%s\" on this node", what);
        *ret = i;
        return 0;
}
