#include "cri/describe.h"

#include <signal.h>

#include "basic/string-util.h"
#include "image/reference.h"

#define SAME_ENTRY(a, b)                                                                                              \
        _Static_assert(sizeof(a) == sizeof(b) && offsetof(a, key) == offsetof(b, key) &&                              \
                                       offsetof(a, value) == offsetof(b, value),                                      \
                       "map entries differ")
typedef runtime_v1_PodSandboxConfig_LabelsEntry Entry;
SAME_ENTRY(Entry, runtime_v1_PodSandboxConfig_AnnotationsEntry);
SAME_ENTRY(Entry, runtime_v1_PodSandbox_LabelsEntry);
SAME_ENTRY(Entry, runtime_v1_PodSandbox_AnnotationsEntry);
SAME_ENTRY(Entry, runtime_v1_PodSandboxStatus_LabelsEntry);
SAME_ENTRY(Entry, runtime_v1_PodSandboxStatus_AnnotationsEntry);
SAME_ENTRY(Entry, runtime_v1_PodSandboxFilter_LabelSelectorEntry);
SAME_ENTRY(Entry, runtime_v1_ContainerConfig_LabelsEntry);
SAME_ENTRY(Entry, runtime_v1_ContainerConfig_AnnotationsEntry);
SAME_ENTRY(Entry, runtime_v1_Container_LabelsEntry);
SAME_ENTRY(Entry, runtime_v1_Container_AnnotationsEntry);
SAME_ENTRY(Entry, runtime_v1_ContainerStatus_LabelsEntry);
SAME_ENTRY(Entry, runtime_v1_ContainerStatus_AnnotationsEntry);
SAME_ENTRY(Entry, runtime_v1_ContainerFilter_LabelSelectorEntry);
SAME_ENTRY(Entry, runtime_v1_ContainerAttributes_LabelsEntry);
SAME_ENTRY(Entry, runtime_v1_ContainerAttributes_AnnotationsEntry);
SAME_ENTRY(Entry, runtime_v1_PodSandboxAttributes_LabelsEntry);
SAME_ENTRY(Entry, runtime_v1_PodSandboxAttributes_AnnotationsEntry);
SAME_ENTRY(Entry, runtime_v1_ContainerStatsFilter_LabelSelectorEntry);
SAME_ENTRY(Entry, runtime_v1_PodSandboxStatsFilter_LabelSelectorEntry);

/* Of a key given twice the later one counts, as in any protobuf map. */
static const char *map_get(const Entry *map, size_t n, const char *key) {
        for (size_t i = n; i-- > 0;)
                if (streq(strempty(map[i].key), key))
                        return strempty(map[i].value);
        return NULL;
}

static bool labels_match(const Entry *labels, size_t n_labels, const Entry *selector, size_t n_selector) {
        for (size_t i = 0; i < n_selector; i++) {
                const char *value = map_get(labels, n_labels, strempty(selector[i].key));

                if (!value || !streq(value, strempty(selector[i].value)))
                        return false;
        }
        return true;
}

static bool id_matches(const char *id, const char *prefix) {
        return isempty(prefix) || startswith(id, prefix);
}

static runtime_v1_PodSandboxState pod_state(const Pod *p) {
        return p->phase == POD_READY ? runtime_v1_PodSandboxState_SANDBOX_READY
                                     : runtime_v1_PodSandboxState_SANDBOX_NOTREADY;
}

static runtime_v1_ContainerState container_state(const Container *k) {
        switch (k->phase) {
        case CONTAINER_CREATING:
        case CONTAINER_CREATED:
                return runtime_v1_ContainerState_CONTAINER_CREATED;
        case CONTAINER_RUNNING:
                return runtime_v1_ContainerState_CONTAINER_RUNNING;
        case CONTAINER_EXITED:
                return runtime_v1_ContainerState_CONTAINER_EXITED;
        default:
                return runtime_v1_ContainerState_CONTAINER_UNKNOWN;
        }
}

