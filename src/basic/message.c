#include "basic/message.h"

#include <inttypes.h>
#include <pb_common.h>

#include "basic/string-util.h"

/* Decoding is nanopb's; a walk over the bytes before it checks what nanopb doesn't (UTF-8, NUL) and finds the field
 * for what it only refuses. Encoding is ours: nanopb measures every submessage before it writes it, at each level
 * again, which costs lists of thousands of entries more than all the rest. Here a submessage gets one byte for its
 * length, and is moved when that was too little. */

typedef enum WireType {
        WIRE_VARINT = 0,
        WIRE_FIXED64 = 1,
        WIRE_LENGTH = 2,
        WIRE_FIXED32 = 5,
} WireType;

/* The numbers of the fields that lead to the one at hand. */
typedef struct Path {
        uint32_t tags[MESSAGE_DEPTH_MAX];
        unsigned n;
} Path;

#define PATH_TEXT_MAX (MESSAGE_DEPTH_MAX * 11U + 1U)
static const char *path_format(const Path *path, char text[static PATH_TEXT_MAX]) {
        size_t n = 0;

        text[0] = '\0';
        for (unsigned i = 0; i < path->n; i++)
                n += (size_t) snprintf(text + n, PATH_TEXT_MAX - n, "%s%" PRIu32, i > 0 ? "." : "", path->tags[i]);
        return text;
}

static bool is_packable(const pb_field_iter_t *field) {
        return PB_LTYPE(field->type) <= PB_LTYPE_LAST_PACKABLE;
}

/* Most strings are ASCII, eight bytes at a time. */
static bool text_is_valid(const char *s, size_t n) {
        size_t i = 0;

        for (; i + 8 <= n; i += 8) {
                uint64_t w;

                memcpy(&w, s + i, sizeof w);
                if (w & UINT64_C(0x8080808080808080))
                        return utf8_is_valid(s, n);
        }
        for (; i < n; i++)
                if (s[i] & 0x80)
                        return utf8_is_valid(s, n);
        return true;
}

static const MessageRaw *raw_fields;

void message_set_raw(const MessageRaw *list) {
        raw_fields = list;
}

bool message_is_raw(const pb_field_iter_t *field) {
        for (const MessageRaw *r = raw_fields; r && r->fields; r++)
                if (r->fields == field->descriptor && r->tag == field->tag)
                        return true;
        return false;
}

/* --- decoding --------------------------------------------------------------------------------------------------- */

typedef struct Cursor {
        const uint8_t *p, *end;
} Cursor;

static bool read_varint(Cursor *c, uint64_t *ret) {
        uint64_t v = 0;

        for (unsigned shift = 0; shift < 70 && c->p < c->end; shift += 7) {
                uint8_t b = *c->p++;

                if (shift < 64)
                        v |= (uint64_t) (b & 0x7f) << shift;
                if (!(b & 0x80)) {
                        *ret = v;
                        return true;
                }
        }
        return false;
}

static bool skip(Cursor *c, uint64_t n) {
        if (n > (uint64_t) (c->end - c->p))
                return false;
        c->p += n;
        return true;
}

static int check_message(const pb_msgdesc_t *fields, Cursor c, Path *path, Error *error);

/* One length-delimited value of a field we know; the path ends with it. Adds to *count the list's entries it holds. */
static int check_value(const pb_field_iter_t *field, Cursor c, Path *path, uint64_t *count, Error *error) {
        size_t size = (size_t) (c.end - c.p);
        char where[PATH_TEXT_MAX];

        switch (PB_LTYPE(field->type)) {
        case PB_LTYPE_STRING:
                ++*count;
                if (!text_is_valid((const char *) c.p, size) && !message_is_raw(field))
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "field %s of the message is not UTF-8 text",
                                          path_format(path, where));
                if (memchr(c.p, '\0', size))
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "field %s of the message has a NUL character in its text",
                                          path_format(path, where));
                return 0;

        case PB_LTYPE_BYTES:
                ++*count;
                if (PB_ATYPE(field->type) == PB_ATYPE_POINTER && size > MESSAGE_BYTES_MAX)
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "field %s of the message has %zu bytes, the limit is %u",
                                          path_format(path, where), size, MESSAGE_BYTES_MAX);
                return 0;

        case PB_LTYPE_SUBMESSAGE:
        case PB_LTYPE_SUBMSG_W_CB:
                ++*count;
                return check_message(field->submsg_desc, c, path, error);

        case PB_LTYPE_FIXED32:
                *count += size / 4;
                return 0;

        case PB_LTYPE_FIXED64:
                *count += size / 8;
                return 0;

        default: /* packed numbers: each ends with a byte below 0x80 */
                for (; c.p < c.end; c.p++)
                        *count += !(*c.p & 0x80);
                return 0;
        }
}

