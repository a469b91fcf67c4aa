#include "basic/message-equal.h"

#include <pb_common.h>

#include "basic/message.h"

/* Maps with more entries are equal only in the same order: comparing takes the square of it. */
#define MAP_MAX 1024U

static bool string_equal(const char *a, const char *b) {
        return streq(a ? a : "", b ? b : "");
}

static bool bytes_equal(const pb_bytes_array_t *a, const pb_bytes_array_t *b) {
        const size_t n = a ? a->size : 0, m = b ? b->size : 0;

        return n == m && (n == 0 || memcmp(a->bytes, b->bytes, n) == 0);
}

static bool value_equal(const pb_field_iter_t *f, const void *a, const void *b) {
        if (PB_LTYPE(f->type) == PB_LTYPE_STRING)
                return string_equal(a, b);
        if (PB_LTYPE(f->type) == PB_LTYPE_BYTES)
                return bytes_equal(a, b);
        if (!a || !b)
                return a == b;
        return PB_LTYPE(f->type) == PB_LTYPE_SUBMESSAGE ? message_equal(f->submsg_desc, a, b)
                                                        : memcmp(a, b, f->data_size) == 0;
}

static const void *entry(const pb_field_iter_t *f, size_t i) {
        const char *p = (const char *) f->pData + i * f->data_size;

        /* Lists of strings and of bytes are lists of pointers. */
        return PB_LTYPE(f->type) == PB_LTYPE_STRING || PB_LTYPE(f->type) == PB_LTYPE_BYTES
                       ? *(const void *const *) p
                       : (const void *) p;
}

/* A map of strings is, to nanopb, a list of messages of two strings: nothing else in our messages is. */
static bool is_map(const pb_field_iter_t *f) {
        pb_field_iter_t inner;
        unsigned n = 0;

        if (PB_LTYPE(f->type) != PB_LTYPE_SUBMESSAGE || !pb_field_iter_begin(&inner, f->submsg_desc, NULL))
                return false;
        do {
                if (PB_LTYPE(inner.type) != PB_LTYPE_STRING || message_is_raw(&inner) || PB_HTYPE(inner.type) == PB_HTYPE_REPEATED)
                        return false;
                n++;
        } while (pb_field_iter_next(&inner));
        return n == 2;
}

static size_t count(const pb_field_iter_t *f, const pb_field_iter_t *like, size_t i) {
        size_t n = 0;

        for (size_t j = 0; j < *(const pb_size_t *) f->pSize; j++)
                n += value_equal(f, entry(f, j), entry(like, i));
        return n;
}

static bool list_equal(const pb_field_iter_t *a, const pb_field_iter_t *b) {
        const size_t n = *(const pb_size_t *) a->pSize;
        size_t i = 0;

        if (n != *(const pb_size_t *) b->pSize)
                return false;
        while (i < n && value_equal(a, entry(a, i), entry(b, i)))
                i++;
        if (i == n)
                return true;
        if (n > MAP_MAX || !is_map(a))
                return false;
        for (; i < n; i++)
                if (count(a, a, i) != count(b, a, i))
                        return false;
        return true;
}

/* pSize is a flag for these; of a list it is the number. */
static bool is_there(const pb_field_iter_t *optional) {
        return !optional->pSize || *(const bool *) optional->pSize;
}

bool message_equal(const pb_msgdesc_t *fields, const void *a, const void *b) {
        pb_field_iter_t x, y;

        if (!pb_field_iter_begin_const(&x, fields, a) || !pb_field_iter_begin_const(&y, fields, b))
                return true; /* no fields */
        do {
                if (PB_HTYPE(x.type) == PB_HTYPE_REPEATED) {
                        if (!list_equal(&x, &y))
                                return false;
                } else if (PB_HTYPE(x.type) == PB_HTYPE_OPTIONAL && (!is_there(&x) || !is_there(&y))) {
                        if (is_there(&x) != is_there(&y))
                                return false;
                } else if (!value_equal(&x, x.pData, y.pData))
                        return false;
        } while (pb_field_iter_next(&x) && pb_field_iter_next(&y));
        return true;
}
