#include "basic/string-util.h"

#include <stdarg.h>
#include <sys/random.h>

void strv_free(char **l) {
        for (char **s = l; s && *s; s++)
                free(*s);
        free(l);
}

size_t strv_length(char *const *l) {
        size_t n = 0;

        while (l && l[n])
                n++;
        return n;
}

int strv_push(char ***l, char *s) {
        size_t n = strv_length(*l);
        char **p;

        p = reallocarray(*l, n + 2, sizeof(char *));
        if (!p)
                return -ENOMEM;
        *l = p;
        (*l)[n] = s;
        (*l)[n + 1] = NULL;
        return 0;
}

int strv_extend(char ***l, const char *s) {
        _cleanup_free_ char *copy = strdup(s);
        int r;

        if (!copy)
                return -ENOMEM;
        r = strv_push(l, copy);
        if (r < 0)
                return r;
        TAKE_PTR(copy);
        return 0;
}

int strv_extendf(char ***l, const char *format, ...) {
        _cleanup_free_ char *s = NULL;
        va_list ap;
        int r;

        va_start(ap, format);
        r = vasprintf(&s, format, ap);
        va_end(ap);
        if (r < 0) {
                s = NULL;
                return -ENOMEM;
        }
        r = strv_push(l, s);
        if (r < 0)
                return r;
        TAKE_PTR(s);
        return 0;
}

bool strv_contains(char *const *l, const char *s) {
        STRV_FOREACH(i, l)
                if (streq(*i, s))
                        return true;
        return false;
}

char **strv_copy(char *const *l) {
        _cleanup_strv_free_ char **copy = NULL;

        if (!l)
                return NULL;
        copy = calloc(2, sizeof(char *));
        if (!copy)
                return NULL;
        STRV_FOREACH(i, l)
                if (strv_extend(&copy, *i) < 0)
                        return NULL;
        return TAKE_PTR(copy);
}

int strv_split(const char *s, const char *separators, char ***ret) {
        _cleanup_strv_free_ char **l = NULL;
        int r;

        for (s += strspn(s, separators); *s; s += strspn(s, separators)) {
                size_t n = strcspn(s, separators);
                _cleanup_free_ char *piece = strndup(s, n);

                if (!piece)
                        return -ENOMEM;
                r = strv_push(&l, piece);
                if (r < 0)
                        return r;
                TAKE_PTR(piece);
                s += n;
        }
        if (!l) {
                l = calloc(2, sizeof(char *));
                if (!l)
                        return -ENOMEM;
        }
        *ret = TAKE_PTR(l);
        return 0;
}

char *strv_join(char *const *l, const char *separator) {
        size_t n = 1, ls = strlen(separator);
        char *joined, *p;

        STRV_FOREACH(i, l)
                n += strlen(*i) + ls;
        joined = p = malloc(n);
        if (!joined)
                return NULL;
        *p = 0;
        STRV_FOREACH(i, l) {
                if (i != l)
                        p = stpcpy(p, separator);
                p = stpcpy(p, *i);
        }
        return joined;
}

char *strprintf(const char *format, ...) {
        va_list ap;
        char *s;
        int r;

        va_start(ap, format);
        r = vasprintf(&s, format, ap);
        va_end(ap);
        return r < 0 ? NULL : s;
}

void hex_encode(const void *data, size_t n, char *out) {
        static const char digits[] = "0123456789abcdef";
        const uint8_t *d = data;

        for (size_t i = 0; i < n; i++) {
                *out++ = digits[d[i] >> 4];
                *out++ = digits[d[i] & 15];
        }
        *out = 0;
}

int random_id(char ret[static ID_LENGTH + 1]) {
        uint8_t bytes[ID_LENGTH / 2];

        if (getrandom(bytes, sizeof bytes, 0) != (ssize_t) sizeof bytes)
                return -errno;
        hex_encode(bytes, sizeof bytes, ret);
        return 0;
}

bool is_hex(const char *s) {
        return s[0] && strspn(s, "0123456789abcdef") == strlen(s);
}

