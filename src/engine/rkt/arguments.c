#include "engine/rkt/arguments.h"

#include <linux/capability.h>

#include "basic/json-util.h"
#include "basic/log.h"
#include "basic/string-util.h"
#include "engine/native/capability.h"

/* rkt is from 2018 and refuses names of capabilities that it doesn't know. */
#define RKT_CAPABILITIES ((UINT64_C(1) << (CAP_AUDIT_READ + 1)) - 1)
/* A command line has room for 128 KiB in one argument and 2 MiB in all. What is larger stays with us alone. */
#define WORD_MAX           (128U * 1024U)
#define COMMAND_LINE_MAX   (1536U * 1024U)
#define METADATA_MAX       (64U * 1024U)
#define METADATA_TOTAL_MAX (512U * 1024U)

typedef runtime_v1_PodSandboxConfig_LabelsEntry Entry;

bool rkt_pod_has_host_network(const runtime_v1_PodSandboxConfig *config) {
        return config->has_linux && config->linux.has_security_context &&
               config->linux.security_context.has_namespace_options &&
               config->linux.security_context.namespace_options.network == runtime_v1_NamespaceMode_NODE;
}

/* What Linux takes of a command line: each word, and all of it with its share of pointers (execve(2)). */
static int check_size(char *const *argv, Error *error) {
        size_t total = 0;

        STRV_FOREACH(a, argv) {
                size_t size = strlen(*a) + 1;

                total += size + sizeof(char *);
                if (size > WORD_MAX || total > COMMAND_LINE_MAX)
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "'%.40s…' is too long to be told to rkt: %u bytes is the most for one variable, "
                                          "argument or mount, %u for all", *a, WORD_MAX, COMMAND_LINE_MAX);
        }
        return 0;
}

/* --- labels and annotations ------------------------------------------------------------------------------------- */

/* Of a key given twice the later counts; rkt would refuse it. */
static bool is_repeated(const Entry *map, size_t n, size_t i) {
        for (size_t k = i + 1; k < n; k++)
                if (streq(strempty(map[k].key), strempty(map[i].key)))
                        return true;
        return false;
}

