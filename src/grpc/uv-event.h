#pragma once
/* A libuv loop as a guest of sd-event: what h2o (libuv variant) does happens in our one loop. */

#include "basic/macro.h" /* before uv.h, which brings other MIN and MAX along */

#include <systemd/sd-event.h>
#include <uv.h>

typedef struct UvEvent UvEvent;
typedef void (*UvEventIdle)(void *userdata);

/* Makes a uv loop and attaches it. 0 or negative errno. */
int uv_event_new(sd_event *event, UvEvent **ret);
/* Detaches and frees it. The owner has asked uv_close() for all its handles before; their close callbacks run here. */
UvEvent *uv_event_free(UvEvent *u);
DEFINE_TRIVIAL_CLEANUP_FUNC(UvEvent *, uv_event_free);

uv_loop_t *uv_event_loop(UvEvent *u);
/* Called each time before the loop goes to sleep, the moment to stop timers that have become needless. */
void uv_event_set_idle(UvEvent *u, UvEventIdle idle, void *userdata);
/* One round of the uv loop that doesn't block. */
void uv_event_dispatch(UvEvent *u);