int parse_u64(const char *s, uint64_t *ret) {
        uint64_t v = 0;

        if (!s[0])
                return -EINVAL;
        for (; *s; s++) {
                if (*s < '0' || *s > '9')
                        return -EINVAL;
                if (__builtin_mul_overflow(v, 10U, &v) || __builtin_add_overflow(v, (uint64_t) (*s - '0'), &v))
                        return -ERANGE;
        }
        *ret = v;
        return 0;
}

int parse_u32(const char *s, uint32_t *ret) {
        uint64_t v;
        int r;

        r = parse_u64(s, &v);
        if (r < 0)
                return r;
        if (v > UINT32_MAX)
                return -ERANGE;
        *ret = (uint32_t) v;
        return 0;
}

int parse_bool(const char *s) {
        static const char *const yes[] = { "1", "yes", "y", "true", "t", "on" };
        static const char *const no[] = { "0", "no", "n", "false", "f", "off" };

        for (size_t i = 0; i < ELEMENTSOF(yes); i++) {
                if (strcasecmp(s, yes[i]) == 0)
                        return true;
                if (strcasecmp(s, no[i]) == 0)
                        return false;
        }
        return -EINVAL;
}

/* Length of the character at s, 0 when it is none (RFC 3629: no surrogates, nothing over-long, at most U+10FFFF). */
static size_t utf8_character(const unsigned char *s, size_t n) {
        size_t l;
        uint32_t c;

        if (s[0] < 0x80)
                return 1;
        if (s[0] >= 0xc2 && s[0] <= 0xdf) {
                l = 2;
                c = s[0] & 0x1f;
        } else if ((s[0] & 0xf0) == 0xe0) {
                l = 3;
                c = s[0] & 0x0f;
        } else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
                l = 4;
                c = s[0] & 0x07;
        } else
                return 0;
        if (n < l)
                return 0;
        for (size_t i = 1; i < l; i++) {
                if ((s[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (s[i] & 0x3f);
        }
        if ((l == 3 && (c < 0x800 || (c >= 0xd800 && c <= 0xdfff))) || (l == 4 && (c < 0x10000 || c > 0x10ffff)))
                return 0;
        return l;
}

bool utf8_is_valid(const char *s, size_t n) {
        for (size_t i = 0, l; i < n; i += l) {
                l = utf8_character((const unsigned char *) s + i, n - i);
                if (l == 0)
                        return false;
        }
        return true;
}

char *utf8_sanitize(const char *s) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        size_t n = strlen(s);

        if (utf8_is_valid(s, n))
                return strdup(s);
        for (size_t i = 0, l; i < n; i += MAX(l, (size_t) 1)) {
                l = utf8_character((const unsigned char *) s + i, n - i);
                if (buffer_append(&b, l > 0 ? s + i : "\xef\xbf\xbd", l > 0 ? l : 3) < 0)
                        return NULL;
        }
        return TAKE_PTR(b.data);
}

void buffer_done(Buffer *b) {
        free(b->data);
        *b = BUFFER_INIT;
}

static int buffer_reserve(Buffer *b, size_t more) {
        size_t need, want;
        char *p;

        if (__builtin_add_overflow(b->size, more, &need) || __builtin_add_overflow(need, (size_t) 1, &need))
                return -ENOMEM;
        if (need <= b->allocated)
                return 0;
        want = MAX(need, b->allocated < SIZE_MAX / 2 ? b->allocated * 2 : need);
        want = MAX(want, (size_t) 64);
        p = realloc(b->data, want);
        if (!p)
                return -ENOMEM;
        b->data = p;
        b->allocated = want;
        return 0;
}

int buffer_append(Buffer *b, const void *data, size_t size) {
        int r;

        r = buffer_reserve(b, size);
        if (r < 0)
                return r;
        if (size > 0)
                memcpy(b->data + b->size, data, size);
        b->size += size;
        b->data[b->size] = 0;
        return 0;
}

int buffer_appendf(Buffer *b, const char *format, ...) {
        va_list ap;
        int n, r;

        va_start(ap, format);
        n = vsnprintf(NULL, 0, format, ap);
        va_end(ap);
        if (n < 0)
                return -EINVAL;
        r = buffer_reserve(b, (size_t) n);
        if (r < 0)
                return r;
        va_start(ap, format);
        (void) vsnprintf(b->data + b->size, (size_t) n + 1, format, ap);
        va_end(ap);
        b->size += (size_t) n;
        return 0;
}