static int add_map(char ***argv, const char *flag, const Entry *map, size_t n, size_t *total) {
        for (size_t i = 0; i < n; i++) {
                const char *key = strempty(map[i].key), *value = strempty(map[i].value);
                size_t size = strlen(key) + strlen(value);
                int r;

                if (isempty(key) || strchr(key, '=') || startswith(key, "k8s.io/reserved/") ||
                    startswith(key, "org.rktlet1/") || is_repeated(map, n, i))
                        continue;
                if (size > METADATA_MAX || *total + size > METADATA_TOTAL_MAX) {
                        log_debug("%s %.64s is too long for rkt's command line; it is kept beside rkt only", flag + 2, key);
                        continue;
                }
                *total += size;
                r = strv_extendf(argv, "%s=%s=%s", flag, key, value);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int add_reserved(char ***argv, const char *key, const char *value) {
        return isempty(value) ? 0 : strv_extendf(argv, "--user-annotation=%s=%s", key, value);
}

/* --- sandbox ----------------------------------------------------------------------------------------------------- */

static int add_each(char ***argv, const char *flag, char *const *l, size_t n) {
        int r = 0;

        for (size_t i = 0; i < n && r >= 0; i++)
                r = strv_extendf(argv, "%s=%s", flag, l[i]);
        return r;
}

static int add_dns(char ***argv, const runtime_v1_PodSandboxConfig *config) {
        const runtime_v1_DNSConfig *d = &config->dns_config;
        int r;

        if (!config->has_dns_config || d->servers_count + d->searches_count + d->options_count == 0)
                return strv_extend(argv, "--dns=host");
        r = add_each(argv, "--dns", d->servers, d->servers_count);
        if (r >= 0)
                r = add_each(argv, "--dns-search", d->searches, d->searches_count);
        return r >= 0 ? add_each(argv, "--dns-opt", d->options, d->options_count) : r;
}

static int add_ports(char ***argv, const runtime_v1_PodSandboxConfig *config) {
        for (size_t i = 0; i < config->port_mappings_count; i++) {
                const runtime_v1_PortMapping *p = &config->port_mappings[i];
                const char *protocol = p->protocol == runtime_v1_Protocol_UDP ? "udp" : "tcp";
                int r;

                if (p->host_port == 0)
                        continue;
                r = strv_extendf(argv, "--port=%s-%d-%d:%s:%d:%s%s%d", protocol, p->container_port, p->host_port,
                                 protocol, p->container_port, strempty(p->host_ip), isempty(p->host_ip) ? "" : ":",
                                 p->host_port);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int add_pod_metadata(char ***argv, const EnginePod *pod) {
        const runtime_v1_PodSandboxConfig *c = pod->config;
        size_t total = 0;
        char attempt[16];
        int r;

        (void) snprintf(attempt, sizeof attempt, "%u", c->metadata.attempt);
        r = add_reserved(argv, RKT_KEY_UID, c->metadata.uid);
        if (r >= 0)
                r = add_reserved(argv, RKT_KEY_NAME, c->metadata.name);
        if (r >= 0)
                r = add_reserved(argv, RKT_KEY_NAMESPACE, c->metadata.namespace);
        if (r >= 0)
                r = add_reserved(argv, RKT_KEY_ATTEMPT, attempt);
        if (r >= 0)
                r = add_reserved(argv, RKT_KEY_POD_ID, pod->id);
        if (r >= 0)
                r = add_reserved(argv, RKT_KEY_LOG_DIRECTORY, c->log_directory);
        if (r >= 0 && rkt_pod_has_host_network(c))
                r = add_reserved(argv, RKT_KEY_HOST_NETWORK, "true");
        if (r >= 0)
                r = add_map(argv, "--user-annotation", (const Entry *) c->annotations, c->annotations_count, &total);
        return r >= 0 ? add_map(argv, "--user-label", c->labels, c->labels_count, &total) : r;
}

int rkt_sandbox_argv(const Rkt *rkt, const EnginePod *pod, const char *uuid_file, const char *log_directory,
                     const char *network, char ***ret, Error *error) {
        const runtime_v1_PodSandboxConfig *c = pod->config;
        bool privileged = c->has_linux && c->linux.has_security_context && c->linux.security_context.privileged;
        _cleanup_strv_free_ char **argv = NULL;
        int r;

        r = rkt_argv_new(rkt, "app", privileged ? "all-run" : NULL, &argv);
        if (r >= 0)
                r = strv_extend(&argv, "sandbox");
        if (r >= 0)
                r = strv_extendf(&argv, "--uuid-file-save=%s", uuid_file);
        if (r >= 0)
                r = strv_extend(&argv, "--annotation=coreos.com/rkt/experiment/logmode=" RKT_LOG_MODE);
        if (r >= 0)
                r = strv_extendf(&argv, "--annotation=coreos.com/rkt/experiment/kubernetes-log-dir=%s", log_directory);
        if (r >= 0 && !isempty(rkt->stage1_name))
                r = strv_extendf(&argv, "--stage1-name=%s", rkt->stage1_name);
        if (r >= 0 && !isempty(c->hostname))
                r = strv_extendf(&argv, "--hostname=%s", c->hostname);
        if (r >= 0)
                r = add_dns(&argv, c);
        if (r >= 0)
                r = add_ports(&argv, c);
        if (r >= 0 && rkt_pod_has_host_network(c)) {
                r = strv_extend(&argv, "--net=host");
                if (r >= 0)
                        r = strv_extend(&argv, "--hosts-entry=host");
        } else if (r >= 0)
                r = strv_extendf(&argv, "--net=%s", network);
        if (r >= 0)
                r = add_pod_metadata(&argv, pod);
        if (r < 0)
                return error_oom(error);
        r = check_size(argv, error);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(argv);
        return 0;
}

/* --- app --------------------------------------------------------------------------------------------------------- */

static const runtime_v1_LinuxContainerSecurityContext *security_of(const EngineContainer *c) {
        static const runtime_v1_LinuxContainerSecurityContext none;

        return c->config->has_linux && c->config->linux.has_security_context ? &c->config->linux.security_context : &none;
}

/* "1000:1000" to numbers; -1 for a name. */
static void parse_user(const char *user, int64_t *ret_uid, int64_t *ret_gid) {
        char name[32];
        const char *colon = strchr(user, ':');
        uint32_t n;

        *ret_uid = -1;
        *ret_gid = -1;
        if (isempty(user) || streq(user, "root")) {
                *ret_uid = *ret_gid = 0;
                return;
        }
        (void) snprintf(name, sizeof name, "%.*s", (int) (colon ? colon - user : (ptrdiff_t) strlen(user)), user);
        if (parse_u32(name, &n) >= 0)
                *ret_uid = n;
        else if (streq(name, "root"))
                *ret_uid = 0;
        if (!colon)
                *ret_gid = 0;
        else if (parse_u32(colon + 1, &n) >= 0)
                *ret_gid = n;
}

void rkt_container_user(const EngineContainer *c, int64_t *ret_uid, int64_t *ret_gid) {
        const runtime_v1_LinuxContainerSecurityContext *s = security_of(c);

        parse_user(c->image ? strempty(c->image->config.user) : "", ret_uid, ret_gid);
        if (s->has_run_as_user) {
                *ret_uid = s->run_as_user.value;
                *ret_gid = 0;
        } else if (!isempty(s->run_as_username))
                parse_user(s->run_as_username, ret_uid, ret_gid);
        if (s->has_run_as_group)
                *ret_gid = s->run_as_group.value;
}

static int check_number(const char *what, int64_t n, Error *error) {
        return n >= 0 && n <= INT32_MAX ? 0
                                        : error_setf(error, GRPC_INVALID_ARGUMENT, "%s %lld is outside 0 to %d", what,
                                                     (long long) n, INT32_MAX);
}

/* A name may be a number as well, but none that is not a user's. */
static int check_name(const char *name, Error *error) {
        uint32_t n;

        if (isempty(name) || (name[0] != '-' && name[0] != '+' && strspn(name, "0123456789") < strlen(name)) ||
            (parse_u32(name, &n) >= 0 && n <= INT32_MAX))
                return 0;
        return error_setf(error, GRPC_INVALID_ARGUMENT, "run_as_username %.64s is no user: a number is from 0 to %d", name,
                          INT32_MAX);
}

static int check_user(const runtime_v1_LinuxContainerSecurityContext *s, Error *error) {
        int r;

        if (s->has_run_as_user && !isempty(s->run_as_username))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "run_as_user and run_as_username are both set: give one");
        if (s->has_run_as_group && !s->has_run_as_user && isempty(s->run_as_username))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "run_as_group is set without run_as_user");
        r = s->has_run_as_user ? check_number("run_as_user", s->run_as_user.value, error) : check_name(s->run_as_username, error);
        if (r >= 0 && s->has_run_as_group)
                r = check_number("run_as_group", s->run_as_group.value, error);
        for (size_t i = 0; i < s->supplemental_groups_count && r >= 0; i++)
                r = check_number("a supplemental group", s->supplemental_groups[i], error);
        return r;
}

static int check_command(const EngineContainer *c, Error *error) {
        const runtime_v1_ContainerConfig *config = c->config;

        if (!isempty(config->working_dir) && config->working_dir[0] != '/')
                return error_setf(error, GRPC_INVALID_ARGUMENT, "working_dir \"%.200s\" is not absolute",
                                  config->working_dir);
        if (config->command_count + config->args_count > 0 || !c->image || c->image->config.entrypoint ||
            c->image->config.cmd)
                return 0;
        return error_setf(error, GRPC_INVALID_ARGUMENT,
                          "no command: neither the container nor its image says what to execute");
}

static int add_user(char ***argv, const runtime_v1_LinuxContainerSecurityContext *s) {
        int r = 0;

        if (s->has_run_as_user)
                r = strv_extendf(argv, "--user=%lld", (long long) s->run_as_user.value);
        else if (!isempty(s->run_as_username))
                r = strv_extendf(argv, "--user=%s", s->run_as_username);
        if (r >= 0 && s->has_run_as_group)
                r = strv_extendf(argv, "--group=%lld", (long long) s->run_as_group.value);
        if (r >= 0 && s->supplemental_groups_count > 0) {
                _cleanup_(buffer_done) Buffer b = BUFFER_INIT;

                for (size_t i = 0; i < s->supplemental_groups_count && r >= 0; i++)
                        r = buffer_appendf(&b, "%s%lld", i > 0 ? "," : "", (long long) s->supplemental_groups[i]);
                if (r >= 0)
                        r = strv_extendf(argv, "--supplementary-gids=%s", b.data);
        }
        return r;
}

static int join_capabilities(uint64_t mask, char **ret) {
        _cleanup_json_ json_t *names = capability_mask_to_json(mask & RKT_CAPABILITIES);
        _cleanup_strv_free_ char **l = NULL;
        int r;

        if (!names)
                return -ENOMEM;
        r = json_to_strv(names, &l);
        if (r < 0)
                return r;
        *ret = strv_join(l, ",");
        return *ret ? 0 : -ENOMEM;
}

static int add_capabilities(char ***argv, const runtime_v1_LinuxContainerSecurityContext *s, Error *error) {
        _cleanup_free_ char *names = NULL;
        Capabilities c, defaults;
        int r;

        /* all-run: rkt leaves the capabilities alone. */
        if (s->privileged)
                return 0;
        r = capabilities_from_config(s, RKT_CAPABILITIES, &c, error);
        if (r >= 0)
                r = capabilities_from_config(NULL, RKT_CAPABILITIES, &defaults, error);
        if (r < 0)
                return r;
        /* There is no way to retain nothing, but to remove what it would have. */
        r = join_capabilities(c.bounding ? c.bounding : defaults.bounding, &names);
        if (r >= 0)
                r = strv_extendf(argv, "--caps-%s=%s", c.bounding ? "retain" : "remove", names);
        return r < 0 ? error_oom(error) : 0;
}

/* The list that rkt has by default is older than what a C library of today needs to start a thread: it is for those who
 * ask for it. */
static int add_seccomp(char ***argv, const runtime_v1_LinuxContainerSecurityContext *s) {
        if (s->privileged)
                return 0;
        if ((s->has_seccomp && s->seccomp.profile_type == runtime_v1_SecurityProfile_ProfileType_RuntimeDefault) ||
            streq(strempty(s->seccomp_profile_path), "runtime/default"))
                return strv_extend(argv, "--seccomp=mode=retain,@rkt/default-whitelist");
        return strv_extend(argv, "--seccomp=mode=retain,@appc.io/all");
}

static int add_resources(char ***argv, const runtime_v1_LinuxContainerConfig *l) {
        const runtime_v1_LinuxContainerResources *r = &l->resources;
        int k = 0;

        if (!l->has_resources)
                return 0;
        if (r->cpu_shares > 0)
                k = strv_extendf(argv, "--cpu-shares=%lld", (long long) r->cpu_shares);
        if (k >= 0 && r->cpu_quota > 0 && r->cpu_period > 0)
                k = strv_extendf(argv, "--cpu=%lldm", (long long) MAX(r->cpu_quota * 1000 / r->cpu_period, INT64_C(1)));
        if (k >= 0 && r->memory_limit_in_bytes > 0)
                k = strv_extendf(argv, "--memory=%lld", (long long) r->memory_limit_in_bytes);
        if (k >= 0 && r->oom_score_adj != 0)
                k = strv_extendf(argv, "--oom-score-adj=%lld", (long long) r->oom_score_adj);
        return k;
}

static int add_environment(char ***argv, const runtime_v1_ContainerConfig *config, Error *error) {
        for (size_t i = 0; i < config->envs_count; i++) {
                const char *key = strempty(config->envs[i].key);

                if (isempty(key) || strchr(key, '='))
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "a name in the environment of the container is empty, or has '=' in it");
                if (strv_extendf(argv, "--environment=%s=%s", key, strempty(config->envs[i].value)) < 0)
                        return error_oom(error);
        }
        return 0;
}

/* rkt takes commas for '&' and reads the rest as a URL's query. */
static int append_escaped(Buffer *b, const char *s) {
        int r = 0;

        for (; *s && r >= 0; s++)
                r = strchr("/._-:@~", *s) || ((unsigned char) *s < 0x80 && (*s | 0x20) >= 'a' && (*s | 0x20) <= 'z') ||
                                    (*s >= '0' && *s <= '9')
                            ? buffer_append(b, s, 1)
                            : buffer_appendf(b, "%%%02X", (unsigned) (unsigned char) *s);
        return r;
}

static size_t depth_of(const char *path) {
        size_t depth = 0;

        for (const char *p = strempty(path); *p; p++)
                depth += p[0] == '/' && p[1] && p[1] != '/';
        return depth;
}

static int add_mount(char ***argv, const runtime_v1_Mount *m, size_t i, Error *error) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        _cleanup_free_ char *source = NULL;
        const char *target = strempty(m->container_path);
        int r;

        if (isempty(target) || isempty(m->host_path))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "a mount has no container_path or no host_path");
        if (m->host_path[0] != '/')
                return error_setf(error, GRPC_INVALID_ARGUMENT, "host_path \"%.200s\" of a mount is not absolute",
                                  m->host_path);
        /* rkt would leave a half-made app behind. */
        source = realpath(m->host_path, NULL);
        if (!source)
                return error_set(error, -errno, "cannot mount %s: it must be there", m->host_path);
        r = buffer_appendf(&b, "--mnt-volume=name=volume-%zu,kind=host,source=", i);
        if (r >= 0)
                r = append_escaped(&b, source);
        if (r >= 0)
                r = buffer_appendf(&b, ",target=%s", target[0] == '/' ? "" : "/");
        if (r >= 0)
                r = append_escaped(&b, target);
        if (r >= 0)
                r = buffer_appendf(&b, ",readOnly=%s", m->readonly ? "true" : "false");
        if (r >= 0)
                r = strv_extend(argv, b.data);
        return r < 0 ? error_oom(error) : 0;
}

