/* The default filter allows every system call that libseccomp knows, but those that act on the whole machine or have
 * been a way out of containers too often; what libseccomp doesn't know answers ENOSYS, so that a newer call is not
 * open by accident. It is compiled here, once, and handed to crun ready-made: crun would compile it for every
 * container, which takes as long as all the rest of its work. Other runtimes get it as a profile in JSON. */

#include "engine/native/seccomp.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <openssl/evp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/string-util.h"

#define BPF_MAX (64U * 1024U)
#define FILTERS_MAX 64U
#define SYSCALL_NUMBERS 1024 /* numbers looked through; the highest of any architecture is below 500 */
#define NO_CAPABILITY (-1)
#define BIT(n) (UINT64_C(1) << (n))

/* Denied with EPERM unless the container has the capability (NO_CAPABILITY: always). */
typedef struct Denied {
        const char *name;
        int capability;
} Denied;

static const Denied denied[] = {
        /* mounts and namespaces */
        { "mount", CAP_SYS_ADMIN },          { "umount", CAP_SYS_ADMIN },
        { "umount2", CAP_SYS_ADMIN },        { "mount_setattr", CAP_SYS_ADMIN },
        { "move_mount", CAP_SYS_ADMIN },     { "open_tree", CAP_SYS_ADMIN },
        { "open_tree_attr", CAP_SYS_ADMIN }, { "fsopen", CAP_SYS_ADMIN },
        { "fsconfig", CAP_SYS_ADMIN },       { "fsmount", CAP_SYS_ADMIN },
        { "fspick", CAP_SYS_ADMIN },         { "pivot_root", CAP_SYS_ADMIN },
        { "setns", CAP_SYS_ADMIN },          { "unshare", CAP_SYS_ADMIN },
        /* the machine */
        { "swapon", CAP_SYS_ADMIN },         { "swapoff", CAP_SYS_ADMIN },
        { "quotactl", CAP_SYS_ADMIN },       { "quotactl_fd", CAP_SYS_ADMIN },
        { "sethostname", CAP_SYS_ADMIN },    { "setdomainname", CAP_SYS_ADMIN },
        { "lookup_dcookie", CAP_SYS_ADMIN }, { "fanotify_init", CAP_SYS_ADMIN },
        { "syslog", CAP_SYSLOG },            { "acct", CAP_SYS_PACCT },
        { "vhangup", CAP_SYS_TTY_CONFIG },   { "reboot", CAP_SYS_BOOT },
        { "kexec_load", CAP_SYS_BOOT },      { "kexec_file_load", CAP_SYS_BOOT },
        { "init_module", CAP_SYS_MODULE },   { "finit_module", CAP_SYS_MODULE },
        { "delete_module", CAP_SYS_MODULE }, { "iopl", CAP_SYS_RAWIO },
        { "ioperm", CAP_SYS_RAWIO },         { "settimeofday", CAP_SYS_TIME },
        { "stime", CAP_SYS_TIME },           { "clock_settime", CAP_SYS_TIME },
        { "clock_settime64", CAP_SYS_TIME },
        /* other processes, files by handle, memory of NUMA nodes */
        { "process_vm_readv", CAP_SYS_PTRACE },  { "process_vm_writev", CAP_SYS_PTRACE },
        { "kcmp", CAP_SYS_PTRACE },              { "pidfd_getfd", CAP_SYS_PTRACE },
        { "open_by_handle_at", CAP_DAC_READ_SEARCH },
        { "mbind", CAP_SYS_NICE },               { "set_mempolicy", CAP_SYS_NICE },
        { "get_mempolicy", CAP_SYS_NICE },       { "set_mempolicy_home_node", CAP_SYS_NICE },
        { "migrate_pages", CAP_SYS_NICE },       { "move_pages", CAP_SYS_NICE },
        /* large and often broken parts of the kernel */
        { "bpf", CAP_BPF },                      { "perf_event_open", CAP_PERFMON },
        { "userfaultfd", NO_CAPABILITY },        { "io_uring_setup", NO_CAPABILITY },
        { "io_uring_enter", NO_CAPABILITY },     { "io_uring_register", NO_CAPABILITY },
        /* keyrings know no namespaces */
        { "add_key", NO_CAPABILITY },            { "keyctl", NO_CAPABILITY },
        { "request_key", NO_CAPABILITY },
        /* of the past */
        { "create_module", NO_CAPABILITY },      { "query_module", NO_CAPABILITY },
        { "get_kernel_syms", NO_CAPABILITY },    { "nfsservctl", NO_CAPABILITY },
        { "_sysctl", NO_CAPABILITY },            { "sysfs", NO_CAPABILITY },
        { "ustat", NO_CAPABILITY },              { "uselib", NO_CAPABILITY },
        { "vm86", NO_CAPABILITY },               { "vm86old", NO_CAPABILITY },
        { "afs_syscall", NO_CAPABILITY },        { "bdflush", NO_CAPABILITY },
        { "security", NO_CAPABILITY },           { "tuxcall", NO_CAPABILITY },
        { "vserver", NO_CAPABILITY },            { "getpmsg", NO_CAPABILITY },
        { "putpmsg", NO_CAPABILITY },
};

