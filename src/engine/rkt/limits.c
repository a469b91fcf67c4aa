#include "engine/rkt/limits.h"

#include "basic/string-util.h"

static const RktLimitText texts[_RKT_LIMIT_MAX] = {
        [RKT_LIMIT_USERNS] = { "user namespaces", "rkt cannot map a pod's users as the kubelet asks for it." },
        [RKT_LIMIT_HOST_PID] = { "the host's PID namespace", "rkt boots each pod with a systemd as its PID 1." },
        [RKT_LIMIT_HOST_IPC] = { "the host's IPC namespace", "rkt's sandbox always makes one for the pod." },
        [RKT_LIMIT_TARGET_PID] = { "another container's PID namespace", "the apps of a rkt pod share one already." },
        [RKT_LIMIT_SYSCTLS] = { "sysctls", "rkt has no option for them." },
        [RKT_LIMIT_SCTP] = { "SCTP ports", "rkt forwards tcp and udp only." },
        [RKT_LIMIT_SELINUX] = { "SELinux options", "rkt labels whole pods, by its own choice." },
        [RKT_LIMIT_APPARMOR] = { "AppArmor profiles", "rkt does not know AppArmor." },
        [RKT_LIMIT_SECCOMP] = { "seccomp profiles of the node",
                                "rkt knows lists of system calls, not profiles in JSON." },
        [RKT_LIMIT_NO_NEW_PRIVS] = { "no_new_privs", "rkt app add has no option for it." },
        [RKT_LIMIT_AMBIENT] = { "ambient capabilities", "rkt app add only retains or removes capabilities." },
        [RKT_LIMIT_GROUPS] = { "the strict policy for supplemental groups",
                               "whether rkt looks into the image's groups can't be chosen." },
        [RKT_LIMIT_DEVICES] = { "devices", "rkt has no option for them." },
        [RKT_LIMIT_CDI] = { "CDI devices", "rkt is older than the Container Device Interface." },
        [RKT_LIMIT_PROPAGATION] = { "mount propagation", "rkt's volumes are private." },
        [RKT_LIMIT_RECURSIVE] = { "recursive read-only mounts", "rkt makes the topmost mount read-only." },
        [RKT_LIMIT_ID_MAPPED] = { "id-mapped mounts", "rkt is older than they are." },
        [RKT_LIMIT_IMAGE_VOLUMES] = { "image volumes", "rkt mounts directories and files of the host only." },
        [RKT_LIMIT_CPUSET] = { "cpusets", "rkt has no option for them." },
        [RKT_LIMIT_SWAP] = { "swap limits", "rkt has no option for them." },
        [RKT_LIMIT_HUGEPAGES] = { "limits of huge pages", "rkt has no option for them." },
        [RKT_LIMIT_UNIFIED] = { "cgroup v2 settings", "rkt has no option for them." },
        [RKT_LIMIT_DASHES] = { "an argument that is \"---\"", "rkt takes it for the end of the arguments." },
        [RKT_LIMIT_UPDATE] = { "changing a container's resources", "rkt sets them once, when it adds the app." },
        [RKT_LIMIT_CHECKPOINT] = { "checkpoints", "rkt can't write what a pod is at." },
        [RKT_LIMIT_EXEC_USER] = { "commands in a container that doesn't run as root",
                                  "rkt app exec runs them as root whatever the app's user is." },
        [RKT_LIMIT_EXEC_TTY] = { "commands with a terminal", "rkt app exec gives them none." },
        [RKT_LIMIT_TOKENS] = { "registry tokens", "rkt's configuration has room for a user and a password only." },
};

const RktLimitText *rkt_limit_text(RktLimit l) {
        return &texts[l];
}

int rkt_refuse(RktLimit l, Error *error) {
        return error_setf(error, GRPC_UNIMPLEMENTED, "%s: not with Engine=rkt. The reason: %s See rktlet-rkt(7)",
                          texts[l].what, texts[l].why);
}

typedef struct LimitCheck {
        bool wanted;
        RktLimit limit;
} LimitCheck;

static int refuse_first(const LimitCheck *checks, size_t n, Error *error) {
        for (size_t i = 0; i < n; i++)
                if (checks[i].wanted)
                        return rkt_refuse(checks[i].limit, error);
        return 0;
}

static bool wants_selinux(bool has, const runtime_v1_SELinuxOption *o) {
        return has && (!isempty(o->user) || !isempty(o->role) || !isempty(o->type) || !isempty(o->level));
}

static bool wants_localhost(bool has, const runtime_v1_SecurityProfile *p) {
        return has && p->profile_type == runtime_v1_SecurityProfile_ProfileType_Localhost;
}

