/* What a container may do: fourteen capabilities unless its security context says otherwise, as everywhere in the
 * field; nothing is inheritable unless it is ambient (CVE-2022-27650, CVE-2022-27652). */

#include "engine/native/capability.h"

#include <fcntl.h>
#include <linux/capability.h>

#include "basic/file-util.h"

#define PROC_STATUS_MAX (64U * 1024U)
#define BIT(n) (UINT64_C(1) << (n))

static const char *const names[] = {
        [CAP_CHOWN] = "CAP_CHOWN",
        [CAP_DAC_OVERRIDE] = "CAP_DAC_OVERRIDE",
        [CAP_DAC_READ_SEARCH] = "CAP_DAC_READ_SEARCH",
        [CAP_FOWNER] = "CAP_FOWNER",
        [CAP_FSETID] = "CAP_FSETID",
        [CAP_KILL] = "CAP_KILL",
        [CAP_SETGID] = "CAP_SETGID",
        [CAP_SETUID] = "CAP_SETUID",
        [CAP_SETPCAP] = "CAP_SETPCAP",
        [CAP_LINUX_IMMUTABLE] = "CAP_LINUX_IMMUTABLE",
        [CAP_NET_BIND_SERVICE] = "CAP_NET_BIND_SERVICE",
        [CAP_NET_BROADCAST] = "CAP_NET_BROADCAST",
        [CAP_NET_ADMIN] = "CAP_NET_ADMIN",
        [CAP_NET_RAW] = "CAP_NET_RAW",
        [CAP_IPC_LOCK] = "CAP_IPC_LOCK",
        [CAP_IPC_OWNER] = "CAP_IPC_OWNER",
        [CAP_SYS_MODULE] = "CAP_SYS_MODULE",
        [CAP_SYS_RAWIO] = "CAP_SYS_RAWIO",
        [CAP_SYS_CHROOT] = "CAP_SYS_CHROOT",
        [CAP_SYS_PTRACE] = "CAP_SYS_PTRACE",
        [CAP_SYS_PACCT] = "CAP_SYS_PACCT",
        [CAP_SYS_ADMIN] = "CAP_SYS_ADMIN",
        [CAP_SYS_BOOT] = "CAP_SYS_BOOT",
        [CAP_SYS_NICE] = "CAP_SYS_NICE",
        [CAP_SYS_RESOURCE] = "CAP_SYS_RESOURCE",
        [CAP_SYS_TIME] = "CAP_SYS_TIME",
        [CAP_SYS_TTY_CONFIG] = "CAP_SYS_TTY_CONFIG",
        [CAP_MKNOD] = "CAP_MKNOD",
        [CAP_LEASE] = "CAP_LEASE",
        [CAP_AUDIT_WRITE] = "CAP_AUDIT_WRITE",
        [CAP_AUDIT_CONTROL] = "CAP_AUDIT_CONTROL",
        [CAP_SETFCAP] = "CAP_SETFCAP",
        [CAP_MAC_OVERRIDE] = "CAP_MAC_OVERRIDE",
        [CAP_MAC_ADMIN] = "CAP_MAC_ADMIN",
        [CAP_SYSLOG] = "CAP_SYSLOG",
        [CAP_WAKE_ALARM] = "CAP_WAKE_ALARM",
        [CAP_BLOCK_SUSPEND] = "CAP_BLOCK_SUSPEND",
        [CAP_AUDIT_READ] = "CAP_AUDIT_READ",
        [CAP_PERFMON] = "CAP_PERFMON",
        [CAP_BPF] = "CAP_BPF",
        [CAP_CHECKPOINT_RESTORE] = "CAP_CHECKPOINT_RESTORE",
};

#define ALL (BIT(ELEMENTSOF(names)) - 1)
#define DEFAULTS                                                                                                       \
        (BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FSETID) | BIT(CAP_FOWNER) | BIT(CAP_MKNOD) |                 \
         BIT(CAP_NET_RAW) | BIT(CAP_SETGID) | BIT(CAP_SETUID) | BIT(CAP_SETFCAP) | BIT(CAP_SETPCAP) |                  \
         BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SYS_CHROOT) | BIT(CAP_KILL) | BIT(CAP_AUDIT_WRITE))