bool pod_matches(const Pod *p, const runtime_v1_PodSandboxFilter *filter) {
        const runtime_v1_PodSandboxConfig *config = &p->request.config;

        if (p->phase == POD_STARTING)
                return false;
        if (!filter)
                return true;
        return id_matches(p->id, filter->id) && (!filter->has_state || filter->state.state == pod_state(p)) &&
               labels_match(config->labels, config->labels_count, (const Entry *) filter->label_selector,
                            filter->label_selector_count);
}

bool container_matches(const Container *k, const runtime_v1_ContainerFilter *filter) {
        const runtime_v1_ContainerConfig *config = &k->request.config;

        if (k->phase == CONTAINER_CREATING)
                return false;
        if (!filter)
                return true;
        return id_matches(k->id, filter->id) && id_matches(k->pod->id, filter->pod_sandbox_id) &&
               (!filter->has_state || filter->state.state == container_state(k)) &&
               labels_match((const Entry *) config->labels, config->labels_count,
                            (const Entry *) filter->label_selector, filter->label_selector_count);
}

static int64_t nsec(uint64_t usec) {
        return (int64_t) (usec * NSEC_PER_USEC);
}

void pod_describe(const Pod *p, runtime_v1_PodSandbox *ret) {
        const runtime_v1_PodSandboxConfig *config = &p->request.config;

        *ret = (runtime_v1_PodSandbox) {
                .id = (char *) p->id,
                .has_metadata = true,
                .metadata = config->metadata,
                .state = pod_state(p),
                .created_at = nsec(p->created_usec),
                .runtime_handler = p->request.runtime_handler,
        };
        LEND_MAP(ret, config, labels);
        LEND_MAP(ret, config, annotations);
}

int pod_describe_status(const Pod *p, Arena *arena, runtime_v1_PodSandboxStatus *ret) {
        const runtime_v1_PodSandboxConfig *config = &p->request.config;
        size_t n = strv_length(p->ips);
        runtime_v1_PodIP *more = NULL;

        if (n > 1) {
                more = arena_new(arena, runtime_v1_PodIP, n - 1);
                if (!more)
                        return -ENOMEM;
                for (size_t i = 1; i < n; i++)
                        more[i - 1].ip = p->ips[i];
        }
        *ret = (runtime_v1_PodSandboxStatus) {
                .id = (char *) p->id,
                .has_metadata = true,
                .metadata = config->metadata,
                .state = pod_state(p),
                .created_at = nsec(p->created_usec),
                /* There without addresses with the host's network: the kubelet wants the message itself. */
                .has_network = true,
                .network.ip = n > 0 ? p->ips[0] : NULL,
                .network.additional_ips = more,
                .network.additional_ips_count = (pb_size_t) (n > 1 ? n - 1 : 0),
                .has_linux = true,
                .linux.has_namespaces = true,
                .linux.namespaces.has_options = true,
                .runtime_handler = p->request.runtime_handler,
        };
        /* What was asked for; the CRI's zero values are the defaults. */
        if (config->has_linux && config->linux.has_security_context &&
            config->linux.security_context.has_namespace_options)
                ret->linux.namespaces.options = config->linux.security_context.namespace_options;
        LEND_MAP(ret, config, labels);
        LEND_MAP(ret, config, annotations);
        return 0;
}

void container_describe(const Container *k, runtime_v1_Container *ret) {
        const runtime_v1_ContainerConfig *config = &k->request.config;

        *ret = (runtime_v1_Container) {
                .id = (char *) k->id,
                .pod_sandbox_id = k->pod->id,
                .has_metadata = true,
                .metadata = config->metadata,
                .has_image = config->has_image,
                .image = config->image,
                .image_ref = k->image_id,
                .state = container_state(k),
                .created_at = nsec(k->created_usec),
                .image_id = k->image_id,
        };
        LEND_MAP(ret, config, labels);
        LEND_MAP(ret, config, annotations);
}

/* The kubelet asks for images by ID; people want to read a name. The one the pod's author wrote is the best, if the
 * image has it. Owned by arena or image, NULL when there is no name. */
