#pragma once
/* A stack with somebody on it: what a fiber is left from and come back to. Switching is a few instructions on x86-64
 * and aarch64 (context.S), and swapcontext(3), which costs a system call, elsewhere. AddressSanitizer is told of each.
 */

#include "basic/macro.h"

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(CONTEXT_UCONTEXT)
#define CONTEXT_UCONTEXT 1 /* may be set from outside to try it */
#endif
#if defined(CONTEXT_UCONTEXT)
#include <ucontext.h>
#endif

typedef struct Context {
#if defined(CONTEXT_UCONTEXT)
        ucontext_t uc;
#else
        void *stack_pointer; /* while it is left; its registers lie there */
#endif
        /* For AddressSanitizer only. */
        void *fake_stack;
        const void *stack_bottom;
        size_t stack_size;
} Context;

/* Makes *c ready to be switched to for the first time: func, which must not return, then runs on the stack and has to
 * call context_entered() first. `from` is whoever switches to it that time. */
void context_init(Context *c, void *stack, size_t size, void (*func)(void));
void context_entered(Context *from);
/* Leaves *from and goes on where *to was left. last: *from is never come back to, and its stack may be freed. */
void context_switch(Context *from, Context *to, bool last);
