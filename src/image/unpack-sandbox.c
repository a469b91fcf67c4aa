/* What the unpacker gives up before it reads a byte of a layer: the file system outside of the tree, privileges that
 * making files doesn't take, memory without bound, and all system calls but a few. */

#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "image/unpack.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#if SANITIZED
/* The leak checker reads /proc at the end, and there is none in the sandbox. */
const char *__asan_default_options(void);
__attribute__((visibility("default"), used)) const char *__asan_default_options(void) {
        return "detect_leaks=0";
}
#endif

#define MEMORY_MAX (UINT64_C(1) << 30)
/* Names can be made that take the kernel long to resolve; no honest layer comes near this. */
#define CPU_MAX_SEC 3600U

static int drop_capabilities(SandboxFlags flags) {
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2] = {};
        /* SYS_ADMIN: trusted.overlay.opaque can't be set without; seccomp takes away what else it would allow. */
        static const unsigned keep[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SYS_ADMIN};
        static const unsigned keep_make[] = {CAP_MKNOD, CAP_SETFCAP};
        struct __user_cap_data_struct had[2] = {};

        if (syscall(SYS_capget, &header, had) < 0)
                return -errno;
        for (size_t i = 0; i < ELEMENTSOF(keep); i++)
                data[keep[i] / 32].permitted |= 1U << (keep[i] % 32);
        if (flags & SANDBOX_MAKE)
                for (size_t i = 0; i < ELEMENTSOF(keep_make); i++)
                        data[keep_make[i] / 32].permitted |= 1U << (keep_make[i] % 32);
        for (unsigned i = 0; i < 2; i++) {
                data[i].permitted &= had[i].permitted;
                data[i].effective = data[i].permitted;
        }
        return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

static int load_filter(SandboxFlags flags) {
        static const int base[] = {
                        SCMP_SYS(read),          SCMP_SYS(write),
                        SCMP_SYS(writev),        SCMP_SYS(pwrite64),
                        SCMP_SYS(pread64),       SCMP_SYS(close),
                        SCMP_SYS(lseek),         SCMP_SYS(fstat),
                        SCMP_SYS(newfstatat),    SCMP_SYS(statx),
                        SCMP_SYS(fstatfs),       SCMP_SYS(openat),
                        SCMP_SYS(openat2),       SCMP_SYS(getdents64),
                        SCMP_SYS(unlinkat),      SCMP_SYS(renameat),
                        SCMP_SYS(renameat2),     SCMP_SYS(fcntl),
                        SCMP_SYS(dup),           SCMP_SYS(readlinkat),
                        SCMP_SYS(fchown),        SCMP_SYS(fchmod),
                        SCMP_SYS(fchownat),      SCMP_SYS(fchmodat),
                        SCMP_SYS(utimensat),     SCMP_SYS(fgetxattr),
                        SCMP_SYS(fsync),         SCMP_SYS(syncfs),
                        SCMP_SYS(brk),           SCMP_SYS(mmap),
                        SCMP_SYS(munmap),        SCMP_SYS(mremap),
                        SCMP_SYS(mprotect),      SCMP_SYS(madvise),
                        SCMP_SYS(futex),         SCMP_SYS(getpid),
                        SCMP_SYS(gettid),        SCMP_SYS(getrandom),
                        SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday),
                        SCMP_SYS(rt_sigaction),  SCMP_SYS(rt_sigprocmask),
                        SCMP_SYS(rt_sigreturn),  SCMP_SYS(tgkill),
                        SCMP_SYS(sched_yield),   SCMP_SYS(restart_syscall),
                        SCMP_SYS(exit),          SCMP_SYS(exit_group),
        };
        static const int make[] = {
                        SCMP_SYS(mkdirat), SCMP_SYS(mknodat),   SCMP_SYS(symlinkat),
                        SCMP_SYS(linkat),  SCMP_SYS(ftruncate), SCMP_SYS(fsetxattr),
        };
        scmp_filter_ctx c;
        int r = 0;

        c = seccomp_init(SCMP_ACT_KILL_PROCESS);
        if (!c)
                return -ENOMEM;
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(base); i++)
                r = seccomp_rule_add(c, SCMP_ACT_ALLOW, base[i], 0);
        for (size_t i = 0; r >= 0 && (flags & SANDBOX_MAKE) && i < ELEMENTSOF(make); i++)
                r = seccomp_rule_add(c, SCMP_ACT_ALLOW, make[i], 0);
        if (r >= 0)
                r = seccomp_load(c);
        seccomp_release(c);
        return r;
}

int unpack_sandbox(int root_fd, SandboxFlags flags, Error *error) {
        static const struct rlimit no_core = {}, files = {1024, 1024}, memory = {MEMORY_MAX, MEMORY_MAX},
                                   cpu = {CPU_MAX_SEC, CPU_MAX_SEC};
        int r;

        /* Without it everything has to hold as well, and the sanitizers need /proc: so it is left out for them. */
        if (!SANITIZED && root_fd >= 0 && (fchdir(root_fd) < 0 || chroot(".") < 0 || chdir("/") < 0))
                return error_set(error, -errno, "Cannot enter the layer's directory");

        /* Limits that are lower already stay. */
        (void) setrlimit(RLIMIT_CORE, &no_core);
        (void) setrlimit(RLIMIT_NOFILE, &files);
        (void) setrlimit(RLIMIT_CPU, &cpu);
        if (!SANITIZED && setrlimit(RLIMIT_AS, &memory) < 0)
                return error_set(error, -errno, "Cannot limit the unpacker's memory");

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return error_set(error, -errno, "Cannot give up new privileges");
        r = drop_capabilities(flags);
        if (r < 0)
                return error_set(error, r, "Cannot drop capabilities");
        /* The sanitizers' run time needs far more. */
        if (!SANITIZED) {
                r = load_filter(flags);
                if (r < 0)
                        return error_set(error, r, "Cannot load the system call filter");
        }
        return 0;
}
