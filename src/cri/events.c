/* GetContainerEvents: every subscriber gets every event, in order, with the pod and its containers as they were right
 * after it. An event is encoded when it happens and queued until the client takes it. A pod's own steps are told with
 * its ID in the container's place, as the peers do, so that the kubelet hears of a pod that ended by itself. */

#include "basic/fiber.h"
#include "cri/describe.h"
#include "cri/internal.h"

/* A client that leaves so much unread is told to come again, and to list what it missed. */
#define EVENT_QUEUE_MAX (16U * 1024U * 1024U)

typedef struct Event {
        struct Event *next;
        void *data; /* from cri_allocator */
        size_t size;
} Event;

struct EventStream {
        ManagerSubscription subscription;
        Fiber *fiber;
        Event *first, **last;
        size_t queued; /* bytes */
        int r;         /* why no more can be queued */
        Error error;
        EventStream *next;
};

static void event_free(Event *e) {
        cri_allocator.free(e->data);
        free(e);
}

static int event_encode(const Pod *pod, const Container *k, runtime_v1_ContainerEventType type, Event *e,
                        Error *error) {
        _cleanup_arena_ Arena arena = ARENA_INIT;
        runtime_v1_ContainerEventResponse response = {
                .container_id = (char *) (k ? k->id : pod->id),
                .container_event_type = type,
                .created_at = (int64_t) (pod->manager->event_usec * NSEC_PER_USEC),
                .has_pod_sandbox_status = true,
        };
        bool deleted = type == runtime_v1_ContainerEventType_CONTAINER_DELETED_EVENT;
        int r;

        r = pod_describe_status(pod, &arena, &response.pod_sandbox_status);
        if (r < 0)
                return error_oom(error);
        r = pod_describe_containers(pod, /* without= */ deleted ? k : NULL, &arena, &response.containers_statuses,
                                    &response.containers_statuses_count);
        if (r < 0)
                return error_oom(error);
        return message_encode(runtime_v1_ContainerEventResponse_fields, &response, &cri_allocator, GRPC_MESSAGE_MAX,
                              &e->data, &e->size, error);
}

static void stream_queue(EventStream *s, const Pod *pod, const Container *k, runtime_v1_ContainerEventType type) {
        Event *e;
        int r;

        if (s->r < 0)
                return;
        e = calloc(1, sizeof(Event));
        r = e ? event_encode(pod, k, type, e, &s->error) : error_oom(&s->error);
        if (r >= 0 && s->queued + e->size > EVENT_QUEUE_MAX) {
                cri_allocator.free(e->data);
                r = error_setf(&s->error, GRPC_RESOURCE_EXHAUSTED,
                               "more than %u bytes of events were left unread: ask again, and list what there is",
                               EVENT_QUEUE_MAX);
        }
        if (r < 0) {
                free(e);
                s->r = r;
        } else {
                s->queued += e->size;
                *s->last = e;
                s->last = &e->next;
        }
        fiber_wake(s->fiber, 0);
}

static void on_event(Manager *m, ManagerEvent event, Pod *pod, Container *k, void *userdata) {
        EventStream *s = userdata;

        switch (event) {
        case MANAGER_POD_ADDED:
                stream_queue(s, pod, NULL, runtime_v1_ContainerEventType_CONTAINER_CREATED_EVENT);
                stream_queue(s, pod, NULL, runtime_v1_ContainerEventType_CONTAINER_STARTED_EVENT);
                return;
        case MANAGER_POD_CHANGED:
                if (pod->phase == POD_NOT_READY)
                        stream_queue(s, pod, NULL, runtime_v1_ContainerEventType_CONTAINER_STOPPED_EVENT);
                return;
        case MANAGER_POD_REMOVED:
                stream_queue(s, pod, NULL, runtime_v1_ContainerEventType_CONTAINER_DELETED_EVENT);
                return;
        case MANAGER_CONTAINER_CREATED:
                stream_queue(s, pod, k, runtime_v1_ContainerEventType_CONTAINER_CREATED_EVENT);
                return;
        case MANAGER_CONTAINER_STARTED:
                stream_queue(s, pod, k, runtime_v1_ContainerEventType_CONTAINER_STARTED_EVENT);
                return;
        case MANAGER_CONTAINER_STOPPED:
                stream_queue(s, pod, k, runtime_v1_ContainerEventType_CONTAINER_STOPPED_EVENT);
                return;
        case MANAGER_CONTAINER_REMOVED:
                stream_queue(s, pod, k, runtime_v1_ContainerEventType_CONTAINER_DELETED_EVENT);
                return;
        }
}

static int stream_send(EventStream *s, GrpcCall *call) {
        int r;

        while (s->first) {
                Event *e = s->first;

                s->first = e->next;
                if (!s->first)
                        s->last = &s->first;
                s->queued -= e->size;
                r = grpc_call_send_take(call, TAKE_PTR(e->data), e->size);
                free(e);
                if (r < 0)
                        return r;
        }
        return 0;
}

static void stream_close(Cri *cri, EventStream *s) {
        manager_unsubscribe(cri->manager, &s->subscription);
        for (EventStream **i = &cri->event_streams; *i; i = &(*i)->next)
                if (*i == s) {
                        *i = s->next;
                        break;
                }
        while (s->first) {
                Event *e = s->first;

                s->first = e->next;
                event_free(e);
        }
        error_clear(&s->error);
}

static int stream_run(CriCall *c, EventStream *s, Error *error) {
        int r;

        for (;;) {
                r = stream_send(s, c->call);
                if (r < 0)
                        return error_set(error, r, "cannot send an event");
                /* The queue is empty: what was missed after it ran over, or the end. */
                if (s->r < 0) {
                        error_move(error, &s->error);
                        return s->r;
                }
                if (c->cri->ending)
                        return 0;
                r = fiber_suspend();
                if (r < 0)
                        return error_set(error, r, "the stream of events ends");
        }
}

int cri_get_container_events(CriCall *c, Error *error) {
        EventStream s = {
                .subscription = { .func = on_event, .userdata = &s },
                .fiber = fiber_current(),
                .last = &s.first,
                .next = c->cri->event_streams,
        };
        int r;

        if (c->cri->ending)
                return error_setf(error, GRPC_UNAVAILABLE, "rktlet is about to end: ask again when it is back");
        c->cri->event_streams = &s;
        manager_subscribe(c->manager, &s.subscription);
        r = stream_run(c, &s, error);
        stream_close(c->cri, &s);
        return r;
}

void cri_end_streams(Cri *c) {
        c->ending = true;
        for (EventStream *s = c->event_streams; s; s = s->next)
                fiber_wake(s->fiber, 0);
}