static int check_message(const pb_msgdesc_t *fields, Cursor c, Path *path, Error *error) {
        uint32_t counts[64] = {}; /* entries of each list, by the field's place in the message */
        pb_field_iter_t field;
        char where[PATH_TEXT_MAX];
        bool empty;

        if (path->n == MESSAGE_DEPTH_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "the message is nested deeper than %u levels",
                                  MESSAGE_DEPTH_MAX);
        empty = !pb_field_iter_begin(&field, fields, NULL);

        while (c.p < c.end) {
                uint64_t key, number, length = 0, count = 0;
                bool ok, known;
                int r;

                ok = read_varint(&c, &key);
                if (!ok)
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "the message ends in the middle of a field");
                number = key >> 3;
                if (number == 0 || number > UINT32_MAX >> 3)
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "the message has a field without a valid number");
                known = !empty && pb_field_iter_find(&field, (uint32_t) number);
                path->tags[path->n++] = (uint32_t) number;

                switch (key & 7) {
                case WIRE_VARINT:
                        ok = read_varint(&c, &length);
                        count = 1;
                        break;
                case WIRE_FIXED64:
                        ok = skip(&c, 8);
                        count = 1;
                        break;
                case WIRE_FIXED32:
                        ok = skip(&c, 4);
                        count = 1;
                        break;
                case WIRE_LENGTH:
                        ok = read_varint(&c, &length) && length <= (uint64_t) (c.end - c.p);
                        if (ok && known) {
                                r = check_value(&field, (Cursor) { c.p, c.p + length }, path, &count, error);
                                if (r < 0)
                                        return r;
                        }
                        ok = ok && skip(&c, length);
                        break;
                default:
                        ok = false;
                }
                if (!ok)
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "field %s of the message is cut off, or of no known kind",
                                          path_format(path, where));

                if (known && PB_HTYPE(field.type) == PB_HTYPE_REPEATED && field.index < ELEMENTSOF(counts)) {
                        uint64_t total = counts[field.index] + count;

                        if (total > MESSAGE_LIST_MAX && PB_ATYPE(field.type) == PB_ATYPE_POINTER)
                                return error_setf(
                                                error, GRPC_INVALID_ARGUMENT,
                                                "field %s of the message is a list of more than %u entries, the limit",
                                                path_format(path, where), MESSAGE_LIST_MAX);
                        counts[field.index] = (uint32_t) MIN(total, (uint64_t) UINT32_MAX);
                }
                path->n--;
        }
        return 0;
}

int message_decode(const pb_msgdesc_t *fields, const void *data, size_t size, void *ret, Error *error) {
        pb_istream_t stream = pb_istream_from_buffer(data, size);
        Path path = {};
        int r;

        if (size > 0) {
                r = check_message(fields, (Cursor) { data, (const uint8_t *) data + size }, &path, error);
                if (r < 0)
                        return r;
        }
        /* On failure pb_decode() frees what it allocated. */
        if (!pb_decode(&stream, fields, ret))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "the message cannot be decoded: %s",
                                  PB_GET_ERROR(&stream));
        return 0;
}

/* --- encoding --------------------------------------------------------------------------------------------------- */

typedef struct Encoder {
        pb_ostream_t stream; /* what callbacks see; its state is this */
        const MessageAllocator *allocator;
        uint8_t *data;
        size_t size, allocated, max;
        Path path;
        int r; /* why a callback failed */
        Error *error;
} Encoder;

static const MessageAllocator default_allocator = { realloc, free };

static int reserve(Encoder *e, size_t n) {
        size_t allocated;
        uint8_t *p;

        if (n <= e->allocated - e->size)
                return 0;
        if (n > e->max - e->size)
                return error_setf(e->error, GRPC_RESOURCE_EXHAUSTED,
                                  "the answer is larger than the limit of %zu bytes: ask for less of it", e->max);
        allocated = MAX(e->allocated * 2, (size_t) 256);
        allocated = MAX(allocated, e->size + n);
        allocated = MIN(allocated, e->max);
        p = e->allocator->realloc(e->data, allocated);
        if (!p)
                return error_oom(e->error);
        e->data = p;
        e->allocated = allocated;
        return 0;
}

static int put(Encoder *e, const void *data, size_t n) {
        int r;

        r = reserve(e, n);
        if (r < 0)
                return r;
        if (n > 0)
                memcpy(e->data + e->size, data, n);
        e->size += n;
        return 0;
}

static size_t varint_write(uint8_t *p, uint64_t v) {
        size_t n = 0;

        for (; v >= 0x80; v >>= 7)
                p[n++] = (uint8_t) v | 0x80;
        p[n++] = (uint8_t) v;
        return n;
}

