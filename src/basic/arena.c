#include "basic/arena.h"

#include <stdarg.h>
#include <stdalign.h>

#define BLOCK_SIZE 4096U

typedef struct ArenaBlock {
        struct ArenaBlock *next;
        size_t used, size;
        alignas(max_align_t) char data[];
} ArenaBlock;

void arena_done(Arena *a) {
        while (a->blocks) {
                ArenaBlock *b = a->blocks;
                a->blocks = b->next;
                free(b);
        }
}

void *arena_alloc(Arena *a, size_t size) {
        ArenaBlock *b = a->blocks;
        size_t need;
        void *p;

        if (size > SIZE_MAX / 2)
                return NULL;
        need = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
        if (!b || b->size - b->used < need) {
                size_t n = MAX(need, (size_t) BLOCK_SIZE - sizeof(ArenaBlock));

                b = calloc(1, sizeof(ArenaBlock) + n);
                if (!b)
                        return NULL;
                b->size = n;
                /* A block of its own for a large piece goes behind the current one, which still has room. */
                if (a->blocks && need >= BLOCK_SIZE / 2) {
                        b->next = a->blocks->next;
                        a->blocks->next = b;
                } else {
                        b->next = a->blocks;
                        a->blocks = b;
                }
        }
        p = b->data + b->used;
        b->used += need;
        return p;
}

void *arena_alloc_array(Arena *a, size_t n, size_t size) {
        size_t total;

        if (__builtin_mul_overflow(n, size, &total))
                return NULL;
        return arena_alloc(a, total);
}

char *arena_strndup(Arena *a, const char *s, size_t n) {
        size_t l = strnlen(s, n);
        char *p = arena_alloc(a, l + 1);

        if (p)
                memcpy(p, s, l);
        return p;
}

char *arena_strdup(Arena *a, const char *s) {
        return arena_strndup(a, s, SIZE_MAX / 4);
}

char *arena_printf(Arena *a, const char *format, ...) {
        va_list ap, aq;
        char *p = NULL;
        int n;

        va_start(ap, format);
        va_copy(aq, ap);
        n = vsnprintf(NULL, 0, format, ap);
        if (n >= 0) {
                p = arena_alloc(a, (size_t) n + 1);
                if (p)
                        (void) vsnprintf(p, (size_t) n + 1, format, aq);
        }
        va_end(aq);
        va_end(ap);
        return p;
}