int capability_from_name(const char *name) {
        if (strncasecmp(name, "CAP_", STRLEN("CAP_")) == 0)
                name += STRLEN("CAP_");
        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (strcasecmp(name, names[i] + STRLEN("CAP_")) == 0)
                        return (int) i;
        return -EINVAL;
}

/* Adds up the names of a list; "ALL" sets *ret_all. */
static int mask_from_names(char *const *list, size_t n, const char *what, bool *ret_all, uint64_t *ret, Error *error) {
        uint64_t mask = 0;
        bool all = false;

        for (size_t i = 0; i < n; i++) {
                int c;

                if (strcasecmp(list[i], "ALL") == 0) {
                        all = true;
                        continue;
                }
                c = capability_from_name(list[i]);
                if (c < 0)
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "'%.64s' in the list of %s capabilities is no capability", list[i], what);
                mask |= BIT(c);
        }
        *ret_all = all;
        *ret = mask;
        return 0;
}

int capabilities_from_config(const runtime_v1_LinuxContainerSecurityContext *context, uint64_t available,
                             Capabilities *ret, Error *error) {
        uint64_t mask = DEFAULTS, add, drop, ambient;
        bool add_all, drop_all, ambient_all;
        const runtime_v1_Capability *c;
        int r;

        if (context && context->privileged) {
                *ret = (Capabilities) { .bounding = ALL & available };
                return 0;
        }
        if (!context || !context->has_capabilities) {
                *ret = (Capabilities) { .bounding = DEFAULTS & available };
                return 0;
        }
        c = &context->capabilities;
        r = mask_from_names(c->add_capabilities, c->add_capabilities_count, "added", &add_all, &add, error);
        if (r >= 0)
                r = mask_from_names(c->drop_capabilities, c->drop_capabilities_count, "dropped", &drop_all, &drop,
                                    error);
        if (r >= 0)
                r = mask_from_names(c->add_ambient_capabilities, c->add_ambient_capabilities_count, "ambient",
                                    &ambient_all, &ambient, error);
        if (r < 0)
                return r;

        /* "ALL" comes first, on both sides; what is named alone then corrects it. */
        if (add_all)
                mask = ALL;
        if (drop_all)
                mask = 0;
        mask = (mask | add) & ~drop;
        if (ambient_all)
                ambient = mask;
        *ret = (Capabilities) {
                .bounding = (mask | ambient) & available,
                .ambient = ambient & available,
        };
        return 0;
}

json_t *capability_mask_to_json(uint64_t mask) {
        json_t *a = json_array();

        for (size_t i = 0; a && i < ELEMENTSOF(names); i++)
                if ((mask & BIT(i)) && json_array_append_new(a, json_string(names[i])) < 0) {
                        json_decref(a);
                        return NULL;
                }
        return a;
}

json_t *capabilities_to_json(const Capabilities *c) {
        return json_pack("{s:o, s:o, s:o, s:o, s:o}",
                         "bounding", capability_mask_to_json(c->bounding),
                         "effective", capability_mask_to_json(c->bounding),
                         "permitted", capability_mask_to_json(c->bounding),
                         "inheritable", capability_mask_to_json(c->ambient),
                         "ambient", capability_mask_to_json(c->ambient));
}

int capability_bounding_set(pid_t pid, uint64_t *ret) {
        _cleanup_free_ char *text = NULL;
        char path[64], *line, *end;
        unsigned long long mask;
        int r;

        (void) snprintf(path, sizeof path, "/proc/%d/status", (int) pid);
        r = read_file(AT_FDCWD, path, PROC_STATUS_MAX, &text, NULL);
        if (r < 0)
                return r;
        line = strstr(text, "\nCapBnd:");
        if (!line)
                return -EBADMSG;
        errno = 0;
        mask = strtoull(line + STRLEN("\nCapBnd:"), &end, 16);
        if (errno > 0 || *end != '\n')
                return -EBADMSG;
        *ret = mask;
        return 0;
}
