/* The parsers of what streaming clients send, on arbitrary bytes: the first says which, and how they are cut. */

#include "stream/http.h"
#include "stream/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_stream(uint32_t id, const SpdyHeaders *h, bool fin, void *userdata) {
        size_t n = 0;

        for (size_t i = 0; i < h->n; i++)
                n += strlen(h->field[i].name) + strlen(h->field[i].value);
        if (n > SPDY_HEADERS_MAX)
                abort();
        return 0;
}
static int on_data(uint32_t id, const void *data, size_t n, bool fin, void *userdata) {
        *(size_t *) userdata += n;
        return n > 0 && ((const uint8_t *) data)[n - 1] > 255;
}
static int on_id(uint32_t id, void *userdata) {
        return 0;
}
static int on_window(uint32_t id, uint32_t delta, void *userdata) {
        return 0;
}
static int on_going(void *userdata) {
        return 0;
}
static const SpdyOps spdy_ops = { on_stream, on_data, on_id, on_id, on_id, on_window, on_id, on_going };

static int on_message(WebSocketOpcode opcode, const uint8_t *data, size_t n, bool first, bool last, void *userdata) {
        *(size_t *) userdata += n;
        return 0;
}
static int on_control(WebSocketOpcode opcode, const uint8_t *data, size_t n, void *userdata) {
        if (n > WEBSOCKET_CONTROL_MAX)
                abort();
        return 0;
}
static const WebSocketOps websocket_ops = { on_message, on_control };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        size_t n = 0, step;
        uint8_t *copy;
        int r = 0;

        if (size < 2)
                return 0;
        step = 1U + data[0] / 4;
        copy = malloc(size);
        if (!copy)
                return 0;
        memcpy(copy, data + 1, size - 1);
        switch (data[0] % 4) {
        case 0: {
                _cleanup_(spdy_freep) Spdy *s = NULL;

                if (spdy_new(&spdy_ops, &n, &s) >= 0)
                        for (size_t i = 0; i < size - 1 && r >= 0; i += step)
                                r = spdy_feed(s, copy + i, MIN(step, size - 1 - i));
                break;
        }
        case 1: {
                WebSocket w = { .ops = &websocket_ops, .userdata = &n };

                for (size_t i = 0; i < size - 1 && r >= 0; i += step)
                        r = websocket_feed(&w, copy + i, MIN(step, size - 1 - i));
                break;
        }
        default: {
                size_t head = http_head_size((char *) copy, size - 1);
                HttpRequest q;

                if (head > 0 && http_parse((char *) copy, head, &q) >= 0)
                        (void) http_field_has(&q, "Connection", "upgrade");
        }
        }
        if (n > size)
                abort();
        free(copy);
        return 0;
}
