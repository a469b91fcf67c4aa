#pragma once
/* Lists sent as a stream of messages: a snapshot of references is taken first, since sending waits for slow clients
 * and the tables change meanwhile. */

#include "cri/internal.h"

#define STREAM_BATCH_MAX 1000U /* items of one message */

typedef struct StreamList {
        void **items;
        size_t n, allocated;
        void (*unref)(void *item);
} StreamList;

typedef struct StreamBatch {
        void **items;
        size_t n;
} StreamBatch;

void stream_list_done(StreamList *l);
/* Takes the item's reference on success. */
int stream_list_add(StreamList *l, void *item);
/* Sends in batches, each with at least one item; none at all for an empty list. */
int stream_list_send(CriCall *c, StreamList *l, int (*send)(CriCall *c, StreamBatch *batch, Error *error),
                     Error *error);
