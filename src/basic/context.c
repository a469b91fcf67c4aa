#include "basic/context.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(CONTEXT_UCONTEXT)
/* context.S: pushes what a function must preserve, stores the stack pointer, loads the other, pops. */
void context_switch_stack(void **ret_stack_pointer, void *stack_pointer);

#if defined(__x86_64__)
#define N_SAVED 8   /* MXCSR and x87 control word, r15, r14, r13, r12, rbx, rbp, the address to return to */
#define RETURN_AT 7
#define N_ABOVE 1   /* func's own return address: 0. So the stack is aligned as after a call. */
#else
#define N_SAVED 20 /* x19 to x30, d8 to d15 */
#define RETURN_AT 11
#define N_ABOVE 0
#endif
#endif

void context_init(Context *c, void *stack, size_t size, void (*func)(void)) {
        *c = (Context) { .stack_bottom = stack, .stack_size = size };
#if defined(CONTEXT_UCONTEXT)
        (void) getcontext(&c->uc);
        c->uc.uc_stack.ss_sp = stack;
        c->uc.uc_stack.ss_size = size;
        makecontext(&c->uc, func, 0);
#else
        uint64_t *top = (uint64_t *) (void *) ((char *) stack + size), *sp = top - N_SAVED - N_ABOVE;

        memset(sp, 0, (size_t) ((char *) top - (char *) sp));
#if defined(__x86_64__)
        uint32_t mxcsr;
        uint16_t control;

        __asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(mxcsr), "=m"(control));
        sp[0] = mxcsr | (uint64_t) control << 32;
#endif
        sp[RETURN_AT] = (uint64_t) (uintptr_t) func;
        c->stack_pointer = sp;
#endif
}

void context_entered(Context *from) {
#if defined(__SANITIZE_ADDRESS__)
        /* Only here the bounds of a stack that isn't ours, the thread's, become known. */
        __sanitizer_finish_switch_fiber(NULL, &from->stack_bottom, &from->stack_size);
#endif
}

void context_switch(Context *from, Context *to, bool last) {
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_start_switch_fiber(last ? NULL : &from->fake_stack, to->stack_bottom, to->stack_size);
#endif
#if defined(CONTEXT_UCONTEXT)
        (void) swapcontext(&from->uc, &to->uc);
#else
        context_switch_stack(&from->stack_pointer, to->stack_pointer);
#endif
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}
