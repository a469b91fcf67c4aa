/* A machine without CAP_SYS_RESOURCE refuses what crun 1.8 asks for before it loads a device filter: an unlimited
 * RLIMIT_MEMLOCK, which kernels since 5.11 do not need any more. Preloaded into containerd's crun, so that it can be
 * measured there at all; rktlet leaves device filters to systemd. */

#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int setrlimit(__rlimit_resource_t what, const struct rlimit *limit);

int setrlimit(__rlimit_resource_t what, const struct rlimit *limit) {
        if (what == RLIMIT_MEMLOCK)
                return 0;
        return (int) syscall(SYS_prlimit64, 0, what, limit, NULL);
}
