#pragma once
/* Strings: NULL-terminated string lists, hexadecimal, random identifiers, parsing of numbers. */

#include "basic/macro.h"

void strv_free(char **l);
static inline void strv_freep(char ***l) {
        strv_free(*l);
}
#define _cleanup_strv_free_ _cleanup_(strv_freep)
size_t strv_length(char *const *l);
/* Appends a copy (strv_extend), the string itself (strv_push, owned on success only) or a formatted one. *l may be
 * NULL. */
int strv_extend(char ***l, const char *s);
int strv_push(char ***l, char *s);
int strv_extendf(char ***l, const char *format, ...) _printf_(2, 3);
bool strv_contains(char *const *l, const char *s);
char **strv_copy(char *const *l);
/* Splits at any of the separators; empty pieces are left out. */
int strv_split(const char *s, const char *separators, char ***ret);
char *strv_join(char *const *l, const char *separator);
#define STRV_FOREACH(s, l) for (char *const *s = (l); s && *s; s++)

/* printf into a fresh string, NULL when out of memory. */
char *strprintf(const char *format, ...) _printf_(1, 2);

/* Lower-case hexadecimal of n bytes into out[2 * n + 1]. */
void hex_encode(const void *data, size_t n, char *out);
/* 64 lower-case hexadecimal digits from getrandom(2); what the field uses for pod and container IDs. */
#define ID_LENGTH 64
int random_id(char ret[static ID_LENGTH + 1]);
bool is_hex(const char *s);

/* Decimal, the whole string, no sign, no blanks; -EINVAL or -ERANGE. */
int parse_u64(const char *s, uint64_t *ret);
int parse_u32(const char *s, uint32_t *ret);
int parse_bool(const char *s);

bool utf8_is_valid(const char *s, size_t n);
/* A copy in which what is not UTF-8 has become U+FFFD, for error texts. */
char *utf8_sanitize(const char *s);

/* A growing buffer of bytes, always NUL-terminated once something was appended. */
typedef struct Buffer {
        char *data;
        size_t size, allocated;
} Buffer;
#define BUFFER_INIT ((Buffer) {})
void buffer_done(Buffer *b);
int buffer_append(Buffer *b, const void *data, size_t size);
int buffer_appendf(Buffer *b, const char *format, ...) _printf_(2, 3);
