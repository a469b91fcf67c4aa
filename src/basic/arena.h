#pragma once
/* A bump allocator for what lives exactly as long as one request: everything is freed at once. */

#include "basic/macro.h"

typedef struct Arena {
        struct ArenaBlock *blocks;
} Arena;

#define ARENA_INIT ((Arena) {})

void arena_done(Arena *a);
#define _cleanup_arena_ _cleanup_(arena_done)

/* Zeroed memory, aligned for any type; NULL when there is none. Freed by arena_done(). */
void *arena_alloc(Arena *a, size_t size);
#define arena_new(a, type, n) ((type *) arena_alloc_array((a), (n), sizeof(type)))
void *arena_alloc_array(Arena *a, size_t n, size_t size);
char *arena_strdup(Arena *a, const char *s);
char *arena_strndup(Arena *a, const char *s, size_t n);
char *arena_printf(Arena *a, const char *format, ...) _printf_(2, 3);