/* CAP_SYS_ADMIN has always included these two. */
static bool is_denied(const Denied *d, uint64_t capabilities) {
        if (d->capability == NO_CAPABILITY)
                return true;
        if ((d->capability == CAP_BPF || d->capability == CAP_PERFMON || d->capability == CAP_SYSLOG) &&
            (capabilities & BIT(CAP_SYS_ADMIN)))
                return false;
        return !(capabilities & BIT(d->capability));
}

static const Denied *find_denied(const char *name) {
        for (size_t i = 0; i < ELEMENTSOF(denied); i++)
                if (streq(denied[i].name, name))
                        return &denied[i];
        return NULL;
}

#define NAMESPACE_FLAGS 0x7E020000U /* CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET */
#if defined(__s390__) || defined(__s390x__)
#define CLONE_FLAGS_ARGUMENT 1
#else
#define CLONE_FLAGS_ARGUMENT 0
#endif

/* Calls of which some arguments are allowed; of those given more than once each. */
static const struct {
        const char *name;
        int capability; /* with it any argument is allowed */
        struct scmp_arg_cmp argument;
} special[] = {
        { "clone", CAP_SYS_ADMIN, { CLONE_FLAGS_ARGUMENT, SCMP_CMP_MASKED_EQ, NAMESPACE_FLAGS, 0 } },
        { "personality", NO_CAPABILITY, { 0, SCMP_CMP_EQ, 0x0, 0 } },
        { "personality", NO_CAPABILITY, { 0, SCMP_CMP_EQ, 0x8, 0 } },
        { "personality", NO_CAPABILITY, { 0, SCMP_CMP_EQ, 0x20000, 0 } },
        { "personality", NO_CAPABILITY, { 0, SCMP_CMP_EQ, 0x20008, 0 } },
        { "personality", NO_CAPABILITY, { 0, SCMP_CMP_EQ, 0xffffffff, 0 } },
        /* Hypervisors know no namespaces. */
        { "socket", NO_CAPABILITY, { 0, SCMP_CMP_NE, AF_VSOCK, 0 } },
};

static bool is_special(size_t i, const char *name, uint64_t capabilities) {
        return streq(special[i].name, name) &&
               (special[i].capability == NO_CAPABILITY || !(capabilities & BIT(special[i].capability)));
}

/* Its flags are in memory, where no filter sees them: it answers ENOSYS, and C libraries go back to clone(). */
static bool is_unknown(const char *name, uint64_t capabilities) {
        return streq(name, "clone3") && !(capabilities & BIT(CAP_SYS_ADMIN));
}

/* 1: this was one of them. */
static int add_special(scmp_filter_ctx ctx, const char *name, int number, uint64_t capabilities) {
        bool found = false;
        int r;

        if (is_unknown(name, capabilities))
                return 1;
        for (size_t i = 0; i < ELEMENTSOF(special); i++)
                if (is_special(i, name, capabilities)) {
                        found = true;
                        r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, number, 1, &special[i].argument);
                        if (r < 0)
                                return r;
                }
        return found;
}

static int add_call(scmp_filter_ctx ctx, const char *name, uint64_t capabilities) {
        int number = seccomp_syscall_resolve_name(name), r;
        const Denied *d = find_denied(name);

        if (number == __NR_SCMP_ERROR)
                return 0;
        if (d && is_denied(d, capabilities))
                r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), number, 0);
        else {
                r = add_special(ctx, name, number, capabilities);
                if (r == 0)
                        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, number, 0);
        }
        /* The second architecture gives most names once more. */
        return r == -EEXIST || r == -EDOM ? 0 : MIN(r, 0);
}

static int add_calls_of(scmp_filter_ctx ctx, uint32_t arch, uint64_t capabilities) {
        int r = 0;

        for (int i = 0; r >= 0 && i < SYSCALL_NUMBERS; i++) {
                _cleanup_free_ char *name = seccomp_syscall_resolve_num_arch(arch, i);

                if (name)
                        r = add_call(ctx, name, capabilities);
        }
        return r;
}

static void seccomp_releasep(scmp_filter_ctx *ctx) {
        if (*ctx)
                seccomp_release(*ctx);
}

