/* One direction-pair of bytes within a session: what the peer sent and nobody took yet, and what may be sent. */

#include "stream/session.h"

int channel_new(StreamSession *s, uint32_t id, StreamChannel kind, Channel **ret) {
        Channel *c = calloc(1, sizeof *c);

        if (!c)
                return -ENOMEM;
        c->session = s;
        c->id = id;
        c->kind = kind;
        c->window = s->initial_window;
        HASH_ADD(hh, s->channels, id, sizeof c->id, c);
        *ret = c;
        return 0;
}

void channel_free(Channel *c) {
        if (!c)
                return;
        channel_discard(c);
        HASH_DEL(c->session->channels, c);
        if (c->session->message == c)
                c->session->message = NULL;
        free(c);
}

Channel *channel_find(StreamSession *s, uint32_t id) {
        Channel *c;

        HASH_FIND(hh, s->channels, &id, sizeof id, c);
        return c;
}

int channel_input(Channel *c, const void *data, size_t size) {
        size_t end = c->in_start + c->in_size;

        if (size == 0 || c->in_ended)
                return 0;
        if (c->discard) {
                c->session->n_in += size;
                channel_take(c, size);
                return 0;
        }
        /* A terminal's size is short and taken at once. */
        if (c->kind == STREAM_RESIZE && c->in_size + size > PUMP_SIZE)
                return -EMSGSIZE;
        if (end + size > c->in_allocated && c->in_start > 0) {
                memmove(c->in, c->in + c->in_start, c->in_size);
                c->in_start = 0;
                end = c->in_size;
        }
        if (end + size > c->in_allocated) {
                size_t allocated = MAX(end + size, c->in_allocated * 2);
                char *p = realloc(c->in, allocated);

                if (!p)
                        return -ENOMEM;
                c->in = p;
                c->in_allocated = allocated;
        }
        memcpy(c->in + end, data, size);
        c->in_size += size;
        c->session->n_in += size;
        fiber_queue_wake(&c->readable, 0);
        return 0;
}

void channel_input_end(Channel *c) {
        c->in_ended = true;
        fiber_queue_wake(&c->readable, 0);
}

void channel_reset(Channel *c) {
        c->reset = c->in_ended = c->out_ended = true;
        channel_discard(c);
        fiber_queue_wake(&c->readable, 0);
        fiber_queue_wake(&c->session->window_grown, 0);
}

int channel_read(Channel *c, const char **ret, size_t *ret_size) {
        int r;

        while (c->in_size == 0) {
                if (c->reset)
                        return -EPIPE;
                if (c->in_ended)
                        break;
                if (c->session->connection.error < 0)
                        return c->session->connection.error;
                r = fiber_queue_wait(&c->readable);
                if (r < 0)
                        return r;
        }
        *ret = c->in + c->in_start;
        *ret_size = c->in_size;
        return 0;
}

/* Tells the peer of room once it is worth a frame. The field's clients ignore it; others wait for it. */
static void give_credit(Channel *c, size_t size) {
        StreamSession *s = c->session;

        if (!s->spdy || s->over)
                return;
        c->credit += (uint32_t) size;
        s->credit += (uint32_t) size;
        if (c->credit >= SPDY_WINDOW_INITIAL / 2 && !c->in_ended) {
                (void) session_put_window(s, c->id, c->credit);
                c->credit = 0;
        }
        if (s->credit >= SPDY_WINDOW_INITIAL / 2) {
                (void) session_put_window(s, 0, s->credit);
                s->credit = 0;
        }
}

void channel_take(Channel *c, size_t size) {
        StreamSession *s = c->session;
        bool full = s->n_in > STREAM_INPUT_MAX;

        s->n_in -= size;
        if (c->in_size > 0) {
                c->in_start += size;
                c->in_size -= size;
                if (c->in_size == 0) {
                        free(c->in);
                        c->in = NULL;
                        c->in_start = c->in_allocated = 0;
                }
        }
        give_credit(c, size);
        if (full && s->n_in <= STREAM_INPUT_MAX)
                connection_resume(&s->connection);
}

void channel_discard(Channel *c) {
        c->discard = true;
        if (c->in_size > 0)
                channel_take(c, c->in_size);
}

int channel_wait_room(Channel *c, size_t *ret) {
        StreamSession *s = c->session;
        int64_t window;
        int r;

        for (;;) {
                if (c->out_ended)
                        return -EPIPE;
                r = connection_wait_room(&s->connection);
                if (r < 0)
                        return r;
                window = s->windowed ? MIN(c->window, s->window) : PUMP_SIZE;
                if (window > 0)
                        break;
                r = fiber_queue_wait(&s->window_grown);
                if (r < 0)
                        return r;
        }
        *ret = (size_t) MIN(window, (int64_t) PUMP_SIZE);
        return 0;
}

int channel_put(Channel *c, const void *data, size_t size) {
        StreamSession *s = c->session;

        if (c->out_ended)
                return -EPIPE;
        c->window -= (int64_t) size;
        s->window -= (int64_t) size;
        return session_put_data(s, c, data, size, /* fin= */ false);
}

void channel_end(Channel *c) {
        if (c->out_ended)
                return;
        c->out_ended = true;
        (void) session_put_data(c->session, c, NULL, 0, /* fin= */ true);
}
