/* long clone3_call(struct clone_args *args, size_t size, void (*func)(void *), void *arg)
 *
 * clone3(2) with a stack of the child's own, on which it calls func(arg), which must not return. The parent gets the
 * child's process ID or a negative errno. */

#define SYS_clone3 435

#if defined(__x86_64__)
        .text
        .globl clone3_call
        .hidden clone3_call
        .type clone3_call, @function
clone3_call:
        movq %rcx, %r8 /* the system call destroys rcx */
        movl $SYS_clone3, %eax
        syscall
        testq %rax, %rax
        jnz 1f
        xorl %ebp, %ebp
        movq %r8, %rdi
        call *%rdx
        ud2
1:      ret
        .size clone3_call, . - clone3_call
#elif defined(__aarch64__)
        .text
        .globl clone3_call
        .hidden clone3_call
        .type clone3_call, %function
clone3_call:
        mov x8, #SYS_clone3
        svc #0
        cbnz x0, 1f
        mov x29, #0
        mov x30, #0
        mov x0, x3
        blr x2
        brk #0
1:      ret
        .size clone3_call, . - clone3_call
#endif

        .section .note.GNU-stack, "", %progbits