static bool wants_namespace(bool has, const runtime_v1_NamespaceOption *o, runtime_v1_NamespaceMode mode, bool ipc) {
        return has && (ipc ? o->ipc : o->pid) == mode;
}

static bool wants_userns(bool has, const runtime_v1_NamespaceOption *o) {
        return has && o->has_userns_options && o->userns_options.mode == runtime_v1_NamespaceMode_POD;
}

/* Whatever is no mode at all. */
static int check_modes(bool has, const runtime_v1_NamespaceOption *o, bool pod, Error *error) {
        bool bad = o->network != runtime_v1_NamespaceMode_POD && o->network != runtime_v1_NamespaceMode_NODE;

        bad = bad || (o->ipc != runtime_v1_NamespaceMode_POD && o->ipc != runtime_v1_NamespaceMode_NODE) ||
              o->pid > (pod ? runtime_v1_NamespaceMode_NODE : runtime_v1_NamespaceMode_TARGET);
        if (has && bad)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "namespace modes (network %d, PID %d, IPC %d) are not those "
                                  "of a %s", (int) o->network, (int) o->pid, (int) o->ipc, pod ? "pod" : "container");
        return 0;
}

/* A line of resolv.conf each. */
static int check_lines(char *const *l, size_t n, Error *error) {
        for (size_t i = 0; i < n; i++)
                for (const char *c = l[i]; *c; c++)
                        if ((unsigned char) *c <= ' ' || *c == 0x7f || *c == ',')
                                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                                  "a blank, a comma or a control character is in dns_config");
        return 0;
}

int rkt_check_pod(const runtime_v1_PodSandboxConfig *config, Error *error) {
        const runtime_v1_LinuxPodSandboxConfig *l = &config->linux;
        const runtime_v1_LinuxSandboxSecurityContext *s = &l->security_context;
        const runtime_v1_NamespaceOption *o = &s->namespace_options;
        bool has = config->has_linux && l->has_security_context, has_o = has && s->has_namespace_options;
        const LimitCheck checks[] = {
                { wants_userns(has_o, o), RKT_LIMIT_USERNS },
                { wants_namespace(has_o, o, runtime_v1_NamespaceMode_NODE, /* ipc= */ false), RKT_LIMIT_HOST_PID },
                { wants_namespace(has_o, o, runtime_v1_NamespaceMode_TARGET, /* ipc= */ false), RKT_LIMIT_TARGET_PID },
                { wants_namespace(has_o, o, runtime_v1_NamespaceMode_NODE, /* ipc= */ true), RKT_LIMIT_HOST_IPC },
                { has && wants_selinux(s->has_selinux_options, &s->selinux_options), RKT_LIMIT_SELINUX },
                { has && wants_localhost(s->has_seccomp, &s->seccomp), RKT_LIMIT_SECCOMP },
                { has && wants_localhost(s->has_apparmor, &s->apparmor), RKT_LIMIT_APPARMOR },
                { config->has_linux && l->sysctls_count > 0, RKT_LIMIT_SYSCTLS },
        };

        int r;

        r = check_modes(has_o, o, /* pod= */ true, error);
        if (r >= 0 && config->has_dns_config)
                r = check_lines(config->dns_config.servers, config->dns_config.servers_count, error);
        if (r >= 0 && config->has_dns_config)
                r = check_lines(config->dns_config.searches, config->dns_config.searches_count, error);
        if (r >= 0 && config->has_dns_config)
                r = check_lines(config->dns_config.options, config->dns_config.options_count, error);
        if (r < 0)
                return r;
        for (size_t i = 0; i < config->port_mappings_count; i++)
                if (config->port_mappings[i].host_port > 0 &&
                    config->port_mappings[i].protocol == runtime_v1_Protocol_SCTP)
                        return rkt_refuse(RKT_LIMIT_SCTP, error);
        return refuse_first(checks, ELEMENTSOF(checks), error);
}

static bool wants_hugepages(const runtime_v1_LinuxContainerResources *r) {
        for (size_t i = 0; i < r->hugepage_limits_count; i++)
                if (r->hugepage_limits[i].limit > 0)
                        return true;
        return false;
}

/* The kubelet always asks for this one; a rkt pod's systemd has its own way with groups of processes. */
static bool wants_unified(const runtime_v1_LinuxContainerResources *r) {
        for (size_t i = 0; i < r->unified_count; i++)
                if (!streq(strempty(r->unified[i].key), "memory.oom.group"))
                        return true;
        return false;
}

