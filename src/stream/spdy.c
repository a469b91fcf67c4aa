#include "stream/spdy.h"

#include <endian.h>
#include <zlib.h>

#include "stream/spdy-dictionary.h"

#define VERSION 3U
#define FLAG_FIN 0x01U
#define SETTINGS_INITIAL_WINDOW 7U
#define DEFLATE_WINDOW_BITS 11 /* little memory: there is next to nothing to compress */
#define DEFLATE_MEMORY_LEVEL 1

enum {
        SYN_STREAM = 1,
        SYN_REPLY = 2,
        RST_STREAM = 3,
        SETTINGS = 4,
        PING = 6,
        GOAWAY = 7,
        HEADERS = 8,
        WINDOW_UPDATE = 9,
};

struct Spdy {
        const SpdyOps *ops;
        void *userdata;
        z_stream inflate, deflate;
        bool inflates, deflates;

        uint8_t header[SPDY_FRAME_HEADER];
        size_t header_size;
        uint32_t left; /* bytes of the frame still to come */
        uint8_t *control; /* a control frame's body, as far as it is there */
        size_t control_size;
        uint32_t last_id;
};

static uint32_t get32(const uint8_t *p) {
        return (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16 | (uint32_t) p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t n) {
        n = htobe32(n);
        memcpy(p, &n, sizeof n);
}

const char *spdy_header(const SpdyHeaders *h, const char *name) {
        for (size_t i = 0; i < h->n; i++)
                if (streq(h->field[i].name, name))
                        return h->field[i].value;
        return NULL;
}

int spdy_new(const SpdyOps *ops, void *userdata, Spdy **ret) {
        _cleanup_(spdy_freep) Spdy *s = calloc(1, sizeof *s);

        if (!s)
                return -ENOMEM;
        s->ops = ops;
        s->userdata = userdata;
        s->inflates = inflateInit(&s->inflate) == Z_OK;
        s->deflates = deflateInit2(&s->deflate, Z_BEST_SPEED, Z_DEFLATED, DEFLATE_WINDOW_BITS, DEFLATE_MEMORY_LEVEL,
                                   Z_DEFAULT_STRATEGY) == Z_OK;
        if (!s->inflates || !s->deflates ||
            deflateSetDictionary(&s->deflate, spdy_dictionary, SPDY_DICTIONARY_SIZE) != Z_OK)
                return -ENOMEM;
        *ret = TAKE_PTR(s);
        return 0;
}

Spdy *spdy_free(Spdy *s) {
        if (!s)
                return NULL;
        if (s->inflates)
                (void) inflateEnd(&s->inflate);
        if (s->deflates)
                (void) deflateEnd(&s->deflate);
        free(s->control);
        return mfree(s);
}

/* The whole block, always, since the compression goes on with the next one. */
static int uncompress_block(Spdy *s, const uint8_t *data, size_t size, uint8_t *out, size_t *ret_size) {
        z_stream *z = &s->inflate;
        int r;

        z->next_in = (Bytef *) data;
        z->avail_in = (uInt) size;
        z->next_out = out;
        z->avail_out = SPDY_HEADERS_MAX;
        while (z->avail_in > 0) {
                r = inflate(z, Z_SYNC_FLUSH);
                if (r == Z_NEED_DICT)
                        r = inflateSetDictionary(z, spdy_dictionary, SPDY_DICTIONARY_SIZE);
                if (r == Z_MEM_ERROR)
                        return -ENOMEM;
                if (z->avail_out == 0)
                        return -EMSGSIZE;
                if (r != Z_OK)
                        return -EPROTO;
        }
        *ret_size = SPDY_HEADERS_MAX - z->avail_out;
        return 0;
}

/* A string with its length before it, NUL-terminated in place: over the first byte of the next length, which has been
 * read already, or behind the block. */
static int take_string(uint8_t **p, size_t *left, uint32_t length, const char **ret) {
        if (length > *left)
                return -EPROTO;
        *ret = (const char *) *p;
        *p += length;
        *left -= length;
        return 0;
}

static int take_number(uint8_t **p, size_t *left, uint32_t *ret) {
        if (*left < 4)
                return -EPROTO;
        *ret = get32(*p);
        **p = 0;
        *p += 4;
        *left -= 4;
        return 0;
}

/* `block` has room for one byte more. */
static int parse_block(uint8_t *block, size_t size, SpdyHeaders *h) {
        uint8_t *p = block;
        size_t left = size;
        uint32_t n, length;
        int r;

        r = take_number(&p, &left, &n);
        if (r < 0)
                return r;
        if (n > SPDY_FIELDS_MAX)
                return -EMSGSIZE;
        block[size] = 0;
        for (h->n = 0; h->n < n; h->n++) {
                SpdyField *f = &h->field[h->n];

                r = take_number(&p, &left, &length);
                if (r >= 0)
                        r = length == 0 ? -EPROTO : take_string(&p, &left, length, &f->name);
                if (r >= 0)
                        r = take_number(&p, &left, &length);
                if (r >= 0)
                        r = take_string(&p, &left, length, &f->value);
                if (r < 0)
                        return r;
        }
        return left == 0 ? 0 : -EPROTO;
}

static int read_headers(Spdy *s, const uint8_t *data, size_t size, SpdyHeaders *h) {
        static uint8_t block[SPDY_HEADERS_MAX + 1];
        size_t n = 0;
        int r;

        r = uncompress_block(s, data, size, block, &n);
        return r < 0 ? r : parse_block(block, n, h);
}

static int on_syn_stream(Spdy *s, const uint8_t *p, size_t n, bool fin) {
        static SpdyHeaders h;
        uint32_t id;
        int r;

        if (n < 10)
                return -EPROTO;
        id = get32(p) & 0x7fffffff;
        r = read_headers(s, p + 10, n - 10, &h);
        if (r < 0)
                return r;
        /* Clients use odd numbers, each larger than the ones before. */
        if (id % 2 == 0 || id <= s->last_id)
                return -EPROTO;
        s->last_id = id;
        return s->ops->stream(id, &h, fin, s->userdata);
}

/* SYN_REPLY and HEADERS say nothing that is of use to us, but move the compression on. */
static int on_headers(Spdy *s, const uint8_t *p, size_t n, bool fin) {
        static SpdyHeaders h;
        int r;

        if (n < 4)
                return -EPROTO;
        r = read_headers(s, p + 4, n - 4, &h);
        if (r < 0 || !fin)
                return r;
        return s->ops->fin(get32(p) & 0x7fffffff, s->userdata);
}

static int on_settings(Spdy *s, const uint8_t *p, size_t n) {
        uint32_t entries;
        int r;

        if (n < 4)
                return -EPROTO;
        entries = get32(p);
        if (n != 4 + (size_t) entries * 8)
                return -EPROTO;
        for (uint32_t i = 0; i < entries; i++) {
                const uint8_t *e = p + 4 + i * 8;

                if ((get32(e) & 0xffffff) != SETTINGS_INITIAL_WINDOW)
                        continue;
                if (get32(e + 4) > SPDY_WINDOW_MAX)
                        return -EPROTO;
                r = s->ops->initial_window(get32(e + 4), s->userdata);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int on_control(Spdy *s) {
        unsigned type = (unsigned) s->header[2] << 8 | s->header[3];
        bool fin = s->header[4] & FLAG_FIN;
        const uint8_t *p = s->control;
        size_t n = s->control_size;

        switch (type) {
        case SYN_STREAM:
                return on_syn_stream(s, p, n, fin);
        case SYN_REPLY:
        case HEADERS:
                return on_headers(s, p, n, fin);
        case RST_STREAM:
                return n == 8 ? s->ops->reset(get32(p) & 0x7fffffff, s->userdata) : -EPROTO;
        case SETTINGS:
                return on_settings(s, p, n);
        case PING:
                return n == 4 ? s->ops->ping(get32(p), s->userdata) : -EPROTO;
        case GOAWAY:
                return n == 8 ? s->ops->going_away(s->userdata) : -EPROTO;
        case WINDOW_UPDATE:
                if (n != 8 || (get32(p + 4) & 0x7fffffff) == 0)
                        return -EPROTO;
                return s->ops->window(get32(p) & 0x7fffffff, get32(p + 4) & 0x7fffffff, s->userdata);
        default:
                return 0; /* as the specification wants it */
        }
}

static int begin_frame(Spdy *s) {
        s->left = get32(s->header + 4) & 0xffffff;
        if (!(s->header[0] & 0x80))
                return s->left > 0 ? 0
                                   : s->ops->data(get32(s->header), "", 0, s->header[4] & FLAG_FIN, s->userdata);
        if (((unsigned) (s->header[0] & 0x7f) << 8 | s->header[1]) != VERSION)
                return -EPROTO;
        if (s->left > SPDY_CONTROL_MAX)
                return -EMSGSIZE;
        s->control_size = 0;
        s->control = malloc(s->left + 1U);
        return s->control ? 0 : -ENOMEM;
}

static int end_control(Spdy *s) {
        int r;

        r = on_control(s);
        s->control = mfree(s->control);
        return r;
}

int spdy_feed(Spdy *s, const void *data, size_t size) {
        const uint8_t *p = data;
        int r;

        while (size > 0) {
                size_t n;

                if (s->header_size < SPDY_FRAME_HEADER) {
                        n = MIN(size, SPDY_FRAME_HEADER - s->header_size);
                        memcpy(s->header + s->header_size, p, n);
                        s->header_size += n;
                        p += n;
                        size -= n;
                        if (s->header_size < SPDY_FRAME_HEADER)
                                break;
                        r = begin_frame(s);
                        if (r >= 0 && s->control && s->left == 0)
                                r = end_control(s);
                        if (r < 0)
                                return r;
                } else {
                        n = MIN(size, (size_t) s->left);
                        s->left -= (uint32_t) n;
                        if (s->control) {
                                memcpy(s->control + s->control_size, p, n);
                                s->control_size += n;
                                r = s->left == 0 ? end_control(s) : 0;
                        } else
                                r = s->ops->data(get32(s->header), p, n, s->left == 0 && (s->header[4] & FLAG_FIN),
                                                 s->userdata);
                        if (r < 0)
                                return r;
                        p += n;
                        size -= n;
                }
                if (s->left == 0)
                        s->header_size = 0;
        }
        return 0;
}

static size_t put_control(uint8_t *out, unsigned type, uint32_t size) {
        out[0] = 0x80;
        out[1] = VERSION;
        out[2] = 0;
        out[3] = (uint8_t) type;
        put32(out + 4, size);
        return SPDY_FRAME_HEADER + size;
}

void spdy_put_data(uint8_t out[static SPDY_FRAME_HEADER], uint32_t id, bool fin, uint32_t size) {
        put32(out, id);
        put32(out + 4, size | (fin ? FLAG_FIN << 24 : 0));
}

size_t spdy_put_reset(uint8_t out[static 16], uint32_t id, SpdyStatus status) {
        put32(out + 8, id);
        put32(out + 12, status);
        return put_control(out, RST_STREAM, 8);
}

size_t spdy_put_ping(uint8_t out[static 12], uint32_t id) {
        put32(out + 8, id);
        return put_control(out, PING, 4);
}

size_t spdy_put_window(uint8_t out[static 16], uint32_t id, uint32_t delta) {
        put32(out + 8, id);
        put32(out + 12, delta);
        return put_control(out, WINDOW_UPDATE, 8);
}

size_t spdy_put_going_away(uint8_t out[static 16], uint32_t last_id, uint32_t status) {
        put32(out + 8, last_id);
        put32(out + 12, status);
        return put_control(out, GOAWAY, 8);
}

size_t spdy_put_reply(Spdy *s, uint8_t out[static SPDY_REPLY_MAX], uint32_t id) {
        static const uint8_t none[4];
        z_stream *z = &s->deflate;

        z->next_in = (Bytef *) none;
        z->avail_in = sizeof none;
        z->next_out = out + 12;
        z->avail_out = SPDY_REPLY_MAX - 12;
        if (deflate(z, Z_SYNC_FLUSH) != Z_OK || z->avail_out == 0)
                return 0;
        put32(out + 8, id);
        return put_control(out, SYN_REPLY, SPDY_REPLY_MAX - 8 - z->avail_out);
}
