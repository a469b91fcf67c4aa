/* The start of the process, and the few functions that a C library would have given. */

#include <sys/mman.h>
#include <time.h>

#include "pod/sys.h"

#if POD_FREESTANDING

#if defined(__x86_64__)
__asm__(".globl _start\n"
        ".type _start, @function\n"
        "_start:\n"
        "        xorl %ebp, %ebp\n"
        "        movq %rsp, %rdi\n"
        "        andq $-16, %rsp\n"
        "        call pod_start\n"
        "        hlt\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n"
        ".type _start, %function\n"
        "_start:\n"
        "        mov x29, #0\n"
        "        mov x30, #0\n"
        "        mov x0, sp\n"
        "        and sp, x0, #-16\n"
        "        bl pod_start\n"
        "        brk #0\n");
#endif

_Noreturn void pod_start(long *stack);
_Noreturn __attribute__((__used__)) void pod_start(long *stack) {
        char **argv = (char **) (stack + 1);

        sys_exit(pod_main((int) stack[0], argv, argv + stack[0] + 1));
}

/* The compiler calls these by name; -fno-builtin keeps it from making them of themselves. */
void *memcpy(void *restrict d, const void *restrict s, size_t n) {
#if defined(__x86_64__)
        void *r = d;
        __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
        return r;
#else
        for (size_t i = 0; i < n; i++)
                ((char *) d)[i] = ((const char *) s)[i];
        return d;
#endif
}

void *memmove(void *d, const void *s, size_t n) {
        if ((uintptr_t) d - (uintptr_t) s >= n)
                return memcpy(d, s, n);
        for (size_t i = n; i > 0; i--)
                ((char *) d)[i - 1] = ((const char *) s)[i - 1];
        return d;
}

void *memset(void *d, int c, size_t n) {
        for (size_t i = 0; i < n; i++)
                ((char *) d)[i] = (char) c;
        return d;
}

int memcmp(const void *a, const void *b, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (((const unsigned char *) a)[i] != ((const unsigned char *) b)[i])
                        return ((const unsigned char *) a)[i] - ((const unsigned char *) b)[i];
        return 0;
}

size_t strlen(const char *s) {
        size_t n = 0;

        while (s[n])
                n++;
        return n;
}

int strcmp(const char *a, const char *b) {
        while (*a && *a == *b) {
                a++;
                b++;
        }
        return (unsigned char) *a - (unsigned char) *b;
}

int strncmp(const char *a, const char *b, size_t n) {
        for (; n > 0 && *a && *a == *b; n--) {
                a++;
                b++;
        }
        return n == 0 ? 0 : (unsigned char) *a - (unsigned char) *b;
}

#else

#include <sys/syscall.h>

long sys_call(long nr, long a, long b, long c, long d, long e, long f) {
        long r = syscall(nr, a, b, c, d, e, f);

        return r == -1 ? -errno : r;
}

int main(int argc, char **argv) {
        return pod_main(argc, argv, environ);
}

#endif

void *sys_mmap(size_t size, int protection, int flags, int fd) {
        long r = sys_call(__NR_mmap, 0, (long) size, protection, flags, fd, 0);

        return r < 0 && r > -4096 ? NULL : (void *) r;
}

uint64_t sys_now(int clock) {
        struct timespec ts = {};

        (void) SYS(clock_gettime, clock, &ts);
        return (uint64_t) ts.tv_sec * NSEC_PER_SEC + (uint64_t) ts.tv_nsec;
}

#define ONES UINT64_C(0x0101010101010101)
/* Bytes of the word that are newlines have their high bit set; bytes above the first hit may be wrong. */
static inline uint64_t newlines(uint64_t word) {
        word ^= ONES * '\n';
        return (word - ONES) & ~word & (ONES << 7);
}
static inline uint64_t load(const char *p) {
        uint64_t word;

        __builtin_memcpy(&word, p, sizeof word);
        return word;
}

const char *find_newline(const char *p, size_t n) {
        size_t i = 0;

        for (; i + 16 <= n; i += 16) {
                uint64_t a = newlines(load(p + i)), b = newlines(load(p + i + 8));

                if (!(a | b))
                        continue;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
                return p + i + (a ? __builtin_ctzll(a) : 64 + __builtin_ctzll(b)) / 8;
#else
                break;
#endif
        }
        for (; i < n; i++)
                if (p[i] == '\n')
                        return p + i;
        return NULL;
}

const char *find_last_newline(const char *p, size_t n) {
        while (n > 0) {
                if (n >= 8 && !newlines(load(p + n - 8))) {
                        n -= 8;
                        continue;
                }
                for (size_t end = n >= 8 ? n - 8 : 0; n > end; n--)
                        if (p[n - 1] == '\n')
                                return p + n - 1;
        }
        return NULL;
}

const char *sys_words(int r) {
        static const struct {
                int r;
                const char *words;
        } table[] = {
                { -EPERM, "operation not permitted" },
                { -ENOENT, "no such file or directory" },
                { -EIO, "input/output error" },
                { -EBADF, "bad descriptor" },
                { -ENOMEM, "out of memory" },
                { -EACCES, "permission denied" },
                { -EBUSY, "busy" },
                { -EEXIST, "exists already" },
                { -ENOTDIR, "not a directory" },
                { -EISDIR, "is a directory" },
                { -EINVAL, "invalid argument" },
                { -ENFILE, "too many open files in the system" },
                { -EMFILE, "too many open files" },
                { -EFBIG, "file too large" },
                { -ENOSPC, "no space left on device" },
                { -EROFS, "read-only file system" },
                { -ENAMETOOLONG, "name too long" },
                { -ENOTEMPTY, "directory not empty" },
                { -ELOOP, "a symbolic link is in the way" },
                { -EDQUOT, "disk quota exceeded" },
                { -ENXIO, "no such device" },
                { -EADDRINUSE, "address in use" },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (table[i].r == r)
                        return table[i].words;
        return NULL;
}

void text_add(Text *t, const char *s) {
        while (*s && t->n + 1 < sizeof t->s)
                t->s[t->n++] = *s++;
        t->s[t->n] = 0;
}

void text_add_number(Text *t, uint64_t n) {
        char digits[24];
        size_t i = sizeof digits;

        digits[--i] = 0;
        do
                digits[--i] = (char) ('0' + n % 10);
        while ((n /= 10) > 0);
        text_add(t, digits + i);
}

int fail(Text *t, int r, ...) {
        const char *words;
        va_list ap;

        if (!t || t->n > 0)
                return r;

        va_start(ap, r);
        for (const char *s; (s = va_arg(ap, const char *));)
                text_add(t, s);
        va_end(ap);

        if (r == 0)
                return r;
        text_add(t, ": ");
        words = sys_words(r);
        if (words)
                text_add(t, words);
        else {
                text_add(t, "errno ");
                text_add_number(t, (uint64_t) -r);
        }
        return r;
}