static int check_resources(const runtime_v1_LinuxContainerResources *r, Error *error) {
        const LimitCheck checks[] = {
                { !isempty(r->cpuset_cpus) || !isempty(r->cpuset_mems), RKT_LIMIT_CPUSET },
                { r->memory_swap_limit_in_bytes > 0 && r->memory_swap_limit_in_bytes != r->memory_limit_in_bytes,
                  RKT_LIMIT_SWAP },
                { wants_hugepages(r), RKT_LIMIT_HUGEPAGES },
                { wants_unified(r), RKT_LIMIT_UNIFIED },
        };

        return refuse_first(checks, ELEMENTSOF(checks), error);
}

static int check_security(const runtime_v1_LinuxContainerSecurityContext *s, Error *error) {
        const runtime_v1_NamespaceOption *o = &s->namespace_options;
        bool has_o = s->has_namespace_options;
        const LimitCheck checks[] = {
                { wants_userns(has_o, o), RKT_LIMIT_USERNS },
                { wants_namespace(has_o, o, runtime_v1_NamespaceMode_NODE, /* ipc= */ false), RKT_LIMIT_HOST_PID },
                { wants_namespace(has_o, o, runtime_v1_NamespaceMode_TARGET, /* ipc= */ false), RKT_LIMIT_TARGET_PID },
                { wants_namespace(has_o, o, runtime_v1_NamespaceMode_NODE, /* ipc= */ true), RKT_LIMIT_HOST_IPC },
                { wants_selinux(s->has_selinux_options, &s->selinux_options), RKT_LIMIT_SELINUX },
                { wants_localhost(s->has_seccomp, &s->seccomp) || startswith(strempty(s->seccomp_profile_path), "localhost/"),
                  RKT_LIMIT_SECCOMP },
                { wants_localhost(s->has_apparmor, &s->apparmor) || startswith(strempty(s->apparmor_profile), "localhost/"),
                  RKT_LIMIT_APPARMOR },
                { s->no_new_privs && !s->privileged, RKT_LIMIT_NO_NEW_PRIVS },
                { s->has_capabilities && s->capabilities.add_ambient_capabilities_count > 0, RKT_LIMIT_AMBIENT },
                { s->supplemental_groups_policy == runtime_v1_SupplementalGroupsPolicy_Strict, RKT_LIMIT_GROUPS },
        };

        int r;

        if (s->supplemental_groups_policy > runtime_v1_SupplementalGroupsPolicy_Strict)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "supplemental_groups_policy %d is unknown",
                                  (int) s->supplemental_groups_policy);
        r = check_modes(has_o, o, /* pod= */ false, error);
        return r < 0 ? r : refuse_first(checks, ELEMENTSOF(checks), error);
}

static int check_mount(const runtime_v1_Mount *m, Error *error) {
        const LimitCheck checks[] = {
                { m->has_image, RKT_LIMIT_IMAGE_VOLUMES },
                { m->propagation != runtime_v1_MountPropagation_PROPAGATION_PRIVATE, RKT_LIMIT_PROPAGATION },
                { m->recursive_read_only, RKT_LIMIT_RECURSIVE },
                { m->uidMappings_count > 0 || m->gidMappings_count > 0, RKT_LIMIT_ID_MAPPED },
        };

        if (m->propagation > runtime_v1_MountPropagation_PROPAGATION_BIDIRECTIONAL)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "mount propagation %d is unknown", (int) m->propagation);
        return refuse_first(checks, ELEMENTSOF(checks), error);
}

int rkt_check_container(const runtime_v1_ContainerConfig *config, Error *error) {
        const runtime_v1_LinuxContainerConfig *l = &config->linux;
        bool privileged = config->has_linux && l->has_security_context && l->security_context.privileged;
        int r = 0;

        /* A privileged container is given all of the node's; with rkt it has what its host stage1 has. */
        if (config->devices_count > 0 && !privileged)
                return rkt_refuse(RKT_LIMIT_DEVICES, error);
        if (config->CDI_devices_count > 0)
                return rkt_refuse(RKT_LIMIT_CDI, error);
        for (size_t i = 0; i < config->command_count && r >= 0; i++)
                if (i > 0 && streq(config->command[i], "---"))
                        r = rkt_refuse(RKT_LIMIT_DASHES, error);
        for (size_t i = 0; i < config->args_count && r >= 0; i++)
                if (streq(config->args[i], "---"))
                        r = rkt_refuse(RKT_LIMIT_DASHES, error);
        for (size_t i = 0; i < config->mounts_count && r >= 0; i++)
                r = check_mount(&config->mounts[i], error);
        if (r >= 0 && config->has_linux && l->has_resources)
                r = check_resources(&l->resources, error);
        if (r >= 0 && config->has_linux && l->has_security_context)
                r = check_security(&l->security_context, error);
        return r;
}
