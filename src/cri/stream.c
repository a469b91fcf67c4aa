#include "cri/stream.h"

void stream_list_done(StreamList *l) {
        for (size_t i = 0; i < l->n; i++)
                l->unref(l->items[i]);
        free(l->items);
}

int stream_list_add(StreamList *l, void *item) {
        if (l->n == l->allocated) {
                size_t allocated = MAX(l->allocated * 2, (size_t) 64);
                void **items = reallocarray(l->items, allocated, sizeof(void *));

                if (!items)
                        return -ENOMEM;
                l->items = items;
                l->allocated = allocated;
        }
        l->items[l->n++] = item;
        return 0;
}

int stream_list_send(CriCall *c, StreamList *l, int (*send)(CriCall *c, StreamBatch *batch, Error *error),
                     Error *error) {
        int r;

        for (size_t i = 0; i < l->n; i += STREAM_BATCH_MAX) {
                StreamBatch batch = { l->items + i, MIN(l->n - i, (size_t) STREAM_BATCH_MAX) };

                r = send(c, &batch, error);
                if (r < 0)
                        return r;
        }
        return 0;
}