/* The outer ones first, whatever order they came in: else they would hide those within. */
static int add_mounts(char ***argv, const runtime_v1_ContainerConfig *config, Error *error) {
        _cleanup_free_ bool *done = calloc(config->mounts_count + 1U, sizeof *done);
        int r;

        if (!done)
                return error_oom(error);
        for (size_t n = 0; n < config->mounts_count; n++) {
                size_t next = config->mounts_count;

                for (size_t i = 0; i < config->mounts_count; i++)
                        if (!done[i] && (next == config->mounts_count ||
                                         depth_of(config->mounts[i].container_path) <
                                                         depth_of(config->mounts[next].container_path)))
                                next = i;
                done[next] = true;
                r = add_mount(argv, &config->mounts[next], n, error);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int add_command(char ***argv, const runtime_v1_ContainerConfig *config) {
        size_t first = config->command_count > 0 ? 1 : 0;
        int r = 0;

        if (config->command_count > 0)
                r = strv_extendf(argv, "--exec=%s", config->command[0]);
        if (r < 0 || config->command_count + config->args_count == first)
                return r;
        r = strv_extend(argv, "--");
        for (size_t i = first; i < config->command_count && r >= 0; i++)
                r = strv_extend(argv, config->command[i]);
        for (size_t i = 0; i < config->args_count && r >= 0; i++)
                r = strv_extend(argv, config->args[i]);
        return r >= 0 ? strv_extend(argv, "---") : r;
}

static int add_app_metadata(char ***argv, const EngineContainer *c) {
        const runtime_v1_ContainerConfig *config = c->config;
        size_t total = 0;
        char attempt[16];
        int r;

        (void) snprintf(attempt, sizeof attempt, "%u", config->metadata.attempt);
        r = add_reserved(argv, RKT_KEY_IMAGE, config->image.image);
        if (r >= 0)
                r = add_reserved(argv, RKT_KEY_CTR_NAME, config->metadata.name);
        if (r >= 0)
                r = add_reserved(argv, RKT_KEY_CTR_ATTEMPT, attempt);
        if (r >= 0)
                r = add_reserved(argv, RKT_KEY_LOG_PATH, config->log_path);
        if (r >= 0)
                r = add_map(argv, "--user-annotation", (const Entry *) config->annotations, config->annotations_count,
                            &total);
        return r >= 0 ? add_map(argv, "--user-label", (const Entry *) config->labels, config->labels_count, &total) : r;
}

static int add_streams(char ***argv, const runtime_v1_ContainerConfig *config) {
        int r;

        r = strv_extendf(argv, "--stdin=%s", config->tty ? "tty" : config->stdin ? "stream" : "null");
        if (r >= 0)
                r = strv_extendf(argv, "--stdout=%s", config->tty ? "tty" : "stream");
        return r >= 0 ? strv_extendf(argv, "--stderr=%s", config->tty ? "tty" : "stream") : r;
}

int rkt_add_argv(const Rkt *rkt, const EngineContainer *c, const char *uuid, const char *image_id, char ***ret,
                 Error *error) {
        const runtime_v1_LinuxContainerSecurityContext *s = security_of(c);
        _cleanup_strv_free_ char **argv = NULL;
        int r;

        r = check_user(s, error);
        if (r >= 0)
                r = check_command(c, error);
        if (r < 0)
                return r;
        r = rkt_argv_new(rkt, "app", s->privileged ? "all-run" : NULL, &argv);
        if (r >= 0)
                r = strv_extend(&argv, "add");
        if (r >= 0)
                r = strv_extend(&argv, uuid);
        if (r >= 0)
                r = strv_extend(&argv, image_id);
        if (r >= 0)
                r = strv_extendf(&argv, "--annotation=coreos.com/rkt/experiment/kubernetes-log-path=%s.log", c->id);
        if (r >= 0)
                r = strv_extendf(&argv, "--name=%s", c->id);
        if (r >= 0)
                r = add_streams(&argv, c->config);
        if (r >= 0)
                r = add_app_metadata(&argv, c);
        if (r < 0)
                return error_oom(error);
        r = add_environment(&argv, c->config, error);
        if (r < 0)
                return r;
        if (add_resources(&argv, &c->config->linux) < 0)
                return error_oom(error);
        r = add_capabilities(&argv, s, error);
        if (r < 0)
                return r;
        r = add_seccomp(&argv, s);
        if (r >= 0)
                r = add_user(&argv, s);
        if (r >= 0 && s->readonly_rootfs)
                r = strv_extend(&argv, "--readonly-rootfs=true");
        if (r >= 0 && !isempty(c->config->working_dir))
                r = strv_extendf(&argv, "--working-dir=%s", c->config->working_dir);
        if (r < 0)
                return error_oom(error);
        r = add_mounts(&argv, c->config, error);
        if (r < 0)
                return r;
        if (add_command(&argv, c->config) < 0)
                return error_oom(error);
        r = check_size(argv, error);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(argv);
        return 0;
}
