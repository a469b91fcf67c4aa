/* void context_switch_stack(void **ret_stack_pointer, void *stack_pointer)
 *
 * Saves what the calling convention says a function preserves on the stack, stores the stack pointer, and does the
 * reverse on the other stack. See context_init() for how a new stack looks. */

#if defined(__x86_64__)
        .text
        .globl context_switch_stack
        .hidden context_switch_stack
        .type context_switch_stack, @function
context_switch_stack:
        pushq %rbp
        pushq %rbx
        pushq %r12
        pushq %r13
        pushq %r14
        pushq %r15
        subq $8, %rsp
        stmxcsr (%rsp)
        fnstcw 4(%rsp)
        movq %rsp, (%rdi)
        movq %rsi, %rsp
        ldmxcsr (%rsp)
        fldcw 4(%rsp)
        addq $8, %rsp
        popq %r15
        popq %r14
        popq %r13
        popq %r12
        popq %rbx
        popq %rbp
        ret
        .size context_switch_stack, . - context_switch_stack
#elif defined(__aarch64__)
        .text
        .globl context_switch_stack
        .hidden context_switch_stack
        .type context_switch_stack, %function
context_switch_stack:
        sub sp, sp, #160
        stp x19, x20, [sp, #0]
        stp x21, x22, [sp, #16]
        stp x23, x24, [sp, #32]
        stp x25, x26, [sp, #48]
        stp x27, x28, [sp, #64]
        stp x29, x30, [sp, #80]
        stp d8, d9, [sp, #96]
        stp d10, d11, [sp, #112]
        stp d12, d13, [sp, #128]
        stp d14, d15, [sp, #144]
        mov x9, sp
        str x9, [x0]
        mov sp, x1
        ldp x19, x20, [sp, #0]
        ldp x21, x22, [sp, #16]
        ldp x23, x24, [sp, #32]
        ldp x25, x26, [sp, #48]
        ldp x27, x28, [sp, #64]
        ldp x29, x30, [sp, #80]
        ldp d8, d9, [sp, #96]
        ldp d10, d11, [sp, #112]
        ldp d12, d13, [sp, #128]
        ldp d14, d15, [sp, #144]
        add sp, sp, #160
        ret
        .size context_switch_stack, . - context_switch_stack
#endif

        .section .note.GNU-stack, "", %progbits