static const char *image_name(const Container *k, Arena *arena) {
        _cleanup_image_reference_ ImageReference reference = {};
        const char *wanted = k->request.config.image.user_specified_image;
        const char *name = NULL;

        if (!k->image)
                return NULL;
        if (!isempty(wanted) && image_reference_parse(wanted, &reference, NULL) >= 0 && reference.tag) {
                name = arena_printf(arena, "%s:%s", reference.name, reference.tag);
                if (name && strv_contains(k->image->repo_tags, name))
                        return name;
        }
        if (k->image->repo_tags && k->image->repo_tags[0])
                return k->image->repo_tags[0];
        return k->image->repo_digests ? k->image->repo_digests[0] : NULL;
}

static bool is_image_id(const char *s) {
        return startswith(s, "sha256:") || (strlen(s) == 64 && is_hex(s));
}

/* As they were asked for, and with the images that were found. */
static int describe_mounts(const Container *k, Arena *arena, runtime_v1_ContainerStatus *ret) {
        const runtime_v1_ContainerConfig *config = &k->request.config;
        char *const *id = k->volume_images;

        ret->mounts = config->mounts;
        ret->mounts_count = config->mounts_count;
        if (!id || !*id)
                return 0;
        ret->mounts = arena_new(arena, runtime_v1_Mount, config->mounts_count);
        if (!ret->mounts)
                return -ENOMEM;
        for (size_t i = 0; i < config->mounts_count; i++) {
                ret->mounts[i] = config->mounts[i];
                if (ret->mounts[i].has_image && !isempty(ret->mounts[i].image.image) && *id)
                        ret->mounts[i].image.image_ref = *id++;
        }
        return 0;
}

int container_describe_status(const Container *k, Arena *arena, runtime_v1_ContainerStatus *ret) {
        const runtime_v1_ContainerConfig *config = &k->request.config;

        *ret = (runtime_v1_ContainerStatus) {
                .id = (char *) k->id,
                .has_metadata = true,
                .metadata = config->metadata,
                .state = container_state(k),
                .created_at = nsec(k->created_usec),
                .started_at = nsec(k->started_usec),
                .finished_at = nsec(k->finished_usec),
                .exit_code = k->exit_code,
                .has_image = config->has_image,
                .image = config->image,
                .image_ref = k->image_id,
                .reason = k->reason,
                .message = k->message,
                .log_path = k->log_path,
                .image_id = k->image_id,
                .stop_signal = signal_to_cri(k->info.stop_signal),
        };
        if (describe_mounts(k, arena, ret) < 0)
                return -ENOMEM;
        if (is_image_id(strempty(config->image.image))) {
                const char *name = image_name(k, arena);

                if (name)
                        ret->image.image = (char *) name;
        }
        if (config->has_linux && config->linux.has_resources) {
                ret->has_resources = true;
                ret->resources.has_linux = true;
                ret->resources.linux = config->linux.resources;
        }
        if (container_read_limits(k, &ret->resources.linux))
                ret->has_resources = ret->resources.has_linux = true;
        if (k->info.uid >= 0) {
                runtime_v1_LinuxContainerUser *user = &ret->user.linux;

                ret->has_user = true;
                ret->user.has_linux = true;
                user->uid = k->info.uid;
                user->gid = MAX(k->info.gid, INT64_C(0));
                user->supplemental_groups = k->info.supplementary_groups;
                user->supplemental_groups_count =
                                (pb_size_t) MIN(k->info.n_supplementary_groups, (size_t) PB_SIZE_MAX);
        }
        LEND_MAP(ret, config, labels);
        LEND_MAP(ret, config, annotations);
        return 0;
}

int pod_describe_containers(const Pod *p, const Container *without, Arena *arena, runtime_v1_ContainerStatus **ret,
                            pb_size_t *ret_n) {
        runtime_v1_ContainerStatus *statuses = NULL;
        size_t n = 0, i = 0;
        int r;

        for (const Container *k = p->containers; k; k = k->pod_next)
                n++;
        n = MIN(n, (size_t) PB_SIZE_MAX);
        if (n > 0) {
                statuses = arena_new(arena, runtime_v1_ContainerStatus, n);
                if (!statuses)
                        return -ENOMEM;
        }
        for (const Container *k = p->containers; k && i < n; k = k->pod_next) {
                if (k == without || k->phase == CONTAINER_CREATING)
                        continue;
                r = container_describe_status(k, arena, &statuses[i++]);
                if (r < 0)
                        return r;
        }
        *ret = statuses;
        *ret_n = (pb_size_t) i;
        return 0;
}