static int put_varint(Encoder *e, uint64_t v) {
        uint8_t b[10];

        return put(e, b, varint_write(b, v));
}

static int put_key(Encoder *e, uint32_t tag, WireType type) {
        return put_varint(e, (uint64_t) tag << 3 | type);
}

static int put_value(Encoder *e, uint32_t tag, const void *data, size_t n) {
        int r;

        r = put_key(e, tag, WIRE_LENGTH);
        if (r < 0)
                return r;
        r = put_varint(e, n);
        if (r < 0)
                return r;
        return put(e, data, n);
}

static int put_string(Encoder *e, uint32_t tag, const char *s) {
        size_t n = strlen(s);

        if (!text_is_valid(s, n)) {
                char where[PATH_TEXT_MAX];

                return error_setf(e->error, GRPC_INTERNAL, "field %s of the answer would not be UTF-8 text",
                                  path_format(&e->path, where));
        }
        return put_value(e, tag, s, n);
}

/* Fills in the length of what was put since the byte at `start` was left free for it. */
static int finish_length(Encoder *e, size_t start) {
        size_t n = e->size - start - 1, more;
        uint8_t length[10];
        int r;

        more = varint_write(length, n) - 1;
        if (more > 0) {
                r = reserve(e, more);
                if (r < 0)
                        return r;
                memmove(e->data + start + 1 + more, e->data + start + 1, n);
                e->size += more;
        }
        memcpy(e->data + start, length, more + 1);
        return 0;
}

static int put_message(Encoder *e, const pb_msgdesc_t *fields, const void *message);

static int put_submessage(Encoder *e, uint32_t tag, const pb_msgdesc_t *fields, const void *message) {
        size_t start;
        int r;

        r = put_key(e, tag, WIRE_LENGTH);
        if (r < 0)
                return r;
        start = e->size;
        r = put(e, "", 1);
        if (r < 0)
                return r;
        r = put_message(e, fields, message);
        if (r < 0)
                return r;
        return finish_length(e, start);
}

/* A number as the struct holds it, sign-extended where it has a sign. */
static uint64_t load_number(const pb_field_iter_t *field, const void *p) {
        bool is_signed = PB_LTYPE(field->type) == PB_LTYPE_VARINT;

        switch (field->data_size) {
        case 1:
                return is_signed ? (uint64_t) * (const int8_t *) p : *(const uint8_t *) p;
        case 2:
                return is_signed ? (uint64_t) * (const int16_t *) p : *(const uint16_t *) p;
        case 4:
                return is_signed ? (uint64_t) * (const int32_t *) p : *(const uint32_t *) p;
        default:
                return *(const uint64_t *) p;
        }
}

static int put_number(Encoder *e, const pb_field_iter_t *field, const void *p) {
        uint64_t v = load_number(field, p);
        uint8_t b[8];
        size_t n = PB_LTYPE(field->type) == PB_LTYPE_FIXED32 ? 4 : 8;

        switch (PB_LTYPE(field->type)) {
        case PB_LTYPE_BOOL:
        case PB_LTYPE_VARINT:
        case PB_LTYPE_UVARINT:
                return put_varint(e, v);
        case PB_LTYPE_SVARINT:
                if (field->data_size == 4)
                        v = (uint64_t) (int64_t) (int32_t) (uint32_t) v;
                return put_varint(e, v << 1 ^ (v >> 63 ? UINT64_MAX : 0));
        default: /* fixed, little-endian */
                for (size_t i = 0; i < n; i++)
                        b[i] = (uint8_t) (v >> (8 * i));
                return put(e, b, n);
        }
}

static WireType number_wire_type(const pb_field_iter_t *field) {
        switch (PB_LTYPE(field->type)) {
        case PB_LTYPE_FIXED32:
                return WIRE_FIXED32;
        case PB_LTYPE_FIXED64:
                return WIRE_FIXED64;
        default:
                return WIRE_VARINT;
        }
}

static int unsupported(Encoder *e) {
        char where[PATH_TEXT_MAX];

        return error_setf(e->error, GRPC_INTERNAL, "field %s of the answer is of a kind that is not implemented",
                          path_format(&e->path, where));
}

static int put_list(Encoder *e, const pb_field_iter_t *field) {
        size_t count = *(const pb_size_t *) field->pSize, start;
        const char *p = field->pData;
        int r;

        if (count == 0)
                return 0;
        if (is_packable(field)) {
                r = put_key(e, field->tag, WIRE_LENGTH);
                if (r < 0)
                        return r;
                start = e->size;
                r = put(e, "", 1);
                for (size_t i = 0; i < count && r >= 0; i++)
                        r = put_number(e, field, p + i * field->data_size);
                return r < 0 ? r : finish_length(e, start);
        }
        for (size_t i = 0; i < count; i++) {
                const void *item = p + i * field->data_size;

                switch (PB_LTYPE(field->type)) {
                case PB_LTYPE_STRING:
                        item = *(const char *const *) item;
                        r = put_string(e, field->tag, item ? item : "");
                        break;
                case PB_LTYPE_SUBMESSAGE:
                        r = put_submessage(e, field->tag, field->submsg_desc, item);
                        break;
                default:
                        r = unsupported(e);
                }
                if (r < 0)
                        return r;
        }
        return 0;
}

