#pragma once
/* The kernel's interface without a C library: a pod process lives as long as its pod and there are hundreds of them, so
 * it brings no libc (whose start alone dirties some 40 KiB). Calls return the kernel's negative errno. On architectures
 * without a start of ours the same code runs on a static libc. */

#include <asm/unistd.h>
#include <stdarg.h>

#include "basic/macro.h"

#ifndef POD_FREESTANDING
#define POD_FREESTANDING 0
#endif

#if POD_FREESTANDING && defined(__x86_64__)
static inline long sys_call(long nr, long a, long b, long c, long d, long e, long f) {
        register long r10 __asm__("r10") = d;
        register long r8 __asm__("r8") = e;
        register long r9 __asm__("r9") = f;
        long r;

        __asm__ volatile("syscall"
                         : "=a"(r)
                         : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                         : "rcx", "r11", "memory");
        return r;
}
#elif POD_FREESTANDING && defined(__aarch64__)
static inline long sys_call(long nr, long a, long b, long c, long d, long e, long f) {
        register long x8 __asm__("x8") = nr;
        register long x0 __asm__("x0") = a;
        register long x1 __asm__("x1") = b;
        register long x2 __asm__("x2") = c;
        register long x3 __asm__("x3") = d;
        register long x4 __asm__("x4") = e;
        register long x5 __asm__("x5") = f;

        __asm__ volatile("svc 0"
                         : "+r"(x0)
                         : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                         : "memory", "cc");
        return x0;
}
#else
long sys_call(long nr, long a, long b, long c, long d, long e, long f);
#endif

#define SYS_PICK(_1, _2, _3, _4, _5, _6, name, ...) name
#define SYS_1(nr, a)                (int) sys_call(nr, (long) (a), 0, 0, 0, 0, 0)
#define SYS_2(nr, a, b)             (int) sys_call(nr, (long) (a), (long) (b), 0, 0, 0, 0)
#define SYS_3(nr, a, b, c)          (int) sys_call(nr, (long) (a), (long) (b), (long) (c), 0, 0, 0)
#define SYS_4(nr, a, b, c, d)       (int) sys_call(nr, (long) (a), (long) (b), (long) (c), (long) (d), 0, 0)
#define SYS_5(nr, a, b, c, d, e)    (int) sys_call(nr, (long) (a), (long) (b), (long) (c), (long) (d), (long) (e), 0)
#define SYS_6(nr, a, b, c, d, e, f)                                                                                    \
        (int) sys_call(nr, (long) (a), (long) (b), (long) (c), (long) (d), (long) (e), (long) (f))
/* SYS(close, fd): the system call of that name, its result as an int. At least one argument. */
#define SYS(name, ...)                                                                                                 \
        SYS_PICK(__VA_ARGS__, SYS_6, SYS_5, SYS_4, SYS_3, SYS_2, SYS_1, )(__NR_##name, __VA_ARGS__)

static inline int sys_close(int fd) {
        if (fd >= 0)
                (void) SYS(close, fd);
        return -1;
}
static inline void sys_closep(const int *fd) {
        (void) sys_close(*fd);
}
#define _cleanup_fd_ _cleanup_(sys_closep)

static inline _Noreturn void sys_exit(int code) {
        for (;;)
                (void) SYS(exit_group, code);
}

/* Anonymous or shared memory; NULL when there is none. */
void *sys_mmap(size_t size, int protection, int flags, int fd);
/* Nanoseconds. */
uint64_t sys_now(int clock);
/* Where the first newline is, or NULL. */
const char *find_newline(const char *p, size_t n);
/* The last one. */
const char *find_last_newline(const char *p, size_t n);

/* What errno r (negative) means in words. */
const char *sys_words(int r);

/* A bounded text that is put together piece by piece; what doesn't fit is cut. Always NUL-terminated. */
typedef struct Text {
        size_t n;
        char s[504];
} Text;

void text_add(Text *t, const char *s);
void text_add_number(Text *t, uint64_t n);
/* Sets the text from the pieces up to NULL, followed by ": " and the words for r (negative errno; 0: nothing follows),
 * unless it is set already. Returns r. `t` may be NULL. */
int fail(Text *t, int r, ...) __attribute__((__sentinel__));

/* The program itself, called by the start in sys.c. */
int pod_main(int argc, char **argv, char **envp);
