#include "manager/manager.h"

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/layout.h"
#include "basic/log.h"
#include "basic/message.h"
#include "manager/internal.h"
#include "manager/state.h"

static const MessageRaw raw_fields[] = { { runtime_v1_KeyValue_fields, runtime_v1_KeyValue_value_tag }, {} };

int manager_new(sd_event *event, const ManagerConfig *config, Systemd *systemd, ImageStore *images, Cni *cni,
                Manager **ret, Error *error) {
        _cleanup_(manager_freep) Manager *m = calloc(1, sizeof(Manager));
        const struct {
                const char *base, *name;
                mode_t mode;
        } directories[] = {
                { config->state_directory, "", 0700 },
                { config->state_directory, "/pods", 0700 },
                { config->state_directory, "/containers", 0700 },
                { config->run_directory, "", 0711 },
                { config->run_directory, "/pods", 0711 },
                { config->run_directory, "/containers", 0711 },
        };
        int r;

        if (!m)
                return error_oom(error);
        message_set_raw(raw_fields);
        m->event = sd_event_ref(event);
        m->config = *config;
        m->systemd = systemd;
        m->images = images;
        m->cni = cni;
        for (size_t i = 0; i < ELEMENTSOF(directories); i++) {
                _cleanup_free_ char *path = strprintf("%s%s", directories[i].base, directories[i].name);

                if (!path)
                        return error_oom(error);
                r = layout_make_directory(AT_FDCWD, path, directories[i].mode);
                if (r < 0)
                        return error_set(error, r, "cannot make directory %s", path);
                if (r > 0)
                        log_warning("%s was no directory and has been moved aside", path);
        }
        r = state_open(config->state_directory, error);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(m);
        return 0;
}

Manager *manager_free(Manager *m) {
        Container *c, *next_container;
        Pod *p, *next_pod;

        if (!m)
                return NULL;
        status_done(m);
        if (m->measurer) {
                fiber_cancel(m->measurer);
                fiber_unref(m->measurer);
        }
        HASH_ITER(hh, m->containers, c, next_container)
                container_unlink(c);
        HASH_ITER(hh, m->pods, p, next_pod)
                pod_unlink(p);
        sd_event_unref(m->event);
        free(m);
        return NULL;
}

void manager_set_stop_timeout(Manager *m, uint64_t usec) {
        m->config.stop_timeout_usec = usec;
}

void manager_set_engine(Manager *m, Engine *engine) {
        m->engine = engine;
}

static void on_container_changed(const char *id, const EngineContainerState *state, void *userdata) {
        Manager *m = userdata;
        Container *c;

        HASH_FIND(hh, m->containers, id, strlen(id), c);
        if (c)
                container_apply_state(c, state);
}

static void on_pod_changed(const char *id, const EnginePodState *state, void *userdata) {
        Manager *m = userdata;
        Pod *p;

        HASH_FIND(hh, m->pods, id, strlen(id), p);
        if (p)
                pod_apply_state(p, state);
}

EngineEvents manager_engine_events(Manager *m) {
        return (EngineEvents) {
                .container_changed = on_container_changed,
                .pod_changed = on_pod_changed,
                .userdata = m,
        };
}

void manager_subscribe(Manager *m, ManagerSubscription *subscription) {
        subscription->next = m->subscriptions;
        m->subscriptions = subscription;
}

void manager_unsubscribe(Manager *m, ManagerSubscription *subscription) {
        for (ManagerSubscription **s = &m->subscriptions; *s; s = &(*s)->next)
                if (*s == subscription) {
                        *s = subscription->next;
                        return;
                }
}

void manager_emit(Manager *m, ManagerEvent event, Pod *pod, Container *container) {
        status_note_event(m, event, pod);
        journal_note_event(event, pod, container);
        m->event_usec = now_usec(CLOCK_REALTIME);
        for (ManagerSubscription *s = m->subscriptions, *next; s; s = next) {
                next = s->next;
                s->func(m, event, pod, container, s->userdata);
        }
}

int manager_wait_loaded(Manager *m, Error *error) {
        int r;

        while (!m->loaded) {
                r = fiber_queue_wait(&m->load_queue);
                if (r < 0)
                        return error_set(error, r, "rktlet is still reading its state");
        }
        return 0;
}

/* The same for both kinds of object: whole IDs by hash, prefixes by looking at all. */
#define FIND_BY_ID(table, type, hidden, what, given, ret, error)                                                       \
        ({                                                                                                             \
                type *_found = NULL, *_o, *_next;                                                                      \
                size_t _n = strlen(given);                                                                             \
                bool _ambiguous = false;                                                                               \
                int _r = 0;                                                                                            \
                if (_n == ID_LENGTH)                                                                                   \
                        HASH_FIND(hh, (table), (given), ID_LENGTH, _found);                                            \
                else if (_n > 0 && _n < ID_LENGTH)                                                                     \
                        HASH_ITER(hh, (table), _o, _next) {                                                            \
                                if (_o->phase == (hidden) || strncmp(_o->id, (given), _n) != 0)                        \
                                        continue;                                                                      \
                                _ambiguous = _found;                                                                   \
                                if (_ambiguous)                                                                        \
                                        break;                                                                         \
                                _found = _o;                                                                           \
                        }                                                                                              \
                if (_n == 0)                                                                                           \
                        _r = error_setf((error), GRPC_INVALID_ARGUMENT, "the " what "'s ID is empty");                 \
                else if (_ambiguous)                                                                                   \
                        _r = error_setf((error), GRPC_INVALID_ARGUMENT, what " ID \"%s\" is ambiguous: give more of "  \
                                        "its digits", (given));                                                        \
                else if (!_found || _found->phase == (hidden))                                                         \
                        _r = error_setf((error), GRPC_NOT_FOUND, "no " what " with ID \"%s\"", (given));               \
                else                                                                                                   \
                        *(ret) = _found;                                                                               \
                _r;                                                                                                    \
        })

int manager_find_pod(Manager *m, const char *id, Pod **ret, Error *error) {
        return FIND_BY_ID(m->pods, Pod, POD_STARTING, "pod sandbox", id, ret, error);
}

int manager_find_container(Manager *m, const char *id, Container **ret, Error *error) {
        return FIND_BY_ID(m->containers, Container, CONTAINER_CREATING, "container", id, ret, error);
}

int manager_network_status(Manager *m, Error *error) {
        if (m->engine && m->engine->ops->network_status)
                return m->engine->ops->network_status(m->engine, error);
        return cni_status(m->cni, error);
}

int manager_set_pod_cidrs(Manager *m, const char *cidrs, Error *error) {
        return m->cni ? cni_set_pod_cidrs(m->cni, cidrs, error) : 0;
}