static int compile(uint64_t capabilities, char **ret, size_t *ret_size) {
        _cleanup_(seccomp_releasep) scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
        _cleanup_close_ int fd = -1;
        uint32_t second = 0;
        int r;

        if (!ctx)
                return -ENOMEM;
        if (seccomp_arch_native() == SCMP_ARCH_X86_64)
                second = SCMP_ARCH_X86;
        else if (seccomp_arch_native() == SCMP_ARCH_AARCH64)
                second = SCMP_ARCH_ARM;
        if (second) {
                r = seccomp_arch_add(ctx, second);
                if (r < 0)
                        return r;
        }
        r = add_calls_of(ctx, seccomp_arch_native(), capabilities);
        if (r >= 0 && second)
                r = add_calls_of(ctx, second, capabilities);
        if (r < 0)
                return r;

        fd = memfd_create("rktlet-seccomp", MFD_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = seccomp_export_bpf(ctx, fd);
        if (r < 0)
                return r;
        if (lseek(fd, 0, SEEK_SET) < 0)
                return -errno;
        return read_fd(fd, BPF_MAX, ret, ret_size);
}

int seccomp_default_filter(uint64_t capabilities, const char **ret, Error *error) {
        static struct {
                uint64_t capabilities;
                char *filter;
        } made[FILTERS_MAX];
        static size_t n_made;
        _cleanup_free_ char *bpf = NULL, *text = NULL;
        uint64_t key = 0;
        size_t size;
        int r;

        for (size_t i = 0; i < ELEMENTSOF(denied); i++)
                if (!is_denied(&denied[i], capabilities))
                        key |= BIT(denied[i].capability);
        for (size_t i = 0; i < n_made; i++)
                if (made[i].capabilities == key) {
                        *ret = made[i].filter;
                        return 0;
                }

        r = compile(key, &bpf, &size);
        if (r < 0)
                return error_set(error, r, "cannot make the default seccomp filter");
        text = malloc(4 * ((size + 2) / 3) + 1);
        if (!text)
                return error_oom(error);
        (void) EVP_EncodeBlock((unsigned char *) text, (const unsigned char *) bpf, (int) size);
        /* Whoever varies capabilities more than anybody does gets them made anew. */
        if (n_made == ELEMENTSOF(made))
                free(made[--n_made].filter);
        made[n_made].capabilities = key;
        made[n_made].filter = TAKE_PTR(text);
        *ret = made[n_made++].filter;
        return 0;
}

/* --- the same as JSON, for runtimes that take no filter that is ready ---------------------------------------------- */

static json_t *rule_new(json_t *names, const char *action) {
        return json_pack("{s:o, s:s}", "names", names, "action", action);
}

static int add_special_rules(json_t *rules, const char *name, uint64_t capabilities) {
        bool found = false;

        for (size_t i = 0; i < ELEMENTSOF(special); i++) {
                const struct scmp_arg_cmp *a = &special[i].argument;

                if (!is_special(i, name, capabilities))
                        continue;
                found = true;
                if (json_array_append_new(rules,
                                          json_pack("{s:[s], s:s, s:[{s:I, s:I, s:I, s:s}]}", "names", name, "action",
                                                    "SCMP_ACT_ALLOW", "args", "index", (json_int_t) a->arg, "value",
                                                    (json_int_t) a->datum_a, "valueTwo", (json_int_t) a->datum_b, "op",
                                                    a->op == SCMP_CMP_EQ   ? "SCMP_CMP_EQ"
                                                    : a->op == SCMP_CMP_NE ? "SCMP_CMP_NE"
                                                                           : "SCMP_CMP_MASKED_EQ")) < 0)
                        return -ENOMEM;
        }
        return found;
}

/* known has the names that were met before: the second architecture gives most once more. */
static int add_names_of(uint32_t arch, uint64_t capabilities, json_t *known, json_t *rules, json_t *allowed,
                        json_t *refused) {
        for (int i = 0; i < SYSCALL_NUMBERS; i++) {
                _cleanup_free_ char *name = seccomp_syscall_resolve_num_arch(arch, i);
                const Denied *d = name ? find_denied(name) : NULL;
                int r = 0;

                if (!name || json_object_get(known, name) || is_unknown(name, capabilities))
                        continue;
                if (json_object_set_new(known, name, json_true()) < 0)
                        return -ENOMEM;
                if (d && is_denied(d, capabilities)) {
                        if (json_array_append_new(refused, json_string(name)) < 0)
                                return -ENOMEM;
                        continue;
                }
                r = add_special_rules(rules, name, capabilities);
                if (r < 0 || (r == 0 && json_array_append_new(allowed, json_string(name)) < 0))
                        return -ENOMEM;
        }
        return 0;
}

int seccomp_default_profile(uint64_t capabilities, json_t **ret) {
        _cleanup_json_ json_t *known = json_object(), *rules = json_array(), *allowed = json_array(),
                              *refused = json_array(), *architectures = json_array(), *rule = NULL;
        const uint32_t native = seccomp_arch_native(), second = native == SCMP_ARCH_X86_64    ? SCMP_ARCH_X86
                                                                : native == SCMP_ARCH_AARCH64 ? SCMP_ARCH_ARM
                                                                                              : 0;
        const char *const names[] = {
                native == SCMP_ARCH_X86_64 ? "SCMP_ARCH_X86_64" : native == SCMP_ARCH_AARCH64 ? "SCMP_ARCH_AARCH64" : NULL,
                second == SCMP_ARCH_X86 ? "SCMP_ARCH_X86" : second == SCMP_ARCH_ARM ? "SCMP_ARCH_ARM" : NULL,
        };
        int r;

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (names[i] && json_array_append_new(architectures, json_string(names[i])) < 0)
                        return -ENOMEM;
        r = add_names_of(native, capabilities, known, rules, allowed, refused);
        if (r >= 0 && second)
                r = add_names_of(second, capabilities, known, rules, allowed, refused);
        if (r < 0)
                return r;
        rule = rule_new(json_incref(refused), "SCMP_ACT_ERRNO");
        if (json_object_set_new(rule, "errnoRet", json_integer(EPERM)) < 0 || json_array_append(rules, rule) < 0 ||
            json_array_append_new(rules, rule_new(json_incref(allowed), "SCMP_ACT_ALLOW")) < 0)
                return -ENOMEM;
        /* No architectures named: the native one alone. */
        *ret = json_pack("{s:s, s:i, s:O, s:O}", "defaultAction", "SCMP_ACT_ERRNO", "defaultErrnoRet", ENOSYS,
                         "architectures", architectures, "syscalls", rules);
        return *ret ? 0 : -ENOMEM;
}

static int add_default(json_t *config, uint64_t capabilities, bool as_profile, Error *error) {
        const char *filter;
        json_t *profile;
        int r;

        if (as_profile) {
                if (seccomp_default_profile(capabilities, &profile) < 0 ||
                    json_object_set_new(json_object_get(config, "linux"), "seccomp", profile) < 0)
                        return error_oom(error);
                return 0;
        }
        r = seccomp_default_filter(capabilities, &filter, error);
        if (r < 0)
                return r;
        if (json_object_set_new(config, "annotations", json_pack("{s:s}", "run.oci.seccomp_bpf_data", filter)) < 0)
                return error_oom(error);
        return 0;
}

static int add_localhost(json_t *config, const char *path, Error *error) {
        _cleanup_free_ char *text = NULL;
        json_t *profile = NULL;
        size_t size;
        int r;

        if (isempty(path) || path[0] != '/')
                return error_setf(error, GRPC_INVALID_ARGUMENT, "the path of the seccomp profile '%s' is not absolute",
                                  strempty(path));
        r = read_file(AT_FDCWD, path, SECCOMP_PROFILE_MAX, &text, &size);
        if (r < 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "cannot read the seccomp profile %s: %s", path,
                                  strerror(-r));
        r = json_parse(text, size, &profile, error);
        if (r < 0)
                return error_prefix(error, r, "seccomp profile %s", path);
        if (!json_is_object(profile) || !json_get_string(profile, "defaultAction")) {
                json_decref(profile);
                return error_setf(error, GRPC_INVALID_ARGUMENT, "seccomp profile %s has no defaultAction", path);
        }
        if (json_object_set_new(json_object_get(config, "linux"), "seccomp", profile) < 0)
                return error_oom(error);
        return 0;
}

/* The field that went before security profiles. */
static int add_by_old_name(json_t *config, const char *name, uint64_t capabilities, bool as_profile, Error *error) {
        const char *path;

        if (isempty(name) || streq(name, "unconfined"))
                return 0;
        if (streq(name, "runtime/default") || streq(name, "docker/default"))
                return add_default(config, capabilities, as_profile, error);
        path = startswith(name, "localhost/");
        if (!path)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "seccomp_profile_path '%.64s' is unknown", name);
        return add_localhost(config, path, error);
}

int seccomp_add_to_config(const runtime_v1_LinuxContainerSecurityContext *context, uint64_t capabilities,
                          bool as_profile, json_t *config, Error *error) {
        if (!context || context->privileged)
                return 0;
        if (!context->has_seccomp)
                return add_by_old_name(config, context->seccomp_profile_path, capabilities, as_profile, error);
        switch (context->seccomp.profile_type) {
        case runtime_v1_SecurityProfile_ProfileType_RuntimeDefault:
                return add_default(config, capabilities, as_profile, error);
        case runtime_v1_SecurityProfile_ProfileType_Unconfined:
                return 0;
        case runtime_v1_SecurityProfile_ProfileType_Localhost:
                return add_localhost(config, context->seccomp.localhost_ref, error);
        }
        return error_setf(error, GRPC_INVALID_ARGUMENT, "seccomp profile type %d is unknown",
                          (int) context->seccomp.profile_type);
}