int image_describe(const Image *i, Arena *arena, runtime_v1_Image *ret) {
        const char *user = strempty(i->config.user);
        char *name;
        uint32_t uid;

        *ret = (runtime_v1_Image) {
                .id = i->id,
                .repo_tags = i->repo_tags,
                .repo_tags_count = (pb_size_t) MIN(strv_length(i->repo_tags), (size_t) PB_SIZE_MAX),
                .repo_digests = i->repo_digests,
                .repo_digests_count = (pb_size_t) MIN(strv_length(i->repo_digests), (size_t) PB_SIZE_MAX),
                .size = i->size,
                .has_spec = true,
                .spec.image = i->id,
                .pinned = i->pinned,
        };
        /* "1000:1000" is a number, "www-data:www-data" a name, "" neither: that is root to the kubelet. */
        name = arena_strndup(arena, user, strcspn(user, ":"));
        if (!name)
                return -ENOMEM;
        if (parse_u32(name, &uid) >= 0) {
                ret->has_uid = true;
                ret->uid.value = uid;
        } else
                ret->username = name;
        return 0;
}

runtime_v1_Signal signal_to_cri(int signo) {
        static const runtime_v1_Signal signals[] = {
                [SIGABRT] = runtime_v1_Signal_SIGABRT,     [SIGALRM] = runtime_v1_Signal_SIGALRM,
                [SIGBUS] = runtime_v1_Signal_SIGBUS,       [SIGCHLD] = runtime_v1_Signal_SIGCHLD,
                [SIGCONT] = runtime_v1_Signal_SIGCONT,     [SIGFPE] = runtime_v1_Signal_SIGFPE,
                [SIGHUP] = runtime_v1_Signal_SIGHUP,       [SIGILL] = runtime_v1_Signal_SIGILL,
                [SIGINT] = runtime_v1_Signal_SIGINT,       [SIGIO] = runtime_v1_Signal_SIGIO,
                [SIGKILL] = runtime_v1_Signal_SIGKILL,     [SIGPIPE] = runtime_v1_Signal_SIGPIPE,
                [SIGPROF] = runtime_v1_Signal_SIGPROF,     [SIGPWR] = runtime_v1_Signal_SIGPWR,
                [SIGQUIT] = runtime_v1_Signal_SIGQUIT,     [SIGSEGV] = runtime_v1_Signal_SIGSEGV,
                [SIGSTKFLT] = runtime_v1_Signal_SIGSTKFLT, [SIGSTOP] = runtime_v1_Signal_SIGSTOP,
                [SIGSYS] = runtime_v1_Signal_SIGSYS,       [SIGTERM] = runtime_v1_Signal_SIGTERM,
                [SIGTRAP] = runtime_v1_Signal_SIGTRAP,     [SIGTSTP] = runtime_v1_Signal_SIGTSTP,
                [SIGTTIN] = runtime_v1_Signal_SIGTTIN,     [SIGTTOU] = runtime_v1_Signal_SIGTTOU,
                [SIGURG] = runtime_v1_Signal_SIGURG,       [SIGUSR1] = runtime_v1_Signal_SIGUSR1,
                [SIGUSR2] = runtime_v1_Signal_SIGUSR2,     [SIGVTALRM] = runtime_v1_Signal_SIGVTALRM,
                [SIGWINCH] = runtime_v1_Signal_SIGWINCH,   [SIGXCPU] = runtime_v1_Signal_SIGXCPU,
                [SIGXFSZ] = runtime_v1_Signal_SIGXFSZ,
        };

        /* Both sides count the real-time signals without a gap: 34 … 64 here, 35 … 65 there. */
        if (signo >= 34 && signo <= 64)
                return runtime_v1_Signal_SIGRTMIN + (unsigned) signo - 34;
        return signo > 0 && (size_t) signo < ELEMENTSOF(signals) ? signals[signo] : runtime_v1_Signal_RUNTIME_DEFAULT;
}