static int put_single(Encoder *e, const pb_field_iter_t *field) {
        int r;

        /* proto3: what is not there, zero or empty is left out. */
        if (!field->pData || (field->pSize && !*(const bool *) field->pSize))
                return 0;

        switch (PB_LTYPE(field->type)) {
        case PB_LTYPE_STRING:
                if (!*(const char *) field->pData)
                        return 0;
                return message_is_raw(field) ? put_value(e, field->tag, field->pData, strlen(field->pData))
                                             : put_string(e, field->tag, field->pData);

        case PB_LTYPE_BYTES: {
                const pb_bytes_array_t *b = field->pData;

                return b->size > 0 ? put_value(e, field->tag, b->bytes, b->size) : 0;
        }
        case PB_LTYPE_SUBMESSAGE:
                return put_submessage(e, field->tag, field->submsg_desc, field->pData);

        default:
                if (!is_packable(field))
                        return unsupported(e);
                if (load_number(field, field->pData) == 0 && !field->pSize)
                        return 0;
                r = put_key(e, field->tag, number_wire_type(field));
                return r < 0 ? r : put_number(e, field, field->pData);
        }
}

static int put_field(Encoder *e, const pb_field_iter_t *field) {
        if (PB_ATYPE(field->type) == PB_ATYPE_CALLBACK) {
                if (field->descriptor->field_callback(NULL, &e->stream, field))
                        return 0;
                if (e->r < 0)
                        return e->r;
                return error_setf(e->error, GRPC_INTERNAL, "the answer cannot be put together: %s",
                                  PB_GET_ERROR(&e->stream));
        }
        switch (PB_HTYPE(field->type)) {
        case PB_HTYPE_OPTIONAL:
                return put_single(e, field);
        case PB_HTYPE_REPEATED:
                return PB_ATYPE(field->type) == PB_ATYPE_POINTER ? put_list(e, field) : unsupported(e);
        default:
                return unsupported(e);
        }
}

static int put_message(Encoder *e, const pb_msgdesc_t *fields, const void *message) {
        pb_field_iter_t field;
        int r;

        if (e->path.n == MESSAGE_DEPTH_MAX)
                return unsupported(e);
        if (!pb_field_iter_begin_const(&field, fields, message))
                return 0;
        e->path.n++;
        do {
                e->path.tags[e->path.n - 1] = field.tag;
                r = put_field(e, &field);
                if (r < 0)
                        return r;
        } while (pb_field_iter_next(&field));
        e->path.n--;
        return 0;
}

static bool stream_write(pb_ostream_t *stream, const pb_byte_t *data, size_t n) {
        Encoder *e = stream->state;

        e->r = put(e, data, n);
        return e->r >= 0;
}

bool message_put(pb_ostream_t *stream, const pb_field_iter_t *field, const pb_msgdesc_t *fields, const void *message) {
        Encoder *e = stream->state;

        e->r = put_submessage(e, field->tag, fields, message);
        return e->r >= 0;
}

bool message_put_bytes(pb_ostream_t *stream, const pb_field_iter_t *field, const void *data, size_t size) {
        Encoder *e = stream->state;

        e->r = size > 0 ? put_value(e, field->tag, data, size) : 0;
        return e->r >= 0;
}

size_t message_put_size(const pb_ostream_t *stream) {
        const Encoder *e = stream->state;

        return e->size;
}

int message_encode(const pb_msgdesc_t *fields, const void *message, const MessageAllocator *allocator, size_t max,
                   void **ret, size_t *ret_size, Error *error) {
        Encoder e = {
                .stream = { .callback = stream_write, .max_size = SIZE_MAX },
                .allocator = allocator ? allocator : &default_allocator,
                .max = max,
                .error = error,
        };
        int r;

        e.stream.state = &e;
        r = put_message(&e, fields, message);
        /* An empty message has room as well, so that the caller has something to send and to free. */
        if (r >= 0 && !e.data) {
                e.data = e.allocator->realloc(NULL, 1);
                r = e.data ? 0 : error_oom(error);
        }
        if (r < 0) {
                if (e.data)
                        e.allocator->free(e.data);
                return r;
        }
        *ret = e.data;
        *ret_size = e.size;
        return 0;
}
